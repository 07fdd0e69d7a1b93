"""A proxy that the tests fork is one that a user starts: the same output, the same end."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.server.process import environment
from tests.support.forked import Forked, begin, can_fork, fork, start


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(("version",), 0), (("--help",), 0), (("--no-such-flag",), 2), (("no-such-command",), 2), (("config", "show"), 0)],
)
def test_it_prints_the_same_and_ends_the_same(tmp_path: Path, arguments: tuple[str, ...], status: int) -> None:
    told = []
    for child in (how(arguments, tmp_path, environment(tmp_path)) for how in (fork, begin)):
        assert child.stdout is not None and child.stderr is not None
        with child.stdout as out, child.stderr as err:
            told.append((out.read(), err.read(), child.wait(30)))
    assert told[0] == told[1]
    assert told[0][2] == status and told[0][:2] != (b"", b"")


def test_a_signal_that_ends_it_is_told(tmp_path: Path) -> None:
    child = fork(
        ("--port", "0"), tmp_path, environment(tmp_path, {"LLM_INTERACTIVE_PROXY_API_KEY": "key-of-the-tests-0001"})
    )
    with child.stdout, child.stderr:
        assert any(b"stop with Ctrl-C" in line for line in child.stderr)
        assert child.poll() is None
        child.kill()
        assert (child.wait(30), child.poll()) == (-signal.SIGKILL, -signal.SIGKILL)


@pytest.mark.parametrize("name", ["TZ", "LC_ALL", "PYTHONUTF8", "PYTHONPATH"])
def test_what_an_interpreter_reads_as_it_begins_needs_a_start(tmp_path: Path, name: str) -> None:
    assert can_fork(environment(tmp_path))
    variables = environment(tmp_path, {name: "C"})
    assert not can_fork(variables)


def test_a_start_is_a_fork_where_that_is_the_same(tmp_path: Path) -> None:
    child = start(("version",), tmp_path, environment(tmp_path))
    assert isinstance(child, Forked)
    with child.stdout, child.stderr:
        assert child.wait(30) == 0
