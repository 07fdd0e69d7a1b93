"""Chat to Chat: bytes are kept, edits find their place, envelopes never leave."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from llm_proxy.conversation.fault import FaultError
from llm_proxy.conversation.parts import Part, Seal, Text, Thinking, ToolCall
from llm_proxy.conversation.request import Reasoning, Request
from llm_proxy.dialects.base import Target
from llm_proxy.dialects.capabilities import lookup
from llm_proxy.dialects.openai_chat import DIALECT
from llm_proxy.dialects.reasoning import restore
from llm_proxy.wire.json import rewrite
from tests.dialects.openai_chat.support import ENVELOPE, MAKER, NAME, body_of, call, function, read, written


def aim(**fields: Any) -> Target:
    values: dict[str, Any] = {
        "model": "up-model",
        "capabilities": lookup(NAME, "up-model"),
        "ask_usage": False,
    }
    return Target(**{**values, **fields})


# ---- a client's bytes sent on


def test_only_the_model_is_replaced() -> None:
    raw = (
        b'{ "x" : 1.50,\n "model" :"a:b" , "messages":[ {"role":"user","content":"\\u00e9"} ] , '
        b'"unknown":{"b":1,"a":2}}'
    )
    assert DIALECT.retarget(raw, aim()) == raw.replace(b'"a:b"', b'"up-model"')


def test_usage_is_asked_for_in_streams_and_nothing_else_changes() -> None:
    raw = b'{"model":"m","stream":true,"messages":[]}'
    target = aim(stream=True, ask_usage=True)
    assert DIALECT.retarget(raw, target) == (
        b'{"model":"up-model","stream":true,"messages":[],"stream_options":{"include_usage":true}}'
    )
    raw = b'{"stream_options": {"other": 1.0, "include_usage":false}, "model":"m", "stream":true}'
    assert DIALECT.retarget(raw, target) == (
        b'{"stream_options": {"other": 1.0, "include_usage":true}, "model":"up-model", "stream":true}'
    )
    asked = b'{"model":"up-model","stream":true,"stream_options":{"include_usage":true}}'
    assert DIALECT.retarget(asked, target) == asked
    no_usage = aim(stream=True, ask_usage=True, capabilities=lookup(NAME, "m", {"stream_usage": False}))
    assert b"stream_options" not in DIALECT.retarget(b'{"model":"m","stream":true}', no_usage)


def test_the_call_is_made_as_the_target_says() -> None:
    raw = b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'
    assert json.loads(DIALECT.retarget(raw, aim())) == {"model": "up-model", "stream": False}
    assert json.loads(DIALECT.retarget(b'{"model":"m"}', aim(stream=True))) == {
        "model": "up-model",
        "stream": True,
    }
    with pytest.raises(FaultError):
        DIALECT.retarget(b"[]", aim())


# ---- what was read is written


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 5, "temperature": 0.5, "stop": "x", "top_k": 3, "seed": 1, "logit_bias": {"1": 2}},
        {
            "max_completion_tokens": 5,
            "stop": ["x", "y"],
            "verbosity": "low",
            "user": "u",
            "metadata": {"a": "b"},
        },
        {"reasoning": {"effort": "low"}, "safety_identifier": "s", "prompt_cache_key": "k", "store": True},
        {"thinking": {"type": "enabled", "clear_thinking": False}, "service_tier": "on_demand"},
        {"enable_thinking": False, "chat_template_kwargs": {"a": 1}},
        {"reasoning_effort": "default"},
        {
            "tools": [function("f", parameters={"type": "object", "$id": "x"}, strict=False)],
            "tool_choice": "any",
        },
        {"functions": [{"name": "f", "parameters": {}}], "function_call": {"name": "f"}},
        {"tools": [{"type": "openrouter:web_search", "parameters": {"n": 1}}], "parallel_tool_calls": True},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "a b", "schema": {"type": "array"}},
            }
        },
        {"response_format": {"type": "grammar", "value": "x"}, "web_search_options": {}, "n": 3},
        {
            "modalities": ["text", "audio"],
            "audio": {"voice": "alloy", "format": "wav"},
            "prediction": {"type": "content"},
        },
    ],
)
def test_parameters_are_written_as_they_were_read(fields: dict[str, Any]) -> None:
    body = body_of(**fields)
    out = DIALECT.write_request(read(body), aim(model="m"))
    assert out.body == body
    assert out.duties.none and not out.losses


def test_messages_are_written_one_for_one() -> None:
    messages = [
        {"role": "developer", "content": "A"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            "name": "ann",
        },
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                {
                    "type": "file",
                    "file": {"file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"},
                },
                {"type": "video_url", "video_url": {"url": "https://h/v.mp4"}},
                {"type": "hologram", "x": 1},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                call("functions.f:0", "odd name!", "not json"),
                call("b", "f", "", extra_content={"google": {"thought_signature": "sig"}}),
                {"id": "c", "type": "custom", "custom": {"name": "p", "input": "x"}},
            ],
            "reasoning_details": [
                {"type": "reasoning.text", "text": "t", "signature": "s", "index": 0},
                {"type": "reasoning.encrypted", "data": "d", "index": 1},
            ],
        },
        {
            "role": "tool",
            "tool_call_id": "b",
            "content": [{"type": "text", "text": "1"}, {"type": "text", "text": "2"}],
        },
        {"role": "tool", "tool_call_id": "functions.f:0", "content": ""},
        {"role": "tool", "tool_call_id": "c", "content": "x"},
        {"role": "assistant", "content": "", "function_call": {"name": "g", "arguments": "{}"}},
        {"role": "function", "name": "g", "content": "42"},
        {"role": "assistant", "content": None, "audio": {"id": "audio_1"}},
        {"role": "assistant", "content": None, "refusal": "no"},
        {"role": "system", "content": "late"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "t"}]},
                {"type": "text", "text": "x"},
            ],
        },
    ]
    body = body_of(messages=messages)
    assert DIALECT.write_request(read(body), aim(model="m")).body == body


def edited(body: dict[str, Any], change: Any) -> dict[str, Any]:
    """The client's bytes after `change(request)`, as the proxy sends them."""
    raw = json.dumps(body).encode()
    before = DIALECT.read_request(raw)
    after = change(before)
    out = rewrite(
        DIALECT.retarget(raw, aim()),
        DIALECT.write_request(before, aim()).body,
        DIALECT.write_request(after, aim()).body,
    )
    found: dict[str, Any] = json.loads(out)
    return found


def test_an_edit_changes_its_place_only() -> None:
    body = body_of(
        messages=[
            {"role": "user", "content": "hello !/help", "odd": 1},
            {"role": "assistant", "content": "x", "prefix": True, "reasoning_content": "kept"},
        ],
        odd={"a": 1},
    )

    def drop_command(request: Request) -> Request:
        first = msgspec.structs.replace(request.messages[0], parts=(Text("hello"),))
        return msgspec.structs.replace(request, messages=(first, *request.messages[1:]))

    found = edited(body, drop_command)
    expected = {**body, "model": "up-model"}
    expected["messages"][0]["content"] = "hello"
    assert found == expected


@pytest.mark.parametrize(
    ("fields", "change", "expected"),
    [
        ({"max_tokens": 9}, {"max_output_tokens": 5}, {"max_tokens": 5}),
        ({"stop": "x"}, {"stop": ("x", "y")}, {"stop": ["x", "y"]}),
        (
            {"reasoning": {"max_tokens": 9}},
            {"reasoning": Reasoning("effort", "low")},
            {"reasoning_effort": "low"},
        ),
        ({"thinking": {"type": "enabled"}}, {"reasoning": None}, {}),
    ],
)
def test_an_edited_parameter_keeps_no_second_spelling(
    fields: dict[str, Any], change: dict[str, Any], expected: dict[str, Any]
) -> None:
    found = edited(body_of(**fields), lambda request: msgspec.structs.replace(request, **change))
    assert {name: value for name, value in found.items() if name not in ("model", "messages")} == expected


# ---- sealed state


def history(seal: Seal) -> dict[str, Any]:
    """A conversation in which a client echoes what this proxy gave it, `seal` packed."""
    packed = ENVELOPE.pack(seal)
    turn = {
        "role": "assistant",
        "content": None,
        "reasoning_content": "why",
        "reasoning_details": [{"type": "reasoning.text", "text": "why", "signature": packed, "index": 0}],
        "tool_calls": [call("a", extra_content={"google": {"thought_signature": packed}})],
    }
    messages = [
        {"role": "user", "content": "hi"},
        turn,
        {"role": "tool", "tool_call_id": "a", "content": "x"},
    ]
    return body_of(messages=messages)


def test_envelopes_of_another_origin_are_taken_out_of_the_clients_bytes() -> None:
    seal = Seal("anthropic-messages", "signature", "sig", "anthropic/claude")
    found = edited(history(seal), lambda request: restore(request, ENVELOPE, lambda key: None))
    assert "gw1." not in json.dumps(found)
    assert found["messages"][1]["reasoning_content"] == "why"
    assert found["messages"][1]["tool_calls"][0]["id"] == "a"


def test_an_opened_envelope_of_this_dialect_goes_back_to_its_maker() -> None:
    entry = {"type": "reasoning.text", "text": "why", "signature": "native", "index": 0}
    body = history(Seal(NAME, "details", json.dumps(entry), MAKER))
    request = restore(read(body), ENVELOPE, lambda key: None)
    out = written(request)
    assert out.body["messages"][1]["reasoning_details"] == [entry]
    assert "gw1." not in json.dumps(out.body)


def test_nothing_that_is_still_packed_is_ever_written() -> None:
    out = written(read(history(Seal("gemini", "thought", "x", "gemini/x"))))
    assert "gw1." not in json.dumps(out.body)


def test_recalled_reasoning_is_put_where_the_provider_demands_it() -> None:
    body = body_of(
        messages=[
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": None, "tool_calls": [call("a")]},
            {"role": "tool", "tool_call_id": "a", "content": "x"},
        ]
    )
    request = read(body)
    turn = request.messages[1]
    parts: tuple[Part, ...] = (Thinking("why"), *turn.parts)
    recalled = msgspec.structs.replace(
        request,
        messages=(request.messages[0], msgspec.structs.replace(turn, parts=parts), request.messages[2]),
    )
    assert written(recalled, "deepseek-chat").body["messages"][1]["reasoning_content"] == "why"
    assert "reasoning_content" not in written(recalled).body["messages"][1]
    assert "reasoning_content" not in written(request, "deepseek-chat").body["messages"][1]
    assert isinstance(parts[1], ToolCall)
