"""Which key of a back end comes next, and which keys are at rest: cooling after a limit or disabled after a
refusal (BE-03, RT-10).

A pure data structure with an injected monotonic clock; it lives in memory only. Knows back ends by id and
keys by name; never what a key is for or how a call is made.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from llm_proxy.config.kinds import NamedKey

NO_KEY = "none"  # the name of the pseudo key of back ends that need none (RT-08)

_MOST_SESSIONS = 10_000
_MOST_OF_SESSION = 64  # keys that one session keeps to, by conversation and back end
_MOST_MARKS = 10_000

Rest = Literal["cooling", "disabled"]


class Thread(msgspec.Struct, frozen=True):
    """What keeps a conversation with a key: the names of its session and of itself within it ("" = unknown), and whether the request
    continues it or begins one. An errand beside the conversation has no names, so that it moves nothing.
    """

    session: str = ""
    conversation: str = ""
    continues: bool = False


NO_THREAD = Thread()


class Cooldown(msgspec.Struct, frozen=True):
    """One key at rest. `model` is empty for a disabled key (all models). `seconds` is what is left."""

    backend: str
    model: str
    key: str
    state: Rest
    seconds: float
    status: int


class _Mark(msgspec.Struct):
    """A cooldown. It stays after its end, because the next 429 without a time doubles what came before."""

    until: float
    status: int
    failures: int = 0
    secret: object = None


def name_of(key: NamedKey | None) -> str:
    """The name under which reports speak of `key`."""
    return NO_KEY if key is None else key.name


class Keyring:
    """All keys of all back ends: rotation and rest. Times in seconds of the injected clock."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        first_cooldown: float = 1.0,
        longest_cooldown: float = 60.0,
        disable_seconds: float = 600.0,
    ) -> None:
        self._clock = clock
        self._first = first_cooldown
        self._longest = longest_cooldown
        self._disable = disable_seconds
        self._cooling: OrderedDict[tuple[str, str, str], _Mark] = OrderedDict()
        self._disabled: OrderedDict[tuple[str, str], _Mark] = OrderedDict()
        self._next: dict[str, int] = {}
        self._held: OrderedDict[str, dict[tuple[str, str], str]] = OrderedDict()
        """By session: back end and conversation ("" for the whole session) -> name of the key."""

    def configure(self, *, first_cooldown: float, longest_cooldown: float, disable_seconds: float) -> None:
        """New lengths, for rests that begin from now on."""
        self._first, self._longest, self._disable = first_cooldown, longest_cooldown, disable_seconds

    # rotation

    def rotate(
        self,
        backend: str,
        keys: Sequence[NamedKey],
        policy: str,
        *,
        model: str = "",
        thread: Thread = NO_THREAD,
        looking: bool = False,
    ) -> list[NamedKey]:
        """The keys in the order in which one request tries them, beginning at the key that the policy
        chooses.

        With `round-robin` every conversation begins at the next healthy key; a request that continues one stays at the key that
        answered it before, because that key's account holds the prompt cache. `sticky` holds the key for all requests of a session.
        Keys at rest keep their place in the order but are not chosen as the beginning while another is
        healthy. Advances the rotation: call it once per request, unless it is only for `looking`.
        """
        if len(keys) < 2 or policy == "first":
            return list(keys)
        held = self._held_key(backend, policy, thread)
        for at, key in enumerate(keys):
            if key.name == held and self.rest(backend, model, key) is None:
                return [*keys[at:], *keys[:at]]
        order, following = self._deal(backend, keys, model)
        if not looking:
            self._next[backend] = following
            self._hold(backend, thread, order[0].name)
        return order

    def _held_key(self, backend: str, policy: str, thread: Thread) -> str:
        held = self._held.get(thread.session, {})
        of_session = held.get((backend, ""), "")
        if policy == "sticky":
            return of_session
        # A conversation that was shortened, or refers to its turns by id, is found by its session.
        return (held.get((backend, thread.conversation)) or of_session) if thread.continues else ""

    def _deal(self, backend: str, keys: Sequence[NamedKey], model: str) -> tuple[list[NamedKey], int]:
        """The keys from the next healthy one on, and where the request after this one begins."""
        start = self._next.get(backend, 0) % len(keys)
        order = [*keys[start:], *keys[:start]]
        ahead = next((i for i, key in enumerate(order) if self.rest(backend, model, key) is None), 0)
        return order[ahead:] + order[:ahead], (start + ahead + 1) % len(keys)

    def _hold(self, backend: str, thread: Thread, name: str) -> None:
        if not thread.session:
            return
        held = self._held.setdefault(thread.session, {})
        self._held.move_to_end(thread.session)
        for place in ((backend, thread.conversation), (backend, "")):
            held.pop(place, None)
            held[place] = name
        while len(held) > _MOST_OF_SESSION:
            del held[next(iter(held))]
        while len(self._held) > _MOST_SESSIONS:
            self._held.popitem(last=False)

    def forget(self, session: str) -> None:
        """The session has ended: nothing of it keeps to a key any more."""
        self._held.pop(session, None)

    # rest

    def rest(self, backend: str, model: str, key: NamedKey | None) -> Cooldown | None:
        """Why (back end, model, key) must be left alone now, or None when it may be called."""
        now = self._clock()
        name = name_of(key)
        mark = self._disabled.get((backend, name))
        if mark is not None:
            if mark.until <= now or (key is not None and mark.secret != key.secret):
                del self._disabled[backend, name]
            else:
                return Cooldown(backend, "", name, "disabled", mark.until - now, mark.status)
        mark = self._cooling.get((backend, model, name))
        if mark is not None and mark.until > now:
            return Cooldown(backend, model, name, "cooling", mark.until - now, mark.status)
        return None

    def cool(self, backend: str, model: str, key: NamedKey | None, status: int, wait: float | None) -> float:
        """Set a cooldown of `wait` seconds, or of the next step of 1, 2, 4 … when the provider named no time.

        Returns its length. Answers that arrive while the key is already cooling (requests that were under way
        together) never double the step and never shorten the rest.
        """
        now = self._clock()
        place = (backend, model, name_of(key))
        mark = self._cooling.get(place)
        if mark is None:
            mark = self._cooling[place] = _Mark(until=0.0, status=status)
        if mark.until <= now:
            mark.failures += 1
        length = wait if wait is not None else self._step(mark.failures)
        mark.until = max(mark.until, now + length)
        mark.status = status
        self._cooling.move_to_end(place)
        if len(self._cooling) > _MOST_MARKS:
            self._cooling.popitem(last=False)
        return mark.until - now

    def _step(self, failures: int) -> float:
        return min(self._longest, self._first * 2.0 ** min(failures - 1, 60))

    def disable(self, backend: str, key: NamedKey | None, status: int) -> None:
        """Leave `key` alone for all models, until its value changes, the pause is over, or a call with it
        succeeds.
        """
        if key is None:  # a pseudo key cannot be wrong, and there is no other one to take
            return
        place = (backend, key.name)
        self._disabled[place] = _Mark(until=self._clock() + self._disable, status=status, secret=key.secret)
        self._disabled.move_to_end(place)
        if len(self._disabled) > _MOST_MARKS:
            self._disabled.popitem(last=False)

    def succeed(self, backend: str, model: str, key: NamedKey | None, thread: Thread = NO_THREAD) -> None:
        """A call succeeded: forget cooldown, exponent and disabled mark of this combination. The conversation stays with its key."""
        if key is not None:
            self._hold(backend, thread, key.name)
        if self._cooling or self._disabled:
            name = name_of(key)
            self._cooling.pop((backend, model, name), None)
            self._disabled.pop((backend, name), None)

    def resting(self, backend: str = "") -> list[Cooldown]:
        """Everything at rest now, of one back end or all."""
        now = self._clock()
        found = [
            Cooldown(place[0], place[1], place[2], "cooling", mark.until - now, mark.status)
            for place, mark in self._cooling.items()
            if mark.until > now
        ]
        found += [
            Cooldown(place[0], "", place[1], "disabled", mark.until - now, mark.status)
            for place, mark in self._disabled.items()
            if mark.until > now
        ]
        return [rest for rest in found if not backend or rest.backend == backend]

    def clear(self, backend: str = "") -> None:
        """Forget every rest and every exponent, of one back end or all."""
        for place in [place for place in self._cooling if not backend or place[0] == backend]:
            del self._cooling[place]
        for mark in [mark for mark in self._disabled if not backend or mark[0] == backend]:
            del self._disabled[mark]
