"""By which of the host's means an agent is held to its places (S-12).

Owns the choice between bubblewrap and Landlock, and the command line that starts an agent. Knows no protocol; what the places are is told by
`places`. Everything here looks at the file system or runs a program: call it in a thread.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from llm_proxy.backends.acp.places import Places, is_no_project, places_for, within, without
from llm_proxy.conversation.fault import Fault, FaultError

_LOG = logging.getLogger(__name__)

Mode = Literal["auto", "off", "required"]
Means = Literal["bubblewrap", "landlock", "none"]

_KERNEL: Final = ("/proc", "/sys/fs/cgroup", "/sys/devices/system")
_DEVICES: Final = ("/dev/ptmx", "/dev/pts", "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_PROCESSES: Final = 1024  # beyond those of its user; threads count, of which node has a dozen each
_PROBE_SECONDS: Final = 5.0


class Start(msgspec.Struct, frozen=True):
    """How an agent is started. `watched`: by a launcher that outlives it and ends all that stems from it."""

    argv: list[str]
    environment: dict[str, str]
    watched: bool
    means: Means


class Sandbox:
    """That of one back end. `id`: the back end's, for messages. `private`: files and directories of the proxy. `environment`: the agent's."""

    def __init__(self, id: str, mode: Mode, environment: Mapping[str, str], private: Iterable[Path | str] = ()) -> None:
        self._id = id
        self._mode = mode
        self._environment = dict(environment)
        self._private = tuple(os.path.realpath(path) for path in private)
        self._bubblewrap: str | None = None
        self._means: Means | None = None
        self._warned: set[str] = set()

    @property
    def means(self) -> Means:
        """What holds the agents of this back end. Found out once; raises FaultError where a sandbox is required and there is none."""
        if self._means is None:
            self._means = self._find_means()
        if self._means == "none" and self._mode == "required":
            message = (
                f"backends.{self._id}.sandbox is `required`, but this host offers neither bubblewrap nor Landlock; "
                "install bubblewrap (bwrap), or set it to `auto`."
            )
            raise FaultError(Fault(kind="unavailable", message=message))
        return self._means

    def _find_means(self) -> Means:
        if self._mode == "off":
            return "none"
        self._bubblewrap = _working_bubblewrap(self._environment.get("PATH"))
        if self._bubblewrap is not None:
            return "bubblewrap"
        if _landlock() > 0:
            return "landlock"
        if self._mode == "auto":
            self._warn(
                f"{self._id}: this host offers neither bubblewrap nor Landlock, so the agent runs without a sandbox and "
                f"can read and change whatever its user can (backends.{self._id}.sandbox)"
            )
        return "none"

    def check_project(self, directory: str) -> None:
        """Raises FaultError where an agent must not work: at home itself, in the system, among credentials and the proxy's files.
        `directory` is a real path.
        """
        if self._mode == "off":
            return
        if is_no_project(directory, self._environment, self._private):
            message = (
                "The agent may not work in that directory: it is the home directory itself, or belongs to the system, to "
                f"credentials or to the proxy. Choose another with project-dir, or see backends.{self._id}.sandbox."
            )
            raise FaultError(Fault(kind="bad_request", message=message, side="client"))

    def is_private(self, path: str) -> bool:
        """Is it a file of the proxy. `path` is a real path."""
        return any(within(path, private) for private in self._private)

    def start(self, argv: Sequence[str], directory: str) -> Start:
        """How `argv` is started in the project `directory`, a real path. Raises FaultError, see `means`."""
        means = self.means
        environment = dict(self._environment)
        if sys.platform != "linux":
            return Start(list(argv), environment, watched=False, means="none")
        from llm_proxy.backends.acp.launcher import can_filter

        order: dict[str, object] = {"temporary": "", "read": None, "write": None, "lonely": False, "filtered": False}
        order["processes"] = _PROCESSES
        command = list(argv)
        if means != "none":
            temporary = os.path.join(os.path.realpath(tempfile.gettempdir()), f"llm-proxy-agent-{secrets.token_hex(8)}")
            places = places_for(argv[0], directory, self._environment, self._private)
            order |= {"temporary": temporary, "lonely": True}
            environment = _with_temporary(environment, "/tmp" if means == "bubblewrap" else temporary)
        if means == "bubblewrap":
            assert self._bubblewrap is not None
            if not _is_program(argv[0]):  # bubblewrap would have a shell read it
                message = f"{argv[0]} is no program; see backends.{self._id}.gemini_cli_executable."
                raise FaultError(Fault(kind="unavailable", message=message))
            command = [self._bubblewrap, *_bubblewrap(places, temporary, directory), "--", *argv]
        elif means == "landlock":
            self._warn_of_what_shows(places)
            write = [temporary, *places.write, *_DEVICES]
            read = [*without(places.read, places.hidden), *_KERNEL]
            order |= {"read": read, "write": write, "filtered": can_filter()}
        launcher = Path(__file__).with_name("launcher.py")
        line = [sys.executable, "-I", "-S", str(launcher), json.dumps(order), *command]
        return Start(line, environment, watched=True, means=means)

    def _warn_of_what_shows(self, places: Places) -> None:
        for hidden in places.hidden:
            if any(within(hidden, place) for place in places.write) and os.path.lexists(hidden):
                message = f"{hidden} lies in the project directory, where Landlock cannot hide it from the agent"
                if self._mode == "required":
                    message += f"; move it, or install bubblewrap (backends.{self._id}.sandbox is `required`)."
                    raise FaultError(Fault(kind="unavailable", message=message))
                self._warn(f"{self._id}: {message}; move it, or install bubblewrap")

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            _LOG.warning("%s", message)


def _with_temporary(environment: dict[str, str], temporary: str) -> dict[str, str]:
    """Caches go there as well: their usual places at home are out of reach. The directory of the user's sockets is of no use to it."""
    environment.pop("XDG_RUNTIME_DIR", None)
    places = dict.fromkeys(("TMPDIR", "TMP", "TEMP"), temporary)
    return environment | places | {"XDG_CACHE_HOME": f"{temporary}/cache", "npm_config_cache": f"{temporary}/npm"}


def _is_program(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(4).startswith((b"#!", b"\x7fELF"))
    except OSError:
        return False


# ---- the host's means


def _landlock() -> int:
    if sys.platform != "linux":
        return 0
    from llm_proxy.backends.acp.launcher import landlock_version

    return landlock_version()


_HOLD: Final = (
    "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--die-with-parent", "--cap-drop", "ALL",
)  # fmt: skip
# Root keeps power over owner and mode of files: a container's project belongs to somebody else. What is bound read-only stays so.
_ROOT_KEEPS: Final = ("--cap-add", "CAP_CHOWN", "--cap-add", "CAP_DAC_OVERRIDE", "--cap-add", "CAP_FOWNER")


def _hold() -> tuple[str, ...]:
    return (*_HOLD, *_ROOT_KEEPS) if os.geteuid() == 0 else (*_HOLD, "--unshare-user")


def _working_bubblewrap(path: str | None) -> str | None:
    """Its absolute path when it is there and does what we need: many hosts, and most containers, forbid it."""
    program = shutil.which("bwrap", path=path) if sys.platform == "linux" else None
    if program is None:
        return None
    probe = [program, *_hold(), "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--", program, "--version"]
    try:
        done = subprocess.run(
            probe, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_SECONDS, check=False, env={}
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return program if done.returncode == 0 else None


def _bubblewrap(places: Places, temporary: str, directory: str) -> list[str]:
    """Its arguments. What comes later lies over what came before."""
    line = [*_hold(), "--proc", "/proc", "--dev", "/dev", "--bind", temporary, "/tmp"]
    for path in _KERNEL[1:]:
        line += ["--ro-bind-try", path, path]
    for path in sorted(places.read):
        line += ["--symlink", os.readlink(path), path] if os.path.islink(path) else ["--ro-bind-try", path, path]
    for path in sorted(places.write):
        line += ["--bind", path, path]
    for path in places.hidden:
        if os.path.lexists(path) and any(within(path, place) for place in (*places.read, *places.write)):
            line += ["--tmpfs", path, "--remount-ro", path] if os.path.isdir(path) else ["--ro-bind", os.devnull, path]
    return [*line, "--remount-ro", "/", "--chdir", directory]
