"""`GET /internal/routing`: which attempts a model name would lead to now, in which order, and why others would not (RT-02 to RT-10).

Without a name it shows the rules in force and what each failover route would do. Looking changes nothing: no rotation, no limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.server.router import Outlook
from llm_proxy.sessions.session import Session

if TYPE_CHECKING:
    from llm_proxy.server.clients import Client
    from llm_proxy.server.gateway import Gateway
    from llm_proxy.server.http import Incoming


def page(gateway: Gateway, caller: Client, incoming: Incoming) -> dict[str, Any]:
    """`?model=` asks for a name; `?session=` looks with the choices of that session of the caller. Raises FaultError."""
    session = _session(gateway, caller, incoming.parameter("session"))
    model = incoming.parameter("model")
    if model:
        return {"object": "routing", "model": model, **_shown(gateway, _outlook(gateway, caller, session, model))}
    choices = gateway.router.choices
    return {
        "object": "routing_rules",
        "static_route": choices.static_route or None,
        "force_model": choices.force_model or None,
        "model_aliases": [msgspec.to_builtins(rule) for rule in choices.aliases.rules],
        "default_backend": gateway.backends.default.id,
        "functional_backends": [backend.id for backend in gateway.backends.functional],
        "failover_routes": {
            name: {"policy": route.policy, "elements": route.elements, **_route(gateway, caller, session, name)}
            for name, route in gateway.router.routes.items()
        },
        "hint": "add ?model=NAME, and &session=ID for a session's choices",
    }


def _session(gateway: Gateway, caller: Client, id: str) -> Session:
    """A copy to look with: what looking finds outdated in it must not be changed by that."""
    if not id:
        return caller.stranger()
    found = gateway.sessions.peek(caller.scope, id)
    if found is None:
        raise FaultError(Fault(kind="not_found", message=f"you have no session {id[:100]}", side="client"))
    return msgspec.structs.replace(found, values=dict(found.values))


def _outlook(gateway: Gateway, caller: Client, session: Session, model: str) -> Outlook:
    return gateway.router.outlook(model, session, caller, session.one_off)


def _route(gateway: Gateway, caller: Client, session: Session, name: str) -> dict[str, Any]:
    """What a request for the route by its name would do."""
    shown = _shown(gateway, gateway.router.outlook_of_route(name, session, caller))
    return {part: shown[part] for part in ("attempts", "left_out")}


def _shown(gateway: Gateway, outlook: Outlook) -> dict[str, Any]:
    decision = outlook.decision
    return {
        "rule": decision.rule,
        "alias": decision.alias or None,
        "route": decision.route or None,
        "policy": outlook.policy,
        "attempts": [
            {
                "backend": attempt.backend.id,
                "model": attempt.model,
                "key": attempt.key_name,
                **({"planning_phase": True} if attempt.planned else {}),
                **({"redirected": True} if attempt.redirect is not None else {}),
            }
            for attempt in outlook.attempts
        ],
        "left_out": [msgspec.to_builtins(left) for left in outlook.left_out],
    }
