"""What was heard becomes lines: JSON objects without any secret, one per line (OPS-04, OPS-05).

Pure but for the `clean` that it is given. Streams are cleaned up to their last line break, because a secret may be cut in two by the
border of two pieces; what stands behind it is part of the next entry.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from llm_proxy.store.capture.heard import (
    FORMAT_VERSION,
    Answered,
    Begun,
    Caller,
    Direction,
    Ended,
    Headers,
    Heard,
    Piece,
    Sent,
)

BINARY = "base64:"
"""What stands before a payload that is no text."""
_MOST_HELD = 1024 * 1024  # bytes of a stream without line break that wait for one
_MARGIN = 64 * 1024  # bytes beyond the limit that are cleaned too, so that no secret is cut before it is found
# No key that is known by its shape goes on behind one of these.
_LAST_BORDER = re.compile(rb".*[\s\"',;:<>(){}\[\]]", re.DOTALL)
# What a provider says of a call beside its answer. Everything else, above all cookies, is left out.
_SHOWN_HEADERS = re.compile(
    r"content-type|retry-after(?:-ms)?|date|server|(?:x-)?request-id|x-ratelimit-.*|anthropic-ratelimit-.*|openai-.*|cf-ray"
)

Clean = Callable[[bytes], bytes]
"""Takes every secret out of bytes; gives the very object when there is none. Called in the writing thread."""


class Entry(msgspec.Struct, frozen=True):
    """One line."""

    timestamp_iso: datetime
    timestamp_unix: float
    direction: Direction
    source: str
    destination: str
    session_id: str
    backend: str
    model: str
    key_name: str
    content_type: str
    content_length: int
    payload: Any
    metadata: dict[str, Any]


class _Notes(msgspec.Struct):
    """What is the same in all lines of a call, and what its stream still owes."""

    source: str
    session_id: str
    backend: str
    model: str
    key_name: str
    metadata: dict[str, Any]
    held: bytearray = msgspec.field(default_factory=bytearray)
    last: int = 0
    """Number of the piece before."""


class _Payload(msgspec.Struct, frozen=True):
    kind: str
    value: Any
    truncated: bool = False


_encode = msgspec.json.Encoder().encode


def first_line(time: float) -> bytes:
    """The line with which a file begins."""
    payload = {"format_version": FORMAT_VERSION}
    entry = Entry(
        datetime.fromtimestamp(time, UTC),
        time,
        "system_init",
        "llm-proxy",
        "",
        "",
        "",
        "",
        "",
        "object",
        0,
        payload,
        {},
    )
    return _encode(entry) + b"\n"


class Lines:
    """`truncate`: bytes of a payload that are kept, 0 = all."""

    def __init__(self, clean: Clean, truncate: int = 0) -> None:
        self._clean = clean
        self._truncate = truncate

    def line(self, heard: Heard, dropped: int = 0) -> bytes:
        """The line, with its newline. `dropped`: entries before it that were lost."""
        caller, what = heard.caller, heard.what
        notes = caller.notes
        if not isinstance(notes, _Notes):
            notes = caller.notes = self._notes(caller)
        client, backend = notes.source, notes.backend
        metadata = dict(notes.metadata)
        if dropped:
            metadata["dropped"] = dropped
        match what:
            case Piece():
                payload = self._piece(notes, what)
                metadata |= {"chunk_number": what.number, "chunk_bytes": len(what.data)}
                entry = self._entry(heard, notes, "stream_chunk", backend, client, payload, len(what.data), metadata)
            case Sent():
                notes.held, notes.last = bytearray(), 0  # the same call once more
                notes.metadata["status"] = metadata["status"] = None
                payload = self._payload(what.body, len(what.body))
                place = self._cleaned(what.destination)
                entry = self._entry(heard, notes, "outbound_request", client, place, payload, len(what.body), metadata)
            case Begun():
                notes.metadata["status"] = metadata["status"] = what.status
                payload = _Payload("object", {"status": what.status, "headers": self._shown(what.headers)})
                entry = self._entry(heard, notes, "stream_start", backend, client, payload, 0, metadata)
            case Ended():
                payload = self._end(notes, what)
                entry = self._entry(heard, notes, "stream_end", backend, client, payload, 0, metadata)
            case Answered():
                payload = self._answer(what, metadata)
                entry = self._entry(heard, notes, "inbound_response", backend, client, payload, what.size, metadata)
        return _encode(entry) + b"\n"

    def _entry(
        self,
        heard: Heard,
        notes: _Notes,
        direction: Direction,
        source: str,
        destination: str,
        payload: _Payload,
        length: int,
        metadata: dict[str, Any],
    ) -> Entry:
        if payload.truncated:
            metadata["truncated"] = True
        return Entry(
            datetime.fromtimestamp(heard.time, UTC),
            heard.time,
            direction,
            source,
            destination,
            notes.session_id,
            notes.backend,
            notes.model,
            notes.key_name,
            payload.kind,
            length,
            payload.value,
            metadata,
        )

    def _notes(self, caller: Caller) -> _Notes:
        # Clients choose most of these, and may write anything there.
        clean = self._cleaned
        metadata = {
            "client_host": clean(caller.client_host),
            "user_agent": clean(caller.user_agent),
            "request_id": clean(caller.request_id),
            "attempt": caller.attempt,
            "call": caller.call,
            "status": None,
        }
        return _Notes(
            source=clean(caller.source),
            session_id=clean(caller.session_id),
            backend=clean(caller.backend),
            model=clean(caller.model),
            key_name=clean(caller.key_name),
            metadata=metadata,
        )

    def _cleaned(self, text: str) -> str:
        return self._clean(text.encode("utf-8", "replace")).decode("utf-8", "replace")

    def _shown(self, headers: Headers) -> dict[str, str]:
        return {name.lower(): self._cleaned(value) for name, value in headers if _SHOWN_HEADERS.fullmatch(name.lower())}

    # Payloads

    def _payload(self, data: bytes, size: int) -> _Payload:
        """JSON as it is but for blanks between its parts, else text, else base64. `size` is that of the whole."""
        limit = self._truncate
        cut = len(data) < size or bool(limit and size > limit)
        looked_at = data[: limit + _MARGIN] if cut and limit else data
        if len(looked_at) < len(
            data
        ):  # half a secret at its end comes forward where what stands before it becomes short
            looked_at = looked_at[: _border(looked_at)]
        cleaned = self._clean(looked_at)
        if cut and limit:
            cleaned = cleaned[:limit]
        text = _decoded(cleaned, cut)
        if text is None:
            return _Payload("bytes", BINARY + base64.b64encode(cleaned).decode(), cut)
        if not cut and cleaned[:64].lstrip()[:1] in (b"{", b"["):
            try:
                return _Payload("json", msgspec.Raw(msgspec.json.format(cleaned, indent=-1)))
            except (msgspec.DecodeError, RecursionError):
                pass
        return _Payload("text", text, cut)

    def _piece(self, notes: _Notes, piece: Piece) -> _Payload:
        data = piece.data
        if piece.number != notes.last + 1:  # some were dropped: the other half of a secret may have been in them
            notes.held, data = bytearray(), data[data.find(b"\n") + 1 :] if b"\n" in data else b""
        notes.last = piece.number
        held, before = notes.held, len(notes.held)
        held += data
        newline = data.rfind(b"\n")  # in what was held there is none
        end = before + newline + 1 if newline >= 0 else _border(bytes(held)) if len(held) > _MOST_HELD else 0
        ready = bytes(held[:end])
        del held[:end]
        return self._text(ready)

    def _text(self, data: bytes) -> _Payload:
        limit = self._truncate
        cleaned, cut = self._clean(data), bool(limit and len(data) > limit)
        if cut:
            cleaned = cleaned[:limit]
        text = _decoded(cleaned, cut)
        if text is None:
            return _Payload("bytes", BINARY + base64.b64encode(cleaned).decode(), cut)
        return _Payload("text", text, cut)

    def _end(self, notes: _Notes, what: Ended) -> _Payload:
        value: dict[str, Any] = {
            "complete": not what.failure,
            "failure": self._cleaned(what.failure) or None,
            "total_chunks": what.chunks,
            "total_bytes": what.size,
            "duration_ms": _milliseconds(what.duration),
            "first_chunk_ms": None if what.first is None else _milliseconds(what.first),
        }
        if notes.held:
            value["rest"], notes.held = self._text(bytes(notes.held)).value, bytearray()
        return _Payload("object", value)

    def _answer(self, what: Answered, metadata: dict[str, Any]) -> _Payload:
        metadata["status"] = what.status or None
        metadata["complete"] = not what.failure
        metadata["duration_ms"] = _milliseconds(what.duration)
        metadata["headers"] = self._shown(what.headers)
        if what.failure:
            metadata["failure"] = self._cleaned(what.failure)
        if not what.status:
            return _Payload("object", {"failure": metadata.get("failure")})
        pieces: Sequence[bytes] = what.pieces
        return self._payload(pieces[0] if len(pieces) == 1 else b"".join(pieces), what.size)


def _border(data: bytes) -> int:
    """Where `data`, of which more comes, may be cut without cutting a key; its length when nowhere near its end."""
    border = _LAST_BORDER.match(data, max(0, len(data) - _MARGIN))
    return border.end() if border else len(data)


def _decoded(data: bytes, cut: bool) -> str | None:
    """The text; None for what is none. `cut`: its end may stand within a character."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        return data[: error.start].decode() if cut and error.start >= len(data) - 3 else None


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
