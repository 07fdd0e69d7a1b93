"""The kinds of value an option can have, and how text or parsed YAML becomes such a value.

Owns the wording of "expected …, got …". Knows nothing of option names, files, flags or variables: a value
comes in as a `Node`, a mismatch goes out with the node it concerns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from llm_proxy.config.document import Node, Problem, nearest
from llm_proxy.wire.secrets import Secret

Base = Literal[
    "bool",
    "int",
    "float",
    "str",
    "choice",
    "path",
    "url",
    "list",
    "keys",
    "headers",
    "models",
    "json",
    "routes",
    "defaults",
    "limit",
    "limits",
    "records",
]

BOOLEAN_WORDS: Final[Mapping[str, bool]] = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


class NamedKey(msgspec.Struct, frozen=True):
    """A credential and the name under which reports may speak of it."""

    name: str
    secret: Secret


class ModelLimits(msgspec.Struct, frozen=True):
    """What a configured model allows, in tokens and requests; None where the configuration is silent."""

    context_window: int | None = None
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


class RouteSettings(msgspec.Struct, frozen=True):
    """A failover route (RT-07). Elements are `backend:model`, in the order in which they are tried."""

    policy: Literal["k", "m", "km", "mk"]
    elements: tuple[str, ...] = ()


class RateLimit(msgspec.Struct, frozen=True):
    """At most `limit` requests within any `time_window` seconds (OPS-12)."""

    limit: int
    time_window: float = 60.0


class ModelDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """What fills gaps for one model (CFG-10); None where the configuration is silent. Times in seconds."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    reasoning_effort: str | None = None
    thinking_budget: int | None = None
    generation_config: Mapping[str, Any] | None = None
    limits: ModelLimits = ModelLimits()
    loop_detection_enabled: bool | None = None
    tool_loop_detection_enabled: bool | None = None
    tool_loop_detection_max_repeats: int | None = None
    tool_loop_detection_ttl_seconds: int | None = None
    tool_loop_detection_mode: str | None = None


class Mismatch(Exception):
    """A value that does not fit: what was expected, and the node that was found instead."""

    def __init__(self, expected: str, node: Node) -> None:
        super().__init__(expected)
        self.expected = expected
        self.node = node


DATA_FILE: Final = "a file of the data directory"
DATABASE: Final = "a file, a directory or the address of a database"
"""A path that may be an address instead: its value is text, for which `store/ledger` finds the database."""
"""The `item` of a path that stays relative when it is: its room looks for it in the data directory (CFG-02)."""


class Kind(msgspec.Struct, frozen=True):
    """Type, range and spellings of one option."""

    base: Base
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    unit: str = ""
    choices: tuple[str, ...] = ()
    spellings: Mapping[str, str] = {}
    words: tuple[str, ...] = ()
    secret: bool = False
    optional: bool = False
    item: str = "text"
    check: Callable[[str], str | None] | None = None
    reader: Callable[[Node], object] | None = None
    """Of `records`, and of a map with a form of its own: makes the value, or raises `Mismatch`."""

    @property
    def expected(self) -> str:
        """The kind in words, as error messages and the reference say it."""
        match self.base:
            case "bool":
                text = "true or false"
            case "int" | "float":
                text = self._expected_number()
            case "choice":
                text = "one of " + ", ".join(self.choices)
            case "list":
                text = f"a list of {self.item}"
            case "keys":
                text = "a key, a list of keys, or a map from name to key"
            case "headers":
                text = "a map from header name to text"
            case "models":
                text = "a list of model names, or a map from model name to its limits"
            case "json":
                text = "a map" if self.item == "text" else f"a map from {self.item}"
            case "routes":
                text = "a map from name to policy and elements"
            case "defaults":
                text = "a map from model to its defaults"
            case "limit":
                text = "a map with `limit` and `time_window`"
            case "limits":
                text = "a map from `default`, `backend:<id>`, `model:<backend:model>` or `client:<key name>` to a limit"
            case "records":
                text = f"a list of {self.item}"
            case "url":
                text = "an http or https URL"
            case "path":
                text = "a path"
            case "str":
                text = "text"
        return text + "".join(f" or {word}" for word in self.words)

    def _expected_number(self) -> str:
        noun = "a whole number" if self.base == "int" else "a number"
        if self.unit:
            noun += f" of {self.unit}"
        match self.minimum, self.above, self.maximum:
            case float() | int() as low, _, float() | int() as high:
                return f"{noun} from {low:g} to {high:.12g}"
            case float() | int() as low, _, None:
                return f"{noun} ≥ {low:g}"
            case _, float() | int() as low, None:
                return f"{noun} > {low:g}"
            case _:
                return noun

    def read(self, node: Node, directory: Path) -> object:
        """The typed value of `node`; relative paths are taken from `directory`. Raises `Mismatch`."""
        if node.value is None and self.optional:
            return None
        match self.base:
            case "list":
                return self._read_list(node)
            case "keys":
                return read_keys(node, "key")
            case "headers":
                return _read_headers(node)
            case "models":
                return _read_models(node)
            case "json" if self.reader is not None:
                return self.reader(node)
            case "json":
                if not isinstance(node.value, dict):
                    raise Mismatch(self.expected, node)
                return plain(node)
            case "records":
                assert self.reader is not None
                return self.reader(node)
            case "limit":
                return _read_rate_limit(node)
            case "routes" | "defaults" | "limits":
                raise TypeError("these maps are merged by key, which is the business of config/maps.py")
            case _:
                return self._read_scalar(node, directory)

    def _read_scalar(self, node: Node, directory: Path) -> object:
        value = node.value
        if isinstance(value, str) and value.lower() in self.words:
            return value.lower()
        match self.base:
            case "bool":
                return self._read_bool(node)
            case "int" | "float":
                return self._read_number(node)
        if not isinstance(value, str):
            raise Mismatch(self.expected + (", in quotes" if isinstance(value, int | float) else ""), node)
        if _has_control(value):
            raise Mismatch(f"{self.expected} without control characters", node)
        match self.base:
            case "choice":
                word = value.strip().lower()
                word = self.spellings.get(word, word)
                if word not in self.choices:
                    raise Mismatch(self.expected, node)
                return word
            case "path":
                path = _read_path(node, self.expected)
                if self.item == DATABASE:
                    return value if "://" in value else str(directory / path)
                return path if self.item == DATA_FILE else directory / path
            case "url":
                value = read_url(node)
        if self.check is not None and (complaint := self.check(value)):
            raise Mismatch(complaint, node)
        return Secret(value) if self.secret else value

    def _read_bool(self, node: Node) -> bool:
        match node.value:
            case bool() as value:
                return value
            case str() as text if text.lower() in BOOLEAN_WORDS and (node.text or text not in "01"):
                return BOOLEAN_WORDS[text.lower()]
        raise Mismatch(self.expected, node)

    def _read_number(self, node: Node) -> float:
        value = node.value
        if isinstance(value, str) and node.text:
            value = _number_of(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Mismatch(self.expected, node)
        if self.base == "int" and not isinstance(value, int):
            raise Mismatch(self.expected, node)
        try:
            finite = math.isfinite(value)
        except OverflowError:  # a whole number of hundreds of digits
            finite = False
        if not finite or not self._within(value):
            raise Mismatch(self.expected, node)
        if self.check is not None and (complaint := self.check(str(value))):
            raise Mismatch(complaint, node)
        return value if self.base == "int" else float(value)

    def _within(self, value: float) -> bool:
        return (
            (self.minimum is None or value >= self.minimum)
            and (self.above is None or value > self.above)
            and (self.maximum is None or value <= self.maximum)
        )

    def _read_list(self, node: Node) -> tuple[str, ...]:
        entries: list[str] = []
        for item in listed(node, self.expected):
            if not isinstance(item.value, str) or not item.value or _has_control(item.value):
                raise Mismatch(self.item, item)
            if self.check is not None and (complaint := self.check(item.value)):
                raise Mismatch(complaint, item)
            entries.append(item.value)
        return tuple(dict.fromkeys(entries))

    def show(self, value: object) -> object:
        """`value` as plain JSON data for people: secrets are `***`."""
        match value:
            case Secret():
                return "***"
            case NamedKey():
                return f"{value.name}: ***"
            case Path():
                return str(value)
            case ModelLimits():
                return {name: limit for name, limit in msgspec.to_builtins(value).items() if limit is not None}
            case RouteSettings() | ModelDefaults() | RateLimit():
                return msgspec.to_builtins(value)
            case msgspec.Struct() if self.base == "records":
                return {name: self.show(member) for name, member in msgspec.structs.asdict(value).items()}
            case tuple():
                return [self.show(item) for item in value]
            case str() if self.base == "url" or self.item == DATABASE:
                return _without_password(value)
            case dict():
                hidden = self.base == "headers"
                return {name: "***" if hidden else self.show(item) for name, item in value.items()}
            case _:
                return value

    def schema(self) -> dict[str, object]:
        """The kind as JSON Schema."""
        text: dict[str, object] = {"type": "string"}
        match self.base:
            case "bool":
                found: dict[str, object] = {"type": "boolean"}
            case "int" | "float":
                found = {"type": "integer" if self.base == "int" else "number"}
                bounds = {"minimum": self.minimum, "exclusiveMinimum": self.above, "maximum": self.maximum}
                found |= {name: bound for name, bound in bounds.items() if bound is not None}
            case "choice":
                found = {"enum": [*self.choices, *self.spellings]}
            case "list":
                found = {"anyOf": [{"type": "array", "items": text}, text]}
            case "keys":
                named: dict[str, object] = {"type": "object", "additionalProperties": text}
                found = {"anyOf": [text, {"type": "array", "items": text}, named]}
            case "headers":
                found = {"type": "object", "additionalProperties": text}
            case "models":
                limits: dict[str, object] = {"type": ["object", "null"]}
                known: dict[str, object] = {"type": "object", "additionalProperties": limits}
                found = {"anyOf": [{"type": "array", "items": text}, known]}
            case "json" | "routes" | "defaults" | "limits":
                found = {"type": "object"}
            case "limit":
                members = {name: kind.schema() for name, kind in _RATE_LIMIT.items()}
                found = {"type": "object", "properties": members, "required": ["limit"], "additionalProperties": False}
            case "records":
                found = {"type": "array", "items": {"type": "object"}}
            case "url":
                found = {"type": "string", "format": "uri"}
            case _:
                found = text
        if self.words:
            found = {"anyOf": [found, {"enum": list(self.words)}]}
        return {"anyOf": [found, {"type": "null"}]} if self.optional else found


def listed(node: Node, expected: str) -> list[Node]:
    """The entries of a list; text from a flag or a variable is split at commas, other text is one entry."""
    match node.value:
        case None:
            return []
        case list() as items:
            return items
        case str() as text if node.text:
            parts = [part.strip() for part in text.strip().removeprefix("[").removesuffix("]").split(",")]
            return [Node(part, node.place, text=True) for part in parts if part]
        case str():
            return [node]
    raise Mismatch(expected, node)


def read_keys(node: Node, prefix: str) -> tuple[NamedKey, ...]:
    """Keys with their names: map keys, else `<prefix>#<position>`. Equal values count once."""
    expected = "a key, a list of keys, or a map from name to key"
    if isinstance(node.value, dict):
        named = list(node.value.items())
    else:
        named = [(f"{prefix}#{position}", item) for position, item in enumerate(listed(node, expected), 1)]
    found: dict[str, NamedKey] = {}
    for name, item in named:
        if item.value is None:
            continue
        if not isinstance(item.value, str):
            raise Mismatch("a key as text, in quotes", item)
        if value := read_key(item):
            found.setdefault(value, NamedKey(name, Secret(value)))
    return tuple(found.values())


def read_key(node: Node) -> str:
    """The bare key in a text node: blanks and quotes around it removed; empty when nothing is left."""
    value = unquote(str(node.value))
    if _has_control(value) or not value.isascii():
        raise Mismatch("a key without control characters", node)
    return value


def _read_path(node: Node, expected: str) -> Path:
    """The path with `~` resolved. Raises Mismatch also for one that no file system can hold."""
    value = str(node.value)
    if not value or any(len(part.encode("utf-8", "replace")) > 255 for part in value.split("/")):
        raise Mismatch(expected, node)
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise Mismatch(f"{expected} of a user of this machine", node) from None


def read_url(node: Node) -> str:
    """An absolute http(s) URL without a trailing slash, its path kept as given."""
    from urllib.parse import urlsplit

    value = str(node.value).strip()
    complaint = Mismatch("an http or https URL", node)
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise complaint from None
    if parts.scheme not in {"http", "https"} or not host or " " in value or parts.query or parts.fragment:
        raise complaint
    return value.rstrip("/")


def unquote(text: str) -> str:
    """`text` without surrounding blanks and one pair of quotes."""
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip()
    return text


def plain(node: Node) -> object:
    """A node and everything below it as plain JSON data."""
    match node.value:
        case dict() as members:
            return {name: plain(member) for name, member in members.items()}
        case list() as items:
            return [plain(item) for item in items]
        case scalar:
            return scalar


def as_yaml(value: object) -> str:
    """Plain data in one line of YAML."""
    if isinstance(value, str) and _PLAIN_SCALAR.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return msgspec.json.encode(value).decode()


_PLAIN_SCALAR: Final = re.compile(r"[A-Za-z_./][A-Za-z0-9_./-]*")
_WORDS: Final = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


def show_found(node: Node) -> str:
    """What was found, for the end of an error message."""
    match node.value:
        case None:
            return "nothing"
        case dict():
            return "a map"
        case list():
            return "a list"
        case bool() as value:
            return "true" if value else "false"
        case str() as text:
            text = _without_password(text)
            shown = text if len(text) <= 60 else text[:57] + "…"
            return msgspec.json.encode(shown).decode()
        case number:
            return str(number)


def named_in(
    node: Node, path: str, known: Collection[str], problems: list[Problem], prefix: str = ""
) -> Iterator[tuple[str, Node]]:
    """Name and value of what `node` says at `path`, a map of maps or of dotted names; a null says nothing. What is not `known` is a problem."""
    if node.value is None:
        return
    if not isinstance(node.value, dict):
        where = f"{path}.{prefix}".removesuffix(".")
        problems.append(Problem(node.place, f"{where}: expected a map, got {show_found(node)}"))
        return
    for name, member in node.value.items():
        here = prefix + name
        if here in known:
            yield here, member
        elif any(one.startswith(f"{here}.") for one in known):
            yield from named_in(member, path, known, problems, f"{here}.")
        else:
            near = nearest(here, known)
            hint = f", did you mean {path}.{near}" if near else ""
            problems.append(Problem(member.key_place or member.place, f"unknown key {path}.{here}{hint}"))


def _without_password(url: str) -> str:
    """The text with `***` for what stands between `//` and `@`, and for an address's query."""
    head, slashes, rest = url.partition("//")
    if not slashes:
        return url
    rest, mark, _ = rest.partition("?")
    before, at, host = rest.rpartition("@")
    return f"{head}{slashes}{'***' if at else before}{at}{host}{'?***' if mark else ''}"


def _number_of(text: str) -> float | None:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return None


def _has_control(text: str) -> bool:
    return any(ord(character) < 32 or ord(character) == 127 for character in text)


def _read_headers(node: Node) -> dict[str, str]:
    expected = "a map from header name to text"
    if not isinstance(node.value, dict):
        raise Mismatch(expected, node)
    headers: dict[str, str] = {}
    for name, item in node.value.items():
        if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            raise Mismatch("a header name of letters, digits, '-' and '_'", item)
        if not isinstance(item.value, str) or _has_control(item.value) or not item.value.isascii():
            raise Mismatch("a header value as printable text, in quotes", item)
        headers[name] = item.value
    return headers


def _read_models(node: Node) -> dict[str, ModelLimits]:
    expected = "a list of model names, or a map from model name to its limits"
    if not isinstance(node.value, dict):
        models: dict[str, ModelLimits] = {}
        for item in listed(node, expected):
            if not isinstance(item.value, str) or not item.value:
                raise Mismatch("a model name as text", item)
            models[item.value] = ModelLimits()
        return models
    return {name: _read_limits(item) for name, item in node.value.items()}


def _read_limits(node: Node) -> ModelLimits:
    if node.value is None:
        return ModelLimits()
    if not isinstance(node.value, dict):
        raise Mismatch("a map with `limits`", node)
    for name, item in node.value.items():
        if name not in {"limits", "capabilities", "metadata"}:
            raise Mismatch("`limits`, `capabilities` or `metadata`", Node(name, item.key_place or item.place))
    limits = node.value.get("limits")
    if limits is None or limits.value is None:
        return ModelLimits()
    if not isinstance(limits.value, dict):
        raise Mismatch("a map of limits", limits)
    found: dict[str, int] = {}
    for name, item in limits.value.items():
        if name not in ModelLimits.__struct_fields__:
            expected = "one of " + ", ".join(ModelLimits.__struct_fields__)
            raise Mismatch(expected, Node(name, item.key_place or item.place))
        if isinstance(item.value, bool) or not isinstance(item.value, int) or item.value < 1:
            raise Mismatch("a whole number ≥ 1", item)
        found[name] = item.value
    return ModelLimits(**found)


_RATE_LIMIT: Final[Mapping[str, Kind]] = {
    "limit": Kind("int", minimum=1),
    "time_window": Kind("float", above=0, unit="seconds"),
}


def _read_rate_limit(node: Node) -> RateLimit:
    if not isinstance(node.value, dict):
        raise Mismatch("a map with `limit` and `time_window`", node)
    for name, item in node.value.items():
        if name not in _RATE_LIMIT:
            raise Mismatch("`limit` or `time_window`", Node(name, item.key_place or item.place))
    given = {name: item for name, item in node.value.items() if item.value is not None}
    if "limit" not in given:
        raise Mismatch("a map with `limit`", node)
    found: dict[str, Any] = {}
    for name, item in given.items():
        try:
            found[name] = _RATE_LIMIT[name].read(item, Path())
        except Mismatch as mismatch:
            raise Mismatch(f"{mismatch.expected} as `{name}`", item) from None
    return RateLimit(**found)
