"""Captures as a proxy writes them, without one: for tests of those who read them."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_proxy.store.capture.file import CaptureFile, Limits
from llm_proxy.store.capture.heard import Answered, Begun, Caller, Ended, Heard, Piece, Sent, What
from llm_proxy.store.capture.lines import Lines, first_line
from tests.e2e.asking import body_of
from tests.faults.stage import deltas, ending, whole
from tests.support.shared import Protocol

START = 1_763_700_000.0
JSON_TYPE = [("content-type", "application/json")]
ADDRESSES: dict[Protocol, str] = {
    "openai-chat": "https://up.test/v1/chat/completions",
    "openai-responses": "https://up.test/v1/responses",
    "anthropic-messages": "https://up.test/v1/messages",
    "gemini": "https://up.test/v1beta/models/m:streamGenerateContent",
}


class Tape:
    """Writes captures as a proxy does."""

    def __init__(self, path: Path, **limits: Any) -> None:
        self.path = path
        self._lines = Lines(lambda data: data)
        self._file = CaptureFile(path, Limits(**limits), lambda: first_line(START), lambda: START)
        self.now = START
        self._calls = 0

    def caller(self, **more: Any) -> Caller:
        self._calls += 1
        fields = {
            "client_host": "127.0.0.1",
            "session_id": "s1",
            "backend": "openai",
            "model": "gpt-5",
            "key_name": "K",
        }
        return Caller(**{**fields, "request_id": f"req_{self._calls}", **more})

    def hear(self, caller: Caller, *whats: What) -> None:
        for what in whats:
            self.now += 0.125
            self._file.append(deque([self._lines.line(Heard(self.now, caller, what, 0))]))

    def whole(
        self, protocol: Protocol = "openai-chat", *, status: int = 200, body: Any = None, failure: str = "", **more: Any
    ) -> None:
        caller = self.caller(**more)
        data = json.dumps(whole(protocol) if body is None else body).encode()
        sent = Sent(
            ADDRESSES[protocol].replace("streamG", "g"), json.dumps(body_of(protocol, "m", said="what is it")).encode()
        )
        self.hear(caller, sent, Answered(status, JSON_TYPE, [data], len(data), 0.25, failure))

    def stream(
        self,
        protocol: Protocol = "openai-chat",
        pieces: Sequence[bytes] | None = None,
        *,
        failure: str = "",
        extra: Any = None,
        **more: Any,
    ) -> None:
        caller = self.caller(**more)
        pieces = [*deltas(protocol), b"".join(ending(protocol))] if pieces is None else pieces
        body = {**body_of(protocol, "m", True, said="what is it"), **(extra or {})}
        self.hear(
            caller,
            Sent(ADDRESSES[protocol], json.dumps(body).encode()),
            Begun(200, [("content-type", "text/event-stream")]),
        )
        self.hear(caller, *(Piece(number, piece) for number, piece in enumerate(pieces, 1)))
        self.hear(caller, Ended(200, len(pieces), sum(map(len, pieces)), 2.0, 0.5, failure))
