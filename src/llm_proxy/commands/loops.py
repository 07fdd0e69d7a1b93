"""Loop settings as commands of their own (CMD-15)."""

from __future__ import annotations

from typing import Final

from llm_proxy.commands.command import Command
from llm_proxy.commands.settings import short_form


def _switch(key: str, value: str, purpose: str, example: str) -> Command:
    form = f"{key}({value})"
    return Command(
        name=key,
        group="Loop detection",
        purpose=purpose,
        forms=(form, key),
        keys=(key,),
        examples=(f"{key}({example})", key),
        run=short_form(key, form, names=("value",)),
    )


COMMANDS: Final = (
    _switch("loop-detection", "true|false", "stop answers that repeat themselves, or not", "false"),
    _switch("tool-loop-detection", "true|false", "stop tool calls that repeat without progress, or not", "false"),
    _switch("tool-loop-max-repeats", "n", "set how many equal tool calls are a loop", "6"),
    _switch("tool-loop-ttl", "seconds", "set the time within which equal tool calls count", "300"),
    _switch(
        "tool-loop-mode",
        "break|chance_then_break|warn",
        "choose what happens when a loop of tool calls is found",
        "chance_then_break",
    ),
)
