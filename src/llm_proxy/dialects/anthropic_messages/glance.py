"""A look at a stream that is relayed byte for byte: usage, model, end and errors, decoding only the frames
that hold them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from llm_proxy.conversation.fault import Fault
from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects.anthropic_messages import errors, wire
from llm_proxy.dialects.base import Glance
from llm_proxy.wire.sse import Frame, named_frame

_decode = msgspec.json.Decoder().decode
_CONTENT = Glance(content=True)
_NOTHING = Glance()


class Glancer:
    def __init__(self) -> None:
        self._usage: dict[str, Any] = {}
        self._done = False

    def look(self, frames: Sequence[Frame]) -> Glance:
        content = False
        rare: list[Frame] = []
        for frame in frames:
            kind = frame.event
            if kind == "content_block_delta":
                content = True
            elif kind in ("content_block_stop", "ping"):
                pass
            elif frame.data:
                # Look-alikes leave the event line out: then the beginning of the data tells.
                if not kind and b'"content_block_delta"' in frame.data[:80]:
                    content = True
                else:
                    rare.append(frame)
        if not rare:
            return _CONTENT if content else _NOTHING
        return self._look_closer(rare, content)

    def _look_closer(self, frames: list[Frame], content: bool) -> Glance:
        usage: Usage | None = None
        ended = False
        failed: Fault | None = None
        model = ""
        for frame in frames:
            data = frame.data or b""
            if frame.event == "content_block_start" or b'"content_block_start"' in data[:80]:
                content = content or b'_use"' in data or b'_result"' in data
                continue
            event = _object(data)
            kind = wire.text_in(event.get("type")) or frame.event
            if kind == "message_start":
                message = wire.object_in(event.get("message"))
                model = wire.text_in(message.get("model"))
                usage = self._merge(message.get("usage")) or usage
            elif kind == "message_delta":
                usage = self._merge(event.get("usage")) or usage
            elif kind == "message_stop":
                ended = self._done = True
            elif kind == "error" or event.get("error") or event.get("success") is False:
                failed, self._done = errors.fault_of(event), True
        return Glance(content, usage, ended, failed, model)

    def _merge(self, usage: Any) -> Usage | None:
        if not isinstance(usage, dict):
            return None
        self._usage = wire.merge_usage(self._usage, usage)
        return wire.read_usage(self._usage)

    def close(self) -> Fault | None:
        if self._done:
            return None
        return Fault(kind="closed", message="the provider closed the stream before its end")

    def failure_frames(self, fault: Fault) -> bytes:
        return named_frame("error", errors.write_error(fault))


def _object(data: bytes) -> dict[str, Any]:
    try:
        return wire.object_in(_decode(data))
    except (msgspec.MsgspecError, RecursionError):
        return {}
