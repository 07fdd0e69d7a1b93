"""What providers get of sampling values: the option `thinking_budget`, session values, reasoning aliases, model defaults (REQ-01 to
REQ-03, REQ-10, CMD-17), in every client protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.asking import PROTOCOLS, Scene, protocol_of, say, started, target
from tests.e2e.commanding import NAMES, SURFACES, Talk, Turn, config, fresh_id, heard
from tests.features.shaping import ANTHROPIC, ASKED_LOW, CHAT, GEMINI, PLAIN, REASONING, RESPONSES, heat_of, thinking_of
from tests.server.process import run, running
from tests.support.shared import Protocol
from tests.support.upstream import Received, Reply, upstream_in_thread

every_surface = pytest.mark.parametrize(("client", "stream"), SURFACES, ids=NAMES)
every_client = pytest.mark.parametrize("client", PROTOCOLS)
every_provider = pytest.mark.parametrize("back", PROTOCOLS)

ALIASES = [
    {"model": "*claude-sonnet*", "modes": {"high": {"max_reasoning_tokens": 20000}}},
    {
        "model": "up-*:*marked",
        "modes": {"high": {"user_prompt_prefix": "<<", "user_prompt_suffix": ">>", "temperature": 0.25, "max_reasoning_tokens": 0}},
    },
]  # fmt: skip
SHAPED = {"reasoning_effort": "high", "max_tokens": 700}
DEFAULTS = {
    "*-flat": SHAPED,
    "*-nested": {"reasoning": SHAPED},
    "*-short": {"max_tokens": 500, "temperature": 0.2},
    "up-chat:first": {"temperature": 0.1},
    "up-chat/second": {"temperature": 0.3, "max_tokens": 600},
    "google:*": {"generation_config": {"topK": 9, "seed": 9, "temperature": 0.9}},
}


def shaping_config(url: str) -> dict[str, Any]:
    route = {"policy": "m", "elements": ["up-chat:first", "up-chat:second"]}
    more = {"model_defaults": DEFAULTS, "failover_routes": {"defaulted": route}}
    return config(url, reasoning_alias_settings=ALIASES, **more)


@pytest.fixture(scope="module")
def shaping_scene() -> Iterator[Scene]:
    with upstream_in_thread(say) as upstream, started(config=shaping_config(upstream.url)) as proxy:
        yield Scene(proxy, upstream)


@pytest.fixture
def shaped(shaping_scene: Scene) -> Scene:
    """Has reasoning aliases and model defaults."""
    shaping_scene.play(say)
    return shaping_scene


@pytest.fixture(scope="module", params=[0, 2000])
def budget_scene(request: pytest.FixtureRequest) -> Iterator[tuple[Scene, int]]:
    with (
        upstream_in_thread(say) as upstream,
        started("--thinking-budget", str(request.param), config=shaping_config(upstream.url)) as proxy,
    ):
        yield Scene(proxy, upstream), request.param


def posted(
    scene: Scene, client: Protocol, model: str, said: Any = "hi", stream: bool = False, **more: Any
) -> dict[str, Any]:
    """What the provider got of a request in a session of its own, whose last commands may stand in `said`."""
    answer = Talk(scene, client, stream, model=model).post(said, **more)
    assert answer.status == 200, answer.body
    body = scene.last.json
    assert isinstance(body, dict)
    return body


def limit_in(request: Received) -> Any:
    body = request.json
    match protocol_of(request):
        case "gemini":
            return body.get("generationConfig", {}).get("maxOutputTokens")
        case "openai-responses":
            return body.get("max_output_tokens")
        case _:
            return body.get("max_tokens", body.get("max_completion_tokens"))


# REQ-01: the option


OFF: list[tuple[Protocol, str]] = [(back, REASONING[back]) for back in PROTOCOLS]


@every_surface
@pytest.mark.parametrize(("back", "model"), OFF)
@pytest.mark.parametrize("said", ["hi", "!/max hi", "!/set(thinking-budget=5000) hi"])
def test_req_01_the_option_counts_above_request_session_mode_and_defaults(
    budget_scene: tuple[Scene, int], client: Protocol, stream: bool, back: Protocol, model: str, said: str
) -> None:
    scene, budget = budget_scene
    for name in (target(back, model), target(back, f"{model}-flat")):
        body = posted(scene, client, name, said, stream, **ASKED_LOW[client])
        match back:
            case "openai-chat":
                assert body["reasoning_effort"] == ("low" if budget else "none")
            case "openai-responses":
                assert body["reasoning"]["effort"] == ("low" if budget else "none")
            case "anthropic-messages" if budget:
                assert body["thinking"]["budget_tokens"] == budget < body["max_tokens"]
            case "anthropic-messages":
                assert "thinking" not in body
            case "gemini":
                assert thinking_of(body)["thinkingBudget"] == budget


@every_client
def test_req_01_a_model_without_reasoning_gets_nothing_of_the_option(
    budget_scene: tuple[Scene, int], client: Protocol
) -> None:
    scene, _ = budget_scene
    for back in PROTOCOLS:
        body = posted(scene, client, target(back, PLAIN[back]))
        named = {"reasoning_effort", "reasoning", "thinking"} & body.keys()
        assert not named and "thinkingConfig" not in body.get("generationConfig", {})


# REQ-02


@every_surface
@every_provider
def test_req_02_session_0_2_and_no_value_then_0_2(
    shaped: Scene, client: Protocol, stream: bool, back: Protocol
) -> None:
    body = posted(shaped, client, target(back, PLAIN[back]), "!/temperature(0.2) hi", stream)
    assert heat_of(back, body) == 0.2


@every_surface
@every_provider
def test_req_02_request_0_9_then_0_9(shaped: Scene, client: Protocol, stream: bool, back: Protocol) -> None:
    said = {"generationConfig": {"temperature": 0.9}} if client == "gemini" else {"temperature": 0.9}
    body = posted(shaped, client, target(back, PLAIN[back]), "!/temperature(0.2) hi", stream, **said)
    assert heat_of(back, body) == 0.9


@every_surface
def test_req_02_target_anthropic_and_1_5_then_1_0(shaped: Scene, client: Protocol, stream: bool) -> None:
    body = posted(shaped, client, target(ANTHROPIC, PLAIN[ANTHROPIC]), "!/temperature(1.5) hi", stream)
    assert body["temperature"] == 1.0


@every_surface
@every_provider
def test_req_02_generation_config_is_gemini_s_alone(
    shaped: Scene, client: Protocol, stream: bool, back: Protocol
) -> None:
    body = posted(shaped, client, target(back), '!/set(gemini-generation-config={"topK":5}) hi', stream)
    if back == "gemini":
        assert body["generationConfig"]["topK"] == 5
    else:
        assert b"topK" not in shaped.last.body and b"top_k" not in shaped.last.body


def test_req_02_generation_config_is_merged_deep(shaped: Scene) -> None:
    said = '!/set(gemini-generation-config={"topK":5,"speechConfig":{"languageCode":"en","voiceConfig":{"a":1}}}) hi'
    asks = {"generationConfig": {"topK": 40, "speechConfig": {"languageCode": "de"}}}
    body = posted(shaped, "gemini", target(GEMINI), said, **asks)
    assert body["generationConfig"] == {"topK": 40, "speechConfig": {"languageCode": "de", "voiceConfig": {"a": 1}}}


# REQ-03, CMD-17


@every_surface
def test_req_03_an_entry_s_budget_and_effort_high_elsewhere(shaped: Scene, client: Protocol, stream: bool) -> None:
    session = fresh_id()
    talk = Talk(shaped, client, stream, model=target(ANTHROPIC, "claude-sonnet-4-5"), session=session)
    said = talk.say("!/max").text
    assert "reasoning budget = 20000 tokens" in said and "*claude-sonnet*" in said
    talk.post("fix this")
    assert shaped.last.json["thinking"] == {"type": "enabled", "budget_tokens": 20000}
    other = Talk(shaped, client, stream, model=target(CHAT, "o3"), session=session)
    other.post("fix this")
    assert shaped.last.json["reasoning_effort"] == "high"
    assert "reasoning effort = high" in other.say("!/max").text


@every_surface
@every_provider
def test_req_03_only_the_last_of_three_user_turns_has_prefix_and_suffix(
    shaped: Scene, client: Protocol, stream: bool, back: Protocol
) -> None:
    turns: list[Turn] = [
        ("user", "one"),
        ("assistant", "two"),
        ("user", "three"),
        ("assistant", "four"),
        ("user", "five"),
    ]
    talk = Talk(shaped, client, stream, model=target(back, f"{PLAIN[back]}-marked"))
    talk.say("!/max")
    assert talk.post(turns).status == 200
    assert heard(shaped.last) == [*turns[:-1], ("user", "<<five>>")]
    assert heat_of(back, shaped.last.json) == 0.25
    assert talk.post([*turns, ("assistant", "six"), ("user", "seven")]).status == 200
    assert heard(shaped.last) == [*turns, ("assistant", "six"), ("user", "<<seven>>")]


@every_surface
@pytest.mark.parametrize("word", ["no-think", "no-thinking", "no-reasoning", "disable-thinking", "disable-reasoning"])
def test_req_03_no_think_is_off(shaped: Scene, client: Protocol, stream: bool, word: str) -> None:
    asks = ASKED_LOW[client]
    assert posted(shaped, client, target(CHAT, "gpt-5.5"), f"!/{word} hi", stream, **asks)["reasoning_effort"] == "none"
    body = posted(shaped, client, target(RESPONSES, "gpt-5.5"), f"!/{word} hi", stream, **asks)
    assert body["reasoning"]["effort"] == "none"
    assert "thinking" not in posted(
        shaped, client, target(ANTHROPIC, "claude-sonnet-4-5"), f"!/{word} hi", stream, **asks
    )
    body = posted(shaped, client, target(GEMINI, "gemini-2.5-flash"), f"!/{word} hi", stream, **asks)
    assert thinking_of(body)["thinkingBudget"] == 0


@every_client
def test_cmd_17_the_last_mode_counts_and_unset_leaves_it(shaped: Scene, client: Protocol) -> None:
    talk = Talk(shaped, client, model=target(CHAT, "gpt-5.5"))
    talk.post("!/low")
    talk.post("!/max fix this")
    assert shaped.last.json["reasoning_effort"] == "high"
    talk.post("!/unset(reasoning-mode)")
    talk.post("fix this")
    assert "reasoning_effort" not in shaped.last.json


# REQ-10


@every_surface
@every_provider
def test_req_10_flat_and_nested_have_the_same_effect(
    shaped: Scene, client: Protocol, stream: bool, back: Protocol
) -> None:
    flat = posted(shaped, client, target(back, f"{REASONING[back]}-flat"), "hi", stream)
    nested = posted(shaped, client, target(back, f"{REASONING[back]}-nested"), "hi", stream)
    plain = posted(shaped, client, target(back, REASONING[back]), "hi", stream)
    for body in (flat, nested, plain):
        body.pop("model", None)
    assert flat == nested != plain


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("client", [CHAT, RESPONSES, GEMINI])
@every_provider
def test_req_10_default_500_and_request_100(shaped: Scene, client: Protocol, stream: bool, back: Protocol) -> None:
    model = target(back, f"{PLAIN[back]}-short")
    posted(shaped, client, model, "hi", stream)
    assert limit_in(shaped.last) == 500
    asks: dict[Protocol, dict[str, Any]] = {
        "openai-chat": {"max_tokens": 100},
        "openai-responses": {"max_output_tokens": 100},
        "gemini": {"generationConfig": {"maxOutputTokens": 100}},
    }
    posted(shaped, client, model, "hi", stream, **asks[client])
    assert limit_in(shaped.last) == 100


@every_provider
def test_req_10_the_limit_of_an_anthropic_request_stays(shaped: Scene, back: Protocol) -> None:
    posted(shaped, "anthropic-messages", target(back, f"{PLAIN[back]}-short"), max_tokens=100)
    assert limit_in(shaped.last) == 100


@every_surface
def test_req_10_the_session_counts_more_than_a_default(shaped: Scene, client: Protocol, stream: bool) -> None:
    model = target(CHAT, "gpt-4o-short")
    assert posted(shaped, client, model, "hi", stream)["temperature"] == 0.2
    assert posted(shaped, client, model, "!/temperature(0.7) hi", stream)["temperature"] == 0.7


@every_surface
def test_req_10_each_element_of_a_route_has_its_own_defaults(shaped: Scene, client: Protocol, stream: bool) -> None:
    def first_fails(request: Received) -> Reply:
        return Reply.json({"error": {"message": "down"}}, 503) if request.json["model"] == "first" else say(request)

    shaped.play(first_fails)
    posted(shaped, client, "defaulted", "hi", stream)
    assert [(request.json["model"], request.json["temperature"]) for request in shaped.upstream.requests] == [
        ("first", 0.1),
        ("second", 0.3),
    ]


@every_client
def test_req_10_a_default_generation_config_is_completed_by_the_session(shaped: Scene, client: Protocol) -> None:
    body = posted(shaped, client, "google:gemini-2.0-flash", '!/set(gemini-generation-config={"topK":5}) hi')
    found = {name: value for name, value in body["generationConfig"].items() if name != "maxOutputTokens"}
    assert found == {"topK": 5, "seed": 9, "temperature": 0.9}


@every_client
def test_req_10_without_an_entry_the_bytes_are_the_client_s(shaped: Scene, client: Protocol) -> None:
    talk = Talk(shaped, client, model=target(client, "plain"))
    body = talk.body("h\u00e9 there")
    posted(shaped, client, talk.model, "h\u00e9 there")
    assert shaped.last.body == json.dumps({**body, "model": "plain"} if "model" in body else body).encode()


# REQ-03: the file


def test_req_03_the_file_beside_the_configuration_is_read_at_start_and_again_when_it_changes(tmp_path: Path) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    aliases, file = folder / "reasoning_aliases.yaml", tmp_path / "config.json"

    def budget_now(tokens: int) -> None:
        aliases.write_text(
            f"reasoning_alias_settings:\n  - model: '*'\n    modes: {{high: {{max_reasoning_tokens: {tokens}}}}}\n"
        )

    with upstream_in_thread(say) as upstream:
        file.write_text(json.dumps(config(upstream.url)))
        budget_now(1000)
        with running(tmp_path, "--config", str(file)) as proxy:
            talk = Talk(Scene(proxy, upstream), "openai-chat", model=target(GEMINI, "gemini-2.5-flash"))
            talk.post("!/max hi")
            assert thinking_of(upstream.requests[-1].json)["thinkingBudget"] == 1000
            budget_now(2000)
            assert proxy.post("/internal/reload", None).status == 200
            talk.post("hi")
            assert thinking_of(upstream.requests[-1].json)["thinkingBudget"] == 2000
            aliases.write_text("reasoning_alias_settings: [{model: m, modes: {max: {}}}]")
            refused = proxy.post("/internal/reload", None)
            assert b"reasoning_aliases.yaml:1:47" in refused.body
            talk.post("hi")
            assert thinking_of(upstream.requests[-1].json)["thinkingBudget"] == 2000
            proxy.stop()


def test_req_03_a_wrong_file_is_an_error_at_start(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "reasoning_aliases.yaml").write_text(
        "reasoning_alias_settings:\n  - model: m\n    modes:\n      high: {temperature: warm}\n"
    )
    (tmp_path / "config.json").write_text("{}")
    ended = run(tmp_path, ["--config", str(tmp_path / "config.json")])
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert b"config/reasoning_aliases.yaml:4:27: expected a number from 0 to 2" in ended.stderr
