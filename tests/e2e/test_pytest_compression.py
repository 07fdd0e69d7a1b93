"""REQ-06 as providers see it: what pytest said of passing tests is taken out of tool results, the same way in every turn."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.commands.corpus.cases import Piece, Said
from tests.e2e.asking import PAIRS, PROTOCOLS, Called, Scene, call, path_of, protocol_of, say, started, target
from tests.e2e.commanding import NAMES, SURFACES, config, fresh_id
from tests.e2e.keeping import until
from tests.e2e.talking import LIST_OF, elements, request_of, seen
from tests.server.process import Answer
from tests.support.shared import Protocol
from tests.support.upstream import Received, Reply, upstream_in_thread

every_surface = pytest.mark.parametrize(("client", "stream"), SURFACES, ids=NAMES)
every_protocol = pytest.mark.parametrize("client", PROTOCOLS)
every_pair = pytest.mark.parametrize(("client", "back"), PAIRS)

FAILURES = """\
FAILED tests/test_a.py::test_x - assert 1 == 2
FAILED tests/test_a.py::test_y - ValueError: "no"\n"""
SUMMARY = "======= 2 failed, 100 passed in 0.31s ======="
TRACE = """\
=================================== FAILURES ===================================
____________________________________ test_x ____________________________________

    def test_x() -> None:
>       assert 1 == 2, "PASSED"
E       AssertionError: PASSED

tests/test_a.py:7: AssertionError
=========================== short test summary info ============================\n"""
OUTPUT = "".join(f"tests/test_a.py::test_{n} PASSED [{n:3}%]\n" for n in range(100)) + TRACE + FAILURES + SUMMARY
SHORT = "[100 passing lines removed]\n" + TRACE + FAILURES + SUMMARY


def user(text: str) -> Said:
    return Said("user", (Piece("text", text),))


def assistant(text: str) -> Said:
    return Said("assistant", (Piece("text", text),))


def ran(command: str, output: str, id: str = "call_1", tool: str = "bash") -> tuple[Said, Said]:
    """A call of a shell tool and what it gave back."""
    asked = Piece("tool_call", json.dumps({"command": command}), id, tool)
    return Said("assistant", (asked,)), Said("user", (Piece("tool_result", output, id, tool),))


TESTED = (user("test it"), *ran("pytest -v", OUTPUT))


class Client:
    """One session of one client."""

    def __init__(self, scene: Scene, protocol: Protocol, stream: bool = False, back: Protocol | None = None) -> None:
        self.scene, self.protocol, self.stream = scene, protocol, stream
        self.model = target(back or protocol)
        self.headers = {"x-session-id": fresh_id()}

    def body(self, *said: Said) -> dict[str, Any]:
        return request_of(self.protocol, self.model, said, self.stream)

    def post(self, body: Any) -> Answer:
        answer = self.scene.post(path_of(self.protocol, self.model, self.stream), body, self.headers)
        assert answer.status == 200, answer.body
        return answer

    def say(self, *said: Said) -> Received:
        """What the provider got of this conversation."""
        self.post(self.body(*said))
        return self.scene.last

    def results(self, *said: Said) -> list[str]:
        """What the provider read as results of tools."""
        return results_in(self.say(*said))


def results_in(request: Received) -> list[str]:
    return [text for kind, text in seen(protocol_of(request), request) if kind == "result"]


def scene_of(*flags: str, **more: Any) -> Iterator[Scene]:
    with upstream_in_thread(say) as upstream, started(*flags, config=config(upstream.url, **more)) as proxy:
        yield Scene(proxy, upstream)


@pytest.fixture(scope="module")
def off_scene() -> Iterator[Scene]:
    yield from scene_of("--disable-pytest-compression", session={"pytest_compression_min_lines": 5})


@pytest.fixture
def off(off_scene: Scene) -> Scene:
    """Compression is disabled; where a session wants it, 5 lines are enough."""
    off_scene.play(say)
    return off_scene


# What the provider gets


@every_surface
@pytest.mark.parametrize("back", PROTOCOLS)
def test_both_failed_lines_and_the_summary_remain(
    commanded: Scene, client: Protocol, stream: bool, back: Protocol
) -> None:
    assert Client(commanded, client, stream, back).results(*TESTED) == [SHORT]


@every_surface
@pytest.mark.parametrize(
    "command", ["cat log.txt", "grep -c PASSED log.txt", "echo pytest", "less pytest.log", "python -m unittest -v"]
)
def test_output_of_another_command_is_unchanged(commanded: Scene, client: Protocol, stream: bool, command: str) -> None:
    talk = Client(commanded, client, stream)
    assert talk.results(user("look"), *ran(command, OUTPUT)) == [OUTPUT]


@every_pair
def test_ten_lines_are_unchanged(commanded: Scene, client: Protocol, back: Protocol) -> None:
    ten = "".join(f"tests/test_a.py::test_{n} PASSED\n" for n in range(9)) + "=== 9 passed in 0.1s ==="
    assert Client(commanded, client, back=back).results(user("test it"), *ran("pytest -v", ten)) == [ten]


@every_protocol
@pytest.mark.parametrize(
    "text",
    [
        "Traceback (most recent call last):\n" + '  File "a.py", line 1, in PASSED\n' * 50 + "ImportError: PASSED",
        "bash: pytest: command not found\n" + "hint: PASSED\n" * 40,
        "usage: pytest [options]\npytest: error: unrecognized arguments: --PASSED\n" + "  PASSED\n" * 40,
    ],
    ids=["traceback", "command-not-found", "usage-error"],
)
def test_output_that_is_only_an_error_is_unchanged(commanded: Scene, client: Protocol, text: str) -> None:
    assert Client(commanded, client).results(user("test it"), *ran("pytest -v", text)) == [text]


@every_protocol
def test_all_but_the_output_keeps_its_bytes(commanded: Scene, client: Protocol) -> None:
    talk = Client(commanded, client)
    value = {"x_own": 1.0, **talk.body(*TESTED)}
    written = json.dumps(value, indent=1).replace("test it", "t\\u00e9st \\u002f it")
    talk.post(written.encode())
    expected = written.replace(json.dumps(OUTPUT), json.dumps(SHORT)).replace(f'"{talk.model}"', '"m"')
    assert commanded.last.body.decode() == expected


@every_pair
def test_words_of_the_user_and_of_the_model_stay(commanded: Scene, client: Protocol, back: Protocol) -> None:
    said = (user(OUTPUT), *ran("pytest -v", "done"), assistant(OUTPUT), user(f"and now?\n{OUTPUT}"))
    request = Client(commanded, client, back=back).say(*said)
    words = [text for kind, text in seen(back, request) if kind in ("user", "assistant")]
    assert words == [OUTPUT, OUTPUT, f"and now?\n{OUTPUT}"]


AGENTS: list[tuple[Protocol, str, dict[str, Any]]] = [
    ("openai-chat", "execute_command", {"command": "cd app && uv run pytest -v", "requires_approval": False}),
    ("openai-chat", "run_shell_command", {"command": "python -m pytest -v 2>&1 | tail -300", "is_background": False}),
    ("openai-responses", "shell", {"command": ["bash", "-lc", "pytest -v"], "workdir": "/w"}),
    ("openai-responses", "exec_command", {"cmd": "poetry run pytest -v", "yield_time_ms": 1000}),
    ("anthropic-messages", "Bash", {"command": "PYTHONPATH=src py.test -v", "description": "Run the tests"}),
    ("anthropic-messages", "mcp__box__bash", {"command": "coverage run -m pytest -v"}),
    ("gemini", "run_shell_command", {"command": "timeout 300 pytest -v; git status", "directory": "a"}),
]


@pytest.mark.parametrize(("client", "tool", "arguments"), AGENTS)
def test_the_shell_tools_of_agents(commanded: Scene, client: Protocol, tool: str, arguments: dict[str, Any]) -> None:
    asked = Said("assistant", (Piece("tool_call", json.dumps(arguments), "call_1", tool),))
    result = Said("user", (Piece("tool_result", OUTPUT, "call_1", tool),))
    assert Client(commanded, client).results(user("test it"), asked, result) == [SHORT]


def test_a_result_in_several_parts(commanded: Scene) -> None:
    talk = Client(commanded, "anthropic-messages")
    body = talk.body(*TESTED)
    parts = [{"type": "text", "text": text} for text in ("exit 1", OUTPUT)]
    body["messages"][-1]["content"][0]["content"] = parts
    talk.post(body)
    sent = commanded.last.json["messages"][-1]["content"][0]["content"]
    assert sent == [parts[0], {"type": "text", "text": SHORT}]


@pytest.mark.parametrize("back", PROTOCOLS)
def test_the_output_of_codex_is_json_text_and_stays_so(commanded: Scene, back: Protocol) -> None:
    def wrapped(text: str) -> str:
        return '{"output": ' + json.dumps(text) + ',  "metadata":{"exit_code":1,"duration_seconds":0.50}}'

    talk = Client(commanded, "openai-responses", back=back)
    asked = Said("assistant", (Piece("tool_call", '{"command":["pytest","-v"]}', "call_1", "shell"),))
    result = Said("user", (Piece("tool_result", wrapped(OUTPUT), "call_1", "shell"),))
    body = talk.body(user("test it"), asked, result)
    talk.post(body)
    if back == "gemini":  # which takes objects
        expected = json.loads(wrapped(SHORT))
        assert commanded.last.json["contents"][-1]["parts"][0]["functionResponse"]["response"] == expected
    else:
        assert json.dumps(wrapped(SHORT)).encode() in commanded.last.body


def test_the_shell_tools_that_responses_defines_itself(commanded: Scene) -> None:
    talk = Client(commanded, "openai-responses")
    calls = [
        {"type": "local_shell_call", "id": "l", "call_id": "c1", "status": "completed", "action": {"type": "exec", "command": ["pytest"], "env": {}}},
        {"type": "shell_call", "id": "s", "call_id": "c2", "status": "completed", "action": {"commands": ["pytest -v"]}},
    ]  # fmt: skip
    outputs = [
        {"type": "local_shell_call_output", "call_id": "c1", "output": OUTPUT},
        {"type": "shell_call_output", "call_id": "c2", "output": [{"stdout": OUTPUT, "stderr": ""}]},
    ]
    said = {"model": talk.model, "input": [{"role": "user", "content": "test it"}, *calls, *outputs]}
    talk.post(said)
    assert commanded.last.json["input"] == json.loads(
        json.dumps(said["input"]).replace(json.dumps(OUTPUT), json.dumps(SHORT))
    )


# The same in every turn


def turns(ids: Sequence[str]) -> list[Said]:
    """A conversation in which pytest runs again and again, between other commands; `ids` are those of the calls."""
    said = [user("test it")]
    commands = ["pytest -v", "cat log.txt", "cd a && pytest -v -x", "pytest -v tests/b", "ls"]
    for id, command in zip(ids, commands, strict=True):
        said += [*ran(command, OUTPUT, id), assistant(f"ran {command}"), user("go on")]
    return said


@every_pair
def test_each_turn_is_the_beginning_of_the_next_byte_for_byte(
    commanded: Scene, client: Protocol, back: Protocol
) -> None:
    talk = Client(commanded, client, back=back)
    said = turns([f"call_{n}" for n in range(5)])
    before: list[bytes] = []
    for end in (3, 7, 9, 11, len(said)):
        last = talk.say(*said[:end])
        now = elements(back, last)
        if before:  # of targets that join turns of one role the last one may have grown
            assert now[: len(before) - 1] == before[:-1]
            assert now[len(before) - 1].startswith(before[-1][:-2])
        before = now
    assert talk.say(*said).body == last.body
    assert results_in(commanded.last) == [SHORT, OUTPUT, SHORT, SHORT, OUTPUT]


@every_pair
def test_ids_that_come_again_do_not_change_earlier_turns(commanded: Scene, client: Protocol, back: Protocol) -> None:
    """Some servers count the calls of each answer from 0."""
    talk = Client(commanded, client, back=back)
    said = turns(["call_0"] * 5)
    expected = [SHORT, OUTPUT, SHORT, SHORT, OUTPUT]
    for n in (0, 1, 4):
        assert talk.results(*said[: 4 * n + 3]) == expected[: n + 1]


@every_protocol
def test_another_session_and_another_order_of_requests_give_the_same_bytes(commanded: Scene, client: Protocol) -> None:
    said = turns([f"call_{n}" for n in range(5)])
    whole = Client(commanded, client).say(*said).body
    ends = [end for end in range(1, len(said)) if said[end - 1].role == "user"]
    random.Random(1).shuffle(ends)
    talk = Client(commanded, client)
    for end in ends:
        talk.say(*said[:end])
    assert talk.say(*said).body == whole


def test_a_call_that_only_the_session_remembers(commanded: Scene) -> None:
    """A conversation that the provider keeps: the request holds nothing but the result."""
    talk = Client(commanded, "openai-responses")
    for command, expected in (("pytest -v", SHORT), ("cat log.txt", OUTPUT)):
        commanded.play(call(Called(f"call_{command[:3]}", "bash", {"command": command})))
        talk.post(talk.body(user("test it")))
        commanded.play(say)
        result = {"type": "function_call_output", "call_id": f"call_{command[:3]}", "output": OUTPUT}
        talk.post({"model": talk.model, "input": [result], "previous_response_id": "resp_1"})
        assert commanded.last.json["input"][-1]["output"] == expected
        other = Client(commanded, "openai-responses")
        other.post({"model": talk.model, "input": [result], "previous_response_id": "resp_1"})
        assert commanded.last.json["input"][-1]["output"] == OUTPUT


# The log


def lines_about(scene: Scene, answer: Answer | None = None) -> list[str]:
    """Those of one exchange, or all."""
    id = answer.headers["x-request-id"] if answer else ""
    return [line for line in scene.proxy.log.splitlines() if f"{id}: pytest output compressed" in line]


@every_protocol
def test_one_info_line_tells_lines_bytes_and_ratio(commanded: Scene, client: Protocol) -> None:
    talk = Client(commanded, client)
    other = talk.post(talk.body(user("test it"), *ran("ls", OUTPUT)))
    answer = talk.post(talk.body(*TESTED))
    until(lambda: bool(lines_about(commanded, answer)), "the line in the log")
    [line] = lines_about(commanded, answer)
    lines, before, after = OUTPUT.count("\n") + 1, len(OUTPUT), len(SHORT)
    share = 100 * (before - after) // before
    assert "INFO" in line and "test_a.py" not in line
    assert f": 99 of {lines} lines, {before - after} of {before} bytes ({share} %) saved [" in line
    assert not lines_about(commanded, other)


def test_every_attempt_of_a_route_gets_the_short_form_and_the_log_one_line() -> None:
    def first_is_down(request: Received) -> Reply:
        return Reply.json({"error": {"message": "down"}}, 503) if request.json["model"] == "a" else say(request)

    route = {"policy": "m", "elements": [target("openai-chat", "a"), target("openai-chat", "b")]}
    for scene in scene_of(failover_routes={"tests": route}):
        scene.play(first_is_down)
        for client in PROTOCOLS:
            scene.upstream.forget()
            talk = Client(scene, client)
            talk.model = "tests"
            talk.say(*TESTED)
            assert [request.json["model"] for request in scene.upstream.requests] == ["a", "b"]
            assert [results_in(request) for request in scene.upstream.requests] == [[SHORT], [SHORT]]
        assert scene.proxy.stop() == 0
        assert len(lines_about(scene)) == len(PROTOCOLS)


# Off and on


@every_surface
def test_switched_off_in_the_session_it_is_unchanged(commanded: Scene, client: Protocol, stream: bool) -> None:
    talk, other = Client(commanded, client, stream), Client(commanded, client, stream)
    talk.post(talk.body(user("!/set(pytest-compression=false)")))
    written = talk.body(*TESTED)
    assert talk.results(*TESTED) == [OUTPUT]
    assert commanded.last.json[LIST_OF[client]] == written[LIST_OF[client]]
    assert other.results(*TESTED) == [SHORT]
    talk.post(talk.body(user("!/unset(pytest-compression)")))
    assert talk.results(*TESTED) == [SHORT]


@every_surface
def test_disabled_it_is_unchanged(off: Scene, client: Protocol, stream: bool) -> None:
    assert Client(off, client, stream).results(*TESTED) == [OUTPUT]


@every_protocol
def test_a_session_may_want_it_where_it_is_disabled_and_the_least_lines_can_be_set(
    off: Scene, client: Protocol
) -> None:
    talk = Client(off, client)
    talk.post(talk.body(user("!/set(pytest_compression=ON)")))
    assert talk.results(*TESTED) == [SHORT]
    five = "".join(f"tests/test_a.py::test_{n} PASSED\n" for n in range(4)) + "=== 4 passed in 0.1s ==="
    shorter = "[4 passing lines removed]\n=== 4 passed in 0.1s ==="
    assert talk.results(user("test it"), *ran("pytest -v", five)) == [shorter]
    four = five.partition("\n")[2]
    assert talk.results(user("test it"), *ran("pytest -v", four)) == [four]


# What an attacker may send


@every_protocol
def test_a_huge_output_is_compressed_at_once(commanded: Scene, client: Protocol) -> None:
    huge = "".join(f"tests/test_a.py::test_{n} PASSED\n" for n in range(60_000)) + FAILURES + SUMMARY
    expected = "[60000 passing lines removed]\n" + FAILURES + SUMMARY
    assert Client(commanded, client).results(user("test it"), *ran("pytest -v", huge)) == [expected]


@every_protocol
@pytest.mark.parametrize(
    "text",
    [
        "PASSED " * 50_000,
        "PASSED\n" * 40 + "\ud83d" + " tests PASSED",
        "\n" * 30_000 + "PASSED",
        "0.01s call " * 30_000,
    ],
    ids=["one-line", "half-a-character", "blank-lines", "steps"],
)
def test_odd_texts_reach_the_provider(commanded: Scene, client: Protocol, text: str) -> None:
    results = Client(commanded, client).results(user("test it"), *ran("pytest -v", text))
    assert len(results) == 1 and len(results[0]) <= len(text) and results[0]
