"""OPS-07: `llm-proxy usage` prints what the usage pages say, of a running proxy or from its records."""

from __future__ import annotations

import io
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Final

import pytest

from llm_proxy import cli
from llm_proxy.cli.usage import money
from tests.e2e.asking import body_of, path_of
from tests.e2e.keeping import until
from tests.server.process import KEY, Proxy, free_pair, run, running

KEYED: Final = {"LLM_INTERACTIVE_PROXY_API_KEY": KEY}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("usage")


@pytest.fixture(scope="module")
def proxy(folder: Path) -> Iterator[Proxy]:
    """A proxy with four rows in its records, of two projects."""
    with running(folder, "--data-dir", str(folder / "data")) as started:
        for project, model in (("blue", "demo:echo"), ("blue", "demo:echo"), ("red", "demo:echo"), ("red", "demo:error-500")):  # fmt: skip
            started.post(path_of("openai-chat", ""), body_of("openai-chat", model, user="ada"), {"x-project": project})
        until(lambda: len(started.get("/usage/recent").json["data"]) == 4, "the rows")
        yield started


def asked(proxy: Proxy, folder: Path, *flags: str, expected: int = 0) -> str:
    """What the command prints; the same code as in a process of its own, without waiting for one to start."""
    host, port = proxy.main
    out, err = io.StringIO(), io.StringIO()
    config = folder / "empty.json"
    config.write_text("{}")
    url = f"http://{host}:{port}"
    arguments = ["--data-dir", str(folder), "--config", str(config), "--url", url, "--key", KEY, *flags]
    with redirect_stdout(out), redirect_stderr(err):
        status = cli.run(["usage", *arguments])
    assert status == expected, err.getvalue()
    return (out if expected == 0 else err).getvalue()


def table(text: str) -> list[list[str]]:
    """The cells of the lines; columns are two blanks apart."""
    return [re.split(r" {2,}", line.strip()) for line in text.splitlines() if line.strip()]


def test_it_prints_what_the_page_says(proxy: Proxy, tmp_path: Path) -> None:
    page = proxy.get("/usage/stats").json
    assert json.loads(asked(proxy, tmp_path, "--json")) == page
    assert json.loads(asked(proxy, tmp_path, "--json", "--recent", "2")) == proxy.get("/usage/recent?limit=2").json


def test_the_table_has_a_line_for_each_model_and_the_sum(proxy: Proxy, tmp_path: Path) -> None:
    rows = table(asked(proxy, tmp_path))
    assert rows[0][:3] == ["MODEL", "CALLS", "ERRORS"]
    assert {row[0]: row[1] for row in rows[1:]} == {
        "demo:echo": "3",
        "demo:error-500": "1",
        "all, the last 30 days": "4",
    }
    assert {row[0]: row[2] for row in rows[1:]} == {
        "demo:echo": "-",
        "demo:error-500": "1",
        "all, the last 30 days": "1",
    }


def test_numbers_end_in_the_same_column(proxy: Proxy, tmp_path: Path) -> None:
    lines = asked(proxy, tmp_path).splitlines()
    end = lines[0].index("CALLS") + len("CALLS")
    assert all(line[end - 1].isdigit() and line[end] == " " for line in lines[1:])


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("project", {"blue", "red"}),
        ("backend", {"demo"}),
        ("key", {"LLM_INTERACTIVE_PROXY_API_KEY"}),
        ("day", None),
        ("session", None),
    ],
)
def test_it_groups_by_what_it_is_told(proxy: Proxy, tmp_path: Path, by: str, names: set[str] | None) -> None:
    rows = table(asked(proxy, tmp_path, "--by", by))
    assert rows[0][0] == by.upper()
    assert sum(int(row[1]) for row in rows[1:-1]) == int(rows[-1][1]) == 4
    if names is not None:
        assert {row[0] for row in rows[1:-1]} == names
    if by == "day":
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", row[0]) for row in rows[1:-1])


@pytest.mark.parametrize(
    ("flags", "calls"),
    [
        (["--project", "blue"], 2),
        (["--model", "demo:error-500"], 1),
        (["--model", "echo"], 3),
        (["--backend", "demo"], 4),
        (["--user", "ada", "--days", "0"], 4),
    ],
)
def test_it_filters(proxy: Proxy, tmp_path: Path, flags: list[str], calls: int) -> None:
    assert json.loads(asked(proxy, tmp_path, "--json", *flags))["data"]["totals"]["requests"] == calls


def test_nothing_used_is_said_in_words(proxy: Proxy, tmp_path: Path) -> None:
    assert asked(proxy, tmp_path, "--project", "nobody's") == "nothing was used in the last 30 days\n"


def test_the_newest_calls_one_a_line(proxy: Proxy, tmp_path: Path) -> None:
    rows = table(asked(proxy, tmp_path, "--recent", "3"))
    assert rows[0][:4] == ["TIME", "MODEL", "USER", "SESSION"]
    assert [row[1] for row in rows[1:]] == ["demo:error-500", "demo:echo", "demo:echo"]
    assert {row[2] for row in rows[1:]} == {"ada"}


def test_output_for_a_program_has_no_colour(proxy: Proxy, tmp_path: Path) -> None:
    assert "\x1b" not in asked(proxy, tmp_path)


@pytest.mark.parametrize("flags", [["--by", "colour"], ["--days", "ten"], ["--recent", "0"], ["--recent", "1001"]])
def test_wrong_use_is_exit_status_2(proxy: Proxy, tmp_path: Path, flags: list[str]) -> None:
    assert flags[0] in asked(proxy, tmp_path, *flags, expected=2)


def test_help_teaches_by_examples(tmp_path: Path) -> None:
    ended = run(tmp_path, ["usage", "--help"], {})
    assert ended.returncode == 0
    text = ended.stdout.decode()
    assert "examples:" in text and "llm-proxy usage --by day --days 7" in text
    assert all(flag in text for flag in ("--by", "--days", "--recent", "--project", "--json", "--url", "--key"))


def test_without_a_proxy_it_reads_the_records_and_changes_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(tmp_path, "--data-dir", str(data)) as proxy:
        assert proxy.post(path_of("openai-chat", ""), body_of("openai-chat", "demo:echo")).status == 200
        page = proxy.get("/usage/stats").json
        entries = proxy.get("/usage/recent").json
        proxy.stop()
    port = free_pair()

    def offline(*flags: str) -> Any:
        ended: subprocess.CompletedProcess[bytes] = run(
            tmp_path, ["usage", "--port", str(port), "--data-dir", str(data), "--json", *flags], KEYED
        )
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    before = sorted(path.name for path in data.iterdir())
    assert offline() == page
    assert offline("--recent", "5") == entries
    assert offline("--project", "none")["data"]["totals"]["requests"] == 0
    assert sorted(path.name for path in data.iterdir()) == before


def test_without_a_proxy_and_without_records_it_says_both(tmp_path: Path) -> None:
    port = free_pair()
    ended = run(tmp_path, ["usage", "--port", str(port), "--data-dir", str(tmp_path / "none")], KEYED)
    assert ended.returncode == 1
    text = ended.stderr.decode()
    assert "no proxy answers" in text and "no records in" in text and "Traceback" not in text
    assert not (tmp_path / "none").exists()


def test_usage_that_is_off_is_told(tmp_path: Path) -> None:
    with running(tmp_path, "--disable-accounting") as proxy:
        assert "usage_tracking.enabled" in asked(proxy, tmp_path, expected=1)


@pytest.mark.parametrize(
    ("cost", "shown"),
    [(None, "?"), (0, "$0"), (0.0000042, "$0.000004"), (0.0123, "$0.0123"), (12.3456, "$12.3456"), (1234.5, "$1,234.50")],
)  # fmt: skip
def test_money_has_as_many_digits_as_tell_something(cost: float | None, shown: str) -> None:
    assert money(cost) == shown
