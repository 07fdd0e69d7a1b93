"""What `!/max`, `!/medium`, `!/low` and `!/no-think` mean per model (REQ-03): the options, their reading and the look-up.

Owns the entries that users write and the built-in meaning of a mode. Must not know sessions and requests: who is in which mode, and
what becomes of a request, is the business of `session_sampling`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import re2  # type: ignore[import-untyped]  # it brings no stubs

from llm_proxy.config import Settings
from llm_proxy.config.document import Node
from llm_proxy.config.kinds import Kind, Mismatch
from llm_proxy.config.maps import check_budget
from llm_proxy.config.options import Content, OptionGroup, option
from llm_proxy.conversation.request import EFFORTS, Effort, Reasoning
from llm_proxy.features.reasoning import wanted

MODES: Final = ("high", "medium", "low", "none")
_BUILT_IN: Final[Mapping[str, Effort]] = {"high": "high", "medium": "medium", "low": "low", "none": "none"}


class Mode(msgspec.Struct, frozen=True):
    """What a mode does to a request; None and "" where the user says nothing. The budget is in tokens: -1 dynamic, 0 off."""

    max_reasoning_tokens: int | None = None
    reasoning_effort: Effort | None = None
    user_prompt_prefix: str = ""
    user_prompt_suffix: str = ""
    temperature: float | None = None
    top_p: float | None = None

    @property
    def reasoning(self) -> Reasoning | None:
        """None: the mode leaves to the request how much the model thinks."""
        return wanted(self.max_reasoning_tokens, self.reasoning_effort)


class ReasoningAlias(msgspec.Struct, frozen=True):
    """The modes of the models that `model` matches: a name, or a pattern with `*`, of `backend:model` or of the model alone."""

    model: str
    modes: dict[str, Mode] = {}


def built_in(mode: str) -> Mode:
    """A mode where no entry says otherwise."""
    return Mode(reasoning_effort=_BUILT_IN[mode])


# Reading


_FIELDS: Final[Mapping[str, Kind]] = {
    "max_reasoning_tokens": Kind("int", check=check_budget),
    "reasoning_effort": Kind("choice", choices=EFFORTS, spellings={"maximum": "max"}),
    "user_prompt_prefix": Kind("str"),
    "user_prompt_suffix": Kind("str"),
    "temperature": Kind("float", minimum=0, maximum=2),
    "top_p": Kind("float", minimum=0, maximum=1),
}


def read_aliases(node: Node) -> tuple[ReasoningAlias, ...]:
    """The entries of a list. Raises Mismatch."""
    if node.value is None:
        return ()
    if not isinstance(node.value, list):
        raise Mismatch("a list of entries with `model` and `modes`", node)
    return tuple(_read_entry(item) for item in node.value)


def read_file(node: Node) -> tuple[ReasoningAlias, ...]:
    """The entries of a file. Raises Mismatch."""
    members = _members(node, ("reasoning_alias_settings",), "the file")
    given = members.get("reasoning_alias_settings")
    return () if given is None else read_aliases(given)


def _read_entry(node: Node) -> ReasoningAlias:
    members = _members(node, ("model", "modes"), "an entry")
    name = members.get("model")
    if name is None:
        raise Mismatch("a map with `model`", node)
    if not isinstance(name.value, str) or not name.value.strip() or not name.value.isprintable():
        raise Mismatch("the name of a model, or a pattern with `*`, as model", name)
    modes = members.get("modes", Node({}, node.place))
    return ReasoningAlias(
        name.value.strip(), {mode: _read_mode(mode, given) for mode, given in _members(modes, MODES, "modes").items()}
    )


def _read_mode(mode: str, node: Node) -> Mode:
    found: dict[str, Any] = {}
    for field, given in _members(node, tuple(_FIELDS), f"modes.{mode}").items():
        if given.value is None:
            continue
        kind = _FIELDS[field]
        if kind.base == "str":
            # Prefixes may well have line breaks, which options do not.
            if not isinstance(given.value, str):
                raise Mismatch(f"text in quotes as modes.{mode}.{field}", given)
            found[field] = given.value
            continue
        try:
            found[field] = kind.read(given, Path())
        except Mismatch as mismatch:
            raise Mismatch(f"{mismatch.expected} as modes.{mode}.{field}", given) from None
    return Mode(**found)


def _members(node: Node, known: Sequence[str], what: str) -> dict[str, Node]:
    """The members of a map that has no others than the known ones."""
    if node.value is None:
        return {}
    if not isinstance(node.value, dict):
        raise Mismatch(f"a map as {what}", node)
    for name, item in node.value.items():
        if name not in known:
            raise Mismatch(f"{' or '.join(known)} in {what}", Node(name, item.key_place or item.place))
    return node.value


class ReasoningAliasOptions(OptionGroup, title="Reasoning aliases"):
    reasoning_alias_settings: tuple[ReasoningAlias, ...] = option(
        (),
        reader=read_aliases,
        item="entries with `model` and `modes`",
        help="what !/max, !/medium, !/low and !/no-think mean per model; counts instead of the file",
    )
    reasoning_aliases_path: Path | None = option(
        None,
        env="REASONING_ALIASES_PATH",
        content=Content("reasoning_aliases.yaml", read_file),
        default_text="config/reasoning_aliases.yaml",
        help="file of reasoning_alias_settings",
    )


# Look-up


class ReasoningAliases:
    """The entries in force. The first one that matches a model counts; upper and lower case do not matter."""

    def __init__(self, entries: Sequence[ReasoningAlias]) -> None:
        self._entries = [(_pattern(entry.model), entry) for entry in entries]
        # Names of models come from clients: what is remembered of them is bounded.
        self.entry = lru_cache(maxsize=512)(self._entry)

    def _entry(self, backend: str, model: str) -> ReasoningAlias | None:
        names = (f"{backend}:{model}", model)
        return next((entry for pattern, entry in self._entries if any(map(pattern.fullmatch, names))), None)

    def mode(self, mode: str, backend: str, model: str) -> Mode:
        """What `mode` means for `model` at `backend`: its entry's word, else the built-in one."""
        entry = self.entry(backend, model)
        found = entry.modes.get(mode) if entry is not None else None
        if found is None:
            return built_in(mode)
        if mode == "none" and found.reasoning is None:
            # Without thinking is what the word says; an entry that only adds a prefix does not take that back.
            return msgspec.structs.replace(found, reasoning_effort="none")
        return found

    def effect(self, mode: str, backend: str, model: str) -> str:
        """What an entry makes of `mode` for this model, for people; "" where the built-in meaning holds."""
        entry = self.entry(backend, model)
        if entry is None or mode not in entry.modes:
            return ""
        found = self.mode(mode, backend, model)
        parts: list[str] = []
        match found.max_reasoning_tokens:
            case None:
                parts += [f"reasoning effort = {found.reasoning_effort}"] if found.reasoning_effort else []
            case -1:
                parts.append("reasoning budget = dynamic")
            case budget:
                parts.append(f"reasoning budget = {budget} tokens")
        for name in ("temperature", "top_p"):
            if (value := getattr(found, name)) is not None:
                parts.append(f"{name.replace('_', '-')} = {value:g}")
        for name, text in (("before", found.user_prompt_prefix), ("after", found.user_prompt_suffix)):
            if text:
                parts.append(f"{len(text)} characters {name} your last message")
        return f"{', '.join(parts) or 'nothing is changed'} (entry {entry.model} of the reasoning aliases)"


def aliases_of(settings: Settings) -> ReasoningAliases:
    """The list of the configuration, else that of the file."""
    path = "reasoning_alias_settings"
    if settings.source_of(path) != "default":
        return ReasoningAliases(settings.get(ReasoningAliasOptions).reasoning_alias_settings)
    content = settings.content("reasoning_aliases_path")
    return ReasoningAliases(cast("tuple[ReasoningAlias, ...]", content) if isinstance(content, tuple) else ())


def _pattern(text: str) -> Any:
    """RE2 is linear, however many stars a pattern has."""
    options = re2.Options()
    options.case_sensitive = False
    options.dot_nl = True
    return re2.compile(".*".join(map(re2.escape, text.split("*"))), options)
