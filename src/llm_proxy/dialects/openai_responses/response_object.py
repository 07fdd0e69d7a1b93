"""The Response object that clients get: what it repeats of their request, usage, and how an answer's end is
told.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from llm_proxy.conversation.answer import Stop
from llm_proxy.conversation.parts import text_of
from llm_proxy.conversation.request import Request
from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects.efforts import effort_of
from llm_proxy.dialects.openai_responses.tools import echoed_choice, echoed_tools
from llm_proxy.dialects.openai_responses.wire import INSTRUCTIONS, NAME
from llm_proxy.wire.json import encode

_CUT: Final = {
    "length": "max_output_tokens",
    "context_full": "max_output_tokens",
    "content_filter": "content_filter",
}


def echo(request: Request | None) -> dict[str, Any]:
    """The members that repeat the request. Long ones are encoded once, since a stream sends them three
    times.
    """
    if request is None or request.dialect != NAME:
        request = Request(dialect=NAME)
    rest = request.rest
    first = request.messages[0] if request.messages else None
    instructions = text_of(first.parts) if first is not None and first.id == INSTRUCTIONS else None
    reasoning: dict[str, Any] = {"effort": None, "summary": None}
    if request.reasoning is not None:
        reasoning = {"effort": effort_of(request.reasoning), "summary": request.reasoning.summary or None}
    if isinstance(more := rest.get("reasoning"), dict):
        reasoning.update(more)
    sampling = request.sampling
    return {
        "background": rest.get("background") is True,
        "instructions": instructions if instructions is None else msgspec.Raw(encode(instructions)),
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": rest.get("max_tool_calls"),
        "metadata": request.metadata or {},
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_id or None,
        "prompt_cache_key": request.cache_key or None,
        "reasoning": reasoning,
        "safety_identifier": rest.get("safety_identifier"),
        "store": request.store is not False,
        "temperature": sampling.temperature,
        "text": _text(request),
        "tool_choice": echoed_choice(request),
        "tools": msgspec.Raw(encode(echoed_tools(request))),
        "top_logprobs": sampling.top_logprobs or 0,
        "top_p": sampling.top_p,
        "truncation": rest.get("truncation") or "disabled",
        "user": request.user or None,
    }


def _text(request: Request) -> dict[str, Any]:
    form = request.format
    written: dict[str, Any] = {"format": {"type": "text"}}
    if form is not None and form.kind == "json":
        written["format"] = {"type": "json_object"}
    elif form is not None and form.kind == "schema":
        written["format"] = {
            "type": "json_schema", "name": form.name, "schema": form.schema, "strict": form.strict,
            "description": form.description or None,
        }  # fmt: skip
    if request.verbosity:
        written["verbosity"] = request.verbosity
    return written


def usage_object(usage: Usage | None, estimated_input: int, written: int) -> dict[str, Any]:
    """`usage` with all counts as integers. What the provider did not say is estimated.

    `written` is the number of characters of the answer; four of them count as one token.
    """
    usage = usage or Usage()
    counted = estimated_input if usage.input is None else usage.input
    output = (written + 3) // 4 if usage.output is None else usage.output
    return {
        "input_tokens": counted,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read or 0,
            "cache_write_tokens": usage.cache_write or 0,
        },
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning or 0},
        "total_tokens": counted + output,
    }


def incomplete_reason(stop: Stop) -> str:
    """Why the response is incomplete; empty when it is complete."""
    return "malformed_tool_call" if stop.kind == "malformed_tool" else _CUT.get(stop.kind, "")
