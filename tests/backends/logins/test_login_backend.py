"""BE-14, BE-01: a back end with a login, its one repeat after a refusal, and when it may be chosen."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.backends.base import Call, Redirect
from llm_proxy.backends.logins.base import LoginBackend
from llm_proxy.backends.logins.credential_file import CredentialFile
from llm_proxy.backends.logins.document import Unreadable
from llm_proxy.backends.logins.login import Token
from llm_proxy.backends.registry import Backends
from llm_proxy.backends.transport import Transport
from llm_proxy.config.built_in import ALIASES, BUILT_IN
from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.wire.secrets import Secret
from tests.backends.settings import backend_settings
from tests.support.upstream import Received, Reply, Upstream

LOGIN_TYPES = [id for id, built_in in BUILT_IN.items() if built_in.login]
CALL = Call(dialect="openai-chat", model="m", body=b"{}")


def read(members: Mapping[str, Any]) -> Token:
    if "access" not in members:
        raise Unreadable("has no `access`")
    return Token(access=Secret(members["access"]))


class House:
    """A provider that takes one token, its login file, and a back end of the proxy."""

    def __init__(self, path: Path, transport: Transport) -> None:
        self.path = path
        self.transport = transport
        self.accepted = "good"
        self.status = 401
        self.renewals = 0

    def write(self, token: str) -> None:
        self.path.write_text(json.dumps({"access": token, "refresh": "r"}))

    def answer(self, request: Received) -> Reply:
        if request.header("authorization") == f"Bearer {self.accepted}":
            return Reply.json({"ok": True})
        return Reply.json({"error": {"message": "no"}}, status=self.status)

    async def renew(self, token: Secret, document: Mapping[str, Any]) -> dict[str, Any]:
        self.renewals += 1
        return {"access": f"renewed-{self.renewals}"}

    def backend(self, url: str, *, renewable: bool = True, **members: Any) -> LoginBackend:
        login = CredentialFile(
            "house",
            (self.path,),
            read=read,
            command="house login",
            refresh_token=lambda members: Secret("r"),
            refresher=self.renew if renewable else None,
        )
        settings = backend_settings("house", "qwen-oauth", base_url=f"{url}/v1", **members)
        return LoginBackend(settings, self.transport, login, command="house login")


@pytest.fixture
async def house(tmp_path: Path, transport: Transport) -> AsyncIterator[House]:
    house = House(tmp_path / "login.json", transport)
    house.write("good")
    yield house


async def status_of(backend: LoginBackend) -> int:
    response = await backend.open(CALL)
    await response.read()
    response.close()
    return response.status


async def fault_of(backend: LoginBackend) -> Fault:
    with pytest.raises(FaultError) as caught:
        await backend.open(CALL)
    return caught.value.fault


async def test_a_call_carries_the_token_to_the_configured_address(house: House) -> None:
    async with Upstream(house.answer) as upstream:
        backend = house.backend(upstream.url)
        assert await status_of(backend) == 200
        assert upstream.requests[0].path == "/v1/chat/completions"
        await backend.close()


async def test_a_401_with_a_fresh_file_on_disk_is_repeated_with_the_fresh_token(house: House) -> None:
    house.write("old")

    def answer(request: Received) -> Reply:
        house.write("good")  # somebody logs in while the call is under way
        return house.answer(request)

    async with Upstream(answer) as upstream:
        backend = house.backend(upstream.url)
        assert await status_of(backend) == 200
        assert [request.header("authorization") for request in upstream.requests] == ["Bearer old", "Bearer good"]
        assert house.renewals == 0
        await backend.close()


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_token_is_renewed_once_and_the_client_sees_200(house: House, status: int) -> None:
    house.accepted, house.status = "renewed-1", status
    async with Upstream(house.answer) as upstream:
        backend = house.backend(upstream.url)
        assert await status_of(backend) == 200
        assert len(upstream.requests) == 2
        assert json.loads(house.path.read_text()) == {"access": "renewed-1", "refresh": "r"}
        await backend.close()


async def test_a_login_that_stays_refused_is_502_until_a_success(house: House) -> None:
    house.accepted = "nothing"
    async with Upstream(house.answer) as upstream:
        backend = house.backend(upstream.url)
        fault = await fault_of(backend)
        assert (fault.kind, fault.status_code, fault.code) == ("upstream_auth", 502, "house_credentials_invalid")
        assert "`house login`" in fault.message
        assert (len(upstream.requests), house.renewals) == (2, 1), "one forced refresh and one repeat"
        assert "house login" in backend.degraded
        assert (await fault_of(backend)).code == "house_credentials_invalid"
        assert (len(upstream.requests), house.renewals) == (3, 1)
        house.accepted = "renewed-1"
        assert await status_of(backend) == 200
        assert backend.degraded == ""
        await backend.close()


async def test_without_a_refresh_a_refusal_is_no_repeat(house: House) -> None:
    house.accepted = "nothing"
    async with Upstream(house.answer) as upstream:
        backend = house.backend(upstream.url, renewable=False)
        assert "`house login`" in (await fault_of(backend)).message
        assert len(upstream.requests) == 1
        await backend.close()


async def test_no_other_server_sees_a_login(house: House) -> None:
    async with Upstream(house.answer) as own, Upstream(house.answer) as other:
        backend = house.backend(own.url)
        call = Call(
            dialect="openai-chat", model="m", body=b"{}", redirect=Redirect(f"{other.url}/v1", "operator", True)
        )
        with pytest.raises(FaultError):
            await backend.open(call)
        assert other.requests == []
        await backend.close()


async def test_it_is_functional_when_it_is_named_and_its_login_can_be_read(house: House) -> None:
    named, unnamed = house.backend("http://127.0.0.1:1", mentioned=True), house.backend("http://127.0.0.1:1")
    assert (named.usable, named.functional, named.reason) == (True, True, "")
    assert (unnamed.usable, unnamed.functional) == (True, False)
    assert named.keys == (None,)
    house.path.unlink()
    named.login.look()  # type: ignore[attr-defined]
    assert (named.usable, named.functional) == (False, False)
    assert "does not exist" in named.reason and "`house login`" in named.reason
    off = house.backend("http://127.0.0.1:1", mentioned=True, enabled=False)
    assert "switched off" in off.reason
    for backend in (named, unnamed, off):
        await backend.close()


@pytest.mark.parametrize("type_", LOGIN_TYPES)
async def test_a_login_that_nobody_named_serves_nobody(type_: str) -> None:
    registry = Backends({}, Transport(environ={}))
    assert type_ in registry
    assert type_ not in [backend.id for backend in registry.functional]
    assert registry.default.id == "demo"


@pytest.mark.parametrize("type_", [id for id in LOGIN_TYPES if id != "gemini-cli-cloud-project"])
async def test_the_reason_of_a_missing_login_names_the_command(
    type_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transport: Transport
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CODEX_HOME", raising=False)
    settings = backend_settings(type_, token_path=tmp_path / "nowhere", mentioned=True)
    registry = Backends({type_: settings}, transport)
    backend = registry.get(type_)
    assert backend is not None
    assert not backend.usable and not backend.functional
    assert BUILT_IN[type_].login in backend.reason
    assert registry.default.id == "demo"
    await registry.close()


@pytest.mark.parametrize("type_", [id for id in LOGIN_TYPES if id != "gemini-cli-acp"])
async def test_the_models_that_are_shown_can_be_configured(type_: str, tmp_path: Path, transport: Transport) -> None:
    settings = backend_settings(type_, token_path=tmp_path, mentioned=True)
    registry = Backends({type_: settings}, transport, list_ttl=7.0, fallback_models={type_: ("one", "two")})
    backend = registry.get(type_)
    assert backend is not None
    assert [model.id for model in await backend.models()] == ["one", "two"]
    await registry.close()


@pytest.mark.parametrize("type_", [id for id in LOGIN_TYPES if id != "gemini-cli-acp"])
async def test_a_user_without_a_home_has_no_login(
    type_: str, monkeypatch: pytest.MonkeyPatch, transport: Transport
) -> None:
    """As in a container whose user has a number and no entry."""

    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    monkeypatch.setenv("CODEX_HOME", "~nobody-of-that-name/.codex")
    registry = Backends({type_: backend_settings(type_, mentioned=True)}, transport)
    backend = registry.get(type_)
    assert backend is not None and not backend.functional and backend.reason
    await registry.close()


def test_another_name_of_an_id_is_the_same_back_end() -> None:
    registry = Backends({}, Transport(environ={}))
    for alias, id in ALIASES.items():
        assert alias in registry and alias.upper() in registry
        assert registry.get(alias) is registry.get(id)
        assert alias not in registry.ids
    assert Backends({}, Transport(environ={}), default="openai-codex").default.id == "openai-oauth"
