"""Which database the option `usage_tracking.file_path` means."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from llm_proxy.store.ledger.database import Database
from llm_proxy.store.ledger.postgres import Postgres
from llm_proxy.store.ledger.sqlite_file import SqliteFile
from llm_proxy.store.sessions import StoreUnusable

FILE_NAME: Final = "usage.sqlite3"
_POSTGRES: Final = {"postgres", "postgresql", "postgresql+psycopg"}


def database_at(place: Path | str) -> Database:
    """The database in a file, in a directory (`usage.sqlite3` there), or at an address: `sqlite:///file`, `postgresql://user@host/name`.

    Raises StoreUnusable for an address of another kind, and when the library for it is missing.
    """
    if isinstance(place, Path) or "://" not in place:
        return SqliteFile(_file_of(Path(place)))
    parts = urlsplit(place)
    if parts.scheme == "sqlite" and not parts.netloc and len(parts.path) > 1:
        # As elsewhere: three slashes before a relative path, four before an absolute one.
        return SqliteFile(_file_of(Path(unquote(parts.path.removeprefix("/")))))
    if parts.scheme not in _POSTGRES:
        raise StoreUnusable(
            f"usage_tracking.file_path: an address begins with sqlite:/// or postgresql://, not {parts.scheme}://"
        )
    if find_spec("psycopg") is None:
        raise StoreUnusable(
            "usage_tracking.file_path names PostgreSQL: it needs a library, pip install 'llm-interactive-proxy[postgres]'"
        )
    return Postgres(place.replace(f"{parts.scheme}://", "postgresql://", 1))


def _file_of(path: Path) -> Path:
    """A directory, or a new path without extension, holds the file."""
    if path.is_dir() or (not path.suffix and not path.exists()):
        return path / FILE_NAME
    return path
