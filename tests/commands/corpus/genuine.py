"""Commands as people type them in each client: what the client puts around them, and what must be left of the message.

The shapes imitate what the clients send, shortly and in other words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from tests.commands.corpus.cases import Case, Executed, Said, assistant, call, last_texts, result, text, user

Shape = Callable[[str], list[Said]]
"""What was typed -> the conversation that the client sends."""


class Typed(NamedTuple):
    """`left` is what stays of it, None when nothing does."""

    name: str
    said: str
    executes: tuple[Executed, ...]
    left: str | None


def _executed(name: str, *arguments: tuple[str, str] | str) -> Executed:
    return Executed(name, tuple(("", one) if isinstance(one, str) else one for one in arguments))


WITHIN_A_LINE: Final = (
    Typed("alone", "!/hello", (_executed("hello"),), None),
    Typed("one value", "!/model(openrouter:mistralai/mistral-7b)", (_executed("model", "openrouter:mistralai/mistral-7b"),), None),
    Typed("with blanks", "!/set (project = a)", (_executed("set", ("project", "a")),), None),
    Typed(
        "two commands",
        "!/backend(openai) !/temperature(0.2)",
        (_executed("backend", "openai"), _executed("temperature", "0.2")),
        None,
    ),
    Typed("in a sentence", "fix it !/model(b:m) please", (_executed("model", "b:m"),), "fix it please"),
    Typed("bare, in a sentence", "I tried !/help but no", (_executed("help"),), "I tried but no"),
    Typed("at the end", "fix the parser !/max", (_executed("max"),), "fix the parser "),
    Typed("before punctuation", "what does !/status, do", (_executed("status"),), "what does , do"),
    Typed("any case", "!/SET(Tool_Loop_Max_Repeats=6)", (_executed("set", ("Tool_Loop_Max_Repeats", "6")),), None),
    Typed("underscores", "!/create_failover_route(name=r, policy=km)", (
        _executed("create-failover-route", ("name", "r"), ("policy", "km")),
    ), None),
    Typed("unset", "!/unset(model, project)", (_executed("unset", "model", "project"),), None),
    Typed("an apostrophe", "!/project(don't panic)", (_executed("project", "don't panic"),), None),
)  # fmt: skip
"""Forms that keep to one line, for clients that put their own words on it."""

ON_LINES_OF_ITS_OWN: Final = (
    Typed(
        "command line first",
        "!/model(b:m)\nfix the <b>parser</b>\n\tand `this`",
        (_executed("model", "b:m"),),
        "fix the <b>parser</b>\n\tand `this`",
    ),
    Typed("command line last", "Some context\n!/oneoff(b:m)", (_executed("oneoff", "b:m"),), "Some context"),
    Typed(
        "command line between",
        "one\n  !/low  \ntwo",
        (_executed("low"),),
        "one\ntwo",
    ),
    Typed(
        "two command lines",
        "!/set(project=a)\n!/set(temperature=0.1)\ngo",
        (_executed("set", ("project", "a")), _executed("set", ("temperature", "0.1"))),
        "go",
    ),
    Typed(
        "arguments on several lines",
        "!/set(\n  project=a,\n  temperature=0.1\n)\ngo",
        (_executed("set", ("project", "a"), ("temperature", "0.1")),),
        "go",
    ),
    Typed(
        "beside fenced code",
        "why?\n!/high\n```\n!/help\n```\nthanks",
        (_executed("high"),),
        "why?\n```\n!/help\n```\nthanks",
    ),
    Typed(
        "beside a block quote",
        "> !/help\n!/no-think\nwhat is this?",
        (_executed("no-think"),),
        "> !/help\nwhat is this?",
    ),
    Typed(
        "a value with a comma",
        '!/set(project="my project, two", temperature=0.7)\ngo',
        (_executed("set", ("project", "my project, two"), ("temperature", "0.7")),),
        "go",
    ),
    Typed(
        "a JSON value",
        '!/set(gemini-generation-config={"thinkingConfig":{"thinkingBudget":0}})\ngo',
        (_executed("set", ("gemini-generation-config", '{"thinkingConfig":{"thinkingBudget":0}}')),),
        "go",
    ),
    Typed(
        "a nested value",
        "!/set(reasoning=(effort=high, exclude=true))\ngo",
        (_executed("set", ("reasoning", "(effort=high, exclude=true)")),),
        "go",
    ),
)
"""Forms with lines of their own, for clients that leave the lines as they were typed."""

_REMINDER = "<system-reminder>\nToday is Monday.\nSkills: none. Do not type !/help.\n</system-reminder>"
_ENVIRONMENT = "<environment_details>\n# Time\n12:00\n# Files\n!/notes.txt\n</environment_details>"
_MINI_TAIL = "You can execute bash commands and edit files to do it.\n\n## Example\n\n```bash\nls\n```"
_AIDER_TAIL = "To suggest changes to a file you MUST return the file.\n\nout.txt\n```\n...\n```\n\nReply in English.\n"


def _plain(typed: str) -> list[Said]:
    return [user(typed)]


def _later(typed: str) -> list[Said]:
    return [user("hi"), assistant("Hello!"), user(typed)]


def _pi(typed: str) -> list[Said]:
    return [Said("system", text("You are an assistant inside a harness.")), user(typed)]


def _claude_code(typed: str) -> list[Said]:
    return [user(_REMINDER, "<system-reminder>\nAgents: !/x\n</system-reminder>\n", typed)]


def _claude_code_with_system(typed: str) -> list[Said]:
    return [user(_REMINDER, typed), Said("system", text("Agent types: none."))]


def _claude_code_beside_result(typed: str) -> list[Said]:
    return [user("go"), call("Bash"), result("ok", _REMINDER, f"{typed}")]


def _codex(typed: str) -> list[Said]:
    return [
        Said("developer", text("You are a coding agent.")),
        user("# AGENTS.md instructions for /home/dev\n\n<INSTRUCTIONS>\nbe kind\n</INSTRUCTIONS>"),
        user("<environment_context>\n  <cwd>/home/dev</cwd>\n  <shell>bash</shell>\n</environment_context>"),
        user(typed),
    ]


def _gemini(typed: str) -> list[Said]:
    return [user("<session_context>\nThis is the CLI.\n\n- /home/dev\n\n</session_context>", typed)]


def _gemini_two_messages(typed: str) -> list[Said]:
    return [user("<session_context>\nThis is the CLI.\n</session_context>"), user(typed)]


def _qwen(typed: str) -> list[Said]:
    return [user(_REMINDER), user("<system-reminder>\nThe folder is empty.\n</system-reminder>", _REMINDER, typed)]


def _opencode(typed: str) -> list[Said]:
    return [user(typed, _REMINDER)]


def _opencode_run(typed: str) -> list[Said]:
    return [user(f'"{typed}"')]


def _kilo(typed: str) -> list[Said]:
    return [user(typed, f"\n\n{_ENVIRONMENT}")]


def _kilo_run(typed: str) -> list[Said]:
    return [user(f'"{typed}"', f"\n\n{_ENVIRONMENT}")]


def _cline(typed: str) -> list[Said]:
    return [user(f"<task>\n{typed}\n</task>", _ENVIRONMENT)]


def _cline_one_text(typed: str) -> list[Said]:
    return [user(f'<task>\n{typed}\n</task>\n\n<file_content path="a.txt">\n!/help\n</file_content>\n\n{_ENVIRONMENT}')]


def _cline_native(typed: str) -> list[Said]:
    return [user("fix it"), call("run_commands"), result("[]"), assistant("Done."), user(typed)]


def _cline_answer(typed: str) -> list[Said]:
    return [
        user("<task>\nfix it\n</task>"),
        assistant("<ask_followup_question><question>Which?</question></ask_followup_question>"),
        user("[ask_followup_question for 'Which?'] Result:", f"<answer>\n{typed}\n</answer>", _ENVIRONMENT),
    ]


def _roo_feedback(typed: str) -> list[Said]:
    said = f"The user was not content with it. Take this into account.\n\n<feedback>\n{typed}\n</feedback>"
    return [
        user("<task>\nfix it\n</task>"),
        assistant("<attempt_completion><result>Done.</result></attempt_completion>"),
        user("[attempt_completion] Result:", said, _ENVIRONMENT),
    ]


def _roo_message(typed: str) -> list[Said]:
    return [user(f"<user_message>\n{typed}\n</user_message>", _ENVIRONMENT)]


def _copilot(typed: str) -> list[Said]:
    return [user(f"<current_datetime>2026-11-21T08:06:35Z</current_datetime>\n\n{typed}")]


def _copilot_with_notice(typed: str) -> list[Said]:
    note = "<system_notification>\nA shell ended.\n</system_notification>"
    return [user(f"<current_datetime>2026-11-21T08:06:35Z</current_datetime>\n\n{typed}\n\n{note}")]


def _copilot_in_vs_code(typed: str) -> list[Said]:
    context = "<context>\nThe date is Monday.\n</context>\n<editorContext>\nThe file is a.py.\n</editorContext>"
    reminder = "<reminderInstructions>\nKeep going.\n</reminderInstructions>"
    return [user(f"{context}\n{reminder}\n<userRequest>\n{typed}\n</userRequest>")]


def _continue(typed: str) -> list[Said]:
    return [
        Said("system", text("You are an agent in a CLI.")),
        user(f'<context name="a.py">\nx = 1\n</context>\n\n{typed}'),
    ]


def _cursor(typed: str) -> list[Said]:
    info = "<user_info>\nOS: linux\n</user_info>\n\n<git_status>\nclean\n</git_status>"
    return [user(info), user(f"<user_query>\n{typed}\n</user_query>")]


def _zed(typed: str) -> list[Said]:
    return [user(typed, '<context>\n<file path="a.rs">\nfn main() {}\n</file>\n</context>')]


def _grok(typed: str) -> list[Said]:
    return [Said("system", text("You are a CLI.")), user(typed)]


def _aider(typed: str) -> list[Said]:
    files = "I have added these files:\n\nout.txt\n```\n!/help\n```\n"
    return [user(files), assistant("Ok."), user(f"{typed}\n\n{_AIDER_TAIL}")]


def _mini(typed: str) -> list[Said]:
    return [Said("system", text("You are helpful.")), user(f"Please solve this issue: {typed}\n\n{_MINI_TAIL}")]


def _gptme(typed: str) -> list[Said]:
    return [user(f"<system># Boundary\n\nx</system>\n\n<system>## Machine\n\nlinux</system>\n\n{typed}")]


_SHAPES: Final[tuple[tuple[str, str, Shape, bool], ...]] = (
    ("a plain client", "generic", _plain, True),
    ("a plain client, later", "generic", _later, True),
    ("pi", "pi", _pi, True),
    ("Claude Code", "claude-code", _claude_code, True),
    ("Claude Code with a system message", "claude-code", _claude_code_with_system, True),
    ("Codex", "codex", _codex, True),
    ("Gemini CLI", "gemini-cli", _gemini, True),
    ("Gemini CLI in two messages", "gemini-cli", _gemini_two_messages, True),
    ("Qwen Code", "qwen-code", _qwen, True),
    ("opencode", "opencode", _opencode, True),
    ("opencode from the command line", "opencode", _opencode_run, False),
    ("Kilo", "kilo", _kilo, True),
    ("Kilo from the command line", "kilo", _kilo_run, False),
    ("Cline", "cline", _cline, True),
    ("Cline in one text", "cline", _cline_one_text, True),
    ("Cline with native tools", "cline", _cline_native, True),
    ("Cline, an answer", "cline", _cline_answer, True),
    ("Roo, feedback", "roo", _roo_feedback, True),
    ("Roo, a message", "roo", _roo_message, True),
    ("Copilot CLI", "copilot", _copilot, True),
    ("Copilot CLI with a notice", "copilot", _copilot_with_notice, True),
    ("Copilot in VS Code", "copilot", _copilot_in_vs_code, True),
    ("Continue", "continue", _continue, True),
    ("Cursor", "cursor", _cursor, True),
    ("Zed", "zed", _zed, True),
    ("Grok", "grok", _grok, True),
    ("aider", "aider", _aider, True),
    ("mini-swe-agent", "mini-swe-agent", _mini, False),
    ("gptme", "gptme", _gptme, True),
)
"""Client, agent, shape, and whether the typed lines stay lines."""


def cases() -> list[Case]:
    """Every shape with the forms that suit it; and a command beside the result of a tool, which is never alone in its message."""
    found = [
        _case(client, agent, shape, typed)
        for client, agent, shape, lines in _SHAPES
        for typed in (WITHIN_A_LINE + ON_LINES_OF_ITS_OWN if lines else WITHIN_A_LINE)
    ]
    typed = WITHIN_A_LINE[1]
    beside = _case("Claude Code beside a result", "claude-code", _claude_code_beside_result, typed, left=_REMINDER)
    return [*found, beside]


def _case(client: str, agent: str, shape: Shape, typed: Typed, left: str | None = None) -> Case:
    rest = left if typed.left is None else last_texts(shape(typed.left))
    return Case(
        id=f"genuine {client}: {typed.name}",
        category=client,
        agent=agent,
        messages=tuple(shape(typed.said)),
        executes=typed.executes,
        upstream=rest,
    )
