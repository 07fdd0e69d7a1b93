"""Failover while everything goes wrong: three back ends that fail two calls in five in every known way, forty requests at once.

The fate of each (request, back end) pair is drawn beforehand, so that it is known which requests could have been answered: each of them
is, exactly once, by a text that names it, and its usage is counted once. What failed after content is never tried again (RT-09, U-25).
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from tests.faults import failing
from tests.faults.stage import PATIENCE, Stage
from tests.faults.storm import AFTER, LIMITED, OK, Outcome, Storm, elements_of, requests_for, send_all, text_for
from tests.support.proxy import Proxy, running_proxy
from tests.support.shared import Protocol
from tests.support.upstream import Upstream, refusing_url

SEED: Final = 20_261
AT_ONCE: Final = 40
BLOCK: Final = 500
"""Usage is read after so many requests: the page shows at most a thousand rows."""
SILENCE: Final = 4.0
"""Seconds of a back end's `timeout`: a machine under load must not take an answer for a silent provider."""

KEYLESS: Final[dict[str, Protocol]] = {"chat": "openai-chat", "claude": "anthropic-messages", "google": "gemini"}
KEYED: Final[dict[str, Protocol]] = {
    "chat": "openai-chat",
    "native": "openai-responses",
    "claude": "anthropic-messages",
}


def without_keys() -> dict[str, tuple[str, ...]]:
    """All orders of the three; in some routes a back end that refuses connections comes first."""
    orders = {f"route-{n}": order for n, order in enumerate(itertools.permutations(KEYLESS))}
    return {**orders, "route-gone": ("gone", *KEYLESS)}


def with_keys(policy: str) -> dict[str, tuple[str, ...]]:
    """Two keys each, in the order of the policy."""
    routes = {}
    for n, order in enumerate(itertools.permutations(KEYED)):
        both = [(id, key) for id in order for key in "ab"]
        both = both if policy == "km" else [(id, key) for key in "ab" for id in order]
        routes[f"route-{n}"] = tuple(f"{id}/{key}" for id, key in both)
    return routes


def settings(
    url: str, back_ends: dict[str, Protocol], routes: dict[str, tuple[str, ...]], policy: str
) -> dict[str, Any]:
    made = {
        id: failing.backend(url, id, protocol, timeout=SILENCE, max_connections=8) for id, protocol in back_ends.items()
    }
    if policy != "m":
        for id, one in made.items():
            made[id] = {**one, "no_auth": False, "api_keys": {key: f"provider-key-of-{id}-{key}" for key in "ab"}}
    made["gone"] = {"type": "openai", "base_url": f"{refusing_url()}/v1", "no_auth": True}
    return {
        "backends": made,
        "failover_routes": {
            name: {"policy": policy, "elements": elements_of(targets)} for name, targets in routes.items()
        },
        "failover": {"max_wait_seconds": 30.0},
    }


async def weather(
    storm: Storm, config: dict[str, Any], upstream: Upstream
) -> tuple[list[Outcome], list[dict[str, Any]]]:
    """Sends the whole storm through one proxy. Gives what the clients got and the rows of the usage page."""
    with running_proxy(["--log-level", "DEBUG"], config) as proxy:
        stage = Stage(proxy, upstream)
        outcomes: list[Outcome] = []
        rows: list[dict[str, Any]] = []
        calm = descriptors(proxy)
        for start in range(0, len(storm.requests), BLOCK):
            block = storm.requests[start : start + BLOCK]
            outcomes += await send_all(proxy.url, block, AT_ONCE)
            upstream.forget()
            rows += [row for row in await usage(stage) if start <= int(row["id"][3:]) < start + BLOCK]
        await settled(proxy, calm + 2 * 8)  # idle connections that are kept
        assert proxy.stop() == 0
        assert_quiet(proxy)
    return outcomes, rows


def descriptors(proxy: Proxy) -> int:
    """Open files and sockets of the proxy; 0 on systems that do not show them."""
    folder = Path(f"/proc/{proxy.process.pid}/fd")
    return len(os.listdir(folder)) if folder.is_dir() else 0


async def settled(proxy: Proxy, base: int) -> None:
    """Until the proxy holds no more descriptors than that; fails when it keeps them."""
    async with asyncio.timeout(PATIENCE):
        while descriptors(proxy) > base:
            await asyncio.sleep(0.02)


async def usage(stage: Stage) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (await failing.call(stage, "GET", "/v1/usage/recent?limit=1000")).json["data"]
    return rows


def assert_quiet(proxy: Proxy) -> None:
    """No exception was logged, and none was left unread."""
    for sign in ("Traceback", "exception", "never retrieved", "was destroyed", "was never awaited", "failed to serve"):
        assert sign not in proxy.output, proxy.output[-4000:]


def judge(storm: Storm, outcome: Outcome) -> str:
    """What became of one request; "" when it is what it must be, else what is wrong."""
    asked, answer, calls = outcome.asked, outcome.answer, storm.calls[outcome.asked.id]
    answered = [call for call in calls if call.answered]
    broken = [call for call in calls if call.fate in AFTER]
    if not answer.complete:
        return "the answer does not end in order"
    if len(answered) > 1:
        return f"answered {len(answered)} times"
    if broken:
        if len(broken) > 1 or calls[-1] is not broken[0] or answered:
            return "something was attempted after content"
        if answer.status != 200 or not failing.ends_in_failure(asked.client, answer):
            return f"a stream that broke after content ended as {answer.status} without saying so"
        return "" if failing.text_of(asked.client, answer) == "w0 " else "the text before the break is another"
    if not storm.answerable(asked):
        tried = {call.target for call in calls} | {"gone"}
        if set(asked.targets) - tried:
            return f"not attempted: {set(asked.targets) - tried}"
        return "" if answer.status >= 400 else f"answered by nobody, but status {answer.status}"
    if answer.status != 200:
        return f"could have been answered, but got {answer.status}: {answer.body[:300]!r}"
    if not answered or calls[-1] is not answered[0]:
        return "the answer is not the last call"
    text = failing.text_of(asked.client, answer) if asked.stream else failing.text_of_whole(asked.client, answer.json)
    expected = text_for(asked.id, answered[0].target)
    return "" if text == expected else f"text {text!r} instead of {expected!r}"


def judge_usage(storm: Storm, outcome: Outcome, row: dict[str, Any]) -> str:
    """Whether the row says what happened."""
    asked = outcome.asked
    overloaded = {row["status"], outcome.answer.status} <= {503, 529}  # which of the two is the protocol's choice
    if (
        (row["status"] != outcome.answer.status and not overloaded)
        or row["stream"] != asked.stream
        or row["surface"] != asked.client
    ):
        return f"the row tells of another exchange: {row}"
    answered = [call for call in storm.calls[asked.id] if call.answered]
    if not answered:
        return ""
    counted = (row["prompt_tokens"], row["completion_tokens"], row["token_source"])
    if counted != (asked.prompt, asked.completion, "reported"):
        return f"counted {counted}, said ({asked.prompt}, {asked.completion})"
    if row["backend"] != answered[0].target.partition("/")[0]:
        return f"the row names {row['backend']}"
    return "" if row["attempts"] == int(outcome.answer.headers.get("x-llm-proxy-attempts", "1")) else "attempts differ"


async def fire(count: int, back_ends: dict[str, Protocol], policy: str, seed: int = SEED) -> None:
    routes = without_keys() if policy == "m" else with_keys(policy)
    requests = requests_for(count, routes)
    if policy == "m":
        storm = Storm(seed, requests)
    else:
        # A refusal would put a key away for ten minutes and for everybody. With six tries for each request more must fail.
        storm = Storm(seed, requests, frozenset({"status 401", "status 403"}), faulty=0.6)
    async with Upstream(storm.script) as upstream:
        outcomes, rows = await weather(storm, settings(upstream.url, back_ends, routes, policy), upstream)
    wrong = [f"{one.asked} {storm.calls[one.asked.id]}: {why}" for one in outcomes if (why := judge(storm, one))]
    assert not wrong, f"{len(wrong)} of {count}:\n" + "\n".join(wrong[:10])
    by_id: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_id.setdefault(row["id"], []).append(row)
    assert {id: len(found) for id, found in by_id.items()} == {asked.id: 1 for asked in storm.requests}
    wrong = [f"{one.asked}: {why}" for one in outcomes if (why := judge_usage(storm, one, by_id[one.asked.id][0]))]
    assert not wrong, f"{len(wrong)} of {count}:\n" + "\n".join(wrong[:10])
    assert_worth_it(storm, outcomes)


def assert_worth_it(storm: Storm, outcomes: list[Outcome]) -> None:
    """The storm was one: every kind of fault came up, requests were answered at every place of their route, some by nobody."""
    met = Counter(call.fate for calls in storm.calls.values() for call in calls)
    kinds = {OK, *LIMITED, *AFTER}
    assert kinds <= set(met)
    assert len(met) >= 35 or len(storm.requests) < 500
    places = Counter(
        one.asked.targets.index(call.target) for one in outcomes for call in storm.calls[one.asked.id] if call.answered
    )
    assert set(places) >= {0, 1, 2}
    assert any(not storm.answerable(asked) for asked in storm.requests)


async def test_every_request_that_any_back_end_could_answer_is_answered_once() -> None:
    await fire(300, KEYLESS, "m")


@pytest.mark.long
async def test_so_it_is_with_several_keys_each() -> None:
    await fire(250, KEYED, "mk")


@pytest.mark.long
async def test_of_two_thousand_requests_every_one_that_could_be_answered_is_answered_once() -> None:
    await fire(2000, KEYLESS, "m")


@pytest.mark.long
@pytest.mark.parametrize("policy", ["km", "mk"])
async def test_two_thousand_requests_with_several_keys_each(policy: str) -> None:
    await fire(2000, KEYED, policy)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
async def test_other_storms(seed: int) -> None:
    await fire(2000, KEYLESS, "m", seed)
