"""BE-14: a login in a vendor's file is used in place, renewed once for all, and survives whatever else writes the file."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.backends.logins.credential_file import CredentialFile
from llm_proxy.backends.logins.document import Unreadable, read_document
from llm_proxy.backends.logins.login import Token
from llm_proxy.backends.logins.lookout import Lookout
from llm_proxy.backends.logins.renewal import Revoked, Unreachable
from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.wire.secrets import Secret

NOW = 1_000_000.0


def read(members: Mapping[str, Any]) -> Token:
    if not isinstance(members.get("access"), str):
        raise Unreadable("has no `access`")
    account = members.get("account", "")
    return Token(access=Secret(members["access"]), expires=members.get("expires"), account=account)


def refresh_token(members: Mapping[str, Any]) -> Secret | None:
    return Secret(members["refresh"]) if members.get("refresh") else None


def members(access: str, expires: float | None = NOW + 5000, refresh: str = "", **more: Any) -> dict[str, Any]:
    return {"access": access, "expires": expires, "refresh": refresh or f"{access}-refresh", **more}


class TokenEndpoint:
    """Gives `access-1`, `access-2` …, and remembers with what it was asked. `before` happens while a call is under way."""

    def __init__(self, *failures: Exception, before: Callable[[], object] | None = None) -> None:
        self.asked: list[str] = []
        self.failures = list(failures)
        self.before = before
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, token: Secret, document: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append(token.reveal())
        number = len(self.asked)
        await self.gate.wait()
        if self.before is not None:
            self.before()
        if self.failures:
            raise self.failures.pop(0)
        return members(f"access-{number}", NOW + 10_000)


class Clock:
    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


class Machine:
    """One home directory with a login in it, and the proxy that uses it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "login.json"
        self.clock = Clock()
        self.wall = Clock()
        self.wall.at = NOW
        self.pauses: list[float] = []
        self.logins: list[CredentialFile] = []

    def write(self, content: Mapping[str, Any] | str) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        other = self.path.with_name("written-by-the-cli")
        other.write_text(text)
        other.chmod(0o600)
        other.replace(self.path)

    def on_disk(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.path.read_text())
        return found

    def login(self, endpoint: TokenEndpoint | None = None, **options: Any) -> CredentialFile:
        async def pause(seconds: float) -> None:
            self.pauses.append(seconds)

        login = CredentialFile(
            "house",
            (self.path,),
            read=read,
            command="house login",
            refresh_token=refresh_token,
            refresher=endpoint,
            early=300.0,
            now=self.wall,
            clock=self.clock,
            pause=pause,
            **options,
        )
        self.logins.append(login)
        return login


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    for login in machine.logins:
        await login.close()


async def access(login: CredentialFile) -> str:
    return (await login.token()).access.reveal()


async def fault_of(login: CredentialFile) -> Fault:
    with pytest.raises(FaultError) as caught:
        await login.token()
    return caught.value.fault


async def test_twenty_parallel_requests_with_an_expired_token_make_one_refresh_call(machine: Machine) -> None:
    machine.write(members("old", NOW - 1))
    endpoint = TokenEndpoint()
    login = machine.login(endpoint)
    found = await asyncio.gather(*(access(login) for _ in range(20)))
    assert set(found) == {"access-1"}
    assert endpoint.asked == ["old-refresh"]
    assert machine.on_disk()["refresh"] == "access-1-refresh"


async def test_a_token_is_renewed_before_it_expires_and_not_earlier(machine: Machine) -> None:
    machine.write(members("old", NOW + 301))
    endpoint = TokenEndpoint()
    login = machine.login(endpoint)
    assert await access(login) == "old"
    machine.wall.at += 1
    assert await access(login) == "access-1"
    assert await access(login) == "access-1"
    assert len(endpoint.asked) == 1


async def test_the_next_request_uses_a_new_login_without_a_restart(machine: Machine) -> None:
    machine.write(members("first"))
    login = machine.login()
    assert await access(login) == "first"
    machine.write(members("second"))
    assert await access(login) == "second"


async def test_a_change_is_noticed_although_the_time_stamp_is_the_same(machine: Machine) -> None:
    machine.write(members("first-"))
    state = machine.path.stat()
    login = machine.login()
    assert await access(login) == "first-"
    with machine.path.open("r+") as file:
        file.write(json.dumps(members("second")))
    os.utime(machine.path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert machine.path.stat()[6:9:2] == state[6:9:2], "size and time are as before"
    machine.clock.at += 2.0
    assert await access(login) == "second"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "does not exist"),
        ({"refresh": "r"}, "has no `access`"),
        ("", "is empty"),
        ('{"access": "half', "holds no complete JSON"),
        ("[1]", "holds no JSON object"),
        ("\x00\xff", "holds no complete JSON"),
    ],
)
async def test_a_file_that_cannot_be_used_gives_a_reason_and_the_command(
    machine: Machine, content: Any, why: str
) -> None:
    if content is not None:
        machine.write(content)
    login = machine.login(TokenEndpoint())
    assert why in login.reason and "run `house login`" in login.reason
    fault = await fault_of(login)
    assert (fault.status_code, fault.detail["code"]) == (503, "backend_unavailable")
    assert "house login" in fault.message
    machine.write(members("new"))
    assert await access(login) == "new"
    assert login.reason == ""


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="whom nothing is forbidden can read every file")
async def test_a_file_of_another_user_gives_the_command_that_mends_it(machine: Machine) -> None:
    machine.write(members("x"))
    machine.path.chmod(0)
    assert f"chmod 600 {machine.path}" in machine.login().reason


async def test_a_directory_in_the_file_s_place_is_no_login(machine: Machine) -> None:
    machine.path.mkdir()
    assert "is no regular file" in machine.login().reason


def test_a_directory_that_may_hold_the_file_is_not_taken_for_it(tmp_path: Path) -> None:
    """A configured path is the file or its directory."""
    candidates = (tmp_path, tmp_path / "login.json")
    assert read_document(candidates).problem == "does not exist"
    (tmp_path / "login.json").write_text("{}")
    assert read_document(candidates).path == tmp_path / "login.json"


@pytest.mark.skipif(os.name != "posix", reason="pipes with names and devices are POSIX's")
@pytest.mark.parametrize("kind", ["pipe", "device"])
async def test_what_is_no_regular_file_is_never_waited_for(machine: Machine, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(machine.path)
    else:
        machine.path.symlink_to("/dev/zero")
    login = machine.login(TokenEndpoint())
    assert "is no regular file" in login.reason and "run `house login`" in login.reason
    machine.path.unlink()
    machine.write(members("new"))
    assert await access(login) == "new"


@pytest.mark.parametrize("token", ["two\r\nlines", "tab\tbed", "tok\u0119n", "x" * 70_000])
async def test_a_token_that_no_header_could_carry_is_no_token(machine: Machine, token: str) -> None:
    machine.write(members(token))
    login = machine.login(TokenEndpoint())
    assert "characters that no token has" in login.reason and token not in login.reason
    assert (await fault_of(login)).status_code == 503


async def test_the_first_file_that_exists_counts(machine: Machine) -> None:
    machine.write(members("second"))
    first = machine.path.with_name("first.json")
    login = CredentialFile("house", (first, machine.path), read=read, command="c", now=machine.wall)
    machine.logins.append(login)
    assert await access(login) == "second"
    first.write_text(json.dumps(members("first")))
    assert await access(login) == "first"


async def test_a_file_that_is_just_being_written_is_read_again(machine: Machine, tmp_path: Path) -> None:
    """What a look finds half-written, it finds whole a moment later; nobody is told of the moment."""
    machine.write('{"access": "ne')
    login = machine.login()

    def finish() -> None:
        machine.write(members("new"))

    writer = threading.Timer(0.02, finish)
    writer.start()
    assert await access(login) == "new"
    writer.join()


async def test_an_expired_login_that_cannot_be_renewed_names_the_command(machine: Machine) -> None:
    machine.write({"access": "old", "expires": NOW - 1})
    login = machine.login(TokenEndpoint())
    assert "has expired; run `house login`" in login.reason
    fault = await fault_of(login)
    assert (fault.status_code, fault.message) == (503, f"Back end house is not usable: {login.reason}")


async def test_read_only_never_renews_and_never_writes(machine: Machine) -> None:
    machine.write(members("old", NOW + 10))
    endpoint = TokenEndpoint()
    login = machine.login(endpoint, read_only=True)
    before = machine.path.read_bytes(), sorted(machine.path.parent.iterdir())
    assert await access(login) == "old"
    assert await login.refused(await login.token()) is None
    machine.wall.at = NOW + 20
    assert "has expired" in login.reason
    machine.write(members("renewed by the CLI", NOW + 900))
    assert await access(login) == "renewed by the CLI"
    assert endpoint.asked == []
    assert sorted(machine.path.parent.iterdir()) == before[1]


async def test_a_written_file_keeps_unknown_fields_and_belongs_to_its_owner_alone(machine: Machine) -> None:
    machine.write(members("old", NOW - 1, theme="dark", nested={"a": 1}))
    machine.path.chmod(0o644)
    login = machine.login(TokenEndpoint())
    assert await access(login) == "access-1"
    assert machine.on_disk() == members("access-1", NOW + 10_000, theme="dark", nested={"a": 1})
    if os.name == "posix":
        assert machine.path.stat().st_mode & 0o777 == 0o600
    assert not [path for path in machine.path.parent.iterdir() if path.name.endswith(".new")]


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
async def test_a_link_to_the_file_stays_a_link(machine: Machine, tmp_path: Path) -> None:
    elsewhere = tmp_path / "kept" / "real.json"
    elsewhere.parent.mkdir()
    elsewhere.write_text(json.dumps(members("old", NOW - 1)))
    machine.path.symlink_to(elsewhere)
    assert await access(machine.login(TokenEndpoint())) == "access-1"
    assert machine.path.is_symlink()
    assert json.loads(elsewhere.read_text())["access"] == "access-1"


async def test_network_errors_are_tried_three_times_with_a_doubling_pause(machine: Machine) -> None:
    machine.write(members("old", NOW - 1))
    endpoint = TokenEndpoint(Unreachable("gone"), FaultError(Fault(kind="unavailable", message="gone")))
    assert await access(machine.login(endpoint)) == "access-3"
    assert machine.pauses == [1.0, 2.0]


async def test_a_token_that_is_still_good_serves_while_the_endpoint_is_away(machine: Machine) -> None:
    machine.write(members("old", NOW + 100))
    endpoint = TokenEndpoint(*(Unreachable("gone") for _ in range(3)))
    login = machine.login(endpoint)
    assert await access(login) == "old"
    assert await access(login) == "old"
    assert len(endpoint.asked) == 3, "not asked again for 30 s"
    machine.clock.at += 30
    assert await access(login) == "access-4"


async def test_an_expired_token_and_no_endpoint_is_an_error_that_names_the_command(machine: Machine) -> None:
    machine.write(members("old", NOW - 1))
    login = machine.login(TokenEndpoint(*(Unreachable("gone") for _ in range(3))))
    fault = await fault_of(login)
    assert (fault.status_code, fault.code) == (502, "house_credentials_invalid")
    assert "house login" in fault.message
    assert await access(login) == "access-4"


async def test_a_refusal_with_a_fresh_file_on_disk_gives_its_token(machine: Machine) -> None:
    machine.write(members("old"))
    endpoint = TokenEndpoint()
    login = machine.login(endpoint)
    token = await login.token()
    machine.write(members("fresh"))
    other = await login.refused(token)
    assert other is not None and other.access.reveal() == "fresh"
    assert endpoint.asked == []


async def test_refused_requests_together_make_one_forced_refresh(machine: Machine) -> None:
    machine.write(members("old"))
    endpoint = TokenEndpoint()
    login = machine.login(endpoint)
    token = await login.token()
    others = await asyncio.gather(*(login.refused(token) for _ in range(20)))
    assert {other and other.access.reveal() for other in others} == {"access-1"}
    assert endpoint.asked == ["old-refresh"]


async def test_a_token_refused_after_a_forced_refresh_is_not_forced_again_and_a_success_clears_it(
    machine: Machine,
) -> None:
    machine.write(members("old"))
    endpoint = TokenEndpoint()
    login = machine.login(endpoint)
    other = await login.refused(await login.token())
    assert other is not None
    machine.clock.at += 1000
    assert await login.refused(other) is None
    assert len(endpoint.asked) == 1
    assert "run `house login`" in login.degraded
    assert await access(login) == "access-1", "calls go on, so that one can succeed"
    login.succeeded()
    assert login.degraded == ""


async def test_a_changed_file_clears_what_was_held_against_the_old(machine: Machine) -> None:
    machine.write(members("old"))
    login = machine.login()
    assert await login.refused(await login.token()) is None
    assert login.degraded
    machine.write(members("new"))
    assert await access(login) == "new"
    assert login.degraded == ""


async def test_a_revoked_refresh_token_degrades_until_a_new_login(machine: Machine) -> None:
    machine.write(members("old", NOW - 1))
    endpoint = TokenEndpoint(Revoked("over"))
    login = machine.login(endpoint)
    for _ in range(5):
        fault = await fault_of(login)
        assert "run `house login`" in fault.message and fault.code == "house_credentials_invalid"
    assert len(endpoint.asked) == 1, "the endpoint is not asked what it has answered"
    assert "revoked" in login.degraded
    machine.write(members("new"))
    assert await access(login) == "new"
    assert login.degraded == ""


async def test_a_refresh_token_that_the_cli_has_just_used_leads_to_the_cli_s_new_login(machine: Machine) -> None:
    machine.write(members("old", NOW - 1))
    endpoint = TokenEndpoint(Revoked("used"), before=lambda: machine.write(members("of the CLI")))
    assert await access(machine.login(endpoint)) == "of the CLI"
    assert machine.on_disk()["access"] == "of the CLI"


async def test_a_newer_login_is_never_overwritten(machine: Machine) -> None:
    machine.write(members("old", NOW - 1))
    endpoint = TokenEndpoint(before=lambda: machine.write(members("new login", NOW + 9000)))
    assert await access(machine.login(endpoint)) == "new login"
    assert machine.on_disk() == members("new login", NOW + 9000)


async def test_a_login_that_was_written_late_stays_but_serves_no_call(machine: Machine) -> None:
    """The CLI got it after the one that was read, and was slow to write it: it is over, too."""
    machine.write(members("old", NOW - 100))
    endpoint = TokenEndpoint(before=lambda: machine.write(members("late", NOW - 1)))
    login = machine.login(endpoint)
    assert await access(login) == "access-1"
    assert machine.on_disk() == members("late", NOW - 1)
    endpoint.before = None
    assert await access(login) == "access-2"
    assert endpoint.asked == ["old-refresh", "late-refresh"]


async def test_an_expired_login_on_disk_is_no_answer_to_a_refusal(machine: Machine) -> None:
    machine.write(members("first"))
    login = machine.login(TokenEndpoint())
    refused = await login.token()
    machine.write(members("late", NOW - 1))
    other = await login.refused(refused)
    assert other is not None and other.access.reveal() == "access-1"


async def test_an_older_login_written_back_does_not_lose_the_new_refresh_token(machine: Machine) -> None:
    machine.write(members("old", NOW - 1))
    endpoint = TokenEndpoint(before=lambda: machine.write(members("older", NOW - 5000, theme="light")))
    assert await access(machine.login(endpoint)) == "access-1"
    assert machine.on_disk() == members("access-1", NOW + 10_000, theme="light")


async def test_another_account_s_login_is_never_overwritten_however_soon_it_ends(machine: Machine) -> None:
    machine.write(members("old", NOW + 9000, account="one"))
    other = members("of the other", NOW + 100, account="two")
    login = machine.login(TokenEndpoint(before=lambda: machine.write(other)))
    renewed = await login.refused(await login.token())
    assert renewed is not None and renewed.access.reveal() == "of the other"
    assert machine.on_disk() == other


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can make a file of another user")
async def test_a_file_that_would_change_hands_is_not_renewed(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.write(members("old", NOW - 1))
    os.chown(machine.path, 12345, 12345)

    def forbidden(*arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", forbidden)
    endpoint = TokenEndpoint()
    fault = await fault_of(machine.login(endpoint))
    assert "nothing can be written" in fault.message
    assert endpoint.asked == [] and machine.on_disk()["access"] == "old"
    assert [path.name for path in machine.path.parent.iterdir() if path.suffix == ".new"] == []


async def test_a_file_removed_meanwhile_is_a_log_out(machine: Machine) -> None:
    machine.write(members("old", NOW - 1))
    endpoint = TokenEndpoint(before=lambda: machine.path.unlink())
    fault = await fault_of(machine.login(endpoint))
    assert "does not exist" in fault.message and fault.status_code == 503
    assert not machine.path.exists()


async def test_a_login_that_could_not_be_written_is_not_renewed(machine: Machine) -> None:
    machine.write(members("old", NOW - 1))
    machine.path.with_name(f".{machine.path.name}.llm-proxy.new").mkdir()
    endpoint = TokenEndpoint()
    fault = await fault_of(machine.login(endpoint))
    assert "nothing can be written" in fault.message and "house login" in fault.message
    assert endpoint.asked == []


async def test_a_request_that_leaves_does_not_cut_the_renewal_off(machine: Machine) -> None:
    machine.write(members("old", NOW - 1))
    endpoint = TokenEndpoint()
    endpoint.gate.clear()
    login = machine.login(endpoint)
    leaving = asyncio.create_task(login.token())
    while not endpoint.asked:
        await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    endpoint.gate.set()
    assert await access(login) == "access-1"
    assert endpoint.asked == ["old-refresh"]


async def test_closing_waits_for_a_renewal_under_way(machine: Machine) -> None:
    machine.write(members("old", NOW - 1))
    endpoint = TokenEndpoint()
    endpoint.gate.clear()
    login = machine.login(endpoint)
    asking = asyncio.create_task(login.token())
    while not endpoint.asked:
        await asyncio.sleep(0)
    endpoint.gate.set()
    await login.close()
    assert machine.on_disk()["access"] == "access-1"
    await asking


async def test_no_token_is_told_to_anybody(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    secret = "secret-access-value-0123456789"
    machine.write(members(secret, NOW - 1))
    if os.name == "posix":
        machine.path.chmod(0o644)
    login = machine.login(TokenEndpoint(*(Unreachable("gone") for _ in range(3)), Revoked("over")))
    told = [(await fault_of(login)).message, (await fault_of(login)).message, login.degraded, repr(login.found)]
    assert any("others on this machine" in record.getMessage() for record in caplog.records) or os.name != "posix"
    assert secret not in " ".join([*told, caplog.text])


def test_the_lookout_looks_without_a_request_and_ends_with_what_it_watches() -> None:
    looked = threading.Event()

    class Watched:
        def look(self) -> None:
            looked.set()

    lookout, watched = Lookout(0.001), Watched()
    lookout.add(watched)
    assert looked.wait(10)
    thread = lookout.thread
    assert thread is not None
    lookout.remove(watched)
    thread.join(10)
    assert not thread.is_alive()
    lookout.add(watched)
    looked.clear()
    assert looked.wait(10), "it begins anew"
    last = lookout.thread
    del watched
    assert last is not None
    last.join(10)
    assert not last.is_alive(), "nobody has to say that a login is gone"


async def test_a_new_login_is_noticed_without_a_request(machine: Machine) -> None:
    login = machine.login()
    assert "does not exist" in login.reason
    machine.write(members("new"))
    login.look()
    assert login.reason == ""
