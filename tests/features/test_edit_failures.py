"""REQ-04: by which texts a failed edit is known: every message of the corpus, once, and none of the ordinary texts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from llm_proxy import dialects
from tests.e2e.talking import LIST_OF
from tests.features.edit_room import Turn, room_of, session_of
from tests.support.shared import PROTOCOLS, Protocol, client_requests, needs_shared, recordings

FOLDER = Path(__file__).with_name("edit_failures")


def corpus(name: str) -> list[Any]:
    return list(YAML(typ="safe", pure=True).load((FOLDER / name).read_text(encoding="utf-8")))


FAILURES = corpus("failures.yaml")
ORDINARY = corpus("ordinary.yaml")


def said_by_agent(dialect: Protocol, where: str, text: str) -> dict[str, Any]:
    """A conversation whose last turn is this message, and the one that follows the answer to it."""
    said: list[dict[str, Any]]
    match dialect:
        case "openai-chat":
            call = {"id": "1", "type": "function", "function": {"name": "edit", "arguments": "{}"}}
            said = [{"role": "user", "content": "go"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
            result = {"role": "tool", "tool_call_id": "1", "content": text}
            said.append(result if where == "tool" else {"role": "user", "content": text})
        case "openai-responses":
            said = [
                {"role": "user", "content": "go"},
                {"type": "function_call", "name": "edit", "arguments": "{}", "call_id": "1"},
            ]
            result = {"type": "function_call_output", "call_id": "1", "output": text}
            said.append(result if where == "tool" else {"role": "user", "content": text})
        case "anthropic-messages":
            use = {"type": "tool_use", "id": "1", "name": "edit", "input": {}}
            said = [{"role": "user", "content": "go"}, {"role": "assistant", "content": [use]}]
            result = {"type": "tool_result", "tool_use_id": "1", "content": text, "is_error": True}
            said.append({"role": "user", "content": [result if where == "tool" else {"type": "text", "text": text}]})
        case "gemini":
            said = [
                {"role": "user", "parts": [{"text": "go"}]},
                {"role": "model", "parts": [{"functionCall": {"name": "edit", "args": {}}}]},
            ]
            result = {"functionResponse": {"name": "edit", "response": {"error": text}}}
            said.append({"role": "user", "parts": [result if where == "tool" else {"text": text}]})
    return {LIST_OF[dialect]: said}


def recent_of(dialect: str, body: dict[str, Any]) -> Sequence[str]:
    return dialects.get(dialect).read_opening(json.dumps(body).encode()).recent


def test_the_corpus_is_as_large_as_it_is_meant_to_be() -> None:
    assert len(FAILURES) >= 60
    assert len({one["agent"] for one in FAILURES}) >= 10
    assert len(ORDINARY) >= 100


@pytest.mark.parametrize("dialect", PROTOCOLS)
@pytest.mark.parametrize("failure", FAILURES, ids=lambda one: f"{one['agent']}-{one['text'][:30]!r}")
def test_every_failure_tunes_exactly_one_request(failure: dict[str, str], dialect: Protocol) -> None:
    room, session = room_of(), session_of(failure["agent"])
    body = said_by_agent(dialect, failure["in"], failure["text"])
    assert Turn(session, *recent_of(dialect, body)).tuned(room)
    answered = (
        {"role": "assistant", "content": "again"}
        if dialect != "gemini"
        else {"role": "model", "parts": [{"text": "again"}]}
    )
    asked = (
        {"role": "user", "content": "go on"} if dialect != "gemini" else {"role": "user", "parts": [{"text": "go on"}]}
    )
    body[LIST_OF[dialect]] += [answered, asked]
    assert not Turn(session, *recent_of(dialect, body)).tuned(room)


@pytest.mark.parametrize("text", ORDINARY, ids=lambda text: repr(text[:40]))
def test_no_ordinary_text_tunes_a_request(text: str) -> None:
    assert not Turn(session_of(), text).tuned(room_of())


FRAMES = [
    "I read in the issue: {} - is that still true?",
    "src/edit.ts:12:    throw new Error(`{}`)",
    '   12\tmessage = "{}"',
    "| {} | read the file again |",
    "- `{}`: the file has changed",
    "> {}",
    "# {}",
    "2026-09-22T01:50:46Z INFO {}",
]


@pytest.mark.parametrize("frame", FRAMES)
def test_the_same_words_inside_of_other_texts_tune_nothing(frame: str) -> None:
    room = room_of()
    lines = [one["text"] for one in FAILURES if "\n" not in one["text"]]
    assert len(lines) > 40
    assert [text for text in lines if Turn(session_of(), frame.format(text)).tuned(room)] == []


# A model that puts the bare message on a line of its own tells what came of an edit; a person who does so may only ask.
ORDINARY_ANSWERS = [text for text in ORDINARY if "\nError: String to replace not found in file.\n" not in text]


@pytest.mark.parametrize("text", ORDINARY_ANSWERS, ids=lambda text: repr(text[:40]))
def test_no_ordinary_text_as_an_answer_tunes_the_next_request(text: str) -> None:
    room, session = room_of(), session_of()
    assert not Turn(session, "hi").tuned(room, answer=text)
    assert not Turn(session, "hi").tuned(room)


def texts_in(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for member in value.values():
                yield from texts_in(member)
        case list():
            for item in value:
                yield from texts_in(item)


@needs_shared
def test_no_recorded_conversation_tunes_a_request() -> None:
    """None of them holds a failed edit, in whatever place."""
    room, read = room_of(), 0
    recorded = [(one.file, one.body) for one in client_requests() if one.protocol]
    recorded += [(one.file, one.request.body) for one in recordings()]
    for file, body in recorded:
        texts = list(texts_in(body))
        assert not Turn(session_of(), *texts).tuned(room), file
        read += len(texts)
    assert read > 10_000


@needs_shared
def test_no_recorded_answer_tunes_the_next_request() -> None:
    room = room_of()
    for exchange in recordings():
        response = exchange.response
        for text in texts_in(response.body) if response.body is not None else [response.payload.decode()]:
            session = session_of()
            Turn(session, "hi").tuned(room, answer=text)
            assert not session.marks, exchange.file


def test_half_of_a_surrogate_pair_is_read_like_any_other_text() -> None:
    failure = "String to replace not found in file."
    assert Turn(session_of(), f"{failure} \ud800").tuned(room_of())
    assert not Turn(session_of(), "\udfff").tuned(room_of())
