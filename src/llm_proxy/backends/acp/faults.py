"""What an agent's error answers mean in HTTP's words (BE-18).

Owns that mapping. The Gemini CLI gives the status of the model's provider as code of its JSON-RPC errors where it knows one, 500 otherwise,
and codes of JSON-RPC where its own protocol failed (seen with @google/gemini-cli 0.61.0, 2026-11).
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from llm_proxy.backends.acp.protocol import AUTH_REQUIRED, RpcError
from llm_proxy.conversation.fault import Fault, kind_of_status

_LOGIN: Final = (AUTH_REQUIRED, 401, 403)
# "Please retry in 12.5s.", "retryDelay: 30s", "Retry-After: 7", "Your quota will reset after 18h40m51s."
_WAIT: Final = re.compile(
    r"(?:retry in|retry after|retry-after:?|retryDelay\"?:?|reset after)\s{0,3}\"?(?:(\d{1,4})h)?(?:(\d{1,5})m(?!s))?(?:(\d{1,7}(?:\.\d{1,9})?)s?)?",
    re.IGNORECASE,
)
_QUOTA: Final = re.compile(r"\b(?:quota|rate limit|resource_exhausted|too many requests)\b", re.IGNORECASE)
_KEY: Final = "API key not valid"  # Google answers so with 400
_MOST_SHOWN: Final = 300
_LONGEST_WAIT: Final = 7 * 86400.0


def fault_of(error: RpcError, id: str, name: str) -> Fault:
    """The fault that a client gets for `error`. `id`: the back end's; `name`: the program's."""
    if error.code in _LOGIN or (error.code in (400, 500) and _KEY in error.message):
        return Fault(
            kind="upstream_auth",
            code=f"{id}_credentials_invalid",
            message=f"{name} has no valid login; run `{name}` in the project directory and log in.",
        )
    message = f"{name} failed: {_told(error.message)[:_MOST_SHOWN]}"
    if error.code == 429 or (error.code in (500, -32603) and _QUOTA.search(error.message)):
        return Fault(kind="rate_limit", message=message, retry_after=_wait(error.message))
    if 400 <= error.code < 500:
        return Fault(kind=kind_of_status(error.code), message=message)
    if error.code in (503, 529):
        return Fault(kind="overloaded", message=message, retry_after=_wait(error.message))
    return Fault(kind="upstream", message=message)


def _told(message: str) -> str:
    """The sentence in it, where it is the provider's error body as it came."""
    if not message.startswith("{"):
        return message
    try:
        found: object = msgspec.json.decode(message)
    except (msgspec.DecodeError, RecursionError):
        return message
    error = found.get("error") if isinstance(found, dict) else None
    text = error.get("message") if isinstance(error, dict) else None
    return text if isinstance(text, str) and text.strip() else message


def _wait(message: str) -> float | None:
    """Seconds that the message says to wait; None when it says nothing of it."""
    for found in _WAIT.finditer(message):
        hours, minutes, seconds = found.groups()
        if hours or minutes or seconds:
            told = int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds or 0)
            return min(told, _LONGEST_WAIT)
    return None
