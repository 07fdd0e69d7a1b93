"""BE-16: a Claude subscription, against a server that behaves like the vendor's."""

from __future__ import annotations

import asyncio
import stat
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.backends.base import Call
from llm_proxy.backends.logins import anthropic
from llm_proxy.backends.logins.anthropic import AnthropicLogin, Renewal, paths, read, refresh_token
from llm_proxy.backends.logins.credential_file import CredentialFile
from llm_proxy.backends.logins.document import Unreadable
from llm_proxy.backends.logins.keychain import KeychainLogin
from llm_proxy.backends.transport import Transport
from llm_proxy.conversation.fault import FaultError
from tests.backends.logins.vendor import TOKEN_PATH, Vendor, fields_of, read_login, write_login
from tests.backends.settings import backend_settings
from tests.support.upstream import Reply, Upstream

TOKEN = "sk-ant-oat01-0123456789"
BODY = b'{"model":"claude-sonnet-4-6","max_tokens":5,"messages":[]}'
FORMS = ["claudeAiOauth", "oauth_creds", "oauth_creds in seconds"]


def login_of(form: str, lifetime: float = 3600.0) -> dict[str, Any]:
    """The members of a file in one of the forms that exist."""
    end, refresh = time.time() + lifetime, "refresh-token-number-0000"
    if form == "claudeAiOauth":
        own = {
            "accessToken": TOKEN,
            "refreshToken": refresh,
            "expiresAt": int(end * 1000),
            "scopes": ["user:inference"],
        }
        return {"claudeAiOauth": own, "mcpOAuth": {"kept": 1}}
    if form == "oauth_creds":
        return {"access_token": TOKEN, "refresh_token": refresh, "expiry_date": int(end * 1000), "kept": 1}
    return {"access_token": TOKEN, "refresh_token": refresh, "expires_at": int(end), "kept": 1}


async def no_pause(seconds: float) -> None:
    await asyncio.sleep(0)


@asynccontextmanager
async def backend_of(
    transport: Transport, upstream: Upstream, file: Path, **members: Any
) -> AsyncIterator[AnthropicLogin]:
    settings = backend_settings("anthropic-oauth", mentioned=True, token_path=file, base_url=upstream.url, **members)
    login = CredentialFile(
        settings.id,
        paths(settings),
        read=read,
        command=anthropic.COMMAND,
        refresh_token=refresh_token,
        refresher=Renewal(transport, upstream.url + TOKEN_PATH),
        early=anthropic.EARLY,
        pause=no_pause,
    )
    backend = AnthropicLogin(settings, transport, login, clock=time.monotonic)
    try:
        yield backend
    finally:
        await backend.close()


async def answered(backend: AnthropicLogin, **members: Any) -> tuple[int, bytes]:
    call = Call(**{"dialect": "anthropic-messages", "model": "claude-sonnet-4-6", "body": BODY, **members})
    response = await backend.open(call)
    try:
        return response.status, await response.read()
    finally:
        response.close()


@pytest.mark.parametrize("form", FORMS)
async def test_a_call_carries_bearer_and_the_beta(transport: Transport, tmp_path: Path, form: str) -> None:
    vendor = Vendor(Reply.json({}), TOKEN)
    file = write_login(tmp_path / "login.json", login_of(form))
    async with Upstream(vendor) as upstream, backend_of(transport, upstream, file) as backend:
        assert (await answered(backend))[0] == 200
    request = vendor.calls[0]
    assert request.path == "/v1/messages" and request.body == BODY
    assert request.header("authorization") == f"Bearer {TOKEN}"
    assert request.header("anthropic-beta") == "oauth-2025-04-20"
    assert request.header("anthropic-version") == "2023-06-01"
    assert request.header("x-api-key") is None
    assert request.header("x-title") is None
    assert vendor.renewals == []


async def test_the_clients_and_the_configured_betas_are_merged_with_it(transport: Transport, tmp_path: Path) -> None:
    vendor = Vendor(Reply.json({}), TOKEN)
    file = write_login(tmp_path / "login.json", login_of("claudeAiOauth"))
    async with (
        Upstream(vendor) as upstream,
        backend_of(transport, upstream, file, headers={"Anthropic-Beta": "c-1"}) as backend,
    ):
        await answered(backend, headers={"anthropic-beta": "a-1, oauth-2025-04-20,b-2"})
    assert vendor.calls[0].header("anthropic-beta") == "c-1,a-1,oauth-2025-04-20,b-2"


async def test_tokens_are_counted_with_the_login_too(transport: Transport, tmp_path: Path) -> None:
    vendor = Vendor(Reply.json({"input_tokens": 3}), TOKEN)
    file = write_login(tmp_path / "login.json", login_of("claudeAiOauth"))
    async with Upstream(vendor) as upstream, backend_of(transport, upstream, file) as backend:
        assert backend.supports("count")
        await answered(backend, action="count")
    assert vendor.calls[0].path == "/v1/messages/count_tokens"


async def test_an_api_key_in_the_file_is_sent_as_one(transport: Transport, tmp_path: Path) -> None:
    vendor = Vendor(Reply.json({}), "sk-ant-api03-0123456789")
    file = write_login(tmp_path / "oauth_creds.json", {"api_key": "sk-ant-api03-0123456789"})
    async with Upstream(vendor) as upstream, backend_of(transport, upstream, file) as backend:
        assert (await answered(backend))[0] == 200
    request = vendor.calls[0]
    assert request.header("x-api-key") == "sk-ant-api03-0123456789"
    assert request.header("authorization") is None and request.header("anthropic-beta") is None


@pytest.mark.parametrize("form", FORMS)
async def test_an_expired_token_is_renewed_first(transport: Transport, tmp_path: Path, form: str) -> None:
    vendor = Vendor(Reply.json({}), TOKEN)
    file = write_login(tmp_path / "login.json", login_of(form, -10))
    async with Upstream(vendor) as upstream, backend_of(transport, upstream, file) as backend:
        assert (await answered(backend))[0] == 200
        assert backend.login.found is not None and backend.login.found.expires == pytest.approx(
            time.time() + 3600, abs=30
        )
    assert len(vendor.calls) == len(vendor.renewals) == 1
    assert vendor.renewals[0].header("content-type") == "application/json"
    assert fields_of(vendor.renewals[0]) == {
        "grant_type": "refresh_token",
        "refresh_token": "refresh-token-number-0000",
        "client_id": "9d1c250a-e61b-44d9-88ed-5944d1962f5e",
    }
    kept, before = read_login(file), login_of(form)
    (new,) = vendor.good
    if form == "claudeAiOauth":
        own = kept["claudeAiOauth"]
        assert (own["accessToken"], own["refreshToken"]) == (new, vendor.refresh)
        assert own["scopes"] == ["user:inference"] and kept["mcpOAuth"] == {"kept": 1}
        assert own["expiresAt"] == pytest.approx(before["claudeAiOauth"]["expiresAt"], abs=30_000)
    else:
        assert kept.keys() == before.keys() and kept["kept"] == 1
        assert (kept["access_token"], kept["refresh_token"]) == (new, vendor.refresh)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_a_refusal_in_mid_life_forces_one_renewal_and_one_repeat(transport: Transport, tmp_path: Path) -> None:
    vendor = Vendor(Reply.json({}))
    file = write_login(tmp_path / "login.json", login_of("claudeAiOauth"))
    async with Upstream(vendor) as upstream, backend_of(transport, upstream, file) as backend:
        assert (await answered(backend))[0] == 200
    assert (len(vendor.calls), len(vendor.renewals)) == (2, 1)


async def test_a_revoked_login_is_told_with_the_command_and_without_a_token(
    transport: Transport, tmp_path: Path
) -> None:
    vendor = Vendor(Reply.json({}))
    vendor.revoked = Reply.json({"error": "invalid_grant", "error_description": "Refresh token not found"}, 400)
    file = write_login(tmp_path / "login.json", login_of("claudeAiOauth", -10))
    async with Upstream(vendor) as upstream, backend_of(transport, upstream, file) as backend:
        with pytest.raises(FaultError) as caught:
            await answered(backend)
    fault = caught.value.fault
    assert (fault.status_code, fault.code) == (502, "anthropic-oauth_credentials_invalid")
    assert "claude" in fault.message and TOKEN not in fault.message and "refresh-token" not in fault.message
    assert vendor.calls == []


FOR_CLAUDE_CODE = {
    "type": "error",
    "error": {
        "type": "invalid_request_error",
        "message": "This credential is only authorized for use with Claude Code and cannot be used for other API requests.",
    },
}


async def test_a_login_that_serves_claude_code_only_is_refused_with_advice(
    transport: Transport, tmp_path: Path
) -> None:
    vendor = Vendor(Reply.json(FOR_CLAUDE_CODE, 400), TOKEN)
    file = write_login(tmp_path / "login.json", login_of("claudeAiOauth"))
    async with Upstream(vendor) as upstream, backend_of(transport, upstream, file) as backend:
        with pytest.raises(FaultError) as caught:
            await answered(backend)
        fault = caught.value.fault
        assert (fault.status_code, fault.code) == (502, "anthropic-oauth_credentials_invalid")
        assert fault.kind == "upstream_auth"
        assert "`anthropic`" in fault.message and "API key" in fault.message
        assert (len(vendor.calls), vendor.renewals) == (1, []), "neither a renewal nor a repeat would help"
        assert "`anthropic`" in backend.degraded and backend.usable
        vendor.answer = Reply.json({})
        assert (await answered(backend))[0] == 200
        assert backend.degraded == ""


async def test_another_400_is_the_clients_to_see(transport: Transport, tmp_path: Path) -> None:
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": "max_tokens: Field required"}}
    vendor = Vendor(Reply.json(error, 400), TOKEN)
    file = write_login(tmp_path / "login.json", login_of("claudeAiOauth"))
    async with Upstream(vendor) as upstream, backend_of(transport, upstream, file) as backend:
        status, body = await answered(backend)
        assert status == 400 and b"max_tokens: Field required" in body
        assert backend.degraded == ""


async def test_a_spent_quota_is_given_on_with_its_text(transport: Transport, tmp_path: Path) -> None:
    body = {"type": "error", "error": {"type": "rate_limit_error", "message": "This request would exceed your limit."}}
    vendor = Vendor(Reply.json(body, 429, headers=[("retry-after", "77")]), TOKEN)
    file = write_login(tmp_path / "login.json", login_of("claudeAiOauth"))
    async with Upstream(vendor) as upstream, backend_of(transport, upstream, file) as backend:
        status, text = await answered(backend)
    assert status == 429 and b"exceed your limit" in text
    assert len(vendor.calls) == 1 and vendor.renewals == []


# The file


@pytest.mark.parametrize(
    "document", [{}, {"claudeAiOauth": {}}, {"claudeAiOauth": {"accessToken": ""}}, {"access_token": 1}]
)
def test_a_file_with_a_missing_field_is_unreadable(document: dict[str, Any]) -> None:
    with pytest.raises(Unreadable, match="accessToken"):
        read(document)


def test_the_file_is_found_where_either_tool_keeps_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert paths(backend_settings("anthropic-oauth"), {"APPDATA": "/roaming"}) == (
        tmp_path / ".claude/.credentials.json",
        tmp_path / ".anthropic/oauth_creds.json",
        tmp_path / ".claude/oauth_creds.json",
        tmp_path / ".config/claude/oauth_creds.json",
        Path("/roaming/Claude/oauth_creds.json"),
    )
    own = Path("/srv/own")
    assert paths(backend_settings("anthropic-oauth", token_path=own)) == (
        own,
        own / ".credentials.json",
        own / "oauth_creds.json",
    )


def test_the_keychain_is_read_on_macos_only(transport: Transport) -> None:
    settings = backend_settings("anthropic-oauth", mentioned=True, macos_keychain=True)
    backend = anthropic.build(settings, transport, time.monotonic)
    assert isinstance(backend.login, KeychainLogin)
    if sys.platform == "darwin":
        assert backend.usable
    else:
        assert not backend.usable and "macOS" in backend.reason
