"""The conversation as `system` and `messages` of a request.

A conversation of this protocol keeps its shape, one message for one message. One of another protocol is put
into the shape that the Messages API demands: turns that alternate and begin with the user, every call
answered in the next turn, no empty text.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_proxy.conversation.parts import Media, Opaque, Part, Refusal, Text, Thinking, ToolCall, ToolResult
from llm_proxy.conversation.request import Message
from llm_proxy.dialects.anthropic_messages import wire
from llm_proxy.dialects.anthropic_messages.blocks_out import Block, write_blocks
from llm_proxy.dialects.anthropic_messages.draft import Draft

FIRST_TURN = "(continue)"
NO_RESULT = "no result"
_GO_ON = "Continue your last message exactly where it ends. Do not repeat any of it."
_SYSTEM = ("system", "developer")


def write_conversation(draft: Draft) -> tuple[list[Block], list[Block]]:
    """`system` blocks and `messages`."""
    messages = draft.request.messages
    count = 0
    while count < len(messages) and messages[count].role in _SYSTEM and not messages[count].inline:
        count += 1
    system = _write_system(draft, messages[:count])
    if draft.own:
        return system, _write_kept(draft, messages[count:])
    return system, _write_shaped(draft, messages[count:])


def _write_system(draft: Draft, messages: tuple[Message, ...]) -> list[Block]:
    """Every leading text as a block of its own, so that cache marks stay where they are."""
    blocks: list[Block] = []
    for message in messages:
        parts = message.parts if draft.own else [part for part in message.parts if not _is_blank(part)]
        for part in parts:
            if isinstance(part, Text) or draft.own:
                blocks += write_blocks(draft, [part])
            else:
                draft.lose("system: only text can stand in system messages")
    return blocks


def _is_blank(part: Part) -> bool:
    return isinstance(part, Text | Refusal) and not part.text.strip()


def _reminder(part: Text) -> Text:
    return msgspec.structs.replace(part, text=f"<system-reminder>\n{part.text}\n</system-reminder>")


# ---- a conversation of this protocol


def _write_kept(draft: Draft, messages: tuple[Message, ...]) -> list[Block]:
    written: list[Block] = []
    for message in messages:
        role: str = message.role
        parts = message.parts
        if role in _SYSTEM and not draft.capabilities.mid_system:
            draft.lose("messages: a system message inside the conversation was sent as a user's reminder")
            role, parts = "user", tuple(_reminder(part) if isinstance(part, Text) else part for part in parts)
        blocks = write_blocks(draft, parts)
        if parts and not blocks:
            continue
        written.append({"role": "system" if role == "developer" else role, "content": blocks})
    return written


# ---- a conversation of another protocol


class _Turn:
    __slots__ = ("parts", "role")

    def __init__(self, role: str, parts: list[Part]) -> None:
        self.role = role
        self.parts = parts

    @property
    def calls(self) -> list[ToolCall]:
        return [part for part in self.parts if isinstance(part, ToolCall)]

    @property
    def has_results(self) -> bool:
        return any(isinstance(part, ToolResult) for part in self.parts)


def _write_shaped(draft: Draft, messages: tuple[Message, ...]) -> list[Block]:
    turns = _merged(draft, _cleaned(draft, messages))
    turns = _paired(draft, turns)
    _move_systems(turns)
    if not turns or next((turn.role for turn in turns if turn.role != "system"), "") != "user":
        turns.insert(0, _Turn("user", [Text(FIRST_TURN)]))
    return [{"role": turn.role, "content": write_blocks(draft, turn.parts)} for turn in turns]


def _cleaned(draft: Draft, messages: tuple[Message, ...]) -> list[_Turn]:
    """Messages without what the target must not see or refuses: foreign reasoning, empty text, media of the
    assistant.
    """
    turns: list[_Turn] = []
    carried: list[Part] = []
    for index, message in enumerate(messages):
        if message.role == "assistant":
            parts, media = _assistant_parts(draft, message)
            carried += media
            if parts:
                turns.append(_Turn("assistant", parts))
            continue
        parts = [part for part in message.parts if not _is_blank(part)]
        if message.role in _SYSTEM:
            texts: list[Part] = [part for part in parts if isinstance(part, Text)]
            if texts:
                turns.append(_Turn("system", texts))
            continue
        if carried:
            parts, carried = [*parts, *carried], []
        if parts:
            turns.append(_Turn("user", parts))
        elif _needs_filler(turns, messages[index + 1 :]):
            turns.append(_Turn("user", [Text(".")]))
    if carried:
        turns.append(_Turn("user", carried))
    return turns


def _needs_filler(turns: list[_Turn], following: tuple[Message, ...]) -> bool:
    """Would the roles break without this empty user message?"""
    before = next((turn.role for turn in reversed(turns) if turn.role != "system"), "assistant")
    after = next((message.role for message in following if message.role not in _SYSTEM), "assistant")
    return before == after == "assistant"


def _assistant_parts(draft: Draft, message: Message) -> tuple[list[Part], list[Part]]:
    """The parts that may stay in the assistant's turn, and generated media, which only a user's turn can
    hold.
    """
    kept: list[Part] = []
    media: list[Part] = []
    for part in message.parts:
        match part:
            case Thinking(seal=seal):
                if draft.takes(seal):
                    kept.append(part)
                else:
                    draft.lose("messages: reasoning without a signature of this target was left out")
            case Media(kind="image") | Media(kind="document"):
                media += [Text("[generated by the assistant:]"), part]
                draft.lose("messages: an image of the assistant was moved into the next user turn")
            case Media(kind=kind, transcript=transcript):
                draft.lose(f"messages: {kind} of the assistant was sent as text")
                kept.append(Text(transcript or f"[generated {kind}]"))
            case Opaque(origin=origin, type=kind) if origin != wire.NAME or kind == wire.MESSAGE_FIELDS:
                draft.lose(f"messages: {kind} exists only in {origin} and was left out")
            case _ if not _is_blank(part):
                kept.append(part)
    return kept, media


def _merged(draft: Draft, cleaned: list[_Turn]) -> list[_Turn]:
    """One turn per run of a role. A system message stays one where the target takes it and it parts no turn
    of one role.
    """
    turns: list[_Turn] = []
    for index, turn in enumerate(cleaned):
        role, parts = turn.role, turn.parts
        if role == "system":
            before = next((other.role for other in reversed(turns) if other.role != "system"), "")
            after = next((other.role for other in cleaned[index + 1 :] if other.role != "system"), "")
            if not draft.capabilities.mid_system or not before or before == after:
                if not draft.capabilities.mid_system:
                    draft.lose("messages: a system message inside the conversation was sent as a user's reminder")
                role, parts = "user", [_reminder(part) for part in parts if isinstance(part, Text)]
        if turns and turns[-1].role == role:
            turns[-1].parts += parts
        else:
            turns.append(_Turn(role, list(parts)))
    return turns


class _Results:
    """All tool results of a conversation, by the id of their call, numbered in the order they came in."""

    def __init__(self, turns: list[_Turn]) -> None:
        self.waiting: dict[str, list[tuple[int, int, ToolResult]]] = {}
        self.taken: set[int] = set()
        number = 0
        for index, turn in enumerate(turns):
            for part in turn.parts:
                if isinstance(part, ToolResult):
                    self.waiting.setdefault(part.call_id, []).append((index, number, part))
                    number += 1

    def take(self, call_id: str, after: int) -> tuple[int, ToolResult] | None:
        """The first free result of a call that stands in a turn behind turn `after`."""
        for index, number, result in self.waiting.get(call_id, ()):
            if index > after and number not in self.taken:
                self.taken.add(number)
                return number, result
        return None


def _paired(draft: Draft, turns: list[_Turn]) -> list[_Turn]:
    """Every call answered in the user turn right behind it, the answers first; what answers no call becomes
    text.
    """
    results = _Results(turns)
    used: set[str] = set()
    answers: dict[int, list[Part]] = {
        index: _answer(draft, turn, index, results, used) for index, turn in enumerate(turns) if turn.calls
    }
    if not answers and not results.waiting:
        return turns
    paired: list[_Turn] = []
    due: list[Part] = []
    number = 0
    for index, turn in enumerate(turns):
        if turn.role == "assistant" and due:
            paired.append(_Turn("user", due))
            due = []
        elif turn.role == "user":
            parts: list[Part] = []
            for part in turn.parts:
                if not isinstance(part, ToolResult):
                    parts.append(part)
                    continue
                if number not in results.taken:
                    parts += _stray(draft, part)
                number += 1
            turn.parts = [*due, *parts] or [Text(".")]
            due = []
        paired.append(turn)
        due += answers.get(index, [])
    if due:
        paired.append(_Turn("user", due))
    return paired


def _answer(draft: Draft, turn: _Turn, index: int, results: _Results, used: set[str]) -> list[Part]:
    """The results of one turn's calls in the order in which they came. An id that was used before is made
    new for its pair.
    """
    found: list[tuple[int, Part]] = []
    missing: list[Part] = []
    for place, part in enumerate(turn.parts):
        if not isinstance(part, ToolCall):
            continue
        identity = _fresh(part.id, used)
        if identity != part.id:
            turn.parts[place] = msgspec.structs.replace(part, id=identity)
        entry = results.take(part.id, index)
        if entry is None:
            draft.lose("messages: a tool call without a result was answered with an error")
            missing.append(ToolResult(identity, (Text(NO_RESULT),), is_error=True))
        else:
            found.append((entry[0], msgspec.structs.replace(entry[1], call_id=identity)))
    found.sort(key=lambda entry: entry[0])
    return [*(result for _, result in found), *missing]


def _fresh(identity: str, used: set[str]) -> str:
    fresh, count = identity, 1
    while wire.tool_id(fresh) in used:
        count += 1
        fresh = f"{identity[:56]}_{count}"
    used.add(wire.tool_id(fresh))
    return fresh


def _stray(draft: Draft, result: ToolResult) -> list[Part]:
    draft.lose("messages: a tool result without its call was sent as text")
    heading = Text(f"[result of a tool call that is not in this conversation: {result.name or result.call_id}]")
    return [heading, *(part for part in result.parts if not _is_blank(part))]


def _move_systems(turns: list[_Turn]) -> None:
    """A system message may not stand between calls and their results: it moves behind them."""
    for index in range(1, len(turns) - 1):
        if turns[index].role == "system" and turns[index - 1].calls and turns[index + 1].has_results:
            turns[index], turns[index + 1] = turns[index + 1], turns[index]


# ---- the end of the conversation


def ends_with_prefill(messages: list[Block]) -> bool:
    """Is the last message a beginning of the answer, as opposed to an unfinished turn of server tools?"""
    if not messages or messages[-1]["role"] != "assistant":
        return False
    return all(block["type"] in ("text", "thinking", "redacted_thinking") for block in messages[-1]["content"])


def trim_prefill(messages: list[Block]) -> None:
    """The API refuses a prefill that ends in white space."""
    content = messages[-1]["content"]
    if content and content[-1]["type"] == "text":
        text = content[-1]["text"].rstrip()
        if text:
            content[-1] = content[-1] | {"text": text}
        else:
            content.pop()
    if not content:
        messages.pop()


def ask_to_go_on(messages: list[Block]) -> None:
    """Stands in for a prefill where the model takes none."""
    messages.append({"role": "user", "content": [{"type": "text", "text": _GO_ON}]})


def loop_lacks_thinking(messages: list[Block]) -> bool:
    """Did the tool loop at the end of the conversation begin without a thinking block?"""
    start = len(messages)
    while start > 0 and not (messages[start - 1]["role"] == "user" and not _has_results(messages[start - 1])):
        start -= 1
    if not any(_has_results(message) for message in messages[start:]):
        return False
    first = next((message for message in messages[start:] if message["role"] == "assistant"), None)
    if first is None or not first["content"]:
        return True
    return first["content"][0]["type"] not in ("thinking", "redacted_thinking")


def _has_results(message: Block) -> bool:
    return any(block["type"] == "tool_result" for block in message["content"])


def limit_marks(draft: Draft, body: dict[str, Any], most: int = 4) -> None:
    """At most four cache marks are taken: those of tools and system stay, then the latest of the
    conversation.
    """
    fixed = [block for block in [*body.get("tools", ()), *body.get("system", ())] if "cache_control" in block]
    marked = [block for message in body["messages"] for block in message["content"] if "cache_control" in block]
    surplus = len(fixed) + len(marked) - most
    if surplus <= 0:
        return
    draft.lose(f"cache marks: {surplus} of {len(fixed) + len(marked)} were left out")
    for block in [*marked, *reversed(fixed)][:surplus]:
        del block["cache_control"]
