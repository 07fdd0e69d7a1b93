"""A back end that calls with a login instead of a key: a token per call, and one repeat with another when the provider refuses it (BE-14).

Owns the repeat and what a refusal means. Where a token comes from is the login's; how a vendor wants its calls is the subclasses'.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypedDict, Unpack

from llm_proxy.backends.base import Call
from llm_proxy.backends.http import HttpBackend
from llm_proxy.backends.logins.faults import credentials_fault
from llm_proxy.backends.logins.login import Login, Token
from llm_proxy.backends.transport import Credential, Endpoint, Response, Transport
from llm_proxy.config.backends import BackendSettings
from llm_proxy.config.built_in import BUILT_IN
from llm_proxy.config.kinds import NamedKey
from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.wire.urls import BaseUrl


class Listing(TypedDict, total=False):
    """What an instance's list of models is made with (see `HttpBackend`); a registry gives both."""

    list_ttl: float
    fallback_models: tuple[str, ...]


class LoginBackend(HttpBackend):
    """One instance that uses a login. A vendor overrides `send`, or only what differs of `base_of`, `headers_of`, `body_of` and
    `credentials_of`.

    `clock` is monotonic. `command`: what a person runs to log in; the type's own unless given.
    """

    def __init__(
        self,
        settings: BackendSettings,
        transport: Transport,
        login: Login,
        *,
        clock: Callable[[], float] = time.monotonic,
        command: str = "",
        **listing: Unpack[Listing],
    ) -> None:
        super().__init__(settings, transport, clock=clock, **listing)
        self.login = login
        self.command = command or BUILT_IN[settings.type].login

    # what it is

    @property
    def usable(self) -> bool:
        return self.settings.enabled and not self.login.reason

    @property
    def functional(self) -> bool:
        """A personal login serves only where it is named (BE-01)."""
        return self.settings.mentioned and self.usable

    @property
    def reason(self) -> str:
        if not self.settings.enabled:
            return f"it is switched off (backends.{self.id}.enabled)."
        return self.login.reason

    @property
    def degraded(self) -> str:
        """Why its calls fail although it may be called; "" when nothing is known against it."""
        return self.login.degraded

    @property
    def keys(self) -> tuple[NamedKey | None, ...]:
        return (None,)

    # calls

    async def open(self, call: Call) -> Response:
        if call.redirect is not None:
            message = f"Back end {self.id} uses a login, which no other server than its own may see."
            raise FaultError(Fault(kind="bad_request", message=message, side="client"))
        token = await self.login.token()
        response = await self.send(call, token)
        if self.refuses(response):
            response.close()
            other = await self.login.refused(token)
            if other is None:
                raise self.refusal()
            response = await self.send(call, other)
            if self.refuses(response):
                response.close()
                await self.login.refused(other)
                raise self.refusal()
        if 200 <= response.status < 300:
            self.login.succeeded()
        return response

    async def send(self, call: Call, token: Token) -> Response:
        """Make the call with `token`, which goes to the configured origin only. Raises FaultError."""
        base = self.base_of(token)
        return await self._transport.post(
            Endpoint(base.origin, self._target(base.path, call)),
            self.headers_of(call, token),
            self.body_of(call, token),
            credentials=self.credentials_of(token, base),
            connect_timeout=self.settings.connect_timeout,
            silence_timeout=self.settings.timeout,
            keep=self.settings.max_connections,
            label=self._label,
            tap=call.tap,
        )

    def base_of(self, token: Token) -> BaseUrl:
        """Where its endpoints begin: the configured address, else the type's own. A login that names another one may be believed only
        where none is configured."""
        return self._base

    def headers_of(self, call: Call, token: Token) -> dict[str, str]:
        """The headers of a call but for credentials, names in lower case."""
        return self._call_headers(call)

    def body_of(self, call: Call, token: Token) -> bytes:
        return call.body

    def credentials_of(self, token: Token, base: BaseUrl) -> tuple[Credential, ...]:
        """The headers that hold secrets, bound to the origin of `base`."""
        return (self._credential(token.access, base.origin),)

    def refuses(self, response: Response) -> bool:
        """Is this answer about the credentials?"""
        return response.status in (401, 403)

    def refusal(self) -> FaultError:
        reason = self.login.reason or self.degraded or f"the provider refuses it; run `{self.command}`."
        return credentials_fault(self.id, reason)

    async def close(self) -> None:
        await self.login.close()
        await super().close()
