"""The official SDKs against demo with the base URLs that the start banner prints (GEN-01, GEN-02), and what only an SDK needs:
kept responses, model lists, token counts, embeddings.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import types

from tests.e2e.asking import Scene, say, started
from tests.server.process import KEY, Proxy
from tests.support.upstream import Received, Reply, Upstream, upstream_in_thread

WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def base(demo: Proxy) -> str:
    host, port = demo.main
    return f"http://{host}:{port}"


def client_of(proxy: Proxy) -> openai.OpenAI:
    return openai.OpenAI(base_url=base(proxy) + "/v1", api_key=proxy.key, max_retries=0)


@pytest.fixture(scope="module", params=["/v1", "/v1/v1", ""], ids=["v1", "one v1 too many", "no v1"])
def openai_client(demo: Proxy, request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=base(demo) + request.param, api_key=demo.key, max_retries=0) as client:
        yield client


@pytest.fixture(
    scope="module",
    params=["/anthropic", "/anthropic/v1", "", "/v1", "port"],
    ids=["anthropic", "anthropic/v1", "bare", "v1", "port"],
)
def anthropic_client(demo: Proxy, request: pytest.FixtureRequest) -> Iterator[anthropic.Anthropic]:
    url = "http://{}:{}".format(*demo.anthropic) if request.param == "port" else base(demo) + request.param
    with anthropic.Anthropic(base_url=url, api_key=demo.key, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module", params=["", "/v1beta"], ids=["banner", "one v1beta too many"])
def gemini_client(demo: Proxy, request: pytest.FixtureRequest) -> Iterator[genai.Client]:
    client = genai.Client(api_key=demo.key, http_options=types.HttpOptions(base_url=base(demo) + request.param))
    yield client
    client.close()


# OpenAI


def test_openai_chat(openai_client: openai.OpenAI) -> None:
    answer = openai_client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "hi"}])
    assert answer.choices[0].message.content == "Echo: hi"
    chunks = openai_client.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": "a b c"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    seen = list(chunks)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in seen if chunk.choices) == "Echo: a b c"
    assert seen[-1].usage is not None and seen[-1].usage.completion_tokens > 0


def test_openai_tools(openai_client: openai.OpenAI) -> None:
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": WEATHER}}
    question: Any = {"role": "user", "content": "go"}
    first = openai_client.chat.completions.create(model="demo:tools", messages=[question], tools=[tool])
    [made] = first.choices[0].message.tool_calls or []
    assert made.type == "function" and json.loads(made.function.arguments) == {"city": "text"}
    result: Any = {"role": "tool", "tool_call_id": made.id, "content": "sunny"}
    second = openai_client.chat.completions.create(
        model="demo:tools", messages=[question, first.choices[0].message, result], tools=[tool]  # type: ignore[list-item]
    )  # fmt: skip
    assert second.choices[0].message.content == "Result: sunny"
    with openai_client.chat.completions.stream(model="demo:tools", messages=[question], tools=[tool]) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].finish_reason == "tool_calls"


def test_openai_parsed_output(openai_client: openai.OpenAI) -> None:
    from pydantic import BaseModel

    class Place(BaseModel):
        city: str
        days: int

    for parse in (openai_client.chat.completions.parse, openai_client.beta.chat.completions.parse):
        answer = parse(model="demo:json", messages=[{"role": "user", "content": "x"}], response_format=Place)
        assert answer.choices[0].message.parsed == Place(city="text", days=1)
    response = openai_client.responses.parse(model="demo:json", input="x", text_format=Place)
    assert response.output_parsed == Place(city="text", days=1)


def test_openai_responses(openai_client: openai.OpenAI) -> None:
    assert openai_client.responses.create(model="demo", input="hi").output_text == "Echo: hi"
    with openai_client.responses.stream(model="demo", input="a b") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert final.output_text == "Echo: a b"
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"


def test_openai_models_and_embeddings(openai_client: openai.OpenAI) -> None:
    assert "demo:echo" in [model.id for model in openai_client.models.list()]
    assert openai_client.models.retrieve("demo:echo").id == "demo:echo"
    with pytest.raises(openai.NotFoundError):
        openai_client.models.retrieve("demo:nothing-of-that-name")
    vectors = openai_client.embeddings.create(model="demo", input=["a", "b"]).data
    assert [len(vector.embedding) for vector in vectors] == [8, 8]
    assert openai_client.completions.create(model="demo", prompt="x").choices[0].text == "Echo: x"
    words = openai_client.completions.create(model="demo", prompt="x y", stream=True)
    assert "".join(word.choices[0].text for word in words if word.choices) == "Echo: x y"


def test_openai_errors(openai_client: openai.OpenAI) -> None:
    question: Any = [{"role": "user", "content": "x"}]
    with pytest.raises(openai.RateLimitError):
        openai_client.chat.completions.create(model="demo:error-429", messages=question)
    with pytest.raises(openai.AuthenticationError):
        openai_client.with_options(api_key="wrong").chat.completions.create(model="demo", messages=question)
    with pytest.raises(openai.InternalServerError):
        openai_client.responses.create(model="demo:error-500", input="x")
    with pytest.raises(openai.APIError):
        list(openai_client.chat.completions.create(model="demo:cut", messages=question, stream=True))


# Anthropic


def test_anthropic_messages(anthropic_client: anthropic.Anthropic) -> None:
    asked: Any = {"model": "demo", "max_tokens": 100, "messages": [{"role": "user", "content": "a b"}]}
    [block] = anthropic_client.messages.create(**asked).content
    assert block.type == "text" and block.text == "Echo: a b"
    with anthropic_client.messages.stream(**asked) as stream:
        assert "".join(stream.text_stream) == "Echo: a b"
        assert stream.get_final_message().stop_reason == "end_turn"
    assert anthropic_client.messages.count_tokens(model="demo", messages=asked["messages"]).input_tokens > 0
    assert anthropic_client.beta.messages.count_tokens(model="demo", messages=asked["messages"]).input_tokens > 0


def test_anthropic_tools_and_thinking(anthropic_client: anthropic.Anthropic) -> None:
    asked: Any = {"max_tokens": 4000, "messages": [{"role": "user", "content": "go"}],
                  "tools": [{"name": "weather", "input_schema": WEATHER}, {"name": "other", "input_schema": WEATHER}]}  # fmt: skip
    for model, count in (("demo:tools", 1), ("demo:parallel", 2)):
        with anthropic_client.messages.stream(model=model, **asked) as stream:
            message = stream.get_final_message()
        assert message.stop_reason == "tool_use"
        assert [block.input for block in message.content if block.type == "tool_use"] == [{"city": "text"}] * count
    thought = anthropic_client.messages.create(
        model="demo:think", max_tokens=4000, thinking={"type": "enabled", "budget_tokens": 1024},
        messages=[{"role": "user", "content": "hi"}],
    )  # fmt: skip
    assert [block.type for block in thought.content] == ["thinking", "text"]


def test_anthropic_models_and_errors(anthropic_client: anthropic.Anthropic) -> None:
    assert "demo:echo" in [model.id for model in anthropic_client.models.list()]
    assert anthropic_client.models.retrieve("demo:echo").type == "model"
    asked: Any = {"max_tokens": 10, "messages": [{"role": "user", "content": "x"}]}
    with pytest.raises(anthropic.RateLimitError):
        anthropic_client.messages.create(model="demo:error-429", **asked)
    with pytest.raises(anthropic.AuthenticationError):
        anthropic_client.with_options(api_key="wrong").messages.create(model="demo", **asked)
    with pytest.raises(anthropic.APIStatusError), anthropic_client.messages.stream(model="demo:cut", **asked) as stream:
        stream.get_final_message()


def test_claude_code_with_an_auth_token_can_count_and_ask(demo: Proxy) -> None:
    """ANTHROPIC_BASE_URL and ANTHROPIC_AUTH_TOKEN are all that Claude Code is given."""
    with anthropic.Anthropic(
        base_url=base(demo) + "/anthropic", auth_token=demo.key, api_key=None, max_retries=0
    ) as client:
        counted = client.beta.messages.count_tokens(
            model="claude-sonnet-5", messages=[{"role": "user", "content": "hi"}], betas=["token-counting-2024-11-01"]
        )
        assert counted.input_tokens > 0
        answer = client.beta.messages.create(
            model="claude-sonnet-5",
            max_tokens=10,
            messages=[{"role": "user", "content": "hi"}],
            betas=["claude-code-20250219"],
        )
        assert answer.content


# Gemini


def test_gemini_generation(gemini_client: genai.Client) -> None:
    assert gemini_client.models.generate_content(model="demo:echo", contents="a b").text == "Echo: a b"
    chunks = gemini_client.models.generate_content_stream(model="demo:echo", contents="a b")
    assert "".join(chunk.text or "" for chunk in chunks) == "Echo: a b"
    assert (gemini_client.models.count_tokens(model="demo:echo", contents="hello").total_tokens or 0) > 0
    names = [model.name for model in gemini_client.models.list()]
    assert "models/demo:echo" in names
    assert gemini_client.models.get(model="demo:echo").name == "models/demo:echo"


def test_gemini_tools_thinking_and_json(gemini_client: genai.Client) -> None:
    declared = types.FunctionDeclaration(name="weather", parameters_json_schema=WEATHER)
    tools = types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=[declared])],
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    answer = gemini_client.models.generate_content(model="demo:tools", contents="go", config=tools)
    [made] = answer.function_calls or []
    assert (made.name, made.args) == ("weather", {"city": "text"})
    streamed = [
        found
        for chunk in gemini_client.models.generate_content_stream(model="demo:parallel", contents="go", config=tools)
        for found in chunk.function_calls or []
    ]
    assert [found.name for found in streamed] == ["weather", "weather"]
    thoughts = types.GenerateContentConfig(thinking_config=types.ThinkingConfig(include_thoughts=True))
    thought = gemini_client.models.generate_content(model="demo:think", contents="hi", config=thoughts)
    parts = (thought.candidates or [])[0].content
    assert parts is not None and [bool(part.thought) for part in parts.parts or []] == [True, False]
    shaped = types.GenerateContentConfig(response_mime_type="application/json", response_json_schema=WEATHER)
    fitted = gemini_client.models.generate_content(model="demo:json", contents="x", config=shaped)
    assert json.loads(fitted.text or "") == {"city": "text"}


def test_gemini_calls_a_python_function_by_itself(gemini_client: genai.Client) -> None:
    def weather(city: str) -> str:
        """Tells the weather."""
        return f"sunny in {city}"

    answer = gemini_client.models.generate_content(
        model="demo:tools", contents="go", config=types.GenerateContentConfig(tools=[weather])
    )
    assert "sunny in text" in (answer.text or "")


def test_gemini_errors(gemini_client: genai.Client) -> None:
    with pytest.raises(genai.errors.ClientError) as limit:
        gemini_client.models.generate_content(model="demo:error-429", contents="x")
    assert limit.value.code == 429
    with pytest.raises(genai.errors.ServerError):
        gemini_client.models.generate_content(model="demo:error-500", contents="x")
    with pytest.raises(genai.errors.APIError):
        list(gemini_client.models.generate_content_stream(model="demo:cut", contents="x"))


# Kept responses (FE-03)


@pytest.fixture(scope="module")
def two_clients() -> Iterator[tuple[Scene, openai.OpenAI, openai.OpenAI]]:
    """A Chat provider behind the proxy, and two clients with a key each."""
    with upstream_in_thread(say) as upstream:
        config = {**_config(upstream), "auth": {"api_keys": {"a": KEY, "b": "second-client-key"}}}
        with started(config=config, environment={"LLM_INTERACTIVE_PROXY_API_KEY": ""}) as proxy:
            url = base(proxy) + "/v1"
            a, b = (openai.OpenAI(base_url=url, api_key=key, max_retries=0) for key in (KEY, "second-client-key"))
            with a, b:
                yield Scene(proxy, upstream), a, b


def _config(upstream: Upstream) -> dict[str, Any]:
    return {"backends": {"chat": {"type": "openai", "base_url": f"{upstream.url}/v1", "no_auth": True}}}


def sent(upstream: Upstream) -> list[tuple[str, Any]]:
    """Role and content of the messages that the provider got last."""
    return [(message["role"], message["content"]) for message in upstream.requests[-1].json["messages"]]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_chain_of_previous_responses_works_on_a_chat_back_end(
    two_clients: tuple[Scene, openai.OpenAI, openai.OpenAI], stream: bool
) -> None:
    scene, client, _ = two_clients

    def create(**asked: Any) -> Any:
        if not stream:
            return client.responses.create(model="chat:m", **asked)
        with client.responses.stream(model="chat:m", **asked) as events:
            for _ in events:
                pass
            return events.get_final_response()

    first = create(input="one", instructions="first rule")
    second = create(input="two", previous_response_id=first.id, instructions="second rule")
    assert second.previous_response_id == first.id
    third = create(input=[{"role": "user", "content": "three"}], previous_response_id=second.id)
    assert third.output_text == "w0 w1 w2 "
    # Instructions of earlier responses do not carry over.
    assert sent(scene.upstream) == [
        ("user", "one"), ("assistant", "w0 w1 w2 "), ("user", "two"), ("assistant", "w0 w1 w2 "), ("user", "three"),
    ]  # fmt: skip


def test_tool_calls_are_in_the_chain(two_clients: tuple[Scene, openai.OpenAI, openai.OpenAI]) -> None:
    from tests.e2e.asking import Called, call

    scene, client, _ = two_clients
    scene.play(call(Called("call_7", "weather", {"city": "Kyiv"})))
    tool: Any = {"type": "function", "name": "weather", "parameters": WEATHER, "strict": False}
    first = client.responses.create(model="chat:m", input="go", tools=[tool])
    [made] = [item for item in first.output if item.type == "function_call"]
    scene.play(say)
    output: Any = {"type": "function_call_output", "call_id": made.call_id, "output": "sunny"}
    client.responses.create(model="chat:m", input=[output], previous_response_id=first.id, tools=[tool])
    user, assistant, result = scene.last.json["messages"]
    assert user["content"] == "go"
    assert assistant["tool_calls"][0]["id"] == result["tool_call_id"] == "call_7"
    assert result["content"] == "sunny"


def test_a_kept_response_can_be_retrieved_listed_and_deleted(
    two_clients: tuple[Scene, openai.OpenAI, openai.OpenAI],
) -> None:
    scene, client, other = two_clients
    scene.play(say)
    made = client.responses.create(model="chat:m", input="one two")
    assert client.responses.retrieve(made.id).output_text == "w0 w1 w2 "
    [item] = client.responses.input_items.list(made.id).data
    assert item.type == "message" and item.role == "user"
    with pytest.raises(openai.NotFoundError):
        other.responses.retrieve(made.id)
    client.responses.delete(made.id)
    for gone in (client.responses.retrieve, client.responses.delete):
        with pytest.raises(openai.NotFoundError):
            gone(made.id)


def test_a_response_of_one_key_is_unknown_to_another(two_clients: tuple[Scene, openai.OpenAI, openai.OpenAI]) -> None:
    scene, client, other = two_clients
    scene.play(say)
    made = client.responses.create(model="chat:m", input="one")
    scene.upstream.forget()
    with pytest.raises(openai.BadRequestError) as refused:
        other.responses.create(model="chat:m", input="two", previous_response_id=made.id)
    assert refused.value.code == "previous_response_not_found"
    assert scene.upstream.requests == []
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="chat:m", input="two", previous_response_id="resp_unknown")


def test_store_false_keeps_nothing(two_clients: tuple[Scene, openai.OpenAI, openai.OpenAI]) -> None:
    scene, client, _ = two_clients
    scene.play(say)
    made = client.responses.create(model="chat:m", input="one", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="chat:m", input="two", previous_response_id=made.id)


def test_a_chain_survives_a_restart_with_the_same_data_directory(tmp_path: Path) -> None:
    with upstream_in_thread(say) as upstream:
        options: dict[str, Any] = {"config": _config(upstream), "data_dir": tmp_path}
        with started(**options) as before, client_of(before) as client:
            made = client.responses.create(model="chat:m", input="one")
        with started(**options) as after, client_of(after) as client:
            client.responses.create(model="chat:m", input="two", previous_response_id=made.id)
            assert client.responses.retrieve(made.id).id == made.id
        assert sent(upstream) == [("user", "one"), ("assistant", "w0 w1 w2 "), ("user", "two")]


# Start (GEN-01, FE-06)


def test_the_printed_key_is_all_that_a_first_call_needs() -> None:
    with started(environment={"LLM_INTERACTIVE_PROXY_API_KEY": ""}) as proxy:
        [key] = [line.split()[-1] for line in proxy.banner.splitlines() if "client key" in line]
        with openai.OpenAI(base_url=base(proxy) + "/v1", api_key=key, max_retries=0) as client:
            answer = client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])
    assert answer.choices[0].message.content == "Echo: hi"


def test_a_default_back_end_needs_no_file() -> None:
    def script(request: Received) -> Reply:
        return say(request)

    with upstream_in_thread(script) as upstream:
        environment = {"OPENAI_API_KEY": "sk-provider", "OPENAI_API_BASE_URL": f"{upstream.url}/v1"}
        with started("--default-backend", "openai", environment=environment) as proxy:
            assert Scene(proxy, upstream).ask("openai-chat", "gpt-x").status == 200
        assert upstream.requests[-1].json["model"] == "gpt-x"
        assert upstream.requests[-1].header("authorization") == "Bearer sk-provider"


def test_the_anthropic_port_can_be_chosen_and_switched_off() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with started(environment={"ANTHROPIC_PORT": str(port)}) as proxy:
        assert proxy.anthropic[1] == port
        assert proxy.get("/health", key=None, address=("127.0.0.1", port)).status == 200
    with started("--anthropic-port", "off") as proxy:
        assert "127.0.0.1" not in proxy.banner.partition("/anthropic")[2].splitlines()[0]


def test_an_occupied_anthropic_port_is_named_and_the_start_goes_on() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with started("--anthropic-port", str(port)) as proxy:
            assert f"port {port}" in proxy.banner and "--anthropic-port" in proxy.banner
            assert proxy.get("/health", key=None).status == 200
