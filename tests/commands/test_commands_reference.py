"""The declarations of commands: every example works, every name exists once, and the reference is current."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from llm_proxy.commands import registry
from llm_proxy.commands.reference import markdown
from llm_proxy.option_groups import GROUPS
from tests.commands.desk import KEYS, PlainDesk, run

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "commands.md"


def test_every_example_succeeds_in_the_order_of_the_reference(desk: PlainDesk) -> None:
    for command in registry.COMMANDS:
        assert command.examples, command.name
        for example in command.examples:
            assert run(desk, desk.prefix + example), example


def test_every_example_and_form_begins_with_a_name_of_its_command() -> None:
    for command in registry.COMMANDS:
        for text in (*command.forms, *command.examples):
            assert text.partition("(")[0] in command.names, text


def test_no_name_belongs_to_two_commands() -> None:
    counts = Counter(name for command in registry.COMMANDS for name in command.names)
    assert [name for name, count in counts.items() if count > 1] == []


def test_every_key_of_a_command_exists() -> None:
    for command in registry.COMMANDS:
        for key in command.keys:
            assert KEYS.find(key), f"{command.name}: {key}"


def test_every_command_and_key_is_in_the_reference() -> None:
    text = markdown(GROUPS)
    for command in registry.COMMANDS:
        assert f"### {command.name}\n" in text
    for option in KEYS:
        assert option.chat is not None
        assert f"| `{option.chat.name}`" in text


def test_the_reference_is_current() -> None:
    assert REFERENCE.read_text("utf-8") == markdown(GROUPS)
