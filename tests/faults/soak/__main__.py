"""`python -m tests.faults.soak --seconds 60 --rate 150`: runs it in a scratch folder, prints the figures; status 1 when a promise was broken."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.faults.soak.run import soak


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1200.0)
    parser.add_argument("--rate", type=float, default=150.0, help="requests per second")
    parser.add_argument("--folder", type=Path, help="where the proxy's files stay, instead of a scratch folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        report = soak(folder, given.seconds, given.rate, lambda line: print(line, file=sys.stderr, flush=True))
    print(report.text())
    problems = report.problems()
    print("\n".join(problems) if problems else "every promise was kept")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
