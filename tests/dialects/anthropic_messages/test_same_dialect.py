"""A request of this protocol to a provider of this protocol.

What was read is written, but for what the target demands.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from llm_proxy.conversation.parts import Text
from llm_proxy.conversation.request import Message
from llm_proxy.dialects.anthropic_messages import DIALECT
from llm_proxy.dialects.base import Target
from llm_proxy.dialects.capabilities import lookup
from llm_proxy.wire.json import rewrite
from tests.dialects.anthropic_messages.support import ENVELOPE, NAME, minimal, read, target, write
from tests.support.shared import client_requests, exchanges

# Bodies of count_tokens calls have no limit; the server adds one before they are read.
LIMIT = {"max_tokens": 1}


def recorded_bodies() -> Iterator[Any]:
    for exchange in exchanges():
        body = exchange.request.body
        if exchange.protocol == NAME and exchange.response.status == 200 and isinstance(body, dict):
            yield pytest.param(LIMIT | body, id=exchange.file)
    for request in client_requests():
        if request.protocol == NAME:
            yield pytest.param(LIMIT | request.body, id=request.file)


def plain(body: dict[str, Any]) -> dict[str, Any]:
    """The body in one spelling of what can be said in two, without hints that have no canonical member."""
    body = copy.deepcopy(body)
    for name in ("tools", "stream"):
        if not body.get(name):
            body.pop(name, None)
    if isinstance(body.get("system"), str):
        body["system"] = [{"type": "text", "text": body["system"]}]
    if "output_format" in body:
        body.setdefault("output_config", {})["format"] = body.pop("output_format")
    for message in body["messages"]:
        if isinstance(message["content"], str):
            message["content"] = [{"type": "text", "text": message["content"]}]
        for block in message["content"]:
            for name in [name for name, value in block.items() if value is None]:
                del block[name]
            block.pop("caller", None)
            if block["type"] == "tool_result":
                content = block.get("content")
                if isinstance(content, list) and len(content) == 1 and content[0].keys() == {"type", "text"}:
                    block["content"] = content[0]["text"]
                if block.get("content") == "":
                    del block["content"]
                if block.get("is_error") is False:
                    del block["is_error"]
    for tool in body.get("tools", ()):
        for name in ("eager_input_streaming", "input_examples"):
            tool.pop(name, None)
        if tool.get("type") == "custom":
            del tool["type"]
        if tool.get("description") == "":
            del tool["description"]
    return body


@pytest.mark.parametrize("body", list(recorded_bodies()))
def test_what_was_read_is_written(body: dict[str, Any]) -> None:
    request = DIALECT.read_request(json.dumps(body).encode())
    assert plain(DIALECT.write_as_read(request)) == plain(body)


@pytest.mark.parametrize("body", list(recorded_bodies()))
def test_an_edit_changes_nothing_but_its_place(body: dict[str, Any]) -> None:
    raw = json.dumps(body).encode()
    request = DIALECT.read_request(raw)
    last = request.messages[-1]
    edited = msgspec.structs.replace(last, parts=(*last.parts, Text("EDIT")))
    new = msgspec.structs.replace(request, messages=(*request.messages[:-1], edited))
    result = json.loads(rewrite(raw, DIALECT.write_as_read(request), DIALECT.write_as_read(new)))
    assert result["messages"][-1]["content"][-1] == {"type": "text", "text": "EDIT"}
    assert {key: value for key, value in result.items() if key != "messages"} == {
        key: value for key, value in body.items() if key != "messages"
    }
    assert result["messages"][:-1] == body["messages"][:-1]


def test_a_modern_claude_gets_what_its_client_sent() -> None:
    body = minimal(
        model="claude-sonnet-4-5",
        max_tokens=9000,
        thinking={"type": "enabled", "budget_tokens": 2048},
        messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        tool_choice={"type": "auto", "disable_parallel_tool_use": False},
        tools=[{"name": "f", "input_schema": {"type": "object", "anyOf": []}}],
        service_tier="standard_only",
        metadata={"user_id": "u"},
        container="c",
    )
    outgoing = write(read(body))
    assert outgoing.body == body
    assert (outgoing.losses, outgoing.duties.none) == ((), True)


def test_consecutive_messages_and_empty_blocks_keep_their_places() -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {"role": "user", "content": [{"type": "text", "text": ""}]},
    ]
    assert write(read(minimal(messages=messages))).body["messages"] == messages


def test_thinking_in_an_envelope_of_another_back_end_is_left_out() -> None:
    content = [{"type": "thinking", "thinking": "t", "signature": "gw1.other"}, {"type": "text", "text": "a"}]
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": content}]
    request = read(minimal(messages=[*messages, {"role": "user", "content": "y"}]))
    assert write(request).body["messages"][1]["content"] == [{"type": "text", "text": "a"}]
    # As it was read the envelope is still there, so that the difference removes it from the client's bytes.
    assert DIALECT.write_as_read(request)["messages"][1]["content"] == content


def test_the_marker_of_unsigned_thinking_is_recognised() -> None:
    from llm_proxy.dialects.anthropic_messages.wire import NO_SEAL
    from llm_proxy.dialects.reasoning import restore

    block = {"type": "thinking", "thinking": "t", "signature": ENVELOPE.pack(NO_SEAL)}
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": [block]}]
    request = restore(read(minimal(messages=[*messages, {"role": "user", "content": "y"}])), ENVELOPE, lambda key: None)
    assert len(write(request).body["messages"]) == 2


def test_betas_are_removed_together_with_their_fields() -> None:
    body = minimal(context_management={"edits": []}, speed="fast", output_config={"task_budget": {"total": 9}})
    with_betas = write(read(body))
    assert with_betas.body["context_management"] == {"edits": []}
    assert set(with_betas.headers["anthropic-beta"].split(",")) == {
        "context-management-2025-06-27", "fast-mode-2026-02-01", "task-budgets-2026-03-13",
    }  # fmt: skip
    without = write(read(body), target(betas=False))
    assert not {"context_management", "speed", "output_config"} & without.body.keys()
    assert without.headers == {} and len(without.losses) == 3
    assert write(read(minimal())).headers == {}


def test_server_tools_reach_this_protocols_providers_with_their_marks_reduced() -> None:
    tool = {
        "type": "web_search_20250305",
        "name": "web_search",
        "cache_control": {"type": "ephemeral", "ttl": "1h"},
    }
    assert write(read(minimal(tools=[tool]))).body["tools"] == [tool]
    assert write(read(minimal(tools=[tool])), target(cache_ttl=False)).body["tools"][0]["cache_control"] == {
        "type": "ephemeral"
    }


def test_another_model_behind_the_name_gets_what_it_takes() -> None:
    body = minimal(temperature=0.5, thinking={"type": "enabled", "budget_tokens": 20000}, max_tokens=30000)
    newest = write(read(body), target("claude-opus-5")).body
    assert newest["thinking"] == {"type": "adaptive"}
    assert newest["output_config"] == {"effort": "high"}
    assert "temperature" not in newest
    adaptive = minimal(thinking={"type": "adaptive"}, output_config={"effort": "low"}, max_tokens=9000)
    assert write(read(adaptive)).body["thinking"] == {"type": "enabled", "budget_tokens": 2048}


def test_a_system_message_inside_becomes_a_reminder_where_it_is_not_taken() -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "system", "content": "b"},
        {"role": "assistant", "content": "c"},
    ]
    request = read(minimal(messages=[*messages, {"role": "user", "content": "d"}]))
    old = write(request).body["messages"]
    assert [message["role"] for message in old] == ["user", "user", "assistant", "user"]
    assert "<system-reminder>" in old[1]["content"][0]["text"]
    new = write(request, target("claude-opus-5")).body["messages"]
    assert [message["role"] for message in new] == ["user", "system", "assistant", "user"]


def test_a_feature_may_put_a_system_message_in_front() -> None:
    request = read(
        minimal(system="S", messages=[{"role": "system", "content": "in"}, {"role": "user", "content": "x"}])
    )
    request = msgspec.structs.replace(request, messages=(Message("system", (Text("P"),)), *request.messages))
    body = write(request, target("claude-opus-5")).body
    assert [block["text"] for block in body["system"]] == ["P", "S"]
    assert body["messages"][0]["role"] == "system"


def test_retargeting_changes_the_model_and_nothing_else() -> None:
    raw = b'{ "model" : "a",\n "x": 1.50, "stream":true, "messages":[] }'
    streamed = Target(model="b", capabilities=lookup(NAME, "b"), stream=True)
    assert DIALECT.retarget(raw, streamed) == raw.replace(b'"a"', b'"b"')
    whole = Target(model="b", capabilities=lookup(NAME, "b"))
    assert DIALECT.retarget(raw, whole) == raw.replace(b'"a"', b'"b"').replace(b"true", b"false")


def test_a_counting_body_has_no_answer_fields() -> None:
    request = read(minimal(system="S", stop_sequences=["x"], temperature=0.5, stream=True))
    body = DIALECT.write_count_request(request, target())
    assert body.keys() == {"model", "messages", "system"}
