"""The tables of the specification's configuration page and the declarations agree, row by row, both ways.

Rows of features that are not built yet stand in `LATER`, which only ever gets shorter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec
import pytest

from llm_proxy import __version__
from llm_proxy.config import Option
from llm_proxy.config.backends import BackendOptions
from llm_proxy.config.built_in import BUILT_IN
from llm_proxy.config.chat_keys import canonical
from llm_proxy.config.maps import RateLimitEntryOptions, RouteOptions
from llm_proxy.config.rate_limits import STANDS_FOR
from llm_proxy.option_groups import GROUPS
from tests.support.shared import SHARED

PAGE = SHARED / "spec" / "configuration.md" if SHARED is not None else None
WHY_SKIPPED: Final = "the specification is not here (folder 'shared' beside the checkout, or LLM_PROXY_SHARED)"
OPTIONS: Final = [option for group in GROUPS for option in group.options]

LATER: Final[dict[str, str]] = {}
"""Paths and chat keys of rows whose feature is not built yet -> its id."""

ELSEWHERE: Final = {
    "model_defaults": "CFG-10 describes it in words",
    "failover_routes": "its row names the entries",
    "rate_limits": "its row names the entries",
    "default_rate_limit": "its row names it beside what it stands for",
    "default_rate_window": "its row names it beside what it stands for",
    "!/set(reasoning-mode)": "CMD-17 describes it in words",
}
"""Declared, but no row of a table."""


class InChat(msgspec.Struct, frozen=True):
    """A key of `!/set(...)`, in the form in which keys are compared."""

    name: str
    aliases: frozenset[str]
    scope: str

    @property
    def id(self) -> str:
        return f"!/set({self.name})"


class Row(msgspec.Struct, frozen=True):
    """One row of a table. `paths` has more than one member where a row describes several options."""

    title: str
    paths: tuple[str, ...]
    aliases: tuple[str, ...]
    env: tuple[str, ...]
    flags: tuple[str, ...]
    chat: tuple[InChat, ...]
    type: str

    @property
    def keys(self) -> tuple[str, ...]:
        return self.paths or tuple(key.id for key in self.chat[:1]) or self.flags[:1]


def cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


def quoted(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`([^`]+)`", text))


def inside_and_outside(text: str) -> tuple[str, str]:
    """What stands in round brackets, and the rest; brackets within quotes are text."""
    inside = " ".join(re.findall(r"\(([^()]*)\)", text))
    return inside, re.sub(r"\([^()]*\)", "", text)


def tables() -> Iterator[tuple[str, list[str], list[str]]]:
    """Section, head and cells of each row."""
    assert PAGE is not None
    section, head = "", []
    for line in PAGE.read_text("utf-8").splitlines():
        if line.startswith("#"):
            section, head = line.lstrip("# ").split(" ")[0], []
        elif line.startswith("| -"):
            continue
        elif line.startswith("|") and not head:
            head = cells(line)
        elif line.startswith("|"):
            yield section, head, cells(line)


def expand(path: str) -> list[str]:
    """`a.{b, c}` stands for `a.b` and `a.c`."""
    match = re.fullmatch(r"(.*)\{(.*)\}", path)
    return [match[1] + name.strip() for name in match[2].split(",")] if match else [path]


def in_chat(cell: str) -> Iterator[InChat]:
    for name, aliases, mark in re.findall(r"`([^`]+)`(?:\s*\(([^()]*)\))?\s+([SP])\b", cell):
        others = frozenset(map(canonical, quoted(aliases))) - {canonical(name)}
        yield InChat(canonical(name), others, {"S": "session", "P": "process"}[mark])


def rows() -> list[Row]:
    found: list[Row] = []
    for _, head, row in tables():
        if head[0] != "Option":
            continue
        cell = {name.split(" (")[0]: text for name, text in zip(head, row, strict=True)}
        aliases, paths = inside_and_outside(cell["YAML path"])
        found.append(
            Row(
                title=cell["Option"],
                paths=tuple(part for path in quoted(paths) for part in expand(path)),
                aliases=quoted(aliases),
                env=quoted(cell["Environment"]),
                flags=tuple(flag.split(" ")[0] for flag in quoted(cell["CLI"])),
                chat=tuple(in_chat(cell.get("In chat", ""))),
                type=next(text for name, text in cell.items() if name.startswith("Type")),
            )
        )
    return found


def declared() -> dict[str, Option]:
    return {option.id: option for option in OPTIONS}


needs_page = pytest.mark.skipif(PAGE is None or not PAGE.is_file(), reason=WHY_SKIPPED)
ROWS: Final = rows() if PAGE is not None and PAGE.is_file() else []

ENTRIES: Final = ("backends.", "failover_routes.<name>.", "rate_limits.<key>.")
"""Beginnings of paths that belong to an entry of a map, not to an option of its own."""


@needs_page
def test_every_row_is_declared_or_belongs_to_a_later_feature() -> None:
    named = {key for row in ROWS for key in row.keys if not key.startswith(ENTRIES)}
    assert len(named) > 150
    assert named - declared().keys() - LATER.keys() == set()
    assert LATER.keys() - named == set(), "no such row"
    assert LATER.keys() & declared().keys() == set(), "declared: take it out of LATER"


@needs_page
def test_every_declared_option_has_a_row() -> None:
    named = {key for row in ROWS for key in (*row.keys, *(key.id for key in row.chat))}
    assert declared().keys() - named == ELSEWHERE.keys()


def built() -> list[Row]:
    return [row for row in ROWS if any(key in declared() for key in row.keys)]


@needs_page
@pytest.mark.parametrize("row", built(), ids=lambda row: "+".join(row.keys))
def test_names_are_those_of_the_row(row: Row) -> None:
    options = [declared()[key] for key in row.keys if key in declared()]
    assert {alias for option in options for alias in option.aliases} == set(row.aliases)
    variables = {name for option in options for name in (*option.env, *option.env_numbered, *option.env_standard)}
    variables |= {f"{name}=true" for option in options for name in option.env_off}
    assert variables == set(row.env)
    flags = {
        flag
        for option in options
        for flag in (*option.flags, *option.off_flags, *option.hidden_flags, *option.hidden_off_flags)
    }
    assert flags == set(row.flags)


@needs_page
@pytest.mark.parametrize("row", built(), ids=lambda row: "+".join(row.keys))
def test_the_type_default_and_range_are_those_of_the_row(row: Row) -> None:
    for option in (declared()[key] for key in row.keys if key in declared()):
        for problem in disagreements(option, row.type):
            pytest.fail(f"{option.id}: {problem}; the row says: {row.type}")


@needs_page
def test_the_mark_of_a_restart_is_that_of_the_row() -> None:
    for row in built():
        for key in row.keys:
            if key in declared():
                assert declared()[key].restart == ("⟳" in row.title), key


@needs_page
def test_chat_keys_and_their_scope_are_those_of_the_rows() -> None:
    # Where one back-end's row names a chat key, that key stands for the session and has a row of its own.
    expected = {
        key
        for row in ROWS
        if not any(path in LATER or path.startswith("backends.") for path in row.keys)
        for key in row.chat
    }
    found = {
        InChat(
            canonical(option.chat.name),
            frozenset(map(canonical, option.chat.aliases)) - {canonical(option.chat.name)},
            option.chat.scope,
        )
        for option in OPTIONS
        if option.chat is not None and option.id not in ELSEWHERE
    }
    assert len(expected) >= 20
    assert found == expected


@needs_page
def test_keys_of_a_back_end() -> None:
    described = {name: row for _, head, row in tables() if head[0].startswith("Key") for name in names_of(row[0])}
    options = {option.path: option for option in BackendOptions.options}
    ours = {"sandbox"}  # the specification leaves it open; docs/decisions/0016-sandbox.md
    assert described.keys() | {key for _, key, _ in of_one_back_end()} | ours == options.keys()
    for path, row in described.items():
        if path in options:
            assert set(options[path].aliases) == set(quoted(inside_and_outside(row[0])[0])), path
            assert list(disagreements(options[path], row[1])) == [], path


def of_one_back_end() -> list[tuple[str, str, Row]]:
    """The rows of `backends.<built-in id>.<key>`."""
    found = [(path.split("."), row) for row in ROWS for path in row.paths if path.startswith("backends.")]
    return [(parts[1], parts[2], row) for parts, row in found if parts[1] in BUILT_IN]


@needs_page
def test_variables_of_one_back_end() -> None:
    found = {id: dict(built_in.option_env) for id, built_in in BUILT_IN.items() if built_in.option_env}
    described: dict[str, dict[str, str]] = {}
    for id, key, row in of_one_back_end():
        (described.setdefault(id, {})[key],) = row.env
    assert described == found


def names_of(cell: str) -> tuple[str, ...]:
    return quoted(inside_and_outside(cell)[1])


@needs_page
def test_names_of_providers() -> None:
    per_provider = {row.title.partition(": ")[2]: row for row in ROWS if row.title.startswith("Per provider")}
    keys = {name for built_in in BUILT_IN.values() for name in built_in.key_env}
    assert keys == set(per_provider["key"].env)
    assert {built_in.key_flag for built_in in BUILT_IN.values()} - {""} == set(per_provider["key"].flags)
    assert {built_in.url_env for built_in in BUILT_IN.values()} - {""} == set(per_provider["URL"].env)
    assert {built_in.url_flag for built_in in BUILT_IN.values()} - {""} == set(per_provider["URL"].flags)


@needs_page
def test_entries_of_routes() -> None:
    named = {path.removeprefix("failover_routes.<name>.") for row in ROWS for path in row.paths}
    assert {option.path for option in RouteOptions.options} <= named
    assert RouteOptions.options[0].kind.spellings == {"ordered": "m"}


@needs_page
def test_entries_of_rate_limits() -> None:
    row = next(row for row in ROWS if row.paths and row.paths[0].startswith("rate_limits."))
    entries = {option.path: option for option in RateLimitEntryOptions.options}
    assert {path.removeprefix("rate_limits.<key>.") for path in row.paths} == entries.keys()
    assert entries["time_window"].default == 60 and "window 60" in row.type
    assert STANDS_FOR.keys() == set(row.aliases)
    assert {name for alias in row.aliases for name in declared()[alias].env} == set(row.env)


BASES: Final = {
    "int": {"int"},
    "float": {"float"},
    "bool": {"bool"},
    "str": {"str", "choice"},
    "url": {"url", "str"},
    # Records stand in the row of the file that may hold them instead.
    "path": {"path", "records"},
    "list": {"list", "keys", "records"},
    "id": {"str"},
}
NUMBER: Final = r"(-?\d+(?:\.\d+)?)"


def disagreements(option: Option, text: str) -> Iterator[str]:
    """What the words of a row say differently from the declaration."""
    kind = option.kind
    word = re.match(r"[a-z]+", text)
    # A row of several keys lists their types in turn, so that its first word is only the first one's.
    if word and word[0] in BASES and "; " not in text and kind.base not in BASES[word[0]]:
        alternative = re.match(r"[a-z]+ or [a-z]+|str, list|bool true; int|int none; bool|bool, false; text", text)
        if alternative is None:
            yield f"type {kind.base}"
    if kind.base in {"int", "float"} and len(option.path) and not re.search(r";|/", text):
        text = text.replace("port+1", "")
        bounds = text.partition(", ")[2] if option.default is None else text.partition(", ")[2].partition(", ")[2]
        # A bound that is another option is a rule between two of them.
        if match := re.search(rf"{NUMBER}-{NUMBER}(?![a-z])", bounds):
            if (kind.minimum, kind.maximum) != (float(match[1]), float(match[2])):
                yield f"range {kind.minimum} to {kind.maximum}"
        elif match := re.search(rf"≥\s?{NUMBER}", bounds):
            if kind.minimum != float(match[1]):
                yield f"least value {kind.minimum}"
        elif (match := re.search(rf">{NUMBER}", bounds)) and kind.above != float(match[1]):
            yield f"above {kind.above}"
    match option.default:
        case bool() as default:
            if not re.search(str(default).lower(), text):
                yield f"default {default}"
        case int() | float() as default:
            if not re.search(rf"(?<![\d.]){default:g}(?:\.0)?(?![\d.]\d)", text.replace("_", "")) and not re.search(
                rf"(?<!\d){int(default)}(?!\d)", text
            ):
                yield f"default {default:g}"
        case str() as default:
            text = text.replace("<version>", __version__)
            stated = text.rstrip("` ").endswith(default) or f"; {default}" in text or f"`{default}`, " in text
            if kind.base == "choice" and not stated:
                yield f"default {default}"
            if kind.base == "str" and default not in text and "format" not in option.path:
                yield f"default {default}"
    if kind.base == "choice" and not text.startswith(
        "as in "
    ):  # the overrides of the planning phase: see their own test
        for choice in kind.choices:
            # The modes of an identity are named in its paragraph (REQ-09).
            if choice not in text and "back-end table" not in text and not option.path.startswith("identity."):
                yield f"choice {choice}"
