"""Secret values that do not print, and the removal of secrets from text.

Every key and token of the program lives in a ``Secret``. ``scrub`` takes known values, in the spellings
that bodies and addresses give them, and strings that look like keys out of what is about to be written
down.
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterable
from typing import NoReturn
from urllib.parse import quote, quote_plus

MARK = "***"
# Shorter values are words by accident more often than secrets.
MIN_LENGTH = 8


class Secret:
    """A value that shows only its fingerprint; ``reveal`` is the one way to it."""

    __slots__ = ("__digest", "__spellings", "__value")

    def __init__(self, value: str) -> None:
        self.__value = value
        self.__digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).digest()
        self.__spellings: tuple[str, ...] | None = None

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
            self.__spellings = _spell(self.__value) if len(self.__value) >= MIN_LENGTH else ()
        return self.__spellings

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


def _spell(value: str) -> tuple[str, ...]:
    """List the forms of a value, the longest first, so that no form hides in the rest of another."""
    data = value.encode("utf-8", "surrogatepass")
    escaped = json.dumps(value, ensure_ascii=False)[1:-1]
    forms = {value, escaped, escaped.replace("/", "\\/"), json.dumps(value)[1:-1]}
    forms |= {json.dumps(form, ensure_ascii=False)[1:-1] for form in tuple(forms)}  # arguments are JSON in JSON
    for encoded in (quote(data, safe=""), quote(data), quote_plus(data)):
        forms |= {encoded, re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), encoded)}
    for offset in range(3):
        # Base64 depends on what stands before; the characters that the neighbours share are left off.
        text = base64.b64encode(b"\0" * offset + data).decode().rstrip("=")
        text = text[(0, 2, 3)[offset] : len(text) - ((offset + len(data)) % 3 != 0)]
        forms |= {text, text.replace("+", "-").replace("/", "_")}
    return tuple(sorted(forms, key=len, reverse=True))


# A key begins where no letter or digit stands before it, unless that belongs to an escape: \n, \u0022, %20.
_START = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrtbf])|(?<=\\u[0-9A-Fa-f]{4})|(?<=%[0-9A-Fa-f]{2}))"
# Each shape with a text that must be there for it; all take time linear in the text.
_SHAPES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (needle, re.compile(pattern, re.DOTALL))
    for needle, pattern in (
        (
            "PRIVATE KEY-----",
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\Z)",
        ),
        ("sk-", _START + r"sk-[A-Za-z0-9_-]{20,}"),
        ("ak-", _START + r"ak-[A-Za-z0-9_-]{20,}"),
        ("AIza", _START + r"AIza[A-Za-z0-9_-]{20,}"),
        ("gh", _START + r"gh[oprsu]_[A-Za-z0-9]{20,}"),
        ("github_pat_", _START + r"github_pat_[A-Za-z0-9_]{20,}"),
        ("xox", _START + r"xox[a-z]-[A-Za-z0-9-]{10,}"),
        ("AKIA", _START + r"AKIA[A-Z0-9]{12,}"),
        ("gsk_", _START + r"gsk_[A-Za-z0-9]{20,}"),
        ("xai-", _START + r"xai-[A-Za-z0-9]{20,}"),
        ("ya29.", _START + r"ya29\.[A-Za-z0-9_-]{20,}"),
        (
            ".",
            r"(?:(?<![0-9A-Fa-f])|(?<=\\u[0-9A-Fa-f]{4})|(?<=%[0-9A-Fa-f]{2}))[0-9A-Fa-f]{32}\.[A-Za-z0-9_-]{16,}",
        ),
        (
            "eyJ",
            r"(?:(?<![A-Za-z0-9_-])|(?<=\\[nrtbf])|(?<=\\u[0-9A-Fa-f]{4})|(?<=%[0-9A-Fa-f]{2}))"
            r"eyJ[A-Za-z0-9_-]{6,}+\.[A-Za-z0-9_-]{6,}+\.[A-Za-z0-9_-]*",
        ),
    )
)
_BEARER = re.compile(r"(bearer(?:\s|%20|\+){1,4})[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)


def scrub(text: str, secrets: Iterable[Secret] = (), mark: str = MARK) -> str:
    """Replace known secrets, in all their spellings, and key-shaped strings by ``mark``."""
    text = scrub_known(text, secrets, mark)
    for needle, shape in _SHAPES:
        if needle in text:
            text = shape.sub(mark, text)
    return _BEARER.sub(lambda found: found[1] + mark, text)


def scrub_known(text: str, secrets: Iterable[Secret], mark: str = MARK) -> str:
    """Replace known secrets of eight characters or more, in all their spellings, and nothing else."""
    spellings = {spelling for secret in secrets for spelling in secret.spellings() if spelling in text}
    for spelling in sorted(spellings, key=len, reverse=True):
        text = text.replace(spelling, mark)
    return text
