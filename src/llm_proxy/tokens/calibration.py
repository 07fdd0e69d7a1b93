"""What providers billed against what was counted, per back end and model: a factor for the next count.

Holds figures in memory, a bounded number of them. Must not know how anything was counted.
"""

from __future__ import annotations

import math
from typing import Final

_MOST: Final = 1024
"""Models that are remembered; the one that was longest not heard of goes first."""
_LEAST_TOKENS: Final = 40
"""Below that a request is mostly frame, and says little of the texts."""
_CLAMP: Final = math.log(2.0)
_PATIENCE: Final = 8
"""The newest of so many observations weighs 1 in so many."""


class Calibration:
    """Factors by which counts are to be taken times. A ratio beyond two, either way, counts as two."""

    def __init__(self) -> None:
        self._learned: dict[tuple[str, str, bool], tuple[float, int]] = {}

    def factor(self, backend: str, model: str, exact: bool) -> float:
        """1.0 where nothing is known. `exact`: was it counted with a tokenizer."""
        logarithm, _ = self._learned.get((backend, model, exact), (0.0, 0))
        return math.exp(logarithm)

    def learn(self, backend: str, model: str, exact: bool, counted: int, billed: int) -> None:
        """Takes note of one request: `counted` before any factor, `billed` by the provider. Tiny and senseless ones are passed over."""
        if counted < _LEAST_TOKENS or billed < _LEAST_TOKENS:
            return
        seen = max(-_CLAMP, min(_CLAMP, math.log(billed / counted)))
        key = (backend, model, exact)
        before, times = self._learned.pop(key, (0.0, 0))
        # The first observation counts half: one odd request must not double or halve what follows.
        share = max(1 / _PATIENCE, 1 / (times + 2))
        self._learned[key] = (before + share * (seen - before), times + 1)
        if len(self._learned) > _MOST:
            del self._learned[next(iter(self._learned))]
