"""REQ-01: the option `thinking_budget` counts above every other source, for all models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_proxy.conversation.request import Reasoning, Request
from llm_proxy.features import Feature
from llm_proxy.features.model_defaults import ModelDefaults
from llm_proxy.features.order import Needs, rooms
from llm_proxy.features.rate_limits import Counts
from llm_proxy.features.reasoning_aliases import Mode, ReasoningAlias, ReasoningAliases
from llm_proxy.features.session_sampling import SessionSampling
from llm_proxy.features.thinking_budget import ThinkingBudget, ThinkingBudgetOptions
from tests.config.conftest import Load, Refuse
from tests.features import shaping
from tests.features.shaping import ANTHROPIC, ASKED_LOW, CHAT, DIALECTS, GEMINI, RESPONSES, asked, thinking_of, view

every_client = pytest.mark.parametrize("client", DIALECTS)
# Everything else that may speak of reasoning.
DEFAULTS = "model_defaults: {'*': {reasoning_effort: max, generation_config: {thinkingConfig: {thinkingLevel: HIGH}}}}"
VALUES: list[dict[str, Any]] = [
    {},
    {"thinking-budget": 700},
    {"reasoning-effort": "max"},
    {"reasoning-mode": "high"},
    {"reasoning-mode": "low", "gemini-generation-config": {"thinking_config": {"thinking_budget": 300}}},
    {"gemini-generation-config": {"thinkingConfig": {"thinkingLevel": "HIGH"}}},
]


# What a client says to a model that takes no budget.
ADAPTIVE: dict[str, Any] = {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}


def all_rooms(load: Load, budget: int) -> list[Feature]:
    modes = ReasoningAliases([ReasoningAlias("*", {"high": Mode(max_reasoning_tokens=30000)})])
    return [SessionSampling(modes), ModelDefaults(load(file=DEFAULTS)), ThinkingBudget(budget)]


@every_client
@pytest.mark.parametrize("values", VALUES)
def test_it_counts_above_every_other_source(load: Load, client: str, values: dict[str, Any]) -> None:
    given = all_rooms(load, 2000)
    for body in (asked(client), asked(client, **ASKED_LOW[client])):
        gemini = shaping.sent(body, client, GEMINI, "gemini-2.5-flash", values, rooms=given)
        assert thinking_of(gemini)["thinkingBudget"] == 2000
        assert "thinkingLevel" not in thinking_of(gemini)
        claude = shaping.sent(body, client, ANTHROPIC, "claude-sonnet-4-5", values, rooms=given)
        assert claude["thinking"]["budget_tokens"] == 2000 < claude["max_tokens"]
        assert shaping.sent(body, client, CHAT, "gpt-5.5", values, rooms=given)["reasoning_effort"] == "low"
        written = shaping.sent(body, client, RESPONSES, "gpt-5.5", values, rooms=given)
        assert written["reasoning"]["effort"] == "low"


@every_client
@pytest.mark.parametrize("values", VALUES)
def test_zero_is_off_for_all(load: Load, client: str, values: dict[str, Any]) -> None:
    given = all_rooms(load, 0)
    for body in (asked(client), asked(client, **ASKED_LOW[client])):
        gemini = shaping.sent(body, client, GEMINI, "gemini-2.5-flash", values, rooms=given)
        assert thinking_of(gemini) == {"thinkingBudget": 0}
        assert "thinking" not in shaping.sent(body, client, ANTHROPIC, "claude-sonnet-4-5", values, rooms=given)
        assert shaping.sent(body, client, CHAT, "gpt-5.5", values, rooms=given)["reasoning_effort"] == "none"
        written = shaping.sent(body, client, RESPONSES, "gpt-5.5", values, rooms=given)
        assert written["reasoning"]["effort"] == "none"
        assert "reasoning_effort" not in shaping.sent(body, client, CHAT, "gpt-4o", values, rooms=given)
    for body in (asked(client), asked(client, **(ADAPTIVE if client == ANTHROPIC else ASKED_LOW[client]))):
        newer = shaping.sent(body, client, ANTHROPIC, "claude-opus-4-7", values, rooms=given)
        assert newer["thinking"] == {"type": "disabled"}
        assert "effort" not in newer.get("output_config", {})


@every_client
def test_minus_one_lets_the_model_decide(load: Load, client: str) -> None:
    given = all_rooms(load, -1)
    for body in (asked(client), asked(client, **(ADAPTIVE if client == ANTHROPIC else ASKED_LOW[client]))):
        gemini = shaping.sent(body, client, GEMINI, "gemini-2.5-flash", {"reasoning-mode": "high"}, rooms=given)
        assert thinking_of(gemini)["thinkingBudget"] == -1
        newer = shaping.sent(body, client, ANTHROPIC, "claude-opus-4-7", {"reasoning-mode": "high"}, rooms=given)
        assert newer["thinking"]["type"] == "adaptive"
        assert "effort" not in newer.get("output_config", {})


@pytest.mark.parametrize("shown", [True, False, None])
def test_whether_reasoning_is_shown_stays_the_clients_choice(shown: bool | None) -> None:
    request = Request(dialect=CHAT, reasoning=Reasoning("effort", effort="high", visible=shown, summary="auto"))
    changed = ThinkingBudget(2000).on_attempt(view(), request)
    assert changed.reasoning == Reasoning("budget", budget=2000, visible=shown, summary="auto")
    assert changed.added == {"reasoning"}


def test_what_the_session_hides_stays_hidden() -> None:
    hidden = {"reasoning": {"exclude": True}}
    changed = ThinkingBudget(2000).on_attempt(view(hidden), Request(dialect=CHAT))
    assert changed.reasoning == Reasoning("budget", budget=2000, visible=False)


def test_of_a_generation_config_the_rest_remains() -> None:
    request = Request(
        dialect=CHAT, gemini={"topK": 5, "thinkingConfig": {"thinkingLevel": "LOW", "includeThoughts": True}}
    )
    changed = ThinkingBudget(0).on_attempt(view(), request)
    assert changed.gemini == {"topK": 5, "thinkingConfig": {"includeThoughts": True}}


def test_a_request_that_wants_just_this_is_given_back_as_it_is() -> None:
    request = Request(dialect=GEMINI, reasoning=Reasoning("budget", budget=2000, visible=True))
    assert ThinkingBudget(2000).on_attempt(view(), request) is request


@pytest.mark.parametrize(
    ("argv", "env", "file"),
    [
        (["--thinking-budget", "-1"], {}, ""),
        (["--thinking-budget=-1"], {"THINKING_BUDGET": "5000"}, "thinking_budget: 0"),
        ([], {"THINKING_BUDGET": "-1"}, "thinking_budget: 0"),
        ([], {}, "thinking_budget: -1"),
    ],
)
def test_flag_variable_and_file(load: Load, argv: list[str], env: dict[str, str], file: str) -> None:
    assert load(*argv, env=env, file=file).get(ThinkingBudgetOptions).thinking_budget == -1


@pytest.mark.parametrize("value", ["127", "65537", "-2", "1.5", "much"])
def test_other_values_are_refused(refuse: Refuse, value: str) -> None:
    [error] = refuse("--thinking-budget", value)
    assert error.startswith("flag --thinking-budget: thinking_budget: expected ")


def test_the_room_stands_after_those_that_shape_reasoning_and_only_where_it_is_wanted(
    load: Load, tmp_path: Path
) -> None:
    def order(*argv: str) -> list[str]:
        needs = Needs(settings=load(*argv), usage=None, log=None, clean=str, counts=Counts(lambda: 0.0))
        return [room.name for room in rooms(needs)]

    assert ThinkingBudget.name not in order()
    names = order("--thinking-budget", "0")
    wanted = [SessionSampling.name, ModelDefaults.name, ThinkingBudget.name]
    assert [name for name in names if name in wanted] == wanted
