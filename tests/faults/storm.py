"""A storm of faults whose course is known beforehand: which back end does what to which request, drawn from a seed.

Owns the fates, the provider that plays them and keeps count, and the client that sends everything. What must come of it is the
business of the test.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from tests.e2e.asking import body_of, path_of, protocol_of, wants_stream
from tests.faults import failing
from tests.faults.failing import error_reply, error_value, first_event, lifecycle
from tests.faults.stage import Answer, deltas, ending, whole
from tests.support.proxy import KEY
from tests.support.shared import PROTOCOLS, Protocol
from tests.support.upstream import Close, Hang, Raw, Received, Reply, Reset, Send

_ID: Final = re.compile(rb"rq-[0-9]{5}")
_LONGEST: Final = 90.0
_JSON: Final = [("content-type", "application/json")]
_PAGE: Final = b"<html><head><title>502 Bad Gateway</title></head><body>Bad gateway</body></html>"

Maker = Callable[[Protocol, bool], Reply]


@dataclass(frozen=True)
class Asked:
    """One request of a client: its place in the storm decides protocol, form and route."""

    number: int
    client: Protocol
    stream: bool
    route: str
    targets: tuple[str, ...]
    """The back ends of its route, and with keys each as `backend/key`, in order. `gone` refuses every connection."""

    @property
    def id(self) -> str:
        return f"rq-{self.number:05}"

    @property
    def prompt(self) -> int:
        return 10_000 + self.number

    @property
    def completion(self) -> int:
        return 1 + self.number % 50


def text_for(id: str, target: str) -> str:
    """The one answer of `target` to a request: it names both."""
    return f"for {id} by {target}. "


def answer_to(asked: Asked, protocol: Protocol, stream: bool, target: str) -> Reply:
    """A proper answer that names the request, with the usage that belongs to it."""
    text = text_for(asked.id, target)
    if not stream:
        usage = (
            {"usage": {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}}
            if protocol == "openai-responses"
            else {}
        )
        return Reply(headers=_JSON, body=_counted(json.dumps({**whole(protocol, text), **usage}).encode(), asked))
    frames = [*deltas(protocol), *ending(protocol)]
    data = b"".join(frames).replace(b"w0 w1 w2 ", text.encode()).replace(b"w1 ", text.encode())
    data = data.replace(b"w0 ", b"").replace(b"w2 ", b"")
    return Reply.sse(*_pieces(_counted(data, asked), asked.number))


def _counted(data: bytes, asked: Asked) -> bytes:
    figures = {
        b"prompt_tokens": asked.prompt, b"completion_tokens": asked.completion,
        b"input_tokens": asked.prompt, b"output_tokens": asked.completion, b"total_tokens": asked.prompt + asked.completion,
        b"promptTokenCount": asked.prompt, b"candidatesTokenCount": asked.completion,
        b"totalTokenCount": asked.prompt + asked.completion,
    }  # fmt: skip
    for name, figure in figures.items():
        data = re.sub(b'"' + name + rb'": (7|3|10)\b', b'"%b": %d' % (name, figure), data)
    return data


def _pieces(data: bytes, number: int) -> list[bytes]:
    size = 40 + number * 37 % 400
    return [data[at : at + size] for at in range(0, len(data), size)]


# Faults before the first content event. Each gets the provider's protocol and whether a stream was asked for.


def _kind(stream: bool) -> list[tuple[str, str]]:
    return [("content-type", "text/event-stream" if stream else "application/json")]


def _status(status: int) -> Maker:
    return lambda protocol, stream: error_reply(protocol, status)


def _always(reply: Reply) -> Maker:
    return lambda protocol, stream: reply


def _body(protocol: Protocol) -> bytes:
    return json.dumps(whole(protocol, "never to be seen")).encode()


FAULTS: Final[dict[str, tuple[Maker, int]]] = {
    # name: what is sent, and how often compared to the others
    **{f"status {status}": (_status(status), 2) for status in (404, 408, 409, 425, 500, 502, 503, 504, 529)},
    "status 401": (_status(401), 2),
    "status 403": (_status(403), 2),
    "reset": (_always(Reply(before=[Reset()])), 3),
    "hang-up": (_always(Reply(before=[Close()])), 3),
    "half a status line": (_always(Reply(raw=True, steps=[Send(b"HTTP/1.1 20"), Close()])), 2),
    "half a head": (_always(Reply(raw=True, steps=[Send(b"HTTP/1.1 200 OK\r\ncontent-ty"), Close()])), 2),
    "no HTTP": (_always(Reply(raw=True, steps=[Send(b"\x16\x03\x01 hello\r\n\r\n"), Close()])), 2),
    "truncated body": (lambda p, s: Reply(headers=_JSON, body=_body(p)[:60], declared_length=500, after=[Close()]), 2),
    "Content-Length too small": (lambda p, s: Reply(headers=_JSON, body=_body(p), declared_length=40), 2),
    "missing last chunk": (lambda p, s: Reply(headers=_JSON, steps=[Send(_body(p)[:60])], last_chunk=False, after=[Close()]), 2),
    "wrong chunk size": (lambda p, s: Reply(headers=_JSON, steps=[Send(b'{"id"'), Raw(b"ZZZ\r\n"), Close()]), 2),
    "gzip rubbish": (lambda p, s: Reply(headers=[*_kind(s), ("content-encoding", "gzip")], body=b"no gzip at all"), 2),
    "gzip cut": (lambda p, s: Reply(headers=[*_JSON, ("content-encoding", "gzip")], body=gzip.compress(_body(p))[:40]), 2),
    "unknown encoding": (lambda p, s: Reply(headers=[*_JSON, ("content-encoding", "br")], body=_body(p)), 1),
    "HTML 502": (_always(Reply(502, [("content-type", "text/html")], _PAGE)), 2),
    "HTML 200": (_always(Reply(200, [("content-type", "text/html")], _PAGE)), 2),
    "empty 200": (lambda p, s: Reply(headers=_kind(s)), 2),
    "204": (_always(Reply(204)), 1),
    "304": (_always(Reply(304)), 1),
    "redirect": (_always(Reply(307, [("location", "http://127.0.0.1:9/elsewhere")])), 2),
    "broken JSON": (lambda p, s: Reply(headers=_JSON, body=_body(p)[:-9]), 2),
    "success false": (_always(Reply.json({"success": False, "msg": "no"})), 2),
    "error with 200": (lambda p, s: Reply.json(error_value(p, 500, "exploded")), 2),
    "1xx flood": (_always(Reply(raw=True, steps=[Send(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 50), Close()])), 2),
    "two lengths": (lambda p, s: Reply(headers=[*_JSON, ("content-length", "3")], body=_body(p)), 1),
    "giant header": (lambda p, s: Reply(headers=[*_JSON, ("x-big", "a" * 100_000)], body=_body(p)), 1),
    "timeout": (_always(Reply(before=[Hang()])), 1),
}  # fmt: skip
STREAMED: Final[dict[str, tuple[Maker, int]]] = {
    "error as first event": (lambda p, s: Reply.sse(first_event(p, 500)), 5),
    "overload as first event": (lambda p, s: Reply.sse(first_event(p, 529)), 5),
    "error after lifecycle": (lambda p, s: Reply.sse(*lifecycle(p), first_event(p, 500)), 5),
    "end before content": (lambda p, s: Reply.sse(*lifecycle(p)), 5),
    "cut before content": (lambda p, s: Reply.sse(*lifecycle(p), Reset()), 5),
    "comments only": (lambda p, s: Reply.sse(b": a\n\n", b": b\n\n"), 3),
    "broken event": (lambda p, s: Reply.sse(b'data: {"id": "ha\n\n'), 3),
}
AFTER: Final[dict[str, Maker]] = {
    "cut after content": lambda p, s: Reply.sse(*deltas(p, 1), Reset()),
    "end after content": lambda p, s: Reply.sse(*deltas(p, 1), Close()),
    "error after content": lambda p, s: Reply.sse(*deltas(p, 1), first_event(p, 529)),
}
"""Only for streams; the text that was seen is `w0 `."""
LIMITED: Final = ("429 once", "503 once")
"""The first call is told to come back in a moment; those after it are answered."""
OK: Final = "answers"


@dataclass
class Called:
    """One call as the provider saw it."""

    target: str
    fate: str
    answered: bool


@dataclass
class Storm:
    """The fates of all requests at all targets, and what was called. `faulty` is the share of calls that go wrong."""

    seed: int
    requests: list[Asked]
    left_out: frozenset[str] = frozenset()
    faulty: float = 0.4
    calls: dict[str, list[Called]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        draw = random.Random(self.seed)
        self.fates: dict[tuple[str, str], str] = {}
        self.by_id = {asked.id: asked for asked in self.requests}
        for asked in self.requests:
            for target in asked.targets:
                if target != "gone":
                    self.fates[asked.id, target] = self._draw(draw, asked)

    def _draw(self, draw: random.Random, asked: Asked) -> str:
        if draw.random() >= self.faulty:
            return OK
        faults = {**FAULTS, **(STREAMED if asked.stream else {})}
        names = [name for name in faults if name not in self.left_out]
        weights = [faults[name][1] for name in names]
        names += LIMITED
        weights += [4, 3]
        if asked.stream:
            names += AFTER
            weights += [3, 3, 3]
        return draw.choices(names, weights)[0]

    def fate(self, asked: Asked, target: str) -> str:
        return self.fates.get((asked.id, target), "refused")

    def answerable(self, asked: Asked) -> bool:
        """Could any target of its route have answered it?"""
        return any(self.fate(asked, target) in (OK, *LIMITED) for target in asked.targets)

    def script(self, request: Received) -> Reply:
        """The provider."""
        found = _ID.search(request.body)
        assert found is not None
        asked = self.by_id[found[0].decode()]
        protocol, stream = protocol_of(request), wants_stream(request)
        target = _target_of(request)
        fate = self.fate(asked, target)
        calls = self.calls[asked.id]
        first = not any(call.target == target for call in calls)
        answers = fate == OK or (fate in LIMITED and not first)
        calls.append(Called(target, fate, answers))
        if answers:
            return answer_to(asked, protocol, stream, target)
        if fate in LIMITED:
            wait = str(100 + asked.number * 7 % 100)
            return error_reply(protocol, int(fate[:3]), headers=[("retry-after-ms", wait)])
        maker = AFTER.get(fate) or {**FAULTS, **STREAMED}[fate][0]
        return maker(protocol, stream)


def _target_of(request: Received) -> str:
    key = (request.header("authorization") or "").removeprefix("Bearer ")
    key = key or request.header("x-api-key") or request.header("x-goog-api-key") or ""
    back = failing.at(request)
    return f"{back}/{key.rpartition('-')[2]}" if key else back


@dataclass
class Outcome:
    """What a client got, with the time that it took in seconds."""

    asked: Asked
    answer: Answer
    seconds: float


async def send_all(url: str, requests: Sequence[Asked], at_once: int) -> list[Outcome]:
    """Every request on a connection of its own, `at_once` under way at any time."""
    gate = asyncio.Semaphore(at_once)

    async def one(asked: Asked) -> Outcome:
        async with gate:
            start = asyncio.get_running_loop().time()
            answer = await _ask(url, asked)
            return Outcome(asked, answer, asyncio.get_running_loop().time() - start)

    return list(await asyncio.gather(*map(one, requests)))


async def _ask(url: str, asked: Asked) -> Answer:
    path = path_of(asked.client, asked.route, asked.stream)
    body = json.dumps(body_of(asked.client, asked.route, asked.stream, f"please answer {asked.id}")).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nx-request-id: {asked.id}\r\nconnection: close\r\n\r\n"
    )
    address = urlsplit(url)
    async with asyncio.timeout(_LONGEST):
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            writer.write(head.encode() + body)
            data = await reader.read()
        finally:
            writer.transport.abort()
    top, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = top.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "chunked" in headers.get("transfer-encoding", ""):
        return Answer(int(first.split()[1]), headers, failing.unchunked(rest), rest.endswith(b"0\r\n\r\n"))
    return Answer(int(first.split()[1]), headers, rest, len(rest) == int(headers["content-length"]))


def requests_for(count: int, routes: dict[str, tuple[str, ...]]) -> list[Asked]:
    """Protocols, forms and routes in turn, so that every combination comes up equally often."""
    names = list(routes)
    made = []
    for number in range(count):
        route = names[number // 8 % len(names)]
        made.append(Asked(number, PROTOCOLS[number % 4], number // 4 % 2 == 1, route, routes[route]))
    return made


def elements_of(targets: Sequence[str]) -> list[str]:
    """The elements of a route over these targets; those of a back end with several keys are one."""
    return list(dict.fromkeys(f"{target.partition('/')[0]}:m" for target in targets))
