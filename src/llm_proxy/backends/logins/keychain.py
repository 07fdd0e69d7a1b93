"""A login that another program keeps in the macOS keychain: read when it is needed, never written.

Never written, because the keychain's command takes the secret as an argument, where every user of the machine can see it; so it is
renewed by the program that owns it. Knows no provider: `read` makes a token of the item.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from llm_proxy.backends.logins.document import Unreadable
from llm_proxy.backends.logins.faults import unusable_fault
from llm_proxy.backends.logins.login import Token
from llm_proxy.backends.logins.login_file import sendable
from llm_proxy.conversation.fault import FaultError
from llm_proxy.wire.faults import JsonFault
from llm_proxy.wire.json import decode_object
from llm_proxy.wire.secrets import Secret

PATIENCE: Final = 20.0  # seconds; a question to the user about access may stand open on the screen
READ_AGAIN: Final = 30.0  # seconds between looks at an item that is good
_LONGEST: Final = 64 * 1024


class Unavailable(Exception):
    """The item cannot be read; the text says why."""


async def item_of(service: str) -> bytes:
    """The secret of a generic password item. Raises Unavailable."""
    try:
        process = await asyncio.create_subprocess_exec(
            "/usr/bin/security", "find-generic-password", "-s", service, "-w",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
    except OSError:
        raise Unavailable("the keychain's command /usr/bin/security is not there") from None
    try:
        async with asyncio.timeout(PATIENCE):
            found, _ = await process.communicate()
    except BaseException as error:
        process.kill()
        await process.wait()
        if isinstance(error, TimeoutError):
            raise Unavailable(f"the keychain did not answer within {PATIENCE:.0f} seconds") from None
        raise
    if process.returncode != 0:
        raise Unavailable(f"the keychain holds no item {service!r} that may be read")
    return found[:_LONGEST]


class KeychainLogin:
    """Fulfils `Login`. `read` raises Unreadable, whose text follows the item's name.

    `early`: seconds before its end from which a token is not used any more. `command`: what a person runs to log in again.
    """

    def __init__(
        self,
        backend_id: str,
        service: str,
        read: Callable[[dict[str, Any]], Token],
        command: str,
        *,
        early: float = 60.0,
        platform: str = sys.platform,
        item: Callable[[str], Awaitable[bytes]] = item_of,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._backend_id = backend_id
        self._service = service
        self._read = read
        self._command = command
        self._early = early
        self._item = item
        self._clock = clock
        self._found: Token | None = None
        self._read_at = 0.0
        self._reading: asyncio.Task[None] | None = None
        self._refused: Secret | None = None
        self._reason = ""
        self._elsewhere = platform != "darwin"

    @property
    def reason(self) -> str:
        if self._elsewhere:
            return f"backends.{self._backend_id}.macos_keychain works on macOS only; without it the login file is used."
        return ""  # what was wrong last time may be mended: only reading tells

    @property
    def degraded(self) -> str:
        """Why calls fail although the item looks well; another item or a success ends it (BE-14)."""
        if self._found is None or self._refused != self._found.access:
            return ""
        return f"the provider refuses the login in the keychain; run `{self._command}`."

    @property
    def found(self) -> Token | None:
        return self._found

    async def token(self) -> Token:
        if self._elsewhere:
            raise self._unusable(self.reason)
        now = self._clock()
        token = self._found
        if token is None or not self._good(token, now) or not 0 <= now - self._read_at < READ_AGAIN:
            await self._refresh()
            token = self._found
        if token is None:
            raise self._unusable(f"{self._reason}; run `{self._command}`.")
        if not self._good(token, now):
            raise self._unusable(f"the login in the keychain has expired; run `{self._command}`.")
        return token

    async def refused(self, token: Token) -> Token | None:
        await self._refresh()
        other = self._found
        if other is not None and other.access != token.access:
            return other
        self._refused = token.access
        return None

    def succeeded(self) -> None:
        self._refused = None

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    def _good(self, token: Token, now: float) -> bool:
        return token.expires is None or token.expires - now > self._early

    async def _refresh(self) -> None:
        """One read at a time, for all who wait; whoever stops waiting does not end it for the others."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._look())
        await asyncio.shield(self._reading)

    async def _look(self) -> None:
        try:
            found = sendable(self._read(decode_object((await self._item(self._service)).strip())))
        except Unavailable as error:
            self._found, self._reason = None, str(error)
        except JsonFault:
            self._found, self._reason = None, "the keychain's item is no JSON object"
        except Unreadable as error:
            self._found, self._reason = None, f"the keychain's item {error}"
        else:
            self._found, self._reason, self._read_at = found, "", self._clock()

    def _unusable(self, reason: str) -> FaultError:
        return unusable_fault(self._backend_id, reason)
