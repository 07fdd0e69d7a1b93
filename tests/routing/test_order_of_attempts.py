"""RT-08, RT-09: the order of attempts for all four policies, over random routes, key counts, rests and failures.

The oracle says in its own way what the table says: it lists (element, key) pairs, strikes out what rests, and walks on while the
failures are of a kind that another target can cure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import hypothesis.strategies as st
from hypothesis import event, given, settings

from llm_proxy.backends.base import Backend
from llm_proxy.conversation.fault import Fault, kind_of_status
from llm_proxy.routing.attempt import Trail
from llm_proxy.routing.keyring import Keyring, Thread
from llm_proxy.routing.plan import Element, RoutePolicy, plan_route, plan_target
from tests.routing.targets import paper

POLICIES: tuple[RoutePolicy, ...] = ("k", "m", "km", "mk")
GO_ON = (401, 403, 404, 408, 409, 425, 429, 500, 502, 503, 504, 529)
STOP = (400, 422, 402, 405, 410, 418)
Name = tuple[str, str, str]
"""Back end, model, key."""


@dataclass(frozen=True)
class Scene:
    """`rests` are the calls that must not be made, `answers` the status of each call that is made."""

    keys: dict[str, tuple[str, ...]]
    route: tuple[tuple[str, str], ...]
    cooling: frozenset[Name]
    disabled: frozenset[tuple[str, str]]
    answers: dict[Name, int]

    def rests(self, name: Name) -> bool:
        return name in self.cooling or (name[0], name[2]) in self.disabled


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    keys = {
        backend: tuple(f"{backend}{number}" for number in range(1, draw(st.integers(0, 4)) + 1)) for backend in "ABCD"
    }
    element = st.tuples(st.sampled_from("ABCD"), st.sampled_from(["m", "n"]))
    route = tuple(draw(st.lists(element, max_size=5, unique=True)))
    every = sorted({(backend, model, key) for backend, model in route for key in keys[backend]})
    some = st.sets(st.sampled_from(every)) if every else st.just(set[Name]())
    held_back = st.sets(st.sampled_from([(backend, key) for backend, _, key in every])) if every else st.just(set())
    statuses = st.one_of(st.sampled_from(GO_ON), st.sampled_from(GO_ON), st.sampled_from(STOP), st.just(200))
    return Scene(
        keys, route, frozenset(draw(some)), frozenset(draw(held_back)), {name: draw(statuses) for name in every}
    )


def table(scene: Scene, policy: RoutePolicy) -> list[Name]:
    """The pairs of RT-08's table, before anything is struck out."""
    usable = [(backend, model) for backend, model in scene.route if scene.keys[backend]]
    match policy:
        case "k":
            return [(backend, model, key) for backend, model in usable[:1] for key in scene.keys[backend]]
        case "m":
            return [(backend, model, scene.keys[backend][0]) for backend, model in usable]
        case "km":
            return [(backend, model, key) for backend, model in usable for key in scene.keys[backend]]
        case "mk":
            rows = [
                (number, at) for at, (backend, _) in enumerate(usable) for number in range(len(scene.keys[backend]))
            ]
            return [(*usable[at], scene.keys[usable[at][0]][number]) for number, at in sorted(rows)]


def expected(scene: Scene, order: list[Name]) -> list[Name]:
    """The calls that are made: also a key that was refused a moment ago is left alone for every model."""
    calls: list[Name] = []
    refused: set[tuple[str, str]] = set()
    limited: set[Name] = set()
    for name in [name for name in order if not scene.rests(name)][:32]:
        if (name[0], name[2]) in refused or name in limited:
            continue
        calls.append(name)
        status = scene.answers[name]
        if status == 200 or status in STOP:
            break
        if status in (401, 403):
            refused.add((name[0], name[2]))
        if status == 429:
            limited.add(name)
    return calls


def prepared(scene: Scene) -> tuple[dict[str, Backend], Keyring]:
    keyring = Keyring(lambda: 1000.0)
    backends = {id: paper(id, *keys) for id, keys in scene.keys.items()}
    by_name = {key.name: key for backend in backends.values() for key in backend.keys if key is not None}
    for backend, model, key in scene.cooling:
        keyring.cool(backend, model, by_name[key], 429, 50)
    for backend, key in scene.disabled:
        keyring.disable(backend, by_name[key], 401)
    return backends, keyring


def played(scene: Scene, trail: Trail) -> list[Name]:
    calls: list[Name] = []
    while (attempt := trail.next()) is not None:
        name = (attempt.backend.id, attempt.model, attempt.key_name)
        calls.append(name)
        status = scene.answers[name]
        if status == 200:
            trail.succeeded(attempt)
            break
        trail.failed(attempt, Fault(kind=kind_of_status(status), message="", status=status))
    assert trail.calls == len(calls)
    return calls


@settings(max_examples=600, deadline=None)
@given(scenes(), st.sampled_from(POLICIES))
def test_the_calls_of_a_route_are_those_of_the_table(scene: Scene, policy: RoutePolicy) -> None:
    backends, keyring = prepared(scene)
    elements = [Element(backends[backend], model) for backend, model in scene.route]
    calls = played(scene, Trail(plan_route(elements, policy, keyring), keyring))
    assert calls == expected(scene, table(scene, policy))
    event(f"{policy}: {min(len(calls), 4)} calls")


@settings(max_examples=120, deadline=None)
@given(scenes(), st.integers(0, 7), st.sampled_from(["round-robin", "sticky", "first"]))
def test_without_a_route_all_keys_follow_the_one_that_rotation_chose(
    scene: Scene, turns: int, policy: Literal["round-robin", "sticky", "first"]
) -> None:
    keys = scene.keys["A"]
    if not keys:
        return
    backends, keyring = prepared(scene)
    backend = paper("A", *keys, policy=policy)
    for number in range(turns):
        plan_target(backend, "m", keyring, thread=Thread(f"s{number}"))
    plan = plan_target(backend, "m", keyring, thread=Thread("mine"))
    given_keys = [attempt.key_name for attempt in plan.attempts]
    healthy = [key for key in keys if not scene.rests(("A", "m", key))]
    assert sorted(given_keys) == sorted(healthy)
    if healthy:
        start = healthy.index(given_keys[0])
        assert given_keys == healthy[start:] + healthy[:start], "in configured order, wrapping round"
        if policy == "first":
            assert start == 0
        elif len(healthy) == len(keys):
            assert start == turns % len(keys), "each request begins at the next key"
    del backends


@settings(max_examples=90, deadline=None)
@given(scenes(), st.sampled_from(POLICIES), st.floats(0.1, 40))
def test_a_wait_makes_exactly_what_only_cooled(scene: Scene, policy: RoutePolicy, rest: float) -> None:
    """After the cooldown the attempts that needed only time are made, in the order of the plan; disabled keys never."""
    now = [1000.0]
    keyring = Keyring(lambda: now[0])
    backends = {id: paper(id, *keys) for id, keys in scene.keys.items()}
    by_name = {key.name: key for backend in backends.values() for key in backend.keys if key is not None}
    order = table(scene, policy)
    for backend, model, key in order:
        keyring.cool(backend, model, by_name[key], 429, rest)
    for backend, key in scene.disabled:
        keyring.disable(backend, by_name[key], 401)
    elements = [Element(backends[backend], model) for backend, model in scene.route]
    trail = Trail(plan_route(elements, policy, keyring), keyring)
    assert trail.next() is None
    due = [name for name in order if (name[0], name[2]) not in scene.disabled][:32]
    wait = trail.wait()
    if not due:
        assert wait is None
        return
    assert wait is not None and abs(wait - rest) < 1e-6
    now[0] += wait + 1e-6
    trail.again()
    made = []
    while (attempt := trail.next()) is not None:
        made.append((attempt.backend.id, attempt.model, attempt.key_name))
        trail.failed(attempt, Fault(kind="upstream", message="", status=500))
    assert made == due
