"""Reasoning state survives the round trip through clients that cannot carry it, and never reaches another origin (FE-13)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.support.proxy import KEY, Proxy, backends_at, running_proxy
from tests.support.upstream import Received, Reply, Upstream, upstream_in_thread

SIGNATURE = "c2lnbmF0dXJlLW9mLWNsYXVkZQ=="
THOUGHT = "dGhvdWdodC1vZi1nZW1pbmk="
ENCRYPTED = "gAAAA-encrypted-reasoning"


def script(request: Received) -> Reply:
    """Thinks and calls `f` when the last turn is the user's words, answers when it is a tool result."""
    text = request.body.decode()
    done = any(
        mark in text for mark in ('"tool_result"', '"functionResponse"', '"function_call_output"', '"role":"tool"')
    )
    if "/messages" in request.path:
        content: list[dict[str, Any]] = (
            [{"type": "text", "text": "done"}]
            if done
            else [
                {"type": "thinking", "thinking": "I shall call f.", "signature": SIGNATURE},
                {"type": "tool_use", "id": "toolu_01", "name": "f", "input": {"a": 1}},
            ]
        )
        return Reply.json({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "content": content,
                           "stop_reason": "end_turn" if done else "tool_use", "stop_sequence": None,
                           "usage": {"input_tokens": 5, "output_tokens": 5}})  # fmt: skip
    if "/responses" in request.path:
        output: list[dict[str, Any]] = (
            [{"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
              "content": [{"type": "output_text", "text": "done", "annotations": []}]}]
            if done
            else [
                {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "I shall call f."}],
                 "encrypted_content": ENCRYPTED},
                {"type": "function_call", "id": "fc_1", "call_id": "call_01", "name": "f", "arguments": '{"a":1}', "status": "completed"},
            ]
        )  # fmt: skip
        return Reply.json({"id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-5.5", "status": "completed",
                           "output": output, "parallel_tool_calls": True, "tool_choice": "auto", "tools": []})  # fmt: skip
    part = {"text": "done"} if done else {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": THOUGHT}
    return Reply.json({"candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}],
                       "modelVersion": "gemini-3-pro", "responseId": "r1"})  # fmt: skip


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with upstream_in_thread(script) as made:
        yield made


@pytest.fixture(scope="module")
def proxy(upstream: Upstream) -> Iterator[Proxy]:
    with running_proxy(config={"backends": backends_at(upstream.url)}) as made:
        yield made


TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}},
}
MODELS = {
    "up-anthropic:claude-sonnet-4-5": SIGNATURE,
    "up-gemini:gemini-3-pro-preview": THOUGHT,
    "up-responses:gpt-5.5": ENCRYPTED,
}


def chat_turns(proxy: Proxy, model: str) -> list[dict[str, Any]]:
    """A plain Chat agent: it keeps text and tool calls of the answer and nothing else. Gives the history of its second turn."""
    with openai.OpenAI(base_url=f"{proxy.url}/v1", api_key=KEY, max_retries=0) as client:
        first = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "call f"}],
            tools=[TOOL],  # type: ignore[list-item]
            reasoning_effort="low",
        )
        [call] = first.choices[0].message.tool_calls or []
        assert call.type == "function"
        return [
            {"role": "user", "content": "call f"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": call.id,
                        "type": "function",
                        "function": {"name": "f", "arguments": call.function.arguments},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": call.id, "content": "2"},
        ]


def second_turn(proxy: Proxy, model: str, history: list[dict[str, Any]]) -> None:
    with openai.OpenAI(base_url=f"{proxy.url}/v1", api_key=KEY, max_retries=0) as client:
        answer = client.chat.completions.create(
            model=model,
            messages=history,  # type: ignore[arg-type]
            tools=[TOOL],  # type: ignore[list-item]
            reasoning_effort="low",
        )
    assert answer.choices[0].message.content == "done"


@pytest.mark.parametrize("model", list(MODELS))
def test_a_chat_agent_that_keeps_only_calls_gives_the_seal_back(proxy: Proxy, upstream: Upstream, model: str) -> None:
    history = chat_turns(proxy, model)
    second_turn(proxy, model, history)
    assert MODELS[model] in upstream.requests[-1].body.decode()
    assert "gw1." not in upstream.requests[-1].body.decode()


@pytest.mark.parametrize("model", list(MODELS))
def test_the_seal_of_one_origin_never_reaches_another(proxy: Proxy, upstream: Upstream, model: str) -> None:
    history = chat_turns(proxy, model)
    for other in MODELS:
        if other != model:
            second_turn(proxy, other, history)
            sent = upstream.requests[-1].body.decode()
            assert MODELS[model] not in sent
            assert "gw1." not in sent


@pytest.mark.parametrize("model", list(MODELS))
def test_kept_reasoning_survives_a_restart(upstream: Upstream, tmp_path: Path, model: str) -> None:
    config = {"backends": backends_at(upstream.url)}
    with running_proxy(config=config, data_dir=tmp_path) as first:
        history = chat_turns(first, model)
    with running_proxy(config=config, data_dir=tmp_path) as second:
        second_turn(second, model, history)
    assert MODELS[model] in upstream.requests[-1].body.decode()


def test_another_client_key_does_not_get_what_was_kept(upstream: Upstream) -> None:
    config = {"backends": backends_at(upstream.url), "auth": {"api_keys": {"a": KEY, "b": "second-key"}}}
    with running_proxy(config=config, environment={"LLM_INTERACTIVE_PROXY_API_KEY": ""}) as made:
        model = "up-anthropic:claude-sonnet-4-5"
        history = chat_turns(made, model)
        with openai.OpenAI(base_url=f"{made.url}/v1", api_key="second-key", max_retries=0) as client:
            client.chat.completions.create(model=model, messages=history, tools=[TOOL])  # type: ignore[arg-type, list-item]
    assert SIGNATURE not in upstream.requests[-1].body.decode()


@pytest.mark.parametrize("model", ["up-gemini:gemini-3-pro-preview", "up-responses:gpt-5.5"])
def test_an_anthropic_client_echoes_foreign_state_and_a_real_claude_never_sees_it(
    proxy: Proxy, upstream: Upstream, model: str
) -> None:
    with anthropic.Anthropic(base_url=proxy.url, api_key=KEY, max_retries=0) as client:
        asked: dict[str, Any] = {
            "max_tokens": 4000,
            "thinking": {"type": "enabled", "budget_tokens": 2000},
            "tools": [{"name": "f", "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}],
        }
        question: dict[str, Any] = {"role": "user", "content": "call f"}
        first = client.messages.create(model=model, messages=[question], **asked)
        blocks = [block.model_dump(exclude_none=True) for block in first.content]
        call = next(block for block in blocks if block["type"] == "tool_use")
        history = [
            question,
            {"role": "assistant", "content": blocks},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call["id"], "content": "2"}]},
        ]
        client.messages.create(model=model, messages=history, **asked)  # type: ignore[arg-type]
        assert MODELS[model] in upstream.requests[-1].body.decode()
        client.messages.create(model="up-anthropic:claude-sonnet-4-5", messages=history, **asked)  # type: ignore[arg-type]
    sent = upstream.requests[-1].json
    assert "gw1." not in json.dumps(sent)
    assert MODELS[model] not in json.dumps(sent)
    assert [block["type"] for block in sent["messages"][1]["content"]] == ["tool_use"]
