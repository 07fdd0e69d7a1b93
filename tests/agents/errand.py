"""What a scripted model decides, whatever protocol it is asked in.

Owns the errand (one file to be written), what a request says (`Ask`) and the decision (`Call` or `Say`).
Knows no protocol and no socket.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

# Quotes, an escape, a line end and characters of two, three and four bytes: arguments that suffer when a
# stream is cut carelessly.
CONTENT: Final = 'first "quoted" line \\n is no line end\nzweite Zeile: äöü ✓ 🦉 $HOME\n'


@dataclass(frozen=True)
class Errand:
    """The file that the agent is asked for. `mark` is in the prompt and in the model's last words."""

    mark: str
    folder: Path
    name: str = "errand.txt"
    content: str = CONTENT

    @property
    def path(self) -> Path:
        """Where the file must appear."""
        return self.folder / self.name

    @property
    def prompt(self) -> str:
        """What the user of the agent types."""
        return f"{self.mark} Create the file {self.name} in the current directory with a tool. Then say done."

    @property
    def last_words(self) -> str:
        """The model's answer after the tool has run."""
        return f"Done: {self.name} is written ({self.mark}-end)."


@dataclass(frozen=True)
class Tool:
    """One offered function. `namespace` is the group that the Responses protocol may put it in."""

    name: str
    properties: Mapping[str, Any]
    namespace: str | None = None


@dataclass(frozen=True)
class Ask:
    """One request, as far as a model cares.

    `answered`: a tool result stands after the last turn of the model. `thinks`: the client asked for
    thinking. `schema`: the JSON Schema that the answer must fit, `{}` for any JSON.
    """

    model: str
    stream: bool
    user_text: str
    tools: tuple[Tool, ...]
    answered: bool
    thinks: bool
    schema: Mapping[str, Any] | None


@dataclass(frozen=True)
class Call:
    """The decision to call a tool."""

    tool: Tool
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Say:
    """The decision to answer with text."""

    text: str


THOUGHT: Final = "A file is wanted, so a tool has to write it."
_WRITERS: Final = ("write", "write_file", "write_to_file", "create_file", "create", "save")
_SHELLS: Final = (
    "bash",
    "exec_command",
    "run_shell_command",
    "shell",
    "shell_command",
    "local_shell",
    "execute_command",
    "run_commands",
)
_PATHS: Final = ("file_path", "filePath", "path", "filepath", "filename", "absolute_path")
_CONTENTS: Final = ("content", "contents", "file_text", "text")
_COMMANDS: Final = ("cmd", "command", "commands", "script")


def decide(ask: Ask, errand: Errand) -> Call | Say:
    """Write the file once, then end; answer every other errand with the least that fits."""
    if ask.schema is not None:
        return Say(json.dumps(instance_of(ask.schema)))
    if errand.mark not in ask.user_text:
        return Say("Nothing to do.")
    if ask.answered:
        return Say(errand.last_words)
    for names in (_WRITERS, _SHELLS):
        for tool in ask.tools:
            if _plain(tool.name) in names and (arguments := _arguments(tool, errand)) is not None:
                return Call(tool, arguments)
    return Say("A short title")


def _plain(name: str) -> str:
    return re.sub(r"^(?:mcp__)?\w+?__", "", name).lower().replace("-", "_")


def _arguments(tool: Tool, errand: Errand) -> dict[str, Any] | None:
    def known(names: tuple[str, ...]) -> str | None:
        return next((name for name in names if name in tool.properties), None)

    path, content, command = known(_PATHS), known(_CONTENTS), known(_COMMANDS)
    if path is not None and content is not None:
        return {path: str(errand.path), content: errand.content}
    if command is None:
        return None
    line = f"printf %s {shlex.quote(errand.content)} > {shlex.quote(errand.name)}"
    schema = tool.properties[command]
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    many = "array" in (kind if isinstance(kind, list) else [str(kind).lower()])
    words: Any = [line] if command == "commands" else ["bash", "-c", line]
    arguments = {command: words if many else line}
    if "description" in tool.properties:
        arguments["description"] = "Write the wanted file"
    return arguments


def instance_of(schema: Mapping[str, Any]) -> Any:
    """A small value that fits a JSON Schema (types in either case, as Gemini writes them)."""
    for name in ("anyOf", "oneOf", "allOf"):
        if options := schema.get(name):
            return instance_of(options[0])
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object")
    match str(kind[0] if isinstance(kind, list) else kind).lower():
        case "string":
            return "short"
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "array":
            return []
        case "null":
            return None
        case _:
            return {name: instance_of(part) for name, part in schema.get("properties", {}).items()}


def pieces(text: str, size: int = 7) -> list[str]:
    """Cuts of a text, short enough to fall inside escapes and words."""
    return [text[at : at + size] for at in range(0, len(text), size)]
