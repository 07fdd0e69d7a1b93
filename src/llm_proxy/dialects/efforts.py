"""One scale for how much a model thinks: words and token budgets, and what a target accepts of them.

Owns the tables of protocols/translation.md section 4, "Reasoning controls", and which words a client may say. Knows no
protocol's fields.
"""

from __future__ import annotations

from typing import Any, Final, cast

from llm_proxy.conversation.fault import bad_request
from llm_proxy.conversation.request import EFFORTS, Effort, Reasoning
from llm_proxy.wire.json import decode_object, rewrite

MAXIMUM: Final = "maximum"
"""The proxy's own word for `max`, in every place where an effort is named."""

_BUDGETS: Final[dict[Effort, int]] = {
    "none": 0,
    "minimal": 1024,
    "low": 2048,
    "medium": 8192,
    "high": 16384,
    "xhigh": 32768,
    "max": 65536,
}
# The greatest budget that any Gemini takes is 32768.
_GEMINI_BUDGETS: Final[dict[Effort, int]] = {**_BUDGETS, "low": 1024, "high": 24576, "max": 32768}
_STEPS: Final[tuple[tuple[int, Effort], ...]] = (
    (0, "none"), (1024, "minimal"), (4096, "low"), (12288, "medium"), (24576, "high"), (49152, "xhigh"),
)  # fmt: skip


# What a client says.


def effort_named(word: str) -> Effort | None:
    """The effort that `word` names, whatever its case; None for a word that is on no scale."""
    word = word.lower()
    if word == MAXIMUM:
        return "max"
    return next((effort for effort in EFFORTS if effort == word), None)


def read_effort(word: str, path: str) -> Effort:
    """As `effort_named`. Raises FaultError (400) naming the field `path`."""
    effort = effort_named(word)
    if effort is None:
        raise bad_request(f"{path}: unknown effort {word[:40]!r}, expected one of {', '.join(EFFORTS)}", path)
    return effort


def check_effort(value: Any, path: str) -> None:
    """A look at the field of a body that is not read further: absent and mistyped values are others' business."""
    if type(value) is str and value:
        read_effort(value, path)


def reasoning_for(
    effort: Effort | None,
    budget: int | None,
    *,
    visible: bool | None = None,
    summary: str = "",
) -> Reasoning:
    """What `effort` and `budget` (-1 dynamic, 0 off) together mean; with neither the model decides. An effort says more
    than a budget beside it."""
    if effort == "none" or (effort is None and budget == 0):
        return Reasoning("off", visible=visible, summary=summary)
    if effort is not None:
        return Reasoning("effort", effort=effort, budget=budget, visible=visible, summary=summary)
    if budget is None or budget < 0:
        return Reasoning("auto", budget=budget, visible=visible, summary=summary)
    return Reasoning("budget", budget=budget, visible=visible, summary=summary)


def says_maximum(control: Any, member: str = "") -> bool:
    """Is it, or has it as `member`, the proxy's word for the highest effort?"""
    if member:
        control = control.get(member) if type(control) is dict else None
    return type(control) is str and control.lower() == MAXIMUM


def with_known_maximum(body: bytes, places: tuple[tuple[str, ...], ...], highest: str) -> bytes:
    """A client's bytes with the proxy's word `maximum` at one of `places` (member names from the outside in) replaced by
    the provider's word: no provider knows it. Callers look first whether it can be there."""
    if not any(_is_value(body, word) for word in (b'"maximum"', b'"MAXIMUM"')):
        return body
    value = decode_object(body)
    for place in places:
        found: Any = value
        for name in place:
            found = found.get(name) if isinstance(found, dict) else None
        if says_maximum(found):
            body = rewrite(body, _nested(place, found), _nested(place, highest))
    return body


def _is_value(body: bytes, word: bytes) -> bool:
    """Does `word` stand behind a colon somewhere? As a key it is common: JSON Schema has one of that name."""
    at = body.find(word)
    while at >= 0:
        before = at - 1
        while before >= 0 and body[before] in b" \t\r\n":
            before -= 1
        if before >= 0 and body[before] == ord(":"):
            return True
        at = body.find(word, at + len(word))
    return False


def _nested(place: tuple[str, ...], value: str) -> dict[str, Any]:
    inner: Any = value
    for name in reversed(place):
        inner = {name: inner}
    return cast(dict[str, Any], inner)


# What a target gets.


def is_off(reasoning: Reasoning) -> bool:
    """Shall the model not reason at all, however that was said?"""
    return effort_of(reasoning) == "none"


def budget_of(reasoning: Reasoning, gemini: bool = False, least: int = 0, most: int = 0) -> int | None:
    """Thinking tokens for `reasoning`; None when the model shall decide (auto, or budget -1); 0 for off.

    `least` and `most` are what the model takes besides 0, 0 = unknown; the effort `max` means `most`.
    """
    if is_off(reasoning):
        return 0
    if reasoning.mode == "budget":
        wanted = -1 if reasoning.budget is None else reasoning.budget
    elif reasoning.mode == "effort" or reasoning.effort is not None:
        effort = reasoning.effort or "medium"
        wanted = most if effort == "max" and most else (_GEMINI_BUDGETS if gemini else _BUDGETS)[effort]
    else:
        return None
    if wanted < 0:
        return None
    return max(least, min(wanted, most) if most else wanted)


def effort_of(reasoning: Reasoning) -> Effort | None:
    """The effort word for `reasoning`; None when the model shall decide."""
    match reasoning.mode:
        case "off":
            return "none"
        case "auto" | "effort":
            return reasoning.effort
        case "budget":
            budget = -1 if reasoning.budget is None else reasoning.budget
            if budget < 0:
                return None
            return next((word for limit, word in _STEPS if budget <= limit), "max")


def clamp_effort(effort: Effort, accepted: tuple[Effort, ...]) -> Effort:
    """`effort` if accepted, else the next lower accepted one; below all of them the lowest. `none` never stands for more."""
    if effort in accepted or not accepted:
        return effort
    place = EFFORTS.index(effort)
    places = sorted(EFFORTS.index(word) for word in accepted if word != "none" or len(accepted) == 1)
    return EFFORTS[max((known for known in places if known < place), default=places[0])]
