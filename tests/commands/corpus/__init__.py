"""Conversations in which nothing must be executed, and ones in which everything must: for tests of the reader and over HTTP.

`load` gives all of them in a neutral form, `request_of` one as a canonical request. All are hand-made.
"""

from __future__ import annotations

from llm_proxy.conversation.parts import Media, Part, Text, ToolCall, ToolResult
from llm_proxy.conversation.request import Message, Request
from tests.commands.corpus import genuine, silent
from tests.commands.corpus.cases import Case, Executed, Piece, Said, last_texts

__all__ = ["Case", "Executed", "Piece", "Said", "last_texts", "load", "request_of"]


def load() -> list[Case]:
    """Every case: those that execute nothing first."""
    return [*silent.cases(), *genuine.cases()]


def request_of(case: Case, model: str = "demo") -> Request:
    messages = tuple(Message(said.role, tuple(map(_part, said.pieces))) for said in case.messages)
    return Request(dialect="openai-chat", model=model, messages=messages)


def _part(piece: Piece) -> Part:
    match piece.kind:
        case "text":
            return Text(piece.text)
        case "tool_call":
            return ToolCall(piece.id, piece.name, piece.text)
        case "tool_result":
            return ToolResult(piece.id, (Text(piece.text),))
        case "image":
            return Media("image", data=piece.text, mime="image/png")
        case "file":
            return Media("document", data=piece.text, mime="text/plain", name=piece.name)
