"""Header hygiene in both directions, as pairs of bytes.

What crosses is named by allow lists; what may never cross (credentials, cookies, framing, forwarding and
hop-by-hop headers) stays behind even when a list names it. Whose headers these are is not known here.
"""

import re
from collections.abc import Iterable

Header = tuple[bytes, bytes]

# RFC 9110 section 7.6.1 and the older names that some agents still send.
HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
    )
)
_NEVER_FORWARDED = HOP_BY_HOP | frozenset(
    (
        "accept-encoding",
        "api-key",
        "authorization",
        "content-encoding",
        "content-length",
        "cookie",
        "cookie2",
        "expect",
        "forwarded",
        "host",
        "set-cookie",
        "true-client-ip",
        "via",
        "x-api-key",
        "x-goog-api-client",
        "x-goog-api-key",
        "x-real-ip",
        "x-request-id",
        "x-session-id",
    )
)
_NEVER_FORWARDED_PREFIXES = (
    "proxy-",
    "sec-",
    "x-forwarded-",
    "x-llm-proxy-",
    "x-stainless-",
    "cf-",
    "x-amz-",
)
_RETURNED = frozenset(("retry-after", "retry-after-ms", "x-should-retry", "request-id"))
_RETURNED_PREFIXES = ("x-ratelimit-", "anthropic-ratelimit-")
# Our own answer carries x-request-id, so the provider's goes beside it.
UPSTREAM_REQUEST_ID = b"x-upstream-request-id"

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# No control character but the tab, nothing beyond Latin-1, and no white space around.
_VALUE = re.compile(r"(?:[\x21-\x7e\xa0-\xff](?:[\t\x20-\x7e\xa0-\xff]*[\x21-\x7e\xa0-\xff])?)?")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def is_valid_header_name(name: str) -> bool:
    """Tell whether ``name`` is a token of RFC 9110."""
    return _NAME.fullmatch(name) is not None


def is_valid_header_value(value: str) -> bool:
    """Tell whether ``value`` may stand in a header: no CR, LF, NUL or other control, only Latin-1."""
    return _VALUE.fullmatch(value) is not None


def is_sane_request_id(value: str) -> bool:
    """Tell whether a request id (or session id) is safe to repeat in headers, logs and records."""
    return _REQUEST_ID.fullmatch(value) is not None


def nominated(headers: Iterable[Header]) -> frozenset[str]:
    """List the headers that ``Connection`` names: they are for this hop only."""
    return frozenset(
        name
        for key, value in headers
        if key.lower() == b"connection"
        for part in value.decode("latin-1").split(",")
        if (name := part.strip().lower())
    )


def forwardable_request_headers(headers: Iterable[Header], allow: frozenset[str]) -> list[Header]:
    """Keep the client's headers that ``allow`` names (lower case; ``name-*`` allows all that begin so)."""
    headers = list(headers)
    hop = nominated(headers)
    prefixes = tuple(name[:-1] for name in allow if name.endswith("*"))
    return [
        (name.encode("latin-1"), value)
        for key, value in headers
        if ((name := key.decode("latin-1").lower()) in allow or (prefixes and name.startswith(prefixes)))
        and name not in hop
        and not _is_never_forwarded(name)
        and _is_clean(name, value)
    ]


def returnable_response_headers(headers: Iterable[Header]) -> list[Header]:
    """Keep the provider's headers that a client needs: when to retry, rate limits, its request id."""
    headers = list(headers)
    hop = nominated(headers)
    kept: list[Header] = []
    for key, value in headers:
        name = key.decode("latin-1").lower()
        if name in hop or not _is_clean(name, value):
            continue
        if name in _RETURNED or name.startswith(_RETURNED_PREFIXES):
            kept.append((name.encode("latin-1"), value))
        elif name == "x-request-id":
            kept.append((UPSTREAM_REQUEST_ID, value))
    return kept


def _is_never_forwarded(name: str) -> bool:
    # Some servers take "_" for "-", so both spellings are one name here.
    name = name.replace("_", "-")
    return name in _NEVER_FORWARDED or name.startswith(_NEVER_FORWARDED_PREFIXES)


def _is_clean(name: str, value: bytes) -> bool:
    return is_valid_header_name(name) and is_valid_header_value(value.decode("latin-1"))
