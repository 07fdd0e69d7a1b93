"""Tools, tool choice and the form of the answer as a request carries them."""

from __future__ import annotations

from typing import Any

from llm_proxy.conversation.fault import bad_request
from llm_proxy.conversation.request import CustomTool, FunctionTool, ServerTool
from llm_proxy.dialects.anthropic_messages import wire
from llm_proxy.dialects.anthropic_messages.blocks_out import with_reduced_mark
from llm_proxy.dialects.anthropic_messages.draft import Draft
from llm_proxy.dialects.tool_schemas import for_anthropic, from_openapi
from llm_proxy.wire import json

Tool = dict[str, Any]

JSON_TOOL = "json_output"
_INPUT_SCHEMA = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
_WEB_SEARCH = {"type": "web_search_20250305", "name": "web_search"}
# Tools that the client itself runs: leaving them out would take away what the agent lives on.
_CLIENT_RUN = ("shell", "apply_patch", "computer")


def write_tools(draft: Draft) -> list[Tool]:
    allowed = _allowed(draft)
    tools: list[Tool] = []
    for tool in draft.request.tools:
        if allowed is not None and _name(tool) not in allowed:
            continue
        match tool:
            case FunctionTool():
                tools.append(_function(draft, tool))
            case CustomTool():
                tools.append(_custom(draft, tool))
            case ServerTool():
                tools += _server(draft, tool)
    return tools if draft.own else _without_doubles(draft, tools)


def _name(tool: FunctionTool | CustomTool | ServerTool) -> str:
    return wire.text_in(tool.raw.get("name")) if isinstance(tool, ServerTool) else tool.name


def _allowed(draft: Draft) -> frozenset[str] | None:
    """The names of an allowed subset, which here means to send only these tools; None for all."""
    choice = draft.request.tool_choice
    if choice is None or not choice.names:
        return None
    if choice.mode == "named" and draft.capabilities.forced_tools:
        return None
    if choice.mode != "named":
        draft.lose("tool_choice: the tools outside the allowed set were left out")
    return frozenset(choice.names)


def _without_doubles(draft: Draft, tools: list[Tool]) -> list[Tool]:
    last = {tool.get("name"): index for index, tool in enumerate(tools)}
    kept = [tool for index, tool in enumerate(tools) if last[tool.get("name")] == index]
    if len(kept) < len(tools):
        draft.lose("tools: of tools with the same name the last was kept")
    return kept


def _function(draft: Draft, tool: FunctionTool) -> Tool:
    written: Tool = {"name": draft.tool_name(tool.name, tool.namespace)}
    if tool.description:
        written["description"] = tool.description
    strict = tool.strict if draft.capabilities.strict_tools else None
    if tool.strict and strict is None:
        draft.lose("tools: strict is not supported by the target")
    if draft.own:
        if tool.parameters is not None:
            written["input_schema"] = tool.parameters
        if strict is not None:
            written["strict"] = strict
        if tool.defer:
            written["defer_loading"] = True
        return written | draft.cache(tool.cache)
    schema = from_openapi(tool.parameters) if tool.schema_style == "openapi" else tool.parameters
    written["input_schema"], losses = for_anthropic(schema, bool(strict))
    for loss in losses:
        draft.lose(f"tools.{tool.name}: {loss}")
    if strict:
        written["strict"] = True
    return written | draft.cache(tool.cache)


def _custom(draft: Draft, tool: CustomTool) -> Tool:
    """A free-text tool as a function of one string; its grammar can only be told, not enforced."""
    name = draft.tool_name(tool.name, tool.namespace)
    draft.custom.add(name)
    draft.lose(f"tools.{tool.name}: a free-text tool was sent as a function")
    text = [tool.description] if tool.description else []
    text.append("The whole input of this tool is free text, given as the string `input`.")
    form = tool.format or {}
    if form.get("type") == "grammar":
        text.append(f"It must follow this {form.get('syntax', '')} grammar:\n{form.get('definition', '')}")
    return {"name": name, "description": "\n\n".join(text), "input_schema": _INPUT_SCHEMA} | draft.cache(tool.cache)


def _server(draft: Draft, tool: ServerTool) -> list[Tool]:
    if tool.origin == wire.NAME:
        return [with_reduced_mark(draft, tool.raw)]
    if tool.capability == "web_search" and draft.capabilities.server_tools:
        draft.lose(f"tools: {tool.type} became {_WEB_SEARCH['type']} without its options")
        return [dict(_WEB_SEARCH)]
    if tool.capability in _CLIENT_RUN:
        raise bad_request(f"tools: {tool.type} exists only in {tool.origin}, not at {draft.target.model}", "tools")
    draft.lose(f"tools: {tool.type} exists only in {tool.origin} and was left out")
    return []


# ---- choice


def write_choice(draft: Draft, tools: list[Tool]) -> dict[str, Any] | None:
    choice, parallel = draft.request.tool_choice, draft.request.parallel_tool_calls
    if not tools and not draft.own:
        return None
    written: dict[str, Any]
    match choice.mode if choice else "":
        case "none":
            return {"type": "none"}
        case "auto":
            written = {"type": "auto"}
        case "required":
            written = {"type": "any"}
        case "named":
            assert choice is not None
            written = {"type": "tool", "name": _chosen(draft, choice.names[0])}
        case _:
            if parallel is None or (parallel and not draft.own):
                return None
            written = {"type": "auto"}
    if written["type"] in ("any", "tool") and not draft.capabilities.forced_tools:
        draft.lose(f"tool_choice: {draft.target.model} cannot be forced to call a tool")
        written = {"type": "auto"}
    if parallel is False or (parallel and draft.own):
        written["disable_parallel_tool_use"] = not parallel
    return written


def _chosen(draft: Draft, name: str) -> str:
    tool = next((tool for tool in draft.request.tools if _name(tool) == name), None)
    return draft.tool_name(name, "" if tool is None or isinstance(tool, ServerTool) else tool.namespace)


# ---- the form of the answer


def write_format(draft: Draft, body: dict[str, Any], output: dict[str, Any]) -> None:
    """Adds what makes the answer JSON: `output_config.format`, a forced tool, or an instruction."""
    form = draft.request.format
    if form is None or form.kind == "text":
        return
    if form.kind == "json" or form.schema is None:
        draft.lose("response_format: JSON without a schema is asked for by an instruction")
        _instruct(body, "Answer with one JSON object and nothing else: no prose, no code fence.")
        return
    if draft.own:
        schema: dict[str, Any] = form.schema
        if draft.capabilities.schema_output:
            output["format"] = {"type": "json_schema", "schema": schema}
            return
    else:
        plain = from_openapi(form.schema) if form.schema_style == "openapi" else form.schema
        # Structured output demands closed objects whether or not the client asked for strictness.
        schema, losses = for_anthropic(plain, draft.capabilities.schema_output)
        for loss in losses:
            draft.lose(f"response_format: {loss}")
    if draft.capabilities.schema_output:
        output["format"] = {"type": "json_schema", "schema": schema}
    elif draft.capabilities.forced_tools:
        _force_json_tool(draft, body, schema)
    else:
        draft.lose("response_format: the schema is asked for by an instruction")
        _instruct(body, f"Answer with JSON that fits this schema and nothing else:\n{json.encode(schema).decode()}")


def _force_json_tool(draft: Draft, body: dict[str, Any], schema: dict[str, Any]) -> None:
    draft.json_tool = JSON_TOOL
    draft.lose("response_format: the schema is enforced by a forced tool")
    tool = {
        "name": JSON_TOOL,
        "description": "Gives the final answer.",
        "input_schema": for_anthropic(schema)[0],
    }
    others = body.get("tools", [])
    body["tools"] = [*others, tool]
    body["tool_choice"] = {"type": "any"} if others else {"type": "tool", "name": JSON_TOOL}


def _instruct(body: dict[str, Any], text: str) -> None:
    body.setdefault("system", []).append({"type": "text", "text": text})
