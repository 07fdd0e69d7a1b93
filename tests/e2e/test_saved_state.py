"""CFG-06, CMD-08, CMD-11: what is changed for all in the chat is kept, is nobody's who may not, and leaves the user's file alone."""

from __future__ import annotations

import json
import socket
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.asking import body_of, say
from tests.e2e.keeping import CHAT, Place, ask, backends, told
from tests.server.process import Proxy
from tests.support.upstream import Upstream, upstream_in_thread

KEYS: Final = {"ann": "key-of-ann-0001", "bob": "key-of-bob-0001"}


@pytest.fixture(scope="module")
def provider() -> Iterator[Upstream]:
    with upstream_in_thread(say) as upstream:
        yield upstream


@pytest.fixture
def place(tmp_path: Path, provider: Upstream) -> Place:
    provider.forget()
    found = Place(tmp_path)
    found.write(backends=backends(provider.url, "one", "two"), default_backend="one")
    return found


def reached(proxy: Proxy, provider: Upstream, model: str = "m", session: str = "plain") -> str:
    """The back end that a plain request goes to, and the model that it is asked for."""
    told(proxy, "hi", session, model=model)
    last = provider.requests[-1]
    return f"{last.path.split('/')[1]}:{last.json['model']}"


def test_a_default_set_in_the_chat_survives_a_restart_and_the_file_stays(place: Place, provider: Upstream) -> None:
    """given `!/set(default-backend=…)` then a restart, then it is the default and the config file is byte-identical."""
    before = place.file.read_bytes()
    with place.run() as proxy:
        assert "Saved for all sessions" in told(proxy, "!/set(default-backend=two)")
        assert reached(proxy, provider) == "two:m"
        assert place.state["values"] == {"default_backend": "two"}
        assert stat.S_IMODE(place.state_file.stat().st_mode) == 0o600
    assert place.file.read_bytes() == before
    with place.run() as proxy:
        assert reached(proxy, provider) == "two:m"
        told(proxy, "!/unset(default-backend)")
        assert reached(proxy, provider) == "one:m"
    assert place.state["values"] == {} and place.file.read_bytes() == before
    with place.run() as proxy:
        assert reached(proxy, provider) == "one:m"


def test_a_value_that_a_message_changes_for_all_holds_for_that_message(place: Place, provider: Upstream) -> None:
    with place.run() as proxy:
        told(proxy, "!/set(default-backend=two) and now")
    assert provider.requests[-1].path.startswith("/two/")


def test_a_state_file_cut_in_half_is_renamed_and_the_start_succeeds(place: Place, provider: Upstream) -> None:
    with place.run() as proxy:
        told(proxy, "!/set(default-backend=two)")
    whole = place.state_file.read_bytes()
    place.state_file.write_bytes(whole[: len(whole) // 2])
    with place.run() as proxy:
        assert reached(proxy, provider) == "one:m"
        bad = place.state_file.with_name(place.state_file.name + ".bad")
        assert bad.read_bytes() == whole[: len(whole) // 2] and not place.state_file.exists()
        assert bad.name in proxy.log
        told(proxy, "!/set(default-backend=two)")
    assert json.loads(place.state_file.read_bytes())["values"] == {"default_backend": "two"}


@pytest.mark.parametrize(
    ("flags", "env", "winner"),
    [(("--default-backend", "one"), {}, "--default-backend"), ((), {"LLM_BACKEND": "one"}, "LLM_BACKEND")],
    ids=["flag", "env"],
)
def test_a_locked_value_is_saved_but_not_effective(
    place: Place, provider: Upstream, flags: tuple[str, ...], env: dict[str, str], winner: str
) -> None:
    with place.run(*flags, env=env) as proxy:
        reply = told(proxy, "!/set(default-backend=two)")
        assert "saved" in reply and "not effective" in reply and winner in reply
        assert reached(proxy, provider) == "one:m"
    assert place.state["values"] == {"default_backend": "two"}
    with place.run() as proxy:
        assert reached(proxy, provider) == "two:m"


def test_fifty_changes_at_once_are_all_saved(place: Place, provider: Upstream) -> None:
    """given 50 parallel route commands, then the state file is valid JSON holding all changes."""
    place.write(
        backends=backends(provider.url, "one", "two"),
        failover_routes={"r0": {"policy": "k", "elements": ["one:first"]}},
    )
    before = place.file.read_bytes()
    said = [f"!/route-append(name=r{n % 3}, two:m{n})" for n in range(36)]
    said += [f"!/create-failover-route(name=new{n}, policy=m)" for n in range(10)]
    said += ["!/set(default-backend=two)", "!/set(default-interactive=false)", "!/set(command-prefix=##)"]
    said += ["!/set(default-backend=two) !/route-append(new, one:last)"]
    with place.run() as proxy:
        told(proxy, "!/create-failover-route(r1, m) !/create-failover-route(r2, mk)")
        with ThreadPoolExecutor(len(said)) as pool:
            prefixed = said.pop(said.index("!/set(command-prefix=##)"))
            answers = list(pool.map(lambda each: ask(proxy, each[1], f"c{each[0]}"), enumerate(said)))
            told(proxy, prefixed)
        assert [answer.status for answer in answers] == [200] * 49
        shown = told(proxy, "##route-list")
        assert "##" in told(proxy, "##hello") and told(proxy, "!/hello").startswith("w0")
    state = place.state
    assert state["values"] == {
        "default_backend": "two", "session.default_interactive_mode": False, "command_prefix": "##"
    }  # fmt: skip
    routes = state["failover_routes"]
    assert routes.keys() == {"r0", "r1", "r2", "new", *(f"new{n}" for n in range(10))}
    for n in range(3):
        kept = ["one:first"] if n == 0 else []
        elements = routes[f"r{n}"]["elements"]
        assert elements[: len(kept)] == kept
        assert sorted(elements[len(kept) :]) == sorted(f"two:m{m}" for m in range(36) if m % 3 == n)
        assert ", ".join(elements) in shown
    assert (routes["r0"]["policy"], routes["r2"]["policy"]) == ("k", "mk")
    assert routes["new"]["elements"] == ["one:last"]
    assert place.file.read_bytes() == before
    with place.run() as proxy:
        assert told(proxy, "##route-list") == shown


def test_a_change_is_based_on_what_holds_when_the_command_runs(place: Place) -> None:
    """A request whose body was slow does not undo what others changed while it was read."""
    with place.run() as proxy, socket.create_connection(proxy.main, timeout=10) as slow:
        told(proxy, "!/create-failover-route(r, m)")
        body = json.dumps(body_of("openai-chat", "m", said="!/route-append(name=r, one:slow)")).encode()
        head = (
            f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {proxy.key}\r\nContent-Type: application/json\r\n"
            f"Expect: 100-continue\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )  # fmt: skip
        slow.sendall(head.encode())
        assert slow.recv(65536).startswith(b"HTTP/1.1 100 ")
        told(proxy, "!/route-append(name=r, one:quick)")
        slow.sendall(body)
        answer = b"".join(iter(lambda: slow.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert "one:quick, one:slow" in told(proxy, "!/route-list(r)")
    assert place.state["failover_routes"]["r"]["elements"] == ["one:quick", "one:slow"]


def test_a_route_of_the_file_that_was_deleted_stays_away(place: Place, provider: Upstream) -> None:
    """deleting a route of the file stores its name in `deleted_routes`."""
    place.write(
        backends=backends(provider.url, "one", "two"),
        default_backend="one",
        failover_routes={"r": {"policy": "m", "elements": ["two:of-file"]}},
    )
    with place.run() as proxy:
        assert reached(proxy, provider, "r") == "two:of-file"
        told(proxy, "!/delete-failover-route(r)")
        assert reached(proxy, provider, "r") == "one:r"
    assert place.state["deleted_routes"] == ["r"]
    with place.run() as proxy:
        assert reached(proxy, provider, "r") == "one:r"
        told(proxy, "!/create-failover-route(r, m) !/route-append(name=r, two:of-chat)")
    assert place.state["deleted_routes"] == []
    with place.run() as proxy:
        assert reached(proxy, provider, "r") == "two:of-chat"


def test_a_prefix_set_in_the_chat_holds_after_a_restart(place: Place, provider: Upstream) -> None:
    """given `!/set(command-prefix=##)`, then `##help` works, `!/help` is text, also after a restart."""
    with place.run() as proxy:
        told(proxy, "!/set(command-prefix=##)")
        assert "##help" in told(proxy, "##hello")
    with place.run() as proxy:
        assert told(proxy, "##pwd") and not provider.requests
        told(proxy, "!/help")
        assert provider.requests[-1].json["messages"][-1]["content"] == "!/help"
        provider.forget()
        told(proxy, "##unset(command-prefix)")
        assert "!/help" in told(proxy, "!/hello") and not provider.requests
    with place.run() as proxy:
        assert "!/help" in told(proxy, "!/hello") and not provider.requests
    assert place.state["values"] == {}


# CMD-08

FOR_ALL: Final = (
    "!/set(default-backend=two)",
    "!/set(default-interactive=false)",
    "!/unset(default-backend)",
    "!/create-failover-route(x, m)",
    "!/delete-failover-route(r)",
    "!/route-append(name=r, two:n)",
    "!/route-prepend(r, two:n)",
    "!/route-clear(r)",
)


def offered(place: Place, provider: Upstream, keys: dict[str, str], **more: object) -> None:
    auth = {"api_keys": keys, **({"admin_keys": more.pop("admins")} if "admins" in more else {})}
    place.write(
        backends=backends(provider.url, "one", "two"),
        default_backend="one",
        failover_routes={"r": {"policy": "m", "elements": ["one:of-file"]}},
        auth=auth,
        **more,
    )


def assert_refused(place: Place, provider: Upstream, proxy: Proxy, key: str) -> None:
    for said in FOR_ALL:
        reply = told(proxy, said, key=key)
        assert "everyone" in reply or "switched off" in reply, reply
    told(proxy, "!/set(temperature=0.5, default-backend=two)", "both", key=key)
    told(proxy, "!/route-list(r) hi", "both", key=key)
    assert "temperature" not in provider.requests[-1].json, "all or nothing"
    told(proxy, "hi", "plain", key=key)
    assert provider.requests[-1].path.startswith("/one/")
    assert told(proxy, "!/route-list(r)", key=key) == "r (policy m): one:of-file"
    told(proxy, "!/model(two:own)", key=key)
    told(proxy, "hi", key=key)
    assert provider.requests[-1].json["model"] == "own", "what is the session's own may be set"
    assert not place.state_file.exists() or place.state["values"] == {}


def assert_allowed(place: Place, proxy: Proxy, key: str) -> None:
    assert "Saved for all" in told(proxy, FOR_ALL[0], "x", key=key)
    assert "two:n" in told(proxy, FOR_ALL[5], "x", key=key)
    assert place.state["values"] == {"default_backend": "two"}
    assert place.state["failover_routes"]["r"]["elements"] == ["one:of-file", "two:n"]


def test_of_two_keys_without_admin_none_changes_the_proxy_for_all(place: Place, provider: Upstream) -> None:
    offered(place, provider, KEYS)
    with place.run(keyed=False) as proxy:
        for key in KEYS.values():
            assert_refused(place, provider, proxy, key)


def test_an_only_key_may_change_the_proxy_for_all(place: Place, provider: Upstream) -> None:
    offered(place, provider, {"ann": KEYS["ann"]})
    with place.run(keyed=False) as proxy:
        assert_allowed(place, proxy, KEYS["ann"])


def test_an_admin_key_may_and_the_other_may_not(place: Place, provider: Upstream) -> None:
    offered(place, provider, KEYS, admins=["ann"])
    with place.run(keyed=False) as proxy:
        assert_refused(place, provider, proxy, KEYS["bob"])
        assert_allowed(place, proxy, KEYS["ann"])


def test_never_refuses_also_the_only_key_and_admins(place: Place, provider: Upstream) -> None:
    offered(place, provider, KEYS, admins=["ann"], commands={"allow_global": "never"})
    with place.run(keyed=False) as proxy:
        assert_refused(place, provider, proxy, KEYS["ann"])
    offered(place, provider, {"ann": KEYS["ann"]}, commands={"allow_global": "never"})
    with place.run(keyed=False) as proxy:
        assert_refused(place, provider, proxy, KEYS["ann"])


def test_always_allows_every_key(place: Place, provider: Upstream) -> None:
    offered(place, provider, KEYS, commands={"allow_global": "always"})
    with place.run(keyed=False) as proxy:
        assert_allowed(place, proxy, KEYS["bob"])


def test_what_was_executed_holds_although_the_rest_of_the_message_is_refused(place: Place, provider: Upstream) -> None:
    """CMD-19 refuses the text without a project; the commands before it have run, those for all like those for the session."""
    place.write(
        backends=backends(provider.url, "one", "two"), default_backend="one", session={"force_set_project": True}
    )
    with place.run() as proxy:
        refused = ask(proxy, "!/set(default-backend=two, temperature=0.5) and now", "s")
        assert refused.status == 400 and b"project_required" in refused.body
        told(proxy, "!/set(project=p) go", "s")
        last = provider.requests[-1]
        assert (last.path, last.json["temperature"]) == ("/two/v1/chat/completions", 0.5)
    assert place.state["values"] == {"default_backend": "two"}
