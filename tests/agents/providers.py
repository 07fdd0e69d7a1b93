"""The errand's model in the four protocols: how each says what is asked, and how each says the answer.

Owns reading and writing of the wire format, written against the protocol's description and not against the
product. What to answer is `errand.decide`'s; whether a request is valid is judged in `scripted.py`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from tests.agents.errand import THOUGHT, Ask, Call, Say, Tool, pieces
from tests.support.shared import Protocol as ProtocolName
from tests.support.upstream import Received, Reply

SEAL: Final = base64.b64encode(b"sealed by the scripted model, to be returned unchanged" * 2).decode()

Step = Call | Say


class Provider(Protocol):
    """One protocol, as its provider speaks it."""

    protocol: ProtocolName

    def read(self, request: Received) -> Ask | None:
        """What a generating request says; None for any other errand of a client."""

    def write(self, ask: Ask, step: Step) -> Reply:
        """The answer, as a stream when that was asked for."""

    def serve_other(self, request: Received) -> Reply:
        """Model lists, token counts and the like."""

    def unreturned(self, body: Any) -> str | None:
        """What is missing of the model's own thinking in the request that carries the tool's result."""

    def refuse(self, status: int, message: str) -> Reply:
        """An error in the protocol's shape."""


def _sse(frames: Iterable[bytes]) -> Reply:
    return Reply.sse(*frames)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _texts(content: Any) -> list[str]:
    """The texts of a content that is a string, or a list of parts that hold some."""
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        return []
    return [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]


def _tool(name: Any, schema: Any, namespace: str | None = None) -> Tool:
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    return Tool(str(name), properties if isinstance(properties, Mapping) else {}, namespace)


class ChatProvider:
    """OpenAI Chat Completions."""

    protocol: ProtocolName = "openai-chat"

    def read(self, request: Received) -> Ask | None:
        if request.method != "POST" or request.path != "/v1/chat/completions":
            return None
        body = request.json
        user_text, answered = "", False
        for message in body["messages"]:
            match message["role"]:
                case "user":
                    user_text += "\n".join(_texts(message["content"]))
                case "assistant":
                    answered = False
                case "tool":
                    answered = True
        return Ask(
            model=body["model"],
            stream=bool(body.get("stream")),
            user_text=user_text,
            tools=tuple(
                _tool(tool["function"]["name"], tool["function"].get("parameters"))
                for tool in body.get("tools", ())
                if tool["type"] == "function"
            ),
            answered=answered,
            thinks=body.get("reasoning_effort") not in (None, "none"),
            schema=_chat_schema(body.get("response_format")),
        )

    def write(self, ask: Ask, step: Step) -> Reply:
        head = {"id": "chatcmpl-scripted", "created": 1_700_000_000, "model": ask.model}
        usage = {"prompt_tokens": 4000, "completion_tokens": 20, "total_tokens": 4020}
        if not ask.stream:
            message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
            if isinstance(step, Say):
                message["content"] = step.text
            else:
                function = {"name": step.tool.name, "arguments": _json(step.arguments)}
                message["tool_calls"] = [{"id": "call_scripted_1", "type": "function", "function": function}]
            choice = {"index": 0, "message": message, "finish_reason": _chat_finish(step), "logprobs": None}
            return Reply.json(head | {"object": "chat.completion", "choices": [choice], "usage": usage})

        def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
            choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
            return head | {"object": "chat.completion.chunk", "choices": [choice]}

        chunks = [chunk({"role": "assistant", "content": "" if isinstance(step, Say) else None})]
        if isinstance(step, Say):
            chunks += [chunk({"content": piece}) for piece in pieces(step.text)]
        else:
            if ask.thinks:
                chunks += [chunk({"reasoning_content": piece}) for piece in pieces(THOUGHT)]
            opening = {"name": step.tool.name, "arguments": ""}
            call = {"index": 0, "id": "call_scripted_1", "type": "function", "function": opening}
            chunks.append(chunk({"tool_calls": [call]}))
            chunks += [
                chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
                for piece in pieces(_json(step.arguments))
            ]
        chunks.append(chunk({}, _chat_finish(step)))
        chunks.append(head | {"object": "chat.completion.chunk", "choices": [], "usage": usage})
        return _sse([*(f"data: {_json(part)}\n\n".encode() for part in chunks), b"data: [DONE]\n\n"])

    def serve_other(self, request: Received) -> Reply:
        return _openai_models(request, self)

    def unreturned(self, body: Any) -> str | None:
        return None  # no field of this protocol carries sealed thinking

    def refuse(self, status: int, message: str) -> Reply:
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
        return Reply.json({"error": error}, status)


def _chat_finish(step: Step) -> str:
    return "stop" if isinstance(step, Say) else "tool_calls"


def _chat_schema(wanted: Any) -> Mapping[str, Any] | None:
    match wanted:
        case {"type": "json_schema", "json_schema": {"schema": schema}}:
            return dict(schema)
        case {"type": "json_object"}:
            return {}
    return None


def _openai_models(request: Received, provider: Provider) -> Reply:
    if request.method == "GET" and request.path == "/v1/models":
        model = {"id": "m", "object": "model", "created": 1_700_000_000, "owned_by": "scripted"}
        return Reply.json({"object": "list", "data": [model]})
    if request.header("upgrade"):
        return provider.refuse(426, "this server speaks HTTP only")
    return provider.refuse(404, f"no such path: {request.method} {request.path}")


class ResponsesProvider:
    """OpenAI Responses."""

    protocol: ProtocolName = "openai-responses"

    def read(self, request: Received) -> Ask | None:
        if request.method != "POST" or request.path != "/v1/responses":
            return None
        body = request.json
        items = body["input"]
        if isinstance(items, str):
            items = [{"role": "user", "content": items}]
        user_text, answered = "", False
        for item in items:
            match item.get("type", "message"):
                case "message" if item["role"] == "user":
                    user_text += "\n".join(_texts(item["content"]))
                case "message" if item["role"] != "assistant":
                    pass
                case "function_call_output" | "custom_tool_call_output":
                    answered = True
                case _:
                    answered = False
        return Ask(
            model=body["model"],
            stream=bool(body.get("stream")),
            user_text=user_text,
            tools=tuple(_responses_tools(body.get("tools", ()))),
            answered=answered,
            thinks="reasoning.encrypted_content" in (body.get("include") or ()),
            schema=_responses_schema((body.get("text") or {}).get("format")),
        )

    def write(self, ask: Ask, step: Step) -> Reply:
        items: list[dict[str, Any]] = []
        if isinstance(step, Say):
            part = {"type": "output_text", "text": step.text, "annotations": [], "logprobs": []}
            items.append({"type": "message", "id": "msg_scripted", "role": "assistant", "content": [part]})
        else:
            if ask.thinks:
                summary = [{"type": "summary_text", "text": THOUGHT}]
                items.append({"type": "reasoning", "id": "rs_scripted", "summary": summary, "encrypted_content": SEAL})
            call = {"type": "function_call", "id": "fc_scripted", "call_id": "call_scripted_1"}
            call |= {"name": step.tool.name, "arguments": _json(step.arguments)}
            items.append(call if step.tool.namespace is None else call | {"namespace": step.tool.namespace})
        for item in items:
            if item["type"] != "reasoning":
                item["status"] = "completed"
        response = _response(ask.model, "completed", items)
        if not ask.stream:
            return Reply.json(response)
        events = [
            {"type": "response.created", "response": _response(ask.model, "in_progress", [])},
            {"type": "response.in_progress", "response": _response(ask.model, "in_progress", [])},
        ]
        for index, item in enumerate(items):
            events += _item_events(index, item)
        events.append({"type": "response.completed", "response": response})
        return _sse(
            f"event: {event['type']}\ndata: {_json(event | {'sequence_number': number})}\n\n".encode()
            for number, event in enumerate(events)
        )

    def serve_other(self, request: Received) -> Reply:
        if request.method == "POST" and request.path == "/v1/responses/input_tokens":
            return Reply.json({"object": "response.input_tokens", "input_tokens": 4000})
        return _openai_models(request, self)

    def unreturned(self, body: Any) -> str | None:
        kept = [item for item in body["input"] if item.get("type") == "reasoning"]
        if any(item.get("encrypted_content") == SEAL for item in kept):
            return None
        return f"the reasoning item with its encrypted_content did not come back (there are {len(kept)})"

    def refuse(self, status: int, message: str) -> Reply:
        return ChatProvider().refuse(status, message)


def _responses_tools(tools: Iterable[Any]) -> Iterable[Tool]:
    for tool in tools:
        if tool["type"] == "function":
            yield _tool(tool["name"], tool.get("parameters"))
        elif tool["type"] == "namespace":
            for inner in tool["tools"]:
                if inner["type"] == "function":
                    yield _tool(inner["name"], inner.get("parameters"), tool["name"])


def _responses_schema(wanted: Any) -> Mapping[str, Any] | None:
    match wanted:
        case {"type": "json_schema", "schema": schema}:
            return dict(schema)
        case {"type": "json_object"}:
            return {}
    return None


def _response(model: str, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
    done = status == "completed"
    usage = {
        "input_tokens": 4000,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 4020,
    }
    return {
        "id": "resp_scripted",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": status,
        "model": model,
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "temperature": None,
        "top_p": None,
        "usage": usage if done else None,
    }


def _item_events(index: int, item: dict[str, Any]) -> list[dict[str, Any]]:
    at = {"item_id": item["id"], "output_index": index}
    added = {"type": "response.output_item.added", "output_index": index}
    done = {"type": "response.output_item.done", "output_index": index, "item": item}
    match item["type"]:
        case "message":
            part = item["content"][0]
            spot = at | {"content_index": 0}
            return [
                added | {"item": item | {"content": [], "status": "in_progress"}},
                spot | {"type": "response.content_part.added", "part": part | {"text": ""}},
                *(
                    spot | {"type": "response.output_text.delta", "delta": piece, "logprobs": []}
                    for piece in pieces(part["text"])
                ),
                spot | {"type": "response.output_text.done", "text": part["text"], "logprobs": []},
                spot | {"type": "response.content_part.done", "part": part},
                done,
            ]
        case "reasoning":
            part = item["summary"][0]
            spot = at | {"summary_index": 0}
            return [
                added | {"item": {"type": "reasoning", "id": item["id"], "summary": []}},
                spot | {"type": "response.reasoning_summary_part.added", "part": part | {"text": ""}},
                *(
                    spot | {"type": "response.reasoning_summary_text.delta", "delta": piece}
                    for piece in pieces(part["text"])
                ),
                spot | {"type": "response.reasoning_summary_text.done", "text": part["text"]},
                spot | {"type": "response.reasoning_summary_part.done", "part": part},
                done,
            ]
        case _:
            arguments = item["arguments"]
            return [
                added | {"item": item | {"arguments": "", "status": "in_progress"}},
                *(
                    at | {"type": "response.function_call_arguments.delta", "delta": piece}
                    for piece in pieces(arguments)
                ),
                at | {"type": "response.function_call_arguments.done", "arguments": arguments} | {"name": item["name"]},
                done,
            ]


class MessagesProvider:
    """Anthropic Messages."""

    protocol: ProtocolName = "anthropic-messages"

    def read(self, request: Received) -> Ask | None:
        if request.method != "POST" or request.path != "/v1/messages":
            return None
        body = request.json
        user_text, answered = "", False
        for message in body["messages"]:
            match message["role"]:
                case "user":
                    user_text += "\n".join(_texts(message["content"]))
                    blocks = message["content"] if isinstance(message["content"], list) else []
                    answered = answered or any(block["type"] == "tool_result" for block in blocks)
                case "assistant":
                    answered = False
        thinking = (body.get("thinking") or {}).get("type")
        wanted = (body.get("output_config") or {}).get("format")
        return Ask(
            model=body["model"],
            stream=bool(body.get("stream")),
            user_text=user_text,
            tools=tuple(
                _tool(tool["name"], tool["input_schema"])
                for tool in body.get("tools", ())
                if "input_schema" in tool and not tool.get("defer_loading")
            ),
            answered=answered,
            thinks=thinking in ("enabled", "adaptive"),
            schema=wanted["schema"] if wanted else None,
        )

    def write(self, ask: Ask, step: Step) -> Reply:
        blocks: list[dict[str, Any]] = []
        if isinstance(step, Say):
            blocks.append({"type": "text", "text": step.text})
        else:
            if ask.thinks:
                blocks.append({"type": "thinking", "thinking": THOUGHT, "signature": SEAL})
            call = {"type": "tool_use", "id": "toolu_scripted_1", "name": step.tool.name}
            blocks.append(call | {"input": dict(step.arguments)})
        stop = "end_turn" if isinstance(step, Say) else "tool_use"
        usage = {
            "input_tokens": 4000,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 20,
        }
        message: dict[str, Any] = {
            "id": "msg_scripted",
            "type": "message",
            "role": "assistant",
            "model": ask.model,
        }
        message |= {"content": blocks, "stop_reason": stop, "stop_sequence": None, "usage": usage}
        if not ask.stream:
            return Reply.json(message)
        opening = message | {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
        events: list[dict[str, Any]] = [{"type": "message_start", "message": opening}, {"type": "ping"}]
        for index, block in enumerate(blocks):
            events += _block_events(index, block)
        ending = {"stop_reason": stop, "stop_sequence": None}
        events.append({"type": "message_delta", "delta": ending, "usage": {"output_tokens": 20}})
        events.append({"type": "message_stop"})
        return _sse(f"event: {event['type']}\ndata: {_json(event)}\n\n".encode() for event in events)

    def serve_other(self, request: Received) -> Reply:
        match request.method, request.path:
            case "POST", "/v1/messages/count_tokens":
                return Reply.json({"input_tokens": 4000})
            case "GET", "/v1/models":
                model = {"type": "model", "id": "m", "display_name": "M"}
                model |= {"created_at": "2026-01-01T00:00:00Z"}
                return Reply.json({"data": [model], "has_more": False, "first_id": "m", "last_id": "m"})
            case "HEAD", "/":
                return Reply()
        return self.refuse(404, f"no such path: {request.method} {request.path}")

    def unreturned(self, body: Any) -> str | None:
        for message in reversed(body["messages"]):
            blocks = message["content"] if isinstance(message["content"], list) else []
            if message["role"] != "assistant" or not any(b["type"] == "tool_use" for b in blocks):
                continue
            if blocks[0]["type"] == "thinking" and blocks[0].get("signature") == SEAL:
                return None
            kinds = ", ".join(block["type"] for block in blocks)
            return f"the turn with the tool call must begin with its signed thinking block, it holds {kinds}"
        return "the turn with the tool call did not come back"

    def refuse(self, status: int, message: str) -> Reply:
        kind = "invalid_request_error" if status == 400 else "not_found_error"
        error = {"type": kind, "message": message}
        return Reply.json({"type": "error", "error": error, "request_id": "req_scripted"}, status)


def _block_events(index: int, block: dict[str, Any]) -> list[dict[str, Any]]:
    start, deltas = block, list[dict[str, Any]]()
    match block["type"]:
        case "text":
            start = block | {"text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in pieces(block["text"])]
        case "thinking":
            start = block | {"thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        case "tool_use":
            start = block | {"input": {}}
            parts = ["", *pieces(_json(block["input"]))]
            deltas = [{"type": "input_json_delta", "partial_json": part} for part in parts]
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


class GeminiProvider:
    """Gemini generateContent."""

    protocol: ProtocolName = "gemini"

    def read(self, request: Received) -> Ask | None:
        model, _, method = request.path.removeprefix("/v1beta/models/").rpartition(":")
        if method not in ("generateContent", "streamGenerateContent"):
            return None
        body = request.json
        user_text, answered = "", False
        for content in body["contents"]:
            if content.get("role") == "model":
                answered = False
                continue
            user_text += "\n".join(_texts(content["parts"]))
            answered = answered or any("functionResponse" in part for part in content["parts"])
        config = body.get("generationConfig") or {}
        wanted = config.get("responseJsonSchema", config.get("responseSchema"))
        if wanted is None and config.get("responseMimeType") == "application/json":
            wanted = {}
        return Ask(
            model=model,
            stream=method == "streamGenerateContent",
            user_text=user_text,
            tools=tuple(
                _tool(function["name"], function.get("parametersJsonSchema", function.get("parameters")))
                for tool in body.get("tools", ())
                for function in tool.get("functionDeclarations", ())
            ),
            answered=answered,
            thinks=bool((config.get("thinkingConfig") or {}).get("includeThoughts")),
            schema=wanted,
        )

    def write(self, ask: Ask, step: Step) -> Reply:
        chunks: list[list[dict[str, Any]]] = []
        if isinstance(step, Say):
            chunks += [[{"text": piece}] for piece in pieces(step.text, 12)]
        else:
            if ask.thinks:
                chunks.append([{"text": THOUGHT, "thought": True}])
            call = {"name": step.tool.name, "args": dict(step.arguments)}
            chunks.append([{"functionCall": call, "thoughtSignature": SEAL}])
        if not ask.stream:
            return Reply.json(_gemini_answer(ask.model, [part for parts in chunks for part in parts], "STOP"))
        answers = [_gemini_answer(ask.model, parts, None) for parts in chunks]
        answers.append(_gemini_answer(ask.model, [{"text": ""}], "STOP"))
        return _sse(f"data: {_json(answer)}\r\n\r\n".encode() for answer in answers)

    def serve_other(self, request: Received) -> Reply:
        if request.method == "POST" and request.path.endswith(":countTokens"):
            return Reply.json({"totalTokens": 4000})
        if request.method == "GET" and request.path == "/v1beta/models":
            methods = ["generateContent", "countTokens"]
            model = {"name": "models/m", "displayName": "M", "supportedGenerationMethods": methods}
            return Reply.json({"models": [model]})
        return self.refuse(404, f"no such path: {request.method} {request.path}")

    def unreturned(self, body: Any) -> str | None:
        for content in reversed(body["contents"]):
            calls = [part for part in content["parts"] if "functionCall" in part]
            if not calls:
                continue
            if calls[0].get("thoughtSignature") == SEAL:
                return None
            return "Function call is missing a thought_signature"
        return "the turn with the function call did not come back"

    def refuse(self, status: int, message: str) -> Reply:
        name = "INVALID_ARGUMENT" if status == 400 else "NOT_FOUND"
        return Reply.json({"error": {"code": status, "message": message, "status": name}}, status)


def _gemini_answer(model: str, parts: list[dict[str, Any]], finish: str | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    usage = {"promptTokenCount": 4000, "candidatesTokenCount": 20, "totalTokenCount": 4020}
    return {
        "candidates": [candidate],
        "usageMetadata": usage,
        "modelVersion": model,
        "responseId": "scripted",
    }


PROVIDERS: Final[Mapping[ProtocolName, Provider]] = {
    "openai-chat": ChatProvider(),
    "openai-responses": ResponsesProvider(),
    "anthropic-messages": MessagesProvider(),
    "gemini": GeminiProvider(),
}
