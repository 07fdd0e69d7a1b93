"""What a Messages client gets, whole and streamed: strict in form, whatever the upstream's events are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import RawMessageStreamEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from pydantic import TypeAdapter

from llm_proxy.conversation.answer import Answer, Choice, Stop
from llm_proxy.conversation.events import (
    Cited,
    Delta,
    End,
    Event,
    Failed,
    Finish,
    Heartbeat,
    Note,
    PartEnd,
    PartStart,
    Sealed,
    Start,
    UsageSeen,
    Whole,
)  # fmt: skip
from llm_proxy.conversation.fault import Fault
from llm_proxy.conversation.fold import OpenPart, check_grammar, fold, unfold
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
from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects.anthropic_messages import DIALECT
from llm_proxy.dialects.anthropic_messages.wire import NO_SEAL
from tests.dialects.anthropic_messages.support import (
    ENVELOPE,
    MAKER,
    NAME,
    READ,
    events_of,
    frames_of,
    reply,
    written,
)
from tests.support.grammar import check_body, check_stream
from tests.support.shared import Exchange, generating_exchanges

ANSWERS = [
    exchange for exchange in generating_exchanges() if exchange.protocol == NAME and exchange.response.status == 200
]
_RAW_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def sdk_message(raw: bytes) -> Any:
    """What the official SDK's accumulator makes of a stream."""
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for data in frames_of(raw):
        if data["type"] != "ping":
            event = _RAW_EVENT.validate_python(data)
            snapshot = accumulate_event(event=event, current_snapshot=snapshot, json_bufs=buffers)
    return snapshot


def said(parts: Sequence[Part]) -> list[Part]:
    """The parts that say something; a call without arguments has an empty object."""
    return [
        structs.replace(part, arguments=part.arguments or "{}", native_id=True) if isinstance(part, ToolCall) else part
        for part in parts
        if part not in (Text(""), Thinking(summary=True))
    ]


def stream(*parts: Part, stop: str = "end", usage: Usage | None = None) -> list[Event]:
    return list(unfold(answer(*parts, stop=stop, usage=usage)))


def answer(*parts: Part, stop: str = "end", usage: Usage | None = None) -> Answer:
    return Answer(choices=(Choice(parts, Stop(stop)),), usage=usage)  # type: ignore[arg-type]


def body_of(given_answer: Answer, **changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(DIALECT.write_answer(given_answer, reply(**changes)))
    assert check_body(NAME, body) == []
    return body


def blocks_of(events: Sequence[Event], **changes: Any) -> list[dict[str, Any]]:
    """The content that a client's SDK has after the stream, which must be valid."""
    raw = written(events, reply(**changes))
    assert check_stream(NAME, raw) == []
    content: list[dict[str, Any]] = sdk_message(raw).to_dict()["content"]
    return content


# ---- recordings of this protocol


@pytest.mark.parametrize("exchange", ANSWERS, ids=str)
def test_a_recorded_answer_survives_reading_and_writing(exchange: Exchange) -> None:
    streamed = exchange.response.sse is not None
    events = (
        events_of(exchange.response.payload)
        if streamed
        else list(unfold(DIALECT.read_answer(exchange.response.payload, READ)))
    )
    raw = written(events)
    assert check_stream(NAME, raw) == []
    if isinstance(events[-1], Failed):
        return
    before, after = fold(events), fold(events_of(raw))
    kept = tuple(part for part in before.choices[0].parts if part != Text(""))
    assert after.choices[0].parts == kept
    assert after.choices[0].stop == before.choices[0].stop
    assert (after.id, after.model) == (before.id, before.model)
    whole = body_of(before)
    again = DIALECT.read_answer(DIALECT.write_answer(before, reply()), READ)
    assert said(again.choices[0].parts) == said(kept)
    if not streamed:
        expected = exchange.response.body
        assert whole["usage"] == {name: value for name, value in expected["usage"].items() if value is not None}
        for name in ("id", "model", "stop_reason", "stop_sequence"):
            assert whole[name] == expected[name]


# ---- order of blocks


def test_calls_that_interleave_become_one_block_each() -> None:
    calls = [ToolCall("call_A", "w"), ToolCall("call_B", "w")]
    events = [
        Start(id="c1", model="m"), PartStart(0, Text("")), Delta(0, "Hi "),
        PartStart(1, calls[0]), Delta(1, '{"c":'), PartStart(2, calls[1]), Delta(2, '{"c":"'),
        Delta(1, '"A"}'), Delta(2, 'B"}'),
        PartEnd(0, Text("Hi ")), PartEnd(1, ToolCall("call_A", "w", '{"c":"A"}')),
        PartEnd(2, ToolCall("call_B", "w", '{"c":"B"}')), Finish(Stop("tool_use")), End(),
    ]  # fmt: skip
    assert check_grammar(events) == []
    content = blocks_of(events)
    assert [block["type"] for block in content] == ["text", "tool_use", "tool_use"]
    assert [block["input"] for block in content[1:]] == [{"c": "A"}, {"c": "B"}]


def test_the_first_call_streams_while_the_second_waits() -> None:
    writer = DIALECT.stream_writer(reply())
    writer.write([Start(), PartStart(0, ToolCall("a", "f")), PartStart(1, ToolCall("b", "f"))])
    assert b"partial_json" in writer.write([Delta(0, "{")])
    assert writer.write([Delta(1, "{")]) == b""
    flushed = writer.write([Delta(0, "}"), PartEnd(0, ToolCall("a", "f", "{}"))])
    assert b'"id":"b"' in flushed


def test_text_is_never_held_back_by_reasoning_or_text_that_stays_open() -> None:
    writer = DIALECT.stream_writer(reply())
    writer.write([Start(), PartStart(0, Thinking()), Delta(0, "t"), PartStart(1, Text(""))])
    assert b"text_delta" in writer.write([Delta(1, "x")])
    assert b"thinking_delta" in writer.write([Delta(0, "more")])


def test_the_first_arguments_are_not_lost_when_the_block_changes() -> None:
    call = ToolCall("call_A", "f", '{"x":1}')
    events = [
        Start(), PartStart(0, Text("")), Delta(0, "a"), PartStart(1, ToolCall("call_A", "f")),
        Delta(1, '{"x":1}'), PartEnd(0, Text("a")), PartEnd(1, call), Finish(Stop("tool_use")), End(),
    ]  # fmt: skip
    assert blocks_of(events)[1]["input"] == {"x": 1}


def test_empty_parts_open_no_block_and_calls_without_arguments_are_objects() -> None:
    content = blocks_of(stream(Text(""), Thinking(), Refusal(""), ToolCall("a", "now"), stop="tool_use"))
    assert [(block["type"], block["input"]) for block in content] == [("tool_use", {})]


def test_other_choices_are_not_shown() -> None:
    two = Answer(choices=(Choice((Text("a"),), Stop("end")), Choice((Text("b"),), Stop("length"), 1)))
    events = list(unfold(two))
    assert [block["text"] for block in blocks_of(events)] == ["a"]
    assert body_of(two)["stop_reason"] == "end_turn"


def test_free_text_calls_are_objects_with_an_input() -> None:
    call = ToolCall("a", "patch", 'x "q" \\ \n é\u2028', kind="custom")
    assert blocks_of(stream(call))[0]["input"] == {"input": call.arguments}
    assert body_of(answer(call))["content"][0]["input"] == {"input": call.arguments}


def test_ids_outside_the_pattern_are_mapped_alike_in_both_forms() -> None:
    call = ToolCall("functions.search:0", "search", "{}")
    streamed, whole = blocks_of(stream(call))[0]["id"], body_of(answer(call))["content"][0]["id"]
    assert streamed == whole != call.id


def test_numbers_in_arguments_keep_their_spelling() -> None:
    call = ToolCall("a", "f", '{"n":12345678901234567890123,"x":1.50}')
    assert call.arguments.encode() in DIALECT.write_answer(answer(call), reply())


def test_arguments_that_are_no_object_are_kept_as_text() -> None:
    assert body_of(answer(ToolCall("a", "f", '{"cut')))["content"][0]["input"] == {"_raw": '{"cut'}


# ---- reasoning


def test_own_signatures_are_written_as_they_are() -> None:
    thinking = Thinking("t", seal=Seal(NAME, "signature", "S", MAKER))
    for block in (blocks_of(stream(thinking))[0], body_of(answer(thinking))["content"][0]):
        assert (block["type"], block["thinking"], block["signature"]) == ("thinking", "t", "S")


def test_foreign_and_missing_signatures_become_envelopes() -> None:
    foreign = Seal("openai-responses", "encrypted", "E", "openai/gpt")
    for seal, sealed_wanted, inside in (
        (foreign, True, foreign),
        (None, True, NO_SEAL),
        (foreign, False, NO_SEAL),
    ):
        thinking = Thinking("t", seal=seal)
        for block in (
            blocks_of(stream(thinking), sealed_wanted=sealed_wanted)[0],
            body_of(answer(thinking), sealed_wanted=sealed_wanted)["content"][0],
        ):
            assert ENVELOPE.open(block["signature"]) == inside


def test_sealed_reasoning_without_text_is_redacted_thinking() -> None:
    foreign = Seal("openai-responses", "encrypted", "E", "openai/gpt")
    own = Seal(NAME, "redacted", "R", MAKER)
    for thinking, data in ((Thinking(seal=own), "R"), (Thinking(seal=foreign), ENVELOPE.pack(foreign))):
        expected = {"type": "redacted_thinking", "data": data}
        assert blocks_of(stream(thinking)) == [expected]
        assert body_of(answer(thinking))["content"] == [expected]
    assert blocks_of(stream(Thinking(seal=foreign)), sealed_wanted=False) == []


def test_omitted_thinking_keeps_its_signature() -> None:
    thinking = Thinking(seal=Seal(NAME, "signature", "S", MAKER))
    block = blocks_of(stream(thinking), show_thinking=False)[0]
    assert (block["type"], block["thinking"], block["signature"]) == ("thinking", "", "S")


def test_clients_that_did_not_ask_get_no_thinking() -> None:
    foreign = Seal("openai-responses", "encrypted", "E", "openai/gpt")
    thinking = (Thinking("a"), Thinking("b", seal=Seal(NAME, "signature", "S")), Thinking("c", seal=foreign))
    shown = [{"type": "redacted_thinking", "data": ENVELOPE.pack(foreign)}, {"type": "text", "text": "x"}]
    assert blocks_of(stream(*thinking, Text("x")), show_thinking=False) == shown
    assert body_of(answer(*thinking, Text("x")), show_thinking=False)["content"] == shown


def test_summary_pieces_are_joined_by_a_blank_line() -> None:
    thinking = Thinking("a\n\nb", summary=True, pieces=("a", "b"))
    assert blocks_of(stream(thinking))[0]["thinking"] == "a\n\nb"


# ---- the other parts


def test_a_refusal_is_text_with_the_refusals_stop_reason() -> None:
    raw = written(stream(Refusal("no")))
    assert sdk_message(raw).stop_reason == "refusal"
    body = body_of(answer(Refusal("no")))
    assert (body["content"], body["stop_reason"]) == ([{"type": "text", "text": "no"}], "refusal")


def test_a_blocked_prompt_is_an_empty_refusal() -> None:
    stop = Stop("content_filter", detail="blocked", category="cyber")
    body = body_of(Answer(choices=(Choice((), stop),)))
    assert (body["content"], body["stop_reason"]) == ([], "refusal")
    assert body["stop_details"] == {"type": "refusal", "category": "cyber", "explanation": "blocked"}
    assert body_of(Answer())["content"] == []


PAGE = {
    "type": "page_location", "cited_text": "c", "document_index": 0, "document_title": None, "file_id": None,
    "start_page_number": 1, "end_page_number": 2,
}  # fmt: skip


def test_citations() -> None:
    own = Citation(origin=NAME, raw=PAGE)
    foreign = Citation(url="https://e.com", title="T", start=0, end=1)
    for block in (
        blocks_of(stream(Text("x", (own, foreign))))[0],
        body_of(answer(Text("x", (own, foreign))))["content"][0],
    ):
        assert block["citations"][0]["type"] == "page_location"
        assert block["citations"][1]["url"] == "https://e.com"


def test_foreign_citations_do_not_come_back_to_anthropic() -> None:
    block = body_of(answer(Text("x", (Citation(url="https://e.com"),))))["content"][0]
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": [block]}]
    body = json.dumps({"model": "m", "max_tokens": 1, "messages": messages}).encode()
    assert DIALECT.write_as_read(DIALECT.read_request(body))["messages"][1]["content"] == [
        {"type": "text", "text": "x"}
    ]


def test_generated_media_are_told_of() -> None:
    for part, text in (
        (Media("audio", data="aGk=", transcript="spoken"), "spoken"),
        (Media("image", url="https://e.com/a.png"), "![image](https://e.com/a.png)"),
        (
            Media("image", data="aGk=", mime="image/png"),
            "[generated image (image/png): this protocol cannot carry it]",
        ),
    ):
        assert blocks_of(stream(part)) == [{"type": "text", "text": text}]
        assert body_of(answer(part))["content"] == [{"type": "text", "text": text}]


def test_what_only_another_protocol_knows_is_left_out() -> None:
    events = [
        Start(),
        Note("gemini", "x", {}),
        Whole(0, Opaque("gemini", "x", {})),
        Finish(Stop("end")),
        End(),
    ]
    assert blocks_of(events) == []


# ---- usage, ids, ends


def test_usage_is_disjoint_and_estimated_where_unknown() -> None:
    usage = Usage(input=100, output=20, cache_read=80, cache_write_1h=0, reasoning=5)
    written_usage = body_of(answer(Text("x"), usage=usage))["usage"]
    assert (written_usage["input_tokens"], written_usage["cache_read_input_tokens"]) == (20, 80)
    assert written_usage["output_tokens_details"] == {"thinking_tokens": 5}
    unknown = body_of(answer(Text("x" * 40)))["usage"]
    assert (unknown["input_tokens"], unknown["output_tokens"]) == (77, 10)


def test_late_usage_stands_in_message_delta() -> None:
    events = [
        Start(), PartStart(0, Text("")), Delta(0, "x"), PartEnd(0, Text("x")), Finish(Stop("end")),
        UsageSeen(Usage(input=100, output=20, cache_read=80)), End(),
    ]  # fmt: skip
    frames = frames_of(written(events))
    assert frames[0]["message"]["usage"]["input_tokens"] == 77
    assert frames[-2]["usage"]["input_tokens"] == 20
    assert frames[-2]["usage"]["output_tokens"] == 20


def test_ids_and_model() -> None:
    for given_id, expected in (
        ("msg_7", "msg_7"),
        ("chatcmpl-1", "msg_" + "0" * 24),
        ("", "msg_" + "0" * 24),
    ):
        body = body_of(Answer(id=given_id, choices=(Choice((), Stop("end")),)))
        assert (body["id"], body["model"]) == (expected, "asked-model")
    assert body_of(Answer(model="m2"))["model"] == "m2"


@pytest.mark.parametrize(
    ("stop", "reason", "sequence"),
    [
        (Stop("stop_sequence", sequence="END"), "stop_sequence", "END"),
        (Stop("length"), "max_tokens", None),
        (Stop("context_full"), "model_context_window_exceeded", None),
        (Stop("malformed_tool"), "end_turn", None),
        (Stop("unknown"), "end_turn", None),
        (Stop("pause", raw="compaction"), "compaction", None),
        (Stop("end", raw="STOP"), "end_turn", None),
    ],
)
def test_stop_reasons(stop: Stop, reason: str, sequence: str | None) -> None:
    body = json.loads(DIALECT.write_answer(Answer(choices=(Choice((), stop),)), reply()))
    assert (body["stop_reason"], body["stop_sequence"]) == (reason, sequence)


def test_a_seen_call_makes_the_stop_reason_tool_use_but_for_a_cut_answer() -> None:
    call = ToolCall("a", "f", "{}")
    assert body_of(answer(call))["stop_reason"] == "tool_use"
    assert body_of(answer(call, stop="length"))["stop_reason"] == "max_tokens"


def test_a_failure_is_an_error_event_and_the_last() -> None:
    fault = Fault(kind="overloaded", message="Overloaded")
    events = [Start(), PartStart(0, Text("")), Delta(0, "Par"), Failed(fault)]
    raw = written(events)
    assert check_stream(NAME, raw) == []
    last = frames_of(raw)[-1]
    assert last["error"] == {"type": "overloaded_error", "message": "Overloaded"}
    writer = DIALECT.stream_writer(reply())
    writer.write(events)
    assert writer.write([Delta(0, "x")]) == writer.heartbeat() == b""


def test_pings_only_between_start_and_end() -> None:
    writer = DIALECT.stream_writer(reply())
    assert writer.heartbeat() == b""
    writer.write([Start()])
    assert writer.heartbeat().startswith(b"event: ping\n")
    assert writer.write([Heartbeat()]) == writer.heartbeat()
    writer.write([Finish(Stop("end")), End()])
    assert writer.heartbeat() == b""


def test_line_separators_are_escaped() -> None:
    raw = written(stream(Text("a\u2028b\u0085c")))
    assert "\u2028".encode() not in raw and "\u0085".encode() not in raw
    assert sdk_message(raw).content[0].text == "a\u2028b\u0085c"


# ---- any events at all


@st.composite
def event_sequences(draw: st.DrawFn) -> list[Event]:
    """A valid sequence with parts that are open at once, in any order, of several choices."""
    events: list[Event] = [Start()]
    parts: list[OpenPart] = []
    opened: list[int] = []
    for _ in range(draw(st.integers(0, 14))):
        action = draw(st.sampled_from(["start", "delta", "delta", "end", "seal", "cite", "whole", "beat"]))
        if action == "start":
            skeleton = draw(
                st.sampled_from(
                    [
                        Text(""),
                        Refusal(""),
                        Thinking(),
                        ToolCall("c.1", "f"),
                        ToolCall("d", "g", kind="custom"),
                    ]
                )
            )
            choice = draw(st.sampled_from([0, 0, 0, 1]))
            opened.append(len(parts))
            events.append(PartStart(len(parts), skeleton, choice))
            parts.append(OpenPart(skeleton, choice))
        elif action == "whole":
            content = draw(
                st.sampled_from(
                    [Media("image", data="aGk="), Opaque(NAME, "x", {"type": "x"}), Opaque("gemini", "y", {})]
                )
            )
            events.append(Whole(len(parts), content))
            parts.append(OpenPart(Text("")))
        elif action == "beat":
            events.append(Heartbeat())
        elif opened:
            number = draw(st.sampled_from(opened))
            part = parts[number]
            if action == "delta":
                text = draw(st.sampled_from(["{}", "a", "\u2028", '"']))
                part.add(text)
                events.append(Delta(number, text))
            elif action == "seal" and not isinstance(part.skeleton, Refusal):
                part.seal = draw(st.sampled_from([Seal(NAME, "signature", "S"), Seal("gemini", "thought", "T")]))
                events.append(Sealed(number, part.seal))
            elif action == "cite" and isinstance(part.skeleton, Text):
                part.citations.append(Citation(url="u"))
                events.append(Cited(number, Citation(url="u")))
            elif action == "end":
                opened.remove(number)
                events.append(PartEnd(number, part.whole()))
    events += [PartEnd(number, parts[number].whole()) for number in opened]
    events += [Finish(Stop("end"), choice) for choice in (0, 1)]
    return [*events, End()]


@settings(max_examples=160, deadline=None)
@given(event_sequences(), st.booleans(), st.booleans())
def test_any_events_give_a_valid_stream_that_loses_no_text(events: list[Event], shown: bool, sealed: bool) -> None:
    assert check_grammar(events) == []
    raw = written(events, reply(show_thinking=shown, sealed_wanted=sealed))
    assert check_stream(NAME, raw) == []
    said = (
        [part for part in fold(events).choices[0].parts if isinstance(part, Text | Refusal)] if len(events) > 4 else []
    )
    got = fold(events_of(raw))
    texts = "".join(part.text for part in got.choices[0].parts if isinstance(part, Text))
    assert sorted(texts.replace("[generated image: this protocol cannot carry it]", "")) == sorted(
        "".join(part.text for part in said)
    )
