"""The capture file on the disk: whole lines are appended, it is rotated by size, age and number, and all files together stay bounded.

Never splits, loses or doubles a line, also when another program renames or empties the file meanwhile. Used by one thread. Raises
OSError; what was not written then stays with the caller. Knows nothing of what the lines say.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

# A symbolic link under the name of the file could lead anywhere. Without O_NONBLOCK a named pipe would hold the thread for ever.
_FLAGS = (
    os.O_RDWR | os.O_APPEND | os.O_CREAT
    | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
)  # fmt: skip
_MOST_SHIFTED = 10_000
_LONGEST_FIRST_LINE = 4096


class Limits(msgspec.Struct, frozen=True):
    """Bytes and seconds; 0 = no limit, but for `files`: rotated files that are kept."""

    bytes: int = 0
    files: int = 5
    total: int = 0
    seconds: float = 0


class _FirstLine(msgspec.Struct):
    timestamp_unix: float


class CaptureFile:
    """`first_line` gives the line with which every file begins. `clock` gives Unix seconds."""

    def __init__(
        self, path: Path, limits: Limits, first_line: Callable[[], bytes], clock: Callable[[], float] = time.time
    ) -> None:
        self.path = path
        self.limits = limits
        self._first_line = first_line
        self._clock = clock
        self._descriptor = -1
        self._born = 0.0
        self._size = 0
        self._fresh = True
        """Has it nothing but its first line?"""
        self._torn = False
        """Does it end in half a line, which could not be taken back?"""
        self._rotated: list[int] = []
        """Sizes of `.1`, `.2` and so on."""

    def append(self, lines: deque[bytes]) -> None:
        """Writes and removes lines, each ending in a newline, from the left."""
        while lines:
            self._ready()
            if self._due():
                self._rotate()
                continue
            group = self._group(lines)
            if not group:
                self._rotate()
                continue
            self._make_room(sum(map(len, group)))
            self._write(group, lines)

    def look(self) -> None:
        """Rotates the file when its time has come, though nothing is to be written."""
        if self._descriptor >= 0:
            self._ready()
            if self._due():
                self._rotate()
                self._ready()

    def close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    # One file

    def _ready(self) -> None:
        """The file under the path is open, and begins with its first line."""
        if self._descriptor >= 0:
            own = os.fstat(self._descriptor)
            try:
                there = os.stat(self.path, follow_symlinks=False)
            except FileNotFoundError:
                there = None
            if there is None or (there.st_dev, there.st_ino) != (own.st_dev, own.st_ino):
                self.close()  # renamed or removed by somebody else
            elif own.st_size < self._size or own.st_size == 0:
                self._begin(own.st_size)  # emptied by somebody else
            else:
                self._size = own.st_size
        if self._descriptor < 0:
            self._open()

    def _open(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path, _FLAGS, 0o600)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", str(self.path))
            if found.st_mode & 0o077 and hasattr(os, "fchmod"):
                os.fchmod(descriptor, 0o600)
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self._rotated = self._sizes()
        self._begin(found.st_size)

    def _begin(self, size: int) -> None:
        """The open file has `size` bytes, of whatever origin."""
        self._size, self._fresh, self._torn = size, size == 0, False
        if size:
            first, newline, rest = self._read(0, _LONGEST_FIRST_LINE).partition(b"\n")
            self._fresh = bool(newline) and not rest
            self._torn = self._read(size - 1, 1) != b"\n"
            try:
                self._born = msgspec.json.decode(first, type=_FirstLine).timestamp_unix
            except msgspec.DecodeError:
                self._born = self._clock()
            return
        self._born = self._clock()
        self._write_all(self._first_line())

    def _read(self, at: int, length: int) -> bytes:
        os.lseek(self._descriptor, at, os.SEEK_SET)
        return os.read(self._descriptor, length)

    def _group(self, lines: deque[bytes]) -> list[bytes]:
        """The first lines that fit into the file together; at least one into a fresh one."""
        limit = self._limit
        group: list[bytes] = []
        size = self._size
        for line in lines:
            size += len(line)
            if limit and size > limit and (group or not self._fresh):
                break
            group.append(line)
        return group

    @property
    def _limit(self) -> int:
        """The size of one file, which is never more than all may have."""
        limits = self.limits
        return min(limits.bytes, limits.total) if limits.bytes and limits.total else limits.bytes

    def _write(self, group: list[bytes], lines: deque[bytes]) -> None:
        if self._torn:  # what follows shall be a line of its own
            self._write_all(b"\n")
            self._torn = False
        written = 0
        data = b"".join(group)
        try:
            while written < len(data):
                written += os.write(self._descriptor, data[written:] if written else data)
        finally:
            whole = 0
            for line in group:
                if whole + len(line) > written:
                    break
                whole += len(line)
                lines.popleft()
            self._size += whole
            self._fresh = self._fresh and not whole
            if whole < written:
                self._take_back()
                if self._torn and written - whole == len(lines[0]) - 1:
                    lines.popleft()  # the newline that comes before the next line makes it whole

    def _write_all(self, data: bytes) -> None:
        """Writes something short, or nothing of it."""
        written = os.write(self._descriptor, data)
        if written < len(data):
            self._take_back()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self._size += written

    def _take_back(self) -> None:
        """Half a line was written: it is cut off again, or marked as such."""
        try:
            os.ftruncate(self._descriptor, self._size)
        except OSError:
            self._torn = True
            with contextlib.suppress(OSError):
                self._size = os.fstat(self._descriptor).st_size

    # All files

    def _due(self) -> bool:
        seconds = self.limits.seconds
        return bool(seconds) and not self._fresh and self._clock() - self._born >= seconds

    def _sizes(self) -> list[int]:
        sizes: list[int] = []
        while len(sizes) < _MOST_SHIFTED:
            try:
                sizes.append(os.stat(self._name(len(sizes) + 1), follow_symlinks=False).st_size)
            except FileNotFoundError:
                break
        return sizes

    def _name(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _rotate(self) -> None:
        """The file becomes `.1`, older ones shift, those beyond the number are deleted. Each step leaves every line in one place."""
        self.close()
        keep = self.limits.files
        for number in range(len(self._sizes()), max(keep - 1, 0), -1):
            self._delete(number)
        if keep == 0:
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()
            return
        for number in range(len(self._sizes()), 0, -1):
            os.replace(self._name(number), self._name(number + 1))
        with contextlib.suppress(FileNotFoundError):
            os.replace(self.path, self._name(1))

    def _make_room(self, coming: int) -> None:
        """Deletes the oldest until all files together and what is coming keep to the limit."""
        total = self.limits.total
        while total and self._rotated and sum(self._rotated) + self._size + coming > total:
            self._delete(len(self._rotated))
            self._rotated.pop()

    def _delete(self, number: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._name(number).unlink()
