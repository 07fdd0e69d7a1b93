"""OPS-15: the response cache, over a scripted provider. Each test asks questions of its own, so that none finds another's answer.

S-20: what one client key gets is never another's, whatever the two ask, set and send.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from ruamel.yaml import YAML

from llm_proxy.config.response_cache import ResponseCacheOptions
from tests.e2e.asking import CROSSED, PAIRS, PROTOCOLS, Called, Scene, body_of, call, say, started, target, tools_of
from tests.faults.stage import whole
from tests.server.process import KEY, Answer
from tests.support.proxy import backends_at
from tests.support.shared import Protocol
from tests.support.upstream import Received, Reply, upstream_in_thread

PAGE: Final = Path(__file__).parents[2] / "docs" / "response-cache.md"
GUEST: Final = "LLM_INTERACTIVE_PROXY_API_KEY_1"
GUEST_KEY: Final = "key-of-the-guest-0002"

each_client = pytest.mark.parametrize("client", PROTOCOLS)
each_pair = pytest.mark.parametrize(("client", "back"), PAIRS)
_numbers = itertools.count()


def unique() -> str:
    """A question that nobody has asked before."""
    return f"What is {next(_numbers)} plus one?"


@pytest.fixture(scope="module")
def shared_cached() -> Iterator[Scene]:
    with upstream_in_thread(say) as upstream:
        backends = {
            **backends_at(upstream.url),
            **{
                name: {"type": "openai", "base_url": f"{upstream.url}/{name}/v1", "no_auth": True}
                for name in ("limited", "first", "second")
            },
        }
        config = {
            "backends": backends,
            "response_cache": {"enabled": True},
            "rate_limits": {"backend:limited": {"limit": 2, "time_window": 3600}},
            "failover_routes": {
                "back-ends": {"policy": "m", "elements": ["first:m", "second:m"]},
                "models": {"policy": "m", "elements": ["up-gemini:first", "up-gemini:second"]},
            },
        }
        with started(config=config, environment={GUEST: GUEST_KEY}) as proxy:
            yield Scene(proxy, upstream)


@pytest.fixture
def cached(shared_cached: Scene) -> Scene:
    shared_cached.play(say)
    return shared_cached


def settled(client: Protocol, temperature: float = 0, **more: Any) -> dict[str, Any]:
    """The members that ask for the same answer each time."""
    if client == "gemini":
        return {"generationConfig": {"temperature": temperature, **more}}
    return {"temperature": temperature, **more}


def calls(scene: Scene) -> int:
    return len(scene.upstream.requests)


def cache_of(answer: Answer) -> str | None:
    assert answer.status == 200, answer.body
    return answer.headers.get("x-cache")


@each_pair
def test_two_equal_requests_are_one_upstream_call_and_a_hit(cached: Scene, client: Protocol, back: Protocol) -> None:
    said = unique()
    first, second = (cached.ask(client, target(back), said=said, **settled(client)) for _ in range(2))
    assert (cache_of(first), cache_of(second)) == ("miss", "hit")
    assert calls(cached) == 1
    assert second.body == first.body
    assert second.headers["content-type"] == first.headers["content-type"]
    assert second.headers["x-llm-proxy-backend"] == first.headers["x-llm-proxy-backend"]
    assert second.headers["x-request-id"] != first.headers["x-request-id"]


@each_client
def test_another_client_key_is_a_miss(cached: Scene, client: Protocol) -> None:
    said, path = unique(), "up-chat:m"
    body = body_of(client, path, said=said, **settled(client))
    place = {"gemini": "/v1beta/models/up-chat%3Am:generateContent", "openai-chat": "/v1/chat/completions",
             "openai-responses": "/v1/responses", "anthropic-messages": "/v1/messages"}[client]  # fmt: skip
    answers = [cached.proxy.post(place, body, key=key) for key in (KEY, GUEST_KEY, KEY, GUEST_KEY)]
    assert [cache_of(answer) for answer in answers] == ["miss", "miss", "hit", "hit"]
    assert calls(cached) == 2


@each_client
@pytest.mark.parametrize("temperature", [0.5, None])
def test_another_temperature_has_no_header_and_two_calls(
    cached: Scene, client: Protocol, temperature: float | None
) -> None:
    said = unique()
    members = {} if temperature is None else settled(client, temperature)
    answers = [cached.ask(client, target(client), said=said, **members) for _ in range(2)]
    assert [cache_of(answer) for answer in answers] == [None, None]
    assert calls(cached) == 2


@pytest.mark.parametrize(("client", "back"), [*CROSSED, *((client, client) for client in PROTOCOLS)])
def test_tools_have_no_header_and_two_calls(cached: Scene, client: Protocol, back: Protocol) -> None:
    said = unique()
    members = settled(client) | tools_of(client, "read")
    answers = [cached.ask(client, target(back), said=said, **members) for _ in range(2)]
    assert [cache_of(answer) for answer in answers] == [None, None]
    assert calls(cached) == 2


@each_client
def test_a_stream_has_no_header_and_two_calls(cached: Scene, client: Protocol) -> None:
    said = unique()
    answers = [cached.ask(client, target(client), stream=True, said=said, **settled(client)) for _ in range(2)]
    assert [cache_of(answer) for answer in answers] == [None, None]
    assert calls(cached) == 2


@pytest.mark.parametrize("back", ["openai-chat", "anthropic-messages"])
def test_several_choices_have_no_header(cached: Scene, back: Protocol) -> None:
    said = unique()
    answers = [cached.ask("openai-chat", target(back), said=said, **settled("openai-chat", n=2)) for _ in range(2)]
    assert [cache_of(answer) for answer in answers] == [None, None]


@each_client
def test_a_question_of_other_words_model_or_limit_is_a_miss(cached: Scene, client: Protocol) -> None:
    said = unique()
    limit = {"gemini": "maxOutputTokens", "openai-responses": "max_output_tokens"}.get(client, "max_tokens")
    limited = settled(client, **{limit: 77})
    answers = [
        cached.ask(client, target(client), said=said, **settled(client)),
        cached.ask(client, target(client), said=said + " ", **settled(client)),
        cached.ask(client, target(client, "other"), said=said, **settled(client)),
        cached.ask(client, "up-chat:m" if client == "gemini" else "up-gemini:m", said=said, **settled(client)),
        cached.ask(client, target(client), said=said, **limited),
    ]
    assert [cache_of(answer) for answer in answers] == ["miss"] * 5
    assert cache_of(cached.ask(client, target(client), said=said, **limited)) == "hit"


@pytest.mark.parametrize("route", ["back-ends", "models"])
def test_each_target_of_a_route_has_answers_of_its_own(cached: Scene, route: str) -> None:
    said, missing = unique(), ["second"]

    def script(request: Received) -> Reply:
        if missing[0] in request.path:
            return Reply.json({"error": {"message": "no such model", "type": "invalid_request_error"}}, 404)
        name = "first" if "first" in request.path else "second"
        return Reply.json(json.loads(say(request).body.replace(b"w0 w1 w2 ", name.encode())))

    def ask(control: str = "") -> tuple[str | None, str]:
        headers = {"Cache-Control": control} if control else {}
        answer = cached.ask("openai-chat", route, said=said, headers=headers, **settled("openai-chat"))
        text = str(answer.json["choices"][0]["message"]["content"])
        assert text in (answer.headers["x-llm-proxy-backend"], answer.headers["x-llm-proxy-model"])
        return cache_of(answer), text

    cached.play(script)
    assert ask() == ("miss", "first")
    missing[0] = "first"
    assert ask("no-cache") == ("miss", "second")
    missing[0] = "second"
    assert ask() == ("hit", "first")


def test_spaces_and_the_order_of_members_make_no_difference(cached: Scene) -> None:
    body = body_of("openai-chat", "up-chat:m", said=unique(), **settled("openai-chat"))
    turned = json.dumps(dict(reversed(body.items())), indent=3).encode()
    answers = [cached.post("/v1/chat/completions", one) for one in (json.dumps(body).encode(), turned)]
    assert [cache_of(answer) for answer in answers] == ["miss", "hit"]


def test_no_cache_skips_reading_and_no_store_also_writing(cached: Scene) -> None:
    said, other = unique(), unique()

    def ask(text: str, control: str = "") -> str | None:
        headers = {"Cache-Control": control} if control else {}
        return cache_of(cached.ask("openai-chat", "up-chat:m", said=text, headers=headers, **settled("openai-chat")))

    assert [ask(said), ask(said, "no-cache"), ask(said)] == ["miss", "miss", "hit"]
    assert calls(cached) == 2
    assert [ask(other, "max-age=0, No-Store"), ask(other), ask(other, "no-store"), ask(other)] == [
        "miss", "miss", "miss", "hit",
    ]  # fmt: skip


def test_what_no_cache_brought_replaces_what_was_kept(cached: Scene) -> None:
    said = unique()
    cached.ask("openai-chat", "up-chat:m", said=said, **settled("openai-chat"))
    cached.play(Reply.json(whole("openai-chat", "newer")))
    cached.ask("openai-chat", "up-chat:m", said=said, headers={"Cache-Control": "no-cache"}, **settled("openai-chat"))
    answer = cached.ask("openai-chat", "up-chat:m", said=said, **settled("openai-chat"))
    assert cache_of(answer) == "hit" and answer.json["choices"][0]["message"]["content"] == "newer"


def cut(request: Received) -> Reply:
    """The provider stops at a limit."""
    reply = say(request)
    body = reply.body.replace(b'"stop"', b'"length"').replace(b'"end_turn"', b'"max_tokens"')
    body = body.replace(b'"completed"', b'"incomplete"').replace(b'"STOP"', b'"MAX_TOKENS"')
    return Reply.json(json.loads(body))


@each_client
def test_an_answer_that_was_cut_is_not_kept(cached: Scene, client: Protocol) -> None:
    said = unique()
    cached.play(cut)
    answers = [cached.ask(client, target(client), said=said, **settled(client)) for _ in range(2)]
    assert [cache_of(answer) for answer in answers] == ["miss", "miss"]


def test_an_answer_that_a_room_ended_is_not_kept(cached: Scene) -> None:
    said = unique()
    cached.play(Reply.json(whole("openai-chat", "round and round we go again. " * 800)))
    answers = [cached.ask("openai-chat", "up-chat:m", said=said, **settled("openai-chat")) for _ in range(2)]
    assert [cache_of(answer) for answer in answers] == ["miss", "miss"]
    assert len(answers[0].body) < 20_000, "the content loop was cut"


def test_an_error_is_not_kept_and_has_no_header(cached: Scene) -> None:
    said = unique()
    cached.play([Reply.json({"error": {"message": "no", "type": "x"}}, 400), Reply.json(whole("openai-chat", "yes"))])
    failed = cached.ask("openai-chat", "up-chat:m", said=said, **settled("openai-chat"))
    assert failed.status == 400 and "x-cache" not in failed.headers
    assert cache_of(cached.ask("openai-chat", "up-chat:m", said=said, **settled("openai-chat"))) == "miss"


@each_client
def test_a_call_of_a_tool_that_nobody_offered_is_not_kept(cached: Scene, client: Protocol) -> None:
    said = unique()
    cached.play(call(Called("call_1", "read", {"a": 1})))
    answers = [cached.ask(client, target(client), said=said, **settled(client)) for _ in range(2)]
    assert [cache_of(answer) for answer in answers] == ["miss", "miss"]


def test_a_message_with_a_command_has_no_header(cached: Scene) -> None:
    said = f"!/set(project=p) {unique()}"
    answers = [cached.ask("openai-chat", "up-chat:m", said=said, **settled("openai-chat")) for _ in range(2)]
    assert [cache_of(answer) for answer in answers] == [None, None]
    assert calls(cached) == 2


def test_a_session_with_other_settings_gets_an_answer_of_its_own(cached: Scene) -> None:
    said = unique()

    def ask(session: str) -> str | None:
        headers = {"X-Session-Id": session}
        return cache_of(cached.ask("openai-chat", "up-chat:m", said=said, headers=headers, **settled("openai-chat")))

    assert [ask("plain-1"), ask("plain-2")] == ["miss", "hit"]
    cached.ask("openai-chat", "up-chat:m", said="!/set(reasoning-effort=high)", headers={"X-Session-Id": "set"})
    assert ask("set") == "miss"


def test_a_temperature_that_a_room_sets_counts(cached: Scene) -> None:
    said, headers = unique(), {"X-Session-Id": "warm"}
    cached.ask("openai-chat", "up-chat:m", said="!/set(temperature=0)", headers=headers)
    answers = [cached.ask("openai-chat", "up-chat:m", said=said, headers=headers) for _ in range(2)]
    assert [cache_of(answer) for answer in answers] == ["miss", "hit"]


def test_a_hit_has_a_row_without_cost_that_is_marked(cached: Scene) -> None:
    said, project = unique(), {"X-Project": "hits"}
    for _ in range(3):
        cached.ask("openai-chat", "up-chat:m", said=said, headers=project, **settled("openai-chat"))
    rows = cached.proxy.get("/usage/recent?project=hits").json["data"]
    assert [row["cached"] for row in rows] == [True, True, False]
    assert [row["cost"] for row in rows[:2]] == [0, 0]
    assert [(row["prompt_tokens"], row["completion_tokens"]) for row in rows] == [(0, 0), (0, 0), (7, 3)]
    assert {row["model"] for row in rows} == {"up-chat:m"}


def test_hits_use_up_no_rate_limit(cached: Scene) -> None:
    said = unique()
    answers = [cached.ask("openai-chat", "limited:m", said=said, **settled("openai-chat")) for _ in range(5)]
    assert [cache_of(answer) for answer in answers] == ["miss"] + ["hit"] * 4
    assert cache_of(cached.ask("openai-chat", "limited:m", said=unique(), **settled("openai-chat"))) == "miss"
    over = cached.ask("openai-chat", "limited:m", said=unique(), **settled("openai-chat"))
    assert over.status == 429


def test_a_hit_of_a_response_can_be_built_on(cached: Scene) -> None:
    """A back end that keeps no responses: the proxy does, and a hit counts like the answer that it repeats."""
    said = unique()
    first, second = (
        cached.ask("openai-responses", "up-chat:m", said=said, headers={"X-Session-Id": session}, temperature=0)
        for session in ("one", "two")
    )
    assert cache_of(second) == "hit" and second.json["id"] == first.json["id"]
    body = {"model": "up-chat:m", "input": "and then?", "previous_response_id": second.json["id"]}
    assert cached.post("/v1/responses", body).status == 200
    assert said in json.dumps(cached.last.json["messages"])


def test_the_text_of_a_hit_is_in_the_history(cached: Scene) -> None:
    said, headers = unique(), {"X-Session-Id": "told"}
    for _ in range(2):
        cached.ask("openai-chat", "up-chat:m", said=said, headers=headers, **settled("openai-chat"))
    page = cached.proxy.get("/internal/sessions/told")
    assert page.status == 200
    assert page.body.decode().count("w0 w1 w2") == 2


def test_disabled_there_is_no_header(scene: Scene) -> None:
    said = unique()
    scene.play(say)
    answers = [scene.ask("openai-chat", "up-chat:m", said=said, **settled("openai-chat")) for _ in range(2)]
    assert [cache_of(answer) for answer in answers] == [None, None]
    assert calls(scene) == 2


def test_the_example_of_the_documentation_is_a_miss_and_a_hit() -> None:
    blocks = re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    options, request = (next(text for kind, text in blocks if kind == wanted) for wanted in ("yaml", "json"))
    config = YAML(typ="safe").load(options)
    assert set(config["response_cache"]) == {option.name for option in ResponseCacheOptions.options}
    with upstream_in_thread(say) as upstream:
        config["backends"] = {"openai": {"type": "openai", "base_url": f"{upstream.url}/v1", "api_keys": ["sk-x"]}}
        with started(config=config) as proxy:
            answers = [proxy.post("/v1/chat/completions", request.strip().encode()) for _ in range(2)]
    assert [cache_of(answer) for answer in answers] == ["miss", "hit"]


# S-20: user A never receives B's entry

USERS: Final = {"ann": "key-of-ann-0001", "bob": "key-of-bob-0001", "cyd": "key-of-cyd-0001"}
PATHS: Final = {"openai-chat": "/v1/chat/completions", "openai-responses": "/v1/responses", "anthropic-messages": "/v1/messages"}  # fmt: skip
SAID: Final = ("one", "two", "three")
MODELS: Final = ("up-chat:m", "up-chat:n", "up-anthropic:m")
SETTINGS: Final = ("", "loop-detection=false", "project=secret")
"""What is set in a session; the first two make the very same request of a question."""
MOST: Final = 8

Question = tuple[str, str, str, str, str]
"""Who asked, in which protocol, which model, what, and what is set in the session."""


class Numbered:
    """A provider whose every answer is another one."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, request: Received) -> Reply:
        self.made += 1
        reply = say(request)
        return Reply.json(json.loads(reply.body.replace(b"w0 w1 w2 ", b"answer %d." % self.made)))


@dataclass
class Crowd:
    """Three users of one proxy who ask the same few questions; `origin` is the oracle: which question each answer was made for."""

    scene: Scene
    provider: Numbered
    origin: dict[int, Question] = field(default_factory=dict)
    hits: int = 0
    connections: dict[str, http.client.HTTPConnection] = field(default_factory=dict)

    def post(self, user: str, path: str, body: dict[str, Any], session: str) -> Answer:
        connection = self.connections.get(user)
        if connection is None:
            connection = self.connections[user] = http.client.HTTPConnection(*self.scene.proxy.main, timeout=20)
        headers = {
            "authorization": f"Bearer {USERS[user]}",
            "content-type": "application/json",
            "x-session-id": session,
        }
        connection.request("POST", path, json.dumps(body), headers)
        response = connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())

    def ask(self, user: str, client: Protocol, model: str, said: str, setting: str) -> None:
        session = f"session-{SETTINGS.index(setting)}"
        question = (user, client, model, said, setting)
        before = self.provider.made
        answer = self.post(user, PATHS[client], body_of(client, model, said=said, temperature=0), session)
        assert answer.status == 200, answer.body
        number = int(answer.body.decode().partition("answer ")[2].partition(".")[0])
        if answer.headers["x-cache"] == "hit":
            assert self.provider.made == before
            assert self.origin[number] == question
            self.hits += 1
        else:
            assert number == self.provider.made == before + 1
            self.origin[number] = question

    def choose(self) -> None:
        for user, setting in itertools.product(USERS, SETTINGS[1:]):
            body = body_of("openai-chat", "up-chat:m", said=f"!/set({setting})")
            answer = self.post(user, PATHS["openai-chat"], body, f"session-{SETTINGS.index(setting)}")
            assert b"proxy_cmd_processed" in answer.body, answer.body

    def close(self) -> None:
        for connection in self.connections.values():
            connection.close()


@pytest.fixture(scope="module")
def crowd() -> Iterator[Crowd]:
    provider = Numbered()
    with upstream_in_thread(provider) as upstream:
        config = {
            "backends": backends_at(upstream.url),
            "response_cache": {"enabled": True, "max_entries": MOST},
            "auth": {"api_keys": USERS},
        }
        with started(config=config, environment={"LLM_INTERACTIVE_PROXY_API_KEY": ""}) as proxy:
            crowd = Crowd(Scene(proxy, upstream), provider)
            crowd.choose()
            yield crowd
            crowd.close()


class Neighbours(RuleBasedStateMachine):
    """Any order of questions; a small cache, so that entries come and go."""

    crowd: Crowd

    @rule(
        user=st.sampled_from(sorted(USERS)),
        client=st.sampled_from(sorted(PATHS)),
        model=st.sampled_from(MODELS),
        said=st.sampled_from(SAID),
        setting=st.sampled_from(SETTINGS),
        times=st.integers(1, 2),
    )
    def asks(self, user: str, client: Protocol, model: str, said: str, setting: str, times: int) -> None:
        for _ in range(times):
            self.crowd.ask(user, client, model, said, setting)


def test_s20_nobody_gets_an_answer_that_was_made_for_another(crowd: Crowd) -> None:
    machine = type("Neighbours", (Neighbours,), {"crowd": crowd})
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=8, stateful_step_count=16, deadline=None, suppress_health_check=checks, derandomize=True
        ),
    )
    assert crowd.hits > 0


@pytest.mark.long
def test_s20_nobody_gets_an_answer_that_was_made_for_another_in_100_000_requests(crowd: Crowd) -> None:
    chance = random.Random(20)
    before = crowd.hits
    for _ in range(100_000):
        crowd.ask(
            chance.choice(sorted(USERS)),
            chance.choice(("openai-chat", "openai-responses", "anthropic-messages")),
            MODELS[min(2, int(chance.expovariate(1.5)))],
            SAID[min(2, int(chance.expovariate(1.5)))],
            SETTINGS[min(2, int(chance.expovariate(2)))],
        )
        if len(crowd.origin) > 20_000:
            for number in list(crowd.origin)[:10_000]:
                del crowd.origin[number]
        crowd.scene.upstream.forget()
    assert crowd.hits - before > 1000
