"""What a request becomes that routing sends to another model than its client wrote it for (RT-04 to RT-07, translation): limits, sampling
and reasoning as that model takes them, all else byte for byte. The protocol of client and provider is the same throughout."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from tests.e2e.asking import Scene, path_of, say, started, target
from tests.e2e.commanding import Talk, config, fresh_id, heard
from tests.server.process import Answer
from tests.support.proxy import BACKEND_OF
from tests.support.shared import Protocol
from tests.support.upstream import Received, Reply, upstream_in_thread

CHAT: Final[Protocol] = "openai-chat"
RESPONSES: Final[Protocol] = "openai-responses"
ANTHROPIC: Final[Protocol] = "anthropic-messages"
GEMINI: Final[Protocol] = "gemini"
ROUTED: Final = [f"{BACKEND_OF[client]}:{model}" for client, model in (
    (CHAT, "o3"), (RESPONSES, "o3"), (ANTHROPIC, "claude-opus-4-7"), (GEMINI, "gemini-3-flash"),
)]  # fmt: skip

# What stands around: odd spellings, unknown members, numbers that no encoder would write so.
SPELLED: Final[dict[Protocol, str]] = {
    "openai-chat": '"messages": [ {"role":"user",  "content":"h\\u00e9 \\/ there"} ],"x-unknown" : 1.50e2, "seed":7',
    "openai-responses": '"input": [ {"role":"user",  "content":"h\\u00e9 \\/ there"} ],"x-unknown" : 1.50e2, "store":false',
    "anthropic-messages": '"messages": [ {"role":"user",  "content":"h\\u00e9 \\/ there"} ],"x-unknown" : 1.50e2, "metadata":{ }',
    "gemini": '"contents": [ {"role":"user",  "parts":[{"text":"h\\u00e9 \\/ there"}]} ],"x-unknown" : 1.50e2, "labels":{ }',
}  # fmt: skip
LOCKED: Final = ("--static-route", "--force-model")

# (protocol, the model that is asked, what the client says, what the provider gets instead)
Case = tuple[Protocol, str, dict[str, Any], dict[str, Any]]
THINKS: Final = {"thinking": {"type": "enabled", "budget_tokens": 4096}}
ADAPTS: Final = {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}


def thinks(**config: Any) -> dict[str, Any]:
    return {"generationConfig": {"thinkingConfig": config}}


CASES: list[Case] = [
    (ANTHROPIC, "claude-opus-4-7", {**THINKS, "temperature": 0.5, "top_p": 0.9, "max_tokens": 200000},
     {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}, "max_tokens": 128000}),
    (ANTHROPIC, "claude-opus-4-7", {"temperature": 0.5, "top_p": 0.9, "top_k": 5, "max_tokens": 100}, {"max_tokens": 100}),
    (ANTHROPIC, "claude-sonnet-4-5", {**THINKS, "temperature": 0.5, "top_p": 0.9, "max_tokens": 200000}, {**THINKS, "max_tokens": 64000}),
    (ANTHROPIC, "claude-sonnet-4-5", {"temperature": 0.5, "top_p": 0.9, "max_tokens": 100}, {"temperature": 0.5, "max_tokens": 100}),
    (ANTHROPIC, "claude-sonnet-4-5", {**ADAPTS, "max_tokens": 20000},
     {"thinking": {"type": "enabled", "budget_tokens": 16384}, "max_tokens": 20000}),
    (ANTHROPIC, "claude-3-haiku-20240307", {**THINKS, "temperature": 0.5, "top_p": 0.9, "max_tokens": 200000},
     {"temperature": 0.5, "top_p": 0.9, "max_tokens": 4096}),
    (ANTHROPIC, "claude-3-haiku-20240307", {**ADAPTS, "max_tokens": 100}, {"max_tokens": 100}),
    (CHAT, "o3", {"max_tokens": 100, "temperature": 0.2, "top_p": 0.9, "presence_penalty": 1, "frequency_penalty": 1},
     {"max_completion_tokens": 100}),
    (CHAT, "gpt-5", {"max_tokens": 100, "temperature": 0.2, "logprobs": True, "top_logprobs": 2, "logit_bias": {"1": 2}},
     {"max_completion_tokens": 100}),
    (CHAT, "gpt-4o", {"max_completion_tokens": 100, "reasoning_effort": "minimal"}, {"max_completion_tokens": 100}),
    (CHAT, "o3", {"reasoning_effort": "xhigh"}, {"reasoning_effort": "high"}),
    (CHAT, "o3", {"reasoning_effort": "none", "temperature": 0.2}, {"reasoning_effort": "low"}),
    (CHAT, "gpt-5.5", {"reasoning_effort": "none", "temperature": 0.2}, {"reasoning_effort": "none", "temperature": 0.2}),
    (CHAT, "gpt-5.5", {"reasoning_effort": "low", "temperature": 0.2}, {"reasoning_effort": "low"}),
    (CHAT, "o3", {"reasoning": {"effort": "high"}}, {"reasoning_effort": "high"}),
    (CHAT, "gpt-5", {"thinking": {"type": "enabled"}}, {}),
    (CHAT, "llama-3.3-70b", {"max_completion_tokens": 100, "reasoning_effort": "high", "temperature": 0.2},
     {"max_tokens": 100, "temperature": 0.2}),
    (CHAT, "glm-4.6", {"max_completion_tokens": 100, "reasoning_effort": "high"}, {"max_tokens": 100, "thinking": {"type": "enabled"}}),
    (RESPONSES, "o3", {"max_output_tokens": 100, "temperature": 0.2, "top_p": 0.9, "reasoning": {"effort": "minimal", "summary": "auto"}},
     {"max_output_tokens": 100, "reasoning": {"effort": "low", "summary": "auto"}}),
    (RESPONSES, "o3", {"top_logprobs": 2, "include": ["message.output_text.logprobs", "reasoning.encrypted_content"]},
     {"include": ["reasoning.encrypted_content"]}),
    (RESPONSES, "gpt-4o", {"temperature": 0.2, "reasoning": {"effort": "high", "context": "auto"}, "include": ["reasoning.encrypted_content"]},
     {"temperature": 0.2, "include": []}),
    (GEMINI, "gemini-3-flash", thinks(thinkingBudget=8192, includeThoughts=True), thinks(thinkingLevel="MEDIUM", includeThoughts=True)),
    (GEMINI, "gemini-3-pro", thinks(thinkingBudget=0), thinks(thinkingLevel="LOW")),
    (GEMINI, "gemini-3-pro", thinks(thinkingLevel="medium"), thinks(thinkingLevel="LOW")),
    (GEMINI, "gemini-2.5-flash", thinks(thinkingLevel="HIGH"), thinks(thinkingBudget=24576)),
    (GEMINI, "gemini-2.5-pro", thinks(thinkingBudget=0), thinks(thinkingBudget=128)),
    (GEMINI, "gemini-2.5-flash", thinks(thinkingBudget=32768), thinks(thinkingBudget=24576)),
    (GEMINI, "gemini-2.0-flash", thinks(thinkingBudget=1024, includeThoughts=True), {}),
]  # fmt: skip
# What another model takes just as well goes on as it came.
TAKEN: list[tuple[Protocol, str, dict[str, Any]]] = [
    (ANTHROPIC, "claude-opus-4-1", {**THINKS, "max_tokens": 8000, "temperature": 1}),
    (ANTHROPIC, "claude-opus-4-6", {**THINKS, "max_tokens": 8000}),
    (CHAT, "gpt-4.1", {"max_completion_tokens": 100, "temperature": 0.2, "top_p": 0.9, "presence_penalty": 1}),
    (CHAT, "o4-mini", {"max_completion_tokens": 100, "reasoning_effort": "low", "parallel_tool_calls": True}),
    (CHAT, "qwen3-32b", {"max_tokens": 100, "enable_thinking": True, "thinking_budget": 500, "top_k": 5}),
    (CHAT, "somebody-s-model", {"max_tokens": 9, "temperature": 0.2, "thinking": {"type": "enabled"}, "reasoning_effort": "none"}),
    (RESPONSES, "gpt-5.4", {"max_output_tokens": 100, "reasoning": {"effort": "low", "context": "auto"}, "include": ["reasoning.encrypted_content"]}),
    (RESPONSES, "somebody-s-model", {"temperature": 0.2, "reasoning": {"summary": "auto"}}),
    (GEMINI, "gemini-2.5-flash-lite", thinks(thinkingBudget=1024, includeThoughts=False)),
    (GEMINI, "gemini-3-pro", thinks(thinkingLevel="high", includeThoughts=True)),
    (GEMINI, "somebody-s-model", thinks(thinkingLevel="high")),
]  # fmt: skip


def raw_members(text: str) -> dict[str, str]:
    """The members of an object in their order, each as it is written."""
    decoder, at, found = json.JSONDecoder(), text.index("{") + 1, {}
    while text[at:].lstrip(" \n,")[:1] != "}":
        at += len(text[at:]) - len(text[at:].lstrip(" \n,"))
        name, at = decoder.raw_decode(text, at)
        at = text.index(":", at) + 1
        at += len(text[at:]) - len(text[at:].lstrip())
        _, end = decoder.raw_decode(text, at)
        found[name], at = text[at:end], end
    return found


def written(client: Protocol, model: str, said: dict[str, Any], stream: bool) -> bytes:
    own = [] if client == GEMINI else [f'"model":"{model}"', f'"stream":{str(stream).lower()}']
    steering = json.dumps(said)[1:-1]
    return ("{ " + ", ".join([*own, steering, SPELLED[client]]) + "}").encode()


def changed(sent: bytes, request: Received) -> dict[str, Any]:
    """What the provider got beside what it got as it was sent, in the same order; the model of the body apart."""
    before, after = raw_members(sent.decode()), raw_members(request.body.decode())
    before.pop("model", None), after.pop("model", None)
    after.pop("stream_options", None)  # asks a streaming provider of Chat for its usage
    same = [name for name, text in before.items() if after.get(name) == text]
    assert [name for name in after if name in same] == same
    assert set(raw_members("{" + SPELLED[protocol_like(sent)] + "}")) <= set(same)
    return {name: json.loads(text) for name, text in after.items() if name not in same}


def protocol_like(sent: bytes) -> Protocol:
    return next(client for client, text in SPELLED.items() if text.encode() in sent)


@contextmanager
def scene_of(*flags: str, **more: Any) -> Iterator[Scene]:
    rules = [{"pattern": rf"any-{client}-(.+)", "replacement": rf"{BACKEND_OF[client]}:\1"} for client in SPELLED]
    routes = {f"over-{name.partition(':')[0]}": {"policy": "m", "elements": [name]} for name in ROUTED}
    with (
        upstream_in_thread(say) as upstream,
        started(*flags, config=config(upstream.url, model_aliases=rules, failover_routes=routes, **more)) as proxy,
    ):
        yield Scene(proxy, upstream)


@pytest.fixture(scope="module")
def shared() -> Iterator[Scene]:
    with scene_of() as scene:
        yield scene


@pytest.fixture
def routed(shared: Scene) -> Scene:
    shared.play(say)
    return shared


def send(scene: Scene, client: Protocol, name: str, body: bytes, stream: bool = False, session: str = "") -> Answer:
    return scene.post(path_of(client, name, stream), body, {"x-session-id": session} if session else {})


def alias(client: Protocol, model: str) -> str:
    return f"any-{client}-{model}"


def got(scene: Scene, case: Case, name: str, stream: bool = False, session: str = "") -> Received:
    """Sends the case under `name`; the provider got what the case says, once."""
    client, model, said, expected = case
    body = written(client, name, said, stream)
    scene.upstream.forget()
    answer = send(scene, client, name, body, stream, session)
    assert answer.status == 200, answer.body
    assert answer.headers["x-llm-proxy-model"] == model
    [request] = scene.upstream.requests
    members = request.json
    assert client == GEMINI or members["model"] == model
    assert {key: members[key] for key in members.keys() & (said.keys() | expected.keys())} == expected
    assert changed(body, request).keys() <= said.keys() | expected.keys()
    return request


by_case = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}")
each_way = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@each_way
@by_case
def test_another_model_gets_what_it_takes_and_all_else_as_it_came(routed: Scene, case: Case, stream: bool) -> None:
    got(routed, case, alias(case[0], case[1]), stream)


@by_case
def test_the_model_of_the_session(routed: Scene, case: Case) -> None:
    client, model, _, _ = case
    talk = Talk(routed, client, model="first")
    talk.say(f"!/model({target(client, model)})")
    got(routed, case, "first", session=talk.session)


@pytest.mark.parametrize(
    "case", [case for case in CASES if target(case[0], case[1]) in ROUTED], ids=lambda case: case[0]
)
def test_a_route(routed: Scene, case: Case) -> None:
    got(routed, case, f"over-{BACKEND_OF[case[0]]}")


@pytest.mark.parametrize("flag", LOCKED)
@pytest.mark.parametrize("client", [CHAT, ANTHROPIC])
def test_a_static_route_and_a_forced_model(client: Protocol, flag: str) -> None:
    [first, *_] = [case for case in CASES if case[0] == client]
    with scene_of(flag, target(client, first[1])) as scene:
        for case in CASES:
            if case[:2] == first[:2]:
                got(scene, case, target(client, "another"))


@pytest.mark.parametrize(("client", "model", "said"), TAKEN, ids=lambda value: value if isinstance(value, str) else "")
def test_what_the_other_model_takes_as_well_keeps_its_bytes(
    routed: Scene, client: Protocol, model: str, said: dict[str, Any]
) -> None:
    name = alias(client, model)
    body = written(client, name, said, False)
    assert send(routed, client, name, body).status == 200
    assert routed.last.body == body.replace(name.encode(), model.encode())


@by_case
def test_the_model_that_the_client_named_gets_the_client_s_bytes(routed: Scene, case: Case) -> None:
    client, model, said, _ = case
    name = target(client, model)
    body = written(client, name, said, False)
    assert send(routed, client, name, body).status == 200
    assert routed.last.body == body.replace(name.encode(), model.encode())


def test_members_in_the_other_spelling_of_gemini(routed: Scene) -> None:
    body = b'{"contents":[{"parts":[{"text":"hi"}]}],"generation_config":{"thinking_config":{"thinking_budget":8192}, "top_k" : 5.0}}'
    assert send(routed, GEMINI, alias(GEMINI, "gemini-3-flash"), body).status == 200
    config = routed.last.json["generation_config"]
    assert config.pop("thinking_config") == {"thinkingLevel": "MEDIUM"}
    assert b'"top_k" : 5.0' in routed.last.body and "generationConfig" not in routed.last.json


# Together with what the proxy itself changes


EDITED: dict[Protocol, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "openai-chat": ("o3", {"max_tokens": 100, "temperature": 0.7}, {"max_completion_tokens": 100}),
    "openai-responses": ("o3", {"temperature": 0.7}, {}),
    "anthropic-messages": ("claude-opus-4-7", {"max_tokens": 200000, "temperature": 0.7, **THINKS},
                           {"max_tokens": 128000, "thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}),
    "gemini": ("gemini-3-flash", thinks(thinkingBudget=8192), thinks(thinkingLevel="MEDIUM")),
}  # fmt: skip
STEERED: Final = frozenset(
    ("max_tokens", "max_completion_tokens", "temperature", "reasoning_effort", "reasoning", "thinking", "output_config", "generationConfig")
)  # fmt: skip


def steered(request: Received) -> dict[str, Any]:
    return {name: value for name, value in request.json.items() if name in STEERED}


@each_way
@pytest.mark.parametrize("client", list(EDITED))
def test_a_command_beside_it_is_stripped(routed: Scene, client: Protocol, stream: bool) -> None:
    model, said, expected = EDITED[client]
    talk = Talk(routed, client, stream, model=alias(client, model))
    assert talk.post("!/hello fix this", **said).status == 200
    assert heard(routed.last) == [("user", " fix this")]
    assert steered(routed.last) == expected
    # From then on the history is cleaned in every request.
    assert talk.post([("user", "!/hello fix this"), ("assistant", "ok"), ("user", "more")], **said).status == 200
    assert heard(routed.last)[0] == ("user", " fix this")
    assert steered(routed.last) == expected


@each_way
@pytest.mark.parametrize("client", list(EDITED))
def test_a_reasoning_mode_of_the_session_beside_it(routed: Scene, client: Protocol, stream: bool) -> None:
    model, said, expected = EDITED[client]
    talk = Talk(routed, client, stream, model=alias(client, model))
    assert talk.post("!/max fix this", **said).status == 200
    high: dict[Protocol, dict[str, Any]] = {
        "openai-chat": {**expected, "reasoning_effort": "high"},
        "openai-responses": {"reasoning": {"effort": "high"}},
        "anthropic-messages": {**expected, "output_config": {"effort": "high"}},
        "gemini": thinks(thinkingLevel="HIGH"),
    }
    assert steered(routed.last) == high[client]
    assert heard(routed.last) == [("user", " fix this")]


@pytest.mark.parametrize("client", list(EDITED))
def test_a_temperature_of_the_session_beside_it_goes_where_the_model_takes_one(routed: Scene, client: Protocol) -> None:
    talk = Talk(routed, client, model=alias(client, EDITED[client][0]), session=fresh_id())
    limits = {"max_tokens": 100} if client in (CHAT, ANTHROPIC) else {}
    assert talk.post("!/temperature(0.3) hi", **limits).status == 200
    found = steered(routed.last)
    heat = found.pop("temperature", None), found.get("generationConfig", {}).get("temperature")
    assert heat == ((None, 0.3) if client == GEMINI else (None, None))
    assert client != CHAT or found == {"max_completion_tokens": 100}


@pytest.mark.parametrize("client", [CHAT, RESPONSES, ANTHROPIC])
def test_edit_precision_beside_it(routed: Scene, client: Protocol) -> None:
    failed = "The SEARCH block does not match anything"
    turns = [("user", "edit a"), ("assistant", "I tried"), ("user", f"[replace_in_file for 'a'] Result:\n{failed}")]
    talk = Talk(routed, client, model=alias(client, EDITED[client][0]))
    assert talk.post(turns, temperature=0.8).status == 200  # type: ignore[arg-type]
    assert "temperature" not in routed.last.json
    other = {CHAT: "gpt-4o", RESPONSES: "gpt-4o", ANTHROPIC: "claude-sonnet-4-5"}[client]
    talk = Talk(routed, client, model=alias(client, other))
    assert talk.post(turns, temperature=0.8).status == 200  # type: ignore[arg-type]
    assert routed.last.json["temperature"] == 0.1


# What refusals teach


def refusing(name: str, message: str = "") -> Callable[[Received], Reply]:
    """A provider that knows no parameter of this name."""

    def script(request: Received) -> Reply:
        if f'"{name}"'.encode() not in request.body:
            return say(request)
        said = message or f"Unsupported parameter: '{name}' is not supported with this model."
        error = {"message": said, "type": "invalid_request_error", "param": name, "code": "unsupported_parameter"}
        if protocol_like(request.body) == ANTHROPIC:
            error = {"type": "invalid_request_error", "message": f"{name}: Extra inputs are not permitted"}
            return Reply.json({"type": "error", "error": error}, 400)
        if protocol_like(request.body) == GEMINI:
            said = f"Invalid JSON payload received. Unknown name \"{name}\" at 'generation_config': Cannot find field."
            return Reply.json({"error": {"code": 400, "message": said, "status": "INVALID_ARGUMENT"}}, 400)
        return Reply.json({"error": error}, 400)

    return script


TAUGHT: list[tuple[Protocol, str, dict[str, Any], dict[str, Any]]] = [
    (CHAT, "temperature", {"temperature": 0.5, "max_tokens": 9}, {"max_tokens": 9}),
    (CHAT, "max_tokens", {"temperature": 0.5, "max_tokens": 9}, {"temperature": 0.5, "max_completion_tokens": 9}),
    (CHAT, "reasoning_effort", {"reasoning_effort": "high", "max_tokens": 9}, {"max_tokens": 9}),
    (CHAT, "parallel_tool_calls", {"parallel_tool_calls": True, "max_tokens": 9}, {"max_tokens": 9}),
    (RESPONSES, "temperature", {"temperature": 0.5, "reasoning": {"effort": "low"}}, {"reasoning": {"effort": "low"}}),
    (RESPONSES, "reasoning", {"temperature": 0.5, "reasoning": {"effort": "low"}}, {"temperature": 0.5}),
    (ANTHROPIC, "temperature", {"temperature": 0.5, "max_tokens": 9}, {"max_tokens": 9}),
    (ANTHROPIC, "thinking", {**THINKS, "max_tokens": 9000}, {"max_tokens": 9000}),
    (GEMINI, "thinkingConfig", thinks(thinkingBudget=100), {}),
]


@each_way
@pytest.mark.parametrize(("client", "name", "said", "expected"), TAUGHT)
def test_a_refusal_that_names_a_parameter_is_followed_by_one_repeat_without_it(
    routed: Scene, client: Protocol, name: str, said: dict[str, Any], expected: dict[str, Any], stream: bool
) -> None:
    asked = "reasoning.effort" if (client, name) == (RESPONSES, "reasoning") else name
    script = refusing(name, f"Unsupported parameter: '{asked}' is not supported with this model.")
    routed.play(lambda request: taught(script(request), asked))
    model = f"new-{name}-{'stream' if stream else 'whole'}"
    body = written(client, alias(client, model), said, stream)
    for calls in (2, 1):  # what was learned holds for the next request
        routed.upstream.forget()
        assert send(routed, client, alias(client, model), body, stream).status == 200
        assert len(routed.upstream.requests) == calls
        members = routed.last.json
        assert {key: members[key] for key in members.keys() & (said.keys() | expected.keys())} == expected
        changed(body, routed.last)


def taught(reply: Reply, name: str) -> Reply:
    """The same reply with the parameter by another name."""
    if reply.status == 200 or b'"param"' not in reply.body:
        return reply
    value = json.loads(reply.body)
    value["error"]["param"] = name
    return Reply.json(value, reply.status)


@pytest.mark.parametrize(("client", "name", "said"), [case[:3] for case in TAUGHT])
def test_the_client_that_named_the_model_is_told_the_refusal_after_one_call(
    routed: Scene, client: Protocol, name: str, said: dict[str, Any]
) -> None:
    routed.play(refusing(name))
    model = target(client, f"named-{name}")
    body = written(client, model, said, False)
    for _ in range(2):
        routed.upstream.forget()
        answer = send(routed, client, model, body)
        assert answer.status == 400 and name in answer.json["error"]["message"]
        [request] = routed.upstream.requests
        assert request.body == body.replace(model.encode(), model.partition(":")[2].encode())
