"""RT-09, RT-10, RT-13: which failure leads to the next attempt, and which one the client sees."""

from __future__ import annotations

from email.utils import formatdate
from typing import Any

import pytest

from llm_proxy.backends.base import Backend, Redirect
from llm_proxy.conversation.fault import Fault, FaultKind, kind_of_status
from llm_proxy.routing.attempt import Trail, verdict
from llm_proxy.routing.keyring import Keyring
from llm_proxy.routing.plan import Element, plan_route, plan_target
from llm_proxy.wire.secrets import Secret
from tests.routing.targets import paper

EPOCH = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keyring(clock: Clock) -> Keyring:
    return Keyring(clock)


def upstream(status: int, **members: Any) -> Fault:
    return Fault(**{"kind": kind_of_status(status), "message": f"status {status}", "status": status, **members})


def trail(keyring: Keyring, *backends: Backend) -> Trail:
    return Trail(plan_route([Element(backend, "m") for backend in backends], "km", keyring), keyring)


def play(trail: Trail, *faults: Fault, **options: Any) -> list[str]:
    """Let each attempt fail in turn; the names of the keys that were used."""
    used = []
    for fault in faults:
        attempt = trail.next()
        if attempt is None:
            break
        used.append(attempt.key_name)
        trail.failed(attempt, fault, options.get("headers", ()), EPOCH)
    return used


A = paper("A", "a1")
B = paper("B", "b1")


@pytest.mark.parametrize("status", [401, 403, 404, 408, 409, 425, 429, 500, 502, 503, 504, 529, 599])
def test_statuses_that_another_target_may_cure(status: int) -> None:
    assert verdict(upstream(status)) == "next"


@pytest.mark.parametrize("status", [400, 402, 405, 406, 415, 422, 451, 499])
def test_statuses_that_it_cannot(status: int) -> None:
    assert verdict(upstream(status)) == "stop"


@pytest.mark.parametrize("kind", ["unavailable", "timeout", "upstream", "closed", "overloaded"])
def test_failures_of_the_connection_and_unreadable_answers_go_on(kind: FaultKind) -> None:
    assert verdict(Fault(kind=kind, message="x")) == "next"


@pytest.mark.parametrize("kind", ["internal", "bad_request", "validation", "loop", "permission"])
def test_the_proxys_own_refusals_stop(kind: FaultKind) -> None:
    assert verdict(Fault(kind=kind, message="x", side="proxy")) == "stop"


def test_after_a_400_the_second_element_is_not_called(keyring: Keyring) -> None:
    attempts = trail(keyring, A, B)
    assert play(attempts, upstream(400), upstream(500)) == ["a1"]
    assert attempts.fault().status_code == 400
    assert keyring.resting() == []


def test_after_a_429_the_second_key_is_called_and_the_first_cools(keyring: Keyring, clock: Clock) -> None:
    attempts = Trail(plan_target(paper("A", "a1", "a2"), "m", keyring), keyring)
    assert play(attempts, upstream(429), headers=[("retry-after", "7")]) == ["a1"]
    second = attempts.next()
    assert second is not None and second.key_name == "a2"
    attempts.succeeded(second)
    assert attempts.calls == 2
    assert [(rest.key, rest.seconds) for rest in keyring.resting()] == [("a1", 7)]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([("retry-after", formatdate(EPOCH + 30, usegmt=True))], 30),
        ([("x-ratelimit-reset-tokens", "6m0s")], 360),
        ([("retry-after-ms", "2500"), ("retry-after", "9")], 2.5),
    ],
)
def test_the_cooldown_is_what_the_provider_states(
    keyring: Keyring, headers: list[tuple[str, str]], seconds: float
) -> None:
    play(trail(keyring, A), upstream(429), headers=headers)
    assert [rest.seconds for rest in keyring.resting()] == pytest.approx([seconds])


def test_google_retry_info_is_the_cooldown(keyring: Keyring) -> None:
    """BE-11: given a `RetryInfo` 429, then the cooldown is its delay."""
    play(trail(keyring, A), upstream(429, retry_after=12.5))
    assert [rest.seconds for rest in keyring.resting()] == [12.5]


def test_three_429_without_times(keyring: Keyring, clock: Clock) -> None:
    seen = []
    for _ in range(3):
        play(trail(keyring, A), upstream(429))
        seen.append(keyring.resting()[0].seconds)
        clock.now += seen[-1]
    assert seen == [1, 2, 4]


@pytest.mark.parametrize(
    ("status", "headers", "cools"),
    [
        (503, [("retry-after", "3")], True),
        (529, [("retry-after", "3")], True),
        (503, [], False),
        (529, [], False),
        (500, [("retry-after", "3")], False),
        (404, [], False),
        (422, [], False),
    ],
)
def test_overload_cools_only_with_a_time(
    keyring: Keyring, status: int, headers: list[tuple[str, str]], cools: bool
) -> None:
    play(trail(keyring, A), upstream(status), headers=headers)
    assert [rest.seconds for rest in keyring.resting()] == ([3] if cools else [])


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_disabled_and_the_next_one_answers(keyring: Keyring, clock: Clock, status: int) -> None:
    both = paper("A", "a1", "a2", policy="first")
    attempts = Trail(plan_target(both, "m", keyring), keyring)
    assert play(attempts, upstream(status)) == ["a1"]
    second = attempts.next()
    assert second is not None and second.key_name == "a2"
    clock.now += 599
    assert [attempt.key_name for attempt in plan_target(both, "other", keyring).attempts] == ["a2"]
    clock.now += 2
    assert [attempt.key_name for attempt in plan_target(both, "other", keyring).attempts] == ["a1", "a2"]


def test_a_key_that_was_refused_for_one_element_is_not_used_for_the_next(keyring: Keyring) -> None:
    route = (Element(A, "m"), Element(A, "m2"), Element(B, "m"))
    attempts = Trail(plan_route(route, "m", keyring), keyring)
    assert play(attempts, upstream(401), upstream(500), upstream(500)) == ["a1", "b1"]


def test_all_429_gives_the_smallest_remaining_cooldown(keyring: Keyring) -> None:
    attempts = trail(keyring, A, B)
    for seconds in ("30", "4"):
        attempt = attempts.next()
        assert attempt is not None
        attempts.failed(attempt, upstream(429), [("retry-after", seconds)], EPOCH)
    fault = attempts.fault()
    assert (fault.status_code, fault.retry_after) == (429, 4)


def test_a_key_that_was_cooling_before_counts_for_the_wait(keyring: Keyring) -> None:
    keyring.cool("B", "m", B.keys[0], 429, 2)
    attempts = trail(keyring, A, B)
    play(attempts, upstream(429), upstream(500), headers=[("retry-after", "30")])
    assert attempts.fault().retry_after == 2


@pytest.mark.parametrize(
    ("statuses", "shown"),
    [
        ([500, 429], 429),
        ([429, 500], 429),
        ([401, 500], 502),
        ([500, 401], 502),
        ([429, 401], 429),
        ([500, 400], 400),
        ([503, 529], 529),
        ([529, 500], 500),
        ([404, 500], 404),
    ],
)
def test_the_error_that_says_most_is_shown(keyring: Keyring, statuses: list[int], shown: int) -> None:
    attempts = trail(keyring, A, B)
    play(attempts, *(upstream(status) for status in statuses))
    assert attempts.fault().status_code == shown


def test_any_answer_says_more_than_none(keyring: Keyring) -> None:
    attempts = trail(keyring, A, B)
    play(attempts, upstream(500), Fault(kind="unavailable", message="refused"))
    assert attempts.fault().status_code == 500


def test_an_unreachable_provider_is_503_and_a_silent_one_504(keyring: Keyring) -> None:
    for kind, status in (("unavailable", 503), ("timeout", 504), ("upstream", 502)):
        attempts = trail(keyring, A)
        play(attempts, Fault(kind=kind, message="x"))  # type: ignore[arg-type]
        assert attempts.fault().status_code == status


def test_refused_credentials_are_the_back_ends_not_the_clients(keyring: Keyring) -> None:
    attempts = trail(keyring, A)
    play(attempts, upstream(401, message="Incorrect API key provided: sk-xx"))
    fault = attempts.fault()
    assert (fault.status_code, fault.detail["code"]) == (502, "A_credentials_invalid")
    assert "sk-xx" not in fault.message


def test_the_error_lists_every_call(keyring: Keyring) -> None:
    attempts = trail(keyring, A, B)
    play(attempts, upstream(500), upstream(503))
    assert attempts.calls == 2
    assert attempts.fault().detail["details"]["attempts"] == [
        {"backend": "A", "model": "m", "key": "a1", "status": 500},
        {"backend": "B", "model": "m", "key": "b1", "status": 503},
    ]


def test_too_long_an_input_goes_on_only_to_a_larger_window(keyring: Keyring) -> None:
    small = paper("S", "s1", "s2", windows={"m": 8000})
    same = paper("T", "t1", windows={"m": 8000})
    unknown = paper("U", "u1")
    large = paper("L", "l1", windows={"m": 200_000})
    too_long = upstream(400, kind="context_length")
    assert play(trail(keyring, small, same, unknown, large), too_long, too_long) == ["s1", "l1"]
    attempts = trail(keyring, small, same, unknown)
    assert play(attempts, too_long, upstream(500)) == ["s1"]
    assert attempts.fault().status_code == 400
    assert play(trail(keyring, small, large), upstream(413), upstream(500)) == ["s1", "l1"]


def test_keys_that_others_put_to_rest_meanwhile_are_passed_over(keyring: Keyring) -> None:
    attempts = trail(keyring, A, B)
    keyring.cool("A", "m", A.keys[0], 429, 5)
    assert play(attempts, upstream(500)) == ["b1"]
    assert attempts.calls == 1


def test_a_connection_that_was_never_made_is_retried_on_the_same_key(keyring: Keyring) -> None:
    twice = paper("R", "r1", retries=2)
    attempts = trail(keyring, twice, B)
    refused = Fault(kind="unavailable", message="refused")
    used = []
    while (attempt := attempts.next()) is not None:
        used.append(attempt.key_name)
        attempts.failed(attempt, refused, connecting=True)
    assert used == ["r1", "r1", "r1", "b1"]
    attempts = trail(keyring, twice)
    assert play(attempts, refused, refused) == ["r1"]  # the connection stood, so `retries` does not apply


def test_a_plan_without_attempts_tells_why(keyring: Keyring) -> None:
    keyring.cool("A", "m", A.keys[0], 429, 5)
    attempts = trail(keyring, A)
    assert attempts.next() is None
    assert attempts.fault().retry_after == 5


@pytest.mark.parametrize(
    ("credential", "word"), [(None, "wants a key"), (Secret("own-key"), "refused the key")], ids=["without", "with"]
)
def test_a_session_s_own_server_that_refuses_is_told_as_such(
    keyring: Keyring, credential: Secret | None, word: str
) -> None:
    """RT-12: no stored key went there, so none is to be blamed; the message names the header that carries the client's."""
    redirect = Redirect("http://models.example/v1", "public", credential=credential)
    made = Trail(plan_target(A, "m", keyring, redirect=redirect), keyring)
    assert play(made, upstream(401)) == ["none"]
    fault = made.fault()
    assert word in fault.message and "x-llm-proxy-upstream-key" in fault.message
    assert "a1" not in fault.message and "own-key" not in fault.message
    assert fault.status_code == 502


def test_a_cooldown_that_ends_while_others_fail_leads_to_no_further_call_without_patience(
    keyring: Keyring, clock: Clock
) -> None:
    """`wait` is positive for what this very request has called: without `max_wait_seconds` each attempt is made once."""
    made = trail(keyring, A, B)
    for _ in "ab":
        attempt = made.next()
        assert attempt is not None
        clock.now += 0.5  # the provider takes longer to answer than it asks to be left alone
        made.failed(attempt, upstream(429), [("retry-after", "0")], EPOCH)
    clock.now += 0.5
    wait = made.wait()
    assert wait is not None and wait > 0


def test_what_rested_when_its_turn_came_and_rests_no_more_is_due_at_once(keyring: Keyring, clock: Clock) -> None:
    keyring.cool("A", "m", A.keys[0], 429, 5.0)
    made = trail(keyring, A)
    assert made.next() is None
    clock.now += 6.0
    assert made.wait() == 0.0
