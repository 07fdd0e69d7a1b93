"""RT-04 to RT-06 and section 3 in the configuration: locks, rules for names, their sources, and what is told about wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.config import Settings
from llm_proxy.config.backends import Fallback
from llm_proxy.config.reload import Reloader, changed_paths
from llm_proxy.option_groups import GROUPS
from llm_proxy.routing.aliases import Rule
from llm_proxy.routing.options import ChoiceOptions
from tests.config.conftest import Load, Refuse

FILE = "model_aliases:\n  - {pattern: '^file-(.*)', replacement: 'openai:\\1'}\n"
VARIABLE = '[{"pattern": "^env-(.*)", "replacement": "gemini:\\\\1"}]'
OF_FILE = (Rule("^file-(.*)", r"openai:\1"),)
OF_VARIABLE = (Rule("^env-(.*)", r"gemini:\1"),)


def rules(settings: Settings) -> tuple[Rule, ...]:
    return settings.get(ChoiceOptions).model_aliases


# RT-06: sources


def test_the_list_of_the_stronger_source_replaces_the_whole_list(load: Load) -> None:
    flags = ("--model-alias", "a=b", "--model-alias", r"c\=d=e=f")
    of_flags = (Rule("a", "b"), Rule("c=d", "e=f"))
    assert rules(load(file=FILE)) == OF_FILE
    assert rules(load(file=FILE, env={"MODEL_ALIASES": VARIABLE})) == OF_VARIABLE
    settings = load(*flags, file=FILE, env={"MODEL_ALIASES": VARIABLE})
    assert rules(settings) == of_flags
    assert settings.source_of("model_aliases") == "flag --model-alias"


@given(st.lists(st.sampled_from(["a{1,3}=x,y", "^gpt-[a,b]=[c]", "b=c"]), min_size=1, max_size=4))
def test_commas_and_brackets_in_flags_are_text(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    argv = [word for text in texts for word in ("--model-alias", text)]
    settings = Reloader(argv, {"HOME": "/nowhere"}, tmp_path_factory.getbasetemp(), GROUPS).load()
    assert [f"{rule.pattern}={rule.replacement}" for rule in rules(settings)] == texts


def test_the_generic_forms(load: Load) -> None:
    text = "[{pattern: a, replacement: b}]"
    assert rules(load("--set", f"model_aliases={text}", env={"MODEL_ALIASES": VARIABLE})) == (Rule("a", "b"),)
    assert rules(load("--set", "model_aliases=^a(.*)=b", file=FILE)) == (Rule("^a(.*)", "b"),)
    assert rules(load(env={"LLM_PROXY__MODEL_ALIASES": text}, file=FILE)) == (Rule("a", "b"),)


def test_an_empty_list_of_a_stronger_source_counts(load: Load) -> None:
    assert rules(load(file=FILE, env={"MODEL_ALIASES": "[]"})) == ()


# RT-06: bad input


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[=x", "missing ]: ["),
        (r"a=\1", "names group 1, but the pattern has 0"),
        ("(?=a)=x", "look-around"),
        ("ab", "expected PATTERN=REPLACEMENT"),
        (r"a\=b", "expected PATTERN=REPLACEMENT"),
    ],
)
def test_a_wrong_flag_is_refused_with_the_reason(refuse: Refuse, text: str, reason: str) -> None:
    [error] = refuse("--model-alias", "fine=x", "--model-alias", text)
    assert error.startswith("flag --model-alias: model_aliases: ") and reason in error
    [error] = refuse("--set", f"model_aliases={text}") if not text.startswith("[") else [error]
    assert error.startswith("flag --")


def test_every_wrong_flag_is_told(refuse: Refuse) -> None:
    assert len(refuse("--model-alias", "[=x", "--model-alias", "(=x", "--model-alias", "ok=x")) == 2


@pytest.mark.parametrize("text", ["notjson", "{}", '{"pattern": "a", "replacement": "b"}', "[", "1", '"a=b"', "[a]"])
def test_a_variable_that_is_no_json_list_is_ignored_with_a_warning(load: Load, text: str) -> None:
    settings = load(file=FILE, env={"MODEL_ALIASES": text})
    assert rules(settings) == OF_FILE
    [warning] = [warning for warning in settings.warnings if "MODEL_ALIASES" in warning]
    assert warning.startswith("env MODEL_ALIASES: model_aliases: expected a JSON list") and "ignored" in warning


def test_a_wrong_rule_of_the_file_is_left_out_with_an_error_naming_its_position(load: Load) -> None:
    file = (
        "model_aliases:\n  - {pattern: a, replacement: b}\n  - {pattern: '[', replacement: x}\n"
        "  - {pattern: 'c(.)', replacement: '\\1\\2'}\n  - {pattern: d, replacement: e}\n"
    )
    settings = load(file=file)
    assert rules(settings) == (Rule("a", "b"), Rule("d", "e"))
    errors = [warning for warning in settings.warnings if "ERROR" in warning]
    assert [error.partition(" ")[0] for error in errors] == ["config.yaml:3:5:", "config.yaml:4:5:"]
    assert "rule 2 is left out: the pattern is not a regular expression: missing ]: [" in errors[0]
    assert "rule 3 is left out: the replacement names group 2, but the pattern has 1" in errors[1]


def test_a_wrong_rule_of_the_variable_is_left_out_with_an_error_naming_its_position(load: Load) -> None:
    text = (
        '[{"pattern": "[", "replacement": "x"}, {"pattern": "a"}, {"pattern": "(?P<n>a)", "replacement": "\\\\g<m>"}, '
        '{"pattern": "b", "replacement": "c"}, 7, "d=e"]'
    )
    settings = load(file=FILE, env={"MODEL_ALIASES": text})
    assert rules(settings) == (Rule("b", "c"), Rule("d", "e"))
    errors = [warning for warning in settings.warnings if "ERROR" in warning]
    assert [error.partition(" is left out")[0] for error in errors] == [
        f"env MODEL_ALIASES: ERROR: model_aliases: rule {position}" for position in (1, 2, 3, 5)
    ]


@pytest.mark.parametrize(
    ("entry", "column", "text"),
    [
        ("{pattern: a}", 19, "`replacement` is missing"),
        ("{replacement: a}", 19, "`pattern` is missing"),
        ("{pattern: 1, replacement: a}", 29, "expected text for `pattern`, in quotes, got 1"),
        ("{pattern: a, replacement: }", 44, "expected text for `replacement`, in quotes, got nothing"),
        ("{pattern: a, replacement: b, flags: i}", 48, 'expected `pattern` and `replacement` only, got "flags"'),
        ("a=b", 19, "expected a rule with `pattern` and `replacement`"),
    ],
)
def test_a_rule_of_another_form_in_the_file_is_refused_at_its_place(
    refuse: Refuse, entry: str, column: int, text: str
) -> None:
    [error] = refuse(file=f"model_aliases: [  {entry}]")
    assert error.startswith(f"config.yaml:1:{column}: model_aliases: ") and text in error


def test_what_is_no_list_in_the_file_is_refused(refuse: Refuse) -> None:
    for value in ("a=b", "{pattern: a, replacement: b}", "3"):
        [error] = refuse(file=f"model_aliases: {value}")
        assert error.startswith("config.yaml:1:16: model_aliases: expected a list of rules")


def test_a_rule_with_an_unset_variable_is_refused_at_its_place(refuse: Refuse) -> None:
    errors = refuse(file="model_aliases: [{pattern: a, replacement: '${NOT_SET}:x'}]")
    assert any(error.startswith("config.yaml:1:43: model_aliases") and "NOT_SET" in error for error in errors)


def test_an_added_rule_is_a_change_and_a_broken_one_costs_no_reload(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("{}")
    reloader = Reloader([], {"HOME": str(tmp_path)}, tmp_path, GROUPS)
    before = reloader.load()
    file.write_text(FILE)
    after = reloader.load()
    assert rules(after) == OF_FILE
    assert any(line.startswith("model_aliases: ") for line in changed_paths(before, after))
    file.write_text(FILE + "  - {pattern: '(', replacement: x}\n")
    again = reloader.load()
    assert rules(again) == OF_FILE
    assert any("rule 2 is left out" in warning for warning in again.warnings)
    file.write_text("# a line more\n" + FILE)
    assert changed_paths(after, reloader.load()) == []


# RT-04, RT-05


def test_the_locks_and_their_sources(load: Load) -> None:
    options = load(
        "--force-model",
        "f",
        env={"STATIC_ROUTE": "openai:s", "FORCE_MODEL": "other", "OPENAI_API_KEY": "k"},
        file="backends: {static_route: 'gemini:file'}\nforce_model: third\n",
    ).get(ChoiceOptions)
    assert (options.static_route, options.force_model) == ("openai:s", "f")
    assert load(file="backends: {static_route: 'demo:file'}").get(ChoiceOptions).static_route == "demo:file"


@pytest.mark.parametrize("value", ["opnai:gpt-4o", "OPNAI:gpt-4o"])
def test_a_static_route_to_an_unknown_back_end_is_refused_with_the_nearest_id(refuse: Refuse, value: str) -> None:
    [error] = refuse("--static-route", value)
    assert error.startswith("flag --static-route: static_route: ") and "did you mean openai" in error
    [error] = refuse(file=f"static_route: '{value}'")
    assert error.startswith("config.yaml:1:15: static_route: ")


@pytest.mark.parametrize(
    "value", ["gpt-4o", "deepseek/deepseek-r1", "deepseek/deepseek-r1:free", "OpenAI:gpt-4o", "coding", "route:coding"]
)
def test_a_model_a_failover_route_and_a_known_id_are_fine(load: Load, value: str) -> None:
    file = "failover_routes: {coding: {policy: m, elements: ['demo:a']}}"
    assert load("--static-route", value, file=file).get(ChoiceOptions).static_route == value


def test_a_failover_route_may_be_named_with_a_colon(load: Load) -> None:
    file = "static_route: 'fast:now'\nfailover_routes: {'fast:now': {policy: m, elements: ['demo:a']}}"
    assert load(file=file).get(ChoiceOptions).static_route == "fast:now"


def test_a_static_back_end_without_a_key_costs_a_warning_that_names_the_variable(load: Load) -> None:
    warnings = load("--static-route", "gemini:g").warnings
    assert any(
        "static_route: gemini has no usable key" in warning and "GEMINI_API_KEY" in warning for warning in warnings
    )
    assert not load("--static-route", "gemini:g", env={"GEMINI_API_KEY": "k"}).warnings


def test_an_unknown_prefix_of_a_forced_model_is_part_of_the_model(load: Load) -> None:
    assert load("--force-model", "llama3:8b").get(ChoiceOptions).force_model == "llama3:8b"


PLANNED = ("--enable-planning-phase", "--planning-phase-strong-model")


@pytest.mark.parametrize("flags", [("--force-model",), PLANNED], ids=["forced", "strong"])
def test_what_is_nearly_an_id_or_cannot_be_called_costs_a_warning(load: Load, flags: tuple[str, ...]) -> None:
    [warning] = load(*flags, "opnai:o3").warnings
    assert "did you mean openai" in warning and "name of a model" in warning
    [warning] = load(*flags, "gemini:g").warnings
    assert "GEMINI_API_KEY" in warning
    for value in ("llama3:8b", "route:coding", "demo:m", "o3"):
        assert not load(*flags, value, file="failover_routes: {coding: {policy: m, elements: ['demo:a']}}").warnings


# RT-03


def test_the_id_of_the_default_back_end_in_any_case(load: Load) -> None:
    settings = load("--default-backend", "OpenAI", env={"OPENAI_API_KEY": "k"})
    assert (settings.default_backend, settings.warnings) == ("openai", [])


def test_a_disabled_default_costs_a_warning_that_says_so(load: Load) -> None:
    settings = load(
        "--default-backend", "openai", env={"OPENAI_API_KEY": "k"}, file="backends: {openai: {enabled: false}}"
    )
    assert settings.warnings == [
        "flag --default-backend: default_backend: openai is disabled; remove backends.openai.enabled"
    ]


# BE-01


@pytest.mark.parametrize(
    "file",
    [
        "static_route: 'openai-responses:gpt-4o'",
        "model_aliases: [{pattern: 'gpt-(.*)', replacement: 'openai-responses:gpt-\\1'}]",
        "failover_routes: {a: {policy: m, elements: ['openai-responses/gpt-4o']}}",
        "backends: {gemini: {fallback: {backend: openai-responses, model: gpt-4o}}}",
        "default_backend: openai-responses",
    ],
)
def test_what_is_named_counts_as_mentioned(load: Load, file: str) -> None:
    backend = load(file=file, env={"OPENAI_API_KEY": "k"}).backends["openai-responses"]
    assert (backend.mentioned, backend.functional) == (True, True)


def test_what_is_named_nowhere_is_not_mentioned(load: Load) -> None:
    file = "model_aliases: [{pattern: 'openai-responses:(.*)', replacement: '\\1:x'}]"
    backend = load(file=file, env={"OPENAI_API_KEY": "k"}).backends["openai-responses"]
    assert (backend.mentioned, backend.functional) == (False, False)


# Section 3: static_route and fallback of one back-end


def test_the_model_and_the_fallback_of_one_back_end(load: Load) -> None:
    file = "backends: {openai: {static_route: gpt-5, fallback: {backend: Gemini, model: g}}}"
    openai = load(file=file).backends["openai"]
    assert (openai.static_route, openai.fallback) == ("gpt-5", Fallback("gemini", "g"))
    untouched = load(file="{}").backends["openai"]
    assert (untouched.static_route, untouched.fallback) == (None, None)


def test_the_fallback_from_flags_and_variables(load: Load) -> None:
    by_flag = load("--set", "backends.openai.fallback={backend: gemini, model: g}").backends["openai"]
    name = "LLM_PROXY__BACKENDS__OPENAI__FALLBACK"
    by_variable = load(env={name: '{"backend": "gemini", "model": "g"}'}).backends["openai"]
    assert by_flag.fallback == by_variable.fallback == Fallback("gemini", "g")


@pytest.mark.parametrize(
    ("fallback", "column", "text"),
    [
        ("{backend: gmini, model: g}", 41, 'no back-end has the id "gmini", did you mean gemini'),
        ("{backend: gemini}", 31, "backends.openai.fallback.model: expected text"),
        ("{model: g}", 31, "backends.openai.fallback.backend: expected text"),
        ("{backend: gemini, model: 4}", 56, "backends.openai.fallback.model: expected text, in quotes, got 4"),
        ("{backend: gemini, model: g, key: k}", 59, "unknown key backends.openai.fallback.key"),
        ("gemini:g", 31, "backends.openai.fallback: expected a map"),
    ],
)
def test_a_wrong_fallback_is_refused_at_its_place(refuse: Refuse, fallback: str, column: int, text: str) -> None:
    [error] = refuse(file=f"backends: {{openai: {{fallback: {fallback}}}}}")
    assert error.startswith(f"config.yaml:1:{column}: ") and text in error
