"""Files with keys: those that the proxy writes are its user's alone, those that it reads draw a warning where they are not (S-14)."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llm_proxy.config import load_settings
from llm_proxy.config.exposed import exposed_files, readable_by_all
from llm_proxy.option_groups import GROUPS
from tests.server.process import KEY, running
from tests.server.test_paths import CHAT

pytestmark = pytest.mark.skipif(os.name != "posix", reason="file modes of POSIX")


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


EVERYTHING = {
    "session.repository": "file",
    "session.log_directory": "logs",
    "logging.file": "proxy.log",
    "logging.capture_file": "capture.jsonl",
    "audit.enabled": "true",
    "audit.file": "audit.jsonl",
    "usage_tracking.repository": "file",
}


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_whatever_it_creates_is_its_users_alone(tmp_path: Path, mask: int) -> None:
    known = {option.path for group in GROUPS for option in group.options}
    flags = [f"--set={path}={value}" for path, value in EVERYTHING.items() if path in known]
    assert len(flags) >= 4
    # The interpreter is started anew: a mask belongs to a process.
    with umask(mask), running(tmp_path, *flags, forked=False) as proxy:
        for model in ("demo:echo", "demo:tools", "demo:error-500"):
            proxy.post("/v1/chat/completions", {**CHAT, "model": model})
        kept = proxy.post("/v1/responses", {"model": "demo:echo", "input": "hi"})
        assert kept.status == 200
        assert (
            proxy.post("/v1/chat/completions", {**CHAT, "messages": _says("!/set(default-backend=demo)")}).status == 200
        )
        assert proxy.stop() == 0
    created = list(tmp_path.rglob("*"))
    expected = {"data", "logs", "seal.key", "state.sqlite3", "sessions.sqlite3", "proxy.log", "state.json"}
    assert {path.name for path in created} >= expected
    wrong = {
        str(path.relative_to(tmp_path)): oct(mode)
        for path in created
        if (mode := stat.S_IMODE(path.stat().st_mode)) != (0o700 if path.is_dir() else 0o600)
    }
    assert wrong == {}


def _says(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


NAMES = ("seal.key", "state.json", "state.sqlite3", "sessions.sqlite3", "usage.sqlite3")


@pytest.mark.parametrize("there", [True, False], ids=["to-a-file", "to-nothing"])
def test_links_are_not_followed_when_it_writes(tmp_path: Path, there: bool) -> None:
    """Somebody else put links where the proxy keeps its files."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    targets = {name: tmp_path / f"precious-{name}" for name in NAMES}
    for name, target in targets.items():
        if there:
            target.write_text("precious")
        (data / name).symlink_to(target)
    with running(tmp_path, "--set=session.repository=file") as proxy:
        assert proxy.post("/v1/chat/completions", CHAT).status == 200
        proxy.post("/v1/chat/completions", {**CHAT, "messages": _says("!/set(default-backend=demo)")})
        assert proxy.stop() == 0
    written = {name for name, target in targets.items() if target.exists() and target.read_text() != "precious"}
    assert written == set()


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory that every user can enter, other than the test runner's own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        if not all(parent.stat().st_mode & stat.S_IXOTH for parent in folder.parents):
            pytest.skip("the system's directory for temporary files is closed to others")
        yield folder


def warnings(folder: Path, *flags: str) -> list[str]:
    return exposed_files(load_settings(flags, {"HOME": str(folder)}, folder, GROUPS))


def test_an_environment_file_that_all_can_read_is_named(reachable: Path) -> None:
    file = reachable / ".env"
    file.write_text("OPENAI_API_KEY=sk-x-0123456789\n")
    file.chmod(0o644)
    assert warnings(reachable) == [f".env holds keys and every user of this machine can read it; chmod 600 {file}"]
    for mode in (0o600, 0o640):
        file.chmod(mode)
        assert warnings(reachable) == []


def test_a_directory_that_others_cannot_enter_protects_what_is_in_it(reachable: Path) -> None:
    closed = reachable / "home"
    closed.mkdir(mode=0o700)
    inside = closed / "project"
    inside.mkdir(mode=0o755)
    file = inside / ".env"
    file.write_text("A=b\n")
    file.chmod(0o644)
    assert not readable_by_all(file)
    closed.chmod(0o711)
    assert readable_by_all(file)


@pytest.mark.parametrize(
    ("text", "exposed"),
    [
        ("backends: {openai: {api_keys: [sk-literal-0123456789]}}\n", True),
        ("backends: {openai: {api_key: sk-literal-0123456789}}\n", True),
        ("auth: {api_keys: {me: literal-key-1}}\n", True),
        ("auth: {auth_token: literal-token}\n", True),
        ('auth: {api_keys: ["${NO_SUCH:-}"]}\n', False),
        ('backends: {openai: {api_keys: ["${K}"]}}\n', False),
        ("backends: {openai: {api_key_env: OPENAI_API_KEY}}\n", False),
        ("proxy: {port: 9000}\n", False),
    ],
)
def test_a_configuration_with_keys_that_all_can_read_is_named(reachable: Path, text: str, exposed: bool) -> None:
    file = reachable / "config.yaml"
    file.write_text(text)
    file.chmod(0o644)
    assert bool(warnings(reachable)) == exposed
    file.chmod(0o600)
    assert warnings(reachable) == []


def test_the_start_says_so_and_goes_on(reachable: Path) -> None:
    (reachable / ".env").write_text(f"LLM_INTERACTIVE_PROXY_API_KEY={KEY}\n")
    (reachable / ".env").chmod(0o644)
    with running(reachable, keyed=False) as proxy:
        assert "warning: .env holds keys and every user of this machine can read it" in proxy.banner
        assert proxy.get("/v1/models").status == 200
