"""A relay of forty lines on the libraries that the proxy stands on, uvicorn and aiohttp: what they alone cost.

The difference between it and the proxy is the proxy's own work. `python -m benchmarks.bare PORT STUB_PORT`.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import aiohttp
import uvicorn

_Message = MutableMapping[str, Any]


class Relay:
    """An ASGI application that sends every request on and every piece of the answer back."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._session: aiohttp.ClientSession | None = None

    async def __call__(
        self,
        scope: _Message,
        receive: Callable[[], Awaitable[_Message]],
        send: Callable[[_Message], Awaitable[None]],
    ) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_read=300),
            )
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {"content-type": "application/json"}
        async with self._session.post(self._upstream + scope["path"], data=body, headers=headers) as answer:
            kept = [pair for pair in answer.raw_headers if pair[0].lower() in (b"content-type", b"content-length")]
            await send({"type": "http.response.start", "status": answer.status, "headers": kept})
            async for piece in answer.content.iter_any():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def main() -> None:
    port, stub_port = map(int, sys.argv[1:3])
    uvicorn.run(
        Relay(f"http://127.0.0.1:{stub_port}"),
        port=port,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        log_level="error",
    )


if __name__ == "__main__":
    main()
