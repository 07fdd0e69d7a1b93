"""The ledger: usage rows and audit entries in a database, written behind by one thread; questions are answered by another.

Owns the batches, the retries, the retention and what people hear of an outage. A database that cannot be used costs no request anything:
rows wait in memory (bounded), and are written when it is back. Which database it is, is known to `open_database` only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from llm_proxy.store.behind import Outage
from llm_proxy.store.ledger import questions
from llm_proxy.store.ledger.database import Away, Connection, Damaged, Database, Misfit, NewerSchema
from llm_proxy.store.ledger.places import database_at
from llm_proxy.store.ledger.rows import (
    DAY,
    INSERT_AUDIT,
    INSERT_USAGE,
    audit_bytes,
    audit_values,
    usage_bytes,
    usage_values,
)
from llm_proxy.store.ledger.schema import STEPS, Steps, bring_up_to_date, version_of
from llm_proxy.store.ledger.waiting import Waiting
from llm_proxy.store.records import AuditEntry, AuditFilter, UsageFilter, UsageRow, UsageStats
from llm_proxy.store.usage import MemoryUsage

_LOG = logging.getLogger(__name__)

GATHER_SECONDS: Final = 0.2
"""A row is written at most this long after it was added, with those that came meanwhile."""
GATHER_ROWS: Final = 100
_BATCH: Final = 1000
_RETRY_SECONDS: Final = 1.0
_SETTLE_SECONDS: Final = 5.0
"""What a loss of power may take (a killed process loses none of it)."""
_TRIM_ROWS: Final = 1000
_TRIM_PAUSE: Final = 0.05
_PATIENCE: Final = 3.0
_CLOSE_SECONDS: Final = 5.0

_CLIENT_TEXTS: Final = ("model", "requested_model", "session", "username", "project", "agent")

T = TypeVar("T")


class Ledger:
    """A `UsageLedger` and `AuditLedger` at `place`, a file or a database's address (see `database_at`).

    `clean` removes secrets from what the ledger logs. Retention is in days, 0 keeps for ever. Raises StoreUnusable for a place that can
    never work. Nothing is opened before `start`, the first row or the first question.
    """

    def __init__(
        self,
        place: Path | str,
        *,
        usage_days: int = 365,
        audit_days: int = 30,
        clean: Callable[[str], str] = str,
        clock: Callable[[], float] = time.time,
        retry_seconds: float = _RETRY_SECONDS,
        steps: Steps = STEPS,
        database: Database | None = None,
    ) -> None:
        self._database = database or database_at(place)
        self._days = (usage_days, audit_days)
        self._clean = clean
        self._clock = clock
        self._retry = retry_seconds
        self._steps = steps
        self._usage: Waiting[UsageRow] = Waiting(usage_bytes)
        self._audit: Waiting[AuditEntry] = Waiting(audit_bytes)
        self._outage = Outage()
        self._refused = False
        """A newer version was at work there: rows stay in memory, the database is left alone."""
        self._suspected = False
        self._connection: Connection | None = None
        self._asked: deque[Future[None]] = deque()
        self._wake, self._hurry = threading.Event(), threading.Event()
        self._stop = False
        self._retry_at = self._trim_at = 0.0
        self._settle_at: float | None = None
        self._started = threading.Lock()
        self._thread: threading.Thread | None = None
        self._readers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger-questions")
        self._reading: Connection | None = None

    # On the event loop

    @property
    def dropped(self) -> int:
        """Rows and entries lost since the start: too many waited, or one could not be stored."""
        return self._usage.dropped + self._audit.dropped

    @property
    def waiting(self) -> int:
        """Rows and entries that are not written yet."""
        return len(self._usage) + len(self._audit)

    def start(self) -> None:
        """Brings an existing database up to date and begins to delete what is too old, in the thread."""
        if self._thread is None and not self._stop:
            self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
            self._thread.start()

    def keep(self, usage_days: int, audit_days: int) -> None:
        """Another retention, from now on."""
        if (usage_days, audit_days) != self._days:
            self._days = (usage_days, audit_days)
            self._trim_at = 0.0
            self._wake.set()

    def add(self, row: UsageRow) -> None:
        """`row` loses the secrets that a client may have written into it."""
        self._added(self._usage.add(_without_secrets(row, self._clean)))

    def add_entry(self, entry: AuditEntry) -> None:
        """The texts of `entry` are free of secrets already: cleaning them twice would cost as much as all the rest."""
        self._added(self._audit.add(entry))

    async def stats(self, wanted: UsageFilter) -> UsageStats:
        found = await self._ask(lambda connection: questions.stats(connection, wanted, self._usage.all))
        return found if found is not None else await self._in_memory().stats(wanted)

    async def recent(self, wanted: UsageFilter, limit: int) -> list[UsageRow]:
        found = await self._ask(lambda connection: questions.recent(connection, wanted, limit, self._usage.all))
        return found if found is not None else await self._in_memory().recent(wanted, limit)

    async def entries(self, wanted: AuditFilter, limit: int) -> tuple[list[AuditEntry], int]:
        found = await self._ask(lambda connection: questions.entries(connection, wanted, limit, self._audit.all))
        return found if found is not None else await self._in_memory().entries(wanted, limit)

    async def flush(self) -> None:
        """Returns when what was added before is written, or could not be, or takes too long."""
        if not self.waiting or self._refused or self._stop:
            return
        self.start()
        done: Future[None] = Future()
        self._asked.append(done)
        self._hurry.set()
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await asyncio.wrap_future(done)

    async def close(self) -> None:
        """Writes what waits, within seconds; questions that go on end."""
        self._stop = True
        self._hurry.set()
        self._wake.set()
        if (reading := self._reading) is not None:
            await asyncio.to_thread(reading.interrupt)
        self._readers.shutdown(wait=False)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, _CLOSE_SECONDS)
        if self.waiting and not self._refused:
            _LOG.warning(
                "%d usage and audit records are lost: %s cannot be written", self.waiting, self._database.shown
            )

    def _added(self, waiting: int) -> None:
        # Waking a thread costs more than all the rest, so it is done twice per batch at most.
        if waiting == 1:
            self.start()
            self._wake.set()
        elif waiting == GATHER_ROWS:
            self._hurry.set()

    def _in_memory(self) -> MemoryUsage:
        """What is known without the database: the rows that wait for it."""
        found = MemoryUsage()
        found.rows.extend(self._usage.all())
        found.audit.extend(self._audit.all())
        return found

    async def _ask(self, question: Callable[[Connection], T]) -> T | None:
        """The answer, or None when the database has none."""
        await self.flush()
        if self._refused or self._stop:
            return None
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._answer, question)

    # In the thread of questions

    def _answer(self, question: Callable[[Connection], T]) -> T | None:
        # A connection of its own for each question: it never outlives a file that was removed, and costs less than a millisecond.
        connection: Connection | None = None
        try:
            if self._stop or not self._database.exists():
                return None
            connection = self._reading = self._database.open(reading=True)
            version = version_of(connection)
            if version > len(self._steps):
                raise NewerSchema(version, len(self._steps))
            return question(connection) if version == len(self._steps) else None
        except Damaged:
            self._suspected = True
            self._hurry.set()
            self._wake.set()
        except (Away, Misfit, NewerSchema) as error:
            if not self._stop:
                self._outage.tell(self._clean(f"{self._database.shown} cannot be read ({error})"))
        finally:
            self._reading = None
            if connection is not None:
                connection.close()
        return None

    # In the writer's thread

    def _run(self) -> None:
        while not self._stop:
            if self._wake.wait(self._until_next()) and not self._hurry.is_set():
                self._hurry.wait(GATHER_SECONDS)
            self._wake.clear()
            self._hurry.clear()
            asked = [self._asked.popleft() for _ in range(len(self._asked))]
            self._work()
            for done in asked:
                if done.set_running_or_notify_cancel():
                    done.set_result(None)
        self._retry_at = 0.0
        self._work()
        self._shut()

    def _until_next(self) -> float | None:
        """Seconds until something is due without anybody waking the thread."""
        if self._refused:
            return None
        due = 0.0 if self.waiting or self._suspected else self._trim_at
        if self._settle_at is not None:
            due = min(due, self._settle_at)
        return max(0.0, max(due, self._retry_at) - time.monotonic())

    def _work(self) -> None:
        now = time.monotonic()
        if self._refused or now < self._retry_at:
            return
        try:
            if self._suspected:
                self._examine()
            self._write_all()
            if self._settle_at is not None and (now >= self._settle_at or self._stop):
                if self._connection is not None:
                    self._connection.settle()
                self._settle_at = None
            if now >= self._trim_at and not self._stop:
                self._trim()
        except NewerSchema as error:
            self._shut()
            self._refused = True
            _LOG.warning("usage and audit records are kept in memory: %s: %s", self._database.shown, error)
        except Damaged as error:
            self._set_aside(error)
        except Away as error:
            self._fail(error)

    def _write_all(self) -> None:
        wrote = False
        while True:
            usage, audit = self._usage.take(_BATCH), self._audit.take(_BATCH)
            if not usage and not audit:
                break
            try:
                self._write(
                    [usage_values(number, row) for number, row in usage],
                    [audit_values(number, entry) for number, entry in audit],
                )
            except BaseException:
                self._usage.restore()
                self._audit.restore()
                raise
            self._usage.done()
            self._audit.done()
            wrote = True
        if wrote:
            self._outage.over(f"usage and audit records are written to {self._database.shown} again")
            if self._settle_at is None:
                self._settle_at = time.monotonic() + _SETTLE_SECONDS

    def _write(self, usage: list[tuple[object, ...]], audit: list[tuple[object, ...]]) -> None:
        connection = self._opened()
        batches = ((INSERT_USAGE, usage), (INSERT_AUDIT, audit))
        try:
            with connection.transaction():
                for statement, rows in batches:
                    if rows:
                        connection.change_many(statement, rows)
        except Misfit as error:
            for statement, rows in batches:
                for row in rows:
                    self._write_one(connection, statement, row, error)

    def _write_one(self, connection: Connection, statement: str, row: tuple[object, ...], first: Misfit) -> None:
        """One row that does not fit must not keep the others away."""
        try:
            connection.change(statement, row)
        except Misfit:
            self._usage.dropped += 1
            _LOG.warning("%s", self._clean(f"a usage or audit record does not fit into the database: {first}"))

    def _trim(self) -> None:
        """Deletes some of what is too old, and comes back soon when there may be more, else in a day."""
        more = False
        if self._database.exists():
            connection = self._opened()
            for table, days in zip(("usage", "audit"), self._days, strict=True):
                if days <= 0:
                    continue
                statement = (
                    f"DELETE FROM {table} WHERE number IN "
                    f"(SELECT number FROM {table} WHERE time < ? ORDER BY time LIMIT {_TRIM_ROWS})"
                )
                deleted = connection.change(statement, (self._clock() - days * DAY,))
                more = more or deleted >= _TRIM_ROWS
        self._trim_at = time.monotonic() + (_TRIM_PAUSE if more else DAY)

    def _opened(self) -> Connection:
        if self._connection is not None:
            if self._connection.is_there():
                return self._connection
            self._shut()
        connection = self._database.open()
        try:
            bring_up_to_date(connection, self._steps)
            connection.begin_writing()
        except BaseException as error:
            if isinstance(error, Damaged):
                self._connection = connection
            else:
                connection.close()
            raise
        self._connection = connection
        return connection

    def _examine(self) -> None:
        self._suspected = False
        if self._database.exists() and not self._opened().is_sound():
            raise Damaged("the check of its pages failed")

    def _set_aside(self, error: Exception) -> None:
        damaged = self._connection
        self._shut()
        try:
            name = self._database.set_aside(damaged)
        except Away as other:
            self._fail(other)
            return
        if name:
            text = f"the ledger {self._database.shown} is damaged ({error}): it was renamed {name}, records begin anew"
            _LOG.warning("%s", self._clean(text))
        self._wake.set()
        self._hurry.set()

    def _fail(self, error: Exception) -> None:
        self._shut()
        self._retry_at = time.monotonic() + self._retry
        lost = f"; {self.dropped} were dropped" if self.dropped else ""
        text = f"usage and audit records wait in memory: {self._database.shown} cannot be used ({error}){lost}"
        self._outage.tell(self._clean(text))

    def _shut(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _without_secrets(row: UsageRow, clean: Callable[[str], str]) -> UsageRow:
    texts = [getattr(row, name) for name in _CLIENT_TEXTS]
    together = "\n".join(texts)
    if clean(together) == together:
        return row
    return msgspec.structs.replace(row, **{name: clean(text) for name, text in zip(_CLIENT_TEXTS, texts, strict=True)})
