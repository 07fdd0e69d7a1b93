"""The thread that writes the wire capture, and the one door to it for everybody else.

The event loop only appends to a queue; decoding, cleaning, encoding and the disk are the thread's. A file that cannot be written costs
entries and one warning a minute, never a request. Outlives configurations: `configure` says what holds from now on.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from llm_proxy.store.behind import Outage
from llm_proxy.store.capture.file import CaptureFile, Limits
from llm_proxy.store.capture.heard import Heard
from llm_proxy.store.capture.lines import Clean, Lines, first_line
from llm_proxy.store.capture.waiting import Waiting

_LOG = logging.getLogger(__name__)
_CLOSE_SECONDS = 3.0
# The thread holds the interpreter while it makes lines; it steps aside often, so that no stream waits for it.
_WORK_SECONDS = 0.0003
_REST_SECONDS = 0.0002


class CaptureSettings(msgspec.Struct, frozen=True):
    """`path` is absolute. `buffer`: bytes that wake the thread; `interval`: seconds after which it looks anyway; `batch`: entries that
    are written together; `truncate`: bytes of a payload that are kept, 0 = all.
    """

    path: Path
    limits: Limits = Limits()
    buffer: int = 65536
    interval: float = 1.0
    batch: int = 100
    truncate: int = 0


class CaptureStatus(msgspec.Struct, frozen=True):
    """`file` "" when nothing is captured. `waiting` and `dropped` count entries; `failing` says why the file cannot be written."""

    file: str
    waiting: int
    waiting_bytes: int
    written: int
    dropped: int
    failing: str


class Capture:
    """`clean` takes every secret out of bytes; it is called in the thread. `clock` gives Unix seconds."""

    def __init__(self, clean: Clean, clock: Callable[[], float] = time.time, waiting: Waiting | None = None) -> None:
        self._clean = clean
        self._clock = clock
        self._waiting = Waiting() if waiting is None else waiting
        self._settings: CaptureSettings | None = None
        self._wake = threading.Event()
        self._reopen = False
        self._change: tuple[CaptureSettings | None, int] = (None, 0)
        """What holds, and the number of the last entry from before that."""
        self._ended = False
        self._thread: threading.Thread | None = None
        self._outage = Outage()
        self._failing = ""
        self._written = 0
        # The thread's own:
        self._in_force: CaptureSettings | None = None
        self._file: CaptureFile | None = None
        self._lines = Lines(clean)
        self._ready: deque[bytes] = deque()

    @property
    def on(self) -> bool:
        return self._settings is not None

    @property
    def status(self) -> CaptureStatus:
        settings = self._settings
        return CaptureStatus(
            file=str(settings.path) if settings is not None else "",
            waiting=len(self._waiting) + len(self._ready),
            waiting_bytes=self._waiting.bytes,
            written=self._written,
            dropped=self._waiting.dropped,
            failing=self._failing,
        )

    def configure(self, settings: CaptureSettings | None) -> None:
        """Holds for what is heard from now on; None captures nothing."""
        if settings == self._settings:
            return
        self._settings = settings
        self._change = (settings, self._waiting.number)
        if settings is not None and self._thread is None and not self._ended:
            self._take_over(settings)
            self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
            self._thread.start()
        self._wake.set()

    def reopen(self) -> None:
        """Another program may have moved the file."""
        self._reopen = True
        self._wake.set()

    def put(self, heard: Heard) -> None:
        """Returns at once. Call it only while `on`."""
        settings = self._settings
        if settings is None:
            return
        waiting = self._waiting
        before = waiting.bytes
        waiting.put(heard)
        if before < settings.buffer <= waiting.bytes:
            self._wake.set()

    async def close(self) -> None:
        """Writes what waits, but does not wait for ever for a slow disk."""
        await asyncio.to_thread(self.finish)

    def finish(self) -> None:
        self._ended = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_SECONDS)

    # What follows runs in the thread only.

    def _run(self) -> None:
        while True:
            settings = self._in_force or self._settings
            self._wake.wait(settings.interval if settings is not None else None)
            self._wake.clear()
            ended = self._ended
            try:
                self._turn()
            except Exception as error:  # the wall of this thread: nobody else would ever hear of it
                _LOG.exception("the capture failed")
                self._fail(str(error))
            if ended:
                if self._file is not None:
                    self._file.close()
                return

    def _turn(self) -> None:
        (wanted, last), reopen = self._change, self._reopen
        self._reopen = False
        if wanted != self._in_force:
            self._write_all(last)  # what was heard before belongs to the file that was in force then
            self._take_over(wanted)
        elif reopen and self._file is not None:
            self._file.close()
        self._write_all()

    def _take_over(self, settings: CaptureSettings | None) -> None:
        if self._file is not None:
            self._file.close()
        self._waiting.lost(len(self._ready))
        self._ready.clear()
        self._in_force, self._file = settings, None
        if settings is not None:
            self._file = CaptureFile(settings.path, settings.limits, lambda: first_line(self._clock()), self._clock)
            self._lines = Lines(self._clean, settings.truncate)
        else:
            self._waiting.clear()

    def _write_all(self, last: int | None = None) -> None:
        """Everything that waits, in batches, up to entry `last`. Ends early when the file cannot be written."""
        file, settings = self._file, self._in_force
        if file is None or settings is None:
            return
        try:
            while True:
                if not self._ready:
                    self._prepare(settings.batch, last)
                if not self._ready:
                    file.look()
                    break
                before = len(self._ready)
                try:
                    file.append(self._ready)
                finally:
                    self._written += before - len(self._ready)
                time.sleep(_REST_SECONDS)
        except OSError as error:
            self._fail(error.strerror or str(error))
            return
        self._failing = ""
        self._outage.over(f"the capture is written to {file.path} again")

    def _prepare(self, batch: int, last: int | None) -> None:
        """Makes lines of the next entries."""
        entries, dropped = self._waiting.take(batch, last)
        since = time.monotonic()
        for heard in entries:
            try:
                self._ready.append(self._lines.line(heard, dropped))
            except (ValueError, TypeError, RecursionError, msgspec.MsgspecError) as error:
                self._waiting.lost(1)
                self._outage.tell(f"an entry of the capture cannot be written ({error})")
            else:
                dropped = 0
            if time.monotonic() - since > _WORK_SECONDS:
                time.sleep(_REST_SECONDS)
                since = time.monotonic()

    def _fail(self, reason: str) -> None:
        self._failing = reason
        path = self._in_force.path if self._in_force is not None else ""
        self._outage.tell(f"the capture cannot be written to {path}: {reason}; requests are served all the same")
