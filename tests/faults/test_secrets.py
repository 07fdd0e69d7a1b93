"""S-09, P12: canaries as provider keys, client keys and login tokens, in prompts, addresses and providers' errors, with everything on that
writes something down: nothing that is written, and no error that a client gets, holds any of them.
"""

from __future__ import annotations

import base64
import itertools
import json
import random
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest

from tests.e2e.asking import PROTOCOLS, body_of, path_of, protocol_of, say, wants_stream
from tests.faults.stage import deltas
from tests.server.process import Answer, Proxy, running
from tests.support.shared import Protocol
from tests.support.upstream import Close, Received, Reply, Reset, Send, Step, Upstream, upstream_in_thread


def canary(begin: str, seed: int) -> str:
    return begin + base64.urlsafe_b64encode(random.Random(seed).randbytes(24)).decode()


KEYS: Final = {
    "openai": canary("sk-proj-", 1),
    "responses": canary("plain/+", 2),
    "anthropic": canary("sk-ant-api03-", 3),
    "gemini": canary("AIzaSy", 4),
}
CLIENT: Final = canary("client-", 5)
TOKEN: Final = canary("auth-", 6)
ACCESS, REFRESH = canary("access.", 7), canary("refresh.", 8)
SPARE: Final = canary("spare-", 9)
CANARIES: Final = (*KEYS.values(), CLIENT, TOKEN, ACCESS, REFRESH, SPARE)
MODELS: Final = {
    "openai": "b-openai:m",
    "responses": "b-responses:m",
    "anthropic": "b-anthropic:m",
    "gemini": "b-gemini:m",
}
LOGIN: Final = "qwen-oauth:m"
CONFIG_FILES: Final = ("mine.json", "oauth_creds.json")
"""What the operator and the vendor's own program wrote: there they belong."""

ALL: Final = " and ".join(CANARIES)
SPELLINGS: Final[dict[str, Callable[[str], str]]] = {
    "plain": str,
    "JSON": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "URL": lambda text: quote(text, safe=""),
    "Base64": lambda text: base64.b64encode(text.encode()).decode(),
    "Base64 of more": lambda text: base64.b64encode(b"user:" + text.encode() + b"!").decode(),
}


def told(text: str) -> bytes:
    return json.dumps(
        {"error": {"message": text, "type": "invalid_request_error", "code": 400, "status": "INVALID_ARGUMENT"}}
    ).encode()


def split(data: bytes) -> tuple[Step, ...]:
    """In pieces, each canary cut somewhere."""
    cuts = [
        0,
        *sorted(data.find(value.encode()) + len(value) // 2 for value in CANARIES if value.encode() in data),
        len(data),
    ]
    return tuple(Send(data[begin:end]) for begin, end in itertools.pairwise(cuts))


def failure(status: int, text: str, in_pieces: bool) -> Callable[[Received], Reply]:
    headers = (("content-type", "application/json"), ("x-request-id", "r"), ("location", f"/?key={KEYS['gemini']}"))

    def script(request: Received) -> Reply:
        if in_pieces:
            return Reply(status=status, headers=headers, steps=split(told(text)))
        return Reply(status=status, headers=headers, body=told(text))

    return script


def breaking(how: Step | None) -> Callable[[Received], Reply]:
    """Some words, then an error in the stream that tells everything, or the end of the connection."""

    def script(request: Received) -> Reply:
        if not wants_stream(request):
            return Reply(
                headers=(("content-type", "application/json"),),
                steps=(*split(b'{"half": "' + ALL.encode()), how or Close()),
            )
        event = b"event: error\ndata: " + told(ALL) + b"\n\n"
        return Reply.sse(*deltas(protocol_of(request)), *split(event), *((how,) if how is not None else ()))

    return script


def faults() -> dict[str, Callable[[Received], Reply]]:
    found: dict[str, Callable[[Received], Reply]] = {"no fault": say}
    for status, (name, spell) in itertools.product((400, 404, 429, 500, 529, 401, 403), SPELLINGS.items()):
        for in_pieces in (False, True):
            text = " ".join(["echoed:", *map(spell, CANARIES)])
            found[f"{status} {name}{' in pieces' if in_pieces else ''}"] = failure(status, text, in_pieces)
    found["error in the stream"] = breaking(None)
    found["broken stream"] = breaking(Reset())
    found["ended stream"] = breaking(Close())
    found["no JSON"] = lambda request: Reply(body=b"<html>" + ALL.encode())
    found["no JSON, 502"] = lambda request: Reply(status=502, body=b"<html>" + ALL.encode())
    return found


FAULTS: Final = faults()
SMALL: Final = (
    "no fault",
    "400 plain",
    "500 Base64 of more",
    "429 URL",
    "error in the stream",
    "broken stream",
    "401 JSON in pieces",
)


@dataclass
class Watched:
    """A proxy whose every trace is kept. `errors` are error answers and broken streams that clients got."""

    folder: Path
    proxy: Proxy
    provider: Upstream
    errors: list[bytes] = field(default_factory=list)
    seen: list[bytes] = field(default_factory=list)

    def ask(self, path: str, body: Any, key: str = CLIENT, **headers: str) -> Answer | None:
        try:
            answer = self.proxy.post(path, body, {"x-session-id": "watched", **headers}, key=key)
        except (ConnectionError, OSError):
            return None
        self.errors.append(answer.body if answer.status != 200 else b"")
        self.errors.append("\n".join(f"{name}: {value}" for name, value in answer.headers.items()).encode())
        return answer

    def traces(self) -> Iterator[tuple[str, bytes]]:
        """Everything that was written or shown, by where."""
        yield "standard error", self.proxy.log.encode()
        for number, body in enumerate(self.errors):
            yield f"answer {number}", body
        yield from ((f"page {number}", page) for number, page in enumerate(self.seen))
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and path.name not in CONFIG_FILES:
                yield str(path.relative_to(self.folder)), path.read_bytes()


def spelled(value: str) -> set[bytes]:
    """How a canary may be recognised: by its middle, and by the middle of its spellings."""
    forms = {value, *(spell(value) for spell in SPELLINGS.values())}
    forms |= {base64.b64encode(b"x" * offset + value.encode()).decode() for offset in range(3)}
    return {form[6:-8].encode() for form in forms}


def hits(watched: Watched) -> list[str]:
    needles = {needle for value in CANARIES for needle in spelled(value)}
    places = [(where, data, data.find(needle)) for where, data in watched.traces() for needle in needles]
    return [f"{where}: {data[max(0, at - 60) : at + 20]!r}" for where, data, at in places if at >= 0]


def configuration(url: str, folder: Path, redact: bool) -> dict[str, Any]:
    made = {
        "b-openai": ("openai", f"{url}/v1"),
        "b-responses": ("openai-responses", f"{url}/v1"),
        "b-anthropic": ("anthropic", f"{url}/v1"),
        "b-gemini": ("gemini", url),
    }
    backends: dict[str, Any] = {
        id: {"type": type_, "base_url": base, "api_keys": [KEYS[id[2:]]]} for id, (type_, base) in made.items()
    }
    backends["qwen-oauth"] = {"token_path": str(folder / "qwen"), "refresh": "read-only"}
    return {
        "backends": backends,
        "auth": {"api_keys": {"ann": CLIENT}, "auth_token": TOKEN},
        "redact_api_keys_in_prompts": redact,
        "logging": {"level": "debug", "capture_file": str(folder / "capture.jsonl"), "capture_flush_interval": 0.1},
        "audit": {"enabled": True, "file": str(folder / "audit.jsonl")},
        "session": {"log_directory": str(folder / "sessions"), "repository": "file"},
        "failover": {"key_disable_seconds": 1, "cooldown_initial_seconds": 1},
    }


def run(
    folder: Path, names: Sequence[str], clients: Sequence[Protocol], models: Sequence[str], *, redact: bool
) -> Watched:
    """All of it through one proxy, which is stopped then, so that everything that was to be written is."""
    login = {"access_token": ACCESS, "refresh_token": REFRESH, "expiry_date": int((time.time() + 86400) * 1000)}
    with upstream_in_thread(say) as provider:
        (folder / "qwen").mkdir()
        (folder / "qwen" / "oauth_creds.json").write_text(json.dumps({**login, "resource_url": provider.url}))
        (folder / "mine.json").write_text(json.dumps(configuration(provider.url, folder, redact)))
        with running(folder, "--config", "mine.json", keyed=False, env={"OPENAI_API_KEY_7": SPARE}) as proxy:
            watched = Watched(folder, proxy, provider)
            everything(watched, names, clients, models)
            watched.seen = shown(watched)
            assert proxy.stop() == 0
        assert provider.requests, "nothing came to the provider"
    return watched


def everything(watched: Watched, names: Sequence[str], clients: Sequence[Protocol], models: Sequence[str]) -> None:
    every = itertools.product(names, clients, models, (False, True))
    for number, (name, client, model, stream) in enumerate(every):
        model = f"{model}{number}"  # of its own, so that no cooldown of an earlier call counts
        watched.provider.script = FAULTS[name]
        more: dict[str, Any] = {"store": False} if client == "openai-responses" else {}
        said = f"{name}: {ALL} {json.dumps(ALL)} {quote(ALL)}"
        watched.ask(path_of(client, model, stream), body_of(client, model, stream, said=said, **more))
    watched.provider.script = FAULTS[names[-1]]
    watched.ask("/v1/embeddings", {"model": models[0], "input": ALL, "user": CLIENT})
    watched.ask("/v1/messages/count_tokens", {"model": "b-anthropic:m", "messages": [{"role": "user", "content": ALL}]})
    for key in (CLIENT, TOKEN):
        watched.ask(f"/v1/chat/completions?key={key}", {"model": f"no-such:{ALL}", "messages": []}, key="")
        watched.ask(f"/v1/nothing?api_key={key}", {"x": ALL}, key="", **{"Authorization": "", "x-api-key": key})
    watched.ask("/v1/chat/completions", b'{"broken": "' + ALL.encode())
    watched.ask(
        "/v1/chat/completions",
        body_of("openai-chat", models[0], said="hi", user=CLIENT),
        **{"User-Agent": f"agent {SPARE}"},
    )
    with socket.create_connection(watched.proxy.main, timeout=10) as connection:
        connection.sendall(f"GET /v1/models?key={CLIENT} HTTP/1.1\r\nbroken {TOKEN}\r\n\r\n".encode())
        watched.errors.append(connection.recv(65536))


def shown(watched: Watched) -> list[bytes]:
    """What pages show, and what the system tells of the process to others."""
    pages = [
        "/internal/config",
        "/internal/backends",
        "/internal/sessions",
        "/internal/sessions/watched",
        "/internal/status",
    ]
    pages += [
        "/internal/routing",
        "/internal/cooldowns",
        "/v1/usage/recent?limit=1000",
        "/v1/usage/stats",
        "/v1/audit/logs?limit=1000",
    ]
    pages += ["/info", "/health", "/openapi.json", "/v1/models"]
    found = [watched.proxy.get(page, key=CLIENT).body for page in pages]
    process = Path("/proc") / str(watched.proxy.child.pid)
    if process.is_dir():
        found.append((process / "cmdline").read_bytes())
        children = [line for path in process.glob("task/*/children") for line in path.read_text().split()]
        found += [Path("/proc", child, name).read_bytes() for child in children for name in ("cmdline", "environ")]
    return found


def assert_watched(watched: Watched) -> None:
    """The places where something could be are not empty: else no hit would mean nothing."""
    folder = watched.folder
    assert "DEBUG" in watched.proxy.log and "watched" in watched.proxy.log
    assert (folder / "capture.jsonl").stat().st_size > 10_000 and (folder / "audit.jsonl").stat().st_size > 1000
    assert list((folder / "sessions").iterdir()) and any(b"***" in body for body in watched.errors)
    bases = [path for path in folder.rglob("*.sqlite3")]
    assert sum(len(sqlite3.connect(base).execute("select name from sqlite_master").fetchall()) for base in bases) > 2


@pytest.mark.parametrize("redact", [True, False], ids=["prompts redacted", "prompts as they are"])
def test_no_canary_is_found_anywhere(tmp_path: Path, redact: bool) -> None:
    watched = run(
        tmp_path,
        SMALL,
        ("openai-chat", "anthropic-messages"),
        (MODELS["openai"], MODELS["gemini"], LOGIN),
        redact=redact,
    )
    assert_watched(watched)
    assert hits(watched) == []
    sent = b"".join(request.body for request in watched.provider.requests)
    assert [value for value in CANARIES if value.encode() in sent] == ([] if redact else list(CANARIES))


@pytest.mark.long
@pytest.mark.parametrize("redact", [True, False], ids=["prompts redacted", "prompts as they are"])
@pytest.mark.parametrize("client", PROTOCOLS)
def test_no_canary_is_found_after_any_fault(tmp_path: Path, client: Protocol, redact: bool) -> None:
    watched = run(tmp_path, tuple(FAULTS), (client,), (*MODELS.values(), LOGIN), redact=redact)
    assert_watched(watched)
    assert hits(watched) == []
