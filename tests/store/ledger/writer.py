"""A process that adds usage rows, some in each millisecond, and says on standard output what it has added, and when.

    writer.py FILE NAME [ROWS]

Each line is a number of rows and the time at which so many had been added. Without ROWS it goes on until somebody kills it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from llm_proxy.store.ledger import Ledger
from tests.store.ledger.support import usage_row

ROWS_AT_ONCE = 10


async def main(path: Path, name: str, rows: int | None) -> None:
    ledger = Ledger(path, usage_days=0)
    ledger.start()
    number = 0
    while rows is None or number < rows:
        for _ in range(ROWS_AT_ONCE):
            ledger.add(usage_row(number, id=f"{name}-{number}"))
            number += 1
        print(number, time.time(), flush=True)
        if rows is None:
            await asyncio.sleep(0.001)
        elif ledger.waiting > 5000:
            await ledger.flush()
    await ledger.close()
    print("dropped", ledger.dropped, flush=True)
    print("waiting", ledger.waiting, flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else None))
