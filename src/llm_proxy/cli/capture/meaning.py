"""What captured bytes mean: requests and answers read by their dialect, streams put together.

Knows from an address which protocol was spoken there. Never raises for what it cannot read: then there is less to show.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

import msgspec

from llm_proxy import dialects
from llm_proxy.conversation.answer import Answer
from llm_proxy.conversation.events import Event, Failed
from llm_proxy.conversation.fault import FaultError
from llm_proxy.conversation.fold import Folder
from llm_proxy.conversation.request import Request
from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects.base import ReadContext
from llm_proxy.store.capture.lines import BINARY
from llm_proxy.store.capture.reading import Line
from llm_proxy.wire import json as wire_json
from llm_proxy.wire.faults import WireFault
from llm_proxy.wire.sse import Frame, SseReader, frame

_CODE_ASSIST = "/v1internal:"
_CONTEXT = ReadContext(maker="", new_call_id=lambda response, ordinal: f"call_{ordinal}")


def dialect_of(destination: str) -> str:
    """The protocol that is spoken at an address; what has none is a back-end that speaks OpenAI Chat."""
    if destination.endswith("/responses"):
        return "openai-responses"
    if destination.endswith(("/messages", "/messages/count_tokens")):
        return "anthropic-messages"
    if destination.endswith((":generateContent", ":streamGenerateContent", ":countTokens")):
        return "gemini"
    return "openai-chat"


def data_of(line: Line) -> bytes:
    """The bytes of a payload, as far as they were kept."""
    if line.content_type in ("json", "object"):
        return bytes(line.payload)
    text = line.value
    if not isinstance(text, str):
        return b""
    if line.content_type == "bytes":
        try:
            return base64.b64decode(text.removeprefix(BINARY))
        except binascii.Error:
            return b""
    return text.encode("utf-8", "surrogatepass")


class StreamGlance:
    """Looks for the usage in a stream that comes in pieces."""

    def __init__(self, dialect: str) -> None:
        self._frames = SseReader()
        self._glancer = dialects.get(dialect).glancer()
        self.usage: Usage | None = None

    def feed(self, data: bytes) -> None:
        try:
            if found := [_unwrapped(one) for one in self._frames.feed(data)]:
                self.usage = self._glancer.look(found).usage or self.usage
        except (WireFault, FaultError):
            pass


def usage_of(dialect: str, body: bytes) -> Usage | None:
    try:
        return dialects.get(dialect).read_usage(body)
    except (FaultError, WireFault):
        return None


def request_of(destination: str, body: bytes) -> Request | None:
    """The request as it is meant; None for one that is no conversation."""
    if _CODE_ASSIST in destination:
        body = _member(body, "request")
    try:
        return dialects.get(dialect_of(destination)).read_request(wire_json.read_document(body), "model", False)
    except (FaultError, WireFault):
        return None


def answer_of(destination: str, body: bytes) -> Answer | None:
    if _CODE_ASSIST in destination:
        body = _member(body, "response")
    try:
        return dialects.get(dialect_of(destination)).read_answer(body, _CONTEXT)
    except (FaultError, WireFault):
        return None


def streamed_answer(destination: str, data: bytes) -> tuple[Answer | None, str]:
    """The answer that a stream brings, and the error in it; as far as it came when it broke off."""
    reader, frames = dialects.get(dialect_of(destination)).stream_reader(_CONTEXT), SseReader()
    folder = Folder()
    failure = ""

    def take(events: Sequence[Event]) -> None:
        nonlocal failure
        for event in events:
            if isinstance(event, Failed):
                failure = failure or event.fault.message
            else:
                folder.feed(event)

    try:
        for one in (*frames.feed(data), *frames.close()):
            take(reader.feed(_unwrapped(one)))
    except (WireFault, FaultError) as error:
        failure = str(error)
    take(reader.close())
    try:
        return folder.answer(), failure
    except FaultError:
        return None, failure


def _unwrapped(one: Frame) -> Frame:
    """The frame inside of Code Assist's envelope."""
    if one.data is None or not one.data.startswith(b'{"response"'):
        return one
    inner = _member(one.data, "response")
    return Frame(frame(inner), one.event, inner) if inner else one


def _member(body: bytes, name: str) -> bytes:
    try:
        return bytes(msgspec.json.decode(body, type=dict[str, msgspec.Raw]).get(name, b""))
    except (msgspec.MsgspecError, RecursionError):
        return b""
