"""What a provider says when it fails, in each protocol, and back ends that come in twos for failover.

Owns error bodies, errors inside streams, the configuration of two back ends per protocol with routes over them, and the
form of what a client gets.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final

import pytest

from tests.e2e.asking import body_of, path_of, say
from tests.faults.stage import PATIENCE, Answer, RawClient, Stage, deltas, ending, whole
from tests.support import grammar
from tests.support.proxy import KEY
from tests.support.shared import PROTOCOLS, Protocol
from tests.support.upstream import Received, Reply

OTHER: Final[dict[Protocol, Protocol]] = {
    "openai-chat": "anthropic-messages",
    "openai-responses": "gemini",
    "anthropic-messages": "openai-responses",
    "gemini": "openai-chat",
}
"""With which protocol each is paired in a route, so that one element is verbatim and the other translated."""

_TYPE_OF: Final[dict[Protocol, str]] = {
    "openai-chat": "openai",
    "openai-responses": "openai-responses",
    "anthropic-messages": "anthropic",
    "gemini": "gemini",
}


def backend(url: str, id: str, protocol: Protocol, **more: Any) -> dict[str, Any]:
    """A keyless back end with a path of its own at the provider."""
    base = f"{url}/{id}" if protocol == "gemini" else f"{url}/{id}/v1"
    return {"type": _TYPE_OF[protocol], "base_url": base, "no_auth": True, **more}


def pairs_at(url: str) -> dict[str, Any]:
    """`one-<protocol>` and `two-<protocol>` for each protocol."""
    return {
        f"{n}-{protocol}": backend(url, f"{n}-{protocol}", protocol) for n in ("one", "two") for protocol in PROTOCOLS
    }


def routes_of(*tails: str) -> dict[str, Any]:
    """`via-<protocol>`: that protocol first and its pair second; `back-<protocol>`: the other way round."""
    routes = {}
    for protocol in PROTOCOLS:
        other = OTHER[protocol]
        routes[f"via-{protocol}"] = {"policy": "m", "elements": [f"one-{protocol}:m", f"two-{other}:m", *tails]}
        routes[f"back-{protocol}"] = {"policy": "m", "elements": [f"one-{other}:m", f"two-{protocol}:m", *tails]}
    return routes


def at(request: Received) -> str:
    """Which back end was called."""
    return request.path.split("/")[1]


def called(running: Stage) -> list[str]:
    """The back ends that were called, in order, by the number in their name."""
    return [at(request).partition("-")[0] for request in running.upstream.requests]


def by_element(**replies: Reply | Callable[[Received], Reply]) -> Callable[[Received], Reply]:
    """The first part of the back end's name decides; those not named say a few words."""

    def script(request: Received) -> Reply:
        reply = replies.get(at(request).partition("-")[0], say)
        return reply if isinstance(reply, Reply) else reply(request)

    return script


_ANTHROPIC: Final = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 500: "api_error", 504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip
_GEMINI: Final = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 409: "ABORTED",
    429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip


def error_value(protocol: Protocol, status: int, message: str) -> dict[str, Any]:
    """An error body as the providers of this protocol write it."""
    match protocol:
        case "openai-chat" | "openai-responses":
            kind = "invalid_request_error" if status < 500 else "server_error"
            return {"error": {"message": message, "type": kind, "param": None, "code": None}}
        case "anthropic-messages":
            kind = _ANTHROPIC.get(status, "invalid_request_error" if status < 500 else "api_error")
            return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
        case "gemini":
            word = _GEMINI.get(status, "INVALID_ARGUMENT" if status < 500 else "INTERNAL")
            return {"error": {"code": status, "message": message, "status": word}}


def error_reply(
    protocol: Protocol, status: int, message: str = "", headers: list[tuple[str, str]] | None = None
) -> Reply:
    return Reply.json(error_value(protocol, status, message or f"backend said {status}"), status, headers or [])


def first_event(protocol: Protocol, status: int, message: str = "backend exploded") -> bytes:
    """The in-stream error of a protocol that stands for `status`."""
    match protocol:
        case "openai-chat":
            error = {"message": message, "type": "server_error", "code": status}
            return b"data: " + json.dumps({"error": error}).encode() + b"\n\n"
        case "openai-responses":
            code = {
                400: "invalid_prompt",
                404: "model_not_found",
                429: "rate_limit_exceeded",
                529: "server_is_overloaded",
            }
            error = {"code": code.get(status, "server_error"), "message": message}
            failed = {"type": "response.failed", "sequence_number": 1, "response": {
                "id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": "failed", "output": [],
                "error": error, "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}}  # fmt: skip
            return b"event: response.failed\ndata: " + json.dumps(failed).encode() + b"\n\n"
        case "anthropic-messages":
            return b"event: error\ndata: " + json.dumps(error_value(protocol, status, message)).encode() + b"\n\n"
        case "gemini":
            return b"data: " + json.dumps(error_value(protocol, status, message)).encode() + b"\r\n\r\n"


def lifecycle(protocol: Protocol) -> list[bytes]:
    """Frames that begin a stream and hold no content; for Gemini, which has none, a comment."""
    match protocol:
        case "openai-chat":
            chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
                     "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}  # fmt: skip
            return [b": connected\n\n", b"data: " + json.dumps(chunk).encode() + b"\n\n"]
        case "openai-responses":
            return deltas(protocol)[:3]
        case "anthropic-messages":
            return [*deltas(protocol)[:2], b'event: ping\ndata: {"type":"ping"}\n\n']
        case "gemini":
            return [b": connected\r\n\r\n"]


def answering(protocol: Protocol, stream: bool, text: str = "fine") -> Reply:
    """A proper answer. Streamed texts are `w0 w1 w2 `."""
    return Reply.sse(*deltas(protocol), *ending(protocol)) if stream else Reply.json(whole(protocol, text))


async def call(
    running: Stage, method: str, path: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None
) -> Answer:
    """One HTTP request with the tests' key on a connection of its own."""
    data = b"" if body is None else json.dumps(body).encode()
    fields = {"host": "127.0.0.1", "authorization": f"Bearer {KEY}", "content-type": "application/json",
              "content-length": str(len(data)), **(headers or {})}  # fmt: skip
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    connection: RawClient = await running.client()
    try:
        await connection.send(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + data)
        return await connection.read_answer()
    finally:
        connection.close()


async def resting(running: Stage) -> list[dict[str, Any]]:
    """What `/internal/cooldowns` lists."""
    found: list[dict[str, Any]] = (await call(running, "GET", "/internal/cooldowns")).json["data"]
    return found


async def wake(running: Stage) -> None:
    """Nothing rests any more."""
    assert (await call(running, "DELETE", "/internal/cooldowns")).json["data"] == []


async def ask(running: Stage, client: Protocol, model: str, stream: bool, **more: Any) -> Answer:
    """A minimal request for any name of a model."""
    return await call(running, "POST", path_of(client, model, stream), body_of(client, model, stream, **more))


def text_of(client: Protocol, answer: Answer) -> str:
    """The text of a streamed answer."""
    out: list[str] = []
    for _, event in grammar.events_of(client, answer.body):
        if not isinstance(event, dict):
            continue
        match client:
            case "openai-chat":
                out += [choice["delta"].get("content") or "" for choice in event.get("choices", [])]
            case "openai-responses":
                out.append(event["delta"] if event["type"] == "response.output_text.delta" else "")
            case "anthropic-messages":
                out.append(event.get("delta", {}).get("text", ""))
            case "gemini":
                parts = (
                    part for one in event.get("candidates", []) for part in one.get("content", {}).get("parts", [])
                )
                out += [part.get("text", "") for part in parts]
    return "".join(out)


def text_of_whole(client: Protocol, body: dict[str, Any]) -> str:
    """The text of a whole answer."""
    match client:
        case "openai-chat":
            return "".join(choice["message"]["content"] for choice in body["choices"])
        case "openai-responses":
            return "".join(part["text"] for item in body["output"] for part in item["content"])
        case "anthropic-messages":
            return "".join(part["text"] for part in body["content"])
        case "gemini":
            return "".join(part["text"] for one in body["candidates"] for part in one["content"]["parts"])


def ends_in_failure(client: Protocol, answer: Answer) -> bool:
    """The stream says in its protocol that it failed, and claims no success."""
    text = answer.body.decode()
    match client:
        case "openai-chat":
            return '"error"' in text and '"finish_reason":"stop"' not in text and '"finish_reason": "stop"' not in text
        case "openai-responses":
            return "response.failed" in text and "response.completed" not in text
        case "anthropic-messages":
            return "event: error" in text and "message_stop" not in text
        case "gemini":
            return '"error"' in text and "STOP" not in text


def unchunked(data: bytes) -> bytes:
    """The body in chunked framing."""
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        body, data = body + data[:length], data[length + 2 :]
        if not length:
            break
    return body


SURFACES: Final = [(client, stream) for client in PROTOCOLS for stream in (False, True)]
surfaces = pytest.mark.parametrize(
    ("client", "stream"), SURFACES, ids=[f"{client}-{'stream' if stream else 'whole'}" for client, stream in SURFACES]
)


def first_of(client: Protocol, stream: bool) -> tuple[str, Protocol]:
    """The route for this client and the protocol of its first element: streams meet the translated one first."""
    return (f"back-{client}", OTHER[client]) if stream else (f"via-{client}", client)


def assert_answered(client: Protocol, stream: bool, answer: Answer, text: str = "w0 w1 w2 ") -> None:
    """200, one whole answer in the client's protocol, with this text and nothing else."""
    assert answer.status == 200, answer.body
    assert answer.complete
    if stream:
        assert text_of(client, answer) == text
        assert b"exploded" not in answer.body and b"backend said" not in answer.body
    else:
        assert text_of_whole(client, answer.json) == text


def assert_refused(client: Protocol, answer: Answer, status: int) -> dict[str, Any]:
    """An error in the client's protocol; gives its `detail`."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"].startswith("application/json")
    assert grammar.check_error_body(client, status, answer.json) == []
    detail: dict[str, Any] = answer.json.get("detail", {})
    return detail


async def row_of(made: Stage, id: str, limit: int = 20) -> dict[str, Any]:
    """The usage row of a request, as soon as there is one among the newest `limit`."""
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await call(made, "GET", f"/usage/recent?limit={limit}")
            for row in answer.json["data"]:
                if row["id"] == id:
                    return dict(row)
