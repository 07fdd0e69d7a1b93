"""BE-17: the envelope of Code Assist, and the reset text of a used-up quota."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest

from llm_proxy.backends.logins.code_assist import Opened, quota_wait, refused, unwrapped, wrapped
from llm_proxy.backends.transport import MemoryResponse
from llm_proxy.conversation.fault import FaultError
from tests.backends.logins.code_assist_server import QUOTA, chunk

BODY = b'{"contents": [{"role":"user","parts":[{"text":"h\\u0069"}]}], "generationConfig":{"temperature": 1.0}}'


def sealed(body: bytes = BODY, **members: Any) -> dict[str, Any]:
    given = {"model": "gemini-2.5-pro", "project": "p", "prompt_id": "q", "salt": b"s", **members}
    decoded: dict[str, Any] = msgspec.json.decode(wrapped(body, **given))
    return decoded


def session_of(envelope: dict[str, Any]) -> str:
    found: str = envelope["request"]["session_id"]
    return found


def response(pieces: Sequence[bytes], status: int = 200, headers: Sequence[tuple[str, str]] = ()) -> MemoryResponse:
    async def source() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return MemoryResponse(status, list(headers), source())


async def opened(*pieces: bytes) -> bytes:
    return await Opened(response(pieces)).read()


def test_the_envelope_holds_model_project_prompt_session_and_request() -> None:
    envelope = sealed()
    assert list(envelope) == ["model", "project", "user_prompt_id", "request"]
    assert (envelope["model"], envelope["project"], envelope["user_prompt_id"]) == ("gemini-2.5-pro", "p", "q")
    session = envelope["request"].pop("session_id")
    assert uuid.UUID(session).version == 4
    assert envelope["request"] == msgspec.json.decode(BODY)


def test_members_keep_their_bytes() -> None:
    body = wrapped(BODY, model="m", project="p", prompt_id="q", salt=b"s")
    assert b'"contents":[{"role":"user","parts":[{"text":"h\\u0069"}]}]' in body
    assert b'"generationConfig":{"temperature": 1.0}' in body


def test_what_code_assist_does_not_know_is_left_out() -> None:
    body = b'{"model":"models/x","contents":[],"system_instruction":{"parts":[]},"x":1,"generation_config":{}}'
    assert list(sealed(body)["request"]) == ["contents", "systemInstruction", "generationConfig", "session_id"]


def test_no_project_means_no_field() -> None:
    assert "project" not in sealed(project="")


def test_the_session_is_that_of_the_conversation() -> None:
    more = b'{"contents":[{"role":"user","parts":[{"text":"h\\u0069"}]},{"role":"model","parts":[{"text":"x"}]}]}'
    other = BODY.replace(b"h\\u0069", b"bye")
    assert session_of(sealed()) == session_of(sealed(more))
    assert session_of(sealed()) != session_of(sealed(other))
    assert session_of(sealed()) != session_of(sealed(salt=b"another"))


def test_a_client_names_no_session_of_code_assist() -> None:
    named = sealed(BODY.replace(b'{"contents"', b'{"session_id": "of the client", "contents"', 1))
    assert session_of(named) == session_of(sealed())


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"x"'])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(FaultError) as caught:
        wrapped(body, model="m", project="p", prompt_id="q", salt=b"s")
    assert caught.value.fault.kind == "bad_request"


EVENTS = b": hi\r\n\r\ndata: %b\r\n\r\ndata: %b\n\ndata: [DONE]\n\n" % (
    msgspec.json.encode(chunk({"text": "a\u2028b"})),
    msgspec.json.encode(chunk({"text": "c"}, finish="STOP")),
)


async def test_events_come_out_of_their_envelope_at_every_split() -> None:
    """Given a wrapped stream, then the frames of the Gemini API, however the bytes arrive."""
    whole = await opened(EVENTS)
    frames = [line.removeprefix(b"data: ") for line in whole.splitlines() if line.startswith(b"data: ")]
    assert frames[-1] == b"[DONE]"
    assert [msgspec.json.decode(one)["candidates"][0]["content"]["parts"][0]["text"] for one in frames[:-1]] == [
        "a\u2028b",
        "c",
    ]
    assert b"traceId" not in whole
    for split in range(1, len(EVENTS)):
        assert await opened(EVENTS[:split], EVENTS[split:]) == whole


async def test_an_error_event_and_a_foreign_stream_stay_as_they_are() -> None:
    for data in (b'{"error":{"code":500,"message":"x"}}', b'{"candidates":[]}', b'{"broken', b'{"response":3}'):
        assert await opened(b"data: " + data + b"\n\n") == b"data: " + data + b"\n\n"


async def test_an_event_of_several_lines_becomes_one() -> None:
    assert await opened(b'data: {"response": {"a":\ndata:  1}}\n\n') == b'data: {"a":  1}\r\n\r\n'


async def test_an_answer_in_one_piece_is_unwrapped_too() -> None:
    assert await opened(b' {"response":', b'{"candidates":[]}}') == b'{"candidates":[]}'
    assert await opened(b'[{"response":{"a":1}},', b'{"response":{"b":2}}]') == b'[{"a":1},{"b":2}]'
    assert await opened(b"<html>no</html>") == b"<html>no</html>"


async def test_a_frame_without_end_is_an_upstream_fault() -> None:
    with pytest.raises(FaultError) as caught:
        await opened(b"data: " + b"x" * (9 * 1024 * 1024), b"y")
    assert caught.value.fault.kind == "upstream"


def test_unwrapping_needs_an_object() -> None:
    assert unwrapped(b'{"response": {"a": 1}, "traceId": "t"}') == b'{"a": 1}'


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (QUOTA["error"], 7985.0),
        ({"message": "Your quota will reset after 45s."}, 45.0),
        ({"message": "Resets in 1h30m"}, 5400.0),
        ({"message": "x", "details": [{"@type": "t/google.rpc.RetryInfo", "retryDelay": "12.5s"}]}, 12.5),
        ({"message": "x", "details": [{"metadata": {"quotaResetDelay": "500ms"}}]}, 0.5),
        ({"message": "x", "details": [{"metadata": {"quotaResetTimeStamp": "1970-01-01T00:02:00Z"}}]}, 20.0),
        ({"message": "resource has been exhausted (e.g. check quota)."}, None),
        ({"message": 7, "details": "x"}, None),
        ("text", None),
    ],
)
def test_the_reset_text_says_how_long_a_quota_is_gone(error: Any, seconds: float | None) -> None:
    found = quota_wait(msgspec.json.encode({"error": error}), now=100.0)
    assert found == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"[1]", b'{"error":null}', b"[" * 5000])
def test_nonsense_says_nothing(body: bytes) -> None:
    assert quota_wait(body, 0.0) is None


async def test_a_429_tells_its_reset_in_a_header_and_keeps_its_body() -> None:
    body = msgspec.json.encode(QUOTA)
    answer, read = await refused(response([body], 429), 0.0)
    assert (answer.status, answer.headers, await answer.read()) == (429, [("retry-after", "7985")], body)
    assert read == body


async def test_the_providers_own_header_counts() -> None:
    answer, _ = await refused(response([msgspec.json.encode(QUOTA)], 429, [("Retry-After", "5")]), 0.0)
    assert answer.headers == [("Retry-After", "5")]
    answer, _ = await refused(response([msgspec.json.encode(QUOTA)], 503), 0.0)
    assert answer.headers == []
