"""Memory that was freed and that the C library keeps goes back to the system, so that a process under load for weeks does not grow (P11).

Texts of all sizes come and go; what lives long ends up between the holes that they leave, and the library gives back only what is free at
the end of its heap.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable


def give_back() -> None:
    """Takes some milliseconds. Does nothing where the C library has no such function (all but glibc)."""
    if (trim := _trim()) is not None:
        trim(0)


@functools.cache
def _trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    found: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return found
