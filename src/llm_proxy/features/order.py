"""The one list: which rooms there are and in which order they see a request. Answers pass them in reverse.

Each line has its reason.
"""

from __future__ import annotations

from llm_proxy.features import Feature
from llm_proxy.features.usage import UsageRecording
from llm_proxy.store.protocols import UsageSink


def rooms(*, usage: UsageSink | None) -> tuple[Feature, ...]:
    """The rooms in order. `usage` None switches usage recording off."""
    order: list[Feature] = []
    if usage is not None:
        order.append(UsageRecording(usage))  # last: it records what all others made of the exchange
    return tuple(order)
