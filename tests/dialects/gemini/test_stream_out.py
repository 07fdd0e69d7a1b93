"""What a Gemini client gets: strict frames, whole calls, reasons and usage in the last chunk."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from llm_proxy.conversation.answer import Answer, Choice, Stop
from llm_proxy.conversation.events import (
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
)
from llm_proxy.conversation.fault import Fault
from llm_proxy.conversation.fold import unfold
from llm_proxy.conversation.parts import Citation, Media, Opaque, Refusal, Seal, Text, Thinking, ToolCall
from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects.base import ModelInfo
from llm_proxy.dialects.gemini import DIALECT
from tests.dialects.gemini.support import ENVELOPE, NAME, chunks_in, reply, written
from tests.support.grammar import check_body, check_stream

FOREIGN = Seal("anthropic-messages", "signature", "sig", "anthropic/claude")


def answer(*parts: Any, stop: Stop | None = None, usage: Usage | None = None) -> Answer:
    return Answer(id="msg_1", model="claude", choices=(Choice(tuple(parts), stop or Stop("end")),), usage=usage)


def streamed(*parts: Any, **changes: Any) -> list[Any]:
    raw = written(unfold(answer(*parts)), **changes)
    assert check_stream(NAME, raw) == []
    return chunks_in(raw)


def sent_parts(chunks: list[Any]) -> list[Any]:
    return [
        part
        for one in chunks
        for candidate in one["candidates"]
        for part in candidate.get("content", {}).get("parts", [])
        if part != {"text": ""}
    ]


def test_text_goes_out_as_it_comes_and_the_last_chunk_says_why_it_ended() -> None:
    writer = DIALECT.stream_writer(reply())
    assert writer.write([Start(id="x", model="claude"), PartStart(0, Text(""))]) == b""
    first = writer.write([Delta(0, "Hel")])
    assert chunks_in(first)[0]["candidates"] == [{"content": {"parts": [{"text": "Hel"}], "role": "model"}, "index": 0}]
    assert writer.write([PartEnd(0, Text("Hel")), Finish(Stop("length"))]) == b""
    last = chunks_in(writer.write([UsageSeen(Usage(input=5, output=2)), End()]))[0]
    assert last["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert last["usageMetadata"] == {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}
    assert (last["responseId"], last["modelVersion"]) == ("x", "claude")
    assert writer.write([Delta(0, "late")]) == b""


def test_no_comment_no_event_name_no_done() -> None:
    writer = DIALECT.stream_writer(reply())
    raw = writer.write(list(unfold(answer(Text("x"))))) + writer.heartbeat()
    assert all(line.startswith(b"data: {") for line in raw.split(b"\r\n") if line)
    assert raw.endswith(b"\r\n\r\n") and b"[DONE]" not in raw
    assert DIALECT.heartbeat == b"" == writer.write([Heartbeat()])


def test_overlapping_calls_come_whole() -> None:
    events: list[Event] = [
        Start(id="x"),
        PartStart(0, ToolCall("a", "w")),
        Delta(0, '{"c":'),
        PartStart(1, ToolCall("b", "w")),
        Delta(1, '{"c":"'),
        Delta(0, '"A"}'),
        Delta(1, 'B"}'),
        PartEnd(1, ToolCall("b", "w", '{"c":"B"}')),
        PartEnd(0, ToolCall("a", "w", '{"c":"A"}')),
        Finish(Stop("tool_use")),
        End(),
    ]
    raw = written(events)
    assert check_stream(NAME, raw) == []
    chunks = chunks_in(raw)
    assert [part["functionCall"]["args"]["c"] for part in sent_parts(chunks)] == ["B", "A"]
    assert chunks[-1]["candidates"][0]["finishReason"] == "STOP"


def test_ids_of_calls_are_shown_unless_the_proxy_made_them() -> None:
    parts = sent_parts(streamed(ToolCall("toolu_1", "w"), ToolCall("made", "w", native_id=False)))
    assert parts == [
        {"functionCall": {"id": "toolu_1", "name": "w", "args": {}}},
        {"functionCall": {"name": "w", "args": {}}},
    ]


@pytest.mark.parametrize(
    ("call", "args"),
    [
        (ToolCall("1", "w", ""), {}),
        (ToolCall("1", "w", "{broken"), {"_raw": "{broken"}),
        (ToolCall("1", "w", 'a "b"\n', kind="custom"), {"input": 'a "b"\n'}),
        (ToolCall("1", "w", '{"n":12345678901234567890}'), {"n": 12345678901234567890}),
    ],
)
def test_arguments_are_always_an_object(call: ToolCall, args: Any) -> None:
    assert sent_parts(streamed(call))[0]["functionCall"]["args"] == args


def test_foreign_seals_travel_in_the_native_field_as_base64() -> None:
    thinking, call = Thinking("plan", seal=FOREIGN), ToolCall("1", "w", seal=Seal(NAME, "thought", "T1dO"))
    parts = sent_parts(streamed(thinking, call))
    packed = next(part["thoughtSignature"] for part in parts if part.get("thought") and "thoughtSignature" in part)
    assert ENVELOPE.open(base64.b64decode(packed, validate=True).decode()) == FOREIGN
    assert parts[-1]["thoughtSignature"] == "T1dO"
    unwanted = sent_parts(streamed(thinking, call, sealed_wanted=False))
    assert [part.get("thoughtSignature") for part in unwanted] == [None, "T1dO"]


def test_a_signature_stands_on_the_text_it_came_with() -> None:
    seal = Seal(NAME, "thought", "T1dO")
    events = [
        Start(id="x"),
        PartStart(0, Text("")),
        Sealed(0, seal),
        Delta(0, "b"),
        PartEnd(0, Text("b", seal=seal)),
        Finish(Stop("end")),
        End(),
    ]
    assert sent_parts(chunks_in(written(events))) == [{"text": "b", "thoughtSignature": "T1dO"}]
    assert sent_parts(streamed(Text("", seal=seal))) == [{"text": "", "thoughtSignature": "T1dO"}]


def test_thoughts_are_left_out_for_a_client_that_must_not_see_them() -> None:
    assert sent_parts(streamed(Thinking("plan", seal=FOREIGN), Text("x"), show_thinking=False)) == [{"text": "x"}]
    shown = sent_parts(streamed(Thinking("a\n\nb", pieces=("a", "b"))))
    assert "".join(part["text"] for part in shown) == "a\n\nb"
    assert all(part["thought"] for part in shown)


def test_refusals_media_and_opaque_parts() -> None:
    own = {"executableCode": {"code": "1"}}
    parts = sent_parts(
        streamed(
            Refusal("no"),
            Media("image", data="iVBORw0=", mime="image/png"),
            Opaque(NAME, "executableCode", own),
            Opaque("anthropic-messages", "server_tool_use", {"a": 1}),
        )
    )
    assert parts == [{"text": "no"}, {"inlineData": {"mimeType": "image/png", "data": "iVBORw0="}}, own]


def test_sources_get_byte_offsets_over_the_whole_text() -> None:
    cited = Text("Größe 4", (Citation("https://a", "A", 6, 7),))
    last = streamed(Text("é "), cited)[-1]
    assert last["candidates"][0]["groundingMetadata"] == {
        "groundingChunks": [{"web": {"uri": "https://a", "title": "A"}}],
        "groundingSupports": [
            {"segment": {"startIndex": 11, "endIndex": 12, "text": "4"}, "groundingChunkIndices": [0]}
        ],
    }


def test_notes_of_this_protocol_come_back_and_others_are_dropped() -> None:
    events: list[Event] = [
        Start(id="x"),
        Note(NAME, "candidate", {"index": 0, "safetyRatings": [{"category": "C"}]}),
        Note("openai-responses", "response.queued", {"a": 1}),
        Whole(0, Media("audio", data="AA==", mime="audio/wav", transcript="hi")),
        Finish(Stop("end")),
        End(),
    ]
    raw = written(events)
    assert chunks_in(raw)[-1]["candidates"][0]["safetyRatings"] == [{"category": "C"}]
    assert b"queued" not in raw and b'"hi"' in raw


@pytest.mark.parametrize(
    ("stop", "word"),
    [
        (Stop("end"), "STOP"),
        (Stop("stop_sequence", sequence="x"), "STOP"),
        (Stop("context_full"), "MAX_TOKENS"),
        (Stop("content_filter", raw="refusal"), "SAFETY"),
        (Stop("content_filter", raw="RECITATION"), "RECITATION"),
        (Stop("malformed_tool"), "MALFORMED_FUNCTION_CALL"),
        (Stop("unknown", raw="eos"), "STOP"),
        (Stop("unknown", raw="OTHER"), "OTHER"),
    ],
)
def test_reasons(stop: Stop, word: str) -> None:
    body = json.loads(DIALECT.write_answer(answer(Text("x"), stop=stop), reply()))
    assert body["candidates"][0]["finishReason"] == word


def test_a_failure_is_an_error_chunk_and_the_end() -> None:
    writer = DIALECT.stream_writer(reply())
    fault = Fault(kind="overloaded", message="Overloaded", status=529)
    raw = writer.write([Start(id="x"), PartStart(0, Text("")), Delta(0, "Par"), Failed(fault)])
    assert check_stream(NAME, raw) == []
    text, error = chunks_in(raw)
    assert text["candidates"][0]["content"]["parts"] == [{"text": "Par"}]
    assert error["error"] == {"code": 503, "message": "Overloaded", "status": "UNAVAILABLE"}
    assert writer.write([End()]) == b""


@pytest.mark.parametrize(
    "last",
    [[PartEnd(0, Text("a")), Finish(Stop("end")), End()], [Failed(Fault(kind="closed", message="cut"))]],
)
def test_without_alt_sse_the_stream_is_one_json_array(last: list[Event]) -> None:
    writer = DIALECT.stream_writer(reply(array=True))
    raw = writer.write([Start(id="x"), PartStart(0, Text("")), Delta(0, "a")])
    assert raw.startswith(b"[{") and not raw.endswith(b"]")
    raw += writer.write(last)
    elements = json.loads(raw)
    assert elements[0]["candidates"][0]["content"]["parts"] == [{"text": "a"}]
    assert ("error" in elements[-1]) is (len(last) == 1)


def test_a_failure_before_anything_is_an_array_too() -> None:
    raw = DIALECT.stream_writer(reply(array=True)).write([Failed(Fault(kind="timeout", message="slow"))])
    assert json.loads(raw)[0]["error"]["status"] == "DEADLINE_EXCEEDED"


def test_usage_adds_up_and_is_estimated_when_unknown() -> None:
    usage = Usage(input=107, output=20, reasoning=5, cache_read=80, cache_write=3, tool_prompt=7)
    body = json.loads(DIALECT.write_answer(answer(Text("x"), usage=usage), reply()))
    assert body["usageMetadata"] == {
        "promptTokenCount": 100,
        "candidatesTokenCount": 15,
        "cachedContentTokenCount": 80,
        "thoughtsTokenCount": 5,
        "toolUsePromptTokenCount": 7,
        "totalTokenCount": 127,
    }
    unknown = json.loads(DIALECT.write_answer(answer(Text("x")), reply()))
    assert unknown["usageMetadata"]["promptTokenCount"] == 77


def test_an_answer_without_content_is_still_valid() -> None:
    for stop in (Stop("end"), Stop("content_filter")):
        body = json.loads(DIALECT.write_answer(answer(stop=stop), reply()))
        assert check_body(NAME, body) == []
    assert check_stream(NAME, written([Start(), Finish(Stop("end")), End()])) == []
    assert check_stream(NAME, written([Start(), End()])) == []


def test_models_and_counts() -> None:
    info = ModelInfo("openai:gpt-4o", owner="openai", context_window=128000, max_output=16384)
    (model,) = json.loads(DIALECT.write_models([info]))["models"]
    assert model["name"] == "models/openai:gpt-4o"
    assert (model["inputTokenLimit"], model["outputTokenLimit"]) == (128000, 16384)
    assert "generateContent" in model["supportedGenerationMethods"]
    assert json.loads(DIALECT.write_model(info)) == model
    assert json.loads(DIALECT.write_count(9)) == {"totalTokens": 9}
    assert DIALECT.read_count(DIALECT.write_count(9)) == 9
    listed = DIALECT.read_models(
        json.dumps(
            {
                "models": [
                    {
                        "name": "models/g",
                        "supportedGenerationMethods": ["generateContent"],
                        "inputTokenLimit": 5,
                    },
                    {"name": "models/e", "supportedGenerationMethods": ["embedContent"]},
                    7,
                ]
            }
        ).encode()
    )
    assert listed == [ModelInfo("g", owner="google", context_window=5)]
