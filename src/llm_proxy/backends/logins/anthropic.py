"""Claude by the login of Claude Code, or by an `oauth_creds.json` (BE-16): both forms of the file, their renewal, and the headers.

Owns what differs from Anthropic by key. Knows no client; the bodies are the Messages protocol's as they come.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Unpack

from llm_proxy.backends.base import Call
from llm_proxy.backends.logins.base import Listing, LoginBackend
from llm_proxy.backends.logins.credential_file import CredentialFile
from llm_proxy.backends.logins.document import Unreadable
from llm_proxy.backends.logins.faults import credentials_fault
from llm_proxy.backends.logins.headers import merged_list, with_user_agent_only
from llm_proxy.backends.logins.keychain import KeychainLogin
from llm_proxy.backends.logins.login import Login, Token
from llm_proxy.backends.logins.members import end_of, moment_of, secret_of, text_of
from llm_proxy.backends.logins.places import home
from llm_proxy.backends.logins.rereading import read_already, read_and_close
from llm_proxy.backends.logins.token_endpoint import renew
from llm_proxy.backends.transport import Credential, Response, Transport
from llm_proxy.config.backends import BackendSettings
from llm_proxy.wire.secrets import Secret
from llm_proxy.wire.urls import BaseUrl

COMMAND: Final = "claude /login"
TOKEN_URL: Final = "https://console.anthropic.com/v1/oauth/token"
CLIENT_ID: Final = "9d1c250a-e61b-44d9-88ed-5944d1962f5e"  # Claude Code's own: BE-16
BETA: Final = "oauth-2025-04-20"
KEYCHAIN_ITEM: Final = "Claude Code-credentials"
EARLY: Final = 60.0
_ENDS: Final = ("expires_at", "expiry_date", "expiresAt")

# "This credential is only authorized for use with Claude Code and cannot be used for other API requests.", with status 400 and type
# invalid_request_error: https://github.com/anthropics/claude-code/issues/8046, September 2025 and since.
_FOR_ITS_OWN_CLIENT: Final = b"only authorized for use with Claude Code"
_LARGEST_REFUSAL: Final = 1024 * 1024


# The file


def read(document: Mapping[str, Any]) -> Token:
    """The login in either form. Raises Unreadable."""
    own = document.get("claudeAiOauth")
    if access := text_of(own, "accessToken"):
        return Token(access=Secret(access), expires=moment_of(own, "expiresAt"), hint=text_of(own, "subscriptionType"))
    if access := text_of(document, "access_token"):
        end = next((moment for name in _ENDS if (moment := moment_of(document, name)) is not None), None)
        return Token(access=Secret(access), expires=end)
    if key := text_of(document, "api_key"):
        return Token(access=Secret(key), hint="API key", members={"api_key": True})
    raise Unreadable("holds neither `claudeAiOauth.accessToken` nor `access_token` nor `api_key`")


def refresh_token(document: Mapping[str, Any]) -> Secret | None:
    own = document.get("claudeAiOauth")
    if text_of(own, "accessToken"):
        return secret_of(own, "refreshToken")
    return secret_of(document, "refresh_token") if text_of(document, "access_token") else None


class Renewal:
    """Fulfils `Refresher`; the new members have the form that the file has."""

    def __init__(self, transport: Transport, url: str = TOKEN_URL, now: Callable[[], float] = time.time) -> None:
        self._transport = transport
        self._url = url
        self._now = now

    async def __call__(self, refresh_token: Secret, document: Mapping[str, Any]) -> dict[str, Any]:
        fields = {"grant_type": "refresh_token", "refresh_token": refresh_token.reveal(), "client_id": CLIENT_ID}
        answer = await renew(self._transport, self._url, fields)
        end = end_of(answer, self._now())
        access, other = answer["access_token"], text_of(answer, "refresh_token")
        if text_of(document.get("claudeAiOauth"), "accessToken"):
            found: dict[str, Any] = {"accessToken": access, "expiresAt": end}
            return {"claudeAiOauth": found | ({"refreshToken": other} if other else {})}
        name = next((name for name in _ENDS if name in document), "expires_at")
        in_seconds = moment_of(document, name) == document.get(name)
        found = {"access_token": access, name: end // 1000 if end is not None and in_seconds else end}
        return found | ({"refresh_token": other} if other else {})


def paths(settings: BackendSettings, environ: Mapping[str, str] | None = None) -> tuple[Path, ...]:
    """Where the file may be, the first that exists counts. A configured path is the file or its directory."""
    if (own := settings.token_path) is not None:
        return (own, own / ".credentials.json", own / "oauth_creds.json")
    found = [home() / ".claude" / ".credentials.json"]
    found += [home() / name / "oauth_creds.json" for name in (".anthropic", ".claude", ".config/claude")]
    if roaming := (os.environ if environ is None else environ).get("APPDATA", ""):
        found.append(Path(roaming) / "Claude" / "oauth_creds.json")
    return tuple(found)


# The calls


class AnthropicLogin(LoginBackend):
    """The Messages API with a token, or with the key that the file holds instead."""

    _not_for_us: Secret | None = None
    """A token that the service takes from Claude Code only."""

    @property
    def degraded(self) -> str:
        token = self.login.found
        if token is not None and self._not_for_us == token.access:
            return self._advice
        return super().degraded

    @property
    def _advice(self) -> str:
        return (
            "Anthropic takes this login from Claude Code only; use back end `anthropic` with an API key "
            f"(what `{self.command}` makes will be refused, too)."
        )

    async def send(self, call: Call, token: Token) -> Response:
        """A refusal of this client is no fault of its request, and neither a renewal nor a repeat would help."""
        response = await super().send(call, token)
        if 200 <= response.status < 300:
            self._not_for_us = None
        if response.status != 400:
            return response
        body = await read_and_close(response, _LARGEST_REFUSAL)
        if _FOR_ITS_OWN_CLIENT not in body:
            return read_already(response, body)
        self._not_for_us = token.access
        raise credentials_fault(self.id, self._advice)

    def headers_of(self, call: Call, token: Token) -> dict[str, str]:
        headers = self._call_headers(with_user_agent_only(call, self._identity))
        if not _is_key(token):
            headers["anthropic-beta"] = merged_list(headers.get("anthropic-beta", ""), BETA)
        return headers

    def credentials_of(self, token: Token, base: BaseUrl) -> tuple[Credential, ...]:
        if _is_key(token):
            return (Credential("x-api-key", token.access, base.origin),)
        return (Credential("authorization", token.access, base.origin, "Bearer "),)


def _is_key(token: Token) -> bool:
    return token.members.get("api_key") is True


def build(
    settings: BackendSettings, transport: Transport, clock: Callable[[], float], **listing: Unpack[Listing]
) -> AnthropicLogin:
    login: Login
    if settings.macos_keychain:
        login = KeychainLogin(settings.id, KEYCHAIN_ITEM, read, COMMAND, early=EARLY)
    else:
        login = CredentialFile(
            settings.id,
            paths(settings),
            read=read,
            command=COMMAND,
            refresh_token=refresh_token,
            refresher=Renewal(transport),
            read_only=settings.refresh == "read-only",
            early=EARLY,
        )
    return AnthropicLogin(settings, transport, login, clock=clock, command=COMMAND, **listing)
