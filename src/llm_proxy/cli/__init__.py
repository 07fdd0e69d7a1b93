"""The command line: one file per command. `serve` is the default; flags come from the option registry."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from llm_proxy.cli import streams

COMMANDS = {
    "serve": "start the proxy (the default)",
    "config": "check, show, example, schema: look at the configuration without starting",
    "models": "list the models of each back-end, as a running proxy sees them",
    "usage": "show tokens and cost, of a running proxy or from its records",
    "routes": "list the failover routes in force",
    "capture": "list, show, follow, export: read what was captured of calls to providers",
    "logins": "list the logins of vendors' CLIs on this machine",
    "stream-test": "stream one answer from a running proxy and show when each event arrives",
    "version": "print the version",
}
_HELP = ("--help", "-h")


class CommandFault(Exception):
    """What keeps a command from its work, for the person who typed it. `status` is the exit status."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def run(arguments: Sequence[str]) -> int:
    """Runs a command; returns the exit status: 0 normal, 2 configuration or wrong use, 3 port in use, 1 other."""
    name, rest = "serve", list(arguments)
    if rest and not rest[0].startswith("-"):
        name, rest = rest[0], rest[1:]
    streams.prepare()
    try:
        status = _dispatch(name, rest)
        sys.stdout.flush()
        return status
    except CommandFault as fault:
        streams.say(f"llm-proxy: {fault}")
        return fault.status
    except KeyboardInterrupt:
        streams.say("\nllm-proxy: interrupted")
        return 1
    except BrokenPipeError:
        return 1  # whoever read the output has enough (`llm-proxy models | head`)
    except OSError as error:
        if name == "serve" or error.errno not in streams.NO_ROOM:
            raise
        streams.say(f"llm-proxy: the output cannot be written: {error.strerror}")
        return 1
    finally:
        streams.forget_unwritten()


def _dispatch(name: str, rest: list[str]) -> int:
    if name == "version" or (name == "serve" and "--version" in rest[:1]):
        return _version(rest)
    if name == "serve" and any(argument in _HELP for argument in rest):
        return _help()
    command = _command(name)
    if command is None:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(f"llm-proxy: there is no command {name!r}{hint}\n\n{_listed()}", file=sys.stderr)
        return 2
    return command(rest)


def _command(name: str) -> Callable[[Sequence[str]], int] | None:
    """Only what the command needs is imported."""
    match name:
        case "serve":
            from llm_proxy.cli.serve import serve

            return serve
        case "config":
            from llm_proxy.cli.config import config

            return config
        case "models":
            from llm_proxy.cli.models import models

            return models
        case "usage":
            from llm_proxy.cli.usage import usage

            return usage
        case "routes":
            from llm_proxy.cli.routes import routes

            return routes
        case "capture":
            from llm_proxy.cli.capture import capture

            return capture
        case "logins":
            from llm_proxy.cli.logins import logins

            return logins
        case "stream-test":
            from llm_proxy.cli.stream_test import stream_test

            return stream_test
        case _:
            return None


def _version(rest: Sequence[str]) -> int:
    from llm_proxy import __version__

    if any(argument in _HELP for argument in rest):
        print("usage: llm-proxy version\n\nprint the version")
    elif unknown := [argument for argument in rest if argument != "--version"]:
        raise CommandFault(f"version: unexpected argument {unknown[0]!r}", 2)
    else:
        print(f"llm-proxy {__version__}")
    return 0


def _help() -> int:
    """Every flag of every option group, and the other commands."""
    from llm_proxy.config import build_parser
    from llm_proxy.option_groups import GROUPS

    parser = build_parser(GROUPS)
    parser.usage = "llm-proxy [COMMAND] [options]"
    print(f"{parser.format_help()}\n{_listed()}\n\n`llm-proxy COMMAND --help` says more of each.")
    return 0


def _listed() -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(["commands:", *(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())])
