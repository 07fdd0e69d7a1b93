"""Arguments of a call that arrive as values at JSON paths (`streamFunctionCallArguments`)."""

from __future__ import annotations

import re
from typing import Any

from llm_proxy.dialects.gemini.wire import Object, camel
from llm_proxy.wire import json as wire_json

_STEP = re.compile(r"""\.([^.\[\]]+)|\[(\d{1,4})\]|\[['"]([^'"\]]*)['"]\]""")
_MAX_STEPS = 64
_VALUES = ("numberValue", "boolValue", "nullValue")


class PartialArguments:
    """Puts the pieces together; pieces of one text at one path are joined."""

    def __init__(self, known: Any) -> None:
        self._root: Object = dict(known) if isinstance(known, dict) else {}
        self._texts: dict[str, list[str]] = {}
        self._order: dict[str, Any] = {}

    def add(self, pieces: Any) -> None:
        for raw in pieces if isinstance(pieces, list) else ():
            if not isinstance(raw, dict):
                continue
            piece = {camel(name): value for name, value in raw.items()}
            path = piece.get("jsonPath")
            if not isinstance(path, str):
                continue
            text = piece.get("stringValue")
            if isinstance(text, str):
                self._texts.setdefault(path, []).append(text)
                self._order.setdefault(path, None)
                continue
            for name in _VALUES:
                if name in piece:
                    self._order[path] = None if name == "nullValue" else piece[name]

    def text(self) -> str:
        """The arguments as JSON text. Linear: texts are joined once."""
        for path, value in self._order.items():
            steps = _steps(path)
            if steps:
                _put(self._root, steps, "".join(self._texts[path]) if path in self._texts else value)
        return wire_json.encode(self._root).decode()


def _steps(path: str) -> list[str | int]:
    steps: list[str | int] = []
    for match in _STEP.finditer(path.removeprefix("$")):
        name, index, quoted = match.groups()
        steps.append(int(index) if index is not None else name if name is not None else quoted)
    return steps if len(steps) <= _MAX_STEPS else []


def _put(root: Object, steps: list[str | int], value: Any) -> None:
    """Sets a value at a path, making objects and lists on the way; a path against the shape is ignored."""
    place: Any = root
    for position, step in enumerate(steps):
        last = position == len(steps) - 1
        fresh: Any = value if last else [] if isinstance(steps[position + 1], int) else {}
        if isinstance(step, int):
            if not isinstance(place, list) or step > len(place) + 64:
                return
            place.extend([None] * (step + 1 - len(place)))
            if last or place[step] is None:
                place[step] = fresh
        else:
            if not isinstance(place, dict):
                return
            if last or step not in place:
                place[step] = fresh
        place = place[step]
