"""What can go wrong, as data: one `Fault` describes a failure for every client protocol.

kind                 status  meaning
bad_request          400     the body is not what the protocol allows (also: a loss that cannot be emulated)
validation           422     well-formed, but an impossible combination
context_length       400     the input does not fit the model
auth                 401     the client's key is missing or wrong
upstream_auth        502     the provider refused the proxy's own key
billing              402     no credit at the provider
permission           403     not allowed
not_found            404     unknown path, id or model
method               405     wrong method
too_large            413     body over the limit
unsupported_media    415     wrong content type
upgrade              426     WebSocket asked for
host                 421     Host not allowed
rate_limit           429     limit reached (retry_after in seconds if known)
internal             500     the proxy's own fault
upstream             502     the provider answered nonsense, or failed without saying how
unavailable          503     the provider cannot be reached or is not usable
overloaded           503     the provider says that it is overloaded (529 keeps its number)
timeout              504     the provider was silent for too long
loop                 508     the request came back to this proxy
closed               502     the provider's stream ended before its end
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

FaultKind = Literal[
    "bad_request", "validation", "context_length", "auth", "upstream_auth", "billing", "permission", "not_found",
    "method", "too_large", "unsupported_media", "upgrade", "host", "rate_limit", "internal", "upstream",
    "unavailable", "overloaded", "timeout", "loop", "closed",
]  # fmt: skip

STATUS: dict[FaultKind, int] = {
    "bad_request": 400, "validation": 422, "context_length": 400, "auth": 401, "upstream_auth": 502, "billing": 402,
    "permission": 403, "not_found": 404, "method": 405, "too_large": 413, "unsupported_media": 415, "upgrade": 426,
    "host": 421, "rate_limit": 429, "internal": 500, "upstream": 502, "unavailable": 503, "overloaded": 503,
    "timeout": 504, "loop": 508, "closed": 502,
}  # fmt: skip

CODE: dict[FaultKind, str] = {
    "bad_request": "invalid_request", "validation": "validation_error", "context_length": "input_limit_exceeded",
    "auth": "unauthorized", "upstream_auth": "upstream_credentials_invalid", "billing": "upstream_error",
    "permission": "forbidden", "not_found": "not_found", "method": "method_not_allowed",
    "too_large": "request_too_large", "unsupported_media": "unsupported_media_type", "upgrade": "upgrade_required",
    "host": "host_not_allowed", "rate_limit": "rate_limited", "internal": "internal_error",
    "upstream": "upstream_error", "unavailable": "backend_unavailable", "overloaded": "backend_unavailable",
    "timeout": "upstream_timeout", "loop": "loop_guard", "closed": "upstream_error",
}  # fmt: skip


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One failure. `message` is safe to show: no secrets, no addresses, no traceback, at most 500 characters of upstream text.

    `status` 0 = the usual one of the kind (`status_code` resolves it); an upstream 4xx/5xx keeps its own. `code` is `detail.code`
    of FE-11 ("" = the usual one of the kind). `param` names the request field (`messages[3].content`).
    `upstream_type`/`upstream_code`: the provider's own words,
    used by writers of the same family. `retry_after` in seconds. `raw` is the provider's own error body when dialect `origin` wrote it.
    """

    kind: FaultKind
    message: str
    status: int = 0
    code: str = ""
    param: str = ""
    side: Literal["client", "proxy", "upstream"] = "upstream"
    retry_after: float | None = None
    upstream_type: str = ""
    upstream_code: str = ""
    details: dict[str, Any] | None = None
    origin: str = ""
    raw: bytes = b""

    @property
    def status_code(self) -> int:
        return self.status or STATUS[self.kind]

    @property
    def detail(self) -> dict[str, Any]:
        """The `detail` object that every error body carries beside its protocol's own shape (FE-11)."""
        return {"code": self.code or CODE[self.kind], "message": self.message, "details": self.details or {}}


class FaultError(Exception):
    """Carries a `Fault` to the edge, where it becomes the client's error answer."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def bad_request(message: str, param: str = "", code: str = "") -> FaultError:
    """A request that the client must change. `param` is a path such as `messages[3].content`."""
    return FaultError(Fault(kind="bad_request", message=message, param=param, code=code, side="client"))


def kind_of_status(status: int) -> FaultKind:
    """The kind that an upstream HTTP status means when its body says nothing better."""
    match status:
        case 401 | 403:
            return "upstream_auth"
        case 402:
            return "billing"
        case 404:
            return "not_found"
        case 408 | 504:
            return "timeout"
        case 413:
            return "too_large"
        case 422 | 400:
            return "bad_request"
        case 429:
            return "rate_limit"
        case 503 | 529:
            return "overloaded"
        case _ if 400 <= status < 500:
            return "bad_request"
        case _:
            return "upstream"
