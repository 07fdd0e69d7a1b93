"""Model lists and token counts: the small bodies beside the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.dialects.base import ModelInfo
from llm_proxy.dialects.openai_responses.wire import mapping, text, whole_number
from llm_proxy.wire.faults import JsonFault
from llm_proxy.wire.json import decode_object, encode


def write_models(models: Sequence[ModelInfo]) -> bytes:
    return encode({"object": "list", "data": [_entry(model) for model in models]})


def write_model(model: ModelInfo) -> bytes:
    return encode(_entry(model))


def _entry(model: ModelInfo) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.owner,
    }
    if model.context_window:
        entry["context_window"] = model.context_window
    if model.max_output:
        entry["max_output_tokens"] = model.max_output
    return entry


def read_models(body: bytes) -> list[ModelInfo]:
    """The models of a list in any of the shapes that servers of this family send. Raises FaultError for
    what is no list.
    """
    try:
        data = decode_object(b'{"data":' + body + b"}" if body.lstrip()[:1] == b"[" else body)
    except JsonFault:
        raise FaultError(Fault(kind="upstream", message="the provider's model list is not readable")) from None
    entries = data.get("data")
    if not isinstance(entries, list):
        entries = data.get("models")
    if not isinstance(entries, list):
        raise FaultError(Fault(kind="upstream", message="the provider's model list is not readable"))
    models = []
    for raw in entries:
        entry = {"id": raw} if isinstance(raw, str) else mapping(raw)
        if name := text(entry.get("id")) or text(entry.get("name")):
            models.append(_model(name, entry))
    return models


def _model(name: str, entry: dict[str, Any]) -> ModelInfo:
    provider = mapping(entry.get("top_provider"))
    return ModelInfo(
        id=name,
        owner=text(entry.get("owned_by")),
        display_name=text(entry.get("display_name")) or text(entry.get("name")),
        created=whole_number(entry.get("created")) or 0,
        context_window=_first(entry, "context_window", "context_length", "max_context_length", "max_model_len"),
        max_output=_first(entry, "max_output_tokens", "max_completion_tokens")
        or _first(provider, "max_completion_tokens"),
    )


def _first(entry: dict[str, Any], *names: str) -> int:
    return next((number for name in names if (number := whole_number(entry.get(name))) and number > 0), 0)


def write_count(tokens: int) -> bytes:
    return encode({"object": "response.input_tokens", "input_tokens": tokens})


def read_count(body: bytes) -> int:
    try:
        count = whole_number(decode_object(body).get("input_tokens"))
    except JsonFault:
        count = None
    if count is None or count < 0:
        raise FaultError(Fault(kind="upstream", message="the provider's token count is not readable"))
    return count
