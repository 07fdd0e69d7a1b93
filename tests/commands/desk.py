"""A desk with everything in memory: a session, some back-ends, saved values and routes. What a proxy without a network would offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from llm_proxy.commands import grammar, registry
from llm_proxy.commands.desk import BackendFacts, Choice, CommandError, Outlook, RestingKey, RouteFacts
from llm_proxy.config.chat_keys import ChatKeys
from llm_proxy.config.options import Option
from llm_proxy.option_groups import GROUPS
from llm_proxy.sessions.session import Session

KEYS = ChatKeys(GROUPS)
BACKENDS = (
    BackendFacts("openai", "openai", True, "", 2, ("gpt-4o", "gpt-4o-mini", "gpt-4", "o3")),
    BackendFacts("anthropic", "anthropic", True, "", 1, None),
    BackendFacts("gemini", "gemini", False, "GEMINI_API_KEY is not set", 0),
    BackendFacts("openrouter", "openrouter", True, "", 1, None),
    BackendFacts("demo", "demo", True, "", 1, ("demo-1",)),
)


class PlainDesk:
    """`locks` maps option paths to the flag or variable that wins; the refusals are what an operator decided."""

    version = "1.2.3"
    keys = KEYS
    default_backend = "openai"

    def __init__(self, prefix: str = "!/") -> None:
        self.session = Session(id="s-1", scope="anonymous", created=0.0, last_used=0.0)
        self.backends: Sequence[BackendFacts] = BACKENDS
        self.started_with = prefix
        self.saved: dict[str, object] = {}
        self.route_table: dict[str, RouteFacts] = {}
        self.locks: dict[str, str] = {}
        self.no_change_for_all = ""
        self.pinned: dict[str, str] = {}
        self.refused_urls: dict[str, str] = {}
        self.allowed_directory = ""
        self.resting: list[RestingKey] = []
        self.ahead = Outlook(())
        self.window = 0
        self.mode_effects: dict[str, str] = {}
        self.rule = "requested model, default back-end"

    @property
    def prefix(self) -> str:
        if "command_prefix" in self.locks:
            return self.started_with
        return str(self.saved.get("command_prefix", self.started_with))

    @property
    def routes(self) -> Mapping[str, RouteFacts]:
        return self.route_table

    def effective(self, option: Option) -> tuple[str, str]:
        name = option.chat.name if option.chat else ""
        if name in self.session.values:
            return _text(option, self.session.values[name]), "session"
        if option.path in self.locks:
            return option.shown_default, self.locks[option.path]
        if option.path in self.saved:
            return _text(option, self.saved[option.path]), "saved state"
        if option.path == "command_prefix":
            return self.started_with, "flag --command-prefix"
        return option.shown_default, "default"

    def lock(self, option: Option) -> str:
        return self.locks.get(option.path, "")

    def refusal_for_all(self) -> str:
        return self.no_change_for_all

    def refusal_of_choice(self, what: Literal["model", "backend", "one-off"]) -> str:
        return self.pinned.get(what, "")

    def refusal_of_url(self, url: str) -> str:
        return self.refused_urls.get(url, "")

    def refusal_of_directory(self, path: str) -> str:
        return "" if path.startswith(self.allowed_directory) else "directories outside the configured one are closed"

    def choice(self) -> Choice:
        values = self.session.values
        return Choice(values.get("backend", self.default_backend), values.get("model", ""), self.rule)

    def outlook(self) -> Outlook:
        return self.ahead

    def mode_effect(self, mode: str) -> str:
        return self.mode_effects.get(mode, "")

    def context_window(self) -> int:
        return self.window

    def resting_keys(self, backend: str) -> Sequence[RestingKey]:
        return self.resting

    def save(self, path: str, value: object) -> None:
        if value is None:
            self.saved.pop(path, None)
        else:
            self.saved[path] = value

    def save_route(self, name: str, route: RouteFacts | None) -> None:
        if route is None:
            self.route_table.pop(name, None)
        else:
            self.route_table[name] = route


def _text(option: Option, value: object) -> str:
    shown = option.kind.show(value)
    return str(shown).lower() if isinstance(shown, bool) else str(shown)


def run(desk: PlainDesk, line: str) -> str:
    """Runs the one command of `line` and returns its reply. A mistake in it is raised as CommandError."""
    [found] = grammar.find(line, desk.prefix, [(0, len(line))])
    if found.error:
        raise CommandError(found.error)
    command = registry.find(found.name)
    if command is None:
        raise CommandError(registry.unknown(desk, found.name))
    return command.run(desk, found.arguments)


def fail(desk: PlainDesk, line: str) -> str:
    """Runs a command that must be refused, and returns what is said."""
    try:
        said = run(desk, line)
    except CommandError as error:
        return str(error)
    raise AssertionError(f"{line} was accepted: {said}")
