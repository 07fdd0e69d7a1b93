"""Secrets never print, and text that is written down is free of them."""

import base64
import copy
import json
import pickle
import re
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.wire.secrets import Secret, scrub, scrub_known

VALUE = 'sk-proj-0123/4567+89"ab\\cd efghijklma1b2'
BODY = "aB3dE5fG7hJ9kL1mN3pQ5rS7"


def test_a_secret_shows_only_its_fingerprint() -> None:
    secret = Secret(VALUE)
    assert secret.reveal() == VALUE
    assert secret.fingerprint == "sk-…a1b2"
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret:>40}",
        repr([secret]),
    ]
    assert not any(VALUE[3:12] in text or VALUE[-9:-4] in text for text in shown)
    assert Secret("short").fingerprint == "…"
    assert not hasattr(secret, "__dict__")


def test_a_secret_is_not_written_by_any_encoder() -> None:
    for write in (pickle.dumps, msgspec.json.encode, json.dumps):
        with pytest.raises(TypeError):
            write(Secret(VALUE))
    secret = Secret(VALUE)
    assert copy.copy(secret) is secret and copy.deepcopy([secret])[0] is secret


def test_secrets_compare_by_value_and_never_with_text() -> None:
    assert Secret(VALUE) == Secret(VALUE) and Secret(VALUE) != Secret("other")
    assert (Secret(VALUE) == VALUE) is False
    assert Secret(VALUE).matches(VALUE) and not Secret(VALUE).matches(VALUE + "x")
    assert len({Secret(VALUE), Secret(VALUE)}) == 1
    assert hash(Secret(VALUE)) != hash(VALUE)


FORMS = {
    "plain": VALUE,
    "json": json.dumps(VALUE),
    "json in json": json.dumps(json.dumps(VALUE)),
    "slashes escaped": json.dumps(VALUE).replace("/", "\\/"),
    "url": quote(VALUE, safe=""),
    "url, lower case": re.sub("%..", lambda found: found[0].lower(), quote(VALUE, safe="")),
    "url, slashes kept": quote(VALUE),
    "form": quote_plus(VALUE),
    "base64": base64.b64encode(VALUE.encode()).decode(),
    "base64 url": base64.urlsafe_b64encode(VALUE.encode()).decode(),
    "basic": base64.b64encode(b"user:" + VALUE.encode()).decode(),
    "base64 shifted": base64.b64encode(b"xy" + VALUE.encode() + b"z").decode(),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_known_secret_is_removed_in_every_spelling(name: str) -> None:
    text = f"before {FORMS[name]} behind"
    clean = scrub(text, [Secret(VALUE)])
    assert "***" in clean and clean.startswith("before ") and clean.endswith(" behind")
    for part in (VALUE[8:20], FORMS[name][12:28]):
        assert part not in clean


def test_a_secret_of_fewer_than_eight_characters_is_left() -> None:
    assert scrub("abcde abcdefg", [Secret("abcde"), Secret("abcdefg")]) == "abcde abcdefg"


def test_prompts_lose_known_secrets_only() -> None:
    text = f"{VALUE} and sk-{BODY}"
    assert scrub_known(text, [Secret(VALUE)], "(GONE)") == f"(GONE) and sk-{BODY}"


def test_a_secret_inside_a_longer_one_does_not_leave_its_rest() -> None:
    assert scrub_known("abcdefgh12345678", [Secret("abcdefgh"), Secret("abcdefgh12345678")], "*") == "*"


SHAPES = [
    f"sk-{BODY}",
    f"sk-ant-api03-{BODY}-{BODY}",
    f"sk-or-v1-{BODY}",
    f"ak-{BODY}",
    f"AIzaSy{BODY}",
    f"{'0123456789abcdef' * 2}.{BODY}",
    f"ghp_{BODY}",
    f"gho_{BODY}",
    f"github_pat_{BODY}_{BODY}",
    "xoxb-123456789012-abcdefghijkl",
    "AKIAIOSFODNN7EXAMPLE",
    f"eyJhbGciOi.eyJzdWIiOi.{BODY}",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEvQ\nabc\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\\nMIIEvQ cut short",
]


@pytest.mark.parametrize("key", SHAPES)
@pytest.mark.parametrize("before", ["", "key=", '"', "\\n", "\\u0022", "%20", " ", "é", "(", "/"])
def test_key_shaped_strings_are_removed(key: str, before: str) -> None:
    clean = scrub(f"{before}{key}")
    assert clean == f"{before}***"


@pytest.mark.parametrize("text", ["Authorization: Bearer abc.def-123~x", "bearer%20abcdefgh12", "BEARER   abcdefgh12"])
def test_bearer_tokens_are_removed(text: str) -> None:
    clean = scrub(text)
    assert clean.endswith("***") and "abc" not in clean


ORDINARY = [
    "sk-short",
    "task-force-of-the-month-and-year",
    "disk-abcdefghijklmnopqrstuvwxyz",
    "a bearer of news",
    "eyJust.a.word",
    "0123456789abcdef0123456789abcdef",
    "import risk_assessment",
    "v1.2.3",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_left(text: str) -> None:
    assert scrub(text) == text


WITHOUT_MARK = st.text(st.characters(exclude_characters="*", exclude_categories=["Cs"]), max_size=20)


@given(WITHOUT_MARK, WITHOUT_MARK, WITHOUT_MARK.filter(lambda value: len(value) >= 8))
def test_no_known_value_is_left_whatever_surrounds_it(before: str, behind: str, value: str) -> None:
    assert value not in scrub_known(before + value + behind, [Secret(value)])


@pytest.mark.parametrize(
    "unit", ["eyJ", "-eyJ", "sk-", "bearer ", "-----BEGIN PRIVATE KEY-----", "0123456789abcdef", "ghp_", "a."]
)
def test_repeated_beginnings_of_keys_take_linear_time(unit: str) -> None:
    # A quadratic scan of a megabyte would not come back within the life of a test run.
    assert isinstance(scrub(unit * (1_000_000 // len(unit))), str)
