"""Token counts in disjoint buckets, with where they come from."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one answer; None means that the provider did not say.

    `input` is everything that went in: uncached + `cache_read` + `cache_write`. `output` is everything that came out,
    `reasoning` included. `source`: the provider's own figures, the proxy's estimate, or a figure cut short by an early end.
    `cost` is what the provider says it charged, in US dollars. `raw` is the provider's own usage object (dialect `origin`).
    """

    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    reasoning: int | None = None
    audio_input: int | None = None
    audio_output: int | None = None
    tool_prompt: int | None = None
    cost: float | None = None
    source: Literal["reported", "estimated", "partial"] = "reported"
    origin: str = ""
    raw: dict[str, Any] | None = None

    @property
    def input_uncached(self) -> int:
        """Input tokens that were neither read from nor written to a cache, never below 0."""
        return max(0, (self.input or 0) - (self.cache_read or 0) - (self.cache_write or 0))

    @property
    def total(self) -> int:
        return (self.input or 0) + (self.output or 0)

    def merged(self, later: Usage) -> Usage:
        """Cumulative figures of a stream: the later value wins field by field, unless it is None."""
        changes = {
            name: value
            for name in self.__struct_fields__
            if (value := getattr(later, name)) is not None and (name not in ("origin",) or value)
        }
        return msgspec.structs.replace(self, **changes)

    def plus(self, other: Usage) -> Usage:
        """The sum of two answers to the same request (several calls made for one)."""

        def add(a: int | None, b: int | None) -> int | None:
            return b if a is None else a if b is None else a + b

        names = (
            "input", "output", "cache_read", "cache_write", "cache_write_1h", "reasoning", "audio_input",
            "audio_output", "tool_prompt",
        )  # fmt: skip
        sums = {name: add(getattr(self, name), getattr(other, name)) for name in names}
        cost = other.cost if self.cost is None else self.cost if other.cost is None else self.cost + other.cost
        return msgspec.structs.replace(self, **sums, cost=cost, raw=None)
