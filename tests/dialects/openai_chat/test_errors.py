"""FE-11, BE-06: errors of providers in every known shape, and the shape that Chat clients read."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.conversation.fault import Fault, FaultKind
from llm_proxy.dialects.openai_chat import DIALECT
from tests.dialects.openai_chat.support import NAME
from tests.support.grammar import check_error_body


def fault(status: int, body: Any) -> Fault:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return DIALECT.read_error(status, (), raw)


@pytest.mark.parametrize(
    ("status", "body", "kind", "shown"),
    [
        (
            400,
            {"error": {"message": "bad", "type": "invalid_request_error", "param": "x"}},
            "bad_request",
            400,
        ),
        (422, {"detail": [{"loc": ["body", "model"], "msg": "Field required"}]}, "bad_request", 422),
        (401, {"error": {"message": "wrong", "code": "invalid_api_key"}}, "upstream_auth", 502),
        (403, {"error": "no"}, "upstream_auth", 502),
        (404, {"error": {"message": "no model", "code": "model_not_found"}}, "not_found", 404),
        (402, {"error": {"message": "pay", "code": 402}}, "billing", 402),
        (429, {"error": {"message": "slow", "code": "rate_limit_exceeded"}}, "rate_limit", 429),
        (429, {"error": {"message": "x", "code": "insufficient_quota"}}, "billing", 429),
        (429, {"message": "You exceeded your current quota, check your plan"}, "billing", 429),
        (500, {"error": {"message": "The engine is overloaded", "type": "server_error"}}, "overloaded", 500),
        (500, {"error": {"message": "x"}}, "upstream", 500),
        (503, [{"error": {"code": 503, "message": "x", "status": "UNAVAILABLE"}}], "overloaded", 503),
        (529, {"error": {"message": "x"}}, "overloaded", 529),
        (504, b"", "timeout", 504),
        (413, {"error": {"message": "too big"}}, "too_large", 413),
        (400, {"error": {"message": "x", "code": "context_length_exceeded"}}, "context_length", 400),
        (
            400,
            {"object": "error", "message": "This model's maximum context length is 5 tokens"},
            "context_length",
            400,
        ),
        (413, {"error": {"message": "prompt is too long: 5 tokens > 3 maximum"}}, "context_length", 400),
        (
            400,
            {"error": {"message": "prompt too long; exceeded max context length by 9 tokens"}},
            "context_length",
            400,
        ),
    ],
)
def test_the_kind_and_status_of_an_error(status: int, body: Any, kind: str, shown: int) -> None:
    found = fault(status, body)
    assert (found.kind, found.status_code, found.side) == (kind, shown, "upstream")
    assert found.message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "words"}}, "words"),
        ({"error": "words"}, "words"),
        ({"detail": "words"}, "words"),
        ({"message": "words"}, "words"),
        ({"msg": "words", "success": False}, "words"),
        ({"object": "error", "message": "words"}, "words"),
        ({"code": "x", "error": "words"}, "words"),
        ([{"error": {"message": "words"}}], "words"),
        ({"error": {"message": "outer", "metadata": {"raw": "inner"}}}, "outer: inner"),
        ({"detail": [{"loc": ["body", "a"], "msg": "words"}]}, "body.a: words"),
    ],
)
def test_the_words_are_found_in_any_shape(body: Any, message: str) -> None:
    assert fault(400, body).message == message


def test_html_leaves_no_markup() -> None:
    page = b"<html><head><title>502 Bad Gateway</title></head><body><h1>x</h1></body></html>"
    found = fault(502, page)
    assert "<" not in found.message and "502 Bad Gateway" in found.message
    assert found.status_code == 502


def test_messages_are_short_and_hold_no_keys() -> None:
    found = fault(400, {"error": {"message": "key sk-abcdef123456 and Bearer abcdefghijkl are wrong " + "x" * 900}})
    assert "abcdef" not in found.message and len(found.message) <= 500


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ({"error": {"message": "Please try again in 1.4s."}}, 1.4),
        ({"error": {"message": "Please retry in 12.5s."}}, 12.5),
        ({"error": {"message": "Try again in 6m0s"}}, 360.0),
        ({"error": {"message": "try again in 850ms"}}, 0.85),
        ({"error": {"message": "retry after 20 seconds"}}, 20.0),
        ({"error": {"message": "try again later"}}, None),
        ({"error": {"message": "x", "retry_after": 7}}, 7.0),
        ([{"error": {"message": "x", "details": [{"@type": "RetryInfo", "retryDelay": "27s"}]}}], 27.0),
    ],
)
def test_the_time_to_wait_is_read_from_the_body(body: Any, seconds: float | None) -> None:
    assert fault(429, body).retry_after == seconds


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"success": False, "code": 1113, "msg": "x"}, "upstream"),
        ({"error": {"message": "upstream overloaded", "code": 502}}, "overloaded"),
        ({"error": {"message": "slow down", "code": 429}}, "rate_limit"),
        ({"object": "error", "message": "x", "code": 400}, "bad_request"),
        ({"choices": [], "error": {"message": "x", "code": 500}}, "upstream"),
        (b"<!doctype html><title>Login</title>", "upstream"),
        (b"", "upstream"),
        (b"[broken", "upstream"),
        (b"{", "upstream"),
        (b"{}", "upstream"),
        (b"[]", "upstream"),
        (b"null", "upstream"),
        (b'{"choices":[{"message":{"content":"cut o', "upstream"),
    ],
)
def test_an_error_inside_a_200_is_found_by_a_cheap_look(body: Any, kind: str) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = DIALECT.error_in_answer(raw)
    assert found is not None and found.kind == kind and found.status_code >= 400


@pytest.mark.parametrize(
    "body",
    [
        {"id": "x", "choices": [{"message": {"content": '{"error": 1}'}}]},
        {"choices": [], "error": None},
        {"object": "list", "data": []},
        {"code": 200, "choices": []},
    ],
)
def test_an_answer_is_no_error(body: Any) -> None:
    assert DIALECT.error_in_answer(json.dumps(body).encode()) is None


# ---- writing


@pytest.mark.parametrize("kind", get_args(FaultKind))
def test_every_fault_has_the_protocols_shape_and_the_proxys_detail(kind: FaultKind) -> None:
    given_fault = Fault(kind=kind, message="words", details={"a": 1})
    body = json.loads(DIALECT.write_error(given_fault))
    assert check_error_body(NAME, given_fault.status_code, body) == []
    assert body["error"]["message"] == "words"
    assert body["detail"] == {"code": given_fault.detail["code"], "message": "words", "details": {"a": 1}}


@pytest.mark.parametrize(
    ("given_fault", "error_type", "code"),
    [
        (Fault(kind="bad_request", message="m", param="x"), "invalid_request_error", None),
        (Fault(kind="validation", message="m"), "invalid_request_error", None),
        (Fault(kind="context_length", message="m"), "invalid_request_error", "context_length_exceeded"),
        (Fault(kind="auth", message="m"), "invalid_request_error", "invalid_api_key"),
        (
            Fault(kind="upstream_auth", message="m", upstream_code="invalid_api_key", origin=NAME),
            "server_error",
            None,
        ),
        (Fault(kind="permission", message="m"), "request_forbidden", None),
        (Fault(kind="not_found", message="m", param="model"), "invalid_request_error", "model_not_found"),
        (Fault(kind="rate_limit", message="m"), "rate_limit_error", "rate_limit_exceeded"),
        (Fault(kind="internal", message="m"), "server_error", None),
        (Fault(kind="timeout", message="m"), "server_error", None),
        (Fault(kind="loop", message="m"), "invalid_request_error", None),
        (
            Fault(kind="bad_request", message="m", upstream_code="unsupported_value", origin=NAME),
            "invalid_request_error",
            "unsupported_value",
        ),
        (
            Fault(kind="bad_request", message="m", upstream_code="x", origin="gemini"),
            "invalid_request_error",
            None,
        ),
    ],
)
def test_types_and_codes(given_fault: Fault, error_type: str, code: str | None) -> None:
    error = json.loads(DIALECT.write_error(given_fault))["error"]
    assert (error["type"], error["code"], error["param"]) == (error_type, code, given_fault.param or None)


def test_an_error_survives_the_way_through_this_dialect() -> None:
    first = fault(429, {"error": {"message": "slow", "type": "tokens", "param": None, "code": "rate_limit_exceeded"}})
    again = DIALECT.read_error(429, (), DIALECT.write_error(first))
    assert (again.kind, again.message, again.upstream_code) == ("rate_limit", "slow", "rate_limit_exceeded")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "error",
                    "message",
                    "code",
                    "type",
                    "detail",
                    "details",
                    "metadata",
                    "raw",
                    "param",
                    "status",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=90, deadline=None)
@given(st.integers(200, 599), st.binary(max_size=50) | JSON.map(lambda value: json.dumps(value).encode()))
def test_reading_an_error_never_raises(status: int, body: bytes) -> None:
    found = DIALECT.read_error(status, (), body)
    assert found.message and 400 <= found.status_code <= 599
    DIALECT.error_in_answer(body)
    assert check_error_body(NAME, found.status_code, json.loads(DIALECT.write_error(found))) == []
