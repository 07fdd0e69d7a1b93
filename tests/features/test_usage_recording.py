"""OPS-07: how a row is made of what is known of a call."""

from __future__ import annotations

import getpass
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llm_proxy.conversation.fault import Fault
from llm_proxy.conversation.usage import Usage
from llm_proxy.features.exchange import AttemptRecord, ExchangeView
from llm_proxy.features.pricing import Pricing
from llm_proxy.features.usage import UsageRecording, system_user
from llm_proxy.store.records import UsageRow
from llm_proxy.store.usage import MemoryUsage


def rows_of(**more: Any) -> list[UsageRow]:
    """The rows of an exchange of which these things are known."""
    view = SimpleNamespace(
        id="r", started=1000.0, duration=0.5, surface="openai-chat", side=False, requested_model="asked", backend="b", model="m",
        status=200, stream=True, session=SimpleNamespace(id="s", agent=""), user="ada", project="p", notes=[], billed=None, address="", cached=False,
        attempts=[AttemptRecord("b", "m", "k", 200)], usage=Usage(input=10, output=4), cancelled=False, fault=None, time_to_first=0.1,
        key_name="key", size=400, answer_length=lambda: 200, answer_text=lambda: "",
    )  # fmt: skip
    vars(view).update(more)
    kept = MemoryUsage()
    clean = lambda text: text.replace("SECRET-SECRET", "***")  # noqa: E731
    UsageRecording(kept, Pricing({}), clean).on_finish(cast("ExchangeView", view))
    return list(kept.rows)


def row_of(**more: Any) -> UsageRow:
    [row] = rows_of(**more)
    return row


def test_what_called_nobody_is_no_row() -> None:
    assert rows_of(attempts=[]) == []


def test_buckets_are_disjoint_and_add_up() -> None:
    row = row_of(usage=Usage(input=100, cache_read=30, cache_write=20, output=40, reasoning=15))
    assert (row.input, row.cache_read, row.cache_write, row.output, row.reasoning) == (50, 30, 20, 25, 15)
    assert (row.prompt, row.completion, row.token_source) == (100, 40, "reported")
    assert row.input + row.cache_read + row.cache_write == row.prompt
    assert row.output + row.reasoning == row.completion


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"cancelled": True}, (10, 4, "partial")),
        ({"cancelled": True, "usage": Usage(input=10)}, (10, 50, "partial")),
        ({"cancelled": True, "usage": None}, (100, 50, "partial")),
        ({"cancelled": True, "usage": None, "time_to_first": None}, (100, 0, "partial")),
        ({"usage": None}, (100, 50, "estimated")),
        ({"usage": Usage(input=10, source="estimated", output=3)}, (10, 3, "estimated")),
        ({"usage": None, "fault": Fault(kind="upstream", message="x"), "time_to_first": None}, (0, 0, "unknown")),
        ({"usage": Usage(input=10, output=1), "fault": Fault(kind="upstream", message="x")}, (10, 1, "partial")),
    ],
)
def test_what_the_provider_did_not_say_is_estimated_and_marked(
    more: dict[str, Any], expected: tuple[int, int, str]
) -> None:
    row = row_of(**more)
    assert (row.prompt, row.completion, row.token_source) == expected


@pytest.mark.parametrize(
    ("more", "status"),
    [({}, 200), ({"cancelled": True}, 499), ({"fault": Fault(kind="rate_limit", message="x"), "status": 429}, 429)],
)
def test_the_status_is_the_clients(more: dict[str, Any], status: int) -> None:
    assert row_of(**more).status == status


def test_several_calls_at_once_count_what_they_used_together() -> None:
    row = row_of(billed=Usage(input=30, output=12))
    assert (row.prompt, row.completion) == (30, 12)


def test_names_that_clients_choose_are_bounded_and_hold_no_secret() -> None:
    row = row_of(user="my SECRET-SECRET", requested_model="m" * 10_000)
    assert row.username == "my ***"
    assert len(row.requested_model) <= 300


def test_without_a_user_it_is_the_systems_if_that_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", nameless)
    system_user.cache_clear()
    try:
        assert row_of(user="").username == ""
    finally:
        system_user.cache_clear()
