"""BE-14: whatever stands in a login file, reading it gives a login or a reason, and the proxy goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.backends.logins import anthropic, openai, personal, qwen
from llm_proxy.backends.logins.document import Unreadable, read_document
from llm_proxy.backends.logins.jwt import claims_of
from llm_proxy.backends.logins.login import Token
from tests.backends.logins.vendor import jwt

READERS: dict[str, Callable[[Mapping[str, Any]], Token]] = {
    "openai": openai.read,
    "anthropic": anthropic.read,
    "personal": personal.read,
    "qwen": qwen.read,
}
ODD: list[Any] = [
    None, True, 0, -1, 10**400, -(10**400), 1e308, "", " ", "x", "\x00", "\ud7ff", "[", "://", "https://[", "http://x:y/z",
    "https://user:word@host/", "https://h:99999999", [], [1], {}, {"access_token": 10**400}, jwt(exp=10**400), jwt(exp="soon"),
    "a.b.c", "...", "a." + "[" * 3000 + ".c", "x" * 100_000,
]  # fmt: skip
WHOLE: dict[str, dict[str, Any]] = {
    "openai": {
        "tokens": {"access_token": jwt(exp=1), "account_id": "a", "id_token": jwt(email="e"), "refresh_token": "r"}
    },
    "anthropic": {
        "claudeAiOauth": {"accessToken": "t", "refreshToken": "r", "expiresAt": 1, "subscriptionType": "max"}
    },
    "personal": {"access_token": "t", "refresh_token": "r", "expiry_date": 1, "id_token": jwt(sub="s", email="e")},
    "qwen": {"access_token": "t", "refresh_token": "r", "expiry_date": 1, "resource_url": "portal.qwen.ai"},
}


def variants(whole: Any) -> list[Any]:
    """`whole` with each of its members replaced by something odd, and something odd instead of it."""
    found: list[Any] = list(ODD)
    if isinstance(whole, dict):
        for name, value in whole.items():
            found += [{**whole, name: odd} for odd in variants(value)]
            found.append({other: value for other, value in whole.items() if other != name})
    return found


@pytest.mark.parametrize("vendor", list(READERS))
def test_odd_members_are_a_login_or_a_reason(vendor: str, tmp_path: Path) -> None:
    path = tmp_path / "login.json"
    outcomes = set()
    for members in variants(WHOLE[vendor]):
        path.write_text(json.dumps(members))
        document = read_document((path,), pause=lambda seconds: None)
        if document.members is None:
            assert document.problem
            continue
        try:
            token = READERS[vendor](document.members)
        except Unreadable as reason:
            outcomes.add("reason")
            assert str(reason)
        else:
            outcomes.add("login")
            assert token.access.reveal()
            assert token.expires is None or abs(token.expires) < 1e19
    assert outcomes == {"reason", "login"}


@pytest.mark.parametrize("token", ["", "a.b", "a.b.c.d", "a.!.c", "a.é.c", "a." + "W" * 5000 + ".c"])
def test_what_is_no_token_claims_nothing(token: str) -> None:
    assert claims_of(token) == {}
