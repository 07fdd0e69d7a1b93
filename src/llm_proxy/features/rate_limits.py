"""Rate limits of the proxy's own: how many calls a back-end, a model or a client may make in a sliding window (OPS-12).

Owns its options, which limits hold for a try, what a try counts for each, and the words of a refusal. What was counted lives in
`Counts`, which outlives a configuration. Knows nothing of routes: what is tried instead, and when, is decided elsewhere.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final
from weakref import WeakKeyDictionary

from llm_proxy.config import Settings, model_defaults_for
from llm_proxy.config.kinds import RateLimit
from llm_proxy.config.model_defaults import configured_limits
from llm_proxy.config.options import OptionGroup, option
from llm_proxy.conversation.fault import Fault
from llm_proxy.features import Feature
from llm_proxy.features.exchange import CallView, Candidate
from llm_proxy.features.sliding_windows import Limit, SlidingWindows, Use

_BYTES_PER_TOKEN: Final = 4
_USUAL_OUTPUT: Final = 256  # tokens reserved for an answer of which the request names no limit
_OUTPUT_LIMITS: Final = (
    "max_completion_tokens", "max_output_tokens", "max_tokens", "maxOutputTokens",
)  # fmt: skip


class RateLimitOptions(OptionGroup, title="Rate limits"):
    rate_limits: dict[str, RateLimit] = option(
        {},
        help="most requests within a sliding window, for each key; `default` holds for each back-end without a limit of its own",
    )
    default_rate_limit: int | None = option(
        None, env="DEFAULT_RATE_LIMIT", minimum=1, help="another name of `rate_limits.default.limit`"
    )
    default_rate_window: float | None = option(
        None,
        env="DEFAULT_RATE_WINDOW",
        above=0,
        unit="seconds",
        default_text="60",
        help="another name of `rate_limits.default.time_window`",
    )


class _Account:
    """What one exchange has counted: its request for the client, and calls and tokens of the try that was admitted last."""

    __slots__ = ("calls", "client", "made", "tokens")

    def __init__(self) -> None:
        self.client: Use | None = None
        self.calls: list[Use] = []
        self.tokens: list[Use] = []
        self.made = 0
        """Calls that were made before the last try."""


class Counts:
    """All that was counted; made once per process. `clock` is monotonic and in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.windows = SlidingWindows(clock)
        self.accounts: WeakKeyDictionary[CallView, _Account] = WeakKeyDictionary()


def limits_anything(settings: Settings) -> bool:
    """Is any limit configured? Without one the room need not be there."""
    if settings.get(RateLimitOptions).rate_limits:
        return True
    return any(limits.requests_per_minute or limits.tokens_per_minute for limits in configured_limits(settings))


class RateLimits(Feature):
    """Admits a try when every limit that holds for it has room, and then counts it for all of them at once."""

    name = "rate limits"

    def __init__(self, settings: Settings, counts: Counts, now: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._entries: Mapping[str, RateLimit] = settings.get(RateLimitOptions).rate_limits
        self._counts = counts
        self._now = now
        # Names of models come from clients: what is remembered of them is bounded.
        self._of_target = lru_cache(maxsize=512)(self._find)

    def _find(self, backend: str, model: str) -> tuple[Limit, ...]:
        """The limits of a back-end and of a model there."""
        found: list[Limit] = []
        if (entry := self._entries.get(f"backend:{backend}")) is not None:
            found.append(_limit(f"backend:{backend}", entry))
        elif (entry := self._entries.get("default")) is not None:
            found.append(_limit(f"default (backend:{backend})", entry))
        name = f"model:{backend}:{model}"
        if (entry := self._entries.get(name)) is not None:
            found.append(_limit(name, entry))
        limits = model_defaults_for(self._settings, backend, model).limits
        if limits.requests_per_minute is not None:
            found.append(Limit(name, limits.requests_per_minute, 60.0))
        if limits.tokens_per_minute is not None:
            found.append(Limit(name, limits.tokens_per_minute, 60.0, "tokens"))
        return tuple(dict.fromkeys(found))

    def _of_client(self, key_name: str) -> Limit | None:
        entry = self._entries.get(f"client:{key_name}")
        return None if entry is None else _limit(f"client:{key_name}", entry)

    # Before a try

    async def admit(self, exchange: CallView, candidate: Candidate) -> Fault | None:
        """Counts the try, or says until when it must wait. Nothing is awaited between looking and counting."""
        limits, client = self._of_target(candidate.backend, candidate.model), self._of_client(exchange.key_name)
        account = self._counts.accounts.get(exchange)
        if account is not None:
            self._settle(account, exchange, failed=True)
        elif limits or client is not None:
            account = self._counts.accounts[exchange] = _Account()
        else:
            return None
        wanted = [(limit, _estimate(exchange) if limit.unit == "tokens" else 1) for limit in limits]
        # However many tries it takes, the client has sent one request.
        if client is not None and account.client is None:
            wanted.append((client, 1))
        windows = self._counts.windows
        for_longest = max(((windows.wait(*one), one) for one in wanted), key=lambda found: found[0], default=None)
        if for_longest is not None and for_longest[0] > 0:
            return self._refusal(*for_longest[1], for_longest[0])
        account.made = len(exchange.attempts)
        for limit, amount in wanted:
            use = windows.take(limit, amount)
            if limit is client:
                account.client = use
            else:
                (account.tokens if limit.unit == "tokens" else account.calls).append(use)
        return None

    def outlook(self, candidate: Candidate, key_name: str) -> str:
        """Why a request of that client key would not be admitted now, as a sentence; "" when it would."""
        limits: Iterable[Limit] = self._of_target(candidate.backend, candidate.model)
        if (client := self._of_client(key_name)) is not None:
            limits = (*limits, client)
        least = {"tokens": _USUAL_OUTPUT}  # what a request reserves that names no limit of its own
        waits = [(self._counts.windows.wait(limit, least.get(limit.unit, 1)), limit) for limit in limits]
        wait, limit = max(waits, key=lambda found: found[0], default=(0.0, None))
        return "" if limit is None or wait <= 0 else f"{_reached(limit)}; it is free again in {math.ceil(wait)} s."

    def _refusal(self, limit: Limit, amount: int, wait: float) -> Fault:
        remaining = max(0, limit.limit - self._counts.windows.used(limit))
        message = f"{_reached(limit)}. Try again in {math.ceil(wait)} s."
        if amount > limit.limit:
            message += f" This request is estimated at {amount} tokens, more than the limit: it waits until nothing else counts."
        return Fault(
            kind="rate_limit",
            message=message,
            side="proxy",
            retry_after=wait,
            details={
                "scope": limit.name,
                "unit": limit.unit,
                "limit": limit.limit,
                "time_window": limit.seconds,
                "remaining": remaining,
                "reset_at": math.ceil(self._now() + wait),
            },
        )

    # After it

    def on_finish(self, exchange: CallView) -> None:
        account = self._counts.accounts.pop(exchange, None)
        if account is None:
            return
        if account.client is not None and not _called(exchange, 0):
            self._counts.windows.correct(account.client, 0)
        failed = exchange.fault is not None and exchange.time_to_first is None
        self._settle(account, exchange, failed=failed)

    def _settle(self, account: _Account, exchange: CallView, *, failed: bool) -> None:
        """The last try is over. `failed`: the provider gave no answer, so it billed no tokens."""
        correct = self._counts.windows.correct
        if not _called(
            exchange, account.made
        ):  # another room refused, or the request cannot be written for this target
            for use in (*account.calls, *account.tokens):
                correct(use, 0)
        elif failed:
            for use in account.tokens:
                correct(use, 0)
        elif exchange.usage is not None and account.tokens:
            billed = exchange.usage.total
            early = exchange.cancelled or exchange.fault is not None
            for use in account.tokens:
                # What a provider had written when it was cut off is not known: no less than what was reserved counts.
                correct(use, max(billed, use.amount) if early else billed)
        account.calls, account.tokens = [], []


def _called(exchange: CallView, before: int) -> bool:
    """Was a provider called after the first `before` calls? Where the client left, that is not always on record."""
    return len(exchange.attempts) > before or exchange.cancelled or exchange.time_to_first is not None


def _limit(name: str, entry: RateLimit) -> Limit:
    return Limit(name, entry.limit, entry.time_window)


def _reached(limit: Limit) -> str:
    unit = limit.unit.removesuffix("s") if limit.limit == 1 else limit.unit
    return f"Rate limit {limit.name} of the proxy is reached ({limit.limit} {unit} in {limit.seconds:g} s)"


def _estimate(exchange: CallView) -> int:
    """Tokens that a call will cost at most, as far as its size and its output limit tell; nothing is decoded for it."""
    parameters: Mapping[str, Any] = exchange.parameters()
    given = (parameters.get(name) for name in _OUTPUT_LIMITS)
    output = next((value for value in given if isinstance(value, int) and value > 0), _USUAL_OUTPUT)
    return exchange.size // _BYTES_PER_TOKEN + output
