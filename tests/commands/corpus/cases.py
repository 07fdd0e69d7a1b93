"""The neutral form of a conversation in which something must be executed, or nothing. Knows no protocol and no reader of commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

Role = Literal["system", "developer", "user", "assistant"]
Kind = Literal["text", "tool_call", "tool_result", "image", "file"]


class Piece(msgspec.Struct, frozen=True):
    """`text` is the text, a call's arguments, a result's text, or the data of an image or file (base64). `id` pairs call and result."""

    kind: Kind
    text: str
    id: str = ""
    name: str = ""


class Said(msgspec.Struct, frozen=True):
    """One message. Results of tools are pieces of user messages, whatever a protocol calls their role."""

    role: Role
    pieces: tuple[Piece, ...]


class Executed(msgspec.Struct, frozen=True):
    """A command and its arguments in order: (key or "", value)."""

    name: str
    arguments: tuple[tuple[str, str], ...] = ()


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """`upstream` is what remains of the texts of the last user message, joined by line breaks; None: it holds only commands and nothing is
    sent."""

    id: str
    category: str
    agent: str
    messages: tuple[Said, ...]
    executes: tuple[Executed, ...] = ()
    upstream: str | None = None


def text(*texts: str) -> tuple[Piece, ...]:
    return tuple(Piece("text", one) for one in texts)


def user(*texts: str) -> Said:
    return Said("user", text(*texts))


def assistant(*texts: str) -> Said:
    return Said("assistant", text(*texts))


def call(name: str, arguments: str = "{}", id: str = "call_1") -> Said:
    return Said("assistant", (Piece("tool_call", arguments, id, name),))


def result(said: str, *texts: str, id: str = "call_1") -> Said:
    """A result, and texts that stand beside it in the same message."""
    return Said("user", (Piece("tool_result", said, id), *text(*texts)))


def last_texts(messages: Sequence[Said]) -> str:
    """The texts of the last user message."""
    last = [said for said in messages if said.role == "user"][-1]
    return "\n".join(piece.text for piece in last.pieces if piece.kind == "text")
