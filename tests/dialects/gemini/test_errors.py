"""Errors in both directions, and the cheap look at streams that are relayed as they are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.dialects.gemini import DIALECT
from llm_proxy.dialects.gemini.errors import error_status
from llm_proxy.wire.sse import Frame, SseReader
from tests.dialects.gemini.support import NAME, READ, call, chunk, events_of, sse
from tests.support.grammar import check_error_body
from tests.support.shared import Exchange, generating_exchanges

FAILURES = [one for one in generating_exchanges() if one.protocol == NAME and one.response.status != 200]


def body(code: int, status: str, message: str = "m", details: Any = None) -> bytes:
    error = {"code": code, "message": message, "status": status, **({"details": details} if details else {})}
    return json.dumps({"error": error}).encode()


RETRY = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "27s"}]
BAD_KEY = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]


@pytest.mark.parametrize("exchange", FAILURES, ids=str)
def test_recorded_errors_keep_their_message_and_class(exchange: Exchange) -> None:
    fault = DIALECT.read_error(exchange.response.status, (), exchange.response.payload)
    assert fault.message and fault.origin == NAME
    if exchange.response.status in (401, 403):
        assert (fault.kind, fault.status_code) == ("upstream_auth", 502)
    elif "API key" in fault.message:
        # Google answers 400 for a bad key; as 400 says nothing about the client's key it may stay.
        assert (fault.kind, fault.status_code) == ("upstream_auth", 400)
    else:
        assert fault.status_code == exchange.response.status
    assert check_error_body(NAME, error_status(fault), json.loads(DIALECT.write_error(fault))) == []


@pytest.mark.parametrize(
    ("status", "raw", "kind"),
    [
        (400, body(400, "INVALID_ARGUMENT"), "bad_request"),
        (
            400,
            body(400, "INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens"),
            "context_length",
        ),
        (400, body(400, "INVALID_ARGUMENT", "API key not valid.", BAD_KEY), "upstream_auth"),
        (401, body(401, "UNAUTHENTICATED"), "upstream_auth"),
        (403, body(403, "PERMISSION_DENIED"), "upstream_auth"),
        (404, body(404, "NOT_FOUND"), "not_found"),
        (429, body(429, "RESOURCE_EXHAUSTED"), "rate_limit"),
        (500, body(500, "INTERNAL"), "upstream"),
        (503, body(503, "UNAVAILABLE"), "overloaded"),
        (504, body(504, "DEADLINE_EXCEEDED"), "timeout"),
        (502, b"<html><title>Bad Gateway</title><body>x</body></html>", "upstream"),
        (500, b"", "upstream"),
        (429, b"[" + body(429, "RESOURCE_EXHAUSTED") + b"]", "rate_limit"),
        (400, b'{"error":"text"}', "bad_request"),
        (400, b'{"detail":"text"}', "bad_request"),
        (400, b"\xff\xfe", "bad_request"),
    ],
)
def test_errors_of_providers(status: int, raw: bytes, kind: str) -> None:
    fault = DIALECT.read_error(status, (), raw)
    assert fault.kind == kind
    assert fault.message and "<" not in fault.message


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [
        (body(429, "RESOURCE_EXHAUSTED", "quota", RETRY), 27.0),
        (
            body(429, "RESOURCE_EXHAUSTED", "q", [{"@type": "x/google.rpc.RetryInfo", "retryDelay": "1.5s"}]),
            1.5,
        ),
        (
            body(
                429,
                "RESOURCE_EXHAUSTED",
                "q",
                [{"@type": "x/google.rpc.RetryInfo", "retryDelay": {"seconds": "3"}}],
            ),
            3.0,
        ),
        (body(429, "RESOURCE_EXHAUSTED", "Quota exceeded. Please retry in 12.5s."), 12.5),
        (body(429, "RESOURCE_EXHAUSTED", "Quota exceeded."), None),
        (
            body(429, "RESOURCE_EXHAUSTED", "q", [{"@type": "x/google.rpc.RetryInfo", "retryDelay": "soon"}]),
            None,
        ),
    ],
)
def test_how_long_to_wait(raw: bytes, seconds: float | None) -> None:
    assert DIALECT.read_error(429, (), raw).retry_after == seconds


@pytest.mark.parametrize(
    ("fault", "code", "status", "detail"),
    [
        (Fault(kind="bad_request", message="m"), 400, "INVALID_ARGUMENT", "invalid_request"),
        (Fault(kind="validation", message="m"), 422, "INVALID_ARGUMENT", "validation_error"),
        (Fault(kind="auth", message="m"), 401, "UNAUTHENTICATED", "unauthorized"),
        (Fault(kind="permission", message="m"), 403, "PERMISSION_DENIED", "forbidden"),
        (Fault(kind="not_found", message="m"), 404, "NOT_FOUND", "not_found"),
        (Fault(kind="too_large", message="m", side="client"), 413, "INVALID_ARGUMENT", "request_too_large"),
        (Fault(kind="rate_limit", message="m"), 429, "RESOURCE_EXHAUSTED", "rate_limited"),
        (Fault(kind="internal", message="m"), 500, "INTERNAL", "internal_error"),
        (Fault(kind="upstream_auth", message="m"), 502, "UNAVAILABLE", "upstream_credentials_invalid"),
        (Fault(kind="unavailable", message="m"), 503, "UNAVAILABLE", "backend_unavailable"),
        (Fault(kind="overloaded", message="m", status=529), 503, "UNAVAILABLE", "backend_unavailable"),
        (Fault(kind="timeout", message="m"), 504, "DEADLINE_EXCEEDED", "upstream_timeout"),
        (Fault(kind="loop", message="m"), 508, "FAILED_PRECONDITION", "loop_guard"),
    ],
)
def test_errors_for_clients(fault: Fault, code: int, status: str, detail: str) -> None:
    out = json.loads(DIALECT.write_error(fault))
    assert (out["error"]["code"], out["error"]["status"], out["error"]["message"]) == (code, status, "m")
    assert out["detail"] == {"code": detail, "message": "m", "details": {}}


def test_a_wait_and_a_field_are_told_in_googles_details() -> None:
    out = json.loads(DIALECT.write_error(Fault(kind="rate_limit", message="m", retry_after=12.5, param="contents")))
    kinds = {entry["@type"].rsplit(".", 1)[1]: entry for entry in out["error"]["details"]}
    assert kinds["RetryInfo"]["retryDelay"] == "12.5s"
    assert kinds["BadRequest"]["fieldViolations"][0]["field"] == "contents"


def test_too_long_an_input_is_said_so_that_clients_recognise_it() -> None:
    out = json.loads(DIALECT.write_error(Fault(kind="context_length", message="prompt too big")))
    assert "input token count exceeds" in out["error"]["message"]


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b'{"candidates":[{"content":{"parts":[{"text":"\\"error\\""}]}}]}', None),
        (b'{"usageMetadata":{},"candidates":[]}', None),
        (body(503, "UNAVAILABLE"), "overloaded"),
        (b"[" + body(429, "RESOURCE_EXHAUSTED") + b"]", "rate_limit"),
        (b"<html>busy</html>", "upstream"),
        (b'{"success":false,"msg":"x"}', "upstream"),
    ],
)
def test_an_error_inside_a_200(raw: bytes, kind: str | None) -> None:
    fault = DIALECT.error_in_answer(raw)
    assert (fault and fault.kind) == kind


def frames(*chunks: Any) -> list[Frame]:
    return SseReader().feed(sse(chunks))


USAGE = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}


def test_a_relayed_stream_shows_content_usage_model_and_end() -> None:
    glancer = DIALECT.glancer()
    first = glancer.look(frames(chunk({"text": 'say "finishReason": "STOP"'}, usage={"promptTokenCount": 3})))
    assert (first.content, first.ended, first.usage, first.model) == (True, False, None, "gemini-2.5-flash")
    middle = glancer.look(frames(chunk(call("w"))))
    assert (middle.content, middle.ended) == (True, False)
    assert glancer.close() is not None
    last = glancer.look(frames(chunk({"text": ""}, reason="STOP", usage=USAGE)))
    assert last.ended and last.usage is not None and last.usage.total == 5
    trailing = glancer.look(frames({"usageMetadata": {**USAGE, "thoughtsTokenCount": 4, "totalTokenCount": 9}}))
    assert trailing.usage is not None and trailing.usage.total == 9
    assert glancer.close() is None


def test_a_relayed_error_or_block_is_seen() -> None:
    glancer = DIALECT.glancer()
    glancer.look(frames(chunk({"text": "x"})))
    seen = glancer.look(frames({"error": {"code": 503, "message": "m", "status": "UNAVAILABLE"}}))
    assert seen.failed is not None and seen.failed.kind == "overloaded"
    blocked = DIALECT.glancer().look(frames({"promptFeedback": {"blockReason": "SAFETY"}}))
    assert blocked.ended


def test_a_relayed_stream_can_be_ended_with_an_error_frame() -> None:
    raw = DIALECT.glancer().failure_frames(Fault(kind="closed", message="cut"))
    (frame,) = SseReader().feed(raw)
    assert frame.data is not None and json.loads(frame.data)["error"]["code"] == 502


def test_usage_of_a_whole_body() -> None:
    one = chunk({"text": "x" * 1000}, reason="STOP", usage=USAGE)
    for raw in (json.dumps(one).encode(), json.dumps([chunk({"text": "x"}), one]).encode()):
        usage = DIALECT.read_usage(raw)
        assert usage is not None and usage.total == 5
    assert DIALECT.read_usage(b"{") is None
    assert DIALECT.read_usage(b"{}") is None


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"totalTokens":"x"}', b'{"totalTokens":-1}'])
def test_a_broken_count_or_list_is_a_fault(raw: bytes) -> None:
    with pytest.raises(FaultError):
        DIALECT.read_count(raw)
    with pytest.raises(FaultError):
        DIALECT.read_models(raw)


def test_both_readers_agree_on_a_failure() -> None:
    raw = body(503, "UNAVAILABLE")
    with pytest.raises(FaultError) as raised:
        DIALECT.read_answer(raw, READ)
    assert raised.value.fault.kind == events_of(sse([json.loads(raw)]))[-1].fault.kind  # type: ignore[union-attr]
