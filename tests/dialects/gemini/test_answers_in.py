"""Answers of Gemini providers, streamed or whole: every recording means what Google's own SDK reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.conversation.events import Event, Failed, Heartbeat, Start, UsageSeen
from llm_proxy.conversation.fault import FaultError
from llm_proxy.conversation.fold import check_grammar, fold, unfold
from llm_proxy.conversation.parts import Citation, Media, Opaque, Seal, Text, Thinking, ToolCall
from llm_proxy.dialects.gemini import DIALECT
from llm_proxy.wire.sse import Frame
from tests.dialects.gemini.support import (
    MAKER,
    NAME,
    READ,
    answer_of,
    call,
    chunk,
    chunks_in,
    events_of,
    parts_of,
    reply,
    sse,
    written,
)
from tests.support.grammar import check_body, check_stream
from tests.support.shared import Exchange, generating_exchanges, semantics

ANSWERS = [
    exchange for exchange in generating_exchanges() if exchange.protocol == NAME and exchange.response.status == 200
]
WORDS = {"end": "stop", "pause": "stop", "stop_sequence": "stop"}


def read_exchange(exchange: Exchange, cuts: tuple[int, ...] = ()) -> list[Event]:
    if exchange.stream:
        return events_of(exchange.response.payload_as_sse, cuts)
    return list(unfold(DIALECT.read_answer(exchange.response.payload, READ)))


@pytest.mark.parametrize("exchange", ANSWERS, ids=str)
def test_a_recorded_answer_means_what_its_sdk_reads(exchange: Exchange) -> None:
    expected = semantics()[exchange.file]["semantic"]
    events = read_exchange(exchange)
    assert check_grammar(events) == []
    if expected["error"] is not None or "truncated-stream" in exchange.kinds or isinstance(events[-1], Failed):
        assert isinstance(events[-1], Failed)
        if expected["error"] is not None:
            assert events[-1].fault.message == expected["error"]["message"]
        return
    answer = fold(events)
    parts = parts_of(answer)
    assert "".join(part.text for part in parts if isinstance(part, Text)) == expected["text"]
    assert "".join(part.text for part in parts if isinstance(part, Thinking)) == expected["thinking"]
    calls = [(part.name, json.loads(part.arguments)) for part in parts if isinstance(part, ToolCall)]
    wanted = [(one["name"], one["args"]) for one in expected["tool_calls"]]
    if "partialArgs" in (exchange.response.sse or ""):
        # The SDK does not put streamed arguments together.
        assert [name for name, _ in calls] == [name for name, _ in wanted]
        assert all(arguments for name, arguments in calls if name in ("getWeather", "read_screen"))
    else:
        assert calls == wanted
    stop = answer.choices[0].stop.kind
    assert WORDS.get(stop, stop) == expected["stop"]
    assert answer.usage is not None
    counted = {
        "input": answer.usage.input,
        "output": answer.usage.output,
        "cache_read": answer.usage.cache_read,
        "cache_write": answer.usage.cache_write,
        "reasoning": answer.usage.reasoning,
    }
    assert counted == expected["usage"]
    assert sum(isinstance(part, Media) for part in parts) == expected["media_out"]
    tools = [part.server_tool for part in parts if isinstance(part, Opaque) and part.server_tool]
    assert tools == expected["server_tools"]
    cited = sum(len(part.citations) for part in parts if isinstance(part, Text))
    assert cited >= expected["citations"]


@pytest.mark.parametrize("exchange", [one for one in ANSWERS if one.stream], ids=str)
def test_how_the_bytes_are_cut_does_not_matter(exchange: Exchange) -> None:
    raw = exchange.response.payload_as_sse
    whole = events_of(raw)
    step = max(1, len(raw) // 97)
    assert events_of(raw, tuple(range(step, len(raw), step))) == whole
    if len(raw) < 4000:
        assert events_of(raw, tuple(range(1, len(raw)))) == whole


@pytest.mark.parametrize("exchange", ANSWERS, ids=str)
def test_a_recorded_answer_written_again_is_strict_and_means_the_same(exchange: Exchange) -> None:
    events = read_exchange(exchange)
    if isinstance(events[-1], Failed):
        assert "error" in chunks_in(written(events))[-1]
        return
    first = fold(events)
    writer = DIALECT.stream_writer(reply())
    raw = written(events) if exchange.stream else writer.write(events)
    assert check_stream(NAME, raw) == []
    again = fold(events_of(raw))
    assert [_without_citations(part) for part in parts_of(again)] == [
        _without_citations(part) for part in parts_of(first)
    ]
    assert again.choices[0].stop == first.choices[0].stop
    assert again.usage is not None and first.usage is not None
    assert (again.usage.input, again.usage.output) == (first.usage.input, first.usage.output)
    body = DIALECT.write_answer(first, reply())
    assert check_body(NAME, json.loads(body)) == []
    folded = DIALECT.read_answer(body, READ)
    assert _texts(parts_of(folded)) == _texts(parts_of(first))


def _without_citations(part: Any) -> Any:
    import msgspec

    return msgspec.structs.replace(part, citations=()) if isinstance(part, Text) else part


def _texts(parts: Any) -> tuple[str, str]:
    return (
        "".join(part.text for part in parts if isinstance(part, Text)),
        "".join(part.text for part in parts if isinstance(part, Thinking)),
    )


USAGE = {
    "promptTokenCount": 100,
    "candidatesTokenCount": 15,
    "thoughtsTokenCount": 5,
    "cachedContentTokenCount": 80,
    "toolUsePromptTokenCount": 7,
    "totalTokenCount": 127,
}


def test_usage_counts_tool_prompts_as_input_and_thoughts_as_output() -> None:
    usage = answer_of(chunk({"text": "x"}, reason="STOP", usage=USAGE)).usage
    assert usage is not None
    assert (usage.input, usage.output, usage.reasoning, usage.cache_read, usage.tool_prompt) == (
        107,
        20,
        5,
        80,
        7,
    )
    assert usage.total == 127


def test_usage_is_cumulative_and_the_last_of_each_count_wins() -> None:
    usage = answer_of(
        chunk({"text": "x"}, usage={"promptTokenCount": 9, "thoughtsTokenCount": 4, "totalTokenCount": 13}),
        chunk({"text": "y"}, usage={"promptTokenCount": 9, "candidatesTokenCount": 2, "totalTokenCount": 15}),
        chunk(reason="STOP", usage={"trafficType": "ON_DEMAND"}),
    ).usage
    assert usage is not None
    assert (usage.input, usage.output, usage.reasoning) == (9, 6, 4)


def test_the_start_tells_what_is_known() -> None:
    first = chunk({"text": "x"}, usage={"promptTokenCount": 9, "totalTokenCount": 9})
    first["createTime"] = "2026-05-19T10:00:00Z"
    start = events_of(sse([first]))[0]
    assert isinstance(start, Start)
    assert (start.id, start.model, start.created) == ("r1", "gemini-2.5-flash", 1779184800)
    assert start.usage is not None and start.usage.input == 9


def test_stop_after_a_call_in_an_earlier_chunk_is_tool_use() -> None:
    answer = answer_of(
        chunk({"text": "plan", "thought": True}),
        chunk({**call("w", {"c": "A"}), "thoughtSignature": "U0lH"}),
        chunk(call("w", {"c": "B"})),
        chunk({"text": ""}, reason="STOP", usage=USAGE),
    )
    thinking, first, second = parts_of(answer)
    assert thinking == Thinking("plan")
    assert isinstance(first, ToolCall) and first.seal == Seal(NAME, "thought", "U0lH", MAKER)
    assert isinstance(second, ToolCall) and second.seal is None
    assert first.id != second.id and not first.native_id
    assert answer.choices[0].stop.kind == "tool_use"


def test_made_up_ids_are_the_same_for_the_same_answer_and_differ_between_answers() -> None:
    def made(response_id: str) -> str:
        one = {**chunk(call("w"), reason="STOP"), "responseId": response_id}
        part = parts_of(answer_of(one))[0]
        assert isinstance(part, ToolCall)
        return part.id

    assert made("r1") == made("r1") != made("r2")


def test_answers_without_an_id_still_get_different_call_ids() -> None:
    def made(args: dict[str, Any]) -> str:
        one = chunk(call("w", args), reason="STOP")
        del one["responseId"]
        part = parts_of(answer_of(one))[0]
        assert isinstance(part, ToolCall)
        return part.id

    assert made({"a": 1}) != made({"a": 2})


def test_ids_of_the_model_are_kept() -> None:
    part = parts_of(answer_of(chunk(call("w", id="abc"), reason="STOP")))[0]
    assert part == ToolCall("abc", "w", "{}")


def test_signed_text_is_a_part_of_its_own() -> None:
    answer = answer_of(
        chunk({"text": "a"}),
        chunk({"text": "b", "thoughtSignature": "QQ=="}),
        chunk({"text": "c"}),
        chunk({"text": "", "thoughtSignature": "Qg=="}, reason="STOP"),
    )
    assert [(part.text, part.seal and part.seal.value) for part in parts_of(answer) if isinstance(part, Text)] == [
        ("a", None),
        ("b", "QQ=="),
        ("c", None),
        ("", "Qg=="),
    ]


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("STOP", "end"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "malformed_tool"),
        ("BRAND_NEW", "unknown"),
    ],
)
def test_reasons(reason: str, kind: str) -> None:
    stop = answer_of(chunk({"text": "x"}, reason=reason, finishMessage="why")).choices[0].stop
    assert (stop.kind, stop.raw) == (kind, reason)
    assert stop.detail == ("" if kind == "end" else "why")


def test_length_wins_over_a_call() -> None:
    assert answer_of(chunk(call("w"), reason="MAX_TOKENS")).choices[0].stop.kind == "length"


def test_a_blocked_prompt_is_an_answer_that_was_filtered() -> None:
    blocked = {
        "promptFeedback": {"blockReason": "SAFETY"},
        "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9},
    }
    for answer in (answer_of(blocked), DIALECT.read_answer(json.dumps(blocked).encode(), READ)):
        (choice,) = answer.choices
        assert (choice.parts, choice.stop.kind, choice.stop.raw) == ((), "content_filter", "SAFETY")
        assert answer.usage is not None and answer.usage.input == 9
        body = json.loads(DIALECT.write_answer(answer, reply()))
        assert body["candidates"][0]["finishReason"] == "SAFETY"
    again = written(events_of(sse([blocked])))
    assert chunks_in(again)[-1]["promptFeedback"] == blocked["promptFeedback"]


def test_offsets_are_bytes_over_there_and_code_points_here() -> None:
    text = "Größe: 4 m."
    grounding = {
        "groundingChunks": [
            {"web": {"uri": "https://a", "title": "A"}},
            {"web": {"uri": "https://b", "title": "B"}},
        ],
        "groundingSupports": [
            {"segment": {"startIndex": 9, "endIndex": 13, "text": "4 m."}, "groundingChunkIndices": [0]}
        ],
    }
    answer = answer_of(
        chunk({"text": text[:4]}),
        chunk({"text": text[4:]}),
        chunk(reason="STOP", groundingMetadata=grounding),
    )
    (part,) = parts_of(answer)
    assert isinstance(part, Text)
    assert part.citations == (
        Citation("https://a", "A", 7, 11, "4 m.", NAME),
        Citation("https://b", "B", origin=NAME),
    )
    assert text[7:11] == "4 m."


def test_what_only_gemini_knows_travels_whole() -> None:
    code = {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "QQ=="}
    result = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}}
    search = {"toolCall": {"toolType": "GOOGLE_SEARCH_WEB", "id": "1", "args": {}}}
    parts = parts_of(answer_of(chunk(code, result, search, reason="STOP")))
    assert parts == (
        Opaque(NAME, "executableCode", code, server_tool="code_execution"),
        Opaque(NAME, "codeExecutionResult", result),
        Opaque(NAME, "toolCall", search, server_tool="GOOGLE_SEARCH_WEB"),
    )


def test_streamed_arguments_are_put_together() -> None:
    answer = answer_of(
        chunk({"functionCall": {"name": "w", "willContinue": True}, "thoughtSignature": "QQ=="}),
        chunk(
            {
                "functionCall": {
                    "partialArgs": [{"jsonPath": "$.a", "stringValue": "Bos", "willContinue": True}],
                    "willContinue": True,
                }
            }
        ),
        chunk(
            {
                "functionCall": {
                    "partialArgs": [{"jsonPath": "$.a", "stringValue": "ton"}],
                    "willContinue": True,
                }
            }
        ),
        chunk(
            {
                "functionCall": {
                    "partialArgs": [{"jsonPath": "$.l[0].n", "numberValue": 2}],
                    "willContinue": True,
                }
            }
        ),
        chunk({"functionCall": {"partialArgs": [{"jsonPath": "$['b c']", "boolValue": True}]}}),
        chunk({"functionCall": {"name": "now", "willContinue": True}}),
        chunk({"functionCall": {}}, reason="STOP"),
    )
    first, second = parts_of(answer)
    assert isinstance(first, ToolCall) and isinstance(second, ToolCall)
    assert json.loads(first.arguments) == {"a": "Boston", "l": [{"n": 2}], "b c": True}
    assert (second.name, second.arguments) == ("now", "{}")


def test_probabilities_take_chats_shape() -> None:
    result = {
        "chosenCandidates": [{"token": "é", "logProbability": -0.5}],
        "topCandidates": [{"candidates": [{"token": "e", "logProbability": -1}]}],
    }
    (choice,) = answer_of(chunk({"text": "é"}, reason="STOP", logprobsResult=result)).choices
    assert choice.logprobs == (
        {
            "token": "é",
            "logprob": -0.5,
            "bytes": [195, 169],
            "top_logprobs": [{"token": "e", "logprob": -1, "bytes": [101]}],
        },
    )


def test_a_stream_that_ends_without_a_reason_is_broken() -> None:
    events = events_of(sse([chunk({"text": "half"})]))
    assert isinstance(events[-1], Failed) and events[-1].fault.kind == "closed"
    assert isinstance(events_of(b"")[-1], Failed)


def test_an_error_in_the_stream_ends_it() -> None:
    error = {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}
    events = events_of(sse([chunk({"text": "half"}), error, chunk({"text": "more"}, reason="STOP")]))
    last = events[-1]
    assert isinstance(last, Failed)
    assert (last.fault.kind, last.fault.message) == ("overloaded", "overloaded")
    assert sum(isinstance(event, Failed) for event in events) == 1


def test_three_broken_frames_are_skipped_and_the_fourth_ends_the_stream() -> None:
    good = sse([chunk({"text": "x"}, reason="STOP")])
    assert fold(events_of(b"data: {no\n\n" * 3 + good)).choices[0].parts == (Text("x"),)
    assert isinstance(events_of(b"data: {no\n\n" * 4 + good)[-1], Failed)


def test_comments_and_done_of_look_alikes_are_tolerated() -> None:
    raw = b": hi\n\n" + sse([chunk({"text": "x"})]) + b": ping\n\n" + sse([chunk(reason="STOP")]) + b"data: [DONE]\n\n"
    events = events_of(raw)
    assert check_grammar(events) == []
    assert sum(isinstance(event, Heartbeat) for event in events) == 1
    assert fold(events).choices[0].parts == (Text("x"),)


def test_elements_of_an_array_and_wrapped_chunks_are_read_alike() -> None:
    one = chunk({"text": "x"}, reason="STOP", usage=USAGE)
    plain = answer_of(one)
    data = json.dumps(one).encode()
    reader = DIALECT.stream_reader(READ)
    assert fold([*reader.feed(Frame(data, "", data)), *reader.close()]) == plain
    assert answer_of({"response": one, "traceId": "t"}) == plain
    assert DIALECT.read_answer(json.dumps([one]).encode(), READ).choices == plain.choices


def test_several_candidates_are_several_choices() -> None:
    one = chunk({"text": "a"}, reason="STOP")
    one["candidates"].append({"index": 1, "content": {"parts": [{"text": "b"}]}, "finishReason": "MAX_TOKENS"})
    answer = answer_of(one)
    assert [(choice.parts[0].text, choice.stop.kind) for choice in answer.choices] == [  # type: ignore[union-attr]
        ("a", "end"),
        ("b", "length"),
    ]


def test_unicode_survives_whatever_the_cuts() -> None:
    text = "a\u2028b\u0085c😀é漢"
    raw = sse([chunk({"text": text}, reason="STOP")])
    direct = b"data: " + json.dumps(chunk({"text": text}, reason="STOP"), ensure_ascii=False).encode() + b"\n\n"
    for stream in (raw, direct):
        for cut in range(1, len(stream)):
            assert parts_of(fold(events_of(stream, (cut,)))) == (Text(text),)


def test_a_lone_surrogate_becomes_the_replacement_character() -> None:
    raw = sse([chunk({"text": "QQ"}, reason="STOP")]).replace(b"QQ", b"\\ud83d")
    assert parts_of(fold(events_of(raw))) == (Text("\ufffd"),)


@pytest.mark.parametrize("body", [b"", b"<html>", b"{", b"[]", b"7", b"{}", b'{"candidates":[]}', b"[1]"])
def test_a_body_that_is_no_answer_raises_a_fault(body: bytes) -> None:
    with pytest.raises(FaultError) as raised:
        DIALECT.read_answer(body, READ)
    assert raised.value.fault.kind == "upstream"


def test_an_error_in_a_body_raises_it() -> None:
    with pytest.raises(FaultError) as raised:
        DIALECT.read_answer(b'{"error":{"code":429,"message":"slow","status":"RESOURCE_EXHAUSTED"}}', READ)
    assert raised.value.fault.kind == "rate_limit"


def test_usage_is_told_as_soon_as_it_changes() -> None:
    events = events_of(
        sse(
            [
                chunk({"text": "x"}, usage={"promptTokenCount": 9, "totalTokenCount": 9}),
                chunk({"text": "x"}, usage={"promptTokenCount": 9, "totalTokenCount": 9}),
                chunk(
                    {"text": "x"},
                    usage={"promptTokenCount": 9, "candidatesTokenCount": 1, "totalTokenCount": 10},
                ),
            ]
        )
    )
    assert [event.usage.output for event in events if isinstance(event, UsageSeen)] == [1]
