"""REQ-04: which requests are tuned after a failed edit, what tuning makes of them, and the options and the file for it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from llm_proxy import dialects
from llm_proxy.config import ConfigError, Settings, load_settings
from llm_proxy.conversation.request import Request, Sampling
from llm_proxy.dialects.base import Target
from llm_proxy.dialects.capabilities import lookup
from llm_proxy.features.edit_failures import REQUEST_PATTERNS, RESPONSE_PATTERNS
from llm_proxy.features.edit_precision import Patterns, patterns_of
from llm_proxy.option_groups import GROUPS
from tests.features.edit_room import FAILED, Turn, room_of, session_of
from tests.support.shared import PROTOCOLS, Protocol

SHIPPED = Path(__file__).parents[2] / "config" / "edit_precision_patterns.yaml"


def tune(request: Request, **options: Any) -> Request:
    room, turn = room_of(**options), Turn(session_of(), FAILED)
    room.on_request(turn.exchange)
    return room.on_attempt(turn.exchange, request)


# Once per trigger


def test_a_request_sent_again_is_the_same_try() -> None:
    room, session = room_of(), session_of()
    assert Turn(session, FAILED).tuned(room)
    assert Turn(session, FAILED).tuned(room)


@pytest.mark.parametrize(
    "answer",
    [
        FAILED,
        f"I tried.\n{FAILED}\nI shall read it again.",
        "Error: String to replace not found in file.",
        "Hunk #1 FAILED at 3",
    ],
)
def test_an_answer_that_tells_of_a_failure_tunes_the_next_request_only(answer: str) -> None:
    room, session = room_of(), session_of()
    assert not Turn(session, "hi").tuned(room, answer=answer)
    assert Turn(session, "again").tuned(room)
    assert not Turn(session, "and on").tuned(room)


def test_both_triggers_together_tune_one_request() -> None:
    room, session = room_of(), session_of()
    Turn(session, "hi").tuned(room, answer=FAILED)
    assert Turn(session, FAILED).tuned(room)
    assert not Turn(session, "and on").tuned(room)


def test_the_credit_of_one_session_is_not_anothers() -> None:
    room, session = room_of(), session_of()
    Turn(session, "hi").tuned(room, answer=FAILED)
    assert not Turn(session_of(), "hi").tuned(room)
    assert session.marks and session.changed


def test_an_errand_beside_the_conversation_neither_takes_nor_gives_the_credit() -> None:
    room, session = room_of(), session_of()
    assert not Turn(session, FAILED, side=True).tuned(room, answer=FAILED)
    assert not session.marks
    Turn(session, "hi").tuned(room, answer=FAILED)
    assert not Turn(session, "title?", side=True).tuned(room)
    assert Turn(session, "again").tuned(room)


def test_a_local_reply_neither_takes_nor_gives_the_credit() -> None:
    room, session = room_of(), session_of()
    Turn(session, "!/help", local=True).tuned(room, answer=FAILED)
    assert not session.marks
    Turn(session, "hi").tuned(room, answer=FAILED)
    Turn(session, "!/help", local=True).tuned(room, answer="help")
    assert Turn(session, "again").tuned(room)


def test_a_request_that_got_no_answer_gives_the_credit_back() -> None:
    room, session = room_of(), session_of()
    Turn(session, "hi").tuned(room, answer=FAILED)
    unlucky = Turn(session, "again")
    unlucky.view.fault, unlucky.view.time_to_first = object(), None
    assert unlucky.tuned(room)
    assert Turn(session, "again").tuned(room)
    assert not Turn(session, "and on").tuned(room)


def test_a_tuned_request_is_logged_in_one_line_without_what_was_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="llm_proxy"):
        turn = Turn(session_of(), f"{FAILED} my secret plan")
        turn.tuned(room_of())
    [line] = caplog.messages
    assert turn.view.id in line and "secret" not in line and "SEARCH" not in line


# Options


def test_disabled_changes_nothing() -> None:
    room, session = room_of(enabled=False), session_of()
    turn = Turn(session, FAILED)
    assert not turn.tuned(room, answer=FAILED)
    assert not session.marks and not turn.view.kept


def test_a_session_may_switch_it_on_and_off() -> None:
    assert not Turn(session_of(**{"edit-precision": False}), FAILED).tuned(room_of())
    assert Turn(session_of(**{"edit-precision": True}), FAILED).tuned(room_of(enabled=False))


@pytest.mark.parametrize(
    ("agent", "regex", "tuned"),
    [
        ("cline", "^cline$", False),
        ("roo", "^cline$", True),
        ("kilo", "roo|kilo", False),
        ("", "^cline$", True),
        ("", "generic", False),
    ],
)
def test_excluded_agents_are_left_alone(agent: str, regex: str, tuned: bool) -> None:
    room, session = room_of(exclude_agents_regex=regex), session_of(agent)
    assert Turn(session, FAILED).tuned(room, answer=FAILED) is tuned
    assert bool(session.marks) is tuned


@pytest.mark.parametrize("value", ["(", "a{2,1}", "(?=x)", r"(a)\1"])
def test_a_bad_regex_for_agents_is_an_error_with_its_place(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_settings(["--edit-precision-exclude-agents", value], {"HOME": str(tmp_path)}, tmp_path, GROUPS)
    [line] = error.value.errors
    assert "--edit-precision-exclude-agents" in line and "expected a regular expression (" in line


# Tuning


@pytest.mark.parametrize(
    ("given", "options", "expected"),
    [
        (Sampling(), {}, Sampling(temperature=0.1)),
        (Sampling(temperature=0.8), {}, Sampling(temperature=0.1)),
        (Sampling(temperature=0.05), {}, Sampling(temperature=0.05)),
        (Sampling(temperature=0.0), {}, Sampling(temperature=0.0)),
        (Sampling(temperature=0.8), {"temperature": 0.4}, Sampling(temperature=0.4)),
        (Sampling(top_p=0.9), {}, Sampling(temperature=0.1, top_p=0.9)),
        (Sampling(top_p=0.9), {"override_top_p": True}, Sampling(temperature=0.1, top_p=0.3)),
        (Sampling(), {"override_top_p": True, "min_top_p": 0.2}, Sampling(temperature=0.1, top_p=0.2)),
        (Sampling(top_p=0.1), {"override_top_p": True}, Sampling(temperature=0.1, top_p=0.1)),
        (Sampling(top_k=40), {"target_top_k": 10}, Sampling(temperature=0.1, top_k=40)),
        (Sampling(top_k=40), {"override_top_k": True}, Sampling(temperature=0.1, top_k=40)),
        (Sampling(top_k=40), {"override_top_k": True, "target_top_k": 10}, Sampling(temperature=0.1, top_k=10)),
        (Sampling(top_k=5), {"override_top_k": True, "target_top_k": 10}, Sampling(temperature=0.1, top_k=5)),
        (Sampling(), {"override_top_k": True, "target_top_k": 10}, Sampling(temperature=0.1, top_k=10)),
    ],
)
def test_the_lower_value_counts(given: Sampling, options: dict[str, Any], expected: Sampling) -> None:
    changed = tune(Request(dialect="openai-chat", sampling=given), **options)
    assert changed.sampling == expected
    differ = {name for name in ("temperature", "top_p", "top_k") if getattr(given, name) != getattr(expected, name)}
    assert changed.added == differ


def test_a_request_that_is_precise_enough_is_the_very_same() -> None:
    request = Request(dialect="openai-chat", sampling=Sampling(temperature=0.0))
    assert tune(request) is request


def test_what_the_session_wants_gemini_to_get_is_lowered_too() -> None:
    request = Request(dialect="gemini", gemini={"temperature": 0.7, "top_p": 0.9, "topK": 3, "seed": 5})
    changed = tune(request, override_top_p=True)
    assert changed.gemini == {"temperature": 0.1, "top_p": 0.3, "topK": 3, "seed": 5}
    written = dialects.get("gemini").write_request(
        changed, Target(model="gemini-2.5-flash", capabilities=lookup("gemini", "gemini-2.5-flash"))
    )
    assert written.body["generationConfig"]["temperature"] == 0.1


REFUSING = [("openai-chat", "gpt-5.5"), ("openai-chat", "o3"), ("openai-responses", "o4-mini"), ("openai-responses", "gpt-5"),
            ("anthropic-messages", "claude-opus-4-8"), ("anthropic-messages", "claude-opus-4-7")]  # fmt: skip


@pytest.mark.parametrize(("upstream", "model"), REFUSING)
@pytest.mark.parametrize("client", PROTOCOLS)
def test_reasoning_models_that_refuse_temperature_get_none(client: Protocol, upstream: str, model: str) -> None:
    request = tune(Request(dialect=client, max_output_tokens=100), override_top_p=True)
    assert request.sampling.temperature == 0.1
    body = dialects.get(upstream).write_request(request, Target(model=model, capabilities=lookup(upstream, model))).body
    assert "temperature" not in body and "top_p" not in body


# The file of patterns


def settings_with(folder: Path, text: str) -> Settings:
    (folder / "patterns.yaml").write_text(text, encoding="utf-8")
    argv = ["--set", f"edit_precision.patterns_path={folder / 'patterns.yaml'}"]
    return load_settings(argv, {"HOME": str(folder)}, folder, GROUPS)


def test_the_shipped_file_says_what_is_built_in(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, SHIPPED.read_text(encoding="utf-8"))
    assert settings.warnings == []
    assert settings.content("edit_precision.patterns_path") == Patterns(REQUEST_PATTERNS, RESPONSE_PATTERNS)


def test_a_file_in_the_folder_config_is_found(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "edit_precision_patterns.yaml").write_text("request_patterns: [oops]\n")
    settings = load_settings([], {"HOME": str(tmp_path)}, tmp_path, GROUPS)
    assert patterns_of(settings) == Patterns(("oops",), RESPONSE_PATTERNS)


def test_patterns_of_the_file_replace_the_built_in_ones(tmp_path: Path) -> None:
    text = "request_patterns: ['edit.*went wrong']\nresponse_patterns: [OOPS]\n"
    room, session = room_of(patterns_of(settings_with(tmp_path, text))), session_of()
    assert not Turn(session, FAILED).tuned(room, answer=FAILED)
    assert Turn(session, "said in the middle: the EDIT of\na.py\nWent Wrong, sorry").tuned(room, answer="hm, oops")
    assert Turn(session, "again").tuned(room)


def test_a_list_that_is_missing_is_the_built_in_one_and_an_empty_one_is_none(tmp_path: Path) -> None:
    room = room_of(patterns_of(settings_with(tmp_path, "response_patterns: []\n")))
    session = session_of()
    turn = Turn(session, FAILED)
    assert turn.tuned(room, answer=FAILED)
    assert not turn.view.kept
    assert not Turn(session, "again").tuned(room)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("request_patterns: ['(']\n", "patterns.yaml:1:20: expected a regular expression ("),
        ("request_patterns: ['a)|(b']\n", "patterns.yaml:1:20: expected a regular expression ("),
        ("request_patterns: [5]\n", "patterns.yaml:1:20: expected a regular expression as text, got 5"),
        ("request_patterns: x\n", "expected a list of regular expressions"),
        (
            "request_patterns:\n" + "".join(f"- '{n}([a-z]{{900}}x|y)z'\n" for n in range(300)),
            "expected fewer or shorter regular expressions",
        ),
        ("requests: []\n", "expected `request_patterns` or `response_patterns`"),
        ("- a\n", "expected a map with `request_patterns` and `response_patterns`"),
        ("request_patterns: [\n", "patterns.yaml"),
    ],
)
def test_a_wrong_file_costs_a_warning_and_the_built_in_patterns_hold(tmp_path: Path, text: str, said: str) -> None:
    settings = settings_with(tmp_path, text)
    [warning] = settings.warnings
    assert said in warning and "built-in" in warning
    assert patterns_of(settings) == Patterns()


def test_a_missing_file_costs_a_warning_and_the_built_in_patterns_hold(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "EDIT_PRECISION_PATTERNS_PATH": "nowhere.yaml"}
    settings = load_settings([], environ, tmp_path, GROUPS)
    [warning] = settings.warnings
    assert "nowhere.yaml" in warning
    assert patterns_of(settings) == Patterns()


def test_a_request_id_that_clients_use_twice_tunes_nobody_else() -> None:
    room = room_of()
    failed, ordinary = Turn(session_of(), FAILED), Turn(session_of(), "hi")
    ordinary.view.id = failed.view.id
    room.on_request(failed.exchange)
    room.on_request(ordinary.exchange)
    assert room.concerns(failed.exchange)
    assert not room.concerns(ordinary.exchange)
    room.on_finish(ordinary.exchange)
    assert room.concerns(failed.exchange)
