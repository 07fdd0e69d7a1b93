"""Everything that is not a model call: root, health, info, documentation, usage, internal pages. No page loads anything from the network."""

from __future__ import annotations

import html
import logging
import time
from typing import Any
from urllib.parse import unquote

import msgspec

from llm_proxy.config import ConfigError
from llm_proxy.config.groups import InternalApiOptions
from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.server import openapi_document, routing_pages, session_pages
from llm_proxy.server.clients import Client
from llm_proxy.server.gateway import Gateway
from llm_proxy.server.http import JSON_TYPE, Headers, Incoming, Outgoing
from llm_proxy.server.paths import Route
from llm_proxy.store.protocols import UsageRow
from llm_proxy.wire import json as wire_json

_SERVICE = "llm-interactive-proxy"

_log = logging.getLogger(__name__)


async def root(
    gateway: Gateway, incoming: Incoming, outgoing: Outgoing, route: Route, headers: Headers, key: str
) -> None:
    await _json(
        outgoing,
        headers,
        {
            "product": "LLM Interactive Proxy",
            "version": gateway.version,
            "base_urls": base_urls(gateway),
            "docs": f"{gateway.addresses.main}/docs",
            "health": f"{gateway.addresses.main}/health",
        },
    )


def base_urls(gateway: Gateway) -> dict[str, str]:
    """The base URL per kind of client, with real ports (GEN-02)."""
    main = gateway.addresses.main
    urls = {"openai": f"{main}/v1", "anthropic": f"{main}/anthropic", "gemini": main}
    if gateway.addresses.anthropic:
        urls["anthropic_port"] = gateway.addresses.anthropic
    return urls


async def health(
    gateway: Gateway, incoming: Incoming, outgoing: Outgoing, route: Route, headers: Headers, key: str
) -> None:
    """OPS-16: contacts nobody. `?ready=1` says whether requests should be sent here now."""
    body: dict[str, Any] = {"status": "ok", "service": _SERVICE, "version": gateway.version}
    status = 200
    if incoming.parameter("ready") not in ("", "0", "false"):
        ready = gateway.running.ready and not gateway.running.draining and bool(gateway.backends.functional)
        body["ready"] = ready
        if not ready:
            status = 503
            body["status"] = "draining" if gateway.running.draining else "starting"
    await _json(outgoing, headers, body, status)


async def info(
    gateway: Gateway, incoming: Incoming, outgoing: Outgoing, route: Route, headers: Headers, key: str
) -> None:
    await _json(
        outgoing,
        headers,
        {
            "service": _SERVICE,
            "version": gateway.version,
            "endpoints": ["/v1/messages", "/v1/messages/count_tokens", "/v1/models", "/health", "/info"],
            "backends": [backend.id for backend in gateway.backends.functional],
        },
    )


async def docs(
    gateway: Gateway, incoming: Incoming, outgoing: Outgoing, route: Route, headers: Headers, key: str
) -> None:
    """A plain page made from the same document as /openapi.json."""
    document = openapi_document.build(gateway.version, gateway.addresses.main)
    rows = "".join(
        f"<tr><td><code>{html.escape(method.upper())}</code></td><td><code>{html.escape(path)}</code></td>"
        f"<td>{html.escape(operation['summary'])}</td></tr>"
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    )
    urls = "".join(
        f"<li>{html.escape(kind)}: <code>{html.escape(url)}</code></li>" for kind, url in base_urls(gateway).items()
    )
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8><title>LLM Interactive Proxy</title>"
        "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "td{padding:.2rem .8rem .2rem 0;vertical-align:top}code{background:#8882;padding:0 .2rem}</style>"
        f"<h1>LLM Interactive Proxy {html.escape(gateway.version)}</h1><p>Base URLs for clients; the key is the client key:</p>"
        f"<ul>{urls}</ul><h2>Endpoints</h2><table>{rows}</table>"
        "<p>Machine-readable: <a href=/openapi.json>/openapi.json</a></p></html>"
    )
    secure: Headers = [
        (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
    ]
    await outgoing.whole(200, [(b"content-type", b"text/html; charset=utf-8"), *secure, *headers], page.encode())


async def openapi(
    gateway: Gateway, incoming: Incoming, outgoing: Outgoing, route: Route, headers: Headers, key: str
) -> None:
    await _json(outgoing, headers, openapi_document.build(gateway.version, gateway.addresses.main))


async def usage_stats(
    gateway: Gateway, incoming: Incoming, outgoing: Outgoing, route: Route, headers: Headers, key: str
) -> None:
    rows = _visible(gateway, incoming, key)
    days = _number(incoming, "days", 30)
    if days > 0:
        since = time.time() - days * 86400
        rows = [row for row in rows if row.time >= since]
    by_model: dict[str, list[UsageRow]] = {}
    by_backend: dict[str, list[UsageRow]] = {}
    by_project: dict[str, list[UsageRow]] = {}
    for row in rows:
        by_model.setdefault(row.model, []).append(row)
        by_backend.setdefault(row.backend, []).append(row)
        by_project.setdefault(row.project, []).append(row)
    await _json(
        outgoing,
        headers,
        {
            "object": "usage_stats",
            "filters": {"days": days, **_filters(incoming)},
            "data": {
                "totals": _totals(rows),
                "by_model": {name: _totals(some) for name, some in sorted(by_model.items())},
                "by_backend": {name: _totals(some) for name, some in sorted(by_backend.items())},
                "by_project": {name: _totals(some) for name, some in sorted(by_project.items())},
            },
        },
    )


async def usage_recent(
    gateway: Gateway, incoming: Incoming, outgoing: Outgoing, route: Route, headers: Headers, key: str
) -> None:
    limit = _number(incoming, "limit", 100)
    if not 1 <= limit <= 1000:
        raise _bad("limit", "limit: expected a number from 1 to 1000")
    rows = _visible(gateway, incoming, key)[-limit:]
    data = [
        {
            "id": row.id,
            "model": row.model,
            "requested_model": row.requested_model,
            "backend": row.backend,
            "prompt_tokens": row.prompt,
            "completion_tokens": row.completion,
            "total_tokens": row.prompt + row.completion,
            "cached_tokens": row.cache_read,
            "reasoning_tokens": row.reasoning,
            "cost": row.cost,
            "token_source": row.token_source,
            "execution_time": row.duration_ms / 1000,
            "time_to_first_token": None if row.ttft_ms is None else row.ttft_ms / 1000,
            "timestamp": row.time,
            "username": row.username,
            "session": row.session,
            "project": row.project,
            "agent": row.agent,
            "kind": row.kind,
            "caller_name": row.key_name,
            "surface": row.surface,
            "stream": row.stream,
            "attempts": row.attempts,
            "status": row.status,
            "safeguards": row.safeguards,
        }
        for row in reversed(rows)
    ]
    await _json(outgoing, headers, {"object": "usage_entries", "data": data})


def _filters(incoming: Incoming) -> dict[str, str]:
    return {
        name: value
        for name in ("backend", "model", "session_id", "username", "project")
        if (value := incoming.parameter(name))
    }


def _visible(gateway: Gateway, incoming: Incoming, key: str) -> list[UsageRow]:
    """The rows that this key may see, filtered as the query asks."""
    if gateway.usage is None:
        raise FaultError(
            Fault(kind="not_found", message="usage tracking is off (option usage_tracking.enabled)", side="client")
        )
    wanted = _filters(incoming)
    own = not gateway.access.single
    return [
        row
        for row in gateway.usage.rows
        if (not own or row.key_name == key)
        and wanted.get("backend", row.backend) == row.backend
        and wanted.get("model", row.model) == row.model
        and wanted.get("session_id", row.session) == row.session
        and wanted.get("project", row.project) == row.project
        and wanted.get("username", row.username) == row.username
    ]


def _totals(rows: list[UsageRow]) -> dict[str, Any]:
    durations = sorted(row.duration_ms for row in rows)
    firsts = [row.ttft_ms for row in rows if row.ttft_ms is not None]
    costs = [row.cost for row in rows if row.cost is not None]
    return {
        "requests": len(rows),
        "errors": sum(row.status >= 400 for row in rows),
        "prompt_tokens": sum(row.prompt for row in rows),
        "completion_tokens": sum(row.completion for row in rows),
        "total_tokens": sum(row.prompt + row.completion for row in rows),
        "cached_tokens": sum(row.cache_read for row in rows),
        "reasoning_tokens": sum(row.reasoning for row in rows),
        "cost": sum(costs) if costs else None,
        "avg_duration_ms": sum(durations) / len(durations) if durations else None,
        "p95_duration_ms": durations[int(0.95 * (len(durations) - 1))] if durations else None,
        "avg_ttft_ms": sum(firsts) / len(firsts) if firsts else None,
    }


def _number(incoming: Incoming, name: str, default: int) -> int:
    text = incoming.parameter(name)
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise _bad(name, f"{name}: expected a whole number, got {text[:40]!r}") from None


def _bad(name: str, message: str) -> FaultError:
    return FaultError(Fault(kind="bad_request", message=message, param=name, side="client"))


async def audit(
    gateway: Gateway, incoming: Incoming, outgoing: Outgoing, route: Route, headers: Headers, key: str
) -> None:
    raise FaultError(Fault(kind="not_found", message="the audit log is off (option audit.enabled)", side="client"))


async def internal(
    gateway: Gateway, incoming: Incoming, outgoing: Outgoing, route: Route, headers: Headers, key: str
) -> None:
    """OPS-10, as far as it exists: sessions for everyone's own, all else for the single user of a set-up and for admins."""
    if not gateway.settings.get(InternalApiOptions).enabled:
        message = "internal pages are off (option internal_api.enabled)"
        raise FaultError(Fault(kind="not_found", message=message, side="client"))
    page, _, name = route.name.partition("/")
    caller = Client(gateway, incoming, key)
    if page == "sessions":
        await _sessions(gateway, incoming, outgoing, headers, caller, unquote(name))
        return
    if not caller.may_change_all:
        raise FaultError(Fault(kind="permission", message="internal pages are for the operator only", side="client"))
    match route.name, incoming.method:
        case "reload", "POST":
            await _reload(gateway, outgoing, headers)
        case "backends", "GET" | "HEAD":
            await _json(outgoing, headers, _backends(gateway))
        case "cooldowns", "GET" | "HEAD":
            await _json(outgoing, headers, _cooldowns(gateway, incoming.parameter("backend")))
        case "routing", "GET" | "HEAD":
            await _json(outgoing, headers, routing_pages.page(gateway, caller, incoming))
        case "cooldowns", "DELETE":
            gateway.keyring.clear(incoming.parameter("backend").lower())
            await _json(outgoing, headers, _cooldowns(gateway))
        case _:
            raise FaultError(Fault(kind="not_found", message="there is no such internal page", side="client"))


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
            raise FaultError(Fault(kind="method", message=f"{incoming.method} is not served here", side="client"))
    await _json(outgoing, headers, body)


async def _reload(gateway: Gateway, outgoing: Outgoing, headers: Headers) -> None:
    try:
        changed = await gateway.running.reload()
    except ConfigError as error:
        message = "the configuration has errors, nothing was changed: " + "; ".join(error.errors[:20])
        raise FaultError(Fault(kind="validation", message=message, side="client")) from None
    await _json(outgoing, headers, {"object": "reload", "changed": changed})


def _backends(gateway: Gateway) -> dict[str, Any]:
    return {"object": "list", "data": [_backend(gateway, id) for id in gateway.backends.ids]}


def _backend(gateway: Gateway, id: str) -> dict[str, Any]:
    """One back end. A driver that fails while it is built or asked is told of here like any other trouble of its back end."""
    found: dict[str, Any] = {"id": id, "type": "", "functional": False, "usable": False, "reason": "", "keys": []}
    found["health"] = gateway.health.results.get(id)
    try:
        backend = gateway.backends.get(id)
        if backend is None:
            return found
        return found | {
            "type": backend.type,
            "functional": backend.functional,
            "usable": backend.usable,
            "reason": backend.reason or getattr(backend, "degraded", ""),
            "keys": [key.name for key in backend.keys if key is not None],
        }
    except Exception as error:
        _log.exception("back end %s: its driver failed", id)
        return found | {"reason": f"its driver failed ({type(error).__name__}); the log says more."}


def _cooldowns(gateway: Gateway, backend: str = "") -> dict[str, Any]:
    return {"object": "list", "data": [msgspec.to_builtins(rest) for rest in gateway.keyring.resting(backend.lower())]}


async def _json(outgoing: Outgoing, headers: Headers, body: dict[str, Any], status: int = 200) -> None:
    await outgoing.whole(status, [JSON_TYPE, *headers], wire_json.encode(body))
