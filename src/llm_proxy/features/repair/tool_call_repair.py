"""Tool-call repair (RSP-05): calls that a model wrote as text become real calls, broken arguments of real ones become JSON.

Owns the options and what becomes of the events of an answer; how calls are written is known in `textual_calls/`. Events are held whole and
in order, only while it is undecided what they are, and given back as they came where nothing is found.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from llm_proxy.config.options import ChatKey, OptionGroup, option
from llm_proxy.conversation.answer import Stop
from llm_proxy.conversation.events import Cited, Delta, End, Event, Failed, Finish, Logprobs, PartEnd, PartStart
from llm_proxy.conversation.fold import unfold_part
from llm_proxy.conversation.parts import Text, ToolCall
from llm_proxy.conversation.request import CustomTool, FunctionTool
from llm_proxy.features import Feature, Filter
from llm_proxy.features.exchange import ExchangeView
from llm_proxy.features.repair.textual_calls import Found, JsonBeginning, Miss, Scanner, Schema, Tools, is_whole
from llm_proxy.wire.loose_json import is_json, repaired

_LOG = logging.getLogger(__name__)
_KEY: Final = "tool-call-repair"
_NOTE: Final = "tool call repair"
_CUT_SHORT: Final = frozenset(("length", "context_full", "content_filter", "pause"))
"""Ends that came before the model had said all: what is not whole then is no call."""
_FREE_TEXT: Final[Schema] = {"properties": {"input": {"type": "string"}}, "additionalProperties": False}
"""How the input of a tool that takes free text is told as arguments."""


class ToolCallRepairOptions(OptionGroup, path="session", title="Tool-call repair"):
    tool_call_repair_enabled: bool = option(
        True,
        env="TOOL_CALL_REPAIR_ENABLED",
        switch="tool-call-repair",
        chat=ChatKey(_KEY, "session"),
        help="make real tool calls of those that a model writes as text",
    )
    tool_call_repair_buffer_cap_bytes: int = option(
        65536,
        env="TOOL_CALL_REPAIR_BUFFER_CAP_BYTES",
        minimum=256,
        maximum=8388608,
        unit="bytes",
        help="most text of an answer that is held back while it may be a tool call",
    )


class ToolCallRepair(Feature):
    """Not interested where no tools are declared, which is so with agents that read XML from text, and where JSON is demanded."""

    name = "tool-call repair"

    def __init__(self, options: ToolCallRepairOptions) -> None:
        self._enabled = options.tool_call_repair_enabled
        self._limit = options.tool_call_repair_buffer_cap_bytes

    def watch(self, exchange: ExchangeView) -> Filter | None:
        if not exchange.tools or exchange.json_demanded or not exchange.session.values.get(_KEY, self._enabled):
            return None
        return Repair(exchange, self._limit)


class _TextPart:
    """A text that is being read."""

    __slots__ = ("behind", "choice", "ended", "hurried", "left", "scanner", "size", "started")

    def __init__(self, choice: int, scanner: Scanner) -> None:
        self.choice = choice
        self.scanner = scanner
        self.size = 0
        self.behind = 0
        """Characters that are held behind the first call."""
        self.ended = False
        self.started = False
        """Was its `PartStart` given on?"""
        self.hurried = False
        """Something else came: blank text at its beginning waits no longer."""
        self.left = False
        """Left alone: its events flow as they came."""

    @property
    def found(self) -> bool:
        return self.scanner.begin >= 0 and not self.left

    def free(self, end: int) -> bool:
        """May what ends at character `end` flow? Blank text at the beginning waits, because it is dropped before a call."""
        if self.left:
            return True
        if self.scanner.plain < end or (self.ended and self.found):
            return False
        return not self.scanner.blank or self.hurried or self.ended


class _CallPart:
    """A call of the provider's. Its arguments flow as long as they can be JSON, and a repair would leave them as they are."""

    __slots__ = ("_beginning", "_good", "flowed", "size")

    def __init__(self) -> None:
        self._beginning = JsonBeginning()
        self._good = True
        self.size = 0
        self.flowed = 0
        """Characters up to the end of the last delta that no repair would change."""

    @property
    def settled(self) -> int:
        return self._beginning.settled

    def look(self, text: str) -> None:
        before, self.size = self.size, self.size + len(text)
        if self._good:
            self._good = self._beginning.goes_on(text)
            if self.settled >= before:
                self.flowed = self.size if self.settled >= self.size else before


class _Declared:
    """The request's tools by name; the request is decoded only once somebody calls one."""

    def __init__(self, exchange: ExchangeView) -> None:
        self._exchange = exchange
        self._tools: dict[str, FunctionTool | CustomTool] | None = None

    def tool(self, name: str) -> FunctionTool | CustomTool | None:
        if self._tools is None:
            request = self._exchange.request
            may = request.tool_choice is None or request.tool_choice.mode != "none"
            tools = request.tools if may else ()
            self._tools = {tool.name: tool for tool in tools if isinstance(tool, FunctionTool | CustomTool)}
        return self._tools.get(name)

    def schema(self, name: str) -> Schema | None:
        match self.tool(name):
            case FunctionTool(parameters=parameters):
                return parameters
            case CustomTool():
                return _FREE_TEXT
            case _:
                raise Miss


class Repair(Filter):
    """The events of one answer. What is held waits in one row, so the order never changes."""

    def __init__(self, exchange: ExchangeView, limit: int) -> None:
        self._exchange = exchange
        self._limit = limit
        self._declared = _Declared(exchange)
        self._tools = Tools(exchange.tools, self._declared.schema)
        self._texts: dict[int, _TextPart] = {}
        self._calls: dict[int, _CallPart] = {}
        self._native: set[int] = set()
        """Choices with a call of the provider's: no calls are made of their text."""
        self.held: deque[Event] = deque()
        self._ends: deque[int] = deque()
        """For each of `held` where it ends in its text, if it is a delta of one."""
        self._out: list[Event] = []
        self._count = 0
        self._before: list[Event] | None = None
        """What was held before this portion, once something of it was changed."""

    def feed(self, events: Sequence[Event]) -> Sequence[Event]:
        out: list[Event] = []
        before, self._before = self.held, None
        self._out, self._count = out, len(before)
        try:
            for event in events:
                if type(event) is Delta:
                    self._delta(event, out)
                else:
                    self._other(event, out)
            return out
        except Exception:
            # The wall gives on what was held before this portion, and the portion.
            row = self._as_it_was()
            before.clear()
            before.extend(row)
            raise

    def _as_it_was(self) -> list[Event]:
        """What was held before this portion, whatever became of it."""
        return [*self._out, *self.held][: self._count] if self._before is None else self._before

    def _delta(self, event: Delta, out: list[Event]) -> None:
        text = self._texts.get(event.part)
        end = 0
        if text is not None:
            text.size += len(event.text)
            end = text.size
            if not text.left:
                text.scanner.feed(event.text)
                if text.found and self._too_far(text, event):
                    return
        elif (call := self._calls.get(event.part)) is not None:
            call.look(event.text)
            if call.size - call.flowed > self._limit:
                del self._calls[event.part]
            end = call.size
        self._pass(event, end, out)

    def _other(self, event: Event, out: list[Event]) -> None:
        match event:
            case PartStart(part=part, skeleton=Text(), choice=choice):
                if choice not in self._native:
                    self._texts[part] = _TextPart(choice, Scanner(self._tools, self._limit))
            case PartStart(part=part, skeleton=skeleton, choice=choice):
                for text in self._texts.values():
                    text.hurried = text.hurried or (text.choice == choice and text.scanner.plain == text.size)
                if isinstance(skeleton, ToolCall):
                    self._leave(choice)
                    self._native.add(choice)
                    if skeleton.kind == "function":
                        self._calls[part] = _CallPart()
            case PartEnd(part=part, whole=whole):
                if (ended := self._texts.get(part)) is not None:
                    ended.ended = True
                    ended.scanner.end()
                elif part in self._calls and isinstance(whole, ToolCall):
                    event = self._mended(event, self._calls.pop(part), whole)
            case Finish():
                event = self._finished(event)
            case End() | Failed():
                self._let_go()
            case _:
                pass
        self._pass(event, 0, out)

    # What is held

    def _pass(self, event: Event, end: int, out: list[Event]) -> None:
        """Gives `event` on, or holds it, and gives on what is held no longer."""
        if not self.held:
            if self._free(event, end):
                out.append(event)
                return
            self.held.append(event)
            self._ends.append(end)
            return
        self.held.append(event)
        self._ends.append(end)
        while self.held and self._free(self.held[0], self._ends[0]):
            out.append(self.held.popleft())
            self._ends.popleft()

    def _free(self, event: Event, end: int) -> bool:
        """May this event be given on, if it is the next one?"""
        part = getattr(event, "part", None)
        if part is None:
            return True
        if (text := self._texts.get(part)) is not None:
            if not text.free(end):
                return False
            text.started = True
            return True
        call = self._calls.get(part)
        return call is None or end <= call.flowed

    def _leave(self, choice: int) -> None:
        """The texts of that choice flow as they came, but for those of which something is gone already."""
        for text in self._texts.values():
            if text.choice == choice and text.behind <= self._limit:
                text.left = True

    def _let_go(self) -> None:
        for text in self._texts.values():
            text.left = True
        self._calls.clear()

    def _too_far(self, text: _TextPart, event: Delta) -> bool:
        """Text behind calls is held in case the provider makes a call of its own, but no more of it than the limit."""
        if text.size - len(event.text) < text.scanner.begin:
            return False
        text.behind += len(event.text)
        return text.behind > self._limit

    # Calls that are found

    def _finished(self, finish: Finish) -> Event:
        """A choice ends: the calls that were found in its text take their place."""
        texts = {part: text for part, text in self._texts.items() if text.choice == finish.choice}
        found = [text for text in texts.values() if text.found]
        calls = [call for text in found if text is found[0] or text.scanner.blank for call in text.scanner.calls]
        if finish.stop.kind in _CUT_SHORT:
            calls = [call for call in calls if call.whole]
        if calls:
            self._exchange.note(_NOTE)
            _LOG.debug("%s: %d tool calls came as text", self._exchange.id, len(calls))
            first = next(part for part, text in texts.items() if text is found[0])
            later = list(texts)[list(texts).index(first) + 1 :]
            self._rewrite(first, later, finish.choice, calls)
            finish = msgspec.structs.replace(finish, stop=Stop("tool_use"))
        for text in texts.values():
            text.left = True
        return finish

    def _rewrite(self, first: int, later: Sequence[int], choice: int, calls: Sequence[Found]) -> None:
        """What is held of that choice is cut where the calls begin, and they follow."""
        row: list[tuple[Event, int]] = []
        for event, end in zip(self.held, self._ends, strict=True):
            part = getattr(event, "part", None)
            if part in later or (isinstance(event, Logprobs) and event.choice == choice):
                continue
            row += ((kept, end) for kept in ((event,) if part != first else self._cut(self._texts[first], event, end)))
            if part == first and isinstance(event, PartEnd):
                for call in calls:
                    row += ((made, 0) for made in unfold_part(self._exchange.new_part(), self._real(call), choice))
        self._hold(row)

    def _hold(self, row: Sequence[tuple[Event, int]]) -> None:
        self._before = self._as_it_was()
        self.held, self._ends = deque(event for event, _ in row), deque(end for _, end in row)

    def _cut(self, text: _TextPart, event: Event, end: int) -> Iterator[Event]:
        """What remains of an event of the text in which the calls begin; nothing if only blanks come before them."""
        begin = text.scanner.begin
        if text.scanner.blank and not text.started:
            return
        match event:
            case Delta(part=part, text=piece):
                if end <= begin:
                    yield event
                elif kept := piece[: max(0, begin - end + len(piece))]:
                    yield Delta(part, kept)
            case PartEnd(part=part, whole=Text() as whole):
                citations = tuple(citation for citation in whole.citations if citation.end <= begin)
                yield PartEnd(part, msgspec.structs.replace(whole, text=whole.text[:begin], citations=citations))
            case Cited(citation=citation):
                if citation.end <= begin:
                    yield event
            case _:
                yield event

    def _real(self, call: Found) -> ToolCall:
        tool = self._declared.tool(call.name)
        made = ToolCall(id=f"call_{secrets.token_hex(12)}", name=call.name, arguments=call.json)
        if isinstance(tool, CustomTool):
            text = call.arguments.get("input", "")
            made = msgspec.structs.replace(made, arguments=text if isinstance(text, str) else call.json, kind="custom")
        namespace, legacy = getattr(tool, "namespace", ""), getattr(tool, "legacy", False)
        return msgspec.structs.replace(made, namespace=namespace, legacy=legacy)

    # Broken arguments of real calls

    def _mended(self, event: PartEnd, call: _CallPart, whole: ToolCall) -> PartEnd:
        """The end of a real call, with its arguments mended where that gives an object that begins as what flowed already."""
        if not whole.arguments.strip() or is_json(whole.arguments):
            return event
        mended = repaired(whole.arguments)
        if mended is None or not (
            mended.startswith(whole.arguments[: call.settled]) and is_whole(mended, whole.arguments)
        ):
            return event
        row = [
            (held, end)
            for held, end in zip(self.held, self._ends, strict=True)
            if not (isinstance(held, Delta) and held.part == event.part and end > call.flowed)
        ]
        if rest := mended[call.flowed :]:
            row.append((Delta(event.part, rest), 0))
        self._hold(row)
        self._exchange.note(_NOTE)
        return PartEnd(event.part, msgspec.structs.replace(whole, arguments=mended))
