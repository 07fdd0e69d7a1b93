"""The judge is judged: readers, grammars, request checks and the scripted upstream, without any proxy
between.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from tests.support.casecheck import at, failed_checks, semantic_mismatches
from tests.support.check_oracle import differing, read_all
from tests.support.grammar import check_body, check_error_body, check_stream
from tests.support.requests_check import validate_request
from tests.support.semantic import LOSSES, ErrorSeen, Semantic, ToolCall, Usage, compare
from tests.support.shared import (
    PROTOCOLS,
    Exchange,
    client_requests,
    needs_shared,
    own_exchanges,
    recordings,
    semantics,
)
from tests.support.upstream import (
    Close,
    Endless,
    Hang,
    Moment,
    Pause,
    Reply,
    Reset,
    Send,
    Upstream,
    refusing_url,
    replay,
)

# The SDK's accumulator rejects this recording (its content part is never added); semantics.jsonl holds the
# terminal event.
READ_OTHERWISE = {"openai-responses/reasoning.stream.51eba8143c-0.json"}


def _disagreements(exchanges: tuple[Exchange, ...]) -> dict[str, list[str]]:
    known = semantics()
    found = {}
    for exchange, got, _ in read_all(exchanges):
        wrong = differing(Semantic.from_json(known[exchange.file]["semantic"]), got)
        if wrong:
            found[exchange.file] = wrong
    return found


def test_every_own_exchange_is_read_as_written_down() -> None:
    assert _disagreements(own_exchanges()) == {}


@needs_shared
def test_every_recorded_answer_is_read_as_the_corpus_says() -> None:
    recorded = tuple(e for e in recordings() if e.generates and e.file in semantics())
    assert len(recorded) > 400
    assert set(_disagreements(recorded)) == READ_OTHERWISE


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_own_exchanges_cover_each_protocol(protocol: str) -> None:
    kinds = {kind for e in own_exchanges() if e.protocol == protocol for kind in e.kinds}
    assert {
        "plain",
        "tool-call",
        "parallel-tool-calls",
        "reasoning",
        "structured-output",
        "cache-hit",
    } <= kinds
    assert {"image-input", "tool-results", "citations", "mid-stream-error", "truncated-stream"} <= kinds
    assert {"error-400", "error-401", "error-429", "error-500"} <= kinds


def _form_of(exchange: Exchange) -> list[str]:
    response = exchange.response
    if response.status != 200:
        return check_error_body(exchange.protocol, response.status, response.body)
    if exchange.stream:
        return check_stream(exchange.protocol, response.payload_as_sse)
    return check_body(exchange.protocol, response.body)


@pytest.mark.parametrize("exchange", own_exchanges(), ids=str)
def test_own_answers_have_valid_grammar_unless_broken_on_purpose(exchange: Exchange) -> None:
    problems = _form_of(exchange)
    if "unicode" in exchange.file:
        assert problems and all("U+2028" in problem for problem in problems)
    elif "truncated-stream" in exchange.kinds:
        assert problems
    else:
        assert problems == []


@pytest.mark.parametrize("exchange", own_exchanges(), ids=str)
def test_own_requests_are_valid(exchange: Exchange) -> None:
    assert validate_request(exchange.protocol, exchange.request.body, exchange.request.path, emitted=True) == []


@needs_shared
def test_requests_of_real_clients_are_valid_but_for_named_fields() -> None:
    # Codex replays message ids on items without a status, which the SDK's type for short messages does not
    # know.
    invalid = {
        request.client
        for request in client_requests()
        if request.protocol is not None
        and request.method == "POST"
        and validate_request(request.protocol, request.body, request.path)
    }
    assert invalid <= {"codex"}


@needs_shared
@pytest.mark.parametrize(
    ("protocol", "least"), [("anthropic-messages", 0.97), ("gemini", 0.9), ("openai-responses", 0.75)]
)
def test_clean_providers_pass_the_strict_grammar(protocol: str, least: float) -> None:
    answered = [e for e in recordings() if e.protocol == protocol and e.generates and e.response.status == 200]
    passed = [e for e in answered if e.response.text is None and not _form_of(e)]
    assert len(passed) / len(answered) >= least


# Comparing.


HELLO = Semantic(text="Hello", stop="stop", usage=Usage(input=10, output=5, cache_read=2))


@pytest.mark.parametrize(
    ("expected", "got", "field"),
    [
        (HELLO, replace(HELLO, text="Hell"), "text"),
        (HELLO, replace(HELLO, thinking="hm"), "thinking"),
        (HELLO, replace(HELLO, stop="length"), "stop"),
        (HELLO, replace(HELLO, tool_calls=(ToolCall("f", {}),)), "tool_calls"),
        (HELLO, replace(HELLO, usage=replace(HELLO.usage, input=8)), "usage.input"),
        (HELLO, replace(HELLO, usage=replace(HELLO.usage, cache_read=None)), "usage.cache_read"),
        (HELLO, replace(HELLO, stop="error", error=ErrorSeen("broken", 500, "api_error")), "error"),
        (
            replace(HELLO, tool_calls=(ToolCall("f", {"a": 1}),), stop="tool_use"),
            replace(HELLO, stop="tool_use"),
            "tool_calls",
        ),
    ],
)
@pytest.mark.parametrize("target", PROTOCOLS)
def test_a_changed_meaning_is_a_difference_in_every_protocol(
    expected: Semantic, got: Semantic, field: str, target: str
) -> None:
    for source in PROTOCOLS:
        if field == "thinking" and source == "openai-chat" != target:
            continue  # thinking-of-details: the Chat SDK does not show every dialect's thinking
        assert field in {d.field for d in compare(expected, got, source, target)}  # type: ignore[arg-type]


def test_documented_losses_are_allowed_only_across_protocols() -> None:
    expected = replace(HELLO, stop="stop_sequence")
    assert compare(expected, HELLO, "anthropic-messages", "openai-chat") == []
    assert [d.field for d in compare(expected, HELLO, "anthropic-messages", "anthropic-messages")] == ["stop"]


def test_a_cut_stream_must_be_an_error_for_the_client() -> None:
    cut = replace(HELLO, stop=None)
    differences = compare(cut, HELLO, "openai-chat", "anthropic-messages", kinds=("truncated-stream",))
    assert {"stop", "error"} <= {d.field for d in differences}
    failed = replace(HELLO, stop="error", error=ErrorSeen("upstream closed", None, "api_error"))
    assert compare(cut, failed, "openai-chat", "anthropic-messages", kinds=("truncated-stream",)) == []


def test_the_gateways_own_key_failing_must_not_look_like_the_clients() -> None:
    refused = Semantic(stop="error", error=ErrorSeen("invalid x-api-key", 401, "authentication_error"))
    as_is = Semantic(stop="error", error=ErrorSeen("invalid x-api-key", 401, "invalid_request_error"))
    own = Semantic(stop="error", error=ErrorSeen("the provider refused the key", 502, "server_error"))
    assert "error.status" in {d.field for d in compare(refused, as_is, "anthropic-messages", "openai-chat")}
    assert compare(refused, own, "anthropic-messages", "openai-chat") == []


def test_every_loss_says_where_it_is_documented() -> None:
    assert all(loss.section and loss.reason and loss.fields for loss in LOSSES)


# The check language.


def test_paths_and_checks_of_cases() -> None:
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]}
    assert at(body, "messages[0].content[1].text") == "b"
    good: list[Mapping[str, Any]] = [
        {"path": "messages", "len": 1},
        {"path": "messages[0]", "text_eq": "ab"},
        {"path": "messages[0].name", "absent": True},
        {"path": "messages[0].content", "has_part": {"type": "text"}},
        {"path": "messages[0].content", "no_part": {"type": "image"}},
        {"path": "messages[0].content[0].type", "same_as": "messages[0].content[1].type"},
        {"any_role": "user", "contains": "b"},
        {"path": "messages[0]", "no_empty_text": True},
        {"nowhere": "cache_control_null"},
    ]
    assert failed_checks(good, body=body) == []
    bad: list[Mapping[str, Any]] = [
        {"path": "messages", "len": 2},
        {"path": "nothing", "eq": 1},
        {"path": "messages[0].content", "absent": True},
    ]
    assert len(failed_checks(bad, body=body)) == 3
    assert semantic_mismatches({"text": "Hello", "usage": {"input": 10}}, HELLO) == []
    assert len(semantic_mismatches({"text": "Bye", "error": True}, HELLO)) == 2


# The scripted upstream.


@asynccontextmanager
async def _talk(upstream: Upstream, request: bytes) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
    writer.write(request)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionResetError):
            await writer.wait_closed()


GET = b"GET /a%20b?x=1 HTTP/1.1\r\nHost: h\r\nX-Odd: 1\r\n\r\n"
POST = b"POST /v1/messages HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
TWO_CHUNKS = b"9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n0\r\n\r\n"


async def test_upstream_keeps_connections_and_records_requests() -> None:
    async with Upstream([Reply(body=b"one"), Reply.sse(b"data: 1\n\n", b"data: 2\n\n")]) as upstream:
        async with _talk(upstream, GET) as (reader, writer):
            assert b"content-length: 3" in await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(3) == b"one"
            writer.write(POST)
            assert b"transfer-encoding: chunked" in await reader.readuntil(b"\r\n\r\n")
            assert await reader.readuntil(b"0\r\n\r\n") == TWO_CHUNKS
            first, second = upstream.requests
            assert (first.path, first.query, first.header("x-odd")) == ("/a b", {"x": "1"}, "1")
            assert (second.body, second.connection) == (b"abc", first.connection)
        await second.closed


async def test_upstream_breaks_as_told() -> None:
    script = [
        Reply(steps=(Send(b"ab"), Close())),
        Reply(before=(Reset(),)),
        Reply(body=b"ab", declared_length=9, after=(Close(),)),
        Reply(raw=True, body=b"junk"),
    ]
    async with Upstream(script) as upstream:
        async with _talk(upstream, GET) as (reader, _):
            assert (await reader.read()).endswith(b"2\r\nab\r\n")
        async with _talk(upstream, GET) as (reader, _):
            with pytest.raises(ConnectionResetError):
                await reader.read()
        async with _talk(upstream, GET) as (reader, _):
            assert b"content-length: 9" in await reader.read()
        async with _talk(upstream, GET) as (reader, _):
            assert await reader.read() == b"junk"
        async with _talk(upstream, GET) as (reader, _):
            assert (await reader.readline()).startswith(b"HTTP/1.1 599")
        assert upstream.unscripted == 1


async def test_upstream_knows_when_the_peer_left() -> None:
    never = Moment()
    async with Upstream(Reply(steps=(Send(b"a"), Pause(never), Hang()))) as upstream:
        async with _talk(upstream, GET) as (reader, _):
            await reader.readuntil(b"a\r\n")
            assert not upstream.requests[0].closed.happened
        await upstream.requests[0].closed
        assert not upstream.requests[0].answered.happened


async def test_upstream_measures_what_a_peer_that_reads_nothing_lets_it_send() -> None:
    async with Upstream(Reply(steps=(Endless(b"x" * 4096),)), send_buffer=8192) as upstream:
        with socket.socket() as small:
            small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            small.connect(("127.0.0.1", upstream.port))
            small.sendall(GET)
            await upstream.arrival()
            request = upstream.requests[0]
            before, now = -1, 0
            while now == 0 or now != before:
                await asyncio.sleep(0.02)
                before, now = now, upstream.sent_to(request)
            assert 0 < now < 8 << 20
        await request.closed


def test_nothing_listens_where_refusal_is_wanted() -> None:
    port = int(refusing_url().rsplit(":", 1)[1])
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", port))


def test_a_replay_can_be_cut_at_will_and_loses_nothing() -> None:
    streams = [exchange for exchange in own_exchanges() if exchange.response.sse is not None]
    for exchange in streams:
        for cut in (1, 7, [5, 1, 100]):
            steps = replay(exchange, cut=cut).steps or ()
            assert b"".join(step.data for step in steps if isinstance(step, Send)) == exchange.response.payload
