"""The audit log (OPS-09): an opt-in trail of texts, one entry per generating request and per local command.

Owns the making of entries: no text in them holds a secret or is longer than 64 KiB. Where entries go is the
stores' business. Without the room no text is collected for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from llm_proxy.conversation.fault import Fault
from llm_proxy.features import Feature
from llm_proxy.features.exchange import ExchangeView
from llm_proxy.features.usage import system_user
from llm_proxy.store.records import AuditEntry

MOST_BYTES = 65536
CUT = " … [cut]"
_MOST_NAME = 200
_OVERLAP = 2048
"""Characters looked at beyond the cut, so that no half of a secret stays."""
MOST_KEPT = MOST_BYTES + _OVERLAP
"""Characters of an answer that are collected for its entry."""


class EntrySink(Protocol):
    """Takes entries without waiting."""

    def add_entry(self, entry: AuditEntry) -> None: ...


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a request, as it came: secrets in it, and texts of any length."""

    id: str
    time: float
    agent: str
    user: str
    model: str
    prompt: str
    answer: str
    completion_id: str
    project: str
    session: str
    key_name: str
    fault: Fault | None = None
    local: bool = False


class Audit(Feature):
    """Writes an entry to each of `sinks` at the end of every exchange. `clean` takes secrets out of a text."""

    name = "audit"

    def __init__(self, sinks: tuple[EntrySink, ...], clean: Callable[[str], str]) -> None:
        self._sinks = sinks
        self._clean = clean

    def on_request(self, exchange: ExchangeView) -> None:
        exchange.keep_answer(MOST_KEPT)

    def on_finish(self, exchange: ExchangeView) -> None:
        session = exchange.session
        self.add(
            Told(
                id=exchange.id,
                time=exchange.started,
                agent=session.agent if session.agent not in ("", "generic") else exchange.client_agent,
                user=exchange.user,
                model=f"{exchange.backend}:{exchange.model}" if exchange.backend else exchange.requested_model,
                prompt=exchange.prompt_text(),
                answer=exchange.answer_text(),
                completion_id=exchange.answer_id(),
                project=exchange.project,
                session=session.id,
                key_name=exchange.key_name,
                fault=None if exchange.cancelled else exchange.fault,
                local=exchange.local,
            )
        )

    def add(self, told: Told) -> None:
        """The entry of any request."""
        fault, answer = told.fault, told.answer
        if fault is not None:
            answer = f"{answer}\n{fault.message}" if answer else fault.message
        entry = AuditEntry(
            time=told.time,
            app_name=self._shown(told.agent, _MOST_NAME),
            user_name=self._shown(told.user, _MOST_NAME) or system_user(),
            model=self._shown(told.model, _MOST_NAME),
            log_type="error" if fault is not None else "command" if told.local else "chat_completion",
            prompt_text=self._shown(told.prompt),
            response_text=self._shown(answer),
            remote_completion_id=self._shown(told.completion_id, _MOST_NAME),
            project=self._shown(told.project, _MOST_NAME),
            session=told.session,
            key_name=told.key_name,
            request_id=told.id,
        )
        for sink in self._sinks:
            sink.add_entry(entry)

    def _shown(self, text: str, most: int = MOST_BYTES) -> str:
        """Without secrets, at most `most` bytes, and marked when something is missing."""
        cleaned = self._clean(text[: most + _OVERLAP])
        data = cleaned.encode("utf-8", "replace")
        if len(data) <= most and len(text) <= most + _OVERLAP:
            return data.decode("utf-8")
        return data[: most - len(CUT.encode())].decode("utf-8", "ignore") + CUT
