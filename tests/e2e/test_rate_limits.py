"""OPS-12: rate limits of the proxy's own, over the scripted provider. Each test has back ends of its own, so that none uses up another's limit."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.asking import PROTOCOLS, Scene, body_of, error_of, keys, path_of, say, started
from tests.e2e.keeping import CHAT, Place, backend
from tests.server.process import Answer, Proxy, run
from tests.support.shared import Protocol
from tests.support.upstream import Reply, Upstream, upstream_in_thread

each_client = pytest.mark.parametrize("client", PROTOCOLS)
each_way = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])

HOUR: Final = 3600  # no window ends while a test runs
GUEST: Final = "LLM_INTERACTIVE_PROXY_API_KEY_1"  # a variable gives its key its name
TYPES: Final = {
    "openai-chat": "openai",
    "openai-responses": "openai-responses",
    "anthropic-messages": "anthropic",
    "gemini": "gemini",
}


def config(url: str) -> dict[str, Any]:
    backends: dict[str, Any] = {
        f"{type_}-{way}": {"type": type_, "base_url": url if type_ == "gemini" else f"{url}/v1", "no_auth": True}
        for type_ in TYPES.values()
        for way in ("whole", "stream", "strict-whole", "strict-stream", "counted")
    }
    names = ("free", "spare", "strict", "replied", "listed", "embedded", "failing", "tokens", "model", "left", "tried")
    backends |= {name: backend(url, name) for name in names}
    backends["spare"] = {"type": "openai", "base_url": f"{url}/spare/v1", "api_keys": keys("a", "b")}
    backends["own"] = backend(url, "own", rate_limit={"limit": 1, "time_window": HOUR})
    for one in backends.values():
        one.setdefault("models", ["m"])  # so that a list of models asks no provider
    limited = [f"{type_}-{way}" for type_ in TYPES.values() for way in ("whole", "stream")]
    once = ["strict", "replied", "listed", "embedded", "tried"]
    once += [f"{type_}-{way}" for type_ in TYPES.values() for way in ("strict-whole", "strict-stream", "counted")]
    limits = {
        **{f"backend:{id}": {"limit": 2, "time_window": 60} for id in limited},
        **{f"backend:{id}": {"limit": 1, "time_window": HOUR} for id in once},
        "backend:failing": {"limit": 3, "time_window": HOUR},
        "model:model:tight": {"limit": 1, "time_window": HOUR},
        f"client:{GUEST}": {"limit": 2, "time_window": HOUR},
    }
    routes = {
        f"route-{id}": {"policy": "m", "elements": [f"{id}:m", "free:second"]} for id in (*once, "failing", "tokens")
    }
    return {
        "backends": backends,
        "rate_limits": limits,
        "model_defaults": {"tokens:m": {"limits": {"tokens_per_minute": 5000}}},
        "failover_routes": {**routes, "keys": {"policy": "km", "elements": ["spare:m", "strict:m"]}},
    }


@pytest.fixture(scope="module")
def shared() -> Iterator[Scene]:
    environment = {GUEST: "key-of-a-guest-0002", "ADMIN_KEYS": "LLM_INTERACTIVE_PROXY_API_KEY"}
    with upstream_in_thread(say) as upstream, started(config=config(upstream.url), environment=environment) as proxy:
        yield Scene(proxy, upstream)


@pytest.fixture
def limited(shared: Scene) -> Scene:
    shared.play(say)
    return shared


def refused(client: Protocol, answer: Answer, scope: str, limit: int = 1, window: int = HOUR) -> None:
    """Checks everything that a refusal says."""
    assert answer.status == 429, answer.body
    error = error_of(client, answer)
    assert scope in error["message"]
    match client:
        case "openai-chat" | "openai-responses" | "anthropic-messages":
            assert error["type"] == "rate_limit_error"
        case "gemini":
            assert error["status"] == "RESOURCE_EXHAUSTED"
    assert 1 <= int(answer.headers["retry-after"]) <= window
    detail = answer.json["detail"]
    assert detail["code"] == "rate_limited"
    details = detail["details"]
    assert (details["limit"], details["remaining"]) == (limit, 0)
    assert isinstance(details["reset_at"], int)
    assert answer.headers["x-ratelimit-limit"] == str(limit)
    assert answer.headers["x-ratelimit-remaining"] == "0"
    assert answer.headers["x-ratelimit-reset"] == str(details["reset_at"])


# Acceptance


@each_way
@each_client
def test_given_two_in_sixty_seconds_then_the_third_request_is_refused(
    limited: Scene, client: Protocol, stream: bool
) -> None:
    id = f"{TYPES[client]}-{'stream' if stream else 'whole'}"
    answers = [limited.ask(client, f"{id}:m", stream) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert len(limited.upstream.requests) == 2
    refused(client, answers[2], f"backend:{id}", 2, 60)
    assert "x-llm-proxy-attempts" not in answers[2].headers


@each_client
def test_another_back_end_is_unaffected(limited: Scene, client: Protocol) -> None:
    while limited.ask(client, "strict:m").status == 200:
        assert len(limited.upstream.requests) < 5
    assert [limited.ask(client, "free:m").status for _ in range(3)] == [200, 200, 200]


@each_way
@each_client
def test_in_a_route_the_next_element_is_used(limited: Scene, client: Protocol, stream: bool) -> None:
    id = f"{TYPES[client]}-strict-{'stream' if stream else 'whole'}"
    answers = [limited.ask(client, f"route-{id}", stream) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 200]
    used = [answer.headers["x-llm-proxy-backend"] for answer in answers]
    assert used == [id, "free", "free"]
    assert answers[2].headers.get("x-llm-proxy-attempts") in (None, "1")


def test_given_nothing_configured_then_1000_requests_pass(demo: Proxy) -> None:
    body = json.dumps(body_of("openai-chat", "demo:m"))
    headers = {"authorization": f"Bearer {demo.key}", "content-type": "application/json"}
    connection = http.client.HTTPConnection(*demo.main, timeout=30)
    found = set()
    for _ in range(1000):
        connection.request("POST", CHAT, body, headers)
        answer = connection.getresponse()
        answer.read()
        found.add(answer.status)
    connection.close()
    assert found == {200}


def test_given_limit_0_then_the_start_is_refused_with_the_place(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text('rate_limits:\n  "backend:openai": {limit: 0}\n')
    ended = run(tmp_path, ["--port", "0"])
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert "config.yaml:2:29: rate_limits.backend:openai.limit: expected a whole number ≥ 1, got 0" in (
        ended.stderr.decode()
    )


# What counts


@each_client
def test_local_replies_model_lists_and_counting_do_not_count(limited: Scene, client: Protocol) -> None:
    id = f"{TYPES[client]}-counted"
    for _ in range(3):
        assert limited.ask(client, f"{id}:m", said="!/hello").status == 200
        assert limited.proxy.get("/v1/models").status == 200
    for _ in range(2):
        path = "/v1/messages/count_tokens" if client == "anthropic-messages" else f"/v1beta/models/{id}:m:countTokens"
        surface: Protocol = client if client == "anthropic-messages" else "gemini"
        limited.post(path, body_of(surface, f"{id}:m"))
    assert limited.ask(client, f"{id}:m").status == 200
    refused(client, limited.ask(client, f"{id}:m"), f"backend:{id}")


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/completions"])
def test_embeddings_and_legacy_completions_count(limited: Scene, path: str) -> None:
    limited.play(Reply.json({"object": "list", "data": [], "model": "m", "choices": []}))
    while limited.post(path, {"model": "embedded:m", "input": "a", "prompt": "a"}).status == 200:
        assert len(limited.upstream.requests) < 5
    refused("openai-chat", limited.post(path, {"model": "embedded:m", "input": "a", "prompt": "a"}), "backend:embedded")
    assert len(limited.upstream.requests) <= 1


def test_calls_that_fail_count_for_the_back_end(limited: Scene) -> None:
    def script(request: Any) -> Reply:
        return Reply.json({"error": {"message": "no"}}, 500) if "/failing/" in request.path else say(request)

    limited.play(script)
    assert [limited.ask("openai-chat", "route-failing").status for _ in range(5)] == [200] * 5
    paths = [request.path.split("/")[1] for request in limited.upstream.requests]
    assert paths == ["failing", "free"] * 3 + ["free"] * 2


def test_a_client_is_limited_across_back_ends_and_its_request_counts_once(limited: Scene) -> None:
    def script(request: Any) -> Reply:
        return Reply.json({"error": {"message": "no"}}, 500) if "/tried/" in request.path else say(request)

    limited.play(script)
    guest = {"authorization": "Bearer key-of-a-guest-0002"}
    asked = [limited.ask("openai-chat", name, headers=guest) for name in ("route-tried", "free:m", "left:m")]
    assert [answer.status for answer in asked] == [200, 200, 429]
    refused("openai-chat", asked[2], f"client:{GUEST}", 2)
    assert limited.ask("openai-chat", "left:m").status == 200


def test_a_model_is_limited_alone(limited: Scene) -> None:
    assert [limited.ask("openai-chat", f"model:{name}").status for name in ("tight", "wide", "wide")] == [200] * 3
    refused("openai-chat", limited.ask("openai-chat", "model:tight"), "model:model:tight")


def test_a_limit_that_stands_with_its_back_end(limited: Scene) -> None:
    assert limited.ask("openai-chat", "own:m").status == 200
    refused("openai-chat", limited.ask("openai-chat", "own:m"), "backend:own")


def test_tokens_are_reserved_by_estimate_and_settled_by_what_was_used(limited: Scene) -> None:
    # The provider says 10 tokens of each; each alone is estimated at more than half of the budget.
    for stream in (False, True, False, True):
        assert limited.ask("openai-chat", "tokens:m", stream, max_tokens=4000).status == 200
    assert limited.ask("openai-chat", "tokens:m", max_tokens=4990).status == 429
    answer = limited.ask("openai-chat", "route-tokens", max_tokens=4990)
    assert (answer.status, answer.headers["x-llm-proxy-backend"]) == (200, "free")


def test_a_refusal_by_a_limit_of_the_proxy_rests_no_key(limited: Scene) -> None:
    assert limited.ask("openai-chat", "strict:m").status in (200, 429)
    refused("openai-chat", limited.ask("openai-chat", "strict:m"), "backend:strict")
    assert [one for one in limited.proxy.get("/internal/cooldowns").json["data"] if one["backend"] == "strict"] == []


# Reload


@pytest.fixture
def provider() -> Iterator[Upstream]:
    with upstream_in_thread(say) as upstream:
        yield upstream


def test_what_was_counted_outlives_a_reload(tmp_path: Path, provider: Upstream) -> None:
    def written(limit: int, level: str) -> dict[str, Any]:
        limits = {"backend:a": {"limit": limit, "time_window": HOUR}}
        return {
            "backends": {"a": backend(provider.url, "a")},
            "rate_limits": limits,
            "logging": {"level": level},
        }

    place = Place(tmp_path)
    place.write(**written(1, "info"))
    path, body = path_of("openai-chat", "a:m"), body_of("openai-chat", "a:m")
    with place.run() as proxy:
        assert [proxy.post(path, body).status for _ in range(2)] == [200, 429]
        place.write(**written(1, "warning"))
        assert proxy.request("POST", "/internal/reload").json["changed"] == ["logging.level: info -> warning"]
        assert proxy.post(path, body).status == 429
        place.write(backends={"a": backend(provider.url, "a")})
        assert proxy.request("POST", "/internal/reload").status == 200
        assert [proxy.post(path, body).status for _ in range(3)] == [200, 200, 200]
