"""BE-01 instances and BE-02 provider keys, as far as configuration decides them; RT-03's default."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_proxy.config import BackendSettings, ConfigError
from tests.config.conftest import Load, Refuse


def values(backend: BackendSettings) -> list[tuple[str, str]]:
    return [(key.name, key.secret.reveal()) for key in backend.keys]


def test_numbered_variables_keep_their_order_and_count_once(load: Load) -> None:
    env = {"GEMINI_API_KEY": "a", "GEMINI_API_KEY_1": "a", "GEMINI_API_KEY_2": "b"}
    backend = load(env=env).backends["gemini"]
    assert values(backend) == [("GEMINI_API_KEY", "a"), ("GEMINI_API_KEY_2", "b")]


def test_a_gap_in_the_numbers_is_allowed(load: Load) -> None:
    backend = load(env={"GEMINI_API_KEY_1": "a", "GEMINI_API_KEY_3": "c", "GEMINI_API_KEY_21": "x"}).backends["gemini"]
    assert [value for _, value in values(backend)] == ["a", "c"]


def test_map_entries_give_key_names(load: Load) -> None:
    settings = load(file='backends: {openai: {api_keys: {default: "${K}"}}}', env={"K": "sk-1"})
    assert values(settings.backends["openai"]) == [("default", "sk-1")]
    assert settings.warnings == []


def test_list_entries_are_numbered(load: Load) -> None:
    file = 'backends: {work: {type: openai, api_keys: ["${A}", "${B}"]}}'
    backend = load(file=file, env={"A": "1", "B": "2"}).backends["work"]
    assert values(backend) == [("work#1", "1"), ("work#2", "2")]


@pytest.mark.parametrize("value", ["your_openai_api_key", "changeme", "<key>", "YOUR-KEY"])
def test_placeholders_are_ignored_with_a_warning(load: Load, value: str) -> None:
    settings = load(env={"OPENAI_API_KEY": value})
    assert not settings.backends["openai"].functional
    [warning] = settings.warnings
    assert "OPENAI_API_KEY" in warning and "placeholder" in warning


def test_flag_or_environment_replaces_the_keys_of_the_file(load: Load) -> None:
    file = 'backends: {openai: {api_keys: ["${F}"]}}'
    assert values(load(file=file, env={"F": "f"}).backends["openai"]) == [("openai#1", "f")]
    env = {"F": "f", "OPENAI_API_KEY": "e"}
    assert values(load(file=file, env=env).backends["openai"]) == [("OPENAI_API_KEY", "e")]
    settings = load("--openai-api-key", "g", file=file, env={"F": "f", "OPENAI_API_KEY_1": "e"})
    assert [value for _, value in values(settings.backends["openai"])] == ["g", "e"]
    assert any("visible to other users" in warning for warning in settings.warnings)


def test_variables_named_in_the_file_are_read_numbered(load: Load) -> None:
    file = "backends: {work: {type: anthropic, api_key_env: [WORK, MORE]}}"
    backend = load(file=file, env={"WORK_2": "b", "WORK": "a", "MORE": "c"}).backends["work"]
    assert values(backend) == [("WORK", "a"), ("WORK_2", "b"), ("MORE", "c")]


def test_control_characters_in_a_key_are_an_error(refuse: Refuse) -> None:
    [error] = refuse(env={"OPENAI_API_KEY": "sk-\nabc"})
    assert "OPENAI_API_KEY" in error and "control characters" in error and "abc" not in error


def test_a_prefix_of_another_provider_draws_a_warning_only(load: Load) -> None:
    settings = load(env={"OPENAI_API_KEY": "sk-ant-abc"})
    assert settings.backends["openai"].functional
    assert any("looks like a key of anthropic" in warning for warning in settings.warnings)


def test_a_login_is_functional_only_where_it_is_named(load: Load) -> None:
    assert not load().backends["qwen-oauth"].functional
    assert load(file="backends: {qwen-oauth: {}}").backends["qwen-oauth"].functional
    assert load(file="default_backend: openai-oauth").backends["openai-oauth"].functional
    assert load(file="static_route: anthropic-oauth:claude-sonnet-4-5").backends["anthropic-oauth"].functional
    assert load(file="model_aliases: [{pattern: a, replacement: 'qwen-oauth:b'}]").backends["qwen-oauth"].functional
    route = "failover_routes: {r: {policy: m, elements: ['gemini-cli-oauth-personal:gemini-2.5-pro']}}"
    assert load(file=route).backends["gemini-cli-oauth-personal"].functional
    assert not load(file="backends: {qwen-oauth: {enabled: false}}").backends["qwen-oauth"].functional


@pytest.mark.parametrize("id", ["openai-codex", "OpenAI-Codex"])
def test_another_name_of_an_id_is_the_same_back_end(load: Load, id: str, tmp_path: Path) -> None:
    file = f"backends: {{{id}: {{token_path: login.json}}}}"
    settings = load(file=file)
    assert "openai-codex" not in settings.backends
    assert settings.backends["openai-oauth"].token_path == tmp_path / "login.json"
    assert load("--set", f"backends.{id}.refresh=read-only").backends["openai-oauth"].refresh == "read-only"
    env = {"LLM_PROXY__BACKENDS__OPENAI_CODEX__REFRESH": "read-only"}
    assert load(env=env).backends["openai-oauth"].refresh == "read-only"
    assert load(file=f"default_backend: {id}").default_backend == "openai-oauth"
    assert load(file=f"static_route: '{id}:gpt-5.4'").backends["openai-oauth"].mentioned
    assert load(file=f"backends: {{mine: {{type: {id}}}}}").backends["mine"].type == "openai-oauth"


def test_both_names_of_an_id_are_a_duplicate(refuse: Refuse) -> None:
    [error] = refuse(file="backends: {openai-oauth: {}, openai-codex: {}}")
    assert "openai-codex is another name of openai-oauth" in error


def test_names_of_login_paths_of_the_types(load: Load, tmp_path: Path) -> None:
    for name in ("openai_oauth_path", "anthropic_oauth_path", "gemini_cli_oauth_path", "qwen_oauth_path", "token_path"):
        settings = load(file=f"backends: {{qwen-oauth: {{{name}: a}}}}")
        assert settings.backends["qwen-oauth"].token_path == tmp_path / "a"


def test_variables_of_google_are_read_for_the_built_in_ids(load: Load, tmp_path: Path) -> None:
    env = {"GOOGLE_CLOUD_PROJECT": "p", "GOOGLE_APPLICATION_CREDENTIALS": "/c.json", "GEMINI_CLI_WORKSPACE": "/w"}
    backends = load(env=env, file="backends: {mine: {type: gemini-cli-cloud-project}}").backends
    cloud = backends["gemini-cli-cloud-project"]
    assert (cloud.gcp_project_id, cloud.credentials_path) == ("p", Path("/c.json"))
    assert backends["gemini-cli-acp"].project_dir == Path("/w")
    assert backends["mine"].gcp_project_id is None
    file = "backends: {gemini-cli-cloud-project: {gcp_project_id: q}, gemini-cli-acp: {project_dir: /f}}"
    backends = load(env=env, file=file).backends
    assert backends["gemini-cli-cloud-project"].gcp_project_id == "p"
    assert backends["gemini-cli-acp"].project_dir == Path("/f"), "the file wins over this variable"


def test_what_an_agent_may_do_unasked(load: Load, refuse: Refuse) -> None:
    assert load().backends["gemini-cli-acp"].auto_accept == "safe"

    def read(value: str) -> object:
        return (
            load(file=f"backends: {{gemini-cli-acp: {{auto_accept: {value}}}}}").backends["gemini-cli-acp"].auto_accept
        )

    assert [read(value) for value in ("safe", "true", "false")] == ["safe", True, False]
    [error] = refuse(file="backends: {gemini-cli-acp: {auto_accept: maybe}}")
    assert "auto_accept: expected true or false or safe" in error


def test_the_secret_of_a_client_is_not_shown(load: Load) -> None:
    settings = load(file="backends: {gemini-cli-oauth-personal: {oauth_client_secret: hidden-value}}")
    shown = dict((path, value) for path, value, _ in settings.entries())
    assert shown["backends.gemini-cli-oauth-personal.oauth_client_secret"] == "***"


def test_one_provider_key_makes_exactly_that_back_end_and_demo_functional(load: Load) -> None:
    backends = load(env={"OPENAI_API_KEY": "sk-1"}).backends
    assert [id for id, backend in backends.items() if backend.functional] == ["openai", "demo"]


def test_a_shared_key_needs_a_mention(load: Load) -> None:
    env = {"OPENAI_API_KEY": "sk-1", "ZAI_API_KEY": "z"}
    backends = load(env=env, file="backends: {openai-responses: {}}").backends
    assert backends["openai-responses"].functional
    assert not backends["zai-coding-plan"].functional
    assert load("--default-backend", "zai-coding-plan", env=env).backends["zai-coding-plan"].functional
    own = load(env={"ZAI_CODING_PLAN_API_KEY": "own", **env}).backends["zai-coding-plan"]
    assert own.functional and values(own) == [("ZAI_CODING_PLAN_API_KEY", "own")]


def test_two_instances_of_one_type_have_their_own_keys(load: Load) -> None:
    file = "backends: {one: {type: openai, api_key_env: ONE}, two: {type: openai, api_key_env: TWO}}"
    backends = load(file=file, env={"ONE": "1", "TWO": "2"}).backends
    assert values(backends["one"]) == [("ONE", "1")]
    assert values(backends["two"]) == [("TWO", "2")]


def test_an_instance_with_everything(load: Load) -> None:
    file = """
proxy: {timeout: 7}
backends:
  Local:
    backend_type: openai
    api_url: http://x/v1/
    no_auth: true
    policy: sticky
    connect_timeout: 3
    max_connections: 5
    retries: 2
    headers: {OpenAI-Project: p}
    models: {m: {limits: {context_window: 10}}, n: null}
    default_model: m
    default_max_tokens: 100
    native_responses: true
    usage_include: false
"""
    local = load(file=file).backends["local"]
    assert (local.type, local.base_url, local.no_auth, local.policy) == (
        "openai",
        "http://x/v1",
        True,
        "sticky",
    )
    assert (local.timeout, local.connect_timeout, local.max_connections, local.retries) == (7.0, 3.0, 5, 2)
    assert local.headers == {"OpenAI-Project": "p"} and local.models["m"].context_window == 10
    assert (local.pinned, local.default_model, local.default_max_tokens) == (False, "m", 100)
    assert (local.native_responses, local.usage_include, local.mentioned, local.functional) == (
        True,
        False,
        True,
        True,
    )


def test_a_list_of_models_pins_the_catalogue(load: Load) -> None:
    backend = load(file="backends: {openai: {models: [a, b]}}").backends["openai"]
    assert backend.pinned and list(backend.models) == ["a", "b"]


def test_the_variable_of_an_instance_timeout(load: Load) -> None:
    settings = load(env={"ZAI_CODING_PLAN_TIMEOUT": "9", "PROXY_TIMEOUT": "8"})
    assert settings.backends["zai-coding-plan"].timeout == 9.0
    assert settings.backends["zai"].timeout == 8.0


def test_urls_of_providers(load: Load, refuse: Refuse) -> None:
    env = {"OPENAI_API_BASE_URL": "http://e/v1", "OPENAI_BASE_URL": "http://proxy/v1"}
    assert load(env=env).backends["openai"].base_url == "http://e/v1"
    assert load("--openai-api-base-url", "http://f", env=env).backends["openai"].base_url == "http://f"
    assert "expected an http or https URL" in refuse(env={"OPENAI_API_BASE_URL": "ftp://x"})[0]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("backends: {mine: {type: opnai}}", "backends.mine.type: expected one of openai, anthropic"),
        ("backends: {mine: {}}", "backends.mine.type: missing; one of openai"),
        ("backends: {'bad id': {type: openai}}", "expected an id"),
        ("backends: {a: {type: openai}, A: {type: openai}}", "ignore upper and lower case"),
        ("backends: {openai: {headers: {X-Api-Key: a}}}", "no header of type openai"),
        ("backends: {openai: {headers: {Host: a}}}", "set by the proxy"),
        ("backends: {openai: {models: {m: {limits: {window: 1}}}}}", "expected one of context_window"),
        ("backends: {openai: {type: openai, backend_type: zai}}", "which is the same option"),
        ("backends: [openai]", "backends: expected a map, got a list"),
        ("default_backend: opnai", "did you mean openai"),
    ],
)
def test_wrong_instances_are_refused(refuse: Refuse, file: str, text: str) -> None:
    [error] = refuse(file=file)
    assert text in error and error.startswith("config.yaml:1:")


def test_a_default_without_a_key_starts_with_a_warning(load: Load) -> None:
    settings = load(env={"LLM_BACKEND": "gemini"})
    assert settings.default_backend == "gemini"
    assert any("GEMINI_API_KEY" in warning for warning in settings.warnings)


def test_the_first_functional_back_end_is_the_default(load: Load) -> None:
    assert load(env={"ZAI_API_KEY": "z"}).default_backend == "zai"
    file = "backends: {zed: {type: openai, no_auth: true, base_url: http://z}, abc: {type: demo}}"
    assert load(file=file, env={"OPENAI_API_KEY": "k"}).default_backend == "zed"
    assert load(file="backends: {demo: {enabled: false}}").backends["demo"].functional is False


@pytest.mark.parametrize(
    "url", ["http://u:hidden-value@x", "http://x/v1?key=hidden-value", "http://x/a/../b", "http://x:0", "http://1.2"]
)
def test_an_address_that_no_call_could_use_is_an_error_without_its_secrets(load: Load, url: str) -> None:
    with pytest.raises(ConfigError, match=r"backends.openai.base_url: expected an http or https URL") as refused:
        load(file=f"backends: {{openai: {{base_url: '{url}'}}}}")
    assert "hidden-value" not in str(refused.value)


def test_a_shown_configuration_holds_no_secret(load: Load) -> None:
    proxy = 'proxy: {upstream_proxy: "http://u:hidden-value@x"}'
    file = proxy + '\nbackends: {openai: {headers: {X-Token: "hidden-value"}}}'
    settings = load(file=file, env={"OPENAI_API_KEY": "hidden-value", "AUTH_TOKEN": "hidden-value"})
    assert "hidden-value" not in repr(settings.entries())
    assert settings.source_of("backends.openai.api_keys") == "env OPENAI_API_KEY"
    assert settings.source_of("backends.openai.headers") == "config.yaml:2"
