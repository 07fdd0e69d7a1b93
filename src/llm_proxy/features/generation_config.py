"""Objects in the form of Gemini's `generationConfig`, as people write them: in either spelling, checked by nobody but Google.

Pure. Owns how two of them become one and how members are taken out; that only Gemini gets them is the business of its dialect.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

THINKING: Final = "thinkingconfig"
# Of the members of a line one object may hold one.
_ALTERNATIVES: Final = (
    frozenset(("thinkingbudget", "thinkinglevel")),
    frozenset(("responseschema", "responsejsonschema", "_responsejsonschema")),
)


def plain_name(name: str) -> str:
    """The form in which names are compared: `topK`, `top_k` -> `topk`. A leading `_` belongs to the name."""
    return name[:1] + name[1:].replace("_", "").lower() if name.startswith("_") else name.replace("_", "").lower()


def merged(strong: Mapping[str, Any], weak: Mapping[str, Any]) -> dict[str, Any]:
    """`strong` and, at every depth, what only `weak` says. Schemas are taken whole."""
    out = dict(strong)
    spelled = {plain_name(name): name for name in strong}
    for name, value in weak.items():
        plain = plain_name(name)
        known = spelled.get(plain)
        if known is None:
            if not any(plain in group and group & spelled.keys() for group in _ALTERNATIVES):
                out[name] = value
        elif isinstance(out[known], dict) and isinstance(value, dict) and plain not in _ALTERNATIVES[1]:
            out[known] = merged(out[known], value)
    return out


def without(config: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """`config` without the members of these plain names; `thinkingconfig` takes out how much to think, not whether it is shown."""
    out: dict[str, Any] = {}
    for name, value in config.items():
        plain = plain_name(name)
        if plain not in names:
            out[name] = value
        elif plain == THINKING and isinstance(value, Mapping):
            rest = {inner: item for inner, item in value.items() if plain_name(inner) not in _ALTERNATIVES[0]}
            if rest:
                out[name] = rest
    return out
