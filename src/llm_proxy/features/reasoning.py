"""What rooms that shape reasoning have in common: words and numbers as a `Reasoning`, and how one is laid over another.

Pure. Knows neither where a value was configured nor what a target makes of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from llm_proxy.conversation.request import EFFORTS, Effort, Reasoning


def effort_word(word: object) -> Effort | None:
    """The effort that `word` means, None when it means none of them."""
    word = "max" if word == "maximum" else word
    return next((effort for effort in EFFORTS if effort == word), None)


def of_effort(effort: Effort) -> Reasoning:
    return Reasoning("off") if effort == "none" else Reasoning("effort", effort=effort)


def of_budget(budget: int, effort: Effort | None = None) -> Reasoning:
    """`budget` in tokens: -1 lets the model decide, 0 switches off. `effort` is what was said beside it."""
    effort = None if effort == "none" else effort
    match budget:
        case 0:
            return Reasoning("off")
        case -1:
            return Reasoning("auto", effort=effort, budget=-1)
        case _:
            return Reasoning("budget", effort=effort, budget=budget)


def wanted(budget: int | None, effort: Effort | None) -> Reasoning | None:
    """A number of tokens says more than an effort; None when there is neither."""
    if budget is not None:
        return of_budget(budget, effort)
    return None if effort is None else of_effort(effort)


def says_how_much(asked: Reasoning | None) -> bool:
    """False where nothing is said, or only that reasoning is welcome, or whether it is shown."""
    return asked is not None and (asked.mode != "auto" or asked.effort is not None or asked.budget is not None)


def shown_as(ours: Reasoning, asked: Reasoning | None, values: Mapping[str, Any]) -> Reasoning:
    """`ours` with what the request says on showing it; where it says nothing the session's `exclude` counts."""
    if asked is not None:
        visible = ours.visible if asked.visible is None else asked.visible
        ours = msgspec.structs.replace(ours, visible=visible, summary=asked.summary)
    exclude = member(values, "exclude")
    if ours.visible is not None or not isinstance(exclude, bool):
        return ours
    return msgspec.structs.replace(ours, visible=not exclude)


def member(values: Mapping[str, Any], name: str) -> object:
    """A member of the session's key `reasoning`; a kept session may hold an older form."""
    given = values.get("reasoning")
    return given.get(name) if isinstance(given, Mapping) else None
