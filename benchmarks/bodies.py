"""The requests that the load generator sends: a small one and one as a coding agent sends it, both made here
from a fixed seed.

Each body exists for OpenAI Chat and for Anthropic Messages with the same content.
"""

from __future__ import annotations

import json
import random
from functools import lru_cache
from typing import Any, Literal

Size = Literal["small", "agent"]
Shape = Literal["openai-chat", "anthropic-messages"]

SMALL_BYTES = 2_000
AGENT_BYTES = 100_000

_WORD_LIST = """
the a of to in is that for it with as on this are be or from not have value file line test code path name list
index request answer stream token model when each must never only first last open close read write return
import function class error result check number string object field type module config server client
"""
_WORDS = _WORD_LIST.split()
_CODE = (
    "def read_{0}(self, {1}: str) -> dict[str, int]:\n",
    '    """Reads {0} from "{1}"."""\n',
    "    with open(self.{0} / '{1}.json', encoding=\"utf-8\") as file:\n",
    '        return {{{0!r}: len({1}), "{0}": {1}[0]}}\n',
    '    if {0} is None or not {1}:\n\traise ValueError(f"{{{0}}} has no {1}\\n")\n',
    "\n",
)


def _prose(random_: random.Random, size: int) -> str:
    words: list[str] = []
    length = 0
    while length < size:
        word = random_.choice(_WORDS)
        words.append(word + (".\n" if random_.random() < 0.06 else ""))
        length += len(word) + 1
    return " ".join(words)[:size]


def _source(random_: random.Random, size: int) -> str:
    text = ""
    while len(text) < size:
        text += random_.choice(_CODE).format(random_.choice(_WORDS), random_.choice(_WORDS))
    return text[:size]


def _tool(random_: random.Random, number: int) -> dict[str, Any]:
    properties: dict[str, Any] = {
        f"{random_.choice(_WORDS)}_{index}": {"type": kind, "description": _prose(random_, 90)}
        for index, kind in enumerate(("string", "integer", "boolean", "string"))
    }
    properties["edits"] = {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "old": {"type": "string"},
                "new": {"type": "string"},
                "mode": {"enum": ["one", "all"]},
            },
            "required": ["old", "new"],
        },
    }
    return {
        "name": f"{random_.choice(_WORDS)}_tool_{number}",
        "description": _prose(random_, 420),
        "parameters": {"type": "object", "properties": properties, "required": list(properties)[:2]},
    }


def _turns(random_: random.Random, tools: list[dict[str, Any]], size: int) -> list[tuple[str, dict[str, Any], str]]:
    """Text, tool call and tool result of each turn of an agent, together about `size` bytes of JSON."""
    turns = []
    used = 0
    while used < size:
        arguments = {
            "path": f"src/{random_.choice(_WORDS)}.py",
            "old": _source(random_, 300),
            "new": _source(random_, 300),
        }
        turn = (
            _prose(random_, 200),
            {"name": random_.choice(tools)["name"], "arguments": arguments},
            _source(random_, 2200),
        )
        turns.append(turn)
        used += len(json.dumps(turn)) + 230
    return turns


def _openai_agent() -> dict[str, Any]:
    random_ = random.Random(7)
    tools = [_tool(random_, number) for number in range(20)]
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": _prose(random_, 14_000)},
        {"role": "user", "content": _prose(random_, 1_200)},
    ]
    used = len(json.dumps([tools, messages]))
    for number, (text, call, result) in enumerate(_turns(random_, tools, AGENT_BYTES - used - 2500)):
        function = {"name": call["name"], "arguments": json.dumps(call["arguments"])}
        identity = f"call_{number:024d}"
        messages.append(
            {
                "role": "assistant",
                "content": text,
                "tool_calls": [{"id": identity, "type": "function", "function": function}],
            }
        )
        messages.append({"role": "tool", "tool_call_id": identity, "content": result})
    messages.append({"role": "user", "content": _prose(random_, 300)})
    return {
        "messages": messages,
        "tools": [{"type": "function", "function": tool} for tool in tools],
        "tool_choice": "auto",
        "temperature": 0.2,
        "max_tokens": 4096,
    }


def _anthropic_agent() -> dict[str, Any]:
    """The same conversation in Anthropic's words."""
    chat = _openai_agent()
    messages: list[dict[str, Any]] = []
    for message in chat["messages"][1:]:
        if message["role"] == "assistant":
            call = message["tool_calls"][0]
            block = {
                "type": "tool_use",
                "id": call["id"],
                "name": call["function"]["name"],
                "input": json.loads(call["function"]["arguments"]),
            }
            content: list[dict[str, Any]] = [{"type": "text", "text": message["content"]}, block]
            messages.append({"role": "assistant", "content": content})
        elif message["role"] == "tool":
            result = {
                "type": "tool_result",
                "tool_use_id": message["tool_call_id"],
                "content": message["content"],
            }
            messages.append({"role": "user", "content": [result]})
        else:
            messages.append({"role": "user", "content": [{"type": "text", "text": message["content"]}]})
    tools = [
        {"name": one["name"], "description": one["description"], "input_schema": one["parameters"]}
        for one in (tool["function"] for tool in chat["tools"])
    ]
    system = [{"type": "text", "text": chat["messages"][0]["content"]}]
    return {"system": system, "messages": messages, "tools": tools, "max_tokens": 4096, "temperature": 0.2}


@lru_cache
def _content(shape: Shape, size: Size) -> dict[str, Any]:
    if size == "agent":
        return _openai_agent() if shape == "openai-chat" else _anthropic_agent()
    random_ = random.Random(3)
    messages: list[dict[str, Any]]
    system, question = _prose(random_, 600), _prose(random_, SMALL_BYTES - 600 - 190)
    if shape == "openai-chat":
        messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
        return {"messages": messages, "temperature": 0.5, "max_tokens": 1024}
    return {
        "system": system,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0.5,
        "max_tokens": 1024,
    }


@lru_cache
def request_body(shape: Shape, size: Size, model: str, stream: bool) -> bytes:
    """A request body; the model stands first, as most clients write it."""
    body = {"model": model, "stream": stream, **_content(shape, size)}
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
