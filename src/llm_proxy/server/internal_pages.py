"""The pages below /internal: a look inside a running proxy, for its operator (OPS-10).

Owns who may see them and what stands on the pages of back ends, cooldowns, configuration and the process; those of sessions and routing
have files of their own. No page calls a provider or shows a secret, and a driver that fails takes no page down.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import time
from typing import Any
from urllib.parse import unquote

import msgspec

from llm_proxy.backends.base import Backend
from llm_proxy.config import ConfigError
from llm_proxy.config.groups import InternalApiOptions
from llm_proxy.conversation.fault import Fault, FaultError, FaultKind
from llm_proxy.routing.keyring import Cooldown, name_of
from llm_proxy.server import process_figures, routing_pages, session_pages
from llm_proxy.server.clients import Client
from llm_proxy.server.gateway import Gateway
from llm_proxy.server.http import JSON_TYPE, Headers, Incoming, Outgoing
from llm_proxy.server.paths import Route
from llm_proxy.wire import json as wire_json

_LOG = logging.getLogger(__name__)
_PAGES = ("backends", "config", "cooldowns", "reload", "routing", "sessions", "status")


async def internal(
    gateway: Gateway, incoming: Incoming, outgoing: Outgoing, route: Route, headers: Headers, key: str
) -> None:
    """One page. Sessions are for everyone's own, all else for the single user of a set-up and for admins."""
    if not gateway.settings.get(InternalApiOptions).enabled:
        raise _refusal("not_found", "internal pages are off (option internal_api.enabled)")
    page, _, name = route.name.partition("/")
    caller = Client(gateway, incoming, key)
    if page == "sessions":
        await _sessions(gateway, incoming, outgoing, headers, caller, unquote(name))
        return
    if not caller.may_change_all:
        raise _refusal("permission", "internal pages are for the operator only (option auth.admin_keys)")
    match route.name, incoming.method:
        case "reload", "POST":
            body = await _reload(gateway)
        case "backends", "GET" | "HEAD":
            body = backends(gateway)
        case "config", "GET" | "HEAD":
            body = config(gateway)
        case "status", "GET" | "HEAD":
            body = status(gateway)
        case "cooldowns", "GET" | "HEAD":
            body = cooldowns(gateway, incoming.parameter("backend"))
        case "routing", "GET" | "HEAD":
            body = routing_pages.page(gateway, caller, incoming)
        case "cooldowns", "DELETE":
            gateway.keyring.clear(incoming.parameter("backend").lower())
            body = cooldowns(gateway)
        case known, _ if known in _PAGES:
            raise _refusal("method", f"{incoming.method} is not served here")
        case _:
            raise _refusal("not_found", f"there is no such internal page; there are {', '.join(_PAGES)}")
    await _json(outgoing, headers, body)


async def _sessions(
    gateway: Gateway, incoming: Incoming, outgoing: Outgoing, headers: Headers, caller: Client, id: str
) -> None:
    store, scope, admin = gateway.sessions, caller.scope, caller.may_change_all
    asked = incoming.parameter("scope")
    match bool(id), incoming.method:
        case False, "GET" | "HEAD":
            body = await session_pages.listing(store, scope, admin, clean=gateway.without_secrets, asked=asked)
        case True, "GET" | "HEAD":
            body = await session_pages.detail(store, scope, admin, id, clean=gateway.without_secrets, asked=asked)
        case True, "DELETE":
            body = await session_pages.end(store, scope, admin, id, asked=asked)
        case _:
            raise _refusal("method", f"{incoming.method} is not served here")
    await _json(outgoing, headers, body)


async def _reload(gateway: Gateway) -> dict[str, Any]:
    try:
        changed = await gateway.running.reload()
    except ConfigError as error:
        what = gateway.without_secrets("; ".join(error.errors[:20]))
        raise _refusal("validation", f"the configuration has errors, nothing was changed: {what}") from None
    return {"object": "reload", "changed": changed}


def backends(gateway: Gateway) -> dict[str, Any]:
    """Every back end that this proxy knows, usable or not."""
    rests: dict[str, list[Cooldown]] = {}
    for rest in gateway.keyring.resting():
        rests.setdefault(rest.backend, []).append(rest)
    return {"object": "list", "data": [_backend(gateway, id, rests.get(id, [])) for id in gateway.backends.ids]}


def _backend(gateway: Gateway, id: str, rests: list[Cooldown]) -> dict[str, Any]:
    """One back end. A driver that fails while it is built or asked is told of here like any other trouble of its back end."""
    found: dict[str, Any] = {"id": id, "type": "", "functional": False, "usable": False, "reason": "", "keys": []}
    found |= {"models": None, "health": gateway.health.results.get(id)}
    try:
        backend = gateway.backends.get(id)
        if backend is None:
            return found
        return found | {
            "type": backend.type,
            "functional": backend.functional,
            "usable": backend.usable,
            "reason": gateway.without_secrets(backend.reason or getattr(backend, "degraded", "")),
            "keys": _keys(backend, rests),
            "models": None if (models := backend.known_models) is None else len(models),
        }
    except Exception as error:
        _LOG.exception("back end %s: its driver failed", id)
        return found | {"reason": f"its driver failed ({type(error).__name__}); the log says more."}


def _keys(backend: Backend, rests: list[Cooldown]) -> list[dict[str, Any]]:
    """Keys by name. `state` is `disabled` for all models, else `cooling` for those of `rests`, else `ready`; `seconds` are left of it."""
    found = []
    for key in backend.keys:
        name = name_of(key)
        own = [rest for rest in rests if rest.key == name]
        if key is None and not own:
            continue  # a back end without keys
        disabled = next((rest for rest in own if rest.state == "disabled"), None)
        state = "disabled" if disabled else "cooling" if own else "ready"
        left = disabled.seconds if disabled else max((rest.seconds for rest in own), default=0.0)
        rows = [{"model": rest.model, "seconds": round(rest.seconds, 1), "status": rest.status} for rest in own]
        found.append({"name": name, "state": state, "seconds": round(left, 1), "rests": rows})
    return found


def cooldowns(gateway: Gateway, backend: str = "") -> dict[str, Any]:
    """All keys at rest, of one back end or of all (RT-10)."""
    return {"object": "list", "data": [msgspec.to_builtins(rest) for rest in gateway.keyring.resting(backend.lower())]}


def config(gateway: Gateway) -> dict[str, Any]:
    """Every effective value with its source, as `llm-proxy config show` prints them; secrets are hidden."""
    settings = gateway.settings
    rows = [
        {"path": path, "value": _clean(gateway, value), "source": source} for path, value, source in settings.entries()
    ]
    return {
        "object": "config",
        "file": str(settings.config_file) if settings.config_file else None,
        "data": rows,
        "warnings": [gateway.without_secrets(warning) for warning in settings.warnings],
        "needs_restart": [gateway.without_secrets(line) for line in settings.needs_restart],
    }


def status(gateway: Gateway) -> dict[str, Any]:
    """The process: how long it runs, what it holds, what it has lost."""
    running = gateway.running
    up = time.monotonic() - running.started
    ledger = gateway.usage
    return {
        "object": "status",
        "version": gateway.version,
        "python": platform.python_version(),
        "started": round(time.time() - up, 3),
        "uptime_seconds": round(up, 3),
        "ready": running.ready,
        "draining": running.draining,
        "memory": {"resident_bytes": process_figures.resident_bytes(), "peak_bytes": process_figures.peak_bytes()},
        "open_requests": len(running.active),
        "open_streams": sum(exchange.stream for exchange in running.active),
        "sessions": len(gateway.sessions),
        "tasks": len(asyncio.all_tasks()),
        "descriptors": process_figures.open_descriptors(),
        "ledger": None
        if ledger is None
        else {"waiting": getattr(ledger, "waiting", 0), "dropped": getattr(ledger, "dropped", 0)},
        **{name: _fact(gateway, name) for name in sorted(running.facts)},
    }


def _fact(gateway: Gateway, name: str) -> object:
    try:
        return _clean(gateway, msgspec.to_builtins(gateway.running.facts[name]()))
    except Exception as error:
        _LOG.exception("status: %s cannot be told", name)
        return {"error": type(error).__name__}


def _clean(gateway: Gateway, value: object) -> object:
    match value:
        case str():
            return gateway.without_secrets(value)
        case dict():
            return {key: _clean(gateway, inner) for key, inner in value.items()}
        case list() | tuple():
            return [_clean(gateway, inner) for inner in value]
        case _:
            return value


def _refusal(kind: FaultKind, message: str) -> FaultError:
    return FaultError(Fault(kind=kind, message=message, side="client"))


async def _json(outgoing: Outgoing, headers: Headers, body: dict[str, Any]) -> None:
    await outgoing.whole(200, [JSON_TYPE, *headers], wire_json.encode(body))
