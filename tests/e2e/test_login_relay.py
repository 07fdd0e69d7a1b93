"""A relay that ends the TLS of a process's calls to any host, so that a scripted server can stand at the addresses of real ones.

Owns an authority of its own, and the environment by which a process uses the relay as its `HTTPS_PROXY` and trusts it. Knows no vendor.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.upstream import Hang, Reply, upstream_in_thread


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    by: ec.EllipticCurvePrivateKey,
    hosts: Sequence[str] = (),
) -> bytes:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now, top = datetime.now(UTC), subject == issuer
    made = (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=top, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
    )
    if not top:
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False)
    return made.sign(by, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _identity(folder: Path, hosts: Sequence[str]) -> tuple[Path, ssl.SSLContext]:
    """The file of an authority, and what a server for all `hosts` shows that it has signed."""
    authority, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    trusted, pair = folder / "authority.pem", folder / "server.pem"
    trusted.write_bytes(_certificate("tests", authority, "tests", authority))
    written = own.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pair.write_bytes(written + _certificate("vendors", own, "tests", authority, hosts))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    return trusted, context


async def _pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while piece := await source.read(65536):
            sink.write(piece)
            await sink.drain()
    except OSError:
        return


class _Relay:
    """An HTTP proxy that ends the TLS of every host and hands the bytes to one port. Who leaves is gone at once on the other side."""

    def __init__(self, context: ssl.SSLContext, port: int) -> None:
        self._context = context
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        # The protocol is named so that asyncio switches Nagle's algorithm off.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.bind(("127.0.0.1", 0))
        self._server = await asyncio.start_server(self._accepted, sock=listener, backlog=256)
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"CONNECT "):
                return
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await writer.start_tls(self._context)
            inner_reader, inner = await asyncio.open_connection("127.0.0.1", self._port)
            pipes = [asyncio.ensure_future(_pipe(reader, inner)), asyncio.ensure_future(_pipe(inner_reader, writer))]
            try:
                await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pipe in pipes:
                    pipe.cancel()
                await asyncio.gather(*pipes, return_exceptions=True)
                inner.transport.abort()
        except (OSError, EOFError):
            return
        finally:
            writer.transport.abort()


@contextmanager
def relayed(folder: Path, port: int, hosts: Sequence[str]) -> Iterator[dict[str, str]]:
    """The environment of a process whose calls to `hosts` by https end at `port`."""
    trusted, context = _identity(folder, hosts)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="relay", daemon=True)
    thread.start()
    relay = _Relay(context, port)
    try:
        url = asyncio.run_coroutine_threadsafe(relay.start(), loop).result(10)
        yield {"HTTPS_PROXY": url, "SSL_CERT_FILE": str(trusted), "REQUESTS_CA_BUNDLE": str(trusted)}
        asyncio.run_coroutine_threadsafe(relay.stop(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def test_a_host_is_reached_by_its_own_name_only_and_leaving_is_told(tmp_path: Path) -> None:
    with (
        upstream_in_thread(Reply.sse(b"one", Hang())) as upstream,
        relayed(tmp_path, upstream.port, ["vendor.test"]) as environment,
    ):
        relay, context = urlsplit(environment["HTTPS_PROXY"]), ssl.create_default_context()
        context.load_verify_locations(environment["SSL_CERT_FILE"])
        for host in ("vendor.test", "other.test"):
            with closing(http.client.HTTPSConnection(relay.netloc, context=context, timeout=10)) as connection:
                connection.set_tunnel(host, 443)
                if host == "other.test":
                    with pytest.raises(ssl.SSLCertVerificationError):
                        connection.request("GET", "/x")
                    continue
                connection.request("GET", "/x")
                answer = connection.getresponse()
                assert answer.read(3) == b"one"
                answer.close()
        [request] = upstream.requests
        assert (request.header("host"), request.path) == ("vendor.test", "/x")
        request.closed.wait(5)
