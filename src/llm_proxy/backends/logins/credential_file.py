"""A login that a vendor's CLI keeps in a file: used in place, renewed before it expires, shared with whoever else writes it (BE-14).

Owns which token a call gets, and when one is renewed, refused and given up. What the file says is `login_file.py`'s, how it is renewed
`renewal.py`'s. Knows no vendor and no call of a provider.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_proxy.backends.logins.faults import credentials_fault, unusable_fault
from llm_proxy.backends.logins.login import Token
from llm_proxy.backends.logins.login_file import Known, LoginFile
from llm_proxy.backends.logins.lookout import LOOKOUT
from llm_proxy.backends.logins.renewal import Refresher, Renewals, revoked_reason
from llm_proxy.conversation.fault import FaultError
from llm_proxy.wire.secrets import Secret


class CredentialFile:
    """Fulfils `Login` for a file.

    `candidates`: where the file may be; the first that exists counts. `read` makes the token of its members or raises Unreadable, whose
    text follows the file's name ("has no tokens.access_token"). `refresh_token` finds that one; without it or without `refresher`, and
    with `read_only`, nothing is ever written. `early`: seconds before the expiry at which a token is renewed. `command` is what a person
    runs to log in. `now` is epoch time, `clock` monotonic, both in seconds.
    """

    def __init__(
        self,
        backend: str,
        candidates: Sequence[Path],
        *,
        read: Callable[[Mapping[str, Any]], Token],
        command: str,
        refresh_token: Callable[[Mapping[str, Any]], Secret | None] | None = None,
        refresher: Refresher | None = None,
        read_only: bool = False,
        early: float = 300.0,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.backend = backend
        self.command = command
        self._early = early
        self._now = now
        self._clock = clock
        self._file = LoginFile(
            backend, candidates, read=read, refresh_token=refresh_token, command=command, clock=clock
        )
        self._renewals: Renewals | None = None
        if refresher is not None and not read_only:
            self._renewals = Renewals(
                self._file, refresher, is_due=self._is_due, is_expired=self._is_expired, clock=clock, pause=pause
            )
        LOOKOUT.add(self)

    # what is known

    @property
    def reason(self) -> str:
        return self._reason_of(self._file.known)

    def _reason_of(self, known: Known) -> str:
        if known.token is None:
            return known.reason
        if self._is_expired(known.token) and not self._renewable(known):
            return f"the login in {self._file.name} has expired; run `{self.command}`."
        return ""

    @property
    def degraded(self) -> str:
        """Why calls fail although the file looks well, for showing; calls go on, because the next success ends it (BE-14)."""
        known, held = self._file.seen, self._file.held
        if known is None or known.token is None:
            return ""
        if held.refused is not None and held.refused == known.token.access:
            return f"the provider refuses the login in {self._file.name}; run `{self.command}`."
        if held.revoked is not None and held.revoked == known.refresh_token:
            return revoked_reason(self._file)
        return ""

    @property
    def found(self) -> Token | None:
        known = self._file.seen
        return None if known is None else known.token

    @property
    def refresh_token(self) -> Secret | None:
        """What renews the login, as last read, so that nothing shows it. Makes no call and reads nothing."""
        known = self._file.seen
        return None if known is None else known.refresh_token

    @property
    def path(self) -> Path | None:
        """The file that is used; None while none exists."""
        return self._file.path

    def look(self, *, thoroughly: bool = False) -> None:
        """Read the file if it may have changed. Blocks. Raises nothing."""
        self._file.look(thoroughly=thoroughly)

    # what is asked per call

    async def token(self) -> Token:
        await asyncio.to_thread(self.look)
        known, held = self._file.known, self._file.held
        if known.token is None or self._reason_of(known):
            raise unusable_fault(self.backend, self._reason_of(known))
        if self._renewals is None or not self._renewable(known) or not self._is_due(known.token):
            return known.token
        if self._clock() < held.not_before:
            if not self._is_expired(known.token):
                return known.token
            if held.revoked is not None:
                raise credentials_fault(self.backend, revoked_reason(self._file))
        return await self._renewals.renewed(known.token, forced=False)

    async def refused(self, token: Token) -> Token | None:
        await asyncio.to_thread(self.look, thoroughly=True)
        known, held = self._file.known, self._file.held
        if known.token is None or self._reason_of(known):
            return None
        if known.token.access != token.access and not self._is_expired(known.token):
            return known.token
        # What a forced renewal gave is not renewed by force again: a provider that refuses everything is not asked in a circle.
        allowed = held.forced != token.access and self._clock() >= held.force_not_before
        if self._renewals is not None and self._renewable(known) and (allowed or self._renewals.under_way):
            with contextlib.suppress(FaultError):
                renewed = await self._renewals.renewed(known.token, forced=True)
                if renewed.access != token.access:
                    return renewed
        self._file.held.refused = token.access
        return None

    def succeeded(self) -> None:
        self._file.held.refused = self._file.held.forced = None

    async def close(self) -> None:
        LOOKOUT.remove(self)
        if self._renewals is not None:
            await self._renewals.close()

    def _is_due(self, token: Token) -> bool:
        return token.expires is not None and token.expires - self._now() <= self._early

    def _is_expired(self, token: Token) -> bool:
        return token.expires is not None and token.expires <= self._now()

    def _renewable(self, known: Known) -> bool:
        return self._renewals is not None and known.refresh_token is not None
