"""Tools and tool choice of the Responses protocol, read and written.

A namespace is one element of the wire's list and several canonical tools in a row; what is written again
stands at the same places.
"""

from __future__ import annotations

from typing import Any

from llm_proxy.conversation.fault import bad_request
from llm_proxy.conversation.parts import CacheMark
from llm_proxy.conversation.request import CustomTool, FunctionTool, Request, ServerTool, Tool, ToolChoice
from llm_proxy.dialects.base import Target
from llm_proxy.dialects.names import ToolNames
from llm_proxy.dialects.openai_responses.wire import CAPABILITIES, NAME, mapping, sequence, text, wrong_type
from llm_proxy.dialects.tool_schemas import fits_openai_strict, for_openai, from_openapi

_FOREIGN_SERVER_TOOLS: dict[str, dict[str, Any]] = {
    "web_search": {"type": "web_search"},
    "code_execution": {"type": "code_interpreter", "container": {"type": "auto"}},
    "image_generation": {"type": "image_generation"},
}


# ---- reading


def read_tools(raw: Any) -> tuple[Tool, ...]:
    if raw is None:
        return ()
    if not isinstance(raw, list):
        raise wrong_type("tools", "a list", raw)
    tools: list[Tool] = []
    for index, tool in enumerate(raw):
        where = f"tools[{index}]"
        if not isinstance(tool, dict):
            raise wrong_type(where, "an object", tool)
        if tool.get("type") == "namespace" and _plain_namespace(tool):
            name, description = text(tool.get("name")), text(tool.get("description"))
            tools += [
                _read_tool(member, f"{where}.tools[{place}]", name, description)
                for place, member in enumerate(sequence(tool.get("tools")))
            ]
        else:
            tools.append(_read_tool(tool, where))
    return tuple(tools)


def _plain_namespace(tool: dict[str, Any]) -> bool:
    """Does it hold only tools that have a canonical form? Else the whole namespace stays opaque."""
    members = tool.get("tools")
    return (
        isinstance(members, list)
        and bool(members)
        and isinstance(tool.get("name"), str)
        and all(isinstance(member, dict) and member.get("type") in ("function", "custom") for member in members)
    )


def _read_tool(tool: dict[str, Any], where: str, namespace: str = "", namespace_description: str = "") -> Tool:
    kind = tool.get("type")
    if not isinstance(kind, str):
        raise wrong_type(f"{where}.type", "a string", kind)
    if kind == "function" and isinstance(tool.get("function"), dict):
        tool = {
            "type": "function",
            **tool["function"],
        }  # Chat's nested form, sent by clients that mix the protocols
    if kind not in ("function", "custom"):
        return ServerTool(NAME, kind, tool, capability=CAPABILITIES.get(kind, ""))
    name = tool.get("name")
    if not isinstance(name, str):
        raise wrong_type(f"{where}.name", "a string", name)
    if not name:
        raise bad_request(f"{where}.name: must not be empty", f"{where}.name")
    mark = tool.get("prompt_cache_breakpoint")
    cache = CacheMark(text(mark.get("ttl"))) if isinstance(mark, dict) else None
    if kind == "custom":
        form = tool.get("format")
        if form is not None and not isinstance(form, dict):
            raise wrong_type(f"{where}.format", "an object", form)
        return CustomTool(name, text(tool.get("description")), form, namespace, cache, namespace_description)
    parameters, strict = tool.get("parameters"), tool.get("strict")
    if parameters is not None and not isinstance(parameters, dict):
        raise wrong_type(f"{where}.parameters", "an object", parameters)
    if strict is not None and not isinstance(strict, bool):
        raise wrong_type(f"{where}.strict", "a boolean", strict)
    return FunctionTool(
        name,
        text(tool.get("description")),
        parameters,
        strict,
        namespace,
        cache=cache,
        defer=tool.get("defer_loading") is True,
        namespace_description=namespace_description,
    )


def read_tool_choice(raw: Any) -> ToolChoice | None:
    """None when nothing was said, or for a choice that only this protocol knows (a built-in tool)."""
    if raw is None:
        return None
    if isinstance(raw, str):
        match raw:
            case "auto" | "none" | "required":
                return ToolChoice(raw)
            case _:
                raise bad_request("tool_choice: expected auto, none, required or an object", "tool_choice")
    if not isinstance(raw, dict):
        raise wrong_type("tool_choice", "a string or an object", raw)
    match raw.get("type"):
        case "function" | "custom" as kind:
            name = raw.get("name") or mapping(raw.get(kind)).get("name")
            if not isinstance(name, str):
                raise wrong_type("tool_choice.name", "a string", name)
            return ToolChoice("named", (name,))
        case "allowed_tools":
            entries = sequence(raw.get("tools"))
            if not all(mapping(entry).get("type") in ("function", "custom") for entry in entries):
                return None
            names = tuple(text(mapping(entry).get("name")) for entry in entries)
            return ToolChoice("required" if raw.get("mode") == "required" else "auto", names)
        case _:
            return None


# ---- writing


class ToolsOut:
    """Writes the tools of one request for a target and keeps what the answer owes: mapped names, unwrapped
    custom tools.
    """

    def __init__(self, request: Request, target: Target) -> None:
        self._native = request.dialect == NAME
        self._able = target.capabilities
        self._model = target.model
        self._request = request
        self.losses: list[str] = []
        self.names = ToolNames(self._able.tool_name_limit)
        self.namespaces: dict[str, tuple[str, str]] = {}
        self.custom_tools: set[str] = set()
        self._custom = {tool.name for tool in request.tools if isinstance(tool, CustomTool)}

    def name(self, name: str, namespace: str = "") -> str:
        """The name at the target. A namespace that the target does not know becomes a beginning of the
        name.
        """
        if not namespace or self._able.namespaces:
            return name if self._native and self._able.namespaces else self.names.at_target(name)
        flat = self.names.at_target(f"{namespace}__{name}")
        self.names.back.pop(flat, None)
        self.namespaces[flat] = (namespace, name)
        return flat

    def write(self) -> list[dict[str, Any]]:
        tools = self._request.tools if self._native else self._without_duplicates()
        written: list[dict[str, Any]] = []
        group: tuple[str, str] | None = None
        for index, tool in enumerate(tools):
            if isinstance(tool, ServerTool):
                group = None
                if (server := self._server_tool(tool, index)) is not None:
                    written.append(server)
                continue
            entry = self._function(tool) if isinstance(tool, FunctionTool) else self._custom_tool(tool)
            if not tool.namespace or not self._able.namespaces:
                group = None
                written.append(entry)
            elif group == (tool.namespace, tool.namespace_description):
                written[-1]["tools"].append(entry)
            else:
                group = (tool.namespace, tool.namespace_description)
                written.append(
                    {
                        "type": "namespace",
                        "name": tool.namespace,
                        "description": tool.namespace_description or tool.namespace,
                        "tools": [entry],
                    }
                )
        return written

    def _without_duplicates(self) -> list[Tool]:
        last = {
            (tool.namespace, tool.name): index
            for index, tool in enumerate(self._request.tools)
            if not isinstance(tool, ServerTool)
        }
        kept: list[Tool] = []
        for index, tool in enumerate(self._request.tools):
            if isinstance(tool, ServerTool) or last[tool.namespace, tool.name] == index:
                kept.append(tool)
            else:
                self.losses.append(f"tools[{index}]: a later tool has the same name, this one is left out")
        return kept

    def _function(self, tool: FunctionTool) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "function", "name": self.name(tool.name, tool.namespace)}
        if tool.description:
            entry["description"] = tool.description
        if self._native:
            if tool.parameters is not None:
                entry["parameters"] = tool.parameters
            if tool.strict is not None:
                entry["strict"] = tool.strict
            if tool.defer:
                entry["defer_loading"] = True
        else:
            entry["parameters"], entry["strict"] = self._schema(tool)
        self._mark(entry, tool.cache)
        return entry

    def _schema(self, tool: FunctionTool) -> tuple[dict[str, Any], bool]:
        """The schema and an explicit `strict`: the protocol's default is true, all others' is false."""
        schema = tool.parameters
        if schema is not None and tool.schema_style == "openapi":
            schema = from_openapi(schema)
        # Chat's strict mode is this one: its clients have made their schemas fit.
        fits = schema is not None and (self._request.dialect == "openai-chat" or fits_openai_strict(schema))
        if tool.strict and schema is not None and fits and self._able.strict_tools:
            return schema, True
        if tool.strict:
            self.losses.append(f"tools: {tool.name}: the schema does not fit strict mode, sent without")
        written, losses = for_openai(schema, False)
        self.losses += [f"tools: {tool.name}: {loss}" for loss in losses]
        return written, False

    def _custom_tool(self, tool: CustomTool) -> dict[str, Any]:
        name = self.name(tool.name, tool.namespace)
        if self._able.custom_tools:
            entry: dict[str, Any] = {"type": "custom", "name": name}
            if tool.description:
                entry["description"] = tool.description
            if tool.format is not None:
                entry["format"] = tool.format
            self._mark(entry, tool.cache)
            return entry
        self.custom_tools.add(name)
        return {
            "type": "function", "name": name, "description": _wrapped_description(tool), "strict": False,
            "parameters": {
                "type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"],
                "additionalProperties": False,
            },
        }  # fmt: skip

    def _server_tool(self, tool: ServerTool, index: int) -> dict[str, Any] | None:
        if tool.origin == NAME:
            if self._able.server_tools:
                return tool.raw
            self.losses.append(f"tools[{index}]: the server tool {tool.type} is not known to {self._model}")
            return None
        if tool.origin == "anthropic-messages":
            raise bad_request(
                f"tools[{index}]: the tool type {tool.type} needs an Anthropic back end", f"tools[{index}]"
            )
        like = _FOREIGN_SERVER_TOOLS.get(tool.capability)
        if like is None or not self._able.server_tools:
            self.losses.append(f"tools[{index}]: the server tool {tool.type} is not known to {self._model}")
            return None
        return dict(like)

    def _mark(self, entry: dict[str, Any], mark: CacheMark | None) -> None:
        if mark is not None and self._native:
            entry["prompt_cache_breakpoint"] = cache_mark(mark)

    def choice(self) -> str | dict[str, Any] | None:
        """`tool_choice` for the target; None when there is nothing to say."""
        choice, able = self._request.tool_choice, self._able
        if choice is None or not (self._request.tools or self._native):
            return None
        mode, names = choice.mode, choice.names
        if mode in ("named", "required") and not able.forced_tools:
            self.losses.append(f"tool_choice: {self._model} takes no forced choice, sent as auto")
            mode = "auto"
        if mode == "named" and names:
            return self._entry(names[0])
        if names and mode in ("auto", "required"):
            if able.allowed_tools:
                return {"type": "allowed_tools", "mode": mode, "tools": [self._entry(name) for name in names]}
            self.losses.append(f"tool_choice: {self._model} takes no subset of tools, all may be called")
        return mode

    def _entry(self, name: str) -> dict[str, Any]:
        kind = "custom" if name in self._custom and self._able.custom_tools else "function"
        namespace = next(
            (tool.namespace for tool in self._request.tools if not isinstance(tool, ServerTool) and tool.name == name),
            "",
        )
        return {"type": kind, "name": self.name(name, "" if self._able.namespaces else namespace)}


def cache_mark(mark: CacheMark) -> dict[str, Any]:
    """A breakpoint; Anthropic's two lifetimes become the nearest ones of this protocol."""
    ttl = {"5m": "30m", "1h": "12h"}.get(mark.ttl, mark.ttl)
    return {"mode": "explicit", "ttl": ttl} if ttl else {"mode": "explicit"}


def _wrapped_description(tool: CustomTool) -> str:
    """The description of a free text tool that is sent as a function with the one string `input`."""
    lines = [tool.description] if tool.description else []
    lines.append("Put the whole text for this tool, unescaped and without any wrapping, into `input`.")
    form = tool.format or {}
    if form.get("type") == "grammar":
        lines.append(f"It must follow this {text(form.get('syntax'))} grammar:\n{text(form.get('definition'))}")
    return "\n\n".join(lines)


def echoed_tools(request: Request) -> list[dict[str, Any]]:
    """The tools as the Response object repeats them: the client's own names and kinds."""
    written: list[dict[str, Any]] = []
    group = ""
    for tool in request.tools:
        match tool:
            case ServerTool():
                group = ""
                if tool.origin == NAME:
                    written.append(tool.raw)
                continue
            case FunctionTool():
                entry: dict[str, Any] = {
                    "type": "function", "name": tool.name, "description": tool.description or None,
                    "parameters": tool.parameters, "strict": tool.strict is not False,
                }  # fmt: skip
            case CustomTool():
                entry = {
                    "type": "custom", "name": tool.name, "description": tool.description,
                    "format": tool.format or {"type": "text"},
                }  # fmt: skip
        if not tool.namespace:
            group = ""
            written.append(entry)
        elif tool.namespace == group:
            written[-1]["tools"].append(entry)
        else:
            group = tool.namespace
            written.append(
                {
                    "type": "namespace",
                    "name": group,
                    "description": tool.namespace_description,
                    "tools": [entry],
                }
            )
    return written


def echoed_choice(request: Request) -> str | dict[str, Any]:
    choice = request.tool_choice
    if choice is None:
        raw = request.rest.get("tool_choice")
        return raw if isinstance(raw, dict) else "auto"
    custom = {tool.name for tool in request.tools if isinstance(tool, CustomTool)}
    entries = [{"type": "custom" if name in custom else "function", "name": name} for name in choice.names]
    if choice.mode == "named" and entries:
        return entries[0]
    if entries:
        return {"type": "allowed_tools", "mode": choice.mode, "tools": entries}
    return choice.mode if choice.mode != "named" else "auto"
