"""How one upstream answer reaches the client: relayed byte for byte, or as events through the client's writer; streamed or whole.

Nothing is sent before the first content event (or the first keep-alive), so that until then another attempt can still be made.
Nothing is read from the upstream that the client has not taken: every write waits for the client.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec

from llm_proxy.conversation.answer import Answer
from llm_proxy.conversation.events import Event, Failed, is_content, is_native_content
from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.conversation.fold import unfold
from llm_proxy.conversation.parts import ToolCall
from llm_proxy.conversation.request import Message
from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects.base import NO_DUTIES, Glancer, ReplyContext, StreamWriter
from llm_proxy.server import recall, stored_responses
from llm_proxy.server.copies import merged_copies
from llm_proxy.server.http import JSON_TYPE, Headers, encode_headers
from llm_proxy.server.originals import Original
from llm_proxy.server.translation import FrameSource, RoomFilter, Translation, failure
from llm_proxy.wire import json as wire_json
from llm_proxy.wire.sse import Frame, SseReader

if TYPE_CHECKING:
    from llm_proxy.backends.transport import Response
    from llm_proxy.server.exchange import Exchange
    from llm_proxy.server.preparing import Prepared

_STREAM_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


Stripper = Callable[[Sequence[Frame]], bytes]

_RESPONSE_ID = re.compile(rb'"id"\s*:\s*"(resp_[A-Za-z0-9_-]{1,120})"')

_check_syntax = msgspec.json.Decoder(msgspec.Raw).decode


def _is_object(body: bytes) -> bool:
    """Can a client read this as a JSON object? A microsecond per kilobyte."""
    if not body.lstrip().startswith(b"{"):
        return False
    try:
        _check_syntax(body)
    except (msgspec.DecodeError, RecursionError):
        try:  # what is not quite JSON, such as NaN, was read by some clients before it met a proxy
            json.loads(body)
        except (ValueError, RecursionError):
            return False
    return True


class UpstreamBody:
    """A provider's answer body and its form, told by its content type or, where that says nothing, by its first bytes.

    `form`: `sse`, `array` (Gemini's streamed JSON array), or `json` (everything that comes whole).
    """

    def __init__(self, response: Response, first: bytes, form: str) -> None:
        self._response = response
        self._first = first
        self.form = form

    @classmethod
    async def of(cls, response: Response) -> UpstreamBody:
        """Waits for the first bytes."""
        kind = next((value for name, value in response.headers if name.lower() == "content-type"), "").lower()
        first = await response.chunk()
        start = first.lstrip(b"\xef\xbb\xbf \r\n\t")[:6]
        if "event-stream" in kind or start.startswith((b"data:", b"event:", b"id:", b": ")):
            form = "json" if start[:1] in b"{[<" and start else "sse"
        else:
            form = "json"
        if start[:1] == b"[" and not start.startswith(b'[{"error'[:6]):
            form = "array"
        return cls(response, first, form)

    @property
    def streamed(self) -> bool:
        return self.form != "json"

    async def chunk(self) -> bytes:
        """What has arrived; empty at the end."""
        if self._first:
            first, self._first = self._first, b""
            return first
        return await self._response.chunk()

    async def read(self, limit: int) -> bytes:
        first, self._first = self._first, b""
        rest = await self._response.read(limit) if first else b""
        return first + rest if rest else first


class Delivery:
    """One attempt's answer on its way. `sent`: frames of this answer have left, there is no way back.

    Made before the upstream is called, because the client must be kept alive while the upstream is silent. Keep-alives alone
    (comments) do not commit to this answer: another attempt may still follow.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._out = exchange.outgoing
        self._client = exchange.client
        self._held: list[bytes] = []
        self._writer: StreamWriter | None = None
        self._glancer: Glancer | None = None
        self._translation: Translation | None = None
        self._original: Original | None = None
        self._body = b""
        """An answer in the client's own protocol that came whole."""
        self._array = exchange.client.name == "gemini" and exchange.stream and not _wants_sse(exchange)
        self._elements = 0
        self._last_write = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._beat: asyncio.Task[None] | None = None
        self.sent = False
        self.several = False
        """Are these the answers of several calls at once?"""
        self._began = False
        self.usage: Usage | None = None
        self._parts: list[Translation] = []
        """The answers of several calls at once."""
        if exchange.stream:
            self._watch_silence()

    def close(self) -> None:
        """Stops the keep-alive; remembers the usage so far, and lets go of all that only a running answer needs: it refers back to this
        object, and would stay in memory until the interpreter looks for such circles."""
        if self._timer is not None:
            self._timer.cancel()
        if self._beat is not None:
            self._beat.cancel()
        if self._translation is not None:
            self.usage = self._translation.usage
        self._exchange.usage = self.usage or self._exchange.usage
        # The client hears of the prompt once, the provider counts it with each call.
        counted = [part.usage for part in self._parts if part.usage is not None]
        self._exchange.billed = functools.reduce(Usage.plus, counted) if counted else None
        self._writer = self._glancer = self._translation = self._original = None
        self._parts = []

    @property
    def used(self) -> Usage:
        """What this call has used, without what was spent before."""
        return self._translation.used if self._translation is not None else Usage(source="estimated")

    def with_thoughts(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Messages that repeat this answer to the model, with its reasoning before its first call: providers that seal it demand it back."""
        thoughts = self._translation.thoughts if self._translation is not None else ()
        out = list(messages)
        for at, message in enumerate(out):
            if message.role == "assistant":
                if any(isinstance(part, ToolCall) for part in message.parts):
                    out[at] = msgspec.structs.replace(message, parts=(*thoughts, *message.parts))
                break
        return tuple(out)

    # Ways

    async def deliver(self, response: Response, prepared: Prepared) -> None:
        """Brings `response` to the client. Raises FaultError when it turns out to be none, AskAgain when a room wants another."""
        filters = self._exchange.filters()
        body = await UpstreamBody.of(response)
        if prepared.verbatim and body.streamed == self._exchange.stream:
            if filters or self._exchange.spent is not None:
                self._original = self._as_it_comes()
            elif body.streamed:
                await self._relay_stream(body)
                return
            else:
                await self._relay_whole(body)
                return
        translation = self._begin(prepared, filters)
        await self._translate(self._batches(body, translation), translation)

    async def copies(self, responses: Sequence[Response], prepared: Prepared) -> None:
        """Several answers to one request become the choices of one."""
        self.several = True
        # Each copy pays its own duties; the merged answer passes the rooms once.
        translation = self._begin(msgspec.structs.replace(prepared, duties=NO_DUTIES), self._exchange.filters())
        estimate = max(1, self._exchange.size // 4)
        sources = []
        for response in responses:
            part = Translation(prepared.dialect, self._exchange.read_context(prepared), prepared.duties, (), estimate)
            self._parts.append(part)
            sources.append(self._batches(await UpstreamBody.of(response), part))

        async def batches() -> AsyncIterator[list[Event]]:
            async with aclosing(merged_copies(sources)) as merged:
                async for events in merged:
                    yield translation.passed(events)
                    if translation.stopped:
                        return

        await self._translate(batches(), translation)

    async def local(self, answer: Answer) -> None:
        """An answer that the proxy made itself."""
        exchange = self._exchange
        context = msgspec.structs.replace(self._context(), estimated_input=0)
        writer = self._writer = self._client.stream_writer(context) if exchange.stream else None
        exchange.first_content()
        body = b""
        if writer is not None:
            await self._send(writer.write(list(unfold(answer))), commit=True)
            await self._out.end()
        else:
            body = self._client.write_answer(answer, context)
            await self._out.whole(200, [JSON_TYPE, *encode_headers(exchange.headers())], body)
        self.close()
        self._remember(answer, writer, body)

    # Verbatim

    async def _relay_whole(self, upstream: UpstreamBody) -> None:
        exchange = self._exchange
        body = await self._read_whole(upstream)
        self.usage = self._client.read_usage(body)
        if exchange.tap is not None:
            exchange.tap.whole(self._client, body)
        self._note_native(body)
        exchange.first_content()
        await exchange.answer_whole(body)

    async def _read_whole(self, upstream: UpstreamBody) -> bytes:
        """A body that a client can read. Raises FaultError for anything else."""
        body = await upstream.read(self._exchange.gateway.limits.max_answer_bytes)
        fault = self._client.error_in_answer(body)
        if fault is None and not _is_object(body.removeprefix(b"\xef\xbb\xbf")):
            fault = Fault(kind="upstream", message="the provider's answer is no readable JSON object")
        if fault is not None:
            raise FaultError(fault)
        return body

    async def _relay_stream(self, upstream: UpstreamBody) -> None:
        frames_in = FrameSource(array=upstream.form == "array")
        glancer = self._glancer = self._client.glancer()
        strip = self._usage_stripper(glancer)
        first = True
        while chunk := await upstream.chunk():
            if first:
                self._note_native(chunk)
                first = False
            await self._relay(frames_in.feed(chunk), glancer, strip)
        await self._relay(frames_in.close(), glancer, strip)
        fault = glancer.close()
        if fault is not None:
            raise FaultError(fault)
        await self._flush()
        await self._out.end(self._array_end())

    def _usage_stripper(self, glancer: Glancer) -> Stripper | None:
        """What leaves out the usage for which the client did not ask."""
        return None if self._exchange.head.include_usage else getattr(glancer, "strip_usage", None)

    def _raw(self, frames: Sequence[Frame], strip: Stripper | None) -> bytes:
        """The bytes of frames in the framing that the client wants."""
        if self._array or frames[0].raw is frames[0].data:
            return self._reframed(frames)
        if strip is not None:
            return strip(frames)
        return frames[0].raw if len(frames) == 1 else b"".join(frame.raw for frame in frames)

    async def _relay(self, frames: list[Frame], glancer: Glancer, strip: Stripper | None) -> None:
        if not frames:
            return
        glance = glancer.look(frames)
        if (tap := self._exchange.tap) is not None:  # also what is no content: the end of a call is none
            tap.frames(self._client.name, frames)
        if glance.usage is not None:
            self.usage = glance.usage if self.usage is None else self.usage.merged(glance.usage)
        if glance.failed is not None:
            if not self.sent and not glance.content:
                raise FaultError(glance.failed)
            self._exchange.fault = glance.failed
        if glance.failed is not None and any(map(self._tells_secrets, frames)):
            # What came before goes out as it is; the error is told in our words.
            harmless = itertools.takewhile(lambda frame: not self._tells_secrets(frame), frames)
            await self._send(b"".join(frame.raw for frame in harmless), commit=True)
            raise FaultError(glance.failed)
        data = self._raw(frames, strip)
        await self._send(data, commit=glance.content or glance.ended or glance.failed is not None)

    def _note_native(self, data: bytes) -> None:
        """A response that the provider keeps: what builds on it belongs to this session."""
        if self._client.name == "openai-responses" and (found := _RESPONSE_ID.search(data, 0, 2000)):
            exchange = self._exchange
            exchange.caller.note_response(found[1].decode("latin-1"), exchange.session, exchange.conversation)

    def _tells_secrets(self, frame: Frame) -> bool:
        text = frame.raw.decode("utf-8", "replace")
        return self._exchange.gateway.without_secrets(text) != text

    def _reframed(self, frames: Sequence[Frame]) -> bytes:
        """Elements of a JSON array as SSE, or SSE as elements of a JSON array: what the client asked for."""
        out: list[bytes] = []
        for frame in frames:
            if frame.data is None:
                continue
            if self._array:
                out.append((b",\r\n" if self._elements else b"[") + frame.data)
                self._elements += 1
            else:
                out.append(b"data: " + frame.data.replace(b"\n", b"") + b"\r\n\r\n")
        return b"".join(out)

    def _array_end(self) -> bytes:
        if not self._array:
            return b""
        return b"]" if self._elements else b"[]"

    # Translated

    def _as_it_comes(self) -> Original:
        """Frames of the client's own protocol, which go on as they are while the rooms change nothing."""
        strip = self._usage_stripper(self._client.glancer())

        def writer() -> StreamWriter:
            begun = self.sent or (self._original is not None and self._original.begun)
            return self._client.stream_writer(msgspec.structs.replace(self._context(), begun=begun))

        return Original(
            lambda frames: self._raw(frames, strip),
            writer,
            b"" if self._array else self._client.heartbeat,
            self._tells_secrets,
        )

    def _begin(self, prepared: Prepared, filters: Sequence[RoomFilter]) -> Translation:
        exchange = self._exchange
        self._translation = Translation(
            prepared.dialect,
            exchange.read_context(prepared),
            prepared.duties,
            filters,
            max(1, exchange.size // 4),
            prepared.shown_model,
            exchange.spent,
            self._original,
        )
        return self._translation

    def _context(self) -> ReplyContext:
        exchange = self._exchange
        request = exchange.readable
        if exchange.previous_id and request is not None:
            request = msgspec.structs.replace(request, previous_id=exchange.previous_id)
        return ReplyContext(
            model=exchange.model or exchange.requested_model,
            new_id=exchange.fresh_id,
            packer=exchange.gateway.envelope,
            now=int(exchange.started),
            request=request,
            include_usage=exchange.head.include_usage if request is None else request.include_usage,
            show_thinking=exchange.shows_reasoning,
            sealed_wanted=_wants_seals(exchange),
            estimated_input=max(1, exchange.size // 4),
            array=self._array,
            request_id=exchange.id,
        )

    async def _batches(self, upstream: UpstreamBody, translation: Translation) -> AsyncIterator[list[Event]]:
        """The events of one upstream answer, in the portions in which they arrive."""
        original = self._original
        if not upstream.streamed:
            if original is None:
                yield translation.whole(await upstream.read(self._exchange.gateway.limits.max_answer_bytes))
            else:
                body = await self._read_whole(upstream)
                self._note_native(body)
                self._body = body
                yield translation.whole(body)
            return
        frames_in = FrameSource(array=upstream.form == "array")
        first = original is not None
        left = self._exchange.gateway.limits.max_answer_bytes  # what passes rooms is remembered
        while chunk := await upstream.chunk():
            if (left := left - len(chunk)) < 0:
                raise FaultError(Fault(kind="upstream", message="the provider's stream is longer than any answer"))
            if first:
                self._note_native(chunk)
                first = False
            frames = frames_in.feed(chunk)
            if frames and ((events := translation.feed(frames)) or original is not None):
                yield events
            if translation.stopped:
                return
        if frames := frames_in.close():
            yield translation.feed(frames)
        yield translation.close()

    async def _translate(self, batches: AsyncIterator[list[Event]], translation: Translation) -> None:
        exchange, original = self._exchange, self._original
        writer: StreamWriter | None = None
        if original is not None:
            writer = original if exchange.stream else None
        elif exchange.stream:
            writer = self._client.stream_writer(self._context())
        self._writer = writer
        async for events in batches:
            if exchange.tap is not None:
                exchange.tap.events(events)
            failed = failure(events)
            commit = self.sent or any(map(is_content, events))
            if not commit and original is not None:
                commit = any(map(is_native_content, events))
            if failed is not None and not (self.sent or (translation.spoke and writer is not None)):
                raise FaultError(failed.fault)
            if failed is not None:
                events = [*events[:-1], Failed(exchange.gateway.shown(failed.fault))]
                exchange.fault = failed.fault
            if writer is not None and (events or original is not None):
                await self._send(writer.write(events), commit=commit)
            if failed is not None and (original is None or original.diverged):
                break
        answer = None if translation.folder.fault else translation.folder.answer()
        body = b""
        if writer is not None:
            await self._flush()
            await self._out.end(self._array_end() if original is not None and not original.diverged else b"")
        else:
            assert answer is not None
            exchange.first_content()
            if original is not None and not original.diverged:
                body = self._body
            else:
                body = self._client.write_answer(answer, self._context())
            await exchange.answer_whole(body)
        if answer is not None and (original is None or original.diverged):
            self._remember(answer, original.writer if original is not None and writer is not None else writer, body)

    def _remember(self, answer: Answer, writer: StreamWriter | None, body: bytes) -> None:
        """Keeps what the client cannot carry, and the response where the back end keeps none."""
        exchange = self._exchange
        gateway, scope = exchange.gateway, exchange.session.scope
        if (request := exchange.readable) is not None:
            for choice in answer.choices[:1]:
                recall.keep(gateway.store, scope, request, choice.parts, gateway.limits.recollection_ttl)
        if self._client.name == "openai-responses":
            response = wire_json.decode_object(body) if writer is None else getattr(writer, "response", None)
            output = getattr(writer, "stored_output", None)
            if response:
                stored_responses.keep(
                    gateway.store, scope, gateway.outgoing(exchange.client_body or exchange.body), response, output,
                    gateway.limits.store_ttl, exchange.fresh_id, exchange.local,
                )  # fmt: skip
                exchange.caller.note_response(str(response.get("id") or ""), exchange.session, exchange.conversation)

    # Sending

    async def _send(self, data: bytes, commit: bool) -> None:
        """Sends, or holds back until something commits to this answer."""
        if self.sent:
            if data:
                self._last_write = time.monotonic()
                await self._out.write(data)
            return
        if data:
            self._held.append(data)
        if commit:
            self._exchange.first_content()
            await self._flush()

    async def _flush(self) -> None:
        """Commits to this answer: the status, if it is still due, and what was held back."""
        self.sent = True
        await self._start()
        if self._held:
            data = b"".join(self._held)
            if self._exchange.message_begun and not self._began:
                data = _split_start(self._held)[1]
            self._held.clear()
            self._last_write = time.monotonic()
            await self._out.write(data)

    async def _start(self) -> None:
        if not self._out.started:
            headers = [(b"content-type", b"application/json"), *_STREAM_HEADERS[1:]] if self._array else _STREAM_HEADERS
            await self._out.start(200, [*headers, *encode_headers(self._exchange.headers())])

    async def fail(self, fault: Fault) -> None:
        """Ends a stream that had begun with the protocol's in-stream error; never a silent stop."""
        if self._out.ended:
            return
        fault = self._exchange.gateway.shown(fault)
        if self._writer is not None:
            await self._out.end(self._writer.write(self._last_events(fault)))
        elif self._array:
            frames = self._client.write_error(fault, self._exchange.id)
            await self._out.end((b",\r\n" if self._elements else b"[") + frames + b"]")
        elif self._glancer is not None:
            await self._out.end(self._glancer.failure_frames(fault))
        else:
            await self._out.end()

    def _last_events(self, fault: Fault) -> Sequence[Event]:
        """What the rooms still hold of an answer that broke off, and the failure."""
        if self._translation is None or self._translation.folder.fault is not None:
            return [Failed(fault)]
        return self._translation.broken(fault)

    # Keep-alive

    def _watch_silence(self) -> None:
        interval = self._exchange.gateway.limits.keepalive
        if interval > 0:
            self._timer = asyncio.get_running_loop().call_later(interval, self._tick, interval)

    def _tick(self, interval: float) -> None:
        quiet = time.monotonic() - self._last_write
        if quiet < interval * 0.99:
            self._timer = asyncio.get_running_loop().call_later(interval - quiet, self._tick, interval)
            return
        self._last_write = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(interval, self._tick, interval)
        if self._beat is None or self._beat.done():
            self._beat = asyncio.get_running_loop().create_task(self._keep_alive())

    async def _keep_alive(self) -> None:
        """One keep-alive, unless the protocol allows none now.

        Comments may come before anything else. Anthropic's ping follows `message_start`, so that goes first.
        """
        if self._out.ended or self._array:
            return
        if self._client.name == "anthropic-messages" and not self.sent:
            await self._ping()
            return
        data = self._client.heartbeat if self._writer is None else self._writer.heartbeat()
        if data:
            await self._start()
            await self._out.write(data)

    async def _ping(self) -> None:
        """Anthropic's keep-alive before any content. `message_start` commits to nothing: a later attempt leaves out its own."""
        exchange = self._exchange
        if not exchange.message_begun and not _split_start(self._held)[0]:
            return
        await self._start()
        start = b""
        if not exchange.message_begun and not self.sent:  # others had their turn meanwhile
            start, rest = _split_start(self._held)
            self._held = [rest]
            self._began = exchange.message_begun = True
        await self._out.write(start + self._client.heartbeat)


def _split_start(held: Sequence[bytes]) -> tuple[bytes, bytes]:
    """What is held back of a Messages stream: up to and with `message_start`, and the rest. Nothing first while it has not come."""
    frames = [frame.raw for frame in SseReader().feed(b"".join(held))]
    for count, raw in enumerate(frames, 1):
        if b'"message_start"' in raw:
            return b"".join(frames[:count]), b"".join(frames[count:])
    return b"", b"".join(held)


def _wants_sse(exchange: Exchange) -> bool:
    return exchange.incoming.parameter("alt").lower() == "sse"


def shows_thinking(exchange: Exchange) -> bool:
    """Not where the request of this try excludes it; an Anthropic client that did not enable thinking must get no thinking blocks."""
    if exchange.hidden:
        return False
    if exchange.client.name != "anthropic-messages":
        return True
    request = exchange.readable
    return request is None or (request.reasoning is not None and request.reasoning.mode != "off")


def _wants_seals(exchange: Exchange) -> bool:
    request = exchange.readable
    if exchange.client.name != "openai-responses" or request is None:
        return True
    return request.store is False or "reasoning.encrypted_content" in request.include
