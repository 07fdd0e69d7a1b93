"""The opening of a Responses request: instructions and system items, the leading user items, tools and ids, without
reading it whole."""

from __future__ import annotations

from typing import Any

from llm_proxy.dialects.base import Opening
from llm_proxy.dialects.openings import (
    count_in,
    ids_of,
    list_in,
    members_of,
    names_of,
    object_in,
    read_beginning,
    read_users,
    texts_of,
)
from llm_proxy.wire.json import Body

_SYSTEM = ("system", "developer")
_JSON = ("json_object", "json_schema")
_MESSAGE = (None, "message")


def read_opening(body: Body) -> Opening:
    members = members_of(body)
    given = members.get("input")
    items = list_in(given)
    if type(given) is str:
        system: tuple[str, ...] = ()
        first = texts_of(given)
    else:
        # Codex sends its environment, its project's instructions and the prompt as items of their own.
        system, first = read_beginning(items, _texts, role_of=_role, system_roles=_SYSTEM, whole_run=True)
    return Opening(
        system=texts_of(members.get("instructions")) + system,
        first_user=first,
        users=(first,) if type(given) is str else read_users(items, _texts, _role),
        tools=names_of(members.get("tools"), "function"),
        json_demanded=object_in(object_in(members.get("text")).get("format")).get("type") in _JSON,
        max_tokens=count_in(members.get("max_output_tokens")),
        messages=len(items),
        ids=ids_of(members),
    )


def _role(item: dict[str, Any]) -> Any:
    return item.get("role") if item.get("type") in _MESSAGE else None


def _texts(item: dict[str, Any]) -> tuple[str, ...]:
    return texts_of(item.get("content"))
