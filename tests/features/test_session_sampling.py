"""REQ-01 to REQ-03: what a session's sampling values and reasoning modes make of a request, as each provider is sent it."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from llm_proxy import dialects
from llm_proxy.conversation.request import Reasoning, Request
from llm_proxy.dialects.base import Target
from llm_proxy.dialects.capabilities import lookup
from llm_proxy.features.reasoning_aliases import ReasoningAliases
from llm_proxy.features.session_sampling import SessionSampling
from llm_proxy.wire import json as wire_json
from tests.features import shaping
from tests.features.shaping import (
    ANTHROPIC,
    ASKED_LOW,
    CHAT,
    DIALECTS,
    GEMINI,
    PLAIN,
    REASONING,
    RESPONSES,
    asked,
    heat_of,
    thinking_of,
    top_p_of,
    view,
    with_heat,
)

ROOM = SessionSampling(ReasoningAliases(()))
sent = partial(shaping.sent, rooms=[ROOM])


# Cost


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_session_without_such_values_gives_the_same_request_back(dialect: str) -> None:
    request = dialects.get(dialect).read_request(asked(dialect), "m")
    exchange = view({"backend": "openai", "project": "p"})
    assert not ROOM.concerns(exchange)
    assert ROOM.on_attempt(exchange, request) is request


def test_a_request_that_says_everything_itself_is_given_back_as_it_is() -> None:
    request = dialects.get(CHAT).read_request(asked(CHAT, temperature=0.9, top_p=0.5, reasoning_effort="low"))
    exchange = view({"temperature": 0.2, "top-p": 0.1, "reasoning-effort": "high"})
    assert ROOM.concerns(exchange)
    assert ROOM.on_attempt(exchange, request) is request


# REQ-02


@pytest.mark.parametrize("upstream", DIALECTS)
@pytest.mark.parametrize("client", DIALECTS)
def test_a_session_value_fills_what_the_request_leaves_open(client: str, upstream: str) -> None:
    body = sent(asked(client), client, upstream, PLAIN[upstream], {"temperature": 0.2})
    assert heat_of(upstream, body) == 0.2
    body = sent(asked(client), client, upstream, PLAIN[upstream], {"top-p": 0.3})
    assert top_p_of(upstream, body) == 0.3


@pytest.mark.parametrize("upstream", DIALECTS)
@pytest.mark.parametrize("client", DIALECTS)
def test_the_request_wins_over_the_session(client: str, upstream: str) -> None:
    body = sent(with_heat(client, 0.9), client, upstream, PLAIN[upstream], {"temperature": 0.2})
    assert heat_of(upstream, body) == 0.9


@pytest.mark.parametrize("upstream", DIALECTS)
@pytest.mark.parametrize("client", DIALECTS)
def test_a_temperature_of_1_5_is_cut_to_what_the_target_takes(client: str, upstream: str) -> None:
    body = sent(asked(client), client, upstream, PLAIN[upstream], {"temperature": 1.5})
    assert heat_of(upstream, body) == (1.0 if upstream == ANTHROPIC else 1.5)


@pytest.mark.parametrize("upstream", (CHAT, RESPONSES))
@pytest.mark.parametrize("client", DIALECTS)
def test_a_temperature_is_left_out_where_the_model_refuses_it_beside_reasoning(client: str, upstream: str) -> None:
    body = sent(asked(client), client, upstream, "gpt-5.5", {"temperature": 0.2})
    assert "temperature" not in body


def test_values_of_a_request_stay_byte_for_byte_where_a_session_adds_others() -> None:
    body = b'{ "model":"m" , "messages":[{"content":"h\\u0069","role":"user"}], "x_new" : 1e2 }'
    target = Target(model="gpt-4o", capabilities=lookup(CHAT, "gpt-4o"))
    writer = dialects.get(CHAT)
    read = writer.read_request(body)
    changed = ROOM.on_attempt(view({"temperature": 0.2}), read)
    written = wire_json.rewrite(
        writer.retarget(body, target),
        writer.write_request(read, target).body,
        writer.write_request(changed, target).body,
    )
    for untouched in (b'"messages":[{"content":"h\\u0069","role":"user"}]', b'"x_new" : 1e2'):
        assert untouched in written
    assert json.loads(written)["temperature"] == 0.2


# gemini-generation-config


@pytest.mark.parametrize("upstream", DIALECTS)
@pytest.mark.parametrize("client", DIALECTS)
def test_generation_config_reaches_gemini_and_nobody_else(client: str, upstream: str) -> None:
    values = {"gemini-generation-config": {"topK": 5, "mediaResolution": "MEDIA_RESOLUTION_LOW"}}
    body = sent(asked(client), client, upstream, PLAIN[upstream], values)
    if upstream == GEMINI:
        assert body["generationConfig"]["topK"] == 5
        assert body["generationConfig"]["mediaResolution"] == "MEDIA_RESOLUTION_LOW"
    else:
        assert body == sent(asked(client), client, upstream, PLAIN[upstream], {})


def test_generation_config_is_merged_deep_and_only_where_the_request_is_silent() -> None:
    body = asked(
        GEMINI,
        generationConfig={
            "topK": 40,
            "speechConfig": {"languageCode": "de"},
            "responseMimeType": "application/json",
            "responseJsonSchema": {"type": "object"},
        },
    )
    config = {
        "top_k": 5,
        "speech_config": {"language_code": "en", "voice_config": {"prebuilt_voice_config": {"voice_name": "Kore"}}},
        "responseSchema": {"type": "STRING"},
        "responseJsonSchema": {"properties": {}},
        "maxOutputTokens": 77,
        "stopSequences": ["END"],
    }
    assert sent(body, GEMINI, GEMINI, "gemini-2.5-flash", {"gemini-generation-config": config})["generationConfig"] == {
        "topK": 40,
        "speechConfig": {"languageCode": "de", "voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}}},
        "responseMimeType": "application/json",
        "responseJsonSchema": {"type": "object"},
        "maxOutputTokens": 77,
        "stopSequences": ["END"],
    }


@pytest.mark.parametrize("client", DIALECTS)
def test_what_the_session_says_for_gemini_counts_more_than_what_it_says_for_all(client: str) -> None:
    values = {
        "temperature": 0.2,
        "reasoning-effort": "high",
        "gemini-generation-config": {"temperature": 0.7, "thinkingConfig": {"thinkingBudget": 300}},
    }
    config = sent(asked(client), client, GEMINI, "gemini-2.5-flash", values)["generationConfig"]
    assert config["temperature"] == 0.7
    assert config["thinkingConfig"]["thinkingBudget"] == 300
    assert "thinkingLevel" not in config["thinkingConfig"]


def test_a_level_and_a_budget_never_stand_side_by_side() -> None:
    body = asked(GEMINI, generationConfig={"thinkingConfig": {"thinkingBudget": 512}})
    values = {"gemini-generation-config": {"thinkingConfig": {"thinkingLevel": "HIGH", "includeThoughts": True}}}
    config = sent(body, GEMINI, GEMINI, "gemini-2.5-flash", values)["generationConfig"]
    assert config["thinkingConfig"] == {"thinkingBudget": 512, "includeThoughts": True}


@pytest.mark.parametrize("client", DIALECTS)
def test_a_mode_replaces_the_thinking_of_a_generation_config(client: str) -> None:
    values = {
        "reasoning-mode": "low",
        "gemini-generation-config": {"thinking_config": {"thinking_budget": 300}, "topK": 5},
    }
    config = sent(asked(client), client, GEMINI, "gemini-2.5-flash", values)["generationConfig"]
    assert config["thinkingConfig"]["thinkingBudget"] == 1024
    assert config["topK"] == 5


# REQ-01: efforts by the one table


@pytest.mark.parametrize("client", DIALECTS)
def test_an_effort_becomes_the_targets_own_form(client: str) -> None:
    values = {"reasoning-effort": "high"}
    assert sent(asked(client), client, CHAT, "gpt-5.5", values)["reasoning_effort"] == "high"
    assert sent(asked(client), client, RESPONSES, "gpt-5.5", values)["reasoning"]["effort"] == "high"
    older = sent(asked(client), client, ANTHROPIC, "claude-sonnet-4-5", values)
    assert older["thinking"]["type"] == "enabled"
    assert older["thinking"]["budget_tokens"] == 16384 < older["max_tokens"]
    newer = sent(asked(client), client, ANTHROPIC, "claude-opus-4-7", values)
    assert newer["thinking"]["type"] == "adaptive"
    assert newer["output_config"]["effort"] == "high"
    assert thinking_of(sent(asked(client), client, GEMINI, "gemini-2.5-flash", values))["thinkingBudget"] == 24576
    assert thinking_of(sent(asked(client), client, GEMINI, "gemini-3-pro", values))["thinkingLevel"] == "HIGH"
    assert sent(asked(client), client, CHAT, "deepseek-v4", values)["thinking"] == {"type": "enabled"}


@pytest.mark.parametrize("client", DIALECTS)
@pytest.mark.parametrize("word", ["max", "maximum"])
def test_maximum_is_max_or_the_models_highest(client: str, word: str) -> None:
    values = {"reasoning": {"effort": word}}
    assert sent(asked(client), client, CHAT, "gpt-5.6", values)["reasoning_effort"] == "max"
    assert sent(asked(client), client, CHAT, "o3", values)["reasoning_effort"] == "high"
    assert sent(asked(client), client, RESPONSES, "o3", values)["reasoning"]["effort"] == "high"
    assert thinking_of(sent(asked(client), client, GEMINI, "gemini-3-pro", values))["thinkingLevel"] == "HIGH"


@pytest.mark.parametrize("upstream", DIALECTS)
@pytest.mark.parametrize("client", DIALECTS)
def test_models_known_not_to_reason_get_nothing(client: str, upstream: str) -> None:
    body = sent(asked(client), client, upstream, PLAIN[upstream], {"reasoning-effort": "high"})
    assert body == sent(asked(client), client, upstream, PLAIN[upstream], {})


@pytest.mark.parametrize("client", DIALECTS)
@pytest.mark.parametrize("values", [{"thinking-budget": 0}, {"reasoning-effort": "none"}, {"reasoning-mode": "none"}])
def test_none_is_an_explicit_off_or_no_thinking_field(client: str, values: dict[str, Any]) -> None:
    assert sent(asked(client), client, CHAT, "gpt-5.5", values)["reasoning_effort"] == "none"
    assert "reasoning_effort" not in sent(asked(client), client, CHAT, "gpt-4o", values)
    assert sent(asked(client), client, RESPONSES, "gpt-5.5", values)["reasoning"] == {"effort": "none"}
    assert "thinking" not in sent(asked(client), client, ANTHROPIC, "claude-sonnet-4-5", values)
    assert thinking_of(sent(asked(client), client, GEMINI, "gemini-2.5-flash", values)) == {"thinkingBudget": 0}


def test_a_budget_says_more_than_an_effort_and_becomes_one_where_only_efforts_are_understood() -> None:
    values = {
        "thinking-budget": 4096,
        "reasoning-effort": "max",
        "reasoning": {"max_tokens": 9000, "effort": "minimal"},
    }
    assert sent(asked(CHAT), CHAT, ANTHROPIC, "claude-sonnet-4-5", values)["thinking"]["budget_tokens"] == 4096
    assert sent(asked(CHAT), CHAT, CHAT, "gpt-5.5", values)["reasoning_effort"] == "low"
    del values["thinking-budget"]
    assert sent(asked(CHAT), CHAT, ANTHROPIC, "claude-sonnet-4-5", values)["thinking"]["budget_tokens"] == 9000


def test_a_budget_of_minus_one_lets_gemini_decide() -> None:
    assert (
        thinking_of(sent(asked(CHAT), CHAT, GEMINI, "gemini-2.5-flash", {"thinking-budget": -1}))["thinkingBudget"]
        == -1
    )


@pytest.mark.parametrize("upstream", DIALECTS)
@pytest.mark.parametrize("client", DIALECTS)
def test_the_requests_reasoning_wins_over_the_sessions_effort(client: str, upstream: str) -> None:
    body = asked(client, **ASKED_LOW[client])
    with_session = sent(
        body, client, upstream, REASONING[upstream], {"reasoning-effort": "max", "thinking-budget": 9999}
    )
    assert with_session == sent(body, client, upstream, REASONING[upstream], {})


@pytest.mark.parametrize("client", DIALECTS)
@pytest.mark.parametrize(("mode", "budget"), [("high", 16384), ("medium", 8192), ("low", 2048)])
def test_a_mode_replaces_the_requests_reasoning(client: str, mode: str, budget: int) -> None:
    asks = asked(client, **ASKED_LOW[client], **({"temperature": 0.5} if client == ANTHROPIC else {}))
    values = {"reasoning-mode": mode, "reasoning-effort": "minimal", "thinking-budget": 0}
    assert sent(asks, client, CHAT, "gpt-5.5", values)["reasoning_effort"] == mode
    assert sent(asks, client, RESPONSES, "gpt-5.5", values)["reasoning"]["effort"] == mode
    assert sent(asks, client, ANTHROPIC, "claude-sonnet-4-5", values)["thinking"]["budget_tokens"] == budget
    gemini = {"high": 24576, "medium": 8192, "low": 1024}[mode]
    assert thinking_of(sent(asks, client, GEMINI, "gemini-2.5-flash", values))["thinkingBudget"] == gemini


@pytest.mark.parametrize("client", DIALECTS)
def test_the_no_think_mode_switches_off_what_the_request_asked_for(client: str) -> None:
    asks = asked(client, **ASKED_LOW[client])
    values = {"reasoning-mode": "none"}
    assert "thinking" not in sent(asks, client, ANTHROPIC, "claude-sonnet-4-5", values)
    assert sent(asks, client, CHAT, "gpt-5.5", values)["reasoning_effort"] == "none"
    assert thinking_of(sent(asks, client, GEMINI, "gemini-2.5-flash", values))["thinkingBudget"] == 0


def test_an_effort_is_a_gap_where_a_request_only_says_that_it_wants_to_see_reasoning() -> None:
    summary = asked(RESPONSES, reasoning={"summary": "auto"})
    reasoning = sent(summary, RESPONSES, RESPONSES, "gpt-5.5", {"reasoning-effort": "low"})["reasoning"]
    assert reasoning == {"effort": "low", "summary": "auto"}
    adaptive = asked(ANTHROPIC, thinking={"type": "adaptive"})
    body = sent(adaptive, ANTHROPIC, ANTHROPIC, "claude-opus-4-7", {"reasoning-effort": "low"})
    assert (body["thinking"], body["output_config"]) == ({"type": "adaptive"}, {"effort": "low"})


def test_excluded_reasoning_is_made_but_not_shown() -> None:
    values = {"reasoning": {"effort": "high", "exclude": True}}
    assert thinking_of(sent(asked(CHAT), CHAT, GEMINI, "gemini-2.5-flash", values)) == {"thinkingBudget": 24576}
    body = sent(asked(CHAT), CHAT, ANTHROPIC, "claude-opus-4-7", values)
    assert body["thinking"] == {"type": "adaptive", "display": "omitted"}


@pytest.mark.parametrize(
    "given", [{"effort": "colossal"}, {"max_tokens": "many"}, {"max_tokens": True}, {"effort": 3}, {}]
)
def test_an_object_that_makes_no_sense_changes_nothing(given: dict[str, Any]) -> None:
    request = Request(dialect=CHAT, reasoning=None)
    assert ROOM.on_attempt(view({"reasoning": given}), request) is request


def test_the_room_says_which_members_it_filled_in() -> None:
    request = ROOM.on_attempt(view({"temperature": 0.2, "reasoning-effort": "low"}), Request(dialect=CHAT))
    assert request.added == {"temperature", "reasoning"}
    assert request.reasoning == Reasoning("effort", effort="low")
