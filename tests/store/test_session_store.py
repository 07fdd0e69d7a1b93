"""SES-02 to SES-04 on every engine: in memory, in a file, in Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from llm_proxy.store.session_file import SessionFile
from llm_proxy.store.session_redis import SessionRedis
from llm_proxy.store.sessions import SessionBacking, Sessions, StoredSession
from llm_proxy.wire.secrets import Secret
from tests.store.support import START, Clock, Engine, entry, running_redis, use


def _engine(name: str, folder: Path) -> Iterator[Engine]:
    match name:
        case "in_memory":
            yield Engine("in_memory", lambda: None)
        case "file":
            yield Engine("file", lambda: SessionFile(folder / "data"))
        case _:
            with running_redis() as server:
                yield Engine("redis", lambda: SessionRedis(server.url, patience=10, clock=Clock()))


@pytest.fixture(params=["in_memory", "file", "redis"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    yield from _engine(request.param, tmp_path)


@pytest.fixture(params=["file", "redis"])
def durable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """The engines whose sessions outlive the process."""
    yield from _engine(request.param, tmp_path)


def backing_of(engine: Engine) -> SessionBacking:
    backing = engine.make()
    assert backing is not None
    return backing


async def test_parallel_requests_of_a_session_share_one_object_and_count_to_20(engine: Engine) -> None:
    sessions = engine.sessions(Clock())

    async def request() -> int:
        session = await sessions.open("a", "s")
        await asyncio.sleep(0)
        session.totals.requests += 1
        session.touch()
        sessions.release(session)
        return id(session)

    assert len(set(await asyncio.gather(*(request() for _ in range(20))))) == 1
    session = sessions.peek("a", "s")
    assert session is not None and session.totals.requests == 20
    await sessions.close()


async def test_the_same_id_in_two_scopes_is_two_sessions(engine: Engine) -> None:
    sessions = engine.sessions(Clock())
    await use(sessions, "a", "b:c", model="one")
    await use(sessions, "a:b", "c", model="two")
    await use(sessions, "b", "c", model="three")
    for scope, id, model in (("a", "b:c", "one"), ("a:b", "c", "two"), ("b", "c", "three")):
        session = await sessions.look(scope, id)
        assert session is not None and session.values == {"model": model}
    assert [session.id for session in await sessions.list("a")] == ["b:c"]
    assert len(await sessions.list(None)) == 3
    await sessions.close()


async def test_after_a_restart_model_project_and_history_are_back(durable: Engine) -> None:
    sessions = durable.sessions(Clock())
    session = await sessions.open("a", "s")
    session.choose("model", "gpt-5")
    session.choose("project", "p")
    for number in range(45):
        session.exchanges.add(entry(number))
    session.totals.prompt = 7
    session.marks["vault"] = {"k": [1, 2.5, "x"]}
    session.touch()
    sessions.release(session)
    await sessions.close()

    again = durable.sessions(Clock())
    found = await again.open("a", "s")
    assert found.values == {"model": "gpt-5", "project": "p"}
    assert list(found.exchanges) == [entry(number) for number in range(45)]
    assert found.totals.prompt == 7
    assert found.marks == {"vault": {"k": [1, 2.5, "x"]}}
    assert found.created == START
    assert not found.changed
    again.release(found)
    await again.close()


async def test_in_memory_sessions_are_empty_after_a_restart() -> None:
    engine = Engine("in_memory", lambda: None)
    sessions = engine.sessions(Clock())
    await use(sessions, "a", "s", model="m")
    await sessions.close()
    found = await engine.sessions(Clock()).open("a", "s")
    assert found.values == {}


async def test_two_that_open_a_stored_session_at_once_get_one_object(durable: Engine) -> None:
    sessions = durable.sessions(Clock())
    await use(sessions, "a", "s", model="m")
    await sessions.close()

    again = durable.sessions(Clock())
    first, second, third = await asyncio.gather(*(again.open("a", "s") for _ in range(3)))
    assert first is second is third
    assert first.values == {"model": "m"}
    await again.close()


async def test_a_request_that_leaves_while_its_session_is_loaded_takes_it_from_nobody(durable: Engine) -> None:
    sessions = durable.sessions(Clock())
    await use(sessions, "a", "s", model="m")
    await sessions.close()

    again = durable.sessions(Clock())
    leaving = asyncio.create_task(again.open("a", "s"))
    staying = asyncio.create_task(again.open("a", "s"))
    await asyncio.sleep(0)
    leaving.cancel()
    session = await staying
    assert session.values == {"model": "m"}
    again.release(session)
    assert again.peek("a", "s") is session
    await again.close()


async def test_what_changes_after_a_restart_is_kept_over_the_next_one(durable: Engine) -> None:
    for number in range(3):
        sessions = durable.sessions(Clock())
        session = await sessions.open("a", "s")
        assert session.totals.requests == number
        session.totals.requests += 1
        session.touch()
        sessions.release(session)
        await sessions.close()


async def test_an_ended_session_leaves_nothing(durable: Engine) -> None:
    sessions = durable.sessions(Clock())
    ended: list[str] = []
    sessions.on_end.append(lambda session: ended.append(session.id))
    await use(sessions, "a", "s", model="m")
    assert await sessions.end("a", "s")
    assert not await sessions.end("a", "s")
    assert ended == ["s"]
    await use(sessions, "a", "kept", model="k")
    await sessions.close()

    again = durable.sessions(Clock())
    assert await again.look("a", "s") is None
    assert [session.id for session in await again.list("a")] == ["kept"]
    await again.close()


async def test_a_stored_session_can_be_ended_and_listed_without_being_used(durable: Engine) -> None:
    sessions = durable.sessions(Clock())
    await use(sessions, "a", "s", model="m")
    await sessions.close()

    clock = Clock(START + 10)
    again = durable.sessions(clock)
    looked = await again.look("a", "s")
    assert looked is not None and looked.last_used == START
    assert [session.last_used for session in await again.list(None)] == [START]
    assert again.peek("a", "s") is None
    assert await again.end("a", "s")
    assert await again.list(None) == []
    assert (await again.open("a", "s")).values == {}
    await again.close()


async def test_a_session_that_ended_by_age_is_not_brought_back_by_a_restart(durable: Engine) -> None:
    sessions = durable.sessions(Clock(), expiry_seconds=100)
    await use(sessions, "a", "s", model="m")
    await sessions.close()

    late = durable.sessions(Clock(START + 100), expiry_seconds=100)
    assert await late.list(None) == []
    assert (await late.open("a", "s")).values == {}
    await late.close()


async def test_secrets_are_never_stored(durable: Engine, tmp_path: Path) -> None:
    sessions = durable.sessions(Clock(), never_stored=("upstream-key",))
    session = await sessions.open("a", "s")
    session.choose("upstream-key", "canary-4711-canary")
    session.choose("model", "m")
    session.marks["room"] = {"secret": Secret("canary-4712-canary")}
    session.values["other"] = Secret("canary-4713-canary")
    sessions.release(session)
    assert session.values["upstream-key"] == "canary-4711-canary"
    await sessions.close()

    backing = backing_of(durable)
    (value,) = await backing.newest(None, 10)
    assert b"canary" not in value
    await backing.close()
    assert not any(b"canary" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    again = durable.sessions(Clock())
    assert (await again.open("a", "s")).values == {"model": "m"}
    await again.close()


async def test_what_cannot_be_written_down_costs_no_request(durable: Engine, caplog: pytest.LogCaptureFixture) -> None:
    sessions = durable.sessions(Clock())
    await use(sessions, "a", "s", model="\ud800")
    await use(sessions, "a", "huge", number=1 << 80)
    await use(sessions, "a", "fine", model="m")
    session = sessions.peek("a", "s")
    assert session is not None and session.values == {"model": "\ud800"}
    await sessions.close()
    assert "session s cannot be saved" in caplog.text
    again = durable.sessions(Clock())
    assert (await again.open("a", "fine")).values == {"model": "m"}
    await again.close()


async def test_unknown_fields_of_another_version_are_ignored(durable: Engine) -> None:
    await _put(durable, "s", {"created": START, "last_used": START, "values": {"model": "m"}, "tomorrow": [1]})
    sessions = durable.sessions(Clock())
    assert (await sessions.open("a", "s")).values == {"model": "m"}
    await sessions.close()


@pytest.mark.parametrize("value", [b"\xc1 nonsense", msgspec.msgpack.encode({"id": 5}), b""])
async def test_an_unreadable_session_begins_anew_with_a_log_line(
    durable: Engine, caplog: pytest.LogCaptureFixture, value: bytes
) -> None:
    await _put(durable, "s", value)
    sessions = durable.sessions(Clock())
    assert [session.id for session in await sessions.list("a")] == []
    session = await sessions.open("a", "s")
    assert session.values == {} and session.created == START
    assert "a stored session s is left out" in caplog.text
    await sessions.close()


async def test_a_row_under_the_wrong_name_is_not_believed(durable: Engine) -> None:
    await _put(durable, "s", {"id": "other", "created": START, "last_used": START, "values": {"model": "m"}})
    sessions = durable.sessions(Clock())
    assert (await sessions.open("a", "s")).values == {}
    await sessions.close()


async def _put(engine: Engine, id: str, value: dict[str, object] | bytes) -> None:
    raw = value if isinstance(value, bytes) else msgspec.msgpack.encode({"id": id, "scope": "a"} | value)
    backing = backing_of(engine)
    backing.save(StoredSession("a", id, START, START, START + 1000, raw))
    await backing.close()


class Recorder:
    """A backing that remembers what it was given, to see when something is written."""

    def __init__(self) -> None:
        self.saved: list[StoredSession] = []
        self.deleted: list[str] = []

    async def start(self) -> None:
        return None

    def may_have(self, scope: str, id: str) -> bool:
        return False

    async def load(self, scope: str, id: str) -> bytes | None:
        return None

    async def newest(self, scope: str | None, most: int) -> list[bytes]:
        return []

    def save(self, row: StoredSession) -> None:
        self.saved.append(row)

    def delete(self, scope: str, id: str) -> None:
        self.deleted.append(id)

    def trim(self, used_before: float, created_before: float, most: int) -> None:
        return None

    async def close(self) -> None:
        return None


def recorded(clock: Clock) -> tuple[Recorder, Sessions]:
    recorder = Recorder()
    return recorder, Sessions(clock=clock, expiry_seconds=86_400, max_age=604_800, max_sessions=10, backing=recorder)


async def test_a_change_is_saved_at_the_end_of_its_request_and_mere_use_once_a_minute() -> None:
    clock = Clock()
    recorder, sessions = recorded(clock)
    await use(sessions, "a", "s")
    assert recorder.saved == []
    await use(sessions, "a", "s", model="m")
    assert len(recorder.saved) == 1
    for _ in range(59):
        clock.now += 1
        await use(sessions, "a", "s")
    assert len(recorder.saved) == 1
    clock.now += 1
    await use(sessions, "a", "s")
    assert [row.last_used for row in recorder.saved] == [START, START + 60]


async def test_a_change_can_be_saved_before_a_long_answer_is_complete() -> None:
    recorder, sessions = recorded(Clock())
    session = await sessions.open("a", "s")
    session.choose("model", "m")
    sessions.save(session)
    assert len(recorder.saved) == 1
    sessions.release(session)
    assert len(recorder.saved) == 1


async def test_the_end_saves_the_last_use_and_what_open_requests_changed() -> None:
    clock = Clock()
    recorder, sessions = recorded(clock)
    await use(sessions, "a", "used", model="m")
    clock.now += 30
    await use(sessions, "a", "used")
    session = await sessions.open("a", "open")
    session.choose("model", "k")
    await sessions.close()
    assert [(row.id, row.last_used) for row in recorder.saved] == [
        ("used", START),
        ("open", START + 30),
        ("used", START + 30),
    ]


async def test_a_session_that_the_store_never_saw_is_not_deleted_there() -> None:
    recorder, sessions = recorded(Clock())
    for number in range(20):
        await use(sessions, "a", str(number), **({"model": "m"} if number == 3 else {}))
    assert len(sessions) == 10
    assert recorder.deleted == ["3"]
