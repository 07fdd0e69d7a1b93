"""OPS-15: what the response cache keeps and for how long: TTL, number and bytes, the least recently used out first."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from llm_proxy.server.http import Incoming
from llm_proxy.server.response_cache import Kept, ResponseCache, Wishes, is_complete


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def made(clock: Clock, **more: float) -> ResponseCache:
    values = {"ttl": 1.0, "max_entries": 3, "max_bytes": 1_000_000, **more}
    return ResponseCache(
        ttl=values["ttl"], max_entries=int(values["max_entries"]), max_bytes=int(values["max_bytes"]), clock=clock
    )


def test_given_ttl_1_and_2_s_then_miss() -> None:
    clock = Clock()
    cache = made(clock)
    cache.put(b"a", Kept(b"answer"))
    clock.now += 0.9
    assert cache.get(b"a") == Kept(b"answer")
    clock.now += 1.1
    assert cache.get(b"a") is None
    assert (len(cache), cache.bytes) == (0, 0)


def test_the_least_recently_used_goes_first() -> None:
    cache = made(Clock())
    for key in (b"a", b"b", b"c"):
        cache.put(key, Kept(key))
    cache.get(b"a")
    cache.put(b"d", Kept(b"d"))
    assert [key for key in (b"a", b"b", b"c", b"d") if cache.get(key)] == [b"a", b"c", b"d"]


def test_the_size_is_bounded_and_what_is_too_large_is_not_kept() -> None:
    cache = made(Clock(), max_entries=1000, max_bytes=10_000)
    for number in range(100):
        cache.put(b"%d" % number, Kept(b"x" * 1000))
        assert cache.bytes <= 10_000
    kept = len(cache)
    assert kept > 3
    cache.put(b"large", Kept(b"x" * 10_001))
    assert cache.get(b"large") is None and len(cache) == kept


def test_a_newer_answer_too_large_to_keep_leaves_no_older_one() -> None:
    cache = made(Clock(), max_bytes=10_000)
    cache.put(b"a", Kept(b"older"))
    cache.put(b"a", Kept(b"x" * 20_000))
    assert cache.get(b"a") is None


class Model(RuleBasedStateMachine):
    """A list of (key, value, end), oldest use first, is the oracle."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.cache = made(self.clock, ttl=10, max_entries=4, max_bytes=4000)
        self.expected: list[tuple[bytes, Kept, float]] = []

    keys = st.sampled_from([b"a", b"b", b"c", b"d", b"e", b"f"])

    @rule(key=keys, size=st.integers(0, 4000))
    def put(self, key: bytes, size: int) -> None:
        kept = Kept(b"x" * size)
        self.cache.put(key, kept)
        self.expected = [one for one in self.expected if one[0] != key]
        if kept.size <= 4000:
            self.expected.append((key, kept, self.clock.now + 10))
        while len(self.expected) > 4 or sum(one[1].size for one in self.expected) > 4000:
            self.expected.pop(0)

    @rule(key=keys)
    def get(self, key: bytes) -> None:
        found = next((one for one in self.expected if one[0] == key), None)
        if found is not None:
            self.expected.remove(found)
            if found[2] > self.clock.now:
                self.expected.append(found)
            else:
                found = None
        assert self.cache.get(key) == (found[1] if found else None)

    @rule(seconds=st.integers(1, 8))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @invariant()
    def bounds_hold(self) -> None:
        assert len(self.cache) == len(self.expected) <= 4
        assert self.cache.bytes == sum(one[1].size for one in self.expected) <= 4000


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize(
    ("values", "wishes"),
    [
        ([], Wishes()),
        ([b"no-cache"], Wishes(read=False)),
        ([b"max-age=0, No-Cache "], Wishes(read=False)),
        ([b"no-store"], Wishes(read=False, write=False)),
        ([b"max-age=0", b"no-store"], Wishes(read=False, write=False)),
        ([b"public, no-cacheable"], Wishes()),
    ],
)
def test_cache_control_of_the_client(values: list[bytes], wishes: Wishes) -> None:
    async def receive() -> dict[str, object]:
        raise AssertionError("headers need no body")

    headers = [(b"cache-control", value) for value in values]
    scope = {"method": "POST", "path": "/", "headers": headers}
    assert Wishes.of(Incoming(scope, receive)) == wishes


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"choices":[]}', b'{"choices":7}', b'{"choices":[{}]}', b'{"candidates":[null]}', b"\xff"]
)  # fmt: skip
@pytest.mark.parametrize("protocol", ["openai-chat", "openai-responses", "anthropic-messages", "gemini", "other"])
def test_what_is_no_answer_is_not_complete(protocol: str, body: bytes) -> None:
    assert not is_complete(protocol, body)
