"""Errors in this dialect: the many shapes that providers send, as a `Fault`; a `Fault`, as the shape that
clients read.

Looks at bodies only: headers, keys and retries are not its business. Messages are shortened and cleaned,
never invented.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from llm_proxy.conversation.fault import Fault, FaultKind, kind_of_status
from llm_proxy.dialects.openai_chat.fields import NAME
from llm_proxy.dialects.refusals import kind_of_forbidden
from llm_proxy.wire.json import encode

_MAX_MESSAGE = 500
_MAX_RAW = 16 * 1024
_FAMILY = (NAME, "openai-responses")

_TYPES: dict[FaultKind, str] = {
    "bad_request": "invalid_request_error",
    "validation": "invalid_request_error",
    "context_length": "invalid_request_error",
    "auth": "invalid_request_error",
    "upstream_auth": "server_error",
    "billing": "insufficient_quota",
    "permission": "request_forbidden",
    "not_found": "invalid_request_error",
    "method": "invalid_request_error",
    "too_large": "invalid_request_error",
    "unsupported_media": "invalid_request_error",
    "upgrade": "invalid_request_error",
    "host": "invalid_request_error",
    "rate_limit": "rate_limit_error",
    "internal": "server_error",
    "upstream": "server_error",
    "unavailable": "server_error",
    "overloaded": "server_error",
    "timeout": "server_error",
    "loop": "invalid_request_error",
    "closed": "server_error",
}
_CODES: dict[FaultKind, str] = {
    "context_length": "context_length_exceeded",
    "auth": "invalid_api_key",
    "billing": "insufficient_quota",
    "rate_limit": "rate_limit_exceeded",
}

_CONTEXT = re.compile(
    r"context[ _](?:length|window|size)|prompt (?:is )?too long|too many (?:input )?tokens|input is too long"
    r"|maximum (?:number of )?(?:input |prompt )?tokens|token count.{0,40}exceed"
    r"|exceed.{0,30}max(?:imum)? (?:context|token)"
    r"|reduce the length of the (?:messages|prompt|input)|input length.{0,40}exceed",
    re.IGNORECASE,
)
_QUOTA = re.compile(
    r"insufficient[ _](?:quota|balance|credit|funds)|exceeded your current quota|billing|payment required"
    r"|out of credits?|credit balance|no credits",
    re.IGNORECASE,
)
_OVERLOADED = re.compile(r"overloaded|over capacity|at capacity|server is busy|temporarily unavailable", re.IGNORECASE)
_LIMITED = re.compile(r"rate[ _-]?limit|too many requests|rate limited", re.IGNORECASE)
_RETRY = re.compile(
    r"(?:try again|retry|resets?|wait)[a-z ]{0,24}?(?:in|after|for)?\s*"
    r"(?P<time>\d+(?:\.\d+)?\s*(?:ms|milliseconds?|h(?:ours?)?|m(?:in(?:ute)?s?)?|s(?:ec(?:ond)?s?)?)\b"
    r"(?:\s*\d+(?:\.\d+)?\s*(?:m|s)\b)*|\d+h\d+m[\d.]+s|\d+m[\d.]+s)",
    re.IGNORECASE,
)
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|milli|h|m|s)", re.IGNORECASE)
_UNITS = {"ms": 0.001, "milli": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SECRET = re.compile(r"(?i)\bbearer\s+[\w.~+/=-]{8,}|\b(?:(?:sk|gsk|xai)[-_]|AIza)[\w*.-]{6,}")
_TAG = re.compile(r"<[^>]{0,500}>")
_TITLE = re.compile(rb"<title[^>]*>([^<]{0,200})</title>", re.IGNORECASE)


# ---- reading


def read_error(status: int, body: bytes) -> Fault:
    """Any error body that servers of this dialect send. Never raises."""
    value = _loads(body)
    if value is None:
        return _unreadable(status, body)
    return fault_of(value, status, body)


def fault_of(value: Any, status: int = 0, body: bytes = b"") -> Fault:
    """A decoded error. `status` 0 or 200: it stood inside an answer, so only its own figures can tell the
    status.
    """
    error = _inner(value)
    message = _message(error) or _message(value) or "the provider reported an error without a message"
    kind_word = _word(error.get("type")) or _word(error.get("status"))
    code = error.get("code")
    if code is None and isinstance(value, dict):
        code = value.get("code")
    if status < 400:
        status = _named_status(error, code)
    word = _word(code)
    kind = _kind(status, kind_word, word, message)
    # A status that means something else to the client than to us is replaced by the usual one of the kind.
    own = 0 if kind in ("upstream_auth", "context_length") or not 400 <= status <= 599 else status
    if kind == "upstream_auth":
        message = f"the provider refused the proxy's own credentials: {message}"
    return Fault(
        kind=kind,
        message=_shown(message),
        status=own,
        param=_word(error.get("param")) if isinstance(error.get("param"), str) else "",
        retry_after=_retry_after(error, message),
        upstream_type=kind_word,
        upstream_code=word,
        origin=NAME,
        raw=body[:_MAX_RAW],
    )


def error_in_answer(body: bytes) -> Fault | None:
    """The error that a body with status 200 holds, by a cheap look; None if it looks like an answer."""
    start = body[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    if not start:
        return Fault(kind="upstream", message="the provider sent an empty answer", origin=NAME)
    if start[:1] not in b"{[":
        return _unreadable(200, body)
    answers = b'"choices"' in body or b'"data"' in body
    if answers and b'"error"' not in body and body[-64:].rstrip()[-1:] == b"}":
        return None
    value = _loads(body)
    if value is None:
        return _unreadable(200, body)
    fault = fault_in(value)
    if fault is None and not (isinstance(value, dict) and ("choices" in value or "data" in value)):
        return Fault(kind="upstream", message="the provider's answer holds no choices", origin=NAME)
    return fault


def fault_in(value: Any) -> Fault | None:
    """The error that a decoded answer or chunk holds, None if it holds none."""
    if isinstance(value, list):
        found = next((item for item in value if isinstance(item, dict) and item.get("error")), None)
        return fault_of(found) if found is not None else None
    if not isinstance(value, dict):
        return Fault(kind="upstream", message="the provider's answer is no JSON object", origin=NAME)
    if value.get("error") or value.get("object") == "error" or value.get("success") is False:
        return fault_of(value)
    if "choices" in value or "data" in value:
        return None
    if value.get("detail") or (value.get("code") not in (None, 0, 200, "0", "200") and _message(value)):
        return fault_of(value)
    return None


def _loads(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None


def _unreadable(status: int, body: bytes) -> Fault:
    """HTML and other text instead of JSON: its title or its words, without markup."""
    title = _TITLE.search(body[:4096])
    text = title[1].decode("utf-8", "replace") if title else _TAG.sub(" ", body[:2048].decode("utf-8", "replace"))
    text = " ".join(text.split())[:200]
    inside = status < 400
    kind: FaultKind = "upstream" if inside else _kind(status, "", "", text)
    message = "the provider answered with something that is no JSON"
    return Fault(
        kind=kind,
        message=_shown(f"{message}: {text}" if text else message),
        status=0 if inside or kind == "upstream_auth" or status > 599 else status,
        retry_after=_retry_after({}, text),
        origin=NAME,
        raw=body[:_MAX_RAW],
    )


def _inner(value: Any) -> dict[str, Any]:
    """The object that describes the error, wherever it stands."""
    if isinstance(value, list):
        value = next((item for item in value if isinstance(item, dict)), {})
    if not isinstance(value, dict):
        return {"message": value} if isinstance(value, str) else {}
    error = value.get("error")
    if isinstance(error, dict):
        return error
    if isinstance(error, str) and error:
        # xAI: {"code": "…", "error": "text"}; Ollama: {"error": "text"}
        return {**value, "message": error}
    return value


def _message(value: Any) -> str:
    """The words of an error: message, then whatever else is there; FastAPI's list of details is joined."""
    if not isinstance(value, dict):
        return ""
    said = next((text for name in ("message", "msg") if (text := _text(value.get(name)))), "")
    metadata = value.get("metadata")
    # OpenRouter keeps the words of the provider behind it apart.
    raw = _text(metadata.get("raw")) if isinstance(metadata, dict) else ""
    if said:
        return f"{said}: {raw}" if raw and raw not in said else said
    detail = value.get("detail")
    if isinstance(detail, dict):
        return _message(detail) or _text(detail.get("error"))
    if isinstance(detail, list):
        return "; ".join(filter(None, (_detail(item) for item in detail[:5])))
    return _text(detail) or _text(value.get("error")) or _text(value.get("error_description"))


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _detail(item: Any) -> str:
    if not isinstance(item, dict):
        return _text(item)
    place = item.get("loc")
    where = ".".join(str(step) for step in place) if isinstance(place, list) else ""
    said = _text(item.get("msg"))
    return f"{where}: {said}" if where and said else said


def _word(value: Any) -> str:
    """Codes come as text, as numbers, or not at all."""
    if isinstance(value, bool) or value is None:
        return ""
    return str(value)[:100] if isinstance(value, str | int | float) else ""


def _named_status(error: dict[str, Any], code: Any) -> int:
    """The HTTP status that an error inside an answer names, 0 if none."""
    for value in (error.get("status_code"), error.get("http_code"), code, error.get("status")):
        number = int(value) if isinstance(value, str) and value.isdecimal() and len(value) == 3 else value
        if isinstance(number, int) and not isinstance(number, bool) and 400 <= number <= 599:
            return number
    return 0


def _kind(status: int, kind_word: str, code: str, message: str) -> FaultKind:
    words = f"{kind_word} {code}".lower()
    if status in (0, 400, 413, 422, 500) and ("context_length" in words or _CONTEXT.search(message)):
        return "context_length"
    if "insufficient_quota" in words or "billing" in words or (status in (0, 402, 429) and _QUOTA.search(message)):
        return "billing"
    if status == 403 and (kind := kind_of_forbidden(code, message)) != "upstream_auth":
        return kind
    if status in (401, 403) or "invalid_api_key" in words or "authentication" in words:
        return "upstream_auth"
    if "model_not_found" in words or "not_found" in words:
        return "not_found"
    if status == 0:
        if "rate_limit" in words or _LIMITED.search(message):
            return "rate_limit"
        if "invalid_request" in words:
            return "bad_request"
        return "overloaded" if "overloaded" in words or _OVERLOADED.search(message) else "upstream"
    if status in (500, 502, 520) and _OVERLOADED.search(f"{words} {message}"):
        return "overloaded"
    return kind_of_status(status)


def _shown(message: str) -> str:
    clean = " ".join(_SECRET.sub("[redacted]", message).split())
    return clean if len(clean) <= _MAX_MESSAGE else clean[: _MAX_MESSAGE - 1] + "…"


def _retry_after(error: dict[str, Any], message: str) -> float | None:
    """Seconds to wait, as the body says: a field, Google's RetryInfo, or the words of the message."""
    metadata = error.get("metadata")
    for holder in (error, metadata if isinstance(metadata, dict) else {}):
        for name in ("retry_after", "retry_after_seconds"):
            value = holder.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
                return float(value)
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(delay, str) and (seconds := _seconds(delay)) is not None:
            return seconds
    found = _RETRY.search(message[:2000])
    return _seconds(found["time"]) if found else None


def _seconds(text: str) -> float | None:
    spans = _SPAN.findall(text)
    return round(sum(float(number) * _UNITS[unit.lower()] for number, unit in spans), 3) if spans else None


# ---- writing


def error_object(fault: Fault) -> dict[str, Any]:
    """What clients of this dialect read in `error`."""
    related = fault.origin in _FAMILY and fault.kind != "upstream_auth"
    code = _CODES.get(fault.kind, "")
    if related and fault.upstream_code and not fault.upstream_code.isdecimal():
        code = code if fault.kind == "context_length" else fault.upstream_code
    if fault.kind == "not_found" and fault.param == "model":
        code = code or "model_not_found"
    return {
        "message": fault.message,
        "type": _TYPES[fault.kind],
        "param": fault.param or None,
        "code": code or None,
    }


def write_error(fault: Fault) -> bytes:
    """The body of an error answer: the shape of OpenAI and the proxy's own `detail` beside it."""
    return encode({"error": error_object(fault), "detail": fault.detail})
