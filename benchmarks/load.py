"""The load generator: bare HTTP/1.1 connections on the event loop, with keep-alive, that count answers and
never parse them.

Three kinds of load: closed loop (each connection asks again as soon as it is answered), streams that begin
together, and a fixed rate whose answers are timed. Each is bounded in time and count.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import cast

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_END = b"\r\n0\r\n\r\n"

PATIENCE = 60.0
"""Seconds after which a load that does not end is given up."""


class LoadFailed(Exception):
    """The target did not answer as it should; the message says how, for one line in the report."""


class Asker(asyncio.Protocol):
    """One connection with at most one request under way."""

    def __init__(self, answered: Callable[[Asker], None], failed: Callable[[str], None]) -> None:
        self._answered = answered
        self._failed = failed
        self._head = b""
        self._left = -1  # bytes of the body still to come, or -1: chunked
        self._tail = b""
        self._busy = False
        self.sent = 0.0
        self.first: Callable[[], None] | None = None
        self.kept = b""
        self.keep = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._busy:
            self._busy = False
            self._failed(f"the connection was closed before the end of an answer ({exc or 'no error'})")

    def ask(self, request: bytes) -> None:
        self._head, self._left, self._tail, self._busy = b"", -1, b"", True
        self.sent = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self.keep:
            self.kept += data
        if self._head:
            if self._left >= 0:
                self._left -= len(data)
                if self._left <= 0:
                    self._done()
            else:
                tail = data if len(data) >= 7 else self._tail + data
                if tail.endswith(_END):
                    self._done()
                else:
                    self._tail = tail[-7:]
            return
        data = self._tail + data
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            self._tail = data
            return
        self._tail = b""
        self._head = data[:end]
        if self._head[9:12] != b"200":
            self._busy = False
            self._failed(f"it answered {data[:400].decode('latin-1')!r}")
            return
        if self.first is not None:
            self.first()
        found = _LENGTH.search(self._head)
        if found is not None:
            self._left = int(found[1]) - (len(data) - end)
            if self._left <= 0:
                self._done()
        else:
            self._left = -1
            # The line end before the last chunk may be that of the head.
            if data[end - 2 :].endswith(_END):
                self._done()
            else:
                self._tail = data[-7:]

    def _done(self) -> None:
        self._busy = False
        self._answered(self)

    def close(self) -> None:
        self._busy = False
        self.transport.abort()


class _Run:
    """The future that a load waits for."""

    def __init__(self) -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, why: str) -> None:
        if not self.over.done():
            self.over.set_exception(LoadFailed(why))

    def end(self) -> None:
        if not self.over.done():
            self.over.set_result(None)

    async def wait(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await self.over
        except TimeoutError:
            raise LoadFailed(f"it did not answer within {PATIENCE:.0f} s") from None


async def _connect(port: int, answered: Callable[[Asker], None], failed: Callable[[str], None]) -> Asker:
    loop = asyncio.get_running_loop()
    try:
        _, asker = await loop.create_connection(lambda: Asker(answered, failed), "127.0.0.1", port)
    except OSError as error:
        raise LoadFailed(f"no connection: {error}") from None
    return asker


async def ask_once(port: int, request: bytes) -> bytes:
    """One request on a connection of its own; its whole answer with the head."""
    run = _Run()
    asker = await _connect(port, lambda _: run.end(), run.fail)
    asker.keep = True
    asker.ask(request)
    try:
        await run.wait()
    finally:
        asker.close()
    return asker.kept


async def closed_loop(port: int, request: bytes, *, connections: int, seconds: float) -> int:
    """Asks on all connections for `seconds`, lets the last answers arrive, returns how many there were."""
    run = _Run()
    count = 0
    open_ = connections
    deadline = 0.0

    def answered(asker: Asker) -> None:
        nonlocal count, open_
        count += 1
        if time.perf_counter() < deadline:
            asker.ask(request)
        else:
            open_ -= 1
            if not open_:
                run.end()

    askers = [await _connect(port, answered, run.fail) for _ in range(connections)]
    deadline = time.perf_counter() + seconds
    for asker in askers:
        asker.ask(request)
    try:
        await run.wait()
    finally:
        for asker in askers:
            asker.close()
    return count


async def together(port: int, request: bytes, *, connections: int) -> int:
    """One request on each connection, all at once; waits until all are answered."""
    return await closed_loop(port, request, connections=connections, seconds=0.0)


async def at_rate(port: int, request: bytes, *, rate: float, seconds: float) -> list[float]:
    """Asks `rate` times per second at even distances, whatever the answers do; sorted times in seconds."""
    run = _Run()
    loop = asyncio.get_running_loop()
    times: list[float] = []
    free: list[Asker] = []
    total = int(rate * seconds)

    def answered(asker: Asker) -> None:
        times.append(time.perf_counter() - asker.sent)
        free.append(asker)
        if len(times) == total:
            run.end()

    askers = [await _connect(port, answered, run.fail) for _ in range(32)]
    for asker in askers:  # the first request of a connection pays for both sides' set-up
        asker.ask(request)
    while len(times) < len(askers):
        if run.over.done():
            break
        await asyncio.sleep(0.005)
    times.clear()
    begin = loop.time()

    def due() -> None:
        if free:
            free.pop().ask(request)
        else:
            run.fail(f"it does not keep up with {rate:.0f} requests per second")

    for number in range(total):
        loop.call_at(begin + number / rate, due)
    try:
        await run.wait()
    finally:
        for asker in askers:
            asker.close()
    return sorted(times)


class OpenStreams:
    """Streams that stay open: `async with` gives them once the first bytes of each have arrived."""

    def __init__(self, port: int, request: bytes, count: int) -> None:
        self._port = port
        self._request = request
        self._count = count
        self._askers: list[Asker] = []

    async def __aenter__(self) -> None:
        run = _Run()
        begun = 0

        def first() -> None:
            nonlocal begun
            begun += 1
            if begun == self._count:
                run.end()

        for _ in range(self._count):
            asker = await _connect(self._port, lambda _: run.fail("a stream ended early"), run.fail)
            asker.first = first
            self._askers.append(asker)
            asker.ask(self._request)
        try:
            await run.wait()
        except BaseException:
            await self.__aexit__()
            raise

    async def __aexit__(self, *_: object) -> None:
        for asker in self._askers:
            asker.close()
