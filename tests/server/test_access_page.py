"""docs/access.md: what it tells people to write is read without complaint, and means what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from llm_proxy.config import Settings, load_settings
from llm_proxy.config.access import BruteForceOptions
from llm_proxy.config.groups import AuthOptions
from llm_proxy.option_groups import GROUPS
from llm_proxy.server.access import CARRIERS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "access.md").read_text("utf-8")
VARIABLES = {"LAPTOP_KEY": "laptop-key-1", "CI_KEY": "ci-key-1"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def read(folder: Path, *flags: str) -> Settings:
    return load_settings(flags, {"HOME": str(folder), **VARIABLES}, folder, GROUPS)


@pytest.mark.parametrize("block", blocks("yaml"))
def test_configurations_are_read(tmp_path: Path, block: str) -> None:
    (tmp_path / "config.yaml").write_text(block)
    assert read(tmp_path).warnings == []


def test_the_figures_of_brute_force_protection_are_the_defaults(tmp_path: Path) -> None:
    (block,) = (block for block in blocks("yaml") if "brute_force" in block)
    (tmp_path / "config.yaml").write_text(block)
    written = read(tmp_path)
    (tmp_path / "config.yaml").unlink()
    assert written.get(BruteForceOptions) == read(tmp_path).get(BruteForceOptions)
    assert block.count(":") - 2 == len(BruteForceOptions.options) - 1, "all but `enabled`"


@pytest.mark.parametrize("line", [line for block in blocks("sh") for line in block.splitlines()])
def test_command_lines_are_read(tmp_path: Path, line: str) -> None:
    command, *flags = shlex.split(line)
    assert command == "llm-proxy"
    assert read(tmp_path, *flags).warnings == []


def test_an_address_that_may_mean_two_things_is_refused_as_the_page_says(tmp_path: Path) -> None:
    assert "10.0.0.5/8" in PAGE
    with pytest.raises(Exception, match=r"10\.0\.0\.0/8 for the whole block, or 10\.0\.0\.5 for the one address"):
        read(tmp_path, "--trusted-ip", "10.0.0.5/8")


def test_every_carrier_and_every_bypass_path_it_names_exists() -> None:
    for carrier in ("Authorization: Bearer", "x-api-key", "x-goog-api-key"):
        assert f"`{carrier}`" in PAGE
        assert carrier in CARRIERS
    assert {"/health", "/docs"} <= set(AuthOptions.bypass_paths)
