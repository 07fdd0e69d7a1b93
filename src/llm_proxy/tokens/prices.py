"""What tokens cost: prices by vendor and model, and what an answer's buckets of tokens come to.

Owns the format of price data, the look-up by the longest beginning of a name, and the sum. Must not know which vendor a back end
is, nor where files lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import msgspec

_MILLION: Final = 1_000_000


class Rates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """US dollars for a million tokens; None where the vendor names no price for that bucket.

    Then cached reads and writes cost what input costs, one-hour writes what other writes do, reasoning what output does.
    """

    input: float | None = None
    output: float | None = None
    cached_read: float | None = None
    cached_write: float | None = None
    cached_write_1h: float | None = None
    reasoning: float | None = None


class Tier(Rates, frozen=True, kw_only=True):
    """What holds for all tokens of a request whose input is larger than `above` tokens; what it does not name stays."""

    above: int


class Price(Rates, frozen=True, kw_only=True):
    """A model's rates. `tiers` by ascending size."""

    tiers: tuple[Tier, ...] = ()

    def for_input(self, tokens: int) -> Rates:
        """The rates of a request with so many input tokens, cached ones included."""
        tier = next((tier for tier in reversed(self.tiers) if tokens > tier.above), None)
        if tier is None:
            return self
        known = {name: value for name in Rates.__struct_fields__ if (value := getattr(tier, name)) is not None}
        return Rates(**{name: getattr(self, name) for name in Rates.__struct_fields__} | known)


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """Disjoint buckets. `cache_write_1h` is the part of `cache_write` that is kept for an hour."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    reasoning: int = 0


def cost_of(tokens: Tokens, price: Price) -> float | None:
    """US dollars; None where a bucket holds tokens that have no price."""
    rates = price.for_input(tokens.input + tokens.cache_read + tokens.cache_write)
    long = min(tokens.cache_write_1h, tokens.cache_write)
    written = _first(rates.cached_write, rates.input)
    buckets = (
        (tokens.input, rates.input),
        (tokens.cache_read, _first(rates.cached_read, rates.input)),
        (tokens.cache_write - long, written),
        (long, _first(rates.cached_write_1h, written)),
        (tokens.output, rates.output),
        (tokens.reasoning, _first(rates.reasoning, rates.output)),
    )
    total = 0.0
    for number, rate in buckets:
        if number:
            if rate is None:
                return None
            total += number * rate
    return total / _MILLION


def _first(rate: float | None, other: float | None) -> float | None:
    return other if rate is None else rate


class PriceTable(dict[str, Price]):
    """Prices by name of a model, in small letters. A name stands for itself and for what adds to it: `gpt-5` for `gpt-5-2025-08-07`, yet not
    for `gpt-5.1` or `gpt-50`, which are other models.
    """

    def find(self, model: str) -> Price | None:
        """The price of the longest name with which `model` begins."""
        name = model.lower()
        for length in range(len(name), 0, -1):
            if (price := self.get(name[:length])) is not None and _ends(name, length):
                return price
        return None


def _ends(name: str, length: int) -> bool:
    """Does the word that ends at `length` end there in `name` too?"""
    if length == len(name) or not name[length - 1].isalnum():
        return True
    return not name[length].isalnum() and name[length] != "."


class PriceData(msgspec.Struct, frozen=True):
    """The packaged data set. `date` is the day on which it was made; `prices` by vendor."""

    date: str
    prices: Mapping[str, dict[str, Price]]


def read_packaged(data: bytes) -> PriceData:
    return _DECODER.decode(data)


_DECODER: Final = msgspec.json.Decoder(PriceData)


class Prices:
    """Tables by vendor. `found` remembers what was looked up, within a bound: names of models come from clients."""

    def __init__(self, tables: Mapping[str, Mapping[str, Price]]) -> None:
        self._tables = {vendor: PriceTable(table) for vendor, table in tables.items()}
        self.find = lru_cache(maxsize=2048)(self._find)

    def _find(self, vendor: str, model: str) -> Price | None:
        table = self._tables.get(vendor)
        return table.find(model) if table is not None and len(model) <= _LONGEST else None


_LONGEST: Final = 300
"""Characters of a model's name; a longer one has no price."""
