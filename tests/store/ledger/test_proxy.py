"""OPS-07 at the running proxy: usage that survives a restart, and requests that no trouble of the database reaches."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.config.groups import AuditOptions, UsageOptions
from llm_proxy.store.ledger import Ledgers
from llm_proxy.store.sessions import StoreUnusable
from tests.e2e.keeping import Place, ask, until
from tests.server.process import Proxy
from tests.store.ledger.support import ask as rows_of


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Place(tmp_path)
    found.write(default_backend="demo")
    return found


def database(place: Place) -> Path:
    return place.folder / "data" / "usage.sqlite3"


def requests(proxy: Proxy, days: int = 30) -> int:
    answer = proxy.get(f"/usage/stats?days={days}")
    assert answer.status == 200, answer.body
    found = answer.json["data"]["totals"]["requests"]
    assert isinstance(found, int)
    return found


def turn(proxy: Proxy) -> None:
    assert ask(proxy, "hello").status == 200


def test_usage_is_back_after_a_restart(place: Place) -> None:
    with place.run() as proxy:
        for _ in range(3):
            turn(proxy)
        assert requests(proxy) == 3
        before = proxy.get("/usage/recent").json
    assert len(rows_of(database(place), "SELECT id FROM usage")) == 3
    if sys.platform != "win32":
        assert stat.S_IMODE(os.stat(database(place)).st_mode) == 0o600
    with place.run() as proxy:
        assert proxy.get("/usage/recent").json == before
        turn(proxy)
        assert requests(proxy) == 4


def test_requests_succeed_with_a_locked_and_with_a_deleted_database(place: Place) -> None:
    """given a locked or deleted database, then requests succeed and a warning appears"""
    with place.run() as proxy:
        turn(proxy)
        assert requests(proxy) == 1
        with contextlib.closing(sqlite3.connect(database(place), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for _ in range(3):
                turn(proxy)
            until(lambda: "usage and audit records wait in memory" in proxy.printed.text, "the warning")
            assert requests(proxy) == 4
            other.execute("ROLLBACK")
        until(lambda: len(rows_of(database(place), "SELECT id FROM usage")) == 4, "writing what had waited")
        for file in database(place).parent.glob("usage.sqlite3*"):
            file.unlink()
        turn(proxy)
        assert requests(proxy) == 1
    assert len(rows_of(database(place), "SELECT id FROM usage")) == 1


def test_in_memory_makes_no_file(place: Place) -> None:
    place.write(default_backend="demo", usage_tracking={"repository": "in_memory"})
    with place.run() as proxy:
        turn(proxy)
        assert requests(proxy) == 1
    assert not database(place).exists()


def test_another_place_counts_from_the_reload_on(place: Place) -> None:
    def settle(**usage: Any) -> None:
        place.write(default_backend="demo", usage_tracking=usage)

    with place.run() as proxy:
        turn(proxy)
        settle(file_path="elsewhere/")
        assert proxy.post("/internal/reload", None).status == 200
        assert requests(proxy) == 0
        turn(proxy)
        assert requests(proxy) == 1
        settle(file_path="oracle://somewhere/else")
        assert proxy.post("/internal/reload", None).status == 200
        turn(proxy)
        assert requests(proxy) == 2
        until(lambda: "usage and audit stay where they are" in proxy.printed.text, "the warning")
        settle()
        assert proxy.post("/internal/reload", None).status == 200
        assert requests(proxy) == 1
    assert len(rows_of(place.folder / "elsewhere" / "usage.sqlite3", "SELECT id FROM usage")) == 2


def test_rows_past_their_retention_are_gone_after_a_start(place: Place) -> None:
    with place.run() as proxy:
        turn(proxy)
    with contextlib.closing(sqlite3.connect(database(place))) as other:
        other.execute("UPDATE usage SET time = time - 40 * 86400")
        other.commit()
    place.write(default_backend="demo", usage_tracking={"retention_days": 30})
    with place.run() as proxy:
        until(lambda: requests(proxy, days=0) == 0, "deleting")


def test_a_place_that_can_never_work_stops_the_start(place: Place) -> None:
    options = UsageOptions(file_path="mysql://host/name")
    with pytest.raises(StoreUnusable, match="sqlite:/// or postgresql://, not mysql://"):
        Ledgers(place.folder, str).choose(options, AuditOptions())
