"""The catalogue of one back end: which models it has, read when first asked for and kept fresh behind the
reader's back (BE-04).

Owns caching, single flight and the order of fallbacks. Must not know how a list is fetched or what it is
shown for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from llm_proxy.backends.base import Limits
from llm_proxy.config.backends import BackendSettings
from llm_proxy.conversation.fault import FaultError
from llm_proxy.dialects.base import ModelInfo

AFTER_FAILURE = 60.0  # seconds until a failed read is tried again
_PATIENCE = 5.5  # seconds that readers wait for one list in all; then it is read on behind their backs
_LONGEST = 30.0  # seconds after which a read has failed


class Catalogue:
    """`read` fetches the provider's list and may raise FaultError; None if the provider has none.

    Reading never happens for a generating request: `limits` answers from what is known.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[list[ModelInfo]]] | None,
        settings: BackendSettings,
        fallback: tuple[str, ...],
        *,
        ttl: float,
        clock: Callable[[], float],
    ) -> None:
        self._read = read
        self._settings = settings
        self._fallback = fallback
        self._ttl = ttl
        self._clock = clock
        self._listed: dict[str, ModelInfo] | None = None
        self._next_read = 0.0
        self._reading: asyncio.Task[None] | None = None
        self._began = 0.0
        self._failed = False

    @property
    def failed(self) -> bool:
        """Was the list not to be had when it was read last, or is it long overdue?"""
        reading = self._reading is not None and not self._reading.done()
        return self._failed or (reading and self._clock() - self._began >= _PATIENCE)

    async def models(self) -> list[ModelInfo]:
        """All models, sorted by id. Waits only when nothing is known yet; never raises for a failing
        provider.
        """
        if self._read is not None and not self._settings.pinned and self._clock() >= self._next_read:
            task = self._start_reading(self._read)
            patience = self._began + _PATIENCE - self._clock()
            if (self._listed is None or self._ttl == 0) and patience > 0:
                # Shielded: whoever stops waiting must not end the read for the others.
                await asyncio.wait([asyncio.shield(task)], timeout=patience)
        return [self._with_limits(model) for _, model in sorted(self._known().items())]

    def _start_reading(self, read: Callable[[], Awaitable[list[ModelInfo]]]) -> asyncio.Task[None]:
        if self._reading is None or self._reading.done():
            self._began = self._clock()
            self._reading = asyncio.get_running_loop().create_task(self._refresh(read))
        return self._reading

    async def _refresh(self, read: Callable[[], Awaitable[list[ModelInfo]]]) -> None:
        try:
            async with asyncio.timeout(_LONGEST):
                listed = await read()
        except (FaultError, TimeoutError):
            self._failed = True
            self._next_read = self._clock() + AFTER_FAILURE
            return
        self._failed = False
        self._listed = {model.id: model for model in listed}
        self._next_read = self._clock() + self._ttl

    @property
    def known(self) -> tuple[str, ...] | None:
        """The ids known now, without any call; None while the provider's list was not read."""
        if self._listed is None and not self._settings.pinned and self._read is not None:
            return None
        return tuple(sorted(self._known()))

    def _known(self) -> dict[str, ModelInfo]:
        configured = {name: ModelInfo(id=name) for name in self._settings.models}
        if self._settings.pinned:
            return configured
        listed = self._listed
        if listed is None:
            listed = {name: ModelInfo(id=name) for name in self._fallback}
        return configured | listed

    def _with_limits(self, model: ModelInfo) -> ModelInfo:
        limits = self.limits(model.id, model.max_output)
        return ModelInfo(
            id=model.id,
            owner=model.owner,
            display_name=model.display_name,
            created=model.created,
            context_window=limits.context_window,
            max_output=limits.max_output,
        )

    def limits(self, model: str, documented_output: int = 0) -> Limits:
        """Configuration, then the provider's list, then `documented_output`."""
        configured = self._settings.models.get(model)
        listed = (self._listed or {}).get(model)
        window = (configured.context_window if configured else None) or (listed.context_window if listed else 0)
        output = (configured.max_output_tokens if configured else None) or (listed.max_output if listed else 0)
        most_input = (configured.max_input_tokens if configured else None) or 0
        return Limits(context_window=window, max_output=output or documented_output, max_input=most_input)

    async def close(self) -> None:
        """Stop a read that is under way."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
