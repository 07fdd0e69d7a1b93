"""The known failures of translators (translation.md section 11, `cases.json`), each as a test: requests through the dialects, answers
through the running proxy and the official SDK.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from llm_proxy import dialects
from llm_proxy.dialects.base import Target
from llm_proxy.dialects.capabilities import lookup
from llm_proxy.dialects.reasoning import Envelope, restore
from llm_proxy.wire import json as wire_json
from tests.support import casecheck, raw, sdk
from tests.support.proxy import BACKEND_OF, KEY, Proxy, backends_at, running_proxy
from tests.support.shared import Case, cases, needs_shared
from tests.support.upstream import Received, Reply, Upstream, upstream_in_thread

_REQUESTS = [case for case in cases() if case.kind == "request"]
_ANSWERS = [case for case in cases() if case.kind != "request"]
_OVERRIDES: dict[str, Any] = {"sampling": {False: "none", True: "all"}}


@needs_shared
@pytest.mark.parametrize("case", _REQUESTS, ids=str)
def test_request_case(case: Case) -> None:
    front, back = dialects.get(case.front), dialects.get(case.back)
    model = case.back_model or "m"
    overrides = {name: _OVERRIDES.get(name, {}).get(value, value) for name, value in case.capabilities.items()}
    target = Target(model=model, capabilities=lookup(case.back, model, overrides), maker="b/m")
    request = front.read_request(json.dumps(case.input).encode(), "m")
    restored = restore(request, Envelope(b"k"), lambda key: None)
    body = json.loads(wire_json.encode(back.write_request(restored, target).body))
    assert casecheck.failed_checks(case.expect, body=body) == []


@pytest.fixture(scope="module")
def stage() -> Iterator[tuple[Proxy, Upstream]]:
    with (
        upstream_in_thread(by_case) as upstream,
        running_proxy(config={"backends": backends_at(upstream.url)}) as proxy,
    ):
        yield proxy, upstream
    sdk.close_clients()


def by_case(request: Received) -> Reply:
    name = request.path if "/models/" in request.path else request.json["model"]
    case = _BY_ID[name.split("/models/")[-1].split(":")[0]]
    if case.kind == "response":
        return Reply.json(case.upstream, status=case.status)
    frames = []
    for event in case.upstream:
        name = f"event: {event['type']}\n" if isinstance(event, dict) and "type" in event else ""
        end = "\r\n\r\n" if case.back == "gemini" else "\n\n"
        text = event if isinstance(event, str) else json.dumps(event)
        frames.append(f"{name}data: {text}{end}".encode())
    if case.back == "openai-chat" and case.id != "upstream-cut":
        frames.append(b"data: [DONE]\n\n")
    return Reply.sse(b"".join(frames))


_BY_ID = {case.id: case for case in _ANSWERS}


@needs_shared
@pytest.mark.parametrize("case", _ANSWERS, ids=str)
def test_answer_case(stage: tuple[Proxy, Upstream], case: Case) -> None:
    if case.front == case.back:
        # The case says itself: only where the route is not byte pass-through. Another client shows it.
        client = "anthropic-messages"
    else:
        client = case.front
    model = f"{BACKEND_OF[case.back]}:{case.id}"
    stream = case.kind == "stream"
    thinking = bool(case.front_options.get("thinking")) or case.front == "openai-responses"
    got = sdk.ask_minimal(client, stage[0].url, KEY, model, stream, thinking=thinking)
    problems = casecheck.semantic_mismatches(case.semantic, got)
    answer = raw.ask_minimal(stage[0], client, model, stream)
    status, headers, data = answer.status, answer.headers, answer.body
    if stream:
        problems += casecheck.failed_checks(case.expect, stream=data, protocol=client, status=status, headers=headers)
    else:
        problems += casecheck.failed_checks(
            case.expect, body=json.loads(data), protocol=client, status=status, headers=headers
        )
    assert problems == []
