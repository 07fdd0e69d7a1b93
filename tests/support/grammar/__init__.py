"""Strict grammar of what the proxy emits: event streams and whole bodies of each protocol.

Owns the rules under which no official SDK and no known agent breaks. Providers break some of them; what *we*
send must not. It judges form only; meaning is the business of `semantic`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.support.grammar.chat import check_chat_body, check_chat_stream
from tests.support.grammar.frames import DONE, need_text, read_frames
from tests.support.grammar.gemini import check_gemini_body, check_gemini_stream
from tests.support.grammar.messages import check_messages_body, check_messages_stream
from tests.support.grammar.responses import check_responses_body, check_responses_stream
from tests.support.shared import Protocol

_BODIES: Final[Mapping[Protocol, Callable[[dict[str, Any]], list[str]]]] = {
    "openai-chat": check_chat_body,
    "openai-responses": check_responses_body,
    "anthropic-messages": check_messages_body,
    "gemini": check_gemini_body,
}


def check_stream(protocol: Protocol, raw: bytes, *, usage_asked: bool | None = None) -> list[str]:
    """What is wrong with an emitted stream. `usage_asked` (Chat): whether include_usage was set; None = not
    known.
    """
    problems: list[str] = []
    frames = read_frames(raw, problems)
    if not frames:
        return [*problems, "the stream has no frame"]
    match protocol:
        case "openai-chat":
            return problems + check_chat_stream(frames, usage_asked)
        case "openai-responses":
            return problems + check_responses_stream(frames)
        case "anthropic-messages":
            return problems + check_messages_stream(frames)
        case "gemini":
            return problems + check_gemini_stream(raw, frames)


def check_body(protocol: Protocol, body: Any) -> list[str]:
    """What is wrong with an emitted whole answer (status 200)."""
    if not isinstance(body, dict):
        return [f"the body is no object but {type(body).__name__}"]
    return _BODIES[protocol](body)


def check_error_body(protocol: Protocol, status: int, body: Any) -> list[str]:
    """What is wrong with an error answer of the given status."""
    if not isinstance(body, dict) or not isinstance(body.get("error"), dict):
        return ["an error body is an object with an object 'error'"]
    problems: list[str] = []
    error = body["error"]
    need_text(error, "message", "error", problems)
    match protocol:
        case "openai-chat" | "openai-responses":
            for name in ("type", "param", "code"):
                if name not in error:
                    problems.append(f"error has no {name}")
        case "anthropic-messages":
            if body.get("type") != "error":
                problems.append("type is not 'error'")
            need_text(error, "type", "error", problems)
        case "gemini":
            if error.get("code") != status:
                problems.append(f"error.code is {error.get('code')!r}, the status {status}")
            need_text(error, "status", "error", problems)
    return problems


def events_of(protocol: Protocol, raw: bytes) -> list[tuple[str | None, Any]]:
    """The frames of a stream as (event name, parsed data), without `[DONE]` and what is no JSON."""
    found = []
    for name, data in read_frames(raw, []):
        if data is None or data == DONE:
            continue
        try:
            found.append((name, json.loads(data)))
        except ValueError:
            continue
    return found
