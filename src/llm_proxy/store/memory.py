"""Values in this process only: bounded by number and by bytes, least recently used out first."""

from __future__ import annotations

import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

_ENDS: Final = struct.Struct("<d")


class MemoryStore:
    """`clock` gives wall-clock seconds. `max_entries` and `max_bytes` bound all spaces together."""

    def __init__(
        self,
        max_entries: int = 10_000,
        max_bytes: int = 64 * 1024 * 1024,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._entries: OrderedDict[str, bytes] = OrderedDict()
        """By space, line break, key: when it ends, then the value. Entries live for seconds or minutes among objects that live for
        milliseconds; each of few objects, they leave few holes in memory behind."""
        self._bytes = 0
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._clock = clock

    def get(self, space: str, key: str) -> bytes | None:
        name = f"{space}\n{key}"
        entry = self._entries.get(name)
        if entry is None:
            return None
        if _ENDS.unpack_from(entry)[0] <= self._clock():
            self._remove(name)
            return None
        self._entries.move_to_end(name)
        return entry[_ENDS.size :]

    async def get_many(self, space: str, keys: Iterable[str]) -> dict[str, bytes]:
        return {key: value for key in keys if (value := self.get(space, key)) is not None}

    def put(self, space: str, key: str, value: bytes, ttl: float) -> None:
        name = f"{space}\n{key}"
        self._remove(name)
        entry = self._entries[name] = _ENDS.pack(self._clock() + ttl) + value
        self._bytes += len(entry)
        while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
            _, old = self._entries.popitem(last=False)
            self._bytes -= len(old)

    def delete(self, space: str, key: str) -> None:
        self._remove(f"{space}\n{key}")

    def _remove(self, name: str) -> None:
        if (entry := self._entries.pop(name, None)) is not None:
            self._bytes -= len(entry)

    async def close(self) -> None:
        return None
