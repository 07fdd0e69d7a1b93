"""What a client asked and what became of it, as rooms see it: one request, decoded when somebody needs its meaning.

Owns the data of an exchange and the ways in which rooms read and change it. Makes no call and decides nothing; `exchange.py` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import re2  # type: ignore[import-untyped]

from llm_proxy import dialects
from llm_proxy.conversation.fault import Fault, FaultError, bad_request
from llm_proxy.conversation.request import Request, ServerTool
from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects.base import Head, Opening
from llm_proxy.features.exchange import AttemptRecord
from llm_proxy.server import local_answers
from llm_proxy.server.answer_text import MOST_CHARACTERS, AnswerTap
from llm_proxy.server.clients import Client
from llm_proxy.server.desk import ChatDesk
from llm_proxy.server.gateway import Gateway
from llm_proxy.server.http import Incoming, Outgoing
from llm_proxy.server.paths import Route
from llm_proxy.wire import json as wire_json
from llm_proxy.wire.faults import JsonFault


class Asked:
    """See the module. With `may_ask` and `shows_reasoning`, which only its life can tell, it fulfils `features.exchange.ExchangeView`."""

    def __init__(
        self,
        gateway: Gateway,
        incoming: Incoming,
        outgoing: Outgoing,
        route: Route,
        *,
        request_id: str,
        caller: Client,
    ) -> None:
        self.gateway = gateway
        self.rooms = gateway
        """The configuration whose rooms see this exchange, from its beginning to its end."""
        self.incoming = incoming
        self.outgoing = outgoing
        self.route = route
        self.client = dialects.get(route.surface)
        self.id = request_id
        self.surface: str = route.surface
        self.caller = caller
        self.key_name = caller.key_name
        self.session = caller.stranger()
        self.side = False
        self.planned = False
        self.hidden = False
        """Does the request of this try ask not to see the reasoning?"""
        self.opening = Opening()
        self.conversation = ""
        """Its name among those of the session, as far as keys are kept for it."""
        self.confirmation = ""
        self._parameters: dict[str, Any] = {}
        self.command_lines: list[str] = []
        self.local_text: str | None = None
        self._desk: ChatDesk | None = None
        self.tap: AnswerTap | None = None
        self.client_agent = incoming.header(b"user-agent")
        self.body = b""
        self._document = wire_json.Document(b"", {})
        self.client_body = b""
        """The body as the client sent it, where `body` is no longer that."""
        self.previous_id = ""
        self.head = Head("", False, 0)
        self._request: Request | None = None
        self.as_read: Request | None = None
        self._unreadable: Fault | None = None
        self.user = ""
        self.requested_model = ""
        self.backend = ""
        self.model = ""
        self.address = ""
        self.stream = False
        self.cancelled = False
        self.cached = False
        self.fault: Fault | None = None
        self.usage: Usage | None = None
        self.billed: Usage | None = None
        self.enforces_schema = False
        self.notes: list[str] = []
        self._parts = 0
        self.attempts: list[AttemptRecord] = []
        self.started = time.time()
        self.duration = 0.0
        self.time_to_first: float | None = None

    # What rooms see

    @property
    def request(self) -> Request:
        """The decoded request. Raises FaultError (client) when the body is not what the protocol allows."""
        if self._unreadable is not None:
            raise FaultError(self._unreadable)
        if self._request is None:
            self._request = self.as_read = self._decoded()
        return self._request

    @request.setter
    def request(self, value: Request) -> None:
        _ = self.request
        self._request = value

    @property
    def readable(self) -> Request | None:
        """The decoded request; None for one that only its provider can read."""
        try:
            return self.request
        except FaultError:
            return None

    @property
    def untouched(self) -> bool:
        """Is the decoded request still what was read? True also when nobody has asked for it."""
        return self._request is self.as_read

    def read_instead(self, body: bytes) -> None:
        """`body` stands for what the client sent. Raises FaultError when it is not readable."""
        self.client_body = self.client_body or self.body
        self._read(body)
        self._request = self.as_read = None

    def _decoded(self) -> Request:
        try:
            request = self.client.read_request(self._document, self.route.name, self.route.stream)
            _check_choice(request)
        except FaultError as error:
            self._unreadable = error.fault  # for all who ask: the decoded body may be used up
            raise
        return request

    @property
    def status(self) -> int:
        """That of the answer; before an error answer is written, the one that the failure means."""
        if not self.outgoing.started and self.fault is not None:
            return self.fault.status_code
        return self.outgoing.status

    @property
    def local(self) -> bool:
        """Did the proxy answer this itself?"""
        return self.local_text is not None

    @property
    def size(self) -> int:
        return len(self.body)

    @property
    def output_limit(self) -> int | None:
        return self.opening.max_tokens

    @property
    def json_demanded(self) -> bool:
        return self.opening.json_demanded

    @property
    def project(self) -> str:
        return str(self.session.values.get("project") or "")

    def mentions(self, text: str) -> bool:
        """Does a user message hold `text`?"""
        return self.opening.mentions(text)

    def desk(self) -> ChatDesk:
        """Where commands of this message work: on what is in force now, or a change that others made meanwhile would be undone."""
        if self._desk is None:
            self._desk = ChatDesk(self.gateway.running.gateway, self.session, self.caller, self.requested_model)
        return self._desk

    def reply(self, text: str) -> None:
        """Answers locally: nothing goes to a provider."""
        self.local_text = text

    def confirm(self, lines: Sequence[str], shown: bool) -> None:
        """Commands ran and the rest of the message goes on: says so in a header, and before the answer if `shown`."""
        self.command_lines = list(lines)
        if shown:
            self.confirmation = "\n".join(lines) + "\n\n"
            local_answers.remember_confirmation(self.session, self.confirmation)

    def prompt_text(self) -> str:
        """The text of the last user message, as it came."""
        return "\n".join(self.opening.last_user)

    def answer_text(self) -> str:
        """The visible text of the answer, as far as it was collected."""
        return self.local_text if self.local_text is not None else self.tap.text if self.tap else ""

    def recent_texts(self) -> Sequence[str]:
        """What came after the last assistant turn, as it came."""
        return self.opening.recent

    def parameters(self) -> dict[str, Any]:
        """What the request says of sampling, by the names of its protocol."""
        return self._parameters

    def answer_length(self) -> int:
        """About how many characters of visible text the answer has, also beyond those kept."""
        return self.tap.length if self.tap else 0

    def answer_id(self) -> str:
        """The provider's id of the answer."""
        return self.tap.id if self.tap else ""

    def keep_answer(self, most: int = MOST_CHARACTERS) -> None:
        """A room wants `answer_text`: the text is collected while it passes."""
        tap = self.tap
        self.tap = AnswerTap(calls=tap is not None and tap.keeps_calls, most=max(most, tap.most if tap else 0))

    def keep_calls(self) -> None:
        """A room wants `answer_calls`: the calls are collected while they pass."""
        tap = self.tap
        self.tap = AnswerTap(tap is not None and tap.keeps_text, calls=True, most=tap.most if tap else MOST_CHARACTERS)

    def answer_calls(self) -> Sequence[tuple[str, str]]:
        """The complete tool calls of the answer, as far as they were collected."""
        return self.tap.calls if self.tap else ()

    @property
    def tools(self) -> Sequence[str]:
        """Names of the tools that the request declares."""
        return self.opening.tools

    def holds(self, text: bytes) -> bool:
        """Do these bytes stand in the body?"""
        return _searcher(text)(self.body) is not None

    def new_part(self) -> int:
        """A number for a part that a room adds to the answer."""
        self._parts -= 1
        return self._parts

    def note(self, what: str) -> None:
        """A safeguard acted."""
        self.notes.append(what)

    def _read(self, body: bytes) -> None:
        """Reads the JSON once for everybody. Raises FaultError (bad_request) with the place of what is wrong."""
        try:
            self._document = wire_json.read_document(body)
        except JsonFault as fault:
            raise bad_request(str(fault), fault.path.removeprefix("$").removeprefix(".")) from None
        self.body = self._document.text
        self._unreadable = None


def _check_choice(request: Request) -> None:
    """A choice of a tool that is not declared is an impossible combination (FE-11). Tools of a provider have names of their own."""
    choice = request.tool_choice
    if choice is None or any(isinstance(tool, ServerTool) or tool.namespace for tool in request.tools):
        return
    declared = {tool.name for tool in request.tools if not isinstance(tool, ServerTool)}
    missing = next((name for name in choice.names if name not in declared), None)
    if missing is not None:
        message = f"tool_choice: no tool named {missing[:100]!r} is declared"
        raise FaultError(Fault(kind="validation", message=message, param="tool_choice", side="client"))


@lru_cache(maxsize=16)
def _searcher(text: bytes) -> Callable[[bytes], object]:
    """Finds a constant text in a body; a plain search of bytes takes twenty times as long."""
    found: Callable[[bytes], object] = re2.compile(re2.escape(text)).search
    return found
