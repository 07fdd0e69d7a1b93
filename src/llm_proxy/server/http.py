"""One HTTP request and its response over ASGI, with the few guarantees that the exchange needs: bounded bodies, one start, one end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from llm_proxy.conversation.fault import Fault, FaultError, bad_request
from llm_proxy.server.client_address import DIRECT, Sender
from llm_proxy.wire import encodings
from llm_proxy.wire import json as wire_json
from llm_proxy.wire.faults import DecodedTooLong, EncodingUnknown, JsonFault, WireFault
from llm_proxy.wire.headers import forwardable_request_headers

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


class Disconnected(Exception):
    """The client left before its request was complete."""


class Incoming:
    """A request: its line, its headers (names in lower case), its body on demand.

    `peer` is whoever connected; whose request it is says `sender`, once `Access.identify` has looked.
    """

    __slots__ = ("_first", "headers", "method", "path", "peer", "query", "receive", "scheme", "sender", "server")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.method: str = scope["method"]
        raw_path = scope.get("raw_path") or scope["path"].encode()
        self.path: str = raw_path.decode("latin-1").partition("?")[0]
        self.query: bytes = scope.get("query_string", b"")
        self.headers: Headers = scope["headers"]
        # A request's headers are asked for some thirty times; of one that comes twice the first counts.
        self._first = dict(reversed(self.headers))
        self.receive = receive
        client = scope.get("client")
        self.peer: str = client[0] if client else ""
        self.sender: Sender = DIRECT.of(self.peer, self.headers)
        self.server: tuple[str, int] | None = scope.get("server")
        self.scheme: str = scope.get("scheme", "http")

    def header(self, name: bytes) -> str:
        """The first value of header `name` (lower case), "" if absent."""
        value = self._first.get(name)
        return "" if value is None else value.decode("latin-1")

    def count(self, name: bytes) -> int:
        return sum(1 for key, _ in self.headers if key == name)

    def parameter(self, name: str) -> str:
        """The first query parameter `name`, "" if absent."""
        if not self.query:
            return ""
        return next(
            (value for key, value in parse_qsl(self.query.decode("latin-1"), keep_blank_values=True) if key == name), ""
        )

    async def body(self, limit: int) -> bytes:
        """The whole body, decoded from gzip, deflate, br or zstd. Raises FaultError (too_large before it was read to the end)."""
        length = self.header(b"content-length")
        if length.isdigit() and int(length) > limit:
            raise too_large(limit)
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        first: bytes = message.get("body", b"")
        if message.get("more_body"):
            pieces = [first]
            size = len(first)
            while message.get("more_body"):
                if size > limit:
                    raise too_large(limit)
                message = await self.receive()
                if message["type"] == "http.disconnect":
                    raise Disconnected
                piece = message.get("body", b"")
                size += len(piece)
                pieces.append(piece)
            first = b"".join(pieces)
        if len(first) > limit:
            raise too_large(limit)
        encoding = self.header(b"content-encoding").strip().lower()
        if encoding and encoding != "identity":
            first = _decoded(first, encoding, limit)
        # What is read here may be sent on as it is, and RFC 8259 section 8.1 forbids the mark there.
        return first.removeprefix(b"\xef\xbb\xbf")


def _decoded(body: bytes, encoding: str, limit: int) -> bytes:
    try:
        return encodings.decode_body(body, encoding, limit)
    except DecodedTooLong:
        raise too_large(limit) from None
    except EncodingUnknown as error:
        raise FaultError(Fault(kind="unsupported_media", message=str(error), side="client")) from None
    except WireFault as error:
        raise bad_request(str(error)) from None


def read_members(body: bytes) -> dict[str, Any]:
    """The members of a JSON object that a client sent. Raises FaultError (bad_request)."""
    try:
        return wire_json.decode_object(body)
    except JsonFault as error:
        raise bad_request(str(error)) from None


_UNWATCHED = 0.02  # seconds; the promise is 250 ms


class Presence:
    """Cancels the task that serves a request as soon as its client is gone. Begins when the body has been read.

    Whoever is served within a moment is not watched at all: most short answers never need it.
    """

    def __init__(self, incoming: Incoming, outgoing: Outgoing) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._task = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None
        self._over = False
        self.gone = False
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Presence:
        self._timer = asyncio.get_running_loop().call_later(_UNWATCHED, self._begin)
        return self

    def _begin(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Raises Disconnected in place of the cancellation that this presence caused."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None  # its cancellation will refer to this object, which must not refer to it
        if self.gone and kind is not None and issubclass(kind, asyncio.CancelledError):
            if self._task is not None:
                self._task.uncancel()
            raise Disconnected

    async def _watch(self) -> None:
        while (await self._incoming.receive())["type"] != "http.disconnect":
            pass
        if not self._over and not self._outgoing.ended and self._task is not None:
            self.gone = True
            self._task.cancel()


def too_large(limit: int) -> FaultError:
    return FaultError(
        Fault(
            kind="too_large",
            message=f"the request body is larger than {limit} bytes (option proxy.max_request_bytes)",
            side="client",
        )
    )


class Outgoing:
    """The response: started once, ended once. `started` tells whether a status has been sent.

    `common` are headers that every answer to this request carries, also an error.
    """

    __slots__ = ("_send", "common", "ended", "head_only", "started", "status")

    def __init__(self, send: Send, head_only: bool = False) -> None:
        self._send = send
        self.started = False
        self.ended = False
        self.status = 0
        self.head_only = head_only
        self.common: Headers = []

    async def start(self, status: int, headers: Headers) -> None:
        self.started = True
        self.status = status
        if self.common:
            headers = [*headers, *self.common]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes) -> None:
        """Sends `data`; returns when the connection takes more (back pressure)."""
        await self._send({"type": "http.response.body", "body": b"" if self.head_only else data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        self.ended = True
        await self._send({"type": "http.response.body", "body": b"" if self.head_only else data, "more_body": False})

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """A complete response with its length."""
        self.started = self.ended = True
        self.status = status
        headers = [*headers, *self.common, (b"content-length", str(len(body)).encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": b"" if self.head_only else body, "more_body": False})


_PROTOCOL_HEADERS = frozenset(("anthropic-version", "anthropic-beta", "openai-beta", "idempotency-key"))


def protocol_headers(incoming: Incoming) -> dict[str, str]:
    """Headers of the client's protocol that go on to a provider of the same protocol (FE-12)."""
    found = forwardable_request_headers(incoming.headers, _PROTOCOL_HEADERS)
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in found}


JSON_TYPE = (b"content-type", b"application/json")


def encode_headers(pairs: Sequence[tuple[str, str]]) -> Headers:
    """Header pairs as ASGI wants them; characters that cannot stand in a header become `?`."""
    return [
        (name.lower().encode("ascii", "replace"), _clean(value).encode("latin-1", "replace")) for name, value in pairs
    ]


def _clean(value: str) -> str:
    return "".join(char if char.isprintable() else " " for char in value) if not value.isprintable() else value
