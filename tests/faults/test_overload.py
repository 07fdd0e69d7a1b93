"""P9: under overload a refusal comes at once, streams that run are not harmed, and `/health` answers. OPS-19: clients' errors take nothing away."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from llm_proxy.server.admission import Admission
from tests.e2e.asking import PROTOCOLS, body_of, error_of, path_of, say, target
from tests.e2e.house import InProcess, in_process
from tests.faults.stage import RawClient, Stage, deltas, ending, request_bytes, stage
from tests.server.process import KEY as HOUSE_KEY
from tests.server.process import Answer
from tests.support.proxy import KEY, ROOT, Proxy, backends_at
from tests.support.shared import Protocol
from tests.support.upstream import Endless, Moment, Pause, Received, Reply, Send, Upstream, upstream_in_thread

_STREAM: Final = [("content-type", "text/event-stream")]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[tuple[InProcess, Upstream]]:
    """A proxy that serves two at once."""
    with upstream_in_thread(say) as upstream, in_process(tmp_path, {"backends": backends_at(upstream.url)}) as running:
        running.house.running.admission = Admission(2, running.house.running.warn_rarely)
        yield running, upstream


def ask(running: InProcess, client: Protocol, number: int, stream: bool = False) -> Answer:
    body = json.dumps(body_of(client, target("openai-chat"), stream)).encode()
    path = path_of(client, target("openai-chat"), stream)
    return running._request("POST", path, body, {"x-request-id": f"overload-{number}"})


@pytest.mark.parametrize("client", PROTOCOLS)
def test_beyond_the_cap_is_a_503_at_once_and_running_streams_end_whole(
    small: tuple[InProcess, Upstream], client: Protocol
) -> None:
    running, upstream = small
    end = Moment()
    frames = [*deltas("openai-chat"), *ending("openai-chat")]
    upstream.script = Reply(headers=_STREAM, steps=[Send(frames[0]), Pause(end), *map(Send, frames[1:])])
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda number=number: answers.append(ask(running, "openai-chat", number, True)))
        for number in range(2)
    ]
    for thread in threads:
        thread.start()
    assert upstream.arrival(2).wait(10)
    began = time.monotonic()
    for number in range(20):
        refused = ask(running, client, 10 + number)
        assert refused.status == 503
        assert refused.headers["retry-after"] == "1"
        assert "as many requests as it can" in error_of(client, refused)["message"]
    assert time.monotonic() - began < 5
    assert len(upstream.requests) == 2, "nothing of a refused request goes out"
    assert running.get("/health").status == 200
    status = running.get("/internal/status")
    assert status.json["calls"] == {"open": 2, "most": 2, "refused": 20}
    end.happen()
    for thread in threads:
        thread.join(10)
    assert [answer.body.count(b"[DONE]") for answer in answers] == [1, 1]
    upstream.script = say
    assert ask(running, client, 99).status == 200
    assert running.get("/internal/status").json["calls"]["open"] == 0
    warned = [line for line in running.records.taken(30) if "requests are refused" in line]
    assert len(warned) == 1


def test_embeddings_and_counts_are_calls_as_well(small: tuple[InProcess, Upstream]) -> None:
    running, _ = small
    running.house.running.admission = Admission(0)
    body = json.dumps({"model": target("openai-chat"), "input": "x"}).encode()
    assert running._request("POST", "/v1/embeddings", body, {}).status == 503
    count = json.dumps(body_of("anthropic-messages", target("anthropic-messages"))).encode()
    assert running._request("POST", "/v1/messages/count_tokens", count, {}).status == 503
    assert running._request("POST", "/v1/embeddings", body, {"authorization": "Bearer x"}).status == 503


def test_a_client_that_leaves_makes_room(small: tuple[InProcess, Upstream]) -> None:
    running, upstream = small
    closed = Moment()
    upstream.script = Reply(headers=_STREAM, steps=[Send(deltas("openai-chat")[0]), Pause(closed)])
    connections = []
    for _ in range(2):
        connection = http.client.HTTPConnection(*running._address, timeout=10)
        body = json.dumps(body_of("openai-chat", target("openai-chat"), True))
        connection.request(
            "POST",
            "/v1/chat/completions",
            body,
            {"authorization": f"Bearer {HOUSE_KEY}", "content-type": "application/json"},
        )
        response = connection.getresponse()
        assert response.status == 200
        connections.append((connection, response))
    assert ask(running, "openai-chat", 1).status == 503
    for connection, response in connections:
        response.close()
        connection.close()
    for request in upstream.requests:
        assert request.closed.wait(5)
    upstream.script = say
    assert ask(running, "openai-chat", 2).status == 200
    closed.happen()


def test_more_connections_than_there_is_room_for_are_told_to_come_back(small: tuple[InProcess, Upstream]) -> None:
    running, _ = small
    crowd = running.house.running.crowd
    assert running.get("/health").status == 200
    idle = [socket.create_connection(running._address) for _ in range(2)]
    for one in idle:
        one.sendall(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        assert one.recv(12) == b"HTTP/1.1 200"
    crowd.most = 2
    refused = running.get("/health")
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert "connections" in refused.json["error"]["message"]
    crowd.most = -100  # far beyond: nobody is waited for
    with socket.create_connection(running._address) as flooded:
        assert flooded.recv(12) == b"HTTP/1.1 503"
    for one in idle:  # who was there before is served
        one.sendall(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        assert b"HTTP/1.1 200" in one.recv(65536) + one.recv(65536)
        one.close()
    crowd.most = 100
    assert running.get("/health").status == 200


def test_1000_requests_with_400_answers_then_the_next_good_one_succeeds() -> None:
    """No safeguard takes a back end away because of client errors."""
    asyncio.run(_thousand())


async def _thousand() -> None:
    refused = {
        "error": {"message": "messages: too strange", "type": "invalid_request_error", "param": None, "code": None}
    }
    async with stage(Reply.json(refused, 400)) as running:
        statuses = [status async for status in _many(running, 1000)]
        assert statuses == [400] * 1000
        running.play(say)
        answer = await running.ask("openai-chat", "openai-chat", False)
        assert answer.status == 200, answer.body


async def _many(running: Stage, count: int) -> AsyncIterator[int]:
    client = await running.client()
    try:
        for number in range(count):
            await client.send(request_bytes("openai-chat", target("openai-chat", f"m{number % 7}"), False))
            yield (await client.read_answer()).status
    finally:
        client.close()


@pytest.mark.long
async def test_given_200_readers_that_stop_reading_then_memory_stays_bounded() -> None:
    frame = deltas("openai-chat")[0]
    endless = Reply(headers=_STREAM, steps=[Send(frame), Endless(frame * 50)])

    def script(request: Received) -> Reply:
        return endless if request.json["model"] == "endless" else say(request)

    async with stage(script) as running:
        assert (await running.ask("openai-chat", "openai-chat", False)).status == 200
        process = psutil.Process(running.proxy.process.pid)
        before, base = process.memory_info().rss, len(running.upstream.requests)
        readers = [await running.client(receive_buffer=4096) for _ in range(200)]
        try:
            for reader in readers:
                await reader.send(request_bytes("openai-chat", target("openai-chat", "endless"), True))
                await reader.read_until(b"w0 ")
            sent, most = -1, 0
            while sent != (now := sum(map(running.upstream.sent_to, running.upstream.requests[base:]))):
                sent = now
                most = max(most, process.memory_info().rss)
                await asyncio.sleep(1)
            print(
                f"{(most - before) / 2**20:.0f} MiB for 200 readers that stopped; {sent / 200 / 1024:.0f} KiB sent to each"
            )
            assert most - before <= 80 * 2**20
            assert sent / 200 <= 8 * 2**20
            assert (await running.ask("openai-chat", "openai-chat", True)).status == 200
        finally:
            for reader in readers:
                reader.close()


# Three times the capacity


@asynccontextmanager
async def capped(descriptors: int, config: dict[str, Any]) -> AsyncIterator[Proxy]:
    """A proxy whose system allows it so many open files."""
    launch = (
        f"import resource, runpy; resource.setrlimit(resource.RLIMIT_NOFILE, ({descriptors}, {descriptors})); "
        "runpy.run_module('llm_proxy', run_name='__main__', alter_sys=True)"
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "config.json").write_text(json.dumps(config))
        flags = ["--port", "0", "--anthropic-port", "off", "--data-dir", str(folder / "data")]
        environment = {"PATH": "/usr/bin:/bin", "HOME": scratch, "PYTHONPATH": str(ROOT / "src")}
        process = subprocess.Popen(
            [sys.executable, "-c", launch, *flags, "--config", str(folder / "config.json")],
            cwd=folder,
            env={**environment, "LLM_INTERACTIVE_PROXY_API_KEY": KEY},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        proxy = Proxy(process)
        try:
            proxy.wait_ready()
            yield proxy
        finally:
            proxy.stop()


class Load:
    """Clients that ask until the time is over: one that is refused comes again when it was told to."""

    def __init__(self, url: str, until: float) -> None:
        self.url = url
        self.until = until
        self.refusals: list[float] = []
        self.delays: list[float] = []
        self.whole = 0
        self.broken: list[str] = []

    async def client(self, number: int) -> None:
        chance = random.Random(number)
        await asyncio.sleep(chance.random() * 3)
        while time.monotonic() < self.until:
            connection = await RawClient.connect(self.url)
            try:
                await self._once(connection)
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                self.broken.append(repr(error))
            finally:
                connection.close()
            await asyncio.sleep(1 + chance.random())  # as Retry-After asks

    async def _once(self, connection: RawClient) -> None:
        began = time.perf_counter()
        await connection.send(request_bytes("openai-chat", target("openai-chat"), True))
        status = await connection.read_head()
        if status == 503:
            self.refusals.append(time.perf_counter() - began)
            assert connection.headers["retry-after"] == "1"
            return
        while line := await asyncio.wait_for(connection.reader.readline(), 20):
            if b'"content":"at ' in line:
                sent = float(line.partition(b'"content":"at ')[2].partition(b'"')[0])
                self.delays.append(time.perf_counter() - sent)
            if b"[DONE]" in line:
                self.whole += 1
                return
        self.broken.append("a stream ended without its end")


def at(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


@pytest.mark.long
async def test_at_three_times_the_capacity_refusals_are_quick_and_streams_whole() -> None:
    capacity = 128  # (512 - 256) / 2

    async def talk(request: Received) -> Reply:
        return Reply(headers=_STREAM, steps=_events(6.0, 0.5))

    async with Upstream(talk) as upstream, capped(512, {"backends": backends_at(upstream.url)}) as proxy:
        await Load(proxy.url, time.monotonic() + 0.1).client(0)  # what is loaded at the first call is loaded
        process = psutil.Process(proxy.process.pid)
        before = process.memory_info().rss
        began, used, waited = time.monotonic(), _used(process), _waited(process)
        load = Load(proxy.url, time.monotonic() + 15)
        clients = [asyncio.create_task(load.client(number)) for number in range(3 * capacity)]
        most = 0
        while not all(client.done() for client in clients):
            most = max(most, process.memory_info().rss)
            await asyncio.sleep(0.2)
        await asyncio.gather(*clients)
        used, waited = _used(process) - used, (_waited(process) - waited) / (time.monotonic() - began)
        print(
            f"refusals {len(load.refusals)}: p50 {at(load.refusals, 0.5) * 1000:.1f} ms, p99 {at(load.refusals, 0.99) * 1000:.1f} ms; "
            f"events {len(load.delays)}: p50 {at(load.delays, 0.5) * 1000:.1f} ms, p99 {at(load.delays, 0.99) * 1000:.1f} ms; "
            f"{load.whole} whole streams; {(most - before) / 2**20:.0f} MiB more; "
            f"{used:.1f} s of CPU, waited for one {waited:.0%} of the time"
        )
        assert load.broken == []
        assert load.whole >= 2 * capacity
        assert len(load.refusals) > 500
        assert most - before <= capacity * 384 * 1024 + 20 * 2**20
        assert used / (len(load.refusals) + len(load.delays) + load.whole) <= 0.001
        if waited < 0.05:  # else the figures are those of whatever else this machine does
            assert at(load.refusals, 0.99) <= 0.050
            assert at(load.delays, 0.5) <= 0.004 and at(load.delays, 0.99) <= 0.040  # P5, twice


@pytest.mark.long
async def test_l10_with_256_open_files_and_400_clients_who_has_room_is_served_whole_and_the_rest_is_told() -> None:
    async def talk(request: Received) -> Reply:
        return Reply(headers=_STREAM, steps=_events(4.0, 0.5))

    async def client(url: str) -> str:
        connection = await RawClient.connect(url)
        try:
            await connection.send(request_bytes("openai-chat", target("openai-chat"), True))
            if (status := await connection.read_head()) != 200:
                return str(status)
            while line := await asyncio.wait_for(connection.reader.readline(), 20):
                if b"[DONE]" in line:
                    return "whole"
            return "broken"
        except (OSError, asyncio.IncompleteReadError) as error:
            return repr(error)
        finally:
            connection.close()

    async with Upstream(talk) as upstream, capped(256, {"backends": backends_at(upstream.url)}) as proxy:
        process = psutil.Process(proxy.process.pid)
        began, used = time.monotonic(), _used(process)
        ends = Counter(await asyncio.gather(*(client(proxy.url) for _ in range(400))))
        assert ends["whole"] == 64 and ends["503"] == 400 - 64, ends
        assert (_used(process) - used) / (time.monotonic() - began) < 0.3
        assert await client(proxy.url) == "whole"


def _used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _waited(process: psutil.Process) -> float:
    """Seconds for which it could have run and no processor was free; 0 where the system does not tell."""
    try:
        return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def _events(seconds: float, every: float) -> Any:
    """Events that tell when they were sent."""
    for _ in range(int(seconds / every)):
        yield Pause(every)
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
                 "choices": [{"index": 0, "delta": {"content": f"at {time.perf_counter()}"}, "finish_reason": None}]}  # fmt: skip
        yield Send(b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n")
    for frame in ending("openai-chat"):
        yield Send(frame)
