"""A look at a stream that is relayed byte for byte: an outline of each frame, decoding only the few that
matter.

Serves chat and legacy completion streams. Also takes the usage chunk out that the proxy, and not the client,
asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from llm_proxy.conversation.fault import Fault
from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects.base import Glance
from llm_proxy.dialects.openai_chat.answer_in import loads
from llm_proxy.dialects.openai_chat.errors import fault_in, fault_of
from llm_proxy.dialects.openai_chat.stream_in import closed_early
from llm_proxy.dialects.openai_chat.stream_out import error_frame
from llm_proxy.dialects.openai_chat.usage import usage_in
from llm_proxy.wire.sse import Frame

_NOTHING = Glance()
_CONTENT = Glance(content=True)
_SPOKEN = (
    "content",
    "reasoning_content",
    "reasoning",
    "reasoning_details",
    "refusal",
    "tool_calls",
    "function_call",
    "audio",
    "images",
    "annotations",
)


class _Choice(msgspec.Struct, gc=False):
    finish_reason: str | None = None
    error: Any = None


class _Outline(msgspec.Struct, gc=False):
    choices: list[_Choice] = []
    usage: Any = None
    error: Any = None
    x_groq: Any = None


_decode_outline = msgspec.json.Decoder(_Outline).decode


class ChatGlancer:
    """What the relay of one stream needs to know of it."""

    __slots__ = ("_ended", "_failed", "_finished", "_model", "_spoke")

    def __init__(self) -> None:
        self._spoke = False
        self._model = False
        self._finished = False
        self._ended = False
        self._failed = False

    def look(self, frames: Sequence[Frame]) -> Glance:
        if len(frames) == 1:
            return self._look(frames[0])
        found = _NOTHING
        for frame in frames:
            glance = self._look(frame)
            if glance is not _NOTHING:
                found = glance if found is _NOTHING else _joined(found, glance)
        return found

    def _look(self, frame: Frame) -> Glance:
        data = frame.data
        if not data:
            return _NOTHING
        if data[:1] != b"{":
            if data.strip() == b"[DONE]":
                self._ended = True
                return Glance(ended=True)
            return self._odd(data)
        if self._spoke and frame.event != "error" and _is_ordinary(data):
            return _CONTENT
        chunk = loads(data)
        if type(chunk) is not dict:
            return _NOTHING
        return self._chunk(chunk, frame.event)

    def _odd(self, data: bytes) -> Glance:
        """Data that is no object: an error in a list, or nothing."""
        value = loads(data)
        fault = fault_in(value) if isinstance(value, list) else None
        if fault is None:
            return _NOTHING
        self._failed = True
        return Glance(failed=fault)

    def _chunk(self, chunk: dict[str, Any], event: str) -> Glance:
        fault = None
        if event == "error":
            fault = fault_of(chunk)
        elif "error" in chunk or "choices" not in chunk:
            fault = fault_in(chunk)
        model = ""
        if not self._model and isinstance(chunk.get("model"), str):
            model = chunk["model"]
            self._model = bool(model)
        content = False
        choices = chunk.get("choices")
        for choice in choices if type(choices) is list else ():
            if type(choice) is dict:
                content = content or _speaks(choice)
                if choice.get("error") and fault is None:
                    fault = fault_of({"error": choice["error"]})
                if choice.get("finish_reason"):
                    self._finished = True
        self._spoke = self._spoke or content
        self._failed = self._failed or fault is not None
        return Glance(content=content, usage=usage_in(chunk), failed=fault, model=model)

    def close(self) -> Fault | None:
        """A finish reason is an end, too: not every server says `[DONE]`."""
        return None if self._ended or self._finished or self._failed else closed_early()

    def failure_frames(self, fault: Fault) -> bytes:
        return b"" if self._ended else error_frame(fault)

    def strip_usage(self, frames: Sequence[Frame]) -> bytes:
        """The raw bytes of `frames` without the usage-only chunk: for clients that did not ask for it."""
        if len(frames) == 1:
            frame = frames[0]
            return b"" if _is_usage_chunk(frame) else frame.raw
        return b"".join([frame.raw for frame in frames if not _is_usage_chunk(frame)])


def _is_ordinary(data: bytes) -> bool:
    """Is this just one more piece of content? The typed decoder skips what it does not know: cheaper than
    three searches.
    """
    try:
        outline = _decode_outline(data)
    except (msgspec.MsgspecError, RecursionError):
        return False
    if outline.usage or outline.error or outline.x_groq or not outline.choices:
        return False
    # A plain loop: `all` with a generator costs as much as the decoding.
    for choice in outline.choices:  # noqa: SIM110
        if choice.finish_reason or choice.error:
            return False
    return True


def _is_usage_chunk(frame: Frame) -> bool:
    data = frame.data
    # Chunks with a delta, which are most, are told by the first search; `find` is the quickest way to search
    # bytes.
    if data is None or data.find(b'"delta"') >= 0 or data.find(b'"usage"') < 0:
        return False
    chunk = loads(data)
    return type(chunk) is dict and chunk.get("choices") == [] and bool(chunk.get("usage")) and not chunk.get("error")


def _speaks(choice: dict[str, Any]) -> bool:
    """Does the client get anything to read by this choice?"""
    if choice.get("text"):
        return True
    for name in ("delta", "message"):
        holder = choice.get(name)
        if type(holder) is dict and any(holder.get(field) for field in _SPOKEN):
            return True
    return False


def _joined(first: Glance, second: Glance) -> Glance:
    usage: Usage | None = first.usage
    if second.usage is not None:
        usage = second.usage if usage is None else usage.merged(second.usage)
    return Glance(
        content=first.content or second.content,
        usage=usage,
        ended=first.ended or second.ended,
        failed=first.failed or second.failed,
        model=first.model or second.model,
    )
