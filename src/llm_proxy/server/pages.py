"""Everything that is not a model call: root, health, info, documentation. No page loads anything from the network."""

from __future__ import annotations

import html
from typing import Any

from llm_proxy.server import openapi_document
from llm_proxy.server.gateway import Gateway
from llm_proxy.server.http import JSON_TYPE, Headers, Incoming, Outgoing
from llm_proxy.server.paths import Route
from llm_proxy.wire import json as wire_json

_SERVICE = "llm-interactive-proxy"


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


async def _json(outgoing: Outgoing, headers: Headers, body: dict[str, Any], status: int = 200) -> None:
    await outgoing.whole(status, [JSON_TYPE, *headers], wire_json.encode(body))
