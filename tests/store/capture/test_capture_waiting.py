"""D-05: what waits for the disk is bounded; the oldest chunks give way first, and what is lost is counted."""

from __future__ import annotations

from llm_proxy.store.capture.heard import Caller, Ended, Heard, Piece, Sent
from llm_proxy.store.capture.waiting import MOST_BYTES, MOST_ENTRIES, Waiting

CALLER = Caller()


def chunk(number: int, size: int = 10) -> Heard:
    return Heard(0.0, CALLER, Piece(number, b""), size)


def request(number: int, size: int = 10) -> Heard:
    return Heard(0.0, CALLER, Sent(str(number), b""), size)


def names(entries: list[Heard]) -> list[object]:
    return [
        entry.what.number if isinstance(entry.what, Piece) else entry.what.destination
        for entry in entries
        if not isinstance(entry.what, Ended)
    ]


def test_ten_thousand_entries_or_16_mib() -> None:
    assert (MOST_ENTRIES, MOST_BYTES) == (10_000, 16 * 1024 * 1024)


def test_entries_come_out_in_the_order_in_which_they_went_in() -> None:
    waiting = Waiting()
    for number in range(0, 30, 3):
        waiting.put(request(number))
        waiting.put(chunk(number + 1))
        waiting.put(chunk(number + 2))
    first, _ = waiting.take(7)
    rest, _ = waiting.take(100)
    assert [int(str(name)) for name in names(first + rest)] == list(range(30))
    assert (len(waiting), waiting.bytes) == (0, 0)


def test_the_oldest_chunks_are_dropped_first_and_counted_once() -> None:
    waiting = Waiting(most_entries=5)
    waiting.put(request(0))
    for number in range(1, 8):
        waiting.put(chunk(number))
    waiting.put(request(9))
    taken, dropped = waiting.take(100)
    assert names(taken) == ["0", 5, 6, 7, "9"]
    assert (dropped, waiting.dropped) == (4, 4)
    waiting.put(chunk(10))
    assert waiting.take(100)[1] == 0


def test_without_chunks_what_comes_is_dropped() -> None:
    waiting = Waiting(most_entries=3)
    for number in range(6):
        waiting.put(request(number))
    assert names(waiting.take(100)[0]) == ["0", "1", "2"]
    assert waiting.dropped == 3


def test_bytes_are_bounded_whatever_comes() -> None:
    waiting = Waiting(most_bytes=10_000)
    for number in range(200):
        waiting.put(chunk(number, size=number * 37 % 3000))
        if number % 3 == 0:
            waiting.put(request(number, size=number * 91 % 2500))
        assert waiting.bytes <= 10_000
    assert waiting.dropped > 0


def test_one_entry_larger_than_everything_is_kept_when_nothing_else_waits() -> None:
    waiting = Waiting(most_bytes=1000)
    waiting.put(request(1, size=5000))
    waiting.put(chunk(2))
    assert names(waiting.take(9)[0]) == ["1"]
    assert waiting.dropped == 1


def test_chunks_do_not_give_way_where_that_would_not_help() -> None:
    waiting = Waiting(most_bytes=10_000)
    waiting.put(request(1))
    waiting.put(chunk(2))
    waiting.put(request(3, size=50_000))
    assert names(waiting.take(9)[0]) == ["1", 2]
    assert waiting.dropped == 1
