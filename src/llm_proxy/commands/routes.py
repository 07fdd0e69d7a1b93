"""Failover routes edited from the chat (CMD-16). Every change is for all and replaces the route as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from llm_proxy.commands.command import Command, Run, items_of, no_value, shorten, wrong
from llm_proxy.commands.desk import POLICIES, CommandError, Desk, Policy, RouteFacts
from llm_proxy.commands.grammar import Arguments
from llm_proxy.commands.places import check_model, find_backend, functional, split
from llm_proxy.commands.values import show
from llm_proxy.config.chat_keys import canonical
from llm_proxy.config.document import nearest

_GROUP: Final = "Failover routes"
_CREATE: Final = ("create-failover-route(name=n, policy=k|m|km|mk)", "create-failover-route(n, p)")
_DEFAULT_POLICY: Final[Policy] = "m"


class Written(msgspec.Struct):
    """The arguments of a route command. `by_name`: the route was given as `name=…`."""

    name: str = ""
    by_name: bool = False
    policy: str = ""
    rest: list[str] = []


def _read(desk: Desk, arguments: Arguments | None, *forms: str) -> Written:
    """Sorts the arguments by key, in written order. The first positional one is the route's name unless it has `name=`."""
    written = Written()
    items = [item for item in items_of(arguments) if item.key or item.value]
    written.by_name = any(canonical(item.key) == "name" for item in items)
    for item in items:
        match canonical(item.key):
            case "name" if not written.name:
                written.name = item.value
            case "" if not written.name and not written.by_name:
                written.name = item.value
            case "" | "element":
                written.rest.append(item.value)
            case "policy" if not written.policy:
                written.policy = item.value
            case "name" | "policy" as twice:
                raise wrong(desk, f"{twice} is given twice or without a value", *forms)
            case _:
                raise wrong(desk, f"{shorten(item.key)} is not known here", *forms)
    return written


def _check_name(desk: Desk, name: str, *forms: str) -> None:
    if not name:
        raise wrong(desk, "Which route?", *forms)
    bad = any(character.isspace() or not character.isprintable() or character in ",()[]{}" for character in name)
    if bad or len(name) > 64:
        raise wrong(desk, "A route's name has 1 to 64 characters without blanks, commas and brackets", *forms)


def _only_name(desk: Desk, arguments: Arguments | None, *forms: str) -> str:
    written = _read(desk, arguments, *forms)
    if written.rest or written.policy:
        raise wrong(desk, "Only the name of a route is expected", *forms)
    _check_name(desk, written.name, *forms)
    return written.name


def _existing(desk: Desk, name: str) -> RouteFacts:
    route = desk.routes.get(name)
    if route is not None:
        return route
    close = nearest(name, desk.routes) or next(iter(sorted(desk.routes)), "")
    hint = f"the nearest is {close}" if close else "there are no routes yet"
    raise CommandError(
        f"unknown route {shorten(name)}; {hint}. Create it: {desk.prefix}create-failover-route({show(name)}, m)"
    )


def _check_right(desk: Desk) -> None:
    if refusal := desk.refusal_for_all():
        raise CommandError(refusal)


def _elements(desk: Desk, texts: Iterable[str], form: str) -> tuple[str, ...]:
    """Elements as they are stored. All are checked before any counts."""
    found: list[str] = []
    bad: list[str] = []
    for text in texts:
        backend, model = split(desk, text)
        facts = find_backend(desk, backend) if backend else None
        try:
            check_model(model)
        except CommandError:
            facts = None
        if facts is None:
            bad.append(shorten(text) or "an empty one")
        else:
            found.append(f"{facts.id}:{model}")
    if bad:
        raise wrong(
            desk, f"No known back-end and model: {', '.join(bad)}; nothing was changed; {functional(desk)}", form
        )
    if not found:
        raise wrong(desk, "Which elements?", form)
    return tuple(found)


def _shown(name: str, route: RouteFacts) -> str:
    return f"{name} (policy {route.policy}): {', '.join(route.elements) or 'empty'}"


def _skipped(desk: Desk, route: RouteFacts) -> str:
    """A note about elements that cannot be used now."""
    ids = dict.fromkeys(element.partition(":")[0] for element in route.elements)
    idle = [id for id in ids if not ((facts := find_backend(desk, id)) and facts.functional)]
    return f" Skipped while not functional: {', '.join(idle)}." if idle else ""


def create(desk: Desk, arguments: Arguments | None) -> str:
    written = _read(desk, arguments, *_CREATE)
    _check_name(desk, written.name, *_CREATE)
    texts = [*([written.policy] if written.policy else []), *written.rest]
    word = texts[0].strip().lower() if len(texts) == 1 else ""
    wanted = _DEFAULT_POLICY if word == "ordered" else word
    policy = next((policy for policy in POLICIES if policy == wanted), None)
    if policy is None:
        raise wrong(desk, f"Expected one policy of {', '.join(POLICIES)} (ordered = m)", *_CREATE)
    _check_right(desk)
    before = desk.routes.get(written.name)
    route = RouteFacts(policy, before.elements if before else ())
    desk.save_route(written.name, route)
    undo = f"{desk.prefix}delete-failover-route({show(written.name)})"
    if before is None:
        return f"Created route {_shown(written.name, route)}. Undo: {undo}."
    undo = f"{desk.prefix}create-failover-route({show(written.name)}, {before.policy})"
    changed = "stays" if policy == before.policy else f"changed from {before.policy} to"
    return (
        f"The route existed: policy {changed} {policy}, elements kept. Now {_shown(written.name, route)}. Undo: {undo}."
    )


def delete(desk: Desk, arguments: Arguments | None) -> str:
    name = _only_name(desk, arguments, "delete-failover-route(name=n)", "delete-failover-route(n)")
    _check_right(desk)
    route = _existing(desk, name)
    desk.save_route(name, None)
    undo = f"{desk.prefix}create-failover-route({show(name)}, {route.policy})"
    if route.elements:
        undo += f" {desk.prefix}route-append({show(name)}, {', '.join(route.elements)})"
    return f"Deleted route {_shown(name, route)}. Undo: {undo}"


def list_routes(desk: Desk, arguments: Arguments | None) -> str:
    no_value(desk, arguments, "list-failover-routes")
    if not desk.routes:
        return f"There are no failover routes: none. Create one: {desk.prefix}{_CREATE[1]}."
    return ", ".join(f"{name}:{route.policy}" for name, route in sorted(desk.routes.items()))


def list_elements(desk: Desk, arguments: Arguments | None) -> str:
    if not any(item.key or item.value for item in items_of(arguments)):
        if not desk.routes:
            return list_routes(desk, None)
        return "\n".join(_shown(name, route) for name, route in sorted(desk.routes.items()))
    name = _only_name(desk, arguments, "route-list(name=n)", "route-list(n)", "route-list")
    return _shown(name, _existing(desk, name))


def clear(desk: Desk, arguments: Arguments | None) -> str:
    name = _only_name(desk, arguments, "route-clear(name=n)", "route-clear(n)")
    _check_right(desk)
    before = _existing(desk, name)
    route = RouteFacts(before.policy)
    desk.save_route(name, route)
    undo = f" Undo: {desk.prefix}route-append({show(name)}, {', '.join(before.elements)})" if before.elements else ""
    return f"Now {_shown(name, route)}.{undo}"


def _add(where: Literal["append", "prepend"]) -> Run:
    forms = (f"route-{where}(name=n, backend:model, …)", f"route-{where}(n, backend:model, …)")

    def run(desk: Desk, arguments: Arguments | None) -> str:
        written = _read(desk, arguments, *forms)
        _check_name(desk, written.name, *forms)
        if written.policy:
            raise wrong(desk, "The policy belongs to create-failover-route", *forms)
        _check_right(desk)
        before = desk.routes.get(written.name)
        created = before is None and not written.by_name
        if before is None:
            before = _first(desk, written.name) if created else _existing(desk, written.name)
        new = _elements(desk, written.rest, forms[0])
        joined = before.elements + new if where == "append" else new + before.elements
        route = RouteFacts(before.policy, joined)
        desk.save_route(written.name, route)
        said = f"{'Created route' if created else 'Now'} {_shown(written.name, route)}.{_skipped(desk, route)}"
        undo = f"delete-failover-route({show(written.name)})" if created else f"route-clear({show(written.name)})"
        return f"{said} {'Undo' if created else 'Start over'}: {desk.prefix}{undo}."

    return run


def _first(desk: Desk, name: str) -> RouteFacts:
    """A route that is made by adding to it begins with the model whose name it takes, where the default back-end has that."""
    facts = find_backend(desk, desk.default_backend)
    listed = facts is not None and name in (facts.models or ())
    return RouteFacts(_DEFAULT_POLICY, (f"{facts.id}:{name}",) if facts and listed else ())


COMMANDS: Final = (
    Command(
        name="create-failover-route",
        group=_GROUP,
        purpose="make an empty route, or change the policy of one",
        forms=_CREATE,
        examples=("create-failover-route(name=coding, policy=m)", "create-failover-route(coding, km)"),
        run=create,
    ),
    Command(
        name="route-append",
        group=_GROUP,
        purpose="add elements at the end of a route",
        forms=("route-append(name=n, b:m, …)", "route-append(n, b:m, …)", "route-append(name=n, element=b:m, …)"),
        examples=("route-append(name=coding, openai:gpt-4o)", "route-append(coding, element=openai/gpt-4o-mini)"),
        run=_add("append"),
    ),
    Command(
        name="route-prepend",
        group=_GROUP,
        purpose="add elements in front of a route",
        forms=("route-prepend(name=n, b:m, …)", "route-prepend(n, b:m, …)", "route-prepend(name=n, element=b:m, …)"),
        examples=("route-prepend(coding, openai:o3, openai:gpt-4.1)",),
        run=_add("prepend"),
    ),
    Command(
        name="route-list",
        group=_GROUP,
        purpose="show the elements of a route, or of all",
        forms=("route-list(name=n)", "route-list(n)", "route-list"),
        examples=("route-list(coding)", "route-list"),
        run=list_elements,
    ),
    Command(
        name="list-failover-routes",
        group=_GROUP,
        purpose="list the routes with their policies",
        forms=("list-failover-routes",),
        examples=("list-failover-routes",),
        run=list_routes,
    ),
    Command(
        name="route-clear",
        group=_GROUP,
        purpose="remove all elements of a route",
        forms=("route-clear(name=n)", "route-clear(n)"),
        examples=("route-clear(coding)",),
        run=clear,
    ),
    Command(
        name="delete-failover-route",
        group=_GROUP,
        purpose="remove a route",
        forms=("delete-failover-route(name=n)", "delete-failover-route(n)"),
        examples=("delete-failover-route(coding)",),
        run=delete,
    ),
)
