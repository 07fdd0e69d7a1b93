"""What a command may see and change: the desk at which it works. The server provides it, once for each message with commands.

Reading contacts nobody. Changes of the session are made at once; changes for the whole proxy (`save`, `save_route`) are collected and
become effective together, after the last command of the message and before its reply or its request goes out. Later commands of the
same message already see them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from llm_proxy.config.chat_keys import ChatKeys
from llm_proxy.config.options import Option
from llm_proxy.sessions.session import Session

Policy = Literal["k", "m", "km", "mk"]
POLICIES: tuple[Policy, ...] = ("k", "m", "km", "mk")


class CommandError(Exception):
    """What a person did wrong, with the right form. Its text is the reply."""


class BackendFacts(msgspec.Struct, frozen=True):
    """A configured back-end as people know it. `models`: ids of its catalogue as far as known now, None while unknown."""

    id: str
    type: str
    functional: bool
    reason: str
    keys: int
    models: tuple[str, ...] | None = None


class RouteFacts(msgspec.Struct, frozen=True):
    """A failover route: elements are `backend:model`."""

    policy: Policy
    elements: tuple[str, ...] = ()


class Choice(msgspec.Struct, frozen=True):
    """Where the next message would go, and the rule that says so (RT-02): `session model`, `one-off`, `default back-end` …"""

    backend: str
    model: str
    rule: str


class Outlook(msgspec.Struct, frozen=True):
    """What would be attempted for the next message now, in order, and what would not and why; each a phrase for people."""

    attempts: tuple[str, ...]
    left_out: tuple[str, ...] = ()


class RestingKey(msgspec.Struct, frozen=True):
    """A key that is left alone: `state` is cooling or disabled, `seconds` from now."""

    name: str
    model: str
    state: str
    seconds: float


class Desk(Protocol):
    """See the module."""

    session: Session
    version: str
    prefix: str
    keys: ChatKeys
    default_backend: str

    @property
    def backends(self) -> Sequence[BackendFacts]:
        """In the order of the configuration, functional or not."""

    @property
    def routes(self) -> Mapping[str, RouteFacts]: ...

    def effective(self, option: Option) -> tuple[str, str]:
        """The value in force as text (secrets are `***`, nothing set is `none`) and its source (`session`, `saved state`, `env X` …)."""

    def lock(self, option: Option) -> str:
        """The flag or variable that is stronger than what is saved for `option` (`flag --default-backend`), or ""."""

    def refusal_for_all(self) -> str:
        """Why this client may not change the proxy for all (CMD-08), or ""."""

    def refusal_of_choice(self, what: Literal["model", "backend", "one-off"]) -> str:
        """Why an operator's lock forbids to choose it (RT-04, RT-05), or ""."""

    def refusal_of_url(self, url: str) -> str:
        """Why OpenAI calls may not be sent there (RT-12), or ""."""

    def refusal_of_directory(self, path: str) -> str:
        """Why this client may not use the directory (CMD-14), or ""."""

    def choice(self) -> Choice: ...

    def outlook(self) -> Outlook: ...

    def mode_effect(self, mode: str) -> str:
        """What a reasoning mode does for the model of `choice` where the configuration says so (REQ-03), "" for the built-in meaning."""

    def context_window(self) -> int:
        """The context window of the model of `choice`, in tokens; 0 = unknown."""

    def resting_keys(self, backend: str) -> Sequence[RestingKey]: ...

    def save(self, path: str, value: object) -> None:
        """Saves an option for all, by its path; None removes what is saved."""

    def save_route(self, name: str, route: RouteFacts | None) -> None:
        """Makes, replaces or (None) deletes a failover route for all."""
