"""AGT-03: shell, write and edit tools are recognised whatever the agent calls them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.sessions.tool_kinds import command_of, kind_of
from tests.support.shared import SHARED, needs_shared


@pytest.mark.parametrize(
    ("name", "arguments", "command"),
    [
        ("Bash", {"command": "x"}, "x"),
        ("shell", {"command": ["bash", "-lc", "x"]}, "bash -lc x"),
        ("execute_command", {"command": "x"}, "x"),
        ("run_shell_command", {"command": "x", "description": "why"}, "x"),
        ("local_shell", {"action": {"type": "exec", "command": ["ls", "-l"]}}, "ls -l"),
        ("container.exec", {"cmd": ["ls", "-l"]}, "ls -l"),
        ("exec_command", {"cmd": "x"}, "x"),
        ("run_commands", {"commands": ["a", "b"]}, "a\nb"),
        ("run_commands", {"commands": [{"command": "a"}, ["b", "c"]]}, "a\nb c"),
        ("terminal", {"script": "x"}, "x"),
        ("execute", {"code": "x"}, "x"),
        ("terminal", {"input": "x"}, "x"),
        ("terminal", {"input": {"command": "x"}}, "x"),
        ("terminal", {"body": {"data": {"args": {"cmd": "x"}}}}, "x"),
        ("exec", {"args": ["rm", "-rf", "y"]}, "rm -rf y"),
        ("exec", {"command": "rm", "args": ["-rf", "y"]}, "rm -rf y"),
        ("write_stdin", {"session_id": 1, "chars": "ls\n"}, "ls\n"),
        ("mcp__host__run-command", {"command": "x"}, "x"),
        ("developer__shell", {"command": "x"}, "x"),
        ("PowerShell", {"command": "x"}, "x"),
    ],
)
def test_a_shell_tool_and_its_command_text(name: str, arguments: dict[str, Any], command: str) -> None:
    assert kind_of(name) == "shell"
    assert command_of(name, json.dumps(arguments)) == command


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ("ls -l", "ls -l"),
        ('"ls -l"', "ls -l"),
        ('["ls", "-l"]', "ls -l"),
        ('{"command": "ls', '{"command": "ls'),
        ("", None),
        ("{}", None),
    ],
)
def test_arguments_that_are_no_object_are_the_command(arguments: str, command: str | None) -> None:
    assert command_of("bash", arguments) == command


def test_given_an_unknown_tool_with_an_argument_command_then_kind_other() -> None:
    assert kind_of("foo", '{"command": "x"}') == "other"
    assert command_of("foo", '{"command": "x"}') is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mcp__files__write_file", "write"),
        ("files__write_file", "write"),
        ("Write", "write"),
        ("write-to-file", "write"),
        ("MultiEdit", "edit"),
        ("multi-edit", "edit"),
        ("NotebookEdit", "edit"),
        ("apply_patch", "edit"),
        ("Read", "read"),
        ("WebFetch", "read"),
        ("grep-search", "read"),
        ("attempt_completion", "finish"),
        ("todowrite", "other"),
        ("", "other"),
        ("__", "other"),
        ("bash_history", "other"),
    ],
)
def test_names_are_compared_without_case_dashes_and_prefixes(name: str, kind: str) -> None:
    assert kind_of(name) == kind


@pytest.mark.parametrize("name", ["str_replace_based_edit_tool", "editor", "text_editor", "developer__text_editor"])
@pytest.mark.parametrize(
    ("command", "kind"),
    [("create", "write"), ("str_replace", "edit"), ("insert", "edit"), ("view", "read"), ("dance", "edit")],
)
def test_a_tool_for_several_things_is_told_by_its_command(name: str, command: str, kind: str) -> None:
    assert kind_of(name, json.dumps({"command": command, "path": "x"})) == kind
    assert kind_of(name) == "edit"


def test_the_command_of_other_tools_does_not_change_their_kind() -> None:
    assert kind_of("bash", '{"command": "view"}') == "shell"
    assert kind_of("edit", '{"command": "create"}') == "edit"


@needs_shared
def test_every_name_of_the_published_table_has_its_kind() -> None:
    assert SHARED is not None
    text = (SHARED / "agents.md").read_text(encoding="utf-8").partition("## What kind of tool a name is")[2]
    rows = re.findall(r"^\| (shell|write|edit|read|finish) \| (.+?) \|$", text, re.MULTILINE)
    assert [kind for kind, _ in rows] == ["shell", "write", "edit", "read", "finish"]
    for kind, names in rows:
        for name in names.split(", "):
            assert kind_of(name) == kind, name


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["command", "commands", "cmd", "input", "args", "data", "x"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@given(value=_VALUES)
def test_no_arguments_make_it_fail(value: Any) -> None:
    found = command_of("bash", json.dumps(value))
    assert found is None or found


@given(text=st.text(max_size=60))
def test_a_command_text_comes_out_as_it_was_given(text: str) -> None:
    assert command_of("bash", json.dumps({"command": text})) == (text or None)
