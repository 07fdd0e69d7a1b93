"""BE-14, BE-17: a proxy that starts with missing, expired, damaged or foreign logins; the first calls of a Google account."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.asking import PROTOCOLS, body_of, error_of, path_of
from tests.e2e.calling import Turn, reply
from tests.e2e.keeping import until
from tests.e2e.test_login_vendors import (
    BACK_ENDS,
    CHATGPT,
    CLAUDE,
    CLOUD,
    COMMANDS,
    FILES,
    OPTIONS,
    PERSONAL,
    PLATFORM,
    QWEN,
    Stage,
    World,
    staged,
)
from tests.server.process import run
from tests.support.shared import Protocol
from tests.support.upstream import Reply

FREE, BY_CLI, WATCHED, BY_KEY = "free", "by-cli", "watched", "by-key"
STATES = ("missing", "damaged", "foreign", "expired")
CASES = [(id, state) for id in BACK_ENDS for state in STATES if (id, state) != (CLOUD, "expired")]
FOREIGN = {CHATGPT: QWEN, CLAUDE: CHATGPT, QWEN: CLAUDE, PERSONAL: CLOUD, CLOUD: PERSONAL}
"""Whose file lies in its place."""

CLI = """#!{python}
import os
os.replace({new!r}, {file!r})
"""
"""A Gemini CLI that renews its login as soon as it is started, and ends."""


def bad_logins(world: World) -> dict[str, Any]:
    """A back end for every case, in folders of their own."""
    home = world.accounts[QWEN].path.parents[1]
    made: dict[str, Any] = {"unbilled": {"type": CLOUD}}
    for id, state in CASES:
        path = home / f"{id}-{state}" / Path(FILES[id]).name
        path.parent.mkdir()
        own = world.accounts[id]
        match state:
            case "damaged":
                path.write_text(own.path.read_text()[:-9])
            case "foreign":
                path.write_text(world.accounts[FOREIGN[id]].path.read_text())
            case "expired":
                good = own.access
                own.mint(-60)
                path.write_text(json.dumps(own.document(-60, renewable=False)))
                own.access = good
        member = "credentials_path" if id == CLOUD else "token_path"
        # Without a client of its own the personal login is renewed by the CLI, which is not installed here.
        options = {"gemini_cli_executable": "no-such-cli"} if id == PERSONAL else OPTIONS[id]
        made[f"{id}-{state}"] = {**options, "type": id, member: str(path), "refresh": "read-only"}
    return made | more_accounts(world, home)


def more_accounts(world: World, home: Path) -> dict[str, Any]:
    free = world.account(FREE, PERSONAL, home / "free" / "oauth_creds.json")
    free.loaded = {"allowedTiers": [{"id": "legacy-tier"}, {"id": "free-tier", "isDefault": True}]}
    project = {"cloudaicompanionProject": {"id": "of-the-free-tier"}}
    free.onboarding = [
        {"name": "operations/1", "done": False},
        {"name": "operations/1", "done": True, "response": project},
    ]
    cli = world.account(BY_CLI, PERSONAL, home / "cli" / "oauth_creds.json")
    program = home / "cli" / "gemini"
    program.write_text(CLI.format(python=sys.executable, new=str(cli.path.with_name("new")), file=str(cli.path)))
    program.chmod(0o700)
    free_options = {**OPTIONS[PERSONAL], "token_path": str(free.path), "gemini_cli_executable": "no-such-cli"}
    cli_options = {"token_path": str(cli.path), "gemini_cli_executable": str(program)}
    watched = world.account(WATCHED, QWEN, home / "watched" / "oauth_creds.json")
    by_key = world.account(BY_KEY, CHATGPT, home / "key" / "auth.json")
    by_key.host = PLATFORM[0]
    by_key.path.write_text(json.dumps({"OPENAI_API_KEY": by_key.access, "tokens": None}))
    return {
        FREE: {"type": PERSONAL, **free_options},
        BY_CLI: {"type": PERSONAL, **cli_options},
        WATCHED: {"type": QWEN, "token_path": str(watched.path), "refresh": "read-only"},
        BY_KEY: {"type": CHATGPT, "token_path": str(by_key.path)},
    }


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("home"), bad_logins) as staged_here:
        yield staged_here


@pytest.mark.parametrize(("id", "state"), CASES, ids=["-".join(case) for case in CASES])
def test_a_login_that_cannot_be_used_names_the_command_that_mends_it(stage: Stage, id: str, state: str) -> None:
    command = f"`{COMMANDS[id]}`"
    row = stage.listed(f"{id}-{state}")
    assert command in row["reason"] and row["functional"] is False
    for client in PROTOCOLS:
        answer = stage.ask(client, f"{id}-{state}:m")
        assert answer.status in (502, 503)
        assert command in error_of(client, answer)["message"]


def test_a_cloud_project_that_is_not_named_is_asked_for(stage: Stage) -> None:
    assert "GOOGLE_CLOUD_PROJECT" in stage.listed("unbilled")["reason"]
    answer = stage.ask("openai-chat", "unbilled:gemini-2.5-pro")
    assert answer.status == 503 and "GOOGLE_CLOUD_PROJECT" in answer.json["error"]["message"]


def test_good_logins_serve_beside_bad_ones(stage: Stage) -> None:
    for id in BACK_ENDS:
        row = stage.listed(id)
        assert (row["functional"], row["reason"]) == (True, "")
        assert stage.ask("openai-chat", stage.of(id).target).status == 200


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["text", "json"])
def test_the_logins_are_told_without_a_token(stage: Stage, flags: list[str]) -> None:
    file = str(stage.home / "mine.json")
    ended = run(stage.home, ["logins", *flags], {**stage.environment, "LLM_PROXY_CONFIG": file})
    text, said = ended.stdout.decode(), ended.stderr.decode()
    assert ended.returncode == 0
    stage.shows_no_secret(text + said)
    for id in BACK_ENDS:
        assert id in text and COMMANDS[id] in text


@pytest.mark.parametrize("page", ["backends", "cooldowns", "routing", "sessions"])
def test_no_page_shows_a_token(stage: Stage, page: str) -> None:
    answer = stage.proxy.get(f"/internal/{page}")
    assert answer.status == 200
    stage.shows_no_secret(answer.body.decode())


def test_a_key_in_place_of_tokens_is_used_as_one(stage: Stage) -> None:
    """BE-16: an `api_key` is sent as `x-api-key`."""
    claude = stage.of(CLAUDE)
    claude.fresh()
    claude.path.unlink()
    other = stage.home / ".anthropic" / "oauth_creds.json"
    other.parent.mkdir()
    other.write_text(json.dumps({"api_key": claude.access}))
    claude.answer = lambda request: Reply.json(
        {"type": "error", "error": {"type": "invalid_request_error", "message": "seen"}}, 400
    )
    until(lambda: stage.ask("anthropic-messages", claude.target).status == 400, "the other file", 2.0)
    assert claude.calls[-1].header("x-api-key") == claude.access
    assert claude.calls[-1].header("authorization") is None
    other.unlink()
    claude.fresh()


@pytest.mark.parametrize("client", PROTOCOLS)
def test_a_key_that_the_codex_cli_keeps_goes_to_the_public_api(stage: Stage, client: Protocol) -> None:
    account = stage.of(BY_KEY)
    account.answer = lambda request: reply(
        "openai-responses", Turn(text="All of it."), bool(request.json.get("stream"))
    )
    assert "All of it." in json.dumps(stage.ask(client, f"{BY_KEY}:gpt-5").json)
    call = account.calls[-1]
    assert (call.header("host"), call.path) == PLATFORM
    assert call.header("authorization") == f"Bearer {account.access}" and call.header("chatgpt-account-id") is None


def test_a_login_that_is_only_read_is_never_renewed_nor_written(stage: Stage) -> None:
    account = stage.of(WATCHED)
    account.login(lasts=-60)
    before = account.path.read_bytes()
    answer = stage.ask("openai-chat", account.target)
    assert answer.status in (502, 503) and "`qwen`" in answer.json["error"]["message"]
    assert account.path.read_bytes() == before and account.calls == []
    account.login()
    until(lambda: stage.ask("openai-chat", account.target).status == 200, "the new login", 2.0)
    assert account.renewals == [] and list(account.path.parent.glob("*lock*")) == []


def test_the_first_calls_of_a_free_account_are_one_load_and_an_onboarding_without_a_project(stage: Stage) -> None:
    account = stage.of(FREE)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda client: stage.ask(client, account.target), PROTOCOLS))
    assert [answer.status for answer in answers] == [200] * 4
    answers = [stage.ask(client, account.target, True) for client in PROTOCOLS]
    assert [answer.status for answer in answers] == [200] * 4
    methods = [call.path.rpartition(":")[2] for call in account.account_calls]
    assert methods == ["loadCodeAssist", "onboardUser", "onboardUser"]
    load, *onboardings = [call.json for call in account.account_calls]
    wanted = {"ideType": "IDE_UNSPECIFIED", "platform": "PLATFORM_UNSPECIFIED", "pluginType": "GEMINI"}
    assert wanted.items() <= load["metadata"].items()
    assert [(one["tierId"], "cloudaicompanionProject" in one) for one in onboardings] == [("free-tier", False)] * 2
    assert account.account_calls[2].at - account.account_calls[1].at > 1.5
    assert {call.json["project"] for call in account.calls} == {"of-the-free-tier"}
    account.login()
    assert stage.ask("openai-chat", account.target).status == 200


def test_a_paying_account_says_its_project_at_once(stage: Stage) -> None:
    for id in (PERSONAL, CLOUD):
        account = stage.of(id)
        for client in PROTOCOLS:
            assert stage.ask(client, account.target).status == 200
        methods = [call.path.rpartition(":")[2] for call in account.account_calls]
        assert methods in (["loadCodeAssist"], []) and {call.json["project"] for call in account.calls} == {"project-1"}


def test_the_cli_is_started_for_an_expired_login_and_what_it_writes_is_used(stage: Stage) -> None:
    account = stage.of(BY_CLI)
    assert stage.ask("openai-chat", account.target).status == 200
    expired = account.document(-60)
    account.path.write_text(json.dumps(expired))
    access = account.mint()
    account.good = {access}
    account.path.with_name("new").write_text(json.dumps(account.document(3600)))
    account.forget()
    answers = [stage.post(path_of(client, account.target), body_of(client, account.target)) for client in PROTOCOLS]
    assert [answer.status for answer in answers] == [200] * 4
    assert {call.header("authorization") for call in account.calls} == {f"Bearer {access}"}
    assert account.renewals == []
