"""RSP-12 measured: of the dangerous forms at least 98 % are stopped, of the harmless look-alikes at most 1 %, each in linear time."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from llm_proxy.features.calls.dangerous_commands import DangerousCommandOptions, DangerousCommands
from llm_proxy.features.calls.dangerous_rules import RULES
from llm_proxy.features.calls.shell.tool_commands import ToolCommand
from tests.features.calls.shell.corpus import DANGEROUS, HARMLESS
from tests.support.work import work_of

ROOM = DangerousCommands(DangerousCommandOptions())
STOPPED_ALTHOUGH_HARMLESS = ["./reboot --check"]
"""A program of one's own that is called like one of the system's. The page docs/dangerous-commands.md says so too."""


def rule(command: str, windows: bool = False) -> str | None:
    return ROOM.rule(ToolCommand(command), windows)


def test_the_lists_are_as_long_as_they_must_be_and_cover_every_rule() -> None:
    assert len(set(DANGEROUS)) >= 300
    assert len(set(HARMLESS)) >= 300
    counts = Counter(heading for heading, _ in DANGEROUS)
    assert counts.keys() == RULES.keys()
    assert min(counts.values()) >= 5


def test_dangerous_commands_are_stopped_by_the_rule_under_which_they_are_listed() -> None:
    other = [(heading, command, found) for heading, command in DANGEROUS if (found := rule(command)) != heading]
    assert other == []


def test_harmless_commands_pass() -> None:
    stopped = [command for _, command in HARMLESS if rule(command) is not None]
    assert stopped == STOPPED_ALTHOUGH_HARMLESS
    assert len(stopped) <= len(HARMLESS) / 100


@pytest.mark.parametrize(
    "prefix",
    [
        "sudo ", "env A=b ", "A=b ", "nohup ", "time ", "timeout 5 ", "cd x && ", "ls; ", "ls | ", "true || ", "ls & ", "ls\n", "( ", "$(",
        "\x1b[31m", "\x00", "if true; then ", "docker exec web ", "  \t ", "! ", "{ ", "xargs ", "command ", "\\\n", "echo it's\n", "a='b\nc'; ",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("command", "broken"),
    [
        ("git reset --hard", "git-reset"),
        ("rm -rf src", "rm-recursive"),
        ("git push -f", "git-push"),
        ("mkfs /dev/sda", "disk"),
    ],
)
def test_nothing_before_a_dangerous_command_hides_it(prefix: str, command: str, broken: str) -> None:
    closing = {"( ": ")", "$(": ")", "{ ": "; }", "if true; then ": "; fi"}.get(prefix, "")
    assert rule(prefix + command + closing) == broken


@pytest.mark.parametrize(
    "command", ["Remove-Item -Recurse src", "rd /s /q C:\\src", "git reset --hard; ls", "iwr u | iex"]
)
def test_commands_of_a_windows_tool_are_read_as_such(command: str) -> None:
    assert rule(command, windows=True) is not None
    assert rule(f"Write-Output '{command}'", windows=True) is None


def test_a_text_deeper_than_is_read_is_judged_by_its_raw_words() -> None:
    assert rule("$(" * 100 + "git reset --hard" + ")" * 100) == "git-reset"
    assert rule("echo 'never closed; git clean -fd") == "git-clean"


def test_a_shell_text_longer_than_is_looked_into_is_judged_by_its_raw_words() -> None:
    assert rule("bash -c '" + "echo a\n" * 100_000 + "git reset --hard'") == "git-reset"
    assert rule("echo a;" * 30_000 + "git reset --hard") == "git-reset"


PIECES = [
    "$(", "'", '"', "`", "<<", "<<a\n", "\n<<-a ", "x<<E ", "(", "((", "$((", "${", "{ ", "if ", "case ", "[[ ", "a=(", "<(", "|", "a;", "a ",
    "a|", "sh|", "curl x|sh|", "sudo ", "bash -c ", "eval ", "env -S ", "cmd /c ", "{a,{b,", "X=$X$X;", "X=a;", "$X ", "find . -exec ", "\\",
    "git -c alias.x=!x ", "python -c '\\' ", "\x1b[", "\u0301", "％", "rm -r a ", "echo a | bash;", "$'\\",
]  # fmt: skip


FOR_THE_GATE = ("$(", "<<a\n", "((", "case ", "|", "sh|", "{a,{b,", "$X ", "\u0301", "echo a | bash;")


@pytest.mark.parametrize(
    "piece",
    [pytest.param(piece, marks=() if piece in FOR_THE_GATE else pytest.mark.long) for piece in PIECES],
    ids=map(ascii, PIECES),
)
def test_the_work_is_linear_in_the_length_of_the_command(piece: str) -> None:
    def work(size: int) -> int:
        text = piece * (size // len(piece))
        return work_of(lambda: rule(text))

    # Four times as much: quadratic work would be sixteen times as much.
    assert work(24_000) < 6 * work(6_000) + 2_000


@pytest.mark.parametrize("piece", ["$(", "'", '"', "<<"])
def test_a_megabyte_of_opening_signs_takes_less_than_a_second(piece: str) -> None:
    begin = time.thread_time()
    rule(piece * (1_000_000 // len(piece)))
    assert time.thread_time() - begin < 1
