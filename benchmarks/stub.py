"""The stub provider, a process of its own: `python -m benchmarks.stub` prints its port and answers until its
input is closed.

A bare protocol on the event loop, so that it costs little on the core that it shares with the load generator.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import re
import sys
from typing import cast

from benchmarks import answers

_MODEL = re.compile(rb'"model"\s*:\s*"[^"]*?bench-([a-z]+)-?(\d*)')
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_MODELS = b'{"object":"list","data":[{"id":"bench-json","object":"model"}]}'


class Stub(asyncio.Protocol):
    """One connection: whole requests in, prepared bytes out."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._held = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        if self._held:
            data = self._held + data
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            self._held = data
            return
        head = data[:end]
        found = _LENGTH.search(head)
        if found is not None:
            complete = len(data) >= end + int(found[1])
        else:
            complete = b"chunked" not in head.lower() or data.endswith(b"\r\n0\r\n\r\n")
        if not complete:
            self._held = data
            return
        self._held = b""
        self._answer(head, data[end:])

    def _answer(self, head: bytes, body: bytes) -> None:
        write = self._transport.write
        if head.startswith(b"GET"):
            write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                % (len(_MODELS), _MODELS)
            )
            return
        anthropic = b"/messages" in head[: head.find(b"\r\n")]
        model = _MODEL.search(body)
        kind, count = (model[1], int(model[2] or 0)) if model else (b"json", 0)
        if kind == b"burst":
            for part in answers.burst(anthropic, count):
                write(part)
        elif kind == b"paced":
            write(answers.STREAM_HEAD + answers.pieces(anthropic).start)
            # Streams that began together must not stay in step: each gets a phase of its own.
            self._timer = self._loop.call_later(random.random() * answers.PACE, self._tick, anthropic, count)
        elif kind == b"idle":
            parts = answers.pieces(anthropic)
            write(answers.STREAM_HEAD + parts.start + parts.text(0))
        else:
            write(answers.whole(anthropic))

    def _tick(self, anthropic: bool, left: int) -> None:
        parts = answers.pieces(anthropic)
        if left == 0:
            self._transport.write(parts.end)
            return
        self._transport.write(parts.text(left))
        self._timer = self._loop.call_later(answers.PACE, self._tick, anthropic, left - 1)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Stub, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    gc.freeze()
    # Whoever started us holds the other end of our input: when it ends, so do we.
    ended = asyncio.Event()

    def heard() -> None:
        if not os.read(sys.stdin.fileno(), 1):
            ended.set()

    loop.add_reader(sys.stdin.fileno(), heard)
    await ended.wait()
    server.close()


def main() -> None:
    factory = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve())


if __name__ == "__main__":
    main()
