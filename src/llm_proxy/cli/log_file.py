"""The log's file: appended to, put aside when it is full, opened anew when somebody moved it.

Owns names, sizes and faults of files. Used by one thread. No fault leaves this file: what cannot be written is lost and counted, and a
person is told on standard error at most once a minute.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

_LOOK_SECONDS: Final = 1.0  # between two looks whether the name still leads to the open file
_TELL_SECONDS: Final = 60.0
_ALIASES: Final = ("/dev/", "/proc/")  # `/dev/stdout`: links of the system's own, which lead where the operator wants


class Terminal:
    """Standard error."""

    def __init__(self) -> None:
        self.lost = 0

    def write(self, lines: Sequence[str]) -> None:
        try:
            sys.stderr.write("".join([line + "\n" for line in lines]))
            sys.stderr.flush()
        except (OSError, ValueError):  # nobody is there any more
            self.lost += len(lines)

    def reopen(self) -> None:
        pass

    def close(self) -> None:
        pass


class LogFile:
    """`most_bytes` and `backups` are those of `logging.max_size_mb` and `logging.backup_count`; 0 bytes: never put aside."""

    def __init__(
        self,
        path: Path,
        most_bytes: int = 0,
        backups: int = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """Opens the file. Raises OSError."""
        self.path = path
        self.most_bytes = most_bytes
        self.backups = backups
        self.lost = 0
        self._clock = clock
        self._tell = _print if tell is None else tell
        self._told = clock() - _TELL_SECONDS
        self._descriptor = -1
        self._identity = (0, 0)
        self._looked = clock()
        self._size = 0
        self._regular = True
        self._torn = False
        self._open()

    def write(self, lines: Sequence[str]) -> None:
        """Appends lines, each whole in one file."""
        self._look()
        pieces: list[bytes] = []
        size = self._size
        for line in lines:
            piece = line.encode("utf-8", "backslashreplace") + b"\n"
            if self.most_bytes and size and size + len(piece) > self.most_bytes and self._regular:
                self._append(pieces)
                self._put_aside()
                pieces, size = [], self._size
            pieces.append(piece)
            size += len(piece)
        self._append(pieces)

    def reopen(self) -> None:
        """Takes the file that now has the name, as after another program has moved the one before."""
        try:
            self._open()
        except OSError as error:
            self._failed(error)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        """Raises OSError, and then the file from before stays open."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        if not str(self.path).startswith(_ALIASES):
            flags |= getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(self.path, flags, 0o600)
        self.close()
        found = os.fstat(descriptor)
        self._descriptor = descriptor
        self._identity = (found.st_dev, found.st_ino)
        self._size = found.st_size
        self._regular = stat.S_ISREG(found.st_mode) and not str(self.path).startswith(_ALIASES)
        self._torn = False

    def _look(self) -> None:
        """Another program may have moved or deleted the file; a disk may be back."""
        now = self._clock()
        if self._descriptor >= 0 and now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        if self._descriptor >= 0:
            if not self._regular:
                return
            try:
                found = os.lstat(self.path)
                if (found.st_dev, found.st_ino) == self._identity:
                    self._size = found.st_size  # somebody may have emptied it
                    return
            except OSError:
                pass
        self.reopen()

    def _append(self, pieces: Sequence[bytes]) -> None:
        if not pieces:
            return
        if self._descriptor < 0:
            self.lost += len(pieces)
            return
        data = memoryview((b"\n" if self._torn else b"") + b"".join(pieces))
        try:
            while data:
                written = os.write(self._descriptor, data)
                self._size += written
                data = data[written:]
        except OSError as error:
            rest = bytes(data)
            self._torn = self._torn or not rest.endswith(b"".join(pieces))
            self.lost += rest.count(b"\n")
            self._failed(error)
        else:
            self._torn = False

    def _put_aside(self) -> None:
        """`FILE` becomes `FILE.1`, and so on; what is beyond the number to keep goes."""
        try:
            beyond = max(1, self.backups)
            while os.path.lexists(old := self._name(beyond)):
                os.unlink(old)
                beyond += 1
            for number in range(self.backups - 1, 0, -1):
                if os.path.lexists(old := self._name(number)):
                    os.replace(old, self._name(number + 1))
            self.close()  # some systems rename no open file
            if self.backups:
                os.replace(self.path, self._name(1))
            else:
                os.unlink(self.path)
        except OSError as error:
            self._failed(error, "put aside")
            self._size = 0  # as much again is written before the next try
            if self._descriptor >= 0:
                return
        self.reopen()

    def _name(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _failed(self, error: OSError, what: str = "written") -> None:
        now = self._clock()
        if now - self._told < _TELL_SECONDS:
            return
        self._told = now
        lost = f"; {self.lost} lines are lost so far" if self.lost else ""
        self._tell(f"llm-proxy: the log file {self.path} cannot be {what}: {error.strerror or error}{lost}")


def _print(text: str) -> None:
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        return  # nobody is there to be told
