"""Usage recording (OPS-07): one row per call that went upstream.

Owns the room and how a row is made of what is known of a call. Knows nothing of how a row is stored or shown.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable
from functools import cache

import msgspec

from llm_proxy.conversation.usage import Usage
from llm_proxy.features import Feature
from llm_proxy.features.exchange import CallView, ExchangeView
from llm_proxy.features.pricing import Bill, Pricing, tokens_of
from llm_proxy.store.protocols import UsageSink
from llm_proxy.store.records import Kind, UsageRow

CLIENT_LEFT = 499  # nginx's number for it
_BYTES_A_TOKEN = 4
_MOST_NAME = 300
"""Characters of a name that a client chose."""
_OVERLAP = 2048
"""Characters looked at beyond the cut, so that no half of a secret stays."""


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What a row says of a call beside its tokens."""

    id: str
    started: float
    duration: float
    surface: str
    kind: Kind
    requested_model: str
    backend: str
    model: str
    status: int
    stream: bool
    session: str
    user: str
    agent: str
    project: str = ""
    safeguards: tuple[str, ...] = ()
    cached: bool = False
    """Did the proxy's own response cache answer? Such a call has a row, although nothing was called."""
    address: str = ""
    """Where the call went, when it was not the back end's own server."""

    billed: Usage | None = None
    """What counts instead of the call's own usage."""

    estimate: Usage | None = None
    """What the call probably used, where its provider says nothing."""


class UsageRecording(Feature):
    """Writes a row at the end of every exchange that reached a back end. `clean` takes secrets out of a text."""

    name = "usage"

    def __init__(self, sink: UsageSink, pricing: Pricing, clean: Callable[[str], str] = str) -> None:
        self._sink = sink
        self._pricing = pricing
        self._clean = clean

    def on_finish(self, exchange: ExchangeView) -> None:
        if not exchange.attempts and not exchange.cached:
            return
        about = About(
            id=exchange.id,
            started=exchange.started,
            duration=exchange.duration,
            surface=exchange.surface,
            kind="side" if exchange.side else "turn",
            requested_model=exchange.requested_model,
            backend=exchange.backend,
            model=exchange.model,
            status=exchange.status,
            stream=exchange.stream,
            session=exchange.session.id,
            user=exchange.user,
            agent=exchange.session.agent or "generic",
            project=exchange.project,
            safeguards=tuple(exchange.notes),
            cached=exchange.cached,
            address=exchange.address,
            billed=exchange.billed,
            estimate=_estimated(exchange),
        )
        self.add(exchange, about)

    def add(self, call: CallView, about: About) -> None:
        """The row of any call; none when nothing was called."""
        if not call.attempts and not about.cached:
            return
        usage, source = _known(call, about)
        tokens, bill = tokens_of(usage), self._pricing.bill(about.backend, about.model, usage, about.address)
        requested, model, user, agent = self._names(about)
        if about.cached:
            bill = Bill(0.0, "local")
        self._sink.add(
            UsageRow(
                id=about.id,
                time=about.started,
                surface=about.surface,
                backend=about.backend,
                model=f"{about.backend}:{model}",
                requested_model=requested,
                prompt=(usage.input or 0) if usage else 0,
                completion=(usage.output or 0) if usage else 0,
                input=tokens.input,
                output=tokens.output,
                cache_read=tokens.cache_read,
                cache_write=tokens.cache_write,
                reasoning=tokens.reasoning,
                cost=bill.cost,
                cost_source=bill.source,
                token_source=source,
                duration_ms=about.duration * 1000,
                ttft_ms=None if call.time_to_first is None else call.time_to_first * 1000,
                status=CLIENT_LEFT if call.cancelled else about.status,
                stream=about.stream,
                attempts=len(call.attempts),
                session=about.session,
                key_name=call.key_name,
                username=user or system_user(),
                agent=agent,
                project=about.project,
                safeguards=about.safeguards,
                kind=about.kind,
                cached=about.cached,
            )
        )

    def _names(self, about: About) -> list[str]:
        """What clients may have written: bounded, and without secrets, for which all are looked through at once."""
        texts = [
            text[: _MOST_NAME + _OVERLAP] for text in (about.requested_model, about.model, about.user, about.agent)
        ]
        together = "\n".join(texts)
        if self._clean(together) != together:
            texts = [self._clean(text) for text in texts]
        return [text[:_MOST_NAME] for text in texts]


def _known(call: CallView, about: About) -> tuple[Usage | None, str]:
    """The figures of a call and whose they are. What the provider said is kept; what it left out is estimated."""
    usage, estimate = about.billed or call.usage, about.estimate
    broken = call.cancelled or call.fault is not None
    if usage is None or usage.input is None or usage.output is None:
        if estimate is None:
            return usage, "unknown" if usage is None else "partial" if broken else usage.source
        known = usage if usage is not None else Usage()
        usage = msgspec.structs.replace(
            known,
            input=estimate.input if known.input is None else known.input,
            output=estimate.output if known.output is None else known.output,
            source="estimated",
        )
    return usage, "partial" if broken else usage.source


def _estimated(exchange: ExchangeView) -> Usage | None:
    """By size: what of an answer is known to have come, or was under way when the client left. None where the call simply failed."""
    if exchange.time_to_first is None and not exchange.cancelled:
        return None
    written = exchange.answer_length()
    began = exchange.time_to_first is not None
    return Usage(
        input=max(1, exchange.size // _BYTES_A_TOKEN),
        output=max(1, written // _BYTES_A_TOKEN) if began else 0,
        source="estimated",
    )


@cache
def system_user() -> str:
    """The user of the operating system, "" where it has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # an id without a name, as in many containers
        return ""
