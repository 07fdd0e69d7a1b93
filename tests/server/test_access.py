"""Who may use the proxy: client keys (OPS-01) and browser protection (OPS-18, S-05, S-11)."""

from __future__ import annotations

import ast
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.conversation.fault import FaultError
from llm_proxy.server import access
from llm_proxy.server.access import BrowserGuard, is_loopback
from llm_proxy.server.http import Incoming
from tests.server.process import KEY, Proxy, running
from tests.server.test_paths import CHAT, GEMINI, MESSAGES, RESPONSES, assert_error

WRONG = "not-the-key"
TOKEN = "token-of-the-tests-1"
SURFACES = [
    ("/v1/chat/completions", CHAT, "openai"),
    ("/v1/responses", RESPONSES, "openai"),
    ("/v1/messages", MESSAGES, "anthropic"),
    ("/v1beta/models/demo:echo:generateContent", GEMINI, "gemini"),
]
SURFACE_IDS = ["openai-chat", "openai-responses", "anthropic-messages", "gemini"]
HEADER_CARRIERS = ["Authorization", "x-api-key", "x-goog-api-key"]


def _carried(carrier: str, key: str) -> dict[str, str]:
    return {carrier: f"Bearer {key}" if carrier == "Authorization" else key}


# OPS-01


@pytest.mark.parametrize(("path", "body", "shape"), SURFACES, ids=SURFACE_IDS)
@pytest.mark.parametrize("carrier", HEADER_CARRIERS)
def test_each_header_carries_the_key_on_each_surface(
    proxy: Proxy, path: str, body: Any, shape: str, carrier: str
) -> None:
    assert proxy.post(path, body, _carried(carrier, KEY), key=None).status == 200
    refused = proxy.post(path, body, _carried(carrier, WRONG), key=None)
    assert refused.status == 401
    assert_error(refused.json, shape, "unauthorized")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert WRONG.encode() not in refused.body


@pytest.mark.parametrize(("path", "body", "shape"), SURFACES, ids=SURFACE_IDS)
@pytest.mark.parametrize("name", ["key", "api_key"])
def test_the_query_carries_the_key(proxy: Proxy, path: str, body: Any, shape: str, name: str) -> None:
    assert proxy.post(f"{path}?{name}={KEY}", body, key=None).status == 200
    refused = proxy.post(f"{path}?{name}={WRONG}", body, key=None)
    assert refused.status == 401
    assert_error(refused.json, shape, "unauthorized")


@pytest.mark.parametrize(("path", "body", "shape"), SURFACES, ids=SURFACE_IDS)
def test_a_missing_key_is_401_and_says_which_carriers_exist(proxy: Proxy, path: str, body: Any, shape: str) -> None:
    refused = proxy.post(path, body, key=None)
    assert refused.status == 401
    assert_error(refused.json, shape, "unauthorized")
    assert refused.headers["www-authenticate"] == "Bearer"
    for carrier in ("Authorization: Bearer", "x-api-key", "x-goog-api-key", "X-Auth-Token", "key"):
        assert carrier in refused.json["error"]["message"]


@pytest.mark.parametrize("value", ["Basic x", "Basic a2V5Og==", f"Digest {KEY}", KEY, "Bearer", "Bearer "])
def test_another_scheme_is_401(proxy: Proxy, value: str) -> None:
    refused = proxy.post("/v1/chat/completions", CHAT, {"Authorization": value}, key=None)
    assert refused.status == 401
    assert refused.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("value", [f"Bearer  {KEY} ", f'Bearer "{KEY}"', f"Bearer '{KEY}'", f"bearer {KEY}"])
def test_blanks_and_quotes_around_a_key_are_tolerated(proxy: Proxy, value: str) -> None:
    assert proxy.post("/v1/chat/completions", CHAT, {"Authorization": value}, key=None).status == 200


@pytest.mark.parametrize("value", [KEY[:-1], KEY + "x", KEY.upper(), "", "é" * 20, "x" * 5000])
def test_what_only_resembles_the_key_is_401(proxy: Proxy, value: str) -> None:
    headers = {"x-api-key": value.encode().decode("latin-1")}
    assert proxy.post("/v1/chat/completions", CHAT, headers, key=None).status == 401


@pytest.mark.parametrize("path", ["/", "/health", "/internal/health", "/docs", "/redoc", "/openapi.json"])
def test_bypass_paths_need_no_key_and_ignore_a_wrong_one(proxy: Proxy, path: str) -> None:
    assert proxy.get(path, key=None).status == 200
    assert proxy.get(path, key=WRONG).status == 200


@pytest.mark.parametrize("path", ["/usage/stats", "/v1/models", "/internal/backends", "/anthropic/info"])
def test_other_pages_need_the_key(proxy: Proxy, path: str) -> None:
    assert proxy.get(path, key=None).status == 401


def test_without_a_key_one_is_made_at_each_start_and_never_logged(tmp_path: Path) -> None:
    keys = []
    for number in (1, 2):
        log = tmp_path / f"log-{number}"
        with running(tmp_path, "--log-file", str(log), keyed=False) as proxy:
            assert proxy.key.startswith("llmp-") and len(proxy.key) == 5 + 43
            assert "LLM_INTERACTIVE_PROXY_API_KEY=" in proxy.banner
            assert proxy.post("/v1/chat/completions", CHAT).status == 200
            assert proxy.post(f"/v1/chat/completions?key={proxy.key}", CHAT, key=None).status == 200
            assert proxy.post("/v1/chat/completions", CHAT, key=WRONG).status == 401
            keys.append(proxy.key)
            assert proxy.stop() == 0
        assert proxy.key not in log.read_text()
    assert keys[0] != keys[1]


def test_several_keys_all_work_and_the_token_has_its_own_header(tmp_path: Path) -> None:
    with running(tmp_path, env={"API_KEYS": "first-key-1,second-key-2", "AUTH_TOKEN": TOKEN}, keyed=False) as proxy:
        made = proxy.post("/v1/responses", RESPONSES, key="first-key-1")
        assert made.status == 200
        path = f"/v1/responses/{made.json['id']}"
        assert proxy.get(path, key="first-key-1").status == 200
        # What one key keeps, the other does not see.
        assert proxy.get(path, key="second-key-2").status == 404
        assert proxy.post("/v1/chat/completions", CHAT, {"X-Auth-Token": TOKEN}, key=None).status == 200
        assert proxy.post("/v1/chat/completions", CHAT, {"X-Auth-Token": WRONG}, key=None).status == 401
        assert proxy.post("/v1/chat/completions", CHAT, key=WRONG).status == 401
        assert "llmp-" not in proxy.banner


def test_without_authentication_only_this_machine_is_served(tmp_path: Path) -> None:
    with running(tmp_path, "--disable-auth", "--host", "0.0.0.0", keyed=False) as proxy:
        assert "warning: authentication is disabled" in proxy.banner
        assert "0.0.0.0" in proxy.banner
        assert proxy.main[0] == "127.0.0.1"
        assert "llmp-" not in proxy.banner
        assert proxy.post("/v1/chat/completions", CHAT, key=None).status == 200
        for address in _other_addresses():
            with pytest.raises(OSError):
                socket.create_connection((address, proxy.main[1]), timeout=2).close()


def _other_addresses() -> Sequence[str]:
    """An address of this machine that others can reach, and one of the loopback net that is not bound."""
    found = {"127.0.0.2"}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a datagram socket only chooses an address, nothing is sent
            found.add(probe.getsockname()[0])
        except OSError:
            pass
    return sorted(found)


# S-11


def test_secrets_are_compared_in_constant_time_only() -> None:
    """Nowhere `==` on a revealed secret or its digest; the key check uses compare_digest."""
    source = Path(access.__file__).parents[1]
    offending = [
        f"{path.relative_to(source)}:{node.lineno}"
        for path in sorted(source.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Compare)
        and any(isinstance(operator, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for operator in node.ops)
        and any(_is_secret(side) for side in (node.left, *node.comparators))
    ]
    assert offending == []
    assert "hmac.compare_digest" in Path(access.__file__).read_text("utf-8")


def _is_secret(node: ast.expr) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "reveal":
        return True
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_digest"


# OPS-18: (bind, allowed hosts, allowed origins), request headers, status

LOCAL = ("127.0.0.1", (), ())
OPEN = ("0.0.0.0", (), ())
NAMED = ("0.0.0.0", ("proxy.example",), ())
APP = ("127.0.0.1", (), ("https://app.example", "http://localhost:3000"))
GOOD = "127.0.0.1:8000"
BROWSER_TABLE: list[tuple[tuple[str, Sequence[str], Sequence[str]], str, dict[str, str], int]] = [
    (LOCAL, "GET", {"host": "127.0.0.1:8000"}, 200),
    (LOCAL, "GET", {"host": "127.0.0.1"}, 200),
    (LOCAL, "GET", {"host": "localhost:8000"}, 200),
    (LOCAL, "GET", {"host": "LocalHost:9999"}, 200),
    (LOCAL, "GET", {"host": "localhost.:8000"}, 200),
    (LOCAL, "GET", {"host": "[::1]:8000"}, 200),
    (LOCAL, "GET", {"host": "evil.test"}, 421),
    (LOCAL, "GET", {"host": "evil.test:8000"}, 421),
    (LOCAL, "POST", {"host": "evil.test"}, 421),
    (LOCAL, "GET", {"host": ""}, 421),
    (LOCAL, "GET", {"host": "localhost.evil.test"}, 421),
    (LOCAL, "GET", {"host": "127.0.0.1.evil.test"}, 421),
    (LOCAL, "GET", {"host": "evil.test.localhost"}, 421),
    (LOCAL, "GET", {"host": "127.0.0.2"}, 421),
    (LOCAL, "GET", {"host": "0.0.0.0:8000"}, 421),
    (LOCAL, "GET", {"host": "[::2]"}, 421),
    (LOCAL, "GET", {"host": "192.168.1.5:8000"}, 421),
    (OPEN, "GET", {"host": "192.168.1.5:8000"}, 200),
    (OPEN, "GET", {"host": "any.name"}, 200),
    (NAMED, "GET", {"host": "proxy.example"}, 200),
    (NAMED, "GET", {"host": "PROXY.example:443"}, 200),
    (NAMED, "GET", {"host": "localhost"}, 200),
    (NAMED, "GET", {"host": "any.name"}, 421),
    (LOCAL, "POST", {"host": GOOD, "content-type": "application/json"}, 200),
    (LOCAL, "POST", {"host": GOOD}, 200),
    (LOCAL, "POST", {"host": GOOD, "content-type": "text/plain"}, 415),
    (LOCAL, "POST", {"host": GOOD, "content-type": "Text/Plain; charset=utf-8"}, 415),
    (LOCAL, "POST", {"host": GOOD, "content-type": "application/x-www-form-urlencoded"}, 415),
    (LOCAL, "POST", {"host": GOOD, "content-type": "multipart/form-data; boundary=x"}, 415),
    (LOCAL, "GET", {"host": GOOD, "origin": "https://evil.test"}, 403),
    (LOCAL, "POST", {"host": GOOD, "origin": "https://evil.test"}, 403),
    (LOCAL, "GET", {"host": GOOD, "origin": "null"}, 403),
    (LOCAL, "GET", {"host": GOOD, "origin": "http://localhost:3000"}, 403),
    (LOCAL, "GET", {"host": GOOD, "origin": "http://127.0.0.1:8000"}, 200),
    (LOCAL, "GET", {"host": GOOD, "sec-fetch-site": "cross-site"}, 403),
    (LOCAL, "POST", {"host": GOOD, "sec-fetch-site": "cross-site"}, 403),
    (LOCAL, "GET", {"host": GOOD, "sec-fetch-site": "none"}, 200),
    (LOCAL, "GET", {"host": GOOD, "sec-fetch-site": "same-origin"}, 200),
    (OPEN, "GET", {"host": "any.name", "origin": "https://evil.test"}, 403),
    (APP, "GET", {"host": GOOD, "origin": "https://app.example"}, 200),
    (APP, "POST", {"host": GOOD, "origin": "http://localhost:3000", "sec-fetch-site": "cross-site"}, 200),
    (APP, "GET", {"host": GOOD, "origin": "http://app.example"}, 403),
    (APP, "GET", {"host": GOOD, "origin": "https://app.example.evil.test"}, 403),
    (APP, "GET", {"host": "evil.test", "origin": "https://app.example"}, 421),
]


@pytest.mark.parametrize(("set_up", "method", "headers", "status"), BROWSER_TABLE)
def test_browser_protection(
    set_up: tuple[str, Sequence[str], Sequence[str]], method: str, headers: dict[str, str], status: int
) -> None:
    guard = BrowserGuard(*set_up)
    incoming = _incoming(method, headers)
    if status == 200:
        cors = dict(guard.check(incoming))
        allowed = set_up is APP and "origin" in headers
        assert cors.get(b"access-control-allow-origin", b"") == (headers["origin"].encode() if allowed else b"")
    else:
        with pytest.raises(FaultError) as refused:
            guard.check(incoming)
        assert refused.value.fault.status_code == status


def _incoming(method: str, headers: dict[str, str]) -> Incoming:
    async def receive() -> dict[str, Any]:
        raise AssertionError("no body is read")

    scope = {
        "method": method,
        "path": "/v1/models",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    return Incoming(scope, receive)


def test_loopback_addresses() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.5", "example.org", "")))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with running(tmp_path_factory.mktemp("guarded"), "--allowed-origin", "https://app.example") as proxy:
        yield proxy


@pytest.mark.parametrize("path", ["/", "/health", "/v1/models", "/usage/recent", "/nothing"])
def test_no_page_is_served_to_another_host_name_or_site(guarded: Proxy, path: str) -> None:
    host = guarded.get(path, {"Host": "evil.test"})
    assert (host.status, host.json["detail"]["code"]) == (421, "host_not_allowed")
    origin = guarded.get(path, {"Origin": "https://evil.test"})
    assert (origin.status, origin.json["detail"]["code"]) == (403, "forbidden")
    assert guarded.get(path, {"Sec-Fetch-Site": "cross-site"}).status == 403
    assert "access-control-allow-origin" not in origin.headers


def test_an_allowed_origin_gets_cors_headers_on_every_answer(guarded: Proxy) -> None:
    headers = {"Origin": "https://app.example"}
    for answer in (
        guarded.get("/v1/models", headers),
        guarded.post("/v1/chat/completions", CHAT, headers),
        guarded.post("/v1/chat/completions", b"{", headers),
        guarded.get("/nothing", headers),
        guarded.get("/v1/models", headers, key=WRONG),
    ):
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert "origin" in answer.headers["vary"].lower()


def test_preflights_are_answered_for_allowed_origins_only(guarded: Proxy) -> None:
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,x-api-key",
    }
    answer = guarded.request(
        "OPTIONS", "/v1/chat/completions", None, {**asked, "Origin": "https://app.example"}, key=None
    )
    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "authorization,x-api-key"
    for origin in ("https://evil.test", ""):
        refused = guarded.request("OPTIONS", "/v1/chat/completions", None, {**asked, "Origin": origin}, key=None)
        assert refused.status == 403
        assert "access-control-allow-origin" not in refused.headers


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_form_cannot_post_here(guarded: Proxy, kind: str) -> None:
    answer = guarded.post("/v1/chat/completions", CHAT, {"Content-Type": kind})
    assert (answer.status, answer.json["detail"]["code"]) == (415, "unsupported_media_type")
