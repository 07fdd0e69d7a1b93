"""How many calls of providers the process takes on at once, and what it says to those beyond (P9).

A refusal costs a tenth of a millisecond and comes at once; what is already being answered is not touched by it. Owns the bounds and the
watch over the event loop's lag. Knows no request: it counts who comes in and who goes.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from llm_proxy.conversation.fault import Fault, FaultError

# Files, logs, databases, sockets that listen, and connections that wait for their next request.
_DESCRIPTORS_KEPT: Final = 256
_FILES: Final = 48  # of its own, 14 at rest; what is loaded or read for a moment too
# What a stream whose reader has stopped may cost at most, and what the program takes before the first one.
_BYTES_A_STREAM: Final = 384 * 1024
_BYTES_OF_ITS_OWN: Final = 128 * 1024 * 1024
_UNBOUNDED: Final = 1 << 60

# Fewer are never refused because the loop is late: then it is the machine that is busy, and refusing would not help it.
LAG_COUNTS_FROM: Final = 32
LOOK_EVERY: Final = 0.025  # seconds
LOOKS: Final = 15  # of which the one in the middle counts: a single long step of something else is no overload
# Seconds. A client of a model would rather wait a tenth of one than be refused; machines that do other work are late by less.
TOO_LATE: Final = 0.100
IN_TIME: Final = 0.040

RETRY_AFTER: Final = 1.0


class Bounds(msgspec.Struct, frozen=True):
    """How much this process may hold: open file descriptors and bytes of memory."""

    descriptors: int
    memory: int

    @property
    def calls(self) -> int:
        """Calls at once: two descriptors each, and the memory of a stream. With few descriptors a quarter of them."""
        by_descriptors = max((self.descriptors - _DESCRIPTORS_KEPT) // 2, self.descriptors // 4)
        by_memory = (self.memory - _BYTES_OF_ITS_OWN) // _BYTES_A_STREAM
        return max(LAG_COUNTS_FROM, min(by_descriptors, by_memory))

    @property
    def connections(self) -> int:
        """Connections of clients at once, so that each call finds a descriptor for its provider."""
        room = self.descriptors - _FILES - self.calls
        return max(LAG_COUNTS_FROM, room - _refused_at_once(room))


def _refused_at_once(room: int) -> int:
    """Connections over the bound that are told so before they are closed; they last a moment each."""
    return max(16, min(64, room // 16))


class Crowd:
    """The open connections of clients, on all ports. `refusing`: one that comes now is told to come back; `flooded`: and is not even waited for."""

    def __init__(self, most: int, warn: Callable[[str], None] = lambda message: None) -> None:
        self.most = most
        self.open = 0
        self._warn = warn

    def come(self) -> None:
        self.open += 1

    def go(self) -> None:
        self.open -= 1

    @property
    def refusing(self) -> bool:
        if self.open <= self.most:
            return False
        self._warn(f"connections are refused: {self.most} are open, as many as the limit of open files allows")
        return True

    @property
    def flooded(self) -> bool:
        return self.open > self.most + _refused_at_once(self.most)


class NoRoom(FaultError):
    """A refusal because of what is being served already; its log line comes at most once a minute."""


class Admission:
    """`most`: calls at once. Whoever is let in says when it leaves.

    with admission:  raises NoRoom (503 with Retry-After) when there is no room
        ...
    """

    def __init__(self, most: int, warn: Callable[[str], None] = lambda message: None) -> None:
        self.most = most
        self.open = 0
        self.refused = 0
        self.lag = Lag()
        self._warn = warn

    def __enter__(self) -> None:
        if self.open >= self.most:
            self._refuse(f"{self.most} are being served, as many as open files and memory allow")
        if self.open >= LAG_COUNTS_FROM and self.lag.too_long:
            self._refuse("this process has more to do than it manages in time")
        self.open += 1
        if self.open == LAG_COUNTS_FROM:
            self.lag.watch()

    def __exit__(self, *_: object) -> None:
        self.open -= 1
        if self.open == LAG_COUNTS_FROM - 1:
            self.lag.rest()

    def facts(self) -> dict[str, int]:
        """What `/internal/status` tells: calls open now, the greatest number, those refused since the start."""
        return {"open": self.open, "most": self.most, "refused": self.refused}

    def _refuse(self, reason: str) -> NoReturn:
        self.refused += 1
        self._warn(f"requests are refused: {reason}")
        raise NoRoom(_FULL)


_FULL = Fault(
    kind="overloaded",
    message="the proxy is serving as many requests as it can; try again in a moment",
    side="proxy",
    retry_after=RETRY_AFTER,
)


class Lag:
    """How much later than due the event loop comes to things. Looked at only while `watch` says so.

    Too long once most of the last looks were late by more than `TOO_LATE`, until most are within `IN_TIME` again.
    """

    def __init__(self) -> None:
        self._looks: deque[float] = deque(maxlen=LOOKS)
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.too_long = False

    @property
    def seconds(self) -> float:
        """The look in the middle of the last ones, by size; 0 before there are enough."""
        return sorted(self._looks)[LOOKS // 2] if len(self._looks) == LOOKS else 0.0

    def watch(self) -> None:
        if self._timer is None:
            self._plan()

    def rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._looks.clear()
        self.too_long = False

    def note(self, late: float) -> None:
        """One look: the loop came `late` seconds after the time."""
        self._looks.append(late)
        middle = self.seconds
        self.too_long = middle > TOO_LATE or (self.too_long and middle > IN_TIME)

    def _plan(self) -> None:
        loop = asyncio.get_running_loop()
        self._due = loop.time() + LOOK_EVERY
        self._timer = loop.call_later(LOOK_EVERY, self._look)

    def _look(self) -> None:
        self.note(asyncio.get_running_loop().time() - self._due)
        self._plan()


def bounds() -> Bounds:
    """What the system allows this process, as far as it says so."""
    return Bounds(descriptors=_descriptors(), memory=_memory())


def _descriptors() -> int:
    if sys.platform == "win32":
        return _UNBOUNDED
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _UNBOUNDED if soft == resource.RLIM_INFINITY else soft


def _memory() -> int:
    """The least of the machine's memory, the control group's limit and the process's own."""
    found = [_UNBOUNDED]
    with suppress(ValueError, OSError, AttributeError):  # Windows has no sysconf
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(ValueError, OSError):  # "max", or no such group
            found.append(int(Path(file).read_text()))
    if sys.platform != "win32":
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        found.append(soft if soft != resource.RLIM_INFINITY else _UNBOUNDED)
    return min(size for size in found if size > 0)
