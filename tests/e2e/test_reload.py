"""CFG-07: edits take effect without a restart, all or nothing, and no request is lost or sees half a configuration."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.asking import body_of, say, wants_stream
from tests.e2e.keeping import CHAT, Place, ask, backend, backends, session_of, told, until
from tests.faults.stage import deltas, ending
from tests.server.process import Proxy, free_pair
from tests.support.upstream import Moment, Pause, Received, Reply, Upstream, upstream_in_thread

RATE: Final = 200
SECONDS: Final = 2.0
CLIENTS: Final = 8


@pytest.fixture(scope="module")
def provider() -> Iterator[Upstream]:
    with upstream_in_thread(say) as upstream:
        yield upstream


@pytest.fixture
def place(tmp_path: Path, provider: Upstream) -> Place:
    provider.script = say
    provider.forget()
    return Place(tmp_path)


def edition(url: str, n: int) -> dict[str, Any]:
    """Options that only make sense together: the default back end, a header of both back ends, and a route all name the edition."""
    own = f"b{n % 2}"
    return {
        "backends": {id: backend(url, id, headers={"x-edition": str(n)}) for id in ("b0", "b1")},
        "default_backend": own,
        "failover_routes": {"route": {"policy": "m", "elements": [f"{own}:m-{n}"]}},
    }


def edition_of(received: Received) -> int:
    """The edition that the request was sent under; fails when its parts are of two."""
    n = int(received.header("x-edition") or "-1")
    assert received.path == f"/b{n % 2}/v1/chat/completions", (n, received.path)
    model = received.json["model"]
    assert model in ("m", f"m-{n}"), (n, model)
    return n


def reload(proxy: Proxy) -> list[str]:
    answer = proxy.request("POST", "/internal/reload")
    assert answer.status == 200, answer.body
    changed = answer.json["changed"]
    assert isinstance(changed, list)
    return changed


def test_no_request_is_dropped_or_sees_half_a_configuration(place: Place, provider: Upstream) -> None:
    place.write(**edition(provider.url, 0))
    with place.run() as proxy:
        begun = time.monotonic()

        def client(number: int) -> list[str]:
            """One of the clients; what went wrong."""
            wrong = []
            for n in range(int(RATE * SECONDS) // CLIENTS):
                # The pace of the load, not a wait for anything.
                time.sleep(max(0.0, begun + (n * CLIENTS + number) / RATE - time.monotonic()))
                stream = n % 2 == 0
                body = body_of("openai-chat", ("m", "route")[n // 2 % 2], stream)
                answer = proxy.post(CHAT, body, {"x-session-id": f"c{number}"})
                whole = answer.body.endswith(b"data: [DONE]\n\n") if stream else b"w0 w1 w2" in answer.body
                if answer.status != 200 or not whole:
                    wrong.append(f"{answer.status} {answer.body!r}")
            return wrong

        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(client, number) for number in range(CLIENTS)]
            last = 0
            while not all(running.done() for running in clients):
                last += 1
                place.write(**edition(provider.url, last))
                reload(proxy)
                place.file.write_text('{"default_backend": "b0", oops')
                assert proxy.request("POST", "/internal/reload").status in (400, 422)
            assert [running.result() for running in clients] == [[]] * CLIENTS
        editions = [edition_of(received) for received in provider.requests]
        assert len(editions) == RATE * SECONDS and len(set(editions)) > 5
        told(proxy, "hi", "edits")
        assert edition_of(provider.requests[-1]) == last, "the last good edit is in force"


def test_an_edit_is_noticed_without_being_told(place: Place, provider: Upstream) -> None:
    """given a route is added to the file, then within 3 s new requests use it."""
    place.write(backends=backends(provider.url, "one", "two"), default_backend="one")
    with place.run() as proxy:
        told(proxy, "hi", model="fast")
        assert provider.requests[-1].path.startswith("/one/")
        place.write(
            backends=backends(provider.url, "one", "two"),
            default_backend="one",
            failover_routes={"fast": {"policy": "m", "elements": ["two:quick"]}},
        )

        def used() -> bool:
            told(proxy, "hi", model="fast")
            last = provider.requests[-1]
            return (last.path, last.json["model"]) == ("/two/v1/chat/completions", "quick")

        until(used, "the new route", within=10)
        until(lambda: "failover_routes.fast" in proxy.log, "the line in the log")


def test_an_edit_with_a_syntax_error_changes_nothing_and_names_its_place(place: Place, provider: Upstream) -> None:
    """given an edit with a syntax error and a valid change, then neither is applied, the log names line and column, requests go on."""
    place.write(backends=backends(provider.url, "one", "two"), default_backend="one")
    with place.run() as proxy:
        broken = {"backends": backends(provider.url, "one", "two"), "default_backend": "two"}
        place.file.write_text(json.dumps(broken, indent=1).removesuffix("\n}") + ',\n "command_prefix" "##"\n}\n')
        until(lambda: "ERROR" in proxy.log, "the error in the log")
        [line] = [line for line in proxy.log.splitlines() if "ERROR" in line]
        place_named = re.search(r"mine\.json:(\d+):(\d+)", line)
        assert place_named, line
        rows = place.file.read_text().splitlines()
        assert "command_prefix" in rows[int(place_named[1]) - 1] and int(place_named[2]) > 1
        told(proxy, "hi")
        assert provider.requests[-1].path.startswith("/one/")
        assert told(proxy, "!/pwd") != "w0 w1 w2 "
        refused = proxy.request("POST", "/internal/reload")
        assert refused.status in (400, 422) and re.search(rb"mine\.json:\d+:\d+", refused.body)
        place.write(**broken)
        reload(proxy)
        told(proxy, "hi")
        assert provider.requests[-1].path.startswith("/two/")


def test_a_running_stream_ends_normally_under_its_own_configuration(place: Place, provider: Upstream) -> None:
    """given a running stream, when the file changes, then the stream ends normally."""
    go_on = Moment()

    def script(request: Received) -> Reply:
        if not wants_stream(request):
            return say(request)
        return Reply.sse(*deltas("openai-chat"), Pause(go_on), *ending("openai-chat"))

    provider.script = script
    place.write(backends=backends(provider.url, "one", "two"), default_backend="one")
    with place.run() as proxy:
        stream = proxy.stream(CHAT, body_of("openai-chat", "m", True, session_id="s"))
        assert stream.line().startswith(b"data:")
        place.write(backends=backends(provider.url, "two"), default_backend="two")
        reload(proxy)
        told(proxy, "hi", "other")
        assert provider.requests[-1].path.startswith("/two/")
        go_on.happen()
        assert stream.rest().endswith(b"data: [DONE]\n\n")
        until(lambda: bool(session_of(proxy, "s")["history"]), "the entry of the stream")
        [entry] = session_of(proxy, "s")["history"]
        assert (entry["backend"], entry["status"]) == ("one", 200)


def test_a_hang_up_signal_reloads(place: Place, provider: Upstream) -> None:
    place.write(backends=backends(provider.url, "one", "two"), default_backend="one", config_watch=False)
    with place.run() as proxy:
        place.write(backends=backends(provider.url, "one", "two"), default_backend="two", config_watch=False)
        proxy.send_signal(signal.SIGHUP)
        until(lambda: "default_backend: one -> two" in proxy.log, "the reload")
        told(proxy, "hi")
        assert provider.requests[-1].path.startswith("/two/")


def test_a_changed_port_needs_a_restart_and_the_rest_is_live(place: Place, provider: Upstream) -> None:
    """given a changed port, then a warning says that a restart is needed, and the other changes are live."""
    place.write(backends=backends(provider.url, "one", "two"), default_backend="one")
    port, other = free_pair(), free_pair()
    with place.run(env={"PROXY_PORT": ""}) as proxy:
        place.write(
            backends=backends(provider.url, "one", "two"),
            default_backend="two",
            proxy={"host": "127.0.0.2", "port": port, "anthropic_port": other},
            session={"repository": "file"},
        )
        changed = reload(proxy)
        assert changed == ["default_backend: one -> two"]
        told(proxy, "hi")
        assert provider.requests[-1].path.startswith("/two/")
        until(lambda: "session.repository" in proxy.log, "the warning")
        warned = [line for line in proxy.log.splitlines() if "restart is needed" in line]
        assert all("WARNING" in line for line in warned)
        # The port itself was given as a flag, which wins over the file anyway.
        for name in ("proxy.host", "proxy.anthropic_port", "session.repository"):
            assert any(name in line for line in warned), (name, warned)


def test_an_edit_of_the_env_file_is_live_and_no_secret_is_logged(place: Place, provider: Upstream) -> None:
    keyed = {"type": "openai", "base_url": f"{provider.url}/one/v1", "api_keys": ["${OWN_KEY}"]}
    place.write(backends={"one": keyed}, default_backend="one")
    (place.folder / ".env").write_text("OWN_KEY=sk-canary-first-0001\n")
    with place.run() as proxy:
        told(proxy, "hi")
        assert provider.requests[-1].header("authorization") == "Bearer sk-canary-first-0001"
        (place.folder / ".env").write_text("OWN_KEY=sk-canary-other-0002\n")

        def used() -> bool:
            told(proxy, "hi")
            return provider.requests[-1].header("authorization") == "Bearer sk-canary-other-0002"

        until(used, "the new key")
        until(lambda: "backends.one.api_keys" in proxy.log, "the line in the log")
        assert "canary" not in proxy.log


def test_the_log_level_changes_and_changes_back(place: Place, provider: Upstream) -> None:
    place.write(backends=backends(provider.url, "one"), logging={"level": "warning"})
    with place.run() as proxy:
        told(proxy, "hi", "quiet")
        place.write(backends=backends(provider.url, "one"), logging={"level": "info"})
        reload(proxy)
        told(proxy, "hi", "loud")
        until(lambda: "-> one:m 200" in proxy.log, "the request's line")
        assert proxy.log.count("-> one:m 200") == 1
        place.write(backends=backends(provider.url, "one"), logging={"level": "error"})
        reload(proxy)
        told(proxy, "hi", "quiet again")
        assert proxy.stop() == 0
        assert proxy.log.count("-> one:m 200") == 1


def test_what_was_saved_in_the_chat_outlives_a_reload(place: Place, provider: Upstream) -> None:
    place.write(backends=backends(provider.url, "one", "two"), default_backend="one")
    with place.run() as proxy:
        told(proxy, "!/set(default-backend=two)")
        told(proxy, "!/set(temperature=0.5)", "mine")
        place.write(backends=backends(provider.url, "one", "two", "three"), default_backend="three")
        reload(proxy)
        told(proxy, "hi", "mine")
        assert provider.requests[-1].path.startswith("/two/") and provider.requests[-1].json["temperature"] == 0.5
        told(proxy, "!/unset(default-backend)")
        told(proxy, "hi")
        assert provider.requests[-1].path.startswith("/three/"), "the edited file shows through"


def test_changes_in_the_chat_and_reloads_at_once_lose_nothing(place: Place, provider: Upstream) -> None:
    place.write(backends=backends(provider.url, "one", "two"), default_backend="one")
    with place.run() as proxy:
        told(proxy, "!/create-failover-route(r, m)")
        done = threading.Event()

        def keep_reloading() -> int:
            n = 0
            while not done.is_set():
                n += 1
                place.write(backends=backends(provider.url, "one", "two"), default_backend=("one", "two")[n % 2])
                reload(proxy)
            return n

        with ThreadPoolExecutor(9) as pool:
            reloads = pool.submit(keep_reloading)
            try:
                said = [f"!/route-append(name=r, one:m{n})" for n in range(60)]
                changes = [pool.submit(ask, proxy, text, f"c{n}") for n, text in enumerate(said)]
                assert {change.result().status for change in changes} == {200}
            finally:
                done.set()
            assert reloads.result() > 1
        elements = place.state["failover_routes"]["r"]["elements"]
        assert sorted(elements) == sorted(f"one:m{n}" for n in range(60))
        assert told(proxy, "!/route-list(r)") == f"r (policy m): {', '.join(elements)}"
