"""How alike two names are, for suggestions. Pure text work."""

from __future__ import annotations

from collections.abc import Iterable


def distance(left: str, right: str) -> int:
    """The least number of letters put in, left out, replaced or exchanged with their neighbour that makes one of the other."""
    older: list[int] = []
    above = list(range(len(right) + 1))
    for row, one in enumerate(left, 1):
        current = [row]
        for column, other in enumerate(right, 1):
            cost = min(above[column] + 1, current[-1] + 1, above[column - 1] + (one != other))
            if row > 1 and column > 1 and one == right[column - 2] and left[row - 2] == other:
                cost = min(cost, older[column - 2] + 1)
            current.append(cost)
        older, above = above, current
    return above[-1]


def nearest(name: str, known: Iterable[str], most: int) -> str:
    """The first of `known` with the least distance from `name`, if that is at most `most`; else nothing."""
    best, found = most + 1, ""
    for candidate in known:
        # The difference in length is a lower bound, and keeps a long text from costing anything.
        if abs(len(candidate) - len(name)) < best and (gap := distance(name, candidate)) < best:
            best, found = gap, candidate
    return found
