"""Words and small objects of the Messages protocol that several of its readers and writers share.

Stop reasons, usage, citations, media sources, cache marks and seals, each both ways. Nothing here knows a
whole request or answer.
"""

from __future__ import annotations

from typing import Any

from llm_proxy.conversation.answer import Stop, StopKind
from llm_proxy.conversation.parts import CacheMark, Citation, Media, Seal
from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects import media_types, names

NAME = "anthropic-messages"
ENVELOPE = "gw1."
"""How values begin that this proxy made for a client; they never go to a provider."""

NO_SEAL = Seal(origin=NAME, kind="signature", value="", maker="none")
"""Packed into a thinking block whose maker gave no signature, so that the block is recognised when the
client sends it back.
"""

SEARCH_RESULT = "text/x-search-result"
"""Media type by which a `search_result` block, read as a text document, is known when it is written again."""

MESSAGE_FIELDS = "message_fields"
"""Type of the Opaque that carries members of the message itself (`container`, `context_management`), not a
content block.
"""
KEPT_MESSAGE_FIELDS = ("container", "context_management")

STOPS: dict[str, StopKind] = {
    "end_turn": "end",
    "max_tokens": "length",
    "model_context_window_exceeded": "context_full",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_use",
    "refusal": "content_filter",
    "pause_turn": "pause",
    "compaction": "pause",
}
_REASONS: dict[StopKind, str] = {
    "end": "end_turn",
    "length": "max_tokens",
    "context_full": "model_context_window_exceeded",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_use",
    "content_filter": "refusal",
    "pause": "pause_turn",
    "malformed_tool": "end_turn",
    "unknown": "end_turn",
}


def text_in(value: Any) -> str:
    return value if isinstance(value, str) else ""


def object_in(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def count_in(value: Any) -> int | None:
    """A token count; providers also send null and floats."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value < 2**53 else None


# ---- stops


def read_stop(fields: dict[str, Any], called: bool) -> Stop:
    """The stop that `stop_reason`, `stop_sequence` and `stop_details` tell; `called`: a tool call was seen
    in the answer.
    """
    raw = text_in(fields.get("stop_reason"))
    details = object_in(fields.get("stop_details"))
    kind: StopKind = STOPS.get(raw, "unknown")
    if called and kind in ("end", "unknown"):
        kind = "tool_use"
    elif not called and kind == "tool_use":
        kind = "end"
    return Stop(
        kind=kind,
        raw=raw,
        sequence=text_in(fields.get("stop_sequence")),
        detail=text_in(details.get("explanation")),
        category=text_in(details.get("category")),
    )


def write_stop(stop: Stop, called: bool, refused: bool) -> dict[str, Any]:
    """`stop_reason`, `stop_sequence` and, for a refusal, `stop_details`."""
    kind = stop.kind
    if refused and kind in ("end", "unknown"):
        kind = "content_filter"
    elif called and kind in ("end", "unknown"):
        kind = "tool_use"
    reason = stop.raw if STOPS.get(stop.raw) == kind else _REASONS[kind]
    fields: dict[str, Any] = {
        "stop_reason": reason,
        "stop_sequence": (stop.sequence or None) if kind == "stop_sequence" else None,
    }
    if kind == "content_filter" and (stop.detail or stop.category):
        fields["stop_details"] = {
            "type": "refusal",
            "category": stop.category or None,
            "explanation": stop.detail or None,
        }
    return fields


# ---- usage


def read_usage(raw: dict[str, Any]) -> Usage:
    """Anthropic counts the uncached input, cache reads and cache writes apart; canonical `input` is their
    sum.
    """
    uncached = count_in(raw.get("input_tokens"))
    read = count_in(raw.get("cache_read_input_tokens"))
    write = count_in(raw.get("cache_creation_input_tokens"))
    return Usage(
        input=None if uncached is None else uncached + (read or 0) + (write or 0),
        output=count_in(raw.get("output_tokens")),
        cache_read=read,
        cache_write=write,
        cache_write_1h=count_in(object_in(raw.get("cache_creation")).get("ephemeral_1h_input_tokens")),
        reasoning=count_in(object_in(raw.get("output_tokens_details")).get("thinking_tokens")),
        origin=NAME,
        raw=raw,
    )


def merge_usage(known: dict[str, Any], later: Any) -> dict[str, Any]:
    """Usage objects of one stream are cumulative: a later figure wins, null says nothing."""
    return known | {key: value for key, value in object_in(later).items() if value is not None}


def write_usage(usage: Usage | None, estimated_input: int, estimated_output: int, tier: str = "") -> dict[str, Any]:
    """A usage object. Agents size their context by it, so what the provider did not say is an estimate,
    never a zero.
    """
    usage = usage or Usage()
    own = usage.raw if usage.origin == NAME and usage.raw else {}
    fields: dict[str, Any] = {key: value for key, value in own.items() if value is not None}
    fields["input_tokens"] = max(1, estimated_input) if usage.input is None else usage.input_uncached
    for name, value in (
        ("cache_creation_input_tokens", usage.cache_write),
        ("cache_read_input_tokens", usage.cache_read),
    ):
        if value is not None or usage.origin != NAME:
            fields[name] = value or 0
    fields["output_tokens"] = max(1, estimated_output) if usage.output is None else usage.output
    if usage.cache_write_1h is not None and "cache_creation" not in fields:
        fields["cache_creation"] = {
            "ephemeral_5m_input_tokens": max(0, (usage.cache_write or 0) - usage.cache_write_1h),
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        }
    if usage.reasoning is not None:
        fields["output_tokens_details"] = {
            **object_in(fields.get("output_tokens_details")),
            "thinking_tokens": usage.reasoning,
        }
    if tier in ("standard", "priority", "batch") and "service_tier" not in fields:
        fields["service_tier"] = tier
    return fields


# ---- citations


def read_citation(raw: dict[str, Any]) -> Citation:
    """Offsets here count in the cited document, not in the answer's text: `start` and `end` stay unknown."""
    return Citation(
        url=text_in(raw.get("url")),
        title=text_in(raw.get("title")) or text_in(raw.get("document_title")),
        cited_text=text_in(raw.get("cited_text")),
        origin=NAME,
        raw=None if raw.get("encrypted_index") == "" else raw,
    )


def read_citations(raw: Any) -> tuple[Citation, ...]:
    if not isinstance(raw, list):
        return ()
    return tuple(read_citation(entry) for entry in raw if isinstance(entry, dict))


def write_citation(citation: Citation) -> dict[str, Any] | None:
    """For a client. A web source of another provider becomes a web search citation without its index, which
    only Anthropic can make.
    """
    if citation.origin == NAME and citation.raw is not None:
        return citation.raw
    if not citation.url:
        return None
    return {
        "type": "web_search_result_location",
        "url": citation.url,
        "title": citation.title or None,
        "cited_text": citation.cited_text,
        "encrypted_index": "",
    }


# ---- media


def read_source(kind: str, block: dict[str, Any], cache: CacheMark | None) -> Media | None:
    """The Media of an `image` or `document` block; None for a source that only Anthropic knows."""
    source = object_in(block.get("source"))
    media_kind: Any = "image" if kind == "image" else "document"
    common: dict[str, Any] = {
        "kind": media_kind,
        "title": text_in(block.get("title")),
        "context": text_in(block.get("context")),
        "citations_enabled": object_in(block.get("citations")).get("enabled") is True,
        "cache": cache,
        "origin": NAME,
    }
    mime = media_types.normal(text_in(source.get("media_type")))
    match source.get("type"):
        case "base64":
            return Media(data=text_in(source.get("data")), mime=mime, **common)
        case "url":
            return Media(url=text_in(source.get("url")), mime=mime, **common)
        case "file":
            return Media(file_id=text_in(source.get("file_id")), **common)
        case "text":
            return Media(text=text_in(source.get("data")), mime=mime or "text/plain", **common)
        case "content":
            text = plain_content(source.get("content"))
            return None if text is None else Media(text=text, mime="text/plain", **common)
        case _:
            return None


def plain_content(content: Any) -> str | None:
    """The joined text of a content that is text alone, else None."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    texts = [block.get("text") for block in content if isinstance(block, dict) and block.get("type") == "text"]
    if len(texts) != len(content) or not all(isinstance(text, str) for text in texts):
        return None
    return "\n\n".join(str(text) for text in texts)


# ---- cache marks and seals


def read_cache(block: dict[str, Any]) -> CacheMark | None:
    mark = block.get("cache_control")
    return CacheMark(text_in(mark.get("ttl"))) if isinstance(mark, dict) else None


def write_cache(mark: CacheMark, ttl: bool) -> dict[str, Any]:
    """`ttl`: the target takes it. OpenAI's long retentions become the hour, the short ones the default."""
    written: dict[str, Any] = {"type": "ephemeral"}
    word = {"12h": "1h", "24h": "1h"}.get(mark.ttl, mark.ttl)
    if ttl and word in ("5m", "1h"):
        written["ttl"] = word
    return written


def read_seal(block: dict[str, Any], maker: str = "") -> Seal | None:
    """The seal of a thinking or redacted_thinking block; None when it has none."""
    if block.get("type") == "redacted_thinking":
        data = text_in(block.get("data"))
        return Seal(NAME, "redacted", data, maker) if data else None
    signature = text_in(block.get("signature"))
    return Seal(NAME, "signature", signature, maker) if signature else None


def is_own(seal: Seal | None) -> bool:
    """Is this a value that a provider of this protocol made, in its plain form?"""
    return (
        seal is not None
        and seal.origin == NAME
        and bool(seal.value)
        and seal.kind in ("signature", "redacted")
        and not seal.value.startswith(ENVELOPE)
    )


def message_id(given: str, fresh: str) -> str:
    return given if given.startswith("msg_") else fresh


def tool_id(given: str) -> str:
    return names.call_id(given, "toolu_")
