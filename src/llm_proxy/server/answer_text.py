"""The visible text of an answer, collected while it passes, for the session's history: at most a few thousand characters.

Translated answers give it as events. Of a stream that is relayed byte for byte only the text members are looked at, by their
place in the protocol's frames; that costs about a microsecond a frame and ends when enough is known.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from llm_proxy.conversation.events import Delta, Event, PartStart
from llm_proxy.conversation.fault import FaultError
from llm_proxy.conversation.parts import Text, text_of
from llm_proxy.dialects.base import Dialect, ReadContext
from llm_proxy.wire.sse import Frame

MOST_CHARACTERS = 4000

_STRING = rb'\s*:\s*("(?:[^"\\]|\\.)*")'
_TEXT = {
    "openai-chat": (b'"content"', re.compile(rb'"content"' + _STRING)),
    "openai-responses": (b"output_text.delta", re.compile(rb'"delta"' + _STRING)),
    "anthropic-messages": (b"text_delta", re.compile(rb'"text"' + _STRING)),
    "gemini": (b'"text"', re.compile(rb'"text"' + _STRING)),
}


class AnswerTap:
    """Collects the text of one answer."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._left = MOST_CHARACTERS
        self._texts: set[int] = set()

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def _add(self, text: str) -> None:
        if self._left > 0 and text:
            self._pieces.append(text[: self._left])
            self._left -= len(text)

    def events(self, events: Sequence[Event]) -> None:
        if self._left <= 0:
            return
        for event in events:
            match event:
                case PartStart(part=part, skeleton=Text(), choice=0):
                    self._texts.add(part)
                case Delta(part=part, text=text) if part in self._texts:
                    self._add(text)
                case _:
                    pass

    def frames(self, dialect: str, frames: Sequence[Frame]) -> None:
        """Frames of a relayed stream."""
        if self._left <= 0:
            return
        sign, member = _TEXT[dialect]
        for frame in frames:
            if frame.data is None or sign not in frame.data or b'"thought":true' in frame.data:
                continue
            if found := member.search(frame.data):
                try:
                    self._add(msgspec.json.decode(found[1], type=str))
                except (msgspec.DecodeError, UnicodeDecodeError):
                    continue

    def whole(self, dialect: Dialect, body: bytes) -> None:
        """A relayed body."""
        try:
            answer = dialect.read_answer(body, _CONTEXT)
        except FaultError:
            return
        for choice in answer.choices[:1]:
            self._add(text_of(choice.parts))


_CONTEXT = ReadContext(maker="", new_call_id=lambda response_id, ordinal: f"call_{ordinal}")
