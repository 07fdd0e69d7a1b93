"""Which name counts: what was asked for, what the session chose, what applies to one message only (RT-02, RT-11).

Pure. The result names a back end and a model, or a failover route; making attempts of it is `plan`'s business.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

import msgspec

from llm_proxy.routing.targets import parse

ROUTE_PREFIX = "route:"


class Decision(msgspec.Struct, frozen=True):
    """Where a request goes. `backend` "" stands for the default one, `route` names a failover route instead of both.

    `rule` says in words what decided.
    """

    backend: str
    model: str
    rule: str
    route: str = ""


def decide(
    requested: str, chosen: Mapping[str, Any], one_off: str, known: Container[str], routes: Container[str]
) -> Decision:
    """`chosen` are the session's values; `known` the ids of back ends (lower case)."""
    if one_off:
        target = parse(one_off, known)
        return Decision(target.backend, target.model, "one-off")
    backend = str(chosen.get("backend") or "")
    if backend not in known:
        backend = ""
    model = chosen.get("model")
    name = str(model) if model else requested
    because = "session model" if model else "requested model"
    route = name.removeprefix(ROUTE_PREFIX)
    if route in routes:
        return Decision("", "", f"failover route {route}, named by the {because}", route)
    if not backend:
        target = parse(name, known)
        return Decision(
            target.backend,
            target.model,
            f"{because}, back end named in it" if target.backend else f"{because}, default back end",
        )
    if not model:
        # The session's choice replaces an explicit back end, but never cuts a model id that contains a separator.
        name = parse(name, known, keep_slash=True).model
    return Decision(backend, name, f"{because}, session back end")
