"""What a Chat stream and a Chat answer must look like so that no client breaks."""

from __future__ import annotations

from typing import Any, Final

from tests.support.grammar.frames import (
    DONE,
    Frame,
    json_events,
    need_count,
    need_text,
)

_CHAT_FINISH: Final = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})


def check_chat_stream(frames: list[Frame], usage_asked: bool | None) -> list[str]:
    problems = [f"frame {n}: event line {name!r}" for n, (name, _) in enumerate(frames) if name is not None]
    done = [n for n, (_, data) in enumerate(frames) if data == DONE]
    events = [event for _, event in json_events(frames, problems)]
    failed = bool(events) and bool(events[-1].get("error"))
    if any(event.get("error") for event in events[:-1]):
        problems.append("something follows an error chunk")
    if failed:
        if done:
            problems.append("[DONE] after an error")
        events = events[:-1]
    elif done != [len(frames) - 1]:
        problems.append("[DONE] is not exactly once at the end")
    state = _ChatStream()
    for number, event in enumerate(events):
        state.feed(number, event, last=number == len(events) - 1)
    problems += state.problems
    if not failed:
        problems += state.ended(usage_asked)
    return problems


class _ChatStream:
    """What has been seen of a Chat stream."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.identity: tuple[Any, ...] | None = None
        self.finished: dict[int, str] = {}
        self.calls: dict[int, list[str]] = {}
        self.usage_chunks = 0

    def feed(self, number: int, chunk: dict[str, Any], *, last: bool) -> None:
        where = f"chunk {number}"
        if chunk.get("object") != "chat.completion.chunk":
            self.problems.append(f"{where}: object is {chunk.get('object')!r}")
        identity = tuple(chunk.get(name) for name in ("id", "created", "model"))
        if self.identity is None:
            self.identity = identity
            need_text(chunk, "id", where, self.problems)
            need_text(chunk, "model", where, self.problems)
            need_count(chunk, "created", where, self.problems)
        elif identity != self.identity:
            self.problems.append(f"{where}: id, created or model changed")
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            self.problems.append(f"{where}: choices is {choices!r}")
            return
        if chunk.get("usage") is not None:
            self.usage_chunks += 1
            if choices or not last:
                self.problems.append(f"{where}: usage is not on a last chunk of its own without choices")
            self.problems += _chat_usage(chunk["usage"], where)
        elif not choices:
            self.problems.append(f"{where}: no choices and no usage")
        for choice in choices:
            self.choice(where, choice)

    def choice(self, where: str, choice: dict[str, Any]) -> None:
        index, delta = choice.get("index"), choice.get("delta")
        if not isinstance(index, int) or not isinstance(delta, dict):
            self.problems.append(f"{where}: a choice needs an integer index and an object delta")
            return
        if index not in self.calls:
            if index != len(self.calls):
                self.problems.append(f"{where}: choice {index} opens before choice {len(self.calls)}")
            self.calls[index] = []
            if delta.get("role") != "assistant":
                self.problems.append(f"{where}: the first delta of choice {index} has no role")
        elif "role" in delta:
            self.problems.append(f"{where}: role repeated")
        if index in self.finished:
            self.problems.append(f"{where}: choice {index} goes on after its finish_reason")
        for name, value in delta.items():
            if isinstance(value, list):
                self.problems += [
                    f"{where}: an entry of {name} has no integer index"
                    for entry in value
                    if not isinstance(entry, dict) or not isinstance(entry.get("index"), int)
                ]
        for call in delta.get("tool_calls") or ():
            self.call(where, self.calls[index], call)
        reason = choice.get("finish_reason")
        if reason is not None:
            if reason not in _CHAT_FINISH:
                self.problems.append(f"{where}: finish_reason {reason!r}")
            if reason == "stop" and self.calls[index]:
                self.problems.append(f"{where}: finish_reason stop although there were tool calls")
            self.finished[index] = reason

    def call(self, where: str, open_calls: list[str], call: dict[str, Any]) -> None:
        index, function = call.get("index"), call.get("function") or call.get("custom") or {}
        if not isinstance(index, int):
            return
        if index == len(open_calls):
            open_calls.append(str(call.get("id")))
            need_text(call, "id", f"{where}: call {index}", self.problems)
            need_text(call, "type", f"{where}: call {index}", self.problems)
            need_text(function, "name", f"{where}: call {index}", self.problems)
            if len(set(open_calls)) != len(open_calls):
                self.problems.append(f"{where}: call ids repeat")
        elif index > len(open_calls):
            self.problems.append(f"{where}: call index {index} is not contiguous")
        elif any(call.get(name) for name in ("id", "type")) or function.get("name"):
            self.problems.append(f"{where}: id, type or name repeated for call {index}")

    def ended(self, usage_asked: bool | None) -> list[str]:
        problems = [f"choice {index} has no finish_reason" for index in self.calls if index not in self.finished]
        if not self.calls:
            problems.append("no choice at all")
        if self.usage_chunks > 1:
            problems.append("more than one usage chunk")
        if usage_asked is not None and usage_asked != bool(self.usage_chunks):
            problems.append(
                "a usage chunk without being asked" if self.usage_chunks else "the asked usage chunk is missing"
            )
        return problems


def _chat_usage(usage: Any, where: str) -> list[str]:
    problems: list[str] = []
    if not isinstance(usage, dict):
        return [f"{where}: usage is {usage!r}"]
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        need_count(usage, name, f"{where}.usage", problems)
    return problems


def check_chat_body(body: dict[str, Any]) -> list[str]:
    problems: list[str] = []
    need_text(body, "id", "body", problems)
    need_text(body, "model", "body", problems)
    need_count(body, "created", "body", problems)
    if body.get("object") != "chat.completion":
        problems.append(f"object is {body.get('object')!r}")
    if not body.get("choices"):
        problems.append("no choices")
    for number, choice in enumerate(body.get("choices") or ()):
        where = f"choices[{number}]"
        message = choice.get("message")
        if choice.get("index") != number:
            problems.append(f"{where}.index is {choice.get('index')!r}")
        if choice.get("finish_reason") not in _CHAT_FINISH:
            problems.append(f"{where}.finish_reason is {choice.get('finish_reason')!r}")
        if not isinstance(message, dict) or message.get("role") != "assistant":
            problems.append(f"{where}.message is no assistant message")
            continue
        if "content" not in message or not (message["content"] is None or isinstance(message["content"], str)):
            problems.append(f"{where}.message.content is neither text nor null")
        if message.get("tool_calls") is not None and not message["tool_calls"]:
            problems.append(f"{where}.message.tool_calls is empty")
        for call in message.get("tool_calls") or ():
            need_text(call, "id", f"{where} call", problems)
            need_text(call, "type", f"{where} call", problems)
            function = call.get("function") or call.get("custom") or {}
            need_text(function, "name", f"{where} call", problems)
            if not isinstance(function.get("arguments", function.get("input")), str):
                problems.append(f"{where} call: arguments are no text")
        if message.get("tool_calls") and choice.get("finish_reason") == "stop":
            problems.append(f"{where}: finish_reason stop although there are tool calls")
    if body.get("usage") is not None:
        problems += _chat_usage(body["usage"], "body")
    return problems
