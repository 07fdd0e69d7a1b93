"""Log lines leave the event loop at once and are written by a thread: a terminal or pipe that nobody reads stops no request.

What does not fit into the bounded queue is dropped and counted in the next line that does.
"""

from __future__ import annotations

import logging
import logging.handlers
import queue
import sys
import threading
from pathlib import Path

_MOST_WAITING = 10_000
_LAST_LINES = 2.0  # seconds


class _Handoff(logging.handlers.QueueHandler):
    """Puts records into the queue without waiting."""

    def __init__(self, records: queue.Queue[logging.LogRecord]) -> None:
        super().__init__(records)
        self._dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        # The text is made here, where its arguments are; no copy is needed, as nobody else sees the record.
        if record.exc_info:
            prepared: logging.LogRecord = super().prepare(record)
            return prepared
        record.msg, record.args = record.getMessage(), None
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self._dropped += 1
            return
        if self._dropped:
            record.msg = f"{record.msg}  [{self._dropped} log lines before this one were dropped]"
            self._dropped = 0


def finish(listener: logging.handlers.QueueListener) -> None:
    """Writes what is due, but waits no longer than a moment for a terminal that takes nothing."""
    stopper = threading.Thread(target=listener.stop, daemon=True)
    stopper.start()
    stopper.join(_LAST_LINES)


def set_up(level: str, form: str, file: Path | None) -> logging.handlers.QueueListener:
    """Sends all logging to `file`, or to standard error. The caller gives the listener to `finish`."""
    target: logging.Handler = (
        logging.FileHandler(file, encoding="utf-8") if file else logging.StreamHandler(sys.stderr)
    )
    target.setFormatter(logging.Formatter(form))
    records: queue.Queue[logging.LogRecord] = queue.Queue(_MOST_WAITING)
    logging.basicConfig(level=level.upper(), handlers=[_Handoff(records)], force=True)
    for noisy in ("uvicorn", "asyncio", "aiohttp"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLogger().level))
    listener = logging.handlers.QueueListener(records, target)
    listener.start()
    return listener
