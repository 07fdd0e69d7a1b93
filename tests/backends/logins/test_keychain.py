"""BE-16, S-12: a login in the macOS keychain: read with a fixed argument list, never written, never shown."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from llm_proxy.backends.logins import keychain
from llm_proxy.backends.logins.anthropic import read
from llm_proxy.backends.logins.keychain import KeychainLogin, Unavailable
from llm_proxy.conversation.fault import FaultError


class Keychain:
    """An item that tests change; `reads` counts how often it was asked for."""

    def __init__(self, token: str = "token-number-one", end: float = 1_800_005_000.0) -> None:
        self.reads = 0
        self.now = 1_800_000_000.0
        self.error: Exception | None = None
        self.put(token, end)

    def put(self, token: str, end: float) -> None:
        self.content = json.dumps({"claudeAiOauth": {"accessToken": token, "expiresAt": end * 1000}}).encode() + b"\n"

    async def item(self, service: str) -> bytes:
        assert service == "Claude Code-credentials"
        self.reads += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return self.content

    def login(self, platform: str = "darwin") -> KeychainLogin:
        return KeychainLogin(
            "anthropic-oauth",
            "Claude Code-credentials",
            read,
            "claude /login",
            platform=platform,
            item=self.item,
            clock=lambda: self.now,
        )


async def test_the_token_is_read_once_for_many_and_again_after_a_while() -> None:
    chain = Keychain()
    login = chain.login()
    assert login.reason == "" and login.found is None
    found = await asyncio.gather(*(login.token() for _ in range(20)))
    assert {token.access.reveal() for token in found} == {"token-number-one"} and chain.reads == 1
    chain.now += 29
    await login.token()
    assert chain.reads == 1
    chain.put("token-number-two", 1_800_009_000)
    chain.now += 2
    assert (await login.token()).access.reveal() == "token-number-two"


async def test_after_a_refusal_another_token_is_used_if_there_is_one() -> None:
    chain = Keychain()
    login = chain.login()
    token = await login.token()
    assert await login.refused(token) is None
    assert "run `claude /login`" in login.degraded
    chain.put("token-number-two", 1_800_009_000)
    other = await login.refused(token)
    assert other is not None and other.access.reveal() == "token-number-two"
    assert login.degraded == ""
    assert await login.refused(other) is None
    assert login.degraded
    login.succeeded()
    assert login.degraded == ""
    await login.close()


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (None, Unavailable("the keychain holds no item"), "holds no item"),
        (b"no json", None, "no JSON"),
        (b'{"claudeAiOauth":{}}', None, "holds neither"),
        (b'{"claudeAiOauth":{"accessToken":"token-number-one","expiresAt":1799999999000}}', None, "has expired"),
    ],
)
async def test_what_cannot_be_used_is_told_with_the_command(content: Any, error: Any, words: str) -> None:
    chain = Keychain()
    chain.content, chain.error = content or chain.content, error
    with pytest.raises(FaultError) as caught:
        await chain.login().token()
    fault = caught.value.fault
    assert words in fault.message and "claude /login" in fault.message
    assert (fault.status_code, fault.detail["code"]) == (503, "backend_unavailable")
    assert "token-number" not in fault.message


async def test_elsewhere_it_is_never_asked() -> None:
    chain = Keychain()
    login = chain.login("linux")
    assert "macOS" in login.reason
    with pytest.raises(FaultError):
        await login.token()
    assert chain.reads == 0


async def test_the_item_is_asked_for_by_an_argument_list(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    class Process:
        returncode = 0

        async def communicate(self) -> tuple[bytes, None]:
            return b"{}", None

    async def create(*argv: str, **options: Any) -> Process:
        asked.append(argv)
        return Process()

    monkeypatch.setattr(asyncio, "create_subprocess_exec", create)
    assert await keychain.item_of("An item; $(x)") == b"{}"
    assert asked == [("/usr/bin/security", "find-generic-password", "-s", "An item; $(x)", "-w")]
    Process.returncode = 44
    with pytest.raises(Unavailable, match="no item"):
        await keychain.item_of("x")
