"""RT-06: model name rewrites, as far as they are text work."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.routing.aliases import Aliases, BadRule, Rule, complaint
from llm_proxy.routing.options import split_rule


def applied(name: str, *rules: tuple[str, str]) -> str:
    return Aliases([Rule(*rule) for rule in rules]).apply(name)[0]


@pytest.mark.parametrize(
    ("pattern", "replacement", "name", "result"),
    [
        (r"^gpt-(.*)", r"openrouter:openai/gpt-\1", "gpt-4o", "openrouter:openai/gpt-4o"),
        (r"gpt-(.*)", r"openrouter:openai/gpt-\1", "gpt-4o", "openrouter:openai/gpt-4o"),
        (r"gpt", "x", "my-gpt-4", "my-gpt-4"),
        (r"gpt-4", "big", "gpt-4o-mini", "bigo-mini"),
        (r"^(?P<vendor>[^/]+)/(?P<model>.+)$", r"\g<vendor>:\g<model>", "openai/gpt-4o", "openai:gpt-4o"),
        (r"(a)(b)?", r"[\1\2]", "ac", "[a]c"),
        (r"(?i)GPT", r"\g<0>!", "gpt-4", "gpt!-4"),
        (r"(.)(.)", r"\g<2>\g<1>", "abc", "bac"),
        (r"a", r"\\", "ab", "\\b"),
        (r"a", r"\-\.", "ab", r"\-\.b"),
        (r"", "openrouter:", "gpt-4o", "openrouter:gpt-4o"),
        (r"old\Z", "new", "old", "new"),
        (r"old\Z", "new", "older", "older"),
        (r"мод(.)", r"\1", "модéль", "éль"),
        (r"..", r"é\g<0>", "模型é", "é模型é"),
        (r"(a|ab)(c|bcd)(d*)", r"<\1,\2,\3>", "abcd", "<a,bcd,>"),
        (r".*", "only", "", "only"),
    ],
)
def test_the_match_at_the_start_is_substituted_and_the_rest_is_kept(
    pattern: str, replacement: str, name: str, result: str
) -> None:
    assert applied(name, (pattern, replacement)) == result


def test_the_first_match_ends_the_search() -> None:
    rules = [Rule("gpt", "a"), Rule("claude-(.*)", r"b-\1"), Rule(".*", "rest")]
    aliases = Aliases(rules)
    assert aliases.apply("claude-3") == ("b-3", rules[1])
    assert aliases.apply("gemini") == ("rest", rules[2])


def test_the_result_is_not_matched_again() -> None:
    assert applied("a", ("a", "b"), ("b", "c")) == "b"
    assert applied("a", ("a", "aa")) == "aa"


def test_without_a_match_the_name_stays() -> None:
    assert Aliases([Rule("x", "y")]).apply("gpt") == ("gpt", None)
    assert Aliases().apply("gpt") == ("gpt", None)


@pytest.mark.parametrize(
    ("pattern", "replacement", "reason"),
    [
        ("[", "x", "missing ]: ["),
        ("(a", "x", "missing )"),
        ("*", "x", "no argument for repetition operator"),
        ("a(?=b)", "x", "look-around and references back to a group are not supported"),
        ("(?<!a)b", "x", "look-around and references back to a group are not supported"),
        (r"(a)\1", "x", "look-around and references back to a group are not supported"),
        (r"a\C", "x", r"bad escape \C"),
        ("a{2000}", "x", "invalid repetition size"),
        ("a", r"\1", "names group 1, but the pattern has 0"),
        ("(a)(b)", r"\g<3>", "names group 3, but the pattern has 2"),
        ("(?P<n>a)", r"\g<m>", r"unknown group: \g<m>"),
        ("a", r"\g<n", r"bad escape: \g"),
        ("a", r"\g<>", r"bad escape: \g"),
        ("a", r"\q", r"bad escape: \q"),
        ("a", r"\0", r"bad escape: \0"),
        ("a", "x\\", "bad escape: \\"),
        ("a\n", "x", "the pattern holds control characters"),
        ("a", "x\r\ny", "the replacement holds control characters"),
    ],
)
def test_what_is_wrong_with_a_rule_is_told(pattern: str, replacement: str, reason: str) -> None:
    assert reason in complaint(Rule(pattern, replacement))
    with pytest.raises(BadRule):
        Aliases([Rule(pattern, replacement)])


def test_a_usable_rule_draws_no_complaint() -> None:
    assert complaint(Rule(r"^gpt-(?P<rest>.*)", r"\g<rest>\1\\")) == ""


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("a=b", Rule("a", "b")),
        ("a=b=c", Rule("a", "b=c")),
        (r"a\=b=c", Rule("a=b", "c")),
        (r"a\=\==c\=d", Rule("a==", "c=d")),
        ("=x", Rule("", "x")),
        ("a=", Rule("a", "")),
        (r"^gpt-(.*)=openrouter:openai/gpt-\1", Rule("^gpt-(.*)", r"openrouter:openai/gpt-\1")),
    ],
)
def test_a_flag_is_split_at_the_first_equals_sign_without_a_backslash(text: str, rule: Rule) -> None:
    assert split_rule(text) == rule


@pytest.mark.parametrize("text", ["", "abc", r"a\=b", r"\="])
def test_a_flag_without_such_a_sign_is_no_rule(text: str) -> None:
    assert split_rule(text) is None


NAMES = st.text(st.characters(codec="utf-8"), max_size=512)


@given(NAMES, NAMES)
def test_a_literal_rule_replaces_exactly_its_text(start: str, rest: str) -> None:
    if not start.isprintable():
        return
    literal = "".join(letter if letter.isalnum() or ord(letter) > 127 else f"\\x{ord(letter):02x}" for letter in start)
    assert applied(start + rest, (literal, "new:")) == "new:" + rest


@given(NAMES, NAMES)
def test_a_rule_that_keeps_its_group_keeps_every_name(name: str, other: str) -> None:
    aliases = Aliases([Rule("(?s)(.*)", r"\1")])
    assert aliases.apply(name)[0] == name
    assert aliases.apply(other)[0] == other
    assert aliases.apply(name)[0] == name


def test_matching_time_is_bounded() -> None:
    """A pattern that a backtracking engine would not finish."""
    aliases = Aliases([Rule("(a*)*(a|aa)+b", "x")])
    begun = time.process_time()
    assert aliases.apply("a" * 512)[1] is None
    assert time.process_time() - begun < 1.0
