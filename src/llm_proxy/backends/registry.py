"""All back ends of a configuration: built when first used, found by id, and the one that serves requests
without a name.

Owns which instances exist and their order. Knows no request and makes no call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from llm_proxy.backends.base import Backend
from llm_proxy.backends.catalog import TABLE_ORDER
from llm_proxy.config.backends import BackendSettings
from llm_proxy.dialects.base import ModelInfo

if TYPE_CHECKING:
    from llm_proxy.backends.transport import Transport


class Backends:
    """`settings` in the order in which they were declared; built-in ids that it lacks exist all the same,
    without keys.

    `before` are those of the configuration that this one replaces: instances with equal settings go on, with what they have
    learned. `default` is the configured id, None for the first functional one. `fallback_models`: id -> models shown
    when a provider's list cannot be read.
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
    ) -> None:
        self._settings = {id.lower(): instance for id, instance in settings.items()}
        for type_ in TABLE_ORDER:
            self._settings.setdefault(type_, BackendSettings(id=type_, type=type_))
        self._transport = transport
        self._default = default.lower() if default else None
        self._list_ttl = list_ttl
        self._fallback_models = fallback_models or {}
        self._clock = clock
        self._built: dict[str, Backend] = {} if before is None else before._kept(self)

    def _kept(self, after: Backends) -> dict[str, Backend]:
        """What is built and the same in `after`."""
        if (self._transport, self._list_ttl) != (after._transport, after._list_ttl):
            return {}
        return {
            id: backend
            for id, backend in self._built.items()
            if after._settings.get(id) == self._settings[id]
            and after._fallback_models.get(id) == self._fallback_models.get(id)
        }

    def __contains__(self, id: object) -> bool:
        """Is `id` known, usable or not; this is what makes it a prefix of a model name (RT-01)."""
        return isinstance(id, str) and id.lower() in self._settings

    @property
    def ids(self) -> tuple[str, ...]:
        """All known ids: declared ones in their order, then the built-in ones."""
        return tuple(self._settings)

    def get(self, id: str) -> Backend | None:
        """The back end called `id`, in any case; None if there is none. It may be unusable (`usable`,
        `reason`).
        """
        name = id.lower()
        backend = self._built.get(name)
        if backend is None and (settings := self._settings.get(name)) is not None:
            backend = self._built[name] = self._build(settings)
        return backend

    def _build(self, settings: BackendSettings) -> Backend:
        if settings.type == "demo":
            from llm_proxy.backends.demo import DemoBackend

            return DemoBackend(settings)
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
        return [backend for id in self._settings if (backend := self.get(id)) is not None and backend.functional]

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
