"""AGT-02: agents accept the proxy's reply as a finished turn."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.dialects.base import Opening
from llm_proxy.sessions.agents import AGENTS, detect
from llm_proxy.sessions.replies import PLAIN, ReplyForm, call_id, dressed, form_of
from tests.sessions.requests import chat, functions, headers, headers_of, opening_of, recorded
from tests.support.shared import needs_shared

NATIVE = Opening(tools=("read_file", "attempt_completion"))
XML = Opening(system=("You are Roo, x\nUse <attempt_completion><result>…</result></attempt_completion> to finish.",))
WHOLE = "Act as an expert software developer.\nYou MUST use this *file listing* format:\n"
DIFF = "Act as an expert software developer.\nEvery *SEARCH/REPLACE block* must use this format:\n"
UDIFF = "Act as an expert software developer.\nReturn edits like `diff -U0` would produce.\n"
V4A = "Act as an expert software developer.\nWrap all in *** Begin Patch and *** End Patch.\n"


@pytest.mark.parametrize("agent", AGENTS)
def test_a_declared_attempt_completion_is_called_natively(agent: str) -> None:
    assert form_of("auto", agent, NATIVE) == ReplyForm("tool_call")


@pytest.mark.parametrize("agent", ["cline", "roo", "kilo"])
def test_an_agent_that_reads_xml_tools_gets_the_tagged_text(agent: str) -> None:
    form = form_of("auto", agent, XML)
    assert form.kind == "tagged"
    assert dressed("Hello", form) == "<attempt_completion><result>Hello</result></attempt_completion>"


def test_roo_with_a_mode_of_the_users_own_gets_the_tagged_text() -> None:
    assert form_of("auto", "roo", Opening(system=("You are a poet.",))).kind == "tagged"


@pytest.mark.parametrize("agent", ["cline", "kilo", "roo"])
def test_with_native_tools_but_without_that_one_plain_text_ends_the_turn(agent: str) -> None:
    tools = Opening(system=XML.system, tools=("run_commands", "read_files", "editor"))
    assert form_of("auto", agent, tools) == PLAIN


@pytest.mark.parametrize("agent", sorted(set(AGENTS) - {"cline", "roo", "kilo"}))
def test_all_others_get_plain_text(agent: str) -> None:
    assert form_of("auto", agent, XML) == PLAIN
    assert dressed("<b>Hello & bye</b>", PLAIN) == "<b>Hello & bye</b>"


@pytest.mark.parametrize("agent", AGENTS)
def test_plain_forces_plain_text(agent: str) -> None:
    for opening in (NATIVE, XML, Opening(system=(WHOLE,))):
        assert form_of("plain", agent, opening) == PLAIN


@pytest.mark.parametrize("agent", sorted(set(AGENTS) - {"aider"}))
def test_patch_is_auto_for_all_but_aider(agent: str) -> None:
    for opening in (NATIVE, XML, Opening()):
        assert form_of("patch", agent, opening) == form_of("auto", agent, opening)


def test_aider_gets_plain_text_by_itself() -> None:
    assert form_of("auto", "aider", Opening(system=(WHOLE,))) == PLAIN


@given(text=st.text())
def test_the_tagged_text_is_escaped(text: str) -> None:
    tagged = dressed(text, ReplyForm("tagged"))
    inside = tagged.removeprefix("<attempt_completion><result>").removesuffix("</result></attempt_completion>")
    assert "<" not in inside
    assert ">" not in inside


def test_an_xml_reader_finds_the_text_again() -> None:
    text = 'a < b && c > d "quoted" </result>'
    assert ElementTree.fromstring(dressed(text, ReplyForm("tagged"))).findtext("result") == text


class TestAiderEnvelopes:
    """`patch`: the reply as a new file, in the edit format that aider's prompt asked for."""

    def dress(self, system: str, text: str) -> str:
        return dressed(text, form_of("patch", "aider", Opening(system=(system,))))

    def test_whole_file(self) -> None:
        assert self.dress(WHOLE, "one\ntwo") == "PROXY_OUTPUT.txt\n```\none\ntwo\n```\n"

    @pytest.mark.parametrize(("fence", "closing"), [("````", "````"), ("<source>", "</source>")])
    def test_whole_file_in_the_fence_that_was_asked_for(self, fence: str, closing: str) -> None:
        asked = f"{WHOLE}- Second line: opening {fence}\n"
        assert self.dress(asked, "```\nx") == f"PROXY_OUTPUT.txt\n{fence}\n```\nx\n{closing}\n"

    def test_search_and_replace(self) -> None:
        expected = "PROXY_OUTPUT.txt\n```\n<<<<<<< SEARCH\n=======\none\ntwo\n>>>>>>> REPLACE\n```\n"
        assert self.dress(DIFF, "one\ntwo") == expected

    def test_unified_diff(self) -> None:
        assert (
            self.dress(UDIFF, "one\ntwo")
            == "```diff\n--- /dev/null\n+++ PROXY_OUTPUT.txt\n@@ ... @@\n+one\n+two\n```\n"
        )

    @pytest.mark.parametrize("system", [V4A, "Act as an expert code analyst."])
    def test_patch(self, system: str) -> None:
        expected = "*** Begin Patch\n*** Add File: PROXY_OUTPUT.txt\n+one\n+two\n*** End Patch\n"
        assert self.dress(system, "one\ntwo") == expected

    @given(
        lines=st.lists(
            st.sampled_from(
                [
                    "a",
                    "",
                    " ",
                    "```",
                    "``` x",
                    "=======",
                    " ===== ",
                    ">>>>>>> REPLACE",
                    "<<<<<<< SEARCH",
                    "*** End Patch",
                ]
            )
        ),
        between=st.sampled_from(["\n", "\r\n", "\u2028"]),
        system=st.sampled_from([WHOLE, DIFF, UDIFF, V4A]),
    )
    def test_no_line_of_the_text_ends_the_edit_too_early(self, lines: list[str], between: str, system: str) -> None:
        text = between.join(lines)
        head, tail = {WHOLE: (2, 2), DIFF: (4, 3), UDIFF: (4, 2), V4A: (2, 2)}[system]
        inside = self.dress(system, text).split("\n")[head:-tail]
        assert len(inside) == len(text.splitlines() or [""])
        for line in inside:
            if system in (UDIFF, V4A):
                assert line.startswith("+")
            elif system == WHOLE:
                assert not line.startswith("```")
            else:
                assert not line.strip().startswith(("=====", ">>>>>", "<<<<<"))

    def test_marks_inside_the_text_are_escaped(self) -> None:
        assert "\n\\```\n" in self.dress(WHOLE, "a\n```\nb")
        assert "\n\\>>>>>>> REPLACE\n" in self.dress(DIFF, "a\n>>>>>>> REPLACE\nb")


class TestCallIds:
    @pytest.mark.parametrize(
        ("dialect", "prefix"),
        [
            ("openai-chat", "call_proxy_"),
            ("openai-responses", "call_proxy_"),
            ("gemini", "call_proxy_"),
            ("anthropic-messages", "toolu_proxy_"),
        ],
    )
    def test_the_id_of_a_call_of_the_proxy_says_so(self, dialect: str, prefix: str) -> None:
        assert call_id(dialect, lambda start: f"{start}123") == f"{prefix}123"


def test_given_clines_tools_declared_natively_then_a_call() -> None:
    cline = chat(
        ("system", "You are Cline, x"), ("user", "!/hello"), tools=functions("execute_command", "attempt_completion")
    )
    agent = detect(headers(), cline).agent
    assert (agent, form_of("auto", agent, cline).kind) == ("cline", "tool_call")


@needs_shared
def test_of_the_recorded_agents_each_ends_on_plain_text() -> None:
    for file, request in recorded().items():
        agent = detect(headers_of(request), opening_of(request)).agent
        assert form_of("auto", agent, opening_of(request)) == PLAIN, file


@needs_shared
def test_the_recorded_aider_asks_for_whole_files() -> None:
    request = recorded()["aider/chat-tool-1.json"]
    assert form_of("patch", "aider", opening_of(request)) == ReplyForm("patch", "whole")
