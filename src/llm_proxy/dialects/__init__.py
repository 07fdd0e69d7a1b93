"""The four wire protocols, each written once: request in and out, answer in and out, stream in and out, errors.

`get(name)` gives a `Dialect`; modules load on first use. A dialect knows bytes and meaning, never a socket, a clock or a log.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_proxy.dialects.base import Dialect

NAMES = ("openai-chat", "openai-responses", "anthropic-messages", "gemini")
_loaded: dict[str, Dialect] = {}


def get(name: str) -> Dialect:
    """The dialect called `name`. Raises KeyError for an unknown name."""
    if name not in _loaded:
        if name not in NAMES:
            raise KeyError(name)
        module = import_module(f"llm_proxy.dialects.{name.replace('-', '_')}")
        _loaded[name] = module.DIALECT
    return _loaded[name]
