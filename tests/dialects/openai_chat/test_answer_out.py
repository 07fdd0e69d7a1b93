"""What Chat clients get: strict bodies and streams for the events of any dialect."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.conversation.answer import Answer, Choice, Stop, StopKind
from llm_proxy.conversation.events import (
    Cited,
    Delta,
    End,
    Event,
    Failed,
    Finish,
    Heartbeat,
    Logprobs,
    Note,
    PartEnd,
    PartStart,
    Sealed,
    Start,
    UsageSeen,
    Whole,
)
from llm_proxy.conversation.fault import Fault
from llm_proxy.conversation.fold import OpenPart, check_grammar, unfold
from llm_proxy.conversation.parts import (
    Citation,
    Media,
    Opaque,
    Part,
    Refusal,
    Seal,
    Text,
    Thinking,
    ToolCall,
)
from llm_proxy.conversation.request import FunctionTool, Reasoning, Request
from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects.openai_chat import DIALECT
from tests.dialects.openai_chat.support import (
    ENVELOPE,
    NAME,
    chunks_in,
    emitted,
    events_of,
    frames_of,
    merged_choice,
    reply,
    told,
)
from tests.support.grammar import check_body, check_stream

SIGNED = Seal("anthropic-messages", "signature", "sig", "anthropic/claude")
LEGACY = Request(dialect=NAME, tools=(FunctionTool("f", legacy=True),))


def answer(*parts: Part, stop: StopKind | Stop = "end", **fields: Any) -> Answer:
    ended = stop if isinstance(stop, Stop) else Stop(stop)
    return Answer(choices=(Choice(parts, ended),), **{"id": "chatcmpl-up", "model": "up", "created": 7, **fields})


def body(given_answer: Answer, **context: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DIALECT.write_answer(given_answer, reply(**context)))
    assert check_body(NAME, found) == []
    return found


def streamed(given_answer: Answer, **context: Any) -> bytes:
    raw = emitted(unfold(given_answer), **context)
    assert check_stream(NAME, raw, usage_asked=context.get("include_usage", True)) == []
    return raw


def both(given_answer: Answer, **context: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The message of the whole body and the one that a client joins from the stream."""
    message = body(given_answer, **context)["choices"][0]["message"]
    return message, merged_choice(streamed(given_answer, **context))


# ---- the whole of it


def test_a_body_and_a_stream_say_the_same() -> None:
    told_answer = answer(
        Thinking("why"), Text("x"), ToolCall("c1", "f", '{"a":1}'), ToolCall("c2", "g", ""), stop="tool_use"
    )
    whole, joined = both(told_answer)
    assert whole["content"] == joined["content"] == "x"
    assert whole["reasoning_content"] == joined["reasoning_content"] == "why"
    assert [one["function"]["arguments"] for one in whole["tool_calls"]] == ['{"a":1}', "{}"]
    assert [one["function"]["arguments"] for one in joined["tool_calls"].values()] == ['{"a":1}', "{}"]


def test_names_ids_and_times_come_from_the_provider_or_are_made() -> None:
    found = body(answer(Text("x"), tier="flex", fingerprint="fp"))
    assert (found["id"], found["model"], found["created"]) == ("chatcmpl-up", "up", 7)
    assert (found["service_tier"], found["system_fingerprint"]) == ("flex", "fp")
    made = body(answer(Text("x"), id="", model="", created=0))
    assert (made["id"], made["model"], made["created"]) == (
        "chatcmpl-" + "0" * 24,
        "asked-model",
        1_700_000_000,
    )
    foreign = body(answer(Text("x"), id="msg_1"))["id"]
    assert foreign.startswith("chatcmpl-") and foreign == body(answer(Text("x"), id="msg_1"))["id"]


@pytest.mark.parametrize(
    ("stop", "called", "expected"),
    [
        ("end", False, "stop"),
        ("stop_sequence", False, "stop"),
        ("pause", False, "stop"),
        ("unknown", False, "stop"),
        ("length", False, "length"),
        ("context_full", False, "length"),
        ("content_filter", False, "content_filter"),
        ("malformed_tool", False, "stop"),
        ("tool_use", True, "tool_calls"),
        ("end", True, "tool_calls"),
        ("length", True, "length"),
        ("content_filter", True, "content_filter"),
        ("tool_use", False, "stop"),
    ],
)
def test_finish_reasons(stop: StopKind, called: bool, expected: str) -> None:
    part: Part = ToolCall("c", "f", "{}") if called else Text("x")
    assert body(answer(part, stop=stop))["choices"][0]["finish_reason"] == expected
    reasons = [
        one["choices"][0]["finish_reason"] for one in chunks_in(streamed(answer(part, stop=stop))) if one["choices"]
    ]
    assert [reason for reason in reasons if reason] == [expected]


def test_usage_is_the_last_chunk_if_it_was_asked_for() -> None:
    usage = Usage(input=100, output=20, cache_read=80, cache_write=3, reasoning=5)
    expected = {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 80, "cache_write_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    told_answer = answer(Text("x"), usage=usage)
    assert body(told_answer)["usage"] == expected
    last = chunks_in(streamed(told_answer))[-1]
    assert (last["choices"], last["usage"]) == ([], expected)
    assert all("usage" not in one for one in chunks_in(streamed(told_answer, include_usage=False)))


def test_usage_that_the_provider_did_not_give_is_estimated() -> None:
    found = body(answer(Text("x" * 40)))["usage"]
    assert (found["prompt_tokens"], found["completion_tokens"]) == (77, 10)
    assert chunks_in(streamed(answer(Text("x" * 40))))[-1]["usage"] == found


def test_what_a_provider_of_this_dialect_said_beside_its_counts_is_kept() -> None:
    raw = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cost": 0.5, "is_byok": False}
    found = body(answer(Text("x"), usage=Usage(input=1, output=2, cost=0.5, origin=NAME, raw=raw)))["usage"]
    assert found == raw


# ---- reasoning and seals


def test_foreign_seals_travel_in_an_envelope_beside_their_exact_text() -> None:
    told_answer = answer(Thinking("why", seal=SIGNED), Thinking("", seal=SIGNED), Text("x"))
    whole, joined = both(told_answer)
    for entries in (whole["reasoning_details"], list(joined["reasoning_details"].values())):
        assert entries[0]["text"] == "why"
        assert ENVELOPE.open(entries[0]["signature"]) == SIGNED
        assert ENVELOPE.open(entries[1]["data"]) == SIGNED
    assert [entry["index"] for entry in whole["reasoning_details"]] == [0, 1]
    plain, _ = both(told_answer, sealed_wanted=False)
    assert "reasoning_details" not in plain


def test_what_a_client_echoes_is_read_back_with_its_seal() -> None:
    whole, _ = both(answer(Thinking("why", seal=SIGNED), Text("x")))
    history = {"model": "m", "messages": [{"role": "user", "content": "hi"}, whole]}
    thought, text = DIALECT.read_request(json.dumps(history).encode()).messages[1].parts
    assert isinstance(thought, Thinking) and thought.text == "why" and text == Text("x")
    assert thought.seal is not None and ENVELOPE.open(thought.seal.value) == SIGNED


def test_own_seals_are_written_natively() -> None:
    entry = {"type": "reasoning.text", "text": "why", "signature": "s", "index": 4}
    seal = Seal(NAME, "details", json.dumps(entry), "openrouter/x")
    whole, joined = both(answer(Thinking("why", seal=seal), Text("x")))
    assert whole["reasoning_details"] == [{**entry, "index": 0}]
    assert joined["reasoning_details"][0]["signature"] == "s"


def test_thought_signatures_stand_on_their_call() -> None:
    google = Seal("gemini", "thought", "U0lH", "gemini/x")
    whole, joined = both(answer(ToolCall("c", "f", "{}", seal=google), stop="tool_use"))
    for made in (whole["tool_calls"][0], joined["tool_calls"][0]):
        assert ENVELOPE.open(made["extra_content"]["google"]["thought_signature"]) == google
    native = ToolCall("c", "f", "{}", seal=Seal(NAME, "thought", "sig"))
    assert body(answer(native))["choices"][0]["message"]["tool_calls"][0]["extra_content"] == {
        "google": {"thought_signature": "sig"}
    }


def test_hidden_thinking_shows_no_text_but_keeps_its_seal() -> None:
    whole, joined = both(answer(Thinking("why", seal=SIGNED), Text("x")), show_thinking=False)
    for message in (whole, joined):
        assert "reasoning_content" not in message and "why" not in json.dumps(message)
    assert whole["reasoning_details"][0]["data"].startswith("gw1.")


def test_reasoning_that_the_request_excludes_is_not_shown_in_any_field() -> None:
    entry = {"type": "reasoning.text", "text": "why", "signature": "s"}
    own = Seal(NAME, "details", json.dumps(entry), "openrouter/x")
    excluding = Request(dialect=NAME, reasoning=Reasoning("effort", effort="low", visible=False))
    for seal in (SIGNED, own, None):
        whole, joined = both(answer(Thinking("why", seal=seal), Text("x")), request=excluding)
        for message in (whole, joined):
            assert message["content"] == "x" and "why" not in json.dumps(message)


def test_summary_pieces_are_joined_with_a_blank_line() -> None:
    whole, joined = both(answer(Thinking("a\n\nb", pieces=("a", "b")), Text("x")))
    assert whole["reasoning_content"] == joined["reasoning_content"] == "a\n\nb"


# ---- other parts


def test_refusals() -> None:
    whole, joined = both(answer(Refusal("no")))
    assert (whole["content"], whole["refusal"], joined["refusal"]) == (None, "no", "no")
    stop = Stop("content_filter", raw="refusal", detail="blocked")
    whole, joined = both(answer(stop=stop))
    assert (whole["refusal"], joined["refusal"]) == ("blocked", "blocked")


def test_citations_of_other_dialects_get_offsets_in_the_whole_content() -> None:
    known = Citation("https://a", "A", 1, 2)
    unknown = Citation("https://b", "B", origin="anthropic-messages", raw={"type": "x"})
    whole, joined = both(
        answer(Text("12345"), Thinking("t"), Text("abc", (known, unknown, Citation(title="no address"))))
    )
    expected = [
        {"url": "https://a", "title": "A", "start_index": 6, "end_index": 7},
        {"url": "https://b", "title": "B", "start_index": 5, "end_index": 8},
    ]
    assert [one["url_citation"] for one in whole["annotations"]] == expected
    assert [one["url_citation"] for one in joined["annotations"].values()] == expected


def test_annotations_of_several_texts_have_different_indexes() -> None:
    source = (Citation("https://a"),)
    raw = streamed(answer(Text("a", source), Thinking("t"), Text("b", source)))
    indexes = [
        note["index"] for one in chunks_in(raw) for c in one["choices"] for note in c["delta"].get("annotations", ())
    ]
    assert indexes == [0, 1]


def test_generated_media() -> None:
    audio = Media("audio", data="QUJD", transcript="hi")
    whole, joined = both(answer(audio))
    assert whole["content"] is None
    assert whole["audio"] == joined["audio"] and whole["audio"]["transcript"] == "hi"
    whole, joined = both(answer(Media("image", data="iVBO", mime="image/png"), Text("x")))
    assert whole["images"][0]["image_url"] == joined["images"][0]["image_url"] == {"url": "data:image/png;base64,iVBO"}


def test_custom_and_namespaced_calls_and_ids_that_are_too_long() -> None:
    whole, joined = both(
        answer(
            ToolCall("c" * 80, "patch", 'raw "text"', kind="custom"),
            ToolCall("d", "list", "{}", namespace="fs"),
            stop="tool_use",
        )
    )
    for calls in (whole["tool_calls"], list(joined["tool_calls"].values())):
        assert calls[0]["type"] == "custom" and calls[0]["custom"] == {"name": "patch", "input": 'raw "text"'}
        assert len(calls[0]["id"]) <= 64
        assert calls[1]["function"]["name"] == "fs__list"


def test_parts_and_notes_of_other_dialects_are_left_out() -> None:
    found = body(answer(Opaque("anthropic-messages", "server_tool_use", {}, "web_search"), Text("x")))
    assert found["choices"][0]["message"]["content"] == "x"
    events: list[Event] = [Start(), Note("gemini", "x", {}), Heartbeat(), Finish(Stop("end")), End()]
    assert check_stream(NAME, emitted(events), usage_asked=True) == []


def test_a_client_of_functions_gets_function_call_back() -> None:
    told_answer = answer(ToolCall("c", "f", '{"a":1}'), ToolCall("d", "g", "{}"), stop="tool_use")
    found = body(told_answer, request=LEGACY)["choices"][0]
    assert found["finish_reason"] == "function_call"
    assert found["message"]["function_call"] == {"name": "f", "arguments": '{"a":1}'}
    assert "tool_calls" not in found["message"]
    raw = streamed(told_answer, request=LEGACY)
    assert merged_choice(raw)["function_call"] == {"name": "f", "arguments": '{"a":1}'}
    assert b'"function_call"}]' in raw


def test_log_probabilities() -> None:
    entry = {"token": "x", "logprob": -0.1, "top_logprobs": []}
    told_answer = Answer(id="i", model="m", choices=(Choice((Text("x"),), Stop("end"), logprobs=(entry,)),))
    assert body(told_answer)["choices"][0]["logprobs"]["content"] == [entry]
    tokens = [one["choices"][0]["logprobs"] for one in chunks_in(streamed(told_answer)) if one["choices"]]
    assert [found["content"] for found in tokens if found] == [[entry]]


# ---- streams


def test_the_first_delta_has_the_role_and_comes_with_the_start() -> None:
    writer = DIALECT.stream_writer(reply())
    (first,) = chunks_in(writer.write([Start(model="m")]))
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert first["usage"] is None


def test_interleaved_calls_are_streamed_as_they_come() -> None:
    a, b = ToolCall("a", "f"), ToolCall("b", "g")
    raw = emitted(
        [
            Start(),
            PartStart(0, a),
            Delta(0, "{"),
            PartStart(1, b),
            Delta(1, "["),
            Delta(0, "}"),
            Delta(1, "]"),
            PartEnd(0, ToolCall("a", "f", "{}")),
            PartEnd(1, ToolCall("b", "g", "[]")),
            Finish(Stop("tool_use")),
            End(),
        ]
    )
    assert check_stream(NAME, raw, usage_asked=True) == []
    calls = merged_choice(raw)["tool_calls"]
    assert [calls[index]["function"]["arguments"] for index in (0, 1)] == ["{}", "[]"]


def test_texts_that_overlap_are_sent_one_after_the_other() -> None:
    source = Citation("https://a", start=0, end=1)
    raw = emitted(
        [
            Start(),
            PartStart(0, Text("")),
            PartStart(1, Text("")),
            Delta(1, "second"),
            Cited(1, source),
            Delta(0, "fir"),
            PartEnd(1, Text("second", (source,))),
            Delta(0, "st"),
            PartEnd(0, Text("first")),
            Finish(Stop("end")),
            End(),
        ]
    )
    message = merged_choice(raw)
    assert message["content"] == "firstsecond"
    assert message["annotations"][0]["url_citation"]["start_index"] == 5


def test_choices_count_from_zero_in_order_of_appearance() -> None:
    events: list[Event] = [Start()]
    for part, choice in ((0, 2), (1, 0), (2, 1)):
        events += [PartStart(part, Text(""), choice), Delta(part, "x"), PartEnd(part, Text("x"))]
    events += [*(Finish(Stop("end"), choice) for choice in range(3)), End()]
    assert check_stream(NAME, emitted(events), usage_asked=True) == []


def test_a_failure_is_an_error_chunk_and_nothing_follows() -> None:
    writer = DIALECT.stream_writer(reply())
    raw = writer.write([Start(), PartStart(0, Text("")), Delta(0, "Par")])
    raw += writer.write([Failed(Fault(kind="overloaded", message="Overloaded"))])
    assert writer.write([Delta(0, "late"), End()]) == b"" == writer.heartbeat()
    assert check_stream(NAME, raw) == []
    last = chunks_in(raw)[-1]
    assert last["error"]["message"] == "Overloaded" and last["detail"]["code"] == "backend_unavailable"
    assert b"[DONE]" not in raw


def test_keep_alives_are_comments() -> None:
    (frame,) = frames_of(DIALECT.stream_writer(reply()).heartbeat())
    assert frame.data is None and frame.raw == DIALECT.heartbeat


def test_separators_that_some_readers_take_for_line_ends_are_escaped() -> None:
    raw = streamed(answer(Text("a\u2028b\u2029c\u0085d")))
    assert merged_choice(raw)["content"] == "a\u2028b\u2029c\u0085d"


def test_lone_surrogates_do_not_break_the_stream() -> None:
    assert merged_choice(streamed(answer(Text("a\ud800b"))))["content"] == "a\ufffdb"


# ---- properties

SEALS = st.none() | st.sampled_from(
    [
        SIGNED,
        Seal(NAME, "details", '{"type":"reasoning.text"}'),
        Seal("gemini", "thought", "x"),
        Seal(NAME, "thought", "y"),
    ]
)
TEXTS = st.text(max_size=8)
SKELETONS = st.one_of(
    st.just(Text("")),
    st.just(Refusal("")),
    st.builds(Thinking, summary=st.booleans()),
    st.builds(
        ToolCall,
        id=st.uuids().map(str),
        name=st.sampled_from(["f", "", "x" * 70]),
        legacy=st.booleans(),
        kind=st.sampled_from(["function", "custom"]),
        seal=SEALS,
    ),
)
WHOLES = st.sampled_from(
    [
        Media("image", data="AA=="),
        Media("audio", data="AA=="),
        Media("video", url="u"),
        Opaque("gemini", "x", {}),
    ]
)
STEPS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 5), st.integers(0, 2), TEXTS), max_size=25)


@st.composite
def event_streams(draw: st.DrawFn) -> list[Event]:
    """Any events that the grammar allows, with parts that overlap and several choices."""
    events: list[Event] = [Start(id=draw(TEXTS), model=draw(TEXTS))]
    opened: dict[int, OpenPart] = {}
    choices: set[int] = set()
    count = 0
    for kind, pick, choice, text in draw(STEPS):
        if kind <= 1:
            skeleton = draw(SKELETONS)
            opened[count] = OpenPart(skeleton, choice)
            events.append(PartStart(count, skeleton, choice))
            choices.add(choice)
            count += 1
        elif kind == 2:
            events.append(Whole(count, draw(WHOLES), choice))
            choices.add(choice)
            count += 1
        elif kind == 3:
            events.append(draw(st.sampled_from([Heartbeat(), UsageSeen(Usage(input=3)), Note("gemini", "x", {})])))
        elif opened:
            number = sorted(opened)[pick % len(opened)]
            _grow(draw, events, opened, number, kind, text)
    for number, part in opened.items():
        events.append(PartEnd(number, part.whole()))
    kinds = st.sampled_from(["end", "length", "tool_use", "content_filter", "pause", "unknown"])
    events += [Finish(Stop(draw(kinds)), choice) for choice in sorted(choices or {0})]
    if draw(st.booleans()):
        events.append(UsageSeen(Usage(input=5, output=draw(st.integers(0, 9)))))
    events.append(draw(st.sampled_from([End(), End(), Failed(Fault(kind="closed", message="cut"))])))
    return events


def _grow(draw: st.DrawFn, events: list[Event], opened: dict[int, OpenPart], number: int, kind: int, text: str) -> None:
    part = opened[number]
    if kind == 4 and text:
        part.add(text)
        events.append(Delta(number, text))
    elif kind == 5:
        events.append(PartEnd(number, opened.pop(number).whole()))
    elif kind == 6 and isinstance(part.skeleton, Text):
        part.citations.append(Citation("https://a"))
        events.append(Cited(number, Citation("https://a")))
    elif kind == 6 and isinstance(part.skeleton, Thinking | ToolCall):
        seal = draw(SEALS)
        if seal is not None:
            part.seal = seal
            events.append(Sealed(number, seal))


@settings(max_examples=90, deadline=None)
@given(event_streams(), st.booleans(), st.booleans(), st.booleans())
def test_any_events_make_a_valid_stream(events: list[Event], usage: bool, thinking: bool, legacy: bool) -> None:
    assert check_grammar(events) == []
    context: dict[str, Any] = {"include_usage": usage, "show_thinking": thinking}
    if legacy:
        context["request"] = LEGACY
    raw = emitted(events, **context)
    assert check_stream(NAME, raw, usage_asked=usage) == []
    writer = DIALECT.stream_writer(reply(**context))
    assert writer.write(events) == raw


@settings(max_examples=100, deadline=None)
@given(event_streams())
def test_a_stream_of_ours_is_read_as_what_was_written(events: list[Event]) -> None:
    if any(isinstance(event, Failed) for event in events):
        return
    before, after = told(events), told(events_of(emitted(events)))
    for kind in (Text, Refusal):
        first = [part.text for choice, part in before.parts_so_far() if isinstance(part, kind) and choice == 0]
        renumbered = min((choice for choice, _ in before.parts_so_far()), default=0)
        if renumbered == 0:
            second = [part.text for choice, part in after.parts_so_far() if isinstance(part, kind) and choice == 0]
            clean = "".join(first).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            assert "".join(second) == clean


@settings(max_examples=100, deadline=None)
@given(event_streams())
def test_any_answer_makes_a_valid_body(events: list[Event]) -> None:
    folder = told(events)
    if folder.fault is None:
        body(msgspec.structs.replace(folder.answer(), model="m"))


def test_logprobs_before_any_part_open_their_choice() -> None:
    raw = emitted([Start(), Logprobs(0, ({"token": "x"},)), Finish(Stop("end")), End()])
    assert check_stream(NAME, raw, usage_asked=True) == []
