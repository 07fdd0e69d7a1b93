"""Messages written as Responses input items: one part per item, and the parts of one message in its item.

Seals go only to their maker. Between other protocols' messages the API's own rules are kept: no empty
texts, every call has its output.
"""

from __future__ import annotations

from typing import Any

from llm_proxy.conversation.fault import bad_request
from llm_proxy.conversation.parts import (
    CacheMark,
    Citation,
    Media,
    Opaque,
    Part,
    Refusal,
    Seal,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)  # fmt: skip
from llm_proxy.conversation.request import Message, Request, Role
from llm_proxy.dialects.base import Target
from llm_proxy.dialects.media_types import audio_format, data_url, kind_of, sniffed
from llm_proxy.dialects.names import call_id
from llm_proxy.dialects.openai_responses.tools import ToolsOut, cache_mark
from llm_proxy.dialects.openai_responses.wire import CONTENT, ENVELOPE, NAME, OWN_REASONING, has_prefix
from llm_proxy.wire.json import encode

_REMINDER = "<system-reminder>\n{}\n</system-reminder>"


class ItemsOut:
    """Writes messages for one target. `losses` and `lost_marks` tell afterwards what could not be said."""

    def __init__(self, request: Request, target: Target, tools: ToolsOut) -> None:
        self._native = request.dialect == NAME
        self._target = target
        self._able = target.capabilities
        self._tools = tools
        self._stateful = bool(request.previous_id) or "conversation" in request.rest
        self._items: list[dict[str, Any]] = []
        self._attached: list[dict[str, Any]] = []
        self.losses: list[str] = []
        self.lost_marks = False
        self.system_role: Role = "developer" if self._able.developer_role else "system"

    def write(self, messages: tuple[Message, ...]) -> list[dict[str, Any]]:
        self._items = []
        answered, called = _paired(messages)
        leading = True
        for index, message in enumerate(messages):
            leading = leading and message.role in ("system", "developer")
            if self._attached and not any(isinstance(part, ToolResult) for part in message.parts):
                self._flush_attached()
            self._message(message, f"messages[{index}]", called, leading, index == len(messages) - 1)
            if message.role == "assistant" and not self._native and not self._stateful:
                self._answer_lonely_calls(message, answered)
        self._flush_attached()
        return self._items

    def _message(self, message: Message, where: str, called: set[str], leading: bool, last: bool) -> None:
        content: list[dict[str, Any]] = []
        before = len(self._items)
        for place, part in enumerate(message.parts):
            param = f"{where}.content[{place}]"
            match part:
                case Thinking():
                    items = self._reasoning(part)
                case ToolCall():
                    items = [self._call(part)]
                case ToolResult():
                    if not self._native and not self._stateful and part.call_id not in called:
                        content += self._content(self._stray(part), message.role, param)
                        continue
                    items = [self._result(part, param)]
                case Opaque(type=kind) if not kind.startswith(CONTENT):
                    items = self._opaque(part)
                case _:
                    if isinstance(part, Text) and not part.text and not self._native:
                        continue
                    content += self._content((part,), message.role, param)
                    continue
            if items and content:
                self._close(message, content, leading)
                content = []
            self._items += items
        if content or (self._native and not message.parts):
            self._close(message, content, leading)
        elif len(self._items) == before and message.role == "user" and last and not self._native:
            self._items.append({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "."}]})

    def _close(self, message: Message, content: list[dict[str, Any]], leading: bool) -> None:
        """A message item of the content so far."""
        role = message.role
        if not self._native:
            if role in ("system", "developer"):
                role, content = self._system(role, content, leading)
            elif role == "assistant" and len(content) == 1 and set(content[0]) == {"type", "text"}:
                # Servers that only look like the API demand ids on lists of output texts, but take a plain
                # string.
                self._items.append({"type": "message", "role": role, "content": content[0]["text"]})
                self._label(message)
                return
        self._items.append({"type": "message", "role": role, "content": content})
        self._label(message)

    def _system(self, role: Role, content: list[dict[str, Any]], leading: bool) -> tuple[Role, list[dict[str, Any]]]:
        if role == "developer" and not self._able.developer_role:
            role = "system"
        if leading or self._able.mid_system:
            return role, content
        wrapped = [{**part, "text": _REMINDER.format(part["text"])} if "text" in part else part for part in content]
        return "user", wrapped

    def _label(self, message: Message) -> None:
        item = self._items[-1]
        if self._native and message.id:
            item["id"] = message.id
        if message.phase and (self._native or self._able.phase):
            item["phase"] = message.phase

    # ---- items

    def _reasoning(self, part: Thinking) -> list[dict[str, Any]]:
        """The reasoning item, or nothing: without a seal of its own no provider takes it back."""
        value = self._sealed(part.seal)
        made_here = part.item_id.startswith(OWN_REASONING)
        if not value and (not self._native or part.seal is not None or made_here or not part.item_id):
            if part.text or part.seal is not None:
                self.losses.append(f"reasoning: that of another maker is left out for {self._target.model}")
            return []
        item: dict[str, Any] = {"type": "reasoning"}
        item_id = part.item_id or (part.seal.item_id if part.seal else "")
        if item_id and not made_here and (self._native or has_prefix(item_id, "rs_")):
            item["id"] = item_id
        pieces = part.pieces or ((part.text,) if part.text else ())
        if part.summary or not self._native:
            item["summary"] = [{"type": "summary_text", "text": piece} for piece in pieces]
        else:
            item["summary"] = []
            item["content"] = [{"type": "reasoning_text", "text": piece} for piece in pieces]
        if value:
            item["encrypted_content"] = value
        return [item]

    def _sealed(self, seal: Seal | None) -> str:
        if seal is None or seal.origin != NAME or seal.kind != "encrypted" or seal.value.startswith(ENVELOPE):
            return ""
        return seal.value if not seal.maker or seal.maker == self._target.maker else ""

    def _call(self, call: ToolCall) -> dict[str, Any]:
        name = self._tools.name(call.name, call.namespace)
        custom = call.kind == "custom"
        wrapped = custom and not self._able.custom_tools
        item: dict[str, Any] = {
            "type": "custom_tool_call" if custom and not wrapped else "function_call",
            "call_id": self._call_id(call.id),
            "name": name,
        }
        if call.namespace and self._able.namespaces:
            item["namespace"] = call.namespace
        if wrapped:
            item["arguments"] = encode({"input": call.arguments}).decode()
        elif custom:
            item["input"] = call.arguments
        else:
            item["arguments"] = call.arguments if self._native else call.arguments or "{}"
        if self._native and call.item_id and not wrapped:
            item["id"] = call.item_id
        self._mark(call.cache, None)
        return item

    def _call_id(self, original: str) -> str:
        return original if self._native else call_id(original)

    def _result(self, result: ToolResult, where: str) -> dict[str, Any]:
        custom = result.kind == "custom" and self._able.custom_tools
        parts = result.parts
        if result.is_error and not self._native:
            parts = _shown_as_error(parts)
        output: Any
        if not parts and result.value is not None and not self._native:
            output = encode(result.value).decode()
        elif not parts:
            output = ""
        elif len(parts) == 1 and isinstance(parts[0], Text) and not self._marks(parts[0].cache or result.cache):
            output = parts[0].text
        else:
            output = self._content(self._without_media(parts, result.call_id), "user", where)
            if not all("text" in part for part in output) or self._marks(result.cache) or self._native:
                self._mark(result.cache, output[-1] if output else None)
            else:
                output = "\n".join(part["text"] for part in output)
        return {
            "type": "custom_tool_call_output" if custom else "function_call_output",
            "call_id": self._call_id(result.call_id),
            "output": output,
        }

    def _without_media(self, parts: tuple[Part, ...], result_id: str) -> tuple[Part, ...]:
        """Where a target takes no media in outputs, they follow in a user message behind all results."""
        if self._able.media_in_results or self._native:
            return parts
        kept: list[Part] = []
        for part in parts:
            if not isinstance(part, Media):
                kept.append(part)
                continue
            number = sum(1 for entry in self._attached if entry["type"] != "input_text") + 1
            kept.append(Text(f"[{part.kind} {number} attached below]"))
            label = {
                "type": "input_text",
                "text": f"{part.kind} {number}, from the result of {self._call_id(result_id)}:",
            }
            self._attached += [label, *self._content((part,), "user", "tool result")]
        return tuple(kept)

    def _flush_attached(self) -> None:
        if self._attached:
            self._items.append({"type": "message", "role": "user", "content": self._attached})
            self._attached = []

    def _stray(self, result: ToolResult) -> tuple[Part, ...]:
        """A result whose call is not in the conversation becomes plain text: the API refuses it otherwise."""
        self.losses.append("tool result: its call is not in the conversation, sent as text")
        return (Text(f"Result of the tool call {result.call_id}:"), *result.parts)

    def _answer_lonely_calls(self, message: Message, answered: set[str]) -> None:
        for part in message.parts:
            if isinstance(part, ToolCall) and part.id not in answered:
                self.losses.append("tool call: it has no result in the conversation, an empty one was added")
                custom = part.kind == "custom" and self._able.custom_tools
                self._items.append(
                    {
                        "type": "custom_tool_call_output" if custom else "function_call_output",
                        "call_id": self._call_id(part.id),
                        "output": "Error: no result",
                    }
                )

    def _opaque(self, part: Opaque) -> list[dict[str, Any]]:
        if part.origin == NAME:
            return [part.raw]
        self.losses.append(f"{part.type}: only {part.origin} knows it, left out")
        return []

    # ---- content parts

    def _content(self, parts: tuple[Part, ...], role: Role, where: str) -> list[dict[str, Any]]:
        written: list[dict[str, Any]] = []
        for part in parts:
            match part:
                case Text():
                    entry = self._text(part, role)
                case Refusal(text=refusal):
                    entry = {"type": "refusal", "refusal": refusal}
                case Media():
                    entry = self._media(part, where)
                case Opaque(origin=origin, raw=raw) if origin == NAME:
                    entry = raw
                case Opaque(origin=origin, type=kind):
                    self.losses.append(f"{kind}: only {origin} knows it, left out")
                    continue
                case _:
                    continue
            self._mark(getattr(part, "cache", None), entry if role != "assistant" or self._native else None)
            written.append(entry)
        return written

    def _text(self, part: Text, role: Role) -> dict[str, Any]:
        if role != "assistant":
            return {"type": "input_text", "text": part.text}
        entry: dict[str, Any] = {"type": "output_text", "text": part.text}
        annotations = [annotation for citation in part.citations if (annotation := write_citation(citation))]
        if annotations:
            entry["annotations"] = annotations
        return entry

    def _media(self, part: Media, where: str) -> dict[str, Any]:
        if part.file_id and part.origin != NAME:
            raise bad_request(f"{where}: a file id of {part.origin or 'another provider'} is not known here", where)
        document = part.kind == "document"
        able = {
            "image": self._able.images,
            "document": self._able.documents,
            "audio": self._able.audio,
            "video": False,
        }
        if not self._native and not able[part.kind]:
            raise bad_request(f"{where}: {self._target.model} takes no {part.kind} input", where)
        if part.text:
            title = part.title or part.name
            body = f"{title}\n\n{part.text}" if title else part.text
            return {"type": "input_text", "text": body}
        if part.kind == "audio":
            return {
                "type": "input_audio",
                "input_audio": {"data": part.data, "format": audio_format(part.mime)},
            }
        if document and not (part.data and kind_of(part.mime) == "image" and not self._native):
            return self._document(part)
        entry: dict[str, Any] = {"type": "input_image"}
        if part.data:
            entry["image_url"] = data_url(part.mime if self._native else sniffed(part.data, part.mime), part.data)
        elif part.url:
            entry["image_url"] = part.url
        else:
            entry["file_id"] = part.file_id
        if part.detail:
            entry["detail"] = part.detail
        return entry

    def _document(self, part: Media) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "input_file"}
        if part.data:
            mime = part.mime or "application/pdf"
            entry["file_data"] = data_url(mime, part.data)
            name = part.name or part.title
            if not name and not self._native:
                name = "document.pdf" if mime == "application/pdf" else "document"
            if name:
                entry["filename"] = name
        elif part.url:
            entry["file_url"] = part.url
            if part.name and self._native:
                entry["filename"] = part.name
        else:
            entry["file_id"] = part.file_id
        if part.detail:
            entry["detail"] = part.detail
        return entry

    def _marks(self, mark: CacheMark | None) -> bool:
        return mark is not None and (self._native or self._able.cache_marks)

    def _mark(self, mark: CacheMark | None, entry: dict[str, Any] | None) -> None:
        """Put a cache mark on a content part; marks that find no place are counted as lost."""
        if mark is None:
            return
        if entry is not None and self._marks(mark):
            entry["prompt_cache_breakpoint"] = cache_mark(mark)
        else:
            self.lost_marks = True


def _paired(messages: tuple[Message, ...]) -> tuple[set[str], set[str]]:
    """Ids that have a result, ids that were called."""
    parts = [part for message in messages for part in message.parts]
    answered = {part.call_id for part in parts if isinstance(part, ToolResult)}
    return answered, {part.id for part in parts if isinstance(part, ToolCall)}


def _shown_as_error(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """The protocol has no error flag: the text says it."""
    first = parts[0] if parts else Text("")
    if not isinstance(first, Text):
        return (Text("Error:"), *parts)
    if first.text.lstrip().lower().startswith("error"):
        return parts
    return (Text(f"Error: {first.text}" if first.text else "Error"), *parts[1:])


def write_citation(citation: Citation) -> dict[str, Any] | None:
    """An annotation: the origin's own object, or a `url_citation` when there is an address."""
    known = citation.raw if citation.origin == NAME else None
    if known is not None and known.get("type") != "url_citation":
        return known
    if not citation.url:
        return known
    # Some servers leave out members that strict models of the official SDK demand.
    plain = {
        "type": "url_citation", "url": citation.url, "title": citation.title,
        "start_index": max(0, citation.start), "end_index": max(0, citation.end),
    }  # fmt: skip
    return {**plain, **known} if known is not None else plain
