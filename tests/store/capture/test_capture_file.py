"""OPS-06: the capture file is rotated by size, age and number, bounded altogether, and never loses, doubles or splits a line."""

from __future__ import annotations

import json
import os
import stat
from collections import deque
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.store.capture import file as capture_file
from llm_proxy.store.capture.file import CaptureFile, Limits
from llm_proxy.store.capture.lines import first_line
from llm_proxy.store.capture.reading import Following, Reading, files

FIRST = first_line(1000.0)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def entry(number: int, size: int = 0) -> bytes:
    return json.dumps({"direction": "stream_chunk", "payload": number, "key_name": "x" * size}).encode() + b"\n"


def written(path: Path) -> list[int]:
    return [line.value for line in Reading(path) if line.direction != "system_init"]


def made(path: Path, limits: Limits | None = None, clock: Clock | None = None) -> CaptureFile:
    return CaptureFile(path, limits or Limits(), lambda: FIRST, clock or Clock())


def append(file: CaptureFile, *numbers: int, size: int = 0) -> None:
    for number in numbers:
        file.append(deque([entry(number, size)]))


def test_every_file_begins_with_the_version_of_its_format(tmp_path: Path) -> None:
    path = tmp_path / "capture.jsonl"
    append(made(path, Limits(bytes=600, files=3)), *range(30), size=60)
    assert len(files(path)) == 4
    for name in files(path):
        first = json.loads(name.read_bytes().partition(b"\n")[0])
        assert first["direction"] == "system_init"
        assert first["payload"] == {"format_version": "buffered_v1"}


def test_given_max_bytes_1000_and_max_files_2_then_never_more_than_three_files(tmp_path: Path) -> None:
    path = tmp_path / "capture.jsonl"
    file = made(path, Limits(bytes=1000, files=2))
    for number in range(100):
        append(file, number, size=number % 300)
        assert len(list(tmp_path.iterdir())) <= 3
        assert all(name.stat().st_size <= 1000 for name in files(path))
    kept = written(path)
    assert kept == list(range(100 - len(kept), 100))


def test_given_total_5000_then_their_sum_stays_below_5000_plus_one_entry(tmp_path: Path) -> None:
    path = tmp_path / "capture.jsonl"
    file = made(path, Limits(bytes=1500, files=100, total=5000))
    for number in range(200):
        append(file, number, size=number % 400)
        assert sum(name.stat().st_size for name in tmp_path.iterdir()) <= 5000
    kept = written(path)
    assert len(kept) > 10 and kept == list(range(200 - len(kept), 200))


def test_a_total_smaller_than_a_file_bounds_the_file_too(tmp_path: Path) -> None:
    path = tmp_path / "capture.jsonl"
    file = made(path, Limits(bytes=100_000, files=5, total=3000))
    for number in range(100):
        append(file, number, size=200)
        assert sum(name.stat().st_size for name in tmp_path.iterdir()) <= 3000


def test_given_interval_1_s_then_rotated(tmp_path: Path) -> None:
    path, clock = tmp_path / "capture.jsonl", Clock()
    file = made(path, Limits(seconds=1), clock)
    append(file, 1)
    clock.now += 0.9
    append(file, 2)
    assert len(files(path)) == 1
    clock.now += 0.2
    file.look()  # nothing needs to come
    assert len(files(path)) == 2
    clock.now += 5
    file.look()
    assert len(files(path)) == 2, "a file without entries is not rotated"
    assert written(path) == [1, 2]


def test_the_age_of_a_file_goes_on_after_a_restart(tmp_path: Path) -> None:
    path, clock = tmp_path / "capture.jsonl", Clock()
    before = made(path, Limits(seconds=60), clock)
    append(before, 1)
    before.close()
    clock.now += 61
    append(made(path, Limits(seconds=60), clock), 2)
    assert len(files(path)) == 2
    assert written(path) == [1, 2]


def test_given_max_bytes_0_then_never_by_size(tmp_path: Path) -> None:
    path = tmp_path / "capture.jsonl"
    append(made(path, Limits(bytes=0, files=2)), *range(100), size=1000)
    assert files(path) == [path]
    assert written(path) == list(range(100))


def test_given_max_files_0_then_nothing_old_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "capture.jsonl"
    append(made(path, Limits(bytes=800, files=0)), *range(50), size=100)
    assert list(tmp_path.iterdir()) == [path]
    assert written(path)[-1] == 49


def test_fewer_files_than_before_are_kept_from_then_on(tmp_path: Path) -> None:
    path = tmp_path / "capture.jsonl"
    before = made(path, Limits(bytes=500, files=8))
    append(before, *range(40), size=100)
    before.close()
    assert len(files(path)) == 9
    append(made(path, Limits(bytes=500, files=2)), *range(40, 50), size=100)
    assert len(list(tmp_path.iterdir())) == 3


def test_an_entry_larger_than_the_limit_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "capture.jsonl"
    append(made(path, Limits(bytes=500, files=5)), 1, 2, 3, size=2000)
    assert written(path) == [1, 2, 3]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 700), max_size=60),
    limit=st.sampled_from([0, 300, 1000, 2500]),
    batch=st.integers(1, 9),
)
def test_rotation_loses_doubles_and_splits_no_line(
    sizes: list[int], limit: int, batch: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("capture") / "capture.jsonl"
    file = made(path, Limits(bytes=limit, files=1000))
    following = Following(path, from_start=True)
    followed: list[bytes] = []
    for start in range(0, len(sizes), batch):
        file.append(deque(entry(number, sizes[number]) for number in range(start, min(start + batch, len(sizes)))))
        if start % 2:
            followed += following.poll()
    followed += following.poll()
    following.close()
    file.close()
    assert written(path) == list(range(len(sizes)))
    seen = [json.loads(line) for line in followed]
    assert [line["payload"] for line in seen if line["direction"] == "stream_chunk"] == list(range(len(sizes)))


# Others on the same file


def test_given_a_file_renamed_by_another_program_then_the_next_line_begins_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "capture.jsonl"
    file = made(path)
    append(file, 1, 2)
    path.rename(tmp_path / "capture.jsonl-20261121")
    append(file, 3)
    assert written(path) == [3]
    assert written(tmp_path / "capture.jsonl-20261121") == [1, 2]


def test_given_a_file_emptied_by_another_program_then_it_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "capture.jsonl"
    file = made(path)
    append(file, 1, 2)
    os.truncate(path, 0)
    append(file, 3)
    assert path.read_bytes() == FIRST + entry(3)


def test_given_a_removed_directory_then_it_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "captures" / "capture.jsonl"
    file = made(path)
    append(file, 1)
    path.unlink()
    path.parent.rmdir()
    append(file, 2)
    assert written(path) == [2]


def test_given_kill_9_then_only_the_last_line_is_torn_and_what_follows_stands_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "capture.jsonl"
    path.write_bytes(FIRST + entry(1) + entry(2)[:-9])
    append(made(path), 3)
    reading = Reading(path)
    assert [line.value for line in reading if line.direction != "system_init"] == [1, 3]
    assert reading.damaged == "1 line cannot be read and is left out"


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX systems")
def test_the_mode_is_0600_also_of_rotated_files_and_of_one_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "capture.jsonl"
    path.write_bytes(FIRST)
    path.chmod(0o644)
    append(made(path, Limits(bytes=500, files=5)), *range(20), size=100)
    assert len(files(path)) > 2
    assert {stat.S_IMODE(name.stat().st_mode) for name in files(path)} == {0o600}


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="the system cannot refuse symbolic links")
def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("precious")
    path = tmp_path / "capture.jsonl"
    path.symlink_to(other)
    with pytest.raises(OSError, match=r"."):
        append(made(path), 1)
    assert other.read_text() == "precious"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        append(made(tmp_path / "pipe"), 1)


# A disk that fails


class Disk:
    """`os` whose writes stop after so many bytes, as on a full disk; `cuts`: can files be shortened meanwhile?"""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room: int | None = None
        self.cuts = True
        real_write, real_truncate = os.write, os.ftruncate

        def write(descriptor: int, data: bytes) -> int:
            if self.room is None:
                return real_write(descriptor, data)
            if self.room == 0:
                raise OSError(28, "No space left on device")
            written = real_write(descriptor, data[: self.room])
            self.room -= written
            return written

        def truncate(descriptor: int, size: int) -> None:
            if not self.cuts:
                raise OSError(5, "Input/output error")
            real_truncate(descriptor, size)

        monkeypatch.setattr(capture_file.os, "write", write)
        monkeypatch.setattr(capture_file.os, "ftruncate", truncate)


@pytest.mark.parametrize("room", [0, 1, 30, 60, 90, 119, 140, 170])
def test_given_a_full_disk_then_whole_lines_stay_and_the_rest_is_written_later(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, disk = tmp_path / "capture.jsonl", Disk(monkeypatch)
    file = made(path)
    append(file, 0)
    lines = deque([entry(1), entry(2), entry(3)])
    disk.room = room
    with pytest.raises(OSError, match="No space"):
        file.append(lines)
    assert path.read_bytes().endswith(b"\n")
    disk.room = None
    file.append(lines)
    reading = Reading(path)
    assert [line.value for line in reading if line.direction != "system_init"] == [0, 1, 2, 3]
    assert reading.torn == 0


@pytest.mark.parametrize("room", [1, 90, 119])
def test_half_a_line_that_cannot_be_taken_back_is_the_only_one_torn(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, disk = tmp_path / "capture.jsonl", Disk(monkeypatch)
    file = made(path)
    append(file, 0)
    lines = deque([entry(1), entry(2), entry(3)])
    disk.room, disk.cuts = room, False
    with pytest.raises(OSError, match="No space"):
        file.append(lines)
    disk.room, disk.cuts = None, True
    file.append(lines)
    reading = Reading(path)
    assert [line.value for line in reading if line.direction != "system_init"] == [0, 1, 2, 3]
    assert reading.torn == (0 if room == 2 * len(entry(1)) - 1 else 1), "a line that lacks its newline only is whole"
