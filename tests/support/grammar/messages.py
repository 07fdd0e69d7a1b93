"""What a Messages stream and a Messages answer must look like so that no client breaks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from tests.support.grammar.frames import (
    Frame,
    json_events,
    need_count,
    need_text,
)

_STOP_REASONS: Final = frozenset(
    {
        "end_turn",
        "max_tokens",
        "stop_sequence",
        "tool_use",
        "pause_turn",
        "refusal",
        "model_context_window_exceeded",
        "compaction",
    }
)
_FITS: Final[Mapping[str, frozenset[str]]] = {
    "text_delta": frozenset({"text"}),
    "citations_delta": frozenset({"text"}),
    "input_json_delta": frozenset({"tool_use", "server_tool_use", "mcp_tool_use"}),
    "thinking_delta": frozenset({"thinking"}),
    "signature_delta": frozenset({"thinking"}),
    "compaction_delta": frozenset({"compaction"}),
}


def check_messages_stream(frames: list[Frame]) -> list[str]:
    problems: list[str] = []
    events = json_events(frames, problems)
    state = _MessagesStream()
    for number, (name, event) in enumerate(events):
        if name != event.get("type"):
            state.problems.append(f"event {number}: the event line {name!r} is not the type {event.get('type')!r}")
        state.feed(number, event)
    return problems + state.problems + state.ended()


class _MessagesStream:
    """What has been seen of a Messages stream."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.started = self.delta_seen = self.stopped = self.failed = False
        self.blocks = 0
        self.open: str | None = None
        self.signed = False
        self.json_text = ""

    def feed(self, number: int, event: dict[str, Any]) -> None:
        kind = str(event.get("type"))
        where = f"event {number} ({kind})"
        if self.stopped or self.failed:
            self.problems.append(f"{where}: something follows the end")
        if kind not in ("ping", "error") and not self.started and kind != "message_start":
            self.problems.append(f"{where}: comes before message_start")
        match kind:
            case "ping":
                pass
            case "error":
                self.failed = True
                error = event.get("error")
                if not isinstance(error, dict):
                    self.problems.append(f"{where}: no error object")
                else:
                    need_text(error, "type", where, self.problems)
                    need_text(error, "message", where, self.problems)
            case "message_start":
                self.start(where, event.get("message"))
            case "content_block_start":
                self.block_start(where, event)
            case "content_block_delta":
                self.block_delta(where, event)
            case "content_block_stop":
                self.block_stop(where, event)
            case "message_delta":
                self.message_delta(where, event)
            case "message_stop":
                self.stopped = True
                if not self.delta_seen:
                    self.problems.append(f"{where}: no message_delta before")
            case _:
                self.problems.append(f"{where}: unknown event")

    def start(self, where: str, message: Any) -> None:
        if self.started:
            self.problems.append(f"{where}: a second message_start")
        self.started = True
        if not isinstance(message, dict):
            self.problems.append(f"{where}: no message")
            return
        need_text(message, "id", where, self.problems)
        need_text(message, "model", where, self.problems)
        if (message.get("type"), message.get("role"), message.get("content")) != ("message", "assistant", []):
            self.problems.append(f"{where}: not an empty assistant message")
        if message.get("stop_reason") is not None:
            self.problems.append(f"{where}: stop_reason is set")
        for name in ("stop_reason", "stop_sequence"):
            if name not in message:
                self.problems.append(f"{where}: {name} is missing")
        usage = message.get("usage")
        if not isinstance(usage, dict):
            self.problems.append(f"{where}: no usage")
        else:
            need_count(usage, "input_tokens", f"{where}.usage", self.problems)
            need_count(usage, "output_tokens", f"{where}.usage", self.problems)

    def block_start(self, where: str, event: dict[str, Any]) -> None:
        block = event.get("content_block")
        if self.open is not None:
            self.problems.append(f"{where}: another block is open")
        if event.get("index") != self.blocks:
            self.problems.append(f"{where}: index {event.get('index')!r}, expected {self.blocks}")
        if self.delta_seen:
            self.problems.append(f"{where}: comes after message_delta")
        self.blocks += 1
        self.signed, self.json_text = False, ""
        if not isinstance(block, dict):
            self.problems.append(f"{where}: no content_block")
            self.open = ""
            return
        self.open = str(block.get("type"))
        empty: Mapping[str, Any] = {"text": "", "thinking": "", "tool_use": {}}
        name = "input" if self.open == "tool_use" else self.open
        if self.open in empty and block.get(name) != empty[self.open]:
            self.problems.append(f"{where}: the block does not begin empty")
        if self.open == "tool_use":
            need_text(block, "name", where, self.problems)
            if not re.fullmatch(r"[a-zA-Z0-9_-]+", str(block.get("id") or "")):
                self.problems.append(f"{where}: id {block.get('id')!r}")
        if self.open == "thinking" and not isinstance(block.get("signature"), str):
            self.problems.append(f"{where}: a thinking block begins with signature ''")

    def block_delta(self, where: str, event: dict[str, Any]) -> None:
        delta = event.get("delta") or {}
        kind = str(delta.get("type"))
        if self.open is None or event.get("index") != self.blocks - 1:
            self.problems.append(f"{where}: block {event.get('index')!r} is not open")
            return
        if self.open not in _FITS.get(kind, frozenset()):
            self.problems.append(f"{where}: {kind} into a {self.open} block")
        if self.signed:
            self.problems.append(f"{where}: something follows the signature")
        if kind == "signature_delta":
            self.signed = True
            need_text(delta, "signature", where, self.problems)
        if kind == "input_json_delta":
            self.json_text += str(delta.get("partial_json"))

    def block_stop(self, where: str, event: dict[str, Any]) -> None:
        if self.open is None or event.get("index") != self.blocks - 1:
            self.problems.append(f"{where}: block {event.get('index')!r} is not open")
        self.open = None

    def message_delta(self, where: str, event: dict[str, Any]) -> None:
        if self.delta_seen:
            self.problems.append(f"{where}: a second message_delta")
        if self.open is not None:
            self.problems.append(f"{where}: a block is still open")
        self.delta_seen = True
        delta = event.get("delta") or {}
        if delta.get("stop_reason") not in _STOP_REASONS:
            self.problems.append(f"{where}: stop_reason {delta.get('stop_reason')!r}")
        if "stop_sequence" not in delta:
            self.problems.append(f"{where}: no stop_sequence")
        need_count(event.get("usage") or {}, "output_tokens", f"{where}.usage", self.problems)

    def ended(self) -> list[str]:
        return [] if self.stopped or self.failed else ["neither message_stop nor error at the end"]


def check_messages_body(body: dict[str, Any]) -> list[str]:
    problems: list[str] = []
    need_text(body, "id", "body", problems)
    need_text(body, "model", "body", problems)
    if (body.get("type"), body.get("role")) != ("message", "assistant"):
        problems.append("not an assistant message")
    if body.get("stop_reason") not in _STOP_REASONS:
        problems.append(f"stop_reason is {body.get('stop_reason')!r}")
    if "stop_sequence" not in body:
        problems.append("stop_sequence is missing")
    if not isinstance(body.get("content"), list):
        problems.append("content is no list")
    for number, block in enumerate(body.get("content") or ()):
        where = f"content[{number}]"
        match block.get("type"):
            case "text":
                if not isinstance(block.get("text"), str):
                    problems.append(f"{where}.text is no text")
            case "thinking":
                if not isinstance(block.get("thinking"), str) or not isinstance(block.get("signature"), str):
                    problems.append(f"{where} needs thinking and signature")
            case "tool_use":
                need_text(block, "name", where, problems)
                if not re.fullmatch(r"[a-zA-Z0-9_-]+", str(block.get("id") or "")):
                    problems.append(f"{where}.id is {block.get('id')!r}")
                if not isinstance(block.get("input"), dict):
                    problems.append(f"{where}.input is no object")
            case str():
                pass
            case _:
                problems.append(f"{where} has no type")
    usage = body.get("usage")
    if not isinstance(usage, dict):
        problems.append("no usage")
    else:
        need_count(usage, "input_tokens", "usage", problems)
        need_count(usage, "output_tokens", "usage", problems)
    return problems
