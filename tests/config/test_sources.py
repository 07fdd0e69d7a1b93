"""CFG-01 precedence, CFG-02 locations, CFG-03 generic forms, CFG-04 references."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_proxy.config import OptionGroup, option
from llm_proxy.config.groups import (
    AuthOptions,
    BackendGeneralOptions,
    LoggingOptions,
    ServerOptions,
    UsageOptions,
)
from tests.config.conftest import Load, Refuse


class RoomOptions(OptionGroup, path="loop_detection", title="Loop detection"):
    enabled: bool = option(True, env="LOOP_DETECTION_ENABLED", switch="loop-detection", help="stop loops")
    max_age: int = option(10, minimum=1, help="a row without a flag or a variable of its own")
    names: tuple[str, ...] = option((), help="a list")


@pytest.mark.parametrize(
    ("argv", "env", "file", "port", "source"),
    [
        (["--port", "8300"], {"PROXY_PORT": "8100"}, "proxy: {port: 8200}", 8300, "flag --port"),
        ([], {"PROXY_PORT": "8100"}, "proxy: {port: 8200}", 8100, "env PROXY_PORT"),
        ([], {}, "proxy: {port: 8200}", 8200, "config.yaml:1"),
        ([], {}, None, 8000, "default"),
        (["--port", "1", "--port", "2"], {}, None, 2, "flag --port"),
        ([], {"PROXY_PORT": ""}, "proxy: {port: 8200}", 8200, "config.yaml:1"),
        ([], {"APP_PORT": "5", "PROXY_PORT": "6"}, None, 6, "env PROXY_PORT"),
    ],
)
def test_a_stronger_source_wins(
    load: Load, argv: list[str], env: dict[str, str], file: str | None, port: int, source: str
) -> None:
    settings = load(*argv, env=env, file=file)
    assert settings.get(ServerOptions).port == port
    assert settings.source_of("proxy.port") == source


@pytest.mark.parametrize(("env", "expected"), [({}, "openai"), ({"LLM_BACKEND": "anthropic"}, "anthropic")])
def test_saved_state_lies_between_environment_and_file(load: Load, env: dict[str, str], expected: str) -> None:
    settings = load(env=env, file="default_backend: gemini\n", saved={"default_backend": "openai"})
    assert settings.get(BackendGeneralOptions).default_backend == expected


def test_a_saved_value_that_no_longer_fits_draws_a_warning(load: Load) -> None:
    settings = load(saved={"default_backend": "gone", "proxy.port": "high"})
    assert settings.get(ServerOptions).port == 8000
    assert any('"gone"' in warning for warning in settings.warnings)
    assert any("proxy.port" in warning for warning in settings.warnings)


def test_lists_are_replaced_as_a_whole(load: Load) -> None:
    file = "auth: {allowed_hosts: [file.test]}"
    env = {"ALLOWED_HOSTS": "a.test, b.test"}
    assert load(file=file).get(AuthOptions).allowed_hosts == ("file.test",)
    assert load(file=file, env=env).get(AuthOptions).allowed_hosts == ("a.test", "b.test")
    given = load("--allowed-host", "x", "--allowed-host", "y", file=file, env=env)
    assert given.get(AuthOptions).allowed_hosts == ("x", "y")


def test_blanks_and_quotes_around_a_variable_are_removed(load: Load) -> None:
    backend = load(env={"OPENAI_API_KEY": '" sk-abc "'}).backends["openai"]
    assert [key.secret.reveal() for key in backend.keys] == ["sk-abc"]


def test_real_variables_win_over_the_env_file(load: Load) -> None:
    text = "# comment\nexport PROXY_PORT='8111'\nLOG_LEVEL=debug # why\nPROXY_HOST=\"::1\"\nbroken\n"
    settings = load(env={"PROXY_PORT": "8222"}, dotenv=text)
    assert settings.get(ServerOptions).port == 8222
    assert settings.get(ServerOptions).host == "::1"
    assert settings.get(LoggingOptions).level == "debug"
    assert settings.source_of("logging.level") == "env LOG_LEVEL (.env)"
    assert any(".env:5" in warning for warning in settings.warnings)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("AUTH_TOKEN=a", "a"),
        ("AUTH_TOKEN = a b # why", "a b"),
        ("AUTH_TOKEN=a#b", "a#b"),
        ("AUTH_TOKEN='a # b' # why", "a # b"),
        ("AUTH_TOKEN='\"a\"'", '"a"'),
        ('AUTH_TOKEN=" a "', "a"),
        ("AUTH_TOKEN=a$HOME${HOME}", "a$HOME${HOME}"),
        ("AUTH_TOKEN='a", "'a"),
        ("\texport\tAUTH_TOKEN=a\r", "a"),
        ("AUTH_TOKEN=a=b", "a=b"),
        ("AUTH_TOKEN=a\nAUTH_TOKEN=b", "b"),
        ("AUTH_TOKEN=", None),
        ("AUTH_TOKEN= # nothing", None),
        ("#AUTH_TOKEN=a", None),
    ],
)
def test_lines_of_the_env_file(load: Load, line: str, value: str | None) -> None:
    settings = load(dotenv=f"\ufeff{line}\n")
    token = settings.get(AuthOptions).auth_token
    assert (token.reveal() if token is not None else None) == value
    assert settings.warnings == []


def test_an_empty_real_variable_counts_as_unset(load: Load) -> None:
    assert load(env={"LOG_LEVEL": " "}, dotenv="LOG_LEVEL=debug").get(LoggingOptions).level == "debug"


@pytest.mark.parametrize(
    ("argv", "env", "expected"),
    [
        (["--disable-accounting"], {}, False),
        ([], {"DISABLE_ACCOUNTING": "true"}, False),
        ([], {"DISABLE_ACCOUNTING": "false"}, True),
        ([], {"USAGE_TRACKING_ENABLED": "no"}, False),
    ],
)
def test_a_negative_name_turns_an_option_off(load: Load, argv: list[str], env: dict[str, str], expected: bool) -> None:
    assert load(*argv, env=env).get(UsageOptions).enabled is expected


def test_the_last_of_a_pair_of_switches_wins(load: Load) -> None:
    given = load("--disable-health-checks", "--enable-health-checks")
    assert given.get(BackendGeneralOptions).health_checks is True
    given = load("--enable-health-checks", "--disable-health-checks")
    assert given.get(BackendGeneralOptions).health_checks is False


def test_the_first_existing_file_is_read(load: Load, tmp_path: Path) -> None:
    user = tmp_path / "home/.config/llm-proxy"
    user.mkdir(parents=True)
    (user / "config.yaml").write_text("port: 5")
    assert load().get(ServerOptions).port == 5
    assert load(name="config.json", file='{"port": 4}').get(ServerOptions).port == 4
    assert load(name="config.yml", file="port: 3").get(ServerOptions).port == 3
    assert load(file="port: 2").get(ServerOptions).port == 2
    other = tmp_path / "other.yaml"
    other.write_text("port: 1")
    assert load(env={"LLM_PROXY_CONFIG": "other.yaml"}).config_file == other
    named = load("--config", "config.yml", env={"LLM_PROXY_CONFIG": "other.yaml"})
    assert named.get(ServerOptions).port == 3


def test_no_file_at_all_means_defaults_and_demo(load: Load) -> None:
    settings = load()
    assert settings.config_file is None
    assert settings.default_backend == "demo"
    assert settings.warnings == []


def test_an_unsupported_extension_is_refused(refuse: Refuse) -> None:
    [error] = refuse("--config", "missing.toml")
    assert "unsupported extension, expected .yaml, .yml or .json" in error
    assert "--config" in error


def test_a_file_named_explicitly_must_exist(load: Load, refuse: Refuse, tmp_path: Path) -> None:
    assert "no such file" in refuse(env={"LLM_PROXY_CONFIG": "gone.yaml"})[0]
    assert "no such file" in refuse("--config", "nowhere/gone.yaml")[0]
    assert "no such file" in refuse("--env-file", "gone.env")[0]
    first_run = load("--config", "first.json")
    assert first_run.config_file == tmp_path / "first.json"


def test_the_flag_for_the_data_directory_wins(load: Load, tmp_path: Path) -> None:
    settings = load("--data-dir", "/y", env={"LLM_PROXY_DATA_DIR": "/x"})
    assert settings.data_dir == Path("/y")
    assert load().data_dir == tmp_path / "home/.local/share/llm-proxy"


def test_relative_paths_start_where_they_are_written(load: Load, tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    (below / "c.yaml").write_text("logging: {file: a.log}")
    assert load("--config", "below/c.yaml").get(LoggingOptions).file == below / "a.log"
    assert load("--log", "b.log").get(LoggingOptions).file == tmp_path / "b.log"


def test_set_reaches_an_option_by_path(load: Load) -> None:
    groups = [RoomOptions]
    settings = load("--set", "loop_detection.enabled=false", groups=groups)
    assert settings.get(RoomOptions).enabled is False
    listed = load("--set", "loop_detection.names=[a, 'b c']", groups=groups).get(RoomOptions)
    assert listed.names == ("a", "b c")


def test_a_generic_variable_reaches_an_option_by_path(load: Load) -> None:
    settings = load(env={"LLM_PROXY__LOOP_DETECTION__MAX_AGE": "60"}, groups=[RoomOptions])
    assert settings.get(RoomOptions).max_age == 60
    assert settings.source_of("loop_detection.max_age") == "env LLM_PROXY__LOOP_DETECTION__MAX_AGE"


def test_dedicated_names_win_over_generic_ones(load: Load) -> None:
    env = {"LLM_PROXY__PROXY__PORT": "1", "PROXY_PORT": "2"}
    assert load(env=env).get(ServerOptions).port == 2
    assert load("--set", "proxy.port=3", env=env).get(ServerOptions).port == 3
    assert load("--set", "proxy.port=3", "--port", "4", env=env).get(ServerOptions).port == 4


def test_a_wrong_path_is_refused_with_the_nearest(refuse: Refuse) -> None:
    [error] = refuse("--set", "loop_detection.enabeld=false", groups=[RoomOptions])
    assert "did you mean loop_detection.enabled" in error
    [error] = refuse(env={"LLM_PROXY__PROXY__PROT": "1"})
    assert "LLM_PROXY__PROXY__PROT" in error and "did you mean proxy.port" in error


def test_generic_names_reach_back_ends_with_dashes(load: Load) -> None:
    file = "backends:\n  My-Local: {type: openai, no_auth: true}\n"
    env = {
        "LLM_PROXY__BACKENDS__MY_LOCAL__BASE_URL": "http://x/v1/",
        "LLM_PROXY__BACKENDS__ZAI_CODING_PLAN__RETRIES": "2",
    }
    settings = load("--set", "backends.my-local.headers.X-Team=blue", env=env, file=file)
    assert settings.backends["my-local"].base_url == "http://x/v1"
    assert settings.backends["my-local"].headers == {"X-Team": "blue"}
    assert settings.backends["zai-coding-plan"].retries == 2


def test_an_unknown_flag_is_refused_with_the_nearest(refuse: Refuse) -> None:
    assert refuse("--prot", "1") == ["--prot: unknown flag, did you mean --port"]


def test_references_are_replaced_after_parsing(load: Load) -> None:
    file = 'host: "${H}"\nport: ${P:-8080}\ndefault_backend: ${D:-demo}\nauth: {auth_token: "a$${b}"}\n'
    settings = load(file=file, env={"H": "x: [1]", "D": ""})
    assert settings.get(ServerOptions).host == "x: [1]"
    assert settings.get(ServerOptions).port == 8080
    assert settings.get(BackendGeneralOptions).default_backend == "demo"
    token = settings.get(AuthOptions).auth_token
    assert token is not None and token.reveal() == "a${b}"


def test_an_unset_reference_is_an_error_at_its_position(refuse: Refuse) -> None:
    [error] = refuse(file='proxy:\n  host: "${HOSTX}"\n')
    assert error.startswith("config.yaml:2:9: proxy.host: ") and "HOSTX" in error


def test_an_unset_reference_among_keys_drops_that_key(load: Load) -> None:
    file = 'backends: {openai: {api_keys: ["${K1}", "${K2}"]}}'
    settings = load(file=file, env={"K1": "one"})
    assert [key.secret.reveal() for key in settings.backends["openai"].keys] == ["one"]
    [warning] = settings.warnings
    assert "K2" in warning and warning.startswith("config.yaml:1:")


def test_a_reference_with_default_in_a_back_end(load: Load) -> None:
    file = 'backends: {l: {type: openai, no_auth: true, base_url: "${URL:-http://localhost:1234/v1}"}}'
    assert load(file=file).backends["l"].base_url == "http://localhost:1234/v1"


def test_a_literal_provider_key_in_the_file_draws_one_warning(load: Load) -> None:
    settings = load(file="backends:\n  openai:\n    api_keys: [sk-one, sk-two]\n")
    [warning] = settings.warnings
    assert warning.startswith("config.yaml:3:16: ") and "${NAME}" in warning and "sk-one" not in warning
    assert len(settings.backends["openai"].keys) == 2


def test_client_keys_of_all_forms(load: Load) -> None:
    def names(**keywords: object) -> list[tuple[str, str]]:
        keys = load(**keywords).get(AuthOptions).api_keys  # type: ignore[arg-type]
        return [(key.name, key.secret.reveal()) for key in keys]

    assert names(file="auth: {api_keys: {ann: a, bob: b}}") == [("ann", "a"), ("bob", "b")]
    assert names(file="api_keys: [a, b]") == [("key#1", "a"), ("key#2", "b")]
    assert names(file="auth: {api_keys: [f]}", env={"API_KEYS": "a,b"}) == [("key#1", "a"), ("key#2", "b")]
    name = "LLM_INTERACTIVE_PROXY_API_KEY"
    assert names(env={f"{name}_2": "b", name: "a"}) == [(name, "a"), (f"{name}_2", "b")]
