"""More or less thinking by one word (CMD-17). What a mode means for a request is decided where requests are shaped."""

from __future__ import annotations

from typing import Final

from llm_proxy.commands.command import Command, Run, no_value
from llm_proxy.commands.desk import Desk
from llm_proxy.commands.grammar import Arguments
from llm_proxy.commands.values import MODES

_PURPOSES: Final = {
    "high": "let the model think much",
    "medium": "let the model think moderately",
    "low": "let the model think little",
    "none": "let the model answer without thinking",
}


def _choose(mode: str, name: str) -> Run:
    def run(desk: Desk, arguments: Arguments | None) -> str:
        no_value(desk, arguments, name)
        desk.session.choose("reasoning-mode", mode)
        effect = desk.mode_effect(mode) or f"reasoning effort = {mode}"
        return (
            f"Now active: reasoning-mode = {mode}, {effect}, also where a request asks for another. "
            f"Undo: {desk.prefix}unset(reasoning-mode)."
        )

    return run


COMMANDS: Final = tuple(
    Command(
        name=name,
        aliases=tuple(aliases),
        group="Reasoning",
        purpose=_PURPOSES[mode],
        forms=(name, *aliases),
        keys=("reasoning-mode",),
        examples=(name,),
        run=_choose(mode, name),
    )
    for mode, (name, *aliases) in MODES.items()
)
