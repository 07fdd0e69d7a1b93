"""What kind of tool a name is, whatever the agent calls it, and the command that a shell tool is asked to run.

One table of names. Where the calls stand in a protocol, and what a kind leads to, is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from llm_proxy.wire.json import parse_arguments

Kind = Literal["shell", "write", "edit", "read", "finish", "other"]

_NAMES: dict[Kind, str] = {
    "shell": """bash shell shell_command local_shell container.exec exec exec_command execute execute_command run_command
        run_commands run_shell_command run_terminal_cmd run_terminal_command terminal developer__shell write_stdin
        powershell cmd""",
    "write": """write write_file write_to_file create create_file create_new_file save fs_write new_file file_write""",
    "edit": """edit edit_file multiedit multi_edit replace replace_in_file replace_string_in_file str_replace
        str_replace_editor str_replace_based_edit_tool search_replace search_and_replace apply_diff apply_patch patch
        patch_file insert_content insert_edit_into_file editor text_editor edit_notebook notebookedit modify_file""",
    "read": """read read_file read_files read_many_files view view_file view_image cat grep grep_search search_codebase
        search_files glob rg list list_dir list_directory list_files ls codebase_search webfetch web_fetch fetch
        fetch_web_content""",
    "finish": "attempt_completion",
}
_KINDS: Mapping[str, Kind] = {name: kind for kind, names in _NAMES.items() for name in names.split()}
# One tool for several things, told apart by its argument `command`; `write` and `undo_edit` are goose's and Anthropic's.
_DUAL = frozenset(("str_replace_based_edit_tool", "str_replace_editor", "editor", "text_editor"))
_COMMANDS: Mapping[str, Kind] = {
    "create": "write",
    "write": "write",
    "str_replace": "edit",
    "insert": "edit",
    "undo_edit": "edit",
    "view": "read",
}
# `chars` is what Codex's write_stdin types; `action` holds the command of Responses' local_shell calls.
_TEXT_ARGUMENTS = ("command", "commands", "cmd", "script", "code", "input", "chars")
_HOLDERS = ("input", "body", "data", "args", "action")
_DEEPEST = 4


def kind_of(name: str, arguments: str | None = None) -> Kind:
    """The kind of the tool `name`; `arguments` (JSON) tell what a tool that can do several things is asked for."""
    plain = plain_name(name)
    kind = _KINDS.get(plain, "other")
    if plain in _DUAL and arguments:
        command = (parse_arguments(arguments) or {}).get("command")
        if isinstance(command, str):
            return _COMMANDS.get(command, kind)
    return kind


def plain_name(name: str) -> str:
    """A name for comparison: lower case, `_` for `-`, without the prefixes `mcp__server__` and `server__`."""
    return name.strip().lower().replace("-", "_").rpartition("__")[2]


def command_of(name: str, arguments: str) -> str | None:
    """The command text of a shell tool's call; None for other tools and where there is none.

    Several commands are lines; a list that is one command is joined as words. Arguments that are no JSON object are
    the command themselves.
    """
    if kind_of(name) != "shell":
        return None
    members = parse_arguments(arguments)
    return (_raw(arguments) if members is None else _inside(members, _DEEPEST)) or None


def _raw(arguments: str) -> str:
    try:
        value = msgspec.json.decode(arguments)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return arguments.strip()
    return _text(value, " ") or arguments.strip()


def _inside(members: dict[str, Any], depth: int) -> str:
    for name in _TEXT_ARGUMENTS:
        text = _text(members.get(name), "\n" if name == "commands" else " ")
        if text:
            words = members.get("args")
            return f"{text} {_text(words, ' ')}" if name == "command" and isinstance(words, list) and words else text
    if depth == 0:
        return ""
    for name in _HOLDERS:
        value = members.get(name)
        text = _inside(value, depth - 1) if isinstance(value, dict) else _text(value, " ")
        if text:
            return text
    return ""


def _text(value: Any, between: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return ""
    pieces = [_element(item) for item in value]
    return between.join(piece for piece in pieces if piece)


def _element(item: Any) -> str:
    match item:
        case str():
            return item
        case dict():
            return _inside(item, 0)
        case list():
            return " ".join(word for word in item if isinstance(word, str))
        case bool() | None:
            return ""
        case _:
            return str(item)
