"""One running agent: its process, its session of the protocol, and the turn that is under way (BE-18).

Owns the handshake, prompting, answering what the agent asks for, and leaving a turn. Knows no client and no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from llm_proxy.backends.acp.conversation import Heard
from llm_proxy.backends.acp.faults import fault_of
from llm_proxy.backends.acp.logins import has_chosen_login, login_to_ask_for
from llm_proxy.backends.acp.narration import Narration, Piece
from llm_proxy.backends.acp.permissions import AutoAccept, Permissions
from llm_proxy.backends.acp.process import AgentProcess
from llm_proxy.backends.acp.project_files import read_text_file, write_text_file
from llm_proxy.backends.acp.protocol import (
    AUTH_REQUIRED,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    RESOURCE_NOT_FOUND,
    Ended,
    Peer,
    RpcError,
)
from llm_proxy.backends.acp.sandbox import Sandbox
from llm_proxy.conversation.fault import Fault, FaultError

_LOG = logging.getLogger(__name__)

_VERSION: Final = 1
_CAPABILITIES: Final = {"fs": {"readTextFile": True, "writeTextFile": True}, "terminal": False}
_MOST_HELD: Final = 256 * 1024  # characters that wait for a slow client before the agent has to wait
_AFTER_CANCEL: Final = 5.0
_OLD_FLAG: Final = "--experimental-acp"
_NEW_FLAG: Final = "--acp"
# What its name in the greeting means was seen with @google/gemini-cli 0.61.0, 2026-11:
# - It looks at a file before it writes it, and takes any error for a failure: without an empty answer it can create no file.
# - A thought comes whole, its subject in bold first.
# - It forgets the login that its user chose when it is asked to authenticate with another one.
# - Where a Google login is missing or revoked it shows a page to visit and waits five minutes for a code, even at the greeting.
_GEMINI_CLI: Final = "gemini-cli"
_PAGE_TO_VISIT: Final = b"https://accounts.google.com/o/oauth2/"
_LOGIN_WANTED: Final = 401


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is the same for all agents of a back end. `id`: the back end's. `executable`: absolute. Times in seconds."""

    id: str
    executable: str
    name: str
    """The executable as it is configured, for messages."""
    auto_accept: AutoAccept
    silence: float
    environment: Mapping[str, str]
    sandbox: Sandbox
    dangerous: Callable[[str], bool]


class Turn:
    """One prompt's answer while it comes in. `add` and `finish` are the agent's side, `next` is the reader's."""

    def __init__(self, peer: Peer, silence: float, narration: Narration) -> None:
        self._peer = peer
        self._silence = silence
        self._pieces: deque[Piece] = deque()
        self._held = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._abandoned = False
        self.narration = narration
        self.ended = asyncio.Event()
        self.result: dict[str, Any] = {}
        self._fault: Fault | None = None

    async def add(self, pieces: list[Piece]) -> None:
        if self.ended.is_set() or self._abandoned:
            return
        for piece in pieces:
            self._pieces.append(piece)
            self._held += len(piece.text)
        self._arrived.set()
        if self._held > _MOST_HELD:
            self._room.clear()
        await self._room.wait()

    def finish(self, result: dict[str, Any] | None = None, fault: Fault | None = None) -> None:
        if not self.ended.is_set():
            self.result, self._fault = result or {}, fault
            self.ended.set()
            self._arrived.set()
            self._room.set()

    def abandon(self) -> None:
        """Nobody reads any more: what comes is dropped, so that the agent can come to its end."""
        self._abandoned = True
        self._pieces.clear()
        self._room.set()

    @property
    def failed(self) -> bool:
        return self._fault is not None

    async def next(self) -> Piece | None:
        """None at the end. Raises FaultError when the turn failed, or the agent was silent for too long."""
        while not self._pieces:
            if self.ended.is_set():
                if self._fault is not None:
                    raise FaultError(self._fault)
                return None
            self._arrived.clear()
            try:
                left = self._peer.heard + self._silence - time.monotonic()
                # Not `wait_for`: up to Python 3.11 it loses a cancellation that comes together with a piece.
                async with asyncio.timeout(max(left, 0.0)):
                    await self._arrived.wait()
            except TimeoutError:
                if time.monotonic() - self._peer.heard < self._silence:
                    continue
                message = f"The agent said nothing for {self._silence:g} seconds (process_timeout)."
                raise FaultError(Fault(kind="timeout", message=message)) from None
        piece = self._pieces.popleft()
        self._held -= len(piece.text)
        if self._held <= _MOST_HELD // 2:
            self._room.set()
        return piece


class Agent:
    """See the module. `directory` is a real path. Made by `start`; ended by `leave` or `end`."""

    def __init__(self, settings: AgentSettings, directory: str, process: AgentProcess) -> None:
        self._settings = settings
        self._directory = directory
        self._process = process
        self._permissions = Permissions(settings.auto_accept, directory, settings.dangerous)
        self._peer = Peer(process, self._answer, self._notified, self._noticed, time.monotonic)
        self._session = ""
        self._turn: Turn | None = None
        self._prompting: asyncio.Task[None] | None = None
        self._reading = asyncio.create_task(self._peer.run(), name=f"agent {process.pid}")
        self._reading.add_done_callback(_note_failure)
        self.takes_images = False
        self._is_gemini_cli = False
        self.heard = Heard()

    @classmethod
    async def start(cls, settings: AgentSettings, directory: str, model: str, flags: list[str]) -> Agent:
        """`flags`: how this CLI is made an agent, the likeliest first; what worked stays there alone. Raises FaultError."""
        for flag in list(flags):
            argv = [settings.executable, flag, "--model", model]
            argv += ["-y"] if settings.auto_accept == "true" else []
            start = await asyncio.to_thread(settings.sandbox.start, argv, directory)
            try:
                process = await AgentProcess.start(start.argv, directory, start.environment, start.watched)
            except OSError as error:
                raise FaultError(_cannot_start(settings, error.strerror)) from None
            agent = cls(settings, directory, process)
            try:
                await agent._begin()
            except BaseException as error:
                await agent.end()
                if isinstance(error, Ended):
                    if process.not_begun:
                        raise FaultError(_cannot_start(settings, process.not_begun)) from None
                    if flag != flags[-1]:
                        continue  # a CLI that does not know the flag ends at once
                    raise FaultError(agent._gone("before it was ready")) from None
                if isinstance(error, RpcError):
                    raise FaultError(agent._fault(error)) from None
                raise
            flags[:] = [flag]
            return agent
        raise AssertionError("flags is never empty")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self._peer.ended and self._process.exit_status is None

    # ---- the handshake

    async def _begin(self) -> None:
        about = await self._ask(
            "initialize",
            {
                "protocolVersion": _VERSION,
                "clientCapabilities": _CAPABILITIES,
                "clientInfo": {"name": "llm-proxy", "title": "LLM Interactive Proxy", "version": "1"},
            },
        )
        if about.get("protocolVersion") != _VERSION:
            message = (
                f"{self._settings.name} speaks another version of the Agent Client Protocol than {_VERSION}; update it."
            )
            raise FaultError(Fault(kind="upstream", message=message))
        abilities = about.get("agentCapabilities")
        prompts = abilities.get("promptCapabilities") if isinstance(abilities, dict) else None
        self.takes_images = isinstance(prompts, dict) and prompts.get("image") is True
        info = about.get("agentInfo")
        self._is_gemini_cli = isinstance(info, dict) and info.get("name") == _GEMINI_CLI
        try:
            await self._open_session()
        except RpcError as error:
            if error.code != AUTH_REQUIRED or not (method := login_to_ask_for(about.get("authMethods"))):
                raise
            if self._is_gemini_cli and await asyncio.to_thread(has_chosen_login, self._settings.environment):
                raise
            await self._ask("authenticate", {"methodId": method})
            await self._open_session()

    async def _open_session(self) -> None:
        made = await self._ask("session/new", {"cwd": self._directory, "mcpServers": []})
        session = made.get("sessionId")
        if not isinstance(session, str) or not session:
            raise FaultError(Fault(kind="upstream", message=f"{self._settings.name} opened no session."))
        self._session = session

    async def _ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """The result of a request of the handshake."""
        try:
            async with asyncio.timeout(self._settings.silence):
                result = await self._peer.request(method, params)
        except TimeoutError:
            silence = self._settings.silence
            message = f"{self._settings.name} did not answer `{method}` for {silence:g} seconds (process_timeout)."
            raise FaultError(Fault(kind="timeout", message=message)) from None
        return result if isinstance(result, dict) else {}

    # ---- a turn

    def prompt(self, blocks: list[dict[str, Any]]) -> Turn:
        """Begins a turn; the one before is over."""
        self._peer.heard = time.monotonic()
        turn = self._turn = Turn(self._peer, self._settings.silence, Narration(self._is_gemini_cli))
        self._prompting = asyncio.create_task(self._prompt(turn, blocks))
        return turn

    async def _prompt(self, turn: Turn, blocks: list[dict[str, Any]]) -> None:
        try:
            result = await self._peer.request("session/prompt", {"sessionId": self._session, "prompt": blocks})
        except RpcError as error:
            turn.finish(fault=self._fault(error))
        except Ended:
            turn.finish(fault=self._gone("in the middle of its answer"))
        else:
            turn.finish(result if isinstance(result, dict) else {})

    async def leave(self) -> None:
        """The client has gone: cancels the turn, and ends the process with its children at the latest five seconds later."""
        turn = self._turn
        if turn is not None and self.alive:
            turn.abandon()
            self._peer.notify("session/cancel", {"sessionId": self._session})
            try:
                async with asyncio.timeout(_AFTER_CANCEL - 1):  # one second is for ending politely
                    await turn.ended.wait()
            except TimeoutError:
                _LOG.info("Agent %d did not end its cancelled turn.", self._process.pid)
        await self.end()

    async def end(self) -> None:
        """Ends the process, its children and the turn."""
        if self._turn is not None:
            self._turn.abandon()
        try:
            await self._process.end()
        finally:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
            if self._prompting is not None:
                await asyncio.gather(self._prompting, return_exceptions=True)

    # ---- what the agent says and asks

    async def _notified(self, method: str, params: dict[str, Any]) -> None:
        turn, update = self._turn, params.get("update")
        if method != "session/update" or turn is None or not isinstance(update, dict):
            return
        if params.get("sessionId") == self._session:
            await turn.add(turn.narration.tell(update))

    def _noticed(self, line: bytes) -> None:
        if _PAGE_TO_VISIT in line:
            self._peer.give_up(RpcError(_LOGIN_WANTED, "It wants its user to log in."))

    async def _answer(self, method: str, params: dict[str, Any]) -> Any:
        if method not in ("session/request_permission", "fs/read_text_file", "fs/write_text_file"):
            raise RpcError(METHOD_NOT_FOUND, f"Method not found: {method[:100]}")
        if params.get("sessionId") != self._session:
            raise RpcError(INVALID_PARAMS, "There is no such session.")
        if method == "fs/read_text_file":
            return await self._read(params)
        if method == "fs/write_text_file":
            return await asyncio.to_thread(write_text_file, self._directory, params, self._settings.sandbox.is_private)
        allowed, answer = await asyncio.to_thread(self._permissions.decide, params)
        turn, call = self._turn, params.get("toolCall")
        if not allowed:
            _LOG.info("Agent %d was refused a permission.", self._process.pid)
        if turn is not None and isinstance(call, dict):
            await turn.add(turn.narration.asked(call, allowed))
        return answer

    async def _read(self, params: dict[str, Any]) -> dict[str, Any]:
        try:
            return await asyncio.to_thread(read_text_file, self._directory, params, self._settings.sandbox.is_private)
        except RpcError as error:
            if error.code == RESOURCE_NOT_FOUND and self._is_gemini_cli:
                return {"content": ""}
            raise

    # ---- what went wrong

    def _gone(self, when: str) -> Fault:
        settings = self._settings
        if self._process.too_long:
            return Fault(kind="upstream", message=f"{settings.name} wrote a line that is too long.")
        status = self._process.exit_status
        told = f"with status {status} " if status is not None else ""
        message = f"{settings.name} ended {told}{when}; run `{settings.name}` in a terminal to see why."
        return Fault(kind="closed", message=message)

    def _fault(self, error: RpcError) -> Fault:
        return fault_of(error, self._settings.id, self._settings.name)


def _cannot_start(settings: AgentSettings, reason: str | None) -> Fault:
    message = f"{settings.name} cannot be started ({reason}); see backends.{settings.id}.gemini_cli_executable."
    return Fault(kind="unavailable", message=message)


def agent_flags() -> list[str]:
    """For `Agent.start`."""
    return [_OLD_FLAG, _NEW_FLAG]


def _note_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _LOG.error("Reading an agent failed (%s).", type(error).__name__)
