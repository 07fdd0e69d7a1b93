"""One scale for how much a model thinks: words and token budgets, and what a target accepts of them.

Tables: protocols/translation.md section 4, "Reasoning controls".
"""

from __future__ import annotations

from llm_proxy.conversation.request import EFFORTS, Effort, Reasoning

_BUDGETS: dict[Effort, int] = {
    "none": 0,
    "minimal": 1024,
    "low": 2048,
    "medium": 8192,
    "high": 16384,
    "xhigh": 32768,
    "max": 65536,
}
_GEMINI_BUDGETS: dict[Effort, int] = {**_BUDGETS, "low": 1024, "high": 24576}


def budget_of(reasoning: Reasoning, gemini: bool = False, maximum: int = 0) -> int | None:
    """Thinking tokens for `reasoning`; None when the model shall decide (auto, or budget -1); 0 for off."""
    match reasoning.mode:
        case "off":
            return 0
        case "auto":
            return None
        case "budget":
            return None if reasoning.budget is None or reasoning.budget < 0 else _capped(reasoning.budget, maximum)
        case "effort":
            effort = reasoning.effort or "medium"
            if effort == "max" and maximum:
                return maximum
            return _capped((_GEMINI_BUDGETS if gemini else _BUDGETS)[effort], maximum)


def _capped(budget: int, maximum: int) -> int:
    return min(budget, maximum) if maximum else budget


def effort_of(reasoning: Reasoning) -> Effort | None:
    """The effort word for `reasoning`; None when the model shall decide."""
    match reasoning.mode:
        case "off":
            return "none"
        case "auto":
            return reasoning.effort
        case "effort":
            return reasoning.effort
        case "budget":
            budget = -1 if reasoning.budget is None else reasoning.budget
            if budget < 0:
                return None
            steps: tuple[tuple[int, Effort], ...] = (
                (0, "none"), (1024, "minimal"), (4096, "low"), (12288, "medium"), (24576, "high"), (49152, "xhigh"),
            )  # fmt: skip
            return next((word for limit, word in steps if budget <= limit), "max")


def clamp_effort(effort: Effort, accepted: tuple[Effort, ...]) -> Effort:
    """`effort` if accepted, else the nearest accepted one: for equal distance the lower."""
    if effort in accepted or not accepted:
        return effort
    place = EFFORTS.index(effort)
    return min(accepted, key=lambda word: (abs(EFFORTS.index(word) - place), EFFORTS.index(word)))
