"""What the proxy owes a client because the target could not take the request as it was: an event filter, the same for all dialects.

Names are mapped back, custom tools unwrapped, stop sequences enforced, a forced JSON tool turned into text, surplus calls dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llm_proxy.conversation.answer import Stop
from llm_proxy.conversation.events import (
    Cited,
    Delta,
    End,
    Event,
    Finish,
    PartEnd,
    PartStart,
    Sealed,
    Whole,
)  # fmt: skip
from llm_proxy.conversation.fold import OpenPart
from llm_proxy.conversation.parts import Text, ToolCall
from llm_proxy.dialects.base import Duties

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "/": "/", "\\": "\\", '"': '"'}


class InputUnwrapper:
    """Decodes the string value of `{"input": "…"}` while its JSON text arrives in pieces.

    Text that is not of that form is passed through as it is when the arguments end (`rest`).
    """

    def __init__(self) -> None:
        self._text = ""
        self._at = -1
        self._done = False

    def feed(self, piece: str) -> str:
        """The decoded characters that `piece` completes. Linear: consumed text is dropped."""
        if self._done:
            return ""
        self._text += piece
        if self._at < 0 and not self._find_value():
            return ""
        out: list[str] = []
        text, at = self._text, self._at
        while at < len(text):
            stop = min((found for found in (text.find("\\", at), text.find('"', at)) if found >= 0), default=len(text))
            out.append(text[at:stop])
            at = stop
            if at >= len(text):
                break
            if text[at] == '"':
                self._done = True
                break
            decoded, used = _escape(text, at)
            if not used:
                break
            out.append(decoded)
            at += used
        self._text, self._at = text[at:], 0
        return "".join(out)

    def _find_value(self) -> bool:
        compact = self._text.lstrip()
        if not compact.startswith("{"):
            return False
        key = self._text.find('"input"')
        if key < 0:
            return False
        value = self._text[key + 7 :].lstrip()
        if not value.startswith(":") or not (value := value[1:].lstrip()).startswith('"'):
            return False
        self._at = len(self._text) - len(value) + 1
        return True

    def rest(self, arguments: str) -> str:
        """What to send when the arguments ended and nothing could be unwrapped: the arguments themselves."""
        return "" if self._at >= 0 else arguments


def _escape(text: str, at: int) -> tuple[str, int]:
    """The character of the escape at `at` and its length; length 0 when it is not complete yet."""
    if at + 1 >= len(text):
        return "", 0
    letter = text[at + 1]
    if letter != "u":
        return _ESCAPES.get(letter, letter), 2
    if at + 6 > len(text):
        return "", 0
    code = _hex(text[at + 2 : at + 6])
    if 0xD800 <= code < 0xDC00:
        if at + 12 > len(text):
            return "", 0
        low = _hex(text[at + 8 : at + 12]) if text[at + 6 : at + 8] == "\\u" else -1
        if 0xDC00 <= low < 0xE000:
            return chr(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)), 12
        return "\ufffd", 6
    return ("\ufffd" if code < 0 or 0xDC00 <= code < 0xE000 else chr(code)), 6


def _hex(digits: str) -> int:
    try:
        return int(digits, 16)
    except ValueError:
        return -1


class StopCutter:
    """Finds the first stop sequence in a text that arrives in pieces; holds back only what may begin one."""

    def __init__(self, sequences: tuple[str, ...]) -> None:
        self._sequences = tuple(sequence for sequence in sequences if sequence)
        self._held = ""
        self._longest = max((len(sequence) for sequence in self._sequences), default=0)
        self.matched = ""

    def feed(self, piece: str) -> str:
        """Text that is safe to send. After a match (`matched`) nothing more comes out."""
        text = self._held + piece
        hits = [(at, sequence) for sequence in self._sequences if (at := text.find(sequence)) >= 0]
        if hits:
            at, self.matched = min(hits, key=lambda hit: (hit[0], -len(hit[1])))
            self._held = ""
            return text[:at]
        keep = next(
            (
                size
                for size in range(min(self._longest - 1, len(text)), 0, -1)
                if any(sequence.startswith(text[-size:]) for sequence in self._sequences)
            ),
            0,
        )
        self._held = text[len(text) - keep :] if keep else ""
        return text[: len(text) - keep] if keep else text

    def flush(self) -> str:
        held, self._held = self._held, ""
        return held


class DutyFilter:
    """Events of the target in, events for the client out. `stopped` turns true when the upstream is not needed any more."""

    def __init__(self, duties: Duties) -> None:
        self._duties = duties
        self._numbers: dict[int, int] = {}
        self._open: dict[int, OpenPart] = {}
        self._unwrappers: dict[int, InputUnwrapper] = {}
        self._cutters: dict[int, StopCutter] = {}
        self._dropped: set[int] = set()
        self._calls: dict[int, int] = {}
        self._json_choices: set[int] = set()
        self.stopped = False

    def feed(self, events: Sequence[Event]) -> list[Event]:
        out: list[Event] = []
        for event in events:
            if self.stopped:
                break
            self._one(event, out)
        return out

    def _one(self, event: Event, out: list[Event]) -> None:
        match event:
            case PartStart():
                self._start(event, out)
            case Delta(part, text, new_piece):
                if part not in self._dropped:
                    self._delta(part, text, new_piece, out)
            case PartEnd():
                if event.part not in self._dropped:
                    self._end(event, out)
            case Sealed(part, seal):
                if part not in self._dropped and part in self._numbers:
                    if part in self._open:
                        self._open[part].seal = seal
                    out.append(Sealed(self._numbers[part], seal))
            case Cited(part, citation):
                if part in self._open:
                    self._open[part].citations.append(citation)
                out.append(Cited(self._numbers[part], citation))
            case Whole(part, content, choice):
                out.append(Whole(self._number(part), content, choice))
            case Finish(stop, choice):
                out.append(Finish(self._stop(stop, choice), choice))
            case _:
                out.append(event)

    def _number(self, part: int) -> int:
        return self._numbers.setdefault(part, len(self._numbers))

    def _start(self, event: PartStart, out: list[Event]) -> None:
        skeleton, duties = event.skeleton, self._duties
        if isinstance(skeleton, ToolCall):
            seen = self._calls.get(event.choice, 0)
            self._calls[event.choice] = seen + 1
            if duties.first_call_only and seen:
                self._dropped.add(event.part)
                return
            if duties.json_tool and skeleton.name == duties.json_tool:
                self._json_choices.add(event.choice)
                skeleton = Text(skeleton.arguments)
            else:
                if skeleton.name in duties.custom_tools:
                    self._unwrappers[event.part] = InputUnwrapper()
                    skeleton = msgspec.structs.replace(skeleton, kind="custom")
                skeleton = self._named(skeleton)
        elif isinstance(skeleton, Text) and duties.stop:
            self._cutters[event.part] = StopCutter(duties.stop)
        if self._altered(event.part) or skeleton is not event.skeleton:
            self._open[event.part] = OpenPart(skeleton, event.choice)
        out.append(PartStart(self._number(event.part), skeleton, event.choice))

    def _altered(self, part: int) -> bool:
        return part in self._unwrappers or part in self._cutters

    def _named(self, call: ToolCall) -> ToolCall:
        if call.name in self._duties.namespaces:
            namespace, name = self._duties.namespaces[call.name]
            return msgspec.structs.replace(call, name=name, namespace=namespace)
        if call.name in self._duties.names:
            return msgspec.structs.replace(call, name=self._duties.names[call.name])
        return call

    def _delta(self, part: int, text: str, new_piece: bool, out: list[Event]) -> None:
        if part in self._unwrappers:
            text = self._unwrappers[part].feed(text)
        elif part in self._cutters:
            text = self._cutters[part].feed(text)
        if text:
            if part in self._open:
                self._open[part].add(text, new_piece)
            out.append(Delta(self._numbers[part], text, new_piece))
        if part in self._cutters and self._cutters[part].matched:
            self._cut(part, out)

    def _cut(self, part: int, out: list[Event]) -> None:
        """A stop sequence matched: end the answer here as if the provider had stopped at it."""
        opened = self._open.pop(part)
        out.append(PartEnd(self._numbers[part], opened.whole()))
        out.extend(PartEnd(self._numbers[other], value.whole()) for other, value in self._open.items())
        out.append(Finish(Stop("stop_sequence", sequence=self._cutters[part].matched), opened.choice))
        out.append(End())
        self.stopped = True

    def _end(self, event: PartEnd, out: list[Event]) -> None:
        part = event.part
        opened = self._open.get(part)
        if opened is None:
            out.append(PartEnd(self._numbers[part], event.whole))
            return
        tail = ""
        if part in self._unwrappers and isinstance(event.whole, ToolCall):
            tail = self._unwrappers[part].rest(event.whole.arguments)
        elif part in self._cutters:
            tail = self._cutters[part].flush()
        if tail:
            opened.add(tail)
            out.append(Delta(self._numbers[part], tail))
        del self._open[part]
        if isinstance(event.whole, Text | ToolCall) and not isinstance(opened.skeleton, type(event.whole)):
            out.append(PartEnd(self._numbers[part], opened.whole()))
            return
        if isinstance(event.whole, Text | ToolCall) and event.whole.seal and opened.seal is None:
            opened.seal = event.whole.seal
        out.append(PartEnd(self._numbers[part], opened.whole()))

    def _stop(self, stop: Stop, choice: int) -> Stop:
        if stop.kind == "tool_use" and choice in self._json_choices and self._calls.get(choice, 0) == 1:
            return msgspec.structs.replace(stop, kind="end")
        return stop
