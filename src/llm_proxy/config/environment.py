"""Environment variables: the `.env` file below the real ones, numbered names, generic `LLM_PROXY__A__B`
names.

Knows names and raw text only; types and options are the business of others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from llm_proxy.config.document import MAX_FILE_BYTES, Node, Place, Problem
from llm_proxy.config.kinds import unquote
from llm_proxy.config.options import NUMBERED

GENERIC_PREFIX: Final = "LLM_PROXY__"

_LINE: Final = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)$", re.DOTALL)


class Environment(msgspec.Struct, frozen=True):
    """The real variables and those of `.env`. Empty values count as unset, quotes and blanks are removed."""

    real: Mapping[str, str]
    file: Mapping[str, str]
    merged: Mapping[str, str]

    def find(self, names: tuple[str, ...]) -> Node | None:
        """The first set name, real variables before those of `.env`."""
        for name in names:
            if value := self.real.get(name):
                return Node(value, Place(f"env {name}"), text=True)
        for name in names:
            if value := self.file.get(name):
                return Node(value, Place(f"env {name} (.env)"), text=True)
        return None

    def numbered(self, name: str) -> Iterator[tuple[str, Node]]:
        """`NAME`, then `NAME_1` to `NAME_20`, those that are set."""
        for numbered in (name, *(f"{name}_{number}" for number in range(1, NUMBERED + 1))):
            if node := self.find((numbered,)):
                yield numbered, node

    def generic(self) -> Iterator[tuple[tuple[str, ...], Node]]:
        """The segments, in lower case, and the value of each `LLM_PROXY__A__B`."""
        for name in sorted(self.merged):
            if name.upper().startswith(GENERIC_PREFIX) and (node := self.find((name,))):
                yield tuple(name[len(GENERIC_PREFIX) :].lower().split("__")), node


def merge_environment(environ: Mapping[str, str], file: Mapping[str, str]) -> Environment:
    """Real variables over those of a file."""
    real = {name: text for name, value in environ.items() if (text := unquote(value))}
    below = {name: text for name, value in file.items() if (text := unquote(value))}
    return Environment(real=real, file=below, merged={**below, **real})


def read_env_file(path: Path, problems: list[Problem], warnings: list[str]) -> dict[str, str]:
    """The variables of a `.env` file; unreadable lines draw a warning that does not quote them."""
    try:
        data = path.read_bytes()[:MAX_FILE_BYTES]
    except OSError as error:
        problems.append(Problem(Place(str(path)), f"cannot be read: {error.strerror or error}"))
        return {}
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        problems.append(Problem(Place(str(path)), "expected UTF-8 text"))
        return {}
    found: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if match := _LINE.match(stripped):
            found[match[1]] = _without_comment(match[2])
        else:
            warnings.append(f"{path}:{number}: expected NAME=value; the line is ignored")
    return found


def _without_comment(value: str) -> str:
    # The quotes stay: one pair of them is removed later, as it is for every variable.
    if value[:1] in {'"', "'"} and (end := value.find(value[0], 1)) > 0:
        return value[: end + 1]
    return re.split(r"(?:^|\s)#", value, maxsplit=1)[0].strip()
