"""A person who types commands in a client, and what a provider got of it.

Owns conversations in each client protocol through the official SDKs, one session each; reading back what a provider was told, and
what a session holds. Judges nothing.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from tests.e2e.asking import PROTOCOLS, Scene, body_of, data_of, path_of, protocol_of, target
from tests.server.process import Answer
from tests.support import sdk
from tests.support.proxy import backends_at
from tests.support.semantic import Semantic
from tests.support.shared import Protocol
from tests.support.upstream import Received

SURFACES: Final = [(client, stream) for client in PROTOCOLS for stream in (False, True)]
NAMES: Final = [f"{client}-{'stream' if stream else 'whole'}" for client, stream in SURFACES]

Role = Literal["user", "assistant"]
Turn = tuple[Role, str]


def backends(url: str) -> dict[str, Any]:
    """One keyless back end for each protocol, and named ones with keys."""
    return {
        **backends_at(url),
        "openai": {"type": "openai", "base_url": f"{url}/openai/v1", "api_keys": {"a": "provider-key-a", "b": "provider-key-b"}},
        "other": {"type": "openai", "base_url": f"{url}/other/v1", "api_keys": {"o": "provider-key-o"}},
        "resting": {"type": "openai", "base_url": f"{url}/resting/v1", "api_keys": {"tired": "provider-key-t"}},
        "keyless": {"type": "openai", "base_url": f"{url}/keyless/v1"},
        "google": {"type": "gemini", "base_url": f"{url}/google", "no_auth": True},
    }  # fmt: skip


def config(url: str, **more: Any) -> dict[str, Any]:
    return {"backends": backends(url), "default_backend": "up-chat", **more}


def fresh_id() -> str:
    return f"s-{uuid.uuid4().hex[:12]}"


def turns_of(client: Protocol, *turns: Turn) -> dict[str, Any]:
    """The member that holds this conversation."""
    match client:
        case "openai-chat" | "anthropic-messages":
            return {"messages": [{"role": role, "content": text} for role, text in turns]}
        case "openai-responses":
            return {"input": [{"role": role, "content": text} for role, text in turns]}
        case "gemini":
            roles = {"user": "user", "assistant": "model"}
            return {"contents": [{"role": roles[role], "parts": [{"text": text}]} for role, text in turns]}


def system_of(client: Protocol, text: str) -> dict[str, Any]:
    """The member for a system prompt; Chat has none, see `Talk.say`."""
    match client:
        case "openai-chat":
            return {}
        case "openai-responses":
            return {"instructions": text}
        case "anthropic-messages":
            return {"system": text}
        case "gemini":
            return {"systemInstruction": {"parts": [{"text": text}]}}


def heard(request: Received) -> list[Turn]:
    """What the provider got as words of the user and of the assistant; parts of one message are joined by a bar."""
    body = request.json
    found: list[Turn] = []
    match protocol_of(request):
        case "openai-chat" | "anthropic-messages":
            messages = [(entry.get("role"), entry.get("content")) for entry in body["messages"]]
        case "openai-responses":
            given = body["input"]
            messages = (
                [("user", given)]
                if isinstance(given, str)
                else [(entry.get("role"), entry.get("content")) for entry in given]
            )
        case "gemini":
            messages = [(entry.get("role", "user"), entry["parts"]) for entry in body["contents"]]
    for role, content in messages:
        if role in ("system", "developer"):
            continue
        text = content if isinstance(content, str) else "|".join(str(part.get("text", "?")) for part in content or ())
        found.append(("user" if role == "user" else "assistant", text))
    return found


@dataclass
class Talk:
    """One session of one client. `history` of what was said is not kept: each request says what it holds."""

    scene: Scene
    client: Protocol
    stream: bool = False
    model: str = ""
    session: str = field(default_factory=fresh_id)
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model = self.model or target(self.client)

    @property
    def sent(self) -> dict[str, str]:
        return {**self.headers, "x-session-id": self.session}

    def body(self, said: str | Sequence[Turn], system: str = "", **more: Any) -> dict[str, Any]:
        """A request body without `stream`. `said`: the last words, or the whole conversation."""
        turns: Sequence[Turn] = [("user", said)] if isinstance(said, str) else said
        body = {**body_of(self.client, self.model), **turns_of(self.client, *turns)}
        if system and self.client == "openai-chat":
            body["messages"].insert(0, {"role": "system", "content": system})
        body |= system_of(self.client, system) if system else {}
        return {**body, **more}

    def say(self, said: str | Sequence[Turn], **more: Any) -> Semantic:
        """Through the official SDK."""
        body = self.body(said, **more)
        if self.stream and self.client == "openai-chat":
            body["stream_options"] = {"include_usage": True}
        return sdk.ask(
            self.client, self.scene.url, self.scene.proxy.key, body, self.stream, path_model=self.model, headers=self.sent
        )  # fmt: skip

    def post(self, said: str | Sequence[Turn], **more: Any) -> Answer:
        """As bytes, for what no SDK shows: headers and ids."""
        body = self.body(said, **more)
        if self.stream and self.client != "gemini":
            body["stream"] = True
        return self.scene.post(path_of(self.client, self.model, self.stream), body, self.sent)

    def state(self) -> dict[str, Any]:
        """What the proxy shows of the session."""
        answer = self.scene.proxy.get(f"/internal/sessions/{self.session}")
        assert answer.status == 200, answer.body
        found = answer.json
        assert isinstance(found, dict)
        return found

    @property
    def values(self) -> dict[str, Any]:
        found = self.state()["values"]
        assert isinstance(found, dict)
        return found

    def forwarded(self) -> str:
        """The last words of the only request that the provider got since it was last asked to play."""
        [request] = self.scene.upstream.requests
        role, text = heard(request)[-1]
        assert role == "user"
        return text


def calls(scene: Scene) -> int:
    """How many generating requests the provider got; lists of models do not count."""
    return len(scene.upstream.requests)


def reply_ids(client: Protocol, answer: Answer, stream: bool) -> list[str]:
    """Every id that the answer names, in order."""
    found: list[str] = []
    for event in data_of(answer) if stream else [answer.json]:
        if event == "[DONE]":
            continue
        match client:
            case "openai-chat":
                found.append(event["id"])
            case "openai-responses":
                response = event.get("response", {}) if stream else event
                found += [response["id"]] if "id" in response else []
            case "anthropic-messages":
                message = event.get("message", {}) if stream else event
                found += [message["id"]] if "id" in message else []
            case "gemini":
                found.append(event["responseId"])
    return found


def embedded(text: str) -> bytes:
    """`text` as it stands inside a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1].encode()


def structured(client: Protocol) -> dict[str, Any]:
    """The members that demand an answer of a given shape."""
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    match client:
        case "openai-chat":
            return {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}}
        case "openai-responses":
            return {"text": {"format": {"type": "json_schema", "name": "n", "schema": schema}}}
        case "anthropic-messages":
            return {"output_config": {"format": {"type": "json_schema", "schema": schema}}}
        case "gemini":
            return {"generationConfig": {"responseMimeType": "application/json", "responseSchema": {"type": "object"}}}


def finished(client: Protocol) -> dict[str, Any]:
    """A conversation after the proxy called `attempt_completion`, as the client sends it back."""
    result, arguments = "ok, thanks", {"result": "the banner"}
    match client:
        case "openai-chat":
            made = {
                "id": "call_proxy_1",
                "type": "function",
                "function": {"name": "attempt_completion", "arguments": json.dumps(arguments)},
            }
            return {"messages": [
                {"role": "user", "content": "!/hello"}, {"role": "assistant", "content": None, "tool_calls": [made]},
                {"role": "tool", "tool_call_id": "call_proxy_1", "content": result}, {"role": "user", "content": "hi"}]}  # fmt: skip
        case "openai-responses":
            return {"input": [
                {"role": "user", "content": "!/hello"},
                {"type": "function_call", "call_id": "call_proxy_1", "name": "attempt_completion", "arguments": json.dumps(arguments)},
                {"type": "function_call_output", "call_id": "call_proxy_1", "output": result}, {"role": "user", "content": "hi"}]}  # fmt: skip
        case "anthropic-messages":
            return {"messages": [
                {"role": "user", "content": "!/hello"},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_proxy_1", "name": "attempt_completion", "input": arguments}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_proxy_1", "content": result},
                                             {"type": "text", "text": "hi"}]}]}  # fmt: skip
        case "gemini":
            return {"contents": [
                {"role": "user", "parts": [{"text": "!/hello"}]},
                {"role": "model", "parts": [{"functionCall": {"id": "call_proxy_1", "name": "attempt_completion", "args": arguments}}]},
                {"role": "user", "parts": [{"functionResponse": {"id": "call_proxy_1", "name": "attempt_completion",
                                                                 "response": {"output": result}}}, {"text": "hi"}]}]}  # fmt: skip


def results(client: Protocol) -> dict[str, Any]:
    """A conversation that ends with the result of a tool, which holds a command."""
    said, arguments = "!/model(x)", {"path": "a"}
    match client:
        case "openai-chat":
            made = {"id": "c1", "type": "function", "function": {"name": "read", "arguments": json.dumps(arguments)}}
            return {"messages": [
                {"role": "user", "content": "look"}, {"role": "assistant", "content": None, "tool_calls": [made]},
                {"role": "tool", "tool_call_id": "c1", "content": said}]}  # fmt: skip
        case "openai-responses":
            return {"input": [
                {"role": "user", "content": "look"},
                {"type": "function_call", "call_id": "c1", "name": "read", "arguments": json.dumps(arguments)},
                {"type": "function_call_output", "call_id": "c1", "output": said}]}  # fmt: skip
        case "anthropic-messages":
            return {"messages": [
                {"role": "user", "content": "look"},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "read", "input": arguments}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": said}]}]}  # fmt: skip
        case "gemini":
            return {"contents": [
                {"role": "user", "parts": [{"text": "look"}]},
                {"role": "model", "parts": [{"functionCall": {"name": "read", "args": arguments}}]},
                {"role": "user", "parts": [{"functionResponse": {"name": "read", "response": {"output": said}}}]}]}  # fmt: skip
