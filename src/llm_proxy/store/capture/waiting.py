"""What waits to be written: bounded in number and bytes. The event loop puts, one thread takes.

When it is full the oldest pieces of streams give way, for a request, a beginning or an end says more than they do. What is lost is
counted. Knows neither files nor lines.
"""

from __future__ import annotations

import threading
from collections import deque

from llm_proxy.store.capture.heard import Heard, Piece

MOST_ENTRIES = 10_000
MOST_BYTES = 16 * 1024 * 1024
_OVERHEAD = 200  # bytes of an entry beside its data, about


class Waiting:
    """First in, first out. A single entry may be larger than `most_bytes`, when nothing else waits."""

    def __init__(self, most_entries: int = MOST_ENTRIES, most_bytes: int = MOST_BYTES) -> None:
        self._most_entries = most_entries
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        # In two rows, so that the oldest piece is found at once.
        self._pieces: deque[tuple[int, Heard]] = deque()
        self._others: deque[tuple[int, Heard]] = deque()
        self.number = 0
        """Of the entry that came last; the numbers give the common order of both rows."""
        self.bytes = 0
        """Bytes that wait."""
        self._piece_bytes = 0
        self.dropped = 0
        """Entries lost since the start."""
        self._untold = 0

    def __len__(self) -> int:
        return len(self._pieces) + len(self._others)

    def put(self, heard: Heard) -> None:
        """Returns at once."""
        size = heard.size + _OVERHEAD
        with self._lock:
            self.number += 1
            if (
                self.bytes + size > self._most_bytes or len(self._pieces) + len(self._others) >= self._most_entries
            ) and not self._make_room(size):
                self._lose()
                return
            self.bytes += size
            if type(heard.what) is Piece:
                self._pieces.append((self.number, heard))
                self._piece_bytes += size
            else:
                self._others.append((self.number, heard))

    def take(self, most: int, last: int | None = None) -> tuple[list[Heard], int]:
        """The oldest entries, in order, and how many were lost since the last time that anything was taken. `last`: none after the one
        with that number.
        """
        taken: list[Heard] = []
        with self._lock:
            pieces, others = self._pieces, self._others
            while len(taken) < most and (pieces or others):
                row = pieces if pieces and (not others or pieces[0][0] < others[0][0]) else others
                if last is not None and row[0][0] > last:
                    break
                _, heard = row.popleft()
                self._forget(heard)
                taken.append(heard)
            if not taken:
                return taken, 0
            lost, self._untold = self._untold, 0
            return taken, lost

    def clear(self) -> None:
        with self._lock:
            self._pieces.clear()
            self._others.clear()
            self.bytes = self._piece_bytes = 0

    def lost(self, number: int) -> None:
        """So many entries were taken and could not be written."""
        with self._lock:
            self.dropped += number
            self._untold += number

    def _make_room(self, size: int) -> bool:
        """Lets the oldest pieces go until `size` more bytes fit; none where that would not help."""
        if self._others and (
            self.bytes - self._piece_bytes + size > self._most_bytes or len(self._others) >= self._most_entries
        ):
            return False
        while self._pieces and (self.bytes + size > self._most_bytes or len(self) >= self._most_entries):
            _, heard = self._pieces.popleft()
            self._forget(heard)
            self._lose()
        return True

    def _forget(self, heard: Heard) -> None:
        """It waits no more."""
        size = heard.size + _OVERHEAD
        self.bytes -= size
        if type(heard.what) is Piece:
            self._piece_bytes -= size

    def _lose(self) -> None:
        self.dropped += 1
        self._untold += 1
