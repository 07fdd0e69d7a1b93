"""OPS-20: DNS, refused, TLS, proxy and timeout faults each have their own text with the back end, the option to change and no address."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from llm_proxy.backends.connection_faults import translate
from llm_proxy.backends.transport import ConnectError, Resolver, Transport, endpoint
from llm_proxy.conversation.fault import Fault, FaultError
from tests.support.upstream import Hang, Reply, Upstream, refusing_url

FIXTURES: Final = Path(__file__).parent / "fixtures"
LABEL: Final = "Back end work"
OPTIONS: Final = (
    "base_url",
    "proxy.timeout",
    "proxy.connect_timeout",
    "HTTPS_PROXY",
    "SSL_CERT_FILE",
    "clock",
    "open files",
)
_KEY: Final = ConnectionKey("secret-host.internal", 443, True, True, None, None, None, None)


async def fault_at(url: str, transport: Transport, connect_timeout: float = 5.0) -> Fault:
    try:
        with pytest.raises(FaultError) as caught:
            await transport.post(
                endpoint(url), {}, b"{}", connect_timeout=connect_timeout, silence_timeout=0.1, label=LABEL
            )
    finally:
        await transport.close()
    return caught.value.fault


def unknown(code: int) -> Resolver:
    def resolve(host: str) -> list[str]:
        raise socket.gaierror(code, "not found")

    return resolve


def tells(fault: Fault, *words: str) -> None:
    assert fault.message.startswith(LABEL)
    for word in words:
        assert word in fault.message
    assert any(option in fault.message for option in OPTIONS), fault.message
    assert not re.search(r"\d+\.\d+\.\d+\.\d+|::1|\.test|\.internal", fault.message), fault.message
    assert len(fault.message) <= 300


async def test_a_name_that_dns_does_not_know() -> None:
    fault = await fault_at("http://api.test/", Transport(environ={}, resolver=unknown(socket.EAI_NONAME)))
    assert fault.status_code == 503
    tells(fault, "DNS does not know", "base_url", "HTTPS_PROXY")


async def test_dns_that_does_not_answer() -> None:
    fault = await fault_at("http://api.test/", Transport(environ={}, resolver=unknown(socket.EAI_AGAIN)))
    assert fault.status_code == 503
    tells(fault, "DNS gave no answer", "connected")


@pytest.mark.parametrize("url", ["http://api.test/", "https://api.test/"])
async def test_a_proxy_whose_name_dns_does_not_know_is_told_as_the_proxys(url: str) -> None:
    transport = Transport(proxy="http://proxy.test:3128", environ={}, resolver=unknown(socket.EAI_NONAME))
    fault = await fault_at(url, transport)
    assert fault.status_code == 503
    tells(fault, "DNS does not know the host name of the HTTP proxy", "HTTPS_PROXY")
    assert "base_url" not in fault.message


async def test_a_refused_connection() -> None:
    fault = await fault_at(refusing_url(), Transport(environ={}))
    assert fault.status_code == 503
    tells(fault, "the connection was refused", "base_url")


async def test_a_proxy_that_refuses_the_connection() -> None:
    fault = await fault_at("https://api.test/", Transport(proxy=refusing_url(), environ={}))
    assert fault.status_code == 503
    tells(fault, "on the way to the HTTP proxy the connection was refused", "HTTPS_PROXY")


@pytest.mark.parametrize("url", ["http://api.test/", "https://api.test/"])
async def test_a_proxy_that_wants_a_password(url: str) -> None:
    async with Upstream(Reply(status=407, body=b"<html>who are you?</html>")) as proxy:
        with pytest.raises(ConnectError) as caught:
            transport = Transport(proxy=proxy.url, environ={})
            await transport.post(endpoint(url), {}, b"{}", label=LABEL)
        tells(caught.value.fault, "status 407", "user:password@")
        await transport.close()


async def test_a_407_without_a_proxy_is_the_providers_own() -> None:
    async with Upstream(Reply(status=407, body=b"odd")) as upstream:
        transport = Transport(environ={})
        response = await transport.post(endpoint(upstream.url), {}, b"{}")
        assert (response.status, await response.read()) == (407, b"odd")
        await transport.close()


async def test_a_proxy_that_opens_no_tunnel_in_time() -> None:
    async with Upstream(Reply(before=[Hang()])) as proxy:
        fault = await fault_at("https://api.test/", Transport(proxy=proxy.url, environ={}), connect_timeout=0.1)
        assert fault.status_code == 504
        tells(fault, "through the HTTP proxy within 0.1 seconds", "proxy.connect_timeout", "HTTPS_PROXY")


async def test_silence() -> None:
    async with Upstream(Reply(before=[Hang()])) as upstream:
        fault = await fault_at(upstream.url, Transport(environ={}))
        assert fault.status_code == 504
        tells(fault, "sent nothing for 0.1 seconds", "proxy.timeout")


async def tls_server(certificate: str) -> tuple[asyncio.Server, int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(FIXTURES / certificate, FIXTURES / "loopback.key")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    return server, server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("certificate", "host", "trusted", "words"),
    [
        ("loopback.pem", "127.0.0.1", False, ("certificate is not trusted", "SSL_CERT_FILE")),
        ("loopback.pem", "other.test", True, ("certificate is for another name", "base_url")),
        ("expired.pem", "127.0.0.1", True, ("certificate has expired", "clock")),
    ],
)
async def test_tls_errors_say_whether_the_certificate_or_the_name_failed(
    certificate: str, host: str, trusted: bool, words: tuple[str, ...]
) -> None:
    server, port = await tls_server(certificate)
    trust = ssl.create_default_context(cafile=str(FIXTURES / certificate)) if trusted else None
    async with server:
        transport = Transport(environ={}, tls=trust, resolver=lambda _: ["127.0.0.1"])
        fault = await fault_at(f"https://{host}:{port}/", transport)
    assert fault.status_code == 503
    tells(fault, *words)


def verified(code: int) -> Exception:
    error = ssl.SSLCertVerificationError(1, "no")
    error.verify_code = code
    return aiohttp.ClientConnectorCertificateError(_KEY, error)


def unconnected(number: int) -> Exception:
    return aiohttp.ClientConnectorError(_KEY, OSError(number, "no"))


CAUSES: Final[dict[str, tuple[Callable[[], BaseException], bool]]] = {
    "DNS": (lambda: aiohttp.ClientConnectorDNSError(_KEY, socket.gaierror(socket.EAI_NONAME, "no")), False),
    "DNS silent": (lambda: aiohttp.ClientConnectorDNSError(_KEY, socket.gaierror(socket.EAI_AGAIN, "no")), False),
    "DNS of the proxy": (lambda: aiohttp.ClientConnectorDNSError(_KEY, socket.gaierror(socket.EAI_NONAME, "no")), True),
    "refused": (lambda: unconnected(errno.ECONNREFUSED), False),
    "unreachable": (lambda: unconnected(errno.ENETUNREACH), False),
    "reset": (lambda: unconnected(errno.ECONNRESET), False),
    "descriptors": (lambda: unconnected(errno.EMFILE), False),
    "otherwise": (lambda: unconnected(errno.EINVAL), False),
    "not trusted": (lambda: verified(18), False),
    "another name": (lambda: verified(62), False),
    "expired": (lambda: verified(10), False),
    "not valid yet": (lambda: verified(9), False),
    "revoked": (lambda: verified(23), False),
    "handshake": (lambda: aiohttp.ClientConnectorSSLError(_KEY, ssl.SSLError(1, "no")), False),
    "proxy refused": (lambda: aiohttp.ClientProxyConnectionError(_KEY, OSError(errno.ECONNREFUSED, "no")), True),
    "proxy's address": (lambda: aiohttp.InvalidURL("http://secret-host.internal:x"), True),
    "connecting": (lambda: aiohttp.ConnectionTimeoutError("no"), False),
    "connecting through the proxy": (lambda: aiohttp.ConnectionTimeoutError("no"), True),
    "silence": (lambda: TimeoutError(), False),
}


def test_each_cause_has_a_text_of_its_own_that_names_what_to_change() -> None:
    texts = set()
    for make, proxied in CAUSES.values():
        error = translate(make(), LABEL, connect_timeout=10, silence_timeout=300, proxied=proxied)
        tells(error.fault)
        assert error.fault.status_code in (503, 504)
        texts.add(error.fault.message)
    assert len(texts) == len(CAUSES)
