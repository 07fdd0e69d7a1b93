"""Which coding agent a client is, told by its headers, its tools and the machine-written texts it begins with.

One table per kind of evidence. Rows without a source are as recorded from the releases of November 2026, the sources of
the others were read then; a name in what a person wrote is no evidence. What follows from the agent is decided by others.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from llm_proxy.dialects.base import Opening

GENERIC = "generic"
AGENTS = (
    "cline",
    "roo",
    "kilo",
    "claude-code",
    "codex",
    "gemini-cli",
    "aider",
    "opencode",
    "copilot",
    "cursor",
    "continue",
    "crush",
    "qwen-code",
    "goose",
    "pi",
    "grok",
    "mini-swe-agent",
    "gptme",
    "zed",
    GENERIC,
)
_BEGINNING = 400


class Detected(msgspec.Struct, frozen=True):
    """`agent` is one of `AGENTS`. `by_header`: proved by a header, which outweighs what a session remembers."""

    agent: str
    by_header: bool


class _Tools(msgspec.Struct, frozen=True):
    """All of `these` are declared, and one of `one_of` if that names any."""

    agent: str
    these: frozenset[str]
    one_of: frozenset[str] = frozenset()


class _Texts(msgspec.Struct, frozen=True, kw_only=True):
    """A system text opens with one of `opens`, its first line names one of `names`, and it holds one of `holds`; the first
    user message opens with one of `user_opens` and holds one of `user_holds`. Empty: not asked. Openings and
    names are compared in lower case."""

    agent: str
    opens: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()
    user_opens: tuple[str, ...] = ()
    user_holds: tuple[str, ...] = ()


# Header, how its value begins in lower case, agent; the first that fits counts.
_HEADERS: tuple[tuple[str, str, str], ...] = (
    # Codex names itself after its surface: codex_exec, codex-tui, codex_cli_rs, codex_vscode.
    ("user-agent", "codex_", "codex"),
    ("user-agent", "codex-", "codex"),
    ("user-agent", "codex/", "codex"),
    ("user-agent", "geminicli", "gemini-cli"),
    ("user-agent", "qwencode/", "qwen-code"),
    ("user-agent", "opencode/", "opencode"),
    ("user-agent", "kilo-code", "kilo"),
    # `kilo/latest/V/cli`: not recorded; another gateway's tests have it for Kilo Code over the Anthropic protocol.
    ("user-agent", "kilo/", "kilo"),
    # github.com/RooCodeInc/Roo-Code src/api/providers/constants.ts and packages/cloud/src/utils.ts.
    ("user-agent", "roocode/", "roo"),
    ("user-agent", "roo-code", "roo"),
    # github.com/cline/cline, buildExternalBasicHeaders.
    ("user-agent", "cline/", "cline"),
    # github.com/charmbracelet/crush internal/agent/agent.go; with a blank in 0.48 (its changelog of 2026-03-12).
    ("user-agent", "charm-crush/", "crush"),
    ("user-agent", "charm crush/", "crush"),
    # `Zed/V (os; arch)` on all requests: gateways to Zed's own service cite github.com/zed-industries/zed for it.
    ("user-agent", "zed/", "zed"),
    # Copilot Chat in VS Code, as the many clients that imitate it send it.
    ("user-agent", "githubcopilotchat/", "copilot"),
    ("originator", "codex", "codex"),
    ("x-codex-window-id", "", "codex"),
    ("x-codex-turn-metadata", "", "codex"),
    ("editor-plugin-version", "copilot", "copilot"),
    ("x-interaction-type", "conversation-", "copilot"),
    # As the gateway github.com/coder/aibridge tells it.
    ("x-cursor-client-version", "", "cursor"),
    ("x-title", "kilo code", "kilo"),
    ("http-referer", "https://kilocode.ai", "kilo"),
    # github.com/RooCodeInc/Roo-Code src/api/providers/constants.ts.
    ("x-title", "roo code", "roo"),
    ("http-referer", "https://github.com/roovetgit/roo-cline", "roo"),
    # github.com/cline/cline src/core/api/providers, several.
    ("x-title", "cline", "cline"),
    ("http-referer", "https://cline.bot", "cline"),
    # github.com/block/goose crates/goose/src/providers, OpenRouter and Tetrate.
    ("x-title", "goose", "goose"),
    ("http-referer", "https://block.github.io/goose", "goose"),
)

# Only names that no other agent uses together.
_TOOLS: tuple[_Tools, ...] = (
    _Tools("kilo", frozenset(("kilo_local_recall",))),
    _Tools("copilot", frozenset(("fetch_copilot_cli_documentation",))),
    _Tools("copilot", frozenset(("session_store_sql",))),
    # Copilot Chat in VS Code: its published agent prompts, 2025.
    _Tools("copilot", frozenset(("run_in_terminal", "get_errors", "insert_edit_into_file"))),
    _Tools("continue", frozenset(("Checklist", "CheckBackgroundJob"))),
    _Tools("claude-code", frozenset(("Bash", "Read", "Edit")), frozenset(("ToolSearch", "TodoWrite", "NotebookEdit"))),
    _Tools("codex", frozenset(("exec_command", "write_stdin"))),
    _Tools("qwen-code", frozenset(("run_shell_command", "write_file", "edit"))),
    _Tools("gemini-cli", frozenset(("run_shell_command", "write_file", "replace"))),
    _Tools("cline", frozenset(("run_commands", "read_files", "editor"))),
    # Cline in VS Code with native tools: github.com/cline/cline src/shared/tools.ts.
    _Tools("cline", frozenset(("execute_command", "plan_mode_respond"))),
    _Tools("grok", frozenset(("view_file", "str_replace_editor", "create_todo_list"))),
    _Tools("gptme", frozenset(("shell", "save", "complete"))),
    # github.com/charmbracelet/crush internal/agent/tools/crush_info.go.
    _Tools("crush", frozenset(("crush_info",))),
    _Tools("opencode", frozenset(("bash", "todowrite", "webfetch"))),
    # goose's extension `developer`.
    _Tools("goose", frozenset(("developer__shell",))),
    # Cursor's published agent prompts 1.0 to 2.0, 2025.
    _Tools("cursor", frozenset(("run_terminal_cmd", "codebase_search"))),
    # Zed's published tools and system prompt, 2025-07.
    _Tools("zed", frozenset(("find_path", "diagnostics", "edit_file"))),
)

_TEXTS: tuple[_Texts, ...] = (
    _Texts(
        agent="claude-code",
        opens=(
            "x-anthropic-billing-header:",
            "you are claude code",
            "you are a claude agent, built on anthropic's claude agent sdk",
            "you are an agent for claude code",
        ),
    ),
    _Texts(agent="qwen-code", opens=("you are qwen code",)),
    _Texts(agent="qwen-code", user_opens=("<system-reminder>\nthis is the qwen code.",)),
    _Texts(agent="codex", opens=("you are codex,", "you are a coding agent running in the codex cli")),
    # github.com/openai/codex codex-rs/core/gpt_5_1_prompt.md.
    _Texts(agent="codex", opens=("you are gpt-5", "you are a gpt-5"), names=("running in the codex cli",)),
    _Texts(
        agent="gemini-cli",
        opens=(
            "you are gemini cli",
            "you are a non-interactive cli agent specializing in software engineering",
            "you are an interactive cli agent specializing in software engineering",
        ),
    ),
    _Texts(
        agent="gemini-cli", user_opens=("<session_context>\nthis is the gemini cli.", "this is the gemini cli. we are")
    ),
    _Texts(agent="opencode", opens=("you are opencode",)),
    _Texts(agent="kilo", opens=("you are kilo,", "you are kilo code,")),
    _Texts(agent="cline", opens=("you are cline,", "you are cline.")),
    # The built-in modes of github.com/RooCodeInc/Roo-Code (packages/types/src/mode.ts) all open so.
    _Texts(agent="roo", opens=("you are roo,",)),
    _Texts(agent="copilot", opens=("you are the github copilot cli",)),
    # Copilot Chat in VS Code: its published prompts, 2025.
    _Texts(agent="copilot", opens=("you are",), holds=('you must respond with "GitHub Copilot"',)),
    _Texts(agent="continue", opens=("you are an agent in the continue cli",)),
    _Texts(agent="pi", opens=("you are an expert coding assistant operating inside pi,",)),
    _Texts(agent="grok", opens=("you are grok cli",)),
    # github.com/charmbracelet/crush internal/agent/templates/coder.md.tpl, older and newer.
    _Texts(agent="crush", opens=("you are crush,", "you are a coding agent running in the crush cli")),
    # github.com/block/goose crates/goose/src/prompts/system.md.
    _Texts(agent="goose", opens=("you are a general-purpose ai agent called goose",)),
    # Cursor's published agent prompts 1.0 to 2.0, 2025.
    _Texts(agent="cursor", opens=("you are",), holds=("You operate in Cursor", "operate exclusively in Cursor")),
    _Texts(agent="gptme", opens=("you are gptme",)),
    # Its title request: github.com/gptme/gptme gptme/util/auto_naming.py.
    _Texts(agent="gptme", opens=("generate concise conversation titles.",), user_holds=("NO_NAME",)),
    # The text alone is anybody's; the edit format behind it is aider's.
    _Texts(
        agent="aider",
        opens=("act as an expert software developer",),
        holds=("*file listing*", "*SEARCH/REPLACE", "diff -U0", "*** Begin Patch"),
    ),
    # github.com/Aider-AI/aider aider/coders/ask_prompts.py and architect_prompts.py.
    _Texts(agent="aider", opens=("act as an expert code analyst.\nanswer questions about the supplied code",)),
    _Texts(agent="aider", opens=("act as an expert architect engineer and provide direction to your editor engineer",)),
    _Texts(agent="mini-swe-agent", opens=("you are a helpful assistant that can interact with a computer",)),
    _Texts(
        agent="mini-swe-agent",
        user_opens=("please solve this issue:",),
        user_holds=("COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT",),
    ),
    _Texts(
        agent="zed",
        opens=("you are a highly skilled software engineer with extensive knowledge",),
        holds=("Zed",),
    ),
)

# Every row has one of them.
_OPENS = tuple(beginning for row in _TEXTS for beginning in row.opens)
_USER_OPENS = tuple(beginning for row in _TEXTS for beginning in row.user_opens)


def detect(headers: Callable[[str], str], opening: Opening) -> Detected:
    """`headers` gives the value of a header by its lower-case name, "" if absent."""
    if headers("x-claude-code-session-id").strip():
        return Detected("claude-code", True)
    user_agent = headers("user-agent").strip().lower()
    if user_agent.startswith("claude-cli/"):
        return _tell_claude_cli(user_agent, opening)
    values = {"user-agent": user_agent}
    for header, start, agent in _HEADERS:
        value = values.get(header)
        if value is None:
            value = values[header] = headers(header).strip().lower()
        if value and value.startswith(start):
            return Detected(agent, True)
    return Detected(_by_tools(opening) or _by_texts(opening) or GENERIC, False)


def _tell_claude_cli(user_agent: str, opening: Opening) -> Detected:
    """Qwen Code calls itself `claude-cli/V` over the Anthropic protocol, with its own version and no session header."""
    user_id = opening.ids.get("metadata.user_id", "")
    if "session_id" in user_id or "_session_" in user_id:
        return Detected("claude-code", True)
    told = _by_tools(opening) or _by_texts(opening)
    if told:
        return Detected(told, told == "claude-code")
    return Detected("qwen-code" if user_agent.startswith("claude-cli/0.") else "claude-code", False)


def _by_tools(opening: Opening) -> str:
    if not opening.tools:
        return ""
    declared = frozenset(opening.tools)
    for row in _TOOLS:
        if row.these <= declared and (not row.one_of or row.one_of & declared):
            return row.agent
    return ""


def _by_texts(opening: Opening) -> str:
    system = [(text, _beginning(text)) for text in opening.system]
    user = [_beginning(text) for text in opening.first_user]
    # Most texts are those of no agent: one look at their beginnings says so.
    if not any(beginning.startswith(_OPENS) for _, beginning in system) and not any(
        beginning.startswith(_USER_OPENS) for beginning in user
    ):
        return ""
    for row in _TEXTS:
        if row.opens and not any(_speaks(row, text, beginning) for text, beginning in system):
            continue
        if row.user_opens and not any(beginning.startswith(row.user_opens) for beginning in user):
            continue
        if row.user_holds and not any(phrase in text for text in opening.first_user for phrase in row.user_holds):
            continue
        return row.agent
    return ""


def _speaks(row: _Texts, text: str, beginning: str) -> bool:
    if not beginning.startswith(row.opens):
        return False
    if row.names and not any(name in beginning.partition("\n")[0] for name in row.names):
        return False
    return not row.holds or any(phrase in text for phrase in row.holds)


def _beginning(text: str) -> str:
    return text[:_BEGINNING].lstrip().lower()
