"""The values of in-chat keys: reading what was typed, with all that is checked, and showing what is in force.

Owns the words for a value that does not fit. Changes nothing; `settings` makes the changes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from llm_proxy.commands import grammar
from llm_proxy.commands.command import shorten
from llm_proxy.commands.desk import CommandError, Desk
from llm_proxy.commands.grammar import Argument
from llm_proxy.commands.places import usable_backend
from llm_proxy.config.chat_keys import canonical
from llm_proxy.config.kinds import Mismatch, show_found
from llm_proxy.config.options import Option
from llm_proxy.wire.faults import UrlFault
from llm_proxy.wire.urls import parse_base_url

MODES: Final[Mapping[str, tuple[str, ...]]] = {
    "high": ("max", "high"),
    "medium": ("medium",),
    "low": ("low",),
    "none": ("no-think", "no-thinking", "no-reasoning", "disable-thinking", "disable-reasoning"),
}
"""Reasoning mode -> the words for it, which are also commands (CMD-17)."""

_BUDGET: Final = "thinking-budget"
_EFFORT: Final = "reasoning-effort"
_REASONING_FORMS: Final = "expected effort=…, max_tokens=…, exclude=true|false, or the same as a JSON object"


def key_of(option: Option) -> str:
    """The canonical in-chat name, under which a session keeps the value."""
    return option.chat.name if option.chat else option.name


def is_for_all(option: Option) -> bool:
    return option.chat is not None and option.chat.scope == "process"


def read(desk: Desk, option: Option, argument: Argument) -> object:
    """The typed value of what was typed for `option`. Raises CommandError with what was expected."""
    text = argument.value
    if not text:
        raise CommandError(f"expected {option.kind.expected}, got nothing")
    if special := _READERS.get(key_of(option)):
        return special(desk, option, argument)
    return read_plain(desk, option, text)


def read_plain(desk: Desk, option: Option, text: str) -> object:
    """The value by the kind and range of the declaration alone."""
    if option.kind.base == "bool":
        answer = grammar.boolean(text)
        if answer is None:
            raise CommandError(f"expected true or false, got {show(shorten(text))}")
        return answer
    try:
        return desk.keys.read(option, text)
    except Mismatch as error:
        raise CommandError(f"expected {error.expected}, got {show_found(error.node)}") from None
    except RecursionError:
        raise CommandError("expected a JSON object that is not nested so deeply") from None


def _read_backend(desk: Desk, option: Option, argument: Argument) -> object:
    return usable_backend(desk, argument.value).id


def _read_url(desk: Desk, option: Option, argument: Argument) -> object:
    try:
        url = str(parse_base_url(argument.value))
    except UrlFault as error:
        raise CommandError(f"expected an absolute http or https URL: {error}") from None
    if refusal := desk.refusal_of_url(url):
        raise CommandError(refusal)
    return url


def _read_directory(desk: Desk, option: Option, argument: Argument) -> object:
    """The resolved path. What exists is looked at only where this client may go, so that no one can probe the disk."""
    text = argument.value
    path = os.path.expanduser(text)
    if not text.isprintable() or not os.path.isabs(path):
        raise CommandError(f"expected an absolute path (~ is expanded), got {show(shorten(text))}")
    path = os.path.realpath(path)
    if refusal := desk.refusal_of_directory(path):
        raise CommandError(refusal)
    if not os.path.isdir(path) or not os.access(path, os.R_OK | os.X_OK):
        raise CommandError(f"expected an existing readable directory, got {show(shorten(text))}")
    return path


def _read_mode(desk: Desk, option: Option, argument: Argument) -> object:
    wanted = canonical(argument.value)
    for mode, words in MODES.items():
        if wanted == mode or wanted in words:
            return mode
    return read_plain(desk, option, argument.value)


def _read_reasoning(desk: Desk, option: Option, argument: Argument) -> object:
    text = argument.value.strip()
    if text.startswith("{"):
        members = read_plain(desk, option, text)
        typed = {name: _typed(member) for name, member in members.items()} if isinstance(members, dict) else {}
    else:
        inside = text[1:-1] if text.startswith("(") and text.endswith(")") else text
        items = grammar.parse_arguments(inside).items
        if not items or not all(item.key for item in items):
            raise CommandError(_REASONING_FORMS)
        typed = {item.key: item.value for item in items}
    found: dict[str, Any] = {}
    for name, member in typed.items():
        match name.strip().lower().replace("-", "_"):
            case "effort":
                found["effort"] = _read_as(desk, _EFFORT, name, member)
            case "max_tokens":
                found["max_tokens"] = _read_as(desk, _BUDGET, name, member)
            case "exclude":
                answer = grammar.boolean(member)
                if answer is None:
                    raise CommandError(f"exclude: expected true or false, got {show(shorten(member))}")
                found["exclude"] = answer
            case _:
                raise CommandError(f"unknown member {shorten(name)}; {_REASONING_FORMS}")
    if not found:
        raise CommandError(_REASONING_FORMS)
    return found


def _typed(member: object) -> str:
    """A member of a JSON object as it would have been typed outside one."""
    return member if isinstance(member, str) else msgspec.json.encode(member).decode()


def _read_as(desk: Desk, key: str, name: str, text: str) -> object:
    """A member of `reasoning` has the range of the key that stands for it alone."""
    option = desk.keys.find(key)
    if option is None:
        raise CommandError(f"unknown member {shorten(name)}; {_REASONING_FORMS}")
    try:
        return read_plain(desk, option, text)
    except CommandError as error:
        raise CommandError(f"{shorten(name)}: {error}") from None


_READERS: Final[Mapping[str, Callable[[Desk, Option, Argument], object]]] = {
    "backend": _read_backend,
    "default-backend": _read_backend,
    "openai-url": _read_url,
    "project-dir": _read_directory,
    "reasoning": _read_reasoning,
    "reasoning-mode": _read_mode,
}
"""Keys whose values must fit the state of the proxy, or are typed in a form of their own."""


def show(value: object) -> str:
    """A plain value in one line, quoted where it could be read as more than one."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case str() if value and not any(character in value for character in " ,()[]{}\"'="):
            return value
        case _:
            return msgspec.json.encode(value).decode()


def current(desk: Desk, option: Option) -> str:
    """`key = value (source)`."""
    value, source = desk.effective(option)
    return f"{key_of(option)} = {value} ({source})"


def current_of(desk: Desk, key: str) -> str:
    option = desk.keys.find(key)
    return current(desk, option) if option else f"{key} = none"
