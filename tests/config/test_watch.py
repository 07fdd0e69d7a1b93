"""CFG-07: changes of files are noticed, whatever way they are made, and told once they are quiet."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from llm_proxy.config import load_settings
from llm_proxy.config.sources import stamp
from llm_proxy.config.watch import FileWatch
from llm_proxy.option_groups import GROUPS


def watching(*paths: Path) -> FileWatch:
    return FileWatch({path: stamp(path) for path in paths}, lambda: None, asyncio.new_event_loop())


@pytest.fixture(autouse=True)
def no_loop_is_left(monkeypatch: pytest.MonkeyPatch) -> object:
    made: list[asyncio.AbstractEventLoop] = []
    real = asyncio.new_event_loop

    def make() -> asyncio.AbstractEventLoop:
        made.append(real())
        return made[-1]

    monkeypatch.setattr(asyncio, "new_event_loop", make)
    yield
    for loop in made:
        loop.close()


def touch(path: Path, text: str, age: int) -> None:
    """Writes with a given time of change, so that no test depends on the clock's grain."""
    path.write_text(text)
    os.utime(path, ns=(age * 10**9, age * 10**9))


def test_nothing_is_told_while_nothing_changes(tmp_path: Path) -> None:
    touch(tmp_path / "a", "1", 1)
    watch = watching(tmp_path / "a", tmp_path / "missing")
    assert [watch.look() for _ in range(3)] == [False] * 3


def test_a_change_is_told_once_when_it_is_quiet(tmp_path: Path) -> None:
    path = tmp_path / "a"
    touch(path, "1", 1)
    watch = watching(path)
    touch(path, "2", 2)
    assert watch.look() is False
    touch(path, "3", 3)
    assert watch.look() is False
    assert watch.look() is True
    assert watch.look() is False


def test_a_file_replaced_by_another_of_the_same_size_and_time_is_noticed(tmp_path: Path) -> None:
    path, draft = tmp_path / "a", tmp_path / "a.draft"
    touch(path, "1", 1)
    watch = watching(path)
    touch(draft, "2", 1)
    os.replace(draft, path)
    assert [watch.look(), watch.look()] == [False, True]


def test_files_that_appear_and_vanish_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "below" / "a"
    watch = watching(path)
    path.parent.mkdir()
    path.write_text("1")
    assert [watch.look(), watch.look()] == [False, True]
    path.unlink()
    assert [watch.look(), watch.look()] == [False, True]


def test_a_back_end_that_gets_its_own_file_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "config" / "backends").mkdir(parents=True)
    os.utime(tmp_path / "config" / "backends", ns=(1, 1))
    settings = load_settings([], {"HOME": str(tmp_path)}, tmp_path, GROUPS)
    watch = watching(*settings.files)
    (tmp_path / "config" / "backends" / "openai").mkdir()
    assert [watch.look(), watch.look()] == [False, True]


def test_a_change_between_reading_and_watching_is_not_missed(tmp_path: Path) -> None:
    touch(tmp_path / "config.yaml", "", 1)
    settings = load_settings([], {"HOME": str(tmp_path)}, tmp_path, GROUPS)
    touch(tmp_path / "config.yaml", "proxy: {}", 2)
    watch = FileWatch(settings.stamps, lambda: None, asyncio.new_event_loop())
    assert [watch.look(), watch.look()] == [False, True]


def test_other_paths_from_now_on(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    watch = watching(first)
    first.write_text("1")
    watch.look()
    watch.watch({second: stamp(second)})
    assert [watch.look(), watch.look()] == [False, False]
    second.write_text("1")
    assert [watch.look(), watch.look()] == [False, True]


async def test_the_event_loop_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a"
    told = asyncio.Event()
    watch = FileWatch({path: stamp(path)}, told.set, asyncio.get_running_loop())
    watch.start()
    path.write_text("1")
    await asyncio.wait_for(told.wait(), 20)
    await asyncio.to_thread(watch.stop)
