"""`python -m benchmarks`: measures, prints the tables, and writes the figures to a file if told to."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from pathlib import Path

from benchmarks.accounting import machine
from benchmarks.targets import ALL, SOURCE

_PARTS = ("request", "agent", "burst", "paced", "latency", "start", "memory", "micro")


def _listed(text: str) -> list[str]:
    return [word.strip().lower() for word in text.split(",") if word.strip()]


def _arguments() -> argparse.Namespace:
    names = [kind.name.lower() for kind in ALL]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, under a minute, without other gateways")
    parser.add_argument("--only", type=_listed, default=[], metavar="PART,…", help=f"some of: {', '.join(_PARTS)}")
    parser.add_argument("--targets", type=_listed, default=names, metavar="NAME,…", help=f"some of: {', '.join(names)}")
    parser.add_argument("--no-peers", action="store_true", help="without other gateways; installs nothing")
    parser.add_argument("--rounds", type=int, help="rounds of the load (default 3)")
    parser.add_argument(
        "--source",
        type=Path,
        default=SOURCE,
        metavar="DIR",
        help="folder that holds the llm_proxy to measure",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there as well")
    options = parser.parse_args()
    for given, known in ((options.only, _PARTS), (options.targets, names)):
        for word in given:
            if word not in known:
                parser.error(f"{word} is none of {', '.join(known)}")
    return options


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    options = _arguments()
    source = options.source.resolve()
    sys.path.insert(0, str(source))
    # These load the product, which --source may have moved.
    import msgspec

    from benchmarks import end_to_end, micro, report

    begin = time.perf_counter()
    about = machine()
    plan = end_to_end.QUICK if options.quick else end_to_end.FULL
    if options.rounds:
        plan = msgspec.structs.replace(plan, rounds=options.rounds)
    names = options.targets
    if options.quick or options.no_peers:
        names = [name for name in names if name in ("nginx", "bare", "llm-proxy")]
    parts = options.only or list(_PARTS)
    figures = end_to_end.Figures()
    if wanted := [part for part in parts if part != "micro"]:
        figures = end_to_end.run(plan, wanted, names, source, _say)
    small = micro.run(0.05 if options.quick else 0.2) if "micro" in parts else []
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    print(f"{today} · {about}")
    print(
        "CPU is the kernel's account of the measured process, alone on one core; "
        "stub and load generator share another.\n"
    )
    if wanted:
        sections = [
            report.budget_table(figures),
            report.absolute_table(figures),
            "\n".join(report.other_lines(figures)),
        ]
        print("\n\n".join(section for section in sections if section), end="\n\n")
    if small:
        print(report.micro_table(small), end="\n\n")
    _say(f"took {time.perf_counter() - begin:.0f} s")
    if options.json:
        document = {
            "date": today,
            "machine": about,
            "cells": [
                {"what": what, "target": target, "mode": mode, "values": values}
                for (what, target, mode), values in figures.cells.items()
            ],
            "numbers": figures.numbers,
            "notes": figures.notes,
            "budgets": {budget.what: budget.value(figures) for budget in report.BUDGETS},
            "micro": msgspec.to_builtins(small),
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
