"""The HTTP/1.1 edge on real sockets: one reading of each byte sequence, or none (I-01 to I-03, I-06)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.server import edge

HOST = b"Host: 127.0.0.1\r\n"


class Tiny:
    """An application that tells what it was asked. `/hold` answers when `release` is set."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.holding = asyncio.Event()
        self.left = asyncio.Event()
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["raw_path"].decode()
        body = b""
        if path != "/early":
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    self.left.set()
                    return
                body += message["body"]
                if not message["more_body"]:
                    break
        self.bodies.append(body)
        if path == "/hold":
            self.holding.set()
            waits = [asyncio.ensure_future(self.release.wait()), asyncio.ensure_future(receive())]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not self.release.is_set():
                self.left.set()
            for wait in waits:
                wait.cancel()
        text = json.dumps([scope["method"], path, len(body)]).encode()
        length = [(b"content-length", str(len(text)).encode())]
        await send({"type": "http.response.start", "status": 413 if path == "/early" else 200, "headers": length})
        await send({"type": "http.response.body", "body": text})


class Server:
    def __init__(self, app: Tiny, port: int) -> None:
        self.app = app
        self.port = port
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        return reader, writer

    async def send(self, data: bytes) -> bytes:
        """Everything that comes back until the server closes."""
        reader, writer = await self.connect()
        writer.write(data)
        return await asyncio.wait_for(reader.read(), 20)

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()


@pytest.fixture(params=["httptools", "h11"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    protocol = edge._httptools_edge() if request.param == "httptools" else edge._h11_edge()
    app = Tiny()
    config = uvicorn.Config(app, host="127.0.0.1", port=0, http=protocol, ws="none", lifespan="off", log_config=None)
    config.load()
    running = uvicorn.Server(config)
    running.lifespan = config.lifespan_class(config)
    await running.startup()
    listener = running.servers[0]
    started = Server(app, listener.sockets[0].getsockname()[1])
    yield started
    await started.close()
    listener.close()
    app.release.set()
    while running.server_state.connections or running.server_state.tasks:
        for connection in list(running.server_state.connections):
            connection.transport.close()
        await asyncio.sleep(0)


def _status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def _statuses(answers: bytes) -> list[int]:
    return [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]


POST = b"POST /x HTTP/1.1\r\n" + HOST
AMBIGUOUS = {
    "length and transfer encoding": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "transfer encoding and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "the same length twice": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": POST + b"Content-Length: 5, 5\r\n\r\nhello",
    "a signed length": POST + b"Content-Length: +5\r\n\r\nhello",
    "an empty length": POST + b"Content-Length:\r\n\r\n",
    "a hexadecimal length": POST + b"Content-Length: 0x5\r\n\r\nhello",
    "xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "gzip, chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"POST /x HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "vertical tab before chunked": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "space before the colon": POST + b"Content-Length : 5\r\n\r\nhello",
    "tab before the colon": POST + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
    "bare LF after the request line": b"GET /x HTTP/1.1\n" + HOST + b"\r\n",
    "bare LF after a header": b"GET /x HTTP/1.1\r\nHost: 127.0.0.1\n\r\n",
    "bare LF everywhere": b"GET /x HTTP/1.1\nHost: 127.0.0.1\n\n",
    "bare LF in an unfinished head": b"GET /x HTTP/1.1\r\nHost: 127.0.0.1\nX",
    "folded header": b"GET /x HTTP/1.1\r\n" + HOST + b"X-A: 1\r\n 2\r\n\r\n",
    "folded header with tab": b"GET /x HTTP/1.1\r\n" + HOST + b"X-A: 1\r\n\t2\r\n\r\n",
    "white space before the first header": b"GET /x HTTP/1.1\r\n " + HOST + b"\r\n",
    "NUL in a value": b"GET /x HTTP/1.1\r\n" + HOST + b"X-A: 1\x002\r\n\r\n",
    "NUL in a name": b"GET /x HTTP/1.1\r\n" + HOST + b"X\x00A: 1\r\n\r\n",
    "NUL in the path": b"GET /x\x00y HTTP/1.1\r\n" + HOST + b"\r\n",
    "CR in a value": b"GET /x HTTP/1.1\r\n" + HOST + b"X-A: 1\r2\r\n\r\n",
    "CR at the end of a value": b"GET /x HTTP/1.1\r\n" + HOST + b"X-A: 1\r\r\n\r\n",
    "a header without a colon": b"GET /x HTTP/1.1\r\n" + HOST + b"nothing\r\n\r\n",
    "a header without a name": b"GET /x HTTP/1.1\r\n" + HOST + b": 1\r\n\r\n",
    "HTTP/0.9": b"GET /x\r\n",
    "HTTP/0.9 with headers": b"GET /x\r\n" + HOST + b"\r\n",
    "HTTP/1.2": b"GET /x HTTP/1.2\r\n" + HOST + b"\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two spaces in the request line": b"GET  /x HTTP/1.1\r\n" + HOST + b"\r\n",
    "a tab in the request line": b"GET\t/x HTTP/1.1\r\n" + HOST + b"\r\n",
    "a space in the path": b"GET /x y HTTP/1.1\r\n" + HOST + b"\r\n",
    "a fragment in the path": b"GET /x#y HTTP/1.1\r\n" + HOST + b"\r\n",
    "absolute URI": b"GET http://127.0.0.1/x HTTP/1.1\r\n" + HOST + b"\r\n",
    "absolute URI of another host": b"GET http://evil.test/x HTTP/1.1\r\n" + HOST + b"\r\n",
    "no Host": b"GET /x HTTP/1.1\r\n\r\n",
    "no Host in HTTP/1.0": b"GET /x HTTP/1.0\r\n\r\n",
    "two Hosts": b"GET /x HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "two Hosts in different case": b"GET /x HTTP/1.1\r\n" + HOST + b"hOST: 127.0.0.1\r\n\r\n",
    "user information in Host": b"GET /x HTTP/1.1\r\nHost: 127.0.0.1:80@evil.test\r\n\r\n",
    "a list in Host": b"GET /x HTTP/1.1\r\nHost: 127.0.0.1, evil.test\r\n\r\n",
    "a chunk size that is none": POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "a signed chunk size": POST + b"Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
    "a prefixed chunk size": POST + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "bare LF after a chunk size": POST + b"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
    "a chunk longer than its size": POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n",
    "an endless chunk size line": POST + b"Transfer-Encoding: chunked\r\n\r\n5;" + b"a" * 1000,
    "a huge chunk size": POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\n",
    "a folded trailer": POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nA: 1\r\n 2\r\n\r\n",
}


@pytest.mark.parametrize("data", AMBIGUOUS.values(), ids=AMBIGUOUS)
async def test_what_two_parsers_could_read_differently_is_answered_400_and_closed(server: Server, data: bytes) -> None:
    answer = await server.send(data + b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n")
    assert _statuses(answer) == [400]
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    error = json.loads(body)
    assert error["error"]["type"] == "invalid_request_error"
    assert error["error"]["message"]
    assert error["detail"]["code"] == "invalid_request"
    assert server.app.bodies == []


@pytest.mark.parametrize("data", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_the_same_is_refused_at_every_split_of_the_bytes(data: bytes) -> None:
    with pytest.raises(edge.Refused) as whole:
        edge.Framing().feed(data + b"GET /smuggled HTTP/1.1\r\n\r\n")
    framing = edge.Framing()
    seen = b""
    with pytest.raises(edge.Refused) as piecewise:
        for index in range(len(data)):
            seen += framing.feed(data[index : index + 1])
        framing.feed(b"GET /smuggled HTTP/1.1\r\n\r\n")
    assert piecewise.value.status == whole.value.status
    assert b"smuggled" not in seen


@pytest.mark.parametrize("method", [b"TRACE /x", b"CONNECT 127.0.0.1:443", b"CONNECT /x"])
async def test_trace_and_connect_are_not_served(server: Server, method: bytes) -> None:
    data = method + b" HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
    answer = await server.send(data)
    if method.startswith(b"TRACE") or method == b"CONNECT /x":
        # Well-formed: the application answers; nothing is echoed or tunnelled.
        assert _statuses(answer) in ([200], [405])
    else:
        assert _statuses(answer) == [405]
        assert b"\r\nallow: " in answer


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
        (b"GET /?" + b"a" * 40_000, 414),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X-Long: " + b"a" * 33_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X-Long: " + b"a" * 200_000, 431),
        (b"GET / HTTP/1.1\r\n" + HOST + b"".join(b"X-%d: 1\r\n" % i for i in range(100)) + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + HOST + b"".join(b"X-%d: 1\r\n" % i for i in range(3000)), 431),
    ],
    ids=["long line", "endless line", "long headers", "endless headers", "101 headers", "endless list"],
)
async def test_heads_over_the_limits_are_refused_and_closed(server: Server, head: bytes, status: int) -> None:
    answer = await server.send(head)
    assert _statuses(answer) == [status]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"


async def test_heads_at_the_limits_are_served(server: Server) -> None:
    many = b"".join(b"X-%d: 1\r\n" % i for i in range(98))
    data = b"GET /" + b"a" * 16_000 + b" HTTP/1.1\r\n" + HOST + many + b"Connection: close\r\n\r\n"
    assert _statuses(await server.send(data)) == [200]
    long = b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 32_000 + b"\r\nConnection: close\r\n\r\n"
    assert _statuses(await server.send(long)) == [200]


@pytest.mark.parametrize("start", [b"/", b"//v1", b"///v1//models/", b"/a;b=c", b"/v1/%2e%2e/x", b'/"{}|\\^`'])
async def test_odd_paths_reach_the_application(server: Server, start: bytes) -> None:
    answer = await server.send(b"GET " + start + b" HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
    assert _statuses(answer) == [200]


async def test_every_split_of_a_request_gives_the_same_answer(server: Server) -> None:
    request = POST + b"Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: 1\r\n\r\n"
    reader, writer = await server.connect()
    for index in range(1, len(request)):
        writer.write(request[:index])
        await asyncio.sleep(0)
        writer.write(request[index:])
        answer = await reader.readuntil(b"]")
        assert answer.endswith(b'["POST", "/x", 5]')


async def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    one = POST + b"Content-Length: 5\r\n\r\nhello"
    two = POST.replace(b"/x", b"/y") + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
    three = b"GET /z HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
    answer = await server.send(one + two + b"\r\n" + three)
    assert _statuses(answer) == [200, 200, 200]
    assert answer.index(b'"/x", 5') < answer.index(b'"/y", 2') < answer.index(b'"/z", 0')


@pytest.mark.long
async def test_ten_thousand_requests_on_one_connection(server: Server) -> None:
    reader, writer = await server.connect()
    for _ in range(100):
        writer.write((POST + b"Content-Length: 2\r\n\r\nhi") * 100)
        for _ in range(100):
            assert (await reader.readuntil(b"]")).endswith(b'["POST", "/x", 2]')


async def test_a_refusal_waits_for_the_answers_before_it(server: Server) -> None:
    reader, writer = await server.connect()
    writer.write(b"GET /hold HTTP/1.1\r\n" + HOST + b"\r\n")
    await server.app.holding.wait()
    writer.write(b"GET / HTTP/1.1\r\nBad Header: 1\r\n\r\n")
    await asyncio.sleep(0)
    server.app.release.set()
    answer = await asyncio.wait_for(reader.read(), 20)
    assert _statuses(answer) == [200, 400]


async def test_a_client_that_leaves_a_pipeline_is_noticed_by_the_request_under_way(server: Server) -> None:
    _, writer = await server.connect()
    writer.write(b"GET /hold HTTP/1.1\r\n" + HOST + b"\r\nGET /second HTTP/1.1\r\n" + HOST + b"\r\n")
    await server.app.holding.wait()
    writer.close()
    await asyncio.wait_for(server.app.left.wait(), 20)


async def test_100_continue_is_sent_when_the_body_is_wanted(server: Server) -> None:
    reader, writer = await server.connect()
    writer.write(POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"hello")
    assert (await reader.readuntil(b"]")).endswith(b'["POST", "/x", 5]')


async def test_a_body_left_out_after_a_refused_100_continue_is_not_taken_from_the_next_request(
    server: Server,
) -> None:
    data = b"POST /early HTTP/1.1\r\n" + HOST + b"Content-Length: 60\r\nExpect: 100-continue\r\n\r\n"
    answer = await server.send(data)
    assert _statuses(answer) == [413]


async def test_an_offer_of_another_protocol_is_ignored_with_body_and_all(server: Server) -> None:
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    data = POST + upgrade + b"Content-Length: 5\r\n\r\nhello" + b"GET /z HTTP/1.1\r\n" + HOST
    answer = await server.send(data + b"Connection: close\r\n\r\n")
    assert _statuses(answer) == [200, 200]
    assert b'["POST", "/x", 5]' in answer


async def test_a_head_that_does_not_end_is_cut_off_in_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "HEAD_SECONDS", 0.05)
    answer = await server.send(b"GET / HTTP/1.1\r\nHost: 127.")
    assert _statuses(answer) == [408]


async def test_a_body_that_stops_is_cut_off_in_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "BODY_SECONDS", 0.05)
    answer = await server.send(POST + b"Content-Length: 100\r\n\r\nhello")
    assert _statuses(answer) == [408]
    assert server.app.left.is_set()


async def test_a_silent_connection_is_closed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "IDLE_SECONDS", 0.05)
    assert await server.send(b"") == b""


async def test_an_answer_under_way_has_no_deadline(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "HEAD_SECONDS", 0.02)
    monkeypatch.setattr(edge, "BODY_SECONDS", 0.02)
    reader, writer = await server.connect()
    # The beginning of the next request starts the deadline of heads; the open answer is not harmed by it.
    writer.write(b"GET /hold HTTP/1.1\r\n" + HOST + b"\r\nGET /z HT")
    await server.app.holding.wait()
    loop = asyncio.get_running_loop()
    passed = asyncio.Event()
    loop.call_later(0.1, passed.set)
    await passed.wait()
    server.app.release.set()
    assert _statuses(await asyncio.wait_for(reader.read(), 20)) == [200, 408]


async def test_an_answer_before_the_end_of_the_body_keeps_the_connection_in_step(server: Server) -> None:
    reader, writer = await server.connect()
    writer.write(b"POST /early HTTP/1.1\r\n" + HOST + b"Content-Length: 200000\r\n\r\n" + b"a" * 1000)
    assert _status(await reader.readuntil(b"]")) == 413  # while the body is still on its way
    writer.write(b"a" * 199_000 + b"GET /z HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 20)
    assert answer == b"" or answer.endswith(b'["GET", "/z", 0]')


_BODIES = st.lists(st.binary(min_size=1, max_size=40), max_size=4)


@given(st.lists(st.tuples(st.booleans(), _BODIES), min_size=1, max_size=4), st.data())
def test_framing_hands_on_every_byte_of_valid_requests_whatever_the_split(
    requests: list[tuple[bool, list[bytes]]], data: st.DataObject
) -> None:
    sent = b""
    for chunked, pieces in requests:
        if chunked:
            frames = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
            sent += POST + b"Transfer-Encoding: chunked\r\n\r\n" + frames + b"0\r\n\r\n"
        else:
            body = b"".join(pieces)
            sent += POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=8)))
    framing = edge.Framing()
    seen = b"".join(framing.feed(sent[a:b]) for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True))
    assert seen == sent
    assert framing.phase == "idle"


@given(st.binary(max_size=200))
def test_framing_never_fails_otherwise_than_by_refusing(noise: bytes) -> None:
    framing = edge.Framing()
    try:
        framing.feed(POST + noise)
        framing.feed(b"Transfer-Encoding: chunked\r\n\r\n" + noise)
    except edge.Refused as refused:
        assert refused.status in (400, 405, 414, 431)
