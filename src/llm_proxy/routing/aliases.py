"""Rules that turn the beginning of a model name into another (RT-06): patterns, replacements, the first rule that fires.

Pure text work in linear time: patterns run in RE2, which never backtracks. Knows no back end, no session, and not where rules come from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

_ESCAPE: Final = re.compile(r"\\(?:([1-9][0-9]?)|g<([^<>\\]{1,64})>|(.)|\Z)", re.DOTALL)
_PAIR: Final = re.compile(r"\\(.)", re.DOTALL)
_REMEMBERED: Final = 256
"""Names whose result is kept; clients ask for few different ones. A name has at most 512 characters."""


class Rule(msgspec.Struct, frozen=True):
    """`pattern` is a regular expression that is matched at the start of a name; what it matched becomes `replacement`.

    The replacement may hold groups of the match as `\\1` or `\\g<name>`, and a backslash as `\\\\`.
    """

    pattern: str
    replacement: str


class BadRule(ValueError):
    """A rule that cannot be used; the text says why."""


class _Compiled(msgspec.Struct, frozen=True):
    rule: Rule
    regexp: Any
    pieces: tuple[bytes | int, ...]


class Aliases:
    """An ordered list of rules, ready to be used. Raises BadRule if one is not.

    One name costs about a microsecond for each rule that it does not match, far less when it was asked for before.
    """

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self.rules = tuple(rules)
        self._compiled = tuple(_compile(rule) for rule in rules)
        self._remembered = lru_cache(maxsize=_REMEMBERED)(self._first)

    def apply(self, name: str) -> tuple[str, Rule | None]:
        """The name after the first rule that matches its beginning, and that rule; else the name as it is, and None.

        What the match leaves over of the name is kept behind the replacement. The result is not matched again. `name` is valid Unicode.
        """
        return self._remembered(name) if self._compiled else (name, None)

    def _first(self, name: str) -> tuple[str, Rule | None]:
        data = name.encode()  # once, not for each rule
        for compiled in self._compiled:
            if match := compiled.regexp.match(data):
                pieces = (piece if isinstance(piece, bytes) else match[piece] or b"" for piece in compiled.pieces)
                return (b"".join(pieces) + data[match.end() :]).decode(), compiled.rule
        return name, None


def complaint(rule: Rule) -> str:
    """Why `rule` cannot be used; "" when it can."""
    try:
        _compile(rule)
    except BadRule as error:
        return str(error)
    return ""


def _compile(rule: Rule) -> _Compiled:
    for name, text in (("pattern", rule.pattern), ("replacement", rule.replacement)):
        if not text.isprintable():
            raise BadRule(f"the {name} holds control characters")
    regexp = _pattern(rule.pattern)
    return _Compiled(rule, regexp, tuple(_pieces(rule.replacement, regexp)))


def _pattern(text: str) -> Any:
    """A regular expression as `re2` compiles it; the package has no types."""
    # Imported late: a start without rules must not pay for the engine.
    import re2  # type: ignore[import-untyped]

    def translate(pair: re.Match[str]) -> str:
        if pair[1] == "C":  # a single byte, in RE2 only: it would cut characters in two
            raise BadRule(r"the pattern is not a regular expression: bad escape \C")
        return r"\z" if pair[1] == "Z" else pair[0]  # the end of the text, as Python writes it

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(_PAIR.sub(translate, text), options)
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        reason = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
    hint = ""
    if reason.startswith("invalid perl operator: (?") or re.match(r"invalid escape sequence: \\\d", reason):
        hint = "; look-around and references back to a group are not supported, so that matching takes linear time"
    raise BadRule(f"the pattern is not a regular expression: {reason}{hint}")


def _pieces(template: str, regexp: Any) -> list[bytes | int]:
    """Literal text in UTF-8 and numbers of groups, in order."""
    pieces: list[str | int] = []
    end = 0
    for escape in _ESCAPE.finditer(template):
        pieces.append(template[end : escape.start()])
        pieces.append(_piece(escape, regexp))
        end = escape.end()
    pieces.append(template[end:])
    return [piece.encode() if isinstance(piece, str) else piece for piece in pieces if piece != ""]


def _piece(escape: re.Match[str], regexp: Any) -> str | int:
    digits, name, other = escape.groups()
    if name is not None and not name.isascii():
        name = ""
    if digits or (name and name.isdecimal()):
        number = int(digits or name)
        if number > regexp.groups:
            raise BadRule(f"the replacement names group {number}, but the pattern has {regexp.groups}")
        return number
    if name is not None:
        if name not in regexp.groupindex:
            raise BadRule(f"the replacement names an unknown group: {escape[0]}")
        return int(regexp.groupindex[name])
    if other == "\\":
        return "\\"
    if not other or other.isalnum():
        raise BadRule(f"the replacement holds a bad escape: {escape[0]}")
    return escape[0]
