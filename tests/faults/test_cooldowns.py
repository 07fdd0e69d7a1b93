"""How long a limited key is left alone, measured on the wire (RT-10, P10): the proxy waits itself and calls again when the time is over."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from llm_proxy.conversation.fault import Fault
from llm_proxy.routing.keyring import Keyring
from llm_proxy.routing.retry_after import stated_wait
from tests.faults import failing
from tests.faults.failing import answering, ask, by_element, error_reply, error_value, resting
from tests.faults.stage import PATIENCE, Stage
from tests.support.proxy import ROOT, running_proxy
from tests.support.shared import PROTOCOLS, Protocol
from tests.support.upstream import Received, Reply, Reset, Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

LATE: Final = 0.1
"""Seconds after the announced end within which the next call must arrive."""
MEASUREMENTS: Final = 3
"""How often a call that came late is measured anew: the machine may be busy. One that comes early fails at once."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared_stage() -> AsyncIterator[Stage]:
    async with Upstream(by_element()) as upstream:
        backends = {
            **failing.pairs_at(upstream.url),
            "keyed": {"type": "openai", "base_url": f"{upstream.url}/keyed/v1", "api_keys": {"a": "key-a-1", "b": "key-b-1"},
                      "policy": "first"},
        }  # fmt: skip
        config: dict[str, Any] = {"backends": backends, "failover": {"max_wait_seconds": 3.5}}
        with running_proxy(config=config) as proxy:
            yield Stage(proxy, upstream)


@pytest_asyncio.fixture(loop_scope="module")
async def running(shared_stage: Stage) -> AsyncIterator[Stage]:
    shared_stage.play(by_element())
    await failing.wake(shared_stage)
    yield shared_stage


Headers = list[tuple[str, str]]
Said = tuple[Headers, dict[str, Any] | None, float]
"""Headers and body of a 429, and when the rest that it announces ends, in epoch seconds."""


def seconds(now: float) -> Said:
    return [("retry-after", "1")], None, now + 1


def milliseconds(now: float) -> Said:
    return [("retry-after-ms", "350"), ("retry-after", "9")], None, now + 0.35


def http_date(now: float) -> Said:
    end = int(now) + 2
    return [("retry-after", formatdate(end, usegmt=True))], None, end


def http_date_of_a_skewed_clock(now: float) -> Said:
    """The provider's clock is an hour ahead; its own `Date` says so, in whole seconds."""
    there = int(now) + 3600
    return (
        [("date", formatdate(there, usegmt=True)), ("retry-after", formatdate(there + 1, usegmt=True))],
        None,
        now + 1,
    )


def openai_tokens(now: float) -> Said:
    return [("x-ratelimit-remaining-requests", "99"), ("x-ratelimit-reset-requests", "1h0m0s"),
            ("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "0.4s")], None, now + 0.4  # fmt: skip


def openai_span(now: float) -> Said:
    return [("x-ratelimit-reset-requests", "300ms")], None, now + 0.3


def epoch_seconds(now: float) -> Said:
    end = int(now) + 2
    return [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", str(end))], None, end


def epoch_milliseconds(now: float) -> Said:
    end = round(now * 1000) + 400
    return [("x-ratelimit-reset", str(end))], None, end / 1000


def anthropic_time(now: float) -> Said:
    end = int(now) + 2
    stamp = datetime.fromtimestamp(end, UTC).isoformat().replace("+00:00", "Z")
    return [("anthropic-ratelimit-requests-remaining", "5"), ("anthropic-ratelimit-requests-reset", "2099-01-01T00:00:00Z"),
            ("anthropic-ratelimit-tokens-remaining", "0"), ("anthropic-ratelimit-tokens-reset", stamp)], None, end  # fmt: skip


def anthropic_unified(now: float) -> Said:
    end = int(now) + 2
    return (
        [("anthropic-ratelimit-unified-5h-status", "rejected"), ("anthropic-ratelimit-unified-5h-reset", str(end))],
        None,
        end,
    )


RETRY_INFO: Final = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.45s"}


def retry_info(now: float) -> Said:
    body = error_value("gemini", 429, "Resource has been exhausted")
    body["error"]["details"] = [RETRY_INFO]
    return [], body, now + 0.45


def retry_info_in_a_text(now: float) -> Said:
    """A gateway's error that holds Google's as a text."""
    inner = '{"error": {"code": 429, "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.45s"}]}}'
    return [], error_value("openai-chat", 429, f"upstream said: {inner}"), now + 0.45


def in_words(now: float) -> Said:
    return [], error_value("openai-chat", 429, "Rate limit reached for m. Please try again in 420ms."), now + 0.42


def no_time(now: float) -> Said:
    return [], None, now + 1


FORMS: Final[list[tuple[Callable[[float], Said], Protocol]]] = [
    (seconds, "openai-responses"),
    (milliseconds, "openai-chat"),
    (http_date, "gemini"),
    (http_date_of_a_skewed_clock, "openai-chat"),
    (openai_tokens, "openai-responses"),
    (openai_span, "openai-chat"),
    (epoch_seconds, "openai-chat"),
    (epoch_milliseconds, "openai-chat"),
    (anthropic_time, "anthropic-messages"),
    (anthropic_unified, "anthropic-messages"),
    (retry_info, "gemini"),
    (retry_info_in_a_text, "openai-chat"),
    (in_words, "openai-chat"),
    (no_time, "anthropic-messages"),
]


class Limited:
    """A provider that refuses the first call, announcing when it will serve again, and answers those after it."""

    def __init__(self, back: Protocol, says: Callable[[float], Said], stream: bool) -> None:
        self.end = 0.0
        self._back, self._says, self._stream = back, says, stream
        self._refused = False
        self.calls: list[float] = []

    def __call__(self, request: Received) -> Reply:
        now = time.time()
        self.calls.append(now)
        if self._refused:
            return answering(self._back, self._stream)
        self._refused = True
        headers, body, self.end = self._says(now)
        return Reply.json(body or error_value(self._back, 429, "slow down"), 429, headers)


@pytest.mark.parametrize(
    ("says", "back", "stream"),
    [(*form, number % 2 == 0) for number, form in enumerate(FORMS)],
    ids=[says.__name__ for says, _ in FORMS],
)
async def test_the_next_call_comes_when_the_announced_time_is_over(
    running: Stage, says: Callable[[float], Said], back: Protocol, stream: bool
) -> None:
    late = []
    for _ in range(MEASUREMENTS):
        await failing.wake(running)
        provider = Limited(back, says, stream)
        running.play(provider)
        answer = await ask(running, back, f"one-{back}:m", stream)
        assert answer.status == 200
        assert len(provider.calls) == 2
        late.append(provider.calls[1] - provider.end)
        assert late[-1] > -0.002, "the key was called before its rest was over"  # clocks differ by less
        if late[-1] <= LATE:
            return
    pytest.fail(f"the call came late: {late} s")


async def test_the_rest_that_is_listed_is_the_one_that_was_announced(running: Stage) -> None:
    for back in PROTOCOLS:
        running.play(error_reply(back, 429, headers=[("retry-after", "30")]))
        answer = await ask(running, back, f"one-{back}:m", False)
        assert answer.status == 429
        assert answer.headers["retry-after"] == "30"
    listed = await resting(running)
    assert [(rest["backend"], rest["model"], rest["key"], rest["state"], rest["status"]) for rest in listed] == [
        (f"one-{back}", "m", "none", "cooling", 429) for back in PROTOCOLS
    ]
    assert all(28 < rest["seconds"] <= 30 for rest in listed)


async def test_another_model_of_a_limited_key_is_called_and_so_is_another_key(running: Stage) -> None:
    """`Retry-After: 30`: this key and model are skipped, the same key with another model is used."""

    def script(request: Received) -> Reply:
        limited = request.json["model"] == "m" and request.header("authorization") == "Bearer key-a-1"
        return (
            error_reply("openai-chat", 429, headers=[("retry-after", "30")])
            if limited
            else answering("openai-chat", False)
        )

    running.play(script)
    used = []
    for model in ("m", "m", "other"):
        assert (await ask(running, "openai-chat", f"keyed:{model}", False)).status == 200
    used = [
        (request.json["model"], (request.header("authorization") or "")[-3:]) for request in running.upstream.requests
    ]
    assert used == [("m", "a-1"), ("m", "b-1"), ("m", "b-1"), ("other", "a-1")]
    assert [(rest["model"], rest["key"]) for rest in await resting(running)] == [("m", "a")]


async def test_a_refused_key_is_left_alone_for_all_models(running: Stage) -> None:
    def script(request: Received) -> Reply:
        refused = request.header("authorization") == "Bearer key-a-1"
        return error_reply("openai-chat", 401) if refused else answering("openai-chat", False)

    running.play(script)
    for model in ("m", "m", "other"):
        assert (await ask(running, "openai-chat", f"keyed:{model}", False)).status == 200
    assert [(request.header("authorization") or "")[-3:] for request in running.upstream.requests] == [
        "a-1",
        "b-1",
        "b-1",
        "b-1",
    ]
    [rest] = await resting(running)
    assert (rest["key"], rest["state"], rest["model"], rest["status"]) == ("a", "disabled", "", 401)
    assert 590 < rest["seconds"] <= 600


@pytest.mark.parametrize("status", [400, 404, 405, 408, 409, 413, 422, 500, 502, 503, 504, 529])
@pytest.mark.parametrize("back", PROTOCOLS)
async def test_nothing_but_a_limit_or_a_stated_time_cools(running: Stage, back: Protocol, status: int) -> None:
    running.play(error_reply(back, status))
    for stream in (False, True):
        assert (await ask(running, back, f"one-{back}:m", stream)).status >= 400
    running.play(Reply(before=[Reset()]))
    assert (await ask(running, back, f"one-{back}:m", False)).status == 502
    assert await resting(running) == []


@pytest.mark.parametrize(
    ("status", "cools"), [(400, False), (404, False), (422, False), (500, False), (503, True), (529, True)]
)
@pytest.mark.parametrize("back", PROTOCOLS)
async def test_a_stated_time_counts_for_limits_and_overload_only(
    running: Stage, back: Protocol, status: int, cools: bool
) -> None:
    running.play(error_reply(back, status, headers=[("retry-after", "30")]))
    await ask(running, back, f"one-{back}:m", False)
    assert [rest["status"] for rest in await resting(running)] == ([status] if cools else [])


async def test_limits_without_a_time_double_from_one_second(running: Stage) -> None:
    """1, 2, 4 seconds: the first two are waited for here, the third is longer than what is left and told."""
    running.play(error_reply("openai-chat", 429))
    answer = await ask(running, "openai-chat", "one-openai-chat:m", False)
    assert answer.status == 429
    assert answer.headers["retry-after"] == "4"
    times = [request.at for request in running.upstream.requests]
    assert [round(later - sooner) for sooner, later in itertools.pairwise(times)] == [1, 2]
    [rest] = await resting(running)
    assert 3 < rest["seconds"] <= 4


async def test_a_success_clears_the_rest_and_the_doubling(running: Stage) -> None:
    limited, answered = error_reply("openai-chat", 429), answering("openai-chat", False)
    running.play([limited, answered])
    assert (await ask(running, "openai-chat", "one-openai-chat:m", False)).status == 200
    assert await resting(running) == []
    running.play([limited, answered])
    pending = asyncio.create_task(ask(running, "openai-chat", "one-openai-chat:m", False))
    async with asyncio.timeout(PATIENCE):
        while not (found := await resting(running)):
            pass
    assert found[0]["seconds"] <= 1
    assert (await pending).status == 200


async def test_cooldowns_are_cleared_for_one_back_end_or_for_all(running: Stage) -> None:
    for back in PROTOCOLS[:3]:
        running.play(error_reply(back, 429, headers=[("retry-after", "60")]))
        assert (await ask(running, back, f"one-{back}:m", False)).status == 429
    left = await failing.call(running, "DELETE", "/internal/cooldowns?backend=one-openai-chat")
    assert [rest["backend"] for rest in left.json["data"]] == ["one-openai-responses", "one-anthropic-messages"]
    running.play(by_element())
    assert (await ask(running, "openai-chat", "one-openai-chat:m", False)).status == 200
    assert (await ask(running, "anthropic-messages", "one-anthropic-messages:m", False)).status == 429
    assert (await failing.call(running, "DELETE", "/internal/cooldowns?backend=nobody")).json["data"] != []
    assert (await failing.call(running, "DELETE", "/internal/cooldowns")).json["data"] == []
    assert (await ask(running, "anthropic-messages", "one-anthropic-messages:m", False)).status == 200


# Clocks that jump


@pytest.mark.parametrize("jump", [-3600.0, 3600.0, 365 * 86400.0])
async def test_a_rest_is_measured_on_a_clock_that_never_jumps(jump: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock is read once, when the limit is announced; what it does later changes nothing."""
    steady = 100.0
    wall = 1_800_000_000.0
    monkeypatch.setattr(time, "time", lambda: wall)
    keyring = Keyring(lambda: steady)
    fault = Fault(kind="rate_limit", message="slow down", status=429)
    wait = stated_wait(fault, [("retry-after", formatdate(wall + 30, usegmt=True))], time.time())
    keyring.cool("b", "m", None, 429, wait)
    wall += jump
    rest = keyring.rest("b", "m", None)
    assert rest is not None and rest.seconds == pytest.approx(30)
    steady += 29.9
    assert keyring.rest("b", "m", None) is not None
    steady += 0.2
    assert keyring.rest("b", "m", None) is None


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose `sitecustomize` lets the wall clock of a Python process run ahead by what the file `ahead` says."""
    folder = tmp_path_factory.mktemp("clock")
    ahead = folder / "ahead"
    ahead.write_text("0")
    (folder / "sitecustomize.py").write_text(
        "import time\n"
        "real = time.time\n"
        "def jumping():\n"
        f"    with open({str(ahead)!r}) as file:\n"
        "        return real() + float(file.read())\n"
        "time.time = jumping\n"
    )
    return ahead


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def jumping(clock: Path) -> AsyncIterator[Stage]:
    async with Upstream(by_element()) as upstream:
        config: dict[str, Any] = {"backends": failing.pairs_at(upstream.url), "failover": {"max_wait_seconds": 3.5}}
        path = f"{clock.parent}{os.pathsep}{ROOT / 'src'}"
        with running_proxy(config=config, environment={"PYTHONPATH": path}) as proxy:
            yield Stage(proxy, upstream)


@pytest.mark.parametrize("jump", [-3600, 3600, -365 * 86400, 365 * 86400])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_jump_of_the_wall_clock_changes_no_rest(jumping: Stage, clock: Path, jump: int, stream: bool) -> None:
    """The clock jumps while the proxy waits for a key."""
    late = []
    for _ in range(MEASUREMENTS):
        await failing.wake(jumping)
        clock.write_text("0")
        provider = Limited("openai-chat", milliseconds, stream)
        jumping.play(provider)
        pending = asyncio.create_task(ask(jumping, "openai-chat", "one-openai-chat:m", stream))
        async with asyncio.timeout(PATIENCE):
            while not (before := await resting(jumping)):
                pass
        clock.write_text(str(jump))
        assert 0 < before[0]["seconds"] <= 0.35
        assert all(rest["seconds"] <= before[0]["seconds"] for rest in await resting(jumping))
        assert (await pending).status == 200
        late.append(provider.calls[1] - provider.end)
        assert late[-1] > -0.002
        if late[-1] <= LATE:
            break
    else:
        pytest.fail(f"the call came late: {late} s")
    answer = await ask(jumping, "openai-chat", "one-openai-chat:m", False)
    assert answer.status == 200
    row = await failing.row_of(jumping, answer.headers["x-request-id"], limit=1000)
    assert abs(row["timestamp"] - jump - time.time()) < 60  # the clock did jump


@pytest.mark.parametrize("skew", [-86400.0, 86400.0])
async def test_a_wall_clock_that_is_wrong_does_no_harm_where_the_provider_says_its_own(skew: float) -> None:
    now = 1_800_000_000.0
    fault = Fault(kind="rate_limit", message="slow down", status=429)
    headers = [("date", formatdate(now, usegmt=True)), ("retry-after", formatdate(now + 30, usegmt=True))]
    assert stated_wait(fault, headers, now + skew) == pytest.approx(30)
