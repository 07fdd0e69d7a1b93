"""RT-02 to RT-06, RT-11: which name counts, and what a lock refuses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.routing.aliases import Aliases, Rule
from llm_proxy.routing.choice import Choices, Decision, decide, refusal
from llm_proxy.routing.targets import parse

KNOWN = frozenset(("openai", "openrouter", "anthropic", "gemini", "lmstudio"))
ROUTES = frozenset(("coding", "gpt-4o-mini", "a:b"))


def choices(*rules: tuple[str, str], **members: Any) -> Choices:
    return Choices(aliases=Aliases([Rule(*rule) for rule in rules]), known=KNOWN, routes=ROUTES, **members)


def target(decision: Decision) -> tuple[str, str]:
    return decision.backend, decision.model


def goes(
    requested: str, chosen: dict[str, Any] | None = None, *rules: tuple[str, str], **members: Any
) -> tuple[str, str]:
    one_off, planned = members.pop("one_off", ""), members.pop("planned", "")
    return target(decide(choices(*rules, **members), requested, chosen or {}, one_off, planned))


# RT-01: reading a name, here with what the session chose


@pytest.mark.parametrize(
    ("requested", "backend", "model"),
    [
        ("llama3:8b", "", "llama3:8b"),
        ("deepseek/deepseek-r1:free", "", "deepseek/deepseek-r1:free"),
        ("OPENAI:gpt-4o", "openai", "gpt-4o"),
        ("nosuch:model", "", "nosuch:model"),
        ("openrouter:anthropic/claude-3-haiku:beta", "openrouter", "anthropic/claude-3-haiku:beta"),
        ("openai/gpt-4o", "openai", "gpt-4o"),
        ("openai:", "openai", ""),
        ("", "", ""),
    ],
)
def test_a_requested_name_is_read(requested: str, backend: str, model: str) -> None:
    assert goes(requested) == (backend, model)


def test_with_a_session_back_end_a_vendor_before_a_slash_is_part_of_the_model() -> None:
    session = {"backend": "openrouter"}
    assert goes("openai/gpt-4o", session) == ("openrouter", "openai/gpt-4o")
    assert goes("openrouter:openai/gpt-4o", session) == ("openrouter", "openai/gpt-4o")


# RT-02: order of decisions


def test_the_static_route_is_ahead_of_the_session() -> None:
    assert goes("gpt-4", {"model": "x", "backend": "openai"}, static_route="gemini:g") == ("gemini", "g")


def test_a_forced_model_leaves_the_requested_back_end() -> None:
    assert goes("openai:gpt-4", force_model="g") == ("openai", "g")


def test_an_alias_changes_the_session_model() -> None:
    rule = (r"^gpt-(.*)", r"openrouter:openai/gpt-\1")
    decision = decide(choices(rule), "whatever", {"model": "gpt-4o"})
    assert target(decision) == ("openrouter", "openai/gpt-4o")
    assert (decision.alias, decision.rule) == (
        "^gpt-(.*)",
        "session model, alias ^gpt-(.*), back end named in it",
    )


def test_no_alias_changes_a_one_off() -> None:
    decision = decide(choices((".*", "gemini:g")), "x", {"model": "y"}, "openai:gpt-4o")
    assert decision == Decision("openai", "gpt-4o", "one-off")


def test_the_session_back_end_takes_the_place_of_the_requested_one() -> None:
    assert goes("openai:claude-x", {"backend": "anthropic"}) == ("anthropic", "claude-x")


def test_the_back_end_that_an_alias_names_stays_beside_a_session_back_end() -> None:
    rule = (r"^gpt-(.*)", r"openrouter:openai/gpt-\1")
    assert goes("gpt-4o", {"backend": "anthropic"}, rule) == ("openrouter", "openai/gpt-4o")
    assert goes("x", {"backend": "anthropic", "model": "gpt-4o"}, rule) == ("openrouter", "openai/gpt-4o")


def test_an_alias_without_back_end_leaves_the_session_back_end() -> None:
    assert goes("gpt-4o", {"backend": "anthropic"}, ("gpt-.*", "claude-x")) == ("anthropic", "claude-x")
    assert goes("gpt-4o", {"backend": "openrouter"}, ("gpt", "openai/gpt")) == ("openrouter", "openai/gpt-4o")


def test_a_rule_that_leaves_the_name_as_it_was_does_not_make_its_prefix_the_operators() -> None:
    decision = decide(choices(("(.*)", r"\1")), "openai:claude-x", {"backend": "anthropic"})
    assert target(decision) == ("anthropic", "claude-x")
    assert decision.alias == "(.*)"


def test_aliases_see_the_whole_requested_name() -> None:
    assert goes("openai:gpt-4", None, ("openai:gpt-", "gemini:g-")) == ("gemini", "g-4")
    assert goes("openai:gpt-4", None, ("gpt-", "x")) == ("openai", "gpt-4")


def test_the_model_of_a_session_with_a_back_end_is_never_cut() -> None:
    assert goes("x", {"backend": "openrouter", "model": "openai:gpt/1"}) == ("openrouter", "openai:gpt/1")
    assert goes("x", {"model": "openai:gpt/1"}) == ("openai", "gpt/1")


def test_a_session_back_end_that_is_gone_does_not_count() -> None:
    assert goes("openai:gpt-4o", {"backend": "gone"}) == ("openai", "gpt-4o")


@pytest.mark.parametrize(
    ("requested", "chosen", "one_off", "rule"),
    [
        ("gpt", {}, "", "requested model, default back end"),
        ("openai:gpt", {}, "", "requested model, back end named in it"),
        ("gpt", {"backend": "gemini"}, "", "requested model, session back end"),
        ("gpt", {"model": "m"}, "", "session model, default back end"),
        ("gpt", {"model": "m", "backend": "gemini"}, "", "session model, session back end"),
        ("gpt", {"model": "m", "backend": "gemini"}, "openai:o", "one-off"),
        ("coding", {}, "", "failover route coding, named by the requested model"),
        ("x", {"model": "route:coding"}, "", "failover route coding, named by the session model"),
        ("alias", {}, "", "failover route coding, named by the requested model, alias alias"),
    ],
)
def test_what_decided_is_said_in_words(requested: str, chosen: dict[str, Any], one_off: str, rule: str) -> None:
    assert decide(choices(("alias", "coding")), requested, chosen, one_off).rule == rule


# RT-07: the effective name may be a failover route


@pytest.mark.parametrize("name", ["coding", "route:coding"])
def test_the_effective_name_is_looked_up_as_a_route(name: str) -> None:
    assert decide(choices(), name, {"backend": "gemini"}).route == "coding"
    assert decide(choices(), "x", {"model": name}).route == "coding"
    assert decide(choices(("x", name)), "x", {}).route == "coding"
    assert decide(choices(force_model=name), "openai:x", {}).route == "coding"
    assert decide(choices(static_route=name), "openai:x", {"model": "y"}).route == "coding"
    assert decide(choices(), "x", {}, planned=name).route == "coding"


def test_a_route_may_bear_the_name_of_a_model_or_hold_a_colon() -> None:
    assert decide(choices(), "gpt-4o-mini", {}).route == "gpt-4o-mini"
    assert decide(choices(), "a:b", {}).route == "a:b"
    assert decide(choices(), "openai:gpt-4o-mini", {}).route == ""


def test_the_prefix_means_a_route_also_where_none_has_the_name() -> None:
    """What `route:<name>` means is told as such, and is no model of any provider."""
    for decision in (
        decide(choices(), "route:gone", {"backend": "gemini"}),
        decide(choices(), "x", {"model": "route:gone"}),
        decide(choices(static_route="route:gone"), "openai:x", {}),
        decide(choices(force_model="route:gone"), "openai:x", {}),
    ):
        assert (decision.route, decision.backend, decision.model) == ("gone", "", "")
    assert decide(choices(), "openai:route:gone", {}).model == "route:gone"


def test_routes_are_compared_case_sensitively() -> None:
    assert decide(choices(), "Coding", {}).route == ""


# RT-04: static route


def test_a_bare_static_route_pins_only_the_model() -> None:
    assert goes("openai:x", static_route="m") == ("openai", "m")
    assert goes("openai:x", {"backend": "gemini"}, static_route="m") == ("gemini", "m")
    assert goes("x", static_route="m") == ("", "m")
    assert goes("coding", static_route="m") == ("", "m")
    assert goes("x", {}, ("x", "anthropic:y"), static_route="m") == ("anthropic", "m")


def test_no_alias_changes_what_is_pinned_and_no_session_reads_it_otherwise() -> None:
    everything = (".*", "gemini:g")
    assert goes("x", {}, everything, static_route="openai:m") == ("openai", "m")
    assert goes("x", {"backend": "openrouter"}, everything, static_route="openai/m") == ("openai", "m")
    assert goes("x", {"backend": "openrouter"}, everything, one_off="anthropic:c", static_route="openai:m") == (
        "openai",
        "m",
    )


def test_a_static_route_is_ahead_of_a_forced_model_and_of_the_planning_phase() -> None:
    decision = decide(choices(static_route="openai:m", force_model="gemini:f"), "x", {}, "", "anthropic:strong")
    assert decision == Decision("openai", "m", "static route")


@pytest.mark.parametrize("what", ["model", "backend", "one-off"])
def test_a_static_route_refuses_choices_and_names_itself(what: Any) -> None:
    reason = refusal(choices(static_route="openai:gpt-4o-mini"), what)
    assert "static route" in reason and "openai:gpt-4o-mini" in reason and "static_route" in reason


# RT-05: force model


def test_a_forced_model_replaces_every_name() -> None:
    for requested in ("gpt-4", "claude-3-opus", ""):
        assert goes(requested, force_model="gemini-2.5-pro") == ("", "gemini-2.5-pro")


def test_a_forced_model_goes_to_the_session_back_end() -> None:
    assert goes("x", {"backend": "openai"}, force_model="g") == ("openai", "g")
    assert goes("gemini:x", {"backend": "openai"}, force_model="g") == ("openai", "g")
    assert goes("x", {"backend": "openrouter"}, force_model="openai/gpt-4o") == ("openrouter", "openai/gpt-4o")


def test_a_forced_model_with_a_known_id_pins_both() -> None:
    assert goes("gemini:x", {"backend": "anthropic"}, force_model="openai:g") == ("openai", "g")
    assert goes("gemini:x", force_model="llama3:8b") == ("gemini", "llama3:8b")


def test_a_forced_model_is_ahead_of_a_one_off_whose_back_end_counts() -> None:
    assert goes("x", {"backend": "anthropic"}, one_off="openai:o", force_model="g") == ("openai", "g")


def test_aliases_do_not_apply_to_the_forced_name() -> None:
    assert goes("x", {}, (".*", "other"), force_model="g") == ("", "g")
    assert goes("x", {}, (".*", "gemini:other"), force_model="g") == ("gemini", "g")


def test_a_forced_model_refuses_models_and_leaves_back_ends_free() -> None:
    forced = choices(force_model="g")
    assert "force_model" in refusal(forced, "model") and "g" in refusal(forced, "model")
    assert refusal(forced, "one-off")
    assert refusal(forced, "backend") == ""


@pytest.mark.parametrize("what", ["model", "backend", "one-off"])
def test_without_a_lock_nothing_is_refused(what: Any) -> None:
    assert refusal(choices(("a", "b")), what) == ""


# REQ-05: the planning phase


def test_the_planning_phase_takes_the_place_of_the_requested_model() -> None:
    decision = decide(choices(), "gpt-4", {"backend": "anthropic"}, planned="openai:strong")
    assert decision == Decision("openai", "strong", "planning phase", planned=True)


@pytest.mark.parametrize("chosen", [{"model": "m"}, {"model": "m", "backend": "openai"}])
def test_a_model_chosen_in_chat_is_ahead_of_the_planning_phase(chosen: dict[str, Any]) -> None:
    decision = decide(choices(), "gpt-4", chosen, planned="openai:strong")
    assert (decision.model, decision.planned) == ("m", False)
    assert decide(choices(), "gpt-4", {}, "gemini:g", "openai:strong") == Decision("gemini", "g", "one-off")


def test_a_forced_model_is_ahead_of_the_planning_phase() -> None:
    decision = decide(choices(force_model="f"), "gpt-4", {}, planned="openai:strong")
    assert (target(decision), decision.planned) == (("", "f"), False)


@pytest.mark.parametrize("requested", ["openai:strong", "strong", "openai/strong", "best"])
def test_who_asks_for_the_strong_model_anyway_is_not_in_the_planning_phase(requested: str) -> None:
    decision = decide(choices(("best", "strong"), default="openai"), requested, {}, planned="openai:strong")
    assert (decision.model, decision.planned) == ("strong", False)


def test_the_same_model_at_another_back_end_is_another() -> None:
    assert decide(choices(default="gemini"), "strong", {}, planned="openai:strong").planned
    assert decide(choices(default="openai"), "strong", {"backend": "gemini"}, planned="openai:strong").planned


def test_a_strong_model_without_back_end_goes_where_the_session_goes() -> None:
    assert goes("x", {"backend": "gemini"}, planned="strong") == ("gemini", "strong")
    assert goes("openai:x", planned="strong") == ("", "strong")


# The order of precedence, whatever is set at once


MAYBE = st.sampled_from(["", "bare", "openai:", "gemini:"])


def named(prefix: str, model: str) -> str:
    """ "" stays; `bare` is the model alone."""
    return "" if not prefix else model if prefix == "bare" else prefix + model


@given(static=MAYBE, force=MAYBE, one_off=st.sampled_from(["", "anthropic:"]), session=st.booleans(), planned=MAYBE, requested=MAYBE,
       backend=st.sampled_from(["", "lmstudio", "gone"]))  # fmt: skip
def test_the_first_that_names_a_model_gives_it(
    static: str, force: str, one_off: str, session: bool, planned: str, requested: str, backend: str
) -> None:
    values = {"backend": backend} | ({"model": "of-session"} if session else {})
    decision = decide(
        choices(static_route=named(static, "static"), force_model=named(force, "forced")),
        named(requested, "requested"),
        values,
        named(one_off, "one-off"),
        named(planned, "planned"),
    )
    order = [(static, "static"), (force, "forced"), (one_off, "one-off"), (session, "of-session"), (planned, "planned")]
    expected = next((model for given, model in order if given), "requested" if requested else "")
    assert decision.model == expected
    assert decision.planned == (expected == "planned")

    held = backend if backend == "lmstudio" else ""
    deciding = next((given for given in (static, force, one_off) if given), "")
    if deciding in ("openai:", "gemini:", "anthropic:"):
        assert decision.backend == deciding[:-1]
    elif one_off:
        assert decision.backend == "anthropic"
    elif not (static or force or session) and planned in ("openai:", "gemini:"):
        assert decision.backend == planned[:-1]
    elif held:
        assert decision.backend == held
    elif not session and not (planned and not (static or force)) and requested in ("openai:", "gemini:"):
        assert decision.backend == requested[:-1]
    else:
        assert decision.backend == ""


@given(st.text(max_size=60), st.sampled_from(["", "openai", "openrouter"]))
def test_without_rules_and_locks_a_name_is_only_read(requested: str, backend: str) -> None:
    decision = decide(Choices(known=KNOWN), requested, {"backend": backend})
    read = parse(requested, KNOWN, keep_slash=bool(backend))
    assert target(decision) == (backend or read.backend, read.model)
    assert (decision.alias, decision.planned, decision.route) == ("", False, "")
