"""OPS-20 as a client sees it: upstream network trouble is explained, in its protocol, with the back end and what to change."""

from __future__ import annotations

import asyncio
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.asking import PROTOCOLS, Scene, body_of, error_of, path_of, say, started
from tests.server.process import Answer, Proxy
from tests.support.shared import Protocol
from tests.support.upstream import Hang, Moment, Received, Reply, refusing_url, upstream_in_thread

FIXTURES: Final = Path(__file__).parents[1] / "backends" / "fixtures"

each_client = pytest.mark.parametrize("client", PROTOCOLS)
each_way = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


def backend(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "openai", "base_url": f"{url}/v1", "no_auth": True, **more}


@contextmanager
def secure_upstream() -> Iterator[str]:
    """A provider with a self-signed certificate for 127.0.0.1; it says a few words to whoever trusts it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(FIXTURES / "loopback.pem", FIXTURES / "loopback.key")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: *(\d+)", head)
            body = await reader.readexactly(int(length[1])) if length else b""
            said = say(_received(body)).body
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(said) + said
            )
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def begin() -> asyncio.Server:
        return await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)

    async def end() -> None:
        server.close()
        await asyncio.sleep(0)

    server = asyncio.run_coroutine_threadsafe(begin(), loop).result(10)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def _received(body: bytes) -> Received:
    return Received(0, 0, "POST", "/v1/chat/completions", (), body, 0.0, Moment())


@pytest.fixture(scope="module")
def troubled() -> Iterator[Scene]:
    """Back ends each with a trouble of its own."""
    with secure_upstream() as secure, upstream_in_thread(Reply(before=[Hang()])) as upstream:
        backends = {
            "unnamed": backend("http://no-such-host.invalid"),
            "refusing": backend(refusing_url()),
            "selfsigned": backend(secure),
            "silent": backend(upstream.url, timeout=0.3),
        }
        with started(config={"backends": backends}) as proxy:
            yield Scene(proxy, upstream)


def explained(scene: Scene, client: Protocol, name: str, stream: bool, status: int) -> str:
    answer = scene.ask(client, f"{name}:m", stream)
    assert answer.status == status, answer.body
    message = str(error_of(client, answer)["message"])
    assert f"Back end {name} " in message
    assert answer.json["detail"]["message"] == message
    assert not re.search(r"127\.0\.0\.1|localhost|no-such-host|:\d{4,5}\b", answer.body.decode())
    return message


@each_way
@each_client
def test_an_unresolvable_host_is_503_with_dns(troubled: Scene, client: Protocol, stream: bool) -> None:
    message = explained(troubled, client, "unnamed", stream, 503)
    assert "DNS" in message and "base_url" in message


@each_way
@each_client
def test_a_self_signed_server_is_503_with_certificate(troubled: Scene, client: Protocol, stream: bool) -> None:
    message = explained(troubled, client, "selfsigned", stream, 503)
    assert "certificate" in message and "not trusted" in message


@each_way
def test_a_refused_connection_is_503(troubled: Scene, stream: bool) -> None:
    message = explained(troubled, "openai-chat", "refusing", stream, 503)
    assert "refused" in message and "base_url" in message


def test_silence_is_504_with_the_option(troubled: Scene) -> None:
    assert "proxy.timeout" in explained(troubled, "openai-chat", "silent", False, 504)


def ask(proxy: Proxy, name: str) -> Answer:
    return proxy.post(path_of("openai-chat", "m"), body_of("openai-chat", f"{name}:m"))


def test_an_authority_named_in_ssl_cert_file_is_trusted_and_another_name_is_told() -> None:
    with secure_upstream() as secure:
        backends = {"named": backend(secure), "misnamed": backend(secure.replace("127.0.0.1", "localhost"))}
        variables = {"SSL_CERT_FILE": str(FIXTURES / "loopback.pem")}
        with started(config={"backends": backends}, environment=variables) as proxy:
            assert ask(proxy, "named").status == 200
            refused = ask(proxy, "misnamed")
            assert refused.status == 503
            assert "certificate is for another name" in refused.json["error"]["message"]


def test_with_https_proxy_set_calls_use_it_and_no_proxy_hosts_do_not() -> None:
    with (
        upstream_in_thread(Reply(status=403, body=b"no")) as tunnel,
        upstream_in_thread(say) as direct,
        secure_upstream() as secure,
    ):
        port = secure.rpartition(":")[2]
        backends = {
            "outside": backend("https://api.outside.test"),
            "inside": backend(secure),
            "plain": backend(direct.url),
        }
        variables = {
            "HTTPS_PROXY": f"http://user:pass@127.0.0.1:{tunnel.port}",
            "NO_PROXY": f"localhost,127.0.0.1:{port}",
            "SSL_CERT_FILE": str(FIXTURES / "loopback.pem"),
        }
        with started(config={"backends": backends}, environment=variables) as proxy:
            refused = ask(proxy, "outside")
            assert refused.status == 503
            assert "HTTP proxy refused with status 403" in refused.json["error"]["message"]
            assert "HTTPS_PROXY" in refused.json["error"]["message"]
            assert [(one.method, one.target) for one in tunnel.requests] == [("CONNECT", "api.outside.test:443")]
            assert ask(proxy, "inside").status == 200
            assert ask(proxy, "plain").status == 200, "HTTPS_PROXY is for https only"
            assert len(tunnel.requests) == 1 and len(direct.requests) == 1
            proxy.stop()
            assert "user:pass" not in proxy.log and b"pass" not in refused.body


def test_a_troubled_back_end_in_a_route_is_passed_over() -> None:
    with upstream_in_thread(say) as upstream:
        config = {
            "backends": {"gone": backend(refusing_url()), "nameless": backend("http://no-such-host.invalid"), "good": backend(upstream.url)},
            "failover_routes": {"all": {"policy": "m", "elements": ["gone:m", "nameless:m", "good:m"]}},
        }  # fmt: skip
        with started(config=config) as proxy:
            answer = proxy.post("/v1/chat/completions", body_of("openai-chat", "all"))
            assert (answer.status, answer.headers["x-llm-proxy-backend"]) == (200, "good")
