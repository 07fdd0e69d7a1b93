"""Where routing meets the rest: kept responses, commands for all, errors of side calls, and a 403 that one client has caused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.asking import keys, say
from tests.e2e.keeping import CHAT, Place, backend
from tests.support.upstream import Received, Reply, Upstream, upstream_in_thread

EDIT_FAILED = "The SEARCH block does not match anything in the file"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with upstream_in_thread(say) as upstream:
        yield upstream


def test_a_request_that_builds_on_kept_responses_is_measured_whole(tmp_path: Path, upstream: Upstream) -> None:
    """given max_input_tokens 300 and a kept response of thousands of words, then going on with it is refused, without a call."""
    place = Place(tmp_path)
    place.write(
        backends={"t": backend(upstream.url, "t")},
        default_backend="t",
        model_defaults={"small": {"limits": {"max_input_tokens": 300}}},
    )
    with place.run() as proxy:
        first = proxy.post("/v1/responses", {"model": "large", "input": "word " * 3000})
        assert first.status == 200
        upstream.forget()
        body = {"model": "small", "input": "go on", "previous_response_id": first.json["id"]}
        second = proxy.post("/v1/responses", body)
        assert second.status == 400
        assert second.json["detail"]["code"] == "input_limit_exceeded"
        assert upstream.requests == []


def test_a_command_for_all_does_not_change_the_rooms_of_its_own_exchange(tmp_path: Path, upstream: Upstream) -> None:
    place = Place(tmp_path)
    place.write(backends={"t": backend(upstream.url, "t")}, default_backend="t")
    call = {"id": "call_1", "type": "function", "function": {"name": "replace_in_file", "arguments": "{}"}}
    said = "!/create-failover-route(name=zz, policy=m) please go on"
    messages = [
        {"role": "user", "content": "fix it"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": EDIT_FAILED},
        {"role": "user", "content": said},
    ]
    with place.run() as proxy:
        answer = proxy.post(CHAT, {"model": "m", "messages": messages})
        assert answer.status == 200, answer.body
        assert "zz" in place.state["failover_routes"]
        assert upstream.requests[-1].json["temperature"] == 0.1
        assert "!/" not in upstream.requests[-1].body.decode()


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/completions"])
def test_errors_of_side_calls_say_who_was_called_and_how_often(tmp_path: Path, upstream: Upstream, path: str) -> None:
    def failing(request: Received) -> Reply:
        return Reply.json({"error": {"message": "down"}}, 500)

    upstream.script = failing
    place = Place(tmp_path)
    place.write(
        backends={"a": backend(upstream.url, "a"), "b": backend(upstream.url, "b")},
        failover_routes={"both": {"policy": "m", "elements": ["a:x", "b:y"]}},
    )
    with place.run() as proxy:
        answer = proxy.post(path, {"model": "both", "input": "a", "prompt": "a"})
        assert answer.status == 500
        assert answer.headers["x-llm-proxy-attempts"] == "2"
        assert (answer.headers["x-llm-proxy-backend"], answer.headers["x-llm-proxy-model"]) == ("b", "y")
        assert answer.headers["x-request-id"]
        assert [one["backend"] for one in answer.json["detail"]["details"]["attempts"]] == ["a", "b"]


@pytest.mark.parametrize(
    "error",
    [
        {"code": "model_not_found", "message": "Project `p` does not have access to model `o3`"},
        {"code": 403, "message": "Your input was flagged", "metadata": {"reasons": ["violence"]}},
    ],
    ids=["a model that the account has not got", "moderation"],
)
def test_what_one_client_asks_for_does_not_put_the_key_away_for_all(
    tmp_path: Path, upstream: Upstream, error: dict[str, object]
) -> None:
    def script(request: Received) -> Reply:
        if b'"o3"' in request.body:
            return Reply.json({"error": error}, 403)
        return say(request)

    upstream.script = script
    place = Place(tmp_path)
    place.write(backends={"t": {"type": "openai", "base_url": f"{upstream.url}/t/v1", "api_keys": keys("a")}})
    with place.run() as proxy:
        refused = proxy.post(CHAT, {"model": "t:o3", "messages": [{"role": "user", "content": "hi"}]})
        assert refused.status == 403
        assert str(error["message"]) in refused.json["error"]["message"]
        assert proxy.get("/internal/cooldowns").json["data"] == []
        assert proxy.post(CHAT, {"model": "t:m", "messages": [{"role": "user", "content": "hi"}]}).status == 200
