"""Symptoms of conversations: requests that are refused for what they say, commands, safeguards, and what the proxy tells beside an answer."""

from __future__ import annotations

import json
from typing import Any

from tests.e2e import saying
from tests.e2e.asking import body_of, target
from tests.e2e.calling import Agent, Turn, called
from tests.e2e.house import in_process
from tests.e2e.repeating import LOOP
from tests.e2e.repeating import saying as repeating
from tests.e2e.symptoms import CHAT, Proxies, log_with, seen, symptom

# Requests


@symptom("The request is not valid")
def invalid(proxies: Proxies) -> str:
    broken = seen(proxies.scene.proxy.post(CHAT, b'{"model": "up-chat:m", "messages": ['))
    return broken + seen(proxies.scene.post(CHAT, {"model": "up-chat:m", "messages": "x"}))


@symptom("A tool result has no call")
def tool_result(proxies: Proxies) -> str:
    messages = [{"role": "user", "content": "hi"}, {"role": "tool", "tool_call_id": "call_9", "content": "x"}]
    return seen(proxies.scene.post(CHAT, {"model": target("anthropic-messages"), "messages": messages}))


@symptom("`previous_response_id` is not found")
def previous_response(proxies: Proxies) -> str:
    body = {"model": "up-chat:m", "input": "hi"}
    gone = {"previous_response_id": "resp_x"}, {"input": [{"type": "item_reference", "id": "msg_x"}]}
    return "".join(seen(proxies.scene.post("/v1/responses", {**body, **more})) for more in gone)


# Commands


def typed(proxies: Proxies, text: str, **headers: str) -> str:
    return seen(proxies.locked.post(CHAT, body_of("openai-chat", "demo:echo", said=text), headers))


@symptom("A command is not known")
def unknown_command(proxies: Proxies) -> str:
    return proxies.ask("up-chat:m", said="!/modle(demo:echo)")


@symptom("A command is not allowed")
def not_allowed(proxies: Proxies) -> str:
    return typed(proxies, "!/set(default-backend=demo)", **{"x-project": "p"})


@symptom("A model is pinned by the operator")
def pinned(proxies: Proxies) -> str:
    return typed(proxies, "!/model(demo:think)", **{"x-project": "p"})


@symptom("A command is sent to the model instead of being executed")
def not_seen(proxies: Proxies) -> str:
    return typed(proxies, "please !/hello now", **{"x-project": "p"})


@symptom("Every request wants a project")
def project(proxies: Proxies) -> str:
    return typed(proxies, "hi")


# Safeguards


@symptom("An answer is cancelled as a loop")
def content_loop(proxies: Proxies) -> str:
    return proxies.ask("up-chat:m", repeating(LOOP), stream=True) + proxies.ask("up-chat:m", repeating(LOOP))


@symptom("A tool call is withheld as a loop")
def tool_loop(proxies: Proxies) -> str:
    agent = Agent(proxies.scene, "openai-chat", tools=["look"])
    for _ in range(3):
        agent.runs("nothing there", called("look", at="here"))
    return seen(agent.asks(Turn(calls=(called("look", at="here"),))))


@symptom("A dangerous command is not passed on")
def dangerous(proxies: Proxies) -> str:
    agent = Agent(proxies.scene, "openai-chat", tools=["bash"])
    return seen(agent.asks(Turn(calls=(called("bash", command="git reset --hard origin/main"),))))


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}


def by_schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}


@symptom("The answer should be JSON and is not")
def json_repair(proxies: Proxies) -> str:
    no_json = saying.say("I cannot say that, sorry.")
    return proxies.ask("up-chat:m", no_json, response_format={"type": "json_object"})


@symptom("The answer does not conform to the schema")
def structured(proxies: Proxies) -> str:
    return proxies.ask("up-chat:m", saying.say('{"b": 1}'), response_format=by_schema(SCHEMA))


@symptom("The schema cannot be used")
def schema(proxies: Proxies) -> str:
    return proxies.ask("up-chat:m", response_format=by_schema({"type": "objekt"}))


@symptom("The model gives an empty answer")
def empty(proxies: Proxies) -> str:
    return proxies.ask("up-chat:m", saying.say())


@symptom("The proxy itself fails")
def internal(proxies: Proxies) -> str:
    folder = proxies.folder / "failing"
    folder.mkdir(exist_ok=True)
    with in_process(folder, {"backends": {"demo": {"type": "demo"}}}) as proxy:
        room = next(room for room in proxy.rooms if room.fails_closed)

        def fail(exchange: object) -> None:
            raise RuntimeError("by the test")

        room.on_request = fail  # type: ignore[method-assign]
        body = json.dumps(body_of("openai-chat", "demo:echo")).encode()
        return seen(proxy.post("/v1/chat/completions", body, "req_troubled"))


# Performance and debugging


@symptom("It is slow")
def slow(proxies: Proxies) -> str:
    return proxies.ask("up-chat:m") + log_with(proxies.scene.proxy, "PERF_SUMMARY")


@symptom("Something of the request did not reach the provider")
def warnings(proxies: Proxies) -> str:
    return proxies.ask(target("anthropic-messages"), logit_bias={"5": 3}, seed=7)


@symptom("Models are missing in a list")
def missing_models(proxies: Proxies) -> str:
    return seen(proxies.scene.proxy.get("/v1/models?backend=closed"))


@symptom("Another model answers than the one asked for")
def another_model(proxies: Proxies) -> str:
    shown = proxies.ask("up-chat:m") + typed(proxies, "hi", **{"x-project": "p"})
    return shown + seen(proxies.scene.proxy.get("/internal/routing?model=resting:m"))
