"""A whole `Answer` as the body that a Messages client gets, and the shapes of blocks that streams share."""

from __future__ import annotations

from typing import Any

import msgspec

from llm_proxy.conversation.answer import Answer, Stop
from llm_proxy.conversation.parts import (
    Media,
    Opaque,
    Part,
    Refusal,
    Seal,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from llm_proxy.dialects.anthropic_messages import wire
from llm_proxy.dialects.base import ReplyContext
from llm_proxy.wire import json

Block = dict[str, Any]
_CHARACTERS_PER_TOKEN = 4


def write_answer(answer: Answer, context: ReplyContext) -> bytes:
    """One choice is all that this protocol has: of several the first is written."""
    choice = answer.choices[0] if answer.choices else None
    parts = choice.parts if choice else ()
    stop = choice.stop if choice else Stop("unknown")
    called = any(isinstance(part, ToolCall) for part in parts)
    refused = any(isinstance(part, Refusal) and part.text for part in parts)
    body: dict[str, Any] = {
        "id": wire.message_id(answer.id, context.new_id("msg_")),
        "type": "message",
        "role": "assistant",
        "model": answer.model or context.model,
        "content": write_content(parts, context),
        **wire.write_stop(stop, called, refused),
    }
    output = estimated_output(sum(len(_visible(part)) for part in parts))
    body["usage"] = wire.write_usage(answer.usage, context.estimated_input, output, answer.tier)
    for part in parts:
        if isinstance(part, Opaque) and part.origin == wire.NAME and part.type == wire.MESSAGE_FIELDS:
            body |= part.raw
    return json.encode(body)


def estimated_output(characters: int) -> int:
    return max(1, characters // _CHARACTERS_PER_TOKEN)


def _visible(part: Part) -> str:
    match part:
        case Text(text=text) | Refusal(text=text) | Thinking(text=text) | ToolCall(arguments=text):
            return text
        case _:
            return ""


def write_content(parts: tuple[Part, ...], context: ReplyContext) -> list[Block]:
    blocks = (write_part(part, context) for part in parts)
    return [block for block in blocks if block is not None]


def write_part(part: Part, context: ReplyContext) -> Block | None:
    """The block of one part; None for what this client cannot or must not see."""
    match part:
        case Text(text=text, citations=citations):
            if not text and not citations:
                return None
            written = [entry for citation in citations if (entry := wire.write_citation(citation)) is not None]
            return {"type": "text", "text": text, "citations": written} if written else {"type": "text", "text": text}
        case Refusal(text=text):
            return {"type": "text", "text": text} if text else None
        case Thinking():
            return _thinking(part, context)
        case ToolCall():
            block = call_block(part)
            block["input"] = _input(part)
            return block
        case Media():
            return {"type": "text", "text": media_text(part)}
        case Opaque(origin=origin, type=kind, raw=raw):
            return raw if origin == wire.NAME and kind != wire.MESSAGE_FIELDS else None
        case ToolResult():
            return None


def _thinking(part: Thinking, context: ReplyContext) -> Block | None:
    seal = part.seal
    if not part.text or not context.shows_thinking:
        return sealed_block(seal, bool(part.text), context)
    return {"type": "thinking", "thinking": part.text, "signature": signature_of(seal, context)}


def sealed_block(seal: Seal | None, had_text: bool, context: ReplyContext) -> Block | None:
    """Reasoning of which only the seal may be or is there. `had_text`: there was text that this client does
    not get.
    """
    if seal is None or not seal.value:
        return None
    if not wire.is_own(seal):
        return {"type": "redacted_thinking", "data": context.packer.pack(seal)} if context.sealed_wanted else None
    if seal.kind == "redacted":
        return {"type": "redacted_thinking", "data": seal.value}
    # A signature is bound to its text: without it only a block that never had any can be sent back.
    return None if had_text else {"type": "thinking", "thinking": "", "signature": seal.value}


def signature_of(seal: Seal | None, context: ReplyContext) -> str:
    """The maker's own signature, or an envelope: never empty, so that a client can send the block back and
    it is recognised.
    """
    if seal is not None and wire.is_own(seal) and seal.kind == "signature":
        return seal.value
    if seal is not None and seal.value and context.sealed_wanted:
        return context.packer.pack(seal)
    return context.packer.pack(wire.NO_SEAL)


def call_block(call: ToolCall) -> Block:
    """The block of a call as it begins: its input comes after."""
    block: Block = {"type": "tool_use", "id": wire.tool_id(call.id), "name": call.name, "input": {}}
    if call.namespace:
        block["toolset_name"] = call.namespace
    return block


def _input(call: ToolCall) -> Any:
    """The arguments as an object; valid JSON is embedded as it stands, so that every number keeps its
    spelling.
    """
    if call.kind == "custom":
        return {"input": call.arguments}
    arguments = json.parse_arguments(call.arguments)
    if arguments is None:
        return {"_raw": call.arguments}
    try:
        return msgspec.Raw(call.arguments.encode()) if arguments else {}
    except UnicodeEncodeError:
        return arguments


def media_text(part: Media) -> str:
    """Generated media has no block here; what can be told of it is told."""
    if part.transcript:
        return part.transcript
    if part.url and not part.url.startswith("data:"):
        return f"![{part.title or part.kind}]({part.url})"
    return (
        part.text or f"[generated {part.kind}{f' ({part.mime})' if part.mime else ''}: this protocol cannot carry it]"
    )
