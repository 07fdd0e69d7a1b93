"""What a back end is to the rest of the program: one call in, one response of bytes out.

Owns the protocol that `HttpBackend` and `DemoBackend` fulfil and the value that describes a call. Knows no
socket.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from llm_proxy.backends.transport import AddressPolicy, Response
from llm_proxy.config.backends import BackendSettings
from llm_proxy.config.kinds import NamedKey
from llm_proxy.conversation.fault import Fault
from llm_proxy.dialects.base import ModelInfo
from llm_proxy.dialects.capabilities import Capabilities
from llm_proxy.wire.secrets import Secret
from llm_proxy.wire.tap import WireTap
from llm_proxy.wire.urls import Origin

Action = Literal["generate", "count", "embeddings", "completions"]


class Redirect(msgspec.Struct, frozen=True):
    """A session's own server instead of the configured one (RT-12).

    `base_url` is absolute http(s). The stored key travels only when `keep_key` (the origin is on the
    operator's list, or the configured one); otherwise, or where none is stored, `credential`, which the client
    supplied, or nothing.
    `policy` says which addresses it may reach.
    """

    base_url: str
    policy: AddressPolicy
    keep_key: bool = False
    credential: Secret | None = None


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a provider. `body` is complete JSON in `dialect`; `model` is the provider's name for the
    model.

    `headers`: the dialect's own extra headers (betas, versions). `identity`: the headers of REQ-09 for this client; empty where
    there is none, then the back end's own. `loop_guard`: value of the hop
    header, sent to custom and loopback URLs only. `key` None: a back end without keys. `session` names the conversation, also across
    client keys, "" for none; `directory` is where an agent shall work, as chosen in the chat, "" for the configured one.
    `tap` hears what goes out and what comes back.
    """

    dialect: str
    model: str
    body: bytes
    stream: bool = False
    action: Action = "generate"
    headers: dict[str, str] = {}
    identity: dict[str, str] = {}
    key: NamedKey | None = None
    request_id: str = ""
    loop_guard: str = ""
    redirect: Redirect | None = None
    session: str = ""
    directory: str = ""
    tap: WireTap | None = None


class Limits(msgspec.Struct, frozen=True):
    """What is known of a model's size in tokens; 0 = unknown."""

    context_window: int = 0
    max_output: int = 0
    max_input: int = 0


class Backend(Protocol):
    """A configured instance of a provider."""

    @property
    def id(self) -> str: ...

    @property
    def type(self) -> str: ...

    @property
    def settings(self) -> BackendSettings: ...

    @property
    def functional(self) -> bool:
        """May it be chosen without being named: enabled, with a credential, and mentioned where that is
        demanded (BE-01).
        """

    @property
    def usable(self) -> bool:
        """Can it be called when a request names it."""

    @property
    def reason(self) -> str:
        """Why it is not usable: a sentence naming the variable or option to set. Empty when it is."""

    @property
    def keys(self) -> tuple[NamedKey | None, ...]:
        """The keys in configured order; `(None,)` where none is needed."""

    @property
    def origin(self) -> Origin | None:
        """Where its calls go; None for one without network."""

    def dialect_for(self, client_dialect: str, redirect: Redirect | None = None) -> str:
        """The dialect in which a client of `client_dialect` is served here, or at the session's own server."""

    def capabilities(self, model: str, dialect: str, redirect: Redirect | None = None) -> Capabilities: ...

    def limits(self, model: str) -> Limits:
        """What is known now, without any call."""

    def maker(self, model: str) -> str:
        """Who seals reasoning there: `<id>/<model family>` (see `dialects.base.Target.maker`)."""

    def learn(self, model: str, dialect: str, fault: Fault, redirect: Redirect | None = None) -> bool:
        """Note what a 400 teaches about a parameter. True when something new was learned, so that one repeat
        makes sense.
        """

    @property
    def list_failed(self) -> bool:
        """Did the provider refuse its list when it was read last; what `models` gives is the fallback then."""

    @property
    def known_models(self) -> tuple[str, ...] | None:
        """The ids of its models as far as known now; None while the provider's list was not read. Makes no call."""

    def supports(self, action: Action) -> bool: ...

    async def open(self, call: Call) -> Response:
        """Make the call; returns when the headers have arrived. Raises FaultError for failures of the
        connection.
        """

    async def models(self) -> list[ModelInfo]:
        """The catalogue (BE-04): ids as the provider says them."""

    async def close(self) -> None:
        """Stop what runs in the background."""
