"""BE-05, BE-06 and the U rows that concern the connection: what the transport does with odd servers, on real
sockets.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import zlib
from pathlib import Path

import pytest

from llm_proxy.backends.transport import ConnectError, Credential, HttpResponse, Transport, endpoint
from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.wire.secrets import Secret
from tests.support.upstream import (
    Close,
    Endless,
    Hang,
    Moment,
    Pause,
    Raw,
    Reply,
    Reset,
    Send,
    Upstream,
    refusing_url,
)

FIXTURES = Path(__file__).parent / "fixtures"


async def post(transport: Transport, url: str, body: bytes = b"{}", **options: object) -> HttpResponse:
    return await transport.post(endpoint(url), {"content-type": "application/json"}, body, **options)  # type: ignore[arg-type]


async def fetch(transport: Transport, url: str, **options: object) -> bytes:
    response = await post(transport, url, **options)
    try:
        return await response.read()
    finally:
        response.close()


async def fault_of(transport: Transport, url: str, **options: object) -> Fault:
    with pytest.raises(FaultError) as caught:
        await fetch(transport, url, **options)
    return caught.value.fault


# ---- ordinary calls


async def test_a_call_sends_what_was_given_and_nothing_of_its_own(transport: Transport) -> None:
    async with Upstream(Reply.json({"ok": True})) as upstream:
        to = endpoint(f"{upstream.url}/v1/chat/completions?a=1")
        credential = Credential("authorization", Secret("sk-1"), to.origin, "Bearer ")
        response = await transport.post(to, {"X-Title": "t"}, b'{"model":"m"}', credentials=[credential])
        assert response.status == 200
        assert await response.read() == b'{"ok":true}'
        (request,) = upstream.requests
        assert (request.method, request.target, request.body) == (
            "POST",
            "/v1/chat/completions?a=1",
            b'{"model":"m"}',
        )
        assert {name.lower(): value for name, value in request.headers} == {
            "host": f"127.0.0.1:{upstream.port}",
            "accept-encoding": "identity",
            "x-title": "t",
            "authorization": "Bearer sk-1",
            "content-length": "13",
        }


async def test_a_get_has_no_body(transport: Transport) -> None:
    async with Upstream(Reply.json([])) as upstream:
        response = await transport.get(endpoint(f"{upstream.url}/models"), {})
        assert await response.read() == b"[]"
        assert (upstream.requests[0].method, upstream.requests[0].body) == ("GET", b"")


async def test_chunks_come_as_they_arrive(transport: Transport) -> None:
    go = Moment()
    async with Upstream(Reply.sse(b"data: 1\n\n", Pause(go), b"data: 2\n\n")) as upstream:
        response = await post(transport, upstream.url)
        chunks = response.chunks()
        assert await anext(chunks) == b"data: 1\n\n"
        go.happen()
        assert [chunk async for chunk in chunks] == [b"data: 2\n\n"]
        response.close()


async def test_header_names_and_order_are_kept_as_sent(transport: Transport) -> None:
    headers = [("X-RateLimit-Reset", "1"), ("Set-Cookie", "a=b"), ("x-ratelimit-reset", "2")]
    async with Upstream(Reply(body=b"x", headers=headers)) as upstream:
        response = await post(transport, upstream.url)
        assert response.headers[:3] == headers
        response.close()
        await fetch(transport, upstream.url)
        assert upstream.requests[1].header("cookie") is None


async def test_connections_are_used_again_after_a_whole_answer(transport: Transport) -> None:
    async with Upstream(Reply.json({})) as upstream:
        for _ in range(5):
            assert await fetch(transport, upstream.url) == b"{}"
        assert upstream.opened == 1


async def test_no_more_idle_connections_are_kept_than_asked(transport: Transport) -> None:
    async with Upstream(Reply.json({})) as upstream:
        await asyncio.gather(*(fetch(transport, upstream.url, keep=2) for _ in range(6)))
        for _ in range(50):
            if upstream.connections <= 2:
                break
            await asyncio.sleep(0.01)
        assert upstream.connections <= 2


async def test_a_body_over_the_limit_is_a_fault(transport: Transport) -> None:
    async with Upstream(Reply(body=b"x" * 1000)) as upstream:
        response = await post(transport, upstream.url)
        with pytest.raises(FaultError) as caught:
            await response.read(999)
        assert caught.value.fault.kind == "upstream"
        response.close()


# ---- headers that must not be sent


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "x-api-key",
        "X-Goog-Api-Key",
        "api-key",
        "Cookie",
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "Accept-Encoding",
        "Proxy-Authorization",
    ],
)
async def test_credentials_and_framing_are_no_ordinary_headers(transport: Transport, name: str) -> None:
    async with Upstream(Reply.json({})) as upstream:
        with pytest.raises(FaultError) as caught:
            await transport.post(endpoint(upstream.url), {name: "1"}, b"{}")
        assert caught.value.fault.kind == "internal"
        assert upstream.opened == 0


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\nb", "a\0", "ä€", " a"])
async def test_a_header_never_breaks_out_of_its_line(transport: Transport, value: str) -> None:
    async with Upstream(Reply.json({})) as upstream:
        with pytest.raises(FaultError) as caught:
            await transport.post(endpoint(upstream.url), {"x-title": value}, b"{}")
        assert caught.value.fault.kind == "internal"
        to = endpoint(upstream.url)
        with pytest.raises(FaultError):
            await transport.post(to, {}, b"{}", credentials=[Credential("x-api-key", Secret("k\r\nx: y"), to.origin)])
        assert upstream.opened == 0


# ---- U-01: no connection


async def test_a_refused_connection_is_unavailable_without_the_address(transport: Transport) -> None:
    url = refusing_url()
    with pytest.raises(ConnectError) as caught:
        await fetch(transport, url, label="Back end local")
    fault = caught.value.fault
    assert (fault.kind, fault.status_code) == ("unavailable", 503)
    assert fault.message == "Back end local cannot be reached: the connection was refused (check base_url)."


async def test_an_unknown_host_is_told_as_dns() -> None:
    def resolve(host: str) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    transport = Transport(environ={}, resolver=resolve)
    fault = await fault_of(transport, "http://no-such-host.test/v1")
    assert fault.kind == "unavailable"
    assert "DNS" in fault.message
    assert "no-such-host" not in fault.message
    await transport.close()


async def tls_server() -> tuple[asyncio.Server, int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(FIXTURES / "loopback.pem", FIXTURES / "loopback.key")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n{}")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    return server, server.sockets[0].getsockname()[1]


async def test_a_self_signed_certificate_is_refused_and_named(transport: Transport) -> None:
    server, port = await tls_server()
    async with server:
        fault = await fault_of(transport, f"https://127.0.0.1:{port}/")
        assert fault.kind == "unavailable"
        assert "certificate is not trusted" in fault.message


async def test_a_trusted_certificate_for_another_name_is_refused_and_named() -> None:
    server, port = await tls_server()
    trust = ssl.create_default_context(cafile=str(FIXTURES / "loopback.pem"))
    transport = Transport(environ={}, tls=trust, resolver=lambda _: ["127.0.0.1"])
    async with server:
        assert await fetch(transport, f"https://127.0.0.1:{port}/") == b"ok"
        fault = await fault_of(transport, f"https://other.test:{port}/")
        assert "certificate is for another name" in fault.message
    await transport.close()


async def test_plain_text_on_a_tls_port_is_told_as_tls(transport: Transport) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        fault = await fault_of(transport, f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        assert fault.kind == "unavailable"
        assert "TLS" in fault.message


async def test_a_server_that_never_accepts_ends_by_the_connect_timeout(transport: Transport) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = []
        for _ in range(3):  # the queue of connections that nobody accepts is full after these
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
        with pytest.raises(ConnectError) as caught:
            await fetch(transport, f"http://127.0.0.1:{full.getsockname()[1]}", connect_timeout=0.1)
        assert caught.value.fault.kind == "timeout"
        for filler in fillers:
            filler.close()


# ---- U-03, U-06: silence


async def test_silence_before_the_headers_is_a_timeout(transport: Transport) -> None:
    async with Upstream(Reply(before=[Hang()])) as upstream:
        fault = await fault_of(transport, upstream.url, silence_timeout=0.05)
        assert (fault.kind, fault.status_code) == ("timeout", 504)
        await upstream.requests[0].closed


async def test_silence_in_the_body_is_a_timeout(transport: Transport) -> None:
    async with Upstream(Reply.sse(b"data: 1\n\n", Hang())) as upstream:
        response = await post(transport, upstream.url, silence_timeout=0.05)
        assert await response.chunk() == b"data: 1\n\n"
        with pytest.raises(FaultError) as caught:
            await response.chunk()
        assert caught.value.fault.kind == "timeout"
        await upstream.requests[0].closed


# ---- U-04: connections that are closed while idle


async def test_a_stale_connection_is_replaced_without_an_error(transport: Transport) -> None:
    """The server closes each connection right after its answer without saying so; 1000 requests show no
    error.
    """
    async with Upstream(Reply(body=b"ok", after=[Close()])) as upstream:
        for _ in range(1000):
            assert await fetch(transport, upstream.url) == b"ok"
        assert upstream.opened == 1000


async def test_a_reset_on_a_reused_connection_is_repeated_once_on_a_fresh_one(transport: Transport) -> None:
    script = [Reply(body=b"1"), Reply(before=[Reset()]), Reply(body=b"3")]
    async with Upstream(script) as upstream:
        assert await fetch(transport, upstream.url) == b"1"
        assert await fetch(transport, upstream.url) == b"3"
        assert [request.connection for request in upstream.requests] == [1, 1, 2]


async def test_a_reset_on_a_fresh_connection_is_not_repeated(transport: Transport) -> None:
    async with Upstream(Reply(before=[Reset()])) as upstream:
        fault = await fault_of(transport, upstream.url)
        assert fault.kind == "closed"
        assert len(upstream.requests) == 1


async def test_the_repeat_itself_is_not_repeated(transport: Transport) -> None:
    script = [Reply(body=b"1"), Reply(before=[Reset()]), Reply(before=[Reset()])]
    async with Upstream(script) as upstream:
        await fetch(transport, upstream.url)
        assert (await fault_of(transport, upstream.url)).kind == "closed"
        assert len(upstream.requests) == 3


async def test_an_answer_that_began_is_not_repeated(transport: Transport) -> None:
    script = [Reply(body=b"1"), Reply(raw=True, steps=[Raw(b"HTTP/1.1 200 OK\r\nconte"), Reset()])]
    async with Upstream(script) as upstream:
        await fetch(transport, upstream.url)
        assert (await fault_of(transport, upstream.url)).kind == "closed"
        assert len(upstream.requests) == 2


# ---- U-05, U-07: answers that end too early or are framed wrongly


@pytest.mark.parametrize(
    "reply",
    [
        Reply(steps=[Send(b"data: 1\n\n"), Reset()]),
        Reply(steps=[Send(b"data: 1\n\n"), Close()]),
        Reply(steps=[Send(b"data: 1\n\n")], last_chunk=False),
        Reply(body=b"data: 1\n\n", declared_length=100, keep_alive=False),
        Reply(steps=[Send(b"data: 1\n\n"), Raw(b"zz\r\nbad size\r\n")]),
        Reply(steps=[Send(b"data: 1\n\n"), Raw(b"5\r\ntoo long\r\n0\r\n\r\n")]),
    ],
    ids=["reset", "closed", "no last chunk", "short length", "no chunk size", "wrong chunk size"],
)
async def test_a_broken_body_is_a_fault_and_its_connection_is_dropped(transport: Transport, reply: Reply) -> None:
    async with Upstream(reply) as upstream:
        fault = await fault_of(transport, upstream.url)
        assert (fault.kind, fault.status_code) == ("closed", 502)
        await upstream.requests[0].closed
        upstream.script = Reply(body=b"fine")
        assert await fetch(transport, upstream.url) == b"fine"


# ---- U-13, BE-06: content encodings


def deflate_raw(data: bytes) -> bytes:
    return zlib.compress(data)[2:-4]


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", deflate_raw),
    ],
)
async def test_gzip_and_deflate_are_opened_at_every_split(transport: Transport, encoding: str, encode: object) -> None:
    text = b'data: {"a": 1}\n\n' * 20
    body = encode(text)  # type: ignore[operator]
    headers = [("content-encoding", encoding)]
    async with Upstream(Reply(steps=[Send(body[i : i + 1]) for i in range(len(body))], headers=headers)) as upstream:
        assert await fetch(transport, upstream.url) == text


async def test_a_compressed_stream_is_not_held_back(transport: Transport) -> None:
    compressor = zlib.compressobj(wbits=31)
    first = compressor.compress(b"data: 1\n\n") + compressor.flush(zlib.Z_SYNC_FLUSH)
    never = Moment()
    reply = Reply.sse(first, Pause(never), headers=[("content-encoding", "gzip")])
    async with Upstream(reply) as upstream:
        response = await post(transport, upstream.url)
        assert await response.chunk() == b"data: 1\n\n"
        response.close()


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, br", "nonsense"])
async def test_other_encodings_are_a_fault(transport: Transport, encoding: str) -> None:
    async with Upstream(Reply(body=b"xx", headers=[("content-encoding", encoding)])) as upstream:
        fault = await fault_of(transport, upstream.url)
        assert (fault.kind, fault.status_code) == ("upstream", 502)


async def test_a_damaged_or_exploding_body_is_a_fault(transport: Transport) -> None:
    bomb = gzip.compress(b"\0" * 100_000_000)
    for body in (b"no gzip at all", gzip.compress(b"x" * 100)[:-9], bomb):
        async with Upstream(Reply(body=body, headers=[("content-encoding", "gzip")])) as upstream:
            assert (await fault_of(transport, upstream.url)).kind == "upstream"


# ---- U-15: statuses without an answer


@pytest.mark.parametrize("status", [204, 205, 304])
async def test_a_status_without_a_body_is_a_fault(transport: Transport, status: int) -> None:
    async with Upstream(Reply(status=status)) as upstream:
        assert (await fault_of(transport, upstream.url)).kind == "upstream"


def with_interim(count: int) -> Reply:
    interim = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * count
    return Reply(raw=True, steps=[Raw(interim + b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")])


async def test_interim_answers_are_ignored(transport: Transport) -> None:
    for count in (1, 2, 20):
        async with Upstream(with_interim(count)) as upstream:
            assert await fetch(transport, upstream.url) == b"ok"


async def test_too_many_interim_answers_are_a_fault(transport: Transport) -> None:
    for count in (21, 1000):
        async with Upstream(with_interim(count)) as upstream:
            assert (await fault_of(transport, upstream.url)).kind == "upstream"


async def test_a_switch_of_protocols_is_a_fault(transport: Transport) -> None:
    head = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nhello"
    async with Upstream(Reply(raw=True, steps=[Raw(head)])) as upstream:
        assert (await fault_of(transport, upstream.url)).kind == "upstream"


# ---- U-16: redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 300, 399])
async def test_redirects_are_never_followed(transport: Transport, status: int) -> None:
    async with Upstream(Reply(body=b"stolen")) as evil, Upstream(Reply.json({})) as upstream:
        places = (
            f"{evil.url}/x",
            f"{upstream.url}/y",
            "//169.254.169.254/",
            "/same",
            "http://[::1]/",
            "\\\\x",
            "",
        )
        for place in places:
            upstream.script = Reply(status=status, headers=[("location", place)], body=b"see there")
            to = endpoint(upstream.url)
            with pytest.raises(FaultError) as caught:
                await transport.post(to, {}, b"{}", credentials=[Credential("x-api-key", Secret("k"), to.origin)])
            fault = caught.value.fault
            assert (fault.kind, fault.status_code) == ("upstream", 502)
            assert "127.0.0.1" not in fault.message
            assert "169.254" not in fault.message
        assert evil.opened == 0
        assert len(upstream.requests) == len(places)


async def test_the_fault_of_a_redirect_names_the_origin_only(transport: Transport) -> None:
    reply = Reply(status=307, headers=[("location", "https://api.other.example/v1/x?key=secret")])
    async with Upstream(reply) as upstream:
        fault = await fault_of(transport, upstream.url)
        assert "https://api.other.example;" in fault.message
        assert "secret" not in fault.message


# ---- U-22: ambiguous framing


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: 2\r\ncontent-length: 2\r\n",
        b"content-length: 2\r\ncontent-length: 3\r\n",
        b"content-length: 2\r\ntransfer-encoding: chunked\r\n",
        b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        b"transfer-encoding: gzip, chunked\r\n",
        b"transfer-encoding: identity\r\ncontent-length: 2\r\n",
        b"content-length: +2\r\n",
        b"content-length: 2, 2\r\n",
        b"x: " + b"a" * 1_000_000 + b"\r\ncontent-length: 2\r\n",
        b"x: y\r\n" * 10_000 + b"content-length: 2\r\n",
        b"bad name: 1\r\ncontent-length: 2\r\n",
        b"b\x01d: 1\r\ncontent-length: 2\r\n",
        b"no colon\r\ncontent-length: 2\r\n",
        b": empty\r\ncontent-length: 2\r\n",
    ],
    ids=lambda head: head[:24].decode("latin-1").strip(),
)
async def test_ambiguous_or_oversized_heads_are_a_fault(transport: Transport, head: bytes) -> None:
    reply = Reply(raw=True, steps=[Raw(b"HTTP/1.1 200 OK\r\n" + head + b"\r\nok"), Hang()])
    async with Upstream(reply) as upstream:
        fault = await fault_of(transport, upstream.url)
        assert (fault.kind, fault.status_code) == ("upstream", 502)
        await upstream.requests[0].closed
        upstream.script = Reply(body=b"fine")
        assert await fetch(transport, upstream.url) == b"fine"


async def test_what_is_no_http_is_a_fault(transport: Transport) -> None:
    for start in (
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"<html>",
        b"HTTP/1.1 99 x\r\n\r\n",
    ):
        async with Upstream(Reply(raw=True, steps=[Raw(start)])) as upstream:
            assert (await fault_of(transport, upstream.url)).kind in ("upstream", "closed")


# ---- U-24: late bytes


LATE = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\npoisoned"


@pytest.mark.parametrize("late", [LATE, LATE[:12], LATE * 3, b"\r\n"], ids=["answer", "half", "three", "line"])
async def test_late_bytes_never_become_the_next_answer(transport: Transport, late: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst"
    async with Upstream(Reply()) as upstream:
        for _ in range(250):
            upstream.script = Reply(raw=True, steps=[Raw(head + late)])
            assert await fetch(transport, upstream.url) == b"first"
            upstream.script = Reply(body=b"second")
            assert await fetch(transport, upstream.url) == b"second"


@pytest.mark.parametrize("late", [b"garbage", b"0\r\n\r\n"])
async def test_garbage_behind_an_answer_drops_its_connection(transport: Transport, late: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst"
    async with Upstream(Reply(raw=True, steps=[Raw(head + late), Hang()])) as upstream:
        fault = await fault_of(transport, upstream.url)
        assert fault.kind == "upstream"
        await upstream.requests[0].closed
        upstream.script = Reply(body=b"second")
        assert await fetch(transport, upstream.url) == b"second"


async def test_bytes_on_an_idle_connection_close_it(transport: Transport) -> None:
    speak = Moment()
    async with Upstream(Reply(body=b"first", after=[Pause(speak), Raw(LATE), Hang()])) as upstream:
        assert await fetch(transport, upstream.url) == b"first"
        speak.happen()
        await upstream.requests[0].closed
        upstream.script = Reply(body=b"second")
        assert await fetch(transport, upstream.url) == b"second"


# ---- P1, L-01: whoever leaves frees the upstream


PHASES = {
    "headers": Reply(before=[Hang()]),
    "first byte": Reply.sse(Hang()),
    "mid-stream": Reply.sse(b"data: 1\n\n", Hang()),
    "flood": Reply.sse(Endless(b"data: 1\n\n" * 500)),
}


@pytest.mark.parametrize("phase", PHASES)
async def test_cancelling_closes_the_upstream_connection(transport: Transport, phase: str) -> None:
    async with Upstream(PHASES[phase]) as upstream:
        arrived = upstream.arrival()
        started = Moment()

        async def exchange() -> None:
            response = await post(transport, upstream.url)
            try:
                started.happen()
                async for _ in response.chunks():
                    pass
            finally:
                response.close()

        task = asyncio.ensure_future(exchange())
        await arrived
        if phase != "headers":
            await started
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(upstream.requests[0].closed, 5)


async def test_cancelling_during_a_slow_upload_closes_the_connection(transport: Transport) -> None:
    """The server reads nothing, so the body waits in our buffers; leaving must not wait for it."""
    closed = asyncio.Event()
    accepted = asyncio.Event()

    class Deaf(asyncio.Protocol):
        def connection_made(self, wire: asyncio.BaseTransport) -> None:
            assert isinstance(wire, asyncio.Transport)
            self.wire = wire
            accepted.set()
            wire.pause_reading()
            asyncio.get_running_loop().call_later(0.2, wire.resume_reading)

        def connection_lost(self, error: Exception | None) -> None:
            closed.set()

    server = await asyncio.get_running_loop().create_server(Deaf, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        task = asyncio.ensure_future(post(transport, url, b"x" * 50_000_000))
        await accepted.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(closed.wait(), 5)


async def test_closing_an_unread_response_closes_the_connection(transport: Transport) -> None:
    async with Upstream(Reply.sse(b"data: [DONE]\n\n", Hang())) as upstream:
        response = await post(transport, upstream.url)
        await response.chunk()
        response.close()
        response.close()
        await asyncio.wait_for(upstream.requests[0].closed, 5)


async def test_a_reader_that_stops_stops_the_upstream(transport: Transport) -> None:
    """L-05 as far as the transport goes: what the process holds is bounded by its read buffer."""
    async with Upstream(Reply.sse(Endless(b"x" * 10_000)), send_buffer=8192) as upstream:
        response = await post(transport, upstream.url)
        await response.chunk()
        before = -1
        while (sent := upstream.sent_to(upstream.requests[0])) != before:
            before = sent
            await asyncio.sleep(0.05)
        assert sent < 8_000_000
        response.close()


# ---- proxies (OPS-20)


async def test_proxies_of_the_environment_are_used_and_no_proxy_hosts_are_not() -> None:
    async with Upstream(Reply(body=b"by proxy")) as proxy, Upstream(Reply(body=b"direct")) as direct:
        environ = {
            "HTTP_PROXY": f"http://user:pass@127.0.0.1:{proxy.port}",
            "NO_PROXY": "127.0.0.1,.inside.test",
        }
        transport = Transport(environ=environ, resolver=lambda _: ["127.0.0.1"])
        assert await fetch(transport, "http://api.outside.test/v1") == b"by proxy"
        assert proxy.requests[0].target == "http://api.outside.test/v1"
        assert proxy.requests[0].header("proxy-authorization") == "Basic dXNlcjpwYXNz"
        assert await fetch(transport, direct.url) == b"direct"
        assert await fetch(transport, f"http://api.inside.test:{direct.port}/") == b"direct"
        await transport.close()


async def test_https_goes_through_a_tunnel_and_a_refusal_is_told_as_the_proxys() -> None:
    async with Upstream(Reply(status=407, body=b"no")) as proxy:
        transport = Transport(proxy=proxy.url, environ={})
        with pytest.raises(ConnectError) as caught:
            await fetch(transport, "https://api.outside.test/v1")
        assert (proxy.requests[0].method, proxy.requests[0].target) == ("CONNECT", "api.outside.test:443")
        assert "proxy refused with status 407" in caught.value.fault.message
        assert "127.0.0.1" not in caught.value.fault.message
        await transport.close()


async def test_a_proxy_that_does_not_answer_is_told_as_the_proxys() -> None:
    transport = Transport(proxy=refusing_url(), environ={})
    fault = await fault_of(transport, "https://api.outside.test/v1")
    assert "HTTP proxy" in fault.message
    await transport.close()


async def test_tls_through_a_tunnel_works() -> None:
    server, port = await tls_server()

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer), return_exceptions=True)

    proxy = await asyncio.start_server(tunnel, "127.0.0.1", 0)
    trust = ssl.create_default_context(cafile=str(FIXTURES / "loopback.pem"))
    async with server, proxy:
        url = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        transport = Transport(proxy=url, environ={}, tls=trust)
        assert await fetch(transport, f"https://127.0.0.1:{port}/") == b"ok"
        await transport.close()
