"""REQ-05: when the planning phase of a session ends, and what it changes in requests for the strong model."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llm_proxy import dialects
from llm_proxy.config import ConfigError, load_settings
from llm_proxy.conversation.fault import Fault
from llm_proxy.conversation.request import Reasoning, Request, Sampling
from llm_proxy.dialects.base import Target
from llm_proxy.dialects.capabilities import lookup
from llm_proxy.features.exchange import AttemptRecord, ExchangeView
from llm_proxy.features.planning_phase import PlanningOptions, PlanningPhase
from llm_proxy.features.session_sampling import SamplingOptions
from llm_proxy.server.answer_calls import CUT
from llm_proxy.sessions.session import Session

STRONG = "openai:big"
WRITE = ("write_file", '{"path": "a", "content": "x"}')
EDIT = ("Edit", '{"file_path": "a"}')
OK, REFUSED = AttemptRecord("openai", "big", "k", 200), AttemptRecord("openai", "big", "k", 429)


def room(**options: Any) -> PlanningPhase:
    return PlanningPhase(PlanningOptions(enabled=True, strong_model=STRONG, **options))


def session() -> Session:
    return Session(id="s", scope="k", created=0, last_used=0)


def finished(
    where: Session,
    *calls: tuple[str, str],
    side: bool = False,
    fault: Fault | None = None,
    cancelled: bool = False,
    attempts: tuple[AttemptRecord, ...] = (OK,),
    planned: bool = True,
) -> ExchangeView:
    """An exchange at its end."""
    return cast(
        ExchangeView,
        SimpleNamespace(
            session=where,
            side=side,
            fault=fault,
            cancelled=cancelled,
            attempts=list(attempts),
            planned=planned,
            answer_calls=lambda: calls,
        ),
    )


def trying(planned: bool = True, values: dict[str, Any] | None = None) -> ExchangeView:
    where = session()
    where.values = values or {}
    return cast(ExchangeView, SimpleNamespace(session=where, planned=planned))


# How long it lasts


def test_the_phase_ends_when_its_turns_are_made() -> None:
    phase, where = room(max_turns=2), session()
    for _ in range(2):
        assert phase.strong_model(where) == STRONG
        phase.on_finish(finished(where))
    assert phase.strong_model(where) == ""


def test_every_session_has_a_phase_of_its_own() -> None:
    phase, one, other = room(max_turns=1), session(), session()
    phase.on_finish(finished(one))
    assert (phase.strong_model(one), phase.strong_model(other)) == ("", STRONG)


@pytest.mark.parametrize(
    "call",
    [
        WRITE,
        EDIT,
        ("mcp__files__write_file", "{}"),
        ("apply_patch", "*** Begin Patch"),
        ("str_replace_based_edit_tool", '{"command": "create"}'),
    ],
    ids=lambda call: call[0],
)
def test_the_phase_ends_with_a_file_write_whatever_the_agent_calls_it(call: tuple[str, str]) -> None:
    phase, where = room(), session()
    phase.on_finish(finished(where, call))
    assert phase.strong_model(where) == ""


@pytest.mark.parametrize(
    "call",
    [
        ("read_file", "{}"),
        ("bash", '{"command": "echo > a"}'),
        ("str_replace_based_edit_tool", '{"command": "view"}'),
        ("foo", '{"command": "write"}'),
        ("write_file", '{"path": "a", "content": "cut by the mod'),
    ],
    ids=lambda call: call[0],
)
def test_other_calls_and_calls_that_are_not_complete_are_no_file_writes(call: tuple[str, str]) -> None:
    phase, where = room(), session()
    phase.on_finish(finished(where, call))
    assert phase.strong_model(where) == STRONG


def test_several_writes_of_one_answer_count_each() -> None:
    phase, where = room(max_file_writes=3), session()
    phase.on_finish(finished(where, WRITE, EDIT))
    assert phase.strong_model(where) == STRONG
    phase.on_finish(finished(where, WRITE))
    assert phase.strong_model(where) == ""


def test_a_write_whose_arguments_were_too_long_to_keep_counts() -> None:
    phase, where = room(), session()
    phase.on_finish(finished(where, ("write_file", CUT)))
    assert phase.strong_model(where) == ""


@pytest.mark.parametrize(
    "what",
    [
        {"side": True},
        {"attempts": ()},
        {"fault": Fault(kind="upstream", message="no")},
        {"cancelled": True},
        {"attempts": (REFUSED,)},
    ],
    ids=["an agent's errand", "answered by the proxy", "failed", "the client left", "never answered"],
)
def test_what_is_no_completed_answer_is_no_turn(what: dict[str, Any]) -> None:
    phase, where = room(max_turns=1), session()
    phase.on_finish(finished(where, **what))
    assert phase.strong_model(where) == STRONG
    assert not where.changed


def test_a_turn_counts_also_when_the_client_asked_for_the_strong_model_itself() -> None:
    phase, where = room(max_turns=1), session()
    phase.on_finish(finished(where, planned=False))
    assert phase.strong_model(where) == ""


def test_a_turn_counts_also_when_an_earlier_try_failed() -> None:
    phase, where = room(max_turns=1), session()
    phase.on_finish(finished(where, attempts=(REFUSED, OK)))
    assert phase.strong_model(where) == ""


def test_a_call_that_was_complete_before_the_answer_broke_off_was_a_file_write() -> None:
    phase, where = room(), session()
    phase.on_finish(finished(where, WRITE, fault=Fault(kind="closed", message="cut")))
    assert phase.strong_model(where) == ""


def test_the_end_is_for_good() -> None:
    where = session()
    room(max_turns=1).on_finish(finished(where))
    assert room(max_turns=50, max_file_writes=50).strong_model(where) == ""


def test_parallel_requests_that_began_in_the_phase_end_it_once(caplog: pytest.LogCaptureFixture) -> None:
    phase, where = room(max_turns=3), session()
    caplog.set_level("INFO")
    for _ in range(20):
        phase.on_finish(finished(where))
    assert phase.strong_model(where) == ""
    assert [record.message for record in caplog.records] == ["session s: planning phase over: 3 turns, 0 file writes"]


def test_the_counters_are_kept_with_the_session() -> None:
    phase, where = room(), session()
    phase.on_finish(finished(where))
    assert where.changed
    assert json.loads(json.dumps(where.marks)) == {"planning_phase": {"turns": 1, "writes": 0, "ended": False}}


@pytest.mark.parametrize("mark", [None, 5, [], {"turns": "x", "writes": None}, {"turns": True}])
def test_a_stale_mark_never_makes_a_request_fail(mark: Any) -> None:
    phase, where = room(max_turns=1), session()
    where.marks["planning_phase"] = mark
    assert phase.strong_model(where) == STRONG
    phase.on_finish(finished(where))
    assert phase.strong_model(where) == ""


# What it asks to be collected


@pytest.mark.parametrize(("side", "ended", "asked"), [(False, False, 1), (True, False, 0), (False, True, 0)])
def test_calls_are_collected_only_while_the_phase_of_a_turns_session_lasts(side: bool, ended: bool, asked: int) -> None:
    phase, where, wishes = room(max_turns=1), session(), []
    if ended:
        phase.on_finish(finished(where))
    view = SimpleNamespace(session=where, side=side, keep_calls=lambda: wishes.append(1))
    phase.on_request(cast(ExchangeView, view))
    assert len(wishes) == asked


# Overrides


def test_a_try_that_is_not_the_phases_keeps_its_request() -> None:
    phase, request = room(temperature=0.2, reasoning_effort="high"), Request(dialect="openai-chat")
    assert not phase.concerns(trying(planned=False))
    assert phase.on_attempt(trying(planned=False), request) is request


def test_without_overrides_nothing_is_decoded() -> None:
    request = Request(dialect="openai-chat")
    assert not room().concerns(trying())
    assert room().on_attempt(trying(), request) is request


def test_overrides_replace_what_the_request_says() -> None:
    asked = Request(
        dialect="openai-chat",
        sampling=Sampling(temperature=0.9, top_p=0.8, top_k=5),
        reasoning=Reasoning("effort", effort="low", visible=False, summary="concise"),
    )
    made = room(temperature=0.2, top_p=0.5, reasoning_effort="high").on_attempt(trying(), asked)
    assert made.sampling == Sampling(temperature=0.2, top_p=0.5, top_k=5)
    assert made.reasoning == Reasoning("effort", effort="high", visible=False, summary="concise")
    assert made.added == {"temperature", "top_p", "reasoning"}


def test_what_has_no_override_stays_the_requests() -> None:
    asked = Request(
        dialect="openai-chat", sampling=Sampling(temperature=0.9), reasoning=Reasoning("budget", budget=500)
    )
    made = room(top_p=0.5).on_attempt(trying(), asked)
    assert (made.sampling, made.reasoning) == (Sampling(temperature=0.9, top_p=0.5), Reasoning("budget", budget=500))
    assert made.added == {"top_p"}


@pytest.mark.parametrize(
    ("budget", "effort", "expected"),
    [
        (None, "none", Reasoning("off")),
        (None, "max", Reasoning("effort", effort="max")),
        (0, "high", Reasoning("off")),
        (-1, None, Reasoning("auto", budget=-1)),
        (4096, None, Reasoning("budget", budget=4096)),
    ],
)
def test_reasoning_overrides(budget: int | None, effort: Any, expected: Reasoning) -> None:
    made = room(thinking_budget=budget, reasoning_effort=effort).on_attempt(trying(), Request(dialect="openai-chat"))
    assert made.reasoning == expected


def test_a_budget_says_more_than_an_effort() -> None:
    made = room(thinking_budget=4096, reasoning_effort="low").on_attempt(trying(), Request(dialect="openai-chat"))
    assert made.reasoning is not None
    assert (made.reasoning.mode, made.reasoning.budget) == ("budget", 4096)


def test_hidden_reasoning_of_the_session_stays_hidden() -> None:
    made = room(reasoning_effort="high").on_attempt(
        trying(values={"reasoning": {"exclude": True}}), Request(dialect="openai-chat")
    )
    assert made.reasoning == Reasoning("effort", effort="high", visible=False)


@pytest.mark.parametrize("spelling", [("topP", "thinkingConfig", "thinkingBudget"), ("top_p", "thinking_config", "thinking_budget")])  # fmt: skip
def test_overrides_replace_a_sessions_generation_config(spelling: tuple[str, str, str]) -> None:
    top_p, thinking, budget = spelling
    gemini = {"temperature": 1.0, top_p: 0.9, "topK": 5, thinking: {budget: 1000, "includeThoughts": True}}
    asked = Request(dialect="openai-chat", gemini=gemini)
    made = room(temperature=0.2, top_p=0.5, thinking_budget=2000).on_attempt(trying(), asked)
    target = Target(model="gemini-2.5-flash", capabilities=lookup("gemini", "gemini-2.5-flash"))
    config = dialects.get("gemini").write_request(made, target).body["generationConfig"]
    assert (config["temperature"], config["topP"], config["topK"]) == (0.2, 0.5, 5)
    assert config["thinkingConfig"] == {"thinkingBudget": 2000, "includeThoughts": True}


# Options


def load(tmp_path: Path, *argv: str) -> PlanningOptions:
    return load_settings(argv, {"HOME": str(tmp_path)}, tmp_path, (PlanningOptions,)).get(PlanningOptions)


def test_enabled_without_a_strong_model_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"session\.planning_phase\.strong_model: expected a model"):
        load(tmp_path, "--enable-planning-phase")
    with pytest.raises(ConfigError, match=r"session\.planning_phase\.strong_model: expected a model"):
        load(tmp_path, "--enable-planning-phase", "--planning-phase-strong-model", " ")


def test_a_strong_model_with_an_unknown_prefix_is_just_a_name(tmp_path: Path) -> None:
    options = load(tmp_path, "--enable-planning-phase", "--planning-phase-strong-model", "nosuch:model")
    assert PlanningPhase(options).strong_model(session()) == "nosuch:model"


def test_overrides_take_what_the_session_keys_take() -> None:
    mine = {option.name: option for option in PlanningOptions.options if ".overrides." in option.path}
    theirs = {option.name: option for option in SamplingOptions.options}
    assert mine.keys() == {"temperature", "top_p", "reasoning_effort", "thinking_budget"}
    for name, option in mine.items():
        assert option.kind == theirs[name].kind, name
