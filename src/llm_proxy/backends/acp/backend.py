"""gemini-cli-acp: the Gemini CLI as an agent with a project directory, behind the interface of every back end (BE-18).

Owns where a prompt runs, how a turn becomes a response, and what is known of the models. Only configuration names the executable.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from llm_proxy.backends.acp.agent import AgentSettings, Turn
from llm_proxy.backends.acp.agents import Agents, Key, Prompted
from llm_proxy.backends.acp.answers import ChatAnswer
from llm_proxy.backends.acp.conversation import read_conversation
from llm_proxy.backends.acp.narration import Piece
from llm_proxy.backends.acp.permissions import AutoAccept
from llm_proxy.backends.acp.process import absolute_path, clean_environment
from llm_proxy.backends.acp.sandbox import Mode, Sandbox
from llm_proxy.backends.base import Action, Call, Limits, Redirect
from llm_proxy.backends.catalog import row_for
from llm_proxy.backends.transport import MemoryResponse, Response, tapped
from llm_proxy.config.backends import BackendSettings
from llm_proxy.config.kinds import NamedKey
from llm_proxy.conversation.fault import Fault, FaultError, bad_request
from llm_proxy.dialects.base import ModelInfo
from llm_proxy.dialects.capabilities import Capabilities, lookup
from llm_proxy.wire.urls import Origin

_LOG = logging.getLogger(__name__)

# https://ai.google.dev/gemini-api/docs/models: the same for all of these, seen 2026-11.
_LIMITS: Final = Limits(context_window=1_048_576, max_output=65_536)
# It becomes a word of the command line: nothing that the CLI could take for an option.
_MODEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}")
# What the agent cannot be told, so that it is done for it or said to be lost.
_ABILITIES: Final[dict[str, object]] = {
    "custom_tools": False, "allowed_tools": False, "forced_tools": False, "image_urls": False, "logprobs": False, "max_stop": 0,
    "multiple_choices": False,
}  # fmt: skip
_LOOKED_UP: Final = 5.0  # seconds for which it is remembered where the executable is
_LONGEST_WHOLE: Final = 32 * 2**20  # characters of an answer that is not streamed
_JSON: Final = [("content-type", "application/json")]
_EVENTS: Final = [("content-type", "text/event-stream; charset=utf-8")]


class AcpBackend:
    """An instance. `project_dir`: where prompts run unless the call says otherwise, None for the current directory. `dangerous(command)`:
    would RSP-12 stop this command; asked in a thread. `private`: files and directories of the proxy that no agent sees. `environ` is the
    proxy's environment. Times in seconds.
    """

    def __init__(
        self,
        settings: BackendSettings,
        *,
        executable: str = "gemini",
        model: str = "gemini-2.5-flash",
        project_dir: Path | None = None,
        auto_accept: AutoAccept = "safe",
        sandbox: Mode = "auto",
        private: Iterable[Path] = (),
        process_timeout: float = 300.0,
        idle_timeout: float = 3600.0,
        dangerous: Callable[[str], bool],
        environ: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = msgspec.structs.replace(settings, default_model=settings.default_model or model)
        self._executable = executable
        self._project_dir = project_dir
        self._clock = clock
        environ = os.environ if environ is None else environ
        self._path = absolute_path(environ.get("PATH", os.defpath))
        self._found: tuple[float, str | None] = (-_LOOKED_UP, None)
        self._capabilities = lookup("openai-chat", "", _ABILITIES)
        environment = clean_environment(environ)
        self._sandbox = Sandbox(settings.id, sandbox, environment, private)
        self._agents = Agents(
            AgentSettings(
                id=settings.id,
                executable=executable,
                name=executable,
                auto_accept=auto_accept,
                silence=process_timeout,
                environment=environment,
                sandbox=self._sandbox,
                dangerous=dangerous,
            ),
            idle_timeout,
        )

    @property
    def id(self) -> str:
        return self.settings.id

    @property
    def type(self) -> str:
        return "gemini-cli-acp"

    @property
    def functional(self) -> bool:
        return self.settings.functional and self.usable

    @property
    def usable(self) -> bool:
        return self.settings.enabled and self._where() is not None

    @property
    def reason(self) -> str:
        if not self.settings.enabled:
            return f"it is switched off (backends.{self.id}.enabled)."
        return "" if self._where() is not None else self._missing

    @property
    def _missing(self) -> str:
        return (
            f"the executable {self._executable} was not found; install the Gemini CLI and log in with it, "
            f"or set backends.{self.id}.gemini_cli_executable."
        )

    def _where(self) -> str | None:
        """The executable's absolute path; None when it is not there. Looked up again after some seconds."""
        now = self._clock()
        if now - self._found[0] >= _LOOKED_UP:
            given = os.path.expanduser(self._executable)
            found = shutil.which(given if os.path.dirname(given) == "" else os.path.abspath(given), path=self._path)
            self._found = (now, found)
        return self._found[1]

    @property
    def keys(self) -> tuple[NamedKey | None, ...]:
        return (None,)

    @property
    def origin(self) -> Origin | None:
        return None

    def dialect_for(self, client_dialect: str, redirect: Redirect | None = None) -> str:
        return "openai-chat"

    def capabilities(self, model: str, dialect: str, redirect: Redirect | None = None) -> Capabilities:
        return self._capabilities

    def limits(self, model: str) -> Limits:
        return _LIMITS

    def maker(self, model: str) -> str:
        return f"{self.id}/agent"

    def learn(self, model: str, dialect: str, fault: Fault, redirect: Redirect | None = None) -> bool:
        return False

    @property
    def list_failed(self) -> bool:
        return False

    @property
    def known_models(self) -> tuple[str, ...] | None:
        own = tuple(self.settings.models)
        if self.settings.pinned and own:
            return own
        first = (self.settings.default_model,) if self.settings.default_model else ()
        return tuple(dict.fromkeys((*first, *own, *row_for(self.type).models)))

    def supports(self, action: Action) -> bool:
        return action == "generate"

    async def models(self) -> list[ModelInfo]:
        size = _LIMITS
        return [
            ModelInfo(id=name, owner="google", context_window=size.context_window, max_output=size.max_output)
            for name in self.known_models or ()
        ]

    def end_session(self, session: str) -> None:
        """The session `session` is over: its processes end."""
        self._agents.end_session(session)

    @property
    def running(self) -> list[int]:
        """Ids of the agents' processes."""
        return self._agents.running

    async def close(self) -> None:
        await self._agents.close()

    async def open(self, call: Call) -> Response:
        return await tapped(call.tap, f"{self.id}:{call.model}", call.body, self._answer(call))

    async def _answer(self, call: Call) -> Response:
        """Returns when the agent said its first words, or was done without any."""
        executable = self._where()
        if executable is None:
            raise FaultError(Fault(kind="unavailable", message=f"{self.id} cannot be used: {self._missing}"))
        if not _MODEL.fullmatch(call.model):
            raise bad_request("That is no name of a model.", "model")
        request = msgspec.json.decode(call.body)
        request = request if isinstance(request, dict) else {}
        conversation = read_conversation(request)
        if not conversation.messages:
            raise bad_request("The request has no message with text.", "messages")
        if tools := request.get("tools"):
            _LOG.debug(
                "%s: the agent has tools of its own; %d of the client are not passed.", call.request_id, len(tools)
            )
        directory = await asyncio.to_thread(_project, call.directory or self._project_dir)
        await asyncio.to_thread(self._sandbox.check_project, directory)
        key = Key(directory, call.model, call.session)
        prompted = await self._agents.prompt(key, conversation, executable)
        try:
            first = await prompted.turn.next()
        except BaseException:
            prompted.done()
            raise
        answer = ChatAnswer(call.model, request)
        if call.stream or request.get("stream") is True:
            return _Answer(_EVENTS, prompted, _Stream(prompted, answer, first))
        return _Answer(_JSON, prompted, _Whole(prompted, answer, first))


def _project(given: Path | str | None) -> str:
    """The real path of the project directory. Raises FaultError."""
    place = os.path.realpath(os.path.expanduser(given or os.getcwd()))
    if not os.path.isdir(place):
        message = "The project directory does not exist; set another one with project-dir or in the configuration."
        raise FaultError(Fault(kind="bad_request", message=message, side="client"))
    return place


class _Answer(MemoryResponse):
    """A turn as a response. Closing it before its end is the client's leaving."""

    def __init__(self, headers: list[tuple[str, str]], prompted: Prompted, source: _Stream | _Whole) -> None:
        super().__init__(200, headers, source)
        self._prompted = prompted

    def close(self) -> None:
        super().close()
        self._prompted.done()


class _Stream:
    """Server-sent events, one for each piece."""

    def __init__(self, prompted: Prompted, answer: ChatAnswer, first: Piece | None) -> None:
        self._prompted = prompted
        self._answer = answer
        self._next: Piece | None = first
        self._begun = False
        self._over = False

    def __aiter__(self) -> _Stream:
        return self

    async def __anext__(self) -> bytes:
        if self._over:
            raise StopAsyncIteration
        if not self._begun:
            self._begun = True
            head = self._answer.opening()
            return head + (self._answer.chunk(self._next) if self._next is not None else self._close())
        piece = await _next(self._prompted)
        return self._answer.chunk(piece) if piece is not None else self._close()

    def _close(self) -> bytes:
        self._over = True
        self._prompted.done()
        return self._answer.closing(self._prompted.turn.result)


class _Whole:
    """One JSON object, when the turn is over."""

    def __init__(self, prompted: Prompted, answer: ChatAnswer, first: Piece | None) -> None:
        self._prompted = prompted
        self._answer = answer
        self._pieces = [] if first is None else [first]
        self._over = False

    def __aiter__(self) -> _Whole:
        return self

    async def __anext__(self) -> bytes:
        if self._over:
            raise StopAsyncIteration
        size = sum(len(piece.text) for piece in self._pieces)
        while (piece := await _next(self._prompted)) is not None:
            size += len(piece.text)
            if size > _LONGEST_WHOLE:
                self._prompted.done()
                raise FaultError(Fault(kind="upstream", message="The agent's answer is too long."))
            self._pieces.append(piece)
        self._over = True
        self._prompted.done()
        return self._answer.whole(self._pieces, self._prompted.turn.result)


async def _next(prompted: Prompted) -> Piece | None:
    turn: Turn = prompted.turn
    try:
        return await turn.next()
    except FaultError:
        prompted.done()
        raise
