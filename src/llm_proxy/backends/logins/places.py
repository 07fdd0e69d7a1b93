"""Where a user's files are, and how their paths are written for people.

Knows no vendor and reads no file.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def home() -> Path:
    """The user's home directory; `~` itself, in which nothing is, for a user who has none (a container's number without an entry)."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("~")


def expanded(text: str) -> Path:
    """A path as a variable holds it: `~` and `~name` are homes, and stay as they are where there is none."""
    return Path(os.path.expanduser(text))


def shown(path: Path) -> str:
    """A path as people write it: below the home directory with `~`."""
    with contextlib.suppress(ValueError):
        return str(Path("~") / path.relative_to(home()))
    return str(path)
