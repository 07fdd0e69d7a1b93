"""What reading an opening is in every protocol: texts of contents, tool names, and the fields that may name a conversation.

Never raises and changes nothing: a body of another shape than the protocol's gives less. What the found values mean,
which client it is and whose conversation, is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from llm_proxy.wire.faults import WireFault
from llm_proxy.wire.json import Body, decode_object

# Tuples, not sets: what a client writes there may be a list or an object, which cannot be looked up in a set.
_TEXT_TYPES = (None, "text", "input_text", "output_text")
_NESTED_IDS = (
    ("extra_body", "session_id"),
    ("metadata", "user_id"),
    ("client_metadata", "session_id"),
)
_PLAIN_IDS = ("session_id", "prompt_cache_key", "previous_response_id")
MOST_RECENT = 256 * 1024
"""So many characters of what came after the last turn of the assistant are given, the newest ones."""


def members_of(body: Body) -> dict[str, Any]:
    """The decoded members of a body; none when it cannot be read, which the reader of the request will say."""
    try:
        return decode_object(body)
    except WireFault:
        return {}


def object_in(value: Any) -> dict[str, Any]:
    return value if type(value) is dict else {}


def list_in(value: Any) -> list[Any]:
    """A list as it is, one object or text as the list of it: some clients leave the brackets out."""
    if type(value) is list:
        return value
    return [value] if type(value) is dict or type(value) is str else []


def texts_of(content: Any) -> tuple[str, ...]:
    """The non-empty texts of a content that is a text or a list of parts; media, calls and results are left out."""
    if type(content) is str:
        return (content,) if content else ()
    found = []
    for part in list_in(content):
        text = part if type(part) is str else None
        if type(part) is dict and part.get("type") in _TEXT_TYPES:
            text = part.get("text")
        if type(text) is str and text:
            found.append(text)
    return tuple(found)


def names_of(tools: Any, *inside: str) -> tuple[str, ...]:
    """Names of declared tools, looked for in the tool and in its members `inside`; a namespace gives the names of its tools,
    and a tool of the provider, which has no name, its type."""
    found: list[str] = []
    for tool in list_in(tools):
        if type(tool) is not dict:
            continue
        if tool.get("type") == "namespace":
            found.extend(names_of(tool.get("tools"), *inside))
            continue
        names = (tool.get("name"), *(object_in(tool.get(key)).get("name") for key in inside), tool.get("type"))
        name = next((name for name in names if type(name) is str and name), None)
        if name is not None:
            found.append(name)
    return tuple(found)


def ids_of(members: dict[str, Any]) -> dict[str, str]:
    """The fields that may name the conversation, by name; only non-empty texts."""
    found: dict[str, str] = {}
    for name in _PLAIN_IDS:
        value = members.get(name)
        if type(value) is str and value:
            found[name] = value
    for outer, inner in _NESTED_IDS:
        holder = members.get(outer)
        if type(holder) is dict:
            value = holder.get(inner)
            if type(value) is str and value:
                found[f"{outer}.{inner}"] = value
    return found


def count_in(*values: Any) -> int | None:
    """The first that is a number."""
    return next((value for value in values if type(value) is int), None)


def role_of(message: dict[str, Any]) -> Any:
    """The role of a message, in protocols whose messages have one of their own."""
    return message.get("role")


def texts_in(message: dict[str, Any]) -> tuple[str, ...]:
    """The texts of a message's content."""
    return texts_of(message.get("content"))


def by_assistant(message: dict[str, Any]) -> bool:
    return message.get("role") == "assistant"


def read_beginning(
    messages: Iterable[Any],
    texts: Callable[[dict[str, Any]], tuple[str, ...]],
    *,
    role_of: Callable[[dict[str, Any]], Any],
    system_roles: tuple[str, ...],
    whole_run: bool = False,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The texts of system messages before the first user message, and the texts of that message.

    A user message that is nothing but tagged blocks is a client's preface (Gemini CLI's `<session_context>`): what
    tells conversations apart stands in the user message behind it, so that one is taken along. `whole_run`: take all
    user messages that follow each other.
    """
    system: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    seen = False
    for message in messages:
        if type(message) is not dict:
            continue
        role = role_of(message)
        if role == "user":
            found = texts(message)
            first += found
            seen = True
            if not (whole_run or (found and all(map(_is_preface, found)))):
                break
        elif seen:
            break
        elif role in system_roles:
            system += texts(message)
    return system, first


def read_users(
    messages: Sequence[Any],
    texts: Callable[[dict[str, Any]], tuple[str, ...]],
    role_of: Callable[[dict[str, Any]], Any],
) -> tuple[tuple[str, ...], ...]:
    """The texts of every user message that has some."""
    return tuple(
        found
        for message in messages
        if type(message) is dict and role_of(message) == "user" and (found := texts(message))
    )


def read_recent(
    messages: Sequence[Any],
    texts: Callable[[dict[str, Any]], Sequence[str]],
    answers: Callable[[dict[str, Any]], bool],
) -> tuple[tuple[str, ...], bool]:
    """The texts behind the last message for which `answers` is true, in order, and whether there is such a message.

    Of texts beyond `MOST_RECENT` characters the newest are kept, of the one that passes the limit its beginning.
    """
    found: list[str] = []
    left = MOST_RECENT
    for message in reversed(messages):
        if type(message) is not dict:
            continue
        if answers(message):
            return tuple(reversed(found)), True
        if left <= 0:
            continue
        for text in reversed(texts(message)):
            if left <= 0:
                break
            found.append(text if len(text) <= left else text[:left])
            left -= len(text)
    return tuple(reversed(found)), False


def strings_in(value: Any, deepest: int = 8) -> list[str]:
    """The non-empty texts inside a JSON value, in order; of a value nested deeper than `deepest` nothing."""
    if type(value) is str:
        return [value] if value else []
    if deepest <= 0:
        return []
    inside = value.values() if type(value) is dict else value if type(value) is list else ()
    return [text for one in inside for text in strings_in(one, deepest - 1)]


def _is_preface(text: str) -> bool:
    beginning = text[:64].lstrip()
    return (beginning.startswith("<") and text[-64:].rstrip().endswith(">")) or beginning.startswith(
        "# AGENTS.md instructions"
    )
