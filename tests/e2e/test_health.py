"""Optional health checks (OPS-16, BE-07)."""

from __future__ import annotations

import http.client
import json
import time
from urllib.parse import urlsplit

from tests.support.proxy import KEY, Proxy, backends_at, running_proxy
from tests.support.raw import ask_minimal
from tests.support.upstream import Received, Reply, upstream_in_thread


def script(request: Received) -> Reply:
    if request.path.endswith("/models"):
        return Reply.json({"object": "list", "data": [{"id": "m", "object": "model"}]})
    return Reply.json({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}]})  # fmt: skip


def state_of(proxy: Proxy, backend: str) -> object:
    address = urlsplit(proxy.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
    connection.request("GET", "/internal/backends", headers={"authorization": f"Bearer {KEY}"})
    rows = json.loads(connection.getresponse().read())["data"]
    connection.close()
    return next(row["health"] for row in rows if row["id"] == backend)


def test_with_checks_on_the_first_use_of_a_back_end_reads_its_models_once() -> None:
    with (
        upstream_in_thread(script) as upstream,
        running_proxy(["--enable-health-checks"], config={"backends": backends_at(upstream.url)}) as proxy,
    ):
        for _ in range(3):
            assert ask_minimal(proxy, "openai-chat", "up-chat:m", False).status == 200
        deadline = time.monotonic() + 10
        while (state := state_of(proxy, "up-chat")) is None and time.monotonic() < deadline:
            pass
        assert isinstance(state, dict) and state["state"] == "ok"
        assert sum(request.path.endswith("/models") for request in upstream.requests) == 1


def test_without_checks_no_list_is_read_and_nothing_is_shown() -> None:
    with upstream_in_thread(script) as upstream, running_proxy(config={"backends": backends_at(upstream.url)}) as proxy:
        assert ask_minimal(proxy, "openai-chat", "up-chat:m", False).status == 200
        assert state_of(proxy, "up-chat") is None
        assert not any(request.path.endswith("/models") for request in upstream.requests)
