"""BE-03, RT-10: rotation, cooldowns and disabled keys, with a clock that the test moves."""

from __future__ import annotations

import pytest

from llm_proxy.config.kinds import NamedKey
from llm_proxy.routing.keyring import Keyring, Thread
from llm_proxy.wire.secrets import Secret
from tests.backends.settings import named_keys


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keyring(clock: Clock) -> Keyring:
    return Keyring(clock)


A, B, C = KEYS = named_keys("a", "b", "c")


def starts(keyring: Keyring, count: int, policy: str = "round-robin", session: str = "") -> str:
    thread = Thread(session)
    return "".join(keyring.rotate("x", KEYS, policy, model="m", thread=thread)[0].name for _ in range(count))


def turn(keyring: Keyring, thread: Thread, policy: str = "round-robin") -> str:
    return keyring.rotate("x", KEYS, policy, model="m", thread=thread)[0].name


# ---- rotation


def test_round_robin_starts_each_request_at_the_next_key(keyring: Keyring) -> None:
    assert starts(keyring, 6) == "abcabc"


def test_round_robin_passes_a_cooling_key_over(keyring: Keyring) -> None:
    keyring.cool("x", "m", B, 429, 100)
    assert starts(keyring, 4) == "acac"


def test_the_order_wraps_round(keyring: Keyring) -> None:
    starts(keyring, 1)
    assert [key.name for key in keyring.rotate("x", KEYS, "round-robin", model="m")] == ["b", "c", "a"]


def test_each_back_end_has_its_own_turn(keyring: Keyring) -> None:
    starts(keyring, 1)
    assert keyring.rotate("y", KEYS, "round-robin", model="m")[0] is A


def test_first_always_begins_with_the_first(keyring: Keyring) -> None:
    assert starts(keyring, 3, "first") == "aaa"


def test_sticky_sessions_keep_their_key_and_are_dealt_in_turn(keyring: Keyring) -> None:
    assert starts(keyring, 3, "sticky", "one") == "aaa"
    assert starts(keyring, 3, "sticky", "two") == "bbb"
    assert starts(keyring, 2, "sticky", "one") == "aa"


def test_a_sticky_session_moves_on_when_its_key_cools(keyring: Keyring, clock: Clock) -> None:
    assert starts(keyring, 1, "sticky", "one") == "a"
    keyring.cool("x", "m", A, 429, 10)
    assert starts(keyring, 2, "sticky", "one") == "bb"
    clock.now += 11
    assert starts(keyring, 2, "sticky", "one") == "bb"


def test_sessions_are_forgotten_before_they_fill_the_memory(keyring: Keyring) -> None:
    for number in range(10_050):
        keyring.rotate("x", KEYS, "sticky", model="m", thread=Thread(str(number), f"{number} a"))
    assert len(keyring._held) == 10_000


def test_conversations_of_one_session_are_forgotten_before_they_fill_the_memory(keyring: Keyring) -> None:
    for number in range(1000):
        keyring.rotate("x", KEYS, "round-robin", model="m", thread=Thread("s", str(number)))
    assert len(keyring._held["s"]) <= 64
    last = keyring.rotate("x", KEYS, "round-robin", model="m", thread=Thread("s", "999", continues=True))[0]
    assert last is KEYS[999 % 3]


def test_a_session_that_has_ended_keeps_to_no_key(keyring: Keyring) -> None:
    assert starts(keyring, 3, "sticky", "one") == "aaa"
    keyring.forget("one")
    assert starts(keyring, 3, "sticky", "one") == "bbb"
    keyring.forget("never seen")


# ---- the key that holds a conversation's prompt cache

BEGINS, CONTINUES = Thread("s", "s1"), Thread("s", "s1", continues=True)


def test_a_conversation_stays_at_the_key_that_it_began_with(keyring: Keyring) -> None:
    assert turn(keyring, BEGINS) == "a"
    assert [turn(keyring, CONTINUES) for _ in range(99)] == ["a"] * 99


def test_new_conversations_are_dealt_in_turn_also_in_one_session(keyring: Keyring) -> None:
    assert [turn(keyring, Thread("s", str(number))) for number in range(6)] == list("abcabc")


def test_another_conversation_of_the_session_moves_nothing(keyring: Keyring) -> None:
    turn(keyring, BEGINS)
    assert turn(keyring, Thread("s", "sub-agent")) == "b"
    assert turn(keyring, CONTINUES) == "a"
    assert turn(keyring, Thread("s", "sub-agent", continues=True)) == "b"


def test_an_errand_without_names_moves_nothing(keyring: Keyring) -> None:
    turn(keyring, BEGINS)
    assert turn(keyring, Thread()) == "b"
    assert turn(keyring, CONTINUES) == "a"


def test_a_shortened_conversation_is_found_by_its_session(keyring: Keyring) -> None:
    turn(keyring, BEGINS)
    assert turn(keyring, Thread("s", "begins otherwise now", continues=True)) == "a"


def test_a_conversation_moves_on_when_its_key_rests_and_stays_where_it_was_answered(
    keyring: Keyring, clock: Clock
) -> None:
    turn(keyring, BEGINS)
    keyring.cool("x", "m", A, 429, 10)
    assert turn(keyring, CONTINUES) == "b"
    keyring.succeed("x", "m", C, CONTINUES)  # b failed too, c answered
    clock.now += 11
    assert [turn(keyring, CONTINUES) for _ in range(3)] == list("ccc")


def test_looking_advances_nothing(keyring: Keyring) -> None:
    for _ in range(3):
        assert keyring.rotate("x", KEYS, "round-robin", thread=BEGINS, looking=True)[0] is A
    assert turn(keyring, Thread("t", "t1")) == "a"
    assert turn(keyring, CONTINUES) == "b", "nobody had begun it"


# ---- cooldowns


def test_a_cooldown_concerns_one_key_and_one_model(keyring: Keyring, clock: Clock) -> None:
    """Given `Retry-After: 7`, then for 7 s this key and model are skipped and the same key with another model
    is used.
    """
    assert keyring.cool("x", "m", A, 429, 7) == 7
    rest = keyring.rest("x", "m", A)
    assert rest is not None and (rest.state, rest.seconds, rest.status) == ("cooling", 7, 429)
    assert keyring.rest("x", "other", A) is None
    assert keyring.rest("x", "m", B) is None
    assert keyring.rest("y", "m", A) is None
    clock.now += 6.99
    assert keyring.rest("x", "m", A) is not None
    clock.now += 0.02
    assert keyring.rest("x", "m", A) is None


def test_without_a_time_cooldowns_double_up_to_a_minute(keyring: Keyring, clock: Clock) -> None:
    lengths = []
    for _ in range(9):
        lengths.append(keyring.cool("x", "m", A, 429, None))
        clock.now += lengths[-1] + 0.01
    assert lengths == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60])


def test_a_success_clears_cooldown_and_exponent(keyring: Keyring, clock: Clock) -> None:
    for _ in range(3):
        clock.now += 1 + keyring.cool("x", "m", A, 429, None)
    keyring.succeed("x", "m", A)
    assert keyring.cool("x", "m", A, 429, None) == 1
    keyring.succeed("x", "m", A)
    assert keyring.rest("x", "m", A) is None


def test_requests_that_fail_together_count_once(keyring: Keyring, clock: Clock) -> None:
    assert [keyring.cool("x", "m", A, 429, None) for _ in range(10)] == [1] * 10
    clock.now += 1.01
    assert keyring.cool("x", "m", A, 429, None) == pytest.approx(2)


def test_a_longer_time_is_never_shortened(keyring: Keyring) -> None:
    keyring.cool("x", "m", A, 429, 30)
    assert keyring.cool("x", "m", A, 429, 2) == 30
    assert keyring.cool("x", "m", A, 429, 50) == 50


def test_first_and_longest_cooldown_are_options(clock: Clock) -> None:
    keyring = Keyring(clock, first_cooldown=5, longest_cooldown=8)
    assert keyring.cool("x", "m", A, 429, None) == 5
    clock.now += 5.01
    assert keyring.cool("x", "m", A, 429, None) == pytest.approx(8)


# ---- disabled keys


def test_a_refused_key_is_left_alone_for_all_models(keyring: Keyring, clock: Clock) -> None:
    keyring.disable("x", A, 401)
    rest = keyring.rest("x", "any", A)
    assert rest is not None and (rest.state, rest.seconds) == ("disabled", 600)
    assert starts(keyring, 2) == "bc"
    clock.now += 600
    assert keyring.rest("x", "any", A) is None


def test_a_refused_key_comes_back_when_its_value_changes(keyring: Keyring) -> None:
    keyring.disable("x", A, 401)
    assert keyring.rest("x", "m", NamedKey("a", Secret("new value"))) is None


def test_a_success_enables_a_key(keyring: Keyring) -> None:
    keyring.disable("x", A, 401)
    keyring.succeed("x", "m", A)
    assert keyring.rest("x", "m", A) is None


def test_a_back_end_without_keys_is_never_disabled(keyring: Keyring) -> None:
    keyring.disable("x", None, 401)
    assert keyring.rest("x", "m", None) is None
    keyring.cool("x", "m", None, 429, 5)
    assert keyring.rest("x", "m", None) is not None


# ---- what is shown


def test_everything_at_rest_is_listed_and_cleared_by_back_end(keyring: Keyring) -> None:
    assert keyring.resting() == []
    keyring.cool("x", "m", A, 429, 5)
    keyring.disable("y", B, 403)
    assert [(rest.backend, rest.model, rest.key, rest.state) for rest in keyring.resting()] == [
        ("x", "m", "a", "cooling"),
        ("y", "", "b", "disabled"),
    ]
    assert [rest.backend for rest in keyring.resting("y")] == ["y"]
    keyring.clear("x")
    assert [rest.backend for rest in keyring.resting()] == ["y"]
    keyring.clear()
    assert keyring.resting() == []


def test_model_names_of_clients_do_not_fill_the_memory(keyring: Keyring) -> None:
    for number in range(10_050):
        keyring.cool("x", f"m{number}", A, 429, 5)
    assert len(keyring.resting()) == 10_000
