"""P11: what a request has used is given back as soon as it has ended, in every pair of protocols, whatever went wrong with it.

Objects that refer to one another in a circle stay in memory until the interpreter looks for them, which a busy process does seldom: a proxy
under load grew by 70 MiB in 100 000 requests by nothing else.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.e2e.house import in_process
from tests.faults.soak import mix
from tests.faults.soak.load import Clients
from tests.faults.soak.provider import Provider
from tests.faults.soak.run import settings
from tests.support.upstream import upstream_in_thread

REQUESTS: Final = 192
SECONDS: Final = 2.0
OURS: Final = ("llm_proxy", "aiohttp", "uvloop")
"""Packages whose objects only the proxy makes here; the clients of this test use nothing of them."""
MOST: Final = 12
"""Objects: each of the few answers that break off in the middle may leave some."""


@contextmanager
def kept_garbage() -> Iterator[list[Any]]:
    """What only the collector can free, of all that was let go of in the meantime; nothing is collected before the end."""
    found: list[Any] = []
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def test_a_request_leaves_no_circle_of_objects_behind(tmp_path: Path) -> None:
    with upstream_in_thread(Provider().script) as upstream:
        config = settings(upstream.url)
        del config["logging"]["file"]
        with in_process(tmp_path, config) as running:
            port = running._address[1]
            asyncio.run(Clients(port).run(0, 50, 1))  # what is made at the first request
            with kept_garbage() as garbage:
                asyncio.run(Clients(port).run(mix.POPULAR, REQUESTS / SECONDS, SECONDS))
                until = time.monotonic() + 10
                while running.house.running.active and time.monotonic() < until:
                    running.get("/health")  # those whose clients have left come to their end
                assert not running.house.running.active
            ours = Counter(
                f"{type(one).__module__}.{type(one).__qualname__}"
                for one in garbage
                if type(one).__module__.startswith(OURS)
            )
            assert ours.total() <= MOST, ours.most_common(20)
