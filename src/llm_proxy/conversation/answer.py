"""A whole answer: what `fold` makes of an event stream and `unfold` turns back into one."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from llm_proxy.conversation.parts import Part
from llm_proxy.conversation.usage import Usage

StopKind = Literal[
    "end",
    "length",
    "context_full",
    "stop_sequence",
    "tool_use",
    "content_filter",
    "pause",
    "malformed_tool",
    "unknown",
]


class Stop(msgspec.Struct, frozen=True):
    """Why a choice ended. `raw` is the provider's word, `sequence` the stop text that matched, `detail` its explanation."""

    kind: StopKind
    raw: str = ""
    sequence: str = ""
    detail: str = ""
    category: str = ""


class Choice(msgspec.Struct, frozen=True):
    """One alternative. `logprobs` is the list of token entries in Chat's shape, None when not asked for."""

    parts: tuple[Part, ...]
    stop: Stop
    index: int = 0
    logprobs: tuple[dict[str, Any], ...] | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """`created` is epoch seconds, 0 if the provider gave none; the edge fills it. `model` is what the provider said, or empty."""

    id: str = ""
    model: str = ""
    created: int = 0
    choices: tuple[Choice, ...] = ()
    usage: Usage | None = None
    tier: str = ""
    fingerprint: str = ""
