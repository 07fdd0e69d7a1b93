"""What the proxy says of itself and of this session: the banner and the state of the next message (CMD-09, CMD-18)."""

from __future__ import annotations

import math
from typing import Final

from llm_proxy.commands.command import Command, no_value
from llm_proxy.commands.desk import Desk
from llm_proxy.commands.grammar import Arguments
from llm_proxy.commands.values import key_of, show

_GROUP: Final = "Information"
_MOST_SHOWN: Final = 6
PRODUCT: Final = "LLM Interactive Proxy"


def greet(desk: Desk, arguments: Arguments | None) -> str:
    no_value(desk, arguments, "hello")
    project = desk.session.values.get("project")
    usable = sorted((facts for facts in desk.backends if facts.functional), key=lambda facts: facts.id)
    backends = [
        f"{facts.id} (K:{facts.keys}, M:{'?' if facts.models is None else len(facts.models)})" for facts in usable
    ]
    lines = [f"{PRODUCT} {desk.version}", f"Session: {desk.session.id}"]
    lines += [f"Project: {project}"] if project else []
    lines += [
        f"Functional back-ends: {', '.join(backends) or 'none'}",
        f"Current: {_target(desk)}",
        f"Commands begin with {desk.prefix} and {desk.prefix}help lists them.",
    ]
    return "\n".join(lines)


def _target(desk: Desk) -> str:
    choice = desk.choice()
    return f"back-end {choice.backend or 'none'}, model {choice.model or 'as requested'}"


def tell_status(desk: Desk, arguments: Arguments | None) -> str:
    no_value(desk, arguments, "status")
    session, choice = desk.session, desk.choice()
    totals = session.totals
    lines = [f"Session: {session.id}", f"Next message: {_target(desk)} ({choice.rule})"]
    lines += [f"One-off: {session.one_off}"] if session.one_off else []
    lines += [
        *_attempts(desk),
        f"Session values: {_values(desk) or 'none'}",
        f"Resting keys of {choice.backend or 'the back-end'}: {_resting(desk, choice.backend) or 'none'}",
        f"Used: {totals.prompt} input and {totals.completion} output tokens in {totals.requests} requests, "
        f"cost {totals.cost:.4f} USD",
        f"Context: {_context(totals.context, desk.context_window())}",
    ]
    return "\n".join(lines)


def _attempts(desk: Desk) -> list[str]:
    """What is tried, first to last. A list is cut: the page /internal/routing shows all of it."""
    outlook = desk.outlook()
    lines = [f"Attempts in order: {_cut(outlook.attempts, ', then ') or 'none'}"]
    return lines + ([f"Left out now: {_cut(outlook.left_out, '; ')}"] if outlook.left_out else [])


def _cut(phrases: tuple[str, ...], between: str) -> str:
    shown = between.join(phrases[:_MOST_SHOWN])
    rest = len(phrases) - _MOST_SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown


def _values(desk: Desk) -> str:
    values = desk.session.values
    keys = {key_of(option): option for option in desk.keys}
    return ", ".join(f"{key} = {show(keys[key].kind.show(value))}" for key, value in values.items() if key in keys)


def _resting(desk: Desk, backend: str) -> str:
    shown = []
    for key in desk.resting_keys(backend):
        model = f" for {key.model}" if key.model else ""
        shown.append(f"{key.name}{model} {key.state}, {math.ceil(key.seconds)} s")
    return "; ".join(shown)


def _context(used: int, window: int) -> str:
    if not window:
        return f"{used} tokens, limit unknown"
    return f"{used} of {window} tokens ({100 * used / window:.0f} %)"


COMMANDS: Final = (
    Command(
        name="hello",
        group=_GROUP,
        purpose="show version, session, back-ends and the current choice",
        forms=("hello",),
        examples=("hello",),
        run=greet,
    ),
    Command(
        name="status",
        group=_GROUP,
        purpose="show where the next message would go, and what the session has used",
        forms=("status",),
        examples=("status",),
        run=tell_status,
    ),
)
