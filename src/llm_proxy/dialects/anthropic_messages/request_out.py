"""The canonical `Request` as the body of a Messages call for one target, with its losses and duties."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from llm_proxy.conversation.request import Reasoning, Request
from llm_proxy.dialects.anthropic_messages.draft import Draft
from llm_proxy.dialects.anthropic_messages.messages_out import (
    ask_to_go_on,
    ends_with_prefill,
    limit_marks,
    loop_lacks_thinking,
    trim_prefill,
    write_conversation,
)  # fmt: skip
from llm_proxy.dialects.anthropic_messages.tools_out import write_choice, write_format, write_tools
from llm_proxy.dialects.base import Duties, Outgoing, Target
from llm_proxy.dialects.efforts import budget_of, clamp_effort, effort_of, is_off

_LEAST_BUDGET = 1024

# Body fields that a beta brought, with the beta. Servers that know no betas refuse the fields as well.
_BETA_FIELDS: dict[str, str] = {
    "context_management": "context-management-2025-06-27",
    "mcp_servers": "",
    "container": "",
    "speed": "fast-mode-2026-02-01",
    "fallbacks": "server-side-fallback-2026-07-01",
    "fallback_credit_token": "fallback-credit-2026-07-01",
    "thread": "message-threads-2026-08-12",
    "compaction": "compact-2026-09-04",
    "billing_policy": "",
    "diagnostics": "cache-diagnosis-2026-04-07",
}
_TASK_BUDGET = "task-budgets-2026-03-13"
_FILES = "files-api-2025-04-14"
_MCP = "mcp-client-2025-04-04"
_MCP_TOOLSETS = "mcp-client-2025-11-20"

# Members of the canonical request that this protocol has no word for.
_UNKNOWN_SAMPLING = (
    "min_p", "presence_penalty", "frequency_penalty", "seed", "logit_bias", "logprobs", "top_logprobs",
)  # fmt: skip
# What other protocols' clients send that needs no counterpart here.
_HARMLESS_REST = frozenset(("stream_options", "background", "truncation", "client_metadata", "prompt_cache_retention"))

_COUNTED = (
    "model", "messages", "system", "tools", "tool_choice", "thinking", "output_config", "cache_control",
    "context_management", "mcp_servers", "speed",
)  # fmt: skip


def write_request(request: Request, target: Target) -> Outgoing:
    draft = Draft(request, target)
    body = _write_body(draft)
    if not draft.own:
        limit_marks(draft, body)
    return Outgoing(
        body=body,
        headers=_headers(draft, body),
        losses=draft.losses,
        duties=Duties(
            names=draft.renamed,
            namespaces=dict(draft.namespaces),
            custom_tools=frozenset(draft.custom),
            stop=draft.stops,
            json_tool=draft.json_tool,
            copies=max(1, request.n),
        ),
    )


def write_as_read(request: Request) -> dict[str, Any]:
    """The body that `read_request` was given, up to spelling: nothing is adapted to a target.

    Sealed values stay as they are, envelopes included. For `wire.json.rewrite`: the difference to
    `write_request` is every edit and every demand of the target.
    """
    return _write_body(Draft(request, None))


_STEERING: Final[tuple[str, ...]] = ("max_tokens", "thinking", "output_config", "temperature", "top_p", "top_k")


def steering(request: Request, target: Target) -> tuple[dict[str, Any], dict[str, Any]]:
    """The members that steer the model: as the client wrote them, and as the target's model takes them."""
    found = write_as_read(request), write_request(request, target).body
    as_read, adapted = ({name: body[name] for name in _STEERING if name in body} for body in found)
    return as_read, adapted


def write_count_request(request: Request, target: Target) -> dict[str, Any]:
    body = write_request(request, target).body
    return {name: body[name] for name in _COUNTED if name in body}


def _write_body(draft: Draft) -> dict[str, Any]:
    request = draft.request
    body: dict[str, Any] = {"model": draft.target.model}
    limit = _limit(draft)
    if limit is not None:
        body["max_tokens"] = limit
    system, messages = write_conversation(draft)
    if system:
        body["system"] = system
    body["messages"] = messages
    tools = write_tools(draft)
    if tools or (draft.faithful and request.tools):
        body["tools"] = tools
    choice = write_choice(draft, tools)
    if choice is not None:
        body["tool_choice"] = choice
    output: dict[str, Any] = {}
    write_format(draft, body, output)
    _write_rest(draft, body, output)
    _write_thinking(draft, body, output)
    if output:
        body["output_config"] = output
    _end_conversation(draft, body)
    _write_sampling(draft, body)
    _write_stops(draft, body)
    _write_identity(draft, body)
    if draft.target.stream:
        body["stream"] = True
    _report_unknown(draft)
    return body


def _limit(draft: Draft) -> int | None:
    """The client's limit within the model's; without one the default, since the protocol demands a number."""
    wanted, most = draft.request.max_output_tokens, draft.capabilities.max_output
    if draft.faithful:
        return wanted
    if wanted is None:
        wanted = draft.target.default_max_tokens
        return min(wanted, most) if most else wanted
    if most and wanted > most:
        draft.lose(f"max_tokens: lowered to {most}, the most that {draft.target.model} takes")
        return most
    return wanted if draft.own else max(1, wanted)


# ---- thinking


def _write_thinking(draft: Draft, body: dict[str, Any], output: dict[str, Any]) -> None:
    reasoning = draft.request.reasoning
    if reasoning is None or "thinking" in body:
        return
    if draft.faithful:
        _write_thinking_as_read(reasoning, body, output)
        return
    thinking = _thinking(draft, reasoning, output)
    if thinking is not None and thinking["type"] == "enabled":
        why = _why_not(draft, body)
        if why:
            draft.lose(f"thinking: switched off, {why}")
            thinking = {"type": "disabled"} if draft.own_thinking else None
    elif thinking is not None and thinking["type"] == "adaptive":
        forced = body.get("tool_choice", {}).get("type") in ("any", "tool")
        if forced and not draft.capabilities.forced_with_thinking:
            draft.lose("thinking: switched off, a tool is forced")
            thinking = {"type": "disabled"}
    if thinking is None:
        return
    if thinking["type"] == "enabled":
        thinking = _fit_budget(draft, body, thinking)
        if thinking is None:
            return
    if thinking["type"] != "disabled":
        if reasoning.visible is False:
            thinking["display"] = "omitted"
        elif reasoning.summary or (reasoning.visible and not draft.own and thinking["type"] == "adaptive"):
            thinking["display"] = "summarized"
    elif output.get("effort") in ("xhigh", "max"):
        output["effort"] = "high"
    body["thinking"] = thinking


def _write_thinking_as_read(reasoning: Reasoning, body: dict[str, Any], output: dict[str, Any]) -> None:
    if reasoning.effort is not None:
        output["effort"] = reasoning.effort
    if reasoning.mode == "effort":
        return
    words = {"off": "disabled", "auto": "adaptive", "budget": "enabled"}
    thinking: dict[str, Any] = {"type": words[reasoning.mode]}
    if reasoning.mode == "budget":
        thinking["budget_tokens"] = reasoning.budget
    if reasoning.mode != "off":
        if reasoning.visible is False:
            thinking["display"] = "omitted"
        elif reasoning.summary:
            thinking["display"] = "summarized"
    body["thinking"] = thinking


def _thinking(draft: Draft, reasoning: Reasoning, output: dict[str, Any]) -> dict[str, Any] | None:
    """The `thinking` object that the target understands, and the effort beside it."""
    capabilities = draft.capabilities
    match capabilities.thinking:
        case "adaptive":
            _write_effort(draft, reasoning, output)
            return _adaptive(draft, reasoning)
        case "budget" | "switch" | "enable":
            if capabilities.effort_beside_budget:
                _write_effort(draft, reasoning, output)
            return _budgeted(draft, reasoning)
        case _:
            if not is_off(reasoning):
                draft.lose(f"reasoning: {draft.target.model} cannot think")
            return None


def _write_effort(draft: Draft, reasoning: Reasoning, output: dict[str, Any]) -> None:
    effort = reasoning.effort if reasoning.mode in ("auto", "off") or draft.own_thinking else effort_of(reasoning)
    if effort is None and draft.own_thinking and reasoning.mode == "budget" and not draft.capabilities.budget_too:
        effort = effort_of(reasoning) if draft.capabilities.thinking == "adaptive" else None
    if is_off(reasoning) and not draft.capabilities.thinking_off:
        effort = "low"
    if effort is None or effort == "none":
        return
    accepted = draft.capabilities.efforts
    taken = (
        "max" if effort == "xhigh" and "max" in accepted and effort not in accepted else clamp_effort(effort, accepted)
    )
    if taken != effort:
        draft.lose(f"reasoning effort: {effort} became {taken}")
    output["effort"] = taken


def _adaptive(draft: Draft, reasoning: Reasoning) -> dict[str, Any] | None:
    if is_off(reasoning):
        if not draft.capabilities.thinking_off:
            draft.lose(f"reasoning: {draft.target.model} cannot stop thinking")
            return {"type": "adaptive"}
        return {"type": "disabled"}
    if draft.own_thinking and reasoning.mode == "effort":
        return None
    if reasoning.mode == "budget" and draft.own_thinking:
        if draft.capabilities.budget_too:
            return {"type": "enabled", "budget_tokens": reasoning.budget}
        draft.lose("thinking: a budget became an effort")
    return {"type": "adaptive"}


def _budgeted(draft: Draft, reasoning: Reasoning) -> dict[str, Any] | None:
    if is_off(reasoning):
        return {"type": "disabled"} if draft.own_thinking else None
    if draft.own_thinking and reasoning.mode == "effort":
        if not draft.capabilities.effort_beside_budget:
            draft.lose(f"output_config.effort: not supported by {draft.target.model}")
        return None
    if draft.own_thinking and reasoning.mode == "auto":
        draft.lose("thinking: adaptive became a budget")
    most = draft.capabilities.max_thinking_budget or draft.capabilities.max_output
    budget = budget_of(reasoning, most=most)
    if budget is None:
        effort = reasoning.effort or "medium"
        budget = budget_of(Reasoning("effort", effort=effort), most=most)
    return {"type": "enabled", "budget_tokens": budget if draft.own_thinking else max(_LEAST_BUDGET, budget or 0)}


def _why_not(draft: Draft, body: dict[str, Any]) -> str:
    """Why thinking with a budget cannot be asked for in this request, empty if it can."""
    forced = body.get("tool_choice", {}).get("type") in ("any", "tool")
    if forced:
        return "a tool is forced"
    if loop_lacks_thinking(body["messages"]):
        return "the current tool loop began without it"
    if draft.capabilities.max_output and draft.capabilities.max_output <= _LEAST_BUDGET:
        return "the model's output is too short"
    return ""


def _fit_budget(draft: Draft, body: dict[str, Any], thinking: dict[str, Any]) -> dict[str, Any] | None:
    """Keeps the budget below `max_tokens`, which counts it."""
    budget, limit, most = thinking["budget_tokens"], body["max_tokens"], draft.capabilities.max_output
    if budget < limit:
        return thinking
    raised = budget + max(limit, 1)
    if most:
        raised = min(raised, most)
    if budget >= raised:
        budget = max(_LEAST_BUDGET, raised - max(1, min(limit, raised // 2)))
    draft.lose(f"max_tokens: raised to {raised}, since it includes the thinking")
    body["max_tokens"] = raised
    return thinking | {"budget_tokens": budget}


def _end_conversation(draft: Draft, body: dict[str, Any]) -> None:
    messages = body["messages"]
    if draft.faithful or not ends_with_prefill(messages):
        return
    thinks = body.get("thinking", {}).get("type") in ("enabled", "adaptive")
    if not draft.own or not draft.capabilities.prefill:
        trim_prefill(messages)
    if not ends_with_prefill(messages):
        return
    if not draft.capabilities.prefill or thinks:
        draft.lose(f"messages: {draft.target.model} takes no beginning of the answer, it was asked to go on instead")
        ask_to_go_on(messages)


# ---- sampling, stops, identity


def _write_sampling(draft: Draft, body: dict[str, Any]) -> None:
    sampling, capabilities = draft.request.sampling, draft.capabilities
    values: dict[str, float] = {
        name: value for name in ("temperature", "top_p", "top_k") if (value := getattr(sampling, name)) is not None
    }
    if draft.faithful:
        body.update(values)
        return
    thinks = body.get("thinking", {}).get("type") in ("enabled", "adaptive")
    if values.get("temperature", 0) > 1:
        draft.lose("temperature: lowered to 1, the most here")
        values["temperature"] = 1
    refused: set[str] = set()
    if capabilities.sampling == "none":
        refused = set(values)
    elif thinks:
        refused = {
            name
            for name, value in values.items()
            if name == "top_k" or (name == "temperature" and value != 1) or (name == "top_p" and value < 0.95)
        }
    if "temperature" in values and "top_p" in values and capabilities.sampling == "one":
        refused.add(draft.request.lesser)
    if "top_k" in values and not capabilities.top_k:
        refused.add("top_k")
    for name in sorted(refused):
        draft.lose(f"{name}: not supported by {draft.target.model}{' while thinking' if thinks else ''}")
        del values[name]
    body.update(values)


def _write_stops(draft: Draft, body: dict[str, Any]) -> None:
    stops = draft.request.stop
    if draft.faithful:
        if stops:
            body["stop_sequences"] = list(stops)
        return
    # The API refuses sequences of white space alone; the proxy cuts the answer at them itself.
    taken = [stop for stop in stops if stop.strip()][: draft.capabilities.max_stop]
    enforced = tuple(stop for stop in stops if stop and stop not in taken)
    if taken:
        body["stop_sequences"] = taken
    if enforced:
        draft.stops = enforced
        draft.lose("stop: some sequences are enforced by the proxy")


def _write_identity(draft: Draft, body: dict[str, Any]) -> None:
    request = draft.request
    metadata = dict(request.metadata or {}) if draft.own else {}
    if request.user:
        user = request.user
        # The documented limit of user_id is 256 characters.
        if len(user) > 256 and not draft.own:
            user = hashlib.sha256(user.encode("utf-8", "replace")).hexdigest()
        metadata["user_id"] = user
    if metadata:
        body["metadata"] = metadata
    if request.metadata and not draft.own:
        draft.lose("metadata: only the user's id can be sent")
    tier = request.tier if draft.own else {"auto": "auto", "default": "standard_only"}.get(request.tier, "")
    if tier:
        body["service_tier"] = tier
    elif request.tier:
        draft.lose(f"service_tier: {request.tier} does not exist here")


# ---- other fields and betas


def _write_rest(draft: Draft, body: dict[str, Any], output: dict[str, Any]) -> None:
    """Fields of this protocol that have no canonical member. Betas go together with the fields that they
    bring.
    """
    rest = draft.request.rest
    if not draft.own:
        for name in rest:
            if name not in _HARMLESS_REST:
                draft.lose(f"{name}: not known to this protocol")
        return
    for name, value in rest.items():
        if name in _BETA_FIELDS and not draft.capabilities.betas:
            draft.lose(f"{name}: a beta that {draft.target.model} does not take")
        elif name == "output_config":
            for member, inner in value.items():
                if member == "task_budget" and not draft.capabilities.betas:
                    draft.lose(f"output_config.task_budget: a beta that {draft.target.model} does not take")
                else:
                    output.setdefault(member, inner)
        elif name == "cache_control" and isinstance(value, dict) and not draft.capabilities.cache_ttl:
            body[name] = {key: inner for key, inner in value.items() if key != "ttl"}
        else:
            body[name] = value


def _headers(draft: Draft, body: dict[str, Any]) -> dict[str, str]:
    """The betas that the body needs, no others."""
    if not draft.capabilities.betas:
        return {}
    betas = [beta for name, beta in _BETA_FIELDS.items() if beta and name in body]
    if "task_budget" in body.get("output_config", {}):
        betas.append(_TASK_BUDGET)
    if "mcp_servers" in body:
        toolsets = any(tool.get("type") == "mcp_toolset" for tool in body.get("tools", ()))
        betas.append(_MCP_TOOLSETS if toolsets else _MCP)
    if _names_a_file(body["messages"]):
        betas.append(_FILES)
    return {"anthropic-beta": ",".join(betas)} if betas else {}


def _names_a_file(messages: list[dict[str, Any]]) -> bool:
    for message in messages:
        for block in message["content"]:
            inner = block.get("content")
            for entry in (block, *(inner if isinstance(inner, list) else ())):
                if not isinstance(entry, dict):
                    continue
                source = entry.get("source")
                if entry.get("type") == "container_upload" or (isinstance(source, dict) and "file_id" in source):
                    return True
    return False


def _report_unknown(draft: Draft) -> None:
    """Members that other protocols' clients set and this one has no word for."""
    if draft.own:
        return
    request = draft.request
    for name in _UNKNOWN_SAMPLING:
        if getattr(request.sampling, name) not in (None, False):
            draft.lose(f"{name}: not supported by Anthropic")
    for name in ("verbosity", "audio", "previous_id", "safety"):
        if getattr(request, name):
            draft.lose(f"{name}: not supported by Anthropic")
    if any(kind != "text" for kind in request.modalities):
        draft.lose("modalities: only text can be generated")
    if request.store:
        draft.lose("store: not supported by Anthropic")
    if any(name != "reasoning.encrypted_content" for name in request.include):
        draft.lose("include: not supported by Anthropic")
