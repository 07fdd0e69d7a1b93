"""P11: what was freed between pieces of memory that live on goes back to the system."""

from __future__ import annotations

import platform

import pytest

from llm_proxy.server import spare_memory
from llm_proxy.server.process_figures import resident_bytes

PIECE = 24 * 1024
PIECES = 2000


pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked to give memory back")


def test_holes_between_what_lives_on_go_back_to_the_system() -> None:
    pieces = [b"%d" % number * (PIECE // 4) for number in range(1000, 1000 + PIECES)]
    kept = pieces[::10]
    full = resident_bytes()
    del pieces
    spare_memory.give_back()
    left = resident_bytes()
    assert full is not None and left is not None
    assert full - left > PIECE * PIECES * 0.5
    assert len(kept) == PIECES // 10


def test_large_pieces_go_back_at_once_also_after_larger_ones_were_freed() -> None:
    spare_memory.settle()
    larger = b"x" * (8 * 1024 * 1024)
    del larger  # else glibc would take this for the size from which on a piece gets pages of its own
    pieces = [b"%d" % number * PIECE for number in range(1000, 1200)]
    kept = pieces[::10]
    full = resident_bytes()
    del pieces
    left = resident_bytes()
    assert full is not None and left is not None
    assert full - left > 4 * PIECE * 200 * 0.5
    assert len(kept) == 20
