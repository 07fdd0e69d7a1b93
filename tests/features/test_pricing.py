"""OPS-08: which price holds for a call, and files of prices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.config import ConfigError, load_settings
from llm_proxy.config.backends import BackendSettings
from llm_proxy.config.document import Node, parse_document
from llm_proxy.config.kinds import Mismatch
from llm_proxy.conversation.usage import Usage
from llm_proxy.features.pricing import Bill, Pricing, read_prices, tokens_of, vendor_of
from llm_proxy.option_groups import GROUPS
from llm_proxy.tokens.prices import Price

MILLION = 1_000_000


def backend(id: str, type_: str, **more: Any) -> BackendSettings:
    return BackendSettings(id=id, type=type_, **more)


BACKENDS = {
    one.id: one
    for one in (
        backend("openai", "openai"),
        backend("responses", "openai-responses"),
        backend("claude", "anthropic"),
        backend("google", "gemini"),
        backend("router", "openrouter"),
        backend("fast", "openai", base_url="https://api.groq.com/openai/v1"),
        backend("house", "openai", base_url="http://gpu.example:8000/v1", no_auth=True),
        backend("demo", "demo"),
        backend("codex", "openai-oauth"),
        backend("claude-login", "anthropic-oauth"),
        backend("cli", "gemini-cli-oauth-personal"),
        backend("cloud", "gemini-cli-cloud-project"),
        backend("agent", "gemini-cli-acp"),
        backend("qwen", "qwen-oauth"),
        backend("plan", "zai-coding-plan"),
    )
}
A_MILLION_IN = Usage(input=MILLION, output=0)


def bill(id: str, model: str, usage: Usage | None = A_MILLION_IN, own: Mapping[str, Mapping[str, Price]] | None = None) -> Bill:  # fmt: skip
    return Pricing(BACKENDS, own).bill(id, model, usage)


def test_what_the_provider_reports_wins() -> None:
    assert bill("router", "qwen/qwen3-coder", Usage(input=5, output=5, cost=0.002)) == Bill(0.002, "reported")
    assert bill("house", "m", Usage(input=5, output=5, cost=0.002)) == Bill(0.002, "reported")


@pytest.mark.parametrize(
    ("id", "model", "cost"),
    [
        ("openai", "gpt-5", 1.25),
        ("responses", "gpt-5-2025-08-07", 1.25),
        ("claude", "claude-haiku-4-5", 1),
        ("google", "models/gemini-2.5-flash", 0.3),
        ("fast", "openai/gpt-oss-120b", 0.15),
    ],
)
def test_a_priced_model_with_a_million_input_tokens_costs_its_input_price(id: str, model: str, cost: float) -> None:
    assert bill(id, model) == Bill(cost, "priced")


def test_what_a_router_gives_away_costs_nothing_and_not_what_its_paid_twin_costs() -> None:
    assert bill("router", "deepseek/deepseek-r1") == Bill(pytest.approx(0.7), "priced")
    assert bill("router", "deepseek/deepseek-r1:free") == Bill(0.0, "priced")
    own = {"openrouter": {"deepseek/deepseek-r1:free": Price(input=1.0)}}
    assert bill("router", "deepseek/deepseek-r1:free", own=own) == Bill(1.0, "priced")
    assert bill("openai", "gpt-5:free").source == "priced", "no name of OpenRouter's"


def test_cached_tokens_are_billed_once_at_the_cached_price() -> None:
    assert bill("openai", "gpt-5", Usage(input=MILLION, cache_read=MILLION, output=0)) == Bill(0.125, "priced")


def test_an_unknown_model_costs_null_never_zero() -> None:
    assert bill("openai", "gpt-of-tomorrow") == Bill(None, "unknown")
    assert bill("nowhere", "gpt-5") == Bill(None, "unknown")


@pytest.mark.parametrize("id", ["codex", "claude-login", "cli", "cloud", "agent", "qwen", "plan"])
def test_subscriptions_cost_nothing(id: str) -> None:
    assert bill(id, "any") == Bill(0, "subscription")


@pytest.mark.parametrize("id", ["house", "demo"])
def test_what_needs_no_key_costs_nothing(id: str) -> None:
    assert bill(id, "any") == Bill(0, "local")


def test_a_failed_call_of_a_priced_model_costs_nothing_and_of_an_unknown_one_nobody_knows() -> None:
    assert bill("openai", "gpt-5", None) == Bill(0, "priced")


def test_a_price_of_ones_own_adds_and_overrides() -> None:
    own = {"openai": {"gpt-5": Price(input=7), "ours": Price(input=3)}, "house": {"m": Price(input=1)}}
    assert bill("openai", "gpt-5", own=own) == Bill(7, "priced")
    assert bill("openai", "ours-large", own=own) == Bill(3, "priced")
    assert bill("openai", "gpt-5-mini", own=own) == Bill(0.25, "priced")  # the longer name, though it is a packaged one
    assert bill("responses", "gpt-5", own=own) == Bill(7, "priced")
    assert bill("house", "m", own=own) == Bill(1, "priced")
    assert bill("house", "other", own=own) == Bill(None, "unknown")


def test_prices_of_an_id_count_before_those_of_its_type() -> None:
    own = {"fast": {"x": Price(input=1)}, "openai": {"x": Price(input=2)}, "groq": {"x": Price(input=3)}}
    assert bill("fast", "x", own=own) == Bill(1, "priced")
    assert bill("openai", "x", own=own) == Bill(2, "priced")


def test_the_address_tells_the_vendor() -> None:
    assert vendor_of(BACKENDS["fast"]) == "groq"
    assert vendor_of(backend("a", "openai", base_url="https://llm.example/v1")) == "openai"


def test_buckets_are_disjoint_whatever_a_provider_says() -> None:
    tokens = tokens_of(Usage(input=10, cache_read=8, cache_write=8, output=3, reasoning=9))
    assert (tokens.input, tokens.cache_read, tokens.cache_write, tokens.output, tokens.reasoning) == (0, 8, 2, 0, 3)


def test_a_sessions_own_server_has_the_prices_of_its_vendor_or_none() -> None:
    pricing = Pricing(BACKENDS)
    assert pricing.bill("openai", "gpt-5", A_MILLION_IN, "https://llm.example/v1") == Bill(None, "unknown")
    assert pricing.bill("house", "gpt-5", A_MILLION_IN, "https://api.openai.com/v1") == Bill(1.25, "priced")
    assert pricing.bill("openai", "x", Usage(input=1, output=1, cost=0.1), "https://llm.example/v1").cost == 0.1


# Files


def read(text: str) -> Any:
    node = parse_document(text, "prices.yaml", [])
    assert isinstance(node, Node)
    return read_prices(node)


def test_a_price_file_is_read() -> None:
    found = read(
        "prices:\n  OpenAI:\n    GPT-5: {input: 1, output: 2, cached_read: 0.5, cached_write: 1, cached_write_1h: 2, reasoning: 3,\n"
        "      tiers: [{above: 300000, input: 4}, {above: 200000, input: 3}]}\n  house: {m: {input: 0, output: 0}}\n"
    )
    price = found["openai"]["gpt-5"]
    assert (price.input, price.output, price.cached_read, price.reasoning) == (1, 2, 0.5, 3)
    assert [(tier.above, tier.input) for tier in price.tiers] == [(200_000, 3), (300_000, 4)]
    assert found["house"]["m"] == Price(input=0, output=0)


def test_a_copy_of_the_packaged_file_is_a_price_file() -> None:
    found = read('{"date": "2026-11-21", "unit": "x", "sources": [], "prices": {"openai": {"gpt-5": {"input": 1}}}}')
    assert found == {"openai": {"gpt-5": Price(input=1)}}


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("prices:\n  openai:\n    m: {inpt: 1}\n", 3, "input"),
        ("prices:\n  openai:\n    m: {input: -1}\n", 3, "openai.m.input"),
        ("prices:\n  openai:\n    m: {input: cheap}\n", 3, "number"),
        ("prices:\n  openai: [1]\n", 2, "models and their prices"),
        ("prices:\n  openai:\n    m: 3\n", 3, "a map"),
        ("price:\n  openai: {}\n", 1, "prices"),
        ("prices:\n  openai:\n    m:\n      tiers: [{input: 1}]\n", 4, "above"),
    ],
)
def test_a_wrong_price_file_names_the_place(text: str, line: int, said: str) -> None:
    with pytest.raises(Mismatch) as caught:
        read(text)
    assert caught.value.node.place.line == line
    assert said in caught.value.expected


def test_a_wrong_price_file_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("prices:\n  openai:\n    m: {input: -1}\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(
            ["--data-dir", str(tmp_path)], {"USAGE_PRICE_FILE": str(tmp_path / "mine.yaml")}, tmp_path, GROUPS
        )
    assert any("mine.yaml:3:" in error for error in caught.value.errors)
