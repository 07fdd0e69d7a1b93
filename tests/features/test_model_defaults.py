"""REQ-10: values of `model_defaults` fill what nobody else has set, per back end and model."""

from __future__ import annotations

from typing import Any

import pytest

from llm_proxy.config import Settings
from llm_proxy.conversation.request import Reasoning, Request, Sampling
from llm_proxy.features.model_defaults import ModelDefaults
from llm_proxy.features.reasoning_aliases import Mode, ReasoningAlias, ReasoningAliases
from llm_proxy.features.session_sampling import SessionSampling
from tests.config.conftest import Load
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

every_client = pytest.mark.parametrize("client", DIALECTS)
every_provider = pytest.mark.parametrize("upstream", DIALECTS)
LIMIT = {CHAT: "max_completion_tokens", RESPONSES: "max_output_tokens", ANTHROPIC: "max_tokens"}


def limit_of(dialect: str, body: dict[str, Any]) -> Any:
    return body.get("generationConfig", {}).get("maxOutputTokens") if dialect == GEMINI else body.get(LIMIT[dialect])


def limited(dialect: str, tokens: int) -> bytes:
    if dialect == GEMINI:
        return asked(GEMINI, generationConfig={"maxOutputTokens": tokens})
    return asked(dialect, **{LIMIT[dialect]: tokens})


def sent(settings: Settings, *arguments: Any, modes: ReasoningAlias | None = None, **named: Any) -> dict[str, Any]:
    """As the rooms stand in order: what the session says first, then the defaults."""
    first = SessionSampling(ReasoningAliases([modes] if modes else []))
    return shaping.sent(*arguments, rooms=[first, ModelDefaults(settings)], **named)


# Cost


def test_without_an_entry_that_shapes_requests_nothing_is_decoded(load: Load) -> None:
    for file in (
        "",
        'model_defaults: {"*": {loop_detection_enabled: false, limits: {context_window: 5, requests_per_minute: 1}}}',
        'model_defaults: {"*": {limits: {tokens_per_minute: 9}}, other: {temperature: 1}}',
    ):
        room = ModelDefaults(load(file=file))
        assert not room.concerns(view())
        request = Request(dialect=CHAT)
        assert room.on_attempt(view(), request) is request


def test_a_request_that_says_everything_itself_is_given_back_as_it_is(load: Load) -> None:
    room = ModelDefaults(load(file="model_defaults: {m: {temperature: 0.2, max_tokens: 5, reasoning_effort: low}}"))
    request = Request(
        dialect=CHAT,
        sampling=Sampling(temperature=1),
        max_output_tokens=9,
        reasoning=Reasoning("effort", effort="high"),
    )
    assert room.concerns(view())
    assert room.on_attempt(view(), request) is request


# Who counts more


@every_client
@every_provider
def test_a_default_fills_what_nobody_says(load: Load, client: str, upstream: str) -> None:
    settings = load(file="model_defaults: {'*': {temperature: 0.25}}")
    assert heat_of(upstream, sent(settings, asked(client), client, upstream, PLAIN[upstream])) == 0.25
    settings = load(file="model_defaults: {'*': {top_p: 0.5}}")
    assert top_p_of(upstream, sent(settings, asked(client), client, upstream, PLAIN[upstream])) == 0.5


@every_client
@every_provider
def test_request_session_and_mode_count_more(load: Load, client: str, upstream: str) -> None:
    settings = load(file="model_defaults: {'*': {temperature: 0.25, generation_config: {temperature: 0.75}}}")
    model = PLAIN[upstream]
    assert heat_of(upstream, sent(settings, with_heat(client, 0.9), client, upstream, model)) == 0.9
    assert heat_of(upstream, sent(settings, asked(client), client, upstream, model, {"temperature": 0.5})) == 0.5
    mode = ReasoningAlias("*", {"low": Mode(temperature=0.4)})
    values = {"reasoning-mode": "low"}
    assert heat_of(upstream, sent(settings, asked(client), client, upstream, model, values, modes=mode)) == 0.4


@pytest.mark.parametrize("client", [CHAT, RESPONSES, GEMINI])
@every_provider
def test_default_500_fills_and_the_requests_100_stays(load: Load, client: str, upstream: str) -> None:
    settings = load(file="model_defaults: {'*': {max_tokens: 500}}")
    assert limit_of(upstream, sent(settings, asked(client), client, upstream, PLAIN[upstream])) == 500
    assert limit_of(upstream, sent(settings, limited(client, 100), client, upstream, PLAIN[upstream])) == 100


def test_the_limit_that_every_anthropic_request_has_stays(load: Load) -> None:
    settings = load(file="model_defaults: {'*': {max_tokens: 500}}")
    for upstream in DIALECTS:
        assert limit_of(upstream, sent(settings, limited(ANTHROPIC, 100), ANTHROPIC, upstream, PLAIN[upstream])) == 100


@every_client
@every_provider
def test_reasoning_of_the_request_of_the_session_and_of_a_mode_counts_more(
    load: Load, client: str, upstream: str
) -> None:
    settings = load(file="model_defaults: {'*': {reasoning_effort: high}}")
    nothing, model = load(file="model_defaults: {}"), REASONING[upstream]
    asks = asked(client, **ASKED_LOW[client])
    assert sent(settings, asks, client, upstream, model) == sent(nothing, asks, client, upstream, model)
    for values in ({"reasoning-effort": "low"}, {"thinking-budget": 0}, {"reasoning-mode": "low"}):
        for body in (asked(client), asks):
            assert sent(settings, body, client, upstream, model, values) == sent(
                nothing, body, client, upstream, model, values
            )


@every_client
def test_flat_and_nested_reasoning_have_the_same_effect(load: Load, client: str) -> None:
    fields = "{reasoning_effort: high, temperature: 0.5, max_tokens: 900, generation_config: {topK: 3}}"
    for upstream in DIALECTS:
        flat = sent(
            load(file=f"model_defaults: {{'*': {fields}}}"), asked(client), client, upstream, REASONING[upstream]
        )
        nested = sent(
            load(file=f"model_defaults: {{'*': {{reasoning: {fields}}}}}"), asked(client), client, upstream, REASONING[upstream]
        )  # fmt: skip
        assert flat == nested != sent(load(file=""), asked(client), client, upstream, REASONING[upstream])


@every_client
def test_a_budget_says_more_than_an_effort(load: Load, client: str) -> None:
    settings = load(file="model_defaults: {'*': {reasoning_effort: low, thinking_budget: 4096}}")
    body = sent(settings, asked(client), client, GEMINI, "gemini-2.5-flash")
    assert thinking_of(body)["thinkingBudget"] == 4096
    settings = load(file="model_defaults: {'*': {thinking_budget: 0}}")
    assert thinking_of(sent(settings, asked(client), client, GEMINI, "gemini-2.5-flash"))["thinkingBudget"] == 0


def test_reasoning_that_the_session_hides_stays_hidden(load: Load) -> None:
    settings = load(file="model_defaults: {'*': {thinking_budget: 4096}}")
    body = sent(settings, asked(CHAT), CHAT, GEMINI, "gemini-2.5-flash", {"reasoning": {"exclude": True}})
    assert thinking_of(body) == {"thinkingBudget": 4096}


# Which entry


def test_each_back_end_and_model_has_its_own(load: Load) -> None:
    room = ModelDefaults(
        load(file='model_defaults: {"a:m": {temperature: 0.1}, m: {temperature: 0.2}, other: {top_p: 1}}')
    )

    def filled(backend: str, model: str) -> float | None:
        return room.on_attempt(view(None, backend, model), Request(dialect=CHAT)).sampling.temperature

    assert [filled("a", "m"), filled("b", "m"), filled("a", "other"), filled("a", "x")] == [0.1, 0.2, None, None]
    assert not room.concerns(view(None, "a", "x"))


def test_the_room_says_which_members_it_filled_in(load: Load) -> None:
    entry = "{temperature: 0.1, top_p: 0.2, max_tokens: 3, thinking_budget: -1}"
    room = ModelDefaults(load(file=f"model_defaults: {{m: {entry}}}"))
    request = room.on_attempt(view(), Request(dialect=CHAT, sampling=Sampling(top_p=1), added=frozenset({"top_p"})))
    assert request.added == {"temperature", "top_p", "max_output_tokens", "reasoning"}
    assert (request.sampling, request.max_output_tokens) == (Sampling(temperature=0.1, top_p=1), 3)
    assert request.reasoning == Reasoning("auto", budget=-1)


# generation_config


@every_client
@every_provider
def test_generation_config_reaches_gemini_and_nobody_else(load: Load, client: str, upstream: str) -> None:
    settings = load(file="model_defaults: {'*': {generation_config: {topK: 5}}}")
    body = sent(settings, asked(client), client, upstream, PLAIN[upstream])
    if upstream == GEMINI:
        assert body["generationConfig"]["topK"] == 5
    else:
        assert body == sent(load(file=""), asked(client), client, upstream, PLAIN[upstream])


def test_generation_configs_are_merged_deep_request_before_session_before_default(load: Load) -> None:
    body = asked(GEMINI, generationConfig={"topK": 1, "speechConfig": {"languageCode": "de"}})
    of_session = {"top_k": 2, "seed": 2, "speech_config": {"language_code": "en", "a": {"x": 2}}}
    default = "{topK: 3, seed: 3, candidateCount: 3, speechConfig: {languageCode: fr, a: {x: 3, y: 3}, b: 3}, maxOutputTokens: 33}"
    settings = load(file=f"model_defaults: {{'*': {{generation_config: {default}}}}}")
    values = {"gemini-generation-config": of_session}
    assert sent(settings, body, GEMINI, GEMINI, "gemini-2.5-flash", values)["generationConfig"] == {
        "topK": 1, "seed": 2, "candidateCount": 3, "speechConfig": {"languageCode": "de", "a": {"x": 2, "y": 3}, "b": 3},
        "maxOutputTokens": 33,
    }  # fmt: skip


@every_client
def test_the_default_for_gemini_counts_more_than_the_default_for_all_but_less_than_the_session(
    load: Load, client: str
) -> None:
    entry = "{temperature: 0.25, thinking_budget: 4096, generation_config: {temperature: 0.75, thinkingConfig: {thinkingBudget: 300}}}"
    settings = load(file=f"model_defaults: {{'*': {entry}}}")
    config = sent(settings, asked(client), client, GEMINI, "gemini-2.5-flash")["generationConfig"]
    assert (config["temperature"], config["thinkingConfig"]["thinkingBudget"]) == (0.75, 300)
    values = {"temperature": 0.5, "thinking-budget": 600}
    config = sent(settings, asked(client), client, GEMINI, "gemini-2.5-flash", values)["generationConfig"]
    assert (config["temperature"], config["thinkingConfig"]["thinkingBudget"]) == (0.5, 600)


def test_a_level_and_a_budget_of_two_sources_never_stand_side_by_side(load: Load) -> None:
    settings = load(
        file="model_defaults: {'*': {generation_config: {thinkingConfig: {thinkingLevel: LOW, includeThoughts: true}}}}"
    )
    values = {"gemini-generation-config": {"thinking_config": {"thinking_budget": 300}}}
    body = sent(settings, asked(GEMINI), GEMINI, GEMINI, "gemini-2.5-flash", values)
    assert thinking_of(body) == {"thinkingBudget": 300, "includeThoughts": True}
