"""What the tests of this dialect share: contexts, targets, and streams in and out. Knows no recorded data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from llm_proxy.conversation.answer import Answer
from llm_proxy.conversation.events import Event
from llm_proxy.conversation.fold import fold
from llm_proxy.conversation.parts import Part
from llm_proxy.conversation.request import Message, Request
from llm_proxy.dialects.base import Outgoing, ReadContext, ReplyContext, Target
from llm_proxy.dialects.capabilities import lookup
from llm_proxy.dialects.gemini import DIALECT
from llm_proxy.dialects.names import derived_call_id
from llm_proxy.dialects.reasoning import Envelope
from llm_proxy.wire.sse import SseReader

NAME = "gemini"
MAKER = "gemini/gemini"
ENVELOPE = Envelope(b"key of the tests")
READ = ReadContext(maker=MAKER, new_call_id=derived_call_id)


def reply(**changes: Any) -> ReplyContext:
    """The context of a client that echoes sealed state."""
    values: dict[str, Any] = {
        "model": "asked-model",
        "new_id": lambda prefix: prefix + "0" * 24,
        "packer": ENVELOPE,
        "now": 1_700_000_000,
        "estimated_input": 77,
    }
    return ReplyContext(**{**values, **changes})


def target(model: str = "gemini-2.5-flash", **capabilities: object) -> Target:
    return Target(model=model, capabilities=lookup(NAME, model, capabilities), maker=MAKER)


def read(body: dict[str, Any], model: str = "gemini-2.5-flash", stream: bool = False) -> Request:
    return DIALECT.read_request(json.dumps(body).encode(), model, stream)


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "parts": list(parts) or [{"text": "hi"}]}


def model(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "model", "parts": list(parts)}


def call(name: str, args: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"functionCall": {"name": name, "args": args or {}, **more}}


def response(name: str, body: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"functionResponse": {"name": name, "response": body, **more}}


def foreign(*messages: Message, dialect: str = "openai-chat", **fields: Any) -> Request:
    """A request that came from a client of another protocol."""
    return Request(dialect=dialect, model="m", messages=messages or (Message("user", ()),), **fields)


def write(request: Request, where: Target | None = None) -> Outgoing:
    return DIALECT.write_request(request, where or target())


def parts_of(answer: Answer, choice: int = 0) -> tuple[Part, ...]:
    return answer.choices[choice].parts


def chunk(*parts: dict[str, Any], reason: str = "", usage: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """One chunk of one candidate."""
    candidate: dict[str, Any] = {"index": 0}
    if parts:
        candidate["content"] = {"role": "model", "parts": list(parts)}
    if reason:
        candidate["finishReason"] = reason
    candidate.update(more)
    out: dict[str, Any] = {"candidates": [candidate], "modelVersion": "gemini-2.5-flash", "responseId": "r1"}
    if usage:
        out["usageMetadata"] = usage
    return out


def sse(chunks: Iterable[Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(one).encode() + b"\r\n\r\n" for one in chunks)


def events_of(raw: bytes, cuts: Sequence[int] = (), context: ReadContext = READ) -> list[Event]:
    """What the stream reader makes of `raw` when it arrives cut at `cuts`."""
    frames = SseReader()
    reader = DIALECT.stream_reader(context)
    events: list[Event] = []
    start = 0
    for stop in [*sorted(cuts), len(raw)]:
        for frame in frames.feed(raw[start:stop]):
            events += reader.feed(frame)
        start = stop
    for frame in frames.close():
        events += reader.feed(frame)
    return [*events, *reader.close()]


def answer_of(*chunks: dict[str, Any]) -> Answer:
    return fold(events_of(sse(chunks)))


def written(events: Iterable[Event], **changes: Any) -> bytes:
    """What the stream writer makes of events that come one by one."""
    writer = DIALECT.stream_writer(reply(**changes))
    return b"".join(writer.write([event]) for event in events)


def chunks_in(raw: bytes) -> list[Any]:
    return [json.loads(frame.data) for frame in SseReader().feed(raw) if frame.data]
