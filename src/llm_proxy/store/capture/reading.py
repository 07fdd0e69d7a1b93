"""Reads captures again: the file and those it was rotated into, oldest first, with a torn or foreign line passed over and counted.

Owns finding and following the files. What a line means is its reader's business; payloads stay undecoded until somebody wants them.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

_BLOCK = 1 << 20
_TRIES = 20


class Line(msgspec.Struct, frozen=True):
    """One entry as it was written. `raw` is the whole line without its newline."""

    direction: str
    timestamp_unix: float = 0.0
    timestamp_iso: str = ""
    source: str = ""
    destination: str = ""
    session_id: str = ""
    backend: str = ""
    model: str = ""
    key_name: str = ""
    content_type: str = ""
    content_length: int = 0
    payload: msgspec.Raw = msgspec.Raw(b"null")
    metadata: dict[str, Any] = {}
    raw: bytes = b""

    @property
    def value(self) -> Any:
        return msgspec.json.decode(self.payload)


_decode = msgspec.json.Decoder(Line).decode


def read_line(raw: bytes) -> Line | None:
    """The entry; None for what is none."""
    try:
        return msgspec.structs.replace(_decode(raw), raw=raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def files(path: Path) -> list[Path]:
    """What there is of the capture at `path`, the oldest first."""
    pattern = re.compile(re.escape(path.name) + r"\.([0-9]{1,9})")
    numbered: list[tuple[int, Path]] = []
    with contextlib.suppress(OSError):
        for entry in path.parent.iterdir():
            if found := pattern.fullmatch(entry.name):
                numbered.append((int(found[1]), entry))
    rotated = [entry for _, entry in sorted(numbered, reverse=True)]
    return [*rotated, path] if path.exists() else rotated


def opened(path: Path) -> list[BinaryIO]:
    """The files of the capture at `path`, open, the oldest first: none left out or twice, though it may be rotated just now."""
    for left in reversed(range(_TRIES)):
        found: list[BinaryIO] = []
        for name in files(path):
            with contextlib.suppress(FileNotFoundError):
                found.append(name.open("rb"))
        if [_identity(os.fstat(file.fileno())) for file in found] == _identities(path) or not left:
            return found
        for file in found:
            file.close()
    return []


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _identities(path: Path) -> list[tuple[int, int]]:
    found = []
    for name in files(path):
        with contextlib.suppress(FileNotFoundError):
            found.append(_identity(name.stat()))
    return found


class Reading:
    """All entries of the capture at `path`, once. `torn` counts lines that are none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.torn = 0

    def __iter__(self) -> Iterator[Line]:
        with contextlib.ExitStack() as stack:
            for file in [stack.enter_context(file) for file in opened(self._path)]:
                for raw in file:
                    if raw.strip() and (line := self.line(raw)) is not None:
                        yield line

    def line(self, raw: bytes) -> Line | None:
        line = read_line(raw.rstrip(b"\r\n"))
        if line is None:
            self.torn += 1
        return line

    @property
    def damaged(self) -> str:
        """What there is to say of them; "" when there were none."""
        if not self.torn:
            return ""
        return f"{self.torn} line{'s' * (self.torn > 1)} cannot be read and {'are' if self.torn > 1 else 'is'} left out"


class Following:
    """New lines of the capture at `path` as they are written, also when it is rotated, renamed or emptied meanwhile.

    `poll` gives what is new and returns; `lines` goes on for ever and waits in between.
    """

    def __init__(self, path: Path, *, from_start: bool = False) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""
        self._due = opened(path)
        if not from_start:
            for older in self._due[:-1]:
                older.close()
            self._due = self._due[-1:] if path.exists() else []
            if (file := self._next()) is not None:
                file.seek(0, os.SEEK_END)

    def close(self) -> None:
        for file in (self._file, *self._due):
            if file is not None:
                file.close()
        self._file, self._due = None, []

    def lines(self, wait: Callable[[float], object] = time.sleep) -> Iterator[bytes]:
        while True:
            found = False
            for raw in self.poll():
                found = True
                yield raw
            if not found:
                wait(0.2)

    def poll(self) -> Iterator[bytes]:
        while (file := self._next()) is not None:
            yield from self._read(file)
            if self._current(file):
                return
            yield from self._read(file)  # what came between the two looks
            self._leave(file)

    def _next(self) -> BinaryIO | None:
        """The file to read on in; None while there is none."""
        if self._file is None:
            if not self._due:
                self._due = opened(self._path)
            if self._due:
                self._file, self._rest = self._due.pop(0), b""
        return self._file

    def _read(self, file: BinaryIO) -> Iterator[bytes]:
        if os.fstat(file.fileno()).st_size < file.tell():
            file.seek(0)  # emptied
            self._rest = b""
        while block := file.read(_BLOCK):
            *lines, self._rest = (self._rest + block).split(b"\n")
            yield from (line for line in lines if line)

    def _current(self, file: BinaryIO) -> bool:
        """Is what is being read still the file under the path?"""
        if self._due:
            return False
        try:
            return _identity(self._path.stat()) == _identity(os.fstat(file.fileno()))
        except FileNotFoundError:
            return True  # between two names; the next look tells

    def _leave(self, file: BinaryIO) -> None:
        """What was read is an older file now: those after it follow, none of them twice."""
        if not self._due:
            own = _identity(os.fstat(file.fileno()))
            there = opened(self._path)
            at = next((at for at, one in enumerate(there) if _identity(os.fstat(one.fileno())) == own), -1)
            for one in there[: at + 1]:
                one.close()
            self._due = there[at + 1 :]
        file.close()
        self._file = None
