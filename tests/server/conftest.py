"""One proxy process with back end demo for all tests of a run that do not change it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.process import Proxy, running


@pytest.fixture(scope="session")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder: Path = tmp_path_factory.mktemp("proxy")
    # Many tests present wrong keys, and all come from one address.
    with running(folder, "--max-request-bytes", "1000000", "--disable-brute-force-protection") as started:
        yield started
