"""Reading an emitted event stream into frames, strictly: every deviation is a problem."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

DONE: Final = "[DONE]"
LINE_ENDS: Final = re.compile(rb"\r\n|\n|\r")


Frame = tuple[str | None, str | None]


def read_frames(raw: bytes, problems: list[str]) -> list[Frame]:
    """(event name, data) of each frame; comments are dropped."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        problems.append(f"not UTF-8: {error}")
    if raw and not re.search(rb"(\r\n\r\n|\n\n|\r\r)\Z", raw):
        problems.append("no blank line at the end")
    frames: list[Frame] = []
    name: str | None = None
    data: list[str] = []
    for line_bytes in LINE_ENDS.split(raw):
        line = line_bytes.decode(errors="replace")
        if not line:
            if name is not None or data:
                frames.append((name, "\n".join(data) if data else None))
            name, data = None, []
        elif line.startswith(":"):
            continue
        elif line.startswith("event: "):
            name = line[len("event: ") :]
        elif line.startswith("data: "):
            data.append(line[len("data: ") :])
            for odd in "\u2028\u2029\u0085":
                if odd in line:
                    problems.append(f"U+{ord(odd):04X} stands unescaped in a data line")
        else:
            problems.append(f"odd line {line[:80]!r}")
    return frames


def json_events(frames: list[Frame], problems: list[str]) -> list[tuple[str | None, dict[str, Any]]]:
    events = []
    for number, (name, data) in enumerate(frames):
        if data is None:
            problems.append(f"frame {number}: no data")
            continue
        if data == DONE:
            continue
        try:
            parsed = json.loads(data)
        except ValueError as error:
            problems.append(f"frame {number}: data is no JSON ({error})")
            continue
        if isinstance(parsed, dict):
            events.append((name, parsed))
        else:
            problems.append(f"frame {number}: data is no object")
    return events


def need_text(value: Mapping[str, Any], name: str, where: str, problems: list[str]) -> None:
    if not isinstance(value.get(name), str) or not value[name]:
        problems.append(f"{where}.{name} is {value.get(name)!r}, not a text")


def need_count(value: Mapping[str, Any], name: str, where: str, problems: list[str]) -> None:
    found = value.get(name)
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        problems.append(f"{where}.{name} is {found!r}, not a count")
