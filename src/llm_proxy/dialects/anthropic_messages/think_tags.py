"""Splits `<think>` text, which some models write into their answer, while it arrives in pieces."""

from __future__ import annotations

_OPEN, _CLOSE = "<think>", "</think>"


class ThinkSplitter:
    """`feed` gives (is it reasoning, text) pieces; at most the beginning of one tag is held back.

    The tag counts only at the very beginning of the answer, before any visible text.
    """

    def __init__(self) -> None:
        self._held = ""
        self._inside = False
        self._begun = False
        self._trim = False

    def feed(self, text: str) -> list[tuple[bool, str]]:
        self._held += text
        out: list[tuple[bool, str]] = []
        while self._held:
            if self._trim:
                self._held = self._held.lstrip()
                if not self._held:
                    break
                self._trim = False
            if not self._begun:
                lead = self._held.lstrip()
                if lead.startswith(_OPEN):
                    self._held, self._inside, self._begun, self._trim = lead[len(_OPEN) :], True, True, True
                    continue
                if _OPEN.startswith(lead):
                    break
                self._begun = True
            if not self._inside:
                out.append((False, self._held))
                self._held = ""
                break
            found = self._held.find(_CLOSE)
            if found >= 0:
                if found:
                    out.append((True, self._held[:found]))
                self._held, self._inside, self._trim = self._held[found + len(_CLOSE) :], False, True
                continue
            keep = next(
                (size for size in range(len(_CLOSE) - 1, 0, -1) if self._held.endswith(_CLOSE[:size])), 0
            )
            if len(self._held) > keep:
                out.append((True, self._held[: len(self._held) - keep]))
                self._held = self._held[len(self._held) - keep :]
            break
        return out

    def close(self) -> list[tuple[bool, str]]:
        """What was held back turned out to be text."""
        held, self._held = self._held, ""
        return [(self._inside, held)] if held else []


def split_whole(text: str) -> list[tuple[bool, str]]:
    """A complete text cut the same way, neighbouring pieces of one kind joined."""
    splitter = ThinkSplitter()
    joined: list[tuple[bool, str]] = []
    for thinks, piece in splitter.feed(text) + splitter.close():
        if joined and joined[-1][0] == thinks:
            joined[-1] = (thinks, joined[-1][1] + piece)
        else:
            joined.append((thinks, piece))
    return joined
