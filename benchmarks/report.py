"""The budgets and how figures are shown beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from benchmarks.end_to_end import Figures
from benchmarks.micro import MicroFigure

OURS, NGINX = "llm-proxy", "nginx"


class Budget(msgspec.Struct, frozen=True):
    """One line of the table. `at_least`: more is better (ratios against other gateways)."""

    what: str
    unit: str
    first: float
    goal: float
    value: Callable[[Figures], float | None]
    at_least: bool = False


def _over_nginx(part: str, mode: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures.ratio(part, (OURS, mode), (NGINX, "same"))


def _under(peer: str, part: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures.ratio(part, (peer, "same"), (OURS, "same"))


def _median(what: str, mode: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures.median(what, OURS, mode)


def _number(name: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures.numbers.get(name)


BUDGETS: tuple[Budget, ...] = (
    Budget("2 kB JSON, same protocol", "× nginx", 7, 4, _over_nginx("request", "same")),
    Budget("2 kB JSON, translated", "× nginx", 9, 5, _over_nginx("request", "translated")),
    Budget("100 kB agent request, same protocol", "× nginx", 5, 3, _over_nginx("agent", "same")),
    Budget("100 kB agent request, translated", "× nginx", 9, 5, _over_nginx("agent", "translated")),
    Budget("streamed chunk, same protocol, burst", "× nginx", 2.5, 1.5, _over_nginx("burst", "same")),
    Budget("streamed chunk, same protocol, paced", "× nginx", 2.7, 2, _over_nginx("paced", "same")),
    Budget("streamed chunk, translated, burst", "× nginx", 4, 2.5, _over_nginx("burst", "translated")),
    Budget("streamed chunk, translated, paced", "× nginx", 3, 2.3, _over_nginx("paced", "translated")),
    Budget("added latency at 200 requests/s, p50", "ms", 0.8, 0.4, _median("latency p50", "same")),
    Budget("added latency at 200 requests/s, p99", "ms", 3, 1, _median("latency p99", "same")),
    Budget("start to first answer", "s", 0.8, 0.4, _median("start", "warm")),
    Budget("memory idle", "MB", 60, 40, _median("idle", "warm")),
    Budget("memory per open stream", "kB", 60, 40, _number("open stream kB same")),
    Budget("against LiteLLM, per request", "× less CPU", 50, 100, _under("LiteLLM", "request"), True),
    Budget("against LiteLLM, per streamed chunk", "× less CPU", 50, 100, _under("LiteLLM", "burst"), True),
    Budget("against Portkey, per request", "× less CPU", 8, 12, _under("Portkey", "request"), True),
    Budget("against Portkey, per streamed chunk", "× less CPU", 3, 5, _under("Portkey", "burst"), True),
)


def _verdict(budget: Budget, value: float) -> str:
    def holds(limit: float) -> bool:
        return value >= limit if budget.at_least else value <= limit

    return "goal" if holds(budget.goal) else "first target" if holds(budget.first) else "missed"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def budget_table(figures: Figures) -> str:
    rows = [("what", "budget", "first target", "goal beyond", "measured", "holds")]
    for budget in BUDGETS:
        value = budget.value(figures)
        verdict = "not measured" if value is None else _verdict(budget, value)
        rows.append((budget.what, budget.unit, f"{budget.first:g}", f"{budget.goal:g}", _figure(value), verdict))
    return _table(rows)


_PARTS = (
    ("request", "CPU µs per 2 kB request"),
    ("agent", "CPU µs per 100 kB agent request"),
    ("burst", "CPU µs per streamed chunk, burst"),
    ("paced", "CPU µs per streamed chunk, paced"),
    ("latency p50", "added latency, p50, ms"),
    ("latency p99", "added latency, p99, ms"),
)
_MODES = {"same": "same protocol", "translated": "Chat → Anthropic", "anthropic": "Anthropic → Chat"}


def absolute_table(figures: Figures) -> str:
    """The measured figures themselves, one column for each target and way."""
    columns = sorted({key[1:] for key in figures.cells if key[0] in dict(_PARTS)}, key=_column_order)
    if not columns:
        return ""
    rows = [("medians of rounds", *(f"{target}, {_MODES[mode]}" for target, mode in columns))]
    for part, title in _PARTS:
        values = [figures.median(part, *column) for column in columns]
        if any(value is not None for value in values):
            rows.append((title, *map(_figure, values)))
    return _table(rows)


def _column_order(column: tuple[str, str]) -> tuple[int, int]:
    targets = (NGINX, "bare", OURS, "Portkey", "LiteLLM")
    return targets.index(column[0]), list(_MODES).index(column[1])


def other_lines(figures: Figures) -> list[str]:
    lines = []
    for kind in ("cold", "warm"):
        start, idle = figures.median("start", OURS, kind), figures.median("idle", OURS, kind)
        if start is not None and idle is not None:
            lines.append(f"start to the first demo answer, bytecode {kind}: {start:.2f} s, then {idle:.0f} MB resident")
    lines += [f"{name}: {_figure(value)}" for name, value in figures.numbers.items()]
    return lines + figures.notes


def micro_table(figures: Sequence[MicroFigure]) -> str:
    rows = [("part", "operation", "per", "µs")]
    rows += [(one.part, one.operation, one.unit, _figure(one.micros)) for one in figures]
    return _table(rows)
