"""The composition root: settings in, a ready gateway and its sockets out. The only place that knows all rooms.

Contacts no provider and needs no network. What cannot be used (a data directory, a port for Anthropic clients) costs a warning, not the start.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets as random
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from llm_proxy import __version__
from llm_proxy.backends.registry import Backends
from llm_proxy.backends.transport import Transport
from llm_proxy.config import Settings
from llm_proxy.config.access import BruteForceOptions
from llm_proxy.config.chat_keys import ChatKeys
from llm_proxy.config.exposed import exposed_files
from llm_proxy.config.groups import (
    AuditOptions,
    AuthOptions,
    BackendGeneralOptions,
    FailoverOptions,
    LoggingOptions,
    ResponsesOptions,
    ServerOptions,
    UsageOptions,
)  # fmt: skip
from llm_proxy.config.kinds import RouteSettings
from llm_proxy.config.known_secrets import known_secrets
from llm_proxy.config.reload import Reloader, changed_paths
from llm_proxy.config.settings import Saved
from llm_proxy.config.watch import FileWatch
from llm_proxy.dialects.names import base62
from llm_proxy.dialects.reasoning import Envelope
from llm_proxy.features.audit import EntrySink
from llm_proxy.features.calls.dangerous_commands import DangerousCommandOptions, DangerousCommands
from llm_proxy.features.order import Needs, rooms
from llm_proxy.features.rate_limits import Counts
from llm_proxy.features.redaction import RedactionOptions, tell_of_switch
from llm_proxy.option_groups import GROUPS
from llm_proxy.routing.keyring import Keyring
from llm_proxy.server.access import Access, BrowserGuard, ClientKey, is_loopback
from llm_proxy.server.brute_force import BruteForce
from llm_proxy.server.capture import capture_settings
from llm_proxy.server.client_address import Senders
from llm_proxy.server.clients import fingerprint_key
from llm_proxy.server.gateway import Gateway, ServerLimits
from llm_proxy.server.health import HealthChecks
from llm_proxy.server.lifecycle import PortInUse, listen
from llm_proxy.server.router import name_of_session
from llm_proxy.server.running import ChangesForAll, Running
from llm_proxy.sessions.options import SessionOptions
from llm_proxy.sessions.session import Session
from llm_proxy.store import data_directory
from llm_proxy.store.audit_file import AuditFile
from llm_proxy.store.capture.capture import Capture
from llm_proxy.store.ledger import Ledgers
from llm_proxy.store.memory import MemoryStore
from llm_proxy.store.protocols import UsageLedger
from llm_proxy.store.saved_state import SavedState
from llm_proxy.store.session_file import SessionFile
from llm_proxy.store.session_log import SessionLog
from llm_proxy.store.session_redis import SessionRedis
from llm_proxy.store.sessions import SessionBacking, Sessions
from llm_proxy.store.sqlite import SqliteStore
from llm_proxy.wire.redaction import Redactor
from llm_proxy.wire.secrets import Secret

_LOG = logging.getLogger(__name__)
NOTHING_SAVED = Saved()


class House:
    """Everything that a start builds. `generated_key` is shown once and kept nowhere; `warnings` are for the person who starts it.

    What belongs to one configuration is the gateway; `reload` and `change` build another and put it in force in one step.
    """

    def __init__(self, reloader: Reloader, redactor: Redactor | None = None) -> None:
        self._reloader = reloader
        settings, self.saved = _load(reloader)
        self.settings = settings
        self.warnings = [*settings.warnings, *exposed_files(settings), *self.saved.warnings]
        self.generated_key = ""
        server = settings.get(ServerOptions)
        auth = settings.get(AuthOptions)
        self.host = server.host
        if auth.disable_auth and not is_loopback(server.host):
            self.host = "127.0.0.1"
            self.warnings.append(
                f"authentication is disabled, so the proxy listens on 127.0.0.1 instead of {server.host}"
            )
        elif not is_loopback(server.host):
            _LOG.info("listening on %s: keys travel in clear text unless TLS is in front (docs/access.md)", server.host)
            if auth.trusted_ips and not auth.allowed_hosts:
                # A name of the page's owner that comes to mean this address (DNS rebinding) makes both of one site.
                self.warnings.append(
                    "clients of auth.trusted_ips need no key, and any Host name is accepted: a web page that one of them visits could "
                    "use the proxy; give its name outside with --allowed-host"
                )
        if not server.allow_admin and hasattr(os, "geteuid") and os.geteuid() == 0:
            self.warnings.append("running as root; an ordinary user is enough (--allow-admin silences this)")
        self.data_dir = data_directory.usable(settings.data_dir, self.warnings)
        if self.data_dir is None and settings.state_file.parent == settings.data_dir:
            self.saved.path = None
        self.sessions = self._sessions(settings.get(SessionOptions))
        self.main = listen(self.host, server.port)
        self.anthropic = self._anthropic_socket(server)
        self.transport = self._transport(server)
        self._old_transports: list[Transport] = []
        self._store = SqliteStore(self.data_dir / "state.sqlite3") if self.data_dir else MemoryStore()
        self._logs: dict[Path, SessionLog] = {}
        self._audit_files: dict[Path, AuditFile] = {}
        self._seal_key = data_directory.seal_key(self.data_dir)
        self._keyring = Keyring(time.monotonic)
        self._counts = Counts(time.monotonic)
        self._brute_force = BruteForce(time.monotonic, settings.get(BruteForceOptions))
        self._health = HealthChecks(False)
        self._turn = asyncio.Lock()
        self.running = Running(redactor)
        self._ledgers = Ledgers(self.data_dir, self.running.redactor.clean)
        self._usage = self._ledgers.choose(settings.get(UsageOptions), settings.get(AuditOptions))
        self.running.listeners = self._own_addresses()
        self.running.change = self.change
        self.running.reload = self.reload
        self.running.gateway = self._gateway(settings, None)
        self.running.redactor.sources.append(lambda: self.gateway.backends.login_tokens)
        self.running.capture = self._capture = Capture(self.running.redactor.clean_bytes)
        self._capture.configure(capture_settings(settings))
        self.running.on_hangup.append(self._capture.reopen)
        self.running.facts["capture"] = lambda: self._capture.status
        self.running.facts["access"] = self._brute_force.facts
        self.sessions.on_end.append(self._session_ended)
        self.configure_logging: Callable[[LoggingOptions], None] = _set_level
        self._watch: FileWatch | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def gateway(self) -> Gateway:
        return self.running.gateway

    # What outlives a configuration

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

    def _sessions(self, options: SessionOptions) -> Sessions:
        """Raises StoreUnusable for a repository that can never work."""
        backing: SessionBacking | None = None
        if options.repository == "redis":
            backing = SessionRedis(options.redis_url.reveal() if options.redis_url is not None else None)
        elif options.repository == "file":
            path = options.file_path or (self.data_dir / "sessions.sqlite3" if self.data_dir else None)
            if path is None:
                self.warnings.append("sessions are kept in memory: the data directory is not usable")
            else:
                backing = SessionFile(path)
        return Sessions(
            clock=time.time,
            expiry_seconds=options.expiry_seconds,
            max_age=options.max_age,
            max_sessions=options.max_sessions,
            cleanup_enabled=options.cleanup_enabled,
            backing=backing,
        )

    # One configuration

    def _gateway(self, settings: Settings, before: Gateway | None) -> Gateway:
        server, auth = settings.get(ServerOptions), settings.get(AuthOptions)
        general = settings.get(BackendGeneralOptions)
        usage = self._usage if settings.get(UsageOptions).enabled else None
        self.running.redactor.know(known_secrets(settings))
        self.running.redactor.get_ready()
        failover = settings.get(FailoverOptions)
        self._keyring.configure(
            first_cooldown=failover.cooldown_initial_seconds,
            longest_cooldown=failover.cooldown_max_seconds,
            disable_seconds=failover.key_disable_seconds,
        )
        self._health.enabled = general.health_checks
        return Gateway(
            running=self.running,
            settings=settings,
            keys=ChatKeys(GROUPS),
            backends=Backends(
                settings.backends,
                self.transport,
                default=general.default_backend,
                list_ttl=general.model_list_ttl,
                fallback_models=settings.fallback_models,
                before=before.backends if before is not None else None,
                dangerous=self._forbids,
                private=_own_files(settings),
            ),
            keyring=self._keyring,
            features=rooms(self._needs(settings, usage)),
            store=self._store,
            sessions=self.sessions,
            usage=usage,
            audit=self._usage if settings.get(AuditOptions).enabled else None,
            envelope=Envelope(self._seal_key),
            access=self._access(auth, settings.get(BruteForceOptions)),
            browser=BrowserGuard(self.host, auth.allowed_hosts, auth.allowed_origins),
            limits=ServerLimits(
                max_request_bytes=server.max_request_bytes,
                keepalive=server.stream_keepalive_seconds,
                shutdown_grace=server.shutdown_grace,
                store_ttl=settings.get(ResponsesOptions).store_ttl_seconds,
            ),
            version=__version__,
            health=self._health,
            fingerprint_key=fingerprint_key(self._seal_key),
        )

    def _needs(self, settings: Settings, usage: UsageLedger | None) -> Needs:
        directory = settings.get(SessionOptions).log_directory
        log = None
        if directory is not None:
            log = self._logs.get(directory) or self._logs.setdefault(directory, SessionLog(directory))
        return Needs(
            settings=settings,
            usage=usage,
            log=log,
            clean=self.running.redactor.clean,
            redactor=self.running.redactor,
            counts=self._counts,
            audit=self._audit_sinks(settings.get(AuditOptions)),
        )

    def _audit_sinks(self, options: AuditOptions) -> tuple[EntrySink, ...]:
        """Who gets the entries of the audit log; a file stays open for as long as the process lives."""
        if not options.enabled:
            return ()
        if options.file is None:
            return (self._usage,)
        file = self._audit_files.get(options.file) or self._audit_files.setdefault(
            options.file, AuditFile(options.file)
        )
        return (self._usage, file)

    def _access(self, auth: AuthOptions, protection: BruteForceOptions) -> Access:
        keys = [ClientKey(key.name, key.secret) for key in auth.api_keys]
        if not auth.disable_auth and not keys and auth.auth_token is None:
            self.generated_key = self.generated_key or "llmp-" + base62(random.token_bytes(32), 43)
            keys = [ClientKey("generated", Secret(self.generated_key))]
            self.running.redactor.know([keys[0].secret])
        self._brute_force.configure(protection)
        return Access(
            keys,
            auth.auth_token,
            auth.bypass_paths,
            disabled=auth.disable_auth,
            admins=auth.admin_keys,
            senders=Senders(auth.trusted_ips, auth.trusted_proxies),
            guard=self._brute_force if protection.enabled else None,
        )

    # Changes while it runs

    async def change(self, changes: ChangesForAll) -> None:
        """In-chat changes for all: in force at once for every request that begins now; returns when they are on disk."""
        routes = {
            name: RouteSettings(policy=route.policy, elements=route.elements) if route is not None else None
            for name, route in changes.routes.items()
        }
        self.saved.apply(changes.values, routes, self.settings.file_routes)
        self._put_in_force(self._reloader.with_saved(self.settings, self.saved))
        await self.saved.written()

    async def reload(self) -> list[str]:
        async with self._turn:
            kept = Saved(dict(self.saved.values), dict(self.saved.routes), self.saved.deleted_routes)
            settings = await asyncio.to_thread(self._reloader.load, kept)
            # Commands may have saved something while the files were read.
            settings = self._reloader.with_saved(settings, self.saved)
            changed = changed_paths(self.settings, settings)
            for warning in settings.warnings:
                if warning not in self.settings.warnings:
                    _LOG.log(logging.ERROR if ": ERROR: " in warning else logging.WARNING, "%s", warning)
            for line in settings.needs_restart:
                _LOG.warning("a restart is needed for %s", line)
            self._put_in_force(settings)
            self._watch_files()  # the files may be others now
            if (room := self.gateway.context_window) is not None:
                await asyncio.to_thread(room.load)
            return changed

    def _put_in_force(self, settings: Settings) -> None:
        before = self.running.gateway
        old, new = self.settings, settings
        self.settings = settings
        if old.get(ServerOptions).upstream_proxy != new.get(ServerOptions).upstream_proxy:
            self._old_transports.append(self.transport)
            self.transport = self._transport(new.get(ServerOptions))
        options = new.get(SessionOptions)
        self.sessions.configure(
            expiry_seconds=options.expiry_seconds,
            max_age=options.max_age,
            max_sessions=options.max_sessions,
            cleanup_enabled=options.cleanup_enabled,
        )
        tell_of_switch(old.get(RedactionOptions), new.get(RedactionOptions))
        if old.get(LoggingOptions) != new.get(LoggingOptions):
            self.configure_logging(new.get(LoggingOptions))
        self._usage = self._ledgers.choose(new.get(UsageOptions), new.get(AuditOptions))
        self.running.gateway = self._gateway(settings, before)
        self._capture.configure(capture_settings(settings))

    def _session_ended(self, session: Session) -> None:
        self.gateway.backends.end_session(session.address)
        self._keyring.forget(name_of_session(session))

    def _forbids(self, command: str) -> bool:
        """Is a command line dangerous by the rules in force now? Back ends outlive a configuration."""
        return DangerousCommands(self.settings.get(DangerousCommandOptions)).forbids(command)

    def open(self) -> None:
        """Begins what runs beside the requests: the watch over files, the clean-up of sessions. Needs the event loop, and nobody served yet."""
        self._watch_files()
        self._sweep_later()
        self._ledgers.start()
        if (room := self.gateway.context_window) is not None:
            room.load()  # holds the interpreter for a tenth of a second, which nobody waits for yet

    def _watch_files(self) -> None:
        wanted = self.settings.get(ServerOptions).config_watch
        if self._watch is not None and wanted:
            self._watch.watch(self.settings.stamps)
        elif self._watch is not None:
            self._watch.stop()
            self._watch = None
        elif wanted:
            self._watch = FileWatch(self.settings.stamps, self._reload_soon, asyncio.get_running_loop())
            self._watch.start()

    def _reload_soon(self) -> None:
        self._reloading = asyncio.get_running_loop().create_task(self.running.reload_quietly())

    def _sweep_later(self) -> None:
        interval = self.settings.get(SessionOptions).cleanup_interval

        def sweep() -> None:
            self.sessions.sweep()
            self._sweep_later()

        self._sweeper = asyncio.get_running_loop().call_later(interval, sweep)

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.stop()
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self.sessions.close()
        await asyncio.to_thread(self.saved.close)
        for log in self._logs.values():
            await log.close()
        await self._capture.close()
        for file in self._audit_files.values():
            await file.close()
        await self._ledgers.close()
        await self._store.close()
        await self.gateway.backends.close()
        for transport in (*self._old_transports, self.transport):
            await transport.close()


def _own_files(settings: Settings) -> tuple[Path, ...]:
    """What no agent that runs here may see: keys stand in it. Of what was looked for, only what is there: another agent's project may
    lie in a directory that holds no configuration."""
    return (settings.data_dir, settings.state_file, *(file for file in settings.files if file.is_file()))


def _set_level(options: LoggingOptions) -> None:
    logging.getLogger().setLevel(options.level.upper())


def _load(reloader: Reloader) -> tuple[Settings, SavedState]:
    """The settings of a start. Where saved state lies is itself an option, so it is found first. Raises ConfigError."""
    settings = reloader.load(NOTHING_SAVED)
    saved = SavedState(settings.state_file)
    return reloader.with_saved(settings, saved), saved


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
