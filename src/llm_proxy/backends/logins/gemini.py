"""Gemini through Code Assist: the free login of the Gemini CLI, and a Google Cloud project that pays (BE-17).

Owns one call: project, envelope, address and headers. Tokens are their login's, the envelope `code_assist.py`'s, projects `onboarding.py`'s.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Unpack

from llm_proxy import dialects
from llm_proxy.backends.base import Action, Call
from llm_proxy.backends.logins import code_assist
from llm_proxy.backends.logins.base import Listing, LoginBackend
from llm_proxy.backends.logins.daily import DailyCount
from llm_proxy.backends.logins.faults import credentials_fault
from llm_proxy.backends.logins.google_cloud import CloudLogin
from llm_proxy.backends.logins.headers import with_user_agent_only
from llm_proxy.backends.logins.login import Login, Token
from llm_proxy.backends.logins.onboarding import Projects, Refused
from llm_proxy.backends.logins.personal import personal_login
from llm_proxy.backends.logins.rereading import given
from llm_proxy.backends.transport import Credential, Endpoint, Response, Transport
from llm_proxy.config.backends import BackendSettings
from llm_proxy.conversation.fault import FaultError
from llm_proxy.wire.json import encode
from llm_proxy.wire.tap import WireTap
from llm_proxy.wire.urls import BaseUrl, parse_base_url

_LARGEST_ACCOUNT = 1024 * 1024


class CodeAssistBackend(LoginBackend):
    """`billed`: the configured project of a cloud login, "" for a personal one. `daily` counts what a personal one sends."""

    def __init__(
        self,
        settings: BackendSettings,
        transport: Transport,
        login: Login,
        *,
        clock: Callable[[], float],
        billed: str = "",
        daily: DailyCount | None = None,
        wall: Callable[[], float] = time.time,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        **listing: Unpack[Listing],
    ) -> None:
        super().__init__(settings, transport, login, clock=clock, **listing)
        self._base = _with_version(parse_base_url(settings.base_url or self.row.base_url))
        self._projects = Projects(self._label, billed=billed, pause=pause)
        self._daily = daily
        self._wall = wall
        self._said = ""
        self._salt = secrets.token_bytes(16)

    def supports(self, action: Action) -> bool:
        """Code Assist counts contents only, without tools and system text, so the proxy's own estimate is the better number."""
        return action == "generate"

    async def send(self, call: Call, token: Token) -> Response:
        """One generation, always streamed. An error while the project is being found is the answer."""

        async def ask(method: str, body: dict[str, Any]) -> bytes:
            return await self._ask(call, token, method, body)

        try:
            project = await self._projects.of(token.account, ask, token.access)
        except Refused as refused:
            return given(refused.status, refused.headers, refused.body)
        if self._daily is not None:
            self._daily.add()
        response = await self._generate(call, token, project)
        if 200 <= response.status < 300:
            return code_assist.Opened(response)
        answer, body = await code_assist.refused(response, self._wall())
        if answer.status == 403:
            # The project may have been taken away. Google says why, and whoever is told of the login is told that, too.
            self._projects.forget(token.account)
            self._said = dialects.get("gemini").read_error(answer.status, (), body).message[:300]
        return answer

    def refusal(self) -> FaultError:
        said, self._said = self._said, ""
        if not said:
            return super().refusal()
        return credentials_fault(
            self.id, f"Google says: {said.rstrip('.')}; if the login is the cause, run `{self.command}`."
        )

    async def _generate(self, call: Call, token: Token, project: str) -> Response:
        body = code_assist.wrapped(
            call.body,
            model=call.model,
            project=project,
            prompt_id=call.request_id or str(uuid.uuid4()),
            salt=self._salt,
        )
        headers = self._login_headers(call) | {"accept": "text/event-stream"}
        return await self._post(code_assist.GENERATE, headers, body, token, call.tap)

    async def _ask(self, call: Call, token: Token, method: str, body: dict[str, Any]) -> bytes:
        headers = self._login_headers(call) | {"accept": "application/json"}
        response = await self._post(f":{method}", headers, encode(body), token)
        try:
            answer = await response.read(_LARGEST_ACCOUNT)
        finally:
            response.close()
        if not 200 <= response.status < 300:
            raise Refused(response.status, list(response.headers), answer)
        return answer

    def _login_headers(self, call: Call) -> dict[str, str]:
        return self._call_headers(with_user_agent_only(call, self._identity))

    async def _post(
        self, method: str, headers: dict[str, str], body: bytes, token: Token, tap: WireTap | None = None
    ) -> Response:
        return await self._transport.post(
            Endpoint(self._base.origin, self._base.path + method),
            headers,
            body,
            credentials=(Credential("authorization", token.access, self._base.origin, "Bearer "),),
            connect_timeout=self.settings.connect_timeout,
            silence_timeout=self.settings.timeout,
            keep=self.settings.max_connections,
            label=self._label,
            tap=tap,
        )

    async def close(self) -> None:
        await self._projects.close()
        await super().close()


def _with_version(base: BaseUrl) -> BaseUrl:
    """The API's version stands in its path; addresses may be configured without it."""
    return base if base.path.endswith(code_assist.PATH) else BaseUrl(base.origin, base.path + code_assist.PATH)


def build_personal(
    settings: BackendSettings, transport: Transport, clock: Callable[[], float], **listing: Unpack[Listing]
) -> CodeAssistBackend:
    """`gemini-cli-oauth-personal`."""
    daily = DailyCount(settings.id, settings.daily_request_limit, time.time)
    login = personal_login(settings, transport, clock)
    return CodeAssistBackend(settings, transport, login, clock=clock, daily=daily, **listing)


def build_cloud(
    settings: BackendSettings, transport: Transport, clock: Callable[[], float], **listing: Unpack[Listing]
) -> CodeAssistBackend:
    """`gemini-cli-cloud-project`."""
    project = settings.gcp_project_id or ""
    login = CloudLogin(settings.id, project, settings.credentials_path)
    return CodeAssistBackend(settings, transport, login, clock=clock, billed=project, **listing)
