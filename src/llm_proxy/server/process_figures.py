"""What the operating system says of this process: memory, open descriptors. None where a system does not tell it cheaply."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

_STATEMENT: Final = Path("/proc/self/statm")
_DESCRIPTORS: Final = ("/proc/self/fd", "/dev/fd")


def resident_bytes() -> int | None:
    """Memory in use now."""
    try:
        return int(_STATEMENT.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def peak_bytes() -> int | None:
    """The most memory that was in use at any time."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def open_descriptors() -> int | None:
    for directory in _DESCRIPTORS:
        try:
            return len(os.listdir(directory)) - 1  # without the one that lists
        except OSError:
            continue
    return None
