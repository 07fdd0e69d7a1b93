"""Guessing keys is slow (OPS-02): wrong keys are counted per address, and an address that sends too many is blocked for a while.

Owns counting and the lengths of blocks. Outlives configurations: a reload frees nobody. Knows no key, no header and no path.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from llm_proxy.config.access import BruteForceOptions

_LOG = logging.getLogger(__name__)

MOST_SITES: Final = 10_000
MOST_FAILURES: Final = 10_000
"""Wrong keys of all addresses together within the time window. Beyond it a crowd is guessing, each member below the limit of its own:
then the first wrong key blocks its address. Who has a right key notices nothing."""


class _Record:
    """The wrong keys of one address: their times (monotonic seconds), the length of the last block, and when it ends."""

    __slots__ = ("block", "failures", "last", "until")

    def __init__(self, now: float) -> None:
        self.failures: list[float] = []
        self.block = 0.0
        self.until = -math.inf
        self.last = now


class BruteForce:
    """`clock` is monotonic seconds. A `site` is an address as `Sender.site` writes it."""

    def __init__(self, clock: Callable[[], float], options: BruteForceOptions) -> None:
        self._clock = clock
        self._options = options
        self._records: OrderedDict[str, _Record] = OrderedDict()  # the latest failure last
        self._since = -math.inf  # the beginning of the window in which all failures are counted
        self._count = 0
        self._count_before = 0
        self._crowd_told = -math.inf

    def __len__(self) -> int:
        return len(self._records)

    @property
    def valid_keys_pass(self) -> bool:
        return self._options.valid_keys_pass

    def facts(self) -> dict[str, int]:
        """For the operator's page: addresses whose wrong keys are remembered, and those that are blocked now."""
        now = self._clock()
        blocked = sum(now < record.until for record in self._records.values())
        return {"addresses_with_wrong_keys": len(self._records), "blocked_addresses": blocked}

    def configure(self, options: BruteForceOptions) -> None:
        """What was counted stays, unless the protection is off."""
        self._options = options
        if not options.enabled:
            self._records.clear()

    def blocked(self, site: str) -> float:
        """Seconds for which `site` is still blocked; 0 when it is not."""
        record = self._records.get(site)
        return max(0.0, record.until - self._clock()) if record is not None else 0.0

    def succeeded(self, site: str) -> None:
        """A right key: everything is forgiven."""
        self._records.pop(site, None)

    def failed(self, site: str) -> None:
        """A wrong key. One that comes while its address is blocked neither lengthens the block nor counts."""
        if not self._options.enabled:
            return
        now = self._clock()
        crowded = self._crowded(now)
        record = self._records.pop(site, None)
        if record is None or self._ended(record, now):
            record = _Record(now)
        self._records[site] = record
        self._make_room(now)
        if now < record.until:
            return
        record.last = now
        length = self._next_block(record, now, crowded)
        if length:
            record.block, record.until = length, now + length
            record.failures = []
            if not crowded:
                _LOG.warning("too many wrong client keys from %s: blocked for %g s", site, length)

    def _next_block(self, record: _Record, now: float, crowded: bool) -> float:
        """Seconds of the block that this failure means, 0 for none."""
        options = self._options
        if record.block:
            return min(record.block * options.block_multiplier, float(options.max_block_seconds))
        record.failures = failures = [at for at in record.failures if at > now - options.ttl_seconds]
        failures.append(now)
        enough = 1 if crowded else options.max_failed_attempts
        return float(min(options.initial_block_seconds, options.max_block_seconds)) if len(failures) >= enough else 0.0

    def _ended(self, record: _Record, now: float) -> bool:
        return now >= max(record.last, record.until) + self._options.ttl_seconds

    def _make_room(self, now: float) -> None:
        """Lets go of the oldest: those that have ended, and whatever the table cannot hold."""
        for _ in range(2):  # each failure adds one at most
            oldest = next(iter(self._records.values()))
            if len(self._records) > MOST_SITES or self._ended(oldest, now):
                self._records.popitem(last=False)

    def _crowded(self, now: float) -> bool:
        """Counts this failure; have there been too many of all addresses together?"""
        window = self._options.ttl_seconds
        passed = now - self._since
        if passed >= window:
            self._count_before = self._count if passed < 2 * window else 0
            self._since, self._count, passed = now, 0, 0.0
        self._count += 1
        # The share of the window before that still lies within the last `window` seconds.
        crowded = self._count + self._count_before * (1 - passed / window) > MOST_FAILURES
        if crowded and now - self._crowd_told >= window:
            self._crowd_told = now
            _LOG.warning("wrong client keys from many addresses: each further one blocks its address at once")
        return crowded
