"""OpenAI Chat Completions, and the many servers that speak a dialect of it, in both roles.

Requests: `request_in`, `messages_in`, `request_out`, `messages_out`. Answers: `answer_in`, `stream_in`,
`answer_out`, `stream_out`, `glance`. Errors, models, usage and the side paths have a file each. Knows no
socket, clock or log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_proxy.conversation.answer import Answer
from llm_proxy.conversation.fault import Fault
from llm_proxy.conversation.request import Request
from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects.base import (
    Dialect,
    Head,
    ModelInfo,
    Opening,
    Outgoing,
    ReadContext,
    ReplyContext,
    Target,
)  # fmt: skip
from llm_proxy.dialects.openai_chat import (
    answer_in,
    answer_out,
    errors,
    models,
    opening,
    request_in,
    request_out,
    usage,
)
from llm_proxy.dialects.openai_chat.fields import NAME
from llm_proxy.dialects.openai_chat.glance import ChatGlancer
from llm_proxy.dialects.openai_chat.stream_in import ChatStreamReader
from llm_proxy.dialects.openai_chat.stream_out import HEARTBEAT, ChatStreamWriter
from llm_proxy.wire.json import Body


class OpenAIChat:
    """The protocol; without state, so one serves all."""

    name = NAME
    heartbeat = HEARTBEAT
    steering_signs: tuple[bytes, ...] = (
        b'"max_tokens"', b'"max_completion_tokens"', b'"reasoning', b'"thinking', b'"enable_thinking"', b'"temperature"',
        b'"top_', b'"presence_penalty"', b'"frequency_penalty"', b'"log', b'"min_p"', b'"parallel_tool_calls"',
    )  # fmt: skip

    # towards clients

    def read_head(self, body: Body, path_model: str = "", path_stream: bool = False) -> Head:
        return request_in.read_head(body, path_model)

    def read_opening(self, body: Body) -> Opening:
        return opening.read_opening(body)

    def read_request(self, body: Body, path_model: str = "", path_stream: bool = False) -> Request:
        return request_in.read_request(body, path_model)

    def write_answer(self, answer: Answer, context: ReplyContext) -> bytes:
        return answer_out.write_answer(answer, context)

    def stream_writer(self, context: ReplyContext) -> ChatStreamWriter:
        return ChatStreamWriter(context)

    def write_error(self, fault: Fault, request_id: str = "") -> bytes:
        return errors.write_error(fault)

    def write_models(self, models_: Sequence[ModelInfo]) -> bytes:
        return models.write_models(models_)

    def write_model(self, model: ModelInfo) -> bytes:
        return models.write_model(model)

    def write_count(self, tokens: int) -> bytes:
        return models.write_count(tokens)

    # towards providers

    def retarget(self, body: bytes, target: Target) -> bytes:
        return request_out.retarget(body, target)

    def steering(self, request: Request, target: Target) -> tuple[dict[str, Any], dict[str, Any]]:
        return request_out.steering(request, target)

    def write_request(self, request: Request, target: Target) -> Outgoing:
        return request_out.write_request(request, target)

    def read_answer(self, body: bytes, context: ReadContext) -> Answer:
        return answer_in.read_answer(body, context)

    def stream_reader(self, context: ReadContext) -> ChatStreamReader:
        return ChatStreamReader(context)

    def glancer(self) -> ChatGlancer:
        return ChatGlancer()

    def read_usage(self, body: bytes) -> Usage | None:
        return usage.read_usage(body)

    def read_error(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> Fault:
        return errors.read_error(status, body)

    def error_in_answer(self, body: bytes) -> Fault | None:
        return errors.error_in_answer(body)

    def read_models(self, body: bytes) -> list[ModelInfo]:
        return models.read_models(body)

    def write_count_request(self, request: Request, target: Target) -> dict[str, Any]:
        return request_out.write_count_request(request, target)

    def read_count(self, body: bytes) -> int:
        return models.read_count(body)


DIALECT: Dialect = OpenAIChat()
