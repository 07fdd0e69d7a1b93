"""One scale for effort and budget (REQ-01): the words, the steps between words and tokens, and what a model is given of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy import dialects
from llm_proxy.conversation.fault import FaultError
from llm_proxy.conversation.request import EFFORTS, Effort, Reasoning
from llm_proxy.dialects.base import Target
from llm_proxy.dialects.capabilities import lookup
from llm_proxy.dialects.efforts import (
    budget_of,
    clamp_effort,
    effort_of,
    is_off,
    read_effort,
    reasoning_for,
    with_known_maximum,
)

LOW_TO_HIGH: tuple[Effort, ...] = ("low", "medium", "high")


def test_maximum_is_max_and_case_does_not_count() -> None:
    assert [read_effort(word, "f") for word in ("maximum", "MAX", "High")] == ["max", "max", "high"]


def test_an_unknown_word_is_refused_with_the_field() -> None:
    with pytest.raises(FaultError) as error:
        read_effort("huge", "reasoning.effort")
    assert error.value.fault.status_code == 400
    assert error.value.fault.param == "reasoning.effort" and "'huge'" in error.value.fault.message


@pytest.mark.parametrize(
    ("effort", "accepted", "taken"),
    [
        ("medium", ("low", "high"), "low"),
        ("xhigh", LOW_TO_HIGH, "high"),
        ("max", ("none", "low", "medium", "high", "xhigh"), "xhigh"),
        ("minimal", LOW_TO_HIGH, "low"),
        ("minimal", ("none", "low"), "low"),
        ("none", LOW_TO_HIGH, "low"),
        ("high", ("low", "high", "max"), "high"),
        ("xhigh", ("low", "high", "max"), "high"),
        ("low", ("high",), "high"),
        ("low", (), "low"),
    ],
)
def test_an_effort_is_lowered_to_what_the_model_knows(
    effort: Effort, accepted: tuple[Effort, ...], taken: Effort
) -> None:
    assert clamp_effort(effort, accepted) == taken


@pytest.mark.parametrize("effort", EFFORTS)
def test_a_known_effort_stays(effort: Effort) -> None:
    assert clamp_effort(effort, EFFORTS) == effort


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((None, 0), Reasoning("off")),
        ((None, -1), Reasoning("auto", budget=-1)),
        ((None, None), Reasoning("auto")),
        ((None, 5000), Reasoning("budget", budget=5000)),
        (("none", 5000), Reasoning("off")),
        (("low", 5000), Reasoning("effort", effort="low", budget=5000)),
    ],
)
def test_effort_and_budget_together(given: tuple[Effort | None, int | None], expected: Reasoning) -> None:
    assert reasoning_for(*given) == expected


@pytest.mark.parametrize(
    "reasoning", [Reasoning("off"), Reasoning("effort", effort="none"), Reasoning("budget", budget=0)]
)
def test_off_is_off_however_it_is_said(reasoning: Reasoning) -> None:
    assert is_off(reasoning) and budget_of(reasoning) == 0 and effort_of(reasoning) == "none"


@pytest.mark.parametrize(
    ("reasoning", "expected"),
    [
        (Reasoning("auto"), None),
        (Reasoning("auto", effort="low"), 2048),
        (Reasoning("budget", budget=-1), None),
        (Reasoning("budget", budget=100), 512),
        (Reasoning("budget", budget=99_000), 24_576),
        (Reasoning("effort", effort="xhigh"), 24_576),
        (Reasoning("effort", effort="max"), 24_576),
    ],
)
def test_budgets_stay_within_what_the_model_takes(reasoning: Reasoning, expected: int | None) -> None:
    assert budget_of(reasoning, least=512, most=24_576) == expected


# The proxy's own word in bytes that are sent on

SCHEMA = {"properties": {"a": {"type": "integer", "maximum": 3}, "b": {"enum": ["maximum"]}}}


def test_a_schemas_keyword_is_no_effort() -> None:
    body = json.dumps({"reasoning_effort": "low", "tools": [SCHEMA]}).encode()
    assert with_known_maximum(body, (("reasoning_effort",),), "max") is body


@pytest.mark.parametrize(
    ("dialect", "model", "fields", "expected"),
    [
        ("openai-chat", "o3", {"reasoning_effort": "maximum"}, {"reasoning_effort": "high"}),
        ("openai-chat", "gpt-5.6", {"reasoning": {"effort": "maximum", "x": 1}}, {"reasoning": {"effort": "max", "x": 1}}),
        ("openai-responses", "gpt-5.5", {"reasoning": {"effort": "maximum"}}, {"reasoning": {"effort": "xhigh"}}),
        ("anthropic-messages", "claude-opus-4-5", {"output_config": {"effort": "maximum"}}, {"output_config": {"effort": "high"}}),
        ("gemini", "gemini-3-flash", {"generation_config": {"thinkingConfig": {"thinking_level": "MAXIMUM"}}},
         {"generation_config": {"thinkingConfig": {"thinking_level": "HIGH"}}}),
    ],
)  # fmt: skip
def test_maximum_in_bytes_that_go_on_becomes_the_models_highest(
    dialect: str, model: str, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    body = {"model": model, "said": "maximum", **fields, "tools": [SCHEMA]}
    if dialect == "gemini":
        del body["model"]
    raw = json.dumps(body, indent=1).encode()
    sent = dialects.get(dialect).retarget(raw, Target(model=model, capabilities=lookup(dialect, model)))
    assert json.loads(sent) == {**body, **expected}
    assert b'"said": "maximum"' in sent and b'"maximum": 3' in sent
