"""Writing behind: what still waits for a store that is slow or away, and how often a person hears of it.

Owns the waiting room and the warnings of an outage. Knows neither engines nor what the values mean. `Due` may be used from the event
loop and from a writer's thread at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

_LOG = logging.getLogger(__name__)
_WARN_SECONDS = 60.0
MOST_WAITING_BYTES = 64 * 1024 * 1024

K = TypeVar("K")
V = TypeVar("V")


class Due(Generic[K, V]):
    """The newest value of each key that is not written yet; None is a deletion. Bounded: the oldest gives way, and is counted."""

    def __init__(self, size: Callable[[V], int], most_bytes: int = MOST_WAITING_BYTES) -> None:
        self._size = size
        self._most = most_bytes
        self._lock = threading.Lock()
        self._waiting: OrderedDict[K, V | None] = OrderedDict()
        self._underway: dict[K, V | None] = {}
        self._bytes = 0
        self.dropped = 0

    def put(self, key: K, value: V | None) -> bool:
        """True when nothing was waiting before: somebody should be woken."""
        with self._lock:
            first = not self._waiting
            self._remove(key)
            self._add(key, value)
            return first

    def get(self, key: K) -> tuple[bool, V | None]:
        """Whether something waits for `key`, and what (None: it is to be deleted)."""
        with self._lock:
            for place in (self._waiting, self._underway):
                if key in place:
                    return True, place[key]
        return False, None

    def take(self) -> dict[K, V | None]:
        """Everything that waits; it stays readable until `done` or `restore`."""
        with self._lock:
            self._underway, self._waiting, self._bytes = dict(self._waiting), OrderedDict(), 0
            return self._underway

    def done(self) -> None:
        with self._lock:
            self._underway = {}

    def restore(self) -> None:
        """What was taken could not be written: it waits again, in front, unless something newer waits already."""
        with self._lock:
            newer, self._waiting, self._bytes = self._waiting, OrderedDict(), 0
            for key, value in {**self._underway, **newer}.items():
                self._add(key, value)
            self._underway = {}

    def clear(self) -> None:
        with self._lock:
            self._waiting, self._underway, self._bytes = OrderedDict(), {}, 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._underway)

    def _add(self, key: K, value: V | None) -> None:
        self._waiting[key] = value
        self._bytes += self._weight(value)
        while self._bytes > self._most and len(self._waiting) > 1:
            _, old = self._waiting.popitem(last=False)
            self._bytes -= self._weight(old)
            self.dropped += 1

    def _remove(self, key: K) -> None:
        if key in self._waiting:
            self._bytes -= self._weight(self._waiting.pop(key))

    def _weight(self, value: V | None) -> int:
        return 200 + (0 if value is None else self._size(value))


class Outage:
    """Tells a person at most once a minute that something does not work, and once that it works again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: float | None = None
        self._untold = 0
        self.lasts = False

    def tell(self, text: str) -> None:
        now = self._clock()
        self.lasts = True
        if self._told is not None and now - self._told < _WARN_SECONDS:
            self._untold += 1
            return
        again = f" ({self._untold} more times since the last such line)" if self._untold else ""
        self._told, self._untold = now, 0
        _LOG.warning("%s%s", text, again)

    def over(self, text: str) -> None:
        if self.lasts:
            self.lasts = False
            _LOG.info("%s", text)
