"""How reasoning state survives clients that cannot carry it.

Three ways (protocols/translation.md section 6): a native field that the client echoes, filled with an envelope that only this
proxy opens (`Envelope`); a memory of what belonged to a tool call or to a text (`Recollection`, kept by a store); or nothing, and the
writers leave the seal out. A seal never travels to another origin than its maker's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from llm_proxy.conversation.parts import Part, Seal, Text, Thinking, ToolCall, ToolResult, text_of
from llm_proxy.conversation.request import Message, Request
from llm_proxy.dialects import names

PREFIX = "gw1."
# How the prefix begins where a protocol wants base64 (Gemini's thoughtSignature): five characters are the same whatever follows.
_ENCODED_PREFIX = base64.b64encode(PREFIX.encode())[:5]
_TAG = 16


class Envelope:
    """Packs seals into text under a key of this installation; what another key made is not opened."""

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.sha256(b"seal envelope" + key).digest()

    def pack(self, seal: Seal) -> str:
        """`gw1.` + base64url(tag + deflated fields). A value that is already an envelope is returned as it is."""
        if seal.value.startswith(PREFIX):
            return seal.value
        fields = zlib.compress(
            msgspec.msgpack.encode([seal.origin, seal.kind, seal.value, seal.maker, seal.item_id]), 1
        )
        tag = hmac.digest(self._key, fields, "sha256")[:_TAG]
        return PREFIX + base64.urlsafe_b64encode(tag + fields).rstrip(b"=").decode()

    def open(self, text: str) -> Seal | None:
        """The seal inside, or None when `text` is no envelope of this installation."""
        if not text.startswith(PREFIX):
            return None
        body = text[len(PREFIX) :]
        try:
            data = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
            if not hmac.compare_digest(hmac.digest(self._key, data[_TAG:], "sha256")[:_TAG], data[:_TAG]):
                return None
            origin, kind, value, maker, item_id = msgspec.msgpack.decode(zlib.decompress(data[_TAG:]), type=list[str])
            return msgspec.convert(
                {"origin": origin, "kind": kind, "value": value, "maker": maker, "item_id": item_id}, Seal
            )
        except (binascii.Error, ValueError, zlib.error):
            return None


class Recollection(msgspec.Struct, frozen=True, array_like=True):
    """What a client could not carry: the reasoning right before a call (or a text) and the call's own seal."""

    thinking: tuple[Thinking, ...] = ()
    seal: Seal | None = None


Recall = Callable[[str], Recollection | None]


def place_of(messages: Sequence[Message]) -> str:
    """A name for the place after `messages` in this conversation: what the user said first and last, and which results came last.

    The same words of another conversation, and ids that a provider uses again and again, do not meet here.
    """
    users = [message for message in messages if message.role == "user"]
    return _place(_said(users[0]), _said(users[-1])) if users else ""


def _said(message: Message) -> bytes:
    digest = hashlib.sha256()
    for part in message.parts:
        match part:
            case Text(text=text):
                digest.update(b"t" + text.strip().encode("utf-8", "replace"))
            case ToolResult(call_id=call_id):
                digest.update(b"r" + _stem(call_id).encode())
            case _:
                pass
    return digest.digest()


def _place(first: bytes, last: bytes) -> str:
    return hashlib.sha256(first + last).hexdigest()[:32]


def call_key(place: str, call_id: str) -> str:
    """Clients of some protocols see a stand-in for an odd id; both mean the same call."""
    return f"{place}:call:{_stem(call_id)}"


def _stem(call_id: str) -> str:
    return names.call_id(call_id, "").removeprefix("toolu_").removeprefix("call_")


def text_key(place: str, text: str) -> str:
    """Key of a text by its content; white space at the ends does not count, clients trim it."""
    return f"{place}:text:" + hashlib.sha256(text.strip().encode("utf-8", "replace")).hexdigest()


def recollections(place: str, parts: Iterable[Part]) -> dict[str, Recollection]:
    """What to remember of an answer at `place`: per tool call and per text, the sealed reasoning before it. Empty when nothing is sealed."""
    found: dict[str, Recollection] = {}
    pending: list[Thinking] = []
    texts: list[str] = []
    text_seal: Seal | None = None
    before_text: list[Thinking] = []
    for part in parts:
        match part:
            case Thinking():
                pending.append(part)
            case ToolCall(id=call_id, seal=seal):
                if pending or seal:
                    found[call_key(place, call_id)] = Recollection(tuple(pending), seal)
                pending = []
            case Text(text=text, seal=seal) if text or seal:
                texts.append(text)
                text_seal = seal or text_seal
                before_text += pending
                # Reasoning before a text that precedes a call belongs to the call as well: agents may drop the text.
    if (before_text or text_seal) and any(text.strip() for text in texts) and not found:
        found[text_key(place, "".join(texts))] = Recollection(tuple(before_text), text_seal)
    return {
        key: value
        for key, value in found.items()
        if value.seal or any(thinking.seal or thinking.text for thinking in value.thinking)
    }


def places(messages: Sequence[Message]) -> Iterator[tuple[str, Message]]:
    """Every assistant message with its place; each message is looked at once."""
    first: bytes | None = None
    place, last = "", None
    for message in messages:
        if message.role == "user":
            first = _said(message) if first is None else first
            last = message
        elif message.role == "assistant":
            if last is not None:
                place, last = _place(first or b"", _said(last)), None
            yield place, message


def wanted_keys(messages: Sequence[Message]) -> list[str]:
    """The keys under which something may be remembered for these messages."""
    keys: list[str] = []
    for place, message in places(messages):
        calls = [part.id for part in message.parts if isinstance(part, ToolCall)]
        keys += [call_key(place, call) for call in calls]
        if not calls and (text := text_of(message.parts)).strip():
            keys.append(text_key(place, text))
    return keys


def has_traces(body: bytes, dialect: str) -> bool:
    """May this body hold envelopes of ours? A cheap look before a verbatim hop. Only Gemini's clients send them in base64."""
    return b"gw1." in body or (dialect == "gemini" and _ENCODED_PREFIX in body)


def unwrapped(request: Request) -> Request:
    """The request with envelopes made to look native, so that a writer of its own dialect writes every part that was read.

    Only for comparing what was read with what shall be sent; it is never sent.
    """

    def bare(part: Part) -> Part:
        seal = getattr(part, "seal", None)
        if not isinstance(seal, Seal) or not seal.value.startswith(PREFIX):
            return part
        return msgspec.structs.replace(part, seal=msgspec.structs.replace(seal, value="read-" + seal.value))

    return msgspec.structs.replace(
        request,
        messages=tuple(
            msgspec.structs.replace(message, parts=tuple(map(bare, message.parts))) for message in request.messages
        ),
    )


def restore(request: Request, envelope: Envelope, recall: Recall) -> Request:
    """The request with envelopes opened and forgotten reasoning put back where it stood. Returns `request` itself when nothing changes.

    An envelope that cannot be opened becomes a seal of unknown origin, so that every writer leaves it out.
    """
    restored = {id(message): _restored(message, place, envelope, recall) for place, message in places(request.messages)}
    messages = tuple(restored.get(id(message), message) for message in request.messages)
    if all(new is old for new, old in zip(messages, request.messages, strict=True)):
        return request
    return msgspec.structs.replace(request, messages=messages)


def _restored(message: Message, place: str, envelope: Envelope, recall: Recall) -> Message:
    parts: list[Part] = []
    changed = False
    for part in message.parts:
        opened = _opened(part, envelope)
        changed |= opened is not part
        parts.append(opened)
    known = any(isinstance(part, Thinking) and part.seal for part in parts)
    calls = [part for part in parts if isinstance(part, ToolCall)]
    memories = {call.id: memory for call in calls if (memory := recall(call_key(place, call.id)))}
    if not calls and not known:
        text = text_of(tuple(parts))
        memory = recall(text_key(place, text)) if text.strip() else None
        if memory and _agrees(parts, memory.thinking):
            parts = [*memory.thinking, *(part for part in parts if not isinstance(part, Thinking))]
            changed = True
            if memory.seal:
                last = max(index for index, part in enumerate(parts) if isinstance(part, Text))
                parts[last] = msgspec.structs.replace(parts[last], seal=memory.seal)
    if memories and (known or _agrees(parts, [one for memory in memories.values() for one in memory.thinking])):
        parts, changed = _with_memories(parts, memories, known), True
    return msgspec.structs.replace(message, parts=tuple(parts)) if changed else message


def _agrees(parts: Sequence[Part], thinking: Sequence[Thinking]) -> bool:
    """Is the reasoning that the client sent, if any, the one that is remembered? Clients may shorten it, never change it."""
    sent = "".join(part.text for part in parts if isinstance(part, Thinking)).strip()
    kept = "".join(part.text for part in thinking).strip()
    return not sent or sent.startswith(kept) or kept.startswith(sent)


def _with_memories(parts: list[Part], memories: dict[str, Recollection], known: bool) -> list[Part]:
    """Thinking goes back before its call: before the text that led to it for the first call, right before later calls."""
    if not known:
        parts = [part for part in parts if not isinstance(part, Thinking)]
    result: list[Part] = []
    first = True
    for part in parts:
        memory = memories.get(part.id) if isinstance(part, ToolCall) else None
        if isinstance(part, ToolCall) and memory:
            if not known and memory.thinking:
                result = [*memory.thinking, *result] if first else [*result, *memory.thinking]
            if memory.seal and not part.seal:
                part = msgspec.structs.replace(part, seal=memory.seal)
        if isinstance(part, ToolCall):
            first = False
        result.append(part)
    return result


def _opened(part: Part, envelope: Envelope) -> Part:
    seal = getattr(part, "seal", None)
    if not isinstance(seal, Seal) or not seal.value.startswith(PREFIX):
        return part
    inner = envelope.open(seal.value) or Seal(origin="unknown", kind=seal.kind, value="", maker="unknown")
    return msgspec.structs.replace(part, seal=inner)
