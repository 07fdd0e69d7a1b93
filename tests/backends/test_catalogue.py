"""BE-04: the catalogue of models slows nothing down and survives a provider that does not list."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llm_proxy.backends.base import Limits
from llm_proxy.backends.http import HttpBackend
from llm_proxy.backends.models import Catalogue
from llm_proxy.backends.transport import Transport
from llm_proxy.config.kinds import ModelLimits
from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.dialects.base import ModelInfo
from tests.backends.settings import backend_settings
from tests.support.upstream import Reply, Upstream


class Provider:
    """A list that is read on demand; `gate` holds the answer back."""

    def __init__(self, *models: str) -> None:
        self.models = [ModelInfo(id=name, context_window=1000) for name in models]
        self.reads = 0
        self.failing = False
        self.ended = False
        self.gate: asyncio.Event | None = None

    async def read(self) -> list[ModelInfo]:
        self.reads += 1
        if self.gate is not None:
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.ended = True
                raise
        if self.failing:
            raise FaultError(Fault(kind="unavailable", message="down"))
        return self.models


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def catalogue(provider: Provider, clock: Clock, ttl: float = 300.0, **members: Any) -> Catalogue:
    settings = backend_settings("x", "openai", "k", **members)
    return Catalogue(provider.read, settings, ("shipped-b", "shipped-a"), ttl=ttl, clock=clock)


async def names(catalogue: Catalogue) -> list[str]:
    return [model.id for model in await catalogue.models()]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_list_is_read_on_first_need_and_kept() -> None:
    provider, clock = Provider("b", "a"), Clock()
    models = catalogue(provider, clock)
    assert provider.reads == 0
    assert await names(models) == ["a", "b"]
    clock.now += 299
    assert await names(models) == ["a", "b"]
    assert provider.reads == 1


async def test_an_old_list_is_refreshed_in_the_background() -> None:
    provider, clock = Provider("a"), Clock()
    models = catalogue(provider, clock)
    await names(models)
    clock.now += 301
    provider.models = [ModelInfo(id="new")]
    assert await names(models) == ["a"]
    await settle()
    assert await names(models) == ["new"]
    assert provider.reads == 2


async def test_two_listings_at_once_are_one_request() -> None:
    provider = Provider("a")
    provider.gate = asyncio.Event()
    models = catalogue(provider, Clock())
    both = asyncio.gather(names(models), names(models))
    await settle()
    provider.gate.set()
    assert await both == [["a"], ["a"]]
    assert provider.reads == 1


async def test_who_stops_waiting_does_not_end_the_read() -> None:
    provider = Provider("a")
    provider.gate = asyncio.Event()
    models = catalogue(provider, Clock())
    impatient = asyncio.ensure_future(names(models))
    await settle()
    impatient.cancel()
    patient = asyncio.ensure_future(names(models))
    await settle()
    provider.gate.set()
    assert await patient == ["a"]
    assert provider.reads == 1


async def test_a_failing_list_falls_back_and_is_tried_again_after_a_minute() -> None:
    provider, clock = Provider("a"), Clock()
    provider.failing = True
    models = catalogue(provider, clock)
    assert await names(models) == ["shipped-a", "shipped-b"]
    assert models.failed
    clock.now += 59
    await names(models)
    assert provider.reads == 1
    provider.failing = False
    clock.now += 2
    assert await names(models) == ["a"]
    assert not models.failed


async def test_a_failed_refresh_keeps_the_last_list() -> None:
    provider, clock = Provider("a"), Clock()
    models = catalogue(provider, clock)
    await names(models)
    provider.failing = True
    clock.now += 301
    await names(models)
    await settle()
    assert await names(models) == ["a"]


async def test_pinned_models_need_no_request() -> None:
    provider = Provider("a")
    models = catalogue(provider, Clock(), models={"mine": ModelLimits()}, pinned=True)
    assert await names(models) == ["mine"]
    assert provider.reads == 0


async def test_limits_come_from_configuration_then_the_list_then_the_documentation() -> None:
    configured = {
        "a": ModelLimits(context_window=5),
        "c": ModelLimits(max_output_tokens=7, max_input_tokens=3),
    }
    models = catalogue(Provider("a", "b"), Clock(), models=configured)
    await names(models)
    assert models.limits("a", 9) == Limits(context_window=5, max_output=9)
    assert models.limits("b", 9) == Limits(context_window=1000, max_output=9)
    assert models.limits("c", 9) == Limits(max_output=7, max_input=3)
    assert models.limits("unknown") == Limits()
    assert await names(models) == ["a", "b", "c"]


async def test_closing_ends_a_read_that_is_under_way() -> None:
    provider = Provider("a")
    provider.gate = asyncio.Event()
    models = catalogue(provider, Clock())
    waiting = asyncio.ensure_future(names(models))
    await settle()
    await models.close()
    assert await waiting == ["shipped-a", "shipped-b"], "whoever waited gets what is known"
    assert provider.ended


async def test_a_list_that_is_long_overdue_is_waited_for_no_more() -> None:
    """BE-04: the catalogue slows nothing: those who ask while a read hangs get what is known, and are told that it is not the list."""
    provider, clock = Provider("a"), Clock()
    provider.gate = asyncio.Event()
    models = catalogue(provider, clock)
    waiting = asyncio.ensure_future(names(models))
    await settle()
    assert not models.failed
    clock.now += 6
    assert await names(models) == ["shipped-a", "shipped-b"]
    assert models.failed
    provider.gate.set()
    await waiting
    assert await names(models) == ["a"]
    assert not models.failed


# ---- over the wire


@pytest.mark.parametrize(
    ("type_", "base", "target", "body"),
    [
        ("openai", "/v1", "/v1/models", {"object": "list", "data": [{"id": "m-1", "object": "model"}]}),
        (
            "openai-responses",
            "/v1",
            "/v1/models",
            {"object": "list", "data": [{"id": "m-1", "object": "model"}]},
        ),
        ("zai", "/v4", "/v4/models", {"object": "list", "data": [{"id": "m-1", "object": "model"}]}),
        (
            "anthropic",
            "/v1",
            "/v1/models?limit=1000",
            {"data": [{"type": "model", "id": "m-1"}], "has_more": False},
        ),
        ("gemini", "", "/v1beta/models?pageSize=1000", {"models": [{"name": "models/m-1"}]}),
    ],
)
async def test_each_types_list_is_read(transport: Transport, type_: str, base: str, target: str, body: object) -> None:
    async with Upstream(Reply.json(body)) as upstream:
        settings = backend_settings("x", type_, "k", base_url=upstream.url + base)
        backend = HttpBackend(settings, transport, clock=lambda: 0.0)
        assert [model.id for model in await backend.models()] == ["m-1"]
        assert upstream.requests[0].target == target
        assert "k" in str([value for name, value in upstream.requests[0].headers])


async def test_a_list_that_answers_404_shows_the_shipped_one(transport: Transport) -> None:
    """BE-12: given `/models` 404, then the shipped list shows."""
    async with Upstream(Reply.json({"error": "no"}, status=404)) as upstream:
        settings = backend_settings("zai", "zai", "k", base_url=upstream.url)
        backend = HttpBackend(settings, transport, clock=lambda: 0.0)
        listed = [model.id for model in await backend.models()]
        assert {"glm-4.5", "glm-4.5-air", "glm-4.5-flash"} <= set(listed)


@pytest.mark.parametrize("body", [b"<html>no</html>", b"[]", b"{", b'{"data": 7}', b"null"])
async def test_an_unreadable_list_shows_the_shipped_one(transport: Transport, body: bytes) -> None:
    async with Upstream(Reply(body=body)) as upstream:
        settings = backend_settings("openai", "openai", "k", base_url=upstream.url)
        backend = HttpBackend(settings, transport, clock=lambda: 0.0, fallback_models=("mine",))
        assert [model.id for model in await backend.models()] in (["mine"], [])
