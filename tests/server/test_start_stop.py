"""Start, ports, signals and exit codes of the real process (OPS-17, FE-06, L-11, L-12, OPS-11)."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.server import process
from tests.server.process import Proxy, Stream, free_pair, run
from tests.server.test_paths import CHAT, MESSAGES

running: Final = partial(process.running, forked=False)
"""The start itself is under test."""

STREAMS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "stream": True}),
    ("/v1/responses", {"input": "hi", "stream": True}),
    ("/v1/messages", {"max_tokens": 99, "messages": [{"role": "user", "content": "hi"}], "stream": True}),
]


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def _begin(proxy: Proxy, model: str, number: int = 0) -> Stream:
    """A stream whose first bytes have arrived."""
    path, body = STREAMS[number % len(STREAMS)]
    stream = proxy.stream(path, {"model": model, **body})
    assert stream.status == 200
    assert stream.line()
    return stream


def _is_complete(number: int, text: bytes) -> bool:
    ends = (b"data: [DONE]", b"response.completed", b"message_stop")
    return ends[number % 3] in text and b'"error"' not in text.replace(b'"error":null', b"")


def _is_failed_in_protocol(number: int, text: bytes) -> bool:
    """An error event and a proper end, and nothing that claims success."""
    match number % 3:
        case 0:
            return b'"error":{' in text and b'"finish_reason":"stop"' not in text
        case 1:
            return b"response.failed" in text and b"response.completed" not in text
        case _:
            return b"event: error" in text and b"message_stop" not in text


# Start


def test_it_starts_without_configuration_and_prints_nothing_on_standard_output(tmp_path: Path) -> None:
    with running(tmp_path, keyed=False) as proxy:
        assert proxy.post("/v1/chat/completions", CHAT).status == 200
        assert proxy.stop() == 0
        # Proxy.wait asserts that standard output stayed empty.
        assert "Traceback" not in proxy.log


def test_port_0_takes_a_free_port_and_prints_it(tmp_path: Path) -> None:
    with running(tmp_path, "--port", "0") as proxy:
        assert proxy.main[1] > 0
        assert proxy.get("/health").status == 200


@pytest.mark.skipif(os.name == "nt", reason="file modes")
def test_it_starts_when_the_data_directory_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "a-file"
    blocked.write_text("")
    with running(tmp_path, "--data-dir", str(blocked / "data")) as proxy:
        assert re.search(r"warning: data directory .*memory", proxy.banner)
        assert proxy.post("/v1/chat/completions", CHAT).status == 200
        assert proxy.get("/health?ready=1").status == 200


def test_a_used_port_is_exit_3_and_named(tmp_path: Path) -> None:
    with taken_port() as port:
        ended = run(tmp_path, ["--port", str(port)])
    assert ended.returncode == 3
    assert str(port) in ended.stderr.decode()
    assert "--port" in ended.stderr.decode()
    assert ended.stdout == b""


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--port", "70000"], "70000"),
        (["--port", "many"], "many"),
        (["--no-such-flag"], "--no-such-flag"),
        (["--config", "missing.toml"], ".yaml"),
        (["--config", "bad.yaml"], "no_such_option"),
    ],
)
def test_bad_configuration_is_exit_2_and_says_where(tmp_path: Path, flags: list[str], named: str) -> None:
    (tmp_path / "bad.yaml").write_text("proxy:\n  no_such_option: 1\n")
    ended = run(tmp_path, flags)
    assert ended.returncode == 2
    assert named in ended.stderr.decode()
    assert "Traceback" not in ended.stderr.decode()
    assert ended.stdout == b""


def test_an_address_of_another_machine_is_exit_1(tmp_path: Path) -> None:
    ended = run(tmp_path, ["--port", "0", "--host", "192.0.2.1"])
    assert ended.returncode == 1
    assert "--host" in ended.stderr.decode()
    assert "Traceback" not in ended.stderr.decode()


@pytest.mark.parametrize("arguments", [["--version"], ["version"]])
def test_version(tmp_path: Path, arguments: list[str]) -> None:
    ended = run(tmp_path, arguments)
    assert ended.returncode == 0
    assert re.fullmatch(r"llm-proxy \d+\.\d+\.\S+\s*", ended.stdout.decode())


def test_an_unknown_command_is_exit_2_and_names_the_nearest(tmp_path: Path) -> None:
    ended = run(tmp_path, ["serv"])
    assert ended.returncode == 2
    assert "serve" in ended.stderr.decode()


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"]])
def test_help_lists_the_flags(tmp_path: Path, arguments: list[str]) -> None:
    ended = run(tmp_path, arguments)
    assert ended.returncode == 0
    for flag in ("--port", "--anthropic-port", "--disable-auth", "--allowed-origin", "--shutdown-grace"):
        assert flag in ended.stdout.decode()


# FE-06


def test_the_anthropic_port_is_the_next_one(tmp_path: Path) -> None:
    with running(tmp_path) as proxy:
        assert proxy.anthropic[1] == proxy.main[1] + 1
        assert proxy.post("/v1/messages", MESSAGES, address=proxy.anthropic).status == 200


def test_a_port_that_was_set_is_the_only_one(tmp_path: Path) -> None:
    port, other = free_pair(), free_pair()
    with running(tmp_path, "--port", str(port), env={"ANTHROPIC_PORT": str(other)}) as proxy:
        assert proxy.anthropic[1] == other
        assert proxy.post("/v1/messages", MESSAGES, address=("127.0.0.1", other)).status == 200
        assert not _listens(port + 1)


@pytest.mark.parametrize("value", ["off", "0"])
def test_the_anthropic_port_can_be_off(tmp_path: Path, value: str) -> None:
    with running(tmp_path, "--anthropic-port", value) as proxy:
        assert not _listens(proxy.main[1] + 1)
        assert "anthropic_port" not in proxy.get("/").json["base_urls"]
        assert proxy.post("/anthropic/v1/messages", MESSAGES).status == 200


@pytest.mark.parametrize("explicit", [False, True], ids=["by default", "when set"])
def test_a_taken_anthropic_port_is_named_and_the_start_goes_on(tmp_path: Path, explicit: bool) -> None:
    port = free_pair()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port + 1))
        holder.listen()
        flags = ["--port", str(port), *(["--anthropic-port", str(port + 1)] if explicit else [])]
        with running(tmp_path, *flags) as proxy:
            assert proxy.post("/v1/messages", MESSAGES).status == 200
            assert str(port + 1) in proxy.banner
            assert "--anthropic-port" in proxy.banner
            assert ("warning: port" in proxy.banner) is explicit


def test_beyond_the_last_port_there_is_none(tmp_path: Path) -> None:
    if _listens(65535):
        pytest.skip("port 65535 is taken on this machine")
    with running(tmp_path, "--port", "65535") as proxy:
        assert "--anthropic-port" in proxy.banner
        assert proxy.get("/health").status == 200


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# Stop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_proxy_stops_with_exit_0(tmp_path: Path, number: int) -> None:
    with running(tmp_path) as proxy, closing(socket.create_connection(proxy.main, timeout=20)) as idle:
        assert proxy.stop(number) == 0
        assert idle.recv(1) == b""
        assert "Traceback" not in proxy.log


def test_a_stream_that_ends_within_the_grace_is_complete(tmp_path: Path) -> None:
    with running(tmp_path) as proxy:
        streams = [_begin(proxy, "demo:slow", number) for number in range(3)]
        proxy.send_signal(signal.SIGTERM)
        _until_draining(proxy)
        refused = proxy.post("/v1/chat/completions", CHAT)
        assert (refused.status, refused.json["detail"]["code"]) == (503, "backend_unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        assert proxy.get("/health").status == 200
        for number, stream in enumerate(streams):
            text = stream.rest()
            assert _is_complete(number, text), text[-500:]
        assert proxy.wait() == 0


@pytest.mark.long
def test_fifty_streams_end_complete_or_with_an_error_in_their_protocol(tmp_path: Path) -> None:
    with running(tmp_path, "--shutdown-grace", "3.5") as proxy:
        ending = [(number, _begin(proxy, "demo:slow", number)) for number in range(30)]
        endless = [(number, _begin(proxy, "demo:stall", number)) for number in range(20)]
        proxy.send_signal(signal.SIGTERM)
        for number, stream in ending:
            text = stream.rest()
            assert _is_complete(number, text), text[-500:]
        for number, stream in endless:
            text = stream.rest()  # raises when the last chunk is missing
            assert _is_failed_in_protocol(number, text), text[-500:]
        assert proxy.wait() == 0
        assert "Traceback" not in proxy.log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once(tmp_path: Path, number: int) -> None:
    with running(tmp_path) as proxy:
        stream = _begin(proxy, "demo:stall")
        proxy.send_signal(number)
        _until_draining(proxy)
        proxy.send_signal(number)
        began = time.monotonic()
        assert proxy.wait(within=10) == 0
        # The specification's bound is one second on a quiet machine.
        assert time.monotonic() - began < 5
        stream.close()


def test_a_kept_response_survives_a_restart(tmp_path: Path) -> None:
    with running(tmp_path) as proxy:
        made = proxy.post("/v1/responses", {"model": "demo:echo", "input": "hi"}).json["id"]
        assert proxy.stop() == 0
    with running(tmp_path) as proxy:
        assert proxy.get(f"/v1/responses/{made}").status == 200


@pytest.mark.skipif(os.name == "nt", reason="file modes")
def test_files_of_the_data_directory_are_private(tmp_path: Path) -> None:
    with running(tmp_path) as proxy:
        proxy.post("/v1/responses", {"model": "demo:echo", "input": "hi"})
        assert proxy.stop() == 0
    data = tmp_path / "data"
    assert data.stat().st_mode & 0o777 == 0o700
    files = [path for path in data.rglob("*") if path.is_file()]
    assert files
    assert {oct(path.stat().st_mode & 0o077) for path in files} == {"0o0"}


def _until_draining(proxy: Proxy) -> None:
    """Asks until readiness is withdrawn; while answers are open the proxy still says so."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        ready = proxy.get("/health?ready=1")
        if ready.status == 503:
            assert json.loads(ready.body)["ready"] is False
            return
    raise AssertionError("the proxy never said that it is draining")
