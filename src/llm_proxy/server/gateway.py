"""What all exchanges of the process share: settings, back ends, rooms, stores, the clock. Built by `boot`, changed by nobody."""

from __future__ import annotations

import re
import secrets as random_bytes
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from llm_proxy.conversation.fault import Fault
from llm_proxy.dialects.names import base62
from llm_proxy.dialects.reasoning import Envelope
from llm_proxy.features import Feature
from llm_proxy.routing.plan import Plan, plan_target
from llm_proxy.routing.targets import check_name, parse
from llm_proxy.store.protocols import ValueStore
from llm_proxy.wire.secrets import Secret, scrub

if TYPE_CHECKING:
    from llm_proxy.backends.registry import Backends
    from llm_proxy.routing.keyring import Keyring
    from llm_proxy.server.access import Access, BrowserGuard
    from llm_proxy.server.exchange import Exchange
    from llm_proxy.server.health import HealthChecks
    from llm_proxy.server.http import Incoming
    from llm_proxy.store.usage import MemoryUsage


MOST_UPSTREAM_TEXT = 500  # characters; FE-11
_INTERNAL = re.compile(
    r"\b(?:10\.\d{1,3}|127\.\d{1,3}|192\.168|169\.254|172\.(?:1[6-9]|2\d|3[01]))\.\d{1,3}\.\d{1,3}(?::\d+)?\b"
)


class ServerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Durations in seconds, sizes in bytes."""

    max_request_bytes: int = 64 * 1024 * 1024
    keepalive: float = 15.0
    shutdown_grace: float = 30.0
    max_answer_bytes: int = 256 * 1024 * 1024
    store_ttl: float = 3600.0
    recollection_ttl: float = 86400.0


class Addresses(msgspec.Struct, frozen=True, kw_only=True):
    """Where the proxy listens, for people: `main` is `http://127.0.0.1:8000`, `anthropic` the dedicated port's or ""."""

    main: str
    anthropic: str = ""


class Gateway:
    """One per process."""

    def __init__(
        self,
        *,
        backends: Backends,
        keyring: Keyring,
        features: Sequence[Feature],
        store: ValueStore,
        usage: MemoryUsage | None,
        envelope: Envelope,
        access: Access,
        browser: BrowserGuard,
        limits: ServerLimits,
        version: str,
        health: HealthChecks,
        secrets: Sequence[Secret] = (),
    ) -> None:
        self.backends = backends
        self.keyring = keyring
        self.features = tuple(features)
        self.store = store
        self.usage = usage
        self.envelope = envelope
        self.access = access
        self.browser = browser
        self.limits = limits
        self.version = version
        self.health = health
        self.secrets = tuple(secrets)
        self.instance_id = base62(random_bytes.token_bytes(16), 16)
        self.addresses = Addresses(main="")
        self.started = time.monotonic()
        self.draining = False
        self.ready = False
        self.active: set[Exchange] = set()
        self.on_request = self._with("on_request")
        self.on_attempt = self._with("on_attempt")
        self.watching = tuple(reversed(self._with("watch")))
        self.on_finish = self._with("on_finish")

    def plan(self, name: str, session: str) -> Plan:
        """The attempts for a model name (RT-01, RT-03, RT-08). Raises FaultError when there is no usable target."""
        check_name(name)
        target = parse(name, self.backends)
        backend = self.backends.get(target.backend) if target.backend else None
        return plan_target(backend or self.backends.default, target.model, self.keyring, session=session)

    def hops(self, incoming: Incoming) -> str:
        """The loop guard of a call made for `incoming`: the proxies that it has passed, this one last (BE-05)."""
        seen = incoming.header(b"x-llmproxy-loop-guard")
        return f"{seen},{self.instance_id}" if seen else self.instance_id

    def shown(self, fault: Fault) -> Fault:
        """The fault as clients may see it: what an upstream said holds no secret and at most 500 characters."""
        if fault.side != "upstream":
            return fault
        message = self.clean(fault.message)[:MOST_UPSTREAM_TEXT]
        return fault if message == fault.message else msgspec.structs.replace(fault, message=message)

    def clean(self, text: str) -> str:
        """`text` without secrets and without addresses of internal hosts."""
        return _INTERNAL.sub("[address]", scrub(text, self.secrets))

    def _with(self, hook: str) -> tuple[Feature, ...]:
        """The rooms that override `hook`: the others cost nothing."""
        return tuple(room for room in self.features if getattr(type(room), hook) is not getattr(Feature, hook))


class _Ids:
    """Random base62 text from the system's generator, fetched in portions: one system call for some hundred ids."""

    def __init__(self) -> None:
        self._pool = ""
        self._at = 0

    def take(self, length: int) -> str:
        if self._at + length > len(self._pool):
            # Bytes of the last, incomplete round of 62 are left out, so that every character is equally likely.
            kept = random_bytes.token_bytes(8192).translate(None, delete=_UNEVEN)
            self._pool, self._at = kept.translate(_TO_BASE62).decode("ascii"), 0
        self._at += length
        return self._pool[self._at - length : self._at]


_TO_BASE62 = bytes(ord(base62(bytes([value % 62]), 1)) for value in range(256))
_UNEVEN = bytes(range(62 * 4, 256))
_ids = _Ids()


def new_id(prefix: str) -> str:
    """A fresh id such as `chatcmpl-…`: the prefix and 24 base62 characters."""
    return prefix + _ids.take(24)
