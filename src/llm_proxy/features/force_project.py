"""Force project: no spending without a project (CMD-19).

Owns the refusal. Which requests count as spending is decided by where the room stands: it sees what would go to a provider.
"""

from __future__ import annotations

from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.features import Feature
from llm_proxy.features.exchange import ExchangeView


class ForceProject(Feature):
    """Refuses requests of sessions without a project. `prefix` is that of the commands, "" where they are switched off."""

    name = "force_project"
    fails_closed = True

    def __init__(self, prefix: str) -> None:
        self._advice = f"{prefix}set(project=…) in the chat" if prefix else "the header x-project"

    def on_request(self, exchange: ExchangeView) -> None:
        if exchange.project:
            return
        message = f"this proxy serves no request without a project; set one with {self._advice}"
        raise FaultError(Fault(kind="bad_request", message=message, code="project_required", side="client"))
