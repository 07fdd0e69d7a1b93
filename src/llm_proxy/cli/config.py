"""`llm-proxy config check|show|example|schema`: look at the configuration without starting anything."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from llm_proxy.config import Settings
    from llm_proxy.config.flags import Parser

_COMMANDS: Final = {
    "check": "read everything and report all errors; exit 0 or 2",
    "show": "print every effective value with its source",
    "example": "print a commented file with every option",
    "schema": "print the JSON Schema of the file",
}
_EXAMPLES: Final = {
    "check": """examples:
  llm-proxy config check                            what `llm-proxy` would read here
  llm-proxy config check /etc/llm-proxy/new.yaml    another file, before it is put in place""",
    "show": """examples:
  llm-proxy config show                             as a list of `path = value  # source`
  llm-proxy config show --json                      as JSON objects {path, value, source}
  llm-proxy config show --port 9000                 with this flag""",
    "example": """examples:
  llm-proxy config example > config.yaml            a file to begin with""",
    "schema": """examples:
  llm-proxy config schema > schema.json             for an editor that checks YAML""",
}


def config(arguments: Sequence[str]) -> int:
    command, rest = (arguments[0], list(arguments[1:])) if arguments else ("", [])
    run = _RUN.get(command)
    if run is not None:
        return _told(run, rest)
    helped = command in ("--help", "-h")
    if command and not helped:
        print(f"llm-proxy config: there is no command {command!r}\n", file=sys.stderr)
    print(_usage(), file=sys.stdout if helped else sys.stderr)
    return 0 if helped else 2


def _told(run: Callable[[list[str]], int], rest: list[str]) -> int:
    """Every error on a line of its own, which begins with its place."""
    from llm_proxy.config import ConfigError

    try:
        return run(rest)
    except ConfigError as error:
        print("\n".join(error.errors[:20]), file=sys.stderr)
        return 2


def _usage() -> str:
    width = max(map(len, _COMMANDS))
    listed = [f"  {name:<{width}}  {purpose}" for name, purpose in _COMMANDS.items()]
    return "\n".join(
        [
            "usage: llm-proxy config COMMAND [options]",
            "",
            *listed,
            "",
            "`llm-proxy config COMMAND --help` says more of each.",
        ]
    )


def _parser(command: str) -> Parser:
    from llm_proxy.cli import client

    purpose = _COMMANDS[command]
    return client.parser(f"config {command}", purpose[0].upper() + purpose[1:] + ".", _EXAMPLES[command])


def _read(parser: Parser, rest: Sequence[str]) -> tuple[bool, Settings]:
    """Is JSON wanted, and the settings that all other flags give. Raises ConfigError."""
    from llm_proxy.option_groups import GROUPS
    from llm_proxy.store.saved_state import effective_settings

    options, more = parser.parse_known_args(list(rest))
    return bool(getattr(options, "json", False)), effective_settings(more, os.environ, Path.cwd(), GROUPS)


def _check(rest: list[str]) -> int:
    parser = _parser("check")
    # A positional argument would also take the values of those options of serve that the parser does not know.
    parser.usage = "llm-proxy config check [FILE] [options of serve]"
    if rest and not rest[0].startswith("-"):
        rest = ["--config", *rest]
    _, settings = _read(parser, rest)
    if settings.config_file is not None and not settings.config_file.exists():
        print(f"warning: {settings.config_file} does not exist yet; a start takes it as empty", file=sys.stderr)
    for warning in settings.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{settings.config_file or 'no configuration file'}: ok")
    return 0


def _show(rest: list[str]) -> int:
    from llm_proxy.config import reference

    parser = _parser("show")
    parser.usage = "llm-proxy config show [--json] [options of serve]"
    parser.add_argument("--json", action="store_true", help="print a JSON list of {path, value, source}")
    as_json, settings = _read(parser, rest)
    print(reference.show_entries_json(settings) if as_json else reference.show_entries(settings))
    return 0


def _example(rest: list[str]) -> int:
    from llm_proxy.config import reference
    from llm_proxy.option_groups import GROUPS

    _nothing_more("example", rest)
    print(reference.example(GROUPS), end="")
    return 0


def _schema(rest: list[str]) -> int:
    from llm_proxy.config import reference
    from llm_proxy.option_groups import GROUPS

    _nothing_more("schema", rest)
    print(json.dumps(reference.schema(GROUPS), indent=2))
    return 0


def _nothing_more(command: str, rest: Sequence[str]) -> None:
    """Only --help is of use here. Raises ConfigError."""
    parser = _parser(command)
    parser.usage, parser.epilog = f"llm-proxy config {command}", _EXAMPLES[command]
    parser.parse_args(list(rest))


_RUN: Final[Mapping[str, Callable[[list[str]], int]]] = {
    "check": _check,
    "show": _show,
    "example": _example,
    "schema": _schema,
}
