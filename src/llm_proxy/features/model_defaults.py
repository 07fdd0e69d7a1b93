"""Values of `model_defaults` where nobody else has set any (REQ-10): neither the request, nor the session, nor a reasoning mode.

Owns the order of the sources and which members are filled. The entry of a model is looked up in the settings, per try, so that each
element of a route has its own; what the target takes of it is its dialect's business.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from llm_proxy.config import ModelDefaults as Defaults
from llm_proxy.config import Settings, model_defaults_for
from llm_proxy.config.groups import BackendGeneralOptions
from llm_proxy.conversation.request import Request
from llm_proxy.features import Feature
from llm_proxy.features.exchange import ExchangeView
from llm_proxy.features.generation_config import THINKING, merged, plain_name, without
from llm_proxy.features.reasoning import effort_word, says_how_much, shown_as, wanted

_SAMPLED = ("temperature", "top_p")
_SHAPING = (*_SAMPLED, "max_tokens", "reasoning_effort", "thinking_budget", "generation_config")


class ModelDefaults(Feature):
    """Without an entry that shapes requests it costs one look at a flag; with some, one at a small table."""

    name = "model defaults"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        declared = settings.get(BackendGeneralOptions).model_defaults
        self._any = any(_shapes(entry) for entry in declared.values())
        # Names of models come from clients: what is remembered of them is bounded.
        self._entry = lru_cache(maxsize=512)(self._find)

    def _find(self, backend: str, model: str) -> Defaults | None:
        found = model_defaults_for(self._settings, backend, model)
        return found if _shapes(found) else None

    def concerns(self, exchange: ExchangeView) -> bool:
        return self._any and self._entry(exchange.backend, exchange.model) is not None

    def on_attempt(self, exchange: ExchangeView, request: Request) -> Request:
        entry = self._entry(exchange.backend, exchange.model) if self._any else None
        if entry is None:
            return request
        changes: dict[str, Any] = {}
        added = set(request.added)
        missing = {
            name: value
            for name in _SAMPLED
            if getattr(request.sampling, name) is None and (value := getattr(entry, name)) is not None
        }
        if missing:
            changes["sampling"] = msgspec.structs.replace(request.sampling, **missing)
            added |= missing.keys()
        if request.max_output_tokens is None and entry.max_tokens is not None:
            changes["max_output_tokens"] = entry.max_tokens
            added.add("max_output_tokens")
        ours = wanted(entry.thinking_budget, effort_word(entry.reasoning_effort))
        if ours is not None and not says_how_much(request.reasoning):
            changes["reasoning"] = shown_as(ours, request.reasoning, exchange.session.values)
            added.add("reasoning")
        if entry.generation_config and (config := _for_gemini(entry.generation_config, request)):
            changes["gemini"] = merged(request.gemini, config)
        if not changes:
            return request
        filled = request.filled | missing.keys()
        return msgspec.structs.replace(request, added=frozenset(added), filled=filled, **changes)


def _shapes(entry: Defaults) -> bool:
    return any(getattr(entry, name) is not None for name in _SHAPING)


def _for_gemini(config: Any, request: Request) -> dict[str, Any]:
    """The default generationConfig without what request or session say for all models: for Gemini, too, their word counts more."""
    said = {plain_name(name) for name in _SAMPLED if getattr(request.sampling, name) is not None}
    if request.max_output_tokens is not None:
        said.add("maxoutputtokens")
    if says_how_much(request.reasoning):
        said.add(THINKING)
    return without(config, said)
