"""One upstream stream of this dialect: frames in, events out. Never raises, whatever the bytes are."""

from __future__ import annotations

from collections.abc import Sequence

from llm_proxy.conversation.events import Event, Failed, Heartbeat
from llm_proxy.conversation.fault import Fault
from llm_proxy.dialects.base import ReadContext
from llm_proxy.dialects.openai_chat.answer_in import Decoder, loads
from llm_proxy.dialects.openai_chat.errors import fault_in, fault_of
from llm_proxy.dialects.openai_chat.fields import NAME
from llm_proxy.wire.sse import Frame

_MAX_BROKEN = 3


def closed_early() -> Fault:
    return Fault(kind="closed", message="the provider closed the stream before its end", origin=NAME)


class ChatStreamReader:
    """Reads until `[DONE]`, an error, or the end of the connection, whichever comes first."""

    def __init__(self, context: ReadContext) -> None:
        self._decoder = Decoder(context)
        self._over = False
        self._broken = 0

    def feed(self, frame: Frame) -> Sequence[Event]:
        if self._over:
            return ()
        data = frame.data
        if data is None or not data:
            return (Heartbeat(),) if self._decoder.started else ()
        if data[:1] != b"{":
            data = data.strip()
            if data == b"[DONE]":
                self._over = True
                return self._decoder.finish()
        chunk = loads(data)
        if type(chunk) is not dict:
            return self._unreadable(chunk)
        fault = None
        if frame.event == "error":
            fault = fault_in(chunk) or fault_of(chunk)
        elif "error" in chunk or "choices" not in chunk:
            fault = fault_in(chunk)
        if fault is not None:
            self._over = True
            return self._decoder.failed(fault)
        events = self._decoder.take(chunk)
        if events and type(events[-1]) is Failed:
            self._over = True
        return events

    def _unreadable(self, value: object) -> Sequence[Event]:
        """Broken JSON, or a value that is no chunk: skipped a few times. Gemini's endpoint sends errors in a
        list.
        """
        fault = fault_in(value) if isinstance(value, list) else None
        self._broken += 1
        if fault is None and self._broken > _MAX_BROKEN:
            fault = Fault(kind="upstream", message="the provider's stream is not readable", origin=NAME)
        if fault is None:
            return ()
        self._over = True
        return self._decoder.failed(fault)

    def close(self) -> Sequence[Event]:
        if self._over:
            return ()
        self._over = True
        if self._decoder.finished:
            return self._decoder.finish()
        return self._decoder.failed(closed_early())
