"""The proxy as a process of its own, as a user starts it.

Owns start, the address it printed, and its end by process id. Each run has a data directory and an environment of its own.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from tests.support.forked import Forked, start

ROOT = Path(__file__).resolve().parents[2]
KEY = "test-client-key"
_READY = re.compile(r"OpenAI tools\s+base URL\s+(http://\S+)/v1")
_ANTHROPIC = re.compile(r"or\s+(http://\S+)\s*$")


class Proxy:
    """A running proxy. `url` has no version part; `lines` is everything it has printed on standard error so far."""

    def __init__(self, process: Forked | subprocess.Popen[bytes]) -> None:
        self.process = process
        self.lines: list[str] = []
        self.url = ""
        self.anthropic_url = ""
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for raw in self.process.stderr:
            line = raw.decode()
            self.lines.append(line.rstrip("\n"))
            if match := _READY.search(line):
                self.url = match[1]
            if (match := _ANTHROPIC.search(line)) and "Anthropic" in line:
                self.anthropic_url = match[1]
            if "Ctrl-C" in line:
                self._ready.set()
        self._ready.set()

    def wait_ready(self, timeout: float = 30.0) -> None:
        if not self._ready.wait(timeout) or not self.url:
            raise AssertionError("the proxy did not start:\n" + "\n".join(self.lines))

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def stop(self, number: int = signal.SIGTERM, timeout: float = 10.0) -> int:
        """Sends a signal and waits for the end; kills what does not end."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self._reader.join(5)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return status


@contextmanager
def running_proxy(
    arguments: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    data_dir: Path | None = None,
) -> Iterator[Proxy]:
    """Starts `python -m llm_proxy --port 0 …` with the client key `KEY` and waits until it listens."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        flags = ["--port", "0", "--data-dir", str(data_dir or folder / "data"), *arguments]
        if config is not None:
            file = folder / "config.json"
            file.write_bytes(msgspec.json.encode(config))
            flags += ["--config", str(file)]
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        variables = {"PYTHONPATH": str(ROOT / "src"), "LLM_INTERACTIVE_PROXY_API_KEY": KEY, **(environment or {})}
        process = start(flags, folder, {**kept, **variables})
        proxy = Proxy(process)
        try:
            proxy.wait_ready()
            yield proxy
        finally:
            proxy.stop()


def backends_at(url: str) -> dict[str, Any]:
    """Four back ends, one per protocol, at the scripted upstream `url`; none needs a key."""
    return {
        "up-chat": {"type": "openai", "base_url": f"{url}/v1", "no_auth": True},
        "up-responses": {"type": "openai-responses", "base_url": f"{url}/v1", "no_auth": True},
        "up-anthropic": {"type": "anthropic", "base_url": f"{url}/v1", "no_auth": True},
        "up-gemini": {"type": "gemini", "base_url": url, "no_auth": True},
    }


BACKEND_OF = {
    "openai-chat": "up-chat",
    "openai-responses": "up-responses",
    "anthropic-messages": "up-anthropic",
    "gemini": "up-gemini",
}
