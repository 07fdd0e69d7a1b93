"""OPS-01, OPS-02, OPS-10, OPS-11, OPS-13, OPS-16, OPS-17: what a user or an attacker can do to a running proxy and what no other file tries."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.server.process import KEY, command, environment, free_pair, run, running

KEYED: Final = {"LLM_INTERACTIVE_PROXY_API_KEY": KEY}
FULL: Final = Path("/dev/full")
CHAT: Final = {"model": "demo:echo", "messages": [{"role": "user", "content": "hi"}]}
needs_full_disk = pytest.mark.skipif(not FULL.exists(), reason="this system has no device that is always full")
posix = pytest.mark.skipif(sys.platform == "win32", reason="closed and broken streams are tried as POSIX has them")


def asked(port: int) -> int:
    """The status of one request, made as soon as the port takes it."""
    deadline = time.monotonic() + 20
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
            connection.request("POST", "/v1/chat/completions", json.dumps(CHAT), headers)
            return connection.getresponse().status
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "the proxy does not listen"
            time.sleep(0.05)
        finally:
            connection.close()


# standard streams


@contextmanager
def stream(kind: str) -> Iterator[int]:
    """A descriptor to write to: of a full disk, or of a pipe that nobody reads."""
    if kind == "full":
        number = os.open(FULL, os.O_WRONLY)
    else:
        read, number = os.pipe()
        os.close(read)
    try:
        yield number
    finally:
        os.close(number)


@contextmanager
def ends_in_order(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """SIGTERM ends it with status 0 and nothing on standard output; it is gone in any case."""
    try:
        yield
        child.send_signal(signal.SIGTERM)
        assert child.communicate(timeout=20) == (b"", None)
        assert child.returncode == 0
    finally:
        child.kill()
        child.wait()


KINDS = [pytest.param("full", marks=needs_full_disk), pytest.param("nobody", marks=posix)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_standard_error_that_takes_nothing_ends_no_proxy(tmp_path: Path, kind: str) -> None:
    port = free_pair()
    with stream(kind) as error:
        child = subprocess.Popen(
            command("--port", str(port)), cwd=tmp_path, env=environment(tmp_path, KEYED), stdout=subprocess.PIPE, stderr=error
        )  # fmt: skip
        with ends_in_order(child):
            assert [asked(port), asked(port)] == [200, 200]


@posix
def test_a_closed_standard_error_is_no_place_for_databases_and_standard_output_stays_empty(tmp_path: Path) -> None:
    port = free_pair()
    child = subprocess.Popen(
        command("--port", str(port)), cwd=tmp_path, env=environment(tmp_path, KEYED), stdout=subprocess.PIPE,
        preexec_fn=lambda: os.close(2),
    )  # fmt: skip
    with ends_in_order(child):
        assert asked(port) == 200
        if (opened := Path(f"/proc/{child.pid}/fd/2")).exists():
            assert opened.readlink() == Path(os.devnull)


@pytest.mark.parametrize(
    ("kind", "said"),
    [(*KINDS[0].values, "the output cannot be written: No space left on device"), (*KINDS[1].values, "")],
)
@pytest.mark.parametrize("words", [["version"], ["config", "example"]], ids=" ".join)
@posix
@needs_full_disk
def test_output_that_cannot_be_written_is_exit_1_in_a_line_at_most(
    tmp_path: Path, words: Sequence[str], kind: str, said: str
) -> None:
    with stream(kind) as output:
        ended = subprocess.run(
            command(*words), cwd=tmp_path, env=environment(tmp_path), stdout=output, stderr=subprocess.PIPE, timeout=30, check=False
        )  # fmt: skip
    assert (ended.returncode, ended.stderr.decode()) == (1, f"llm-proxy: {said}\n" if said else "")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_without_a_character_is_shown_its_number(tmp_path: Path, encoding: str) -> None:
    ended = run(tmp_path, ["config", "example"], {"PYTHONIOENCODING": encoding})
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert rb"\u2265" in ended.stdout


@posix
def test_a_file_is_written_in_utf_8_whatever_the_locale_and_can_be_read_again(tmp_path: Path) -> None:
    ended = run(tmp_path, ["config", "example"], {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"})
    assert (ended.returncode, ended.stderr) == (0, b"")
    (tmp_path / "config.yaml").write_bytes(ended.stdout)
    assert "≥" in ended.stdout.decode()
    checked = run(tmp_path, ["config", "check"])
    assert (checked.returncode, checked.stderr) == (0, b"")


# start


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signal on this system")
def test_sighup_while_it_is_starting_does_not_end_it(tmp_path: Path) -> None:
    told_while_reading = """
import os, signal, sys
from llm_proxy.cli import run
from llm_proxy.config.reload import Reloader

def load(self, load=Reloader.load):
    os.kill(os.getpid(), signal.SIGHUP)
    return load(self)

Reloader.load = load
sys.exit(run(["--port", "none"]))
"""
    ended = subprocess.run(
        [sys.executable, "-c", told_while_reading], cwd=tmp_path, env=environment(tmp_path), capture_output=True, timeout=30, check=False
    )  # fmt: skip
    assert ended.returncode == 2
    assert b"flag --port: proxy.port: expected a whole number" in ended.stderr


def test_an_empty_host_is_refused_and_not_taken_for_all_addresses(tmp_path: Path) -> None:
    ended = run(tmp_path, ["--host", "", "--port", "0"])
    assert ended.returncode == 2
    assert ended.stderr.decode().startswith("flag --host: proxy.host: expected an address of this machine")
    # As everywhere, an empty variable is one that is not set.
    shown = run(tmp_path, ["config", "show"], {"PROXY_HOST": ""})
    assert shown.stdout.startswith(b'proxy.host = "127.0.0.1"')


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_may_stand_in_brackets(tmp_path: Path, host: str) -> None:
    with running(tmp_path, "--host", host) as proxy:
        assert proxy.main[0] == "::1"
        assert proxy.get("/v1/models").status == 200
        assert proxy.get("/v1/models", {"Host": "evil.test"}).status == 421


def test_a_configuration_file_that_is_not_there_yet_is_told_at_the_start(tmp_path: Path) -> None:
    with running(tmp_path, "--config", "confg.yaml") as proxy:
        assert "confg.yaml (not there yet: taken as empty)\n" in proxy.banner


def test_an_address_that_no_call_could_use_is_exit_2_and_shows_no_password(tmp_path: Path) -> None:
    backend = {"type": "openai", "base_url": "http://user:canary-of-an-address@127.0.0.1:1/v1", "no_auth": True}
    (tmp_path / "config.json").write_text(json.dumps({"backends": {"up": backend}}))
    for words in ([], ["config", "check"]):
        ended = run(tmp_path, words)
        assert (ended.returncode, ended.stdout) == (2, b"")
        assert b"config.json:1:" in ended.stderr and b"backends.up.base_url" in ended.stderr
        assert b"contains a user name or password" in ended.stderr
        assert b"canary" not in ended.stderr and b"Traceback" not in ended.stderr


# who is served


def test_without_authentication_the_replaced_address_counts_for_browsers_too_and_the_log_file_says_so(
    tmp_path: Path,
) -> None:
    with running(tmp_path, "--disable-auth", "--host", "0.0.0.0", "--log", "proxy.log", keyed=False) as proxy:
        # A web page whose name has been made to mean 127.0.0.1.
        rebound = {"Host": "evil.test", "Origin": "http://evil.test"}
        assert proxy.post("/v1/chat/completions", CHAT, rebound, key=None).status == 421
        assert proxy.request("POST", "/internal/reload", None, rebound, key=None).status == 421
        assert proxy.post("/v1/chat/completions", CHAT, key=None).status == 200
        proxy.stop()
    [warning] = [line for line in (tmp_path / "proxy.log").read_text().splitlines() if "listens on 127.0.0.1" in line]
    assert " WARNING " in warning and "instead of 0.0.0.0" in warning


def test_trusted_addresses_on_a_network_without_allowed_hosts_draw_a_warning(tmp_path: Path) -> None:
    flags = ("--host", "0.0.0.0", "--trusted-ip", "127.0.0.0/8")
    with running(tmp_path, *flags) as proxy:
        assert "warning: clients of auth.trusted_ips need no key, and any Host name is accepted" in proxy.banner
    with running(tmp_path, *flags, "--allowed-host", "llm.example") as proxy:
        assert "warning: clients of auth.trusted_ips" not in proxy.banner
        assert proxy.get("/v1/models", {"Host": "llm.example"}, key=None).status == 200
        assert proxy.get("/v1/models", {"Host": "evil.test", "Origin": "http://evil.test"}, key=None).status == 421


def test_given_api_keys_a_and_b_then_both_work_and_have_separate_sessions(tmp_path: Path) -> None:
    keys = ("first-key-0001", "second-key-0002")
    with running(tmp_path, env={"API_KEYS": ",".join(keys)}, keyed=False) as proxy:
        for key in (*keys, keys[0]):
            assert proxy.post("/v1/chat/completions", CHAT, {"x-session-id": "mine"}, key=key).status == 200
        listed = [proxy.get("/internal/sessions", key=key).json["data"] for key in keys]
    assert [[(one["id"], one["totals"]["requests"]) for one in data] for data in listed] == [
        [("mine", 2)],
        [("mine", 1)],
    ]


def test_twenty_wrong_keys_from_this_machine_do_not_lock_its_user_out(tmp_path: Path) -> None:
    with running(tmp_path) as proxy:
        statuses = [proxy.get("/v1/models", key=f"guess-{number}").status for number in range(20)]
        assert statuses == [401] * 5 + [429] * 15
        assert proxy.get("/health", key="guess").status == 200
        assert proxy.get("/v1/models").status == 200
        assert proxy.get("/v1/models", key="guess").status == 401  # that was the end of the block


# disks and data directories


@needs_full_disk
@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"logging": {"capture_file": str(FULL)}}, "the capture cannot be written to /dev/full"),
        ({"audit": {"enabled": True, "file": str(FULL)}}, "the audit log cannot be written to /dev/full"),
        ({"session": {"log_directory": str(FULL)}}, "session logs cannot be written to /dev/full"),
        ({"usage_tracking": {"file_path": str(FULL)}}, "/dev/full cannot be used"),
    ],
    ids=["capture", "audit", "session logs", "usage"],
)
def test_a_full_disk_costs_a_warning_and_no_request(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with running(tmp_path) as proxy:
        assert [proxy.post("/v1/chat/completions", CHAT).status for _ in range(3)] == [200] * 3
        assert proxy.stop() == 0
    warnings = [line for line in proxy.log.splitlines() if " WARNING " in line and said in line]
    assert len(warnings) == 1


def test_two_proxies_of_one_data_directory_count_together_and_harm_neither(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"session": {"repository": "file"}}))
    with running(tmp_path) as one, running(tmp_path) as other:
        for number in range(4):
            for proxy in (one, other):
                assert proxy.post("/v1/chat/completions", CHAT, {"x-session-id": f"s{number}"}).status == 200
        deadline = time.monotonic() + 10
        for proxy in (one, other):
            while proxy.get("/usage/stats").json["data"]["totals"]["requests"] != 8:
                assert time.monotonic() < deadline
        assert (one.stop(), other.stop()) == (0, 0)
    assert not [line for proxy in (one, other) for line in proxy.log.splitlines() if " WARNING " in line]


# health


def test_given_all_providers_down_then_health_is_still_200(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # and listens to nobody
        address = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
        config = {"backends": {"up": {"type": "openai", "base_url": address, "no_auth": True}}, "default_backend": "up"}
        (tmp_path / "config.json").write_text(json.dumps(config))
        with running(tmp_path) as proxy:
            assert proxy.post("/v1/chat/completions", {**CHAT, "model": "up:m"}).status == 503
            for path in ("/health", "/internal/health", "/anthropic/health"):
                answer = proxy.get(path, key=None)
                assert answer.status == 200
                assert answer.json["status"] == "ok" and answer.json["service"] == "llm-interactive-proxy"


# wrong use


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["version", "--nonsense"], "llm-proxy: version: unexpected argument '--nonsense'"),
        (["usage", "--days", "abc"], "llm-proxy: argument --days: expected a whole number, got 'abc'"),
        (["usage", "--recent", "abc"], "llm-proxy: argument --recent: expected a whole number, got 'abc'"),
        (
            ["--log", "~nobody-of-this-name/proxy.log"],
            "flag --log: logging.file: expected a path of a user of this machine",
        ),
        (["--capture-file", "x" * 300], "flag --capture-file: logging.capture_file: expected a path"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_wrong_use_is_exit_2_in_words_of_its_user(tmp_path: Path, words: Sequence[str], said: str) -> None:
    ended = run(tmp_path, words)
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert ended.stderr.decode().startswith(said)
    assert ended.stderr.count(b"\n") == 1
