"""What the tests of this dialect share: contexts, targets, and streams in and out. Knows no recorded data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Final

from llm_proxy.conversation.events import Event
from llm_proxy.conversation.fold import Folder
from llm_proxy.conversation.parts import Part
from llm_proxy.conversation.request import Message, Request
from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects.anthropic_messages import DIALECT
from llm_proxy.dialects.base import Outgoing, ReadContext, ReplyContext, Target
from llm_proxy.dialects.capabilities import lookup
from llm_proxy.dialects.names import derived_call_id
from llm_proxy.dialects.reasoning import Envelope
from llm_proxy.wire.sse import SseReader

NAME: Final = "anthropic-messages"
MAKER = "anthropic/claude"
ENVELOPE = Envelope(b"key of the tests")
READ = ReadContext(maker=MAKER, new_call_id=derived_call_id)


def reply(**changes: Any) -> ReplyContext:
    """The context of a client that asked for thinking and echoes sealed state."""
    values: dict[str, Any] = {
        "model": "asked-model",
        "new_id": lambda prefix: prefix + "0" * 24,
        "packer": ENVELOPE,
        "now": 1_700_000_000,
        "estimated_input": 77,
    }
    return ReplyContext(**{**values, **changes})


def target(model: str = "claude-sonnet-4-5", **capabilities: object) -> Target:
    return Target(model=model, capabilities=lookup(NAME, model, capabilities), maker=MAKER)


def read(body: dict[str, Any]) -> Request:
    return DIALECT.read_request(json.dumps(body).encode())


def minimal(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}], **fields}


def asked(*messages: Message, **fields: Any) -> Request:
    """A request of an OpenAI Chat client."""
    return Request(dialect="openai-chat", model="m", messages=messages, **fields)


def user(*parts: Part) -> Message:
    return Message("user", parts)


def assistant(*parts: Part) -> Message:
    return Message("assistant", parts)


def write(request: Request, to: Target | None = None) -> Outgoing:
    return DIALECT.write_request(request, to or target())


def sse(events: Iterable[dict[str, Any]], named: bool = True) -> bytes:
    """An event stream of this protocol."""
    frames = []
    for event in events:
        line = f"event: {event['type']}\n" if named else ""
        frames.append(f"{line}data: {json.dumps(event, ensure_ascii=False)}\n\n")
    return "".join(frames).encode()


def events_of(raw: bytes, cuts: Sequence[int] = (), context: ReadContext = READ) -> list[Event]:
    """The canonical events of a stream that arrives in the pieces that `cuts` makes of it."""
    frames, reader = SseReader(), DIALECT.stream_reader(context)
    out: list[Event] = []
    places = [0, *sorted(cuts), len(raw)]
    for start, stop in pairwise(places):
        for frame in frames.feed(raw[start:stop]):
            out += reader.feed(frame)
    for frame in frames.close():
        out += reader.feed(frame)
    return [*out, *reader.close()]


def written(events: Iterable[Event], context: ReplyContext | None = None) -> bytes:
    """The stream that a client gets when every event comes alone."""
    writer = DIALECT.stream_writer(context or reply())
    return b"".join(writer.write([event]) for event in events)


def frames_of(raw: bytes) -> list[dict[str, Any]]:
    """The data of every frame."""
    found = SseReader().feed(raw)
    return [json.loads(frame.data) for frame in found if frame.data]


START = {
    "type": "message_start",
    "message": {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": [],
        "stop_reason": None, "stop_sequence": None,
        "usage": {"input_tokens": 20, "cache_read_input_tokens": 80, "output_tokens": 1},
    },
}  # fmt: skip
STOP = {"type": "message_stop"}


def ended(reason: str, output: int = 9, **delta: Any) -> dict[str, Any]:
    delta = {"stop_reason": reason, "stop_sequence": None, **delta}
    return {"type": "message_delta", "delta": delta, "usage": {"output_tokens": output}}


def block(index: int, content: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    """One content block: start, deltas, stop."""
    return [
        {"type": "content_block_start", "index": index, "content_block": content},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def fold_usage(events: Iterable[Event]) -> Usage | None:
    """The last word on usage, for broken streams as well."""
    folder = Folder()
    for event in events:
        folder.feed(event)
    return folder.usage
