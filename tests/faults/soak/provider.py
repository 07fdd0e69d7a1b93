"""The provider, a process of its own: `python -m tests.faults.soak.provider [PORT]` prints its port and answers until its input ends; then
it prints what it saw."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections import Counter, OrderedDict
from typing import Self

from tests.e2e.asking import protocol_of, wants_stream
from tests.faults.soak import mix
from tests.support.upstream import Received, Reply, Script, Upstream

_REMEMBERED = 50_000


class Provider:
    """Plays the fate of each question once; whoever asks again gets the answer."""

    def __init__(self) -> None:
        self.met: OrderedDict[int, None] = OrderedDict()
        self.counts: Counter[str] = Counter()
        self.keys: Counter[str] = Counter()

    def script(self, request: Received) -> Reply:
        question = mix.question_in(request.body)
        protocol, stream = protocol_of(request), wants_stream(request)
        fate = mix.asked(question).fate
        key = request.header("authorization") or request.header("x-api-key") or request.header("x-goog-api-key") or ""
        self.keys[key.rpartition("-of-")[2]] += 1
        if fate != "ok" and question not in self.met:
            self.met[question] = None
            if len(self.met) > _REMEMBERED:
                self.met.popitem(last=False)
            self.counts[fate] += 1
            return mix.fault(fate, protocol, stream)
        self.counts["ok"] += 1
        return mix.answer(question, protocol, stream)


class UpstreamAt(Upstream):
    """The scripted server on a port of one's choice, so that it can come back where it was."""

    def __init__(self, script: Script, port: int) -> None:
        super().__init__(script)
        self.port = port

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, "127.0.0.1", self.port, reuse_address=True, backlog=1024)
        return self


async def serve(port: int) -> None:
    provider = Provider()
    async with UpstreamAt(provider.script, port) if port else Upstream(provider.script) as upstream:
        print(upstream.port, flush=True)
        ended = asyncio.Event()

        def heard() -> None:
            if not os.read(sys.stdin.fileno(), 1):
                ended.set()

        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), heard)
        while not ended.is_set():
            upstream.requests.clear()  # of what was received nothing is looked at again
            for number in [n for n, one in upstream._connection_of.items() if one.closed.happened]:
                del upstream._connection_of[number]
            if len(upstream._connection_of) > 10_000:
                upstream._connection_of.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), 2)
        told = {"calls": dict(provider.counts), "keys": dict(provider.keys), "connections": upstream.connections,
                "malformed": upstream.malformed[:5]}  # fmt: skip
        print(json.dumps(told), flush=True)


def main() -> None:
    mix.rarely_collect()
    factory = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0))


if __name__ == "__main__":
    main()
