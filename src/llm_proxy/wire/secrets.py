"""Secret values that do not print, and the spellings that bodies and addresses give them.

Every key and token of the program lives in a ``Secret``. How texts are freed of them is told in ``redaction.py``.
"""

import base64
import hashlib
import hmac
import json
import re
from typing import NoReturn
from urllib.parse import quote, quote_plus

MARK = "***"
# Shorter values are words by accident more often than secrets.
MIN_LENGTH = 8


class Secret:
    """A value that shows only its fingerprint; ``reveal`` is the one way to it."""

    __slots__ = ("__digest", "__in_texts", "__spellings", "__value")

    def __init__(self, value: str) -> None:
        self.__value = value
        self.__digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).digest()
        self.__spellings: tuple[str, ...] | None = None
        self.__in_texts: tuple[str, ...] | None = None

    def reveal(self) -> str:
        """Return the value itself, to be sent and for nothing else."""
        return self.__value

    @property
    def fingerprint(self) -> str:
        """Enough to tell keys apart and too little to use one, like ``sk-…a1b2``."""
        value = self.__value
        if len(value) < 16:
            return "…"
        head, dash, _ = value[:8].partition("-")
        return f"{head + dash if dash and len(head) <= 4 else ''}…{value[-4:]}"

    def matches(self, text: str) -> bool:
        """Compare with a presented value in a time that does not depend on where they differ."""
        return hmac.compare_digest(self.__digest, hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())

    def spellings(self) -> tuple[str, ...]:
        """The value as it may stand in JSON, an address or Base64; empty when too short to look for."""
        if self.__spellings is None:
            found = {*self.in_texts(), *(_in_base64(self.__value) if len(self.__value) >= MIN_LENGTH else ())}
            self.__spellings = tuple(sorted(found, key=len, reverse=True))
        return self.__spellings

    def in_texts(self) -> tuple[str, ...]:
        """The spellings that people and programs read as they stand: all but Base64."""
        if self.__in_texts is None:
            self.__in_texts = _in_texts(self.__value) if len(self.__value) >= MIN_LENGTH else ()
        return self.__in_texts

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.__digest, other.__digest)

    def __hash__(self) -> int:
        return hash(self.__digest)

    def __bool__(self) -> bool:
        return bool(self.__value)

    def __repr__(self) -> str:
        return f"Secret({self.fingerprint})"

    def __str__(self) -> str:
        return self.fingerprint

    def __format__(self, spec: str) -> str:
        return format(self.fingerprint, spec)

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: object) -> "Secret":
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret cannot be pickled")


_MUST_ESCAPE = {code: json.dumps(chr(code))[1:-1] for code in (*range(32), ord('"'), ord("\\"))}
# What some JSON writers escape though they need not, such as .NET's, Go's and those for pages of HTML.
_MAY_ESCAPE = ("+&<>'\"`", "+&<>'\"`=", "<>&", "<>&'\"", "<>&'=")
_ESCAPES = tuple(
    _MUST_ESCAPE | {ord(character): form % ord(character) for character in characters}
    for characters in _MAY_ESCAPE
    for form in ("\\u%04X", "\\u%04x")
)


def _in_texts(value: str) -> tuple[str, ...]:
    """The forms of a value, the longest first, so that no form hides in the rest of another."""
    data = value.encode("utf-8", "surrogatepass")
    escaped = json.dumps(value, ensure_ascii=False)[1:-1]
    forms = {value, escaped, escaped.replace("/", "\\/"), json.dumps(value)[1:-1]}
    forms |= {value.translate(escapes) for escapes in _ESCAPES}
    forms |= {json.dumps(form, ensure_ascii=False)[1:-1] for form in tuple(forms)}  # arguments are JSON in JSON
    for encoded in (quote(data, safe=""), quote(data), quote_plus(data)):
        forms |= {encoded, re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), encoded)}
    return tuple(sorted(forms, key=len, reverse=True))


def _in_base64(value: str) -> set[str]:
    """Base64 depends on what stands before; the characters that the neighbours share are left off."""
    data = value.encode("utf-8", "surrogatepass")
    forms: set[str] = set()
    for offset in range(3):
        text = base64.b64encode(b"\0" * offset + data).decode().rstrip("=")
        text = text[(0, 2, 3)[offset] : len(text) - ((offset + len(data)) % 3 != 0)]
        forms |= {text, text.replace("+", "-").replace("/", "_")}
    return forms
