"""OPS-04: every configured and environment secret is known, used or not; ordinary values are not taken for secrets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_proxy.config.known_secrets import known_secrets, of_environment
from llm_proxy.config.reload import Reloader
from llm_proxy.option_groups import GROUPS


def known(folder: Path, config: dict[str, object], **environ: str) -> set[str]:
    file = folder / "mine.json"
    file.write_text(json.dumps(config))
    settings = Reloader(["--config", str(file)], environ, folder, GROUPS).load()
    return {secret.reveal() for secret in known_secrets(settings)}


def test_keys_tokens_and_passwords_of_the_configuration_are_known(tmp_path: Path) -> None:
    found = known(
        tmp_path,
        {
            "auth": {"api_keys": {"ann": "key-of-ann-01"}, "auth_token": "the-auth-token"},
            "backends": {
                "mine": {
                    "type": "openai",
                    "base_url": "https://host.test/v1",
                    "api_keys": ["first-key-01", "second-key-02"],
                    "headers": {
                        "Authorization": "Bearer header-token",
                        "X-Custom-Token": "custom-token",
                        "X-Team": "blue",
                    },
                },
            },
            "session": {"redis_url": "redis://:redis-password@host.test"},
            "proxy": {"upstream_proxy": "http://user:proxy%20password@proxy.test:3128"},
        },
    )
    assert {
        "key-of-ann-01",
        "the-auth-token",
        "first-key-01",
        "second-key-02",
        "header-token",
        "custom-token",
        "redis-password",
        "proxy password",
    } <= found
    assert "blue" not in found


def test_keys_of_providers_in_the_environment_are_known_under_every_number(tmp_path: Path) -> None:
    found = known(
        tmp_path, {}, OPENAI_API_KEY="key-number-zero", OPENAI_API_KEY_3="key-number-three", ZAI_API_KEY="key-of-zai"
    )
    assert {"key-number-zero", "key-number-three", "key-of-zai"} <= found


def test_a_key_that_a_named_variable_holds_is_known(tmp_path: Path) -> None:
    config = {"backends": {"mine": {"type": "openai", "base_url": "https://h.test/v1", "api_key_env": ["MY_OWN"]}}}
    assert "held-by-my-own" in known(tmp_path, config, MY_OWN="held-by-my-own")


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("DATABASE_PASSWORD", "x9Yz-12345-abcdef", True),
        ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCY", True),
        ("GITHUB_TOKEN", "ghs_16C7e42F292c6912E7710c8", True),
        ("HTTPS_PROXY", "http://user:proxy-password@proxy.test:3128", True),
        ("GIT_PASSWORD", "password", False),
        ("SSH_KEY", "/home/ann/.ssh/id_ed25519_new", False),
        ("SOME_TOKEN", "a sentence with 16 or more characters", False),
        ("OPENAI_API_KEY", "your_key_goes_here", False),
        ("HOME", "/home/ann0123456789", False),
        ("MONKEY_BUSINESS", "abcdef0123456789", False),
    ],
)
def test_other_variables_are_secrets_by_their_name_and_a_random_value(name: str, value: str, secret: bool) -> None:
    assert bool([found for found in of_environment({name: value}) if found]) is secret
