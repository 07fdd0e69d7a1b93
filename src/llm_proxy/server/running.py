"""What outlives a configuration: the process's identity, its open exchanges, and the one place that says which configuration is in force.

A reload builds a new `Gateway` and puts it here in one step. An exchange takes the gateway once, when it begins, so that no request sees
half a configuration.
"""

from __future__ import annotations

import logging
import math
import secrets as random_bytes
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from llm_proxy.config import ConfigError
from llm_proxy.dialects.names import base62
from llm_proxy.server.admission import Admission, Crowd, bounds
from llm_proxy.wire.redaction import Redactor

if TYPE_CHECKING:
    from llm_proxy.commands.desk import RouteFacts
    from llm_proxy.server.exchange import Exchange
    from llm_proxy.server.gateway import Gateway
    from llm_proxy.store.capture.capture import Capture

_LOG = logging.getLogger(__name__)
_PAUSE_BETWEEN_WARNINGS = 60.0
_MOST_WARNINGS = 1000


class Addresses(msgspec.Struct, frozen=True, kw_only=True):
    """Where the proxy listens, for people: `main` is `http://127.0.0.1:8000`, `anthropic` the dedicated port's or ""."""

    main: str
    anthropic: str = ""


class ChangesForAll:
    """What the commands of one message change for the whole proxy: options by path and routes by name; None removes."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {}
        self.routes: dict[str, RouteFacts | None] = {}

    def __bool__(self) -> bool:
        return bool(self.values or self.routes)


Change = Callable[[ChangesForAll], Awaitable[None]]
Reload = Callable[[], Awaitable[list[str]]]


class Running:
    """One per process. `gateway` is the configuration in force."""

    gateway: Gateway

    def __init__(self, redactor: Redactor | None = None) -> None:
        self.instance_id = base62(random_bytes.token_bytes(16), 16)
        self.addresses = Addresses(main="")
        self.redactor = redactor or Redactor()
        """Takes secrets out of whatever is written down, also those of configurations that are no longer in force."""
        self.listeners: list[tuple[str, int]] = []
        """Address and port of the sockets that the proxy listens on."""
        self.started = time.monotonic()
        self.draining = False
        self.ready = False
        self.active: set[Exchange] = set()
        self.on_hangup: list[Callable[[], None]] = []
        """Called at SIGHUP: files that another program has moved are opened anew."""
        allowed = bounds()
        self.admission = Admission(allowed.calls, self.warn_rarely)
        self.crowd = Crowd(allowed.connections, self.warn_rarely)
        self.facts: dict[str, Callable[[], object]] = {"calls": lambda: self.admission.facts()}
        """What those who know can tell for `/internal/status`: plain data by name."""
        self.capture: Capture | None = None
        """Where calls of providers are written down."""
        self._warned: dict[str, float] = {}
        self.change: Change = _unchangeable
        """Makes changes for all effective, and returns when they are saved."""
        self.reload: Reload = _unreloadable
        """Reads the configuration anew; returns what changed, in words. Raises ConfigError, and then nothing has changed."""

    def warn_rarely(self, message: str) -> None:
        """A warning that the same requests give again and again: in the log at most once a minute."""
        now = time.monotonic()
        if now - self._warned.get(message, -math.inf) < _PAUSE_BETWEEN_WARNINGS:
            return
        if len(self._warned) >= _MOST_WARNINGS:
            self._warned.clear()
        self._warned[message] = now
        _LOG.warning("%s", message)

    async def reload_quietly(self) -> None:
        """Reloads for somebody who reads the log: what changed, or what is wrong."""
        try:
            changed = await self.reload()
        except ConfigError as error:
            for line in error.errors[:20]:
                _LOG.error("the configuration was not changed: %s", line)
            return
        for line in changed:
            _LOG.info("configuration: %s", line)


async def _unchangeable(changes: ChangesForAll) -> None:
    raise RuntimeError("this proxy was built without saved state")


async def _unreloadable() -> list[str]:
    raise RuntimeError("this proxy was built without a configuration to read")
