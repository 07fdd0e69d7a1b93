"""Which ledger the settings ask for, now and after a reload."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from llm_proxy.config.groups import AuditOptions, UsageOptions
from llm_proxy.store.ledger.ledger import Ledger
from llm_proxy.store.ledger.places import FILE_NAME
from llm_proxy.store.sessions import StoreUnusable
from llm_proxy.store.usage import MemoryUsage

_LOG = logging.getLogger(__name__)
_MEMORY: Final = ""


class Ledgers:
    """Every ledger that was asked for since the start, by place: what began before a change still writes where it began.

    Without a data directory and without another place, usage and audit are kept in memory. `clean` removes secrets from log lines.
    """

    def __init__(self, data_dir: Path | None, clean: Callable[[str], str]) -> None:
        self._data_dir = data_dir
        self._clean = clean
        self._known: dict[str, Ledger | MemoryUsage] = {}
        self._chosen: Ledger | MemoryUsage | None = None
        self._started = False

    def choose(self, usage: UsageOptions, audit: AuditOptions) -> Ledger | MemoryUsage:
        """The ledger of these settings. Raises StoreUnusable at the start for a place that can never work; later it stays with what it had."""
        try:
            self._chosen = self._at(self._place(usage), usage.retention_days, audit.retention_days)
        except StoreUnusable as error:
            if self._chosen is None:
                raise
            _LOG.warning("usage and audit stay where they are: %s", self._clean(str(error)))
        return self._chosen

    def start(self) -> None:
        """Begins the work in threads: databases are brought up to date, what is too old is deleted."""
        self._started = True
        for ledger in self._known.values():
            if isinstance(ledger, Ledger):
                ledger.start()

    async def close(self) -> None:
        for ledger in self._known.values():
            await ledger.close()

    def _place(self, usage: UsageOptions) -> str:
        if usage.repository == "in_memory":
            return _MEMORY
        return usage.file_path or (str(self._data_dir / FILE_NAME) if self._data_dir else _MEMORY)

    def _at(self, place: str, usage_days: int, audit_days: int) -> Ledger | MemoryUsage:
        ledger = self._known.get(place)
        if ledger is None:
            ledger = MemoryUsage()
            if place != _MEMORY:
                ledger = Ledger(place, usage_days=usage_days, audit_days=audit_days, clean=self._clean)
            self._known[place] = ledger
        if isinstance(ledger, Ledger):
            ledger.keep(usage_days, audit_days)
            if self._started:
                ledger.start()
        return ledger
