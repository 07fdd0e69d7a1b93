"""The messages of a Chat request as canonical ones, one for one.

Tool results become parts of `user` messages and get their call's name and kind. Reasoning is read from all
the fields in which servers of this dialect want it back. Knows nothing of parameters.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_proxy.conversation.fault import bad_request
from llm_proxy.conversation.parts import (
    CacheMark,
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
from llm_proxy.conversation.request import Message, Role
from llm_proxy.dialects import media_types
from llm_proxy.dialects.openai_chat.details import entry_parts, text_of_field, thinking_part
from llm_proxy.dialects.openai_chat.fields import (
    NAME,
    Fields,
    as_fields,
    missing,
    unprocessable,
    wrong_type,
)  # fmt: skip
from llm_proxy.dialects.openai_chat.marks import read_mark

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def read_messages(fields: Fields) -> tuple[Message, ...]:
    """All messages. Raises FaultError naming the field; an empty list is refused."""
    list_messages(fields)
    reader = _Reader()
    return tuple(reader.message(message) for message in fields.objects("messages"))


def list_messages(fields: Fields) -> list[Any]:
    """The undecoded messages; an error when there are none."""
    if not fields.has("messages"):
        raise missing("messages")
    messages = fields.list_of("messages")
    if not messages:
        raise bad_request("messages: expected at least one message, got an empty list", "messages")
    return messages


class _Reader:
    """Remembers the calls of the conversation, so that results find theirs."""

    def __init__(self) -> None:
        self.calls: dict[str, ToolCall] = {}
        self.open: list[ToolCall] = []
        self.legacy = 0

    def message(self, fields: Fields) -> Message:
        role = fields.needed_text("role")
        name = fields.text("name")
        match role:
            case "system" | "developer" | "user":
                return Message(_role(role), tuple(self.content(fields, needed=True)), name=name)
            case "assistant":
                return Message("assistant", tuple(self.assistant(fields)), name=name)
            case "tool":
                return Message("user", (self.result(fields),))
            case "function":
                return Message("user", (self.legacy_result(fields),))
            case _:
                path = fields.at("role")
                raise bad_request(f"{path}: unknown role {role!r}, expected one of {', '.join(_ROLES)}", path)

    # ---- content

    def content(self, fields: Fields, needed: bool = False) -> list[Part]:
        value = fields.raw.get("content")
        path = fields.at("content")
        if value is None:
            if needed:
                raise (missing(path) if "content" not in fields.raw else wrong_type(path, "a string or a list", None))
            return []
        if isinstance(value, str):
            return [Text(value)]
        if not isinstance(value, list):
            raise wrong_type(path, "a string or a list", value)
        parts: list[Part] = []
        for index, item in enumerate(value):
            if isinstance(item, str):
                parts.append(Text(item))
            else:
                parts.append(_read_part(as_fields(item, f"{path}[{index}]")))
        return parts

    # ---- assistant

    def assistant(self, fields: Fields) -> list[Part]:
        parts: list[Part] = [*self._thinking(fields), *self.content(fields)]
        refusal = fields.text("refusal")
        if refusal:
            parts.append(Refusal(refusal))
        audio = fields.mapping("audio")
        if audio:
            parts.append(Opaque(NAME, "audio", audio))
        calls = [self._call(call) for call in fields.objects("tool_calls")]
        legacy = fields.object("function_call")
        if legacy is not None:
            calls.append(self._legacy_call(legacy))
        for call in calls:
            self.calls[call.id] = call
        self.open = list(calls)
        return parts + calls

    def _thinking(self, fields: Fields) -> list[Thinking]:
        """`reasoning_details` say more than the plain text beside them, unless they hold no text at all."""
        entries = [entry.raw for entry in fields.objects("reasoning_details")]
        said = text_of_field(fields.raw)
        thoughts = [thinking_part(entry, "") for entry in entries]
        if said and not any(thought.text for thought in thoughts):
            if len(thoughts) == 1:
                return [msgspec.structs.replace(thoughts[0], text=said)]
            return [Thinking(said), *thoughts]
        return thoughts

    def _call(self, fields: Fields) -> ToolCall:
        call_id = fields.needed_text("id")
        seal = _call_seal(fields.raw)
        if fields.text("type") == "custom":
            custom = fields.object("custom")
            if custom is None:
                raise missing(fields.at("custom"))
            return ToolCall(call_id, custom.needed_text("name"), custom.text("input"), kind="custom", seal=seal)
        function = fields.object("function")
        if function is None:
            raise missing(fields.at("function"))
        return ToolCall(call_id, function.needed_text("name"), _arguments(function), seal=seal)

    def _legacy_call(self, fields: Fields) -> ToolCall:
        self.legacy += 1
        call_id = f"legacy_call_{self.legacy}"
        return ToolCall(call_id, fields.needed_text("name"), _arguments(fields), native_id=False, legacy=True)

    # ---- results

    def result(self, fields: Fields) -> ToolResult:
        call_id = fields.text("tool_call_id")
        if not call_id:
            if not self.open:
                raise missing(fields.at("tool_call_id"))
            call_id = self.open[0].id  # some clients leave the id out; results then come in the order of the calls
        call = self.calls.get(call_id)
        if call is None:
            path = fields.at("tool_call_id")
            raise unprocessable(f"{path}: no earlier message calls a tool with this id", path)
        return self._with(fields, call, read_mark(fields.raw))

    def legacy_result(self, fields: Fields) -> ToolResult:
        name = fields.needed_text("name")
        call = next((call for call in self.open if call.legacy and call.name == name), None)
        call = call or next((call for call in reversed(self.calls.values()) if call.legacy and call.name == name), None)
        if call is None:
            path = fields.at("name")
            raise unprocessable(f"{path}: no earlier message calls this function", path)
        return self._with(fields, call, None)

    def _with(self, fields: Fields, call: ToolCall, cache: CacheMark | None) -> ToolResult:
        self.open = [other for other in self.open if other.id != call.id]
        parts = tuple(part for part in self.content(fields) if not (isinstance(part, Text) and not part.text))
        return ToolResult(call.id, parts, name=call.name, kind=call.kind, cache=cache)


def _role(word: str) -> Role:
    return "system" if word == "system" else "developer" if word == "developer" else "user"


def _arguments(fields: Fields) -> str:
    """Arguments are JSON text; an object instead (Ollama's clients) is written as text."""
    value = fields.raw.get("arguments")
    if isinstance(value, dict):
        return msgspec.json.encode(value).decode()
    return fields.text("arguments")


def _call_seal(raw: dict[str, Any]) -> Seal | None:
    """The thought signature that Gemini's compatible endpoint, and this proxy, put on a call."""
    extra = raw.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    value = google.get("thought_signature") if isinstance(google, dict) else None
    return Seal(NAME, "thought", value) if isinstance(value, str) and value else None


# ---- parts


def _read_part(fields: Fields) -> Part:
    kind = fields.text("type") or ("text" if fields.has("text") else "")
    match kind:
        case "text" | "input_text" | "output_text":
            return Text(fields.text("text"), cache=read_mark(fields.raw))
        case "refusal":
            return Refusal(fields.text("refusal"))
        case "image_url" | "video_url":
            return _read_link(fields, kind)
        case "input_audio":
            audio = fields.object("input_audio")
            if audio is None:
                raise missing(fields.at("input_audio"))
            mime = f"audio/{audio.text('format') or 'wav'}"
            return Media("audio", data=audio.needed_text("data"), mime=mime, cache=read_mark(fields.raw))
        case "file":
            return _read_file(fields)
        case "thinking":
            return _read_listed_thinking(fields)
        case "":
            raise missing(fields.at("type"))
        case _:
            return Opaque(NAME, kind, fields.raw)


def _read_link(fields: Fields, kind: str) -> Media:
    given = fields.raw.get(kind)
    path = fields.at(kind)
    # A bare text instead of the object is what several clients and Mistral send.
    link = Fields({"url": given}, path) if isinstance(given, str) else fields.object(kind)
    if link is None:
        raise missing(path)
    url = link.needed_text("url")
    family: Any = "image" if kind == "image_url" else "video"
    cache = read_mark(fields.raw)
    detail = link.text("detail")
    if url[:5].lower() == "data:":
        mime, data = media_types.split_data_url(url, link.at("url"))
        return Media(family, data=data, mime=mime, detail=detail, cache=cache)
    if not url[:8].lower().startswith(("http://", "https://", "gs://")):
        raise wrong_type(link.at("url"), "an http or data: URL", url)
    return Media(family, url=url, detail=detail, cache=cache)


def _read_file(fields: Fields) -> Media:
    file = fields.object("file")
    if file is None:
        raise missing(fields.at("file"))
    name = file.text("filename")
    cache = read_mark(fields.raw)
    file_id = file.text("file_id")
    if file_id:
        return Media("document", file_id=file_id, name=name, origin=NAME, cache=cache)
    data = file.needed_text("file_data")
    if data[:5].lower() == "data:":
        mime, data = media_types.split_data_url(data, file.at("file_data"))
        return Media("document", data=data, mime=mime, name=name, cache=cache)
    if data[:8].lower().startswith(("http://", "https://")):
        return Media("document", url=data, name=name, cache=cache)
    mime = media_types.sniffed(data, "application/pdf" if name.lower().endswith(".pdf") else "")
    return Media("document", data=data, mime=mime, name=name, cache=cache)


def _read_listed_thinking(fields: Fields) -> Thinking:
    """Mistral: thinking stands in the content list."""
    return Thinking("".join(entry_parts(fields.raw)), seal=Seal(NAME, "details", '{"type":"thinking"}'))
