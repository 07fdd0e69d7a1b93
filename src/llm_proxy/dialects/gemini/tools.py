"""Tool definitions and tool choice for a Gemini target, and the names to be mapped back in the answer."""

from __future__ import annotations

from collections.abc import Callable

from llm_proxy.conversation.fault import bad_request
from llm_proxy.conversation.request import CustomTool, FunctionTool, Request, ServerTool
from llm_proxy.dialects.capabilities import Capabilities
from llm_proxy.dialects.gemini.wire import NAME, Object
from llm_proxy.dialects.names import ToolNames
from llm_proxy.dialects.tool_schemas import for_gemini_parameters
from llm_proxy.wire import json as wire_json

# What Gemini runs itself, by the neutral name.
_BUILT_IN = {"web_search": "googleSearch", "code_execution": "codeExecution", "url_context": "urlContext"}


class Tools:
    """The tools of one request: `name` wherever one is named, `write` and `config` for the body."""

    def __init__(self, request: Request, capabilities: Capabilities, lose: Callable[[str], None]) -> None:
        self._request = request
        self._capabilities = capabilities
        self._lose = lose
        self._own = request.dialect == NAME
        self.names = ToolNames(capabilities.tool_name_limit, gemini=True)
        self.namespaces: dict[str, tuple[str, str]] = {}
        self.custom: set[str] = set()
        self.any_functions = any(isinstance(tool, FunctionTool | CustomTool) for tool in request.tools)
        self._server = self._server_tools()
        self.any_server = bool(self._server)
        for tool in request.tools:
            if isinstance(tool, CustomTool):
                self.custom.add(self.name(tool.name, tool.namespace))

    def name(self, name: str, namespace: str = "") -> str:
        """The tool's name at the target."""
        mapped = self.names.at_target(f"{namespace}__{name}" if namespace else name)
        if namespace:
            self.namespaces[mapped] = (namespace, name)
        return mapped

    def write(self) -> list[Object]:
        """One element for each run of function tools and for each tool that Gemini runs."""
        out: list[Object] = []
        run: list[Object] = []
        known: dict[str, int] = {}
        for tool in self._request.tools:
            if isinstance(tool, ServerTool):
                raw = self._server.get(id(tool))
                if raw is not None:
                    out.append(raw)
                    run = []
                continue
            declaration = self._custom(tool) if isinstance(tool, CustomTool) else self._function(tool)
            if not self._own and declaration["name"] in known:
                self._lose(f"tool {tool.name}: declared twice, the last one counts")
                self._replace(out, declaration)
                continue
            known[declaration["name"]] = 1
            if not run:
                run = []
                out.append({"functionDeclarations": run})
            run.append(declaration)
        return out

    def _replace(self, out: list[Object], declaration: Object) -> None:
        for entry in out:
            declarations = entry.get("functionDeclarations", [])
            for index, other in enumerate(declarations):
                if other["name"] == declaration["name"]:
                    declarations[index] = declaration

    def _function(self, tool: FunctionTool) -> Object:
        out: Object = {"name": self.name(tool.name, tool.namespace)}
        if tool.description:
            out["description"] = tool.description
        if tool.parameters is None:
            return out
        if tool.schema_style == "openapi":
            out["parameters"] = tool.parameters
        elif self._capabilities.json_schema_params:
            out["parametersJsonSchema"] = tool.parameters
        else:
            schema, losses = for_gemini_parameters(tool.parameters)
            if schema is not None:
                out["parameters"] = schema
            for loss in losses:
                self._lose(f"tool {tool.name}: {loss}")
        if tool.cache is not None and not self._own:
            self._lose("cache_control: Gemini caches by itself")
        return out

    def _custom(self, tool: CustomTool) -> Object:
        """A tool with free text as input becomes a function with one string; the grammar can only be told."""
        description = tool.description
        if tool.format and tool.format.get("type") not in (None, "text"):
            grammar = tool.format.get("definition") or wire_json.encode(tool.format).decode()
            description += f"\n\nThe input must follow this {tool.format.get('syntax', '')} grammar:\n{grammar}"
            self._lose(f"tool {tool.name}: its grammar is told, not enforced")
        schema = {
            "type": "object",
            "properties": {"input": {"type": "string", "description": "The whole input of the tool, as plain text."}},
            "required": ["input"],
        }
        name = self.name(tool.name, tool.namespace)
        out: Object = {"name": name}
        if description.strip():
            out["description"] = description.strip()
        out["parametersJsonSchema" if self._capabilities.json_schema_params else "parameters"] = schema
        return out

    def _server_tools(self) -> dict[int, Object]:
        """What is sent for each tool that the provider runs, by identity."""
        out: dict[int, Object] = {}
        written: set[str] = set()
        together = self._capabilities.schema_with_tools or not self.any_functions
        for index, tool in enumerate(self._request.tools):
            if not isinstance(tool, ServerTool):
                continue
            if tool.origin == NAME:
                out[id(tool)] = tool.raw
                continue
            built_in = _BUILT_IN.get(tool.capability)
            if built_in and together:
                if built_in not in written:
                    out[id(tool)] = {built_in: {}}
                    written.add(built_in)
            elif tool.origin == "anthropic-messages" and not built_in:
                raise bad_request(
                    f"tools[{index}]: the tool type {tool.type} is not available at this back end",
                    f"tools[{index}]",
                )
            else:
                why = "cannot stand beside function tools here" if built_in else "is not available at Gemini"
                self._lose(f"tool {tool.type}: {why}")
        return out

    def config(self) -> Object:
        """`toolConfig`."""
        config: Object = {}
        calling = self._calling()
        if calling:
            config["functionCallingConfig"] = calling
        if self.any_functions and self.any_server and not self._own:
            config["includeServerSideToolInvocations"] = True
        return config

    def _calling(self) -> Object:
        choice = self._request.tool_choice
        if choice is None or not (self.any_functions or self._own):
            return {}
        names = [self._choice_name(name) for name in choice.names]
        if not self._own:
            declared = {
                self.name(tool.name, tool.namespace) for tool in self._request.tools if not isinstance(tool, ServerTool)
            }
            names = [name for name in names if name in declared]
        match choice.mode:
            case "none":
                return {"mode": "NONE"}
            case "auto" if names:
                return {"mode": "VALIDATED", "allowedFunctionNames": names}
            case "auto":
                return {"mode": "AUTO"}
            case _ if names:
                return {"mode": "ANY", "allowedFunctionNames": names}
            case _:
                return {"mode": "ANY"}

    def _choice_name(self, name: str) -> str:
        """A choice may name a tool without its namespace."""
        for tool in self._request.tools:
            if isinstance(tool, FunctionTool | CustomTool) and tool.name == name:
                return self.name(name, tool.namespace)
        return self.name(name)
