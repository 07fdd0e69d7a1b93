"""BE-14, BE-15: what clients and operators are told of a login: what it could not take, and drivers that fail."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from llm_proxy.backends import registry
from llm_proxy.backends.registry import Backends
from llm_proxy.backends.transport import Transport
from llm_proxy.routing.keyring import Keyring
from llm_proxy.server import internal_pages
from tests.backends.logins.test_anthropic import FOR_CLAUDE_CODE
from tests.backends.logins.vendor import jwt, write_login
from tests.e2e.asking import PROTOCOLS, Scene, started
from tests.e2e.calling import Turn, reply
from tests.support.shared import Protocol
from tests.support.upstream import Reply, upstream_in_thread

CHATGPT, CLAUDE = "openai-oauth", "anthropic-oauth"
END = time.time() + 100_000


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("telling")
    write_login(folder / "auth.json", {"tokens": {"access_token": jwt(exp=int(END)), "account_id": "acc-1"}})
    write_login(folder / ".credentials.json", {"claudeAiOauth": {"accessToken": "sk-ant-oat01-0123456789abcdef"}})
    with upstream_in_thread(lambda request: Reply(status=500)) as upstream:
        members = {"token_path": str(folder), "refresh": "read-only"}
        backends = {
            CHATGPT: {**members, "base_url": f"{upstream.url}/backend-api/codex"},
            CLAUDE: {**members, "base_url": upstream.url},
            "qwen-oauth": {"token_path": str(folder / "none")},
        }
        with started(config={"backends": backends}) as proxy:
            yield Scene(proxy, upstream)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_responses_client_is_told_what_chatgpt_does_not_take(scene: Scene, stream: bool) -> None:
    scene.play(lambda request: reply("openai-responses", Turn(text="ok"), True))
    more: dict[str, Any] = {"temperature": 0.3, "top_p": 0.9, "max_output_tokens": 50}
    answer = scene.ask("openai-responses", f"{CHATGPT}:gpt-5-codex", stream, **more)
    assert answer.status == 200, answer.body
    assert not more.keys() & scene.last.json.keys()
    assert [loss.partition(":")[0] for loss in answer.headers["x-llm-proxy-warnings"].split("; ")] == list(more)
    plain = scene.ask("openai-responses", f"{CHATGPT}:gpt-5-codex", stream)
    assert plain.status == 200 and "x-llm-proxy-warnings" not in plain.headers


@pytest.mark.parametrize("client", PROTOCOLS)
def test_a_login_for_claude_code_only_is_a_502_that_advises_a_key(scene: Scene, client: Protocol) -> None:
    scene.play(Reply.json(FOR_CLAUDE_CODE, 400))
    answer = scene.ask(client, f"{CLAUDE}:claude-sonnet-4-5")
    assert answer.status == 502
    assert answer.json["detail"]["code"] == f"{CLAUDE}_credentials_invalid"
    assert "API key" in answer.json["detail"]["message"]
    listed = {one["id"]: one for one in scene.proxy.get("/internal/backends").json["data"]}
    assert "API key" in listed[CLAUDE]["reason"]


@pytest.mark.parametrize("client", PROTOCOLS)
def test_a_missing_login_is_a_503_that_names_the_command(scene: Scene, client: Protocol) -> None:
    answer = scene.ask(client, "qwen-oauth:qwen3-coder-plus")
    assert answer.status in (503, 529)
    assert answer.json["detail"]["code"] == "backend_unavailable"
    assert "run `qwen`" in answer.json["detail"]["message"] and "does not exist" in answer.json["detail"]["message"]


async def test_a_driver_that_fails_is_one_line_of_the_page(
    monkeypatch: pytest.MonkeyPatch, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    def build(*arguments: object, **members: object) -> None:
        raise OSError("a secret of this machine")

    monkeypatch.setattr("llm_proxy.backends.logins.qwen.build", build)
    assert "qwen-oauth" in registry._BUILDERS
    gateway: Any = SimpleNamespace(
        backends=Backends({}, transport),
        health=SimpleNamespace(results={}),
        keyring=Keyring(lambda: 0.0),
        without_secrets=str,
    )
    page = internal_pages.backends(gateway)
    listed = {one["id"]: one for one in page["data"]}
    assert listed["qwen-oauth"]["reason"] == "its driver failed (OSError); the log says more."
    assert not listed["qwen-oauth"]["usable"] and listed["demo"]["functional"]
    assert "a secret" not in json.dumps(page) and "qwen-oauth" in caplog.text
    await gateway.backends.close()
