"""What is asked, answered and done wrong, each request by its number alone, so that client and provider agree without a word.

Owns the shares of protocols, streams, faults and leaving clients, the bytes of requests and answers, and the verdict on one answer.
"""

from __future__ import annotations

import gc
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

from tests.e2e.asking import PAIRS, Called, data_of, path_of, tools_of
from tests.e2e.calling import Turn, stream_of, whole_of
from tests.faults.failing import ends_in_failure, error_reply, first_event
from tests.faults.stage import Answer, deltas
from tests.server.process import KEY
from tests.support.shared import Protocol
from tests.support.upstream import Close, Hang, Pause, Reply, Reset, Send, Step

STREAMED: Final = 0.60
FAULTY: Final = 0.05
LEAVING: Final = 0.02
SESSIONS: Final = 200
TURNS: Final = 200
"""Requests of a session before another takes its place: one of them ends every so many requests, as people come and go."""
POPULAR: Final = 1600
"""Of so many requests the first of each pair of protocols asks what many of the others ask again."""
PACE: Final = 0.03
"""Seconds between two pieces of a slow stream."""
SILENCE: Final = 3.0
"""The back ends' `timeout`."""
BACK_ENDS: Final[dict[Protocol, str]] = {
    "openai-chat": "chat",
    "openai-responses": "native",
    "anthropic-messages": "claude",
    "gemini": "google",
}
KEYS: Final = ("a", "b", "c")
_TYPES: Final[dict[Protocol, str]] = {
    "openai-chat": "openai",
    "openai-responses": "openai-responses",
    "anthropic-messages": "anthropic",
    "gemini": "gemini",
}
_WORDS: Final = tuple("".join(random.Random(n).choices("abcdefghijklmnopqrstuvwxyz", k=2 + n % 9)) for n in range(2000))
_ID: Final = re.compile(rb"question ([0-9]{9})\b")

Fate = Literal[
    "ok", "429", "500", "reset", "hang-up", "stall", "bad JSON", "reset after content", "error after content"
]
BEFORE: Final[tuple[Fate, ...]] = ("429", "500", "reset", "hang-up", "bad JSON")
AFTER: Final[tuple[Fate, ...]] = ("reset after content", "error after content")
Leave = Literal["", "at once", "at the first piece", "in the middle"]


@dataclass(frozen=True)
class Asked:
    """One request. `question` is the number that its answer depends on: popular questions are asked again and again."""

    number: int
    question: int
    client: Protocol
    back: Protocol
    stream: bool
    slow: bool
    tools: bool
    routed: bool
    session: str
    named: bool
    """Whether the client says which session it is; else the conversation's beginning tells."""
    fate: Fate
    leave: Leave


@lru_cache(maxsize=20_000)
def asked(number: int) -> Asked:
    draw = random.Random(number)
    client, back = PAIRS[number % len(PAIRS)]
    first = number % POPULAR < len(PAIRS)
    stream = draw.random() < STREAMED and not first
    leave: Leave = ""
    if draw.random() < LEAVING and not first:
        leave = draw.choice(("at once", "at the first piece", "in the middle"))
    popular = first or (not stream and not leave and draw.random() < 0.1)
    fate: Fate = "ok"
    if not popular and not leave and draw.random() < FAULTY:
        fate = draw.choice((*BEFORE, *BEFORE, "stall", *(AFTER * 2 if stream else ())))
    slot = number * 7919 % SESSIONS
    return Asked(
        number=number,
        question=number - number % POPULAR + number % len(PAIRS) if popular else number,
        client=client,
        back=back,
        stream=stream,
        slow=stream and draw.random() < 0.25,
        tools=not popular and draw.random() < 0.3,
        routed=draw.random() < 0.5,
        session=f"{slot:03}-{(number + slot * TURNS) // (SESSIONS * TURNS)}",
        named=slot % 2 == 0,
        fate=fate,
        leave=leave,
    )


@lru_cache(maxsize=2_000)
def turn_of(question: int) -> Turn:
    """What the provider says: words that never come back in the same order, sometimes after thoughts, sometimes with a call."""
    draw = random.Random(question + 2**40)
    text = f"to {question:09}: " + " ".join(draw.choices(_WORDS, k=draw.randrange(5, 120))) + "."
    one = asked(question)
    calls = (Called(f"call_{question:09}", "lookup", {"a": question}),) if one.tools and draw.random() < 0.5 else ()
    thinking = " ".join(draw.choices(_WORDS, k=20)) if draw.random() < 0.2 else ""
    return Turn(thinking=thinking, text=text, calls=calls)


# The client's side


def request_bytes(one: Asked) -> bytes:
    """The whole HTTP request."""
    name = BACK_ENDS[one.back]
    model = f"route-{name}" if one.routed else f"{name}:m"
    said = f"Please answer question {one.question:09}."
    body: dict[str, Any] = {**_conversation(one.client, _opening(one.session), said), **_wishes(one)}
    if one.client != "gemini":
        body = {"model": model, "stream": one.stream, **body}
    data = json.dumps(body).encode()
    session = f"x-session-id: {one.session}\r\n" if one.named else ""
    return (
        f"POST {path_of(one.client, model, one.stream)} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\nx-request-id: rq-{one.number:09}\r\n{session}\r\n"
    ).encode() + data


@lru_cache(maxsize=1_000)
def _opening(session: str) -> str:
    return f"We begin the work {session}. " + " ".join(random.Random(session).choices(_WORDS, k=150))


def _conversation(client: Protocol, opening: str, said: str) -> dict[str, Any]:
    if client == "gemini":
        texts = (("user", opening), ("model", "Yes."), ("user", said))
        return {"contents": [{"role": role, "parts": [{"text": text}]} for role, text in texts]}
    talk = [
        {"role": "user", "content": opening},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": said},
    ]
    match client:
        case "openai-responses":
            return {"input": talk}
        case "anthropic-messages":
            return {"messages": talk, "max_tokens": 4000}
        case _:
            return {"messages": talk}


def _wishes(one: Asked) -> dict[str, Any]:
    cold = one.question % POPULAR < len(PAIRS)
    wishes: dict[str, Any] = tools_of(one.client, "lookup") if one.tools else {}
    if one.client == "gemini":
        return wishes | ({"generationConfig": {"temperature": 0}} if cold else {})
    return wishes | ({"temperature": 0} if cold else {})


def verdict(one: Asked, answer: Answer) -> str:
    """What is wrong with an answer; "" when it is what it must be."""
    if not answer.complete:
        return "the answer does not end in order"
    if answer.status != 200:
        return f"status {answer.status}: {answer.body[:300]!r}"
    turn = turn_of(one.question)
    if one.fate in AFTER:
        if not ends_in_failure(one.client, answer):
            return "it broke off without saying so"
        text = _heard(one, answer)[0]
        return "" if "w0 ".startswith(text) else f"before the break it said {text!r}"
    try:
        text, calls, ended = _heard(one, answer)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        return f"unreadable ({error!r}): {answer.body[:300]!r}"
    if not ended:
        return f"no proper end: {answer.body[-300:]!r}"
    if text != turn.text:
        return f"text {text[:200]!r} instead of {turn.text[:200]!r}"
    return "" if calls == [call.arguments for call in turn.calls] else f"calls {calls}"


Heard = tuple[str, list[Any], bool]
"""Text, arguments of the calls, and whether it ended as success."""


def _heard(one: Asked, answer: Answer) -> Heard:
    events = [event for event in data_of(answer) if event != "[DONE]"] if one.stream else [answer.json]
    match one.client:
        case "openai-chat":
            return _heard_chat(events, "delta" if one.stream else "message")
        case "openai-responses":
            return _heard_responses(events, one.stream)
        case "anthropic-messages":
            return _heard_messages(events, one.stream)
        case "gemini":
            return _heard_gemini(events)


def _heard_chat(events: Sequence[Any], member: str) -> Heard:
    text, arguments, ended = "", "", False
    for choice in (choice for event in events for choice in event.get("choices", ())):
        said = choice[member]
        text += said.get("content") or ""
        arguments += "".join(call["function"].get("arguments") or "" for call in said.get("tool_calls") or ())
        ended = ended or choice.get("finish_reason") in ("stop", "tool_calls")
    return text, [json.loads(arguments)] if arguments else [], ended


def _heard_responses(events: Sequence[Any], stream: bool) -> Heard:
    streamed = "".join(event["delta"] for event in events if event.get("type") == "response.output_text.delta")
    last = events[-1].get("response", {}) if stream else events[-1]
    output = last.get("output", [])
    whole = "".join(part["text"] for item in output if item["type"] == "message" for part in item["content"])
    calls = [json.loads(item["arguments"]) for item in output if item["type"] == "function_call"]
    ended = last.get("status") == "completed" and (not stream or streamed == whole)
    return (streamed if stream else whole), calls, ended


def _heard_messages(events: Sequence[Any], stream: bool) -> Heard:
    if not stream:
        blocks = events[0]["content"]
        text = "".join(block["text"] for block in blocks if block["type"] == "text")
        calls = [block["input"] for block in blocks if block["type"] == "tool_use"]
        return text, calls, events[0]["stop_reason"] in ("end_turn", "tool_use")
    pieces = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    arguments = "".join(piece.get("partial_json", "") for piece in pieces)
    text = "".join(piece.get("text", "") for piece in pieces)
    return text, [json.loads(arguments)] if arguments else [], events[-1]["type"] == "message_stop"


def _heard_gemini(events: Sequence[Any]) -> Heard:
    candidates = [candidate for event in events for candidate in event.get("candidates", ())]
    parts = [part for candidate in candidates for part in candidate.get("content", {}).get("parts", ())]
    text = "".join(part.get("text", "") for part in parts if not part.get("thought"))
    calls = [part["functionCall"]["args"] for part in parts if "functionCall" in part]
    return text, calls, any(candidate.get("finishReason") == "STOP" for candidate in candidates)


# The provider's side


def question_in(body: bytes) -> int:
    found = _ID.search(body)
    assert found is not None, body[:500]
    return int(found[1])


def answer(question: int, protocol: Protocol, stream: bool) -> Reply:
    """The proper answer of a provider."""
    turn = turn_of(question)
    if not stream:
        return Reply.json(whole_of(protocol, turn))
    frames = stream_of(protocol, turn, 8 + question % 50)
    return Reply.sse(*(_paced(frames) if asked(question).slow else frames))


def _paced(frames: Sequence[bytes]) -> Iterator[Step]:
    for frame in frames:
        yield Send(frame)
        yield Pause(PACE)


def fault(fate: Fate, protocol: Protocol, stream: bool) -> Reply:
    """What the provider does instead, once."""
    return _FAULTS[fate](protocol, stream)


_FAULTS: Final[dict[Fate, Callable[[Protocol, bool], Reply]]] = {
    "429": lambda protocol, stream: error_reply(protocol, 429, headers=[("retry-after-ms", "150")]),
    "500": lambda protocol, stream: error_reply(protocol, 500),
    "reset": lambda protocol, stream: Reply(before=[Reset()]),
    "hang-up": lambda protocol, stream: Reply(before=[Close()]),
    "stall": lambda protocol, stream: Reply(before=[Hang()]),
    "bad JSON": lambda protocol, stream: (
        Reply.sse(b'data: {"id": "ha\n\n')
        if stream
        else Reply(headers=[("content-type", "application/json")], body=b'{"id": "c", "choices": [{"ind')
    ),
    "reset after content": lambda protocol, stream: Reply.sse(*deltas(protocol, 1), Pause(PACE), Reset()),
    "error after content": lambda protocol, stream: Reply.sse(*deltas(protocol, 1), first_event(protocol, 529)),
}


def rarely_collect() -> None:
    """The remembered turns are 280 000 objects: looking through all of them stops the provider or the clients for 0.1 to 0.2 s, which
    looks as if the proxy had stood still. What is young is still looked through.
    """
    gc.set_threshold(50_000, 20, 10_000)


def back_ends_at(url: str) -> dict[str, Any]:
    """One per protocol, with three keys each that take turns."""
    made = {}
    for protocol, name in BACK_ENDS.items():
        base = f"{url}/{name}" if protocol == "gemini" else f"{url}/{name}/v1"
        keys = {key: f"provider-key-of-{name}-{key}" for key in KEYS}
        made[name] = {"type": _TYPES[protocol], "base_url": base, "api_keys": keys, "timeout": SILENCE}
    return made


def routes() -> dict[str, Any]:
    """`route-<back end>`: that one first, the next one behind it."""
    names = list(BACK_ENDS.values())
    return {
        f"route-{name}": {"policy": "km", "elements": [f"{name}:m", f"{names[(at + 1) % len(names)]}:m"]}
        for at, name in enumerate(names)
    }
