"""Notices that files of the configuration have changed, by looking at them once a second from a thread of its own.

Owns when to tell, and never reads a file. What is told runs on the event loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from llm_proxy.config.sources import Stamp, stamp

INTERVAL: Final = 1.0
QUIET: Final = 0.25
"""A file that is being written is left alone until it has not changed for so long. Both in seconds."""


class FileWatch:
    """Calls `changed` on `loop` after any of the watched paths has changed, appeared or vanished.

    `stamps` are the paths with their states when they were read, so that no change since then is missed.
    """

    def __init__(
        self, stamps: Mapping[Path, Stamp], changed: Callable[[], object], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._changed = changed
        self._loop = loop
        self._lock = threading.Lock()
        self._seen = dict(stamps)
        self._unsettled = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="file-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; afterwards `changed` is not called any more, but for a call already on the loop."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def watch(self, stamps: Mapping[Path, Stamp]) -> None:
        """Other paths from now on: those of the settings that were just loaded."""
        with self._lock:
            self._seen = dict(stamps)
            self._unsettled = False

    def look(self) -> bool:
        """One look at every path. True if something has changed before this look and is quiet now."""
        with self._lock:
            now = {path: stamp(path) for path in self._seen}
            if now != self._seen:
                self._seen = now
                self._unsettled = True
                return False
            settled, self._unsettled = self._unsettled, False
            return settled

    def _run(self) -> None:
        while not self._stop.wait(QUIET if self._unsettled else INTERVAL):
            if not self.look():
                continue
            try:
                self._loop.call_soon_threadsafe(self._changed)
            except RuntimeError:
                return  # the loop has ended
