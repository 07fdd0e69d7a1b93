"""BE-19: Qwen Coder by login, against a server that behaves like the vendor's."""

from __future__ import annotations

import asyncio
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.backends.base import Call
from llm_proxy.backends.logins import qwen
from llm_proxy.backends.logins.credential_file import CredentialFile
from llm_proxy.backends.logins.document import Unreadable
from llm_proxy.backends.logins.qwen import QwenLogin, Renewal, base_of, paths, read
from llm_proxy.backends.transport import Transport
from llm_proxy.config.kinds import ModelLimits
from llm_proxy.conversation.fault import FaultError
from llm_proxy.dialects import get
from llm_proxy.wire.faults import UrlFault
from tests.backends.logins.vendor import TOKEN_PATH, Vendor, fields_of, read_login, write_login
from tests.backends.settings import backend_settings
from tests.support.upstream import Reply, Upstream

TOKEN = "qwen-token-0123456789"
BODY = b'{"model":"qwen3-coder-plus","messages":[]}'


def login_file(folder: Path, lifetime: float = 3600.0, **members: Any) -> Path:
    return write_login(
        folder / "oauth_creds.json",
        {
            "access_token": TOKEN,
            "refresh_token": "refresh-token-number-0000",
            "token_type": "Bearer",
            "expiry_date": int((time.time() + lifetime) * 1000),
            "kept": 1,
            **members,
        },
    )


async def no_pause(seconds: float) -> None:
    await asyncio.sleep(0)


@asynccontextmanager
async def backend_of(transport: Transport, upstream: Upstream, file: Path, **members: Any) -> AsyncIterator[QwenLogin]:
    settings = backend_settings("qwen-oauth", mentioned=True, token_path=file, **members)
    login = CredentialFile(
        settings.id,
        paths(settings),
        read=read,
        command=qwen.COMMAND,
        refresh_token=qwen.refresh_token,
        refresher=Renewal(transport, upstream.url + TOKEN_PATH, "proxy/1"),
        early=qwen.EARLY,
        pause=no_pause,
    )
    backend = QwenLogin(settings, transport, login, clock=time.monotonic)
    try:
        yield backend
    finally:
        await backend.close()


async def answered(backend: QwenLogin, **members: Any) -> tuple[int, bytes]:
    call = Call(**{"dialect": "openai-chat", "model": "qwen3-coder-plus", "body": BODY, **members})
    response = await backend.open(call)
    try:
        return response.status, await response.read()
    finally:
        response.close()


@pytest.mark.parametrize(
    ("place", "address"),
    [
        ("portal.qwen.ai", "https://portal.qwen.ai/v1"),
        ("https://portal.qwen.ai", "https://portal.qwen.ai/v1"),
        ("portal.qwen.ai/", "https://portal.qwen.ai/v1"),
        ("https://dashscope.aliyuncs.com/compatible-mode/v1", "https://dashscope.aliyuncs.com/compatible-mode/v1"),
        ("dashscope.aliyuncs.com/compatible-mode", "https://dashscope.aliyuncs.com/compatible-mode/v1"),
    ],
)
def test_calls_go_where_the_login_says(place: str, address: str) -> None:
    assert str(base_of(place)) == address


@pytest.mark.parametrize("place", ["http://portal.qwen.ai", "ftp://x", "a b", "https://u:p@portal.qwen.ai", "x?y=1"])
def test_a_place_that_must_not_have_the_token_makes_the_login_unreadable(place: str) -> None:
    with pytest.raises(UrlFault):
        base_of(place)
    with pytest.raises(Unreadable) as caught:
        read({"access_token": TOKEN, "resource_url": place})
    assert TOKEN not in str(caught.value)


async def test_without_a_place_the_vendors_own_address_is_used(transport: Transport, tmp_path: Path) -> None:
    async with Upstream(Reply.json({})) as upstream, backend_of(transport, upstream, login_file(tmp_path)) as backend:
        assert str(backend.base_of(await backend.login.token())) == "https://portal.qwen.ai/v1"


async def test_a_call_says_who_makes_it(transport: Transport, tmp_path: Path) -> None:
    vendor = Vendor(Reply.json({}), TOKEN)
    async with (
        Upstream(vendor) as upstream,
        backend_of(transport, upstream, login_file(tmp_path, resource_url=upstream.url)) as backend,
    ):
        assert (await answered(backend, identity={"user-agent": "ua/1", "x-title": "t", "http-referer": "r"}))[0] == 200
    request = vendor.calls[0]
    assert request.path == "/v1/chat/completions" and request.body == BODY
    assert request.header("authorization") == f"Bearer {TOKEN}"
    assert request.header("user-agent") == "ua/1" and request.header("x-title") is None


async def test_a_configured_address_counts_more_than_the_logins(transport: Transport, tmp_path: Path) -> None:
    vendor = Vendor(Reply.json({}), TOKEN)
    async with Upstream(vendor) as upstream:
        file = login_file(tmp_path, resource_url="elsewhere.example")
        async with backend_of(transport, upstream, file, base_url=f"{upstream.url}/own") as backend:
            await answered(backend)
    assert vendor.calls[0].path == "/own/chat/completions"


async def test_a_login_that_ends_in_60_seconds_is_renewed_once(transport: Transport, tmp_path: Path) -> None:
    async with Upstream(Reply.json({"where": "new"})) as elsewhere:
        vendor = Vendor(Reply.json({"where": "old"}), TOKEN, more={"resource_url": elsewhere.url, "status": "success"})
        async with Upstream(vendor) as upstream:
            file = login_file(tmp_path, 60, resource_url=upstream.url)
            async with backend_of(transport, upstream, file) as backend:
                # The reply's resource_url is kept, and where the call goes at once.
                assert await answered(backend) == (200, b'{"where":"new"}')
                assert (await answered(backend))[0] == 200
    assert len(vendor.renewals) == 1
    assert vendor.renewals[0].header("content-type") == "application/x-www-form-urlencoded"
    assert vendor.renewals[0].header("user-agent") == "proxy/1"
    assert fields_of(vendor.renewals[0]) == {
        "grant_type": "refresh_token",
        "refresh_token": "refresh-token-number-0000",
        "client_id": "f0304373b74a44d2b584a3fb70ca9e56",
    }
    kept = read_login(file)
    assert kept["refresh_token"] == vendor.refresh and kept["resource_url"] == elsewhere.url and kept["kept"] == 1
    assert kept["expiry_date"] == pytest.approx((time.time() + 3600) * 1000, abs=30_000)
    assert "status" not in kept
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_a_refusal_in_mid_life_forces_one_renewal_and_one_repeat(transport: Transport, tmp_path: Path) -> None:
    vendor = Vendor(Reply.json({}))
    async with Upstream(vendor) as upstream:
        file = login_file(tmp_path, resource_url=upstream.url)
        async with backend_of(transport, upstream, file) as backend:
            assert (await answered(backend))[0] == 200
    assert (len(vendor.calls), len(vendor.renewals)) == (2, 1)


async def test_a_revoked_login_is_told_with_the_command_and_without_a_token(
    transport: Transport, tmp_path: Path
) -> None:
    vendor = Vendor(Reply.json({}))
    vendor.revoked = Reply.json({"error": "invalid_request", "error_description": "refresh-token-number-0000"}, 400)
    async with Upstream(vendor) as upstream, backend_of(transport, upstream, login_file(tmp_path, -10)) as backend:
        with pytest.raises(FaultError) as caught:
            await answered(backend)
    fault = caught.value.fault
    assert (fault.status_code, fault.code) == (502, "qwen-oauth_credentials_invalid")
    assert "`qwen`" in fault.message and TOKEN not in fault.message and "refresh-token" not in fault.message
    assert len(vendor.renewals) == 1 and vendor.calls == []


async def test_a_spent_quota_is_given_on_with_its_text(transport: Transport, tmp_path: Path) -> None:
    body = {
        "error": {
            "code": "insufficient_quota",
            "message": "Free allocated quota exceeded.",
            "type": "insufficient_quota",
        }
    }
    vendor = Vendor(Reply.json(body, 429), TOKEN)
    async with (
        Upstream(vendor) as upstream,
        backend_of(transport, upstream, login_file(tmp_path, resource_url=upstream.url)) as backend,
    ):
        status, text = await answered(backend)
    assert status == 429 and vendor.renewals == []
    assert get("openai-chat").read_error(status, [], text).message == "Free allocated quota exceeded."


def test_html_with_status_200_is_an_error_of_the_provider() -> None:
    fault = get("openai-chat").error_in_answer(b"<!doctype html><html><title>Login</title><body>x</body></html>")
    assert fault is not None and fault.kind == "upstream" and "<" not in fault.message


async def test_the_limits_of_its_models_are_known(transport: Transport, tmp_path: Path) -> None:
    async with Upstream(Reply.json({})) as upstream:
        configured = {"qwen3-coder-flash": ModelLimits(context_window=1000, max_input_tokens=900)}
        async with backend_of(transport, upstream, login_file(tmp_path), models=configured) as backend:
            plus, flash = backend.limits("qwen3-coder-plus"), backend.limits("qwen3-coder-flash")
            assert (plus.context_window, plus.max_input) == (262_144, 200_000)
            assert (flash.context_window, flash.max_input) == (1000, 900)
            assert [model.id for model in await backend.models()] == ["qwen3-coder-flash", "qwen3-coder-plus"]
            assert upstream.requests == []


async def test_a_login_that_names_this_machine_carries_the_guard_against_loops(
    transport: Transport, tmp_path: Path
) -> None:
    async with Upstream(Reply.json({})) as upstream:
        file = login_file(tmp_path, resource_url=upstream.url)
        async with backend_of(transport, upstream, file) as backend:
            await answered(backend, loop_guard="a,b")
        assert upstream.requests[0].header("x-llmproxy-loop-guard") == "a,b"


async def test_without_a_file_the_command_is_named(transport: Transport, tmp_path: Path) -> None:
    settings = backend_settings("qwen-oauth", mentioned=True, token_path=tmp_path)
    backend = qwen.build(settings, transport, time.monotonic)
    assert not backend.usable and "`qwen`" in backend.reason
    await backend.close()


def test_a_file_with_a_missing_field_is_unreadable() -> None:
    with pytest.raises(Unreadable, match="access_token"):
        read({"refresh_token": "x"})


async def test_a_configured_credential_header_stays_away_from_the_login(transport: Transport, tmp_path: Path) -> None:
    vendor = Vendor(Reply.json({}), TOKEN)
    headers = {"Authorization": "Bearer other-0123456789", "api-key": "other-0123456789", "x-plain": "1"}
    async with (
        Upstream(vendor) as upstream,
        backend_of(transport, upstream, login_file(tmp_path, resource_url=upstream.url), headers=headers) as backend,
    ):
        assert (await answered(backend))[0] == 200
    sent = [(name.lower(), value) for name, value in vendor.calls[0].headers]
    assert [value for name, value in sent if name == "authorization"] == [f"Bearer {TOKEN}"]
    assert "api-key" not in dict(sent) and dict(sent)["x-plain"] == "1"
