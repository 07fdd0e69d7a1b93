"""The envelope of Google's Code Assist API: a generateContent body goes out wrapped, its answer comes back unwrapped (BE-17).

Owns bytes only: what stands around a Gemini body, and when a used-up quota begins anew. Knows no login, no project and no address; what is
inside the envelope belongs to the Gemini dialect.
"""

from __future__ import annotations

import hashlib
import math
import re
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from llm_proxy.backends.logins.rereading import given, read_and_close
from llm_proxy.backends.transport import Response
from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.wire import json as wire_json
from llm_proxy.wire.faults import WireFault
from llm_proxy.wire.sse import Frame, SseReader, crlf_frame

PATH = "/v1internal"
GENERATE = ":streamGenerateContent?alt=sse"

# What Code Assist takes of a generateContent body; it refuses names that it does not know.
_MEMBERS = (
    "contents", "systemInstruction", "cachedContent", "tools", "toolConfig", "labels", "safetySettings", "generationConfig",
)  # fmt: skip
_SPELLINGS = {re.sub("[A-Z]", lambda found: "_" + found[0].lower(), name): name for name in _MEMBERS}

_LARGEST_WHOLE = 64 * 1024 * 1024
_LARGEST_ERROR = 1024 * 1024
_SPAN = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,12})?)(ms|[dhms])")
_RESET = re.compile(r"resets? (?:after|in) ((?:[0-9]{1,9}(?:\.[0-9]{1,12})?(?:ms|[dhms]) ?){1,8})", re.IGNORECASE)
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


class _Envelope(msgspec.Struct):
    response: msgspec.Raw = msgspec.Raw(b"")


_open = msgspec.json.Decoder(_Envelope).decode
_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_BRACKET_OR_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)

Piece = bytes | msgspec.Raw


def wrapped(body: bytes, *, model: str, project: str, prompt_id: str, salt: bytes) -> bytes:
    """A generateContent body as Code Assist takes it. Members keep their bytes; those that it does not know are left out.

    `project` "" leaves the field out. `salt` makes the session's id, which is that of the conversation, one of this installation.
    Raises FaultError (bad_request) for a body that is no JSON object.
    """
    try:
        members = _members(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        message = "the body is no JSON object, which Code Assist takes"
        raise FaultError(Fault(kind="bad_request", message=message, side="client")) from None
    known = {_SPELLINGS.get(name, name): value for name, value in members.items()}
    request: dict[str, Piece] = {name: value for name, value in known.items() if name in _MEMBERS}
    # Inside the request, where Google's own CLI puts it (packages/core/src/code_assist/converter.ts of google-gemini/gemini-cli, 2026);
    # the API refuses names that it does not know, and beside the request it knows none such.
    request["session_id"] = b'"' + _session_id(known, salt).encode() + b'"'
    pieces: list[Piece] = [b'{"model":', wire_json.encode(model.removeprefix("models/"))]
    if project:
        pieces += [b',"project":', wire_json.encode(project)]
    pieces += [b',"user_prompt_id":', wire_json.encode(prompt_id)]
    # One list and one join: conversations are megabytes, and each further copy costs as much as reading them.
    pieces.append(b',"request":{')
    for number, (name, value) in enumerate(request.items()):
        pieces += [b',"' if number else b'"', name.encode(), b'":', value]
    pieces.append(b"}}")
    return b"".join(pieces)


def _session_id(members: Mapping[str, msgspec.Raw], salt: bytes) -> str:
    """The same for all turns of a conversation: made of how it begins."""
    digest = hashlib.blake2b(members.get("systemInstruction", b""), digest_size=16, key=salt)
    digest.update(_first_element(memoryview(members.get("contents", b""))))
    return str(uuid.UUID(bytes=digest.digest(), version=4))


def _first_element(array: memoryview) -> memoryview:
    """The bytes of an array's first object; nothing where there is none. Reads no further."""
    start, depth = 0, 0
    for found in _BRACKET_OR_STRING.finditer(array):
        match found[0]:
            case b"{" | b"[":
                if depth == 1:
                    start = found.start()
                depth += 1
            case b"}" | b"]":
                depth -= 1
                if depth == 1:
                    return array[start : found.end()]
    return array[:0]


def unwrapped(data: bytes) -> bytes:
    """The JSON text inside the envelope; `data` itself where there is none, as with errors."""
    if b'"response"' not in data:
        return data
    try:
        inner = bytes(_open(data).response)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return data
    return inner if inner.startswith(b"{") else data


class Opened:
    """A Code Assist answer as the Gemini API would have sent it. Frames leave as they arrive."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self._frames = SseReader()
        self._begun = False
        self._whole = False
        self._over = False

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> list[tuple[str, str]]:
        return self._response.headers

    async def chunk(self) -> bytes:
        while not self._over:
            piece = await self._response.chunk()
            if not piece:
                self._over = True
                return self._rest()
            if not self._begun and piece.strip():
                self._begun = True
                self._whole = piece.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[", b"<")
            if self._whole:
                self._over = True
                return unwrapped_whole(piece + await self._response.read(_LARGEST_WHOLE))
            if out := _rewritten(self._cut(piece)):
                return out
        return b""

    def _cut(self, piece: bytes) -> list[Frame]:
        try:
            return self._frames.feed(piece)
        except WireFault as error:
            raise _unreadable(error) from None

    def _rest(self) -> bytes:
        try:
            return _rewritten(self._frames.close())
        except WireFault as error:
            raise _unreadable(error) from None

    def chunks(self) -> AsyncIterator[bytes]:
        return _Pieces(self)

    async def read(self, limit: int = _LARGEST_WHOLE) -> bytes:
        out = bytearray()
        while piece := await self.chunk():
            out += piece
            if len(out) > limit:
                raise FaultError(Fault(kind="upstream", message=f"The provider's answer is longer than {limit} bytes."))
        return bytes(out)

    def close(self) -> None:
        self._response.close()


class _Pieces:
    def __init__(self, response: Opened) -> None:
        self._response = response

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> bytes:
        if piece := await self._response.chunk():
            return piece
        raise StopAsyncIteration


def _unreadable(error: WireFault) -> FaultError:
    return FaultError(Fault(kind="upstream", message=f"The provider's stream cannot be read: {error}."))


def _rewritten(frames: Sequence[Frame]) -> bytes:
    out: list[bytes] = []
    for frame in frames:
        if frame.data is None:
            out.append(frame.raw)
            continue
        inner = unwrapped(frame.data)
        out.append(frame.raw if inner is frame.data else crlf_frame(inner.replace(b"\r", b" ").replace(b"\n", b" ")))
    return b"".join(out)


def unwrapped_whole(body: bytes) -> bytes:
    """A body that came in one piece: an object or an array of them."""
    if body.lstrip()[:1] != b"[":
        return unwrapped(body)
    try:
        elements = _elements(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return body
    return b"[" + b",".join(unwrapped(bytes(element)) for element in elements) + b"]"


# Refusals


async def refused(response: Response, now: float) -> tuple[Response, bytes]:
    """An error answer that has been read and may be read again, and its body.

    A 429 says in `retry-after` when the quota begins anew, where its body tells and its headers do not.
    """
    body = await read_and_close(response, _LARGEST_ERROR)
    headers = list(response.headers)
    wait = quota_wait(body, now) if response.status == 429 else None
    if wait is not None and not any(name.lower() in ("retry-after", "retry-after-ms") for name, _ in headers):
        headers.append(("retry-after", str(max(1, math.ceil(wait)))))
    return given(response.status, headers, body), body


def quota_wait(body: bytes, now: float) -> float | None:
    """Seconds until a used-up quota begins anew: the longest time that the error body names. `now` is epoch seconds."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(value, list) and value:
        value = value[0]
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict):
        return None
    waits = list(_detailed_waits(error.get("details"), now))
    message = error.get("message")
    if isinstance(message, str) and (found := _RESET.search(message[:4000])):
        waits.append(_seconds(found[1]))
    return max((wait for wait in waits if wait is not None), default=None)


def _detailed_waits(details: Any, now: float) -> list[float | None]:
    waits: list[float | None] = []
    for detail in details if isinstance(details, list) else ():
        if not isinstance(detail, Mapping):
            continue
        waits.append(_seconds(detail.get("retryDelay")))
        metadata = detail.get("metadata")
        if isinstance(metadata, Mapping):
            waits.append(_seconds(metadata.get("quotaResetDelay")))
            waits.append(_until(metadata.get("quotaResetTimeStamp"), now))
    return waits


def _seconds(span: Any) -> float | None:
    """Seconds of `1h2m3.5s`."""
    if not isinstance(span, str) or len(span) > 200:
        return None
    pieces = _SPAN.findall(span)
    return sum(float(number) * _UNITS[unit] for number, unit in pieces) if pieces else None


def _until(stamp: Any, now: float) -> float | None:
    if not isinstance(stamp, str) or len(stamp) > 64:
        return None
    try:
        moment = datetime.fromisoformat(stamp)
        return max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now)
    except (ValueError, OverflowError):
        return None
