"""SES-04: when sessions end, and that their number and memory are bounded."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.sessions.session import Session
from llm_proxy.store.sessions import Sessions
from tests.store.support import START, Clock, use


def make(
    clock: Clock, *, expiry: float = 100.0, age: float = 1000.0, most: int = 100, cleanup: bool = True
) -> tuple[Sessions, list[str]]:
    sessions = Sessions(clock=clock, expiry_seconds=expiry, max_age=age, max_sessions=most, cleanup_enabled=cleanup)
    ended: list[str] = []
    sessions.on_end.append(lambda session: ended.append(session.id))
    return sessions, ended


async def test_expiry_1_s_then_after_1_1_s_the_model_is_the_default_again() -> None:
    clock = Clock()
    sessions, ended = make(clock, expiry=1)
    await use(sessions, "a", "s", model="m")
    clock.now += 0.9
    assert (await _values(sessions, "s")) == {"model": "m"}
    clock.now += 1.1
    assert (await _values(sessions, "s")) == {}
    assert ended == ["s"]


async def test_a_session_ends_max_age_after_it_began_however_often_it_is_used() -> None:
    clock = Clock()
    sessions, ended = make(clock, expiry=100, age=250)
    await use(sessions, "a", "s", model="m")
    for _ in range(4):
        clock.now += 60
        assert (await _values(sessions, "s")) == {"model": "m"}
    clock.now += 10
    assert (await _values(sessions, "s")) == {}
    assert ended == ["s"]


async def test_max_sessions_2_and_three_sessions_then_the_oldest_idle_one_is_gone() -> None:
    sessions, ended = make(Clock(), most=2)
    for id in ("one", "two", "one", "three"):
        await use(sessions, "a", id, model=id)
    assert ended == ["two"]
    assert (await _values(sessions, "one")) == {"model": "one"}
    assert sessions.peek("a", "two") is None


async def test_open_requests_keep_their_session() -> None:
    clock = Clock()
    sessions, ended = make(clock, expiry=1, age=5, most=1)
    held = await sessions.open("a", "held")
    held.choose("model", "m")
    await use(sessions, "a", "other")
    clock.now += 100
    sessions.sweep()
    assert sessions.peek("a", "held") is held
    beside = await sessions.open("a", "held")
    assert beside is held
    sessions.release(beside)
    assert "held" not in ended
    sessions.release(held)
    assert "held" in ended
    assert sessions.peek("a", "held") is None


async def test_a_long_answer_counts_as_use_until_its_end() -> None:
    clock = Clock()
    sessions, _ = make(clock, expiry=10)
    session = await sessions.open("a", "s")
    session.choose("model", "m")
    clock.now += 60
    sessions.release(session)
    clock.now += 9
    assert (await _values(sessions, "s")) == {"model": "m"}


async def test_the_clean_up_ends_what_is_over_and_nothing_else() -> None:
    clock = Clock()
    sessions, ended = make(clock, expiry=100, age=150)
    await use(sessions, "a", "idle")
    await use(sessions, "a", "old")
    clock.now += 80
    await use(sessions, "a", "old")
    await use(sessions, "a", "young")
    clock.now += 75
    sessions.sweep()
    assert sorted(ended) == ["idle", "old"]
    assert [session.id for session in await sessions.list("a")] == ["young"]


async def test_without_the_regular_clean_up_access_still_ends_what_is_over() -> None:
    clock = Clock()
    sessions, ended = make(clock, cleanup=False)
    await use(sessions, "a", "s", model="m")
    clock.now += 100
    sessions.sweep()
    assert ended == []
    assert sessions.peek("a", "s") is None
    assert await sessions.list(None) == []
    assert (await _values(sessions, "s")) == {}
    assert ended == ["s"]


async def test_a_session_ended_by_hand_is_not_revived_by_its_open_request() -> None:
    sessions, ended = make(Clock())
    session = await sessions.open("a", "s")
    assert await sessions.end("a", "s")
    assert ended == ["s"]
    following = await sessions.open("a", "s")
    assert following is not session
    sessions.release(session)
    assert sessions.peek("a", "s") is following
    sessions.release(following)
    assert len(sessions) == 1


async def test_lower_limits_hold_at_once() -> None:
    clock = Clock()
    sessions, ended = make(clock)
    for number in range(10):
        await use(sessions, "a", str(number))
    sessions.configure(expiry_seconds=5, max_age=1000, max_sessions=3)
    assert ended == [str(number) for number in range(7)]
    clock.now += 5
    assert await sessions.list(None) == []


@pytest.mark.parametrize(("count", "most"), [(20_000, 2_000), pytest.param(100_000, 10_000, marks=pytest.mark.long)])
async def test_one_shot_sessions_stay_within_the_bound(count: int, most: int) -> None:
    sessions, ended = make(Clock(), most=most)
    tracemalloc.start()
    try:
        for number in range(count):
            sessions.release(await sessions.open("scope", f"auto-{number:016x}"))
        ended.clear()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(sessions) == most
    assert held < 2_000 * most


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from("orewdc"), st.sampled_from("ab"), st.sampled_from("123"), st.integers(0, 6))),
)
async def test_two_scopes_never_meet_whatever_happens(most: int, steps: list[tuple[str, str, str, int]]) -> None:
    clock = Clock()
    sessions, _ = make(clock, expiry=10, age=25, most=most)
    opened: list[Session] = []
    for action, scope, id, number in steps:
        match action:
            case "o":
                session = await sessions.open(scope, id)
                assert (session.scope, session.id) == (scope, id)
                assert session.values.get("owner") in (None, f"{scope}/{id}")
                assert session.last_used == clock.now >= session.created >= START
                session.choose("owner", f"{scope}/{id}")
                opened.append(session)
            case "r" if opened:
                sessions.release(opened.pop(number % len(opened)))
            case "e":
                await sessions.end(scope, id)
                assert sessions.peek(scope, id) is None
            case "w":
                clock.now += number
            case "d":
                sessions.sweep()
            case _:
                assert all(session.scope == scope for session in await sessions.list(scope))
        users = {(session.scope, session.id) for session in opened}
        assert len(sessions) <= max(most, len(users))


async def _values(sessions: Sessions, id: str) -> dict[str, object]:
    session = await sessions.open("a", id)
    sessions.release(session)
    return session.values
