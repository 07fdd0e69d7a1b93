"""Requests of Responses clients: read, refused, and written again for targets of the same dialect."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.conversation.fault import FaultError
from llm_proxy.conversation.parts import (
    CacheMark,
    Media,
    Opaque,
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
    ServerTool,
    ToolChoice,
)  # fmt: skip
from llm_proxy.dialects.openai_responses import DIALECT
from llm_proxy.wire.json import rewrite
from tests.dialects.openai_responses.support import NAME, read, target
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
        b'{"model": "m", "x_new": [1.0], "input": [{"role": "user", "content": ['
        b'{"type": "input_text", "text": "secret", "x": 1}]}, {"type": "function_call", '
        b'"call_id": "c", "name": "f", "arguments": "{ }", "status": "completed"}]}'
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
    raw = (
        b'{"model":"a","messages":[{"role":"user","content":"x"}],'
        b'"response_format":{"type":"json_object"},"metadata":{"k":"v"}}'
    )
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
                    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
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
    assert request.rest["client_metadata"] == {"a": 1} and request.rest["reasoning"] == {"context": "all_turns"}


def test_structured_output_from_either_field() -> None:
    schema = {"type": "object"}
    wanted = ResponseFormat("schema", schema, name="n", strict=True)
    inner = {"name": "n", "schema": schema, "strict": True}
    assert read({"model": "m", "input": "x", "text": {"format": {"type": "json_schema", **inner}}}).format == wanted
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
        ({"model": "m", "input": "x", "reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"model": "m", "input": "x", "reasoning": {"max_tokens": "9"}}, "reasoning.max_tokens"),
        ({"model": "m", "input": "x", "reasoning": {"exclude": 1}}, "reasoning.exclude"),
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
    for reader in (
        DIALECT.read_request,
        DIALECT.read_head,
        lambda value: DIALECT.retarget(value, target("m")),
    ):
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
@settings(max_examples=120, deadline=None)
def test_any_request_is_read_or_refused(fields: dict[str, Any]) -> None:
    try:
        request = read({"model": "m", "input": "x", **fields})
    except FaultError as error:
        assert error.fault.kind == "bad_request"
        return
    DIALECT.write_request(request, target("m"))


@pytest.mark.parametrize(
    ("control", "expected"),
    [
        ({"effort": "maximum"}, Reasoning("effort", effort="max")),
        ({"effort": "none"}, Reasoning("off")),
        ({"max_tokens": 4096}, Reasoning("budget", budget=4096)),
        ({"max_tokens": 0}, Reasoning("off")),
        ({"enabled": False, "effort": "low"}, Reasoning("off")),
        ({"effort": "low", "exclude": True}, Reasoning("effort", effort="low", visible=False)),
        ({"summary": "auto", "exclude": True}, Reasoning("auto", visible=False, summary="auto")),
        ({"context": "auto"}, None),
        ({}, None),
    ],
)
def test_reasoning_is_read_with_the_members_that_chat_has(control: dict[str, Any], expected: Reasoning | None) -> None:
    assert read({"model": "m", "input": "x", "reasoning": control}).reasoning == expected


def test_a_budget_gives_way_to_what_the_session_wants() -> None:
    body = {"model": "gpt-5.5", "input": "x", "reasoning": {"max_tokens": 4096, "context": "auto"}}
    request = read(body)
    wanted = Reasoning("effort", effort="high")
    changed = msgspec.structs.replace(request, reasoning=wanted, added=frozenset({"reasoning"}))
    old, new = (DIALECT.write_request(one, target()).body for one in (request, changed))
    sent = json.loads(rewrite(json.dumps(body).encode(), old, new))
    assert sent["reasoning"] == {"effort": "high", "context": "auto"}
