"""The waiting room of the ledger: what was added and is not written yet, bounded by number and size; the oldest gives way.

Used by the event loop and the ledger's thread at once. Knows nothing of databases.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

MOST_ROWS: Final = 10_000
MOST_BYTES: Final = 16 * 1024 * 1024
_EPOCH_MICROSECONDS: Final = 1_577_836_800_000_000  # 2020: 51 bits of microseconds reach until 2091

T = TypeVar("T")
_TAG: Final = secrets.randbits(12)  # processes on one database, maybe of several machines, differ in it


class Waiting(Generic[T]):
    """Rows in the order in which they were added, each with its number: unique among all processes, ascending within one."""

    def __init__(self, size: Callable[[T], int], most_rows: int = MOST_ROWS, most_bytes: int = MOST_BYTES) -> None:
        self._size = size
        self._most_rows = most_rows
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._rows: deque[tuple[int, T, int]] = deque()
        self._underway: list[tuple[int, T, int]] = []
        self._bytes = 0
        self._last = 0
        self.dropped = 0
        """Rows that gave way since the start, or could not be stored."""

    def add(self, row: T) -> int:
        """How many are waiting now."""
        size = self._size(row)
        with self._lock:
            self._last = max(self._last + 1, time.time_ns() // 1000 - _EPOCH_MICROSECONDS)
            self._rows.append((self._last << 12 | _TAG, row, size))
            self._bytes += size
            self._bound()
            return len(self._rows)

    def take(self, most: int) -> list[tuple[int, T]]:
        """The oldest; they count as waiting until `done`, or are put back by `restore`."""
        with self._lock:
            rows = self._rows
            self._underway = [rows.popleft() for _ in range(min(most, len(rows)))]
            return [(number, row) for number, row, _ in self._underway]

    def done(self) -> None:
        with self._lock:
            self._bytes -= sum(size for _, _, size in self._underway)
            self._underway = []

    def restore(self) -> None:
        with self._lock:
            self._rows.extendleft(reversed(self._underway))
            self._underway = []
            self._bound()

    def all(self) -> list[T]:
        """Everything that is not written, the oldest first."""
        with self._lock:
            return [row for _, row, _ in (*self._underway, *self._rows)]

    def __len__(self) -> int:
        return len(self._rows) + len(self._underway)

    def _bound(self) -> None:
        while self._rows and (len(self) > self._most_rows or (self._bytes > self._most_bytes and len(self._rows) > 1)):
            self._bytes -= self._rows.popleft()[2]
            self.dropped += 1
