"""Secrets never print, and know how they are spelled."""

import base64
import copy
import json
import pickle

import msgspec
import pytest

from llm_proxy.wire.secrets import Secret

VALUE = 'sk-proj-0123/4567+89"ab\\cd efghijklma1b2'


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


def test_a_value_of_fewer_than_eight_characters_has_no_spellings_to_look_for() -> None:
    assert Secret("abcdefg").spellings() == () and Secret("abcdefg").in_texts() == ()


def test_base64_is_a_spelling_of_what_is_written_down_and_not_of_texts() -> None:
    encoded = base64.b64encode(VALUE.encode()).decode().rstrip("=")[:-1]
    assert encoded in Secret(VALUE).spellings() and encoded not in Secret(VALUE).in_texts()
    assert set(Secret(VALUE).in_texts()) < set(Secret(VALUE).spellings())
