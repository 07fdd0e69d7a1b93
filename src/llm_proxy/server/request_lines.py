"""The log lines of a generating request (OPS-13, OPS-14): what came, what became of it, where its time went. Never a body.

Owns their words and which of them are wanted. Called by the exchange at its turning points; must not fail it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from llm_proxy.config.groups import LoggingOptions, PerformanceOptions
from llm_proxy.server.paths import NoRoute, Route

if TYPE_CHECKING:
    from llm_proxy.config import Settings
    from llm_proxy.server.exchange import Exchange
    from llm_proxy.server.http import Incoming

_LOG = logging.getLogger(__name__)
_EXCHANGE = logging.getLogger("llm_proxy.server.exchange")  # the one line that each request has
_PERFORMANCE = logging.getLogger("llm_proxy.performance")  # short, so that a level of its own is easily written


class RequestLines(msgspec.Struct, frozen=True):
    """Which lines one configuration wants beside the one that every request has."""

    requests: bool
    responses: bool
    summary: bool

    @classmethod
    def of(cls, settings: Settings) -> RequestLines:
        options = settings.get(LoggingOptions)
        summary = settings.get(PerformanceOptions).summary
        return cls(options.request_logging, options.response_logging, summary)

    def came(self, exchange: Exchange) -> None:
        """A request has been read, and whose it is is known."""
        if not self.requests:
            return
        opening = exchange.opening
        _LOG.info(
            "%s request: %s model %s, %d bytes, %d tools, agent %s, client key %s%s%s",
            exchange.id, exchange.surface, exchange.requested_model or "-", exchange.size, len(opening.tools),
            exchange.session.agent or "-", exchange.key_name or "-",
            ", streamed" if exchange.stream else "", ", beside the conversation" if exchange.side else "",
        )  # fmt: skip

    def ended(self, exchange: Exchange) -> None:
        """Everything is over; nobody changes the exchange any more."""
        status: str | int = "cancelled" if exchange.cancelled else exchange.status
        if exchange.fault is not None and not exchange.cancelled:
            status = exchange.fault.status_code
        usage = exchange.usage
        target = exchange.backend or ("proxy" if exchange.local else "-")
        _EXCHANGE.info(
            "%s %s -> %s:%s %s %s tokens %d ms%s",
            exchange.id, exchange.surface, target, exchange.model or exchange.requested_model or "-",
            status, usage.total if usage else "?", exchange.duration * 1000, " stream" if exchange.stream else "",
        )  # fmt: skip
        if self.responses:
            self._response(exchange, status)
        if self.summary and _PERFORMANCE.isEnabledFor(logging.INFO):
            _PERFORMANCE.info(
                exchange.perf.summary(
                    exchange.session.id, exchange.backend or target, exchange.model or exchange.requested_model,
                    exchange.stream, exchange.local or bool(exchange.command_lines),
                )
            )  # fmt: skip

    @staticmethod
    def _response(exchange: Exchange, status: str | int) -> None:
        usage, first = exchange.usage, exchange.time_to_first
        _LOG.info(
            "%s response: %s, %s tokens in, %s out, first content after %s, %d calls%s%s",
            exchange.id, status, usage.input if usage else "?", usage.output if usage else "?",
            "- ms" if first is None else f"{first * 1000:.0f} ms", len(exchange.attempts),
            f", safeguards: {', '.join(exchange.notes)}" if exchange.notes else "",
            f", {exchange.fault.kind}" if exchange.fault is not None else "",
        )  # fmt: skip


_QUIET = frozenset(
    ("root", "health", "info", "docs", "redoc", "openapi", "usage-stats", "usage-recent", "audit", "internal")
)
"""Pages that people and supervisors look at again and again."""


def served(incoming: Incoming, found: Route | NoRoute, status: int, seconds: float) -> None:
    """The one line of a request that was not generating, or was refused before it was read: lists, counts, pages, wrong keys."""
    page = isinstance(found, Route) and found.operation in _QUIET and status < 400
    _LOG.log(
        logging.DEBUG if page else logging.INFO,
        "%s %s -> %s %d ms", incoming.method, incoming.path[:200], status or "cancelled", seconds * 1000,
    )  # fmt: skip
