"""Waiting for a cooling key (RT-10): the client is kept alive, gets its answer when the key may be called again, and may leave.

What keeps a client alive commits to nothing: until the first content another attempt may follow (RT-09, FE-10).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
import pytest_asyncio

from tests.faults import failing
from tests.faults.failing import (
    OTHER,
    answering,
    ask,
    assert_answered,
    assert_refused,
    by_element,
    called,
    error_reply,
    first_event,
    lifecycle,
    row_of,
    surfaces,
)
from tests.faults.stage import PATIENCE, Answer, Stage, request_bytes
from tests.support import grammar
from tests.support.proxy import running_proxy
from tests.support.shared import PROTOCOLS, Protocol
from tests.support.upstream import Moment, Pause, Reply, Reset, Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared_waiting() -> AsyncIterator[Stage]:
    async with Upstream(failing.by_element()) as upstream:
        config = {
            "backends": failing.pairs_at(upstream.url),
            "failover_routes": failing.routes_of(),
            "failover": {"max_wait_seconds": 2.0},
        }
        with running_proxy(["--stream-keepalive", "0.05"], config) as proxy:
            yield Stage(proxy, upstream)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared_quiet() -> AsyncIterator[Stage]:
    async with Upstream(by_element()) as upstream:
        config: dict[str, Any] = {"backends": failing.pairs_at(upstream.url), "failover": {"max_wait_seconds": 2.0}}
        with running_proxy(config=config) as proxy:
            yield Stage(proxy, upstream)


@pytest_asyncio.fixture(loop_scope="module")
async def quiet(shared_quiet: Stage) -> AsyncIterator[Stage]:
    """Up to two seconds of waiting, and no keep-alive in so short a time."""
    shared_quiet.play(by_element())
    await failing.wake(shared_quiet)
    yield shared_quiet


@pytest_asyncio.fixture(loop_scope="module")
async def waiting(shared_waiting: Stage) -> AsyncIterator[Stage]:
    """Keep-alives at once, and up to two seconds of waiting for a cooling key."""
    shared_waiting.play(by_element())
    await failing.wake(shared_waiting)
    yield shared_waiting


ALIVE: Final = {"openai-chat": b": ", "openai-responses": b": ", "anthropic-messages": b"event: ping", "gemini": b""}


@pytest.mark.parametrize("begun", [False, True], ids=["silent", "after lifecycle frames"])
@pytest.mark.parametrize("route", ["via", "back"])
@pytest.mark.parametrize("client", PROTOCOLS)
async def test_keep_alives_and_lifecycle_frames_are_not_content(
    waiting: Stage, client: Protocol, route: str, begun: bool
) -> None:
    """The first element is silent until the client has been kept alive, and then fails: the second one answers."""
    back = client if route == "via" else OTHER[client]
    told = begun and back != "gemini"  # a comment of the provider says nothing to any client
    # Where no keep-alive may be sent, the silence lasts as long as several would take.
    expected = b"" if client == "anthropic-messages" and not told else ALIVE[client]
    go = Moment()
    pause = Pause(go if expected else 0.2)
    one = Reply.sse(*lifecycle(back), pause, first_event(back, 500)) if begun else Reply(before=[pause, Reset()])
    waiting.play(by_element(one=one))
    connection = await waiting.client()
    try:
        await connection.send(request_bytes(client, f"{route}-{client}", True))
        kept = b""
        if expected:
            assert await connection.read_head() == 200
            while expected not in kept:
                kept += await asyncio.wait_for(connection.reader.readline(), PATIENCE)
            go.happen()
            rest = await asyncio.wait_for(connection.reader.readuntil(b"\r\n0\r\n\r\n"), PATIENCE)
            answer = Answer(200, connection.headers, failing.unchunked(kept + rest))
        else:
            answer = await connection.read_answer()
    finally:
        connection.close()
    assert list(dict.fromkeys(called(waiting))) == ["one", "two"]
    assert_answered(client, True, answer)
    if route == "via" or client == "anthropic-messages":  # else the second element is quoted as it is
        assert grammar.check_stream(client, answer.body) == []


async def test_a_begun_message_ends_with_the_error_when_all_attempts_fail(waiting: Stage) -> None:
    client: Protocol = "anthropic-messages"
    waiting.play(
        by_element(one=Reply.sse(*lifecycle(client), Pause(0.2), Reset()), two=error_reply("openai-responses", 500))
    )
    answer = await ask(waiting, client, f"via-{client}", True)
    assert called(waiting) == ["one", "two"]
    assert answer.status == 200 and answer.complete
    assert grammar.check_stream(client, answer.body) == []
    assert answer.body.count(b"event: message_start") == 1 and b"event: ping" in answer.body
    assert b"backend said 500" in answer.body and failing.ends_in_failure(client, answer)


# RT-10: waiting for a cooling key


def once_limited(back: Protocol, stream: bool, milliseconds: int, text: str = "fine") -> list[Reply]:
    limited = error_reply(back, 429, headers=[("retry-after-ms", str(milliseconds))])
    return [limited, answering(back, stream, text)]


@surfaces
async def test_a_short_cooldown_is_waited_for_and_then_answered(waiting: Stage, client: Protocol, stream: bool) -> None:
    waiting.play(once_limited(client, stream, 250))
    answer = await ask(waiting, client, f"one-{client}:m", stream)
    assert_answered(client, stream, answer, "w0 w1 w2 " if stream else "fine")
    first, second = waiting.upstream.requests
    assert second.at - first.at >= 0.25
    if stream and client in ("openai-chat", "openai-responses"):
        assert answer.body.startswith(b":")  # the client was kept alive meanwhile
    elif stream:
        assert not answer.body.startswith(b":")


async def test_a_key_that_was_cooling_before_is_waited_for_too(quiet: Stage) -> None:
    """The second request begins while the key cools, so its plan holds no attempt at all."""
    limited = error_reply("openai-chat", 429, headers=[("retry-after-ms", "400")])
    quiet.play(lambda request: limited if request is quiet.upstream.requests[0] else answering("openai-chat", False))
    first = asyncio.create_task(ask(quiet, "openai-chat", "one-openai-chat:m", False))
    await asyncio.wait_for(quiet.upstream.arrival(), PATIENCE)
    await asyncio.wait_for(quiet.upstream.requests[0].answered, PATIENCE)
    async with asyncio.timeout(PATIENCE):
        while not await failing.resting(quiet):
            pass
    second = await ask(quiet, "openai-chat", "one-openai-chat:m", False)
    assert_answered("openai-chat", False, second, "fine")
    assert "x-llm-proxy-attempts" not in second.headers
    assert_answered("openai-chat", False, await first, "fine")
    times = [request.at for request in quiet.upstream.requests]
    assert len(times) == 3
    assert min(times[1:]) - times[0] >= 0.4


@surfaces
async def test_a_cooldown_that_is_longer_than_the_limit_is_told_at_once(
    quiet: Stage, client: Protocol, stream: bool
) -> None:
    quiet.play(error_reply(client, 429, headers=[("retry-after", "7")]))
    loop = asyncio.get_running_loop()
    start = loop.time()
    answer = await ask(quiet, client, f"one-{client}:m", stream)
    assert_refused(client, answer, 429)
    assert 6 <= int(answer.headers["retry-after"]) <= 7
    assert loop.time() - start < 1.5
    assert len(quiet.upstream.requests) == 1


@surfaces
async def test_a_client_that_leaves_ends_the_wait(quiet: Stage, client: Protocol, stream: bool) -> None:
    quiet.play(error_reply(client, 429, headers=[("retry-after-ms", "1900")]))
    connection = await quiet.client()
    id = f"waiting-{client}-{stream}"
    await connection.send(request_bytes(client, f"one-{client}:m", stream, {"x-request-id": id}))
    await asyncio.wait_for(quiet.upstream.arrival(), PATIENCE)
    await asyncio.wait_for(quiet.upstream.requests[0].answered, PATIENCE)
    connection.leave("rst")
    row = await row_of(quiet, id)
    assert row["attempts"] == 1
    assert row["execution_time"] < 1.5
    assert len(quiet.upstream.requests) == 1


async def test_waiting_is_bounded_in_all_and_makes_no_more_than_32_calls(quiet: Stage) -> None:
    """A key that is limited again and again: the waits of one request together stay below the limit."""
    quiet.play(error_reply("openai-chat", 429, headers=[("retry-after-ms", "450")]))
    answer = await ask(quiet, "openai-chat", "one-openai-chat:m", False)
    assert_refused("openai-chat", answer, 429)
    assert 2 <= len(quiet.upstream.requests) <= 5
    assert quiet.upstream.requests[-1].at - quiet.upstream.requests[0].at < 2.5
    assert answer.headers["x-llm-proxy-attempts"] == str(len(quiet.upstream.requests))


@pytest.mark.parametrize("client", ["openai-chat", "openai-responses"])
async def test_a_wait_that_was_in_vain_ends_a_kept_alive_stream_with_the_error(
    waiting: Stage, client: Protocol
) -> None:
    limited = error_reply(client, 429, headers=[("retry-after-ms", "250")])
    waiting.play([limited, error_reply(client, 422, "this request is wrong")])
    answer = await ask(waiting, client, f"one-{client}:m", True)
    assert answer.status == 200 and answer.complete
    assert b"this request is wrong" in answer.body
    assert failing.ends_in_failure(client, answer)
    assert json.dumps("w0") not in answer.body.decode()
