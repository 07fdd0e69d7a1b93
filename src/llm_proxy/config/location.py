"""Which configuration, `.env` file and data directory are in force. Reads directories, never contents."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from llm_proxy.config.document import Node, Problem

CANDIDATES: Final = ("config.yaml", "config.yml", "config.json")
EXTENSIONS: Final = (".yaml", ".yml", ".json")
APPLICATION: Final = "llm-proxy"


def find_config(
    flag: Node | None, variable: Node | None, cwd: Path, environ: Mapping[str, str], problems: list[Problem]
) -> Path | None:
    """The configuration file to read, or None for none. A file named explicitly must exist.

    A missing .json, .yaml or .yml given by flag, in a directory that exists, counts as empty: a first run
    may create only its state file.
    """
    named = flag or variable
    if named is None:
        user = user_directory("config", environ) / "config.yaml"
        return next((path for path in (*(cwd / name for name in CANDIDATES), user) if path.is_file()), None)
    path = cwd / Path(str(named.value)).expanduser()
    if path.suffix.lower() not in EXTENSIONS:
        problems.append(Problem(named.place, f"{named.value}: unsupported extension, expected .yaml, .yml or .json"))
        return None
    if path.is_file() or (flag is not None and path.parent.is_dir() and not path.exists()):
        return path
    problems.append(Problem(named.place, f"{named.value}: no such file"))
    return None


def find_env_file(named: Node | None, cwd: Path, problems: list[Problem]) -> Path | None:
    """The `.env` file to read, or None. A file named explicitly must exist."""
    if named is None:
        path = cwd / ".env"
        return path if path.is_file() else None
    path = cwd / Path(str(named.value)).expanduser()
    if path.is_file():
        return path
    problems.append(Problem(named.place, f"{named.value}: no such file"))
    return None


def user_directory(purpose: str, environ: Mapping[str, str]) -> Path:
    """The user's directory of this application for `config` or `data`, by the platform's custom.

    On Linux and its like the given variables decide (XDG Base Directory), so that a caller with its own
    environment is not sent to the real user's files; elsewhere the platform is asked.
    """
    if sys.platform not in {"win32", "darwin"}:
        variable, below = {
            "config": ("XDG_CONFIG_HOME", ".config"),
            "data": ("XDG_DATA_HOME", ".local/share"),
        }[purpose]
        base = environ.get(variable, "")
        if base.startswith("/"):
            return Path(base) / APPLICATION
        if home := environ.get("HOME"):
            return Path(home) / below / APPLICATION
    import platformdirs

    if purpose == "config":
        return platformdirs.user_config_path(APPLICATION, appauthor=False)
    return platformdirs.user_data_path(APPLICATION, appauthor=False)


def display(path: Path, cwd: Path) -> str:
    """A path as messages show it: relative where that is shorter."""
    try:
        return str(path.relative_to(cwd))
    except ValueError:
        return str(path)
