"""Every exchange of this protocol that is at hand: what the official SDK understood of it, this dialect
understands too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest

from llm_proxy.conversation.answer import Answer, Stop
from llm_proxy.conversation.events import Event
from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.conversation.fold import check_grammar, unfold
from llm_proxy.conversation.parts import Part, Refusal, Text, Thinking, ToolCall
from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects.base import Target
from llm_proxy.dialects.capabilities import Capabilities
from llm_proxy.dialects.openai_chat import DIALECT
from llm_proxy.wire.json import rewrite
from tests.dialects.openai_chat.support import NAME, READ, emitted, events_of, frames_of, reply, told
from tests.support.grammar import check_body, check_stream
from tests.support.semantic import Semantic
from tests.support.shared import Exchange, client_requests, exchanges, semantics

EXCHANGES = [one for one in exchanges() if one.protocol == NAME and one.endpoint == "chat.completions"]
ANSWERS = [one for one in EXCHANGES if one.response.status == 200]
STREAMS = [one for one in ANSWERS if one.response.sse is not None]
WHOLE = [one for one in ANSWERS if one.response.sse is None]
ERRORS = [one for one in EXCHANGES if one.response.status >= 400]
REQUESTS = [(one.file, one.request.body) for one in EXCHANGES if one.request.body is not None] + [
    (one.file, one.body) for one in client_requests() if one.protocol == NAME
]

_STOPS = {"end": "stop", "stop_sequence": "stop"}


class Understood:
    """What was read of one answer, in the words of the oracle."""

    def __init__(self, parts: list[Part], stop: Stop | None, usage: Usage | None, fault: Fault | None) -> None:
        self.text = "".join(part.text for part in parts if isinstance(part, Text))
        self.thinking = "".join(part.text for part in parts if isinstance(part, Thinking))
        self.refusal = "".join(part.text for part in parts if isinstance(part, Refusal))
        self.calls = [(part.name, _arguments(part.arguments)) for part in parts if isinstance(part, ToolCall)]
        self.stop = None if stop is None else _STOPS.get(stop.kind, stop.kind)
        self.usage = usage
        self.fault = fault


def _arguments(text: str) -> Any:
    try:
        return json.loads(text) if text.strip() else {}
    except ValueError:
        return text


def of_events(events: list[Event]) -> Understood:
    folder = told(events)
    parts = [part for choice, part in folder.parts_so_far() if choice == 0]
    stop = None if folder.fault else next((c.stop for c in folder.answer().choices if c.index == 0), None)
    return Understood(parts, stop, folder.usage, folder.fault)


def of_answer(answer: Answer) -> Understood:
    choice = answer.choices[0]
    return Understood(list(choice.parts), choice.stop, answer.usage, None)


def differences(exchange: Exchange, found: Understood) -> list[str]:
    """Where this dialect and the SDK disagree; the SDK's own blind spots are named here and nowhere else."""
    known = semantics()[exchange.file]
    if not known["accepted"]:
        return []  # the SDK broke on it: there is nothing to compare with
    expected = Semantic.from_json(known["semantic"])
    said: list[tuple[str, Any, Any]] = [
        ("text", expected.text, found.text),
        ("refusal", expected.refusal, found.refusal),
    ]
    if expected.thinking:  # the SDK does not know reasoning_details
        said.append(("thinking", expected.thinking, found.thinking))
    named = [(call.name, call.args) for call in expected.tool_calls if call.name]  # it counts empty calls
    said.append(("tool_calls", named, found.calls))
    if expected.error is not None:
        said.append(("error", expected.error.message, found.fault.message if found.fault else None))
    elif expected.stop is None:  # it does not know that a stream was cut, nor what an empty reason means
        said.append(("stop", True, found.fault is not None or found.stop == "stop"))
    else:
        said.append(("stop", expected.stop, found.stop))
    for name in ("input", "output", "cache_read", "cache_write", "reasoning"):
        figure = getattr(expected.usage, name)
        if figure is not None and not (name == "output" and exchange.provider == "xai"):
            said.append((f"usage.{name}", figure, getattr(found.usage, name)))
    return [f"{name}: expected {want!r:.200}, got {got!r:.200}" for name, want, got in said if want != got]


@pytest.mark.parametrize("exchange", STREAMS, ids=str)
def test_a_recorded_stream_means_what_the_sdk_read(exchange: Exchange) -> None:
    raw = exchange.response.payload
    events = events_of(raw)
    assert check_grammar(events) == []
    assert differences(exchange, of_events(events)) == []
    for step in (1, 7, 64):
        if len(raw) / step < 40_000:
            assert events_of(raw, range(step, len(raw), step)) == events


@pytest.mark.parametrize("exchange", STREAMS, ids=str)
def test_a_recorded_stream_is_written_strictly_and_reads_the_same(exchange: Exchange) -> None:
    events = events_of(exchange.response.payload)
    raw = emitted(events)
    failed = of_events(events).fault is not None
    assert check_stream(NAME, raw, usage_asked=None if failed else True) == []
    first, second = of_events(events), of_events(events_of(raw))
    for name in ("text", "thinking", "refusal", "calls", "stop"):
        assert getattr(first, name) == getattr(second, name)


@pytest.mark.parametrize("exchange", STREAMS, ids=str)
def test_the_relay_notices_of_a_recorded_stream_what_the_reader_reads(exchange: Exchange) -> None:
    raw = exchange.response.payload
    frames = frames_of(raw)
    found = of_events(events_of(raw))
    glancer = DIALECT.glancer()
    seen = [glancer.look([frame]) for frame in frames]
    usage = None
    for glance in seen:
        if glance.usage is not None:
            usage = glance.usage if usage is None else usage.merged(glance.usage)
    assert any(glance.content for glance in seen) == bool(found.text or found.thinking or found.refusal or found.calls)
    assert usage == found.usage
    broken = any(glance.failed for glance in seen) or glancer.close() is not None
    assert broken == (found.fault is not None)


@pytest.mark.parametrize("exchange", WHOLE, ids=str)
def test_a_recorded_answer_means_what_the_sdk_read(exchange: Exchange) -> None:
    body = exchange.response.payload
    assert DIALECT.error_in_answer(body) is None
    answer = DIALECT.read_answer(body, READ)
    assert check_grammar(unfold(answer)) == []
    assert differences(exchange, of_answer(answer)) == []
    assert DIALECT.read_usage(body) == answer.usage


@pytest.mark.parametrize("exchange", WHOLE, ids=str)
def test_a_recorded_answer_is_written_strictly_in_both_forms(exchange: Exchange) -> None:
    answer = DIALECT.read_answer(exchange.response.payload, READ)
    written = DIALECT.write_answer(answer, reply())
    assert check_body(NAME, json.loads(written)) == []
    streamed = emitted(unfold(answer))
    assert check_stream(NAME, streamed, usage_asked=True) == []
    first = of_answer(answer)
    for again in (of_answer(DIALECT.read_answer(written, READ)), of_events(events_of(streamed))):
        for name in ("text", "thinking", "refusal", "calls", "stop"):
            assert getattr(again, name) == getattr(first, name)


@pytest.mark.parametrize("exchange", ERRORS, ids=str)
def test_a_recorded_error_keeps_its_words_and_its_class(exchange: Exchange) -> None:
    fault = DIALECT.read_error(exchange.response.status, (), exchange.response.payload)
    expected = semantics()[exchange.file]["semantic"]["error"]
    if not expected["message"].startswith("Error code:"):  # the SDK found no message
        assert expected["message"] in fault.message
    own_key = exchange.response.status in (401, 403)
    assert fault.status_code == (502 if own_key else exchange.response.status)
    with pytest.raises(FaultError):
        DIALECT.read_answer(exchange.response.payload, READ)


# ---- requests


def _plain(body: Mapping[str, Any]) -> dict[str, Any]:
    """A body with its documented equivalences levelled: null is absent, one text is a string …"""
    found: dict[str, Any] = {name: value for name, value in body.items() if value is not None and value != []}
    for name, default in (("stream", False), ("n", 1)):
        if found.get(name) == default:
            del found[name]
    found["messages"] = [_plain_message(message) for message in found["messages"]]
    if "tools" in found:
        found["tools"] = json.loads(json.dumps(found["tools"]).replace('"description": "", ', ""))
    return found


def _plain_message(message: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in message.items() if value not in (None, [])}
    content = found.get("content")
    if isinstance(content, list) and len(content) == 1 and content[0].keys() == {"type", "text"}:
        found["content"] = content[0]["text"]
    said = found.pop("reasoning", None)
    if said and "reasoning_content" not in found and "reasoning_details" not in found:
        found["reasoning_content"] = said
    if not found.get("reasoning_content", True):
        del found["reasoning_content"]
    for unknown in ("prefix", "provider_specific_fields"):
        found.pop(unknown, None)  # stays in the client's bytes
    return found


@cache
def _target(model: str, stream: bool, usage: bool) -> Target:
    return Target(model=model, capabilities=Capabilities(resend_reasoning="always"), stream=stream, ask_usage=usage)


@pytest.mark.parametrize(("file", "body"), REQUESTS, ids=[file for file, _ in REQUESTS])
def test_a_recorded_request_is_written_as_it_was_read(file: str, body: dict[str, Any]) -> None:
    body = {"model": "deployment", **body}
    raw = json.dumps(body).encode()
    request = DIALECT.read_request(raw)
    assert len(request.messages) == len(body["messages"])
    head = DIALECT.read_head(raw)
    target = _target(head.model, head.stream, head.include_usage)
    out = DIALECT.write_request(request, target)
    assert _plain(out.body) == _plain(body)
    assert out.duties.none
    assert rewrite(raw, out.body, out.body) == raw
    assert DIALECT.retarget(raw, target) == raw
