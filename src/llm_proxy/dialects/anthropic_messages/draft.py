"""What the writers of one request share: the target, what was lost, and how names, ids, seals and cache
marks are written for it.
"""

from __future__ import annotations

import msgspec

from llm_proxy.conversation.parts import CacheMark, Seal
from llm_proxy.conversation.request import Request
from llm_proxy.dialects.anthropic_messages import wire
from llm_proxy.dialects.base import Target
from llm_proxy.dialects.capabilities import Capabilities, lookup
from llm_proxy.dialects.names import ToolNames

_AS_READ: Capabilities = msgspec.structs.replace(
    lookup(wire.NAME, ""), mid_system=True, sampling="all", forced_with_thinking=True, tool_name_limit=1 << 20
)


class Draft:
    """`own`: the request came in this protocol, so its shape is kept. `faithful`: it is written exactly as
    it was read. `own_thinking`: so were its words about thinking.
    """

    def __init__(self, request: Request, target: Target | None) -> None:
        self.request = request
        self.faithful = target is None
        self.target = target or Target(model=request.model, capabilities=_AS_READ, stream=request.stream)
        self.capabilities = self.target.capabilities
        self.own = request.dialect == wire.NAME
        self.own_thinking = self.own and "reasoning" not in request.added
        self._names = ToolNames(self.capabilities.tool_name_limit)
        self._losses: dict[str, None] = {}
        self.namespaces: dict[str, tuple[str, str]] = {}
        self.custom: set[str] = set()
        self.stops: tuple[str, ...] = ()
        self.json_tool = ""

    def lose(self, sentence: str) -> None:
        """Notes one loss; the same one counts once."""
        self._losses[sentence] = None

    @property
    def losses(self) -> tuple[str, ...]:
        return tuple(self._losses)

    @property
    def renamed(self) -> dict[str, str]:
        """Name at the target -> the client's name, without the namespaced ones."""
        return {mapped: name for mapped, name in self._names.back.items() if mapped not in self.namespaces}

    def tool_name(self, name: str, namespace: str = "") -> str:
        """The name at the target. A namespace of this protocol is a toolset and travels beside the name."""
        if not namespace or self.own:
            return self._names.at_target(name)
        mapped = self._names.at_target(f"{namespace}__{name}")
        self.namespaces[mapped] = (namespace, name)
        return mapped

    def takes(self, seal: Seal | None) -> bool:
        """May this seal go to the target? Only to where it was made, and never in the proxy's envelope."""
        if seal is None:
            return False
        if self.faithful:
            return True
        return wire.is_own(seal) and seal.maker in ("", self.target.maker)

    def cache(self, mark: CacheMark | None) -> dict[str, dict[str, str]]:
        """The member to add to a block: never a null."""
        if mark is None or not self.capabilities.cache_marks:
            return {}
        return {"cache_control": wire.write_cache(mark, self.capabilities.cache_ttl)}
