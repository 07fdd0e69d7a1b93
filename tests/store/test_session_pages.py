"""SES-05: who sees which session on the internal pages, and what is shown of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_proxy.conversation.fault import FaultError
from llm_proxy.server import session_pages
from llm_proxy.store.session_file import SessionFile
from llm_proxy.store.sessions import Sessions
from llm_proxy.wire.redaction import Redactor
from llm_proxy.wire.secrets import Secret
from tests.store.support import START, Clock, entry, use

KEY = Secret("provider-key-canary-4711")


def clean(text: str) -> str:
    return Redactor((KEY,)).clean(text)


@pytest.fixture
async def sessions() -> Sessions:
    clock = Clock()
    made = Sessions(clock=clock, expiry_seconds=100, max_age=1000, max_sessions=99)
    for scope, id in (("a", "one"), ("a", "two"), ("b", "one"), ("b", "three")):
        clock.now += 1
        await use(made, scope, id, model=f"{scope}-{id}", project="p")
    return made


async def ids(sessions: Sessions, scope: str, *, admin: bool = False, asked: str = "") -> list[str]:
    body = await session_pages.listing(sessions, scope, admin, clean=clean, asked=asked)
    assert body["object"] == "list"
    return [f"{row['scope']}/{row['id']}" for row in body["data"]]


async def test_sessions_of_another_key_are_not_listed(sessions: Sessions) -> None:
    assert await ids(sessions, "a") == ["a/two", "a/one"]
    assert await ids(sessions, "nobody") == []


async def test_admins_see_all_or_one_scope(sessions: Sessions) -> None:
    assert await ids(sessions, "admin", admin=True) == ["b/three", "b/one", "a/two", "a/one"]
    assert await ids(sessions, "admin", admin=True, asked="b") == ["b/three", "b/one"]


async def test_others_may_not_ask_for_a_scope(sessions: Sessions) -> None:
    assert await ids(sessions, "a", asked="a") == ["a/two", "a/one"]
    with pytest.raises(FaultError) as raised:
        await ids(sessions, "a", asked="b")
    assert raised.value.fault.status_code == 403


async def test_one_session_shows_its_state_and_its_history(sessions: Sessions) -> None:
    session = sessions.peek("a", "one")
    assert session is not None
    session.exchanges.add(entry(1))
    session.totals.prompt = 5
    session.agent = "codex"
    body = await session_pages.detail(sessions, "a", False, "one", clean=clean)
    assert body["id"] == "one" and body["scope"] == "a" and body["agent"] == "codex"
    assert (body["created"], body["last_used"]) == (START + 1, START + 1)
    assert (body["model"], body["project"], body["backend"]) == ("a-one", "p", None)
    assert body["values"] == {"model": "a-one", "project": "p"}
    assert body["totals"]["prompt"] == 5
    assert [line["prompt"] for line in body["history"]] == ["question 1"]


async def test_looking_is_no_use(sessions: Sessions) -> None:
    before = await ids(sessions, "a")
    await session_pages.detail(sessions, "a", False, "one", clean=clean)
    assert await ids(sessions, "a") == before


@pytest.mark.parametrize("id", ["three", "unknown", "", "../../x", "x" * 1000])
async def test_another_keys_session_is_as_unknown_as_one_that_never_was(sessions: Sessions, id: str) -> None:
    for call in (
        session_pages.detail(sessions, "a", False, id, clean=clean),
        session_pages.end(sessions, "a", False, id),
    ):
        with pytest.raises(FaultError, match="there is no such session") as raised:
            await call
        assert raised.value.fault.status_code == 404
    assert len(sessions) == 4


async def test_delete_ends_one_session_with_its_state(sessions: Sessions) -> None:
    ended: list[tuple[str, str]] = []
    sessions.on_end.append(lambda session: ended.append((session.scope, session.id)))
    body = await session_pages.end(sessions, "a", False, "one")
    assert body == {"object": "session.deleted", "id": "one", "deleted": True}
    assert ended == [("a", "one")]
    assert await ids(sessions, "x", admin=True) == ["b/three", "b/one", "a/two"]
    with pytest.raises(FaultError, match="no such session"):
        await session_pages.end(sessions, "a", False, "one")


async def test_an_admin_says_which_of_two_sessions_of_one_id_is_meant(sessions: Sessions) -> None:
    body = await session_pages.detail(sessions, "admin", True, "three", clean=clean)
    assert body["scope"] == "b"
    with pytest.raises(FaultError, match=r"\?scope=") as raised:
        await session_pages.end(sessions, "admin", True, "one")
    assert raised.value.fault.status_code == 400
    assert (await session_pages.end(sessions, "admin", True, "one", asked="b"))["deleted"]
    assert (await session_pages.detail(sessions, "b", True, "three", clean=clean))["scope"] == "b"


async def test_values_show_no_secret(sessions: Sessions) -> None:
    await use(
        sessions,
        "a",
        "one",
        **{
            "openai-url": "https://me:canary-pass@host.example:8443/v1?key=canary-query#canary",
            "key": Secret("canary-secret-value"),
            "config": {"inner": [f"x {KEY.reveal()}", 1, None, True, 0.5]},
            "broken": "http://[canary",
            "path": Path("/x"),
        },
    )
    body = await session_pages.detail(sessions, "a", False, "one", clean=clean)
    assert body["values"]["openai-url"] == "https://host.example:8443/v1"
    assert body["values"]["config"] == {"inner": ["x ***", 1, None, True, 0.5]}
    assert body["values"]["path"] == "/x"
    assert "canary" not in repr(body)


async def test_stored_sessions_of_an_earlier_run_are_shown_too(tmp_path: Path) -> None:
    def make() -> Sessions:
        return Sessions(clock=Clock(), expiry_seconds=100, max_age=1000, max_sessions=99, backing=SessionFile(tmp_path))

    sessions = make()
    await use(sessions, "a", "old", model="m")
    await sessions.close()
    again = make()
    await use(again, "a", "new", model="k")
    assert sorted(await ids(again, "a")) == ["a/new", "a/old"]
    assert (await session_pages.detail(again, "a", False, "old", clean=clean))["model"] == "m"
    assert (await session_pages.end(again, "a", False, "old"))["deleted"]
    assert await ids(again, "a") == ["a/new"]
    await again.close()
