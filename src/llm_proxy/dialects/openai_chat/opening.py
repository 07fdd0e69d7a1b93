"""The opening of a Chat Completions request: system texts, first user message, tools and ids, without reading it whole."""

from __future__ import annotations

from typing import Any

from llm_proxy.dialects.base import Opening
from llm_proxy.dialects.openings import (
    by_assistant,
    count_in,
    ids_of,
    list_in,
    members_of,
    names_of,
    object_in,
    read_beginning,
    read_recent,
    read_users,
    role_of,
    texts_in,
)
from llm_proxy.wire.json import Body

_SYSTEM = ("system", "developer")
_JSON = ("json_object", "json_schema")
# Of tools and of the user; system messages in between are the client's.
_RECENT = ("user", "tool", "function")


def read_opening(body: Body) -> Opening:
    members = members_of(body)
    messages = list_in(members.get("messages"))
    system, first = read_beginning(messages, texts_in, role_of=role_of, system_roles=_SYSTEM)
    recent, answered = read_recent(messages, _recent_texts, by_assistant)
    return Opening(
        system=system,
        first_user=first,
        users=read_users(messages, texts_in, role_of),
        tools=names_of(members.get("tools"), "function", "custom") + names_of(members.get("functions")),
        json_demanded=object_in(members.get("response_format")).get("type") in _JSON,
        max_tokens=count_in(members.get("max_completion_tokens"), members.get("max_tokens")),
        messages=len(messages),
        answered=answered,
        recent=recent,
        ids=ids_of(members),
    )


def _recent_texts(message: dict[str, Any]) -> tuple[str, ...]:
    return texts_in(message) if message.get("role") in _RECENT else ()
