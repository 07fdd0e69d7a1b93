"""A provider's answer that counts the time for which it is waited for (OPS-14).

Until the client's answer is ready or its stream has content; what comes later costs one look. Changes nothing that it passes on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any

from llm_proxy.backends.transport import LARGEST_BODY, Response
from llm_proxy.performance_tracker import RequestPerformance

if TYPE_CHECKING:
    from collections.abc import Sequence

CALL = "backend_call"


class TimedResponse:
    """`response` as it is, seen by `performance`. Fulfils `Response`."""

    __slots__ = ("_performance", "_response")

    def __init__(self, response: Response, performance: RequestPerformance) -> None:
        self._response = response
        self._performance = performance

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> list[tuple[str, str]]:
        return self._response.headers

    @property
    def losses(self) -> Sequence[str]:
        return getattr(self._response, "losses", ())

    def chunk(self) -> Coroutine[Any, Any, bytes]:
        if self._performance.is_answered:
            return self._response.chunk()
        return self._timed(self._response.chunk())

    def read(self, limit: int = LARGEST_BODY) -> Coroutine[Any, Any, bytes]:
        return self._timed(self._response.read(limit))

    async def _timed(self, waiting: Coroutine[Any, Any, bytes]) -> bytes:
        before = self._performance.turn_to(CALL)
        try:
            return await waiting
        finally:
            self._performance.turn_to(before)

    def chunks(self) -> AsyncIterator[bytes]:
        return self._response.chunks()

    def close(self) -> None:
        self._response.close()
