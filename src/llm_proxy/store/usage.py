"""Usage and audit of this process only: the newest rows and entries. Also the reference for what a ledger answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from llm_proxy.store.records import AuditEntry, AuditFilter, UsageFilter, UsageRow, UsageStats, UsageTotals

MOST_SESSIONS = 100


class MemoryUsage:
    """Keeps the last `most` rows, and as many audit entries. Fulfils `UsageLedger` and `AuditLedger`."""

    def __init__(self, most: int = 10_000) -> None:
        self.rows: deque[UsageRow] = deque(maxlen=most)
        self.audit: deque[AuditEntry] = deque(maxlen=most)

    def add(self, row: UsageRow) -> None:
        self.rows.append(row)

    def add_entry(self, entry: AuditEntry) -> None:
        self.audit.append(entry)

    async def stats(self, wanted: UsageFilter) -> UsageStats:
        return stats_of([row for row in self.rows if matches(row, wanted)])

    async def recent(self, wanted: UsageFilter, limit: int) -> list[UsageRow]:
        found = [row for row in self.rows if matches(row, wanted)]
        return sorted(found, key=lambda row: row.time)[::-1][:limit]

    async def entries(self, wanted: AuditFilter, limit: int) -> tuple[list[AuditEntry], int]:
        found = [entry for entry in self.audit if is_wanted(entry, wanted)]
        return sorted(found, key=lambda entry: entry.time)[::-1][:limit], len(found)

    async def close(self) -> None:
        return None


def matches(row: UsageRow, wanted: UsageFilter) -> bool:
    return (
        (wanted.since is None or row.time >= wanted.since)
        and (wanted.until is None or row.time < wanted.until)
        and wanted.backend in (None, row.backend)
        and wanted.model in (None, row.model, row.model.partition(":")[2])
        and wanted.project in (None, row.project)
        and wanted.session in (None, row.session)
        and wanted.username in (None, row.username)
        and wanted.key_name in (None, row.key_name)
    )


def is_wanted(entry: AuditEntry, wanted: AuditFilter) -> bool:
    return (
        (wanted.start is None or entry.time >= wanted.start)
        and (wanted.end is None or entry.time < wanted.end)
        and wanted.username in (None, entry.user_name)
        and wanted.project in (None, entry.project)
        and wanted.session in (None, entry.session)
    )


def day_of(row: UsageRow) -> str:
    """The UTC date of a row."""
    return datetime.fromtimestamp(row.time, UTC).date().isoformat()


def stats_of(rows: Sequence[UsageRow]) -> UsageStats:
    def by(key: Callable[[UsageRow], str]) -> dict[str, UsageTotals]:
        groups: dict[str, list[UsageRow]] = {}
        for row in rows:
            groups.setdefault(key(row), []).append(row)
        return {name: totals_of(some) for name, some in sorted(groups.items())}

    sessions = by(lambda row: row.session)
    busiest = sorted(sessions, key=lambda name: (-sessions[name].total_tokens, name))[:MOST_SESSIONS]
    return UsageStats(
        totals=totals_of(rows),
        by_model=by(lambda row: row.model),
        by_backend=by(lambda row: row.backend),
        by_project=by(lambda row: row.project),
        by_key=by(lambda row: row.key_name),
        by_session={name: sessions[name] for name in busiest},
        by_day=list(by(day_of).items()),
        unpriced=sorted({row.model for row in rows if row.cost is None}),
    )


def totals_of(rows: Iterable[UsageRow]) -> UsageTotals:
    rows = list(rows)
    durations = sorted(row.duration_ms for row in rows)
    firsts = [row.ttft_ms for row in rows if row.ttft_ms is not None]
    costs = [row.cost for row in rows if row.cost is not None]
    return UsageTotals(
        requests=len(rows),
        errors=sum(row.status >= 400 for row in rows),
        prompt_tokens=sum(row.prompt for row in rows),
        completion_tokens=sum(row.completion for row in rows),
        total_tokens=sum(row.prompt + row.completion for row in rows),
        cached_tokens=sum(row.cache_read for row in rows),
        reasoning_tokens=sum(row.reasoning for row in rows),
        cost=sum(costs) if costs else None,
        unpriced_requests=len(rows) - len(costs),
        avg_duration_ms=sum(durations) / len(durations) if durations else None,
        p95_duration_ms=durations[int(0.95 * (len(durations) - 1))] if durations else None,
        avg_ttft_ms=sum(firsts) / len(firsts) if firsts else None,
    )
