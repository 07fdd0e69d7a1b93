"""What a client is told when no attempt could serve its request: with the models that it may have meant, and when to come back."""

from __future__ import annotations

import asyncio
import difflib

import msgspec

from llm_proxy.conversation.fault import Fault
from llm_proxy.routing.attempt import Trail

_PATIENCE = 1.0  # seconds for a list of models; the client waits for nothing but an error
_MOST_COMPARED = 2000


async def explained(trail: Trail) -> Fault:
    """The failure that says most; an unknown model with the most similar ones of its back end (RT-13)."""
    fault = trail.fault()
    missing = [outcome.attempt for outcome in trail.outcomes if outcome.fault.kind == "not_found"]
    if fault.kind != "not_found" or not missing:
        return fault
    attempt = missing[-1]
    known = attempt.backend.known_models
    if known is None:
        try:
            async with asyncio.timeout(_PATIENCE):
                known = tuple(model.id for model in await attempt.backend.models())
        except TimeoutError:
            return fault
    similar = _similar(attempt.model, known)
    if attempt.model in known or not similar:
        return fault
    message = f"{fault.message[:400].rstrip('. ')}. Similar models of {attempt.backend.id}: {', '.join(similar)}"
    # The provider's own body would hide the hint.
    return msgspec.structs.replace(fault, message=message, raw=b"")


def _similar(model: str, known: tuple[str, ...]) -> list[str]:
    by_name = {id.lower(): id for id in known[:_MOST_COMPARED]}
    return [by_name[name] for name in difflib.get_close_matches(model.lower(), by_name, n=3, cutoff=0.5)]


def limit_headers(fault: Fault) -> list[tuple[str, str]]:
    """The headers of a refusal by one of the proxy's own rate limits (OPS-12)."""
    details = fault.details or {}
    names = ("limit", "remaining", "reset_at")
    if fault.kind != "rate_limit" or fault.side != "proxy" or not all(name in details for name in names):
        return []
    limit, remaining, reset_at = (str(details[name]) for name in names)
    return [
        ("x-ratelimit-limit", limit),
        ("x-ratelimit-remaining", remaining),
        ("x-ratelimit-reset", reset_at),
    ]
