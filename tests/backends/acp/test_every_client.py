"""BE-18 through the whole proxy: the agent serves every client protocol, and no process outlives its client."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends.acp.house import House, permission, say, think
from tests.e2e.asking import PROTOCOLS, body_of, path_of, tools_of
from tests.e2e.asking import started as proxy_started
from tests.server.process import Proxy
from tests.support.shared import Protocol

MODEL = "gemini-cli-acp:gemini-2.5-flash"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, House]]:
    if sys.platform != "linux":
        pytest.skip("looks at /proc to see which processes are left")
    house = House(tmp_path_factory.mktemp("acp"))
    options = {"gemini_cli_executable": str(house.executable), "project_dir": str(house.project), "auto_accept": False}
    with proxy_started(
        config={"backends": {"gemini-cli-acp": options}}, environment={"HOME": str(house.home)}
    ) as proxy:
        yield proxy, house
    assert house.left() == {}


# Clients of these two get reasoning or usage when they ask for it.
_THINKING: dict[str, Any] = {"thinking": {"type": "enabled", "budget_tokens": 2000}}
_ASKED: dict[tuple[str, bool], dict[str, Any]] = {
    ("anthropic-messages", False): _THINKING,
    ("anthropic-messages", True): _THINKING,
    ("openai-chat", True): {"stream_options": {"include_usage": True}},
}


def wait(condition: Callable[[], object], within: float = 15.0) -> None:
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("client", PROTOCOLS)
@pytest.mark.parametrize("stream", [False, True])
def test_text_and_reasoning_reach_every_client(scene: tuple[Proxy, House], client: Protocol, stream: bool) -> None:
    proxy, house = scene
    usage = {"inputTokens": 11, "outputTokens": 5, "totalTokens": 16}
    turn = [
        think("Hm."),
        say("Hello "),
        permission(kind="execute", title="make"),
        say("world"),
        {"result": {"stopReason": "end_turn", "usage": usage}},
    ]
    house.script(turn)
    said = f"Greet {client} {stream}"
    body = body_of(client, MODEL, stream, said, **tools_of(client, "find"), **_ASKED.get((client, stream), {}))
    answer = proxy.post(path_of(client, MODEL, stream), body)
    assert answer.status == 200, answer.body
    got = answer.body.decode()
    for piece in ("Hm.", "Hello ", "[execute: make", "not allowed]", "world", "11"):
        assert piece in got
    assert house.told()[-1] == said
    assert [answer["result"] for answer in house.answers][-1] == {"outcome": {"outcome": "cancelled"}}


@pytest.mark.parametrize("client", PROTOCOLS)
def test_an_error_before_the_first_word_has_the_clients_shape(scene: tuple[Proxy, House], client: Protocol) -> None:
    proxy, house = scene
    house.script([{"error": {"code": 401, "message": "no"}}])
    answer = proxy.post(path_of(client, MODEL), body_of(client, MODEL, said=f"fail {client}"))
    assert answer.status == 502
    assert answer.json["detail"]["code"] == "gemini-cli-acp_credentials_invalid"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_leaves_no_process(scene: tuple[Proxy, House], stream: bool) -> None:
    proxy, house = scene
    house.script([say("Beginning"), {"wait": "session/cancel"}, {"result": {"stopReason": "cancelled"}}])
    body = json.dumps(body_of("openai-chat", MODEL, stream, f"leave {stream}")).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {proxy.key}\r\ncontent-type: application/json\r\n"
    before = len(house.got("session/cancel"))
    with socket.create_connection(proxy.main) as client:
        client.sendall(head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body)
        wait(lambda: house.told()[-1:] == [f"leave {stream}"])
        if stream:
            assert client.recv(4096)
    wait(lambda: len(house.got("session/cancel")) == before + 1)
    wait(lambda: not house.alive(-1))


def test_nothing_that_a_client_sends_names_the_executable(scene: tuple[Proxy, House], tmp_path: Path) -> None:
    proxy, house = scene
    house.script([say("ok")])
    evil = tmp_path / "evil"
    evil.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    evil.chmod(0o700)
    more: dict[str, Any] = {
        "gemini_cli_executable": str(evil),
        "executable": str(evil),
        "command": str(evil),
        "mcpServers": [{"command": str(evil)}],
    }
    said = f"!/set(gemini_cli_executable={evil}) !/set(executable={evil}) {evil}"
    answer = proxy.post("/v1/chat/completions", body_of("openai-chat", MODEL, said=said, **more))
    assert answer.status < 500
    assert not (tmp_path / "ran").exists()


def ask(proxy: Proxy, said: str, session: str, history: tuple[dict[str, str], ...] = ()) -> str:
    messages = [*history, {"role": "user", "content": said}]
    answer = proxy.post("/v1/chat/completions", {"model": MODEL, "messages": messages}, {"x-session-id": session})
    assert answer.status == 200, answer.body
    return str(answer.json["choices"][0]["message"]["content"])


@pytest.mark.parametrize("session", ["first", "second"])
def test_project_dir_typed_in_the_chat_is_where_the_next_prompt_runs(
    scene: tuple[Proxy, House], tmp_path: Path, session: str
) -> None:
    proxy, house = scene
    house.script([say("ok")], [say("ok")])
    begin = {"role": "user", "content": f"begin {session}"}
    assert ask(proxy, str(begin["content"]), session) == "ok"
    before = house.starts[-1]
    assert before["cwd"] == str(house.project)
    chosen = tmp_path / "elsewhere"
    chosen.mkdir()
    ask(proxy, f"!/project-dir({chosen})", session, (begin, {"role": "assistant", "content": "ok"}))
    ask(proxy, "again", session, (begin, {"role": "assistant", "content": "ok"}))
    assert house.starts[-1]["environ"]["LLM_PROXY_AGENT"] != before["environ"]["LLM_PROXY_AGENT"]
    assert house.starts[-1]["cwd"] == str(chosen)


def test_a_session_keeps_its_agent_and_its_end_ends_it(scene: tuple[Proxy, House]) -> None:
    proxy, house = scene
    house.script([say("ok")], [say("ok")])
    begin = {"role": "user", "content": "begin kept"}
    ask(proxy, "begin kept", "kept")
    started = len(house.starts)
    ask(proxy, "go on", "kept", (begin, {"role": "assistant", "content": "ok"}))
    assert len(house.starts) == started
    assert house.told()[-1] == "go on"  # what came before, it knows
    ask(proxy, "begin other", "other")
    assert len(house.starts) == started + 1
    assert proxy.request("DELETE", "/internal/sessions/kept").status == 200
    wait(lambda: not house.alive(started - 1))


def test_safe_asks_the_rules_for_dangerous_commands(tmp_path: Path) -> None:
    house = House(tmp_path)
    options = {"gemini_cli_executable": str(house.executable), "project_dir": str(house.project), "auto_accept": "safe"}
    with proxy_started(
        config={"backends": {"gemini-cli-acp": options}}, environment={"HOME": str(house.home)}
    ) as proxy:
        house.script(
            [
                permission(kind="execute", title="ls -la"),
                permission(kind="execute", title="git reset --hard"),
                say("ok"),
            ]
        )
        ask(proxy, "work", "safe")
    outcomes = [answer["result"]["outcome"] for answer in house.answers]
    assert [one.get("optionId") for one in outcomes] == ["once", "no"]
