"""All back ends of a configuration: built when first used, found by id, and the one that serves requests
without a name.

Owns which instances exist and their order. Knows no request and makes no call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llm_proxy.backends.base import Backend
from llm_proxy.backends.catalog import TABLE_ORDER
from llm_proxy.config.backends import BackendSettings
from llm_proxy.config.built_in import canonical
from llm_proxy.dialects.base import ModelInfo

if TYPE_CHECKING:
    from llm_proxy.backends.logins.login import Token
    from llm_proxy.backends.transport import Transport
    from llm_proxy.wire.secrets import Secret

# Loaded when such a back end is first used: type -> module and function `(settings, transport, clock) -> Backend`.
_BUILDERS: Final[Mapping[str, tuple[str, str]]] = {
    "openai-oauth": ("llm_proxy.backends.logins.openai", "build"),
    "anthropic-oauth": ("llm_proxy.backends.logins.anthropic", "build"),
    "gemini-cli-oauth-personal": ("llm_proxy.backends.logins.gemini", "build_personal"),
    "gemini-cli-cloud-project": ("llm_proxy.backends.logins.gemini", "build_cloud"),
    "gemini-cli-acp": ("llm_proxy.backends.acp", "build"),
    "qwen-oauth": ("llm_proxy.backends.logins.qwen", "build"),
}


class Backends:
    """`settings` in the order in which they were declared; built-in ids that it lacks exist all the same,
    without keys.

    `before` are those of the configuration that this one replaces: instances with equal settings go on, with what they have
    learned. `default` is the configured id, None for the first functional one. `fallback_models`: id -> models shown
    when a provider's list cannot be read. `dangerous` says of a command line whether an agent that runs here must not run it unasked;
    `private` are files and directories that it must not see.
    """

    def __init__(
        self,
        settings: Mapping[str, BackendSettings],
        transport: Transport,
        *,
        default: str | None = None,
        list_ttl: float = 300.0,
        fallback_models: Mapping[str, tuple[str, ...]] | None = None,
        clock: Callable[[], float] = time.monotonic,
        before: Backends | None = None,
        dangerous: Callable[[str], bool] | None = None,
        private: Sequence[Path] = (),
    ) -> None:
        self._settings = {id.lower(): instance for id, instance in settings.items()}
        for type_ in TABLE_ORDER:
            self._settings.setdefault(type_, BackendSettings(id=type_, type=type_))
        self._transport = transport
        self._default = canonical(default) if default else None
        self._list_ttl = list_ttl
        self._fallback_models = fallback_models or {}
        self._clock = clock
        self._dangerous = dangerous
        self._private = tuple(private)
        self._built: dict[str, Backend] = {} if before is None else before._kept(self)

    def _kept(self, after: Backends) -> dict[str, Backend]:
        """What is built and the same in `after`."""
        if (self._transport, self._list_ttl, self._private) != (after._transport, after._list_ttl, after._private):
            return {}
        return {
            id: backend
            for id, backend in self._built.items()
            if after._settings.get(id) == self._settings[id]
            and after._fallback_models.get(id) == self._fallback_models.get(id)
        }

    def __contains__(self, id: object) -> bool:
        """Is `id` known, usable or not; this is what makes it a prefix of a model name (RT-01)."""
        return isinstance(id, str) and canonical(id) in self._settings

    @property
    def ids(self) -> tuple[str, ...]:
        """All known ids: declared ones in their order, then the built-in ones."""
        return tuple(self._settings)

    def get(self, id: str) -> Backend | None:
        """The back end called `id`, in any case; None if there is none. It may be unusable (`usable`,
        `reason`).
        """
        name = canonical(id)
        backend = self._built.get(name)
        if backend is None and (settings := self._settings.get(name)) is not None:
            backend = self._built[name] = self._build(settings)
        return backend

    def _build(self, settings: BackendSettings) -> Backend:
        if settings.type == "demo":
            from llm_proxy.backends.demo import DemoBackend

            return DemoBackend(settings)
        if settings.type in _BUILDERS:
            module, function = _BUILDERS[settings.type]
            build: Any = getattr(import_module(module), function)
            more: dict[str, Any] = {
                "list_ttl": self._list_ttl,
                "fallback_models": self._fallback_models.get(settings.id, ()),
            }
            if settings.type == "gemini-cli-acp":  # its models are those of the program
                more = {"private": self._private} | ({"dangerous": self._dangerous} if self._dangerous else {})
            made: Backend = build(settings, self._transport, self._clock, **more)
            return made
        from llm_proxy.backends.http import HttpBackend

        return HttpBackend(
            settings,
            self._transport,
            clock=self._clock,
            list_ttl=self._list_ttl,
            fallback_models=self._fallback_models.get(settings.id, ()),
        )

    @property
    def functional(self) -> list[Backend]:
        """What may serve without being named, in order; the demo where it stands, which is last unless it was
        declared.
        """
        return [
            backend
            for id, settings in self._settings.items()
            # A login that nobody named serves nobody (BE-01): its driver is not even loaded.
            if (settings.mentioned or not settings.login)
            and (backend := self.get(id)) is not None
            and backend.functional
        ]

    @property
    def default(self) -> Backend:
        """The back end of requests that name none (RT-03): the configured one, the first functional one, or
        the demo.
        """
        if self._default is not None and (configured := self.get(self._default)) is not None:
            return configured
        functional = self.functional
        chosen = next((backend for backend in functional if backend.type != "demo"), None)
        if chosen is None:
            chosen = next(iter(functional), None) or self.get("demo")
        assert chosen is not None
        return chosen

    def end_session(self, session: str) -> None:
        """A session is over: what back ends keep for it goes. `session` is that of `Call`."""
        for backend in self._built.values():
            if (end := getattr(backend, "end_session", None)) is not None:
                end(session)

    @property
    def login_tokens(self) -> list[Secret]:
        """The tokens that logins use now: nothing that is shown may hold them. Callable in any thread."""
        logins = [login for backend in list(self._built.values()) if (login := getattr(backend, "login", None))]
        found: list[Token | None] = [login.found for login in logins]
        renewing: list[Secret | None] = [getattr(login, "refresh_token", None) for login in logins]
        return [token.access for token in found if token is not None] + [secret for secret in renewing if secret]

    async def models(self, backend: Backend) -> list[ModelInfo]:
        """The models of one back end with ids as clients write them: `backend:model`."""
        return [
            ModelInfo(
                id=f"{backend.id}:{model.id}",
                owner=backend.id,
                display_name=model.display_name,
                created=model.created,
                context_window=model.context_window,
                max_output=model.max_output,
            )
            for model in await backend.models()
        ]

    async def close(self) -> None:
        """Stop background reads. The transport is closed by whoever made it."""
        for backend in self._built.values():
            await backend.close()
