"""Random input: readers raise faults only, cuts do not matter, and what is written is always valid."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.conversation.answer import Answer, Choice, Stop, StopKind
from llm_proxy.conversation.events import Event, PartStart
from llm_proxy.conversation.fault import FaultError
from llm_proxy.conversation.fold import check_grammar, fold, unfold, unfold_part
from llm_proxy.conversation.parts import Media, Opaque, Refusal, Seal, Text, Thinking, ToolCall
from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects.gemini import DIALECT
from llm_proxy.wire.sse import Frame
from tests.dialects.gemini.support import NAME, READ, events_of, reply, sse, target, written
from tests.support.grammar import check_body, check_stream

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
SEALS = st.none() | st.builds(
    Seal,
    origin=st.sampled_from(["gemini", "anthropic-messages"]),
    kind=st.sampled_from(["thought", "signature"]),
    value=st.sampled_from(["QQ==", "Qg=="]),
    maker=st.just("gemini/gemini"),
)
CALLS = st.builds(
    ToolCall,
    id=st.uuids().map(str),
    name=st.sampled_from(["w", "now"]),
    arguments=st.sampled_from(["", "{}", '{"a":"é"}', "broken"]),
    kind=st.sampled_from(["function", "custom"]),
    native_id=st.booleans(),
    seal=SEALS,
)
PARTS = st.one_of(
    st.builds(Text, TEXT, seal=SEALS),
    st.builds(Refusal, TEXT),
    st.builds(Thinking, TEXT, seal=SEALS),
    CALLS,
    st.just(Media("image", data="iVBORw0=", mime="image/png")),
    st.just(Opaque("gemini", "executableCode", {"executableCode": {"code": "1"}})),
    st.just(Opaque("openai-responses", "web_search_call", {"id": "1"})),
)
KINDS: tuple[StopKind, ...] = (
    "end",
    "length",
    "tool_use",
    "content_filter",
    "unknown",
    "malformed_tool",
    "pause",
)
CHOICES = st.lists(
    st.builds(Choice, st.lists(PARTS, max_size=5).map(tuple), st.sampled_from(KINDS).map(Stop)),
    min_size=1,
    max_size=3,
)
USAGES = st.none() | st.builds(
    Usage,
    input=st.none() | st.integers(0, 99),
    output=st.none() | st.integers(0, 99),
    reasoning=st.none() | st.integers(0, 99),
    tool_prompt=st.none() | st.integers(0, 9),
)


def shown(choice: Choice) -> str:
    return "".join(part.text for part in choice.parts if isinstance(part, Text | Refusal))


def called(choice: Choice) -> list[str]:
    return [part.name for part in choice.parts if isinstance(part, ToolCall)]


def numbered(choices: list[Choice], usage: Usage | None) -> Answer:
    import msgspec

    placed = tuple(msgspec.structs.replace(choice, index=index) for index, choice in enumerate(choices))
    return Answer(id="x", model="m", choices=placed, usage=usage)


@given(CHOICES, USAGES, st.integers(1, 7))
@settings(max_examples=75, deadline=None)
def test_every_answer_gives_valid_frames_however_the_events_are_batched(
    choices: list[Choice], usage: Usage | None, size: int
) -> None:
    answer = numbered(choices, usage)
    events = list(unfold(answer))
    writer = DIALECT.stream_writer(reply())
    raw = b"".join(writer.write(events[at : at + size]) for at in range(0, len(events), size))
    assert check_stream(NAME, raw) == []
    again = events_of(raw)
    assert check_grammar(again) == []
    for one, other in zip(answer.choices, fold(again).choices, strict=True):
        assert shown(one) == shown(other)
        assert called(one) == called(other)
    assert check_body(NAME, json.loads(DIALECT.write_answer(answer, reply()))) == []


@given(st.lists(PARTS, min_size=1, max_size=5), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_parts_that_overlap_are_written_validly(parts: list[Any], random: Any) -> None:
    from llm_proxy.conversation.events import End, Finish, Start

    queues = [list(unfold_part(number, part)) for number, part in enumerate(parts)]
    events: list[Event] = [Start(id="x")]
    for queue in queues:
        events.append(queue.pop(0))
        for other in queues[: queues.index(queue)]:
            if other and random.random() < 0.5:
                events.append(other.pop(0))
    while waiting := [queue for queue in queues if queue and not isinstance(queue[0], PartStart)]:
        events.append(random.choice(waiting).pop(0))
    events += [Finish(Stop("end")), End()]
    assert check_grammar(events) == []
    raw = written(events)
    assert check_stream(NAME, raw) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["text", "thought", "thoughtSignature", "functionCall", "function_call", "name", "args", "id",
     "inlineData", "fileData", "mimeType", "data", "fileUri", "executableCode", "toolCall",
     "willContinue", "partialArgs", "jsonPath", "stringValue"]
)  # fmt: skip
WILD_PARTS = st.recursive(
    JSON | st.sampled_from(["x", "$.a[0].b"]),
    lambda inner: st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)
WILD_CHUNKS = st.fixed_dictionaries(
    {},
    optional={
        "candidates": JSON
        | st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "index": JSON | st.integers(0, 2),
                    "content": JSON | st.fixed_dictionaries({"parts": JSON | st.lists(WILD_PARTS, max_size=3)}),
                    "finishReason": st.sampled_from(["STOP", "MAX_TOKENS", "", None, 3]),
                    "groundingMetadata": JSON
                    | st.fixed_dictionaries({"groundingChunks": JSON, "groundingSupports": JSON}),
                    "logprobsResult": JSON,
                },
            ),
            max_size=2,
        ),
        "usageMetadata": JSON | st.dictionaries(st.sampled_from(["promptTokenCount", "thoughtsTokenCount"]), JSON),
        "promptFeedback": JSON,
        "error": JSON,
        "responseId": JSON,
        "modelVersion": JSON,
        "createTime": JSON,
    },
)


@given(st.lists(WILD_CHUNKS | JSON, max_size=4))
@settings(max_examples=75, deadline=None)
def test_any_chunks_give_events_by_the_grammar(chunks: list[Any]) -> None:
    events = events_of(sse(chunks))
    assert check_grammar(events) == []
    for one in chunks:
        with contextlib.suppress(FaultError):
            DIALECT.read_answer(json.dumps(one).encode(), READ)
        glancer = DIALECT.glancer()
        data = json.dumps(one).encode()
        glancer.look([Frame(data, "", data)])
        DIALECT.read_usage(data)
        DIALECT.error_in_answer(data)
        DIALECT.read_error(500, (), data)


@given(st.binary(max_size=60))
@settings(max_examples=90, deadline=None)
def test_any_bytes_are_survived(raw: bytes) -> None:
    assert check_grammar(events_of(b"data: " + raw + b"\n\n")) == []
    DIALECT.read_error(400, (), raw)
    DIALECT.error_in_answer(raw)
    for read in (lambda: DIALECT.read_answer(raw, READ), lambda: DIALECT.read_request(raw, "m")):
        with contextlib.suppress(FaultError):
            read()


@given(st.lists(PARTS, min_size=1, max_size=4), st.data())
@settings(max_examples=60, deadline=None)
def test_cuts_do_not_matter(parts: list[Any], data: st.DataObject) -> None:
    raw = written(unfold(numbered([Choice(tuple(parts), Stop("end"))], None)))
    cuts = data.draw(st.lists(st.integers(0, len(raw)), max_size=6))
    assert events_of(raw, tuple(cuts)) == events_of(raw)


WILD_REQUESTS = st.fixed_dictionaries(
    {
        "contents": JSON
        | st.lists(
            st.fixed_dictionaries(
                {"parts": JSON | st.lists(WILD_PARTS, max_size=3)},
                optional={"role": st.sampled_from(["user", "model", "function"])},
            ),
            max_size=3,
        )
    },
    optional={
        "tools": JSON | st.lists(st.fixed_dictionaries({"functionDeclarations": JSON}), max_size=2),
        "generationConfig": JSON | st.dictionaries(st.sampled_from(["temperature", "topK", "thinkingConfig"]), JSON),
        "toolConfig": JSON | st.fixed_dictionaries({"functionCallingConfig": JSON}),
        "systemInstruction": JSON,
        "safetySettings": JSON,
    },
)


@given(WILD_REQUESTS)
@settings(max_examples=75, deadline=None)
def test_any_request_is_read_or_refused_and_what_was_read_can_be_written(body: dict[str, Any]) -> None:
    try:
        request = DIALECT.read_request(json.dumps(body).encode(), "m")
    except FaultError as error:
        assert error.fault.kind == "bad_request"
        return
    out = DIALECT.write_request(request, target())
    assert len(out.body["contents"]) == len([message for message in request.messages if message.role != "system"])
