"""Header hygiene: what may cross, in both directions, and nothing else."""

import pytest

from llm_proxy.wire.headers import (
    forwardable_request_headers,
    is_sane_request_id,
    is_valid_header_name,
    is_valid_header_value,
    returnable_response_headers,
)

ALLOW = frozenset({"anthropic-beta", "openai-beta", "user-agent", "x-agent-*"})

NEVER = (
    *("Authorization", "x-api-key", "X-Goog-Api-Key", "api-key", "Cookie", "Cookie2", "Set-Cookie", "Host"),
    *("Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "TE", "Trailer", "Upgrade"),
    *("Proxy-Authorization", "Proxy-Connection", "Proxy-Anything", "Accept-Encoding", "Expect"),
    *("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "X-Stainless-Lang"),
    *("x-goog-api-client", "x-session-id", "x-llm-proxy-upstream-key", "Sec-Fetch-Site"),
)


def test_only_allowed_request_headers_are_forwarded() -> None:
    headers = [
        (b"Anthropic-Beta", b"a,b"),
        (b"openai-beta", b"x"),
        (b"X-Agent-Name", b"cline"),
        (b"X-Other", b"1"),
        (b"anthropic_beta", b"smuggled"),
    ]
    kept = forwardable_request_headers(headers, ALLOW)
    assert kept == [(b"anthropic-beta", b"a,b"), (b"openai-beta", b"x"), (b"x-agent-name", b"cline")]


@pytest.mark.parametrize("name", NEVER)
def test_credentials_cookies_and_framing_stay_behind_even_when_allowed(name: str) -> None:
    for spelled in (name, name.lower(), name.upper(), name.replace("-", "_")):
        allow = frozenset({spelled.lower(), "*"})
        assert forwardable_request_headers([(spelled.encode(), b"canary")], allow) == []


def test_headers_that_connection_names_are_for_one_hop() -> None:
    headers = [
        (b"connection", b"close, Anthropic-Beta"),
        (b"Connection", b"x-agent-name"),
        (b"user-agent", b"u"),
    ]
    headers += [(b"anthropic-beta", b"a"), (b"x-agent-name", b"n")]
    assert forwardable_request_headers(headers, ALLOW) == [(b"user-agent", b"u")]
    answer = [(b"connection", b"retry-after"), (b"retry-after", b"1"), (b"retry-after-ms", b"1000")]
    assert returnable_response_headers(answer) == [(b"retry-after-ms", b"1000")]


@pytest.mark.parametrize(
    "value", ["a\r\nb", "a\nb", "a\rb", "a\0b", "a\x7f", "\u0100", "\u2028", " a", "a\t", "a\x85b"]
)
def test_values_that_would_break_a_header_are_refused(value: str) -> None:
    assert not is_valid_header_value(value)
    raw = value.encode("latin-1", "ignore")
    if raw.decode("latin-1") == value:
        assert forwardable_request_headers([(b"user-agent", raw)], ALLOW) == []


@pytest.mark.parametrize("value", ["", "a", "a b\tc", "caf\xe9", "!~"])
def test_ordinary_values_are_valid(value: str) -> None:
    assert is_valid_header_value(value)


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\n", "é", "a/b"])
def test_names_must_be_tokens(name: str) -> None:
    assert not is_valid_header_name(name)
    assert is_valid_header_name("x-ok_1")


def test_only_retry_rate_limit_and_request_id_headers_are_returned() -> None:
    headers = [
        (b"Retry-After", b"3"),
        (b"retry-after-ms", b"3000"),
        (b"x-should-retry", b"true"),
        (b"x-ratelimit-remaining-tokens", b"7"),
        (b"anthropic-ratelimit-requests-limit", b"9"),
        (b"request-id", b"req_1"),
        (b"x-request-id", b"abc"),
        (b"set-cookie", b"s"),
        (b"server", b"cloudflare"),
        (b"openai-organization", b"org"),
        (b"strict-transport-security", b"max-age=1"),
        (b"content-length", b"1"),
        (b"x-ratelimit-reset", b"a\nb"),
    ]
    assert returnable_response_headers(headers) == [
        (b"retry-after", b"3"),
        (b"retry-after-ms", b"3000"),
        (b"x-should-retry", b"true"),
        (b"x-ratelimit-remaining-tokens", b"7"),
        (b"anthropic-ratelimit-requests-limit", b"9"),
        (b"request-id", b"req_1"),
        (b"x-upstream-request-id", b"abc"),
    ]


def test_a_request_id_is_sane_when_it_is_short_and_plain() -> None:
    assert is_sane_request_id("abc-1._:Z") and is_sane_request_id("a" * 128)
    for bad in ("", "a" * 129, "../x/y", "a b", "a\n", "é", "%2e", "a\0"):
        assert not is_sane_request_id(bad)
