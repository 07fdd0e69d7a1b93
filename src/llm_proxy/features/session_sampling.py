"""Sampling values of a session: what `!/set(temperature=…)` and the reasoning modes put where a request says nothing.

Owns the keys and their precedence (REQ-02, REQ-03): the request before the session, but a reasoning mode before the request. Between the
session's own words on reasoning a number of tokens says more than an effort, and a key of its own more than a member of `reasoning`.
Knows no protocol: what a target takes of all this is decided by the dialect that writes for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from llm_proxy.config.maps import check_budget
from llm_proxy.config.options import ChatKey, OptionGroup, option
from llm_proxy.conversation.parts import Text
from llm_proxy.conversation.request import Message, Reasoning, Request
from llm_proxy.features import Feature
from llm_proxy.features.exchange import ExchangeView
from llm_proxy.features.generation_config import THINKING, merged, plain_name, without
from llm_proxy.features.reasoning import effort_word, member, of_budget, of_effort, says_how_much, shown_as
from llm_proxy.features.reasoning_aliases import Mode, ReasoningAliases


class SamplingOptions(OptionGroup, title="Request shaping"):
    temperature: float | None = option(
        None,
        at="",
        minimum=0,
        maximum=2,
        chat=ChatKey("temperature", "session"),
        help="sampling temperature of requests that name none",
    )
    top_p: float | None = option(
        None,
        at="",
        minimum=0,
        maximum=1,
        chat=ChatKey("top-p", "session"),
        help="nucleus sampling of requests that name none",
    )
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = option(
        None,
        at="",
        spellings={"maximum": "max"},
        chat=ChatKey("reasoning-effort", "session"),
        help="how much the model thinks where the request does not say",
    )
    reasoning: dict[str, Any] | None = option(
        None,
        at="",
        chat=ChatKey("reasoning", "session"),
        help="reasoning as an object: effort, max_tokens, exclude",
    )
    thinking_budget: int | None = option(
        None,
        at="",
        check=check_budget,
        chat=ChatKey("thinking-budget", "session", ("budget",)),
        help="tokens for thinking: -1 dynamic, 0 off",
    )
    gemini_generation_config: dict[str, Any] | None = option(
        None,
        at="",
        chat=ChatKey("gemini-generation-config", "session"),
        help="JSON object merged into generationConfig of calls to Gemini",
    )
    reasoning_mode: Literal["high", "medium", "low", "none"] | None = option(
        None,
        at="",
        chat=ChatKey("reasoning-mode", "session"),
        help="mode set by !/max, !/medium, !/low or !/no-think",
    )


_KEYS = frozenset(made.chat.name for made in SamplingOptions.options if made.chat is not None)
_SAMPLED = (("temperature", "temperature"), ("top_p", "top-p"))


class SessionSampling(Feature):
    """Changes nothing, and costs one look at a small set, in sessions that chose none of these values."""

    name = "session sampling"

    def __init__(self, aliases: ReasoningAliases) -> None:
        self._aliases = aliases

    def concerns(self, exchange: ExchangeView) -> bool:
        return not _KEYS.isdisjoint(exchange.session.values)

    def on_attempt(self, exchange: ExchangeView, request: Request) -> Request:
        values = exchange.session.values
        if _KEYS.isdisjoint(values):
            return request
        word = values.get("reasoning-mode")
        mode = None if word is None else self._aliases.mode(word, exchange.backend, exchange.model)
        changes: dict[str, Any] = {}
        added, filled = set(request.added), set(request.filled)
        sampling = request.sampling
        for name, key in _SAMPLED:
            value = getattr(mode, name, None)
            if value is None and getattr(sampling, name) is None and (value := values.get(key)) is not None:
                filled.add(name)
            if value is not None:
                sampling = msgspec.structs.replace(sampling, **{name: value})
                added.add(name)
        if sampling is not request.sampling:
            changes["sampling"] = sampling
        reasoning = _reasoning(request.reasoning, mode, values)
        if reasoning != request.reasoning:
            changes["reasoning"] = reasoning
            added.add("reasoning")
        if config := _for_gemini(values, mode):
            changes["gemini"] = merged(request.gemini, config)
        if mode is not None and (mode.user_prompt_prefix or mode.user_prompt_suffix):
            changes["messages"] = _surrounded(request.messages, mode.user_prompt_prefix, mode.user_prompt_suffix)
        if not changes:
            return request
        return msgspec.structs.replace(request, added=frozenset(added), filled=frozenset(filled), **changes)


def _reasoning(asked: Reasoning | None, mode: Mode | None, values: Mapping[str, Any]) -> Reasoning | None:
    """The mode instead of what the request says on how much to think; without one the session's word where the request is silent."""
    ours = mode.reasoning if mode is not None else None
    if ours is None:
        ours = asked if says_how_much(asked) else _wanted(values) or asked
    return None if ours is None else shown_as(ours, asked, values)


def _wanted(values: Mapping[str, Any]) -> Reasoning | None:
    """What the session wants where nothing else counts."""
    for budget in (values.get("thinking-budget"), member(values, "max_tokens")):
        if isinstance(budget, int) and not isinstance(budget, bool) and budget >= -1:
            return of_budget(budget)
    for word in (values.get("reasoning-effort"), member(values, "effort")):
        if (effort := effort_word(word)) is not None:
            return of_effort(effort)
    return None


def _for_gemini(values: Mapping[str, Any], mode: Mode | None) -> dict[str, Any]:
    """The session's generationConfig, without what a mode says itself."""
    config = values.get("gemini-generation-config")
    if not isinstance(config, dict):
        return {}
    if mode is None:
        return config
    said = {plain_name(name) for name, _ in _SAMPLED if getattr(mode, name) is not None}
    return without(config, said | {THINKING} if mode.reasoning is not None else said)


def _surrounded(messages: tuple[Message, ...], prefix: str, suffix: str) -> tuple[Message, ...]:
    """The last message in which the user says something, with `prefix` and `suffix` around its text; results of tools are none."""
    for place in range(len(messages) - 1, -1, -1):
        message = messages[place]
        texts = [at for at, part in enumerate(message.parts) if isinstance(part, Text) and part.text]
        if message.role != "user" or not texts:
            continue
        parts = list(message.parts)
        for at, before, after in ((texts[0], prefix, ""), (texts[-1], "", suffix)):
            part = parts[at]
            assert isinstance(part, Text)
            parts[at] = msgspec.structs.replace(part, text=before + part.text + after)
        changed = msgspec.structs.replace(message, parts=tuple(parts))
        return (*messages[:place], changed, *messages[place + 1 :])
    return messages
