"""Shapes that several writers need: leading system texts, merged turns, paired calls and results."""

from __future__ import annotations

import msgspec

from llm_proxy.conversation.parts import Part, ToolCall, ToolResult
from llm_proxy.conversation.request import Message


def split_system(messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """The leading run of system and developer messages, and the rest."""
    count = 0
    for message in messages:
        if message.role not in ("system", "developer"):
            break
        count += 1
    return messages[:count], messages[count:]


def merge_turns(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Consecutive messages of one role become one; in a user turn tool results come first (in their order)."""
    merged: list[Message] = []
    for message in messages:
        if merged and merged[-1].role == message.role:
            merged[-1] = msgspec.structs.replace(merged[-1], parts=merged[-1].parts + message.parts)
        else:
            merged.append(message)
    return tuple(_results_first(message) for message in merged)


def _results_first(message: Message) -> Message:
    if message.role != "user":
        return message
    results = tuple(part for part in message.parts if isinstance(part, ToolResult))
    if not results or message.parts[: len(results)] == results:
        return message
    others: tuple[Part, ...] = tuple(part for part in message.parts if not isinstance(part, ToolResult))
    return msgspec.structs.replace(message, parts=results + others)


def calls_of(message: Message) -> tuple[ToolCall, ...]:
    return tuple(part for part in message.parts if isinstance(part, ToolCall))


def call_names(messages: tuple[Message, ...]) -> dict[str, ToolCall]:
    """Every call of the conversation by its id (the last one of an id counts)."""
    return {call.id: call for message in messages for call in calls_of(message)}
