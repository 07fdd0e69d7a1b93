"""OPS-12: which limits hold for a try, what it counts for each of them, and what a refusal says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.config import Settings, load_settings
from llm_proxy.conversation.fault import Fault
from llm_proxy.conversation.usage import Usage
from llm_proxy.features.exchange import AttemptRecord, Candidate, ExchangeView
from llm_proxy.features.rate_limits import Counts, RateLimits, limits_anything
from llm_proxy.option_groups import GROUPS

NOW = 1_700_000_000.25
FAILED = Fault(kind="overloaded", message="too busy")


class Asked:
    """What the room sees of an exchange."""

    def __init__(self, key_name: str = "key#1", size: int = 400, **parameters: Any) -> None:
        self.key_name = key_name
        self.size = size
        self._parameters = parameters
        self.attempts: list[AttemptRecord] = []
        self.cancelled = False
        self.fault: Fault | None = None
        self.usage: Usage | None = None
        self.time_to_first: float | None = None

    def parameters(self) -> dict[str, Any]:
        return self._parameters


class Stage:
    """The room under a configuration, at a time that the test decides."""

    def __init__(self, settings: Settings) -> None:
        self.clock = 0.0
        self.counts = Counts(lambda: self.clock)
        self.room = self.under(settings)

    def under(self, settings: Settings) -> RateLimits:
        return RateLimits(settings, self.counts, lambda: NOW + self.clock)

    def admit(self, exchange: Asked, target: str = "openai:m") -> Fault | None:
        backend, _, model = target.partition(":")
        admission = self.room.admit(cast(ExchangeView, exchange), Candidate(backend, model))
        # It ends without awaiting anything: between looking and counting nobody else gets a turn.
        try:
            admission.send(None)
        except StopIteration as ended:
            return cast("Fault | None", ended.value)
        raise AssertionError("it waited")

    def call(self, exchange: Asked, target: str = "openai:m", status: int = 200) -> Fault | None:
        """A try that is made where it is admitted."""
        fault = self.admit(exchange, target)
        if fault is None:
            backend, _, model = target.partition(":")
            exchange.attempts.append(AttemptRecord(backend, model, "k", status))
        return fault

    def finish(self, exchange: Asked, usage: int | None = None, fault: Fault | None = None) -> None:
        exchange.usage = None if usage is None else Usage(input=usage - 1, output=1)
        exchange.fault = fault
        exchange.time_to_first = None if fault else 0.1
        self.room.on_finish(cast(ExchangeView, exchange))

    def ask(
        self, target: str = "openai:m", key_name: str = "key#1", usage: int | None = None, **more: Any
    ) -> Fault | None:
        """A whole request of a client."""
        exchange = Asked(key_name, **more)
        fault = self.call(exchange, target)
        self.finish(exchange, usage, fault)
        return fault

    def outlook(self, target: str = "openai:m", key_name: str = "key#1") -> str:
        backend, _, model = target.partition(":")
        return self.room.outlook(Candidate(backend, model), key_name)


Staged = Callable[[str], Stage]


@pytest.fixture
def settled(tmp_path: Path) -> Callable[[str], Settings]:
    def call(file: str) -> Settings:
        (tmp_path / "config.yaml").write_text(file)
        return load_settings([], {"HOME": str(tmp_path)}, tmp_path, GROUPS)

    return call


@pytest.fixture
def staged(settled: Callable[[str], Settings]) -> Staged:
    return lambda file: Stage(settled(file))


# Which limits hold


def test_given_nothing_configured_then_nothing_is_limited(staged: Staged, settled: Callable[[str], Settings]) -> None:
    assert not limits_anything(settled(""))
    stage = staged("")
    assert [stage.ask() for _ in range(1000)] == [None] * 1000
    assert len(stage.counts.windows) == 0


@pytest.mark.parametrize(
    "file",
    [
        "default_rate_limit: 5",
        'rate_limits: {"client:key#1": {limit: 1}}',
        "backends: {openai: {rate_limit: {limit: 1}}}",
        "backends: {openai: {models: {m: {limits: {tokens_per_minute: 1}}}}}",
        'model_defaults: {"gemini:*": {limits: {requests_per_minute: 1}}}',
    ],
)
def test_any_limit_makes_the_room_needed(settled: Callable[[str], Settings], file: str) -> None:
    assert limits_anything(settled(file))


def test_given_two_in_sixty_seconds_then_the_third_is_refused_and_another_back_end_is_not(staged: Staged) -> None:
    stage = staged('rate_limits: {"backend:openai": {limit: 2, time_window: 60}}')
    assert stage.ask() is None
    stage.clock = 20
    assert stage.ask("openai:other") is None
    fault = stage.ask()
    assert fault is not None
    assert (fault.kind, fault.status_code, fault.side, fault.retry_after) == ("rate_limit", 429, "proxy", 40)
    assert fault.details == {
        "scope": "backend:openai",
        "unit": "requests",
        "limit": 2,
        "time_window": 60.0,
        "remaining": 0,
        "reset_at": 1_700_000_061,
    }
    assert "backend:openai" in fault.message and "2 requests in 60 s" in fault.message and "40 s" in fault.message
    assert stage.ask("gemini:m") is None
    stage.clock = 59
    assert stage.ask() is not None
    stage.clock = 60
    assert stage.ask() is None
    assert stage.ask() is not None


def test_the_default_holds_for_each_back_end_without_a_limit_of_its_own(staged: Staged) -> None:
    stage = staged('rate_limits: {default: {limit: 1}, "backend:openai": {limit: 3}}')
    assert [stage.ask("gemini:a"), stage.ask("zai:a")] == [None, None]
    refused = stage.ask("gemini:b")
    assert refused is not None and "default" in refused.message and "gemini" in refused.message
    assert stage.ask("zai:b") is not None
    assert [stage.ask() is None for _ in range(4)] == [True, True, True, False]


def test_all_matching_limits_must_allow_and_the_longest_wait_counts(staged: Staged) -> None:
    file = """
rate_limits:
  "backend:openai": {limit: 3, time_window: 10}
  "model:openai:m": {limit: 2, time_window: 30}
  "client:key#1": {limit: 1, time_window: 20}
"""
    stage = staged(file)
    assert stage.ask() is None
    refused = stage.ask()
    assert refused is not None and refused.details is not None and refused.details["scope"] == "client:key#1"
    # What was refused by one limit is not counted for the others.
    assert stage.ask(key_name="key#2") is None
    refused = stage.ask()
    assert refused is not None and refused.details is not None
    assert (refused.details["scope"], refused.retry_after) == ("model:openai:m", 30)
    assert stage.ask("openai:other", key_name="key#2") is None
    assert stage.ask("openai:third", key_name="key#2") is not None


def test_limits_of_a_model_hold_for_each_model_that_a_pattern_names(staged: Staged) -> None:
    stage = staged('model_defaults: {"gemini:*": {limits: {requests_per_minute: 1}}}')
    assert [stage.ask("gemini:a"), stage.ask("gemini:b"), stage.ask("openai:a")] == [None, None, None]
    refused = stage.ask("gemini:a")
    assert refused is not None and refused.details is not None
    assert (refused.details["scope"], refused.retry_after) == ("model:gemini:a", 60)


def test_an_entry_and_a_limit_per_minute_of_one_model_both_hold(staged: Staged) -> None:
    file = """
rate_limits: {"model:openai:m": {limit: 2, time_window: 3600}}
backends: {openai: {models: {m: {limits: {requests_per_minute: 1}}}}}
"""
    stage = staged(file)
    assert stage.ask() is None
    assert stage.ask() is not None
    stage.clock = 60
    assert stage.ask() is None
    stage.clock = 120
    refused = stage.ask()
    assert refused is not None and refused.retry_after == 3600 - 120


# What counts


def test_each_call_counts_for_its_target_but_the_client_has_sent_one_request(staged: Staged) -> None:
    stage = staged('rate_limits: {default: {limit: 2}, "client:key#1": {limit: 2}}')
    first = Asked()
    assert stage.call(first, "openai:m", 503) is None
    assert stage.call(first, "openai:m", 503) is None
    assert stage.call(first, "openai:m") is not None
    assert stage.call(first, "gemini:m") is None
    stage.finish(first)
    assert stage.ask("gemini:m") is None
    refused = stage.ask("zai:m")
    assert refused is not None and refused.details is not None and refused.details["scope"] == "client:key#1"


def test_a_request_that_was_refused_everywhere_counts_for_nobody(staged: Staged) -> None:
    stage = staged('rate_limits: {"backend:openai": {limit: 1}, "client:key#2": {limit: 1}}')
    assert stage.ask() is None
    assert stage.ask(key_name="key#2") is not None
    assert stage.ask("gemini:m", key_name="key#2") is None


def test_a_try_that_was_admitted_but_not_made_is_given_back(staged: Staged) -> None:
    stage = staged('rate_limits: {"backend:openai": {limit: 1}, "client:key#1": {limit: 1}}')
    refused_elsewhere = Asked()
    assert stage.admit(refused_elsewhere) is None
    assert stage.outlook() != ""
    stage.finish(refused_elsewhere, fault=Fault(kind="bad_request", message="no", side="client"))
    assert stage.outlook() == ""
    passed_over = Asked()
    assert stage.admit(passed_over, "openai:m") is None
    assert stage.call(passed_over, "gemini:m") is None
    stage.finish(passed_over)
    assert stage.outlook(key_name="key#2") == ""
    assert "client:key#1" in stage.outlook()


def test_a_call_that_the_client_left_counts(staged: Staged) -> None:
    stage = staged("default_rate_limit: 1")
    left = Asked()
    assert stage.admit(left) is None
    left.cancelled = True
    stage.room.on_finish(cast(ExchangeView, left))
    assert stage.ask() is not None


# Tokens

TOKENS = "backends: {openai: {models: {m: {limits: {tokens_per_minute: 1000}}}}}"


def used(stage: Stage) -> int:
    """Tokens that count now."""
    [limit] = [limit for limit in stage.room._of_target("openai", "m") if limit.unit == "tokens"]
    return stage.counts.windows.used(limit)


@pytest.mark.parametrize(
    ("parameters", "output"),
    [
        ({}, 256),
        ({"max_tokens": 300}, 300),
        ({"max_completion_tokens": 301, "max_tokens": 5}, 301),
        ({"max_output_tokens": 302}, 302),
        ({"maxOutputTokens": 303}, 303),
        ({"max_tokens": "many"}, 256),
    ],
)
def test_an_estimate_is_reserved_and_replaced_by_what_was_used(
    staged: Staged, parameters: dict[str, Any], output: int
) -> None:
    stage = staged(TOKENS)
    exchange = Asked(size=400, **parameters)
    assert stage.call(exchange) is None
    assert used(stage) == 100 + output
    stage.finish(exchange, usage=17)
    assert used(stage) == 17


def test_the_budget_is_refused_with_what_is_left_of_it(staged: Staged) -> None:
    stage = staged(TOKENS)
    assert stage.ask(usage=900) is None
    stage.clock = 15
    assert stage.ask("openai:other") is None
    refused = stage.ask()
    assert refused is not None and refused.details is not None
    assert refused.retry_after == 45
    assert (refused.details["unit"], refused.details["limit"], refused.details["remaining"]) == ("tokens", 1000, 100)
    assert "1000 tokens in 60 s" in refused.message


def test_a_call_without_usage_keeps_the_estimate(staged: Staged) -> None:
    stage = staged(TOKENS)
    stage.ask()
    assert used(stage) == 356


def test_a_request_that_failed_before_the_provider_answered_gives_the_estimate_back(staged: Staged) -> None:
    stage = staged(TOKENS)
    exchange = Asked()
    assert stage.call(exchange, status=503) is None
    stage.finish(exchange, fault=FAILED)
    assert used(stage) == 0


def test_a_try_that_failed_gives_its_estimate_back_before_the_next_one(staged: Staged) -> None:
    stage = staged(TOKENS)
    exchange = Asked()
    assert [stage.call(exchange, status=503) for _ in range(5)] == [None] * 5
    stage.finish(exchange, usage=12)
    assert used(stage) == 12


@pytest.mark.parametrize(("usage", "counted"), [(20, 356), (700, 700)])
def test_an_answer_that_was_cut_short_counts_no_less_than_its_estimate(
    staged: Staged, usage: int, counted: int
) -> None:
    stage = staged(TOKENS)
    exchange = Asked()
    assert stage.call(exchange) is None
    exchange.cancelled = True
    stage.finish(exchange, usage=usage)
    assert used(stage) == counted


def test_a_request_larger_than_the_budget_waits_for_an_empty_window_and_not_for_ever(staged: Staged) -> None:
    stage = staged(TOKENS)
    assert stage.ask(usage=1) is None
    stage.clock = 10
    refused = stage.ask(size=40_000)
    assert refused is not None and refused.retry_after == 50
    assert "estimated at 10256 tokens, more than the limit" in refused.message
    stage.clock = 60
    assert stage.ask(size=40_000, usage=9000) is None
    assert stage.ask() is not None
    stage.clock = 120
    assert stage.ask() is None


# Looking ahead, reload, many at once


def test_a_look_ahead_asks_for_the_tokens_that_a_request_without_a_limit_of_its_own_reserves(staged: Staged) -> None:
    stage = staged(TOKENS)
    stage.ask(usage=800)
    assert "model:openai:m" in stage.outlook()
    assert stage.ask() is not None
    stage.clock = 60
    assert stage.outlook() == ""
    assert stage.ask() is None


def test_a_look_ahead_says_which_limit_is_in_the_way_and_counts_nothing(staged: Staged) -> None:
    stage = staged('rate_limits: {"backend:openai": {limit: 1}, "client:key#2": {limit: 1}}')
    assert [stage.outlook() for _ in range(5)] == [""] * 5
    stage.ask(key_name="key#2")
    assert stage.outlook() == (
        "Rate limit backend:openai of the proxy is reached (1 request in 60 s); it is free again in 60 s."
    )
    assert stage.outlook("gemini:m") == ""
    assert "client:key#2" in stage.outlook("gemini:m", "key#2")


def test_windows_outlive_a_reload_where_the_limit_is_the_same(
    staged: Staged, settled: Callable[[str], Settings]
) -> None:
    stage = staged('rate_limits: {"backend:openai": {limit: 1}, "backend:zai": {limit: 1}}')
    under_way = Asked()
    assert stage.call(under_way) is None
    assert stage.ask("zai:m") is None
    stage.room = stage.under(settled('rate_limits: {"backend:openai": {limit: 1}, "backend:zai": {limit: 2}}'))
    stage.finish(under_way)
    assert stage.ask() is not None
    assert stage.ask("zai:m") is None


def test_what_began_before_a_reload_is_settled_after_it(staged: Staged, settled: Callable[[str], Settings]) -> None:
    stage = staged(TOKENS)
    under_way = Asked()
    assert stage.call(under_way) is None
    stage.room = stage.under(settled(TOKENS))
    stage.finish(under_way, usage=3)
    assert used(stage) == 3


def test_an_exchange_whose_end_is_never_told_is_forgotten_with_it(staged: Staged) -> None:
    stage = staged("default_rate_limit: 5")
    stage.call(Asked())
    assert len(stage.counts.accounts) == 0


async def test_of_many_at_once_no_more_are_admitted_than_the_limit(staged: Staged) -> None:
    stage = staged("default_rate_limit: 7")
    exchanges = [Asked() for _ in range(100)]
    admissions = (stage.room.admit(cast(ExchangeView, one), Candidate("openai", "m")) for one in exchanges)
    found = await asyncio.gather(*admissions)
    assert found.count(None) == 7


_FILE = (
    '{"backend:openai": {limit: 3, time_window: 10}, "model:openai:a": {limit: 2, time_window: 25}, '
    '"default": {limit: 4, time_window: 7}, "client:key#1": {limit: 5, time_window: 40}}'
)
SETTINGS = load_settings(["--set", f"rate_limits={_FILE}"], {"HOME": "/nonexistent"}, Path(__file__).parent, GROUPS)


@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["openai:a", "openai:b", "zai:a"]), st.booleans())))
def test_a_refused_request_is_admitted_exactly_when_it_was_told(steps: list[tuple[int, str, bool]]) -> None:
    stage = Stage(SETTINGS)
    for ticks, target, mine in steps:
        stage.clock += ticks / 8
        key_name = "key#1" if mine else "key#2"
        refused = stage.ask(target, key_name)
        if refused is None:
            continue
        assert refused.retry_after is not None and refused.retry_after > 0
        began = stage.clock
        stage.clock = began + refused.retry_after - 1 / 8
        assert stage.outlook(target, key_name) != ""
        stage.clock = began + refused.retry_after
        assert stage.ask(target, key_name) is None
