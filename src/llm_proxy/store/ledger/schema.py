"""The tables of the ledger and how a database gets to the newest form of them, step by step.

Every step runs in one transaction together with the version it leads to, so a process that is killed in between leaves the step before
behind, and the next start goes on from there. The statements are understood by SQLite and PostgreSQL alike. A step that was
released is never changed; a change is another step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from llm_proxy.store.ledger.database import Connection, NewerSchema

Steps = Sequence[Sequence[str]]
"""The statements that lead from version n to n + 1, for n from 0."""

STEPS: Final[Steps] = (
    (
        # `number` is made by the process that adds the row: unique, ascending, and the same when a batch is written once more.
        """CREATE TABLE usage (
            number BIGINT PRIMARY KEY, day BIGINT NOT NULL, bucket BIGINT NOT NULL,
            id TEXT NOT NULL, time DOUBLE PRECISION NOT NULL, kind TEXT NOT NULL, surface TEXT NOT NULL,
            backend TEXT NOT NULL, model TEXT NOT NULL, requested_model TEXT NOT NULL,
            prompt BIGINT NOT NULL, completion BIGINT NOT NULL, input BIGINT NOT NULL, output BIGINT NOT NULL,
            cache_read BIGINT NOT NULL, cache_write BIGINT NOT NULL, reasoning BIGINT NOT NULL,
            cost DOUBLE PRECISION, cost_source TEXT NOT NULL, token_source TEXT NOT NULL,
            duration_ms DOUBLE PRECISION NOT NULL, ttft_ms DOUBLE PRECISION, status BIGINT NOT NULL,
            stream SMALLINT NOT NULL, cached SMALLINT NOT NULL, attempts BIGINT NOT NULL, session TEXT NOT NULL,
            key_name TEXT NOT NULL, username TEXT NOT NULL, agent TEXT NOT NULL, project TEXT NOT NULL,
            safeguards TEXT NOT NULL)""",
        "CREATE INDEX usage_time ON usage (time, number)",
        "CREATE INDEX usage_session ON usage (session, time)",
        """CREATE TABLE audit (
            number BIGINT PRIMARY KEY,
            time DOUBLE PRECISION NOT NULL, app_name TEXT NOT NULL, user_name TEXT NOT NULL, model TEXT NOT NULL,
            log_type TEXT NOT NULL, prompt_text TEXT NOT NULL, response_text TEXT NOT NULL,
            remote_completion_id TEXT NOT NULL, project TEXT NOT NULL, session TEXT NOT NULL, key_name TEXT NOT NULL,
            request_id TEXT NOT NULL)""",
        "CREATE INDEX audit_time ON audit (time, number)",
        "CREATE INDEX audit_session ON audit (session, time)",
    ),
)


def bring_up_to_date(connection: Connection, steps: Steps = STEPS) -> None:
    """Does the steps that are missing. Raises NewerSchema, having changed nothing, when somebody newer was here."""
    version = version_of(connection)
    while version < len(steps):
        with connection.transaction():
            # Two processes may start at once: here only one of them is left, and the other finds the step done.
            connection.only_one()
            if version_of(connection) == version:
                _do(connection, version, steps[version])
        version = version_of(connection)
    if version > len(steps):
        raise NewerSchema(version, len(steps))


def version_of(connection: Connection) -> int:
    """0 for a database in which no ledger is yet."""
    if not connection.has_table("ledger_version"):
        return 0
    rows = connection.ask("SELECT MAX(version) FROM ledger_version")
    return int(rows[0][0] or 0)


def _do(connection: Connection, before: int, statements: Sequence[str]) -> None:
    connection.change("CREATE TABLE IF NOT EXISTS ledger_version (version BIGINT NOT NULL)")
    for statement in statements:
        connection.change(statement)
    connection.change("DELETE FROM ledger_version")
    connection.change("INSERT INTO ledger_version (version) VALUES (?)", (before + 1,))
