"""Names and ids that a target's pattern refuses are mapped, deterministically, and mapped back in the answer."""

from __future__ import annotations

import hashlib
import re

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_NAME = re.compile(r"[A-Za-z0-9_-]+\Z")
_GEMINI_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]*\Z")


def base62(data: bytes, length: int) -> str:
    """`length` characters of [0-9A-Za-z] made from `data` (a digest)."""
    number = int.from_bytes(data, "big")
    out = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        out.append(_BASE62[digit])
    return "".join(out)


def call_id(original: str, prefix: str = "call_") -> str:
    """`original` if OpenAI's, Anthropic's and Gemini's patterns take it (`^[A-Za-z0-9_-]{1,64}$`), else a stable stand-in.

    The same original gives the same stand-in, so calls and results of a resent history still pair.
    """
    if _ID.match(original):
        return original
    return prefix + base62(hashlib.sha256(original.encode("utf-8", "replace")).digest(), 24)


def derived_call_id(response_id: str, ordinal: int) -> str:
    """An id for a call that the provider gave none: unique within a conversation, the same for the same answer."""
    return "call_" + base62(hashlib.sha256(f"{response_id}/{ordinal}".encode()).digest(), 24)


class ToolNames:
    """The tool names of one request at one target: `at_target(name)` for everything sent, `back` for the answer's duties."""

    def __init__(self, limit: int = 64, gemini: bool = False) -> None:
        self._limit = limit
        self._pattern = _GEMINI_NAME if gemini else _NAME
        self._mapped: dict[str, str] = {}
        self.back: dict[str, str] = {}

    def at_target(self, name: str) -> str:
        """`name`, or its stand-in: a legal beginning of it plus eight hex digits of its SHA-1."""
        if name in self._mapped:
            return self._mapped[name]
        mapped = name
        if len(name) > self._limit or not self._pattern.match(name):
            clean = re.sub(r"[^A-Za-z0-9_-]", "_", name)
            if not clean or not (clean[0].isalpha() or clean[0] == "_"):
                clean = "_" + clean
            digest = hashlib.sha1(name.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()[:8]
            mapped = f"{clean[: self._limit - 9]}_{digest}"
            self.back[mapped] = name
        self._mapped[name] = mapped
        return mapped
