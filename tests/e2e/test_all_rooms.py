"""With every room on, good answers pass unchanged: what was recorded gives the same result as with all rooms off.

Two proxies before one provider that replays what was recorded. Each gets the same requests: those that were recorded with the answers, so
that their tools and schemas are there, in the protocol of each client. In the provider's own protocol the bytes are the same; elsewhere
they are the same but for ids and times that the proxy makes. The requests that the provider gets are the same too.
"""

from __future__ import annotations

import http.client
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.every_room import all_off, all_on, minimal, request_for
from tests.support.proxy import BACKEND_OF, KEY, Proxy, backends_at, running_proxy
from tests.support.raw import path_of
from tests.support.shared import PROTOCOLS, Exchange, Protocol, generating_exchanges, needs_shared
from tests.support.upstream import Received, Reply, Upstream, replay, upstream_in_thread

# Recorded answers that are not good, and what rooms are right to make of them.
NOT_GOOD: dict[str, str] = {
    "openai-chat/plain.json.cd77716cb1-0.json": "begins with <think>…</think>, which becomes reasoning",
    "openai-chat/structured-output.stream.674395621b-1.json": "the JSON that was asked for, twice in a row: repaired, else an error",
    "openai-responses/image-input.json.0383f10c66-1.json": "empty: asked for again",
    "gemini/stop-sequences.json.7cf7823b0f-1.json": "empty: asked for again",
    "gemini/stop-sequences.json.7cf7823b0f-2.json": "empty: asked for again",
}

_EXCHANGES = generating_exchanges()
_NUMBERS = itertools.count()
_MADE_IDS = re.compile(rb'(?:(?<=[-_])|(?<="responseId":"))[0-9A-Za-z]{24}(?![0-9A-Za-z])')
_MADE_TIMES = re.compile(rb'"(created|created_at|completed_at|createTime)":\s*("[^"]*"|[\d.]+)')
_CROSSED = [(source, client) for source in PROTOCOLS for client in PROTOCOLS if source != client]


@dataclass(frozen=True)
class Result:
    """What a client and the provider got of one request. `calls`: path, query and body of each call, and its headers."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    calls: Sequence[tuple[object, ...]]


class Side:
    """One of the two proxies, on one connection that stays open."""

    def __init__(self, proxy: Proxy, upstream: Upstream) -> None:
        self.proxy = proxy
        self._upstream = upstream
        address = urlsplit(proxy.url)
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)

    def ask(self, path: str, body: bytes, name: str) -> Result:
        """`name`: of the request and of its session, which is a new one each time, so that no request is the repetition of another."""
        self._upstream.forget()
        headers = {
            "content-type": "application/json", "authorization": f"Bearer {KEY}", "x-request-id": name, "x-session-id": name,
        }  # fmt: skip
        self._connection.request("POST", path, body, headers)
        response = self._connection.getresponse()
        data = response.read()
        calls = [_seen(request) for request in self._upstream.requests if request.method == "POST"]
        headers = {name.lower(): value for name, value in response.getheaders()}
        headers.pop("x-llm-proxy-overhead-ms", None)  # a duration
        return Result(response.status, headers, data, calls)

    def close(self) -> None:
        self._connection.close()


def _seen(request: Received) -> tuple[object, ...]:
    headers = tuple(pair for pair in request.headers if pair[0].lower() != "x-llmproxy-loop-guard")
    return request.path, request.query, request.body, headers


class Pair:
    """All rooms on, and all rooms off; `strict`: on, and what is not the JSON that was asked for is an error."""

    def __init__(self, on: Side, off: Side, strict: Side) -> None:
        self.on = on
        self.off = off
        self.strict = strict

    def difference(self, exchange: Exchange, client: Protocol, strict: bool = False) -> str:
        """How the two results differ, "" when they do not."""
        number = next(_NUMBERS)
        model = exchange.model.split("/")[-1].split(":")[0]
        model = f"{BACKEND_OF[exchange.protocol]}:{model}--{number}--{_EXCHANGES.index(exchange)}"
        path, name = path_of(client, model, exchange.stream), f"s-{number}"
        body = request_for(exchange, client, model)
        without = self.off.ask(path, body, name)
        if not without.calls:  # what this provider cannot take was refused
            body = minimal(exchange, client, model)
            without = self.off.ask(path, body, name)
        assert without.calls, f"{exchange}: {without.body[:300]!r}"
        on = self.strict if strict else self.on
        return _difference(on.ask(path, body, name), without, verbatim=exchange.protocol == client)


def _difference(on: Result, off: Result, verbatim: bool) -> str:
    if on.calls != off.calls:
        return f"the provider got {str(on.calls)[:500]} instead of {str(off.calls)[:500]}"
    if on.status != off.status or on.headers != off.headers:
        return f"{on.status} {on.headers} instead of {off.status} {off.headers}"
    one, other = (on.body, off.body) if verbatim else (_without_made(on.body), _without_made(off.body))
    if one == other:
        return ""
    at = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return f"from byte {at}: {one[max(0, at - 80) : at + 200]!r} instead of {other[max(0, at - 80) : at + 200]!r}"


def _without_made(body: bytes) -> bytes:
    """The answer without ids and times that the proxy makes."""
    return _MADE_TIMES.sub(rb'"\1":0', _MADE_IDS.sub(b"0", body))


def _replayed(request: Received) -> Reply:
    """The exchange whose number ends the model's name, in the body or in a Gemini path; nobody lists models here."""
    if request.method != "POST":
        return Reply(status=404)
    text = request.path if "/models/" in request.path else str(request.json.get("model", ""))
    return replay(_EXCHANGES[int(text.rsplit("--", 1)[-1].split(":")[0])])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folders: list[Path] = []
    for name in ("on", "off", "strict"):
        folder = tmp_path_factory.mktemp(name)
        (folder / "seal.key").write_bytes(b"k" * 32)  # sealed reasoning is the same in both
        folders.append(folder)
    with upstream_in_thread(_replayed) as upstream:
        shared = {"backends": backends_at(upstream.url), "logging": {"level": "error"}}
        with (
            running_proxy(config={**all_on(folders[0]), **shared}, data_dir=folders[0]) as on,
            running_proxy(config={**all_off(), **shared}, data_dir=folders[1]) as off,
            running_proxy(config={**all_on(folders[2], strict=True), **shared}, data_dir=folders[2]) as strict,
        ):
            sides = Side(on, upstream), Side(off, upstream), Side(strict, upstream)
            yield Pair(*sides)
            for side in sides:
                side.close()
            assert not any(" ERROR " in proxy.output for proxy in (on, off, strict))


def differences(pair: Pair, client: Protocol, exchanges: Sequence[Exchange]) -> dict[str, str]:
    found = {exchange.file: pair.difference(exchange, client) for exchange in exchanges}
    return {file: how for file, how in found.items() if how}


def _expect_only_not_good(found: Mapping[str, str]) -> None:
    unexpected = {file: how for file, how in found.items() if file not in NOT_GOOD}
    listed = "\n".join(f"{file}: {how}" for file, how in unexpected.items())
    assert not unexpected, f"{len(unexpected)} answers:\n{listed}"


def _of(source: Protocol) -> list[Exchange]:
    return [exchange for exchange in _EXCHANGES if exchange.protocol == source]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_with_every_room_on_recorded_answers_keep_their_bytes(pair: Pair, protocol: Protocol) -> None:
    exchanges = _of(protocol)
    found = differences(pair, protocol, exchanges)
    _expect_only_not_good(found)
    assert set(found) == {exchange.file for exchange in exchanges} & set(NOT_GOOD), "some are good after all"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_with_strict_repair_recorded_json_keeps_its_bytes(pair: Pair, protocol: Protocol) -> None:
    exchanges = [exchange for exchange in _of(protocol) if "structured-output" in exchange.kinds]
    found = {exchange.file: pair.difference(exchange, protocol, strict=True) for exchange in exchanges}
    _expect_only_not_good({file: how for file, how in found.items() if how})


@pytest.mark.parametrize(("source", "client"), _CROSSED)
def test_with_every_room_on_clients_of_other_protocols_get_the_same(
    pair: Pair, source: Protocol, client: Protocol
) -> None:
    """Each answer for one of the three other protocols; all of them below."""
    others = [other for other in PROTOCOLS if other != source]
    _expect_only_not_good(differences(pair, client, _of(source)[others.index(client) :: len(others)]))


@pytest.mark.long
@pytest.mark.parametrize(("source", "client"), _CROSSED)
def test_with_every_room_on_all_clients_of_other_protocols_get_the_same(
    pair: Pair, source: Protocol, client: Protocol
) -> None:
    _expect_only_not_good(differences(pair, client, _of(source)))


@needs_shared
def test_nearly_all_recorded_answers_are_good() -> None:
    assert len(NOT_GOOD) < 0.02 * len(_EXCHANGES)
    assert set(NOT_GOOD) <= {exchange.file for exchange in _EXCHANGES}
