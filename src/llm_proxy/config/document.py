"""A YAML or JSON file as a tree of nodes that remember line and column.

Strict YAML 1.2: duplicate keys are errors, keys that begin with `x-` vanish, anchors and `<<` work. Also
replaces `${NAME}` in text. Must not know which keys mean something.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import msgspec

if TYPE_CHECKING:
    from ruamel.yaml.nodes import MappingNode

# An alias bomb of a few lines can stand for billions of nodes; no honest file comes near these.
MAX_NODES: Final = 200_000
MAX_DEPTH: Final = 60
MAX_FILE_BYTES: Final = 16 * 1024 * 1024
_PIECE: Final = 64 * 1024

_REFERENCE: Final = re.compile(r"\$(\$\{)|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


class Place(msgspec.Struct, frozen=True):
    """Where a value was written: a file position, or the name of a flag or variable."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source

    @property
    def short(self) -> str:
        """As `config show` names it: file and line, or the flag or variable."""
        return f"{self.source}:{self.line}" if self.line else self.source


class Node(msgspec.Struct):
    """One value. `text` marks values that came as text and may still be read as a number or a boolean."""

    value: dict[str, Node] | list[Node] | str | int | float | bool | None
    place: Place
    key_place: Place | None = None
    text: bool = False
    reference: bool = False


class Problem(msgspec.Struct, frozen=True):
    """One error of the configuration, with the place that orders it among others."""

    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


class ConfigError(Exception):
    """The configuration cannot be used: every problem found, at most 20, ready to be printed line by line."""

    LIMIT = 20

    def __init__(self, errors: list[str]) -> None:
        shown = errors[: self.LIMIT]
        if len(errors) > self.LIMIT:
            shown[-1] = f"… and {len(errors) - self.LIMIT + 1} more"
        super().__init__("\n".join(shown))
        self.errors = shown


def read_document(path: Path, shown: str, problems: list[Problem]) -> Node | None:
    """The tree of a YAML or JSON file, or None after adding to `problems`."""
    text = read_text(path, shown, problems)
    return None if text is None else parse_document(text, shown, problems)


def read_text(path: Path, shown: str, problems: list[Problem]) -> str | None:
    """The text of a file, or None after adding to `problems`."""
    top = Place(shown)
    try:
        with path.open("rb") as file:
            data = _read_at_most(file, MAX_FILE_BYTES + 1)
    except OSError as error:
        problems.append(Problem(top, f"cannot be read: {error.strerror or error}"))
        return None
    if len(data) > MAX_FILE_BYTES:
        problems.append(Problem(top, f"is larger than {MAX_FILE_BYTES} bytes"))
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        problems.append(Problem(Place(shown, line, column), "expected UTF-8 text"))
        return None


def _read_at_most(file: BinaryIO, most: int) -> bytes:
    """`file.read(most)` would take memory for all of `most`, however small the file is."""
    pieces: list[bytes] = []
    while most > 0 and (piece := file.read(min(most, _PIECE))):
        pieces.append(piece)
        most -= len(piece)
    return b"".join(pieces)


def parse_document(text: str, shown: str, problems: list[Problem]) -> Node | None:
    """The tree of a YAML or JSON text, or None after adding to `problems`."""
    # Imported late: a start without a file must not pay for the parser.
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    parser = YAML(typ="safe", pure=True)
    try:
        root = parser.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(shown, mark.line + 1, mark.column + 1) if mark else Place(shown)
        problems.append(Problem(place, str(error.problem or error.context or "not valid YAML")))
        return None
    except (YAMLError, RecursionError, ValueError) as error:
        problems.append(Problem(Place(shown), f"not valid YAML: {str(error).splitlines()[0] if str(error) else ''}"))
        return None
    if root is None:
        return Node({}, Place(shown))
    return _Tree(shown, problems).build(root, "", 0)


def resolve_references(
    node: Node, environ: Mapping[str, str], path: str, problems: list[Problem], warnings: list[str]
) -> Node | None:
    """`node` with each `${NAME}` replaced; None when it must be dropped because its variable is not set."""
    match node.value:
        case dict() as members:
            found = {
                name: resolve_references(member, environ, f"{path}.{name}" if path else name, problems, warnings)
                for name, member in members.items()
            }
            node.value = {name: member for name, member in found.items() if member is not None}
        case list() as items:
            resolved = [resolve_references(item, environ, path, problems, warnings) for item in items]
            node.value = [item for item in resolved if item is not None]
        case str() as text if "${" in text:
            return _resolve_text(node, text, environ, path, problems, warnings)
    return node


def _resolve_text(
    node: Node, text: str, environ: Mapping[str, str], path: str, problems: list[Problem], warnings: list[str]
) -> Node | None:
    unset: list[str] = []

    def replace(match: re.Match[str]) -> str:
        if match[1]:
            return "${"
        if value := environ.get(match[2]):
            return value
        if match[3] is None:
            unset.append(match[2])
        return match[3] or ""

    value = _REFERENCE.sub(replace, text)
    if not unset:
        return Node(value, node.place, node.key_place, text=True, reference=True)
    names = " and ".join(dict.fromkeys(unset))
    if {"api_keys", "api_key"} & set(path.split(".")):
        warnings.append(f"{node.place}: {path}: {names} is not set; this key is left out")
        return None
    problems.append(Problem(node.place, f"{path}: the environment variable {names} is not set"))
    return None


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` was most likely meant to be."""
    # Imported late: only a mistake needs it.
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, list(known), 1)), None)


class _Tree:
    """Turns the parser's nodes into ours and refuses what is ambiguous."""

    def __init__(self, shown: str, problems: list[Problem]) -> None:
        self.shown = shown
        self.problems = problems
        self.count = 0

    def place(self, node: Any) -> Place:
        return Place(self.shown, node.start_mark.line + 1, node.start_mark.column + 1)

    def build(self, node: Any, path: str, depth: int) -> Node:
        self.count += 1
        place = self.place(node)
        if depth > MAX_DEPTH or self.count > MAX_NODES:
            if self.count <= MAX_NODES or self.count == MAX_NODES + 1:
                self.problems.append(Problem(place, f"{path}: nested too deeply or too large"))
            return Node(None, place)
        match type(node).__name__:
            case "MappingNode":
                return Node(self.members(node, path, depth), place)
            case "SequenceNode":
                items = [self.build(item, path, depth + 1) for item in node.value]
                return Node(list(items), place)
            case _:
                return Node(self.scalar(node, path), place)

    def members(self, node: MappingNode, path: str, depth: int) -> dict[str, Node]:
        members: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key, value in node.value:
            name = str(key.value) if isinstance(key.value, str) else ""
            where = self.place(key)
            here = f"{path}.{name}" if path else name
            if not name:
                self.problems.append(Problem(where, f"{path or 'file'}: expected a name as key"))
            elif name == "<<":
                for source in value.value if type(value).__name__ == "SequenceNode" else [value]:
                    inner = self.build(source, path, depth + 1)
                    if isinstance(inner.value, dict):
                        merged = {**inner.value, **merged}
                    else:
                        self.problems.append(Problem(where, f"{here}: expected a map to merge"))
            elif name.startswith("x-") and not path.endswith("headers"):
                continue
            elif name in members:
                self.problems.append(Problem(where, f"duplicate key {here}"))
            else:
                members[name] = self.build(value, here, depth + 1)
                members[name].key_place = where
        return {**merged, **members}

    def scalar(self, node: Any, path: str) -> str | int | float | bool | None:
        text = str(node.value)
        match str(node.tag).rpartition(":")[2]:
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                return _whole_number(text)
            case "float":
                return _fraction(text)
            case "str" | "timestamp" | "merge" | "value":
                return text
        self.problems.append(Problem(self.place(node), f"{path}: tags such as {node.tag} are not allowed"))
        return None


def _whole_number(text: str) -> int | str:
    digits = text.replace("_", "")
    bases = {"0x": 16, "0o": 8, "0b": 2}
    try:
        return int(digits, bases.get(digits[:2].lower(), 10))
    except ValueError:
        return text


def _fraction(text: str) -> float | str:
    word = text.lower().lstrip("+")
    if word.endswith((".inf", ".nan")):
        word = word.replace(".", "")
    try:
        return float(word.replace("_", ""))
    except ValueError:
        return text
