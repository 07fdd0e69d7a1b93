"""OPS-13: the log's file: rotation by size, files that others move, disks that take nothing."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from llm_proxy.cli.log_file import LogFile


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Told(list[str]):
    """What a person read on standard error."""

    def __call__(self, text: str) -> None:
        self.append(text)


def opened(path: Path, most: int = 0, backups: int = 0) -> tuple[LogFile, Clock, Told]:
    clock, told = Clock(), Told()
    return LogFile(path, most, backups, clock=clock, tell=told), clock, told


def files(folder: Path) -> dict[str, list[str]]:
    return {path.name: path.read_text().splitlines() for path in sorted(folder.iterdir())}


def test_at_its_size_the_file_is_put_aside_and_no_line_is_split_lost_or_doubled(tmp_path: Path) -> None:
    file, _, told = opened(tmp_path / "log", most=100, backups=100)
    lines = [f"line {number:03d} {'x' * (number % 40)}" for number in range(200)]
    for start in range(0, 200, 7):
        file.write(lines[start : start + 7])
    file.close()
    found = files(tmp_path)
    order = sorted(found, key=lambda name: -int(name.partition(".")[2] or 0))
    assert [line for name in order for line in found[name]] == lines
    assert all((tmp_path / name).stat().st_size <= 100 for name in found)
    assert told == []


def test_no_more_files_are_kept_than_asked_for(tmp_path: Path) -> None:
    """given max_size_mb 1 and backup_count 2, then at most three files (here with fewer bytes)"""
    file, _, _ = opened(tmp_path / "log", most=50, backups=2)
    for number in range(100):
        file.write([f"line {number:02d} of the log"])
        assert set(files(tmp_path)) <= {"log", "log.1", "log.2"}
    assert set(files(tmp_path)) == {"log", "log.1", "log.2"}
    assert files(tmp_path)["log"][-1] == "line 99 of the log"


def test_fewer_files_to_keep_are_fewer_at_the_next_turn(tmp_path: Path) -> None:
    file, _, _ = opened(tmp_path / "log", most=10, backups=4)
    file.write([f"line {number}" for number in range(9)])
    assert len(files(tmp_path)) == 5
    file.backups = 1
    file.write(["line 9", "line 10"])
    assert set(files(tmp_path)) == {"log", "log.1"}


def test_without_files_to_keep_there_is_one_file(tmp_path: Path) -> None:
    file, _, _ = opened(tmp_path / "log", most=10, backups=0)
    file.write([f"line {number}" for number in range(9)])
    assert files(tmp_path) == {"log": ["line 8"]}


def test_zero_size_is_never_put_aside(tmp_path: Path) -> None:
    file, _, _ = opened(tmp_path / "log", most=0, backups=2)
    file.write(["x" * 1000] * 100)
    assert set(files(tmp_path)) == {"log"}


def test_a_line_longer_than_the_size_stands_alone_and_whole(tmp_path: Path) -> None:
    file, _, _ = opened(tmp_path / "log", most=10, backups=5)
    file.write(["a", "b" * 50, "c"])
    assert files(tmp_path) == {"log": ["c"], "log.1": ["b" * 50], "log.2": ["a"]}


def test_a_restart_goes_on_where_the_file_ends(tmp_path: Path) -> None:
    for line in ("first", "second"):
        file, _, _ = opened(tmp_path / "log", most=13, backups=1)
        file.write([line])
        file.close()
    assert files(tmp_path) == {"log": ["first", "second"]}
    file, _, _ = opened(tmp_path / "log", most=13, backups=1)
    file.write(["third"])
    assert files(tmp_path) == {"log": ["third"], "log.1": ["first", "second"]}


@pytest.mark.skipif(os.name == "nt", reason="no file modes")
def test_only_the_owner_may_read_it_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        file, _, _ = opened(tmp_path / "log", most=10, backups=2)
        file.write(["line 1", "line 2", "line 3"])
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


@pytest.mark.skipif(os.name == "nt", reason="open files cannot be moved")
def test_a_file_moved_by_another_program_is_left_within_a_second_or_at_once_when_told(tmp_path: Path) -> None:
    file, clock, _ = opened(tmp_path / "log")
    file.write(["one"])
    (tmp_path / "log").rename(tmp_path / "log.moved")
    file.write(["two"])
    clock.now += 1.1
    file.write(["three"])
    (tmp_path / "log").rename(tmp_path / "log.second")
    file.reopen()  # as at SIGHUP
    file.write(["four"])
    assert files(tmp_path) == {"log": ["four"], "log.moved": ["one", "two"], "log.second": ["three"]}


@pytest.mark.skipif(os.name == "nt", reason="open files cannot be deleted")
def test_a_deleted_file_is_begun_again(tmp_path: Path) -> None:
    file, clock, told = opened(tmp_path / "log")
    file.write(["one"])
    (tmp_path / "log").unlink()
    clock.now += 1.1
    file.write(["two"])
    assert files(tmp_path) == {"log": ["two"]}
    assert told == []


def test_a_file_emptied_by_another_program_counts_from_nothing(tmp_path: Path) -> None:
    file, clock, _ = opened(tmp_path / "log", most=30, backups=1)
    file.write(["a" * 25])
    os.truncate(tmp_path / "log", 0)
    clock.now += 1.1
    file.write(["b" * 20])
    assert set(files(tmp_path)) == {"log"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_full_disk_is_told_once_a_minute_and_harms_nobody() -> None:
    file, clock, told = opened(Path("/dev/full"))
    for _ in range(30):
        file.write(["line", "line"])
        clock.now += 4.0
    assert file.lost == 60
    assert len(told) == 2
    assert all("/dev/full" in line and "No space left" in line for line in told)


def test_a_file_that_cannot_be_put_aside_goes_on(tmp_path: Path) -> None:
    (tmp_path / "log.1" / "something").mkdir(parents=True)
    file, _, told = opened(tmp_path / "log", most=10, backups=1)
    file.write([f"line {number}" for number in range(9)])
    assert (tmp_path / "log").read_text().splitlines() == [f"line {number}" for number in range(9)]
    assert len(told) == 1 and "put aside" in told[0]
    assert file.lost == 0


def test_a_directory_that_is_gone_is_told_and_the_lines_come_again_when_it_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    file, clock, told = opened(folder / "log")
    file.write(["one"])
    (folder / "log").unlink()
    folder.rmdir()
    clock.now += 1.1
    file.write(["two"])
    assert len(told) == 1 and "No such file" in told[0]
    folder.mkdir()
    clock.now += 1.1
    file.write(["three"])
    assert files(folder) == {"log": ["three"]}


def test_a_torn_line_is_ended_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, _, told = opened(tmp_path / "log")
    write = os.write
    answers = [lambda fd, data: write(fd, data[:4]), _no_space]
    monkeypatch.setattr(os, "write", lambda fd, data: answers.pop(0)(fd, data) if answers else write(fd, data))
    file.write(["one two", "three"])
    file.write(["four"])
    monkeypatch.undo()
    assert files(tmp_path)["log"] == ["one ", "four"]
    assert file.lost == 2
    assert len(told) == 1


def _no_space(descriptor: int, data: bytes) -> int:
    raise OSError(28, "No space left on device")


@pytest.mark.skipif(os.name == "nt", reason="symbolic links")
def test_no_link_is_followed_but_those_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        LogFile(tmp_path / "log")
    if Path("/dev/null").exists():
        file, _, _ = opened(Path("/dev/null"), most=10, backups=2)
        file.write(["line"] * 10)
        assert file.lost == 0
        assert Path("/dev/null").is_char_device()
