"""Gemini generateContent (v1beta) in both roles.

Requests and answers in both directions, errors, model lists and token counts. Model and streaming are
part of the path here, not of the body. What the other protocols look like is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from typing import Any

from llm_proxy.conversation.answer import Answer
from llm_proxy.conversation.fault import Fault, FaultError, bad_request
from llm_proxy.conversation.request import Request
from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects.base import (
    Dialect,
    Glancer,
    Head,
    ModelInfo,
    Opening,
    Outgoing,
    ReadContext,
    ReplyContext,
    StreamReader,
    StreamWriter,
    Target,
)
from llm_proxy.dialects.efforts import clamp_effort, with_known_maximum
from llm_proxy.dialects.gemini import answer_in, answer_out, errors, glance, opening, request_in, request_out
from llm_proxy.dialects.gemini.wire import NAME, Object, decode_body, integer
from llm_proxy.wire import json as wire_json
from llm_proxy.wire.faults import WireFault
from llm_proxy.wire.json import Body

_MODEL_MEMBER = re.compile(rb'"model"\s*:')
_LEVELS = tuple(product(*request_in.LEVEL))
_METHODS = ["generateContent", "streamGenerateContent", "countTokens"]


class Gemini:
    """See `llm_proxy.dialects.base.Dialect`."""

    name = NAME
    heartbeat = b""
    steering_signs: tuple[bytes, ...] = (b'"thinkingConfig"', b'"thinking_config"')

    # towards clients

    def read_head(self, body: Body, path_model: str = "", path_stream: bool = False) -> Head:
        model = path_model.removeprefix("models/")
        members = decode_body(body)
        request_in.check_level(members)
        if not model:
            named = members.get("model", "")
            if not isinstance(named, str):
                raise bad_request("model: expected a string", "model")
            model = named.removeprefix("models/")
        return Head(model=model, stream=path_stream, size=len(body), include_usage=True)

    def read_opening(self, body: Body) -> Opening:
        return opening.read_opening(body)

    def read_request(self, body: Body, path_model: str = "", path_stream: bool = False) -> Request:
        return request_in.read_request(body, path_model, path_stream)

    def write_answer(self, answer: Answer, context: ReplyContext) -> bytes:
        return answer_out.write_answer(answer, context)

    def stream_writer(self, context: ReplyContext) -> StreamWriter:
        return answer_out.GeminiStreamWriter(context)

    def write_error(self, fault: Fault, request_id: str = "") -> bytes:
        return errors.write_error(fault, request_id)

    def error_status(self, fault: Fault) -> int:
        """The HTTP status that goes with `write_error`."""
        return errors.error_status(fault)

    def write_models(self, models: Sequence[ModelInfo]) -> bytes:
        return wire_json.encode({"models": [_written_model(model) for model in models]})

    def write_model(self, model: ModelInfo) -> bytes:
        return wire_json.encode(_written_model(model))

    def write_count(self, tokens: int) -> bytes:
        return wire_json.encode({"totalTokens": tokens})

    # towards providers

    def retarget(self, body: bytes, target: Target) -> bytes:
        """The model is in the path; only a body that names one, too, must name the same. The level `maximum`, which no
        provider knows, becomes the model's highest."""
        if b"hinkingLevel" in body or b"hinking_level" in body:
            body = with_known_maximum(body, _LEVELS, clamp_effort("max", target.capabilities.efforts).upper())
        if _MODEL_MEMBER.search(body) is None and b'"generate' not in body:
            return body
        members = wire_json.split_object(body)
        if "model" in members:
            body = _renamed(body, members["model"], target.model)
        for wrapper in ("generateContentRequest", "generate_content_request"):
            inner = members.get(wrapper)
            if inner is None or inner.lstrip()[:1] != b"{":
                continue
            named = wire_json.split_object(inner).get("model")
            if named is not None:
                body = wire_json.replace_member(body, wrapper, _renamed(inner, named, target.model))
        return body

    def steering(self, request: Request, target: Target) -> tuple[dict[str, Any], dict[str, Any]]:
        return request_out.steering(request, target)

    def write_request(self, request: Request, target: Target) -> Outgoing:
        return request_out.write_request(request, target)

    def read_answer(self, body: bytes, context: ReadContext) -> Answer:
        return answer_in.read_answer(body, context)

    def stream_reader(self, context: ReadContext) -> StreamReader:
        return answer_in.ChunkReader(context)

    def glancer(self) -> Glancer:
        return glance.GeminiGlancer()

    def read_usage(self, body: bytes) -> Usage | None:
        return glance.usage_of_body(body)

    def read_error(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> Fault:
        return errors.read_error(status, headers, body)

    def error_in_answer(self, body: bytes) -> Fault | None:
        return errors.error_in_answer(body)

    def read_models(self, body: bytes) -> list[ModelInfo]:
        value = _answer_object(body, "the provider's model list")
        listed = value.get("models", value.get("publisherModels", value.get("data")))
        if not isinstance(listed, list):
            raise FaultError(Fault(kind="upstream", message="the provider's model list has no models"))
        return [model for entry in listed if (model := _read_model(entry)) is not None]

    def write_count_request(self, request: Request, target: Target) -> dict[str, Any]:
        return request_out.write_count_request(request, target)

    def read_count(self, body: bytes) -> int:
        tokens = integer(_answer_object(body, "the provider's token count").get("totalTokens"))
        if tokens is None or tokens < 0:
            raise FaultError(Fault(kind="upstream", message="the provider's token count names no number"))
        return tokens


def _renamed(body: bytes, written: bytes, model: str) -> bytes:
    """`body` naming `model` in the form that the client used; untouched if it does already."""
    wanted = request_out.model_path(model) if written.lstrip().startswith(b'"models/') else model
    value = wire_json.encode(wanted)
    return body if written.strip() == value else wire_json.replace_member(body, "model", value)


def _answer_object(body: bytes, what: str) -> Object:
    try:
        return wire_json.decode_object(body)
    except WireFault:
        raise FaultError(Fault(kind="upstream", message=f"{what} is not a JSON object")) from None


def _read_model(entry: Any) -> ModelInfo | None:
    """A model that generates; embedding and image models of other methods are left out."""
    if not isinstance(entry, dict):
        return None
    name = entry.get("name", entry.get("id"))
    methods = entry.get("supportedGenerationMethods")
    if not isinstance(name, str) or not name:
        return None
    if isinstance(methods, list) and "generateContent" not in methods:
        return None
    shown = entry.get("displayName")
    return ModelInfo(
        id=name.removeprefix("publishers/google/").removeprefix("models/"),
        owner="google",
        display_name=shown if isinstance(shown, str) else "",
        context_window=integer(entry.get("inputTokenLimit")) or 0,
        max_output=integer(entry.get("outputTokenLimit")) or 0,
    )


def _written_model(model: ModelInfo) -> Object:
    out: Object = {
        "name": f"models/{model.id}",
        "version": "1",
        "displayName": model.display_name or model.id,
        "description": f"served by {model.owner}" if model.owner else "",
    }
    if model.context_window:
        out["inputTokenLimit"] = model.context_window
    if model.max_output:
        out["outputTokenLimit"] = model.max_output
    out["supportedGenerationMethods"] = _METHODS
    return out


DIALECT: Dialect = Gemini()
