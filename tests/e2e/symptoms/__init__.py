"""What a user sees when something is wrong: for each entry of docs/troubleshooting.md a function that makes it happen.

`@symptom(heading)` registers such a function; it gets `Proxies`, which are started when first asked for and shared, and returns the texts that the
user sees: an answer with its status, headers and messages, the log, or what a command printed. It judges nothing.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from tests.e2e.asking import Scene, body_of, keys, say
from tests.e2e.keeping import backend, until
from tests.e2e.test_connection_help import secure_upstream
from tests.server.process import KEY, Answer, Proxy, free_pair, run, running
from tests.support.proxy import ROOT, backends_at
from tests.support.upstream import Received, Reply, refusing_url, upstream_in_thread

CHAT: Final = "/v1/chat/completions"
HOUR: Final = 3600
_HIDING: Final = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = classmethod(lambda cls, name, *more: None if name in {libraries!r} else find(name, *more))
"""
GUEST: Final = "key-of-a-guest-0002"

Producer = Callable[["Proxies"], str]
SYMPTOMS: Final[dict[str, Producer]] = {}


def symptom(heading: str) -> Callable[[Producer], Producer]:
    """Registers what makes the symptom under this heading happen."""

    def register(function: Producer) -> Producer:
        assert heading not in SYMPTOMS, heading
        SYMPTOMS[heading] = function
        return function

    return register


def seen(answer: Answer) -> str:
    """What a user can see of an answer: its status, headers, every text in its JSON, and the body as it came."""
    heads = "".join(f"{name}: {value}\n" for name, value in answer.headers.items())
    body = answer.body.decode("utf-8", "replace")
    texts = "\n".join(_texts(_json(piece.removeprefix("data:")) for piece in [body, *body.splitlines()]))
    return f"{answer.status}\n{heads}\n{texts}\n{body}\n"


def printed(ended: subprocess.CompletedProcess[bytes]) -> str:
    return f"{ended.stdout.decode()}\n{ended.stderr.decode()}\nexit status {ended.returncode}\n"


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            yield from _texts(value.values())
        case None | int() | float():
            pass
        case _:
            for one in value:
                yield from _texts(one)


def answer(request: Received) -> Reply:
    """The provider says a few words, and has no list of models."""
    return Reply(status=404) if request.method == "GET" else say(request)


class Proxies:
    """Proxies in different set-ups, each with a folder of its own below `folder`; all end with `close`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open = ExitStack()

    def close(self) -> None:
        self._open.close()

    def _start(self, name: str, config: dict[str, Any], *flags: str, **env: str) -> Proxy:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        self.write(name, config)
        return self._open.enter_context(running(folder, "--config", str(folder / "config.json"), *flags, env=env))

    def write(self, name: str, config: dict[str, Any]) -> None:
        """Replaces that proxy's configuration file in one step."""
        draft = self.folder / name / "draft"
        draft.write_text(json.dumps(config))
        draft.replace(self.folder / name / "config.json")

    def run(self, *flags: str, hide: str = "", **env: str) -> str:
        """What a command prints. `hide`: a library that is not installed."""
        folder = self.folder / "commands"
        folder.mkdir(exist_ok=True)
        extra = {**env, "PYTHONPATH": self.without(hide)} if hide else env
        return printed(run(folder, flags, extra))

    def without(self, *libraries: str) -> str:
        """A PYTHONPATH on which these libraries are not found."""
        shadow = self.folder / "-".join(("without", *libraries))
        shadow.mkdir(exist_ok=True)
        (shadow / "sitecustomize.py").write_text(_HIDING.format(libraries=libraries))
        return f"{shadow}:{ROOT / 'src'}"

    @cached_property
    def scene(self) -> Scene:
        """The one that most symptoms need: one client key, back ends in all sorts of trouble."""
        upstream = self._open.enter_context(upstream_in_thread(answer))
        url, port = upstream.url, free_pair()
        secure = self._open.enter_context(secure_upstream())
        config = {
            "backends": {
                **backends_at(url),
                "keyless": {"type": "openrouter"},
                "dealt": {"type": "openai", "base_url": f"{url}/v1", "api_keys": keys("a")},
                "unpaid": {"type": "anthropic", "base_url": f"{url}/v1", "api_keys": keys("c")},
                "resting": {"type": "openai", "base_url": f"{url}/v1", "api_keys": keys("b")},
                "limited": backend(url, "limited", rate_limit={"limit": 1, "time_window": HOUR}),
                "nameless": backend("http://no-such-host.invalid", "x"),
                "closed": backend(refusing_url(), "x"),
                "secure": backend(secure, "x"),
                "hasty": backend(url, "hasty", timeout=0.3),
                "circle": {"type": "openai", "base_url": f"http://127.0.0.1:{port}/v1", "api_keys": [KEY], "models": ["m"]},
                "chatgpt": {"type": "openai-oauth"},
            },
            "default_backend": "up-chat",
            "model_defaults": {
                "small": {"limits": {"max_input_tokens": 100}},
                "windowed": {"limits": {"context_window": 1000}},
            },
            "proxy": {"max_request_bytes": 200_000},
            "failover": {"max_wait_seconds": 0},
            "session": {"json_repair_strict_mode": True},
        }  # fmt: skip
        return Scene(self._start("scene", config, "--port", str(port)), upstream)

    def ask(self, model: str, script: Callable[..., Reply] | None = None, stream: bool = False, **more: Any) -> str:
        """One chat turn at the scene; the provider plays `script`."""
        self.scene.play(script or answer)
        headers = more.pop("headers", None)
        return seen(self.scene.post(CHAT, body_of("openai-chat", model, stream, **more), headers))

    @cached_property
    def locked(self) -> Proxy:
        """Two client keys and no admin; a pinned model, a project for everybody, strict commands, no usage records."""
        config = {
            "backends": {"demo": {"type": "demo"}},
            "static_route": "demo:echo",
            "strict_command_detection": True,
            "session": {"force_set_project": True},
            "audit": {"enabled": True},
            "usage_tracking": {"enabled": False},
        }
        return self._start("locked", config, LLM_INTERACTIVE_PROXY_API_KEY_1=GUEST)

    @cached_property
    def broken(self) -> Proxy:
        """No directory, file or port that it can use; a key in its file; a library that is not there."""
        file = self.folder / "a-file"
        file.write_text("")
        main = free_pair()
        config = {
            "backends": {
                "demo": {"type": "demo"},
                "literal": {"type": "openai", "api_key": "sk-abcdefghijklmnopqrstuvwxyz"},
                "outside": backend("http://llm.example", "x"),
                "cloud": {"type": "gemini-cli-cloud-project", "gcp_project_id": "p"},
            },
            "proxy": {"upstream_proxy": refusing_url()},
            "logging": {"capture_file": str(file / "capture.jsonl")},
            "session": {"repository": "redis", "redis_url": f"redis://127.0.0.1:{refusing_url().rpartition(':')[2]}"},
            "audit": {"enabled": True, "file": str(file / "audit.jsonl")},
        }
        taken = self.scene.proxy.main[1]
        flags = ("--port", str(main), "--anthropic-port", str(taken), "--data-dir", str(file))
        proxy = self._start("broken", config, *flags, PYTHONPATH=self.without("google.auth"))
        assert proxy.post(CHAT, body_of("openai-chat", "demo:echo")).status == 200
        return proxy

    @cached_property
    def damaged(self) -> Proxy:
        """Its files were damaged while it was not running."""
        data = self.folder / "damaged" / "data"
        data.mkdir(parents=True)
        for name in ("usage.sqlite3", "sessions.sqlite3", "state.json"):
            (data / name).write_bytes(b"not what it was " * 64)
        (self.folder / "damaged" / "config.json.state.json").write_text("{")
        config = {"backends": {"demo": {"type": "demo"}}, "session": {"repository": "file"}}
        proxy = self._start("damaged", config, "--disable-config-watch")
        assert proxy.post(CHAT, body_of("openai-chat", "demo:echo")).status == 200
        return proxy


def log_with(proxy: Proxy, *texts: str) -> str:
    """The log, as soon as it holds these texts; lines are written by a thread of their own."""
    until(lambda: all(text in proxy.log for text in texts), " and ".join(texts))
    return proxy.log
