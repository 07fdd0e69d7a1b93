"""`--daemon` (OPS-17): the proxy in the background, away from its terminal, with a pid file in the data directory.

Whoever starts it sees its start lines or its errors, and gets the exit status, before the prompt returns. Owns forking and the pid file;
what runs in the background is given. POSIX only, which `reason_against` tells.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from llm_proxy.config import Settings

_NAME: Final = "llm-proxy.pid"
_READY: Final = 255
"""Sent in place of an exit status: it listens."""


class AlreadyRunning(Exception):
    """Another proxy holds the pid file. `pid` is 0 while it has not written it yet."""

    def __init__(self, pid: int) -> None:
        super().__init__(str(pid))
        self.pid = pid


class PidFile:
    """A file with one number, locked as long as its process lives: a file without a lock is left over and counts for nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    def claim(self) -> None:
        """Raises AlreadyRunning, OSError where no such file can be kept."""
        import fcntl

        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        while True:
            descriptor = os.open(self.path, flags, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                pid = _number(os.pread(descriptor, 32, 0))
                os.close(descriptor)
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    raise AlreadyRunning(pid) from None
                raise
            if _is_same(self.path, descriptor):
                self._descriptor = descriptor
                return
            os.close(descriptor)  # its owner has ended and removed it in the moment between

    def write(self) -> None:
        """Writes this process's number."""
        if self._descriptor >= 0:
            os.fchmod(self._descriptor, 0o600)
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)

    def remove(self) -> None:
        if self._descriptor >= 0:
            if _is_same(self.path, self._descriptor):
                with suppress(OSError):
                    self.path.unlink()
            os.close(self._descriptor)
            self._descriptor = -1


class Background:
    """The background process as the server sees it."""

    def __init__(self, pid_file: PidFile, log: Path, status: int) -> None:
        self.pid_file = pid_file
        self._log = log
        self._status = status

    @property
    def how_to_stop(self) -> str:
        return f"kill {os.getpid()}"

    def detach(self) -> None:
        """The start lines are out: from here on nothing reaches the terminal, and whoever started this is told that it listens."""
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            # What no log line can tell, such as the interpreter's own last words.
            errors = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError:
            errors = os.open(os.devnull, os.O_WRONLY)
        os.dup2(errors, 2)
        self.tell(_READY)

    def tell(self, status: int) -> None:
        with suppress(OSError):  # nobody waits any more
            os.write(self._status, bytes([status & 0xFF]))


def reason_against(settings: Settings) -> str:
    """Why this configuration cannot run in the background, or ""."""
    from llm_proxy.config.groups import LoggingOptions

    source = settings.source_of("daemon")
    if not hasattr(os, "fork"):
        return f"{source}: daemon: this system has no background mode; run the proxy as a service of the system"
    if settings.get(LoggingOptions).file is None:
        return f"{source}: daemon: expected a log file beside it: --log FILE (option logging.file)"
    return ""


def run(settings: Settings, serve: Callable[[Background], int]) -> int:
    """Runs `serve` in the background. Returns twice: in the foreground, with 0 as soon as it listens or the status that it failed
    with; and in the background with its status in the end.

    Must be called before any thread is started.
    """
    if reason := reason_against(settings):
        print(reason, file=sys.stderr)
        return 2
    from llm_proxy.config.groups import LoggingOptions

    pid_file = PidFile(settings.data_dir / _NAME)
    try:
        pid_file.claim()
    except AlreadyRunning as other:
        who = f"as process {other.pid}; stop it with  kill {other.pid}" if other.pid else "or just starting"
        print(f"llm-proxy: a proxy of data directory {settings.data_dir} is already running {who}", file=sys.stderr)
        return 1
    except OSError as error:
        reason = error.strerror or str(error)
        print(f"llm-proxy: warning: no pid file can be kept in {settings.data_dir}: {reason}", file=sys.stderr)
    news, status = os.pipe()
    lines, output = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        os.close(status)
        os.close(output)
        return _wait(child, lines, news)
    # A session of its own without a terminal, and, not leading it, no way to get one.
    os.setsid()
    if os.fork():
        os._exit(0)
    os.close(lines)
    os.close(news)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    log = settings.get(LoggingOptions).file
    assert log is not None, "reason_against has looked"
    background = Background(pid_file, log, status)
    pid_file.write()
    result = 1
    try:
        result = serve(background)
    finally:
        pid_file.remove()
        background.tell(result)
    return result


def _wait(child: int, lines: int, news: int) -> int:
    """Shows what the background process says until it has said all; its status."""
    while text := os.read(lines, 65536):
        sys.stderr.buffer.write(text)
        sys.stderr.buffer.flush()
    os.waitpid(child, 0)
    told = os.read(news, 1)
    if not told:
        print("llm-proxy: the background process ended before it listened", file=sys.stderr)
        return 1
    return 0 if told[0] == _READY else told[0]


def _is_same(path: Path, descriptor: int) -> bool:
    try:
        named, opened = os.stat(path, follow_symlinks=False), os.fstat(descriptor)
    except OSError:
        return False
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)


def _number(text: bytes) -> int:
    text = text.strip()
    return int(text) if text.isdigit() else 0
