"""Whether a request body is one that the provider's API takes.

Owns a checker of plain JSON against the official SDKs' own request types, and the rules of the protocol pages
that types do not express (pairing of calls and results, ids, empty texts, limits). It judges what arrives
upstream and nothing else.
"""

from __future__ import annotations

import re
import types as python_types
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import pydantic
from anthropic.types import message_count_tokens_params, message_create_params
from anthropic.types.beta import message_count_tokens_params as beta_count_params
from anthropic.types.beta import message_create_params as beta_create_params
from google.genai import types as genai_types
from openai.types.chat import completion_create_params
from openai.types.responses import response_create_params
from typing_extensions import is_typeddict

from tests.support.shared import Protocol

# Fields that the API takes although this SDK's types have dropped or never had them; each with its reason.
TOLERATED: Final[Mapping[Protocol, Mapping[str, str]]] = {
    "openai-chat": {"stream": "the SDK adds it itself"},
    "openai-responses": {"stream": "the SDK adds it itself"},
    "anthropic-messages": {
        "stream": "the SDK adds it itself",
        "temperature": "gone from the types, still taken by models up to 4.6",
        "top_p": "gone from the types, still taken by models up to 4.6",
        "top_k": "gone from the types, still taken by models up to 4.6",
    },
    "gemini": {},
}


# Fields of dialects: providers that speak a protocol with additions. A proxy forwards them where the back end
# takes them.
DIALECT_FIELDS: Final[Mapping[Protocol, Mapping[str, str]]] = {
    "openai-chat": {
        "reasoning_content": "DeepSeek, Kimi, GLM, Qwen: thinking sent back",
        "reasoning": "OpenRouter's control; vLLM, Ollama, Groq: thinking sent back",
        "reasoning_details": "OpenRouter's sealed thinking sent back",
        "extra_content": "Gemini's compatible endpoint: thought signatures",
        "thinking": "DeepSeek and GLM: thinking on or off",
        "enable_thinking": "Qwen: thinking on or off",
        "chat_template_kwargs": "vLLM and SGLang",
        "top_k": "vLLM and others",
        "min_p": "vLLM and others",
        "repetition_penalty": "vLLM and others",
        "prefix": "DeepSeek and Mistral: continue this message",
        "cache_control": "OpenRouter and DashScope: cache marks on parts",
        "provider": "OpenRouter's routing",
        "safe_prompt": "Mistral",
        "random_seed": "Mistral",
        "search_parameters": "xAI",
        "provider_specific_fields": "LiteLLM's leftovers on messages",
        "parameters": "OpenRouter's server tools",
    },
    "openai-responses": {
        "client_metadata": "Codex's own field",
        "provider": "OpenRouter's routing",
        "search_content_types": "Codex's web search",
    },
    "anthropic-messages": {"output_format": "older beta name of output_config.format"},
    "gemini": {"modelArmorConfig": "Vertex"},
}
_UNKNOWN: Final = re.compile(r"unknown field (\S+) |\$\.(\w+): Extra inputs")


def validate_request(
    protocol: Protocol, body: Any, path: str = "", *, emitted: bool = False, dialects: bool = True
) -> list[str]:
    """What is wrong with a request; `path` tells counting from generating.

    `emitted` adds the rules for what we write ourselves; `dialects=False` refuses the fields of
    `DIALECT_FIELDS` too.
    """
    problems = _problems(protocol, body, path, emitted=emitted)
    if not dialects:
        return problems
    return [problem for problem in problems if not _is_dialect(protocol, problem)]


def _is_dialect(protocol: Protocol, problem: str) -> bool:
    found = _UNKNOWN.search(problem)
    return found is not None and (found[1] or found[2]) in DIALECT_FIELDS[protocol]


def _problems(protocol: Protocol, body: Any, path: str, *, emitted: bool) -> list[str]:
    if not isinstance(body, dict):
        return [f"the body is no object but {type(body).__name__}"]
    match protocol:
        case "openai-chat":
            return type_problems(protocol, body, path) + _chat_rules(body)
        case "openai-responses":
            return type_problems(protocol, body, path) + _responses_rules(body)
        case "anthropic-messages":
            return type_problems(protocol, body, path) + _messages_rules(body, emitted=emitted)
        case "gemini":
            return type_problems(protocol, body, path) + _gemini_rules(body, emitted=emitted)


def type_problems(protocol: Protocol, body: Mapping[str, Any], path: str = "") -> list[str]:
    """Where a body does not fit the official SDK's request types, unknown fields included."""
    known = {name: value for name, value in body.items() if name not in TOLERATED[protocol]}
    match protocol:
        case "openai-chat":
            return _misfits(known, completion_create_params.CompletionCreateParamsBase, "$")
        case "openai-responses":
            return _misfits(known, response_create_params.ResponseCreateParamsBase, "$")
        case "anthropic-messages":
            return _messages_types(known, path)
        case "gemini":
            return _gemini_types(known)


def _messages_types(body: Mapping[str, Any], path: str) -> list[str]:
    counting = path.partition("?")[0].rstrip("/").endswith("count_tokens")
    if counting:
        kinds: tuple[Any, ...] = (
            message_count_tokens_params.MessageCountTokensParams,
            beta_count_params.MessageCountTokensParams,
        )
    else:
        kinds = (message_create_params.MessageCreateParamsBase, beta_create_params.MessageCreateParamsBase)
    found = [_misfits(body, kind, "$") for kind in kinds]
    return min(found, key=len)


# JSON against the SDKs' TypedDicts.


# JSON Schema objects: the SDK types name three fields and leave the rest open in words only.
_OPEN: Final = frozenset({"InputSchemaTyped", "InputSchema"})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _bare(kind: Any) -> Any:
    while True:
        origin = get_origin(kind)
        if origin in (Required, NotRequired, Annotated):
            kind = get_args(kind)[0]
        elif hasattr(kind, "__value__"):
            kind = kind.__value__
        else:
            return kind


def _misfits(value: Any, kind: Any, path: str) -> list[str]:
    kind = _bare(kind)
    origin = get_origin(kind)
    if kind in (Any, object):
        return []
    if kind is None or kind is type(None):
        return [] if value is None else [f"{path}: {_shown(value)} is not null"]
    if origin is Literal:
        fits = any(value == choice and type(value) is type(choice) for choice in get_args(kind))
        return [] if fits else [f"{path}: {_shown(value)} is none of {list(get_args(kind))!r:.120}"]
    if origin in (Union, python_types.UnionType):
        return _union_misfits(value, get_args(kind), path)
    if is_typeddict(kind):
        return _object_misfits(value, kind, path)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            return [f"{path}: {_shown(value)} is no object"]
        return [p for name, inner in value.items() for p in _misfits(inner, get_args(kind)[1], f"{path}.{name}")]
    if isinstance(origin, type) and issubclass(origin, Iterable):
        if not isinstance(value, list):
            return [f"{path}: {_shown(value)} is no list"]
        inner = get_args(kind)[0]
        return [p for index, entry in enumerate(value) for p in _misfits(entry, inner, f"{path}[{index}]")]
    return _scalar_misfits(value, kind, path)


def _scalar_misfits(value: Any, kind: Any, path: str) -> list[str]:
    match kind:
        case _ if kind is bool:
            fits = isinstance(value, bool)
        case _ if kind is int:
            fits = isinstance(value, int) and not isinstance(value, bool)
        case _ if kind is float:
            fits = isinstance(value, int | float) and not isinstance(value, bool)
        case _ if kind is str:
            fits = isinstance(value, str)
        case _ if kind in (dict, Mapping):
            fits = isinstance(value, dict)
        case _ if kind in (list, Sequence):
            fits = isinstance(value, list)
        case _:
            # Models, files and the like: JSON never is one, so another branch of the union must fit.
            fits = False
    return [] if fits else [f"{path}: {_shown(value)} is no {getattr(kind, '__name__', kind)}"]


def _object_misfits(value: Any, kind: Any, path: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path}: {_shown(value)} is no object ({kind.__name__})"]
    hints = _hints(kind)
    problems = [f"{path}: {name} is missing ({kind.__name__})" for name in kind.__required_keys__ if name not in value]
    for name, inner in value.items():
        if name not in hints and kind.__name__ in _OPEN:
            continue
        if name not in hints:
            problems.append(f"{path}: unknown field {name} ({kind.__name__})")
        else:
            problems += _misfits(inner, hints[name], f"{path}.{name}")
    return problems


def _union_misfits(value: Any, branches: tuple[Any, ...], path: str) -> list[str]:
    flat = [_bare(branch) for branch in branches]
    nested = [inner for branch in flat for inner in (_union_args(branch) or (branch,))]
    best: list[str] | None = None
    # Two passes: the branches whose tags agree first, so that a report speaks of the branch that was meant.
    tagged = [branch for branch in nested if _tags_agree(value, branch)]
    for branch in tagged or nested:
        found = _misfits(value, branch, path)
        if not found:
            return []
        if best is None or len(found) < len(best):
            best = found
    return best or []


def _union_args(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, python_types.UnionType) else ()


def _tags_agree(value: Any, kind: Any) -> bool:
    origin = get_origin(kind)
    lists = isinstance(origin, type) and issubclass(origin, Iterable) and not issubclass(origin, Mapping)
    if isinstance(value, list):
        return lists
    if not isinstance(value, dict):
        return not lists and not is_typeddict(kind)
    if not is_typeddict(kind):
        return isinstance(origin, type) and issubclass(origin, Mapping)
    hints = _hints(kind)
    for name in ("type", "role"):
        hint = _bare(hints[name]) if name in hints else None
        if name in value and get_origin(hint) is Literal and value[name] not in get_args(hint):
            return False
        if name in kind.__required_keys__ and name not in value:
            return False
    return True


def _shown(value: Any) -> str:
    return f"{value!r:.60}"


# Gemini's models.


class _GeminiRequest(pydantic.BaseModel):
    """The body on the wire; the SDK itself has no type for the whole of it."""

    model_config = pydantic.ConfigDict(
        extra="forbid", alias_generator=pydantic.alias_generators.to_camel, populate_by_name=True
    )

    contents: list[genai_types.Content]
    system_instruction: genai_types.Content | None = None
    tools: list[genai_types.Tool] | None = None
    tool_config: genai_types.ToolConfig | None = None
    safety_settings: list[genai_types.SafetySetting] | None = None
    generation_config: genai_types.GenerationConfig | None = None
    cached_content: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    labels: dict[str, str] | None = None
    model: str | None = None


class _GeminiCount(pydantic.BaseModel):
    """The body of countTokens: contents alone, or a whole request."""

    model_config = pydantic.ConfigDict(
        extra="forbid", alias_generator=pydantic.alias_generators.to_camel, populate_by_name=True
    )

    contents: list[genai_types.Content] | None = None
    generate_content_request: _GeminiRequest | None = None


def _gemini_types(body: Mapping[str, Any]) -> list[str]:
    kind: type[pydantic.BaseModel] = _GeminiRequest
    if "generateContentRequest" in body or "generate_content_request" in body:
        kind = _GeminiCount
    try:
        kind.model_validate(dict(body))
    except pydantic.ValidationError as error:
        return [
            f"$.{'.'.join(str(step) for step in line['loc'])}: {line['msg']} ({_shown(line['input'])})"
            for line in error.errors()
        ]
    return []


# Rules that types do not express.

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ANTHROPIC_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_ANTHROPIC_ID: Final = re.compile(r"[A-Za-z0-9_-]+")
_GEMINI_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")


def _chat_rules(body: Mapping[str, Any]) -> list[str]:
    problems: list[str] = []
    if "max_tokens" in body and "max_completion_tokens" in body:
        problems.append("both max_tokens and max_completion_tokens")
    if isinstance(body.get("stop"), list) and len(body["stop"]) > 4:
        problems.append("more than four stop sequences")
    if not body.get("messages"):
        problems.append("no messages")
    waiting: list[str] = []
    for index, message in enumerate(body.get("messages") or ()):
        where = f"messages[{index}]"
        if message.get("role") == "tool":
            if message.get("tool_call_id") not in waiting:
                problems.append(f"{where} answers no open call ({message.get('tool_call_id')!r})")
            else:
                waiting.remove(message["tool_call_id"])
            continue
        if waiting:
            problems.append(f"{where} comes before the results of {waiting}")
        waiting = [call.get("id") for call in message.get("tool_calls") or ()]
        problems += [f"{where}: call id {call!r}" for call in waiting if not call or len(call) > 64]
        if message.get("role") == "assistant":
            others = ("tool_calls", "refusal", "audio", "function_call")
            if message.get("content") is None and not any(message.get(name) for name in others):
                problems.append(f"{where}: an assistant message without content")
        elif message.get("content") is None:
            problems.append(f"{where}: content is null")
    if waiting:
        problems.append(f"calls without results: {waiting}")
    for tool in body.get("tools") or ():
        function = tool.get("function") or tool.get("custom") or {}
        if not _NAME.fullmatch(str(function.get("name"))):
            problems.append(f"tool name {function.get('name')!r}")
    return problems


_ITEM_PREFIXES: Final[Mapping[str, str]] = {
    "message": "msg_",
    "reasoning": "rs_",
    "function_call": "fc_",
    "custom_tool_call": "ctc_",
}


def _responses_rules(body: Mapping[str, Any]) -> list[str]:
    problems: list[str] = []
    limit = body.get("max_output_tokens")
    if isinstance(limit, int) and limit < 16:
        problems.append(f"max_output_tokens {limit} is below 16")
    items = body.get("input")
    if isinstance(items, list):
        problems += _responses_items(
            items, open_history=bool(body.get("previous_response_id") or body.get("conversation"))
        )
    for tool in body.get("tools") or ():
        if tool.get("type") == "function" and not _NAME.fullmatch(str(tool.get("name"))):
            problems.append(f"tool name {tool.get('name')!r}")
    return problems


def _responses_items(items: list[Any], *, open_history: bool) -> list[str]:
    problems: list[str] = []
    called: list[str] = []
    for index, item in enumerate(items):
        kind = item.get("type", "message")
        prefix = _ITEM_PREFIXES.get(kind)
        if prefix is not None and item.get("id") is not None and not str(item["id"]).startswith(prefix):
            problems.append(f"input[{index}].id {item['id']!r} does not begin with {prefix}")
        if kind in ("function_call", "custom_tool_call"):
            called.append(str(item.get("call_id")))
        elif kind in ("function_call_output", "custom_tool_call_output"):
            call_id = str(item.get("call_id"))
            if call_id in called:
                called.remove(call_id)
            elif not open_history:
                problems.append(f"input[{index}] answers no call ({call_id!r})")
    if called:
        problems.append(f"calls without outputs: {called}")
    return problems


def _blocks(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content or ())


def _messages_rules(body: Mapping[str, Any], *, emitted: bool) -> list[str]:
    problems: list[str] = []
    messages = [message for message in body.get("messages") or () if message.get("role") != "system"]
    if not messages:
        return ["no messages"]
    if messages[0].get("role") != "user":
        problems.append("the first message is not the user's")
    waiting: list[str] = []
    previous = ""
    for index, message in enumerate(messages):
        where, role, blocks = f"messages[{index}]", str(message.get("role")), _blocks(message)
        if emitted and role == previous:
            problems.append(f"{where}: a second {role} turn in a row")
        previous = role
        if not blocks and not (index == len(messages) - 1 and role == "assistant"):
            problems.append(f"{where}: empty content")
        problems += _message_results(where, blocks, waiting)
        waiting = [str(block.get("id")) for block in blocks if block.get("type") == "tool_use"]
        problems += [f"{where}: tool_use id {one!r}" for one in waiting if not _ANTHROPIC_ID.fullmatch(one)]
        problems += [f"{where}: {problem}" for block in blocks for problem in _block_rules(block)]
    if waiting:
        problems.append(f"calls without results: {waiting}")
    last = _blocks(messages[-1])[-1:]
    if messages[-1].get("role") == "assistant" and last and str(last[0].get("text") or "x")[-1:].isspace():
        problems.append("the final assistant text ends in white space")
    return problems + _messages_settings(body)


def _message_results(where: str, blocks: list[dict[str, Any]], waiting: list[str]) -> list[str]:
    problems: list[str] = []
    results = [str(block.get("tool_use_id")) for block in blocks if block.get("type") == "tool_result"]
    if sorted(results) != sorted(waiting):
        problems.append(f"{where}: results {results} for calls {waiting}")
    first = [block.get("type") for block in blocks[: len(results)]]
    if any(kind != "tool_result" for kind in first):
        problems.append(f"{where}: something stands before the results")
    return problems


def _block_rules(block: Mapping[str, Any]) -> list[str]:
    problems: list[str] = []
    if block.get("type") == "text" and not str(block.get("text") or "").strip():
        problems.append("an empty text block")
    if block.get("type") == "thinking" and not block.get("signature"):
        problems.append("a thinking block without signature")
    if block.get("type") in ("thinking", "redacted_thinking") and "cache_control" in block:
        problems.append("cache_control on a thinking block")
    if block.get("type") == "tool_result" and isinstance(block.get("content"), list):
        problems += [p for inner in block["content"] for p in _block_rules(inner)]
    return problems


def _messages_settings(body: Mapping[str, Any]) -> list[str]:
    problems: list[str] = []
    thinking = body.get("thinking") or {}
    if thinking.get("type") == "enabled":
        budget, limit = thinking.get("budget_tokens", 0), body.get("max_tokens", 0)
        if not 1024 <= budget < limit:
            problems.append(f"thinking budget {budget} with max_tokens {limit}")
        if (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
            problems.append("a forced tool with a thinking budget")
    temperature = body.get("temperature")
    if isinstance(temperature, int | float) and not 0 <= temperature <= 1:
        problems.append(f"temperature {temperature}")
    problems += [f"stop sequence {stop!r}" for stop in body.get("stop_sequences") or () if not stop.strip()]
    marks = _count_marks(body)
    if marks > 4:
        problems.append(f"{marks} cache marks")
    names = [tool.get("name") for tool in body.get("tools") or ()]
    problems += [f"tool {name!r} twice" for name in {n for n in names if n and names.count(n) > 1}]
    for tool in body.get("tools") or ():
        if "input_schema" not in tool:
            continue
        schema = tool["input_schema"]
        if not _ANTHROPIC_NAME.fullmatch(str(tool.get("name"))):
            problems.append(f"tool name {tool.get('name')!r}")
        if schema.get("type") != "object" or any(name in schema for name in ("oneOf", "anyOf", "allOf")):
            problems.append(f"the schema of {tool.get('name')} is no plain object schema")
    return problems


def _count_marks(value: Any) -> int:
    match value:
        case dict():
            own = 1 if isinstance(value.get("cache_control"), dict) else 0
            # Schemas and tool inputs are the user's data, in which the word means nothing.
            return own + sum(
                _count_marks(v) for k, v in value.items() if k not in ("input_schema", "input", "cache_control")
            )
        case list():
            return sum(_count_marks(entry) for entry in value)
        case _:
            return 0


def _gemini_rules(body: Mapping[str, Any], *, emitted: bool) -> list[str]:
    problems: list[str] = []
    contents = _either(body, "contents") or []
    if not contents and not _either(body, "generateContentRequest"):
        problems.append("no contents")
    waiting: list[Mapping[str, Any]] = []
    previous = ""
    for index, content in enumerate(contents):
        where, role = f"contents[{index}]", str(content.get("role", "user"))
        parts = content.get("parts") or []
        if emitted and role == previous:
            problems.append(f"{where}: a second {role} turn in a row")
        if emitted and role not in ("user", "model"):
            problems.append(f"{where}: role {role!r}")
        previous = role
        if not parts:
            problems.append(f"{where}: no parts")
        problems += _gemini_results(where, parts, waiting)
        waiting = [call for part in parts if (call := _either(part, "functionCall"))]
        if waiting and index == 0:
            problems.append(f"{where}: calls without a user turn before them")
        problems += [
            f"{where}: function name {call.get('name')!r}"
            for call in waiting
            if not _GEMINI_NAME.fullmatch(str(call.get("name")))
        ]
    if waiting:
        problems.append(f"calls without responses: {[call.get('name') for call in waiting]}")
    return problems + _gemini_settings(body)


def _gemini_results(where: str, parts: list[Any], waiting: list[Mapping[str, Any]]) -> list[str]:
    results = [result for part in parts if (result := _either(part, "functionResponse"))]
    problems: list[str] = []
    if len(results) != len(waiting):
        return [f"{where}: {len(results)} responses to {len(waiting)} calls"]
    for call, result in zip(waiting, results, strict=True):
        if call.get("name") != result.get("name"):
            problems.append(f"{where}: response of {result.get('name')!r} to the call of {call.get('name')!r}")
        if call.get("id") is not None and call.get("id") != result.get("id"):
            problems.append(f"{where}: response id {result.get('id')!r} to the call {call.get('id')!r}")
    if any(not _either(part, "functionResponse") for part in parts[: len(results)]):
        problems.append(f"{where}: something stands before the responses")
    return problems


def _gemini_settings(body: Mapping[str, Any]) -> list[str]:
    problems: list[str] = []
    config = _either(body, "generationConfig") or {}
    if len(_either(config, "stopSequences") or ()) > 5:
        problems.append("more than five stop sequences")
    schemas = [name for name in ("responseSchema", "responseJsonSchema") if _either(config, name) is not None]
    if len(schemas) > 1:
        problems.append("both forms of the response schema")
    if schemas and _either(config, "responseMimeType") not in ("application/json", "text/x.enum"):
        problems.append("a response schema without application/json")
    thinking = _either(config, "thinkingConfig") or {}
    if _either(thinking, "thinkingBudget") is not None and _either(thinking, "thinkingLevel") is not None:
        problems.append("both thinkingBudget and thinkingLevel")
    for tool in _either(body, "tools") or ():
        for declared in _either(tool, "functionDeclarations") or ():
            if _either(declared, "parameters") is not None and _either(declared, "parametersJsonSchema") is not None:
                problems.append(f"both forms of parameters for {declared.get('name')}")
            if not _GEMINI_NAME.fullmatch(str(declared.get("name"))):
                problems.append(f"function name {declared.get('name')!r}")
    return problems


def _either(value: Mapping[str, Any], name: str) -> Any:
    """A field in camelCase or in snake_case, as proto3 JSON takes both."""
    if name in value:
        return value[name]
    return value.get(re.sub(r"[A-Z]", lambda found: "_" + found.group().lower(), name))
