"""What the tests of back ends share: a transport that is closed in the end, and settings of an instance."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from llm_proxy.backends.transport import Transport


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transport = Transport(environ={})
    yield transport
    await transport.close()
