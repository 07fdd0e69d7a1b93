"""OPS-08: what tokens cost, by the packaged prices and by any others."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_proxy.tokens
from llm_proxy.backends.catalog import ROWS
from llm_proxy.tokens.prices import Price, Prices, PriceTable, Tier, Tokens, cost_of, read_packaged

PACKAGED = read_packaged((Path(llm_proxy.tokens.__file__).parent / "prices.json").read_bytes())
MILLION = 1_000_000
EVERYTHING = Price(input=2, output=10, cached_read=0.5, cached_write=3, cached_write_1h=4, reasoning=20)

counts = st.integers(0, 5_000_000)


def test_a_million_input_tokens_cost_the_input_price() -> None:
    assert cost_of(Tokens(input=MILLION), EVERYTHING) == 2


@pytest.mark.parametrize(
    ("bucket", "price"), [("input", 2), ("output", 10), ("cache_read", 0.5), ("cache_write", 3), ("reasoning", 20)]
)
def test_each_bucket_is_billed_once_at_its_own_price(bucket: str, price: float) -> None:
    assert cost_of(Tokens(**{bucket: MILLION}), EVERYTHING) == price


def test_what_is_kept_for_an_hour_costs_more_than_other_writes() -> None:
    assert cost_of(Tokens(cache_write=3 * MILLION, cache_write_1h=MILLION), EVERYTHING) == 2 * 3 + 4


def test_buckets_without_a_price_of_their_own_cost_what_they_are_part_of() -> None:
    price = Price(input=2, output=10)
    tokens = Tokens(cache_read=MILLION, cache_write=MILLION, cache_write_1h=MILLION, reasoning=MILLION)
    assert cost_of(tokens, price) == 2 + 2 + 10


@given(counts, counts, counts, counts)
def test_cost_is_the_sum_of_its_buckets(input_: int, read: int, write: int, output: int) -> None:
    together = cost_of(Tokens(input=input_, cache_read=read, cache_write=write, output=output), EVERYTHING)
    apart = [
        cost_of(tokens, EVERYTHING)
        for tokens in (Tokens(input=input_), Tokens(cache_read=read), Tokens(cache_write=write), Tokens(output=output))
    ]
    assert together == pytest.approx(sum(one for one in apart if one is not None))


@pytest.mark.parametrize(("tokens", "rate"), [(200_000, 1), (200_001, 2), (500_000, 2), (500_001, 4)])
def test_a_large_request_costs_the_price_of_its_size_from_the_first_token(tokens: int, rate: float) -> None:
    price = Price(input=1, output=8, tiers=(Tier(above=200_000, input=2), Tier(above=500_000, input=4, output=16)))
    assert cost_of(Tokens(input=tokens - 1000, cache_read=1000), price) == pytest.approx(tokens * rate / MILLION)


def test_tokens_without_any_price_have_no_cost() -> None:
    assert cost_of(Tokens(input=5, output=1), Price(input=1)) is None
    assert cost_of(Tokens(input=5), Price(input=1)) == pytest.approx(5 / MILLION)


TABLE = PriceTable({"gpt-5": Price(input=1), "gpt-5-mini": Price(input=2), "gpt-5.1": Price(input=3), "ft:": Price(input=4)})  # fmt: skip


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("gpt-5", 1), ("GPT-5", 1), ("gpt-5-2025-08-07", 1), ("gpt-5-mini", 2), ("gpt-5-mini-2025-08-07", 2), ("gpt-5.1-codex", 3),
        ("gpt-5:free", 1), ("ft:anything", 4), ("gpt-5.2", None), ("gpt-50", None), ("gpt", None), ("", None), ("x-gpt-5", None),
    ],
)  # fmt: skip
def test_the_longest_name_with_which_a_model_begins_counts(model: str, found: float | None) -> None:
    price = TABLE.find(model)
    assert (price.input if price else None) == found


def test_names_of_any_length_are_looked_up() -> None:
    prices = Prices({"a": {"m": Price(input=1)}})
    assert prices.find("a", "m" + "-x" * 100_000) is None
    assert prices.find("a", "m-x") == Price(input=1)
    assert prices.find("b", "m") is None


# The packaged data


def test_the_packaged_prices_are_dated() -> None:
    assert date.fromisoformat(PACKAGED.date) <= date.today()


def test_the_packaged_prices_are_no_nonsense() -> None:
    for vendor, table in PACKAGED.prices.items():
        for name, price in table.items():
            assert name == name.lower(), (vendor, name)
            rates = [
                rate for rate in (price.input, price.output, price.cached_read, price.cached_write) if rate is not None
            ]
            assert rates and all(0 <= rate <= 1000 for rate in rates), (vendor, name)
            assert [tier.above for tier in price.tiers] == sorted({tier.above for tier in price.tiers}), (vendor, name)
            if price.input and price.cached_read is not None:
                assert price.cached_read <= price.input, (vendor, name)


VENDORS = {"openai-responses": "openai", "openai-oauth": "openai", "anthropic-oauth": "anthropic", "zai-coding-plan": "zai",
           "qwen-oauth": "qwen", "gemini-cli-acp": "gemini", "gemini-cli-oauth-personal": "gemini", "gemini-cli-cloud-project": "gemini"}  # fmt: skip


@pytest.mark.parametrize("row", [row for row in ROWS if row.models], ids=lambda row: row.type)
def test_every_model_of_the_built_in_lists_has_a_price(row: object) -> None:
    prices = Prices(PACKAGED.prices)
    for model in row.models:  # type: ignore[attr-defined]
        if model != "openrouter/auto":  # it is any model, and its provider says what it cost
            assert prices.find(VENDORS.get(row.type, row.type), model) is not None, model  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("vendor", "model", "input_", "output"),
    [
        ("openai", "gpt-4o-mini", 0.15, 0.6),  # https://openai.com/api/pricing
        ("openai", "gpt-5", 1.25, 10),
        ("anthropic", "claude-sonnet-4-5-20250929", 3, 15),  # https://docs.anthropic.com/en/docs/about-claude/pricing
        ("anthropic", "claude-haiku-4-5", 1, 5),
        ("gemini", "gemini-2.5-pro", 1.25, 10),  # https://ai.google.dev/gemini-api/docs/pricing
        ("gemini", "gemini-2.5-flash", 0.3, 2.5),
        ("zai", "glm-4.6", 0.6, 2.2),  # https://docs.z.ai/guides/overview/pricing
    ],
)
def test_prices_that_vendors_publish(vendor: str, model: str, input_: float, output: float) -> None:
    price = Prices(PACKAGED.prices).find(vendor, model)
    assert price is not None
    assert (price.input, price.output) == (input_, output)
