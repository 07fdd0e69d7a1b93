"""The values in SQLite behind memory: what has ended goes while the process runs, and the file has a bound (OPS-19)."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from llm_proxy.store.sqlite import LOOK_EVERY, SqliteStore


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def keys_in(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as database:
        return {key for (key,) in database.execute("SELECT key FROM entry")}


@asynccontextmanager
async def opened(path: Path, clock: Clock, most: int = 50_000) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, clock, most)
    try:
        yield store
    finally:
        await store.close()


async def test_values_that_have_ended_leave_the_file_while_the_process_runs(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "state.sqlite3"
    async with opened(path, clock) as store:
        for n in range(10):
            store.put("response", f"old-{n}", b"value", 60)
        clock.now += 61
        for n in range(LOOK_EVERY):
            store.put("response", f"new-{n}", b"value", 60)
    assert keys_in(path) == {f"new-{n}" for n in range(LOOK_EVERY)}


async def test_the_file_holds_no_more_than_its_bound_and_the_next_look_lets_in(tmp_path: Path) -> None:
    """Those that end first go first."""
    clock, path = Clock(), tmp_path / "state.sqlite3"
    async with opened(path, clock, most=100) as store:
        for n in range(3 * LOOK_EVERY):
            store.put("reasoning", f"{n:05}", b"value", 60 + n)
    kept = keys_in(path)
    assert f"{3 * LOOK_EVERY - 1:05}" in kept
    assert kept == {f"{n:05}" for n in range(3 * LOOK_EVERY - len(kept), 3 * LOOK_EVERY)}
    assert len(kept) <= 100 + LOOK_EVERY


async def test_a_value_is_found_after_a_restart_until_it_ends(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "state.sqlite3"
    async with opened(path, clock) as store:
        store.put("response", "a", b"kept", 60)
    async with opened(path, clock) as store:
        assert await store.get_many("response", ["a", "b"]) == {"a": b"kept"}
    clock.now += 61
    async with opened(path, clock) as store:
        assert await store.get_many("response", ["a"]) == {}
    assert keys_in(path) == set()


async def test_a_file_that_could_not_be_used_for_a_while_is_written_again(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "state.sqlite3"
    path.mkdir()  # nothing can be kept there
    store = SqliteStore(path, clock, rest=0.0)
    store.put("reasoning", "meanwhile", b"2", 60)
    assert await store.get_many("reasoning", ["meanwhile", "never"]) == {"meanwhile": b"2"}  # behind that write
    path.rmdir()
    store.put("reasoning", "after", b"3", 60)
    await store.close()
    assert keys_in(path) == {"after"}


async def test_what_memory_has_no_room_for_is_found_in_the_file(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "state.sqlite3"
    store = SqliteStore(path, clock, in_memory=10)
    assert await store.get_many("reasoning", ["3"]) == {}
    for n in range(30):
        store.put("reasoning", str(n), b"%d" % n, 60)
    assert await store.get_many("reasoning", ["3", "29"]) == {"3": b"3", "29": b"29"}
    await store.close()


async def test_what_is_put_or_deleted_while_the_file_is_asked_holds(tmp_path: Path) -> None:
    """A question that began before must not bring back what it found, nor remember that there was nothing."""
    clock, path = Clock(), tmp_path / "state.sqlite3"
    async with opened(path, clock) as before:
        for key in ("changed", "deleted"):
            before.put("reasoning", key, b"old", 60)
    store = SqliteStore(path, clock, in_memory=5)
    keys = ["changed", "deleted", "new"]
    asked = asyncio.create_task(store.get_many("reasoning", keys))
    await asyncio.sleep(0)  # the question is on its way
    store.put("reasoning", "changed", b"newer", 60)
    store.put("reasoning", "new", b"new", 60)
    store.delete("reasoning", "deleted")
    held = {"changed": b"newer", "new": b"new"}
    assert await asked == held
    assert await store.get_many("reasoning", keys) == held
    for n in range(10):
        store.put("reasoning", str(n), b"value", 60)
    assert await store.get_many("reasoning", keys) == held, "memory has no room for them any more"
    await store.close()
