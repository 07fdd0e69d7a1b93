"""The lines of a capture put together again: one exchange for each call of a provider.

Owns which lines belong together, and the figures of a call. Lines may be missing: their file was deleted, or the process was killed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Set
from typing import Any

import msgspec

from llm_proxy.cli.capture import meaning
from llm_proxy.conversation.usage import Usage
from llm_proxy.store.capture.reading import Line

_MOST_OPEN = 10_000


class Exchange(msgspec.Struct):
    """One call. `lines` are kept only where somebody asked for them. Times in milliseconds, `time` in Unix seconds."""

    number: int
    time: float
    request_id: str = ""
    attempt: int = 1
    call: int = 1
    session: str = ""
    backend: str = ""
    model: str = ""
    key_name: str = ""
    source: str = ""
    destination: str = ""
    status: int | None = None
    streamed: bool = False
    ended: bool = False
    failure: str = ""
    duration: float | None = None
    first: float | None = None
    sent: int = 0
    received: int = 0
    chunks: int = 0
    usage: Usage | None = None
    lines: list[Line] = []
    glance: meaning.StreamGlance | None = None

    @property
    def dialect(self) -> str:
        return meaning.dialect_of(self.destination)

    @property
    def target(self) -> str:
        return f"{self.backend}:{self.model}"

    @property
    def failed(self) -> bool:
        return bool(self.failure) or (self.status or 0) >= 400

    @property
    def outcome(self) -> str:
        """A word or two: the status, and what happened beside it."""
        status = str(self.status) if self.status else "-"
        if not self.ended:
            return f"{status} open"
        if self.failure == "the client left":
            return f"{status} left"
        return f"{status} broken" if self.failure else status


class Wanted(msgspec.Struct, frozen=True):
    """Which exchanges somebody asks for; empty members ask for nothing."""

    session: str = ""
    backend: str = ""
    model: str = ""
    since: float = 0.0
    errors: bool = False

    def takes(self, exchange: Exchange, whole: bool = True) -> bool:
        """`whole`: is the exchange as complete as it will be, so that its end counts?"""
        return (
            (not self.session or exchange.session == self.session)
            and (not self.backend or exchange.backend == self.backend)
            and self.model in exchange.model
            and exchange.time >= self.since
            and (not self.errors or not whole or exchange.failed)
        )


class Exchanges:
    """Fed with lines in order. `keep`: numbers of the exchanges whose lines are kept; None keeps none."""

    def __init__(self, keep: Set[int] = frozenset()) -> None:
        self.all: list[Exchange] = []
        self.dropped = 0
        self._keep = keep
        self._open: dict[tuple[Any, ...], Exchange] = {}
        self._count = 0

    def add(self, line: Line) -> Exchange | None:
        """The exchange that the line belongs to; None for one that belongs to none."""
        dropped = line.metadata.get("dropped")
        if isinstance(dropped, int):
            self.dropped += dropped
        if line.direction == "system_init":
            return None
        metadata = line.metadata
        key = (metadata.get("request_id"), metadata.get("attempt"), metadata.get("call"))
        exchange = self._open.get(key)
        if exchange is None or line.direction == "outbound_request":
            exchange = self._open[key] = self._begin(line)
            if len(self._open) > _MOST_OPEN:
                del self._open[next(iter(self._open))]
        with contextlib.suppress(msgspec.MsgspecError, TypeError, ValueError):
            _read(exchange, line)
        if exchange.number in self._keep:
            exchange.lines.append(line)
        if exchange.ended:
            self._open.pop(key, None)
            exchange.glance = None
        return exchange

    def forget(self) -> None:
        """Lets go of what has ended, for those who look only once."""
        self.all = [exchange for exchange in self.all if not exchange.ended]

    def _begin(self, line: Line) -> Exchange:
        self._count += 1
        metadata = line.metadata
        request = line.direction == "outbound_request"
        exchange = Exchange(
            number=self._count,
            time=line.timestamp_unix,
            request_id=str(metadata.get("request_id", "")),
            attempt=int(metadata.get("attempt") or 1),
            call=int(metadata.get("call") or 1),
            session=line.session_id,
            backend=line.backend,
            model=line.model,
            key_name=line.key_name,
            source=line.source if request else line.destination,
            destination=line.destination if request else "",
            sent=line.content_length if request else 0,
        )
        self.all.append(exchange)
        return exchange


def _read(exchange: Exchange, line: Line) -> None:
    """What a line says of its exchange. Raises when it says it in no way that is known."""
    metadata = line.metadata
    match line.direction:
        case "stream_start":
            exchange.streamed = True
            exchange.status = metadata.get("status")
            exchange.glance = meaning.StreamGlance(exchange.dialect)
        case "stream_chunk":
            exchange.chunks += 1
            exchange.received += line.content_length
            if exchange.glance is not None:
                exchange.glance.feed(meaning.data_of(line))
        case "stream_end":
            value = line.value
            exchange.ended = True
            exchange.failure = value.get("failure") or ""
            exchange.duration, exchange.first = value.get("duration_ms"), value.get("first_chunk_ms")
            exchange.received, exchange.chunks = value.get("total_bytes", 0), value.get("total_chunks", 0)
            if exchange.glance is not None:
                exchange.glance.feed(str(value.get("rest", "")).encode("utf-8", "surrogatepass"))
                exchange.usage = exchange.glance.usage
        case "inbound_response":
            exchange.ended = True
            exchange.status = metadata.get("status")
            exchange.failure = metadata.get("failure") or ""
            exchange.duration = metadata.get("duration_ms")
            exchange.received = line.content_length
            if exchange.status == 200:
                exchange.usage = meaning.usage_of(exchange.dialect, meaning.data_of(line))
