"""Requests of other protocols become what the Messages API takes; losses are told, duties handed over."""

from __future__ import annotations

import re
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
    Message,
    Reasoning,
    ResponseFormat,
    Sampling,
    ServerTool,
    ToolChoice,
)
from tests.dialects.anthropic_messages.support import MAKER, NAME, asked, assistant, target, user, write
from tests.support.requests_check import validate_request

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = FunctionTool("get_weather", "d", SCHEMA)
HI = user(Text("hi"))
SIGNED = Thinking("t", seal=Seal(NAME, "signature", "SIG", MAKER))


def body_of(*messages: Message, to: Any = None, **fields: Any) -> dict[str, Any]:
    """The written body, which must be one that the API takes."""
    body = write(asked(*messages, **fields), to).body
    assert validate_request(NAME, body, emitted=True) == []
    return body


# ---- roles and order


def test_leading_system_texts_become_blocks_in_order_and_keep_their_marks() -> None:
    body = body_of(Message("system", (Text("A", cache=CacheMark()),)), Message("developer", (Text("B"), Text(" "))), HI)
    assert body["system"] == [
        {"type": "text", "text": "A", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "B"},
    ]


def test_a_later_system_message_stays_in_place_as_a_reminder_on_older_models() -> None:
    conversation = (HI, assistant(Text("2")), Message("system", (Text("B"),)), user(Text("3")))
    body = body_of(Message("system", (Text("A"),)), *conversation)
    assert len(body["messages"]) == 3
    assert [block["text"] for block in body["messages"][2]["content"]] == [
        "<system-reminder>\nB\n</system-reminder>", "3",
    ]  # fmt: skip


def test_a_later_system_message_stays_one_where_the_model_takes_it() -> None:
    conversation = (HI, assistant(Text("2")), Message("system", (Text("B"),)), user(Text("3")))
    body = body_of(*conversation, to=target("claude-opus-4-8"))
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "system", "user"]


def test_the_prefix_before_a_later_system_message_is_the_same_with_and_without_it() -> None:
    head = (Message("system", (Text("A"),)), HI, assistant(Text("2")))
    without = body_of(*head, user(Text("3")))
    with_it = body_of(*head, Message("system", (Text("B"),)), user(Text("3")))
    assert with_it["system"] == without["system"]
    assert with_it["messages"][:2] == without["messages"][:2]


@pytest.mark.parametrize("model", ["claude-sonnet-4-5", "claude-opus-4-8"])
def test_a_system_message_never_parts_calls_from_their_results(model: str) -> None:
    call = assistant(ToolCall("c1", "f", "{}"))
    result = user(ToolResult("c1", (Text("r"),)))
    body = body_of(HI, call, Message("system", (Text("B"),)), result, to=target(model))
    assert body["messages"][2]["content"][0]["type"] == "tool_result"


def test_turns_of_one_role_are_merged_and_the_first_is_the_users() -> None:
    body = body_of(assistant(Text("a")), assistant(Text("b")), HI, user(Text("c")))
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert body["messages"][0]["content"] == [{"type": "text", "text": "(continue)"}]
    assert [block["text"] for block in body["messages"][2]["content"]] == ["hi", "c"]


def test_a_conversation_of_system_texts_alone_gets_a_user_turn() -> None:
    assert body_of(Message("system", (Text("A"),)))["messages"][0]["role"] == "user"


def test_empty_texts_are_dropped_and_roles_do_not_break() -> None:
    body = body_of(user(Text(""), Text("hi")), assistant(Text("")), user(Text("x")))
    assert len(body["messages"]) == 1
    body = body_of(HI, assistant(Text("a")), user(Text(" ")), assistant(Text("b")), user(Text("c")))
    assert body["messages"][2]["content"] == [{"type": "text", "text": "."}]


# ---- calls and results


def test_three_results_become_one_user_turn_with_the_results_first() -> None:
    calls = assistant(
        Text(""),
        ToolCall("call_1", "get_weather", '{"city":"Rome"}'),
        ToolCall("call_2", "get_weather", '{"city":"Oslo"}'),
        ToolCall("call_3", "now"),
    )
    results = [user(ToolResult(name, (Text(text),))) for name, text in (("call_2", "cold"), ("call_1", "warm"))]
    body = body_of(HI, calls, *results, user(ToolResult("call_3")), user(Text("and?")), tools=(WEATHER,))
    assert len(body["messages"]) == 3
    assert [block["type"] for block in body["messages"][1]["content"]] == ["tool_use"] * 3
    assert body["messages"][1]["content"][2]["input"] == {}
    turn = body["messages"][2]["content"]
    assert [block["type"] for block in turn] == ["tool_result"] * 3 + ["text"]
    assert "content" not in turn[2]
    assert turn[3] == {"type": "text", "text": "and?"}


def test_two_calls_in_separate_messages_are_one_turn() -> None:
    body = body_of(
        user(Text("x")),
        assistant(ToolCall("call_1", "f", "{}")),
        assistant(ToolCall("call_2", "f", '{"a":1}')),
        user(ToolResult("call_1", (Text("1"),))),
        user(ToolResult("call_2", (Text("2"),))),
    )
    assert [len(message["content"]) for message in body["messages"]] == [1, 2, 2]


def test_a_call_without_a_result_gets_a_synthetic_one_and_a_stray_result_becomes_text() -> None:
    outgoing = write(
        asked(
            HI,
            assistant(ToolCall("c1", "f", "{}")),
            user(ToolResult("other", (Text("stray"),)), Text("go on")),
        )
    )
    turn = outgoing.body["messages"][2]["content"]
    assert turn[0] == {"type": "tool_result", "tool_use_id": "c1", "content": "no result", "is_error": True}
    assert "stray" in [block.get("text") for block in turn]
    assert len(outgoing.losses) == 2


def test_a_call_at_the_end_of_the_conversation_is_answered() -> None:
    body = body_of(HI, assistant(ToolCall("c1", "f", "{}")))
    assert body["messages"][2]["content"][0]["is_error"] is True


def test_a_late_result_moves_right_behind_its_call() -> None:
    body = body_of(
        HI,
        assistant(ToolCall("a", "f"), ToolCall("b", "f")),
        user(ToolResult("a", (Text("1"),))),
        assistant(Text("hm")),
        user(ToolResult("b", (Text("2"),))),
        assistant(Text("done")),
        user(Text("thanks")),
    )
    assert [block["tool_use_id"] for block in body["messages"][2]["content"]] == ["a", "b"]


def test_ids_that_come_twice_are_made_unique_and_still_pair() -> None:
    rounds = [assistant(ToolCall("call_0", "f")), user(ToolResult("call_0", (Text("1"),)))] * 2
    body = body_of(HI, *rounds)
    ids = [message["content"][0]["id"] for message in body["messages"] if message["role"] == "assistant"]
    assert len(set(ids)) == 2
    assert [body["messages"][place]["content"][0]["tool_use_id"] for place in (2, 4)] == ids


def test_ids_outside_the_pattern_are_mapped_alike_in_call_and_result() -> None:
    body = body_of(HI, assistant(ToolCall("functions.search:0", "search")), user(ToolResult("functions.search:0")))
    identity = body["messages"][1]["content"][0]["id"]
    assert re.fullmatch("[a-zA-Z0-9_-]+", identity)
    assert body["messages"][2]["content"][0]["tool_use_id"] == identity


def test_arguments_that_are_no_object_are_sent_as_text_with_a_loss() -> None:
    outgoing = write(asked(HI, assistant(ToolCall("c", "f", "{oops")), user(ToolResult("c"))))
    assert outgoing.body["messages"][1]["content"][0]["input"] == {"_raw": "{oops"}
    assert outgoing.losses


def test_results_keep_images_and_errors() -> None:
    image = Media("image", data="iVBORw0KGgoAAAAA", mime="image/jpg")
    result = ToolResult("c", (Text("done"), image), is_error=True)
    body = body_of(HI, assistant(ToolCall("c", "f")), user(result), user(ToolResult("x", is_error=True)))
    written = body["messages"][2]["content"][0]
    assert written["is_error"] is True
    # The label was wrong: the first bytes are those of a PNG, and the API refuses a mismatch.
    assert written["content"][1]["source"]["media_type"] == "image/png"


# ---- reasoning


def test_reasoning_without_a_seal_of_this_target_is_left_out() -> None:
    foreign = Thinking("f", seal=Seal("openai-responses", "encrypted", "E", "openai/gpt"))
    other_maker = Thinking("o", seal=Seal(NAME, "signature", "S", "bedrock/claude"))
    envelope = Thinking("e", seal=Seal(NAME, "signature", "gw1.abc"))
    outgoing = write(asked(HI, assistant(Thinking("plain"), foreign, other_maker, envelope, SIGNED, Text("a")), HI))
    assert outgoing.body["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "t", "signature": "SIG"},
        {"type": "text", "text": "a"},
    ]
    assert any("signature" in loss for loss in outgoing.losses)


def test_effort_becomes_a_budget_below_max_tokens() -> None:
    body = body_of(HI, reasoning=Reasoning("effort", effort="low"), max_output_tokens=1000)
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 2048}
    assert body["max_tokens"] == 3048


def test_effort_becomes_adaptive_thinking_on_newer_models() -> None:
    to = target("claude-opus-4-8")
    body = body_of(HI, to=to, reasoning=Reasoning("effort", effort="high"), sampling=Sampling(temperature=0.2))
    assert body["thinking"]["type"] == "adaptive"
    assert body["output_config"] == {"effort": "high"}
    assert "temperature" not in body


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        ("claude-sonnet-4-6", "xhigh", "max"),
        ("claude-opus-5", "minimal", "low"),
        ("claude-opus-5", "xhigh", "xhigh"),
    ],
)
def test_efforts_are_fitted_to_the_model(model: str, effort: Any, expected: str) -> None:
    body = body_of(HI, to=target(model), reasoning=Reasoning("effort", effort=effort))
    assert body["output_config"]["effort"] == expected


def test_effort_none_switches_thinking_off() -> None:
    off = Reasoning("effort", effort="none")
    assert "thinking" not in body_of(HI, reasoning=off)
    assert body_of(HI, to=target("claude-opus-5"), reasoning=off)["thinking"] == {"type": "disabled"}


LOOP = (HI, assistant(ToolCall("c", "f")), user(ToolResult("c", (Text("r"),))))


def test_thinking_is_off_when_the_current_tool_loop_began_without_it() -> None:
    reasoning = Reasoning("effort", effort="high")
    outgoing = write(asked(*LOOP, reasoning=reasoning))
    assert "thinking" not in outgoing.body
    assert any("tool loop" in loss for loss in outgoing.losses)
    signed = (HI, assistant(SIGNED, ToolCall("c", "f")), user(ToolResult("c", (Text("r"),))))
    assert write(asked(*signed, reasoning=reasoning)).body["thinking"]["type"] == "enabled"
    later = (*LOOP, assistant(Text("done")), user(Text("next")))
    assert write(asked(*later, reasoning=reasoning)).body["thinking"]["type"] == "enabled"


def test_a_forced_tool_is_preferred_to_thinking_with_a_budget() -> None:
    fields: dict[str, Any] = {
        "tools": (WEATHER,), "tool_choice": ToolChoice("required"),
        "reasoning": Reasoning("effort", effort="high"),
    }  # fmt: skip
    body = body_of(HI, **fields)
    assert body["tool_choice"] == {"type": "any"} and "thinking" not in body
    assert body_of(HI, to=target("claude-opus-5"), **fields)["thinking"]["type"] == "adaptive"


# ---- sampling, limits, stops


def test_sampling_is_fitted_to_the_model() -> None:
    sampling = Sampling(temperature=1.7, top_p=0.9, seed=1, frequency_penalty=0.5)
    outgoing = write(asked(HI, sampling=sampling))
    assert outgoing.body["temperature"] == 1
    assert not {"top_p", "seed", "frequency_penalty"} & outgoing.body.keys()
    assert {loss.partition(":")[0] for loss in outgoing.losses} == {
        "temperature", "top_p", "seed", "frequency_penalty",
    }  # fmt: skip
    refused = write(asked(HI, sampling=Sampling(temperature=0.2, top_p=0.9, top_k=4)), target("claude-opus-4-8"))
    assert not {"temperature", "top_p", "top_k"} & refused.body.keys()


def test_thinking_takes_no_sampling() -> None:
    sampling = Sampling(temperature=0.2, top_k=5)
    body = body_of(HI, reasoning=Reasoning("effort", effort="low"), sampling=sampling, max_output_tokens=9000)
    assert not {"temperature", "top_k"} & body.keys()


@pytest.mark.parametrize(
    ("model", "wanted", "expected"),
    [
        ("claude-sonnet-4-5", None, 8192),
        ("claude-3-haiku-20240307", None, 4096),
        ("claude-3-haiku-20240307", 9000, 4096),
        ("some-model", None, 8192),
        ("some-model", 70, 70),
    ],
)
def test_max_tokens(model: str, wanted: int | None, expected: int) -> None:
    assert body_of(HI, to=target(model), max_output_tokens=wanted)["max_tokens"] == expected


def test_white_space_stops_are_the_proxys_duty() -> None:
    outgoing = write(asked(HI, stop=("\n\n", "END")))
    assert outgoing.body["stop_sequences"] == ["END"]
    assert outgoing.duties.stop == ("\n\n",)


def test_several_choices_are_several_calls() -> None:
    assert write(asked(HI, n=3)).duties.copies == 3


def test_a_prefill_is_trimmed_or_asked_for() -> None:
    messages = (HI, assistant(Text("The answer is \n")))
    assert body_of(*messages)["messages"][1]["content"] == [{"type": "text", "text": "The answer is"}]
    assert body_of(*messages, to=target("claude-opus-5"))["messages"][-1]["role"] == "user"


# ---- tools


def test_tools_without_parameters_get_an_object_schema() -> None:
    body = body_of(HI, tools=(FunctionTool("now"),))
    assert body["tools"][0]["input_schema"]["type"] == "object"


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        (ToolChoice("auto"), None, {"type": "auto"}),
        (ToolChoice("required"), None, {"type": "any"}),
        (ToolChoice("none"), None, {"type": "none"}),
        (ToolChoice("named", ("get_weather",)), None, {"type": "tool", "name": "get_weather"}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (ToolChoice("required"), False, {"type": "any", "disable_parallel_tool_use": True}),
        (None, True, None),
    ],
)
def test_tool_choice(choice: ToolChoice | None, parallel: bool | None, expected: Any) -> None:
    body = body_of(HI, tools=(WEATHER,), tool_choice=choice, parallel_tool_calls=parallel)
    assert body.get("tool_choice") == expected


def test_an_allowed_subset_means_to_send_only_these_tools() -> None:
    tools = (WEATHER, FunctionTool("b"))
    body = body_of(HI, tools=tools, tool_choice=ToolChoice("required", ("b",)))
    assert [tool["name"] for tool in body["tools"]] == ["b"]
    assert body["tool_choice"] == {"type": "any"}
    body = body_of(HI, tools=tools, tool_choice=ToolChoice("named", ("b",)), to=target("claude-fable-5"))
    assert [tool["name"] for tool in body["tools"]] == ["b"]
    assert body["tool_choice"] == {"type": "auto"}


def test_long_names_and_namespaces_are_mapped_and_handed_back() -> None:
    long = "n" * 90
    tools = (FunctionTool(long), FunctionTool("read", namespace="fs"))
    call = assistant(ToolCall("c", long))
    outgoing = write(asked(HI, call, user(ToolResult("c")), tools=tools))
    names = [tool["name"] for tool in outgoing.body["tools"]]
    assert len(names[0]) == 64 and outgoing.duties.names == {names[0]: long}
    assert outgoing.body["messages"][1]["content"][0]["name"] == names[0]
    assert outgoing.duties.namespaces == {"fs__read": ("fs", "read")}


def test_free_text_tools_become_functions() -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}
    tool = CustomTool("apply_patch", "Patches.", grammar)
    call = assistant(ToolCall("c", "apply_patch", 'a\n"b"', kind="custom"))
    outgoing = write(asked(HI, call, user(ToolResult("c", kind="custom")), tools=(tool,)))
    written = outgoing.body["tools"][0]
    assert written["input_schema"]["required"] == ["input"]
    assert "start: /.+/" in written["description"]
    assert outgoing.duties.custom_tools == {"apply_patch"}
    assert outgoing.body["messages"][1]["content"][0]["input"] == {"input": 'a\n"b"'}


def test_of_tools_with_one_name_the_last_counts() -> None:
    outgoing = write(asked(HI, tools=(FunctionTool("f", "old"), WEATHER, FunctionTool("f", "new"))))
    assert [tool.get("description") for tool in outgoing.body["tools"]] == ["d", "new"]
    assert outgoing.losses


def test_tools_that_other_vendors_run() -> None:
    search = ServerTool("openai-responses", "web_search", {"type": "web_search"}, "web_search")
    images = ServerTool("openai-responses", "image_generation", {"type": "image_generation"}, "image_generation")
    outgoing = write(asked(HI, tools=(search, images)))
    assert outgoing.body["tools"] == [{"type": "web_search_20250305", "name": "web_search"}]
    assert any("image_generation" in loss for loss in outgoing.losses)
    shell = ServerTool("openai-responses", "local_shell", {"type": "local_shell"}, "shell")
    with pytest.raises(FaultError, match="local_shell"):
        write(asked(HI, tools=(shell,)))


# ---- output form


def test_a_schema_is_enforced_by_the_provider_where_it_can() -> None:
    form = ResponseFormat("schema", SCHEMA, strict=True)
    body = body_of(HI, format=form)
    assert body["output_config"]["format"]["schema"]["additionalProperties"] is False
    assert "additionalProperties" not in SCHEMA


def test_older_models_get_a_forced_tool() -> None:
    form = ResponseFormat("schema", SCHEMA)
    outgoing = write(asked(HI, format=form), target("claude-3-5-haiku-20241022"))
    assert outgoing.duties.json_tool == "json_output"
    assert outgoing.body["tool_choice"] == {"type": "tool", "name": "json_output"}
    assert outgoing.body["tools"][0]["input_schema"]["properties"] == SCHEMA["properties"]


def test_json_without_a_schema_is_an_instruction() -> None:
    body = body_of(HI, format=ResponseFormat("json"))
    assert "JSON" in body["system"][-1]["text"]


# ---- media and the rest


def test_images_and_documents() -> None:
    parts = (
        Media("image", data="/9j/AA==", mime="image/jpg"),
        Media("image", url="https://example.com/a.png"),
        Media("document", data="JVBERi0xLjQ=", name="a.pdf"),
        Media("document", text="words", title="T"),
    )
    content = body_of(user(*parts))["messages"][0]["content"]
    assert content[0]["source"] == {"type": "base64", "media_type": "image/jpeg", "data": "/9j/AA=="}
    assert content[1]["source"] == {"type": "url", "url": "https://example.com/a.png"}
    assert content[2]["source"]["media_type"] == "application/pdf" and content[2]["title"] == "a.pdf"
    assert content[3]["source"] == {"type": "text", "media_type": "text/plain", "data": "words"}


@pytest.mark.parametrize("part", [Media("audio", data="aGk=", mime="audio/wav"), Media("image", file_id="file-1")])
def test_media_that_cannot_be_sent_are_refused_not_dropped(part: Media) -> None:
    with pytest.raises(FaultError) as caught:
        write(asked(user(part)))
    assert caught.value.fault.kind == "bad_request"


def test_images_of_the_assistant_move_into_the_next_user_turn() -> None:
    image = Media("image", data="iVBORw0KGgoAAAAA", mime="image/png")
    body = body_of(HI, assistant(Text("here"), image), user(Text("nice")))
    assert [block["type"] for block in body["messages"][2]["content"]] == ["text", "text", "image"]


def test_refusals_and_foreign_parts_of_the_history() -> None:
    outgoing = write(asked(HI, assistant(Refusal("no"), Opaque("openai-responses", "web_search_call", {})), HI))
    assert outgoing.body["messages"][1]["content"] == [{"type": "text", "text": "no"}]
    assert any("web_search_call" in loss for loss in outgoing.losses)


def test_cache_marks_are_limited_reduced_and_never_null() -> None:
    marks = [Text(str(number), cache=CacheMark("1h")) for number in range(6)]
    body = body_of(Message("system", (Text("s", cache=CacheMark("24h")),)), user(*marks))
    kept = [block.get("cache_control") for block in body["messages"][0]["content"]]
    assert kept == [None, None, None] + [{"type": "ephemeral", "ttl": "1h"}] * 3
    assert body["system"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    reduced = body_of(user(marks[0]), to=target(cache_ttl=False))
    assert reduced["messages"][0]["content"][0]["cache_control"] == {"type": "ephemeral"}
    assert "cache_control" not in str(body_of(user(marks[0]), to=target(cache_marks=False)))


def test_the_user_is_named_and_a_long_name_is_hashed() -> None:
    assert body_of(HI, user="u1")["metadata"] == {"user_id": "u1"}
    assert len(body_of(HI, user="u" * 300)["metadata"]["user_id"]) == 64


def test_what_has_no_counterpart_is_reported() -> None:
    outgoing = write(asked(HI, verbosity="low", rest={"provider": {}, "stream_options": {}}, store=True))
    assert {loss.partition(":")[0] for loss in outgoing.losses} == {"verbosity", "provider", "store"}
    assert "provider" not in outgoing.body
