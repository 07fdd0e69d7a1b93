"""The house of the scripted agent; nothing of it runs on after a test."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.backends.acp.house import House


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    if sys.platform != "linux":
        pytest.skip("looks at /proc to see which processes are left")
    house = House(tmp_path)
    yield house
    for backend in house.backends:
        await backend.close()
    assert house.left() == {}
