"""docs/usage.md: what it tells people to type and to write works as it says."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Final

import pytest

from llm_proxy import cli
from llm_proxy.config import load_settings
from llm_proxy.option_groups import GROUPS
from tests.e2e.asking import body_of, path_of
from tests.e2e.keeping import until
from tests.server.process import KEY, Proxy, running

TEXT: Final = (Path(__file__).resolve().parents[2] / "docs" / "usage.md").read_text("utf-8")
BLOCKS: Final = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)


def blocks(kind: str) -> list[str]:
    found = [text for name, text in BLOCKS if name == kind]
    assert found
    return found


CALLS: Final = [line for text in blocks("sh") for line in text.splitlines() if line]
COMMANDS: Final = [line.removeprefix("$ llm-proxy ").split() for text in blocks("console") for line in text.splitlines()]  # fmt: skip


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with running(tmp_path_factory.mktemp("guide"), "--enable-audit") as started:
        body = body_of("openai-chat", "demo:echo", user="ada")
        assert started.post(path_of("openai-chat", ""), body, {"x-project": "blue"}).status == 200
        until(lambda: len(started.get("/usage/recent").json["data"]) == 1, "the row")
        yield started


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="curl or jq is not installed here")
@pytest.mark.parametrize("line", CALLS)
def test_calls_of_the_guide_answer(proxy: Proxy, line: str) -> None:
    assert re.fullmatch(r'curl -s -H "Authorization: Bearer \$KEY" "\$URL(/[\w/?=&:-]+)" \| jq (\S+|\'[^\']+\')', line)
    host, port = proxy.main
    url, _, wanted = line.partition('"$URL')[2].partition('" | jq ')
    body = subprocess.run(
        ["curl", "-s", "-H", f"Authorization: Bearer {KEY}", f"http://{host}:{port}{url}"],
        capture_output=True, timeout=20, check=True,
    ).stdout  # fmt: skip
    found = subprocess.run(["jq", "-c", wanted.strip("'")], input=body, capture_output=True, timeout=20, check=False)
    assert found.returncode == 0, (found.stderr, body)
    assert found.stdout.strip() not in (b"", b"null", b"[]", b"0"), body


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_of_the_guide_print_something(proxy: Proxy, tmp_path: Path, command: list[str]) -> None:
    host, port = proxy.main
    config = tmp_path / "empty.json"
    config.write_text("{}")
    out, err = io.StringIO(), io.StringIO()
    more = ["--config", str(config), "--url", f"http://{host}:{port}", "--key", KEY]
    with redirect_stdout(out), redirect_stderr(err):
        assert cli.run([*command, *more]) == 0, err.getvalue()
    assert len(out.getvalue().splitlines()) >= 2


def test_the_price_file_of_the_guide_is_one(tmp_path: Path) -> None:
    [prices, _] = blocks("yaml")
    (tmp_path / "prices.yaml").write_text(prices)
    arguments = ["--data-dir", str(tmp_path)]
    settings = load_settings(arguments, {"USAGE_PRICE_FILE": str(tmp_path / "prices.yaml")}, tmp_path, GROUPS)
    found = settings.content("usage_tracking.price_file")
    assert isinstance(found, dict) and set(found) == {"openai", "gpu-house", "anthropic"}


def test_the_audit_options_of_the_guide_exist(tmp_path: Path) -> None:
    [_, audit] = blocks("yaml")
    (tmp_path / "config.yaml").write_text(audit)
    settings = load_settings(
        ["--config", str(tmp_path / "config.yaml"), "--data-dir", str(tmp_path)], {}, tmp_path, GROUPS
    )
    assert settings.source_of("audit.enabled") == "config.yaml:2"
