"""A client's Messages request to the canonical `Request`.

Liberal in what blocks may be, strict in types: a wrong one is a FaultError that names the field. Knows
nothing of targets.
"""

from __future__ import annotations

from typing import Any, Literal

from llm_proxy.conversation.fault import FaultError, bad_request
from llm_proxy.conversation.parts import Media, Opaque, Part, Text, Thinking, ToolCall, ToolResult
from llm_proxy.conversation.request import (
    FunctionTool,
    Message,
    Reasoning,
    Request,
    ResponseFormat,
    Sampling,
    ServerTool,
    Tool,
    ToolChoice,
)  # fmt: skip
from llm_proxy.dialects.anthropic_messages import wire
from llm_proxy.dialects.base import Head
from llm_proxy.dialects.efforts import check_effort, read_effort
from llm_proxy.wire import json
from llm_proxy.wire.faults import WireFault

_KINDS: dict[type, str] = {
    dict: "object", list: "list", str: "string", bool: "boolean", int: "number", float: "number",
    type(None): "null",
}  # fmt: skip
_WANTED: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
}

# What a typed tool does, by the beginning of its type.
_CAPABILITIES: tuple[tuple[str, str], ...] = (
    ("web_search", "web_search"),
    ("web_fetch", "url_context"),
    ("code_execution", "code_execution"),
    ("bash_", "shell"),
    ("computer", "computer"),
    ("mcp_toolset", "mcp"),
)


def _wrong(path: str, wanted: str, value: Any) -> FaultError:
    return bad_request(f"{path}: expected {wanted}, got {_KINDS.get(type(value), type(value).__name__)}", path)


def _need(value: Any, kind: type, path: str) -> Any:
    if type(value) is not kind:
        raise _wrong(path, _WANTED[kind], value)
    return value


def _optional(fields: dict[str, Any], name: str, kind: type) -> Any:
    """Takes `name` out of `fields`; null counts as absent."""
    value = fields.pop(name, None)
    return None if value is None else _need(value, kind, name)


def _number(fields: dict[str, Any], name: str) -> float | None:
    value = fields.pop(name, None)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(name, "a number", value)
    return value


def decode(body: json.Body) -> dict[str, Any]:
    try:
        return json.decode_object(body)
    except WireFault as fault:
        raise bad_request(str(fault)) from None


def read_head(body: json.Body) -> Head:
    members = decode(body)
    model, stream, metadata = members.get("model"), members.get("stream"), members.get("metadata")
    if model is not None and not isinstance(model, str):
        raise _wrong("model", "a string", model)
    if stream is not None and not isinstance(stream, bool):
        raise _wrong("stream", "a boolean", stream)
    # A body that goes on byte for byte is not decoded further, so what every request needs is looked for here (FE-04).
    if "max_tokens" not in members:
        raise bad_request("max_tokens: Field required", "max_tokens")
    if not isinstance(members.get("messages"), list):
        raise _wrong("messages", "a list", members.get("messages"))
    check_effort(wire.object_in(members.get("output_config")).get("effort"), "output_config.effort")
    user = wire.text_in(wire.object_in(metadata).get("user_id"))
    return Head(model=model or "", stream=bool(stream), size=len(body), include_usage=True, user=user)


def read_request(body: json.Body) -> Request:
    fields = decode(body)
    model = _optional(fields, "model", str)
    limit = _optional(fields, "max_tokens", int)
    if limit is None:
        raise bad_request("max_tokens: Field required", "max_tokens")
    if limit is not None and limit < 0:
        raise bad_request("max_tokens: must not be negative", "max_tokens")
    if "messages" not in fields:
        raise bad_request("messages: Field required", "messages")
    messages = _read_system(fields.pop("system", None)) + _read_messages(fields.pop("messages"))
    choice, parallel = _read_choice(_optional(fields, "tool_choice", dict))
    reasoning, format_ = _read_thinking_and_output(fields)
    metadata = dict(_optional(fields, "metadata", dict) or {})
    user = metadata.pop("user_id", None)
    return Request(
        dialect=wire.NAME,
        model=model or "",
        messages=messages,
        tools=_read_tools(_optional(fields, "tools", list) or []),
        tool_choice=choice,
        parallel_tool_calls=parallel,
        sampling=Sampling(
            temperature=_number(fields, "temperature"),
            top_p=_number(fields, "top_p"),
            top_k=_optional(fields, "top_k", int),
        ),
        max_output_tokens=limit,
        stop=_read_stops(_optional(fields, "stop_sequences", list)),
        format=format_,
        reasoning=reasoning,
        tier=_optional(fields, "service_tier", str) or "",
        user=wire.text_in(user),
        metadata=metadata or None,
        stream=_optional(fields, "stream", bool) or False,
        include_usage=True,
        rest=fields,
    )


def _read_stops(values: list[Any] | None) -> tuple[str, ...]:
    return tuple(_need(value, str, f"stop_sequences[{index}]") for index, value in enumerate(values or ()))


# ---- messages


def _read_system(system: Any) -> tuple[Message, ...]:
    if system is None:
        return ()
    if isinstance(system, str):
        return (Message("system", (Text(system),)),)
    blocks = _need(system, list, "system")
    return (Message("system", _read_blocks(blocks, "system")),) if blocks else ()


def _read_messages(messages: Any) -> tuple[Message, ...]:
    found = []
    for index, message in enumerate(_need(messages, list, "messages")):
        path = f"messages[{index}]"
        _need(message, dict, path)
        role = message.get("role")
        if role not in ("user", "assistant", "system"):
            raise bad_request(f"{path}.role: expected user or assistant, got {role!r:.40}", f"{path}.role")
        content = message.get("content")
        if isinstance(content, str):
            parts: tuple[Part, ...] = (Text(content),)
        elif isinstance(content, list):
            parts = _read_blocks(content, f"{path}.content")
        else:
            raise _wrong(f"{path}.content", "a string or a list of blocks", content)
        found.append(Message(role, parts, inline=role == "system"))
    return tuple(found)


def _read_blocks(blocks: list[Any], path: str) -> tuple[Part, ...]:
    return tuple(read_block(block, f"{path}[{index}]") for index, block in enumerate(blocks))


def read_block(block: Any, path: str) -> Part:
    """One content block of a request. What other protocols have no part for becomes Opaque."""
    if isinstance(block, str):
        return Text(block)
    _need(block, dict, path)
    cache = wire.read_cache(block)
    kind = block.get("type")
    match kind:
        case "text":
            text = _need(block.get("text"), str, f"{path}.text")
            return Text(text, wire.read_citations(block.get("citations")), cache)
        case "image" | "document":
            _need(block.get("source"), dict, f"{path}.source")
            media = wire.read_source(kind, block, cache)
            return Opaque(wire.NAME, kind, block) if media is None else media
        case "search_result":
            return _read_search_result(block)
        case "thinking":
            return Thinking(wire.text_in(block.get("thinking")), summary=True, seal=wire.read_seal(block))
        case "redacted_thinking":
            return Thinking(seal=wire.read_seal(block))
        case "tool_use":
            return ToolCall(
                id=_need(block.get("id"), str, f"{path}.id"),
                name=_need(block.get("name"), str, f"{path}.name"),
                arguments=json.encode(_need(block.get("input", {}), dict, f"{path}.input")).decode(),
                namespace=wire.text_in(block.get("toolset_name")),
                cache=cache,
            )
        case "tool_result":
            return _read_result(block, cache, path)
        case str():
            return Opaque(wire.NAME, kind, block, _server_tool(block))
        case _:
            raise _wrong(f"{path}.type", "a string", kind)


def _server_tool(block: dict[str, Any]) -> str:
    if block.get("type") in ("server_tool_use", "mcp_tool_use"):
        return wire.text_in(block.get("name")) or "server_tool"
    return ""


def _read_search_result(block: dict[str, Any]) -> Part:
    text = wire.plain_content(block.get("content"))
    if text is None:
        return Opaque(wire.NAME, "search_result", block)
    return Media(
        kind="document",
        text=text,
        mime=wire.SEARCH_RESULT,
        name=wire.text_in(block.get("source")),
        title=wire.text_in(block.get("title")),
        citations_enabled=wire.object_in(block.get("citations")).get("enabled") is True,
        cache=wire.read_cache(block),
        origin=wire.NAME,
    )


def _read_result(block: dict[str, Any], cache: Any, path: str) -> ToolResult:
    content = block.get("content")
    if isinstance(content, str):
        parts: tuple[Part, ...] = (Text(content),) if content else ()
    elif isinstance(content, list):
        parts = _read_blocks(content, f"{path}.content")
    elif content is None:
        parts = ()
    else:
        raise _wrong(f"{path}.content", "a string or a list of blocks", content)
    return ToolResult(
        call_id=_need(block.get("tool_use_id"), str, f"{path}.tool_use_id"),
        parts=parts,
        is_error=block.get("is_error") is True,
        cache=cache,
    )


# ---- tools


def _read_tools(tools: list[Any]) -> tuple[Tool, ...]:
    return tuple(_read_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools))


def _read_tool(tool: Any, path: str) -> Tool:
    _need(tool, dict, path)
    kind = tool.get("type")
    cache = wire.read_cache(tool)
    if isinstance(kind, str) and kind != "custom":
        return ServerTool(wire.NAME, kind, tool, capability_of(kind), cache)
    strict = tool.get("strict")
    schema = tool.get("input_schema")
    return FunctionTool(
        name=_need(tool.get("name"), str, f"{path}.name"),
        description=wire.text_in(tool.get("description")),
        parameters=None if schema is None else _need(schema, dict, f"{path}.input_schema"),
        strict=strict if isinstance(strict, bool) else None,
        cache=cache,
        defer=tool.get("defer_loading") is True,
    )


def capability_of(kind: str) -> str:
    return next((word for beginning, word in _CAPABILITIES if kind.startswith(beginning)), "")


def _read_choice(choice: dict[str, Any] | None) -> tuple[ToolChoice | None, bool | None]:
    if choice is None:
        return None, None
    off = choice.get("disable_parallel_tool_use")
    parallel = not off if isinstance(off, bool) else None
    match choice.get("type"):
        case "auto":
            return ToolChoice("auto"), parallel
        case "any":
            return ToolChoice("required"), parallel
        case "none":
            return ToolChoice("none"), parallel
        case "tool":
            return ToolChoice("named", (_need(choice.get("name"), str, "tool_choice.name"),)), parallel
        case other:
            raise bad_request(
                f"tool_choice.type: expected auto, any, tool or none, got {other!r:.40}", "tool_choice.type"
            )


# ---- thinking and output


def _read_thinking_and_output(fields: dict[str, Any]) -> tuple[Reasoning | None, ResponseFormat | None]:
    """Takes `thinking`, `output_config` and the older `output_format` out of `fields`; what is unknown of
    them stays there.
    """
    output = dict(_optional(fields, "output_config", dict) or {})
    word = output.pop("effort", None)
    effort = None if word is None else read_effort(_need(word, str, "output_config.effort"), "output_config.effort")
    format_ = _read_format(output.pop("format", None), "output_config.format")
    older = fields.pop("output_format", None)
    if format_ is None:
        format_ = _read_format(older, "output_format")
    if output:
        fields["output_config"] = output
    thinking = _optional(fields, "thinking", dict)
    # Without `thinking` no thinking block may reach this client, whatever another provider makes of the effort.
    reasoning = None if effort is None else Reasoning(_mode(effort, "effort"), effort=effort, visible=False)
    if thinking is None:
        return reasoning, format_
    display = thinking.get("display")
    shown: dict[str, Any] = {
        "effort": effort,
        "visible": display != "omitted",
        "summary": "auto" if display == "summarized" else "",
    }
    match thinking.get("type"):
        case "enabled":
            budget = thinking.get("budget_tokens")
            if isinstance(budget, bool) or not isinstance(budget, int):
                raise _wrong("thinking.budget_tokens", "an integer", budget)
            if budget <= 0:
                return Reasoning("auto" if budget else "off", budget=budget, **shown), format_
            return Reasoning("budget", budget=budget, **shown), format_
        case "adaptive":
            return Reasoning(_mode(effort, "auto"), **shown), format_
        case "disabled":
            return Reasoning("off", effort=effort), format_
        case _:
            fields["thinking"] = thinking
            return reasoning, format_


def _mode(effort: str | None, otherwise: Literal["effort", "auto"]) -> Literal["off", "effort", "auto"]:
    return "off" if effort == "none" else otherwise


def _read_format(value: Any, path: str) -> ResponseFormat | None:
    if value is None:
        return None
    _need(value, dict, path)
    if value.get("type") != "json_schema":
        raise bad_request(f"{path}.type: expected json_schema, got {value.get('type')!r:.40}", f"{path}.type")
    return ResponseFormat("schema", schema=_need(value.get("schema"), dict, f"{path}.schema"))
