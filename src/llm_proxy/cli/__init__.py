"""The command line: one file per command. `serve` is the default; flags come from the option registry."""

from __future__ import annotations

import sys
from collections.abc import Sequence

COMMANDS = {
    "serve": "start the proxy (the default)",
    "config": "check, show, example, schema: look at the configuration without starting",
    "version": "print the version",
}


def run(arguments: Sequence[str]) -> int:
    """Runs a command; returns the exit status: 0 normal, 2 configuration, 3 port in use, 1 other."""
    name, rest = "serve", list(arguments)
    if rest and not rest[0].startswith("-"):
        name, rest = rest[0], rest[1:]
    if "--version" in rest[:1] or name == "version":
        from llm_proxy import __version__

        print(f"llm-proxy {__version__}")
        return 0
    if name == "serve":
        from llm_proxy.cli.serve import serve

        return serve(rest)
    if name == "config":
        from llm_proxy.cli.config import config

        return config(rest)
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    commands = "\n".join(f"  {command:<8} {text}" for command, text in COMMANDS.items())
    print(f"llm-proxy: there is no command {name!r}{hint}\n\ncommands:\n{commands}", file=sys.stderr)
    return 2
