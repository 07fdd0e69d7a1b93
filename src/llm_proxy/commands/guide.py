"""`help`: the list of commands, one command in full, every key with its value (CMD-10). Made from the declarations alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llm_proxy.commands.command import Command, items_of, shorten, wrong
from llm_proxy.commands.desk import CommandError, Desk
from llm_proxy.commands.grammar import Arguments
from llm_proxy.commands.options import CommandOptions
from llm_proxy.commands.values import current
from llm_proxy.config.options import Option

_FORMS = ("help", "help(command)")


def by_group(commands: Sequence[Command]) -> dict[str, list[Command]]:
    """The commands of each group, in the order in which groups and commands are declared."""
    groups: dict[str, list[Command]] = {}
    for command in commands:
        groups.setdefault(command.group, []).append(command)
    return groups


def describe_key(option: Option, prefix: str) -> str:
    """What a key means and takes, without its name and value."""
    return f"{option.help.replace(CommandOptions.command_prefix, prefix)}; {expected(option)}"


def expected(option: Option) -> str:
    """What is typed as the value: in the chat a map is written as JSON."""
    return "a JSON object" if option.kind.base == "json" else option.kind.expected


def help_command(
    commands: Sequence[Command], find: Callable[[str], Command | None], nearest: Callable[[str], str]
) -> Command:
    """The command that explains `commands`, which it may itself join afterwards."""

    def run(desk: Desk, arguments: Arguments | None) -> str:
        items = [item for item in items_of(arguments) if item.key or item.value]
        if not items:
            return _overview(desk, commands)
        if len(items) > 1 or items[0].key:
            raise wrong(desk, "The name of one command is expected", *_FORMS)
        return _details(desk, items[0].value)

    def _details(desk: Desk, typed: str) -> str:
        name = _bare_name(typed, desk.prefix)
        command = find(name)
        if command is not None:
            return _describe(desk, command)
        option = desk.keys.find(name)
        if option is not None:
            return (
                f"{current(desk, option)}: {describe_key(option, desk.prefix)}. Change: {desk.prefix}set({name}=value)."
            )
        close = nearest(name)
        hint = f"did you mean {desk.prefix}{close}?" if close else f"{desk.prefix}help lists all commands"
        raise CommandError(f"unknown command {shorten(name)}; {hint}")

    return Command(
        name="help",
        group="Information",
        purpose="list the commands, or explain one",
        forms=_FORMS,
        examples=("help", "help(set)", "help(route-append)"),
        run=run,
    )


def _bare_name(typed: str, prefix: str) -> str:
    """The name alone, whatever prefix and brackets were typed with it."""
    name = typed.strip().removeprefix(prefix)
    start = next((place for place, character in enumerate(name) if character.isalpha()), 0)
    return name[start:].partition("(")[0].strip()


def _overview(desk: Desk, commands: Sequence[Command]) -> str:
    lines = [f"Commands, typed as {desk.prefix}name or {desk.prefix}name(arguments):"]
    for group, members in by_group(commands).items():
        lines += ["", group]
        for command in members:
            also = f" (also {', '.join(command.aliases)})" if command.aliases else ""
            lines.append(f"  {desk.prefix}{command.name}{also}: {command.purpose}")
    lines += ["", f"{desk.prefix}help(command) explains one; {desk.prefix}help(set) lists every key with its value."]
    return "\n".join(lines)


def _describe(desk: Desk, command: Command) -> str:
    also = f" (also {', '.join(command.aliases)})" if command.aliases else ""
    lines = [f"{desk.prefix}{command.name}{also}: {command.purpose}", "Forms:"]
    lines += [f"  {desk.prefix}{form}" for form in command.forms]
    options = list(desk.keys) if command.every_key else [desk.keys.find(key) for key in command.keys]
    if options:
        lines.append("Keys, with the value in force and its source:")
    for option in options:
        if option is not None:
            aliases = option.chat.aliases if option.chat else ()
            names = f" (also {', '.join(aliases)})" if aliases else ""
            lines.append(f"  {current(desk, option)}: {describe_key(option, desk.prefix)}{names}")
    if command.examples:
        lines.append("Examples:")
        lines += [f"  {desk.prefix}{example}" for example in command.examples]
    return "\n".join(lines)
