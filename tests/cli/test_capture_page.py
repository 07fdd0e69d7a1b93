"""The page on captures: its recipes for jq give the right numbers, and what it says of lines is what lines are."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.taping import Tape
from tests.faults.stage import deltas, ending, whole

PAGE = Path(__file__).resolve().parents[2] / "docs" / "capture.md"
RECIPES = re.findall(r"\n([^\n]+):\n\n```sh\n(jq [^\n]+)\n```", PAGE.read_text())
STREAM = b"".join([*deltas("openai-chat"), *ending("openai-chat")])
WHOLE = len(json.dumps(whole("openai-chat")))

needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tape = Tape(tmp_path_factory.mktemp("page") / "capture.jsonl")
    tape.whole(model="gpt-5")
    tape.stream(pieces=[STREAM, b"data: more"], model="gpt-5")
    tape.whole(backend="zai", model="glm", status=429, body={"error": "slow down"}, request_id="req_x")
    tape.whole(model="gpt-4.1", request_id="req_x", attempt=2)
    tape.stream(pieces=[STREAM], backend="zai", model="glm", failure="the client left")
    tape.whole(backend="gone", model="m", status=0, body="", failure="refused")
    return tape.path.parent


EXPECTED = {
    "Calls per model": "1 gone:m\n1 openai:gpt-4.1\n2 openai:gpt-5\n2 zai:glm",
    "Requests that needed more than one attempt": "req_x",
    "Errors, with the beginning of what the provider said": "\n".join(
        [r'["zai",429,"{\"error\":\"slow down\"}"]', r'["gone",null,"{\"failure\":\"refused\"}"]']
    ),
    "Streams that did not come to their end, and why": "req_5 the client left",
    "The slowest first pieces, in milliseconds": "500.0\tzai:glm\n500.0\topenai:gpt-5",
    "Bytes received per back-end": f"gone 2\nopenai {2 * WHOLE + len(STREAM) + 10}\nzai {len(json.dumps({'error': 'slow down'})) + len(STREAM)}",
    "A stream as the provider sent it": STREAM.decode() + "data: more",
    "Entries that were dropped": "0",
}


def test_every_recipe_of_the_page_is_tested() -> None:
    assert [name for name, _ in RECIPES] == list(EXPECTED)


@needs_jq
@pytest.mark.parametrize(("name", "recipe"), RECIPES, ids=[name for name, _ in RECIPES])
def test_a_recipe_gives_the_right_numbers(folder: Path, name: str, recipe: str) -> None:
    out = piped(recipe, folder)
    found = re.sub(r"(?m)^ +", "", out).strip("\n") if name != "A stream as the provider sent it" else out
    assert found.replace("500\t", "500.0\t") == EXPECTED[name]


def piped(recipe: str, folder: Path) -> str:
    """What the programs of a recipe print, one after the other; no shell sees it."""
    words = shlex.split(recipe)
    data = b""
    while words:
        end = words.index("|") if "|" in words else len(words)
        program, words = words[:end], words[end + 1 :]
        assert program[0] in ("jq", "sort", "uniq", "head")
        env = {**os.environ, "LC_ALL": "C"}
        data = subprocess.run(
            program, cwd=folder, input=data, capture_output=True, timeout=20, check=True, env=env
        ).stdout
    return data.decode()


def test_the_page_names_every_member_direction_and_content_type(folder: Path) -> None:
    page = PAGE.read_text()
    lines = [json.loads(line) for line in (folder / "capture.jsonl").read_text().splitlines()]
    names = {name for line in lines for name in (*line, line["direction"], line["content_type"])}
    names |= {name for line in lines for name in line["metadata"]}
    names |= {name for line in lines if line["direction"] == "stream_end" for name in line["payload"]}
    assert [name for name in sorted(names) if name and f"`{name}`" not in page and f".{name}`" not in page] == []
