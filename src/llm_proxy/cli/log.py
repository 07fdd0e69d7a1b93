"""Log lines leave the event loop at once and are written by a thread, several at a time: a terminal or pipe that nobody reads
stops no request, and a busy proxy is not woken for each line.

What does not fit into the bounded waiting room is dropped and counted in the next line that does.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from pathlib import Path

_MOST_WAITING = 10_000
_INTERVAL = 0.1  # seconds between two looks for new lines
_LAST_LINES = 2.0  # seconds that the end waits for a slow terminal


class LineWriter(logging.Handler):
    """Takes records from any thread; its own thread formats and writes them with `target`."""

    def __init__(self, target: logging.Handler) -> None:
        super().__init__()
        self._target = target
        self._waiting: deque[logging.LogRecord] = deque()
        self._dropped = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def createLock(self) -> None:
        self.lock = None  # a deque needs none

    def emit(self, record: logging.LogRecord) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            self._dropped += 1
            return
        # The text is made here, where its arguments still are what they were.
        record.msg, record.args = record.getMessage(), None
        if self._dropped:
            record.msg += f"  [{self._dropped} log lines before this one were dropped]"
            self._dropped = 0
        self._waiting.append(record)

    def flush(self) -> None:
        """Writes what is waiting, now, in the calling thread."""
        while True:
            try:
                record = self._waiting.popleft()
            except IndexError:
                return
            self._target.handle(record)

    def _write(self) -> None:
        ended = False
        while not ended:
            ended = self._end.wait(_INTERVAL)
            self.flush()

    def finish(self) -> None:
        """Writes what is due, but waits no longer than a moment for a terminal that takes nothing."""
        self._end.set()
        self._thread.join(_LAST_LINES)


def set_up(level: str, form: str, file: Path | None) -> LineWriter:
    """Sends all logging to `file`, or to standard error. The caller calls `finish` in the end."""
    target: logging.Handler = logging.FileHandler(file, encoding="utf-8") if file else logging.StreamHandler(sys.stderr)
    target.setFormatter(logging.Formatter(form))
    # What no line shows need not be found out for each (logging's own advice for speed).
    logging.logThreads = "%(thread" in form
    logging.logProcesses = "%(process" in form
    logging.logMultiprocessing = False
    writer = LineWriter(target)
    logging.basicConfig(level=level.upper(), handlers=[writer], force=True)
    for noisy in ("uvicorn", "asyncio", "aiohttp"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLogger().level))
    return writer
