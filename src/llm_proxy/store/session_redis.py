"""Sessions in Redis, each under `llmproxy:session:<scope>:<id>` with an expiry of its own.

Owns the keys, the waiting time and what happens while the server is away: then sessions live in memory, what is due waits, and is written
when the server is back. No request waits longer than 50 ms for a dead server. Knows nothing of what a session is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import quote

from llm_proxy.store.behind import Due, Outage
from llm_proxy.store.sessions import Key, StoredSession, StoreUnusable

if TYPE_CHECKING:
    from redis.asyncio import Redis

_LOG = logging.getLogger(__name__)

PREFIX = "llmproxy:session:"
_PATIENCE = 0.05  # seconds that a request waits
_WRITE_PATIENCE = 2.0
_REST_SECONDS = 5.0  # a server that failed is left alone that long


def key_of(scope: str, id: str) -> str:
    """The key. A colon in a scope (an IPv6 address) is escaped, so that scope and id cannot run into each other."""
    return f"{PREFIX}{quote(scope, safe='')}:{id}"


class SessionRedis:
    """A `SessionBacking` at `url`; `clock` is the wall clock of `Sessions`. Raises StoreUnusable when it can never work."""

    def __init__(
        self,
        url: str | None,
        *,
        patience: float = _PATIENCE,
        rest_seconds: float = _REST_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not url:
            raise StoreUnusable("session.repository is redis: it needs the server's address in session.redis_url")
        try:
            import redis.asyncio as client
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
            from redis.exceptions import RedisError, ResponseError
        except ImportError:
            raise StoreUnusable(
                "session.repository is redis: it needs a library, pip install 'llm-interactive-proxy[redis]'"
            ) from None
        try:
            self._redis: Redis = client.from_url(
                url,
                protocol=2,  # saves a round trip of each new connection
                retry=Retry(NoBackoff(), 1),  # a pooled connection may be dead without the server being so
                socket_timeout=_WRITE_PATIENCE,
                socket_connect_timeout=_WRITE_PATIENCE,
            )
        except ValueError:
            # The text of the error may hold the password.
            raise StoreUnusable(
                "session.redis_url is no address of a Redis server, such as redis://host:6379/0"
            ) from None
        self._errors: tuple[type[Exception], ...] = (RedisError, OSError, TimeoutError)
        self._answered = ResponseError
        self._patience = patience
        self._rest = rest_seconds
        self._clock = clock
        self._rests_until = 0.0
        self._due: Due[Key, StoredSession] = Due(lambda row: len(row.value))
        self._outage = Outage()
        self._wake = asyncio.Event()
        self._ends = asyncio.Event()
        self._writing = asyncio.Lock()
        self._writer: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Task[bytes | None]] = set()

    async def start(self) -> None:
        """A connection may take longer than a request may wait; it stays open for the first one."""
        await self._get(PREFIX)

    def may_have(self, scope: str, id: str) -> bool:
        return True

    async def load(self, scope: str, id: str) -> bytes | None:
        waits, row = self._due.get((scope, id))
        if waits:
            return None if row is None else row.value
        if time.monotonic() < self._rests_until:
            return None
        # A cancelled call of the library does not end at once in every phase, so it is left behind instead; its own limit ends it.
        asking = asyncio.create_task(self._get(key_of(scope, id)))
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)
        done, _ = await asyncio.wait({asking}, timeout=self._patience)
        if done:
            return asking.result()
        self._fail(TimeoutError())
        return None

    async def _get(self, key: str) -> bytes | None:
        try:
            value = await self._redis.get(key)
        except self._errors as error:
            self._fail(error)
            return None
        return value if isinstance(value, bytes) else None

    async def newest(self, scope: str | None, most: int) -> list[bytes]:
        if time.monotonic() < self._rests_until or not await self._flush():
            return []
        found: list[bytes] = []
        # quote leaves no character in a scope that a pattern would understand.
        pattern = f"{PREFIX}*" if scope is None else f"{key_of(scope, '')}*"
        try:
            async with asyncio.timeout(_WRITE_PATIENCE):
                names = [name async for name in self._redis.scan_iter(match=pattern, count=500)]
                for start in range(0, len(names), 200):
                    values = await self._redis.mget(names[start : start + 200])
                    found += [value for value in values if isinstance(value, bytes)]
                    if len(found) >= most:
                        break
        except self._errors as error:
            self._fail(error)
        return found[:most]

    def save(self, row: StoredSession) -> None:
        self._put((row.scope, row.id), row)

    def delete(self, scope: str, id: str) -> None:
        self._put((scope, id), None)

    def trim(self, used_before: float, created_before: float, most: int) -> None:
        """Nothing to do: every key carries its own expiry."""

    async def flush(self) -> None:
        """Writes what is due, once; what fails stays due."""
        await self._flush()

    async def close(self) -> None:
        self._ends.set()
        self._wake.set()
        if self._writer is not None:
            await self._writer
        if not await self._flush():
            _LOG.warning("%d changes of sessions are lost: Redis cannot be reached", len(self._due))
        if self._asking:
            await asyncio.wait(self._asking, timeout=_WRITE_PATIENCE)
        with contextlib.suppress(*self._errors):
            await self._redis.aclose()

    def _put(self, key: Key, row: StoredSession | None) -> None:
        if self._due.put(key, row):
            self._wake.set()
            if self._writer is None:
                self._writer = asyncio.create_task(self._write())

    async def _write(self) -> None:
        # It ends by itself: a cancellation could strike in the middle of a write, or be lost in the library.
        task = asyncio.current_task()
        while not self._ends.is_set() and not (task is not None and task.cancelling()):
            await self._wake.wait()
            self._wake.clear()
            while len(self._due) and not await self._flush() and not self._ends.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._rest):
                        await self._ends.wait()

    async def _flush(self) -> bool:
        async with self._writing:
            rows = self._due.take()
            return not rows or await self._send(rows)

    async def _send(self, rows: dict[Key, StoredSession | None]) -> bool:
        now = self._clock()
        try:
            async with asyncio.timeout(_WRITE_PATIENCE), self._redis.pipeline(transaction=False) as pipeline:
                for key, row in rows.items():
                    life = 0 if row is None else math.ceil(row.ends - now)
                    if row is None or life <= 0:
                        pipeline.delete(key_of(*key))
                    else:
                        pipeline.set(key_of(*key), row.value, ex=life)
                await pipeline.execute()
        except self._errors as error:
            self._due.restore()
            self._fail(error)
            return False
        self._due.done()
        self._rests_until = 0.0
        self._outage.over("sessions are written to Redis again")
        return True

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, self._answered):
            self._rests_until = time.monotonic() + self._rest
        self._outage.tell(f"sessions are kept in memory: Redis cannot be used ({type(error).__name__})")
