"""Which defaults and limits hold for a model at a back-end (CFG-10). Pure look-up in the settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from llm_proxy.config.groups import BackendGeneralOptions
from llm_proxy.config.kinds import ModelDefaults, ModelLimits
from llm_proxy.config.settings import Settings


def model_defaults_for(settings: Settings, backend_id: str, model: str) -> ModelDefaults:
    """The entry for `model` at `backend_id`: `backend:model`, `backend/model`, `model`, else the longest pattern.

    Limits that stand with the back-end's own `models` belong to `backend:model`: they complete such an entry,
    and win over those of a less exact one.
    """
    declared = settings.get(BackendGeneralOptions).model_defaults
    exact = f"{backend_id}:{model}"
    found = _find(declared, backend_id, model)
    backend = settings.backends.get(backend_id)
    own = backend.models.get(model) if backend else None
    if own is None or own == ModelLimits():
        return found
    limits = _over(found.limits, own) if exact in declared else _over(own, found.limits)
    return msgspec.structs.replace(found, limits=limits)


def configured_limits(settings: Settings) -> Iterator[ModelLimits]:
    """The limits of every model for which some are written down, whatever they are."""
    for entry in settings.get(BackendGeneralOptions).model_defaults.values():
        yield entry.limits
    for backend in settings.backends.values():
        yield from backend.models.values()


def _find(declared: Mapping[str, ModelDefaults], backend_id: str, model: str) -> ModelDefaults:
    names = (f"{backend_id}:{model}", f"{backend_id}/{model}", model)
    for name in names:
        if name in declared:
            return declared[name]
    patterns = [key for key in declared if "*" in key and _matches(key, names)]
    return declared[max(patterns, key=len)] if patterns else ModelDefaults()


def _matches(pattern: str, names: Iterable[str]) -> bool:
    pieces = pattern.split("*")
    return any(_fits(pieces, name) for name in names)


def _fits(pieces: Sequence[str], name: str) -> bool:
    """Do the pieces between the stars stand in `name` in order, the first at its beginning, the last at its end?

    The first place that fits a piece leaves most for those behind it, so nothing is ever tried again.
    """
    first, *middle, last = pieces
    if len(name) < len(first) + len(last) or not (name.startswith(first) and name.endswith(last)):
        return False
    at, end = len(first), len(name) - len(last)
    for piece in middle:
        found = name.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def _over(strong: ModelLimits, weak: ModelLimits) -> ModelLimits:
    """Each limit of `strong`, and of `weak` where `strong` is silent."""
    given = {name: value for name, value in msgspec.structs.asdict(strong).items() if value is not None}
    return msgspec.structs.replace(weak, **given)
