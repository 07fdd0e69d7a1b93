"""OPS-10: a look inside a running proxy: back ends, keys, cooldowns, configuration, the process. Never a secret."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from llm_proxy import __version__
from tests.server.process import KEY, Proxy, run, running
from tests.support.upstream import Moment, Pause, Received, Reply, Upstream, upstream_in_thread

PAGES: Final = ("backends", "config", "cooldowns", "routing?model=demo:echo", "sessions", "status")
CANARIES: Final = {
    "provider": "sk-canary-provider-key-000000000001",
    "second": "canary-of-no-known-shape-2",
    "header": "canary-header-value-3",
    "password": "canary-password-4",
    "token": "canary-auth-token-5",
    "ordinary": "canary-client-key-6",
    "operator": "canary-admin-key-7",
}


def say(request: Received) -> Reply:
    if request.path.endswith("/models"):
        return Reply.json({"object": "list", "data": [{"id": name, "object": "model"} for name in ("m", "n", "o")]})
    answer = {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
    return Reply.json({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [answer]})


@pytest.fixture(scope="module")
def provider() -> Iterator[Upstream]:
    with upstream_in_thread(say) as upstream:
        yield upstream


@pytest.fixture
def write(tmp_path: Path, provider: Upstream) -> Callable[..., Path]:
    """Writes a configuration with one keyed back end `up`."""
    provider.script = say

    def write_it(**config: Any) -> Path:
        up = {
            "type": "openai", "base_url": f"{provider.url}/v1", "api_keys": {"main": CANARIES["provider"], "spare": CANARIES["second"]},
            "headers": {"x-own": CANARIES["header"]},
        }  # fmt: skip
        file = tmp_path / "config.json"
        file.write_text(json.dumps({"backends": {"up": up}, "config_watch": False} | config))
        return file

    return write_it


def chat(proxy: Proxy, model: str = "up:m", key: str = "", said: str = "hi") -> int:
    body = {"model": model, "messages": [{"role": "user", "content": said}]}
    return proxy.post("/v1/chat/completions", body, key=key).status


def page(proxy: Proxy, name: str, key: str = "") -> Any:
    answer = proxy.get(f"/internal/{name}", key=key)
    assert answer.status == 200, answer.body
    return answer.json


def backend(proxy: Proxy, id: str) -> dict[str, Any]:
    return next(one for one in page(proxy, "backends")["data"] if one["id"] == id)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not come true"


def test_given_a_missing_gemini_key_then_its_reason_names_the_variable(proxy: Proxy) -> None:
    gemini = backend(proxy, "gemini")
    assert (gemini["functional"], gemini["usable"], gemini["type"]) == (False, False, "gemini")
    assert "GEMINI_API_KEY" in gemini["reason"]
    demo = backend(proxy, "demo")
    assert (demo["functional"], demo["reason"], demo["keys"]) == (True, "", [])


def test_given_a_cooling_key_then_seconds_left_fall(
    tmp_path: Path, write: Callable[..., Path], provider: Upstream
) -> None:
    with running(tmp_path, "--config", str(write())) as proxy:
        ready = {"state": "ready", "seconds": 0.0, "rests": []}
        assert backend(proxy, "up")["keys"] == [{"name": "main", **ready}, {"name": "spare", **ready}]
        provider.script = lambda request: Reply.json({"error": {"message": "slow"}}, 429, [("retry-after", "30")])
        assert chat(proxy) == 429
        main = backend(proxy, "up")["keys"][0]
        assert main["state"] == "cooling"
        assert 0 < main["seconds"] <= 30
        [rest] = main["rests"]
        assert (rest["model"], rest["status"]) == ("m", 429)
        listed = page(proxy, "cooldowns")["data"]
        assert {(one["key"], one["state"]) for one in listed} == {("main", "cooling"), ("spare", "cooling")}
        until(lambda: backend(proxy, "up")["keys"][0]["seconds"] < main["seconds"])
        assert page(proxy, "cooldowns")["data"][0]["seconds"] < listed[0]["seconds"]


def test_a_key_that_the_provider_refuses_is_disabled_for_all_models(
    tmp_path: Path, write: Callable[..., Path], provider: Upstream
) -> None:
    with running(tmp_path, "--config", str(write())) as proxy:
        provider.script = lambda request: (
            Reply.json({"error": {"message": "no"}}, 401) if CANARIES["provider"] in str(request.header("authorization")) else say(request)
        )  # fmt: skip
        assert chat(proxy) == 200
        main, spare = backend(proxy, "up")["keys"]
        assert (main["state"], spare["state"]) == ("disabled", "ready")
        assert 590 < main["seconds"] <= 600


def test_models_are_counted_once_their_list_was_read(tmp_path: Path, write: Callable[..., Path]) -> None:
    with running(tmp_path, "--config", str(write())) as proxy:
        assert backend(proxy, "up")["models"] is None
        assert proxy.get("/v1/models").status == 200
        assert backend(proxy, "up")["models"] == 3


def test_status_tells_of_the_process(tmp_path: Path, write: Callable[..., Path], provider: Upstream) -> None:
    with running(tmp_path, "--config", str(write())) as proxy:
        before = page(proxy, "status")
        assert (before["version"], before["python"]) == (__version__, platform.python_version())
        assert 0 < before["uptime_seconds"] < 60
        assert abs(before["started"] + before["uptime_seconds"] - time.time()) < 60
        assert (before["ready"], before["draining"]) == (True, False)
        assert (before["open_streams"], before["open_requests"], before["sessions"]) == (0, 0, 0)
        assert before["memory"]["peak_bytes"] > 10_000_000
        if Path("/proc/self/statm").exists():
            assert 10_000_000 < before["memory"]["resident_bytes"] <= before["memory"]["peak_bytes"] * 1.1
            assert before["descriptors"] > 3
        assert before["log"] == {"dropped_lines": 0}
        assert before["ledger"]["dropped"] == 0
        assert before["capture"]["dropped"] == 0
        go = Moment()
        event = b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
        provider.script = lambda request: Reply.sse(event, Pause(go), b"data: [DONE]\n\n")
        body = {"model": "up:m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
        stream = proxy.stream("/v1/chat/completions", body)
        assert b"data:" in stream.line()
        during = page(proxy, "status")
        assert (during["open_streams"], during["open_requests"], during["sessions"]) == (1, 1, 1)
        assert during["uptime_seconds"] > before["uptime_seconds"]
        go.happen()
        stream.rest()
        until(lambda: page(proxy, "status")["open_requests"] == 0)


def test_config_shows_effective_values_with_their_sources_as_the_command_does(
    tmp_path: Path, write: Callable[..., Path]
) -> None:
    file = write(default_backend="up", failover_routes={"r": {"policy": "k", "elements": ["up:m"]}})
    flags = ["--config", str(file), "--log-level", "warning"]
    with running(tmp_path, *flags) as proxy:
        shown = page(proxy, "config")
        found = {one["path"]: (one["value"], one["source"]) for one in shown["data"]}
        assert shown["file"] == str(file)
        assert found["logging.level"] == ("warning", "flag --log-level")
        assert found["default_backend"] == ("up", "config.json:1")
        assert found["failover_routes.r.elements"] == (["up:m"], "config.json:1")
        assert found["proxy.timeout"] == (300.0, "default")
        assert found["auth.api_keys"][1] == "env LLM_INTERACTIVE_PROXY_API_KEY"
        printed = run(tmp_path, ["config", "show", "--json", *flags], {"LLM_INTERACTIVE_PROXY_API_KEY": KEY})
        told = {one["path"]: one["value"] for one in json.loads(printed.stdout)}
        del told["proxy.port"], found["proxy.port"]  # the tests' own
        assert {path: value for path, (value, _) in found.items()} == told


def test_given_any_page_then_no_secret_value_occurs(
    tmp_path: Path, write: Callable[..., Path], provider: Upstream
) -> None:
    auth = {
        "api_keys": {"ordinary": CANARIES["ordinary"], "operator": CANARIES["operator"]},
        "admin_keys": ["operator"],
        "auth_token": CANARIES["token"],
    }
    file = write(auth=auth, proxy={"upstream_proxy": f"http://me:{CANARIES['password']}@127.0.0.1:9"})
    with running(tmp_path, "--config", str(file), keyed=False) as proxy:
        proxy.key = CANARIES["operator"]
        chat(proxy, "demo:echo", said=f"my key is {CANARIES['second']}")
        chat(proxy, "up:m")
        sessions = [f"sessions/{one['id']}?scope={one['scope']}" for one in page(proxy, "sessions")["data"]]
        assert len(sessions) == 2
        for name in (*PAGES, *sessions):
            answer = proxy.get(f"/internal/{name}")
            assert answer.status == 200, (name, answer.body)
            held = [kind for kind, value in CANARIES.items() if value.encode() in answer.body]
            assert held == [], name
        file.write_text(file.read_text().replace('"config_watch": false', f'"config_watch": "{CANARIES["second"]}"'))
        refused = proxy.post("/internal/reload", {})
        assert refused.status == 422 and b"config_watch" in refused.body
        assert CANARIES["second"].encode() not in refused.body


def test_pages_are_for_admins_where_several_keys_exist(tmp_path: Path, write: Callable[..., Path]) -> None:
    keys = {"ordinary": CANARIES["ordinary"], "operator": CANARIES["operator"]}
    file = write(auth={"api_keys": keys, "admin_keys": ["operator"]})
    with running(tmp_path, "--config", str(file), keyed=False) as proxy:
        for name in PAGES:
            assert proxy.get(f"/internal/{name}", key=CANARIES["operator"]).status == 200, name
            expected = 200 if name == "sessions" else 403  # everyone's own
            assert proxy.get(f"/internal/{name}", key=CANARIES["ordinary"]).status == expected, name
            assert proxy.get(f"/internal/{name}", key=None).status == 401, name
        assert proxy.post("/internal/reload", {}, key=CANARIES["ordinary"]).status == 403


def test_given_enabled_false_then_404_naming_the_option(tmp_path: Path, write: Callable[..., Path]) -> None:
    with running(tmp_path, "--config", str(write(internal_api={"enabled": False}))) as proxy:
        for name in PAGES:
            answer = proxy.get(f"/internal/{name}")
            assert answer.status == 404 and b"internal_api.enabled" in answer.body, name
        assert proxy.post("/internal/reload", {}).status == 404
        assert proxy.get("/internal/health", key=None).status == 200


def test_reload_tells_what_changed(tmp_path: Path, write: Callable[..., Path]) -> None:
    file = write(default_backend="up")
    with running(tmp_path, "--config", str(file)) as proxy:
        write(default_backend="demo")
        assert proxy.post("/internal/reload", {}).json == {
            "object": "reload",
            "changed": ["default_backend: up -> demo"],
        }
        assert proxy.post("/internal/reload", {}).json["changed"] == []


def test_other_pages_and_methods_are_refused_by_name(proxy: Proxy) -> None:
    answer = proxy.get("/internal/nothing")
    assert answer.status == 404 and b"status" in answer.body
    for name in ("status", "config", "backends"):
        assert proxy.post(f"/internal/{name}", {}).status == 405
    assert proxy.get("/internal/reload").status == 405
    for name in PAGES:
        head = proxy.request("HEAD", f"/internal/{name}")
        assert (head.status, head.body) == (200, b""), name
