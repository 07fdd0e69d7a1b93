"""Proxies as processes of their own, forked from one that has imported the program already.

Owns the order to `tests.support.fork_server` and a handle that looks like `subprocess.Popen`. Starts that are themselves under test
begin with the interpreter, by `subprocess`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_SOURCE: Final = Path(__file__).resolve().parents[2] / "src"
_SERVER: Final = Path(__file__).with_name("fork_server.py")
_READ_AT_START: Final = ("TZ", "LC_", "LD_", "PYTHON", "MALLOC_", "SSL_")
"""Beginnings of the names of variables that are read once, when a process or its interpreter begins, or a library is imported."""


class Forked:
    """A running proxy: the part of `subprocess.Popen` that tests use. `stdout` and `stderr` are pipes."""

    def __init__(self, pid: int, news: int, stdout: io.BufferedReader, stderr: io.BufferedReader) -> None:
        self.pid = pid
        self.stdout = stdout
        self.stderr = stderr
        self.returncode: int | None = None
        self._news = news
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, negative for a signal. Raises subprocess.TimeoutExpired."""
        if (status := self._ended(timeout)) is None:
            raise subprocess.TimeoutExpired("llm_proxy", timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def _ended(self, timeout: float | None) -> int | None:
        with self._lock:
            if self.returncode is None and self._told(timeout):
                text = os.read(self._news, 32)
                # No word: whoever would have told was killed, and the proxy's end is unknown.
                self.returncode = os.waitstatus_to_exitcode(int(text)) if text else -signal.SIGKILL
                os.close(self._news)
            return self.returncode

    def _told(self, timeout: float | None) -> bool:
        news = select.poll()  # which, other than select, knows no largest number of a descriptor
        news.register(self._news, select.POLLIN)
        return bool(news.poll(None if timeout is None else timeout * 1000))


def can_fork(environment: Mapping[str, str]) -> bool:
    """Whether a fork is the same as a start in this environment: nothing in it is read only when an interpreter begins."""
    if sys.platform != "linux" or environment.get("PYTHONPATH") != str(_SOURCE):  # others have no such sockets
        return False
    return not any(name.startswith(_READ_AT_START) for name in environment if name != "PYTHONPATH")


def start(arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Forked | subprocess.Popen[bytes]:
    """`python -m llm_proxy *arguments` in that folder and environment, in a session of its own, with pipes as its outputs and
    without an input: a fork where that is the same, else a start of the interpreter."""
    if can_fork(environment):
        return fork(arguments, folder, environment)
    return begin(arguments, folder, environment)


def begin(arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """The same, as a user does it."""
    return subprocess.Popen(
        [sys.executable, "-m", "llm_proxy", *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def fork(arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Forked:
    """The same, without starting an interpreter."""
    order = json.dumps({"arguments": [*arguments], "folder": str(folder), "environment": dict(environment)}).encode()
    out, stdout = os.pipe()
    err, stderr = os.pipe()
    news, told = os.pipe()
    stdin = os.open(os.devnull, os.O_RDONLY)
    handed = [stdin, stdout, stderr, told]
    try:
        with _ordering:
            socket.send_fds(_server(), [order], handed)
    finally:
        for number in handed:
            os.close(number)
    pid = b""
    while not pid.endswith(b"\n"):  # byte by byte, so that the status stays in the pipe
        if not (byte := os.read(news, 1)):
            raise AssertionError("the process that forks proxies has ended")
        pid += byte
    return Forked(int(pid), news, os.fdopen(out, "rb"), os.fdopen(err, "rb"))


_ordering: Final = threading.Lock()


@functools.cache
def _server() -> socket.socket:
    """The control socket of this process's server, which lives until this process ends."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    server = subprocess.Popen(
        [sys.executable, "-P", str(_SERVER), str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        env={**kept, "PYTHONPATH": str(_SOURCE)},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    theirs.close()

    def end() -> None:
        ours.close()
        server.wait()

    atexit.register(end)
    return ours
