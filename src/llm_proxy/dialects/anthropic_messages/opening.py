"""The opening of a Messages request: system texts, first user message, tools and ids, without reading it whole."""

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
    texts_of,
)
from llm_proxy.wire.json import Body

_SYSTEM = ("system", "developer")


def read_opening(body: Body) -> Opening:
    members = members_of(body)
    messages = list_in(members.get("messages"))
    system, first = read_beginning(messages, texts_in, role_of=role_of, system_roles=_SYSTEM)
    format_ = object_in(members.get("output_config")).get("format") or members.get("output_format")
    recent, answered = read_recent(messages, _recent_texts, by_assistant)
    return Opening(
        system=texts_of(members.get("system")) + system,
        first_user=first,
        users=read_users(messages, texts_in, role_of),
        tools=names_of(members.get("tools")),
        json_demanded=object_in(format_).get("type") in ("json_schema", "json_object"),
        max_tokens=count_in(members.get("max_tokens")),
        messages=len(messages),
        answered=answered,
        recent=recent,
        ids=ids_of(members),
    )


def _recent_texts(message: dict[str, Any]) -> tuple[str, ...]:
    if message.get("role") != "user":
        return ()
    content = message.get("content")
    if type(content) is not list:
        return texts_of(content)
    found: list[str] = []
    for part in content:
        result = type(part) is dict and part.get("type") == "tool_result"
        found.extend(texts_of(part.get("content") if result else [part]))
    return tuple(found)
