"""A conversation in each client protocol: how a client writes what was said, what it keeps of an answer, and what a provider read.

Owns both directions in a neutral form (the one of the corpus of commands). Knows nothing of commands.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from tests.commands.corpus.cases import Piece, Said
from tests.e2e.asking import Called, data_of
from tests.server.process import Answer
from tests.support.shared import Protocol
from tests.support.upstream import Received, Reply, Send

Message = dict[str, Any]
Seen = tuple[str, str]
"""What a provider read: (user | assistant | call | result | system, the text)."""

LIST_OF: Final[dict[Protocol, str]] = {
    "openai-chat": "messages",
    "openai-responses": "input",
    "anthropic-messages": "messages",
    "gemini": "contents",
}
"""The member that holds the conversation."""

_HEADERS: Final = {
    "cline": {"user-agent": "Cline/3.0"},
    "roo": {"user-agent": "RooCode/3.0"},
    "kilo": {"user-agent": "Kilo-Code/7.0"},
    "claude-code": {"user-agent": "claude-cli/2.1 (external, cli)"},
    "codex": {"user-agent": "codex_exec/0.1"},
    "gemini-cli": {"user-agent": "GeminiCLI-tui/0.6"},
    "qwen-code": {"user-agent": "QwenCode/0.2"},
    "opencode": {"user-agent": "opencode/1.0"},
    "copilot": {"user-agent": "GitHubCopilotChat/1.0"},
    "cursor": {"x-cursor-client-version": "2.0"},
    "zed": {"user-agent": "Zed/1.0"},
}
_OPENINGS: Final = {
    "aider": "Act as an expert software developer.\nReply with a *SEARCH/REPLACE* block.",
    "pi": "You are an expert coding assistant operating inside pi, a harness.",
    "grok": "You are Grok CLI.",
    "continue": "You are an agent in the Continue CLI.",
    "gptme": "You are gptme v1.",
    "mini-swe-agent": "You are a helpful assistant that can interact with a computer.",
}


def evidence_of(agent: str) -> tuple[dict[str, str], str]:
    """By what this agent is known: headers, and the beginning of its system prompt."""
    return _HEADERS.get(agent, {}), _OPENINGS.get(agent, "")


def can_say(protocol: Protocol, said: Sequence[Said]) -> bool:
    """Gemini has no system messages between turns."""
    return protocol != "gemini" or not any(one.role in ("system", "developer") for one in said[1:])


def request_of(protocol: Protocol, model: str, said: Sequence[Said], stream: bool = False) -> dict[str, Any]:
    """The whole request of a client; where the protocol has a place of its own for a leading system text, it stands there."""
    body: dict[str, Any] = {} if protocol == "gemini" else {"model": model}
    if said and said[0].role in ("system", "developer") and protocol in ("anthropic-messages", "gemini"):
        system = said[0].pieces[0].text
        said = said[1:]
        body |= {"system": system} if protocol == "anthropic-messages" else {"systemInstruction": _parts([system])}
    body[LIST_OF[protocol]] = [message for one in said for message in written(protocol, one)]
    if protocol == "anthropic-messages":
        body["max_tokens"] = 4000
    if stream and protocol != "gemini":
        body["stream"] = True
    return body


def _parts(texts: Sequence[str]) -> dict[str, Any]:
    return {"parts": [{"text": text} for text in texts]}


def written(protocol: Protocol, said: Said) -> list[Message]:
    """One message of the neutral form; results of tools are messages of their own where the protocol wants it."""
    match protocol:
        case "openai-chat":
            return list(_chat(said))
        case "openai-responses":
            return list(_responses(said))
        case "anthropic-messages":
            role = "system" if said.role == "developer" else said.role
            return [{"role": role, "content": _content(said, [_block(piece) for piece in said.pieces])}]
        case "gemini":
            who = "model" if said.role == "assistant" else "user"
            return [{"role": who, "parts": [_gemini_part(piece) for piece in said.pieces]}]


def _content(said: Said, parts: list[Any]) -> Any:
    match said.pieces:
        case [Piece(kind="text", text=text)]:
            return text
        case _:
            return parts


def _data_url(piece: Piece) -> str:
    return f"data:{'image/png' if piece.kind == 'image' else 'text/plain'};base64,{piece.text}"


def _chat(said: Said) -> Iterator[Message]:
    calls = []
    rest = []
    for piece in said.pieces:
        match piece.kind:
            case "tool_result":
                yield {"role": "tool", "tool_call_id": piece.id, "content": piece.text}
            case "tool_call":
                calls.append(
                    {"id": piece.id, "type": "function", "function": {"name": piece.name, "arguments": piece.text}}
                )
            case _:
                rest.append(piece)
    if calls:
        yield {"role": "assistant", "content": None, "tool_calls": calls}
    elif rest:
        kept = Said(said.role, tuple(rest))
        yield {"role": said.role, "content": _content(kept, [_chat_part(piece) for piece in rest])}


def _chat_part(piece: Piece) -> Message:
    match piece.kind:
        case "image":
            return {"type": "image_url", "image_url": {"url": _data_url(piece)}}
        case "file":
            return {"type": "file", "file": {"filename": piece.name, "file_data": _data_url(piece)}}
        case _:
            return {"type": "text", "text": piece.text}


def _responses(said: Said) -> Iterator[Message]:
    rest = []
    for piece in said.pieces:
        match piece.kind:
            case "tool_result":
                yield {"type": "function_call_output", "call_id": piece.id, "output": piece.text}
            case "tool_call":
                yield {"type": "function_call", "call_id": piece.id, "name": piece.name, "arguments": piece.text}
            case _:
                rest.append(piece)
    if rest:
        kind = "output_text" if said.role == "assistant" else "input_text"
        parts = [_item_part(piece, kind) for piece in rest]
        content = parts if said.role == "assistant" else _content(Said(said.role, tuple(rest)), parts)
        yield {"type": "message", "role": said.role, "content": content}


def _item_part(piece: Piece, kind: str) -> Message:
    match piece.kind:
        case "image":
            return {"type": "input_image", "image_url": _data_url(piece)}
        case "file":
            return {"type": "input_file", "filename": piece.name, "file_data": _data_url(piece)}
        case _:
            return {"type": kind, "text": piece.text}


def _block(piece: Piece) -> Message:
    match piece.kind:
        case "tool_result":
            return {"type": "tool_result", "tool_use_id": piece.id, "content": piece.text}
        case "tool_call":
            return {"type": "tool_use", "id": piece.id, "name": piece.name, "input": json.loads(piece.text)}
        case "image":
            return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": piece.text}}
        case "file":
            source = {"type": "base64", "media_type": "application/pdf", "data": piece.text}
            return {"type": "document", "title": piece.name, "source": source}
        case "text":
            return {"type": "text", "text": piece.text}


def _gemini_part(piece: Piece) -> Message:
    match piece.kind:
        case "tool_result":
            return {"functionResponse": {"name": piece.name or "f", "response": {"output": piece.text}}}
        case "tool_call":
            return {"functionCall": {"name": piece.name, "args": json.loads(piece.text)}}
        case "image" | "file":
            mime = "image/png" if piece.kind == "image" else "text/plain"
            return {"inlineData": {"mimeType": mime, "data": piece.text}}
        case "text":
            return {"text": piece.text}


# What a client keeps of an answer.


def kept(protocol: Protocol, answer: Answer, stream: bool) -> list[Message]:
    """The messages that a client adds to its history for this answer, in the protocol's own form."""
    match protocol:
        case "openai-chat":
            return [_chat_streamed(answer) if stream else answer.json["choices"][0]["message"]]
        case "openai-responses":
            response = data_of(answer)[-1]["response"] if stream else answer.json
            return list(response["output"])
        case "anthropic-messages":
            return [{"role": "assistant", "content": _messages_streamed(answer) if stream else answer.json["content"]}]
        case "gemini":
            chunks = data_of(answer) if stream else [answer.json]
            parts = [part for chunk in chunks for part in chunk["candidates"][0]["content"]["parts"]]
            texts = "".join(part.get("text", "") for part in parts)
            calls = [part for part in parts if "functionCall" in part]
            return [{"role": "model", "parts": [*([{"text": texts}] if texts else []), *calls]}]


def _chat_streamed(answer: Answer) -> Message:
    text: list[str] = []
    calls: dict[int, Message] = {}
    for chunk in data_of(answer):
        if chunk == "[DONE]" or not chunk["choices"]:
            continue
        delta = chunk["choices"][0]["delta"]
        text.append(delta.get("content") or "")
        for piece in delta.get("tool_calls") or []:
            call = calls.setdefault(piece["index"], {"type": "function", "function": {"name": "", "arguments": ""}})
            call["id"] = piece.get("id") or call["id"]
            for name in ("name", "arguments"):
                call["function"][name] += piece["function"].get(name) or ""
    message: Message = {"role": "assistant", "content": "".join(text) or None}
    return {**message, "tool_calls": [calls[n] for n in sorted(calls)]} if calls else message


def _messages_streamed(answer: Answer) -> list[Message]:
    blocks: dict[int, Message] = {}
    arguments: dict[int, str] = {}
    for event in data_of(answer):
        match event["type"]:
            case "content_block_start":
                blocks[event["index"]] = event["content_block"]
            case "content_block_delta" if "text" in event["delta"]:
                blocks[event["index"]]["text"] += event["delta"]["text"]
            case "content_block_delta":
                n = event["index"]
                arguments[n] = arguments.get(n, "") + event["delta"]["partial_json"]
    for n, written_out in arguments.items():
        blocks[n]["input"] = json.loads(written_out)
    return [blocks[n] for n in sorted(blocks)]


def calls_in(protocol: Protocol, messages: Sequence[Message]) -> list[Called]:
    """The tool calls of an assistant's messages; without an id where the protocol gave none."""
    found = []
    for message in messages:
        match protocol:
            case "openai-chat":
                for call in message.get("tool_calls") or []:
                    inner = call["function"]
                    found.append(Called(call["id"], inner["name"], json.loads(inner["arguments"])))
            case "openai-responses":
                if message["type"] == "function_call":
                    found.append(Called(message["call_id"], message["name"], json.loads(message["arguments"])))
            case "anthropic-messages":
                found += [Called(b["id"], b["name"], b["input"]) for b in message["content"] if b["type"] == "tool_use"]
            case "gemini":
                made = [part["functionCall"] for part in message["parts"] if "functionCall" in part]
                found += [Called(call.get("id", ""), call["name"], call["args"]) for call in made]
    return found


# What a provider says and read.


def told_apart(script: Callable[[Received], Reply]) -> Callable[[Received], Reply]:
    """The answers of `script` with ids of their own, as every provider gives them."""

    def answer(request: Received) -> Reply:
        def own(data: bytes) -> bytes:
            for name, id in ((b"responseId", b"r"), (b"id", b"resp_1"), (b"id", b"msg_1"), (b"item_id", b"msg_1")):
                for colon in (b": ", b":"):
                    data = data.replace(b'"%s"%s"%s"' % (name, colon, id), b'"%s":"%s%d"' % (name, id, request.number))
            return data

        reply = script(request)
        steps = [Send(own(step.data)) if isinstance(step, Send) else step for step in reply.steps or ()]
        return replace(reply, body=own(reply.body), steps=None if reply.steps is None else steps)

    return answer


def elements(protocol: Protocol, request: Received) -> list[bytes]:
    """The messages of the conversation as they stood in the body, byte for byte."""
    members = msgspec.json.decode(request.body, type=dict[str, msgspec.Raw])
    raw = members[LIST_OF[protocol]]
    return [bytes(one) for one in msgspec.json.decode(raw, type=list[msgspec.Raw])]


def seen(protocol: Protocol, request: Received) -> list[Seen]:
    """All that a provider read of the conversation, in order. Empty texts count as nothing."""
    value = request.json[LIST_OF[protocol]]
    messages = [{"role": "user", "content": value}] if isinstance(value, str) else value
    found = [one for message in messages for one in _seen_in(protocol, message)]
    return [one for one in found if one[1]]


def _seen_in(protocol: Protocol, message: Message) -> Iterator[Seen]:
    kind = message.get("type", "message")
    named = str(message.get("role", "user"))
    role = {"model": "assistant", "developer": "system"}.get(named, named)
    if kind == "function_call":
        yield "call", _spelled(message["name"], message["arguments"])
    elif kind == "function_call_output":
        yield "result", _flat(message["output"])
    elif role == "tool":
        yield "result", _flat(message["content"])
    else:
        content = message["parts"] if protocol == "gemini" else message.get("content")
        if isinstance(content, str):
            yield role, content
        for part in content if isinstance(content, list) else []:
            yield from _seen_part(role, part)
        for call in message.get("tool_calls") or []:
            yield "call", _spelled(call["function"]["name"], call["function"]["arguments"])


def _seen_part(role: str, part: Message) -> Iterator[Seen]:
    if "functionCall" in part:
        yield "call", _spelled(part["functionCall"]["name"], part["functionCall"].get("args", {}))
    elif "functionResponse" in part:
        yield "result", _flat(part["functionResponse"]["response"])
    elif part.get("type") == "tool_use":
        yield "call", _spelled(part["name"], part["input"])
    elif part.get("type") == "tool_result":
        yield "result", _flat(part["content"])
    elif isinstance(part.get("text"), str):
        yield role, part["text"]
    else:
        yield role, f"<{part.get('type', 'data')}>"


def _spelled(name: str, arguments: Any) -> str:
    value = json.loads(arguments) if isinstance(arguments, str) else arguments
    return f"{name} {json.dumps(value, sort_keys=True)}"


def _flat(content: Any) -> str:
    match content:
        case str():
            # A result of Gemini's is an object; others get it as JSON.
            return str(json.loads(content)["output"]) if content.startswith('{"output":') else content
        case dict():
            return str(content.get("output", content.get("result", content)))
        case _:
            return "".join(part.get("text", "") for part in content)
