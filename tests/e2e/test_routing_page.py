"""What `GET /internal/routing` and `!/status` say is what then happens, whatever is configured, chosen and at rest (RT-02 to RT-11).

Random configurations are put in force one after the other in one proxy; a scripted provider brings keys to rest by real answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.e2e.asking import PROTOCOLS, body_of, keys, path_of, protocol_of, say
from tests.e2e.commanding import fresh_id, turns_of
from tests.e2e.keeping import Place, backend
from tests.server.process import Answer, Proxy, run
from tests.support.shared import Protocol
from tests.support.upstream import Received, Reply, Upstream, upstream_in_thread

Call = tuple[str, str, str]
"""Back end, model, key."""
State = Literal["healthy", "cooling", "disabled"]

TYPES: Final = ("openai", "anthropic", "gemini", "openai-responses")
IDS: Final = ("p", "q", "r", "s")
MODELS: Final = ("m1", "m2", "vendor/m3")
LONG: Final = 3000
_NUMBERS: Final = count()


# One world


@dataclass(frozen=True)
class Made:
    """One back end. `ready`: yes, or why not."""

    type: str
    states: tuple[State, ...]
    policy: str
    ready: Literal["yes", "keyless", "off"]
    warm: int
    members: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class World:
    """Everything that decides. `@` in a text stands for the number of the world, which makes ids of back ends its own."""

    backends: Mapping[str, Made]
    default: str
    routes: Mapping[str, Any]
    locks: Mapping[str, Any]
    aliases: tuple[dict[str, str], ...]
    limited: str
    planning: str
    typed: tuple[str, ...]
    begun: str
    requested: str
    winner: str
    client: Protocol
    stream: bool


_ids = st.sampled_from(IDS)
_models = st.sampled_from(MODELS)
_targets = st.builds(lambda id, model: f"{id}@:{model}", _ids, _models)
_maybe = st.one_of(st.just(""), _targets)
_ready: st.SearchStrategy[Any] = st.sampled_from(["yes"] * 8 + ["keyless", "off"])
_states: st.SearchStrategy[Any] = st.lists(
    st.sampled_from(["healthy"] * 5 + ["cooling", "disabled"]), min_size=1, max_size=3
).map(tuple)
_members = st.fixed_dictionaries(
    {},
    optional={
        "default_model": st.just("usual"),
        "static_route": st.sampled_from(["pinned", "m1"]),
        "fallback": st.builds(lambda id, model: {"backend": f"{id}@", "model": model}, _ids, _models),
    },
)
_made = st.builds(
    Made,
    type=st.sampled_from(TYPES),
    states=_states,
    policy=st.sampled_from(["round-robin", "round-robin", "sticky", "first"]),
    ready=_ready,
    warm=st.integers(0, 3),
    members=st.one_of(st.just({}), st.just({}), _members),
)
_route = st.fixed_dictionaries(
    {
        "policy": st.sampled_from(["k", "m", "km", "mk"]),
        "elements": st.one_of(st.lists(_targets, min_size=2, max_size=4), st.lists(_targets, max_size=4)),
    }
)
_locks: st.SearchStrategy[Any] = st.one_of(
    st.just({}),
    st.just({}),
    st.fixed_dictionaries({"static_route": st.one_of(_targets, st.sampled_from(["m1", "one", "route:two"]))}),
    st.fixed_dictionaries({"force_model": st.one_of(_targets, st.sampled_from(["m1", "vendor/m2", "two"]))}),
)
_aliases: st.SearchStrategy[Any] = st.lists(
    st.sampled_from([
        {"pattern": "known-(.*)", "replacement": r"q@:\1"}, {"pattern": "m", "replacement": "r@:n"},
        {"pattern": ".*", "replacement": "two"}, {"pattern": "vendor/", "replacement": "p@/"},
    ]), max_size=2,
).map(tuple)  # fmt: skip
_commands = st.one_of(
    st.builds(lambda id: f"!/backend({id}@)", _ids),
    st.builds(lambda target: f"!/model({target})", _targets),
    st.builds(lambda model: f"!/model({model})", _models),
    st.builds(lambda target: f"!/oneoff({target})", _targets),
    st.just("!/openai-url(ELSEWHERE)"),
)
_names = st.builds(lambda id, model: f"{id}@/{model}", _ids, _models)
_requested = st.one_of(
    _targets, _models, _names, st.sampled_from(["known-m1", "one", "two", "route:one", "three"]), st.sampled_from(["one", "two"])
)  # fmt: skip
_worlds = st.builds(
    World,
    backends=st.fixed_dictionaries({id: _made for id in IDS}),
    default=_ids,
    routes=st.fixed_dictionaries({"one": _route, "two": _route}),
    locks=_locks,
    aliases=_aliases,
    limited=st.sampled_from(["", "", *IDS]),
    planning=st.one_of(st.just(""), st.just(""), _targets),
    typed=st.lists(_commands, max_size=2).map(tuple),
    begun=_maybe,
    requested=_requested,
    winner=st.sampled_from(["", "", *IDS]),
    client=st.sampled_from(PROTOCOLS),
    stream=st.booleans(),
)


def numbered(value: Any, number: int) -> Any:
    match value:
        case str():
            return value.replace("@", str(number))
        case dict():
            return {key: numbered(one, number) for key, one in value.items()}
        case list() | tuple():
            return [numbered(one, number) for one in value]
        case _:
            return value


def config_of(world: World, number: int, url: str, *, locked: bool) -> dict[str, Any]:
    """`locked`: with all that decides; else with back ends and limits alone, so that states can be brought about."""
    backends = {}
    for id, made in world.backends.items():
        own = f"{id}{number}"
        letters = "abc"[: len(made.states)] if made.ready != "keyless" else ""
        backends[own] = {
            "type": made.type,
            "base_url": f"{url}/{own}" + ("" if made.type == "gemini" else "/v1"),
            "api_keys": keys(*letters),
            "policy": made.policy,
            **(numbered(dict(made.members), number) if locked else {}),
            **({"enabled": False} if made.ready == "off" else {}),
        }
    config: dict[str, Any] = {"backends": backends, "default_backend": f"{world.default}{number}"}
    if world.limited:
        config["rate_limits"] = {f"backend:{world.limited}{number}": {"limit": 1, "time_window": LONG}}
    if locked:
        config |= numbered(
            {**world.locks, "failover_routes": dict(world.routes), "model_aliases": world.aliases}, number
        )
        if world.planning:
            strong = numbered(world.planning, number)
            config["session"] = {"planning_phase": {"enabled": True, "strong_model": strong, "max_turns": 50}}
    return config


def call_of(request: Received) -> Call:
    id = request.path.split("/")[1]
    found = [request.header(name) for name in ("authorization", "x-api-key", "x-goog-api-key")]
    key = next((value for value in found if value), "none").removeprefix("Bearer ").removeprefix("provider-key-")
    model = request.json.get("model")
    if protocol_of(request) == "gemini":
        model = request.path.partition("/models/")[2].rpartition(":")[0]
    return id, str(model), key


def calls(upstream: Upstream) -> list[Call]:
    return [call_of(request) for request in upstream.requests]


@dataclass
class Stage:
    """The proxy whose configuration is replaced for each world."""

    place: Place
    proxy: Proxy
    upstream: Upstream

    def put(self, config: dict[str, Any]) -> None:
        self.place.write(**config)
        answer = self.proxy.request("POST", "/internal/reload")
        assert answer.status == 200, answer.body

    def ask(
        self, model: str, session: str = "", client: Protocol = "openai-chat", stream: bool = False, said: str = "", begun: bool = False
    ) -> Answer:  # fmt: skip
        """One request; `begun`: it goes on with a conversation, else it begins one of its own."""
        words = said or fresh_id()
        turns = (
            turns_of(client, ("user", "begin"), ("assistant", "begun"), ("user", words))
            if begun
            else turns_of(client, ("user", words))
        )
        body = {**body_of(client, model, stream), **turns}
        return self.proxy.post(path_of(client, model, stream), body, {"x-session-id": session} if session else {})

    def page(self, model: str, session: str = "") -> dict[str, Any]:
        query = urlencode({"model": model, **({"session": session} if session else {})})
        answer = self.proxy.get(f"/internal/routing?{query}")
        assert answer.status == 200, answer.body
        found = answer.json
        assert isinstance(found, dict)
        return found


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with upstream_in_thread(say) as upstream:
        place = Place(tmp_path_factory.mktemp("worlds"))
        place.write(backends={"p": backend(upstream.url, "p")})
        with place.run() as proxy:
            yield Stage(place, proxy, upstream)


def failing(states: Mapping[tuple[str, str], State]) -> Any:
    """Keys answer as their state demands; healthy ones fail in a way that brings nothing to rest."""

    def script(request: Received) -> Reply:
        id, _, key = call_of(request)
        match states.get((id, key), "healthy"):
            case "cooling":
                return Reply.json({"error": {"message": "slow down"}}, 429, (("retry-after", str(LONG)),))
            case "disabled":
                return Reply.json({"error": {"message": "who?"}}, 401)
            case _:
                return Reply.json({"error": {"message": "broken"}}, 500)

    return script


def bring_about(stage: Stage, world: World, number: int) -> str:
    """Keys at rest, used-up limits, rotations under way, and a session that has chosen. The session's id, "" without one."""
    upstream = stage.upstream
    states = {
        (f"{id}{number}", letter): state
        for id, made in world.backends.items()
        for letter, state in zip("abc", made.states, strict=False)
    }
    for id, made in world.backends.items():
        if made.ready != "yes":
            continue
        own = f"{id}{number}"
        if id == world.limited:
            upstream.script = say
            assert stage.ask(f"{own}:m1").status == 200
            continue
        upstream.script = failing(states)
        for model in MODELS[:2] if set(made.states) != {"healthy"} else ():
            stage.ask(f"{own}:{model}")
        upstream.script = say
        if "healthy" in made.states:
            for _ in range(made.warm):
                assert stage.ask(f"{own}:other").status in (200, 503, 502)
    session = fresh_id() if world.begun or world.typed else ""
    upstream.script = say
    elsewhere = upstream.url.replace("127.0.0.1", "localhost") + "/elsewhere/v1"  # another origin
    if world.begun:
        stage.ask(numbered(world.begun, number), session, begun=True)
    for typed in world.typed:
        stage.ask("m", session, said=numbered(typed, number).replace("ELSEWHERE", elsewhere), begun=True)
    return session


def plain(page: dict[str, Any]) -> dict[str, Any]:
    """What does not change by the time that passes."""
    rounded = [
        {**left, "seconds": left["seconds"] > 0, "reason": re.sub(r"\d+ s", "some s", left["reason"])}
        for left in page["left_out"]
    ]
    return {**page, "left_out": rounded}


_some = settings(
    max_examples=25, deadline=None, database=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip


@_some
@given(_worlds)
def test_what_the_page_says_is_what_happens(stage: Stage, world: World) -> None:
    page_and_deed(stage, world)


@pytest.mark.long
@settings(_some, max_examples=300)
@given(_worlds)
def test_what_the_page_says_is_what_happens_in_many_worlds(stage: Stage, world: World) -> None:
    page_and_deed(stage, world)


def page_and_deed(stage: Stage, world: World) -> None:
    number = next(_NUMBERS)
    stage.put(config_of(world, number, stage.upstream.url, locked=False))
    session = bring_about(stage, world, number)
    stage.put(config_of(world, number, stage.upstream.url, locked=True))
    requested = numbered(world.requested, number)
    stage.upstream.forget()

    page = stage.page(requested, session)
    assert plain(stage.page(requested, session)) == plain(page), "looking changes nothing"
    if session:
        told = stage.ask(requested, session, said="!/status", begun=True)
        assert told.status == 200
        assert_status(told.json["choices"][0]["message"]["content"], page)
        assert plain(stage.page(requested, session)) == plain(page), "nor does asking in chat"
    assert stage.upstream.requests == []

    winner = f"{world.winner}{number}"
    stage.upstream.script = lambda r: (
        say(r) if call_of(r)[0] == winner else Reply.json({"error": {"message": "broken"}}, 500)
    )
    answer = stage.ask(requested, session, world.client, world.stream, begun=bool(session))
    expected = [seen_by_provider(one) for one in page["attempts"]]
    won = [n for n, call in enumerate(expected) if call[0] == winner]
    made = expected[: won[0] + 1] if won else expected
    assert calls(stage.upstream) == made, page
    assert (answer.status == 200) == bool(won)
    if len(made) > 1:
        assert answer.headers["x-llm-proxy-attempts"] == str(len(made))
    if won:
        assert (answer.headers["x-llm-proxy-backend"], answer.headers["x-llm-proxy-model"]) == made[-1][:2]
    assert_left_out(page, calls(stage.upstream))
    event(f"{len(made)} calls")
    for left in page["left_out"]:
        event(left["state"])


def seen_by_provider(attempt: Mapping[str, Any]) -> Call:
    """A call to a server of the session's own carries no key of the operator's (RT-12)."""
    if attempt.get("redirected"):
        assert attempt["key"] == "none"
        return "elsewhere", attempt["model"], "none"
    return attempt["backend"], attempt["model"], attempt["key"]


WHY: Final = {
    "cooling": "429",
    "disabled": "40[13]",
    "unusable": r"not usable|no key|switched off|disabled|enabled|names no|no elements",
    "refused": "Rate limit",
    "surplus": "32",
}


def assert_left_out(page: dict[str, Any], made: list[Call]) -> None:
    """None of it was called, and each says why."""
    for left in page["left_out"]:
        assert re.search(WHY[left["state"]], left["reason"]), left
        target = (left["backend"], left["model"], left["key"])
        if left["key"]:
            assert target not in made
        else:
            assert target[:2] not in [call[:2] for call in made]
        assert (left["seconds"] > 0) == (left["state"] in ("cooling", "disabled"))


def assert_status(text: str, page: dict[str, Any]) -> None:
    """The same in words; a long list is cut."""
    attempts = [
        f"{one['backend']}:{one['model']}" + (f" with key {one['key']}" if one["key"] != "none" else "")
        for one in page["attempts"]
    ]
    [line] = [line for line in text.splitlines() if line.startswith("Attempts in order: ")]
    shown = line.removeprefix("Attempts in order: ")
    more = f" and {len(attempts) - 6} more" if len(attempts) > 6 else ""
    assert shown == (", then ".join(attempts[:6]) + more or "none")
    left = [line for line in text.splitlines() if line.startswith("Left out now: ")]
    assert bool(left) == bool(page["left_out"])
    for one in page["left_out"][:6]:
        assert f"{one['backend']}:{one['model']}" in left[0] and one["state"] in left[0]


# Who may look


def provided(url: str, **more: Any) -> dict[str, Any]:
    """Two back ends and a route."""
    backends = {
        id: {"type": "openai", "base_url": f"{url}/{id}/v1", "api_keys": keys("a", "b")} for id in ("one", "two")
    }
    routes = {"both": {"policy": "mk", "elements": ["one:m", "two:n"]}}
    return {"backends": backends, "default_backend": "one", "failover_routes": routes, **more}


GUEST: Final = "client-key-of-a-guest-01"
ADMIN: Final = "client-key-of-an-admin-1"


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Two client keys, one of them an admin's."""
    with upstream_in_thread(say) as upstream:
        place = Place(tmp_path_factory.mktemp("office"))
        place.write(
            **provided(upstream.url, auth={"api_keys": {"guest": GUEST, "boss": ADMIN}, "admin_keys": ["boss"]})
        )
        with place.run(keyed=False) as proxy:
            yield Stage(place, proxy, upstream)


PAGE: Final = "/internal/routing"


@pytest.mark.parametrize("query", ["", "?model=m", "?model=m&session=s"])
def test_the_page_is_for_the_operator_only(office: Stage, query: str) -> None:
    statuses = [office.proxy.get(PAGE + query, key=key).status for key in (None, "wrong-key-0123456", GUEST)]
    assert statuses == [401, 401, 403]


def test_a_session_of_another_key_is_not_found(office: Stage) -> None:
    """Also the operator looks with sessions of the own key."""
    for key, name, target in ((GUEST, "guest", "two:guests"), (ADMIN, "admin", "two:own")):
        office.upstream.script = say
        body = body_of("openai-chat", "m", said=f"!/model({target})")
        assert office.proxy.post("/v1/chat/completions", body, {"x-session-id": f"of-{name}"}, key=key).status == 200
    found = office.proxy.get(f"{PAGE}?model=m&session=of-admin", key=ADMIN)
    assert (found.status, found.json["attempts"][0]["backend"], found.json["attempts"][0]["model"]) == (
        200,
        "two",
        "own",
    )
    for session in ("of-guest", "nobodys"):
        refused = office.proxy.get(f"{PAGE}?model=m&session={session}", key=ADMIN)
        assert refused.status == 404 and b"guests" not in refused.body


def test_internal_pages_can_be_switched_off(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.write(**provided("http://127.0.0.1:9", internal_api={"enabled": False}))
    with place.run() as proxy:
        assert [proxy.get(PAGE + query).status for query in ("", "?model=m")] == [404, 404]


# What else the page shows


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with upstream_in_thread(say) as upstream:
        place = Place(tmp_path_factory.mktemp("shown"))
        rules = [{"pattern": "x(.)", "replacement": r"two:\1"}]
        place.write(**provided(upstream.url, model_aliases=rules))
        with place.run() as proxy:
            yield Stage(place, proxy, upstream)


def test_without_a_name_it_shows_the_rules_and_what_each_route_would_do(shown: Stage) -> None:
    page = shown.proxy.get(PAGE).json
    assert (page["static_route"], page["force_model"], page["default_backend"]) == (None, None, "one")
    assert page["model_aliases"] == [{"pattern": "x(.)", "replacement": r"two:\1"}]
    assert {"one", "two", "demo"} == set(page["functional_backends"])
    route = page["failover_routes"]["both"]
    assert (route["policy"], route["elements"], route["left_out"]) == ("mk", ["one:m", "two:n"], [])
    order = [(one["backend"], one["model"], one["key"]) for one in route["attempts"]]
    assert order == [("one", "m", "a"), ("two", "n", "a"), ("one", "m", "b"), ("two", "n", "b")]
    assert shown.page("both")["attempts"] == shown.page("route:both")["attempts"] == route["attempts"]


def test_it_names_what_decided(shown: Stage) -> None:
    assert (shown.page("xy")["alias"], shown.page("xy")["route"]) == ("x(.)", None)
    assert (shown.page("both")["route"], shown.page("both")["policy"], shown.page("both")["alias"]) == (
        "both",
        "mk",
        None,
    )
    assert "default" in shown.page("m")["rule"]
    shown.upstream.script = say
    assert shown.ask("m", "chooser", said="!/oneoff(two:once)").status == 200
    assert shown.page("m", "chooser")["rule"] == "one-off"
    assert shown.page("m", "chooser")["attempts"][0]["model"] == "once"
    assert shown.page("m")["attempts"][0]["model"] == "m"


@pytest.mark.parametrize(("name", "word"), [("m" * 513, "512"), ("a\nb", "control"), ("one:", "default_model")])
def test_a_name_that_is_none_is_refused_or_left_out(shown: Stage, name: str, word: str) -> None:
    """As a request for it would be."""
    answer = shown.proxy.get(f"{PAGE}?{urlencode({'model': name})}")
    assert word in answer.body.decode()
    assert answer.status == 400 or answer.json["attempts"] == []
    asked = shown.proxy.post("/v1/chat/completions", body_of("openai-chat", name))
    assert asked.status == 400 and word in asked.body.decode()


def test_looking_turns_no_rotation_and_other_methods_are_refused(shown: Stage) -> None:
    shown.upstream.script = say
    shown.upstream.forget()
    for _ in range(4):
        before = shown.page("two:r")["attempts"][0]["key"]
        assert shown.proxy.request("HEAD", f"{PAGE}?model=two:r").status == 200
        assert shown.ask("two:r").status == 200
        assert calls(shown.upstream)[-1] == ("two", "r", before)
    assert len({key for _, _, key in calls(shown.upstream)}) == 2
    for method in ("POST", "DELETE", "PUT"):
        assert shown.proxy.request(method, PAGE).status in (404, 405)


def test_the_page_holds_no_key_values(shown: Stage) -> None:
    for path in (PAGE, f"{PAGE}?model=m", f"{PAGE}?model=both"):
        assert b"provider-key" not in shown.proxy.get(path).body


def test_the_command_line_lists_the_same_routes(shown: Stage) -> None:
    listed = run(shown.place.folder, ("routes", "--json", "--config", str(shown.place.file)))
    assert listed.returncode == 0, listed.stderr
    [route] = json.loads(listed.stdout)
    page = shown.proxy.get(PAGE).json["failover_routes"]
    assert (route["name"], route["policy"]) == ("both", page["both"]["policy"])
    assert [element["target"] for element in route["elements"]] == page["both"]["elements"]


# RT-12 beside routes


@pytest.mark.parametrize("model", ["both", "one:m"])
def test_what_the_operators_keys_have_come_to_says_nothing_about_another_server(tmp_path: Path, model: str) -> None:
    """Every key is refused, and the session goes to a server of its own: each target is called once, in a route too."""
    with upstream_in_thread(say) as upstream:
        place = Place(tmp_path)
        place.write(**provided(upstream.url))
        with place.run() as proxy:
            stage = Stage(place, proxy, upstream)
            upstream.script = Reply.json({"error": {"message": "who?"}}, 401)
            assert stage.ask("one:m").status == stage.ask("two:n").status == 502
            elsewhere = upstream.url.replace("127.0.0.1", "localhost") + "/elsewhere/v1"
            stage.ask(model, "s", said=f"!/openai-url({elsewhere})")
            upstream.forget()
            page = stage.page(model, "s")
            upstream.script = Reply.json({"error": {"message": "broken"}}, 500)
            assert stage.ask(model, "s").status == 500
            assert calls(upstream) == [seen_by_provider(one) for one in page["attempts"]]
            assert calls(upstream) == [("elsewhere", one, "none") for one in ("m", "n")][: 2 if model == "both" else 1]
            assert page["left_out"] == []
            upstream.script = say
            assert stage.ask(model, "s").status == 200
