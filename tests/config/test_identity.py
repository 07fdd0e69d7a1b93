"""REQ-09 as far as configuration decides it: modes, their sources, the leaves of one back-end, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from llm_proxy import __version__
from llm_proxy.config.identity import Identity, identity_headers
from tests.config.conftest import Load, Refuse

PARTS = {
    "title": ("x-title", "APP_TITLE", "--identity-title"),
    "url": ("http-referer", "APP_URL", "--identity-url"),
    "user_agent": ("user-agent", "APP_USER_AGENT", "--identity-user-agent"),
}
HONEST = {
    "x-title": "LLM Interactive Proxy",
    "http-referer": "http://localhost:8000",
    "user-agent": f"llm-interactive-proxy/{__version__}",
}
each_part = pytest.mark.parametrize("part", PARTS)


def sent(
    load: Load,
    *argv: str,
    id: str = "openai",
    client: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    file: str | None = None,
) -> dict[str, str]:
    """What a call of a back-end carries."""
    identity = load(*argv, file=file, env=env).backends[id].identity
    return identity_headers(identity, lambda name: (client or {}).get(name, ""))


def test_without_configuration_the_proxy_identifies_itself_honestly(load: Load) -> None:
    cline = {"user-agent": "Cline/1.0", "x-title": "Cline", "http-referer": "https://cline.bot"}
    assert sent(load, client=cline) == HONEST
    assert identity_headers(Identity()) == HONEST


@each_part
def test_a_value_variable_without_its_mode_variable_means_override(load: Load, part: str) -> None:
    header, variable, _ = PARTS[part]
    assert sent(load, client={header: "theirs"}, env={variable: "X"}) == {**HONEST, header: "X"}
    file = f"identity: {{{part}: {{mode: passthrough}}}}"
    assert sent(load, client={header: "theirs"}, file=file, env={variable: "X"})[header] == "X"


@each_part
def test_with_its_mode_variable_that_counts(load: Load, part: str) -> None:
    header, variable, _ = PARTS[part]
    names = {variable: "X", f"{variable}_MODE": "default"}
    assert sent(load, env=names) == HONEST
    generic = f"LLM_PROXY__IDENTITY__{part.upper()}__MODE"
    assert sent(load, env={variable: "X", generic: "passthrough"}, client={header: "theirs"})[header] == "theirs"
    assert sent(load, env={f"{variable}_MODE": "passthrough"}, client={header: "theirs"})[header] == "theirs"


@each_part
def test_a_flag_means_override_above_every_variable(load: Load, part: str) -> None:
    header, variable, flag = PARTS[part]
    names = {variable: "X", f"{variable}_MODE": "passthrough"}
    assert sent(load, flag, "F", client={header: "theirs"}, env=names)[header] == "F"
    assert sent(load, flag, "F", "--set", f"identity.{part}.mode=default", env=names) == HONEST


def test_second_names_of_variables(load: Load) -> None:
    assert sent(load, env={"APP_X_TITLE": "X"})["x-title"] == "X"
    assert sent(load, env={"APP_SITE_URL": "https://x.test"})["http-referer"] == "https://x.test"
    assert sent(load, env={"APP_X_TITLE": "X", "APP_TITLE": "Y"})["x-title"] == "Y"


def test_a_listing_names_where_the_mode_comes_from(load: Load) -> None:
    rows = {path: (value, source) for path, value, source in load(env={"APP_TITLE": "X"}).entries()}
    assert rows["identity.title.mode"] == ("override", "env APP_TITLE")
    assert rows["identity.title.override_value"] == ("X", "env APP_TITLE")
    assert rows["identity.url.mode"] == ("default", "default")
    assert not any(path.startswith("backends.") and ".identity" in path for path in rows)


def test_passthrough_is_the_clients_header_if_present_else_the_default_value(load: Load) -> None:
    file = "identity: {user_agent: {mode: passthrough, default_value: mine/1, override_value: never}}"
    assert sent(load, file=file, client={"user-agent": "Cline/1.0"})["user-agent"] == "Cline/1.0"
    assert sent(load, file=file)["user-agent"] == "mine/1"
    assert sent(load, file=file, client={"user-agent": " "})["user-agent"] == "mine/1"


def test_the_incoming_name_is_configurable(load: Load) -> None:
    file = "identity: {title: {mode: passthrough, passthrough_name: X-App}}"
    client = {"x-title": "no", "x-app": "yes"}
    assert sent(load, file=file, client=client)["x-title"] == "yes"
    assert load(file=file).backends["openai"].identity.from_client == {"x-app"}


@pytest.mark.parametrize("value", ["a\tb", "a\r\nX-Evil: 1", "a\0", "\x7f", "gr\xfc\xdfe", "x" * 1001])
def test_what_a_client_may_not_say_is_replaced_by_the_default_value(load: Load, value: str) -> None:
    file = "identity: {title: {mode: passthrough}}"
    assert sent(load, file=file, client={"x-title": value})["x-title"] == HONEST["x-title"]


# One back-end


def test_leaves_of_a_back_end_lie_over_the_global_ones(load: Load) -> None:
    file = """
identity:
  title: {override_value: Everywhere, default_value: Plain}
  user_agent: {mode: passthrough}
backends:
  openrouter:
    identity:
      title: {mode: override}
      user_agent: {passthrough_name: x-agent}
"""
    client = {"user-agent": "Cline/1.0", "x-agent": "own/2"}
    own = sent(load, id="openrouter", file=file, client=client)
    assert own == {"x-title": "Everywhere", "http-referer": HONEST["http-referer"], "user-agent": "own/2"}
    other = sent(load, id="openai", file=file, client=client)
    assert other == {"x-title": "Plain", "http-referer": HONEST["http-referer"], "user-agent": "Cline/1.0"}


def test_override_for_openrouter_only_is_sent_only_there(load: Load) -> None:
    file = "backends: {openrouter: {identity: {title: {mode: override, override_value: Mine}}}}"
    assert sent(load, id="openrouter", file=file) == {**HONEST, "x-title": "Mine"}
    assert sent(load, id="openai", file=file) == HONEST
    rows = {path: (value, source) for path, value, source in load(file=file).entries()}
    assert rows["backends.openrouter.identity.title.override_value"] == ("Mine", "config.yaml:1")


def test_generic_forms_reach_the_leaves_of_a_back_end(load: Load) -> None:
    file = "backends: {my.own: {type: openai, identity: {title: {mode: override, override_value: File}}}}"
    assert sent(load, id="my.own", file=file)["x-title"] == "File"
    variable = {"LLM_PROXY__BACKENDS__MY_OWN__IDENTITY__TITLE__OVERRIDE_VALUE": "Variable"}
    assert sent(load, id="my.own", file=file, env=variable)["x-title"] == "Variable"
    flag = ("--set", "backends.my.own.identity.title.override_value=Flag")
    assert sent(load, *flag, id="my.own", file=file, env=variable)["x-title"] == "Flag"
    whole = ("--set", "backends.my.own.identity={user_agent: {mode: override, override_value: a/1}}")
    assert sent(load, *whole, *flag, id="my.own", file=file)["user-agent"] == "a/1"
    assert sent(load, *whole, *flag, id="my.own", file=file)["x-title"] == "Flag"
    agent = {"LLM_PROXY__BACKENDS__MY_OWN__IDENTITY__USER_AGENT__MODE": "passthrough"}
    assert sent(load, id="my.own", file=file, client={"user-agent": "c/1"}, env=agent)["user-agent"] == "c/1"


# What is refused (CFG-08)


@each_part
@pytest.mark.parametrize("value", ["a\nb", "a\r", "a\0b", "\x7f", "tab\there", "grüße", ""])
def test_control_characters_and_other_than_ascii_are_refused(refuse: Refuse, part: str, value: str) -> None:
    flag = PARTS[part][2]
    [error] = refuse(flag, value)
    assert error.startswith(f"flag {flag}: identity.{part}.override_value: expected ")


def test_a_value_with_a_line_break_is_refused_with_its_place(refuse: Refuse) -> None:
    [error] = refuse(file='identity:\n  title:\n    mode: override\n    override_value: "a\\nb"\n')
    assert error.startswith("config.yaml:4:21: identity.title.override_value: expected text without control characters")
    [error] = refuse(file='identity:\n  url:\n    default_value: "a\\r\\nb"\n')
    assert error.startswith("config.yaml:3:20: identity.url.default_value: expected text without control")
    own = 'backends:\n  openai:\n    identity: {title: {mode: override, override_value: "a\\nb"}}\n'
    [error] = refuse(file=own)
    assert error.startswith("config.yaml:3:56: backends.openai.identity.title.override_value: expected text without")


def test_a_variable_with_a_line_break_is_refused(refuse: Refuse) -> None:
    [error] = refuse(env={"APP_TITLE": "a\nb"})
    assert error.startswith("env APP_TITLE: identity.title.override_value: expected text without control characters")


def test_override_needs_a_value(refuse: Refuse) -> None:
    [error] = refuse(file="identity: {url: {mode: override}}")
    assert error == "config.yaml:1:24: identity.url.mode: expected identity.url.override_value with mode override"
    [error] = refuse(file="backends: {openai: {identity: {url: {mode: override}}}}")
    own = "backends.openai.identity.url"
    assert error == f"config.yaml:1:44: {own}.mode: expected {own}.override_value with mode override"


@pytest.mark.parametrize(
    "name", ["authorization", "Cookie", "x-api-key", "x-session-id", "x-llm-proxy-upstream-key", "x-forwarded-for", "Te", "a b", "x-*"]
)  # fmt: skip
def test_no_credential_is_ever_passed_as_identity(refuse: Refuse, name: str) -> None:
    [error] = refuse(file=f'identity: {{title: {{mode: passthrough, passthrough_name: "{name}"}}}}')
    assert "identity.title.passthrough_name: expected the name of a header" in error


def test_unknown_leaves_of_a_back_end_are_named(refuse: Refuse) -> None:
    [error] = refuse(file="backends: {openai: {identity: {title: {mod: override}}}}")
    assert "unknown key backends.openai.identity.title.mod, did you mean backends.openai.identity.title.mode" in error
    [error] = refuse(file="backends: {openai: {identity: {title: X}}}")
    assert 'backends.openai.identity.title: expected a map, got "X"' in error


def test_unknown_leaves_in_generic_forms_are_named(refuse: Refuse) -> None:
    [error] = refuse("--set", "backends.openai.identity.title.mod=override")
    assert "did you mean backends.openai.identity.title.mode" in error
    [error] = refuse(env={"LLM_PROXY__BACKENDS__OPENAI__IDENTITY__TITLE__MOD": "override"})
    assert "unknown path backends.openai.identity.title.mod" in error
