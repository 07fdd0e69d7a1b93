"""D-07: from each schema to the newest, whatever interrupts it; a newer one is left alone."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from llm_proxy.store.ledger import Ledger
from llm_proxy.store.ledger.database import NewerSchema, Values
from llm_proxy.store.ledger.schema import STEPS, Steps, bring_up_to_date, version_of
from llm_proxy.store.ledger.sqlite_file import SqliteConnection, SqliteFile
from llm_proxy.store.records import UsageFilter
from tests.store.ledger.support import ask, ids, is_sound, usage_row, warnings

NEXT: Steps = (
    *STEPS,
    (
        "ALTER TABLE usage ADD COLUMN region TEXT NOT NULL DEFAULT ''",
        "UPDATE usage SET region = 'eu' WHERE backend = 'openai'",
        "CREATE INDEX usage_region ON usage (region)",
    ),
    ("CREATE TABLE note (number BIGINT PRIMARY KEY)", "INSERT INTO note (number) SELECT number FROM usage"),
)
"""The schemas of releases to come, as this one's mechanism would bring them about."""


class Killed(BaseException):
    pass


class Interrupted(SqliteConnection):
    """Ends the process, so to speak, before its statement number `left`."""

    left = 0

    def change(self, statement: str, values: Values = ()) -> int:
        if self.left == 0:
            # What a killed process leaves: nobody rolls back, the file is as it is.
            self._database.close()
            raise Killed
        self.left -= 1
        return super().change(statement, values)


def interrupted(path: Path, steps: Steps, after: int) -> bool:
    """Was the work cut off after so many statements?"""
    identity = SqliteFile(path)._make()
    connection = Interrupted(path, identity, 1.0, False)
    connection.left = after
    try:
        bring_up_to_date(connection, steps)
    except Killed:
        return True
    finally:
        connection.close()
    return False


def schema(path: Path) -> Sequence[object]:
    return sorted(ask(path, "SELECT type, name, sql FROM sqlite_master"))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[SqliteConnection]:
    connection = SqliteFile(path).open()
    try:
        yield connection
    finally:
        connection.close()


async def filled(path: Path, steps: Steps = STEPS) -> None:
    ledger = Ledger(path, usage_days=0, steps=steps)
    for number in range(3):
        ledger.add(usage_row(number, backend="openai" if number else "gemini"))
    await ledger.close()


def test_a_first_start_that_is_interrupted_anywhere_is_resumed(tmp_path: Path) -> None:
    whole = tmp_path / "whole.sqlite3"
    assert not interrupted(whole, STEPS, 1000)
    cut = 0
    while True:
        path = tmp_path / f"{cut}.sqlite3"
        if not interrupted(path, STEPS, cut):
            break
        assert interrupted(path, STEPS, cut)  # and once more at the same place
        with opened(path) as connection:
            bring_up_to_date(connection)
            assert version_of(connection) == len(STEPS)
        assert schema(path) == schema(whole) and is_sound(path)
        cut += 1
    assert cut > sum(map(len, STEPS))


async def test_an_upgrade_that_is_interrupted_at_any_statement_resumes_and_keeps_every_row(tmp_path: Path) -> None:
    """from each released schema, interrupted at each statement: resumes"""
    for before in range(len(STEPS), len(NEXT)):
        cut, more = 0, True
        old = tmp_path / f"{before}.sqlite3"
        await filled(old)
        with opened(old) as connection:
            bring_up_to_date(connection, NEXT[:before])
        while more:
            path = tmp_path / f"{before}-{cut}.sqlite3"
            shutil.copyfile(old, path)
            more = interrupted(path, NEXT, cut)
            with opened(path) as connection:
                bring_up_to_date(connection, NEXT)
                assert version_of(connection) == len(NEXT)
            assert ask(path, "SELECT id, region FROM usage ORDER BY id") == [
                ("req_0", ""),
                ("req_1", "eu"),
                ("req_2", "eu"),
            ]
            assert ask(path, "SELECT COUNT(*) FROM note") == [(3,)] and is_sound(path)
            cut += 1
        assert cut > len(NEXT[-1])


async def test_a_ledger_brings_an_older_database_up_to_date_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "usage.sqlite3"
    await filled(path)
    ledger = Ledger(path, usage_days=0, steps=NEXT)
    ledger.add(usage_row(3))
    assert (await ledger.stats(UsageFilter())).totals.requests == 4
    await ledger.close()
    assert ask(path, "SELECT version FROM ledger_version") == [(len(NEXT),)]


async def test_an_older_version_refuses_a_newer_schema_with_a_clear_sentence_and_leaves_the_file_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "usage.sqlite3"
    await filled(path, NEXT)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    ledger = Ledger(path)
    ledger.start()
    for number in range(150):
        ledger.add(usage_row(number, project="new"))
    # Rows are kept in memory, and can be asked for.
    assert (await ledger.stats(UsageFilter())).totals.requests == 150
    assert len(await ledger.recent(UsageFilter(), 10)) == 10
    await ledger.close()
    (said,) = warnings(caplog)
    assert str(path) in said and "newer version of the proxy" in said and "kept in memory" in said
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert [file.name for file in tmp_path.iterdir()] == ["usage.sqlite3"]
    assert ids(path) == ["req_0", "req_1", "req_2"]


def test_the_sentence_names_both_versions() -> None:
    assert "schema 7, this one knows 1" in str(NewerSchema(7, 1))
