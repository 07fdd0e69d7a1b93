"""CFG-09: one file per back-end."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_proxy.config import model_defaults_for
from llm_proxy.config.kinds import ModelLimits
from tests.config.conftest import Load, Refuse


def put(base: Path, id: str, text: str, name: str = "backend.yaml") -> Path:
    path = base / "config" / "backends" / id / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_defines_a_back_end(load: Load, tmp_path: Path) -> None:
    put(tmp_path, "local", "backend_type: openai\nbase_url: http://localhost:1234/v1\nno_auth: true\n")
    settings = load()
    local = settings.backends["local"]
    assert (local.type, local.base_url, local.functional, local.mentioned) == (
        "openai", "http://localhost:1234/v1", True, True,
    )  # fmt: skip
    assert settings.source_of("backends.local.base_url") == "config/backends/local/backend.yaml:2"
    assert settings.default_backend == "local"


def test_the_main_file_wins_leaf_by_leaf(load: Load, tmp_path: Path) -> None:
    below = "api_url: http://below/v1\nretries: 3\nheaders: {X-A: below, X-B: below}\n"
    below += "models: {m: {limits: {context_window: 1, max_input_tokens: 2}}}\n"
    put(tmp_path, "openai", below)
    main = "backends: {openai: {base_url: http://main/v1, headers: {X-A: main},"
    main += " models: {m: {limits: {context_window: 9}}}}}"
    backend = load(file=main).backends["openai"]
    assert (backend.base_url, backend.retries) == ("http://main/v1", 3)
    assert backend.headers == {"X-A": "main", "X-B": "below"}
    assert backend.models["m"] == ModelLimits(context_window=9, max_input_tokens=2)


def test_environment_and_flags_win_over_it(load: Load, tmp_path: Path) -> None:
    put(tmp_path, "openai", "base_url: http://below/v1\nretries: 3\n")
    settings = load("--set", "backends.openai.retries=1", env={"OPENAI_API_BASE_URL": "http://env/v1"})
    assert (settings.backends["openai"].base_url, settings.backends["openai"].retries) == ("http://env/v1", 1)


def test_a_file_beside_the_configuration_counts_before_the_working_directory(load: Load, tmp_path: Path) -> None:
    elsewhere = tmp_path / "etc"
    put(elsewhere, "openai", "retries: 1\n")
    put(tmp_path, "openai", "retries: 2\n")
    put(tmp_path, "zai", "retries: 4\n")
    (elsewhere / "c.yaml").write_text("")
    backends = load("--config", "etc/c.yaml").backends
    assert (backends["openai"].retries, backends["zai"].retries) == (1, 4)
    assert load().backends["openai"].retries == 2


def test_limits_of_a_model(load: Load, tmp_path: Path) -> None:
    put(tmp_path, "local", "type: openai\nno_auth: true\nmodels: {m: {limits: {max_input_tokens: 10}}}\n")
    assert model_defaults_for(load(), "local", "m").limits.max_input_tokens == 10


def test_model_defaults_count_with_the_id(load: Load, tmp_path: Path) -> None:
    put(tmp_path, "openai", "model_defaults:\n  m: {temperature: 0.1, top_p: 0.1}\n  'g*': {top_p: 0.2}\n")
    settings = load(file='model_defaults: {"openai:m": {temperature: 0.9}}')
    found = model_defaults_for(settings, "openai", "m")
    assert (found.temperature, found.top_p) == (0.9, 0.1)
    assert model_defaults_for(settings, "openai", "gpt").top_p == 0.2
    assert model_defaults_for(settings, "zai", "gpt").top_p is None


def test_custom_without_an_address_is_limits_only(load: Load, tmp_path: Path) -> None:
    text = "backend_type: custom\nmodels: {m: {limits: {max_input_tokens: 10}, capabilities: {tools: true}}}\n"
    put(tmp_path, "openai-responses", text)
    put(tmp_path, "unknown", text)
    settings = load(env={"OPENAI_API_KEY": "k"})
    assert "unknown" not in settings.backends
    assert not settings.backends["openai-responses"].mentioned
    assert settings.backends["openai-responses"].models == {}
    assert model_defaults_for(settings, "openai-responses", "m").limits.max_input_tokens == 10


def test_custom_with_an_address_is_a_compatible_server(load: Load, tmp_path: Path) -> None:
    put(tmp_path, "mine", "type: custom\nbase_url: http://mine/v1\nno_auth: true\n")
    assert load().backends["mine"].type == "openai"


def test_a_list_of_default_models(load: Load, tmp_path: Path, refuse: Refuse) -> None:
    put(tmp_path, "openai", "models: [a, b, a]\n", "default_models.yaml")
    settings = load()
    assert settings.fallback_models == {"openai": ("a", "b")}
    assert not settings.backends["openai"].mentioned and not settings.backends["openai"].pinned
    put(tmp_path, "openai", "models: {a: 1}\n", "default_models.yaml")
    [error] = refuse()
    assert error.startswith("config/backends/openai/default_models.yaml:1:9: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("retries: [\n", "config/backends/openai/backend.yaml:2:1: "),
        ("retries: soon\n", "config/backends/openai/backend.yaml:1:10: backends.openai.retries: expected a whole"),
        ("retires: 1\n", "config/backends/openai/backend.yaml:1:1: unknown key backends.openai.retires, did you mean"),
        ("- a\n", "config/backends/openai/backend.yaml:1:1: backends.openai: expected a map, got a list"),
        ("base_url: ${NOWHERE}\n", "config/backends/openai/backend.yaml:1:11: backends.openai.base_url: the env"),
        (
            "model_defaults: {m: {temperature: 9}}\n",
            "config/backends/openai/backend.yaml:1:35: model_defaults.openai:m.temperature: expected a number",
        ),
        (
            "type: custom\nmodels: {m: {limits: {window: 1}}}\n",
            "config/backends/openai/backend.yaml:2:23: backends.openai.models: expected one of context_window",
        ),
    ],
)
def test_errors_name_the_file_and_line(refuse: Refuse, tmp_path: Path, text: str, message: str) -> None:
    put(tmp_path, "openai", text)
    [error] = refuse()
    assert error.startswith(message)


def test_a_directory_that_is_no_id_is_refused(refuse: Refuse, tmp_path: Path) -> None:
    put(tmp_path, "bad id", "retries: 1\n")
    assert "expected the id of a back-end" in refuse()[0]


def test_keys_by_reference_and_literal_keys(load: Load, tmp_path: Path) -> None:
    put(tmp_path, "openai", 'api_keys: ["${K}", sk-literal]\n')
    settings = load(env={"K": "sk-1"})
    assert [key.secret.reveal() for key in settings.backends["openai"].keys] == ["sk-1", "sk-literal"]
    [warning] = settings.warnings
    assert warning.startswith("config/backends/openai/backend.yaml:1:20: ") and "sk-literal" not in warning


def test_the_samples_are_valid_and_change_nothing(load: Load, tmp_path: Path) -> None:
    samples = sorted((Path(__file__).parents[2] / "config" / "backends").glob("*/backend.yaml"))
    plain = load()
    for sample in samples:
        put(tmp_path, sample.parent.name, sample.read_text("utf-8"))
    settings = load()
    assert len(samples) >= 6
    assert settings.backends == plain.backends
    assert [row for row in settings.entries() if row not in plain.entries()] == []
    for sample in samples:
        head, mark, rest = sample.read_text("utf-8").partition("Remove the # in front of what you want.\n")
        put(tmp_path, sample.parent.name, head + mark + rest.replace("\n#", "\n").removeprefix("#"))
    used = load().entries()
    for sample in samples:
        assert any(path.startswith(f"model_defaults.{sample.parent.name}:") for path, _, _ in used)
