"""Anthropic's typed client tools as plain functions.

Claude knows these tools by heart, so a request names only their type. Other models need what is written out
here; the client runs the call either way, so the names of tools and arguments are Anthropic's.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_proxy.conversation.request import FunctionTool, Request, ServerTool
from llm_proxy.dialects.anthropic_messages.wire import NAME, text_in

Schema = dict[str, Any]


def _text(description: str) -> Schema:
    return {"type": "string", "description": description}


def _whole(description: str) -> Schema:
    return {"type": "integer", "description": description}


def _object(properties: dict[str, Schema], required: list[str]) -> Schema:
    return {"type": "object", "properties": properties, "required": required}


def _range(description: str) -> Schema:
    return {
        "type": "array",
        "items": {"type": "integer"},
        "minItems": 2,
        "maxItems": 2,
        "description": description,
    }


_LINES = _range("For view: first and last line to show, counted from 1; -1 as the last means the end of the file.")
_POINT = _range("Screen coordinate [x, y] in pixels.")


def client_tool_schema(tool: ServerTool) -> FunctionTool | None:
    """The function that stands for `tool` at another provider; None if it is no client tool or too many
    tools in one (toolsets).
    """
    kind = tool.type
    if tool.origin != NAME or "toolset" in kind:
        return None
    if kind.startswith("bash_"):
        return _function(tool, "bash", _BASH, _bash())
    if kind.startswith("text_editor_") and "code_execution" not in kind:
        return _function(tool, "str_replace_based_edit_tool", _EDITOR, _editor(kind))
    if kind.startswith("memory_"):
        return _function(tool, "memory", _MEMORY, _memory())
    if kind.startswith("computer_"):
        return _function(tool, "computer", _screen(tool.raw), _computer(kind, tool.raw))
    return None


def _function(tool: ServerTool, usual: str, description: str, parameters: Schema) -> FunctionTool:
    name = text_in(tool.raw.get("name")) or usual
    return FunctionTool(name=name, description=description, parameters=parameters, cache=tool.cache)


_BASH = (
    "Runs a command in a bash shell and returns what it prints. The shell keeps its state (directory, "
    "variables) between calls. Commands must not wait for input. Give `restart` instead of a command to "
    "start the shell anew."
)


def _bash() -> Schema:
    return _object(
        {
            "command": _text("The command to run. Required unless restart is true."),
            "restart": {"type": "boolean", "description": "True to restart the shell."},
        },
        [],
    )


_EDITOR = (
    "Views, creates and edits text files. `view` shows a file with line numbers, or lists a directory; "
    "`create` writes a whole file; `str_replace` replaces one exact, unique piece of text; `insert` puts "
    "text behind a line."
)


def _editor(kind: str) -> Schema:
    commands = ["view", "create", "str_replace", "insert"]
    older = kind in ("text_editor_20241022", "text_editor_20250124")
    if older:
        commands.append("undo_edit")
    properties = {
        "command": {"type": "string", "enum": commands, "description": "What to do."},
        "path": _text("Path of the file or directory."),
        "view_range": _LINES,
        "file_text": _text("For create: the whole text of the file."),
        "old_str": _text("For str_replace: the text to replace, exactly as it stands in the file."),
        "new_str": _text(
            "For str_replace: the text to put there." + (" For insert: the text to insert." if older else "")
        ),
        "insert_line": _whole("For insert: the line behind which the text goes, 0 for the beginning."),
    }
    if not older:
        properties["insert_text"] = _text("For insert: the text to insert.")
    return _object(properties, ["command", "path"])


_MEMORY = (
    "Keeps notes between conversations as files under /memories. Look at the directory before starting "
    "work, and write down what will be needed later. `view` lists the directory or shows a file; `create`, "
    "`str_replace`, `insert`, `delete` and `rename` change files."
)


def _memory() -> Schema:
    commands = ["view", "create", "str_replace", "insert", "delete", "rename"]
    return _object(
        {
            "command": {"type": "string", "enum": commands, "description": "What to do."},
            "path": _text("Path of the file or directory, for every command but rename."),
            "view_range": _LINES,
            "file_text": _text("For create: the text of the file."),
            "old_str": _text("For str_replace: the text to replace."),
            "new_str": _text("For str_replace: the text to put there."),
            "insert_line": _whole("For insert: the line at which the text goes."),
            "insert_text": _text("For insert: the text to insert."),
            "old_path": _text("For rename: the present path."),
            "new_path": _text("For rename: the new path."),
        },
        ["command"],
    )


def _screen(raw: dict[str, Any]) -> str:
    width, height = raw.get("display_width_px"), raw.get("display_height_px")
    size = f" The screen is {width} by {height} pixels." if isinstance(width, int) and isinstance(height, int) else ""
    return (
        "Uses a computer by mouse, keyboard and screenshots. Take a screenshot first and after every action "
        f"to see what happened; click at the centre of things.{size}"
    )


def _computer(kind: str, raw: dict[str, Any]) -> Schema:
    actions = [
        "key", "type", "mouse_move", "left_click", "left_click_drag", "right_click", "middle_click",
        "double_click", "screenshot", "cursor_position",
    ]  # fmt: skip
    properties = {
        "coordinate": _POINT,
        "text": _text("For type: the text. For key: the keys, such as ctrl+s. For clicks: keys to hold down."),
    }
    if kind != "computer_20241022":
        actions += ["left_mouse_down", "left_mouse_up", "scroll", "hold_key", "wait", "triple_click"]
        directions = {"type": "string", "enum": ["up", "down", "left", "right"]}
        properties |= {
            "start_coordinate": _range("For left_click_drag: where the drag begins."),
            "scroll_direction": directions | {"description": "For scroll: the direction."},
            "scroll_amount": _whole("For scroll: how many clicks of the wheel."),
            "duration": {"type": "number", "description": "For wait and hold_key: seconds."},
        }
    if raw.get("enable_zoom") is True:
        actions.append("zoom")
        region: Schema = {"type": "array", "items": {"type": "integer"}, "minItems": 4, "maxItems": 4}
        properties["region"] = region | {"description": "For zoom: the part of the screen as [x1, y1, x2, y2]."}
    action: Schema = {"type": "string", "enum": actions, "description": "What to do."}
    return _object({"action": action, **properties}, ["action"])


def written_out(request: Request) -> Request:
    """The request with tools that only their vendor's type describes offered as functions, for other providers."""
    tools = tuple(
        (client_tool_schema(tool) or tool) if isinstance(tool, ServerTool) else tool for tool in request.tools
    )
    return request if tools == request.tools else msgspec.structs.replace(request, tools=tools)
