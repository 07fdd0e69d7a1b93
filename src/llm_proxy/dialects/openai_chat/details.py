"""Reasoning in the fields of this dialect's servers: `reasoning_details`, `reasoning_content`, `reasoning`,
Mistral's list.

Turns one entry into a `Thinking` and back. An own entry is kept whole as a seal of kind `details`; a foreign
seal travels through a client inside an entry, as the proxy's envelope.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_proxy.conversation.parts import Seal, Thinking
from llm_proxy.dialects.openai_chat.fields import NAME

ENVELOPE = "gw1."
_FORMATS = {
    "anthropic-messages": "anthropic-claude-v1",
    "openai-responses": "openai-responses-v1",
    "gemini": "google-gemini-v1",
}
LISTED = "thinking"


def text_of_field(raw: dict[str, Any]) -> str:
    """The plain reasoning text of a message or delta, whichever field holds it."""
    for name in ("reasoning_content", "reasoning"):
        value = raw.get(name)
        if isinstance(value, str) and value:
            return value
    return ""


def entry_text(entry: dict[str, Any]) -> str:
    """The visible text of a `reasoning_details` entry."""
    for name in ("text", "summary"):
        value = entry.get(name)
        if isinstance(value, str) and value:
            return value
    return ""


def entry_parts(part: dict[str, Any]) -> list[str]:
    """The texts of Mistral's `{"type": "thinking", "thinking": [{"type": "text", "text": …}]}`."""
    inner = part.get("thinking")
    if isinstance(inner, str):
        return [inner]
    if not isinstance(inner, list):
        return []
    texts = (item.get("text") for item in inner if isinstance(item, dict))
    return [text for text in texts if isinstance(text, str)]


def entry_seal(entry: dict[str, Any], maker: str) -> Seal:
    """The seal of a whole entry: our envelope as it is, else the entry itself."""
    for name in ("data", "signature"):
        value = entry.get(name)
        if isinstance(value, str) and value.startswith(ENVELOPE):
            return Seal(NAME, "encrypted", value, maker)
    item_id = entry.get("id")
    return Seal(
        NAME,
        "details",
        msgspec.json.encode(entry).decode(),
        maker,
        item_id if isinstance(item_id, str) else "",
    )


def thinking_part(entry: dict[str, Any], maker: str) -> Thinking:
    return Thinking(entry_text(entry), summary=entry.get("type") == "reasoning.summary", seal=entry_seal(entry, maker))


def is_listed(seal: Seal | None) -> bool:
    """Does this thinking stand in the content list (Mistral)?"""
    return seal is not None and seal.kind == "details" and seal.value == '{"type":"thinking"}'


def listed_part(text: str) -> dict[str, Any]:
    return {"type": LISTED, "thinking": [{"type": "text", "text": text}]}


def native_entry(seal: Seal) -> dict[str, Any] | None:
    """The entry that `seal` keeps; None when it keeps none that may be written."""
    if seal.kind != "details" or is_listed(seal):
        return None
    try:
        entry = msgspec.json.decode(seal.value)
    except msgspec.DecodeError:
        return None
    return entry if isinstance(entry, dict) else None


def packed_entry(seal: Seal, packed: str, text: str) -> dict[str, Any]:
    """The entry that carries an envelope through a client. A text is repeated beside it: signatures hold for
    exact texts only.
    """
    entry: dict[str, Any] = {"type": "reasoning.text", "text": text, "signature": packed}
    if not text:
        entry = {"type": "reasoning.encrypted", "data": packed}
    return {**entry, "id": seal.item_id or None, "format": _FORMATS.get(seal.origin, "unknown")}
