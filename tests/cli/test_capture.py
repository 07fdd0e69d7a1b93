"""OPS-05: `llm-proxy capture` shows what was captured, also of files that are torn, rotated or still being written."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.cli import CommandFault, run
from llm_proxy.cli.capture import capture
from llm_proxy.store.capture.reading import files
from tests.cli.taping import ADDRESSES, Tape
from tests.e2e.asking import PROTOCOLS, Called, body_of, call, tools_of
from tests.faults.stage import deltas, ending, whole
from tests.server.process import command, environment
from tests.support.shared import Protocol
from tests.support.upstream import Send


@pytest.fixture
def tape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tape:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return Tape(tmp_path / "capture.jsonl")


def printed(capsys: pytest.CaptureFixture[str], tape: Tape, *arguments: str) -> str:
    assert capture([*arguments, "--file", str(tape.path)]) == 0
    return capsys.readouterr().out


def listed(capsys: pytest.CaptureFixture[str], tape: Tape, *arguments: str) -> list[dict[str, Any]]:
    rows = json.loads(printed(capsys, tape, "list", "--json", *arguments))
    assert isinstance(rows, list)
    return rows


# list


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_list_has_one_line_for_each_call_with_its_tokens(
    tape: Tape, capsys: pytest.CaptureFixture[str], protocol: Protocol
) -> None:
    tape.whole(protocol)
    tape.stream(protocol)
    head, first, second = printed(capsys, tape, "list").splitlines()
    assert head.split() == ["#", "time", "session", "model", "status", "ms", "tokens", "sent", "received"]
    assert re.match(r"1  2025-11-\d\d \d\d:\d\d:\d\d  s1 +openai:gpt-5  200 +250 ", first)
    rows = listed(capsys, tape)
    assert [row["number"] for row in rows] == [1, 2]
    assert [row["duration_ms"] for row in rows] == [250, 2000]
    assert rows[1]["output_tokens"] == 3
    assert re.search(r" 2000 +[07]\+3 ", second)


def test_list_is_filtered(tape: Tape, capsys: pytest.CaptureFixture[str]) -> None:
    tape.whole(session_id="s1", backend="openai", model="gpt-5")
    tape.whole(session_id="s2", backend="openai", model="gpt-4.1", status=500)
    tape.stream(session_id="s2", backend="anthropic", model="claude-opus", failure="the client left")
    tape.whole(session_id="s2", backend="gemini", model="gemini-2.5-pro", status=0, failure="refused")

    def numbers(*arguments: str) -> list[int]:
        return [row["number"] for row in listed(capsys, tape, *arguments)]

    assert numbers() == [1, 2, 3, 4]
    assert numbers("--session", "s2") == [2, 3, 4]
    assert numbers("--backend", "openai") == [1, 2]
    assert numbers("--model", "gpt") == [1, 2]
    assert numbers("--errors") == [2, 3, 4]
    assert numbers("--limit", "2") == [3, 4]
    assert numbers("--limit", "0") == []
    assert numbers("--since", "1h") == []
    assert numbers("--since", "2025-11-01") == [1, 2, 3, 4]
    text = printed(capsys, tape, "list")
    assert re.findall(r"  (200 left|- broken|200|500)  ", text) == ["200", "500", "200 left", "- broken"]


def test_rotated_files_and_torn_lines_are_read(tape: Tape, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    small = Tape(tmp_path / "small.jsonl", bytes=2000, files=50)
    for _ in range(20):
        small.whole()
    assert len(files(small.path)) > 5
    with small.path.open("ab") as file:
        file.write(b'{"direction":"outbound_req')
    assert capture(["list", "--json", "--file", str(small.path)]) == 0
    out, err = capsys.readouterr()
    assert [row["number"] for row in json.loads(out)] == list(range(1, 21))
    assert err == "llm-proxy: 1 line cannot be read and is left out\n"


def test_dropped_entries_are_told(tape: Tape, capsys: pytest.CaptureFixture[str]) -> None:
    tape.whole()
    line = json.loads(tape.path.read_bytes().splitlines()[-1])
    line["metadata"]["dropped"] = 7
    with tape.path.open("ab") as file:
        file.write(json.dumps(line).encode() + b"\n")
    assert capture(["list", "--file", str(tape.path)]) == 0
    assert "7 entries were dropped" in capsys.readouterr().err


# show


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_show_puts_the_answer_together(
    tape: Tape, capsys: pytest.CaptureFixture[str], protocol: Protocol, stream: bool
) -> None:
    if stream:
        tape.stream(protocol)
    else:
        tape.whole(protocol)
    text = printed(capsys, tape, "show", "1")
    assert "call 1  openai:gpt-5  200" in text
    assert "user\n    what is it" in text
    assert ("w0 w1 w2" if stream else "fine") in text
    assert "stops: " in text
    assert ("first piece after 500 ms" in text) is stream
    assert ("pieces" in text) is stream


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_show_has_tool_calls_and_the_names_of_tools(
    tape: Tape, capsys: pytest.CaptureFixture[str], protocol: Protocol
) -> None:
    reply = call(Called("call_1", "look_up", {"a": 1}))
    played = reply(_asked(protocol)) if callable(reply) else reply
    pieces = [step.data for step in played.steps or () if isinstance(step, Send)]
    tape.stream(protocol, pieces, extra=tools_of(protocol, "look_up"))
    text = printed(capsys, tape, "show", "req_1")
    assert re.search(r'-> look_up \{\s*"a":\s*1\s*\}', text)
    assert "tools look_up" in text


def _asked(protocol: Protocol) -> Any:
    from tests.support.upstream import Moment, Received

    body = body_of(protocol, "m", True)
    target = ADDRESSES[protocol].removeprefix("https://up.test") + ("?alt=sse" if protocol == "gemini" else "")
    return Received(1, 1, "POST", target, (), json.dumps(body).encode(), 0.0, Moment())


def test_show_raw_gives_the_lines_as_they_were_written(tape: Tape, capsys: pytest.CaptureFixture[str]) -> None:
    tape.whole()
    tape.stream()
    text = printed(capsys, tape, "show", "2", "--raw")
    assert text.encode().splitlines() == tape.path.read_bytes().splitlines()[3:]


def test_show_json_has_text_and_times(tape: Tape, capsys: pytest.CaptureFixture[str]) -> None:
    tape.stream()
    facts = json.loads(printed(capsys, tape, "show", "1", "--json"))
    assert facts["answer"]["text"] == "w0 w1 w2 "
    assert [row[:2] for row in facts["chunk_times"]] == [[1, 250.0], [2, 375.0], [3, 500.0], [4, 625.0]]


def test_many_pieces_are_shown_in_short_unless_wanted(tape: Tape, capsys: pytest.CaptureFixture[str]) -> None:
    tape.stream(pieces=[*deltas("openai-chat", 40), *ending("openai-chat")])
    short = printed(capsys, tape, "show", "1")
    assert "more; --chunks shows them" in short
    assert (
        len(re.findall(r" bytes$", printed(capsys, tape, "show", "1", "--chunks"), re.MULTILINE))
        > 40
        > len(re.findall(r" bytes$", short, re.MULTILINE))
    )


def test_a_broken_stream_is_shown_as_far_as_it_came(tape: Tape, capsys: pytest.CaptureFixture[str]) -> None:
    tape.stream(pieces=deltas("openai-chat"), failure="the client left")
    text = printed(capsys, tape, "show", "1")
    assert "w0 w1 w2" in text and "the client left" in text


def test_an_error_is_shown_with_its_body(tape: Tape, capsys: pytest.CaptureFixture[str]) -> None:
    tape.whole(status=429, body={"error": {"message": "slow down"}})
    assert "slow down" in printed(capsys, tape, "show", "1")


def test_texts_cannot_order_the_terminal_about_and_show_no_key(tape: Tape, capsys: pytest.CaptureFixture[str]) -> None:
    deltas_of = ("\x1b[31mred", " sk-abcdefghijk", "lmnopqrstuvwxyz0123456789")
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    chunks = [{**head, "choices": [{"index": 0, "delta": {"content": text}}]} for text in deltas_of]
    pieces = [f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks]
    tape.stream(pieces=[*pieces, *ending("openai-chat")])
    text = printed(capsys, tape, "show", "1")
    assert "\x1b" not in text
    assert "***" in text and "klmnop" not in text


# export


def test_export_writes_a_valid_archive(tape: Tape, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tape.whole()
    tape.stream()
    tape.whole(status=0, failure="Back end openai cannot be reached.")
    target = tmp_path / "calls.har"
    assert capture(["export", str(target), "--file", str(tape.path)]) == 0
    assert target.stat().st_mode & 0o777 == 0o600 or os.name != "posix"
    archive = json.loads(target.read_bytes())
    check_har(archive)
    entries = archive["log"]["entries"]
    assert [entry["response"]["status"] for entry in entries] == [200, 200, 0]
    assert entries[0]["request"]["url"] == ADDRESSES["openai-chat"]
    assert json.loads(entries[0]["response"]["content"]["text"]) == whole("openai-chat")
    assert entries[1]["response"]["content"]["text"].encode() == b"".join(
        [*deltas("openai-chat"), *ending("openai-chat")]
    )
    assert entries[1]["timings"] == {"send": 0, "wait": 500, "receive": 1500}


def test_export_to_standard_output(tape: Tape, tmp_path: Path) -> None:
    tape.whole()
    ended = subprocess.run(
        command("capture", "export", "-", "--file", str(tape.path)),
        cwd=tmp_path, env=environment(tmp_path), capture_output=True, timeout=30, check=True,
    )  # fmt: skip
    check_har(json.loads(ended.stdout))


# The fields of HAR 1.2, with their types; ? means optional.
_NAMED = [{"name": str, "value": str, "comment?": str}]
_HAR: dict[str, Any] = {
    "log": {
        "version": str,
        "creator": {"name": str, "version": str},
        "entries": [
            {
                "startedDateTime": str,
                "time": (int, float),
                "request": {
                    "method": str, "url": str, "httpVersion": str, "cookies": [], "headers": _NAMED, "queryString": _NAMED,
                    "postData?": {"mimeType": str, "text": str}, "headersSize": int, "bodySize": int,
                },
                "response": {
                    "status": int, "statusText": str, "httpVersion": str, "cookies": [], "headers": _NAMED,
                    "content": {"size": int, "mimeType": str, "text?": str, "encoding?": str},
                    "redirectURL": str, "headersSize": int, "bodySize": int, "comment?": str,
                },
                "cache": {},
                "timings": {"send": (int, float), "wait": (int, float), "receive": (int, float)},
                "comment?": str,
            }
        ],
    }
}  # fmt: skip


def check_har(value: Any, schema: Any = None, at: str = "$") -> None:
    schema = _HAR if schema is None else schema
    if isinstance(schema, dict):
        assert isinstance(value, dict), at
        required = {name for name in schema if not name.endswith("?")}
        assert required <= value.keys() <= {name.rstrip("?") for name in schema}, (at, value.keys())
        for name, inner in schema.items():
            if name.rstrip("?") in value:
                check_har(value[name.rstrip("?")], inner, f"{at}.{name}")
    elif isinstance(schema, list):
        assert isinstance(value, list), at
        for number, one in enumerate(value):
            check_har(one, schema[0] if schema else {}, f"{at}[{number}]")
    else:
        assert isinstance(value, schema), (at, value)


# follow, and the command itself


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is a signal of POSIX systems here")
def test_follow_shows_calls_as_they_end_across_rotations_until_ctrl_c(tmp_path: Path) -> None:
    tape = Tape(tmp_path / "capture.jsonl", bytes=3000, files=20)
    tape.whole()
    child = subprocess.Popen(
        command("capture", "follow", "--file", str(tape.path), "--from-start"),
        cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None and child.stderr is not None
    try:
        assert "Ctrl-C" in child.stderr.readline()
        shown = [child.stdout.readline()]
        for _ in range(12):
            tape.whole()
        tape.stream(failure="the client left")
        shown += [child.stdout.readline() for _ in range(13)]
        assert len(files(tape.path)) > 2
        child.send_signal(signal.SIGINT)
        rest, err = child.communicate(timeout=10)
    finally:
        child.kill()
    assert [int(line.split()[0]) for line in shown] == list(range(1, 15))
    assert "the client left" in shown[-1]
    assert (rest, err, child.returncode) == ("", "", 0)


@pytest.mark.skipif(os.name != "posix", reason="a shell's pipe")
def test_a_reader_that_has_enough_ends_it_quietly(tape: Tape, tmp_path: Path) -> None:
    for _ in range(1500):
        tape.whole()
    child = subprocess.Popen(
        command("capture", "list", "--file", str(tape.path)),
        cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None and child.stderr is not None
    child.stdout.readline()
    child.stdout.close()
    assert child.stderr.read() == b""
    child.stderr.close()
    child.wait(20)


def test_the_file_of_the_configuration_is_read(tape: Tape, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tape.whole()
    assert capture(["list", "--json", "--data-dir", str(tmp_path), "--capture-file", "capture.jsonl"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 1


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["fly"], 2, "expected one of list, show, follow, export"),
        (["list"], 2, "no capture is configured"),
        (["list", "--file", "missing"], 1, "there is no capture at"),
        (["show", "--file", "missing"], 2, "name a call right after"),
        (["export"], 2, "no capture is configured"),
        (["list", "--file", "x", "--since", "soon"], 2, "--since: expected"),
    ],
)
def test_wrong_use_is_told_with_exit_status(
    tape: Tape,
    arguments: list[str],
    status: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CAPTURE_FILE", raising=False)
    assert run(["capture", *arguments]) == status
    assert said in capsys.readouterr().err


def test_a_call_that_is_not_there(tape: Tape) -> None:
    tape.whole()
    with pytest.raises(CommandFault, match="no call has the number"):
        capture(["show", "99", "--file", str(tape.path)])


def test_help_teaches_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert capture(["--help"]) == 0
    text = capsys.readouterr().out
    for word in (
        "list",
        "show ID",
        "follow",
        "export FILE",
        "--errors",
        "--since",
        "examples:",
        "llm-proxy capture list",
    ):
        assert word in text


def test_colour_only_on_a_terminal(
    tape: Tape, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tape.whole(status=500)
    assert "\x1b" not in printed(capsys, tape, "list")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[31m" in printed(capsys, tape, "list")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in printed(capsys, tape, "list")
