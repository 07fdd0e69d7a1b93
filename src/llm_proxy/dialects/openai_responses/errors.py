"""Errors of the OpenAI family: any body that providers send, read to a `Fault`; a `Fault` written for
clients.

Never raises on a provider's bytes. What it says to clients holds at most 500 characters of upstream text
and no markup.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from llm_proxy.conversation.fault import Fault, FaultKind, kind_of_status
from llm_proxy.dialects.openai_responses.wire import NAME, mapping, text, whole_number
from llm_proxy.dialects.refusals import kind_of_forbidden
from llm_proxy.wire.faults import JsonFault
from llm_proxy.wire.json import decode_object, encode

MAX_UPSTREAM_TEXT: Final = 500
_MAX_RAW: Final = 16 * 1024

# error.code or error.type -> what it means, whatever the status says
_KINDS: Final[dict[str, FaultKind]] = {
    "context_length_exceeded": "context_length",
    "string_above_max_length": "context_length",
    "insufficient_quota": "billing",
    "billing_hard_limit_reached": "billing",
    "billing_not_active": "billing",
    "usage_limit_reached": "rate_limit",
    "usage_not_included": "billing",
    "rate_limit_exceeded": "rate_limit",
    "rate_limit_error": "rate_limit",
    "too_many_requests": "rate_limit",
    "tokens": "rate_limit",
    "requests": "rate_limit",
    "slow_down": "overloaded",
    "server_is_overloaded": "overloaded",
    "overloaded_error": "overloaded",
    "engine_overloaded": "overloaded",
    "model_not_found": "not_found",
    "invalid_api_key": "upstream_auth",
    "authentication_error": "upstream_auth",
    "server_error": "upstream",
    "internal_error": "upstream",
    "internal_server_error": "upstream",
    "invalid_prompt": "bad_request",
    "invalid_request_error": "bad_request",
}
_TOO_LONG: Final = re.compile(
    r"maximum context length|context window|context[_ ]length|prompt is too long|input is too long|"
    r"too many tokens|input token count|exceeds? the (?:model'?s? )?(?:available|maximum) (?:context|input)|"
    r"exceeds the limit of \d+ tokens",
    re.IGNORECASE,
)
_BAD_KEY: Final = re.compile(
    r"(?:incorrect|invalid) api[ -]?key|api key (?:not valid|is invalid|expired)", re.IGNORECASE
)
_OVERLOADED: Final = re.compile(r"overloaded|at capacity|engine is busy", re.IGNORECASE)
_RETRY: Final = re.compile(
    r"(?:try again|retry)(?: after| in)?\s+"
    r"((?:\d+(?:\.\d+)?\s*(?:ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hours?)\s*)+)",
    re.IGNORECASE,
)
_AMOUNT: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|mil|s|m|h)", re.IGNORECASE)
_UNITS: Final = {"ms": 0.001, "mil": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_TAG: Final = re.compile(r"<[^>]*>")
_TITLE: Final = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)


# ---- reading


def fault_of_error(error: dict[str, Any], status: int = 0) -> Fault:
    """The fault that an `error` object tells; `status` is that of the HTTP answer, 0 inside a stream or a
    200.
    """
    code, kind = error.get("code"), text(error.get("type"))
    named = whole_number(code) or whole_number(error.get("status")) or 0
    words = _words(error)
    return _fault(words, status or (named if 400 <= named < 600 else 0), text(code), kind, text(error.get("param")))


def _words(error: dict[str, Any]) -> str:
    for name in ("message", "error", "detail", "msg", "description", "reason"):
        value = error.get(name)
        if isinstance(value, str) and value.strip():
            return value
        if isinstance(value, dict) and (inner := _words(value)):
            return inner
        if isinstance(value, list) and value:
            return "; ".join(filter(None, (_one_detail(entry) for entry in value[:5])))
    return ""


def _one_detail(entry: Any) -> str:
    """One entry of FastAPI's `detail` list."""
    if isinstance(entry, str):
        return entry
    place = ".".join(str(step) for step in mapping(entry).get("loc") or () if isinstance(step, str | int))
    words = text(mapping(entry).get("msg")) or text(mapping(entry).get("message"))
    return f"{place}: {words}" if place and words else words


def _fault(words: str, status: int, code: str, kind_word: str, param: str, raw: bytes = b"") -> Fault:
    kind: FaultKind | None = _KINDS.get(code) or _KINDS.get(kind_word)
    if status:
        of_status = kind_of_status(status)
        if kind is None or kind in ("bad_request", "upstream") or of_status == "upstream_auth":
            kind = of_status
    if status == 403:
        kind = kind_of_forbidden(code, words)
    kind = kind or "upstream"
    if kind in ("bad_request", "upstream", "too_large") and _TOO_LONG.search(words):
        kind = "context_length"
    elif kind in ("bad_request", "upstream") and _BAD_KEY.search(words):
        kind = "upstream_auth"
    elif kind == "upstream" and _OVERLOADED.search(words):
        kind = "overloaded"
    message = words.strip()[:MAX_UPSTREAM_TEXT]
    if kind == "upstream_auth" and status != 400:
        # The provider's words may quote the key that it refused; the client's own key is not at fault. A
        # 400 is
        # told as it is: only 401 and 403 would make clients discard their key of the proxy.
        return Fault(
            kind=kind, message="the provider refused the credentials that the proxy used",
            upstream_type=kind_word, upstream_code=code,
        )  # fmt: skip
    return Fault(
        kind=kind,
        message=message or f"the provider answered with an error{f' (HTTP {status})' if status else ''}",
        status=status,
        param=param,
        retry_after=retry_hint(words) if kind in ("rate_limit", "overloaded", "billing", "upstream") else None,
        upstream_type=kind_word,
        upstream_code=code,
        origin=NAME,
        raw=raw,
    )


def retry_hint(words: str) -> float | None:
    """Seconds of "Please try again in 1m2.5s" and its like."""
    found = _RETRY.search(words)
    if found is None:
        return None
    seconds = 0.0
    for number, unit in _AMOUNT.findall(found[1]):
        word = unit.lower()
        seconds += float(number) * _UNITS["ms" if word == "ms" else "mil" if word == "mil" else word[0]]
    return seconds


def read_error(status: int, body: bytes) -> Fault:
    """The fault of an HTTP error answer, whatever its body is."""
    stripped = body.strip()
    raw = body if len(body) <= _MAX_RAW else b""
    if stripped[:1] == b"[":
        stripped = b'{"error":' + stripped + b"}"
    try:
        data = decode_object(stripped)
    except JsonFault:
        return _fault(_plain_words(stripped, status), status, "", "", "", raw)
    error = data.get("error")
    if isinstance(error, list):
        error = next((entry.get("error", entry) for entry in error if isinstance(entry, dict)), None)
    if not isinstance(error, dict):
        error = data
    if data.get("status") == "failed" and isinstance(mapping(data.get("response")).get("error"), dict):
        error = data["response"]["error"]
    fault = fault_of_error(error, status)
    if not _words(error):
        fault = _fault("", status, text(error.get("code")), text(error.get("type")), text(error.get("param")))
    hidden = fault.kind == "upstream_auth" and fault.status != 400
    return fault if hidden else msgspec.structs.replace(fault, raw=raw)


def _plain_words(body: bytes, status: int) -> str:
    """A body that is no JSON: plain text as it is, of HTML only its title."""
    words = body[:20_000].decode("utf-8", "replace")
    if "<" not in words[:200]:
        return " ".join(words.split())
    title = _TITLE.search(words)
    heading = " ".join(_TAG.sub(" ", title[1]).split()) if title else ""
    return f"the provider answered with a web page{f': {heading}' if heading else ''} (HTTP {status})"


class _Envelope(msgspec.Struct):
    error: Any = None
    status: Any = None
    object: Any = None
    success: Any = None
    output: msgspec.Raw = msgspec.Raw()


_decode_envelope = msgspec.json.Decoder(_Envelope).decode


def error_in_answer(body: bytes) -> Fault | None:
    """The error that a body with status 200 holds; None for an answer."""
    try:
        outline = _decode_envelope(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        if body.lstrip()[:1] == b"{":
            return Fault(kind="upstream", message="the provider's answer is not readable JSON")
        return _inside(read_error(0, body))
    answer = outline.output != msgspec.Raw()
    if isinstance(outline.error, dict) or (isinstance(outline.error, str) and outline.error and not answer):
        return _inside(read_error(0, body))
    if outline.object == "error" or outline.success is False or (not answer and outline.status == "failed"):
        return _inside(read_error(0, body))
    if answer and outline.status in ("failed", "cancelled"):
        return Fault(kind="upstream", message=f"the provider ended the response as {outline.status}")
    return None


def _inside(fault: Fault) -> Fault:
    """An error inside a 200 counts as a bad upstream answer unless it says what it is."""
    if fault.kind == "bad_request" and not fault.status:
        return msgspec.structs.replace(fault, kind="upstream")
    return fault


# ---- writing

_TYPES: Final[dict[FaultKind, str]] = {
    "auth": "invalid_request_error", "permission": "request_forbidden", "rate_limit": "rate_limit_error",
    "billing": "insufficient_quota", "internal": "server_error", "upstream": "server_error",
    "upstream_auth": "server_error", "unavailable": "server_error", "overloaded": "server_error",
    "timeout": "server_error", "closed": "server_error",
}  # fmt: skip
_CODES: Final[dict[FaultKind, str]] = {
    "context_length": "context_length_exceeded",
    "auth": "invalid_api_key",
    "rate_limit": "rate_limit_exceeded",
    "billing": "insufficient_quota",
}
_FAMILY: Final = ("openai-responses", "openai-chat")
# In streams every failure needs a code; agents treat some of them specially.
_STREAM_CODES: Final[dict[FaultKind, str]] = {
    **_CODES, "bad_request": "invalid_prompt", "validation": "invalid_prompt", "too_large": "invalid_prompt",
    "not_found": "invalid_prompt", "auth": "server_error", "permission": "invalid_prompt",
}  # fmt: skip


def write_error(fault: Fault) -> bytes:
    """`{"error": {message, type, param, code}, "detail": {code, message, details}}`."""
    kind = _TYPES.get(fault.kind, "invalid_request_error")
    code = _CODES.get(fault.kind, "")
    if fault.kind == "upstream_auth" and fault.status == 400:
        kind = "invalid_request_error"
    elif fault.origin in _FAMILY and fault.kind != "upstream_auth":
        kind = fault.upstream_type or kind
        code = fault.upstream_code or code
    error = {
        "message": wording(fault), "type": kind, "param": fault.param or None,
        "code": code or fault.code or None,
    }  # fmt: skip
    return encode({"error": error, "detail": fault.detail})


def wording(fault: Fault) -> str:
    """The message; an overflow of the context is said in the words that agents look for."""
    if fault.kind == "context_length" and not _TOO_LONG.search(fault.message):
        return f"Your input exceeds the context window of this model. {fault.message}".strip()
    return fault.message


def stream_error(fault: Fault) -> dict[str, Any]:
    """The `error` of a failed response. A wait is told in the words that agents parse."""
    code = _STREAM_CODES.get(fault.kind, "server_error")
    if fault.origin in _FAMILY and fault.upstream_code and fault.kind != "upstream_auth":
        code = fault.upstream_code
    message = wording(fault)
    if fault.kind == "rate_limit" and fault.retry_after and retry_hint(message) is None:
        message = f"{message} Please try again in {max(1, round(fault.retry_after))}s.".strip()
    return {"code": code, "message": message}
