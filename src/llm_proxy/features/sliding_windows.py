"""How much was used in the last so many seconds: exact sliding windows, with amounts that can be corrected later.

A pure data structure with an injected monotonic clock; memory is bounded however large a limit or however many names there are.
Knows limits by name; never what is counted or what becomes of a refusal.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

import msgspec

MOST_EXACT = 10_000
"""Limits up to this one remember every use; above it, uses close together share a mark."""

_SLICES = (
    1000  # marks that a coarse window is made of: it is wrong by a thousandth of its length at most, on the safe side
)
_MOST_WINDOWS = 10_000
_LOOKED_AT = 32  # windows examined for an unused one before a used one is forgotten


class Limit(msgspec.Struct, frozen=True):
    """At most `limit` units within any `seconds`. Limits that are equal share one window."""

    name: str
    limit: int
    seconds: float
    unit: str = "requests"


class _Mark:
    """What was used from `first` to `last` (seconds of the clock); all of it counts until `last` has left the window."""

    __slots__ = ("amount", "first", "last")

    def __init__(self, now: float, amount: int) -> None:
        self.first = now
        self.last = now
        self.amount = amount


class _Window:
    __slots__ = ("limit", "marks", "total")

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.marks: deque[_Mark] = deque()
        self.total = 0

    def pass_by(self, now: float) -> None:
        """Forgets what has left the window. A use counts at its time and for less than `seconds` after it."""
        marks, seconds = self.marks, self.limit.seconds
        while marks and marks[0].last + seconds <= now:
            self.total -= marks.popleft().amount

    def wait(self, amount: int, now: float) -> float:
        """Seconds until `amount` more would fit; 0.0 when it fits now."""
        self.pass_by(now)
        # What is more than the whole limit fits when nothing else is counted: it could otherwise never be.
        over = self.total + min(amount, self.limit.limit) - self.limit.limit
        if over > 0:
            for mark in self.marks:
                over -= mark.amount
                if over <= 0:
                    return mark.last + self.limit.seconds - now
        return 0.0

    def add(self, amount: int, now: float) -> _Mark:
        self.pass_by(now)
        marks, limit = self.marks, self.limit
        self.total += amount
        if limit.limit > MOST_EXACT and marks and now - marks[-1].first < limit.seconds / _SLICES:
            marks[-1].last = now
            marks[-1].amount += amount
            return marks[-1]
        if len(marks) > 2 * min(limit.limit, MOST_EXACT) + _SLICES:
            self.marks = marks = deque(mark for mark in marks if mark.amount)
        marks.append(_Mark(now, amount))
        return marks[-1]


class Use(msgspec.Struct):
    """An amount that was counted, and where, so that it can be corrected."""

    window: _Window
    mark: _Mark
    amount: int


class SlidingWindows:
    """All windows of a process. Everything is synchronous: what was asked for still holds when it is taken."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._windows: OrderedDict[Limit, _Window] = OrderedDict()

    def wait(self, limit: Limit, amount: int = 1) -> float:
        """Seconds until `amount` would fit below `limit` if nothing else came; 0.0 when it fits now. Counts nothing."""
        window = self._windows.get(limit)
        return 0.0 if window is None else window.wait(amount, self._clock())

    def used(self, limit: Limit) -> int:
        """What counts now."""
        window = self._windows.get(limit)
        if window is None:
            return 0
        window.pass_by(self._clock())
        return window.total

    def take(self, limit: Limit, amount: int = 1) -> Use:
        """Counts `amount`, whether it fits or not."""
        now = self._clock()
        window = self._windows.get(limit)
        if window is None:
            if len(self._windows) >= _MOST_WINDOWS:
                self._forget_one(now)
            window = self._windows[limit] = _Window(limit)
        self._windows.move_to_end(limit)
        return Use(window, window.add(amount, now), amount)

    def correct(self, use: Use, amount: int) -> None:
        """`use` was really so much; 0 gives it back. What has left its window meanwhile stays as it is."""
        window, mark = use.window, use.mark
        window.pass_by(self._clock())
        if window.marks and mark.last >= window.marks[0].last:
            mark.amount += amount - use.amount
            window.total += amount - use.amount
            if not mark.amount and window.marks[-1] is mark:
                window.marks.pop()
        use.amount = amount

    def __len__(self) -> int:
        return len(self._windows)

    def _forget_one(self, now: float) -> None:
        """Makes room: the window that was used longest ago, rather one in which nothing counts."""
        chosen = next(iter(self._windows))
        for limit, _ in zip(self._windows, range(_LOOKED_AT), strict=False):
            self._windows[limit].pass_by(now)
            if not self._windows[limit].total:
                chosen = limit
                break
        del self._windows[chosen]
