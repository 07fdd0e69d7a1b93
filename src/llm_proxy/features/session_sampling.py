"""Sampling values of a session: what `!/set(temperature=…)` and the reasoning modes put where a request says nothing.

Owns the keys and their precedence (REQ-02, REQ-03): the request before the session, but a reasoning mode before the request. Between the
session's own words on reasoning a number of tokens says more than an effort, and a key of its own more than a member of `reasoning`.
Knows no protocol: what a target takes of all this is decided by the dialect that writes for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from llm_proxy.config.options import ChatKey, OptionGroup, option
from llm_proxy.conversation.request import EFFORTS, Effort, Reasoning, Request
from llm_proxy.features import Feature
from llm_proxy.features.exchange import ExchangeView


def check_budget(value: str) -> str | None:
    number = int(value)
    return None if number in (-1, 0) or 128 <= number <= 65536 else "-1 (dynamic), 0 (off) or 128 to 65536 tokens"


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


class SessionSampling(Feature):
    """Changes nothing, and costs one look at a small set, in sessions that chose none of these values."""

    name = "session sampling"

    def concerns(self, exchange: ExchangeView) -> bool:
        return not _KEYS.isdisjoint(exchange.session.values)

    def on_attempt(self, exchange: ExchangeView, request: Request) -> Request:
        values = exchange.session.values
        if _KEYS.isdisjoint(values):
            return request
        changes: dict[str, Any] = {}
        added = set(request.added)
        sampling = request.sampling
        for member, key in (("temperature", "temperature"), ("top_p", "top-p")):
            if getattr(sampling, member) is None and (value := values.get(key)) is not None:
                sampling = msgspec.structs.replace(sampling, **{member: value})
                added.add(member)
        if sampling is not request.sampling:
            changes["sampling"] = sampling
        mode = values.get("reasoning-mode")
        if mode is not None:
            reasoning: Reasoning | None = _in_mode(mode, values, request.reasoning)
        else:
            reasoning = _completed(request.reasoning, values)
        if reasoning != request.reasoning:
            changes["reasoning"] = reasoning
            added.add("reasoning")
        if config := _for_gemini(values, mode is not None):
            changes["gemini"] = {**config, **request.gemini}
        return msgspec.structs.replace(request, added=frozenset(added), **changes) if changes else request


def built_in_mode(mode: str) -> Reasoning:
    """What a reasoning mode means for models that no file of modes names (REQ-03)."""
    return Reasoning("off") if mode == "none" else Reasoning("effort", effort=_effort(mode))


def _in_mode(mode: str, values: Mapping[str, Any], asked: Reasoning | None) -> Reasoning:
    """The mode instead of what the request says on how much to think; what it says on showing it still counts."""
    wanted = _excluding(built_in_mode(mode), values)
    return wanted if asked is None else _shown_as(wanted, asked)


def _completed(asked: Reasoning | None, values: Mapping[str, Any]) -> Reasoning | None:
    """The request's reasoning with what the session says where the request is silent."""
    if asked is not None and (asked.mode != "auto" or asked.effort is not None or asked.budget is not None):
        return _excluding(asked, values)
    wanted = _wanted(values)
    if wanted is None:
        return None if asked is None else _excluding(asked, values)
    if asked is not None:
        wanted = _shown_as(wanted, asked)
    return _excluding(wanted, values)


def _shown_as(wanted: Reasoning, asked: Reasoning) -> Reasoning:
    visible = wanted.visible if asked.visible is None else asked.visible
    return msgspec.structs.replace(wanted, visible=visible, summary=asked.summary)


def _excluding(reasoning: Reasoning, values: Mapping[str, Any]) -> Reasoning:
    """With `exclude`, reasoning of which the request does not say whether it is shown stays hidden."""
    exclude = _member(values, "exclude")
    if reasoning.visible is not None or not isinstance(exclude, bool):
        return reasoning
    return msgspec.structs.replace(reasoning, visible=not exclude)


def _wanted(values: Mapping[str, Any]) -> Reasoning | None:
    """What the session wants where nothing else counts."""
    for budget in (values.get("thinking-budget"), _member(values, "max_tokens")):
        if isinstance(budget, int) and not isinstance(budget, bool) and budget >= -1:
            match budget:
                case 0:
                    return Reasoning("off")
                case -1:
                    return Reasoning("auto", budget=-1)
                case _:
                    return Reasoning("budget", budget=budget)
    for word in (values.get("reasoning-effort"), _member(values, "effort")):
        effort = _effort(word)
        if effort is not None:
            return Reasoning("off") if effort == "none" else Reasoning("effort", effort=effort)
    return None


def _effort(word: object) -> Effort | None:
    word = "max" if word == "maximum" else word
    return next((effort for effort in EFFORTS if effort == word), None)


def _member(values: Mapping[str, Any], name: str) -> object:
    """A member of the key `reasoning`, whose object is not checked when it is set."""
    given = values.get("reasoning")
    return given.get(name) if isinstance(given, Mapping) else None


def _for_gemini(values: Mapping[str, Any], in_mode: bool) -> dict[str, Any]:
    """The session's generationConfig. A mode replaces what it says on thinking, too."""
    config = values.get("gemini-generation-config")
    if not isinstance(config, dict):
        return {}
    return {
        name: value
        for name, value in config.items()
        if not (in_mode and name.replace("_", "").lower() == "thinkingconfig")
    }
