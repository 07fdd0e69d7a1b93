"""OPS-07, D-10: the sum of all rows is what the provider reported, bucket by bucket, whatever became of the exchanges."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import pytest

from tests.e2e.asking import PROTOCOLS, body_of, path_of, protocol_of, started, wants_stream
from tests.e2e.billing import BUCKETS, Figures, counts_of, stream_reply, whole_reply
from tests.e2e.keeping import until
from tests.server.process import Proxy
from tests.support.proxy import BACKEND_OF, backends_at
from tests.support.shared import Protocol
from tests.support.upstream import Received, Reply, Upstream, upstream_in_thread

_BLOCK: Final = 500
_AT_ONCE: Final = 8
KINDS: Final = ("plain",) * 6 + ("failover",) * 2 + ("cancel", "again", "copies")


@dataclass
class Books:
    """What the provider reported, by exchange."""

    told: dict[int, Counter[str]] = field(default_factory=dict)
    plans: dict[int, tuple[str, Protocol]] = field(default_factory=dict)
    _calls: Counter[int] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def script(self, request: Received) -> Reply:
        number = int(request.body.decode().partition("exchange ")[2].partition(".")[0])
        with self._lock:
            call, self._calls[number] = self._calls[number], self._calls[number] + 1
        kind, _ = self.plans[number]
        protocol, random = protocol_of(request), Random(f"{number}-{call}")
        figures = Figures.random(random, protocol)
        if request.path.startswith("/busy/"):
            status = random.choice((429, 500, 503))
            return Reply.json({"error": {"message": "busy"}}, status, (("retry-after", "0"),))
        if kind == "again" and call == 0:
            reply, told = whole_reply(protocol, figures, ""), figures.counts
        elif wants_stream(request):
            reply, told = stream_reply(protocol, figures, cut=kind == "cancel")
        else:
            reply, told = whole_reply(protocol, figures), figures.counts
        with self._lock:
            self.told.setdefault(number, Counter()).update(told)
        return reply


@pytest.fixture(scope="module")
def stage() -> Iterator[tuple[Proxy, Upstream]]:
    with upstream_in_thread(Reply()) as upstream:
        backends = backends_at(upstream.url)
        routes = {}
        busy = backends_at(f"{upstream.url}/busy")
        for back, id in BACKEND_OF.items():
            backends[f"busy-{id}"] = busy[id]
            routes[f"either-{back}"] = {"policy": "m", "elements": [f"busy-{id}:m", f"{id}:m"]}
        # A busy one may be tried again soon, or only the first few exchanges would go over.
        failover = {"cooldown_initial_seconds": 0.01, "cooldown_max_seconds": 0.01}
        config = {"backends": backends, "failover_routes": routes, "failover": failover}
        with started(config=config) as proxy:
            yield proxy, upstream


def exchange(proxy: Proxy, run: int, number: int, kind: str, client: Protocol, back: Protocol, stream: bool) -> None:
    model = f"either-{back}" if kind == "failover" else f"{BACKEND_OF[back]}:m"
    body = body_of(client, model, stream, f"exchange {number}.", **({"n": 3} if kind == "copies" else {}))
    connection = http.client.HTTPConnection(*proxy.main, timeout=30)
    headers = {
        "Authorization": f"Bearer {proxy.key}",
        "Content-Type": "application/json",
        "X-Session-Id": f"run-{run}-block-{number // _BLOCK}",
        "X-Request-Id": f"truth-{run}-{number}",
    }
    try:
        connection.request("POST", path_of(client, model, stream), json.dumps(body), headers)
        response = connection.getresponse()
        assert response.status == 200, (number, kind, client, back, response.read())
        if kind == "cancel":
            seen = b""
            while b"w2" not in seen:
                seen += response.read1(1000)
        else:
            response.read()
    finally:
        connection.close()


def rows_of(proxy: Proxy, count: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for block in range((count + _BLOCK - 1) // _BLOCK):
        rows += proxy.get(f"/usage/recent?limit=1000&session_id=run-{count}-block-{block}").json["data"]
    return [row for row in rows if row["id"].startswith(f"truth-{count}-")]


def number_of(row: dict[str, Any]) -> int:
    return int(row["id"].rpartition("-")[2])


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.long)])
def test_the_sum_of_rows_is_the_sum_at_the_provider(stage: tuple[Proxy, Upstream], count: int) -> None:
    proxy, upstream = stage
    books, random = Books(), Random(count)
    upstream.script = books.script
    jobs = []
    for number in range(count):
        kind = random.choice(KINDS)
        client, back, stream = random.choice(PROTOCOLS), random.choice(PROTOCOLS), random.random() < 0.5
        if kind == "copies":
            client, back = "openai-chat", random.choice(("openai-responses", "anthropic-messages", "gemini"))
        stream = {"cancel": True, "again": False}.get(kind, stream)
        books.plans[number] = (kind, back)
        jobs.append((number, kind, client, back, stream))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda job: exchange(proxy, count, *job), jobs))
    until(lambda: len(rows_of(proxy, count)) == count, "the last row", 30)
    rows = rows_of(proxy, count)

    for row in rows:  # what nobody reported is an estimate and marked so
        number = number_of(row)
        kind, _ = books.plans[number]
        assert row["status"] == (499 if kind == "cancel" else 200), (row, jobs[number])
        assert row["token_source"] == ("partial" if kind == "cancel" else "reported"), (row, jobs[number])
        if sum(books.told[number].values()):
            assert counts_of([row]) == books.told[number], (row, jobs[number], books.told[number])
        else:
            assert kind == "cancel" and row["prompt_tokens"] > 0 and row["completion_tokens"] > 0
    reported = [row for row in rows if sum(books.told[number_of(row)].values())]
    truth: Counter[str] = Counter(dict.fromkeys(BUCKETS, 0))
    for told in books.told.values():
        truth.update(told)
    assert counts_of(reported) == truth
    assert {books.plans[number_of(row)][0] for row in rows} == set(KINDS)
