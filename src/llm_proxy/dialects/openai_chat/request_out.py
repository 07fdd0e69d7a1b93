"""A canonical request as a Chat body for a target: parameters, tools, and a client's own bytes sent on with
another model.

What the target cannot take is emulated (duties), moved, refused, or named in the losses. For a request that
was read from this dialect the client's spelling is kept as long as it still says the same. Messages are
written by `messages_out`.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import msgspec

from llm_proxy.conversation.fault import bad_request
from llm_proxy.conversation.request import (
    CustomTool,
    FunctionTool,
    Reasoning,
    Request,
    ResponseFormat,
    ServerTool,
    Tool,
    ToolChoice,
)
from llm_proxy.dialects.base import Duties, Outgoing, Target
from llm_proxy.dialects.capabilities import Capabilities
from llm_proxy.dialects.efforts import budget_of, clamp_effort, effort_of, is_off, says_maximum, with_known_maximum
from llm_proxy.dialects.names import ToolNames
from llm_proxy.dialects.openai_chat.fields import NAME, Fields, refused
from llm_proxy.dialects.openai_chat.marks import write_mark
from llm_proxy.dialects.openai_chat.messages_out import MessageWriter
from llm_proxy.dialects.openai_chat.request_in import (
    LIMITS,
    REASONING,
    read_choice,
    read_format,
    read_reasoning,
    read_stop,
)
from llm_proxy.dialects.tool_schemas import for_openai, from_openapi
from llm_proxy.wire.faults import JsonFault
from llm_proxy.wire.json import encode, rename_model, rewrite

_TIERS = {
    "auto": "auto",
    "default": "default",
    "standard": "default",
    "standard_only": "default",
    "flex": "flex",
    "scale": "scale",
    "priority": "priority",
    "fast": "fast",
}
_SAMPLING = (
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "logit_bias",
    "logprobs",
    "top_logprobs",
)
_EFFORTS = (("reasoning_effort",), ("reasoning", "effort"))
_NOT_WHILE_REASONING = frozenset(_SAMPLING) - {"seed"}
_FORMAT_NAME = re.compile(r"[^A-Za-z0-9_-]+")


class _Call(msgspec.Struct):
    model: Any = None
    stream: Any = None
    stream_options: Any = None
    reasoning_effort: Any = None
    reasoning: Any = None


_decode_call = msgspec.json.Decoder(_Call).decode


def retarget(body: bytes, target: Target) -> bytes:
    """The client's bytes with the model replaced, `stream` as the call is made, and usage asked for in
    streams.
    """
    try:
        call = _decode_call(body)
        if says_maximum(call.reasoning_effort) or says_maximum(call.reasoning, "effort"):
            body = with_known_maximum(body, _EFFORTS, clamp_effort("max", target.capabilities.efforts))
        old: dict[str, Any] = {}
        new: dict[str, Any] = {"model": target.model}
        if (call.stream is True) != target.stream:
            new["stream"] = target.stream
        options = call.stream_options
        if options is not None:
            old["stream_options"] = options
        if target.stream and target.ask_usage and target.capabilities.stream_usage:
            new["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
        elif target.stream and options is not None:
            new["stream_options"] = options
        same_options = old.get("stream_options") == new.get("stream_options")
        if isinstance(call.model, str) and same_options and "stream" not in new:
            return rename_model(body, call.model, target.model)
        return rewrite(body, old, new)
    except JsonFault as fault:
        raise refused(fault) from None
    except (msgspec.MsgspecError, RecursionError):
        raise bad_request("the body is not a JSON object") from None


def write_request(request: Request, target: Target) -> Outgoing:
    """The body for `target`. Raises FaultError for a part or tool that the target cannot take and nothing can
    stand in for.
    """
    return _Writer(request, target).write()


_STEERING = frozenset((*LIMITS, *REASONING, *_SAMPLING, "top_k", "min_p", "parallel_tool_calls"))
# The controls of reasoning that a target of each form takes as they are, words of effort apart.
_CONTROLS = {
    "effort": frozenset(("reasoning_effort",)),
    "object": frozenset(("reasoning_effort", "reasoning", "include_reasoning")),
    "switch": frozenset(("thinking",)),
    "enable": frozenset(("enable_thinking", "thinking_budget")),
}
_KNOWS_NO_EFFORTS = Capabilities().efforts


def steering(request: Request, target: Target) -> tuple[dict[str, Any], dict[str, Any]]:
    """The members that steer the model: as the client wrote them, and as the target's model takes them."""
    sampling = request.sampling
    written: dict[str, Any] = {name: getattr(sampling, name) for name in (*_SAMPLING, "top_k", "min_p")}
    written["parallel_tool_calls"] = request.parallel_tool_calls
    as_read = {name: value for name, value in written.items() if value is not None}
    as_read |= {name: request.native[name] for name in (*LIMITS, *REASONING) if name in request.native}
    replaced = LIMITS if _takes_controls(request, target) else (*LIMITS, *REASONING)
    native = {name: value for name, value in request.native.items() if name not in replaced}
    bare = msgspec.structs.replace(request, native=native, messages=(), tools=(), tool_choice=None)
    adapted = write_request(bare, target).body
    adapted = {name: value for name, value in adapted.items() if name in _STEERING}
    if not target.capabilities.top_k:
        adapted = {name: value for name, value in adapted.items() if name not in ("top_k", "min_p")}
    if request.parallel_tool_calls and not target.capabilities.parallel_switch:
        del adapted["parallel_tool_calls"]
    return as_read, adapted


def _takes_controls(request: Request, target: Target) -> bool:
    """Does the target take the client's own controls of reasoning? Of a model that no table knows the client knows more."""
    can, reasoning = target.capabilities, request.reasoning
    named = {name for name in REASONING if name in request.native}
    if reasoning is None or not named or can.thinking == "none":
        return False
    if can.efforts == _KNOWS_NO_EFFORTS and can.thinking == "effort":
        return True
    effort = effort_of(reasoning)
    known = can.thinking != "effort" or (effort in can.efforts and (can.thinking_off or effort != "none"))
    return known and named <= _CONTROLS.get(can.thinking, frozenset())


def write_count_request(request: Request, target: Target) -> dict[str, Any]:
    """What a tokenizing endpoint of this dialect's servers (vLLM's `/tokenize`) counts: the messages and the
    tools.
    """
    body = write_request(msgspec.structs.replace(request, stream=False), target).body
    return {name: body[name] for name in ("model", "messages", "tools") if name in body}


class _Writer:
    def __init__(self, request: Request, target: Target) -> None:
        self.request = request
        self.target = target
        self.can = target.capabilities
        self.own = request.dialect == NAME
        self.names = ToolNames(self.can.tool_name_limit)
        self.losses: dict[str, None] = {}
        self.body: dict[str, Any] = {"model": target.model}
        self.reasoning = request.reasoning
        self.tools = request.tools
        self.stop_duty: tuple[str, ...] = ()
        self.namespaces: dict[str, tuple[str, str]] = {}
        self.customs: set[str] = set()
        self.first_call_only = False
        self.copies = 1

    def lose(self, sentence: str) -> None:
        self.losses[sentence] = None

    def write(self) -> Outgoing:
        messages = MessageWriter(self.request, self.target, self.names)
        self.body["messages"] = messages.write()
        self._write_tools(messages)
        self._write_reasoning()
        self._write_sampling()
        self._write_limits()
        self._write_format()
        self._write_rest()
        self._write_stream()
        self.losses.update(messages.losses)
        return Outgoing(body=self.body, losses=tuple(self.losses), duties=self._duties())

    def _duties(self) -> Duties:
        return Duties(
            names={at: name for at, name in self.names.back.items() if at not in self.namespaces},
            namespaces=self.namespaces,
            custom_tools=frozenset(self.customs),
            stop=self.stop_duty,
            first_call_only=self.first_call_only,
            copies=self.copies,
        )

    def _native(self, *names: str) -> dict[str, Any]:
        """The client's own spelling of these members, when it spoke this dialect."""
        if not self.own:
            return {}
        return {name: self.request.native[name] for name in names if name in self.request.native}

    # ---- tools

    def _write_tools(self, messages: MessageWriter) -> None:
        choice = self._choice()
        tools, functions = [], []
        for tool in self.tools:
            if isinstance(tool, FunctionTool) and tool.legacy and self.own:
                functions.append(self._function(tool, tool.name))
                continue
            written = self._tool(tool, messages)
            if written is not None:
                tools.append({**written, **write_mark(tool.cache, self.own, self.can)})
        if tools:
            self.body["tools"] = tools
        if functions:
            self.body["functions"] = functions
        self._write_choice(choice, messages, legacy=bool(functions) and not tools)
        parallel = self.request.parallel_tool_calls
        if parallel is not None and (tools or self.own):
            if self.can.parallel_switch or self.own:
                self.body["parallel_tool_calls"] = parallel
            else:
                self.first_call_only = not parallel

    def _tool(self, tool: Tool, messages: MessageWriter) -> dict[str, Any] | None:
        match tool:
            case FunctionTool():
                name = messages.tool_name(tool.name, tool.namespace)
                if tool.namespace and not self.own:
                    self.namespaces[name] = (tool.namespace, tool.name)
                return {"type": "function", "function": self._function(tool, name)}
            case CustomTool():
                return self._custom(tool, messages.tool_name(tool.name, tool.namespace))
            case ServerTool(origin=origin, raw=raw) if origin == NAME:
                return raw
            case ServerTool(capability="web_search") if self.can.server_tools:
                self.body["web_search_options"] = {}
                return None
            case ServerTool(origin="anthropic-messages") if not self._dispensable(tool):
                raise bad_request(f"tools: a tool of type {tool.type} is not available at this target", "tools")
            case _:
                self.lose(f"tools: {tool.type} is known to {tool.origin} only")
                return None

    def _dispensable(self, tool: ServerTool) -> bool:
        """Agents offer web search beside many tools of their own and work without it; alone it is what was
        asked for, and refused (FE-04).
        """
        return tool.capability == "web_search" and any(
            not isinstance(other, ServerTool) for other in self.request.tools
        )

    def _function(self, tool: FunctionTool, name: str) -> dict[str, Any]:
        out: dict[str, Any] = {"name": name}
        if tool.description:
            out["description"] = tool.description
        if tool.parameters is not None:
            out["parameters"] = tool.parameters if self.own else self._schema(tool)
        if tool.strict is not None and (self.can.strict_tools or self.own):
            out["strict"] = tool.strict
        elif tool.strict:
            self.lose(f"tools: strict is not supported by {self.target.model}")
        return out

    def _schema(self, tool: FunctionTool) -> dict[str, Any]:
        schema = from_openapi(tool.parameters) if tool.schema_style == "openapi" else tool.parameters
        # A client that asked for strictness wrote a strict schema: it is not made strict here, only
        # completed.
        written, lost = for_openai(schema, strict=False)
        for sentence in lost:
            self.lose(f"tools: {sentence}")
        return written

    def _custom(self, tool: CustomTool, name: str) -> dict[str, Any]:
        if tool.namespace:
            self.namespaces[name] = (tool.namespace, tool.name)
        if self.can.custom_tools or self.own:
            custom: dict[str, Any] = {"name": name}
            if tool.description:
                custom["description"] = tool.description
            if tool.format is not None:
                custom["format"] = _nested_format(tool.format)
            return {"type": "custom", "custom": custom}
        self.customs.add(name)
        return {"type": "function", "function": _wrapped(name, tool)}

    # ---- tool choice

    def _choice(self) -> ToolChoice | None:
        """The choice that the target takes; narrows the tools where it knows no subset, and switches thinking
        off where forcing forbids it.
        """
        choice = self.request.tool_choice
        if choice is None or self.own or not self.tools:
            return choice
        if choice.names and choice.mode in ("auto", "required") and not self.can.allowed_tools:
            self.tools = tuple(tool for tool in self.tools if _name_of(tool) in choice.names)
            choice = ToolChoice(choice.mode)
        if choice.mode not in ("required", "named"):
            return choice
        if not self.can.forced_tools:
            self.lose(f"tool_choice: {self.target.model} cannot be forced to call a tool")
            return ToolChoice("auto", choice.names if self.can.allowed_tools else ())
        if not self.can.forced_with_thinking and self._reasons():
            if not self.can.thinking_off:
                self.lose(f"tool_choice: {self.target.model} cannot be forced to call a tool while it reasons")
                return ToolChoice("auto")
            self.lose("reasoning: switched off, because a tool call is forced")
            self.reasoning = Reasoning("off")
        return choice

    def _write_choice(self, choice: ToolChoice | None, messages: MessageWriter, legacy: bool) -> None:
        native = self._native("tool_choice", "function_call")
        if native and read_choice(Fields(native)) == choice:
            self.body.update(native)
            return
        if choice is None or not (self.tools or self.own):
            return
        if legacy:
            named = {"name": choice.names[0]} if choice.mode == "named" else choice.mode
            self.body["function_call"] = named
        elif choice.mode == "named" or choice.names:
            chosen = [self._chosen(name, messages) for name in choice.names]
            allowed = {"mode": choice.mode, "tools": chosen}
            self.body["tool_choice"] = (
                chosen[0] if choice.mode == "named" else {"type": "allowed_tools", "allowed_tools": allowed}
            )
        else:
            self.body["tool_choice"] = choice.mode

    def _chosen(self, name: str, messages: MessageWriter) -> dict[str, Any]:
        tool = next((tool for tool in self.tools if _name_of(tool) == name), None)
        if isinstance(tool, ServerTool):
            return {"type": tool.type}
        namespace = tool.namespace if tool is not None else ""
        at_target = messages.tool_name(name, namespace)
        kind = "custom" if isinstance(tool, CustomTool) and at_target not in self.customs else "function"
        return {"type": kind, kind: {"name": at_target}}

    # ---- reasoning

    def _reasons(self) -> bool:
        """Will the model reason on this request?"""
        if self.can.thinking == "none":
            return False
        if self.reasoning is None:
            return self.can.reasons_by_default
        return not is_off(self.reasoning) or not self.can.thinking_off

    def _write_reasoning(self) -> None:
        native = self._native(*REASONING)
        if native and read_reasoning(Fields(native)) == self.reasoning:
            self.body.update(native)
            return
        reasoning = self.reasoning
        if reasoning is None:
            return
        off = is_off(reasoning)
        if off and not self.can.thinking_off and self.can.thinking != "none":
            self.lose(f"reasoning: {self.target.model} cannot switch reasoning off")
        match self.can.thinking:
            case "none":
                if not off:
                    self.lose(f"reasoning: not supported by {self.target.model}")
            case "switch":
                if not off or self.can.thinking_off:
                    self.body["thinking"] = {"type": "disabled" if off else "enabled"}
            case "enable":
                if not off or self.can.thinking_off:
                    self.body["enable_thinking"] = not off
                if (budget := self._qwen_budget(reasoning)) is not None:
                    self.body["thinking_budget"] = budget
            case "object":
                self.body["reasoning"] = _reasoning_object(reasoning, off)
            case "budget" | "gemini-budget":
                budget = budget_of(reasoning, least=self.can.least_thinking_budget, most=self.can.max_thinking_budget)
                if budget is not None:
                    self.body["thinking_budget"] = budget
            case _:
                self._write_effort(reasoning, off)

    def _qwen_budget(self, reasoning: Reasoning) -> int | None:
        """Tokens beside `enable_thinking`, which knows no effort. The most is what the model does without a number."""
        if reasoning.mode != "budget" and reasoning.effort == "max":
            return self.can.max_thinking_budget or None
        return budget_of(reasoning, least=self.can.least_thinking_budget, most=self.can.max_thinking_budget) or None

    def _write_effort(self, reasoning: Reasoning, off: bool) -> None:
        effort = effort_of(reasoning)
        if effort is None:
            if self.can.reasons_by_default:
                return
            effort = "medium"  # the client wants reasoning of a model that does none unasked
        if off:
            if not self.can.reasons_by_default:
                return
            if not self.can.thinking_off:
                effort = clamp_effort("minimal", self.can.efforts)
        taken = clamp_effort(effort, self.can.efforts)
        if taken != effort and not off:
            self.lose(f"reasoning: effort {effort} is not known to {self.target.model}, sent as {taken}")
        self.body["reasoning_effort"] = taken

    # ---- parameters

    def _write_sampling(self) -> None:
        sampling = self.request.sampling
        reasons = self._reasons()
        closed = self.can.sampling == "none" and (reasons or not self.can.sampling_when_off)
        for name in _SAMPLING:
            value = getattr(sampling, name)
            if value is None:
                continue
            if closed and name in _NOT_WHILE_REASONING:
                self.lose(f"{name}: not supported by {self.target.model}" + (" while it reasons" if reasons else ""))
            elif (not self.can.logprobs and name in ("logprobs", "top_logprobs")) or (
                not self.can.penalties and name.endswith("_penalty")
            ):
                self.lose(f"{name}: not supported by {self.target.model}")
            else:
                self.body[name] = value
        if self.can.sampling == "one" and "temperature" in self.body and "top_p" in self.body:
            del self.body[self.request.lesser]
            self.lose(f"{self.request.lesser}: {self.target.model} does not take both temperature and top_p")
        for name in ("top_k", "min_p"):
            value = getattr(sampling, name)
            if value is None:
                continue
            if self.can.top_k or (self.own and name not in self.request.added):
                self.body[name] = value
            else:
                self.lose(f"{name}: not supported by OpenAI Chat")

    def _write_limits(self) -> None:
        request = self.request
        limit = request.max_output_tokens
        if limit is not None:
            if not self.own and self.can.max_output and limit > self.can.max_output:
                limit = self.can.max_output
            limit = max(limit, self.can.min_output)
            used = next((name for name in LIMITS if name in self._native(*LIMITS)), self.can.limit_field)
            self.body[used] = limit
        if request.stop:
            self._write_stop(request.stop)
        if request.n > 1:
            if self.can.multiple_choices:
                self.body["n"] = request.n
            else:
                self.copies = request.n

    def _write_stop(self, stop: tuple[str, ...]) -> None:
        native = self._native("stop")
        if native and read_stop(Fields(native)) == stop and len(stop) <= self.can.max_stop:
            self.body.update(native)
            return
        # Reasoning models of OpenAI refuse the parameter; there the proxy stops the answer itself.
        closed = self.can.sampling == "none" and (self._reasons() or not self.can.sampling_when_off)
        taken = () if closed else stop[: self.can.max_stop]
        self.stop_duty = stop[len(taken) :]
        if taken:
            self.body["stop"] = list(taken)

    def _write_format(self) -> None:
        wanted = self.request.format
        native = self._native("response_format")
        if native and wanted is not None and read_format(Fields(native)) == wanted:
            self.body.update(native)
            return
        if wanted is None:
            return
        match wanted.kind:
            case "text":
                if self.own:
                    self.body["response_format"] = {"type": "text"}
            case "json":
                self.body["response_format"] = {"type": "json_object"}
            case "schema" if self.can.schema_output or self.own:
                self.body["response_format"] = {"type": "json_schema", "json_schema": _schema_format(wanted)}
            case "schema":
                self.body["response_format"] = {"type": "json_object"}
                self._instruct(wanted)

    def _instruct(self, wanted: ResponseFormat) -> None:
        """A target that cannot enforce a schema is told it; the answer is checked elsewhere."""
        self.lose(f"response_format: {self.target.model} is told the schema but does not enforce it")
        text = (
            "Answer with one JSON object that fits this JSON Schema, and nothing else:\n"
            + encode(_plain_schema(wanted)).decode()
        )
        messages: list[dict[str, Any]] = self.body["messages"]
        leading = sum(1 for _ in _leading_system(messages))
        if leading and isinstance(messages[leading - 1]["content"], str):
            last = messages[leading - 1]
            messages[leading - 1] = {**last, "content": f"{last['content']}\n\n{text}"}
        else:
            messages.insert(leading, {"role": "system", "content": text})

    # ---- the rest

    def _write_rest(self) -> None:
        request, body = self.request, self.body
        if self.own:
            self._write_own_rest()
            return
        if request.user:
            body["user"] = request.user if len(request.user) <= 64 else _hashed(request.user)
        if request.tier:
            if self.can.openai_extras and request.tier in _TIERS:
                body["service_tier"] = _TIERS[request.tier]
            else:
                self.lose(f"service_tier: {request.tier} is not known to {self.target.model}")
        for name, value in (("verbosity", request.verbosity), ("prompt_cache_key", request.cache_key)):
            if value and self.can.openai_extras:
                body[name] = value
            elif value and name == "verbosity":
                self.lose(f"verbosity: not supported by {self.target.model}")
        if request.metadata:
            self.lose("metadata: not sent to OpenAI Chat")
        self._write_modalities()
        if request.safety:
            self.lose("safety settings: not supported by OpenAI Chat")
        if request.previous_id:
            self.lose("previous_response_id: not supported by OpenAI Chat")
        marked = [part for message in request.messages for part in message.parts if getattr(part, "cache", None)]
        if marked and not self.can.cache_marks:
            self.lose(f"cache marks: not supported by {self.target.model}")
        for name in request.rest:
            self.lose(f"{name}: no equivalent in OpenAI Chat")

    def _write_modalities(self) -> None:
        wanted = tuple(word.lower() for word in self.request.modalities)
        if not wanted or wanted == ("text",):
            return
        known = [word for word in wanted if word in ("text", "audio")]
        if len(known) < len(wanted) or (self.request.audio is None and "audio" in known):
            self.lose("modalities: generated images, or audio without a voice, are not supported by OpenAI Chat")
            return
        self.body["modalities"] = known
        self.body["audio"] = self.request.audio

    def _write_own_rest(self) -> None:
        request, body = self.request, self.body
        body.update(request.rest)
        named: tuple[tuple[str, Any], ...] = (
            ("verbosity", request.verbosity),
            ("modalities", list(request.modalities)),
            ("audio", request.audio),
            ("prompt_cache_key", request.cache_key),
            ("service_tier", request.tier),
            ("safety_identifier" if "safety_identifier" in request.native else "user", request.user),
        )
        body.update((name, value) for name, value in named if value)
        if request.metadata is not None:
            body["metadata"] = request.metadata
        if request.store is not None:
            body["store"] = request.store

    def _write_stream(self) -> None:
        if not self.target.stream:
            return
        self.body["stream"] = True
        options = dict(self._native("stream_options").get("stream_options") or {})
        if self.target.ask_usage and self.can.stream_usage:
            options["include_usage"] = True
        if options:
            self.body["stream_options"] = options


def _name_of(tool: Tool) -> str:
    return tool.type if isinstance(tool, ServerTool) else tool.name


def _nested_format(flat: dict[str, Any]) -> dict[str, Any]:
    if flat.get("type") != "grammar" or "grammar" in flat:
        return flat
    return {"type": "grammar", "grammar": {name: value for name, value in flat.items() if name != "type"}}


def _wrapped(name: str, tool: CustomTool) -> dict[str, Any]:
    """A free-text tool as a function with one text property; its format is told in the description."""
    notes = [tool.description] if tool.description else []
    form = tool.format or {}
    if form.get("type") == "grammar":
        notes.append(f"The input is free text in this {form.get('syntax', '')} grammar:\n{form.get('definition', '')}")
    else:
        notes.append("The input is free text.")
    prop = {"type": "string", "description": "The whole input of the tool, as plain text."}
    parameters = {
        "type": "object",
        "properties": {"input": prop},
        "required": ["input"],
        "additionalProperties": False,
    }
    return {"name": name, "description": "\n\n".join(notes), "parameters": parameters}


def _reasoning_object(reasoning: Reasoning, off: bool) -> dict[str, Any]:
    """OpenRouter's `reasoning`: an effort or a budget, never both."""
    if off:
        return {"enabled": False}
    out: dict[str, Any] = {}
    if reasoning.mode == "budget" and reasoning.budget is not None and reasoning.budget > 0:
        out["max_tokens"] = reasoning.budget
    elif reasoning.mode != "budget" and reasoning.effort is not None:
        # Its words end at xhigh: openrouter.ai/docs/guides/best-practices/reasoning-tokens, November 2026.
        out["effort"] = "xhigh" if reasoning.effort == "max" else reasoning.effort
    else:
        out["enabled"] = True
    if reasoning.visible is False:
        out["exclude"] = True
    return out


def _plain_schema(wanted: ResponseFormat) -> dict[str, Any]:
    schema = wanted.schema or {}
    return from_openapi(schema) if wanted.schema_style == "openapi" else schema


def _schema_format(wanted: ResponseFormat) -> dict[str, Any]:
    schema = _plain_schema(wanted)
    title = schema.get("title")
    name = wanted.name or (title if isinstance(title, str) else "") or "output"
    out: dict[str, Any] = {"name": _FORMAT_NAME.sub("_", name)[:64]}
    if wanted.description:
        out["description"] = wanted.description
    if wanted.schema is not None:
        out["schema"] = schema
    if wanted.strict is not None:
        out["strict"] = wanted.strict
    return out


def _leading_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for message in messages:
        if message["role"] not in ("system", "developer"):
            break
        found.append(message)
    return found


def _hashed(user: str) -> str:
    """OpenAI limits the end user's id to 64 characters: a longer one is sent as its digest, which is as
    stable.
    """
    return hashlib.sha256(user.encode("utf-8", "replace")).hexdigest()
