"""Secrets on the command line: they work, draw a warning, and `ps` does not show them (S-14)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest

from llm_proxy.cli.command_line import _without_secrets
from llm_proxy.option_groups import GROUPS
from tests.server.process import Proxy, running
from tests.server.test_paths import CHAT

CANARY = "sk-canary-0123456789abcdef"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["--port", "8000"], ["--port", "8000"]),
        (["--openai-api-key", CANARY, "--port", "1"], ["--openai-api-key", "***", "--port", "1"]),
        ([f"--openai-api-key={CANARY}"], ["--openai-api-key=***"]),
        (["--gemini-api-key", "a=b"], ["--gemini-api-key", "***"]),
        (["--set", f"auth.api_keys={CANARY}"], ["--set", "auth.api_keys=***"]),
        (["--set", f"api_keys={CANARY}"], ["--set", "api_keys=***"]),
        ([f"--set=auth.auth_token={CANARY}"], ["--set=auth.auth_token=***"]),
        (["--set", f"backends.my.own.api_keys=[{CANARY}, b]"], ["--set", "backends.my.own.api_keys=***"]),
        (["--set", f"backends.x.api_key={CANARY}"], ["--set", "backends.x.api_key=***"]),
        (["--set", f"backends.x.headers.X-Key={CANARY}"], ["--set", "backends.x.headers.X-Key=***"]),
        (["--set", "backends.x.timeout=5"], ["--set", "backends.x.timeout=5"]),
        (["--set", "backends.x.api_key_env=MY_KEY"], ["--set", "backends.x.api_key_env=MY_KEY"]),
        (["--set", "proxy.port=5", "--log-level=debug"], ["--set", "proxy.port=5", "--log-level=debug"]),
        (
            ["--upstream-proxy", f"http://me:{CANARY}@proxy.test:3128/"],
            ["--upstream-proxy", "http://me:***@proxy.test:3128/"],
        ),
        (
            [f"--set=proxy.upstream_proxy=http://:{CANARY}@proxy.test"],
            ["--set=proxy.upstream_proxy=http://:***@proxy.test"],
        ),
        (["--openai-api-base-url", "http://a.test/v1@2"], ["--openai-api-base-url", "http://a.test/v1@2"]),
        (["--openai-api-key"], ["--openai-api-key"]),
        (["--set"], ["--set"]),
    ],
)
def test_only_the_secrets_are_blanked(given: list[str], shown: list[str]) -> None:
    assert list(_without_secrets(given, GROUPS)) == shown


def _command_line(proxy: Proxy) -> str:
    return " ".join(psutil.Process(proxy.child.pid).cmdline())


@pytest.mark.skipif(sys.platform == "win32", reason="the command line of a process cannot be changed there")
def test_a_key_given_by_flag_works_and_is_not_in_the_process_list(tmp_path: Path) -> None:
    flags = ("--openai-api-key", CANARY, "--set", "auth.api_keys=client-canary-1")
    with running(tmp_path, *flags, keyed=False, forked=False) as proxy:
        assert proxy.post("/v1/chat/completions", {**CHAT, "model": "demo:echo"}, key="client-canary-1").status == 200
        shown = _command_line(proxy)
        assert "--openai-api-key ***" in shown
        assert "canary" not in shown
        if os.path.isdir(f"/proc/{proxy.child.pid}"):
            for name in ("cmdline", "environ", "comm"):
                assert b"canary" not in Path(f"/proc/{proxy.child.pid}/{name}").read_bytes()
        for flag in ("--openai-api-key", "--set auth.api_keys"):
            assert f"flag {flag}: a key on the command line is visible to other users" in proxy.banner
        assert "canary" not in proxy.banner
        assert proxy.stop() == 0
        assert "canary" not in proxy.log


def test_a_command_line_without_keys_stays_as_it_is(tmp_path: Path) -> None:
    with running(tmp_path, forked=False) as proxy:
        assert "-m llm_proxy --port" in _command_line(proxy)
        assert "command line" not in proxy.banner
