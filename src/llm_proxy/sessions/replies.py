"""In which form an agent takes a reply of the proxy as a finished turn, and a text dressed in that form.

A native tool call is written by the dialects; here it only gets its id. The texts of replies are not known here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from typing import Literal

import msgspec

from llm_proxy.dialects.base import Opening

FINISH_TOOL = "attempt_completion"
OUTPUT_FILE = "PROXY_OUTPUT.txt"
_TAGGED_AGENTS = frozenset(("cline", "roo", "kilo"))

Kind = Literal["plain", "tool_call", "tagged", "patch"]
Envelope = Literal["", "whole", "diff", "udiff", "patch"]


class ReplyForm(msgspec.Struct, frozen=True):
    """`tool_call`: a native call of `attempt_completion` with `{"result": text}`. `patch`: an edit in aider's edit
    format `envelope` that adds a file with the text; `fence` is how aider asked for its file listings."""

    kind: Kind
    envelope: Envelope = ""
    fence: str = "```"


PLAIN = ReplyForm("plain")

# What each edit format's prompt says: github.com/Aider-AI/aider, aider/coders/*_prompts.py, read 2026-11.
_ENVELOPES: tuple[tuple[str, Envelope], ...] = (
    ("*** Begin Patch", "patch"),
    ("*SEARCH/REPLACE", "diff"),
    ("*file listing*", "whole"),
    ("diff -U0", "udiff"),
)
_FENCE = re.compile(r"- Second line: opening (\S{1,20})")
_DIFF_MARK = re.compile(r"\s*(?:<{5,9} SEARCH|={5,9}\s*$|>{5,9} REPLACE)")


def form_of(style: str, agent: str, opening: Opening) -> ReplyForm:
    """The form for option `commands.reply_style`: `auto`, `plain`, or `patch`, which concerns aider alone."""
    if style == "plain":
        return PLAIN
    if style == "patch" and agent == "aider":
        return _patch_form(opening)
    if FINISH_TOOL in opening.tools:
        return ReplyForm("tool_call")
    if agent in _TAGGED_AGENTS and not opening.tools and _reads_tags(agent, opening):
        return ReplyForm("tagged")
    return PLAIN


def _reads_tags(agent: str, opening: Opening) -> bool:
    """Newer Cline and Kilo know no such tool; without native tools they end on plain text, as all do. Roo always
    read tags before it declared tools."""
    return agent == "roo" or any(FINISH_TOOL in text for text in opening.system)


def _patch_form(opening: Opening) -> ReplyForm:
    for text in opening.system:
        for phrase, envelope in _ENVELOPES:
            if phrase in text:
                found = _FENCE.search(text) if envelope == "whole" else None
                return ReplyForm("patch", envelope, found[1] if found else "```")
    return ReplyForm("patch", "patch")


def dressed(text: str, form: ReplyForm) -> str:
    """`text` as the client is to read it; the text itself for `plain` and `tool_call`."""
    match form.kind:
        case "tagged":
            return f"<attempt_completion><result>{escape(text, quote=False)}</result></attempt_completion>"
        case "patch":
            return _enveloped(text, form)
        case "plain" | "tool_call":
            return text


def _enveloped(text: str, form: ReplyForm) -> str:
    """A new file in aider's edit format. Aider cuts lines as `splitlines` does, so they are cut so here. A line that would
    end the edit too early gets a backslash."""
    lines = text.splitlines() or [""]
    match form.envelope:
        case "whole":
            closing = f"</{form.fence[1:]}" if form.fence.startswith("<") else form.fence
            marks = (form.fence, closing)
            kept = [f"\\{line}" if line.startswith(marks) else line for line in lines]
            return "\n".join((OUTPUT_FILE, form.fence, *kept, closing, ""))
        case "diff":
            kept = [f"\\{line}" if _DIFF_MARK.match(line) else line for line in lines]
            return "\n".join((OUTPUT_FILE, "```", "<<<<<<< SEARCH", "=======", *kept, ">>>>>>> REPLACE", "```", ""))
        case "udiff":
            added = [f"+{line}" for line in lines]
            return "\n".join(("```diff", "--- /dev/null", f"+++ {OUTPUT_FILE}", "@@ ... @@", *added, "```", ""))
        case _:
            added = [f"+{line}" for line in lines]
            return "\n".join(("*** Begin Patch", f"*** Add File: {OUTPUT_FILE}", *added, "*** End Patch", ""))


def call_id(dialect: str, new_id: Callable[[str], str]) -> str:
    """An id by which the proxy knows its own call again when the client sends it back; `new_id` adds the unique rest."""
    return new_id("toolu_proxy_" if dialect == "anthropic-messages" else "call_proxy_")
