"""A client's request becomes the canonical one; what is wrong with it is named by its place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.conversation.fault import FaultError
from llm_proxy.conversation.parts import CacheMark, Media, Opaque, Seal, Text, Thinking, ToolCall, ToolResult
from llm_proxy.conversation.request import FunctionTool, Reasoning, ServerTool, ToolChoice
from llm_proxy.dialects.anthropic_messages import DIALECT
from tests.dialects.anthropic_messages.support import NAME, minimal, read


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"messages": "x"}, "messages"),
        ({"messages": ["x"]}, "messages[0]"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]},
            "messages[0].content[0].text",
        ),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
        ({"temperature": "0.5"}, "temperature"),
        ({"stream": "yes"}, "stream"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"name": "f", "input_schema": "x"}]}, "tools[0].input_schema"),
        ({"tool_choice": {"type": "sometimes"}}, "tool_choice.type"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"stop_sequences": [1]}, "stop_sequences[0]"),
        ({"system": 5}, "system"),
        ({"output_config": {"effort": "huge"}}, "output_config.effort"),
    ],
)
def test_a_wrong_field_is_a_bad_request_that_names_it(changes: dict[str, Any], param: str) -> None:
    with pytest.raises(FaultError) as caught:
        read(minimal(**changes))
    fault = caught.value.fault
    assert (fault.kind, fault.status_code, fault.param, fault.side) == ("bad_request", 400, param, "client")
    assert fault.message.startswith(param)


def test_the_message_says_what_was_expected_and_what_came() -> None:
    with pytest.raises(FaultError, match="messages: expected a list, got string"):
        read(minimal(messages="x"))


def test_missing_messages_and_broken_json_are_bad_requests() -> None:
    for body in (b'{"model": "m", "max_tokens": 1}', b'{"model": ', b"[]", b""):
        with pytest.raises(FaultError) as caught:
            DIALECT.read_request(body)
        assert caught.value.fault.kind == "bad_request"


def test_the_head_is_read_without_the_rest() -> None:
    body = json.dumps(minimal(stream=True, metadata={"user_id": "u"})).encode()
    head = DIALECT.read_head(body)
    assert (head.model, head.stream, head.size, head.user) == ("m", True, len(body), "u")
    for wrong in ({"model": 3}, {"stream": "x"}):
        with pytest.raises(FaultError):
            DIALECT.read_head(json.dumps(minimal(**wrong)).encode())
    with pytest.raises(FaultError):
        DIALECT.read_head(b"nonsense")


def test_system_texts_blocks_and_marks_are_kept_apart() -> None:
    blocks = [
        {"type": "text", "text": "A", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "text", "text": "B", "cache_control": None},
    ]
    system = read(minimal(system=blocks)).messages[0]
    assert system.role == "system"
    assert system.parts == (Text("A", cache=CacheMark("1h")), Text("B"))
    assert read(minimal(system="S")).messages[0].parts == (Text("S"),)


def test_a_system_message_among_the_messages_stays_in_its_place() -> None:
    request = read(minimal(messages=[{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]))
    assert [(message.role, message.inline) for message in request.messages] == [
        ("user", False),
        ("system", True),
    ]


def test_content_blocks() -> None:
    content = [
        {"type": "thinking", "thinking": "t", "signature": "S"},
        {"type": "redacted_thinking", "data": "R"},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {"n": 123456789012345678901234567890}},
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "q"}},
    ]
    parts = read(minimal(messages=[{"role": "assistant", "content": content}])).messages[0].parts
    assert parts[0] == Thinking("t", summary=True, seal=Seal(NAME, "signature", "S"))
    assert parts[1] == Thinking(seal=Seal(NAME, "redacted", "R"))
    assert parts[2] == ToolCall("t1", "f", '{"n":123456789012345678901234567890}')
    assert parts[3] == Opaque(NAME, "server_tool_use", content[3], "web_search")


def test_media_and_results() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/jpg", "data": "aGk="}}
    result = {"type": "tool_result", "tool_use_id": "t1", "is_error": True, "content": [image]}
    url = {"type": "document", "source": {"type": "url", "url": "https://e.com/a.pdf"}, "title": "T"}
    found = {
        "type": "search_result", "source": "https://e.com", "title": "S",
        "content": [{"type": "text", "text": "x"}],
    }  # fmt: skip
    parts = read(minimal(messages=[{"role": "user", "content": [result, url, found]}])).messages[0].parts
    picture = Media("image", data="aGk=", mime="image/jpeg", origin=NAME)
    assert parts[0] == ToolResult("t1", (picture,), is_error=True)
    assert parts[1] == Media("document", url="https://e.com/a.pdf", title="T", origin=NAME)
    assert isinstance(parts[2], Media) and (parts[2].text, parts[2].title) == ("x", "S")


def test_tools_of_the_client_and_of_anthropic() -> None:
    tools = [
        {"name": "f", "description": "d", "input_schema": {"type": "object"}, "type": "custom"},
        {"type": "web_search_20250305", "name": "web_search"},
        {"type": "bash_20250124", "name": "bash"},
    ]
    request = read(minimal(tools=tools))
    assert request.tools[0] == FunctionTool("f", "d", {"type": "object"})
    assert request.tools[1] == ServerTool(NAME, "web_search_20250305", tools[1], "web_search")
    assert request.tools[2] == ServerTool(NAME, "bash_20250124", tools[2], "shell")


@pytest.mark.parametrize(
    ("choice", "expected", "parallel"),
    [
        ({"type": "auto"}, ToolChoice("auto"), None),
        ({"type": "any", "disable_parallel_tool_use": True}, ToolChoice("required"), False),
        ({"type": "tool", "name": "f"}, ToolChoice("named", ("f",)), None),
        ({"type": "none"}, ToolChoice("none"), None),
    ],
)
def test_tool_choice(choice: dict[str, Any], expected: ToolChoice, parallel: bool | None) -> None:
    request = read(minimal(tool_choice=choice))
    assert (request.tool_choice, request.parallel_tool_calls) == (expected, parallel)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2048}},
            Reasoning("budget", budget=2048, visible=True),
        ),
        ({"thinking": {"type": "disabled"}}, Reasoning("off")),
        ({"thinking": {"type": "enabled", "budget_tokens": 0}}, Reasoning("off", budget=0, visible=True)),
        ({"thinking": {"type": "enabled", "budget_tokens": -1}}, Reasoning("auto", budget=-1, visible=True)),
        ({"output_config": {"effort": "maximum"}}, Reasoning("effort", effort="max", visible=False)),
        ({"output_config": {"effort": "none"}}, Reasoning("off", effort="none", visible=False)),
        (
            {"thinking": {"type": "adaptive", "display": "omitted"}, "output_config": {"effort": "high"}},
            Reasoning("auto", effort="high", visible=False),
        ),
        ({"output_config": {"effort": "low"}}, Reasoning("effort", effort="low", visible=False)),
    ],
)
def test_thinking(fields: dict[str, Any], expected: Reasoning) -> None:
    assert read(minimal(**fields)).reasoning == expected


def test_unknown_fields_are_kept() -> None:
    request = read(minimal(container="c1", context_management={"edits": []}, output_config={"task_budget": {"n": 1}}))
    assert request.rest == {
        "container": "c1", "context_management": {"edits": []}, "output_config": {"task_budget": {"n": 1}},
    }  # fmt: skip


def test_both_names_of_a_json_schema_are_read() -> None:
    schema = {"type": "object"}
    form = {"type": "json_schema", "schema": schema}
    for fields in ({"output_format": form}, {"output_config": {"format": form}}):
        found = read(minimal(**fields)).format
        assert found is not None and (found.kind, found.schema) == ("schema", schema)
