"""RT-09 line by line on real sockets: which failure leads to the next attempt, which one stops, and what the client is told at last.

Each line runs in all four client protocols, streamed and whole; the first element of the route speaks another protocol than the second.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from tests.faults import failing
from tests.faults.failing import (
    OTHER,
    SURFACES,
    ask,
    assert_answered,
    assert_refused,
    by_element,
    called,
    error_reply,
    first_event,
    first_of,
    lifecycle,
    row_of,
    surfaces,
)
from tests.faults.stage import PATIENCE, Stage, deltas, request_bytes, stage
from tests.support.proxy import running_proxy
from tests.support.shared import PROTOCOLS, Protocol
from tests.support.upstream import Close, Hang, Raw, Received, Reply, Reset, Send, Upstream, refusing_url

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON: Final = [("content-type", "application/json")]
EVENTS: Final = [("content-type", "text/event-stream")]
KEYS: Final = {"first": "provider-key-value-0001", "second": "provider-key-value-0002"}
_CERTIFICATE: Final = Path(__file__).parents[1] / "backends" / "fixtures"


@asynccontextmanager
async def untrusted() -> AsyncIterator[str]:
    """A provider whose certificate nobody has signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_CERTIFICATE / "loopback.pem", _CERTIFICATE / "loopback.key")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def settings(url: str, tls: str) -> dict[str, Any]:
    """All back ends and routes of these tests."""
    gone = refusing_url()
    backends = {
        **failing.pairs_at(url),
        "two": failing.backend(url, "two", "openai-chat"),
        "gone": {"type": "openai", "base_url": f"{gone}/v1", "no_auth": True},
        "untrusted": {"type": "openai", "base_url": f"{tls}/v1", "no_auth": True},
        "nowhere": {"type": "openai", "base_url": "http://no-such-host.invalid/v1", "no_auth": True},
        "hasty": failing.backend(url, "hasty", "openai-chat", timeout=0.3),
        "keyless": {"type": "openai", "base_url": f"{url}/keyless/v1"},
        "off": failing.backend(url, "off", "openai-chat", enabled=False),
        "small": failing.backend(url, "small", "openai-chat", models={"m": {"limits": {"context_window": 8000}}}),
        "same": failing.backend(url, "same", "openai-chat", models={"m": {"limits": {"context_window": 8000}}}),
        "large": failing.backend(url, "large", "openai-chat", models={"m": {"limits": {"context_window": 200_000}}}),
        "unknown": failing.backend(url, "unknown", "openai-chat"),
        "named": {"type": "openai", "base_url": f"{url}/named/v1", "api_keys": KEYS, "policy": "first"},
        "many": {"type": "openai", "base_url": f"{url}/many/v1", "api_keys": [f"many-keys-{n:04}" for n in range(40)]},
        "listed": failing.backend(url, "listed", "openai-chat", models=["llama-3-70b", "llama-3-8b", "mixtral"]),
        "again": failing.backend(gone, "again", "openai-chat", retries=2),
    }
    routes = {
        **failing.routes_of(),
        **{name: {"policy": "m", "elements": [f"{name}:m", "two:m"]} for name in ("gone", "untrusted", "nowhere", "hasty")},
        "unusable-first": {"policy": "m", "elements": ["keyless:m", "off:m", "two:m"]},
        "deaf-first": {"policy": "m", "elements": ["one-anthropic-messages:m", "two-openai-chat:m"]},
        "deaf": {"policy": "m", "elements": ["one-anthropic-messages:m", "two-anthropic-messages:m"]},
        "unusable": {"policy": "m", "elements": ["keyless:m"]},
        "empty": {"policy": "m", "elements": []},
        "connect-last": {"policy": "m", "elements": ["one-openai-chat:m", "gone:m"]},
        "connect-first": {"policy": "m", "elements": ["gone:m", "one-openai-chat:m"]},
        "windows": {"policy": "m", "elements": ["small:m", "same:m", "unknown:m", "large:m"]},
        "no-larger": {"policy": "m", "elements": ["large:m", "small:m", "unknown:m"]},
        "two-keys": {"policy": "km", "elements": ["named:m", "two-gemini:m"]},
        "many": {"policy": "k", "elements": ["many:m"]},
    }  # fmt: skip
    return {"backends": backends, "failover_routes": routes}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared_stage() -> AsyncIterator[Stage]:
    async with untrusted() as tls, Upstream(failing.by_element()) as upstream:
        with running_proxy(config=settings(upstream.url, tls)) as proxy:
            yield Stage(proxy, upstream)


@pytest_asyncio.fixture(loop_scope="module")
async def running(shared_stage: Stage) -> AsyncIterator[Stage]:
    shared_stage.play(failing.by_element())
    await failing.wake(shared_stage)
    yield shared_stage


# Continue


def broken(back: Protocol, stream: bool) -> dict[str, Reply]:
    """Every way of failing that another target can cure."""
    page = b"<html><head><title>502 Bad Gateway</title></head><body><h1>Bad gateway</h1></body></html>"
    kind = EVENTS if stream else JSON
    half = b'{"id": "half'
    cases = {f"status {n}": error_reply(back, n) for n in (401, 403, 404, 408, 409, 425, 429, 500, 502, 503, 504, 529)}
    cases |= {
        "reset before the headers": Reply(before=[Reset()]),
        "hang-up before the headers": Reply(before=[Close()]),
        "half a status line": Reply(raw=True, steps=[Send(b"HTTP/1.1 20"), Close()]),
        "half a head": Reply(raw=True, steps=[Send(b"HTTP/1.1 200 OK\r\ncontent-ty"), Close()]),
        "no HTTP": Reply(raw=True, steps=[Send(b"hello\r\n\r\n"), Close()]),
        "empty body": Reply(headers=kind, body=b""),
        "blank body": Reply(headers=kind, body=b" \r\n"),
        "204": Reply(status=204),
        "redirect": Reply(status=307, headers=[("location", "/elsewhere")]),
        "truncated body": Reply(headers=JSON, body=half, declared_length=500, after=[Close()]),
        "broken JSON": Reply(headers=kind, body=half),
        "JSON of another kind": Reply(headers=JSON, body=b"[1, 2]"),
        "wrong chunk size": Reply(headers=kind, steps=[Send(b'{"id"'), Raw(b"ZZZ\r\n"), Close()]),
        "gzip rubbish": Reply(headers=[*kind, ("content-encoding", "gzip")], body=b"this is no gzip"),
        "HTML 502": Reply(502, [("content-type", "text/html")], page),
        "HTML 200": Reply(200, [("content-type", "text/html")], page),
        "success false": Reply.json({"success": False, "msg": "backend exploded"}),
        "error with 200": Reply.json(failing.error_value(back, 500, "backend exploded")),
        "1xx flood": Reply(raw=True, steps=[Send(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 50), Hang()]),
    }
    if stream:
        cases |= {f"first event {n}": Reply.sse(first_event(back, n)) for n in (404, 429, 500, 529)}
        cases |= {
            "error after lifecycle": Reply.sse(*lifecycle(back), first_event(back, 500)),
            "end before content": Reply.sse(*lifecycle(back)),
            "cut before content": Reply.sse(*lifecycle(back), Reset()),
            "comments only": Reply.sse(b": one\n\n", b": two\n\n"),
            "broken JSON event": Reply.sse(b'data: {"id": "half\n\n'),
        }  # fmt: skip
    return cases


CURABLE: Final = [
    (client, stream, name) for client, stream in SURFACES for name in broken(first_of(client, stream)[1], stream)
]


@pytest.mark.parametrize(("client", "stream", "how"), CURABLE)
async def test_the_next_element_cures_it_and_the_client_sees_no_trace(
    running: Stage, client: Protocol, stream: bool, how: str
) -> None:
    route, back = first_of(client, stream)
    running.play(by_element(one=broken(back, stream)[how]))
    answer = await ask(running, client, route, stream)
    assert_answered(client, stream, answer)
    # A pooled connection that breaks before anything came is replaced unseen, once (BE-05).
    assert list(dict.fromkeys(called(running))) == ["one", "two"]
    assert len(running.upstream.requests) == 2 or "before the headers" in how
    assert answer.headers["x-llm-proxy-attempts"] == "2"
    assert answer.headers["x-llm-proxy-backend"].startswith("two-")


@pytest.mark.parametrize("route", ["gone", "untrusted", "nowhere", "hasty"])
@surfaces
async def test_an_element_that_cannot_be_reached_is_followed_by_the_next(
    running: Stage, client: Protocol, stream: bool, route: str
) -> None:
    """Connection refused, TLS that cannot be trusted, an unknown host, and silence."""
    running.play(by_element(hasty=Reply(before=[Hang()])))
    answer = await ask(running, client, route, stream)
    assert_answered(client, stream, answer)
    assert called(running) == (["hasty", "two"] if route == "hasty" else ["two"])
    assert answer.headers["x-llm-proxy-attempts"] == "2"


async def test_a_connection_error_is_repeated_on_the_same_key_as_often_as_configured(running: Stage) -> None:
    answer = await ask(running, "openai-chat", "again:m", False)
    assert (
        assert_refused("openai-chat", answer, 503)["details"]["attempts"]
        == [{"backend": "again", "model": "m", "key": "none", "status": 503}] * 3
    )
    assert answer.headers["x-llm-proxy-attempts"] == "3"


# Stop


@pytest.mark.parametrize("status", [400, 402, 405, 410, 418, 422, 451])
@surfaces
async def test_what_no_other_target_can_cure_stops(running: Stage, client: Protocol, stream: bool, status: int) -> None:
    route, back = first_of(client, stream)
    running.play(by_element(one=error_reply(back, status, "this request is wrong")))
    answer = await ask(running, client, route, stream)
    # Gemini has no 402; its clients know 429 as the end of a quota.
    assert_refused(client, answer, 429 if (client, status) == ("gemini", 402) and back != client else status)
    assert b"this request is wrong" in answer.body
    assert called(running) == ["one"]
    assert await failing.resting(running) == []


@pytest.mark.parametrize("client", PROTOCOLS)
async def test_a_first_event_that_blames_the_request_stops_with_its_status(running: Stage, client: Protocol) -> None:
    route, back = first_of(client, True)
    running.play(by_element(one=Reply.sse(first_event(back, 400, "this request is wrong"))))
    assert_refused(client, await ask(running, client, route, True), 400)
    assert called(running) == ["one"]


TOO_LONG: Final = "This model's maximum context length is 8000 tokens, however you requested 9000 tokens."


@pytest.mark.parametrize("reply", [
    error_reply("openai-chat", 400, TOO_LONG),
    error_reply("openai-chat", 413, "Request too large"),
], ids=["400", "413"])  # fmt: skip
@surfaces
async def test_an_input_that_is_too_long_goes_on_to_a_larger_known_window_only(
    running: Stage, client: Protocol, stream: bool, reply: Reply
) -> None:
    running.play(by_element(small=reply))
    answer = await ask(running, client, "windows", stream)
    assert_answered(client, stream, answer)
    assert called(running) == ["small", "large"]


@pytest.mark.parametrize("client", PROTOCOLS)
async def test_an_input_that_is_too_long_for_the_largest_window_stops(running: Stage, client: Protocol) -> None:
    running.play(by_element(large=error_reply("openai-chat", 400, TOO_LONG)))
    assert_refused(client, await ask(running, client, "no-larger", False), 400)
    assert called(running) == ["large"]


# What a target cannot take


AUDIO: Final[dict[Protocol, dict[str, Any]]] = {
    "openai-chat": {
        "messages": [
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}]}
        ]
    },
    "gemini": {
        "contents": [{"role": "user", "parts": [{"inlineData": {"mimeType": "audio/wav", "data": "UklGRg=="}}]}]
    },
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("client", list(AUDIO))
async def test_media_that_an_element_cannot_take_goes_to_the_next_that_can(
    running: Stage, client: Protocol, stream: bool
) -> None:
    """FE-13: no call is made at the first; where none can take it, the client is told which part it is."""
    answer = await ask(running, client, "deaf-first", stream, **AUDIO[client])
    assert_answered(client, stream, answer)
    assert called(running) == ["two"]
    assert "x-llm-proxy-attempts" not in answer.headers
    for model in ("deaf", "one-anthropic-messages:m"):
        detail = assert_refused(client, await ask(running, client, model, stream, **AUDIO[client]), 400)
        assert "audio" in detail["message"]
    assert called(running) == ["two"]


# Content ends it


@pytest.mark.parametrize("how", ["reset", "end", "error"])
@pytest.mark.parametrize("client", PROTOCOLS)
async def test_after_the_first_content_event_nothing_is_attempted(running: Stage, client: Protocol, how: str) -> None:
    for route, back in ((f"via-{client}", client), (f"back-{client}", OTHER[client])):
        last = {"reset": [Reset()], "end": [Close()], "error": [Send(first_event(back, 529))]}[how]
        running.play(by_element(one=Reply.sse(*deltas(back, 1), *last)))
        answer = await ask(running, client, route, True)
        assert answer.status == 200 and answer.complete
        assert failing.text_of(client, answer) == "w0 "
        assert failing.ends_in_failure(client, answer)
        assert called(running) == ["one"]
        assert "x-llm-proxy-attempts" not in answer.headers


# The client leaves


@pytest.mark.parametrize("phase", ["headers", "before content"])
@surfaces
async def test_after_the_client_has_left_no_attempt_starts(
    running: Stage, client: Protocol, stream: bool, phase: str
) -> None:
    route, back = first_of(client, stream)
    kind = EVENTS if stream else JSON
    hanging = Reply(before=[Hang()]) if phase == "headers" else Reply(headers=kind, steps=[Send(b" "), Hang()])
    running.play(by_element(one=hanging))
    arrival = running.upstream.arrival()
    connection = await running.client()
    id = f"leaving-{client}-{stream}-{phase.replace(' ', '-')}"
    await connection.send(request_bytes(client, route, stream, {"x-request-id": id}))
    await asyncio.wait_for(arrival, PATIENCE)
    connection.leave("rst")
    await asyncio.wait_for(running.upstream.requests[0].closed, PATIENCE)
    row = await row_of(running, id)
    assert (row["backend"], row["attempts"]) == (f"one-{back}", 1)
    assert called(running) == ["one"]


# What is told when all fail


WORST: Final[list[tuple[int, int, int]]] = [
    # first, second, what the client gets
    (500, 400, 400),
    (429, 400, 400),
    (401, 422, 422),
    (429, 401, 429),
    (401, 429, 429),
    (500, 429, 429),
    (429, 500, 429),
    (401, 500, 502),
    (500, 403, 502),
    (500, 503, 503),
    (503, 500, 500),
    (500, 529, 529),
    (529, 529, 529),
]


TOLD: Final = [
    (client, stream, *statuses)
    for client, stream in SURFACES
    for statuses in WORST
    if not (client == "gemini" and 529 in statuses)  # a status that Google's API does not have
]


@pytest.mark.parametrize(("client", "stream", "first", "second", "told"), TOLD)
async def test_the_failure_that_says_most_is_told(
    running: Stage, client: Protocol, stream: bool, first: int, second: int, told: int
) -> None:
    """400-class stop, then 429, then 401/403 as 502, then 5xx with its own status; of equals the last."""
    route, back = first_of(client, stream)
    then = OTHER[back] if not stream else client
    running.play(by_element(one=error_reply(back, first), two=error_reply(then, second)))
    answer = await ask(running, client, route, stream)
    # 529 is Anthropic's own; the other protocols say 503.
    # Who speaks the client's own protocol is quoted.
    expected = told
    if told in (503, 529) and then != client:
        expected = 529 if client == "anthropic-messages" else 503
    detail = assert_refused(client, answer, expected)
    assert answer.headers["x-llm-proxy-attempts"] == "2"
    assert detail["details"]["attempts"] == [
        {"backend": f"one-{back}", "model": "m", "key": "none", "status": first},
        {"backend": f"two-{then}", "model": "m", "key": "none", "status": second},
    ]
    if told == 502:
        assert detail["code"] == f"{'one-' + back if first == 401 else 'two-' + then}_credentials_invalid"


@pytest.mark.parametrize("route", ["connect-first", "connect-last"])
@surfaces
async def test_a_failing_provider_says_more_than_one_that_cannot_be_reached(
    running: Stage, client: Protocol, stream: bool, route: str
) -> None:
    running.play(by_element(one=error_reply("openai-chat", 500)))
    answer = await ask(running, client, route, stream)
    detail = assert_refused(client, answer, 500)
    assert {tried["status"] for tried in detail["details"]["attempts"]} == {500, 503}
    assert answer.headers["x-llm-proxy-attempts"] == "2"


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520])
@pytest.mark.parametrize("client", PROTOCOLS)
async def test_a_5xx_of_the_provider_keeps_its_status(running: Stage, client: Protocol, status: int) -> None:
    """A client's own rules for retries depend on it."""
    running.play(by_element(one=error_reply(client, status), two=Reply(before=[Reset()])))
    for model in (f"via-{client}", f"one-{client}:m"):
        answer = await ask(running, client, model, False)
        assert_refused(client, answer, status)
        assert f"backend said {status}".encode() in answer.body


@surfaces
async def test_two_limits_give_the_smallest_remaining_cooldown(running: Stage, client: Protocol, stream: bool) -> None:
    for longer in ("one", "two"):
        await failing.wake(running)
        route, back = first_of(client, stream)
        then = OTHER[back] if not stream else client
        waits = {"one": "9", "two": "40"} if longer == "two" else {"one": "40", "two": "9"}
        one, two = (error_reply(p, 429, headers=[("retry-after", waits[n])]) for n, p in (("one", back), ("two", then)))
        running.play(by_element(one=one, two=two))
        answer = await ask(running, client, route, stream)
        assert_refused(client, answer, 429)
        assert 8 <= int(answer.headers["retry-after"]) <= 9
        again = await ask(running, client, route, stream)  # both rest now: no call, the same answer
        detail = assert_refused(client, again, 429)
        assert 8 <= int(again.headers["retry-after"]) <= 9
        assert detail["details"]["attempts"][0]["skipped"] == "cooling"
        assert called(running) == ["one", "two"]
        assert "x-llm-proxy-attempts" not in again.headers


async def test_the_smallest_wait_is_named_when_the_last_failure_is_of_another_kind(running: Stage) -> None:
    one = error_reply("openai-chat", 429, headers=[("retry-after", formatdate(4_000_000_000, usegmt=True))])
    running.play(by_element(one=one, two=error_reply("anthropic-messages", 500)))
    answer = await ask(running, "openai-chat", "via-openai-chat", False)
    assert_refused("openai-chat", answer, 429)
    assert 86_390 <= int(answer.headers["retry-after"]) <= 86_400


@surfaces
async def test_the_names_of_keys_are_told_and_never_their_values(
    running: Stage, client: Protocol, stream: bool
) -> None:
    def refused(request: Received) -> Reply:
        key = request.header("authorization") or ""
        return error_reply("openai-chat", 401, f"Incorrect API key provided: {key.removeprefix('Bearer ')}")

    running.play(by_element(named=refused, two=error_reply("gemini", 500, f"the key {KEYS['first']} exploded")))
    answer = await ask(running, client, "two-keys", stream)
    detail = assert_refused(client, answer, 502)
    assert detail["code"] == "named_credentials_invalid"
    assert [(tried["key"], tried["status"]) for tried in detail["details"]["attempts"]] == [
        ("first", 401), ("second", 401), ("none", 500)
    ]  # fmt: skip
    assert not any(value.encode() in answer.body for value in KEYS.values())
    assert not any(value in running.proxy.output for value in KEYS.values())


async def test_a_request_makes_at_most_32_calls(running: Stage) -> None:
    running.play(by_element(many=error_reply("openai-chat", 500)))
    for model in ("many", "many:m"):
        running.upstream.forget()
        answer = await ask(running, "openai-chat", model, False)
        detail = assert_refused("openai-chat", answer, 500)
        assert len(running.upstream.requests) == 32
        assert len({request.header("authorization") for request in running.upstream.requests}) == 32
        assert answer.headers["x-llm-proxy-attempts"] == "32"
        assert len(detail["details"]["attempts"]) == 32


# RT-07: routes


@pytest.mark.parametrize("name", ["via-{}", "route:via-{}"])
@surfaces
async def test_a_route_answers_under_its_name_on_every_front_end(
    running: Stage, client: Protocol, stream: bool, name: str
) -> None:
    running.play(by_element(one=error_reply(client, 500)))
    answer = await ask(running, client, name.format(client), stream)
    assert_answered(client, stream, answer)
    assert answer.headers["x-llm-proxy-model"] == "m"
    assert [request_model(request) for request in running.upstream.requests] == ["m", "m"]


def request_model(request: Received) -> str:
    if "/models/" in request.path:
        return request.path.rpartition("/models/")[2].partition(":")[0]
    return str(request.json["model"])


@pytest.mark.parametrize(("route", "says"), [("empty", "The route has no elements."), ("unusable", "keyless")])
@surfaces
async def test_a_route_without_usable_elements_is_503(
    running: Stage, client: Protocol, stream: bool, route: str, says: str
) -> None:
    answer = await ask(running, client, route, stream)
    detail = assert_refused(client, answer, 503)
    assert detail["code"] == "backend_unavailable"
    assert says in detail["message"]
    assert called(running) == []


async def test_unusable_elements_are_passed_over_with_one_warning_a_minute(running: Stage) -> None:
    for client, stream in SURFACES:
        answer = await ask(running, client, "unusable-first", stream)
        assert_answered(client, stream, answer)
        assert "x-llm-proxy-attempts" not in answer.headers
    for id in ("keyless", "off"):
        about = f"unusable-first: {id}:m is passed over"
        async with asyncio.timeout(PATIENCE):
            while about not in running.proxy.output:  # the line may still be on its way to us
                await failing.resting(running)
        assert running.proxy.output.count(about) == 1


# RT-13: unusable targets


@surfaces
async def test_a_back_end_without_key_is_503_naming_the_variable(
    running: Stage, client: Protocol, stream: bool
) -> None:
    detail = assert_refused(client, await ask(running, client, "gemini:x", stream), 503)
    assert "GEMINI_API_KEY" in detail["message"] and detail["code"] == "backend_unavailable"


@surfaces
async def test_a_back_end_that_is_switched_off_is_503_naming_it(running: Stage, client: Protocol, stream: bool) -> None:
    detail = assert_refused(client, await ask(running, client, "off:x", stream), 503)
    assert "backends.off.enabled" in detail["message"]


@surfaces
async def test_a_closed_port_is_503_in_the_clients_shape(running: Stage, client: Protocol, stream: bool) -> None:
    answer = await ask(running, client, "gone:x", stream)
    assert assert_refused(client, answer, 503)["code"] == "backend_unavailable"
    assert b"127.0.0.1" not in answer.body


@surfaces
async def test_an_unknown_model_is_404_with_the_similar_ones(running: Stage, client: Protocol, stream: bool) -> None:
    running.play(by_element(listed=error_reply("openai-chat", 404, "The model does not exist")))
    detail = assert_refused(client, await ask(running, client, "listed:llama-3-70", stream), 404)
    assert "llama-3-70b" in detail["message"] and "mixtral" not in detail["message"]


@surfaces
async def test_nonsense_of_the_only_provider_is_502(running: Stage, client: Protocol, stream: bool) -> None:
    running.play(by_element(two=Reply(200, [("content-type", "text/html")], b"<html><h1>hello</h1></html>")))
    assert assert_refused(client, await ask(running, client, "two:m", stream), 502)["code"] == "upstream_error"


async def test_a_silent_provider_is_504_after_the_timeout() -> None:
    """All protocols at once, because each takes its second."""
    loop = asyncio.get_running_loop()
    async with stage(Reply(before=[Hang()]), "--timeout", "1", more=failing.pairs_at) as made:

        async def one(client: Protocol, stream: bool) -> None:
            start = loop.time()
            answer = await ask(made, client, f"one-{client}:m", stream)
            assert assert_refused(client, answer, 504)["code"] == "upstream_timeout"
            assert 0.99 <= loop.time() - start < 3

        await asyncio.gather(*(one(client, stream) for client, stream in SURFACES))
