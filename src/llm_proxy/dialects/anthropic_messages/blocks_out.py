"""Parts of a conversation as content blocks of a request."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from llm_proxy.conversation.fault import bad_request
from llm_proxy.conversation.parts import Media, Opaque, Part, Refusal, Text, Thinking, ToolCall, ToolResult
from llm_proxy.dialects import media_types
from llm_proxy.dialects.anthropic_messages import wire
from llm_proxy.dialects.anthropic_messages.draft import Draft
from llm_proxy.wire import json

Block = dict[str, Any]
_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")


def write_blocks(draft: Draft, parts: tuple[Part, ...] | list[Part]) -> list[Block]:
    blocks = []
    for part in parts:
        block = write_block(draft, part)
        if block is not None:
            blocks.append(block)
    return blocks


def write_block(draft: Draft, part: Part) -> Block | None:
    """The block of one part; None when the target must not see it."""
    match part:
        case Text():
            return _text(draft, part)
        case Refusal(text):
            return {"type": "text", "text": text}
        case Media():
            return write_media(draft, part)
        case Thinking():
            return _thinking(draft, part)
        case ToolCall():
            return _call(draft, part)
        case ToolResult():
            return _result(draft, part)
        case Opaque(origin=origin, type=kind, raw=raw):
            if origin != wire.NAME or kind == wire.MESSAGE_FIELDS:
                draft.lose(f"messages: {kind} exists only in {origin} and was left out")
                return None
            return with_reduced_mark(draft, raw)


def with_reduced_mark(draft: Draft, raw: Block) -> Block:
    """A block or tool that is passed on as it is, but for its cache mark."""
    mark = raw.get("cache_control", raw)
    if mark is raw or draft.faithful:
        return raw
    if isinstance(mark, dict) and (
        draft.capabilities.cache_marks and (draft.capabilities.cache_ttl or "ttl" not in mark)
    ):
        return raw
    rest = {key: value for key, value in raw.items() if key != "cache_control"}
    return rest | draft.cache(wire.read_cache(raw))


def _text(draft: Draft, part: Text) -> Block:
    block: Block = {"type": "text", "text": part.text}
    if part.citations:
        # A foreign citation has no place here: the index of the source belongs to the one who searched.
        citations = [entry.raw for entry in part.citations if entry.origin == wire.NAME and entry.raw is not None]
        if citations:
            block["citations"] = citations
    return block | draft.cache(part.cache)


def _thinking(draft: Draft, part: Thinking) -> Block | None:
    seal = part.seal
    if seal is None or not draft.takes(seal):
        if draft.faithful:
            return {"type": "thinking", "thinking": part.text}
        draft.lose("messages: reasoning without a signature of this target was left out")
        return None
    if seal.kind == "redacted":
        return {"type": "redacted_thinking", "data": seal.value}
    return {"type": "thinking", "thinking": part.text, "signature": seal.value}


def _call(draft: Draft, part: ToolCall) -> Block:
    if part.kind == "custom":
        arguments: dict[str, Any] | None = {"input": part.arguments}
    else:
        arguments = json.parse_arguments(part.arguments)
    if arguments is None:
        draft.lose(f"messages: the arguments of a call of {part.name} are no JSON object and were sent as text")
        arguments = {"_raw": part.arguments}
    block: Block = {
        "type": "tool_use",
        "id": part.id if draft.own else wire.tool_id(part.id),
        "name": draft.tool_name(part.name, part.namespace),
        "input": arguments,
    }
    if part.namespace and draft.own:
        block["toolset_name"] = part.namespace
    return block | draft.cache(part.cache)


def _result(draft: Draft, part: ToolResult) -> Block:
    block: Block = {
        "type": "tool_result",
        "tool_use_id": part.call_id if draft.own else wire.tool_id(part.call_id),
    }
    parts = list(part.parts)
    if part.value is not None and not any(isinstance(entry, Text) for entry in parts):
        parts.insert(0, Text(json.encode(part.value).decode()))
    if not draft.own:
        parts = [entry for entry in parts if not (isinstance(entry, Text) and not entry.text.strip())]
    content = write_blocks(draft, parts)
    if content:
        block["content"] = content[0]["text"] if _is_plain(content) else content
    elif part.is_error and not draft.own:
        # An error without any content is refused with 400.
        block["content"] = "error"
    if part.is_error:
        block["is_error"] = True
    return block | draft.cache(part.cache)


def _is_plain(content: list[Block]) -> bool:
    return len(content) == 1 and content[0]["type"] == "text" and len(content[0]) == 2


def write_media(draft: Draft, part: Media) -> Block:
    """Raises FaultError for media that this protocol has no block for: they are never dropped."""
    if part.kind in ("audio", "video"):
        if part.transcript:
            draft.lose(f"messages: {part.kind} was sent as its transcript")
            return {"type": "text", "text": part.transcript}
        raise bad_request(f"messages: {draft.target.model} takes no {part.kind} input", "messages")
    if part.mime == wire.SEARCH_RESULT:
        return _search_result(draft, part)
    if part.kind == "image" and not draft.capabilities.images:
        raise bad_request(f"messages: {draft.target.model} takes no image input", "messages")
    if part.kind == "document" and not draft.capabilities.documents and not part.text:
        raise bad_request(f"messages: {draft.target.model} takes no document input", "messages")
    source = _source(draft, part)
    block: Block = {"type": "image" if part.kind == "image" else "document", "source": source}
    if part.kind == "document":
        title = part.title or part.name
        if title:
            block["title"] = title
        if part.context:
            block["context"] = part.context
        if part.citations_enabled:
            block["citations"] = {"enabled": True}
    return block | draft.cache(part.cache)


def _search_result(draft: Draft, part: Media) -> Block:
    block: Block = {
        "type": "search_result",
        "source": part.name,
        "title": part.title,
        "content": [{"type": "text", "text": part.text}],
    }
    if part.citations_enabled:
        block["citations"] = {"enabled": True}
    return block | draft.cache(part.cache)


def _source(draft: Draft, part: Media) -> Block:
    if part.file_id:
        if part.origin != wire.NAME:
            raise bad_request("messages: a file id of another provider cannot be read by this one", "messages")
        return {"type": "file", "file_id": part.file_id}
    if part.url.startswith("data:"):
        mime, data = media_types.split_data_url(part.url, "messages")
        return _inline(draft, part, mime, data)
    if part.url:
        if not draft.capabilities.image_urls and not draft.own:
            raise bad_request(f"messages: {draft.target.model} takes no media by URL", "messages")
        return {"type": "url", "url": part.url}
    if part.data:
        return _inline(draft, part, part.mime, part.data)
    return {"type": "text", "media_type": "text/plain", "data": part.text}


def _inline(draft: Draft, part: Media, mime: str, data: str) -> Block:
    if draft.own:
        return {"type": "base64", "media_type": mime, "data": data}
    mime = media_types.sniffed(data, mime or ("image/png" if part.kind == "image" else "application/pdf"))
    wanted = _IMAGES if part.kind == "image" else ("application/pdf",)
    if mime not in wanted:
        if part.kind == "document" and mime.startswith("text/"):
            return {"type": "text", "media_type": "text/plain", "data": _decoded(data)}
        raise bad_request(f"messages: {mime} is no media type that this protocol takes", "messages")
    return {"type": "base64", "media_type": mime, "data": data}


def _decoded(data: str) -> str:
    try:
        return base64.b64decode(data).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        raise bad_request("messages: a document is not valid base64", "messages") from None
