"""Requests of other dialects, written for targets that speak Responses."""

from __future__ import annotations

import json
from typing import Any

import pytest

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
from tests.dialects.openai_responses.support import NAME, read, target
from tests.support.requests_check import validate_request

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


def test_leading_system_texts_are_instructions_and_later_ones_stay_where_they_are() -> None:
    system, developer = Message("system", (Text("one"),)), Message("developer", (Text("two"),))
    later = Message("system", (Text("three"),))
    body = write(foreign(system, developer, user(), later, user()))
    assert body["instructions"] == "one\n\ntwo"
    assert [item["role"] for item in body["input"]] == ["user", "system", "user"]
    wrapped = write(foreign(user(), later, user()), mid_system=False)["input"][1]
    assert wrapped["role"] == "user" and wrapped["content"][0]["text"] == "<system-reminder>\nthree\n</system-reminder>"


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
    body = write(foreign(user(), tools=tools, tool_choice=ToolChoice("named", ("p",)), parallel_tool_calls=False))
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
    request = foreign(*turns, tools=(FunctionTool(name, parameters=OBJECT),), tool_choice=ToolChoice("named", (name,)))
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
    sampling = Sampling(temperature=0.5, top_p=0.9, top_k=5, seed=1, frequency_penalty=0.1, logit_bias={"1": 1.0})
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
        body["text"] == {"format": {"type": "json_object"}} and "instructions" not in body and len(body["input"]) == 2
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
    assert items[0]["content"][0]["filename"] == "document.pdf" and items[0]["content"][1]["text"] == "T\n\nplain"
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
