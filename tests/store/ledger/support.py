"""What the tests of the ledger share: rows, places, looks into a file, and a process that writes until it is killed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from llm_proxy.store.records import AuditEntry, UsageRow, UsageStats, UsageTotals

if TYPE_CHECKING:
    import pytest  # a writer that is killed shall not take long to start

ROOT = Path(__file__).resolve().parents[3]
START = 1_700_000_000.0


def usage_row(number: int = 0, **changes: Any) -> UsageRow:
    given: dict[str, Any] = {
        "id": f"req_{number}",
        "time": START + number,
        "surface": "openai-chat",
        "backend": "openai",
        "model": "openai:gpt-5",
        "requested_model": "gpt-5",
        "prompt": 10,
        "completion": 5,
        "input": 6,
        "output": 3,
        "cache_read": 3,
        "cache_write": 1,
        "reasoning": 2,
        "cost": 0.25,
        "cost_source": "reported",
        "token_source": "reported",
        "duration_ms": 1500.0,
        "ttft_ms": 300.0,
        "status": 200,
        "stream": True,
        "attempts": 1,
        "session": "s",
        "key_name": "key#1",
        "username": "ann",
        "agent": "generic",
    }
    return UsageRow(**{**given, **changes})


def audit_entry(number: int = 0, **changes: Any) -> AuditEntry:
    given: dict[str, Any] = {
        "time": START + number,
        "app_name": "openai-chat",
        "user_name": "ann",
        "model": "openai:gpt-5",
        "log_type": "chat_completion",
        "prompt_text": f"question {number}",
        "response_text": "answer",
        "remote_completion_id": f"chatcmpl-{number}",
        "project": "p",
        "session": "s",
        "key_name": "key#1",
        "request_id": f"req_{number}",
    }
    return AuditEntry(**{**given, **changes})


def ask(path: Path, statement: str) -> list[tuple[Any, ...]]:
    """What another program finds in the file."""
    with contextlib.closing(sqlite3.connect(path, timeout=10)) as database:
        return database.execute(statement).fetchall()


def ids(path: Path) -> list[str]:
    return [id for (id,) in ask(path, "SELECT id FROM usage ORDER BY number")]


def is_sound(path: Path) -> bool:
    return ask(path, "PRAGMA integrity_check") == [("ok",)]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what another thread or process does; ends only when it has happened or when 20 seconds are over."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def writing(path: Path, *arguments: object) -> subprocess.Popen[str]:
    """`writer.py` at work on `path`."""
    command = [sys.executable, "-m", "tests.store.ledger.writer", str(path), *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": f"{ROOT}/src:{ROOT}"},
    )


def assert_alike(found: UsageStats, expected: UsageStats) -> None:
    """Counts and tokens exactly; sums of floats as floats are; percentiles to a fraction of a class of durations."""
    assert_totals(found.totals, expected.totals)
    for name in ("by_model", "by_backend", "by_project", "by_key", "by_session"):
        mine, theirs = getattr(found, name), getattr(expected, name)
        assert list(mine) == list(theirs), name
        for key in theirs:
            assert_totals(mine[key], theirs[key])
    assert [day for day, _ in found.by_day] == [day for day, _ in expected.by_day]
    for (_, mine), (_, theirs) in zip(found.by_day, expected.by_day, strict=True):
        assert_totals(mine, theirs)
    assert list(found.unpriced) == list(expected.unpriced)


def assert_totals(found: UsageTotals, expected: UsageTotals) -> None:
    for name, value in msgspec.structs.asdict(expected).items():
        mine = getattr(found, name)
        if isinstance(value, float):
            within = 0.05 if name == "p95_duration_ms" else 1e-9
            assert mine is not None and math.isclose(mine, value, rel_tol=within), (name, mine, value)
        else:
            assert mine == value, (name, mine, value)
