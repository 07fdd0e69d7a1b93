"""SES-03, repository `redis`: its keys, and that a server that is away or silent holds nobody up."""

from __future__ import annotations

import asyncio
import builtins
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis as client_library

from llm_proxy.store.session_redis import SessionRedis, key_of
from llm_proxy.store.sessions import Sessions, StoreUnusable
from tests.store.support import RedisServer, running_redis, until, use


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis() as started:
        yield started


def make(url: str, *, patience: float = 10, rest: float = 0.01, expiry: float = 100) -> tuple[SessionRedis, Sessions]:
    backing = SessionRedis(url, patience=patience, rest_seconds=rest)
    return backing, Sessions(clock=time.time, expiry_seconds=expiry, max_age=1000, max_sessions=99, backing=backing)


def ask(server: RedisServer) -> client_library.Redis:
    return client_library.Redis(port=server.port, protocol=2)


async def test_keys_are_named_by_scope_and_id_and_expire(server: RedisServer) -> None:
    _, sessions = make(server.url)
    await use(sessions, "scope", "id-1", model="m")
    await sessions.close()
    with ask(server) as redis:
        assert redis.keys("*") == [b"llmproxy:session:scope:id-1"]
        assert 100 <= int(redis.ttl("llmproxy:session:scope:id-1")) <= 161


def test_scope_and_id_never_run_into_each_other() -> None:
    assert key_of("a", "b:c") != key_of("a:b", "c")
    assert key_of("2001:db8::1", "x") == "llmproxy:session:2001%3Adb8%3A%3A1:x"
    assert "*" not in key_of("*", "") and "[" not in key_of("[a]", "")


async def test_an_ended_session_has_no_key(server: RedisServer) -> None:
    backing, sessions = make(server.url)
    await use(sessions, "a", "s", model="m")
    await backing.flush()
    await sessions.end("a", "s")
    await sessions.close()
    with ask(server) as redis:
        assert redis.keys("*") == []


async def test_stopped_during_a_run_requests_go_on_and_sessions_work(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "llm_proxy")
    backing, sessions = make(server.url)
    await use(sessions, "a", "before", model="m")
    await backing.flush()
    server.stop()
    for number in range(20):
        await use(sessions, "a", "before", number=number)
        await use(sessions, "a", f"new-{number}", model="k")
    assert (await sessions.open("a", "before")).values == {"model": "m", "number": 19}
    assert (await sessions.open("a", "new-3")).values == {"model": "k"}
    assert len(await sessions.list("a")) == 21
    await until(lambda: "cannot be used" in caplog.text)

    server.start()
    await until(lambda: "written to Redis again" in caplog.text)
    await sessions.close()
    assert [record.levelno for record in caplog.records].count(logging.WARNING) == 1

    _, again = make(server.url)
    assert (await again.open("a", "before")).values == {"model": "m", "number": 19}
    assert (await again.open("a", "new-3")).values == {"model": "k"}
    await again.close()


async def test_a_silent_server_is_waited_for_once_and_then_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        backing, sessions = make(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", patience=0.05, rest=60)
        await asyncio.gather(*(use(sessions, "a", str(number)) for number in range(50)))
        asking = len(backing._asking)
        await use(sessions, "a", "later")
        assert asking == 50 and len(backing._asking) == 50
        assert len(sessions) == 51
        assert "cannot be used (TimeoutError)" in caplog.text
        await sessions.close()


async def test_a_key_of_another_type_is_no_session(server: RedisServer) -> None:
    with ask(server) as redis:
        redis.lpush(key_of("a", "s"), "x")
    _, sessions = make(server.url)
    assert (await sessions.open("a", "s")).values == {}
    await use(sessions, "a", "s", model="m")
    await sessions.close()
    _, again = make(server.url)
    assert (await again.open("a", "s")).values == {"model": "m"}
    await again.close()


@pytest.mark.parametrize("url", [None, ""])
async def test_without_an_address_the_start_says_which_option_is_missing(url: str | None) -> None:
    with pytest.raises(StoreUnusable, match=r"session\.redis_url"):
        SessionRedis(url)


@pytest.mark.parametrize(
    "url", ["not an address", "http://:canary-password@host", "redis://:canary-password@host:port"]
)
async def test_a_wrong_address_is_named_without_its_password(url: str) -> None:
    with pytest.raises(StoreUnusable, match=r"session\.redis_url") as raised:
        SessionRedis(url)
    assert "canary" not in str(raised.value)


async def test_without_the_library_the_start_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.partition(".")[0] == "redis":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(StoreUnusable, match=r"pip install 'llm-interactive-proxy\[redis\]'"):
        SessionRedis("redis://127.0.0.1/0")
