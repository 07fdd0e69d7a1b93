"""JSON bodies: limits that name the place, and changes that leave every other byte alone."""

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llm_proxy.wire import json as wire_json
from llm_proxy.wire.faults import JsonFault
from llm_proxy.wire.json import (
    decode_object,
    encode,
    join_object,
    parse_arguments,
    read_object,
    remove_member,
    replace_member,
    rewrite,
    split_checked,
    split_object,
    without_duplicates,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | FLOATS | TEXT
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abcdef") | TEXT, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from("abcdef") | TEXT, VALUES, max_size=5)


def write(value: Any, indent: int | None, ascii_only: bool) -> bytes:
    return json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()


def load(text: bytes) -> Any:
    return json.loads(text)


# ---- reading

REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "$"),
    "blank": (b" \n", "$"),
    "array": (b"[1]", "$"),
    "null": (b"null", "$"),
    "text": (b"hello", "$"),
    "trailing bytes": (b'{"a":1}x', "$"),
    "two objects": (b"{}{}", "$"),
    "cut short": (b'{"a":', "$.a"),
    "cut in a string": (b'{"a":"x', "$.a"),
    "trailing comma": (b'{"a":1,}', "$.a"),
    "NaN": (b'{"a":[1,NaN]}', "$.a[1]"),
    "Infinity": (b'{"a":-Infinity}', "$.a"),
    "1e999": (b'{"messages":[{"x":1},{"y":1e999}]}', "$.messages[1].y"),
    "5,000 digits": (b'{"a":' + b"9" * 5000 + b"}", "$.a"),
    "control character": (b'{"messages":[0,1,2,{"content":"\x01"}]}', "$.messages[3].content"),
    "bad escape": (rb'{"a":"\x"}', "$.a"),
    "leading zero": (b'{"a":01}', "$.a"),
    "single quotes": (b"{'a':1}", "$"),
    "invalid utf-8": (b'{"a":{"b":"\xff"}}', "$.a.b"),
    "overlong utf-8": (b'{"a":"\xc0\x80"}', "$.a"),
    "surrogate bytes": (b'{"a":"\xed\xa0\x80"}', "$.a"),
    "utf-16": ('{"a":1}'.encode("utf-16"), "$"),
    "depth 129": (b'{"a":' * 129 + b"1" + b"}" * 129, "$" + ".a" * 12 + ".…"),
    "depth 1000": (b'{"a":' + b"[" * 1000 + b"]" * 1000 + b"}", "$.a" + "[0]" * 11 + ".…"),
    "depth 100,000": (b'{"a":' + b"[" * 100_000, "$.a" + "[0]" * 11 + ".…"),
    "lone surrogate and another error": (rb'{"a":"\ud800","b":}', "$.b"),
    "200,001 values": (b'{"a":[' + b"{}," * 200_000 + b"{}]}", "$"),
    "many values behind an open string": (b'{"a":[' + b"1," * 250_000 + b'"', "$"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_body_is_refused_with_the_path_of_the_place(name: str) -> None:
    body, path = REFUSED[name]
    for read in (decode_object, split_object):
        with pytest.raises(JsonFault) as caught:
            read(body)
        assert caught.value.path == path


ACCEPTED: dict[str, tuple[bytes, dict[str, Any]]] = {
    "bom": (b'\xef\xbb\xbf{"a":1}', {"a": 1}),
    "space": (b' \r\n\t{ "a" : 1 } \n', {"a": 1}),
    "depth 128": (b'{"a":' * 128 + b"1" + b"}" * 128, {}),
    "big integer": (b'{"a":123456789012345678901234567890}', {"a": 123456789012345678901234567890}),
    "duplicate": (b'{"a":1,"b":2,"a":3}', {"a": 3, "b": 2}),
    "pair": (rb'{"a":"\ud83d\ude00"}', {"a": "\U0001f600"}),
    "lone high": (rb'{"a":"x\ud800"}', {"a": "x\ufffd"}),
    "lone low": (rb'{"a":"\udc00x","b":"\\ud800"}', {"a": "\ufffdx", "b": "\\ud800"}),
    "two highs and a low": (rb'{"a":"\ud83d\ud83d\ude00"}', {"a": "\ufffd\U0001f600"}),
    "lone in a key": (rb'{"\uDFFF":1}', {"\ufffd": 1}),
    "braces in strings": (b'{"a":"' + b"{[" * 5000 + b'"}', {"a": "{[" * 5000}),
    "10,000 messages": (encode({"m": [{"role": "user"}] * 10_000}), {"m": [{"role": "user"}] * 10_000}),
    "4,000 digits": (b'{"a":' + b"9" * 4000 + b"}", {"a": 10**4000 - 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_odd_but_valid_body_is_read(name: str) -> None:
    body, expected = ACCEPTED[name]
    value = decode_object(body)
    if name != "depth 128":
        assert value == expected
    text, again = read_object(body)
    assert again == value == decode_object(text)
    assert not text.startswith(b"\xef\xbb\xbf")
    members = split_object(body)
    assert decode_object(join_object(members)) == value


def test_only_the_last_of_equal_keys_is_sent_on() -> None:
    assert split_object(b'{"a": 1, "b":2, "a":[ 3 ]}') == {"a": b"[ 3 ]", "b": b"2"}
    assert join_object(split_checked(b'{"a":1,"a":2}')) == b'{"a":2}'


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        (b'{"a":{"b":1,"b":2}}', b'{"a":{"b":2}}'),
        (b'{"m":[{"x":1,"x":1}]}', b'{"m":[{"x":1}]}'),
        (rb'{"a":1,"\u0061":2}', b'{"a":2}'),
        (b'{ "a" : "b:c\\":" , "d" : {} }', b'{ "a" : "b:c\\":" , "d" : {} }'),
        (b'{"a":1}', b'{"a":1}'),
    ],
)
def test_duplicates_inside_are_removed_and_anything_else_is_kept(text: bytes, sent: bytes) -> None:
    assert without_duplicates(text, decode_object(text)) == sent


@given(OBJECTS, st.sampled_from([None, 1]), st.booleans())
@settings(max_examples=75, deadline=None)
def test_a_body_without_duplicates_is_the_same_bytes(
    value: dict[str, Any], indent: int | None, ascii_only: bool
) -> None:
    body = write(value, indent, ascii_only)
    assert without_duplicates(body, decode_object(body)) is body


CUT_SHORT = st.tuples(OBJECTS, st.integers(0, 80)).map(lambda pair: write(pair[0], None, True)[: pair[1]])


@given(st.binary(max_size=60) | CUT_SHORT)
@settings(max_examples=160, deadline=None)
def test_no_bytes_raise_anything_but_the_declared_fault(body: bytes) -> None:
    for call in (
        decode_object,
        split_object,
        split_checked,
        lambda text: replace_member(text, "a", b"1"),
        lambda text: rewrite(text, {"a": 1}, {"a": 2}),
    ):
        try:
            call(body)
        except JsonFault as fault:
            assert fault.path.startswith("$")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("  ", {}),
        ('{"n": 9007199254740993}', {"n": 9007199254740993}),
        ('{"x": 0.1}', {"x": 0.1}),
        ('{"s": "\u2028\ud800"}', {"s": "\u2028\ufffd"}),
        ("[1]", None),
        ("null", None),
        ('{"a":', None),
        ("not json", None),
        ('{"a":NaN}', None),
    ],
)
def test_tool_arguments_keep_their_numbers_or_are_no_object(text: str, expected: dict[str, Any] | None) -> None:
    assert parse_arguments(text) == expected


# ---- writing


def test_written_json_is_compact_and_safe_for_line_readers() -> None:
    assert (
        encode({"a": [1, "é\u2028\u2029\u0085"], "n": 2**70})
        == '{"a":[1,"é\\u2028\\u2029\\u0085"],"n":1180591620717411303424}'.encode()
    )


def test_lone_surrogates_are_written_as_replacement_characters() -> None:
    assert (
        encode({"\ud800k": ["x\udc00", {"y": "\ud83d\ude00"}]}) == '{"\ufffdk":["x\ufffd",{"y":"\U0001f600"}]}'.encode()
    )


@given(VALUES)
@settings(max_examples=75, deadline=None)
def test_written_json_reads_back(value: Any) -> None:
    assert load(encode(value)) == value


# ---- one member


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"a","x":1}', b'{"model":"N","x":1}'),
        (b' { "x" : [ 1 ] , "model" : "a" } ', b' { "x" : [ 1 ] , "model" : "N" } '),
        (b"{}", b'{"model":"N"}'),
        (b"{ }", b'{"model":"N" }'),
        (b'{"x":{"model":"a"}}', b'{"x":{"model":"a"},"model":"N"}'),
        (b'{"x":"\\"model\\":1"}', b'{"x":"\\"model\\":1","model":"N"}'),
        (b'{"model":1,"x":2,"model":3}', b'{"x":2,"model":"N"}'),
        (b'{"x":2,"model":3, "model":3}', b'{"x":2, "model":"N"}'),
        (b'{"x":12,"x":1,"model":3}', b'{"x":1,"model":"N"}'),
        (rb'{"\u006dodel":1}', rb'{"\u006dodel":"N"}'),
        (b'\xef\xbb\xbf{"model":1}', b'{"model":"N"}'),
    ],
)
def test_one_member_is_replaced_and_every_other_byte_stays(body: bytes, expected: bytes) -> None:
    assert replace_member(body, "model", b'"N"') == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"a":1}', b"{}"),
        (b'{"a":1, "b":2}', b'{"b":2}'),
        (b'{"b":2, "a":1 }', b'{"b":2 }'),
        (b'{"b":2, "a":1,  "c":3}', b'{"b":2,  "c":3}'),
        (b'{"a":1,"b":2,"a":3,"a":4}', b'{"b":2}'),
        (b'{"b":[ 2 ]}', b'{"b":[ 2 ]}'),
    ],
)
def test_one_member_is_removed_and_every_other_byte_stays(body: bytes, expected: bytes) -> None:
    assert remove_member(body, "a") == expected


@given(OBJECTS, st.sampled_from([None, 1]), st.booleans(), st.sampled_from("abcx"), VALUES)
@settings(max_examples=90, deadline=None)
def test_replacing_means_what_it_says(
    value: dict[str, Any], indent: int | None, ascii_only: bool, name: str, new: Any
) -> None:
    body = write(value, indent, ascii_only)
    assert load(replace_member(body, name, encode(new))) == {**value, name: new}
    assert load(remove_member(body, name)) == {key: item for key, item in value.items() if key != name}
    if name in value:
        same = split_object(body)[name]
        assert replace_member(body, name, same) == body


@given(st.lists(st.tuples(st.sampled_from("aab"), VALUES), max_size=5), st.sampled_from("abc"))
@settings(max_examples=90, deadline=None)
def test_replacing_leaves_one_member_of_each_name_in_its_last_place(pairs: list[tuple[str, Any]], name: str) -> None:
    body = b"{" + b" , ".join(b'"%b" : %b' % (key.encode(), encode(value)) for key, value in pairs) + b"}"
    found = json.loads(replace_member(body, name, b'"N"'), object_pairs_hook=list)
    assert [pair for pair in found if pair[0] == name] == [(name, "N")]
    others = [key for key, _ in pairs if key != name]
    assert [key for key, _ in found if key != name] == list(dict.fromkeys(others[::-1]))[::-1]


# ---- edits


@given(OBJECTS, st.sampled_from([None, 1]), st.booleans())
@settings(max_examples=90, deadline=None)
def test_an_untouched_value_is_forwarded_byte_for_byte(
    value: dict[str, Any], indent: int | None, ascii_only: bool
) -> None:
    raw = write(value, indent, ascii_only)
    assert rewrite(raw, value, load(raw)) == raw
    assert rewrite(raw, value, dict(reversed(list(value.items())))) == raw


def strictly_equal(left: Any, right: Any) -> bool:
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(strictly_equal(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(strictly_equal, left, right))
    return type(left) is type(right) and left == right


@given(VALUES, VALUES, st.sampled_from([None, 1]), st.booleans())
@settings(max_examples=160, deadline=None)
def test_an_edit_of_a_text_fully_known_gives_the_new_value(
    old: Any, new: Any, indent: int | None, ascii_only: bool
) -> None:
    assert strictly_equal(load(rewrite(write(old, indent, ascii_only), old, new)), new)


@st.composite
def edits(draw: st.DrawFn) -> tuple[Any, Any, Any]:
    """A raw value, what an encoder that does not know all of it writes, and an edit of that."""
    raw = draw(OBJECTS)
    unknown = {key for key in raw if draw(st.booleans())}
    old = {key: value for key, value in raw.items() if key not in unknown}
    new = {key: draw(st.just(value) | VALUES) for key, value in old.items() if draw(st.booleans())}
    return raw, old, new


@given(edits(), st.sampled_from([None, 1]))
@settings(max_examples=120, deadline=None)
def test_members_that_nobody_knows_survive_an_edit(edit: tuple[Any, Any, Any], indent: int | None) -> None:
    raw, old, new = edit
    expected = {key: value for key, value in raw.items() if key not in old} | new
    assert strictly_equal(load(rewrite(write(raw, indent, True), old, new)), expected)


@given(st.lists(VALUES, max_size=6), st.integers(0, 6), st.integers(0, 3), st.lists(VALUES, max_size=3))
@settings(max_examples=90, deadline=None)
def test_a_list_edit_keeps_what_stands_before_and_behind(
    items: list[Any], at: int, count: int, added: list[Any]
) -> None:
    new = [*items[:at], *added, *items[at + count :]]
    assert strictly_equal(load(rewrite(write(items, 1, True), items, new)), new)


@pytest.mark.parametrize(
    ("raw", "old", "new", "expected"),
    [
        # A changed value: everything around it stays, unknown members and white space too.
        (b'{ "a" : 1.0, "z":[ ] }', {"a": 1.0}, {"a": 2}, b'{ "a" : 2, "z":[ ] }'),
        # A default that the encoder writes and the text does not have is not added.
        (b'{"a":1}', {"a": 1, "stream": False}, {"a": 2, "stream": False}, b'{"a":2}'),
        # ... but a change of it is.
        (b'{"a":1}', {"a": 1, "stream": False}, {"a": 1, "stream": True}, b'{"a":1,"stream":true}'),
        # Added, removed, and a member that the encoder left out although the text has it.
        (b'{"a": 1, "b": 2}', {"a": 1}, {"a": 1, "b": 3, "c": 4}, b'{"a": 1, "b": 3,"c":4}'),
        (b'{"a": 1, "b": 2, "c": 3}', {"a": 1, "b": 2}, {"a": 1}, b'{"a": 1, "c": 3}'),
        # The spelling of an untouched value stays.
        (rb'{"a":"\u00e9","b":1e2}', {"a": "é", "b": 100.0}, {"a": "é", "b": 5}, rb'{"a":"\u00e9","b":5}'),
        # True is not 1.
        (b'{"a":1}', {"a": 1}, {"a": True}, b'{"a":true}'),
        (b'{"a":[1]}', {"a": [1]}, {"a": [True]}, b'{"a":[true]}'),
        # A shape that the encoder normalises is replaced where it is changed.
        (b'{"c":"hi"}', {"c": [{"t": "hi"}]}, {"c": [{"t": "ho"}]}, b'{"c":[{"t":"ho"}]}'),
        (b'{"c":"hi"}', {"c": [{"t": "hi"}]}, {"c": [{"t": "hi"}]}, b'{"c":"hi"}'),
        # Lists: element by element, the new middle, and a length that does not correspond.
        (b'[{"x": 1}, {"x": 2}]', [{"x": 1}, {"x": 2}], [{"x": 1}, {"x": 3}], b'[{"x": 1}, {"x": 3}]'),
        (b"[ 1, 2 , 3 ]", [1, 2, 3], [1, 9, 8, 3], b"[ 1,9,8,3 ]"),
        (b"[ 1, 2 , 3 ]", [1, 2, 3], [1, 2, 3, 4], b"[ 1, 2 , 3,4 ]"),
        (b"[ 1, 2 , 3 ]", [1, 2, 3], [2, 3], b"[ 2 , 3 ]"),
        (b"[ 1, 2 , 3 ]", [1, 2], [1, 5], b"[1,5]"),
        (b"[ 1 ]", [1], [], b"[]"),
        (b"[ ]", [], [1], b"[1]"),
        # Duplicates: the last one counts; the earlier goes when that member is changed.
        (b'{"a":1,"b":0,"a":2}', {"a": 2, "b": 0}, {"a": 3, "b": 0}, b'{"b":0,"a":3}'),
    ],
)  # fmt: skip
def test_an_edit_goes_as_deep_as_it_must(raw: bytes, old: Any, new: Any, expected: bytes) -> None:
    assert rewrite(raw, old, new) == expected


def test_elements_that_stay_keep_their_bytes_wherever_others_are_dropped_or_changed() -> None:
    raw = (
        b'[{"r": "u", "t": "!/a"}, {"r": "m", "t": "A"}, {"r": "u", "t": "\\u00e4", "x": 1}, {"r": "m", "t": "B"}, '
        b'{"r": "u", "t": "!/b go", "x": 2}, {"r": "m", "t": "C"}, {"r": "u", "t": "!/c"}]'
    )
    old = [{"r": one["r"], "t": one["t"]} for one in load(raw)]
    new = [old[2], old[3], {"r": "u", "t": "go"}, old[5], {"r": "u", "t": "end"}]
    expected = (
        b'{"r": "u", "t": "\\u00e4", "x": 1},{"r": "m", "t": "B"},{"r": "u", "t": "go", "x": 2},{"r": "m", "t": "C"},'
        b'{"r": "u", "t": "end"}'
    )
    assert rewrite(raw, old, new) == b"[" + expected + b"]"


def test_raw_parts_in_what_an_encoder_writes_are_kept_and_compared() -> None:
    kept = msgspec.Raw(b'{"q": 1.10}')
    assert (
        rewrite(b'{"a":{"q": 1.10},"b":1}', {"a": kept, "b": 1}, {"a": msgspec.Raw(bytes(kept)), "b": 2})
        == b'{"a":{"q": 1.10},"b":2}'
    )
    assert rewrite(b'{"a":1}', {"a": 1}, {"a": kept}) == b'{"a":{"q": 1.10}}'


@given(OBJECTS)
@settings(max_examples=100, deadline=None)
def test_floats_and_integers_are_exact(value: dict[str, Any]) -> None:
    again = decode_object(encode(value))
    assume(not any(isinstance(item, float) and math.copysign(1, item) < 0 and item == 0 for item in value.values()))
    assert strictly_equal(again, value)


def test_a_five_megabyte_key_of_escapes_does_not_exhaust_anything() -> None:
    body = b'{"' + b"\\n" * 2_500_000 + b'":1}'
    assert replace_member(body, "a", b"2").endswith(b':1,"a":2}')
    assert wire_json.split_object(body)["\n" * 2_500_000] == b"1"
