"""The names by which options are reached from the chat: found in any case, with `-` or `_`, with their aliases.

Owns names and the reading of values; which key may be changed by whom is the commands' business.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from llm_proxy.config.document import Node, Place, nearest
from llm_proxy.config.kinds import Mismatch
from llm_proxy.config.options import Option, OptionGroup


def canonical(name: str) -> str:
    """The form in which names of keys and commands are compared."""
    return name.strip().lower().replace("_", "-")


class ChatKeys:
    """The options with a name in chat, of all groups."""

    def __init__(self, groups: Sequence[type[OptionGroup]]) -> None:
        self._by_name: dict[str, Option] = {}
        self._options: list[Option] = []
        self._group_of: dict[str, type[OptionGroup]] = {}
        for group in groups:
            for option in group.options:
                if option.chat is not None:
                    self._options.append(option)
                    self._group_of[option.id] = group
                    for name in (option.chat.name, *option.chat.aliases):
                        self._by_name[canonical(name)] = option

    def __iter__(self) -> Iterator[Option]:
        return iter(self._options)

    def find(self, name: str) -> Option | None:
        return self._by_name.get(canonical(name))

    def group_of(self, option: Option) -> type[OptionGroup]:
        """The group that declares `option`."""
        return self._group_of[option.id]

    def nearest(self, name: str) -> str:
        """The known name most like `name`, or nothing."""
        return nearest(canonical(name), list(self._by_name)) or ""

    def read(self, option: Option, text: str, directory: Path = Path("/")) -> object:
        """The typed value of what was typed. Raises Mismatch with what was expected."""
        node = Node(text, Place("chat"), text=True)
        if option.kind.base == "json":
            try:
                value = msgspec.json.decode(text)
            except (msgspec.DecodeError, UnicodeDecodeError):
                raise Mismatch("a JSON object", node) from None
            if not isinstance(value, dict):
                raise Mismatch("a JSON object", node)
            return value
        return option.kind.read(node, directory)
