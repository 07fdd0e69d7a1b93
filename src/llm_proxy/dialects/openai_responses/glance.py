"""A look at a stream that is relayed byte for byte: by name and by bytes first, decoding only first, last
and error frames.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from llm_proxy.conversation.fault import Fault
from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects.base import Glance
from llm_proxy.dialects.names import base62
from llm_proxy.dialects.openai_responses.answer_in import fault_of_response, read_usage_object
from llm_proxy.dialects.openai_responses.errors import error_in_answer, fault_of_error, stream_error
from llm_proxy.dialects.openai_responses.stream_in import CUT_SHORT
from llm_proxy.dialects.openai_responses.wire import mapping, text
from llm_proxy.wire.json import encode
from llm_proxy.wire.sse import Frame, named_frame

_NOTHING: Final = Glance()
_CONTENT: Final = Glance(content=True)
_TYPE: Final = re.compile(rb'"type"\s*:\s*"((?:response\.[a-z_.]+|error))"')
_SEQUENCE: Final = re.compile(rb'"sequence_number"\s*:\s*(\d+)')
_ENDS: Final = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.cancelled", "error"}
)


class _Frame(msgspec.Struct):
    """The members that matter of a first or last frame; all else is skipped while decoding."""

    response: dict[str, Any] | None = None
    error: Any = None
    code: Any = None
    message: Any = None
    param: Any = None


_decode_frame = msgspec.json.Decoder(_Frame).decode


class ResponsesGlancer:
    def __init__(self) -> None:
        self._created: dict[str, Any] = {}
        self._last = b""
        self._ended = False

    def look(self, frames: Sequence[Frame]) -> Glance:
        content = False
        found: Glance | None = None
        for frame in frames:
            data = frame.data
            if data is None or self._ended:
                continue
            self._last = data
            kind = frame.event
            if kind.endswith(".delta"):
                content = True
                continue
            seen = self._seldom(kind, data)
            if seen is _CONTENT:
                content = True
            elif seen is not _NOTHING:
                found = _joined(found, seen)
        if found is None:
            return _CONTENT if content else _NOTHING
        return msgspec.structs.replace(found, content=True) if content else found

    def _seldom(self, kind: str, data: bytes) -> Glance:
        """Any frame whose name does not show a delta: by name, or by the type inside where there is no
        name.
        """
        if not kind:
            matched = _TYPE.search(data)
            kind = matched[1].decode() if matched else ""
            if kind.endswith(".delta"):
                return _CONTENT
            if not kind:
                return self._untyped(data)
        if kind == "response.output_item.done":
            return _CONTENT
        if kind == "response.output_item.added":
            return _CONTENT if b'_call"' in data else _NOTHING
        if kind == "response.created":
            frame = _read(data)
            self._created = mapping(frame.response)
            return Glance(model=text(self._created.get("model")))
        if kind in _ENDS:
            return self._end(kind, data)
        return _NOTHING

    def _untyped(self, data: bytes) -> Glance:
        if (fault := error_in_answer(data)) is None or data[:6] == b"[DONE]":
            return _NOTHING
        self._ended = True
        return Glance(ended=True, failed=fault)

    def _end(self, kind: str, data: bytes) -> Glance:
        self._ended = True
        frame = _read(data)
        response = mapping(frame.response)
        usage = read_usage_object(response.get("usage"))
        model = text(response.get("model"))
        fault: Fault | None = None
        if kind == "error":
            error = frame.error if isinstance(frame.error, dict) else {}
            flat = {"code": frame.code, "message": frame.message, "param": frame.param}
            fault = fault_of_error(error or flat)
        elif kind in ("response.failed", "response.cancelled") or isinstance(response.get("error"), dict):
            fault = fault_of_response(response)
        return Glance(usage=usage, ended=True, failed=fault, model=model)

    def close(self) -> Fault | None:
        return None if self._ended else Fault(kind="closed", message=CUT_SHORT)

    def failure_frames(self, fault: Fault) -> bytes:
        """`response.failed` with the id and the counting of the stream that it ends."""
        if self._ended:
            return b""
        self._ended = True
        found = _SEQUENCE.findall(self._last)
        number = int(found[-1]) + 1 if found else 0
        created = self._created
        frames = b""
        if not created:
            # The official SDK takes no other event first.
            created = empty_response(fault)
            frames = named_frame(
                "response.created",
                encode({"type": "response.created", "sequence_number": number, "response": created}),
            )
            number += 1
        response = {**created, "status": "failed", "error": stream_error(fault)}
        event = {"type": "response.failed", "sequence_number": number, "response": response}
        return frames + named_frame("response.failed", encode(event))


def empty_response(fault: Fault) -> dict[str, Any]:
    """A Response object for a stream that failed before it said anything."""
    digest = hashlib.sha256(fault.message.encode("utf-8", "replace")).digest()
    return {
        "id": "resp_" + base62(digest, 24),
        "object": "response",
        "created_at": 0,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": "unknown",
        "output": [],
        "parallel_tool_calls": True,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
    }


def _read(data: bytes) -> _Frame:
    try:
        return _decode_frame(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return _Frame()


def _joined(first: Glance | None, second: Glance) -> Glance:
    """What two frames showed; a frame that says nothing of a field leaves the other's word."""
    if first is None:
        return second
    usage: Usage | None = first.usage if second.usage is None else second.usage
    return Glance(
        content=first.content or second.content,
        usage=usage,
        ended=first.ended or second.ended,
        failed=second.failed or first.failed,
        model=second.model or first.model,
    )
