"""PostgreSQL by psycopg 3, for those who install it (`pip install 'llm-interactive-proxy[postgres]'`).

Knows nothing of what is stored. The library is imported by the first connection, in the ledger's thread.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from llm_proxy.store.ledger.database import Away, Connection, Misfit, Values

_CONNECT_SECONDS: Final = 5
_WRITE_SECONDS: Final = 60
_QUESTION_SECONDS: Final = 30
_PLACE: Final = 7_311_042_197  # the advisory lock of migrations


class Postgres:
    """The database at `address`, `postgresql://user@host/name`. Passwords are better kept in `PGPASSWORD` or `~/.pgpass`."""

    def __init__(self, address: str) -> None:
        self._address = address

    @property
    def shown(self) -> str:
        parts = urlsplit(self._address)
        return f"postgresql://{parts.hostname or ''}{parts.path}"

    def exists(self) -> bool:
        return True

    def open(self, *, reading: bool = False) -> PostgresConnection:
        return PostgresConnection(self._address, reading)

    def set_aside(self, connection: Connection | None) -> str:
        raise Away("the server reports damage")


class PostgresConnection:
    """One connection; made and used by one thread at a time."""

    def __init__(self, address: str, reading: bool) -> None:
        self._library: Any = importlib.import_module("psycopg")
        with self._translated():
            self._database: Any = self._library.connect(
                address,
                autocommit=True,
                connect_timeout=_CONNECT_SECONDS,
                keepalives_idle=5,
                keepalives_interval=2,
                keepalives_count=3,
                tcp_user_timeout=10_000,
                application_name="llm-proxy",
            )
        limit = 1000 * (_QUESTION_SECONDS if reading else _WRITE_SECONDS)
        self.change(f"SET statement_timeout = {limit}")

    def ask(self, statement: str, values: Values = ()) -> list[tuple[Any, ...]]:
        with self._translated():
            found: list[tuple[Any, ...]] = self._database.execute(_own(statement), values or None).fetchall()
            return found

    def change(self, statement: str, values: Values = ()) -> int:
        with self._translated():
            return int(self._database.execute(_own(statement), values or None).rowcount)

    def change_many(self, statement: str, rows: Sequence[Values]) -> None:
        with self._translated(), self._database.cursor() as cursor:
            cursor.executemany(_own(statement), rows)

    @contextlib.contextmanager
    def transaction(self, *, reading: bool = False) -> Iterator[None]:
        self.change("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if reading else "BEGIN")
        try:
            yield
            self.change("COMMIT")
        except BaseException:
            with contextlib.suppress(self._library.Error):
                self._database.execute("ROLLBACK")
            raise

    def only_one(self) -> None:
        self.ask("SELECT pg_advisory_xact_lock(?)", (_PLACE,))

    def has_table(self, name: str) -> bool:
        # to_regclass answers from a cache that does not notice, within one transaction, what another process has just made.
        found = "SELECT 1 FROM pg_catalog.pg_tables WHERE tablename = ? AND schemaname = ANY (current_schemas(FALSE))"
        return bool(self.ask(found, (name,)))

    def is_there(self) -> bool:
        return not self._database.closed

    def is_sound(self) -> bool:
        return True

    def begin_writing(self) -> None:
        """Nothing to set."""

    def settle(self) -> None:
        """The server has its own checkpoints; what it confirmed is safe."""

    def interrupt(self) -> None:
        with contextlib.suppress(self._library.Error):
            self._database.cancel_safe(timeout=1.0)

    def close(self) -> None:
        with contextlib.suppress(self._library.Error):
            self._database.close()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        library = self._library
        try:
            yield
        except (library.DataError, library.IntegrityError, library.ProgrammingError) as error:
            # A missing table or right is for a person to mend; a value that does not fit never will.
            row = isinstance(error, library.DataError | library.IntegrityError) or "adapt" in str(error)
            raise (Misfit if row else Away)(str(error)) from error
        except library.Error as error:
            raise Away(str(error)) from error


def _own(statement: str) -> str:
    return statement.replace("?", "%s")
