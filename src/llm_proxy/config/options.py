"""How an option is declared: once, as a field of a group, with everything that reaches it.

A room subclasses `OptionGroup` and writes one `option(...)` per field. Flags, variables, YAML paths,
in-chat keys, `--help`, the JSON Schema and the reference are all made from these declarations. Must not
know any source of values.

    class LoopDetectionOptions(OptionGroup, path="loop_detection", title="Loop detection"):
        enabled: bool = option(True, env="LOOP_DETECTION_ENABLED", switch="loop-detection", help="…")
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import (
    Any,
    ClassVar,
    Final,
    Literal,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from llm_proxy.config.document import Node, Problem
from llm_proxy.config.folders import Folder
from llm_proxy.config.kinds import Base, Kind, Mismatch, ModelDefaults, ModelLimits, NamedKey, RateLimit, RouteSettings
from llm_proxy.wire.secrets import Secret

T = TypeVar("T")

NUMBERED: Final = 20
"""`NAME`, then `NAME_1` to `NAME_20`."""


class ChatKey(msgspec.Struct, frozen=True):
    """The name of an option in `!/set(...)`: of scope `session`, or `process`: saved, and for all."""

    name: str
    scope: Literal["session", "process"]
    aliases: tuple[str, ...] = ()


class Content(msgspec.Struct, frozen=True):
    """A YAML file that an option names: called `file` where the option says nothing, then looked for in `config/` beside the
    configuration file and in `./config/`. `read` makes a value of it or raises `Mismatch`. A wrong `optional` file costs a
    warning, not the start. A `text` file is no YAML: what `read` gets is all of it, as one text.
    """

    file: str
    read: Callable[[Node], Any]
    optional: bool = False
    text: bool = False


class Target(msgspec.Struct, frozen=True):
    """A value of the option at `path` that may name a back-end before `:` or `/`: that one counts as mentioned (BE-01).

    `known`: what stands before `:` must be the id of a back-end. `doubted`: it is most likely one, so a slip draws a warning.
    """

    path: str
    text: str
    known: bool = False
    doubted: bool = False


class ReadInPart(Exception):
    """Raised by a reader that has made `value` of a part only: `wrong` stops the start, `skipped` costs an error message."""

    def __init__(self, value: object, wrong: Sequence[Mismatch], skipped: Sequence[Problem]) -> None:
        super().__init__()
        self.value = value
        self.wrong = wrong
        self.skipped = skipped


class Option(msgspec.Struct, frozen=True):
    """One option with everything that reaches it.

    `path` is empty for the options that locate the files, and for those that exist in a session only (`chat_only`).
    """

    name: str
    path: str
    kind: Kind
    default: Any
    help: str
    aliases: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    env_off: tuple[str, ...] = ()
    env_numbered: tuple[str, ...] = ()
    env_standard: tuple[str, ...] = ()
    env_json: bool = False
    flags: tuple[str, ...] = ()
    hidden_flags: tuple[str, ...] = ()
    off_flags: tuple[str, ...] = ()
    hidden_off_flags: tuple[str, ...] = ()
    value_name: str = "VALUE"
    chat: ChatKey | None = None
    restart: bool = False
    default_text: str = ""
    content: Content | None = None
    folder: Folder | None = None
    implied_by: tuple[str, str] | None = None

    @property
    def id(self) -> str:
        """The path; for an option without one its first flag, or its name in chat."""
        if self.path or self.flags:
            return self.path or self.flags[0]
        return f"!/set({self.chat.name})" if self.chat else self.name

    @property
    def chat_only(self) -> bool:
        """Has no source but `!/set(...)`: its value lives in a session."""
        return not self.path and not self.flags and self.chat is not None

    @property
    def repeatable(self) -> bool:
        return self.kind.base in {"list", "records"}

    @property
    def keyed(self) -> bool:
        """A map whose entries have options of their own: sources are merged by key (`config/maps.py`)."""
        return self.kind.base in {"routes", "defaults", "limits"}

    @property
    def shown_default(self) -> str:
        """The default in words."""
        if self.default_text:
            return self.default_text
        shown = self.kind.show(self.default)
        match shown:
            case None:
                return "none"
            case bool():
                return "true" if shown else "false"
            case list() | dict():
                return ", ".join(map(str, shown)) or "empty"
            case _:
                return str(shown)

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path, *self.aliases) if self.path else ()

    @property
    def all_env(self) -> tuple[str, ...]:
        """Every variable as the reference names it."""
        numbered = tuple(f"{name}, {name}_1 … {name}_{NUMBERED}" for name in self.env_numbered)
        return numbered + self.env + tuple(f"{name}=true" for name in self.env_off) + self.env_standard


class _Declaration(msgspec.Struct):
    """What `option()` was given, until the class it stands in gives it a name and a type."""

    default: Any
    keywords: dict[str, Any]


def option(
    default: T,
    *,
    help: str,
    env: str | tuple[str, ...] = (),
    env_off: str | tuple[str, ...] = (),
    env_numbered: str | tuple[str, ...] = (),
    env_standard: tuple[str, ...] = (),
    env_json: bool = False,
    flag: str | tuple[str, ...] = (),
    hidden_flags: tuple[str, ...] = (),
    off_flag: str | tuple[str, ...] = (),
    hidden_off_flags: tuple[str, ...] = (),
    switch: str | None = None,
    at: str | None = None,
    aliases: tuple[str, ...] = (),
    chat: ChatKey | None = None,
    kind: Base | None = None,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    unit: str = "",
    spellings: Mapping[str, str] | None = None,
    words: tuple[str, ...] = (),
    item: str = "text",
    secret: bool = False,
    check: Callable[[str], str | None] | None = None,
    reader: Callable[[Node], object] | None = None,
    content: Content | None = None,
    folder: Folder | None = None,
    implied_by: tuple[str, str] | None = None,
    restart: bool = False,
    value_name: str | None = None,
    default_text: str = "",
) -> T:
    """Declares the option of a field. The field's annotation gives the type, `at` a path outside the group's.

    `env_off` names variables whose truth means false; `env_numbered` variables read as `NAME`, `NAME_1` …
    `NAME_20`; `env_standard` variables that another library honours; `env_json`: the variables hold a JSON
    list, and one that holds anything else is ignored with a warning. `switch="x"` makes `--enable-x` and
    `--disable-x`; `flag` alone on a boolean means true, `off_flag` false. `words` are accepted beside the
    type, `spellings` beside the choices. `check` returns what was expected instead, or None. `reader` makes the value of a
    field that is a tuple of structs; a flag given several times gives a list of texts. `implied_by` is the path of another
    option and a value: a flag or variable of that one's own gives this one the value, below what the same rank says of this one.
    """
    flags, off_flags = _many(flag), _many(off_flag)
    if switch:
        flags, off_flags = (f"--enable-{switch}", *flags), (f"--disable-{switch}", *off_flags)
    shape = {
        "base": kind,
        "minimum": minimum,
        "above": above,
        "maximum": maximum,
        "unit": unit,
        "spellings": spellings or {},
        "words": words,
        "secret": secret,
        "item": item,
        "check": check,
        "reader": reader,
    }
    declared = {
        "help": help,
        "aliases": aliases,
        "env": _many(env),
        "env_off": _many(env_off),
        "env_numbered": _many(env_numbered),
        "env_standard": env_standard,
        "env_json": env_json,
        "flags": flags,
        "hidden_flags": hidden_flags,
        "off_flags": off_flags,
        "hidden_off_flags": hidden_off_flags,
        "chat": chat,
        "restart": restart,
        "default_text": default_text,
        "content": content,
        "folder": folder,
        "implied_by": implied_by,
    }
    keywords = {"shape": shape, "declared": declared, "at": at, "value_name": value_name}
    # The class body holds the declaration only until __init_subclass__ replaces it by the default.
    return _Declaration(default, keywords)  # type: ignore[return-value]


@dataclass_transform(field_specifiers=(option,), kw_only_default=True, frozen_default=True)
class OptionGroup:
    """The options of one room: declared as fields, frozen and typed once loaded."""

    options: ClassVar[tuple[Option, ...]] = ()
    title: ClassVar[str] = ""

    def __init_subclass__(cls, *, path: str = "", title: str = "") -> None:
        hints = get_type_hints(cls)
        found: list[Option] = []
        for name, declared in list(vars(cls).items()):
            if isinstance(declared, _Declaration):
                made = _make(name, path, hints[name], declared)
                found.append(made)
                setattr(cls, name, made.default)
        cls.options = tuple(found)
        cls.title = title or path

    def __init__(self, **values: object) -> None:
        names = {made.name for made in self.options}
        if unknown := values.keys() - names:
            raise TypeError(f"{type(self).__name__} has no option {', '.join(sorted(unknown))}")
        vars(self).update({made.name: made.default for made in self.options} | values)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        shown = ", ".join(f"{made.name}={made.kind.show(getattr(self, made.name))!r}" for made in self.options)
        return f"{type(self).__name__}({shown})"

    def conflicts(self) -> Iterable[tuple[str, str]]:
        """Rules between options of the group: pairs of option path and what was expected there."""
        return ()

    def targets(self) -> Iterable[Target]:
        """The values that may name a back-end."""
        return ()


G = TypeVar("G", bound=OptionGroup)


def _many(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


_BASES: Final[Mapping[object, Base]] = {
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    Path: "path",
    Secret: "str",
    RateLimit: "limit",
}
_VALUE_NAMES: Final[Mapping[str, str]] = {
    "int": "N",
    "float": "NUMBER",
    "path": "PATH",
    "url": "URL",
    "str": "TEXT",
    "list": "ITEM",
    "keys": "KEY",
}


_MAPS: Final[Mapping[object, Base]] = {
    ModelLimits: "models",
    RouteSettings: "routes",
    ModelDefaults: "defaults",
    RateLimit: "limits",
}


def _make(name: str, prefix: str, hint: object, declared: _Declaration) -> Option:
    keywords = declared.keywords
    shape = dict(keywords["shape"])
    base, choices, optional = _read_annotation(hint, shape["words"])
    shape["base"] = shape["base"] or ("records" if shape["reader"] else base)
    shape["secret"] = shape["secret"] or Secret in get_args(hint) or shape["base"] == "keys"
    kind = Kind(**shape, choices=choices, optional=optional)
    path = keywords["at"] if keywords["at"] is not None else f"{prefix}.{name}" if prefix else name
    value_name = keywords["value_name"] or _VALUE_NAMES.get(kind.base, "VALUE")
    return Option(
        name=name,
        path=path,
        kind=kind,
        default=declared.default,
        value_name=value_name,
        **keywords["declared"],
    )


def _read_annotation(hint: object, words: tuple[str, ...]) -> tuple[Base, tuple[str, ...], bool]:
    """Base type, choices and whether None is allowed, of a field's annotation."""
    members = list(get_args(hint)) if get_origin(hint) in {Union, types.UnionType} else [hint]
    optional = type(None) in members
    members = [member for member in members if member is not type(None)]
    if words:
        members = [member for member in members if get_origin(member) is not Literal]
    if len(members) != 1:
        raise TypeError(f"an option cannot have the type {hint}")
    member = members[0]
    if get_origin(member) is Literal:
        return "choice", tuple(map(str, get_args(member))), optional
    if get_origin(member) is tuple:
        return ("keys" if NamedKey in get_args(member) else "list"), (), optional
    if get_origin(member) is dict:
        return _MAPS.get(get_args(member)[-1], "json"), (), optional
    if member not in _BASES:
        raise TypeError(f"an option cannot have the type {hint}")
    return _BASES[member], (), optional
