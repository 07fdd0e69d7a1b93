"""What providers do wrong, and what the client gets: before the first content event an error answer or the next attempt, after it the
protocol's in-stream error, never a silent end (reliability.md, U rows; FE-10, BE-06, RT-09).
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.e2e.asking import protocol_of
from tests.faults.stage import PATIENCE, Answer, Stage, deltas, ending, request_bytes, stage, whole
from tests.support import grammar
from tests.support.proxy import BACKEND_OF
from tests.support.shared import PROTOCOLS, Protocol
from tests.support.upstream import Close, Hang, Raw, Received, Reply, Reset, Send, refusing_url

_NUMBERS = itertools.count()
PAIRS = [(client, back) for client in PROTOCOLS for back in PROTOCOLS]
MIXED: list[tuple[Protocol, Protocol]] = [
    ("openai-chat", "openai-chat"),
    ("openai-responses", "openai-chat"),
    ("anthropic-messages", "gemini"),
    ("gemini", "anthropic-messages"),
    ("anthropic-messages", "anthropic-messages"),
    ("openai-chat", "openai-responses"),
    ("gemini", "gemini"),
    ("openai-responses", "openai-responses"),
]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def running() -> AsyncIterator[Stage]:
    config: dict[str, Any] = {
        "backends": {
            "gone": {"type": "openai", "base_url": f"{refusing_url()}/v1", "no_auth": True},
            "nowhere": {"type": "openai", "base_url": "http://no-such-host.invalid/v1", "no_auth": True},
        }
    }
    async with stage(None, "--timeout", "2", "--connect-timeout", "1", config=config) as made:
        yield made


pytestmark = pytest.mark.asyncio(loop_scope="module")


def unique() -> str:
    """A model name of its own, so that no cooldown of an earlier test counts."""
    return f"m{next(_NUMBERS)}"


def assert_error(client: Protocol, answer: Answer, *statuses: int, verbatim: bool = False) -> str:
    """An error answer in the client's protocol with one of `statuses`; gives its message.

    `verbatim`: the provider's own body in the client's protocol, passed on byte for byte, may be the answer.
    """
    assert answer.status in statuses, answer.body
    assert grammar.check_error_body(client, answer.status, answer.json) == []
    if verbatim and "detail" not in answer.json:
        return str(answer.json["error"]["message"])
    assert answer.json["detail"]["message"]
    return str(answer.json["detail"]["message"])


def assert_broken_stream(client: Protocol, answer: Answer) -> None:
    """A stream that says in its protocol that it failed, and ends in order without claiming success."""
    assert answer.status == 200
    assert answer.complete
    text = answer.body.decode()
    assert "w2 " in text
    match client:
        case "openai-chat":
            assert '"error"' in text
            assert "[DONE]" not in text and '"finish_reason":"stop"' not in text
        case "openai-responses":
            assert "response.failed" in text and "response.completed" not in text
        case "anthropic-messages":
            assert "event: error" in text and "message_stop" not in text
        case "gemini":
            assert '"error"' in text and "STOP" not in text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("client", PROTOCOLS)
async def test_u01_refused_and_unknown_hosts_are_503_without_addresses(
    running: Stage, client: Protocol, stream: bool
) -> None:
    for backend in ("gone", "nowhere"):
        answer = await running.ask(client, "openai-chat", stream, unique(), backend=backend)
        message = assert_error(client, answer, 502, 503)
        assert "127.0.0.1" not in answer.body.decode()
        assert backend in message


async def each_at_once(running: Stage) -> list[tuple[str, Protocol, Answer]]:
    """What a streamed request of each pair gets, all sent together: what is measured is a wait. The pair, the client's protocol, the answer."""
    answers = await asyncio.gather(*(running.ask(client, back, True, unique()) for client, back in MIXED))
    return [(f"{client} to {back}", client, answer) for (client, back), answer in zip(MIXED, answers, strict=True)]


async def test_u03_an_upstream_that_never_answers_is_a_timeout(running: Stage) -> None:
    running.play(Reply(before=[Hang()]))
    problems = []
    for pair, client, answer in await each_at_once(running):
        try:
            assert_error(client, answer, 504)
        except AssertionError as error:
            problems.append(f"{pair}: {error}")
    assert not problems, "\n".join(problems)
    calls = running.upstream.requests
    assert len(calls) >= len(MIXED)
    await asyncio.wait_for(asyncio.gather(*(call.closed for call in calls)), PATIENCE)


async def test_u04_a_stale_pooled_connection_is_replaced_unseen(running: Stage) -> None:
    """The upstream closes each connection after its answer without saying so; no client notices."""
    running.play(
        Reply(
            headers=[("content-type", "application/json")],
            body=json.dumps(whole("openai-chat")).encode(),
            after=[Close()],
        )
    )
    model = unique()
    for _ in range(30):
        assert (await running.ask("openai-chat", "openai-chat", False, model)).status == 200


@pytest.mark.parametrize("cut", [Reset(), Close()])
@pytest.mark.parametrize(("client", "back"), PAIRS)
async def test_u05_a_stream_cut_after_content_is_an_error_in_the_stream(
    running: Stage, client: Protocol, back: Protocol, cut: Reset | Close
) -> None:
    running.play(Reply.sse(*deltas(back), cut))
    assert_broken_stream(client, await running.ask(client, back, True, unique()))
    assert len(running.upstream.requests) == 1  # nothing is tried again after content


@pytest.mark.parametrize(("client", "back"), MIXED)
async def test_u05_a_stream_that_ends_in_order_but_too_early_is_an_error(
    running: Stage, client: Protocol, back: Protocol
) -> None:
    running.play(Reply.sse(*deltas(back)))
    if back == "gemini" and client == "gemini":
        # Gemini has no end mark but its finish reason, which is missing here.
        pass
    assert_broken_stream(client, await running.ask(client, back, True, unique()))


async def test_u06_a_stall_in_the_middle_is_an_error_in_the_stream(running: Stage) -> None:
    scripts = {back: Reply.sse(*deltas(back), Hang()) for back in PROTOCOLS}
    running.play(lambda request: scripts[protocol_of(request)])
    problems = []
    for pair, client, answer in await each_at_once(running):
        try:
            assert_broken_stream(client, answer)
        except AssertionError as error:
            problems.append(f"{pair}: {error}")
    assert not problems, "\n".join(problems)
    assert len(running.upstream.requests) == len(MIXED)


@pytest.mark.parametrize(
    "broken",
    [
        Reply(
            headers=[("content-type", "application/json")],
            body=b'{"id": "half',
            declared_length=500,
            after=[Close()],
        ),
        Reply(headers=[("content-type", "application/json")], steps=[Send(b'{"id"'), Raw(b"ZZZ\r\n"), Close()]),
        Reply(
            headers=[("content-type", "application/json")],
            steps=[Send(b'{"id"')],
            last_chunk=False,
            after=[Close()],
        ),
    ],
    ids=["short Content-Length", "wrong chunk size", "missing last chunk"],
)
@pytest.mark.parametrize("client", PROTOCOLS)
async def test_u07_broken_framing_is_a_bad_gateway(running: Stage, client: Protocol, broken: Reply) -> None:
    running.play(broken)
    assert_error(client, await running.ask(client, client, False, unique()), 502)


@pytest.mark.parametrize(("client", "back"), MIXED)
@pytest.mark.parametrize("size", [1, 7])
async def test_u08_the_answer_does_not_depend_on_how_it_is_cut(
    running: Stage, client: Protocol, back: Protocol, size: int
) -> None:
    frames = b"".join([*deltas(back), *ending(back)])
    running.play(Reply.sse(frames))
    at_once = await running.ask(client, back, True, unique())
    running.play(Reply.sse(*(frames[at : at + size] for at in range(0, len(frames), size))))
    in_pieces = await running.ask(client, back, True, unique())
    assert at_once.status == in_pieces.status == 200
    assert text_of(client, in_pieces) == text_of(client, at_once) == "w0 w1 w2 "
    if client != back:
        assert grammar.check_stream(client, in_pieces.body, usage_asked=None) == []


def text_of(client: Protocol, answer: Answer) -> str:
    out = []
    for _, event in grammar.events_of(client, answer.body):
        if not isinstance(event, dict):
            continue
        match client:
            case "openai-chat":
                out += [choice["delta"].get("content") or "" for choice in event.get("choices", [])]
            case "openai-responses":
                out.append(event["delta"] if event["type"] == "response.output_text.delta" else "")
            case "anthropic-messages":
                out.append(event.get("delta", {}).get("text", ""))
            case "gemini":
                out += [part.get("text", "") for part in event["candidates"][0]["content"]["parts"]]
    return "".join(out)


@pytest.mark.parametrize("ends", [b"\r\n", b"\r", b"\n"], ids=["CRLF", "CR", "LF"])
@pytest.mark.parametrize("client", PROTOCOLS)
async def test_u09_line_ends_comments_and_separators_inside_text(running: Stage, client: Protocol, ends: bytes) -> None:
    odd = "a\u2028b\u2029c\u0085d\u000be"
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
             "choices": [{"index": 0, "delta": {"role": "assistant", "content": odd}, "finish_reason": None}]}  # fmt: skip
    frames = (
        b"\xef\xbb\xbf: hello\n\nid: 7\nretry: 10\ndata:" + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"
    )
    frames += b"".join(ending("openai-chat"))[:-1]  # a missing final blank line
    running.play(Reply.sse(frames.replace(b"\n", ends)))
    answer = await running.ask(client, "openai-chat", True, unique())
    assert answer.status == 200
    if client != "openai-chat":
        assert text_of(client, answer) == odd
        assert "\u2028" not in answer.body.decode()


@pytest.mark.parametrize(("client", "back"), [pair for pair in MIXED if pair[0] != pair[1]])
async def test_u10_invalid_utf8_is_replaced_and_raises_nothing(
    running: Stage, client: Protocol, back: Protocol
) -> None:
    frames = [frame.replace(b"w1", b"w\xff\xfe1") for frame in deltas(back)]
    running.play(Reply.sse(*frames, *ending(back)))
    answer = await running.ask(client, back, True, unique())
    assert answer.status == 200
    assert answer.complete
    answer.body.decode()


async def test_u11_a_giant_line_is_a_fault_and_not_memory(running: Stage) -> None:
    running.play(Reply.sse(b"data: ", *([b"x" * 65536] * 160)))
    assert_error("anthropic-messages", await running.ask("anthropic-messages", "openai-chat", True, unique()), 502)


@pytest.mark.parametrize(("client", "back"), [pair for pair in MIXED if pair[0] != pair[1]])
async def test_u12_a_broken_event_is_skipped_and_the_rest_is_delivered(
    running: Stage, client: Protocol, back: Protocol
) -> None:
    first, *others = deltas(back)
    running.play(
        Reply.sse(first, b'data: {"broken\n\n', b"data: no json\n\n", *others, *ending(back), *ending(back)[-1:])
    )
    answer = await running.ask(client, back, True, unique())
    assert answer.status == 200
    assert text_of(client, answer) == "w0 w1 w2 "


async def test_u13_gzip_is_opened_a_bomb_is_not_and_others_are_faults(running: Stage) -> None:
    body = json.dumps(whole("openai-chat")).encode()
    json_type = ("content-type", "application/json")
    running.play(Reply(headers=[json_type, ("content-encoding", "gzip")], body=gzip.compress(body)))
    assert (await running.ask("openai-chat", "openai-chat", False, unique())).json["choices"][0]["message"][
        "content"
    ] == "fine"
    running.play(Reply(headers=[json_type, ("content-encoding", "gzip")], body=gzip.compress(b" " * 30_000_000)))
    assert_error("openai-chat", await running.ask("openai-chat", "openai-chat", False, unique()), 502)
    running.play(Reply(headers=[json_type, ("content-encoding", "br")], body=body))
    assert_error("openai-chat", await running.ask("openai-chat", "openai-chat", False, unique()), 502)


HTML = b"<html><head><title>502 Bad Gateway</title></head><body><h1>Bad Gateway</h1>nginx</body></html>"


@pytest.mark.parametrize("status", [200, 502, 503])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("client", PROTOCOLS)
async def test_u14_an_html_page_is_an_error_without_markup(
    running: Stage, client: Protocol, stream: bool, status: int
) -> None:
    running.play(Reply(status=status, headers=[("content-type", "text/html")], body=HTML))
    answer = await running.ask(client, client, stream, unique())
    assert_error(client, answer, 502, 503, 529)
    assert "<" not in answer.json["detail"]["message"]


@pytest.mark.parametrize("body", [b"", b"all is well"], ids=["empty", "plain text"])
@pytest.mark.parametrize("client", PROTOCOLS)
async def test_u14_a_200_that_is_no_answer_is_a_bad_gateway(running: Stage, client: Protocol, body: bytes) -> None:
    running.play(Reply(headers=[("content-type", "text/plain")], body=body))
    assert_error(client, await running.ask(client, client, False, unique()), 502)


@pytest.mark.parametrize(("client", "back"), MIXED)
async def test_u14_json_with_a_wrong_content_type_is_read_all_the_same(
    running: Stage, client: Protocol, back: Protocol
) -> None:
    running.play(Reply(headers=[("content-type", "text/plain")], body=json.dumps(whole(back)).encode()))
    for stream in (False, True):
        answer = await running.ask(client, back, stream, unique())
        assert answer.status == 200
        assert b"fine" in answer.body


@pytest.mark.parametrize("status", [204, 205, 304])
async def test_u15_a_status_without_an_answer_is_a_bad_gateway(running: Stage, status: int) -> None:
    running.play(Reply(status=status))
    assert_error("openai-chat", await running.ask("openai-chat", "openai-chat", False, unique()), 502)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_u16_redirects_are_never_followed(running: Stage, status: int) -> None:
    running.play(Reply(status=status, headers=[("location", f"{running.upstream.url}/v1/elsewhere")]))
    assert_error("openai-chat", await running.ask("openai-chat", "openai-chat", False, unique()), 502)
    assert len(running.upstream.requests) == 1


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ([("retry-after", "9")], range(8, 10)),
        ([("retry-after-ms", "2500")], range(2, 4)),
        ([("x-ratelimit-reset-requests", "6m0s")], range(358, 361)),
        ([("retry-after", "soon")], range(1, 3)),
        ([], range(1, 3)),
    ],
)
@pytest.mark.parametrize("client", PROTOCOLS)
async def test_u17_a_limit_reaches_the_client_with_the_time_that_is_left(
    running: Stage, client: Protocol, headers: list[tuple[str, str]], wait: range
) -> None:
    running.play(
        Reply.json(
            {"error": {"message": "slow down", "type": "rate_limit_error", "param": None, "code": None}},
            status=429,
            headers=headers,
        )
    )
    model = unique()
    answer = await running.ask(client, "openai-chat", True, model)
    assert_error(client, answer, 429, verbatim=True)
    assert int(answer.headers["retry-after"]) in wait
    again = await running.ask(client, "openai-chat", True, model)
    assert again.status == 429
    assert len(running.upstream.requests) == 1  # the key is left alone


@pytest.mark.parametrize("client", PROTOCOLS)
async def test_u18_an_overload_keeps_its_meaning_and_the_key_stays_usable(running: Stage, client: Protocol) -> None:
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    running.play([Reply.json(overloaded, status=529), Reply.json(whole("anthropic-messages"))])
    model = unique()
    answer = await running.ask(client, "anthropic-messages", False, model)
    assert answer.status == (529 if client == "anthropic-messages" else 503)
    assert (await running.ask(client, "anthropic-messages", False, model)).status == 200


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("client", PROTOCOLS)
async def test_u19_a_refused_provider_key_is_a_502_that_names_the_back_end(
    running: Stage, client: Protocol, status: int
) -> None:
    running.play(Reply.json({"error": {"message": "Incorrect API key provided: sk-secret"}}, status=status))
    answer = await running.ask(client, "openai-chat", False, unique())
    assert_error(client, answer, 502)
    assert answer.json["detail"]["code"] == "up-chat_credentials_invalid"
    assert "sk-secret" not in answer.body.decode()
    await clear_cooldowns(running)


async def clear_cooldowns(running: Stage) -> None:
    connection = await running.client()
    await connection.send(
        b"DELETE /internal/cooldowns HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer test-client-key\r\n\r\n"
    )
    assert (await connection.read_answer()).status == 200
    connection.close()


@pytest.mark.parametrize("client", PROTOCOLS)
async def test_u19_a_context_that_is_too_long_is_a_400_in_the_clients_words(running: Stage, client: Protocol) -> None:
    error = {
        "message": "This model's maximum context length is 8192 tokens.",
        "type": "invalid_request_error",
        "code": "context_length_exceeded",
    }
    running.play(Reply.json({"error": error}, status=400))
    answer = await running.ask(client, "openai-chat", False, unique())
    assert answer.status == 400
    if client == "anthropic-messages":
        assert answer.json["error"]["message"].startswith("prompt is too long")
    elif client in ("openai-chat", "openai-responses"):
        assert answer.json["error"]["code"] == "context_length_exceeded"


def stream_error(back: Protocol) -> bytes:
    """The in-stream error of a protocol."""
    match back:
        case "openai-chat":
            return b'data: {"error":{"message":"backend exploded","type":"server_error","code":null}}\n\n'
        case "openai-responses":
            failed = {"type": "response.failed", "sequence_number": 50, "response": {
                "id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": "failed", "output": [],
                "error": {"code": "server_error", "message": "backend exploded"}, "parallel_tool_calls": True,
                "tool_choice": "auto", "tools": []}}  # fmt: skip
            return b"event: response.failed\ndata: " + json.dumps(failed).encode() + b"\n\n"
        case "anthropic-messages":
            return b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"backend exploded"}}\n\n'
        case "gemini":
            return b'data: {"error":{"code":500,"message":"backend exploded","status":"INTERNAL"}}\r\n\r\n'


@pytest.mark.parametrize(("client", "back"), PAIRS)
async def test_u20_an_error_before_content_is_an_http_error(running: Stage, client: Protocol, back: Protocol) -> None:
    running.play(Reply.sse(stream_error(back)))
    answer = await running.ask(client, back, True, unique())
    assert answer.status >= 500
    assert "backend exploded" in answer.body.decode()


@pytest.mark.parametrize(("client", "back"), PAIRS)
async def test_u20_an_error_after_content_is_an_error_in_the_stream(
    running: Stage, client: Protocol, back: Protocol
) -> None:
    running.play(Reply.sse(*deltas(back), stream_error(back)))
    answer = await running.ask(client, back, True, unique())
    assert_broken_stream(client, answer)
    assert "backend exploded" in answer.body.decode()


@pytest.mark.parametrize("stream", [False, True])
async def test_u20_an_error_in_a_200_moves_on_to_the_next_key(stream: bool) -> None:
    """Two keys: the first meets an error inside a 200, the second answers; the client sees no trace (RT-09)."""

    def by_key(request: Received) -> Reply:
        if request.header("authorization") == "Bearer key-one":
            return (
                Reply.sse(stream_error("openai-chat"))
                if stream
                else Reply.json({"error": {"message": "backend exploded"}})
            )
        return Reply.sse(*deltas("openai-chat"), *ending("openai-chat")) if stream else Reply.json(whole("openai-chat"))

    async with stage(by_key) as first:
        config = {"backends": {"two": {"type": "openai", "base_url": f"{first.upstream.url}/v1", "api_keys": ["key-one", "key-two"],
                                       "policy": "first"}}}  # fmt: skip
        async with stage(by_key, config=config) as made:
            answer = await made.ask("anthropic-messages", "openai-chat", stream, backend="two")
            assert answer.status == 200
            assert b"exploded" not in answer.body
            assert answer.headers["x-llm-proxy-attempts"] == "2"


@pytest.mark.parametrize(
    "headers",
    [
        [("content-length", "2"), ("content-length", "3")],
        [("x-big", "a" * 200_000)],
        [(f"x-{n}", "a") for n in range(5000)],
        [("bad name", "a")],
    ],
    ids=["two lengths", "giant header", "5000 headers", "invalid name"],
)
async def test_u22_odd_headers_are_a_fault(running: Stage, headers: list[tuple[str, str]]) -> None:
    head = "".join(f"{name}: {value}\r\n" for name, value in headers)
    body = json.dumps(whole("openai-chat")).encode()
    raw = (
        f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{head}content-length: {len(body)}\r\n\r\n".encode()
        + body
    )
    running.play(Reply(raw=True, steps=[Send(raw)]))
    assert_error("openai-chat", await running.ask("openai-chat", "openai-chat", False, unique()), 502)


@pytest.mark.parametrize("client", PROTOCOLS)
async def test_u23_wrong_answers_never_crash(running: Stage, client: Protocol) -> None:
    call = {"index": None, "type": "function", "function": {"name": "f", "arguments": '{"a": '}}
    odd: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "message": {"role": "assistant", "content": None, "tool_calls": [call, call]}, "finish_reason": "tool_calls"}]},
        {"choices": []},
        {"choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}],
         "usage": {"prompt_tokens": -5, "completion_tokens": 10**30}},
        {"choices": [{"index": 0, "message": {"content": [{"type": "mystery"}]}, "finish_reason": "weird"}]},
        {"choices": None, "id": 7},
    ]  # fmt: skip
    for body in odd:
        running.play(Reply.json(body))
        answer = await running.ask(client, "openai-chat", client != "openai-chat", unique())
        assert answer.status in (200, 502)
        assert answer.complete


async def test_u24_late_bytes_after_an_answer_poison_nothing(running: Stage) -> None:
    body = json.dumps(whole("openai-chat")).encode()
    late = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"
    running.play(Reply(headers=[("content-type", "application/json")], body=body, after=[Raw(late)]))
    model = unique()
    for _ in range(50):
        answer = await running.ask("anthropic-messages", "openai-chat", False, model)
        assert answer.status == 200
        assert b"fine" in answer.body


SECRETS = {
    "cookie": "session=secret-cookie",
    "x-forwarded-for": "10.1.2.3",
    "forwarded": "for=10.1.2.3",
    "proxy-authorization": "Basic c2VjcmV0",
    "x-session-id": "my-session",
    "connection": "keep-alive, x-named",
    "x-named": "named-by-connection",
    "te": "trailers",
    "x-stainless-lang": "python",
    "x-llm-proxy-upstream-key": "upstream-secret",
}


@pytest.mark.parametrize(("client", "back"), MIXED)
async def test_s06_nothing_leaks_to_the_other_side(running: Stage, client: Protocol, back: Protocol) -> None:
    """Hop-by-hop, nominated, forwarding and credential headers stay on their side; so do the provider's cookies (FE-12)."""
    upstream_headers = [
        ("set-cookie", "provider=secret"), ("server", "provider/1"), ("strict-transport-security", "max-age=1"),
        ("openai-organization", "org-secret"), ("anthropic-organization-id", "org-secret"), ("x-ratelimit-remaining-requests", "7"),
    ]  # fmt: skip
    running.play(Reply.json(whole(back), headers=upstream_headers))
    answer = await running.ask(client, back, False, unique(), extra=SECRETS)
    assert answer.status == 200
    sent = {name.lower(): value for name, value in running.upstream.requests[0].headers}
    values = " ".join(sent.values())
    for name, value in SECRETS.items():
        assert value not in values, name
    assert "test-client-key" not in values
    assert "authorization" not in sent
    assert sent["accept-encoding"] == "identity"
    assert "org-secret" not in " ".join(answer.headers.values())
    assert not {"set-cookie", "server", "strict-transport-security"} & set(answer.headers)
    assert answer.headers["x-ratelimit-remaining-requests"] == "7"


async def test_a_client_error_of_a_provider_stops_and_cools_nothing(running: Stage) -> None:
    error = {"error": {"message": "bad tool schema", "type": "invalid_request_error", "param": None, "code": None}}
    running.play([Reply.json(error, status=400), Reply.json(whole("openai-chat"))])
    model = unique()
    answer = await running.ask("openai-chat", "openai-chat", False, model)
    assert answer.status == 400
    assert answer.json["error"]["message"] == "bad tool schema"
    assert (await running.ask("openai-chat", "openai-chat", False, model)).status == 200


async def test_two_requests_at_once_on_one_connection_are_answered_in_order(running: Stage) -> None:
    running.play(lambda request: Reply.json(whole("openai-chat", request.json["model"])))
    connection = await running.client()
    await connection.send(
        request_bytes("openai-chat", f"{BACKEND_OF['openai-chat']}:one", False)
        + request_bytes("openai-chat", f"{BACKEND_OF['openai-chat']}:two", False)
    )
    first, second = await connection.read_answer(), await connection.read_answer()
    connection.close()
    assert first.json["choices"][0]["message"]["content"] == "one"
    assert second.json["choices"][0]["message"]["content"] == "two"
