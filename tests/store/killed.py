"""A process that saves sessions until somebody kills it. It names each number on standard output once that is written."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from llm_proxy.store.session_file import SessionFile
from llm_proxy.store.sessions import Sessions


async def main(path: Path) -> None:
    backing = SessionFile(path)
    sessions = Sessions(clock=time.time, expiry_seconds=86_400, max_age=604_800, max_sessions=200, backing=backing)
    await sessions.start()
    number = 0
    while True:
        number += 1
        for id in ("counter", f"other-{number % 300}"):
            session = await sessions.open("scope", id)
            session.choose("number", number)
            session.choose("text", "x" * (number * 37 % 5000))
            sessions.release(session)
        if number % 20 == 0:
            await backing.flush()
            print(number, flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
