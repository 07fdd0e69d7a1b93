"""Standard streams as whoever starts the program leaves them: closed, a full disk, a pipe that nobody reads, an old code page.

Owns that none of this ends a proxy or shows a traceback. Knows nothing of what is printed.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Final, TextIO

# What a write to a full disk, beyond a quota or to a terminal that is gone fails with.
NO_ROOM: Final = frozenset(
    {errno.ENOSPC, errno.EFBIG, errno.EIO, *([errno.EDQUOT] if hasattr(errno, "EDQUOT") else [])}
)


def prepare() -> None:
    """Once, before anything is printed or opened."""
    _open_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file or pipe is read by programs, this one among them, and they read UTF-8, also where the system writes another code.
            is_for_programs = not stream.isatty() and "PYTHONIOENCODING" not in os.environ
            with suppress(OSError):  # what it is has changed since the interpreter looked
                stream.reconfigure(encoding="utf-8" if is_for_programs else None, errors="backslashreplace")


def _open_closed() -> None:
    """Puts the null device where a standard stream is closed: else a database that is opened next gets the number of standard error,
    and what was meant for a terminal is written into it."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def say(text: str) -> None:
    """A line on standard error, for a person who may not be there."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def forget_unwritten() -> None:
    """Flushes both streams; where that fails, what is left goes nowhere, or the interpreter would end with a status of its own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _drop(stream)


def _drop(stream: TextIO) -> None:
    with suppress(OSError, ValueError):  # there may be no file behind it
        number = stream.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)
        stream.flush()
