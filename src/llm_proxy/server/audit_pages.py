"""The audit page (OPS-09): who asked what and what was answered, for the operator only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.server.clients import Client
from llm_proxy.server.gateway import Gateway
from llm_proxy.server.http import JSON_TYPE, Headers, Incoming, Outgoing
from llm_proxy.server.paths import Route
from llm_proxy.server.usage_pages import bad, limit_of
from llm_proxy.store.records import AuditFilter
from llm_proxy.store.shown import audit_entry
from llm_proxy.wire import json as wire_json


async def logs(
    gateway: Gateway, incoming: Incoming, outgoing: Outgoing, route: Route, headers: Headers, key: str
) -> None:
    if gateway.audit is None:
        message = "the audit log is off (option audit.enabled)"
        raise FaultError(Fault(kind="not_found", message=message, side="client"))
    if not Client(gateway, incoming, key).may_change_all:
        raise FaultError(
            Fault(
                kind="permission",
                message="the audit log is for the operator only (option auth.admin_keys)",
                side="client",
            )
        )
    limit = limit_of(incoming)
    wanted = AuditFilter(
        start=_moment(incoming, "start_date"),
        end=_moment(incoming, "end_date", through=True),
        username=incoming.parameter("username") or None,
        project=incoming.parameter("project") or None,
        session=incoming.parameter("session_id") or None,
    )
    entries, total = await gateway.audit.entries(wanted, limit)
    body = {"object": "audit_logs", "data": [audit_entry(entry) for entry in entries], "total": total}
    await outgoing.whole(200, [JSON_TYPE, *headers], wire_json.encode(body))


def _moment(incoming: Incoming, name: str, *, through: bool = False) -> float | None:
    """Epoch seconds of an ISO 8601 date or time, UTC unless it says otherwise. `through`: a date alone means the end of its day, and a
    time its very second too.
    """
    text = incoming.parameter(name).strip()
    if "T" in text:
        text = text.replace(" ", "+")  # an offset whose sign was not escaped
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise bad(name, f"{name}: expected a date or time such as 2026-11-21 or 2026-11-21T08:30:00Z") from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    try:
        if through:
            found += timedelta(days=1) if len(text) <= _DATE else timedelta(microseconds=1)
        return found.timestamp()
    except OverflowError:
        raise bad(name, f"{name}: expected a date or time of this age") from None


_DATE = len("2026-11-21")
