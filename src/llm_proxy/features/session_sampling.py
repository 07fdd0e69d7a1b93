"""Sampling values of a session: what `!/set(temperature=…)` and the reasoning modes put where a request says nothing.

Owns the keys and their precedence (REQ-02, REQ-03). Knows no protocol.
"""

from __future__ import annotations

from typing import Any, Literal

from llm_proxy.config.options import ChatKey, OptionGroup, option


def check_budget(value: str) -> str | None:
    number = int(value)
    return None if number in (-1, 0) or 128 <= number <= 65536 else "-1 (dynamic), 0 (off) or 128 to 65536 tokens"


class SamplingOptions(OptionGroup, title="Request shaping"):
    temperature: float | None = option(
        None,
        at="",
        minimum=0,
        maximum=2,
        chat=ChatKey("temperature", "session"),
        help="sampling temperature of requests that name none",
    )
    top_p: float | None = option(
        None,
        at="",
        minimum=0,
        maximum=1,
        chat=ChatKey("top-p", "session"),
        help="nucleus sampling of requests that name none",
    )
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = option(
        None,
        at="",
        spellings={"maximum": "max"},
        chat=ChatKey("reasoning-effort", "session"),
        help="how much the model thinks where the request does not say",
    )
    reasoning: dict[str, Any] | None = option(
        None,
        at="",
        chat=ChatKey("reasoning", "session"),
        help="reasoning as an object: effort, max_tokens, exclude",
    )
    thinking_budget: int | None = option(
        None,
        at="",
        check=check_budget,
        chat=ChatKey("thinking-budget", "session", ("budget",)),
        help="tokens for thinking: -1 dynamic, 0 off",
    )
    gemini_generation_config: dict[str, Any] | None = option(
        None,
        at="",
        chat=ChatKey("gemini-generation-config", "session"),
        help="JSON object merged into generationConfig of calls to Gemini",
    )
    reasoning_mode: Literal["high", "medium", "low", "none"] | None = option(
        None,
        at="",
        chat=ChatKey("reasoning-mode", "session"),
        help="mode set by !/max, !/medium, !/low or !/no-think",
    )
