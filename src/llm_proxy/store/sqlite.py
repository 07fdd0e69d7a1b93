"""Values that survive a restart: memory in front, SQLite behind, all file work in one thread of its own.

A database that is locked, full, read-only or gone loses durability, not requests: memory serves meanwhile, with one warning a minute, and
the file is tried again after a rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from array import array
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from llm_proxy.store.behind import Outage
from llm_proxy.store.memory import MemoryStore

_MAX_ROWS = 50_000
_MOST_WAITING = 10_000
_IN_MEMORY = 1_000
_REST_SECONDS = 30.0
_ABSENT = 8_192  # places for keys known to be nowhere: each saves a question
LOOK_EVERY = 1000
"""Writes after which what has ended is deleted: a process runs for weeks, and values end after an hour or a day."""


class SqliteStore:
    """A `ValueStore` in the file `path`. The file is opened by the first use, not by start-up.

    `clock` is epoch time; `most` bounds the rows of the file. After a failure the file rests for `rest` seconds.
    """

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float] = time.time,
        most: int = _MAX_ROWS,
        rest: float = _REST_SECONDS,
        in_memory: int = _IN_MEMORY,
    ) -> None:
        self._path = path
        self._clock = clock
        self._most = most
        self._writes = 0
        self._memory = MemoryStore(max_entries=in_memory, clock=clock)
        self._in_memory = in_memory
        self._absent = _Absent()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._database: sqlite3.Connection | None = None
        self._rest = rest
        self._rests_until = 0.0
        self._given = self._done = 0  # each is counted by one thread only
        self._outage = Outage()
        self._more_on_disk = path.exists()
        """May the file hold what memory does not?"""

    async def get_many(self, space: str, keys: Iterable[str]) -> dict[str, bytes]:
        wanted = list(dict.fromkeys(keys))
        found = await self._memory.get_many(space, wanted)
        if not self._more_on_disk or self._resting:
            return found
        missing = [key for key in wanted if key not in found and not self._absent.has(space, key)]
        if missing:
            rows = await asyncio.get_running_loop().run_in_executor(self._thread, self._select, space, missing)
            # What was put or deleted meanwhile is newer than what the file said.
            found |= await self._memory.get_many(space, missing)
            for key, value, expires in rows:
                if key not in found and not self._absent.has(space, key):
                    found[key] = value
                    self._memory.put(space, key, value, expires - self._clock())
            for key in missing:
                if key not in found:
                    self._absent.add(space, key)
        return found

    def put(self, space: str, key: str, value: bytes, ttl: float) -> None:
        self._memory.put(space, key, value, ttl)
        self._absent.discard(space, key)
        self._later(self._upsert, space, key, value, self._clock() + ttl)

    def delete(self, space: str, key: str) -> None:
        self._memory.delete(space, key)
        self._absent.add(space, key)
        self._later(self._remove, space, key)

    @property
    def _resting(self) -> bool:
        return time.monotonic() < self._rests_until

    def _later(self, work: Callable[..., None], *arguments: object) -> None:
        """Has the thread do it, unless the file rests or the thread has fallen far behind."""
        if self._resting:
            return
        if self._given - self._done >= _MOST_WAITING:
            self._outage.tell(f"state is kept in memory only for now: {self._path} is too slow")
            return
        self._given += 1
        self._more_on_disk = self._more_on_disk or self._given > self._in_memory
        self._thread.submit(self._do, work, arguments)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    # What follows runs in the store's thread only.

    def _do(self, work: Callable[..., None], arguments: tuple[object, ...]) -> None:
        self._done += 1
        if self._resting:
            return
        try:
            work(*arguments)
        except (sqlite3.Error, OSError) as error:
            self._fail(error)
        else:
            self._outage.over(f"state is kept in {self._path} again")

    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0), 0o600)
            os.close(descriptor)
            self._database = sqlite3.connect(self._path, timeout=5, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS entry (space TEXT, key TEXT, value BLOB, expires REAL, "
                "PRIMARY KEY (space, key)) WITHOUT ROWID"
            )
            self._trim(self._database)
        return self._database

    def _trim(self, database: sqlite3.Connection) -> None:
        """Deletes what has ended, and of what are too many those that end first."""
        database.execute("DELETE FROM entry WHERE expires <= ?", (self._clock(),))
        (rows,) = database.execute("SELECT count(*) FROM entry").fetchone()
        if rows > self._most:
            database.execute(
                "DELETE FROM entry WHERE (space, key) IN (SELECT space, key FROM entry ORDER BY expires LIMIT ?)",
                (rows - self._most,),
            )

    def _fail(self, error: Exception) -> None:
        self._rests_until = time.monotonic() + self._rest
        self._outage.tell(f"state is kept in memory only for now: {self._path} cannot be used ({error})")
        self._close()  # the next try finds what is there then

    def _select(self, space: str, keys: list[str]) -> list[tuple[str, bytes, float]]:
        rows: list[tuple[str, bytes, float]] = []
        try:
            database = self._open()
            for start in range(0, len(keys), 500):
                some = keys[start : start + 500]
                marks = ",".join("?" * len(some))
                rows += database.execute(
                    f"SELECT key, value, expires FROM entry WHERE space = ? AND expires > ? AND key IN ({marks})",
                    (space, self._clock(), *some),
                ).fetchall()
        except (sqlite3.Error, OSError) as error:
            self._fail(error)
        return rows

    def _upsert(self, space: str, key: str, value: bytes, expires: float) -> None:
        database = self._open()
        database.execute("INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?)", (space, key, value, expires))
        self._writes += 1
        if self._writes % LOOK_EVERY == 0:
            self._trim(database)

    def _remove(self, space: str, key: str) -> None:
        self._open().execute("DELETE FROM entry WHERE space = ? AND key = ?", (space, key))

    def _close(self) -> None:
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
            self._database = None


class _Absent:
    """Keys that are known to be nowhere, as many as there are places: by their hashes, and whoever comes later to a place has it."""

    def __init__(self) -> None:
        self._hashes = array("q", bytes(8 * _ABSENT))

    def has(self, space: str, key: str) -> bool:
        number = hash((space, key))
        return self._hashes[number % _ABSENT] == number

    def add(self, space: str, key: str) -> None:
        number = hash((space, key))
        self._hashes[number % _ABSENT] = number

    def discard(self, space: str, key: str) -> None:
        number = hash((space, key))
        if self._hashes[number % _ABSENT] == number:
            self._hashes[number % _ABSENT] = 0
