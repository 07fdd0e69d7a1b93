"""ChatGPT by the login of the Codex CLI (BE-15): its file, its renewal, and the calls of the service that the CLI uses.

Owns headers and addresses; what becomes of a body is `codex_body`'s. A file that holds an API key instead of tokens makes this a
plain OpenAI back end. Knows no client and no dialect beyond its name.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Unpack

import msgspec

from llm_proxy.backends.base import Call, Redirect
from llm_proxy.backends.logins import codex_body
from llm_proxy.backends.logins.base import Listing, LoginBackend
from llm_proxy.backends.logins.credential_file import CredentialFile
from llm_proxy.backends.logins.document import Unreadable
from llm_proxy.backends.logins.headers import merged_list, with_user_agent_only
from llm_proxy.backends.logins.jwt import claims_of
from llm_proxy.backends.logins.login import Login, Token
from llm_proxy.backends.logins.members import number_of, secret_of, text_of
from llm_proxy.backends.logins.places import expanded, home
from llm_proxy.backends.logins.rereading import Lossy, read_already, read_and_close
from llm_proxy.backends.logins.token_endpoint import renew
from llm_proxy.backends.transport import Credential, Response, Transport
from llm_proxy.config.backends import BackendSettings
from llm_proxy.dialects.capabilities import Capabilities
from llm_proxy.wire.secrets import Secret
from llm_proxy.wire.urls import BaseUrl, parse_base_url

COMMAND: Final = "codex login"
PLATFORM: Final = "https://api.openai.com/v1"
TOKEN_URL: Final = "https://auth.openai.com/oauth/token"
CLIENT_ID: Final = "app_EMoamEEZ73f0CkXaXp7hrann"  # the Codex CLI's own: BE-15
SCOPE: Final = "openid profile email"
EARLY: Final = 300.0
ORIGINATOR: Final = "llm-interactive-proxy"
BETA: Final = "responses=experimental"
CLAIM: Final = "https://api.openai.com/auth"

# The service takes no values of sampling from anybody, so that writers leave them out and say so.
_SUBSCRIPTION: Final[dict[str, object]] = {
    "sampling": "none", "sampling_when_off": False, "logprobs": False, "output_limit": False, "keeps_responses": False,
}  # fmt: skip
_LARGEST_REFUSAL: Final = 64 * 1024
_MOST_LEARNED: Final = 20


# The file


def read(document: Mapping[str, Any]) -> Token:
    """The login in an `auth.json`. Raises Unreadable."""
    tokens = document.get("tokens")
    access = text_of(tokens, "access_token")
    if not access:
        if key := text_of(document, "OPENAI_API_KEY"):
            return Token(access=Secret(key), hint="API key", members={"api_key": True})
        raise Unreadable("holds neither `tokens.access_token` nor `OPENAI_API_KEY`")
    claims, identity = claims_of(access), claims_of(text_of(tokens, "id_token"))
    account = text_of(tokens, "account_id") or _account(claims) or _account(identity)
    if not _is_word(account):
        raise Unreadable("names no account: neither `tokens.account_id` nor a claim of its tokens")
    hint = text_of(identity, "email") or account[-6:]
    return Token(access=Secret(access), expires=number_of(claims, "exp"), account=account, hint=hint)


def _account(claims: Mapping[str, Any]) -> str:
    return text_of(claims.get(CLAIM), "chatgpt_account_id")


def _is_word(text: str) -> bool:
    return 0 < len(text) <= 200 and text.isascii() and text.isprintable()


def refresh_token(document: Mapping[str, Any]) -> Secret | None:
    """None beside an API key: what would be renewed is not what is used."""
    tokens = document.get("tokens")
    return secret_of(tokens, "refresh_token") if text_of(tokens, "access_token") else None


class Renewal:
    """Fulfils `Refresher`."""

    def __init__(self, transport: Transport, url: str = TOKEN_URL, now: Callable[[], float] = time.time) -> None:
        self._transport = transport
        self._url = url
        self._now = now

    async def __call__(self, refresh_token: Secret, document: Mapping[str, Any]) -> dict[str, Any]:
        fields = {
            "client_id": CLIENT_ID,
            "grant_type": "refresh_token",
            "refresh_token": refresh_token.reveal(),
            "scope": SCOPE,
        }
        answer = await renew(self._transport, self._url, fields)
        tokens = {name: answer[name] for name in ("access_token", "refresh_token", "id_token") if text_of(answer, name)}
        moment = datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="microseconds")
        return {"tokens": tokens, "last_refresh": moment.replace("+00:00", "Z")}


def paths(settings: BackendSettings, environ: Mapping[str, str] | None = None) -> tuple[Path, ...]:
    """Where the file may be. A configured path is the file or its directory."""
    if settings.token_path is not None:
        return (settings.token_path, settings.token_path / "auth.json")
    own = (os.environ if environ is None else environ).get("CODEX_HOME", "").strip()
    return ((expanded(own) if own else home() / ".codex") / "auth.json",)


# The calls


class OpenAILogin(LoginBackend):
    """`platform`: where calls go when the file holds an API key and no address is configured."""

    def __init__(
        self,
        settings: BackendSettings,
        transport: Transport,
        login: Login,
        *,
        clock: Callable[[], float],
        command: str = COMMAND,
        platform: str = PLATFORM,
        **listing: Unpack[Listing],
    ) -> None:
        super().__init__(settings, transport, login, clock=clock, command=command, **listing)
        self._platform = self._base if settings.base_url else parse_base_url(platform)
        self._refused: deque[str] = deque(maxlen=_MOST_LEARNED)
        self._was_plain = False

    @property
    def _plain(self) -> bool:
        return (found := self.login.found) is not None and _is_key(found)

    def dialect_for(self, client_dialect: str, redirect: Redirect | None = None) -> str:
        return "openai-responses"

    def capabilities(self, model: str, dialect: str, redirect: Redirect | None = None) -> Capabilities:
        if self._was_plain != self._plain:
            self._was_plain = self._plain
            self._capabilities.clear()
        return super().capabilities(model, dialect, redirect)

    def _overrides(self, model: str, dialect: str, elsewhere: str) -> dict[str, object]:
        found = super()._overrides(model, dialect, elsewhere)
        return found if self._plain else found | _SUBSCRIPTION

    def base_of(self, token: Token) -> BaseUrl:
        return self._platform if _is_key(token) else self._base

    def headers_of(self, call: Call, token: Token) -> dict[str, str]:
        headers = self._call_headers(with_user_agent_only(call, self._identity))
        if _is_key(token):
            return headers
        return headers | {
            "accept": "text/event-stream",
            "chatgpt-account-id": token.account,
            "openai-beta": merged_list(headers.get("openai-beta", ""), BETA),
            "originator": headers.get("originator", ORIGINATOR),
        }

    def credentials_of(self, token: Token, base: BaseUrl) -> tuple[Credential, ...]:
        return (Credential("authorization", token.access, base.origin, "Bearer "),)

    async def send(self, call: Call, token: Token) -> Response:
        if _is_key(token):
            return await super().send(call, token)
        while True:
            refused = tuple(self._refused)
            fitted = codex_body.fitted(call.body, self.capabilities(call.model, call.dialect), refused)
            names = dict.fromkeys(("session_id", "conversation_id"), fitted.conversation)
            adapted = msgspec.structs.replace(call, body=fitted.body, headers=dict(call.headers) | names)
            response = await super().send(adapted, token)
            if response.status == 429:
                return await _with_reset(response)
            if response.status != 400:
                return response if not fitted.losses else Lossy(response, fitted.losses)
            body = await read_and_close(response, _LARGEST_REFUSAL)
            name = codex_body.refused_member(body, fitted.body)
            if not name or name in refused or len(refused) == _MOST_LEARNED:
                return read_already(response, body)
            self._refused.append(name)  # one more that its own client never sends: without it from now on


def _is_key(token: Token) -> bool:
    return token.members.get("api_key") is True


async def _with_reset(response: Response) -> Response:
    """The service says in the body when its quota is there again (`usage_limit_reached`); a header tells the rest of the proxy."""
    body = await read_and_close(response, _LARGEST_REFUSAL)
    try:
        answer = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        answer = None
    error = answer.get("error") if isinstance(answer, dict) else None
    wait, moment = number_of(error, "resets_in_seconds"), number_of(error, "resets_at")
    if wait is None and moment is not None:
        wait = moment - time.time()
    if wait is not None and 0 < wait < 1e8:
        return read_already(response, body, ("retry-after", str(int(wait) + 1)))
    return read_already(response, body)


def build(
    settings: BackendSettings, transport: Transport, clock: Callable[[], float], **listing: Unpack[Listing]
) -> OpenAILogin:
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
    return OpenAILogin(settings, transport, login, clock=clock, command=COMMAND, **listing)
