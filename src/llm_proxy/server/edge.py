"""The HTTP/1.1 edge in front of the application: what parsers could read differently is refused (CWE-444).

`Framing` follows the bytes of a connection and hands on only complete, checked request heads and well-framed
bodies; it is pure. The protocol classes put it in front of uvicorn's parsers and add deadlines for requests
that never become complete. Knows nothing of paths, keys or protocols.
"""

from __future__ import annotations

import asyncio
import json
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal

# Precedent: Apache and nginx allow 8 KiB per line and about 100 headers; long cookies need more.
MAX_REQUEST_LINE = 16 * 1024
MAX_HEADER_BYTES = 32 * 1024
MAX_HEADERS = 100
MAX_CHUNK_LINE = 256
MAX_TRAILER_BYTES = 8 * 1024

IDLE_SECONDS = 75.0
HEAD_SECONDS = 10.0
BODY_SECONDS = 30.0
LINGER_SECONDS = 2.0

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*"
_REQUEST_LINE = re.compile(rb"[A-Z]+ /[\x21\x22\x24-\x7e]* HTTP/1\.[01]")
_HEAD = re.compile(_REQUEST_LINE.pattern + rb"\r\n(?:" + _TOKEN + rb":" + _VALUE + rb"\r\n)*\r\n")
_FIELD = re.compile(_TOKEN + rb":" + _VALUE)
_FRAMING_NAMES = re.compile(rb"\r\n(host|content-length|transfer-encoding):[ \t]*([^\r]*)")
_HOST = re.compile(rb"(?:\[[0-9a-f:.]+\]|[a-z0-9._-]*)(?::[0-9]{0,5})?")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")

Phase = Literal["idle", "head", "body"]
Waiting = Literal["idle", "head", "body", "linger"]


class Refused(Exception):
    """The bytes are not one unambiguous request. `status` is the answer's; the connection ends with it.

    `before` holds the complete requests that came with the refused one. `begun`: its head was handed on.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.before = b""
        self.begun = False


class Framing:
    """Where requests begin and end in one connection's bytes.

    `phase` after a feed: `idle` (all requests so far are complete), `head` or `body` (one has begun). A head
    is handed on only when it is complete, so that no parser behind can find an earlier end in it.
    """

    __slots__ = ("_chunk", "_chunked", "_held", "_left", "_trailer", "phase")

    def __init__(self) -> None:
        self.phase: Phase = "idle"
        self._held = b""  # an incomplete head, or an incomplete line of a chunked body
        self._left = 0  # bytes of a body (or of a chunk) still to come
        self._chunked = False
        self._chunk: Literal["size", "data", "end", "trailer"] = "size"
        self._trailer = 0

    def feed(self, data: bytes) -> bytes:
        """The part of all bytes so far that a parser may see now. Raises Refused."""
        if self._held:
            data, self._held = self._held + data, b""
        position, size = 0, len(data)
        begin = -1  # where the last request begins, if it does so here
        try:
            while position < size:
                if self._left:
                    step = min(self._left, size - position)
                    self._left -= step
                    position += step
                    if not self._left and not self._chunked:
                        self.phase = "idle"
                    continue
                if self._chunked:
                    end = self._line(data, position)
                else:
                    if data.startswith(b"\r\n", position):
                        # RFC 9112 section 2.2: an empty line before a request is ignored.
                        data = data[:position] + data[position + 2 :]
                        size -= 2
                        if position == size:
                            break
                    begin = position
                    end = self._head(data, position)
                    if self.phase == "body" and end > 0 and _UPGRADE.search(data, position, end):
                        # llhttp takes the body of an upgrade request (Java's client offers h2c with every
                        # POST) for the new protocol. No upgrade is served, so the offer is struck out.
                        head = _UPGRADE.sub(b"\r\nignored:", data[position:end])
                        data = data[:position] + head + data[end:]
                if end < 0:
                    self._held = data[position:]
                    return data[:position]
                position = end
        except Refused as refused:
            refused.begun = begin < 0
            refused.before = data[: max(begin, 0)]
            raise
        return data

    def _head(self, data: bytes, start: int) -> int:
        """Checks the head that begins at `start`; where it ends, or -1 while it is incomplete."""
        end = data.find(b"\r\n\r\n", start)
        if end < 0:
            self.phase = "head"
            _check_beginning(data[start:])
            return -1
        end += 4
        head = data[start:end]
        if len(head) > MAX_REQUEST_LINE:
            _check_size(head)
        if _HEAD.fullmatch(head) is None:
            raise _explained(head)
        self._frame(head)
        self.phase = "body" if self._left or self._chunked else "idle"
        return end

    def _frame(self, head: bytes) -> None:
        if head.count(b"\r\n") - 2 > MAX_HEADERS:
            raise Refused(431, f"more than {MAX_HEADERS} headers")
        host = length = coding = None
        for name, value in _FRAMING_NAMES.findall(head.lower()):
            value = value.rstrip(b" \t")
            if name == b"host":
                if host is not None:
                    raise Refused(400, "two Host headers")
                host = value
            elif name == b"content-length":
                if length is not None:
                    raise Refused(400, "two Content-Length headers")
                length = value
            else:
                if coding is not None:
                    raise Refused(400, "two Transfer-Encoding headers")
                coding = value
        if host is None:
            raise Refused(400, "no Host header")
        if _HOST.fullmatch(host) is None:
            raise Refused(400, "the Host header is not a host name and port")
        self._chunked = coding is not None
        self._left = 0
        if coding is not None:
            if length is not None:
                raise Refused(400, "Content-Length and Transfer-Encoding exclude each other")
            if coding != b"chunked":
                raise Refused(400, "the only Transfer-Encoding served is chunked")
            if head[: head.index(b"\r\n")].endswith(b"1.0"):
                raise Refused(400, "HTTP/1.0 has no Transfer-Encoding")
            self._chunk, self._trailer = "size", 0
        elif length is not None:
            if _LENGTH.fullmatch(length) is None:
                raise Refused(400, "Content-Length is not a number")
            self._left = int(length)

    def _line(self, data: bytes, start: int) -> int:
        """One line of a chunked body's frame; where it ends, or -1 while it is incomplete."""
        if self._chunk == "data":
            self._chunk = "end"
        if self._chunk == "end":
            if data.startswith(b"\r\n", start):
                self._chunk = "size"
                return start + 2
            if data[start:] == b"\r":
                return -1
            raise Refused(400, "a chunk is longer than its size says")
        end = data.find(b"\r\n", start, start + MAX_CHUNK_LINE + 2 if self._chunk == "size" else None)
        if end < 0:
            if len(data) - start > MAX_CHUNK_LINE or b"\n" in data[start:]:
                raise Refused(400, "a chunked body's frame is not readable")
            return -1
        line = data[start:end]
        if self._chunk == "size":
            match = _CHUNK_SIZE.fullmatch(line)
            if match is None:
                raise Refused(400, "a chunk size is not readable")
            self._left = int(match[1], 16)
            self._chunk = "data" if self._left else "trailer"
        elif not line:
            self._chunked = False
            self.phase = "idle"
        else:
            self._trailer += len(line)
            if self._trailer > MAX_TRAILER_BYTES or _FIELD.fullmatch(line) is None:
                raise Refused(400, "a trailer is not readable")
        return end + 2


def _check_size(head: bytes) -> None:
    line = head.find(b"\r\n")
    if (len(head) if line < 0 else line) > MAX_REQUEST_LINE:
        raise Refused(414, f"the request line is longer than {MAX_REQUEST_LINE} bytes")
    if line >= 0 and len(head) - line > MAX_HEADER_BYTES:
        raise Refused(431, f"the headers are longer than {MAX_HEADER_BYTES} bytes")


def _check_beginning(head: bytes) -> None:
    """Refuses what cannot become a request any more, instead of waiting for an end that may never come."""
    _check_size(head)
    lines, _, last = head.rpartition(b"\r\n")
    if b"\n" in last or b"\0" in last or b"\r" in last[:-1] or (lines and last[:1] in (b" ", b"\t")):
        raise _explained(head)
    if lines and _HEAD.fullmatch(lines + b"\r\n\r\n") is None:
        raise _explained(head)
    if lines.count(b"\r\n") > MAX_HEADERS:
        raise Refused(431, f"more than {MAX_HEADERS} headers")


def _explained(head: bytes) -> Refused:
    """What is wrong with a head that is not in the strict form, said as far as it is clear."""
    line, *fields = head.split(b"\r\n")
    if b"\n" in head.replace(b"\r\n", b""):
        return Refused(400, "lines must end with CR LF")
    if line.startswith((b"CONNECT ", b"TRACE ")):
        return Refused(405, "CONNECT and TRACE are not served")
    if _REQUEST_LINE.fullmatch(line) is None:
        words = line.split(b" ")
        if len(words) == 2:
            return Refused(400, "HTTP/0.9 is not served")
        if len(words) == 3 and b"://" in words[1]:
            return Refused(400, "the request line must hold a path, not an absolute URI")
        return Refused(400, "the request line is not readable")
    for field in fields:
        if field[:1] in (b" ", b"\t"):
            return Refused(400, "folded headers are not served")
        name, colon, _ = field.partition(b":")
        if colon and name != name.rstrip(b" \t"):
            return Refused(400, "a header name is followed by white space")
    return Refused(400, "a header holds a character that is not allowed there")


_TYPES = {
    408: "request_timeout",
    405: "method_not_allowed",
    414: "uri_too_long",
    431: "headers_too_large",
    503: "backend_unavailable",
}


def refusal(status: int, message: str) -> bytes:
    """A complete response in OpenAI's error shape: at this point nobody knows what the client speaks."""
    code = _TYPES.get(status, "invalid_request")
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": None, "code": code}
    detail = {"code": code, "message": message, "details": {}}
    body = json.dumps({"error": error, "detail": detail}, separators=(",", ":")).encode()
    allow = "allow: GET, HEAD, POST, DELETE, OPTIONS\r\n" if status == 405 else ""
    again = "retry-after: 1\r\n" if status == 503 else ""
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n{allow}{again}connection: close\r\n\r\n"
    ).encode() + body


if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as _Protocol

    from llm_proxy.server.admission import Crowd
else:
    _Protocol = object


class GuardedEdge(_Protocol):
    """What both protocol classes share: the framing check, refusals in order, and the deadlines.

    One timer per connection: uvicorn's keep-alive timer, which also runs while a request is incomplete. A
    request that arrives in one piece costs no timer beyond it.
    """

    crowd: Crowd | None = None
    """Counts the connections of the process; None for as many as come."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._framing = Framing()
        self._timed: Waiting = "idle"  # what the timer waits for
        self._heard = 0.0
        self._refusal = b""
        self._finished = False  # nothing more is read: a refusal waits or was sent
        self._current: Any = None  # the request being answered; `cycle` is the last one that arrived

    def _parse(self, data: bytes) -> None:
        raise NotImplementedError

    def _answering(self) -> bool:
        """Is an answer under way, or a complete request waiting for its turn?"""
        current = self._current
        return current is not None and not current.response_complete

    @property
    def answering(self) -> bool:
        return self._answering()

    @property
    def awaited(self) -> bool:
        """May a request be on its way that its client takes for accepted: the first of a connection, or one that has begun to come?"""
        cycle: Any = self.cycle
        return not self._finished and (cycle is None or self._framing.phase != "idle")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if (crowd := self.crowd) is not None:
            crowd.come()
            if crowd.refusing:
                self._refuse(503, "the proxy has as many connections as it can hold; try again in a moment", False)
                if crowd.flooded:
                    transport.close()  # without waiting for the client to read it
                return
        self._arm("idle", IDLE_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        # uvicorn tells only the last request that arrived; with pipelining another one is being answered.
        current = self._current
        if current is not None and not current.response_complete:
            current.disconnected = True
            current.message_event.set()
        self._finished = True
        if self.crowd is not None:
            self.crowd.go()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._finished:
            return
        framing = self._framing
        try:
            ready = framing.feed(data)
        except Refused as error:
            if error.before:
                self._parse(error.before)
            self._refuse(error.status, error.message, error.begun)
            return
        phase = framing.phase
        if phase == "idle":
            self._unset_keepalive_if_required()
        if ready:
            self._parse(ready)
        if self._timed == "linger":
            return
        if phase == "body":
            self._heard = self.loop.time()
            if self._timed != "body" or self.timeout_keep_alive_task is None:
                self._arm("body", BODY_SECONDS)
        elif phase == "head" and (self._timed != "head" or self.timeout_keep_alive_task is None or ready):
            self._arm("head", HEAD_SECONDS)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            return
        phase = self._framing.phase
        if self._refusal:
            if not self._answering():
                self._close_with(self._refusal)
        elif phase == "idle":
            self._timed = "idle"  # armed above, unless another request waits
        elif phase == "head":
            self._arm("head", HEAD_SECONDS)
        elif not self._answering():
            # The answer came before the request's end (413, 401): the rest is read and dropped, for a while.
            self._arm("idle", BODY_SECONDS)

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        if self.transport.is_closing():
            return
        if self._timed in ("idle", "linger"):
            super().timeout_keep_alive_handler()
        elif self.flow.read_paused or (self._timed == "head" and self._answering()):
            # It is not the client that keeps us waiting.
            self._arm(self._timed, HEAD_SECONDS)
        elif self._timed == "body" and (left := self._heard + BODY_SECONDS - self.loop.time()) > 0:
            self._arm("body", left)
        else:
            self._refuse(408, "the request did not arrive completely in time", self._timed == "body")

    def _arm(self, waiting: Waiting, seconds: float) -> None:
        self._unset_keepalive_if_required()
        self._timed = waiting
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _refuse(self, status: int, message: str, begun: bool) -> None:
        """Answers and closes; answers to earlier requests of the connection come first."""
        if self._finished:
            return
        self._finished = True
        self._unset_keepalive_if_required()
        answer = refusal(status, message)
        cycle = self.cycle
        if begun and cycle is self._current:
            cycle.disconnected = True
            cycle.message_event.set()
            self._close_with(b"" if cycle.response_started else answer)
        elif self._answering():
            if begun:
                self._forget_last()
            self._refusal = answer
        else:
            self._close_with(answer)

    def _forget_last(self) -> None:
        """Takes the request out of the queue whose body will never be complete."""

    def _close_with(self, answer: bytes) -> None:
        """Closing at once would reset the connection while the client still sends, and the answer be lost."""
        if not answer:
            self.transport.close()
            return
        self.transport.write(answer)
        self.transport.write_eof()
        self.flow.resume_reading()
        self._arm("linger", LINGER_SECONDS)


def edge_protocol(crowd: Crowd | None = None) -> type[asyncio.Protocol]:
    """The protocol class that uvicorn shall run: httptools where it is installed, else h11."""
    try:
        edge = _httptools_edge()
    except ImportError:
        edge = _h11_edge()
    edge.crowd = crowd
    return edge


def _httptools_edge() -> type[GuardedEdge]:
    import httptools
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class HttpToolsEdge(GuardedEdge, HttpToolsProtocol):
        def _parse(self, data: bytes) -> None:
            while data:
                try:
                    self.parser.feed_data(data)
                    return
                except httptools.HttpParserUpgrade as upgrade:
                    # No upgrade is served; what follows is the next request (RFC 9110 section 7.8).
                    data = data[upgrade.args[0] :]
                except httptools.HttpParserError:
                    self._refuse(400, "the request is not readable", False)
                    return

        def on_headers_complete(self) -> None:
            if self.url.startswith(b"//"):
                # Would be read as a host name.
                self.url = b"/" + self.url.lstrip(b"/")
            super().on_headers_complete()
            if self.expect_100_continue:
                # A client that gets no 100 may leave its body out, so nothing can follow on this connection.
                self.cycle.keep_alive = False

        def _start_asgi_task(self, cycle: Any, app: Any) -> None:
            self._current = cycle
            super()._start_asgi_task(cycle, app)

        def _answering(self) -> bool:
            return bool(self.pipeline) or super()._answering()

        def _forget_last(self) -> None:
            if self.pipeline:
                self.pipeline.popleft()

        def shutdown(self) -> None:
            if self._answering():
                self._current.keep_alive = False
            else:
                self.transport.close()

    return HttpToolsEdge


def _h11_edge() -> type[GuardedEdge]:
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class H11Edge(GuardedEdge, H11Protocol):  # type: ignore[misc]
        def _parse(self, data: bytes) -> None:
            self.conn.receive_data(data)
            self.handle_events()
            cycle: Any = self.cycle
            self._current = cycle
            if cycle is not None and cycle.waiting_for_100_continue:
                cycle.keep_alive = False

        def _unsupported_upgrade_warning(self) -> None:
            """No upgrade is served; nothing to warn of."""

        def send_400_response(self, msg: str) -> None:
            self._refuse(400, "the request is not readable", False)

    return H11Edge
