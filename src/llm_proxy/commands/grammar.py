"""How a command is written: found in a text, its arguments read, and cut out of the text again.

Owns the form alone. Which names exist, what values mean and which texts are looked at is known elsewhere. Written by hand without
backtracking: each character is looked at a bounded number of times, whatever a text holds.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

import msgspec

from llm_proxy.commands.desk import CommandError
from llm_proxy.config.chat_keys import canonical

LONGEST_NAME: Final = 64
"""A longer name is text: no command has one, and what is compared with it must stay small."""

LONGEST_ARGUMENTS: Final = 65_536
"""Longer arguments count as unclosed: no value is that long, and what follows an unclosed bracket may be a whole book."""

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,64}")
_OPENING: Final = re.compile(r"[^\S\r\n]*\(")
_PLAIN: Final = re.compile(r"[^\\'\"()\[\]{},=:]+")
_LETTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_IN_NAME: Final = _LETTERS | frozenset("0123456789_-")
_AFTER_NAME: Final = frozenset(".,;:!?)")
_CLOSING: Final = {"(": ")", "[": "]", "{": "}"}
_QUOTES: Final = frozenset("'\"")
_ESCAPED: Final = frozenset("\\'\"()[]{},=")
_TRUE: Final = frozenset(("true", "1", "yes", "on"))
_FALSE: Final = frozenset(("false", "0", "no", "off", "none"))


class Argument(msgspec.Struct, frozen=True):
    """`key` is "" for a positional one, else as typed. Blanks and quotes around both are dropped.

    `nested`: the value is one bracketed group, `(effort=high)` or `{json}`, kept as it was written.
    """

    key: str
    value: str
    nested: bool = False


class Arguments(msgspec.Struct, frozen=True):
    items: tuple[Argument, ...] = ()

    @property
    def positional(self) -> tuple[str, ...]:
        return tuple(item.value for item in self.items if not item.key)

    @property
    def named(self) -> tuple[Argument, ...]:
        return tuple(item for item in self.items if item.key)


class Found(msgspec.Struct, frozen=True):
    """A command in a text. `name` is canonical; `arguments` is None without brackets.

    `start` and `end` are its span with the arguments; of an unclosed one to the end of what was typed. `error` says what is wrong and
    shows the right form, or is "".
    """

    name: str
    start: int
    end: int
    arguments: Arguments | None = None
    error: str = ""


def boolean(text: str) -> bool | None:
    """What a word for yes or no says; None for another word."""
    word = text.strip().lower()
    return True if word in _TRUE else False if word in _FALSE else None


# Finding


@lru_cache(maxsize=64)
def _beginning(prefix: str) -> re.Pattern[str]:
    """Where a command may begin: after white space. Two characters are looked at, nothing is tried again."""
    return re.compile(rf"(?<!\S){re.escape(prefix)}(?=[A-Za-z])")


@lru_cache(maxsize=64)
def _possible_beginning(prefix: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\s>\"]){re.escape(prefix)}(?=[A-Za-z])")


def may_hold(text: str, prefix: str) -> bool:
    """Can `text` hold a command, wherever in it typed text begins (after white space, a tag or a quote)? False is certain."""
    return prefix in text and _possible_beginning(prefix).search(text) is not None


def find(text: str, prefix: str, spans: Sequence[tuple[int, int]], most: int = sys.maxsize) -> list[Found]:
    """The commands that begin in one of `spans` (sorted), left to right. Their brackets must close in the same span. No more are
    looked for once there are `most`."""
    found: list[Found] = []
    for start, end in spans:
        position = start
        while position < end and len(found) < most:
            if position > start or not text.startswith(prefix, start):
                begins = _beginning(prefix).search(text, position, end)
                if begins is None:
                    break
                position = begins.start()
            command = _command(text, prefix, position, end)
            if command is None:
                position += 1
            else:
                found.append(command)
                position = command.end
    return found


def find_on_last_line(
    text: str, prefix: str, spans: Sequence[tuple[int, int]], ignored: Sequence[tuple[int, int]] = ()
) -> list[Found]:
    """Strict detection (CMD-03): the commands of the last line with content, if it holds nothing else; else none.

    `ignored` (sorted) does not count as content: tags of agents' wrappers, machine text.
    """
    content = _last_content(text, ignored)
    if content < 0 or not any(start <= content < end for start, end in spans):
        return []
    begin = max(text.rfind("\n", 0, content), text.rfind("\r", 0, content)) + 1
    line = [(max(start, begin), min(end, content + 1)) for start, end in spans if end > begin and start <= content]
    found = find(text, prefix, line)
    covered = sorted([*ignored, *((command.start, command.end) for command in found)])
    return found if _is_blank_outside(text, covered, begin, content + 1) else []


def _last_content(text: str, ignored: Sequence[tuple[int, int]]) -> int:
    """The place of the last character that is neither blank nor ignored; -1 without one."""
    end = len(text)
    for start, stop in reversed(ignored):
        if end > stop and (length := len(text[stop:end].rstrip())):
            return stop + length - 1
        end = min(end, start)
    return len(text[:end].rstrip()) - 1


def _is_blank_outside(text: str, covered: Sequence[tuple[int, int]], start: int, end: int) -> bool:
    for first, last in covered:
        if last > start:
            if first > start and text[start : min(first, end)].strip():
                return False
            start = max(start, last)
        if start >= end:
            return True
    return not text[start:end].strip()


def _command(text: str, prefix: str, start: int, end: int) -> Found | None:
    named = _NAME.match(text, start + len(prefix), end)
    if named is None or len(named[0]) > LONGEST_NAME:
        return None
    typed, stop = named[0], named.end()
    name = canonical(typed)
    if opening := _OPENING.match(text, stop, end):
        most = min(end, opening.end() + LONGEST_ARGUMENTS)
        parts, after, problem = _scan(text, opening.end(), most, ")")
        form = f"{prefix}{typed}"
        if problem:
            return Found(name, start, end, Arguments(), f"{problem} Write it as {form}(value) or {form}(key=value, …).")
        arguments, problem = _read(text, parts, form)
        return Found(name, start, after, arguments, problem)
    if stop == end or text[stop].isspace() or text[stop] in _AFTER_NAME:
        return Found(name, start, stop)
    return None


# Arguments


class _Part(msgspec.Struct):
    """One argument as it stands in the text. `equals` is the place of its first `=` outside quotes and brackets, -1 without one;
    `second` that of a name after a blank and before a later such `=`: another pair begins there without a comma."""

    start: int
    end: int
    equals: int = -1
    second: int = -1


def parse_arguments(text: str) -> Arguments:
    """The arguments in `text`, written as between the brackets of a command. Raises CommandError for what is wrong."""
    parts, _, problem = _scan(text, 0, len(text), "")
    if problem:
        raise CommandError(f"{problem} Write it as key=value, key=value.")
    arguments, problem = _read(text, parts, "")
    if problem:
        raise CommandError(problem)
    return arguments


def _scan(text: str, start: int, end: int, closing: str) -> tuple[list[_Part], int, str]:
    """The parts between `start` and the bracket `closing` ("" = the end), the place after it, and what is unclosed, or "".

    A quote counts as one only where a key or a value begins: after a bracket, a comma or `=`, after `:` in braces, and a double one
    also after a blank. So the apostrophes of `don't` and `rock 'n' roll` are letters. A single quote ends only before a blank, a comma,
    a bracket, `=`, `:` or the end, so `'don't'` is one value. A bracket that closes none of the open ones is a letter.
    """
    parts = [_Part(start, start)]
    stack: list[str] = []
    fresh, position = True, start
    while position < end:
        if plain := _PLAIN.match(text, position, end):
            fresh = fresh and plain[0].isspace()
            position = plain.end()
            continue
        character = text[position]
        if character == "\\":
            fresh = False
            position += 2
            continue
        if character in _QUOTES and (fresh or (character == '"' and text[position - 1].isspace())):
            position = _quote_end(text, position, end)
            if position < 0:
                return parts, end, f"The quote {character} is not closed."
            fresh = False
            continue
        if character in _CLOSING:
            stack.append(_CLOSING[character])
            fresh = True
        elif stack and character == stack[-1]:
            stack.pop()
            fresh = False
        elif not stack and character == closing:
            parts[-1].end = position
            return parts, position + 1, ""
        elif character == ",":
            fresh = True
            if not stack:
                parts[-1].end = position
                parts.append(_Part(position + 1, position + 1))
        elif character == "=":
            fresh = True
            if not stack:
                _note_equals(text, parts[-1], position)
        elif character == ":" and (stack[-1] if stack else closing) == "}":
            fresh = True
        else:
            fresh = False
        position += 1
    parts[-1].end = end
    unclosed = [*([closing] if closing else []), *stack]
    return parts, end, f"The closing bracket {unclosed[-1]} is missing." if unclosed else ""


def _note_equals(text: str, part: _Part, position: int) -> None:
    if part.equals < 0:
        part.equals = position
    if part.second >= 0:
        return
    low = part.start if part.equals == position else part.equals + 1
    stop = position
    while stop > low and text[stop - 1].isspace():
        stop -= 1
    start = stop
    while start > low and start > stop - LONGEST_NAME and text[start - 1] in _IN_NAME:
        start -= 1
    if start < stop and text[start] in _LETTERS and start > low and text[start - 1].isspace():
        # A blank behind the bracket, the comma or the first `=` separates no words.
        part.second = start if part.equals < position or text[low:start].strip() else -1


def _quote_end(text: str, start: int, end: int) -> int:
    """The place after the quote that closes the one at `start`, -1 if none does."""
    quote = text[start]
    position = start + 1
    while position < end:
        character = text[position]
        if character == "\\":
            position += 2
            continue
        position += 1
        if character == quote and (quote == '"' or _may_follow(text, position, end)):
            return position
    return -1


def _may_follow(text: str, position: int, end: int) -> bool:
    return position == end or text[position].isspace() or text[position] in ",=:)]}"


def _read(text: str, parts: Sequence[_Part], form: str) -> tuple[Arguments, str]:
    """The arguments of the parts, and what is wrong with one, or "". Empty parts are dropped."""
    items: list[Argument] = []
    for part in parts:
        if not text[part.start : part.end].strip():
            continue
        if part.second >= 0:
            return Arguments(), _comma_missing(text, part, form)
        key = _unquoted(text[part.start : part.equals].strip()) if part.equals >= 0 else ""
        value = text[part.equals + 1 if part.equals >= 0 else part.start : part.end].strip()
        nested = _is_group(value)
        if part.equals >= 0 and not key:
            wanted = f"{form}(key=value, …)" if form else "key=value, …"
            return Arguments(), f"The name before = is missing. Write it as {wanted}."
        items.append(Argument(key, value if nested else _unquoted(value), nested))
    return Arguments(tuple(items)), ""


def _comma_missing(text: str, part: _Part, form: str) -> str:
    later = text[part.second : part.second + LONGEST_NAME].split("=")[0].strip()
    earlier = text[part.start : part.equals].strip() if part.equals < part.second else ""
    right = f"{earlier}=…, {later}=…" if earlier and len(earlier) <= LONGEST_NAME else f"…, {later}=…"
    right = f"{form}({right})" if form else right
    return f"A comma is missing before {later}=. Write it as {right}, with quotes around a value that holds =."


def _is_group(value: str) -> bool:
    """Is it one bracketed group and nothing else?"""
    if len(value) < 2 or value[0] not in _CLOSING or value[-1] != _CLOSING[value[0]]:
        return False
    _, after, problem = _scan(value, 1, len(value), value[-1])
    return not problem and after == len(value)


def _unquoted(text: str) -> str:
    """Without the quotes around it and without the backslashes that kept a character from its meaning."""
    if len(text) > 1 and text[0] in _QUOTES and _quote_end(text, 0, len(text)) == len(text):
        text = text[1:-1]
    if "\\" not in text:
        return text
    kept: list[str] = []
    position = 0
    while position < len(text):
        # A backslash before an ordinary letter is one: C:\work.
        if text[position] == "\\" and position + 1 < len(text) and text[position + 1] in _ESCAPED:
            position += 1
        kept.append(text[position])
        position += 1
    return "".join(kept)


# Cutting

_BREAK: Final = re.compile(r"\r\n|\r|\n")


class _Line(msgspec.Struct, frozen=True):
    """Commands with no line break between them, and the place of their line: its ends, and where the next one begins."""

    start: int
    end: int
    after: int
    founds: list[Found]


def cut(text: str, founds: Sequence[Found]) -> str:
    """`text` without the commands (CMD-04), which are sorted and do not overlap.

    A line that then holds only blanks goes with one line break; of two blanks that meet at a cut one stays. All else is kept.
    """
    kept: list[str] = []
    position = 0
    for line in _lines(text, founds):
        gaps = list(_gaps(line))
        if not any(text[start:end].strip() for start, end in gaps):
            _keep(kept, text[position : line.start])
            if line.after == line.end:
                _drop_break(kept)
            position = line.after
            continue
        _keep(kept, text[position : line.founds[0].start])
        for start, end in gaps[1:]:
            doubled = bool(kept) and kept[-1][-1] in _BLANKS and text[start:end][:1] in _BLANKS
            _keep(kept, text[start + doubled : end])
        position = line.end
    _keep(kept, text[position:])
    return "".join(kept)


_BLANKS: Final = (" ", "\t")


def _keep(kept: list[str], piece: str) -> None:
    if piece:
        kept.append(piece)


def _drop_break(kept: list[str]) -> None:
    """The last line goes with the line break before it."""
    if kept and (found := _BREAK.search(kept[-1], max(0, len(kept[-1]) - 2))) and found.end() == len(kept[-1]):
        kept[-1:] = [kept[-1][: found.start()]] if found.start() else []


def _gaps(line: _Line) -> Iterator[tuple[int, int]]:
    """What stands around the commands of the line; empty gaps too."""
    start = line.start
    for found in line.founds:
        yield start, found.start
        start = found.end
    yield start, line.end


def _lines(text: str, founds: Sequence[Found]) -> Iterator[_Line]:
    breaks = [found.span() for found in _BREAK.finditer(text)] if founds else []
    ends = [start for start, _ in breaks]
    run: list[Found] = []
    for number, found in enumerate(founds):
        run.append(found)
        below = bisect_left(ends, found.end)
        if number + 1 < len(founds) and (below == len(ends) or founds[number + 1].start <= ends[below]):
            continue
        above = bisect_left(ends, run[0].start)
        start = breaks[above - 1][1] if above else 0
        end, after = breaks[below] if below < len(breaks) else (len(text), len(text))
        yield _Line(start, end, after, run)
        run = []
