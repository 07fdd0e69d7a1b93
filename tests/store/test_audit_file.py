"""OPS-09: the audit log as a file of JSON Lines."""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
from pathlib import Path

import pytest

from llm_proxy.store.audit_file import AuditFile
from llm_proxy.store.records import AuditEntry


def entry(number: int = 1, text: str = "hi") -> AuditEntry:
    return AuditEntry(
        time=1_795_000_000.25 + number, app_name="a", user_name="u", model="b:m", log_type="chat_completion", prompt_text=text,
        response_text="well", remote_completion_id="c", project="", session=f"s{number}", key_name="k", request_id="r",
    )  # fmt: skip


async def test_each_entry_is_one_line_in_order(tmp_path: Path) -> None:
    file = AuditFile(tmp_path / "deep" / "audit.jsonl")
    for number in range(50):
        file.add_entry(entry(number, "two\nlines \u2028"))
    await file.close()
    lines = [json.loads(line) for line in file.path.read_bytes().split(b"\n")[:-1]]
    assert [line["session"] for line in lines] == [f"s{number}" for number in range(50)]
    assert lines[0]["timestamp"] == "2026-11-18T11:06:40.250Z"
    assert lines[0]["prompt_text"] == "two\nlines \u2028"


async def test_a_torn_last_line_is_ended_before_the_next_entry(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b'{"torn')
    file = AuditFile(path)
    file.add_entry(entry())
    await file.close()
    torn, whole, end = path.read_bytes().split(b"\n")
    assert (torn, end) == (b'{"torn', b"") and json.loads(whole)["session"] == "s1"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither file modes nor such links")
async def test_it_is_for_its_owner_only_and_follows_no_link(tmp_path: Path) -> None:
    file = AuditFile(tmp_path / "audit.jsonl")
    file.add_entry(entry())
    await file.close()
    assert stat.S_IMODE(os.stat(file.path).st_mode) == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    linked = AuditFile(tmp_path / "link")
    linked.add_entry(entry())
    await linked.close()
    assert not (tmp_path / "elsewhere").exists()


class Stuck(AuditFile):
    """A file on a disk that takes nothing until it is told to."""

    def __init__(self, path: Path) -> None:
        self.gate = threading.Event()
        super().__init__(path)

    def _append(self, lines: bytes) -> None:
        self.gate.wait(30)
        super()._append(lines)


async def test_what_a_blocked_disk_does_not_take_is_left_out_and_the_rest_is_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = Stuck(tmp_path / "audit.jsonl")
    for number in range(600):
        file.add_entry(entry(number, "x" * 60_000))
    assert file.waiting_bytes <= 16 * 1024 * 1024
    assert sum("too slow" in record.message for record in caplog.records) == 1
    file.gate.set()
    await file.close()
    lines = file.path.read_bytes().splitlines()
    assert 200 < len(lines) < 300
    assert json.loads(lines[-1])["session"] == f"s{len(lines) - 1}"
