"""The room of edit precision for tests: an exchange that passes its hooks in order, and sessions and options for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Final, cast

from llm_proxy.conversation.request import Request
from llm_proxy.features.edit_precision import EditPrecision, EditPrecisionOptions, Patterns
from llm_proxy.features.exchange import ExchangeView
from llm_proxy.sessions.session import Session

FAILED: Final = "The SEARCH block does not match anything"


class Turn:
    """An exchange as the room sees it, through its hooks in order."""

    count = 0

    def __init__(self, session: Session, *recent: str, side: bool = False, local: bool = False) -> None:
        Turn.count += 1
        self.view = SimpleNamespace(
            id=f"req-{Turn.count}", session=session, side=side, local=local, recent_texts=lambda: recent, fault=None,
            cancelled=False, time_to_first=0.1, kept=False, answer_text=lambda: "", backend="openai", model="m",
        )  # fmt: skip
        self.view.keep_answer = lambda: setattr(self.view, "kept", True)

    @property
    def exchange(self) -> ExchangeView:
        return cast(ExchangeView, self.view)

    def tuned(self, room: EditPrecision, answer: str = "", request: Request | None = None) -> bool:
        """Does the room change the request? Ends the exchange with `answer`."""
        request = request or Request(dialect="openai-chat")
        if not self.view.local:
            room.on_request(self.exchange)
        concerned = room.concerns(self.exchange)
        changed = room.on_attempt(self.exchange, request) if concerned else request
        self.view.answer_text = lambda: answer
        room.on_finish(self.exchange)
        assert not room.concerns(self.exchange)
        return changed is not request


def room_of(patterns: Patterns | None = None, **options: Any) -> EditPrecision:
    return EditPrecision(EditPrecisionOptions(**options), patterns or Patterns())


def session_of(agent: str = "", **values: Any) -> Session:
    return Session(id="s", scope="k", created=0, last_used=0, agent=agent, values=values)
