"""SES-05: with a log directory one line for each exchange, under a name that tells nothing, readable by the owner alone."""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.store.session_log import SessionLog, log_name
from tests.store.support import Clock, until


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().split("\n")[:-1]]


async def test_one_line_per_exchange_in_one_file_per_session(tmp_path: Path) -> None:
    log = SessionLog(tmp_path / "logs")
    for number in range(3):
        log.add("a", "s", {"number": number, "text": "line\nbreak \u2028 ü"})
    log.add("a", "t", {"number": 9})
    log.add("b", "s", {"number": 8})
    await log.close()
    assert [line["number"] for line in lines(tmp_path / "logs" / log_name("a", "s"))] == [0, 1, 2]
    assert lines(tmp_path / "logs" / log_name("a", "s"))[0]["text"] == "line\nbreak \u2028 ü"
    assert len(list((tmp_path / "logs").iterdir())) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="modes of files")
async def test_only_the_owner_may_read_them(tmp_path: Path) -> None:
    log = SessionLog(tmp_path / "logs")
    log.add("a", "s", {})
    await log.close()
    assert (tmp_path / "logs").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "logs" / log_name("a", "s")).stat().st_mode & 0o777 == 0o600


@given(st.text(), st.text())
def test_no_id_gets_out_of_the_directory(scope: str, id: str) -> None:
    name = log_name(scope, id)
    folder = Path(tempfile.gettempdir()) / "logs"
    assert (folder / name).resolve().parent == folder.resolve()
    assert len(name) == 38 and set(name.removesuffix(".jsonl")) <= set("0123456789abcdef")


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links")
async def test_a_symbolic_link_in_place_of_a_log_is_not_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine\n")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / log_name("a", "s")).symlink_to(victim)
    log = SessionLog(tmp_path / "logs")
    log.add("a", "s", {})
    await log.close()
    assert victim.read_text() == "mine\n"
    assert "cannot be written" in caplog.text


async def test_half_a_line_that_a_killed_process_left_damages_no_other(tmp_path: Path) -> None:
    file = tmp_path / log_name("a", "s")
    file.write_bytes(b'{"number": 1}\n{"numb')
    log = SessionLog(tmp_path)
    log.add("a", "s", {"number": 2})
    log.add("a", "s", {"number": 3})
    await log.close()
    assert file.read_bytes() == b'{"number": 1}\n{"numb\n{"number":2}\n{"number":3}\n'


async def test_a_directory_that_fails_costs_lines_and_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "logs").write_text("a file")
    log = SessionLog(tmp_path / "logs", Clock())
    for number in range(5):
        log.add("a", "s", {"number": number})
        await until(log._waiting.empty)
    await until(lambda: "cannot be written" in caplog.text)
    (tmp_path / "logs").unlink()
    log.add("a", "s", {"number": 5})
    await log.close()
    assert lines(tmp_path / "logs" / log_name("a", "s"))[-1] == {"number": 5}
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1


async def test_a_slow_disk_holds_nobody_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = threading.Event()
    append = SessionLog._append

    def slow(self: SessionLog, name: str, some: bytes) -> None:
        free.wait(30)
        append(self, name, some)

    monkeypatch.setattr(SessionLog, "_append", slow)
    log = SessionLog(tmp_path)
    for number in range(5000):
        log.add("a", "s", {"number": number})
    assert "too slow" in caplog.text
    free.set()
    await log.close()
    assert 2000 <= len(lines(tmp_path / log_name("a", "s"))) < 5000


async def test_what_json_cannot_say_costs_one_line_at_most(tmp_path: Path) -> None:
    log = SessionLog(tmp_path)
    log.add("a", "s", {"path": Path("/x"), "number": 1})
    log.add("a", "s", {"text": "\ud800"})
    log.add("a", "s", {"number": 2})
    await log.close()
    assert lines(tmp_path / log_name("a", "s")) == [{"path": "/x", "number": 1}, {"number": 2}]
