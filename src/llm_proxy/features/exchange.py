"""What a room may see and change of an exchange: a view that the server's exchange fulfils."""

from __future__ import annotations

from typing import Protocol

import msgspec

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


class ExchangeView(Protocol):
    """One client request from its first byte to the end of its answer.

    Reading `request` decodes the body (once); rooms that can do without do without. Replacing it re-encodes what changed.
    """

    request: Request
    id: str
    surface: str
    session: Session
    key_name: str
    client_agent: str
    user: str
    requested_model: str
    backend: str
    model: str
    stream: bool
    status: int
    cancelled: bool
    fault: Fault | None
    usage: Usage | None
    attempts: list[AttemptRecord]
    started: float
    """Seconds, wall clock."""
    duration: float
    time_to_first: float | None
    """Seconds from the start to the first content byte sent."""
