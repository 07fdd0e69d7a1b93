"""How a command is written (CMD-02, CMD-03) and what is left without it (CMD-04)."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.commands import grammar
from llm_proxy.commands.desk import CommandError
from llm_proxy.commands.grammar import Argument, Arguments, Found
from llm_proxy.sessions.machine_text import survey, typed_spans

PREFIXES = ("!/", "##", ".*", "$(", "[[", "((", "\\d", "^$", "a|", "+?")


def find(text: str, prefix: str = "!/") -> list[Found]:
    return grammar.find(text, prefix, [(0, len(text))])


def only(text: str) -> Found:
    [found] = find(text)
    return found


def pairs(text: str) -> list[tuple[str, str]]:
    found = only(text)
    assert found.error == ""
    assert found.arguments is not None
    return [(item.key, item.value) for item in found.arguments.items]


def rest(text: str, prefix: str = "!/") -> str:
    return grammar.cut(text, grammar.find(text, prefix, typed_spans(text)))


class TestNames:
    def test_case_and_underscores_do_not_matter(self) -> None:
        assert only("!/Create_Failover-Route").name == "create-failover-route"

    def test_a_bare_command_has_no_arguments_and_empty_brackets_have_none_in_them(self) -> None:
        assert only("!/help").arguments is None
        assert only("!/help()").arguments == Arguments()

    @pytest.mark.parametrize("after", [" ", "\n", "\t", ".", ",", ";", ":", "!", "?", ")", ""])
    def test_what_may_follow_a_bare_name(self, after: str) -> None:
        assert only(f"!/help{after}").end == len("!/help")

    @pytest.mark.parametrize("after", ["/", "'", '"', "]", "}", ">", "@", "=", "`", "é", "\u200b"])
    def test_anything_else_makes_it_text(self, after: str) -> None:
        assert find(f"!/help{after}") == []

    @pytest.mark.parametrize(
        "text", ["#!/bin/sh", "!/usr/bin", '"!/model(x)"', "`!/help`", "http://a!/b", "!/ help", "x!/help", r"\!/help"]
    )
    def test_text(self, text: str) -> None:
        assert find(text) == []
        assert rest(text) == text

    def test_an_unknown_name_is_a_command_all_the_same(self) -> None:
        assert only("!/helpx y").name == "helpx"

    def test_a_name_beyond_sixty_four_letters_is_text(self) -> None:
        assert only("!/" + "a" * 64).name == "a" * 64
        assert find("!/" + "a" * 65) == []

    @pytest.mark.parametrize("prefix", PREFIXES)
    def test_a_prefix_is_characters_and_no_pattern(self, prefix: str) -> None:
        text = f"one {prefix}help two {prefix}set(project=a) three"
        assert [found.name for found in find(text, prefix)] == ["help", "set"]
        assert find("xxhelp yyset(project=a) ~~help", prefix) == []
        assert rest(text, prefix) == "one two three"

    def test_several_left_to_right(self) -> None:
        assert [found.name for found in find("!/a b !/c(d)\n!/e")] == ["a", "c", "e"]

    def test_a_command_in_the_arguments_of_another_is_an_argument(self) -> None:
        assert pairs("!/help(!/set)") == [("", "!/set")]

    def test_right_to_left_text_around_it(self) -> None:
        assert only("שלום !/help שלום").name == "help"


class TestArguments:
    @pytest.mark.parametrize(
        ("text", "wanted"),
        [
            ("!/set (project = a)", [("project", "a")]),
            ("!/set( project = a , temperature = 1 )", [("project", "a"), ("temperature", "1")]),
            (
                '!/set(project="my project, two", temperature=0.7)',
                [("project", "my project, two"), ("temperature", "0.7")],
            ),
            ("!/set(project='it, too')", [("project", "it, too")]),
            ("!/set('project'=\"a\")", [("project", "a")]),
            ("!/set(project=\n  a,\n  temperature=1\n)", [("project", "a"), ("temperature", "1")]),
            ("!/oneoff(openai:gpt-4)", [("", "openai:gpt-4")]),
            ("!/create-failover-route(n, p)", [("", "n"), ("", "p")]),
            ("!/route-append(name=n, b:m, c:d)", [("name", "n"), ("", "b:m"), ("", "c:d")]),
            ("!/project(don't panic)", [("", "don't panic")]),
            ("!/project(rock 'n' roll)", [("", "rock 'n' roll")]),
            ("!/project('don't panic, ok')", [("", "don't panic, ok")]),
            ('!/project(a 5" disk)', [("", 'a 5" disk')]),
            ('!/project(my "a, b" thing)', [("", 'my "a, b" thing')]),
            (r"!/project(a\, b)", [("", "a, b")]),
            (r"!/project(a\) b)", [("", "a) b")]),
            (r'!/project("say \"hi\"")', [("", 'say "hi"')]),
            (r"!/project-dir(C:\work\new)", [("", r"C:\work\new")]),
            ("!/project(f(x, y) and [1, 2])", [("", "f(x, y) and [1, 2]")]),
            ("!/project(a ] b)", [("", "a ] b")]),
            ("!/openai-url(https://h/?a=b)", [("https://h/?a", "b")]),
            ("!/set(openai-url=https://h/?a=b&c=d)", [("openai-url", "https://h/?a=b&c=d")]),
            ("!/set(a=)", [("a", "")]),
            ('!/project("")', [("", "")]),
            ("!/unset(a, , b,)", [("", "a"), ("", "b")]),
            ('!/set(reasoning="{\\"effort\\": \\"high\\"}")', [("reasoning", '{"effort": "high"}')]),
            ('!/set(reasoning=\'{"effort": "high"}\')', [("reasoning", '{"effort": "high"}')]),
        ],
    )
    def test_forms(self, text: str, wanted: list[tuple[str, str]]) -> None:
        assert pairs(text) == wanted

    @pytest.mark.parametrize(
        "group",
        [
            '{"thinkingConfig":{"thinkingBudget":0}}',
            '{"a": "b}c", "d": [1, {"e": ")"}]}',
            '{"it\'s": "don\'t, \\"no\\""}',
            "(effort=high, exclude=true)",
            "[1, 2]",
        ],
    )
    def test_a_bracketed_value_keeps_its_exact_text(self, group: str) -> None:
        found = only(f"!/set(key={group}, other=1)")
        assert found.arguments == Arguments((Argument("key", group, nested=True), Argument("other", "1")))

    def test_positional_and_named(self) -> None:
        arguments = grammar.parse_arguments("a, b=c, d")
        assert arguments.positional == ("a", "d")
        assert arguments.named == (Argument("b", "c"),)

    def test_a_remark_in_brackets_on_the_same_line_is_arguments_and_on_the_next_is_none(self) -> None:
        assert pairs("!/help (set)") == [("", "set")]
        assert only("!/help\n(set)").arguments is None

    @pytest.mark.parametrize(
        "text",
        [
            "!/set(project=a temperature=0.7)",
            '!/set(project="my a" temperature=0.7)',
            "!/set(project=a\ntemperature = 0.7)",
            "!/set(project=a=b temperature=0.7)",
            "!/set(project temperature=0.7)",
        ],
    )
    def test_a_missing_comma_is_named(self, text: str) -> None:
        found = only(text)
        assert "comma" in found.error
        assert "temperature=" in found.error
        assert found.arguments == Arguments()
        assert found.end == len(text)

    @pytest.mark.parametrize(
        ("text", "mark"),
        [
            ("!/set(project=a", ")"),
            ("!/set(project={a)", "}"),
            ("!/set(project=[a)", "]"),
            ('!/set(project="a)', '"'),
            ("!/set(project='a)", "'"),
            ("!/project(a\\)", ")"),
        ],
    )
    def test_what_is_unclosed_is_named_with_the_right_form(self, text: str, mark: str) -> None:
        found = only(text + " and more !/help")
        assert f" {mark} is " in found.error
        assert f"!/{found.name}(key=value, …)" in found.error

    def test_a_value_without_a_key(self) -> None:
        assert "name before =" in only("!/set(=a)").error

    def test_a_bracket_must_close_where_typed_text_ends(self) -> None:
        text = "!/set(project=a\n```\n)\n```\n"
        [found] = grammar.find(text, "!/", typed_spans(text))
        assert "missing" in found.error

    @pytest.mark.parametrize("text", ["a=(", "a='b", "a=b c=d"])
    def test_wrong_arguments_alone_raise(self, text: str) -> None:
        with pytest.raises(CommandError):
            grammar.parse_arguments(text)

    def test_booleans(self) -> None:
        assert [grammar.boolean(word) for word in ("true", "1", "YES", " on ")] == [True] * 4
        assert [grammar.boolean(word) for word in ("false", "0", "No", "off", "none")] == [False] * 5
        assert [grammar.boolean(word) for word in ("", "maybe", "2")] == [None] * 3


class TestStrict:
    def found(self, text: str) -> list[str]:
        seen = survey(text)
        ignored = sorted([*seen.machine, *seen.frames])
        return [found.name for found in grammar.find_on_last_line(text, "!/", seen.typed, ignored)]

    @pytest.mark.parametrize(
        ("text", "names"),
        [
            ("I tried !/help but it didn't work", []),
            ("Some context\n!/help", ["help"]),
            ("!/model(m)\n\nplease", []),
            ("!/help\n\n  \n", ["help"]),
            ("!/a !/b(c)  ", ["a", "b"]),
            ("!/a\n!/b", ["b"]),
            ("!/help.", []),
            ("<task>\nSome context\n!/help\n</task>", ["help"]),
            ("<task>!/help</task>", ["help"]),
            ("!/help\n<environment_details>\nx\n</environment_details>", ["help"]),
            ("<system-reminder>x</system-reminder>!/help", ["help"]),
            ("!/help\n```\ncode\n```", []),
            ("!/help\n> quoted", []),
            ("> quoted !/help", []),
            ("", []),
        ],
    )
    def test_only_the_last_line_and_only_if_it_holds_nothing_else(self, text: str, names: list[str]) -> None:
        assert self.found(text) == names


class TestCut:
    @pytest.mark.parametrize(
        ("text", "left"),
        [
            ("Hello, use !/set(model=b:m) for this", "Hello, use for this"),
            ("!/help", ""),
            ("!/hello hi", " hi"),
            ("hi !/hello", "hi "),
            ("a !/x !/y b", "a b"),
            ("a\t!/x\tb", "a\tb"),
            ("a \n!/x\n b", "a \n b"),
            ("!/x\nfoo", "foo"),
            ("foo\n!/x", "foo"),
            ("foo\n  !/x\t\nbar", "foo\nbar"),
            ("foo\r\n!/x\r\nbar\r\n", "foo\r\nbar\r\n"),
            ("foo\r!/x\rbar", "foo\rbar"),
            ("foo\n\n!/x\n\nbar", "foo\n\n\nbar"),
            ("x\n!/a\n!/b", "x"),
            ("!/a\n!/b\nx", "x"),
            ("x\n!/a\n!/b\ny", "x\ny"),
            ("\n!/b", ""),
            ("x !/set(\na=b\n) y", "x y"),
            ("!/set(\na=b\n)\ny", "y"),
            ("<task>\n!/x\n</task>", "<task>\n</task>"),
            ("!/model(m)\n\tdef f():\n\t\treturn `x`  <b>y</b>  \n", "\tdef f():\n\t\treturn `x`  <b>y</b>  \n"),
            ("do, !/x, please", "do, , please"),
        ],
    )
    def test_what_is_left(self, text: str, left: str) -> None:
        assert rest(text) == left

    def test_two_blanks_that_no_cut_made_stay(self) -> None:
        assert rest("a  b !/x c  d") == "a  b c  d"


WORDS = st.sampled_from(
    ["fix", "it", "`x`", "<b>", "a, b", "(c)", '"q"', "'", "é", "\u200b", "!", "/", "=", "]", "a\tb", "\\"]
)
COMMANDS = st.sampled_from(["!/help", "!/set(a=b)", '!/set(a="b, )", c=[1])', "!/model (b:m)", "!/set(\na=b,\n c=d)"])
GAPS = st.sampled_from([" ", "  ", "\n", "\n\n", "\r\n", " \t", "\n  ", " \n"])
TEXTS = st.lists(st.tuples(st.one_of(WORDS, COMMANDS), GAPS), max_size=12).map(
    lambda pairs: "".join(word + gap for word, gap in pairs)
)


@given(TEXTS)
def test_a_cut_only_takes_away_and_only_commands_and_white_space(text: str) -> None:
    founds = find(text)
    left = grammar.cut(text, founds)
    outside = text
    for found in reversed(founds):
        outside = outside[: found.start] + "\0" + outside[found.end :]
    assert left.split() == outside.replace("\0", " ").split()
    place = -1
    for character in left:
        place = outside.find(character, place + 1)
        assert place >= 0, "what is left stands in the text in this order"


@given(TEXTS)
def test_a_text_without_its_commands_has_none(text: str) -> None:
    left = rest(text)
    assert rest(left) == left
    if not find(text):
        assert left == text


@given(st.text(alphabet="!/ab(){}[]'\"\\=,: \n`~><", max_size=60))
def test_any_text_is_read_and_what_is_found_lies_in_it(text: str) -> None:
    spans = typed_spans(text)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(one[1] < other[0] for one, other in pairwise(spans))
    founds = grammar.find(text, "!/", spans)
    for found in founds:
        assert text.startswith("!/", found.start)
        assert any(start <= found.start and found.end <= end for start, end in spans)
    assert len(grammar.cut(text, founds)) <= len(text) - sum(found.end - found.start for found in founds)


KEYS = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,8}", fullmatch=True)
VALUES = st.text(alphabet=st.characters(codec="utf-8"), max_size=20)


def quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(st.lists(st.tuples(st.one_of(st.just(""), KEYS), VALUES), max_size=5))
def test_what_is_written_with_quotes_is_read_again(items: list[tuple[str, str]]) -> None:
    written = ", ".join(f"{key}={quoted(value)}" if key else quoted(value) for key, value in items)
    found = only(f"!/set({written})")
    assert found.error == ""
    assert found.arguments == Arguments(tuple(Argument(key, value) for key, value in items))


PLAIN = st.from_regex(r"[A-Za-z0-9._:/@-]{1,12}", fullmatch=True)


@given(st.lists(st.tuples(KEYS, PLAIN), min_size=1, max_size=5), st.sampled_from(["", " ", "\n  "]))
def test_plain_values_need_no_quotes(items: list[tuple[str, str]], blank: str) -> None:
    written = f",{blank}".join(f"{key}{blank}={blank}{value}" for key, value in items)
    assert pairs(f"!/set({blank}{written}{blank})") == items
