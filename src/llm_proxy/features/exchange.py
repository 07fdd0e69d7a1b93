"""What a room may see and change of an exchange: a view that the server's exchange fulfils."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from llm_proxy.commands.desk import Desk
from llm_proxy.conversation.fault import Fault
from llm_proxy.conversation.request import Request
from llm_proxy.conversation.usage import Usage
from llm_proxy.sessions.session import Session


class AttemptRecord(msgspec.Struct, frozen=True):
    """One call that was really made. `status` is the provider's HTTP status, 0 when it could not be reached."""

    backend: str
    model: str
    key_name: str
    status: int


class Candidate(msgspec.Struct, frozen=True):
    """A try that may be made. The sizes, in tokens, are what the catalogue knows of the model; 0 = unknown."""

    backend: str
    model: str
    context_window: int = 0
    max_input: int = 0
    max_output: int = 0


class CallView(Protocol):
    """What every request to a provider has, be it a generation, embeddings or a legacy completion."""

    key_name: str
    cancelled: bool
    fault: Fault | None
    usage: Usage | None
    attempts: list[AttemptRecord]
    time_to_first: float | None
    """Seconds from the start to the first content byte sent."""

    @property
    def size(self) -> int:
        """Bytes of the request's body."""

    def parameters(self) -> dict[str, Any]:
        """What the request says of sampling, by the names of its protocol. Nothing is decoded for it."""


class ExchangeView(CallView, Protocol):
    """One client request from its first byte to the end of its answer.

    Reading `request` decodes the body (once); rooms that can do without do without. Replacing it re-encodes what changed.
    """

    request: Request
    id: str
    surface: str
    session: Session
    client_agent: str
    user: str
    requested_model: str
    billed: Usage | None
    """What several calls made at once have used together, where that is more than `usage` says; else None."""

    backend: str
    model: str
    address: str
    """The server of the session's own to which this try goes, "" for the back end's (RT-12)."""

    stream: bool
    started: float
    """Seconds, wall clock."""
    duration: float
    planned: bool
    """Is this try one for the strong model of the planning phase (REQ-05)?"""

    notes: list[str]
    """What safeguards did, see `note`."""

    cached: bool
    """Did the response cache answer? Then nothing was called, used or billed."""

    side: bool
    """An errand of an agent beside the conversation (AGT-04): it is no turn."""

    @property
    def status(self) -> int:
        """The HTTP status sent to the client, 0 before."""

    @property
    def output_limit(self) -> int | None:
        """Tokens that the client allows for the answer, if its body says so at the usual place. Nothing is decoded for it."""

    @property
    def json_demanded(self) -> bool:
        """Must the answer be JSON?"""

    confirmation: str
    """What stands before the model's answer, "" for nothing."""

    @property
    def local(self) -> bool:
        """Did the proxy answer this itself?"""

    @property
    def project(self) -> str:
        """The project of the session, or ""."""

    def mentions(self, text: str) -> bool:
        """Does a user message hold `text`? Nothing is decoded for it."""

    def holds(self, text: bytes) -> bool:
        """Does `text` stand anywhere in the request's body? A plain search in its bytes; nothing is decoded for it."""

    def desk(self) -> Desk:
        """Where the commands of this message work."""

    @property
    def tools(self) -> Sequence[str]:
        """Names of the tools that the request declares, the type of those that have none. Nothing is decoded for it."""

    @property
    def may_ask(self) -> bool:
        """May a filter raise `AskAgain` now? Not after anything of an answer was sent, and not without end."""

    @property
    def shows_reasoning(self) -> bool:
        """Can the client be shown the reasoning of this answer?"""

    @property
    def enforces_schema(self) -> bool:
        """Does the target of this try keep answers to the schema that the request asks for?"""

    def new_part(self) -> int:
        """A number for a part that a filter adds to the answer."""

    def note(self, what: str) -> None:
        """A safeguard acted (`dangerous command`, `content loop` …): counted with the usage of this exchange."""

    def reply(self, text: str) -> None:
        """The proxy answers this itself: no later room sees the request, and nothing goes to a provider."""

    def confirm(self, lines: Sequence[str], shown: bool) -> None:
        """Commands ran and the rest of the message goes on: said in a header, and before the answer if `shown`."""

    def keep_answer(self, most: int = 4000) -> None:
        """Asked for in `on_request` by a room that will read `answer_text`, so many characters of it; without it no text is collected."""

    def answer_length(self) -> int:
        """About how many characters of visible text the answer has, also beyond those kept; 0 where nothing was collected."""

    def answer_id(self) -> str:
        """The provider's id of the answer, as far as it was collected."""

    def prompt_text(self) -> str:
        """The text of the last user message, as it came. Nothing is decoded for it."""

    def recent_texts(self) -> Sequence[str]:
        """What came after the last assistant turn: texts of the user and of tool results, in order. Nothing is decoded for it."""

    def keep_calls(self) -> None:
        """Asked for in `on_request` by a room that will read `answer_calls`."""

    def answer_calls(self) -> Sequence[tuple[str, str]]:
        """Name and arguments (JSON text) of the complete tool calls of the answer, as far as it was collected."""

    def answer_text(self) -> str:
        """The visible text of the answer as far as it was collected."""
