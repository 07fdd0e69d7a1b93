"""SQLite files: their mode, their journal, what tells a locked one from a damaged one, and what is done when one is gone.

Knows nothing of what is stored.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from llm_proxy.store.ledger.database import Away, Connection, Damaged, Misfit, Values

_BUSY_SECONDS: Final = 2.0
_QUESTION_SECONDS: Final = 30.0
_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_MISFITS: Final = (sqlite3.InterfaceError, sqlite3.DataError, sqlite3.IntegrityError, OverflowError, UnicodeError)
_MOST_SET_ASIDE: Final = 9


class SqliteFile:
    """The database in the file `path`."""

    def __init__(self, path: Path, *, busy_seconds: float = _BUSY_SECONDS) -> None:
        self._path = path
        self._busy = busy_seconds

    @property
    def shown(self) -> str:
        return str(self._path)

    def exists(self) -> bool:
        return os.path.lexists(self._path)

    def open(self, *, reading: bool = False) -> SqliteConnection:
        try:
            identity = _identity(os.stat(self._path, follow_symlinks=False)) if reading else self._make()
            return SqliteConnection(self._path, identity, self._busy, reading)
        except OSError as error:
            raise Away(_reason(error)) from error

    def set_aside(self, connection: Connection | None) -> str:
        if connection is not None and not connection.is_there():
            return ""  # somebody else has done it
        bad = self._free_name()
        try:
            for ending in ("-wal", "-shm"):
                # A journal of the old file must not be applied to the new one.
                with contextlib.suppress(FileNotFoundError):
                    os.replace(f"{self._path}{ending}", f"{bad}{ending}")
            os.replace(self._path, bad)
        except OSError as error:
            raise Away(_reason(error)) from error
        return bad.name

    def _free_name(self) -> Path:
        names = [f"{self._path.name}.bad", *(f"{self._path.name}.bad{n}" for n in range(2, _MOST_SET_ASIDE + 1))]
        found = [self._path.with_name(name) for name in names]
        return next((path for path in found if not os.path.lexists(path)), found[-1])

    def _make(self) -> tuple[int, int]:
        """Makes sure that there is a file which only its owner reads, and tells which one."""
        if sys.platform == "win32" and self._path.is_symlink():
            raise OSError(0, "it is a symbolic link")
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.path.lexists(self._path):
            # What a removed file has left beside it would be taken for the journal of the new one.
            for ending in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{self._path}{ending}")
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(self._path, flags, 0o600)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):  # a device keeps its mode: root could shut others out of /dev/null
                raise OSError(errno.EINVAL, "it is no regular file")
            if sys.platform != "win32" and found.st_mode & 0o777 != 0o600:
                os.fchmod(descriptor, 0o600)
            return _identity(found)
        finally:
            os.close(descriptor)


class SqliteConnection:
    """One connection; made and used by one thread at a time."""

    def __init__(self, path: Path, identity: tuple[int, int], busy_seconds: float, reading: bool) -> None:
        self._path = path
        self._identity = identity
        with _translated():
            address = f"{path.absolute().as_uri()}?mode=rw"
            self._database = sqlite3.connect(
                address, timeout=busy_seconds, isolation_level=None, check_same_thread=False, uri=True
            )
        self._busy = busy_seconds
        if reading:
            ends = time.monotonic() + _QUESTION_SECONDS
            self._database.set_progress_handler(lambda: time.monotonic() > ends, 1_000_000)
            self._database.execute("PRAGMA query_only = ON")

    def ask(self, statement: str, values: Values = ()) -> list[tuple[Any, ...]]:
        with _translated():
            return self._database.execute(statement, values).fetchall()

    def change(self, statement: str, values: Values = ()) -> int:
        with _translated():
            return self._database.execute(statement, values).rowcount

    def change_many(self, statement: str, rows: Sequence[Values]) -> None:
        with _translated():
            self._database.executemany(statement, rows)

    @contextlib.contextmanager
    def transaction(self, *, reading: bool = False) -> Iterator[None]:
        # Asking for the lock at once is what makes the busy timeout work.
        self.change("BEGIN" if reading else "BEGIN IMMEDIATE")
        try:
            yield
            self.change("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
            raise

    def only_one(self) -> None:
        """A writing transaction is alone already."""

    def has_table(self, name: str) -> bool:
        return bool(self.ask("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (name,)))

    def is_there(self) -> bool:
        """SQLite writes on into a file that somebody removed or replaced; nobody would ever read that."""
        try:
            return _identity(os.stat(self._path, follow_symlinks=False)) == self._identity
        except OSError:
            return False

    def is_sound(self) -> bool:
        try:
            return self.ask("PRAGMA quick_check(1)") == [("ok",)]
        except Damaged:
            return False

    def begin_writing(self) -> None:
        ends = time.monotonic() + self._busy
        while True:
            try:
                self.ask("PRAGMA journal_mode = WAL")
                break
            except Away:
                # The busy timeout does not hold for this: two processes that start at once would refuse each other.
                if time.monotonic() > ends:
                    raise
                time.sleep(0.01)
        self.change("PRAGMA synchronous = NORMAL")

    def settle(self) -> None:
        self.ask("PRAGMA wal_checkpoint(PASSIVE)")

    def interrupt(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._database.interrupt()

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._database.close()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except _MISFITS as error:
        raise Misfit(str(error)) from error
    except sqlite3.ProgrammingError as error:
        # Also what the binding of a value of an unknown type is called.
        raise (Misfit if "bind" in str(error) else Away)(str(error)) from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        raise (Damaged if code in _DAMAGED else Away)(str(error)) from error


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
