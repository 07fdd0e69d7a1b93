"""What a command is: its names, what people read about it, and the function that runs it.

Owns the declaration and what all families need to read their arguments and to word a mistake. Knows no single command.
"""

from __future__ import annotations

from collections.abc import Callable, Container

import msgspec

from llm_proxy.commands.desk import CommandError, Desk
from llm_proxy.commands.grammar import Argument, Arguments
from llm_proxy.config.chat_keys import canonical

Run = Callable[[Desk, Arguments | None], str]


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One command. `forms` and `examples` are written without the prefix; `keys` are the in-chat keys that it concerns.

    `run` returns the lines that say what was done and how to undo it. It raises CommandError when nothing was done.
    """

    name: str
    group: str
    purpose: str
    forms: tuple[str, ...]
    run: Run
    aliases: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    every_key: bool = False
    examples: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)


def usage(desk: Desk, *forms: str) -> str:
    """The right forms, as the last words of an error."""
    return "Usage: " + " or ".join(desk.prefix + form for form in forms)


def wrong(desk: Desk, complaint: str, *forms: str) -> CommandError:
    """What was wrong and the right forms, ready to be raised."""
    stop = "" if complaint.endswith(("?", "\n")) else "."
    gap = "" if complaint.endswith("\n") else " "
    return CommandError(f"{complaint}{stop}{gap}{usage(desk, *forms)}")


def items_of(arguments: Arguments | None) -> tuple[Argument, ...]:
    """The arguments one by one; none for a bare command."""
    return arguments.items if arguments else ()


def only_value(desk: Desk, arguments: Arguments | None, names: Container[str], *forms: str) -> Argument | None:
    """The one argument of a short form, positional or under one of `names` (canonical); None when there is none."""
    items = items_of(arguments)
    if not items or (len(items) == 1 and not items[0].key and not items[0].value):
        return None
    if len(items) > 1:
        raise wrong(desk, "One value is expected; put quotes around a value that holds a comma", *forms)
    [item] = items
    if item.key and canonical(item.key) not in names:
        raise wrong(desk, f"{shorten(item.key)} is not known here; put quotes around a value that holds =", *forms)
    return item


def no_value(desk: Desk, arguments: Arguments | None, form: str) -> None:
    """Refuses arguments of a command that takes none."""
    if any(item.key or item.value for item in items_of(arguments)):
        raise wrong(desk, "No argument is expected", form)


def shorten(text: str, most: int = 80) -> str:
    """`text` as it may be shown in one line of a reply."""
    shown = "".join(character if character.isprintable() else "?" for character in text[: most + 1])
    return shown if len(shown) <= most else shown[: most - 1] + "…"
