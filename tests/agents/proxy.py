"""The proxy as a user starts it: its own process, a YAML file, any free port.

Owns the configuration of one back end of each protocol and where the process says it listens.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.agents.clients import KEY
from tests.agents.programs import Running, environment, started
from tests.support.shared import Protocol

_SOURCES: Final = Path(__file__).resolve().parents[2] / "src"
START_SECONDS: Final = 30.0
BACKENDS: Final[Mapping[Protocol, tuple[str, str, str]]] = {
    "openai-chat": ("up-chat", "openai", "/v1"),
    "openai-responses": ("up-responses", "openai-responses", "/v1"),
    "anthropic-messages": ("up-anthropic", "anthropic", "/v1"),
    "gemini": ("up-gemini", "gemini", ""),
}


@dataclass(frozen=True)
class Proxy:
    """A running proxy with one back end. `model` is the name that leads there, `url` has no version part."""

    url: str
    model: str
    process: Running


@contextmanager
def proxy_before(protocol: Protocol, upstream: str, folder: Path, model: str = "m") -> Iterator[Proxy]:
    """Start the proxy with the back end of that protocol at `upstream` as its default."""
    name, kind, version = BACKENDS[protocol]
    backend: dict[str, Any] = {"type": kind, "base_url": upstream + version, "no_auth": True}
    config = folder / "config.yaml"
    # JSON is YAML.
    config.write_text(json.dumps({"default_backend": name, "backends": {name: backend}}))
    home = folder / "proxy-home"
    home.mkdir()
    variables = {"LLM_INTERACTIVE_PROXY_API_KEY": KEY, "PYTHONPATH": str(_SOURCES)}
    command = [sys.executable, "-m", "llm_proxy", "--port", "0", "--config", str(config)]
    with started(command, folder, environment(home, variables)) as running:
        line = running.line_with("OpenAI tools", START_SECONDS)
        found = re.search(r"http://[\w.]+:\d+", line)
        assert found is not None, line
        yield Proxy(found[0], f"{name}:{model}", running)
