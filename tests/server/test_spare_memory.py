"""P11: what was freed between pieces of memory that live on goes back to the system.

Each in a process of its own: what the C library has free before, and where, is another thing in a process with a history.
"""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PIECE = 24 * 1024
"""Bytes."""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked to give memory back")

_FREED = """
import sys
from llm_proxy.server import spare_memory
from llm_proxy.server.process_figures import resident_bytes

size, count, before, after = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
exec(before)
larger = b"x" * (8 * 1024 * 1024)
del larger  # glibc takes this for the size from which on a piece gets pages of its own, unless it was told one
pieces = [b"%04d" % number * (size // 4) for number in range(count)]
kept = pieces[::10]
full = resident_bytes()
del pieces
exec(after)
print(full - resident_bytes())
"""


def test_holes_between_what_lives_on_go_back_to_the_system() -> None:
    assert _freed(PIECE, 2000) < PIECE * 2000 * 0.5
    assert _freed(PIECE, 2000, after="spare_memory.give_back()") > PIECE * 2000 * 0.5


def test_large_pieces_go_back_at_once_also_after_larger_ones_were_freed() -> None:
    assert _freed(4 * PIECE, 200) < 4 * PIECE * 200 * 0.5
    assert _freed(4 * PIECE, 200, before="spare_memory.settle()") > 4 * PIECE * 200 * 0.5


def _freed(size: int, count: int, *, before: str = "", after: str = "") -> int:
    """Bytes that the process has less after it frees nine of ten pieces."""
    command = [sys.executable, "-c", _FREED, str(size), str(count), before, after]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)
