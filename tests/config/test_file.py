"""CFG-05 formats and schema, CFG-08 messages."""

from __future__ import annotations

import tracemalloc
from typing import Literal

import pytest

from llm_proxy.config import OptionGroup, option
from llm_proxy.config.document import MAX_FILE_BYTES
from llm_proxy.config.groups import AuthOptions, FailoverOptions, LoggingOptions, ServerOptions
from llm_proxy.option_groups import GROUPS
from tests.config.conftest import Load, Refuse


class ToolLoopOptions(OptionGroup, path="tool_call_loop"):
    mode: Literal["break", "warn"] = option("break", spellings={"block": "break"}, help="what happens")


def test_the_message_of_the_specification(refuse: Refuse) -> None:
    file = "# one\nbackends:\n  gemini:\n    timeout: soon\n"
    assert refuse(file=file) == [
        'config.yaml:4:14: backends.gemini.timeout: expected a number of seconds > 0, got "soon"'
    ]


def test_all_errors_are_listed_in_the_order_of_the_file(refuse: Refuse) -> None:
    file = "proxy:\n  timeout: soon\n  port: 70000\nlogging:\n  level: loud\n"
    assert refuse(file=file) == [
        'config.yaml:2:12: proxy.timeout: expected a number of seconds > 0, got "soon"',
        "config.yaml:3:9: proxy.port: expected a whole number from 0 to 65535, got 70000",
        'config.yaml:5:10: logging.level: expected one of debug, info, warning, error, critical, got "loud"',
    ]


def test_a_file_is_read_to_its_end_however_long_and_beyond_its_bound_not_at_all(load: Load, refuse: Refuse) -> None:
    assert load(file="#" * 300_000 + "\nproxy:\n  port: 1234\n").get(ServerOptions).port == 1234
    assert refuse(file="#" * (MAX_FILE_BYTES + 1)) == [f"config.yaml: is larger than {MAX_FILE_BYTES} bytes"]


def test_a_small_file_takes_little_memory_when_it_is_read(load: Load) -> None:
    """What a reload asks for at once stays with the process as a hole in its memory."""
    file = "proxy:\n  port: 1234\n"
    load(file=file)  # the parser is there
    tracemalloc.start()
    try:
        load(file=file)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 * 1024 * 1024


def test_at_most_twenty_errors_are_printed(refuse: Refuse) -> None:
    errors = refuse(file="".join(f"wrong{number}: 1\n" for number in range(50)))
    assert len(errors) == 20
    assert errors[-1] == "… and 31 more"


def test_a_wrong_variable_is_named(refuse: Refuse) -> None:
    [error] = refuse(env={"PROXY_PORT": "abc"})
    assert "PROXY_PORT" in error and '"abc"' in error


def test_a_wrong_flag_is_named(refuse: Refuse) -> None:
    [error] = refuse("--timeout", "0")
    assert error == 'flag --timeout: proxy.timeout: expected a number of seconds > 0, got "0"'


def test_a_flag_without_its_value_is_refused(refuse: Refuse) -> None:
    assert "--port" in refuse("--port")[0]


@pytest.mark.parametrize(
    "file",
    [
        "auth: {auth_token: [hidden-value]}",
        "auth: {auth_token: 123456789}",
        "auth: {api_keys: [[hidden-value]]}",
        "proxy: {upstream_proxy: 'ftp://me:hidden-value@x'}",
        "backends: {openai: {api_keys: [{a: hidden-value}]}}",
        'backends: {openai: {api_keys: ["hidden-value\\u0001"]}}',
        'backends: {openai: {headers: {X-A: "hidden-value\\u0001"}}}',
    ],
)
def test_values_of_secrets_are_never_printed(refuse: Refuse, file: str) -> None:
    text = "\n".join(refuse(file=file))
    assert "hidden-value" not in text and "123456789" not in text
    assert text.startswith("config.yaml:1:")


def test_duplicate_keys_are_refused_at_the_second(refuse: Refuse) -> None:
    assert refuse(file="backends: {}\nport: 1\nbackends: {}\n") == ["config.yaml:3:1: duplicate key backends"]


def test_an_unknown_key_is_refused_at_the_key_with_the_nearest(refuse: Refuse) -> None:
    assert refuse(file="proxy: {prot: 8000}") == ["config.yaml:1:9: unknown key proxy.prot, did you mean proxy.port"]
    [error] = refuse(file="backends:\n  openai:\n    base_ulr: http://x\n")
    assert error == ("config.yaml:3:5: unknown key backends.openai.base_ulr, did you mean backends.openai.base_url")


@pytest.mark.parametrize("word", ["true", "yes", "on", "True", "ON"])
def test_words_for_true(load: Load, word: str) -> None:
    assert load(file=f"disable_auth: {word}").get(AuthOptions).disable_auth is True


def test_words_are_no_booleans_where_text_is_wanted(load: Load) -> None:
    assert load(file="proxy: {host: on}").get(ServerOptions).host == "on"


@pytest.mark.parametrize("value", ["1", "maybe", "[]", "null", "'1'"])
def test_other_values_are_no_booleans(refuse: Refuse, value: str) -> None:
    assert "expected true or false" in refuse(file=f"disable_auth: {value}")[0]


@pytest.mark.parametrize("value", ["'8000'", "8000.0", "true", "1e3", ".inf", "[1]", "{a: 1}"])
def test_other_values_are_no_whole_numbers(refuse: Refuse, value: str) -> None:
    assert "expected a whole number" in refuse(file=f"port: {value}")[0]


@pytest.mark.parametrize(("value", "port"), [("017", 17), ("0x1F", 31), ("0o17", 15)])
def test_numbers_are_those_of_yaml_1_2(load: Load, value: str, port: int) -> None:
    assert load(file=f"port: {value}").get(ServerOptions).port == port


def test_a_byte_order_mark_is_allowed(load: Load) -> None:
    assert load(file="\ufeffport: 9").get(ServerOptions).port == 9


def test_keys_beginning_with_x_hold_anchors(load: Load) -> None:
    file = "x-common: &c {type: openai, no_auth: true}\nbackends:\n  a: {<<: *c, base_url: http://a}\n  b: *c\n"
    backends = load(file=file).backends
    assert backends["a"].no_auth and backends["a"].base_url == "http://a"
    assert backends["b"].type == "openai"


@pytest.mark.parametrize("file", ["a: &a [*a]", "[" * 5000, "a: " + "{b: " * 500, "--- a\n--- b\n", "port: !!x 1"])
def test_hostile_files_are_refused_with_a_message(refuse: Refuse, file: str) -> None:
    assert refuse(file=file)[0].startswith("config.yaml")


def test_an_alias_bomb_is_refused(refuse: Refuse) -> None:
    lines = ["x-0: &a0 [1,1,1,1,1,1,1,1,1,1]"]
    lines += [f"y{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert any("too large" in error for error in refuse(file="\n".join(lines)))


@pytest.mark.parametrize("file", ["port: 1\nproxy: {port: 2}", "proxy: {port: 2}\nport: 1"])
def test_a_name_and_its_alias_must_agree(refuse: Refuse, file: str) -> None:
    [error] = refuse(file=file)
    assert error.startswith("config.yaml:2:") and "differs from" in error


def test_a_name_and_its_alias_may_repeat_a_value(load: Load) -> None:
    assert load(file="port: 1\nproxy: {port: 1}").get(ServerOptions).port == 1
    assert load(file="logging: {log_file: /a.log}").get(LoggingOptions).file is not None


def test_an_accepted_spelling_is_translated(load: Load) -> None:
    settings = load(file="tool_call_loop: {mode: block}", groups=[ToolLoopOptions])
    assert settings.get(ToolLoopOptions).mode == "break"
    file = "backends: {openai: {policy: round_robin}}"
    assert load(file=file).backends["openai"].policy == "round-robin"


@pytest.mark.parametrize(
    ("file", "position"),
    [("port: [1\n", "config.yaml:2:1"), ("a:\n\t- b\n", "config.yaml:2:1"), ("- a\n", "config.yaml:1:1")],
)
def test_broken_yaml_is_refused_with_its_position(refuse: Refuse, file: str, position: str) -> None:
    assert refuse(file=file)[0].startswith(position)


def test_an_empty_file_is_a_configuration(load: Load) -> None:
    assert load(file="# nothing\n").get(ServerOptions).port == 8000


def test_json_has_positions_too(refuse: Refuse) -> None:
    [error] = refuse(name="config.json", file='{\n  "proxy": {\n    "port": "x"}\n}\n')
    assert error.startswith("config.json:3:13: proxy.port")


def test_rules_between_options(refuse: Refuse, load: Load) -> None:
    [error] = refuse(file="failover:\n  cooldown_max_seconds: 0.5\n")
    assert error.startswith("config.yaml:2:25: failover.cooldown_max_seconds: expected at least")
    assert load(file="failover: {cooldown_max_seconds: 1}").get(FailoverOptions).cooldown_max_seconds == 1.0


def test_the_anthropic_port_may_be_off(load: Load, refuse: Refuse) -> None:
    assert load(file="anthropic_port: off").get(ServerOptions).anthropic_port == "off"
    assert load("--anthropic-port", "8001").get(ServerOptions).anthropic_port == 8001
    assert "or off" in refuse("--anthropic-port", "none")[0]


def test_groups_are_frozen_and_hide_secrets(load: Load) -> None:
    auth = load(file="auth: {auth_token: hidden-value}").get(AuthOptions)
    assert "hidden-value" not in repr(auth)
    with pytest.raises(AttributeError):
        auth.disable_auth = True  # type: ignore[misc]
    assert AuthOptions() == AuthOptions(disable_auth=False)
    assert AuthOptions in GROUPS
