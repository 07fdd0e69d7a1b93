"""What a feature is: one room that may look at an exchange at fixed moments. The contract of all rooms, on one page.

A room subclasses `Feature`, overrides the hooks it needs and stands in `order.py`. Hooks are quick, and all but one synchronous. An exception in
a hook is caught at the room's wall, recorded, and the request goes on (`fails_closed` rooms end it instead).

    on_request   once per client request; may replace `exchange.request` (that makes the proxy re-encode it)
    admit        once per try, before anything of it is made; returns a Fault where this try must not be made, and the next one is due.
                 May wait. For the few that count what is called
    outlook      the same question for a look ahead: changes and reserves nothing
    concerns     asked before on_attempt: a quick look that tells whether it wants the decoded request
    on_attempt   once per try, after routing; may return a changed request for this try only
    watch        once per try; returns a Filter for this answer's events, or None: not interested, costs nothing
    on_finish    always, exactly once, also after cancel and fault
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from llm_proxy.conversation.events import Event
    from llm_proxy.conversation.fault import Fault
    from llm_proxy.conversation.request import Request
    from llm_proxy.features.exchange import Candidate, ExchangeView


class Filter(Protocol):
    """Sees every event of one answer. Giving back the very same events keeps a same-dialect stream byte-identical."""

    def feed(self, events: Sequence[Event]) -> Sequence[Event]: ...

    def close(self) -> Sequence[Event]: ...


class Feature:
    """A room without interest in anything; subclasses override what they need."""

    name = ""
    fails_closed = False

    def on_request(self, exchange: ExchangeView) -> None:
        return None

    async def admit(self, exchange: ExchangeView, candidate: Candidate) -> Fault | None:
        return None

    def outlook(self, candidate: Candidate, key_name: str) -> str:
        """Why a request of that client key would not be admitted now, as a sentence; "" when it would."""
        return ""

    def concerns(self, exchange: ExchangeView) -> bool:
        """False spares the exchange the decoding of its request, and keeps its bytes as they are."""
        return True

    def on_attempt(self, exchange: ExchangeView, request: Request) -> Request:
        return request

    def watch(self, exchange: ExchangeView) -> Filter | None:
        return None

    def on_finish(self, exchange: ExchangeView) -> None:
        return None
