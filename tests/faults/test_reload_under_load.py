"""What an operator and a provider do to a busy proxy: hang-ups with good and bad configurations (L-13), a provider that is killed and comes
back (P10). No request may be lost by the one, and the other is over as soon as it is over."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.asking import body_of, path_of
from tests.e2e.keeping import backend, until
from tests.faults.soak import mix
from tests.faults.soak.run import program
from tests.server.process import Proxy, running

EVERY: Final = 0.1
"""Seconds between two hang-ups."""
LONGEST: Final = 30.0
INVALID: Final = (
    '{"default_backend": "chat", oops',
    '{"backends": {"chat": {"type": "none of these"}}}',
    '{"proxy": {"timeout": "soon"}}',
    "[]",
)


def config(url: str, n: int) -> dict[str, Any]:
    """The n-th valid configuration: what every request needs is there in all of them, everything else changes."""
    back_ends = mix.back_ends_at(url)
    for one in back_ends.values():
        one["headers"] = {"x-edition": str(n)}
    return {
        "backends": {**back_ends, f"only-{n}": backend(url, "only")},
        "failover_routes": mix.routes(),
        "failover": {
            "max_wait_seconds": 20.0,
            "cooldown_initial_seconds": 0.1 + n % 3 / 10,
            "cooldown_max_seconds": 1.0,
        },
        "default_backend": ("chat", "claude", f"only-{n}")[n % 3],
        "loop_detection": {"enabled": bool(n % 2)},
        "usage_tracking": {"enabled": bool(n % 3)},
        "config_watch": False,
    }


def write(file: Path, text: str) -> None:
    """In one step, as editors do."""
    draft = file.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(file)


def ids(proxy: Proxy) -> set[str]:
    return {one["id"] for one in proxy.get("/internal/backends").json["data"]}


def hang_up_under_load(folder: Path, rate: float, seconds: float) -> None:
    """A hang-up signal every 100 ms, with a valid and an invalid configuration in turn."""
    file = folder / "config.json"
    with program("provider") as provider:
        assert provider.stdout is not None
        url = f"http://127.0.0.1:{int(provider.stdout.readline())}"
        write(file, json.dumps(config(url, 0)))
        with running(folder, "--config", str(file)) as proxy:
            with program("load", str(proxy.main[1]), "--rate", f"{rate}", "--seconds", f"{seconds}") as load:
                n = 0
                while load.poll() is None:
                    n += 1
                    write(file, INVALID[n // 2 % len(INVALID)] if n % 2 else json.dumps(config(url, n)))
                    proxy.send_signal(signal.SIGHUP)
                    time.sleep(EVERY)  # the pace of the signals, not a wait for anything
                assert load.stdout is not None
                lines = [json.loads(line) for line in load.stdout]
            ended: Counter[str] = Counter()
            for line in lines:
                ended.update(line["ended"])
            assert not ended["wrong"], [line["wrong"] for line in lines]
            assert ended["stream"] > rate * seconds / 3 and ended["whole"] > rate * seconds / 5
            last = 2 * n
            write(file, json.dumps(config(url, last)))

            def in_force() -> bool:
                proxy.send_signal(signal.SIGHUP)
                return f"only-{last}" in ids(proxy)

            until(in_force, "the last configuration", within=LONGEST)
            assert len([id for id in ids(proxy) if id.startswith("only-")]) == 1
            assert proxy.stop() == 0
            refused = proxy.log.count("the configuration was not changed")
            assert proxy.log.count("configuration: default_backend") > 2 and refused > 2
            assert refused <= n, "one line for each"
            assert "Traceback" not in proxy.log


@pytest.mark.long
def test_no_request_fails_while_configurations_good_and_bad_come_ten_times_a_second(tmp_path: Path) -> None:
    hang_up_under_load(tmp_path, 30, 2)


@pytest.mark.long
def test_nor_in_a_minute_of_them(tmp_path: Path) -> None:
    hang_up_under_load(tmp_path, 100, 60)


# A provider that dies


QUESTIONS: Final = [n for n in range(2000) if mix.asked(n).fate == "ok" and not mix.asked(n).slow][:40]
SLOW: Final = [n for n in range(2000) if mix.asked(n).fate == "ok" and mix.asked(n).slow][:40]


@dataclass(frozen=True)
class Got:
    """What a client got: when it had asked, the status, whether the answer was whole, and the body."""

    begun: float
    status: int
    whole: bool
    body: bytes


def ask(proxy: Proxy, number: int, stream: bool) -> Got:
    begun = time.monotonic()
    question = (SLOW if stream else QUESTIONS)[number % 40]
    said = f"Please answer question {question:09}."
    answer = proxy.post(path_of("openai-chat", "chat:m"), body_of("openai-chat", "chat:m", stream, said))
    whole = (
        answer.body.rstrip().endswith(b"data: [DONE]") and b'"error"' not in answer.body
        if stream
        else answer.status == 200
    )
    return Got(begun, answer.status, whole, answer.body)


class Clients:
    """Eight of them ask without pause, every other one for streams, until told to stop."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._stop = threading.Event()
        self.got: list[Got] = []
        self.broken: list[str] = []
        self._pool = ThreadPoolExecutor(8)
        self._running = [self._pool.submit(self._one, number) for number in range(8)]

    def _one(self, number: int) -> None:
        turn = number
        while not self._stop.is_set():
            turn += 8
            try:
                self.got.append(ask(self._proxy, turn // 8, bool(number % 2)))
                if self.got[-1].status != 200:
                    self._stop.wait(0.1)  # who is refused takes a breath
            except (OSError, HTTPException) as error:
                self.broken.append(repr(error))

    def end(self) -> None:
        self._stop.set()
        for one in self._running:
            one.result(LONGEST)
        self._pool.shutdown()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def first_line(child: subprocess.Popen[bytes]) -> bytes:
    assert child.stdout is not None
    return bytes(child.stdout.readline())


@pytest.mark.long
def test_after_a_provider_that_was_killed_is_back_the_next_request_succeeds(tmp_path: Path) -> None:
    """P10; what was under way ends with an error in its protocol, and no key or back end is put away for it."""
    port = free_port()
    made = {"backends": mix.back_ends_at(f"http://127.0.0.1:{port}"), "loop_detection": {"enabled": False}}
    (tmp_path / "config.json").write_text(json.dumps(made))
    with running(tmp_path, "--config", str(tmp_path / "config.json")) as proxy:
        with program("provider", str(port)) as provider:
            first_line(provider)
            clients = Clients(proxy)
            try:
                until(lambda: len(clients.got) >= 24, "some answers", within=LONGEST)
                assert all(one.status == 200 and one.whole for one in clients.got)
                provider.kill()
                killed = time.monotonic()
                until(lambda: sum(one.begun > killed for one in clients.got) >= 16, "some refusals", within=LONGEST)
                with program("provider", str(port)) as again:
                    first_line(again)
                    back = time.monotonic()
                    until(lambda: sum(one.begun > back for one in clients.got) >= 24, "answers again", within=LONGEST)
                    clients.end()
            finally:
                clients.end()
        assert proxy.stop() == 0
        assert "Traceback" not in proxy.log
    assert not clients.broken
    after = [one for one in clients.got if one.begun > back]
    assert all(one.status == 200 and one.whole for one in after), Counter(one.status for one in after)
    failed = [one for one in clients.got if one.status != 200]
    assert failed and {one.status for one in failed} <= {502, 503}
    assert all(json.loads(one.body)["error"]["message"] for one in failed)
    cut = [one for one in clients.got if one.status == 200 and not one.whole]
    assert cut and all(b'"error"' in one.body for one in cut)
