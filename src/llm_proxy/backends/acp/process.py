"""The agent's process: started without a shell and with little more than its own login, ended with all its children (S-12).

Owns starting, lines in and out with back pressure, limits, and killing. Knows no message.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

_LOG = logging.getLogger(__name__)

# As the launcher says it, which cannot be imported where there is no Linux.
CANNOT: Final = 126
COMPLAINT: Final = "llm-proxy cannot run this agent: "
LONGEST_LINE: Final = 16 * 2**20  # a written file comes as one line; editors of this protocol stop at similar sizes
_HELD: Final = 2**20  # bytes of complete lines that wait for us before the agent's output is no longer read
_ERRORS_KEPT: Final = 4096
_MARK: Final = "LLM_PROXY_AGENT"
_AFTER_TERM: Final = 1.0
_AFTER_ITS_END: Final = 0.3  # between its last word and its status
_LAUNCHER_NEEDS: Final = 3.0  # the second that it gives the agent too, and the time to kill and find all
_LOOKS_AGAIN: Final = (0.01, 0.03, 0.1, 0.3, 1.0)  # seconds between looks at what is left of the killed

# What a CLI needs for its own login, its language, its way to the network. No key and nothing of ours is among them.
_ALLOWED: Final = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "SHELL", "XDG_CONFIG_HOME",
    "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "HTTP_PROXY", "HTTPS_PROXY",
    "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy", "SSL_CERT_FILE",
    "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION", "SYSTEMROOT",
    "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "TEMP", "TMP", "USERPROFILE", "USERNAME", "HOMEDRIVE",
    "HOMEPATH", "APPDATA", "LOCALAPPDATA", "PROGRAMDATA", "PROGRAMFILES",
})  # fmt: skip


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What an agent gets of `environ`. Relative entries of PATH, which would find programs in the project directory, are left out."""
    kept = {name: value for name, value in environ.items() if name in _ALLOWED or name.startswith("LC_")}
    if "PATH" in kept:
        kept["PATH"] = absolute_path(kept["PATH"])
    return {**kept, "TERM": "dumb", "NO_COLOR": "1", "NO_BROWSER": "true"}


def absolute_path(path: str) -> str:
    return os.pathsep.join(entry for entry in path.split(os.pathsep) if os.path.isabs(entry))


class AgentProcess(asyncio.SubprocessProtocol):
    """One process. `start` makes it; whoever made it calls `end`."""

    def __init__(self, watched: bool) -> None:
        self._watched = watched
        self._mark = secrets.token_hex(16)
        self._transport: asyncio.SubprocessTransport | None = None
        self._lines: deque[bytes] = deque()
        self._held = 0
        self._rest = bytearray()
        self._paused = False
        self._no_more = False
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._exited = asyncio.Event()
        self._errors = bytearray()
        self.too_long = False
        """Did it write a line beyond LONGEST_LINE; it is not read any more then."""

    @classmethod
    async def start(
        cls, argv: Sequence[str], directory: str, environment: Mapping[str, str], watched: bool = False
    ) -> AgentProcess:
        """Runs `argv` in `directory`, in a process group and session of its own. `watched`: it is the launcher, which ends what stems from
        the agent by itself. Raises OSError when it cannot be started.
        """
        process = cls(watched)
        options: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        transport, _ = await asyncio.get_running_loop().subprocess_exec(
            lambda: process,
            *argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=directory,
            env={**environment, _MARK: process._mark},
            **options,
        )
        process._transport = transport
        return process

    @property
    def pid(self) -> int:
        assert self._transport is not None
        return self._transport.get_pid()

    @property
    def exit_status(self) -> int | None:
        return None if self._transport is None else self._transport.get_returncode()

    @property
    def last_errors(self) -> str:
        """The end of what it wrote to its error output. May hold anything: not for logs and messages."""
        return self._errors.decode("utf-8", "replace")

    @property
    def not_begun(self) -> str:
        """Why the launcher could not begin the agent's program; "" when it did, or is not through yet."""
        if not self._watched or self.exit_status != CANNOT:
            return ""
        *_, last = self.last_errors.strip().splitlines() or [""]
        return last.removeprefix(COMPLAINT) if last.startswith(COMPLAINT) else ""

    # ---- what asyncio tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's class stands beside asyncio's

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd != 1:
            self._errors += data
            del self._errors[:-_ERRORS_KEPT]
            return
        if self.too_long:
            return
        *lines, rest = data.split(b"\n")
        for piece in lines:
            self._rest += piece
            if line := bytes(self._rest.strip()):
                self._lines.append(line)
                self._held += len(line)
            self._rest.clear()
        self._rest += rest
        if len(self._rest) > LONGEST_LINE:
            self.too_long = self._no_more = True
            self._rest.clear()
        if self._held > _HELD and not self._paused:
            self._paused = True
            self._read_pipe("pause_reading")
        self._arrived.set()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1:
            self._finish()
        elif fd == 0:
            self._writable.set()

    def process_exited(self) -> None:
        self._exited.set()
        # A child that escaped may hold the pipe open: what is there is read, but nobody waits for more.
        asyncio.get_running_loop().call_later(0.2, self._finish)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _finish(self) -> None:
        self._no_more = True
        self._arrived.set()

    def _read_pipe(self, action: str) -> None:
        pipe = None if self._transport is None else self._transport.get_pipe_transport(1)
        if pipe is not None:
            with contextlib.suppress(RuntimeError):  # already closing
                getattr(pipe, action)()

    # ---- lines

    async def line(self) -> bytes:
        while not self._lines:
            if self._no_more:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        line = self._lines.popleft()
        self._held -= len(line)
        if self._paused and self._held <= _HELD // 2:
            self._paused = False
            self._read_pipe("resume_reading")
        return line

    def write(self, data: bytes) -> None:
        pipe: Any = None if self._transport is None else self._transport.get_pipe_transport(0)
        if pipe is not None and not pipe.is_closing():
            pipe.write(data)

    async def drained(self) -> None:
        await self._writable.wait()

    # ---- the end

    async def exited(self, within: float) -> bool:
        try:
            async with asyncio.timeout(within):
                await self._exited.wait()
        except TimeoutError:
            return False
        return True

    async def end(self) -> None:
        """Asks it to stop, and kills it and all its children a second later. Returns when none of them is left."""
        if self._transport is None:
            return
        group = self.pid
        if self._no_more and not self.too_long:
            await self.exited(_AFTER_ITS_END)
        children = await asyncio.to_thread(_children, group, self._mark)
        if not self._exited.is_set():
            _signal_group(group, signal.SIGTERM)
            await self.exited(_LAUNCHER_NEEDS if self._watched else _AFTER_TERM)
        for pause in _LOOKS_AGAIN:
            if self._watched and self._exited.is_set():
                children = await asyncio.to_thread(_children, group, self._mark)
                if not children:
                    break
            await asyncio.to_thread(_kill_tree, group, self._exited.is_set(), children)
            children = await asyncio.to_thread(_children, group, self._mark)
            if not children:
                break
            await asyncio.sleep(pause)
        await self.exited(_AFTER_TERM)
        self._finish()
        self._transport.close()


def _signal_group(group: int, number: int) -> None:
    if sys.platform == "win32":
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _kill_tree(group: int, exited: bool, children: set[int]) -> None:
    if sys.platform == "win32":
        if not exited:
            subprocess.run(["taskkill", "/PID", str(group), "/T", "/F"], capture_output=True, check=False, timeout=5)
        return
    _signal_group(group, signal.SIGKILL)
    for pid in children:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _children(root: int, mark: str) -> set[int]:
    """Living processes that stem from `root`, left its group and session though they may have: by their parents, and by the mark that
    they inherited in their environment. Empty where the system has no /proc: there the group is all that is known.
    """
    parents: dict[int, int] = {}
    marked: set[int] = set()
    wanted = f"{_MARK}={mark}".encode()
    for entry in Path("/proc").glob("[0-9]*") if sys.platform == "linux" else ():
        pid = int(entry.name)
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
            if fields[0] in (b"Z", b"X"):
                continue
            parents[pid] = int(fields[1])
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                marked.add(pid)
    found = {root} | marked
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return {pid for pid in found if pid in parents and pid != os.getpid()}
