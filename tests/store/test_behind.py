"""What waits for a store is bounded and keeps the newest value; of an outage a person hears once a minute."""

from __future__ import annotations

import logging

import pytest

from llm_proxy.store.behind import Due, Outage
from tests.store.support import Clock


def test_what_could_not_be_written_waits_again_unless_something_newer_does() -> None:
    due: Due[str, bytes] = Due(len)
    assert due.put("a", b"1") and not due.put("b", b"1") and not due.put("c", None)
    assert due.take() == {"a": b"1", "b": b"1", "c": None}
    assert due.put("b", b"2")
    assert due.get("a") == (True, b"1") and due.get("b") == (True, b"2") and due.get("c") == (True, None)
    due.restore()
    assert due.take() == {"a": b"1", "b": b"2", "c": None}
    due.done()
    assert due.get("a") == (False, None) and len(due) == 0


def test_beyond_the_bound_the_oldest_gives_way_and_is_counted() -> None:
    due: Due[int, bytes] = Due(len, most_bytes=10_000)
    for number in range(20):
        due.put(number, b"x" * 800)
    assert due.dropped == 10
    assert list(due.take()) == list(range(10, 20))
    due.put(99, b"x" * 5000)
    due.restore()
    assert due.get(99) == (True, b"x" * 5000)
    assert due.dropped == 16


def test_one_value_that_is_larger_than_the_bound_still_waits() -> None:
    due: Due[int, bytes] = Due(len, most_bytes=10)
    due.put(1, b"x" * 100)
    assert due.take() == {1: b"x" * 100}


def test_an_outage_is_told_once_a_minute_and_its_end_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock(0)
    outage = Outage(clock)
    for _ in range(61):
        outage.tell("the disk is full")
        clock.now += 1
    outage.over("back")
    outage.over("back")
    assert [record.getMessage() for record in caplog.records] == [
        "the disk is full",
        "the disk is full (59 more times since the last such line)",
        "back",
    ]
