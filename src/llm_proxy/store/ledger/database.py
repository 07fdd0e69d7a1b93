"""What the ledger asks of a database, and what can go wrong with one.

One file per kind of database fulfils this (`sqlite_file.py`, `postgres.py`). All statements of the ledger are written once, in the SQL that
these understand alike, with `?` for values.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

Values = Sequence[Any]


class Away(Exception):
    """The database cannot be used now: locked, full, read-only, not reachable. It is tried again later."""


class Damaged(Exception):
    """What is stored is no database any more."""


class Misfit(Exception):
    """One of the rows can never be stored, however often it is tried."""


class NewerSchema(Exception):
    """A newer version of the proxy has been at work here: this one must not touch it."""

    def __init__(self, found: int, known: int) -> None:
        super().__init__(
            f"it was written by a newer version of the proxy (schema {found}, this one knows {known}); "
            "use that version, or another file"
        )


class Connection(Protocol):
    """Every method raises Away, Damaged or Misfit and nothing else that comes from the database."""

    def ask(self, statement: str, values: Values = ()) -> list[tuple[Any, ...]]: ...

    def change(self, statement: str, values: Values = ()) -> int:
        """How many rows were changed."""

    def change_many(self, statement: str, rows: Sequence[Values]) -> None: ...

    def transaction(self, *, reading: bool = False) -> AbstractContextManager[None]:
        """All or nothing; with `reading`, all questions see the same rows."""

    def only_one(self) -> None:
        """Within a transaction: waits until no other process is at this place, and keeps them out until it ends."""

    def has_table(self, name: str) -> bool: ...

    def is_there(self) -> bool:
        """Is it, or was it until it was closed, what others would open?"""

    def is_sound(self) -> bool:
        """Looks for damage. Takes seconds for a large database."""

    def begin_writing(self) -> None:
        """Sets what a writer needs. Not before it is known that this version may write here."""

    def settle(self) -> None:
        """Puts what was written where a loss of power cannot reach it."""

    def interrupt(self) -> None:
        """From another thread: what is going on ends soon, with Away. May wait a second."""

    def close(self) -> None: ...


class Database(Protocol):
    @property
    def shown(self) -> str:
        """Where it is, for people: without passwords."""

    def exists(self) -> bool:
        """May there be something to read?"""

    def open(self, *, reading: bool = False) -> Connection:
        """A new connection; without `reading` what is missing is made."""

    def set_aside(self, connection: Connection | None) -> str:
        """Moves a damaged database away, so that the next `open` makes a new one; the name that it has now. Raises Away."""
