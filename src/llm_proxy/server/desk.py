"""The desk at which the commands of one message work: what they see of the proxy, and what they may change (`commands.desk.Desk`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from llm_proxy.backends.base import Backend
from llm_proxy.commands.desk import BackendFacts, Choice, Outlook, RestingKey, RouteFacts
from llm_proxy.commands.options import CommandOptions
from llm_proxy.config.options import Option
from llm_proxy.conversation.fault import FaultError
from llm_proxy.features.reasoning_aliases import aliases_of
from llm_proxy.routing.keyring import NO_KEY
from llm_proxy.routing.plan import model_of
from llm_proxy.routing.redirect import refusal as refusal_of_redirect
from llm_proxy.server.running import ChangesForAll
from llm_proxy.sessions.session import Session
from llm_proxy.wire import json as wire_json

if TYPE_CHECKING:
    from llm_proxy.server.clients import Client
    from llm_proxy.server.gateway import Gateway


class ChatDesk:
    """See the module. `changes` are those for all, collected until the last command has run."""

    def __init__(self, gateway: Gateway, session: Session, caller: Client, requested_model: str) -> None:
        self._gateway = gateway
        self._caller = caller
        self._requested = requested_model
        self._options = gateway.settings.get(CommandOptions)
        self._routes = {name: RouteFacts(route.policy, route.elements) for name, route in gateway.router.routes.items()}
        self.session = session
        self.version = gateway.version
        self.prefix = self._options.command_prefix
        self.keys = gateway.keys
        self.default_backend = gateway.backends.default.id
        self.changes = ChangesForAll()

    @property
    def backends(self) -> Sequence[BackendFacts]:
        known = self._gateway.backends
        return [_facts(backend) for id in known.ids if (backend := known.get(id)) is not None]

    @property
    def routes(self) -> Mapping[str, RouteFacts]:
        return self._routes

    def effective(self, option: Option) -> tuple[str, str]:
        name = option.chat.name if option.chat else ""
        if option.chat and option.chat.scope == "session" and name in self.session.values:
            return _worded(option.kind.show(self.session.values[name])), "session"
        if option.chat_only:
            return option.shown_default, "default"
        settings = self._gateway.settings
        source = settings.source_of(option.path)
        if option.path in self.changes.values and not self.lock(option):
            saved = self.changes.values[option.path]
            if saved is not None:
                return _worded(saved), "saved state"
            if source == "saved state":
                return option.shown_default, "what stands behind the saved value"
        return _worded(option.kind.show(getattr(settings.get(self.keys.group_of(option)), option.name))), source

    def lock(self, option: Option) -> str:
        source = self._gateway.settings.source_of(option.path)
        return source if source.startswith(("flag ", "env ")) else ""

    def refusal_for_all(self) -> str:
        match self._options.allow_global:
            case "always":
                return ""
            case "never":
                return "changes for the whole proxy are switched off in the chat (commands.allow_global: never)"
            case _:
                if self._caller.may_change_all:
                    return ""
                return (
                    "this would change the proxy for everyone, and several client keys exist; the operator allows it "
                    "by naming your key in auth.admin_keys, or with commands.allow_global: always"
                )

    def refusal_of_choice(self, what: Literal["model", "backend", "one-off"]) -> str:
        return self._gateway.router.refusal(what)

    def refusal_of_url(self, url: str) -> str:
        if not self._options.allow_url_override:
            return "another URL is not allowed here (commands.allow_url_override)"
        return refusal_of_redirect(
            url, allowed=self._gateway.redirect_origins, local=self._caller.local, own=self._gateway.running.listeners
        )

    def refusal_of_directory(self, path: str) -> str:
        if self._caller.local or self._caller.trusted:
            return ""
        return "only clients on the proxy's own machine, or at a trusted address, may choose a directory"

    def choice(self) -> Choice:
        router = self._gateway.router
        try:
            decision = router.decide(self._requested, self.session, self.session.one_off)
        except FaultError as error:
            return Choice("", "", error.fault.message)
        if decision.route:
            return Choice("", f"route {decision.route}", decision.rule)
        backend = router.backend_of(decision)
        return Choice(backend.id, model_of(backend, decision.model), decision.rule)

    def outlook(self) -> Outlook:
        try:
            found = self._gateway.router.outlook(self._requested, self.session, self._caller, self.session.one_off)
        except FaultError as error:
            return Outlook((), (error.fault.message,))
        attempts = tuple(_in_words(one.backend.id, one.model, one.key_name) for one in found.attempts)
        return Outlook(
            attempts, tuple(f"{_in_words(one.backend, one.model, one.key)}: {one.why}" for one in found.left_out)
        )

    def mode_effect(self, mode: str) -> str:
        choice = self.choice()
        return aliases_of(self._gateway.settings).effect(mode, choice.backend, choice.model) if choice.model else ""

    def context_window(self) -> int:
        choice = self.choice()
        backend = self._gateway.backends.get(choice.backend) if choice.backend else None
        return backend.limits(choice.model).context_window if backend is not None else 0

    def resting_keys(self, backend: str) -> Sequence[RestingKey]:
        return [
            RestingKey(rest.key, rest.model, rest.state, rest.seconds)
            for rest in self._gateway.keyring.resting(backend)
        ]

    def save(self, path: str, value: object) -> None:
        self.changes.values[path] = value

    def save_route(self, name: str, route: RouteFacts | None) -> None:
        self.changes.routes[name] = route
        if route is None:
            self._routes.pop(name, None)
        else:
            self._routes[name] = route


def _in_words(backend: str, model: str, key: str) -> str:
    return f"{backend}:{model}" + (f" with key {key}" if key not in ("", NO_KEY) else "")


def _facts(backend: Backend) -> BackendFacts:
    known = backend.known_models
    keys = sum(key is not None for key in backend.keys)
    return BackendFacts(backend.id, backend.type, backend.functional, backend.reason, keys, known)


def _worded(value: object) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case dict() | list():
            return wire_json.encode(value).decode()
        case _:
            return str(value)
