"""CFG-07, the reading half: everything anew or only saved state, all or nothing, and what needs a restart."""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.config import ConfigError, RouteSettings, Saved
from llm_proxy.config.groups import AuthOptions, BackendGeneralOptions, LoggingOptions, ServerOptions
from llm_proxy.config.reload import Reloader, changed_paths
from llm_proxy.option_groups import GROUPS
from llm_proxy.routing.options import ChoiceOptions

Write = Callable[[str], None]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def put(text: str) -> None:
        (tmp_path / "config.yaml").write_text(text)

    return put


def reloader(tmp_path: Path, *argv: str, **environ: str) -> Reloader:
    return Reloader(argv, {"HOME": str(tmp_path / "home"), **environ}, tmp_path, GROUPS)


def test_a_changed_file_is_read_anew(tmp_path: Path, write: Write) -> None:
    write("proxy: {timeout: 5}\nlogging: {level: debug}\n")
    source = reloader(tmp_path)
    old = source.load()
    write("proxy: {timeout: 6}\nlogging: {level: debug}\n")
    new = source.load()
    assert (old.get(ServerOptions).timeout, new.get(ServerOptions).timeout) == (5.0, 6.0)
    assert changed_paths(old, new) == ["proxy.timeout: 5.0 -> 6.0"]
    assert new.needs_restart == () and changed_paths(new, source.load()) == []


def test_a_changed_env_file_is_read_anew(tmp_path: Path) -> None:
    source = reloader(tmp_path)
    old = source.load()
    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-canary\n")
    new = source.load()
    assert new.backends["openai"].functional
    lines = changed_paths(old, new)
    assert 'backends.openai.api_keys: nothing -> ["OPENAI_API_KEY: ***"]' in lines
    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-canary-2\n")
    lines += changed_paths(new, source.load())
    assert 'backends.openai.api_keys: ["OPENAI_API_KEY: ***"] -> ["OPENAI_API_KEY: ***"]' in lines
    assert "canary" not in "".join(lines)


def test_a_changed_secret_is_told_without_its_value(tmp_path: Path, write: Write) -> None:
    write("auth: {auth_token: canary-1}\n")
    source = reloader(tmp_path)
    old = source.load()
    write("auth: {auth_token: canary-2}\n")
    [line] = changed_paths(old, source.load())
    assert line == 'auth.auth_token: "***" -> "***"'


def test_added_and_removed_routes_are_told(tmp_path: Path, write: Write) -> None:
    write("failover_routes: {a: {policy: m}}\n")
    source = reloader(tmp_path)
    old = source.load()
    write("failover_routes: {b: {policy: k}}\n")
    lines = changed_paths(old, source.load())
    assert "failover_routes.a.policy: m -> nothing" in lines
    assert "failover_routes.b.policy: nothing -> k" in lines


def test_a_wrong_edit_changes_nothing_and_names_its_place(tmp_path: Path, write: Write) -> None:
    write("proxy: {timeout: 5}\n")
    source = reloader(tmp_path)
    old = source.load()
    write("logging: {level: debug}\nproxy: {timeout: soon}\n")
    with pytest.raises(ConfigError) as caught:
        source.load()
    assert caught.value.errors[0].startswith("config.yaml:2:18: proxy.timeout: ")
    again = source.with_saved(old, Saved({"default_backend": "openai"}))
    assert again.get(ServerOptions).timeout == 5.0 and again.get(LoggingOptions).level == "info"
    assert again.get(BackendGeneralOptions).default_backend == "openai"


def test_what_needs_a_restart_is_told_and_the_rest_is_live(tmp_path: Path, write: Write) -> None:
    write("")
    source = reloader(tmp_path, PROXY_PORT="")
    old = source.load()
    write(
        "proxy: {host: '::1', port: 9, anthropic_port: off, timeout: 7}\n"
        "data_dir: elsewhere\nsession: {repository: file}\n"
    )
    new = source.load()
    server = new.get(ServerOptions)
    assert (server.host, server.port, server.anthropic_port, server.timeout) == ("127.0.0.1", 8000, None, 7.0)
    assert new.data_dir == old.data_dir
    assert changed_paths(old, new) == ["proxy.timeout: 300.0 -> 7.0"]
    assert new.needs_restart == (
        'proxy.host: "127.0.0.1" -> "::1"',
        "proxy.port: 8000 -> 9",
        'proxy.anthropic_port: null -> "off"',
        f"data_dir: {old.data_dir} -> {tmp_path / 'elsewhere'}",
        "session.repository: in_memory -> file",
    )
    assert new.source_of("proxy.port") == "default"
    assert source.with_saved(new, Saved()).get(ServerOptions).port == 8000
    write("")
    assert source.load().needs_restart == ()


def test_saved_state_is_laid_over_the_same_files_without_touching_the_disk(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("default_backend: openai\nfailover_routes: {a: {policy: m}}\n")
    source = reloader(tmp_path)
    settings = source.load()
    write("proxy: {timeout: soon}\n")

    def refuse(*arguments: Any, **keywords: Any) -> Any:
        raise AssertionError("the disk is touched")

    for name in ("stat", "open", "scandir", "listdir", "access"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(builtins, "open", refuse)
    saved = Saved({"default_backend": "gemini"}, {"b": RouteSettings("k")}, frozenset({"a"}))
    new = source.with_saved(settings, saved)
    monkeypatch.undo()
    assert new.get(BackendGeneralOptions).default_backend == "gemini"
    assert new.get(ChoiceOptions).failover_routes == {"b": RouteSettings("k")}
    assert settings.get(BackendGeneralOptions).default_backend == "openai"
    assert source.with_saved(new, Saved()).entries() == settings.entries()


def test_saved_values_that_break_a_rule_are_ignored_with_a_warning(tmp_path: Path, write: Write) -> None:
    write("failover: {cooldown_initial_seconds: 5}\n")
    settings = reloader(tmp_path).load(Saved({"failover.cooldown_max_seconds": 1.0}))
    assert any("failover.cooldown_max_seconds" in warning for warning in settings.warnings)
    assert settings.source_of("failover.cooldown_max_seconds") == "default"


def test_every_file_that_was_read_or_looked_for_is_known(tmp_path: Path, write: Write) -> None:
    write("")
    folder = tmp_path / "config" / "backends" / "openai"
    folder.mkdir(parents=True)
    (folder / "backend.yaml").write_text("retries: 1\n")
    settings = reloader(tmp_path).load()
    assert set(settings.files) == {
        tmp_path / ".env",
        *(tmp_path / name for name in ("config.yaml", "config.yml", "config.json")),
        tmp_path / "home/.config/llm-proxy/config.yaml",
        tmp_path / "config" / "backends",
        folder,
        folder / "backend.yaml",
        folder / "default_models.yaml",
        tmp_path / "config" / "edit_precision_patterns.yaml",
        tmp_path / "config" / "prices.yaml",
        tmp_path / "config" / "prompts" / "empty_response_auto_retry_prompt.md",
        tmp_path / "config" / "tool_call_reactor_config.yaml",
        tmp_path / "config" / "reasoning_aliases.yaml",
        tmp_path / "config" / "replacements",
    }
    assert settings.stamps[tmp_path / ".env"] is None and settings.stamps[tmp_path / "config.yaml"] is not None
    named = reloader(tmp_path, "--config", "mine.yaml", "--env-file", "config.yaml").load()
    assert {tmp_path / "mine.yaml", tmp_path / "config.yaml"} <= set(named.files)
    assert tmp_path / ".env" not in named.files


def test_client_keys_are_told_by_name(tmp_path: Path, write: Write) -> None:
    write("auth: {api_keys: {ann: canary}}\n")
    source = reloader(tmp_path)
    old = source.load()
    write("auth: {api_keys: {ann: canary, bob: canary-2}}\n")
    new = source.load()
    assert changed_paths(old, new) == ['auth.api_keys: ["ann: ***"] -> ["ann: ***","bob: ***"]']
    assert len(new.get(AuthOptions).api_keys) == 2
