"""A client's Chat request as a canonical one: parameters and tools. Messages are read by `messages_in`.

Reads the parameter spellings of OpenAI and of the servers that speak its dialect. What can be said in several
ways is kept in `Request.native`, what has no canonical member in `Request.rest`. Knows nothing of where the
request will go.
"""

from __future__ import annotations

from typing import Any

from llm_proxy.conversation.fault import bad_request
from llm_proxy.conversation.request import (
    CustomTool,
    FunctionTool,
    Reasoning,
    Request,
    ResponseFormat,
    Sampling,
    ServerTool,
    Tool,
    ToolChoice,
)
from llm_proxy.dialects.base import Head
from llm_proxy.dialects.efforts import check_effort, read_effort, reasoning_for
from llm_proxy.dialects.openai_chat.fields import (
    NAME,
    Fields,
    as_fields,
    decoded,
    missing,
    unprocessable,
    wrong_type,
)
from llm_proxy.dialects.openai_chat.marks import read_mark
from llm_proxy.dialects.openai_chat.messages_in import list_messages, read_messages
from llm_proxy.wire.json import Body

LIMITS = ("max_completion_tokens", "max_tokens")
REASONING = (
    "reasoning_effort",
    "reasoning",
    "thinking",
    "enable_thinking",
    "thinking_budget",
    "include_reasoning",
)
_NUMBERS = (
    "temperature",
    "top_p",
    "min_p",
    "top_k",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "n",
    "top_logprobs",
    "thinking_budget",
    *LIMITS,
)
_UNSAID = "default"  # Groq's word for leaving the effort to the model
_SAMPLING = ("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty")
_KNOWN = frozenset(
    (
        "model",
        "messages",
        "tools",
        "functions",
        "tool_choice",
        "function_call",
        "parallel_tool_calls",
        "top_k",
        "seed",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "stop",
        "n",
        "response_format",
        "verbosity",
        "modalities",
        "audio",
        "prompt_cache_key",
        "service_tier",
        "user",
        "safety_identifier",
        "metadata",
        "store",
        "stream",
        "stream_options",
        *LIMITS,
        *REASONING,
        *_SAMPLING,
    )
)
_CAPABILITIES = {
    "web_search": "web_search",
    "web_search_preview": "web_search",
    "openrouter:web_search": "web_search",
    "browser_search": "web_search",
    "code_interpreter": "code_execution",
    "code_execution": "code_execution",
    "file_search": "file_search",
    "image_generation": "image_generation",
    "mcp": "mcp",
}


MOST_CHOICES = 128  # OpenAI's own limit


def read_head(body: Body, path_model: str = "") -> Head:
    """The few members that routing needs. Others are looked at only so far that also a body that goes on byte for
    byte has messages, and numbers where numbers belong (FE-02).

    `path_model`: Azure's paths name the model, its bodies need not.
    """
    fields = decoded(body)
    _check_outline(fields)
    options = fields.object("stream_options")
    return Head(
        model=read_model(fields, path_model),
        stream=fields.flag("stream") or False,
        size=len(body),
        include_usage=bool(options and options.flag("include_usage")),
        user=fields.text("user"),
        hides_reasoning=_hides_reasoning(fields.raw.get("reasoning")),
    )


def _hides_reasoning(control: Any) -> bool:
    return type(control) is dict and control.get("exclude") is True


def _check_outline(fields: Fields) -> None:
    messages = fields.raw.get("messages")
    if not messages or type(messages) is not list:
        list_messages(fields)
    for name in _NUMBERS:
        value = fields.raw.get(name)
        if value is not None and (type(value) is bool or not isinstance(value, int | float)):
            raise wrong_type(name, "a number", value)
    if (effort := fields.raw.get("reasoning_effort")) != _UNSAID:
        check_effort(effort, "reasoning_effort")
    control = fields.raw.get("reasoning")
    if type(control) is dict:
        check_effort(control.get("effort"), "reasoning.effort")


def read_model(fields: Fields, path_model: str) -> str:
    return fields.text("model") or path_model


def read_request(body: Body, path_model: str = "") -> Request:
    """The whole request. Raises FaultError (400 with the field's path, 422 for an impossible combination)."""
    fields = decoded(body)
    raw = fields.raw
    model = read_model(fields, path_model)
    messages = read_messages(fields)
    tools = _read_tools(fields)
    choice = read_choice(fields)
    _check_choice(choice, tools)
    options = fields.object("stream_options")
    output_format = read_format(fields)
    rest = {name: value for name, value in raw.items() if name not in _KNOWN and value is not None}
    if output_format is None and fields.has("response_format"):
        rest["response_format"] = raw["response_format"]
    if fields.has("user") and fields.has("safety_identifier"):
        rest["safety_identifier"] = fields.text("safety_identifier")
    return Request(
        dialect=NAME,
        model=model,
        messages=messages,
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=fields.flag("parallel_tool_calls"),
        sampling=_read_sampling(fields),
        max_output_tokens=_read_limit(fields),
        stop=read_stop(fields),
        n=_read_copies(fields),
        format=output_format,
        reasoning=read_reasoning(fields),
        verbosity=fields.text("verbosity"),
        modalities=fields.texts("modalities"),
        audio=fields.mapping("audio"),
        cache_key=fields.text("prompt_cache_key"),
        tier=fields.text("service_tier"),
        user=fields.text("user") or fields.text("safety_identifier"),
        metadata=fields.mapping("metadata"),
        store=fields.flag("store"),
        stream=fields.flag("stream") or False,
        include_usage=bool(options and options.flag("include_usage")),
        rest=rest,
        native=_native(raw),
    )


def _native(raw: dict[str, Any]) -> dict[str, Any]:
    """The members whose spelling a writer of this dialect may want back."""
    names = (*LIMITS, *REASONING, "stop", "tool_choice", "function_call", "response_format", "stream_options")
    found = {name: raw[name] for name in names if raw.get(name) is not None}
    if raw.get("user") is None and raw.get("safety_identifier") is not None:
        found["safety_identifier"] = raw["safety_identifier"]
    return found


def _read_sampling(fields: Fields) -> Sampling:
    numbers = {name: fields.number(name) for name in _SAMPLING}
    bias = fields.mapping("logit_bias")
    if bias is not None:
        inner = Fields(bias, "logit_bias")
        bias = {name: inner.number(name) or 0 for name in bias}
    return Sampling(
        **numbers,
        top_k=fields.integer("top_k"),
        seed=fields.integer("seed"),
        logit_bias=bias,
        logprobs=fields.flag("logprobs"),
        top_logprobs=fields.integer("top_logprobs"),
    )


def _read_limit(fields: Fields) -> int | None:
    limits = [fields.integer(name) for name in LIMITS]
    return next((limit for limit in limits if limit is not None), None)


def _read_copies(fields: Fields) -> int:
    copies = fields.integer("n")
    if copies is not None and copies < 1:
        raise wrong_type("n", "a positive integer", copies)
    if copies is not None and copies > MOST_CHOICES:
        raise bad_request(f"n: at most {MOST_CHOICES}", "n")
    return copies or 1


def read_stop(fields: Fields) -> tuple[str, ...]:
    stop = fields.raw.get("stop")
    if isinstance(stop, str):
        return (stop,)
    if stop is not None and not isinstance(stop, list):
        raise wrong_type("stop", "a string or a list", stop)
    return fields.texts("stop")


# ---- reasoning


def read_reasoning(fields: Fields) -> Reasoning | None:
    """How much the model shall think, from whichever of the dialects' controls is there."""
    control = fields.object("reasoning")
    word, path = fields.text("reasoning_effort"), "reasoning_effort"
    if not word and control:
        word, path = control.text("effort"), "reasoning.effort"
    effort = read_effort(word, path) if word and word != _UNSAID else None
    budget = fields.integer("thinking_budget")
    visible: bool | None = None
    summary = ""
    switched: bool | None = fields.flag("enable_thinking")
    if control:
        budget = control.integer("max_tokens") if control.has("max_tokens") else budget
        switched = control.flag("enabled") if control.has("enabled") else switched
        visible = not control.flag("exclude") if control.has("exclude") else None
        summary = control.text("summary")
    thinking = fields.object("thinking")
    if thinking:
        switched = thinking.text("type") != "disabled"
        budget = thinking.integer("budget_tokens") if thinking.has("budget_tokens") else budget
    included = fields.flag("include_reasoning")
    visible = included if included is not None and visible is None else visible
    if switched is False:
        return Reasoning("off", visible=visible, summary=summary)
    if word or switched or control or budget is not None:
        return reasoning_for(effort, budget, visible=visible, summary=summary)
    return None


# ---- tools


def _read_tools(fields: Fields) -> tuple[Tool, ...]:
    tools = [_read_tool(tool) for tool in fields.objects("tools")]
    tools += [_read_function(function, {}, legacy=True) for function in fields.objects("functions")]
    return tuple(tools)


def _read_tool(tool: Fields) -> Tool:
    kind = tool.text("type") or "function"
    match kind:
        case "function":
            # Some clients send the flat form of the Responses protocol.
            return _read_function(tool.object("function") or tool, tool.raw)
        case "custom":
            custom = tool.object("custom") or tool
            return CustomTool(
                name=custom.needed_text("name"),
                description=custom.text("description"),
                format=_flat_format(custom.mapping("format")),
                cache=read_mark(tool.raw),
            )
        case _:
            return ServerTool(
                origin=NAME,
                type=kind,
                raw=tool.raw,
                capability=_CAPABILITIES.get(kind, ""),
                cache=read_mark(tool.raw),
            )


def _read_function(function: Fields, tool: dict[str, Any], legacy: bool = False) -> FunctionTool:
    return FunctionTool(
        name=function.needed_text("name"),
        description=function.text("description"),
        parameters=function.mapping("parameters"),
        strict=function.flag("strict"),
        cache=read_mark(tool),
        legacy=legacy,
    )


def _flat_format(raw: dict[str, Any] | None) -> dict[str, Any] | None:
    """Chat nests the grammar; the canonical form is the flat one of Responses."""
    if raw is None or not isinstance(raw.get("grammar"), dict):
        return raw
    return {"type": "grammar", **raw["grammar"]}


def read_choice(fields: Fields) -> ToolChoice | None:
    if not fields.has("tool_choice") and fields.has("function_call"):
        return _read_legacy_choice(fields)
    choice = fields.raw.get("tool_choice")
    match choice:
        case None:
            return None
        case "none" | "auto" | "required":
            return ToolChoice(choice)
        case "any":  # Mistral's word for required
            return ToolChoice("required")
        case str():
            raise wrong_type("tool_choice", "none, auto, required or an object", choice)
    given = as_fields(choice, "tool_choice")
    kind = given.text("type") or "function"
    if kind == "allowed_tools":
        allowed = given.object("allowed_tools") or given
        names = tuple(_chosen_name(tool, tool.text("type") or "function") for tool in allowed.objects("tools"))
        return ToolChoice("required" if allowed.text("mode") == "required" else "auto", names)
    return ToolChoice("named", (_chosen_name(given, kind),))


def _chosen_name(choice: Fields, kind: str) -> str:
    inner = choice.object("custom" if kind == "custom" else "function") or choice
    return inner.text("name") or kind if inner is choice else inner.needed_text("name")


def _read_legacy_choice(fields: Fields) -> ToolChoice:
    choice = fields.raw["function_call"]
    match choice:
        case "none" | "auto":
            return ToolChoice(choice)
        case dict():
            return ToolChoice("named", (Fields(choice, "function_call").needed_text("name"),))
        case _:
            raise wrong_type("function_call", "none, auto or an object", choice)


def _check_choice(choice: ToolChoice | None, tools: tuple[Tool, ...]) -> None:
    if choice is None or not choice.names:
        return
    declared = {tool.type if isinstance(tool, ServerTool) else tool.name for tool in tools}
    for name in choice.names:
        if name not in declared:
            raise unprocessable(f"tool_choice: no tool named {name!r} is declared", "tool_choice")


def read_format(fields: Fields) -> ResponseFormat | None:
    """The output format; None when there is none, or one that only its own server knows."""
    given = fields.object("response_format")
    if given is None:
        return None
    match given.needed_text("type"):
        case "text":
            return ResponseFormat("text")
        case "json_object":
            return ResponseFormat("json")
        case "json_schema":
            schema = given.object("json_schema")
            if schema is None:
                raise missing("response_format.json_schema")
            return ResponseFormat(
                "schema",
                schema=schema.mapping("schema"),
                name=schema.text("name"),
                description=schema.text("description"),
                strict=schema.flag("strict"),
            )
        case _:
            return None
