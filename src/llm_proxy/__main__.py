"""`python -m llm_proxy` and the command `llm-proxy`."""

from __future__ import annotations

import sys


def main() -> int:
    from llm_proxy.cli import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
