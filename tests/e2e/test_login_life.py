"""BE-14 as a user sees it: logins that expire, rotate, are refused, revoked and replaced under a running proxy."""

from __future__ import annotations

import http.client
import json
import os
import signal
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.asking import PROTOCOLS, body_of, error_of
from tests.e2e.calling import Turn
from tests.e2e.keeping import CHAT, until
from tests.e2e.test_login_vendors import (
    BACK_ENDS,
    CHATGPT,
    CLAUDE,
    CLOUD,
    MODELS,
    PERSONAL,
    PLATFORM,
    QWEN,
    Account,
    Stage,
    account,
    stage,
    staged,
)
from tests.server.process import Answer
from tests.support.shared import Protocol
from tests.support.upstream import Moment, Reply

__all__ = ["account", "stage"]  # fixtures

WITH_A_FILE = tuple(id for id in BACK_ENDS if id != CLOUD)
"""Those whose file the proxy renews; of a cloud project's it only reads the refresh token."""
MARGINS = {CHATGPT: 300, CLAUDE: 60, QWEN: 120, PERSONAL: 120}
"""Seconds before its end at which a token is renewed."""
in_files = pytest.mark.parametrize("account", WITH_A_FILE, indirect=True)
INVALID_GRANT = Reply.json({"error": "invalid_grant", "error_description": "Token has been expired or revoked."}, 400)


def ask(stage: Stage, account: Account, client: Protocol = "openai-chat", stream: bool = False) -> Answer:
    return stage.ask(client, account.target, stream)


def works(stage: Stage, account: Account) -> None:
    answer = ask(stage, account)
    assert answer.status == 200, answer.body
    assert "All of it." in answer.body.decode()


def shown(account: Account) -> list[str]:
    """The tokens that the calls carried."""
    return [(call.header("authorization") or "").removeprefix("Bearer ") for call in account.calls]


def at_its_end(stage: Stage, account: Account) -> None:
    """The token that the proxy holds is over, and the vendor takes it no more."""
    if account.kind == CLOUD:
        # What the library was given last is thrown away and replaced by one that ends at once.
        account.lasts, account.good = 1, set()
        works(stage, account)
        account.lasts = 3600
    else:
        account.login(lasts=-60)
    account.good = set()
    account.forget()


def assert_refused(account: Account, client: Protocol, answer: Answer) -> None:
    assert answer.status == 502, answer.body
    error = error_of(client, answer)
    assert f"{account.id}_credentials_invalid" in answer.body.decode()
    assert f"`{account.command}`" in error["message"]


def test_an_expired_login_is_renewed_once_before_twenty_parallel_calls(stage: Stage, account: Account) -> None:
    at_its_end(stage, account)
    with ThreadPoolExecutor(20) as pool:
        clients = [PROTOCOLS[n % 4] for n in range(20)]
        answers = list(pool.map(lambda at: ask(stage, account, clients[at], at % 8 > 3), range(20)))
    assert [answer.status for answer in answers] == [200] * 20
    assert len(account.renewals) == 1
    assert shown(account) == [account.access] * 20


@in_files
def test_a_rotated_refresh_token_is_kept_and_used_the_next_time(stage: Stage, account: Account) -> None:
    account.login(lasts=-60, good=False)
    before, account.lasts = account.on_disk, 30
    for renewals in (1, 2, 3):
        works(stage, account)
        assert len(account.renewals) == renewals
        text = account.path.read_text()
        assert account.access in text and account.refresh in text
    after = account.on_disk
    assert after.keys() >= before.keys() and after["kept"] == [1]
    assert stat.S_IMODE(account.path.stat().st_mode) == 0o600


@in_files
@pytest.mark.parametrize(("off", "renewals"), [(-10, 1), (10, 0)], ids=["inside", "outside"])
def test_a_login_is_renewed_so_long_before_its_end(stage: Stage, account: Account, off: int, renewals: int) -> None:
    account.login(lasts=MARGINS[account.kind] + off)
    works(stage, account)
    until(lambda: len(account.renewals) == renewals, "the renewal")
    works(stage, account)
    assert len(account.renewals) == renewals


@pytest.mark.parametrize(("client", "stream"), list(zip(PROTOCOLS, (False, True, False, True), strict=True)))
def test_a_token_refused_in_mid_life_is_renewed_and_the_call_repeated(
    stage: Stage, account: Account, client: Protocol, stream: bool
) -> None:
    works(stage, account)
    account.good = set()
    account.forget()
    answer = ask(stage, account, client, stream)
    assert answer.status == 200, answer.body
    assert (len(account.renewals), len(account.calls)) == (1, 2)
    assert shown(account)[1] == account.access
    works(stage, account)
    assert len(account.renewals) == 1


@in_files
def test_a_refused_token_gives_way_to_the_fresh_one_on_disk(stage: Stage, account: Account) -> None:
    """The CLI has renewed the login between the proxy's look at the file and the vendor's refusal."""
    works(stage, account)
    account.forget()
    vendor = account.answer

    def refusing_once(request: object) -> Reply:
        account.answer = vendor
        account.login()
        return Reply.json({"error": {"message": "expired", "type": "authentication_error"}}, 401)

    account.answer = refusing_once
    works(stage, account)
    assert (len(account.renewals), len(account.calls)) == (0, 2)


@pytest.mark.parametrize(("client", "stream"), list(zip(PROTOCOLS, (True, False, True, False), strict=True)))
def test_a_login_refused_again_names_the_command_until_a_call_succeeds(
    stage: Stage, account: Account, client: Protocol, stream: bool
) -> None:
    works(stage, account)
    account.forget()
    account.answer = lambda request: Reply.json({"error": {"message": f"no {account.access}"}}, 401)
    answer = ask(stage, account, client, stream)
    assert_refused(account, client, answer)
    assert (len(account.renewals), len(account.calls)) == (1, 2)
    assert f"`{account.command}`" in stage.listed(account.id)["reason"]
    account.says(Turn(text="All of it."))
    works(stage, account)
    assert stage.listed(account.id)["reason"] == ""


@pytest.mark.parametrize(
    ("account", "client"),
    list(zip(BACK_ENDS, (*PROTOCOLS, "openai-chat"), strict=True)),
    indirect=["account"],
)
def test_a_revoked_login_names_the_command_until_the_user_logs_in_again(
    stage: Stage, account: Account, client: Protocol
) -> None:
    at_its_end(stage, account)
    account.revoked = INVALID_GRANT
    for _ in range(3):
        assert_refused(account, client, ask(stage, account, client))
        assert f"`{account.command}`" in stage.listed(account.id)["reason"]
    assert account.calls == []
    if account.kind != CLOUD:  # whose library keeps no count
        assert len(account.renewals) == 1
    account.revoked = None
    account.login()
    works(stage, account)


@pytest.mark.parametrize("in_place", [False, True], ids=["replaced", "rewritten"])
def test_a_new_login_is_used_by_the_next_call(stage: Stage, account: Account, in_place: bool) -> None:
    works(stage, account)
    account.forget()
    account.login(in_place=in_place)
    works(stage, account)
    assert shown(account) == [account.access]
    assert len(account.renewals) == (account.kind == CLOUD)


@in_files
def test_a_new_login_is_used_though_time_stamp_and_size_are_the_old_ones(stage: Stage, account: Account) -> None:
    works(stage, account)
    before = account.path.stat()
    account.forget()
    account.login(in_place=True)
    os.utime(account.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert account.path.stat().st_mtime_ns == before.st_mtime_ns
    until(lambda: (ask(stage, account).status, shown(account)[-1:]) == (200, [account.access]), "the new login", 2.0)
    assert account.renewals == []


@in_files
def test_a_new_login_clears_the_reason_within_two_seconds_without_a_call(stage: Stage, account: Account) -> None:
    account.path.unlink()
    assert ask(stage, account).status in (502, 503)
    assert stage.listed(account.id)["reason"]
    account.login()
    until(lambda: not stage.listed(account.id)["reason"], "the new login", 2.0)
    assert account.calls == []


@in_files
def test_a_call_while_the_cli_is_writing_the_file_is_answered(stage: Stage, account: Account) -> None:
    works(stage, account)
    text = account.path.read_text()
    for half in (text[: len(text) // 2], ""):
        account.forget()
        account.login(in_place=True)
        whole = account.path.read_text()
        account.path.write_text(half)
        rest = threading.Timer(0.03, account.path.write_text, [whole])
        rest.start()
        works(stage, account)
        rest.join()
        assert shown(account) == [account.access] and account.renewals == []


@in_files
def test_a_damaged_file_names_the_command_until_it_is_mended(stage: Stage, account: Account) -> None:
    for damage in ("{", "", "[]", '{"tokens": {}, "claudeAiOauth": {}}'):
        account.path.write_text(damage)
        answer = ask(stage, account)
        assert answer.status in (502, 503) and f"`{account.command}`" in answer.json["error"]["message"], answer.body
        assert f"`{account.command}`" in stage.listed(account.id)["reason"]
    account.login()
    until(lambda: ask(stage, account).status == 200, "the new login", 2.0)
    assert account.renewals == []


@pytest.mark.parametrize("account", [QWEN], indirect=True)
def test_a_token_service_that_does_not_answer_is_asked_three_times_and_ends_no_login(
    stage: Stage, account: Account
) -> None:
    account.login(lasts=-60, good=False)
    account.revoked = Reply(status=503, body=b"<html>down</html>")
    start = time.monotonic()
    answer = ask(stage, account)
    assert answer.status in (502, 503) and b"<" not in answer.body
    assert len(account.renewals) == 3 and time.monotonic() - start > 1
    account.revoked = None
    account.login()
    works(stage, account)


@in_files
def test_a_renewal_is_kept_though_the_client_that_wanted_it_has_left(stage: Stage, account: Account) -> None:
    account.login(lasts=-60, good=False)
    account.held = Moment()
    with closing(http.client.HTTPConnection(*stage.proxy.main, timeout=10)) as connection:
        headers = {"Authorization": f"Bearer {stage.proxy.key}", "Content-Type": "application/json"}
        connection.request("POST", CHAT, json.dumps(body_of("openai-chat", account.target)), headers)
        until(lambda: len(account.renewals) == 1, "the renewal")
    assert account.refresh not in account.path.read_text()
    account.held.happen()
    until(lambda: account.refresh in account.path.read_text(), "the new login")
    works(stage, account)
    assert len(account.renewals) == 1


def test_a_renewal_is_kept_though_the_proxy_is_being_ended(tmp_path: Path) -> None:
    with staged(tmp_path) as stage:
        account = stage.of(CLAUDE)
        account.login(lasts=-60, good=False)
        account.held = Moment()
        with closing(http.client.HTTPConnection(*stage.proxy.main, timeout=10)) as connection:
            headers = {"Authorization": f"Bearer {stage.proxy.key}", "Content-Type": "application/json"}
            connection.request("POST", CHAT, json.dumps(body_of("openai-chat", account.target)), headers)
            until(lambda: len(account.renewals) == 1, "the renewal")
            stage.proxy.send_signal(signal.SIGTERM)
        threading.Timer(0.3, account.held.happen).start()
        assert stage.proxy.wait() == 0
        assert account.refresh in account.path.read_text() and account.access in account.path.read_text()


def test_no_token_follows_a_redirect(stage: Stage, account: Account) -> None:
    place = ("location", f"https://{PLATFORM[0]}/elsewhere")
    account.answer = lambda request: Reply(status=307, headers=(place,))
    answer = ask(stage, account)
    assert answer.status >= 400
    assert len(account.calls) == 1 and stage.world.strange == []


def test_a_login_is_used_by_nobody_but_its_vendor(stage: Stage) -> None:
    for id in MODELS:
        account = stage.of(id)
        account.fresh()
        works(stage, account)
    assert stage.world.strange == []
