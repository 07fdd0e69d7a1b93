"""Rate limits in the configuration (OPS-12, CFG-01, CFG-08): merged by key and leaf, other names of the default's values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jsonschema
import pytest

from llm_proxy.config import Settings
from llm_proxy.config.kinds import RateLimit
from llm_proxy.config.reference import schema, show_entries
from llm_proxy.features.rate_limits import RateLimitOptions
from llm_proxy.option_groups import GROUPS
from tests.config.conftest import Load, Refuse

FILE = """
backends:
  lmstudio: {type: openai, base_url: "http://localhost:1234/v1", no_auth: true}
rate_limits:
  default: {limit: 10}
  "backend:openai": {limit: 2, time_window: 30}
  "model:gemini:gemini-2.5-pro": {limit: 3}
  "client:key#1": {limit: 4, time_window: 0.5}
auth: {api_keys: [secret-client-key]}
"""


def limits(settings: Settings) -> Mapping[str, RateLimit]:
    return settings.get(RateLimitOptions).rate_limits


def sources(settings: Settings) -> dict[str, str]:
    return {path: source for path, _, source in settings.entries()}


def test_none_unless_configured(load: Load) -> None:
    assert limits(load()) == {}
    assert "rate_limits = {}  # default" in show_entries(load()).splitlines()


def test_the_limits_of_the_file_and_the_usual_window(load: Load) -> None:
    settings = load(file=FILE)
    assert limits(settings) == {
        "default": RateLimit(10, 60.0),
        "backend:openai": RateLimit(2, 30.0),
        "model:gemini:gemini-2.5-pro": RateLimit(3, 60.0),
        "client:key#1": RateLimit(4, 0.5),
    }
    assert settings.warnings == [warning for warning in settings.warnings if "rate_limits" not in warning]


@pytest.mark.parametrize(
    ("key", "stored"),
    [
        ("backend:OpenAI", "backend:openai"),
        ("model:OpenAI:GPT-4o", "model:openai:GPT-4o"),
        ("model:openrouter/anthropic/claude-3-haiku:beta", "model:openrouter:anthropic/claude-3-haiku:beta"),
        ("model:openrouter:meta/llama:free", "model:openrouter:meta/llama:free"),
        ("client:Laptop of A: B", "client:Laptop of A: B"),
    ],
)
def test_each_key_has_one_spelling(load: Load, key: str, stored: str) -> None:
    assert list(limits(load(file=f'rate_limits: {{"{key}": {{limit: 1}}}}'))) == [stored]


@pytest.mark.parametrize(
    ("entry", "place", "text"),
    [
        (
            '"backend:openai": {limit: 0}',
            "1:41",
            "rate_limits.backend:openai.limit: expected a whole number ≥ 1, got 0",
        ),
        ('"default": {limit: -3}', "1:34", "rate_limits.default.limit: expected a whole number ≥ 1, got -3"),
        (f'"default": {{limit: 1{"0" * 400}}}', "1:34", "expected a whole number ≥ 1, got 1000"),
        ('"default": {limit: 1.5}', "1:34", "expected a whole number ≥ 1, got 1.5"),
        ('"default": {limit: 1, time_window: 0}', "1:50", "expected a number of seconds > 0, got 0"),
        ('"default": {limit: 1, time_window: .inf}', "1:50", "expected a number of seconds > 0"),
        ('"default": {time_window: 5}', "1:15", "rate_limits.default.limit: missing; a whole number ≥ 1"),
        ('"default": null', "1:15", "rate_limits.default.limit: missing; a whole number ≥ 1"),
        ('"default": 5', "1:26", "rate_limits.default: expected a map, got 5"),
        (
            '"default": {limt: 5}',
            "1:27",
            "unknown key rate_limits.default.limt, did you mean rate_limits.default.limit",
        ),
        ('"backend:opnai": {limit: 1}', "1:15", 'no back-end has the id "opnai", did you mean openai'),
        ('"backend:nowhere": {limit: 1}', "1:15", 'no back-end has the id "nowhere"; known are openai, '),
        ('"model:gemni:x": {limit: 1}', "1:15", 'no back-end has the id "gemni", did you mean gemini'),
        ('"model:gpt-4o": {limit: 1}', "1:15", 'no back-end has the id "gpt-4o"'),
        ('"model:gemini:": {limit: 1}', "1:15", "rate_limits.model:gemini:"),
        ('"backnd:openai": {limit: 1}', "1:15", "`client:<key name>`, did you mean backend:openai"),
        ('"defalt": {limit: 1}', "1:15", "`client:<key name>`, did you mean default"),
        ('"openai": {limit: 1}', "1:15", "expected `default`, `backend:<id>`, `model:<backend:model>` or"),
        ('"client:": {limit: 1}', "1:15", "expected `default`, `backend:<id>`, `model:<backend:model>` or"),
        ('"backend:zai": {limit: 1}, "backend:ZAI": {limit: 2}', "1:42", "duplicate key rate_limits.backend:ZAI"),
    ],
)
def test_wrong_limits_are_refused_at_their_place(refuse: Refuse, entry: str, place: str, text: str) -> None:
    [error] = refuse(file=f"rate_limits: {{{entry}}}")
    assert error.startswith(f"config.yaml:{place}: ")
    assert text in error


def test_a_limit_of_a_back_end_whose_own_values_are_wrong_is_not_complained_about(refuse: Refuse) -> None:
    [error] = refuse(file='backends: {mine: {type: nothing}}\nrate_limits: {"backend:mine": {limit: 1}}')
    assert "backends.mine.type" in error


def test_the_order_of_sources_holds_for_each_leaf(load: Load) -> None:
    settings = load(
        "--set", "rate_limits.backend:openai.limit=7",
        "--set", "rate_limits.model:gemini:gemini-2.5-pro.time_window=9",
        env={
            "LLM_PROXY__RATE_LIMITS__BACKEND_OPENAI__LIMIT": "8",
            "LLM_PROXY__RATE_LIMITS__BACKEND_OPENAI__TIME_WINDOW": "31",
            "LLM_PROXY__RATE_LIMITS__BACKEND_LMSTUDIO__LIMIT": "6",
            "LLM_PROXY__RATE_LIMITS__DEFAULT__LIMIT": "11",
        },
        file=FILE,
    )  # fmt: skip
    assert limits(settings) == {
        "default": RateLimit(11, 60.0),
        "backend:openai": RateLimit(7, 31.0),
        "backend:lmstudio": RateLimit(6, 60.0),
        "model:gemini:gemini-2.5-pro": RateLimit(3, 9.0),
        "client:key#1": RateLimit(4, 0.5),
    }
    found = sources(settings)
    assert found["rate_limits.backend:openai.limit"] == "flag --set rate_limits.backend:openai.limit"
    assert found["rate_limits.backend:openai.time_window"] == "env LLM_PROXY__RATE_LIMITS__BACKEND_OPENAI__TIME_WINDOW"
    assert found["rate_limits.model:gemini:gemini-2.5-pro.limit"] == "config.yaml:7"


def test_the_whole_map_as_one_text(load: Load) -> None:
    text = '{"backend:zai": {limit: 1, time_window: 2}}'
    assert limits(load("--set", f"rate_limits={text}")) == {"backend:zai": RateLimit(1, 2.0)}
    assert limits(load(env={"LLM_PROXY__RATE_LIMITS": text})) == {"backend:zai": RateLimit(1, 2.0)}


def test_a_flag_or_variable_for_an_unknown_back_end_is_refused(refuse: Refuse) -> None:
    [error] = refuse("--set", "rate_limits.backend:opnai.limit=1")
    assert error.startswith("flag --set rate_limits.backend:opnai.limit: ") and "did you mean openai" in error
    [error] = refuse(env={"LLM_PROXY__RATE_LIMITS__NOTHING__LIMIT": "1"})
    assert error.startswith("env LLM_PROXY__RATE_LIMITS__NOTHING__LIMIT: ")


# default_rate_limit, default_rate_window

RANKS = [
    ("--set", "rate_limits.default.limit=1"),
    ("--set", "default_rate_limit=2"),
    ("env", "DEFAULT_RATE_LIMIT=3"),
    ("env", "LLM_PROXY__RATE_LIMITS__DEFAULT__LIMIT=4"),
    ("file", "default_rate_limit: 5"),
]


@pytest.mark.parametrize("strongest", range(len(RANKS)))
def test_other_names_of_the_default_rank_like_their_source(load: Load, strongest: int) -> None:
    argv: list[str] = []
    env: dict[str, str] = {}
    file = ""
    for source, text in RANKS[strongest:]:
        match source:
            case "--set":
                argv += ["--set", text]
            case "env":
                name, _, value = text.partition("=")
                env[name] = value
            case _:
                file = text
    settings = load(*argv, env={**env, "DEFAULT_RATE_WINDOW": "7"}, file=file)
    assert limits(settings) == {"default": RateLimit(strongest + 1, 7.0)}
    # Both names show the value in force and where it is from.
    shown = {path: (value, source) for path, value, source in settings.entries()}
    assert shown["default_rate_limit"] == shown["rate_limits.default.limit"]
    assert shown["default_rate_limit"][0] == strongest + 1
    assert shown["rate_limits.default.time_window"] == (7.0, "env DEFAULT_RATE_WINDOW")


def test_a_leaf_of_the_file_and_a_variable_for_the_other_one_make_one_limit(load: Load) -> None:
    settings = load(env={"DEFAULT_RATE_LIMIT": "5"}, file="rate_limits: {default: {time_window: 9}}")
    assert limits(settings) == {"default": RateLimit(5, 9.0)}


def test_a_window_without_a_limit_limits_nothing(load: Load) -> None:
    assert limits(load(env={"DEFAULT_RATE_WINDOW": "5"})) == {}


def test_null_says_nothing(load: Load) -> None:
    settings = load(file="default_rate_limit: null\nrate_limits: {default: {limit: 4}}")
    assert limits(settings) == {"default": RateLimit(4, 60.0)}


def test_the_same_value_under_both_names_is_accepted_and_another_is_refused(load: Load, refuse: Refuse) -> None:
    assert limits(load(file="default_rate_limit: 4\nrate_limits: {default: {limit: 4}}"))["default"].limit == 4
    [error] = refuse(file="default_rate_limit: 5\nrate_limits: {default: {limit: 4}}")
    assert error.startswith("config.yaml:1:21: ")
    assert error.endswith("default_rate_limit: differs from rate_limits.default.limit, which is the same option")


@pytest.mark.parametrize("name", ["DEFAULT_RATE_LIMIT", "DEFAULT_RATE_WINDOW"])
def test_a_wrong_variable_is_named(refuse: Refuse, name: str) -> None:
    [error] = refuse(env={name: "0"})
    assert error.startswith(f"env {name}: {name.lower()}: expected a ")


# backends.<id>.rate_limit


def test_a_back_end_can_bring_its_limit(load: Load) -> None:
    settings = load(file="backends: {openai: {rate_limit: {limit: 5}}, zai: {rate_limit: {limit: 6, time_window: 1}}}")
    assert limits(settings) == {"backend:openai": RateLimit(5, 60.0), "backend:zai": RateLimit(6, 1.0)}
    assert settings.backends["openai"].rate_limit == RateLimit(5, 60.0)
    assert settings.backends["gemini"].rate_limit is None
    assert sources(settings)["rate_limits.backend:zai.limit"] == "config.yaml:1"


def test_an_explicit_entry_wins_over_that_of_the_back_end_leaf_by_leaf(load: Load) -> None:
    file = 'backends: {openai: {rate_limit: {limit: 5, time_window: 2}}}\nrate_limits: {"backend:OpenAI": {limit: 9}}'
    assert limits(load(file=file)) == {"backend:openai": RateLimit(9, 2.0)}


def test_the_file_of_a_back_end_its_flag_and_its_variable(load: Load, tmp_path: Path) -> None:
    folder = tmp_path / "config" / "backends" / "openai"
    folder.mkdir(parents=True)
    (folder / "backend.yaml").write_text("rate_limit: {limit: 3, time_window: 4}")
    assert limits(load()) == {"backend:openai": RateLimit(3, 4.0)}
    assert limits(load(file="backends: {openai: {rate_limit: {limit: 5}}}")) == {"backend:openai": RateLimit(5, 4.0)}
    env = {"LLM_PROXY__BACKENDS__OPENAI__RATE_LIMIT": "{limit: 6}"}
    assert limits(load(env=env)) == {"backend:openai": RateLimit(6, 60.0)}
    argv = ("--set", "backends.openai.rate_limit={limit: 7}")
    assert limits(load(*argv, env=env)) == {"backend:openai": RateLimit(7, 60.0)}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("{limit: 0}", "backends.openai.rate_limit: expected a whole number ≥ 1 as `limit`, got 0"),
        ("{limit: x}", 'expected a whole number ≥ 1 as `limit`, got "x"'),
        ("{limit: 1, time_window: -1}", "expected a number of seconds > 0 as `time_window`, got -1"),
        ("{time_window: 1}", "backends.openai.rate_limit: expected a map with `limit`"),
        ("{limit: 1, window: 2}", 'expected `limit` or `time_window`, got "window"'),
        ("7", "backends.openai.rate_limit: expected a map with `limit` and `time_window`"),
    ],
)
def test_a_wrong_limit_of_a_back_end_is_refused(refuse: Refuse, value: str, text: str) -> None:
    [error] = refuse(file=f"backends: {{openai: {{rate_limit: {value}}}}}")
    assert error.startswith("config.yaml:1:") and text in error


# What people read


def test_a_client_key_that_does_not_exist_is_told(load: Load) -> None:
    warnings = load(file=FILE.replace("client:key#1", "client:laptop")).warnings
    assert any(warning.startswith("rate_limits.client:laptop: no client key has the name") for warning in warnings)


def test_the_schema_describes_the_map_and_the_limit_of_a_back_end() -> None:
    check = jsonschema.Draft202012Validator(schema(GROUPS))
    own = {"openai": {"rate_limit": {"limit": 1}}}
    assert check.is_valid({"rate_limits": {"default": {"limit": 1, "time_window": 2.5}}, "backends": own})
    assert not check.is_valid({"rate_limits": {"default": {"limit": 0}}})
    assert not check.is_valid({"rate_limits": {"default": {"window": 1}}})
    assert not check.is_valid({"backends": {"openai": {"rate_limit": {"limit": 0}}}})
