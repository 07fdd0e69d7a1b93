"""`--daemon`: the proxy in the background with a pid file in the data directory (OPS-17, OPS-13)."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil
import pytest

from llm_proxy.cli.daemon import AlreadyRunning, PidFile, reason_against
from llm_proxy.config import load_settings
from llm_proxy.option_groups import GROUPS
from tests.server.process import KEY, free_pair, run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="background mode is for POSIX systems")
LOG: Final = ("--log", "proxy.log")
_SECONDS: Final = 20


def pid_file(folder: Path) -> Path:
    return folder / "data" / "llm-proxy.pid"


class Daemon:
    """A proxy in the background. `text` is what its start printed."""

    def __init__(self, ended: subprocess.CompletedProcess[bytes], folder: Path) -> None:
        self.text = ended.stderr.decode()
        self.process = psutil.Process(int(pid_file(folder).read_text()))
        match = re.search(r"OpenAI tools\s+base URL\s+(http://\S+)/v1", self.text)
        assert match is not None, self.text
        self.url = match[1]

    def get(self, path: str, key: str = KEY) -> int:
        asked = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {key}"})
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return int(answer.status)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(_SECONDS)


@contextmanager
def background(folder: Path, *flags: str, keyed: bool = True) -> Iterator[Daemon]:
    extra = {"LLM_INTERACTIVE_PROXY_API_KEY": KEY} if keyed else {}
    if "--port" not in flags:
        flags = ("--port", str(free_pair()), *flags)
    ended = run(folder, ["--daemon", *LOG, *flags], extra)
    assert ended.returncode == 0, ended.stderr.decode()
    assert ended.stdout == b""
    started = Daemon(ended, folder)
    try:
        yield started
    finally:
        if started.process.is_running():
            started.process.kill()
            started.process.wait(_SECONDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("daemon")


@pytest.fixture(scope="module")
def proxy(folder: Path) -> Iterator[Daemon]:
    with background(folder, keyed=False) as started:
        yield started


def test_it_listens_when_the_start_returns(proxy: Daemon, folder: Path) -> None:
    assert proxy.get("/health") == 200
    assert f"stop with kill {proxy.process.pid}" in proxy.text
    assert stat.S_IMODE(pid_file(folder).stat().st_mode) == 0o600


def test_it_survives_the_terminal(proxy: Daemon) -> None:
    assert proxy.process.terminal() is None
    assert proxy.process.ppid() != os.getpid()
    own = os.getsid(proxy.process.pid)
    assert own not in (os.getsid(0), proxy.process.pid), "a session without terminal, which it does not lead"


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="this system does not show what a process has open")
def test_nothing_of_it_reaches_whoever_started_it(proxy: Daemon, folder: Path) -> None:
    opened = [os.readlink(f"/proc/{proxy.process.pid}/fd/{number}") for number in range(3)]
    assert opened == ["/dev/null", "/dev/null", str((folder / "proxy.log").resolve())]


def test_the_generated_key_is_shown_to_whoever_starts_it_and_never_logged(proxy: Daemon, folder: Path) -> None:
    match = re.search(r"client key\s+(llmp-\S+)", proxy.text)
    assert match is not None
    assert proxy.get("/v1/models", match[1]) == 200
    assert match[1] not in (folder / "proxy.log").read_text()


def test_a_second_start_says_which_process_runs(proxy: Daemon, folder: Path) -> None:
    second = run(folder, ["--daemon", *LOG, "--port", str(free_pair())])
    assert second.returncode == 1
    assert f"already running as process {proxy.process.pid}" in second.stderr.decode()
    assert proxy.get("/health") == 200
    assert pid_file(folder).read_text() == f"{proxy.process.pid}\n"


def test_the_status_of_a_failed_start_is_that_of_the_foreground(proxy: Daemon, folder: Path) -> None:
    port = proxy.url.rpartition(":")[2]
    taken = run(folder, ["--daemon", *LOG, "--port", port, "--data-dir", "other"])
    assert taken.returncode == 3
    assert f"{port} is in use" in taken.stderr.decode()
    assert not (folder / "other" / "llm-proxy.pid").exists()


def test_a_pid_file_that_was_left_over_is_replaced_and_sigterm_removes_it(tmp_path: Path) -> None:
    # The number may belong to somebody else by now: it is the lock that counts.
    pid_file(tmp_path).parent.mkdir()
    pid_file(tmp_path).write_text(f"{os.getpid()}\n")
    with background(tmp_path) as proxy:
        assert proxy.process.pid != os.getpid()
        assert stat.S_IMODE(pid_file(tmp_path).stat().st_mode) == 0o600
        proxy.stop()
        assert not pid_file(tmp_path).exists()
    assert "Traceback" not in (tmp_path / "proxy.log").read_text()


def test_without_a_log_file_it_is_refused(tmp_path: Path) -> None:
    ended = run(tmp_path, ["--daemon"])
    assert ended.returncode == 2
    assert "flag --daemon: daemon: expected a log file beside it: --log FILE" in ended.stderr.decode()
    assert ended.stdout == b""
    assert not pid_file(tmp_path).exists()


def test_it_can_be_asked_for_by_variable_and_file(tmp_path: Path) -> None:
    def refusal(**variables: str) -> str:
        return reason_against(load_settings([], {"HOME": str(tmp_path), **variables}, tmp_path, GROUPS))

    assert "env PROXY_DAEMON: daemon: expected a log file" in refusal(PROXY_DAEMON="yes")
    assert refusal(PROXY_DAEMON="yes", LOG_FILE="x.log") == ""
    (tmp_path / "config.yaml").write_text("daemon: true\n")
    assert "config.yaml:1: daemon: expected a log file" in refusal()


def test_a_pid_file_is_claimed_once_and_no_link_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "new" / "llm-proxy.pid"
    first, second = PidFile(path), PidFile(path)
    first.claim()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with pytest.raises(AlreadyRunning) as other:
        second.claim()
    assert other.value.pid == 0
    first.write()
    with pytest.raises(AlreadyRunning) as other:
        second.claim()
    assert other.value.pid == os.getpid()
    first.remove()
    assert not path.exists()
    second.claim()
    second.remove()
    target = tmp_path / "precious"
    target.write_text("precious")
    path.symlink_to(target)
    with pytest.raises(OSError):
        PidFile(path).claim()
    assert target.read_text() == "precious"


def test_where_no_pid_file_can_be_kept_it_does_without(tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("")
    found = PidFile(tmp_path / "a-file" / "llm-proxy.pid")
    with pytest.raises(OSError):
        found.claim()
    found.write()
    found.remove()
    assert (tmp_path / "a-file").read_text() == ""
