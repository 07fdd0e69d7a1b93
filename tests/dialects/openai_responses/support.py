"""What these tests share: contexts, frames made by hand, and an answer reduced to what it means."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any

from llm_proxy.conversation.events import Event
from llm_proxy.conversation.fold import Folder
from llm_proxy.conversation.parts import Media, Opaque, Part, Refusal, Seal, Text, Thinking, ToolCall
from llm_proxy.conversation.request import Request
from llm_proxy.dialects.base import ReadContext, ReplyContext, Target
from llm_proxy.dialects.capabilities import lookup
from llm_proxy.dialects.names import derived_call_id
from llm_proxy.dialects.openai_responses import DIALECT
from llm_proxy.wire.sse import SseReader
from tests.support.shared import Exchange, exchanges

NAME = "openai-responses"
READ = ReadContext(maker="openai/gpt", new_call_id=derived_call_id)

# The text in the done frames is another one than that of the deltas: what was streamed cannot be taken back.
CONTRADICTS_ITSELF = "openai-responses/builtin-shell.stream.8dba086eba-0.json"


class Packer:
    def pack(self, seal: Seal) -> str:
        return f"gw1.{seal.origin}.{seal.value}"


def reply(request: Request | None = None, **changed: Any) -> ReplyContext:
    counter = itertools.count()
    values: dict[str, Any] = {
        "model": "asked-model",
        "new_id": lambda prefix: f"{prefix}{next(counter):024d}",
        "packer": Packer(),
        "now": 1700000000,
    }
    return ReplyContext(request=request, **{**values, **changed})


def target(model: str = "gpt-5.5", *, stream: bool = False, maker: str = "openai/gpt", **able: Any) -> Target:
    return Target(model=model, capabilities=lookup(NAME, model, able), stream=stream, maker=maker)


def read(body: dict[str, Any]) -> Request:
    return DIALECT.read_request(json.dumps(body).encode())


def frames(events: Iterable[dict[str, Any]], named: bool = True) -> bytes:
    """The events as a provider sends them, numbered."""
    out = []
    for number, event in enumerate(events):
        data = json.dumps({"sequence_number": number, **event}, ensure_ascii=False)
        line = f"event: {event['type']}\n" if named else ""
        out.append(f"{line}data: {data}\n\n".encode())
    return b"".join(out)


def decode(payload: bytes, cuts: Sequence[int] = (), context: ReadContext = READ) -> list[Event]:
    """All events of a stream that arrives cut at `cuts`."""
    reader, lines = DIALECT.stream_reader(context), SseReader()
    events: list[Event] = []
    edges = [0, *sorted(cuts), len(payload)]
    for start, stop in itertools.pairwise(edges):
        for frame in lines.feed(payload[start:stop]):
            events += reader.feed(frame)
    for frame in lines.close():
        events += reader.feed(frame)
    return [*events, *reader.close()]


def written(events: Sequence[Event], context: ReplyContext | None = None) -> bytes:
    writer = DIALECT.stream_writer(context or reply())
    return b"".join(writer.write([event]) for event in events)


def emitted(raw: bytes) -> list[dict[str, Any]]:
    return [json.loads(frame.data) for frame in SseReader().feed(raw) if frame.data is not None]


def types(raw: bytes) -> list[str]:
    return [event["type"] for event in emitted(raw)]


def parts_of(events: Iterable[Event]) -> list[Part]:
    folder = Folder()
    for event in events:
        folder.feed(event)
    return [part for _, part in folder.parts_so_far()]


def meaning(parts: Sequence[Part]) -> dict[str, Any]:
    """The parts in the words of `semantics.jsonl`."""
    texts = [part for part in parts if isinstance(part, Text)]
    thoughts = [part for part in parts if isinstance(part, Thinking)]
    return {
        "text": "".join(part.text for part in texts),
        "thinking": "".join("".join(part.pieces) or part.text for part in thoughts),
        "tool_calls": [
            {
                "name": part.name,
                "args": part.arguments if part.kind == "custom" else json.loads(part.arguments or "{}"),
            }
            for part in parts
            if isinstance(part, ToolCall)
        ],
        "refusal": "".join(part.text for part in parts if isinstance(part, Refusal)),
        "citations": sum(len(part.citations) for part in texts),
        "server_tools": [part.type for part in parts if isinstance(part, Opaque) and part.server_tool],
        "media_out": sum(isinstance(part, Media) for part in parts),
        "signed_thinking": sum(part.seal is not None for part in thoughts),
    }


def answers(*, stream: bool | None = None) -> list[Exchange]:
    """Exchanges of this protocol that were answered with a 200, recorded ones where they are here."""
    return [
        exchange
        for exchange in exchanges()
        if exchange.protocol == NAME
        and exchange.generates
        and exchange.response.status == 200
        and (stream is None or (exchange.response.sse is not None) == stream)
    ]
