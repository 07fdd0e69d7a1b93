"""A Gemini client's body as a canonical Request: liberal in spelling, strict in types.

Positions are kept (one message per content, one part per part), so that an edit finds its place in the body.
Model and streaming are not in the body: they come with the path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import msgspec

from llm_proxy.conversation.fault import bad_request
from llm_proxy.conversation.parts import Media, Opaque, Part, Text, Thinking, ToolCall, ToolResult
from llm_proxy.conversation.request import (
    FunctionTool,
    Message,
    Reasoning,
    Request,
    ResponseFormat,
    Role,
    Sampling,
    ServerTool,
    Tool,
    ToolChoice,
)
from llm_proxy.dialects.efforts import check_effort, read_effort, reasoning_for
from llm_proxy.dialects.gemini import results
from llm_proxy.dialects.gemini.wire import (
    NAME,
    Object,
    Spelling,
    decode_body,
    integer,
    kind_name,
    read_seal,
    standard_base64,
    wrong_type,
)
from llm_proxy.dialects.media_types import kind_of, normal
from llm_proxy.dialects.names import derived_call_id
from llm_proxy.dialects.tool_schemas import from_openapi
from llm_proxy.wire import json as wire_json

_ROLES: dict[str, Role] = {
    "user": "user",
    "function": "user",
    "tool": "user",
    "model": "assistant",
    "assistant": "assistant",
    "system": "system",
}
# What a part can be besides text, in the order in which it is looked for.
PART_KINDS = (
    "functionCall",
    "functionResponse",
    "inlineData",
    "fileData",
    "executableCode",
    "codeExecutionResult",
    "toolCall",
    "toolResponse",
)
CAPABILITIES = {
    "googleSearch": "web_search",
    "googleSearchRetrieval": "web_search",
    "enterpriseWebSearch": "web_search",
    "codeExecution": "code_execution",
    "urlContext": "url_context",
    "fileSearch": "file_search",
    "computerUse": "computer",
    "mcpServers": "mcp",
}
_DETAILS = {
    "MEDIA_RESOLUTION_LOW": "low",
    "MEDIA_RESOLUTION_HIGH": "high",
    "MEDIA_RESOLUTION_ULTRA_HIGH": "original",
}
# Where the thinking level stands, in both spellings.
LEVEL = (
    ("generationConfig", "generation_config"),
    ("thinkingConfig", "thinking_config"),
    ("thinkingLevel", "thinking_level"),
)
_UNSAID = ("", "THINKING_LEVEL_UNSPECIFIED")


def check_level(body: Object) -> None:
    """Is the thinking level one? For bodies that go on as they are. Raises FaultError (bad_request) naming the field."""
    inner: Any = body.get("generateContentRequest", body.get("generate_content_request", body))
    for names in LEVEL:
        inner = next((inner[name] for name in names if name in inner), None) if isinstance(inner, dict) else None
    if isinstance(inner, str) and inner.upper() not in _UNSAID:
        check_effort(inner, ".".join(names[0] for names in LEVEL))


def read_request(body: wire_json.Body, path_model: str = "", path_stream: bool = False) -> Request:
    """Raises FaultError (bad_request) naming the field."""
    return _RequestReader().read(decode_body(body), path_model, path_stream)


class _RequestReader:
    def __init__(self) -> None:
        self._spelling = Spelling()
        self._unanswered: list[tuple[str, str]] = []

    def read(self, body: Object, path_model: str, path_stream: bool) -> Request:
        fields = self._spelling.members(body, "")
        if "generateContentRequest" in fields:
            fields = self._spelling.members(fields["generateContentRequest"], "generateContentRequest")
        body_model = fields.pop("model", "")
        model = path_model or (body_model if isinstance(body_model, str) else "")
        if "contents" not in fields:
            raise bad_request("contents: this field is required", "contents")
        messages = self._system(fields.pop("systemInstruction", None)) + self._contents(fields.pop("contents"))
        tools = self._tools(fields.pop("tools", None))
        choice, tool_config = self._tool_config(fields.pop("toolConfig", None))
        config = self._spelling.members(fields.pop("generationConfig", None) or {}, "generationConfig")
        settings = _Generation(config, self._spelling)
        safety = _list_of_objects(fields.pop("safetySettings", None), "safetySettings")
        tier = _text(fields.pop("serviceTier", ""), "serviceTier").lower()
        labels = fields.pop("labels", None)
        store = fields.pop("store", None)
        rest = dict(fields)
        if settings.rest:
            rest["generationConfig"] = settings.rest
        if tool_config:
            rest["toolConfig"] = tool_config
        return Request(
            dialect=NAME,
            model=model.removeprefix("models/"),
            messages=messages,
            tools=tools,
            tool_choice=choice,
            sampling=settings.sampling,
            max_output_tokens=settings.max_output_tokens,
            stop=settings.stop,
            n=settings.n,
            format=settings.format,
            reasoning=settings.reasoning,
            modalities=settings.modalities,
            tier="default" if tier == "standard" else tier,
            metadata=labels if isinstance(labels, dict) else None,
            store=store if isinstance(store, bool) else None,
            safety=safety,
            stream=path_stream,
            include_usage=True,
            rest=rest,
            native={"spelling": self._spelling.seen} if self._spelling.seen else {},
        )

    # messages

    def _system(self, value: Any) -> tuple[Message, ...]:
        if value is None:
            return ()
        if isinstance(value, str):
            return (Message("system", (Text(value),)),)
        content = self._spelling.members(value, "systemInstruction")
        parts = self._parts(content.get("parts", []), "systemInstruction.parts", 0, "system")
        return (Message("system", parts),)

    def _contents(self, value: Any) -> tuple[Message, ...]:
        if isinstance(value, str | dict):
            value = [value]
        if not isinstance(value, list):
            raise wrong_type("contents", "a list", value)
        if not value:
            raise bad_request("contents: at least one content is required", "contents")
        return tuple(self._content(content, index) for index, content in enumerate(value))

    def _content(self, value: Any, index: int) -> Message:
        path = f"contents[{index}]"
        if isinstance(value, str):
            return Message("user", (Text(value),))
        content = self._spelling.members(value, path)
        if "parts" not in content and ("text" in content or any(kind in content for kind in PART_KINDS)):
            content = {"parts": [content]}
        role = content.get("role", "user")
        if not isinstance(role, str):
            raise wrong_type(f"{path}.role", "a string", role)
        known = _ROLES.get(role.lower() or "user")
        if known is None:
            raise bad_request(f"{path}.role: expected user or model, got {role[:40]!r}", f"{path}.role")
        return Message(known, self._parts(content.get("parts", []), f"{path}.parts", index, known))

    def _parts(self, value: Any, path: str, index: int, role: Role) -> tuple[Part, ...]:
        if isinstance(value, str | dict):
            value = [value]
        if not isinstance(value, list):
            raise wrong_type(path, "a list", value)
        return tuple(
            self._part(part, f"{path}[{number}]", f"{index}.{number}", role) for number, part in enumerate(value)
        )

    def _part(self, value: Any, path: str, place: str, role: Role) -> Part:
        if isinstance(value, str):
            return Text(value)
        part = self._spelling.members(value, path)
        seal = read_seal(part.get("thoughtSignature"), "")
        kind = next((kind for kind in PART_KINDS if kind in part), "text")
        match kind:
            case "functionCall":
                return self._call(part, f"{path}.functionCall", place)
            case "functionResponse":
                return self._result(part["functionResponse"], f"{path}.functionResponse", place)
            case "inlineData" | "fileData":
                media = self.media(part[kind], kind, f"{path}.{kind}")
                return msgspec.structs.replace(media, seal=seal, detail=self._detail(part))
            case "text" if "text" in part or not part or not part.keys() - {"thought", "thoughtSignature"}:
                text = _text(part.get("text", ""), f"{path}.text")
                if part.get("thought") is True and role == "assistant":
                    return Thinking(text, seal=seal)
                return Text(text, seal=seal)
            case _:
                type_name = kind if kind != "text" else next(iter(part))
                return Opaque(NAME, type_name, value, server_tool=server_tool_of(part))

    def _detail(self, part: Object) -> str:
        resolution = part.get("mediaResolution")
        level = resolution.get("level", "") if isinstance(resolution, dict) else resolution
        return _DETAILS.get(level.upper(), "") if isinstance(level, str) else ""

    def media(self, value: Any, kind: str, path: str) -> Media:
        data = self._spelling.members(value, path)
        mime = _text(data.get("mimeType", ""), f"{path}.mimeType")
        name = data.get("displayName", "")
        name = name if isinstance(name, str) else ""
        if kind == "inlineData":
            content = _text(data.get("data", ""), f"{path}.data")
            return Media(
                media_kind(mime or "application/octet-stream"),
                data=standard_base64(content),
                mime=normal_mime(mime),
                name=name,
            )
        return file_media(_text(data.get("fileUri", ""), f"{path}.fileUri"), mime, name)

    def _call(self, part: Object, path: str, place: str) -> ToolCall:
        call = self._spelling.members(part["functionCall"], path)
        name = _text(call.get("name", ""), f"{path}.name")
        if not name:
            raise bad_request(f"{path}.name: this field is required", f"{path}.name")
        arguments = call.get("args")
        if arguments is not None and not isinstance(arguments, dict):
            raise wrong_type(f"{path}.args", "an object", arguments)
        given = _text(call.get("id", ""), f"{path}.id")
        call_id = given or derived_call_id("request", _ordinal(place))
        self._unanswered.append((call_id, name))
        return ToolCall(
            call_id,
            name,
            wire_json.encode(arguments).decode() if arguments is not None else "",
            native_id=bool(given),
            seal=read_seal(part.get("thoughtSignature"), ""),
        )

    def _result(self, value: Any, path: str, place: str) -> ToolResult:
        response = self._spelling.members(value, path)
        name = _text(response.get("name", ""), f"{path}.name")
        given = _text(response.get("id", ""), f"{path}.id")
        body = response.get("response", {})
        if isinstance(body, str):
            body = {"result": body}
        if not isinstance(body, dict):
            raise wrong_type(f"{path}.response", "an object", body)
        media: list[Part] = []
        found = response.get("parts", [])
        for number, entry in enumerate(found if isinstance(found, list) else [found]):
            part = self._spelling.members(entry, f"{path}.parts[{number}]")
            for kind in ("inlineData", "fileData"):
                if kind in part:
                    media.append(self.media(part[kind], kind, f"{path}.parts[{number}].{kind}"))
        return results.read_result(self._answered(given, name, place), name, body, tuple(media))

    def _answered(self, given: str, name: str, place: str) -> str:
        """The call that is answered: by id, else the first open one of that name, else the first open one."""
        waiting = self._unanswered
        if given:
            self._unanswered = [call for call in waiting if call[0] != given]
            return given
        position = next((index for index, call in enumerate(waiting) if call[1] == name), 0)
        if not waiting:
            return derived_call_id("unasked", _ordinal(place))
        return waiting.pop(position)[0]

    # tools

    def _tools(self, value: Any) -> tuple[Tool, ...]:
        if isinstance(value, dict):
            value = [value]
        if value is None:
            return ()
        if not isinstance(value, list):
            raise wrong_type("tools", "a list", value)
        tools: list[Tool] = []
        for index, entry in enumerate(value):
            if not isinstance(entry, dict):
                raise wrong_type(f"tools[{index}]", "an object", entry)
            for name, member in self._spelling.members(entry, f"tools[{index}]").items():
                if name == "functionDeclarations":
                    tools += self._functions(member, f"tools[{index}].functionDeclarations")
                else:
                    tools.append(ServerTool(NAME, name, {name: member}, capability=CAPABILITIES.get(name, "")))
        return tuple(tools)

    def _functions(self, value: Any, path: str) -> list[FunctionTool]:
        if isinstance(value, dict):
            value = [value]
        if not isinstance(value, list):
            raise wrong_type(path, "a list", value)
        return [self._function(entry, f"{path}[{index}]") for index, entry in enumerate(value)]

    def _function(self, value: Any, path: str) -> FunctionTool:
        declaration = self._spelling.members(value, path)
        name = _text(declaration.get("name", ""), f"{path}.name")
        if not name:
            raise bad_request(f"{path}.name: this field is required", f"{path}.name")
        description = _text(declaration.get("description", ""), f"{path}.description")
        for field in ("parametersJsonSchema", "parameters"):
            if field in declaration and not isinstance(declaration[field], dict):
                raise wrong_type(f"{path}.{field}", "an object", declaration[field])
        if "parametersJsonSchema" in declaration:
            return FunctionTool(name, description, json_schema(declaration["parametersJsonSchema"]))
        return FunctionTool(name, description, declaration.get("parameters"), schema_style="openapi")

    def _tool_config(self, value: Any) -> tuple[ToolChoice | None, Object]:
        if value is None:
            return None, {}
        config = self._spelling.members(value, "toolConfig")
        calling = self._spelling.members(
            config.pop("functionCallingConfig", None) or {}, "toolConfig.functionCallingConfig"
        )
        mode = _text(calling.get("mode", ""), "toolConfig.functionCallingConfig.mode").upper()
        names = _texts(calling.get("allowedFunctionNames"), "toolConfig.functionCallingConfig.allowedFunctionNames")
        choice: ToolChoice | None = None
        match mode:
            case "AUTO" | "VALIDATED":
                choice = ToolChoice("auto", names)
            case "ANY":
                choice = ToolChoice("named" if len(names) == 1 else "required", names)
            case "NONE":
                choice = ToolChoice("none")
            case _:
                pass
        left = {key: member for key, member in calling.items() if key not in ("mode", "allowedFunctionNames")}
        if mode == "VALIDATED" and not names:
            left["mode"] = "VALIDATED"
        if left:
            config["functionCallingConfig"] = left
        return choice, config


class _Generation:
    """`generationConfig`, member by member; `rest` keeps what has no canonical place."""

    def __init__(self, config: Object, spelling: Spelling) -> None:
        self._config = config
        take = self._take
        top = take("logprobs", _whole)
        self.sampling = Sampling(
            temperature=take("temperature", _number),
            top_p=take("topP", _number),
            top_k=take("topK", _whole),
            presence_penalty=take("presencePenalty", _number),
            frequency_penalty=take("frequencyPenalty", _number),
            seed=take("seed", _whole),
            logprobs=take("responseLogprobs", _flag),
            top_logprobs=top,
        )
        self.max_output_tokens = take("maxOutputTokens", _whole)
        stop = config.pop("stopSequences", None)
        self.stop = _texts([stop] if isinstance(stop, str) else stop, "generationConfig.stopSequences")
        self.n = take("candidateCount", _whole) or 1
        self.format = self._format()
        self.reasoning = self._reasoning(spelling)
        modalities = _texts(config.pop("responseModalities", None), "generationConfig.responseModalities")
        self.modalities = tuple(name.lower() for name in modalities)
        self.rest = config

    def _take(self, name: str, convert: Callable[[Any, str], Any]) -> Any:
        value = self._config.pop(name, None)
        return None if value is None else convert(value, f"generationConfig.{name}")

    def _format(self) -> ResponseFormat | None:
        config = self._config
        mime = _text(config.get("responseMimeType", ""), "generationConfig.responseMimeType").lower()
        for name in ("responseJsonSchema", "_responseJsonSchema", "responseSchema"):
            schema = config.get(name)
            if schema is None:
                continue
            if not isinstance(schema, dict):
                raise wrong_type(f"generationConfig.{name}", "an object", schema)
            config.pop(name)
            config.pop("responseMimeType", None)
            title = schema.get("title")
            if name == "responseSchema":
                return ResponseFormat(
                    "schema", schema, name=title if isinstance(title, str) else "", schema_style="openapi"
                )
            return ResponseFormat("schema", json_schema(schema), name=title if isinstance(title, str) else "")
        if mime == "application/json":
            config.pop("responseMimeType")
            return ResponseFormat("json")
        if mime == "text/plain":
            config.pop("responseMimeType")
            return ResponseFormat("text")
        return None

    def _reasoning(self, spelling: Spelling) -> Reasoning | None:
        value = self._config.pop("thinkingConfig", None)
        if value is None:
            return None
        path = "generationConfig.thinkingConfig"
        config = spelling.members(value, path)
        visible = config.pop("includeThoughts", None)
        if visible is not None and not isinstance(visible, bool):
            raise wrong_type(f"{path}.includeThoughts", "a boolean", visible)
        budget, level = config.pop("thinkingBudget", None), config.pop("thinkingLevel", None)
        if config:
            self._config["thinkingConfig"] = config
        if budget is not None:
            return reasoning_for(None, _whole(budget, f"{path}.thinkingBudget"), visible=visible)
        word = _text(level, f"{path}.thinkingLevel") if level is not None else ""
        effort = None if word.upper() in _UNSAID else read_effort(word, f"{path}.thinkingLevel")
        return reasoning_for(effort, None, visible=visible)


# Shared with the reader of answers.


MediaKind = Literal["image", "audio", "video", "document"]


def media_kind(mime: str) -> MediaKind:
    return cast(MediaKind, kind_of(mime))


def normal_mime(mime: str) -> str:
    """Raw audio (`audio/L16;rate=24000`) cannot be played without its parameters; all else is normalised."""
    return mime if mime.lower().startswith("audio/l16") else normal(mime)


def file_media(uri: str, mime: str, name: str) -> Media:
    """`fileData`: an https address anybody can fetch, or a file that only Google's servers know."""
    kind: MediaKind = media_kind(mime) if mime else "video" if "youtu" in uri[:40] else "document"
    own = uri.startswith("gs://") or "generativelanguage.googleapis.com/" in uri[:60] or "://" not in uri
    if own:
        return Media(kind, file_id=uri, mime=normal(mime), name=name, origin=NAME)
    return Media(kind, url=uri, mime=normal(mime), name=name)


def server_tool_of(part: Object) -> str:
    if "executableCode" in part:
        return "code_execution"
    call = part.get("toolCall")
    if isinstance(call, dict):
        tool = call.get("toolType", call.get("tool_type", ""))
        return tool if isinstance(tool, str) and tool else "tool"
    return ""


def json_schema(schema: Object) -> Object:
    """Some clients put their upper-case types into the JSON Schema members."""
    kind = schema.get("type")
    return from_openapi(schema) if isinstance(kind, str) and kind.isupper() else schema


def _ordinal(place: str) -> int:
    content, _, part = place.partition(".")
    return int(content) * 100_000 + int(part)


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise wrong_type(path, "a string", value)
    return value


def _texts(value: Any, path: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise wrong_type(path, "a list", value)
    return tuple(_text(item, f"{path}[{index}]") for index, item in enumerate(value))


def _number(value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise bad_request(f"{path}: expected a number, got {kind_name(value)}", path)
    return value


def _whole(value: Any, path: str) -> int:
    number = integer(value)
    if number is None:
        raise bad_request(f"{path}: expected a whole number, got {kind_name(value)}", path)
    return number


def _flag(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise wrong_type(path, "a boolean", value)
    return value


def _list_of_objects(value: Any, path: str) -> tuple[Object, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise wrong_type(path, "a list", value)
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            raise wrong_type(f"{path}[{index}]", "an object", item)
    return tuple(value)
