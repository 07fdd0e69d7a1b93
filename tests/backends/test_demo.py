"""BE-20: the built-in back end answers in the OpenAI Chat dialect, deterministic apart from ids and times."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from llm_proxy.backends.base import Call
from llm_proxy.backends.demo import DemoBackend
from llm_proxy.backends.demo_answers import MODELS, sample
from llm_proxy.conversation.fault import FaultError
from tests.backends.settings import backend_settings

WRITE = {
    "type": "function",
    "function": {
        "name": "write_file",
        "parameters": {
            "type": "object",
            "properties": {
                "path": {"type": "string"},
                "mode": {"enum": ["create", "append"]},
                "size": {"type": "integer"},
                "force": {"type": "boolean"},
                "note": {"type": "string", "default": "none"},
                "optional": {"type": "string"},
            },
            "required": ["path", "mode", "size", "force", "note"],
        },
    },
}
READ = {
    "type": "function",
    "function": {"name": "read_file", "parameters": {"type": "object", "properties": {}}},
}
WRITE_ARGUMENTS = {"path": "text", "mode": "create", "size": 1, "force": True, "note": "none"}


def user(text: str = "hi") -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def after_result(text: str) -> list[dict[str, Any]]:
    call = {"id": "c1", "type": "function", "function": {"name": "write_file", "arguments": "{}"}}
    return [
        *user(),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": text},
    ]


async def open_demo(model: str, stream: bool, timeout: float = 300.0, action: Any = "generate", **request: Any) -> Any:
    request.setdefault("messages", user())
    body = json.dumps({"model": model, "stream": stream, **request}).encode()
    demo = DemoBackend(backend_settings("demo", timeout=timeout))
    return await demo.open(Call(dialect="openai-chat", model=model, body=body, stream=stream, action=action))


async def whole(model: str, **request: Any) -> dict[str, Any]:
    response = await open_demo(model, False, **request)
    assert response.status == 200
    answer: dict[str, Any] = json.loads(await response.read())
    return answer


def events_of(data: bytes) -> list[dict[str, Any]]:
    frames = data.decode().split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    return [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2]]


async def streamed(model: str, **request: Any) -> dict[str, Any]:
    """The message that the stream's deltas make."""
    response = await open_demo(model, True, **request)
    message: dict[str, Any] = {"content": "", "reasoning": "", "calls": {}, "finish": []}
    for event in events_of(await response.read()):
        for choice in event["choices"]:
            delta = choice["delta"]
            message["content"] += delta.get("content") or ""
            message["reasoning"] += delta.get("reasoning_content") or ""
            for call in delta.get("tool_calls", ()):
                kept = message["calls"].setdefault(call["index"], {"name": "", "arguments": ""})
                kept["name"] += call["function"].get("name", "")
                kept["arguments"] += call["function"]["arguments"]
            if choice["finish_reason"]:
                message["finish"].append(choice["finish_reason"])
        if event.get("usage"):
            message["usage"] = event["usage"]
    return message


def text_of(answer: dict[str, Any]) -> Any:
    return answer["choices"][0]["message"]["content"]


def calls_of(answer: dict[str, Any]) -> list[tuple[str, Any]]:
    calls = answer["choices"][0]["message"].get("tool_calls", [])
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]


async def test_echo_repeats_the_last_user_text() -> None:
    assert text_of(await whole("echo")) == "Echo: hi"
    parts = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    assert text_of(await whole("echo", messages=[*user("old"), *parts])) == "Echo: a\nb"


async def test_an_unknown_model_echoes() -> None:
    assert text_of(await whole("gpt-4o")) == "Echo: hi"
    assert (await streamed("whatever"))["content"] == "Echo: hi"


async def test_the_same_request_gives_the_same_content() -> None:
    first, second = await whole("think"), await whole("think")
    assert first["id"] != second["id"]
    assert first["choices"] == second["choices"]
    assert first["usage"] == second["usage"]


async def test_echo_calls_the_tool_that_the_text_asks_for() -> None:
    answer = await whole("echo", messages=user("please call write_file now"), tools=[READ, WRITE])
    assert calls_of(answer) == [("write_file", WRITE_ARGUMENTS)]
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert text_of(await whole("echo", messages=user("call nothing"), tools=[WRITE])) == "Echo: call nothing"


async def test_a_tool_result_is_shown_up_to_200_characters() -> None:
    for model in ("echo", "tools", "parallel", "think"):
        answer = await whole(model, messages=after_result("r" * 300), tools=[WRITE])
        assert text_of(answer) == "Result: " + "r" * 200


async def test_tools_calls_the_first_offered_tool() -> None:
    assert calls_of(await whole("tools", tools=[WRITE, READ])) == [("write_file", WRITE_ARGUMENTS)]
    assert text_of(await whole("tools")) == "Echo: hi"
    assert text_of(await whole("tools", tools=[WRITE], tool_choice="none")) == "Echo: hi"


async def test_a_forced_tool_is_called() -> None:
    named = {"type": "function", "function": {"name": "read_file"}}
    assert calls_of(await whole("echo", tools=[WRITE, READ], tool_choice=named)) == [("read_file", {})]
    assert calls_of(await whole("echo", tools=[WRITE], tool_choice="required")) == [("write_file", WRITE_ARGUMENTS)]


async def test_parallel_makes_two_calls_with_their_own_ids() -> None:
    answer = await whole("parallel", tools=[WRITE, READ])
    assert [name for name, _ in calls_of(answer)] == ["write_file", "read_file"]
    ids = [call["id"] for call in answer["choices"][0]["message"]["tool_calls"]]
    assert len(set(ids)) == 2
    assert [name for name, _ in calls_of(await whole("parallel", tools=[WRITE]))] == ["write_file"] * 2


async def test_tool_loop_makes_the_same_call_each_turn() -> None:
    first = calls_of(await whole("tool-loop", tools=[WRITE]))
    assert first == calls_of(await whole("tool-loop", tools=[WRITE], messages=after_result("done")))
    assert first == [("write_file", WRITE_ARGUMENTS)]


async def test_think_reasons_first() -> None:
    message = await streamed("think")
    assert message["reasoning"]
    assert message["content"] == "Echo: hi"
    answer = await whole("think")
    assert answer["choices"][0]["message"]["reasoning_content"] == message["reasoning"]
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0


async def test_json_fits_the_schema_and_bad_json_lacks_its_end() -> None:
    schema = WRITE["function"]["parameters"]  # type: ignore[index]
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert json.loads(text_of(await whole("json", response_format=wanted))) == WRITE_ARGUMENTS
    assert json.loads(text_of(await whole("json"))) == {"echo": "hi"}
    bad = text_of(await whole("bad-json", response_format=wanted))
    assert bad.startswith("```json\n{") and bad.endswith("\n```") and "}" not in bad


async def test_loop_repeats_a_sentence_of_60_characters_100_times() -> None:
    text = text_of(await whole("loop"))
    assert len(text) == 6000
    assert text == text[:60] * 100


async def test_text_tool_call_writes_the_call_as_text() -> None:
    answer = await whole("text-tool-call", tools=[WRITE])
    assert not calls_of(answer)
    inner = text_of(answer).removeprefix("<tool_call>\n").removesuffix("\n</tool_call>")
    assert json.loads(inner) == {"name": "write_file", "arguments": WRITE_ARGUMENTS}


async def test_empty_says_nothing() -> None:
    assert text_of(await whole("empty")) == ""
    assert (await streamed("empty"))["finish"] == ["stop"]


BREAKING = {"cut", "stall", "malformed", "reset", "error-429", "error-500"}


@pytest.mark.parametrize("model", [name for name in MODELS if name not in BREAKING])
async def test_stream_and_whole_answer_say_the_same(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []

    async def nap(seconds: float) -> None:
        naps.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", nap)
    request = {"messages": user("say ünïcödé  twice\n\n"), "tools": [WRITE, READ]}
    answer, message = await whole(model, **request), await streamed(model, **request)
    assert message["content"] == (text_of(answer) or "")
    calls = [(call["name"], json.loads(call["arguments"])) for _, call in sorted(message["calls"].items())]
    assert calls == calls_of(answer)
    assert message["finish"] == [answer["choices"][0]["finish_reason"]]
    assert (0.1 in naps) == (model == "slow")


async def test_slow_sends_20_words_a_tenth_of_a_second_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []

    async def nap(seconds: float) -> None:
        naps.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", nap)
    message = await streamed("slow")
    assert len(message["content"].split()) == 20
    assert naps.count(0.1) >= 20


async def test_usage_is_estimated_and_sent_in_a_stream_when_asked() -> None:
    assert "usage" not in await streamed("echo")
    usage = (await streamed("echo", stream_options={"include_usage": True}))["usage"]
    assert usage["completion_tokens"] == 2
    assert usage["total_tokens"] == usage["prompt_tokens"] + 2


async def test_several_choices() -> None:
    answer = await whole("echo", n=3)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]


@pytest.mark.parametrize(
    ("model", "status"), [("error-429", 429), ("error-503", 503), ("error-x", 500), ("error-200", 500)]
)
async def test_errors_have_the_status_that_was_asked_for(model: str, status: int) -> None:
    for stream in (False, True):
        response = await open_demo(model, stream)
        assert response.status == status
        assert json.loads(await response.read())["error"]["message"]
    assert ("retry-after", "1") in (await open_demo("error-429", False)).headers


async def test_cut_breaks_after_three_deltas() -> None:
    response = await open_demo("cut", True)
    seen = b""
    with pytest.raises(FaultError) as caught:
        async for chunk in response.chunks():
            seen += chunk
    assert caught.value.fault.kind == "closed"
    words = [frame for frame in seen.split(b"\n\n") if frame and b'"content":""' not in frame]
    assert len(words) == 3
    with pytest.raises(FaultError):
        await open_demo("cut", False)


async def test_stall_is_silent_until_the_timeout() -> None:
    response = await open_demo("stall", True, timeout=0.01)
    with pytest.raises(FaultError) as caught:
        await response.read()
    assert caught.value.fault.kind == "timeout"


async def test_malformed_sends_broken_frames_and_reset_gives_no_answer() -> None:
    data = await (await open_demo("malformed", True)).read()
    with pytest.raises(json.JSONDecodeError):
        json.loads(data.split(b"\n\n")[-2].removeprefix(b"data: "))
    with pytest.raises(FaultError):
        await open_demo("reset", True)


async def test_embeddings_are_unit_vectors_of_8_numbers() -> None:
    answer = await whole("echo", action="embeddings", input=["a", "b", "a"])
    vectors = [item["embedding"] for item in answer["data"]]
    assert [len(vector) for vector in vectors] == [8, 8, 8]
    assert vectors[0] == vectors[2] != vectors[1]
    assert math.isclose(math.hypot(*vectors[0]), 1, abs_tol=1e-4)
    assert len((await whole("echo", action="embeddings", input=[1, 2, 3]))["data"]) == 1
    encoded = await whole("echo", action="embeddings", input="a", encoding_format="base64")
    assert isinstance(encoded["data"][0]["embedding"], str)


async def test_legacy_completions() -> None:
    answer = await whole("echo", action="completions", prompt="once")
    assert answer["choices"][0]["text"] == "Echo: once"
    response = await open_demo("echo", True, action="completions", prompt=["once", "twice"])
    events = events_of(await response.read())
    assert "".join(event["choices"][0]["text"] for event in events) == "Echo: once"


async def test_a_body_that_is_no_object_is_400() -> None:
    demo = DemoBackend(backend_settings("demo"))
    response = await demo.open(Call(dialect="openai-chat", model="echo", body=b"[]"))
    assert response.status == 400


SCALARS = st.sampled_from(
    [
        {"type": "string"},
        {"type": "string", "minLength": 6},
        {"type": "integer", "minimum": 5},
        {"type": "number"},
        {"type": "boolean"},
        {"type": "null"},
        {"enum": ["a", 1]},
        {"const": 3},
        {"type": ["string", "null"]},
        {"type": "integer", "maximum": -2},
        {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        {"$ref": "#/$defs/d"},
    ]
)
SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.builds(lambda item: {"type": "array", "items": item, "minItems": 2}, inner),
        st.builds(
            lambda members: {"type": "object", "properties": members, "required": list(members)},
            st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        ),
    ),
    max_leaves=8,
)


@given(SCHEMAS)
def test_sample_values_fit_their_schema(schema: dict[str, Any]) -> None:
    schema = {**schema, "$defs": {"d": {"type": "object", "properties": {"x": {"type": "string"}}}}}
    Draft202012Validator(schema).validate(sample(schema))


WORDS = st.sampled_from(
    [
        "type",
        "properties",
        "items",
        "required",
        "enum",
        "anyOf",
        "allOf",
        "$ref",
        "minItems",
        "object",
        "array",
        "#",
    ]
)
NONSENSE = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(WORDS, NONSENSE, max_size=5))
def test_no_schema_breaks_the_demo(schema: dict[str, Any]) -> None:
    sample(schema)


def test_a_schema_that_branches_into_itself_ends() -> None:
    node = {"type": "object", "properties": {name: {"$ref": "#"} for name in "abcdefgh"}}
    assert isinstance(sample(node), dict)
