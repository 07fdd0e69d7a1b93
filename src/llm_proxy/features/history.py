"""What a session did: its last exchanges, its totals, and a log file of it where the operator wants one (SES-05).

Owns the making of entries: what is kept of texts, and that they hold no secret. Where sessions and log files live is the stores' business.
With no history and no log it looks at no text, so nothing is decoded for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from llm_proxy.features import Feature
from llm_proxy.features.exchange import ExchangeView
from llm_proxy.sessions.history import Entry

MOST_TEXT = 4000
# So much is looked at for secrets. Removing them makes a text shorter, hence more than is kept.
_MOST_READ = 4 * MOST_TEXT
_CLIENT_LEFT = 499  # nginx's number for it
_SESSION_PARAMETERS = {"temperature": "temperature", "top-p": "top_p", "reasoning-effort": "reasoning_effort"}


class Log(Protocol):
    """Takes records without waiting."""

    def add(self, scope: str, id: str, record: Mapping[str, Any]) -> None: ...


class History(Feature):
    """Records every exchange in its session. `clean` takes secrets out of a text; `most` entries are kept in a session."""

    name = "history"

    def __init__(self, *, most: int, clean: Callable[[str], str], log: Log | None = None) -> None:
        self._most = most
        self._clean = clean
        self._log = log

    @property
    def reads_texts(self) -> bool:
        return self._most > 0 or self._log is not None

    def on_request(self, exchange: ExchangeView) -> None:
        if self.reads_texts:
            exchange.keep_answer()

    def on_finish(self, exchange: ExchangeView) -> None:
        session = exchange.session
        if not session.id:
            return  # it failed before anybody knew whose it was
        _count(exchange)
        if self.reads_texts:
            entry = self._entry(exchange)
            session.exchanges.add(entry)
            if self._log is not None:
                record = {"session": session.id, "agent": session.agent, **msgspec.structs.asdict(entry)}
                self._log.add(session.scope, session.id, record)
        session.exchanges.trim(self._most)
        session.touch()

    def _entry(self, exchange: ExchangeView) -> Entry:
        usage = exchange.usage
        return Entry(
            time=exchange.started,
            prompt=self._shown(exchange.prompt_text()),
            handler="proxy" if exchange.local else "backend",
            backend=exchange.backend,
            model=self._shown(exchange.model or exchange.requested_model),
            project=exchange.project,
            parameters=_parameters(exchange),
            response=self._shown(exchange.answer_text()),
            prompt_tokens=(usage.input or 0) if usage else 0,
            completion_tokens=(usage.output or 0) if usage else 0,
            status=_status(exchange),
            duration_ms=round(exchange.duration * 1000, 3),
            side=exchange.side,
        )

    def _shown(self, text: str) -> str:
        """At most 4000 characters without secrets, also not half of one that a cut went through."""
        cleaned = self._clean(text[:_MOST_READ])
        if len(text) > _MOST_READ and len(cleaned) <= MOST_TEXT:
            cleaned = cleaned.rpartition(" ")[0]
        return cleaned[:MOST_TEXT].encode("utf-8", "replace").decode("utf-8")


def _count(exchange: ExchangeView) -> None:
    if exchange.local:
        return
    totals, usage = exchange.session.totals, exchange.usage
    totals.requests += 1
    if usage is None:
        return
    totals.prompt += usage.input or 0
    totals.completion += usage.output or 0
    totals.cost += usage.cost or 0.0
    if usage.input is not None and not exchange.side:
        totals.context = usage.input


def _status(exchange: ExchangeView) -> int:
    if exchange.cancelled:
        return _CLIENT_LEFT
    return exchange.fault.status_code if exchange.fault else exchange.status


def _parameters(exchange: ExchangeView) -> dict[str, Any]:
    """What the request says of how to answer, and where it says nothing, what the session does."""
    values = exchange.session.values
    found: dict[str, Any] = {name: values[key] for key, name in _SESSION_PARAMETERS.items() if key in values}
    return found | exchange.parameters()
