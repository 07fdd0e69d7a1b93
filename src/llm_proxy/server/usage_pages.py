"""The usage pages (OPS-07): what was used, in sums and row by row, each key its own unless it is the operator's."""

from __future__ import annotations

import time

from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.server.clients import Client
from llm_proxy.server.gateway import Gateway
from llm_proxy.server.http import JSON_TYPE, Headers, Incoming, Outgoing
from llm_proxy.server.paths import Route
from llm_proxy.store.protocols import UsageLedger
from llm_proxy.store.records import UsageFilter
from llm_proxy.store.shown import entries_body, stats_body
from llm_proxy.wire import json as wire_json

_DIGITS = 9
_PARAMETERS = ("backend", "model", "session_id", "username", "project")


async def stats(
    gateway: Gateway, incoming: Incoming, outgoing: Outgoing, route: Route, headers: Headers, key: str
) -> None:
    ledger = _ledger(gateway)
    days = _number(incoming, "days", 30)
    wanted = _wanted(gateway, incoming, key, since=time.time() - days * 86400 if days > 0 else None)
    body = stats_body(await ledger.stats(wanted), {"days": days, **_filters(incoming)})
    await outgoing.whole(200, [JSON_TYPE, *headers], wire_json.encode(body))


async def recent(
    gateway: Gateway, incoming: Incoming, outgoing: Outgoing, route: Route, headers: Headers, key: str
) -> None:
    ledger = _ledger(gateway)
    limit = limit_of(incoming)
    body = entries_body(await ledger.recent(_wanted(gateway, incoming, key), limit))
    await outgoing.whole(200, [JSON_TYPE, *headers], wire_json.encode(body))


def _ledger(gateway: Gateway) -> UsageLedger:
    if gateway.usage is None:
        message = "usage tracking is off (option usage_tracking.enabled)"
        raise FaultError(Fault(kind="not_found", message=message, side="client"))
    return gateway.usage


def _filters(incoming: Incoming) -> dict[str, str]:
    return {name: value for name in _PARAMETERS if (value := incoming.parameter(name))}


def _wanted(gateway: Gateway, incoming: Incoming, key: str, since: float | None = None) -> UsageFilter:
    """What the query asks, within what this key may see."""
    named = _filters(incoming)
    own = not Client(gateway, incoming, key).may_change_all
    return UsageFilter(
        since=since,
        backend=named.get("backend"),
        model=named.get("model"),
        project=named.get("project"),
        session=named.get("session_id"),
        username=named.get("username"),
        key_name=key if own else None,
    )


def limit_of(incoming: Incoming) -> int:
    """How many rows the query asks for. Raises FaultError."""
    limit = _number(incoming, "limit", 100)
    if not 1 <= limit <= 1000:
        raise bad("limit", "limit: expected a number from 1 to 1000")
    return limit


def _number(incoming: Incoming, name: str, default: int) -> int:
    text = incoming.parameter(name)
    if not text:
        return default
    try:
        number = int(text) if len(text) <= _DIGITS else None
    except ValueError:
        number = None
    if number is None:
        raise bad(name, f"{name}: expected a whole number, got {text[:40]!r}")
    return number


def bad(name: str, message: str) -> FaultError:
    return FaultError(Fault(kind="bad_request", message=message, param=name, side="client"))
