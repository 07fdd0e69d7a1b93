"""The running proxy between raw clients and a scripted upstream, for tests of what goes wrong on the wire.

Owns the requests, the scripted answers in each protocol, and a client that can leave in any way.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from tests.support.proxy import BACKEND_OF, KEY, Proxy, backends_at, running_proxy
from tests.support.shared import Protocol
from tests.support.upstream import Reply, Script, Upstream

PATIENCE = 5.0
"""How long a test waits for what the specification promises within 250 ms: generous, so that only a hang fails."""


def request_bytes(protocol: Protocol, model: str, stream: bool, extra: dict[str, str] | None = None) -> bytes:
    """One raw HTTP request of a client."""
    bodies: dict[str, dict[str, Any]] = {
        "openai-chat": {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": stream},
        "openai-responses": {"model": model, "input": "hi", "stream": stream},
        "anthropic-messages": {
            "model": model,
            "max_tokens": 99,
            "messages": [{"role": "user", "content": "hi"}],
            "stream": stream,
        },
        "gemini": {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
    }
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    path = {
        "openai-chat": "/v1/chat/completions",
        "openai-responses": "/v1/responses",
        "anthropic-messages": "/v1/messages",
        "gemini": f"/v1beta/models/{quote(model, safe='')}:{method}",
    }[protocol]
    body = json.dumps(bodies[protocol]).encode()
    headers = {
        "host": "127.0.0.1",
        "authorization": f"Bearer {KEY}",
        "content-type": "application/json",
        "content-length": str(len(body)),
        **(extra or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def deltas(protocol: Protocol, words: int = 3) -> list[bytes]:
    """The frames of a stream up to `words` text deltas, without its end."""
    match protocol:
        case "openai-chat":
            return [
                _data(
                    {
                        "id": "c",
                        "object": "chat.completion.chunk",
                        "created": 1,
                        "model": "m",
                        "choices": [
                            {
                                "index": 0,
                                "delta": {"role": "assistant", "content": f"w{n} "},
                                "finish_reason": None,
                            }
                        ],
                    }
                )
                for n in range(words)
            ]
        case "openai-responses":
            response = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": "in_progress", "output": [],
                        "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}  # fmt: skip
            item = {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "status": "in_progress",
                "content": [],
            }
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            events: list[dict[str, Any]] = [
                {"type": "response.created", "sequence_number": 0, "response": response},
                {"type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": item},
                {"type": "response.content_part.added", "sequence_number": 2, "output_index": 0, "item_id": "msg_1",
                 "content_index": 0, "part": part},
            ]  # fmt: skip
            events += [
                {"type": "response.output_text.delta", "sequence_number": 3 + n, "output_index": 0, "item_id": "msg_1",
                 "content_index": 0, "delta": f"w{n} ", "logprobs": []}
                for n in range(words)
            ]  # fmt: skip
            return [_named(event) for event in events]
        case "anthropic-messages":
            message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
                       "stop_sequence": None, "usage": {"input_tokens": 7, "output_tokens": 1}}  # fmt: skip
            events = [
                {"type": "message_start", "message": message},
                {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            ]
            events += [
                {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": f"w{n} "}}
                for n in range(words)
            ]
            return [_named(event) for event in events]
        case "gemini":
            return [
                _data(
                    {
                        "candidates": [{"content": {"role": "model", "parts": [{"text": f"w{n} "}]}, "index": 0}],
                        "modelVersion": "m",
                        "responseId": "r",
                    }
                ).replace(b"\n\n", b"\r\n\r\n")
                for n in range(words)
            ]


def ending(protocol: Protocol) -> list[bytes]:
    """The frames that end the stream of `deltas` in order."""
    match protocol:
        case "openai-chat":
            chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
                     "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}  # fmt: skip
            usage = {
                **chunk,
                "choices": [],
                "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
            }
            return [_data(chunk), _data(usage), b"data: [DONE]\n\n"]
        case "openai-responses":
            part = {"type": "output_text", "text": "w0 w1 w2 ", "annotations": [], "logprobs": []}
            item = {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [part],
            }
            response = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": "completed", "output": [item],
                        "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
                        "usage": {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10,
                                  "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}}  # fmt: skip
            place = {"output_index": 0, "item_id": "msg_1", "content_index": 0}
            return [
                _named(
                    {
                        "type": "response.output_text.done",
                        "sequence_number": 90,
                        **place,
                        "text": "w0 w1 w2 ",
                        "logprobs": [],
                    }
                ),
                _named({"type": "response.content_part.done", "sequence_number": 91, **place, "part": part}),
                _named(
                    {
                        "type": "response.output_item.done",
                        "sequence_number": 92,
                        "output_index": 0,
                        "item": item,
                    }
                ),
                _named({"type": "response.completed", "sequence_number": 93, "response": response}),
            ]
        case "anthropic-messages":
            return [
                _named({"type": "content_block_stop", "index": 0}),
                _named({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 3}}),
                _named({"type": "message_stop"}),
            ]  # fmt: skip
        case "gemini":
            chunk = {"candidates": [{"content": {"role": "model", "parts": [{"text": ""}]}, "finishReason": "STOP", "index": 0}],
                     "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10},
                     "modelVersion": "m", "responseId": "r"}  # fmt: skip
            return [_data(chunk).replace(b"\n\n", b"\r\n\r\n")]


def whole(protocol: Protocol, text: str = "fine") -> dict[str, Any]:
    """A complete answer body."""
    match protocol:
        case "openai-chat":
            return {"id": "c", "object": "chat.completion", "created": 1, "model": "m",
                    "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}}  # fmt: skip
        case "openai-responses":
            item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
                    "content": [{"type": "output_text", "text": text, "annotations": []}]}  # fmt: skip
            return {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": "completed", "output": [item],
                    "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}  # fmt: skip
        case "anthropic-messages":
            return {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [{"type": "text", "text": text}],
                    "stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 7, "output_tokens": 3}}  # fmt: skip
        case "gemini":
            return {"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP"}],
                    "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10},
                    "modelVersion": "m", "responseId": "r"}  # fmt: skip


def _data(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _named(value: dict[str, Any]) -> bytes:
    return f"event: {value['type']}\n".encode() + _data(value)


Leave = Literal["fin", "rst"]


@dataclass
class Answer:
    """What a raw client read: the status, lower-case headers, the body as far as it came, and whether it ended in order."""

    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool = True

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class RawClient:
    """A client on a plain socket."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    head: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    async def connect(cls, url: str, receive_buffer: int | None = None) -> RawClient:
        address = urlsplit(url)
        raw = socket.socket()
        if receive_buffer is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, (address.hostname, address.port))
        reader, writer = await asyncio.open_connection(sock=raw, limit=4096 if receive_buffer else 2**16)
        return cls(reader, writer)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def read_head(self) -> int:
        self.head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE)
        lines = self.head.decode("latin-1").split("\r\n")
        self.headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        return int(lines[0].split()[1])

    async def read_answer(self) -> Answer:
        """The whole response, chunked or with a length."""
        status = await self.read_head()
        if "content-length" in self.headers:
            body = await asyncio.wait_for(self.reader.readexactly(int(self.headers["content-length"])), PATIENCE)
            return Answer(status, self.headers, body)
        pieces: list[bytes] = []
        try:
            while True:
                size = int(await asyncio.wait_for(self.reader.readuntil(b"\r\n"), PATIENCE), 16)
                piece = await asyncio.wait_for(self.reader.readexactly(size + 2), PATIENCE)
                if not size:
                    return Answer(status, self.headers, b"".join(pieces))
                pieces.append(piece[:-2])
        except asyncio.IncompleteReadError:
            return Answer(status, self.headers, b"".join(pieces), complete=False)

    async def read_until(self, mark: bytes) -> None:
        await asyncio.wait_for(self.reader.readuntil(mark), PATIENCE)

    def leave(self, how: Leave) -> None:
        if how == "rst":
            raw = self.writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.close()

    def close(self) -> None:
        self.writer.transport.abort()


@dataclass
class Stage:
    """A proxy and its scripted upstream."""

    proxy: Proxy
    upstream: Upstream

    async def client(self, receive_buffer: int | None = None) -> RawClient:
        return await RawClient.connect(self.proxy.url, receive_buffer)

    def play(self, script: Script) -> None:
        """Another script; what was recorded is dropped."""
        self.upstream.script = script
        self.upstream.forget()

    async def ask(
        self,
        client: Protocol,
        back: Protocol,
        stream: bool,
        model: str = "m",
        extra: dict[str, str] | None = None,
        backend: str = "",
    ) -> Answer:
        """One exchange from a fresh connection."""
        connection = await self.client()
        try:
            await connection.send(request_bytes(client, f"{backend or BACKEND_OF[back]}:{model}", stream, extra))
            return await connection.read_answer()
        finally:
            connection.close()


@asynccontextmanager
async def stage(
    script: Script | None = None,
    *arguments: str,
    config: dict[str, Any] | None = None,
    more: Callable[[str], dict[str, Any]] | None = None,
    **options: Any,
) -> AsyncIterator[Stage]:
    """Starts both. `config` is merged over the four back ends at the upstream; `more` makes further ones for its URL."""
    async with Upstream(script or Reply.json({}), **options) as upstream:
        settings = {
            "backends": {
                **backends_at(upstream.url),
                **(config or {}).pop("backends", {}),
                **(more(upstream.url) if more else {}),
            },
            **(config or {}),
        }
        with running_proxy(arguments, config=settings) as proxy:
            yield Stage(proxy, upstream)
