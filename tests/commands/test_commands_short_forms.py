"""Short forms, projects, loop switches and reasoning modes (CMD-12 to CMD-15, CMD-17)."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_proxy.commands.places import split
from llm_proxy.routing.targets import parse
from tests.commands.desk import BACKENDS, PlainDesk, fail, run


class TestChoices:
    def test_a_bare_model_keeps_the_back_end(self, desk: PlainDesk) -> None:
        run(desk, "!/backend(anthropic)")
        run(desk, "!/model(gpt-4o-mini)")
        assert desk.session.values == {"backend": "anthropic", "model": "gpt-4o-mini"}

    def test_provider_is_backend(self, desk: PlainDesk) -> None:
        run(desk, "!/provider(OPENAI)")
        assert desk.session.values == {"backend": "openai"}

    def test_an_unknown_back_end_gets_the_functional_ids(self, desk: PlainDesk) -> None:
        assert "anthropic, demo, openai, openrouter" in fail(desk, "!/backend(nosuch)")

    @pytest.mark.parametrize(
        "line", ["!/backend", "!/provider", "!/model", "!/temperature", "!/openai-url", "!/model()"]
    )
    def test_without_argument_the_current_value_is_shown(self, desk: PlainDesk, line: str) -> None:
        name = line.removeprefix("!/").removesuffix("()").replace("provider", "backend")
        assert run(desk, line).startswith(f"{name} = ")
        assert desk.session.values == {}

    def test_temperature(self, desk: PlainDesk) -> None:
        run(desk, "!/temperature(0.2)")
        assert desk.session.values == {"temperature": 0.2}
        assert "0 to 2" in fail(desk, "!/temperature(abc)")
        assert "!/temperature(x)" in fail(desk, "!/temperature(9)")
        assert desk.session.values == {"temperature": 0.2}

    def test_more_than_one_value_is_refused(self, desk: PlainDesk) -> None:
        assert "quotes" in fail(desk, "!/project(one, two)")
        assert "quotes" in fail(desk, "!/project(a=b)")
        run(desk, '!/project("one, two")')
        assert desk.session.values == {"project": "one, two"}

    @pytest.mark.parametrize(
        ("name", "keep_slash"),
        [(name, keep) for keep in (False, True) for name in (
            "openrouter:anthropic/claude-3-haiku:beta", "openai/gpt-4o", "nosuch:model", "OPENAI:gpt-4o", "llama3:8b",
            "deepseek/deepseek-r1:free", "openai/gpt:x", "nosuch:openai/x", "plain",
        )],
    )  # fmt: skip
    def test_names_are_split_as_in_requests(self, desk: PlainDesk, name: str, keep_slash: bool) -> None:
        target = parse(name, {facts.id for facts in BACKENDS}, keep_slash=keep_slash)
        assert split(desk, name, keep_slash=keep_slash) == (target.backend, target.model)


class TestOneOff:
    @pytest.mark.parametrize(
        "line", ["!/oneoff(openrouter:qwen/qwen3-coder)", "!/one-off(openrouter/qwen/qwen3-coder)"]
    )
    def test_it_is_kept_for_the_next_message(self, desk: PlainDesk, line: str) -> None:
        run(desk, line)
        assert desk.session.one_off == "openrouter:qwen/qwen3-coder"
        assert desk.session.values == {}
        assert desk.session.changed

    def test_the_slash_form_names_a_back_end_also_beside_a_session_back_end(self, desk: PlainDesk) -> None:
        run(desk, "!/backend(openrouter)")
        run(desk, "!/oneoff(openai/gpt-4o)")
        assert desk.session.one_off == "openai:gpt-4o"

    def test_a_second_one_replaces_the_first(self, desk: PlainDesk) -> None:
        run(desk, "!/oneoff(openai:o3)")
        assert "instead of openai:o3" in run(desk, "!/oneoff(anthropic:claude-3)")
        assert desk.session.one_off == "anthropic:claude-3"

    @pytest.mark.parametrize(
        "line", ["!/oneoff(gpt-4)", "!/oneoff", "!/oneoff()", "!/oneoff(openai:)", "!/oneoff(nosuch:m)"]
    )
    def test_without_back_end_or_model_the_form_is_shown(self, desk: PlainDesk, line: str) -> None:
        said = fail(desk, line)
        assert "oneoff(backend:model)" in said or "model name" in said
        assert desk.session.one_off == ""

    def test_a_back_end_that_is_not_functional_is_refused(self, desk: PlainDesk) -> None:
        assert "GEMINI_API_KEY" in fail(desk, "!/oneoff(gemini:g)")
        assert desk.session.one_off == ""


class TestOpenaiUrl:
    def test_an_http_address_is_kept_with_its_path(self, desk: PlainDesk) -> None:
        run(desk, "!/set(openai_url=http://localhost:1234/v1/)")
        assert desk.session.values == {"openai-url": "http://localhost:1234/v1"}
        run(desk, "!/unset(openai_url)")
        assert desk.session.values == {}

    @pytest.mark.parametrize(
        "url", ["ftp://x", "http://", "//x/y", "http://u:hidden@x/", "http://x/#top", "x", "http://x/?a", "http://x y/"]
    )
    def test_other_addresses_are_refused(self, desk: PlainDesk, url: str) -> None:
        said = fail(desk, f'!/openai-url("{url}")')
        assert "http" in said
        assert "https" in said
        assert "hidden" not in said
        assert desk.session.values == {}

    def test_a_refused_address_is_refused_with_the_reason(self, desk: PlainDesk) -> None:
        desk.refused_urls = {"http://169.254.169.254": "metadata addresses are closed"}
        assert "metadata addresses are closed" in fail(desk, "!/openai-url(http://169.254.169.254/)")
        assert desk.session.values == {}


class TestProject:
    @pytest.mark.parametrize("line", ["!/project(a)", "!/set(project=a)", "!/set(project-name=a)", "!/project(name=a)"])
    def test_each_form_sets_it(self, desk: PlainDesk, line: str) -> None:
        run(desk, line)
        assert desk.session.values == {"project": "a"}
        run(desk, "!/unset(project-name)")
        assert desk.session.values == {}

    @pytest.mark.parametrize("name", ["x" * 201, "a\nb", "a\r\nX-Header: b", "a\x00b", "a\x1b[31mb", "a\u2028b"])
    def test_long_names_and_control_characters_are_refused(self, desk: PlainDesk, name: str) -> None:
        fail(desk, f'!/project("{name}")')
        assert desk.session.values == {}

    def test_pwd_names_both_commands_when_nothing_is_set(self, desk: PlainDesk) -> None:
        said = run(desk, "!/pwd")
        assert "!/project-dir(path)" in said
        assert "!/project(name)" in said

    def test_pwd_shows_the_project_when_there_is_no_directory(self, desk: PlainDesk) -> None:
        run(desk, "!/project(site)")
        said = run(desk, "!/pwd")
        assert "site" in said
        assert "no project directory is set" in said


class TestProjectDirectory:
    @pytest.mark.parametrize("form", ["!/project-dir({})", "!/set(dir={})", "!/set(project-directory={})"])
    def test_an_existing_directory_is_stored_and_shown(self, desk: PlainDesk, tmp_path: Path, form: str) -> None:
        run(desk, form.format(tmp_path))
        assert desk.session.values == {"project-dir": str(tmp_path.resolve())}
        assert run(desk, "!/pwd") == str(tmp_path.resolve())
        assert str(tmp_path) in run(desk, "!/project-dir")
        run(desk, "!/unset(project-dir)")
        assert desk.session.values == {}

    def test_links_are_resolved_and_home_is_expanded(
        self, desk: PlainDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "real")
        monkeypatch.setenv("HOME", str(tmp_path))
        run(desk, "!/project-dir(~/link)")
        assert desk.session.values == {"project-dir": str((tmp_path / "real").resolve())}

    def test_variables_are_not_expanded(self, desk: PlainDesk) -> None:
        assert "absolute" in fail(desk, "!/project-dir($HOME)")

    def test_a_missing_path_a_file_and_a_relative_path_change_nothing(self, desk: PlainDesk, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        for path in (tmp_path / "missing", tmp_path / "file", tmp_path / "loop", "here", "/" + "x" * 5000):
            fail(desk, f"!/project-dir({path})")
        assert desk.session.values == {}

    def test_a_client_may_be_kept_below_a_directory_and_cannot_probe_others(
        self, desk: PlainDesk, tmp_path: Path
    ) -> None:
        (tmp_path / "inside").mkdir()
        (tmp_path / "inside" / "out").symlink_to("/")
        desk.allowed_directory = str((tmp_path / "inside").resolve())
        for path in ("/", "/missing-and-closed", tmp_path / "inside" / "out"):
            assert "are closed" in fail(desk, f"!/project-dir({path})")
        run(desk, f"!/project-dir({tmp_path / 'inside'})")
        assert desk.session.values == {"project-dir": desk.allowed_directory}


class TestLoopSwitches:
    @pytest.mark.parametrize(
        ("line", "key", "value"),
        [
            ("!/loop-detection(false)", "loop-detection", False),
            ("!/set(loop-detection=false)", "loop-detection", False),
            ("!/tool-loop-detection(off)", "tool-loop-detection", False),
            ("!/tool-loop-max-repeats(6)", "tool-loop-max-repeats", 6),
            ("!/tool_loop_ttl(30)", "tool-loop-ttl", 30),
            ("!/tool-loop-mode(chance_then_block)", "tool-loop-mode", "chance_then_break"),
            ("!/tool-loop-mode(warn)", "tool-loop-mode", "warn"),
        ],
    )
    def test_a_switch_is_the_same_as_set(self, desk: PlainDesk, line: str, key: str, value: object) -> None:
        run(desk, line)
        assert desk.session.values == {key: value}
        assert f"{key} = " in run(desk, f"!/{key}")

    def test_values_out_of_range_are_refused(self, desk: PlainDesk) -> None:
        assert "≥ 2" in fail(desk, "!/tool-loop-max-repeats(1)")
        assert "≥ 1" in fail(desk, "!/tool-loop-ttl(0)")
        assert desk.session.values == {}


class TestReasoningModes:
    @pytest.mark.parametrize(
        ("name", "mode"),
        [
            ("max", "high"), ("high", "high"), ("medium", "medium"), ("low", "low"), ("no-think", "none"),
            ("no-thinking", "none"), ("no-reasoning", "none"), ("disable-thinking", "none"), ("Disable_Reasoning", "none"),
        ],
    )  # fmt: skip
    def test_one_word_sets_the_mode_and_lists_what_is_active(self, desk: PlainDesk, name: str, mode: str) -> None:
        said = run(desk, f"!/{name}")
        assert desk.session.values == {"reasoning-mode": mode}
        assert f"reasoning-mode = {mode}" in said

    def test_the_last_one_counts_and_unset_leaves_the_mode(self, desk: PlainDesk) -> None:
        run(desk, "!/low")
        run(desk, "!/max")
        assert desk.session.values == {"reasoning-mode": "high"}
        run(desk, "!/unset(reasoning-mode)")
        assert desk.session.values == {}

    def test_an_argument_is_refused(self, desk: PlainDesk) -> None:
        assert "!/max" in fail(desk, "!/max(3)")
        assert desk.session.values == {}
