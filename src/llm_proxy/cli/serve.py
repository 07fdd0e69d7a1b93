"""`llm-proxy serve`: read the configuration, build the house, say where it is, run until told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_proxy.boot import House
    from llm_proxy.cli.daemon import Background
    from llm_proxy.cli.log import LineWriter
    from llm_proxy.config import ConfigError, Settings
    from llm_proxy.config.reload import Reloader
    from llm_proxy.wire.redaction import Redactor

_LOG = logging.getLogger(__name__)


def serve(arguments: Sequence[str]) -> int:
    from llm_proxy.config import ConfigError
    from llm_proxy.config.reload import Reloader
    from llm_proxy.option_groups import GROUPS

    if hasattr(signal, "SIGHUP"):
        # Asked to read again what it is just reading: nothing to do, and no reason to die. A handler, since what is ignored is inherited.
        signal.signal(signal.SIGHUP, lambda *_: None)
    reloader = Reloader(arguments, os.environ, Path.cwd(), GROUPS)
    try:
        settings = reloader.load()
    except ConfigError as error:
        return _refuse(error)
    from llm_proxy.cli.command_line import hide_secrets
    from llm_proxy.config.groups import ServerOptions

    warnings = hide_secrets(arguments, GROUPS)
    if settings.get(ServerOptions).daemon:
        from llm_proxy.cli import daemon

        return daemon.run(settings, lambda background: _serve(reloader, settings, warnings, background))
    return _serve(reloader, settings, warnings)


def _serve(reloader: Reloader, settings: Settings, warnings: list[str], background: Background | None = None) -> int:
    from llm_proxy.cli import log
    from llm_proxy.cli.log_secrets import hear_uncaught
    from llm_proxy.config.groups import LoggingOptions
    from llm_proxy.config.known_secrets import known_secrets
    from llm_proxy.wire.redaction import Redactor

    redactor = Redactor(known_secrets(settings))
    options = settings.get(LoggingOptions)
    try:
        writer = log.set_up(options, redactor.clean)
    except OSError as error:
        print(f"llm-proxy: the log file {options.file} cannot be written: {error.strerror}", file=sys.stderr)
        return 2
    try:
        hear_uncaught()
        return _start(reloader, redactor, writer, warnings, background)
    finally:
        writer.finish()


def _refuse(error: ConfigError) -> int:
    from llm_proxy.config.known_secrets import of_environment
    from llm_proxy.wire.redaction import Redactor

    clean = Redactor(of_environment(os.environ)).clean
    for line in error.errors[:20]:
        print(clean(line), file=sys.stderr)
    return 2


def _start(
    reloader: Reloader, redactor: Redactor, log: LineWriter, warnings: list[str], background: Background | None
) -> int:
    from llm_proxy.boot import House, raise_descriptor_limit
    from llm_proxy.config import ConfigError
    from llm_proxy.server.lifecycle import PortInUse
    from llm_proxy.store.sessions import StoreUnusable

    raise_descriptor_limit()
    try:
        house = House(reloader, redactor)
    except ConfigError as error:
        return _refuse(error)
    except StoreUnusable as error:
        print(f"llm-proxy: {error}", file=sys.stderr)
        return 2
    except PortInUse as error:
        print(f"llm-proxy: {error}", file=sys.stderr)
        return 3
    except OSError as error:
        print(f"llm-proxy: cannot listen: {error.strerror or error}; check --host", file=sys.stderr)
        return 1
    house.warnings += warnings
    house.configure_logging = log.configure
    house.running.on_hangup.append(log.reopen)
    house.running.facts["log"] = lambda: {"dropped_lines": log.dropped}
    return _run(house, background)


def _run(house: House, background: Background | None) -> int:
    from llm_proxy.server.lifecycle import Lifecycle

    def announce() -> None:
        _announce(house, background.how_to_stop if background else "Ctrl-C")
        if background is not None:
            background.detach()

    async def main() -> None:
        await house.sessions.start()
        house.open()
        lifecycle = Lifecycle(house.running, house.main, house.anthropic, announce, house.close)
        await lifecycle.run()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())
    return 0


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The event loop that the proxy runs on; None stands for the interpreter's own, where uvloop is not to be had."""
    if sys.platform == "win32":
        return None
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _source_of_key(settings: Settings) -> str:
    source = settings.source_of("auth.api_keys")
    return settings.source_of("auth.auth_token") if source == "default" else source


def _config_file(settings: Settings) -> str:
    if settings.config_file is None:
        return "none"
    return f"{settings.config_file}" + ("" if settings.config_file.exists() else " (not there yet: taken as empty)")


def _announce(house: House, how_to_stop: str) -> None:
    """The start lines (OPS-17, GEN-02), on standard error: they are for the person, not for a log file."""
    from llm_proxy.cli.streams import say
    from llm_proxy.commands.options import CommandOptions
    from llm_proxy.config.groups import LoggingOptions

    for handler in logging.getLogger().handlers:
        handler.flush()  # what was said while building stands before the start lines
    gateway, settings = house.gateway, house.settings
    addresses = gateway.addresses
    functional = [backend.id for backend in gateway.backends.functional]
    lines = [
        f"LLM Interactive Proxy {gateway.version}",
        f"  OpenAI tools     base URL  {addresses.main}/v1",
        f"  Anthropic tools  base URL  {addresses.main}/anthropic"
        + (f"  or  {addresses.anthropic}" if addresses.anthropic else ""),
        f"  Gemini tools     base URL  {addresses.main}",
        f"  default back end           {gateway.backends.default.id}   (usable: {', '.join(functional)})",
        f"  data directory             {house.data_dir or 'none: state is kept in memory'}",
        f"  config                     {_config_file(settings)}",
        f"  features on                {', '.join(room.name for room in gateway.features if room.name) or 'none'}",
    ]
    commands = settings.get(CommandOptions)
    if not commands.disable_interactive_commands:
        lines.append(f"  commands                   type {commands.command_prefix}help in any chat")
    if house.generated_key:
        lines += [
            f"  client key                 {house.generated_key}",
            "    made for this run; keep one with  export LLM_INTERACTIVE_PROXY_API_KEY=…",
        ]
    elif gateway.access.disabled:
        lines.append("  client key                 none needed (authentication is disabled)")
    else:
        lines.append(f"  client key                 as configured ({_source_of_key(settings)})")
    lines += [f"  warning: {house.running.redactor.clean(warning)}" for warning in house.warnings]
    key = house.generated_key or ("none" if gateway.access.disabled else "$LLM_INTERACTIVE_PROXY_API_KEY")
    lines += [
        "  try it:",
        f'    curl -s {addresses.main}/v1/chat/completions -H "Authorization: Bearer {key}" \\',
        '      -H \'Content-Type: application/json\' -d \'{"model":"demo:echo","messages":[{"role":"user","content":"hi"}]}\'',
        f"  stop with {how_to_stop}",
    ]
    say("\n".join(lines))
    if settings.get(LoggingOptions).file is not None:  # whoever reads it later has not seen the start lines
        for warning in house.warnings:
            _LOG.warning("%s", warning)
