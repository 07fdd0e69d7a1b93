"""P9: how much is taken on at once, and when a late event loop refuses more."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack

import pytest

from llm_proxy.server.admission import (
    IN_TIME,
    LAG_COUNTS_FROM,
    LOOK_EVERY,
    LOOKS,
    TOO_LATE,
    Admission,
    Bounds,
    Lag,
    NoRoom,
    bounds,
)

GIB = 1 << 30


@pytest.mark.parametrize(
    ("descriptors", "memory", "calls"),
    [
        (20_000, 64 * GIB, 9872),  # half of what is left of the descriptors
        (1024, 64 * GIB, 384),
        (256, 64 * GIB, 64),  # few descriptors: a quarter
        (1 << 60, 512 << 20, 1024),  # by memory: 384 KiB for each
        (20_000, 4 * GIB, 9872),
        (64, GIB, LAG_COUNTS_FROM),  # never none
        (20_000, 64 << 20, LAG_COUNTS_FROM),
    ],
)
def test_the_bound_comes_from_descriptors_and_memory(descriptors: int, memory: int, calls: int) -> None:
    assert Bounds(descriptors, memory).calls == calls


@pytest.mark.parametrize(
    ("descriptors", "connections"), [(20_000, 10_016), (1024, 555), (512, 315), (256, 128), (64, 32)]
)
def test_connections_leave_a_descriptor_for_each_call(descriptors: int, connections: int) -> None:
    found = Bounds(descriptors, 64 * GIB)
    assert found.connections == connections
    if descriptors >= 256:
        assert found.calls + found.connections < descriptors - 48


def test_this_system_tells_its_bounds() -> None:
    found = bounds()
    assert found.descriptors >= 64 and found.memory > 1 << 20
    assert found.calls >= LAG_COUNTS_FROM


def test_beyond_the_bound_is_a_503_with_retry_after_and_who_leaves_makes_room() -> None:
    warned: list[str] = []
    admission = Admission(2, warned.append)
    with admission, admission:
        with pytest.raises(NoRoom) as caught, admission:
            raise AssertionError("there was no room")
        assert (caught.value.fault.status_code, caught.value.fault.retry_after) == (503, 1)
    with admission:
        assert admission.facts() == {"open": 1, "most": 2, "refused": 1}
    assert len(warned) == 1 and "2 are being served" in warned[0]


def test_a_failure_makes_room_too() -> None:
    admission = Admission(1)
    for _ in range(3):
        with pytest.raises(ValueError), admission:
            raise ValueError
    assert admission.open == 0


def late(lag: Lag, seconds: float, times: int = LOOKS) -> None:
    for _ in range(times):
        lag.note(seconds)


def test_the_lag_has_a_higher_bound_to_begin_than_to_end() -> None:
    lag = Lag()
    late(lag, TOO_LATE * 0.9)
    assert not lag.too_long
    late(lag, TOO_LATE * 1.1)
    assert lag.too_long
    late(lag, TOO_LATE * 0.9)
    assert lag.too_long, "it is not over before most looks are in time"
    late(lag, IN_TIME * 0.9)
    assert not lag.too_long


def test_a_single_long_step_is_no_overload() -> None:
    lag = Lag()
    late(lag, 0.001)
    late(lag, 5.0, LOOKS // 2)
    assert not lag.too_long


def test_a_few_looks_say_nothing() -> None:
    lag = Lag()
    late(lag, 1.0, LOOKS - 1)
    assert not lag.too_long


async def test_a_late_loop_refuses_more_but_never_a_few() -> None:
    admission = Admission(1000)
    with ExitStack() as stack:
        for _ in range(LAG_COUNTS_FROM - 1):
            stack.enter_context(admission)
        late(admission.lag, 1.0)
        stack.enter_context(admission)  # so few are let in whatever the machine does
        with pytest.raises(NoRoom), admission:
            pass
        late(admission.lag, 0.0)
        with admission:
            pass


async def test_the_loop_is_watched_only_while_there_is_much_to_do() -> None:
    admission = Admission(1000)
    assert admission.lag._timer is None
    with ExitStack() as stack:
        for _ in range(LAG_COUNTS_FROM + 3):
            stack.enter_context(admission)
        assert admission.lag._timer is not None
    assert admission.lag._timer is None and not admission.lag.too_long


async def test_lateness_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_proxy.server.admission.TOO_LATE", 0.005)
    lag = Lag()
    lag.watch()
    for _ in range(LOOKS + 2):
        time.sleep(LOOK_EVERY + 0.01)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert 0.005 < lag.seconds < 1
    assert lag.too_long
    lag.rest()
