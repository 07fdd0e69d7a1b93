"""What a request says, as a list of strings that every translation must still hold somewhere.

Texts, tool names and descriptions, schema property names, arguments, tool results, media data. Stop sequences (which the proxy
may enforce itself), ids, markers, sealed
reasoning and what only one protocol knows are left out: `translation.md` says what becomes of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from tests.support.shared import Protocol

_SEALED = {"thinking", "redacted_thinking", "reasoning"}


def said(protocol: Protocol, body: dict[str, Any]) -> list[str]:
    """The strings of `body` that must survive, without blanks at their ends, empty ones left out."""
    found = {
        "openai-chat": _chat,
        "openai-responses": _responses,
        "anthropic-messages": _messages,
        "gemini": _gemini,
    }[protocol](body)
    return [text.strip() for text in found if text and text.strip()]


def missing(wanted: Iterable[str], body: Any) -> list[str]:
    """Which of `wanted` no string of `body` holds; strings that are JSON are looked into."""
    haystack = "\n".join(_leaves(body))
    return [text for text in dict.fromkeys(wanted) if not _held(text, haystack)]


def _held(text: str, haystack: str) -> bool:
    """Is `text` there: as it is, as standard base64, or (JSON text that became an object) by its values?"""
    if text in haystack or text.replace("-", "+").replace("_", "/") in haystack:
        return True
    if text[:1] not in "{[":
        return False
    try:
        return all(leaf.strip() in haystack for leaf in _leaves(json.loads(text)))
    except ValueError:
        return False


def _leaves(value: Any) -> Iterator[str]:
    """Every string, key and number below `value`, arguments in JSON text included."""
    if isinstance(value, str):
        yield value
        if value[:1] in "{[":
            with suppress(ValueError):
                yield from _leaves(json.loads(value))
        if "base64," in value[:60]:
            yield value.split("base64,", 1)[1]
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    elif value is not None:
        yield json.dumps(value)


def _values(value: Any) -> Iterator[str]:
    """The strings among the values of arguments."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _values(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _values(inner)


def _arguments(text: Any) -> Iterator[str]:
    try:
        yield from _values(json.loads(text) if isinstance(text, str) else text)
    except ValueError:
        yield text


def _schema(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        properties = schema.get("properties")
        if isinstance(properties, dict):
            yield from properties


def _function(tool: dict[str, Any], schema: str) -> Iterator[str]:
    yield tool.get("name", "")
    yield tool.get("description") or ""
    yield from _schema(tool.get(schema))


def _parts(content: Any) -> Iterator[str]:
    """Texts and data of Chat or Responses content."""
    if isinstance(content, str):
        yield content
    for part in content if isinstance(content, list) else []:
        if not isinstance(part, dict):
            continue
        if part.get("type") in _SEALED or part.get("type") == "item_reference":
            continue
        yield part.get("text") or ""
        yield part.get("refusal") or ""
        image = part.get("image_url")
        url = image.get("url", "") if isinstance(image, dict) else image or ""
        yield url.split("base64,", 1)[-1]
        yield (part.get("input_audio") or {}).get("data", "")
        data = (part.get("file") or part).get("file_data") or ""
        yield data.split("base64,", 1)[-1]


def _chat(body: dict[str, Any]) -> Iterator[str]:
    for message in body.get("messages", []):
        yield from _parts(message.get("content"))
        for call in message.get("tool_calls") or []:
            function = call.get("function") or call.get("custom") or {}
            yield function.get("name", "")
            yield from _arguments(function.get("arguments") or function.get("input") or "{}")
    for tool in body.get("tools") or []:
        if tool.get("type", "function") == "function":
            yield from _function(tool.get("function") or {}, "parameters")


def _responses(body: dict[str, Any]) -> Iterator[str]:
    yield body.get("instructions") or ""
    items = body.get("input")
    if isinstance(items, str):
        yield items
    for item in items if isinstance(items, list) else []:
        match item.get("type", "message"):
            case "message":
                yield from _parts(item.get("content"))
            case "function_call":
                yield item["name"]
                yield from _arguments(item.get("arguments") or "{}")
            case "custom_tool_call":
                yield item["name"]
                yield item["input"]
            case "function_call_output" | "custom_tool_call_output":
                yield from _parts(item.get("output"))
            case _:
                pass
    for tool in body.get("tools") or []:
        if tool.get("type") == "function":
            yield from _function(tool, "parameters")
        elif tool.get("type") == "namespace":
            for inner in tool.get("tools", []):
                yield from _function(inner, "parameters")


def _messages(body: dict[str, Any]) -> Iterator[str]:
    yield from _blocks(body.get("system"))
    for message in body.get("messages", []):
        yield from _blocks(message.get("content"))
    for tool in body.get("tools") or []:
        if "input_schema" in tool:
            yield from _function(tool, "input_schema")


def _blocks(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    for block in content if isinstance(content, list) else []:
        match block.get("type"):
            case "text":
                yield block.get("text", "")
            case "image" | "document":
                source = block.get("source") or {}
                yield source.get("data") or source.get("url") or ""
            case "tool_use":
                yield block["name"]
                yield from _values(block.get("input"))
            case "tool_result":
                yield from _blocks(block.get("content"))
            case _:
                pass


def _gemini(body: dict[str, Any]) -> Iterator[str]:
    system = body.get("systemInstruction") or body.get("system_instruction") or {}
    contents = body.get("contents") or []
    contents = contents if isinstance(contents, list) else [contents]
    for content in [system, *contents]:
        parts = content.get("parts") or []
        for part in parts if isinstance(parts, list) else [parts]:
            if part.get("thought"):
                continue
            yield part.get("text") or ""
            inline = part.get("inlineData") or part.get("inline_data") or {}
            yield inline.get("data", "")
            call = part.get("functionCall") or part.get("function_call") or {}
            yield call.get("name", "")
            yield from _values(call.get("args"))
            response = part.get("functionResponse") or part.get("function_response") or {}
            yield response.get("name", "")
            yield from _values(response.get("response"))
    for tool in body.get("tools") or []:
        for declaration in tool.get("functionDeclarations") or tool.get("function_declarations") or []:
            schema = "parametersJsonSchema" if "parametersJsonSchema" in declaration else "parameters"
            yield from _function(declaration, schema)
