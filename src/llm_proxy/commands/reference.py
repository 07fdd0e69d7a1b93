"""The reference of the chat language as Markdown, made from the declarations of commands and of in-chat keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llm_proxy.commands.command import Command
from llm_proxy.commands.guide import by_group, expected
from llm_proxy.commands.options import CommandOptions
from llm_proxy.commands.registry import COMMANDS
from llm_proxy.commands.values import is_for_all, key_of
from llm_proxy.config.chat_keys import ChatKeys
from llm_proxy.config.options import Option, OptionGroup

_PREFIX: str = CommandOptions.command_prefix

_HEAD = f"""# Commands in the chat

A command is typed in a message: the prefix, directly followed by a name, and arguments in brackets where it takes some. The prefix is
`{_PREFIX}` unless `command_prefix` says otherwise. Case does not matter in names of commands and keys, and `-` and `_` are the same.
Values that hold a comma, a bracket or an equals sign are put in quotes. `!/help` shows this list in the chat, `!/help(set)` every key
with the value in force.
""".replace("!/", _PREFIX)

_KEYS = f"""## Keys

`{_PREFIX}set(key=value, …)` changes the keys below and `{_PREFIX}unset(key, …)` restores them. A key for the *session* changes only the
conversation in which it is set. A key for *all* changes the proxy for everybody, is saved and survives a restart; who may do so is the
business of `commands.allow_global`. A command checks everything it names before it changes anything.
"""


def markdown(groups: Sequence[type[OptionGroup]]) -> str:
    """The whole page."""
    lines = [_HEAD]
    for group, commands in by_group(COMMANDS).items():
        lines += [f"## {group}", ""]
        for command in commands:
            lines += _command(command)
    lines += [_KEYS, "| Key | For | Value | Without it | Meaning |", "| - | - | - | - | - |"]
    lines += [_row(option) for option in ChatKeys(groups)]
    return "\n".join(lines) + "\n"


def _command(command: Command) -> list[str]:
    lines = [f"### {command.name}", "", f"{command.purpose[:1].upper()}{command.purpose[1:]}.", ""]
    if command.aliases:
        lines.append(f"* Also: {_code(command.aliases)}")
    lines.append(f"* Forms: {_code(_PREFIX + form for form in command.forms)}")
    if command.every_key:
        lines.append("* Keys: [all](#keys)")
    elif command.keys:
        lines.append(f"* Keys: {_code(command.keys)}")
    if command.examples:
        lines.append(f"* Examples: {_code(_PREFIX + example for example in command.examples)}")
    return [*lines, ""]


def _row(option: Option) -> str:
    names = _code((key_of(option), *(option.chat.aliases if option.chat else ())))
    scope = "all" if is_for_all(option) else "session"
    default = f"`{option.path}`" if option.path and scope == "session" else option.shown_default
    cells = [names, scope, expected(option), default, option.help]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _code(texts: Iterable[str]) -> str:
    return ", ".join(f"`{text}`" for text in texts)
