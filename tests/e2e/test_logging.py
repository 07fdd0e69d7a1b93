"""OPS-13, OPS-14: what a running proxy logs of its requests, where to, and how long each phase of them took."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.asking import PROTOCOLS, body_of, path_of
from tests.e2e.asking import say as answer_of
from tests.server.process import KEY, Answer, Proxy, run, running
from tests.support.proxy import BACKEND_OF, backends_at
from tests.support.shared import Protocol
from tests.support.upstream import Pause, Received, Reply, Upstream, upstream_in_thread

PROVIDER_KEY: Final = "sk-canary-provider-0123456789abcdef"
FIELDS: Final = [
    "session", "total", "backend", "model", "streaming", "commands",
    "cmd_proc", "backend_sel", "backend_call", "resp_proc", "overhead",
]  # fmt: skip


def say(request: Received) -> Reply:
    """A few words, and lists without models."""
    return answer_of(request) if request.body else Reply.json({"object": "list", "data": [], "models": []})


@pytest.fixture(scope="module")
def provider() -> Iterator[Upstream]:
    with upstream_in_thread(say) as upstream:
        yield upstream


class Logged:
    """A proxy that logs into a file."""

    def __init__(self, proxy: Proxy, folder: Path) -> None:
        self.proxy = proxy
        self.folder = folder
        self.file = folder / "proxy.log"
        self._count = 0

    def ask(
        self, client: Protocol = "openai-chat", model: str = "", *, stream: bool = False, said: str = "hi", **more: Any
    ) -> tuple[str, Answer]:
        """One request; its id and its answer."""
        self._count += 1
        id = f"req-{os.getpid()}-{self._count}"
        model = model or f"{BACKEND_OF[client]}:m"
        body = body_of(client, model, stream, said=said, **more)
        headers = {"x-request-id": id, "x-session-id": f"session-of-{id}"}
        return id, self.proxy.post(path_of(client, model, stream), body, headers)

    @property
    def text(self) -> str:
        return self.file.read_text()

    def lines(self, sign: str, least: int = 1) -> list[str]:
        """The lines that hold `sign`, once there are so many of them; the file is written within moments."""
        deadline = time.monotonic() + 10
        while (
            len(found := [line for line in self.text.splitlines(True) if sign in line and line.endswith("\n")]) < least
        ):
            assert time.monotonic() < deadline, f"no such line: {sign}\n{self.text}"
        return [line.rstrip("\n") for line in found]

    def settled(self) -> str:
        """The whole log, after a request that came last."""
        id, _ = self.ask()
        self.lines(f"PERF_SUMMARY session=session-of-{id} ")
        return self.text

    def change(self, **logging: Any) -> None:
        """Edits the configuration and reloads it; returns when the new log options are in force, with their line in the log."""
        config = json.loads((self.folder / "config.json").read_text())
        config["logging"] = {"file": str(self.file)} | logging
        (self.folder / "config.json").write_text(json.dumps(config))
        answer = self.proxy.post("/internal/reload", {})
        assert answer.status == 200, answer.body


@contextmanager
def logged(folder: Path, provider: Upstream, *flags: str, **config: Any) -> Iterator[Logged]:
    settings = {
        "backends": backends_at(provider.url),
        "logging": {"file": str(folder / "proxy.log")},
        "config_watch": False,
    }
    (folder / "config.json").write_text(json.dumps(settings | config))
    with running(folder, "--config", "config.json", *flags) as proxy:
        yield Logged(proxy, folder)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, provider: Upstream) -> Iterator[Logged]:
    with logged(tmp_path_factory.mktemp("plain"), provider) as started:
        yield started


def fields(line: str) -> dict[str, str]:
    return dict(field.split("=", 1) for field in line.partition("PERF_SUMMARY ")[2].split(" [")[0].split(" "))


# OPS-13


@pytest.mark.parametrize("client", PROTOCOLS)
@pytest.mark.parametrize("stream", [False, True])
def test_one_line_per_request_and_one_of_its_times(plain: Logged, client: Protocol, stream: bool) -> None:
    """O-06: at most two lines per request at level info"""
    id, answer = plain.ask(client, stream=stream)
    assert answer.status == 200
    [summary] = plain.lines(f"PERF_SUMMARY session=session-of-{id} ")
    told, _ = mine = plain.lines(id, 2)
    assert len(mine) == 2
    assert re.search(
        rf"INFO llm_proxy\.server\.exchange: {id} {client} -> {BACKEND_OF[client]}:m 200 \d+ tokens \d+ ms"
        rf"{' stream' if stream else ''} \[session-of-{id}\]$",
        told,
    )
    assert summary.endswith(f"[{id}]")


def test_given_a_request_then_one_line_with_all_fields(plain: Logged) -> None:
    id, _ = plain.ask(stream=True)
    found = fields(plain.lines(f"PERF_SUMMARY session=session-of-{id} ")[0])
    assert list(found) == FIELDS
    assert found | {"backend": "up-chat", "model": "m", "streaming": "true", "commands": "false"} == found
    times = {name: float(found[name]) for name in ("total", *FIELDS[6:])}
    parts = sum(times[name] for name in ("cmd_proc", "backend_sel", "backend_call", "resp_proc"))
    assert 0 < parts <= times["total"] + 0.1
    assert 0 < times["overhead"] <= times["total"] + 0.1


def test_a_command_is_told_as_one(plain: Logged) -> None:
    id, answer = plain.ask(said="!/help")
    assert answer.status == 200
    found = fields(plain.lines(f"PERF_SUMMARY session=session-of-{id} ")[0])
    assert (found["commands"], found["backend"], found["streaming"]) == ("true", "proxy", "false")


@pytest.mark.parametrize("client", PROTOCOLS)
def test_an_answer_that_is_not_streamed_says_what_the_proxy_added(plain: Logged, client: Protocol) -> None:
    _, answer = plain.ask(client)
    assert re.fullmatch(r"\d+\.\d\d", answer.headers["x-llm-proxy-overhead-ms"])
    _, streamed = plain.ask(client, stream=True)
    assert "x-llm-proxy-overhead-ms" not in streamed.headers


@pytest.mark.parametrize("stream", [False, True])
def test_the_providers_time_is_no_overhead(plain: Logged, provider: Upstream, stream: bool) -> None:
    def late(request: Received) -> Reply:
        reply = say(request)
        pause = (Pause(0.6),)
        return Reply(reply.status, reply.headers, reply.body, reply.steps, before=pause)

    provider.script = late
    try:
        id, answer = plain.ask(stream=stream)
    finally:
        provider.script = say
    found = fields(plain.lines(f"PERF_SUMMARY session=session-of-{id} ")[0])
    assert float(found["backend_call"]) >= 590
    assert float(found["overhead"]) < 500
    if not stream:
        assert float(answer.headers["x-llm-proxy-overhead-ms"]) < 500


def test_a_refused_request_has_one_line_too(plain: Logged) -> None:
    plain.proxy.post("/v1/chat/completions", {}, {"x-request-id": "req-refused"}, key="wrong")
    plain.proxy.get("/v1/nothing", {"x-request-id": "req-nowhere"})
    plain.proxy.get("/v1/models", {"x-request-id": "req-models"})
    plain.proxy.get("/health", {"x-request-id": "req-health"})
    log = plain.settled()
    for id, status in (("req-refused", 401), ("req-nowhere", 404), ("req-models", 200)):
        [line] = [line for line in log.splitlines() if id in line]
        assert f"-> {status} " in line
    assert "req-health" not in log


def test_given_log_file_then_nothing_on_standard_error_after_start(tmp_path: Path, provider: Upstream) -> None:
    with logged(tmp_path, provider, "--log", "other.log") as started:
        started.file = tmp_path / "other.log"
        for model in ("up-chat:m", "demo:error-500", "demo:cut", "nobody:m"):
            started.ask(model=model)
        started.settled()
        banner = started.proxy.banner
        assert started.proxy.stop() == 0
        assert started.proxy.log == banner
    assert not (tmp_path / "proxy.log").exists()


def test_request_and_response_lines_hold_no_body(tmp_path: Path, provider: Upstream) -> None:
    lines = {"request_logging": True, "response_logging": True, "file": str(tmp_path / "proxy.log")}
    with logged(tmp_path, provider, logging=lines) as started:
        id, _ = started.ask(said="canary of the prompt")
        asked, answered = started.lines(f"{id} request: "), started.lines(f"{id} response: ")
        log = started.settled()
    assert len(asked) == len(answered) == 1
    assert re.search(r"request: openai-chat model up-chat:m, \d+ bytes, 0 tools, agent \S+, client key \S+", asked[0])
    assert re.search(r"response: 200, \d+ tokens in, \d+ out, first content after \d+ ms, 1 calls", answered[0])
    assert "canary" not in log and "w0 w1" not in log


def test_given_performance_summary_false_then_none(tmp_path: Path, provider: Upstream) -> None:
    with logged(tmp_path, provider, "--disable-performance-summary") as started:
        id, answer = started.ask()
        started.lines(f"{id} openai-chat -> ")
        started.ask()
        assert started.proxy.stop() == 0
        assert "PERF_SUMMARY" not in started.text
    assert "x-llm-proxy-overhead-ms" not in answer.headers


def test_json_lines_carry_the_ids(tmp_path: Path, provider: Upstream) -> None:
    with logged(tmp_path, provider, "--log-format", "json") as started:
        id, _ = started.ask()
        started.settled()
        objects = [json.loads(line) for line in started.text.splitlines()]
    mine = [one for one in objects if one.get("request_id") == id]
    assert len(mine) == 2
    assert {one["session_id"] for one in mine} == {f"session-of-{id}"}
    assert all({"time", "level", "logger", "message"} <= one.keys() for one in objects)


def test_level_modules_and_format_change_live(plain: Logged) -> None:
    def debug_lines(log: str, name: str) -> list[str]:
        return [line for line in log.splitlines() if f" DEBUG {name}" in line]

    assert debug_lines(plain.settled(), "") == []
    plain.change(per_module={"llm_proxy.server.request_lines": "debug"})
    plain.proxy.get("/health")
    log = plain.settled()
    assert debug_lines(log, "llm_proxy.server.request_lines: GET /health -> 200")
    assert len(debug_lines(log, "")) == len(debug_lines(log, "llm_proxy.server.request_lines"))
    plain.change(level="warning")
    quiet, _ = plain.ask()
    plain.change(format="json")
    plain.settled()
    assert quiet not in plain.text
    assert json.loads(plain.text.splitlines()[-1])["logger"] == "llm_proxy.performance"
    plain.change()
    assert " INFO llm_proxy.performance: PERF_SUMMARY" in plain.settled().splitlines()[-1]


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signal on this system")
def test_sighup_opens_the_file_anew(tmp_path: Path, provider: Upstream) -> None:
    with logged(tmp_path, provider) as started:
        first, _ = started.ask()
        started.lines(f"PERF_SUMMARY session=session-of-{first} ")
        moved = started.file.rename(tmp_path / "moved.log")
        started.proxy.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 10
        while not started.file.exists():
            assert time.monotonic() < deadline
        second, _ = started.ask()
        started.lines(f"PERF_SUMMARY session=session-of-{second} ")
    assert first in moved.read_text() and second not in moved.read_text()


def test_given_max_size_and_backup_count_then_at_most_three_files(tmp_path: Path, provider: Upstream) -> None:
    rotation = {"file": str(tmp_path / "proxy.log"), "max_size_mb": 1, "backup_count": 2}
    tall = "x" * 30_000
    (tmp_path / "proxy.log").write_text("old line\n" * 116_000)  # almost a megabyte
    with logged(tmp_path, provider, logging=rotation) as started:
        for _ in range(20):
            started.proxy.get(f"/{tall}")
        for _ in range(30):
            started.ask()
        started.proxy.stop()
    names = {path.name for path in tmp_path.iterdir() if path.name.startswith("proxy.log")}
    assert {"proxy.log", "proxy.log.1"} <= names <= {"proxy.log", "proxy.log.1", "proxy.log.2"}
    assert all((tmp_path / name).stat().st_size <= 1024 * 1024 for name in names)


def refused(request: Received) -> Reply:
    return Reply.json({"error": {"message": f"bad key {PROVIDER_KEY}", "type": "invalid_request_error"}}, status=401)


def test_given_log_level_debug_then_no_key_in_the_output(tmp_path: Path, provider: Upstream) -> None:
    keyed: Mapping[str, Any] = {
        "up": {"type": "openai", "base_url": f"{provider.url}/v1", "api_keys": [PROVIDER_KEY]},
    }
    scripts: tuple[Callable[[Received], Reply], ...] = (say, refused)
    with logged(tmp_path, provider, "--log-level", "debug", backends=keyed) as started:
        for script in scripts:
            provider.script = script
            for stream in (False, True):
                id, _ = started.ask(model="up:m", stream=stream, said=f"my key is {KEY}")
                started.proxy.get(f"/v1/models?key={KEY}")
        provider.script = say
        started.lines(f"PERF_SUMMARY session=session-of-{id} ")
        started.proxy.stop()
        assert PROVIDER_KEY not in started.text + started.proxy.log
        assert KEY not in started.text + started.proxy.log
        assert " DEBUG " in started.text


def test_a_log_file_that_cannot_be_written_is_exit_2_naming_it(tmp_path: Path) -> None:
    ended = run(tmp_path, ["--log", "nowhere/proxy.log"])
    assert ended.returncode == 2
    assert b"nowhere/proxy.log" in ended.stderr and b"No such file" in ended.stderr


# docs/logging.md


def blocks(language: str) -> list[str]:
    page = (Path(__file__).resolve().parents[2] / "docs" / "logging.md").read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", blocks("yaml"))
def test_the_pages_configurations_pass_the_check(tmp_path: Path, block: str) -> None:
    (tmp_path / "config.yaml").write_text(block)
    ended = run(tmp_path, ["config", "check"])
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_the_pages_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    [block] = blocks("python")
    exec(compile(block, "docs/logging.md", "exec"), {})
    assert re.fullmatch(r"\d+\.\d ms \['backend_call'\]\n", capsys.readouterr().out)


@pytest.mark.skipif(shutil.which("jq") is None, reason="the recipes are for jq, which is not installed")
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signal on this system")
def test_the_pages_recipes_find_what_they_say(tmp_path: Path, provider: Upstream) -> None:
    recipes = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("jq ")]
    assert len(recipes) == 3
    [flags] = [block.split()[1:] for block in blocks("sh") if "json" in block and block.startswith("llm-proxy")]
    with logged(tmp_path, provider, *flags) as started:
        started.proxy.post("/v1/chat/completions", body_of("openai-chat", "up-chat:m"), {"x-request-id": "req-1"})
        (tmp_path / "config.json").write_text("{")
        started.proxy.send_signal(signal.SIGHUP)
        started.lines('"level":"ERROR"')
        started.settled()
        expected = [json.loads(line) for line in started.text.splitlines()]
        found = [_run_recipe(recipe, tmp_path) for recipe in recipes]
    assert any("config.json:1" in message for message in found[0])
    assert found[0] == [one["message"] for one in expected if one["level"] in ("WARNING", "ERROR")]
    assert found[1] == [one["message"] for one in expected if one.get("request_id") == "req-1"]
    assert len(found[1]) == 2
    assert len(found[2]) == 2 and all(float(ms) > 0 for ms in found[2])


def _run_recipe(recipe: str, folder: Path) -> list[str]:
    """The lines that a recipe prints, run by jq itself and no shell."""
    done = subprocess.run(shlex.split(recipe), cwd=folder, capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.splitlines()
