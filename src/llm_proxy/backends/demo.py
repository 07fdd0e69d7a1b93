"""The built-in back end: answers without key or network, in bytes of the OpenAI Chat dialect (BE-20).

Stands behind the same interface as a provider, so everything above it is the ordinary machinery. Owns how a
script becomes a response: words, pauses, breaks. What is said is `demo_answers.py`'s.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import math
import re
import secrets
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from llm_proxy.backends.base import Action, Call, Limits, Redirect
from llm_proxy.backends.demo_answers import MODELS, Script, answer, prompt_text
from llm_proxy.backends.transport import MemoryResponse, Response, tapped
from llm_proxy.config.backends import BackendSettings
from llm_proxy.config.kinds import NamedKey
from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.dialects.base import ModelInfo
from llm_proxy.dialects.capabilities import Capabilities, lookup
from llm_proxy.wire.urls import Origin

WINDOW = 128_000
MOST_OUTPUT = 16_384
_MOST_CHOICES = 8
_FRAMES_PER_CHUNK = 16  # words that leave together; each is an event of its own
_DELTAS_BEFORE_BREAK = 3

_JSON = [("content-type", "application/json")]
_EVENTS = [("content-type", "text/event-stream; charset=utf-8")]
_WORDS = re.compile(r"\s*\S+\s*|\s+")


class DemoBackend:
    """An instance of the demo. Its answers depend on the request alone, apart from ids and times."""

    def __init__(self, settings: BackendSettings) -> None:
        self.settings = msgspec.structs.replace(settings, default_model=settings.default_model or "echo")
        self._capabilities = lookup("openai-chat", "", {"custom_tools": False, "allowed_tools": False})

    @property
    def id(self) -> str:
        return self.settings.id

    @property
    def type(self) -> str:
        return "demo"

    @property
    def functional(self) -> bool:
        return self.settings.enabled

    @property
    def usable(self) -> bool:
        return self.settings.enabled

    @property
    def reason(self) -> str:
        return "" if self.usable else f"it is switched off (backends.{self.id}.enabled)."

    @property
    def keys(self) -> tuple[NamedKey | None, ...]:
        return (None,)

    @property
    def origin(self) -> Origin | None:
        return None

    def dialect_for(self, client_dialect: str, redirect: Redirect | None = None) -> str:
        return "openai-chat"

    def capabilities(self, model: str, dialect: str, redirect: Redirect | None = None) -> Capabilities:
        return self._capabilities

    def limits(self, model: str) -> Limits:
        return Limits(context_window=WINDOW, max_output=MOST_OUTPUT)

    def maker(self, model: str) -> str:
        return f"{self.id}/demo"

    def learn(self, model: str, dialect: str, fault: Fault, redirect: Redirect | None = None) -> bool:
        return False

    @property
    def list_failed(self) -> bool:
        return False

    @property
    def known_models(self) -> tuple[str, ...] | None:
        return tuple(sorted(MODELS))

    def supports(self, action: Action) -> bool:
        return action != "count"

    async def models(self) -> list[ModelInfo]:
        return [
            ModelInfo(id=name, owner="llm-proxy", context_window=WINDOW, max_output=MOST_OUTPUT)
            for name in sorted(MODELS)
        ]

    async def close(self) -> None:
        """Nothing runs in the background."""

    async def open(self, call: Call) -> Response:
        return await tapped(call.tap, f"{self.id}:{call.model}", call.body, self._answer(call))

    async def _answer(self, call: Call) -> Response:
        request = msgspec.json.decode(call.body)
        if not isinstance(request, dict):
            return _error(400, "The body is not a JSON object.")
        match call.action:
            case "embeddings":
                return _whole(_embeddings(call.model, request))
            case "completions":
                script = Script(text=f"Echo: {prompt_text(request)}")
            case _:
                script = answer(call.model, request)
        if script.status != 200:
            return _error(script.status, f"The demo back end was asked for status {script.status}.")
        if script.fault == "reset":
            raise _broken()
        talk = _Talk(call, request, script)
        if call.stream or request.get("stream") is True:
            return MemoryResponse(200, _EVENTS, _Stream(talk, script, self.settings.timeout))
        if script.fault == "stall":
            return MemoryResponse(200, _JSON, _Stalled(self.settings.timeout))
        if script.fault:
            raise _broken()
        if script.pause:
            await asyncio.sleep(script.pause * len(_split(script.text)))
        return _whole(talk.whole())


def _broken() -> FaultError:
    return FaultError(Fault(kind="closed", message="The demo back end broke the answer off, as it was asked to."))


def _error(status: int, message: str) -> Response:
    kinds = {
        401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error",
    }  # fmt: skip
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    body = {"error": {"message": message, "type": kind, "param": None, "code": None}}
    headers = [*_JSON, ("retry-after", "1")] if status == 429 else _JSON
    return MemoryResponse(status, headers, _Pieces(iter((msgspec.json.encode(body),))))


def _whole(body: object) -> Response:
    return MemoryResponse(200, _JSON, _Pieces(iter((msgspec.json.encode(body),))))


class _Pieces:
    """Bytes that are there already, with one turn of the loop before each piece."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> bytes:
        await asyncio.sleep(0)
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


class _Stalled(_Pieces):
    """Silence, until the time-out that a provider's silence would meet."""

    def __init__(self, timeout: float) -> None:
        super().__init__(iter(()))
        self._timeout = timeout

    async def __anext__(self) -> bytes:
        await asyncio.sleep(self._timeout)
        message = f"The demo back end sent nothing for {self._timeout:g} seconds, as it was asked to."
        raise FaultError(Fault(kind="timeout", message=message))


class _Stream(_Pieces):
    """The answer as server-sent events: many words to a chunk, or one by one with a pause; breaks where the
    script says so.
    """

    def __init__(self, talk: _Talk, script: Script, timeout: float) -> None:
        super().__init__(talk.frames())
        self._script = script
        self._sent = 0
        self._timeout = timeout

    async def __anext__(self) -> bytes:
        script = self._script
        if script.fault and self._sent > _DELTAS_BEFORE_BREAK:
            return await self._break(script.fault)
        if script.pause and self._sent:
            await asyncio.sleep(script.pause)
        else:
            await asyncio.sleep(0)
        frames: list[bytes] = []
        for frame in self._pieces:
            frames.append(frame)
            self._sent += 1
            if script.pause or script.fault or len(frames) == _FRAMES_PER_CHUNK:
                break
        if not frames:
            raise StopAsyncIteration
        return b"".join(frames)

    async def _break(self, fault: str) -> bytes:
        match fault:
            case "stall":
                return await _Stalled(self._timeout).__anext__()
            case "malformed" if self._sent < _DELTAS_BEFORE_BREAK + 6:
                self._sent += 1
                return b'data: {"choices": [{"delta": {"content": \n\n'
            case "malformed":
                raise StopAsyncIteration
            case _:
                raise _broken()


def _split(text: str) -> list[str]:
    return _WORDS.findall(text)


class _Talk:
    """One answer's ids and figures, and its two forms."""

    def __init__(self, call: Call, request: Mapping[str, Any], script: Script) -> None:
        self._legacy = call.action == "completions"
        self._script = script
        self._choices = _count_choices(request)
        self._head = {
            "id": f"{'cmpl' if self._legacy else 'chatcmpl'}-demo{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": call.model,
            "system_fingerprint": "demo",
        }
        options = request.get("stream_options")
        self._usage_wanted = isinstance(options, dict) and options.get("include_usage") is True
        self._usage = _usage(call.body, script, self._choices)
        self._finish = "tool_calls" if script.calls else "stop"
        self._call_ids = [f"call_demo{secrets.token_hex(10)}" for _ in script.calls]

    def whole(self) -> dict[str, Any]:
        choices = [self._whole_choice(index) for index in range(self._choices)]
        kind = "text_completion" if self._legacy else "chat.completion"
        return {**self._head, "object": kind, "choices": choices, "usage": self._usage}

    def _whole_choice(self, index: int) -> dict[str, Any]:
        script = self._script
        if self._legacy:
            return {"index": index, "text": script.text, "logprobs": None, "finish_reason": "stop"}
        message: dict[str, Any] = {"role": "assistant", "content": None if script.calls else script.text}
        if script.reasoning:
            message["reasoning_content"] = script.reasoning
        if script.calls:
            message["tool_calls"] = [
                {"id": id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for id, call in zip(self._call_ids, script.calls, strict=True)
            ]
        return {"index": index, "message": message, "logprobs": None, "finish_reason": self._finish}

    def frames(self) -> Iterator[bytes]:
        """The events of the stream, one by one, `[DONE]` last."""
        kind = "text_completion" if self._legacy else "chat.completion.chunk"
        head = {**self._head, "object": kind}

        def frame(choices: list[dict[str, Any]], **more: Any) -> bytes:
            return b"data: " + msgspec.json.encode({**head, "choices": choices, **more}) + b"\n\n"

        for index in range(self._choices):
            for delta in self._deltas():
                place = {"text": delta["content"]} if self._legacy else {"delta": delta}
                yield frame([{"index": index, **place, "finish_reason": None}])
            place = {"text": ""} if self._legacy else {"delta": {}}
            yield frame([{"index": index, **place, "finish_reason": self._finish}])
        if self._usage_wanted:
            yield frame([], usage=self._usage)
        yield b"data: [DONE]\n\n"

    def _deltas(self) -> Iterator[dict[str, Any]]:
        script = self._script
        if not self._legacy:
            yield {"role": "assistant", "content": ""}
        for word in _split(script.reasoning):
            yield {"reasoning_content": word}
        for word in _split(script.text):
            yield {"content": word}
        for number, (id, call) in enumerate(zip(self._call_ids, script.calls, strict=True)):
            opening = {"name": call.name, "arguments": ""}
            yield {"tool_calls": [{"index": number, "id": id, "type": "function", "function": opening}]}
            for start in range(0, len(call.arguments), 12):
                piece = {"arguments": call.arguments[start : start + 12]}
                yield {"tool_calls": [{"index": number, "function": piece}]}


def _count_choices(request: Mapping[str, Any]) -> int:
    wanted = request.get("n")
    return min(max(wanted, 1), _MOST_CHOICES) if isinstance(wanted, int) else 1


def _estimate(length: int) -> int:
    """Tokens of so many bytes: a quarter, and at least one if there is anything."""
    return -(-length // 4)


def _usage(body: bytes, script: Script, choices: int) -> dict[str, Any]:
    reasoning = _estimate(len(script.reasoning.encode()))
    said = script.text + "".join(call.name + call.arguments for call in script.calls)
    output = (reasoning + _estimate(len(said.encode()))) * choices
    tokens = _estimate(len(body))
    usage: dict[str, Any] = {
        "prompt_tokens": tokens,
        "completion_tokens": output,
        "total_tokens": tokens + output,
    }
    if reasoning:
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoning * choices}
    return usage


def _embeddings(model: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """A unit vector of 8 numbers for each input, made from its hash."""
    given = request.get("input")
    inputs = given if isinstance(given, list) and not all(isinstance(item, int) for item in given) else [given]
    as_base64 = request.get("encoding_format") == "base64"
    data = []
    size = 0
    for index, item in enumerate(inputs):
        text = item.encode() if isinstance(item, str) else msgspec.json.encode(item)
        size += len(text)
        vector = _vector(text)
        value = base64.b64encode(struct.pack("<8f", *vector)).decode() if as_base64 else vector
        data.append({"object": "embedding", "index": index, "embedding": value})
    tokens = _estimate(size)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def _vector(text: bytes) -> list[float]:
    numbers = [number / 2**31 - 1 for number in struct.unpack("<8I", hashlib.sha256(text).digest())]
    length = math.sqrt(sum(number * number for number in numbers)) or 1.0
    return [round(number / length, 6) for number in numbers]
