"""Files that people copy from: the example configuration, the example environment, the table of options. None may be out of date."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm_proxy.config.backends import BUILT_IN
from llm_proxy.config.reference import example, reference_markdown
from llm_proxy.option_groups import GROUPS

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "config" / "config.example.yaml"
OPTIONS = ROOT / "docs" / "reference" / "options.md"
ENVIRONMENT = ROOT / ".env.example"


def test_the_table_of_options_is_current() -> None:
    assert OPTIONS.read_text("utf-8") == reference_markdown(GROUPS)


def test_the_example_configuration_is_current() -> None:
    assert EXAMPLE.read_text("utf-8") == example(GROUPS)


def check(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llm_proxy", "config", "check", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=30, check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip


def test_the_example_configuration_passes_the_check(tmp_path: Path) -> None:
    done = check(tmp_path, str(EXAMPLE))
    assert (done.returncode, done.stderr) == (0, "")
    assert "ok" in done.stdout


@pytest.mark.parametrize("uncommented", [False, True])
def test_the_example_environment_is_read_without_complaint(tmp_path: Path, uncommented: bool) -> None:
    text = ENVIRONMENT.read_text("utf-8")
    if uncommented:
        text = "\n".join(line.removeprefix("#") if _assigns(line) else line for line in text.splitlines())
    file = tmp_path / "example.env"
    file.write_text(text, "utf-8")
    done = check(tmp_path, "--env-file", str(file))
    assert done.returncode == 0, done.stderr
    assert "not known" not in done.stderr and "unknown" not in done.stderr


def _assigns(line: str) -> bool:
    name, mark, _ = line.removeprefix("#").partition("=")
    return bool(mark) and name.replace("_", "").isalnum() and name.upper() == name


def test_the_example_environment_names_only_variables_that_exist_and_every_provider() -> None:
    named = {
        line.removeprefix("#").partition("=")[0]
        for line in ENVIRONMENT.read_text("utf-8").splitlines()
        if _assigns(line)
    }
    providers = {name for built_in in BUILT_IN.values() for name in (*built_in.key_env, built_in.url_env) if name}
    known = {
        name
        for group in GROUPS
        for option in group.options
        for name in (*option.env, *option.env_off, *option.env_numbered)
    }
    assert named <= providers | known | {f"{name}_1" for name in providers | known}
    assert {name for built_in in BUILT_IN.values() for name in built_in.key_env} <= named
