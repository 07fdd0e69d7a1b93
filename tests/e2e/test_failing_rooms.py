"""Any room may fail, in each of its hooks and anywhere in an answer, and the request survives.

A feature that fails internally is skipped for that answer with one ERROR line; dangerous-command prevention then blocks the call instead.
The rooms of a proxy in this process are broken one hook at a time, and what the client gets is compared with what it gets of the same
proxy when nothing is broken.
"""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import pytest

from llm_proxy.conversation.events import End, Event, Failed
from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.features import Feature, Filter
from llm_proxy.features.calls.gate import ToolCallGate
from llm_proxy.features.calls.judging import Judge
from llm_proxy.features.exchange import ExchangeView
from tests.e2e.asking import PAIRS, PROTOCOLS, Called, body_of, call, path_of, protocol_of, say, target, tools_of
from tests.e2e.every_room import OFF, all_on
from tests.e2e.house import InProcess, in_process
from tests.server.process import Answer
from tests.support.proxy import backends_at
from tests.support.shared import Protocol
from tests.support.upstream import Received, Reply, Send, Upstream, upstream_in_thread

HOOKS: Final = ("on_request", "admit", "concerns", "on_attempt", "watch", "on_finish")
JUDGING: Final = ("interested", "watches", "judge")
PLACES: Final = ("first", "middle", "last")
BROKEN: Final = "broken on purpose"
CLOSED: Final = {"commands", "tool calls"}
"""Rooms that end the request when they fail: who else could say that nothing was withheld that had to be?"""
SHELL: Final = Called("call_a", "bash", {"command": "ls -l"})
OTHER: Final = Called("call_b", "read_file", {"path": "a.py"})

_NUMBERS = itertools.count()
_MADE_IDS = re.compile(rb'(?:(?<=[-_])|(?<="responseId":"))[0-9A-Za-z]{24}(?![0-9A-Za-z])')
_MADE_TIMES = re.compile(rb'"(created|created_at|completed_at|createTime)":\s*("[^"]*"|[\d.]+)')


@dataclass(frozen=True)
class Asked:
    """One way to ask: the client's protocol, the provider's, streamed or not, and what the provider answers."""

    client: Protocol
    back: Protocol
    stream: bool
    kind: Literal["words", "calls", "json"]


_KINDS: Final[tuple[Literal["words", "calls", "json"], ...]] = ("words", "calls", "json")
FEW: Final = [
    Asked(client, back, (number + foreign + at) % 2 == 0, kind)
    for number, client in enumerate(PROTOCOLS)
    for foreign, back in enumerate((client, PROTOCOLS[number - 1]))
    for at, kind in enumerate(_KINDS)
]  # fmt: skip
"""Each client's protocol with itself and with another one, in turn streamed and not: every two of protocols, kind and stream meet."""
ALL: Final = [
    Asked(client, back, stream, kind)
    for client, back in PAIRS
    for stream in (False, True)
    for kind in ("words", "calls", "json")
]  # fmt: skip

_SCHEMA: Final = {
    "type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False,
}  # fmt: skip
_JSON_WANTED: Final[dict[Protocol, dict[str, Any]]] = {
    "openai-chat": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": _SCHEMA, "strict": True}}
    },
    "openai-responses": {"text": {"format": {"type": "json_schema", "name": "n", "schema": _SCHEMA, "strict": True}}},
    "anthropic-messages": {"output_config": {"format": {"type": "json_schema", "schema": _SCHEMA}}},
    "gemini": {"generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": _SCHEMA}},
}
_SAID: Final = {
    "json": {b"w0 ": rb"{\"a\"", b"w1 ": b": 1", b"w2 ": b"}"},
    "textual": {b"w0 ": rb"Now:\nTOOL CALL: ", b"w1 ": b"read_file ", b"w2 ": rb"{\"a\": 1}"},
    "looping": {b"w1 ": b"I am going round in circles, as nobody stops me at all. " * 40},
    "empty": {b"w0 ": b"", b"w1 ": b"", b"w2 ": b""},
}
"""What the provider says instead of its usual words, by what the model's name tells."""


def _wanted(asked: Asked) -> dict[str, Any]:
    if asked.kind == "json":
        return _JSON_WANTED[asked.client]
    return tools_of(asked.client, "bash", "read_file")


def _answer(request: Received) -> Reply:
    if request.method != "POST":
        return Reply(status=404)
    named = request.path if protocol_of(request) == "gemini" else request.json["model"]
    reply = call(OTHER, SHELL)(request) if "calls" in named else say(request)
    steps = [step.data for step in reply.steps or () if isinstance(step, Send)]
    if "joined" in named:
        steps = [b"".join(steps)]
    for kind, words in _SAID.items():
        if kind in named:
            reply, steps = replace(reply, body=_with(words, reply.body)), [_with(words, step) for step in steps]
    return replace(reply, steps=None if reply.steps is None else [Send(step) for step in steps])


def _with(words: Mapping[bytes, bytes], data: bytes) -> bytes:
    for word, instead in words.items():
        data = data.replace(word, instead)
    return data


class Stage:
    def __init__(self, proxy: InProcess, upstream: Upstream) -> None:
        self.proxy = proxy
        self.upstream = upstream
        self._good: dict[Asked, tuple[Answer, list[bytes]]] = {}

    def ask(self, asked: Asked) -> tuple[Answer, list[bytes]]:
        """The answer, and the bodies that the provider got."""
        self.upstream.forget()
        number = f"r-{next(_NUMBERS)}"
        # Writers of other protocols may join what arrives together, so there it always does.
        model = target(asked.back, asked.kind if asked.client == asked.back else f"{asked.kind}-joined")
        body = body_of(asked.client, model, asked.stream, **_wanted(asked))
        answer = self.proxy.post(path_of(asked.client, model, asked.stream), json.dumps(body).encode(), number)
        data = _MADE_TIMES.sub(rb'"\1":0', _MADE_IDS.sub(b"0", answer.body))
        return Answer(answer.status, answer.headers, data), [
            request.body for request in self.upstream.requests if request.method == "POST"
        ]

    def good(self, asked: Asked) -> tuple[Answer, list[bytes]]:
        """What comes when nothing is broken."""
        if asked not in self._good:
            found = self._good[asked] = self.ask(asked)
            assert found[0].status == 200 and len(found[1]) == 1, found
            assert not self.errors(), "nothing is broken"
        return self._good[asked]

    def errors(self) -> list[str]:
        """The ERROR lines since the last time."""
        return self.proxy.records.taken(logging.ERROR)

    def broken_in(self, asked: Asked) -> tuple[Answer, list[bytes], list[str]]:
        """What comes now, and the ERROR lines; those of other proxies in this process do not count."""
        self.errors()
        answer, sent = self.ask(asked)
        return answer, sent, self.errors()


@contextmanager
def staged(folder: Path, config: Mapping[str, Any]) -> Iterator[Stage]:
    with (
        upstream_in_thread(_answer) as upstream,
        in_process(folder, {**config, "backends": backends_at(upstream.url)}) as proxy,
    ):
        yield Stage(proxy, upstream)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("house")
    with staged(folder, all_on(folder)) as stage:
        for asked in FEW:
            stage.good(asked)  # before anything is broken
        yield stage


@pytest.fixture(scope="module")
def shaped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """With the rooms that change every request: the planning phase and a thinking budget for all."""
    folder = tmp_path_factory.mktemp("shaped")
    planning = {"enabled": True, "strong_model": "up-anthropic:strong-words", "overrides": {"temperature": 0.5}}
    with staged(folder, {"thinking_budget": 2000, "session": {"planning_phase": planning}}) as stage:
        yield stage


def hooks_of(room: Feature, among: Sequence[str] = HOOKS) -> list[str]:
    return [hook for hook in among if getattr(type(room), hook) is not getattr(Feature, hook)]


@contextmanager
def put(owner: object, **hooks: object) -> Iterator[None]:
    """Other hooks for this one room, until the end of the block."""
    owner.__dict__.update(hooks)
    try:
        yield
    finally:
        for name in hooks:
            del owner.__dict__[name]


def raising(room: object, hook: str, error: Exception | None = None) -> Callable[..., Any]:
    """A hook that fails; the last one does so when its work is done, since what it lets go of belongs to this exchange only."""
    real = getattr(room, hook)

    def fail(*arguments: object) -> Any:
        if hook == "on_finish":
            real(*arguments)
        raise error or RuntimeError(BROKEN)

    async def fail_later(*_: object) -> Any:
        raise error or RuntimeError(BROKEN)

    return fail_later if hook == "admit" else fail


class Breaking(Filter):
    """A room's filter that fails at its first event, at the third, or at the last. What it made of the events before in the same
    portion is lost with it, as when any line of it fails."""

    def __init__(self, inner: Filter, place: str) -> None:
        self._inner = inner
        self._place = place
        self._seen = 0

    @property
    def held(self) -> Sequence[Event]:  # type: ignore[override]
        return self._inner.held

    @property
    def stopped(self) -> bool:  # type: ignore[override]
        return self._inner.stopped

    def feed(self, events: Sequence[Event]) -> Sequence[Event]:
        for at, event in enumerate(events):
            if self._due(event):
                self._inner.feed(events[:at])
                raise RuntimeError(BROKEN)
        return self._inner.feed(events)

    def _due(self, event: Event) -> bool:
        self._seen += 1
        match self._place:
            case "first":
                return True
            case "middle":
                return self._seen >= 3
            case _:
                return isinstance(event, End | Failed)


def judges_of(rooms: Sequence[Feature]) -> Sequence[Judge]:
    return next(room for room in rooms if isinstance(room, ToolCallGate)).judges


def survived(stage: Stage, asked: Asked, name: str) -> list[str]:
    """What is wrong with an answer in which the room or judge of that name was to be skipped."""
    answer, sent, errors = stage.broken_in(asked)
    good, good_sent = stage.good(asked)
    problems = []
    if (answer.status, answer.body) != (good.status, good.body):
        problems.append(f"{answer.status} {answer.body[:300]!r}")
    if sent != good_sent:
        problems.append(f"the provider got {sent}")
    if len(errors) != 1 or name not in errors[0] or BROKEN not in errors[0]:
        problems.append(f"not one ERROR line: {errors}")
    return [f"{name}: {asked}: {problem}" for problem in problems]


def ended(stage: Stage, asked: Asked, name: str) -> list[str]:
    """What is wrong with an answer that had to be an error because a room failed that fails closed."""
    answer, _, errors = stage.broken_in(asked)
    problems = []
    if answer.status == 200 and (not asked.stream or b'"error"' not in answer.body):
        problems.append(f"no error: {answer.body[:300]!r}")
    if asked.kind == "calls" and (b"bash" in answer.body or b"read_file" in answer.body):
        problems.append(f"a call came through: {answer.body[:300]!r}")
    if len(errors) != 1 or name not in errors[0]:
        problems.append(f"not one ERROR line: {errors}")
    if BROKEN.encode() in answer.body:
        problems.append("the client was told of it")
    return [f"{name}: {asked}: {problem}" for problem in problems]


def expected(room: Feature, stage: Stage, asked: Asked) -> list[str]:
    assert room.fails_closed == (room.name in CLOSED)
    return (ended if room.fails_closed else survived)(stage, asked, room.name)


def fails_in(stage: Stage, hook: str, talks: Sequence[Asked]) -> list[str]:
    problems: list[str] = []
    for asked in talks:
        stage.good(asked)
    rooms = [room for room in stage.proxy.rooms if hook in hooks_of(room)]
    assert rooms
    for room in rooms:
        with broken(room, hook):
            for asked in talks:
                problems += expected(room, stage, asked)
    return problems


@contextmanager
def broken(room: Feature, hook: str) -> Iterator[None]:
    # A room whose on_attempt is to fail must first say that it wants to be asked.
    wanting: dict[str, object] = {"concerns": lambda _: True} if hook == "on_attempt" else {}
    with put(room, **wanting, **{hook: raising(room, hook)}):
        yield


@pytest.mark.parametrize("hook", HOOKS)
def test_a_room_that_fails_in_a_hook_is_skipped_with_one_error_line(stage: Stage, hook: str) -> None:
    assert not (problems := fails_in(stage, hook, FEW)), "\n".join(problems)


@pytest.mark.long
@pytest.mark.parametrize("hook", HOOKS)
def test_a_room_that_fails_in_a_hook_is_skipped_in_all_pairs(stage: Stage, hook: str) -> None:
    assert not (problems := fails_in(stage, hook, ALL)), "\n".join(problems)


@pytest.mark.parametrize("name", ("planning_phase", "thinking budget"))
def test_a_room_that_shapes_every_request_may_fail(shaped: Stage, name: str) -> None:
    """The request goes on without what that room would have made of it."""
    (room,) = (room for room in shaped.proxy.rooms if room.name == name)
    for hook in hooks_of(room):
        with broken(room, hook):
            for client in PROTOCOLS:
                answer, sent, errors = shaped.broken_in(Asked(client, "anthropic-messages", True, "words"))
                assert (answer.status, len(sent)) == (200, 1), (hook, client, answer)
                assert len(errors) == 1 and name in errors[0], (hook, client, errors)


def test_a_room_that_says_no_when_all_is_over_keeps_no_other_from_finishing(stage: Stage) -> None:
    rooms = [room for room in stage.proxy.rooms if hooks_of(room, ("on_finish",))]
    ended: list[str] = []

    def last(exchange: ExchangeView) -> None:
        ended.append(exchange.id)

    error = FaultError(Fault(kind="bad_request", message=BROKEN, side="client"))
    with put(rooms[0], on_finish=raising(rooms[0], "on_finish", error)), put(rooms[-1], on_finish=last):
        for asked in FEW:
            assert not survived(stage, asked, rooms[0].name)
    assert len(ended) == len(FEW) and rooms[0] is not rooms[-1]


def fails_within(stage: Stage, place: str, talks: Sequence[Asked]) -> list[str]:
    problems: list[str] = []
    for room in stage.proxy.rooms:
        if not hooks_of(room, ("watch",)):
            continue
        watch = room.watch

        def watched(exchange: ExchangeView, watch: Callable[[ExchangeView], Filter | None] = watch) -> Filter | None:
            found = watch(exchange)
            return None if found is None else Breaking(found, place)

        with put(room, watch=watched):
            for asked in talks:
                if _sees(room, asked):
                    problems += expected(room, stage, asked)
    return problems


def _sees(room: Feature, asked: Asked) -> bool:
    """Does this room look at this answer at all?"""
    match room.name:
        case "commands":  # only where it has something to say before the answer
            return False
        case "structured output" | "json repair":
            return asked.kind == "json"
        case "tool-call repair":
            return asked.kind != "json"
        case _:
            return True


@pytest.mark.parametrize("place", PLACES)
def test_a_room_that_fails_on_an_answer_is_skipped_for_the_rest_of_it(stage: Stage, place: str) -> None:
    assert not (problems := fails_within(stage, place, FEW)), "\n".join(problems)


@pytest.mark.long
@pytest.mark.parametrize("place", PLACES)
def test_a_room_that_fails_on_an_answer_is_skipped_in_all_pairs(stage: Stage, place: str) -> None:
    assert not (problems := fails_within(stage, place, ALL)), "\n".join(problems)


@pytest.mark.parametrize("hook", JUDGING)
def test_a_judge_of_calls_that_fails_has_no_objection(stage: Stage, hook: str) -> None:
    problems: list[str] = []
    for judge in judges_of(stage.proxy.rooms):
        if judge.fails_closed:
            continue
        with put(judge, **{hook: raising(judge, hook)}):
            for asked in FEW:
                if asked.kind == "calls":
                    problems += survived(stage, asked, judge.name)
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("hook", ("watches", "judge"))
def test_dangerous_command_prevention_that_fails_blocks_the_call_instead(stage: Stage, hook: str) -> None:
    (judge,) = (judge for judge in judges_of(stage.proxy.rooms) if judge.fails_closed)
    with put(judge, **{hook: raising(judge, hook)}):
        for asked in FEW:
            answer, _, errors = stage.broken_in(asked)
            assert answer.status == 200
            if asked.kind == "calls":
                assert b"could not examine" in answer.body and b"ls -l" not in answer.body, asked
                assert len(errors) == 1 and judge.name in errors[0], (asked, errors)
            else:
                assert (answer.status, answer.body, errors) == (200, stage.good(asked)[0].body, []), asked


def test_a_room_that_cannot_say_what_it_would_refuse_keeps_nobody_from_looking_ahead(stage: Stage) -> None:
    (room,) = (room for room in stage.proxy.rooms if hooks_of(room, ("outlook",)))
    stage.errors()
    with put(room, outlook=raising(room, "outlook")):
        page = stage.proxy.get("/internal/routing?model=up-chat:m")
    assert page.status == 200 and page.json["attempts"]
    assert [room.name in error and BROKEN in error for error in stage.errors()] == [True]


UNREADABLE: Final[dict[Protocol, dict[str, Any]]] = {
    "openai-chat": {"messages": [{"role": "narrator", "content": "x"}, {"role": "user", "content": "hi"}]},
    "openai-responses": {"input": 5},
    "anthropic-messages": {"messages": [{"role": "user", "content": 5}]},
    "gemini": {"contents": [{"role": "user", "parts": 5}]},
}


@pytest.mark.parametrize("stream", (False, True))
@pytest.mark.parametrize("client", PROTOCOLS)
def test_answers_to_requests_that_only_the_provider_can_read_pass(stage: Stage, client: Protocol, stream: bool) -> None:
    """Repeated calls, calls written as text, and whatever is written anew make the proxy look into the request."""

    def answered(kind: str, session: str = "") -> Answer:
        model, number = target(client, kind), f"u-{next(_NUMBERS)}"
        body = {**body_of(client, model, stream), **tools_of(client, "bash", "read_file"), **UNREADABLE[client]}
        return stage.proxy.post(path_of(client, model, stream), json.dumps(body).encode(), number, session)

    for _ in range(3):
        answer = answered("calls", f"repeated-{client}-{stream}")
        assert answer.status == 200 and b"read_file" in answer.body
    answer = answered("textual")
    assert answer.status == 200 and b"TOOL CALL: " in answer.body
    answer = answered("looping")
    assert answer.status == 200 and b"Loop detected" in answer.body
    answer = answered("empty")
    assert answer.status == 502 and b"gave an empty answer" in answer.body


@pytest.mark.parametrize("name", OFF)
def test_any_room_may_be_switched_off(stage: Stage, name: str, tmp_path: Path) -> None:
    """Good answers are the same without it, in each protocol."""
    with staged(tmp_path, all_on(tmp_path, without=name)) as other:
        for asked in FEW[::5]:
            good, sent = stage.good(asked)
            answer, got = other.ask(asked)
            assert (answer.status, answer.body, got) == (good.status, good.body, sent), asked
        assert not other.errors()
