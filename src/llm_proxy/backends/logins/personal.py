"""The free Google login of the Gemini CLI: its file, and its renewal by the CLI itself or at Google's token endpoint (BE-17).

Owns what stands in `oauth_creds.json` and when the CLI is asked to renew it. The file's life is `credential_file.py`'s, the process
`gemini_cli.py`'s. Knows no Code Assist.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from llm_proxy.backends.logins.credential_file import CredentialFile
from llm_proxy.backends.logins.document import Unreadable
from llm_proxy.backends.logins.faults import credentials_fault, unusable_fault
from llm_proxy.backends.logins.gemini_cli import GeminiCli
from llm_proxy.backends.logins.jwt import claims_of
from llm_proxy.backends.logins.login import Login, Token
from llm_proxy.backends.logins.members import end_of, moment_of, secret_of, text_of
from llm_proxy.backends.logins.places import home
from llm_proxy.backends.logins.renewal import Refresher
from llm_proxy.backends.logins.token_endpoint import renew
from llm_proxy.backends.transport import Transport
from llm_proxy.config.backends import BackendSettings
from llm_proxy.wire.secrets import Secret

COMMAND: Final = "gemini"
FILE: Final = "oauth_creds.json"
TOKEN_URL: Final = "https://oauth2.googleapis.com/token"
EARLY: Final = 30.0
SOON: Final = 120.0
"""Seconds before its end at which a token counts as expired, and at which its renewal begins."""

_HOUR: Final = 3600.0  # what Google's tokens live, should an answer not say so
_LOOKS: Final = 5
_PAUSE: Final = 1.0


# The file


def read(document: Mapping[str, Any]) -> Token:
    """The login in an `oauth_creds.json`. Raises Unreadable."""
    access, refresh = text_of(document, "access_token"), text_of(document, "refresh_token")
    for name, value in (("access_token", access), ("refresh_token", refresh)):
        if not value:
            raise Unreadable(f"has no `{name}`")
    claims = claims_of(text_of(document, "id_token"))
    return Token(
        access=Secret(access),
        expires=moment_of(document, "expiry_date"),
        # Google's refresh tokens outlive renewals, so their digest names a login that says nothing of its account.
        account=text_of(claims, "sub") or hashlib.sha256(refresh.encode()).hexdigest()[:16],
        hint=text_of(claims, "email"),
    )


def refresh_token(document: Mapping[str, Any]) -> Secret | None:
    return secret_of(document, "refresh_token")


def refresher(
    transport: Transport,
    client_id: str,
    client_secret: Secret,
    url: str = TOKEN_URL,
    now: Callable[[], float] = time.time,
) -> Refresher:
    """What renews the login without the CLI; gives the members of the file that are new."""

    async def refresh(refresh_token: Secret, document: Mapping[str, Any]) -> dict[str, Any]:
        fields = {
            "grant_type": "refresh_token",
            "refresh_token": refresh_token.reveal(),
            "client_id": client_id,
            "client_secret": client_secret.reveal(),
        }
        answer = await renew(transport, url, fields, form=True)
        new: dict[str, Any] = {
            name: answer[name]
            for name in ("access_token", "refresh_token", "id_token", "scope")
            if text_of(answer, name)
        }
        moment = now()
        return new | {"expiry_date": end_of(answer, moment) or int((moment + _HOUR) * 1000)}

    return refresh


def paths(token_path: Path | None) -> tuple[Path, ...]:
    """Where the file may be. A configured path is the file or its directory."""
    if token_path is not None:
        return (token_path, token_path / FILE)
    return (home() / ".gemini" / FILE,)


# Renewal by the CLI


class CliLogin:
    """A `Login` whose file only the CLI renews. `cli` None: it is not started either (`refresh: read-only`). `now` is epoch time."""

    def __init__(
        self,
        file: CredentialFile,
        cli: GeminiCli | None,
        *,
        now: Callable[[], float] = time.time,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._file = file
        self._cli = cli
        self._now = now
        self._pause = pause
        self._waiting: asyncio.Task[Token | None] | None = None

    @property
    def reason(self) -> str:
        """That of the file; an expired login is no reason, since the CLI can renew it."""
        reason = self._file.reason
        return "" if self._cli is not None and self._file.found is not None else reason

    @property
    def degraded(self) -> str:
        return self._file.degraded

    @property
    def found(self) -> Token | None:
        return self._file.found

    async def token(self) -> Token:
        await asyncio.to_thread(self._file.look)
        token = self._file.found
        if token is None or self.reason:
            raise unusable_fault(self._file.backend, self._file.reason)
        left = self._left(token)
        if left > SOON:
            return token
        started = self._start()
        if left > EARLY:
            return token
        other = await self._awaited(token) if started or self._may_come else None
        if other is not None:
            return other
        if left > 0:
            return token
        reason = self._file.reason or f"its login has expired; run `{COMMAND}`."
        raise credentials_fault(self._file.backend, reason)

    async def refused(self, token: Token) -> Token | None:
        other = await self._file.refused(token)
        if other is not None and self._left(other) > EARLY:
            return other
        return await self._awaited(token) if self._start() or self._may_come else None

    def succeeded(self) -> None:
        self._file.succeeded()

    async def close(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            await asyncio.gather(self._waiting, return_exceptions=True)
        if self._cli is not None:
            await self._cli.close()
        await self._file.close()

    def _left(self, token: Token) -> float:
        return float("inf") if token.expires is None else token.expires - self._now()

    def _start(self) -> bool:
        path = self._file.path
        return self._cli is not None and path is not None and self._cli.start(path.parent)

    @property
    def _may_come(self) -> bool:
        """Is somebody waiting for the CLI already, or is it still at work?"""
        return self._waiting is not None or (self._cli is not None and self._cli.running)

    async def _awaited(self, stale: Token) -> Token | None:
        """Another token than `stale`, as soon as the CLI has written it; all requests wait together. None if it does not come."""
        if self._waiting is None:
            self._waiting = asyncio.create_task(self._look_out(stale))
            self._waiting.add_done_callback(self._settle)
        return await asyncio.shield(self._waiting)

    def _settle(self, task: asyncio.Task[Token | None]) -> None:
        self._waiting = None
        if not task.cancelled():
            task.exception()  # seen, also when every client has left

    async def _look_out(self, stale: Token) -> Token | None:
        for _ in range(_LOOKS):
            await self._pause(_PAUSE)
            await asyncio.to_thread(self._file.look, thoroughly=True)
            token = self._file.found
            if token is not None and token.access != stale.access and self._left(token) > EARLY:
                return token
        return None


def personal_login(settings: BackendSettings, transport: Transport, clock: Callable[[], float]) -> Login:
    """The login of one instance: renewed at Google's endpoint where client id and secret are configured, else by the CLI."""
    read_only = settings.refresh == "read-only"
    client_id, client_secret = settings.oauth_client_id, settings.oauth_client_secret
    direct = refresher(transport, client_id, client_secret) if client_id and client_secret else None
    file = CredentialFile(
        settings.id,
        paths(settings.token_path),
        read=read,
        command=COMMAND,
        refresh_token=refresh_token,
        refresher=direct,
        read_only=read_only,
        early=SOON,
        clock=clock,
    )
    if direct is not None:
        return file
    return CliLogin(file, None if read_only else GeminiCli(settings.id, settings.gemini_cli_executable, clock))
