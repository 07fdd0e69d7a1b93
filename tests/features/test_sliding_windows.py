"""The windows of OPS-12: exact, bounded in memory, and correctable."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.features import sliding_windows
from llm_proxy.features.sliding_windows import MOST_EXACT, Limit, SlidingWindows

# Sixty-fourths of a second, so that sums and differences of floats are exact.
TICK = 1 / 64


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def stage() -> tuple[SlidingWindows, Clock]:
    clock = Clock()
    return SlidingWindows(clock), clock


def asked(windows: SlidingWindows, limit: Limit, amount: int = 1) -> bool:
    """One call, made where it is admitted."""
    if windows.wait(limit, amount) > 0:
        return False
    windows.take(limit, amount)
    return True


@given(st.integers(1, 6), st.integers(1, 200), st.lists(st.integers(0, 100), max_size=80))
def test_never_more_than_the_limit_in_any_window(limit: int, ticks: int, steps: list[int]) -> None:
    windows, clock = stage()
    watched = Limit("x", limit, ticks * TICK)
    admitted: list[float] = []
    for step in steps:
        clock.now += step * TICK
        if asked(windows, watched):
            admitted.append(clock.now)
        assert windows.used(watched) <= limit
    for start in admitted:
        assert sum(start <= one < start + watched.seconds for one in admitted) <= limit


@given(st.integers(1, 6), st.integers(1, 200), st.lists(st.integers(0, 100), max_size=80))
def test_a_refused_call_is_admitted_exactly_after_the_wait(limit: int, ticks: int, steps: list[int]) -> None:
    windows, clock = stage()
    watched = Limit("x", limit, ticks * TICK)
    for step in steps:
        clock.now += step * TICK
        wait = windows.wait(watched)
        if wait > 0:
            assert wait <= watched.seconds
            began = clock.now
            clock.now = began + wait - TICK
            assert windows.wait(watched) > 0
            clock.now = began + wait
            assert windows.wait(watched) == 0
        windows.take(watched)


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(1, 40)), max_size=60))
def test_amounts_never_exceed_the_budget_and_waits_are_exact(calls: list[tuple[int, int]]) -> None:
    windows, clock = stage()
    budget = Limit("x", 100, 64 * TICK, "tokens")
    made: list[tuple[float, int]] = []
    for step, amount in calls:
        clock.now += step * TICK
        wait = windows.wait(budget, amount)
        if wait > 0:
            clock.now += wait - TICK
            assert windows.wait(budget, amount) == TICK
            clock.now += TICK
        assert asked(windows, budget, amount)
        made.append((clock.now, amount))
        assert sum(amount for at, amount in made if at + budget.seconds > clock.now) == windows.used(budget) <= 100


def test_a_look_counts_nothing() -> None:
    windows, _ = stage()
    limit = Limit("x", 1, 60)
    assert [windows.wait(limit) for _ in range(5)] == [0.0] * 5
    assert (windows.used(limit), len(windows)) == (0, 0)


def test_what_is_more_than_the_whole_limit_waits_until_nothing_else_counts() -> None:
    windows, clock = stage()
    budget = Limit("x", 100, 60, "tokens")
    assert windows.wait(budget, 5000) == 0
    windows.take(budget, 1)
    clock.now += 20
    windows.take(budget, 1)
    assert windows.wait(budget, 5000) == 60
    clock.now += 60
    assert windows.wait(budget, 5000) == 0


def test_a_correction_counts_at_the_time_of_the_use() -> None:
    windows, clock = stage()
    budget = Limit("x", 100, 60, "tokens")
    first = windows.take(budget, 90)
    clock.now += 10
    second = windows.take(budget, 10)
    windows.correct(first, 30)
    assert windows.used(budget) == 40
    windows.correct(second, 70)
    assert windows.wait(budget, 1) == 50
    clock.now += 50
    assert windows.used(budget) == 70


def test_a_correction_that_comes_too_late_changes_nothing() -> None:
    windows, clock = stage()
    budget = Limit("x", 100, 60, "tokens")
    old = windows.take(budget, 90)
    clock.now += 60
    windows.correct(old, 5)
    assert windows.used(budget) == 0
    windows.take(budget, 7)
    windows.correct(old, 500)
    assert windows.used(budget) == 7


@given(st.lists(st.tuples(st.sampled_from(["take", "settle", "give back"]), st.integers(0, 70)), max_size=100))
def test_the_total_is_that_of_the_uses_in_the_window(steps: list[tuple[str, int]]) -> None:
    windows, clock = stage()
    budget = Limit("x", 50, 64 * TICK, "tokens")
    uses = []
    for what, number in steps:
        clock.now += number * TICK / 4
        if what == "take" or not uses:
            uses.append((clock.now, windows.take(budget, 1 + number)))
        else:
            windows.correct(uses[number % len(uses)][1], number if what == "settle" else 0)
            at, use = uses[number % len(uses)]
            if at + budget.seconds <= clock.now or what != "settle" or number == 0:
                uses.remove((at, use))
        inside = sum(use.amount for at, use in uses if at + budget.seconds > clock.now)
        assert windows.used(budget) == inside


def marks(windows: SlidingWindows, limit: Limit) -> int:
    return len(windows._windows[limit].marks)


def test_a_large_limit_needs_little_memory_and_is_wrong_on_the_safe_side_only() -> None:
    windows, clock = stage()
    limit = Limit("x", 2 * MOST_EXACT, 60)
    admitted = 0
    for _ in range(3 * MOST_EXACT):
        clock.now += 1 / 1024
        admitted += asked(windows, limit)
    assert admitted == 2 * MOST_EXACT
    assert marks(windows, limit) <= 1001
    # The first calls leave the window together, a thousandth of it later than each alone would.
    assert 60 - 3 * MOST_EXACT / 1024 <= windows.wait(limit) <= 60 - 3 * MOST_EXACT / 1024 + 60 / 1000 + 2 / 1024


def test_uses_that_are_given_back_leave_nothing_behind() -> None:
    windows, _ = stage()
    limit = Limit("x", 5, 60)
    for _ in range(20_000):
        uses = [windows.take(limit), windows.take(limit)]
        for use in uses:
            windows.correct(use, 0)
    assert windows.used(limit) == 0
    assert marks(windows, limit) <= 1100


def test_names_are_bounded_and_unused_windows_are_forgotten_first() -> None:
    windows, clock = stage()
    kept = Limit("kept", 1, 3600)
    windows.take(kept)
    for number in range(3 * sliding_windows._MOST_WINDOWS):
        clock.now += 0.01
        windows.take(Limit(f"model {number}", 1, 60))
    assert len(windows) == sliding_windows._MOST_WINDOWS
    assert windows.wait(kept) > 0


def test_limits_that_are_equal_share_a_window_and_others_do_not() -> None:
    windows, _ = stage()
    windows.take(Limit("x", 1, 60))
    assert windows.wait(Limit("x", 1, 60)) == 60
    assert windows.wait(Limit("x", 1, 60, "tokens")) == 0
    assert windows.wait(Limit("x", 2, 60)) == 0
    assert windows.wait(Limit("y", 1, 60)) == 0
