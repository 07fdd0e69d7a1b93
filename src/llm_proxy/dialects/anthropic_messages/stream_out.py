"""Canonical events as the event stream that a Messages client gets.

One content block is open at a time and indexes are contiguous, whatever the upstream interleaves. A text or
reasoning part gives way to the next part at once and goes on in a new block; only an open tool call makes
others wait, in memory, until it is complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_proxy.conversation.answer import Stop
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
from llm_proxy.conversation.parts import Media, Opaque, Refusal, Seal, Text, Thinking, ToolCall
from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects.anthropic_messages import errors, wire
from llm_proxy.dialects.anthropic_messages.answer_in import SERVER_CALLS
from llm_proxy.dialects.anthropic_messages.answer_out import (
    call_block,
    estimated_output,
    media_text,
    sealed_block,
    signature_of,
)  # fmt: skip
from llm_proxy.dialects.base import ReplyContext
from llm_proxy.wire import json
from llm_proxy.wire.sse import named_frame

PING = b'event: ping\ndata: {"type": "ping"}\n\n'
_DELTA = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":%b}}\n\n'
)
_STOP = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'
_FIELDS = {"text": b"text", "thinking": b"thinking", "tool": b"partial_json", "custom": b"partial_json"}
_DELTAS = {
    "text": b"text_delta",
    "thinking": b"thinking_delta",
    "tool": b"input_json_delta",
    "custom": b"input_json_delta",
}


class _Part:
    """A part of the answer on its way to the client. `waiting` collects what comes while another part is
    being written.
    """

    __slots__ = ("ended", "kind", "open", "seal", "shown", "skeleton", "text_seen", "waiting")

    def __init__(self, skeleton: Text | Refusal | Thinking | ToolCall, kind: str, shown: bool) -> None:
        self.skeleton = skeleton
        self.kind = kind
        self.shown = shown
        self.waiting: list[Event] = []
        self.open = False
        self.ended = False
        self.text_seen = False
        self.seal: Seal | None = skeleton.seal if isinstance(skeleton, Thinking) else None


class StreamWriter:
    def __init__(self, context: ReplyContext) -> None:
        self._context = context
        self._parts: dict[int, _Part] = {}
        self._queue: list[int | Whole] = []
        self._writing: int | None = None
        self._next_index = 0
        self._characters = 0
        self._usage: Usage | None = None
        self._tier = ""
        self._stop = Stop("unknown")
        self._fields: dict[str, Any] = {}
        self._called = False
        self._refused = False
        self._started = False
        self._over = False

    def write(self, events: Sequence[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            if self._over:
                break
            self._one(event, out)
        return b"".join(out)

    def heartbeat(self) -> bytes:
        """A ping is understood only between `message_start` and the end."""
        return PING if self._started and not self._over else b""

    def _one(self, event: Event, out: list[bytes]) -> None:
        match event:
            case Delta(part):
                self._part_event(part, event, out)
            case PartStart():
                self._part_start(event, out)
            case PartEnd(part) | Sealed(part) | Cited(part):
                self._part_event(part, event, out)
            case Whole():
                self._whole(event, out)
            case Start():
                self._start(event, out)
            case UsageSeen(usage):
                self._usage = usage if self._usage is None else self._usage.merged(usage)
            case Finish(stop, 0):
                self._stop = stop
                self._flush(out)
            case Heartbeat():
                out.append(self.heartbeat())
            case Note(origin, kind, raw):
                if origin == wire.NAME and kind and self._started:
                    out.append(named_frame(kind.replace("\n", " ").replace("\r", " "), json.encode(raw)))
            case Failed(fault):
                self._over = True
                out.append(named_frame("error", errors.write_error(fault, self._context.request_id)))
            case End():
                self._end(out)
            case _:
                pass

    # ---- the message

    def _start(self, event: Start, out: list[bytes]) -> None:
        if self._started:
            return
        self._started = True
        self._usage, self._tier = event.usage, event.tier
        context = self._context
        usage = wire.write_usage(event.usage, context.estimated_input, 1, event.tier)
        # Some clients take a zero for a missing figure.
        usage["output_tokens"] = max(1, usage["output_tokens"])
        message: dict[str, Any] = {
            "id": wire.message_id(event.id, context.new_id("msg_")),
            "type": "message",
            "role": "assistant",
            "model": event.model or context.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        out.append(named_frame("message_start", json.encode({"type": "message_start", "message": message})))

    def _end(self, out: list[bytes]) -> None:
        if not self._started:
            self._start(Start(), out)
        self._flush(out)
        self._over = True
        delta = wire.write_stop(self._stop, self._called, self._refused)
        body: dict[str, Any] = {"type": "message_delta", "delta": delta}
        if "container" in self._fields:
            delta["container"] = self._fields["container"]
        output = estimated_output(self._characters)
        body["usage"] = wire.write_usage(self._usage, self._context.estimated_input, output, self._tier)
        if "context_management" in self._fields:
            body["context_management"] = self._fields["context_management"]
        out.append(named_frame("message_delta", json.encode(body)))
        out.append(named_frame("message_stop", b'{"type":"message_stop"}'))

    # ---- who may write now

    def _part_start(self, event: PartStart, out: list[bytes]) -> None:
        if event.choice != 0:
            return
        skeleton, shown = event.skeleton, True
        match skeleton:
            case ToolCall():
                kind = "custom" if skeleton.kind == "custom" else "tool"
                self._called = True
            case Thinking():
                kind, shown = "thinking", self._context.shows_thinking
            case _:
                kind = "text"
        self._parts[event.part] = _Part(skeleton, kind, shown)
        self._queue.append(event.part)
        self._advance(out)
        initial = skeleton.arguments if isinstance(skeleton, ToolCall) else skeleton.text
        if initial:
            self._part_event(event.part, Delta(event.part, initial), out)

    def _whole(self, event: Whole, out: list[bytes]) -> None:
        if event.choice != 0:
            return
        content = event.content
        if isinstance(content, Opaque):
            if content.origin != wire.NAME:
                return
            if content.type == wire.MESSAGE_FIELDS:
                self._fields |= content.raw
                return
        self._queue.append(event)
        self._advance(out)

    def _advance(self, out: list[bytes], last: bool = False) -> None:
        """Lets the parts that wait write, in their order, as far as an open tool call permits. `last`:
        nothing more will come.
        """
        while True:
            if self._writing is not None:
                part = self._parts[self._writing]
                if not part.ended and not last and not (self._queue and part.kind in ("text", "thinking")):
                    return
                self._leave(self._writing, part, out)
            if not self._queue:
                return
            following = self._queue.pop(0)
            if isinstance(following, Whole):
                self._write_whole(following, out)
                continue
            self._writing = following
            part = self._parts[following]
            if part.kind in ("tool", "custom"):
                self._open(part, call_block(part.skeleton) if isinstance(part.skeleton, ToolCall) else {}, out)
                if part.kind == "custom":
                    self._json_delta(b'"{\\"input\\":\\""', out)
            waiting, part.waiting = part.waiting, []
            for event in waiting:
                self._write_part_event(part, event, out)

    def _leave(self, number: int, part: _Part, out: list[bytes]) -> None:
        """Closes the block of the part that was writing. One that has not ended may come back later in a new
        block.
        """
        self._close(part, out)
        self._writing = None
        if part.ended:
            del self._parts[number]

    def _flush(self, out: list[bytes]) -> None:
        self._advance(out, last=True)

    def _part_event(self, number: int, event: Event, out: list[bytes]) -> None:
        part = self._parts.get(number)
        if part is None or (isinstance(event, Sealed) and part.kind != "thinking"):
            return
        if isinstance(event, PartEnd):
            part.ended = True
        if self._writing == number:
            self._write_part_event(part, event, out)
            if part.ended:
                self._advance(out)
            return
        part.waiting.append(event)
        if number not in self._queue:
            # A part that gave way has more to say.
            if isinstance(event, PartEnd) and part.seal is None and not self._has_words(part):
                del self._parts[number]
                return
            self._queue.append(number)
            self._advance(out)

    @staticmethod
    def _has_words(part: _Part) -> bool:
        return any(not isinstance(event, PartEnd) for event in part.waiting)

    # ---- blocks

    def _write_part_event(self, part: _Part, event: Event, out: list[bytes]) -> None:
        match event:
            case Delta(_, text, new_piece):
                self._delta(part, text, new_piece, out)
            case Sealed(_, seal):
                if isinstance(part.skeleton, Thinking):
                    part.seal = seal
            case Cited(_, citation):
                written = wire.write_citation(citation)
                if written is not None and part.kind == "text":
                    if not part.open:
                        self._open(part, {"type": "text", "text": ""}, out)
                    delta = {"type": "citations_delta", "citation": written}
                    body = {"type": "content_block_delta", "index": self._next_index - 1, "delta": delta}
                    out.append(named_frame("content_block_delta", json.encode(body)))
            case _:
                pass

    def _delta(self, part: _Part, text: str, new_piece: bool, out: list[bytes]) -> None:
        self._characters += len(text)
        if isinstance(part.skeleton, Refusal):
            self._refused = True
        if not part.shown:
            part.text_seen = True
            return
        if part.kind == "custom":
            # The text goes on inside a JSON string inside a JSON string.
            self._json_delta(json.encode(json.encode(text)[1:-1].decode()), out)
            return
        if not part.open:
            if part.kind == "thinking":
                self._open(part, {"type": "thinking", "thinking": "", "signature": ""}, out)
            else:
                self._open(part, {"type": "text", "text": ""}, out)
        elif new_piece and part.text_seen:
            text = "\n\n" + text
        part.text_seen = True
        out.append(_DELTA % (self._next_index - 1, _DELTAS[part.kind], _FIELDS[part.kind], json.encode(text)))

    def _json_delta(self, text: bytes, out: list[bytes]) -> None:
        out.append(_DELTA % (self._next_index - 1, b"input_json_delta", b"partial_json", text))

    def _open(self, part: _Part | None, block: dict[str, Any], out: list[bytes]) -> None:
        body = {"type": "content_block_start", "index": self._next_index, "content_block": block}
        out.append(named_frame("content_block_start", json.encode(body)))
        self._next_index += 1
        if part is not None:
            part.open = True

    def _close(self, part: _Part, out: list[bytes]) -> None:
        """Ends the block of `part` if it has one; reasoning gets its signature, or is a seal alone."""
        if part.kind == "thinking":
            if part.open:
                signature = json.encode(signature_of(part.seal, self._context))
                out.append(_DELTA % (self._next_index - 1, b"signature_delta", b"signature", signature))
            elif part.ended or part.seal is not None:
                block = sealed_block(part.seal, part.text_seen, self._context)
                if block is not None:
                    self._write_block(block, out)
            part.seal = None
        elif part.kind == "custom" and part.open:
            self._json_delta(b'"\\"}"', out)
        if part.open:
            out.append(_STOP % (self._next_index - 1))
            part.open = False

    def _write_whole(self, event: Whole, out: list[bytes]) -> None:
        content = event.content
        if isinstance(content, Media):
            text = media_text(content)
            self._open(None, {"type": "text", "text": ""}, out)
            out.append(_DELTA % (self._next_index - 1, b"text_delta", b"text", json.encode(text)))
            out.append(_STOP % (self._next_index - 1))
        else:
            self._write_block(content.raw, out)

    def _write_block(self, block: dict[str, Any], out: list[bytes]) -> None:
        """A complete block. Clients build tool input, compaction and signatures from deltas, so these are
        sent as such.
        """
        kind = block.get("type")
        if kind in SERVER_CALLS:
            self._open(None, block | {"input": {}}, out)
            if block.get("input"):
                self._json_delta(json.encode(json.encode(block["input"]).decode()), out)
        elif kind == "compaction":
            self._open(None, {"type": "compaction", "content": None}, out)
            delta = {**block, "type": "compaction_delta"}
            body = {"type": "content_block_delta", "index": self._next_index - 1, "delta": delta}
            out.append(named_frame("content_block_delta", json.encode(body)))
        elif kind == "thinking":
            self._open(None, {"type": "thinking", "thinking": "", "signature": ""}, out)
            signature = json.encode(block["signature"])
            out.append(_DELTA % (self._next_index - 1, b"signature_delta", b"signature", signature))
        else:
            self._open(None, block, out)
        out.append(_STOP % (self._next_index - 1))
