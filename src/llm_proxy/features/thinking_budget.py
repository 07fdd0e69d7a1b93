"""One thinking budget for all (REQ-01): what the operator sets counts above every other source, for every model.

Owns the option and its precedence. Only how much a model thinks is decided here: whether the client sees it stays the client's choice.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_proxy.config.maps import check_budget
from llm_proxy.config.options import OptionGroup, option
from llm_proxy.conversation.request import Request
from llm_proxy.features import Feature
from llm_proxy.features.exchange import ExchangeView
from llm_proxy.features.generation_config import THINKING, without
from llm_proxy.features.reasoning import of_budget, shown_as


class ThinkingBudgetOptions(OptionGroup, title="Thinking budget"):
    thinking_budget: int | None = option(
        None,
        env="THINKING_BUDGET",
        flag="--thinking-budget",
        check=check_budget,
        help="tokens for thinking of all requests, whatever client, session or model say: -1 dynamic, 0 off",
    )


class ThinkingBudget(Feature):
    """Stands after all rooms that shape reasoning."""

    name = "thinking budget"

    def __init__(self, budget: int) -> None:
        self._reasoning = of_budget(budget)

    def on_attempt(self, exchange: ExchangeView, request: Request) -> Request:
        changes: dict[str, Any] = {}
        added = request.added
        reasoning = shown_as(self._reasoning, request.reasoning, exchange.session.values)
        if reasoning != request.reasoning:
            changes["reasoning"] = reasoning
            added |= {"reasoning"}
        if request.gemini and (config := without(request.gemini, {THINKING})) != request.gemini:
            changes["gemini"] = config
        return msgspec.structs.replace(request, added=added, **changes) if changes else request
