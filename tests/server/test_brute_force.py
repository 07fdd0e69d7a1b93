"""Guessing keys is slow (OPS-02, S-13): counting by a clock of the test, and the answers of the application."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest

from llm_proxy.config import ConfigError, load_settings
from llm_proxy.config.access import BruteForceOptions
from llm_proxy.conversation.fault import FaultError
from llm_proxy.option_groups import GROUPS
from llm_proxy.server.access import Access, ClientKey
from llm_proxy.server.brute_force import MOST_FAILURES, MOST_SITES, BruteForce
from llm_proxy.server.client_address import Senders
from llm_proxy.server.http import Incoming
from llm_proxy.wire.secrets import Secret
from tests.server.process import KEY, running
from tests.server.test_paths import CHAT, GEMINI, MESSAGES, RESPONSES, assert_error

STRANGER = "10.0.0.9"
BYPASS = ("/docs", "/health")


class Clock:
    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


def options(**changed: object) -> BruteForceOptions:
    made: dict[str, object] = {option.name: option.default for option in BruteForceOptions.options}
    return BruteForceOptions(**(made | changed))  # type: ignore[arg-type]


class Door:
    """`Access` as the application uses it, with one key, and a clock."""

    def __init__(self, senders: Senders | None = None, **changed: object) -> None:
        self.clock = Clock()
        self.guard = BruteForce(self.clock, options(**changed))
        keys = [ClientKey("only", Secret(KEY))]
        self.access = Access(keys, None, BYPASS, senders=senders or Senders(), guard=self.guard)

    def knock(
        self,
        key: str | None,
        peer: str = STRANGER,
        path: str = "/v1/models",
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> int | tuple[int, int]:
        """200, 401, or 429 with the seconds after which to try again."""
        carried = [(b"authorization", f"Bearer {key}".encode())] if key is not None else []
        scope = {"method": "GET", "path": path, "headers": [*carried, *headers], "client": (peer, 1)}

        async def receive() -> dict[str, object]:
            raise AssertionError("no body is read")

        incoming = Incoming(scope, receive)
        self.access.identify(incoming)
        try:
            self.access.turn_away(incoming)
            if not self.access.open_to_all(path):
                self.access.admit(incoming)
        except FaultError as error:
            if error.fault.status_code != 429:
                return error.fault.status_code
            assert error.fault.details is not None
            return 429, error.fault.details["retry_after_seconds"]
        return 200

    def guess(self, times: int, peer: str = STRANGER) -> list[int | tuple[int, int]]:
        return [self.knock(f"guess-{number}", peer) for number in range(times)]

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds


def test_after_five_wrong_keys_the_sixth_request_is_429_for_30_seconds() -> None:
    door = Door()
    assert door.guess(5) == [401] * 5
    assert door.knock("guess-6") == (429, 30)
    door.wait(29.5)
    assert door.knock("guess-7") == (429, 1)


def test_each_wrong_key_after_a_block_begins_one_of_twice_the_length_up_to_the_longest() -> None:
    door = Door()
    door.guess(5)
    length = 30
    for expected in (60, 120, 240, 480, 960, 1920, 3600, 3600):
        door.wait(length)
        assert door.knock("again") == 401
        assert door.knock("again") == (429, expected)
        length = expected


def test_what_comes_during_a_block_does_not_lengthen_it() -> None:
    door = Door()
    door.guess(5)
    door.guess(1, "10.0.0.10")
    assert door.guard.facts() == {"addresses_with_wrong_keys": 2, "blocked_addresses": 1}
    for left in range(30, 0, -1):
        assert door.knock("more") == (429, left)
        door.wait(1)
    assert door.knock(KEY) == 200


def test_four_wrong_and_one_right_make_the_count_zero() -> None:
    door = Door()
    for _ in range(3):
        assert door.guess(4) == [401] * 4
        assert door.knock(KEY) == 200
        assert len(door.guard) == 0
    assert door.guess(5) == [401] * 5
    assert door.knock(KEY) == (429, 30)


@pytest.mark.parametrize("headers", [(), ((b"authorization", b"Basic x"),), ((b"authorization", b"Bearer "),)])
def test_requests_without_a_key_are_only_401(headers: Sequence[tuple[bytes, bytes]]) -> None:
    door = Door()
    assert [door.knock(None, headers=headers) for _ in range(100)] == [401] * 100
    assert len(door.guard) == 0


def test_every_carrier_counts_as_one_and_the_same() -> None:
    door = Door()
    for name in (b"x-api-key", b"x-goog-api-key", b"api-key", b"x-auth-token"):
        assert door.knock(None, headers=[(name, b"wrong-key-1")]) == 401
    assert door.knock("both", headers=[(b"x-auth-token", b"wrong-key-1")]) == 401
    assert door.knock(None) == (429, 30)


def test_a_right_key_while_blocked_is_429() -> None:
    door = Door()
    door.guess(5)
    assert door.knock(KEY) == (429, 30)
    assert door.knock(KEY, peer="10.0.0.10") == 200


def test_with_valid_keys_pass_a_right_key_ends_the_block() -> None:
    door = Door(valid_keys_pass=True)
    door.guess(5)
    assert door.knock("wrong") == (429, 30)
    assert door.knock(KEY) == 200
    assert door.knock("wrong") == 401


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_from_loopback_a_right_key_always_ends_the_block(peer: str) -> None:
    door = Door()
    door.guess(5, peer)
    assert door.knock("wrong", peer) == (429, 30)
    assert door.knock(None, peer) == (429, 30)
    assert door.knock(KEY, peer) == 200
    assert door.knock("wrong", peer) == 401


def test_bypass_paths_are_served_while_blocked() -> None:
    door = Door()
    door.guess(5)
    assert door.knock(None, path="/docs") == 200
    assert door.knock(None, path="/health/") == 200
    assert door.knock(None, path="/v1/models") == (429, 30)


def test_trusted_addresses_are_exempt() -> None:
    door = Door(Senders(["10.0.0.0/8"]))
    assert [door.knock("wrong") for _ in range(20)] == [200] * 20
    assert len(door.guard) == 0


def test_with_authentication_off_nothing_is_counted() -> None:
    clock = Clock()
    guard = BruteForce(clock, options())
    access = Access([], None, BYPASS, disabled=True, guard=guard)
    door = Door()
    door.access, door.guard = access, guard
    assert [door.knock("wrong", "127.0.0.1") for _ in range(20)] == [200] * 20
    assert len(guard) == 0


def test_wrong_keys_count_together_within_the_time_window_only() -> None:
    door = Door()
    for _ in range(20):  # never five within 900 seconds
        assert door.knock("slowly") == 401
        door.wait(225)
    assert door.knock("slowly") == 401
    door.wait(100)
    assert door.knock("faster") == 401
    assert door.knock("faster") == (429, 30)


def test_an_entry_ends_when_its_time_after_the_last_block_is_over() -> None:
    door = Door()
    door.guess(5)
    door.wait(30 + 899)
    assert door.knock("wrong") == 401
    assert door.knock("wrong") == (429, 60)
    door.wait(60 + 900)
    assert door.guess(5) == [401] * 5
    assert door.knock("wrong") == (429, 30)


def test_the_addresses_of_one_ipv6_network_are_one() -> None:
    door = Door()
    for number in range(5):
        assert door.knock("wrong", f"2001:db8:1:2::{number + 1:x}") == 401
    assert door.knock(KEY, "2001:db8:1:2:ffff::1") == (429, 30)
    assert door.knock(KEY, "2001:db8:1:3::1") == 200


def test_an_ipv4_address_is_the_same_in_ipv6_clothes() -> None:
    door = Door()
    door.guess(3, STRANGER)
    door.guess(2, f"::ffff:{STRANGER}")
    assert door.knock(KEY, STRANGER) == (429, 30)


def test_ten_thousand_spoofed_names_of_one_peer_are_one_counter() -> None:
    door = Door()
    answers = [
        door.knock("wrong", headers=[(b"x-forwarded-for", f"192.0.2.{n % 250}, 198.51.100.{n % 250}".encode())])
        for n in range(10_000)
    ]
    assert answers[:5] == [401] * 5
    assert set(answers[5:]) == {(429, 30)}
    assert len(door.guard) == 1


def test_the_table_is_bounded_and_the_oldest_go_first() -> None:
    door = Door(max_failed_attempts=1, initial_block_seconds=3600)
    peers = [f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(MOST_SITES + 500)]
    for peer in peers:
        door.guard.failed(peer)
    assert len(door.guard) == MOST_SITES
    assert door.knock(KEY, peers[499]) == 200, "it was forgotten"
    assert door.knock(KEY, peers[500]) == (429, 3600)


def test_a_crowd_that_guesses_is_blocked_one_by_one_and_a_right_key_passes() -> None:
    """The global ceiling: many addresses, each below its own limit."""
    door = Door()
    peers = [f"10.9.{number >> 8}.{number & 255}" for number in range(MOST_FAILURES // 4 + 1)]
    for _, peer in itertools.product(range(4), peers):
        door.knock("wrong", peer)
    assert door.knock("wrong", "192.0.2.1") == 401
    assert door.knock("wrong", "192.0.2.1") == (429, 30)
    assert door.knock(KEY, "192.0.2.2") == 200
    door.wait(2 * 900)
    assert door.guess(4, "192.0.2.3") == [401] * 4
    assert door.knock("wrong", "192.0.2.3") == 401


def test_a_reload_forgives_nothing_and_switching_off_everything() -> None:
    door = Door()
    door.guess(5)
    door.guard.configure(options(initial_block_seconds=10))
    assert door.knock(KEY) == (429, 30)
    door.guard.configure(options(enabled=False))
    assert door.knock(KEY) == 200


def test_numbers_of_any_size_are_harmless() -> None:
    door = Door(block_multiplier=1e308, max_failed_attempts=1, ttl_seconds=1)
    for _ in range(5):
        assert door.knock("wrong") == 401
        door.wait(3600)
    assert len(door.guard) == 1


def test_the_longest_block_is_at_least_the_first(tmp_path: Path) -> None:
    flags = ["--auth-brute-force-initial-block", "60", "--auth-brute-force-max-block", "50"]
    with pytest.raises(ConfigError, match="max_block_seconds: expected at least"):
        load_settings(flags, {"HOME": str(tmp_path)}, tmp_path, GROUPS)


SURFACES = [
    ("/v1/chat/completions", CHAT, "openai"),
    ("/v1/responses", RESPONSES, "openai"),
    ("/v1/messages", MESSAGES, "anthropic"),
    ("/v1beta/models/demo:echo:generateContent", GEMINI, "gemini"),
]


def test_a_blocked_address_is_told_in_its_protocol_and_a_right_key_of_this_machine_is_let_in(tmp_path: Path) -> None:
    with running(tmp_path) as proxy:
        for number in range(5):
            assert proxy.post("/v1/chat/completions", CHAT, key=f"guess-number-{number}").status == 401
        for path, body, shape in SURFACES:
            refused = proxy.post(path, body, key="guess-number-6")
            assert refused.status == 429
            assert_error(refused.json, shape, "rate_limited")
            assert 25 <= int(refused.headers["retry-after"]) <= 30
            assert refused.json["detail"]["details"]["retry_after_seconds"] == int(refused.headers["retry-after"])
        assert proxy.get("/docs", key=None).status == 200
        assert proxy.get("/no/such/page", key=None).status == 429
        assert proxy.post("/v1/chat/completions", CHAT, key=KEY).status == 200
        told = {"addresses_with_wrong_keys": 0, "blocked_addresses": 0}
        assert proxy.get("/internal/status").json["access"] == told
        assert proxy.post("/v1/chat/completions", CHAT, key="guess-number-7").status == 401
        assert proxy.stop() == 0
        assert proxy.log.count("too many wrong client keys from 127.0.0.1") == 1
        assert "guess-number" not in proxy.log


def test_switched_off_nobody_is_blocked(tmp_path: Path) -> None:
    with running(tmp_path, "--disable-brute-force-protection") as proxy:
        answers = {proxy.get("/v1/models", key=f"guess-number-{number}").status for number in range(12)}
        assert answers == {401}
