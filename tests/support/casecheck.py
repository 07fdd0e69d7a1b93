"""The check language of the translation cases: `expect` entries and partial `semantic` matches.

Owns the evaluation of one check against a translated body, an emitted stream or an HTTP answer. It knows how
each protocol names calls and errors, and nothing else about them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from tests.support.grammar import events_of
from tests.support.semantic import Semantic
from tests.support.shared import Protocol

MISSING: Final = object()
_STEP: Final = re.compile(r"\[(-?\d+)\]|([^.\[\]]+)")
_NOWHERE: Final[Mapping[str, re.Pattern[str]]] = {"cache_control_null": re.compile(r'"cache_control":null')}


def at(value: Any, path: str) -> Any:
    """The value at a path such as `messages[1].content[0].id`, or MISSING."""
    for index, name in _STEP.findall(path):
        if index:
            position = int(index)
            if not isinstance(value, list) or not -len(value) <= position < len(value):
                return MISSING
            value = value[position]
        else:
            if not isinstance(value, dict) or name not in value:
                return MISSING
            value = value[name]
    return value


def failed_checks(
    expect: Sequence[Mapping[str, Any]],
    *,
    body: Any = None,
    stream: bytes | None = None,
    protocol: Protocol | None = None,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> list[str]:
    """The checks that do not hold, each with what was found. Give what the case has: a body, a stream, an
    HTTP answer.
    """
    emitted = [] if stream is None or protocol is None else [data for _, data in events_of(protocol, stream)]
    lowered = {name.lower(): value for name, value in (headers or {}).items()}
    wrong: list[str] = []
    for check in expect:
        problem = _problem(check, body, emitted, status, lowered)
        if problem is not None:
            wrong.append(f"{json.dumps(check, ensure_ascii=False)}: {problem}")
    return wrong


def semantic_mismatches(partial: Mapping[str, Any], got: Semantic) -> list[str]:
    """Where the partial meaning of a case differs from what a client read; `error: true` = any error."""
    actual = got.to_json()
    wrong = []
    for name, expected in partial.items():
        found = actual[name]
        if name == "error" and expected is True:
            if found is None:
                wrong.append("error: none was read")
        elif name == "usage":
            wrong += [
                f"usage.{bucket}: expected {count}, got {found[bucket]}"
                for bucket, count in expected.items()
                if (found[bucket] or 0) != count
            ]
        elif found != expected:
            wrong.append(f"{name}: expected {expected!r}, got {found!r}")
    return wrong


def _problem(
    check: Mapping[str, Any], body: Any, emitted: list[Any], status: int | None, headers: Mapping[str, str]
) -> str | None:
    match check:
        case {"header": str(name)}:
            found = headers.get(name)
            return None if found == check["eq"] else f"found {found!r}"
        case {"http_status": int(wanted)}:
            return None if status == wanted else f"status is {status}"
        case {"http_status_ge": int(least)}:
            return None if status is not None and status >= least else f"status is {status}"
        case {"any_role": str(role), "contains": str(text)}:
            return None if any(text in _text(m) for m in _messages(body, role)) else f"no message of role {role} has it"
        case {"nowhere": str(name)}:
            pattern = _NOWHERE.get(name) or re.compile(name)
            return "it occurs" if pattern.search(_text(body)) else None
        case {"path": str(path)}:
            return _problem_at(check, body, path)
        case _:
            return _problem_in_stream(check, emitted)


def _problem_at(check: Mapping[str, Any], body: Any, path: str) -> str | None:
    found = at(body, path)
    shown = "nothing there" if found is MISSING else f"found {_text(found)[:300]}"
    if "absent" in check:
        return None if found is MISSING else shown
    if found is MISSING:
        return shown
    holds = True
    for name, wanted in check.items():
        match name:
            case "path" | "exists":
                pass
            case "eq":
                holds = type(found) is bool if isinstance(wanted, bool) else True
                holds = holds and found == wanted
            case "len":
                holds = isinstance(found, list) and len(found) == wanted
            case "contains":
                holds = wanted in _text(found) or wanted in joined_text(found)
            case "text_eq":
                holds = joined_text(found) == wanted
            case "same_as":
                holds = found == at(body, wanted)
            case "differs_from":
                holds = found != at(body, wanted)
            case "matches":
                holds = isinstance(found, str) and re.search(wanted, found) is not None
            case "json_eq":
                holds = isinstance(found, str) and json.loads(found) == wanted
            case "has_part":
                holds = _has_part(found, wanted)
            case "no_part":
                holds = not _has_part(found, wanted)
            case "gt":
                holds = isinstance(found, int | float) and found > wanted
            case "type":
                holds = _json_type(found) == wanted or (wanted == "number" and _json_type(found) == "integer")
            case "no_empty_text":
                holds = not any(part == "" for part in _texts(found))
            case _:
                raise ValueError(f"unknown check {name!r}")
        if not holds:
            return shown
    return None


def _problem_in_stream(check: Mapping[str, Any], emitted: list[Any]) -> str | None:
    match check:
        case {"event_count": Mapping() as counts}:
            kinds = [event.get("type") for event in emitted if isinstance(event, dict)]
            wrong = {kind: kinds.count(kind) for kind, wanted in counts.items() if kinds.count(kind) != wanted}
            return f"counted {wrong}" if wrong else None
        case {"terminal_event": str(kind)}:
            last = emitted[-1].get("type") if emitted else None
            return None if last == kind else f"the last event is {last}"
        case {"last_chunk": Mapping() as members}:
            last = emitted[-1] if emitted else {}
            return None if all(last.get(k, MISSING) == v for k, v in members.items()) else f"it is {_text(last)[:300]}"
        case {"distinct_call_ids": True}:
            ids = call_ids(emitted)
            return None if ids and len(ids) == len(set(ids)) else f"the ids are {ids}"
        case {"error_message_contains": str(text)}:
            messages = list(_error_messages(emitted))
            return None if any(text in message for message in messages) else f"the error messages are {messages}"
        case _:
            raise ValueError(f"unknown check {check!r}")


def call_ids(emitted: Sequence[Any]) -> list[str]:
    """The ids of the tool calls of an emitted stream, of whichever protocol, in order of appearance."""
    ids: list[str] = []
    for event in emitted:
        if not isinstance(event, dict):
            continue
        for choice in event.get("choices") or ():
            ids += [c["id"] for c in (choice.get("delta") or {}).get("tool_calls") or () if c.get("id")]
        if event.get("type") == "response.output_item.added" and "call_id" in event.get("item", {}):
            ids.append(event["item"]["call_id"])
        if event.get("type") == "content_block_start" and event.get("content_block", {}).get("type") == "tool_use":
            ids.append(event["content_block"]["id"])
        for candidate in event.get("candidates") or ():
            parts = (candidate.get("content") or {}).get("parts") or ()
            ids += [p["functionCall"]["id"] for p in parts if (p.get("functionCall") or {}).get("id")]
    return ids


def _error_messages(emitted: Sequence[Any]) -> Iterator[str]:
    for event in emitted:
        if not isinstance(event, dict):
            continue
        places = [event.get("error"), (event.get("response") or {}).get("error")]
        if event.get("type") == "error":
            places.append(event)
        for place in places:
            if isinstance(place, dict) and isinstance(place.get("message"), str):
                yield place["message"]


def joined_text(value: Any) -> str:
    """The text of a string, a part, a list of parts or a message, of whichever protocol."""
    match value:
        case str():
            return value
        case list():
            return "".join(joined_text(entry) for entry in value)
        case {"text": str(text)}:
            return text
        case {"content": content}:
            return joined_text(content)
        case {"parts": parts}:
            return joined_text(parts)
        case {"result": result}:
            return joined_text(result)
        case _:
            return ""


def _texts(value: Any) -> Iterator[str]:
    """Every text that a message or part holds, at any depth."""
    match value:
        case dict():
            for name, inner in value.items():
                if name in ("text", "content") and isinstance(inner, str):
                    yield inner
                else:
                    yield from _texts(inner)
        case list():
            for inner in value:
                yield from _texts(inner)
        case _:
            return


def _messages(body: Any, role: str) -> list[Any]:
    found = []
    for name in ("messages", "input", "contents"):
        entries = body.get(name) if isinstance(body, dict) else None
        if isinstance(entries, list):
            found += [entry for entry in entries if isinstance(entry, dict) and entry.get("role") == role]
    return found


def _has_part(value: Any, members: Mapping[str, Any]) -> bool:
    return isinstance(value, list) and any(
        isinstance(part, dict) and all(part.get(name, MISSING) == wanted for name, wanted in members.items())
        for part in value
    )


def _json_type(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case dict():
            return "object"
        case _:
            return "null"


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
