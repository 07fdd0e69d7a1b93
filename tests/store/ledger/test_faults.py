"""OPS-07, D-03, D-05: what happens to the ledger when its database is locked, full, read-only, gone or damaged."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from llm_proxy.store.ledger import Ledger
from llm_proxy.store.ledger.database import Away
from llm_proxy.store.ledger.sqlite_file import SqliteConnection, SqliteFile
from llm_proxy.store.ledger.waiting import Waiting
from llm_proxy.store.records import AuditFilter, UsageFilter
from llm_proxy.store.usage import MemoryUsage
from tests.store.ledger.support import (
    START,
    ask,
    assert_alike,
    audit_entry,
    ids,
    is_sound,
    until,
    usage_row,
    warnings,
)

ROOT_USER = hasattr(os, "geteuid") and os.geteuid() == 0
needs_modes = pytest.mark.skipif(sys.platform == "win32", reason="modes of files")


def make(path: Path, **options: object) -> Ledger:
    database = SqliteFile(path, busy_seconds=0.01)
    return Ledger(path, usage_days=0, audit_days=0, retry_seconds=0.02, database=database, **options)  # type: ignore[arg-type]


async def test_a_row_gets_to_the_file_without_anybody_asking(tmp_path: Path) -> None:
    path = tmp_path / "usage.sqlite3"
    ledger = make(path)
    ledger.add(usage_row())
    await until(lambda: ledger.waiting == 0)
    assert ids(path) == ["req_0"]
    await ledger.close()


async def test_nothing_is_made_before_the_first_row(tmp_path: Path) -> None:
    ledger = make(tmp_path / "new" / "usage.sqlite3")
    ledger.start()
    assert (await ledger.stats(UsageFilter())).totals.requests == 0
    await ledger.close()
    assert list(tmp_path.iterdir()) == []


@needs_modes
async def test_nobody_else_may_read_the_files(tmp_path: Path) -> None:
    path = tmp_path / "new" / "usage.sqlite3"
    old = os.umask(0)
    try:
        ledger = make(path)
        ledger.add(usage_row())
        await ledger.flush()
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        files = list(path.parent.iterdir())
        assert len(files) == 3 and {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        await ledger.close()
    finally:
        os.umask(old)
    path.chmod(0o644)
    ledger = make(path)
    ledger.add(usage_row())
    await ledger.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@needs_modes
async def test_no_symbolic_link_is_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    path = tmp_path / "usage.sqlite3"
    path.symlink_to(victim)
    ledger = make(path)
    ledger.add(usage_row())
    assert (await ledger.stats(UsageFilter())).totals.requests == 1
    assert "wait in memory" in caplog.text
    path.unlink()
    await until(lambda: ledger.waiting == 0)
    await ledger.close()
    assert victim.read_bytes() == b"" and ids(path) == ["req_0"]


async def test_a_locked_database_costs_a_warning_and_no_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """given a locked database, then a warning appears"""
    caplog.set_level(logging.INFO)
    path = tmp_path / "usage.sqlite3"
    ledger = make(path)
    ledger.add(usage_row(0))
    await ledger.flush()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for number in range(1, 150):
            ledger.add(usage_row(number))
        for _ in range(5):
            await ledger.flush()
            assert ledger.waiting == 149
        assert (await ledger.stats(UsageFilter())).totals.requests == 150
        other.execute("ROLLBACK")
    await until(lambda: ledger.waiting == 0)
    await until(lambda: "again" in caplog.text)
    await ledger.close()
    assert ids(path) == [f"req_{number}" for number in range(150)]
    (said,) = warnings(caplog)
    assert str(path) in said and "locked" in said and "wait in memory" in said


def obstruct_with_a_file(folder: Path) -> None:
    folder.write_bytes(b"a file where the directory should be")


def obstruct_with_a_directory(folder: Path) -> None:
    (folder / "usage.sqlite3").mkdir(parents=True)


@pytest.mark.parametrize("obstruct", [obstruct_with_a_file, obstruct_with_a_directory])
async def test_a_place_that_cannot_be_used_costs_one_line_a_minute_and_is_taken_when_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, obstruct: object
) -> None:
    folder = tmp_path / "folder"
    assert callable(obstruct)
    obstruct(folder)
    ledger = make(folder / "usage.sqlite3")
    for number in range(3):
        ledger.add(usage_row(number))
        ledger.add_entry(audit_entry(number))
        await ledger.flush()
    # What waits is known all the same.
    assert (await ledger.stats(UsageFilter(session="s"))).totals.requests == 3
    assert [row.id for row in await ledger.recent(UsageFilter(), 2)] == ["req_2", "req_1"]
    assert (await ledger.entries(AuditFilter(), 1))[1] == 3
    assert len(warnings(caplog)) == 1
    if folder.is_file():
        folder.unlink()
    else:
        (folder / "usage.sqlite3").rmdir()
    await until(lambda: ledger.waiting == 0)
    await ledger.close()
    assert ids(folder / "usage.sqlite3") == ["req_0", "req_1", "req_2"]
    assert len(warnings(caplog)) == 1


@pytest.mark.skipif(ROOT_USER or sys.platform == "win32", reason="root may write to a read-only directory")
async def test_a_read_only_directory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o500)
    ledger = make(folder / "usage.sqlite3")
    ledger.add(usage_row())
    await ledger.flush()
    assert ledger.waiting == 1 and "wait in memory" in caplog.text
    folder.chmod(0o700)
    await until(lambda: ledger.waiting == 0)
    await ledger.close()


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own with room for 400 kB."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k,mode=700", "tmpfs", str(folder)]
    if not sys.platform.startswith("linux") or not ROOT_USER or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_disk_that_is_full_then_read_only_then_well_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "disk"
    with small_disk(folder):
        path = folder / "usage.sqlite3"
        ledger = make(path)
        ledger.add(usage_row(0))
        await ledger.flush()
        (folder / "filler").write_bytes(
            b"x" * (400 * 1024 - sum(file.stat().st_blocks * 512 for file in folder.iterdir()))
        )
        for number in range(1, 401):
            ledger.add(usage_row(number))
        await until(lambda: bool(warnings(caplog)))
        assert ledger.waiting == 400 and "full" in warnings(caplog)[0]
        (folder / "filler").unlink()
        await until(lambda: ledger.waiting == 0)

        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=False, capture_output=True)
        await ledger.close()
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            ledger = make(path)
            ledger.add(usage_row(401))
            await until(lambda: len(warnings(caplog)) > 1)
            assert ledger.waiting == 1
            subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
            await until(lambda: ledger.waiting == 0)
            await ledger.close()
        assert ids(path)[:401] == [f"req_{number}" for number in range(401)] and is_sound(path)


class Failing(SqliteFile):
    """A disk that answers every write with `error`, for as long as that is set."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.error = ""

    def open(self, *, reading: bool = False) -> SqliteConnection:
        connection = super().open(reading=reading)
        many = connection.change_many

        def failing(statement: str, rows: object) -> None:
            many(statement, rows)  # type: ignore[arg-type]
            if self.error:
                raise Away(self.error)

        connection.change_many = failing  # type: ignore[method-assign]
        return connection


@pytest.mark.parametrize(
    "error", ["disk I/O error", "attempt to write a readonly database", "database or disk is full"]
)
async def test_a_write_that_fails_half_way_is_done_once_when_it_can_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: str
) -> None:
    path = tmp_path / "usage.sqlite3"
    database = Failing(path)
    ledger = Ledger(path, usage_days=0, retry_seconds=0.01, database=database)
    ledger.add(usage_row(0))
    await ledger.flush()
    database.error = error
    for number in range(1, 5):
        ledger.add(usage_row(number))
        await ledger.flush()
    assert ledger.waiting == 4 and error in warnings(caplog)[0]
    database.error = ""
    await until(lambda: ledger.waiting == 0)
    await ledger.close()
    assert ids(path) == [f"req_{number}" for number in range(5)]


async def test_what_waits_for_a_database_that_can_only_be_read_is_in_the_answers(tmp_path: Path) -> None:
    path = tmp_path / "usage.sqlite3"
    database = Failing(path)
    ledger = Ledger(path, usage_days=0, audit_days=0, retry_seconds=0.01, database=database)
    rows = [
        usage_row(
            number,
            time=START + number * 7919 % 300_000,
            backend=f"b{number % 3}",
            model=f"b{number % 3}:m",
            project="p" if number % 4 else "q",
            session=f"s{number % 230}",
            duration_ms=float(number * 31 % 977),
            cost=None if number % 9 == 0 else 0.5,
            ttft_ms=None if number % 5 else 10.0,
            status=200 if number % 6 else 502,
        )
        for number in range(600)
    ]
    entries = [audit_entry(number, project="p" if number % 4 else "q") for number in range(60)]
    reference = MemoryUsage()
    for index, row in enumerate(rows):
        reference.add(row)
        ledger.add(row)
        if index % 10 == 0:
            reference.add_entry(entries[index // 10])
            ledger.add_entry(entries[index // 10])
        if index == 400:
            await ledger.flush()
            database.error = "attempt to write a readonly database"
    for wanted in (UsageFilter(), UsageFilter(project="q"), UsageFilter(since=START + 86_400, model="m")):
        assert_alike(await ledger.stats(wanted), await reference.stats(wanted))
        assert await ledger.recent(wanted, 50) == await reference.recent(wanted, 50)
    for filter_ in (AuditFilter(), AuditFilter(project="q")):
        assert await ledger.entries(filter_, 30) == await reference.entries(filter_, 30)
    assert 0 < ledger.waiting < 300
    database.error = ""
    await until(lambda: ledger.waiting == 0)
    assert_alike(await ledger.stats(UsageFilter()), await reference.stats(UsageFilter()))
    await ledger.close()


async def test_a_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """SQLite's own limit of pages gives the error of a full disk."""
    path = tmp_path / "usage.sqlite3"
    ledger = make(path)
    ledger.add(usage_row(0))
    await ledger.flush()
    connection = ledger._connection
    assert isinstance(connection, SqliteConnection)
    connection.change("PRAGMA max_page_count = 20")
    for number in range(1, 2001):
        ledger.add(usage_row(number))
    await until(lambda: bool(warnings(caplog)))
    assert "full" in warnings(caplog)[0]
    # The limit is gone with the connection, as space comes back.
    await until(lambda: ledger.waiting == 0)
    await ledger.close()
    assert len(ids(path)) == 2001 and is_sound(path) and len(warnings(caplog)) == 1


async def test_a_file_that_is_deleted_in_flight_is_made_anew(tmp_path: Path) -> None:
    """given a deleted database, then requests succeed"""
    path = tmp_path / "deep" / "usage.sqlite3"
    ledger = make(path)
    for number in range(5):
        ledger.add(usage_row(number))
        await ledger.flush()
        for file in path.parent.iterdir():
            if number != 2 or file == path:  # once, what lies beside it stays
                file.unlink()
    path.parent.rmdir()
    ledger.add(usage_row(5))
    assert [row.id for row in await ledger.recent(UsageFilter(), 10)] == ["req_5"]
    await ledger.close()
    assert ids(path) == ["req_5"] and is_sound(path)


@pytest.mark.parametrize(
    "damage",
    [b"this is no database at all, but a text that somebody put here" * 100, b"SQLite format 3\0" + b"\x7f" * 9000],
)
async def test_a_damaged_file_is_renamed_and_a_new_one_begun(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    path = tmp_path / "usage.sqlite3"
    (tmp_path / "usage.sqlite3.bad").write_bytes(b"an earlier one")
    path.write_bytes(damage)
    ledger = make(path)
    ledger.start()
    ledger.add(usage_row())
    await until(lambda: ledger.waiting == 0)
    await ledger.close()
    assert ids(path) == ["req_0"]
    assert (tmp_path / "usage.sqlite3.bad").read_bytes() == b"an earlier one"
    assert (tmp_path / "usage.sqlite3.bad2").read_bytes() == damage
    (said,) = warnings(caplog)
    assert "damaged" in said and "usage.sqlite3.bad2" in said


async def test_damage_that_only_a_question_meets_is_examined(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "usage.sqlite3"
    ledger = make(path)
    for number in range(3000):
        ledger.add(usage_row(number))
    await ledger.close()
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = b"\xff" * (len(content) - len(content) // 2)
    path.write_bytes(content)
    ledger = make(path)
    assert (await ledger.stats(UsageFilter())).totals.requests == 0
    ledger.start()
    await until(lambda: "damaged" in caplog.text)
    ledger.add(usage_row())
    assert (await ledger.stats(UsageFilter())).totals.requests == 1
    await ledger.close()


async def test_one_row_that_does_not_fit_keeps_no_other_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "usage.sqlite3"
    ledger = make(path)
    ledger.add(usage_row(0))
    ledger.add(usage_row(1, token_source=object()))
    ledger.add(usage_row(2, status=None))
    ledger.add(usage_row(3, project="half \ud83d and \0 zero", prompt=10**30, cost=float("nan")))
    await until(lambda: ledger.waiting == 0)
    found = await ledger.recent(UsageFilter(), 10)
    assert [row.id for row in found] == ["req_3", "req_0"]
    assert (found[0].project, found[0].prompt, found[0].cost) == ("half ? and \ufffd zero", 10**12, None)
    assert ledger.dropped == 2 and len(warnings(caplog)) == 2
    await ledger.close()


async def test_beyond_the_bound_the_oldest_give_way_and_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """drop oldest first, count drops, never block traffic"""
    obstacle = tmp_path / "folder"
    obstacle.write_bytes(b"")
    ledger = make(obstacle / "usage.sqlite3")
    for number in range(10_050):
        ledger.add(usage_row(number))
    assert (ledger.waiting, ledger.dropped) == (10_000, 50)
    assert [row.id for row in await ledger.recent(UsageFilter(), 1)] == ["req_10049"]
    await ledger.close()
    assert re.search(r"10000 usage and audit records are lost", caplog.text)


def test_the_waiting_room_is_bounded_by_bytes_too() -> None:
    room: Waiting[bytes] = Waiting(len, most_rows=10, most_bytes=100)
    for size in (60, 30, 20):
        room.add(b"x" * size)
    assert [len(row) for row in room.all()] == [30, 20] and room.dropped == 1
    assert [len(row) for _, row in room.take(1)] == [30]
    room.add(b"y" * 60)
    room.restore()
    assert [len(row) for row in room.all()] == [30, 60] and room.dropped == 2
    room.add(b"z" * 500)  # one that is larger than all the room still gets in
    assert [len(row) for row in room.all()] == [500]
    room.take(5)
    room.done()
    assert len(room) == 0
    for _ in range(12):
        room.add(b"")
    assert len(room) == 10


async def test_a_database_that_does_not_answer_holds_up_neither_question_nor_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("llm_proxy.store.ledger.ledger._PATIENCE", 0.05)
    monkeypatch.setattr("llm_proxy.store.ledger.ledger._CLOSE_SECONDS", 0.05)
    answer = threading.Event()

    class Stuck(SqliteFile):
        def open(self, *, reading: bool = False) -> SqliteConnection:
            if not reading:
                answer.wait(30)
            return super().open(reading=reading)

    ledger = Ledger(tmp_path, database=Stuck(tmp_path / "usage.sqlite3"), usage_days=0)
    ledger.add(usage_row())
    try:
        async with asyncio.timeout(5):
            assert (await ledger.stats(UsageFilter())).totals.requests == 1
            await ledger.close()
    finally:
        answer.set()
    assert "1 usage and audit records are lost" in caplog.text


async def test_rows_older_than_the_retention_are_deleted_in_small_batches(tmp_path: Path) -> None:
    path = tmp_path / "usage.sqlite3"
    ledger = make(path)
    day = 86_400
    now = 1_800_000_000.0
    for number in range(2500):
        ledger.add(usage_row(number, time=now - 11 * day))
    ledger.add(usage_row(9001, time=now - 9 * day))
    ledger.add_entry(audit_entry(1, time=now - 4 * day))
    ledger.add_entry(audit_entry(2, time=now - 2 * day))
    await ledger.close()
    assert len(ids(path)) == 2501

    ledger = Ledger(path, usage_days=10, audit_days=3, clock=lambda: now)
    ledger.start()
    await until(lambda: ids(path) == ["req_9001"])
    assert ask(path, "SELECT request_id FROM audit") == [("req_2",)]
    # Another retention counts at once; 0 keeps for ever.
    ledger.keep(0, 1)
    await until(lambda: ask(path, "SELECT COUNT(*) FROM audit") == [(0,)])
    assert ids(path) == ["req_9001"]
    await ledger.close()


async def test_secrets_are_gone_before_a_row_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def clean(text: str) -> str:
        return text.replace("canary-4711", "***")

    obstacle = tmp_path / "canary-4711"
    obstacle.write_bytes(b"")
    ledger = make(obstacle / "usage.sqlite3", clean=clean)
    ledger.add(usage_row(1, username="ann canary-4711", requested_model="canary-4711"))
    ledger.add(usage_row(2))
    first, second = ledger._usage.all()
    assert (first.username, first.requested_model, first.session) == ("ann ***", "***", "s")
    assert second == usage_row(2)
    await ledger.flush()
    assert "canary-4711" not in warnings(caplog)[0] and "***" in warnings(caplog)[0]
    await ledger.close()


async def test_adding_and_asking_never_block_the_event_loop(tmp_path: Path) -> None:
    """10,000 rows within a second: microseconds each, none dropped, nothing that waits"""
    ledger = Ledger(tmp_path / "usage.sqlite3", usage_days=0, audit_days=0)
    longest = 0.0
    with blockbuster_ctx("llm_proxy"):
        for some in range(0, 10_000, 100):
            began = time.perf_counter()
            for number in range(some, some + 100):
                ledger.add(usage_row(number))
                ledger.add_entry(audit_entry(number))
            longest = max(longest, time.perf_counter() - began)
            await asyncio.sleep(0)
        assert (await ledger.stats(UsageFilter())).totals.requests == 10_000
        assert (await ledger.entries(AuditFilter(), 1))[1] == 10_000
        await ledger.close()
    assert ledger.dropped == 0
    assert longest < 0.5, "200 rows and entries; thousands of times what they take on a quiet machine"


@needs_modes
async def test_what_is_no_file_is_left_as_it_is(tmp_path: Path) -> None:
    """A device at that path, such as /dev/null, keeps its mode: to root everything is possible."""
    path = tmp_path / "device"
    os.mkfifo(path)
    path.chmod(0o644)
    ledger = make(path)
    ledger.add(usage_row(1))
    assert len(await ledger.recent(UsageFilter(), 10)) == 1  # from memory
    await ledger.close()
    assert path.stat().st_mode & 0o777 == 0o644
