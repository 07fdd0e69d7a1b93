"""Who listens to a call hears everything once: what was sent, the head, each piece decompressed, and the end with its reason."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Sequence

import pytest

from llm_proxy.backends.base import Call
from llm_proxy.backends.demo import DemoBackend
from llm_proxy.backends.transport import LEFT_UNREAD, ConnectError, Transport, endpoint
from llm_proxy.config.backends import BackendSettings
from llm_proxy.conversation.fault import FaultError
from tests.support.upstream import Close, Hang, Reply, Send, Upstream, refusing_url


class Tape:
    """What was heard, in order."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []

    def request(self, destination: str, body: bytes) -> None:
        self.heard.append(("request", destination, body))

    def response(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        self.heard.append(("response", status))

    def chunk(self, data: bytes) -> None:
        self.heard.append(("chunk", data))

    def end(self, failure: str = "") -> None:
        self.heard.append(("end", failure))

    @property
    def ends(self) -> list[object]:
        return [one[1] for one in self.heard if one[0] == "end"]


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    made = Transport(environ={})
    yield made
    await made.close()


async def test_a_whole_answer(transport: Transport) -> None:
    tape = Tape()
    async with Upstream(Reply(body=b"fine")) as upstream:
        response = await transport.post(endpoint(f"{upstream.url}/v1/x?key=k"), {}, b"{}", tap=tape)
        assert await response.read() == b"fine"
        response.close()
        response.close()
    assert tape.heard == [
        ("request", f"{upstream.url}/v1/x", b"{}"),
        ("response", 200),
        ("chunk", b"fine"),
        ("end", ""),
    ]


async def test_pieces_are_heard_decompressed(transport: Transport) -> None:
    tape = Tape()
    async with Upstream(Reply(headers=[("content-encoding", "gzip")], body=gzip.compress(b"x" * 5000))) as upstream:
        response = await transport.post(endpoint(upstream.url), {}, b"", tap=tape)
        await response.read()
    assert b"".join(one[1] for one in tape.heard if one[0] == "chunk" and isinstance(one[1], bytes)) == b"x" * 5000


async def test_an_answer_that_breaks_says_why(transport: Transport) -> None:
    tape = Tape()
    async with Upstream(Reply.sse(Send(b"data: 1\n\n"), Close())) as upstream:
        response = await transport.post(endpoint(upstream.url), {}, b"", tap=tape)
        with pytest.raises(FaultError) as broken:
            await response.read()
        response.close()
    assert tape.ends == [broken.value.fault.message]


async def test_an_answer_that_nobody_reads_to_its_end(transport: Transport) -> None:
    tape = Tape()
    async with Upstream(Reply.sse(Send(b"data: 1\n\n"), Hang())) as upstream:
        response = await transport.post(endpoint(upstream.url), {}, b"", tap=tape)
        await response.chunk()
        response.close()
    assert tape.ends == [LEFT_UNREAD]


async def test_no_connection(transport: Transport) -> None:
    tape = Tape()
    with pytest.raises(ConnectError) as refused:
        await transport.post(endpoint(refusing_url()), {}, b"{}", tap=tape)
    assert [one[0] for one in tape.heard] == ["request", "end"]
    assert tape.ends == [refused.value.fault.message]


async def test_whoever_is_cancelled_before_the_head_ends_the_call(transport: Transport) -> None:
    tape = Tape()
    async with Upstream(Reply(before=[Hang()])) as upstream:
        arrived = upstream.arrival()
        task = asyncio.create_task(transport.post(endpoint(upstream.url), {}, b"{}", tap=tape))
        await arrived
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [one[0] for one in tape.heard] == ["request", "end"]


async def test_the_demo_is_heard_like_a_provider() -> None:
    tape = Tape()
    backend = DemoBackend(BackendSettings(id="demo", type="demo"))
    body = b'{"model":"echo","messages":[{"role":"user","content":"hi"}]}'
    response = await backend.open(Call(dialect="openai-chat", model="echo", body=body, tap=tape))
    answer = await response.read()
    assert tape.heard == [("request", "demo:echo", body), ("response", 200), ("chunk", answer), ("end", "")]
