"""Usage and audit as pages, files and the command line say them: the one place that names their members.

Plain JSON values of the records. Must not know where records lie or who asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from llm_proxy.store.records import AuditEntry, UsageRow, UsageStats

_AUDIT_MEMBERS: Final = tuple(name for name in AuditEntry.__struct_fields__ if name != "time")


def stats_body(found: UsageStats, filters: Mapping[str, object]) -> dict[str, Any]:
    data = msgspec.to_builtins(found)
    data["by_day"] = [{"date": day, **totals} for day, totals in data["by_day"]]
    return {"object": "usage_stats", "filters": dict(filters), "data": data}


def entries_body(rows: Sequence[UsageRow]) -> dict[str, Any]:
    return {"object": "usage_entries", "data": [_entry(row) for row in rows]}


def _entry(row: UsageRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "model": row.model,
        "requested_model": row.requested_model,
        "backend": row.backend,
        "prompt_tokens": row.prompt,
        "completion_tokens": row.completion,
        "total_tokens": row.prompt + row.completion,
        "input_tokens": row.input,
        "output_tokens": row.output,
        "cached_tokens": row.cache_read,
        "cache_write_tokens": row.cache_write,
        "reasoning_tokens": row.reasoning,
        "cost": row.cost,
        "cost_source": row.cost_source,
        "token_source": row.token_source,
        "execution_time": row.duration_ms / 1000,
        "time_to_first_token": None if row.ttft_ms is None else row.ttft_ms / 1000,
        "timestamp": row.time,
        "username": row.username,
        "session": row.session,
        "project": row.project,
        "agent": row.agent,
        "kind": row.kind,
        "caller_name": row.key_name,
        "surface": row.surface,
        "stream": row.stream,
        "attempts": row.attempts,
        "status": row.status,
        "cached": row.cached,
        "safeguards": row.safeguards,
    }


def audit_entry(entry: AuditEntry) -> dict[str, Any]:
    """The time in ISO 8601, UTC."""
    time = datetime.fromtimestamp(entry.time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"timestamp": time, **{name: getattr(entry, name) for name in _AUDIT_MEMBERS}}
