"""Bodies of Responses requests as the ChatGPT service takes them (BE-15): what is put in, left out and lowered.

Works on the bytes: what it does not touch stays as it came. Knows no login, no header and no call.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Collection
from typing import Any, Final

import msgspec

from llm_proxy.conversation.fault import bad_request
from llm_proxy.dialects.capabilities import Capabilities
from llm_proxy.dialects.efforts import clamp_effort, effort_named
from llm_proxy.dialects.openai_responses.state import not_found
from llm_proxy.wire.faults import JsonFault
from llm_proxy.wire.json import rewrite, split_checked

# The service answers 400 to every parameter that its own client never sends:
# https://github.com/langwatch/langwatch/pull/7507, probed field by field in August 2026; `stream_options` from
# https://github.com/router-for-me/CLIProxyAPI, 2026.
LEFT_OUT: Final = frozenset(
    {
        "background", "max_completion_tokens", "max_output_tokens", "max_tokens", "max_tool_calls", "metadata",
        "prompt_cache_options", "prompt_cache_retention", "safety_identifier", "stream_options", "temperature",
        "top_logprobs", "top_p", "truncation", "user",
    }
)  # fmt: skip

NEEDED: Final = frozenset({"model", "input", "instructions", "stream", "store"})
"""Never left out, whatever the service says of them."""

# `{"detail":"Instructions are required"}` without: https://github.com/vybestack/llxprt-code/issues/1197, January 2026.
_INSTRUCTIONS: Final = "You are a helpful assistant."
_SEALED_REASONING: Final = "reasoning.encrypted_content"
_REFUSED: Final = re.compile(r"Unsupported parameter: '?([a-z_]{1,40})\b")
_PLAIN: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_NOTHING: Final = (b"null", b'""', b"[]", b"{}")


class Fitted(msgspec.Struct, frozen=True):
    """`conversation`: the name of the conversation, fit for a header; the same in all its turns. `losses`: what the client asked for and
    is not sent, a sentence for each member."""

    body: bytes
    conversation: str
    losses: tuple[str, ...] = ()


class _Item(msgspec.Struct):
    type: Any = None
    role: Any = None
    encrypted_content: Any = None


_decode_items = msgspec.json.Decoder(list[_Item]).decode
_decode_raw_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode = msgspec.json.Decoder().decode


def fitted(body: bytes, able: Capabilities, refused: Collection[str] = ()) -> Fitted:
    """A complete Responses body for the service. `refused`: further members that it was seen not to take.

    Raises FaultError 400 for what refers to something that the service would have to keep: it keeps nothing.
    """
    try:
        members = split_checked(body)
    except JsonFault as fault:
        raise bad_request(str(fault)) from None
    _check_references(members)
    unwanted = _unwanted(members, refused)
    old: dict[str, Any] = dict.fromkeys(unwanted)
    new: dict[str, Any] = {}
    _put(members, new, "stream", b"true", True)
    _put(members, new, "store", b"false", False)
    if not _is_text(members.get("instructions", b"")):
        new["instructions"] = _INSTRUCTIONS
    if able.thinking != "none":
        _want_sealed_reasoning(members, new)
        _lower_effort(members, able, old, new)
    given = members.get("input", b"")
    named = _decode(members.get("prompt_cache_key", b"null"))
    named = named if isinstance(named, str) else ""
    known = not named or b'"system"' in given or b'"reasoning"' in given
    kinds = _kinds_of(given) if known else None
    key = named or _beginning(members.get("instructions", b""), given, kinds)
    if "prompt_cache_key" not in refused:
        _put(members, new, "prompt_cache_key", msgspec.json.encode(key), key)
    _adapt_input(given, kinds, old, new)
    name = key if _PLAIN.fullmatch(key) else _uuid(key.encode("utf-8", "replace"))
    lost = [member for member in unwanted if members[member] not in _NOTHING]
    return Fitted(
        rewrite(body, old, new), name, tuple(f"{member}: not taken by the ChatGPT service" for member in lost)
    )


def refused_member(body: bytes, sent: bytes) -> str:
    """The member of `sent` that an answer with status 400 names as not taken; "" if it names none."""
    found = _REFUSED.search(body[:2000].decode("utf-8", "replace"))
    if found is None or found[1] in NEEDED:
        return ""
    return found[1] if found[1] in split_checked(sent) else ""


def _put(members: dict[str, bytes], new: dict[str, Any], name: str, text: bytes, value: Any) -> None:
    """A member that must have one value; what has it already keeps its bytes."""
    if members.get(name) != text:
        new[name] = value


def _check_references(members: dict[str, bytes]) -> None:
    """What the proxy kept itself was written out before; the rest is nowhere."""
    previous = members.get("previous_response_id", b"null")
    if previous not in _NOTHING:
        raise not_found(str(_decode(previous)))
    if members.get("conversation", b"null") not in _NOTHING:
        raise bad_request("conversation: this back end keeps no conversations; send all messages", "conversation")


def _unwanted(members: dict[str, bytes], refused: Collection[str]) -> list[str]:
    names = [name for name in members if name in LEFT_OUT or (name in refused and name not in NEEDED)]
    names += [name for name in ("previous_response_id", "conversation") if name in members]
    if members.get("service_tier", b'"priority"') != b'"priority"':  # the one that the vendor's own client sends
        names.append("service_tier")
    return names


def _is_text(raw: bytes) -> bool:
    return raw[:1] == b'"' and bool(raw[1:-1].strip())


def _want_sealed_reasoning(members: dict[str, bytes], new: dict[str, Any]) -> None:
    """Nothing is stored there, so the reasoning must come sealed to be sent back with the next turn."""
    given = _decode(members.get("include", b"[]"))
    names = given if isinstance(given, list) else []
    if _SEALED_REASONING not in names:
        new["include"] = [*names, _SEALED_REASONING]


def _lower_effort(members: dict[str, bytes], able: Capabilities, old: dict[str, Any], new: dict[str, Any]) -> None:
    reasoning = _decode(members.get("reasoning", b"null"))
    said = reasoning.get("effort") if isinstance(reasoning, dict) else None
    effort = effort_named(said) if isinstance(said, str) else None
    if effort is None:
        return
    taken = clamp_effort(effort, able.efforts)
    if taken != said:
        old["reasoning"], new["reasoning"] = {"effort": said}, {"effort": taken}


def _kinds_of(raw: bytes) -> list[_Item] | None:
    """What the items of the input are; None for a text, and for what the service shall refuse itself."""
    try:
        return _decode_items(raw)
    except msgspec.MsgspecError:
        return None


def _beginning(instructions: bytes, raw: bytes, kinds: list[_Item] | None) -> str:
    """A name made of how the conversation begins: all its turns begin alike."""
    if kinds is None:
        return _uuid(instructions, raw)
    first = next((place for place, item in enumerate(kinds) if item.role == "user"), len(kinds) - 1)
    return _uuid(instructions, *map(bytes, _decode_raw_items(raw)[: first + 1]))


def _uuid(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:" % len(part) + part)
    return str(uuid.UUID(bytes=digest.digest()[:16], version=5))


def _adapt_input(raw: bytes, kinds: list[_Item] | None, old: dict[str, Any], new: dict[str, Any]) -> None:
    """A list of items without system messages (`System messages are not allowed`:
    https://github.com/router-for-me/CLIProxyAPI/issues/3510, May 2026) and without reasoning of which only the id is left."""
    if raw[:1] == b'"':
        content = [{"type": "input_text", "text": _decode(raw)}]
        new["input"] = [{"type": "message", "role": "user", "content": content}]
        return
    if kinds is None or not any(_stays_not(item) or item.role == "system" for item in kinds):
        return
    items = _decode(raw)
    changed = []
    for kind, item in zip(kinds, items, strict=True):
        if not _stays_not(kind):
            changed.append({**item, "role": "developer"} if kind.role == "system" else item)
    old["input"], new["input"] = items, changed


def _stays_not(item: _Item) -> bool:
    return item.type == "reasoning" and not item.encrypted_content
