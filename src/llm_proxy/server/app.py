"""The ASGI application: from a request line to the one function that serves it, and from any failure to an answer in the client's protocol.

This is the second of the two walls: what escapes an exchange becomes a plain 500 here, is logged, and harms nobody else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

from llm_proxy import dialects
from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.log_context import REQUEST, SESSION
from llm_proxy.server import (
    audit_pages,
    internal_pages,
    operations,
    pages,
    refusing,
    request_lines,
    side_calls,
    usage_pages,
)
from llm_proxy.server.admission import Crowd, NoRoom
from llm_proxy.server.clients import Client
from llm_proxy.server.exchange import Exchange
from llm_proxy.server.gateway import Gateway, new_id
from llm_proxy.server.http import (
    JSON_TYPE,
    Disconnected,
    Headers,
    Incoming,
    Outgoing,
    Receive,
    Scope,
    Send,
    encode_headers,
)
from llm_proxy.server.paths import NoRoute, Route, resolve
from llm_proxy.server.running import Running
from llm_proxy.sessions import identity
from llm_proxy.wire.headers import is_sane_request_id

_LOG = logging.getLogger(__name__)
_MAX_HOPS = 5

Handler = Callable[[Gateway, Incoming, Outgoing, Route, Headers, str], Awaitable[None]]


class Application:
    """Serves the main port, or with `anthropic_port` the dedicated one (FE-06)."""

    def __init__(self, running: Running, anthropic_port: bool = False) -> None:
        self._running = running
        self._anthropic_port = anthropic_port

    @property
    def crowd(self) -> Crowd:
        """The connections of all ports together."""
        return self._running.crowd

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await _refuse_websocket(send)
            return
        if scope["type"] != "http":
            return
        incoming = Incoming(scope, receive)
        outgoing = Outgoing(send, head_only=incoming.method == "HEAD")
        request_id = incoming.header(b"x-request-id")
        if not is_sane_request_id(request_id) or self._running.redactor.clean(request_id) != request_id:
            request_id = new_id("req_")
        REQUEST.set(request_id)
        began = time.monotonic()
        found = resolve(incoming.path, self._anthropic_port)
        gateway = self._running.gateway  # for the whole request: a reload in between concerns the next one
        told = isinstance(found, Route) and found.operation == "generate"  # an exchange tells of itself
        try:
            await self._serve(gateway, incoming, outgoing, found, request_id)
        except FaultError as error:
            told = isinstance(error, NoRoom)  # once a minute, or an overload would fill the log
            if not outgoing.started:
                await refusing.send_fault(gateway, outgoing, found.surface, error.fault, request_id)
        except Disconnected:
            pass
        except Exception:
            told = True
            _LOG.exception("%s: the exchange failed", request_id)
            if not outgoing.started:
                fault = Fault(kind="internal", message="the proxy failed to serve this request", side="proxy")
                await refusing.send_fault(gateway, outgoing, found.surface, fault, request_id)
        if not told:
            request_lines.served(incoming, found, outgoing.status, time.monotonic() - began)

    async def _serve(
        self, gateway: Gateway, incoming: Incoming, outgoing: Outgoing, found: Route | NoRoute, request_id: str
    ) -> None:
        gateway.access.identify(incoming)
        if incoming.method == "OPTIONS" and incoming.header(b"access-control-request-method"):
            methods = found.methods if isinstance(found, Route) else ()
            await outgoing.whole(204, gateway.browser.preflight(incoming, methods), b"")
            return
        outgoing.common = gateway.browser.check(incoming)
        gateway.access.turn_away(incoming)
        if isinstance(found, NoRoute):
            raise _not_found(incoming.path, found)
        if incoming.header(b"upgrade").lower() == "websocket":
            raise FaultError(
                Fault(kind="upgrade", message="WebSocket is not served here; use POST over HTTP", side="client")
            )
        if incoming.method not in found.methods:
            raise FaultError(
                Fault(
                    kind="method",
                    message=f"{incoming.method} is not served at this path; use {', '.join(found.methods)}",
                    side="client",
                    details={"allow": list(found.methods)},
                )
            )
        key_name = "" if gateway.access.open_to_all(incoming.path) else gateway.access.admit(incoming)
        self._check_hops(incoming)
        if found.operation in _CALLS:
            with self._running.admission:
                await self._work(gateway, incoming, outgoing, found, request_id, key_name)
        else:
            await self._work(gateway, incoming, outgoing, found, request_id, key_name)

    async def _work(
        self, gateway: Gateway, incoming: Incoming, outgoing: Outgoing, found: Route, request_id: str, key_name: str
    ) -> None:
        if found.operation == "generate":
            await self._generate(gateway, incoming, outgoing, found, request_id, key_name)
            return
        if named := incoming.header(b"x-session-id"):
            SESSION.set(identity.clean(named, self._running.redactor.clean))
        handler = _HANDLERS[found.operation]
        await handler(gateway, incoming, outgoing, found, [(b"x-request-id", request_id.encode())], key_name)

    async def _generate(
        self,
        gateway: Gateway,
        incoming: Incoming,
        outgoing: Outgoing,
        route: Route,
        request_id: str,
        key_name: str,
    ) -> None:
        if self._running.draining:
            raise FaultError(
                Fault(kind="unavailable", message="the proxy is shutting down", side="proxy", retry_after=1)
            )
        caller = Client(gateway, incoming, key_name)
        exchange = Exchange(gateway, incoming, outgoing, route, request_id=request_id, caller=caller)
        try:
            await exchange.run()
        except FaultError as error:
            if outgoing.started:
                return
            await refusing.send_fault(
                gateway, outgoing, route.surface, error.fault, request_id,
                encode_headers(exchange.error_headers(error.fault)),
            )  # fmt: skip

    def _check_hops(self, incoming: Incoming) -> None:
        """A request that already passed this process, or too many proxies, is going round in circles (BE-05)."""
        value = incoming.header(b"x-llmproxy-loop-guard")
        if not value:
            return
        hops = [hop.strip() for hop in value.split(",")]
        if self._running.instance_id in hops or "1" in hops or len(hops) >= _MAX_HOPS:
            raise FaultError(
                Fault(
                    kind="loop",
                    message="this request came back to the proxy: a back end's base_url points at it",
                    side="client",
                )
            )


def _not_found(path: str, found: NoRoute) -> FaultError:
    hint = f"; did you mean {' or '.join(found.nearest)}?" if found.nearest else ""
    return FaultError(Fault(kind="not_found", message=f"there is no {path[:200]} here{hint}", side="client"))


async def _refuse_websocket(send: Send) -> None:
    """Answers a WebSocket attempt with 426 at once: agents that try it first then use HTTP (FE-01)."""
    fault = Fault(kind="upgrade", message="WebSocket is not served here; use POST over HTTP", side="client")
    body = dialects.get("openai-responses").write_error(fault)
    await send(
        {
            "type": "websocket.http.response.start",
            "status": 426,
            "headers": [JSON_TYPE, (b"content-length", str(len(body)).encode()), (b"upgrade", b"HTTP/1.1")],
        }
    )
    await send({"type": "websocket.http.response.body", "body": body})


_CALLS = frozenset({"generate", "count", "completions", "embeddings"})
"""What calls a provider, and so counts for how much is done at once."""

_HANDLERS: dict[str, Handler] = {
    "count": operations.count,
    "models": operations.models,
    "model": operations.model,
    "completions": side_calls.completions,
    "embeddings": side_calls.embeddings,
    "response": operations.response,
    "response-input": operations.response_input,
    "response-cancel": operations.response_cancel,
    "root": pages.root,
    "health": pages.health,
    "info": pages.info,
    "docs": pages.docs,
    "redoc": pages.docs,
    "openapi": pages.openapi,
    "usage-stats": usage_pages.stats,
    "usage-recent": usage_pages.recent,
    "audit": audit_pages.logs,
    "internal": internal_pages.internal,
}
