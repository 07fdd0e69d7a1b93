"""The renewal of a login in a file that others write, too: one at a time in this process and on this machine, and nothing lost (BE-14, S-16).

Owns the order: lock, read again, make sure that it can be written, ask, look once more, write. When a renewal is due is
`credential_file.py`'s to say, how a token endpoint is asked its vendor's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import filelock

from llm_proxy.backends.logins.document import Replacement, Unreadable, merged, read_document
from llm_proxy.backends.logins.faults import credentials_fault, unusable_fault
from llm_proxy.backends.logins.login import Token
from llm_proxy.backends.logins.login_file import Known, LoginFile
from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.wire.secrets import Secret

AGAIN_AFTER: Final = 30.0
"""Seconds before a renewal that failed, or was forced by a refusal, is made again (BE-14: validity is re-checked at most so often)."""

LOCK_WAIT: Final = 120.0
"""Longest wait for another process that renews the same login; it may make three calls with their pauses."""

TRIES: Final = 3
FIRST_PAUSE: Final = 1.0
OTHERS_LOOKS: Final = 5
OTHERS_PAUSE: Final = 0.2
"""A refused refresh token may have been used by the CLI a moment ago: so often, so many seconds apart, its file is looked at."""

_log = logging.getLogger(__name__)


class Revoked(Exception):
    """The token endpoint says that the refresh token is not good any more (400 `invalid_grant`, 401)."""


class Unreachable(Exception):
    """The token endpoint did not answer, or answered nonsense or a 5xx or 429; another try may help."""


class Refresher(Protocol):
    """Asks a vendor's token endpoint once."""

    async def __call__(self, refresh_token: Secret, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """The members of the file that are new, at their places in the document (`{"tokens": {"access_token": …}}`). `document` is what
        the file holds. Raises Revoked, Unreachable or FaultError (taken as Unreachable)."""


class Renewals:
    """The renewals of one file. `is_due` and `is_expired` judge a token by the wall clock; `clock` is monotonic, in seconds."""

    def __init__(
        self,
        file: LoginFile,
        refresher: Refresher,
        *,
        is_due: Callable[[Token], bool],
        is_expired: Callable[[Token], bool],
        clock: Callable[[], float],
        pause: Callable[[float], Awaitable[object]],
    ) -> None:
        self._file = file
        self._refresher = refresher
        self._is_due = is_due
        self._is_expired = is_expired
        self._clock = clock
        self._pause = pause
        self._task: asyncio.Task[Token | Fault] | None = None

    @property
    def under_way(self) -> bool:
        return self._task is not None and not self._task.done()

    async def renewed(self, stale: Token, *, forced: bool) -> Token:
        """Another token than `stale`; one renewal at a time, whoever asks and whoever leaves. Raises FaultError."""
        task = self._task
        if task is None or task.done():
            name = f"renew {self._file.backend}"
            task = self._task = asyncio.create_task(self._renew(stale, forced=forced), name=name)
        outcome = await asyncio.shield(task)
        if isinstance(outcome, Token):
            return outcome
        token = self._file.known.token
        if not forced and token is not None and not self._is_expired(token):
            return token
        raise FaultError(outcome)

    async def close(self) -> None:
        """A renewal is never cut off: the provider may have forgotten the old refresh token already."""
        if self._task is not None and not self._task.done():
            await asyncio.wait({self._task}, timeout=15.0)

    async def _renew(self, stale: Token, *, forced: bool) -> Token | Fault:
        path = self._file.path
        assert path is not None, "there is a token, so there is a file"
        real = await asyncio.to_thread(path.resolve)
        lock = filelock.FileLock(real.with_name(f".{real.name}.llm-proxy.lock"), thread_local=False, mode=0o600)
        try:
            await asyncio.to_thread(lock.acquire, timeout=LOCK_WAIT, poll_interval=0.05)
        except (filelock.Timeout, OSError) as error:
            timed_out = isinstance(error, TimeoutError)
            said = "another process has been renewing it for too long" if timed_out else str(error)
            return self._failed(f"the lock beside it cannot be taken ({said})")
        try:
            return await self._renew_locked(stale, forced=forced)
        finally:
            await asyncio.to_thread(lock.release)

    async def _renew_locked(self, stale: Token, *, forced: bool) -> Token | Fault:
        file = self._file
        await asyncio.to_thread(file.look, thoroughly=True)
        known = file.known
        if known.token is None:
            return unusable_fault(file.backend, known.reason).fault
        other = known.token.access != stale.access
        if not self._is_due(known.token) and (other or not forced):
            return known.token
        if known.refresh_token is None:
            reason = f"the login in {file.name} ends and holds nothing to renew it with; run `{file.command}`."
            return unusable_fault(file.backend, reason).fault
        file.held.force_not_before = self._clock() + AGAIN_AFTER
        try:
            # Before anything is asked: a login that cannot be written must stay good for the CLI.
            replacement = await asyncio.to_thread(Replacement, known.document.path or Path())
        except OSError as error:
            return self._failed(f"nothing can be written beside it ({error.strerror})")
        try:
            values = await self._ask(known.refresh_token, known.document.members or {})
            kept = await asyncio.to_thread(self._keep, replacement, known, values)
        except Revoked:
            return await self._after_revocation(known)
        except (Unreachable, FaultError) as error:
            return self._failed(f"the provider's token endpoint cannot be reached ({_brief(error)})")
        except Unreadable as error:
            return self._failed(f"the token endpoint's answer {error}")
        finally:
            await asyncio.to_thread(replacement.drop)
        if forced and isinstance(kept, Token):
            file.held.forced = kept.access
        return kept

    async def _ask(self, refresh_token: Secret, members: Mapping[str, Any]) -> Mapping[str, Any]:
        pause = FIRST_PAUSE
        for _ in range(TRIES - 1):
            try:
                return await self._refresher(refresh_token, members)
            except (Unreachable, FaultError):
                await self._pause(pause)
                pause *= 2
        return await self._refresher(refresh_token, members)

    def _keep(self, replacement: Replacement, known: Known, values: Mapping[str, Any]) -> Token | Fault:
        """Write what is new, unless the file has become another and newer login meanwhile. Blocks. Raises Unreadable."""
        file = self._file
        assert known.token is not None
        base, members = known.document, merged(known.document.members or {}, values)
        ours = file.token_in(members)
        try:
            replacement.fill(members)
            for _ in range(OTHERS_LOOKS):
                document = read_document(file.candidates)
                if document.digest == base.digest:
                    break
                theirs = file.understood(document)
                if document.path is None or (theirs.token is not None and _is_another(theirs.token, known.token)):
                    file.take(document)
                    if theirs.token is None:
                        return unusable_fault(file.backend, theirs.reason).fault
                    return self._good(theirs.token, ours)
                # The CLI wrote what is no newer login: what else it changed is kept.
                base, members = document, merged(document.members or known.document.members or {}, values)
                replacement.fill(members)
            replacement.place()
        except OSError as error:
            _log.error("%s: a renewed login could not be written to %s: %s", file.backend, base.path, error.strerror)
            file.keep_in_memory(known, members, ours)
            return ours
        file.look(thoroughly=True)
        return self._good(file.known.token, ours)

    def _good(self, token: Token | None, ours: Token) -> Token:
        """What the file holds, unless that is over by now: somebody may have been slow to write it. The next call renews it then."""
        return ours if token is None or self._is_expired(token) else token

    async def _after_revocation(self, before: Known) -> Token | Fault:
        """The refresh token is spent or revoked. If the CLI or another proxy spent it, its successor is about to appear in the file."""
        file = self._file
        for _ in range(OTHERS_LOOKS):
            await asyncio.to_thread(file.look, thoroughly=True)
            known = file.known
            if known.token is not None and known.refresh_token != before.refresh_token:
                if not self._is_expired(known.token):
                    return known.token
                break
            await self._pause(OTHERS_PAUSE)
        file.held.revoked = before.refresh_token
        file.held.not_before = self._clock() + AGAIN_AFTER
        return credentials_fault(file.backend, revoked_reason(file)).fault

    def _failed(self, why: str) -> Fault:
        file = self._file
        file.held.not_before = self._clock() + AGAIN_AFTER
        reason = f"the login in {file.name} could not be renewed: {why}; if it goes on, run `{file.command}`."
        _log.warning("%s: %s", file.backend, reason)
        return credentials_fault(file.backend, reason).fault


def revoked_reason(file: LoginFile) -> str:
    return f"the login in {file.name} was revoked and cannot be renewed; run `{file.command}`."


def _is_another(theirs: Token, read: Token) -> bool:
    """Is what others wrote a later login than the one that was read, or another account's, and not one that was kept in memory and
    written back?"""
    if theirs.access == read.access:
        return False
    if theirs.account != read.account:
        return True
    return theirs.expires is None or read.expires is None or theirs.expires > read.expires


def _brief(error: Exception) -> str:
    return str(error)[:200] or type(error).__name__
