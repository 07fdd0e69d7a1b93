"""What is remembered of one conversation. One live object per session: requests of a session share it.

All changes happen in synchronous code on the event loop, so each is whole; the last writer of a key wins. Where sessions are
kept, how long, and how many is the business of `store/sessions.py`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_proxy.sessions.history import History

MOST_LOCAL_REPLIES = 64
MOST_PREFIXES = 8


class Totals(msgspec.Struct):
    """What the session has used so far. `context` is the input size of its last turn, in tokens."""

    requests: int = 0
    prompt: int = 0
    completion: int = 0
    cost: float = 0.0
    context: int = 0


class Session(msgspec.Struct, kw_only=True):
    """Requests that share state. `scope` stands for the client key: the same id under another key is another session.

    values          what `!/set` and its like chose: canonical chat key -> typed value
    one_off         `backend:model` for the next turn (RT-11), or ""
    agent           detected client, "" as long as none was recognised; `agent_by_header` when a header proved it
    local_replies   digests of the proxy's own recent replies, oldest first
    confirmations   digests of confirmation texts that were put before a model's answer
    prefixes        command prefixes that were in force while the session was used
    marks           what rooms remember, by room: JSON-like data
    """

    id: str
    scope: str
    created: float
    last_used: float
    values: dict[str, Any] = {}
    one_off: str = ""
    agent: str = ""
    agent_by_header: bool = False
    local_replies: list[str] = []
    confirmations: list[str] = []
    prefixes: list[str] = []
    marks: dict[str, Any] = {}
    totals: Totals = msgspec.field(default_factory=Totals)
    exchanges: History = msgspec.field(default_factory=History)
    changed: bool = False
    """Has it changed since it was last saved? Whoever changes a session says so by `touch`."""

    @property
    def address(self) -> str:
        """A name for back ends that keep something for the session, another one for each client key; "" where there is no session."""
        return f"{self.scope}:{self.id}" if self.id else ""

    def touch(self) -> None:
        self.changed = True

    def choose(self, key: str, value: object) -> None:
        """Sets a session value by canonical chat key; None removes it."""
        if value is None:
            self.values.pop(key, None)
        else:
            self.values[key] = value
        self.changed = True
