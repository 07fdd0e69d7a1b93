"""A loader for tests: a directory with given files, given variables, and nothing of the developer's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from llm_proxy.config import ConfigError, OptionGroup, Saved, Settings, load_settings
from llm_proxy.option_groups import GROUPS


class Load(Protocol):
    def __call__(
        self,
        *argv: str,
        env: Mapping[str, str] | None = None,
        file: str | None = None,
        name: str = "config.yaml",
        dotenv: str | None = None,
        saved: Mapping[str, object] | None = None,
        groups: Sequence[type[OptionGroup]] = GROUPS,
    ) -> Settings: ...


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def call(
        *argv: str,
        env: Mapping[str, str] | None = None,
        file: str | None = None,
        name: str = "config.yaml",
        dotenv: str | None = None,
        saved: Mapping[str, object] | None = None,
        groups: Sequence[type[OptionGroup]] = GROUPS,
    ) -> Settings:
        if file is not None:
            (tmp_path / name).write_text(file, encoding="utf-8")
        if dotenv is not None:
            (tmp_path / ".env").write_text(dotenv, encoding="utf-8")
        environ = {"HOME": str(tmp_path / "home"), **(env or {})}
        return load_settings(argv, environ, tmp_path, groups, Saved(saved or {}))

    return call


class Refuse(Protocol):
    def __call__(self, *argv: str, **keywords: object) -> list[str]: ...


@pytest.fixture
def refuse(load: Load) -> Refuse:
    """The errors of a configuration that must be refused."""

    def call(*argv: str, **keywords: object) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(*argv, **keywords)  # type: ignore[arg-type]
        return caught.value.errors

    return call
