"""Answers of Responses providers: every exchange that there is, every quirk that is known, any bytes at
all.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.conversation.events import (
    Cited,
    Delta,
    End,
    Failed,
    Finish,
    Heartbeat,
    Logprobs,
    Note,
    PartEnd,
    PartStart,
    Start,
    UsageSeen,
    Whole,
)  # fmt: skip
from llm_proxy.conversation.fault import FaultError
from llm_proxy.conversation.fold import Folder, check_grammar, unfold
from llm_proxy.conversation.parts import Media, Opaque, Refusal, Text, Thinking, ToolCall
from llm_proxy.dialects.openai_responses import DIALECT
from llm_proxy.wire.sse import Frame
from tests.dialects.openai_responses.support import (
    CONTRADICTS_ITSELF,
    READ,
    answers,
    decode,
    frames,
    meaning,
    parts_of,
)  # fmt: skip
from tests.support.shared import Exchange, semantics

CREATED = {
    "type": "response.created",
    "response": {"id": "resp_1", "model": "m", "created_at": 7.0, "output": []},
}
USAGE = {
    "input_tokens": 10,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 1},
    "output_tokens": 6,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 16,
}


def completed(*output: dict[str, Any], **changed: Any) -> dict[str, Any]:
    response = {"id": "resp_1", "status": "completed", "output": list(output), "usage": USAGE, **changed}
    return {"type": "response.completed", "response": response}


def item_added(item: dict[str, Any], index: int = 0) -> dict[str, Any]:
    return {"type": "response.output_item.added", "output_index": index, "item": item}


def item_done(item: dict[str, Any], index: int = 0) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def text_delta(words: str, index: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "type": "response.output_text.delta",
        "output_index": index,
        "content_index": 0,
        "delta": words,
        **more,
    }


def message(words: str, **more: Any) -> dict[str, Any]:
    content = [{"type": "output_text", "text": words, "annotations": []}]
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": content, **more}


@pytest.mark.parametrize("exchange", answers(), ids=str)
def test_every_exchange_means_what_the_official_sdk_reads(exchange: Exchange) -> None:
    payload = exchange.response.payload
    events = decode(payload) if exchange.response.sse is not None else list(unfold(DIALECT.read_answer(payload, READ)))
    assert check_grammar(events) == []
    folder = Folder()
    for event in events:
        folder.feed(event)
    wanted = semantics()[exchange.file]["semantic"]
    got = meaning([part for _, part in folder.parts_so_far()])
    if exchange.file == CONTRADICTS_ITSELF:
        assert wanted["text"].startswith(got.pop("text").rstrip("."))
    if wanted["error"] is not None:
        assert folder.fault is not None
        return
    assert got == {name: wanted[name] for name in got}
    stop = folder.answer().choices[0].stop.kind
    assert {"end": "stop"}.get(stop, stop) == wanted["stop"]
    usage = folder.usage
    assert {name: getattr(usage, name) for name in wanted["usage"]} == wanted["usage"]


@pytest.mark.parametrize("exchange", answers(stream=True), ids=str)
def test_the_split_of_the_bytes_does_not_matter(exchange: Exchange) -> None:
    payload = exchange.response.payload[:12_000]
    whole = decode(payload)
    for size in (1, 13, 1000):
        assert decode(payload, range(size, len(payload), size)) == whole


def test_a_stream_without_event_lines_is_read_by_its_types() -> None:
    stream = [
        CREATED,
        item_added(message("")),
        text_delta("hi"),
        item_done(message("hi")),
        completed(message("hi")),
    ]
    assert decode(frames(stream, named=False)) == decode(frames(stream))


def test_start_carries_id_model_and_time_and_usage_comes_at_the_end() -> None:
    events = decode(frames([CREATED, completed()]))
    assert events[0] == Start(id="resp_1", model="m", created=7)
    finish, usage, end = events[1:]
    assert isinstance(finish, Finish) and finish.stop.kind == "end"
    assert isinstance(usage, UsageSeen) and isinstance(end, End)
    counts = usage.usage
    assert (counts.input, counts.output, counts.cache_read, counts.cache_write, counts.reasoning) == (
        10,
        6,
        4,
        1,
        2,
    )


def test_life_signs_become_heartbeats() -> None:
    events = decode(
        frames([CREATED, {"type": "response.in_progress", "response": {}}]) + b": ping\n\n" + frames([completed()])
    )
    assert [type(event) for event in events].count(Heartbeat) == 2


def test_text_in_deltas_is_not_repeated_by_the_frames_that_complete_it() -> None:
    stream = [
        CREATED,
        item_added(message("")),
        text_delta("Hel"),
        text_delta("lo"),
        {"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "Hello"},
        {
            "type": "response.content_part.done",
            "output_index": 0,
            "content_index": 0,
            "part": {"type": "output_text", "text": "Hello"},
        },
        item_done(message("Hello")),
        completed(message("Hello")),
    ]
    assert [event.text for event in decode(frames(stream)) if isinstance(event, Delta)] == ["Hel", "lo"]


@pytest.mark.parametrize(
    "rest",
    [
        [{"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "Hello"}],
        [item_done(message("Hello"))],
        [completed(message("Hello"))],
        [text_delta("Hel"), item_done(message("Hello"))],
        [
            text_delta("He"),
            {"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "Hello"},
        ],
    ],
)
def test_text_that_the_deltas_leave_out_is_taken_from_what_completes_it(rest: list[dict[str, Any]]) -> None:
    end = [] if rest[-1]["type"] == "response.completed" else [completed(message("Hello"))]
    events = decode(frames([CREATED, item_added(message("")), *rest, *end]))
    assert check_grammar(events) == []
    assert [part.text for part in parts_of(events) if isinstance(part, Text)] == ["Hello"]


def test_text_deltas_without_their_item_open_a_text() -> None:
    events = decode(frames([CREATED, text_delta("a"), text_delta("b"), completed(message("ab"))]))
    assert check_grammar(events) == []
    assert [part.text for part in parts_of(events) if isinstance(part, Text)] == ["ab"]


def test_content_parts_of_one_message_that_interleave_keep_their_texts_apart() -> None:
    content = [{"type": "output_text", "text": "ac"}, {"type": "output_text", "text": "b"}]
    deltas = [text_delta("a"), {**text_delta("b"), "content_index": 1}, text_delta("c")]
    done = item_done({**message(""), "content": content})
    events = decode(frames([CREATED, item_added(message("")), *deltas, done, completed()]))
    assert check_grammar(events) == []
    assert [part.text for part in parts_of(events) if isinstance(part, Text)] == ["ac", "b"]


def test_parallel_calls_that_interleave_keep_their_arguments_apart() -> None:
    def call(number: int, arguments: str = "") -> dict[str, Any]:
        return {
            "type": "function_call",
            "id": f"fc_{number}",
            "call_id": f"call_{number}",
            "name": "w",
            "arguments": arguments,
        }

    def delta(number: int, words: str) -> dict[str, Any]:
        return {"type": "response.function_call_arguments.delta", "output_index": number, "delta": words}

    stream = [
        CREATED,
        item_added(call(0)),
        item_added(call(1), 1),
        delta(0, '{"c":'),
        delta(1, '{"d"'),
        delta(0, "1}"),
        delta(1, ":2}"),
        item_done(call(0, '{"c":1}')),
        item_done(call(1, '{"d":2}'), 1),
        completed(),
    ]
    events = decode(frames(stream))
    assert check_grammar(events) == []
    calls = [part for part in parts_of(events) if isinstance(part, ToolCall)]
    assert [(call.id, call.arguments) for call in calls] == [("call_0", '{"c":1}'), ("call_1", '{"d":2}')]
    assert next(event for event in events if isinstance(event, Finish)).stop.kind == "tool_use"


def test_a_call_without_deltas_gets_its_arguments_from_the_done_frame() -> None:
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "w", "arguments": ""}
    done = {"type": "response.function_call_arguments.done", "output_index": 0, "arguments": '{"a":1}'}
    events = decode(frames([CREATED, item_added(call), done, item_done({**call, "arguments": '{"a":1}'}), completed()]))
    assert [part.arguments for part in parts_of(events) if isinstance(part, ToolCall)] == ['{"a":1}']


@pytest.mark.parametrize("ids", [("", ""), ("same", "same")])
def test_missing_and_repeated_call_ids_are_replaced_by_distinct_ones(ids: tuple[str, str]) -> None:
    calls = [{"type": "function_call", "call_id": call_id, "name": "w", "arguments": "{}"} for call_id in ids]
    body = json.dumps({"id": "resp_1", "status": "completed", "output": calls}).encode()
    found = [part for part in DIALECT.read_answer(body, READ).choices[0].parts if isinstance(part, ToolCall)]
    assert len({call.id for call in found}) == 2 and all(call.id for call in found)
    assert not found[1].native_id


def test_custom_calls_bring_raw_text_and_namespaces_stay() -> None:
    patch = '*** Begin\n"q"\\\n'
    custom = {
        "type": "custom_tool_call",
        "id": "ctc_1",
        "call_id": "call_1",
        "name": "apply_patch",
        "input": "",
    }
    spaced = {"type": "function_call", "call_id": "call_2", "name": "f", "namespace": "ns", "arguments": "{}"}
    stream = [
        CREATED, item_added(custom),
        {"type": "response.custom_tool_call_input.delta", "output_index": 0, "delta": patch[:5]},
        {"type": "response.custom_tool_call_input.delta", "output_index": 0, "delta": patch[5:]},
        {"type": "response.custom_tool_call_input.done", "output_index": 0, "input": patch},
        item_done({**custom, "input": patch}), item_done(spaced, 1), completed(),
    ]  # fmt: skip
    first, second = (part for part in parts_of(decode(frames(stream))) if isinstance(part, ToolCall))
    assert (first.kind, first.arguments, first.item_id) == ("custom", patch, "ctc_1")
    assert (second.kind, second.namespace) == ("function", "ns")


def test_summary_parts_are_the_pieces_of_one_thinking_and_the_last_seal_counts() -> None:
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "early"}
    pieces = [
        {
            "type": "response.reasoning_summary_text.delta",
            "output_index": 0,
            "summary_index": index,
            "delta": words,
        }
        for index, words in ((0, "a"), (0, "b"), (1, "c"))
    ]
    done = {**item, "encrypted_content": "late", "summary": [{"text": "ab"}, {"text": "c"}]}
    events = decode(frames([CREATED, item_added(item), *pieces, item_done(done), completed()]))
    assert check_grammar(events) == []
    thinking = next(part for part in parts_of(events) if isinstance(part, Thinking))
    assert (thinking.text, thinking.pieces, thinking.summary, thinking.item_id) == (
        "ab\n\nc",
        ("ab", "c"),
        True,
        "rs_1",
    )
    assert thinking.seal is not None
    assert (thinking.seal.value, thinking.seal.maker, thinking.seal.origin) == (
        "late",
        "openai/gpt",
        "openai-responses",
    )


def test_raw_reasoning_text_is_thinking_that_is_no_summary() -> None:
    delta = {"type": "response.reasoning_text.delta", "output_index": 0, "content_index": 0, "delta": "hm"}
    events = decode(frames([CREATED, item_added({"type": "reasoning", "id": "r"}), delta, completed()]))
    thinking = next(part for part in parts_of(events) if isinstance(part, Thinking))
    assert (thinking.text, thinking.summary) == ("hm", False)


def test_reasoning_that_only_its_maker_knows_is_opaque() -> None:
    item = {"type": "reasoning", "id": "rs_1", "summary": []}
    assert parts_of(decode(frames([CREATED, item_done(item), completed()]))) == [
        Opaque("openai-responses", "reasoning", item)
    ]


def test_citations_arrive_while_the_text_is_open_and_once() -> None:
    note = {"type": "url_citation", "url": "https://a", "title": "A", "start_index": 0, "end_index": 2}
    added = {
        "type": "response.output_text.annotation.added",
        "output_index": 0,
        "content_index": 0,
        "annotation": note,
    }
    content = [
        {
            "type": "output_text",
            "text": "hi",
            "annotations": [note, {"type": "file_citation", "filename": "f"}],
        }
    ]
    stream = [
        CREATED,
        item_added(message("")),
        text_delta("hi"),
        added,
        item_done({**message(""), "content": content}),
        completed(),
    ]
    events = decode(frames(stream))
    assert check_grammar(events) == []
    cited = [event.citation for event in events if isinstance(event, Cited)]
    assert [(citation.url, citation.title, citation.start, citation.end) for citation in cited] == [
        ("https://a", "A", 0, 2), ("", "f", -1, -1),
    ]  # fmt: skip


def test_log_probabilities_come_with_their_text() -> None:
    entry = {"token": "hi", "logprob": -0.5, "bytes": [104, 105], "top_logprobs": []}
    events = decode(frames([CREATED, item_added(message("")), text_delta("hi", logprobs=[entry]), completed()]))
    assert [event.tokens for event in events if isinstance(event, Logprobs)] == [(entry,)]


def test_phase_and_item_id_of_a_message_stay_with_its_text() -> None:
    body = {"id": "r", "status": "completed", "output": [message("x", phase="commentary")]}
    part = DIALECT.read_answer(json.dumps(body).encode(), READ).choices[0].parts[0]
    assert isinstance(part, Text) and (part.item_id, part.phase) == ("msg_1", "commentary")


def test_server_tools_are_opaque_and_their_progress_are_notes() -> None:
    item = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}}
    searching = {"type": "response.web_search_call.searching", "output_index": 0, "item_id": "ws_1"}
    events = decode(
        frames([CREATED, item_added({**item, "status": "in_progress"}), searching, item_done(item), completed()])
    )
    assert [event.type for event in events if isinstance(event, Note)] == [
        "response.output_item.added",
        searching["type"],
    ]
    assert parts_of(events) == [Opaque("openai-responses", "web_search_call", item, "web_search")]


def test_a_generated_image_is_there_for_other_protocols_too() -> None:
    item = {
        "type": "image_generation_call",
        "id": "ig_1",
        "status": "completed",
        "result": "QUJD",
        "output_format": "webp",
    }
    opaque, media = parts_of(decode(frames([CREATED, item_done(item), completed()])))
    assert isinstance(opaque, Opaque) and opaque.raw == item
    assert media == Media("image", data="QUJD", mime="image/webp", origin="openai-responses")


@pytest.mark.parametrize(("reason", "kind"), [("max_output_tokens", "length"), ("content_filter", "content_filter")])
def test_incomplete_wins_over_calls(reason: str, kind: str) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "w", "arguments": '{"a'}
    end = completed(call, status="incomplete", incomplete_details={"reason": reason})
    events = decode(frames([CREATED, {**end, "type": "response.incomplete"}]))
    finish = next(event for event in events if isinstance(event, Finish))
    assert (finish.stop.kind, finish.stop.raw) == (kind, reason)


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (
            {
                "type": "error",
                "error": {"type": "insufficient_quota", "code": "insufficient_quota", "message": "No money"},
            },
            "billing",
        ),
        (
            {
                "type": "error",
                "code": "rate_limit_exceeded",
                "message": "Please try again in 1m2.5s",
                "param": None,
            },
            "rate_limit",
        ),
        (
            {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "Oops"}}},
            "upstream",
        ),
        (
            {
                "type": "response.failed",
                "response": {"error": {"code": "context_length_exceeded", "message": "Long"}},
            },
            "context_length",
        ),
        ({"type": "response.failed", "response": {"status": "failed", "error": None}}, "upstream"),
        (
            {"type": "response.completed", "response": {"status": "failed", "error": {"message": "late"}}},
            "upstream",
        ),
        ({"type": "", "error": {"message": "Overloaded", "type": "overloaded_error"}}, "overloaded"),
    ],
)
def test_failures_in_the_stream_end_it(event: dict[str, Any], kind: str) -> None:
    events = decode(frames([CREATED, text_delta("half"), event, completed(message("half"))]))
    assert check_grammar(events) == []
    failed = events[-1]
    assert isinstance(failed, Failed) and failed.fault.kind == kind
    if kind == "rate_limit":
        assert failed.fault.retry_after == 62.5


def test_an_error_may_come_first() -> None:
    events = decode(b'data: {"error": {"message": "no such model", "code": 404}}\n\n')
    assert [type(event) for event in events] == [Failed]
    assert isinstance(events[0], Failed) and events[0].fault.kind == "not_found"


@pytest.mark.parametrize("tail", [b"", b"data: [DONE]\n\n"])
def test_a_stream_without_its_terminal_event_was_cut(tail: bytes) -> None:
    events = decode(frames([CREATED, item_added(message("")), text_delta("half")]) + tail)
    assert check_grammar(events) == []
    assert isinstance(events[-1], Failed) and events[-1].fault.kind == "closed"
    assert not any(isinstance(event, PartEnd) for event in events)


def test_nothing_follows_the_end() -> None:
    payload = frames([CREATED, completed()]) + b"data: [DONE]\n\n" + frames([text_delta("late")])
    assert isinstance(decode(payload)[-1], End)


def test_three_broken_frames_are_skipped_and_the_fourth_fails() -> None:
    broken = b"data: {oops\n\n"
    assert isinstance(decode(frames([CREATED]) + 3 * broken + frames([completed()]))[-1], End)
    events = decode(frames([CREATED]) + 4 * broken + frames([completed()]))
    assert isinstance(events[-1], Failed) and events[-1].fault.kind == "upstream"


def test_split_characters_and_line_separators_survive() -> None:
    words = "日本\u2028語\u0085😀"
    payload = frames(
        [
            CREATED,
            item_added(message("")),
            text_delta(words),
            item_done(message(words)),
            completed(message(words)),
        ]
    )
    for cut in range(len(payload)):
        assert [part.text for part in parts_of(decode(payload, [cut])) if isinstance(part, Text)] == [words]


def test_lone_surrogates_become_replacement_characters() -> None:
    payload = (
        frames([CREATED]) + b'data: {"type":"response.output_text.delta","output_index":0,"delta":"a\\ud800b"}\n\n'
    )
    assert [part.text for part in parts_of(decode(payload)) if isinstance(part, Text)] == ["a\ufffdb"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"output": 1}',
        b'{"error": {"message": "x"}}',
        b'{"success": false, "code": 1113, "msg": "x"}',
        b'{"object": "error", "message": "x"}',
        b'{"status": "failed", "output": [], "error": {"message": "x"}}',
        b"\xff\xfe",
    ],
)
def test_an_answer_that_is_none_raises_a_fault(body: bytes) -> None:
    with pytest.raises(FaultError) as caught:
        DIALECT.read_answer(body, READ)
    assert caught.value.fault.status_code >= 400


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from(["", "x", "message", "function_call", "reasoning"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "item",
                    "delta",
                    "output_index",
                    "content_index",
                    "response",
                    "output",
                    "content",
                    "text",
                    "id",
                    "call_id",
                    "summary",
                    "annotations",
                    "error",
                    "usage",
                    "status",
                    "logprobs",
                    "part",
                    "annotation",
                    "name",
                    "arguments",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
KINDS = st.sampled_from(
    [
        "response.created",
        "response.output_item.added",
        "response.output_item.done",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.refusal.delta",
        "response.reasoning_text.delta",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_text.annotation.added",
        "response.completed",
        "response.web_search_call.searching",
        "",
    ]
)
ITEMS = st.sampled_from(
    [
        message("ab"),
        {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"},
        {"type": "reasoning", "id": "r", "summary": [{"text": "s"}], "encrypted_content": "e"},
    ]
)


@given(
    st.lists(
        st.tuples(
            KINDS,
            st.dictionaries(
                st.sampled_from(["item", "delta", "output_index", "text", "part", "response"]), JSON | ITEMS
            ),
        ),
        max_size=12,
    )
)
@settings(max_examples=120, deadline=None)
def test_any_frames_give_events_by_the_grammar(stream: list[tuple[str, dict[str, Any]]]) -> None:
    events = decode(frames({"type": kind, **members} for kind, members in stream))
    assert check_grammar(events) == []


@given(JSON)
@settings(max_examples=90, deadline=None)
def test_any_body_is_an_answer_or_a_fault(value: Any) -> None:
    for body in (json.dumps(value).encode(), json.dumps({"output": value, "status": "completed"}).encode()):
        try:
            events = list(unfold(DIALECT.read_answer(body, READ)))
        except FaultError:
            continue
        assert check_grammar(events) == []


@given(st.binary(max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_taken(data: bytes) -> None:
    reader = DIALECT.stream_reader(READ)
    events = [*reader.feed(Frame(data, "response.output_text.delta", data)), *reader.close()]
    assert check_grammar(events) == []
    assert isinstance(events[-1], Failed)


def test_a_refusal_is_a_part_of_its_own() -> None:
    delta = {"type": "response.refusal.delta", "output_index": 0, "content_index": 0, "delta": "No."}
    events = decode(frames([CREATED, item_added(message("")), delta, completed()]))
    assert parts_of(events) == [Refusal("No.")]
    assert any(isinstance(event, PartStart) for event in events) and not any(
        isinstance(event, Whole) for event in events
    )
