"""What can be asked of the ledger, as statements, and how their answers become the records of `store/records.py`.

The filters are bound values, never text. Percentiles come from classes of durations (`rows.bucket_of`) that the same pass counts: exact
where a class holds one or two rows of a group, within a few percent of a class's width else. Sorting every row for each group instead
took twice as long on a million rows. Every question also takes `waiting`: what is not written yet, because the database cannot be written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import Any, Final

from llm_proxy.store.ledger.database import Connection
from llm_proxy.store.ledger.rows import (
    AUDIT_COLUMNS,
    DAY,
    USAGE_COLUMNS,
    audit_entry,
    bucket_of,
    fitting,
    usage_row,
)
from llm_proxy.store.records import AuditEntry, AuditFilter, UsageFilter, UsageRow, UsageStats, UsageTotals
from llm_proxy.store.usage import MOST_SESSIONS, is_wanted, matches

_MOST_VALUES: Final = 500
_DAY_ONE: Final = date(1970, 1, 1)
# Sums of whole numbers are of an arbitrary type in PostgreSQL unless one asks for 64 bits.
_FIGURES: Final = ", ".join(
    [
        "bucket",
        "COUNT(*)",
        "COUNT(CASE WHEN status >= 400 THEN 1 END)",
        *(f"CAST(SUM({name}) AS BIGINT)" for name in ("prompt", "completion", "cache_read", "reasoning")),
        "COUNT(cost)",
        "SUM(cost)",
        "SUM(duration_ms)",
        "COUNT(ttft_ms)",
        "SUM(ttft_ms)",
        "MIN(duration_ms)",
        "MAX(duration_ms)",
    ]
)


class _Group:
    """Sums over some rows, and how many of them lie in each class of durations."""

    __slots__ = ("classes", "sums")

    def __init__(self) -> None:
        self.sums: list[Any] = [0] * 11
        self.classes: dict[int, tuple[int, float, float]] = {}

    def add(self, figures: Sequence[Any]) -> None:
        """`figures`: what `_FIGURES` selects."""
        bucket, low, high = figures[0], figures[12], figures[13]
        self.sums = [have + (more or 0) for have, more in zip(self.sums, figures[1:12], strict=True)]
        count: int = figures[1]
        if (known := self.classes.get(bucket)) is not None:
            count, low, high = count + known[0], min(low, known[1]), max(high, known[2])
        self.classes[bucket] = (count, low, high)

    def totals(self) -> UsageTotals:
        requests, errors, prompt, completion, cached, reasoning, priced, cost, duration, firsts, first = self.sums
        return UsageTotals(
            requests=requests,
            errors=errors,
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
            cached_tokens=cached,
            reasoning_tokens=reasoning,
            cost=cost if priced else None,
            unpriced_requests=requests - priced,
            avg_duration_ms=duration / requests if requests else None,
            p95_duration_ms=self._duration_at(int(0.95 * (requests - 1))) if requests else None,
            avg_ttft_ms=first / firsts if firsts else None,
        )

    def _duration_at(self, rank: int) -> float:
        """The duration that `rank` rows of the group are below or equal to; between the ends of a class, in proportion."""
        for _, (count, low, high) in sorted(self.classes.items()):
            if rank < count:
                return float(low + (high - low) * rank / (count - 1)) if count > 1 else float(low)
            rank -= count
        raise AssertionError("a rank beyond the number of rows")


def stats(connection: Connection, wanted: UsageFilter, waiting: Callable[[], Sequence[UsageRow]]) -> UsageStats:
    where, values = _usage_where(wanted)
    everything = _Group()
    models: dict[str, _Group] = {}
    backends: dict[str, _Group] = {}
    projects: dict[str, _Group] = {}
    keys: dict[str, _Group] = {}
    days: dict[int, _Group] = {}
    sessions: dict[str, _Group] = {}
    with connection.transaction(reading=True):
        for backend, model, *figures in _figures(connection, "backend, model", where, values):
            everything.add(figures)
            backends.setdefault(backend, _Group()).add(figures)
            models.setdefault(model, _Group()).add(figures)
        for project, key, *figures in _figures(connection, "project, key_name", where, values):
            projects.setdefault(project, _Group()).add(figures)
            keys.setdefault(key, _Group()).add(figures)
        for day, *figures in _figures(connection, "day", where, values):
            days.setdefault(day, _Group()).add(figures)
        busiest = connection.ask(
            f"SELECT session, CAST(SUM(prompt + completion) AS BIGINT) AS tokens FROM usage{where} "
            f"GROUP BY session ORDER BY tokens DESC, session LIMIT {MOST_SESSIONS}",
            values,
        )
        # Looked at after the database, so that a row that is being written is not counted twice.
        unwritten = [row for row in waiting() if matches(row, wanted)]
        asked = list(dict.fromkeys([*(session for session, _ in busiest), *(row.session for row in unwritten)]))
        for start in range(0, len(asked), _MOST_VALUES):
            names = asked[start : start + _MOST_VALUES]
            some = f"{where} {'AND' if where else 'WHERE'} session IN ({', '.join('?' * len(names))})"
            for session, *figures in _figures(connection, "session", some, [*values, *names]):
                sessions.setdefault(session, _Group()).add(figures)
    for row in unwritten:
        everything.add(_figures_of(row))
        for groups, name in (
            (backends, row.backend),
            (models, row.model),
            (projects, row.project),
            (keys, row.key_name),
            (sessions, row.session),
        ):
            groups.setdefault(name, _Group()).add(_figures_of(row))
        days.setdefault(int(row.time // DAY), _Group()).add(_figures_of(row))
    by_session = _named(sessions)
    first = sorted(by_session, key=lambda name: (-by_session[name].total_tokens, name))[:MOST_SESSIONS]
    return UsageStats(
        totals=everything.totals(),
        by_model=_named(models),
        by_backend=_named(backends),
        by_project=_named(projects),
        by_key=_named(keys),
        by_session={name: by_session[name] for name in first},
        by_day=[((_DAY_ONE + timedelta(days=day)).isoformat(), group.totals()) for day, group in sorted(days.items())],
        unpriced=sorted(name for name, group in models.items() if group.totals().unpriced_requests),
    )


def recent(
    connection: Connection, wanted: UsageFilter, limit: int, waiting: Callable[[], Sequence[UsageRow]]
) -> list[UsageRow]:
    where, values = _usage_where(wanted)
    statement = f"SELECT {USAGE_COLUMNS} FROM usage{where} ORDER BY time DESC, number DESC LIMIT ?"
    found = [usage_row(found) for found in connection.ask(statement, [*values, limit])]
    unwritten = [row for row in waiting() if matches(row, wanted)]
    return sorted([*unwritten[::-1], *found], key=lambda row: -row.time)[:limit]


def entries(
    connection: Connection, wanted: AuditFilter, limit: int, waiting: Callable[[], Sequence[AuditEntry]]
) -> tuple[list[AuditEntry], int]:
    where, values = _where(
        [
            ("time >= ?", wanted.start),
            ("time < ?", wanted.end),
            ("user_name = ?", wanted.username),
            ("project = ?", wanted.project),
            ("session = ?", wanted.session),
        ]
    )
    statement = f"SELECT {AUDIT_COLUMNS} FROM audit{where} ORDER BY time DESC, number DESC LIMIT ?"
    with connection.transaction(reading=True):
        found = connection.ask(statement, [*values, limit])
        ((total,),) = connection.ask(f"SELECT COUNT(*) FROM audit{where}", values)
    unwritten = [entry for entry in waiting() if is_wanted(entry, wanted)]
    newest = sorted([*unwritten[::-1], *map(audit_entry, found)], key=lambda entry: -entry.time)[:limit]
    return newest, total + len(unwritten)


def _figures(connection: Connection, groups: str, where: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    return connection.ask(f"SELECT {groups}, {_FIGURES} FROM usage{where} GROUP BY {groups}, bucket", values)


def _figures_of(row: UsageRow) -> tuple[Any, ...]:
    """What `_FIGURES` would select of this row alone."""
    duration, first = row.duration_ms, row.ttft_ms
    return (
        bucket_of(duration),
        1,
        int(row.status >= 400),
        row.prompt,
        row.completion,
        row.cache_read,
        row.reasoning,
        int(row.cost is not None),
        row.cost,
        duration,
        int(first is not None),
        first,
        duration,
        duration,
    )


def _named(groups: dict[str, _Group]) -> dict[str, UsageTotals]:
    return {name: group.totals() for name, group in sorted(groups.items())}


def _usage_where(wanted: UsageFilter) -> tuple[str, list[Any]]:
    return _where(
        [
            ("time >= ?", wanted.since),
            ("time < ?", wanted.until),
            ("backend = ?", wanted.backend),
            ("(model = ? OR model = backend || ':' || ?)", wanted.model),
            ("project = ?", wanted.project),
            ("session = ?", wanted.session),
            ("username = ?", wanted.username),
            ("key_name = ?", wanted.key_name),
        ]
    )


def _where(conditions: Sequence[tuple[str, object]]) -> tuple[str, list[Any]]:
    """A WHERE clause of those conditions whose value is given, and its values."""
    given = [(text, fitting(value)) for text, value in conditions if value is not None]
    clause = " AND ".join(text for text, _ in given)
    return (f" WHERE {clause}" if given else ""), [value for text, value in given for _ in range(text.count("?"))]
