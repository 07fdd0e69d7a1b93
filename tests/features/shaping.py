"""Requests of all protocols through rooms that shape them, written for a provider as the proxy writes them.

Owns small requests and the reading back of what a provider gets; judges nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from llm_proxy import dialects
from llm_proxy.dialects.base import Target
from llm_proxy.dialects.capabilities import lookup
from llm_proxy.features import Feature
from llm_proxy.features.exchange import ExchangeView
from llm_proxy.sessions.session import Session
from llm_proxy.wire import json as wire_json

CHAT, RESPONSES, ANTHROPIC, GEMINI = "openai-chat", "openai-responses", "anthropic-messages", "gemini"
DIALECTS = (CHAT, RESPONSES, ANTHROPIC, GEMINI)
# A model that takes sampling values and one that reasons, for each dialect of a provider.
PLAIN = {CHAT: "gpt-4o", RESPONSES: "gpt-4o", ANTHROPIC: "claude-3-5-haiku", GEMINI: "gemini-2.0-flash"}
REASONING = {CHAT: "gpt-5.5", RESPONSES: "gpt-5.5", ANTHROPIC: "claude-sonnet-4-5", GEMINI: "gemini-2.5-flash"}


def asked(dialect: str, **more: Any) -> bytes:
    """A client's smallest request."""
    bodies: dict[str, dict[str, Any]] = {
        CHAT: {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
        RESPONSES: {"model": "m", "input": "hi"},
        ANTHROPIC: {"model": "m", "max_tokens": 1000, "messages": [{"role": "user", "content": "hi"}]},
        GEMINI: {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
    }
    return json.dumps({**bodies[dialect], **more}).encode()


def view(values: dict[str, Any] | None = None, backend: str = "b", model: str = "m") -> ExchangeView:
    session = Session(id="s", scope="k", created=0, last_used=0, values=values or {})
    return cast(ExchangeView, SimpleNamespace(session=session, backend=backend, model=model))


def sent(
    body: bytes,
    client: str,
    upstream: str,
    model: str,
    values: dict[str, Any] | None = None,
    *,
    rooms: Sequence[Feature],
    backend: str = "b",
) -> dict[str, Any]:
    """What the provider gets, made as the proxy makes it: whole for another dialect, as a change of the client's bytes for its own."""
    writer = dialects.get(upstream)
    target = Target(model=model, capabilities=lookup(upstream, model))
    read = request = dialects.get(client).read_request(body, "m" if client == GEMINI else "")
    exchange = view(values, backend, model)
    for room in rooms:
        if room.concerns(exchange):
            request = room.on_attempt(exchange, request)
    written = writer.write_request(request, target).body
    if client != upstream:
        return json.loads(json.dumps(written))
    before = writer.write_request(read, target).body
    return json.loads(wire_json.rewrite(writer.retarget(body, target), before, written))


def heat_of(dialect: str, body: dict[str, Any]) -> Any:
    return (body.get("generationConfig", {}) if dialect == GEMINI else body).get("temperature")


def top_p_of(dialect: str, body: dict[str, Any]) -> Any:
    return body.get("generationConfig", {}).get("topP") if dialect == GEMINI else body.get("top_p")


def with_heat(dialect: str, value: float) -> bytes:
    return asked(
        dialect, **({"generationConfig": {"temperature": value}} if dialect == GEMINI else {"temperature": value})
    )


ASKED_LOW: dict[str, dict[str, Any]] = {
    CHAT: {"reasoning_effort": "low"},
    RESPONSES: {"reasoning": {"effort": "low"}},
    ANTHROPIC: {"thinking": {"type": "enabled", "budget_tokens": 2048}, "max_tokens": 9000},
    GEMINI: {"generationConfig": {"thinkingConfig": {"thinkingBudget": 2048}}},
}


def thinking_of(body: dict[str, Any]) -> Any:
    """Gemini's thinkingConfig."""
    return body["generationConfig"]["thinkingConfig"]
