"""BE-14, BE-15: a ChatGPT subscription, against a server that behaves like the vendor's."""

from __future__ import annotations

import asyncio
import json
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.backends.base import Call
from llm_proxy.backends.logins import openai
from llm_proxy.backends.logins.credential_file import CredentialFile
from llm_proxy.backends.logins.document import Unreadable
from llm_proxy.backends.logins.openai import OpenAILogin, Renewal, paths, read
from llm_proxy.backends.transport import Transport
from llm_proxy.conversation.fault import FaultError
from llm_proxy.dialects import get
from llm_proxy.routing.retry_after import stated_wait
from tests.backends.logins.vendor import TOKEN_PATH, Vendor, fields_of, jwt, read_login, write_login
from tests.backends.settings import backend_settings
from tests.support.upstream import Reply, Upstream

BODY = json.dumps({"model": "gpt-5.4", "input": [{"role": "user", "content": "hi"}], "temperature": 0.5}).encode()
ANSWER = Reply.sse(b'data: {"type":"response.completed","response":{"id":"resp_1","output":[]}}\n\n')


def access(lifetime: float = 3600.0, **claims: Any) -> str:
    return jwt(exp=int(time.time() + lifetime), **claims)


def login_file(folder: Path, token: str, **members: Any) -> Path:
    tokens = {
        "access_token": token,
        "refresh_token": "refresh-token-number-0000",
        "account_id": "acc-1",
        "id_token": "x",
    }
    return write_login(folder / "auth.json", {"OPENAI_API_KEY": None, "tokens": tokens, "x_kept": 1, **members})


async def no_pause(seconds: float) -> None:
    await asyncio.sleep(0)


@asynccontextmanager
async def backend_of(
    transport: Transport, upstream: Upstream, file: Path, **members: Any
) -> AsyncIterator[OpenAILogin]:
    settings = backend_settings(
        "openai-oauth", mentioned=True, token_path=file, base_url=f"{upstream.url}/backend-api/codex", **members
    )
    login = CredentialFile(
        settings.id,
        paths(settings),
        read=read,
        command=openai.COMMAND,
        refresh_token=openai.refresh_token,
        refresher=Renewal(transport, upstream.url + TOKEN_PATH),
        read_only=settings.refresh == "read-only",
        early=openai.EARLY,
        pause=no_pause,
    )
    backend = OpenAILogin(settings, transport, login, clock=time.monotonic)
    try:
        yield backend
    finally:
        await backend.close()


def call(**members: Any) -> Call:
    return Call(**{"dialect": "openai-responses", "model": "gpt-5.4", "body": BODY, **members})


async def answered(backend: OpenAILogin, **members: Any) -> tuple[int, bytes]:
    response = await backend.open(call(**members))
    try:
        return response.status, await response.read()
    finally:
        response.close()


async def test_a_call_goes_to_the_service_as_its_own_client_makes_it(transport: Transport, tmp_path: Path) -> None:
    token = access()
    vendor = Vendor(ANSWER, token)
    async with Upstream(vendor) as upstream, backend_of(transport, upstream, login_file(tmp_path, token)) as backend:
        assert backend.usable and backend.functional
        assert (await answered(backend, identity={"user-agent": "ua/1", "x-title": "t", "http-referer": "r"}))[0] == 200
        request = vendor.calls[0]
        assert request.path == "/backend-api/codex/responses"
        assert request.header("authorization") == f"Bearer {token}"
        assert request.header("chatgpt-account-id") == "acc-1"
        assert request.header("openai-beta") == "responses=experimental"
        assert request.header("originator") == "llm-interactive-proxy"
        assert request.header("user-agent") == "ua/1"
        assert request.header("x-title") is None and request.header("http-referer") is None
        assert request.header("accept") == "text/event-stream"
        assert request.header("session_id") == request.header("conversation_id") == request.json["prompt_cache_key"]
        assert request.json["stream"] is True and request.json["store"] is False
        assert "temperature" not in request.json
        assert vendor.renewals == []


async def test_it_speaks_responses_to_every_client(transport: Transport, tmp_path: Path) -> None:
    async with Upstream(ANSWER) as upstream, backend_of(transport, upstream, login_file(tmp_path, "t")) as backend:
        assert {backend.dialect_for(name) for name in ("openai-chat", "anthropic-messages", "gemini")} == {
            "openai-responses"
        }
        able = backend.capabilities("gpt-5.1", "openai-responses")
        assert (able.sampling, able.sampling_when_off) == ("none", False)


async def test_the_clients_beta_is_kept_beside_the_services(transport: Transport, tmp_path: Path) -> None:
    token = access()
    vendor = Vendor(ANSWER, token)
    async with Upstream(vendor) as upstream, backend_of(transport, upstream, login_file(tmp_path, token)) as backend:
        await answered(backend, headers={"openai-beta": "other=1"})
        assert vendor.calls[0].header("openai-beta") == "other=1,responses=experimental"


async def test_a_token_that_expires_in_100_seconds_is_renewed_before_the_call(
    transport: Transport, tmp_path: Path
) -> None:
    old = access(100)
    vendor = Vendor(ANSWER, old, mint=lambda number: access(3600, n=number))
    file = login_file(tmp_path, old)
    async with Upstream(vendor) as upstream, backend_of(transport, upstream, file) as backend:
        assert (await answered(backend))[0] == 200
        assert fields_of(vendor.renewals[0]) == {
            "client_id": "app_EMoamEEZ73f0CkXaXp7hrann",
            "grant_type": "refresh_token",
            "refresh_token": "refresh-token-number-0000",
            "scope": "openid profile email",
        }
        kept = read_login(file)
        (new,) = vendor.good
        assert vendor.calls[0].header("authorization") == f"Bearer {new}"
        assert kept["tokens"]["access_token"] == new and kept["tokens"]["refresh_token"] == vendor.refresh
        assert kept["tokens"]["account_id"] == "acc-1" and kept["x_kept"] == 1
        assert kept["last_refresh"].endswith("Z")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_an_expired_token_and_20_parallel_requests_make_one_renewal(transport: Transport, tmp_path: Path) -> None:
    vendor = Vendor(ANSWER, mint=lambda number: access(3600, n=number))
    async with Upstream(vendor) as upstream:
        async with backend_of(transport, upstream, login_file(tmp_path, access(-5))) as backend:
            found = await asyncio.gather(*(answered(backend) for _ in range(20)))
        assert [status for status, _ in found] == [200] * 20
        assert len(vendor.renewals) == 1


async def test_a_refusal_in_mid_life_forces_one_renewal_and_one_repeat(transport: Transport, tmp_path: Path) -> None:
    vendor = Vendor(ANSWER, mint=lambda number: access(3600, n=number))
    file = login_file(tmp_path, access())
    async with Upstream(vendor) as upstream, backend_of(transport, upstream, file) as backend:
        assert (await answered(backend))[0] == 200
        assert (len(vendor.calls), len(vendor.renewals)) == (2, 1)
        assert read_login(file)["tokens"]["refresh_token"] == vendor.refresh
        assert backend.degraded == ""


async def test_a_refusal_with_a_new_login_on_disk_uses_that_one(transport: Transport, tmp_path: Path) -> None:
    fresh = access(3600, n="cli")
    file = login_file(tmp_path, access())
    vendor = Vendor(ANSWER, fresh)
    async with Upstream(vendor) as upstream, backend_of(transport, upstream, file) as backend:
        assert backend.usable
        login_file(tmp_path, fresh)
        assert (await answered(backend))[0] == 200
        assert vendor.renewals == []


@pytest.mark.parametrize(
    "answer",
    [
        Reply.json({"error": "invalid_grant", "error_description": "refresh-token-number-0000 is spent"}, 400),
        Reply.json({"error": {"message": "Could not validate your token.", "code": "token_expired"}}, 401),
        Reply.json({"error": {"message": "already used", "code": "refresh_token_reused"}}, 401),
    ],
)
async def test_a_revoked_login_is_told_with_the_command_and_without_a_token(
    transport: Transport, tmp_path: Path, answer: Reply
) -> None:
    token = access()
    vendor = Vendor(ANSWER)
    vendor.revoked = answer
    async with Upstream(vendor) as upstream, backend_of(transport, upstream, login_file(tmp_path, token)) as backend:
        with pytest.raises(FaultError) as caught:
            await backend.open(call())
        fault = caught.value.fault
        assert (fault.status_code, fault.code, fault.kind) == (502, "openai-oauth_credentials_invalid", "upstream_auth")
        assert "codex login" in fault.message
        assert token not in fault.message and "refresh-token-number" not in fault.message
        assert len(vendor.renewals) == 1
        # The next success ends it: the CLI was run meanwhile.
        fresh = access(3600, n="new")
        vendor.good = {fresh}
        login_file(tmp_path, fresh)
        assert (await answered(backend))[0] == 200
        assert backend.degraded == ""


async def test_a_token_endpoint_that_is_down_for_a_moment_is_asked_again(transport: Transport, tmp_path: Path) -> None:
    vendor = Vendor(ANSWER, mint=lambda number: access(3600, n=number))
    failures = [Reply(status=503, body=b"<html>busy"), Reply.json({"no": "token"})]

    def script(request: Any) -> Reply:
        return failures.pop() if request.path == TOKEN_PATH and failures else vendor(request)

    async with (
        Upstream(script) as upstream,
        backend_of(transport, upstream, login_file(tmp_path, access(-5))) as backend,
    ):
        assert (await answered(backend))[0] == 200
    assert failures == []


async def test_read_only_never_renews_and_never_writes(transport: Transport, tmp_path: Path) -> None:
    file = login_file(tmp_path, access(-5))
    before = file.read_bytes()
    vendor = Vendor(ANSWER)
    async with Upstream(vendor) as upstream:
        async with backend_of(transport, upstream, file, refresh="read-only") as backend:
            assert not backend.usable and "codex login" in backend.reason
            with pytest.raises(FaultError):
                await backend.open(call())
        assert upstream.requests == []
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("body", "wait"),
    [
        ({"error": {"type": "usage_limit_reached", "message": "m", "resets_in_seconds": 4000}}, 4001.0),
        ({"error": {"type": "usage_limit_reached", "message": "m"}}, None),
        (["odd"], None),
    ],
)
async def test_a_spent_quota_says_when_it_is_there_again(
    transport: Transport, tmp_path: Path, body: Any, wait: float | None
) -> None:
    token = access()
    vendor = Vendor(Reply.json(body, 429), token)
    async with Upstream(vendor) as upstream, backend_of(transport, upstream, login_file(tmp_path, token)) as backend:
        response = await backend.open(call())
        text = await response.read()
        assert response.status == 429 and json.loads(text) == body
        fault = get("openai-responses").read_error(429, response.headers, text)
        assert fault.kind == "rate_limit"
        assert stated_wait(fault, response.headers, time.time()) == wait
        assert vendor.renewals == []


async def test_a_quota_that_names_its_moment_is_waited_for(transport: Transport, tmp_path: Path) -> None:
    token = access()
    reply = Reply.json({"error": {"type": "usage_limit_reached", "resets_at": time.time() + 100}}, 429)
    async with (
        Upstream(Vendor(reply, token)) as upstream,
        backend_of(transport, upstream, login_file(tmp_path, token)) as backend,
    ):
        response = await backend.open(call())
        assert 90 <= int(dict(response.headers)["retry-after"]) <= 101
        response.close()


async def test_a_parameter_that_the_service_refuses_is_left_out_from_then_on(
    transport: Transport, tmp_path: Path
) -> None:
    token = access()

    def answer(request: Any) -> Reply:
        for name in ("verbosity", "x_more"):
            if name in request.json:
                return Reply.json({"detail": f"Unsupported parameter: {name}"}, 400)
        return ANSWER

    vendor = Vendor(answer, token)
    body = json.dumps({"model": "m", "input": [], "verbosity": "low", "x_more": 1}).encode()
    async with Upstream(vendor) as upstream, backend_of(transport, upstream, login_file(tmp_path, token)) as backend:
        assert (await answered(backend, body=body))[0] == 200
        assert len(vendor.calls) == 3
        assert (await answered(backend, body=body))[0] == 200
        assert len(vendor.calls) == 4


async def test_any_other_400_is_given_on_as_it_is(transport: Transport, tmp_path: Path) -> None:
    token = access()
    vendor = Vendor(Reply.json({"detail": "Unsupported parameter: input"}, 400), token)
    async with Upstream(vendor) as upstream, backend_of(transport, upstream, login_file(tmp_path, token)) as backend:
        assert await answered(backend) == (400, b'{"detail":"Unsupported parameter: input"}')
        assert len(vendor.calls) == 1


async def test_an_api_key_in_the_file_makes_it_plain_openai(transport: Transport, tmp_path: Path) -> None:
    file = write_login(tmp_path / "auth.json", {"OPENAI_API_KEY": "sk-proj-0123456789", "tokens": None})
    vendor = Vendor(Reply.json({}), "sk-proj-0123456789")
    async with Upstream(vendor) as upstream:
        settings = backend_settings("openai-oauth", mentioned=True, token_path=file)
        login = CredentialFile(settings.id, paths(settings), read=read, command=openai.COMMAND)
        backend = OpenAILogin(settings, transport, login, clock=time.monotonic, platform=f"{upstream.url}/v1")
        try:
            assert backend.usable
            assert (await answered(backend))[0] == 200
            assert backend.capabilities("gpt-4.1", "openai-responses").sampling == "all"
        finally:
            await backend.close()
    request = vendor.calls[0]
    assert request.path == "/v1/responses" and request.body == BODY
    assert request.header("chatgpt-account-id") is None and request.header("session_id") is None


async def test_what_is_left_out_is_told(transport: Transport, tmp_path: Path) -> None:
    token = access()
    body = {"model": "gpt-5.4", "input": "hi", "temperature": 0.5, "top_p": None, "max_output_tokens": 9, "user": "u"}
    vendor = Vendor(ANSWER, token)
    async with Upstream(vendor) as upstream, backend_of(transport, upstream, login_file(tmp_path, token)) as backend:
        response = await backend.open(call(body=json.dumps(body).encode()))
        told = getattr(response, "losses", ())
        assert [loss.partition(":")[0] for loss in told] == ["temperature", "max_output_tokens", "user"]
        assert b"response.completed" in await response.read()
        response.close()
        silent = await backend.open(call(body=b'{"model":"gpt-5.4","input":"hi"}'))
        assert not getattr(silent, "losses", ())
        silent.close()


async def test_the_originator_is_the_proxy_s_unless_it_is_configured(transport: Transport, tmp_path: Path) -> None:
    token = access()
    vendor = Vendor(ANSWER, token)
    own = {"Originator": "my_tool"}
    async with (
        Upstream(vendor) as upstream,
        backend_of(transport, upstream, login_file(tmp_path, token), headers=own) as backend,
    ):
        await answered(backend)
    assert vendor.calls[0].header("originator") == "my_tool"


# The file


def test_a_key_is_not_renewed_by_what_is_left_of_a_login() -> None:
    left = {"OPENAI_API_KEY": "sk-proj-0123456789", "tokens": {"refresh_token": "refresh-token-number-0000"}}
    assert read(left).members == {"api_key": True}
    assert openai.refresh_token(left) is None


def test_the_account_is_the_files_else_the_tokens() -> None:
    claimed = jwt(exp=1, **{"https://api.openai.com/auth": {"chatgpt_account_id": "acc-claimed"}})
    assert read({"tokens": {"access_token": claimed, "account_id": "acc-file"}}).account == "acc-file"
    assert read({"tokens": {"access_token": claimed}}).account == "acc-claimed"
    assert read({"tokens": {"access_token": "opaque", "id_token": claimed}}).account == "acc-claimed"


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"tokens": {}},
        {"tokens": "x"},
        {"tokens": {"access_token": 5}},
        {"tokens": {"access_token": "opaque-token-value"}},
        {"tokens": {"access_token": "opaque-token-value", "account_id": "a\r\nb"}},
        {"tokens": {"access_token": "e30.e30.%%%"}},
        {"tokens": {"access_token": "a.W10.b"}},
    ],
)
def test_a_file_with_a_missing_field_is_unreadable_and_shows_no_token(document: dict[str, Any]) -> None:
    with pytest.raises(Unreadable) as caught:
        read(document)
    assert "opaque-token-value" not in str(caught.value)


async def test_without_a_file_the_command_is_named(transport: Transport, tmp_path: Path) -> None:
    async with Upstream(ANSWER) as upstream, backend_of(transport, upstream, tmp_path / "auth.json") as backend:
        assert not backend.usable and "codex login" in backend.reason
        with pytest.raises(FaultError, match="codex login"):
            await backend.open(call())
        assert upstream.requests == []


def test_the_file_is_found_where_the_cli_keeps_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    settings = backend_settings("openai-oauth")
    assert paths(settings, {}) == (tmp_path / ".codex" / "auth.json",)
    assert paths(settings, {"CODEX_HOME": "/srv/codex"}) == (Path("/srv/codex/auth.json"),)
    own = backend_settings("openai-oauth", token_path=Path("/srv/own"))
    assert paths(own, {"CODEX_HOME": "/srv/codex"}) == (Path("/srv/own"), Path("/srv/own/auth.json"))


def test_it_is_built_of_its_settings(transport: Transport, tmp_path: Path) -> None:
    settings = backend_settings("openai-oauth", mentioned=True, token_path=login_file(tmp_path, access()))
    backend = openai.build(settings, transport, time.monotonic)
    assert str(backend.origin) == "https://chatgpt.com"
    assert backend.usable
    asyncio.run(backend.close())
