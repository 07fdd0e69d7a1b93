"""Qwen Coder by the login of Qwen Code (BE-19): its file, its renewal, and the address that the login names.

Owns what differs from a server of the Chat protocol with a key. Knows no client and no body.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Unpack

from llm_proxy.backends.base import Call, Limits
from llm_proxy.backends.http import LOOP_GUARD
from llm_proxy.backends.logins.base import Listing, LoginBackend
from llm_proxy.backends.logins.credential_file import CredentialFile
from llm_proxy.backends.logins.document import Unreadable
from llm_proxy.backends.logins.headers import with_user_agent_only
from llm_proxy.backends.logins.login import Token
from llm_proxy.backends.logins.members import end_of, moment_of, secret_of, text_of
from llm_proxy.backends.logins.places import home
from llm_proxy.backends.logins.token_endpoint import renew
from llm_proxy.backends.transport import Credential, Transport
from llm_proxy.config.backends import BackendSettings
from llm_proxy.wire.faults import UrlFault
from llm_proxy.wire.secrets import Secret
from llm_proxy.wire.urls import BaseUrl, address_class, parse_base_url

COMMAND: Final = "qwen"
BASE: Final = "https://portal.qwen.ai/v1"
TOKEN_URL: Final = "https://chat.qwen.ai/api/v1/oauth2/token"
CLIENT_ID: Final = "f0304373b74a44d2b584a3fb70ca9e56"  # Qwen Code's own: BE-19
EARLY: Final = 120.0
WINDOW: Final = 262_144
MOST_INPUT: Final = 200_000


# The file


def read(document: Mapping[str, Any]) -> Token:
    """The login in an `oauth_creds.json`. Raises Unreadable."""
    access = text_of(document, "access_token")
    if not access:
        raise Unreadable("holds no `access_token`")
    members = {}
    if place := text_of(document, "resource_url"):
        try:
            base_of(place)
        except UrlFault as fault:
            raise Unreadable(f"holds a `resource_url` that cannot be used: {fault}") from None
        members["resource_url"] = place
    return Token(access=Secret(access), expires=moment_of(document, "expiry_date"), members=members)


def base_of(place: str) -> BaseUrl:
    """The API's address of a `resource_url`, which comes with or without a scheme and with or without `/v1`. Raises UrlFault.

    Only https, but for servers on this machine: the token is sent there.
    """
    found = parse_base_url((place if "://" in place else f"https://{place}").rstrip("/"))
    if found.origin.scheme != "https" and not _is_here(found):
        raise UrlFault("it is not https")
    if found.path.endswith("/v1"):
        return found
    return parse_base_url(f"{found.origin}{found.path}/v1")


def _is_here(base: BaseUrl) -> bool:
    return base.origin.ip is not None and address_class(base.origin.ip) == "loopback"


def refresh_token(document: Mapping[str, Any]) -> Secret | None:
    return secret_of(document, "refresh_token")


class Renewal:
    """Fulfils `Refresher`."""

    def __init__(
        self, transport: Transport, url: str = TOKEN_URL, user_agent: str = "", now: Callable[[], float] = time.time
    ) -> None:
        self._transport = transport
        self._url = url
        self._user_agent = user_agent
        self._now = now

    async def __call__(self, refresh_token: Secret, document: Mapping[str, Any]) -> dict[str, Any]:
        fields = {"grant_type": "refresh_token", "refresh_token": refresh_token.reveal(), "client_id": CLIENT_ID}
        # Qwen Code itself takes every 400 for the end of the login (its qwenOAuth2.ts, 2026).
        over = frozenset({400, 401})
        answer = await renew(self._transport, self._url, fields, form=True, user_agent=self._user_agent, over=over)
        names = ("access_token", "refresh_token", "resource_url", "token_type")
        found: dict[str, Any] = {name: answer[name] for name in names if text_of(answer, name)}
        return found | {"expiry_date": end_of(answer, self._now())}


def paths(settings: BackendSettings) -> tuple[Path, ...]:
    """Where the file may be. A configured path is the file or its directory."""
    if (own := settings.token_path) is not None:
        return (own, own / "oauth_creds.json")
    return (home() / ".qwen" / "oauth_creds.json",)


# The calls


class QwenLogin(LoginBackend):
    """The Chat protocol where the login says, unless an address is configured."""

    def limits(self, model: str) -> Limits:
        found = super().limits(model)
        return Limits(
            context_window=found.context_window or WINDOW,
            max_output=found.max_output,
            max_input=found.max_input or MOST_INPUT,
        )

    def base_of(self, token: Token) -> BaseUrl:
        place = token.members.get("resource_url")
        return base_of(place) if place and self.settings.base_url is None else self._base

    def headers_of(self, call: Call, token: Token) -> dict[str, str]:
        headers = self._call_headers(with_user_agent_only(call, self._identity))
        if call.loop_guard and _is_here(self.base_of(token)):
            headers[LOOP_GUARD] = call.loop_guard  # the login may name this very proxy (BE-05)
        return headers

    def credentials_of(self, token: Token, base: BaseUrl) -> tuple[Credential, ...]:
        return (Credential("authorization", token.access, base.origin, "Bearer "),)


def build(
    settings: BackendSettings, transport: Transport, clock: Callable[[], float], **listing: Unpack[Listing]
) -> QwenLogin:
    user_agent = settings.identity.user_agent.value(lambda name: "")
    login = CredentialFile(
        settings.id,
        paths(settings),
        read=read,
        command=COMMAND,
        refresh_token=refresh_token,
        refresher=Renewal(transport, user_agent=user_agent),
        read_only=settings.refresh == "read-only",
        early=EARLY,
    )
    return QwenLogin(settings, transport, login, clock=clock, command=COMMAND, **listing)
