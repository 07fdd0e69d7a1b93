"""Lists of models: written for clients of this dialect, read from its many servers. And token counts, which
it has no path for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.dialects.base import ModelInfo
from llm_proxy.dialects.openai_chat.answer_in import loads
from llm_proxy.dialects.openai_chat.errors import fault_in
from llm_proxy.dialects.openai_chat.fields import NAME
from llm_proxy.dialects.openai_chat.usage import count
from llm_proxy.wire.json import encode

_WINDOWS = (
    "context_window",
    "context_length",
    "max_context_length",
    "max_model_len",
    "max_input_tokens",
    "inputTokenLimit",
)
_OUTPUTS = ("max_output_tokens", "max_completion_tokens", "max_tokens", "outputTokenLimit")


def _model(model: ModelInfo) -> dict[str, Any]:
    out: dict[str, Any] = {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.owner or "unknown",
    }
    if model.context_window:
        out["context_window"] = model.context_window
    if model.max_output:
        out["max_output_tokens"] = model.max_output
    return out


def write_model(model: ModelInfo) -> bytes:
    return encode(_model(model))


def write_models(models: Sequence[ModelInfo]) -> bytes:
    return encode({"object": "list", "data": [_model(model) for model in models]})


def write_count(tokens: int) -> bytes:
    """This protocol has no counting; the shape is that of its sister protocol."""
    return encode({"object": "response.input_tokens", "input_tokens": tokens})


def read_models(body: bytes) -> list[ModelInfo]:
    """The models of a provider: `data`, `models`, or a bare list. Raises FaultError for anything else."""
    value = loads(body)
    fault = fault_in(value) if isinstance(value, dict) and "models" not in value else None
    if fault is not None:
        raise FaultError(fault)
    entries = value
    if isinstance(value, dict):
        entries = value["data"] if "data" in value else value.get("models")
    if not isinstance(entries, list):
        message = "the provider's list of models is not readable"
        raise FaultError(Fault(kind="upstream", message=message, origin=NAME))
    return [model for entry in entries if (model := _read_model(entry)) is not None]


def _read_model(entry: Any) -> ModelInfo | None:
    if isinstance(entry, str):
        return ModelInfo(entry) if entry else None
    if not isinstance(entry, dict):
        return None
    given = entry.get("id") or entry.get("name") or entry.get("model")
    if not isinstance(given, str):
        return None
    provider = entry.get("top_provider")
    top = provider if isinstance(provider, dict) else {}
    shown = entry.get("display_name") or entry.get("name")
    owner = entry.get("owned_by")
    return ModelInfo(
        id=given.removeprefix("models/"),
        owner=owner if isinstance(owner, str) else "",
        display_name=shown if isinstance(shown, str) and shown != given else "",
        created=count(entry.get("created")) or 0,
        context_window=_first(entry, _WINDOWS) or _first(top, _WINDOWS),
        max_output=_first(top, _OUTPUTS) or _first(entry, _OUTPUTS),
    )


def _first(entry: dict[str, Any], names: tuple[str, ...]) -> int:
    return next((found for name in names if (found := count(entry.get(name)))), 0)


def read_count(body: bytes) -> int:
    """A count of tokens as servers with a tokenizing path give it. Raises FaultError when there is none."""
    value = loads(body)
    if isinstance(value, dict):
        for name in ("input_tokens", "count", "total_tokens"):
            found = count(value.get(name))
            if found is not None:
                return found
        if isinstance(value.get("tokens"), list):
            return len(value["tokens"])
    raise FaultError(Fault(kind="upstream", message="the provider gave no token count", origin=NAME))
