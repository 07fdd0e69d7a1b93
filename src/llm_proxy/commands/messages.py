"""Commands in a conversation: which ones the last message holds, and what a provider may see of it and of earlier turns.

Owns the choice of messages and parts. What is typed text is known by `sessions.machine_text`, how a command is written by `grammar`;
no command is known here. Everything is a function of its arguments, so the same history is cleaned to the same messages in each turn.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Final

import msgspec

from llm_proxy.commands import grammar
from llm_proxy.commands.grammar import Found
from llm_proxy.conversation.parts import Part, Text, Thinking, ToolCall, ToolResult, text_of
from llm_proxy.conversation.request import Message, Request
from llm_proxy.sessions import machine_text
from llm_proxy.sessions.machine_text import Span, Survey

PROXY_CALL_IDS: Final = ("call_proxy_", "toolu_proxy_")
"""How the ids of the proxy's own tool calls begin."""

_FINISH_TOOL: Final = "attempt_completion"


class Spot(msgspec.Struct, frozen=True):
    """A command and where it stands: the numbers of message and part, and its span in the part's text."""

    message: int
    part: int
    found: Found


class Reading(msgspec.Struct, frozen=True):
    """The commands of the last message, in order. `command_only`: without them it says nothing. `too_many`: more than are allowed,
    and no more of them were looked for."""

    founds: tuple[Spot, ...] = ()
    command_only: bool = False
    too_many: bool = False

    @property
    def commands(self) -> tuple[Found, ...]:
        return tuple(spot.found for spot in self.founds)


def digest(text: str) -> str:
    """By what a text of the proxy is recognised when a client sends it back: white space around it does not count."""
    plain = text.replace("\r\n", "\n").strip()
    return blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def confirmation_mark(text: str) -> str:
    """By what a confirmation (all that is put before a model's answer) is recognised: its length and its digest."""
    return f"{len(text)}:{digest(text)}"


def read(request: Request, *, prefix: str, strict: bool, agent: str, most: int) -> Reading:
    """The commands of the last message, if it is a user's; of system messages behind it nothing is read and nothing hidden."""
    number = _last_of_user(request.messages)
    if number < 0:
        return Reading()
    message = request.messages[number]
    texts = _Texts(message, (prefix,), strict, agent, most + 1)
    spots = tuple(Spot(number, part, found) for part, founds in texts.founds.items() for found in founds)
    if not spots:
        return Reading()
    return Reading(spots, texts.says_only(texts.founds), len(spots) > most)


def without_commands(request: Request, reading: Reading, known: Callable[[str], bool]) -> Request:
    """The request without the commands that `known` names. Parts of which nothing is left are dropped."""
    cuts: dict[int, dict[int, list[Found]]] = {}
    for spot in reading.founds:
        if known(spot.found.name):
            cuts.setdefault(spot.message, {}).setdefault(spot.part, []).append(spot.found)
    if not cuts:
        return request
    messages = tuple(_cut(message, cuts.get(number, {})) for number, message in enumerate(request.messages))
    return msgspec.structs.replace(request, messages=messages)


def clean_history(
    request: Request,
    *,
    prefixes: Sequence[str],
    known: Callable[[str], bool],
    agent: str,
    local_replies: Container[str],
    confirmations: Iterable[str],
    strict: bool = False,
) -> Request:
    """The request as a provider may see what came before its last message (CMD-04).

    Known commands of earlier turns are cut, exchanges that the proxy answered itself are dropped, confirmations are taken off
    answers. The last message loses nothing but results of the proxy's own tool calls. `local_replies` holds digests, `confirmations` marks.
    """
    said = tuple(map(_with_what_was_said, request.messages))
    if not all(map(_is, said, request.messages)):
        request = msgspec.structs.replace(request, messages=said)
    return _History(request, prefixes, known, agent, local_replies, confirmations, strict).cleaned()


def _last_of_user(messages: Sequence[Message]) -> int:
    """The number of the last message, -1 if it is not the user's. Some clients put system messages behind the user's words."""
    for number in range(len(messages) - 1, -1, -1):
        if messages[number].role == "user":
            return number
        if messages[number].role == "assistant":
            break
    return -1


class _Texts:
    """The texts of one user message, by the number of their part. `founds` has the commands of those that hold some."""

    def __init__(
        self, message: Message, prefixes: Sequence[str], strict: bool, agent: str, most: int = sys.maxsize
    ) -> None:
        self.message = message
        self._most = most
        self._texts = {number: part.text for number, part in enumerate(message.parts) if isinstance(part, Text)}
        self.founds: dict[int, list[Found]] = {}
        self.surveys: dict[int, Survey] = {}
        if any(grammar.may_hold(text, prefix) for text in self._texts.values() for prefix in prefixes):
            self.look(agent)
            self.founds = dict(self._find(prefixes, strict))

    def look(self, agent: str) -> None:
        if not self.surveys:
            surveys = machine_text.survey_message(list(self._texts.values()), agent=agent)
            self.surveys = dict(zip(self._texts, surveys, strict=True))

    def _find(self, prefixes: Sequence[str], strict: bool) -> Iterator[tuple[int, list[Found]]]:
        for number in self._last_with_content() if strict else self._texts:
            text, survey = self._texts[number], self.surveys[number]
            founds: list[Found] = []
            for prefix in prefixes:
                if not grammar.may_hold(text, prefix):
                    continue
                if strict:
                    founds += grammar.find_on_last_line(text, prefix, survey.typed, _ignored(survey))
                else:
                    founds += grammar.find(text, prefix, survey.typed, self._most)
            if founds:
                yield number, list(_apart(founds))

    def _last_with_content(self) -> list[int]:
        for number in reversed(self._texts):
            if machine_text.keep_outside(self._texts[number], _ignored(self.surveys[number])).strip():
                return [number]
        return []

    def says_only(
        self, founds: Mapping[int, Sequence[Found]], besides: Callable[[Part], bool] = lambda part: False
    ) -> bool:
        """Does the message hold nothing but these commands, white space and what clients add? Parts of which `besides` is true do
        not count. Needs `look`."""
        if not all(isinstance(part, Text) or besides(part) for part in self.message.parts):
            return False
        for number, text in self._texts.items():
            spans = [*_ignored(self.surveys[number]), *((found.start, found.end) for found in founds.get(number, ()))]
            if machine_text.keep_outside(text, sorted(spans)).strip():
                return False
        return True

    def machine_parts(self) -> list[Part]:
        """What programs put into the message: whole parts as they are, and the blocks of the others. Needs `look`."""
        kept: list[Part] = []
        for number, part in enumerate(self.message.parts):
            if not isinstance(part, Text):
                continue
            spans = self.surveys[number].machine
            if spans and not machine_text.keep_outside(part.text, spans).strip():
                kept.append(part)
            elif spans:
                kept.append(Text("\n\n".join(part.text[start:end] for start, end in spans)))
        return kept


def _ignored(survey: Survey) -> list[Span]:
    return sorted([*survey.machine, *survey.frames])


def _apart(founds: Iterable[Found]) -> Iterator[Found]:
    """In the order of the text; of two that overlap the first."""
    end = 0
    for found in sorted(founds, key=lambda found: found.start):
        if found.start >= end:
            yield found
            end = found.end


def _cut(message: Message, cuts: Mapping[int, Sequence[Found]]) -> Message:
    if not cuts:
        return message
    parts: list[Part] = []
    for number, part in enumerate(message.parts):
        if number in cuts and isinstance(part, Text):
            text = grammar.cut(part.text, cuts[number])
            if text.strip():
                parts.append(msgspec.structs.replace(part, text=text))
        else:
            parts.append(part)
    return msgspec.structs.replace(message, parts=tuple(parts))


class _History:
    """One cleaning. A turn is a run of messages of the user and the messages of the assistant that answer it."""

    def __init__(
        self,
        request: Request,
        prefixes: Sequence[str],
        known: Callable[[str], bool],
        agent: str,
        local_replies: Container[str],
        confirmations: Iterable[str],
        strict: bool,
    ) -> None:
        self._request = request
        self._messages = request.messages
        self._last = _last_of_user(request.messages)
        self._prefixes, self._known, self._agent, self._strict = prefixes, known, agent, strict
        self._local_replies = local_replies
        self._confirmations = _by_length(confirmations)
        self._texts: dict[int, _Texts] = {}
        self._cuts: dict[int, dict[int, list[Found]]] = {}
        self._command_only: set[int] = set()
        self._dropped: set[int] = set()
        self._local_calls: set[str] = set()

    def cleaned(self) -> Request:
        for number, message in enumerate(self._messages):
            if message.role == "user" and number != self._last:
                self._find_commands(number, message)
        for asked, answers in self._turns():
            self._judge(asked, answers)
        messages = tuple(self._kept())
        if len(messages) == len(self._messages) and all(map(_is, messages, self._messages)):
            return self._request
        return msgspec.structs.replace(self._request, messages=messages)

    def _find_commands(self, number: int, message: Message) -> None:
        texts = _Texts(message, self._prefixes, self._strict, self._agent)
        self._texts[number] = texts
        known = {part: [found for found in founds if self._known(found.name)] for part, founds in texts.founds.items()}
        cuts = {part: founds for part, founds in known.items() if founds}
        if cuts:
            self._cuts[number] = cuts
            if texts.says_only(cuts):
                self._command_only.add(number)

    def _turns(self) -> Iterator[tuple[list[int], list[int]]]:
        asked: list[int] = []
        answers: list[int] = []
        for number, message in enumerate(self._messages):
            if message.role == "user":
                if answers:
                    yield asked, answers
                    asked, answers = [], []
                asked.append(number)
            elif message.role == "assistant":
                answers.append(number)
        yield asked, answers

    def _judge(self, asked: list[int], answers: list[int]) -> None:
        """Drops from one turn what the proxy answered itself."""
        for number in asked:
            # A command beside the result of a call of ours, now that the calls of the turn before are known.
            if number in self._cuts and self._texts[number].says_only(self._cuts[number], self._is_local_part):
                self._command_only.add(number)
        local = [number for number in answers if self._is_local(self._messages[number])]
        commands = [number for number in asked if number in self._command_only]
        if not local and not commands:
            return
        question = next((number for number in reversed(asked) if self._says_something(number)), -1)
        by_model = any(_is_foreign(part) for number in answers for part in self._messages[number].parts)
        if question in self._command_only and answers and not local and by_model:
            # A model called tools for it, so commands were off then. Without the message its calls would stand alone.
            commands.remove(question)
            del self._cuts[question]
        elif question in self._command_only:
            self._drop(local if by_model else answers)
        elif local:
            self._drop(local)
            if question not in (-1, self._last) and len(local) == len(answers):
                self._dropped.add(question)
        self._dropped.update(commands)

    def _drop(self, answers: list[int]) -> None:
        self._dropped.update(answers)
        for number in answers:
            self._local_calls.update(part.id for part in self._messages[number].parts if isinstance(part, ToolCall))

    def _says_something(self, number: int) -> bool:
        """Holds the message more than results of tools and what programs add?"""
        if number in self._command_only or number == self._last:
            return True
        parts = self._messages[number].parts
        if any(not isinstance(part, Text | ToolResult) for part in parts):
            return True
        texts = self._texts[number]
        texts.look(self._agent)
        return any(
            machine_text.keep_outside(part.text, _ignored(texts.surveys[place])).strip()
            for place, part in enumerate(parts)
            if isinstance(part, Text)
        )

    def _is_local(self, message: Message) -> bool:
        """Did the proxy write this answer: a call of its own and nothing else, or a text that it remembers?"""
        content = [part for part in message.parts if not _is_empty(part)]
        if content and all(isinstance(part, ToolCall) and _is_ours(part.id) for part in content):
            return True
        text = text_of(message.parts) or _result_text(content)
        return bool(text.strip()) and digest(text) in self._local_replies

    def _kept(self) -> Iterator[Message]:
        carried: list[Part] = []
        first = next((number for number, message in enumerate(self._messages) if message.role == "user"), -1)
        for number, message in enumerate(self._messages):
            dropped = number in self._dropped
            if dropped and number == first:
                # What clients put into their first message (the project, skills, rules) is said once only.
                self._texts[number].look(self._agent)
                carried = self._texts[number].machine_parts()
            kept = self._without_calls(message if dropped else _cut(message, self._cuts.get(number, {})), dropped)
            if kept is None:
                continue
            if message.role == "assistant":
                kept = self._without_confirmation(kept)
            elif message.role == "user" and carried:
                kept = msgspec.structs.replace(kept, parts=(*carried, *kept.parts))
                carried = []
            yield kept

    def _without_calls(self, message: Message, dropped: bool) -> Message | None:
        """The message without our calls and their results, None if nothing is left. Of a dropped one other results stay: a call without
        its result is no valid conversation."""
        if not dropped and not any(map(self._is_local_part, message.parts)):
            return message
        parts = tuple(
            part
            for part in message.parts
            if not self._is_local_part(part) and (not dropped or isinstance(part, ToolResult))
        )
        return None if all(map(_is_empty, parts)) else msgspec.structs.replace(message, parts=parts)

    def _is_local_part(self, part: Part) -> bool:
        match part:
            case ToolCall(id=id) | ToolResult(call_id=id):
                return _is_ours(id) or id in self._local_calls
            case _:
                return False

    def _without_confirmation(self, message: Message) -> Message:
        for place, part in enumerate(message.parts):
            if not self._confirmations or not isinstance(part, Text) or not part.text:
                continue
            for length, digests in self._confirmations.items():
                if digest(part.text[:length]) in digests:
                    rest = part.text[length:]
                    kept: tuple[Part, ...] = (msgspec.structs.replace(part, text=rest),) if rest else ()
                    parts = (*message.parts[:place], *kept, *message.parts[place + 1 :])
                    return msgspec.structs.replace(message, parts=parts or (Text(""),))
            break
        return message


def _with_what_was_said(message: Message) -> Message:
    """Agents that end a task by a tool put what the person types next into that tool's result, in a wrapper. In the result of our own
    call nothing else can stand, so that is the person's next message."""
    parts: list[Part] = []
    found = False
    for part in message.parts:
        said = ""
        if isinstance(part, ToolResult) and _is_ours(part.call_id):
            said = _wrapped(text_of(part.parts, "\n"))
        found = found or bool(said)
        parts.append(Text(said) if said else part)
    if not found:
        return message
    return msgspec.structs.replace(message, parts=tuple(parts))


def _wrapped(text: str) -> str:
    for name in ("feedback", "user_message", "answer"):
        start, end = text.find(f"<{name}>"), text.rfind(f"</{name}>")
        if 0 <= start < end:
            return text[start : end + len(name) + 3]
    return ""


def _is(one: Message, other: Message) -> bool:
    return one is other


def _by_length(marks: Iterable[str]) -> dict[int, set[str]]:
    """Length -> digests; the longest first, because a confirmation may begin like a longer one."""
    found: dict[int, set[str]] = {}
    for mark in marks:
        length, _, value = mark.partition(":")
        if length.isdecimal():
            found.setdefault(int(length), set()).add(value)
    return dict(sorted(found.items(), reverse=True))


def _is_ours(call_id: str) -> bool:
    return call_id.startswith(PROXY_CALL_IDS)


def _is_foreign(part: Part) -> bool:
    """A call that the proxy did not make. Where a client loses our id, the tool that ends a task tells."""
    return isinstance(part, ToolCall) and not _is_ours(part.id) and part.name != _FINISH_TOOL


def _is_empty(part: Part) -> bool:
    return isinstance(part, Thinking) or (isinstance(part, Text) and not part.text.strip())


class _Finish(msgspec.Struct):
    result: str = ""


def _result_text(content: Sequence[Part]) -> str:
    """What a lone call of the tool that ends a task says."""
    match content:
        case [ToolCall(name=name, arguments=arguments)] if name == _FINISH_TOOL:
            try:
                return msgspec.json.decode(arguments, type=_Finish).result
            except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
                return ""
        case _:
            return ""
