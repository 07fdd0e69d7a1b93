"""Model lists and token counts, both ways."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.dialects.anthropic_messages import wire
from llm_proxy.dialects.base import ModelInfo
from llm_proxy.wire import json
from llm_proxy.wire.faults import WireFault


def write_models(models: Sequence[ModelInfo]) -> bytes:
    return json.encode(
        {
            "data": [_model(model) for model in models],
            "has_more": False,
            "first_id": models[0].id if models else None,
            "last_id": models[-1].id if models else None,
        }
    )


def write_model(model: ModelInfo) -> bytes:
    return json.encode(_model(model))


def _model(model: ModelInfo) -> dict[str, Any]:
    written: dict[str, Any] = {
        "type": "model",
        "id": model.id,
        "display_name": model.display_name or model.id,
        "created_at": datetime.fromtimestamp(model.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    if model.context_window:
        written["max_input_tokens"] = model.context_window
    if model.max_output:
        written["max_tokens"] = model.max_output
    return written


def read_models(body: bytes) -> list[ModelInfo]:
    """Anthropic's list, or OpenAI's as look-alikes send it. Raises FaultError when it is neither."""
    try:
        data = json.decode_object(body).get("data")
    except WireFault:
        data = None
    if not isinstance(data, list):
        raise FaultError(Fault(kind="upstream", message="the provider's model list is not readable"))
    return [_read_model(entry) for entry in data if isinstance(entry, dict) and wire.text_in(entry.get("id"))]


def _read_model(entry: dict[str, Any]) -> ModelInfo:
    return ModelInfo(
        id=entry["id"],
        owner=wire.text_in(entry.get("owned_by")),
        display_name=wire.text_in(entry.get("display_name")),
        created=_seconds(entry.get("created_at")) or wire.count_in(entry.get("created")) or 0,
        context_window=wire.count_in(entry.get("max_input_tokens")) or wire.count_in(entry.get("context_window")) or 0,
        max_output=wire.count_in(entry.get("max_tokens")) or wire.count_in(entry.get("max_output_tokens")) or 0,
    )


def _seconds(value: Any) -> int:
    if not isinstance(value, str):
        return wire.count_in(value) or 0
    try:
        moment = datetime.fromisoformat(value.replace("Z", "+00:00"))
        return max(0, int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()))
    except (ValueError, OverflowError):
        return 0


def write_count(tokens: int) -> bytes:
    return json.encode({"input_tokens": tokens})


def read_count(body: bytes) -> int:
    """Raises FaultError when the provider gave no number."""
    try:
        count = wire.count_in(json.decode_object(body).get("input_tokens"))
    except WireFault:
        count = None
    if count is None:
        raise FaultError(Fault(kind="upstream", message="the provider's token count is not readable"))
    return count
