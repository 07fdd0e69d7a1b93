"""What is shaped like a key of a well-known provider, and what may become such a key when more text comes.

Owns the patterns. Whether a value is known is not asked here. All searches run in automata whose time is linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import re2  # type: ignore[import-untyped]

_MEMORY = 64 << 20  # bytes that an automaton may take before it forgets states

Span = tuple[int, int]
Pattern = Any  # re2 ships no types

_ESCAPES = rb"\\[nrtbf]|\\u[0-9A-Fa-f]{4}|%[0-9A-Fa-f]{2}"
# A key begins where no letter or digit stands before it, unless that belongs to an escape: \n, \u0022, %20.
_START = rb"(?:^|[^A-Za-z0-9]|" + _ESCAPES + rb")"
_START_HEX = rb"(?:^|[^0-9A-Fa-f]|" + _ESCAPES + rb")"
_START_JWT = rb"(?:^|[^A-Za-z0-9_-]|" + _ESCAPES + rb")"
# Beginning, what follows it, and how many of those make a key.
_PREFIXED: tuple[tuple[bytes, bytes, int], ...] = (
    (rb"sk-", rb"[A-Za-z0-9_-]", 20),
    (rb"ak-", rb"[A-Za-z0-9_-]", 20),
    (rb"AIza", rb"[A-Za-z0-9_-]", 20),
    (rb"ghp_", rb"[A-Za-z0-9]", 20),
    (rb"gho_", rb"[A-Za-z0-9]", 20),
    (rb"ghr_", rb"[A-Za-z0-9]", 20),
    (rb"ghs_", rb"[A-Za-z0-9]", 20),
    (rb"ghu_", rb"[A-Za-z0-9]", 20),
    (rb"github_pat_", rb"[A-Za-z0-9_]", 20),
    *((b"xox" + bytes([letter]) + b"-", rb"[A-Za-z0-9-]", 10) for letter in b"abcdefghijklmnopqrstuvwxyz"),
    (rb"AKIA", rb"[A-Z0-9]", 12),
    (rb"gsk_", rb"[A-Za-z0-9]", 20),
    (rb"xai-", rb"[A-Za-z0-9]", 20),
    (rb"ya29.", rb"[A-Za-z0-9_-]", 20),
)
_WORD = rb"[A-Za-z0-9_-]"
_GAP = rb"(?:\s|%20|\+){1,4}"
_TOKEN = rb"[A-Za-z0-9._~+/=-]"
_PEM = rb"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----"


def _options() -> Any:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1  # bytes are searched, not characters
    options.max_mem = _MEMORY
    options.log_errors = False  # a pattern holds secrets
    options.never_capture = True  # which is what keeps a match as fast as a search
    return options


def compiled(pattern: bytes) -> Pattern:
    return re2.compile(pattern, options=_options())


def begun(text: bytes, more: bytes) -> bytes:
    """A pattern of everything that may become `text` and then `more`."""
    pattern = more
    for byte in reversed(text):
        pattern = re2.escape(bytes([byte])) + b"(?:" + pattern + b")?"
    return pattern


SHAPES = b"|".join(
    [
        _START + b"(?:" + b"|".join(re2.escape(b) + c + b"{%d,}" % n for b, c, n in _PREFIXED) + b")",
        _START_HEX + rb"[0-9A-Fa-f]{32}\.[A-Za-z0-9_-]{16,}",
        _START_JWT + rb"eyJ" + _WORD + rb"{6,}\." + _WORD + rb"{6,}\." + _WORD + rb"*",
        _PEM,
        rb"(?i:bearer)" + _GAP + _TOKEN + rb"{8,}",
    ]
)
SHAPE = compiled(SHAPES)
# The automaton that finds a match does not say which part of it is what; these look at its beginning.
_KEY = re.compile(b"|".join([*(re.escape(text) for text, _, _ in _PREFIXED), rb"eyJ", rb"[0-9A-Fa-f]{32}\."]))
_LENGTHS_OF_STARTS = (0, 1, 2, 3, 6)
_BEARER = re.compile(rb"(?i:bearer)" + _GAP)
BEARER_BEFORE = re.compile(_BEARER.pattern + rb"\Z")
LONGEST_BEARER = len("bearer") + 4 * len("%20")
PEM_END = compiled(rb"-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----")
# "Bearer authentication" is two words; a token is no single word of letters.
_PLAIN_WORD = re.compile(rb"[A-Za-z]?[a-z._/=-]{1,31}")
# What stands at the end of a text and may go on to be a key.
UNFINISHED = compiled(
    b"(?:"
    + b"|".join(
        [
            _START + b"(?:" + b"|".join(begun(b, c + b"*") for b, c, _ in _PREFIXED) + b")",
            _START_HEX + rb"[0-9A-Fa-f]{1,32}(?:\.[A-Za-z0-9_-]*)?",
            _START_JWT + begun(b"eyJ", _WORD + rb"*(?:\." + _WORD + rb"*){0,2}"),
            begun(b"-----BEGIN ", rb"[A-Z0-9 ]{0,60}-{0,4}"),
            rb"(?i:" + begun(b"bearer", rb"(?:\s|%20|\+){0,4}(?:%|%2|" + _TOKEN + rb"*)") + rb")",
        ]
    )
    + rb")\z"
)
KEY_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~+/=-")


def shaped(data: bytes) -> Iterable[Span]:
    """Where something stands that is shaped like a key."""
    position = 0
    while (match := SHAPE.search(data, position)) is not None:
        start, end = match.span()
        if data.endswith(b"-----BEGIN", start, end):
            end -= len(b"-----BEGIN")  # what looks like the end of a token may be the beginning of a private key
        position = end
        if (bearer := _BEARER.match(data, start, end)) is not None:
            start = bearer.end()
            if start >= end or _PLAIN_WORD.fullmatch(data, start, end) is not None:
                continue
        elif data.startswith(b"-----BEGIN ", start):
            closing = PEM_END.search(data, end)
            position = end = closing.end() if closing is not None else len(data)
        else:
            starts = (start + length for length in _LENGTHS_OF_STARTS)
            start = next((at for at in starts if _KEY.match(data, at, end)), start)
        yield start, end
