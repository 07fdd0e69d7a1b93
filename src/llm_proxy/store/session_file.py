"""Sessions in one SQLite file, written behind by one thread: at most a quarter of a second late, and complete after `close`.

Owns the file: its mode, its schema, what is done with a damaged one. A disk that fails costs durability, not requests: what is due waits
in memory and is written when the disk is back. Knows nothing of what a session is.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import queue
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from llm_proxy.store.behind import Due, Outage
from llm_proxy.store.sessions import Key, StoredSession

_LOG = logging.getLogger(__name__)

FILE_NAME = "sessions.sqlite3"
SCHEMA = 1
_GATHER_SECONDS = 0.05  # one commit for what is saved within this time
_RETRY_SECONDS = 5.0
_LOAD_SECONDS = 2.0  # longest wait of a request for a slow disk
_START_SECONDS = 10.0
_CLOSE_SECONDS = 10.0
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

T = TypeVar("T")


def file_of(path: Path) -> Path:
    """The database for `session.file_path`: a directory, or a new path without extension, holds `sessions.sqlite3`."""
    if path.is_dir() or (not path.suffix and not path.exists()):
        return path / FILE_NAME
    return path


class _NewerSchema(Exception):
    pass


class SessionFile:
    """A `SessionBacking` in the file of `path` (see `file_of`)."""

    def __init__(
        self,
        path: Path,
        *,
        retry_seconds: float = _RETRY_SECONDS,
        load_seconds: float = _LOAD_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._given = path
        self._path = file_of(path)
        self._retry = retry_seconds
        self._patience = load_seconds
        self._due: Due[Key, StoredSession] = Due(lambda row: len(row.value))
        self._outage = Outage(clock)
        self._stored: frozenset[Key] | None = None
        """Rows that may be in the file without being live. None before it was opened."""
        self._refused = False
        self._stuck_until = 0.0
        self._database: sqlite3.Connection | None = None
        self._identity: tuple[int, int] = (0, 0)
        self._flush_at: float | None = None
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sessions", daemon=True)
        self._thread.start()

    async def start(self) -> None:
        await self._ask(lambda: self._opened() is not None, False, _START_SECONDS)

    def may_have(self, scope: str, id: str) -> bool:
        if self._refused:
            return False
        return self._stored is None or (scope, id) in self._stored

    async def load(self, scope: str, id: str) -> bytes | None:
        waits, row = self._due.get((scope, id))
        if waits:
            return None if row is None else row.value
        return await self._ask(lambda: self._select_one(scope, id), None)

    async def newest(self, scope: str | None, most: int) -> list[bytes]:
        return await self._ask(lambda: self._select_newest(scope, most), [])

    def save(self, row: StoredSession) -> None:
        self._put((row.scope, row.id), row)

    def delete(self, scope: str, id: str) -> None:
        self._put((scope, id), None)

    def trim(self, used_before: float, created_before: float, most: int) -> None:
        self._jobs.put(lambda: self._trim(used_before, created_before, most))

    async def flush(self) -> None:
        """Returns when everything that was saved before is written, or has failed to be."""
        done: Future[None] = Future()
        self._jobs.put(lambda: self._answer(done, self._flush))
        await asyncio.wrap_future(done)

    async def close(self) -> None:
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join, _CLOSE_SECONDS)

    def _put(self, key: Key, row: StoredSession | None) -> None:
        if not self._refused and self._due.put(key, row):
            self._jobs.put(self._schedule)

    async def _ask(self, work: Callable[[], T], otherwise: T, patience: float | None = None) -> T:
        """What the thread finds out, or `otherwise` when the file cannot be read in time."""
        if self._refused or time.monotonic() < self._stuck_until:
            return otherwise
        answer: Future[T] = Future()
        self._jobs.put(lambda: self._answer(answer, lambda: self._guarded(work, otherwise)))
        try:
            async with asyncio.timeout(patience or self._patience):
                return await asyncio.wrap_future(answer)
        except TimeoutError:
            self._stuck_until = time.monotonic() + self._retry
            self._outage.tell(f"sessions are kept in memory: {self._path} does not answer")
            return otherwise

    # What follows runs in the thread only.

    def _run(self) -> None:
        while True:
            wait = None if self._flush_at is None else max(0.0, self._flush_at - time.monotonic())
            try:
                job = self._jobs.get(timeout=wait)
            except queue.Empty:
                self._flush()
                continue
            if job is None:
                break
            job()
            # Under load there is always a job: what is due must not wait for a pause.
            if self._flush_at is not None and time.monotonic() >= self._flush_at:
                self._flush()
        self._flush()
        if len(self._due):
            _LOG.warning("%d changes of sessions are lost: %s cannot be written", len(self._due), self._path)
        self._shut()

    @staticmethod
    def _answer(future: Future[T], work: Callable[[], T]) -> None:
        if future.set_running_or_notify_cancel():
            future.set_result(work())

    def _schedule(self) -> None:
        if self._flush_at is None:
            self._flush_at = time.monotonic() + _GATHER_SECONDS

    def _guarded(self, work: Callable[[], T], otherwise: T) -> T:
        if self._refused:
            return otherwise
        try:
            return work()
        except (sqlite3.Error, OSError, _NewerSchema) as error:
            self._fail(error)
            return otherwise

    def _flush(self) -> None:
        self._flush_at = None
        rows = self._due.take()
        if not rows:
            return
        if self._guarded(lambda: self._write(rows), False):
            self._due.done()
            self._outage.over(f"sessions are written to {self._path} again")
        elif self._refused:
            self._due.clear()
        else:
            self._due.restore()
            self._flush_at = time.monotonic() + (self._retry if self._outage.lasts else 0)

    def _write(self, rows: dict[Key, StoredSession | None]) -> bool:
        database = self._opened()
        database.execute("BEGIN IMMEDIATE")
        database.executemany(
            "DELETE FROM session WHERE scope = ? AND id = ?", [key for key, row in rows.items() if row is None]
        )
        database.executemany(
            "INSERT INTO session (scope, id, created, last_used, value) VALUES (?, ?, ?, ?, ?) ON CONFLICT (scope, id) "
            "DO UPDATE SET created = excluded.created, last_used = excluded.last_used, value = excluded.value",
            [(row.scope, row.id, row.created, row.last_used, row.value) for row in rows.values() if row is not None],
        )
        database.execute("COMMIT")
        return True

    def _select_one(self, scope: str, id: str) -> bytes | None:
        query = "SELECT value FROM session WHERE scope = ? AND id = ?"
        row = self._opened().execute(query, (scope, id)).fetchone()
        return row[0] if row else None

    def _select_newest(self, scope: str | None, most: int) -> list[bytes]:
        self._flush()  # what was just ended shall not be listed
        query = "SELECT value FROM session WHERE ?1 IS NULL OR scope = ?1 ORDER BY last_used DESC LIMIT ?2"
        return [value for (value,) in self._opened().execute(query, (scope, most))]

    def _trim(self, used_before: float, created_before: float, most: int) -> None:
        def work() -> None:
            database = self._opened()
            database.execute("DELETE FROM session WHERE last_used <= ? OR created <= ?", (used_before, created_before))
            database.execute(
                "DELETE FROM session WHERE rowid IN (SELECT rowid FROM session ORDER BY last_used DESC LIMIT -1 OFFSET ?)",
                (most,),
            )
            self._read_keys(database)

        self._guarded(work, None)

    def _read_keys(self, database: sqlite3.Connection) -> None:
        self._stored = frozenset(database.execute("SELECT scope, id FROM session"))

    def _opened(self) -> sqlite3.Connection:
        if self._database is not None:
            if self._is_there():
                return self._database
            self._shut()
        self._path = file_of(self._given)
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0), 0o600))
        found = os.stat(self._path)
        if not stat.S_ISREG(found.st_mode):  # a device keeps its mode: root could shut others out of /dev/null
            raise OSError(errno.EINVAL, "it is no regular file")
        os.chmod(self._path, 0o600)
        self._identity = (found.st_dev, found.st_ino)
        database = sqlite3.connect(self._path, timeout=1, isolation_level=None, check_same_thread=False)
        self._database = database
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA:
            raise _NewerSchema
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute("BEGIN IMMEDIATE")
        database.execute(
            "CREATE TABLE IF NOT EXISTS session (scope TEXT NOT NULL, id TEXT NOT NULL, created REAL NOT NULL, "
            "last_used REAL NOT NULL, value BLOB NOT NULL, PRIMARY KEY (scope, id))"
        )
        database.execute(f"PRAGMA user_version = {SCHEMA}")
        database.execute("COMMIT")
        self._read_keys(database)
        return database

    def _is_there(self) -> bool:
        """SQLite writes on into a file that somebody removed or replaced; nobody would ever read that."""
        try:
            found = os.stat(self._path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def _shut(self) -> None:
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
            self._database = None

    def _fail(self, error: Exception) -> None:
        self._shut()
        if isinstance(error, _NewerSchema):
            self._refused = True
            _LOG.warning(
                "sessions are kept in memory: %s was written by a newer version of the proxy, which this one cannot read",
                self._path,
            )
            return
        code = getattr(error, "sqlite_errorcode", 0)
        if code & 0xFF in _DAMAGED and self._set_aside():
            return
        self._outage.tell(f"sessions are kept in memory: {self._path} cannot be used ({error})")

    def _set_aside(self) -> bool:
        """Renames a damaged file, with its log, which must not be applied to the new one."""
        bad = self._path.with_name(self._path.name + ".bad")
        try:
            for ending in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(f"{self._path}{ending}", f"{bad}{ending}")
            os.replace(self._path, bad)
        except OSError:
            return False
        self._stored = frozenset()
        _LOG.warning("the session file %s is damaged: it was renamed %s, sessions begin anew", self._path, bad.name)
        return True
