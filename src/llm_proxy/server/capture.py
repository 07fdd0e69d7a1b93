"""Listens to the calls of one request for the wire capture: one recorder for each call (OPS-05).

Owns who is said to have called, and when an answer is a stream. Everything here runs on the event loop and only appends to a queue.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from llm_proxy.backends.transport import LEFT_UNREAD
from llm_proxy.config.capture import CaptureOptions
from llm_proxy.config.settings import Settings
from llm_proxy.routing.plan import Attempt
from llm_proxy.server.http import Incoming
from llm_proxy.store.capture.capture import Capture, CaptureSettings
from llm_proxy.store.capture.file import Limits
from llm_proxy.store.capture.heard import Answered, Begun, Caller, Ended, Heard, Piece, Sent, What

MOST_WHOLE = 16 * 1024 * 1024
"""Bytes of an answer in one piece that are kept for the capture; no provider's answer is as long."""
CLIENT_LEFT = "the client left"


def capture_settings(settings: Settings) -> CaptureSettings | None:
    """What the configuration says of the capture; None when it is off."""
    options = settings.get(CaptureOptions)
    if options.capture_file is None:
        return None
    return CaptureSettings(
        path=Path(os.path.abspath(settings.data_dir / options.capture_file)),
        limits=Limits(
            bytes=options.capture_max_bytes,
            files=options.capture_max_files,
            total=options.capture_total_max_bytes,
            seconds=options.capture_rotate_interval_seconds,
        ),
        buffer=options.capture_buffer_size,
        interval=options.capture_flush_interval,
        batch=options.capture_max_entries_per_flush,
        truncate=options.capture_truncate_bytes,
    )


def recorder(
    capture: Capture | None,
    incoming: Incoming,
    attempt: Attempt,
    *,
    session: str,
    request_id: str,
    number: int,
    call: int,
    left: Callable[[], bool],
) -> Recorder | None:
    """Who listens to a call; None when nothing is captured. `number` is the attempt's, `call` the call's within its request."""
    if capture is None or not capture.on:
        return None
    caller = Caller(
        client_host=incoming.sender.address or incoming.peer,
        user_agent=incoming.header(b"user-agent"),
        session_id=session,
        backend=attempt.backend.id,
        model=attempt.model,
        key_name=attempt.key_name,
        request_id=request_id,
        attempt=number,
        call=call,
    )
    return Recorder(capture, caller, left)


class Recorder:
    """Fulfils `wire.tap.WireTap` for one call. `left` says whether the client is gone."""

    __slots__ = (
        "_began", "_caller", "_capture", "_chunks", "_first", "_headers", "_left", "_pieces", "_size", "_status", "_streamed"
    )  # fmt: skip

    def __init__(self, capture: Capture, caller: Caller, left: Callable[[], bool]) -> None:
        self._capture = capture
        self._caller = caller
        self._left = left
        self._reset()

    def _reset(self) -> None:
        self._began = time.monotonic()
        self._status = 0
        self._headers: Sequence[tuple[str, str]] = ()
        self._streamed = False
        self._pieces: list[bytes] = []
        self._chunks = 0
        self._size = 0
        self._first: float | None = None

    def request(self, destination: str, body: bytes) -> None:
        self._reset()
        self._put(Sent(destination, body), len(body))

    def response(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        self._status, self._headers = status, headers
        kind = next((value for name, value in headers if name.lower() == "content-type"), "")
        self._streamed = 200 <= status < 300 and "event-stream" in kind.lower()
        if self._streamed:
            self._put(Begun(status, headers), 0)

    def chunk(self, data: bytes) -> None:
        self._chunks += 1
        self._size += len(data)
        if self._first is None:
            self._first = time.monotonic() - self._began
        if self._streamed:
            size = len(data)
            self._capture.put(Heard(time.time(), self._caller, Piece(self._chunks, data), size))
        elif self._size <= MOST_WHOLE:
            self._pieces.append(data)

    def end(self, failure: str = "") -> None:
        if failure == LEFT_UNREAD and self._left():
            failure = CLIENT_LEFT
        duration = time.monotonic() - self._began
        if self._streamed:
            self._put(Ended(self._status, self._chunks, self._size, duration, self._first, failure), 0)
        else:
            pieces, self._pieces = self._pieces, []
            kept = sum(map(len, pieces))
            self._put(Answered(self._status, self._headers, pieces, self._size, duration, failure), kept)

    def _put(self, what: What, size: int) -> None:
        self._capture.put(Heard(time.time(), self._caller, what, size))
