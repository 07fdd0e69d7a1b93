"""D-01, D-02, D-06: what a killed process, a loss of power and a second process do to the ledger's file."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import pytest

from llm_proxy.store.ledger import Ledger
from tests.store.ledger.support import ids, is_sound, usage_row, writing

LOSS_SECONDS = 0.25
BUSY_SECONDS = 2.0
"""A machine that has more to do than it has cores lets every process wait."""


def allowed_loss() -> float:
    busy = hasattr(os, "getloadavg") and os.getloadavg()[0] > (os.cpu_count() or 1)
    return LOSS_SECONDS + (BUSY_SECONDS if busy else 0)


def kill_while_writing(path: Path, moment: float) -> None:
    """Starts a writer, kills it after `moment` seconds of writing, and looks at what is left."""
    name = path.stem
    already = len(ids(path)) if path.exists() else 0
    process = writing(path, name)
    assert process.stdout is not None and process.stderr is not None
    first = process.stdout.readline()
    time.sleep(moment)  # the random moment itself, not a wait for something to happen
    process.kill()
    killed = time.time()
    lines = [first, *process.stdout.read().splitlines()]
    process.wait()
    process.stdout.close()
    process.stderr.close()
    added = [tuple(map(float, line.split())) for line in lines if len(line.split()) == 2]
    assert is_sound(path) if path.exists() else moment < allowed_loss()
    kept = ids(path)[already:] if path.exists() else []
    assert kept == [f"{name}-{number}" for number in range(len(kept))], "a row is missing in between"
    due = max((int(count) for count, when in added if when < killed - allowed_loss()), default=0)
    assert len(kept) >= due, f"{due - len(kept)} rows lost that were older than {allowed_loss()} s"


def killed_at(tmp_path: Path, moments: int, seed: int) -> None:
    chance = random.Random(seed)
    path = tmp_path / "usage.sqlite3"
    for number in range(moments):
        if number % 20 == 0:
            path = tmp_path / f"usage-{number}.sqlite3"  # else it goes on where the last one was killed
        kill_while_writing(path, chance.uniform(0, 0.6))


def test_killed_at_random_moments_the_file_is_sound_and_a_quarter_of_a_second_is_lost_at_most(tmp_path: Path) -> None:
    killed_at(tmp_path, 10, seed=1)


@pytest.mark.long
def test_killed_at_two_hundred_random_moments(tmp_path: Path) -> None:
    killed_at(tmp_path, 200, seed=2)


async def test_a_loss_of_power_takes_what_was_written_since_the_last_settling_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """database opens; loss ≤ one checkpoint interval"""
    path = tmp_path / "usage.sqlite3"
    ledger = Ledger(path, usage_days=0)
    monkeypatch.setattr("llm_proxy.store.ledger.ledger._SETTLE_SECONDS", 0.0)
    for number in range(300):
        ledger.add(usage_row(number))
    await ledger.flush()
    await ledger.flush()
    for number in range(300, 310):
        ledger.add(usage_row(number))
    await ledger.flush()
    monkeypatch.setattr("llm_proxy.store.ledger.ledger._SETTLE_SECONDS", 1000.0)
    ledger.add(usage_row(310))
    await ledger.flush()
    ledger.start()
    settled = path.read_bytes()
    for number in range(311, 600):
        ledger.add(usage_row(number))
        if number % 40 == 0:
            await ledger.flush()
    await ledger.flush()
    assert path.read_bytes() == settled, "the database itself is written at settling only"
    journal = Path(f"{path}-wal").read_bytes()
    chance = random.Random(3)
    kept = set()
    for number in range(40):
        lost = tmp_path / f"lost-{number}.sqlite3"
        lost.write_bytes(settled)
        end = chance.randrange(len(journal)) if number else 0
        torn = journal[:end] + bytes(chance.randrange(512))
        Path(f"{lost}-wal").write_bytes(torn)
        assert is_sound(lost)
        found = ids(lost)
        assert found == [f"req_{n}" for n in range(len(found))] and len(found) >= 300
        kept.add(len(found))
    assert len(kept) > 3, "the cuts are at different places"
    await ledger.close()
    assert len(ids(path)) == 600
    shutil.rmtree(tmp_path)


def two_processes(path: Path, rows: int) -> None:
    processes = [writing(path, name, rows) for name in ("a", "b")]
    for process in processes:
        said, complaints = process.communicate(timeout=500)
        assert said.endswith("dropped 0\nwaiting 0\n") and complaints == ""
    found = ids(path)
    assert len(found) == len(set(found)) == 2 * rows
    for name in ("a", "b"):
        assert [id for id in found if id.startswith(name)] == [f"{name}-{number}" for number in range(rows)]
    assert is_sound(path)


def test_two_processes_on_one_file_lose_no_row_and_see_no_lock(tmp_path: Path) -> None:
    two_processes(tmp_path / "usage.sqlite3", 3000)


@pytest.mark.long
def test_two_processes_write_a_hundred_thousand_rows(tmp_path: Path) -> None:
    """0 "database is locked" surfaced in 100 k writes"""
    two_processes(tmp_path / "usage.sqlite3", 50_000)
