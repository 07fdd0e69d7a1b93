"""Weeks of use in minutes (O-07, P11, OPS-19): 150 requests a second in every pair of protocols, with faults, leaving clients, hang-ups and
rotation, and everything switched on that keeps something.

`SOAK_SECONDS` and `SOAK_RATE` make it shorter, longer or faster; memory is judged from 100 000 requests after the warm-up on.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.soak import mix
from tests.faults.soak.run import slope, soak

SECONDS = float(os.environ.get("SOAK_SECONDS", "1200"))
RATE = float(os.environ.get("SOAK_RATE", "150"))


def test_the_mix_is_what_the_plan_says() -> None:
    """60 % streams, 5 % faults of all kinds, 2 % clients that leave, 200 sessions, every pair of protocols."""
    asked = [mix.asked(number) for number in range(1600, 11_600)]
    share = {
        "streams": sum(one.stream for one in asked) / len(asked),
        "faults": sum(one.fate != "ok" for one in asked) / len(asked),
        "leaving": sum(bool(one.leave) for one in asked) / len(asked),
    }
    assert abs(share["streams"] - mix.STREAMED) < 0.03 and abs(share["faults"] - mix.FAULTY) < 0.01
    assert abs(share["leaving"] - mix.LEAVING) < 0.005
    assert {one.fate for one in asked} == {"ok", "stall", *mix.BEFORE, *mix.AFTER}
    assert len({(one.client, one.back) for one in asked}) == 16
    slots = {one.session.partition("-")[0] for one in asked}
    assert len(slots) == mix.SESSIONS
    ended = len({one.session for one in asked}) - len(slots)
    assert abs(ended - len(asked) / mix.TURNS) <= 2, "one session ends every 200 requests"
    assert not any(
        one.fate != "ok" or one.stream
        for one in (mix.asked(one.question) for one in asked if one.question != one.number)
    )


def test_the_slope_is_that_of_the_line() -> None:
    assert slope([0.0, 1.0, 2.0, 3.0], [5.0, 7.0, 9.0, 11.0]) == pytest.approx(2.0)
    assert slope([0.0, 1.0, 2.0], [3.0, 3.0, 3.0]) == 0.0
    assert slope([1.0], [1.0]) == 0.0


@pytest.mark.long
def test_a_busy_day_leaves_nothing_behind(tmp_path: Path) -> None:
    """Every answer right, memory flat, descriptors and tasks as before, logs and captures within their bounds, exit 0."""
    report = soak(tmp_path, SECONDS, RATE, print)
    print(report.text())
    problems = report.problems()
    assert not problems, "\n".join([*problems[:20], report.text()])
