"""Token counts as this dialect's servers report them, and as clients of it read them."""

from __future__ import annotations

from typing import Any

import msgspec

from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects.openai_chat.fields import NAME

_CHARACTERS_PER_TOKEN = 4


class _Outline(msgspec.Struct):
    usage: Any = None
    x_groq: Any = None


_decode_outline = msgspec.json.Decoder(_Outline).decode


def count(value: Any) -> int | None:
    """A token count, None for anything that is none."""
    if type(value) is int:
        return max(0, value)
    if type(value) is float and value.is_integer():
        return max(0, int(value))
    return None


def usage_in(body: dict[str, Any]) -> Usage | None:
    """The usage of a decoded answer or chunk, wherever it stands."""
    usage = body.get("usage")
    if not usage and isinstance(extra := body.get("x_groq"), dict):
        usage = extra.get("usage")
    return usage_of(usage) if isinstance(usage, dict) and usage else None


def read_usage(body: bytes) -> Usage | None:
    """The usage of a whole answer body (chat, legacy completion, embeddings); everything else is skipped, not
    decoded.
    """
    if b'"usage"' not in body:
        return None
    try:
        outline = _decode_outline(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    return usage_in({"usage": outline.usage, "x_groq": outline.x_groq})


def usage_of(raw: dict[str, Any]) -> Usage | None:
    """The canonical counts; None when there is not one count in it."""
    prompt = _details(raw, "prompt_tokens_details")
    completion = _details(raw, "completion_tokens_details")
    entered, left = count(raw.get("prompt_tokens")), count(raw.get("completion_tokens"))
    reasoning = count(completion.get("reasoning_tokens"))
    total = count(raw.get("total_tokens"))
    if reasoning and entered is not None and left is not None and total == entered + left + reasoning:
        left += reasoning  # xAI counts reasoning beside the completion; the total tells
    if left is None and entered is not None and total is not None and total >= entered:
        left = total - entered  # embeddings report prompt and total only
    cached = (prompt.get("cached_tokens"), raw.get("prompt_cache_hit_tokens"), raw.get("cached_tokens"))
    usage = Usage(
        input=entered,
        output=left,
        cache_read=next((found for value in cached if (found := count(value)) is not None), None),
        cache_write=count(prompt.get("cache_write_tokens")),
        reasoning=reasoning,
        audio_input=count(prompt.get("audio_tokens")),
        audio_output=count(completion.get("audio_tokens")),
        cost=_cost(raw),
        origin=NAME,
        raw=raw,
    )
    return None if usage.input is None and usage.output is None else usage


def _details(raw: dict[str, Any], name: str) -> dict[str, Any]:
    value = raw.get(name)
    return value if isinstance(value, dict) else {}


def _cost(raw: dict[str, Any]) -> float | None:
    """What the provider charged in US dollars: OpenRouter a number, Perplexity an object, xAI in
    ten-billionths.
    """
    cost = raw.get("cost")
    if isinstance(cost, dict):
        cost = cost.get("total_cost")
    ticks = raw.get("cost_in_usd_ticks")
    if cost is None and isinstance(ticks, int) and not isinstance(ticks, bool):
        return ticks / 1e10
    return float(cost) if isinstance(cost, int | float) and not isinstance(cost, bool) else None


def write_usage(usage: Usage | None, estimated_input: int, characters: int) -> dict[str, Any]:
    """The `usage` object. Without figures of the provider: an estimate from `estimated_input` and the
    characters sent.
    """
    if usage is None:
        usage = Usage(input=estimated_input, output=-(-characters // _CHARACTERS_PER_TOKEN), source="estimated")
    raw = usage.raw if usage.origin == NAME and usage.raw is not None else {}
    entered = estimated_input if usage.input is None else usage.input
    left = usage.output or 0
    prompt = _merged(
        raw.get("prompt_tokens_details"),
        cached_tokens=usage.cache_read,
        cache_write_tokens=usage.cache_write,
        audio_tokens=usage.audio_input,
    )
    completion = _merged(
        raw.get("completion_tokens_details"),
        reasoning_tokens=usage.reasoning,
        audio_tokens=usage.audio_output,
    )
    out = {**raw, "prompt_tokens": entered, "completion_tokens": left, "total_tokens": entered + left}
    if prompt:
        out["prompt_tokens_details"] = prompt
    if completion:
        out["completion_tokens_details"] = completion
    if usage.cost is not None and "cost" not in raw and "cost_in_usd_ticks" not in raw:
        out["cost"] = usage.cost
    return out


def _merged(raw: Any, **counts: int | None) -> dict[str, Any]:
    known = {name: value for name, value in counts.items() if value is not None}
    return {**raw, **known} if isinstance(raw, dict) else known
