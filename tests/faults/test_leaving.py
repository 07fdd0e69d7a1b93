"""A client that leaves frees the upstream in every phase; a client that stops reading pauses it (L-01 to L-05, FE-10)."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults.stage import PATIENCE, Leave, Stage, deltas, request_bytes, stage, whole
from tests.support.proxy import BACKEND_OF
from tests.support.shared import PROTOCOLS, Protocol
from tests.support.upstream import Endless, Hang, Moment, Pause, Reply, Reset, Send

_NUMBERS = itertools.count()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def running() -> AsyncIterator[Stage]:
    async with stage() as made:
        yield made


pytestmark = pytest.mark.asyncio(loop_scope="module")


def phases(back: Protocol) -> dict[str, tuple[bool, Reply, bytes]]:
    """Phase -> (stream, what the upstream does, what the client reads before it leaves)."""
    frames = deltas(back)
    body = json.dumps(whole(back)).encode()
    stream_type = [("content-type", "text/event-stream")]
    json_type = [("content-type", "application/json")]
    return {
        "waiting for headers": (True, Reply(before=[Hang()]), b""),
        "waiting for the first byte": (True, Reply(headers=stream_type, steps=[Hang()]), b""),
        "before the first content": (
            True,
            Reply(headers=stream_type, steps=[Send(b": wait\n\n"), Hang()]),
            b"",
        ),
        "in the middle": (True, Reply(headers=stream_type, steps=[*map(Send, frames), Hang()]), b"w2 "),
        "while it flows": (
            True,
            Reply(headers=stream_type, steps=[*map(Send, frames), Endless(frames[-1])]),
            b"w2 ",
        ),
        "waiting for a whole answer": (False, Reply(before=[Hang()]), b""),
        "half a whole answer": (False, Reply(headers=json_type, steps=[Send(body[:20]), Hang()]), b""),
    }


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("phase", list(phases("openai-chat")))
@pytest.mark.parametrize("client", PROTOCOLS)
async def test_leaving_frees_the_upstream(running: Stage, client: Protocol, phase: str, how: Leave) -> None:
    # Each client protocol once verbatim and once translated, spread over the ways of leaving.
    back: Protocol = client if how == "fin" else "anthropic-messages" if client == "openai-chat" else "openai-chat"
    stream, reply, read = phases(back)[phase]
    running.play(reply)
    arrival = running.upstream.arrival()
    connection = await running.client()
    await connection.send(request_bytes(client, f"{BACKEND_OF[back]}:m{next(_NUMBERS)}", stream))
    await asyncio.wait_for(arrival, PATIENCE)
    if read:
        await connection.read_until(read)
    connection.leave(how)
    await asyncio.wait_for(running.upstream.requests[0].closed, PATIENCE)


async def test_leaving_between_attempts_stops_the_next_one() -> None:
    """L-03: no attempt starts after the client has left."""
    gate = Moment()
    async with stage(Reply(before=[Pause(gate), Reset()]), config={}) as made:
        made.play([Reply(before=[Hang()]), Reply.json(whole("openai-chat"))])
        arrival = made.upstream.arrival()
        connection = await made.client()
        await connection.send(request_bytes("openai-chat", "up-chat:m", True))
        await asyncio.wait_for(arrival, PATIENCE)
        connection.leave("rst")
        await asyncio.wait_for(made.upstream.requests[0].closed, PATIENCE)
        answer = await made.ask("openai-chat", "openai-chat", False)
        assert answer.status == 200
        assert len(made.upstream.requests) == 2  # the one that was left, and the one after it


async def test_leaving_still_records_the_usage_so_far(running: Stage) -> None:
    """L-04: a row with token source partial or estimated exists for the exchange that was left."""
    running.play(Reply.sse(*deltas("anthropic-messages"), Hang()))
    connection = await running.client()
    model = f"left-{next(_NUMBERS)}"
    await connection.send(request_bytes("anthropic-messages", f"up-anthropic:{model}", True))
    await connection.read_until(b"w2 ")
    connection.leave("fin")
    await asyncio.wait_for(running.upstream.requests[0].closed, PATIENCE)
    rows = await usage_rows(running)
    [row] = [row for row in rows if row["model"] == f"up-anthropic:{model}"]
    assert row["prompt_tokens"] == 7
    assert row["token_source"] == "partial"


async def usage_rows(made: Stage) -> list[dict[str, object]]:
    connection = await made.client()
    try:
        await connection.send(
            b"GET /usage/recent HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer test-client-key\r\n\r\n"
        )
        answer = await connection.read_answer()
    finally:
        connection.close()
    rows: list[dict[str, object]] = answer.json["data"]
    return rows


@pytest.mark.parametrize("client", ["openai-chat", "anthropic-messages"])
async def test_readers_that_stop_reading_pause_the_upstream(client: Protocol) -> None:
    """L-05: twenty stopped readers of an endless upstream; it can send no more than 8 MB to each, kernel buffers included."""
    frames = deltas("openai-chat")
    limit = 64 * 1024 * 1024
    script = Reply.sse(*frames, Endless(frames[-1] * 50, limit=limit))
    async with stage(script) as made:
        connections = [await made.client(receive_buffer=4096) for _ in range(20)]
        for connection in connections:
            await connection.send(request_bytes(client, "up-chat:m", True))
        for connection in connections:
            await connection.read_until(b"w2 ")
        await asyncio.wait_for(made.upstream.arrival(20), PATIENCE)
        await settled(made)
        sent = [made.upstream.sent_to(request) for request in made.upstream.requests]
        assert len(sent) == 20
        assert max(sent) <= 8 * 1024 * 1024
        for connection in connections:
            connection.close()
        for request in made.upstream.requests:
            await asyncio.wait_for(request.closed, PATIENCE)


async def settled(made: Stage) -> None:
    """Until the upstream has sent nothing more for a while: it is paused, or it would have sent everything."""
    before = -1
    while (now := sum(made.upstream.sent_to(request) for request in made.upstream.requests)) != before:
        before = now
        await asyncio.sleep(0.3)
