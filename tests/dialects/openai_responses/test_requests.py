"""Requests of Responses clients read, and requests of any dialect written for Responses targets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.conversation.fault import FaultError
from llm_proxy.conversation.parts import (
    CacheMark,
    Media,
    Opaque,
    Part,
    Refusal,
    Seal,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)  # fmt: skip
from llm_proxy.conversation.request import (
    CustomTool,
    FunctionTool,
    Message,
    Reasoning,
    Request,
    ResponseFormat,
    Sampling,
    ServerTool,
    ToolChoice,
)  # fmt: skip
from llm_proxy.dialects.base import Duties
from llm_proxy.dialects.openai_responses import DIALECT
from llm_proxy.wire.json import rewrite
from tests.dialects.openai_responses.support import NAME, read, target
from tests.support.requests_check import validate_request
from tests.support.shared import client_requests, exchanges

BODIES = [
    (exchange.file, exchange.request.body)
    for exchange in exchanges()
    if exchange.protocol == NAME
    and exchange.generates
    and isinstance(exchange.request.body, dict)
    and "input" in exchange.request.body
] + [
    (request.file, request.body)
    for request in client_requests()
    if request.protocol == NAME and isinstance(request.body, dict)
]
OBJECT = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


def foreign(*messages: Message, **changed: Any) -> Request:
    return Request(dialect=changed.pop("dialect", "openai-chat"), model="m", messages=messages, **changed)


def user(*parts: Part) -> Message:
    return Message("user", parts or (Text("x"),))


def write(request: Request, model: str = "gpt-5.5", **able: Any) -> dict[str, Any]:
    body = DIALECT.write_request(request, target(model, **able)).body
    assert validate_request(NAME, body, "/v1/responses", emitted=True) == []
    return body


def losses(request: Request, model: str = "gpt-5.5", **able: Any) -> str:
    return " | ".join(DIALECT.write_request(request, target(model, **able)).losses)


# ---- same dialect


def equivalent(body: dict[str, Any]) -> dict[str, Any]:
    """The body without what has several spellings: nulls and defaults, plain text for a list of one text,
    the message type.
    """
    found = {
        name: value
        for name, value in body.items()
        if value not in (None, False) or name in ("store", "parallel_tool_calls")
    }
    given = found.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given or []
    found["input"] = [_plain_item(item) for item in items]
    found["tools"] = [_plain_tool(tool) for tool in found.get("tools") or []]
    return {name: value for name, value in found.items() if value not in ([], "")}


def _plain_tool(tool: dict[str, Any]) -> dict[str, Any]:
    plain = {
        name: value
        for name, value in tool.items()
        if value not in (None, "") and (name, value) != ("defer_loading", False)
    }
    if isinstance(tool.get("tools"), list):
        plain["tools"] = [_plain_tool(member) for member in tool["tools"]]
    return plain


def _plain_item(item: dict[str, Any]) -> dict[str, Any]:
    plain = {
        "type": "message",
        **{name: value for name, value in item.items() if name != "status" and value is not None},
    }
    for name in ("content", "output"):
        value = plain.get(name)
        if isinstance(value, list):
            value = [{key: entry for key, entry in part.items() if entry != []} for part in value]
            if len(value) == 1 and set(value[0]) == {"type", "text"} and plain["type"] != "reasoning":
                value = value[0]["text"]
            plain[name] = value
    if plain["type"] in ("function_call_output", "custom_tool_call_output"):
        plain.pop("id", None)
    if plain.get("content") == []:
        del plain["content"]
    return plain


@pytest.mark.parametrize(("file", "body"), BODIES, ids=[file for file, _ in BODIES])
def test_a_request_of_this_dialect_is_written_as_it_was_read(file: str, body: dict[str, Any]) -> None:
    request = read(body)
    outgoing = DIALECT.write_request(request, target(request.model, stream=request.stream))
    assert equivalent(outgoing.body) == equivalent(body)
    assert outgoing.losses == () and outgoing.duties.none
    raw = json.dumps(body).encode()
    assert rewrite(raw, outgoing.body, outgoing.body) == raw


@pytest.mark.parametrize(("file", "body"), BODIES, ids=[file for file, _ in BODIES])
def test_the_head_says_what_routing_needs(file: str, body: dict[str, Any]) -> None:
    raw = json.dumps(body).encode()
    head = DIALECT.read_head(raw)
    assert (head.model, head.stream, head.size) == (body["model"], bool(body.get("stream")), len(raw))


def test_an_edit_of_one_text_changes_only_that_text() -> None:
    raw = (
        b'{"model": "m", "x_new": [1.0], "input": [{"role": "user", "content": [{"type": "input_text", "text": "secret", "x": 1}]},'
        b' {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{ }", "status": "completed"}]}'
    )
    request = DIALECT.read_request(raw)
    first, second = request.messages
    edited = Request(**{**{name: getattr(request, name) for name in request.__struct_fields__},
                        "messages": (Message("user", (Text("hidden"),)), second)})  # fmt: skip
    old, new = (DIALECT.write_request(value, target("m")).body for value in (request, edited))
    assert rewrite(raw, old, new) == raw.replace(b'"secret"', b'"hidden"')
    assert first.parts == (Text("secret"),)


def test_retargeting_replaces_model_and_stream_and_keeps_all_other_bytes() -> None:
    raw = b'{ "stream":true, "model" : "route:x","input":"h\\u0069", "n":1.50 }'
    assert DIALECT.retarget(raw, target("gpt-5.5", stream=True)) == raw.replace(b"route:x", b"gpt-5.5")
    assert b'"stream":false' in DIALECT.retarget(raw, target("gpt-5.5"))
    assert b"stream" not in DIALECT.retarget(b'{"model":"a","input":"x"}', target("b"))


def test_retargeting_translates_the_fields_of_chat_that_no_provider_knows_here() -> None:
    raw = b'{"model":"a","messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_object"},"metadata":{"k":"v"}}'
    body = json.loads(DIALECT.retarget(raw, target("b")))
    assert body["input"][0]["content"] == [{"type": "input_text", "text": "x"}]
    assert body["text"] == {"format": {"type": "json_object"}} and body["metadata"] == {"k": "v"}
    assert "messages" not in body and "response_format" not in body


# ---- reading


def test_items_of_the_model_in_a_row_are_one_turn_and_outputs_another() -> None:
    request = read(
        {
            "model": "m",
            "instructions": "Be brief.",
            "input": [
                {"role": "user", "content": "x"},
                {
                    "type": "reasoning",
                    "id": "rs_1",
                    "summary": [{"type": "summary_text", "text": "t"}],
                    "encrypted_content": "E",
                },
                {
                    "type": "message",
                    "role": "assistant",
                    "id": "msg_1",
                    "phase": "commentary",
                    "content": [{"type": "output_text", "text": "a", "annotations": []}],
                },
                {
                    "type": "function_call",
                    "call_id": "c1",
                    "name": "f",
                    "arguments": "{}",
                    "id": "fc_1",
                    "namespace": "ns",
                },
                {"type": "custom_tool_call", "call_id": "c2", "name": "p", "input": "raw"},
                {"type": "function_call_output", "call_id": "c1", "output": "1"},
                {
                    "type": "custom_tool_call_output",
                    "call_id": "c2",
                    "output": [{"type": "input_image", "image_url": "data:image/png;base64,QUJD"}],
                },
                {"role": "user", "content": "go on"},
            ],
        }
    )
    system, question, turn, results, last = request.messages
    assert (system.role, system.parts) == ("system", (Text("Be brief."),))
    assert question.parts == (Text("x"),) and last.parts == (Text("go on"),)
    assert (turn.role, turn.id, turn.phase) == ("assistant", "msg_1", "commentary")
    assert turn.parts == (
        Thinking("t", True, Seal(NAME, "encrypted", "E", item_id="rs_1"), "rs_1"), Text("a"),
        ToolCall("c1", "f", "{}", namespace="ns", item_id="fc_1"), ToolCall("c2", "p", "raw", kind="custom"),
    )  # fmt: skip
    assert results.parts == (
        ToolResult("c1", (Text("1"),)),
        ToolResult("c2", (Media("image", data="QUJD", mime="image/png"),), kind="custom"),
    )


def test_parts_of_user_messages() -> None:
    content = [
        {"type": "input_text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "30m"}},
        {"type": "input_image", "image_url": "https://a/b.png", "detail": "high"},
        {"type": "input_file", "file_data": "data:application/pdf;base64,QUJD", "filename": "f.pdf"},
        {"type": "input_file", "file_id": "file-1"},
        {"type": "input_future", "x": 1},
    ]
    assert read({"model": "m", "input": [{"role": "user", "content": content}]}).messages[0].parts == (
        Text("a", cache=CacheMark("30m")),
        Media("image", url="https://a/b.png", detail="high"),
        Media("document", data="QUJD", mime="application/pdf", name="f.pdf"),
        Media("document", file_id="file-1", origin=NAME),
        Opaque(NAME, "content:input_future", content[4]),
    )


def test_messages_stand_in_for_input() -> None:
    request = read(
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "s"},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "x"},
                        {"type": "image_url", "image_url": {"url": "https://i", "detail": "low"}},
                    ],
                },
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                    ],
                },
                {"role": "tool", "tool_call_id": "c", "content": "r"},
            ],
        }
    )
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "user"]
    assert request.messages[1].parts == (Text("x"), Media("image", url="https://i", detail="low"))
    assert request.messages[2].parts == (ToolCall("c", "f", "{}"),)
    assert request.messages[3].parts == (ToolResult("c", (Text("r"),)),)


def test_fields_find_their_canonical_members_and_unknown_ones_are_kept() -> None:
    request = read(
        {
            "model": "m",
            "input": "x",
            "stream": True,
            "store": False,
            "include": ["reasoning.encrypted_content"],
            "service_tier": "flex",
            "reasoning": {"effort": "high", "summary": "auto", "context": "all_turns"},
            "previous_response_id": "resp_0",
            "prompt_cache_key": "k",
            "text": {"verbosity": "low"},
            "top_logprobs": 2,
            "truncation": "auto",
            "client_metadata": {"a": 1},
            "safety_identifier": "u1",
        }
    )
    assert request.reasoning == Reasoning("effort", "high", visible=True, summary="auto")
    assert (request.stream, request.store, request.tier, request.previous_id, request.cache_key) == (
        True,
        False,
        "flex",
        "resp_0",
        "k",
    )
    assert (request.verbosity, request.sampling.top_logprobs, request.user) == ("low", 2, "u1")
    assert request.rest["client_metadata"] == {"a": 1} and request.rest["reasoning"] == {
        "context": "all_turns"
    }


def test_structured_output_from_either_field() -> None:
    schema = {"type": "object"}
    wanted = ResponseFormat("schema", schema, name="n", strict=True)
    inner = {"name": "n", "schema": schema, "strict": True}
    assert (
        read({"model": "m", "input": "x", "text": {"format": {"type": "json_schema", **inner}}}).format
        == wanted
    )
    chat = {"type": "json_schema", "json_schema": inner}
    assert read({"model": "m", "input": "x", "response_format": chat}).format == wanted


def test_tools_and_choices() -> None:
    request = read(
        {
            "model": "m",
            "input": "x",
            "tools": [
                {
                    "type": "function",
                    "name": "f",
                    "description": "d",
                    "parameters": OBJECT,
                    "strict": True,
                    "defer_loading": True,
                },
                {
                    "type": "custom",
                    "name": "p",
                    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
                },
                {
                    "type": "namespace",
                    "name": "ns",
                    "description": "nd",
                    "tools": [{"type": "function", "name": "g"}],
                },
                {"type": "web_search", "external_web_access": True},
            ],
            "tool_choice": {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "f"}],
            },
        }
    )
    assert request.tools == (
        FunctionTool("f", "d", OBJECT, True, defer=True),
        CustomTool("p", format={"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}),
        FunctionTool("g", namespace="ns", namespace_description="nd"),
        ServerTool(NAME, "web_search", {"type": "web_search", "external_web_access": True}, "web_search"),
    )
    assert request.tool_choice == ToolChoice("required", ("f",))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "x"}, "model"),
        ({"model": 3, "input": "x"}, "model"),
        ({"model": "m"}, "input"),
        ({"model": "m", "input": []}, "input"),
        ({"model": "m", "input": 5}, "input"),
        ({"model": "m", "messages": "x"}, "messages"),
        ({"model": "m", "input": "x", "temperature": "1"}, "temperature"),
        ({"model": "m", "input": "x", "stream": "yes"}, "stream"),
        ({"model": "m", "input": "x", "max_output_tokens": 1.5}, "max_output_tokens"),
        ({"model": "m", "input": "x", "tools": {}}, "tools"),
        ({"model": "m", "input": "x", "tools": [{"type": "function"}]}, "tools[0].name"),
        ({"model": "m", "input": "x", "tool_choice": "maybe"}, "tool_choice"),
        ({"model": "m", "input": ["x"]}, "input[0]"),
        ({"model": "m", "input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"model": "m", "input": [{"role": "user", "content": 7}]}, "input[0].content"),
        (
            {"model": "m", "input": [{"role": "user", "content": [{"type": "input_text"}]}]},
            "input[0].content[0].text",
        ),
        (
            {"model": "m", "input": [{"type": "function_call", "name": "f", "arguments": "{}"}]},
            "input[0].call_id",
        ),
        (
            {"model": "m", "input": [{"type": "function_call_output", "call_id": "c", "output": {}}]},
            "input[0].output",
        ),
        (
            {"model": "m", "input": "x", "text": {"format": {"type": "json_schema", "name": "n"}}},
            "text.format.schema",
        ),
        ({"model": "m", "input": "x", "include": "x"}, "include"),
        ({"model": "m", "input": "x", "reasoning": {"effort": 3}}, "reasoning.effort"),
    ],
)
def test_wrong_types_name_their_field(body: dict[str, Any], param: str) -> None:
    with pytest.raises(FaultError) as caught:
        read(body)
    fault = caught.value.fault
    assert (fault.kind, fault.param, fault.status_code, fault.side) == ("bad_request", param, 400, "client")
    assert param.split("[")[0].split(".")[0] in fault.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"model": "m", "input": "\xff"}',
        b'{"model":"m","input":' + b"[" * 1000 + b"]" * 1000 + b"}",
    ],
)
def test_a_body_that_is_no_json_object_is_a_bad_request(body: bytes) -> None:
    for reader in (DIALECT.read_request, DIALECT.read_head):
        with pytest.raises(FaultError) as caught:
            reader(body)
        assert caught.value.fault.kind == "bad_request"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "role",
                    "content",
                    "text",
                    "call_id",
                    "name",
                    "output",
                    "summary",
                    "image_url",
                    "file_data",
                    "tools",
                    "format",
                    "schema",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)
FIELDS = st.sampled_from(
    [
        "input",
        "messages",
        "tools",
        "tool_choice",
        "text",
        "reasoning",
        "include",
        "metadata",
        "response_format",
        "instructions",
    ]
)


@given(st.dictionaries(FIELDS, VALUES))
@settings(max_examples=300, deadline=None)
def test_any_request_is_read_or_refused(fields: dict[str, Any]) -> None:
    try:
        request = read({"model": "m", "input": "x", **fields})
    except FaultError as error:
        assert error.fault.kind == "bad_request"
        return
    DIALECT.write_request(request, target("m"))


# ---- writing what came from other dialects


def test_leading_system_texts_are_instructions_and_later_ones_stay_where_they_are() -> None:
    system, developer = Message("system", (Text("one"),)), Message("developer", (Text("two"),))
    later = Message("system", (Text("three"),))
    body = write(foreign(system, developer, user(), later, user()))
    assert body["instructions"] == "one\n\ntwo"
    assert [item["role"] for item in body["input"]] == ["user", "system", "user"]
    wrapped = write(foreign(user(), later, user()), mid_system=False)["input"][1]
    assert (
        wrapped["role"] == "user"
        and wrapped["content"][0]["text"] == "<system-reminder>\nthree\n</system-reminder>"
    )


def test_system_texts_alone_are_the_input() -> None:
    body = write(foreign(Message("system", (Text("one"),))))
    assert "instructions" not in body and len(body["input"]) == 1


def test_nothing_is_stored_unless_asked_and_encrypted_reasoning_is_requested() -> None:
    body = write(foreign(user()))
    assert (body["store"], body["include"]) == (False, ["reasoning.encrypted_content"])
    assert write(foreign(user(), store=True))["store"] is True
    assert "include" not in write(foreign(user()), "gpt-4o")
    own = read({"model": "m", "input": "x"})
    assert "store" not in write(own) and "include" not in write(own)


def test_ids_of_calls_that_the_api_refuses_are_mapped_alike_in_call_and_output() -> None:
    turns = (
        user(),
        Message("assistant", (ToolCall("functions.search:0", "f", ""),)),
        user(ToolResult("functions.search:0", (Text("y"),), is_error=True)),
    )
    call, output = write(foreign(*turns))["input"][1:]
    assert call["call_id"] == output["call_id"] != "functions.search:0"
    assert "id" not in call and call["arguments"] == "{}" and output["output"] == "Error: y"


def test_a_call_without_a_result_gets_one_and_a_result_without_a_call_is_text() -> None:
    lonely = foreign(
        user(),
        Message("assistant", (ToolCall("c1", "f", "{}"),)),
        user(ToolResult("c2", (Text("r"),)), Text("go")),
    )
    items = write(lonely)["input"]
    assert [item["type"] for item in items] == ["message", "function_call", "function_call_output", "message"]
    assert [part["text"] for part in items[3]["content"]] == ["Result of the tool call c2:", "r", "go"]
    assert "no result" in losses(lonely) and "not in the conversation" in losses(lonely)


def test_images_in_results_are_parts_of_the_output_or_follow_all_results() -> None:
    image = Media("image", data="iVBORw0KGgo=", mime="image/jpg")
    turns = (
        user(), Message("assistant", (ToolCall("c1", "f", "{}"), ToolCall("c2", "f", "{}"))),
        user(ToolResult("c1", (Text("see"), image)), ToolResult("c2", (Text("r"),))),
    )  # fmt: skip
    items = write(foreign(*turns))["input"]
    assert items[3]["output"][1] == {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}
    items = write(foreign(*turns), media_in_results=False)["input"]
    assert [item["type"] for item in items[3:]] == ["function_call_output", "function_call_output", "message"]
    assert "[image 1 attached below]" in items[3]["output"]
    assert items[5]["content"][1]["type"] == "input_image"


def test_tools_always_say_strict_and_choices_are_translated() -> None:
    tools = (FunctionTool("f", "d", OBJECT), FunctionTool("g"), CustomTool("p"))
    body = write(
        foreign(user(), tools=tools, tool_choice=ToolChoice("named", ("p",)), parallel_tool_calls=False)
    )
    assert [tool.get("strict") for tool in body["tools"]] == [False, False, None]
    assert body["tools"][1]["parameters"]["type"] == "object"
    assert body["tool_choice"] == {"type": "custom", "name": "p"} and body["parallel_tool_calls"] is False
    subset = write(foreign(user(), tools=tools, tool_choice=ToolChoice("required", ("f",))))["tool_choice"]
    assert subset == {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [{"type": "function", "name": "f"}],
    }


def test_namespaces_are_regrouped_or_become_part_of_the_name() -> None:
    tools = (
        FunctionTool("a", namespace="ns", namespace_description="d"),
        FunctionTool("b", namespace="ns", namespace_description="d"),
    )
    turns = (user(), Message("assistant", (ToolCall("c", "a", "{}", namespace="ns"),)), user(ToolResult("c")))
    body = write(foreign(*turns, tools=tools))
    assert [(tool["type"], tool["description"], len(tool["tools"])) for tool in body["tools"]] == [
        ("namespace", "d", 2)
    ]
    assert body["input"][1]["namespace"] == "ns"
    outgoing = DIALECT.write_request(foreign(*turns, tools=tools), target(namespaces=False))
    assert [tool["name"] for tool in outgoing.body["tools"]] == ["ns__a", "ns__b"]
    assert outgoing.body["input"][1]["name"] == "ns__a" and "namespace" not in outgoing.body["input"][1]
    assert outgoing.duties.namespaces == {"ns__a": ("ns", "a"), "ns__b": ("ns", "b")}


def test_custom_tools_are_native_or_functions_with_one_input() -> None:
    form = {"type": "grammar", "syntax": "lark", "definition": "start: /.+/s"}
    turns = (
        user(),
        Message("assistant", (ToolCall("c", "p", 'a\n"b"', kind="custom"),)),
        user(ToolResult("c", (Text("ok"),), kind="custom")),
    )
    request = foreign(*turns, tools=(CustomTool("p", "edit", form),))
    items = write(request)["input"]
    assert (items[1]["type"], items[1]["input"], items[2]["type"]) == (
        "custom_tool_call",
        'a\n"b"',
        "custom_tool_call_output",
    )
    outgoing = DIALECT.write_request(request, target(custom_tools=False))
    (tool,) = outgoing.body["tools"]
    assert tool["parameters"]["required"] == ["input"] and "start: /.+/s" in tool["description"]
    assert json.loads(outgoing.body["input"][1]["arguments"]) == {"input": 'a\n"b"'}
    assert outgoing.body["input"][2]["type"] == "function_call_output"
    assert outgoing.duties.custom_tools == {"p"}


def test_long_names_are_mapped_everywhere_and_mapped_back() -> None:
    name = "n" * 90
    turns = (user(), Message("assistant", (ToolCall("c", name, "{}"),)), user(ToolResult("c")))
    request = foreign(
        *turns, tools=(FunctionTool(name, parameters=OBJECT),), tool_choice=ToolChoice("named", (name,))
    )
    outgoing = DIALECT.write_request(request, target())
    short = outgoing.body["tools"][0]["name"]
    assert len(short) <= 64 and outgoing.duties.names == {short: name}
    assert outgoing.body["input"][1]["name"] == outgoing.body["tool_choice"]["name"] == short


def test_seals_go_to_their_maker_only() -> None:
    def written(
        seal: Seal | None, text: str = "t", item_id: str = "", dialect: str = "openai-chat"
    ) -> list[dict[str, Any]]:
        turn = Message("assistant", (Thinking(text, seal=seal, item_id=item_id), Text("a")))
        items = DIALECT.write_request(foreign(user(), turn, user(), dialect=dialect), target()).body["input"]
        return [item for item in items if item["type"] == "reasoning"]

    own = Seal(NAME, "encrypted", "ENC", maker="openai/gpt", item_id="rs_1")
    assert written(own) == [
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "t"}],
            "encrypted_content": "ENC",
        }
    ]
    assert written(Seal(NAME, "encrypted", "ENC"), dialect=NAME)[0]["encrypted_content"] == "ENC"
    for other in (
        None, Seal(NAME, "encrypted", "ENC", maker="azure/gpt"), Seal("anthropic-messages", "signature", "S"),
        Seal(NAME, "encrypted", "gw1.abc"), Seal("unknown", "encrypted", "", maker="unknown"),
    ):  # fmt: skip
        assert written(other) == []
        assert other is None or written(other, dialect=NAME) == []
    assert written(None, item_id="rs_stored", dialect=NAME)[0]["id"] == "rs_stored"
    assert written(None, item_id="rs_gw1_000", dialect=NAME) == []


def test_limits_sampling_and_what_the_protocol_lacks() -> None:
    sampling = Sampling(
        temperature=0.5, top_p=0.9, top_k=5, seed=1, frequency_penalty=0.1, logit_bias={"1": 1.0}
    )
    request = foreign(user(), max_output_tokens=9, sampling=sampling, stop=("END",), n=3)
    outgoing = DIALECT.write_request(request, target("gpt-5.5"))
    assert outgoing.body["max_output_tokens"] == 16
    assert not {
        "temperature",
        "top_p",
        "top_k",
        "seed",
        "stop",
        "n",
        "frequency_penalty",
        "logit_bias",
    } & set(outgoing.body)
    for field in (
        "temperature",
        "top_p",
        "top_k",
        "seed",
        "frequency_penalty",
        "logit_bias",
        "max_output_tokens",
    ):
        assert any(loss.startswith(field) for loss in outgoing.losses), field
    assert outgoing.duties == Duties(stop=("END",), copies=3)
    assert write(request, "gpt-4o")["temperature"] == 0.5


@pytest.mark.parametrize(
    ("reasoning", "model", "written"),
    [
        (Reasoning("effort", "high"), "gpt-5.5", {"effort": "high"}),
        (Reasoning("budget", budget=2000, visible=True), "gpt-5.5", {"effort": "low", "summary": "auto"}),
        (Reasoning("auto", visible=True), "gpt-5.5", {"summary": "auto"}),
        (Reasoning("off"), "gpt-5.5", {"effort": "none"}),
        (Reasoning("off"), "gpt-5", {"effort": "minimal"}),
        (Reasoning("effort", "max"), "gpt-5", {"effort": "high"}),
        (Reasoning("effort", "high"), "gpt-4o", None),
    ],
)
def test_reasoning_controls(reasoning: Reasoning, model: str, written: dict[str, Any] | None) -> None:
    assert write(foreign(user(), reasoning=reasoning), model).get("reasoning") == written


def test_structured_output_is_text_format() -> None:
    form = ResponseFormat("schema", OBJECT, name="my answer", strict=True)
    assert write(foreign(user(), format=form))["text"]["format"] == {
        "type": "json_schema", "name": "my_answer", "schema": OBJECT, "strict": True,
    }  # fmt: skip
    told = DIALECT.write_request(foreign(user(), format=form), target(schema_output=False))
    assert "text" not in told.body and '"city"' in told.body["input"][0]["content"]


def test_json_mode_says_json_in_the_input() -> None:
    body = write(foreign(Message("system", (Text("Answer as JSON"),)), user(), format=ResponseFormat("json")))
    assert (
        body["text"] == {"format": {"type": "json_object"}}
        and "instructions" not in body
        and len(body["input"]) == 2
    )
    assert "JSON" in write(foreign(user(), format=ResponseFormat("json")))["input"][0]["content"]


def test_cache_marks_become_breakpoints_or_a_cache_key() -> None:
    marked = foreign(
        Message("system", (Text("s", cache=CacheMark()),)),
        user(Text("x", cache=CacheMark("1h"))),
        dialect="anthropic-messages",
    )
    items = write(marked, "gpt-5.6")["input"]
    assert items[0]["content"][0]["prompt_cache_breakpoint"] == {"mode": "explicit"}
    assert items[1]["content"][0]["prompt_cache_breakpoint"] == {"mode": "explicit", "ttl": "12h"}
    body = write(marked, "gpt-5.5")
    assert "prompt_cache_breakpoint" not in json.dumps(body) and len(body["prompt_cache_key"]) == 32
    assert "cache marks" in losses(marked)


def test_empty_texts_and_what_others_only_know_are_left_out() -> None:
    turn = Message(
        "assistant",
        (
            Text(""),
            Opaque("anthropic-messages", "server_tool_use", {}, "web_search"),
            ToolCall("c", "f", "{}"),
        ),
    )
    request = foreign(user(), turn, user(ToolResult("c", (Text(""),)), Text("")))
    assert [item["type"] for item in write(request)["input"]] == [
        "message",
        "function_call",
        "function_call_output",
    ]
    assert "server_tool_use" in losses(request)


def test_assistant_texts_refusals_and_documents() -> None:
    turns = (
        user(
            Media("document", data="QUJD", mime="application/pdf"),
            Media("document", text="plain", title="T"),
            Media("document", url="https://d"),
        ),
        Message("assistant", (Text("a"),), phase="commentary"),
        user(),
        Message("assistant", (Refusal("no"),)),
    )
    items = write(foreign(*turns))["input"]
    assert [part["type"] for part in items[0]["content"]] == ["input_file", "input_text", "input_file"]
    assert (
        items[0]["content"][0]["filename"] == "document.pdf"
        and items[0]["content"][1]["text"] == "T\n\nplain"
    )
    assert (items[1]["content"], items[1]["phase"]) == ("a", "commentary")
    assert items[3]["content"] == [{"type": "refusal", "refusal": "no"}]


@pytest.mark.parametrize(
    "media",
    [
        Media("audio", data="QUJD", mime="audio/wav"),
        Media("video", url="https://v"),
        Media("image", file_id="f", origin="anthropic-messages"),
    ],
)
def test_media_that_the_target_cannot_take_are_refused_by_name(media: Media) -> None:
    with pytest.raises(FaultError) as caught:
        DIALECT.write_request(foreign(user(Text("x"), media)), target())
    assert caught.value.fault.param == "messages[0].content[1]"


def test_server_tools_of_anthropic_are_refused_and_search_of_others_is_translated() -> None:
    tool = ServerTool("anthropic-messages", "web_search_20250305", {}, "web_search")
    with pytest.raises(FaultError, match="web_search_20250305"):
        DIALECT.write_request(foreign(user(), tools=(tool,), dialect="anthropic-messages"), target())
    google = ServerTool("gemini", "googleSearch", {"googleSearch": {}}, "web_search")
    assert write(foreign(user(), tools=(google,), dialect="gemini"))["tools"] == [{"type": "web_search"}]


def test_labels() -> None:
    request = foreign(
        user(),
        user="u" * 65,
        metadata={"a": "b", "n": 1},
        tier="standard_only",
        cache_key="k",
        verbosity="low",
        dialect="anthropic-messages",
    )
    body = write(request)
    assert len(body["user"]) == 64 and body["user"] != "u" * 64
    assert (body["metadata"], body["service_tier"], body["prompt_cache_key"]) == ({"a": "b"}, "default", "k")
    assert body["text"] == {"verbosity": "low"}
    assert "prediction: not known" in losses(foreign(user(), rest={"prediction": {}}))


def test_streams_are_asked_for_by_the_target() -> None:
    assert DIALECT.write_request(foreign(user()), target(stream=True)).body["stream"] is True
    assert "stream" not in write(foreign(user(), stream=True))


def test_a_count_request_holds_what_fills_the_context() -> None:
    request = foreign(
        Message("system", (Text("s"),)),
        user(),
        tools=(FunctionTool("f", parameters=OBJECT),),
        max_output_tokens=99,
        stream=True,
    )
    assert set(DIALECT.write_count_request(request, target(stream=True))) == {
        "model",
        "instructions",
        "input",
        "tools",
    }
