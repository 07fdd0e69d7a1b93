"""A credentials file of a vendor's CLI on the disk: found, read while others may be writing it, and replaced whole (BE-14, S-16).

Owns files and their bytes, all of it blocking: callers go through a thread. Knows no vendor, no clock of tokens and no network.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

LARGEST: Final = 1024 * 1024
"""Bytes of a credentials file; vendors write a few thousand."""

HALF_WRITTEN_TRIES: Final = 3
HALF_WRITTEN_PAUSE: Final = 0.05
"""How often, and after how many seconds, a file is read again that another program seems to be writing."""


class Unreadable(Exception):
    """A login that cannot be used; the text says why, in words that follow the file's name, without any secret."""


class Stamp(msgspec.Struct, frozen=True):
    """What changes when a file is replaced or written, but for changes of the same length within the clock's grain."""

    size: int
    modified_ns: int
    inode: int


class Document(msgspec.Struct, frozen=True):
    """What a file held at one moment. `path` is None where no candidate exists. `problem`: why `members` are not known ("" = they are)."""

    path: Path | None = None
    stamp: Stamp | None = None
    digest: bytes = b""
    members: dict[str, Any] | None = None
    problem: str = ""
    open_to_others: bool = False


def find(candidates: Sequence[Path]) -> Path | None:
    """The first candidate that is there, whatever it is. A directory counts last, and not at all if another candidate lies in it."""
    directory = None
    for path in candidates:
        try:
            if not stat.S_ISDIR(os.stat(path).st_mode):
                return path
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                return path
            continue
        if directory is None and all(path != other.parent for other in candidates):
            directory = path
    return directory


def stamp_of(path: Path) -> Stamp | None:
    """The file's state now; None if it is not there or may not be looked at."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return Stamp(found.st_size, found.st_mtime_ns, found.st_ino)


def read_document(candidates: Sequence[Path], pause: Callable[[float], object] = time.sleep) -> Document:
    """The first candidate that exists. What does not read as a JSON object is read again, because a CLI may just be writing it."""
    document = _read_once(candidates)
    for _ in range(HALF_WRITTEN_TRIES):
        if document.members is not None or document.stamp is None:
            break
        pause(HALF_WRITTEN_PAUSE)
        document = _read_once(candidates)
    return document


def _read_once(candidates: Sequence[Path]) -> Document:
    path = find(candidates)
    if path is None:
        return Document(problem="does not exist")
    try:
        # Looked at before it is opened, because opening a device may do something; a pipe without a writer would make the open wait.
        if not stat.S_ISREG(os.stat(path).st_mode):
            return Document(path=path, problem="is no regular file")
        with open(path, "rb", opener=_without_waiting) as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                return Document(path=path, problem="is no regular file")
            data = file.read(LARGEST + 1)
    except FileNotFoundError:
        return Document(problem="does not exist")
    except PermissionError:
        return Document(path=path, problem=f"may not be read by this user; `chmod 600 {path}` as its owner mends that")
    except OSError as error:
        return Document(path=path, problem=f"cannot be read: {os.strerror(error.errno or 0)}")
    document = Document(
        path=path,
        stamp=Stamp(state.st_size, state.st_mtime_ns, state.st_ino),
        digest=hashlib.sha256(data).digest(),
        open_to_others=os.name == "posix" and bool(state.st_mode & (stat.S_IRWXG | stat.S_IRWXO)),
    )
    if len(data) > LARGEST:
        return msgspec.structs.replace(document, problem="is too large for a credentials file")
    try:
        members = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return msgspec.structs.replace(document, problem="holds no complete JSON" if data else "is empty")
    if not isinstance(members, dict):
        return msgspec.structs.replace(document, problem="holds no JSON object")
    return msgspec.structs.replace(document, members=members)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


def merged(members: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`members` with `values` laid over them, map by map; everything else stays as it was."""
    found = dict(members)
    for name, value in values.items():
        below = found.get(name)
        found[name] = merged(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return found


class Replacement:
    """A file that takes the place of `path` in one step. It is opened before the token endpoint is asked, so that a login which could
    not be kept is never renewed: the provider may have forgotten the old one by then.

    `path` itself may be a link: what it leads to is replaced. Mode 0600 from the first byte on. The owner stays who it was: where that
    is not allowed nothing is replaced, or the CLI could not read its own login any more. Raises OSError.
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(os.path.realpath(path))
        # One name, because only the holder of the lock writes it: what a killed process left is not added to.
        self._beside = self._path.with_name(f".{self._path.name}.llm-proxy.new")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._beside)
        self._file: int | None = os.open(self._beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            self._keep_owner(self._file)
        except OSError:
            self.drop()
            raise

    def _keep_owner(self, file: int) -> None:
        if os.name != "posix":
            return
        owner, own = os.stat(self._path), os.fstat(file)
        if owner.st_uid != own.st_uid:
            os.fchown(file, owner.st_uid, owner.st_gid)
        elif owner.st_gid != own.st_gid:
            with contextlib.suppress(OSError):  # mode 0600: the group has no say
                os.fchown(file, -1, owner.st_gid)

    def fill(self, members: Mapping[str, Any]) -> None:
        """Write all of it to the disk, still beside the file."""
        assert self._file is not None
        data = memoryview(msgspec.json.format(msgspec.json.encode(members), indent=2) + b"\n")
        os.lseek(self._file, 0, os.SEEK_SET)
        os.ftruncate(self._file, 0)
        while data:
            data = data[os.write(self._file, data) :]
        if os.name == "posix":
            os.fchmod(self._file, 0o600)
        os.fsync(self._file)

    def place(self) -> None:
        """Now it is the file."""
        self._close()
        os.replace(self._beside, self._path)
        if os.name == "posix":
            with contextlib.suppress(OSError):
                directory = os.open(self._path.parent, os.O_RDONLY)
                try:
                    os.fsync(directory)
                finally:
                    os.close(directory)

    def drop(self) -> None:
        """Nothing is left of it, unless it was placed."""
        if self._file is not None:
            self._close()
        with contextlib.suppress(OSError):
            os.unlink(self._beside)

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
