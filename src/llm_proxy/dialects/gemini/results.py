"""Tool results between their canonical form (text and media) and the JSON object that Gemini wants."""

from __future__ import annotations

from typing import Any

from llm_proxy.conversation.parts import Media, Part, Text, ToolResult, text_of
from llm_proxy.dialects.gemini.wire import Object
from llm_proxy.wire import json as wire_json

# An object with one of these as its only member is a wrapper; clients use all three.
_WRAPPERS = ("result", "output", "content")


def read_result(call_id: str, name: str, response: Object, media: tuple[Part, ...]) -> ToolResult:
    """`value` keeps the object itself unless writing the parts would give the very same again."""
    text, is_error = unwrapped(response)
    parts: tuple[Part, ...] = (*((Text(text),) if text else ()), *media)
    value = None if written(text, is_error) == response else response
    return ToolResult(call_id, parts, is_error=is_error, name=name, value=value)


def unwrapped(response: Object) -> tuple[str, bool]:
    """(text, is it an error) that a response object means."""
    if len(response) == 1:
        key, value = next(iter(response.items()))
        if key in _WRAPPERS:
            return _plain(value), False
        if key == "error":
            return _plain(value), True
    return (_plain(response) if response else ""), False


def response_of(result: ToolResult) -> Object:
    """The response object of a result. The kept object counts only while the text still says what it says."""
    text = text_of(tuple(part for part in result.parts if isinstance(part, Text)), "\n")
    if result.value is not None:
        if unwrapped(result.value) == (text, result.is_error):
            return result.value
        if len(result.value) == 1 and (key := next(iter(result.value))) in _WRAPPERS and not result.is_error:
            return {key: text}
    return written(text, result.is_error)


def written(text: str, is_error: bool) -> Object:
    """Text of a JSON object is that object; other JSON and text become `result`, an error becomes `error`."""
    if is_error:
        return {"error": text}
    stripped = text.strip()
    if stripped[:1] == "{" and (parsed := wire_json.parse_arguments(stripped)) is not None:
        return parsed
    if stripped[:1] == "[":
        # Only objects can be read directly; a list is read as a member of one.
        wrapped = wire_json.parse_arguments('{"result":' + stripped + "}")
        if wrapped is not None and wrapped.keys() == {"result"}:
            return wrapped
    return {"result": text}


def media_of(result: ToolResult) -> tuple[Media, ...]:
    return tuple(part for part in result.parts if isinstance(part, Media))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else wire_json.encode(value).decode()
