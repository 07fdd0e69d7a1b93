"""`llm-proxy models [local]`: the models of each back-end, from a running proxy or read here and now."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence

from llm_proxy.cli import CommandFault, client
from llm_proxy.config import Settings
from llm_proxy.config.groups import BackendGeneralOptions, ServerOptions

_EXAMPLES = """examples:
  llm-proxy models                                  the proxy of this configuration
  llm-proxy models --url http://10.0.0.7:8000       another one
  llm-proxy models local                            without a proxy: asks the providers with the configured keys"""


def models(arguments: Sequence[str]) -> int:
    parser = client.parser("models", "List the models of each usable back-end as clients name them.", _EXAMPLES)
    parser.add_argument("--json", action="store_true", help="print a JSON list of {backend, model}")
    client.add_address(parser)
    # A positional argument would also take the values of those options of serve that the parser does not know.
    parser.usage = "llm-proxy models [local] [--json] [--url URL] [--key KEY] [options of serve]"
    local = arguments[:1] == ["local"]
    options, settings = client.read(parser, arguments[1:] if local else arguments)
    if local:
        if options.url:
            raise CommandFault("local asks the providers, so that --url has no meaning", status=2)
        names, missing = asyncio.run(_from_providers(settings))
    else:
        names, missing = _from_proxy(client.locate(options, settings))
    if missing:
        print(f"llm-proxy: no list could be read from {', '.join(missing)}", file=sys.stderr)
    if options.json:
        rows = [{"backend": name.partition(":")[0], "model": name} for name in names]
        print(json.dumps(rows, indent=2))
    else:
        _print(names)
    return 0


def _print(names: Sequence[str]) -> None:
    backends: dict[str, list[str]] = {}
    for name in names:
        backends.setdefault(name.partition(":")[0], []).append(name)
    for backend, its in backends.items():
        print(f"{client.emphasised(backend)} ({len(its)})")
        for name in its:
            print(f"  {client.printable(name)}")
    if not names:
        print("no models: no back-end is usable", file=sys.stderr)


def _from_proxy(proxy: client.Proxy) -> tuple[list[str], list[str]]:
    """Names, and the back-ends whose list the proxy could not read."""
    with client.asking(proxy, "GET", "/v1/models") as response:
        missing = response.headers.get("x-llm-proxy-unavailable-backends", "")
        try:
            listed = json.loads(response.read())["data"]
            names = [str(entry["id"]) for entry in listed]
        except (ValueError, KeyError, TypeError):
            raise CommandFault(f"{proxy} answers, but not with a list of models; is it this proxy?") from None
    return names, [id for id in missing.split(",") if id]


async def _from_providers(settings: Settings) -> tuple[list[str], list[str]]:
    from llm_proxy.backends.base import Backend
    from llm_proxy.backends.registry import Backends
    from llm_proxy.backends.transport import Transport

    transport = Transport(proxy=settings.get(ServerOptions).upstream_proxy, environ=settings.environ)
    default = settings.get(BackendGeneralOptions).default_backend
    backends = Backends(settings.backends, transport, default=default, fallback_models=settings.fallback_models)

    async def names_of(backend: Backend) -> list[str]:
        return [model.id for model in await backends.models(backend)]

    try:
        functional = backends.functional
        found = await asyncio.gather(*map(names_of, functional))
        missing = [backend.id for backend in functional if backend.list_failed]
    finally:
        await backends.close()
        await transport.close()
    return [name for names in found for name in names], missing
