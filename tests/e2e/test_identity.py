"""REQ-09: who the proxy says it is, as providers see it, on every kind of call and in all four protocols."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from llm_proxy import __version__
from tests.e2e.asking import PAIRS, PROTOCOLS, Scene, body_of, path_of, say, started, target
from tests.support.proxy import backends_at
from tests.support.shared import Protocol
from tests.support.upstream import Received, Reply, upstream_in_thread

NAMES = ("x-title", "http-referer", "user-agent")
HONEST = {
    "x-title": "LLM Interactive Proxy",
    "http-referer": "http://localhost:8000",
    "user-agent": f"llm-interactive-proxy/{__version__}",
}
CLINE = {"User-Agent": "Cline/1.0", "X-Title": "Cline", "HTTP-Referer": "https://cline.bot"}
AS_CLINE = {name.lower(): value for name, value in CLINE.items()}

each_pair = pytest.mark.parametrize(("client", "back"), PAIRS)
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


def seen(request: Received) -> dict[str, str]:
    """The three headers at the provider, each at most once."""
    found = [(name.lower(), value) for name, value in request.headers if name.lower() in NAMES]
    assert len(found) == len(dict(found))
    return dict(found)


def answer(request: Received) -> Reply:
    """Whatever the provider is asked for."""
    if request.path.endswith("/models"):
        return Reply.json({"object": "list", "data": [{"id": "m", "object": "model"}]})
    if request.path.endswith(("/count_tokens", ":countTokens")):
        return Reply.json({"input_tokens": 5, "totalTokens": 5})
    if request.path.endswith("/embeddings"):
        return Reply.json(
            {"object": "list", "data": [], "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}}
        )
    return say(request)


def backends(url: str) -> dict[str, Any]:
    own = {"title": {"mode": "override", "override_value": "Only Here"}, "user_agent": {"mode": "default"}}
    router = {"type": "openrouter", "base_url": f"{url}/router/v1", "no_auth": True}
    return {
        **backends_at(url),
        "router": {**router, "identity": {**own, "url": {"mode": "override", "override_value": "https://here.test"}}},
        "fixed": {**router, "headers": {"User-Agent": "fixed/1", "X-Title": "Fixed"}},
    }


@pytest.fixture(scope="module")
def passing() -> Iterator[Scene]:
    """A proxy in mode passthrough."""
    modes = {part: {"mode": "passthrough"} for part in ("title", "url", "user_agent")}
    with (
        upstream_in_thread(answer) as upstream,
        started(config={"backends": backends(upstream.url), "identity": modes}) as proxy,
    ):
        yield Scene(proxy, upstream)


@both
@each_pair
def test_by_default_the_client_is_not_named(scene: Scene, client: Protocol, back: Protocol, stream: bool) -> None:
    assert scene.ask(client, target(back), stream, headers=CLINE).status == 200
    assert seen(scene.last) == HONEST


@both
@each_pair
def test_passthrough_shows_the_client(passing: Scene, client: Protocol, back: Protocol, stream: bool) -> None:
    assert passing.ask(client, target(back), stream, headers=CLINE).status == 200
    assert seen(passing.last) == AS_CLINE


@pytest.mark.parametrize("client", PROTOCOLS)
def test_passthrough_without_the_clients_header_is_the_default_value(passing: Scene, client: Protocol) -> None:
    assert passing.ask(client, target(client), headers={"User-Agent": "Cline/1.0"}).status == 200
    assert seen(passing.last) == {**HONEST, "user-agent": "Cline/1.0"}


def test_a_header_that_the_client_nominates_for_this_hop_stays_here(passing: Scene) -> None:
    headers = {**CLINE, "Connection": "close, X-Title"}
    assert passing.ask("openai-chat", target("openai-chat"), headers=headers).status == 200
    assert seen(passing.last) == {**AS_CLINE, "x-title": HONEST["x-title"]}


def test_override_for_one_back_end_is_seen_only_there(passing: Scene) -> None:
    assert passing.ask("openai-chat", "router:m", headers=CLINE).status == 200
    assert seen(passing.last) == {**HONEST, "x-title": "Only Here", "http-referer": "https://here.test"}
    assert passing.ask("openai-chat", "up-chat:m", headers=CLINE).status == 200
    assert seen(passing.last) == AS_CLINE


def test_headers_configured_for_a_back_end_win(passing: Scene) -> None:
    assert passing.ask("openai-chat", "fixed:m", headers=CLINE).status == 200
    assert seen(passing.last) == {"x-title": "Fixed", "http-referer": CLINE["HTTP-Referer"], "user-agent": "fixed/1"}


@pytest.mark.parametrize("client", ["anthropic-messages", "gemini"])
def test_counting_carries_them(passing: Scene, client: Protocol) -> None:
    model = target(client)
    path = "/v1/messages/count_tokens" if client == "anthropic-messages" else f"/v1beta/models/{model}:countTokens"
    assert passing.post(path, body_of(client, model), CLINE).status == 200
    assert passing.last.path.endswith(("/count_tokens", ":countTokens"))
    assert seen(passing.last) == AS_CLINE


def test_embeddings_carry_them(passing: Scene) -> None:
    assert passing.post("/v1/embeddings", {"model": "up-chat:m", "input": "a"}, CLINE).status == 200
    assert passing.last.path == "/v1/embeddings"
    assert seen(passing.last) == AS_CLINE


def test_lists_of_models_name_the_proxy_itself(passing: Scene) -> None:
    """They are kept for all clients, so none of them is named."""
    passing.upstream.forget()
    assert passing.proxy.get("/v1/models", CLINE).status == 200
    lists = {request.target: seen(request) for request in passing.upstream.requests}
    router = {**HONEST, "x-title": "Only Here", "http-referer": "https://here.test"}
    assert lists["/v1/models?limit=1000"] == lists["/v1/models"] == lists["/v1beta/models?pageSize=1000"] == HONEST
    routed = [seen(request) for request in passing.upstream.requests if request.target == "/router/v1/models"]
    assert router in routed and {**HONEST, "x-title": "Fixed", "user-agent": "fixed/1"} in routed


def test_redirected_calls_carry_them_but_no_header_configured_for_the_provider(passing: Scene) -> None:
    second = f"http://localhost:{passing.upstream.url.rpartition(':')[2]}/mine/v1"
    session = {"x-session-id": "elsewhere"}
    config = {"headers": {"User-Agent": "fixed/1", "X-Org": "secret"}, "identity": {"title": {"mode": "passthrough"}}}
    local = {"type": "openai", "base_url": f"{passing.upstream.url}/v1", "api_keys": ["k"], **config}
    with started(config={"backends": {"local": local}}) as proxy:
        scene = Scene(proxy, passing.upstream)
        assert scene.ask("openai-chat", "local:m", said=f"!/openai-url({second})", headers=session).status == 200
        assert scene.ask("openai-chat", "local:m", headers={**session, **CLINE}).status == 200
        assert scene.last.path == "/mine/v1/chat/completions"
        assert seen(scene.last) == {**HONEST, "x-title": "Cline"}
        assert scene.last.header("x-org") is None and scene.last.header("authorization") is None


def test_app_title_is_sent_as_x_title() -> None:
    with (
        upstream_in_thread(say) as upstream,
        started(config={"backends": backends_at(upstream.url)}, environment={"APP_TITLE": "X"}) as proxy,
    ):
        for client in PROTOCOLS:
            model = target(client)
            assert proxy.post(path_of(client, model), body_of(client, model), CLINE).status == 200
            assert seen(upstream.requests[-1]) == {**HONEST, "x-title": "X"}
