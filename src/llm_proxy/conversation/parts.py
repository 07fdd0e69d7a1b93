"""The pieces that messages and answers are made of.

A part is immutable. Its kind is its type; `match` on it. Text-like values are plain `str`; binary data stays in the
base64 text in which every protocol carries it.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

DialectName = Literal["openai-chat", "openai-responses", "anthropic-messages", "gemini"]


class CacheMark(msgspec.Struct, frozen=True):
    """A prompt-cache breakpoint after this part. `ttl` is the client's word (`5m`, `1h`, `30m`, …), empty for the default."""

    ttl: str = ""


class Seal(msgspec.Struct, frozen=True):
    """Reasoning state that only its maker can read: signatures, encrypted reasoning, thought signatures.

    `origin` is the dialect that made it, `maker` narrows that to a back end and model family (`anthropic/claude`,
    empty when it was read straight from a client that speaks the same dialect). A seal is valid only at its origin.
    `kind`: `signature` (Anthropic thinking), `redacted` (Anthropic redacted_thinking data), `encrypted` (Responses
    encrypted_content), `thought` (Gemini thoughtSignature), `details` (JSON text of one Chat reasoning_details entry).
    """

    origin: str
    kind: Literal["signature", "redacted", "encrypted", "thought", "details"]
    value: str
    maker: str = ""
    item_id: str = ""


class Citation(msgspec.Struct, frozen=True):
    """One source of a text. `start`/`end` are code-point offsets into the text part, -1 when unknown.

    `raw` is the origin's own JSON object; only a writer of dialect `origin` may use it.
    """

    url: str = ""
    title: str = ""
    start: int = -1
    end: int = -1
    cited_text: str = ""
    origin: str = ""
    raw: dict[str, Any] | None = None


class Text(msgspec.Struct, frozen=True):
    """Visible text. `seal`: Gemini may attach a thought signature to any part.

    In answers of the Responses protocol `item_id` and `phase` are those of the message item that the text belongs to.
    """

    text: str
    citations: tuple[Citation, ...] = ()
    cache: CacheMark | None = None
    seal: Seal | None = None
    item_id: str = ""
    phase: str = ""


class Refusal(msgspec.Struct, frozen=True):
    """Text by which the model declines."""

    text: str


class Media(msgspec.Struct, frozen=True):
    """An image, audio clip, video or document, in exactly one of: `data` (base64), `url` (http), `file_id`, `text`.

    `mime` is normalised (`image/jpeg`, never `image/jpg`); empty if unknown. `text` holds a document given as plain
    text. `file_id` is bound to the provider of dialect `origin`. `transcript` belongs to generated audio.
    """

    kind: Literal["image", "audio", "video", "document"]
    data: str = ""
    url: str = ""
    file_id: str = ""
    text: str = ""
    mime: str = ""
    name: str = ""
    title: str = ""
    context: str = ""
    detail: str = ""
    transcript: str = ""
    origin: str = ""
    citations_enabled: bool = False
    cache: CacheMark | None = None
    seal: Seal | None = None


class Thinking(msgspec.Struct, frozen=True):
    """Reasoning before or between answers. `text` may be empty when only sealed state exists.

    `summary` marks a provider's summary as opposed to raw reasoning. One Responses reasoning item is one `Thinking`;
    several summary pieces are joined with a blank line and kept apart in `pieces`.
    """

    text: str = ""
    summary: bool = False
    seal: Seal | None = None
    item_id: str = ""
    pieces: tuple[str, ...] = ()


class ToolCall(msgspec.Struct, frozen=True):
    """The model asks for a tool.

    `arguments` is the verbatim text: JSON for kind `function` (`""` means no arguments), free text for kind `custom`.
    `id` pairs it with its result within the conversation; always non-empty and unique within it. `native_id` is false when the proxy
    made the id because the protocol (Gemini) gave none. `legacy`: from Chat's `function_call`.
    `namespace`: the Responses tool namespace it belongs to.
    """

    id: str
    name: str
    arguments: str = ""
    kind: Literal["function", "custom"] = "function"
    namespace: str = ""
    item_id: str = ""
    native_id: bool = True
    legacy: bool = False
    seal: Seal | None = None
    cache: CacheMark | None = None


class ToolResult(msgspec.Struct, frozen=True):
    """What a tool gave back for `call_id`. `parts` are Text and Media; empty for an empty result.

    `value` is the JSON object of a Gemini functionResponse that is not just `{"result": …}`; else None.
    """

    call_id: str
    parts: tuple[Part, ...] = ()
    is_error: bool = False
    name: str = ""
    kind: Literal["function", "custom"] = "function"
    value: dict[str, Any] | None = None
    cache: CacheMark | None = None


class Opaque(msgspec.Struct, frozen=True):
    """Something only dialect `origin` knows: server tool calls and their results, code execution, compaction …

    `type` is the origin's type name, `raw` its whole JSON object. `server_tool` is the tool's name when this is a call
    made and run by the provider (`web_search`), empty otherwise.
    """

    origin: str
    type: str
    raw: dict[str, Any]
    server_tool: str = ""


Part = Text | Refusal | Media | Thinking | ToolCall | ToolResult | Opaque


def text_of(parts: tuple[Part, ...], joint: str = "") -> str:
    """The visible text of `parts`, joined."""
    return joint.join(part.text for part in parts if isinstance(part, Text))
