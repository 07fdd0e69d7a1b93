"""What each client protocol gets, whatever the provider speaks (FE-02 to FE-05, FE-10 to FE-13).

Paths (FE-01) are tested in `tests/server`, leaving clients in `tests/faults`, fidelity over all recordings in the other files here.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.asking import (
    CROSSED,
    PAIRS,
    PROTOCOLS,
    Called,
    Scene,
    body_of,
    call,
    data_of,
    error_of,
    frames,
    path_of,
    protocol_of,
    say,
    target,
    tools_of,
    wants_stream,
)  # fmt: skip
from tests.faults.stage import deltas, ending, whole
from tests.support import grammar
from tests.support.semantic import ToolCall
from tests.support.shared import Protocol
from tests.support.upstream import Close, Hang, Received, Reply, Reset, Send

both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
each_client = pytest.mark.parametrize("client", PROTOCOLS)
each_back = pytest.mark.parametrize("back", PROTOCOLS)
each_pair = pytest.mark.parametrize(("client", "back"), PAIRS)
each_crossed = pytest.mark.parametrize(("client", "back"), CROSSED)


# FE-02: OpenAI Chat Completions


@both
@each_back
def test_a_tool_call_is_a_chat_tool_call_with_text_arguments(scene: Scene, back: Protocol, stream: bool) -> None:
    scene.play(call(Called("call_1", "f", {"a": 1})))
    answer = scene.ask("openai-chat", target(back), stream, **tools_of("openai-chat", "f"))
    assert answer.status == 200
    if stream:
        chunks = [chunk for chunk in data_of(answer)[:-1] if chunk["choices"]]
        pieces = [piece for chunk in chunks for piece in chunk["choices"][0]["delta"].get("tool_calls") or ()]
        arguments = "".join(piece["function"].get("arguments") or "" for piece in pieces)
        finish = chunks[-1]["choices"][0]["finish_reason"]
        assert pieces[0]["function"]["name"] == "f"
    else:
        [choice] = answer.json["choices"]
        [made] = choice["message"]["tool_calls"]
        arguments, finish = made["function"]["arguments"], choice["finish_reason"]
    assert json.loads(arguments) == {"a": 1}
    assert finish == "tool_calls"


@each_back
def test_parallel_calls_in_a_stream_have_an_index_each_and_arguments_that_parse(scene: Scene, back: Protocol) -> None:
    scene.play(call(Called("call_1", "f", {"a": 1}), Called("call_2", "g", {"a": 2})))
    answer = scene.ask("openai-chat", target(back), True, **tools_of("openai-chat", "f", "g"))
    assert grammar.check_stream("openai-chat", answer.body, usage_asked=False) == []
    made: dict[int, dict[str, str]] = {}
    for chunk in data_of(answer)[:-1]:
        for piece in chunk["choices"][0]["delta"].get("tool_calls") or ():
            one = made.setdefault(piece["index"], {"name": "", "arguments": ""})
            one["name"] += piece["function"].get("name") or ""
            one["arguments"] += piece["function"].get("arguments") or ""
    assert [(one["name"], json.loads(one["arguments"])) for _, one in sorted(made.items())] == [
        ("f", {"a": 1}),
        ("g", {"a": 2}),
    ]


@each_back
def test_usage_comes_last_with_no_choices_when_it_was_asked_for(scene: Scene, back: Protocol) -> None:
    answer = scene.ask("openai-chat", target(back), True, stream_options={"include_usage": True})
    *_, usage, done = data_of(answer)
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"]["prompt_tokens"] == 7 and usage["usage"]["completion_tokens"] == 3


@each_back
def test_usage_that_only_the_proxy_asked_for_is_not_forwarded(scene: Scene, back: Protocol) -> None:
    answer = scene.ask("openai-chat", target(back), True)
    assert all(chunk == "[DONE]" or chunk["choices"] for chunk in data_of(answer))
    if back == "openai-chat":
        assert scene.last.json["stream_options"] == {"include_usage": True}


def test_an_unknown_field_reaches_a_back_end_of_the_same_dialect_unchanged(scene: Scene) -> None:
    odd = {"z": [1.50, {"ä": None}], "a": "x"}
    assert scene.ask("openai-chat", target("openai-chat"), future_field=odd).status == 200
    assert scene.last.json["future_field"] == odd
    assert list(scene.last.json["future_field"]) == ["z", "a"]


@pytest.mark.parametrize("back", PROTOCOLS[1:])
def test_an_unknown_field_is_left_out_elsewhere(scene: Scene, back: Protocol) -> None:
    assert scene.ask("openai-chat", target(back), future_field={"a": 1}).status == 200
    assert "future_field" not in scene.last.body.decode()


@each_back
def test_no_messages_at_all_are_refused(scene: Scene, back: Protocol) -> None:
    answer = scene.ask("openai-chat", target(back), messages=[])
    assert answer.status == 400
    assert "messages" in error_of("openai-chat", answer)["message"]
    assert scene.upstream.requests == []


@each_back
def test_content_null_beside_tool_calls_is_valid(scene: Scene, back: Protocol) -> None:
    made = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    history = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": None, "tool_calls": [made]},
        {"role": "tool", "tool_call_id": "call_1", "content": "2"},
    ]
    answer = scene.ask("openai-chat", target(back), messages=history, **tools_of("openai-chat", "f"))
    assert answer.status == 200, answer.body


@each_back
@pytest.mark.parametrize("field", ["temperature", "max_tokens", "top_p", "n"])
def test_a_number_written_as_text_is_refused_naming_the_field(scene: Scene, back: Protocol, field: str) -> None:
    answer = scene.ask("openai-chat", target(back), **{field: "1"})
    assert answer.status == 400
    assert field in error_of("openai-chat", answer)["message"]
    assert answer.json["detail"]["code"] == "invalid_request"


@both
@pytest.mark.parametrize("back", ["openai-responses", "anthropic-messages"])
def test_several_choices_are_made_by_parallel_calls_where_the_provider_knows_one(
    scene: Scene, back: Protocol, stream: bool
) -> None:
    answer = scene.ask(
        "openai-chat", target(back), stream, n=3, **({"stream_options": {"include_usage": True}} if stream else {})
    )
    assert answer.status == 200, answer.body
    assert len(scene.upstream.requests) == 3
    if stream:
        assert grammar.check_stream("openai-chat", answer.body, usage_asked=True) == []
        texts = ["", "", ""]
        for chunk in data_of(answer)[:-1]:
            for choice in chunk["choices"]:
                texts[choice["index"]] += choice["delta"].get("content") or ""
        assert texts == ["w0 w1 w2 "] * 3
        usage = data_of(answer)[-2]["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (7, 9)
    else:
        assert [choice["index"] for choice in answer.json["choices"]] == [0, 1, 2]
        assert {choice["message"]["content"] for choice in answer.json["choices"]} == {"w0 w1 w2 "}


def test_one_of_several_copies_that_fails_fails_the_request(scene: Scene) -> None:
    def script(request: Received) -> Reply:
        if len(scene.upstream.requests) == 2:
            return Reply.json({"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}, 400)
        return say(request)

    scene.play(script)
    answer = scene.ask("openai-chat", target("anthropic-messages"), n=3)
    assert answer.status == 400
    assert "no" in error_of("openai-chat", answer)["message"]
    assert scene.ask("openai-chat", target("anthropic-messages")).status == 200


def thinking(request: Received) -> Reply:
    """The provider thinks, then speaks."""
    protocol, stream = protocol_of(request), wants_stream(request)
    answer = whole(protocol, "said")
    events: list[dict[str, Any]]
    match protocol:
        case "anthropic-messages":
            answer["content"].insert(0, {"type": "thinking", "thinking": "thought", "signature": "c2ln"})
            events = [
                {"type": "message_start", "message": {**answer, "content": [], "stop_reason": None}},
                {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
                {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "thought"}},
                {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}},
                {"type": "content_block_stop", "index": 0},
                {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
                {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "said"}},
                {"type": "content_block_stop", "index": 1},
                {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 3}},
                {"type": "message_stop"},
            ]  # fmt: skip
        case "gemini":
            answer["candidates"][0]["content"]["parts"].insert(0, {"text": "thought", "thought": True})
            events = [answer]
        case _:
            answer["choices"][0]["message"]["reasoning_content"] = "thought"
            base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
            parts: list[tuple[dict[str, Any], str | None]] = [
                ({"role": "assistant", "reasoning_content": "thought"}, None), ({"content": "said"}, None), ({}, "stop"),
            ]  # fmt: skip
            events = [{**base, "choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in parts]
    if stream:
        return Reply.sse(*frames(events, done=protocol == "openai-chat"))
    return Reply.json(answer)


@both
@pytest.mark.parametrize("back", ["openai-chat", "anthropic-messages", "gemini"])
def test_reasoning_appears_as_reasoning_content(scene: Scene, back: Protocol, stream: bool) -> None:
    scene.play(thinking)
    answer = scene.ask("openai-chat", target(back), stream, reasoning_effort="low")
    if stream:
        changes = [chunk["choices"][0]["delta"] for chunk in data_of(answer)[:-1] if chunk["choices"]]
        assert "".join(delta.get("reasoning_content") or "" for delta in changes) == "thought"
        assert "".join(delta.get("content") or "" for delta in changes) == "said"
    else:
        message = answer.json["choices"][0]["message"]
        assert (message["reasoning_content"], message["content"]) == ("thought", "said")


# FE-03: OpenAI Responses


@each_back
def test_a_responses_stream_has_rising_numbers_and_ends_with_completed(scene: Scene, back: Protocol) -> None:
    answer = scene.ask("openai-responses", target(back), True)
    events = data_of(answer)
    numbers = [event["sequence_number"] for event in events]
    assert numbers == sorted(set(numbers))
    assert events[-1]["type"] == "response.completed"
    if back != "openai-responses":
        assert grammar.check_stream("openai-responses", answer.body) == []


@each_back
def test_messages_are_taken_where_responses_want_input(scene: Scene, back: Protocol) -> None:
    body = {"model": target(back), "messages": [{"role": "user", "content": "from messages"}]}
    answer = scene.post("/v1/responses", body)
    assert answer.status == 200, answer.body
    assert "from messages" in scene.last.body.decode()


def freeform(request: Received) -> Reply:
    """The provider calls the freeform tool, which it knows as a function with one text."""
    return call(Called("call_1", "apply_patch", {"input": '*** Begin\n+"x" \\n é\n*** End\n'}))(request)


@both
@pytest.mark.parametrize("back", ["openai-chat", "anthropic-messages", "gemini"])
def test_a_freeform_tool_is_a_function_for_others_and_its_text_comes_back_exactly(
    scene: Scene, back: Protocol, stream: bool
) -> None:
    scene.play(freeform)
    tool = {"type": "custom", "name": "apply_patch", "description": "edits", "format": {"type": "text"}}
    answer = scene.ask("openai-responses", target(back), stream, tools=[tool])
    wanted = '*** Begin\n+"x" \\n é\n*** End\n'
    if stream:
        assert grammar.check_stream("openai-responses", answer.body) == []
        events = data_of(answer)
        pieces = [e["delta"] for e in events if e["type"] == "response.custom_tool_call_input.delta"]
        assert "".join(pieces) == wanted
        output = events[-1]["response"]["output"]
    else:
        output = answer.json["output"]
    [made] = [item for item in output if item["type"] == "custom_tool_call"]
    assert (made["name"], made["input"]) == ("apply_patch", wanted)


@both
@pytest.mark.parametrize("client", ["openai-chat", "anthropic-messages", "gemini"])
def test_stop_sequences_are_enforced_for_a_provider_that_has_none(scene: Scene, client: Protocol, stream: bool) -> None:
    """Responses knows no stop sequences: the proxy cuts the text and, in a stream, closes the provider's answer."""

    def script(request: Received) -> Reply:
        if not wants_stream(request):
            return Reply.json(whole("openai-responses", "w0 w1 w2 "))
        return Reply.sse(*deltas("openai-responses"), Hang())

    scene.play(script)
    more: dict[str, Any] = {
        "openai-chat": {"stop": ["w1"]},
        "anthropic-messages": {"stop_sequences": ["w1"]},
        "gemini": {"generationConfig": {"stopSequences": ["w1"]}},
    }[client]
    meant = scene.meaning(client, target("openai-responses"), stream, **more)
    assert meant.error is None
    assert meant.text == "w0 "
    assert meant.stop == ("stop_sequence" if client == "anthropic-messages" else "stop")
    assert "stop" not in scene.last.json
    if stream:
        scene.last.closed.wait()


# FE-04: Anthropic Messages


@both
@each_back
def test_tool_use_blocks_are_valid_and_stop_for_tool_use(scene: Scene, back: Protocol, stream: bool) -> None:
    scene.play(call(Called("call_1", "f", {"a": 1}), Called("call_2", "g", {"a": 2})))
    more = tools_of("anthropic-messages", "f", "g")
    answer = scene.ask("anthropic-messages", target(back), stream, **more)
    if stream:
        assert grammar.check_stream("anthropic-messages", answer.body) == []
    else:
        assert grammar.check_body("anthropic-messages", answer.json) == []
    meant = scene.meaning("anthropic-messages", target(back), stream, **more)
    assert meant.tool_calls == (ToolCall("f", {"a": 1}), ToolCall("g", {"a": 2}))
    assert meant.stop == "tool_use"


def test_openrouter_models_stream_tools_to_an_anthropic_client(scene: Scene) -> None:
    scene.play(call(Called("call_1", "f", {"a": 1})))
    answer = scene.ask("anthropic-messages", "router:x/y", True, **tools_of("anthropic-messages", "f"))
    assert grammar.check_stream("anthropic-messages", answer.body) == []
    kinds = [event["type"] for event in data_of(answer)]
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop"
    [stop] = [event["delta"]["stop_reason"] for event in data_of(answer) if event["type"] == "message_delta"]
    assert stop == "tool_use"
    assert scene.last.path == "/router/v1/chat/completions"


@each_back
def test_max_tokens_missing_is_refused_in_the_messages_protocol(scene: Scene, back: Protocol) -> None:
    body = {"model": target(back), "messages": [{"role": "user", "content": "hi"}]}
    answer = scene.post("/v1/messages", body)
    assert answer.status == 400
    assert "max_tokens" in error_of("anthropic-messages", answer)["message"]


@pytest.mark.parametrize("form", ["x-api-key", "authorization"])
def test_the_client_key_is_accepted_as_x_api_key_and_as_bearer(scene: Scene, form: str) -> None:
    key = scene.proxy.key
    headers = {"x-api-key": key} if form == "x-api-key" else {"Authorization": f"Bearer {key}"}
    answer = scene.proxy.post(
        "/anthropic/v1/messages",
        {"model": target("openai-chat"), "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]},
        headers,
        key=None,
    )
    assert answer.status == 200
    assert key not in str(scene.last.headers)


PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}


def with_result(content: Any) -> dict[str, Any]:
    """A Messages history that ends with a tool result."""
    return {
        "messages": [
            {"role": "user", "content": "look"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": content}]},
        ],
        **tools_of("anthropic-messages", "f"),
    }


def test_an_image_in_a_tool_result_reaches_chat_as_a_following_user_message(scene: Scene) -> None:
    answer = scene.ask(
        "anthropic-messages", target("openai-chat"), **with_result([{"type": "text", "text": "see"}, PICTURE])
    )
    assert answer.status == 200, answer.body
    *_, tool, user = scene.last.json["messages"]
    assert tool["role"] == "tool" and tool["tool_call_id"]
    assert user["role"] == "user"
    [image] = [part for part in user["content"] if part["type"] == "image_url"]
    assert image["image_url"]["url"] == f"data:image/png;base64,{PNG}"


@pytest.mark.parametrize("back", ["openai-responses", "gemini"])
def test_an_image_in_a_tool_result_reaches_the_others_too(scene: Scene, back: Protocol) -> None:
    answer = scene.ask("anthropic-messages", target(back), **with_result([PICTURE]))
    assert answer.status == 200, answer.body
    assert PNG in scene.last.body.decode()


@pytest.mark.parametrize("back", ["openai-chat", "openai-responses", "gemini"])
def test_a_server_tool_is_refused_naming_its_type_where_the_target_lacks_it(scene: Scene, back: Protocol) -> None:
    answer = scene.ask("anthropic-messages", target(back), tools=[{"type": "advisor_20260301", "name": "advisor"}])
    assert answer.status == 400, answer.body
    assert "advisor_20260301" in error_of("anthropic-messages", answer)["message"]
    assert scene.upstream.requests == []


def test_a_server_tool_and_its_beta_reach_an_anthropic_back_end_as_they_are(scene: Scene) -> None:
    tools = [{"type": "bash_20250124", "name": "bash"}]
    headers = {"anthropic-beta": "context-1m-2025-08-07,other", "anthropic-version": "2023-01-01"}
    assert scene.ask("anthropic-messages", "claude:x", tools=tools, headers=headers).status == 200
    assert scene.last.json["tools"] == tools
    assert scene.last.header("anthropic-beta") == headers["anthropic-beta"]
    assert scene.last.header("anthropic-version") == "2023-01-01"


def test_anthropic_headers_stay_away_from_other_dialects(scene: Scene) -> None:
    headers = {"anthropic-beta": "context-1m-2025-08-07", "anthropic-version": "2023-06-01"}
    assert scene.ask("anthropic-messages", target("openai-chat"), headers=headers).status == 200
    assert scene.last.header("anthropic-beta") is None
    assert scene.last.header("anthropic-version") is None


def test_info_names_service_version_endpoints_and_back_ends(scene: Scene) -> None:
    found = scene.proxy.get("/anthropic/info").json
    assert found["service"] and found["version"]
    assert "/v1/messages" in found["endpoints"]
    assert {"up-chat", "up-anthropic", "demo"} <= set(found["backends"])


# FE-05: Gemini


def test_the_model_of_a_gemini_path_may_hold_a_back_end_and_slashes(scene: Scene) -> None:
    body = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    for path, model in (
        ("/v1beta/models/up-chat%3Agpt-4o:generateContent", "gpt-4o"),
        ("/v1beta/models/up-chat:gpt-4o:generateContent", "gpt-4o"),
        ("/v1beta/models/models/up-chat:gpt-4o:generateContent", "gpt-4o"),
        ("/v1beta/models/router:qwen/qwen3-coder:generateContent", "qwen/qwen3-coder"),
        ("/v1beta/models/router%3Aqwen%2Fqwen3-coder:generateContent", "qwen/qwen3-coder"),
    ):
        assert scene.post(path, body).status == 200, path
        assert scene.last.json["model"] == model


@pytest.mark.parametrize("back", PROTOCOLS)
def test_without_alt_the_stream_is_one_valid_json_array(scene: Scene, back: Protocol) -> None:
    path = f"/v1beta/models/{target(back)}:streamGenerateContent"
    answer = scene.post(path, {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]})
    assert answer.headers["content-type"].startswith("application/json")
    parts = [part for chunk in answer.json for part in chunk["candidates"][0]["content"]["parts"]]
    assert "".join(part["text"] for part in parts) == "w0 w1 w2 "


def test_a_key_in_the_query_is_accepted_and_goes_nowhere(scene: Scene) -> None:
    body = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    path = f"/v1beta/models/{target('gemini')}:generateContent?key={scene.proxy.key}"
    assert scene.proxy.post(path, body, key=None).status == 200
    assert scene.proxy.key not in scene.last.target + str(scene.last.headers)


def test_function_responses_become_matching_tool_messages(scene: Scene) -> None:
    contents = [
        {"role": "user", "parts": [{"text": "go"}]},
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"a": n}}} for n in (1, 2)]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"r": n}}} for n in (1, 2)]},
    ]
    answer = scene.ask("gemini", target("openai-chat"), contents=contents, **tools_of("gemini", "f"))
    assert answer.status == 200, answer.body
    _, assistant, first, second = scene.last.json["messages"]
    ids = [made["id"] for made in assistant["tool_calls"]]
    assert len(set(ids)) == 2
    assert [first["role"], second["role"]] == ["tool", "tool"]
    assert [first["tool_call_id"], second["tool_call_id"]] == ids
    assert "1" in first["content"] and "2" in second["content"]


# FE-10: streaming


@each_pair
def test_a_stream_has_the_headers_of_one_and_a_valid_order(scene: Scene, client: Protocol, back: Protocol) -> None:
    answer = scene.ask(client, target(back), True)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in answer.headers
    if client != back:
        assert grammar.check_stream(client, answer.body, usage_asked=False) == []


@each_pair
def test_without_stream_the_answer_is_one_json_body(scene: Scene, client: Protocol, back: Protocol) -> None:
    answer = scene.ask(client, target(back))
    assert answer.headers["content-type"] == "application/json"
    if client != back:
        assert grammar.check_body(client, answer.json) == []


@each_pair
def test_events_are_the_same_however_the_providers_stream_is_cut(
    scene: Scene, client: Protocol, back: Protocol
) -> None:
    stream = b"".join(deltas(back) + ending(back))

    def asked(size: int, eol: bytes) -> list[Any]:
        text = stream.replace(b"\r\n", b"\n").replace(b"\n", eol)
        scene.play(Reply.sse(*(Send(text[at : at + size]) for at in range(0, len(text), size))))
        meant = scene.meaning(client, target(back), True)
        assert meant.error is None
        return [meant.text, meant.stop, meant.usage, meant.tool_calls]

    expected = asked(10**6, b"\n")
    assert expected[0] == "w0 w1 w2 "
    assert asked(1, b"\n") == expected
    assert asked(7, b"\r\n") == expected
    assert asked(10**6, b"\r\n") == expected
    if client != back:
        assert asked(13, b"\r") == expected


@each_pair
def test_a_provider_that_answers_a_stream_request_with_json_is_streamed(
    scene: Scene, client: Protocol, back: Protocol
) -> None:
    scene.play(Reply.json(whole(back, "at once")))
    answer = scene.ask(client, target(back), True)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert grammar.check_stream(client, answer.body, usage_asked=False) == []
    assert scene.meaning(client, target(back), True).text == "at once"


@each_pair
def test_a_client_that_does_not_stream_gets_the_folded_stream_of_a_provider_that_only_streams(
    scene: Scene, client: Protocol, back: Protocol
) -> None:
    scene.play(Reply.sse(*deltas(back), *ending(back)))
    answer = scene.ask(client, target(back))
    assert answer.headers["content-type"] == "application/json"
    assert grammar.check_body(client, answer.json) == []
    assert scene.meaning(client, target(back)).text == "w0 w1 w2 "


@pytest.mark.parametrize("end", [Reset(), Close()], ids=["reset", "closed"])
@each_pair
def test_a_stream_that_breaks_after_three_deltas_ends_with_an_error(
    scene: Scene, client: Protocol, back: Protocol, end: Any
) -> None:
    scene.play(Reply.sse(*deltas(back), end))
    answer = scene.ask(client, target(back), True)
    assert answer.status == 200
    body = answer.body.decode()
    assert "w2 " in body
    ends = {
        "openai-chat": ("[DONE]", '"finish_reason":"stop"'),
        "openai-responses": ("response.completed",),
        "anthropic-messages": ("message_stop", "end_turn"),
        "gemini": ('"finishReason":"STOP"',),
    }
    assert not any(mark in body.replace(" ", "") for mark in ends[client])
    meant = scene.meaning(client, target(back), True)
    assert meant.stop == "error" and meant.error is not None and meant.error.message
    assert meant.text == "w0 w1 w2 "


@each_pair
def test_an_error_before_the_first_content_is_an_ordinary_error_answer(
    scene: Scene, client: Protocol, back: Protocol
) -> None:
    frame = {
        "openai-chat": b'data: {"error":{"message":"too busy","type":"server_error","code":null}}\n\n',
        "openai-responses": b'event: error\ndata: {"type":"error","sequence_number":0,"code":"server_error","message":"too busy","param":null}\n\n',
        "anthropic-messages": b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"too busy"}}\n\n',
        "gemini": b'data: {"error":{"code":503,"message":"too busy","status":"UNAVAILABLE"}}\r\n\r\n',
    }[back]
    scene.play(Reply.sse(frame))
    answer = scene.ask(client, target(back), True)
    assert answer.status in (502, 503, 529), answer.body
    assert answer.headers["content-type"] == "application/json"
    assert "too busy" in error_of(client, answer)["message"]


# FE-11: errors


@each_client
def test_invalid_json_is_400_in_the_clients_shape_with_the_position(scene: Scene, client: Protocol) -> None:
    answer = scene.post(path_of(client, target(client)), b'{"model": "x",\n oops}')
    assert answer.status == 400
    error = error_of(client, answer)
    assert answer.json["detail"]["code"] == "invalid_request"
    assert "line 2" in error["message"] or "byte" in error["message"] or "position" in error["message"]
    assert scene.upstream.requests == []


WRONG = {
    "openai-chat": ("messages", {"messages": "x"}),
    "openai-responses": ("input", {"input": 5}),
    "anthropic-messages": ("messages", {"messages": "x"}),
    "gemini": ("contents", {"contents": 5}),
}


@each_pair
def test_a_member_of_a_wrong_type_is_named(scene: Scene, client: Protocol, back: Protocol) -> None:
    name, more = WRONG[client]
    answer = scene.ask(client, target(back), **more)
    if client == back and client in ("openai-responses", "gemini"):
        # On a route of one protocol the body goes on undecoded; here the provider judges it.
        return
    assert answer.status == 400, answer.body
    assert name in error_of(client, answer)["message"]
    assert answer.json["detail"]["code"] == "invalid_request"


ERRORS: dict[Protocol, dict[str, Any]] = {
    "openai-chat": {"error": {"message": "slow down", "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"}},
    "openai-responses": {"error": {"message": "slow down", "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"}},
    "anthropic-messages": {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}, "request_id": "r"},
    "gemini": {"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}},
}  # fmt: skip


@both
@each_pair
def test_a_limit_of_the_provider_keeps_status_wait_and_message(
    scene: Scene, client: Protocol, back: Protocol, stream: bool
) -> None:
    scene.play(Reply.json(ERRORS[back], 429, (("retry-after", "9"),)))
    answer = scene.ask(client, target(back, f"limited-{client}-{stream}"), stream)
    assert answer.status == 429
    assert 0 < int(answer.headers["retry-after"]) <= 9
    error = error_of(client, answer) if client != back else answer.json["error"]
    assert "slow down" in error["message"]
    kind = {"gemini": error.get("status")}.get(client, error.get("type"))
    assert kind == {"gemini": "RESOURCE_EXHAUSTED"}.get(client, "rate_limit_error")


@each_pair
def test_a_refusal_of_the_provider_keeps_status_and_message(scene: Scene, client: Protocol, back: Protocol) -> None:
    errors = {
        "openai-chat": {"error": {"message": "bad thing", "type": "invalid_request_error", "param": "x", "code": None}},
        "openai-responses": {"error": {"message": "bad thing", "type": "invalid_request_error", "param": "x", "code": None}},
        "anthropic-messages": {"type": "error", "error": {"type": "invalid_request_error", "message": "bad thing"}},
        "gemini": {"error": {"code": 400, "message": "bad thing", "status": "INVALID_ARGUMENT"}},
    }  # fmt: skip
    scene.play(Reply.json(errors[back], 400))
    answer = scene.ask(client, target(back))
    assert answer.status == 400
    assert "bad thing" in answer.json["error"]["message"]
    if client != back:
        error_of(client, answer)
        assert answer.json["detail"]["code"] == "invalid_request"


@each_client
def test_the_providers_key_is_not_in_the_clients_error(scene: Scene, client: Protocol) -> None:
    scene.play(Reply.json({"error": {"message": "bad key provider-key-a given", "type": "x"}}, 400))
    answer = scene.ask(client, "first:m")
    assert answer.status == 400
    assert b"provider-key-a" not in answer.body


@each_client
def test_the_proxys_own_key_refused_is_not_the_clients_fault(scene: Scene, client: Protocol) -> None:
    scene.play(Reply.json({"error": {"message": "Incorrect API key", "type": "x", "code": "invalid_api_key"}}, 401))
    answer = scene.ask(client, "refused:m")
    assert answer.status == 502
    assert answer.json["detail"]["code"] == "refused_credentials_invalid"
    error_of(client, answer)


@each_client
def test_a_choice_of_an_undeclared_tool_is_422_naming_it(scene: Scene, client: Protocol) -> None:
    more: dict[str, Any] = {
        "openai-chat": {"tool_choice": {"type": "function", "function": {"name": "nobody"}}},
        "openai-responses": {"tool_choice": {"type": "function", "name": "nobody"}},
        "anthropic-messages": {"tool_choice": {"type": "tool", "name": "nobody"}},
        "gemini": {"toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["nobody"]}}},
    }[client]
    back = next(other for other in PROTOCOLS if other != client)
    answer = scene.ask(client, target(back), **tools_of(client, "f"), **more)
    assert answer.status == 422, answer.body
    assert "nobody" in error_of(client, answer)["message"]
    assert answer.json["detail"]["code"] == "validation_error"


@each_client
def test_an_unusable_back_end_is_503_and_an_unknown_one_says_so(scene: Scene, client: Protocol) -> None:
    answer = scene.ask(client, "openai:gpt-5")
    assert answer.status == 503
    assert answer.json["detail"]["code"] == "backend_unavailable"
    assert "OPENAI_API_KEY" in error_of(client, answer)["message"]


# FE-12: hygiene


@each_client
def test_cookies_credentials_and_proxy_headers_stay_here(scene: Scene, client: Protocol) -> None:
    headers = {
        "Cookie": "session=secret", "X-Session-Id": "my-session", "X-LLM-Proxy-Upstream-Key": "k", "X-Forwarded-For": "10.0.0.1",
        "Forwarded": "for=10.0.0.1", "Via": "1.1 x", "Proxy-Authorization": "Basic eA==", "TE": "trailers",
    }  # fmt: skip
    answer = scene.ask(client, target(client), headers=headers)
    assert answer.status == 200
    sent = {name.lower() for name, _ in scene.last.headers}
    assert not sent & {name.lower() for name in headers}
    assert "authorization" not in sent
    assert scene.proxy.key not in str(scene.last.headers)
    assert answer.headers["x-session-id"] == "my-session"


@both
@each_client
def test_the_request_id_of_the_client_comes_back(scene: Scene, client: Protocol, stream: bool) -> None:
    answer = scene.ask(client, target(client), stream, headers={"X-Request-Id": "abc"})
    assert answer.headers["x-request-id"] == "abc"
    assert answer.headers["x-llm-proxy-backend"] == target(client).split(":")[0]
    assert answer.headers["x-llm-proxy-model"] == "m"
    assert "x-llm-proxy-attempts" not in answer.headers
    fresh = scene.ask(client, target(client), stream, headers={"X-Request-Id": "a b\tc"})
    assert fresh.headers["x-request-id"] not in ("abc", "a b\tc", "")


@each_client
def test_rate_limit_headers_of_the_provider_come_back(scene: Scene, client: Protocol) -> None:
    back = "openai-chat"
    scene.play(Reply.json(whole(back), headers=(("x-ratelimit-remaining-requests", "5"), ("set-cookie", "a=b"))))
    answer = scene.ask(client, target(back))
    assert answer.headers["x-ratelimit-remaining-requests"] == "5"
    assert "set-cookie" not in answer.headers


@each_client
def test_deep_nesting_is_400(scene: Scene, client: Protocol) -> None:
    body = b'{"model":"up-chat:m","max_tokens":1,"messages":[],"x":' + b"[" * 1000 + b"]" * 1000 + b"}"
    answer = scene.post(path_of(client, target("openai-chat")), body)
    assert answer.status == 400
    assert answer.json["detail"]["code"] == "invalid_request"


@pytest.mark.parametrize("client", PROTOCOLS[:3])
def test_of_equal_keys_the_last_counts_and_only_it_is_sent_on(scene: Scene, client: Protocol) -> None:
    rest = json.dumps(body_of(client, target(client, "two")))[1:]
    body = b'{"model":"up-gemini:one","odd":"x","odd":"y",' + rest.encode()
    assert scene.post(path_of(client, "m"), body).status == 200
    assert protocol_of(scene.last) == client
    assert scene.last.body.count(b'"model"') == 1 and scene.last.body.count(b'"odd"') == 1
    assert scene.last.json["model"] == "two" and scene.last.json["odd"] == "y"


@each_client
def test_a_body_that_is_no_object_or_no_utf8_is_400(scene: Scene, client: Protocol) -> None:
    for body in (b"[1]", b'"x"', b"", b'{"model":"\xff\xfe"}'):
        assert scene.post(path_of(client, target(client)), body).status == 400, body
    assert scene.upstream.requests == []


# FE-13: fidelity


def test_two_system_messages_reach_an_anthropic_target_in_order(scene: Scene) -> None:
    messages = [
        {"role": "system", "content": "first rule"},
        {"role": "system", "content": "second rule"},
        {"role": "user", "content": "hi"},
    ]
    assert scene.ask("openai-chat", target("anthropic-messages", "claude-sonnet-4-5"), messages=messages).status == 200
    system = scene.last.json["system"]
    text = system if isinstance(system, str) else "\n".join(block["text"] for block in system)
    assert 0 <= text.index("first rule") < text.index("second rule")


@each_crossed
def test_every_system_text_arrives_in_order(scene: Scene, client: Protocol, back: Protocol) -> None:
    more: dict[str, Any] = {
        "openai-chat": {
            "messages": [
                {"role": "system", "content": "rule one"},
                {"role": "developer", "content": "rule two"},
                {"role": "user", "content": "hi"},
            ]
        },
        "openai-responses": {
            "instructions": "rule one",
            "input": [{"role": "developer", "content": "rule two"}, {"role": "user", "content": "hi"}],
        },
        "anthropic-messages": {"system": [{"type": "text", "text": "rule one"}, {"type": "text", "text": "rule two"}]},
        "gemini": {"systemInstruction": {"parts": [{"text": "rule one"}, {"text": "rule two"}]}},
    }[client]
    assert scene.ask(client, target(back), **more).status == 200
    sent = scene.last.body.decode()
    assert 0 <= sent.index("rule one") < sent.index("rule two")


def test_a_gemini_target_gets_a_schema_that_it_accepts(scene: Scene) -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "additionalProperties": False,
        "propertyNames": {"pattern": "^[a-z]+$"}, "properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "integer"}},
    }  # fmt: skip
    answer = scene.ask(
        "openai-chat", target("gemini", "gemini-2.5-flash"), **tools_of("openai-chat", "f", schema=schema)
    )
    assert answer.status == 200, answer.body
    [declared] = scene.last.json["tools"][0]["functionDeclarations"]
    if "parameters" in declared:
        text = json.dumps(declared["parameters"])
        assert not any(word in text for word in ("$schema", "propertyNames", "additionalProperties", "$ref"))
    else:
        assert set(declared["parametersJsonSchema"]["properties"]) == {"a"}


LONG = "look_up_" + "x" * 82


@both
@each_crossed
def test_a_name_too_long_for_the_target_is_mapped_and_mapped_back(
    scene: Scene, client: Protocol, back: Protocol, stream: bool
) -> None:
    def script(request: Received) -> Reply:
        body = request.json
        match protocol_of(request):
            case "openai-chat":
                name = body["tools"][0]["function"]["name"]
            case "gemini":
                name = body["tools"][0]["functionDeclarations"][0]["name"]
            case _:
                name = body["tools"][0]["name"]
        return call(Called("call_1", name, {"a": 1}))(request)

    scene.play(script)
    model = {"anthropic-messages": "claude-3-5-haiku", "gemini": "gemini-2.0-flash"}.get(back, "gpt-4o")
    meant = scene.meaning(client, target(back, model), stream, **tools_of(client, LONG))
    assert meant.error is None, meant.error
    assert meant.tool_calls == (ToolCall(LONG, {"a": 1}),)
    assert LONG not in scene.last.body.decode()


def test_cache_marks_reach_an_anthropic_target_unchanged(scene: Scene) -> None:
    mark = {"type": "ephemeral", "ttl": "1h"}
    content = [{"type": "text", "text": "a", "cache_control": mark}]
    more = {"messages": [{"role": "user", "content": content}], "system": content}
    assert scene.ask("anthropic-messages", "claude:claude-sonnet-4-5", **more).status == 200
    assert scene.last.json["messages"][0]["content"] == content
    assert scene.last.json["system"] == content


def test_parallel_calls_switched_off_hold_at_a_target_without_the_switch(scene: Scene) -> None:
    scene.play(call(Called("call_1", "f", {"a": 1}), Called("call_2", "f", {"a": 2})))
    more = {**tools_of("openai-chat", "f"), "parallel_tool_calls": False}
    for stream in (False, True):
        meant = scene.meaning("openai-chat", target("gemini", "gemini-2.5-flash"), stream, **more)
        assert meant.tool_calls == (ToolCall("f", {"a": 1}),)
        assert meant.stop == "tool_use"


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


@both
@pytest.mark.parametrize("client", ["openai-chat", "openai-responses", "gemini"])
def test_a_schema_at_a_model_without_structured_output_is_a_forced_tool_and_plain_text_for_the_client(
    scene: Scene, client: Protocol, stream: bool
) -> None:
    def script(request: Received) -> Reply:
        body = request.json
        assert body["tool_choice"]["name"] == body["tools"][-1]["name"]
        return call(Called("toolu_1", body["tools"][-1]["name"], {"city": "Kyiv"}))(request)

    scene.play(script)
    named = {"name": "place", "schema": SCHEMA, "strict": True}
    more: dict[str, Any] = {
        "openai-chat": {"response_format": {"type": "json_schema", "json_schema": named}},
        "openai-responses": {"text": {"format": {"type": "json_schema", **named}}},
        "gemini": {"generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}},
    }[client]
    meant = scene.meaning(client, target("anthropic-messages", "claude-3-5-haiku"), stream, **more)
    assert meant.error is None, meant.error
    assert json.loads(meant.text) == {"city": "Kyiv"}
    assert meant.tool_calls == ()
    assert meant.stop == "stop"


AUDIO = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}


@both
@pytest.mark.parametrize("back", ["anthropic-messages", "openai-responses"])
def test_media_that_a_target_cannot_take_is_400_naming_it(scene: Scene, back: Protocol, stream: bool) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "listen"}, AUDIO]}]
    answer = scene.ask("openai-chat", target(back), stream, messages=messages)
    assert answer.status == 400, answer.body
    assert "audio" in error_of("openai-chat", answer)["message"]
    assert scene.upstream.requests == []


@both
def test_losses_are_listed_in_a_header(scene: Scene, stream: bool) -> None:
    answer = scene.ask(
        "openai-chat",
        target("anthropic-messages", "claude-sonnet-4-5"),
        stream,
        frequency_penalty=0.5,
        logit_bias={"1": 1},
        seed=4,
    )
    assert answer.status == 200
    for name in ("frequency_penalty", "logit_bias", "seed"):
        assert name in answer.headers["x-llm-proxy-warnings"]
        assert name not in scene.last.json
    assert "x-llm-proxy-warnings" not in scene.ask("openai-chat", target("anthropic-messages"), stream).headers


FILE = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0x"}}
IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}


@each_back
def test_images_and_documents_reach_every_target(scene: Scene, back: Protocol) -> None:
    content = [{"type": "text", "text": "look"}, IMAGE, FILE]
    answer = scene.ask("openai-chat", target(back), messages=[{"role": "user", "content": content}])
    assert answer.status == 200, answer.body
    sent = scene.last.body.decode()
    assert PNG in sent and "JVBERi0x" in sent and "look" in sent
    assert "x-llm-proxy-warnings" not in answer.headers


@both
def test_an_image_by_address_is_400_for_a_target_that_fetches_none(scene: Scene, stream: bool) -> None:
    content = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
    answer = scene.ask(
        "openai-chat", target("gemini", "gemini-2.5-flash"), stream, messages=[{"role": "user", "content": content}]
    )
    assert answer.status == 400
    assert "image" in error_of("openai-chat", answer)["message"]
    assert scene.upstream.requests == []


@each_crossed
def test_a_tool_result_without_its_call_is_422_or_kept_as_text_with_a_warning(
    scene: Scene, client: Protocol, back: Protocol
) -> None:
    more: dict[str, Any] = {
        "openai-chat": {"messages": [{"role": "user", "content": "x"}, {"role": "tool", "tool_call_id": "t1", "content": "the result"}]},
        "openai-responses": {"input": [{"type": "function_call_output", "call_id": "t1", "output": "the result"}]},
        "anthropic-messages": {
            "messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "the result"}]}]
        },
        "gemini": {"contents": [{"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"r": "the result"}}}]}]},
    }[client]  # fmt: skip
    answer = scene.ask(client, target(back), **more)
    if answer.status == 422:
        assert answer.json["detail"]["code"] == "validation_error"
        error_of(client, answer)
    else:
        assert answer.status == 200
        assert "the result" in scene.last.body.decode()
        assert "result" in answer.headers["x-llm-proxy-warnings"]
