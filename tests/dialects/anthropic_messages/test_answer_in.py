"""Providers' answers, whole and streamed, with their quirks, as canonical answers and events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.conversation.answer import Answer
from llm_proxy.conversation.events import End, Event, Failed, Finish, Heartbeat, Note, Start
from llm_proxy.conversation.fault import FaultError
from llm_proxy.conversation.fold import check_grammar, fold
from llm_proxy.conversation.parts import Opaque, Seal, Text, Thinking, ToolCall, text_of
from llm_proxy.dialects.anthropic_messages import DIALECT
from llm_proxy.wire.sse import Frame
from tests.dialects.anthropic_messages.support import (
    MAKER,
    NAME,
    READ,
    START,
    STOP,
    block,
    ended,
    events_of,
    sse,
)
from tests.support.shared import Exchange, generating_exchanges, semantics

EXCHANGES = [exchange for exchange in generating_exchanges() if exchange.protocol == NAME]
ANSWERS = [exchange for exchange in EXCHANGES if exchange.response.status == 200]
STREAMS = [exchange for exchange in ANSWERS if exchange.response.sse is not None]
_STOPS = {
    "end": "stop", "length": "length", "context_full": "length", "stop_sequence": "stop_sequence",
    "tool_use": "tool_use", "content_filter": "content_filter", "pause": "pause",
}  # fmt: skip


def answer_of(exchange: Exchange) -> Answer:
    if exchange.response.sse is None:
        return DIALECT.read_answer(exchange.response.payload, READ)
    return fold(events_of(exchange.response.payload))


def meaning(answer: Answer) -> dict[str, Any]:
    """What `semantics.jsonl` says of an answer, as far as it is about content."""
    choice, usage = answer.choices[0], answer.usage
    parts = choice.parts
    return {
        "text": text_of(parts),
        "thinking": "".join(part.text for part in parts if isinstance(part, Thinking)),
        "tool_calls": [
            {"name": part.name, "args": json.loads(part.arguments or "{}")}
            for part in parts
            if isinstance(part, ToolCall)
        ],
        "stop": _STOPS.get(choice.stop.kind),
        "citations": sum(len(part.citations) for part in parts if isinstance(part, Text)),
        "server_tools": [part.server_tool for part in parts if isinstance(part, Opaque) and part.server_tool],
        "signed_thinking": sum(isinstance(part, Thinking) and part.seal is not None for part in parts),
        "usage": {
            name: None if usage is None else getattr(usage, name)
            for name in ("input", "output", "cache_read", "cache_write", "reasoning")
        },
    }


@pytest.mark.parametrize("exchange", ANSWERS, ids=str)
def test_recorded_answers_mean_what_the_official_sdk_read(exchange: Exchange) -> None:
    expected = semantics()[exchange.file]["semantic"]
    if expected["error"] is not None:
        with pytest.raises(FaultError):
            answer_of(exchange)
        return
    got = meaning(answer_of(exchange))
    assert got == {name: expected[name] for name in got}


@pytest.mark.parametrize("exchange", STREAMS, ids=str)
def test_recorded_streams_obey_the_grammar_and_do_not_depend_on_how_they_are_cut(exchange: Exchange) -> None:
    raw = exchange.response.payload
    events = events_of(raw)
    assert check_grammar(events) == []
    third = len(raw) // 3
    assert events_of(raw, (third, 2 * third)) == events
    assert events_of(raw, range(0, len(raw), 97)) == events
    assert events_of(raw.replace(b"\n", b"\r\n")) == events


@pytest.mark.parametrize("exchange", [e for e in EXCHANGES if e.response.status >= 400], ids=str)
def test_recorded_errors_keep_their_status_and_message(exchange: Exchange) -> None:
    fault = DIALECT.read_error(exchange.response.status, (), exchange.response.payload)
    expected = semantics()[exchange.file]["semantic"]["error"]
    assert fault.message in expected["message"]
    assert fault.status_code == (502 if exchange.response.status in (401, 403) else exchange.response.status)


# ---- whole answers


def whole(**fields: Any) -> bytes:
    body = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": []}
    usage = {"input_tokens": 20, "cache_read_input_tokens": 80, "output_tokens": 9}
    return json.dumps({**body, "stop_reason": "end_turn", "stop_sequence": None, "usage": usage, **fields}).encode()


def test_arguments_keep_the_spelling_of_their_numbers() -> None:
    call_text = b'{"type":"tool_use","id":"t","name":"f","input":{"n":12345678901234567890123,"x":1.50,"y":1E2}}'
    body = whole(stop_reason="tool_use").replace(b'"content": []', b'"content": [' + call_text + b"]")
    answer = DIALECT.read_answer(body, READ)
    call = answer.choices[0].parts[0]
    assert isinstance(call, ToolCall)
    assert call.arguments == '{"n":12345678901234567890123,"x":1.50,"y":1E2}'
    assert answer.choices[0].stop.kind == "tool_use"


def test_the_prompt_is_the_sum_of_its_three_figures() -> None:
    usage = DIALECT.read_answer(whole(), READ).usage
    assert usage is not None
    assert (usage.input, usage.cache_read, usage.input_uncached, usage.output) == (100, 80, 20, 9)
    assert DIALECT.read_usage(whole()) == usage
    assert DIALECT.read_usage(b"nonsense") is None


def test_a_refusal_keeps_its_details() -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": "blocked"}
    stop = DIALECT.read_answer(whole(stop_reason="refusal", stop_details=details), READ).choices[0].stop
    assert (stop.kind, stop.category, stop.detail) == ("content_filter", "cyber", "blocked")


@pytest.mark.parametrize(
    ("reason", "called", "kind"),
    [
        ("tool_use", False, "end"),
        ("end_turn", True, "tool_use"),
        ("max_tokens", True, "length"),
        ("refusal", True, "content_filter"),
        ("pause_turn", False, "pause"),
        ("model_context_window_exceeded", False, "context_full"),
        ("news_of_2027", False, "unknown"),
    ],
)
def test_a_seen_call_decides_about_tool_use(reason: str, called: bool, kind: str) -> None:
    content = [{"type": "tool_use", "id": "t", "name": "f", "input": {}}] if called else []
    assert DIALECT.read_answer(whole(stop_reason=reason, content=content), READ).choices[0].stop.kind == kind


@pytest.mark.parametrize(
    "body",
    [
        b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
        b'{"success":false,"code":1113,"msg":"x"}',
        b'{"error":{"message":"m","code":502}}',
        b'{"error":"m"}',
        b"<html><title>Bad Gateway</title></html>",
        b"[]",
        b"",
        b"{}",
        b'{"content": "x"}',
        b"\xff\xfe",
        b"{" * 3000,
    ],
)
def test_what_is_no_answer_is_a_fault(body: bytes) -> None:
    with pytest.raises(FaultError):
        DIALECT.read_answer(body, READ)


def test_odd_blocks_do_not_break_an_answer() -> None:
    content: list[Any] = ["plain", 3, {"type": None}, {"type": "tool_use", "name": "f", "input": '{"a":1}'}]
    parts = DIALECT.read_answer(whole(content=content), READ).choices[0].parts
    assert parts[0] == Text("plain")
    call = parts[-1]
    assert isinstance(call, ToolCall) and call.arguments == '{"a":1}' and call.id and not call.native_id


# ---- streams


def text_stream(*deltas: str) -> list[dict[str, Any]]:
    return block(0, {"type": "text", "text": ""}, *({"type": "text_delta", "text": text} for text in deltas))


def test_a_stream_without_event_lines_is_read_by_its_data() -> None:
    stream = [START, *text_stream("a", "b"), ended("end_turn"), STOP]
    assert events_of(sse(stream, named=False)) == events_of(sse(stream))


def test_a_second_message_start_is_merged() -> None:
    events = events_of(sse([START, START, *text_stream("a"), ended("end_turn"), STOP]))
    assert sum(isinstance(event, Start) for event in events) == 1
    assert check_grammar(events) == []


def test_a_second_stop_reason_gives_one_finish() -> None:
    events = events_of(sse([START, *text_stream("a"), ended("end_turn"), ended("end_turn", 12), STOP]))
    assert sum(isinstance(event, Finish) for event in events) == 1
    usage = fold(events).usage
    assert usage is not None and usage.output == 12


def test_usage_is_cumulative_and_null_says_nothing() -> None:
    later = ended("end_turn", 20)
    later["usage"] = {"input_tokens": None, "cache_read_input_tokens": 90, "output_tokens": 20}
    usage = fold(events_of(sse([START, later, STOP]))).usage
    assert usage is not None
    assert (usage.input, usage.cache_read, usage.output) == (110, 90, 20)


def test_the_end_needs_message_stop() -> None:
    for stream in ([START], [START, *text_stream("a")], [START, *text_stream("a"), ended("end_turn")]):
        last = events_of(sse(stream))[-1]
        assert isinstance(last, Failed) and last.fault.kind == "closed"


def test_an_error_event_is_a_failure_and_nothing_follows_it() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    events = events_of(sse([START, *text_stream("Par")[:-1], error, STOP]))
    last = events[-1]
    assert isinstance(last, Failed)
    assert (last.fault.kind, last.fault.message) == ("overloaded", "Overloaded")
    assert check_grammar(events) == []
    assert isinstance(events_of(b'data: {"error":{"message":"m"}}\n\n')[-1], Failed)


def test_broken_frames_are_skipped_three_times() -> None:
    good = sse([START, *text_stream("a"), ended("end_turn"), STOP])
    assert isinstance(events_of(b"data: {oops\n\n" * 3 + good)[-1], End)
    last = events_of(b"data: {oops\n\n" * 4 + good)[-1]
    assert isinstance(last, Failed) and last.fault.kind == "upstream"


def test_a_done_mark_behind_the_end_or_before_it_is_ignored() -> None:
    good = sse([START, *text_stream("a"), ended("end_turn")])
    assert isinstance(events_of(good + b"data: [DONE]\n\n" + sse([STOP]) + b"data: [DONE]\n\n")[-1], End)


def test_a_look_alike_that_forgets_starts_and_stops() -> None:
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "t"}}
    text = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}}
    events = events_of(sse([delta, text, STOP]))
    assert check_grammar(events) == []
    assert fold(events).choices[0].parts == (Thinking("t", summary=True), Text("x"))


def test_thinking_with_its_signature_and_redacted_thinking() -> None:
    thinking = block(
        0,
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "t"},
        {"type": "signature_delta", "signature": "S"},
    )
    redacted = block(1, {"type": "redacted_thinking", "data": "R"})
    parts = fold(events_of(sse([START, *thinking, *redacted, ended("end_turn"), STOP]))).choices[0].parts
    assert parts == (
        Thinking("t", summary=True, seal=Seal(NAME, "signature", "S", MAKER)),
        Thinking(summary=True, seal=Seal(NAME, "redacted", "R", MAKER)),
    )


def call_stream(start: dict[str, Any], *pieces: str) -> list[dict[str, Any]]:
    content = {"type": "tool_use", "id": "t1", "name": "f", **start}
    return block(0, content, *({"type": "input_json_delta", "partial_json": piece} for piece in pieces))


@pytest.mark.parametrize(
    ("start", "pieces", "arguments"),
    [
        ({"input": {}}, ("", '{"a":', "1.50}"), '{"a":1.50}'),
        ({"input": {}}, (), ""),
        ({"input": {"a": 1}}, (), '{"a":1}'),
        ({"input": {"a": 1}}, ('{"a":2}',), '{"a":2}'),
        ({"input": '{"a":1}'}, (), '{"a":1}'),
    ],
)
def test_arguments_of_a_streamed_call(start: dict[str, Any], pieces: tuple[str, ...], arguments: str) -> None:
    events = events_of(sse([START, *call_stream(start, *pieces), ended("tool_use"), STOP]))
    assert check_grammar(events) == []
    choice = fold(events).choices[0]
    assert choice.parts == (ToolCall("t1", "f", arguments),)
    assert choice.stop.kind == "tool_use"


def test_server_tools_are_opaque_and_whole() -> None:
    call = block(
        0,
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
        {"type": "input_json_delta", "partial_json": '{"query":'},
        {"type": "input_json_delta", "partial_json": '"q"}'},
    )
    result = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []}
    parts = fold(events_of(sse([START, *call, *block(1, result), ended("end_turn"), STOP]))).choices[0].parts
    whole_call = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "q"}}
    assert parts == (
        Opaque(NAME, "server_tool_use", whole_call, "web_search"),
        Opaque(NAME, "web_search_tool_result", result),
    )


def test_pings_comments_and_unknown_events() -> None:
    events = events_of(b": early\n\n" + sse([{"type": "ping"}, START, {"type": "ping"}, {"type": "news", "x": 1}]))
    assert isinstance(events[0], Start)
    assert isinstance(events[1], Heartbeat)
    assert events[2] == Note(NAME, "news", {"type": "news", "x": 1})


def test_the_container_survives_streaming_and_not_streaming() -> None:
    streamed = events_of(sse([START, ended("end_turn", container={"id": "c"}), STOP]))
    assert check_grammar(streamed) == []
    plain = DIALECT.read_answer(whole(container={"id": "c"}), READ)
    assert fold(streamed).choices[0].parts == plain.choices[0].parts != ()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_KINDS = st.sampled_from(
    [
        "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta",
        "message_stop", "ping", "error", "other",
    ]
)  # fmt: skip
_BLOCKS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["text", "thinking", "tool_use", "server_tool_use", "redacted_thinking", "x"]
        ),
        "text": st.text(max_size=3) | _JSON, "input": _JSON, "id": _JSON, "name": _JSON, "data": _JSON,
    }
)  # fmt: skip
_DELTAS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["text_delta", "thinking_delta", "input_json_delta", "signature_delta", "citations_delta", "x"]
        ),
        "text": st.text(max_size=3) | _JSON, "thinking": st.text(max_size=3),
        "partial_json": st.text(max_size=3), "signature": _JSON, "citation": _JSON, "stop_reason": _JSON,
    }
)  # fmt: skip
_EVENTS = st.fixed_dictionaries(
    {
        "type": _KINDS, "index": st.integers(0, 2) | _JSON, "content_block": _BLOCKS | _JSON,
        "delta": _DELTAS | _JSON, "message": _JSON, "usage": _JSON, "error": _JSON,
    }
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.lists(_EVENTS, max_size=12))
def test_any_sequence_of_frames_gives_events_that_obey_the_grammar(stream: list[dict[str, Any]]) -> None:
    assert check_grammar(events_of(sse([*stream]))) == []


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_end_in_a_failure_and_never_in_an_exception(data: bytes) -> None:
    reader = DIALECT.stream_reader(READ)
    events: list[Event] = [*reader.feed(Frame(data, "x", data)), *reader.close()]
    assert isinstance(events[-1], Failed)
    with pytest.raises(FaultError):
        DIALECT.read_answer(data, READ)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(STREAMS), st.lists(st.floats(0, 1), max_size=6))
def test_random_cuts_change_nothing(exchange: Exchange, cuts: list[float]) -> None:
    raw = exchange.response.payload
    assert events_of(raw, [int(cut * len(raw)) for cut in cuts]) == events_of(raw)
