"""Error answers: in the client's protocol, with its status and headers, or as the provider wrote them where that may be seen (FE-11)."""

from __future__ import annotations

import math

import msgspec

from llm_proxy import dialects
from llm_proxy.conversation.fault import Fault
from llm_proxy.server.gateway import MOST_UPSTREAM_TEXT, Gateway
from llm_proxy.server.http import JSON_TYPE, Headers, Outgoing, encode_headers
from llm_proxy.server.paths import Surface
from llm_proxy.server.unserved import limit_headers


async def send_fault(
    gateway: Gateway,
    outgoing: Outgoing,
    surface: Surface,
    fault: Fault,
    request_id: str,
    extra: Headers | None = None,
) -> None:
    """The error answer of a protocol, with its headers. What an upstream said verbatim in this very protocol is passed on as it was."""
    fault = gateway.shown(fault)
    verbatim = _verbatim(gateway, surface, fault)
    status = fault.status_code if verbatim else client_status(surface, fault)
    headers: Headers = [JSON_TYPE, *(extra or [(b"x-request-id", request_id.encode())])]
    if surface == "anthropic-messages":
        headers.append((b"request-id", request_id.encode()))
    if fault.kind == "auth":
        headers.append((b"www-authenticate", b"Bearer"))
    if fault.retry_after is not None and fault.retry_after >= 0:
        seconds = max(1, math.ceil(fault.retry_after))
        headers = [pair for pair in headers if pair[0] not in (b"retry-after", b"retry-after-ms")]
        headers.append((b"retry-after", str(seconds).encode()))
    headers += encode_headers(limit_headers(fault))
    if fault.kind == "upgrade":
        headers += [(b"upgrade", b"HTTP/1.1"), (b"connection", b"upgrade")]
    if fault.kind == "method" and fault.details:
        headers.append((b"allow", ", ".join(fault.details["allow"]).encode()))
    body = verbatim or dialects.get(surface).write_error(fault, request_id)
    await outgoing.whole(status, headers, body)


def client_status(surface: Surface, fault: Fault) -> int:
    """The HTTP status by which this protocol says it (translation.md section 8): an upstream's own status where the protocol knows it."""
    status = fault.status_code
    # Gemini's body holds the code as well, so the two must agree where the body is written anew.
    if fault.side != "upstream" or (fault.origin == surface and surface != "gemini"):
        return status
    if fault.kind == "overloaded" and status in (503, 529):
        return 529 if surface == "anthropic-messages" else 503
    if surface == "gemini":
        return {"billing": 429, "too_large": 400}.get(fault.kind, status)
    return status


def _verbatim(gateway: Gateway, surface: Surface, fault: Fault) -> bytes:
    """The provider's own error body, if it speaks the client's protocol and nothing in it must be hidden or changed."""
    if fault.origin != surface or fault.raw.lstrip()[:1] not in b"{[" or fault.kind in ("upstream_auth", "closed"):
        return b""
    text = fault.raw.decode("utf-8", "replace")
    if not _is_json(fault.raw) or len(fault.message) >= MOST_UPSTREAM_TEXT or gateway.clean(text) != text:
        return b""
    return fault.raw


def _is_json(body: bytes) -> bool:
    try:
        msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True
