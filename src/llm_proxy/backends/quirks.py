"""What differs at servers that only resemble the provider whose dialect they speak, and what their refusals
teach.

Pure tables over `Capabilities`. Knows no instance and no call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from llm_proxy.conversation.fault import Fault
from llm_proxy.dialects.capabilities import COMPATIBLE_ROWS, OPENAI_ROWS, Capabilities

# Local and third-party servers of the Chat dialect: they know the older `max_tokens` and often no developer
# role.
_COMPATIBLE: Final[dict[str, object]] = {"limit_field": "max_tokens", "developer_role": False}

_KNOWN_NAMES: Final = tuple(prefix for prefix, _ in (*OPENAI_ROWS, *COMPATIBLE_ROWS))

_REFUSED = re.compile(
    r"unsupported|not (?:be )?(?:support|allow|permitt|accept|available)|does ?n.t support|unknown|"
    r"unrecogni[sz]ed|extra inputs|unexpected|invalid (?:parameter|argument)|no longer",
    re.IGNORECASE,
)

# Word that the refusal names -> what it teaches. Longer words stand before words that they contain.
_LESSONS: Final[tuple[tuple[str, Mapping[str, object]], ...]] = (
    ("max_completion_tokens", {"limit_field": "max_tokens"}),
    ("max_tokens", {"limit_field": "max_completion_tokens"}),
    ("stream_options", {"stream_usage": False}),
    ("parallel_tool_calls", {"parallel_switch": False}),
    ("reasoning_effort", {"thinking": "none"}),
    ("reasoning.effort", {"thinking": "none"}),
    ("thinkingconfig", {"thinking": "none"}),
    ("thinking", {"thinking": "none"}),
    ("presence_penalty", {"penalties": False}),
    ("frequency_penalty", {"penalties": False}),
    ("temperature", {"sampling": "none"}),
    ("top_p", {"sampling": "none"}),
    ("top_k", {"top_k": False}),
    ("logprobs", {"logprobs": False}),
    ("response_format", {"schema_output": False}),
    ("output_config", {"schema_output": False}),
    ("json_schema", {"schema_output": False}),
    ("responseschema", {"schema_output": False}),
    ("strict", {"strict_tools": False}),
    ("cache_control", {"cache_marks": False}),
    ("prefill", {"prefill": False}),
    ("developer", {"developer_role": False}),
)


def compatible_quirks(model: str) -> dict[str, object]:
    """What to assume of a model behind a custom address whose name says nothing."""
    name = model.rsplit("/", 1)[-1].lower()
    return {} if name.startswith(_KNOWN_NAMES) else dict(_COMPATIBLE)


def lesson(fault: Fault, known: Capabilities) -> dict[str, object]:
    """What a refused parameter teaches that `known` did not say yet; empty when nothing."""
    if fault.kind not in ("bad_request", "validation") or fault.side != "upstream":
        return {}
    text = fault.message.lower()
    param = fault.param.lower()
    if not param and not _REFUSED.search(text):
        return {}
    refused = _REFUSED.search(text) is not None or fault.upstream_code in (
        "unsupported_parameter",
        "unsupported_value",
    )
    if not refused:
        return {}
    for word, taught in _LESSONS:
        if word == param or (not param and re.search(rf"(?<![a-z_]){re.escape(word)}(?![a-z_])", text)):
            fresh = {name: value for name, value in taught.items() if getattr(known, name) != value}
            return fresh
    return {}
