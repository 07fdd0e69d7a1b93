"""Errors of providers in any shape, errors for clients in one, and what agents read in them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.conversation.fault import STATUS, Fault, FaultKind
from llm_proxy.dialects.anthropic_messages import DIALECT
from tests.dialects.anthropic_messages.support import NAME
from tests.support.grammar import check_error_body


def anthropic(kind: str, message: str = "m") -> bytes:
    return json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (400, anthropic("invalid_request_error"), "bad_request", "m"),
        (401, anthropic("authentication_error"), "upstream_auth", "m"),
        (402, anthropic("billing_error"), "billing", "m"),
        (403, anthropic("permission_error"), "upstream_auth", "m"),
        (404, anthropic("not_found_error", "model: x"), "not_found", "model: x"),
        (413, anthropic("request_too_large"), "too_large", "m"),
        (429, anthropic("rate_limit_error"), "rate_limit", "m"),
        (500, anthropic("api_error"), "upstream", "m"),
        (529, anthropic("overloaded_error"), "overloaded", "m"),
        (400, b'{"error":{"message":"m","type":"x","code":"c"}}', "bad_request", "m"),
        (503, b'{"detail":"m"}', "overloaded", "m"),
        (422, b'{"detail":{"message":"m"}}', "bad_request", "m"),
        (400, b'{"error":"m"}', "bad_request", "m"),
        (400, b'[{"error":{"message":"m"}}]', "bad_request", "m"),
        (504, b'{"message":"m"}', "timeout", "m"),
        (500, b"", "upstream", "the provider gave no reason"),
        (500, b"plain words", "upstream", "plain words"),
    ],
)
def test_error_bodies(status: int, body: bytes, kind: FaultKind, message: str) -> None:
    fault = DIALECT.read_error(status, (), body)
    assert (fault.kind, fault.message) == (kind, message)
    assert fault.status_code == (502 if status in (401, 403) else status)


def test_a_web_page_leaves_no_markup() -> None:
    fault = DIALECT.read_error(502, (), b"<html><head><title>Bad Gateway</title></head><body><h1>x</h1></body></html>")
    assert "<" not in fault.message and "Bad Gateway" in fault.message


def test_at_most_500_characters_of_a_message_are_kept() -> None:
    assert len(DIALECT.read_error(400, (), anthropic("invalid_request_error", "x" * 9000)).message) == 500


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Rate limit reached. Please try again in 7s.", 7.0),
        ("Please retry in 12.5s", 12.5),
        ("try again in 1m30s", 90.0),
        ("try again in 250ms", 0.25),
        ("slow down", None),
    ],
)
def test_retry_times_in_the_text(message: str, seconds: float | None) -> None:
    assert DIALECT.read_error(429, (), anthropic("rate_limit_error", message)).retry_after == seconds


def test_retry_info_in_the_details() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "27s"}]
    body = json.dumps({"error": {"code": 429, "message": "quota", "details": details}}).encode()
    assert DIALECT.read_error(429, (), body).retry_after == 27.0


@pytest.mark.parametrize(
    "message",
    [
        "prompt is too long: 210000 tokens > 200000 maximum",
        "input length and `max_tokens` exceed context limit: 190000 + 32000 > 200000",
        "This model's maximum context length is 128000 tokens. However, you requested 130001 tokens.",
        "The input token count (1100000) exceeds the maximum number of tokens allowed (1048576).",
    ],
)
def test_a_full_context_is_recognised_and_worded_so_that_agents_compact(message: str) -> None:
    fault = DIALECT.read_error(400, (), anthropic("invalid_request_error", message))
    assert fault.kind == "context_length"
    written = json.loads(DIALECT.write_error(fault))["error"]
    assert written["type"] == "invalid_request_error"
    assert "prompt is too long" in written["message"] or "exceed context limit" in written["message"]


def test_figures_of_another_provider_are_put_into_anthropics_words() -> None:
    message = "This model's maximum context length is 128,000 tokens. However, you requested 130001 tokens."
    written = json.loads(DIALECT.write_error(Fault(kind="context_length", message=message)))
    assert written["error"]["message"].startswith("prompt is too long: 130001 tokens > 128000 maximum")


_EXPECTED = {
    "bad_request": "invalid_request_error", "validation": "invalid_request_error",
    "auth": "authentication_error",
    "permission": "permission_error", "not_found": "not_found_error", "too_large": "request_too_large",
    "rate_limit": "rate_limit_error", "internal": "api_error", "upstream": "api_error",
    "upstream_auth": "api_error",
    "unavailable": "overloaded_error", "overloaded": "overloaded_error", "timeout": "timeout_error",
    "loop": "invalid_request_error", "billing": "billing_error", "closed": "api_error",
}  # fmt: skip


@pytest.mark.parametrize("kind", list(STATUS))
def test_every_fault_has_the_protocols_shape_and_the_detail(kind: FaultKind) -> None:
    fault = Fault(kind=kind, message="words")
    body = json.loads(DIALECT.write_error(fault, "req_1"))
    assert check_error_body(NAME, fault.status_code, body) == []
    assert body["type"] == "error" and body["request_id"] == "req_1"
    assert body["detail"] == {"code": fault.detail["code"], "message": "words", "details": {}}
    assert body["error"]["type"] == _EXPECTED.get(kind, "invalid_request_error")


def test_the_providers_own_type_is_kept_but_for_its_credentials() -> None:
    conflict = DIALECT.read_error(409, (), anthropic("conflict_error"))
    assert json.loads(DIALECT.write_error(conflict))["error"]["type"] == "conflict_error"
    refused = DIALECT.read_error(401, (), anthropic("authentication_error"))
    assert json.loads(DIALECT.write_error(refused))["error"]["type"] == "api_error"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"success":false,"code":1113,"msg":"x"}', "x"),
        (b'{"error":{"message":"content of \\"content\\""}}', 'content of "content"'),
        (b'{"code":500,"msg":"down"}', "down"),
        (anthropic("api_error"), "m"),
    ],
)
def test_errors_inside_a_200(body: bytes, message: str) -> None:
    fault = DIALECT.error_in_answer(body)
    assert fault is not None and fault.message == message


def test_an_error_inside_a_200_that_names_its_status_keeps_it() -> None:
    fault = DIALECT.error_in_answer(b'{"error":{"message":"slow","code":429}}')
    assert fault is not None and (fault.kind, fault.status_code) == ("rate_limit", 429)


@pytest.mark.parametrize(
    "content",
    [
        [],
        [{"type": "text", "text": 'the "error" was {"error": 1}'}],
        [{"type": "tool_use", "input": {"error": "x"}}],
    ],
)
def test_answers_are_no_errors(content: list[Any]) -> None:
    body = json.dumps({"type": "message", "content": content, "stop_reason": "end_turn"}).encode()
    assert DIALECT.error_in_answer(body) is None
