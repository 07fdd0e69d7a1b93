"""Failover routes in the configuration (section 4, CFG-01, CFG-06): merged by key, saved ones whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from llm_proxy.config import RouteSettings, Saved, Settings, load_settings
from llm_proxy.config.reference import show_entries
from llm_proxy.option_groups import GROUPS
from llm_proxy.routing.options import ChoiceOptions
from tests.config.conftest import Load, Refuse

FILE = """
backends:
  lmstudio: {type: openai, base_url: "http://localhost:1234/v1", no_auth: true}
failover_routes:
  coding: {policy: m, elements: ["openai:gpt-4o", "lmstudio/qwen3-coder"]}
  spare:
    policy: KM
    elements: []
"""


def routes(settings: Settings) -> Mapping[str, RouteSettings]:
    return settings.get(ChoiceOptions).failover_routes


def with_saved(tmp_path: Path, saved: Saved, *argv: str, env: Mapping[str, str] | None = None) -> Settings:
    (tmp_path / "config.yaml").write_text(FILE)
    return load_settings(argv, {"HOME": str(tmp_path), **(env or {})}, tmp_path, GROUPS, saved)


def test_the_routes_of_the_file(load: Load) -> None:
    assert routes(load(file=FILE)) == {
        "coding": RouteSettings("m", ("openai:gpt-4o", "lmstudio:qwen3-coder")),
        "spare": RouteSettings("km", ()),
    }


@pytest.mark.parametrize(("text", "policy"), [("ordered", "m"), ("Ordered", "m"), ("MK", "mk"), ("k", "k")])
def test_policies_in_any_case_and_the_accepted_spelling(load: Load, text: str, policy: str) -> None:
    assert routes(load(file=f"failover_routes: {{a: {{policy: {text}}}}}"))["a"].policy == policy


@pytest.mark.parametrize(
    ("element", "stored"),
    [
        ("OpenAI:GPT-4o", "openai:GPT-4o"),
        ("openrouter:anthropic/claude-3-haiku:beta", "openrouter:anthropic/claude-3-haiku:beta"),
        ("openrouter/meta/llama:free", "openrouter:meta/llama:free"),
    ],
)
def test_elements_are_stored_with_a_colon(load: Load, element: str, stored: str) -> None:
    settings = load(file=f'failover_routes: {{a: {{policy: m, elements: ["{element}"]}}}}')
    assert routes(settings)["a"].elements == (stored,)


@pytest.mark.parametrize(
    ("route", "column", "text"),
    [
        ("{policy: x}", 34, 'failover_routes.name.policy: expected one of k, m, km, mk, got "x"'),
        ("{elements: []}", 19, "failover_routes.name.policy: missing; one of k, m, km, mk"),
        ("{polcy: m}", 26, "unknown key failover_routes.name.polcy, did you mean failover_routes.name.policy"),
        ('{policy: m, elements: ["opnai:x"]}', 48, 'no back-end has the id "opnai", did you mean openai'),
        ("{policy: m, elements: [gpt-4o]}", 48, 'expected `backend:model`, got "gpt-4o"'),
        ('{policy: m, elements: ["openai:"]}', 48, "expected `backend:model`"),
        ("m", 25, "failover_routes.name: expected a map"),
    ],
)
def test_wrong_routes_are_refused_at_their_place(refuse: Refuse, route: str, column: int, text: str) -> None:
    errors = refuse(file=f"failover_routes: {{name: {route}}}")
    assert any(text in error for error in errors), errors
    assert errors[0].startswith(f"config.yaml:1:{column}: ")


@pytest.mark.parametrize("name", ["a b", "a,b", "a(b)", "a[0]", "a" * 65, "{a}"])
def test_wrong_names_are_refused(refuse: Refuse, name: str) -> None:
    [error] = refuse(file=f'failover_routes: {{"{name}": {{policy: m}}}}')
    assert error.startswith("config.yaml:1:19: ") and "1 to 64 characters" in error


def test_each_error_of_each_route_is_told(refuse: Refuse) -> None:
    errors = refuse(
        file="failover_routes:\n  a: {policy: x}\n  b: {policy: y}\n  c: {policy: m, elements: [nosuch:m]}\n"
    )
    assert [error.split(": ")[0] for error in errors] == ["config.yaml:2:15", "config.yaml:3:15", "config.yaml:4:29"]


def test_a_saved_route_replaces_the_one_of_the_file_whole(tmp_path: Path) -> None:
    saved = Saved(routes={"coding": RouteSettings("k"), "new": RouteSettings("mk", ("gemini:g",))})
    settings = with_saved(tmp_path, saved)
    assert routes(settings) == {
        "coding": RouteSettings("k"),
        "spare": RouteSettings("km"),
        "new": RouteSettings("mk", ("gemini:g",)),
    }
    assert list(routes(settings)) == ["coding", "spare", "new"]
    assert settings.file_routes == {"coding", "spare"}


def test_a_deleted_route_of_the_file_is_gone(tmp_path: Path) -> None:
    assert list(routes(with_saved(tmp_path, Saved(deleted_routes=frozenset({"coding"}))))) == ["spare"]


def test_a_saved_element_of_an_unknown_back_end_is_kept_out_with_a_warning(tmp_path: Path) -> None:
    settings = with_saved(tmp_path, Saved(routes={"a": RouteSettings("m", ("gone:x", "openai:y"))}))
    assert routes(settings)["a"].elements == ("openai:y",)
    assert any('"gone"' in warning for warning in settings.warnings)


def test_flags_and_variables_reach_the_leaves_of_a_route(tmp_path: Path) -> None:
    env = {
        "LLM_PROXY__FAILOVER_ROUTES__CODING__POLICY": "km",
        "LLM_PROXY__FAILOVER_ROUTES__SPARE__POLICY": "k",
        "LLM_PROXY__FAILOVER_ROUTES__MINE__POLICY": "m",
    }
    argv = ("--set", "failover_routes.spare.policy=mk", "--set", "failover_routes.spare.elements=[openai:a, openai:b]")
    settings = with_saved(tmp_path, Saved(routes={"coding": RouteSettings("k", ("gemini:g",))}), *argv, env=env)
    assert routes(settings) == {
        "coding": RouteSettings("km", ("gemini:g",)),
        "spare": RouteSettings("mk", ("openai:a", "openai:b")),
        "mine": RouteSettings("m"),
    }


def test_the_whole_map_as_one_text(load: Load) -> None:
    text = '{"a": {"policy": "m", "elements": ["openai:x"]}}'
    expected = {"a": RouteSettings("m", ("openai:x",))}
    assert routes(load("--set", f"failover_routes={text}")) == expected
    assert routes(load(env={"LLM_PROXY__FAILOVER_ROUTES": text})) == expected


def test_a_wrong_path_below_the_map_is_refused_with_the_nearest(refuse: Refuse) -> None:
    [error] = refuse("--set", "failover_routes.coding.polcy=m")
    assert "did you mean failover_routes.coding.policy" in error
    [error] = refuse("--set", "failover_routes.coding.policy=zz")
    assert error.startswith("flag --set failover_routes.coding.policy: ") and "expected one of k, m, km, mk" in error


def test_the_listing_names_the_source_of_each_route(tmp_path: Path) -> None:
    lines = show_entries(with_saved(tmp_path, Saved(routes={"spare": RouteSettings("m", ("openai:a",))}))).splitlines()
    assert "failover_routes.coding.policy = m  # config.yaml:5" in lines
    assert 'failover_routes.coding.elements = ["openai:gpt-4o","lmstudio/qwen3-coder"]  # config.yaml:5' not in lines
    assert 'failover_routes.coding.elements = ["openai:gpt-4o","lmstudio:qwen3-coder"]  # config.yaml:5' in lines
    assert 'failover_routes.spare.elements = ["openai:a"]  # saved state' in lines
