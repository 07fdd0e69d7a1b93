"""Which path is what, and what an unknown one answers (FE-01)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.server.paths import NoRoute, Route, resolve
from tests.server.process import Proxy

TEXT = "hi"
CHAT = {"model": "demo:echo", "messages": [{"role": "user", "content": TEXT}]}
RESPONSES = {"model": "demo:echo", "input": TEXT}
MESSAGES = {"model": "demo:echo", "max_tokens": 100, "messages": [{"role": "user", "content": TEXT}]}
COUNT = {"model": "demo:echo", "messages": [{"role": "user", "content": TEXT}]}
GEMINI = {"contents": [{"role": "user", "parts": [{"text": TEXT}]}]}
VERSIONS = ("/v1", "/v2", "")
GEMINI_PREFIXES = ("/v1beta", "/v1beta/v1beta", "/v1", "/v2", "")
ANTHROPIC_PREFIXES = ("/anthropic/v1", "/anthropic/v1/v1", "/v1", "/v2")

POSTS: list[tuple[str, Any]] = [
    *((f"{v}/chat/completions", CHAT) for v in (*VERSIONS, "/v1/v1")),
    *((f"{v}/responses", RESPONSES) for v in VERSIONS),
    *((f"{v}/completions", {"model": "demo:echo", "prompt": TEXT}) for v in VERSIONS),
    *((f"{v}/embeddings", {"model": "demo:echo", "input": TEXT}) for v in VERSIONS),
    *((f"{p}/messages", MESSAGES) for p in ANTHROPIC_PREFIXES),
    *((f"{p}/messages/count_tokens", COUNT) for p in ANTHROPIC_PREFIXES),
    *((f"{p}/models/demo:echo:generateContent", GEMINI) for p in GEMINI_PREFIXES),
    *((f"{p}/models/demo%3Aecho:streamGenerateContent?alt=sse", GEMINI) for p in GEMINI_PREFIXES),
    *((f"{p}/models/demo:echo:countTokens", GEMINI) for p in GEMINI_PREFIXES),
]
GETS = [
    *(f"{v}/models" for v in (*VERSIONS, "/v1/v1")),
    *(f"{v}/models/demo:echo" for v in VERSIONS),
    *(f"/anthropic/v1/{end}" for end in ("models", "models/demo:echo", "health", "info")),
    "/anthropic/health",
    "/anthropic/info",
    "/v1beta/models",
    "/v1beta/models/demo:echo",
    "/v2/models/list",
    *(f"{v}/usage/{end}" for v in VERSIONS for end in ("stats", "recent")),
    "/",
    "/health",
    "/internal/health",
    "/docs",
    "/redoc",
    "/openapi.json",
    "/internal/backends",
]


@pytest.mark.parametrize(("path", "body"), POSTS, ids=[path for path, _ in POSTS])
def test_each_path_of_the_table_answers_a_minimal_request(proxy: Proxy, path: str, body: Any) -> None:
    answer = proxy.post(path, body)
    assert answer.status == 200, answer.body
    assert "deprecation" not in answer.headers
    if any(word in path for word in ("count", "embeddings")):
        return
    assert b"Echo" in answer.body and TEXT.encode() in answer.body


@pytest.mark.parametrize("path", GETS)
def test_each_page_of_the_table_answers(proxy: Proxy, path: str) -> None:
    answer = proxy.get(path)
    assert answer.status == 200, answer.body
    assert "deprecation" not in answer.headers


@pytest.mark.parametrize("prefix", VERSIONS)
def test_audit_says_which_option_turns_it_on(proxy: Proxy, prefix: str) -> None:
    answer = proxy.get(f"{prefix}/audit/logs")
    assert answer.status == 404
    assert "audit.enabled" in answer.json["error"]["message"]


@pytest.mark.parametrize("prefix", VERSIONS)
def test_a_kept_response_can_be_read_listed_and_deleted(proxy: Proxy, prefix: str) -> None:
    made = proxy.post(f"{prefix}/responses", RESPONSES).json["id"]
    path = f"{prefix}/responses/{made}"
    assert proxy.get(path).json["id"] == made
    assert proxy.get(f"{path}/input_items").json["object"] == "list"
    cancelled = proxy.post(f"{path}/cancel", {})
    assert cancelled.status == 400 and "background" in cancelled.json["error"]["message"]
    assert proxy.request("DELETE", path).json["deleted"] is True
    assert proxy.get(path).status == 404


@pytest.mark.parametrize(
    "path",
    ["//v1/chat/completions", "/v1//chat///completions", "/v1/chat/completions/", "//v1//chat/completions//"],
)
def test_repeated_and_trailing_slashes_are_tolerated(proxy: Proxy, path: str) -> None:
    assert proxy.post(path, CHAT).status == 200


SHAPES = [
    ("/v1/message", "openai", "/v1/messages"),
    ("/v1/chat/completion", "openai", "/v1/chat/completions"),
    ("/nothing/like/it", "openai", ""),
    ("/v1/responsez", "openai", "/v1/responses"),
    ("/anthropic/v1/message", "anthropic", "/anthropic/v1/messages"),
    ("/anthropic/nothing", "anthropic", ""),
    ("/v1/messages/nothing", "anthropic", ""),
    ("/v1beta/model", "gemini", "/v1beta/models"),
]


@pytest.mark.parametrize(("path", "shape", "near"), SHAPES, ids=[path for path, _, _ in SHAPES])
def test_an_unknown_path_is_404_in_the_shape_of_its_family(proxy: Proxy, path: str, shape: str, near: str) -> None:
    answer = proxy.post(path, {})
    assert answer.status == 404
    assert_error(answer.json, shape, "not_found")
    assert near in answer.json["error"]["message"]


METHODS = [
    ("GET", "/v1/chat/completions", "openai", "POST"),
    ("PUT", "/v1/responses", "openai", "POST"),
    ("DELETE", "/v1/messages", "anthropic", "POST"),
    ("GET", "/anthropic/v1/messages", "anthropic", "POST"),
    ("GET", "/v1beta/models/demo:generateContent", "gemini", "POST"),
    ("POST", "/v1/models", "openai", "GET, HEAD"),
    ("PATCH", "/health", "openai", "GET, HEAD"),
    ("TRACE", "/v1/models", "openai", "GET, HEAD"),
]


@pytest.mark.parametrize(("method", "path", "shape", "allow"), METHODS, ids=[f"{m} {p}" for m, p, _, _ in METHODS])
def test_a_wrong_method_is_405_and_names_the_right_ones(
    proxy: Proxy, method: str, path: str, shape: str, allow: str
) -> None:
    answer = proxy.request(method, path)
    assert answer.status == 405
    assert answer.headers["allow"] == allow
    assert_error(answer.json, shape, "method_not_allowed")


@pytest.mark.parametrize("path", ["/v1/responses", "/responses", "/v2/responses"])
def test_a_websocket_attempt_is_answered_426_and_the_connection_stays_usable(proxy: Proxy, path: str) -> None:
    host, port = proxy.main
    upgrade = (
        f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    after = f"GET /health HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
    answer = proxy.raw((upgrade + after).encode())
    assert answer.startswith(b"HTTP/1.1 426 ")
    assert b"HTTP/1.1 200 " in answer
    assert b"upgrade: HTTP/1.1\r\n" in answer
    assert b'"upgrade_required"' in answer


def test_head_has_the_headers_of_get_and_no_body(proxy: Proxy) -> None:
    answer = proxy.request("HEAD", "/health")
    assert answer.status == 200
    assert answer.body == b""
    assert int(answer.headers["content-length"]) == len(proxy.get("/health").body)


@given(st.text(max_size=60))
def test_every_path_is_a_route_or_none(path: str) -> None:
    for special in (False, True):
        assert isinstance(resolve("/" + path, special), Route | NoRoute)


def test_a_model_name_may_hold_slashes_and_percent_signs() -> None:
    assert resolve("/v1/models/openrouter:qwen/qwen3-coder").name == "openrouter:qwen/qwen3-coder"  # type: ignore[union-attr]
    found = resolve("/v1beta/models/openrouter%3Aa%2Fb:free:streamGenerateContent")
    assert isinstance(found, Route)
    assert (found.name, found.stream) == ("openrouter:a/b:free", True)


def assert_error(body: Any, shape: str, code: str) -> None:
    """The error object of a protocol, and the proxy's own `detail` beside it (FE-11)."""
    error = body["error"]
    match shape:
        case "openai":
            assert set(error) >= {"message", "type", "param", "code"}
        case "anthropic":
            assert body["type"] == "error"
            assert set(error) == {"type", "message"}
            assert isinstance(body["request_id"], str)
        case _:
            assert isinstance(error["code"], int)
            assert error["status"].isupper()
    assert error["message"]
    assert body["detail"]["code"] == code, json.dumps(body)
    assert body["detail"]["message"]
    assert isinstance(body["detail"]["details"], dict)


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("openai%3Agpt-4o", "openai:gpt-4o"),
        ("models/gemini-2.5-pro", "gemini-2.5-pro"),
        ("models%2Fgemini-2.5-pro", "gemini-2.5-pro"),
        ("openrouter:google%2Fgemini", "openrouter:google/gemini"),
        ("gemini-pro", "gemini-pro"),
    ],
)
@pytest.mark.parametrize("method", ["generateContent", "streamGenerateContent", "countTokens"])
def test_a_gemini_path_model_is_decoded_and_loses_a_models_of_its_own(path: str, model: str, method: str) -> None:
    route = resolve(f"/v1beta/models/{path}:{method}")
    assert isinstance(route, Route)
    assert route.name == model
