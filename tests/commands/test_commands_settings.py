"""set, unset and interactive (CMD-06, CMD-08, CMD-11)."""

from __future__ import annotations

import pytest

from tests.commands.desk import KEYS, PlainDesk, fail, run


class TestSet:
    def test_several_keys_are_applied_together(self, desk: PlainDesk) -> None:
        run(desk, '!/set(project="my project, two", temperature=0.7)')
        assert desk.session.values == {"project": "my project, two", "temperature": 0.7}
        assert desk.session.changed

    def test_one_bad_value_keeps_all_as_they_were(self, desk: PlainDesk) -> None:
        said = fail(desk, "!/set(backend=gemini, temperature=5)")
        assert desk.session.values == {}
        assert not desk.session.changed
        assert "0 to 2" in said
        assert "GEMINI_API_KEY is not set" in said

    def test_one_bad_key_keeps_all_as_they_were(self, desk: PlainDesk) -> None:
        said = fail(desk, "!/set(temperature=1, foo=1, default-interactive=false)")
        assert "foo" in said
        assert (desk.session.values, desk.saved) == ({}, {})

    def test_case_and_underscores_do_not_matter(self, desk: PlainDesk) -> None:
        run(desk, "!/set(Tool_Loop_Max_Repeats=6)")
        assert desk.session.values == {"tool-loop-max-repeats": 6}

    @pytest.mark.parametrize(("typed", "near"), [("temprature", "temperature"), ("foo", "loop"), ("projet", "project")])
    def test_an_unknown_key_gets_the_nearest(self, desk: PlainDesk, typed: str, near: str) -> None:
        assert near in fail(desk, f"!/set({typed}=1)")

    def test_a_key_under_two_names_is_refused(self, desk: PlainDesk) -> None:
        assert "twice" in fail(desk, "!/set(project=a, project-name=b)")
        assert desk.session.values == {}

    @pytest.mark.parametrize("line", ["!/set(temperature)", "!/set(temperature=)"])
    def test_a_key_needs_a_value(self, desk: PlainDesk, line: str) -> None:
        assert "temperature" in fail(desk, line)

    @pytest.mark.parametrize("line", ["!/set", "!/set()"])
    def test_without_arguments_the_current_values_are_listed(self, desk: PlainDesk, line: str) -> None:
        run(desk, "!/temperature(0.5)")
        said = run(desk, line)
        assert "temperature = 0.5 (session)" in said
        assert len(said.splitlines()) == 1 + len(list(KEYS))

    @pytest.mark.parametrize(
        ("typed", "value"),
        [("true", True), ("YES", True), ("on", True), ("1", True), ("false", False), ("no", False), ("none", False)],
    )
    def test_booleans_are_read_in_all_their_words(self, desk: PlainDesk, typed: str, value: bool) -> None:
        run(desk, f"!/set(loop={typed})")
        assert desk.session.values == {"loop-detection": value}

    @pytest.mark.parametrize(
        "pair",
        [
            "temperature=nan", "temperature=-0.1", "top-p=1.5", "tool-loop-max-repeats=1", "tool-loop-ttl=0",
            "tool-loop-ttl=1.5", "thinking-budget=64", "thinking-budget=65537", "reasoning-effort=much",
            "loop-detection=perhaps", "tool-loop-mode=stop", "gemini-generation-config=[1]",
            "gemini-generation-config={broken}", "reasoning-mode=huge", "project-dir=relative/path",
        ],
    )  # fmt: skip
    def test_values_out_of_range_are_refused_with_the_range(self, desk: PlainDesk, pair: str) -> None:
        assert "expected" in fail(desk, f"!/set({pair})")
        assert desk.session.values == {}

    @pytest.mark.parametrize(
        ("pair", "key", "value"),
        [
            ("thinking_budget=-1", "thinking-budget", -1),
            ("budget=128", "thinking-budget", 128),
            ("reasoning-effort=maximum", "reasoning-effort", "max"),
            ('gemini-generation-config={"thinkingConfig":{"thinkingBudget":0}}', "gemini-generation-config",
             {"thinkingConfig": {"thinkingBudget": 0}}),
            ("reasoning=(effort=high)", "reasoning", {"effort": "high"}),
            ("reasoning=(effort=low, max_tokens=2000, exclude=yes)", "reasoning",
             {"effort": "low", "max_tokens": 2000, "exclude": True}),
            ('reasoning={"max_tokens": 2000, "exclude": false}', "reasoning", {"max_tokens": 2000, "exclude": False}),
            ("reasoning='{\"effort\": \"high\"}'", "reasoning", {"effort": "high"}),
            ("reasoning(effort=high)", "reasoning", {"effort": "high"}),
            ("reasoning-mode=max", "reasoning-mode", "high"),
            ("reasoning-mode=no_think", "reasoning-mode", "none"),
            ("reasoning-mode=LOW", "reasoning-mode", "low"),
        ],
    )  # fmt: skip
    def test_values_are_stored_typed_under_the_canonical_key(
        self, desk: PlainDesk, pair: str, key: str, value: object
    ) -> None:
        run(desk, f"!/set({pair})")
        assert desk.session.values == {key: value}

    @pytest.mark.parametrize(
        "value",
        ["(effort=much)", "(max_tokens=5)", "(exclude=perhaps)", "(budget=1)", "()", "high", "{}", '{"effort": 3}'],
    )
    def test_reasoning_checks_each_member(self, desk: PlainDesk, value: str) -> None:
        assert "reasoning" in fail(desk, f"!/set(reasoning={value})")
        assert desk.session.values == {}

    def test_deeply_nested_json_is_refused(self, desk: PlainDesk) -> None:
        deep = '{"a":' * 5000 + "1" + "}" * 5000
        assert "JSON" in fail(desk, f"!/set(gemini-generation-config='{deep}')")


class TestModelAndBackend:
    def test_a_model_with_its_back_end_sets_both(self, desk: PlainDesk) -> None:
        run(desk, "!/set(model=openrouter:mistralai/mistral-7b-instruct)")
        assert desk.session.values == {"backend": "openrouter", "model": "mistralai/mistral-7b-instruct"}
        run(desk, "!/unset(model)")
        assert desk.session.values == {}

    def test_the_slash_form_sets_both_too(self, desk: PlainDesk) -> None:
        run(desk, "!/set(model=OpenAI/gpt-4o)")
        assert desk.session.values == {"backend": "openai", "model": "gpt-4o"}

    def test_beside_a_back_end_the_slash_belongs_to_the_model(self, desk: PlainDesk) -> None:
        run(desk, "!/set(model=openai/gpt-4o, backend=openrouter)")
        assert desk.session.values == {"backend": "openrouter", "model": "openai/gpt-4o"}
        run(desk, "!/set(model=anthropic/claude-3)")
        assert desk.session.values == {"backend": "openrouter", "model": "anthropic/claude-3"}

    def test_two_different_back_ends_are_refused(self, desk: PlainDesk) -> None:
        assert "anthropic" in fail(desk, "!/set(backend=anthropic, model=openai:gpt-4o)")
        assert desk.session.values == {}

    def test_an_unknown_left_part_belongs_to_the_model(self, desk: PlainDesk) -> None:
        run(desk, "!/set(model=llama3:8b)")
        assert desk.session.values == {"model": "llama3:8b"}

    def test_a_model_outside_a_known_catalogue_is_accepted_with_a_note(self, desk: PlainDesk) -> None:
        said = run(desk, "!/set(model=openai:gpt-4oo)")
        assert "does not list" in said
        assert "gpt-4o." in said
        assert "Note" not in run(desk, "!/set(model=anthropic:claude-9)")

    def test_a_route_is_a_model_without_a_note(self, desk: PlainDesk) -> None:
        run(desk, "!/create-failover-route(openai:mix, m)")
        assert "Note" not in run(desk, "!/set(model=openai:mix)")
        assert desk.session.values == {"model": "openai:mix"}
        assert "Note" not in run(desk, "!/set(model=route:openai:mix)")
        assert desk.session.values == {"model": "route:openai:mix"}

    def test_a_known_back_end_that_is_not_functional_is_refused_with_the_missing_piece(self, desk: PlainDesk) -> None:
        for line in ("!/set(backend=gemini)", "!/set(model=gemini:g)", "!/set(default-backend=gemini)"):
            assert "GEMINI_API_KEY is not set" in fail(desk, line)
        assert (desk.session.values, desk.saved) == ({}, {})

    @pytest.mark.parametrize("model", ["openai:", "x" * 513, "a\x07b"])
    def test_what_can_be_no_model_name_is_refused(self, desk: PlainDesk, model: str) -> None:
        assert "model" in fail(desk, f"!/set(model={model})")
        assert desk.session.values == {}

    @pytest.mark.parametrize(
        "line", ["!/set(model=x)", "!/model(x)", "!/set(backend=openai)", "!/backend(openai)", "!/oneoff(openai:x)"]
    )
    def test_an_operators_lock_is_named_and_nothing_changes(self, desk: PlainDesk, line: str) -> None:
        reason = "the static route openai:g is in force"
        desk.pinned = {"model": reason, "backend": reason, "one-off": reason}
        assert reason in fail(desk, line)
        assert (desk.session.values, desk.session.one_off) == ({}, "")

    def test_force_model_leaves_the_back_end_free(self, desk: PlainDesk) -> None:
        desk.pinned = {"model": "force_model", "one-off": "force_model"}
        run(desk, "!/backend(openai)")
        assert desk.session.values == {"backend": "openai"}


class TestUnset:
    @pytest.mark.parametrize("key", ["model", "backend"])
    def test_model_and_back_end_go_together(self, desk: PlainDesk, key: str) -> None:
        run(desk, "!/model(openai:gpt-4o)")
        run(desk, f"!/unset({key})")
        assert desk.session.values == {}

    def test_both_named_at_once_are_no_mistake(self, desk: PlainDesk) -> None:
        run(desk, "!/backend(openai)")
        assert "Not set" not in run(desk, "!/unset(model, backend)")

    def test_what_was_not_set_is_said_and_is_no_failure_beside_others(self, desk: PlainDesk) -> None:
        run(desk, "!/temperature(1)")
        said = run(desk, "!/unset(temperature, project)")
        assert "Not set before: project" in said
        assert desk.session.values == {}

    def test_alone_it_is_an_error(self, desk: PlainDesk) -> None:
        assert "not set" in fail(desk, "!/unset(project)")
        assert "unset(key" in fail(desk, "!/unset")
        assert "unset(key" in fail(desk, "!/unset()")

    def test_one_unknown_key_keeps_all(self, desk: PlainDesk) -> None:
        run(desk, "!/temperature(1)")
        assert "temperature" in fail(desk, "!/unset(temperature, temperatur)")
        assert "alone" in fail(desk, "!/unset(temperature=1)")
        assert desk.session.values == {"temperature": 1.0}


class TestForAll:
    def test_a_saved_key_is_saved_and_unset_removes_it(self, desk: PlainDesk) -> None:
        assert "all sessions" in run(desk, "!/set(default-backend=anthropic)")
        assert desk.saved == {"default_backend": "anthropic"}
        assert desk.session.values == {}
        run(desk, "!/unset(default-backend)")
        assert desk.saved == {}
        assert "not set" in fail(desk, "!/unset(default-backend)")

    def test_a_refusal_keeps_everything(self, desk: PlainDesk) -> None:
        desk.no_change_for_all = "only the keys in auth.admin_keys may change the proxy for all"
        assert "admin_keys" in fail(desk, "!/set(default-interactive=false, temperature=1)")
        assert (desk.session.values, desk.saved) == ({}, {})
        desk.saved = {"default_backend": "demo"}
        assert "admin_keys" in fail(desk, "!/unset(default-backend)")
        assert desk.saved == {"default_backend": "demo"}

    def test_the_winner_of_a_lock_is_named(self, desk: PlainDesk) -> None:
        desk.locks = {"default_backend": "flag --default-backend"}
        said = run(desk, "!/set(default-backend=demo)")
        assert "saved, but not effective: flag --default-backend wins" in said
        assert desk.saved == {"default_backend": "demo"}
        assert "--default-backend" in run(desk, "!/unset(default-backend)")
        assert desk.saved == {}

    def test_the_prefix_changes_and_returns(self, desk: PlainDesk) -> None:
        said = run(desk, "!/set(command-prefix=##)")
        assert "##help" in said
        assert "##unset(command-prefix)" in said
        assert desk.saved == {"command_prefix": "##"}
        run(desk, "##unset(command-prefix)")
        assert desk.prefix == "!/"

    def test_a_locked_prefix_is_not_announced(self, desk: PlainDesk) -> None:
        desk.locks = {"command_prefix": "env COMMAND_PREFIX"}
        said = run(desk, "!/set(command-prefix=##)")
        assert "env COMMAND_PREFIX wins" in said
        assert "##help" not in said

    @pytest.mark.parametrize("prefix", ["aa", "a b", "x", "12345678901", "77"])
    def test_a_bad_prefix_gets_the_rule(self, desk: PlainDesk, prefix: str) -> None:
        said = fail(desk, f"!/set(command-prefix={prefix})")
        assert "2 to 10 printable characters" in said
        assert desk.saved == {}


class TestInteractive:
    def test_without_value_it_toggles_and_says_so(self, desk: PlainDesk) -> None:
        assert "is off" in run(desk, "!/interactive")
        assert "is on" in run(desk, "!/interactive")

    def test_it_toggles_from_the_default_of_new_sessions(self, desk: PlainDesk) -> None:
        run(desk, "!/set(default-interactive=off)")
        assert "is on" in run(desk, "!/interactive")

    @pytest.mark.parametrize(("typed", "mode"), [("true", True), ("on", True), ("false", False), ("off", False)])
    def test_it_takes_a_value(self, desk: PlainDesk, typed: str, mode: bool) -> None:
        run(desk, f"!/interactive({typed})")
        assert desk.session.values == {"interactive": mode}

    @pytest.mark.parametrize("key", ["interactive", "interactive-mode"])
    def test_set_and_unset_reach_it(self, desk: PlainDesk, key: str) -> None:
        run(desk, f"!/set({key}=off)")
        assert desk.session.values == {"interactive": False}
        run(desk, f"!/unset({key})")
        assert desk.session.values == {}

    def test_another_value_is_refused(self, desk: PlainDesk) -> None:
        assert "true or false" in fail(desk, "!/interactive(perhaps)")
        assert desk.session.values == {}
