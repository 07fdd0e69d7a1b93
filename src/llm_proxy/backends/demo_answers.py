"""What each model of the demo back end answers: a pure function of the request (BE-20).

Owns the scenarios and the sample values that fit a schema. Knows no bytes of an answer, no ids and no time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

MODELS = (
    "echo", "think", "tools", "parallel", "json", "loop", "tool-loop", "text-tool-call", "bad-json", "empty",
    "slow", "error-429", "error-500", "cut", "stall", "malformed", "reset",
)  # fmt: skip

_LOOP_SENTENCE = "The quick brown fox jumps over the lazy dog near the river. "
_SLOW_WORDS = (
    "These twenty words arrive one after the other, a tenth of a second apart, so that streaming can be watched."
)
_DEEPEST = 12
_MOST_VALUES = 2000
_LONGEST_RESULT = 200


class Call(msgspec.Struct, frozen=True):
    """A tool call of the demo: `arguments` is JSON text."""

    name: str
    arguments: str


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """One answer before it becomes bytes.

    `pause`: seconds between words. `fault`: how the answer breaks: after three deltas (`cut`, `stall`,
    `malformed`) or before its headers (`reset`). `status`: an error status instead of an answer.
    """

    reasoning: str = ""
    text: str = ""
    calls: tuple[Call, ...] = ()
    pause: float = 0.0
    fault: str = ""
    status: int = 200


def answer(model: str, request: Mapping[str, Any]) -> Script:
    """The script for a Chat Completions request. An unknown model acts as `echo`."""
    if model.startswith("error-"):
        return Script(status=_error_status(model))
    text = last_user_text(request)
    tools = _offered(request)
    result = _tool_result(request)
    match model:
        case "loop":
            return Script(text=_LOOP_SENTENCE * 100)
        case "empty":
            return Script()
        case "slow":
            return Script(text=_SLOW_WORDS, pause=0.1)
        case "cut" | "stall" | "malformed" | "reset":
            return Script(text=f"Echo: {text} and more words that never arrive", fault=model)
        case "json":
            return Script(text=_structured(request, text))
        case "bad-json":
            return Script(text=f"```json\n{_structured(request, text)[:-1]}\n```")
        case "tool-loop" if tools:
            return Script(calls=(_call(tools[0]),))
    if result is not None:
        return Script(text=f"Result: {result[:_LONGEST_RESULT]}")
    match model:
        case "tools" if tools:
            return Script(calls=(_call(tools[0]),))
        case "parallel" if tools:
            return Script(calls=(_call(tools[0]), _call(tools[1 % len(tools)])))
        case "text-tool-call" if tools:
            call = _call(tools[0])
            name = msgspec.json.encode(call.name).decode()
            return Script(text=f'<tool_call>\n{{"name": {name}, "arguments": {call.arguments}}}\n</tool_call>')
        case "think":
            return Script(reasoning=f"The user wrote {len(text)} characters. I repeat them.", text=f"Echo: {text}")
    wanted = _wanted_tool(request, tools, text)
    return Script(calls=(_call(wanted),)) if wanted is not None else Script(text=f"Echo: {text}")


def last_user_text(request: Mapping[str, Any]) -> str:
    """The text of the last user message; of several text parts, all of them on lines of their own."""
    for message in reversed(_messages(request)):
        if message.get("role") == "user":
            return _text(message.get("content"))
    return ""


def prompt_text(request: Mapping[str, Any]) -> str:
    """The prompt of a legacy completion."""
    prompt = request.get("prompt")
    if isinstance(prompt, list):
        prompt = next((item for item in prompt if isinstance(item, str)), "")
    return prompt if isinstance(prompt, str) else ""


def _messages(request: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    messages = request.get("messages")
    return [message for message in messages if isinstance(message, dict)] if isinstance(messages, list) else []


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [part.get("text") for part in content if isinstance(part, dict)]
    return "\n".join(text for text in texts if isinstance(text, str))


def _tool_result(request: Mapping[str, Any]) -> str | None:
    """The last tool result, if nothing the user typed came after it."""
    for message in reversed(_messages(request)):
        match message.get("role"):
            case "tool" | "function":
                return _text(message.get("content"))
            case "user":
                if _text(message.get("content")):
                    return None
    return None


def _error_status(model: str) -> int:
    digits = model.removeprefix("error-")
    return int(digits) if re.fullmatch("[45][0-9][0-9]", digits) else 500


# ---- tools


class _Tool(msgspec.Struct, frozen=True):
    name: str
    parameters: Mapping[str, Any]


def _offered(request: Mapping[str, Any]) -> list[_Tool]:
    """The function tools that may be called; the one that is forced stands first."""
    choice = request.get("tool_choice")
    tools = request.get("tools")
    if choice == "none" or not isinstance(tools, list):
        return []
    found: list[_Tool] = []
    for tool in tools:
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            parameters = function.get("parameters")
            found.append(_Tool(function["name"], parameters if isinstance(parameters, dict) else {}))
    forced = _forced_name(choice)
    return sorted(found, key=lambda tool: tool.name != forced) if forced else found


def _forced_name(choice: object) -> str:
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else ""


def _wanted_tool(request: Mapping[str, Any], tools: Sequence[_Tool], text: str) -> _Tool | None:
    """The tool that the request forces, or that the user's text asks for by `call <tool>`."""
    if not tools:
        return None
    choice = request.get("tool_choice")
    if choice == "required" or _forced_name(choice):
        return tools[0]
    asked = [tool for tool in tools if re.search(rf"\bcall {re.escape(tool.name)}(?![\w-])", text)]
    return max(asked, key=lambda tool: len(tool.name), default=None)


def _call(tool: _Tool) -> Call:
    arguments = sample(tool.parameters) if tool.parameters else {}
    return Call(tool.name, _encode(arguments if isinstance(arguments, dict) else {}))


def _encode(value: object) -> str:
    return msgspec.json.encode(value).decode()


# ---- values that fit a schema


def _structured(request: Mapping[str, Any], text: str) -> str:
    """JSON that fits the requested schema; without one an object that holds the echo."""
    wanted = request.get("response_format")
    inner = wanted.get("json_schema") if isinstance(wanted, dict) else None
    schema = inner.get("schema") if isinstance(inner, dict) else None
    return _encode(sample(schema) if isinstance(schema, dict) else {"echo": text})


def sample(schema: Mapping[str, Any]) -> Any:
    """A value that fits a JSON Schema: defaults, the first enum value, `"text"`, 1, true.

    Of an object the required members only, if it names them.
    """
    return _Sampler(schema).value(schema, 0)


class _Sampler:
    """Makes one sample. A schema that refers to itself ends at a depth and at a number of values."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._left = _MOST_VALUES

    def value(self, schema: object, depth: int) -> Any:
        self._left -= 1
        if not isinstance(schema, dict) or depth > _DEEPEST or self._left < 0:
            return "text"
        for key in ("default", "const"):
            if key in schema:
                return schema[key]
        if isinstance(schema.get("enum"), list) and schema["enum"]:
            return schema["enum"][0]
        if isinstance(schema.get("$ref"), str):
            return self.value(_resolve(schema["$ref"], self._root), depth + 1)
        for key in ("anyOf", "oneOf"):
            options = schema.get(key)
            if isinstance(options, list) and options:
                return self.value(options[0], depth + 1)
        if isinstance(schema.get("allOf"), list):
            parts = [self.value(part, depth + 1) for part in schema["allOf"]]
            return {name: value for part in parts if isinstance(part, dict) for name, value in part.items()}
        return self._of_type(schema, depth)

    def _of_type(self, schema: Mapping[str, Any], depth: int) -> Any:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = next((name for name in kind if name != "null"), "null")
        if kind is None and "properties" in schema:
            kind = "object"
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                count = schema.get("minItems", 1)
                count = count if isinstance(count, int) and 1 <= count <= 100 else 1
                return [self.value(schema.get("items", {}), depth + 1) for _ in range(count)]
            case "integer" | "number":
                return _within(schema)
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return _text_of_length(schema)

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        required = schema.get("required")
        names = required if isinstance(required, list) else list(properties)
        return {name: self.value(properties.get(name, {}), depth + 1) for name in names if isinstance(name, str)}


def _text_of_length(schema: Mapping[str, Any]) -> str:
    shortest, longest = schema.get("minLength"), schema.get("maxLength")
    text = "text"
    if isinstance(shortest, int) and shortest > len(text):
        text *= 1 + min(shortest, 1000) // len(text)
    return text[:longest] if isinstance(longest, int) and longest >= 0 else text


def _within(schema: Mapping[str, Any]) -> Any:
    low, high = schema.get("minimum"), schema.get("maximum")
    if isinstance(low, int | float) and low > 1:
        return low
    return high if isinstance(high, int | float) and high < 1 else 1


def _resolve(reference: str, root: Mapping[str, Any]) -> object:
    if not reference.startswith("#"):
        return {}
    found: Any = root
    for step in reference.lstrip("#/").split("/") if reference != "#" else ():
        step = step.replace("~1", "/").replace("~0", "~")
        found = found.get(step) if isinstance(found, dict) else None
    return found
