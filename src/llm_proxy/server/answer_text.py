"""What rooms asked to know of an answer, collected while it passes: its id, its visible text, its complete tool calls, all within bounds.

Translated answers give them as events. Of a stream that is relayed byte for byte only frames that show the signs of text or of a
call are looked at, by their place in the protocol's frames; that costs about a microsecond a frame. What nobody asked for
costs nothing.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence

import msgspec

from llm_proxy.conversation.events import Delta, Event, PartEnd, PartStart, Start
from llm_proxy.conversation.fault import FaultError
from llm_proxy.conversation.parts import Text, ToolCall, text_of
from llm_proxy.dialects.base import Dialect, ReadContext
from llm_proxy.server.answer_calls import READERS, SIGNS, Call, CallReader, Calls
from llm_proxy.wire.sse import Frame

MOST_CHARACTERS = 4000

_STRING = rb'\s*:\s*("(?:[^"\\]|\\.)*")'
_TEXT = {
    "openai-chat": (b'"content"', re.compile(rb'"content"' + _STRING)),
    "openai-responses": (b"output_text.delta", re.compile(rb'"delta"' + _STRING)),
    "anthropic-messages": (b"text_delta", re.compile(rb'"text"' + _STRING)),
    "gemini": (b'"text"', re.compile(rb'"text"' + _STRING)),
}


_ID = {
    "openai-chat": re.compile(rb'"id"' + _STRING),
    "openai-responses": re.compile(
        rb'"response"\s*:\s*\{[^{}]{0,200}?"id"' + _STRING + rb'|^\s*\{[^{}]{0,200}?"id"' + _STRING
    ),
    "anthropic-messages": re.compile(rb'"id"' + _STRING),
    "gemini": re.compile(rb'"responseId"' + _STRING),
}
_ID_WITHIN = 2000


class AnswerTap:
    """Collects of one answer what is wanted: its text, its calls, or both. `keeps_text` and `keeps_calls` say which, `most` how many
    characters of text.
    """

    def __init__(self, text: bool = True, calls: bool = False, most: int = MOST_CHARACTERS) -> None:
        self.keeps_text = text
        self.keeps_calls = calls
        self.most = most
        self._restart()

    def _restart(self) -> None:
        """An answer begins; an earlier one that broke off before anything of it was sent is forgotten."""
        self._pieces: list[str] = []
        self._left = self.most if self.keeps_text else 0
        self._seen = 0
        self._within = self._beyond = 0
        self._id = ""
        self._id_at: tuple[str, bytes] | None = None
        self._texts: set[int] = set()
        self._calls = Calls() if self.keeps_calls else None
        self._open: dict[int, Call] = {}
        self._reader: CallReader | None = None

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def id(self) -> str:
        """The provider's id of the answer, "" where it says none."""
        if not self._id and self._id_at is not None:
            dialect, data = self._id_at
            found = _ID[dialect].search(data, 0, _ID_WITHIN)
            text = next((group for group in found.groups() if group), b'""') if found else b'""'
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                self._id = msgspec.json.decode(text, type=str)
        return self._id

    @property
    def length(self) -> int:
        """Characters of the text; what came beyond those kept is told by its size on the wire."""
        beyond = self._beyond * self._seen // self._within if self._within else 0
        return self._seen + beyond

    @property
    def calls(self) -> list[tuple[str, str]]:
        """Name and arguments of the complete calls; `answer_calls.CUT` for arguments that were too long to keep."""
        return self._calls.complete() if self._calls is not None else []

    def _add(self, text: str) -> None:
        self._seen += len(text)
        if self._left > 0 and text:
            self._pieces.append(text[: self._left])
            self._left -= len(text)

    def events(self, events: Sequence[Event]) -> None:
        """Events of a translated answer, as the client gets them."""
        if events and isinstance(events[0], Start):
            self._restart()
            self._id = events[0].id
        if self._left <= 0 and self._calls is None:
            return
        for event in events:
            match event:
                case Delta(part=part, text=text):
                    if part in self._texts:
                        self._add(text)
                case PartStart(part=part, skeleton=Text(), choice=0):
                    if self._left > 0:
                        self._texts.add(part)
                case PartStart(part=part, skeleton=ToolCall(name=name), choice=0) if self._calls is not None:
                    self._open[part] = self._calls.begin(name)
                case PartEnd(part=part, whole=ToolCall(arguments=arguments)) if self._calls is not None:
                    if (call := self._open.pop(part, None)) is not None:
                        self._calls.add(call, arguments)
                        call.done = True
                case _:
                    pass

    def frames(self, dialect: str, frames: Sequence[Frame]) -> None:
        """Frames of a relayed stream."""
        if self._calls is not None:
            if self._reader is None:
                self._reader = READERS[dialect](self._calls)
            self._reader.look(frames)
        if self._left <= 0:
            if self.keeps_text:
                self._beyond += sum(len(frame.raw) for frame in frames)
            return
        if self._id_at is None and (data := next((frame.data for frame in frames if frame.data), None)) is not None:
            self._id_at = (dialect, bytes(data[:_ID_WITHIN]))
        sign, member = _TEXT[dialect]
        for frame in frames:
            self._within += len(frame.raw)
            if frame.data is None or sign not in frame.data or b'"thought":true' in frame.data:
                continue
            if found := member.search(frame.data):
                try:
                    self._add(msgspec.json.decode(found[1], type=str))
                except (msgspec.DecodeError, UnicodeDecodeError):
                    continue

    def whole(self, dialect: Dialect, body: bytes) -> None:
        """A relayed body."""
        self._restart()
        self._id_at = (dialect.name, body[:_ID_WITHIN])
        if not self.keeps_text and not any(sign in body for sign in SIGNS[dialect.name]):
            return
        if self._calls is None and (text := _text_at_once(dialect.name, body)) is not None:
            self._add(text)
            return
        try:
            answer = dialect.read_answer(body, _CONTEXT)
        except FaultError:
            return
        for choice in answer.choices[:1]:
            self._add(text_of(choice.parts))
            if self._calls is not None:
                for part in choice.parts:
                    if isinstance(part, ToolCall):
                        self._calls.one(part.name, part.arguments)


# The places of the text in two protocols' bodies. Decoding these alone costs a tenth of reading the answer.


class _ChatMessage(msgspec.Struct):
    content: str | None = None


class _ChatChoice(msgspec.Struct):
    message: _ChatMessage


class _ChatBody(msgspec.Struct):
    choices: list[_ChatChoice]


class _Block(msgspec.Struct):
    type: str
    text: str = ""


class _MessageBody(msgspec.Struct):
    content: list[_Block]


_CHAT = msgspec.json.Decoder(_ChatBody)
_MESSAGE = msgspec.json.Decoder(_MessageBody)


def _text_at_once(dialect: str, body: bytes) -> str | None:
    """The text of the first choice; None where the body is not of the usual form, or the protocol says it in too many ways."""
    try:
        match dialect:
            case "openai-chat":
                choices = _CHAT.decode(body).choices
                return (choices[0].message.content or "") if choices else ""
            case "anthropic-messages":
                return "".join(block.text for block in _MESSAGE.decode(body).content if block.type == "text")
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass
    return None


_CONTEXT = ReadContext(maker="", new_call_id=lambda response_id, ordinal: f"call_{ordinal}")
