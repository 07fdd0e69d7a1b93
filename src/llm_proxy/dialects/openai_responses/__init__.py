"""OpenAI Responses: requests, answers, streams and errors in both roles. `DIALECT` is the whole of it for
others.

`state` holds the stored responses of this protocol as pure data; `stream_out.compose` gives a whole answer
with what to store of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from llm_proxy.conversation.answer import Answer
from llm_proxy.conversation.fault import Fault
from llm_proxy.conversation.request import Request
from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects.base import Dialect, Head, ModelInfo, Opening, Outgoing, ReadContext, ReplyContext, Target
from llm_proxy.dialects.openai_responses import errors, opening, request_in, request_out
from llm_proxy.dialects.openai_responses import models as lists
from llm_proxy.dialects.openai_responses.answer_in import read_answer, read_usage_object
from llm_proxy.dialects.openai_responses.glance import ResponsesGlancer
from llm_proxy.dialects.openai_responses.stream_in import ResponsesReader
from llm_proxy.dialects.openai_responses.stream_out import HEARTBEAT, ResponsesWriter, write_answer
from llm_proxy.dialects.openai_responses.wire import NAME
from llm_proxy.wire.json import Body


class _Usage(msgspec.Struct):
    usage: Any = None


_decode_usage = msgspec.json.Decoder(_Usage).decode


class OpenAIResponses:
    """The protocol in both roles."""

    name: str = NAME
    heartbeat: bytes = HEARTBEAT
    steering_signs: tuple[bytes, ...] = (b'"reasoning', b'"temperature"', b'"top_', b'output_text.logprobs"')

    # towards clients

    def read_head(self, body: Body, path_model: str = "", path_stream: bool = False) -> Head:
        return request_in.read_head(body)

    def read_opening(self, body: Body) -> Opening:
        return opening.read_opening(body)

    def read_request(self, body: Body, path_model: str = "", path_stream: bool = False) -> Request:
        return request_in.read_request(body)

    def write_answer(self, answer: Answer, context: ReplyContext) -> bytes:
        return write_answer(answer, context)

    def stream_writer(self, context: ReplyContext) -> ResponsesWriter:
        return ResponsesWriter(context)

    def write_error(self, fault: Fault, request_id: str = "") -> bytes:
        return errors.write_error(fault)

    def write_models(self, models: Sequence[ModelInfo]) -> bytes:
        return lists.write_models(models)

    def write_model(self, model: ModelInfo) -> bytes:
        return lists.write_model(model)

    def write_count(self, tokens: int) -> bytes:
        return lists.write_count(tokens)

    # towards providers

    def retarget(self, body: bytes, target: Target) -> bytes:
        return request_out.retarget(body, target)

    def steering(self, request: Request, target: Target) -> tuple[dict[str, Any], dict[str, Any]]:
        return request_out.steering(request, target)

    def write_request(self, request: Request, target: Target) -> Outgoing:
        return request_out.write_request(request, target)

    def read_answer(self, body: bytes, context: ReadContext) -> Answer:
        return read_answer(body, context)

    def stream_reader(self, context: ReadContext) -> ResponsesReader:
        return ResponsesReader(context)

    def glancer(self) -> ResponsesGlancer:
        return ResponsesGlancer()

    def read_usage(self, body: bytes) -> Usage | None:
        if b'"usage"' not in body:
            return None
        try:
            return read_usage_object(_decode_usage(body).usage)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return None

    def read_error(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> Fault:
        return errors.read_error(status, body)

    def error_in_answer(self, body: bytes) -> Fault | None:
        return errors.error_in_answer(body)

    def read_models(self, body: bytes) -> list[ModelInfo]:
        return lists.read_models(body)

    def write_count_request(self, request: Request, target: Target) -> dict[str, Any]:
        return request_out.write_count_request(request, target)

    def read_count(self, body: bytes) -> int:
        return lists.read_count(body)


DIALECT: Dialect = OpenAIResponses()
