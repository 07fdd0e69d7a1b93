"""BE-15 to BE-17, BE-19: turns of every client protocol over every login back end, and what becomes of a client that leaves."""

from __future__ import annotations

import http.client
import json
import time
from contextlib import closing
from typing import Any

import pytest

from tests.backends.logins.test_gemini_clients import THINKING
from tests.e2e.asking import PROTOCOLS, body_of, data_of, path_of, tools_of
from tests.e2e.calling import Agent, Turn, called
from tests.e2e.talking import kept
from tests.e2e.test_login_vendors import (
    CHATGPT,
    CLAUDE,
    CLOUD,
    PERSONAL,
    Account,
    Stage,
    account,
    beginning,
    stage,
)
from tests.support.semantic import ToolCall
from tests.support.shared import Protocol
from tests.support.upstream import Hang, Moment, Pause, Reply

__all__ = ["account", "stage"]  # fixtures

every_client = pytest.mark.parametrize("client", PROTOCOLS)
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
LONGEST_UNTIL_TOLD = 0.25
"""Seconds from a client's leaving until the vendor's connection is closed."""


def reasoning_in_chat(stage: Stage, account: Account, stream: bool) -> str:
    answer = stage.ask("openai-chat", account.target, stream, **THINKING["openai-chat"])
    if not stream:
        return str(answer.json["choices"][0]["message"]["reasoning_content"])
    deltas = [chunk["choices"][0]["delta"] for chunk in data_of(answer) if chunk != "[DONE]" and chunk["choices"]]
    return "".join(delta.get("reasoning_content") or "" for delta in deltas)


@every_client
@both
def test_words_reasoning_and_usage_reach_every_client(
    stage: Stage, account: Account, client: Protocol, stream: bool
) -> None:
    account.says(Turn(thinking="Let me think.", text="All of it."))
    meant = stage.meaning(client, account.target, stream, **THINKING[client])
    assert (meant.text, meant.stop, meant.error) == ("All of it.", "stop", None)
    if not (client == "openai-chat" and stream):  # which gives it to those only that ask
        assert (meant.usage.input, meant.usage.output) == (7, 3)
    # The SDK of chat has no place for reasoning.
    thinking = reasoning_in_chat(stage, account, stream) if client == "openai-chat" else meant.thinking
    assert thinking == "Let me think."


@every_client
@both
def test_a_tool_call_is_in_every_answer_and_its_result_reaches_the_vendor(
    stage: Stage, account: Account, client: Protocol, stream: bool
) -> None:
    agent = Agent(stage, client, stream, tools=("find",), system="Be brief.")
    agent.model = account.target
    account.says(Turn(text="I look.", calls=[called("find", what="it")]))
    made = agent.goes_on(agent.post(), "found it")
    assert [(one.name, one.arguments) for one in made] == [("find", {"what": "it"})]
    account.says(Turn(text="Here it is."))
    assert json.dumps(kept(client, agent.post(), stream)).count("Here it is.") == 1
    sent = account.calls[-1].body.decode()
    assert all(sent.count(words) == 1 for words in ("found it", "Be brief.", "I look."))


@pytest.mark.parametrize("id", [CHATGPT, PERSONAL, CLOUD])
@every_client
def test_a_vendor_that_only_streams_gives_whole_answers_with_calls(stage: Stage, id: str, client: Protocol) -> None:
    account = stage.of(id)
    account.fresh()
    account.says(Turn(text="I look.", calls=[called("find", what="it"), called("look", at="that")]))
    meant = stage.meaning(client, account.target, False, **tools_of(client, "find", "look"))
    assert (meant.text, meant.stop, meant.error) == ("I look.", "tool_use", None)
    assert meant.tool_calls == (ToolCall("find", {"what": "it"}), ToolCall("look", {"at": "that"}))
    [call] = account.calls
    assert call.json["stream"] is True if id == CHATGPT else call.target.endswith(":streamGenerateContent?alt=sse")


@pytest.mark.parametrize("own", ["context-1m-2025-08-07", "interleaved-thinking-2025-05-14,oauth-2025-04-20"])
def test_a_clients_own_betas_are_sent_beside_the_logins(stage: Stage, own: str) -> None:
    account = stage.of(CLAUDE)
    account.fresh()
    assert stage.ask("anthropic-messages", account.target, headers={"anthropic-beta": own}).status == 200
    sent = [one.strip() for value in values(account, "anthropic-beta") for one in value.split(",")]
    assert sorted(sent) == sorted({*own.split(","), "oauth-2025-04-20"})


def values(account: Account, name: str) -> list[str]:
    return [value for header, value in account.calls[-1].headers if header.lower() == name]


def test_the_clients_key_reaches_no_vendor(stage: Stage, account: Account) -> None:
    headers = {"x-api-key": "key-of-the-tests-0001", "x-goog-api-key": "key-of-the-tests-0001", "cookie": "a=b"}
    assert stage.ask("anthropic-messages", account.target, headers=headers).status == 200
    [call] = account.calls
    assert "key-of-the-tests-0001" not in repr(call.headers) and call.header("cookie") is None
    [sent] = values(account, "authorization")
    assert sent.removeprefix("Bearer ") in account.good


@pytest.mark.parametrize("client", ["openai-chat", "gemini"])
def test_a_client_that_leaves_a_stream_leaves_the_vendor(stage: Stage, account: Account, client: Protocol) -> None:
    frames = beginning(account.kind, Turn(text="All of it."))
    account.answer = lambda request: Reply.sse(*frames[:-3], Hang())
    stream = stage.proxy.stream(path_of(client, account.target, True), body_of(client, account.target, True))
    try:
        assert stream.status == 200 and stream.line().startswith(b"data:")
        [call] = account.calls
        assert not call.closed.happened
    finally:
        left = time.monotonic()
        stream.close()
    assert call.closed.wait(5) - left < LONGEST_UNTIL_TOLD


def test_a_client_that_leaves_before_a_whole_answer_leaves_the_vendor(stage: Stage, account: Account) -> None:
    begun = Moment()
    frames = beginning(account.kind, Turn(text="All of it."))

    def answer(request: Any) -> Reply:
        begun.happen()
        return (
            Reply.sse(*frames[:-3], Hang()) if account.kind in (CHATGPT, PERSONAL, CLOUD) else Reply(before=(Hang(),))
        )

    account.answer = answer
    with closing(http.client.HTTPConnection(*stage.proxy.main, timeout=10)) as connection:
        headers = {"Authorization": f"Bearer {stage.proxy.key}", "Content-Type": "application/json"}
        body = json.dumps(body_of("openai-chat", account.target))
        connection.request("POST", path_of("openai-chat", account.target), body, headers)
        begun.wait()
        left = time.monotonic()
    [call] = account.calls
    assert call.closed.wait(5) - left < LONGEST_UNTIL_TOLD


@pytest.mark.parametrize("client", ["openai-responses", "anthropic-messages"])
def test_a_stream_that_the_vendor_breaks_off_is_an_error_of_the_client(
    stage: Stage, account: Account, client: Protocol
) -> None:
    frames = beginning(account.kind, Turn(text="All of it."))
    account.answer = lambda request: Reply(
        headers=(("content-type", "text/event-stream"),),
        steps=Reply.sse(*frames[:-4], Pause(0.01)).steps,
        last_chunk=False,
    )
    whole = stage.meaning(client, account.target, account.kind in (CLAUDE, "qwen-oauth"))
    assert whole.error is not None
