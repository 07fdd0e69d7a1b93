"""The Gemini CLI as the program that renews its own login: started in the background, at most every 30 seconds (BE-17, S-12).

Owns the process: a fixed argument list, no shell, a clean environment, a group of its own, and its end. What it writes is read by others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

_LOG = logging.getLogger(__name__)

# The smallest request that there is: the CLI renews its login on the way to it.
ARGUMENTS: Final = ("-m", "gemini-2.5-flash", "-p", "Answer with OK.")
INTERVAL: Final = 30.0
LONGEST: Final = 60.0
"""Seconds between two starts, and after which one that has not ended is ended."""

# What the CLI needs to find its home, its interpreter and the network; no key and no other secret of this process.
_KEPT: Final = frozenset(
    {
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR", "TEMP", "TMP", "NODE_EXTRA_CA_CERTS",
        "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
        "SYSTEMROOT", "WINDIR", "COMSPEC", "PATHEXT", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "HOMEDRIVE", "HOMEPATH",
    }
)  # fmt: skip


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environ.items()
        if name.upper() in _KEPT or name.upper().startswith(("LC_", "XDG_"))
    }


class GeminiCli:
    """`executable` comes from the configuration only; a bare name is looked for in PATH. `clock` is monotonic."""

    def __init__(
        self, id: str, executable: str, clock: Callable[[], float], environ: Mapping[str, str] | None = None
    ) -> None:
        self._id = id
        self._executable = executable
        self._clock = clock
        self._environ = os.environ if environ is None else environ
        self._last: float | None = None
        self._running: asyncio.Task[None] | None = None

    def start(self, directory: Path) -> bool:
        """Starts it in `directory`, unless it was started within the last 30 seconds or still runs. Returns at once."""
        now = self._clock()
        if self._running is not None or (self._last is not None and now - self._last < INTERVAL):
            return False
        self._last = now
        self._running = asyncio.create_task(self._run(directory))
        self._running.add_done_callback(self._settle)
        return True

    @property
    def running(self) -> bool:
        return self._running is not None

    async def ended(self) -> None:
        """Waits for the end of what runs."""
        if self._running is not None:
            await asyncio.wait({self._running})

    async def close(self) -> None:
        """Ends it with its children."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    def _settle(self, task: asyncio.Task[None]) -> None:
        self._running = None
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("back end %s: the Gemini CLI could not be watched: %s", self._id, type(error).__name__)

    async def _run(self, directory: Path) -> None:
        program = await asyncio.to_thread(self._program)
        if program is None:
            _LOG.warning("back end %s: the Gemini CLI (%s) was not found, so it cannot renew its login",
                         self._id, self._executable)  # fmt: skip
            return
        try:
            process = await asyncio.create_subprocess_exec(
                program, *ARGUMENTS, cwd=directory, env=clean_environment(self._environ),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                start_new_session=os.name == "posix",
            )  # fmt: skip
        except (OSError, NotImplementedError) as error:
            _LOG.warning("back end %s: the Gemini CLI could not be started: %s", self._id, type(error).__name__)
            return
        try:
            async with asyncio.timeout(LONGEST):
                code = await process.wait()
            _LOG.info("back end %s: the Gemini CLI was started to renew its login and ended with %d", self._id, code)
        except TimeoutError:
            _LOG.warning("back end %s: the Gemini CLI did not end within %g seconds", self._id, LONGEST)
        finally:
            if process.returncode is None:
                _end(process)
                await process.wait()

    def _program(self) -> str | None:
        """Its full path: the CLI runs in another directory than this process."""
        found = shutil.which(os.path.expanduser(self._executable), path=self._environ.get("PATH"))
        return None if found is None else os.path.abspath(found)


def _end(process: asyncio.subprocess.Process) -> None:
    """Whatever it started ends with it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
