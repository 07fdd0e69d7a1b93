"""What a newcomer, a browser and a supervisor read: start lines, root, docs, health (GEN-02, FE-14)."""

from __future__ import annotations

import re

import pytest

from llm_proxy.server import openapi_document
from tests.server.process import Proxy
from tests.server.test_paths import CHAT, GETS, MESSAGES, POSTS


def _url(address: tuple[str, int]) -> str:
    return f"http://{address[0]}:{address[1]}"


def test_start_lines_and_root_name_the_same_base_urls(proxy: Proxy) -> None:
    main, anthropic = _url(proxy.main), _url(proxy.anthropic)
    assert anthropic == f"http://127.0.0.1:{proxy.main[1] + 1}"
    assert f"{main}/v1\n" in proxy.banner
    assert f"{main}/anthropic  or  {anthropic}\n" in proxy.banner
    assert re.search(rf"Gemini tools\s+base URL\s+{main}\n", proxy.banner)
    root = proxy.get("/", key=None)
    assert root.json["base_urls"] == {
        "openai": f"{main}/v1",
        "anthropic": f"{main}/anthropic",
        "gemini": main,
        "anthropic_port": anthropic,
    }
    assert root.json["docs"] == f"{main}/docs"
    assert root.json["product"] == "LLM Interactive Proxy"


def test_start_lines_say_what_is_used_and_hold_no_configured_key(proxy: Proxy) -> None:
    assert re.search(r"default back end\s+demo\b", proxy.banner)
    assert re.search(r"data directory\s+/", proxy.banner)
    assert re.search(r"config\s+none", proxy.banner)
    assert proxy.key not in proxy.banner
    assert "\x1b" not in proxy.banner


def test_each_printed_base_url_works_with_its_clients_paths(proxy: Proxy) -> None:
    assert proxy.post("/v1/chat/completions", CHAT).status == 200
    assert proxy.post("/anthropic/v1/messages", MESSAGES).status == 200
    assert proxy.post("/v1/messages", MESSAGES, address=proxy.anthropic).status == 200


PORT_POSTS = [
    f"{prefix}/messages{end}"
    for prefix in ("/v1", "", "/anthropic/v1", "/anthropic", "/v1/v1")
    for end in ("", "/count_tokens")
]
PORT_GETS = [
    f"{prefix}/{end}" for prefix in ("/v1", "", "/anthropic/v1", "/anthropic") for end in ("models", "health", "info")
]


@pytest.mark.parametrize("path", PORT_POSTS)
def test_the_anthropic_port_answers(proxy: Proxy, path: str) -> None:
    answer = proxy.post(path, MESSAGES, {"x-api-key": proxy.key}, key=None, address=proxy.anthropic)
    assert answer.status == 200, answer.body


@pytest.mark.parametrize("path", PORT_GETS)
def test_the_anthropic_port_lists_and_describes(proxy: Proxy, path: str) -> None:
    answer = proxy.get(path, address=proxy.anthropic)
    assert answer.status == 200, answer.body
    if path.endswith("models"):
        assert answer.json["data"][0]["type"] == "model"
        assert "first_id" in answer.json


def test_the_anthropic_port_serves_nothing_else_and_errs_in_its_shape(proxy: Proxy) -> None:
    for path in ("/v1/chat/completions", "/v1/responses", "/usage/stats", "/internal/backends"):
        answer = proxy.post(path, CHAT, address=proxy.anthropic)
        assert (answer.status, answer.json["type"]) == (404, "error"), path
    refused = proxy.post("/v1/messages", MESSAGES, key=None, address=proxy.anthropic)
    assert (refused.status, refused.json["error"]["type"]) == (401, "authentication_error")


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_documentation_loads_nothing_from_the_network(proxy: Proxy, path: str) -> None:
    page = proxy.get(path, key=None)
    assert page.headers["content-type"].startswith("text/html")
    text = page.body.decode()
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", text)
    assert "@import" not in text and "url(" not in text and "<script" not in text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "/v1/chat/completions" in text


def test_every_path_of_the_table_is_in_the_openapi_document(proxy: Proxy) -> None:
    document = proxy.get("/openapi.json", key=None).json
    assert document["openapi"].startswith("3.")
    described = document["paths"]
    patterns = {re.sub(r"\\\{[a-z]+\\\}", "[^/]+", re.escape(path)): path for path in described}
    for path, method in [*((path, "post") for path, _ in POSTS), *((path, "get") for path in GETS)]:
        path = path.partition("?")[0].replace("%3A", ":")
        found = [described[name] for pattern, name in patterns.items() if re.fullmatch(pattern, path)]
        assert any(method in operations for operations in found), path
    for version in ("/v1", "/v2", ""):
        assert set(described[f"{version}/responses/{{id}}"]) >= {"get", "delete"}
        assert "post" in described[f"{version}/responses/{{id}}/cancel"]
        assert "get" in described[f"{version}/audit/logs"]
    for path, operations in described.items():
        names = set(re.findall(r"\{(\w+)\}", path))
        for operation in operations.values():
            assert {parameter["name"] for parameter in operation.get("parameters", [])} == names, path


def test_the_document_has_a_summary_for_each_operation() -> None:
    document = openapi_document.build("1", "http://127.0.0.1:1")
    assert all(operation["summary"] for operations in document["paths"].values() for operation in operations.values())


@pytest.mark.parametrize("path", ["/health", "/internal/health", "/anthropic/health", "/anthropic/v1/health"])
def test_health_needs_nobody(proxy: Proxy, path: str) -> None:
    answer = proxy.get(path, key=None)
    assert answer.status == 200
    assert answer.json["status"] == "ok"
    assert answer.json["service"] == "llm-interactive-proxy"
    assert answer.json["version"]
    ready = proxy.get(f"{path}?ready=1", key=None)
    assert (ready.status, ready.json["ready"]) == (200, True)


def test_info_names_endpoints_and_back_ends(proxy: Proxy) -> None:
    info = proxy.get("/anthropic/v1/info").json
    assert "demo" in info["backends"]
    assert "/v1/messages" in info["endpoints"]
