"""A canonical Request as a generateContent body for a target, with what was lost and what the proxy owes.

A request of a Gemini client is written position by position, as it was read. One of any other dialect is
brought into Gemini's order: system texts first, turns merged, every call turn followed by exactly its
responses.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_proxy.conversation.request import Request
from llm_proxy.dialects.base import Duties, Outgoing, Target
from llm_proxy.dialects.efforts import budget_of, clamp_effort, effort_of, is_off
from llm_proxy.dialects.gemini import contents
from llm_proxy.dialects.gemini.tools import Tools
from llm_proxy.dialects.gemini.wire import NAME, Object, camelled, is_data, respelled
from llm_proxy.dialects.tool_schemas import for_gemini_response
from llm_proxy.wire import json as wire_json

_INT32 = 2**31
_STEERING = ("generationConfig", "generation_config")
_COUNTED = ("contents", "systemInstruction", "tools", "toolConfig", "cachedContent")
# Fields of other protocols without effect on the answer: nobody misses them.
_NO_LOSS = frozenset(("stream_options", "store", "prompt_cache_key", "safety_identifier", "service_tier", "background"))


def write_request(request: Request, target: Target) -> Outgoing:
    """Raises FaultError (bad_request) for media or tools that the target cannot take."""
    return _Writer(request, target).write()


def write_count_request(request: Request, target: Target) -> Object:
    """A countTokens body that counts tools and system text, too."""
    body = write_request(request, target).body
    counted = {name: body[name] for name in _COUNTED if name in body}
    return {"generateContentRequest": {"model": model_path(target.model), **counted}}


def steering(request: Request, target: Target) -> tuple[Object, Object]:
    """The generationConfig, which steers the model: as the client wrote it, and with the thinking that the target's model takes."""
    stranger = request
    if not _takes_thinking(request, target):
        nested = dict(request.rest.get("generationConfig", {}))
        if target.capabilities.thinking == "none":
            nested.pop("thinkingConfig", None)  # what has no canonical place goes with the rest
        rest = {**request.rest, "generationConfig": nested}
        stranger = msgspec.structs.replace(request, rest=rest, added=request.added | {"reasoning"})
    found = write_request(request, target).body, write_request(stranger, target).body
    as_read, adapted = ({name: body[name] for name in _STEERING if name in body} for body in found)
    return as_read, adapted


def _takes_thinking(request: Request, target: Target) -> bool:
    """Does the target take the client's own thinkingConfig? Of a model that no table knows the client knows more."""
    reasoning, capabilities = request.reasoning, target.capabilities
    if reasoning is None or capabilities.thinking == "none":
        return reasoning is None
    least, most = capabilities.least_thinking_budget, capabilities.max_thinking_budget
    match capabilities.thinking:
        case "level":
            return reasoning.mode == "auto" or (reasoning.mode == "effort" and reasoning.effort in capabilities.efforts)
        case "gemini-budget" if most and reasoning.mode == "budget":
            return least <= (reasoning.budget or 0) <= most
        case "gemini-budget" if most:
            return reasoning.mode == "auto" or (reasoning.mode == "off" and capabilities.thinking_off)
        case _:
            return True


def model_path(model: str) -> str:
    return model if "/" in model else f"models/{model}"


# Where the session gave a general value and one for Gemini, the one for Gemini counts.
_OF_ADDED = {"temperature": "temperature", "top_p": "topP", "max_output_tokens": "maxOutputTokens"}
# Of the members of a line a generationConfig may hold one.
_ALTERNATIVES = (
    frozenset(("thinkingBudget", "thinkingLevel")),
    frozenset(("responseSchema", "responseJsonSchema", "_responseJsonSchema")),
)


class _Writer:
    def __init__(self, request: Request, target: Target) -> None:
        self._request = request
        self._target = target
        self._own = request.dialect == NAME
        self._losses: dict[str, None] = {}
        self._stop: tuple[str, ...] = ()

    def lose(self, loss: str) -> None:
        self._losses[loss] = None

    def write(self) -> Outgoing:
        request, own = self._request, self._own
        tools = Tools(request, self._target.capabilities, self.lose)
        written = contents.Contents(request, self._target, tools, self.lose)
        body: Object = {}
        instruction = self._instruction(tools)
        system, turns = written.write(instruction)
        if system:
            body["systemInstruction"] = {"parts": system}
        body["contents"] = turns
        declared = tools.write()
        if declared:
            body["tools"] = declared
        config = tools.config()
        if own and "toolConfig" in request.rest:
            config = _merged(config, request.rest["toolConfig"])
        if config:
            body["toolConfig"] = config
        if request.safety:
            body["safetySettings"] = list(request.safety)
        generation = self._generation(tools, instruction)
        if own and "generationConfig" in request.rest:
            generation = _merged(generation, request.rest["generationConfig"])
        if request.gemini:
            generation = _completed(generation, request)
        if generation:
            body["generationConfig"] = generation
        self._others(body)
        spelling = request.native.get("spelling")
        if own and spelling:
            body = respelled(body, spelling)
        return Outgoing(body=body, losses=tuple(self._losses), duties=self._duties(tools))

    def _duties(self, tools: Tools) -> Duties:
        request = self._request
        return Duties(
            names=tools.names.back,
            namespaces=tools.namespaces,
            custom_tools=frozenset(tools.custom),
            stop=self._stop,
            first_call_only=request.parallel_tool_calls is False and tools.any_functions,
            copies=request.n if request.n > 1 and not self._many else 1,
        )

    @property
    def _many(self) -> bool:
        return self._own or self._target.capabilities.multiple_choices

    def _others(self, body: Object) -> None:
        request = self._request
        if self._own:
            if request.tier:
                body["serviceTier"] = "standard" if request.tier == "default" else request.tier
            if request.store is not None:
                body["store"] = request.store
            if request.metadata is not None:
                body["labels"] = request.metadata
            nested = ("generationConfig", "toolConfig")
            body.update({name: value for name, value in request.rest.items() if name not in nested})
            return
        if request.tier in ("flex", "priority"):
            body["serviceTier"] = request.tier
        elif request.tier not in ("", "auto", "default", "standard", "standard_only"):
            self.lose(f"service_tier {request.tier}: not offered by Gemini")
        for name, value in (
            ("metadata", request.metadata),
            ("user", request.user),
            ("verbosity", request.verbosity),
            ("audio", request.audio),
        ):
            if value:
                self.lose(f"{name}: not supported by Gemini")
        if request.store:
            self.lose("store: answers are not stored by Gemini")
        for name in request.rest:
            if name not in _NO_LOSS:
                self.lose(f"{name}: not supported by Gemini")

    # generationConfig

    def _generation(self, tools: Tools, instruction: str) -> Object:
        request = self._request
        config: Object = {}
        self._sampling(config)
        if request.n > 1 and self._many:
            config["candidateCount"] = request.n
        if request.max_output_tokens is not None:
            config["maxOutputTokens"] = request.max_output_tokens
        self._stops(config)
        self._format(config, tools, instruction)
        modalities = tuple(name.upper() for name in request.modalities)
        if modalities and (self._own or set(modalities) != {"TEXT"}):
            config["responseModalities"] = list(modalities)
        thinking = self._thinking()
        if thinking:
            config["thinkingConfig"] = thinking
        return config

    def _sampling(self, config: Object) -> None:
        sampling, capabilities = self._request.sampling, self._target.capabilities
        plain: tuple[tuple[str, Any], ...] = (
            ("topP", sampling.top_p),
            ("presencePenalty", sampling.presence_penalty),
            ("frequencyPenalty", sampling.frequency_penalty),
        )
        if sampling.temperature is not None:
            heat = sampling.temperature
            faithful = self._own and "temperature" not in self._request.added
            config["temperature"] = heat if faithful else min(2, max(0, heat))
        for name, value in plain:
            if value is None:
                continue
            if "Penalty" in name and not (self._own or capabilities.penalties):
                self.lose(f"{name}: not supported by {self._target.model}")
            else:
                config[name] = value
        if sampling.top_k is not None:
            config["topK"] = sampling.top_k
        if sampling.seed is not None:
            if self._own or -_INT32 <= sampling.seed < _INT32:
                config["seed"] = sampling.seed
            else:
                self.lose("seed: Gemini takes 32 bits only")
        if sampling.logprobs is not None and (self._own or sampling.logprobs):
            config["responseLogprobs"] = sampling.logprobs
        if sampling.top_logprobs is not None and (self._own or sampling.top_logprobs):
            config["logprobs"] = sampling.top_logprobs
        for name, lost in (("min_p", sampling.min_p), ("logit_bias", sampling.logit_bias)):
            if lost:
                self.lose(f"{name}: not supported by Gemini")

    def _stops(self, config: Object) -> None:
        stop = self._request.stop
        if not self._own:
            limit = self._target.capabilities.max_stop
            sent = tuple(text for text in stop if text)[:limit]
            self._stop = tuple(text for text in stop if text)[limit:]
            stop = sent
        if stop:
            config["stopSequences"] = list(stop)

    def _format(self, config: Object, tools: Tools, instruction: str) -> None:
        wanted = self._request.format
        if wanted is None or instruction:
            return
        if wanted.kind == "text":
            if self._own:
                config["responseMimeType"] = "text/plain"
            return
        config["responseMimeType"] = "application/json"
        if wanted.schema is None:
            return
        if wanted.schema_style == "openapi":
            config["responseSchema"] = wanted.schema
        elif self._target.capabilities.json_schema_params:
            config["responseJsonSchema"] = wanted.schema
        else:
            schema, losses = for_gemini_response(wanted.schema)
            config["responseSchema"] = schema
            for loss in losses:
                self.lose(f"response schema: {loss}")

    def _instruction(self, tools: Tools) -> str:
        """Before Gemini 3 a schema and tools exclude each other: the schema is then said in words."""
        wanted, capabilities = self._request.format, self._target.capabilities
        if self._own or wanted is None or wanted.kind == "text":
            return ""
        if wanted.kind == "schema" and not capabilities.schema_output:
            combined = False
        else:
            combined = capabilities.schema_with_tools or not (tools.any_functions or tools.any_server)
        if combined:
            return ""
        self.lose(f"response_format: {self._target.model} does not enforce it here, it became an instruction")
        text = "Your final answer must be one JSON value and nothing else: no prose, no code fence."
        if wanted.schema is not None:
            text += f" It must conform to this JSON Schema: {wire_json.encode(wanted.schema).decode()}"
        return text

    # thinking

    def _thinking(self) -> Object:
        reasoning, capabilities = self._request.reasoning, self._target.capabilities
        if reasoning is None:
            return {}
        if self._own and "reasoning" not in self._request.added:
            return self._own_thinking()
        if capabilities.thinking == "none":
            if not is_off(reasoning):
                self.lose(f"reasoning: {self._target.model} does not reason")
            return {}
        config: Object = {}
        if reasoning.visible is not None:
            shown = reasoning.visible
        else:
            shown = not self._own and (self._request.dialect != "openai-responses" or bool(reasoning.summary))
        if shown and not is_off(reasoning):
            config["includeThoughts"] = True
        if capabilities.thinking == "level":
            effort = effort_of(reasoning)
            if effort is not None:
                if effort == "none":
                    self.lose(f"reasoning: {self._target.model} cannot switch it off, the lowest level was taken")
                config["thinkingLevel"] = clamp_effort(effort, capabilities.efforts).upper()
            return config
        least, most = capabilities.least_thinking_budget, capabilities.max_thinking_budget
        budget = budget_of(reasoning, gemini=True, least=least, most=most)
        if budget is None:
            config["thinkingBudget"] = -1
        elif budget > 0 or capabilities.thinking_off:
            config["thinkingBudget"] = budget
        else:
            self.lose(f"reasoning: {self._target.model} cannot switch it off, the smallest budget was taken")
            config["thinkingBudget"] = 128
        return config

    def _own_thinking(self) -> Object:
        """As the client said it: budget for budget, level for level."""
        reasoning = self._request.reasoning
        assert reasoning is not None
        config: Object = {}
        if reasoning.visible is not None:
            config["includeThoughts"] = reasoning.visible
        match reasoning.mode:
            case "off":
                config["thinkingBudget"] = 0
            case "effort":
                config["thinkingLevel"] = (reasoning.effort or "medium").upper()
            case _ if reasoning.budget is not None:
                config["thinkingBudget"] = reasoning.budget
            case _:
                pass
        return config


def _merged(ours: Object, left: Object) -> Object:
    """What was written plus what the reader had no place for; one level of nesting."""
    out = dict(ours)
    for name, value in left.items():
        known = out.get(name)
        out[name] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
    return out


def _completed(config: Object, request: Request) -> Object:
    """What was written plus what the session wants Gemini to get, where the client said nothing of it."""
    wanted: Object = camelled(request.gemini)
    kept = dict(config)
    for member, name in _OF_ADDED.items():
        if member in request.added and name in wanted:
            kept.pop(name, None)
    thinking = wanted.get("thinkingConfig")
    if "reasoning" in request.added and isinstance(thinking, dict) and thinking.keys() & _ALTERNATIVES[0]:
        kept["thinkingConfig"] = {
            name: value for name, value in kept.get("thinkingConfig", {}).items() if name not in _ALTERNATIVES[0]
        }
    return _filled(kept, wanted)


def _filled(ours: Object, wanted: Object) -> Object:
    """`ours` with the members of `wanted` that it lacks, at every depth but inside of a user's data."""
    out = dict(ours)
    for name, value in wanted.items():
        known = out.get(name)
        if known is None:
            if not any(name in group and group & ours.keys() for group in _ALTERNATIVES):
                out[name] = value
        elif isinstance(known, dict) and isinstance(value, dict) and not is_data(name):
            out[name] = _filled(known, value)
    return out
