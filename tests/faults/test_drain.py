"""SIGTERM under load loses nothing (P6, L-11): what was accepted ends whole or says in its protocol that it could not, and is accounted for."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.faults.failing import call, ends_in_failure, text_of, text_of_whole
from tests.faults.stage import Answer, RawClient, Stage, deltas, ending, request_bytes, whole
from tests.support.proxy import BACKEND_OF, backends_at, running_proxy
from tests.support.shared import PROTOCOLS, Protocol
from tests.support.upstream import Hang, Moment, Pause, Received, Reply, Send, Upstream

PAIRS: Final = [(client, back) for client in PROTOCOLS for back in PROTOCOLS]
TEXT: Final = "w0 w1 w2 "
LONGEST: Final = 60.0


@dataclass(frozen=True)
class Course:
    """How many streams wait for what before they end, how many never end, and how many whole answers wait like the first."""

    first: Pause
    second: Pause
    grace: float
    waiting: tuple[int, int, int] = (20, 20, 10)
    whole: int = 6


@dataclass
class Opened:
    """A request under way. `kind`: 0 waits for the first moment, 1 for the second, 2 never ends, 3 is a whole answer."""

    number: int
    kind: int
    client: Protocol
    back: Protocol
    connection: RawClient

    @property
    def id(self) -> str:
        return f"rq-{self.number:03}"


def _protocol(request: Received) -> Protocol:
    return next(
        protocol
        for mark, protocol in (
            ("/chat/completions", "openai-chat"),
            ("/responses", "openai-responses"),
            ("/messages", "anthropic-messages"),
            ("", "gemini"),
        )
        if mark in request.path
    )


def provider(course: Course, kinds: Mapping[int, int]) -> Any:
    """Says three words, waits as the number in the model's name wants it, and ends."""

    def script(request: Received) -> Reply:
        protocol = _protocol(request)
        name = request.path if protocol == "gemini" else request.json["model"]
        number = int(name.rpartition("m-")[2].partition(":")[0])
        match kinds[number]:
            case 3:
                return Reply(before=[course.first], body=Reply.json(whole(protocol, TEXT)).body,
                             headers=[("content-type", "application/json")])  # fmt: skip
            case 2:
                return Reply.sse(*deltas(protocol), Hang())
            case kind:
                pause = course.first if kind == 0 else course.second
                return Reply.sse(*map(Send, deltas(protocol)), pause, *ending(protocol))

    return script


@asynccontextmanager
async def house(folder: Path, script: Any, grace: float) -> AsyncIterator[Stage]:
    """A proxy whose data outlive it."""
    async with Upstream(script) as upstream:
        config = {
            "backends": backends_at(upstream.url),
            "proxy": {"shutdown_grace": grace, "stream_keepalive_seconds": 0},
        }
        with running_proxy(config=config, data_dir=folder) as proxy:
            yield Stage(proxy, upstream)


async def begin(made: Stage, kinds: Mapping[int, int]) -> list[Opened]:
    """All requests sent; of each stream the first words are here, of each other one the provider has the request."""
    opened = []
    for number, kind in kinds.items():
        client, back = PAIRS[number % len(PAIRS)]
        one = Opened(number, kind, client, back, await made.client())
        model = f"{BACKEND_OF[back]}:m-{number}"
        await one.connection.send(request_bytes(client, model, kind != 3, {"x-request-id": one.id}))
        opened.append(one)
    await asyncio.wait_for(made.upstream.arrival(len(kinds)), LONGEST)
    return opened


async def read(one: Opened) -> Answer:
    """Everything until the end."""
    async with asyncio.timeout(LONGEST):
        status = await one.connection.read_head()
        headers = one.connection.headers
        reader = one.connection.reader
        if "content-length" in headers:
            return Answer(status, headers, await reader.readexactly(int(headers["content-length"])))
        pieces: list[bytes] = []
        try:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                pieces.append((await reader.readexactly(size + 2))[:-2])
            await reader.readexactly(2)
        except asyncio.IncompleteReadError:
            return Answer(status, headers, b"".join(pieces), complete=False)
        return Answer(status, headers, b"".join(pieces))


def judge(one: Opened, answer: Answer) -> str:
    """What is wrong with what a client got; "" when it is what was promised."""
    if answer.status != 200 or not answer.complete:
        return f"status {answer.status}, complete {answer.complete}: {answer.body[:300]!r}"
    if one.kind == 3:
        return "" if text_of_whole(one.client, answer.json) == TEXT else f"{answer.body[:300]!r}"
    if text_of(one.client, answer) != TEXT:
        return f"text {text_of(one.client, answer)!r}"
    if one.kind == 2:
        return "" if ends_in_failure(one.client, answer) else f"ended without an error: {answer.body[-300:]!r}"
    if one.client == one.back:
        # The usage of a Chat stream is for those who asked for it.
        sent = b"".join(frame for frame in (*deltas(one.back), *ending(one.back)) if b'"prompt_tokens"' not in frame)
        return "" if answer.body == sent else f"other bytes than those of the provider: {answer.body!r}"
    return "error inside" if ends_in_failure(one.client, answer) else ""


async def withdrawn(made: Stage) -> float:
    """Seconds until readiness is withdrawn."""
    begun = time.monotonic()
    while (await call(made, "GET", "/health?ready=1")).status != 503:
        assert time.monotonic() < begun + LONGEST
    return time.monotonic() - begun


async def rows_after(folder: Path, count: int) -> dict[str, dict[str, Any]]:
    """The usage rows as the next start finds them; every id once."""
    async with house(folder, Reply.json({}), 1.0) as made:
        rows = (await call(made, "GET", "/usage/recent?limit=1000")).json["data"]
    twice = [id for id, found in Counter(row["id"] for row in rows).items() if found > 1]
    assert not twice
    assert len(rows) == count
    return {row["id"]: row for row in rows}


async def drained(folder: Path, course: Course, moments: tuple[Moment, ...] = ()) -> float:
    """Stops a proxy with these streams open and judges everything; gives the seconds from the signal until it was not ready."""
    kinds = dict(
        enumerate(itertools.chain(*([kind] * many for kind, many in enumerate((*course.waiting, course.whole)))))
    )
    async with house(folder, provider(course, kinds), course.grace) as made:
        opened = await begin(made, kinds)
        idle, fresh, used = [await made.client() for _ in range(3)]
        await used.send(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        assert (await used.read_answer()).status == 200
        made.proxy.process.send_signal(signal.SIGTERM)
        seconds = await withdrawn(made)
        # Who was connected before the signal, with or without a request, is told like those who come after it.
        for connection in (fresh, used, await made.client()):
            await connection.send(request_bytes("openai-chat", "up-chat:m-0", True))
            refused = await connection.read_answer()
            assert refused.status == 503, refused.body
            assert int(refused.headers["retry-after"]) >= 1
            connection.close()
        assert (await call(made, "GET", "/health")).status == 200
        for moment in moments:
            moment.happen()
        answers = await asyncio.gather(*map(read, opened))
        assert await asyncio.to_thread(made.proxy.process.wait, LONGEST) == 0
        assert await asyncio.wait_for(idle.reader.read(), LONGEST) == b""
        wrong = [f"{one.id} {one.client} at {one.back}, kind {one.kind}: {why}"
                 for one, answer in zip(opened, answers, strict=True) if (why := judge(one, answer))]  # fmt: skip
        assert not wrong, f"{len(wrong)} of {len(opened)}:\n" + "\n".join(wrong[:5])
        assert "Traceback" not in made.proxy.output
        for connection in (*(one.connection for one in opened), idle):
            connection.close()
    rows = await rows_after(folder, len(kinds))
    for one in opened:
        row = rows[one.id]
        assert row["status"] == 200, row
        assert (row["token_source"] == "partial") is (one.kind == 2), row
    return seconds


async def test_streams_that_end_within_the_grace_are_complete_and_the_rest_say_so(tmp_path: Path) -> None:
    """50 streams: 20 end soon, 20 later, 10 never; besides whole answers that are awaited. Exit 0, and every row is there."""
    first, second = Moment(), Moment()
    seconds = await drained(tmp_path, Course(Pause(first), Pause(second), grace=4.0), (first, second))
    assert seconds < 2.0, "not ready within 100 ms on a quiet machine"


@pytest.mark.long
async def test_so_it_is_with_the_grace_of_the_default(tmp_path: Path) -> None:
    """20 end in 2 s, 20 in 20 s, 10 are endless; grace 30 s."""
    await drained(tmp_path, Course(Pause(2.0), Pause(20.0), grace=30.0))


async def test_no_request_that_was_accepted_is_dropped(tmp_path: Path) -> None:
    """Clients connect and ask without pause while the signal comes: each gets its whole answer, or 503 with Retry-After."""
    numbers = itertools.count()
    answered: list[str] = []
    told_to_come_back = Moment()

    def script(request: Received) -> Reply:
        pause = Pause(told_to_come_back) if request.json["model"] == "m-1" else Pause(0.05)
        return Reply.sse(*map(Send, deltas("openai-chat")), pause, *ending("openai-chat"))

    async def ask(made: Stage, model: str) -> bool:
        id = f"rq-{next(numbers):05}"
        one = Opened(0, 0, "openai-chat", "openai-chat", await made.client())
        try:
            await one.connection.send(request_bytes("openai-chat", f"up-chat:{model}", True, {"x-request-id": id}))
            answer = await read(one)
        finally:
            one.connection.close()
        if answer.status == 503:
            assert int(answer.headers["retry-after"]) >= 1
            return False
        assert judge(one, answer) == ""
        answered.append(id)
        return True

    async def client(made: Stage) -> None:
        while await ask(made, "m-0"):
            pass

    async with house(tmp_path, script, LONGEST) as made:
        last = asyncio.create_task(ask(made, "m-1"))  # as long as it is open, there is somebody to tell the others
        clients = [asyncio.create_task(client(made)) for _ in range(16)]
        await asyncio.wait_for(made.upstream.arrival(100), LONGEST)
        made.proxy.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*clients)
        told_to_come_back.happen()
        assert await last
        assert await asyncio.to_thread(made.proxy.process.wait, LONGEST) == 0
    rows = await rows_after(tmp_path, len(answered))
    assert {id: rows[id]["status"] for id in answered} == dict.fromkeys(answered, 200)
