"""hello, help and status, and what is said to unknown names (CMD-07, CMD-09, CMD-10, CMD-18)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.commands import registry
from llm_proxy.commands.desk import Outlook, RestingKey
from llm_proxy.commands.spelling import distance
from tests.commands.desk import BACKENDS, KEYS, PlainDesk, fail, run
from tests.support.shared import SHARED, needs_shared


def spec_page(name: str) -> str:
    assert SHARED is not None
    return (SHARED / "spec" / name).read_text("utf-8")


class TestHello:
    def test_keys_and_models_of_each_functional_back_end_are_counted(self, desk: PlainDesk) -> None:
        said = run(desk, "!/hello")
        assert "anthropic (K:1, M:?), demo (K:1, M:1), openai (K:2, M:4), openrouter (K:1, M:?)" in said
        assert "gemini" not in said

    def test_the_hint_shows_the_prefix_in_force(self) -> None:
        said = run(PlainDesk("##"), "##hello")
        assert "##help" in said
        assert "!/" not in said

    def test_without_a_provider_demo_is_listed(self, desk: PlainDesk) -> None:
        desk.backends = [facts for facts in BACKENDS if facts.id == "demo"]
        desk.default_backend = "demo"
        assert "demo (K:1, M:1)" in run(desk, "!/hello")

    def test_it_names_version_session_project_and_choice(self, desk: PlainDesk) -> None:
        assert "Project" not in run(desk, "!/hello")
        run(desk, "!/set(project=site, model=openai:o3)")
        said = run(desk, "!/hello")
        for part in ("1.2.3", "s-1", "site", "openai", "o3"):
            assert part in said


class TestHelp:
    @needs_shared
    def test_every_command_of_the_specification_is_listed(self, desk: PlainDesk) -> None:
        said = run(desk, "!/help")
        for name in commands_of_the_page():
            assert registry.known(name), name
            assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", said), name

    @needs_shared
    def test_every_key_of_the_specification_that_exists_is_listed_with_value_and_source(self, desk: PlainDesk) -> None:
        said = run(desk, "!/help(set)")
        listed = 0
        for row in spec_page("configuration.md").splitlines():
            cells = [cell.strip() for cell in row.split(" | ")]
            if len(cells) < 6 or not re.search(r"\b[SP]\b", cells[4]):
                continue
            for name in re.findall(r"`([\w-]+)`", cells[4]):
                if option := KEYS.find(name):
                    assert option.chat is not None
                    assert f"\n  {option.chat.name} = " in said, name
                    listed += 1
        assert listed > 20

    def test_every_declared_key_is_listed(self, desk: PlainDesk) -> None:
        run(desk, "!/temperature(0.3)")
        said = run(desk, "!/help(set)")
        for option in KEYS:
            assert option.chat is not None
            assert f"\n  {option.chat.name} = " in said
        assert "temperature = 0.3 (session)" in said

    @pytest.mark.parametrize("typed", ["!/help(!/set)", "!/help(SET)", "!/help(Set)", "!/HELP(set)"])
    def test_any_spelling_of_a_name_does(self, desk: PlainDesk, typed: str) -> None:
        assert run(desk, typed) == run(desk, "!/help(set)")

    def test_name_purpose_forms_keys_and_examples_are_shown(self, desk: PlainDesk) -> None:
        said = run(desk, "!/help(one_off)")
        command = registry.find("oneoff")
        assert command is not None
        for part in (command.name, command.purpose, *command.forms, *command.examples):
            assert part in said
        assert "temperature = " in run(desk, "!/help(temperature)")

    def test_a_key_that_is_no_command_is_explained_too(self, desk: PlainDesk) -> None:
        assert "0 to 1" in run(desk, "!/help(top_p)")

    def test_an_unknown_name_gets_the_nearest(self, desk: PlainDesk) -> None:
        assert "!/model" in fail(desk, "!/help(modle)")
        assert "!/help lists all" in fail(desk, "!/help(quite-another-thing)")

    def test_no_text_shows_a_prefix_that_is_not_in_force(self) -> None:
        desk = PlainDesk("##")
        for command in registry.COMMANDS:
            assert "!/" not in run(desk, f"##help({command.name})")
        assert "!/" not in run(desk, "##help")


class TestUnknown:
    def test_the_nearest_name_is_shown(self, desk: PlainDesk) -> None:
        assert "!/model" in registry.unknown(desk, "modle")
        assert "##route-list" in registry.unknown(PlainDesk("##"), "route_lst")

    def test_without_a_near_name_help_is(self, desk: PlainDesk) -> None:
        said = registry.unknown(desk, "helpx-and-more")
        assert "!/help" in said

    @given(st.text("abc", max_size=6), st.text("abc", max_size=6), st.text("abc", max_size=6))
    def test_the_distance_is_symmetric_and_zero_for_equals_only(self, one: str, other: str, third: str) -> None:
        assert distance(one, other) == distance(other, one)
        assert (distance(one, other) == 0) == (one == other)
        assert distance(one, other) <= max(len(one), len(other))

    def test_two_exchanged_letters_are_one_mistake(self) -> None:
        assert distance("modle", "model") == 1
        assert distance("kitten", "sitting") == 3


class TestStatus:
    def test_the_rule_that_chose_is_named(self, desk: PlainDesk) -> None:
        desk.rule = "model alias ^gpt-(.*)"
        assert "model alias ^gpt-(.*)" in run(desk, "!/status")

    def test_a_cooling_key_is_shown_with_its_seconds(self, desk: PlainDesk) -> None:
        desk.resting = [RestingKey("openai#2", "gpt-4o", "cooling", 11.2)]
        said = run(desk, "!/status")
        assert "openai#2" in said
        assert "12 s" in said

    def test_attempts_are_shown_in_order_and_what_is_left_out_with_the_reason(self, desk: PlainDesk) -> None:
        desk.ahead = Outlook(
            ("openai:m with key a", "openai:m with key b"), ("gemini:g with key c: cooling for 12 s, 429",)
        )
        said = run(desk, "!/status")
        assert "Attempts in order: openai:m with key a, then openai:m with key b\n" in said
        assert "Left out now: gemini:g with key c: cooling for 12 s, 429\n" in said

    def test_a_long_list_of_attempts_is_cut(self, desk: PlainDesk) -> None:
        desk.ahead = Outlook(tuple(f"b:m{number}" for number in range(9)))
        assert "then b:m5 and 3 more" in run(desk, "!/status")

    def test_without_usage_there_are_zeros(self, desk: PlainDesk) -> None:
        said = run(desk, "!/status")
        assert "0 input and 0 output tokens in 0 requests, cost 0.0000" in said
        assert "Context: 0 tokens" in said

    def test_session_values_one_off_usage_and_context_are_shown(self, desk: PlainDesk) -> None:
        run(desk, "!/set(temperature=0.4, project=site)")
        run(desk, "!/oneoff(openai:o3)")
        desk.session.totals.prompt = 1200
        desk.session.totals.cost = 0.25
        desk.session.totals.context = 300
        desk.window = 1000
        said = run(desk, "!/status")
        for part in ("temperature = 0.4", "project = site", "openai:o3", "1200", "0.2500", "300 of 1000"):
            assert part in said


def commands_of_the_page() -> set[str]:
    """Every `!/name` in the behaviour paragraphs and tables of the commands' page."""
    page = spec_page("commands.md").partition("## Commands")[2]
    names: set[str] = set()
    for line in page.splitlines():
        if line.startswith(("Behaviour:", "Acceptance:", "- given")):
            if line.startswith("Behaviour:"):
                names.update(re.findall(r"`!/([a-z-]+)", line))
                names.update(
                    name
                    for group in re.findall(r"\(alias(?:es)? ([^)]*)\)", line)
                    for name in re.findall(r"`([a-z-]+)`", group)
                )
        elif match := re.match(r"\| ([a-z-]+) \|", line):
            names.add(match[1])
    return names - {"-"}
