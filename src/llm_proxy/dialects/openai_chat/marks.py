"""Prompt-cache marks in both spellings of this dialect: `cache_control` (OpenRouter, DashScope) and
`prompt_cache_breakpoint` (OpenAI).
"""

from __future__ import annotations

from typing import Any

from llm_proxy.conversation.parts import CacheMark
from llm_proxy.dialects.capabilities import Capabilities

# OpenAI's breakpoints know other lifetimes than Anthropic's marks; the nearest longer one is taken.
_TO_BREAKPOINT = {"": "30m", "5m": "30m", "1h": "12h"}
_BREAKPOINT_TTLS = ("30m", "12h", "24h")


def read_mark(raw: dict[str, Any]) -> CacheMark | None:
    """The mark on a part, a tool or a tool message, if there is one."""
    control = raw.get("cache_control")
    if isinstance(control, dict):
        ttl = control.get("ttl")
        return CacheMark(ttl if isinstance(ttl, str) else "")
    point = raw.get("prompt_cache_breakpoint")
    if isinstance(point, dict):
        ttl = point.get("ttl")
        return CacheMark(ttl if isinstance(ttl, str) else "30m")
    return None


def write_mark(mark: CacheMark | None, own: bool, capabilities: Capabilities) -> dict[str, Any]:
    """The member to add for `mark`: as the client wrote it when it speaks this dialect, else as the target
    takes it, or nothing.
    """
    if mark is None or not (own or capabilities.cache_marks):
        return {}
    as_breakpoint = mark.ttl in _BREAKPOINT_TTLS if own else capabilities.cache_form == "breakpoint"
    if as_breakpoint:
        return {"prompt_cache_breakpoint": {"mode": "explicit", "ttl": _TO_BREAKPOINT.get(mark.ttl, mark.ttl)}}
    if mark.ttl and (own or (capabilities.cache_ttl and mark.ttl in ("5m", "1h"))):
        return {"cache_control": {"type": "ephemeral", "ttl": mark.ttl}}
    return {"cache_control": {"type": "ephemeral"}}
