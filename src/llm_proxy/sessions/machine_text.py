"""Which characters of a user message a person typed, and which ones a program put there.

Owns the tables of what clients add by themselves and the reading of one message by them. Knows no command and no protocol. Everything
is one pass or a few over the text, so twice the text is twice the work. When in doubt a character counts as not typed: a command
that is not read does less harm than one that nobody gave.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

Span = tuple[int, int]
"""Half-open: from the first character to the one after the last."""

BLOCKS: Final[Mapping[str, str]] = {
    "system-reminder": "Claude Code, Qwen Code, opencode, Cursor",
    "environment_details": "Cline, Roo, Kilo",
    "file_content": "Cline, Roo, Kilo",
    "folder_content": "Cline, Roo, Kilo",
    "url_content": "Cline, Roo, Kilo",
    "workspace_diagnostics": "Cline, Roo, Kilo",
    "explicit_instructions": "Cline, Roo, Kilo",
    "environment_context": "Codex",
    "permissions": "Codex",
    "skills_instructions": "Codex",
    "user_instructions": "Codex",
    "turn_aborted": "Codex",
    "session_context": "Gemini CLI, Qwen Code",
    "hook_context": "Gemini CLI, Qwen Code",
    "untrusted_context": "Gemini CLI, around what tools returned",
    "user_info": "Cursor",
    "attached_files": "Cursor",
    "open_and_recently_viewed_files": "Cursor",
    "project_layout": "Cursor",
    "git_status": "Cursor",
    "local-command-stdout": "Claude Code",
    "command-name": "Claude Code",
    "command-message": "Claude Code",
    "bash-stdout": "Claude Code",
    "bash-stderr": "Claude Code",
    "current_datetime": "Copilot CLI",
    "system_notification": "Copilot CLI",
    "context": "Continue, Copilot, Zed",
    "editor_context": "Continue, Copilot, Zed",
    "editorContext": "Copilot in VS Code",
    "reminderInstructions": "Copilot in VS Code",
    "environment_info": "Copilot in VS Code",
    "workspace_info": "Copilot in VS Code",
    "attachment": "Continue, Copilot, Zed",
    "attachments": "Copilot in VS Code",
    "system": "gptme",
    "tool_result": "agents that read tools from text",
    "function_results": "agents that read tools from text",
}
"""Tags whose inside nobody typed, and by whom. Compared without case, `-` and `_` alike."""

WRAPPERS: Final[Mapping[str, str]] = {
    "task": "Cline, Roo, Kilo",
    "feedback": "Cline, Roo, Kilo",
    "user_message": "Cline, Roo, Kilo",
    "answer": "Cline, Roo, Kilo",
    "user_query": "Cursor",
    "user_prompt": "several",
    "userRequest": "Copilot in VS Code",
}
"""Tags around what a person typed: the tags are the client's, the inside is not."""

RESULT_OPENINGS: Final[Mapping[str, str]] = {
    "observation:": "agents that follow the ReAct form",
    "<returncode>": "mini-swe-agent",
    "<output>": "mini-swe-agent",
}
"""How a text begins that holds what a tool returned, apart from `[tool] Result:` and `[tool for '…'] Result:` (Cline, Roo, Kilo)."""

OWN_MESSAGES: Final[Mapping[str, str]] = {"# agents.md instructions": "Codex"}
"""How a text begins that a program made as a whole."""

ASKING_TOOLS: Final = frozenset(
    ("attempt_completion", "ask_followup_question", "plan_mode_respond", "plan_mode_response", "act_mode_respond")
)
"""Tools whose result is what a person said. It follows in a text of its own, inside a wrapper (Cline, Roo, Kilo)."""

FRAMES: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "aider": (
        (),
        ("To suggest changes to a file you MUST ", "# *SEARCH/REPLACE block* Rules:", "# File editing rules:"),
    ),
    "mini-swe-agent": (("Please solve this issue:",), ("You can execute bash commands and edit files ",)),
}
"""Agent -> sentences that it puts before what was typed, and sentences that begin, as a paragraph, all that it puts after it."""

QUOTING_AGENTS: Final = frozenset(("opencode", "kilo"))
"""They put a prompt of several words given on their command line into double quotes."""

_UNKNOWN_AGENTS: Final = frozenset(("", "generic"))


class Survey(msgspec.Struct, frozen=True):
    """What the characters of one text are. All spans are sorted and do not overlap.

    typed    what commands may be read from
    machine  blocks and sentences of a program, to the tag that closes them
    frames   what a client puts around typed text: tags of wrappers, quotes, sentences

    What is in none of them was typed or pasted, but is quoted: fenced code, lines with `>`, what stands between blocks of one name.
    """

    typed: tuple[Span, ...]
    machine: tuple[Span, ...] = ()
    frames: tuple[Span, ...] = ()


def typed_spans(text: str, *, agent: str = "", last: bool = True) -> list[Span]:
    """The spans of one text that a person typed. `last`: no other text of the message follows."""
    return list(survey(text, agent=agent, last=last).typed)


def without_machine_text(text: str, agent: str = "") -> str:
    """What is left when the blocks and sentences that programs add are taken out. Commands and quoted text stay."""
    return keep_outside(text, _machine(text, agent))


def keep_outside(text: str, spans: Iterable[Span]) -> str:
    """`text` without the characters of `spans`, which are sorted."""
    if not (gaps := outside(spans, len(text))):
        return ""
    return "".join(text[start:end] for start, end in gaps)


def outside(spans: Iterable[Span], length: int) -> list[Span]:
    """The non-empty spans of a text of `length` that the sorted `spans` leave."""
    gaps: list[Span] = []
    position = 0
    for start, end in spans:
        if start > position:
            gaps.append((position, start))
        position = max(position, end)
    if position < length:
        gaps.append((position, length))
    return gaps


def survey_message(texts: Sequence[str], *, agent: str = "") -> list[Survey]:
    """The texts of one user message, in order.

    Agents that read tools from text send a result as two texts: its heading, then what the tool returned, with nothing to tell it by.
    So after a heading nothing of the message is typed, with one exception: the last text after the heading of a tool that
    asks a person, where the inside of wrappers is.
    """
    surveys: list[Survey] = []
    after_heading = False
    answers = _answers(texts)
    for number, text in enumerate(texts):
        after_heading = after_heading or result_heading(text) is not None
        if number in answers.values():
            surveys.append(_answer(text, agent))
        elif number in answers:
            surveys.append(Survey((), ((0, len(text)),)))
        else:
            seen = survey(text, agent=agent, last=number == len(texts) - 1)
            surveys.append(Survey((), seen.machine, seen.frames) if after_heading else seen)
    return surveys


def survey(text: str, *, agent: str = "", last: bool = True) -> Survey:
    """One text by itself."""
    whole = ((0, len(text)),)
    if result_heading(text) is not None:
        return Survey(())
    if _is_own_message(text) or (not last and agent not in _UNKNOWN_AGENTS and _fills_unknown_tag(text)):
        return Survey((), whole)
    tags = list(_tags(text))
    blocks = _blocks(text, tags)
    machine = _merged([*((block.start, block.end) for block in blocks), *_sentences(text, agent)])
    hidden = _merged([*machine, *((block.start, block.reach) for block in blocks)])
    frames = _quotes(text, hidden, agent) + _wrapper_tags(tags)
    quoted, frames = _quoted(text, hidden, sorted(frames))
    untyped = _merged([*hidden, *quoted, *frames])
    return Survey(tuple(outside(untyped, len(text))), tuple(machine), tuple(frames))


# Tool results and whole texts of programs


def result_heading(text: str) -> str | None:
    """The tool named where `text` begins as the result of a tool, "" for an unnamed one, None where it does not."""
    start = _first_character(text)
    opening = text[start : start + 16].lower()
    if any(opening.startswith(form) for form in RESULT_OPENINGS):
        return ""
    named = _HEADING.match(text, start)
    if named is None:
        return None
    if named[0][-1] == "]":
        ends = _RESULT.match(text, named.end()) is not None
    else:
        # What stands in the heading came from the model and may have line breaks and brackets of its own.
        ends = _HEADING_END.search(text, named.end()) is not None
    return named[1].lower() if ends else None


_HEADING: Final = re.compile(r"\[([A-Za-z][\w.:-]{0,99})[\] ]")
_RESULT: Final = re.compile(r" ?result:", re.IGNORECASE)
_HEADING_END: Final = re.compile(r"\] ?result:", re.IGNORECASE)
_NOT_BLANK: Final = re.compile(r"\S")


def _first_character(text: str) -> int:
    found = _NOT_BLANK.search(text)
    return found.start() if found else len(text)


def _answers(texts: Sequence[str]) -> dict[int, int]:
    """Heading -> answer, by number: bare headings of tools that ask a person, and the last text with content that follows each.

    The last one, because a tool that asks may have run a program before, whose output comes first.
    """
    found: dict[int, int] = {}
    asking = -1
    for number, text in enumerate(texts):
        heading = result_heading(text)
        if heading is not None:
            # A heading with more behind it holds its result itself.
            asking = number if heading in ASKING_TOOLS and text.rstrip()[-1:] == ":" else -1
        elif asking >= 0 and without_machine_text(text).strip():
            found[asking] = number
    return found


def _answer(text: str, agent: str) -> Survey:
    """What a person answered: the inside of its wrapper. The sentence around it is the agent's."""
    seen = survey(text, agent=agent)
    tags = [span for span in seen.frames if text[span[0]] == "<"]
    if len(tags) < 2:
        return Survey((), seen.machine, seen.frames)
    first, last = tags[0], tags[-1]
    typed = tuple((start, end) for start, end in seen.typed if start >= first[1] and end <= last[0])
    machine = _merged([*seen.machine, (0, first[0]), (last[1], len(text))])
    return Survey(typed, tuple(machine), tuple(span for span in seen.frames if first[0] <= span[0] <= last[0]))


def _is_own_message(text: str) -> bool:
    start = _first_character(text)
    opening = text[start : start + 32].lower()
    return any(opening.startswith(form) for form in OWN_MESSAGES)


def _fills_unknown_tag(text: str) -> bool:
    """Does one tag that no table names begin and end the text?"""
    stripped = text.strip()
    opening = _TAG.match(stripped)
    if opening is None or opening[1] or not stripped.endswith(">"):
        return False
    name = _canonical(opening[2])
    closing = _TAG.match(stripped, stripped.rfind("<"))
    return bool(closing and closing[1] and _canonical(closing[2]) == name and name not in _WRAPPERS)


# Tags


class _Tag(msgspec.Struct, frozen=True):
    """`end` is after its `>`, or the end of the text."""

    name: str
    start: int
    end: int
    closing: bool


class _Block(msgspec.Struct, frozen=True):
    """`end` is after the closing tag that fits. `reach` is after the last closing tag of this name in the text: what the block holds may
    come from anywhere, and could close the block itself, give commands, and open it again."""

    start: int
    end: int
    reach: int


def _canonical(name: str) -> str:
    return name.lower().replace("-", "_")


_BLOCKS: Final = frozenset(map(_canonical, BLOCKS))
_WRAPPERS: Final = frozenset(map(_canonical, WRAPPERS))
_TAG: Final = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9_-]{0,63})(?=[\s/>])")


def _tags(text: str) -> Iterable[_Tag]:
    """The tags that the tables name. An opening one of a single word stands at the start, after white space or after another tag, so
    that `Array<Context>` is none."""
    end = 0
    for found in _TAG.finditer(text):
        name = _canonical(found[2])
        if name not in _BLOCKS and name not in _WRAPPERS:
            continue
        start = found.start()
        if found[1] or "_" in name or start == 0 or text[start - 1] == ">" or text[start - 1].isspace():
            if end <= start:
                end = text.find(">", start) + 1 or len(text)
            yield _Tag(name, start, end, bool(found[1]))


def _blocks(text: str, tags: Sequence[_Tag]) -> list[_Block]:
    """The outermost blocks. One that is not closed goes to the end of the text."""
    reach = {tag.name: tag.end for tag in tags if tag.closing}
    blocks: list[_Block] = []
    name, start, depth = "", 0, 0
    for tag in tags:
        if not depth and (tag.closing or tag.name not in _BLOCKS):
            continue
        if not depth:
            name, start = tag.name, tag.start
        if tag.name != name:
            continue
        if tag.closing:
            depth -= 1
        elif text[tag.end - 2 : tag.end] != "/>":
            depth += 1
        if not depth:
            blocks.append(_Block(start, tag.end, max(tag.end, reach.get(name, 0))))
    if depth:
        blocks.append(_Block(start, len(text), len(text)))
    return blocks


def _wrapper_tags(tags: Sequence[_Tag]) -> list[Span]:
    return [(tag.start, tag.end) for tag in tags if tag.name in _WRAPPERS]


# Sentences and quotes that single agents add


def _sentences(text: str, agent: str) -> list[Span]:
    if agent not in FRAMES:
        return []
    heads, tails = FRAMES[agent]
    found: list[Span] = []
    start = _first_character(text)
    for head in heads:
        if text.startswith(head, start):
            found.append((0, start + len(head)))
    ends = [end for tail in tails if (end := text.find("\n\n" + tail)) >= 0]
    if ends:
        found.append((min(ends), len(text)))
    return found


def _quotes(text: str, hidden: Sequence[Span], agent: str) -> list[Span]:
    """The double quotes around all that is not machine text."""
    if agent not in QUOTING_AGENTS:
        return []
    kept = [(start, end) for start, end in outside(hidden, len(text)) if not text[start:end].isspace()]
    if len(kept) != 1:
        return []
    [(start, end)] = kept
    inner = text[start:end].strip()
    if len(inner) < 2 or not (inner[0] == inner[-1] == '"'):
        return []
    first = text.index('"', start)
    last = text.rindex('"', start, end)
    return [(first, first + 1), (last, last + 1)]


def _machine(text: str, agent: str) -> list[Span]:
    if _is_own_message(text):
        return [(0, len(text))]
    blocks = _blocks(text, list(_tags(text)))
    return _merged([*((block.start, block.end) for block in blocks), *_sentences(text, agent)])


# Fenced code and quoted lines

_LINE: Final = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")
_FENCE: Final = re.compile(r"`{3,}|~{3,}")
_BEFORE_FENCE: Final = re.compile(r"[ \t]*(?:(?:[-*+]|[0-9]{1,9}[.)])[ \t]+)*")


class _Fence(msgspec.Struct, frozen=True):
    mark: str
    length: int
    depth: int


def _quoted(text: str, hidden: Sequence[Span], frames: Sequence[Span]) -> tuple[list[Span], list[Span]]:
    """Fenced code and lines that begin with `>`, and those of `frames` that are not in fenced code.

    Hidden text is passed over as if it were not there: a fence that stands in it is none, and one that was opened before goes on behind
    it. A fence may also stand in a list, where it is indented further than CommonMark allows outside.
    """
    quoted: list[Span] = []
    kept: list[Span] = []
    fence: _Fence | None = None
    pending = 0
    for start, end in _lines(text, hidden):
        inside: list[Span] = []
        while pending < len(frames) and frames[pending][0] < end:
            if frames[pending][0] >= start:
                inside.append(frames[pending])
            pending += 1
        if fence is not None:
            quoted.append((start, end))
            if _closes(fence, text, start, end):
                fence = None
                kept += inside
            continue
        content = start
        for frame in inside:
            # What follows a tag at the beginning of a line begins the line for its reader.
            if text[content : frame[0]].strip(" \t"):
                break
            content = frame[1]
        fence = _opened(text, content, end)
        kept += inside if fence is None else [frame for frame in inside if frame[1] <= content]
        if fence is not None or text[content:end].lstrip(" \t").startswith(">"):
            quoted.append((content, end))
    return quoted, kept


def _lines(text: str, hidden: Sequence[Span]) -> Iterable[Span]:
    """The lines of what is not hidden; the piece after a hidden span begins a line."""
    for start, end in outside(hidden, len(text)):
        position = start
        while position < end:
            found = _LINE.match(text, position, end)
            assert found is not None
            stop = found.end() if found.end() > position else end
            yield position, stop
            position = stop


def _opened(text: str, start: int, end: int) -> _Fence | None:
    before = _BEFORE_FENCE.match(text, start, end)
    found = _FENCE.match(text, before.end(), end) if before else None
    if before is None or found is None or (found[0][0] == "`" and text.find("`", found.end(), end) >= 0):
        return None
    return _Fence(found[0][0], len(found[0]), len(before[0].expandtabs(4)))


def _closes(fence: _Fence, text: str, start: int, end: int) -> bool:
    line = text[start:end]
    stripped = line.lstrip(" \t")
    depth = len(line[: len(line) - len(stripped)].expandtabs(4))
    after = stripped.lstrip(fence.mark)
    if len(stripped) - len(after) < fence.length or depth > fence.depth + 3:
        return False
    rest = after.strip()
    # A client may close its wrapper right behind the fence.
    tag = _TAG.match(rest)
    return not rest or bool(tag and tag[1] and _canonical(tag[2]) in _WRAPPERS)


def _merged(spans: Iterable[Span]) -> list[Span]:
    """The same characters as sorted spans that do not touch."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        elif start < end:
            merged.append((start, end))
    return merged
