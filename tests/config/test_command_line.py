"""CFG-08's `llm-proxy config check`, and what `config show` lists, as a person calls them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"


def call(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llm_proxy", "config", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(SOURCE), **environ},
    )


def test_two_errors_in_a_file_are_both_listed(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("proxy:\n  timeout: soon\nfailover_routes: {a: {policy: z}}\n")
    done = call(tmp_path, "check", "my.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        'my.yaml:2:12: proxy.timeout: expected a number of seconds > 0, got "soon"',
        'my.yaml:3:31: failover_routes.a.policy: expected one of k, m, km, mk, got "z"',
    ]


def test_the_variable_is_named(tmp_path: Path) -> None:
    done = call(tmp_path, "check", PROXY_PORT="abc")
    assert done.returncode == 2 and done.stdout == "" and "PROXY_PORT" in done.stderr


def test_a_file_without_errors(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("default_backend: demo\n")
    done = call(tmp_path, "check", "my.yaml")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_listing_knows_saved_state_and_leaves_it_alone(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("default_backend: demo\nmodel_defaults: {m: {top_p: 0.5}}\n")
    state = tmp_path / "my.yaml.state.json"
    text = '{"version": 1, "values": {"default_backend": "openai"}, "failover_routes": {"r": {"policy": "m"}}}'
    state.write_text(text)
    done = call(tmp_path, "show", "--config", "my.yaml")
    lines = done.stdout.splitlines()
    assert "default_backend = openai  # saved state" in lines
    assert "failover_routes.r.policy = m  # saved state" in lines
    assert "model_defaults.m.top_p = 0.5  # my.yaml:2" in lines
    listed = json.loads(call(tmp_path, "show", "--json", "--config", "my.yaml").stdout)
    assert {"path": "model_defaults.m.top_p", "value": 0.5, "source": "my.yaml:2"} in listed
    assert state.read_text() == text


@pytest.mark.parametrize("content", ["{", '{"version": 99}'])
def test_a_listing_changes_no_state_file_that_it_cannot_use(tmp_path: Path, content: str) -> None:
    (tmp_path / "my.yaml").write_text("")
    state = tmp_path / "my.yaml.state.json"
    state.write_text(content)
    done = call(tmp_path, "check", "my.yaml")
    assert done.returncode == 0 and "my.yaml.state.json" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my.yaml", state.name]
    assert state.read_text() == content
