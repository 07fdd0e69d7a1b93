"""Errors both ways: any error body that servers of this protocol and look-alikes send, and the one shape
that clients get.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from llm_proxy.conversation.fault import Fault, FaultKind, kind_of_status
from llm_proxy.dialects.anthropic_messages import wire
from llm_proxy.dialects.refusals import kind_of_forbidden
from llm_proxy.wire import json
from llm_proxy.wire.faults import WireFault

_MOST_TEXT = 500
_MOST_RAW = 64 * 1024

_TYPES: dict[FaultKind, str] = {
    "bad_request": "invalid_request_error",
    "validation": "invalid_request_error",
    "context_length": "invalid_request_error",
    "auth": "authentication_error",
    "upstream_auth": "api_error",
    "billing": "billing_error",
    "permission": "permission_error",
    "not_found": "not_found_error",
    "method": "invalid_request_error",
    "too_large": "request_too_large",
    "unsupported_media": "invalid_request_error",
    "upgrade": "invalid_request_error",
    "host": "invalid_request_error",
    "rate_limit": "rate_limit_error",
    "internal": "api_error",
    "upstream": "api_error",
    "unavailable": "overloaded_error",
    "overloaded": "overloaded_error",
    "timeout": "timeout_error",
    "loop": "invalid_request_error",
    "closed": "api_error",
}

# What a provider's own type means, and the status that it stands for inside a stream.
_KINDS: dict[str, tuple[FaultKind, int]] = {
    "invalid_request_error": ("bad_request", 400),
    "authentication_error": ("upstream_auth", 0),
    "permission_error": ("upstream_auth", 0),
    "billing_error": ("billing", 402),
    "not_found_error": ("not_found", 404),
    "conflict_error": ("bad_request", 409),
    "request_too_large": ("too_large", 413),
    "rate_limit_error": ("rate_limit", 429),
    "api_error": ("upstream", 500),
    "overloaded_error": ("overloaded", 529),
    "timeout_error": ("timeout", 504),
}

_TOO_LONG = re.compile(
    r"prompt is too long|exceeds? (?:the )?(?:model'?s )?(?:maximum )?context"
    r"|context[ _](?:length|window|limit)|maximum context|too many (?:input )?tokens"
    r"|input (?:token count|is too long)|prompt (?:token count|exceeds)",
    re.IGNORECASE,
)
_COMPACTS = ("prompt is too long", "exceed context limit")
_RETRY = re.compile(
    r"(?:try again|retry)(?: your request)? (?:in|after)"
    r" (?:(\d+)m)?\s?(\d+(?:\.\d+)?)\s?(ms|s\b|sec|m\b|min)",
    re.IGNORECASE,
)
_DELAY = re.compile(r"(\d+(?:\.\d+)?)s\Z")
_TAG = re.compile(r"<[^<>]{0,200}>")
_TITLE = re.compile(r"<title[^>]{0,200}>([^<]{0,200})", re.IGNORECASE)
_NUMBER = re.compile(r"\d[\d,]{2,12}")


# ---- from providers


def read_error(status: int, headers: Sequence[tuple[str, str]], body: bytes) -> Fault:
    """The fault of an error answer; never raises. Retry times of headers are read elsewhere."""
    del headers
    decoded = _decoded(body)
    if decoded is None:
        return _fault_of_text(status, body)
    return fault_of(decoded, status, body)


def _decoded(body: bytes) -> Any:
    """The JSON value of an error body, None when it is none."""
    try:
        if body.lstrip()[:1] == b"[":
            return json.decode_object(b'{"list":' + body + b"}")["list"]
        return json.decode_object(body)
    except WireFault:
        return None


def _fault_of_text(status: int, body: bytes) -> Fault:
    text = body[:20_000].decode("utf-8", "replace")
    if "<" in text[:200].lstrip()[:1] or "<html" in text[:1000].lower():
        title = _TITLE.search(text)
        words = " ".join(title[1].split()) if title else ""
        message = f"the provider answered with a web page{f': {words}' if words else ''}"
    else:
        message = " ".join(_TAG.sub(" ", text).split())[:_MOST_TEXT] or "the provider gave no reason"
    return _fault(status, message, "", "", {})


def fault_of(value: Any, status: int = 0, body: bytes = b"") -> Fault:
    """The fault that a decoded error body tells. `status` 0: it came inside a stream or a 200, its type
    decides.
    """
    if isinstance(value, list):
        value = value[0] if value else {}
    value = wire.object_in(value)
    error = value.get("error")
    if isinstance(error, str):
        error = {"message": error}
    inner = wire.object_in(error) or wire.object_in(value.get("detail")) or value
    message = _message(inner) or _message(value) or "the provider gave no reason"
    kind_word = wire.text_in(inner.get("type")) if inner is not value else ""
    code = inner.get("code")
    if not status and isinstance(code, int) and not isinstance(code, bool) and 400 <= code < 600:
        status = code
    fault = _fault(status, message, kind_word, "" if code is None else str(code)[:100], inner)
    if value.get("type") == "error" and kind_word and len(body) <= _MOST_RAW:
        return msgspec.structs.replace(fault, origin=wire.NAME, raw=body)
    return fault


def _message(fields: dict[str, Any]) -> str:
    for name in ("message", "msg", "detail", "error_msg", "error_description", "title"):
        text = fields.get(name)
        if isinstance(text, str) and text.strip():
            return " ".join(_TAG.sub(" ", text).split()) if "<" in text and "</" in text else text.strip()
    return ""


def _fault(status: int, message: str, kind_word: str, code: str, fields: dict[str, Any]) -> Fault:
    known = _KINDS.get(kind_word)
    if known is not None and not (status and kind_word == "api_error"):
        kind = known[0]
        status = status or known[1]
    else:
        kind = kind_of_status(status) if status >= 400 else "upstream"
    if status == 403 or kind_word == "permission_error":
        kind = kind_of_forbidden(code, message)
    elif status == 401:
        kind = "upstream_auth"
    if kind in ("bad_request", "too_large", "upstream") and _TOO_LONG.search(message) and status in (0, 400, 413, 422):
        kind = "context_length"
    if kind in ("upstream_auth", "context_length") or not 400 <= status < 600:
        status = 0
    waits = kind in ("rate_limit", "overloaded", "unavailable")
    return Fault(
        kind=kind,
        message=message[:_MOST_TEXT],
        status=status,
        upstream_type=kind_word[:100],
        upstream_code=code,
        retry_after=_retry_after(message, fields) if waits else None,
    )


def _retry_after(message: str, fields: dict[str, Any]) -> float | None:
    details = fields.get("details")
    for detail in details if isinstance(details, list) else ():
        delay = _DELAY.match(wire.text_in(wire.object_in(detail).get("retryDelay")))
        if delay:
            return float(delay[1])
    for name in ("retry_after", "retry_after_seconds"):
        value = fields.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
            return float(value)
    found = _RETRY.search(message)
    if not found:
        return None
    unit = found[3].lower()
    amount = float(found[2]) * (0.001 if unit == "ms" else 60 if unit.startswith("m") else 1)
    return amount + 60 * int(found[1] or 0)


def error_in_answer(body: bytes) -> Fault | None:
    """The error that hides in a 200: an error object, `success: false`, a web page, or no answer at all."""
    start = body[:64].lstrip()[:1]
    if start != b"{":
        decoded = _decoded(body)
        return _fault_of_text(0, body) if decoded is None else fault_of(decoded, 0, body)
    if b'"content"' in body and b'"error"' not in body and b'"success"' not in body[:200]:
        return None
    decoded = _decoded(body)
    if decoded is None:
        return None
    return fault_in(decoded, body)


def fault_in(value: dict[str, Any], body: bytes = b"") -> Fault | None:
    """The fault of a decoded 200 body; None when it is an answer."""
    if value.get("type") == "error" or value.get("success") is False:
        return fault_of(value, 0, body)
    if isinstance(value.get("content"), list) or value.get("stop_reason") is not None:
        return None
    if value.get("error") or "code" in value or "msg" in value or "message" in value or "detail" in value:
        return fault_of(value, 0, body)
    return None


# ---- to clients


def write_error(fault: Fault, request_id: str = "") -> bytes:
    """The error body. Its wording for a full context is what makes agents compact their conversation."""
    kind = _TYPES[fault.kind]
    if (
        fault.origin == wire.NAME
        and fault.upstream_type in _KINDS
        and fault.kind not in ("upstream_auth", "context_length")
    ):
        kind = fault.upstream_type
    elif fault.kind in ("upstream", "bad_request") and fault.status_code == 504:
        kind = "timeout_error"
    elif fault.kind == "not_found" and fault.status_code == 400:
        kind = "invalid_request_error"
    message = _compacting(fault.message) if fault.kind == "context_length" else fault.message
    return json.encode(
        {
            "type": "error",
            "error": {"type": kind, "message": message or "unknown error"},
            "request_id": request_id or None,
            "detail": fault.detail,
        }
    )


def _compacting(message: str) -> str:
    """`prompt is too long: N tokens > M maximum` with the figures of another provider's words, if they are
    there.
    """
    lowered = message.lower()
    if any(words in lowered for words in _COMPACTS):
        return message
    figures = sorted({int(found.replace(",", "")) for found in _NUMBER.findall(message)}, reverse=True)
    if len(figures) >= 2:
        return f"prompt is too long: {figures[0]} tokens > {figures[-1]} maximum ({message})"
    return f"prompt is too long: {message}"
