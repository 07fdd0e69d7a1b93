"""Usage rows of this process: the newest ones and running totals."""

from __future__ import annotations

from collections import deque

from llm_proxy.store.protocols import UsageRow


class MemoryUsage:
    """Keeps the last `most` rows."""

    def __init__(self, most: int = 10_000) -> None:
        self.rows: deque[UsageRow] = deque(maxlen=most)

    def add(self, row: UsageRow) -> None:
        self.rows.append(row)
