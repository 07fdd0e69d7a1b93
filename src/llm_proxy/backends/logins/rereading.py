"""Answers that say more than came over the wire: errors that were read here and are given on whole, and what a request lost.

Knows no vendor.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from llm_proxy.backends.transport import LARGEST_BODY, MemoryResponse, Response


async def read_and_close(response: Response, limit: int) -> bytes:
    """The whole body. Raises FaultError when it is longer than `limit` bytes or breaks."""
    try:
        return await response.read(limit)
    finally:
        response.close()


def read_already(response: Response, body: bytes, *more: tuple[str, str]) -> Response:
    """`response` with the `body` that was read from it, and with `more` headers."""
    return given(response.status, [*response.headers, *more], body)


def given(status: int, headers: list[tuple[str, str]], body: bytes) -> Response:
    """An answer that is there already."""

    async def source() -> AsyncIterator[bytes]:
        if body:
            yield body

    return MemoryResponse(status, headers, source())


class Lossy:
    """An answer to a request of which something was left out: `losses`, a sentence for each, is for the client to be told."""

    def __init__(self, response: Response, losses: tuple[str, ...]) -> None:
        self.losses = losses
        self._response = response

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> list[tuple[str, str]]:
        return self._response.headers

    async def chunk(self) -> bytes:
        return await self._response.chunk()

    def chunks(self) -> AsyncIterator[bytes]:
        return self._response.chunks()

    async def read(self, limit: int = LARGEST_BODY) -> bytes:
        return await self._response.read(limit)

    def close(self) -> None:
        self._response.close()
