"""BE-01, RT-03: which back ends exist, which are functional, and which serves requests that name none."""

from __future__ import annotations

from typing import Any

from llm_proxy.backends.registry import Backends
from llm_proxy.backends.transport import Transport
from llm_proxy.config.backends import BackendSettings
from tests.backends.settings import backend_settings


def backends(*settings: BackendSettings, **options: Any) -> Backends:
    return Backends({instance.id: instance for instance in settings}, Transport(environ={}), **options)


def functional(registry: Backends) -> list[str]:
    return [backend.id for backend in registry.functional]


def test_built_in_ids_exist_without_configuration() -> None:
    registry = backends()
    for id in (
        "openai",
        "anthropic",
        "gemini",
        "openrouter",
        "zai",
        "zai-coding-plan",
        "openai-responses",
        "demo",
    ):
        assert id in registry
        assert registry.get(id) is not None
    assert "nosuch" not in registry
    assert registry.get("nosuch") is None


def test_with_openai_key_only_openai_and_demo_are_functional() -> None:
    registry = backends(
        backend_settings("openai", "", "k"),
        backend_settings("openai-responses", "", "k", borrowed_key=True),
    )
    assert functional(registry) == ["openai", "demo"]


def test_a_borrowed_key_serves_when_the_id_is_named() -> None:
    registry = backends(backend_settings("openai-responses", "", "k", borrowed_key=True))
    backend = registry.get("openai-responses")
    assert backend is not None
    assert (backend.usable, backend.functional) == (True, False)
    mentioned = backends(backend_settings("openai-responses", "", "k", borrowed_key=True, mentioned=True))
    assert functional(mentioned) == ["openai-responses", "demo"]


def test_lookup_ignores_case() -> None:
    registry = backends(backend_settings("local", "openai", no_auth=True))
    assert "LOCAL" in registry
    assert registry.get("Local") is registry.get("local")


def test_without_any_key_demo_is_the_default() -> None:
    assert backends().default.id == "demo"


def test_the_first_functional_one_is_the_default_in_order_of_declaration() -> None:
    registry = backends(
        backend_settings("zai"),
        backend_settings("local", "openai", no_auth=True),
        backend_settings("anthropic", "", "k"),
    )
    assert registry.default.id == "local"
    assert functional(registry) == ["local", "anthropic", "demo"]


def test_demo_is_no_default_while_another_is_functional() -> None:
    registry = backends(backend_settings("demo"), backend_settings("openai", "", "k"))
    assert registry.default.id == "openai"


def test_a_configured_default_stays_although_it_is_not_usable() -> None:
    registry = backends(backend_settings("openai", "", "k"), default="Gemini")
    assert registry.default.id == "gemini"
    assert not registry.default.usable


def test_a_disabled_back_end_is_known_but_not_functional() -> None:
    registry = backends(backend_settings("openai", "", "k", enabled=False), backend_settings("demo", enabled=False))
    assert functional(registry) == []
    assert "openai" in registry
    backend = registry.get("openai")
    assert backend is not None and not backend.usable


async def test_listed_models_carry_the_back_ends_id() -> None:
    registry = backends()
    demo = registry.get("demo")
    assert demo is not None
    models = await registry.models(demo)
    assert {"demo:echo", "demo:tools", "demo:slow"} <= {model.id for model in models}
    assert all(model.owner == "demo" for model in models)
    await registry.close()
