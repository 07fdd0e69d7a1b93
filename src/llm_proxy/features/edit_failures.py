"""How agents say that an edit of a file failed: the built-in patterns of edit precision, and the wrapping around such a message.

Owns the literal beginnings of those messages, as the agents' sources and transcripts of 2025 and 2026 have them. A message is
known by how it *begins*: the same words inside of source code, a search's hits, documentation or a person's question are none.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import re2  # type: ignore[import-untyped]  # it brings no stubs

_WRAPPED: Final = 600
"""So many characters of a text are looked at for wrapping."""
_LARGEST_JSON: Final = 64 * 1024
_MOST_STRINGS: Final = 64

REQUEST_PATTERNS: Final[tuple[str, ...]] = (
    # SEARCH/REPLACE blocks: Cline, Roo, Kilo, aider.
    r"^(?:the |this )?search block\b.*\b(?:does not|doesn't|did not|failed to|could not|cannot) (?:exactly )?match "
    r"(?:anything|exactly|any lines?|lines|(?:the )?(?:file|contents?|existing|original)\b)",
    r"^#+ \d+ search/replace blocks? failed to match",
    r"(?m:^)## SearchReplaceNoExactMatch: ",
    r"^invalideditblock: edit failed",
    r"(?m:^)\^\^\^ (?:expected `|bad/missing filename)",
    r"^(?:could not|unable to|failed to) (?:find|match|locate) (?:a match for )?(?:the |your )?search (?:block|text|string|content)\b",
    r"^(?:the )?file edit failed because your search block\b",
    r"^invalid (?:search|replace) marker detected\b",
    r"^(?:diff block is malformed|special marker '[^']*' found in your diff|invalid line marker '[^']*' found in replace)\b",
    r"^(?:unexpected end of sequence: expected '|invalid diff format\b|search and replace content are identical\b)",
    r"^(?:but )?unable to apply (?:all )?diff(?: parts)? to file\b",
    r"^<?diff_error\b",
    r"(?m:^)the tool execution failed with the following error:\s+<error>\s+the search block:",
    # Fuzzy matching that found nothing near enough: Roo, Kilo.
    r"(?m:^<error_details>\s+|^)no sufficiently similar match found(?: at line\b| \()",
    # The string to replace is not there, or there several times: Claude Code, opencode, Kilo CLI, Cursor, Grok, Copilot, Zed, pi.
    r"^string to replace not found in file\b",
    r"^found \d+ match(?:es)? (?:of the string to replace|for replacement text|for old_?string)\b",
    r"^(?:could not find oldstring in the file|oldstring not found in content|oldstring (?:was )?found multiple times)\b",
    r"^(?:found multiple matches for oldstring|oldstring not found in content or was found)\b",
    r"^the string to replace was (?:not found|found multiple times) in the file\b",
    r"^the model provided an ambiguous search string\b",
    r"^could not find matching text (?:to replace|for edit at index)\b",
    r"^multiple matches found for the (?:text|string) to replace\b",
    r"^(?:some edits were produced but none of them could be applied|<old_text> matches (?:more than one|multiple))\b",
    r"^could not find (?:the exact text|edits\[\d+\]) in \S",
    r"^found \d+ occurrences of (?:the text|edits\[\d+\]) in \S",
    # Crush, Continue, goose, gptme, Windsurf, the text editor of Anthropic and those made after it.
    r"^[`'\"]?old_?(?:str|string|text)[`'\"]?:? (?:was |is )?(?:not found|not unique|did not (?:appear|match)|appears multiple|matched multiple)\b",
    r"^[`'\"]?old_?(?:str|string|text)[`'\"]?:? (?:found|appears|matches|matched|occurs) \d+ (?:times|locations|places)\b",
    r"^[`'\"]?old_str[`'\"]? must appear exactly once in the file, but\b",
    r"^no replacement (?:was |were )?performed\b",
    r"^no match(?:es)? found for (?:replacement|old_str|the (?:search|old) )",
    r"^(?:the )?(?:target|search|old)?[ _]?(?:string|text|content) (?:was |is )?not found in (?:the )?(?:file|content)\b",
    r"^(?:target|old)[ _]string (?:matches|appears) (?:multiple|\d+)\b",
    r"^original chunk (?:not found in file|not unique)\b",
    # Expected occurrences: Gemini CLI, Qwen Code.
    r"^failed to edit[,:] (?:could not find|\d+ occurrences? found for|expected \d+)",
    r"^(?:expected \d+ occurrences? but found \d+|0 occurrences found for old_string)\b",
    # apply_patch: Codex, opencode, aider, OpenAI's own script.
    r"^apply_patch verification failed\b",
    r"^failed to find (?:expected lines in |context ['\"])",
    r"^invalid (?:patch: |hunk at line \d|(?:eof )?context \d+:)",
    # Hunks of unified diffs: aider, patch, git apply; the last two in the output of a shell.
    r"(?m:^)unifieddiff(?:nomatch|notunique): hunk failed to apply",
    r"(?m:^)hunk #\d+ failed at \d+",
    r"(?m:^error: (?:patch failed: \S[^\n]*:\d+|corrupt patch at line \d+|\S[^\n]*: patch does not apply)\r?$)",
    r"(?m:^)patch: \*\*\*\* (?:malformed patch|only garbage was found)",
    r"^(?:the )?(?:patch|diff|hunk)(?: #?\d+)? (?:does not|did not|failed to|could not be|cannot be) (?:apply|applied)\b",
)
"""Failed edits in what a client sends: tool results, and the user texts that agents write."""

RESPONSE_PATTERNS: Final[tuple[str, ...]] = (
    r"(?m:^)(?:error: )?the search block\b[^\n]*\b(?:does not|doesn't|did not|failed to) (?:exactly )?match (?:anything|exactly|the file)\b",
    r"(?m:^)the search block:\n.*\n\.\.\.does not match anything in the file\b",
    r"(?m:^)(?:error: )?(?:# \d+ search/replace blocks? failed to match|## SearchReplaceNoExactMatch: )",
    r"(?m:^)(?:error: )?no sufficiently similar match found(?: at line\b| \()",
    r"(?m:^)(?:error: )?(?:string to replace not found in file|could not find oldstring in the file|oldstring not found in content)\b",
    r"(?m:^)(?:error: )?failed to edit, (?:could not find|\d+ occurrences? found for|expected \d+)",
    r"(?m:^)(?:error: )?no replacement was performed\b",
    r"(?m:^)(?:error: )?apply_patch verification failed\b",
    r"(?m:^)(?:error: )?(?:unifieddiff(?:nomatch|notunique): )?hunk (?:#\d+ failed at \d+|failed to apply)",
    r"(?m:^)<?diff_error\b",
)
"""Failed edits in a model's answer: where a provider works with tools of its own and reports what came of them."""

# What stands before the message itself, one after the other: tags, labels and headings of agents and of tools' output.
_WRAPPING: Final = re2.compile(
    r"(?i)^\s*(?:(?:"
    r"<(?:error|error_details|error_message|tool_use_error|tool_error|tool_result|result|output|stdout|stderr|system|response)>"
    r"|<returncode>-?\d+</returncode>"
    r"|(?:tool #\d+: *)?\[[\w.-]+(?: for '[^'\n]*')?\] (?:error )?result:"
    r"|\[tool(?: for '[^'\n]*')?\] result:"
    r"|(?:unable to apply diff to file: [^\n]*|the tool execution failed with the following error:)"
    r"|execution result of \[[\w.-]+\]:"
    r"|(?:exit code|exit|returncode): *-?\d+\n|wall time: *[\d.]+ *\w*\n|total output lines: *\d+\n|chunk id: *\w+\n"
    r"|process exited with code -?\d+\n|original token count: *\d+\n"
    r"|(?:observation|output|tool result|tool output|stderr|stdout|result|system):"
    r"|(?:(?:tool|api|edit|internal|validation|execution) )?error"
    r"(?: (?:during|while|when|in|executing|applying|preparing|editing|calling|running|from|processing) [^:\n]*)?[:=]"
    r"|(?:value|runtime|tool|diff|patch|edit)error:"
    r"|(?:tool|edit|patch|execution|(?:string )?replacement|tool (?:execution|call)|str_replace|apply_diff|apply_patch) failed:"
    r"|(?:tool|edit|patch|execution|replacement) (?:error|failure):|\w+ failed with the (?:message|error):"
    r"|(?:failed|unable) to (?:edit|update|patch|apply (?:the )?(?:patch|diff|edit|edits|changes))(?: (?:to|in) [^:\n]*)?:"
    r"|edit (?:at index |#)\d+:|edits?\[\d+\]:"
    r"|[❌✗×⚠]\x{fe0f}?"
    r")\s*)+"
)


@functools.lru_cache(maxsize=8)  # a reload mostly brings the same ones
def compiled(patterns: tuple[str, ...]) -> Any:
    """One regular expression that is found where one of `patterns`, each of which is sound, is; None without any.

    Raises `re2.error` where they are too much together.
    """
    return _compiled("|".join(f"(?:{pattern})" for pattern in patterns)) if patterns else None


def complaint(pattern: str) -> str | None:
    """What was expected instead of `pattern`; None for a regular expression that RE2 takes."""
    try:
        _compiled(pattern)
    except re2.error as error:
        found = error.args[0] if error.args else ""
        return f"a regular expression ({found.decode('utf-8', 'replace') if isinstance(found, bytes) else found})"
    return None


def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.case_sensitive = False
    options.dot_nl = True
    options.never_capture = True
    options.log_errors = False
    return re2.compile(pattern, options)


def found_in(pattern: Any, text: str) -> bool:
    """Is `pattern` found in the text, or in what is left of it without the wrapping in which agents put tool results?"""
    try:
        if pattern.search(text):
            return True
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON may hold
        text = text.encode("utf-8", "replace").decode()
        if pattern.search(text):
            return True
    return any(pattern.search(message) for message in messages_in(text))


def messages_in(text: str) -> Iterator[str]:
    """The text without its wrapping, if it has any; of a short JSON text the strings in it, as they are and unwrapped."""
    beginning = text[:_WRAPPED]
    if wrapping := _WRAPPING.match(beginning):
        yield text[wrapping.end() :]
    elif beginning.lstrip()[:1] in ("{", "[") and len(text) <= _LARGEST_JSON:
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            return
        for string in _strings_of(value):
            yield string
            if inner := _WRAPPING.match(string[:_WRAPPED]):
                yield string[inner.end() :]


def _strings_of(value: Any) -> list[str]:
    found: list[str] = []
    waiting = [value]
    while waiting and len(found) < _MOST_STRINGS:
        match waiting.pop():
            case str() as text:
                found.append(text)
            case dict() as members:
                waiting.extend(members.values())
            case list() as items:
                waiting.extend(items[:_MOST_STRINGS])
    return found
