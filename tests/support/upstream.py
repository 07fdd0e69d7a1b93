"""A scripted provider on a real socket: every byte that it sends, and when, is the test's decision.

Owns a small HTTP/1.1 server without any framework: it records each request and when the peer left, and
answers by a script of `Reply` values. It knows nothing about protocols of models beyond `replay`, which plays
a recorded answer.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from tests.support.shared import Exchange

# What a test can wait for.


class Moment:
    """Something that happens once: awaitable in a test's own loop, and waitable from a synchronous test."""

    def __init__(self) -> None:
        self._future: Future[float] = Future()

    def happen(self) -> None:
        """Mark it as happened; later calls change nothing."""
        if not self._future.done():
            self._future.set_result(time.monotonic())

    @property
    def happened(self) -> bool:
        """Whether it has happened already."""
        return self._future.done()

    @property
    def at(self) -> float | None:
        """`time.monotonic()` of the moment, or None while it is to come."""
        return self._future.result() if self._future.done() else None

    def wait(self, timeout: float = 10.0) -> float:
        """Block until it happens; raises TimeoutError. Not for use inside a running loop."""
        return self._future.result(timeout)

    def __await__(self) -> Generator[Any, None, float]:
        # Shielded: a test that stops waiting must not cancel the moment for others.
        return asyncio.shield(asyncio.wrap_future(self._future)).__await__()


# What a reply is made of.


@dataclass(frozen=True)
class Send:
    """Body bytes; with chunked framing one chunk."""

    data: bytes


@dataclass(frozen=True)
class Pause:
    """Wait for a moment that the test lets happen, or for so many seconds."""

    until: Moment | float


@dataclass(frozen=True)
class Reset:
    """Cut the connection with RST."""


@dataclass(frozen=True)
class Close:
    """End the connection in order (FIN) at this point, whatever was promised."""


@dataclass(frozen=True)
class Hang:
    """Do nothing until the peer leaves or the server stops."""


@dataclass(frozen=True)
class Endless:
    """Send these bytes over and over, as fast as the peer reads, until it leaves or `limit` bytes are out."""

    data: bytes
    limit: int | None = None


@dataclass(frozen=True)
class Raw:
    """Bytes straight to the socket, outside any framing."""

    data: bytes


Step = Send | Pause | Reset | Close | Hang | Endless | Raw
Framing = Literal["length", "chunked", "close"]


@dataclass(frozen=True)
class Reply:
    """One scripted answer.

    `before` runs before the status line, `steps` (or `body`) make the body, `after` runs behind its end.
    Framing defaults to `length` for a body and `chunked` for steps. `declared_length` and `last_chunk=False`
    break the framing on purpose. `raw=True` writes the steps as they are, without status line, headers or
    framing.
    """

    status: int = 200
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    steps: Sequence[Step] | None = None
    framing: Framing | None = None
    before: Sequence[Step] = ()
    after: Sequence[Step] = ()
    declared_length: int | None = None
    last_chunk: bool = True
    raw: bool = False
    keep_alive: bool = True
    reason: str = "Scripted"

    @classmethod
    def json(cls, value: Any, status: int = 200, headers: Sequence[tuple[str, str]] = ()) -> Self:
        """A JSON body, written compactly."""
        body = msgspec.json.encode(value)
        return cls(status=status, headers=(("content-type", "application/json"), *headers), body=body)

    @classmethod
    def sse(cls, *steps: Step | bytes, headers: Sequence[tuple[str, str]] = ()) -> Self:
        """An event stream of the given steps; plain bytes mean `Send`."""
        plan = tuple(Send(step) if isinstance(step, bytes) else step for step in steps)
        return cls(headers=(("content-type", "text/event-stream"), *headers), steps=plan)


@dataclass
class Received:
    """One request as it arrived. `closed` happens when the peer ends or cuts the connection it came on."""

    number: int
    connection: int
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    at: float
    closed: Moment
    answered: Moment = field(default_factory=Moment)
    sent: int = 0

    @property
    def path(self) -> str:
        """The path, percent-decoded, without the query."""
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, str]:
        """The query; of a repeated name the last value."""
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    def header(self, name: str) -> str | None:
        """The first header of that name, whatever its case."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), None)

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return msgspec.json.decode(self.body)


Script = Reply | Sequence[Reply] | Callable[[Received], "Reply | Awaitable[Reply]"]


class _PeerLeft(Exception):
    """The connection is gone; nothing more can be sent."""


class _Malformed(Exception):
    """The peer sent something that is no HTTP/1.1 request."""


_HEAD_LIMIT: Final = 1 << 20


class _Connection(asyncio.Protocol):
    """One accepted connection: reads requests one by one and plays the replies."""

    def __init__(self, server: Upstream, number: int) -> None:
        self.server = server
        self.number = number
        self.closed = Moment()
        self.written = 0
        self._buffer = bytearray()
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._gone = asyncio.Event()
        self._eof = False
        self._task: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=64 * 1024)
        self._task = asyncio.get_running_loop().create_task(self._serve())
        self.server._connections[self.number] = self

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._arrived.set()

    def eof_received(self) -> bool:
        self._eof = True
        self.closed.happen()
        self._gone.set()
        self._arrived.set()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._eof = True
        self.closed.happen()
        self._gone.set()
        self._arrived.set()
        self._writable.set()
        self.server._connections.pop(self.number, None)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # Reading.

    async def _more(self) -> None:
        if self._eof:
            raise _PeerLeft
        self._arrived.clear()
        await self._arrived.wait()

    async def _take_until(self, mark: bytes) -> bytes:
        while (end := self._buffer.find(mark)) < 0:
            if len(self._buffer) > _HEAD_LIMIT:
                raise _Malformed("head too large")
            await self._more()
        taken = bytes(self._buffer[:end])
        del self._buffer[: end + len(mark)]
        return taken

    async def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            await self._more()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def _read_request(self) -> Received:
        head = await self._take_until(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        words = first.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise _Malformed(first)
        headers = []
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon:
                raise _Malformed(line)
            headers.append((name, value.strip()))
        lowered = {name.lower(): value for name, value in headers}
        if lowered.get("expect", "").lower() == "100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in lowered.get("transfer-encoding", "").lower():
            body = await self._read_chunks()
        else:
            body = await self._take(int(lowered.get("content-length", "0")))
        return self.server._record(self, words[0], words[1], tuple(headers), body)

    async def _read_chunks(self) -> bytes:
        body = bytearray()
        while True:
            size = int((await self._take_until(b"\r\n")).split(b";")[0], 16)
            if size == 0:
                while await self._take_until(b"\r\n"):
                    pass
                return bytes(body)
            body += await self._take(size)
            await self._take(2)

    # Answering.

    async def _serve(self) -> None:
        try:
            while True:
                request = await self._read_request()
                keep = await self._answer(request, await self.server._reply_to(request))
                request.answered.happen()
                if not keep:
                    break
        except _PeerLeft:
            pass
        except _Malformed as error:
            self.server.malformed.append(str(error))
            self.transport.write(b"HTTP/1.1 400 Malformed\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()

    async def _answer(self, request: Received, reply: Reply) -> bool:
        request_start = self.written
        try:
            for step in reply.before:
                await self._play(step, chunked=False)
            steps = reply.steps if reply.steps is not None else ((Send(reply.body),) if reply.body else ())
            framing = reply.framing or ("chunked" if reply.steps is not None else "length")
            chunked = framing == "chunked" and not reply.raw
            if not reply.raw:
                await self._write(_head(reply, framing, steps))
            if request.method != "HEAD":
                for step in steps:
                    await self._play(step, chunked=chunked)
                if chunked and reply.last_chunk:
                    await self._write(b"0\r\n\r\n")
            for step in reply.after:
                await self._play(step, chunked=False)
        finally:
            request.sent = self.written - request_start
        cut = chunked and not reply.last_chunk
        asked_to_close = (request.header("connection") or "").lower() == "close"
        return reply.keep_alive and framing != "close" and not reply.raw and not cut and not asked_to_close

    async def _play(self, step: Step, *, chunked: bool) -> None:
        match step:
            case Send(data):
                await self._write(_chunk(data) if chunked else data)
            case Raw(data):
                await self._write(data)
            case Pause(until):
                await self._pause(until)
            case Hang():
                await self._gone.wait()
                raise _PeerLeft
            case Endless(data, limit):
                wire = _chunk(data) if chunked else data
                total = 0
                while limit is None or total < limit:
                    await self._write(wire)
                    total += len(data)
            case Close():
                self.transport.close()
                raise _PeerLeft
            case Reset():
                self._reset()
                raise _PeerLeft

    async def _pause(self, until: Moment | float) -> None:
        async def moment() -> None:
            if isinstance(until, Moment):
                await until
            else:
                await asyncio.sleep(until)

        waiting = asyncio.ensure_future(moment())
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait((waiting, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            gone.cancel()

    async def _write(self, data: bytes) -> None:
        await self._writable.wait()
        if self.transport.is_closing():
            raise _PeerLeft
        self.transport.write(data)
        self.written += len(data)
        # One turn of the loop per write, so that a peer's leaving is noticed and other connections live.
        await asyncio.sleep(0)

    def _reset(self) -> None:
        sock = self.transport.get_extra_info("socket")
        if sock is not None:  # else the other side was faster
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    @property
    def unsent(self) -> int:
        """Bytes handed over that still wait in this process."""
        return self.transport.get_write_buffer_size()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _head(reply: Reply, framing: Framing, steps: Sequence[Step]) -> bytes:
    lines = [f"HTTP/1.1 {reply.status} {reply.reason}"]
    lines += [f"{name}: {value}" for name, value in reply.headers]
    if framing == "chunked":
        lines.append("transfer-encoding: chunked")
    elif framing == "length":
        length = sum(len(step.data) for step in steps if isinstance(step, Send))
        lines.append(f"content-length: {length if reply.declared_length is None else reply.declared_length}")
    if framing == "close" or not reply.keep_alive:
        lines.append("connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class Upstream:
    """The scripted provider. `requests` holds all that came; `script` may be replaced at any time.

    A single `Reply` answers everything, a list answers request after request (one too many gets 599 and is
    counted in `unscripted`), a function (or coroutine function) decides by the request.
    """

    def __init__(self, script: Script, *, receive_buffer: int | None = None, send_buffer: int | None = None) -> None:
        self.script = script
        self.requests: list[Received] = []
        self.malformed: list[str] = []
        self.unscripted = 0
        self.opened = 0
        self.url = ""
        self.port = 0
        self._connections: dict[int, _Connection] = {}
        self._connection_of: dict[int, _Connection] = {}
        self._server: asyncio.Server | None = None
        self._next = 0
        self._waiters: list[tuple[int, Moment]] = []
        self._lock = threading.Lock()
        self._buffers = (receive_buffer, send_buffer)

    async def __aenter__(self) -> Self:
        # With the protocol named, asyncio switches Nagle's algorithm off on accepted sockets; without, each
        # answer costs 40 ms.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Buffer sizes are inherited by accepted sockets only when set before listen.
        for option, size in zip((socket.SO_RCVBUF, socket.SO_SNDBUF), self._buffers, strict=True):
            if size is not None:
                listener.setsockopt(socket.SOL_SOCKET, option, size)
        listener.bind(("127.0.0.1", 0))
        listener.setblocking(False)
        self._server = await asyncio.get_running_loop().create_server(self._accept, sock=listener, backlog=1024)
        self.port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        tasks = []
        for connection in list(self._connections.values()):
            connection.transport.abort()
            if connection._task is not None:
                connection._task.cancel()
                tasks.append(connection._task)
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._connections)

    def sent_to(self, request: Received) -> int:
        """Bytes of the answer that have left this process so far, running or ended."""
        if request.answered.happened:
            return request.sent
        connection = self._connection_of[request.number]
        return connection.written - connection.unsent

    def arrival(self, count: int = 1) -> Moment:
        """The moment at which `count` requests have come in all."""
        moment = Moment()
        with self._lock:
            if len(self.requests) >= count:
                moment.happen()
            else:
                self._waiters.append((count, moment))
        return moment

    def forget(self) -> None:
        """Drop what was recorded so far, for a server that serves many exchanges."""
        with self._lock:
            self.requests.clear()
            self._connection_of.clear()
            self.unscripted = 0

    def _accept(self) -> _Connection:
        self.opened += 1
        return _Connection(self, self.opened)

    def _record(
        self,
        connection: _Connection,
        method: str,
        target: str,
        headers: tuple[tuple[str, str], ...],
        body: bytes,
    ) -> Received:
        with self._lock:
            request = Received(
                number=self._next,
                connection=connection.number,
                method=method,
                target=target,
                headers=headers,
                body=body,
                at=time.monotonic(),
                closed=connection.closed,
            )
            self._next += 1
            self._connection_of[request.number] = connection
            self.requests.append(request)
            for count, moment in self._waiters:
                if len(self.requests) >= count:
                    moment.happen()
        return request

    async def _reply_to(self, request: Received) -> Reply:
        script = self.script
        if isinstance(script, Reply):
            return script
        if callable(script):
            answer = script(request)
            return answer if isinstance(answer, Reply) else await answer
        position = len(self.requests) - 1
        if position < len(script):
            return script[position]
        self.unscripted += 1
        return Reply(status=599, reason="Unscripted", body=b"the script holds no further reply")


@contextmanager
def upstream_in_thread(script: Script, **options: Any) -> Iterator[Upstream]:
    """The same server in a thread of its own, for synchronous tests; `Moment.wait` is how they wait."""
    upstream = Upstream(script, **options)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="upstream", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(upstream.__aenter__(), loop).result(10)
        try:
            yield upstream
        finally:
            asyncio.run_coroutine_threadsafe(upstream.__aexit__(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@asynccontextmanager
async def upstreams(*scripts: Script) -> AsyncIterator[list[Upstream]]:
    """Several servers at once, for failover."""
    servers = [Upstream(script) for script in scripts]
    entered = []
    try:
        for server in servers:
            entered.append(await server.__aenter__())
        yield entered
    finally:
        for server in reversed(entered):
            await server.__aexit__()


def refusing_url() -> str:
    """The URL of a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


# Headers that belong to the transport of the recording, not to the answer.
_TRANSPORT_HEADERS: Final = frozenset(
    {"content-length", "content-encoding", "transfer-encoding", "connection", "keep-alive"}
)


def replay(exchange: Exchange, *, cut: int | Iterable[int] | None = None, as_array: bool = False) -> Reply:
    """The recorded answer as a reply.

    Event streams go out chunked: whole, or cut into pieces of `cut` bytes (a number, or the successive
    sizes). A Gemini JSON array is played as the event stream of `alt=sse`, which is how back ends ask, unless
    `as_array`.
    """
    response = exchange.response
    headers = _replay_headers(response.headers)
    sse = response.sse is not None
    payload = response.payload
    if response.is_json_array and exchange.stream and not as_array:
        payload, sse = response.payload_as_sse, True
        headers["content-type"] = "text/event-stream"
    if not sse and cut is None:
        return Reply(status=response.status, headers=tuple(headers.items()), body=payload)
    pieces = _cut(payload, cut)
    return Reply(
        status=response.status,
        headers=tuple(headers.items()),
        steps=tuple(Send(piece) for piece in pieces),
    )


def _replay_headers(recorded: Mapping[str, str]) -> dict[str, str]:
    return {name: str(value) for name, value in recorded.items() if name.lower() not in _TRANSPORT_HEADERS}


def _cut(payload: bytes, cut: int | Iterable[int] | None) -> list[bytes]:
    if not payload:
        return []
    if cut is None:
        return [payload]
    if isinstance(cut, int):
        return [payload[at : at + cut] for at in range(0, len(payload), cut)]
    pieces, at = [], 0
    for size in cut:
        if at >= len(payload):
            break
        if size > 0:
            pieces.append(payload[at : at + size])
            at += size
    if at < len(payload):
        pieces.append(payload[at:])
    return pieces
