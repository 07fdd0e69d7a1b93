"""One proxy with back end demo, and one in front of a scripted provider, for all tests of a run that do not change them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e import commanding
from tests.e2e.asking import Scene, say, shared_backends, started
from tests.server.process import Proxy
from tests.support import sdk
from tests.support.upstream import upstream_in_thread


@pytest.fixture(scope="session")
def demo() -> Iterator[Proxy]:
    with started() as proxy:
        yield proxy
    sdk.close_clients()


@pytest.fixture(scope="session")
def shared_scene() -> Iterator[Scene]:
    with upstream_in_thread(say) as upstream:
        with started(config={"backends": shared_backends(upstream.url)}) as proxy:
            yield Scene(proxy, upstream)
        sdk.close_clients()


@pytest.fixture
def scene(shared_scene: Scene) -> Scene:
    """The shared proxy; the provider says a few words until the test plays something else."""
    shared_scene.play(say)
    return shared_scene


@pytest.fixture(scope="session")
def shared_commanded() -> Iterator[Scene]:
    with upstream_in_thread(say) as upstream:
        with started(config=commanding.config(upstream.url)) as proxy:
            yield Scene(proxy, upstream)
        sdk.close_clients()


@pytest.fixture
def commanded(shared_commanded: Scene) -> Scene:
    """A proxy for commands: each test has sessions of its own, and routes of names of its own."""
    shared_commanded.play(say)
    return shared_commanded


@pytest.fixture
def changed() -> Iterator[Scene]:
    """A proxy that a test may change for all."""
    with upstream_in_thread(say) as upstream, started(config=commanding.config(upstream.url)) as proxy:
        yield Scene(proxy, upstream)
