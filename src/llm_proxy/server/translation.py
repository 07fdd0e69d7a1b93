"""The path of one translated answer: upstream bytes to events, past the duties and the rooms, ready for the client's writer.

Streamed or not, every translated answer passes here. Holds no socket.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import islice

import msgspec

from llm_proxy.conversation.events import (
    Delta,
    End,
    Event,
    Failed,
    PartEnd,
    PartStart,
    Start,
    UsageSeen,
    Whole,
    is_content,
)
from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.conversation.fold import Folder, unfold
from llm_proxy.conversation.parts import Thinking
from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects.base import Dialect, Duties, ReadContext, StreamReader
from llm_proxy.dialects.duties import DutyFilter
from llm_proxy.features import AskAgain, Feature, Filter
from llm_proxy.server.originals import Original
from llm_proxy.wire.faults import WireFault
from llm_proxy.wire.sse import ArrayReader, Frame, SseReader

_LOG = logging.getLogger(__name__)


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


class RoomFilter(msgspec.Struct):
    """A room's filter behind its wall."""

    room: Feature
    filter: Filter | None


class Translation:
    """One answer. `feed`/`close` for a stream, `whole` for a body; both give the events that the client shall see.

    `usage` is the provider's figure (or the estimate, once the answer ended without one) and what earlier calls for the same request
    `spent`, `folder` the answer so far. `stopped`: the rest of the upstream's answer is not wanted. `original`: where the
    frames may go out as they came.
    """

    def __init__(
        self,
        dialect: Dialect,
        context: ReadContext,
        duties: Duties,
        filters: Sequence[RoomFilter],
        estimated_input: int,
        shown_model: str = "",
        spent: Usage | None = None,
        original: Original | None = None,
    ) -> None:
        self._dialect = dialect
        self._context = context
        self._duty = None if duties.none else DutyFilter(duties)
        self._filters = filters
        self._reader: StreamReader | None = None
        self._estimated_input = estimated_input
        self._shown_model = shown_model
        self._output_bytes = 0
        self._spent = spent
        self._seen: Usage | None = None
        self._complete = False
        self._numbers: dict[int, int] = {}
        self._renumbers = False
        self._original = original
        self.folder = Folder()
        self.thoughts: list[Thinking] = []
        """The reasoning of the answer as it came, whatever rooms made of it."""
        self.stopped = False
        self.spoke = False
        """Did anything come past the rooms, in the portion that failed, before they knew of the failure? Else a client to whom
        nothing was sent may have another attempt, whatever rooms held."""

    @property
    def usage(self) -> Usage | None:
        """None as long as nothing is known. Of an answer that did not reach its end at the client: what has come so far."""
        if self.folder.ended:
            return self.folder.usage
        seen = self.used if self._complete else self._seen
        return seen if self._spent is None else self._spent if seen is None else self._spent.plus(seen)

    @property
    def used(self) -> Usage:
        """What this call has used, as far as it is known, and estimated where it is not; without what earlier calls spent."""
        return self._completed(self._seen or Usage(source="estimated"))

    def feed(self, frames: Sequence[Frame]) -> list[Event]:
        reader = self._reader
        if reader is None:
            reader = self._reader = self._dialect.stream_reader(self._context)
        if self._original is None:
            events = [event for frame in frames for event in reader.feed(frame)]
            return self._folded(self._past_rooms(events)) if events else events
        return self._as_it_came([(frame, reader.feed(frame)) for frame in frames])

    def close(self) -> list[Event]:
        if self._reader is None:
            self._reader = self._dialect.stream_reader(self._context)
        return self._late(self._reader.close())

    def whole(self, body: bytes) -> list[Event]:
        """Raises FaultError when the body is no answer."""
        events = list(unfold(self._dialect.read_answer(body, self._context)))
        return self.passed(events) if self._original is None else self._as_it_came([(Frame(body, "", body), events)])

    def passed(self, events: Sequence[Event]) -> list[Event]:
        """Events that were read elsewhere (copies of a request) through the duties and the rooms."""
        return self._folded(self._past_rooms(events))

    def broken(self, fault: Fault) -> list[Event]:
        """The answer broke off: what the rooms still hold, and the failure."""
        try:
            return self._late([Failed(fault)])
        except (AskAgain, FaultError):  # a room objects to what came; the answer is broken anyway
            self._filters = ()
            return self._late([Failed(fault)])

    def _late(self, events: Sequence[Event]) -> list[Event]:
        """Events that stand in no frame."""
        return self.passed(events) if self._original is None else self._as_it_came([(None, events)])

    def _as_it_came(self, pairs: Sequence[tuple[Frame | None, Sequence[Event]]]) -> list[Event]:
        """Frames with the events in them past the rooms: whatever comes back as it was leaves as it was."""
        original = self._original
        assert original is not None
        events = pairs[0][1] if len(pairs) == 1 else [event for _, found in pairs for event in found]
        given = self._past_rooms(events)
        if original.passes(pairs, events, given):
            return self._folded(given)
        settled, rest = original.take(given)
        out = self._folded(settled)
        if rest:
            original.already_said(self.folder.replay())
            out += self._folded(rest)
        return out

    def _past_rooms(self, events: Sequence[Event]) -> Sequence[Event]:
        if len(events) > 1 and type(events[-1]) is Failed:
            before = self._past_rooms(events[:-1])
            self.spoke = any(map(is_content, before))
            return [*before, *self._past_rooms(events[-1:])]
        if self._duty is not None:
            events = self._duty.feed(events)
            self.stopped = self._duty.stopped
        for event in events:
            if type(event) is Delta:  # nearly all events are
                continue
            if type(event) is UsageSeen or (type(event) is Start and event.usage is not None):
                assert event.usage is not None
                self._seen = event.usage if self._seen is None else self._seen.merged(event.usage)
            elif type(event) is PartEnd and type(event.whole) is Thinking:
                self.thoughts.append(event.whole)
            elif type(event) is End:
                self._complete = True
        for one in self._filters:
            events = self._through(one, events)
        if self._filters:
            events = self._numbered(events)
        return events if self._spent is None else [self._summed(event, self._spent) for event in events]

    def _through(self, one: RoomFilter, events: Sequence[Event]) -> Sequence[Event]:
        """Past one filter. What it raises ends here: it is skipped from then on, and what it held goes on."""
        room_filter = one.filter
        if room_filter is None:
            return events
        held = room_filter.held
        count = len(held)
        try:
            events = room_filter.feed(events)
        except AskAgain:
            raise
        except Exception as error:
            # A request that only its provider can read says nothing about the answer: the room had no use for it.
            if isinstance(error, FaultError) and error.fault.side != "client":
                raise
            _LOG.exception("room %s failed on an answer, it is skipped for the rest of it", one.room.name)
            if one.room.fails_closed:
                one.filter = None
                raise FaultError(
                    Fault(
                        kind="internal",
                        message=f"the safeguard {one.room.name} failed; the proxy's log says why",
                        side="proxy",
                    )
                ) from None
            one.filter = None
            return [*islice(held, count), *events]
        if room_filter.stopped:
            self.stopped = True
        return events

    def _numbered(self, events: Sequence[Event]) -> Sequence[Event]:
        """Part numbers in order of appearance, whatever rooms added or dropped."""
        numbers = self._numbers
        changed: list[Event] | None = None
        for at, event in enumerate(events):
            if type(event) is Delta and not self._renumbers:
                continue
            if type(event) is PartStart or type(event) is Whole:
                number = numbers[event.part] = len(numbers)
                self._renumbers = self._renumbers or number != event.part
            elif not self._renumbers:
                continue
            part = getattr(event, "part", None)
            if part is not None and (number := numbers.get(part, part)) != part:
                changed = list(events) if changed is None else changed
                changed[at] = msgspec.structs.replace(event, part=number)
        return events if changed is None else changed

    def _folded(self, events: Sequence[Event]) -> list[Event]:
        """What the client gets, remembered."""
        out: list[Event] = []
        folder = self.folder
        add = folder.add
        for event in events:
            if type(event) is Delta:
                self._output_bytes += len(event.text)
                add(event)
                out.append(event)
                continue
            if type(event) is Start:
                if self._shown_model:
                    event = msgspec.structs.replace(event, model=self._shown_model)
            elif type(event) is End:
                out += self._before_end()
            folder.feed(event)
            out.append(event)
        return out

    @staticmethod
    def _summed(event: Event, spent: Usage) -> Event:
        match event:
            case UsageSeen(usage):
                return UsageSeen(spent.plus(usage))
            case Start(usage=Usage() as usage):
                return msgspec.structs.replace(event, usage=spent.plus(usage))
            case _:
                return event

    def _before_end(self) -> list[Event]:
        """An answer without usage gets the estimate, marked as such; frames that go out as they came are left as they are."""
        usage = self.folder.usage
        if usage is not None and usage.output is not None and usage.input is not None:
            return []
        completed = self._completed(usage or Usage(source="estimated"))
        estimate = UsageSeen(completed if self._spent is None or usage is not None else self._spent.plus(completed))
        self.folder.feed(estimate)
        return [] if self._original is not None and not self._original.diverged else [estimate]

    def _completed(self, usage: Usage) -> Usage:
        """`usage` with estimates where nothing is known."""
        if usage.input is not None and usage.output is not None:
            return usage
        return Usage(
            input=self._estimated_input if usage.input is None else usage.input,
            output=max(1, self._output_bytes // 4) if usage.output is None else usage.output,
            source="partial" if usage.source == "partial" else "estimated",
        )


def failure(events: Sequence[Event]) -> Failed | None:
    """The failure among `events`, if any; it is always the last."""
    return events[-1] if events and isinstance(events[-1], Failed) else None
