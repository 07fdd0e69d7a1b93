"""What a call costs (OPS-08): the provider's own word, else the packaged prices with those of `usage_tracking.price_file` over them.

Owns which vendor's prices hold for a back end, which calls cost nothing, and the reading of a price file. The packaged data is read when
the first price is asked for. Knows nothing of rows and pages; no network.
"""

from __future__ import annotations

import logging
import pkgutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

import msgspec

from llm_proxy.config import Settings
from llm_proxy.config.backends import BackendSettings
from llm_proxy.config.document import Node
from llm_proxy.config.kinds import Kind, Mismatch
from llm_proxy.config.options import Content, OptionGroup, option
from llm_proxy.conversation.usage import Usage
from llm_proxy.store.records import CostSource
from llm_proxy.tokens.prices import Price, Prices, Rates, Tier, Tokens, cost_of, read_packaged

_LOG = logging.getLogger(__name__)

Tables = Mapping[str, Mapping[str, Price]]

_RATE: Final = Kind("float", minimum=0)
_STEP: Final = Kind("int", minimum=0)
_RATES: Final = Rates.__struct_fields__

_VENDOR_OF_TYPE: Final = {
    "openai-responses": "openai",
    "openai-oauth": "openai",
    "anthropic-oauth": "anthropic",
    "gemini-cli-oauth-personal": "gemini",
    "gemini-cli-cloud-project": "gemini",
    "gemini-cli-acp": "gemini",
    "qwen-oauth": "qwen",
    "zai-coding-plan": "zai",
}
_VENDOR_OF_HOST: Final = {
    "api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "generativelanguage.googleapis.com": "gemini",
    "openrouter.ai": "openrouter",
    "api.z.ai": "zai",
    "api.mistral.ai": "mistral",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.x.ai": "xai",
    "api.moonshot.ai": "moonshot",
    "api.moonshot.cn": "moonshot",
    "api.cerebras.ai": "cerebras",
    "api.together.xyz": "together",
    "api.fireworks.ai": "fireworks",
    "dashscope.aliyuncs.com": "qwen",
    "dashscope-intl.aliyuncs.com": "qwen",
}
"""Vendors that are reached through a type of another, by the host of `base_url`."""
_PLANS: Final = frozenset({"zai-coding-plan"})
"""Types with a key that belongs to a subscription."""
_GIVEN_AWAY: Final = ":free"
"""How names of OpenRouter's models end that cost nothing."""
_NOTHING: Final = Price(input=0, output=0)


class Bill(msgspec.Struct, frozen=True):
    """US dollars, None where nobody knows, and who says so."""

    cost: float | None
    source: CostSource


# Reading


def read_prices(node: Node) -> Tables:
    """The tables of a price file. Raises Mismatch. What the packaged file says beside its prices is allowed and not looked at."""
    members = _members(node, ("prices", "date", "unit", "sources"), "a price file")
    tables: dict[str, dict[str, Price]] = {}
    for vendor, models in _map(members.get("prices", Node({}, node.place)), "back-end types or ids under prices"):
        table = tables.setdefault(vendor.lower(), {})
        for name, price in _map(models, f"models and their prices in {vendor}"):
            table[name.lower()] = _read_price(price, f"{vendor}.{name}")
    return tables


def _read_price(node: Node, where: str) -> Price:
    members = _members(node, (*_RATES, "tiers"), where)
    tiers: list[Tier] = []
    if (given := members.pop("tiers", None)) is not None:
        if not isinstance(given.value, list):
            raise Mismatch(f"a list of maps with `above` as {where}.tiers", given)
        for item in given.value:
            values = _members(item, ("above", *_RATES), f"{where}.tiers")
            if "above" not in values:
                raise Mismatch(f"a map with `above` in {where}.tiers", item)
            above = _number(_STEP, values.pop("above"), f"{where}.tiers.above")
            tiers.append(Tier(above=above, **_rates(values, f"{where}.tiers")))
    return Price(**_rates(members, where), tiers=tuple(sorted(tiers, key=lambda tier: tier.above)))


def _rates(members: Mapping[str, Node], where: str) -> dict[str, float]:
    return {name: _number(_RATE, node, f"{where}.{name}") for name, node in members.items() if node.value is not None}


def _number(kind: Kind, node: Node, where: str) -> Any:
    try:
        return kind.read(node, Path())
    except Mismatch as mismatch:
        raise Mismatch(f"{mismatch.expected} as {where}", node) from None


def _members(node: Node, known: Sequence[str], what: str) -> dict[str, Node]:
    found = dict(_map(node, f"a map as {what}"))
    for name, item in found.items():
        if name not in known:
            raise Mismatch(f"{', '.join(known)} in {what}", Node(name, item.key_place or item.place))
    return found


def _map(node: Node, what: str) -> list[tuple[str, Node]]:
    if node.value is None:
        return []
    if not isinstance(node.value, dict):
        raise Mismatch(what, node)
    return list(node.value.items())


class PriceOptions(OptionGroup, path="usage_tracking", title="Prices"):
    price_file: Path | None = option(
        None,
        env="USAGE_PRICE_FILE",
        content=Content("prices.yaml", read_prices),
        default_text="config/prices.yaml, over the packaged data set",
        help="file of prices that add to the packaged ones or count instead of them",
    )


# Asking


class Pricing:
    """The prices of one configuration: what a call of one of its `backends` costs. `own` counts before what is packaged."""

    def __init__(self, backends: Mapping[str, BackendSettings], own: Tables | None = None) -> None:
        self._backends = backends
        self._own = own or {}

    def bill(self, backend: str, model: str, usage: Usage | None, address: str = "") -> Bill:
        """What an answer of `model` cost; `usage` None where the call brought none. `address`: another server than the back end's, whose
        prices are known only if it is a known vendor's.
        """
        if usage is not None and usage.cost is not None:
            return Bill(usage.cost, "reported")
        settings = self._backends.get(backend)
        if settings is None:
            return Bill(None, "unknown")
        if address:
            return _bill(self._prices.find(_VENDOR_OF_HOST.get(urlsplit(address).hostname or "", ""), model), usage)
        if backend not in self._own:
            if settings.login or settings.type in _PLANS:
                return Bill(0.0, "subscription")
            if settings.no_auth or settings.type == "demo":
                return Bill(0.0, "local")
        return _bill(self._price(settings, model), usage)

    def _price(self, settings: BackendSettings, model: str) -> Price | None:
        model = model.removeprefix("models/")
        vendor = vendor_of(settings)
        free = vendor == "openrouter" and model.endswith(_GIVEN_AWAY)
        for table in dict.fromkeys((settings.id, settings.type, vendor)):
            if free and model.lower() not in self._own.get(table, ()):
                continue  # the longest beginning is the name of its paid twin
            if (price := self._prices.find(table, model)) is not None:
                return price
        return _NOTHING if free else None

    @cached_property
    def _prices(self) -> Prices:
        packaged = _packaged()
        return Prices({name: {**packaged.get(name, {}), **self._own.get(name, {})} for name in {*packaged, *self._own}})


def _bill(price: Price | None, usage: Usage | None) -> Bill:
    cost = None if price is None else cost_of(tokens_of(usage), price)
    return Bill(cost, "unknown" if cost is None else "priced")


_read: dict[str, Tables] = {}


def _packaged() -> Tables:
    """The packaged prices; reading them takes two milliseconds, once in a process."""
    if "prices" not in _read:
        try:
            _read["prices"] = read_packaged(pkgutil.get_data("llm_proxy.tokens", "prices.json") or b"").prices
        except (OSError, msgspec.MsgspecError) as error:
            _LOG.error("the packaged prices cannot be read, calls have no price: %s", error)
            _read["prices"] = {}
    return _read["prices"]


def vendor_of(settings: BackendSettings) -> str:
    """Whose prices hold: those of the address where it is a known vendor's, else those of the type."""
    host = urlsplit(settings.base_url or "").hostname or ""
    return _VENDOR_OF_HOST.get(host) or _VENDOR_OF_TYPE.get(settings.type, settings.type)


def tokens_of(usage: Usage | None) -> Tokens:
    """The disjoint buckets. Where a provider counts more cached or reasoning tokens than there are in all, the sum stays the sum."""
    if usage is None:
        return Tokens()
    entered, left = usage.input or 0, usage.output or 0
    read = min(usage.cache_read or 0, entered)
    write = min(usage.cache_write or 0, entered - read)
    reasoning = min(usage.reasoning or 0, left)
    return Tokens(
        input=entered - read - write,
        output=left - reasoning,
        cache_read=read,
        cache_write=write,
        cache_write_1h=min(usage.cache_write_1h or 0, write),
        reasoning=reasoning,
    )


def pricing_of(settings: Settings) -> Pricing:
    found = settings.content("usage_tracking.price_file")
    return Pricing(settings.backends, cast("Tables", found) if isinstance(found, dict) else None)
