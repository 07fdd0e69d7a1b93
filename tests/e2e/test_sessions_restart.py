"""SES-02, SES-03: what a session holds after the proxy was stopped, or killed, and started again."""

from __future__ import annotations

import http.client
import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.asking import say
from tests.e2e.keeping import Place, ask, backends, session_ids, session_of, told, until
from tests.server.process import KEY, Proxy
from tests.support.upstream import Upstream, upstream_in_thread

TURNS: Final = 5


@pytest.fixture(scope="module")
def provider() -> Iterator[Upstream]:
    with upstream_in_thread(say) as upstream:
        yield upstream


@pytest.fixture
def place(tmp_path: Path, provider: Upstream) -> Place:
    provider.forget()
    return Place(tmp_path)


def kept(place: Place, provider: Upstream, repository: str, **session: Any) -> None:
    place.write(
        backends=backends(provider.url, "one", "two"),
        default_backend="one",
        session={"repository": repository, **session},
    )


def database(place: Place) -> Path:
    return place.folder / "data" / "sessions.sqlite3"


def without_life(shown: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in shown.items() if key != "last_used"}


def lived(proxy: Proxy, id: str = "s") -> dict[str, Any]:
    """A session in which something happened; what is shown of it."""
    told(proxy, '!/set(project="my project", model=two:chosen, temperature=0.5)', id)
    told(proxy, "the first question", id)
    told(proxy, "!/oneoff(one:once)", id)
    return session_of(proxy, id)


def test_model_project_and_history_are_back_after_a_restart(place: Place, provider: Upstream) -> None:
    """given `file` and a restart, then model, project and history of a session are back."""
    kept(place, provider, "file")
    with place.run() as proxy:
        before = lived(proxy)
    with place.run() as proxy:
        assert session_ids(proxy) == {"s"}
        assert without_life(session_of(proxy, "s")) == without_life(before)
        assert (before["project"], before["one_off"]) == ("my project", "one:once") and len(before["history"]) == 3
        provider.forget()
        told(proxy, "again", "s")
        told(proxy, "and again", "s")
        once, then = provider.requests
        assert (once.path, once.json["model"]) == ("/one/v1/chat/completions", "once")
        assert (then.path, then.json["model"], then.json["temperature"]) == ("/two/v1/chat/completions", "chosen", 0.5)
        shown = session_of(proxy, "s")
        assert [entry["prompt"] for entry in shown["history"]][-3:] == ["!/oneoff(one:once)", "again", "and again"]


def test_a_derived_session_is_found_again_after_a_restart(place: Place, provider: Upstream) -> None:
    kept(place, provider, "file")
    with place.run() as proxy:
        opened = ask(proxy, "!/set(project=a)")
    reply = opened.json["choices"][0]["message"]["content"]
    history = [
        {"role": "user", "content": "!/set(project=a)"},
        {"role": "assistant", "content": reply},
        {"role": "user", "content": "hi"},
    ]
    with place.run() as proxy:
        then = ask(proxy, "", messages=history)
        assert then.headers["x-session-id"] == opened.headers["x-session-id"]
        assert session_of(proxy, then.headers["x-session-id"])["project"] == "a"
    assert [message["content"] for message in provider.requests[-1].json["messages"]] == ["hi"]


def test_the_same_id_under_two_keys_stays_two_sessions_after_a_restart(place: Place, provider: Upstream) -> None:
    keys = {"ann": "key-of-ann-0001", "bob": "key-of-bob-0001"}
    place.write(
        backends=backends(provider.url, "one"), auth={"api_keys": keys}, session={"repository": "file"}
    )  # fmt: skip
    with place.run(keyed=False) as proxy:
        for name, key in keys.items():
            told(proxy, f"!/model(of-{name})", key=key)
    with place.run(keyed=False) as proxy:
        for name, key in keys.items():
            told(proxy, "hi", key=key)
            assert provider.requests[-1].json["model"] == f"of-{name}"
            assert [entry["model"] for entry in session_of(proxy, "s", key=key)["history"]][-1] == f"of-{name}"


def test_a_session_that_was_ended_stays_away(place: Place, provider: Upstream) -> None:
    kept(place, provider, "file")
    with place.run() as proxy:
        lived(proxy)
        assert proxy.request("DELETE", "/internal/sessions/s").status == 200
    with place.run() as proxy:
        assert session_ids(proxy) == set()
        told(proxy, "hi", "s")
        assert provider.requests[-1].json["model"] == "m"


def test_a_kill_during_writes_leaves_a_whole_file(place: Place, provider: Upstream) -> None:
    """given kill -9 during writes, then the file opens and passes its integrity check."""
    kept(place, provider, "file")
    with place.run() as proxy:
        lived(proxy, "early")

        def saved() -> bool:
            files = database(place).parent.glob("sessions.sqlite3*")
            return any(b"the first question" in path.read_bytes() for path in files)

        until(saved, "the first session on disk")
        with ThreadPoolExecutor(8) as pool:
            running = [pool.submit(_ask_until_killed, proxy, f"s{n}") for n in range(8)]
            until(lambda: len(provider.requests) > 100, "some traffic")
            proxy.stop(signal.SIGKILL)
            asked = [future.result() for future in running]
    assert sum(asked) > 50
    with closing(sqlite3.connect(database(place))) as file:
        assert file.execute("pragma integrity_check").fetchall() == [("ok",)]
    with place.run() as proxy:
        assert not list(database(place).parent.glob("*.bad"))
        early = session_of(proxy, "early")
        assert (early["project"], early["model"], len(early["history"])) == ("my project", "chosen", 3)
        for id in session_ids(proxy) - {"early"}:
            project = session_of(proxy, id)["project"]
            assert project is None or project.startswith(f"{id} turn ")
        told(proxy, "hi", "early")


def _ask_until_killed(proxy: Proxy, id: str) -> int:
    for n in range(10_000):
        try:
            ask(proxy, f'!/set(project="{id} turn {n}") and more', id)
        except (OSError, http.client.HTTPException):  # no connection, or half an answer
            return n
    raise AssertionError("nobody killed it")


def test_a_damaged_file_costs_the_sessions_and_not_the_start(place: Place, provider: Upstream) -> None:
    """Corrupt SQLite file is renamed `.bad`."""
    kept(place, provider, "file")
    with place.run() as proxy:
        lived(proxy)
    database(place).write_bytes(b"this is no database" * 400)
    with place.run() as proxy:
        told(proxy, "!/set(project=new)", "s")
        assert session_of(proxy, "s")["project"] == "new"
        assert list(database(place).parent.glob("*.bad"))
    with place.run() as proxy:
        assert session_of(proxy, "s")["project"] == "new"


def test_in_memory_sessions_are_empty_after_a_restart_and_what_is_for_all_is_there(
    place: Place, provider: Upstream
) -> None:
    """given `in_memory` and a restart, then sessions are empty, saved P state is there."""
    kept(place, provider, "in_memory")
    with place.run() as proxy:
        lived(proxy)
        told(proxy, "!/set(default-backend=two)")
    with place.run() as proxy:
        assert session_ids(proxy) == set()
        provider.forget()
        told(proxy, "hi", "s")
        assert (provider.requests[-1].path, provider.requests[-1].json["model"]) == ("/two/v1/chat/completions", "m")
    assert not database(place).exists()


def test_a_chosen_back_end_that_vanished_is_dropped_with_a_note(place: Place, provider: Upstream) -> None:
    """given a stored model of a removed back-end, then the default is used and the log says so."""
    kept(place, provider, "file")
    with place.run() as proxy:
        told(proxy, "!/backend(two)", "s")
    place.write(backends=backends(provider.url, "one"), session={"repository": "file"})
    with place.run() as proxy:
        told(proxy, "hi", "s")
        assert provider.requests[-1].path.startswith("/one/")
    assert "back end two is no longer configured" in proxy.log


def test_neither_the_clients_key_nor_its_servers_key_is_stored(place: Place, provider: Upstream) -> None:
    """`openai_url` client keys and secrets are never stored."""
    kept(place, provider, "file")
    with place.run() as proxy:
        told(proxy, f"!/openai-url({provider.url}/mine/v1)", "s")
        sent = {"x-llm-proxy-upstream-key": "sk-canary-upstream-0001"}
        assert ask(proxy, "hi", "s", headers=sent).status == 200
        assert provider.requests[-1].path.startswith("/mine/")
        assert provider.requests[-1].header("authorization") == "Bearer sk-canary-upstream-0001"
    for path in (place.folder / "data").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"canary" not in content and KEY.encode() not in content, path


def test_twenty_parallel_requests_of_a_session_are_all_counted(place: Place, provider: Upstream) -> None:
    """given 20 parallel requests in a session, then no exception and counters equal 20."""
    kept(place, provider, "file")
    with place.run() as proxy:
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda n: ask(proxy, f"question {n}", "s").status, range(20)))
        assert answers == [200] * 20
    with place.run() as proxy:
        shown = session_of(proxy, "s")
        assert shown["totals"]["requests"] == 20
        assert {entry["prompt"] for entry in shown["history"]} == {f"question {n}" for n in range(20)}
