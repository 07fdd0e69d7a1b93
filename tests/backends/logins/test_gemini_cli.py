"""BE-17, S-12: the Gemini CLI that renews its login is started rarely, with a fixed list of arguments and nothing of ours."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from llm_proxy.backends.logins.gemini_cli import ARGUMENTS, INTERVAL, GeminiCli, clean_environment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="programs and their groups are POSIX's here")

# What a stub does: tells the test of itself by a pipe, then does what the test asked for.
STUB = """#!{python}
import json, os, sys, time
told = {{"arguments": sys.argv[1:], "environment": dict(os.environ), "directory": os.getcwd(),
        "leads": os.getpgrp() == os.getpid(), "pid": os.getpid(), "child": 0}}
if {child}:
    told["child"] = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-c", "import time; time.sleep(600)"])
with open({pipe!r}, "w") as pipe:
    pipe.write(json.dumps(told))
if {child}:
    time.sleep(600)
"""


class Stub:
    """A program of that name, and what it told when it was started."""

    def __init__(self, directory: Path, child: bool = False) -> None:
        self.pipe = directory / "pipe"
        self.program = directory / "gemini"
        os.mkfifo(self.pipe)
        self.program.write_text(STUB.format(python=sys.executable, pipe=str(self.pipe), child=child))
        self.program.chmod(0o700)

    async def told(self) -> dict[str, Any]:
        """Waits until it has started."""
        found: dict[str, Any] = msgspec.json.decode(await asyncio.to_thread(self.pipe.read_bytes))
        return found


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/h",
    "LC_ALL": "C",
    "OPENAI_API_KEY": "sk-secret",
    "GEMINI_API_KEY": "secret",
    "LLM_PROXY_X": "y",
}


async def test_a_fixed_list_of_arguments_a_clean_environment_and_a_group_of_its_own(tmp_path: Path) -> None:
    stub = Stub(tmp_path)
    cli = GeminiCli("g", str(stub.program), Clock(), ENVIRONMENT)
    assert cli.start(tmp_path)
    told = await stub.told()
    assert told["arguments"] == list(ARGUMENTS)
    assert {"OPENAI_API_KEY", "GEMINI_API_KEY", "LLM_PROXY_X"}.isdisjoint(told["environment"])
    assert (told["environment"]["HOME"], told["environment"]["LC_ALL"]) == ("/h", "C")
    assert told["directory"] == str(tmp_path.resolve())
    assert told["leads"]
    await cli.close()


def test_what_of_the_environment_goes_along() -> None:
    kept = clean_environment({**ENVIRONMENT, "https_proxy": "http://p", "XDG_RUNTIME_DIR": "/r", "NODE_OPTIONS": "--x"})
    assert set(kept) == {"PATH", "HOME", "LC_ALL", "https_proxy", "XDG_RUNTIME_DIR"}


async def test_it_is_started_at_most_every_thirty_seconds(tmp_path: Path) -> None:
    stub, clock = Stub(tmp_path), Clock()
    cli = GeminiCli("g", str(stub.program), clock)
    starts = []
    for later in (0.0, 1.0, INTERVAL - 1.5, 1.0):
        clock.now += later
        starts.append(cli.start(tmp_path))
        if starts[-1]:
            await stub.told()
            await cli.ended()
    assert starts == [True, False, False, True]


async def test_a_bare_name_is_looked_for_in_path(tmp_path: Path) -> None:
    stub = Stub(tmp_path)
    cli = GeminiCli("g", "gemini", Clock(), {"PATH": f"{tmp_path}{os.pathsep}/nowhere"})
    assert cli.start(tmp_path)
    assert (await stub.told())["arguments"] == list(ARGUMENTS)
    await cli.close()


async def test_the_program_may_lie_in_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = Stub(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    cli = GeminiCli("g", "~/gemini", Clock())
    assert cli.start(tmp_path)
    assert (await stub.told())["arguments"] == list(ARGUMENTS)
    await cli.close()


async def test_a_missing_program_is_told_and_harms_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cli = GeminiCli("g", str(tmp_path / "none"), Clock())
    with caplog.at_level(logging.WARNING):
        assert cli.start(tmp_path)
        await cli.ended()
    assert "was not found" in caplog.text


async def test_it_ends_with_its_children_when_the_proxy_does(tmp_path: Path) -> None:
    stub = Stub(tmp_path, child=True)
    cli = GeminiCli("g", str(stub.program), Clock())
    cli.start(tmp_path)
    told = await stub.told()
    child = psutil.Process(told["child"])
    await cli.close()
    assert not psutil.pid_exists(told["pid"])
    async with asyncio.timeout(10):
        while _lives(child):
            await asyncio.sleep(0)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
