"""BE-01, BE-05, BE-07 to BE-13: address and headers of each type, on a scripted upstream."""

from __future__ import annotations

from typing import Any

import pytest

from llm_proxy import __version__
from llm_proxy.backends.base import Call, Redirect
from llm_proxy.backends.http import HttpBackend
from llm_proxy.backends.transport import Transport
from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.wire.secrets import Secret
from tests.backends.settings import backend_settings
from tests.support.upstream import Received, Reply, Upstream


def backend(transport: Transport, id: str, type: str = "", *keys: str, **members: Any) -> HttpBackend:
    return HttpBackend(backend_settings(id, type, *keys, **members), transport, clock=lambda: 0.0)


async def received(backend: HttpBackend, upstream: Upstream, **members: Any) -> Received:
    key = backend.keys[0] if backend.keys else None
    call = Call(**{"dialect": backend.row.dialect, "model": "m", "body": b"{}", "key": key, **members})
    response = await backend.open(call)
    await response.read()
    response.close()
    return upstream.requests[-1]


@pytest.mark.parametrize(
    ("type_", "path", "header", "value"),
    [
        ("openai", "/v1/chat/completions", "authorization", "Bearer k"),
        ("openai-responses", "/v1/responses", "authorization", "Bearer k"),
        ("anthropic", "/v1/messages", "x-api-key", "k"),
        ("gemini", "/v1/v1beta/models/m:generateContent", "x-goog-api-key", "k"),
        ("openrouter", "/v1/chat/completions", "authorization", "Bearer k"),
        ("zai", "/v1/chat/completions", "authorization", "Bearer k"),
        ("zai-coding-plan", "/v1/chat/completions", "authorization", "Bearer k"),
    ],
)
async def test_each_type_calls_its_path_with_its_credential(
    transport: Transport, type_: str, path: str, header: str, value: str
) -> None:
    async with Upstream(Reply.json({})) as upstream:
        if type_ == "gemini":
            path = path.replace("/v1/v1beta", "/v1beta")
            base = upstream.url
        else:
            base = f"{upstream.url}/v1"
        request = await received(backend(transport, "x", type_, "k", base_url=base), upstream)
        assert request.target == path
        credentials = {
            name.lower(): text
            for name, text in request.headers
            if name.lower() in ("authorization", "x-api-key", "x-goog-api-key", "api-key")
        }
        assert credentials == {header: value}
        assert request.header("user-agent") == f"llm-interactive-proxy/{__version__}"
        assert request.header("content-type") == "application/json"


async def test_no_auth_sends_no_credential(transport: Transport) -> None:
    """BE-01: a local server of type openai with `no_auth` is called without Authorization."""
    async with Upstream(Reply.json({})) as upstream:
        local = backend(transport, "local", "openai", base_url=f"{upstream.url}/v1", no_auth=True)
        assert local.usable
        request = await received(local, upstream)
        assert request.target == "/v1/chat/completions"
        assert request.header("authorization") is None


async def test_two_instances_use_their_own_keys(transport: Transport) -> None:
    async with Upstream(Reply.json({})) as upstream:
        for key in ("a", "b"):
            instance = backend(transport, key, "openai", key, base_url=upstream.url)
            assert (await received(instance, upstream)).header("authorization") == f"Bearer {key}"


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("", "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse"),
        ("/v1beta", "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse"),
        ("/v1beta/", "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse"),
        ("/v1", "/v1/models/gemini-2.5-pro:streamGenerateContent?alt=sse"),
        ("/gw", "/gw/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse"),
    ],
)
async def test_gemini_streams_and_no_url_holds_the_key(transport: Transport, base: str, path: str) -> None:
    async with Upstream(Reply.json({})) as upstream:
        gemini = backend(transport, "gemini", "", "the-key", base_url=upstream.url + base)
        request = await received(gemini, upstream, model="models/gemini-2.5-pro", stream=True)
        assert request.target == path
        assert request.header("x-goog-api-key") == "the-key"


@pytest.mark.parametrize(
    ("model", "target"),
    [
        ("../../x", "/v1beta/models/..%2F..%2Fx:generateContent"),
        ("a b?c#d", "/v1beta/models/a%20b%3Fc%23d:generateContent"),
        ("tunedModels/mine", "/v1beta/tunedModels/mine:generateContent"),
        ("ä\r\nx: y", "/v1beta/models/%C3%A4%0D%0Ax%3A%20y:generateContent"),
    ],
)
async def test_a_model_name_cannot_change_the_path(transport: Transport, model: str, target: str) -> None:
    async with Upstream(Reply.json({})) as upstream:
        gemini = backend(transport, "gemini", "", "k", base_url=upstream.url)
        assert (await received(gemini, upstream, model=model)).target == target


@pytest.mark.parametrize(
    ("base", "target"),
    [
        ("", "/v1/messages"),
        ("/v1", "/v1/messages"),
        ("/api/anthropic", "/api/anthropic/v1/messages"),
        ("/api/anthropic/v1", "/api/anthropic/v1/messages"),
        ("/custom", "/custom/messages"),
    ],
)
async def test_anthropic_addresses_with_and_without_the_version(transport: Transport, base: str, target: str) -> None:
    async with Upstream(Reply.json({})) as upstream:
        anthropic = backend(transport, "anthropic", "", "k", base_url=upstream.url + base)
        request = await received(anthropic, upstream)
        assert request.target == target
        assert request.header("anthropic-version") == "2023-06-01"


async def test_the_clients_anthropic_version_counts_and_betas_are_joined(transport: Transport) -> None:
    async with Upstream(Reply.json({})) as upstream:
        anthropic = backend(transport, "anthropic", "", "k", base_url=upstream.url, headers={"anthropic-beta": "a,b"})
        headers = {"anthropic-version": "2024-01-01", "anthropic-beta": "b, c"}
        request = await received(anthropic, upstream, headers=headers)
        assert request.header("anthropic-version") == "2024-01-01"
        assert request.header("anthropic-beta") == "a,b,c"


async def test_the_coding_plan_speaks_anthropic_at_its_anthropic_address(transport: Transport) -> None:
    """BE-13: given the Anthropic base URL, then `/v1/messages` is called."""
    async with Upstream(Reply.json({})) as upstream:
        for base in ("/api/anthropic", "/api/anthropic/v1"):
            plan = backend(transport, "zai-coding-plan", "", "k", base_url=upstream.url + base)
            assert plan.dialect_for("openai-chat") == "anthropic-messages"
            assert (await received(plan, upstream)).target == "/api/anthropic/v1/messages"
    plain = backend(transport, "zai-coding-plan", "", "k")
    assert plain.dialect_for("anthropic-messages") == "openai-chat"
    assert plain.capabilities("glm-4.6", "openai-chat").max_output == 200_000


@pytest.mark.parametrize(
    ("action", "dialect", "type_", "target"),
    [
        ("embeddings", "openai-chat", "openai", "/v1/embeddings"),
        ("completions", "openai-chat", "openrouter", "/v1/completions"),
        ("count", "anthropic-messages", "anthropic", "/v1/messages/count_tokens"),
        ("count", "gemini", "gemini", "/v1/models/m:countTokens"),
    ],
)
async def test_side_calls(transport: Transport, action: Any, dialect: str, type_: str, target: str) -> None:
    async with Upstream(Reply.json({})) as upstream:
        instance = backend(transport, "x", type_, "k", base_url=f"{upstream.url}/v1")
        assert instance.supports(action)
        assert (await received(instance, upstream, action=action)).target == target


def test_side_calls_that_a_type_does_not_offer(transport: Transport) -> None:
    assert not backend(transport, "anthropic").supports("embeddings")
    assert not backend(transport, "openai").supports("count")
    assert not backend(transport, "zai-coding-plan").supports("completions")


@pytest.mark.parametrize(
    ("members", "dialect"),
    [
        ({}, "openai-responses"),
        ({"base_url": "https://api.openai.com/v1"}, "openai-responses"),
        ({"native_responses": False}, "openai-chat"),
        ({"base_url": "http://localhost:1234/v1"}, "openai-chat"),
        ({"base_url": "http://localhost:1234/v1", "native_responses": True}, "openai-responses"),
    ],
)
def test_a_responses_client_reaches_responses_where_it_exists(
    transport: Transport, members: dict[str, Any], dialect: str
) -> None:
    instance = backend(transport, "openai", "", "k", **members)
    assert instance.dialect_for("openai-responses") == dialect
    assert instance.dialect_for("anthropic-messages") == "openai-chat"


def test_only_openai_itself_has_native_responses(transport: Transport) -> None:
    assert backend(transport, "openrouter").dialect_for("openai-responses") == "openai-chat"
    assert backend(transport, "openai-responses").dialect_for("openai-chat") == "openai-responses"


async def test_openrouter_names_the_application_unless_told_otherwise(transport: Transport) -> None:
    async with Upstream(Reply.json({})) as upstream:
        openrouter = backend(transport, "openrouter", "", "k", base_url=upstream.url)
        request = await received(openrouter, upstream)
        assert request.header("x-title") == "LLM Interactive Proxy"
        assert request.header("http-referer") == "http://localhost:8000"
        request = await received(openrouter, upstream, headers={"X-Title": "Mine", "User-Agent": "agent/1"})
        assert request.header("x-title") == "Mine"
        assert request.header("user-agent") == "agent/1"


async def test_configured_headers_are_added_but_no_foreign_credential(transport: Transport) -> None:
    headers = {"OpenAI-Organization": "org", "x-api-key": "other", "Cookie": "c", "api-key": "azure"}
    async with Upstream(Reply.json({})) as upstream:
        openai = backend(transport, "openai", "", "k", base_url=upstream.url, headers=headers)
        request = await received(openai, upstream)
        assert request.header("openai-organization") == "org"
        assert request.header("authorization") == "Bearer k"
        assert request.header("api-key") == "azure"
        assert request.header("x-api-key") is None
        assert request.header("cookie") is None


async def test_the_loop_guard_goes_to_custom_and_loopback_addresses_only(transport: Transport) -> None:
    async with Upstream(Reply.json({})) as upstream:
        local = backend(transport, "local", "openai", "k", base_url=upstream.url)
        request = await received(local, upstream, loop_guard="me,other")
        assert request.header("x-llmproxy-loop-guard") == "me,other"
    resolved = Transport(environ={}, resolver=lambda _: ["127.0.0.1"])
    own = backend(resolved, "openai", "", "k")
    assert "x-llmproxy-loop-guard" not in own._call_headers(
        Call(dialect="openai-chat", model="m", body=b"{}", loop_guard="me")
    )


async def test_a_silent_provider_is_a_timeout_that_names_the_back_end(transport: Transport) -> None:
    from tests.support.upstream import Hang

    async with Upstream(Reply(before=[Hang()])) as upstream:
        slow = backend(transport, "slow", "openai", "k", base_url=upstream.url, timeout=0.05)
        with pytest.raises(FaultError) as caught:
            await received(slow, upstream)
        assert caught.value.fault.message.startswith("Back end slow sent nothing for 0.05 seconds")


# ---- RT-12: a session's own server


async def test_a_redirected_call_carries_nothing_of_the_provider(transport: Transport) -> None:
    headers = {"OpenAI-Organization": "org", "api-key": "azure"}
    async with Upstream(Reply.json({})) as chosen:
        openai = backend(transport, "openai", "", "stored", headers=headers)
        redirect = Redirect(base_url=f"{chosen.url}/v1", policy="local")
        request = await received(openai, chosen, redirect=redirect)
        assert request.target == "/v1/chat/completions"
        for name in ("authorization", "openai-organization", "api-key"):
            assert request.header(name) is None
        assert "stored" not in str(request.headers)


async def test_a_redirected_call_carries_the_clients_own_credential(transport: Transport) -> None:
    async with Upstream(Reply.json({})) as chosen:
        openai = backend(transport, "openai", "", "stored")
        redirect = Redirect(base_url=chosen.url, policy="local", credential=Secret("own"))
        assert (await received(openai, chosen, redirect=redirect)).header("authorization") == "Bearer own"


async def test_an_origin_on_the_operators_list_gets_the_stored_key(transport: Transport) -> None:
    async with Upstream(Reply.json({})) as chosen:
        openai = backend(transport, "openai", "", "stored")
        redirect = Redirect(base_url=chosen.url, policy="local", keep_key=True)
        assert (await received(openai, chosen, redirect=redirect)).header("authorization") == "Bearer stored"


# ---- what is known of models


def test_a_refused_parameter_is_learned_once(transport: Transport) -> None:
    local = backend(transport, "local", "openai", base_url="http://localhost:1/v1", no_auth=True)
    assert local.capabilities("my-model", "openai-chat").limit_field == "max_tokens"
    openai = backend(transport, "openai", "", "k")
    assert openai.capabilities("my-model", "openai-chat").limit_field == "max_completion_tokens"
    fault = Fault(
        kind="bad_request",
        message="Unsupported parameter: 'temperature' is not supported with this model.",
        param="temperature",
        status=400,
    )
    assert openai.learn("my-model", "openai-chat", fault)
    assert openai.capabilities("my-model", "openai-chat").sampling == "none"
    assert openai.capabilities("other", "openai-chat").sampling == "all"
    assert not openai.learn("my-model", "openai-chat", fault)


@pytest.mark.parametrize(
    "message", ["temperature must be between 0 and 2", "messages: at least one is required", "bad request"]
)
def test_other_refusals_teach_nothing(transport: Transport, message: str) -> None:
    openai = backend(transport, "openai", "", "k")
    assert not openai.learn("m", "openai-chat", Fault(kind="bad_request", message=message, status=400))


def test_the_maker_of_seals_is_back_end_and_family(transport: Transport) -> None:
    assert backend(transport, "anthropic").maker("claude-opus-4-7") == "anthropic/claude"
    assert backend(transport, "or", "openrouter").maker("google/gemini-3-pro") == "or/gemini"


def test_the_reason_names_the_variable(transport: Transport) -> None:
    """RT-13: given no Gemini key and a request `gemini:x`, then 503 naming `GEMINI_API_KEY`."""
    gemini = backend(transport, "gemini")
    assert not gemini.usable
    assert "GEMINI_API_KEY" in gemini.reason
    assert "ZAI_CODING_PLAN_API_KEY or ZAI_API_KEY" in backend(transport, "zai-coding-plan").reason
    assert "backends.mine.api_keys" in backend(transport, "mine", "openai").reason
    assert "enabled" in backend(transport, "openai", "", "k", enabled=False).reason
    assert backend(transport, "openai", "", "k").reason == ""
