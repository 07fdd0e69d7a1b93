"""The call that renews a login: a refresh token in, new tokens out (RFC 6749 section 6).

Owns what the answers mean: a login that is over, or a service that is not there now. Knows no vendor, no file and no back end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from llm_proxy.backends.logins.renewal import Revoked, Unreachable
from llm_proxy.backends.transport import Transport, endpoint
from llm_proxy.wire.faults import JsonFault
from llm_proxy.wire.json import decode_object, encode

_LARGEST: Final = 256 * 1024
_SILENCE: Final = 30.0  # seconds

# `invalid_grant` by RFC 6749 section 5.2; the others as auth.openai.com says it
# (https://github.com/decolua/9router/pull/1821, June 2026).
_OVER: Final = frozenset(
    {
        "invalid_grant", "invalid_client", "unauthorized_client", "token_expired", "refresh_token_expired",
        "refresh_token_invalidated", "refresh_token_reused",
    }
)  # fmt: skip


async def renew(
    transport: Transport,
    url: str,
    fields: Mapping[str, str],
    *,
    form: bool = False,
    user_agent: str = "",
    over: frozenset[int] = frozenset({401}),
) -> dict[str, Any]:
    """The answer to `fields`, sent as JSON or as a form; it holds an `access_token`. `over`: statuses that end a login whatever their body.

    Raises Revoked when the login is over; Unreachable, or FaultError of the connection, for what may pass. None of them tells a word
    of the answer, which may hold tokens.
    """
    body = urlencode(fields).encode() if form else encode(dict(fields))
    headers = {
        "content-type": "application/x-www-form-urlencoded" if form else "application/json",
        "accept": "application/json",
    }
    if user_agent:
        headers["user-agent"] = user_agent
    response = await transport.post(endpoint(url), headers, body, silence_timeout=_SILENCE, label="The login service")
    try:
        answer = _object(await response.read(_LARGEST))
    finally:
        response.close()
    if not 200 <= response.status < 300:
        code = _code(answer)
        if code or response.status in over:
            raise Revoked(f"the login service has ended this login ({code or response.status})")
        raise Unreachable(f"it answered with status {response.status}")
    if not isinstance(answer.get("access_token"), str) or not answer["access_token"]:
        raise Unreachable("it answered without an access token")
    return answer


def _object(body: bytes) -> dict[str, Any]:
    try:
        return decode_object(body)
    except JsonFault:
        return {}


def _code(answer: Mapping[str, Any]) -> str:
    """The error's code, in the standard's shape or in OpenAI's; "" for words that are not known here."""
    error = answer.get("error")
    found = error.get("code") if isinstance(error, dict) else error
    return found if isinstance(found, str) and found in _OVER else ""
