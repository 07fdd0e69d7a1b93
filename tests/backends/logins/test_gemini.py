"""BE-17: Gemini by the login of its CLI and by a cloud project, on a scripted Code Assist server."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_proxy import dialects
from llm_proxy.backends.base import Call, Redirect
from llm_proxy.backends.logins.credential_file import CredentialFile
from llm_proxy.backends.logins.daily import DailyCount
from llm_proxy.backends.logins.gemini import CodeAssistBackend, build_personal
from llm_proxy.backends.logins.personal import CliLogin, read, refresh_token, refresher
from llm_proxy.backends.transport import Transport
from llm_proxy.conversation.answer import Answer
from llm_proxy.conversation.fault import FaultError
from llm_proxy.conversation.fold import fold
from llm_proxy.conversation.parts import Text, Thinking, ToolCall
from llm_proxy.dialects.base import ReadContext
from llm_proxy.wire.secrets import Secret
from llm_proxy.wire.sse import SseReader
from tests.backends.logins.code_assist_server import HELLO, QUOTA, CodeAssist, chunk, refusal, stream
from tests.backends.settings import backend_settings
from tests.support.upstream import Received, Reply, Upstream

ID = "gemini-cli-oauth-personal"
BODY = b'{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}'


def write_login(directory: Path, access: str = "token-1", lasts: float = 3600.0, **members: Any) -> Path:
    """The file as the CLI leaves it."""
    path = directory / "oauth_creds.json"
    login = {
        "access_token": access,
        "refresh_token": "refresh-1",
        "token_type": "Bearer",
        "expiry_date": int((time.time() + lasts) * 1000),
        **members,
    }
    path.write_bytes(msgspec.json.encode(login))
    path.chmod(0o600)
    return path


def personal(transport: Transport, url: str, directory: Path, **members: Any) -> CodeAssistBackend:
    settings = backend_settings(ID, base_url=url, token_path=directory, mentioned=True, **members)
    return build_personal(settings, transport, time.monotonic)


def call(body: bytes = BODY, **members: Any) -> Call:
    return Call(**{"dialect": "gemini", "model": "gemini-2.5-pro", "body": body, "request_id": "req-1", **members})


async def answered(backend: CodeAssistBackend, **members: Any) -> tuple[int, bytes]:
    response = await backend.open(call(**members))
    try:
        return response.status, await response.read()
    finally:
        response.close()


def read_answer(body: bytes) -> Answer:
    """What the dialect makes of the stream."""
    reader = dialects.get("gemini").stream_reader(
        ReadContext(maker="m", new_call_id=lambda response, ordinal: f"call_{ordinal}")
    )
    frames = SseReader()
    events = [event for frame in (*frames.feed(body), *frames.close()) for event in reader.feed(frame)]
    return fold([*events, *reader.close()])


class FakeCli:
    """Renews the file as the CLI would: what `renews` writes is there when the next look comes."""

    def __init__(self, renews: Callable[[], object] = lambda: None) -> None:
        self.renews = renews
        self.starts = 0
        self.allowed = True
        self.running = False

    def start(self, directory: Path) -> bool:
        if not self.allowed:
            return False
        self.starts += 1
        self.renews()
        return True

    async def close(self) -> None:
        pass


class Pauses:
    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


def cli_login(path: Path, cli: FakeCli, pauses: Pauses) -> CliLogin:
    file = CredentialFile(ID, [path], read=read, command="gemini", refresh_token=refresh_token)
    return CliLogin(file, cli, pause=pauses)  # type: ignore[arg-type]


# The call


async def test_a_generation_is_wrapped_and_always_streamed(transport: Transport, tmp_path: Path) -> None:
    write_login(tmp_path)
    async with CodeAssist(accepted={"token-1"}) as server:
        backend = personal(transport, server.upstream.url, tmp_path)
        for wanted in (False, True):
            status, body = await answered(backend, stream=wanted)
            assert status == 200
            assert read_answer(body).choices[0].parts == (Text("Hello"),)
        sent = server.generations[0]
        assert sent.target == "/v1internal:streamGenerateContent?alt=sse"
        assert sent.header("authorization") == "Bearer token-1"
        assert sent.header("accept") == "text/event-stream"
        envelope = sent.json
        assert (envelope["model"], envelope["project"], envelope["user_prompt_id"]) == (
            "gemini-2.5-pro",
            "p-1",
            "req-1",
        )
        # The session stands where Google's own CLI puts it; the API refuses it beside the request.
        assert "session_id" not in envelope and envelope["request"].pop("session_id")
        assert envelope["request"] == msgspec.json.decode(BODY)
        await backend.close()


async def test_usage_comes_from_the_metadata(transport: Transport, tmp_path: Path) -> None:
    write_login(tmp_path)
    async with CodeAssist() as server:
        backend = personal(transport, server.upstream.url, tmp_path)
        usage = read_answer((await answered(backend))[1]).usage
        assert usage is not None
        assert (usage.input, usage.output) == (7, 3)
        await backend.close()


async def test_a_function_call_in_the_stream_is_in_the_answer(transport: Transport, tmp_path: Path) -> None:
    """Given a function call in the stream and a non-streaming client, then it is in the answer; so is the reasoning."""
    write_login(tmp_path)
    thought = {"text": "let me look", "thought": True}
    function = {"functionCall": {"name": "look", "args": {"at": "x"}}, "thoughtSignature": "c2ln"}
    answers = [stream(chunk(thought), chunk(function), chunk({"text": ""}, finish="STOP"))]
    async with CodeAssist(answers=answers) as server:
        backend = personal(transport, server.upstream.url, tmp_path)
        choice = read_answer((await answered(backend, stream=False))[1]).choices[0]
        thinking, tool = (part for part in choice.parts if not isinstance(part, Text))
        assert isinstance(thinking, Thinking) and thinking.text == "let me look"
        assert isinstance(tool, ToolCall) and (tool.name, tool.arguments) == ("look", '{"at":"x"}')
        assert choice.stop.kind == "tool_use"
        await backend.close()


async def test_the_first_call_asks_for_the_project_and_none_later(transport: Transport, tmp_path: Path) -> None:
    write_login(tmp_path)
    async with CodeAssist() as server:
        backend = personal(transport, server.upstream.url, tmp_path)
        for _ in range(3):
            await answered(backend)
        assert (len(server.loads), len(server.generations)) == (1, 3)
        await backend.close()


async def test_twenty_first_calls_at_once_ask_once(transport: Transport, tmp_path: Path) -> None:
    write_login(tmp_path)
    async with CodeAssist() as server:
        backend = personal(transport, server.upstream.url, tmp_path)
        statuses = [status for status, _ in await asyncio.gather(*(answered(backend) for _ in range(20)))]
        assert statuses == [200] * 20
        assert len(server.loads) == 1
        await backend.close()


async def test_free_tier_is_onboarded_with_polling_and_without_a_project(transport: Transport, tmp_path: Path) -> None:
    path, pauses = write_login(tmp_path), Pauses()
    loaded = {"allowedTiers": [{"id": "free-tier", "isDefault": True}, {"id": "standard-tier"}]}
    done = {"done": True, "response": {"cloudaicompanionProject": {"id": "made-1"}}}
    async with CodeAssist(loaded=loaded, operations=[{"name": "o"}, {"name": "o"}, done]) as server:
        settings = backend_settings(ID, base_url=server.upstream.url, mentioned=True)
        login = cli_login(path, FakeCli(), Pauses())
        backend = CodeAssistBackend(settings, transport, login, clock=time.monotonic, pause=pauses)
        assert (await answered(backend))[0] == 200
        assert [sorted(one.json) for one in server.onboardings] == [["metadata", "tierId"]] * 3
        assert pauses.seconds == [2.0, 2.0]
        assert server.generations[0].json["project"] == "made-1"
        await backend.close()


async def test_another_400_is_the_clients_to_see(transport: Transport, tmp_path: Path) -> None:
    write_login(tmp_path)
    async with CodeAssist(answers=[refusal(400, "INVALID_ARGUMENT", "temperature is too high")]) as server:
        backend = personal(transport, server.upstream.url, tmp_path)
        status, body = await answered(backend)
        assert (status, b"too high" in body) == (400, True)
        assert len(server.generations) == 1
        await backend.close()


async def test_a_quota_that_is_used_up_says_when_it_returns(transport: Transport, tmp_path: Path) -> None:
    """Quota 429: cooldown from the reset text."""
    write_login(tmp_path)
    async with CodeAssist(answers=[Reply.json(QUOTA, 429)]) as server:
        backend = personal(transport, server.upstream.url, tmp_path)
        response = await backend.open(call())
        assert (response.status, dict(response.headers)["retry-after"]) == (429, "7985")
        fault = dialects.get("gemini").read_error(429, response.headers, await response.read())
        assert (fault.kind, "2h13m5s" in fault.message) == ("rate_limit", True)
        await backend.close()


async def test_an_error_of_the_account_is_the_answer(transport: Transport, tmp_path: Path) -> None:
    write_login(tmp_path)
    async with CodeAssist(loaded=refusal(503, "UNAVAILABLE", "try later")) as server:
        backend = personal(transport, server.upstream.url, tmp_path)
        status, body = await answered(backend)
        assert (status, b"try later" in body) == (503, True)
        assert not server.generations
        await backend.close()


async def test_a_login_goes_nowhere_but_to_its_own_server(transport: Transport, tmp_path: Path) -> None:
    write_login(tmp_path)
    async with CodeAssist() as server, Upstream(HELLO) as elsewhere:
        backend = personal(transport, server.upstream.url, tmp_path)
        with pytest.raises(FaultError):
            await backend.open(call(redirect=Redirect(elsewhere.url, "local", keep_key=True)))
        assert not elsewhere.requests
        await backend.close()


async def test_it_counts_no_tokens_upstream(transport: Transport, tmp_path: Path) -> None:
    write_login(tmp_path)
    backend = personal(transport, "http://127.0.0.1:1", tmp_path)
    assert backend.supports("generate") and not backend.supports("count")
    await backend.close()


async def test_its_models_are_a_fixed_list(transport: Transport, tmp_path: Path) -> None:
    write_login(tmp_path)
    backend = personal(transport, "http://127.0.0.1:1", tmp_path)
    ids = {model.id for model in await backend.models()}
    assert {"gemini-2.5-pro", "gemini-2.5-flash", "gemini-2.5-flash-lite", "gemini-2.0-flash"} <= ids
    await backend.close()


# The personal login


async def test_no_file_names_the_command_and_the_proxy_starts(transport: Transport, tmp_path: Path) -> None:
    backend = personal(transport, "http://127.0.0.1:1", tmp_path)
    assert not backend.usable
    assert "`gemini`" in backend.reason
    await backend.close()


@pytest.mark.parametrize("missing", ["access_token", "refresh_token"])
async def test_a_missing_field_is_the_reason(transport: Transport, tmp_path: Path, missing: str) -> None:
    write_login(tmp_path, **{missing: ""})
    backend = personal(transport, "http://127.0.0.1:1", tmp_path)
    assert missing in backend.reason and "`gemini`" in backend.reason
    await backend.close()


async def test_a_file_renewed_by_the_cli_needs_no_restart(transport: Transport, tmp_path: Path) -> None:
    write_login(tmp_path, "token-1")
    async with CodeAssist() as server:
        backend = personal(transport, server.upstream.url, tmp_path)
        await answered(backend)
        write_login(tmp_path, "token-22")
        await answered(backend)
        tokens = [one.header("authorization") for one in server.generations]
        assert tokens == ["Bearer token-1", "Bearer token-22"]
        assert len(server.loads) == 1
        await backend.close()


async def test_another_account_has_another_project(transport: Transport, tmp_path: Path) -> None:
    write_login(tmp_path, "token-1")
    async with CodeAssist() as server:
        backend = personal(transport, server.upstream.url, tmp_path)
        await answered(backend)
        write_login(tmp_path, "token-2", refresh_token="refresh-of-somebody-else")
        await answered(backend)
        assert len(server.loads) == 2
        await backend.close()


async def test_a_token_refused_in_mid_life_is_taken_from_the_fresh_file(transport: Transport, tmp_path: Path) -> None:
    """Given an upstream 401 with a fresh file on disk, then the repeat uses the fresh token and the client sees 200."""
    path = write_login(tmp_path, "token-1")
    async with CodeAssist(accepted={"token-1"}) as server:
        settings = backend_settings(ID, base_url=server.upstream.url, mentioned=True)
        cli = FakeCli(lambda: write_login(tmp_path, "token-2"))
        backend = CodeAssistBackend(settings, transport, cli_login(path, cli, Pauses()), clock=time.monotonic)
        await answered(backend)
        server.accepted = {"token-2"}
        status, body = await answered(backend)
        assert status == 200 and read_answer(body).choices[0].parts == (Text("Hello"),)
        assert cli.starts == 1
        await backend.close()


async def test_a_login_that_stays_refused_is_a_502_naming_the_command(transport: Transport, tmp_path: Path) -> None:
    path, pauses = write_login(tmp_path), Pauses()
    async with CodeAssist(accepted=set()) as server:
        settings = backend_settings(ID, base_url=server.upstream.url, mentioned=True)
        backend = CodeAssistBackend(settings, transport, cli_login(path, FakeCli(), pauses), clock=time.monotonic)
        with pytest.raises(FaultError) as caught:
            await answered(backend)
        fault = caught.value.fault
        assert (fault.status_code, fault.code) == (502, f"{ID}_credentials_invalid")
        assert "`gemini`" in fault.message and "token-1" not in fault.message
        assert pauses.seconds == [1.0] * 5
        await backend.close()


async def test_what_google_says_of_a_403_is_told(transport: Transport, tmp_path: Path) -> None:
    path, cli = write_login(tmp_path), FakeCli()
    cli.allowed = False
    async with CodeAssist(answers=[refusal(403, "PERMISSION_DENIED", "Verify your account first.")]) as server:
        settings = backend_settings(ID, base_url=server.upstream.url, mentioned=True)
        backend = CodeAssistBackend(settings, transport, cli_login(path, cli, Pauses()), clock=time.monotonic)
        with pytest.raises(FaultError) as caught:
            await answered(backend)
        assert caught.value.fault.code == f"{ID}_credentials_invalid"
        assert "Verify your account first" in caught.value.fault.message
        await backend.close()


# Renewal by the CLI


@pytest.mark.parametrize(("lasts", "starts"), [(300.0, 0), (121.0, 0), (110.0, 1), (45.0, 1)])
async def test_below_120_seconds_the_cli_is_started_behind_the_call(tmp_path: Path, lasts: float, starts: int) -> None:
    path, cli, pauses = write_login(tmp_path, lasts=lasts), FakeCli(), Pauses()
    login = cli_login(path, cli, pauses)
    assert (await login.token()).access.reveal() == "token-1"
    assert (cli.starts, pauses.seconds) == (starts, [])
    await login.close()


@pytest.mark.parametrize("lasts", [-100.0, 20.0])
async def test_an_expired_login_waits_for_the_cli(tmp_path: Path, lasts: float) -> None:
    path, pauses = write_login(tmp_path, lasts=lasts), Pauses()
    cli = FakeCli(lambda: write_login(tmp_path, "token-2"))
    login = cli_login(path, cli, pauses)
    assert login.reason == ""
    assert (await login.token()).access.reveal() == "token-2"
    assert (cli.starts, pauses.seconds) == (1, [1.0])
    await login.close()


async def test_twenty_requests_wait_for_the_cli_together(tmp_path: Path) -> None:
    path, pauses = write_login(tmp_path, lasts=-5.0), Pauses()
    cli = FakeCli(lambda: write_login(tmp_path, "token-2"))

    def once() -> None:
        write_login(tmp_path, "token-2")
        cli.allowed = False

    cli.renews = once
    login = cli_login(path, cli, pauses)
    tokens = await asyncio.gather(*(login.token() for _ in range(20)))
    assert {token.access.reveal() for token in tokens} == {"token-2"}
    assert (cli.starts, pauses.seconds) == (1, [1.0])
    await login.close()


async def test_five_looks_without_a_new_token_are_an_error_naming_the_command(tmp_path: Path) -> None:
    path, pauses = write_login(tmp_path, lasts=-5.0), Pauses()
    login = cli_login(path, FakeCli(), pauses)
    with pytest.raises(FaultError) as caught:
        await login.token()
    assert caught.value.fault.code == f"{ID}_credentials_invalid"
    assert "`gemini`" in caught.value.fault.message
    assert pauses.seconds == [1.0] * 5
    await login.close()


async def test_a_start_that_is_not_due_makes_nobody_wait(tmp_path: Path) -> None:
    path, cli, pauses = write_login(tmp_path, lasts=-5.0), FakeCli(), Pauses()
    cli.allowed = False
    login = cli_login(path, cli, pauses)
    with pytest.raises(FaultError):
        await login.token()
    assert pauses.seconds == []
    cli.running = True
    with pytest.raises(FaultError):
        await login.token()
    assert pauses.seconds == [1.0] * 5
    await login.close()


async def test_twenty_refused_requests_wait_for_the_cli_together(transport: Transport, tmp_path: Path) -> None:
    path, pauses = write_login(tmp_path, "token-1"), Pauses()
    async with CodeAssist(accepted={"token-2"}) as server:
        cli = FakeCli()

        def once() -> None:
            write_login(tmp_path, "token-2")
            cli.allowed = False

        cli.renews = once
        settings = backend_settings(ID, base_url=server.upstream.url, mentioned=True)
        backend = CodeAssistBackend(settings, transport, cli_login(path, cli, pauses), clock=time.monotonic)
        statuses = [status for status, _ in await asyncio.gather(*(answered(backend) for _ in range(20)))]
        assert (statuses, cli.starts) == ([200] * 20, 1)
        await backend.close()


async def test_read_only_starts_and_writes_nothing(transport: Transport, tmp_path: Path) -> None:
    write_login(tmp_path, lasts=-5.0)
    backend = personal(transport, "http://127.0.0.1:1", tmp_path, refresh="read-only", gemini_cli_executable="/none")
    assert not backend.usable and "has expired; run `gemini`" in backend.reason
    path = write_login(tmp_path, "token-2", lasts=60.0)
    before = path.read_bytes()
    assert (await backend.login.token()).access.reveal() == "token-2"
    assert await backend.login.refused(await backend.login.token()) is None
    assert path.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == [path]
    await backend.close()


# Direct refresh


class TokenServer:
    """Google's token endpoint; `answer` is what it says."""

    def __init__(self, answer: Reply) -> None:
        self.answer = answer
        self.upstream = Upstream(lambda request: self.answer)

    def file(self, path: Path, transport: Transport) -> CredentialFile:
        renewal = refresher(transport, "client", Secret("client-secret"), f"{self.upstream.url}/token")
        return CredentialFile(
            ID, [path], read=read, command="gemini", refresh_token=refresh_token, refresher=renewal, early=120.0,
            pause=Pauses(),
        )  # fmt: skip


async def test_with_client_id_and_secret_the_proxy_refreshes_itself(transport: Transport, tmp_path: Path) -> None:
    path = write_login(tmp_path, lasts=-5.0, scope="a b", other={"kept": True})
    new = {"access_token": "token-9", "expires_in": 3599, "token_type": "Bearer", "id_token": "x"}
    server = TokenServer(Reply.json(new))
    async with server.upstream:
        file = server.file(path, transport)
        tokens = await asyncio.gather(*(file.token() for _ in range(20)))
        assert {token.access.reveal() for token in tokens} == {"token-9"}
        assert len(server.upstream.requests) == 1
        sent: Received = server.upstream.requests[0]
        assert sent.header("content-type") == "application/x-www-form-urlencoded"
        assert sorted(sent.body.split(b"&")) == [
            b"client_id=client", b"client_secret=client-secret", b"grant_type=refresh_token", b"refresh_token=refresh-1",
        ]  # fmt: skip
        kept = msgspec.json.decode(path.read_bytes())
        assert (kept["access_token"], kept["refresh_token"], kept["other"]) == ("token-9", "refresh-1", {"kept": True})
        assert kept["expiry_date"] / 1000 == pytest.approx(time.time() + 3599, abs=60)
        assert path.stat().st_mode & 0o777 == 0o600
        await file.close()


async def test_a_revoked_refresh_token_names_the_command(transport: Transport, tmp_path: Path) -> None:
    path = write_login(tmp_path, lasts=-5.0)
    revoked = {"error": "invalid_grant", "error_description": "Token has been expired or revoked."}
    server = TokenServer(Reply.json(revoked, 400))
    async with server.upstream:
        file = server.file(path, transport)
        with pytest.raises(FaultError) as caught:
            await file.token()
        assert "`gemini`" in caught.value.fault.message
        assert caught.value.fault.code == f"{ID}_credentials_invalid"
        await file.close()


def test_client_id_and_secret_choose_the_direct_way(transport: Transport, tmp_path: Path) -> None:
    write_login(tmp_path)
    members = {"oauth_client_id": "c", "oauth_client_secret": Secret("s")}
    assert isinstance(personal(transport, "http://127.0.0.1:1", tmp_path, **members).login, CredentialFile)
    assert isinstance(personal(transport, "http://127.0.0.1:1", tmp_path).login, CliLogin)


def test_the_id_token_names_the_account() -> None:
    # {"sub": "1234", "email": "me@example.org"}
    claims = "eyJzdWIiOiAiMTIzNCIsICJlbWFpbCI6ICJtZUBleGFtcGxlLm9yZyJ9"
    token = read(
        {"access_token": "a", "refresh_token": "r", "id_token": f"h.{claims}.s", "expiry_date": 2_000_000_000_000}
    )
    assert (token.account, token.hint, token.expires) == ("1234", "me@example.org", 2e9)
    for broken in ("", "x", "a.b.c", "h.!!!.s", 7):
        assert read({"access_token": "a", "refresh_token": "r", "id_token": broken}).account


# The day's requests


async def test_warnings_at_70_80_and_90_per_cent_and_no_block(caplog: pytest.LogCaptureFixture) -> None:
    wall = 1_700_000_000.0
    count = DailyCount("g", 10, lambda: wall)
    with caplog.at_level(logging.WARNING):
        for _ in range(15):
            count.add()
        assert [record.args[1] for record in caplog.records if isinstance(record.args, tuple)] == [70, 80, 90]
        wall += 86400
        count.add()
    assert (count.used, len(caplog.records)) == (1, 3)


@pytest.mark.parametrize(
    ("first", "second", "used"),
    [
        (1_751_439_540.0, 1_751_439_660.0, 1),  # 2025-07-01 23:59 and 2025-07-02 00:01 in Los Angeles (summer time)
        (1_751_414_340.0, 1_751_414_460.0, 2),  # midnight UTC is the middle of that day
    ],
)
def test_the_day_is_a_pacific_one(first: float, second: float, used: int) -> None:
    moment = first
    count = DailyCount("g", 1000, lambda: moment)
    count.add()
    moment = second
    count.add()
    assert count.used == used


def test_limit_0_counts_nothing() -> None:
    count = DailyCount("g", 0, time.time)
    count.add()
    assert count.used == 0


async def test_each_generation_counts(transport: Transport, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_login(tmp_path)
    async with CodeAssist() as server:
        backend = personal(transport, server.upstream.url, tmp_path, daily_request_limit=3)
        with caplog.at_level(logging.WARNING):
            statuses = [(await answered(backend))[0] for _ in range(4)]
        assert statuses == [200] * 4
        assert len([record for record in caplog.records if "requests are used" in record.getMessage()]) == 1
        await backend.close()
