"""`llm-proxy routes`: the failover routes in force, from the configuration and from what was saved in the chat."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from llm_proxy.backends.registry import Backends
from llm_proxy.backends.transport import Transport
from llm_proxy.cli import client
from llm_proxy.commands.options import CommandOptions
from llm_proxy.config import Settings
from llm_proxy.routing.options import ChoiceOptions

_PATH = "failover_routes"
_POLICIES = """policies:
  k    all keys of the first element
  m    the first key of each element
  km   all keys of the first element, then all of the second, and so on
  mk   the first key of each element, then the second of each, and so on"""


def routes(arguments: Sequence[str]) -> int:
    parser = client.parser("routes", "List the failover routes in force, and what of them cannot be used.", _POLICIES)
    parser.add_argument("--json", action="store_true", help="print a JSON list of {name, policy, elements, source}")
    options, settings = client.read(parser, arguments)
    found = _found(settings)
    if options.json:
        print(json.dumps(found, indent=2))
    elif found:
        _print(found)
    else:
        prefix = settings.get(CommandOptions).command_prefix
        print(f"no failover routes; make one under {_PATH} in the configuration file, or in the chat:")
        print(f"  {prefix}create-failover-route(name=coding, policy=m)")
    return 0


def _found(settings: Settings) -> list[dict[str, Any]]:
    backends = Backends(settings.backends, Transport(environ=settings.environ))
    found = []
    for name, route in settings.get(ChoiceOptions).failover_routes.items():
        elements = [{"target": target, "problem": _problem(target, backends)} for target in route.elements]
        source = _source(name, settings)
        found.append({"name": name, "policy": route.policy, "elements": elements, "source": source})
    return found


def _source(name: str, settings: Settings) -> str:
    below = f"{_PATH}.{name}"
    sources = [row.source for row in settings.rows() if row.path == below or row.path.startswith(f"{below}.")]
    return next(iter(sources), settings.source_of(_PATH))


def _problem(target: str, backends: Backends) -> str:
    """Why the element is passed over, or ""."""
    backend = backends.get(target.partition(":")[0])
    if backend is None:
        return "no back-end has this id"
    return "" if backend.usable else backend.reason


def _print(found: Sequence[dict[str, Any]]) -> None:
    rows = [("ROUTE", "POLICY", "TARGETS", "SOURCE")]
    for route in found:
        lines = [_line(number, element) for number, element in enumerate(route["elements"], 1)] or ["none"]
        rows.append((route["name"], route["policy"], lines[0], route["source"]))
        rows += [("", "", line, "") for line in lines[1:]]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for number, row in enumerate(rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        line = "  ".join([*cells, row[3]]).rstrip()
        print(client.emphasised(line) if number == 0 else line)


def _line(number: int, element: dict[str, str]) -> str:
    problem = f"  (not usable: {element['problem'].removesuffix('.')})" if element["problem"] else ""
    return f"{number}. {client.printable(element['target'])}{problem}"
