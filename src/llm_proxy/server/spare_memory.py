"""Memory that was freed and that the C library keeps goes back to the system, so that a process under load for weeks does not grow (P11).

Texts of all sizes come and go; what lives long ends up between the holes that they leave, and the library gives back only what is free at
the end of its heap. Left to itself glibc moves larger and larger pieces into that heap, up to 32 MiB. Everything here does nothing where
the C library is another one.
"""

from __future__ import annotations

import functools
import sys
from typing import Any, Final

_TRIM_THRESHOLD: Final = (-1, 128 * 1024)
_MMAP_THRESHOLD: Final = (-3, 64 * 1024)
"""Numbers of malloc.h, and bytes: larger pieces get pages of their own, which go back as soon as they are free."""


def settle() -> None:
    """Once, when the process begins to serve."""
    if (set_option := getattr(_library(), "mallopt", None)) is not None:
        set_option(*_TRIM_THRESHOLD)
        set_option(*_MMAP_THRESHOLD)


def give_back() -> None:
    """Takes some milliseconds at most."""
    if (trim := getattr(_library(), "malloc_trim", None)) is not None:
        trim(0)


@functools.cache
def _library() -> Any:
    """The C library; None where it is not looked for."""
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    return ctypes.CDLL(None)
