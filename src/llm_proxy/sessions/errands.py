"""Requests that an agent makes beside the conversation: titles, classifiers, quota probes, memory upkeep.

They belong to the session but are no turns of it. Each agent's errands are told by that agent's own signs; whatever is
not surely an errand is a turn.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from llm_proxy.dialects.base import Opening

_TITLE_TOOLS = 2
# Six as recorded (0.24.4); one more in github.com/QwenLM/qwen-code, extractionAgentPlanner.ts.
_UPKEEP_TOOLS = 7
_FIRST_SENTENCE = 200


class _TurnMetadata(msgspec.Struct):
    thread_source: str = ""


_decode_metadata = msgspec.json.Decoder(_TurnMetadata).decode


def is_errand(agent: str, headers: Callable[[str], str], opening: Opening, model: str) -> bool:
    """`agent` as detected or remembered; `model` as the client names it."""
    match agent:
        case "codex":
            return _thread_source(headers("x-codex-turn-metadata")) == "thread_title"
        case "opencode" | "kilo":
            if headers("x-session-id").startswith("title-"):
                return True
            return len(opening.tools) <= _TITLE_TOOLS and _opens(opening.system, "you are a title generator")
        case "claude-code":
            return not opening.tools and (opening.json_demanded or opening.max_tokens == 1)
        case "gemini-cli":
            return not opening.tools and opening.json_demanded and "flash-lite" in model.lower()
        case "qwen-code":
            return len(opening.tools) <= _UPKEEP_TOOLS and _keeps_memory(opening.system)
        case "gptme":
            return not opening.tools and _asks_for_name(opening)
        case _:
            return False


def _thread_source(metadata: str) -> str:
    if not metadata:
        return ""
    try:
        return _decode_metadata(metadata).thread_source
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return ""


def _opens(texts: tuple[str, ...], phrase: str) -> bool:
    return any(text[:_FIRST_SENTENCE].lstrip().lower().startswith(phrase) for text in texts)


def _keeps_memory(system: tuple[str, ...]) -> bool:
    """Qwen Code's main prompt speaks of memory too, but far behind its opening."""
    if not system:
        return False
    beginning = system[0][:_FIRST_SENTENCE].lstrip().lower()
    return "memory" in beginning and not beginning.startswith("you are qwen code")


def _asks_for_name(opening: Opening) -> bool:
    """gptme: github.com/gptme/gptme, gptme/util/auto_naming.py, read 2026-11."""
    if not _opens(opening.system, "generate concise conversation titles"):
        return False
    asked = ("your task: create a ", "generate a descriptive name for this conversation")
    return any(_opens(opening.first_user, phrase) for phrase in asked)
