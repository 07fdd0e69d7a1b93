"""CFG-10: values per model that fill gaps."""

from __future__ import annotations

import pytest

from llm_proxy.config import ModelDefaults, model_defaults_for
from llm_proxy.config.kinds import ModelLimits
from llm_proxy.config.reference import show_entries
from tests.config.conftest import Load, Refuse


def test_all_fields(load: Load) -> None:
    file = """
model_defaults:
  m:
    temperature: 0.2
    top_p: 1
    max_tokens: 500
    reasoning_effort: maximum
    thinking_budget: -1
    generation_config: {topK: 3}
    limits: {context_window: 1, max_input_tokens: 2, max_output_tokens: 3, requests_per_minute: 4, tokens_per_minute: 5}
    loop_detection_enabled: false
    tool_loop_detection_enabled: off
    tool_loop_detection_max_repeats: 6
    tool_loop_detection_ttl_seconds: 7
    tool_loop_detection_mode: chance
"""
    assert model_defaults_for(load(file=file), "openai", "m") == ModelDefaults(
        temperature=0.2,
        top_p=1.0,
        max_tokens=500,
        reasoning_effort="max",
        thinking_budget=-1,
        generation_config={"topK": 3},
        limits=ModelLimits(1, 2, 3, 4, 5),
        loop_detection_enabled=False,
        tool_loop_detection_enabled=False,
        tool_loop_detection_max_repeats=6,
        tool_loop_detection_ttl_seconds=7,
        tool_loop_detection_mode="chance_then_break",
    )


def test_the_flat_and_the_nested_form_are_the_same(load: Load) -> None:
    fields = "{temperature: 0.1, top_p: 0.5, max_tokens: 9, reasoning_effort: low, thinking_budget: 0}"
    flat = load(file=f"model_defaults: {{m: {fields}}}")
    nested = load(file=f"model_defaults: {{m: {{reasoning: {fields}}}}}")
    assert model_defaults_for(flat, "x", "m") == model_defaults_for(nested, "x", "m") != ModelDefaults()


def test_accepted_spellings_of_names(load: Load) -> None:
    file = "model_defaults: {m: {tool_loop_max_repeats: 3, tool_loop_ttl_seconds: 4, tool_loop_mode: block}}"
    found = model_defaults_for(load(file=file), "x", "m")
    assert (found.tool_loop_detection_max_repeats, found.tool_loop_detection_ttl_seconds) == (3, 4)
    assert found.tool_loop_detection_mode == "break"


@pytest.mark.parametrize(
    ("backend", "model", "temperature"),
    [
        ("openai", "gpt-4o", 0.1),
        ("gemini", "g", 0.2),
        ("anthropic", "gpt-4o", 0.3),
        ("openai", "gpt-5-mini", 0.5),
        ("openai", "o3", 0.4),
        ("zai", "gpt-5-mini", 0.6),
        ("openrouter", "openai/gpt-5", None),
        ("zai", "glm", None),
        ("zai", "a.c", 0.7),
        ("zai", "abc", None),
    ],
)
def test_the_most_exact_entry_is_used(load: Load, backend: str, model: str, temperature: float | None) -> None:
    file = """
model_defaults:
  "openai:*": {temperature: 0.4}
  "gpt-5*": {temperature: 0.6}
  "openai:gpt-5*": {temperature: 0.5}
  gpt-4o: {temperature: 0.3}
  gemini/g: {temperature: 0.2}
  "openai:gpt-4o": {temperature: 0.1}
  "a.*c": {temperature: 0.7}
"""
    assert model_defaults_for(load(file=file), backend, model).temperature == temperature


def test_limits_of_the_back_ends_own_models_belong_to_the_exact_name(load: Load) -> None:
    file = """
backends: {openai: {models: {m: {limits: {context_window: 10, max_input_tokens: 5}}}}}
model_defaults:
  m: {temperature: 0.5, limits: {context_window: 99, max_output_tokens: 7}}
"""
    found = model_defaults_for(load(file=file), "openai", "m")
    assert found.limits == ModelLimits(context_window=10, max_input_tokens=5, max_output_tokens=7)
    assert found.temperature == 0.5
    exact = file.replace("  m: {temperature", '  "openai:m": {temperature')
    limits = model_defaults_for(load(file=exact), "openai", "m").limits
    assert limits == ModelLimits(context_window=99, max_input_tokens=5, max_output_tokens=7)
    assert model_defaults_for(load(file=file), "zai", "m").limits.context_window == 99


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("{temperature: 3}", "1:35: model_defaults.m.temperature: expected a number from 0 to 2, got 3"),
        ("{tempature: 1}", "1:22: unknown key model_defaults.m.tempature, did you mean model_defaults.m.temperature"),
        ("{thinking_budget: 5}", "-1 (dynamic), 0 (off) or 128 to 65536 tokens"),
        ("{limits: {window: 1}}", "unknown key model_defaults.m.limits.window"),
        ("{limits: 5}", "model_defaults.m.limits: expected a map, got 5"),
        ("{top_p: 1, reasoning: {top_p: 0}}", "differs from model_defaults.m.top_p, which is the same option"),
    ],
)
def test_wrong_entries_are_refused(refuse: Refuse, entry: str, text: str) -> None:
    [error] = refuse(file=f"model_defaults: {{m: {entry}}}")
    assert text in error and error.startswith("config.yaml:1:")


def test_an_entry_is_reached_from_flag_and_variable_leaf_by_leaf(load: Load) -> None:
    file = 'model_defaults: {"openai:gpt-4.1": {temperature: 0.5, top_p: 0.5, limits: {context_window: 9}}}'
    settings = load(
        "--set",
        "model_defaults.openai:gpt-4.1.limits.context_window=8",
        "--set",
        "model_defaults.openai:gpt-4.1.generation_config={topK: 1}",
        file=file,
        env={"LLM_PROXY__MODEL_DEFAULTS__OPENAI_GPT_4_1__TEMPERATURE": "0.7"},
    )
    found = model_defaults_for(settings, "openai", "gpt-4.1")
    assert (found.temperature, found.top_p, found.limits.context_window) == (0.7, 0.5, 8)
    assert found.generation_config == {"topK": 1}
    lines = show_entries(settings).splitlines()
    variable = "env LLM_PROXY__MODEL_DEFAULTS__OPENAI_GPT_4_1__TEMPERATURE"
    assert f"model_defaults.openai:gpt-4.1.temperature = 0.7  # {variable}" in lines
    assert "model_defaults.openai:gpt-4.1.top_p = 0.5  # config.yaml:1" in lines
