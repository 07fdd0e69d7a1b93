"""Session logs: one JSON Lines file for each session in the directory of `session.log_directory`, written by a thread of its own.

Owns the files, their names and modes. A directory that cannot be written costs lines and one warning a minute, never a request. Knows
nothing of what the records say.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from llm_proxy.store.behind import Outage

_MOST_WAITING = 2000
_CLOSE_SECONDS = 5.0
# A symbolic link under the name of a log could lead anywhere; where the system cannot refuse it, it is followed.
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_ENCODER = msgspec.json.Encoder(enc_hook=str)

Record = Mapping[str, Any]


def log_name(scope: str, id: str) -> str:
    """The file name: a hash, so that no id can name another place and no name tells whose session it is."""
    return hashlib.sha256(f"{scope}\n{id}".encode("utf-8", "surrogatepass")).hexdigest()[:32] + ".jsonl"


class SessionLog:
    """Appends records to the files in `directory`."""

    def __init__(self, directory: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._waiting: queue.Queue[tuple[str, Record] | None] = queue.Queue(_MOST_WAITING)
        self._outage = Outage(clock)
        self._thread = threading.Thread(target=self._run, name="session-log", daemon=True)
        self._thread.start()

    @property
    def directory(self) -> Path:
        return self._directory

    def add(self, scope: str, id: str, record: Record) -> None:
        """Returns at once. `record` must not be changed any more."""
        try:
            self._waiting.put_nowait((log_name(scope, id), record))
        except queue.Full:
            self._outage.tell(f"session logs: {self._directory} is too slow, lines are left out")

    async def close(self) -> None:
        """Writes what is waiting, but does not wait for ever for a slow disk."""
        await asyncio.to_thread(self._finish)

    def _finish(self) -> None:
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=_CLOSE_SECONDS)
        self._thread.join(_CLOSE_SECONDS)

    # What follows runs in the thread only.

    def _run(self) -> None:
        ended = False
        while not ended:
            files: dict[str, list[bytes]] = {}
            item = self._waiting.get()
            while item is not None:
                name, record = item
                try:
                    files.setdefault(name, []).append(_ENCODER.encode(record) + b"\n")
                except (TypeError, ValueError) as error:
                    self._outage.tell(f"session logs: a line cannot be written ({error})")
                try:
                    item = self._waiting.get_nowait()
                except queue.Empty:
                    break
            ended = item is None
            for name, lines in files.items():
                self._append(name, b"".join(lines))

    def _append(self, name: str, lines: bytes) -> None:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._directory / name, _FLAGS, 0o600)
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
            self._outage.tell(f"session logs cannot be written to {self._directory}: {error.strerror}")
        else:
            self._outage.over(f"session logs are written to {self._directory} again")
