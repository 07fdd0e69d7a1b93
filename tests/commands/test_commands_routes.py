"""Failover routes edited from the chat (CMD-16)."""

from __future__ import annotations

import pytest

from llm_proxy.commands.desk import RouteFacts
from tests.commands.desk import PlainDesk, fail, run

CHANGES = (
    "!/create-failover-route(x, m)",
    "!/delete-failover-route(x)",
    "!/route-append(x, openai:o3)",
    "!/route-append(new, openai:o3)",
    "!/route-prepend(name=x, openai:o3)",
    "!/route-clear(x)",
)


@pytest.fixture
def with_route(desk: PlainDesk) -> PlainDesk:
    desk.save_route("x", RouteFacts("k", ("openai:gpt-4",)))
    return desk


def test_elements_stand_in_written_order(desk: PlainDesk) -> None:
    run(desk, "!/create-failover-route(name=r, policy=km)")
    run(desk, "!/route-append(name=r, openai:a1, openai/a2)")
    run(desk, "!/route-prepend(r, anthropic:p1, element=anthropic:p2)")
    wanted = ("anthropic:p1", "anthropic:p2", "openai:a1", "openai:a2")
    assert desk.routes == {"r": RouteFacts("km", wanted)}
    for line in ("!/route-list(r)", "!/route-list(name=r)", "!/route-list"):
        assert ", ".join(wanted) in run(desk, line)


def test_a_route_made_by_adding_has_policy_m_and_begins_with_the_model_of_its_name(desk: PlainDesk) -> None:
    run(desk, "!/route-append(gpt-4, anthropic:claude-3)")
    run(desk, "!/route-prepend(o3, anthropic:claude-3)")
    run(desk, "!/route-append(fresh, anthropic:claude-3)")
    assert desk.routes == {
        "gpt-4": RouteFacts("m", ("openai:gpt-4", "anthropic:claude-3")),
        "o3": RouteFacts("m", ("anthropic:claude-3", "openai:o3")),
        "fresh": RouteFacts("m", ("anthropic:claude-3",)),
    }


def test_a_back_end_whose_list_is_unknown_lends_no_first_element(desk: PlainDesk) -> None:
    desk.default_backend = "anthropic"
    run(desk, "!/route-append(claude-3, openai:o3)")
    assert desk.routes == {"claude-3": RouteFacts("m", ("openai:o3",))}


@pytest.mark.parametrize("bad", ["nosuch:m", "m", "openai:", "openai:a, nosuch:m", "element=nosuch/m", ""])
def test_a_bad_element_changes_nothing(with_route: PlainDesk, bad: str) -> None:
    before = dict(with_route.routes)
    for line in (f"!/route-append(name=x, {bad})", f"!/route-prepend(x, {bad})", f"!/route-append(fresh, {bad})"):
        fail(with_route, line)
    assert with_route.routes == before


def test_by_name_an_unknown_route_is_an_error_with_the_nearest_and_the_command(with_route: PlainDesk) -> None:
    run(with_route, "!/create-failover-route(coding, m)")
    for line in ("!/route-append(name=codin, openai:o3)", "!/route-clear(codin)", "!/route-list(codin)"):
        said = fail(with_route, line)
        assert "coding" in said
        assert "!/create-failover-route(codin, m)" in said
    assert "coding" in fail(with_route, "!/delete-failover-route(codin)")
    assert set(with_route.routes) == {"x", "coding"}


def test_names_are_case_sensitive(with_route: PlainDesk) -> None:
    fail(with_route, "!/route-list(X)")


@pytest.mark.parametrize(
    "line", ["!/create-failover-route(name=r)", "!/create-failover-route(r)", "!/create-failover-route(r, z)"]
)
def test_without_a_good_policy_the_policies_are_listed(desk: PlainDesk, line: str) -> None:
    assert "k, m, km, mk" in fail(desk, line)
    assert desk.routes == {}


@pytest.mark.parametrize(
    ("typed", "policy"), [("KM", "km"), ("ordered", "m"), ("Mk", "mk"), ("k", "k"), ("ORDERED", "m")]
)
@pytest.mark.parametrize("form", ["(name=r, policy={})", "(r, {})", "(r, policy={})"])
def test_the_policy_is_read_in_any_case(desk: PlainDesk, form: str, typed: str, policy: str) -> None:
    run(desk, "!/create-failover-route" + form.format(typed))
    assert desk.routes["r"].policy == policy


def test_an_existing_route_keeps_its_elements(with_route: PlainDesk) -> None:
    said = run(with_route, "!/create-failover-route(x, mk)")
    assert with_route.routes == {"x": RouteFacts("mk", ("openai:gpt-4",))}
    assert "elements kept" in said
    assert "openai:gpt-4" in said


def test_a_cleared_route_stays_and_is_empty(with_route: PlainDesk) -> None:
    run(with_route, "!/route-clear(name=x)")
    assert with_route.routes == {"x": RouteFacts("k")}
    assert "empty" in run(with_route, "!/route-list(x)")


def test_a_deleted_route_can_be_restored_by_what_the_reply_says(with_route: PlainDesk) -> None:
    said = run(with_route, "!/delete-failover-route(x)")
    assert with_route.routes == {}
    create, append = said.partition("Undo: ")[2].split(" !/")
    run(with_route, create)
    run(with_route, f"!/{append}")
    assert with_route.routes == {"x": RouteFacts("k", ("openai:gpt-4",))}


def test_routes_are_listed_sorted_with_their_policies(with_route: PlainDesk) -> None:
    run(with_route, "!/create-failover-route(a, mk)")
    assert run(with_route, "!/list-failover-routes") == "a:mk, x:k"


def test_no_routes_are_said_to_be_none(desk: PlainDesk) -> None:
    assert "none" in run(desk, "!/list-failover-routes")
    assert "none" in run(desk, "!/route-list")


@pytest.mark.parametrize("name", ['"a b"', '"a,b"', '"a(b"', "x" * 65, '"a[b]"', '""'])
def test_other_names_are_refused(desk: PlainDesk, name: str) -> None:
    fail(desk, f"!/create-failover-route(name={name}, policy=m)")
    assert desk.routes == {}


@pytest.mark.parametrize("line", CHANGES)
def test_who_may_not_change_the_proxy_changes_no_route(with_route: PlainDesk, line: str) -> None:
    with_route.no_change_for_all = "commands.allow_global is never"
    before = dict(with_route.routes)
    assert "allow_global" in fail(with_route, line)
    assert with_route.routes == before
    run(with_route, "!/route-list")


@pytest.mark.parametrize(
    "line", ["!/route-append(x)", "!/route-append", "!/route-clear", "!/delete-failover-route(x, y)"]
)
def test_missing_and_surplus_arguments_show_the_form(with_route: PlainDesk, line: str) -> None:
    before = dict(with_route.routes)
    assert "Usage: !/" in fail(with_route, line)
    assert with_route.routes == before


def test_an_element_that_cannot_be_used_now_is_pointed_out(desk: PlainDesk) -> None:
    said = run(desk, "!/route-append(r, gemini:g, openai:o3)")
    assert "not functional: gemini" in said
    assert desk.routes == {"r": RouteFacts("m", ("gemini:g", "openai:o3"))}
