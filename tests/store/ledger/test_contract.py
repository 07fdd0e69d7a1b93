"""What every ledger answers, in memory, in SQLite, and in PostgreSQL where the variable names a server that tests may write to."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_proxy.store.ledger import Ledger
from llm_proxy.store.records import AuditFilter, UsageFilter, UsageRow
from llm_proxy.store.usage import MemoryUsage, stats_of
from tests.store.ledger.support import START, assert_alike, audit_entry, usage_row

SERVER = os.environ.get("LEDGER_TEST_POSTGRES")
DAY = 86_400


def postgres(**options: Any) -> Ledger:
    """A ledger in a schema of its own on the server, which stays behind."""
    import psycopg  # type: ignore[import-not-found,unused-ignore]

    assert SERVER is not None
    name = f"ledger_{uuid.uuid4().hex}"
    with psycopg.connect(SERVER, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    mark = "&" if "?" in SERVER else "?"
    return Ledger(f"{SERVER}{mark}options=-csearch_path%3D{name}", **options)


@pytest.fixture(
    params=[
        "memory",
        "sqlite",
        pytest.param(
            "postgres",
            marks=pytest.mark.skipif(
                SERVER is None or find_spec("psycopg") is None,
                reason="needs the extra `postgres` and a server, named by LEDGER_TEST_POSTGRES",
            ),
        ),
    ]
)
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MemoryUsage | Ledger]:
    made: dict[str, Callable[[], MemoryUsage | Ledger]] = {
        "memory": MemoryUsage,
        "sqlite": lambda: Ledger(tmp_path / "usage.sqlite3", usage_days=0, audit_days=0),
        "postgres": lambda: postgres(usage_days=0, audit_days=0),
    }
    found = made[request.param]()
    yield found
    await found.close()


AnyLedger = MemoryUsage | Ledger


async def test_what_was_added_before_a_question_is_in_its_answer(ledger: AnyLedger) -> None:
    """given three requests, then totals.requests is 3 and tokens equal the provider's sums"""
    for number in range(3):
        ledger.add(usage_row(number))
    totals = (await ledger.stats(UsageFilter())).totals
    assert (totals.requests, totals.prompt_tokens, totals.completion_tokens, totals.total_tokens) == (3, 30, 15, 45)
    assert (totals.cached_tokens, totals.reasoning_tokens, totals.cost, totals.errors) == (9, 6, 0.75, 0)
    assert (totals.avg_duration_ms, totals.p95_duration_ms, totals.avg_ttft_ms) == (1500, 1500, 300)
    ledger.add(usage_row(3))
    assert (await ledger.stats(UsageFilter())).totals.requests == 4


async def test_nothing_is_known_of_nothing(ledger: AnyLedger) -> None:
    assert await ledger.stats(UsageFilter()) == stats_of([])
    assert await ledger.recent(UsageFilter(), 10) == []
    assert await ledger.entries(AuditFilter(), 10) == ([], 0)


async def test_a_row_comes_back_as_it_was_added(ledger: AnyLedger) -> None:
    rows = [
        usage_row(1, cost=None, cost_source="unknown", ttft_ms=None, stream=False, cached=True, kind="side"),
        usage_row(2, safeguards=("dangerous command", "content loop"), project="größer 🐘 'x' \\ %s ? \n", cost=0.1),
        usage_row(3, prompt=2**36, duration_ms=0.1 + 0.2, time=START + 0.123456),
        usage_row(4, session="", username="", kind="embeddings", status=499, token_source="partial"),
    ]
    for row in rows:
        ledger.add(row)
    found = await ledger.recent(UsageFilter(), 10)
    assert sorted(found, key=lambda row: row.id) == rows


async def test_the_newest_come_first_and_of_the_same_time_the_last_added(ledger: AnyLedger) -> None:
    for number, when in enumerate([5.0, 9.0, 9.0, 1.0, 9.0]):
        ledger.add(usage_row(number, time=START + when))
    found = [row.id for row in await ledger.recent(UsageFilter(), 4)]
    assert found == ["req_4", "req_2", "req_1", "req_0"]


FILTERS = [
    UsageFilter(since=START + 2),
    UsageFilter(until=START + 2),
    UsageFilter(since=START + 1, until=START + 3),
    UsageFilter(backend="gemini"),
    UsageFilter(model="gemini:g:free"),
    UsageFilter(model="g:free"),
    UsageFilter(model="free"),
    UsageFilter(model=""),
    UsageFilter(project="p"),
    UsageFilter(project=""),
    UsageFilter(session="s2"),
    UsageFilter(username="bob"),
    UsageFilter(key_name="key#2"),
    UsageFilter(project="p' OR '1'='1"),
    UsageFilter(project="p", username="bob", backend="openai"),
]


@pytest.mark.parametrize("wanted", FILTERS, ids=str)
async def test_a_filter_leaves_only_its_rows(ledger: AnyLedger, wanted: UsageFilter) -> None:
    """given `project=p`, then only its rows"""
    rows = [
        usage_row(0),
        usage_row(1, backend="gemini", model="gemini:g:free", project="p"),
        usage_row(2, session="s2", username="bob", project="p"),
        usage_row(3, key_name="key#2", username="bob"),
    ]
    for row in rows:
        ledger.add(row)
    reference = MemoryUsage()
    reference.rows.extend(rows)
    expected = await reference.recent(wanted, 10)
    assert await ledger.recent(wanted, 10) == expected
    assert_alike(await ledger.stats(wanted), stats_of(expected))


AnyRow = st.builds(
    lambda number, **changes: usage_row(number, model=f"{changes['backend']}:m", **changes),
    st.integers(0, 5 * DAY),
    backend=st.sampled_from(["openai", "gemini"]),
    project=st.sampled_from(["", "p", "q"]),
    key_name=st.sampled_from(["a", "b"]),
    session=st.sampled_from(["s", "t", "u"]),
    prompt=st.integers(0, 10**9),
    completion=st.integers(0, 10**9),
    reasoning=st.integers(0, 10**9),
    cache_read=st.integers(0, 10**9),
    cost=st.none() | st.floats(0, 1000),
    duration_ms=st.floats(0, 10**7),
    ttft_ms=st.none() | st.floats(0, 10**6),
    status=st.sampled_from([200, 400, 499, 502]),
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(AnyRow, max_size=40))
async def test_sums_are_those_of_the_reference(tmp_path_factory: pytest.TempPathFactory, rows: list[UsageRow]) -> None:
    ledger = Ledger(tmp_path_factory.mktemp("ledger") / "usage.sqlite3", usage_days=0)
    for row in rows:
        ledger.add(row)
    assert_alike(await ledger.stats(UsageFilter()), stats_of(rows))
    await ledger.close()


async def test_at_most_a_hundred_sessions_those_with_the_most_tokens(ledger: AnyLedger) -> None:
    rows = [usage_row(number, session=f"s{number:03}", prompt=number % 120) for number in range(240)]
    for row in rows:
        ledger.add(row)
    found = await ledger.stats(UsageFilter())
    assert len(found.by_session) == 100
    assert_alike(found, stats_of(rows))


async def test_days_are_utc_dates(ledger: AnyLedger) -> None:
    midnight = 1_763_683_200.0
    for number, when in enumerate([midnight - 1, midnight, midnight + DAY - 0.001]):
        ledger.add(usage_row(number, time=when))
    found = (await ledger.stats(UsageFilter())).by_day
    assert [(day, totals.requests) for day, totals in found] == [("2025-11-20", 1), ("2025-11-21", 2)]


async def test_percentiles_of_many_durations(ledger: AnyLedger) -> None:
    rows = [usage_row(number, duration_ms=float((number * 7919) % 10_000)) for number in range(5000)]
    for row in rows:
        ledger.add(row)
    found = (await ledger.stats(UsageFilter())).totals.p95_duration_ms
    assert found == pytest.approx(stats_of(rows).totals.p95_duration_ms, rel=0.01)


async def test_entries_the_newest_first_and_how_many_there_are(ledger: AnyLedger) -> None:
    entries = [audit_entry(number, user_name="bob" if number % 2 else "ann") for number in range(7)]
    entries[3] = audit_entry(3, user_name="bob", prompt_text="ein Text\nwith 🐘" * 1000, project="q", session="t")
    for entry in entries:
        ledger.add_entry(entry)
    assert await ledger.entries(AuditFilter(), 2) == ([entries[6], entries[5]], 7)
    assert await ledger.entries(AuditFilter(username="bob"), 9) == ([entries[5], entries[3], entries[1]], 3)
    assert await ledger.entries(AuditFilter(project="q", session="t"), 9) == ([entries[3]], 1)
    assert await ledger.entries(AuditFilter(start=START + 2, end=START + 4), 9) == ([entries[3], entries[2]], 2)


async def test_ten_thousand_exchanges_sum_up_to_the_token(ledger: AnyLedger) -> None:
    """usage truth: sum of rows = sum of what was used"""
    rows = [
        usage_row(
            number, prompt=number * 31 % 997, completion=number * 17 % 89, cache_read=number % 7, reasoning=number % 5
        )
        for number in range(10_000)
    ]
    for some in range(0, len(rows), 2500):
        for row in rows[some : some + 2500]:
            ledger.add(row)
        if isinstance(ledger, Ledger):
            await ledger.flush()
    totals = (await ledger.stats(UsageFilter())).totals
    assert totals.requests == 10_000
    assert totals.prompt_tokens == sum(row.prompt for row in rows)
    assert totals.completion_tokens == sum(row.completion for row in rows)
    assert totals.cached_tokens == sum(row.cache_read for row in rows)
    assert totals.reasoning_tokens == sum(row.reasoning for row in rows)
