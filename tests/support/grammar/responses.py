"""What a Responses stream and a Responses answer must look like so that no client breaks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tests.support.grammar.frames import (
    DONE,
    Frame,
    json_events,
    need_count,
    need_text,
)

_TERMINAL: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})
# event -> (what its deltas build, the field of the done event)
_DELTAS: Final[Mapping[str, str]] = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "refusal",
    "response.reasoning_summary_text.delta": "summary",
    "response.reasoning_text.delta": "reasoning",
    "response.function_call_arguments.delta": "arguments",
    "response.custom_tool_call_input.delta": "input",
}
_DONES: Final[Mapping[str, tuple[str, str]]] = {
    "response.output_text.done": ("text", "text"),
    "response.refusal.done": ("refusal", "refusal"),
    "response.reasoning_summary_text.done": ("summary", "text"),
    "response.reasoning_text.done": ("reasoning", "text"),
    "response.function_call_arguments.done": ("arguments", "arguments"),
    "response.custom_tool_call_input.done": ("input", "input"),
}


def check_responses_stream(frames: list[Frame]) -> list[str]:
    problems: list[str] = []
    if any(data == DONE for _, data in frames):
        problems.append("[DONE] in a Responses stream")
    events = json_events(frames, problems)
    state = _ResponsesStream()
    for number, (name, event) in enumerate(events):
        if name != event.get("type"):
            state.problems.append(f"event {number}: the event line {name!r} is not the type {event.get('type')!r}")
        state.feed(number, event)
    return problems + state.problems + state.ended()


class _ResponsesStream:
    """What has been seen of a Responses stream."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.number = -1
        self.response_id: str | None = None
        self.open: dict[int, dict[str, Any]] = {}
        self.done: dict[int, dict[str, Any]] = {}
        self.parts: set[tuple[int, str, int]] = set()
        self.closed_parts: set[tuple[int, str, int]] = set()
        self.joined: dict[tuple[int, str, int], str] = {}
        self.terminal: str | None = None

    def feed(self, number: int, event: dict[str, Any]) -> None:
        kind = str(event.get("type"))
        where = f"event {number} ({kind})"
        sequence = event.get("sequence_number")
        if not isinstance(sequence, int) or sequence <= self.number or (number == 0 and sequence != 0):
            self.problems.append(f"{where}: sequence_number {sequence!r} after {self.number}")
        else:
            self.number = sequence
        if self.terminal is not None:
            self.problems.append(f"{where}: follows {self.terminal}")
        if number == 0 and kind != "response.created":
            self.problems.append(f"{where}: the first event is not response.created")
        if isinstance(event.get("response"), dict):
            self.response(where, kind, number, event["response"])
        match kind:
            case "response.output_item.added":
                self.added(where, event)
            case "response.output_item.done":
                self.item_done(where, event)
            case "response.content_part.added" | "response.reasoning_summary_part.added":
                self.part_added(where, kind, event)
            case "response.content_part.done" | "response.reasoning_summary_part.done":
                self.part_done(where, kind, event)
            case _ if kind in _DELTAS:
                self.delta(where, kind, event)
            case _ if kind in _DONES:
                self.text_done(where, kind, event)
            case _ if kind in _TERMINAL:
                self.terminal = kind
            case _:
                pass

    def response(self, where: str, kind: str, number: int, response: dict[str, Any]) -> None:
        if number == 0:
            self.response_id = response.get("id")
            need_text(response, "id", where, self.problems)
            if response.get("output") != [] or response.get("status") != "in_progress":
                self.problems.append(f"{where}: the first response is not in progress without output")
        elif response.get("id") != self.response_id:
            self.problems.append(f"{where}: the response id changed")
        self.problems += [f"{where}: {problem}" for problem in _response_shape(response)]
        if kind in _TERMINAL:
            if response.get("status") != kind.removeprefix("response."):
                self.problems.append(f"{where}: status is {response.get('status')!r}")
            output = response.get("output") or []
            if output != [self.done[index] for index in sorted(self.done)] and kind != "response.failed":
                self.problems.append(f"{where}: the output is not the list of finished items")
            if kind == "response.completed":
                self.problems += _responses_usage(response.get("usage"), where)
            if kind == "response.failed" and not isinstance(response.get("error"), dict):
                self.problems.append(f"{where}: no error")

    def added(self, where: str, event: dict[str, Any]) -> None:
        index, item = event.get("output_index"), event.get("item")
        if not isinstance(index, int) or not isinstance(item, dict):
            self.problems.append(f"{where}: needs output_index and item")
            return
        if index != len(self.open):
            self.problems.append(f"{where}: output_index {index}, expected {len(self.open)}")
        self.open[index] = item
        if item.get("content") or item.get("arguments") or item.get("summary"):
            self.problems.append(f"{where}: the item is not empty")

    def item_done(self, where: str, event: dict[str, Any]) -> None:
        index, item = event.get("output_index"), event.get("item")
        if not isinstance(index, int) or not isinstance(item, dict) or index not in self.open:
            self.problems.append(f"{where}: the item was never added")
            return
        if index in self.done:
            self.problems.append(f"{where}: done twice")
        begun = self.open[index]
        for name in ("type", "id", "call_id", "name"):
            if begun.get(name) != item.get(name):
                self.problems.append(f"{where}: {name} changed from {begun.get(name)!r} to {item.get(name)!r}")
        self.done[index] = item
        for key, text in self.joined.items():
            if key[0] == index and text != _item_text(item, key[1], key[2]):
                self.problems.append(f"{where}: {key[1]} {key[2]} is not the joined deltas")
        for part in self.parts - self.closed_parts:
            if part[0] == index:
                self.problems.append(f"{where}: {part[1]} part {part[2]} was never done")
        for number, part in enumerate(item.get("content") or ()):
            if item.get("type") == "message" and (index, "content", number) not in self.parts:
                self.problems.append(f"{where}: content part {number} was never added")
            if part.get("type") == "output_text" and not isinstance(part.get("annotations"), list):
                self.problems.append(f"{where}: content part {number} has no list of annotations")

    def _part_key(self, kind: str, event: dict[str, Any]) -> tuple[int, str, int]:
        if "summary" in kind:
            return (event.get("output_index", -1), "summary", event.get("summary_index", -1))
        return (event.get("output_index", -1), "content", event.get("content_index", -1))

    def part_added(self, where: str, kind: str, event: dict[str, Any]) -> None:
        key = self._part_key(kind, event)
        self.running(where, event)
        if key in self.parts:
            self.problems.append(f"{where}: part added twice")
        self.parts.add(key)
        part = event.get("part") or {}
        if part.get("type") == "output_text" and not isinstance(part.get("annotations"), list):
            self.problems.append(f"{where}: no list of annotations")
        if part.get("text") or part.get("refusal"):
            self.problems.append(f"{where}: the part is not empty")

    def part_done(self, where: str, kind: str, event: dict[str, Any]) -> None:
        key = self._part_key(kind, event)
        if key not in self.parts:
            self.problems.append(f"{where}: part never added")
        self.closed_parts.add(key)

    def running(self, where: str, event: dict[str, Any]) -> None:
        index = event.get("output_index")
        if index not in self.open or index in self.done:
            self.problems.append(f"{where}: item {index!r} is not open")
        elif self.open[index].get("id") is not None and event.get("item_id") != self.open[index].get("id"):
            self.problems.append(f"{where}: item_id {event.get('item_id')!r} is not that of item {index}")

    def _text_key(self, what: str, event: dict[str, Any]) -> tuple[int, str, int]:
        number = event.get("summary_index") if what == "summary" else event.get("content_index", 0)
        return (event.get("output_index", -1), what, number if isinstance(number, int) else -1)

    def delta(self, where: str, kind: str, event: dict[str, Any]) -> None:
        what = _DELTAS[kind]
        self.running(where, event)
        key = self._text_key(what, event)
        part = (key[0], "summary" if what == "summary" else "content", key[2])
        if what in ("text", "refusal", "summary") and part not in self.parts - self.closed_parts:
            self.problems.append(f"{where}: its part is not open")
        if not isinstance(event.get("delta"), str):
            self.problems.append(f"{where}: delta is no text")
            return
        if what == "text" and not isinstance(event.get("logprobs"), list):
            self.problems.append(f"{where}: no list of logprobs")
        self.joined[key] = self.joined.get(key, "") + event["delta"]

    def text_done(self, where: str, kind: str, event: dict[str, Any]) -> None:
        what, name = _DONES[kind]
        self.running(where, event)
        if event.get(name) != self.joined.get(self._text_key(what, event), ""):
            self.problems.append(f"{where}: {name} is not the joined deltas")
        if what == "text" and not isinstance(event.get("logprobs"), list):
            self.problems.append(f"{where}: no list of logprobs")

    def ended(self) -> list[str]:
        if self.terminal is None:
            return ["no terminal event"]
        if self.terminal == "response.completed":
            return [f"item {index} was never done" for index in self.open if index not in self.done]
        return []


def _item_text(item: Mapping[str, Any], what: str, number: int) -> str | None:
    match what:
        case "arguments" | "input":
            return item.get(what)
        case "summary":
            parts = item.get("summary") or []
        case _:
            parts = item.get("content") or []
    if not 0 <= number < len(parts):
        return None
    part = parts[number]
    found = part.get("refusal") if what == "refusal" else part.get("text")
    return found if isinstance(found, str) else None


def _response_shape(response: Mapping[str, Any]) -> list[str]:
    problems: list[str] = []
    if response.get("object") != "response":
        problems.append(f"object is {response.get('object')!r}")
    if not isinstance(response.get("created_at"), int | float):
        problems.append("created_at is no number")
    need_text(response, "model", "response", problems)
    for name, kind in (("output", list), ("tools", list), ("parallel_tool_calls", bool)):
        if not isinstance(response.get(name), kind):
            problems.append(f"{name} is {response.get(name)!r:.80}")
    for name in (
        "tool_choice",
        "error",
        "incomplete_details",
        "instructions",
        "metadata",
        "temperature",
        "top_p",
    ):
        if name not in response:
            problems.append(f"{name} is missing")
    return problems


def _responses_usage(usage: Any, where: str) -> list[str]:
    if not isinstance(usage, dict):
        return [f"{where}: usage is {usage!r}"]
    problems: list[str] = []
    for name in ("input_tokens", "output_tokens", "total_tokens"):
        need_count(usage, name, f"{where}.usage", problems)
    need_count(
        usage.get("input_tokens_details") or {},
        "cached_tokens",
        f"{where}.usage.input_tokens_details",
        problems,
    )
    need_count(
        usage.get("output_tokens_details") or {},
        "reasoning_tokens",
        f"{where}.usage.output_tokens_details",
        problems,
    )
    return problems


def check_responses_body(body: dict[str, Any]) -> list[str]:
    problems: list[str] = []
    need_text(body, "id", "body", problems)
    problems += _response_shape(body)
    status = body.get("status")
    if status not in ("completed", "incomplete", "failed", "in_progress", "queued", "cancelled"):
        problems.append(f"status is {status!r}")
    if status == "completed":
        problems += _responses_usage(body.get("usage"), "body")
    if status == "incomplete" and not (body.get("incomplete_details") or {}).get("reason"):
        problems.append("incomplete without a reason")
    for number, item in enumerate(body.get("output") or ()):
        where = f"output[{number}]"
        match item.get("type"):
            case "message":
                if item.get("role") != "assistant" or not isinstance(item.get("content"), list):
                    problems.append(f"{where} is no assistant message with a list of parts")
                for part in item.get("content") or ():
                    if part.get("type") == "output_text" and not isinstance(part.get("annotations"), list):
                        problems.append(f"{where}: a text part has no list of annotations")
                need_text(item, "id", where, problems)
            case "function_call":
                for name in ("call_id", "name"):
                    need_text(item, name, where, problems)
                if not isinstance(item.get("arguments"), str):
                    problems.append(f"{where}.arguments is no text")
            case "custom_tool_call":
                for name in ("call_id", "name"):
                    need_text(item, name, where, problems)
            case "reasoning":
                need_text(item, "id", where, problems)
                if not isinstance(item.get("summary"), list):
                    problems.append(f"{where}.summary is no list")
            case str():
                pass
            case _:
                problems.append(f"{where} has no type")
    return problems
