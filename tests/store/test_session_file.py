"""SES-03, repository `file`: where it lies, what survives a killed process, and what happens when the disk fails."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from llm_proxy.sessions.session import Session
from llm_proxy.store.session_file import FILE_NAME, SCHEMA, SessionFile, file_of
from llm_proxy.store.sessions import Sessions, StoredSession
from tests.store.support import START, Clock, until, use

ROOT = Path(__file__).resolve().parents[2]


def make(path: Path, clock: Clock | None = None, *, most: int = 1000, expiry: float = 86_400) -> Sessions:
    return Sessions(
        clock=clock or Clock(),
        expiry_seconds=expiry,
        max_age=604_800,
        max_sessions=most,
        backing=SessionFile(path, retry_seconds=0.01),
    )


def ids(path: Path) -> list[str]:
    database = sqlite3.connect(path)
    try:
        return [id for (id,) in database.execute("SELECT id FROM session ORDER BY id")]
    finally:
        database.close()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_directory_or_a_new_path_without_extension_holds_the_file(tmp_path: Path) -> None:
    (tmp_path / "dotted.d").mkdir()
    (tmp_path / "plain").write_bytes(b"")
    assert file_of(tmp_path) == tmp_path / FILE_NAME
    assert file_of(tmp_path / "dotted.d") == tmp_path / "dotted.d" / FILE_NAME
    assert file_of(tmp_path / "new") == tmp_path / "new" / FILE_NAME
    assert file_of(tmp_path / "plain") == tmp_path / "plain"
    assert file_of(tmp_path / "my.db") == tmp_path / "my.db"


@pytest.mark.skipif(sys.platform == "win32", reason="modes of files")
async def test_nobody_else_may_read_the_file(tmp_path: Path) -> None:
    sessions = make(tmp_path / "new")
    await use(sessions, "a", "s", model="m")
    await sessions.close()
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "new" / FILE_NAME).stat().st_mode & 0o777 == 0o600

    open_to_all = tmp_path / "open.db"
    open_to_all.touch(0o644)
    sessions = make(open_to_all)
    await sessions.start()
    files = list(tmp_path.glob("open.db*"))
    assert len(files) > 1
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    await sessions.close()


async def test_a_change_gets_to_the_file_without_anybody_asking(tmp_path: Path) -> None:
    sessions = make(tmp_path)
    await sessions.start()
    await use(sessions, "a", "s", model="m")
    await until(lambda: ids(tmp_path / FILE_NAME) == ["s"])
    await sessions.close()


async def test_a_killed_process_leaves_a_whole_file_with_all_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "killed.db"
    written = 0
    for _ in range(10):
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.store.killed", str(path)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        try:
            assert child.stdout.readline()
            await asyncio.sleep(random.random() * 0.1)  # the moment of the kill, nothing is waited for
        finally:
            child.kill()
            rest = child.stdout.read()
            child.stdout.close()
            child.wait()
        whole = [int(line) for line in rest.split(b"\n")[:-1]]
        written = whole[-1] if whole else 20

        database = sqlite3.connect(path)
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        values = {
            id: msgspec.msgpack.decode(value, type=Session)
            for id, value in database.execute("SELECT id, value FROM session")
        }
        database.close()
        assert values["counter"].values["number"] >= written


async def test_a_damaged_file_is_renamed_and_a_new_one_begun(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(b"this is no database at all, " * 100)
    sessions = make(path)
    await use(sessions, "a", "s", model="m")
    await sessions.close()
    assert (tmp_path / "s.db.bad").read_bytes().startswith(b"this is no database")
    assert ids(path) == ["s"]
    assert len(warnings(caplog)) == 1 and "damaged" in warnings(caplog)[0]


async def test_damage_that_shows_later_costs_no_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "s.db"
    sessions = make(path)
    for number in range(200):
        await use(sessions, "a", f"s{number}", text="x" * 2000)
    await sessions.close()
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)

    sessions = make(path)
    for number in range(0, 200, 20):
        await use(sessions, "a", f"s{number}", model="m")
    await sessions.close()
    assert (tmp_path / "s.db.bad").exists()
    again = make(path)
    assert (await again.open("a", "s180")).values["model"] == "m"
    await again.close()
    assert "damaged" in caplog.text


async def test_while_the_disk_fails_sessions_live_in_memory_and_are_written_when_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    obstacle = tmp_path / "folder"
    obstacle.write_bytes(b"a file where the directory should be")
    backing = SessionFile(obstacle / "s.db", retry_seconds=0.01)
    sessions = Sessions(clock=Clock(), expiry_seconds=86_400, max_age=604_800, max_sessions=99, backing=backing)
    for number in range(5):
        await use(sessions, "a", "s", number=number)
        await backing.flush()
    session = await sessions.open("a", "s")
    assert session.values == {"number": 4}
    assert len(warnings(caplog)) == 1 and "kept in memory" in warnings(caplog)[0]

    obstacle.unlink()
    await until(lambda: "written to" in caplog.text)
    assert ids(obstacle / "s.db") == ["s"]
    await sessions.close()
    assert len(warnings(caplog)) == 1


async def test_what_a_failing_disk_lost_is_said_at_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    obstacle = tmp_path / "folder"
    obstacle.write_bytes(b"")
    sessions = make(obstacle / "s.db")
    await use(sessions, "a", "s", model="m")
    await sessions.close()
    assert "1 changes of sessions are lost" in caplog.text


async def test_a_removed_file_is_noticed(tmp_path: Path) -> None:
    sessions = make(tmp_path / "deep" / "s.db")
    await sessions.start()
    for file in (tmp_path / "deep").iterdir():
        file.unlink()
    (tmp_path / "deep").rmdir()
    await use(sessions, "a", "s", model="m")
    await sessions.close()
    assert ids(tmp_path / "deep" / "s.db") == ["s"]


async def test_a_disk_that_does_not_answer_holds_no_request_up_for_ever(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backing = SessionFile(tmp_path, retry_seconds=60, load_seconds=0.05)
    answer = threading.Event()
    backing._jobs.put(lambda: answer.wait(30) and None)
    try:
        assert await backing.load("a", "s") is None
        assert "does not answer" in caplog.text
        started = backing._jobs.qsize()
        assert await backing.load("a", "t") is None
        assert backing._jobs.qsize() == started  # left alone for a while
    finally:
        answer.set()
        await backing.close()


async def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "s.db"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE session (tomorrow)")
    database.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    database.commit()
    database.close()
    before = path.read_bytes()

    sessions = make(path)
    await sessions.start()
    await use(sessions, "a", "s", model="m")
    assert (await sessions.open("a", "s")).values == {"model": "m"}
    await sessions.close()
    assert path.read_bytes() == before
    assert len(warnings(caplog)) == 1 and "newer version" in warnings(caplog)[0]


async def test_what_is_over_is_deleted_at_the_start_and_by_the_clean_up(tmp_path: Path) -> None:
    clock = Clock()
    sessions = make(tmp_path, clock, expiry=100)
    await use(sessions, "a", "first", model="m")
    clock.now += 120
    await use(sessions, "a", "second", model="m")
    await sessions.close()
    assert ids(tmp_path / FILE_NAME) == ["first", "second"]

    clock.now += 50
    sessions = make(tmp_path, clock, expiry=100)
    await sessions.start()
    await sessions.close()
    assert ids(tmp_path / FILE_NAME) == ["second"]

    sessions = make(tmp_path, clock, expiry=100)
    await sessions.start()
    clock.now += 200
    sessions.sweep()
    await sessions.close()
    assert ids(tmp_path / FILE_NAME) == []


async def test_rows_beyond_max_sessions_are_deleted_the_longest_idle_first(tmp_path: Path) -> None:
    clock = Clock()
    sessions = make(tmp_path, clock)
    for number in range(6):
        clock.now += 1
        await use(sessions, "a", f"s{number}", model="m")
    await sessions.close()
    sessions = make(tmp_path, clock, most=2)
    await sessions.start()
    await sessions.close()
    assert ids(tmp_path / FILE_NAME) == ["s4", "s5"]


async def test_two_processes_on_one_file_wait_for_each_other(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    first, second = make(path), make(path)
    for number in range(50):
        await use(first, "a", f"one-{number}", model="m")
        await use(second, "a", f"two-{number}", model="m")
    await asyncio.gather(first.close(), second.close())
    assert len(ids(path)) == 100


async def test_one_shot_requests_wait_for_no_disk(tmp_path: Path) -> None:
    sessions = make(tmp_path)
    await sessions.start()
    loads = 0

    async def load(scope: str, id: str) -> bytes | None:
        nonlocal loads
        loads += 1
        return None

    backing = sessions._backing
    assert isinstance(backing, SessionFile)
    backing.load = load  # type: ignore[method-assign]
    for number in range(100):
        await use(sessions, "a", str(number))
    assert loads == 0
    await sessions.close()


async def test_many_changes_of_one_session_wait_as_one(tmp_path: Path) -> None:
    backing = SessionFile(tmp_path)
    release = threading.Event()
    backing._jobs.put(lambda: release.wait(30) and None)
    for number in range(1000):
        backing.save(StoredSession("a", "s", START, time.time() + number, 0, b"x" * 1000))
    assert len(backing._due) == 1
    release.set()
    await backing.close()
    assert ids(tmp_path / FILE_NAME) == ["s"]


@pytest.mark.skipif(sys.platform == "win32", reason="modes of files")
async def test_what_is_no_file_is_left_as_it_is(tmp_path: Path) -> None:
    """A device at that path, such as /dev/null, keeps its mode: to root everything is possible."""
    path = tmp_path / "device.sqlite3"
    os.mkfifo(path)
    path.chmod(0o644)
    sessions = make(path)
    await sessions.start()
    await use(sessions, "scope", "s", model="m")
    await sessions.close()
    assert path.stat().st_mode & 0o777 == 0o644
