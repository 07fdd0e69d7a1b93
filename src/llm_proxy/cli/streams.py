"""Standard streams as whoever starts the program leaves them: closed, a full disk, a pipe that nobody reads.

Owns that none of this ends a proxy or shows a traceback. Knows nothing of what is printed.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Final, TextIO

# What a write to a full disk, beyond a quota or to a terminal that is gone fails with.
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EFBIG, errno.EIO, *([errno.EDQUOT] if hasattr(errno, "EDQUOT") else [])})


def open_closed() -> None:
    """Puts the null device where a standard stream is closed: else a database that is opened next gets the number of standard error,
    and what was meant for a terminal is written into it."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)


def say(text: str) -> None:
    """A line on standard error, for a person who may not be there."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass  # what matters is in the log as well


def forget_unwritten() -> None:
    """Flushes both streams; where that fails, what is left goes nowhere, or the interpreter would end with a status of its own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _drop(stream)


def _drop(stream: TextIO) -> None:
    try:
        number = stream.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)
        stream.flush()
    except (OSError, ValueError):
        pass  # no file behind it
