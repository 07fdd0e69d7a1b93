"""JSON-RPC 2.0 over lines, as the Agent Client Protocol uses it (https://agentclientprotocol.com).

Owns requests, answers and their pairing. Knows no process and no method: lines come from a `Lines`, and what the other side wants is
told to two callables. One message is dealt with after the other, so whoever is slow holds the agent back and nothing piles up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import msgspec

_LOG = logging.getLogger(__name__)

INVALID_PARAMS: Final = -32602
METHOD_NOT_FOUND: Final = -32601
INTERNAL: Final = -32603
AUTH_REQUIRED: Final = -32000
RESOURCE_NOT_FOUND: Final = -32002

_MOST_KEPT: Final = 4000


class RpcError(Exception):
    """An error answer: one that came, or one to be given."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Ended(Exception):
    """The other side is gone; no answer will come any more."""


class Lines(Protocol):
    """Where messages come from and go to."""

    async def line(self) -> bytes:
        """The next line that is not blank, without its end; b"" when there will be none."""

    def write(self, data: bytes) -> None: ...

    async def drained(self) -> None:
        """Waits while the other side does not read."""


class Peer:
    """Our side of one connection. `answer(method, params)` gives the result of a request or raises RpcError; `notified(method,
    params)` takes a notification. Both are awaited before the next message is read. `noticed(line)` sees what is no message. `clock`
    counts seconds.
    """

    def __init__(
        self,
        lines: Lines,
        answer: Callable[[str, dict[str, Any]], Awaitable[Any]],
        notified: Callable[[str, dict[str, Any]], Awaitable[None]],
        noticed: Callable[[bytes], None],
        clock: Callable[[], float],
    ) -> None:
        self._lines = lines
        self._answer = answer
        self._notified = notified
        self._noticed = noticed
        self._clock = clock
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._last_id = 0
        self.ended = False
        self.heard = clock()
        """When the other side said something last."""

    async def run(self) -> None:
        """Reads until the other side is gone. Afterwards nobody waits for an answer any more."""
        try:
            while line := await self._lines.line():
                self.heard = self._clock()
                await self._take(line)
                self.heard = self._clock()  # what we took our time for is not its silence
        finally:
            self.ended = True
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(Ended())
                    future.exception()  # somebody may have stopped waiting
            self._waiting.clear()

    async def request(self, method: str, params: dict[str, Any]) -> Any:
        """The result. Raises RpcError for an error answer, Ended when the other side is gone."""
        if self.ended:
            raise Ended
        self._last_id += 1
        id = self._last_id
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[id] = future
        try:
            self._send({"id": id, "method": method, "params": params})
            return await future
        finally:
            self._waiting.pop(id, None)

    def notify(self, method: str, params: dict[str, Any]) -> None:
        if not self.ended:
            self._send({"method": method, "params": params})

    def give_up(self, error: RpcError) -> None:
        """Whoever waits for an answer gets `error` instead."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)
                future.exception()  # somebody may have stopped waiting

    def _send(self, members: dict[str, Any]) -> None:
        self._lines.write(msgspec.json.encode({"jsonrpc": "2.0", **members}) + b"\n")

    async def _take(self, line: bytes) -> None:
        try:
            message = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            message = None
        if not isinstance(message, dict):  # CLIs print notices among the messages
            _LOG.debug("The agent wrote a line of %d bytes that is no message.", len(line))
            self._noticed(line)
            return
        method = message.get("method")
        if isinstance(method, str):
            params = message.get("params")
            params = params if isinstance(params, dict) else {}
            if "id" in message:
                await self._reply(message["id"], method, params)
            else:
                await self._notified(method, params)
            return
        id = message.get("id")
        future = self._waiting.pop(id, None) if type(id) is int else None
        if future is None or future.done():
            return
        if "error" in message:
            future.set_exception(_error(message["error"]))
        else:
            future.set_result(message.get("result"))

    async def _reply(self, id: object, method: str, params: dict[str, Any]) -> None:
        try:
            reply = {"result": await self._answer(method, params)}
        except RpcError as error:
            reply = {"error": {"code": error.code, "message": error.message}}
        self._send({"id": id, **reply})
        await self._lines.drained()


def _error(found: object) -> RpcError:
    error = found if isinstance(found, dict) else {}
    code = error.get("code")
    message = error.get("message")
    text = message if isinstance(message, str) and message.strip() else "it gave no reason"
    data = error.get("data")
    if isinstance(data, dict) and isinstance(details := data.get("details"), str) and details.strip():
        text = f"{text}: {details}"
    return RpcError(code if type(code) is int else INTERNAL, " ".join(text.split())[:_MOST_KEPT])
