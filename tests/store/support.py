"""What the tests of this folder share: a clock that is set by hand, a Redis server on loopback, and the engines to run one test on."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator

from fakeredis import TcpFakeServer

from llm_proxy.sessions.history import Entry
from llm_proxy.store.sessions import SessionBacking, Sessions

START = 1_700_000_000.0


class Clock:
    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class RedisServer:
    """A server in this process; it can be stopped and started again on its port, and then has lost everything."""

    def __init__(self) -> None:
        self._server: TcpFakeServer | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self._server = TcpFakeServer(("127.0.0.1", self.port))
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@contextlib.contextmanager
def running_redis() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Engine:
    """How to make a backing for the same place again, as a restart does."""

    def __init__(self, name: str, make: Callable[[], SessionBacking | None]) -> None:
        self.name = name
        self.make = make

    def sessions(
        self,
        clock: Callable[[], float],
        *,
        expiry_seconds: float = 86_400,
        max_age: float = 604_800,
        max_sessions: int = 1000,
        never_stored: tuple[str, ...] = (),
    ) -> Sessions:
        return Sessions(
            clock=clock,
            expiry_seconds=expiry_seconds,
            max_age=max_age,
            max_sessions=max_sessions,
            backing=self.make(),
            never_stored=never_stored,
        )


async def use(sessions: Sessions, scope: str, id: str, **values: object) -> None:
    """One request that sets `values`."""
    session = await sessions.open(scope, id)
    for key, value in values.items():
        session.choose(key, value)
    sessions.release(session)


def entry(number: int) -> Entry:
    return Entry(time=START + number, prompt=f"question {number}", handler="backend", response="answer")


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what another thread or task does; ends only when it has happened or when 20 seconds are over."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)
