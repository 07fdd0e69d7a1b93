"""Pooled connections on aiohttp: how they open, when they may be used again, and how they are cut.

Owns everything that concerns the HTTP library: its sessions and its private hooks (named below, each with its
reason). What its exceptions mean is `connection_faults.py`'s. Knows no credential, no redirect rule and no provider.

The hooks, verified with aiohttp 3.14: `TCPConnector._factory` (a protocol that counts interim
answers and drops connections that speak while idle), `_resolve_host` (addresses are checked where they are
used), `_create_connection` and `connect` (fresh or reused), `_release` (idle connections kept per origin).
"""

from __future__ import annotations

import asyncio
import io
import ipaddress
import socket
import ssl
from collections.abc import Callable, Collection, Sequence
from contextvars import ContextVar
from functools import lru_cache, partial
from typing import TYPE_CHECKING, cast

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.helpers import _EXC_SENTINEL as _NO_CAUSE
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict
from yarl import URL

from llm_proxy.backends.connection_faults import (
    PROXY_WANTS_CREDENTIALS,
    AddressRefused,
    NotAnAnswer,
    refused_by_proxy,
    silence,
    translate,
)
from llm_proxy.backends.transport import AddressPolicy, Endpoint, Resolver
from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.wire.headers import is_valid_header_name
from llm_proxy.wire.urls import AddressClass, Origin, address_class

if TYPE_CHECKING:
    from aiohttp import AddrInfoType
    from aiohttp.client import ClientTimeout
    from aiohttp.client_reqrep import ClientRequest, ConnectionKey
    from aiohttp.http_parser import RawResponseMessage
    from aiohttp.streams import StreamReader
    from aiohttp.tracing import Trace

READ_BUFFER = 32 * 1024  # bytes; the pump stops reading at twice that (P2)
MOST_INTERIM = 20  # 1xx answers before the real one
LARGEST_FIELD = 16 * 1024  # bytes of one header
MOST_FIELDS = 200
LARGEST_HEAD = 128 * 1024
_LARGE_UPLOAD = 512 * 1024
_RECEIVE_BUFFER = 256 * 1024  # bytes of the kernel's, per connection

_ALLOWED: dict[AddressPolicy, frozenset[AddressClass]] = {
    "public": frozenset(("public",)),
    "local": frozenset(("public", "private", "loopback")),
}


class _Opening:
    """One request on its way: which connection it got, and whether that was opened for it."""

    __slots__ = ("anew", "fresh", "keep", "protocol")

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self.anew = False
        self.fresh = False
        self.protocol: _Handler | None = None


# Set by the task that opens; the connector runs in the same task.
_opening: ContextVar[_Opening] = ContextVar("opening")


class _Handler(ResponseHandler):
    """A connection. Between two answers it must be silent: what arrives then would be taken for the next
    answer (U-24).
    """

    busy = True
    received = False
    interim = 0
    keep = 0
    wire: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The library forgets the transport when it closes; cutting an unfinished upload needs it afterwards.
        self.wire = cast("asyncio.WriteTransport", transport)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.wire = None  # it refers back to this
        super().connection_lost(exc)

    def begin(self, keep: int) -> None:
        self.busy, self.received, self.interim, self.keep = True, False, 0, keep

    def data_received(self, data: bytes) -> None:
        if not self.busy and data:
            self.abort()
            return
        # Without data the library only wants the parser to go on with what it holds.
        self.received = self.received or bool(data)
        super().data_received(data)
        if self._left_over():
            self.abort()

    def _left_over(self) -> bool:
        """Whether something came behind the end of the answer, which handed the connection back."""
        return not self.busy and bool(self._buffer or self._tail)

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        # We never ask for `100 Continue`, so interim answers mean nothing to us; they are counted and dropped
        # (U-15).
        if 100 <= data[0].code < 200 and data[0].code != 101:
            self.interim += 1
            if self.interim > MOST_INTERIM:
                self.set_exception(NotAnAnswer(f"more than {MOST_INTERIM} interim answers"))
            return
        super().feed_data(data, size)

    def set_exception(self, exc: BaseException, exc_cause: BaseException = _NO_CAUSE) -> None:
        # The library tells a reader of the body nothing when a chunk is framed wrongly, and stops its
        # time-out too.
        payload = self._payload
        super().set_exception(exc, exc_cause)
        framing = isinstance(exc, HttpProcessingError)
        if framing and payload is not None and not payload.is_eof() and payload.exception() is None:
            payload.set_exception(aiohttp.ClientPayloadError("the body is framed wrongly"))

    def cut(self) -> None:
        """Drop the connection without sending what is still in its buffer."""
        if self.wire is not None:
            self.wire.abort()


def _bounded_socket(address: AddrInfoType) -> socket.socket:
    """A socket whose kernel buffer stays small: a client that stops reading soon stops the provider."""
    made = socket.socket(address[0], address[1], address[2])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    return made


class _Connector(aiohttp.TCPConnector):
    """Connections for one address policy: one that was checked for one policy never serves another."""

    def __init__(
        self,
        policy: AddressPolicy,
        own_addresses: Callable[[], Collection[tuple[str, int]]],
        resolver: AbstractResolver | None,
        tls: ssl.SSLContext | None,
    ) -> None:
        # Admission is the exchange's business, so the pool has no limit of its own.
        super().__init__(limit=0, resolver=resolver, ssl=True if tls is None else tls, socket_factory=_bounded_socket)
        self._factory = cast("partial[ResponseHandler]", partial(_Handler, loop=self._loop))
        self._policy = policy
        self._own_addresses = own_addresses

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout) -> Connection:
        opening = _opening.get()
        if opening.anew and (idle := self._conns.pop(req.connection_key, None)):
            for pooled, _ in idle:
                pooled.close()
        connection = await super().connect(req, traces, timeout)
        protocol = cast("_Handler", connection.protocol)
        protocol.begin(opening.keep)
        opening.protocol = protocol
        return connection

    async def _create_connection(
        self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout
    ) -> ResponseHandler:
        _opening.get().fresh = True
        return await super()._create_connection(req, traces, timeout)

    async def _resolve_host(self, host: str, port: int, traces: Sequence[Trace] | None = None) -> list[ResolveResult]:
        found = await super()._resolve_host(host, port, traces)
        if self._policy != "operator":
            for result in found:
                self._check(result["host"], port)
        return found

    def _check(self, address: str, port: int) -> None:
        """One refused address refuses the host: which one is connected to must not be left to chance."""
        kind = address_class(address)
        if kind not in _ALLOWED[self._policy]:
            raise AddressRefused(kind)
        address = _unmapped(address)
        for own, own_port in self._own_addresses():
            if own_port == port and (own == address or (own in ("0.0.0.0", "::") and _is_ours(address))):
                raise AddressRefused("own")

    def _release(self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        if isinstance(protocol, _Handler):
            protocol.busy = False
            if not should_close and len(self._conns.get(key, ())) >= protocol.keep:
                should_close = True
        super()._release(key, protocol, should_close=should_close)


def _unmapped(address: str) -> str:
    """An IPv4 address in IPv6 clothes (`::ffff:127.0.0.1`) as itself: the system connects both to the same place."""
    found = ipaddress.ip_address(address.partition("%")[0])
    inside = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(inside or found)


def _is_ours(address: str) -> bool:
    """Whether an address is one of this machine: only such can be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
            return True
    except OSError:
        return False


class _GivenResolver(AbstractResolver):
    """Names resolved by a function instead of the system."""

    def __init__(self, resolve: Resolver) -> None:
        self._resolve = resolve

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._resolve(host)
        ]

    async def close(self) -> None:
        pass


class RawResponse:
    """An answer as the library gives it, with the library's exceptions translated."""

    __slots__ = ("_label", "_protocol", "_response", "_silence", "headers", "status")

    def __init__(
        self, response: aiohttp.ClientResponse, protocol: _Handler | None, label: str, silence: float | None
    ) -> None:
        self._response = response
        self._protocol = protocol
        self._label = label
        self._silence = silence
        self.status = response.status
        self.headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.raw_headers]

    async def chunk(self) -> bytes:
        """What has arrived. Raises FaultError."""
        try:
            return await self._response.content.readany()
        except TimeoutError:
            self.close()
            raise FaultError(silence(self._label, self._silence)) from None
        except (aiohttp.ClientError, OSError, EOFError) as error:
            # The reader keeps the exception, and the traceback would lead back to the reader.
            error.__traceback__ = None
            self.close()
            message = f"{self._label} broke the answer off before its end, or framed it wrongly."
            raise FaultError(Fault(kind="closed", message=message)) from None

    def close(self) -> None:
        """Cut the connection at once, unless the whole answer has been received."""
        response, protocol = self._response, self._protocol
        self._protocol = None
        if protocol is not None and response.connection is not None:
            response.close()
            protocol.cut()
        else:
            response.close()


class Connections:
    """The sessions of the process, one for each address policy in use."""

    def __init__(
        self,
        own_addresses: Callable[[], Collection[tuple[str, int]]],
        resolver: Resolver | None,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._own_addresses = own_addresses
        self._resolver = resolver
        self._tls = tls
        self._sessions: dict[AddressPolicy, aiohttp.ClientSession] = {}

    def _session(self, policy: AddressPolicy) -> aiohttp.ClientSession:
        session = self._sessions.get(policy)
        if session is None:
            resolver = _GivenResolver(self._resolver) if self._resolver is not None else None
            session = self._sessions[policy] = aiohttp.ClientSession(
                connector=_Connector(policy, self._own_addresses, resolver, self._tls),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                read_bufsize=READ_BUFFER,
                max_line_size=LARGEST_FIELD,
                max_field_size=LARGEST_FIELD,
                max_headers=MOST_FIELDS,
                skip_auto_headers=("accept", "accept-encoding", "content-type", "user-agent"),
            )
        return session

    async def open(
        self,
        method: str,
        to: Endpoint,
        fields: list[tuple[str, str]],
        body: bytes | None,
        *,
        policy: AddressPolicy,
        proxy: str | None,
        connect_timeout: float,
        silence_timeout: float | None,
        keep: int,
        label: str,
    ) -> RawResponse:
        """Send the request and wait for the headers. Raises FaultError; cancelling it cuts the connection."""
        session = self._session(policy)
        url = _url(to.origin, to.target)
        timeout = _timeout(connect_timeout, silence_timeout)
        opening = _Opening(keep)
        token = _opening.set(opening)
        try:
            while True:
                try:
                    response = await session.request(
                        method,
                        url,
                        headers=CIMultiDict(fields),
                        data=_upload(body),
                        allow_redirects=False,
                        timeout=timeout,
                        proxy=proxy,
                    )
                    break
                except BaseException as error:
                    protocol = opening.protocol
                    if protocol is not None:
                        protocol.cut()
                    if not isinstance(error, (aiohttp.ClientError, OSError, ValueError)):
                        raise
                    if _is_stale(opening, error):
                        opening.anew = True
                        opening.protocol = None
                        continue
                    raise translate(
                        error,
                        label,
                        connect_timeout=connect_timeout,
                        silence_timeout=silence_timeout,
                        proxied=proxy is not None,
                    ) from None
        finally:
            _opening.reset(token)
            # A connection remembers the context in which it was opened, and with it `opening`.
            protocol, opening.protocol = opening.protocol, None
        raw = RawResponse(response, protocol, label, silence_timeout)
        if proxy is not None and raw.status == PROXY_WANTS_CREDENTIALS:  # no provider's word
            raw.close()
            raise refused_by_proxy(label, raw.status)
        if problem := _find_ambiguity(raw.headers):
            raw.close()
            raise FaultError(Fault(kind="upstream", message=f"{label} sent an answer {problem}."))
        return raw

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()


def _upload(body: bytes | None) -> bytes | io.BytesIO | None:
    """Large bodies go out piece by piece, so that other streams get their turn in between."""
    return body if body is None or len(body) < _LARGE_UPLOAD else io.BytesIO(body)


@lru_cache(maxsize=1024)
def _url(origin: Origin, target: str) -> URL:
    path, _, query = target.partition("?")
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    return URL.build(scheme=origin.scheme, host=host, port=origin.port, path=path, query_string=query, encoded=True)


@lru_cache(maxsize=64)
def _timeout(connect: float, silence: float | None) -> aiohttp.ClientTimeout:
    # `ceil_threshold` would round long times up to whole seconds and wake several together; exact ones cost
    # the same.
    return aiohttp.ClientTimeout(total=None, connect=connect, sock_read=silence)


def _is_stale(opening: _Opening, error: BaseException) -> bool:
    """A pooled connection that the server had closed: nothing came back, so the request may be repeated, once
    (BE-05).
    """
    if opening.anew or opening.fresh or opening.protocol is None or opening.protocol.received:
        return False
    return isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | ConnectionError)


_is_name = lru_cache(maxsize=2048)(is_valid_header_name)


def _find_ambiguity(headers: Sequence[tuple[str, str]]) -> str:
    """What makes the framing of an answer ambiguous, in words; empty if nothing does (U-22)."""
    lengths = 0
    encodings: list[str] = []
    size = 0
    for name, value in headers:
        size += len(name) + len(value)
        match name.lower():
            case "content-length":
                lengths += 1
            case "transfer-encoding":
                encodings.append(value.strip().lower())
            case _ if not _is_name(name):
                return "with a header name that is not valid"
    if lengths > 1:
        return "with more than one Content-Length"
    if encodings and lengths:
        return "with both Content-Length and Transfer-Encoding"
    if encodings and encodings != ["chunked"]:
        return "with a transfer encoding other than chunked"
    if size > LARGEST_HEAD:
        return f"with more than {LARGEST_HEAD} bytes of headers"
    return ""
