"""The path of one translated answer: upstream bytes to events, past the duties and the rooms, ready for the client's writer.

Streamed or not, every translated answer passes here. Holds no socket.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llm_proxy.conversation.events import Delta, End, Event, Failed, Start, UsageSeen
from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.conversation.fold import Folder, unfold
from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects.base import Dialect, Duties, ReadContext, StreamReader
from llm_proxy.dialects.duties import DutyFilter
from llm_proxy.features import Filter
from llm_proxy.wire.faults import WireFault
from llm_proxy.wire.sse import ArrayReader, Frame, SseReader


class FrameSource:
    """Frames of an upstream stream, be it SSE or (Gemini) a JSON array sent piece by piece."""

    def __init__(self, array: bool = False) -> None:
        self._sse = None if array else SseReader()
        self._array = ArrayReader() if array else None

    def feed(self, chunk: bytes) -> list[Frame]:
        """Raises FaultError (upstream) when the bytes are neither."""
        try:
            if self._sse is not None:
                return self._sse.feed(chunk)
            assert self._array is not None
            return [_framed(element) for element in self._array.feed(chunk)]
        except WireFault as error:
            raise FaultError(
                Fault(kind="upstream", message=f"the provider's stream is not readable: {error}")
            ) from None

    def close(self) -> list[Frame]:
        try:
            if self._sse is not None:
                return self._sse.close()
            assert self._array is not None
            self._array.close()
            return []
        except WireFault as error:
            raise FaultError(Fault(kind="closed", message=f"the provider's stream broke off: {error}")) from None


def _framed(element: bytes) -> Frame:
    return Frame(element, "", element)


class Translation:
    """One answer. `feed`/`close` for a stream, `whole` for a body; both give the events that the client shall see.

    `usage` is the provider's figure (or the estimate, once the answer ended without one), `folder` the answer so far.
    `stopped`: the rest of the upstream's answer is not wanted.
    """

    def __init__(
        self,
        dialect: Dialect,
        context: ReadContext,
        duties: Duties,
        filters: Sequence[Filter],
        estimated_input: int,
        shown_model: str = "",
    ) -> None:
        self._dialect = dialect
        self._context = context
        self._duty = None if duties.none else DutyFilter(duties)
        self._filters = filters
        self._reader: StreamReader | None = None
        self._estimated_input = estimated_input
        self._shown_model = shown_model
        self._output_bytes = 0
        self.folder = Folder()
        self.stopped = False

    @property
    def usage(self) -> Usage | None:
        return self.folder.usage

    def feed(self, frames: Sequence[Frame]) -> list[Event]:
        if self._reader is None:
            self._reader = self._dialect.stream_reader(self._context)
        events: list[Event] = []
        for frame in frames:
            events += self._reader.feed(frame)
        return self._passed(events) if events else events

    def close(self) -> list[Event]:
        if self._reader is None:
            self._reader = self._dialect.stream_reader(self._context)
        return self._passed(self._reader.close())

    def whole(self, body: bytes) -> list[Event]:
        """Raises FaultError when the body is no answer."""
        return self._passed(list(unfold(self._dialect.read_answer(body, self._context))))

    def passed(self, events: Sequence[Event]) -> list[Event]:
        """Events that were read elsewhere (copies of a request) through the duties and the rooms."""
        return self._passed(events)

    def _passed(self, events: Sequence[Event]) -> list[Event]:
        if self._duty is not None:
            events = self._duty.feed(events)
            self.stopped = self._duty.stopped
        for one in self._filters:
            events = one.feed(events)
        out: list[Event] = []
        for event in events:
            match event:
                case Delta(text=text):
                    self._output_bytes += len(text)
                case Start() if self._shown_model:
                    event = msgspec.structs.replace(event, model=self._shown_model)
                case End():
                    out += self._before_end()
                case _:
                    pass
            self.folder.feed(event)
            out.append(event)
        return out

    def _before_end(self) -> list[Event]:
        """An answer without usage gets the estimate, marked as such."""
        usage = self.folder.usage
        if usage is not None and usage.output is not None and usage.input is not None:
            return []
        estimate = UsageSeen(
            Usage(
                input=self._estimated_input if usage is None or usage.input is None else usage.input,
                output=max(1, self._output_bytes // 4) if usage is None or usage.output is None else usage.output,
                source="estimated",
            )
        )
        self.folder.feed(estimate)
        return [estimate]


def failure(events: Sequence[Event]) -> Failed | None:
    """The failure among `events`, if any; it is always the last."""
    return events[-1] if events and isinstance(events[-1], Failed) else None
