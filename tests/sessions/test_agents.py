"""AGT-01: which agent a client is, by headers, then tools, then machine-written texts."""

from __future__ import annotations

import pytest

from llm_proxy.dialects.base import Opening
from llm_proxy.sessions.agents import _HEADERS, _TEXTS, _TOOLS, AGENTS, Detected, detect
from tests.sessions.requests import chat, functions, headers, headers_of, opening_of, recorded
from tests.support.shared import needs_shared

# Folder of the recordings -> the agent's name; all others are SDKs and programs without a name of their own.
RECORDED = {
    "aider": "aider",
    "claude": "claude-code",
    "cline": "cline",
    "codex": "codex",
    "continue": "continue",
    "copilot": "copilot",
    "gemini": "gemini-cli",
    "gptme": "gptme",
    "grok": "grok",
    "kilocode": "kilo",
    "mini": "mini-swe-agent",
    "opencode": "opencode",
    "pi": "pi",
    "qwen": "qwen-code",
}
BY_HEADER = {"claude", "codex", "gemini", "kilocode", "opencode"}


@needs_shared
def test_each_recorded_request_is_named_rightly() -> None:
    for file, request in recorded().items():
        folder = file.partition("/")[0]
        found = detect(headers_of(request), opening_of(request))
        assert found.agent == RECORDED.get(folder, "generic"), file
        if folder in BY_HEADER:
            assert found.by_header, file


@needs_shared
def test_tools_and_texts_tell_each_recorded_agent_without_its_headers() -> None:
    for file, request in recorded().items():
        found = detect(headers(), opening_of(request))
        expected = RECORDED.get(file.partition("/")[0], "generic")
        # Titles and classifiers say nothing of the agent but by their headers.
        if file not in ("opencode/chat-tool-1.json",):
            assert found == Detected(expected, False), file


@pytest.mark.parametrize(
    ("sent", "agent"),
    [
        ({"user-agent": "claude-cli/2.1.0 (external, cli)", "x-claude-code-session-id": "s"}, "claude-code"),
        ({"user-agent": "codex_cli_rs/0.50.0 (Debian) xterm"}, "codex"),
        ({"user-agent": "codex-tui/0.169.0 (Debian) xterm"}, "codex"),
        ({"originator": "codex_vscode", "user-agent": "something/1"}, "codex"),
        ({"user-agent": "GeminiCLI/0.8.1 (linux; x64)"}, "gemini-cli"),
        ({"user-agent": "GeminiCLI-tui/0.61.0/gemini-2.5-pro (linux; x64; terminal)"}, "gemini-cli"),
        ({"user-agent": "QwenCode/0.24.4 (linux; x64)"}, "qwen-code"),
        ({"user-agent": "opencode/1.18.33 ai-sdk/provider-utils/4.0.46"}, "opencode"),
        ({"user-agent": "Kilo-Code/7.7.7 ai-sdk/provider-utils/4.0.27"}, "kilo"),
        ({"x-title": "Kilo Code", "user-agent": "OpenAI/JS 5"}, "kilo"),
        ({"user-agent": "RooCode/3.25.0"}, "roo"),
        ({"x-title": "Roo Code", "http-referer": "https://github.com/RooVetGit/Roo-Cline"}, "roo"),
        ({"x-title": "Cline", "http-referer": "https://cline.bot"}, "cline"),
        ({"user-agent": "Charm-Crush/v0.51.2 (https://charm.land/crush)"}, "crush"),
        ({"user-agent": "Charm Crush/0.48.0"}, "crush"),
        ({"user-agent": "Zed/0.199.4 (linux; x86_64)"}, "zed"),
        ({"user-agent": "GitHubCopilotChat/0.35.0", "editor-version": "vscode/1.107.0"}, "copilot"),
        ({"user-agent": "OpenAI/JS 5.20.1", "x-interaction-type": "conversation-user"}, "copilot"),
        ({"x-cursor-client-version": "2.0"}, "cursor"),
        ({"http-referer": "https://block.github.io/goose", "x-title": "goose"}, "goose"),
    ],
)
def test_headers_prove_an_agent(sent: dict[str, str], agent: str) -> None:
    assert detect(headers(sent), chat(("user", "hi"))) == Detected(agent, True)


@pytest.mark.parametrize(
    "user_agent",
    [
        "OpenAI/Python 3.52.0",
        "Anthropic/JS 1.11.0",
        "litellm/1.81.10",
        "curl/8.5",
        "ai-sdk-openai/4.0",
        "",
        "Agents/Python 0.20.0",
    ],
)
def test_sdks_are_generic(user_agent: str) -> None:
    plain = chat(("system", "You are a test."), ("user", "hi"), tools=functions("run_command"))
    assert detect(headers(user_agent=user_agent), plain) == Detected("generic", False)


class TestClaudeCodeAndQwenCode:
    """Both send `claude-cli/`: the session header, the billing line and `metadata.user_id` are Claude Code's."""

    def test_qwen_code_over_anthropic(self) -> None:
        qwen = Opening(system=("You are Qwen Code, a non-interactive CLI agent developed by Alibaba Group",))
        sent = headers(user_agent="claude-cli/0.24.4 (external, cli)", x_app="cli")
        assert detect(sent, qwen) == Detected("qwen-code", False)

    def test_qwen_codes_own_version_tells_an_errand_without_its_prompt(self) -> None:
        assert detect(headers(user_agent="claude-cli/0.24.4 (external, cli)"), Opening()).agent == "qwen-code"

    @pytest.mark.parametrize(
        "found",
        [
            Opening(ids={"metadata.user_id": '{"session_id":"1"}'}),
            Opening(ids={"metadata.user_id": "user_a_account__session_1"}),
            Opening(system=("x-anthropic-billing-header: cc_version=2.1.0; cc_entrypoint=cli;",)),
            Opening(system=("You are Claude Code, Anthropic's official CLI for Claude.",)),
            Opening(system=("You are a Claude agent, built on Anthropic's Claude Agent SDK.",)),
        ],
    )
    def test_claude_code_without_its_session_header(self, found: Opening) -> None:
        assert detect(headers(user_agent="claude-cli/1.0.60 (external, cli)"), found) == Detected("claude-code", True)


@pytest.mark.parametrize(
    ("names", "agent"),
    [
        (("Bash", "Edit", "Read", "Write", "ToolSearch"), "claude-code"),
        (("exec_command", "write_stdin", "view_image"), "codex"),
        (("run_shell_command", "write_file", "replace", "read_file"), "gemini-cli"),
        (("run_shell_command", "write_file", "edit", "tool_search"), "qwen-code"),
        (("bash", "edit", "write", "todowrite", "webfetch", "task"), "opencode"),
        (("bash", "edit", "write", "todowrite", "webfetch", "kilo_local_recall"), "kilo"),
        (("bash", "view", "create", "session_store_sql"), "copilot"),
        (("run_commands", "read_files", "editor"), "cline"),
        (("Bash", "Read", "Edit", "Checklist", "CheckBackgroundJob"), "continue"),
        (("view_file", "create_file", "str_replace_editor", "create_todo_list"), "grok"),
        (("complete", "save", "shell"), "gptme"),
        (("developer__shell", "developer__text_editor"), "goose"),
        (("run_terminal_cmd", "codebase_search", "edit_file"), "cursor"),
        (("read", "bash", "edit", "write"), "generic"),
        (("bash",), "generic"),
        (("run_command", "read_file"), "generic"),
    ],
)
def test_tools_tell_an_agent(names: tuple[str, ...], agent: str) -> None:
    found = chat(("system", "Be kind."), ("user", "hi"), tools=functions(*names))
    assert detect(headers(user_agent="OpenAI/JS 5"), found) == Detected(agent, False)


@pytest.mark.parametrize(
    ("system", "agent"),
    [
        ("You are Cline, a highly skilled software engineer with extensive knowledge", "cline"),
        ("You are Roo, an experienced technical leader", "roo"),
        ("You are Kilo Code, a knowledgeable technical assistant", "kilo"),
        ("You are OpenCode, the best coding agent on the planet.", "opencode"),
        ("You are opencode, an interactive CLI agent specializing in software engineering tasks.", "opencode"),
        ("You are Codex, a coding agent based on GPT-5.", "codex"),
        ("You are GPT-5.2 running in the Codex CLI, a terminal-based coding assistant.", "codex"),
        ("You are a GPT-5.1 running in the Codex CLI, a terminal-based coding assistant.", "codex"),
        ("You are GPT-5, a large language model.", "generic"),
        ("You are Gemini CLI, an autonomous CLI agent", "gemini-cli"),
        ("You are an interactive CLI agent specializing in software engineering tasks.", "gemini-cli"),
        ("\nYou are the GitHub Copilot CLI, a terminal assistant built by GitHub.", "copilot"),
        ('You are an AI programming assistant.\nAsked for a name, you must respond with "GitHub Copilot".', "copilot"),
        ("You are an AI coding assistant, powered by GPT-5. You operate in Cursor.", "cursor"),
        ("You are an agent in the Continue CLI.", "continue"),
        ("You are Crush, a powerful AI Assistant that runs in the CLI.", "crush"),
        ("You are a general-purpose AI agent called Goose, created by Block", "goose"),
        ("You are an expert coding assistant operating inside pi, a coding agent harness.", "pi"),
        ("You are Grok CLI, an AI assistant", "grok"),
        ("You are gptme v0.35.1, a general-purpose AI assistant powered by LLMs.", "gptme"),
        ("You are a helpful assistant that can interact with a computer.", "mini-swe-agent"),
        ("Act as an expert software developer.\nYou MUST use this *file listing* format:", "aider"),
        ("Act as an expert software developer.\nDescribe each change with a *SEARCH/REPLACE* block", "aider"),
        ("Act as an expert software developer.\nBe kind.", "generic"),
        ("You help people who use Claude Code, Cline and aider.", "generic"),
        ("Compare Roo: You are Roo, an assistant.", "generic"),
    ],
)
def test_the_opening_of_the_system_prompt_tells_an_agent(system: str, agent: str) -> None:
    found = chat(("system", system), ("user", "hi"))
    assert detect(headers(user_agent="OpenAI/JS 5"), found) == Detected(agent, False)


class TestUserTexts:
    @pytest.mark.parametrize("name", AGENTS)
    def test_a_user_text_that_mentions_an_agent_is_no_evidence(self, name: str) -> None:
        for text in (f"please fix {name} support", f"You are {name}, are you not?", f"You are {name}."):
            assert detect(headers(user_agent="OpenAI/Python 3"), chat(("user", text))).agent == "generic"

    def test_the_machine_opening_of_mini_swe_agent_is(self) -> None:
        text = "Please solve this issue: x\n\nSubmit by `echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT`"
        assert detect(headers(), chat(("user", text))).agent == "mini-swe-agent"

    def test_a_question_about_that_text_is_not(self) -> None:
        text = "What does COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT mean?"
        assert detect(headers(), chat(("user", text))).agent == "generic"


class TestOrderOfEvidence:
    def test_headers_count_more_than_tools_and_texts(self) -> None:
        found = chat(("system", "You are Roo, x"), ("user", "hi"), tools=functions("exec_command", "write_stdin"))
        assert detect(headers(user_agent="opencode/1.0"), found) == Detected("opencode", True)

    def test_tools_count_more_than_texts(self) -> None:
        found = chat(("system", "You are Roo, x"), ("user", "hi"), tools=functions("exec_command", "write_stdin"))
        assert detect(headers(), found) == Detected("codex", False)


def test_every_agent_has_a_row_and_every_row_an_agent() -> None:
    named = {agent for _, _, agent in _HEADERS} | {row.agent for row in _TOOLS} | {row.agent for row in _TEXTS}
    assert named == set(AGENTS) - {"generic"}
    assert all(value == value.lower() for _, start, _ in _HEADERS for value in (start,))
    assert all(phrase == phrase.lower() for row in _TEXTS for phrase in (*row.opens, *row.names, *row.user_opens))
