"""Corners of OPS-04, OPS-07, OPS-09 and OPS-15 with a running proxy: what clients choose themselves is kept nowhere with a secret in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from llm_proxy.sessions import identity
from tests.e2e.asking import body_of, path_of, say
from tests.e2e.keeping import CHAT, Place, ask, backends, session_ids, session_of, until
from tests.server.process import Proxy
from tests.support.shared import PROTOCOLS, Protocol
from tests.support.upstream import Received, Reply, Upstream, upstream_in_thread

KEY: Final = "sk-proj-0aB1cD2eF3gH4iJ5kL6mN7oP8"
PLAIN: Final = "value-without-a-shape-0042"
SHAPED: Final = "ghp_0123456789abcdefghijABCDEFGHIJ"
SECRETS: Final = (KEY, PLAIN, SHAPED)


def answer(request: Received) -> Reply:
    if request.path.endswith("/embeddings"):
        return Reply.json(
            {"object": "list", "data": [], "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}}
        )
    if request.path.endswith("/models"):
        return Reply.json({"object": "list", "data": []})
    return say(request)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("review")


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with upstream_in_thread(answer) as found:
        yield found


@pytest.fixture(scope="module")
def proxy(folder: Path, upstream: Upstream) -> Iterator[Proxy]:
    place = Place(folder)
    place.write(
        backends=backends(upstream.url, "up"),
        default_backend="up",
        audit={"enabled": True, "file": "audit.jsonl"},
        logging={
            "file": str(folder / "proxy.log"),
            "level": "debug",
            "capture_file": str(folder / "capture.jsonl"),
            "capture_flush_interval": 0.05,
        },
    )
    with place.run(env={"OPENAI_API_KEY": KEY, "ANTHROPIC_API_KEY": PLAIN}) as made:
        yield made


def written(folder: Path, name: str = "*") -> str:
    """All that the proxy keeps in files, databases included."""
    return "".join(path.read_bytes().decode(errors="replace") for path in folder.rglob(name) if path.is_file())


@pytest.mark.parametrize("secret", SECRETS)
def test_a_session_id_that_holds_a_secret_is_kept_as_its_hash(proxy: Proxy, folder: Path, secret: str) -> None:
    given = f"mine-{secret}"
    known = identity.clean(given, lambda text: "")
    for said in ("one", "two"):
        answer = ask(proxy, said, given)
        assert answer.status == 200
        assert answer.headers["x-session-id"] == known
    assert known in session_ids(proxy) and given not in session_ids(proxy)
    assert session_of(proxy, known)["id"] == known
    for name in ("proxy.log", "capture.jsonl", "audit.jsonl"):
        until(lambda name=name: known in written(folder, name), name)  # type: ignore[misc]
    for page in (f"/usage/recent?session_id={known}", f"/audit/logs?session_id={known}"):
        assert len(proxy.get(page).json["data"]) == 2, page
    assert secret not in written(folder)


@pytest.mark.parametrize("client", PROTOCOLS)
def test_a_session_id_of_a_body_or_an_agents_header_is_no_other(proxy: Proxy, folder: Path, client: Protocol) -> None:
    path, known = path_of(client, "m"), identity.clean(f"of-{KEY}", lambda text: "")
    in_body = proxy.post(path, body_of(client, "m", session_id=f"of-{KEY}"))
    in_header = proxy.post(path, body_of(client, "m"), {"session-id": f"of-{KEY}"})
    for answer in (in_body, in_header):
        assert answer.status == 200 and answer.headers["x-session-id"] == known


def test_calls_beside_a_conversation_name_no_secret_either(proxy: Proxy, folder: Path) -> None:
    headers = {"x-session-id": f"beside-{KEY}", "x-request-id": f"req-{KEY}"}
    assert proxy.post("/v1/embeddings", {"model": "m", "input": "a"}, headers).status == 200
    assert proxy.get("/v1/models", headers).status == 200
    assert proxy.post("/v1/nothing", {}, headers).status == 404
    ask(proxy, "the last", "after-them")
    until(lambda: "after-them" in written(folder, "proxy.log"))
    assert KEY not in written(folder)


@pytest.mark.parametrize("secret", SECRETS)
def test_a_request_id_that_holds_a_secret_is_replaced(proxy: Proxy, folder: Path, secret: str) -> None:
    answer = ask(proxy, "hi", "ids", headers={"x-request-id": secret})
    given = answer.headers["x-request-id"]
    assert answer.status == 200 and given.startswith("req_")
    rows = proxy.get("/usage/recent?session_id=ids").json["data"]
    assert given in {row["id"] for row in rows}
    entries = proxy.get("/audit/logs?session_id=ids").json["data"]
    assert given in {entry["request_id"] for entry in entries}
    assert secret not in written(folder)


@pytest.mark.parametrize("secret", SECRETS)
def test_a_project_that_holds_a_secret_is_kept_without_it(proxy: Proxy, folder: Path, secret: str) -> None:
    session = f"project-{SECRETS.index(secret)}"
    assert ask(proxy, "hi", session, headers={"x-project": f"p {secret}"}).status == 200
    assert ask(proxy, f"!/project({secret}) hi", session + "-chat").status == 200
    [entry] = proxy.get(f"/audit/logs?session_id={session}").json["data"]
    [row] = proxy.get(f"/usage/recent?session_id={session}").json["data"]
    assert entry["project"] == row["project"] == "p ***"
    [chosen] = proxy.get(f"/audit/logs?session_id={session}-chat").json["data"]
    assert chosen["project"] == "***"
    until(lambda: f"{session}-chat" in written(folder, "audit.jsonl"))
    assert secret not in written(folder, "audit.jsonl")


def test_half_a_secret_where_a_long_name_is_cut_is_not_kept(proxy: Proxy, folder: Path) -> None:
    user = "u" * 290 + " " + PLAIN
    body = body_of("openai-chat", "m", user=user)
    assert proxy.post(CHAT, body, {"x-session-id": "long-name"}).status == 200
    [row] = proxy.get("/usage/recent?session_id=long-name").json["data"]
    assert row["username"].startswith("uuu") and len(row["username"]) <= 300
    assert PLAIN[:8] not in row["username"]
    assert PLAIN[:8] not in json.dumps(proxy.get("/audit/logs?session_id=long-name").json)
