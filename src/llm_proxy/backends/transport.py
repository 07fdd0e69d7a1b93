"""The one door to the network: a request goes to an origin, a response of raw bytes comes back.

Owns what holds for every call whoever makes it: a credential reaches its own origin only, redirects are not
followed, no header breaks out of its line, compressed answers are opened within limits, failures become
faults without addresses. The connections themselves are `connections.py`'s, which is loaded with its HTTP
library on the first call. Knows no provider and no dialect.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, Protocol
from urllib import request as urllib_request

import msgspec

from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.wire.encodings import Decoder
from llm_proxy.wire.faults import UrlFault, WireFault
from llm_proxy.wire.headers import HOP_BY_HOP, is_valid_header_name, is_valid_header_value
from llm_proxy.wire.secrets import Secret
from llm_proxy.wire.tap import WireTap
from llm_proxy.wire.urls import Origin, parse_base_url

if TYPE_CHECKING:
    from ssl import SSLContext

    from llm_proxy.backends.connections import Connections, RawResponse

# Who chose the address: the operator (no restriction), or a client (S-02). `local` is a client on this
# machine or an origin on the operator's list; link-local addresses, cloud metadata and our own listeners are
# refused to both.
AddressPolicy = Literal["operator", "local", "public"]

Resolver = Callable[[str], Sequence[str]]

CREDENTIAL_HEADERS = frozenset(
    ("authorization", "x-api-key", "x-goog-api-key", "api-key", "proxy-authorization", "cookie")
)
_OWN_HEADERS = HOP_BY_HOP | frozenset(("host", "content-length", "accept-encoding", "expect"))

# A provider's answer has no more than this in any recording; llama.cpp and gateways stay far below too.
LARGEST_BODY = 256 * 1024 * 1024

LEFT_UNREAD = "nobody waited for the rest"
"""What a tap hears at the end of a call that was given up before its answer was complete."""


class ConnectError(FaultError):
    """No connection was made, so the provider has seen nothing: the same key may be tried again."""


class Endpoint(msgspec.Struct, frozen=True):
    """Where one request goes. `target` is path and query as they are sent."""

    origin: Origin
    target: str


class Credential(msgspec.Struct, frozen=True):
    """A header that only `origin` may see. `prefix` stands before the secret (`Bearer `)."""

    header: str
    secret: Secret
    origin: Origin
    prefix: str = ""


class Response(Protocol):
    """An answer whose headers have arrived. Whoever holds it calls `close` in the end."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> list[tuple[str, str]]:
        """As the provider sent them, in order."""

    async def chunk(self) -> bytes:
        """What has arrived, in one piece; waits if nothing has. Empty at the end. Raises FaultError when the
        answer breaks.
        """

    def chunks(self) -> AsyncIterator[bytes]:
        """`chunk` until the end."""

    async def read(self, limit: int = LARGEST_BODY) -> bytes:
        """The rest of the body. Raises FaultError when it is longer than `limit` bytes."""

    def close(self) -> None:
        """Done with it: the connection is cut at once unless the answer was read to its end."""


class _Chunks:
    """`chunk` as an iterator. A class and not a generator: it may be dropped half-way without a clean-up
    task.
    """

    def __init__(self, body: _Body) -> None:
        self._body = body

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> bytes:
        if piece := await self._body.chunk():
            return piece
        raise StopAsyncIteration


class _Body:
    """`chunks` and `read` for anything that has `chunk`."""

    async def chunk(self) -> bytes:
        raise NotImplementedError

    def chunks(self) -> AsyncIterator[bytes]:
        return _Chunks(self)

    async def read(self, limit: int = LARGEST_BODY) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while piece := await self.chunk():
            size += len(piece)
            if size > limit:
                raise FaultError(Fault(kind="upstream", message=f"The provider's answer is longer than {limit} bytes."))
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class MemoryResponse(_Body):
    """A response made in this process. `source` gives its chunks and may raise FaultError."""

    def __init__(self, status: int, headers: list[tuple[str, str]], source: AsyncIterator[bytes]) -> None:
        self.status = status
        self.headers = headers
        self._source = source
        self._closed = False

    async def chunk(self) -> bytes:
        if self._closed:
            return b""
        return await anext(self._source, b"")

    def close(self) -> None:
        self._closed = True


class HttpResponse(_Body):
    """A provider's answer on a connection."""

    def __init__(self, raw: RawResponse, decoder: Decoder | None) -> None:
        self._raw = raw
        self._decoder = decoder
        self.status = raw.status
        self.headers = raw.headers

    async def chunk(self) -> bytes:
        decoder = self._decoder
        if decoder is None:
            return await self._raw.chunk()
        try:
            while piece := await self._raw.chunk():
                if opened := decoder.feed(piece):
                    return opened
            return decoder.close()
        except WireFault as error:
            self.close()
            raise _nonsense(f"The provider's compressed answer cannot be read: {error}.") from None

    def close(self) -> None:
        self._raw.close()


class TappedResponse(_Body):
    """An answer that somebody listens to."""

    def __init__(self, inner: Response, tap: WireTap) -> None:
        self._inner = inner
        self._tap: WireTap | None = tap
        self.status = inner.status
        self.headers = inner.headers
        tap.response(inner.status, inner.headers)

    async def chunk(self) -> bytes:
        try:
            piece = await self._inner.chunk()
        except FaultError as error:
            self._end(error.fault.message)
            raise
        if self._tap is not None:
            if piece:
                self._tap.chunk(piece)
            else:
                self._end("")
        return piece

    def close(self) -> None:
        self._inner.close()
        self._end(LEFT_UNREAD)

    def _end(self, failure: str) -> None:
        tap, self._tap = self._tap, None
        if tap is not None:
            tap.end(failure)


async def tapped(tap: WireTap | None, destination: str, body: bytes, opening: Awaitable[Response]) -> Response:
    """The response that `opening` gives, of a call that `tap` hears from its beginning to its end."""
    if tap is None:
        return await opening
    tap.request(destination, body)
    try:
        return TappedResponse(await opening, tap)
    except FaultError as error:
        tap.end(error.fault.message)
        raise
    except BaseException:
        tap.end(LEFT_UNREAD)
        raise


def _nonsense(message: str) -> FaultError:
    return FaultError(Fault(kind="upstream", message=message))


def endpoint(url: str) -> Endpoint:
    """Read an address strictly. Raises UrlFault for everything that two parsers could read differently."""
    base, mark, query = url.partition("?")
    parsed = parse_base_url(base)
    path = parsed.path or "/"
    if base.endswith("/") and len(path) > 1:
        path += "/"
    return Endpoint(parsed.origin, _checked_target(f"{path}{mark}{query}"))


def _checked_target(target: str) -> str:
    if not target.startswith("/") or any(not "!" <= char <= "~" or char in "#\\" for char in target):
        raise UrlFault("the path contains characters that are not allowed there")
    return target


class Transport:
    """All outgoing HTTP of the process. One object; its connections open when they are first needed.

    `proxy`: HTTP proxy for all calls; without it the standard variables of `environ` (and, where none is set,
    the system's settings) decide; NO_PROXY holds for both. `own_addresses` gives (address, port) of our own
    listeners, which addresses chosen by clients never reach. `resolver` replaces the name service, `tls` the
    trusted certificates.
    """

    def __init__(
        self,
        *,
        proxy: str | None = None,
        environ: Mapping[str, str] | None = None,
        own_addresses: Callable[[], Collection[tuple[str, int]]] = tuple,
        resolver: Resolver | None = None,
        tls: SSLContext | None = None,
    ) -> None:
        self._proxies = _Proxies(proxy, os.environ if environ is None else environ)
        self._own_addresses = own_addresses
        self._resolver = resolver
        self._tls = tls
        self._connections: Connections | None = None

    async def post(
        self,
        to: Endpoint,
        headers: Mapping[str, str],
        body: bytes,
        *,
        credentials: Sequence[Credential] = (),
        connect_timeout: float = 10.0,
        silence_timeout: float | None = 300.0,
        address_policy: AddressPolicy = "operator",
        keep: int = 100,
        label: str = "The provider",
        tap: WireTap | None = None,
    ) -> Response:
        """Send `body` and return when the headers of the answer have arrived.

        `silence_timeout`: longest time without a byte, before the headers and between chunks. `keep`: idle
        connections kept per origin. `label` begins the sentences of faults (`Back end openai`). `tap` hears the call.
        Raises FaultError; ConnectError if nothing was sent.
        """
        opening = self._call(
            "POST",
            to,
            headers,
            body,
            credentials,
            connect_timeout,
            silence_timeout,
            address_policy,
            keep,
            label,
        )
        return await tapped(tap, f"{to.origin}{to.target.partition('?')[0]}" if tap else "", body, opening)

    async def get(
        self,
        to: Endpoint,
        headers: Mapping[str, str],
        *,
        credentials: Sequence[Credential] = (),
        connect_timeout: float = 10.0,
        silence_timeout: float | None = 300.0,
        address_policy: AddressPolicy = "operator",
        keep: int = 100,
        label: str = "The provider",
    ) -> HttpResponse:
        """As `post`, without a body."""
        return await self._call(
            "GET",
            to,
            headers,
            None,
            credentials,
            connect_timeout,
            silence_timeout,
            address_policy,
            keep,
            label,
        )

    async def _call(
        self,
        method: str,
        to: Endpoint,
        headers: Mapping[str, str],
        body: bytes | None,
        credentials: Sequence[Credential],
        connect_timeout: float,
        silence_timeout: float | None,
        policy: AddressPolicy,
        keep: int,
        label: str,
    ) -> HttpResponse:
        fields = _outgoing(headers, credentials, to.origin)
        connections = self._connections or self._connect()
        # A proxy would look the name up a second time, so addresses chosen by clients never go through one.
        proxy = self._proxies.choose(to.origin) if policy == "operator" else None
        raw = await connections.open(
            method,
            to,
            fields,
            body,
            policy=policy,
            proxy=proxy,
            connect_timeout=connect_timeout,
            silence_timeout=silence_timeout,
            keep=keep,
            label=label,
        )
        try:
            if raw.status < 200 or 204 <= raw.status < 400:
                _check_status(raw.status, raw.headers, to.origin, label)
            return HttpResponse(raw, _decoder_for(raw.headers, label))
        except FaultError:
            raw.close()
            raise

    def _connect(self) -> Connections:
        # The HTTP library costs a quarter of a second to import; the demo back end never needs it.
        from llm_proxy.backends.connections import Connections

        self._connections = Connections(self._own_addresses, self._resolver, self._tls)
        return self._connections

    async def close(self) -> None:
        """Cut every connection."""
        if self._connections is not None:
            await self._connections.close()
            self._connections = None


def _outgoing(headers: Mapping[str, str], credentials: Sequence[Credential], origin: Origin) -> list[tuple[str, str]]:
    """The header fields of a request. Raises FaultError `internal` for what must never be sent."""
    fields: list[tuple[str, str]] = [("accept-encoding", "identity")]
    for name, value in headers.items():
        _check_field(name, value)
        fields.append((name, value))
    for credential in credentials:
        if credential.origin != origin:
            raise _refusal("A credential was about to be sent to another origin than its own; the call was refused.")
        value = credential.prefix + credential.secret.reveal()
        if not (value.isascii() and value.isprintable()):
            raise _refusal("A credential holds characters that cannot stand in a header.")
        fields.append((credential.header, value))
    return fields


@lru_cache(maxsize=4096)
def _check_field(name: str, value: str) -> None:
    """Refuse a header that may not be sent as an ordinary one. Most headers are the same in every call."""
    lower = name.lower()
    if lower in CREDENTIAL_HEADERS or lower in _OWN_HEADERS:
        raise _refusal(f"The header {lower} cannot be sent as an ordinary header.")
    if not is_valid_header_name(name) or not is_valid_header_value(value):
        raise _refusal("A header that was to be sent to the provider is not valid.")


def _refusal(message: str) -> FaultError:
    return FaultError(Fault(kind="internal", message=message, side="proxy"))


def _check_status(status: int, headers: Sequence[tuple[str, str]], origin: Origin, label: str) -> None:
    """Refuse answers that are none: redirects, and statuses without a body (U-15, U-16)."""
    if 300 <= status < 400 and status != 304:
        place = next((value for name, value in headers if name.lower() == "location"), "")
        raise _nonsense(f"{label} redirects{_other_origin(place, origin)}; redirects are not followed.")
    if status < 200 or status in (204, 205, 304):
        raise _nonsense(f"{label} answered with status {status}, which carries no answer.")


def _other_origin(location: str, origin: Origin) -> str:
    """Names where a redirect leads, by its origin alone, and only if that is a name, not an address."""
    try:
        target = parse_base_url(location.partition("?")[0].partition("#")[0]).origin
    except UrlFault:
        return ""
    if target == origin or target.ip is not None or "." not in target.host:
        return ""
    return f" to {target}"


def _decoder_for(headers: Sequence[tuple[str, str]], label: str) -> Decoder | None:
    encodings = [value for name, value in headers if len(name) == 16 and name.lower() == "content-encoding"]
    if not encodings:
        return None
    names = [name.strip().lower() for name in ",".join(encodings).split(",")]
    names = [name for name in names if name not in ("", "identity")]
    if not names:
        return None
    try:
        if len(names) > 1:
            raise UrlFault("it is encoded more than once")
        return Decoder(names[0], LARGEST_BODY)
    except WireFault:
        raise _nonsense(f"{label} sent an answer in a content encoding that was not asked for.") from None


class _Proxies:
    """Which HTTP proxy a call goes through."""

    def __init__(self, configured: str | None, environ: Mapping[str, str]) -> None:
        found: dict[str, str] = {}
        for scheme in ("http", "https", "all", "no"):
            value = environ.get(f"{scheme}_proxy") or environ.get(f"{scheme}_proxy".upper())
            if value:
                found[scheme] = value
        if not found and environ is os.environ and sys.platform in ("win32", "darwin"):
            found = urllib_request.getproxies()
        if configured:
            found = {"all": configured, "no": found.get("no", "")}
        self._found = found
        self._chosen: dict[Origin, str | None] = {}

    def choose(self, origin: Origin) -> str | None:
        """The proxy's URL, or None for a direct connection."""
        if not self._found:
            return None
        if origin not in self._chosen:
            if len(self._chosen) > 1000:
                self._chosen.clear()
            self._chosen[origin] = self._find(origin)
        return self._chosen[origin]

    def _find(self, origin: Origin) -> str | None:
        url = self._found.get(origin.scheme) or self._found.get("all")
        if not url or self._bypassed(origin):
            return None
        return url if "://" in url else f"http://{url}"

    def _bypassed(self, origin: Origin) -> bool:
        """NO_PROXY: `*`, or names with or without a leading dot that the host is or ends in, with or without
        a port.
        """
        names = [name.strip().lower() for name in self._found.get("no", "").split(",")]
        for host in (origin.host, f"{origin.host}:{origin.port}", f"[{origin.host}]:{origin.port}"):
            if any(name and (name == "*" or f".{host}".endswith("." + name.lstrip("."))) for name in names):
                return True
        return False
