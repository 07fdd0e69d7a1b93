"""What a client is told when no attempt could serve its request: with the models that it may have meant, and when to come back."""

from __future__ import annotations

import asyncio
import difflib
import heapq
import itertools

import msgspec

from llm_proxy.conversation.fault import Fault
from llm_proxy.routing.attempt import Trail

_PATIENCE = 1.0  # seconds for a list of models; the client waits for nothing but an error
_MOST_COMPARED = 2000
_AT_ONCE = 50  # names that are looked at before others have their turn: a fifth of a millisecond
_SHORTLIST = 8  # names that are compared letter by letter, which is dear


async def explained(trail: Trail) -> Fault:
    """The failure that says most; an unknown model with the most similar ones of its back end (RT-13)."""
    fault = trail.fault()
    missing = [outcome.attempt for outcome in trail.outcomes if outcome.fault.kind == "not_found"]
    if fault.kind != "not_found" or not missing:
        return fault
    attempt = missing[-1]
    if attempt.redirect is not None:
        return fault  # the operator's list says nothing of a session's own server
    known = attempt.backend.known_models
    if known is None:
        try:
            async with asyncio.timeout(_PATIENCE):
                known = tuple(model.id for model in await attempt.backend.models())
        except TimeoutError:
            return fault
    similar = await _similar(attempt.model, known)
    if attempt.model in known or not similar:
        return fault
    message = f"{fault.message[:400].rstrip('. ')}. Similar models of {attempt.backend.id}: {', '.join(similar)}"
    # The provider's own body would hide the hint.
    return msgspec.structs.replace(fault, message=message, raw=b"")


async def _similar(model: str, known: tuple[str, ...]) -> list[str]:
    """Up to three ids, the most similar first. Lists of some providers hold hundreds: others have their turn while one is looked through."""
    name = model.lower()
    wanted = _pairs(name)
    found: list[tuple[float, str]] = []
    for start in range(0, min(len(known), _MOST_COMPARED), _AT_ONCE):
        some = known[start : start + _AT_ONCE]
        found += heapq.nlargest(_SHORTLIST, ((_shared(wanted, id.lower()), id) for id in some))
        await asyncio.sleep(0)
    by_name = {id.lower(): id for _, id in heapq.nlargest(_SHORTLIST, found)}
    return [by_name[near] for near in difflib.get_close_matches(name, by_name, n=3, cutoff=0.5)]


def _pairs(name: str) -> set[tuple[str, str]]:
    """The pairs of neighbouring characters."""
    return set(itertools.pairwise(name))


def _shared(wanted: set[tuple[str, str]], name: str) -> float:
    """How many pairs two names share, of all that they have; 1.0 for names of the same pairs."""
    pairs = _pairs(name)
    return 2 * len(wanted & pairs) / max(1, len(wanted) + len(pairs))


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
