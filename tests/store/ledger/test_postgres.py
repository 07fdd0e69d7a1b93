"""The ledger in PostgreSQL when its server ends connections, and two processes that start at once."""

from __future__ import annotations

import logging
import os
import threading
import uuid
from importlib.util import find_spec

import pytest

from llm_proxy.store.ledger import Ledger
from llm_proxy.store.ledger.postgres import Postgres
from llm_proxy.store.ledger.schema import STEPS, bring_up_to_date, version_of
from llm_proxy.store.records import UsageFilter
from tests.store.ledger.support import until, usage_row, warnings

SERVER = os.environ.get("LEDGER_TEST_POSTGRES", "")
pytestmark = pytest.mark.skipif(
    not SERVER or find_spec("psycopg") is None,
    reason="needs the extra `postgres` and a server, named by LEDGER_TEST_POSTGRES",
)


@pytest.fixture
def address() -> str:
    name = f"ledger_{uuid.uuid4().hex}"
    connection = Postgres(SERVER).open()
    connection.change(f"CREATE SCHEMA {name}")
    connection.close()
    return f"{SERVER}{'&' if '?' in SERVER else '?'}options=-csearch_path%3D{name}"


def end_all_connections() -> None:
    connection = Postgres(SERVER).open()
    connection.ask(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'llm-proxy' AND pid <> pg_backend_pid()"
    )
    connection.close()


async def test_a_server_that_ends_connections_costs_no_row(address: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ledger = Ledger(address, usage_days=0, retry_seconds=0.01)
    for number in range(300):
        ledger.add(usage_row(number))
        if number % 100 == 50:
            await ledger.flush()
            end_all_connections()
    await until(lambda: ledger.waiting == 0)
    assert (await ledger.stats(UsageFilter())).totals.requests == 300
    await ledger.close()
    assert len(warnings(caplog)) == 1 and "wait in memory" in warnings(caplog)[0]


async def test_a_server_that_is_not_there_costs_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger("postgresql://ann:canary-4711@127.0.0.1:9/usage", retry_seconds=0.01)
    ledger.add(usage_row())
    assert (await ledger.stats(UsageFilter())).totals.requests == 1
    await ledger.close()
    assert "wait in memory" in warnings(caplog)[0] and "canary-4711" not in caplog.text


def test_two_processes_that_start_at_once_make_the_tables_once(address: str) -> None:
    faults: list[BaseException] = []

    def begin() -> None:
        try:
            connection = Postgres(address).open()
            bring_up_to_date(connection)
            assert version_of(connection) == len(STEPS)
            connection.close()
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
