"""What providers get and what becomes of their answers (BE-01 to BE-13), over the scripted provider."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.asking import (
    PROTOCOLS,
    Called,
    Scene,
    body_of,
    call,
    error_of,
    frames,
    path_of,
    protocol_of,
    say,
    started,
    target,
    tools_of,
)  # fmt: skip
from tests.faults.stage import deltas, ending, whole
from tests.server.process import KEY, Proxy
from tests.support.shared import Protocol
from tests.support.upstream import Close, Hang, Moment, Pause, Received, Reply, Upstream, upstream_in_thread

both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
each_client = pytest.mark.parametrize("client", PROTOCOLS)
each_back = pytest.mark.parametrize("back", PROTOCOLS)


def key_of(request: Received) -> str:
    """The name of the provider key that came with a request."""
    for name in ("authorization", "x-api-key", "x-goog-api-key"):
        if value := request.header(name):
            return value.removeprefix("Bearer ").removeprefix("provider-key-")
    return ""


def used(scene: Scene) -> str:
    return "".join(key_of(request) for request in scene.upstream.requests)


def listed(proxy: Proxy) -> dict[str, Any]:
    """The operator's list of back ends, by id."""
    return {backend["id"]: backend for backend in proxy.get("/internal/backends").json["data"]}


# BE-01, BE-02: instances and keys


def test_a_back_end_without_credentials_is_called_without_any(scene: Scene) -> None:
    assert scene.ask("openai-chat", "up-chat:m").status == 200
    assert scene.last.path == "/v1/chat/completions"
    assert scene.last.json["model"] == "m"
    assert key_of(scene.last) == ""


def test_ids_of_back_ends_do_not_care_for_case(scene: Scene) -> None:
    assert scene.ask("openai-chat", "UP-Chat:Model-X").status == 200
    assert scene.last.json["model"] == "Model-X"


def test_each_instance_of_a_type_uses_its_own_key_and_path(scene: Scene) -> None:
    scene.ask("openai-chat", "first:other")
    scene.ask("openai-chat", "router:m")
    assert [(r.path, key_of(r)) for r in scene.upstream.requests] == [
        ("/first/v1/chat/completions", "a"),
        ("/router/v1/chat/completions", "r"),
    ]


def test_with_one_key_in_the_environment_exactly_that_provider_and_demo_are_functional() -> None:
    with started(environment={"OPENAI_API_KEY": "sk-test-0123456789"}) as proxy:
        assert {name for name, one in listed(proxy).items() if one["functional"]} == {"openai", "demo"}


def test_start_needs_no_network() -> None:
    with started(environment={"OPENAI_API_KEY": "sk-test-0123456789", "HTTPS_PROXY": "http://127.0.0.1:9"}) as proxy:
        assert proxy.get("/health", key=None).json["status"] == "ok"


def test_numbered_keys_of_the_environment_merge_in_order_and_equal_ones_count_once() -> None:
    environment = {
        "GEMINI_API_KEY": "key-a", "GEMINI_API_KEY_1": "key-a", "GEMINI_API_KEY_2": "key-b",
        "ZAI_API_KEY_1": "key-c", "ZAI_API_KEY_3": "key-d", "OPENAI_API_KEY": "your_openai_api_key",
    }  # fmt: skip
    with started(environment=environment) as proxy:
        found = listed(proxy)
        assert [key["name"] for key in found["gemini"]["keys"]] == ["GEMINI_API_KEY", "GEMINI_API_KEY_2"]
        assert [key["name"] for key in found["zai"]["keys"]] == ["ZAI_API_KEY_1", "ZAI_API_KEY_3"]
        assert not found["openai"]["functional"]
        assert "warning: " in proxy.banner and "OPENAI_API_KEY" in proxy.banner


# BE-03: rotation


def test_round_robin_starts_each_request_at_the_next_key(scene: Scene) -> None:
    for _ in range(6):
        assert scene.ask("openai-chat", "dealt:m").status == 200
    first = used(scene)[0]
    assert used(scene) == {"a": "abcabc", "b": "bcabca", "c": "cabcab"}[first]


def test_a_cooling_key_is_left_out(scene: Scene) -> None:
    def script(request: Received) -> Reply:
        if key_of(request) == "b":
            return Reply.json({"error": {"message": "slow down"}}, 429, (("retry-after", "60"),))
        return say(request)

    scene.play(script)
    for _ in range(3):
        assert scene.ask("openai-chat", "resting:m").status == 200
    scene.upstream.forget()
    for _ in range(4):
        assert scene.ask("openai-chat", "resting:m").status == 200
    assert used(scene) in ("acac", "caca")


def test_a_sticky_session_keeps_its_key_and_sessions_are_dealt_in_turn(scene: Scene) -> None:
    for session in ("one", "two", "one", "two", "two", "one"):
        scene.ask("openai-chat", "sticky:m", headers={"x-session-id": session})
    assert used(scene) in ("ababba", "babaab")
    held = used(scene)[0]

    def script(request: Received) -> Reply:
        if key_of(request) == held:
            return Reply.json({"error": {"message": "slow down"}}, 429, (("retry-after", "60"),))
        return say(request)

    scene.play(script)
    for _ in range(3):
        assert scene.ask("openai-chat", "sticky:m", headers={"x-session-id": "one"}).status == 200
    other = {"a": "b", "b": "a"}[held]
    assert used(scene) == held + other * 3


def test_first_always_takes_the_first_healthy_key(scene: Scene) -> None:
    for _ in range(3):
        scene.ask("openai-chat", "first:m")
    assert used(scene) == "aaa"


@both
@each_client
def test_a_limit_on_one_key_is_answered_by_the_next_in_the_same_request(
    scene: Scene, client: Protocol, stream: bool
) -> None:
    def script(request: Received) -> Reply:
        if key_of(request) == "a":
            return Reply.json({"error": {"message": "slow down"}}, 429)
        return say(request)

    scene.play(script)
    answer = scene.ask(client, f"two:{client}-{stream}", stream)
    assert answer.status == 200
    assert used(scene) == "ab"
    assert answer.headers["x-llm-proxy-attempts"] == "2"


def test_a_refused_key_is_passed_over_and_the_client_sees_200(scene: Scene) -> None:
    def script(request: Received) -> Reply:
        if key_of(request) == "a":
            return Reply.json({"error": {"message": "Incorrect API key provided"}}, 401)
        return say(request)

    scene.play(script)
    assert scene.ask("openai-chat", "mended:m").status == 200
    assert scene.ask("openai-chat", "mended:other").status == 200
    assert used(scene) == "abb"


def test_when_all_keys_cool_the_answer_is_429_with_the_shortest_wait_and_no_call(scene: Scene) -> None:
    waits = {"a": "50", "b": "20"}
    scene.play(
        lambda request: Reply.json({"error": {"message": "slow"}}, 429, (("retry-after", waits[key_of(request)]),))
    )
    first = scene.ask("openai-chat", "first:cooled")
    assert first.status == 429
    assert 0 < int(first.headers["retry-after"]) <= 20
    scene.upstream.forget()
    again = scene.ask("openai-chat", "first:cooled")
    assert again.status == 429
    assert 0 < int(again.headers["retry-after"]) <= 20
    assert scene.upstream.requests == []


# BE-04: catalogue


@pytest.fixture(scope="module")
def catalogue() -> Iterator[Scene]:
    """A proxy whose model lists are read anew each time, where no earlier test has filled a cache."""

    with upstream_in_thread(say) as upstream:
        url = upstream.url
        backends = {
            "alpha": {"type": "openai", "base_url": f"{url}/alpha/v1", "no_auth": True},
            "beta": {"type": "anthropic", "base_url": f"{url}/beta/v1", "no_auth": True},
            "delta": {"type": "gemini", "base_url": f"{url}/delta", "no_auth": True},
            "pinned": {"type": "openai", "base_url": f"{url}/pinned/v1", "no_auth": True, "models": ["p-2", "p-1"]},
            "glm": {"type": "zai", "base_url": f"{url}/glm/v4", "no_auth": True},
        }
        config = {"backends": backends, "model_list_ttl": 0}
        with started(config=config, environment={"MODEL_LIST_TTL": "0"}) as proxy:
            yield Scene(proxy, upstream)


def lists(request: Received) -> Reply:
    """The model lists of the three dialects; back end glm has none."""
    if request.method != "GET":
        return say(request)
    if "/alpha/" in request.path:
        models = [{"id": name, "object": "model", "created": 5, "owned_by": "x"} for name in ("qwen/q3", "gpt-x")]
        return Reply.json({"object": "list", "data": models})
    if "/beta/" in request.path:
        model = {"type": "model", "id": "claude-x", "display_name": "Claude X", "created_at": "2025-01-01T00:00:00Z"}
        return Reply.json({"data": [model], "has_more": False, "first_id": "claude-x", "last_id": "claude-x"})
    if "/delta/" in request.path:
        model = {"name": "models/gemini-x", "displayName": "X", "inputTokenLimit": 1000, "outputTokenLimit": 50,
                 "supportedGenerationMethods": ["generateContent"]}  # fmt: skip
        return Reply.json({"models": [model]})
    return Reply.json({"error": {"message": "no such page"}}, 404)


def ids(answer: Any) -> list[str]:
    return [model["id"] for model in answer.json["data"]]


def test_the_list_is_the_union_sorted_by_back_end_then_model(catalogue: Scene) -> None:
    catalogue.play(lists)
    answer = catalogue.proxy.get("/v1/models")
    found = ids(answer)
    backends = [name.split(":")[0] for name in found]
    assert [name for name in found if backends[found.index(name)] in ("alpha", "beta", "delta", "pinned")] == [
        "alpha:gpt-x", "alpha:qwen/q3", "beta:claude-x", "delta:gemini-x", "pinned:p-1", "pinned:p-2",
    ]  # fmt: skip
    assert backends == sorted(backends)
    assert "demo:echo" in found
    by_id = {model["id"]: model for model in answer.json["data"]}
    assert by_id["alpha:gpt-x"]["owned_by"] == "alpha"
    assert (by_id["delta:gemini-x"]["context_window"], by_id["delta:gemini-x"]["max_output_tokens"]) == (1000, 50)


def test_pinned_models_are_never_asked_for(catalogue: Scene) -> None:
    catalogue.play(lists)
    assert "pinned:p-1" in ids(catalogue.proxy.get("/v1/models"))
    assert not any("/pinned/" in request.path for request in catalogue.upstream.requests)


def test_a_provider_without_a_list_shows_the_shipped_one(catalogue: Scene) -> None:
    catalogue.play(lists)
    assert {"glm:glm-4.5", "glm:glm-4.5-air", "glm:glm-4.5-flash"} <= set(ids(catalogue.proxy.get("/v1/models")))


def test_the_list_can_be_filtered_by_back_end(catalogue: Scene) -> None:
    catalogue.play(lists)
    assert ids(catalogue.proxy.get("/v1/models?backend=alpha")) == ["alpha:gpt-x", "alpha:qwen/q3"]
    assert catalogue.proxy.get("/v1/models?backend=nobody").status == 404


@pytest.mark.parametrize(
    ("path", "headers"),
    [("/v1/models", {"anthropic-version": "2023-06-01"}), ("/anthropic/v1/models", {})],
    ids=["header", "path"],
)
def test_anthropic_clients_get_their_own_list(catalogue: Scene, path: str, headers: dict[str, str]) -> None:
    catalogue.play(lists)
    body = catalogue.proxy.get(path, headers).json
    assert {model["type"] for model in body["data"]} == {"model"}
    assert body["first_id"] == body["data"][0]["id"] and body["last_id"] == body["data"][-1]["id"]
    assert body["has_more"] is False
    assert "beta:claude-x" in [model["id"] for model in body["data"]]


@pytest.mark.parametrize(
    ("path", "headers"),
    [("/v1beta/models", {}), ("/v2/models/list", {}), ("/v1/models", {"x-goog-api-key": KEY})],
)
def test_gemini_clients_get_their_own_list(catalogue: Scene, path: str, headers: dict[str, str]) -> None:
    catalogue.play(lists)
    body = catalogue.proxy.get(path, headers).json
    assert {"models/alpha:qwen/q3", "models/delta:gemini-x"} <= {model["name"] for model in body["models"]}


def test_one_model_can_be_read_and_an_unknown_one_is_404(catalogue: Scene) -> None:
    catalogue.play(lists)
    assert catalogue.proxy.get("/v1/models/alpha:qwen/q3").json["id"] == "alpha:qwen/q3"
    assert catalogue.proxy.get("/anthropic/v1/models/beta:claude-x").json["type"] == "model"
    assert catalogue.proxy.get("/v1beta/models/delta:gemini-x").json["name"] == "models/delta:gemini-x"
    missing = catalogue.proxy.get("/v1/models/alpha:nothing")
    assert missing.status == 404
    assert missing.json["detail"]["code"] == "not_found"


def test_parallel_listings_make_one_request_at_the_provider() -> None:
    go = Moment()

    def script(request: Received) -> Reply:
        reply = lists(request)
        return Reply(reply.status, reply.headers, reply.body, before=(Pause(go),))

    with upstream_in_thread(script) as upstream, ThreadPoolExecutor(8) as pool:
        backends = {"alpha": {"type": "openai", "base_url": f"{upstream.url}/alpha/v1", "no_auth": True}}
        with started(config={"backends": backends}) as proxy:
            answers = [pool.submit(proxy.get, "/v1/models?backend=alpha") for _ in range(8)]
            upstream.arrival(1).wait()
            go.happen()
            assert [len(ids(answer.result())) for answer in answers] == [2] * 8
        assert len(upstream.requests) == 1


def test_a_failing_list_costs_neither_chat_nor_the_listing() -> None:
    with upstream_in_thread(lambda request: Reply(500) if request.method == "GET" else say(request)) as upstream:
        backends = {
            "broken": {"type": "openai", "base_url": f"{upstream.url}/v1", "no_auth": True},
            "fine": {"type": "openai", "base_url": f"{upstream.url}/fine/v1", "no_auth": True, "models": ["f"]},
        }
        with started(config={"backends": backends}) as proxy:
            scene = Scene(proxy, upstream)
            answer = proxy.get("/v1/models")
            assert answer.status == 200
            assert "fine:f" in ids(answer)
            assert "broken:gpt-5" in ids(answer)
            assert answer.headers["x-llm-proxy-unavailable-backends"] == "broken"
            assert scene.ask("openai-chat", "broken:m").status == 200


def test_a_list_that_takes_longer_than_five_seconds_is_left_out_and_named() -> None:
    with upstream_in_thread(lambda request: Reply(before=(Hang(),))) as upstream:
        backends = {
            "slow": {"type": "openai", "base_url": f"{upstream.url}/v1", "no_auth": True},
            "fine": {"type": "openai", "base_url": f"{upstream.url}/fine/v1", "no_auth": True, "models": ["f"]},
        }
        with started(config={"backends": backends}) as proxy:
            answer = proxy.get("/v1/models")
    assert answer.status == 200
    assert "fine:f" in ids(answer)
    assert answer.headers["x-llm-proxy-unavailable-backends"] == "slow"


# BE-05: calls


def test_a_back_end_that_is_the_proxy_itself_is_508_after_one_hop() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    backends = {"self": {"type": "openai", "base_url": f"http://127.0.0.1:{port}/v1", "api_keys": [KEY]}}
    with started(
        "--port", str(port), "--anthropic-port", "off", config={"backends": backends, "default_backend": "self"}
    ) as proxy:
        answer = proxy.post(
            "/v1/chat/completions", {"model": "self:self:m", "messages": [{"role": "user", "content": "hi"}]}
        )
        assert answer.status == 508
        assert answer.json["detail"]["code"] == "loop_guard"
        rows = proxy.get("/usage/recent").json["data"]
        assert len(rows) == 1


def test_requests_to_custom_addresses_carry_the_loop_guard_and_others_are_added_to_it(scene: Scene) -> None:
    scene.ask("openai-chat", "up-chat:m", headers={"x-llmproxy-loop-guard": "other"})
    assert (scene.last.header("x-llmproxy-loop-guard") or "").startswith("other,")
    for value in ("1", "a,b,c,d,e"):
        answer = scene.ask("openai-chat", "up-chat:m", headers={"x-llmproxy-loop-guard": value})
        assert answer.status == 508


@each_client
def test_a_redirect_is_502_and_nothing_is_asked_there(scene: Scene, client: Protocol) -> None:
    with upstream_in_thread(say) as elsewhere:
        scene.play(Reply(307, (("location", f"{elsewhere.url}/v1/chat/completions"),)))
        answer = scene.ask(client, "up-chat:m")
        assert answer.status == 502
        error_of(client, answer)
        assert elsewhere.requests == []
        assert elsewhere.url.encode() not in answer.body


def test_a_provider_that_closes_idle_connections_shows_no_error(scene: Scene) -> None:
    scene.play(
        Reply(
            body=json.dumps(whole("openai-chat")).encode(),
            headers=(("content-type", "application/json"),),
            after=(Close(),),
        )
    )
    assert {scene.ask("openai-chat", "up-chat:m").status for _ in range(150)} == {200}


def test_calls_ask_for_no_compression_and_send_no_cookies(scene: Scene) -> None:
    scene.play(Reply.json(whole("openai-chat"), headers=(("set-cookie", "a=b"),)))
    for _ in range(2):
        scene.ask("openai-chat", "up-chat:m")
    assert scene.last.header("accept-encoding") == "identity"
    assert scene.last.header("cookie") is None


@both
@each_client
def test_a_provider_that_stays_silent_is_504(scene: Scene, client: Protocol, stream: bool) -> None:
    scene.play(Reply(before=(Hang(),)))
    answer = scene.ask(client, f"hasty:{client}{stream}", stream)
    assert answer.status == 504
    error = error_of(client, answer)
    assert answer.json["detail"]["code"] == "upstream_timeout"
    if client == "anthropic-messages":
        assert error["type"] == "timeout_error"
    if client == "gemini":
        assert error["status"] == "DEADLINE_EXCEEDED"


@each_client
def test_a_provider_that_falls_silent_in_a_stream_ends_it_with_an_error(scene: Scene, client: Protocol) -> None:
    scene.play(Reply.sse(*deltas("openai-chat"), Hang()))
    meant = scene.meaning(client, "hasty:m", True)
    assert meant.text == "w0 w1 w2 " and meant.stop == "error"


@each_client
def test_an_unreachable_provider_is_503_without_its_address(client: Protocol) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        with started(
            config={"backends": {"gone": {"type": "openai", "base_url": f"{url}/v1", "no_auth": True}}}
        ) as proxy:
            answer = Scene(proxy, Upstream(say)).ask(client, "gone:m")
    assert answer.status == 503
    assert answer.json["detail"]["code"] == "backend_unavailable"
    assert b"127.0.0.1" not in answer.body
    error_of(client, answer)


@pytest.fixture(scope="module")
def patient() -> Iterator[Scene]:
    """A proxy that breaks silence after a fifth of a second."""
    with upstream_in_thread(say) as upstream:
        backends = {"up-chat": {"type": "openai", "base_url": f"{upstream.url}/v1", "no_auth": True}}
        with started("--stream-keepalive", "0.2", config={"backends": backends}) as proxy:
            yield Scene(proxy, upstream)


ALIVE = {"openai-chat": b":", "openai-responses": b":", "anthropic-messages": b"event: ping"}


@pytest.mark.parametrize("place", ["before the first word", "between words"])
@each_client
def test_silence_is_bridged_by_keep_alives_and_gemini_by_none(patient: Scene, client: Protocol, place: str) -> None:
    """The provider goes on when the client has seen a keep-alive; where none is allowed, after the time of several.

    Anthropic allows none before `message_start`, which carries what the provider has not said yet.
    """
    go = Moment()
    words, end = deltas("openai-chat"), ending("openai-chat")
    none = client == "gemini" or (client == "anthropic-messages" and place == "before the first word")
    pause = Pause(0.7 if none else go)
    steps = [*words[:1], pause, *words[1:], *end] if place == "between words" else [pause, *words, *end]
    patient.play(Reply.sse(*steps))
    stream = patient.proxy.stream(path_of(client, "up-chat:m", True), body_of(client, "up-chat:m", True))
    lines = []
    try:
        while not none:
            lines.append(stream.line())
            assert lines[-1], "the stream ended without a keep-alive"
            if lines[-1].startswith(ALIVE[client]):
                break
        go.happen()
        rest = b"".join(lines) + stream.rest()
    finally:
        stream.close()
    if client == "gemini":
        assert all(line.startswith(b"data:") or not line for line in rest.splitlines())
    if client == "anthropic-messages":
        assert none or rest.index(b"message_start") < rest.index(b"event: ping")
    assert b"w2 " in rest
    go.happen()
    meant = patient.meaning(client, "up-chat:m", True)
    assert meant.error is None and meant.text == "w0 w1 w2 "


# BE-06: odd answers


@each_client
def test_an_html_page_becomes_an_error_without_markup(scene: Scene, client: Protocol) -> None:
    page = b"<html><head><title>502 Bad Gateway</title></head><body><h1>Bad</h1><script>x()</script></body></html>"
    for status in (502, 200):
        scene.play(Reply(status, (("content-type", "text/html"),), page))
        answer = scene.ask(client, "up-chat:m")
        assert answer.status == 502, (status, answer.body)
        error = error_of(client, answer)
        assert "<" not in error["message"] and "x()" not in error["message"]


@both
@each_client
def test_an_error_inside_a_200_answer_is_an_error(scene: Scene, client: Protocol, stream: bool) -> None:
    scene.play(Reply.json({"success": False, "code": 1113, "msg": "balance is used up"}))
    for model in ("glm:glm-4.5", "coding:glm-4.5"):
        answer = scene.ask(client, model, stream)
        assert answer.status >= 400
        assert "balance is used up" in error_of(client, answer)["message"]


@each_client
def test_a_stream_without_finish_reason_but_with_done_ends_with_stop(scene: Scene, client: Protocol) -> None:
    scene.play(Reply.sse(*deltas("openai-chat"), b"data: [DONE]\n\n"))
    meant = scene.meaning(client, target("openai-chat"), True)
    assert meant.text == "w0 w1 w2 "
    assert meant.error is None
    if client != "openai-chat":
        assert meant.stop == "stop"


@both
@each_back
def test_missing_usage_is_estimated(scene: Scene, back: Protocol, stream: bool) -> None:
    def script(request: Received) -> Reply:
        answer = whole(back, "w0 w1 w2 ")
        answer.pop("usage", None)
        answer.pop("usageMetadata", None)
        return Reply.json(answer)

    scene.play(script)
    client: Protocol = "anthropic-messages" if back != "anthropic-messages" else "openai-chat"
    more = {"stream_options": {"include_usage": True}} if stream and client == "openai-chat" else {}
    meant = scene.meaning(client, target(back), stream, **more)
    assert meant.usage is not None
    assert (meant.usage.input or 0) > 0 and (meant.usage.output or 0) > 0


@each_client
def test_a_compressed_answer_is_read(scene: Scene, client: Protocol) -> None:
    body = gzip.compress(json.dumps(whole("openai-chat", "packed")).encode())
    scene.play(Reply(200, (("content-type", "application/json"), ("content-encoding", "gzip")), body))
    assert scene.meaning(client, target("openai-chat")).text == "packed"


@each_client
def test_a_success_that_cannot_be_read_is_502(scene: Scene, client: Protocol) -> None:
    for body in (b"", b"{", b"null", b"[]"):
        scene.play(Reply(200, (("content-type", "application/json"),), body))
        answer = scene.ask(client, target("openai-chat"))
        assert answer.status == 502, body
        error_of(client, answer)


# BE-07, BE-08: OpenAI


def test_a_responses_client_reaches_native_responses_with_its_items_unchanged(scene: Scene) -> None:
    items = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "é"}], "odd": 1.50}]
    assert scene.ask("openai-responses", "native:gpt-5", input=items).status == 200
    assert scene.last.path == "/native/v1/responses"
    assert scene.last.json["input"] == items
    assert b'"odd": 1.5' in scene.last.body or b'"odd":1.5' in scene.last.body


def test_a_responses_client_reaches_a_local_server_by_chat(scene: Scene) -> None:
    assert scene.ask("openai-responses", "up-chat:m", said="translate me").status == 200
    assert scene.last.path == "/v1/chat/completions"
    assert scene.last.json["messages"] == [{"role": "user", "content": "translate me"}]


@both
@pytest.mark.parametrize("client", ["openai-chat", "anthropic-messages", "gemini"])
def test_type_openai_responses_is_always_asked_by_responses(scene: Scene, client: Protocol, stream: bool) -> None:
    answer = scene.ask(client, target("openai-responses", "gpt-5.1"), stream)
    assert answer.status == 200
    assert scene.last.path == "/v1/responses"
    assert scene.last.json["store"] is False
    if client == "openai-chat" and not stream:
        assert answer.json["object"] == "chat.completion"


def test_encrypted_reasoning_is_asked_for(scene: Scene) -> None:
    scene.ask("openai-chat", target("openai-responses", "gpt-5.1"), reasoning_effort="low")
    assert "reasoning.encrypted_content" in scene.last.json["include"]


def test_call_ids_match_across_turns(scene: Scene) -> None:
    scene.play(call(Called("call_abc", "f", {"a": 1})))
    offered = tools_of("openai-chat", "f")
    first = scene.ask("openai-chat", target("openai-responses"), **offered).json["choices"][0]["message"]
    [made] = first["tool_calls"]
    scene.play(say)
    history = [
        {"role": "user", "content": "hi"},
        first,
        {"role": "tool", "tool_call_id": made["id"], "content": "2"},
    ]
    assert scene.ask("openai-chat", target("openai-responses"), messages=history, **offered).status == 200
    items = {item.get("type"): item for item in scene.last.json["input"]}
    assert items["function_call"]["call_id"] == items["function_call_output"]["call_id"] == "call_abc"


# BE-09: OpenRouter


def test_openrouter_gets_its_headers_and_extra_fields_unchanged(scene: Scene) -> None:
    extra = {"provider": {"order": ["a", "b"], "allow_fallbacks": False}, "models": ["x/y"], "transforms": [], "top_k": 5,
             "reasoning": {"effort": "low", "exclude": True}}  # fmt: skip
    assert scene.ask("openai-chat", "router:qwen/qwen3-coder", **extra).status == 200
    assert {name: scene.last.json[name] for name in extra} == extra
    assert scene.last.json["model"] == "qwen/qwen3-coder"
    assert scene.last.header("http-referer") and scene.last.header("x-title")
    assert key_of(scene.last) == "r"


@both
@each_client
def test_the_cost_that_openrouter_reports_is_recorded(scene: Scene, client: Protocol, stream: bool) -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10, "cost": 0.0012}

    def script(request: Received) -> Reply:
        if not stream:
            return Reply.json({**whole("openai-chat"), "usage": usage})
        last = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": usage}
        end = ending("openai-chat")[0]
        return Reply.sse(b": OPENROUTER PROCESSING\n\n", *deltas("openai-chat"), end, *frames([last], done=True))

    scene.play(script)
    answer = scene.ask(client, "router:x/y", stream, headers={"x-request-id": f"cost-{client}-{stream}"})
    assert answer.status == 200
    rows = scene.proxy.get("/usage/recent?backend=router").json["data"]
    [row] = [row for row in rows if row["id"] == f"cost-{client}-{stream}"]
    assert row["cost"] == pytest.approx(0.0012)


@each_client
def test_comment_lines_in_a_stream_are_tolerated(scene: Scene, client: Protocol) -> None:
    scene.play(
        Reply.sse(b": OPENROUTER PROCESSING\n\n", *deltas("openai-chat"), b": again\n\n", *ending("openai-chat"))
    )
    assert scene.meaning(client, "router:x/y", True).text == "w0 w1 w2 "


# BE-10: Anthropic


@pytest.mark.parametrize(
    ("model", "limit"), [("claude-sonnet-4-5", 8192), ("claude-3-haiku-20240307", 4096), ("unknown", 8192)]
)
def test_a_request_without_limit_gets_the_default_or_the_models_smaller_maximum(
    scene: Scene, model: str, limit: int
) -> None:
    assert scene.ask("openai-chat", f"claude:{model}").status == 200
    assert scene.last.json["max_tokens"] == limit


def test_anthropic_gets_key_version_and_user_and_nothing_that_it_does_not_know(scene: Scene) -> None:
    more = {
        "frequency_penalty": 0.3,
        "presence_penalty": 0.1,
        "logit_bias": {"1": 2},
        "user": "somebody",
        "max_tokens": 77,
    }
    assert scene.ask("openai-chat", "claude:claude-sonnet-4-5", **more).status == 200
    assert scene.last.path == "/claude/v1/messages"
    assert scene.last.header("x-api-key") == "provider-key-c"
    assert scene.last.header("authorization") is None
    assert scene.last.header("anthropic-version") == "2023-06-01"
    sent = scene.last.json
    assert not {"frequency_penalty", "presence_penalty", "logit_bias", "user"} & set(sent)
    assert sent["metadata"] == {"user_id": "somebody"}
    assert sent["max_tokens"] == 77


def test_adjacent_turns_of_one_role_are_merged_and_empty_texts_removed(scene: Scene) -> None:
    messages = [
        {"role": "user", "content": "one"},
        {"role": "user", "content": [{"type": "text", "text": ""}, {"type": "text", "text": "two"}]},
        {"role": "assistant", "content": "three"},
        {"role": "user", "content": "four"},
    ]
    assert scene.ask("openai-chat", "claude:claude-sonnet-4-5", messages=messages).status == 200
    sent = scene.last.json["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "user"]
    assert [block["text"] for block in sent[0]["content"]] == ["one", "two"]


# BE-11: Gemini


@both
@each_client
def test_no_url_holds_the_gemini_key(scene: Scene, client: Protocol, stream: bool) -> None:
    assert scene.ask(client, "google:gemini-2.5-flash", stream).status == 200
    method = ":streamGenerateContent?alt=sse" if stream else ":generateContent"
    assert scene.last.target == f"/google/v1beta/models/gemini-2.5-flash{method}"
    assert scene.last.header("x-goog-api-key") == "provider-key-g"
    assert scene.last.header("authorization") is None


@each_client
def test_retry_info_says_how_long_a_gemini_key_rests(scene: Scene, client: Protocol) -> None:
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "33.5s"}
    error = {"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED", "details": [info]}}
    scene.play(Reply.json(error, 429))
    answer = scene.ask(client, f"google:{client}-limited")
    assert answer.status == 429
    assert 30 <= int(answer.headers["retry-after"]) <= 34
    scene.upstream.forget()
    assert scene.ask(client, f"google:{client}-limited").status == 429
    assert scene.upstream.requests == []


@both
@each_client
def test_a_block_of_gemini_is_a_content_filter(scene: Scene, client: Protocol, stream: bool) -> None:
    for answer in (
        {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 7, "totalTokenCount": 7}},
        {
            "candidates": [{"finishReason": "SAFETY", "index": 0}],
            "usageMetadata": {"promptTokenCount": 7, "totalTokenCount": 7},
        },
    ):
        scene.play(Reply.sse(*frames([answer])) if stream else Reply.json(answer))
        meant = scene.meaning(client, target("gemini"), stream)
        assert meant.error is None
        assert meant.stop == "content_filter"


# BE-12, BE-13: Z.ai


@both
@each_client
def test_zai_models_are_called_at_their_own_path(scene: Scene, client: Protocol, stream: bool) -> None:
    assert scene.ask(client, "glm:glm-4.5-flash", stream).status == 200
    assert scene.last.path == "/glm/v4/chat/completions"
    assert scene.last.json["model"] == "glm-4.5-flash"
    assert key_of(scene.last) == "z"


def test_the_address_of_zai_comes_from_its_variable() -> None:
    with upstream_in_thread(say) as upstream:
        environment = {"ZAI_API_BASE_URL": f"{upstream.url}/mainland/v4", "ZAI_API_KEY": "provider-key-z"}
        with started(environment=environment) as proxy:
            assert Scene(proxy, upstream).ask("openai-chat", "zai:glm-4.6").status == 200
        assert upstream.requests[-1].path == "/mainland/v4/chat/completions"


@both
def test_claude_code_uses_tools_of_the_coding_plan(scene: Scene, stream: bool) -> None:
    scene.play(call(Called("call_1", "f", {"a": 1})))
    meant = scene.meaning("anthropic-messages", "coding:glm-4.6", stream, **tools_of("anthropic-messages", "f"))
    assert [(made.name, made.args) for made in meant.tool_calls] == [("f", {"a": 1})]
    assert scene.last.path == "/coding/v4/chat/completions"


@pytest.mark.parametrize("client", ["openai-chat", "anthropic-messages"])
def test_the_coding_plan_speaks_anthropic_at_such_an_address(scene: Scene, client: Protocol) -> None:
    assert scene.ask(client, "coding-anthropic:glm-4.6").status == 200
    assert scene.last.path == "/coding/api/anthropic/v1/messages"
    assert protocol_of(scene.last) == "anthropic-messages"
    assert key_of(scene.last) == "z"


@each_client
def test_the_coding_plan_takes_no_more_than_its_ceiling(scene: Scene, client: Protocol) -> None:
    more: dict[str, Any] = {
        "openai-responses": {"max_output_tokens": 500_000},
        "gemini": {"generationConfig": {"maxOutputTokens": 500_000}},
    }.get(client, {"max_tokens": 500_000})
    assert scene.ask(client, "coding:glm-4.6", **more).status == 200
    assert scene.last.json["max_tokens"] == 200_000


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("client", PROTOCOLS)
def test_the_coding_plans_answer_names_the_requested_model(scene: Scene, client: Protocol, stream: bool) -> None:
    answer = scene.ask(client, "coding:glm-4.6", stream)
    assert answer.headers["x-llm-proxy-model"] == "glm-4.6"
    assert b'"glm-4.6"' in answer.body


@pytest.mark.parametrize("client", ["openai-chat", "openai-responses", "gemini"])
def test_the_coding_plan_gets_a_limit_where_the_request_has_none(scene: Scene, client: Protocol) -> None:
    assert scene.ask(client, "coding:glm-4.6").status == 200
    assert scene.last.json["max_tokens"] == 8192


def test_a_part_that_only_one_protocol_knows_is_refused_by_name_and_not_left_out(scene: Scene) -> None:
    """FE-13: a media part that the target cannot take is never dropped."""
    content = [{"type": "text", "text": "look"}, {"type": "input_video", "video": "AAAA"}]
    messages = [{"role": "user", "content": content}]
    answer = scene.ask("openai-chat", target("anthropic-messages"), messages=messages)
    assert answer.status == 400
    assert "input_video" in answer.json["error"]["message"]
    assert scene.upstream.requests == []


@pytest.mark.parametrize("back", ["openai-chat", "openai-responses", "gemini"])
def test_a_tool_that_anthropic_types_is_offered_to_others_as_a_function(scene: Scene, back: Protocol) -> None:
    tools = [{"type": "bash_20250124", "name": "bash"}]
    assert scene.ask("anthropic-messages", target(back), tools=tools).status == 200
    sent = scene.last.body.decode()
    assert '"bash"' in sent and '"command"' in sent


# FE-08: counting


def count(scene: Scene, client: Protocol, model: str, **more: Any) -> Any:
    body = body_of(client, model, **more)
    path = "/v1/messages/count_tokens" if client == "anthropic-messages" else f"/v1beta/models/{model}:countTokens"
    return scene.post(path, body)


def number(answer: Any) -> int:
    assert answer.status == 200, answer.body
    body = answer.json
    return int(body["input_tokens"] if "input_tokens" in body else body["totalTokens"])


@pytest.mark.parametrize("client", ["anthropic-messages", "gemini"])
def test_counting_for_a_target_without_a_counter_is_an_estimate_without_any_call(
    scene: Scene, client: Protocol
) -> None:
    assert number(count(scene, client, target("openai-chat"))) > 0
    assert scene.upstream.requests == []


@pytest.mark.parametrize("client", ["anthropic-messages", "gemini"])
def test_the_targets_own_number_counts_where_it_speaks_the_dialect(scene: Scene, client: Protocol) -> None:
    counted = {"anthropic-messages": {"input_tokens": 4711}, "gemini": {"totalTokens": 4711}}[client]
    scene.play(Reply.json(counted))
    assert number(count(scene, client, target(client))) == 4711
    assert scene.last.path.endswith(("/messages/count_tokens", ":countTokens"))


@pytest.mark.parametrize("client", ["anthropic-messages", "gemini"])
def test_counting_that_fails_at_the_target_gives_the_estimate(scene: Scene, client: Protocol) -> None:
    expected = number(count(scene, client, target("openai-chat")))
    for reply in (
        Reply.json({"error": {"message": "broken"}}, 500),
        Reply.json({"odd": 1}),
        Reply(200, body=b"<html>"),
    ):
        scene.play(reply)
        assert number(count(scene, client, target(client))) == expected
        assert len(scene.upstream.requests) == 1


def test_tools_and_images_make_the_number_larger(scene: Scene) -> None:
    from tests.e2e.test_front_ends import PICTURE

    plain = number(count(scene, "anthropic-messages", target("openai-chat")))
    tools = number(count(scene, "anthropic-messages", target("openai-chat"), **tools_of("anthropic-messages", "f")))
    content = [{"type": "text", "text": "hi"}, PICTURE]
    image = number(
        count(scene, "anthropic-messages", target("openai-chat"), messages=[{"role": "user", "content": content}])
    )
    assert plain < tools and plain < image


# FE-09: side calls


def test_embeddings_are_passed_on_and_come_back_unchanged(scene: Scene) -> None:
    body = (
        b'{ "object":"list","data":[{"object":"embedding","index":0,"embedding":"AACAPwAAAEA="}], "model":"m",'
        b'"usage":{"prompt_tokens":2,"total_tokens":2},"odd":1.50}'
    )
    scene.play(Reply(200, (("content-type", "application/json"),), body))
    answer = scene.post("/v1/embeddings", {"model": "router:m", "input": ["a"], "encoding_format": "base64", "odd": 1})
    assert answer.body == body
    assert scene.last.path == "/router/v1/embeddings"
    assert scene.last.json == {"model": "m", "input": ["a"], "encoding_format": "base64", "odd": 1}
    assert key_of(scene.last) == "r"


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/completions"])
def test_side_calls_at_other_types_are_400_naming_the_supported_ones(scene: Scene, path: str) -> None:
    answer = scene.post(path, {"model": "claude:x", "input": "a", "prompt": "a"})
    assert answer.status == 400
    for name in ("openai", "openrouter", "zai", "demo"):
        assert name in answer.json["error"]["message"]


def test_legacy_completions_pass_with_all_their_fields(scene: Scene) -> None:
    body = {
        "id": "c",
        "object": "text_completion",
        "created": 1,
        "model": "m",
        "choices": [{"text": "x", "index": 0, "finish_reason": "stop"}],
    }
    scene.play(Reply.json(body))
    sent = {"prompt": ["a", "b"], "suffix": "s", "echo": True, "best_of": 2}
    answer = scene.post("/v1/completions", {"model": "up-chat:m", **sent})
    assert answer.json == body
    assert scene.last.json == {"model": "m", **sent}
    assert scene.last.path == "/v1/completions"


def test_legacy_completions_stream_as_they_come(scene: Scene) -> None:
    chunks = [{"id": "c", "object": "text_completion", "choices": [{"text": word, "index": 0}]} for word in ("a", "b")]
    wire = b"".join(frames(chunks, done=True))
    scene.play(Reply.sse(wire))
    answer = scene.post("/v1/completions", {"model": "up-chat:m", "prompt": "x", "stream": True})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.body == wire


def test_a_side_call_uses_the_next_key_after_a_limit(scene: Scene) -> None:
    scene.play(
        lambda r: (
            Reply.json({"error": {"message": "slow"}}, 429)
            if key_of(r) == "a"
            else Reply.json({"object": "list", "data": []})
        )
    )
    assert scene.post("/v1/embeddings", {"model": "two:embed", "input": "a"}).status == 200
    assert used(scene) == "ab"


def test_a_side_call_passes_over_elements_that_have_no_such_call() -> None:
    """A route for all purposes serves embeddings where one of its elements does; where none does the client is told."""
    with upstream_in_thread(Reply.json({"object": "list", "data": []})) as upstream:
        config = {
            "backends": {
                "claude": {"type": "anthropic", "base_url": f"{upstream.url}/v1", "no_auth": True},
                "chat": {"type": "openai", "base_url": f"{upstream.url}/chat/v1", "no_auth": True},
            },
            "failover_routes": {
                "mixed": {"policy": "m", "elements": ["claude:x", "chat:embed"]},
                "none": {"policy": "m", "elements": ["claude:x", "claude:y"]},
            },
        }
        with started(config=config) as proxy:
            answer = proxy.post("/v1/embeddings", {"model": "mixed", "input": "a"})
            assert (answer.status, answer.headers["x-llm-proxy-backend"]) == (200, "chat")
            assert "x-llm-proxy-attempts" not in answer.headers
            answer = proxy.post("/v1/embeddings", {"model": "none", "input": "a"})
            assert answer.status == 400
            assert "has no embeddings" in answer.json["error"]["message"]
            assert len(upstream.requests) == 1


def test_a_side_call_that_takes_two_attempts_is_one_row_of_usage(scene: Scene) -> None:
    scene.play(
        lambda r: (
            Reply.json({"error": {"message": "down"}}, 500)
            if key_of(r) == "a"
            else Reply.json({"object": "list", "data": [], "usage": {"prompt_tokens": 9, "total_tokens": 9}})
        )
    )
    answer = scene.proxy.post("/v1/embeddings", {"model": "two:twice", "input": "a"}, {"x-request-id": "embed-2"})
    assert (answer.status, answer.headers["x-llm-proxy-attempts"]) == (200, "2")
    [row] = [row for row in scene.proxy.get("/usage/recent?backend=two").json["data"] if row["id"] == "embed-2"]
    assert (row["status"], row["attempts"], row["prompt_tokens"]) == (200, 2, 9)


def test_a_side_call_is_on_the_usage_page_with_its_prompt_tokens(scene: Scene) -> None:
    scene.play(
        Reply.json({"object": "list", "data": [], "model": "m", "usage": {"prompt_tokens": 23, "total_tokens": 23}})
    )
    scene.proxy.post("/v1/embeddings", {"model": "router:embed", "input": "a"}, {"x-request-id": "embed-1"})
    [row] = [row for row in scene.proxy.get("/usage/recent?backend=router").json["data"] if row["id"] == "embed-1"]
    assert (row["prompt_tokens"], row["model"]) == (23, "router:embed")


def test_requests_under_way_at_the_same_time_do_not_mix(scene: Scene) -> None:
    """Each of twenty clients gets the answer to its own words."""

    def script(request: Received) -> Reply:
        said = request.json["messages"][-1]["content"]
        return Reply.json(whole("openai-chat", f"to {said}"))

    scene.play(script)
    start = threading.Barrier(20)

    def one(number: int) -> str:
        start.wait()
        answer = scene.ask("anthropic-messages", "up-chat:m", said=f"n{number}")
        return str(answer.json["content"][0]["text"])

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(one, range(20))) == [f"to n{number}" for number in range(20)]
