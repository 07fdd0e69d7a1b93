"""The calls that the tap collects of an answer are those that the dialect's own reader finds in it, however the answer passes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, Final

import pytest

from llm_proxy import dialects
from llm_proxy.conversation.answer import Stop
from llm_proxy.conversation.events import Delta, End, Event, Failed, Finish, PartEnd, PartStart, Start
from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.conversation.fold import unfold
from llm_proxy.conversation.parts import Text, ToolCall
from llm_proxy.dialects.base import ReadContext
from llm_proxy.server.answer_calls import CUT, MOST_ARGUMENTS, MOST_CALLS
from llm_proxy.server.answer_text import AnswerTap
from llm_proxy.server.translation import FrameSource
from llm_proxy.wire.sse import Frame
from tests.support.shared import PROTOCOLS, Exchange, Protocol, generating_exchanges

CHAT, RESPONSES, ANTHROPIC, GEMINI = PROTOCOLS
Calls = list[tuple[str, str]]

ANSWERED: Final = [one for one in generating_exchanges() if one.response.status == 200]
STREAMS: Final = [one for one in ANSWERED if one.response.sse is not None or one.response.is_json_array]
WHOLE: Final = [one for one in ANSWERED if one not in STREAMS]
CONTEXT: Final = ReadContext(maker="", new_call_id=lambda response_id, ordinal: f"made_{ordinal}")


def frames_of(payload: bytes, array: bool = False, most: int = 0) -> list[list[Frame]]:
    """The frames of a stream, in portions of at most `most`; 0: in one portion."""
    source = FrameSource(array=array)
    frames = source.feed(payload)
    with suppress(FaultError):  # a recording that was cut
        frames += source.close()
    step = most or max(1, len(frames))
    return [frames[at : at + step] for at in range(0, len(frames), step)]


def read_by_dialect(protocol: Protocol, portions: Iterable[list[Frame]]) -> Calls:
    """The complete calls of the first choice, as the dialect's reader tells them."""
    reader = dialects.get(protocol).stream_reader(CONTEXT)
    events: list[Event] = [event for portion in portions for frame in portion for event in reader.feed(frame)]
    return calls_in([*events, *reader.close()])


def calls_in(events: Iterable[Event]) -> Calls:
    parts: dict[int, ToolCall | None] = {}
    for event in events:
        match event:
            case PartStart(part=part, skeleton=ToolCall(), choice=0):
                parts[part] = None
            case PartEnd(part=part, whole=ToolCall() as call) if part in parts:
                parts[part] = call
            case _:
                pass
    return [(parts[part].name, parts[part].arguments) for part in sorted(parts) if parts[part]]  # type: ignore[union-attr]


def tapped(protocol: Protocol, portions: Iterable[list[Frame]]) -> AnswerTap:
    tap = AnswerTap(text=True, calls=True)
    for portion in portions:
        tap.frames(protocol, portion)
    return tap


def same(calls: Calls) -> list[tuple[str, Any]]:
    """Arguments by their value: where a protocol carries objects, how they are spelled is nobody's word."""
    return [(name, _value(arguments)) for name, arguments in calls]


def _value(arguments: str) -> Any:
    try:
        return json.loads(arguments) if arguments else {}
    except ValueError:
        return arguments


# Relayed streams


@pytest.mark.parametrize("exchange", STREAMS, ids=str)
def test_a_relayed_stream_gives_the_calls_that_its_dialect_reads(exchange: Exchange) -> None:
    array, payload = exchange.response.is_json_array, exchange.response.payload
    expected = read_by_dialect(exchange.protocol, frames_of(payload, array))
    for most in (0, 1, 2, 7):
        tap = tapped(exchange.protocol, frames_of(payload, array, most))
        assert same(tap.calls) == same(expected), most


def test_there_are_streams_with_calls_of_every_dialect() -> None:
    with_calls = {
        one.protocol
        for one in STREAMS
        if read_by_dialect(one.protocol, frames_of(one.response.payload, one.response.is_json_array))
    }
    assert with_calls == set(PROTOCOLS)


@pytest.mark.parametrize("exchange", STREAMS, ids=str)
def test_the_text_of_a_stream_is_the_same_with_and_without_calls(exchange: Exchange) -> None:
    portions = frames_of(exchange.response.payload, exchange.response.is_json_array, 5)
    alone = AnswerTap()
    for portion in portions:
        alone.frames(exchange.protocol, portion)
    assert tapped(exchange.protocol, portions).text == alone.text
    assert alone.calls == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_stream_cut_anywhere_gives_only_calls_that_were_complete(protocol: Protocol) -> None:
    frames = made(protocol, ("write_file", '{"path": "a", "content": "x"}'), ("read_file", '{"path": "b"}'))
    for end in range(len(frames) + 1):
        portions = [[frame] for frame in frames[:end]]
        expected = read_by_dialect(protocol, portions)
        assert same(tapped(protocol, portions).calls) == same(expected), end
    assert [name for name, _ in expected] == ["write_file", "read_file"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_how_frames_are_portioned_does_not_matter(protocol: Protocol) -> None:
    frames = made(protocol, ("edit", '{"a": 1}'), ("bash", '{"command": "ls"}'))
    for first in range(len(frames) + 1):
        for second in range(first, len(frames) + 1):
            portions = [frames[:first], frames[first:second], frames[second:]]
            assert same(tapped(protocol, portions).calls) == [("edit", {"a": 1}), ("bash", {"command": "ls"})]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_answer_without_calls_has_none(protocol: Protocol) -> None:
    said = 'The word "tool_calls", "tool_use" and "functionCall" in a text is no call.'
    portions = frames_of(text_stream(protocol, said))
    assert tapped(protocol, portions).calls == []
    assert tapped(protocol, portions).text == said


# The liberties of servers


def chat(*choices: dict[str, Any]) -> list[Frame]:
    return [frame({"id": "c", "choices": [{"index": 0, **choice}]}) for choice in choices]


def frame(event: dict[str, Any], name: str = "") -> Frame:
    data = json.dumps(event).encode()
    line = f"event: {name}\n".encode() if name else b""
    return Frame(line + b"data: " + data + b"\n\n", name, data)


def entry(name: str = "", arguments: Any = "", **more: Any) -> dict[str, Any]:
    function = {**({"name": name} if name else {}), "arguments": arguments}
    return {"delta": {"tool_calls": [{**more, "function": function}]}}


ENDED: Final[dict[str, Any]] = {"delta": {}, "finish_reason": "tool_calls"}
LIBERTIES: Final[dict[str, tuple[Protocol, list[Frame], Calls]]] = {
    "chat: the finish reason stands beside the last piece": (
        CHAT,
        chat({**entry("a", "{}", index=0, id="1"), "finish_reason": "stop"}),
        [("a", "{}")],
    ),
    "chat: no index, one call after the other": (
        CHAT,
        chat(entry("a", '{"x"', id="1"), entry("", ":1}"), entry("b", "{}", id="2"), ENDED),
        [("a", '{"x":1}'), ("b", "{}")],
    ),
    "chat: the same index for every call": (
        CHAT,
        chat(
            entry("a", '{"x"', index=0, id="1"), entry("", ":1}", index=0), entry("b", "{", index=0, id="2"),
            entry("", "}", index=0), ENDED,
        ),
        [("a", '{"x":1}'), ("b", "{}")],
    ),
    "chat: neither index nor id": (
        CHAT,
        chat(entry("a", "{}"), entry("b", '{"y":2}'), ENDED),
        [("a", "{}"), ("b", '{"y":2}')],
    ),
    "chat: the name comes after arguments": (
        CHAT,
        chat(entry("", '{"x":', index=0, id="1"), entry("a", "1}", index=0), ENDED),
        [("a", '{"x":1}')],
    ),
    "chat: arguments as an object": (CHAT, chat(entry("a", {"x": 1}, index=0), ENDED), [("a", '{"x":1}')]),
    "chat: a legacy function call": (
        CHAT,
        chat(
            {"delta": {"function_call": {"name": "a", "arguments": "{"}}}, {"delta": {"function_call": {"arguments": "}"}}},
            {"delta": {}, "finish_reason": "function_call"},
        ),
        [("a", "{}")],
    ),
    "chat: a custom tool": (
        CHAT,
        chat({"delta": {"tool_calls": [{"index": 0, "id": "1", "type": "custom", "custom": {"name": "p", "input": "*** x"}}]}}, ENDED),
        [("p", "*** x")],
    ),
    "chat: a whole message in place of a delta": (
        CHAT,
        chat({"message": {"tool_calls": [{"id": "1", "function": {"name": "a", "arguments": "{}"}}]}, "finish_reason": "tool_calls"}),
        [("a", "{}")],
    ),
    "chat: no finish reason but [DONE]": (
        CHAT,
        [*chat(entry("a", "{}", index=0)), Frame(b"data: [DONE]\n\n", "", b"[DONE]")],
        [("a", "{}")],
    ),
    "chat: another choice's calls": (
        CHAT,
        [frame({"id": "c", "choices": [{"index": 1, **entry("b", "{}", index=0), "finish_reason": "tool_calls"}]}),
         *chat(entry("a", "{}", index=0), ENDED)],
        [("a", "{}")],
    ),
    "chat: the provider breaks off": (
        CHAT,
        chat(entry("a", "{}", index=0), {"delta": {}, "finish_reason": "error"}),
        [],
    ),
    "chat: an error in the stream": (
        CHAT,
        [*chat(entry("a", "{}", index=0)), frame({"error": {"message": "no"}}), Frame(b"data: [DONE]\n\n", "", b"[DONE]")],
        [],
    ),
    "responses: frames without names": (
        RESPONSES,
        [frame({"type": "response.output_item.done", "output_index": 0,
                "item": {"type": "function_call", "name": "a", "call_id": "1", "arguments": "{}"}})],
        [("a", "{}")],
    ),
    "responses: a custom tool": (
        RESPONSES,
        [frame({"type": "response.output_item.done", "output_index": 0,
                "item": {"type": "custom_tool_call", "name": "apply_patch", "call_id": "1", "input": "*** Begin"}},
               "response.output_item.done")],
        [("apply_patch", "*** Begin")],
    ),
    "responses: the item's end twice": (
        RESPONSES,
        [frame({"type": "response.output_item.done", "output_index": 0,
                "item": {"type": "function_call", "name": "a", "call_id": "1", "arguments": "{}"}})] * 2,
        [("a", "{}")],
    ),
    "responses: calls only in the last frame": (
        RESPONSES,
        [frame({"type": "response.completed", "response": {"status": "completed", "output": [
            {"type": "message", "content": []},
            {"type": "function_call", "name": "a", "call_id": "1", "arguments": "{}"}]}}, "response.completed")],
        [("a", "{}")],
    ),
    "responses: the arguments left out of the item": (
        RESPONSES,
        [frame({"type": "response.output_item.added", "output_index": 0,
                "item": {"type": "function_call", "name": "a", "call_id": "1", "arguments": ""}}),
         frame({"type": "response.function_call_arguments.done", "output_index": 0, "arguments": '{"x":1}'}),
         frame({"type": "response.output_item.done", "output_index": 0,
                "item": {"type": "function_call", "name": "a", "call_id": "1"}})],
        [("a", '{"x":1}')],
    ),
    "responses: what the provider runs itself": (
        RESPONSES,
        [frame({"type": "response.output_item.done", "output_index": 0, "item": {"type": "web_search_call", "id": "w"}})],
        [],
    ),
    "anthropic: the whole input in the block's start": (
        ANTHROPIC,
        [frame({"type": "content_block_start", "index": 0,
                "content_block": {"type": "tool_use", "id": "1", "name": "a", "input": {"x": 1}}}),
         frame({"type": "content_block_stop", "index": 0})],
        [("a", '{"x":1}')],
    ),
    "anthropic: a block that ends with the message": (
        ANTHROPIC,
        [frame({"type": "message_start", "message": {"id": "m"}}),
         frame({"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "1", "name": "a"}}),
         frame({"type": "message_stop"})],
        [("a", "")],
    ),
    "anthropic: finished blocks in the message's start": (
        ANTHROPIC,
        [frame({"type": "message_start", "message": {"id": "m", "content": [
            {"type": "tool_use", "id": "1", "name": "a", "input": {}}]}})],
        [("a", "")],
    ),
    "anthropic: what the provider runs itself": (
        ANTHROPIC,
        [frame({"type": "content_block_start", "index": 0,
                "content_block": {"type": "server_tool_use", "id": "1", "name": "web_search", "input": {}}}),
         frame({"type": "content_block_stop", "index": 0})],
        [],
    ),
    "gemini: snake case": (
        GEMINI,
        [frame({"candidates": [{"content": {"parts": [{"function_call": {"name": "a", "args": {"x": 1}}}]}}]})],
        [("a", '{"x":1}')],
    ),
    "gemini: a call without arguments": (
        GEMINI,
        [frame({"candidates": [{"content": {"parts": [{"functionCall": {"name": "a"}}]}}]})],
        [("a", "{}")],
    ),
    "gemini: arguments in pieces": (
        GEMINI,
        [frame({"candidates": [{"content": {"parts": [part]}}]}) for part in (
            {"functionCall": {"name": "a", "willContinue": True}},
            {"functionCall": {"partialArgs": [{"jsonPath": "$.x", "stringValue": "1"}], "willContinue": True}},
            {"functionCall": {"partialArgs": [{"jsonPath": "$.x", "stringValue": "2"}]}},
            {"functionCall": {"name": "b", "args": {}}})],
        [("a", '{"x":"12"}'), ("b", "{}")],
    ),
    "gemini: arguments in pieces that do not end": (
        GEMINI,
        [frame({"candidates": [{"content": {"parts": [{"functionCall": {"name": "a", "willContinue": True}}]}}]})],
        [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("named", LIBERTIES)
def test_liberties_that_servers_take(named: str) -> None:
    protocol, frames, expected = LIBERTIES[named]
    assert tapped(protocol, [[one] for one in frames]).calls == expected
    assert same(read_by_dialect(protocol, [frames])) == same(expected), "the dialect's own reader disagrees"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "data", [b"", b"[DONE]", b"null", b"[]", b'{"tool_calls"', b'{"tool_use" \xff functionCall"_call"']
)
def test_broken_frames_are_passed_over(protocol: Protocol, data: bytes) -> None:
    frames = made(protocol, ("a", "{}"))
    broken = Frame(b"data: " + data + b"\n\n", "", data)
    portions = [[one, broken] if data != b"[DONE]" else [one] for one in frames]
    assert same(tapped(protocol, portions).calls) == [("a", {})]


def variants(value: Any) -> Iterator[Any]:
    """`value` with one thing in it replaced by something of another kind."""
    yield from (None, True, 7, "x", [], [1], {}, {"a": 1})
    if isinstance(value, dict):
        for name, member in value.items():
            yield from ({**value, name: other} for other in variants(member))
    if isinstance(value, list):
        for place, member in enumerate(value):
            yield from ([*value[:place], other, *value[place + 1 :]] for other in variants(member))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_whatever_stands_in_a_frame_the_relay_goes_on(protocol: Protocol) -> None:
    events = list(_events(protocol, (("a", '{"x": 1}'),)))
    before = [frame(event, event.get("type", "")) for event in events]
    for place, event in enumerate(events):
        for other in variants(event):
            tapped(protocol, [[*before[:place], frame(other, before[place].event), *before[place + 1 :]]])


# Bounds


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arguments_that_are_too_long_leave_the_name(protocol: Protocol) -> None:
    long = json.dumps({"content": "x" * MOST_ARGUMENTS})
    frames = made(protocol, ("write", long), ("edit", '{"a": 1}'), ("write", long))
    assert same(tapped(protocol, [frames]).calls) == [("write", CUT), ("edit", {"a": 1}), ("write", CUT)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_calls_beyond_the_bound_are_not_kept(protocol: Protocol) -> None:
    frames = made(protocol, *((f"tool_{number}", "{}") for number in range(MOST_CALLS + 5)))
    assert [name for name, _ in tapped(protocol, [frames]).calls] == [f"tool_{number}" for number in range(MOST_CALLS)]


# Whole bodies and translated answers


@pytest.mark.parametrize("exchange", WHOLE, ids=str)
@pytest.mark.parametrize("text", [True, False], ids=["and text", "calls only"])
def test_a_relayed_body_gives_the_calls_that_its_dialect_reads(exchange: Exchange, text: bool) -> None:
    dialect, body = dialects.get(exchange.protocol), exchange.response.payload
    tap = AnswerTap(text=text, calls=True)
    tap.whole(dialect, body)
    try:
        answer = dialect.read_answer(body, CONTEXT)
    except FaultError:
        expected: Calls = []
    else:
        expected = calls_in(unfold(answer))
    assert tap.calls == expected
    assert text or tap.text == ""


@pytest.mark.parametrize("exchange", STREAMS, ids=str)
def test_a_translated_answer_gives_the_same_calls(exchange: Exchange) -> None:
    portions = frames_of(exchange.response.payload, exchange.response.is_json_array)
    reader = dialects.get(exchange.protocol).stream_reader(CONTEXT)
    tap = AnswerTap(calls=True)
    for portion in portions:
        for one in portion:
            tap.events(reader.feed(one))
    tap.events(reader.close())
    assert tap.calls == read_by_dialect(exchange.protocol, portions)


def test_a_call_that_a_translated_answer_does_not_end_is_none() -> None:
    tap = AnswerTap(calls=True)
    tap.events(
        [Start(), PartStart(0, ToolCall("1", "write")), Delta(0, '{"a"'), Failed(Fault(kind="closed", message="cut"))]
    )
    assert tap.calls == []


def test_an_attempt_that_failed_before_anything_was_sent_leaves_nothing_behind() -> None:
    call, text = ToolCall("1", "write", "{}"), Text("no")
    tap = AnswerTap(calls=True)
    tap.events(
        [Start(), PartStart(0, Text("")), Delta(0, "no"), PartEnd(0, text), PartStart(1, ToolCall("1", "write"))]
    )
    tap.events([Delta(1, "{}"), PartEnd(1, call), Failed(Fault(kind="closed", message="cut"))])
    tap.events([Start(), PartStart(0, Text("")), Delta(0, "yes"), PartEnd(0, Text("yes")), Finish(Stop("end")), End()])
    assert (tap.text, tap.calls) == ("yes", [])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_without_a_wish_for_calls_there_are_none(protocol: Protocol) -> None:
    tap = AnswerTap()
    tap.frames(protocol, made(protocol, ("a", "{}")))
    assert tap.calls == []


# Material


def made(protocol: Protocol, *calls: tuple[str, str]) -> list[Frame]:
    """A stream with a text and these calls, arguments in two pieces where the protocol has pieces."""
    return [one for portion in frames_of(b"".join(_lines(protocol, calls))) for one in portion]


def _lines(protocol: Protocol, calls: tuple[tuple[str, str], ...]) -> Iterator[bytes]:
    for event in _events(protocol, calls):
        name = f"event: {event['type']}\n".encode() if "type" in event else b""
        yield name + b"data: " + json.dumps(event).encode() + b"\n\n"
    if protocol == CHAT:
        yield b"data: [DONE]\n\n"


def _events(protocol: Protocol, calls: tuple[tuple[str, str], ...]) -> Iterator[dict[str, Any]]:
    match protocol:
        case "openai-chat":
            deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, {"content": "I will."}]
            for index, (name, arguments) in enumerate(calls):
                head = {"index": index, "id": f"call_{index}", "type": "function"}
                deltas.append({"tool_calls": [{**head, "function": {"name": name, "arguments": ""}}]})
                for piece in (arguments[:5], arguments[5:]):
                    deltas.append({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
            for delta in deltas:
                yield {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
            yield {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
        case "openai-responses":
            yield {"type": "response.created", "response": {"id": "resp_1", "output": []}}
            items = []
            for index, (name, arguments) in enumerate(calls):
                item = {"type": "function_call", "id": f"fc_{index}", "call_id": f"call_{index}", "name": name}
                place = {"output_index": index, "item_id": item["id"]}
                yield {"type": "response.output_item.added", "output_index": index, "item": {**item, "arguments": ""}}
                for piece in (arguments[:5], arguments[5:]):
                    yield {"type": "response.function_call_arguments.delta", **place, "delta": piece}
                yield {"type": "response.function_call_arguments.done", **place, "arguments": arguments}
                items.append({**item, "arguments": arguments})
                yield {"type": "response.output_item.done", "output_index": index, "item": items[-1]}
            yield {"type": "response.completed", "response": {"status": "completed", "output": items}}
        case "anthropic-messages":
            yield {"type": "message_start", "message": {"id": "msg_1", "content": []}}
            for index, (name, arguments) in enumerate(calls):
                block = {"type": "tool_use", "id": f"toolu_{index}", "name": name, "input": {}}
                yield {"type": "content_block_start", "index": index, "content_block": block}
                for piece in (arguments[:5], arguments[5:]):
                    delta = {"type": "input_json_delta", "partial_json": piece}
                    yield {"type": "content_block_delta", "index": index, "delta": delta}
                yield {"type": "content_block_stop", "index": index}
            yield {"type": "message_delta", "delta": {"stop_reason": "tool_use"}}
            yield {"type": "message_stop"}
        case "gemini":
            for name, arguments in calls:
                part = {"functionCall": {"name": name, "args": json.loads(arguments)}}
                yield {"candidates": [{"index": 0, "content": {"parts": [part]}}]}
            yield {"candidates": [{"index": 0, "content": {"parts": [{"text": ""}]}, "finishReason": "STOP"}]}


def text_stream(protocol: Protocol, said: str) -> bytes:
    events: dict[Protocol, list[dict[str, Any]]] = {
        CHAT: [{"id": "c", "choices": [{"index": 0, "delta": {"content": said}, "finish_reason": "stop"}]}],
        RESPONSES: [{"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": said}],
        ANTHROPIC: [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": said}}],
        GEMINI: [{"candidates": [{"content": {"parts": [{"text": said}]}, "finishReason": "STOP"}]}],
    }
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events[protocol])


@pytest.mark.parametrize("exchange", WHOLE, ids=str)
def test_the_text_of_a_relayed_body_is_that_of_its_answer(exchange: Exchange) -> None:
    """However it is found: alone, or beside the calls, by the dialect's own reader."""
    body = exchange.response.payload
    alone, beside = AnswerTap(), AnswerTap(text=True, calls=True)
    for tap in (alone, beside):
        tap.whole(dialects.get(exchange.protocol), body)
    assert alone.text == beside.text
