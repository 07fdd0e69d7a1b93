"""Looks at Gemini bodies and streams that are relayed as they are: bytes first, then only what matters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from llm_proxy.conversation.fault import Fault
from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects.base import Glance
from llm_proxy.dialects.gemini.errors import error_body, fault_of_error
from llm_proxy.dialects.gemini.wire import Object, read_usage
from llm_proxy.wire import json as wire_json
from llm_proxy.wire.sse import Frame, crlf_frame

_NOTHING = Glance()
_CONTENT = Glance(content=True)
_MODEL = re.compile(rb'"modelVersion"\s*:\s*"(?:models/)?([^"\\]{1,200})"')


class _Chunk(msgspec.Struct):
    """Only what is looked for; everything else is skipped without being built."""

    candidates: Any = None
    usageMetadata: Any = None
    promptFeedback: Any = None
    error: Any = None


class _Counted(msgspec.Struct):
    usageMetadata: Any = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_counted = msgspec.json.Decoder(_Counted).decode
_decode_all_counted = msgspec.json.Decoder(list[_Counted]).decode


class GeminiGlancer:
    """Usage stands on nearly every chunk, but the figure is complete only from the reason on."""

    def __init__(self) -> None:
        self._ended = False
        self._failed = False
        self._ordinary = False
        self._usage: Usage | None = None

    def look(self, frames: Sequence[Frame]) -> Glance:
        seen = _NOTHING
        for frame in frames:
            data = frame.data
            if data is None:
                continue
            if self._ordinary and b'"parts"' in data and b'"finishReason"' not in data:
                # An error or a blocked prompt has no parts.
                if not seen.content:
                    seen = _CONTENT if seen is _NOTHING else msgspec.structs.replace(seen, content=True)
            else:
                seen = self._closely(data, seen)
                self._ordinary = not self._ended
        return seen

    def _closely(self, data: bytes, seen: Glance) -> Glance:
        model = seen.model
        if not model and (found := _MODEL.search(data)):
            model = found[1].decode("utf-8", "replace")
        try:
            chunk = _decode_chunk(data)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return seen
        failed = seen.failed
        if chunk.error and not chunk.candidates:
            self._failed = True
            failed = fault_of_error(chunk.error, 0, b"")
        ended = _has_reason(chunk.candidates) or _is_blocked(chunk.promptFeedback)
        self._ended = self._ended or ended
        usage = seen.usage
        if self._ended and isinstance(chunk.usageMetadata, dict):
            new = read_usage(chunk.usageMetadata)
            usage = self._usage = new if self._usage is None else self._usage.merged(new)
        return Glance(
            content=seen.content or b'"parts"' in data,
            usage=usage,
            ended=seen.ended or ended,
            failed=failed,
            model=model,
        )

    def close(self) -> Fault | None:
        if self._ended or self._failed:
            return None
        return Fault(kind="closed", message="the provider's stream ended before the answer was complete")

    def failure_frames(self, fault: Fault) -> bytes:
        return crlf_frame(wire_json.encode(error_body(fault)))


def _has_reason(candidates: Any) -> bool:
    return isinstance(candidates, list) and any(
        isinstance(candidate, dict) and bool(candidate.get("finishReason")) for candidate in candidates
    )


def _is_blocked(feedback: Any) -> bool:
    return isinstance(feedback, dict) and bool(feedback.get("blockReason"))


def usage_of_body(body: bytes) -> Usage | None:
    """Usage of a whole answer, or of the last chunk of an array that has one."""
    try:
        counted = _decode_all_counted(body) if body.lstrip()[:1] == b"[" else [_decode_counted(body)]
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    counts: Object = {}
    for one in counted:
        if isinstance(one.usageMetadata, dict):
            counts.update(one.usageMetadata)
    return read_usage(counts) if counts else None
