"""Where sessions live: the live ones in memory, each one object for all of its requests, and if wished a store behind them.

Owns identity, life, number and saving of sessions (SES-02 to SES-04). Knows nothing of what their values mean, and of a store only
that it takes and gives bytes. A session begins with its first use and ends by age, by idleness, as the one that was idle longest
beyond the bound, or by `end`; nothing of it is left then. All methods are called on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec

from llm_proxy.sessions.session import Session
from llm_proxy.store.behind import Outage

_LOG = logging.getLogger(__name__)

# A use without any change is saved this often, so that a restart does not make a session look idle.
USE_SECONDS = 60.0
MOST_LISTED = 1000

Key = tuple[str, str]
"""Scope and id."""


class StoredSession(msgspec.Struct, frozen=True):
    """A session as a store keeps it: `value` is all of it, the rest serves for looking after it. Times are wall-clock seconds."""

    scope: str
    id: str
    created: float
    last_used: float
    ends: float
    value: bytes


class StoreUnusable(Exception):
    """The configured store cannot work at all; the text says what to do. A start ends with it (exit status 2)."""


class SessionBacking(Protocol):
    """A store behind the live sessions. Nothing here raises because of an outage; waiting is bounded."""

    async def start(self) -> None:
        """Makes ready, so that the first request need not wait for it."""

    def may_have(self, scope: str, id: str) -> bool:
        """False when asking `load` would be in vain."""

    async def load(self, scope: str, id: str) -> bytes | None: ...

    async def newest(self, scope: str | None, most: int) -> list[bytes]:
        """At most `most` sessions of a scope, or of all, the latest used first as far as the engine knows."""

    def save(self, row: StoredSession) -> None:
        """Returns at once; the row is written behind."""

    def delete(self, scope: str, id: str) -> None: ...

    def trim(self, used_before: float, created_before: float, most: int) -> None:
        """Forgets what has ended, and the longest idle beyond `most`."""

    async def close(self) -> None:
        """Writes what is due."""


class _Live(msgspec.Struct):
    """`saved`: wall clock of the last save, 0 while the store knows nothing of it."""

    session: Session
    users: int = 0
    saved: float = 0.0


def _leave_out(value: object) -> None:
    """What MessagePack cannot say is not kept: a `Secret` above all."""


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_leave_out)
_DECODER = msgspec.msgpack.Decoder(Session)


class Sessions:
    """See the module. `never_stored` names the keys of `Session.values` that stay in memory. Who is in `on_end` must not raise."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        expiry_seconds: float,
        max_age: float,
        max_sessions: int,
        cleanup_enabled: bool = True,
        backing: SessionBacking | None = None,
        never_stored: Iterable[str] = (),
    ) -> None:
        self._clock = clock
        self._expiry = expiry_seconds
        self._max_age = max_age
        self._most = max_sessions
        self._cleanup = cleanup_enabled
        self._backing = backing
        self._never_stored = frozenset(never_stored)
        self._open: dict[Key, _Live] = {}
        self._idle: OrderedDict[Key, _Live] = OrderedDict()
        self._loading: dict[Key, asyncio.Task[None]] = {}
        self._outage = Outage()
        self.on_end: list[Callable[[Session], None]] = []
        self._trim_backing()

    def __len__(self) -> int:
        return len(self._open) + len(self._idle)

    async def start(self) -> None:
        """Before the first request: connects the store behind."""
        if self._backing is not None:
            await self._backing.start()

    def configure(
        self, *, expiry_seconds: float, max_age: float, max_sessions: int, cleanup_enabled: bool = True
    ) -> None:
        """New limits, in force at once."""
        self._expiry, self._max_age, self._most = expiry_seconds, max_age, max_sessions
        self._cleanup = cleanup_enabled
        self._bound()

    # Using a session

    async def open(self, scope: str, id: str) -> Session:
        """The session, made or loaded if need be. It counts as used, and stays until `release` was called as often as `open`."""
        key = (scope, id)
        await self._loaded(key)
        return self._use(key)

    def peek(self, scope: str, id: str) -> Session | None:
        """The live session, which is not thereby used."""
        key = (scope, id)
        if (live := self._open.get(key)) is not None:
            return live.session
        live = self._idle.get(key)
        return live.session if live is not None and not self._over(live.session, self._clock()) else None

    def release(self, session: Session) -> None:
        """Ends one use. Does nothing for a session that was ended meanwhile."""
        key = (session.scope, session.id)
        live = self._open.get(key)
        if live is None or live.session is not session:
            return
        now = self._clock()
        session.last_used = now
        live.users -= 1
        if live.users == 0:
            del self._open[key]
            if self._over(session, now):
                self._gone(key, live)
                return
            self._idle[key] = live
        self._keep(live, now)
        self._bound()

    def save(self, session: Session) -> None:
        """Hands what changed to the store now: for what must not wait until a long answer is complete."""
        live = self._open.get((session.scope, session.id))
        if live is not None and live.session is session:
            self._keep(live, self._clock())

    # Looking at sessions and ending them

    async def look(self, scope: str, id: str) -> Session | None:
        """The session, live or stored, which is not thereby used. Changes of a stored one are not kept."""
        key = (scope, id)
        if (load := self._loading.get(key)) is not None:
            await asyncio.shield(load)
        session = self.peek(scope, id)
        if session is not None or self._backing is None or key in self._idle or not self._backing.may_have(scope, id):
            return session
        value = await self._backing.load(scope, id)
        stored = None if value is None else self._read(value, key)
        return self.peek(scope, id) or stored

    async def list(self, scope: str | None) -> list[Session]:
        """The sessions of a scope, or of all, the latest used first. Of those that are only stored, the newest thousand."""
        now = self._clock()
        found = {
            key: live.session
            for place in (self._open, self._idle)
            for key, live in place.items()
            if scope in (None, key[0]) and (live.users or not self._over(live.session, now))
        }
        if self._backing is not None:
            values = await self._backing.newest(scope, MOST_LISTED)
            for session in await asyncio.to_thread(self._read_all, values):
                key = (session.scope, session.id)
                if key not in self._open and key not in self._idle:
                    found.setdefault(key, session)
        return sorted(found.values(), key=lambda session: session.last_used, reverse=True)

    async def end(self, scope: str, id: str) -> bool:
        """Ends a session with all of its state; requests that are open keep their object. False when there was none."""
        key = (scope, id)
        await self._loaded(key)
        live = self._open.pop(key, None) or self._idle.pop(key, None)
        if live is None:
            return False
        there = live.users > 0 or not self._over(live.session, self._clock())
        self._gone(key, live)
        return there

    def sweep(self) -> None:
        """The regular clean-up: ends what is over, here and in the store."""
        if not self._cleanup:
            return
        now = self._clock()
        for key in [key for key, live in self._idle.items() if self._over(live.session, now)]:
            self._gone(key, self._idle.pop(key))
        for live in self._open.values():
            live.session.last_used = now
            self._keep(live, now)
        self._trim_backing()

    async def close(self) -> None:
        """Saves everything that the store does not know yet."""
        if self._backing is None:
            return
        if self._loading:
            await asyncio.wait(list(self._loading.values()))
        for place in (self._open, self._idle):
            for live in place.values():
                if live.session.changed or (live.saved and live.session.last_used > live.saved):
                    self._write(live, self._clock())
        await self._backing.close()

    # Life

    def _use(self, key: Key) -> Session:
        now = self._clock()
        live = self._open.get(key)
        if live is None:
            live = self._idle.pop(key, None)
            if live is not None and self._over(live.session, now):
                self._gone(key, live)
                live = None
            if live is None:
                live = _Live(Session(id=key[1], scope=key[0], created=now, last_used=now))
            self._open[key] = live
            self._bound()
        live.users += 1
        live.session.last_used = now
        return live.session

    def _over(self, session: Session, now: float) -> bool:
        return now - session.last_used >= self._expiry or now - session.created >= self._max_age

    def _bound(self) -> None:
        while self._idle and len(self) > self._most:
            self._gone(*self._idle.popitem(last=False))

    def _gone(self, key: Key, live: _Live) -> None:
        if self._backing is not None and live.saved:
            self._backing.delete(*key)
        for hook in self.on_end:
            hook(live.session)

    # The store behind

    async def _loaded(self, key: Key) -> None:
        """Brings a stored session to life. Several who want it at once wait for one load, which outlives any of them."""
        if self._backing is None or key in self._open or key in self._idle:
            return
        load = self._loading.get(key)
        if load is None:
            if not self._backing.may_have(*key):
                return
            load = self._loading[key] = asyncio.create_task(self._load(key, self._backing))
        await asyncio.shield(load)

    async def _load(self, key: Key, backing: SessionBacking) -> None:
        try:
            value = await backing.load(*key)
            if value is None:
                return
            session = self._read(value, key)
            if session is None:
                backing.delete(*key)
            else:
                self._idle[key] = _Live(session, saved=session.last_used)
        finally:
            del self._loading[key]

    def _keep(self, live: _Live, now: float) -> None:
        session = live.session
        if self._backing is None:
            session.changed = False
        elif session.changed or (live.saved and now - live.saved >= USE_SECONDS):
            self._write(live, now)

    def _write(self, live: _Live, now: float) -> None:
        """A session that cannot be written down costs a warning and its durability, never the request."""
        assert self._backing is not None
        session = live.session
        session.changed = False
        live.saved = now
        kept = session
        if not self._never_stored.isdisjoint(session.values):
            values = {key: value for key, value in session.values.items() if key not in self._never_stored}
            kept = msgspec.structs.replace(session, values=values)
        try:
            value = _ENCODER.encode(kept)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            self._outage.tell(f"session {session.id} cannot be saved: {error}")
            return
        ends = min(session.last_used + self._expiry + USE_SECONDS, session.created + self._max_age)
        self._backing.save(
            StoredSession(session.scope, session.id, session.created, session.last_used, ends, value),
        )

    def _read(self, value: bytes, key: Key | None = None) -> Session | None:
        """The stored session, or None: unreadable (another version wrote it), another one's, or over."""
        try:
            session = _DECODER.decode(value)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            _LOG.warning("a stored session%s is left out: %s", f" {key[1]}" if key else "", error)
            return None
        if key is not None and (session.scope, session.id) != key:
            _LOG.warning("what is stored as session %s belongs to another one; it is left out", key[1])
            return None
        if self._over(session, self._clock()):
            return None
        session.values = {name: value for name, value in session.values.items() if value is not None}
        session.changed = False
        return session

    def _read_all(self, values: Sequence[bytes]) -> Sequence[Session]:
        return [session for value in values if (session := self._read(value)) is not None]

    def _trim_backing(self) -> None:
        if self._backing is not None:
            now = self._clock()
            self._backing.trim(now - self._expiry - USE_SECONDS, now - self._max_age, self._most)
