"""Splits `<think>…</think>` out of visible text, for models that write their reasoning there. An event
filter.

Holds back only what may begin a tag. Part numbers are given anew, because one text becomes several parts.
"""

from __future__ import annotations

from collections.abc import Iterable

from llm_proxy.conversation.events import Cited, Delta, Event, PartEnd, PartStart, Sealed, Whole
from llm_proxy.conversation.fold import OpenPart
from llm_proxy.conversation.parts import Text, Thinking

_OPEN, _CLOSE = "<think>", "</think>"


class _Split:
    """One text part of the provider: which tag is awaited and what is open of it on our side."""

    __slots__ = ("begun", "body", "choice", "held", "number", "skeleton", "thinking")

    def __init__(self, skeleton: Text, choice: int) -> None:
        self.skeleton = skeleton
        self.choice = choice
        self.held = ""
        self.begun = False  # visible text was seen: a later `<think>` is text
        self.thinking = False
        self.number = -1
        self.body: OpenPart | None = None


class ThinkTags:
    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._next = 0
        self._splits: dict[int, _Split] = {}
        self._out: list[Event] = []

    def feed(self, events: Iterable[Event]) -> list[Event]:
        self._out = []
        for event in events:
            self._one(event)
        return self._out

    def _one(self, event: Event) -> None:
        match event:
            case PartStart(part, Text() as skeleton, choice):
                self._splits[part] = _Split(skeleton, choice)
            case Delta(part, text) if part in self._splits:
                self._text(self._splits[part], text)
            case PartEnd(part) if part in self._splits:
                self._end(self._splits.pop(part))
            case Cited(part, citation) if part in self._splits:
                split = self._splits[part]
                if split.body is not None and not split.thinking:
                    split.body.citations.append(citation)
                    self._out.append(Cited(split.number, citation))
            case Sealed(part, seal) if part in self._splits:
                split = self._splits[part]
                if split.body is not None:
                    split.body.seal = seal
                    self._out.append(Sealed(split.number, seal))
            case PartStart(part, skeleton, choice):
                self._out.append(PartStart(self._number(part), skeleton, choice))
            case Delta(part, text, new_piece):
                self._out.append(Delta(self._numbers[part], text, new_piece))
            case PartEnd(part, whole):
                self._out.append(PartEnd(self._numbers[part], whole))
            case Sealed(part, seal):
                self._out.append(Sealed(self._numbers[part], seal))
            case Whole(part, content, choice):
                self._out.append(Whole(self._number(part), content, choice))
            case _:
                self._out.append(event)

    def _number(self, part: int) -> int:
        number = self._numbers[part] = self._next
        self._next += 1
        return number

    def _text(self, split: _Split, text: str) -> None:
        text = split.held + text
        split.held = ""
        while text:
            if not split.thinking and not split.begun:
                bare = text.lstrip()
                if bare.startswith(_OPEN):
                    split.thinking, text = True, bare[len(_OPEN) :].lstrip("\n")
                    continue
                if not bare or _OPEN.startswith(bare):
                    split.held = text
                    return
                split.begun = True
            if not split.thinking:
                self._say(split, text)
                return
            at = text.find(_CLOSE)
            if at < 0:
                keep = next(
                    (size for size in range(len(_CLOSE) - 1, 0, -1) if text.endswith(_CLOSE[:size])), 0
                )
                split.held = text[len(text) - keep :] if keep else ""
                self._say(split, text[: len(text) - keep])
                return
            self._say(split, text[:at])
            self._shut(split)
            split.thinking, split.begun = False, True
            text = text[at + len(_CLOSE) :].lstrip("\n")

    def _say(self, split: _Split, text: str) -> None:
        if not text:
            return
        if split.body is None:
            skeleton = Thinking() if split.thinking else split.skeleton
            split.number, split.body = self._next, OpenPart(skeleton, split.choice)
            self._next += 1
            self._out.append(PartStart(split.number, skeleton, split.choice))
        split.body.add(text)
        self._out.append(Delta(split.number, text))

    def _shut(self, split: _Split) -> None:
        if split.body is not None:
            self._out.append(PartEnd(split.number, split.body.whole()))
            split.body = None

    def _end(self, split: _Split) -> None:
        self._say(split, split.held)
        if split.body is None and not split.begun and not split.thinking:
            split.number, split.body = self._next, OpenPart(split.skeleton, split.choice)
            self._next += 1
            self._out.append(PartStart(split.number, split.skeleton, split.choice))
        self._shut(split)
