"""BE-18: the Gemini CLI as an agent."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.conversation.fault import FaultError
from tests.backends.acp.house import House, ask, call, frames, say, think, until, whole


async def test_two_chunks_are_streamed_and_end_with_stop(house: House) -> None:
    house.script([say("Hello, "), say("world.")])
    response = await house.backend().open(call("Hi", stream=True, more={"stream_options": {"include_usage": True}}))
    pieces = [chunk async for chunk in response.chunks()]
    response.close()
    found = frames(b"".join(pieces))
    assert [frame["choices"][0]["delta"].get("content") for frame in found[:-1]] == ["", "Hello, ", "world.", None]
    assert found[-2]["choices"][0]["finish_reason"] == "stop"
    assert found[-1] == "[DONE]"
    assert len(pieces) > 1


async def test_it_is_started_and_greeted_as_the_protocol_wants(house: House) -> None:
    house.script([say("ok")])
    await ask(house.backend(), "Hi")
    (start,) = house.starts
    assert start["argv"] == ["--experimental-acp", "--model", "gemini-2.5-flash"]
    assert start["cwd"] == str(house.project.resolve())
    assert start["group"] not in (start["pid"], os.getpgrp())
    (greeting,) = house.got("initialize")
    assert greeting["protocolVersion"] == 1
    assert greeting["clientCapabilities"] == {"fs": {"readTextFile": True, "writeTextFile": True}, "terminal": False}
    assert house.got("session/new") == [{"cwd": str(house.project.resolve()), "mcpServers": []}]
    assert house.got("session/prompt") == [{"sessionId": "s1", "prompt": [{"type": "text", "text": "Hi"}]}]


async def test_y_is_given_only_when_everything_is_accepted(house: House) -> None:
    house.script([say("ok")])
    await ask(house.backend(auto_accept="true"), "Hi")
    assert house.starts[0]["argv"] == ["--experimental-acp", "--model", "gemini-2.5-flash", "-y"]


async def test_thoughts_become_reasoning_and_cards_and_plans_one_line_notes(house: House) -> None:
    house.script(
        [
            think("Let me see."),
            {
                "update": {
                    "sessionUpdate": "plan",
                    "entries": [{"content": "Read\nit", "status": "in_progress"}, {"status": "pending"}],
                }
            },
            {
                "update": {
                    "sessionUpdate": "tool_call",
                    "toolCallId": "1",
                    "kind": "read",
                    "title": "a.txt\nfoo",
                    "status": "in_progress",
                }
            },
            {"update": {"sessionUpdate": "tool_call_update", "toolCallId": "1", "status": "completed"}},
            say("Done"),
            {
                "update": {
                    "sessionUpdate": "tool_call_update",
                    "toolCallId": "2",
                    "kind": "edit",
                    "title": "b.txt",
                    "status": "failed",
                }
            },
            {"update": {"sessionUpdate": "available_commands_update", "availableCommands": []}},
            {"update": {"sessionUpdate": "something_new"}},
        ]
    )
    choice = await ask(house.backend(), "Hi")
    assert choice["message"]["reasoning_content"] == "Let me see."
    assert (
        choice["message"]["content"]
        == "[plan: 0 of 2 done, now Read it]\n[read: a.txt foo]\nDone\n[edit: b.txt – failed]\n"
    )
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize(("name", "reasoning"), [("gemini-cli", "**One**\nA\n\nB"), ("another", "**One**\nA****\nB")])
async def test_the_whole_thoughts_of_the_gemini_cli_are_kept_apart(house: House, name: str, reasoning: str) -> None:
    house.script([think("**One**\nA"), think("****\nB")], about={"agentInfo": {"name": name}})
    choice = await ask(house.backend(), "Hi")
    assert choice["message"]["reasoning_content"] == reasoning


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("max_tokens", "length"),
        ("max_turn_requests", "length"),
        ("refusal", "content_filter"),
        ("new", "stop"),
    ],
)
async def test_the_end_of_a_turn_is_a_finish_reason(house: House, reason: str, finish: str) -> None:
    house.script([say("x"), {"result": {"stopReason": reason}}])
    assert (await ask(house.backend(), "Hi"))["finish_reason"] == finish


@pytest.mark.parametrize(
    ("result", "usage"),
    [
        (
            {
                "usage": {
                    "inputTokens": 10,
                    "outputTokens": 3,
                    "thoughtTokens": 2,
                    "cachedReadTokens": 4,
                    "totalTokens": 15,
                }
            },
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 15,
                "completion_tokens_details": {"reasoning_tokens": 2},
                "prompt_tokens_details": {"cached_tokens": 4},
            },
        ),
        (
            {"_meta": {"quota": {"token_count": {"input_tokens": 7, "output_tokens": 1}}}},
            {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8},
        ),
        ({}, None),
        ({"usage": {"inputTokens": "many"}}, None),
    ],
)
async def test_usage_is_what_the_agent_says(house: House, result: dict[str, Any], usage: object) -> None:
    house.script([say("x"), {"result": {"stopReason": "end_turn", **result}}])
    assert (await whole(await house.backend().open(call("Hi")))).get("usage") == usage


async def test_the_first_prompt_carries_the_conversation_and_later_ones_what_is_new(house: House) -> None:
    house.script([say("A1")], [say("A2")], [say("A3")])
    backend = house.backend()
    first = [("system", "Be brief."), ("user", "Q0"), ("assistant", "A0"), ("user", "Q1")]
    await ask(backend, *first)
    await ask(backend, *first, ("assistant", "A1"), ("user", "Q2"))
    await ask(
        backend,
        ("system", "Be long."),
        *first[1:],
        ("assistant", "A1"),
        ("user", "Q2"),
        ("assistant", "A2"),
        ("user", "Q3"),
    )
    assert house.told() == [
        "Instructions:\nBe brief.\n\nUser: Q0\n\nAssistant: A0\n\nUser: Q1",
        "Q2",
        "Instructions:\nBe long.\n\nUser: Q3",
    ]
    assert len(house.starts) == 1


async def test_an_edited_conversation_is_told_anew_to_a_new_process(house: House) -> None:
    house.script([say("A1")])
    backend = house.backend()
    await ask(backend, "Q1")
    await ask(backend, "Q1 edited")
    await ask(backend, "Q1 edited")
    assert house.told() == ["Q1", "Q1 edited", "Q1 edited"]
    assert len(house.starts) == 3
    assert [house.alive(number) for number in range(3)] == [False, False, True]


@pytest.mark.parametrize("text", ["/extensions install x", "$skill", "\n /memory", "\ufeff/memory", "!ls"])
async def test_no_text_of_a_client_becomes_a_command_of_the_cli(house: House, text: str) -> None:
    house.script([say("ok")])
    await ask(house.backend(), text)
    assert house.told() == [f"User: {text}"]


async def test_pictures_are_passed_to_an_agent_that_takes_them(house: House) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}
    house.script([say("ok")], about={"agentCapabilities": {"promptCapabilities": {"image": True}}})
    await ask(house.backend(), ("user", [{"type": "text", "text": "See"}, picture]))
    (prompt,) = house.got("session/prompt")
    assert prompt["prompt"] == [
        {"type": "text", "text": "See\n[image]"},
        {"type": "image", "mimeType": "image/png", "data": "QUJD"},
    ]


async def test_another_directory_is_another_process(house: House) -> None:
    other = house.place / "b"
    other.mkdir()
    house.script([say("ok")], [say("ok")])
    backend = house.backend()
    await ask(backend, "Q1")
    await ask(backend, "Q1", ("assistant", "ok"), "Q2", directory=str(other))
    assert [start["cwd"] for start in house.starts] == [str(house.project.resolve()), str(other.resolve())]
    assert house.told()[1] == "User: Q1\n\nAssistant: ok\n\nUser: Q2"


async def test_a_directory_that_is_not_there_is_refused(house: House) -> None:
    with pytest.raises(FaultError) as caught:
        await house.backend().open(call("Hi", directory=str(house.place / "nowhere")))
    assert caught.value.fault.kind == "bad_request"
    assert not house.starts


async def test_each_session_and_model_has_its_process_and_nobodys_session_is_kept(house: House) -> None:
    house.script([say("ok")])
    backend = house.backend()
    await ask(backend, "Hi", session="one")
    await ask(backend, "Hi", session="two")
    await ask(backend, "Hi", session="two", model="gemini-2.5-pro")
    assert len(backend.running) == 3
    await ask(backend, "Hi", session="")
    await until(lambda: len(backend.running) == 3)
    assert len(house.starts) == 4


async def test_prompts_of_a_session_are_answered_one_after_the_other(house: House) -> None:
    house.script([say("A1")], [say("A2")])
    backend = house.backend()
    first = await backend.open(call("Q1"))
    second = asyncio.create_task(ask(backend, "Q1", ("assistant", "A1"), "Q2"))
    await asyncio.sleep(0)
    assert len(house.got("session/prompt")) == 1
    assert (await whole(first))["choices"][0]["message"]["content"] == "A1"
    assert (await second)["message"]["content"] == "A2"
    assert len(house.starts) == 1


async def test_a_login_is_asked_for_when_the_agent_demands_one(house: House) -> None:
    methods = [{"id": "gemini-api-key"}, {"id": "oauth-personal"}]
    house.script([say("ok")], login_after=1, about={"authMethods": methods})
    assert (await ask(house.backend(), "Hi"))["message"]["content"] == "ok"
    assert house.got("authenticate") == [{"methodId": "oauth-personal"}]
    assert len(house.got("session/new")) == 2


async def test_a_login_that_does_not_help_names_the_command(house: House) -> None:
    house.script([say("ok")], login_after=2, about={"authMethods": [{"id": "oauth-personal"}]})
    with pytest.raises(FaultError) as caught:
        await house.backend().open(call("Hi"))
    fault = caught.value.fault
    assert (fault.status_code, fault.detail["code"]) == (502, "gemini-cli-acp_credentials_invalid")
    assert f"run `{house.executable}`" in fault.message


GEMINI_CLI: dict[str, Any] = {
    "agentInfo": {"name": "gemini-cli"},
    "authMethods": [{"id": "oauth-personal"}, {"id": "gemini-api-key"}],
}


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ('{"security": {"auth": {"selectedType": "gemini-api-key"}}}', 0),
        ('{"selectedAuthType": "gemini-api-key"}', 0),
        ('{"security": {} /* a comment */}', 0),
        ('{"security": {"auth": {}}}', 1),
        (None, 1),
    ],
)
async def test_the_login_that_the_clis_user_chose_is_not_replaced(
    house: House, settings: str | None, asked: int
) -> None:
    if settings is not None:
        (house.state / "settings.json").write_text(settings)
    house.script([say("ok")], login_after=2, about=GEMINI_CLI)
    with pytest.raises(FaultError, match="no valid login"):
        await house.backend().open(call("Hi"))
    assert len(house.got("authenticate")) == asked


PAGE = "https://accounts.google.com/o/oauth2/v2/auth?scope=a"


async def test_a_cli_that_waits_for_somebody_to_visit_a_page_is_not_waited_for(house: House) -> None:
    house.script(prints=f"Please visit:\n{PAGE}", mute=True, about=GEMINI_CLI)
    with pytest.raises(FaultError) as caught:
        await asyncio.wait_for(house.backend().open(call("Hi")), 10.0)
    fault = caught.value.fault
    assert (fault.status_code, fault.detail["code"]) == (502, "gemini-cli-acp_credentials_invalid")
    assert f"run `{house.executable}`" in fault.message
    assert PAGE not in fault.message


async def test_a_login_that_is_revoked_in_the_middle_of_a_turn_ends_it(house: House) -> None:
    house.script([say("Beginning"), {"raw": PAGE}, {"stall": 60}])
    response = await house.backend().open(call("Hi", stream=True))
    with pytest.raises(FaultError, match="no valid login"):
        await asyncio.wait_for(response.read(), 10.0)
    response.close()
    await until(lambda: not house.alive(0))


@pytest.mark.parametrize(("about", "member"), [(GEMINI_CLI, "result"), ({}, "error")])
async def test_the_gemini_cli_finds_a_missing_file_empty_so_that_it_creates_it(
    house: House, about: dict[str, Any], member: str
) -> None:
    missing = house.project.resolve() / "new.txt"
    house.script([{"ask": ["fs/read_text_file", {"path": str(missing)}]}], about=about)
    await ask(house.backend(), "Hi")
    (answer,) = house.answers
    assert (
        answer.get("result", answer.get("error", {}).get("code"))
        == {"result": {"content": ""}, "error": -32002}[member]
    )


async def test_a_cli_that_does_not_know_the_old_flag_gets_the_new_one(house: House) -> None:
    house.script([say("ok")], unknown_flags=["--experimental-acp"])
    backend = house.backend()
    await ask(backend, "Hi")
    await ask(backend, "Hi", session="two")
    assert [start["argv"][0] for start in house.starts] == ["--experimental-acp", "--acp", "--acp"]


async def test_a_missing_executable_is_503_and_names_it(house: House) -> None:
    backend = house.backend(executable="gemini-that-is-not-there")
    assert not backend.usable
    assert not backend.functional
    assert "gemini-that-is-not-there" in backend.reason
    with pytest.raises(FaultError) as caught:
        await backend.open(call("Hi"))
    assert caught.value.fault.status_code == 503
    assert "gemini-that-is-not-there" in caught.value.fault.message


async def test_an_executable_that_appears_is_found(house: House) -> None:
    now = 0.0
    backend = house.backend(executable=str(house.bin / "later"), clock=lambda: now)
    assert backend.reason
    house.executable.rename(house.bin / "later")
    now = 6.0
    assert backend.reason == ""


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        ({"code": 429, "message": "Rate limit exceeded. Try again later."}, "rate_limit", 429),
        ({"code": 500, "message": "You have exhausted your daily quota on this model."}, "rate_limit", 429),
        ({"code": 400, "message": '{"error":{"code":400,"message":"Bad contents."}}'}, "bad_request", 400),
        ({"code": 400, "message": "API key not valid. Please pass a valid API key."}, "upstream_auth", 502),
        ({"code": 401, "message": "no"}, "upstream_auth", 502),
        ({"code": 403, "message": "no"}, "upstream_auth", 502),
        ({"code": -32000, "message": "Authentication required"}, "upstream_auth", 502),
        ({"code": 404, "message": "models/x is not found"}, "not_found", 404),
        ({"code": 413, "message": "too large"}, "too_large", 413),
        ({"code": 500, "message": "An internal error has occurred."}, "upstream", 502),
        ({"code": 503, "message": "The model is overloaded."}, "overloaded", 503),
        ({"code": -32602, "message": "Invalid params"}, "upstream", 502),
        ({"code": -32601, "message": "Method not found"}, "upstream", 502),
        ({"code": -32603, "message": "Internal error", "data": {"details": "it\nbroke"}}, "upstream", 502),
        ("nonsense", "upstream", 502),
    ],
)
async def test_errors_of_the_agent_are_errors_of_the_call(house: House, error: Any, kind: str, status: int) -> None:
    house.script([{"error": error}])
    backend = house.backend()
    with pytest.raises(FaultError) as caught:
        await backend.open(call("Hi"))
    assert (caught.value.fault.kind, caught.value.fault.status_code) == (kind, status)
    await until(lambda: not backend.running)


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("You exceeded your current quota. Please retry in 34.5s.", 34.5),
        ("Your quota will reset after 18h40m51s.", 18 * 3600 + 40 * 60 + 51),
        ("Your quota will reset after 5m.", 300.0),
        ('{"error":{"message":"Quota.","details":[{"retryDelay": "12s"}]}}', 12.0),
        ("Retry-After: 7", 7.0),
        ("x" * 1000 + " Please retry in 3s.", 3.0),
        ("retry in 9999999s", 7 * 86400.0),
        ("Rate limit exceeded. Try again later.", None),
        ("Please retry in a while.", None),
    ],
)
async def test_a_limit_says_when_to_come_again_where_the_agent_does(
    house: House, message: str, seconds: float | None
) -> None:
    house.script([{"error": {"code": 429, "message": message}}])
    with pytest.raises(FaultError) as caught:
        await house.backend().open(call("Hi"))
    fault = caught.value.fault
    assert (fault.status_code, fault.retry_after) == (429, seconds)
    assert len(fault.message) < 500


async def test_an_agent_that_ends_in_mid_answer_breaks_the_stream(house: House) -> None:
    house.script([say("Half"), {"exit": 3}])
    backend = house.backend()
    response = await backend.open(call("Hi", stream=True))
    with pytest.raises(FaultError) as caught:
        await response.read()
    response.close()
    assert caught.value.fault.kind == "closed"
    house.script([say("whole")])
    assert (await ask(backend, "Hi"))["message"]["content"] == "whole"


async def test_a_silent_agent_meets_the_time_out_and_is_ended(house: House) -> None:
    house.script([{"wait": "session/cancel"}, {"result": {"stopReason": "cancelled"}}])
    backend = house.backend(process_timeout=0.5)
    with pytest.raises(FaultError) as caught:
        await backend.open(call("Hi"))
    assert caught.value.fault.status_code == 504
    await until(lambda: not backend.running)
    assert house.got("session/cancel") == [{"sessionId": "s1"}]


async def test_an_agent_that_never_answers_the_greeting_meets_it_too(house: House) -> None:
    house.script(mute=True)
    with pytest.raises(FaultError) as caught:
        await house.backend(process_timeout=0.5).open(call("Hi"))
    assert caught.value.fault.status_code == 504


async def test_another_version_of_the_protocol_is_said_so(house: House) -> None:
    house.script(version=2)
    with pytest.raises(FaultError, match="another version"):
        await house.backend().open(call("Hi"))


async def test_an_agent_with_nothing_to_do_ends_after_the_idle_time(house: House) -> None:
    house.script([say("ok")])
    backend = house.backend(idle_timeout=0.05)
    await ask(backend, "Hi")
    await until(lambda: not backend.running and not house.alive(0))


async def test_the_end_of_a_session_ends_its_agents(house: House) -> None:
    house.script([say("ok")])
    backend = house.backend()
    await ask(backend, "Hi", session="one")
    await ask(backend, "Hi", session="two")
    backend.end_session("one")
    await until(lambda: not house.alive(0))
    assert house.alive(1) and len(backend.running) == 1


async def test_tools_of_the_client_are_not_passed(house: House) -> None:
    house.script([say("ok")])
    tool = {"type": "function", "function": {"name": "secret_tool", "parameters": {}}}
    await ask(house.backend(), "Hi", more={"tools": [tool]})
    assert "secret_tool" not in str(house.journal)


async def test_lines_that_are_no_messages_are_passed_over(house: House) -> None:
    junk = [
        "Loaded cached credentials.",
        "[1,2]",
        '{"jsonrpc"',
        "[" * 5000,
        '{"id": 99, "result": 1}',
        '{"id": [], "result": 1}',
        "",
    ]
    house.script([*({"raw": text} for text in junk), say("ok")])
    assert (await ask(house.backend(), "Hi"))["message"]["content"] == "ok"


async def test_models_and_what_it_can(house: House) -> None:
    backend = house.backend(model="gemini-2.5-pro")
    assert [model.id for model in await backend.models()][:2] == ["gemini-2.5-pro", "gemini-2.5-flash"]
    assert backend.settings.default_model == "gemini-2.5-pro"
    assert backend.supports("generate")
    assert not backend.supports("embeddings")


async def test_without_a_directory_the_current_one_is_used(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path(os.path.realpath(house.place))
    monkeypatch.chdir(here)
    house.script([say("ok")])
    await ask(house.backend(project_dir=None), "Hi")
    assert house.starts[0]["cwd"] == str(here)
