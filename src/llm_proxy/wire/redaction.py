"""What is written down holds no secret: known values in all their spellings, and whatever is shaped like a key, become ``***``.

Owns the search and the cleaning of text that comes in pieces. Where secrets come from and what is written where is not known here.
All searches run in automata whose time is linear in the text.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import re2  # type: ignore[import-untyped]

from llm_proxy.wire.key_shapes import (
    BEARER_BEFORE,
    KEY_BYTES,
    LONGEST_BEARER,
    PEM_END,
    SHAPES,
    UNFINISHED,
    Pattern,
    Span,
    begun,
    compiled,
    shaped,
)
from llm_proxy.wire.secrets import MARK, Secret

MOST_SECRETS = 4096
"""Values of the operator that are remembered; the oldest are forgotten first."""
MOST_PASSING = 100
"""Values that clients brought for servers of their own: they cannot push out the operator's."""
_MOST_NESTED = 200  # bytes of a value's beginning or end that are looked for one by one
_LEAST_CUT = 4  # bytes of a value at the end of a string that are worth a closer look
_MOST_FRESH = 32  # so many new values are compiled by themselves; more are put with the others
_MOST_HELD = 8192  # bytes; no key without an end is longer
_MOST_PEM = 65536  # bytes of a private key whose end does not come
_CONTEXT = 6  # bytes before a key that say whether it begins there: \u0022
_SHORTEST = 8  # bytes; nothing shorter is a secret
_ELLIPSIS = "…".encode()
# Letters, digits, - and _ that are escaped in JSON, as no writer does that has nothing to hide: only reading it tells what is there.
_NEEDLESS = rb"\\u00(?:2[dD]|3[0-9]|4[1-9a-fA-F]|5[0-9aAfF]|6[1-9a-fA-F]|7[0-9aA])"
_MAYBE_CUT = 480  # characters; providers' texts are cut at 500, and little is lost by the way


class _Known:
    """Known values, compiled: one search finds any spelling of any of them."""

    def __init__(self, secrets: Iterable[Secret]) -> None:
        self._secrets = tuple(secrets)
        spelled = {_utf8(spelling) for secret in self._secrets for spelling in secret.spellings()}
        self._ordered = sorted(spelled)
        self.longest = max(map(len, spelled), default=0)
        self.pattern = _any_of(spelled)
        self.either = compiled(b"|".join([*_literals(spelled), SHAPES]))
        self._begins = _any_of({text[:4] for text in spelled})
        self._first = {text[:length] for text in spelled for length in (1, 2, 3)}

    @cached_property
    def in_texts(self) -> Pattern:
        """Finds the values in texts: all spellings but Base64. None when there are none."""
        return _any_of({_utf8(spelling) for secret in self._secrets for spelling in secret.in_texts()})

    @cached_property
    def in_json(self) -> Pattern:
        """Finds out whether JSON may hold a value in a text, or a part of one that begins or ends a text. None when there are none."""
        texts = {spelling for secret in self._secrets for spelling in secret.in_texts()}
        spelled = {_utf8(form) for text in texts for form in (text, _in_json(text))}
        values = {_utf8(_in_json(secret.reveal())) for secret in self._secrets}
        cut = [pattern for value in values for pattern in _cut_by_quotes(value)]
        return compiled(b"|".join([*_literals(spelled), *cut, _NEEDLESS])) if spelled else None

    def unfinished(self, data: bytes) -> int:
        """Where the end of `data` may be the beginning of a known value; its length when nowhere."""
        if self._begins is None:
            return len(data)
        position = max(0, len(data) - self.longest + 1)
        while (found := self._begins.search(data, position)) is not None:
            at: int = found.start()
            rest = data[at:]
            place = bisect_left(self._ordered, rest)
            if place < len(self._ordered) and self._ordered[place].startswith(rest):
                return at
            position = at + 1
        return next((len(data) - size for size in (3, 2, 1) if data[-size:] in self._first), len(data))


class Redactor:
    """Takes secrets out of texts. One for the whole process: what it once knew stays known, whatever the configuration is now.

    `sources` are asked at each use for values that come and go, such as the tokens of logins; they must be quick and callable in any
    thread. All methods may be called in any thread.
    """

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        self.sources: list[Callable[[], Iterable[Secret]]] = []
        self._values: dict[Secret, None] = {}
        self._passing: dict[Secret, None] = {}
        self._fresh: list[Secret] = []
        self._compiled: tuple[_Known, ...] = (_Known(()),)
        self._stale = False
        self.know(secrets)

    def know(self, secrets: Iterable[Secret], *, passing: bool = False) -> None:
        """Remembers more values; those of fewer than eight characters are no secrets. Cheap when all are known already. `passing`: of
        a client, not of the operator."""
        kept, most = (self._passing, MOST_PASSING) if passing else (self._values, MOST_SECRETS)
        for secret in secrets:
            if secret in kept or not secret.in_texts():
                continue
            kept[secret] = None
            self._fresh.append(secret)
            if len(kept) > most:
                kept.pop(next(iter(kept)), None)
            self._stale = True

    def get_ready(self) -> None:
        """Compiles what is known now, which takes about a millisecond per value, so that no request waits for it."""
        self.suspects(b"")
        self.known_spans(b"")

    def clean(self, text: str) -> str:
        """`text` with `***` in place of every secret; of a long text, which somebody may have cut off, also in place of half a known one
        at its end."""
        if len(text) < _SHORTEST:
            return text
        data = _utf8(text)
        spans = self.spans(data)
        if len(text) >= _MAYBE_CUT:
            kept = data.removesuffix(_ELLIPSIS)
            first = min(known.unfinished(kept) for known in self.known())
            if first <= len(kept) - _SHORTEST:
                spans = united([*spans, (first, len(kept))])
        return cut_out(data, spans).decode("utf-8", "surrogatepass") if spans else text

    def clean_bytes(self, data: bytes) -> bytes:
        """The same for bytes; the very object when there is nothing to take out."""
        return cut_out(data, spans) if (spans := self.spans(data)) else data

    def stream(self) -> StreamCleaner:
        """A cleaner for one text that comes in pieces."""
        return StreamCleaner(self)

    def spans(self, data: bytes) -> list[Span]:
        """Where the secrets stand, in order and apart from one another."""
        first, *others = self.known()
        if len(data) < _SHORTEST or (
            first.either.search(data) is None
            and not any(known.pattern.search(data) for known in others if known.pattern is not None)
        ):
            return []
        found = [*shaped(data)]
        for known in (first, *others):
            if known.pattern is not None:
                found += [match.span() for match in known.pattern.finditer(data)]
        return united(found)

    def known_spans(self, data: bytes) -> list[Span]:
        """Where known values stand in a text; what only looks like a key, and Base64, is not looked for."""
        patterns = [known.in_texts for known in self.known()]
        return united([match.span() for found in patterns if found is not None for match in found.finditer(data)])

    def suspects(self, body: bytes) -> bool:
        """May this JSON hold a known value in a text, or in several texts one after another? One search."""
        patterns = [known.in_json for known in self.known()]
        return any(found is not None and found.search(body) is not None for found in patterns)

    def known(self) -> tuple[_Known, ...]:
        """The compiled values: all that are known for some time, and those that came lately."""
        for source in self.sources:
            self.know(source())
        if self._stale:
            self._stale = False  # first: what another thread adds meanwhile makes it stale again
            if len(self._fresh) > _MOST_FRESH or self._compiled[0].pattern is None:
                self._fresh = []
                self._compiled = (_Known((*self._values, *self._passing)),)
            else:
                self._compiled = (self._compiled[0], _Known(self._fresh))
            re2.purge()  # the library keeps the last patterns, and with them values and memory that nobody needs
        return self._compiled


class StreamCleaner:
    """Cleans a text that comes in pieces: all that `feed` and `finish` give back, put together, is what `Redactor.clean_bytes` makes of
    the whole, however it was cut.

    What may be the beginning of a secret is held back until it is known what it becomes, at most some kilobytes; of a longer run that
    is a key so far nothing is ever given back. Use one pair of methods, for bytes or for texts, and no cleaner twice.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._context = b""
        self._held = b""
        self._swallowing: frozenset[int] | None = None
        self._in_pem = 0

    def feed(self, piece: bytes) -> bytes:
        """What is certain now. Pieces may be cut anywhere, also within a character; what comes out is cut between characters if the
        whole of what went in was."""
        data = self._after_swallowed(self._held + piece)
        if not data:
            return b""
        text, before = self._context + data, len(self._context)
        spans = self._spans(text, before)
        cut = max(before, self._cut(text, spans))
        if len(text) - cut > max(_MOST_HELD, 2 * self._longest()):
            if spans and spans[-1][1] == len(text):
                return self._swallow(text, before, spans)
            cut = self._later(text, spans)
        return self._give(text, before, cut, spans)

    def finish(self) -> bytes:
        """The rest. Nothing may be fed after it."""
        text, before = self._context + self._held, len(self._context)
        if self._in_pem or not self._held:
            return b""
        spans = self._spans(text, before)
        return self._give(text, before, len(text), spans)

    def feed_text(self, piece: str) -> str:
        return self.feed(_utf8(piece)).decode("utf-8", "surrogatepass")

    def finish_text(self) -> str:
        return self.finish().decode("utf-8", "surrogatepass")

    def _spans(self, text: bytes, before: int) -> list[Span]:
        return [(max(start, before), end) for start, end in self._redactor.spans(text) if end > before]

    def _cut(self, text: bytes, spans: Sequence[Span]) -> int:
        """Up to where nothing can change any more."""
        cut = min([len(text), *(known.unfinished(text) for known in self._redactor.known())])
        base = max(0, len(text) - 2 * _MOST_HELD)
        tail = text[base:] if base else text
        if (found := UNFINISHED.search(tail)) is not None:
            cut = min(cut, base + found.start())
        for start, end in reversed(spans):
            if start < cut < end or (start < cut and end == len(text) and text.startswith(b"-----BEGIN ", start)):
                near = text[max(0, start - LONGEST_BEARER) : start]
                bearer = BEARER_BEFORE.search(near)
                cut = start if bearer is None else start - len(near) + bearer.start()
        while 0 < cut < len(text) and text[cut] & 0xC0 == 0x80:
            cut -= 1
        return cut

    def _later(self, text: bytes, spans: Sequence[Span]) -> int:
        """Where to cut what was held for too long: as near to its end as a beginning can be."""
        cut = len(text) - max(256, self._longest())
        cut = next((end for start, end in spans if start < cut < end), cut)
        while 0 < cut < len(text) and text[cut] & 0xC0 == 0x80:
            cut -= 1
        return cut

    def _longest(self) -> int:
        return max(known.longest for known in self._redactor.known())

    def _give(self, text: bytes, before: int, cut: int, spans: Sequence[Span]) -> bytes:
        given = cut_out(text[:cut], [span for span in spans if span[1] <= cut])[before:]
        self._held = text[cut:]
        self._context = _context(text[:cut])
        return given

    def _swallow(self, text: bytes, before: int, spans: Sequence[Span]) -> bytes:
        """A key without an end: its mark is given, and what still comes of it is dropped."""
        start, end = spans[-1]
        given = cut_out(text, spans)[before:]
        self._context, self._held = _context(text), b""
        if text.startswith(b"-----BEGIN ", start):
            self._in_pem = end - start
            self._held = text[-80:]
        else:
            self._swallowing = KEY_BYTES
        return given

    def _after_swallowed(self, data: bytes) -> bytes:
        if self._in_pem:
            found = PEM_END.search(data)
            self._in_pem += len(data)
            if found is None and self._in_pem < _MOST_PEM:
                self._held = data[-80:]
                return b""
            self._in_pem, self._held = 0, b""
            data = data[found.end() :] if found is not None else b""
        if self._swallowing is not None:
            kept = data.lstrip(bytes(self._swallowing))
            if kept:
                self._swallowing = None
            return kept
        return data


def _literals(texts: Iterable[bytes]) -> list[bytes]:
    """Of several that begin alike the longest counts, so it stands first."""
    return [re2.escape(text) for text in sorted(texts, key=len, reverse=True)]


def _any_of(texts: Iterable[bytes]) -> Pattern:
    literals = _literals(texts)
    return compiled(b"|".join(literals)) if literals else None


def _cut_by_quotes(text: bytes) -> tuple[bytes, bytes]:
    """Patterns of a beginning of `text` that ends a JSON string, and of an end of it that begins one."""
    head, tail = text[:_MOST_NESTED], text[-_MOST_NESTED:]
    more = b'[^"]*' if len(text) > _MOST_NESTED else b""
    first = re2.escape(head[:_LEAST_CUT]) + b"(?:" + begun(head[_LEAST_CUT:], more) + b')?"'
    ending = more
    for byte in tail[:-_LEAST_CUT]:
        ending = b"(?:" + ending + re2.escape(bytes([byte])) + b")?"
    return first, b'"' + ending + re2.escape(tail[-_LEAST_CUT:])


def _context(before: bytes) -> bytes:
    """What must be known of the text before a key; where something is left out, no key begins."""
    return before if len(before) <= _CONTEXT else b"0" + before[-_CONTEXT:]


def united(spans: Iterable[Span]) -> list[Span]:
    """In order, those that overlap as one, and none that is empty."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start < found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        elif start < end:
            found.append((start, end))
    return found


def cut_out(data: bytes, spans: Sequence[Span], mark: bytes = MARK.encode()) -> bytes:
    """`data` with `mark` in place of each span."""
    pieces, position = [], 0
    for start, end in spans:
        pieces += [data[position:start], mark]
        position = end
    return b"".join([*pieces, data[position:]])


def _in_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
