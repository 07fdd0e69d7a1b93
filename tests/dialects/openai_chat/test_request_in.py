"""FE-02: what a Chat client may send, and which field is named when it is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.conversation.fault import FaultError
from llm_proxy.conversation.parts import (
    CacheMark,
    Media,
    Opaque,
    Refusal,
    Seal,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from llm_proxy.conversation.request import (
    CustomTool,
    FunctionTool,
    Reasoning,
    ResponseFormat,
    ServerTool,
    ToolChoice,
)
from llm_proxy.dialects.openai_chat import DIALECT
from tests.dialects.openai_chat.support import NAME, body_of, call, function, read, read_messages

USER = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": 3, "messages": [USER]}, "model"),
        ({"model": 3, "messages": [USER]}, "model"),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": "x"}, "messages"),
        ({"model": "m", "messages": []}, "messages"),
        ({"model": "m", "messages": ["x"]}, "messages[0]"),
        ({"model": "m", "messages": [{"content": "x"}]}, "messages[0].role"),
        ({"model": "m", "messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"model": "m", "messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"model": "m", "messages": [{"role": "user"}]}, "messages[0].content"),
        ({"model": "m", "messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        (
            {"model": "m", "messages": [USER, {"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[1].content[0].image_url",
        ),
        (
            {
                "model": "m",
                "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
            },
            "messages[0].content[0].image_url.url",
        ),
        (body_of(temperature="0.5"), "temperature"),
        (body_of(max_tokens="100"), "max_tokens"),
        (body_of(max_completion_tokens=1.5), "max_completion_tokens"),
        (body_of(n="2"), "n"),
        (body_of(seed=True), "seed"),
        (body_of(stream="true"), "stream"),
        (body_of(stop=7), "stop"),
        (body_of(stop=["a", 7]), "stop[1]"),
        (body_of(logit_bias={"50256": "-100"}), "logit_bias.50256"),
        (body_of(tools={}), "tools"),
        (body_of(tools=[{"type": "function", "function": {}}]), "tools[0].function.name"),
        (body_of(tools=[function(parameters="{}")]), "tools[0].function.parameters"),
        (body_of(tool_choice="maybe"), "tool_choice"),
        (body_of(response_format={"type": "json_schema"}), "response_format.json_schema"),
        (body_of(stream_options={"include_usage": 1}), "stream_options.include_usage"),
    ],
)
def test_a_wrong_field_is_a_400_that_names_it(body: dict[str, Any], param: str) -> None:
    with pytest.raises(FaultError) as raised:
        read(body)
    assert (raised.value.fault.status_code, raised.value.fault.param) == (400, param)
    assert raised.value.fault.side == "client"


def test_a_wrong_type_says_what_was_expected_and_what_came() -> None:
    with pytest.raises(FaultError, match="messages: expected a list, got string"):
        read({"model": "m", "messages": "x"})


@pytest.mark.parametrize("body", [b"", b"[1]", b'{"model": "m", ', b'{"model": "\xff"}', b"[" * 1000])
def test_what_is_no_json_object_is_a_400(body: bytes) -> None:
    for reader in (DIALECT.read_request, DIALECT.read_head):
        with pytest.raises(FaultError) as raised:
            reader(body)
        assert raised.value.fault.status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        body_of(tool_choice={"type": "function", "function": {"name": "g"}}, tools=[function("f")]),
        body_of(messages=[USER, {"role": "tool", "tool_call_id": "call_1", "content": "x"}]),
        body_of(messages=[USER, {"role": "function", "name": "f", "content": "x"}]),
    ],
)
def test_an_impossible_combination_is_a_422(body: dict[str, Any]) -> None:
    with pytest.raises(FaultError) as raised:
        read(body)
    assert raised.value.fault.status_code == 422


def test_the_head_is_read_without_the_rest() -> None:
    head = DIALECT.read_head(
        b'{"stream": true, "messages": [5], "model": "a:b", "user": "u", "stream_options": {"include_usage": true}}'
    )
    assert (head.model, head.stream, head.include_usage, head.user) == ("a:b", True, True, "u")
    assert DIALECT.read_head(b'{"messages": [5]}', path_model="deployment").model == "deployment"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (b"", "messages"),
        (b',"messages":null', "messages"),
        (b',"messages":"x"', "messages"),
        (b',"messages":{}', "messages"),
        (b',"messages":[ ]', "messages"),
        (b',"messages":[5],"temperature":"0.5"', "temperature"),
        (b',"messages":[5],"max_tokens":true', "max_tokens"),
    ],
)
def test_the_head_alone_shows_missing_messages_and_texts_for_numbers(fields: bytes, param: str) -> None:
    with pytest.raises(FaultError) as raised:
        DIALECT.read_head(b'{"model":"m"%b}' % fields)
    assert (raised.value.fault.status_code, raised.value.fault.param) == (400, param)


def test_nesting_beyond_the_limit_is_a_400_for_the_head_too() -> None:
    body = b'{"model": "m", "messages": ' + b"[" * 1000 + b"]" * 1000 + b"}"
    with pytest.raises(FaultError) as raised:
        DIALECT.read_head(body)
    assert raised.value.fault.status_code == 400


# ---- messages


def test_every_role_is_taken_and_stays_at_its_place() -> None:
    messages = read_messages(
        {"role": "system", "content": "A"},
        {"role": "developer", "content": [{"type": "text", "text": "B"}]},
        {"role": "user", "content": "C", "name": "ann"},
        {"role": "assistant", "content": "D"},
        {"role": "system", "content": "E"},
    )
    assert [message.role for message in messages] == ["system", "developer", "user", "assistant", "system"]
    assert messages[2].name == "ann"
    assert messages[1].parts == (Text("B"),)


def test_results_become_parts_of_user_messages_with_name_and_kind_of_their_call() -> None:
    messages = read_messages(
        USER,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                call("call_1", "f", '{"a":1}'),
                {"id": "call_2", "type": "custom", "custom": {"name": "patch", "input": "raw"}},
            ],
        },
        {"role": "tool", "tool_call_id": "call_2", "content": ""},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "ok"}]},
    )
    assert messages[1].parts == (
        ToolCall("call_1", "f", '{"a":1}'),
        ToolCall("call_2", "patch", "raw", kind="custom"),
    )
    assert messages[2].role == "user"
    assert messages[2].parts == (ToolResult("call_2", (), name="patch", kind="custom"),)
    assert messages[3].parts == (ToolResult("call_1", (Text("ok"),), name="f"),)


def test_a_result_without_id_answers_the_next_open_call() -> None:
    messages = read_messages(
        USER,
        {"role": "assistant", "content": "", "tool_calls": [call("a"), call("b")]},
        {"role": "tool", "content": "1"},
        {"role": "tool", "content": "2"},
    )
    results = [message.parts[0] for message in messages[2:]]
    assert [result.call_id for result in results if isinstance(result, ToolResult)] == ["a", "b"]


def test_the_legacy_pair_is_a_call_and_its_result() -> None:
    request = read(
        body_of(
            messages=[
                USER,
                {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
                {"role": "function", "name": "f", "content": "42"},
            ],
            functions=[{"name": "f"}],
            function_call={"name": "f"},
        )
    )
    made, result = request.messages[1].parts[0], request.messages[2].parts[0]
    assert isinstance(made, ToolCall) and made.legacy and not made.native_id
    assert isinstance(result, ToolResult) and result.call_id == made.id and result.name == "f"
    assert request.tools == (FunctionTool("f", legacy=True),)
    assert request.tool_choice == ToolChoice("named", ("f",))


def test_media_parts() -> None:
    (message,) = read_messages(
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
                {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,AAAA", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://h/i.png"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
                {
                    "type": "file",
                    "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"},
                },
                {"type": "file", "file": {"file_id": "file-1"}},
                {"type": "hologram", "depth": 3},
            ],
        }
    )
    assert message.parts == (
        Text("look", cache=CacheMark("1h")),
        Media("image", data="AAAA", mime="image/jpeg", detail="low"),
        Media("image", url="https://h/i.png"),
        Media("audio", data="AAAA", mime="audio/mp3"),
        Media("document", data="AAAA", mime="application/pdf", name="a.pdf"),
        Media("document", file_id="file-1", origin=NAME),
        Opaque(NAME, "hologram", {"type": "hologram", "depth": 3}),
    )


def test_reasoning_is_read_from_every_field_that_servers_use() -> None:
    plain, other, listed, refused = read_messages(
        {"role": "assistant", "content": "x", "reasoning_content": "why"},
        {"role": "assistant", "content": "x", "reasoning": "why"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "why"}]},
                {"type": "text", "text": "x"},
            ],
        },
        {"role": "assistant", "content": None, "refusal": "no"},
    )
    assert plain.parts == other.parts == (Thinking("why"), Text("x"))
    thought = listed.parts[0]
    assert isinstance(thought, Thinking) and thought.text == "why" and thought.seal is not None
    assert refused.parts == (Refusal("no"),)


def test_each_entry_of_reasoning_details_is_a_sealed_thought() -> None:
    (message,) = read_messages(
        {
            "role": "assistant",
            "content": "x",
            "reasoning": "why",
            "reasoning_details": [
                {"type": "reasoning.text", "text": "why", "signature": "sig", "index": 0},
                {"type": "reasoning.encrypted", "data": "abc", "index": 1},
            ],
        }
    )
    first, second, text = message.parts
    assert isinstance(first, Thinking) and isinstance(second, Thinking)
    assert (first.text, second.text, text) == ("why", "", Text("x"))
    assert first.seal is not None and first.seal.kind == "details" and '"signature":"sig"' in first.seal.value
    assert second.seal is not None and second.seal.origin == NAME


def test_an_envelope_in_the_history_is_found_as_the_value_of_a_seal() -> None:
    (message,) = read_messages(
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "why",
            "reasoning_details": [{"type": "reasoning.encrypted", "data": "gw1.abc", "index": 0}],
            "tool_calls": [call("c", extra_content={"google": {"thought_signature": "gw1.def"}})],
        }
    )
    thought, made = message.parts
    assert isinstance(thought, Thinking) and thought.text == "why"
    assert thought.seal is not None and thought.seal.value == "gw1.abc"
    assert isinstance(made, ToolCall) and made.seal == Seal(NAME, "thought", "gw1.def")


# ---- parameters


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"reasoning_effort": "high"}, Reasoning("effort", effort="high")),
        ({"reasoning_effort": "none"}, Reasoning("off")),
        ({"reasoning": {"effort": "low", "exclude": True}}, Reasoning("effort", effort="low", visible=False)),
        ({"reasoning": {"max_tokens": 2000}}, Reasoning("budget", budget=2000)),
        ({"reasoning": {"enabled": False}}, Reasoning("off")),
        ({"reasoning": {}}, Reasoning("auto")),
        ({"thinking": {"type": "enabled"}}, Reasoning("auto")),
        ({"thinking": {"type": "disabled"}}, Reasoning("off")),
        ({"thinking": {"type": "enabled", "budget_tokens": 500}}, Reasoning("budget", budget=500)),
        ({"enable_thinking": False}, Reasoning("off")),
        ({"enable_thinking": True, "thinking_budget": 99}, Reasoning("budget", budget=99)),
        ({"thinking_budget": 0}, Reasoning("off")),
        ({"thinking_budget": -1}, Reasoning("auto", budget=-1)),
        ({"reasoning_effort": "maximum"}, Reasoning("effort", effort="max")),
        ({"reasoning_effort": "default"}, Reasoning("auto")),
        ({"reasoning_effort": "high", "enable_thinking": False}, Reasoning("off")),
        ({}, None),
    ],
)
def test_every_control_of_reasoning_is_understood(fields: dict[str, Any], expected: Reasoning | None) -> None:
    assert read(body_of(**fields)).reasoning == expected


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
    ],
)
def test_an_unknown_effort_is_refused_also_where_nobody_reads_the_whole(fields: dict[str, Any], param: str) -> None:
    body = body_of(**fields)
    for look in (DIALECT.read_head, DIALECT.read_request):
        with pytest.raises(FaultError) as raised:
            look(json.dumps(body).encode())
        assert (raised.value.fault.kind, raised.value.fault.param) == ("bad_request", param)


def test_the_head_tells_that_reasoning_shall_be_hidden() -> None:
    bodies = (body_of(reasoning={"exclude": True}), body_of(reasoning={"exclude": False}), body_of())
    heads = [DIALECT.read_head(json.dumps(body).encode()) for body in bodies]
    assert [head.hides_reasoning for head in heads] == [True, False, False]


def test_limits_stop_and_unknown_fields() -> None:
    request = read(body_of(max_tokens=50, max_completion_tokens=60, stop="x", prediction={"type": "content"}, top_k=4))
    assert (request.max_output_tokens, request.stop, request.sampling.top_k) == (60, ("x",), 4)
    assert request.rest == {"prediction": {"type": "content"}}


def test_tools_of_every_kind() -> None:
    grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: x"}}
    request = read(
        body_of(
            tools=[
                function("f", description="d", parameters={"type": "object"}, strict=True),
                {"type": "custom", "custom": {"name": "patch", "format": grammar}},
                {"type": "openrouter:web_search"},
                {"type": "function", "name": "flat"},
            ],
            tool_choice={
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [function("f")]},
            },
            parallel_tool_calls=False,
        )
    )
    assert request.tools == (
        FunctionTool("f", "d", {"type": "object"}, strict=True),
        CustomTool("patch", format={"type": "grammar", "syntax": "lark", "definition": "start: x"}),
        ServerTool(NAME, "openrouter:web_search", {"type": "openrouter:web_search"}, capability="web_search"),
        FunctionTool("flat"),
    )
    assert request.tool_choice == ToolChoice("required", ("f",))
    assert request.parallel_tool_calls is False


def test_output_formats() -> None:
    schema = {"type": "object"}
    given = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}
    assert read(body_of(response_format=given)).format == ResponseFormat("schema", schema, "n", strict=True)
    assert read(body_of(response_format={"type": "json_object"})).format == ResponseFormat("json")
    odd = read(body_of(response_format={"type": "grammar", "value": "x"}))
    assert odd.format is None and odd.rest["response_format"]["type"] == "grammar"
