"""Short forms of frequent choices: back-end, model, one message elsewhere, temperature, OpenAI address (CMD-12)."""

from __future__ import annotations

from typing import Final

from llm_proxy.commands.command import Command, only_value, wrong
from llm_proxy.commands.desk import CommandError, Desk
from llm_proxy.commands.grammar import Arguments
from llm_proxy.commands.places import check_model, doubt, functional, split, usable_backend
from llm_proxy.commands.settings import short_form

_GROUP: Final = "Back-end and model"
_ONE_OFF: Final = "oneoff(backend:model)"


def send_once(desk: Desk, arguments: Arguments | None) -> str:
    """The next message goes there, and the one after as before (RT-11). A second one replaces the first."""
    item = only_value(desk, arguments, {"oneoff", "one-off", "model", "element"}, _ONE_OFF)
    if item is None:
        raise wrong(desk, "Which back-end and model?", _ONE_OFF)
    if refusal := desk.refusal_of_choice("one-off"):
        raise CommandError(refusal)
    backend, model = split(desk, item.value)
    if not backend:
        raise wrong(desk, f"A known back-end must stand before the model; {functional(desk)}", _ONE_OFF)
    check_model(model)
    target = f"{usable_backend(desk, backend).id}:{model}"
    before = desk.session.one_off
    desk.session.one_off = target
    desk.session.touch()
    instead = f", instead of {before}" if before and before != target else ""
    said = f"The next message goes to {target}{instead}, later ones as before. Another {desk.prefix}oneoff replaces it."
    note = doubt(desk, backend, model)
    return f"{said} {note}" if note else said


COMMANDS: Final = (
    Command(
        name="backend",
        aliases=("provider",),
        group=_GROUP,
        purpose="choose the back-end of this session",
        forms=("backend(id)", "backend", "provider(id)"),
        keys=("backend",),
        examples=("backend(openai)", "backend", "provider(openai)"),
        run=short_form("backend", "backend(id)", names=("provider", "id", "name")),
    ),
    Command(
        name="model",
        group=_GROUP,
        purpose="choose the model of this session, with or without its back-end",
        forms=("model([backend:]name)", "model"),
        keys=("model",),
        examples=("model(gpt-4o)", "model(openai:gpt-4o)", "model"),
        run=short_form("model", "model([backend:]name)", names=("name",)),
    ),
    Command(
        name="oneoff",
        aliases=("one-off",),
        group=_GROUP,
        purpose="send the next message only to another back-end and model",
        forms=(_ONE_OFF, "one-off(backend/model)"),
        examples=("oneoff(openai:gpt-4o)", "one-off(openai/gpt-4o)"),
        run=send_once,
    ),
    Command(
        name="temperature",
        group=_GROUP,
        purpose="set the sampling temperature of requests that name none",
        forms=("temperature(x)", "temperature"),
        keys=("temperature",),
        examples=("temperature(0.2)", "temperature"),
        run=short_form("temperature", "temperature(x)", names=("value",)),
    ),
    Command(
        name="openai-url",
        group=_GROUP,
        purpose="send this session's calls to back-ends of type openai to another server",
        forms=("openai-url(url)", "openai-url"),
        keys=("openai-url",),
        examples=("openai-url(http://localhost:1234/v1)", "openai-url"),
        run=short_form("openai-url", "openai-url(url)", names=("url",)),
    ),
)
