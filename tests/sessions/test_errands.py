"""AGT-04: an agent's errands are told from its turns; whatever is not sure is a turn."""

from __future__ import annotations

import json

import pytest

from llm_proxy.dialects.base import Opening
from llm_proxy.sessions.agents import AGENTS, detect
from llm_proxy.sessions.errands import is_errand
from llm_proxy.sessions.identity import identify
from tests.sessions.requests import KEY, chat, functions, headers, headers_of, model_of, opening_of, recorded
from tests.support.shared import needs_shared

# What agents.md calls side requests among the recorded ones.
ERRANDS = {
    "claude/anthropic-interactive-1.json",
    "codex/responses-interactive-2.json",
    "gemini/gemini-automodel-1.json",
    "opencode/chat-tool-1.json",
}
JSON = {"response_format": {"type": "json_schema", "json_schema": {}}}
TITLE = ("system", "You are a title generator. You output ONLY a thread title.")


@needs_shared
def test_of_the_recorded_requests_the_side_requests_are_errands_and_no_other() -> None:
    found = set()
    for file, request in recorded().items():
        agent = detect(headers_of(request), opening_of(request)).agent
        if is_errand(agent, headers_of(request), opening_of(request), model_of(request)):
            found.add(file)
    assert found == ERRANDS


@needs_shared
def test_opencodes_recorded_title_request_belongs_to_the_session_of_its_main_request() -> None:
    title, main = recorded()["opencode/chat-tool-1.json"], recorded()["opencode/chat-tool-3.json"]
    ids = {identify(headers_of(request), opening_of(request), "s", KEY).id for request in (title, main)}
    assert len(ids) == 1


@pytest.mark.parametrize("agent", ["opencode", "kilo"])
class TestTitleGenerators:
    def test_a_title_request_is_an_errand(self, agent: str) -> None:
        assert is_errand(agent, headers(), chat(TITLE, ("user", "x")), "m")

    def test_an_id_that_begins_with_title_is_one(self, agent: str) -> None:
        assert is_errand(agent, headers(x_session_id="title-ses_1"), chat(("user", "x")), "m")

    def test_the_main_request_is_a_turn(self, agent: str) -> None:
        tools = functions("bash", "edit", "write", "todowrite", "webfetch")
        main = chat(("system", "You are opencode, an agent"), ("user", "x"), tools=tools)
        assert not is_errand(agent, headers(x_session_id="ses_1"), main, "m")

    def test_with_many_tools_it_is_a_turn(self, agent: str) -> None:
        main = chat(TITLE, ("user", "x"), tools=functions("bash", "edit", "write"))
        assert not is_errand(agent, headers(), main, "m")


class TestCodex:
    @pytest.mark.parametrize(
        ("metadata", "errand"),
        [
            (json.dumps({"thread_id": "t", "thread_source": "thread_title"}), True),
            (json.dumps({"thread_id": "t", "thread_source": "user"}), False),
            ("{", False),
            ('{"thread_source": 5}', False),
            ("[]", False),
            ("", False),
        ],
    )
    def test_the_thread_says_what_it_is_for(self, metadata: str, errand: bool) -> None:
        found = is_errand("codex", headers(x_codex_turn_metadata=metadata), chat(("user", "x"), **JSON), "m")
        assert found is errand


class TestClaudeCode:
    def test_no_tools_and_a_schema_is_a_title(self) -> None:
        assert is_errand("claude-code", headers(), Opening(first_user=("x",), json_demanded=True), "m")

    def test_no_tools_and_one_token_is_a_quota_probe(self) -> None:
        assert is_errand("claude-code", headers(), Opening(first_user=("quota",), max_tokens=1), "m")

    @pytest.mark.parametrize(
        "turn",
        [
            Opening(first_user=("x",), max_tokens=32000),
            Opening(first_user=("x",), tools=("Bash",), json_demanded=True),
            Opening(first_user=("x",), tools=("Bash",), max_tokens=1),
        ],
    )
    def test_others_are_turns(self, turn: Opening) -> None:
        assert not is_errand("claude-code", headers(), turn, "m")


class TestGeminiCli:
    classifier = Opening(first_user=("x",), json_demanded=True)

    def test_the_classifier_is_an_errand(self) -> None:
        assert is_errand("gemini-cli", headers(), self.classifier, "gemini-3.5-flash-lite")

    def test_another_model_or_tools_make_it_a_turn(self) -> None:
        assert not is_errand("gemini-cli", headers(), self.classifier, "gemini-2.5-pro")
        with_tools = Opening(first_user=("x",), json_demanded=True, tools=("read_file",))
        assert not is_errand("gemini-cli", headers(), with_tools, "gemini-3.5-flash-lite")
        assert not is_errand("gemini-cli", headers(), Opening(first_user=("x",)), "gemini-3.5-flash-lite")


class TestQwenCode:
    upkeep = "You are now acting as the managed memory extraction subagent"
    few = ("read_file", "grep_search", "glob", "list_directory", "write_file", "edit")

    def test_memory_upkeep_is_an_errand(self) -> None:
        assert is_errand("qwen-code", headers(), Opening(system=(self.upkeep,), tools=self.few), "m")

    def test_with_all_tools_it_is_a_turn(self) -> None:
        many = tuple(f"tool{number}" for number in range(14))
        assert not is_errand("qwen-code", headers(), Opening(system=(self.upkeep,), tools=many), "m")

    def test_the_main_prompt_speaks_of_memory_and_is_a_turn(self) -> None:
        main = "You are Qwen Code, a non-interactive CLI agent with memory. Your MEMORY.md is empty."
        assert not is_errand("qwen-code", headers(), Opening(system=(main,), tools=self.few), "m")


class TestGptme:
    asked = (
        "Your task: Create a 2-4 word title for this conversation.\n\nelse return exactly NO_NAME\n\nConversation:\nx"
    )

    def test_its_title_request_is_named_and_is_an_errand(self) -> None:
        title = chat(("system", "Generate concise conversation titles."), ("user", self.asked))
        assert detect(headers(user_agent="OpenAI/Python 2.54.0"), title).agent == "gptme"
        assert is_errand("gptme", headers(), title, "m")

    def test_a_turn_is_a_turn(self) -> None:
        assert not is_errand("gptme", headers(), chat(("system", "You are gptme v0.35.1,"), ("user", "x")), "m")
        assert not is_errand("gptme", headers(), chat(("system", "You are gptme v1,"), ("user", self.asked)), "m")


@pytest.mark.parametrize(
    "request_",
    [
        chat(("user", "Give this conversation a title, in at most five words.")),
        chat(TITLE, ("user", "Generate a title for this conversation")),
        chat(("system", "Generate concise conversation titles."), ("user", "Name this conversation")),
        chat(("user", "x"), **JSON),
        chat(("user", "x"), max_tokens=1),
    ],
)
def test_given_a_plain_sdk_request_that_asks_for_a_title_then_it_is_a_turn(request_: Opening) -> None:
    agent = detect(headers(user_agent="OpenAI/Python 3.52.0"), request_).agent
    assert agent == "generic"
    assert not is_errand(agent, headers(), request_, "gemini-3.5-flash-lite")


@pytest.mark.parametrize("agent", AGENTS)
def test_a_plain_question_is_a_turn_for_every_agent(agent: str) -> None:
    assert not is_errand(agent, headers(), chat(("system", "Be kind."), ("user", "hello")), "m")
