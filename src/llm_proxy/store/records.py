"""What a ledger keeps: usage rows, audit entries, and the questions and answers about them.

Plain values. Knows neither how they are stored nor how they are shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

Kind = Literal["turn", "side", "embeddings", "completions", "count"]
"""`side`: an errand of an agent beside the conversation; the last three: calls that generate no chat answer."""
CostSource = Literal["reported", "priced", "subscription", "local", "unknown"]


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens in disjoint buckets: `input` excludes what was read from or written to a cache; `output` excludes `reasoning`.

    `prompt` and `completion` are the provider-style sums. `time` is epoch seconds; durations are milliseconds. `cost` is US dollars, None
    where nobody knows it (`cost_source` unknown). `token_source`: reported, estimated, partial or unknown. `status` is the client's (499: it
    left). `safeguards`: what rooms did to the answer (`dangerous command`, `content loop` …), in order. `cached`: the proxy's own response
    cache answered.
    """

    id: str
    time: float
    surface: str
    backend: str
    model: str
    requested_model: str
    prompt: int
    completion: int
    input: int
    output: int
    cache_read: int
    cache_write: int
    reasoning: int
    cost: float | None
    cost_source: CostSource = "unknown"
    token_source: str
    duration_ms: float
    ttft_ms: float | None
    status: int
    stream: bool
    attempts: int
    session: str
    key_name: str
    username: str
    agent: str
    project: str = ""
    safeguards: tuple[str, ...] = ()
    kind: Kind = "turn"
    cached: bool = False


class UsageFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows; None leaves a field open. `since` and `until` are epoch seconds, `until` exclusive.

    `model` matches `backend:model` and the provider's name for the model alone.
    """

    since: float | None = None
    until: float | None = None
    backend: str | None = None
    model: str | None = None
    project: str | None = None
    session: str | None = None
    username: str | None = None
    key_name: str | None = None


class UsageTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over rows. `cost` is None when no row has one; `unpriced_requests` counts rows without. Averages are None over no rows."""

    requests: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost: float | None = None
    unpriced_requests: int = 0
    avg_duration_ms: float | None = None
    p95_duration_ms: float | None = None
    avg_ttft_ms: float | None = None


class UsageStats(msgspec.Struct, frozen=True, kw_only=True):
    """Totals, and the same by group. Days are UTC dates (`2026-11-21`), ascending. `unpriced`: models with rows of unknown cost."""

    totals: UsageTotals
    by_model: Mapping[str, UsageTotals]
    by_backend: Mapping[str, UsageTotals]
    by_project: Mapping[str, UsageTotals]
    by_key: Mapping[str, UsageTotals]
    by_session: Mapping[str, UsageTotals]
    """At most the hundred sessions with the most tokens."""
    by_day: Sequence[tuple[str, UsageTotals]]
    unpriced: Sequence[str] = ()


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One generating request or local command with its texts, free of secrets. `time` is epoch seconds."""

    time: float
    app_name: str
    user_name: str
    model: str
    log_type: Literal["chat_completion", "command", "error"]
    prompt_text: str
    response_text: str
    remote_completion_id: str
    project: str
    session: str
    key_name: str
    request_id: str = ""


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries; None leaves a field open. `start` and `end` are epoch seconds, `end` exclusive."""

    start: float | None = None
    end: float | None = None
    username: str | None = None
    project: str | None = None
    session: str | None = None
