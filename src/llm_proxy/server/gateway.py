"""One configuration at work: back ends, rooms, stores, limits. Built by `boot`, changed by nobody; a reload builds another."""

from __future__ import annotations

import logging
import re
import secrets as random_bytes
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from llm_proxy.commands.options import CommandOptions
from llm_proxy.config.chat_keys import ChatKeys
from llm_proxy.config.groups import FailoverOptions
from llm_proxy.config.identity import identity_headers
from llm_proxy.config.response_cache import ResponseCacheOptions
from llm_proxy.conversation.fault import Fault
from llm_proxy.dialects.names import base62
from llm_proxy.dialects.reasoning import Envelope
from llm_proxy.features import Feature
from llm_proxy.features.audit import Audit
from llm_proxy.features.commands import ChatCommands
from llm_proxy.features.context_window import ContextWindow
from llm_proxy.features.planning_phase import PlanningPhase
from llm_proxy.features.rate_limits import RateLimits
from llm_proxy.features.redaction import PromptRedaction
from llm_proxy.features.usage import UsageRecording
from llm_proxy.routing.options import ChoiceOptions
from llm_proxy.server.request_lines import RequestLines
from llm_proxy.server.response_cache import ResponseCache
from llm_proxy.server.router import Router
from llm_proxy.sessions.options import AgentOptions
from llm_proxy.store.protocols import AuditLedger, UsageLedger, ValueStore
from llm_proxy.wire.headers import forwardable_request_headers

if TYPE_CHECKING:
    from llm_proxy.backends.base import Backend
    from llm_proxy.backends.registry import Backends
    from llm_proxy.config import Settings
    from llm_proxy.routing.keyring import Keyring
    from llm_proxy.server.access import Access, BrowserGuard
    from llm_proxy.server.health import HealthChecks
    from llm_proxy.server.http import Incoming
    from llm_proxy.server.running import Addresses, Running
    from llm_proxy.store.sessions import Sessions


_LOG = logging.getLogger(__name__)
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


class Gateway:
    """See the module. `running` and the stores are the process's own and shared by all configurations."""

    def __init__(
        self,
        *,
        running: Running,
        settings: Settings,
        keys: ChatKeys,
        backends: Backends,
        keyring: Keyring,
        features: Sequence[Feature],
        store: ValueStore,
        sessions: Sessions,
        usage: UsageLedger | None,
        envelope: Envelope,
        access: Access,
        browser: BrowserGuard,
        limits: ServerLimits,
        version: str,
        health: HealthChecks,
        fingerprint_key: bytes,
        audit: AuditLedger | None = None,
    ) -> None:
        self.running = running
        self.settings = settings
        self.keys = keys
        self.sessions = sessions
        self.commands = next((room for room in features if isinstance(room, ChatCommands)), None)
        self.fingerprint_key = fingerprint_key
        self.agent_detection = settings.get(AgentOptions).detection
        self.reply_style = settings.get(CommandOptions).reply_style
        self.redirect_origins = settings.get(ChoiceOptions).allowed_redirect_origins
        self.backends = backends
        self.keyring = keyring
        self.features = tuple(features)
        self.store = store
        self.usage = usage
        self.audit = audit
        self.envelope = envelope
        self.access = access
        self.browser = browser
        self.limits = limits
        self.version = version
        self.health = health
        self.lines = RequestLines.of(settings)
        self.max_wait = settings.get(FailoverOptions).max_wait_seconds
        self.on_request = self._with("on_request")
        self.on_admit = self._with("admit")
        self.context_window = next((room for room in features if isinstance(room, ContextWindow)), None)
        self.rate_limits = next((room for room in features if isinstance(room, RateLimits)), None)
        self._redaction = next((room for room in features if isinstance(room, PromptRedaction)), None)
        self.audit_room = next((room for room in features if isinstance(room, Audit)), None)
        self.usage_recording = next((room for room in features if isinstance(room, UsageRecording)), None)
        self.response_cache = ResponseCache.of(settings.get(ResponseCacheOptions))
        self.on_outlook = self._with("outlook")
        self.on_attempt = self._with("on_attempt")
        self.watching = tuple(reversed(self._with("watch")))
        self.on_finish = self._with("on_finish")
        self.router = Router(self, next((room for room in features if isinstance(room, PlanningPhase)), None))

    @property
    def addresses(self) -> Addresses:
        return self.running.addresses

    def hops(self, incoming: Incoming) -> str:
        """The loop guard of a call made for `incoming`: the proxies that it has passed, this one last (BE-05)."""
        seen = incoming.header(b"x-llmproxy-loop-guard")
        own = self.running.instance_id
        return f"{seen},{own}" if seen else own

    def identity(self, backend: Backend, incoming: Incoming) -> dict[str, str]:
        """The headers by which a call of `backend` made for `incoming` says who calls (REQ-09)."""
        identity = backend.settings.identity
        wanted = identity.from_client
        passed = dict(forwardable_request_headers(incoming.headers, wanted)) if wanted else {}
        return identity_headers(identity, lambda name: passed.get(name.encode(), b"").decode("latin-1"))

    def shown(self, fault: Fault) -> Fault:
        """The fault as clients may see it: what an upstream said holds no secret and at most 500 characters."""
        if fault.side != "upstream":
            return fault
        message = self.clean(fault.message)[:MOST_UPSTREAM_TEXT]
        return fault if message == fault.message else msgspec.structs.replace(fault, message=message)

    def clean(self, text: str) -> str:
        """`text` without secrets and without addresses of internal hosts."""
        return _INTERNAL.sub("[address]", self.without_secrets(text))

    def outgoing(self, body: bytes) -> bytes:
        """A body of JSON as it may go to a provider (OPS-04); the very object when there is nothing to take out of it."""
        return self._redaction.outgoing(body) if self._redaction is not None else body

    def without_secrets(self, text: str) -> str:
        return self.running.redactor.clean(text)

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
