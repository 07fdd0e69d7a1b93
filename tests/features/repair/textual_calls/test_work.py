"""RSP-05: linear time. No text makes the work grow faster than its length, be it whole or in pieces."""

from __future__ import annotations

import time

import pytest

from llm_proxy.features.repair.textual_calls import JsonBeginning, Scanner
from llm_proxy.features.repair.textual_calls.marks import BEGUN, HEADS, HEADS_BEGUN, MARKS
from tests.features.repair.textual_calls.corpus import CORPUS
from tests.features.repair.textual_calls.tools import LIMIT, declared, scanned

UNITS = [
    "{", "[", "<", "{\n", "\n{", ". {", "[[", "{ ", "<tool_call>", "`", "```\n", "```json\n{", "\n", " ", "  \n", "\n***", "{'", '{"a',
    '<tool_call>{"name": "get_weather", "arguments": ', '{"name": "get_weather", "arguments": [', '\n{"name": "note", "arguments": {}}',
    '\n[{"name": "note", "arguments": {}},', '{"arguments": {}, ', '{"name": "note", "arguments": "', '{"name": "note", "arguments": {"a": "\\',
    "\nTOOL CALL: ", "\nCall: note ", "\nTOOL CALL: note {", "<function=note><parameter=a>", "<function=note><parameter=a>x</parameter>\n",
    "<tool_call>note\n<arg_key>a</arg_key><arg_value>", "<|channel|>x", "<|start|>assistant to=functions.note<|message|>{",
    "[TOOL_CALLS]note[ARGS]{}", "<|tool_call_begin|>functions.note:0<|tool_call_argument_begin|>{", "note(", "[note(", "[note(a=1), ",
    '<|tool_call>call:note{a:<|"|>', "get_", "{" + " " * 60, "to=functions.note ", "~~~\n", "</", "<|", "\uff1c", "<\uff5ctool\u2581",
]  # fmt: skip


def steps(unit: str, size: int, piece: int, limit: int) -> int:
    text = (unit * (size // len(unit) + 1))[:size]
    scanner = Scanner(declared(), limit)
    for at in range(0, size, piece):
        scanner.feed(text[at : at + piece])
    scanner.end()
    return scanner.steps


@pytest.mark.parametrize("limit", [LIMIT, pytest.param(8 * 1024 * 1024, marks=pytest.mark.long)])
@pytest.mark.parametrize("unit", UNITS)
def test_twice_the_text_is_no_more_than_twice_the_work(unit: str, limit: int) -> None:
    for piece in (7, 10**9):
        once, twice = (steps(unit, size, piece, limit) for size in (20_000, 40_000))
        assert twice <= 2.1 * once + 400
        assert twice <= 5 * 40_000


@pytest.mark.parametrize(
    "unit", ["<|", "<tool_call>", "```\n~\n", "\nCall: note ", "[TOOL_CALLS]", "<|python_tag|>", "<function=note>"]
)
def test_what_only_ever_seems_to_begin_is_sought_no_more_after_a_while_be_it_whole_or_in_pieces(unit: str) -> None:
    """Each place costs little, but an answer may have millions of them, and a whole one comes at once."""
    for piece in (8192, 10**9):
        assert steps(unit, 1_000_000, piece, LIMIT) == steps(unit, 500_000, piece, LIMIT) <= 500_000


def test_a_call_behind_thousands_of_tags_is_found() -> None:
    page = "<td>1</td><tr>\n" * 1_500
    scanner = scanned([page, '<tool_call>{"name": "note", "arguments": {}}</tool_call>'])
    assert [call.name for call in scanner.calls] == ["note"] and scanner.begin == len(page)


def test_a_megabyte_of_brackets_passes_in_less_than_a_second() -> None:
    text = "{" * 1_000_000
    started = time.perf_counter()
    assert scanned([text]).plain == len(text)
    assert time.perf_counter() - started < 1


def test_a_mark_is_known_with_its_last_character() -> None:
    assert not BEGUN & MARKS.keys(), "no mark begins with another one"
    assert not HEADS_BEGUN & HEADS.keys()


def test_every_form_of_the_corpus_costs_few_looks_at_a_character() -> None:
    for _, before, text, _ in CORPUS:
        assert scanned(before + text).steps <= 4 * len(before + text)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ('{"a": [1, -2.5e+3, true, false, null, "x\\u00e9\\n\\"", {}], "b": {"c": []}}', True),
        (" [ ] ", True),
        ("0", True),
        ('"x"', True),
        ("{'a'", False),
        ('{"a" 1', False),
        ('{"a": 01', False),
        ('{"a": tru,', False),
        ('{"a": True', False),
        ('{"a": 1,}', False),
        ("[1,]", False),
        ("[1}", False),
        ('{"a": "x\n', False),
        ('{"a": "\\x', False),
        ('{"a": "\\u12g', False),
        ("{} {", False),
        ("]", False),
        ("NaN", False),
    ],
)
def test_the_beginning_of_json_is_told_in_any_pieces(text: str, good: bool) -> None:
    assert JsonBeginning().goes_on(text) == good
    for cut in range(1, len(text)):
        beginning = JsonBeginning()
        assert (beginning.goes_on(text[:cut]) and beginning.goes_on(text[cut:])) == good
    beginning = JsonBeginning()
    assert all(map(beginning.goes_on, text)) == good
