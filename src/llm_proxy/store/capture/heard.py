"""What is heard of a call: small records that the event loop makes in a microsecond and a thread turns into lines later.

Owns their shapes only. Holds references to the very bytes that were sent or read; nothing is decoded or copied here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

FORMAT_VERSION = "buffered_v1"

Direction = Literal["system_init", "outbound_request", "inbound_response", "stream_start", "stream_chunk", "stream_end"]

Headers = Sequence[tuple[str, str]]


class Caller(msgspec.Struct, kw_only=True):
    """Whose call it is and where it goes. `call` counts the calls of one request; several may belong to one attempt, such as a repeat
    with another token, or the copies that make several choices. `notes` are the writing thread's own.
    """

    client_host: str = ""
    user_agent: str = ""
    session_id: str = ""
    backend: str = ""
    model: str = ""
    key_name: str = ""
    request_id: str = ""
    attempt: int = 1
    call: int = 1
    notes: object = None

    @property
    def source(self) -> str:
        """`host(agent)`, `host` or `unknown_client`."""
        if not self.client_host:
            return "unknown_client"
        return f"{self.client_host}({self.user_agent})" if self.user_agent else self.client_host


class Sent(msgspec.Struct, frozen=True):
    """The body as it went to `destination`."""

    destination: str
    body: bytes


class Begun(msgspec.Struct, frozen=True):
    """The head of an answer that is a stream."""

    status: int
    headers: Headers


class Piece(msgspec.Struct, frozen=True):
    """A piece of a stream as it was read. `number` counts from 1."""

    number: int
    data: bytes


class Ended(msgspec.Struct, frozen=True):
    """The end of a stream; `failure` "" when it was complete. Times in seconds since the request was sent."""

    status: int
    chunks: int
    size: int
    duration: float
    first: float | None
    failure: str


class Answered(msgspec.Struct, frozen=True):
    """An answer that came whole, or none at all: then `status` is 0. `pieces` may be less than its `size` bytes."""

    status: int
    headers: Headers
    pieces: Sequence[bytes]
    size: int
    duration: float
    failure: str


What = Sent | Begun | Piece | Ended | Answered


class Heard(msgspec.Struct, frozen=True):
    """One thing heard of the call whose `caller` it is, at `time` (Unix seconds). `size`: the bytes that it keeps in memory."""

    time: float
    caller: Caller
    what: What
    size: int
