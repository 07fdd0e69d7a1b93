"""RT-04, RT-05, RT-07: what the operator pinned, written with blanks or naming a route that is not there."""

from __future__ import annotations

import pytest

from tests.e2e.asking import PROTOCOLS, body_of, error_of, path_of, say, started
from tests.e2e.keeping import backends
from tests.support.upstream import upstream_in_thread


@pytest.mark.parametrize("lock", ["static_route", "force_model"])
def test_blanks_around_a_pinned_name_are_no_part_of_it(lock: str) -> None:
    with upstream_in_thread(say) as upstream:
        config = {"backends": backends(upstream.url, "a", "b"), "default_backend": "a", lock: " b:pinned "}
        with started(config=config) as proxy:
            assert proxy.post("/v1/chat/completions", body_of("openai-chat", "x")).status == 200
        [request] = upstream.requests
        assert (request.path, request.json["model"]) == ("/b/v1/chat/completions", "pinned")


def test_a_route_that_is_not_there_is_told_in_every_protocol_and_nobody_is_called() -> None:
    with upstream_in_thread(say) as upstream:
        route = {"policy": "m", "elements": ["a:m"]}
        config = {"backends": backends(upstream.url, "a"), "default_backend": "a", "failover_routes": {"there": route}}
        with started(config=config) as proxy:
            for client in PROTOCOLS:
                answer = proxy.post(path_of(client, "route:gone"), body_of(client, "route:gone"))
                assert answer.status == 404
                message = error_of(client, answer)["message"]
                assert "failover route gone" in message and "there" in message
            [left_out] = proxy.get("/internal/routing?model=route:gone").json["left_out"]
            assert left_out["reason"] == message
        assert upstream.requests == []
