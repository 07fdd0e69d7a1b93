"""The audit log as a file: one JSON object a line, written by a thread of its own (OPS-09).

Owns the file and its mode. One that cannot be written costs lines and one warning a minute, never a request. Entries come without
secrets.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from llm_proxy.store.behind import Outage
from llm_proxy.store.records import AuditEntry
from llm_proxy.store.shown import audit_entry

_MOST_WAITING = 2000
_MOST_BYTES = 16 * 1024 * 1024
_CLOSE_SECONDS = 5.0
_FLAGS = (
    os.O_RDWR
    | os.O_APPEND
    | os.O_CREAT
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)


class AuditFile:
    """Appends entries to `path`. What a slow disk does not take is left out, and said."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._waiting: queue.Queue[bytes | None] = queue.Queue(_MOST_WAITING)
        self._bytes = 0
        self._lock = threading.Lock()
        self._outage = Outage(clock)
        self._thread = threading.Thread(target=self._run, name="audit-file", daemon=True)
        self._thread.start()

    @property
    def waiting_bytes(self) -> int:
        return self._bytes

    def add_entry(self, entry: AuditEntry) -> None:
        """Returns at once."""
        line = msgspec.json.encode(audit_entry(entry)) + b"\n"
        with self._lock:
            full = self._bytes + len(line) > _MOST_BYTES
            if not full:
                self._bytes += len(line)
        if not full:
            try:
                self._waiting.put_nowait(line)
                return
            except queue.Full:
                self._taken(len(line))
        self._outage.tell(f"audit log: {self.path} is too slow, lines are left out")

    async def close(self) -> None:
        """Writes what is waiting, but does not wait for ever for a slow disk."""
        await asyncio.to_thread(self._finish)

    def _finish(self) -> None:
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=_CLOSE_SECONDS)
        self._thread.join(_CLOSE_SECONDS)

    def _taken(self, size: int) -> None:
        with self._lock:
            self._bytes -= size

    # What follows runs in the thread only.

    def _run(self) -> None:
        ended = False
        while not ended:
            lines: list[bytes] = []
            item = self._waiting.get()
            while item is not None:
                lines.append(item)
                try:
                    item = self._waiting.get_nowait()
                except queue.Empty:
                    break
            ended = item is None
            if lines:
                data = b"".join(lines)
                self._append(data)
                self._taken(len(data))

    def _append(self, lines: bytes) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path, _FLAGS, 0o600)
            try:
                size = os.fstat(descriptor).st_size
                # A process that was killed may have left half a line.
                torn = size > 0 and os.lseek(descriptor, size - 1, os.SEEK_SET) >= 0 and os.read(descriptor, 1) != b"\n"
                rest = memoryview(b"\n" + lines if torn else lines)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            finally:
                os.close(descriptor)
        except OSError as error:
            self._outage.tell(f"the audit log cannot be written to {self.path}: {error.strerror}")
        else:
            self._outage.over(f"the audit log is written to {self.path} again")
