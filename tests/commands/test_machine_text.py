"""Which characters of a message a person typed (CMD-01), and what of a text lasts when machine text is taken out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from llm_proxy import dialects
from llm_proxy.commands import messages
from llm_proxy.conversation.parts import Text
from llm_proxy.conversation.request import Message, Request
from llm_proxy.sessions.agents import detect
from llm_proxy.sessions.machine_text import BLOCKS, WRAPPERS, survey_message, typed_spans, without_machine_text
from tests.sessions.requests import headers_of, opening_of
from tests.support.shared import SHARED, ClientRequest, client_requests, needs_shared


def typed(text: str, agent: str = "", last: bool = True) -> list[str]:
    return [text[start:end] for start, end in typed_spans(text, agent=agent, last=last)]


def typed_of_all(*texts: str, agent: str = "") -> list[list[str]]:
    surveys = survey_message(texts, agent=agent)
    return [[text[start:end] for start, end in seen.typed] for text, seen in zip(texts, surveys, strict=True)]


class TestTypedSpans:
    def test_plain_text_is_typed_whole(self) -> None:
        assert typed("hi\n there") == ["hi\n there"]
        assert typed("") == []

    @pytest.mark.parametrize("tag", BLOCKS)
    def test_blocks_are_not_typed(self, tag: str) -> None:
        assert typed(f"a <{tag}>x</{tag}> b") == ["a ", " b"]
        assert typed(f'<{tag.upper()} a="b">x') == []

    def test_a_block_that_a_client_appends_without_a_blank(self) -> None:
        assert typed("hi<system-reminder>x</system-reminder>") == ["hi"]

    @pytest.mark.parametrize("tag", WRAPPERS)
    def test_the_inside_of_wrappers_is_typed_and_their_tags_are_not(self, tag: str) -> None:
        assert typed(f"<{tag}>\nx\n</{tag}>") == ["\nx\n"]

    @pytest.mark.parametrize(
        "text",
        [
            "Array<Context> a",
            "< system> a",
            "<contexts> a",
            "<context.x> a",
            "<con\u200btext> a",
            "＜system＞ a",
            "a</system> b",
        ],
    )
    def test_what_is_no_tag_of_a_client(self, text: str) -> None:
        assert typed(text) == [text]

    def test_a_longer_fence_and_a_shorter_one(self) -> None:
        assert typed("a\n````\nx\n```\ny\n````\nb") == ["a\n", "b"]

    def test_a_fence_with_a_backtick_behind_it_is_none(self) -> None:
        assert typed("```a``` b") == ["```a``` b"]

    def test_an_unknown_tag_that_fills_a_text_before_the_last(self) -> None:
        text = "<new_thing a='b'>\nx\n</new_thing>"
        assert typed(text, agent="codex", last=False) == []
        assert typed(text, agent="codex") == [text]
        assert typed(text, agent="generic", last=False) == [text]
        assert typed(text + " and more", agent="codex", last=False) == [text + " and more"]

    def test_quotes_around_an_argument_of_opencode(self) -> None:
        assert typed('"fix it"', agent="opencode") == ["fix it"]
        assert typed('"fix it"', agent="codex") == ['"fix it"']
        assert typed('say "it"', agent="opencode") == ['say "it"']


class TestResults:
    def test_nothing_behind_a_heading_is_typed(self) -> None:
        assert typed_of_all("[read_file for 'a'] Result:", "x", "<feedback>y</feedback>") == [[], [], []]

    def test_the_answer_to_a_question_is(self) -> None:
        texts = (
            "[ask_followup_question for 'q'] Result:",
            "<answer>\nx\n</answer>",
            "<environment_details>y</environment_details>",
        )
        assert typed_of_all(*texts) == [[], ["\nx\n"], []]

    def test_only_the_last_text_behind_a_completion_and_only_in_its_wrapper(self) -> None:
        texts = ("[attempt_completion] Result:", "<feedback>x</feedback>", "Said: <feedback>y</feedback> z")
        assert typed_of_all(*texts) == [[], [], ["y"]]

    def test_another_result_behind_it(self) -> None:
        texts = (
            "[attempt_completion] Result:",
            "<feedback>x</feedback>",
            "[list_files for '.'] Result:",
            "<feedback>y</feedback>",
        )
        assert typed_of_all(*texts) == [[], ["x"], [], []]

    def test_before_a_heading_everything_is_as_usual(self) -> None:
        assert typed_of_all("hi", "[list_files] Result:", "x") == [["hi"], [], []]

    def test_a_bracket_at_the_beginning_is_no_heading_by_itself(self) -> None:
        assert typed("[draft] fix it") == ["[draft] fix it"]
        assert typed("[read_file for 'a'] and then") == ["[read_file for 'a'] and then"]


class TestWithoutMachineText:
    def test_blocks_go_and_the_rest_stays(self) -> None:
        text = "<system-reminder>a</system-reminder>!/help\n> q\n```\nc\n```\n<task>t</task>"
        assert without_machine_text(text) == "!/help\n> q\n```\nc\n```\n<task>t</task>"

    def test_text_between_two_blocks_of_one_name_stays(self) -> None:
        assert without_machine_text("<context>a</context> b <context>c</context>") == " b "

    def test_a_message_of_a_program_is_nothing(self) -> None:
        assert without_machine_text("# AGENTS.md instructions for /x\n\nbe kind") == ""

    def test_sentences_of_an_agent(self) -> None:
        text = "Please solve this issue: fix it\n\nYou can execute bash commands and edit files here."
        assert without_machine_text(text, "mini-swe-agent") == " fix it"
        assert without_machine_text(text) == text


@given(st.text(alphabet="<>/systemcontext `~\n\"'[]", max_size=80), st.sampled_from(["", "opencode", "aider"]))
def test_any_text_has_sorted_spans_and_is_stable_without_machine_text(text: str, agent: str) -> None:
    spans = typed_spans(text, agent=agent)
    flat = [place for span in spans for place in span]
    assert flat == sorted(flat)
    left = without_machine_text(text, agent)
    assert len(left) <= len(text)
    if not any(f"<{tag}".lower() in text.lower() for tag in BLOCKS):
        assert left == text or agent == "aider"


# Real requests, with a command put before what was typed


def _requests() -> list[ClientRequest]:
    return [one for one in client_requests() if one.protocol and "MARK-" in json.dumps(one.body)]


@needs_shared
@pytest.mark.parametrize("sent", _requests() if SHARED else [], ids=str)
def test_a_command_before_what_was_typed_is_found_in_every_recorded_request(sent: ClientRequest) -> None:
    assert sent.protocol is not None
    body = json.dumps(sent.body).replace("MARK-", "!/help MARK-").encode()
    request = dialects.get(sent.protocol).read_request(body, "m")
    asked = [
        number
        for number, message in enumerate(request.messages)
        if message.role == "user"
        and any(isinstance(part, Text) and "!/help MARK-" in part.text for part in message.parts)
    ]
    assert asked
    until = structs.replace(request, messages=request.messages[: asked[-1] + 1])
    agent = detect(headers_of(sent), opening_of(sent)).agent
    found = messages.read(until, prefix="!/", strict=False, agent=agent, most=20)
    assert [one.name for one in found.commands] == ["help"]
    left = messages.without_commands(until, found, known=lambda name: True)
    assert "!/help" not in str(left.messages[-1])


# Linear work (I-11)


def _conversation(text: str) -> Request:
    return Request(dialect="openai-chat", messages=(Message("user", (Text(text),)),))


def _read(text: str) -> messages.Reading:
    return messages.read(_conversation(text), prefix="!/", strict=False, agent="", most=20)


MILLION = 1_000_000
HOSTILE: dict[str, Callable[[int], str]] = {
    "prefixes": lambda size: "!/" * (size // 2),
    "unclosed": lambda size: " !/a(" * (size // 5),
    "nested": lambda size: "!/a(" + "([{" * (size // 3),
    "quotes": lambda size: ' !/a("' * (size // 6),
    "commands": lambda size: "!/help " * (size // 7),
    "command lines": lambda size: "!/help\n" * (size // 7),
    "carriage returns": lambda size: "!/a\r" * (size // 4),
    "open tags": lambda size: " !/a " + "<task " * (size // 6),
    "blocks": lambda size: " !/a " + "<context></context>\n" * (size // 20),
    "wrappers": lambda size: "<task>\n!/a(b)\n</task>\n" * (size // 22),
    "fences": lambda size: " !/a \n" + "```\n~~~\n" * (size // 8),
    "lists": lambda size: " !/a \n" + "- " * (size // 2),
    "blanks": lambda size: "!/a" + " " * size,
    "equals": lambda size: "!/a(" + " a =" * (size // 4),
    "heading": lambda size: "[a for ']" * (size // 9) + " !/a",
}


def test_a_million_characters_of_prefixes_are_text() -> None:
    assert _read(HOSTILE["prefixes"](MILLION)) == messages.Reading()


@pytest.mark.parametrize("kind", ["unclosed", "nested", "quotes"])
def test_what_is_never_closed_is_one_mistake(kind: str) -> None:
    [found] = _read(HOSTILE[kind](MILLION)).commands
    assert "is missing" in found.error or "is not closed" in found.error


def test_ten_thousand_commands_are_too_many() -> None:
    assert _read("!/help " * 10_000).too_many


@pytest.mark.long
@pytest.mark.parametrize("kind", HOSTILE)
def test_twice_the_text_is_twice_the_work(kind: str) -> None:
    """The factor leaves room for noise; quadratic work would show sixteen."""

    def seconds(size: int) -> float:
        request = _conversation(HOSTILE[kind](size))
        later = Request(
            dialect="openai-chat",
            messages=(*request.messages, Message("assistant", (Text("a"),)), Message("user", (Text("b"),))),
        )
        begun = time.perf_counter()
        for strict in (False, True):
            messages.read(request, prefix="!/", strict=strict, agent="aider", most=20)
            messages.clean_history(
                later,
                prefixes=("!/",),
                known=lambda name: True,
                agent="opencode",
                local_replies=(),
                confirmations=(),
                strict=strict,
            )
        return time.perf_counter() - begun

    small = min(seconds(MILLION // 4) for _ in range(3))
    large = min(seconds(MILLION) for _ in range(3))
    assert large < 10 * small + 0.05
