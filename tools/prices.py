"""Makes the packaged price data set from two maintained public ones: `python -m tools.prices WHEEL WHEEL [--compare]`.

The wheels are those of `genai-prices` (the base) and `litellm` (Qwen, names, the comparison), as `pip download --no-deps` fetches
them. Owns the choice of vendors and how differences are settled; the file's format is `llm_proxy.tokens.prices`' business.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import sys
import tempfile
import types
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llm_proxy.tokens.prices import Price, PriceTable, Tier, read_packaged

OUT = Path(__file__).parents[1] / "src" / "llm_proxy" / "tokens" / "prices.json"

VENDORS = {
    "openai": "openai", "anthropic": "anthropic", "google": "gemini", "openrouter": "openrouter", "zai": "zai", "mistral": "mistral",
    "deepseek": "deepseek", "groq": "groq", "x-ai": "xai", "moonshotai": "moonshot", "cerebras": "cerebras", "together": "together",
    "fireworks": "fireworks",
}  # fmt: skip
"""Providers of the base and the names of their tables here."""
SECOND = {"gemini": "gemini", "zai": "zai", "mistral": "mistral", "deepseek": "deepseek", "groq": "groq", "xai": "xai",
          "moonshot": "moonshot", "cerebras": "cerebras", "openai": "openai", "anthropic": "anthropic", "dashscope": "qwen"}  # fmt: skip
"""`litellm_provider` and the name of its table here."""
_FIELDS = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cached_read": "cache_read_mtok",
    "cached_write": "cache_write_mtok",
    "cached_write_1h": "cache_write_1h_mtok",
    "reasoning": "output_reasoning_mtok",
}
_SECOND_FIELDS = {
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cached_read": "cache_read_input_token_cost",
    "cached_write": "cache_creation_input_token_cost",
    "cached_write_1h": "cache_creation_input_token_cost_above_1hr",
    "reasoning": "output_cost_per_reasoning_token",
}
_MODES = {"chat", "responses", "completion", "embedding", None}
_STEPS = (32, 100, 128, 200, 256, 272, 512)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--compare", action="store_true", help="print where the two differ; write nothing")
    options = parser.parse_args()
    today = datetime.datetime.now(datetime.UTC).date()
    second = second_tables(options.second)
    base = base_tables(options.base, today, second)
    if options.compare:
        compare(base, second)
        return
    tables = {**base, **{vendor: second[vendor] for vendor in ("qwen", "deepseek")}}
    tables["mistral"] = PriceTable({**base["mistral"], **second["mistral"]})
    licences = [licence_of(path) for path in (options.base, options.second)]
    document = {
        "date": today.isoformat(),
        "unit": "US dollars for a million tokens",
        "sources": [
            {"name": name, "version": path.name.split("-")[1], "licence": text}
            for (name, path), text in zip((("genai-prices", options.base), ("litellm", options.second)), licences, strict=True)
        ],
    }  # fmt: skip
    OUT.write_text(written(document, tables), "utf-8")
    read_packaged(OUT.read_bytes())
    print({name: len(table) for name, table in tables.items()}, OUT.stat().st_size, "bytes")


def written(document: Mapping[str, Any], tables: Mapping[str, PriceTable]) -> str:
    """One line a model, sorted, so that a change of prices is a readable difference."""
    head = json.dumps(document, indent=1, ensure_ascii=False)[:-2]
    vendors = []
    for vendor, table in sorted(tables.items()):
        lines = [f"   {json.dumps(name)}: {json.dumps(plain(price))}" for name, price in sorted(table.items())]
        vendors.append(f"  {json.dumps(vendor)}: {{\n" + ",\n".join(lines) + "\n  }")
    return head + ',\n "prices": {\n' + ",\n".join(vendors) + "\n }\n}\n"


def plain(price: Price) -> dict[str, Any]:
    found: dict[str, Any] = {name: number(getattr(price, name)) for name in _NAMES if getattr(price, name) is not None}
    if price.tiers:
        found["tiers"] = [
            {"above": tier.above}
            | {name: number(getattr(tier, name)) for name in _NAMES if getattr(tier, name) is not None}
            for tier in price.tiers
        ]
    return found


_NAMES = tuple(_FIELDS)


def number(value: float) -> float | int:
    """Without the noise of a price per token times a million."""
    rounded = round(value, 6)
    return int(rounded) if rounded == int(rounded) else rounded


def licence_of(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("dist-info/licenses/LICENSE")]
        text = archive.read(name).decode()
    start = text.find("Copyright")
    holder = text[start : text.index("\n", start)].strip()
    return f"MIT. {holder}. " + _MIT


_MIT = (
    "Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation files "
    '(the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy, modify, merge, '
    "publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so, "
    "subject to the following conditions: The above copyright notice and this permission notice shall be included in all copies or "
    'substantial portions of the Software. THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING '
    "BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE "
    "AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, "
    "ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE."
)


# The base


def base_tables(wheel: Path, today: datetime.date, second: Mapping[str, PriceTable]) -> dict[str, PriceTable]:
    tables: dict[str, PriceTable] = {}
    for provider in _providers(wheel):
        if (vendor := VENDORS.get(provider.id)) is None:
            continue
        priced = [(model, price) for model in provider.models if (price := base_price(model, today)) is not None]
        table = PriceTable()
        for model, price in priced:
            for name in {model.id, *_beginnings(model.match)}:
                if not name.startswith(
                    "~"
                ):  # OpenRouter's moving names, whose price is that of another model each month
                    table[name.lower().removeprefix("models/")] = price
        # Where the base's rules are finer than beginnings of names, the names that the other set knows are told apart one by one.
        for name in second.get(vendor, {}):
            exact = next((price for model, price in priced if model.match.is_match(name)), None)
            if exact is not None and table.find(name) != exact:
                table[name] = exact
        tables[vendor] = table
    return tables


def _providers(wheel: Path) -> list[Any]:
    """The data of the package, without what it needs to run."""
    folder = tempfile.mkdtemp()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    package = types.ModuleType("genai_prices")
    package.__path__ = [f"{folder}/genai_prices"]
    sys.modules["genai_prices"] = package
    providers: list[Any] = importlib.import_module("genai_prices.data").providers
    return providers


def _beginnings(match: Any) -> Iterator[str]:
    """The names and beginnings of names that a rule of the base knows."""
    for one in getattr(match, "or_", None) or getattr(match, "and_", None) or (match,):
        if one is not match:
            yield from _beginnings(one)
        elif value := getattr(one, "equals", "") or getattr(one, "starts_with", ""):
            yield value


def base_price(model: Any, today: datetime.date) -> Price | None:
    """What holds today; None where tokens have no price."""
    prices = model.prices
    if isinstance(prices, list):
        held = [entry for entry in prices if _holds(entry.constraint, today)]
        if not held:
            return None
        prices = held[-1].prices
    values: dict[str, Any] = {}
    steps: dict[int, dict[str, float]] = {}
    for field, name in _FIELDS.items():
        value = getattr(prices, name, None)
        if value is None:
            continue
        for tier in getattr(value, "tiers", ()):
            steps.setdefault(tier.start, {})[field] = float(tier.price)
        values[field] = float(getattr(value, "base", value))
    if "input" not in values:
        return None
    return Price(**values, tiers=tuple(Tier(above=above, **step) for above, step in sorted(steps.items())))


def _holds(constraint: Any, today: datetime.date) -> bool:
    """A price that depends on the hour is none of ours."""
    return constraint is None or (hasattr(constraint, "start_date") and constraint.start_date <= today)


# The second


def second_tables(wheel: Path) -> dict[str, PriceTable]:
    with zipfile.ZipFile(wheel) as archive:
        listed = json.loads(archive.read("litellm/model_prices_and_context_window_backup.json"))
    tables: dict[str, PriceTable] = {}
    for name, entry in listed.items():
        provider = entry.get("litellm_provider")
        if (vendor := SECOND.get(provider)) is None or entry.get("mode") not in _MODES:
            continue
        if not entry.get("input_cost_per_token") and not entry.get("tiered_pricing"):
            continue
        tables.setdefault(vendor, PriceTable())[name.removeprefix(f"{provider}/").lower()] = second_price(entry)
    return tables


def second_price(entry: Mapping[str, Any]) -> Price:
    def at(suffix: str, said: Mapping[str, Any] = entry) -> dict[str, float]:
        return {field: said[name + suffix] * 1e6 for field, name in _SECOND_FIELDS.items() if said.get(name + suffix)}

    if ranges := entry.get("tiered_pricing"):
        first, *more = ranges
        return Price(**at("", first), tiers=tuple(Tier(above=int(said["range"][0]), **at("", said)) for said in more))
    tiers = [(step * 1000, found) for step in _STEPS if (found := at(f"_above_{step}k_tokens"))]
    return Price(**at(""), tiers=tuple(Tier(above=above, **found) for above, found in tiers))


def compare(base: Mapping[str, PriceTable], second: Mapping[str, PriceTable]) -> None:
    same = 0
    for vendor, table in second.items():
        for name, price in sorted(table.items()):
            found = base.get(vendor, PriceTable()).find(name)
            if found is None:
                print(f"{vendor:10} {name:45} only in the second: {plain(price)}")
            elif plain(found) != plain(price):
                print(f"{vendor:10} {name:45} {plain(found)}\n{'':56} {plain(price)}")
            else:
                same += 1
    print(same, "are the same")


if __name__ == "__main__":
    main()
