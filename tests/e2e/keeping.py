"""A proxy with a configuration file that a test edits, restarts and shares between named client keys.

Owns the folder's files, chat requests with a session id, and waiting for what a process does in its own time. Judges nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.e2e.asking import body_of
from tests.server.process import Answer, Proxy, running

LONGEST: Final = 10.0
CHAT: Final = "/v1/chat/completions"


def until(condition: Callable[[], bool], what: str = "it", within: float = LONGEST) -> None:
    """Looks again and again; fails when it has not come true in time."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {within} s"
        time.sleep(0.02)


def backend(url: str, id: str, **more: Any) -> dict[str, Any]:
    """A keyless back end with a path of its own at the provider."""
    return {"type": "openai", "base_url": f"{url}/{id}/v1", "no_auth": True, **more}


def backends(url: str, *ids: str) -> dict[str, Any]:
    return {id: backend(url, id) for id in ids}


@dataclass
class Place:
    """A folder in which proxies are started one after the other."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "mine.json"

    @property
    def state_file(self) -> Path:
        return self.folder / "mine.json.state.json"

    @property
    def state(self) -> dict[str, Any]:
        found = json.loads(self.state_file.read_bytes())
        assert isinstance(found, dict)
        return found

    def write(self, **config: Any) -> None:
        """Replaces the file in one step, as editors do."""
        draft = self.folder / "draft"
        draft.write_text(json.dumps(config))
        draft.replace(self.file)

    @contextmanager
    def run(self, *flags: str, keyed: bool = True, env: Mapping[str, str] | None = None) -> Iterator[Proxy]:
        """`keyed`: with the one key of the tests; else the file names the keys."""
        with running(self.folder, "--config", str(self.file), *flags, keyed=keyed, env=env) as proxy:
            yield proxy
            if proxy.child.poll() is None:
                assert proxy.stop() == 0


def ask(
    proxy: Proxy, said: str, session: str = "", *, model: str = "m", key: str = "", headers: Mapping[str, str] | None = None, **more: Any
) -> Answer:  # fmt: skip
    """One chat turn."""
    named = {"x-session-id": session} if session else {}
    return proxy.post(CHAT, body_of("openai-chat", model, said=said, **more), {**named, **(headers or {})}, key=key)


def told(proxy: Proxy, said: str, session: str = "s", *, key: str = "", model: str = "m") -> str:
    """The text that answers a chat turn, from the proxy or a provider."""
    answer = ask(proxy, said, session, key=key, model=model)
    assert answer.status == 200, answer.body
    text = answer.json["choices"][0]["message"]["content"]
    assert isinstance(text, str)
    return text


def session_ids(proxy: Proxy, *, key: str = "") -> set[str]:
    answer = proxy.get("/internal/sessions", key=key)
    assert answer.status == 200, answer.body
    return {entry["id"] for entry in answer.json["data"]}


def session_of(proxy: Proxy, id: str, *, key: str = "") -> dict[str, Any]:
    answer = proxy.get(f"/internal/sessions/{id}", key=key)
    assert answer.status == 200, answer.body
    found = answer.json
    assert isinstance(found, dict)
    return found
