"""Values in this process only: bounded by number and by bytes, least recently used out first."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable


class MemoryStore:
    """`clock` gives wall-clock seconds. `max_entries` and `max_bytes` bound all spaces together."""

    def __init__(
        self,
        max_entries: int = 10_000,
        max_bytes: int = 64 * 1024 * 1024,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._entries: OrderedDict[tuple[str, str], tuple[float, bytes]] = OrderedDict()
        self._bytes = 0
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._clock = clock

    def get(self, space: str, key: str) -> bytes | None:
        entry = self._entries.get((space, key))
        if entry is None:
            return None
        if entry[0] <= self._clock():
            self.delete(space, key)
            return None
        self._entries.move_to_end((space, key))
        return entry[1]

    async def get_many(self, space: str, keys: Iterable[str]) -> dict[str, bytes]:
        return {key: value for key in keys if (value := self.get(space, key)) is not None}

    def put(self, space: str, key: str, value: bytes, ttl: float) -> None:
        self.delete(space, key)
        self._entries[(space, key)] = (self._clock() + ttl, value)
        self._bytes += len(value)
        while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
            _, (_, old) = self._entries.popitem(last=False)
            self._bytes -= len(old)

    def delete(self, space: str, key: str) -> None:
        entry = self._entries.pop((space, key), None)
        if entry is not None:
            self._bytes -= len(entry[1])

    async def close(self) -> None:
        return None
