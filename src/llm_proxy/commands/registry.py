"""The one list of commands, and how a typed name finds its command.

A family of commands is one file and one line here; help, the reference and the tests follow.
"""

from __future__ import annotations

from typing import Final

from llm_proxy.commands import choices, information, loops, modes, projects, routes, settings
from llm_proxy.commands.command import Command, shorten
from llm_proxy.commands.desk import Desk
from llm_proxy.commands.guide import help_command
from llm_proxy.commands.spelling import nearest as nearest_of
from llm_proxy.config.chat_keys import canonical

__all__ = ["COMMANDS", "Command", "find", "known", "nearest", "unknown"]


def find(name: str) -> Command | None:
    """The command of a name or alias, in any case, with `-` or `_`."""
    return _BY_NAME.get(canonical(name))


def known(name: str) -> bool:
    return find(name) is not None


def nearest(name: str) -> str:
    """The known name that differs from `name` in at most two letters, or nothing."""
    return nearest_of(canonical(name), _BY_NAME, most=2)


def unknown(desk: Desk, name: str) -> str:
    """What is said to a command that does not exist."""
    close = nearest(name)
    hint = f"Did you mean {desk.prefix}{close}?" if close else f"{desk.prefix}help lists all commands."
    return f"Unknown command {desk.prefix}{shorten(name)}. {hint}"


COMMANDS: Final[list[Command]] = [
    *information.COMMANDS,
    *settings.COMMANDS,
    *choices.COMMANDS,
    *projects.COMMANDS,
    *modes.COMMANDS,
    *loops.COMMANDS,
    *routes.COMMANDS,
]
COMMANDS.insert(1, help_command(COMMANDS, find, nearest))
_BY_NAME: Final[dict[str, Command]] = {name: command for command in COMMANDS for name in command.names}
