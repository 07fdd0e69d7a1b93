"""RT-10, U-17: one parser for every form in which providers say how long to wait."""

from __future__ import annotations

from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.conversation.fault import Fault
from llm_proxy.routing.retry_after import LONGEST, SHORTEST, read_reset, read_span, stated_wait, wait_in_text

NOW = 1_800_000_000.0


def wait(*headers: tuple[str, str], message: str = "", body: float | None = None) -> float | None:
    fault = Fault(kind="rate_limit", message=message, status=429, retry_after=body)
    return stated_wait(fault, headers, NOW)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([("retry-after-ms", "1500")], 1.5),
        ([("Retry-After", "7")], 7),
        ([("Retry-After", "7.5")], 7.5),
        ([("retry-after", "20s")], 20),
        ([("retry-after", formatdate(NOW + 30, usegmt=True))], 30),
        ([("retry-after", formatdate(NOW - 30, usegmt=True))], SHORTEST),
        ([("retry-after", "2027-01-15T08:00:30Z")], 30),
        ([("retry-after", "0")], SHORTEST),
        ([("retry-after", "1000000000")], LONGEST),
        ([("retry-after", "9" * 400)], LONGEST),
        ([("x-ratelimit-reset-tokens", "6m0s")], 360),
        ([("x-ratelimit-reset-requests", "120ms")], 0.12),
        ([("x-ratelimit-reset-requests", "1h2m3s")], 3723),
        ([("x-ratelimit-reset-requests", "1d")], 86400),
        ([("x-ratelimit-reset", "12")], 12),
        ([("x-ratelimit-reset", str(int(NOW) + 40))], 40),
        ([("X-RateLimit-Reset", str(int(NOW + 40) * 1000))], 40),
        ([("x-ratelimit-reset", "2027-01-15T08:01:00+00:00")], 60),
        ([("anthropic-ratelimit-tokens-reset", "2027-01-15T08:02:00Z")], 120),
        ([("anthropic-ratelimit-unified-5h-reset", str(int(NOW) + 600))], 600),
        ([], None),
    ],
)
def test_every_form_of_a_stated_time(headers: list[tuple[str, str]], seconds: float | None) -> None:
    found = wait(*headers)
    assert found is None if seconds is None else found == pytest.approx(seconds, abs=0.01)


def test_a_date_header_replaces_a_clock_that_is_wrong() -> None:
    skewed = NOW + 5000
    headers = [
        ("date", formatdate(skewed, usegmt=True)),
        ("retry-after", formatdate(skewed + 30, usegmt=True)),
    ]
    assert wait(*headers) == pytest.approx(30)


def test_the_first_source_counts() -> None:
    every = [
        ("anthropic-ratelimit-tokens-reset", "2027-01-15T08:02:00Z"),
        ("x-ratelimit-reset-requests", "6s"),
        ("retry-after", "7"),
        ("retry-after-ms", "5000"),
    ]
    assert wait(*every, body=3) == 5
    assert wait(*every[:3], body=3) == 7
    assert wait(*every[:2], body=3) == 6
    assert wait(*every[:1], body=3) == 120
    assert wait(body=3, message="try again in 9s") == 3
    assert wait(message="try again in 9s") == 9


def test_the_reset_of_the_exhausted_kind_counts() -> None:
    headers = [
        ("x-ratelimit-remaining-requests", "59"),
        ("x-ratelimit-reset-requests", "1s"),
        ("x-ratelimit-remaining-tokens", "0"),
        ("x-ratelimit-reset-tokens", "6m0s"),
    ]
    assert wait(*headers) == 360
    both = [(name, "0" if "remaining" in name else value) for name, value in headers]
    assert wait(*both) == 360
    anthropic = [
        ("anthropic-ratelimit-requests-remaining", "10"),
        ("anthropic-ratelimit-requests-reset", "2027-01-15T08:00:05Z"),
        ("anthropic-ratelimit-input-tokens-remaining", "0"),
        ("anthropic-ratelimit-input-tokens-reset", "2027-01-15T08:00:50Z"),
    ]
    assert wait(*anthropic) == 50


@pytest.mark.parametrize(
    "value",
    ["", "soon", "-5", "1e3", "inf", "nan", "0x10", "٣", "1 2", "12:00", "7;", "Mon, 99 Foo 2026", "9" * 900],
)
def test_garbage_is_passed_over(value: str) -> None:
    assert wait(("retry-after", value), ("retry-after-ms", value), ("x-ratelimit-reset", "4")) == 4


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Rate limit reached. Please try again in 20s.", 20),
        ("Please try again in 1m30s. Visit https://x", 90),
        ("Please try again in 600ms.", 0.6),
        ("try again in 1.5 seconds", 1.5),
        ("Please retry in 12.5s.", 12.5),
        ("Please wait 5 minutes", 300),
        ("Your quota will reset after 2h", 7200),
        ("Retry after 3 seconds", 3),
        ('{"retryDelay": "12s"}', 12),
        ('text {\\"retryDelay\\": \\"12.5s\\"} text', 12.5),
        ("You have 30 requests left", None),
        ("model gpt-5 is overloaded", None),
        ("", None),
    ],
)
def test_times_in_words(text: str, seconds: float | None) -> None:
    assert wait_in_text(text) == seconds


def test_spans() -> None:
    assert read_span("1h0m0.5s") == 3600.5
    for nonsense in ("", "s", "5", "1x", "1m 2s", "1.2.3s", "-1s"):
        assert read_span(nonsense) is None


@given(st.text(), st.text(), st.text())
def test_no_text_breaks_the_parser(first: str, second: str, third: str) -> None:
    found: Any = wait(("retry-after", first), ("x-ratelimit-reset", second), message=third)
    assert found is None or SHORTEST <= found <= LONGEST
    read_reset(first, NOW)


@given(st.floats(min_value=0, max_value=1e6))
def test_what_is_stated_in_seconds_is_what_is_waited(seconds: float) -> None:
    text = f"{seconds:.3f}"
    assert wait(("retry-after", text)) == min(max(float(text), SHORTEST), LONGEST)
