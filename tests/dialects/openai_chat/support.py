"""What the tests of this dialect share: contexts, targets, and streams in and out. Knows no recorded data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from llm_proxy.conversation.events import Event
from llm_proxy.conversation.fold import Folder, check_grammar
from llm_proxy.conversation.parts import Part
from llm_proxy.conversation.request import Message, Request
from llm_proxy.dialects.base import Outgoing, ReadContext, ReplyContext, Target
from llm_proxy.dialects.capabilities import lookup
from llm_proxy.dialects.names import derived_call_id
from llm_proxy.dialects.openai_chat import DIALECT
from llm_proxy.dialects.reasoning import Envelope
from llm_proxy.wire.sse import Frame, SseReader

NAME = "openai-chat"
MAKER = "openrouter/claude"
ENVELOPE = Envelope(b"key of the tests")
READ = ReadContext(maker=MAKER, new_call_id=derived_call_id)


def reply(**changes: Any) -> ReplyContext:
    """The context of a client that asked for usage and echoes sealed state."""
    values: dict[str, Any] = {
        "model": "asked-model",
        "new_id": lambda prefix: prefix + "0" * 24,
        "packer": ENVELOPE,
        "now": 1_700_000_000,
        "estimated_input": 77,
        "include_usage": True,
    }
    return ReplyContext(**{**values, **changes})


def target(model: str = "gpt-4o", **capabilities: object) -> Target:
    return Target(model=model, capabilities=lookup(NAME, model, capabilities), maker=MAKER)


def body_of(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}


def read(body: dict[str, Any]) -> Request:
    return DIALECT.read_request(json.dumps(body).encode())


def read_messages(*messages: dict[str, Any]) -> tuple[Message, ...]:
    return read(body_of(messages=list(messages))).messages


def asked(*messages: Message, **fields: Any) -> Request:
    """A request of an Anthropic client."""
    return Request(dialect="anthropic-messages", model="m", messages=messages, **fields)


def user(*parts: Part) -> Message:
    return Message("user", parts)


def assistant(*parts: Part) -> Message:
    return Message("assistant", parts)


def written(request: Request, model: str = "gpt-4o", **capabilities: object) -> Outgoing:
    return DIALECT.write_request(request, target(model, **capabilities))


def function(name: str = "f", **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **fields}}


def call(call_id: str, name: str = "f", arguments: str = "{}", **fields: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}, **fields}


# ---- streams


def chunk(
    delta: dict[str, Any] | None = None, finish: str | None = None, index: int = 0, **fields: Any
) -> dict[str, Any]:
    """One chunk as OpenAI writes it; `choice` members go through `fields["choice"]`."""
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish, **fields.pop("choice", {})}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_001,
        "model": "m-1",
        "choices": [choice],
        **fields,
    }


def usage_chunk(**usage: Any) -> dict[str, Any]:
    return {**chunk(), "choices": [], "usage": usage}


def stream_of(chunks: Iterable[dict[str, Any]], done: bool = True) -> bytes:
    frames = [b"data: " + json.dumps(one).encode() + b"\n\n" for one in chunks]
    return b"".join(frames) + (b"data: [DONE]\n\n" if done else b"")


def frames_of(raw: bytes) -> list[Frame]:
    reader = SseReader()
    return [*reader.feed(raw), *reader.close()]


def events_of(raw: bytes, cuts: Sequence[int] = (), context: ReadContext = READ) -> list[Event]:
    """The events of a stream that arrives cut at `cuts`."""
    reader, decoder = SseReader(), DIALECT.stream_reader(context)
    events: list[Event] = []
    start = 0
    for stop in [*sorted(cuts), len(raw)]:
        for frame in reader.feed(raw[start:stop]):
            events += decoder.feed(frame)
        start = stop
    for frame in reader.close():
        events += decoder.feed(frame)
    events += decoder.close()
    return events


def told(events: Iterable[Event]) -> Folder:
    """What the events tell, after a check of their grammar."""
    kept = list(events)
    assert check_grammar(kept) == []
    folder = Folder()
    for event in kept:
        folder.feed(event)
    return folder


def parts_of(*chunks: dict[str, Any], done: bool = True, context: ReadContext = READ) -> list[Part]:
    """The parts of choice 0 of a stream."""
    folder = told(events_of(stream_of(chunks, done), context=context))
    return [part for choice, part in folder.parts_so_far() if choice == 0]


def emitted(events: Iterable[Event], **context: Any) -> bytes:
    """What the writer makes of the events, one by one."""
    writer = DIALECT.stream_writer(reply(**context))
    return b"".join(writer.write([event]) for event in events)


def chunks_in(raw: bytes) -> list[dict[str, Any]]:
    """The decoded data frames of an emitted stream, `[DONE]` left out."""
    datas = (frame.data for frame in frames_of(raw) if frame.data not in (None, b"[DONE]"))
    return [json.loads(data) for data in datas if data is not None]


def merged_choice(raw: bytes, index: int = 0) -> dict[str, Any]:
    """The message of a choice as a client joins it from the deltas: texts are appended, lists go by index."""
    message: dict[str, Any] = {}
    for one in chunks_in(raw):
        for choice in one.get("choices", ()):
            if choice["index"] == index:
                _merge(message, choice["delta"])
    return message


def _merge(into: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        if name == "index":
            continue
        if isinstance(value, list):
            held = into.setdefault(name, {})
            for entry in value:
                _merge(held.setdefault(entry["index"], {}), entry)
        elif isinstance(value, dict):
            _merge(into.setdefault(name, {}), value)
        elif isinstance(value, str) and isinstance(into.get(name), str):
            into[name] += value
        else:
            into[name] = value
