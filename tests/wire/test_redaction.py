"""OPS-04: what is written down holds no secret, whole or in pieces, and ordinary text stays what it is."""

import base64
import json
import random
import re
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.wire.redaction import MOST_PASSING, MOST_SECRETS, Redactor, cut_out
from llm_proxy.wire.secrets import Secret

VALUE = 'sk-proj-0123/4567+89"ab\\cd efghijklma1b2'
BODY = "aB3dE5fG7hJ9kL1mN3pQ5rS7"
OURS = Path(__file__).parents[2] / "src"


def clean(text: str, *values: str) -> str:
    return Redactor(map(Secret, values)).clean(text)


FORMS = {
    "plain": VALUE,
    "json": json.dumps(VALUE),
    "json in json": json.dumps(json.dumps(VALUE)),
    "slashes escaped": json.dumps(VALUE).replace("/", "\\/"),
    "url": quote(VALUE, safe=""),
    "url, lower case": re.sub("%..", lambda found: found[0].lower(), quote(VALUE, safe="")),
    "url, slashes kept": quote(VALUE),
    "form": quote_plus(VALUE),
    "json of .NET": json.dumps(VALUE).replace("+", "\\u002B").replace('\\"', "\\u0022")[1:-1],
    "json of pages": json.dumps(VALUE).replace("+", "\\u002b").replace('\\"', "\\u0022")[1:-1],
    "base64": base64.b64encode(VALUE.encode()).decode(),
    "base64 url": base64.urlsafe_b64encode(VALUE.encode()).decode(),
    "basic": base64.b64encode(b"user:" + VALUE.encode()).decode(),
    "base64 shifted": base64.b64encode(b"xy" + VALUE.encode() + b"z").decode(),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_known_secret_is_removed_in_every_spelling(name: str) -> None:
    text = f"before {FORMS[name]} behind"
    cleaned = clean(text, VALUE)
    assert "***" in cleaned and cleaned.startswith("before ") and cleaned.endswith(" behind")
    for part in (VALUE[8:20], FORMS[name][12:28]):
        assert part not in cleaned


def test_a_five_character_secret_is_untouched() -> None:
    assert clean("abcde abcdefg", "abcde", "abcdefg") == "abcde abcdefg"


def test_a_secret_inside_a_longer_one_does_not_leave_its_rest() -> None:
    assert clean("abcdefgh12345678", "abcdefgh", "abcdefgh12345678") == "***"


@pytest.mark.parametrize("shown", range(8, len(BODY)))
def test_half_a_secret_at_the_place_where_a_long_text_was_cut_is_removed(shown: int) -> None:
    assert clean("x" * 500 + f" {BODY[:shown]}", BODY) == "x" * 500 + " ***"
    assert clean("x" * 500 + f" {BODY[:shown]}…", BODY) == "x" * 500 + " ***…"


def test_what_only_looks_like_a_key_is_not_known() -> None:
    data = f"{VALUE} and sk-{BODY}".encode()
    assert cut_out(data, Redactor([Secret(VALUE)]).known_spans(data), b"(GONE)") == f"(GONE) and sk-{BODY}".encode()


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
    assert clean(f"{before}{key}") == f"{before}***"


@pytest.mark.parametrize("text", ["Authorization: Bearer abc.def-123~x", "bearer%20abcdefgh12", "BEARER   abcdefgh12"])
def test_bearer_tokens_are_removed(text: str) -> None:
    cleaned = clean(text)
    assert cleaned.endswith("***") and "abc" not in cleaned


def test_several_secrets_in_one_text_each_get_their_mark() -> None:
    text = f"a {SHAPES[0]}, {VALUE} {SHAPES[4]}\n{SHAPES[-2]} and {SHAPES[10]}."
    assert clean(text, VALUE) == "a ***, *** ***\n*** and ***."


ORDINARY = [
    "sk-short",
    "task-force-of-the-month-and-year",
    "disk-abcdefghijklmnopqrstuvwxyz",
    "a bearer of news",
    "eyJust.a.word",
    "0123456789abcdef0123456789abcdef",
    "import risk_assessment",
    "v1.2.3",
    "Bearer authentication is described below",
    "the bearer capability",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_left(text: str) -> None:
    assert clean(text) == text


WITHOUT_MARK = st.text(st.characters(exclude_characters="*", exclude_categories=["Cs"]), max_size=20)


@given(WITHOUT_MARK, WITHOUT_MARK, WITHOUT_MARK.filter(lambda value: len(value) >= 8))
def test_no_known_value_is_left_whatever_surrounds_it(before: str, behind: str, value: str) -> None:
    assert value not in clean(before + value + behind, value)


@pytest.mark.parametrize(
    "unit",
    [
        "eyJ",
        "-eyJ",
        "sk-",
        "bearer ",
        "bearer+",
        "bearer abcdefgh1 ",
        "-----BEGIN PRIVATE KEY-----",
        "0123456789abcdef",
        "ghp_",
        "a.",
        "-eyJ-AKIAABCDEFGHIJKLMNOP",
        ".eyJaaaaaa-AKIAABCDEFGHIJKLMNOP",
    ],
)
def test_repeated_beginnings_of_keys_take_linear_time(unit: str) -> None:
    # A quadratic scan of a megabyte would not come back within the life of a test run.
    assert isinstance(clean(unit * (1_000_000 // len(unit))), str)


@pytest.mark.parametrize("text", ["\ud800", f"\ud800 sk-{BODY} \udfff"])
def test_half_a_character_does_not_break_the_cleaning(text: str) -> None:
    assert clean(text) == text.replace(f"sk-{BODY}", "***")


# Source code


def sources(folder: Path) -> Iterator[bytes]:
    """About six megabytes at most."""
    size = 0
    for path in sorted(folder.rglob("*.py")):
        if "site-packages" not in path.parts and size < 6_000_000:
            data = path.read_bytes()
            size += len(data)
            yield data


@pytest.mark.parametrize("folder", [Path(sysconfig.get_path("stdlib")), OURS], ids=["the interpreter's", "ours"])
def test_source_code_has_at_most_one_false_positive_per_megabyte(folder: Path) -> None:
    redactor, size, found = Redactor(), 0, 0
    for data in sources(folder):
        size += len(data)
        found += len(redactor.spans(data))
    assert size > 1_000_000 and found <= size / 1_000_000


# What is known


def test_a_redactor_never_forgets_what_was_configured_before() -> None:
    redactor = Redactor([Secret("the-first-value")])
    assert redactor.clean("the-first-value") == "***"
    for number in range(100):
        redactor.know([Secret(f"later-value-{number:03d}")])
        assert redactor.clean(f"later-value-{number:03d}") == "***"
    assert redactor.clean("the-first-value later-value-000") == "*** ***"


def test_values_of_clients_are_bounded_and_push_out_none_of_the_operator() -> None:
    redactor = Redactor([Secret("the-operators-value")])
    redactor.know([Secret(f"client-value-{number:04d}") for number in range(MOST_PASSING + 40)], passing=True)
    assert redactor.clean("the-operators-value") == "***"
    assert redactor.clean("client-value-0000") == "client-value-0000"
    assert redactor.clean(f"client-value-{MOST_PASSING + 39:04d}") == "***"


def test_the_number_of_values_is_bounded() -> None:
    redactor = Redactor(Secret(f"value-number-{number:05d}") for number in range(MOST_SECRETS + 1))
    assert redactor.clean("value-number-00000 value-number-00001") == "value-number-00000 ***"


def test_a_source_that_has_a_new_value_is_heard_at_once() -> None:
    redactor, tokens = Redactor(), [Secret("token-before-renewal")]
    redactor.sources.append(lambda: tokens)
    assert redactor.clean("token-before-renewal") == "***"
    tokens[0] = Secret("token-after-renewal")
    assert redactor.clean("token-after-renewal token-before-renewal") == "*** ***"


# JSON whose texts may hold a known value


@pytest.mark.parametrize("cut", range(1, len(BODY)))
def test_a_value_cut_by_the_end_of_a_text_is_suspected(cut: int) -> None:
    redactor = Redactor([Secret(BODY)])
    assert redactor.suspects(json.dumps([{"text": "x" + BODY[:cut]}, {"text": BODY[cut:] + "y"}]).encode())


def test_ordinary_json_is_not_suspected() -> None:
    assert not Redactor([Secret(BODY)]).suspects(json.dumps({"text": "aB dE S7 rS", "a": "aB3", "b": "rS7"}).encode())


# In pieces

PIECES = [
    *SHAPES,
    *ORDINARY,
    *FORMS.values(),
    "a",
    " ",
    "\n",
    "bearer ",
    "Bearer",
    "é",
    "€",
    "\\n",
    "sk-",
    "eyJ",
    "-----",
    "%20",
]
PIECES += ["task-", "x" * 30, VALUE[:9], VALUE[20:], "\\u0022", "-----BEGIN", "----"]


def fed(redactor: Redactor, data: bytes, sizes: Iterator[int]) -> bytes:
    cleaner, given, at = redactor.stream(), b"", 0
    while at < len(data):
        size = next(sizes)
        given += cleaner.feed(data[at : at + size])
        at += size
    return given + cleaner.finish()


@pytest.mark.parametrize("seed", range(40))
def test_text_in_pieces_is_cleaned_as_the_whole_however_it_is_cut(seed: int) -> None:
    redactor, dice = Redactor([Secret(VALUE)]), random.Random(seed)
    for _ in range(12):
        data = "".join(dice.choices(PIECES, k=dice.randint(1, 8))).encode()
        sizes = iter(lambda: dice.choice([1, 1, 2, 3, 7, 20, 100]), 0)
        assert fed(redactor, data, sizes) == redactor.clean_bytes(data)


@pytest.mark.parametrize("key", [*SHAPES, *FORMS.values()])
def test_a_secret_split_at_any_place_never_shows(key: str) -> None:
    redactor = Redactor([Secret(VALUE)])
    data = f'data: {{"text":"{key}"}}\n\n'.encode()
    whole = redactor.clean_bytes(data)
    for cut in range(len(data)):
        cleaner = redactor.stream()
        assert cleaner.feed(data[:cut]) + cleaner.feed(data[cut:]) + cleaner.finish() == whole


def test_an_ordinary_event_is_given_back_at_once() -> None:
    cleaner = Redactor([Secret(VALUE)]).stream()
    event = b'data: {"choices":[{"delta":{"content":"hello sk"}}]}\n\n'
    assert cleaner.feed(event) == event and cleaner.feed(event) == event and cleaner.finish() == b""


@pytest.mark.parametrize(
    "endless",
    ["sk-" + BODY * 3000, "eyJhbGciOi.eyJzdWIiOi." + BODY * 3000, "Bearer " + BODY * 3000, SHAPES[-1] + BODY * 1000],
    ids=["key", "token", "bearer", "private key"],
)
def test_a_key_without_an_end_never_shows_and_is_not_held(endless: str) -> None:
    cleaner, given = Redactor().stream(), ""
    for at in range(0, len(endless), 500):
        given += cleaner.feed_text(endless[at : at + 500])
        assert len(cleaner._held) < 20_000
    given += cleaner.finish_text()
    assert BODY not in given and "***" in given


def test_a_long_word_that_is_no_key_comes_through_whole() -> None:
    data = base64.b64encode(random.Random(1).randbytes(300_000))
    cleaner = Redactor([Secret(VALUE)]).stream()
    given = b"".join([cleaner.feed(data[at : at + 1000]) for at in range(0, len(data), 1000)])
    assert len(data) - len(given) < 20_000 and given + cleaner.finish() == data


def test_texts_come_back_cut_between_characters() -> None:
    cleaner = Redactor([Secret("schlüssel-größe-12")]).stream()
    text = "Ein schlüssel-größe-12, ein schlüssel-größe-13 – und €uro."
    given = [cleaner.feed_text(character) for character in text] + [cleaner.finish_text()]
    assert "".join(given) == "Ein ***, ein schlüssel-größe-13 – und €uro."


# Speed

FIFTY = [f"sk-{random.Random(number).randbytes(24).hex()}" for number in range(50)]


def test_four_hundred_kilobytes_are_searched_for_fifty_secrets_in_three_milliseconds() -> None:
    redactor = Redactor(map(Secret, FIFTY))
    text = json.dumps("".join(data.decode() for data in sources(OURS)))[:400_000]
    times = []
    for _ in range(20):
        began = time.perf_counter()
        assert redactor.clean(text) is text
        times.append(time.perf_counter() - began)
    assert min(times) < 0.003
