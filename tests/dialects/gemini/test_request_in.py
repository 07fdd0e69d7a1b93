"""A Gemini client's request is read whatever legal spelling it has; what is wrong is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.conversation.fault import FaultError
from llm_proxy.conversation.parts import Media, Opaque, Seal, Text, Thinking, ToolCall, ToolResult
from llm_proxy.conversation.request import FunctionTool, Reasoning, ServerTool, ToolChoice
from llm_proxy.dialects.gemini import DIALECT
from tests.dialects.gemini.support import ENVELOPE, call, model, read, response, user


def fault_of(body: Any) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(FaultError) as raised:
        DIALECT.read_request(raw, "m")
    return raised.value.fault


def test_snake_case_and_camel_case_mean_the_same() -> None:
    camel = read(
        {
            "contents": [user({"inlineData": {"mimeType": "image/png", "data": "iVBORw0="}})],
            "systemInstruction": {"parts": [{"text": "S"}]},
            "generationConfig": {
                "maxOutputTokens": 50,
                "stopSequences": ["x"],
                "thinkingConfig": {"thinkingBudget": 9},
            },
            "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["a", "b"]}},
        }
    )
    snake = read(
        {
            "contents": [user({"inline_data": {"mime_type": "image/png", "data": "iVBORw0="}})],
            "system_instruction": {"parts": [{"text": "S"}]},
            "generation_config": {
                "max_output_tokens": 50,
                "stop_sequences": ["x"],
                "thinking_config": {"thinking_budget": 9},
            },
            "tool_config": {"function_calling_config": {"mode": "any", "allowed_function_names": ["a", "b"]}},
        }
    )
    assert snake.messages == camel.messages
    assert snake.max_output_tokens == camel.max_output_tokens == 50
    assert snake.stop == camel.stop == ("x",)
    assert snake.reasoning == camel.reasoning == Reasoning("budget", budget=9)
    assert snake.tool_choice == camel.tool_choice == ToolChoice("required", ("a", "b"))


@pytest.mark.parametrize(
    "contents",
    ["hi", {"role": "user", "parts": [{"text": "hi"}]}, {"parts": {"text": "hi"}}, ["hi"], [{"text": "hi"}]],
)
def test_contents_may_be_bare(contents: Any) -> None:
    request = read({"contents": contents})
    assert [(message.role, message.parts) for message in request.messages] == [("user", (Text("hi"),))]


def test_base64_comes_in_both_alphabets() -> None:
    (message,) = read({"contents": [user({"inlineData": {"mimeType": "image/jpg", "data": "_-8"}})]}).messages
    assert message.parts == (Media("image", data="/+8=", mime="image/jpeg"),)


def test_model_and_stream_come_from_the_path() -> None:
    request = DIALECT.read_request(b'{"contents":"x"}', "models/openai:gpt-4o", True)
    assert (request.model, request.stream) == ("openai:gpt-4o", True)
    head = DIALECT.read_head(b'{"contents":"x"}', "models/openai:gpt-4o", True)
    assert (head.model, head.stream, head.size) == ("openai:gpt-4o", True, 16)


def test_a_count_body_is_read_like_a_request() -> None:
    request = read({"generateContentRequest": {"model": "models/x", "contents": "hi"}})
    assert request.messages[0].parts == (Text("hi"),)


def test_responses_pair_with_the_kth_open_call_of_their_name_then_by_position() -> None:
    request = read(
        {
            "contents": [
                user(),
                model(call("w", {"c": "A"}), call("now"), call("w", {"c": "B"})),
                user(
                    response("w", {"result": "ra"}),
                    response("w", {"result": "rb"}),
                    response("other", {"result": "n"}),
                ),
            ]
        }
    )
    calls = [part for part in request.messages[1].parts if isinstance(part, ToolCall)]
    results = [part for part in request.messages[2].parts if isinstance(part, ToolResult)]
    assert len({one.id for one in calls}) == 3
    assert not any(one.native_id for one in calls)
    assert [result.call_id for result in results] == [calls[0].id, calls[2].id, calls[1].id]


def test_ids_of_the_client_pair_even_out_of_order() -> None:
    request = read(
        {
            "contents": [
                model(call("w", id="a"), call("w", id="b")),
                user(response("w", {"result": "2"}, id="b"), response("w", {"result": "1"}, id="a")),
            ]
        }
    )
    results = [part for part in request.messages[1].parts if isinstance(part, ToolResult)]
    assert [result.call_id for result in results] == ["b", "a"]
    assert all(part.native_id for part in request.messages[0].parts if isinstance(part, ToolCall))


@pytest.mark.parametrize(
    ("body", "text", "is_error"),
    [
        ({"result": "x"}, "x", False),
        ({"output": "x"}, "x", False),
        ({"content": {"a": 1}}, '{"a":1}', False),
        ({"error": "bad"}, "bad", True),
        ({"a": 1, "b": "é"}, '{"a":1,"b":"é"}', False),
        ({"result": ""}, "", False),
    ],
)
def test_a_response_object_becomes_text(body: dict[str, Any], text: str, is_error: bool) -> None:
    request = read({"contents": [model(call("w")), user(response("w", body))]})
    result = request.messages[1].parts[0]
    assert isinstance(result, ToolResult)
    assert result.parts == ((Text(text),) if text else ())
    assert result.is_error is is_error


def test_thoughts_signatures_and_unknown_parts_are_kept() -> None:
    request = read(
        {
            "contents": [
                user(),
                model(
                    {"text": "plan", "thought": True, "thoughtSignature": "U0lH"},
                    {"text": "", "thought_signature": "U0lH"},
                    {"functionCall": {"name": "w"}, "thoughtSignature": "U0lH"},
                    {"executableCode": {"language": "PYTHON", "code": "1"}},
                    {"somethingNew": {"a": 1}},
                ),
            ]
        }
    )
    seal = Seal("gemini", "thought", "U0lH")
    thinking, empty, tool, code, new = request.messages[1].parts
    assert thinking == Thinking("plan", seal=seal)
    assert empty == Text("", seal=seal)
    assert isinstance(tool, ToolCall) and tool.seal == seal and tool.arguments == ""
    assert isinstance(code, Opaque) and code.server_tool == "code_execution"
    assert new == Opaque("gemini", "somethingNew", {"somethingNew": {"a": 1}})


def test_an_envelope_comes_back_in_any_base64_spelling() -> None:
    from base64 import b64encode, urlsafe_b64encode

    text = ENVELOPE.pack(Seal("anthropic-messages", "signature", "sig", "anthropic/claude"))
    for spelled in (b64encode(text.encode()), urlsafe_b64encode(text.encode()).rstrip(b"=")):
        request = read({"contents": [model({"text": "t", "thought": True, "thoughtSignature": spelled.decode()})]})
        part = request.messages[0].parts[0]
        assert isinstance(part, Thinking) and part.seal is not None
        assert ENVELOPE.open(part.seal.value) == Seal("anthropic-messages", "signature", "sig", "anthropic/claude")


def test_tools_of_all_kinds() -> None:
    request = read(
        {
            "contents": "x",
            "tools": [
                {"functionDeclarations": [{"name": "a", "parameters": {"type": "OBJECT"}}]},
                {
                    "function_declarations": [{"name": "b", "parameters_json_schema": {"type": "object"}}],
                    "googleSearch": {},
                },
                {"codeExecution": {}},
            ],
        }
    )
    a, b, search, code = request.tools
    assert isinstance(a, FunctionTool) and (a.schema_style, a.parameters) == ("openapi", {"type": "OBJECT"})
    assert isinstance(b, FunctionTool) and (b.schema_style, b.parameters) == (
        "json-schema",
        {"type": "object"},
    )
    assert isinstance(search, ServerTool) and search.capability == "web_search"
    assert isinstance(code, ServerTool) and code.capability == "code_execution"


def test_upper_case_types_in_a_json_schema_are_lowered() -> None:
    request = read(
        {
            "contents": "x",
            "generationConfig": {
                "responseMimeType": "application/json",
                "responseJsonSchema": {"type": "OBJECT", "properties": {"type": {"type": "STRING"}}},
            },
        }
    )
    assert request.format is not None
    assert request.format.schema == {"type": "object", "properties": {"type": {"type": "string"}}}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"thinkingBudget": 0}, Reasoning("off")),
        ({"thinkingBudget": -1}, Reasoning("auto", budget=-1)),
        ({"thinkingBudget": 512, "includeThoughts": True}, Reasoning("budget", budget=512, visible=True)),
        ({"thinkingLevel": "high"}, Reasoning("effort", effort="high")),
        ({"thinkingLevel": "THINKING_LEVEL_UNSPECIFIED"}, Reasoning("auto")),
        ({"includeThoughts": True}, Reasoning("auto", visible=True)),
        ({"thinkingLevel": "NONE"}, Reasoning("off")),
        ({"thinkingLevel": "MAXIMUM"}, Reasoning("effort", effort="max")),
    ],
)
def test_thinking(config: dict[str, Any], expected: Reasoning) -> None:
    assert read({"contents": "x", "generationConfig": {"thinkingConfig": config}}).reasoning == expected


def test_what_has_no_canonical_place_goes_to_rest() -> None:
    request = read(
        {
            "contents": "x",
            "cachedContent": "cachedContents/1",
            "generationConfig": {"speechConfig": {"languageCode": "de"}, "temperature": 1},
            "toolConfig": {"includeServerSideToolInvocations": True},
        }
    )
    assert request.rest == {
        "cachedContent": "cachedContents/1",
        "generationConfig": {"speechConfig": {"languageCode": "de"}},
        "toolConfig": {"includeServerSideToolInvocations": True},
    }


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "contents"),
        ({"contents": []}, "contents"),
        ({"contents": 5}, "contents"),
        ({"contents": [5]}, "contents[0]"),
        ({"contents": [{"role": 1, "parts": []}]}, "contents[0].role"),
        ({"contents": [{"role": "robot", "parts": []}]}, "contents[0].role"),
        ({"contents": [{"parts": 7}]}, "contents[0].parts"),
        ({"contents": [user({"text": 7})]}, "contents[0].parts[0].text"),
        ({"contents": [user({"functionCall": {"args": {}}})]}, "contents[0].parts[0].functionCall.name"),
        (
            {"contents": [user({"functionCall": {"name": "x", "args": []}})]},
            "contents[0].parts[0].functionCall.args",
        ),
        ({"contents": "x", "tools": 4}, "tools"),
        (
            {"contents": "x", "tools": [{"functionDeclarations": [{}]}]},
            "tools[0].functionDeclarations[0].name",
        ),
        ({"contents": "x", "generationConfig": {"temperature": "1"}}, "generationConfig.temperature"),
        ({"contents": "x", "generationConfig": {"maxOutputTokens": 1.5}}, "generationConfig.maxOutputTokens"),
        ({"contents": "x", "generationConfig": {"stopSequences": [1]}}, "generationConfig.stopSequences[0]"),
        ({"contents": "x", "generationConfig": 3}, "generationConfig"),
        ({"contents": "x", "safetySettings": {}}, "safetySettings"),
    ],
)
def test_a_wrong_type_is_named(body: dict[str, Any], param: str) -> None:
    fault = fault_of(body)
    assert (fault.kind, fault.param, fault.side) == ("bad_request", param, "client")
    assert param in fault.message


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'"x"', b"\xff", b'{"contents":NaN}', b"[" * 5000])
def test_a_body_that_is_no_object_is_refused(raw: bytes) -> None:
    assert fault_of(raw).kind == "bad_request"
    with pytest.raises(FaultError):
        DIALECT.read_head(raw, "m")


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("names", [("generationConfig", "thinkingConfig", "thinkingLevel"),
                                   ("generation_config", "thinking_config", "thinking_level")])  # fmt: skip
def test_an_unknown_level_is_refused_also_where_nobody_reads_the_whole(names: tuple[str, ...], wrapped: bool) -> None:
    outer, middle, inner = names
    body: dict[str, Any] = {"contents": "x", outer: {middle: {inner: "HUGE"}}}
    raw = json.dumps({"generateContentRequest": body} if wrapped else body).encode()
    for look in (DIALECT.read_head, DIALECT.read_request):
        with pytest.raises(FaultError) as raised:
            look(raw, "m", False)
        assert raised.value.fault.param == "generationConfig.thinkingConfig.thinkingLevel"
