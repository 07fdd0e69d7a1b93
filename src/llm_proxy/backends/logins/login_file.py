"""What a credentials file says now: found again when it changed, understood by its vendor's code, and what is held against it (BE-14).

Owns when the file is read again and what is known of it. Its bytes are `document.py`'s. Renews nothing and asks nobody.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from llm_proxy.backends.logins.document import Document, Unreadable, find, read_document, stamp_of
from llm_proxy.backends.logins.login import Token
from llm_proxy.backends.logins.places import shown
from llm_proxy.wire.secrets import Secret

CONTENT_EVERY: Final = 2.0
"""Seconds after which a file is read although its size, time and inode are the same."""

_LONGEST_TOKEN: Final = 64 * 1024  # characters; vendors' tokens have a few thousand

_log = logging.getLogger(__name__)


class Known(msgspec.Struct, frozen=True):
    """What the file said when it was read last. `reason` "" = `token` can be used as far as the file says."""

    document: Document
    token: Token | None = None
    refresh_token: Secret | None = None
    reason: str = ""


class Held(msgspec.Struct):
    """What is held against the login that the file holds; a new login begins without.

    `refused`: an access token that the provider refuses. `revoked`: a refresh token that its token endpoint refuses. `forced`: the access
    token that a forced renewal gave. Before the moments (of the monotonic clock) no renewal is made, and none by force.
    """

    refused: Secret | None = None
    revoked: Secret | None = None
    forced: Secret | None = None
    not_before: float = 0.0
    force_not_before: float = 0.0


class LoginFile:
    """One file at one of the `candidates`. Parameters as those of `CredentialFile`."""

    def __init__(
        self,
        backend: str,
        candidates: Sequence[Path],
        *,
        read: Callable[[Mapping[str, Any]], Token],
        refresh_token: Callable[[Mapping[str, Any]], Secret | None] | None,
        command: str,
        clock: Callable[[], float],
    ) -> None:
        self.backend = backend
        self.command = command
        self.candidates = tuple(candidates)
        self.seen: Known | None = None
        self.held = Held()
        self._read = read
        self._find_refresh_token = refresh_token
        self._clock = clock
        self._looking = threading.Lock()
        self._read_at = 0.0

    @property
    def known(self) -> Known:
        """What was read last. Reads where nothing was yet, once: a file of a few thousand bytes."""
        if self.seen is None:
            self.look(patient=False)
        assert self.seen is not None
        return self.seen

    @property
    def path(self) -> Path | None:
        """The file that is used; None while none exists."""
        return None if self.seen is None else self.seen.document.path

    @property
    def name(self) -> str:
        return "its file" if self.path is None else shown(self.path)

    def look(self, *, thoroughly: bool = False, patient: bool = True) -> None:
        """Read the file if it may have changed. Blocks; `patient` waits for one that is just being written. Raises nothing."""
        with self._looking:
            known, at = self.seen, self._clock()
            if known is not None and not thoroughly and at - self._read_at < CONTENT_EVERY:
                path = find(self.candidates)
                if path == known.document.path and (path is None or stamp_of(path) == known.document.stamp):
                    return
            document = read_document(self.candidates, *(() if patient else (lambda seconds: None,)))
            self._read_at = self._clock()
            self._take(document)

    def take(self, document: Document) -> None:
        """`document` was read by somebody else."""
        with self._looking:
            self._take(document)

    def keep_in_memory(self, known: Known, members: dict[str, Any], token: Token) -> None:
        """A renewed login that could not be written: good until the file changes or the process ends."""
        with self._looking:
            document = msgspec.structs.replace(known.document, members=members)
            self.seen = Known(document, token, self._refresh_token_of(members))

    def _take(self, document: Document) -> None:
        """What was read becomes what is known. Anything new ends what was held against the old."""
        known = self.seen
        if known is not None and _same(document, known.document):
            # Not `members`: what could not be written is known here only.
            kept = msgspec.structs.replace(known.document, stamp=document.stamp)
            self.seen = msgspec.structs.replace(known, document=kept)
            return
        self.seen, self.held = self.understood(document), Held()
        if document.open_to_others and (known is None or not known.document.open_to_others):
            _log.warning("%s: others on this machine may use it: chmod 600 %s", self.backend, document.path)

    def understood(self, document: Document) -> Known:
        if document.members is None:
            names = [document.path] if document.path else self.candidates
            return self._useless(document, f"{' or '.join(map(shown, names))} {document.problem}")
        try:
            token = self.token_in(document.members)
        except Unreadable as error:
            return self._useless(document, f"{shown(document.path or Path())} {error}")
        return Known(document, token, self._refresh_token_of(document.members))

    def token_in(self, members: Mapping[str, Any]) -> Token:
        """The login in `members`. Raises Unreadable."""
        return sendable(self._read(members))

    def _useless(self, document: Document, what: str) -> Known:
        return Known(document, reason=f"the login file {what}; run `{self.command}`.")

    def _refresh_token_of(self, members: Mapping[str, Any]) -> Secret | None:
        return (self._find_refresh_token(members) if self._find_refresh_token else None) or None


def sendable(token: Token) -> Token:
    """`token`, if a header can carry it. Raises Unreadable."""
    access = token.access.reveal()
    if len(access) > _LONGEST_TOKEN or not access.isascii() or not access.isprintable():
        raise Unreadable("holds an access token with characters that no token has")
    return token


def _same(one: Document, other: Document) -> bool:
    return (one.path, one.digest, one.problem) == (other.path, other.digest, other.problem)
