"""What the rest of the product expects of a store."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from llm_proxy.store.records import AuditEntry, AuditFilter, UsageFilter, UsageRow, UsageStats


class ValueStore(Protocol):
    """Bounded values by (space, key), each with a time to live. A failing store loses values, never a request."""

    async def get_many(self, space: str, keys: Iterable[str]) -> dict[str, bytes]:
        """The values that exist and have not expired."""

    def put(self, space: str, key: str, value: bytes, ttl: float) -> None:
        """Keeps `value` for `ttl` seconds. Returns at once; durable engines write behind."""

    def delete(self, space: str, key: str) -> None: ...

    async def close(self) -> None:
        """Writes what is still due."""


class UsageSink(Protocol):
    """Takes rows. Never blocks and never fails the request."""

    def add(self, row: UsageRow) -> None: ...


class UsageLedger(UsageSink, Protocol):
    """Rows that can be asked for. What was added before a question is in its answer."""

    async def stats(self, wanted: UsageFilter) -> UsageStats: ...

    async def recent(self, wanted: UsageFilter, limit: int) -> list[UsageRow]:
        """The newest `limit` rows, the newest first."""


class AuditLedger(Protocol):
    """Keeps audit entries; adding never blocks and never fails."""

    def add_entry(self, entry: AuditEntry) -> None: ...

    async def entries(self, wanted: AuditFilter, limit: int) -> tuple[list[AuditEntry], int]:
        """The newest `limit` entries, the newest first, and how many there are in all."""
