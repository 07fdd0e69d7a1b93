"""RT-08, RT-13: the order of attempts, and what is told when there are none."""

from __future__ import annotations

import pytest

from llm_proxy.conversation.fault import FaultError
from llm_proxy.routing.keyring import Keyring
from llm_proxy.routing.plan import Element, Plan, RoutePolicy, plan_route, plan_target
from tests.routing.targets import paper


@pytest.fixture
def keyring() -> Keyring:
    return Keyring(lambda: 0.0)


def calls(plan: Plan) -> str:
    return " ".join(f"{attempt.backend.id}/{attempt.key_name}" for attempt in plan.attempts)


A = paper("A", "a1", "a2")
B = paper("B", "b1")
ROUTE = (Element(A, "ma"), Element(B, "mb"))


@pytest.mark.parametrize(
    ("policy", "order"),
    [("k", "A/a1 A/a2"), ("m", "A/a1 B/b1"), ("km", "A/a1 A/a2 B/b1"), ("mk", "A/a1 B/b1 A/a2")],
)
def test_the_order_of_each_policy(keyring: Keyring, policy: RoutePolicy, order: str) -> None:
    assert calls(plan_route(ROUTE, policy, keyring)) == order


@pytest.mark.parametrize(("policy", "order"), [("km", "A/a2 B/b1"), ("m", "B/b1"), ("k", "A/a2"), ("mk", "B/b1 A/a2")])
def test_a_cooling_key_is_skipped(keyring: Keyring, policy: RoutePolicy, order: str) -> None:
    keyring.cool("A", "ma", A.keys[0], 429, 5)
    plan = plan_route(ROUTE, policy, keyring)
    assert calls(plan) == order
    assert [(skip.backend, skip.key, skip.state, skip.seconds) for skip in plan.skipped] == [("A", "a1", "cooling", 5)]


def test_an_element_without_a_key_is_left_out_of_all_policies(keyring: Keyring) -> None:
    route = (Element(paper("N"), "m"), *ROUTE)
    for policy, order in (("k", "A/a1 A/a2"), ("m", "A/a1 B/b1"), ("mk", "A/a1 B/b1 A/a2")):
        assert calls(plan_route(route, policy, keyring)) == order  # type: ignore[arg-type]


def test_at_most_32_attempts(keyring: Keyring) -> None:
    many = paper("M", *(f"k{number}" for number in range(40)))
    assert len(plan_route((Element(many, "m"),), "km", keyring).attempts) == 32
    assert len(plan_target(many, "m", keyring).attempts) == 32


def test_without_a_route_the_keys_rotate_and_wrap_round(keyring: Keyring) -> None:
    assert calls(plan_target(A, "m", keyring)) == "A/a1 A/a2"
    assert calls(plan_target(A, "m", keyring)) == "A/a2 A/a1"


def test_a_back_end_without_keys_has_one_pseudo_key(keyring: Keyring) -> None:
    assert calls(plan_target(paper("local", no_auth=True), "m", keyring)) == "local/none"


def test_no_model_means_the_default_model_or_400(keyring: Keyring) -> None:
    with_default = paper("D", "k", default_model="dm")
    assert plan_target(with_default, "", keyring).attempts[0].model == "dm"
    with pytest.raises(FaultError) as caught:
        plan_target(A, "", keyring)
    assert (caught.value.fault.status_code, caught.value.fault.param) == (400, "model")


def test_an_unusable_back_end_is_503_and_says_what_is_missing(keyring: Keyring) -> None:
    with pytest.raises(FaultError) as caught:
        plan_target(paper("N"), "m", keyring)
    fault = caught.value.fault
    assert (fault.status_code, fault.detail["code"]) == (503, "backend_unavailable")
    assert "N" in fault.message and "PAPER_KEY" in fault.message


def test_when_everything_cools_the_client_gets_429_with_the_shortest_rest(keyring: Keyring) -> None:
    keyring.cool("A", "ma", A.keys[0], 429, 9)
    keyring.cool("A", "ma", A.keys[1], 429, 4)
    plan = plan_route(ROUTE[:1], "k", keyring)
    assert plan.attempts == ()
    assert plan.shortest_rest == 4
    fault = plan.fault()
    assert (fault.status_code, fault.retry_after) == (429, 4)
    assert [entry["key"] for entry in fault.detail["details"]["attempts"]] == ["a1", "a2"]


def test_when_every_key_is_refused_the_client_gets_502(keyring: Keyring) -> None:
    keyring.disable("B", B.keys[0], 401)
    fault = plan_target(B, "m", keyring).fault()
    assert (fault.status_code, fault.detail["code"]) == (502, "B_credentials_invalid")


def test_routes_without_usable_elements_are_503(keyring: Keyring) -> None:
    assert plan_route((), "m", keyring).fault().message == "The route has no elements."
    fault = plan_route((Element(paper("N"), "m"),), "m", keyring).fault()
    assert (fault.status_code, "PAPER_KEY" in fault.message) == (503, True)
