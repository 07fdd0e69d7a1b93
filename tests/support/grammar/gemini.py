"""What a Gemini stream and a Gemini answer must look like so that no client breaks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from tests.support.grammar.frames import (
    DONE,
    LINE_ENDS,
    Frame,
    json_events,
    need_count,
    need_text,
)


def check_gemini_stream(raw: bytes, frames: list[Frame]) -> list[str]:
    problems = [
        f"a line that does not begin with 'data: ': {line[:60]!r}"
        for line in LINE_ENDS.split(raw)
        if line and not line.startswith(b"data: ")
    ]
    if any(data == DONE for _, data in frames):
        problems.append("[DONE] in a Gemini stream")
    events = [event for _, event in json_events(frames, problems)]
    identity: tuple[Any, Any] | None = None
    finished: set[int] = set()
    seen: set[int] = set()
    for number, chunk in enumerate(events):
        where = f"chunk {number}"
        last = number == len(events) - 1
        if "error" in chunk:
            code = (chunk["error"] or {}).get("code")
            if not isinstance(code, int) or not 400 <= code <= 599:
                problems.append(f"{where}: error code {code!r}")
            if not last:
                problems.append(f"{where}: something follows the error")
            return problems
        if identity is None:
            identity = (chunk.get("responseId"), chunk.get("modelVersion"))
        if not all(isinstance(part, str) and part for part in identity):
            problems.append(f"{where}: responseId or modelVersion is missing")
        elif identity != (chunk.get("responseId"), chunk.get("modelVersion")):
            problems.append(f"{where}: responseId or modelVersion changed")
        for candidate in chunk.get("candidates") or ():
            index = candidate.get("index", 0)
            seen.add(index)
            if index in finished:
                problems.append(f"{where}: candidate {index} goes on after its finishReason")
            if candidate.get("finishReason") is not None:
                finished.add(index)
        problems += [f"{where}: {problem}" for problem in _gemini_parts(chunk)]
    blocked = bool(events) and "promptFeedback" in events[-1]
    problems += [f"candidate {index} has no finishReason" for index in sorted(seen - finished)]
    if not seen and not blocked:
        problems.append("no candidate and no promptFeedback")
    if events and "usageMetadata" in events[-1]:
        problems += _gemini_usage(events[-1]["usageMetadata"])
    elif events:
        problems.append("the last chunk has no usageMetadata")
    return problems


_PART_KINDS: Final = (
    "text",
    "inlineData",
    "fileData",
    "functionCall",
    "functionResponse",
    "executableCode",
    "codeExecutionResult",
    "toolCall",
    "toolResponse",
)


def _gemini_parts(chunk: Mapping[str, Any]) -> list[str]:
    problems: list[str] = []
    for candidate in chunk.get("candidates") or ():
        content = candidate.get("content")
        reason = candidate.get("finishReason")
        if reason is not None and not re.fullmatch(r"[A-Z_]+", str(reason)):
            problems.append(f"finishReason {reason!r}")
        if content is None:
            continue
        if content.get("role") != "model":
            problems.append(f"content role {content.get('role')!r}")
        for part in content.get("parts") or ():
            kinds = [kind for kind in _PART_KINDS if kind in part]
            if len(kinds) != 1:
                problems.append(f"a part of the kinds {kinds}")
            if any(value is None for value in part.values()):
                problems.append("a part with null members")
            call = part.get("functionCall")
            if call is not None:
                need_text(call, "name", "functionCall", problems)
                if not isinstance(call.get("args", {}), dict):
                    problems.append("functionCall.args is no object")
    return problems


def _gemini_usage(usage: Any) -> list[str]:
    if not isinstance(usage, dict):
        return [f"usageMetadata is {usage!r}"]
    problems: list[str] = []
    counts = {name: value for name, value in usage.items() if name.endswith("TokenCount")}
    for name in counts:
        need_count(usage, name, "usageMetadata", problems)
    if not problems:
        parts = ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "toolUsePromptTokenCount")
        total = sum(counts.get(name, 0) for name in parts)
        if counts.get("totalTokenCount") != total:
            problems.append(f"totalTokenCount is {counts.get('totalTokenCount')!r}, the parts sum to {total}")
    return problems


def check_gemini_body(body: dict[str, Any]) -> list[str]:
    problems = _gemini_parts(body)
    if not body.get("candidates") and "promptFeedback" not in body:
        problems.append("no candidate and no promptFeedback")
    for candidate in body.get("candidates") or ():
        if not candidate.get("finishReason"):
            problems.append("a candidate without finishReason")
    need_text(body, "responseId", "body", problems)
    need_text(body, "modelVersion", "body", problems)
    if "usageMetadata" in body:
        problems += _gemini_usage(body["usageMetadata"])
    else:
        problems.append("usageMetadata is missing")
    return problems
