"""BE-17, the cloud project: Google's own library gets the token, the configured project is always sent."""

from __future__ import annotations

import asyncio
import json
import time
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from llm_proxy.backends.base import Call
from llm_proxy.backends.logins import google_cloud
from llm_proxy.backends.logins.gemini import CodeAssistBackend, build_cloud
from llm_proxy.backends.logins.google_cloud import SCOPES, CloudLogin
from llm_proxy.backends.transport import Transport
from llm_proxy.conversation.fault import FaultError
from tests.backends.logins.code_assist_server import CodeAssist
from tests.backends.settings import backend_settings
from tests.support.upstream import Received, Reply, Upstream

ID = "gemini-cli-cloud-project"


@lru_cache
def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


class TokenServer:
    """Google's token endpoint: `token-1`, `token-2` … or an error."""

    def __init__(self) -> None:
        self.lasts = 3600
        self.error: Reply | None = None
        self.upstream = Upstream(self.reply)

    def reply(self, request: Received) -> Reply:
        if self.error is not None:
            return self.error
        token = f"token-{len(self.upstream.requests)}"
        return Reply.json({"access_token": token, "expires_in": self.lasts, "token_type": "Bearer"})

    def write(self, directory: Path, **members: Any) -> Path:
        """A service account's file whose tokens come from here."""
        path = directory / "account.json"
        account = {
            "type": "service_account",
            "project_id": "of-the-account",
            "private_key_id": "1",
            "private_key": private_key(),
            "client_email": "robot@mine.iam.example",
            "client_id": "1",
            "token_uri": f"{self.upstream.url}/token",
            **members,
        }
        path.write_text(json.dumps(account))
        return path


def cloud(transport: Transport, url: str, path: Path | None, project: str = "mine") -> CodeAssistBackend:
    settings = backend_settings(ID, base_url=url, gcp_project_id=project, credentials_path=path, mentioned=True)
    return build_cloud(settings, transport, time.monotonic)


async def ask(backend: CodeAssistBackend) -> int:
    response = await backend.open(Call(dialect="gemini", model="gemini-2.5-pro", body=b'{"contents":[]}'))
    await response.read()
    response.close()
    return response.status


async def test_the_configured_project_is_always_sent(transport: Transport, tmp_path: Path) -> None:
    tokens = TokenServer()
    async with tokens.upstream, CodeAssist(loaded={"cloudaicompanionProject": "mine"}, accepted={"token-1"}) as server:
        backend = cloud(transport, server.upstream.url, tokens.write(tmp_path))
        assert [await ask(backend) for _ in range(2)] == [200, 200]
        assert [one.json["project"] for one in server.generations] == ["mine", "mine"]
        assert [one.json["cloudaicompanionProject"] for one in server.loads] == ["mine"]
        await backend.close()


async def test_onboarding_includes_the_project_on_a_paid_tier(transport: Transport, tmp_path: Path) -> None:
    tokens = TokenServer()
    tiers = [{"id": "free-tier", "isDefault": True}, {"id": "standard-tier"}]
    async with (
        tokens.upstream,
        CodeAssist(loaded={"allowedTiers": tiers}, operations=[{"done": True, "response": {}}]) as server,
    ):
        backend = cloud(transport, server.upstream.url, tokens.write(tmp_path))
        assert await ask(backend) == 200
        sent = server.onboardings[0].json
        assert (sent["tierId"], sent["cloudaicompanionProject"]) == ("standard-tier", "mine")
        await backend.close()


async def test_the_scopes_are_asked_for_once_by_twenty_requests(tmp_path: Path) -> None:
    tokens = TokenServer()
    async with tokens.upstream:
        login = CloudLogin(ID, "mine", tokens.write(tmp_path))
        found = await asyncio.gather(*(login.token() for _ in range(20)))
        assert {token.access.reveal() for token in found} == {"token-1"}
        assert found[0].hint == "robot@mine.iam.example"
        assert found[0].expires == pytest.approx(time.time() + 3600, abs=60)
        assertion = parse_qs(tokens.upstream.requests[0].body.decode())["assertion"][0]
        assert len(tokens.upstream.requests) == 1
        assert claims_of(assertion)["scope"].split() == list(SCOPES)
        await login.close()


def claims_of(jwt: str) -> dict[str, Any]:
    from base64 import urlsafe_b64decode

    part = jwt.split(".")[1]
    claims: dict[str, Any] = msgspec.json.decode(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


async def test_a_token_about_to_end_is_renewed_first(tmp_path: Path) -> None:
    tokens = TokenServer()
    tokens.lasts = 200
    async with tokens.upstream:
        login = CloudLogin(ID, "mine", tokens.write(tmp_path))
        assert [(await login.token()).access.reveal() for _ in range(2)] == ["token-1", "token-2"]
        await login.close()


async def test_a_token_refused_in_mid_life_is_renewed_once(transport: Transport, tmp_path: Path) -> None:
    tokens = TokenServer()
    async with tokens.upstream, CodeAssist(loaded={"cloudaicompanionProject": "mine"}, accepted={"token-1"}) as server:
        backend = cloud(transport, server.upstream.url, tokens.write(tmp_path))
        await ask(backend)
        server.accepted = {"token-2"}
        assert await ask(backend) == 200
        server.accepted = set()
        with pytest.raises(FaultError) as caught:
            await ask(backend)
        fault = caught.value.fault
        assert (fault.status_code, fault.code) == (502, f"{ID}_credentials_invalid")
        assert "gcloud auth application-default login" in fault.message
        await backend.close()


async def test_a_new_file_is_used_by_the_next_call(tmp_path: Path) -> None:
    tokens = TokenServer()
    async with tokens.upstream:
        login = CloudLogin(ID, "mine", tokens.write(tmp_path))
        assert (await login.token()).access.reveal() == "token-1"
        assert (await login.token()).access.reveal() == "token-1"
        tokens.write(tmp_path, client_email="another@mine.iam.example")
        token = await login.token()
        assert (token.access.reveal(), token.account) == ("token-2", "another@mine.iam.example")
        await login.close()


async def test_a_login_refused_again_is_renewed_once_and_told_until_a_success(
    transport: Transport, tmp_path: Path
) -> None:
    tokens = TokenServer()
    async with (
        tokens.upstream,
        CodeAssist(loaded={"currentTier": {"id": "standard-tier"}}, accepted=set()) as server,
    ):
        backend = cloud(transport, server.upstream.url, tokens.write(tmp_path))
        for _ in range(2):
            with pytest.raises(FaultError):
                await ask(backend)
            assert "gcloud auth application-default login" in backend.degraded
        assert len(tokens.upstream.requests) == 2, "the first token, and one forced renewal"
        server.accepted = {"token-2"}
        assert await ask(backend) == 200
        assert backend.degraded == ""
        await backend.close()


async def test_credentials_that_google_refuses_are_told_until_there_are_others(tmp_path: Path) -> None:
    tokens = TokenServer()
    tokens.error = Reply.json({"error": "invalid_grant"}, 400)
    async with tokens.upstream:
        login = CloudLogin(ID, "mine", tokens.write(tmp_path))
        with pytest.raises(FaultError) as caught:
            await login.token()
        assert (caught.value.fault.status_code, caught.value.fault.code) == (502, f"{ID}_credentials_invalid")
        assert "gcloud auth application-default login" in login.degraded
        tokens.error = None
        tokens.write(tmp_path, client_email="another@mine.iam.example")
        assert (await login.token()).access.reveal() == "token-2"
        assert login.degraded == ""
        await login.close()


async def test_application_default_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = TokenServer()
    async with tokens.upstream:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tokens.write(tmp_path)))
        login = CloudLogin(ID, "mine")
        assert (await login.token()).access.reveal() == "token-1"
        await login.close()


KEYLESS = '{"type": "service_account"}'


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"type": 1}', '{"type": "nonsense"}', KEYLESS])
async def test_a_file_that_cannot_be_used_names_the_command(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "account.json"
    if text is not None:
        path.write_text(text)
    login = CloudLogin(ID, "mine", path)
    assert (
        str(path) in login.reason and "run `gcloud auth application-default login`" in login.reason
    ) or text == KEYLESS
    with pytest.raises(FaultError) as caught:
        await login.token()
    fault = caught.value.fault
    assert (fault.status_code, fault.detail["code"]) == (503, "backend_unavailable")
    assert "gcloud auth application-default login" in fault.message
    await login.close()


async def test_a_refusal_repeats_nothing_that_google_said(tmp_path: Path) -> None:
    tokens = TokenServer()
    tokens.error = Reply.json({"error": "invalid_grant", "error_description": "Bad: SECRET-PART"}, 400)
    async with tokens.upstream:
        login = CloudLogin(ID, "mine", tokens.write(tmp_path))
        with pytest.raises(FaultError) as caught:
            await login.token()
        assert "refused the credentials" in caught.value.fault.message
        assert "SECRET-PART" not in caught.value.fault.message
        tokens.error = None
        assert (await login.token()).access.reveal() == "token-2"
        await login.close()


async def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(google_cloud, "_is_installed", lambda: False)
    login = CloudLogin(ID, "mine")
    assert "llm-interactive-proxy[google]" in login.reason
    with pytest.raises(FaultError) as caught:
        await login.token()
    assert caught.value.fault.status_code == 503


async def test_an_unset_project_names_the_variable(transport: Transport) -> None:
    """Given an unset project for the cloud kind, then 503 naming `GOOGLE_CLOUD_PROJECT`."""
    backend = build_cloud(backend_settings(ID, mentioned=True), transport, time.monotonic)
    assert not backend.usable and not backend.functional
    assert "GOOGLE_CLOUD_PROJECT" in backend.reason
    await backend.close()
