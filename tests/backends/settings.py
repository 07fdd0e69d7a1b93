"""Settings of back ends as tests write them."""

from __future__ import annotations

from typing import Any

from llm_proxy.config.backends import BackendSettings
from llm_proxy.config.kinds import NamedKey
from llm_proxy.wire.secrets import Secret


def named_keys(*values: str) -> tuple[NamedKey, ...]:
    """Keys named by their own value, so that a test can read which one was used."""
    return tuple(NamedKey(value, Secret(value)) for value in values)


def backend_settings(id: str, type: str = "", *keys: str, **members: Any) -> BackendSettings:
    """An instance; `type` defaults to the id."""
    return BackendSettings(id=id, type=type or id, keys=named_keys(*keys), **members)
