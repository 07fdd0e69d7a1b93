"""Optional health checks (OPS-16): one cheap call per back end on its first use and at most every five minutes after that.

Results are shown on the operator's page. They never take a back end out of service.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec

from llm_proxy.backends.base import Backend
from llm_proxy.conversation.fault import FaultError

_INTERVAL = 300.0


class Health(msgspec.Struct, frozen=True):
    """`state` is ok or failing; `reason` says why; `checked` is epoch seconds."""

    state: str
    reason: str
    checked: float


class HealthChecks:
    """`clock` is monotonic seconds."""

    def __init__(self, enabled: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self.enabled = enabled
        self._clock = clock
        self._due: dict[str, float] = {}
        self._running: set[asyncio.Task[None]] = set()
        self.results: dict[str, Health] = {}

    def used(self, backend: Backend) -> None:
        """A request goes to `backend`: look after it if that is due. Never waits."""
        if not self.enabled or self._clock() < self._due.get(backend.id, 0.0):
            return
        self._due[backend.id] = self._clock() + _INTERVAL
        task = asyncio.get_running_loop().create_task(self._check(backend))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _check(self, backend: Backend) -> None:
        """Reads the model list, the cheapest call that providers have."""
        try:
            await backend.models()
        except FaultError as error:
            self.results[backend.id] = Health("failing", error.fault.message, time.time())
            return
        reason = "the model list cannot be read" if backend.list_failed else ""
        self.results[backend.id] = Health("failing" if reason else "ok", reason, time.time())
