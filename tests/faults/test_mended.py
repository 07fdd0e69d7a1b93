"""Faults that were found by attacking the running proxy; each stays mended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.faults.stage import PATIENCE, RawClient, Stage, deltas, ending, request_bytes, stage, whole
from tests.support.proxy import KEY
from tests.support.shared import PROTOCOLS, Protocol
from tests.support.upstream import Hang, Received, Reply, Reset, Send

SECRET = "sk-proj-provider-key-0123456789abcdef"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def running() -> AsyncIterator[Stage]:
    async with stage(more=_keyed) as made:
        yield made


def _keyed(url: str) -> dict[str, Any]:
    """The four back ends once more, with a provider key."""
    backends: dict[str, dict[str, Any]] = {
        "openai-chat": {"type": "openai", "base_url": f"{url}/v1"},
        "openai-responses": {"type": "openai-responses", "base_url": f"{url}/v1"},
        "anthropic-messages": {"type": "anthropic", "base_url": f"{url}/v1"},
        "gemini": {"type": "gemini", "base_url": url},
    }
    return {f"keyed-{name}": {**backend, "api_keys": [SECRET]} for name, backend in backends.items()}


pytestmark = pytest.mark.asyncio(loop_scope="module")


def raw_post(path: str, body: dict[str, Any], extra: str = "") -> bytes:
    data = json.dumps(body).encode()
    head = f"host: 127.0.0.1\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\n{extra}"
    return f"POST {path} HTTP/1.1\r\n{head}content-length: {len(data)}\r\n\r\n".encode() + data


async def send(running: Stage, path: str, body: dict[str, Any], extra: str = "") -> RawClient:
    client = await running.client()
    await client.send(raw_post(path, body, extra))
    return client


def failing_frame(protocol: Protocol) -> bytes:
    message = f"Incorrect API key provided: {SECRET}"
    match protocol:
        case "openai-chat":
            return f'data: {{"error":{{"message":"{message}","type":"server_error","code":null}}}}\n\n'.encode()
        case "openai-responses":
            failed = {"type": "response.failed", "sequence_number": 9, "response": {
                "id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": "failed", "output": [],
                "error": {"code": "server_error", "message": message}, "parallel_tool_calls": True, "tool_choice": "auto",
                "tools": []}}  # fmt: skip
            return b"event: response.failed\ndata: " + json.dumps(failed).encode() + b"\n\n"
        case "anthropic-messages":
            return f'event: error\ndata: {{"type":"error","error":{{"type":"api_error","message":"{message}"}}}}\n\n'.encode()
        case "gemini":
            return f'data: {{"error":{{"code":500,"message":"{message}","status":"INTERNAL"}}}}\r\n\r\n'.encode()


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_provider_key_in_an_in_stream_error_of_the_same_protocol_stays_here(
    running: Stage, protocol: Protocol
) -> None:
    running.play(Reply.sse(*deltas(protocol), failing_frame(protocol)))
    answer = await running.ask(protocol, protocol, True, backend=f"keyed-{protocol}")
    assert answer.status == 200
    assert answer.complete
    assert "w2 " in answer.body.decode()
    assert SECRET not in answer.body.decode()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_frees_every_copy_of_its_request(running: Stage, stream: bool) -> None:
    """n > 1 at a provider that knows one choice: some copies answer, some never do; all are let go."""

    def script(request: Received) -> Reply:
        if request.number % 2:
            return Reply(before=[Hang()])
        return Reply.sse(*deltas("anthropic-messages")[:1], Hang()) if stream else Reply(before=[Hang()])

    running.play(script)
    arrivals = running.upstream.arrival(6)
    body = {"model": "up-anthropic:copies", "n": 6, "stream": stream, "messages": [{"role": "user", "content": "hi"}]}
    client = await send(running, "/v1/chat/completions", body)
    await asyncio.wait_for(arrivals, PATIENCE)
    client.leave("rst")
    for request in running.upstream.requests:
        await asyncio.wait_for(request.closed, PATIENCE)


async def test_copies_merge_and_each_keeps_its_own_words(running: Stage) -> None:
    running.play(lambda request: Reply.sse(*deltas("anthropic-messages"), *ending("anthropic-messages")))
    body = {"model": "up-anthropic:copies", "n": 3, "messages": [{"role": "user", "content": "hi"}]}
    client = await send(running, "/v1/chat/completions", body)
    answer = await client.read_answer()
    client.close()
    assert [choice["message"]["content"] for choice in answer.json["choices"]] == ["w0 w1 w2 "] * 3
    assert answer.json["usage"]["prompt_tokens"] == 7
    assert answer.json["usage"]["completion_tokens"] == 9


@pytest.mark.parametrize("n", [17, 129, 5000])
async def test_more_copies_than_anyone_means_are_refused_before_they_cost(running: Stage, n: int) -> None:
    running.play(Reply.json(whole("anthropic-messages")))
    body = {"model": "up-anthropic:copies", "n": n, "messages": [{"role": "user", "content": "hi"}]}
    client = await send(running, "/v1/chat/completions", body)
    answer = await client.read_answer()
    client.close()
    assert answer.status == 400
    assert answer.json["error"]["param"] == "n"
    assert running.upstream.requests == []


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/completions", "/v1/messages/count_tokens"])
async def test_a_client_that_leaves_a_side_call_frees_the_upstream(running: Stage, path: str) -> None:
    running.play(Reply(before=[Hang()]))
    arrival = running.upstream.arrival()
    model = "up-anthropic:m" if "count" in path else "up-chat:side"
    body = {"model": model, "input": "x", "prompt": "x", "messages": [{"role": "user", "content": "hi"}]}
    client = await send(running, path, body)
    await asyncio.wait_for(arrival, PATIENCE)
    client.leave("rst")
    await asyncio.wait_for(running.upstream.requests[0].closed, PATIENCE)


async def test_a_legacy_stream_that_breaks_says_so(running: Stage) -> None:
    chunk = {"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": [{"index": 0, "text": "a"}]}
    running.play(Reply.sse(b"data: " + json.dumps(chunk).encode() + b"\n\n", Reset()))
    client = await send(running, "/v1/completions", {"model": "up-chat:side", "prompt": "x", "stream": True})
    answer = await client.read_answer()
    client.close()
    assert answer.complete
    assert '"error"' in answer.body.decode()


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/completions", "/v1/chat/completions"])
async def test_a_back_end_that_is_the_proxy_itself_is_told_after_one_hop(path: str) -> None:
    async with stage() as first:
        itself = {"itself": {"type": "openai", "base_url": f"{first.proxy.url}/v1", "api_keys": [KEY]}}
        async with stage(config={"backends": itself}) as second:
            # The second points at the first, and the first at nothing of ours: one hop is no circle.
            first.play(Reply.json(whole("openai-chat")))
            said = [{"role": "user", "content": "hi"}]
            body = {"model": "itself:up-chat:m", "input": "x", "prompt": "x", "messages": said}
            client = await send(second, path, body)
            answer = await client.read_answer()
            client.close()
            assert answer.status == 200
            hops = first.upstream.requests[0].header("x-llmproxy-loop-guard")
            assert hops is not None and len(hops.split(",")) == 2


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/completions", "/v1/messages", "/v1/chat/completions"])
async def test_a_request_that_came_back_is_508(running: Stage, path: str) -> None:
    body = {
        "model": "up-chat:m",
        "input": "x",
        "prompt": "x",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "hi"}],
    }
    client = await send(running, path, body, "x-llmproxy-loop-guard: a,b,c,d,e\r\n")
    answer = await client.read_answer()
    client.close()
    assert answer.status == 508
    assert answer.json["detail"]["code"] == "loop_guard"


async def test_counting_keeps_the_betas_that_the_body_needs(running: Stage) -> None:
    running.play(Reply.json({"input_tokens": 7}))
    body = {
        "model": "up-anthropic:m",
        "messages": [{"role": "user", "content": "hi"}],
        "context_management": {"edits": []},
    }
    client = await send(running, "/v1/messages/count_tokens", body, "anthropic-beta: context-management-2025-06-27\r\n")
    answer = await client.read_answer()
    client.close()
    assert answer.json == {"input_tokens": 7}
    assert running.upstream.requests[0].header("anthropic-beta") == "context-management-2025-06-27"


async def test_one_read_that_holds_everything_is_delivered_like_many(running: Stage) -> None:
    frames = b"".join([*deltas("openai-chat"), *ending("openai-chat")])
    running.play(Reply(headers=[("content-type", "text/event-stream")], steps=[Send(frames)]))
    connection = await running.client()
    await connection.send(request_bytes("gemini", "up-chat:once", True))
    answer = await connection.read_answer()
    connection.close()
    assert answer.body.count(b"data: ") == answer.body.count(b"\r\n\r\n")
    assert b"w0 " in answer.body and b"STOP" in answer.body


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/embeddings", {"model": "up-chat:m"}, "input"),
        ("/v1/embeddings", {"model": 3, "input": "x"}, "model"),
        ("/v1/completions", {"model": "up-chat:m", "prompt": 5}, "prompt"),
    ],
)
async def test_a_wrong_field_of_a_side_call_is_named(
    running: Stage, path: str, body: dict[str, Any], field: str
) -> None:
    running.play(Reply.json({}))
    client = await send(running, path, body)
    answer = await client.read_answer()
    client.close()
    assert answer.status == 400
    assert answer.json["error"]["param"] == field
    assert running.upstream.requests == []
