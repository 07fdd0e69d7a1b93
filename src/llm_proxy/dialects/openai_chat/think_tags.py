"""Splits `<think>…</think>` off the text of models that write their reasoning into it. Knows text only."""

from __future__ import annotations

_OPEN = "<think>"
_CLOSE = "</think>"


class ThinkSplitter:
    """Takes text in any pieces; gives (is reasoning, text) pieces. Holds back only what may be a part of a
    tag.
    """

    __slots__ = ("_held", "_state")

    def __init__(self) -> None:
        self._held = ""
        self._state = "start"

    def feed(self, text: str, whole: bool = False) -> list[tuple[bool, str]]:
        """`whole`: this is the complete text, so a missing opening tag can be told by the closing one."""
        text = self._held + text
        self._held = ""
        if self._state == "start":
            if whole and _CLOSE in text and not text.lstrip().startswith(_OPEN):
                self._state = "thinking"
            else:
                text = self._begun(text)
        out: list[tuple[bool, str]] = []
        if self._state == "thinking":
            text = self._thought(text, out)
        if self._state == "after":
            text = text.lstrip()
            if text:
                self._state = "text"
        if self._state == "text" and text:
            out.append((False, text))
        return out

    def _begun(self, text: str) -> str:
        """Decide by the first characters; white space before an opening tag does not count."""
        start = text.lstrip()
        if start.startswith(_OPEN):
            self._state = "thinking"
            return start[len(_OPEN) :]
        if _OPEN.startswith(start):
            self._held = text
            return ""
        self._state = "text"
        return text

    def _thought(self, text: str, out: list[tuple[bool, str]]) -> str:
        thought, closed, rest = text.partition(_CLOSE)
        if closed:
            self._state = "after"
        else:
            keep = next((size for size in range(len(_CLOSE) - 1, 0, -1) if text.endswith(_CLOSE[:size])), 0)
            thought, self._held = text[: len(text) - keep], text[len(text) - keep :]
        if thought:
            out.append((True, thought))
        return rest

    def flush(self) -> list[tuple[bool, str]]:
        """What was held back, now that nothing follows."""
        held, self._held = self._held, ""
        return [(self._state == "thinking", held)] if held else []
