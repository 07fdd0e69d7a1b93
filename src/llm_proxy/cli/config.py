"""`llm-proxy config check|show|example|schema`: look at the configuration without starting anything."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

_USAGE = """usage: llm-proxy config COMMAND [options of serve]

  check [FILE]   read everything and report all errors; exit 0 or 2
  show [--json]  print every effective value with its source
  example        print a commented file with every option
  schema         print the JSON Schema of the file"""


def config(arguments: Sequence[str]) -> int:
    from llm_proxy.config import ConfigError, reference
    from llm_proxy.option_groups import GROUPS
    from llm_proxy.store.saved_state import effective_settings

    command, rest = (arguments[0], list(arguments[1:])) if arguments else ("", [])
    if command == "example":
        print(reference.example(GROUPS), end="")
        return 0
    if command == "schema":
        print(json.dumps(reference.schema(GROUPS), indent=2))
        return 0
    if command not in ("check", "show"):
        print(_USAGE, file=sys.stderr if command not in ("--help", "-h") else sys.stdout)
        return 0 if command in ("--help", "-h") else 2
    as_json = "--json" in rest
    rest = [argument for argument in rest if argument != "--json"]
    if command == "check" and rest and not rest[0].startswith("-"):
        rest = ["--config", *rest]
    try:
        settings = effective_settings(rest, os.environ, Path.cwd(), GROUPS)
    except ConfigError as error:
        print("\n".join(error.errors[:20]), file=sys.stderr)
        return 2
    if command == "show":
        print(reference.show_entries_json(settings) if as_json else reference.show_entries(settings))
    else:
        for warning in settings.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        print(f"{settings.config_file or 'no configuration file'}: ok")
    return 0
