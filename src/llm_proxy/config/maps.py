"""Maps whose entries have options of their own: failover routes, model defaults and rate limits.

Owns these options and the reading of entries: sources are merged by key and then leaf by leaf, the strongest
first. Must not know which sources there are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from llm_proxy.config.document import Node, Place, Problem, nearest, parse_document
from llm_proxy.config.kinds import Base, Kind, Mismatch, named_in, plain, show_found
from llm_proxy.config.options import Option, OptionGroup, option

_ROUTE_NAME: Final = re.compile(r"[^\s,()\[\]{}<>]{1,64}")
_STRUCTURED: Final = frozenset(
    {"list", "keys", "headers", "models", "json", "routes", "defaults", "limit", "limits", "records"}
)

_LIMIT_FORMS: Final = ("backend", "model", "client")


def check_element(value: str) -> str | None:
    left, _, model = re.split(r"([:/])", value, maxsplit=1) if re.search("[:/]", value) else ("", "", "")
    return None if left and model.strip() else "`backend:model`"


class RouteOptions(OptionGroup, title="One failover route"):
    """The keys of `failover_routes.<name>`."""

    policy: Literal["k", "m", "km", "mk"] | None = option(
        None,
        spellings={"ordered": "m"},
        default_text="none, it must be given",
        help="order of attempts: k all keys of the first element, m each element once, km all keys of each "
        "element, mk key by key over all elements",
    )
    elements: tuple[str, ...] = option(
        (), item="`backend:model`", check=check_element, help="what is tried, the first element first"
    )


def check_budget(value: str) -> str | None:
    number = int(value)
    return None if number in (-1, 0) or 128 <= number <= 65536 else "-1 (dynamic), 0 (off) or 128 to 65536 tokens"


class ModelDefaultOptions(OptionGroup, title="Defaults of one model"):
    """The keys of `model_defaults.<model>`."""

    temperature: float | None = option(
        None, aliases=("reasoning.temperature",), minimum=0, maximum=2, help="sampling temperature"
    )
    top_p: float | None = option(None, aliases=("reasoning.top_p",), minimum=0, maximum=1, help="nucleus sampling")
    max_tokens: int | None = option(None, aliases=("reasoning.max_tokens",), minimum=1, help="longest answer in tokens")
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = option(
        None, aliases=("reasoning.reasoning_effort",), spellings={"maximum": "max"}, help="how much the model thinks"
    )
    thinking_budget: int | None = option(
        None,
        aliases=("reasoning.thinking_budget",),
        check=check_budget,
        help="tokens for thinking: -1 dynamic, 0 off",
    )
    generation_config: dict[str, Any] | None = option(
        None, aliases=("reasoning.generation_config",), help="merged into generationConfig of calls to Gemini"
    )
    context_window: int | None = option(
        None, at="limits.context_window", minimum=1, unit="tokens", help="input and output together"
    )
    max_input_tokens: int | None = option(
        None, at="limits.max_input_tokens", minimum=1, unit="tokens", help="largest input"
    )
    max_output_tokens: int | None = option(
        None, at="limits.max_output_tokens", minimum=1, unit="tokens", help="largest output"
    )
    requests_per_minute: int | None = option(None, at="limits.requests_per_minute", minimum=1, help="most calls")
    tokens_per_minute: int | None = option(
        None, at="limits.tokens_per_minute", minimum=1, unit="tokens", help="most tokens of all calls"
    )
    loop_detection_enabled: bool | None = option(None, help="stop answers that repeat themselves, for this model")
    tool_loop_detection_enabled: bool | None = option(
        None, help="stop tool calls that repeat without progress, for this model"
    )
    tool_loop_detection_max_repeats: int | None = option(
        None, aliases=("tool_loop_max_repeats",), minimum=2, help="equal tool calls that make a loop, for this model"
    )
    tool_loop_detection_ttl_seconds: int | None = option(
        None,
        aliases=("tool_loop_ttl_seconds",),
        minimum=1,
        unit="seconds",
        help="time within which equal calls of this model count",
    )
    tool_loop_detection_mode: Literal["break", "chance_then_break", "warn"] | None = option(
        None,
        aliases=("tool_loop_mode",),
        spellings={"block": "break", "chance_then_block": "chance_then_break", "chance": "chance_then_break"},
        help="what happens when a tool-call loop of this model is found",
    )


class RateLimitEntryOptions(OptionGroup, title="One rate limit"):
    """The keys of `rate_limits.<key>`."""

    limit: int | None = option(
        None, minimum=1, default_text="none, it must be given", help="most requests within the window"
    )
    time_window: float = option(60.0, above=0, unit="seconds", help="length of the sliding window")


ENTRY_OPTIONS: Final[Mapping[Base, type[OptionGroup]]] = {
    "routes": RouteOptions,
    "defaults": ModelDefaultOptions,
    "limits": RateLimitEntryOptions,
}

Leaves = dict[str, Node]
"""The members of one entry by the path of their option within it, aliases resolved and nesting removed."""


class Layer(msgspec.Struct):
    """What one source says of a map: entries by key, and where each key was written."""

    entries: dict[str, Leaves] = {}
    places: dict[str, Place] = {}

    def put(self, key: str, path: str, node: Node) -> None:
        self.entries.setdefault(key, {})[path] = node
        self.places.setdefault(key, node.place)


class Leaf(msgspec.Struct):
    """The value in force of one member of an entry, by its path there; `node` is None where it is the default."""

    path: str
    value: Any
    node: Node | None


def known_members(declared: Option) -> dict[str, Option]:
    """The options of an entry of the map `declared`, by path and alias."""
    return {path: member for member in ENTRY_OPTIONS[declared.kind.base].options for path in member.paths}


def read_layer(declared: Option, node: Node, prefix: str, problems: list[Problem], layer: Layer) -> None:
    """Adds to `layer` what a map of entries says. `prefix` stands before each key: `<id>:` in a back-end's own file."""
    if node.value is None:
        return
    if not isinstance(node.value, dict):
        text = f"{declared.path}: expected {declared.kind.expected}, got {show_found(node)}"
        problems.append(Problem(node.place, text))
        return
    for name, entry in node.value.items():
        key = prefix + name
        path = f"{declared.path}.{key}"
        place = entry.key_place or entry.place
        if complaint := check_key(declared, key):
            problems.append(Problem(place, f"{path}: expected {complaint}"))
            continue
        layer.places[key] = place
        layer.entries[key] = read_members(declared, entry, path, problems)


def check_key(declared: Option, key: str) -> str | None:
    """What was expected instead of `key`, or None."""
    if declared.kind.base == "routes":
        if _ROUTE_NAME.fullmatch(key) and key.isprintable():
            return None
        return "a name of 1 to 64 characters without blanks, commas and brackets"
    if declared.kind.base == "limits":
        return check_limit_key(key)
    return None if key.strip() and key.isprintable() else "the name of a model, or a pattern"


def check_limit_key(key: str) -> str | None:
    """What was expected instead of the key of a rate limit, or None; whether its back-end exists is not asked here."""
    form, mark, rest = key.partition(":")
    if key == "default" or (form in _LIMIT_FORMS and rest.strip() and key.isprintable()):
        return None
    expected = "`default`, `backend:<id>`, `model:<backend:model>` or `client:<key name>`"
    near = nearest(form, [*_LIMIT_FORMS, *([] if mark else ["default"])])
    return expected + (f", did you mean {near}{mark}{rest}" if near and form != near else "")


def read_members(declared: Option, entry: Node, path: str, problems: list[Problem]) -> Leaves:
    """The members of one entry; unknown ones and contradicting names are problems."""
    known = known_members(declared)
    found: Leaves = {}
    names: dict[str, str] = {}
    for here, member in named_in(entry, path, known, problems):
        option = known[here]
        earlier = found.setdefault(option.path, member)
        other = names.setdefault(option.path, here)
        if earlier is not member and plain(earlier) != plain(member):
            text = f"{path}.{here}: differs from {path}.{other}, which is the same option"
            problems.append(Problem(member.place, text))
    return found


def read_leaves(
    declared: Option, key: str, layers: Sequence[Layer], directory: Path, problems: list[Problem]
) -> dict[str, Leaf]:
    """The members of the entry `key` by option name; a value that does not fit is a problem wherever it stands."""
    found: dict[str, Leaf] = {}
    for member in ENTRY_OPTIONS[declared.kind.base].options:
        chosen: Leaf | None = None
        for layer in layers:
            node = layer.entries.get(key, {}).get(member.path)
            if node is None:
                continue
            try:
                node = with_structure(member.kind, node)
                value = member.kind.read(node, directory)
            except Mismatch as mismatch:
                text = f"{declared.path}.{key}.{member.path}: expected {mismatch.expected}"
                problems.append(Problem(mismatch.node.place, f"{text}, got {show_found(mismatch.node)}"))
                continue
            chosen = chosen or Leaf(member.path, value, node)
        found[member.name] = chosen or Leaf(member.path, member.default, None)
    return found


def with_structure(kind: Kind, node: Node) -> Node:
    """`node`, or the list or map that its text holds, where `kind` wants one. Raises `Mismatch`."""
    if not node.text or kind.base not in _STRUCTURED or str(node.value).lstrip()[:1] not in {"[", "{"}:
        return node
    trouble: list[Problem] = []
    parsed = parse_document(str(node.value), node.place.source, trouble)
    if parsed is None or trouble:
        raise Mismatch(kind.expected, node)
    return _at(parsed, node.place)


def _at(node: Node, place: Place) -> Node:
    """A copy whose nodes are all at `place`: positions within the text of a flag or variable say nothing."""
    match node.value:
        case dict() as members:
            return Node({name: _at(member, place) for name, member in members.items()}, place)
        case list() as items:
            return Node([_at(item, place) for item in items], place)
        case scalar:
            return Node(scalar, place)
