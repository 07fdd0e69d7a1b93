"""OPS-05, D-03, D-05: the thread that writes the capture: when, what it does about disks that fail, and what the loop notices of it."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from llm_proxy.store.capture import file as capture_file
from llm_proxy.store.capture.capture import Capture, CaptureSettings
from llm_proxy.store.capture.file import Limits
from llm_proxy.store.capture.heard import Caller, Heard, Piece, Sent
from llm_proxy.store.capture.reading import Reading, files
from llm_proxy.store.capture.waiting import Waiting
from tests.store.support import until

CALLER = Caller(request_id="r")
SOON, NEVER = 0.01, 600.0


@pytest.fixture
def captures() -> Iterator[Callable[..., Capture]]:
    made: list[Capture] = []

    def make(path: Path, waiting: Waiting | None = None, **settings: object) -> Capture:
        capture = Capture(lambda data: data.replace(b"secret", b"***"), waiting=waiting)
        capture.configure(msgspec.structs.replace(CaptureSettings(path, interval=SOON), **settings))
        made.append(capture)
        return capture

    yield make
    for capture in made:
        capture.finish()


def put(capture: Capture, *numbers: int, size: int = 0) -> None:
    for number in numbers:
        body = b'{"n":%d,"x":"%s"}' % (number, b"y" * size)
        capture.put(Heard(time.time(), CALLER, Sent("to", body), len(body)))


def numbers(path: Path) -> list[int]:
    return [line.value["n"] for line in Reading(path) if line.direction == "outbound_request"]


Make = Callable[..., Capture]


async def test_entries_are_written_within_the_flush_interval(tmp_path: Path, captures: Make) -> None:
    capture = captures(tmp_path / "c.jsonl")
    put(capture, 1, 2)
    await until(lambda: numbers(tmp_path / "c.jsonl") == [1, 2])
    assert capture.status.written == 2


async def test_a_full_buffer_does_not_wait_for_the_flush_interval(tmp_path: Path, captures: Make) -> None:
    capture = captures(tmp_path / "c.jsonl", interval=NEVER, buffer=4096)
    put(capture, 1)
    put(capture, 2, size=5000)
    await until(lambda: numbers(tmp_path / "c.jsonl") == [1, 2])


async def test_the_end_writes_what_waits(tmp_path: Path, captures: Make) -> None:
    capture = captures(tmp_path / "c.jsonl", interval=NEVER)
    put(capture, *range(250))
    await capture.close()
    assert numbers(tmp_path / "c.jsonl") == list(range(250))


async def test_nothing_is_written_with_a_secret(tmp_path: Path, captures: Make) -> None:
    capture = captures(tmp_path / "c.jsonl")
    capture.put(Heard(0.0, Caller(session_id="my secret"), Sent("https://secret.test/", b'{"a":"secret"}'), 0))
    await capture.close()
    assert b"secret" not in (tmp_path / "c.jsonl").read_bytes()


async def test_a_file_that_cannot_be_written_costs_one_warning_a_minute_and_recovers_alone(
    tmp_path: Path, captures: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "c.jsonl"
    path.mkdir()  # nobody, not even root, can write there
    capture = captures(path)
    for number in range(20):
        put(capture, number)
        await asyncio.sleep(0.005)
    await until(lambda: capture.status.failing != "")
    path.rmdir()
    await until(lambda: capture.status.written == 20)
    await until(lambda: "again" in caplog.records[-1].getMessage())  # which the thread says after it has written
    assert numbers(path) == list(range(20))
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert str(path) in warnings[0]
    assert capture.status.failing == ""


async def test_given_a_disk_that_stands_still_then_putting_is_quick_and_memory_is_bounded(
    tmp_path: Path, captures: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = threading.Event()
    real = os.write

    def slow(descriptor: int, data: bytes) -> int:
        free.wait(20)
        return real(descriptor, data)

    monkeypatch.setattr(capture_file.os, "write", slow)
    path, waiting = tmp_path / "c.jsonl", Waiting(most_entries=500)
    capture = captures(path, waiting, buffer=1024)
    longest = 0.0
    try:
        for number in range(5000):
            since = time.perf_counter()
            capture.put(Heard(0.0, CALLER, Piece(number, b"data: x\n\n"), 9))
            longest = max(longest, time.perf_counter() - since)
        put(capture, 1)
        assert capture.status.waiting <= 500 + 100
    finally:
        free.set()
    await until(lambda: len(waiting) == 0 and capture.status.waiting == 0)
    assert longest < 0.5
    lines = [line for line in Reading(path) if line.direction != "system_init"]
    kept = [line for line in lines if line.direction == "stream_chunk"]
    assert lines[-1].direction == "outbound_request"
    told = sum(line.metadata.get("dropped", 0) for line in lines)
    assert told == capture.status.dropped == 5000 - len(kept) > 0


async def test_a_new_configuration_begins_a_new_file_and_loses_nothing(tmp_path: Path, captures: Make) -> None:
    capture = captures(tmp_path / "a.jsonl", interval=NEVER)
    put(capture, 1)
    capture.configure(CaptureSettings(tmp_path / "b.jsonl", interval=SOON))
    await until(lambda: numbers(tmp_path / "a.jsonl") == [1])
    put(capture, 2)
    await until(lambda: numbers(tmp_path / "b.jsonl") == [2])
    capture.configure(None)
    assert not capture.on
    put(capture, 3)
    await until(lambda: capture.status.file == "" and capture.status.waiting == 0)
    capture.configure(CaptureSettings(tmp_path / "b.jsonl", interval=SOON))
    put(capture, 4)
    await until(lambda: numbers(tmp_path / "b.jsonl") == [2, 4])


async def test_a_file_that_was_moved_is_opened_anew_when_told(tmp_path: Path, captures: Make) -> None:
    path = tmp_path / "c.jsonl"
    capture = captures(path)
    put(capture, 1)
    await until(lambda: capture.status.written == 1)
    path.rename(tmp_path / "old")
    capture.reopen()
    put(capture, 2)
    await until(lambda: capture.status.written == 2)
    assert (numbers(path), numbers(tmp_path / "old")) == ([2], [1])


async def test_rotation_by_a_busy_thread_loses_nothing(tmp_path: Path, captures: Make) -> None:
    path = tmp_path / "c.jsonl"
    capture = captures(path, limits=Limits(bytes=20_000, files=100), batch=7)
    for start in range(0, 2000, 100):
        put(capture, *range(start, start + 100), size=start % 300)
        await asyncio.sleep(0.002)
    await capture.close()
    assert numbers(path) == list(range(2000))
    assert len(files(path)) > 10
    assert all(name.stat().st_size <= 20_000 for name in files(path))
