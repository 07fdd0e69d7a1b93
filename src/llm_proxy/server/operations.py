"""Token counting, model lists, kept responses: what clients ask for beside generations."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from llm_proxy import dialects
from llm_proxy.backends.base import Backend, Call
from llm_proxy.conversation.fault import Fault, FaultError, bad_request
from llm_proxy.conversation.request import Request
from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects.base import ModelInfo, Target
from llm_proxy.dialects.openai_responses import state
from llm_proxy.features.context_window import measured
from llm_proxy.features.exchange import AttemptRecord
from llm_proxy.features.usage import About
from llm_proxy.routing.choice import ROUTE_PREFIX
from llm_proxy.routing.plan import Attempt
from llm_proxy.server import stored_responses
from llm_proxy.server.capture import recorder
from llm_proxy.server.clients import Client
from llm_proxy.server.gateway import Gateway
from llm_proxy.server.http import JSON_TYPE, Headers, Incoming, Outgoing, Presence, protocol_headers, read_members
from llm_proxy.server.paths import Route
from llm_proxy.sessions.session import Session
from llm_proxy.tokens.meter import METER
from llm_proxy.wire import json as wire_json
from llm_proxy.wire.tap import WireTap

_LOG = logging.getLogger(__name__)
_COUNT_LIMIT = 3.0
_LIST_LIMIT = 5.0


# Counting


async def count(
    gateway: Gateway, incoming: Incoming, outgoing: Outgoing, route: Route, headers: Headers, key: str
) -> None:
    """FE-08: the provider's own number when the target speaks this dialect, else the estimate; never fails because counting failed."""
    client = dialects.get(route.surface)
    body = await incoming.body(gateway.limits.max_request_bytes)
    body = _countable(route, body)
    request = client.read_request(body, route.name)
    caller = Client(gateway, incoming, key)
    known = await caller.recognise(client, wire_json.read_document(body), request.model)
    try:
        attempt = _counter(gateway, request, known.session, caller)
        if gateway.commands is not None:
            request = gateway.commands.without_commands(request, known.session)
    finally:
        gateway.sessions.release(known.session)
    tokens = None
    if (
        attempt is not None
        and request.messages
        and attempt.backend.supports("count")
        and attempt.backend.dialect_for(client.name) == client.name
    ):
        with Presence(incoming, outgoing) as presence:
            call = Counting(gateway, attempt, len(body), key)
            try:
                tap = _tap(gateway, incoming, attempt, known.session, headers, presence)
                tokens = await call.counted(incoming, client.name, request, tap)
            finally:
                call.record(headers, client.name, request, known.session)
    if tokens is None:
        tokens = await estimate(request, attempt, client.name)
    await outgoing.whole(200, [JSON_TYPE, *headers], client.write_count(tokens))


def _counter(gateway: Gateway, request: Request, session: Session, caller: Client) -> Attempt | None:
    """Who would answer; a one-off is for the next turn, not for its counting."""
    router = gateway.router
    plan = router.plan(router.decide(request.model, session), session, caller, looking=True)
    return next(iter(plan.attempts), None)


def _countable(route: Route, body: bytes) -> bytes:
    """Counting requests have no limit, and Gemini may wrap the request; otherwise they are requests."""
    members = read_members(body)
    if route.surface == "gemini" and isinstance(members.get("generateContentRequest"), dict):
        members = members["generateContentRequest"]
        return wire_json.encode(members)
    if route.surface == "anthropic-messages" and "max_tokens" not in members:
        return wire_json.encode({**members, "max_tokens": 1})
    return body


def _tap(
    gateway: Gateway, incoming: Incoming, attempt: Attempt, session: Session, headers: Headers, presence: Presence
) -> WireTap | None:
    """Who listens to the call of a provider's counter."""
    return recorder(
        gateway.running.capture,
        incoming,
        attempt,
        session=session.id,
        request_id=next((value.decode("latin-1") for name, value in headers if name == b"x-request-id"), ""),
        number=1,
        call=1,
        left=lambda: presence.gone,
    )


class Counting:
    """One counting call of a provider, from its start to its row of usage. Fulfils `features.exchange.CallView`."""

    def __init__(self, gateway: Gateway, attempt: Attempt, size: int, key: str) -> None:
        self._gateway = gateway
        self._attempt = attempt
        self._began = time.time()
        self.size = size
        self.key_name = key
        self.cancelled = True
        """Until the call ends in any other way."""
        self.fault: Fault | None = None
        self.usage: Usage | None = Usage(input=0, output=0)
        """Counting uses no tokens."""
        self.attempts: list[AttemptRecord] = []
        self.time_to_first: float | None = None

    def parameters(self) -> dict[str, Any]:
        return {}

    async def counted(self, incoming: Incoming, dialect_name: str, request: Request, tap: WireTap | None) -> int | None:
        """The provider's number; None where it has none to give, or not soon enough."""
        backend, attempt, dialect = self._attempt.backend, self._attempt, dialects.get(dialect_name)
        target = Target(
            model=attempt.model,
            capabilities=backend.capabilities(attempt.model, dialect_name),
            maker=backend.maker(attempt.model),
        )
        status = 0
        try:
            async with asyncio.timeout(_COUNT_LIMIT):
                response = await backend.open(
                    Call(
                        dialect=dialect_name,
                        model=attempt.model,
                        action="count",
                        body=self._gateway.outgoing(wire_json.encode(dialect.write_count_request(request, target))),
                        headers=protocol_headers(incoming),
                        identity=self._gateway.identity(backend, incoming),
                        key=attempt.key,
                        loop_guard=self._gateway.hops(incoming),
                        tap=tap,
                    )
                )
                status = response.status
                try:
                    found = dialect.read_count(await response.read(1 << 20)) if status == 200 else None
                finally:
                    response.close()
            self.cancelled = False
            return found
        except (FaultError, TimeoutError) as error:
            _LOG.debug("counting at %s failed: %s", backend.id, error)
            self.fault = (
                error.fault
                if isinstance(error, FaultError)
                else Fault(kind="timeout", message="counting took too long")
            )
            self.cancelled = False
            return None
        finally:
            self.attempts.append(AttemptRecord(backend.id, attempt.model, attempt.key_name, status))

    def record(self, headers: Headers, surface: str, request: Request, session: Session) -> None:
        """Writes the row."""
        if (recording := self._gateway.usage_recording) is None or not self.attempts:
            return
        about = About(
            id=next((value.decode("latin-1") for name, value in headers if name == b"x-request-id"), ""),
            started=self._began,
            duration=time.time() - self._began,
            surface=surface,
            kind="count",
            requested_model=request.model,
            backend=self._attempt.backend.id,
            model=self._attempt.model,
            status=self.fault.status_code if self.fault is not None else self.attempts[-1].status,
            stream=False,
            session=session.id,
            user=request.user or "",
            agent=session.agent or "generic",
            project=str(session.values.get("project") or ""),
        )
        recording.add(self, about)


async def estimate(request: Request, attempt: Attempt | None, surface: str) -> int:
    """The input tokens of a request as the proxy counts them, for whom it would go to (REQ-07)."""
    backend, model = (attempt.backend.id, attempt.model) if attempt else ("", request.model)
    try:
        measure = await measured(METER, request, backend, model, surface)
    except Exception:
        # A wall of its own: counting never fails because counting failed.
        _LOG.exception("a request cannot be counted, its size is estimated")
        measure = METER.quick(request, backend, model, surface)
    return measure.tokens


# Models


async def models(
    gateway: Gateway, incoming: Incoming, outgoing: Outgoing, route: Route, headers: Headers, key: str
) -> None:
    """FE-07: the union of all functional back ends' models in the caller's dialect, within five seconds."""
    found, missing = await _catalogue(gateway, incoming.parameter("backend"))
    body = dialects.get(_list_dialect(incoming, route)).write_models(found)
    if missing:
        headers = [*headers, (b"x-llm-proxy-unavailable-backends", ",".join(missing).encode())]
    await outgoing.whole(200, [JSON_TYPE, *headers], body)


async def model(
    gateway: Gateway, incoming: Incoming, outgoing: Outgoing, route: Route, headers: Headers, key: str
) -> None:
    found, _ = await _catalogue(gateway, "")
    name = route.name.removeprefix("models/")
    info = next((info for info in found if info.id == name), None) or _bare(found, name)
    if info is None:
        similar = [info.id for info in found if name.split(":")[-1].lower() in info.id.lower()][:3]
        hint = f"similar: {', '.join(similar)}" if similar else "`llm-proxy models` lists those there are"
        raise FaultError(Fault(kind="not_found", message=f"there is no model {name[:200]}; {hint}", side="client"))
    await outgoing.whole(200, [JSON_TYPE, *headers], dialects.get(_list_dialect(incoming, route)).write_model(info))


def _bare(found: Sequence[ModelInfo], name: str) -> ModelInfo | None:
    """A name without a back end means the first that has it, under the name that was asked for."""
    info = next((info for info in found if info.id.partition(":")[2] == name), None)
    return msgspec.structs.replace(info, id=name) if info else None


def _list_dialect(incoming: Incoming, route: Route) -> str:
    if route.surface == "openai-chat":
        if incoming.header(b"anthropic-version"):
            return "anthropic-messages"
        if incoming.header(b"x-goog-api-key") and incoming.path.startswith("/v1"):
            return "gemini"
    return route.surface


async def _catalogue(gateway: Gateway, only: str) -> tuple[list[ModelInfo], list[str]]:
    backends = [backend for backend in gateway.backends.functional if not only or backend.id == only.lower()]
    if only and not backends:
        raise FaultError(Fault(kind="not_found", message=f"no usable back end is called {only[:100]}", side="client"))
    tasks = [asyncio.create_task(_listed(gateway, backend)) for backend in backends]
    done, slow = await asyncio.wait(tasks, timeout=_LIST_LIMIT)
    missing = [
        backend.id
        for backend, task in zip(backends, tasks, strict=True)
        if task in slow or task.result() is None or backend.list_failed
    ]
    found = [info for task in done for info in task.result() or ()]
    found = sorted(found, key=lambda info: (info.id.partition(":")[0], info.id))
    routes = [] if only else [ModelInfo(id=ROUTE_PREFIX + name, owner="llm-proxy") for name in gateway.router.routes]
    return found + routes, missing


async def _listed(gateway: Gateway, backend: Backend) -> list[ModelInfo] | None:
    """The models of a back end as `backend:model`; None when it cannot say."""
    try:
        return await gateway.backends.models(backend)
    except FaultError as error:
        _LOG.warning("the model list of %s cannot be read: %s", backend.id, error.fault.message)
        return None


# Kept responses (FE-03)


async def response(
    gateway: Gateway, incoming: Incoming, outgoing: Outgoing, route: Route, headers: Headers, key: str
) -> None:
    stored = await _stored(gateway, route, Client(gateway, incoming, key).scope)
    if incoming.method == "DELETE":
        stored_responses.delete(gateway.store, Client(gateway, incoming, key).scope, route.name)
        body = state.deleted_body(route.name)
    else:
        body = state.response_body(stored)
    await outgoing.whole(200, [JSON_TYPE, *headers], body)


async def response_input(
    gateway: Gateway, incoming: Incoming, outgoing: Outgoing, route: Route, headers: Headers, key: str
) -> None:
    stored = await _stored(gateway, route, Client(gateway, incoming, key).scope)
    limit = incoming.parameter("limit") or "20"
    if not limit.isdigit():
        raise bad_request("limit: expected a whole number", "limit")
    body = state.input_page(stored, incoming.parameter("after"), int(limit), incoming.parameter("order") or "desc")
    await outgoing.whole(200, [JSON_TYPE, *headers], body)


async def response_cancel(
    gateway: Gateway, incoming: Incoming, outgoing: Outgoing, route: Route, headers: Headers, key: str
) -> None:
    await _stored(gateway, route, Client(gateway, incoming, key).scope)
    raise bad_request("only background responses can be cancelled; this one is complete", "response_id")


async def _stored(gateway: Gateway, route: Route, scope: str) -> state.StoredResponse:
    stored = await stored_responses.find(gateway.store, scope, route.name)
    if stored is None:
        raise FaultError(
            Fault(kind="not_found", message=f"Response with id '{route.name[:100]}' not found.", side="client")
        )
    return stored
