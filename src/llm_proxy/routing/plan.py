"""From targets to the ordered calls of one request, and what was left out and why (RT-07 to RT-10, RT-13).

Pure but for the rotation of the keyring. Knows the Backend protocol; makes no call and reads no request.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any, Literal

import msgspec

from llm_proxy.backends.base import Backend, Redirect
from llm_proxy.config.kinds import NamedKey
from llm_proxy.conversation.fault import Fault, FaultError, bad_request
from llm_proxy.routing.keyring import NO_KEY, NO_THREAD, Keyring, Rest, Thread, name_of

MOST_ATTEMPTS = 32

RoutePolicy = Literal["k", "m", "km", "mk"]


class Attempt(msgspec.Struct, frozen=True):
    """One call that may be made: `model` as the provider calls it; `key` None for back ends without keys.

    `redirect`: it goes to a server of the session's own, which says nothing about the operator's keys. `planned`: it is for the
    strong model of the planning phase.
    """

    backend: Backend
    model: str
    key: NamedKey | None
    redirect: Redirect | None = None
    planned: bool = False

    @property
    def key_name(self) -> str:
        """The stored key that goes along: none to a server of the session's own, unless the operator trusts it."""
        return NO_KEY if self.redirect is not None and not self.redirect.keep_key else name_of(self.key)


class Element(msgspec.Struct, frozen=True):
    """One target of a route, its back end already looked up. `redirect`: as in `Attempt`."""

    backend: Backend
    model: str
    redirect: Redirect | None = None

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """One for each key. A redirected call is made once: the operator's keys make no difference to another server."""
        keys = self.backend.keys if self.redirect is None else (self.backend.keys or (None,))[:1]
        return tuple(Attempt(self.backend, self.model, key, self.redirect) for key in keys)

    @property
    def usable(self) -> bool:
        if self.redirect is not None:
            return self.backend.settings.enabled
        return self.backend.usable and bool(self.backend.keys)


class Skipped(msgspec.Struct, frozen=True):
    """A call that is not made: the key is at rest for `seconds`, or the back end is unusable (`reason` says
    why).
    """

    backend: str
    model: str
    key: str
    state: Rest | Literal["unusable", "surplus"]
    seconds: float = 0.0
    reason: str = ""
    status: int = 0


class Plan(msgspec.Struct, frozen=True):
    """`attempts` in the order in which they are made, `skipped` in that in which they would have been.

    `cooling` are the skipped ones that need only time.
    """

    attempts: tuple[Attempt, ...]
    skipped: tuple[Skipped, ...] = ()
    cooling: tuple[Attempt, ...] = ()

    def followed_by(self, other: Plan) -> Plan:
        """This plan and then `other`, which leaves out what is attempted already."""
        made = {(one.backend.id, one.model, one.key_name) for one in (*self.attempts, *self.cooling)}
        further = [one for one in other.attempts if (one.backend.id, one.model, one.key_name) not in made]
        cooling = [one for one in other.cooling if (one.backend.id, one.model, one.key_name) not in made]
        attempts = (*self.attempts, *further)[:MOST_ATTEMPTS]
        return Plan(attempts, (*self.skipped, *other.skipped), (*self.cooling, *cooling))

    @property
    def shortest_rest(self) -> float | None:
        """Seconds until the first cooling key may be used again; None when none is cooling."""
        waits = [skip.seconds for skip in self.skipped if skip.state == "cooling"]
        return min(waits, default=None)

    def details(self) -> list[dict[str, object]]:
        """What was left out, for `detail.details.attempts`."""
        return [
            {
                "backend": skip.backend,
                "model": skip.model,
                "key": skip.key,
                "status": skip.status,
                "skipped": skip.state,
            }
            for skip in self.skipped
        ]

    def fault(self) -> Fault:
        """What to tell the client when nothing is left to attempt."""
        details: dict[str, Any] = {"attempts": self.details()}
        wait = self.shortest_rest
        if wait is not None:
            return Fault(
                kind="rate_limit",
                message="Every key for this model is cooling down after the provider's limit; "
                f"the first may be used again in {math.ceil(wait)} s.",
                side="upstream",
                retry_after=wait,
                details=details,
            )
        for skip in self.skipped:
            if skip.state == "disabled":
                return credentials_fault(skip.backend, skip.key, details)
        reason = self.skipped[0].reason if self.skipped else "The route has no elements."
        return Fault(kind="unavailable", message=reason, side="proxy", details=details)


def credentials_fault(backend: str, key: str, details: dict[str, Any], redirect: Redirect | None = None) -> Fault:
    """The provider refuses the proxy's own key: the client must not throw away its proxy key for that
    (FE-11). To a server of the session's own (`redirect`) no stored key was sent: its key is the client's to give (RT-12).
    """
    message = (
        f"The provider refused the credentials of back end {backend} (key {key}); "
        "correct them at the proxy, the client's own key is right."
    )
    if redirect is not None and not redirect.keep_key:
        wrong = "wants a key" if redirect.credential is None else "refused the key that came along"
        message = (
            f"The session's own server (openai-url) {wrong}: give it in the request header x-llm-proxy-upstream-key."
        )
    return Fault(
        kind="upstream_auth",
        message=message,
        status=502,
        code=f"{backend}_credentials_invalid",
        side="upstream",
        details=details,
    )


def require_usable(backend: Backend) -> None:
    """Raise RT-13's error (503) for a back end that cannot be called."""
    if not backend.usable:
        raise FaultError(
            Fault(
                kind="unavailable",
                message=f"Back end {backend.id} is not usable: {backend.reason}",
                side="proxy",
            )
        )


def plan_target(
    backend: Backend,
    model: str,
    keyring: Keyring,
    *,
    thread: Thread = NO_THREAD,
    redirect: Redirect | None = None,
    looking: bool = False,
) -> Plan:
    """The attempts for one target without a route: each key once, beginning where the rotation stands. A redirected call is made
    once, and needs no key of the operator's. `looking`: nobody is going to make them, so the rotation does not advance.

    An empty `model` stands for the back end's default. Raises FaultError 503 (unusable) or 400 (no model).
    """
    if redirect is None or not backend.settings.enabled:
        require_usable(backend)
    model = model_of(backend, model)
    if not model:
        raise bad_request(
            f"The request names no model, and back end {backend.id} has no default_model.",
            "model",
            "invalid_request",
        )
    keys = backend.keys
    if redirect is not None:
        return Plan((Attempt(backend, model, keys[0] if keys else None, redirect),))
    named = [key for key in keys if key is not None]
    if len(named) > 1:
        policy = backend.settings.policy
        keys = tuple(keyring.rotate(backend.id, named, policy, model=model, thread=thread, looking=looking))
    return _keep_ready((Attempt(backend, model, key) for key in keys), keyring)


def model_of(backend: Backend, model: str) -> str:
    """What is really asked of `backend`: the model that the operator pinned for it, else `model`, else its default."""
    return backend.settings.static_route or model or backend.settings.default_model or ""


def plan_route(elements: Sequence[Element], policy: RoutePolicy, keyring: Keyring) -> Plan:
    """The attempts for the elements of a route, keys in configured order (the table of RT-08).

    Elements whose back end is not usable or holds no key are left out, whatever the policy; so are those without a model.
    """
    unusable: list[Skipped] = []
    usable: list[Element] = []
    for element in elements:
        backend, model = element.backend, model_of(element.backend, element.model)
        if not element.usable:
            reason = f"Back end {backend.id} is not usable: {backend.reason}"
        elif not model:
            reason = f"The element names no model, and back end {backend.id} has no default_model."
        else:
            usable.append(msgspec.structs.replace(element, model=model))
            continue
        unusable.append(Skipped(backend.id, model, "", "unusable", reason=reason))
    plan = _keep_ready(_arrange(usable, policy), keyring)
    return Plan(plan.attempts, (*unusable, *plan.skipped), plan.cooling)


def _arrange(elements: Sequence[Element], policy: RoutePolicy) -> Iterator[Attempt]:
    match policy:
        case "k":
            yield from _all_keys(elements[:1])
        case "m":
            for element in elements:
                yield element.attempts[0]
        case "km":
            yield from _all_keys(elements)
        case "mk":
            for row in zip_longest(*(element.attempts for element in elements)):
                yield from (attempt for attempt in row if attempt is not None)


def _all_keys(elements: Sequence[Element]) -> Iterator[Attempt]:
    for element in elements:
        yield from element.attempts


def _keep_ready(attempts: Iterator[Attempt], keyring: Keyring) -> Plan:
    ready: list[Attempt] = []
    skipped: list[Skipped] = []
    cooling: list[Attempt] = []
    for attempt in attempts:
        # What the operator's keys have come to says nothing about a server of the session's own.
        rest = None if attempt.redirect else keyring.rest(attempt.backend.id, attempt.model, attempt.key)
        if rest is not None:
            skipped.append(Skipped(rest.backend, attempt.model, rest.key, rest.state, rest.seconds, status=rest.status))
            if rest.state == "cooling" and len(cooling) < MOST_ATTEMPTS:
                cooling.append(attempt)
        elif len(ready) < MOST_ATTEMPTS:
            ready.append(attempt)
        else:
            skipped.append(Skipped(attempt.backend.id, attempt.model, attempt.key_name, "surplus"))
    return Plan(tuple(ready), tuple(skipped), tuple(cooling))
