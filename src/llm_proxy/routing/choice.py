"""Which name counts: what the operator has pinned, what the session chose, what applies to one message only, what was asked for
(RT-02 to RT-06, RT-11).

Pure. The result names a back end and a model, or a failover route; making attempts of it is `plan`'s business.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, Final, Literal

import msgspec

from llm_proxy.routing.aliases import Aliases
from llm_proxy.routing.targets import parse

ROUTE_PREFIX: Final = "route:"
_ROUTE_ID: Final = ROUTE_PREFIX.removesuffix(":")
_NO_ALIASES: Final = Aliases()
_NAMED: Final = "back end named in it"


class Choices(msgspec.Struct, frozen=True):
    """What decides beside the session and the request: what the operator pinned ("" = nothing), the rules for names, what exists.

    `known` are ids of back ends (lower case), `routes` names of failover routes, `default` the id of the default back end.
    """

    static_route: str = ""
    force_model: str = ""
    aliases: Aliases = _NO_ALIASES
    known: Container[str] = frozenset()
    routes: Container[str] = frozenset()
    default: str = ""


class Decision(msgspec.Struct, frozen=True):
    """Where a request goes. `backend` "" stands for the default one, `route` names a failover route instead of both; it need not exist
    where the name was written as `route:<name>`.

    `rule` says in words what decided. `alias` is the pattern of the rule that changed the name, or "". `planned`: it goes to the
    strong model only because the planning phase lasts.
    """

    backend: str
    model: str
    rule: str
    route: str = ""
    alias: str = ""
    planned: bool = False


class _Name(msgspec.Struct, frozen=True):
    """A name on its way to a decision.

    `kind` tells how it is read: `target` is meant as back end and model; `session` is a model of the session's back end; `requested`
    comes from the client as it is; `made` was written by the operator, as a forced model or by an alias.
    """

    text: str
    because: str
    kind: Literal["target", "made", "session", "requested"]
    alias: str = ""


class _Found(msgspec.Struct, frozen=True):
    """What a name stands for; `whence` says in words where the back end comes from."""

    backend: str
    model: str
    whence: str
    route: str = ""


def decide(
    choices: Choices, requested: str, chosen: Mapping[str, Any], one_off: str = "", planned: str = ""
) -> Decision:
    """Where a request for `requested` goes (RT-02). `chosen` are the session's values, `planned` the strong model while the planning
    phase of the session lasts.

    For the back end and for the model separately, the first counts that names one: the static route; the forced model; the one-off;
    the session's choice; the strong model; the requested model. Only the back end that the *client* names gives way to the session's:
    one that an alias, the strong model or a lock names was written by the operator as a target and stays. Where a session back end is
    set, `vendor/model` is the name of a model there (RT-01), be it requested, forced or made by an alias.
    """
    backend = _session_backend(choices, chosen)
    name = _named(choices, requested, chosen, one_off)
    if choices.static_route:
        return _locked(choices, _Name(choices.static_route, "static route", "target"), name, backend)
    if choices.force_model:
        return _locked(choices, _Name(choices.force_model, "forced model", "made"), name, backend)
    found = _find(choices, name, backend)
    if planned and not one_off and not chosen.get("model"):
        strong = _find(choices, _Name(planned, "planning phase", "target"), backend)
        if _target(choices, found) != _target(choices, strong):
            return Decision(strong.backend, strong.model, "planning phase", strong.route, planned=True)
    return _decision(name, found)


def refusal(choices: Choices, what: Literal["model", "backend", "one-off"]) -> str:
    """Why what the operator has pinned forbids to choose `what` in chat (RT-04, RT-05); "" when it does not."""
    if choices.static_route:
        return f"the operator's static route sends every request to {choices.static_route} (static_route)"
    if choices.force_model and what != "backend":
        return f"the operator has set the model to {choices.force_model} for every request (force_model)"
    return ""


def _session_backend(choices: Choices, chosen: Mapping[str, Any]) -> str:
    backend = str(chosen.get("backend") or "").lower()
    return backend if backend in choices.known else ""


def _named(choices: Choices, requested: str, chosen: Mapping[str, Any], one_off: str) -> _Name:
    """The name from the first of one-off, session and request; aliases apply to the last two."""
    if one_off:
        return _Name(one_off, "one-off", "target")
    model = chosen.get("model")
    name = _Name(str(model), "session model", "session") if model else _Name(requested, "requested model", "requested")
    text, rule = choices.aliases.apply(name.text)
    if rule is None:
        return name
    because = f"{name.because}, alias {rule.pattern}"
    # A rule that leaves the name as it was has named no target.
    return _Name(text, because, name.kind if text == name.text else "made", rule.pattern)


def _find(choices: Choices, name: _Name, backend: str) -> _Found:
    """What `name` stands for beside the session's `backend` ("" = none)."""
    route = name.text.removeprefix(ROUTE_PREFIX)
    # The prefix means a route, also where a mistake or a deletion left none of that name: no provider has such a model.
    if route in choices.routes or (route != name.text and _ROUTE_ID not in choices.known):
        return _Found("", "", "", route)
    if backend and name.kind == "session":
        # The model of a session with a back end is one of that back end, whatever separators it holds.
        return _Found(backend, name.text, "session back end")
    target = parse(name.text, choices.known, keep_slash=bool(backend) and name.kind != "target")
    if target.backend and not (backend and name.kind == "requested"):
        return _Found(target.backend, target.model, _NAMED)
    return _Found(backend, target.model, "session back end" if backend else "default back end")


def _decision(name: _Name, found: _Found) -> Decision:
    if found.route:
        rule = f"failover route {found.route}, named by the {name.because}"
        return Decision("", "", rule, found.route, name.alias)
    plain = name.kind == "target" and found.whence == _NAMED
    rule = name.because if plain else f"{name.because}, {found.whence}"
    return Decision(found.backend, found.model, rule, alias=name.alias)


def _locked(choices: Choices, lock: _Name, name: _Name, backend: str) -> Decision:
    """The decision under a lock. One that names a model only leaves the back end to what decides without it."""
    found = _find(choices, lock, backend)
    if found.route:
        return Decision("", "", f"failover route {found.route}, named by the {lock.because}", found.route)
    if found.whence == _NAMED:
        return Decision(found.backend, found.model, lock.because)
    usual = _find(choices, name, backend)
    if usual.whence == _NAMED:
        rule = f"{lock.because}, back end of the {name.because}"
        return Decision(usual.backend, lock.text, rule, alias=name.alias)
    # What the name says otherwise, a failover route too, names no single back end.
    return Decision(found.backend, lock.text, f"{lock.because}, {found.whence}")


def _target(choices: Choices, found: _Found) -> tuple[str, str, str]:
    return found.backend or choices.default, found.model, found.route
