"""JSON as models write it (RSP-06): what is repaired, what is left, and where a value that began ends."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.wire.json_balance import Balance
from llm_proxy.wire.loose_json import MAX_DEPTH, is_json, repaired

# ---- what is repaired


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{'a': 1,}", '{"a": 1}'),
        ('{"p":"x', '{"p":"x"}'),
        ('```json\n{"a": {"b": 1}\n```', '{"a": {"b": 1}}'),
        ('```\n{"a": "x\n```', '{"a": "x"}'),
        ('Sure! {"a": 1} Anything else?', '{"a": 1}'),
        ('As [1] says: {"a": [1, 2]}', '{"a": [1, 2]}'),
        ('{"a": 1, // one\n "b": 2 /* two */, # three\n}', '{"a": 1, \n "b": 2  \n}'),
        ("{a: 1, $b_2: 'x'}", '{"a": 1, "$b_2": "x"}'),
        ('{"a": 1 "b": [1 2]}', '{"a": 1, "b": [1, 2]}'),
        ('{"a": "x"\n"b": "y"}', '{"a": "x",\n"b": "y"}'),
        ("[1,, 2, ,]", "[1, 2 ]"),
        ("[True, False, None]", "[true, false, null]"),
        ('{"a": "one\ntwo\tthree"}', '{"a": "one\\ntwo\\tthree"}'),
        ('{"a": "she said "hi" to me"}', '{"a": "she said \\"hi\\" to me"}'),
        ("{'a': 'don't', 'b': 'a \"b\"'}", '{"a": "don\'t", "b": "a \\"b\\""}'),
        (r"{'a': 'it\'s'}", '{"a": "it\'s"}'),
        (r'{"path": "C:\Windows\d"}', r'{"path": "C:\\Windows\\d"}'),
        ('{"run": "a \\\n b"}', '{"run": "a \\\\\\n b"}'),
        ("[+1, .5, 5., -0]", "[1, 0.5, 5, -0]"),
        ('{"a": [1, {"b": 2}', '{"a": [1, {"b": 2}]}'),
        ('{"a": [1, 2}', '{"a": [1, 2]}'),
        ('{"a": 1, "b', '{"a": 1}'),
        ('{"a": 1, "b":', '{"a": 1}'),
        ('{"a": 1, "b": tru', '{"a": 1}'),
        ('{"a": 1, "b": -', '{"a": 1}'),
        ('{"a": , "b": 1}', '{ "b": 1}'),
        ('{"a": "x\\', '{"a": "x"}'),
        ('{"a": "x\\u00', '{"a": "x"}'),
        ('{"a": "x\\ud83d', '{"a": "x"}'),
        ('{"a": "x\\ud83d y"}', '{"a": "x\\ufffd y"}'),
        ("{'a': {'b", '{"a": {}}'),
        ("\ufeff{'a':\u00a01}", '{"a":1}'),
        ("'a'", '"a"'),
        ("```json\nTrue\n```", "true"),
        ('"open', '"open"'),
    ],
)
def test_repairs(text: str, expected: str) -> None:
    assert repaired(text) == expected
    json.loads(expected)


@pytest.mark.parametrize(
    "text",
    [
        '{"a" :  1 }',
        " [1,\n2]\n",
        '"x"',
        "1e5",
        "null",
        "{}",
        '{"a": "\\u00e9\\/"}',
        '{"a":1,"a":2}',
        "[1E400, 12345678901234567890]",
    ],
)
def test_json_comes_back_as_the_very_same_text(text: str) -> None:
    assert repaired(text) is text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "{",
        "[",
        '{"a":',
        "see {name} and [link]",
        "{note: see below}",
        '["a" foo]',
        "{'a', 'b'}",
        "[1, 2, ...]",
        "[NaN]",
        "{a: hello}",
    ],
)
def test_where_there_is_no_value_none_is_made_up(text: str) -> None:
    assert repaired(text) is None


def test_nesting_beyond_every_body_is_no_json() -> None:
    assert repaired("[" * MAX_DEPTH + "1,") == "[" * MAX_DEPTH + "1" + "]" * MAX_DEPTH
    assert repaired("[" * 100_000 + "1,") is None


# ---- for all values and all damage

_words = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True)
_strings = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _strings
)
_containers: st.SearchStrategy[Any] = st.recursive(
    st.lists(_leaves, max_size=3) | st.dictionaries(_words | _strings, _leaves, max_size=3),
    lambda inner: (
        st.lists(inner | _leaves, max_size=3) | st.dictionaries(_words | _strings, inner | _leaves, max_size=3)
    ),
    max_leaves=12,
)


class Careless:
    """Writes a value as a careless model might. `draw` chooses the damage."""

    def __init__(self, draw: Any) -> None:
        self._draw = draw

    def _one_of(self, *choices: str) -> str:
        return str(self._draw(st.sampled_from(choices)))

    def write(self, value: Any) -> str:
        match value:
            case None | True | False:
                return self._one_of(str(value), json.dumps(value))
            case str():
                return self._string(value)
            case dict():
                members = [
                    f"{self._key(key)}{self._gap()}:{self._gap()}{self.write(item)}" for key, item in value.items()
                ]
                return "{" + self._row(members) + "}"
            case list():
                return "[" + self._row([self.write(item) for item in value]) + "]"
            case _:
                return json.dumps(value)

    def _row(self, members: list[str]) -> str:
        out = self._gap()
        for place, member in enumerate(members):
            out += member + (
                self._one_of(",", " , ", ", # more\n", " ", "\n", " /* none */ ") if place + 1 < len(members) else ""
            )
        return out + (self._one_of("", ",", " ,\n") if members else "") + self._gap()

    def _gap(self) -> str:
        return self._one_of("", "", " ", "\n\t", " /* {'note', ] */ ", " // it's\n")

    def _key(self, key: str) -> str:
        return (
            self._one_of(key, self._string(key)) if re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", key) else self._string(key)
        )

    def _string(self, text: str) -> str:
        written = json.dumps(text, ensure_ascii=self._draw(st.booleans()))[1:-1]
        if self._draw(st.booleans()):
            written = re.sub(
                r"\\(\\|n|t|r)", lambda found: {"n": "\n", "t": "\t", "r": "\r"}.get(found[1], found[0]), written
            )
        if self._draw(st.booleans()):
            return (
                "'"
                + re.sub(
                    r"\\(.)|'", lambda found: {'\\"': '"', "'": "\\'"}.get(found[0], found[0]), written, flags=re.S
                )
                + "'"
            )
        return f'"{written}"'


@settings(max_examples=400, deadline=None)
@given(value=_containers, data=st.data())
def test_whatever_a_model_was_careless_about_the_value_is_the_same(value: Any, data: st.DataObject) -> None:
    text = Careless(data.draw).write(value)
    if not value:
        around = ("", "")
    else:
        around = data.draw(
            st.sampled_from(
                [("", ""), ("```json\n", "\n```"), ("Here it is: ", " It's done."), ("So:\n```\n", "\n```\nBye.")]
            )
        )
        if data.draw(st.booleans()):
            text = text.rstrip(" \t\n]}") if not around[1] or around[1].startswith("\n```") else text
    found = repaired(around[0] + text + around[1])
    if not value and found is None:
        return  # an empty pair of brackets whose end is missing is no value
    assert found is not None, text
    assert json.loads(found) == value, text


@settings(max_examples=400, deadline=None)
@given(value=_containers, data=st.data())
def test_what_was_cut_off_is_never_made_up(value: Any, data: st.DataObject) -> None:
    text = json.dumps(value, ensure_ascii=data.draw(st.booleans()))
    found = repaired(text[: data.draw(st.integers(0, len(text)))])
    if found is not None:
        assert began(spelled(text), spelled(found)), found


def spelled(text: str) -> Any:
    """The value, with numbers as they are written."""
    return json.loads(text, parse_int=str, parse_float=str)


def began(value: Any, part: Any) -> bool:
    """Is `part` what `value` begins with?"""
    match part:
        case dict():
            return isinstance(value, dict) and all(
                key in value and began(value[key], item) for key, item in part.items()
            )
        case list():
            return isinstance(value, list) and len(part) <= len(value) and all(map(began, value, part))
        case str():
            return isinstance(value, str) and value.startswith(part)
        case _:
            return value is part


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.sampled_from("{}[]\"'`,:/*#\\ \nabu1-.tT"), max_size=60))
def test_for_any_text_the_result_is_json_or_none(text: str) -> None:
    found = repaired(text)
    assert found is None or is_json(found)
    if is_json(text):
        assert found is text


# ---- linear work

HOSTILE = [
    "{", "[", '{"a":', "{'", '["a" x ', '[" ', "{a:{b:[", "//\n{", "{,", '{"a":1 ', '{"a":"\\u', "``` {", "[[]", "{a ", '{"a":"" ',
    "{ ", "[1,", "{/*", "[#\n",
]  # fmt: skip


@pytest.mark.parametrize(
    "piece", [pytest.param(piece, marks=pytest.mark.long if n % 3 else ()) for n, piece in enumerate(HOSTILE)]
)
def test_no_text_costs_more_than_its_length(piece: str) -> None:
    text = piece * (300_000 // len(piece))
    began_at = time.process_time()
    repaired(text)
    balance = Balance()
    for at in range(0, len(text), 100):
        balance.feed(text[at : at + 100])
    # It takes about 0.3 s; what is quadratic would take minutes.
    assert time.process_time() - began_at < 5


# ---- where a value ends


def ends(text: str, size: int) -> int | None:
    balance = Balance()
    for at in range(0, len(text), size):
        if (found := balance.feed(text[at : at + size])) is not None:
            return at + found
    return None


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    ("value", "rest"),
    [
        ('{"a": [1, {"b": "}"}]}', " and {more}"),
        ('{"a": "\\"}\\\\"}', "}"),
        ("{'a': '}', 'b': 'don't }'}", "'"),
        ('{"a": "he said "hi}" there"}', '"}'),
        ('{// don\'t }\n"a": 1 /* } **/}', "*/"),
        ("[]", "]"),
        ("{# ]}\n}", ""),
    ],
)
def test_the_end_is_found_wherever_the_text_is_cut(value: str, rest: str, size: int) -> None:
    assert ends(value + rest, size) == len(value)
    assert ends(value[:-1], size) is None


@settings(max_examples=200, deadline=None)
@given(value=_containers, size=st.integers(1, 9), rest=st.text(max_size=5))
def test_the_end_of_json_is_exact(value: Any, size: int, rest: str) -> None:
    text = json.dumps(value)
    assert ends(text + rest, size) == len(text)
