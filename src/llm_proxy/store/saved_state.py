"""What commands in the chat change for all, kept over restarts: values by option path, and failover routes (CFG-06).

Owns one JSON file, which is replaced as a whole and never the user's own. What the values mean and which other
source is stronger is the business of the configuration.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from llm_proxy.config.kinds import RouteSettings
from llm_proxy.config.load import assemble, load_settings
from llm_proxy.config.options import OptionGroup
from llm_proxy.config.settings import Saved, Settings

_LOG: Final = logging.getLogger(__name__)

VERSION: Final = 1
MAX_BYTES: Final = 16 * 1024 * 1024
_STALE: Final = 60.0
_WARN_EVERY: Final = 60.0


class _Document(msgspec.Struct, frozen=True):
    """The file."""

    version: int
    written_at: str = ""
    values: dict[str, Any] = {}
    failover_routes: dict[str, RouteSettings] = {}
    deleted_routes: list[str] = []


class _Version(msgspec.Struct, frozen=True):
    version: int


class Unreadable(Exception):
    """The file holds no saved state. Its text says why, in few words."""


class NewerVersion(Exception):
    """The file was written by a later version, which alone knows what it means."""


def read_saved(path: Path) -> Saved:
    """The content of a file; nothing where there is none. Raises `Unreadable` and `NewerVersion`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return Saved()
    except OSError as error:
        raise Unreadable(error.strerror or "it cannot be read") from None
    if len(data) > MAX_BYTES:
        raise Unreadable(f"it is larger than {MAX_BYTES} bytes")
    try:
        if msgspec.json.decode(data, type=_Version).version > VERSION:
            raise NewerVersion
        document = msgspec.json.decode(data, type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(str(error)) from None
    return Saved(document.values, document.failover_routes, frozenset(document.deleted_routes))


class SavedState:
    """Saved state in memory and, where there is a `path`, in its file.

    Changes are effective at once and written behind in one thread; several that come together are written
    once. A file that cannot be read is renamed, one of a later version is left alone; both cost a warning,
    found in `warnings`.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self.warnings: list[str] = []
        self._clock = clock
        self._warned = float("-inf")
        self._lock = threading.Lock()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="saved-state")
        self._job: Future[None] | None = None
        self._due = False
        self._on_disk = path is not None
        kept = self._read() if path is not None else Saved()
        self._values = dict(kept.values)
        self._routes = dict(kept.routes)
        self._deleted = set(kept.deleted_routes)

    @property
    def values(self) -> Mapping[str, object]:
        return self._values

    @property
    def routes(self) -> Mapping[str, RouteSettings]:
        return self._routes

    @property
    def deleted_routes(self) -> frozenset[str]:
        return frozenset(self._deleted)

    def apply(
        self,
        changes: Mapping[str, object | None],
        routes: Mapping[str, RouteSettings | None],
        file_routes: Container[str],
    ) -> None:
        """Makes changes; None removes. `file_routes` are those that exist without saved state: they are hidden."""
        with self._lock:
            for path, value in changes.items():
                if value is None:
                    self._values.pop(path, None)
                else:
                    self._values[path] = value
            for name, route in routes.items():
                if route is not None:
                    self._routes[name] = route
                    self._deleted.discard(name)
                    continue
                self._routes.pop(name, None)
                if name in file_routes:
                    self._deleted.add(name)
            if self.path is None:
                return
            self._due = True
            if self._job is None:
                self._job = self._writer.submit(self._write_due)

    async def written(self) -> bool:
        """Waits until all that was applied so far is on disk; False if it could not be written."""
        with self._lock:
            job = self._job
        # The job under way goes on until nothing is due, so it takes all of it along.
        if job is not None:
            await asyncio.wrap_future(job)
        return self._on_disk

    def close(self) -> None:
        """Writes what is due and ends the thread."""
        self._writer.shutdown(wait=True)

    def _write_due(self) -> None:
        while True:
            with self._lock:
                if not self._due:
                    self._job = None
                    return
                self._due = False
                document = self._document()
            try:
                self._write(document)
                self._on_disk = True
            except OSError as error:
                self._on_disk = False
                self._warn(f"saved state cannot be written to {self.path}: {error.strerror}; it is kept in memory")

    def _document(self) -> _Document:
        return _Document(
            VERSION,
            datetime.now(UTC).isoformat(timespec="seconds"),
            dict(self._values),
            dict(self._routes),
            sorted(self._deleted),
        )

    def _write(self, document: _Document) -> None:
        assert self.path is not None
        data = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, self.path)
        except OSError:
            with suppress(OSError):
                draft.unlink()
            raise
        _sync_directory(self.path.parent)

    def _warn(self, text: str) -> None:
        now = self._clock()
        if now - self._warned >= _WARN_EVERY:
            self._warned = now
            _LOG.warning("%s", text)

    def _read(self) -> Saved:
        assert self.path is not None
        _remove_drafts(self.path)
        try:
            return read_saved(self.path)
        except NewerVersion:
            self.warnings.append(
                f"{self.path} was written by a later version of llm-proxy: it is not used and not changed"
            )
            self.path, self._on_disk = None, False
        except Unreadable as error:
            bad = self.path.with_name(self.path.name + ".bad")
            try:
                os.replace(self.path, bad)
                self.warnings.append(f"{self.path} is no saved state ({error}); renamed to {bad.name}, started without")
            except OSError:
                self.warnings.append(f"{self.path} is no saved state ({error}); started without")
                self.path, self._on_disk = None, False
        return Saved()


def effective_settings(
    argv: Sequence[str], environ: Mapping[str, str], cwd: Path, groups: Sequence[type[OptionGroup]]
) -> Settings:
    """The settings with saved state, for commands that only look: no file is changed. Raises `ConfigError`."""
    settings = load_settings(argv, environ, cwd, groups)
    try:
        saved = read_saved(settings.state_file)
    except (Unreadable, NewerVersion):
        settings.warnings.append(f"{settings.state_file} cannot be used as saved state")
        return settings
    return assemble(settings.sources, saved)


def _remove_drafts(path: Path) -> None:
    """Drafts of processes that were killed; a young one may belong to another proxy on the same file."""
    with suppress(OSError):
        for draft in path.parent.glob(f".{path.name}.*.tmp"):
            if time.time() - draft.stat().st_mtime > _STALE:
                draft.unlink()


def _sync_directory(directory: Path) -> None:
    """The rename itself, where the system lets a directory be synchronised."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
