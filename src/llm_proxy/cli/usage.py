"""`llm-proxy usage`: what was used, in tokens and money: asked of a running proxy, else read from its records.

Owns the tables that people read. Sums and rows are the ledger's, the members of `--json` those of the pages.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from llm_proxy.cli import CommandFault, client
from llm_proxy.config import Settings
from llm_proxy.config.groups import UsageOptions
from llm_proxy.store.records import UsageFilter

_GROUPS: Final = ("day", "model", "backend", "project", "key", "session")
_FILTERS: Final = {
    "backend": "backend",
    "model": "model",
    "project": "project",
    "session": "session_id",
    "user": "username",
}
"""Flags of the command and what the page calls them."""
_MOST_RECENT: Final = 1000
_EXAMPLES: Final = """examples:
  llm-proxy usage                          the last 30 days, by model
  llm-proxy usage --by day --days 7        one line a day
  llm-proxy usage --by project --days 0    all that was ever recorded
  llm-proxy usage --model gpt-5 --by key   who used this model
  llm-proxy usage --recent 20              the newest calls, one a line
  llm-proxy usage --json | jq .data.totals.cost

INPUT counts all that went in, CACHED is the part of it that a provider's cache gave; OUTPUT counts all that came out, REASONING is
the part of it that was thinking. A cost with + leaves out calls whose price nobody knows."""


def usage(arguments: Sequence[str]) -> int:
    parser = client.parser("usage", "Show tokens, calls and cost.", _EXAMPLES)
    parser.add_argument("--by", choices=_GROUPS, default="model", help="one line for each of these [default: model]")
    parser.add_argument("--days", type=_days, default=30, metavar="N", help="so many days back; 0 = all [default: 30]")
    parser.add_argument("--recent", type=_recent, metavar="N", help="the newest N calls instead of sums (1-1000)")
    parser.add_argument("--backend", metavar="ID", help="only calls of this back-end")
    parser.add_argument(
        "--model", metavar="NAME", help="only this model, as backend:model or the provider's name for it"
    )
    parser.add_argument("--project", metavar="NAME", help="only this project")
    parser.add_argument("--session", metavar="ID", help="only this session")
    parser.add_argument("--user", metavar="NAME", help="only this user")
    parser.add_argument("--json", action="store_true", help="print what the page /usage/stats or /usage/recent says")
    client.add_address(parser)
    options, settings = client.read(parser, arguments)
    body = _found(options, settings)
    if options.json:
        print(json.dumps(body, indent=2, ensure_ascii=False))
    elif options.recent is not None:
        _print_recent(body["data"])
    else:
        _print_sums(body["data"], options.by, options.days)
    return 0


def _days(text: str) -> int:
    days = _whole_number(text)
    if not -(10**6) < days < 10**6:
        raise argparse.ArgumentTypeError(f"expected a number of days, got {text!r}")
    return days


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None


def _recent(text: str) -> int:
    number = _whole_number(text)
    if not 1 <= number <= _MOST_RECENT:
        raise argparse.ArgumentTypeError("expected a number from 1 to 1000")
    return number


# Asking


def _found(options: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    wanted = {name: value for flag, name in _FILTERS.items() if (value := getattr(options, flag))}
    try:
        return _from_proxy(options, client.locate(options, settings), wanted)
    except client.NotRunning as fault:
        if options.url:
            raise
        return asyncio.run(_from_records(options, settings, wanted, str(fault)))


def _from_proxy(options: argparse.Namespace, proxy: client.Proxy, wanted: Mapping[str, str]) -> dict[str, Any]:
    if options.recent is not None:
        path = "/usage/recent?" + urlencode({"limit": options.recent, **wanted})
    else:
        path = "/usage/stats?" + urlencode({"days": options.days, **wanted})
    with client.asking(proxy, "GET", path) as response:
        try:
            body = json.loads(response.read())
            if body["object"] in ("usage_stats", "usage_entries"):
                return dict(body)
        except (ValueError, KeyError, TypeError):
            pass
    raise CommandFault(f"{proxy} answers, but not with usage; is it this proxy?")


async def _from_records(
    options: argparse.Namespace, settings: Settings, wanted: Mapping[str, str], reason: str
) -> dict[str, Any]:
    """What the database says, which is only read. Raises CommandFault when there is none."""
    from llm_proxy.store.ledger import Ledger
    from llm_proxy.store.ledger.places import FILE_NAME, database_at
    from llm_proxy.store.sessions import StoreUnusable
    from llm_proxy.store.shown import entries_body, stats_body

    kept = settings.get(UsageOptions)
    if kept.repository == "in_memory":
        raise CommandFault(f"{reason}\nand usage is kept in memory only (option usage_tracking.repository)")
    place = kept.file_path or settings.data_dir / FILE_NAME
    try:
        database = database_at(place)
    except StoreUnusable as error:
        raise CommandFault(str(error), status=2) from None
    if not database.exists():
        raise CommandFault(f"{reason}\nand there are no records in {database.shown}")
    since = time.time() - options.days * 86400 if options.days > 0 and options.recent is None else None
    filter_ = UsageFilter(
        since=since,
        backend=wanted.get("backend"),
        model=wanted.get("model"),
        project=wanted.get("project"),
        session=wanted.get("session_id"),
        username=wanted.get("username"),
    )
    ledger = Ledger(place, database=database)
    try:
        if options.recent is not None:
            return entries_body(await ledger.recent(filter_, options.recent))
        return stats_body(await ledger.stats(filter_), {"days": options.days, **wanted})
    finally:
        await ledger.close()


# Tables

_HEAD: Final = ("CALLS", "ERRORS", "INPUT", "CACHED", "OUTPUT", "REASONING", "COST", "MEAN", "FIRST")


def _print_sums(data: Mapping[str, Any], by: str, days: int) -> None:
    groups = [(day["date"], day) for day in data["by_day"]] if by == "day" else list(data[f"by_{by}"].items())
    if by != "day":
        groups.sort(key=lambda group: (-(group[1]["cost"] or 0), -group[1]["total_tokens"], group[0]))
    period = f"the last {days} days" if days > 0 else "all time"
    if not data["totals"]["requests"]:
        print(f"nothing was used in {period}" if days > 0 else "nothing was used")
        return
    rows: list[tuple[str, ...]] = [(by.upper(), *_HEAD)]
    rows += [(_name(name), *_sums(totals)) for name, totals in groups]
    rows.append((f"all, {period}", *_sums(data["totals"])))
    _print_table(rows, left=1, last_is_total=True)
    if data["unpriced"]:
        print(f"\nno price is known for: {', '.join(map(client.printable, data['unpriced']))}")
        print("(name prices in a file: option usage_tracking.price_file)")


def _sums(totals: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"{totals['requests']:,}",
        f"{totals['errors']:,}" if totals["errors"] else "-",
        f"{totals['prompt_tokens']:,}",
        f"{totals['cached_tokens']:,}" if totals["cached_tokens"] else "-",
        f"{totals['completion_tokens']:,}",
        f"{totals['reasoning_tokens']:,}" if totals["reasoning_tokens"] else "-",
        money(totals["cost"]) + ("+" if totals["cost"] is not None and totals["unpriced_requests"] else ""),
        _seconds(totals["avg_duration_ms"]),
        _seconds(totals["avg_ttft_ms"]),
    )


def _print_recent(entries: Sequence[Mapping[str, Any]]) -> None:
    if not entries:
        print("nothing was used")
        return
    rows = [("TIME", "MODEL", "USER", "SESSION", "STATUS", "INPUT", "OUTPUT", "COST", "TOOK")]
    for entry in entries:
        when = datetime.fromtimestamp(entry["timestamp"]).strftime("%Y-%m-%d %H:%M:%S")
        rows.append(
            (
                when,
                _name(entry["model"]),
                _name(entry["username"]),
                _name(entry["session"]),
                str(entry["status"]),
                f"{entry['prompt_tokens']:,}",
                f"{entry['completion_tokens']:,}",
                money(entry["cost"]),
                _seconds(entry["execution_time"] * 1000),
            )
        )
    _print_table(rows, left=4)


def _print_table(rows: Sequence[Sequence[str]], *, left: int, last_is_total: bool = False) -> None:
    """Columns as wide as their widest cell: the first `left` begin at the left, the others, numbers, end at the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        line = "  ".join(cells).rstrip()
        strong = number == 0 or (last_is_total and number == len(rows) - 1)
        print(client.emphasised(line) if strong else line)


def _name(text: str) -> str:
    shown = client.printable(text) or "-"
    return shown if len(shown) <= _WIDEST else shown[: _WIDEST - 1] + "…"


_WIDEST: Final = 48


def money(cost: float | None) -> str:
    """US dollars with as many digits as tell something; "?" where nobody knows."""
    if cost is None:
        return "?"
    if cost == 0:
        return "$0"
    return f"${cost:,.2f}" if cost >= 100 else f"${cost:.4f}" if cost >= 0.0001 else f"${cost:.6f}"


def _seconds(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds / 1000:.1f} s"
