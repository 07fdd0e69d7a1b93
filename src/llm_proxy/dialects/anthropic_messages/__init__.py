"""Anthropic Messages in both roles: toward clients that speak it and toward providers that do.

`DIALECT` is the whole protocol; `write_as_read` goes beyond the common contract. `client_tools` gives other
dialects the schemas of Anthropic's own client tools.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from llm_proxy.conversation.answer import Answer
from llm_proxy.conversation.fault import Fault
from llm_proxy.conversation.request import Request
from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects.anthropic_messages import (
    answer_in,
    answer_out,
    errors,
    glance,
    listings,
    opening,
    request_in,
    request_out,
    stream_in,
    stream_out,
    wire,
)  # fmt: skip
from llm_proxy.dialects.base import Head, ModelInfo, Opening, Outgoing, ReadContext, ReplyContext, Target
from llm_proxy.dialects.efforts import clamp_effort, says_maximum, with_known_maximum
from llm_proxy.wire import json
from llm_proxy.wire.json import Body


class _Call(msgspec.Struct):
    model: Any = None
    stream: Any = None
    output_config: Any = None


_EFFORTS = (("output_config", "effort"),)
_decode_call = msgspec.json.Decoder(_Call).decode


class AnthropicMessages:
    name = wire.NAME
    heartbeat = stream_out.PING
    steering_signs: tuple[bytes, ...] = (b'"thinking"', b'"output_config"', b'"temperature"', b'"top_p"', b'"top_k"')

    # ---- toward clients

    def read_head(self, body: Body, path_model: str = "", path_stream: bool = False) -> Head:
        return request_in.read_head(body)

    def read_opening(self, body: Body) -> Opening:
        return opening.read_opening(body)

    def read_request(self, body: Body, path_model: str = "", path_stream: bool = False) -> Request:
        return request_in.read_request(body)

    def write_answer(self, answer: Answer, context: ReplyContext) -> bytes:
        return answer_out.write_answer(answer, context)

    def stream_writer(self, context: ReplyContext) -> stream_out.StreamWriter:
        return stream_out.StreamWriter(context)

    def write_error(self, fault: Fault, request_id: str = "") -> bytes:
        return errors.write_error(fault, request_id)

    def write_models(self, models: Sequence[ModelInfo]) -> bytes:
        return listings.write_models(models)

    def write_model(self, model: ModelInfo) -> bytes:
        return listings.write_model(model)

    def write_count(self, tokens: int) -> bytes:
        return listings.write_count(tokens)

    # ---- toward providers

    def retarget(self, body: bytes, target: Target) -> bytes:
        """Replaces `model`, and `stream` where the call differs from what the client asked; usage always
        comes by itself. The effort `maximum`, which no provider knows, becomes the model's highest.
        """
        call = _decode_call(body)
        if isinstance(call.model, str):
            body = json.rename_model(body, call.model, target.model)
        else:
            body = json.replace_member(body, "model", json.encode(target.model))
        if bool(call.stream) != target.stream:
            body = json.replace_member(body, "stream", json.encode(target.stream))
        if says_maximum(call.output_config, "effort"):
            body = with_known_maximum(body, _EFFORTS, clamp_effort("max", target.capabilities.efforts))
        return body

    def write_request(self, request: Request, target: Target) -> Outgoing:
        return request_out.write_request(request, target)

    def steering(self, request: Request, target: Target) -> tuple[dict[str, Any], dict[str, Any]]:
        return request_out.steering(request, target)

    def write_as_read(self, request: Request) -> dict[str, Any]:
        """The body as it was read, adapted to no target: the `old` side of `wire.json.rewrite`."""
        return request_out.write_as_read(request)

    def read_answer(self, body: bytes, context: ReadContext) -> Answer:
        return answer_in.read_answer(body, context)

    def stream_reader(self, context: ReadContext) -> stream_in.StreamReader:
        return stream_in.StreamReader(context)

    def glancer(self) -> glance.Glancer:
        return glance.Glancer()

    def read_usage(self, body: bytes) -> Usage | None:
        return answer_in.read_usage(body)

    def read_error(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> Fault:
        return errors.read_error(status, headers, body)

    def error_in_answer(self, body: bytes) -> Fault | None:
        return errors.error_in_answer(body)

    def read_models(self, body: bytes) -> list[ModelInfo]:
        return listings.read_models(body)

    def write_count_request(self, request: Request, target: Target) -> dict[str, Any]:
        return request_out.write_count_request(request, target)

    def read_count(self, body: bytes) -> int:
        return listings.read_count(body)


DIALECT = AnthropicMessages()
