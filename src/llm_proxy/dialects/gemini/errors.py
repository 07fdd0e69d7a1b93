"""Error bodies of Gemini and of servers that claim to be it, as faults and back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from llm_proxy.conversation.fault import Fault, FaultKind, kind_of_status
from llm_proxy.dialects.gemini.wire import NAME, Object, integer
from llm_proxy.dialects.refusals import kind_of_forbidden
from llm_proxy.wire import json as wire_json

_decode = msgspec.json.Decoder().decode
_MAX_MESSAGE = 500
_STATUS_WORDS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "INVALID_ARGUMENT",
    409: "ABORTED",
    412: "FAILED_PRECONDITION",
    413: "INVALID_ARGUMENT",
    415: "INVALID_ARGUMENT",
    421: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    426: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    508: "FAILED_PRECONDITION",
    529: "UNAVAILABLE",
}
_CODES = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_CONTEXT = re.compile(
    r"exceeds? the maximum (?:number|length) of (?:input )?tokens|input token count"
    r"|token count .{0,40}exceeds|exceeds the (?:model's )?context"
    r"|context (?:length|window)|maximum context|prompt is too long",
    re.IGNORECASE,
)
_BAD_KEY = re.compile(r"api[ _]key (?:not valid|invalid|expired|not found)|API_KEY_INVALID", re.IGNORECASE)
_IN_WORDS = re.compile(r"(?:retry|try again) in ([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(ms|s|m|h)?", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>([^<]{1,200})</title>", re.IGNORECASE)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def read_error(status: int, headers: Sequence[tuple[str, str]], body: bytes) -> Fault:
    """The fault that an error answer means, whatever its body is. Never raises."""
    text = body[:65536].decode("utf-8", "replace").strip()
    try:
        value = _decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _fault(status, _plain(text, status), "", None, body)
    if isinstance(value, list) and value:
        value = value[0]
    error = value.get("error", value) if isinstance(value, dict) else value
    return fault_of_error(error, status, body)


def fault_of_error(error: Any, status: int, raw: bytes) -> Fault:
    """The fault of an error object; `status` 0 = only the object knows it."""
    if not isinstance(error, dict):
        return _fault(status, error if isinstance(error, str) else "", "", None, raw)
    message: Any = next(
        (error[name] for name in ("message", "detail", "msg", "error_description") if isinstance(error.get(name), str)),
        "",
    )
    word = error.get("status")
    word = word if isinstance(word, str) else ""
    code = integer(error.get("code"))
    if not status:
        status = code if code is not None and 400 <= code <= 599 else _CODES.get(word, 0)
    return _fault(status, message, word, error.get("details"), raw)


def _fault(status: int, message: str, word: str, details: Any, raw: bytes) -> Fault:
    message = " ".join(message.split())[:_MAX_MESSAGE]
    kind = _kind(status, message, word, details)
    own_status = status if 400 <= status <= 599 and (kind != "upstream_auth" or status == 400) else 0
    if kind == "context_length":
        own_status = 400
    return Fault(
        kind=kind,
        message=message or f"the provider answered with status {status or 'of an error'} and said nothing else",
        status=own_status,
        retry_after=_retry(details, message),
        upstream_type=word,
        upstream_code=_reason(details),
        origin=NAME,
        raw=raw,
    )


def _kind(status: int, message: str, word: str, details: Any) -> FaultKind:
    if status == 403 or word == "PERMISSION_DENIED":
        return kind_of_forbidden(_reason(details), message)
    if status == 401 or word == "UNAUTHENTICATED":
        return "upstream_auth"
    if status in (0, 400) and (_reason(details).startswith("API_KEY_") or _BAD_KEY.search(message)):
        return "upstream_auth"
    if status in (400, 413, 422) and _CONTEXT.search(message):
        return "context_length"
    if status == 500 or not status:
        return {"UNAVAILABLE": "overloaded", "RESOURCE_EXHAUSTED": "rate_limit"}.get(word, "upstream")  # type: ignore[return-value]
    return kind_of_status(status)


def _details(details: Any, kind: str) -> Object | None:
    for entry in details if isinstance(details, list) else ():
        if isinstance(entry, dict) and str(entry.get("@type", "")).endswith(kind):
            return entry
    return None


def _reason(details: Any) -> str:
    info = _details(details, "ErrorInfo")
    reason = info.get("reason") if info else None
    return reason if isinstance(reason, str) else ""


def _retry(details: Any, message: str) -> float | None:
    info = _details(details, "RetryInfo")
    delay = info.get("retryDelay", info.get("retry_delay")) if info else None
    if isinstance(delay, str):
        try:
            seconds = float(delay.rstrip("s"))
        except ValueError:
            seconds = -1.0
        return seconds if 0 <= seconds < 1e9 else None
    if isinstance(delay, dict):
        whole, nanos = integer(delay.get("seconds")), integer(delay.get("nanos"))
        return (whole or 0) + (nanos or 0) / 1e9
    found = _IN_WORDS.search(message)
    return float(found[1]) * _UNITS[(found[2] or "s").lower()] if found else None


def _plain(text: str, status: int) -> str:
    """A message without markup from a body that is no JSON."""
    if text[:1] == "<":
        title = _TITLE.search(text)
        named = f": {' '.join(title[1].split())}" if title else ""
        return f"the provider answered with an HTML page (status {status}){named}"
    return text


def error_in_answer(body: bytes) -> Fault | None:
    """The error that a body with status 200 holds, None for an answer. Looks at the beginning first."""
    head = body[:4096].lstrip()
    if b'"candidates"' in head:
        return None
    if head[:1] == b"<":
        text = body[:65536].decode("utf-8", "replace").strip()
        return Fault(kind="upstream", message=_plain(text, 200), origin=NAME, raw=body[:65536])
    if b'"error"' not in body and b'"success"' not in head:
        return None
    try:
        value = _decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict) or "candidates" in value:
        return None
    if value.get("error"):
        return fault_of_error(value["error"], 0, body)
    if value.get("success") is False:
        return fault_of_error(value, 0, body)
    return None


def error_status(fault: Fault) -> int:
    """The HTTP status and `error.code`: clients here know no 529 and no 402, and Google says 400 for 413."""
    code = fault.status_code
    if code == 529 or not 400 <= code <= 599:
        return 503
    if code == 402:
        return 429
    return 400 if code == 413 and fault.side == "upstream" else code


def error_object(fault: Fault) -> Object:
    code = error_status(fault)
    word = _STATUS_WORDS.get(code) or ("INVALID_ARGUMENT" if code < 500 else "INTERNAL")
    if fault.origin == NAME and fault.kind != "upstream_auth" and _CODES.get(fault.upstream_type) == code:
        word = fault.upstream_type
    message = fault.message
    if fault.kind == "context_length" and not _CONTEXT.search(message):
        message = f"The input token count exceeds the maximum number of tokens allowed. {message}"
    out: Object = {"code": code, "message": message, "status": word}
    details: list[Object] = []
    if fault.retry_after is not None and fault.retry_after >= 0:
        delay = f"{fault.retry_after:.3f}".rstrip("0").rstrip(".")
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{delay}s"})
    if fault.param:
        violation = {"field": fault.param, "description": fault.message}
        details.append({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]})
    if details:
        out["details"] = details
    return out


def error_body(fault: Fault) -> Object:
    return {"error": error_object(fault), "detail": fault.detail}


def write_error(fault: Fault, request_id: str = "") -> bytes:
    return wire_json.encode(error_body(fault))
