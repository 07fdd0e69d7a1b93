"""The clients, a process of its own: so many requests a second whatever the answers do, each answer read to its end and judged.

Every few seconds it prints a line of JSON with what came of those that ended since; `last` marks the final one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import struct
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from tests.faults.soak.mix import AFTER, Asked, asked, rarely_collect, request_bytes, verdict
from tests.faults.stage import Answer

LONGEST: Final = 60.0
MOST_OPEN: Final = 1500
MOST_KEPT: Final = 50
MOST_REPEATED: Final = 5
EVERY: Final = 5.0
_SHOWN: Final = 5

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Since:
    """What happened since the last line."""

    ended: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        times = sorted(self.times)
        return {
            "ended": dict(self.ended),
            "wrong": self.wrong[:_SHOWN],
            "p50": times[len(times) // 2] if times else None,
            "p99": times[len(times) * 99 // 100] if times else None,
        }


class Clients:
    """All clients. Half of the requests come on connections that were used before."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._kept: list[Connection] = []
        self.since = Since()
        self._repeated: Counter[int] = Counter()
        self.open: set[asyncio.Task[None]] = set()

    async def run(self, first: int, rate: float, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        begun, number = loop.time(), 0
        said = begun
        while (now := loop.time()) < begun + seconds:
            while number <= (now - begun) * rate:
                self._begin(asked(first + number))
                number += 1
            if now >= said + EVERY:
                said = now
                self.say(number)
            await asyncio.sleep(max(0.001, begun + number / rate - loop.time()))
        if self.open:
            await asyncio.wait(self.open)
        for _, writer in self._kept:
            writer.close()
        self.say(number, last=True)

    def say(self, number: int, last: bool = False) -> None:
        line = {"asked": number, "open": len(self.open), "last": last, **self.since.told()}
        self.since = Since()
        print(json.dumps(line), flush=True)

    def _begin(self, one: Asked) -> None:
        if len(self.open) >= MOST_OPEN:
            self.since.ended["not asked, too many are open"] += 1
            return
        task = asyncio.get_running_loop().create_task(self._one(one))
        self.open.add(task)
        task.add_done_callback(self.open.discard)

    async def _one(self, one: Asked) -> None:
        begun = time.perf_counter()
        try:
            async with asyncio.timeout(LONGEST):
                answer = await self._ask(one)
                while answer is not None and _is_refused(answer) and self._may_repeat(one):
                    await asyncio.sleep(float(answer.headers["retry-after"]))
                    answer = await self._ask(one)
        except TimeoutError:
            return self._judged(one, f"no end within {LONGEST:g} s")
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            return self._judged(one, f"{error!r}")
        if answer is None:
            self.since.ended["left"] += 1
            return None
        why = verdict(one, answer)
        if not why and not one.stream and one.fate == "ok":
            self.since.times.append((time.perf_counter() - begun) * 1000)
        return self._judged(one, why)

    def _may_repeat(self, one: Asked) -> bool:
        """A machine that is busy with other things makes the proxy refuse; clients come back when they are told to."""
        self.since.ended["refused, asked again"] += 1
        self._repeated[one.number] += 1
        return self._repeated[one.number] <= MOST_REPEATED

    def _judged(self, one: Asked, why: str) -> None:
        self._repeated.pop(one.number, None)
        if why:
            self.since.ended["wrong"] += 1
            self.since.wrong.append(f"{one}: {why}")
        elif one.fate in AFTER:
            self.since.ended["broken off as they should"] += 1
        else:
            self.since.ended["stream" if one.stream else "whole"] += 1

    async def _ask(self, one: Asked) -> Answer | None:
        data = request_bytes(one)
        while True:
            used, (reader, writer) = await self._connection(one)
            try:
                writer.write(data)
                if one.leave:
                    await _leave(one, reader, writer)
                    return None
                status, headers = await _head(reader)
                break
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                writer.transport.abort()
                # An idle connection may end just when it is used again: clients then ask once more.
                if not used or (isinstance(error, asyncio.IncompleteReadError) and error.partial):
                    raise
                self.since.ended["asked again on another connection"] += 1
        body, complete = await _body(reader, headers)
        if complete and headers.get("connection") != "close" and len(self._kept) < MOST_KEPT:
            self._kept.append((reader, writer))
        else:
            writer.transport.abort()
        return Answer(status, headers, body, complete)

    async def _connection(self, one: Asked) -> tuple[bool, Connection]:
        while one.number % 2 and self._kept:
            reader, writer = self._kept.pop()
            if not reader.at_eof() and not writer.is_closing():
                return True, (reader, writer)
            writer.close()
        return False, await asyncio.open_connection("127.0.0.1", self._port, limit=2**20)


def _is_refused(answer: Answer) -> bool:
    """Turned away by the proxy itself, before anybody was called."""
    return (
        answer.status in (503, 529) and "retry-after" in answer.headers and b"as many requests as it can" in answer.body
    )


async def _leave(one: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The client goes, in order or by a reset, at the moment that is its lot."""
    match one.leave:
        case "at once":
            await writer.drain()
        case "at the first piece":
            await reader.read(1)
        case _:
            await reader.readuntil(b"\r\n\r\n")
            await reader.read(2000)
    if one.number % 3 == 0:
        raw = writer.get_extra_info("socket")
        if raw is None:
            return  # it was closed from the other side
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    else:
        writer.close()


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
    }
    return int(first.split()[1]), headers


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> tuple[bytes, bool]:
    """The body as far as it came, and whether it ended as its framing says."""
    pieces: list[bytes] = []
    try:
        if "content-length" in headers:
            return await reader.readexactly(int(headers["content-length"])), True
        while size := int(await reader.readuntil(b"\r\n"), 16):
            pieces.append((await reader.readexactly(size + 2))[:-2])
        await reader.readexactly(2)
        return b"".join(pieces), True
    except (asyncio.IncompleteReadError, ConnectionError):
        return b"".join(pieces), False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--rate", type=float, default=150.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    rarely_collect()
    factory = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(Clients(given.port).run(given.first, given.rate, given.seconds))


if __name__ == "__main__":
    main()
