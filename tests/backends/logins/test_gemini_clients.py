"""BE-17 from every client protocol: the personal login through the whole proxy, with tools and reasoning, streamed and whole."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.backends.logins.code_assist_server import QUOTA, USAGE, CodeAssist, chunk, refusal, stream
from tests.backends.logins.test_gemini import ID, write_login
from tests.commands.corpus.cases import Piece, Said
from tests.e2e.asking import PROTOCOLS, Scene, body_of, data_of, error_of, path_of, started, tools_of
from tests.e2e.talking import LIST_OF, calls_in, kept, written
from tests.support import sdk
from tests.support.semantic import ToolCall
from tests.support.shared import Protocol
from tests.support.upstream import Reply, upstream_in_thread

MODEL = f"{ID}:gemini-2.5-pro"
SIGNATURE = "c2lnbmVk"
TALK = stream(
    chunk({"text": "Let me think.", "thought": True}),
    chunk({"text": "Hel"}),
    chunk({"text": "lo"}, finish="STOP", usageMetadata=USAGE),
)
CALL = stream(
    chunk({"text": "Which one?", "thought": True}),
    chunk({"functionCall": {"name": "look", "args": {"a": 1}}, "thoughtSignature": SIGNATURE}),
    chunk({"text": ""}, finish="STOP", usageMetadata=USAGE),
)
THINKING: dict[Protocol, dict[str, Any]] = {
    "openai-chat": {"reasoning_effort": "low"},
    "openai-responses": {"reasoning": {"effort": "low", "summary": "auto"}},
    "anthropic-messages": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    "gemini": {"generationConfig": {"thinkingConfig": {"includeThoughts": True, "thinkingBudget": 1024}}},
}
every_client = pytest.mark.parametrize("client", PROTOCOLS)
both = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])


@dataclass
class Stage(Scene):
    """The proxy, Code Assist behind it, and the login's file."""

    server: CodeAssist
    directory: Path

    def say(self, *answers: Reply) -> None:
        self.server.answers = list(answers)
        self.server.generations.clear()
        self.upstream.forget()

    @property
    def sent(self) -> dict[str, Any]:
        """The request inside the last envelope."""
        request: dict[str, Any] = self.server.generations[-1].json["request"]
        return request


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    server, directory = CodeAssist(), tmp_path_factory.mktemp("login")
    write_login(directory)
    with upstream_in_thread(server.reply) as upstream:
        own = {"base_url": upstream.url, "token_path": str(directory), "refresh": "read-only"}
        with started(config={"backends": {ID: own}}) as proxy:
            yield Stage(proxy, upstream, server, directory)
        sdk.close_clients()


@pytest.fixture
def stage(shared: Stage) -> Stage:
    shared.server.accepted = None
    shared.say(TALK)
    return shared


@every_client
@both
def test_words_and_reasoning_reach_every_client(stage: Stage, client: Protocol, streamed: bool) -> None:
    meant = stage.meaning(client, MODEL, streamed, **THINKING[client])
    assert (meant.text, meant.stop, meant.error) == ("Hello", "stop", None)
    if client != "openai-chat":  # its SDK has no place for reasoning
        assert meant.thinking == "Let me think."
    assert stage.server.generations[-1].target.endswith(":streamGenerateContent?alt=sse")


@every_client
@both
def test_a_function_call_is_in_every_answer(stage: Stage, client: Protocol, streamed: bool) -> None:
    stage.say(CALL)
    meant = stage.meaning(client, MODEL, streamed, **tools_of(client, "look"))
    assert (meant.tool_calls, meant.error) == ((ToolCall("look", {"a": 1}),), None)
    declared = stage.sent["tools"][0]["functionDeclarations"]
    assert [one["name"] for one in declared] == ["look"]


@every_client
@both
def test_the_thought_signature_comes_back_with_the_tool_result(stage: Stage, client: Protocol, streamed: bool) -> None:
    stage.say(CALL, TALK)
    tools = tools_of(client, "look")
    headers = {"x-session-id": f"turns-{client}-{streamed}"}
    first = stage.ask(client, MODEL, streamed, headers=headers, **tools)
    history = kept(client, first, streamed)
    (called,) = calls_in(client, history)
    result = written(client, Said("user", (Piece("tool_result", "found", called.id, called.name),)))
    body = body_of(client, MODEL, streamed, **tools)
    opening = body[LIST_OF[client]]
    if isinstance(opening, str):
        opening = [{"role": "user", "content": opening}]
    body[LIST_OF[client]] = [*opening, *history, *result]
    assert stage.post(path_of(client, MODEL, streamed), body, headers).status == 200
    parts = [part for content in stage.sent["contents"] for part in content["parts"]]
    (call,) = (part for part in parts if "functionCall" in part)
    assert call["thoughtSignature"] == SIGNATURE
    assert any("functionResponse" in part for part in parts)
    sessions = {one.json["request"]["session_id"] for one in stage.server.generations}
    assert len(sessions) == 1


@both
def test_a_gemini_client_sees_no_envelope(stage: Stage, streamed: bool) -> None:
    answer = stage.ask("gemini", MODEL, streamed)
    assert answer.status == 200
    chunks = data_of(answer) if streamed else [answer.json]
    assert all("candidates" in one and "response" not in one and "traceId" not in one for one in chunks)


def test_a_json_array_is_one_too(stage: Stage) -> None:
    answer = stage.post(path_of("gemini", MODEL, True).removesuffix("?alt=sse"), body_of("gemini", MODEL))
    assert [sorted(one)[0] for one in answer.json] == ["candidates"] * 3


@every_client
def test_a_used_up_quota_is_the_clients_429(stage: Stage, client: Protocol) -> None:
    """The quota's reset text decides how long the login rests; this model rests, so it is one of its own."""
    model = f"{ID}:gemini-2.5-flash-{PROTOCOLS.index(client)}"
    stage.say(Reply.json(QUOTA, 429))
    answer = stage.ask(client, model)
    assert answer.status == 429
    assert 7900 < int(answer.headers["retry-after"]) <= 7986
    assert "2h13m5s" in error_of(client, answer)["message"]
    again = stage.ask(client, model)
    assert (again.status, len(stage.server.generations)) == (429, 1)


def test_counting_is_the_proxys_own(stage: Stage) -> None:
    before = len(stage.upstream.requests)
    answer = stage.post(f"/v1beta/models/{MODEL}:countTokens", body_of("gemini", MODEL))
    assert answer.json["totalTokens"] > 0
    assert len(stage.upstream.requests) == before


def test_a_refused_login_is_a_502_and_the_cli_renewing_it_mends_it(stage: Stage) -> None:
    stage.server.accepted = {"token-of-the-cli"}
    answer = stage.ask("openai-chat", MODEL)
    assert (answer.status, answer.json["detail"]["code"]) == (502, f"{ID}_credentials_invalid")
    assert "`gemini`" in answer.json["error"]["message"]
    assert b"token-1" not in answer.body
    write_login(stage.directory, "token-of-the-cli")
    assert stage.ask("openai-chat", MODEL).status == 200
    assert stat.S_IMODE((stage.directory / "oauth_creds.json").stat().st_mode) == 0o600


def test_without_a_file_the_proxy_starts_and_says_what_to_run(tmp_path: Path) -> None:
    own = {"base_url": "http://127.0.0.1:1", "token_path": str(tmp_path)}
    with started(
        config={"backends": {ID: own, "gemini-cli-cloud-project": {"base_url": "http://127.0.0.1:1"}}}
    ) as proxy:
        listed = {one["id"]: one for one in proxy.get("/internal/backends").json["data"]}
        assert "`gemini`" in json.dumps(listed[ID])
        for model, words in ((MODEL, "`gemini`"), ("gemini-cli-cloud-project:gemini-2.5-pro", "GOOGLE_CLOUD_PROJECT")):
            answer = proxy.post("/v1/chat/completions", body_of("openai-chat", model))
            assert answer.status == 503
            assert words in answer.json["error"]["message"]


def test_a_back_end_that_refuses_the_account_is_told(tmp_path: Path) -> None:
    server = CodeAssist(loaded=refusal(400, "FAILED_PRECONDITION", "Not in your country."))
    write_login(tmp_path)
    with upstream_in_thread(server.reply) as upstream:
        own = {"base_url": upstream.url, "token_path": str(tmp_path)}
        with started(config={"backends": {ID: own}}) as proxy:
            answer = proxy.post("/v1/chat/completions", body_of("openai-chat", MODEL))
            assert answer.status == 400
            assert "Not in your country" in answer.json["error"]["message"]
