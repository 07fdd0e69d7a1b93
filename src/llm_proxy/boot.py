"""The composition root: settings in, a ready gateway and its sockets out. The only place that knows all rooms.

Contacts no provider and needs no network. What cannot be used (a data directory, a port for Anthropic clients) costs a warning, not the start.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
import time
from pathlib import Path

from llm_proxy import __version__
from llm_proxy.backends.registry import Backends
from llm_proxy.backends.transport import Transport
from llm_proxy.config import Settings
from llm_proxy.config.groups import (
    AuthOptions,
    BackendGeneralOptions,
    FailoverOptions,
    ResponsesOptions,
    ServerOptions,
    UsageOptions,
)  # fmt: skip
from llm_proxy.dialects.names import base62
from llm_proxy.dialects.reasoning import Envelope
from llm_proxy.features.order import rooms
from llm_proxy.routing.keyring import Keyring
from llm_proxy.server.access import Access, BrowserGuard, ClientKey, is_loopback
from llm_proxy.server.gateway import Gateway, ServerLimits
from llm_proxy.server.health import HealthChecks
from llm_proxy.server.lifecycle import PortInUse, listen
from llm_proxy.store.memory import MemoryStore
from llm_proxy.store.protocols import ValueStore
from llm_proxy.store.sqlite import SqliteStore
from llm_proxy.store.usage import MemoryUsage
from llm_proxy.wire.secrets import Secret

_LOG = logging.getLogger(__name__)
_SEAL_KEY_BYTES = 32


class House:
    """Everything that a start builds. `generated_key` is shown once and kept nowhere; `warnings` are for the person who starts it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.warnings = list(settings.warnings)
        self.generated_key = ""
        server = settings.get(ServerOptions)
        auth = settings.get(AuthOptions)
        self.host = server.host
        if auth.disable_auth and not is_loopback(server.host):
            self.host = "127.0.0.1"
            self.warnings.append(
                f"authentication is disabled, so the proxy listens on 127.0.0.1 instead of {server.host}"
            )
        if not server.allow_admin and hasattr(os, "geteuid") and os.geteuid() == 0:
            self.warnings.append("running as root; an ordinary user is enough (--allow-admin silences this)")
        self.data_dir = _writable(settings.data_dir, self.warnings)
        self.main = listen(self.host, server.port)
        self.anthropic = self._anthropic_socket(server)
        self.transport = self._transport(server)
        self.gateway = self._gateway(server, auth)

    def _anthropic_socket(self, server: ServerOptions) -> socket.socket | None:
        wanted = server.anthropic_port
        if wanted in ("off", 0):
            return None
        explicit = wanted is not None
        port = wanted if isinstance(wanted, int) else self.main.getsockname()[1] + 1
        if port > 65535:
            _LOG.info("no port is left for Anthropic clients after %d; set one with --anthropic-port", port - 1)
            return None
        try:
            return listen(self.host, port)
        except (PortInUse, OSError):
            message = f"port {port} for Anthropic clients is taken; choose another with --anthropic-port, or off"
            if explicit:
                self.warnings.append(message)
            else:
                _LOG.info("%s", message)
            return None

    def _transport(self, server: ServerOptions) -> Transport:
        return Transport(proxy=server.upstream_proxy, environ=self.settings.environ, own_addresses=self._own_addresses)

    def _own_addresses(self) -> list[tuple[str, int]]:
        return [socket_.getsockname()[:2] for socket_ in (self.main, self.anthropic) if socket_ is not None]

    def _access(self, auth: AuthOptions) -> Access:
        keys = [ClientKey(key.name, key.secret) for key in auth.api_keys]
        if not auth.disable_auth and not keys and auth.auth_token is None:
            self.generated_key = "llmp-" + base62(secrets.token_bytes(32), 43)
            keys = [ClientKey("generated", Secret(self.generated_key))]
        return Access(keys, auth.auth_token, auth.bypass_paths, disabled=auth.disable_auth)

    def _gateway(self, server: ServerOptions, auth: AuthOptions) -> Gateway:
        settings = self.settings
        failover = settings.get(FailoverOptions)
        usage = MemoryUsage() if settings.get(UsageOptions).enabled else None
        general = settings.get(BackendGeneralOptions)
        return Gateway(
            backends=Backends(
                settings.backends,
                self.transport,
                default=general.default_backend,
                list_ttl=general.model_list_ttl,
            ),
            keyring=Keyring(
                time.monotonic,
                first_cooldown=failover.cooldown_initial_seconds,
                longest_cooldown=failover.cooldown_max_seconds,
                disable_seconds=failover.key_disable_seconds,
            ),
            features=rooms(usage=usage),
            store=self._store(),
            usage=usage,
            envelope=Envelope(_seal_key(self.data_dir)),
            access=self._access(auth),
            browser=BrowserGuard(self.host, auth.allowed_hosts, auth.allowed_origins),
            limits=ServerLimits(
                max_request_bytes=server.max_request_bytes,
                keepalive=server.stream_keepalive_seconds,
                shutdown_grace=server.shutdown_grace,
                store_ttl=settings.get(ResponsesOptions).store_ttl_seconds,
            ),
            version=__version__,
            health=HealthChecks(general.health_checks),
            secrets=[key.secret for backend in settings.backends.values() for key in backend.keys],
        )

    def _store(self) -> ValueStore:
        return SqliteStore(self.data_dir / "state.sqlite3") if self.data_dir else MemoryStore()

    async def close(self) -> None:
        await self.gateway.store.close()
        await self.transport.close()


def _writable(directory: Path, warnings: list[str]) -> Path | None:
    """The data directory, created with mode 0700, or None (with a warning) when nothing can be kept there."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(directory, os.W_OK):
            return directory
        reason = "not writable"
    except OSError as error:
        reason = error.strerror or "not usable"
    warnings.append(f"data directory {directory} is {reason}: usage and state are kept in memory only")
    return None


def _seal_key(directory: Path | None) -> bytes:
    """The key of sealed reasoning: kept in the data directory, so that conversations survive a restart."""
    if directory is None:
        return secrets.token_bytes(32)
    path = directory / "seal.key"
    try:
        kept = path.read_bytes()
        if len(kept) == _SEAL_KEY_BYTES:
            return kept
    except OSError:
        pass
    key = secrets.token_bytes(_SEAL_KEY_BYTES)
    draft = directory / f"seal.key.{os.getpid()}"
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key)
        os.replace(draft, path)
    except OSError as error:
        _LOG.warning("the key of sealed reasoning cannot be kept in %s: %s", path, error.strerror)
    return key


def raise_descriptor_limit() -> None:
    """Two descriptors per open stream: take what the system allows."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError) as error:
            _LOG.debug("the descriptor limit stays at %d: %s", soft, error)
