"""Changing options from the chat: `set`, `unset`, `interactive`, and the short forms that set one key (CMD-06, CMD-11).

Owns the rule that a command changes all that it names or nothing. How a value is read is the business of `values`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from llm_proxy.commands.command import Command, Run, items_of, only_value, shorten, wrong
from llm_proxy.commands.desk import CommandError, Desk
from llm_proxy.commands.grammar import Argument, Arguments
from llm_proxy.commands.places import check_model, doubt, session_backend, split, usable_backend
from llm_proxy.commands.spelling import nearest
from llm_proxy.commands.values import current, current_of, is_for_all, key_of, read, show
from llm_proxy.config.chat_keys import canonical
from llm_proxy.config.options import Option

_SET: Final = "set(key=value, …)"
_UNSET: Final = "unset(key, …)"
_CHOICE: Final = frozenset({"model", "backend"})
_PREFIX: Final = "command-prefix"
SAVED: Final = "saved state"
"""The source that `Desk.effective` names for what a command saved."""


class Change(msgspec.Struct, frozen=True):
    """A value that was checked and may be applied."""

    option: Option
    value: object


class Plan:
    """Changes that are being checked: nothing is applied before all of them are good."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.changes: list[Change] = []
        self.complaints: list[str] = []
        self.notes: list[str] = []

    def check(self, wanted: Sequence[tuple[Option, Argument]]) -> None:
        refusal = self.desk.refusal_for_all() if any(is_for_all(option) for option, _ in wanted) else ""
        seen: set[str] = set()
        # The model is read last: which part of its name is a back-end depends on the back-end that is set beside it.
        for option, argument in sorted(wanted, key=lambda pair: key_of(pair[0]) == "model"):
            key = key_of(option)
            if key in seen:
                self.complaints.append(f"{key}: given twice")
                continue
            seen.add(key)
            if is_for_all(option) and refusal:
                self.complaints.append(f"{key}: {refusal}")
                continue
            try:
                self._check(option, key, argument)
            except CommandError as error:
                self.complaints.append(f"{key}: {error}")

    def _check(self, option: Option, key: str, argument: Argument) -> None:
        if key == "model":
            self._check_model(option, argument)
            return
        if key == "backend" and (refusal := self.desk.refusal_of_choice("backend")):
            raise CommandError(refusal)
        self.changes.append(Change(option, read(self.desk, option, argument)))

    def _check_model(self, option: Option, argument: Argument) -> None:
        desk = self.desk
        if refusal := desk.refusal_of_choice("model"):
            raise CommandError(refusal)
        beside = next((str(change.value) for change in self.changes if key_of(change.option) == "backend"), "")
        text = argument.value
        if text.removeprefix("route:") in desk.routes:
            self.changes.append(Change(option, text))
            return
        if text.startswith("route:"):
            known = ", ".join(sorted(desk.routes)) or "none yet"
            raise CommandError(f"there is no route {shorten(text.removeprefix('route:'))}; known are: {known}")
        backend, model = split(desk, text, keep_slash=bool(beside or session_backend(desk)))
        check_model(model)
        if backend and beside and backend != beside.lower():
            raise CommandError(f"names the back-end {backend}, but backend={beside} is given too")
        if backend:
            if refusal := desk.refusal_of_choice("backend"):
                raise CommandError(refusal)
            chosen = usable_backend(desk, backend).id
            other = desk.keys.find("backend")
            if other is not None and not beside:
                self.changes.append(Change(other, chosen))
        self.changes.append(Change(option, model))
        if note := doubt(desk, backend or beside or session_backend(desk) or desk.default_backend, model):
            self.notes.append(note)

    def finish(self, form: str) -> str:
        """Applies the changes and says so. Raises CommandError with every complaint if there is one."""
        desk = self.desk
        if self.complaints:
            raise refused(desk, self.complaints, form)
        prefix, here, all_over, locked = "", [], [], []
        for change in self.changes:
            key = key_of(change.option)
            said = f"{key} = {show(change.option.kind.show(change.value))}"
            if not is_for_all(change.option):
                desk.session.choose(key, change.value)
                here.append(said)
                continue
            lock = desk.lock(change.option)
            desk.save(change.option.path, change.value)
            if lock:
                locked.append(f"{said} is saved, but not effective: {lock} wins.")
            else:
                all_over.append(said)
                prefix = str(change.value) if key == _PREFIX else prefix
        parts = [f"Set for this session: {', '.join(here)}."] if here else []
        parts += [f"Saved for all sessions: {', '.join(all_over)}."] if all_over else []
        parts += locked
        if prefix:
            parts.append(f"Commands now begin with {prefix} as in {prefix}help.")
        keys = [key_of(change.option) for change in self.changes]
        undo = [key for key in keys if key != "backend" or "model" not in keys]
        return " ".join([*parts, *self.notes, f"Undo: {prefix or desk.prefix}unset({', '.join(undo)})."])


def refused(desk: Desk, complaints: Sequence[str], form: str) -> CommandError:
    """One error that names each bad key and value."""
    if len(complaints) == 1:
        return wrong(desk, f"{complaints[0]}; nothing was changed", form)
    return wrong(desk, "nothing was changed:\n- " + "\n- ".join(complaints) + "\n", form)


def unknown_key(desk: Desk, name: str) -> str:
    """The complaint about a key that does not exist."""
    wanted = canonical(name)[:80]
    known = [alias for option in desk.keys if option.chat for alias in (option.chat.name, *option.chat.aliases)]
    close = desk.keys.nearest(wanted) or nearest(wanted, known, most=80)
    return f"unknown key {shorten(name) or 'without a name'}; the nearest one is {close}"


def list_values(desk: Desk) -> str:
    return "\n".join(["Current values:", *(current(desk, option) for option in desk.keys)])


def set_values(desk: Desk, arguments: Arguments | None) -> str:
    items = [_reasoning_form(item) for item in items_of(arguments)]
    if not any(item.key or item.value for item in items):
        return list_values(desk)
    plan = Plan(desk)
    wanted: list[tuple[Option, Argument]] = []
    for item in items:
        option = desk.keys.find(item.key or item.value)
        if option is None:
            plan.complaints.append(unknown_key(desk, item.key or item.value))
        elif not item.key:
            plan.complaints.append(f"{key_of(option)}: expected {key_of(option)}=value")
        else:
            wanted.append((option, item))
    plan.check(wanted)
    return plan.finish(_SET)


def _reasoning_form(item: Argument) -> Argument:
    """`reasoning(effort=high)` is as good as `reasoning=(effort=high)`."""
    name, bracket, inside = item.value.partition("(")
    if item.key or canonical(name) != "reasoning" or not bracket or not inside.endswith(")"):
        return item
    return Argument(key="reasoning", value=f"({inside}", nested=True)


def unset_values(desk: Desk, arguments: Arguments | None) -> str:
    items = items_of(arguments)
    if not any(item.key or item.value for item in items):
        raise wrong(desk, "Which key?", _UNSET)
    complaints: list[str] = []
    options: dict[str, Option] = {}
    for item in items:
        option = desk.keys.find(item.key or item.value)
        if option is None:
            complaints.append(unknown_key(desk, item.key or item.value))
        elif item.key:
            complaints.append(f"{key_of(option)}: expected the key alone, without a value")
        else:
            options[key_of(option)] = option
    refusal = desk.refusal_for_all() if any(map(is_for_all, options.values())) else ""
    if refusal:
        complaints += [f"{key}: {refusal}" for key, option in options.items() if is_for_all(option)]
    if complaints:
        raise refused(desk, complaints, _UNSET)
    return _clear(desk, options)


def _clear(desk: Desk, options: dict[str, Option]) -> str:
    present = set(desk.session.values)
    cleared: list[str] = []
    removed: list[str] = []
    absent: list[str] = []
    for key, option in options.items():
        if is_for_all(option):
            said = _remove_saved(desk, key, option)
            (removed if said else absent).append(said or key)
            continue
        # Back-end and model belong together: unsetting one clears both (RT-11).
        found = sorted(present & (_CHOICE if key in _CHOICE else {key}))
        for name in found:
            desk.session.choose(name, None)
        cleared += [name for name in found if name not in cleared]
        if not found:
            absent.append(key)
    if not cleared and not removed:
        raise CommandError(f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'} not set; nothing was changed")
    parts = []
    if cleared:
        parts.append(f"Cleared {', '.join(cleared)}: now {', '.join(current_of(desk, key) for key in cleared)}.")
    parts += removed
    if absent:
        parts.append(f"Not set before: {', '.join(absent)}.")
    return " ".join(parts)


def _remove_saved(desk: Desk, key: str, option: Option) -> str:
    """Removes what was saved for all, and says so; nothing when nothing was."""
    if desk.effective(option)[1] == SAVED:
        desk.save(option.path, None)
        # A desk may know the next source only after the message; then there is no value to tell yet.
        now = "" if desk.effective(option)[1] == SAVED else f": now {current(desk, option)}"
        return f"Removed the saved {key} for all sessions{now}."
    if lock := desk.lock(option):
        desk.save(option.path, None)
        return f"A saved value of {key}, if there was one, is removed; {lock} wins as before."
    return ""


def short_form(key: str, form: str, *, names: Iterable[str] = ()) -> Run:
    """The function of a command that sets one key and, without argument, shows it. `form` is its usage."""

    def run(desk: Desk, arguments: Arguments | None) -> str:
        option = desk.keys.find(key)
        if option is None:
            raise CommandError(f"{key} is not known here")
        accepted = {canonical(name) for name in (key, *(option.chat.aliases if option.chat else ()), *names)}
        item = only_value(desk, arguments, accepted, form)
        if item is None:
            return f"{current(desk, option)}. Change: {desk.prefix}{form}."
        plan = Plan(desk)
        plan.check([(option, item)])
        return plan.finish(form)

    return run


def talk(desk: Desk, arguments: Arguments | None) -> str:
    """`interactive` with a value, or the other way round than now."""
    form = "interactive(true|false)"
    item = only_value(desk, arguments, {"interactive", "interactive-mode", "value"}, form)
    option = desk.keys.find("interactive")
    default = desk.keys.find("default-interactive")
    if option is None or default is None:
        raise CommandError("interactive mode is not known here")
    if item is None:
        now = desk.session.values.get("interactive")
        wanted = not (desk.effective(default)[0] == "true" if now is None else now)
    else:
        plan = Plan(desk)
        plan.check([(option, item)])
        if plan.complaints:
            raise refused(desk, plan.complaints, form)
        wanted = bool(plan.changes[0].value)
    desk.session.choose("interactive", wanted)
    meaning = "unknown commands are answered, confirmations shown" if wanted else "commands in a text run silently"
    return f"Interactive mode is {'on' if wanted else 'off'}: {meaning}. Undo: {desk.prefix}unset(interactive)."


COMMANDS: Final = (
    Command(
        name="set",
        group="Settings",
        purpose="change one or several options; without arguments list their values",
        forms=(_SET, "set"),
        every_key=True,
        examples=(
            "set",
            'set(temperature=0.2, project="my project")',
            "set(model=openai:gpt-4o)",
            "set(reasoning=(effort=high, exclude=true))",
            'set(gemini-generation-config={"topK": 5})',
            "set(default-interactive=false)",
        ),
        run=set_values,
    ),
    Command(
        name="unset",
        group="Settings",
        purpose="restore one or several options; model and backend go together",
        forms=(_UNSET,),
        every_key=True,
        examples=("unset(temperature, project)", "unset(model)", "unset(default-interactive)"),
        run=unset_values,
    ),
    Command(
        name="interactive",
        group="Settings",
        purpose="answer unknown commands and show confirmations, or not; without value the other way round",
        forms=("interactive(true|false|on|off)", "interactive"),
        keys=("interactive", "default-interactive"),
        examples=("interactive(on)", "interactive"),
        run=talk,
    ),
)
