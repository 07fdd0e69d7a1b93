"""SES-01, SES-04: whose conversation a request belongs to, seen by two client keys of one running proxy; and how long it lives."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.e2e.asking import PROTOCOLS, Scene, body_of, path_of, say, target, wants_stream
from tests.e2e.keeping import CHAT, Place, ask, backends, session_ids, session_of, told, until
from tests.faults.stage import deltas, ending
from tests.server.process import Answer
from tests.support.proxy import backends_at
from tests.support.shared import Protocol
from tests.support.upstream import Moment, Pause, Received, Reply, upstream_in_thread

KEYS: Final = {"ann": "key-of-ann-0001", "bob": "key-of-bob-0001"}
Key = str


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A proxy that Ann and Bob share; neither is an admin."""
    place = Place(tmp_path_factory.mktemp("house"))
    with upstream_in_thread(say) as upstream:
        place.write(
            backends={**backends_at(upstream.url), **backends(upstream.url, "one", "two")},
            default_backend="one",
            auth={"api_keys": KEYS},
        )
        with place.run(keyed=False) as proxy:
            yield Scene(proxy, upstream)


def fresh() -> str:
    return uuid.uuid4().hex[:8]


# Every way in which a client can name its session. Each gives a request's body and headers for an id.

Carrier = Callable[[str], tuple[Protocol, dict[str, Any], dict[str, str]]]


def _agent_header(name: str) -> Carrier:
    return lambda id: ("openai-chat", {}, {name: id})


CARRIERS: Final[dict[str, Carrier]] = {
    "x-session-id": lambda id: ("openai-chat", {}, {"X-Session-ID": id}),
    "session_id": lambda id: ("openai-chat", {"session_id": id}, {}),
    "extra_body.session_id": lambda id: ("openai-chat", {"extra_body": {"session_id": id}}, {}),
    "x-claude-code-session-id": _agent_header("x-claude-code-session-id"),
    "session-id": _agent_header("session-id"),
    "session_id header": _agent_header("session_id"),
    "conversation_id": _agent_header("conversation_id"),
    "x-session-affinity": _agent_header("x-session-affinity"),
    "metadata.user_id": lambda id: (
        "anthropic-messages", {"metadata": {"user_id": f"user_u_account_a_session_{id}"}}, {}),
    "metadata.user_id JSON": lambda id: (
        "anthropic-messages", {"metadata": {"user_id": json.dumps({"session_id": id})}}, {}),
    "client_metadata": lambda id: ("openai-responses", {"client_metadata": {"session_id": id}}, {}),
    "prompt_cache_key": lambda id: ("openai-responses", {"prompt_cache_key": id}, {}),
}  # fmt: skip


def turn(
    house: Scene, key: Key, said: str, protocol: Protocol, more: dict[str, Any], headers: dict[str, str], stream: bool = False
) -> Answer:  # fmt: skip
    body = body_of(protocol, "m", stream, said, **more)
    return house.proxy.post(path_of(protocol, "m", stream), body, headers, key=KEYS[key])


def carried(house: Scene, key: Key, said: str, carrier: str, id: str, stream: bool = False) -> Answer:
    return turn(house, key, said, *CARRIERS[carrier](id), stream=stream)


@dataclass
class Known:
    """What one session ought to hold."""

    values: dict[str, Any] = field(default_factory=dict)
    exchanges: int = 0


class TwoKeys(RuleBasedStateMachine):
    """Ann and Bob use ids of one small alphabet in every carrier; a dictionary of sessions is the oracle."""

    house: Scene

    def __init__(self) -> None:
        super().__init__()
        self.mark = fresh()
        self.known: dict[tuple[Key, str], Known] = {}
        self.responses: list[tuple[Key, str, str]] = []

    keys = st.sampled_from(sorted(KEYS))
    names = st.sampled_from(["a", "b", "../../x"])
    carriers = st.sampled_from(sorted(CARRIERS))

    def _id(self, name: str) -> str:
        return f"{name}-{self.mark}"

    def _kept(self, name: str) -> str:
        id = self._id(name)
        return hashlib.sha256(id.encode()).hexdigest() if "/" in id else id

    def _session(self, key: Key, name: str) -> Known:
        return self.known.setdefault((key, self._kept(name)), Known())

    def _say(self, key: Key, name: str, carrier: str, said: str, stream: bool = False) -> Answer:
        answer = carried(self.house, key, said, carrier, self._id(name), stream)
        assert answer.status == 200, answer.body
        assert answer.headers["x-session-id"] == self._kept(name)
        self._session(key, name).exchanges += 1
        return answer

    def _went_out(self, known: Known) -> None:
        """The provider saw the choices of this session and of no other."""
        received = self.house.last
        assert received.path.startswith(f"/{known.values.get('backend', 'one')}/")
        assert received.json["model"] == known.values.get("model", "m")
        assert received.json.get("temperature") == known.values.get("temperature")

    @rule(key=keys, name=names, carrier=carriers, model=st.sampled_from(["m1", "two:m2", "one:m3"]))
    def chooses_a_model(self, key: Key, name: str, carrier: str, model: str) -> None:
        self._say(key, name, carrier, f"!/model({model})")
        backend, _, bare = model.rpartition(":")
        self._session(key, name).values |= {"model": bare, **({"backend": backend} if backend else {})}

    @rule(key=keys, name=names, carrier=carriers)
    def leaves_the_model(self, key: Key, name: str, carrier: str) -> None:
        self._say(key, name, carrier, "!/unset(model)")
        values = self._session(key, name).values
        values.pop("model", None)
        values.pop("backend", None)

    @rule(key=keys, name=names, carrier=carriers, temperature=st.sampled_from([0.25, 0.5, 1.0]))
    def sets_several(self, key: Key, name: str, carrier: str, temperature: float) -> None:
        project = f"project of {key} {temperature}"
        self._say(key, name, carrier, f'!/set(project="{project}", temperature={temperature})')
        self._session(key, name).values |= {"project": project, "temperature": temperature}

    @rule(key=keys, name=names, carrier=carriers)
    def unsets_several(self, key: Key, name: str, carrier: str) -> None:
        self._say(key, name, carrier, "!/unset(project, temperature)")
        values = self._session(key, name).values
        values.pop("project", None)
        values.pop("temperature", None)

    @rule(key=keys, name=names, carrier=carriers, stream=st.booleans())
    def asks(self, key: Key, name: str, carrier: str, stream: bool) -> None:
        self.house.upstream.forget()
        answer = self._say(key, name, carrier, f"hi {self.mark}", stream)
        self._went_out(self._session(key, name))
        if not stream and carrier == "prompt_cache_key":
            self.responses.append((key, self._kept(name), answer.json["id"]))

    @precondition(lambda self: self.responses)
    @rule(key=keys, pick=st.randoms(use_true_random=False))
    def continues_a_response(self, key: Key, pick: Any) -> None:
        """The session of `previous_response_id` is found by the key that got the response, and by no other."""
        owner, id, response = pick.choice(self.responses)
        self.house.upstream.forget()
        more = {"previous_response_id": response}
        answer = turn(self.house, key, f"more {self.mark}", "openai-responses", more, {})
        if key == owner:
            assert (answer.status, answer.headers["x-session-id"]) == (200, id)
            known = self.known.setdefault((key, id), Known())
            known.exchanges += 1
            self._went_out(known)
        else:
            assert answer.status in (400, 404) and not self.house.upstream.requests
            stranger = answer.headers["x-session-id"]
            assert stranger != id and stranger.startswith("auto-")
            self.known.setdefault((key, stranger), Known()).exchanges += 1

    @rule(key=keys, name=names)
    def looks(self, key: Key, name: str) -> None:
        id = self._kept(name)
        answer = self.house.proxy.get(f"/internal/sessions/{id}", key=KEYS[key])
        known = self.known.get((key, id))
        if known is None:
            assert answer.status == 404
            return
        shown = answer.json
        assert (shown["id"], shown["values"], len(shown["history"])) == (id, known.values, known.exchanges)
        assert (shown["project"], shown["model"]) == (known.values.get("project"), known.values.get("model"))

    @rule(key=keys, name=names)
    def looks_into_the_other_scope(self, key: Key, name: str) -> None:
        """The scope of the other key is of no use to who does not hold that key."""
        other = next(other for other in KEYS if other != key)
        scope = next(iter(self._listed(other).values()), {}).get("scope")
        if scope:
            for path in ("/internal/sessions", f"/internal/sessions/{self._kept(name)}"):
                assert self.house.proxy.get(f"{path}?scope={scope}", key=KEYS[key]).status == 403

    @rule(key=keys, name=names)
    def ends(self, key: Key, name: str) -> None:
        id = self._kept(name)
        answer = self.house.proxy.request("DELETE", f"/internal/sessions/{id}", key=KEYS[key])
        assert answer.status == (404 if self.known.pop((key, id), None) is None else 200)

    def _listed(self, key: Key) -> dict[str, Any]:
        answer = self.house.proxy.get("/internal/sessions", key=KEYS[key])
        assert answer.status == 200
        return {entry["id"]: entry for entry in answer.json["data"]}

    @invariant()
    def each_key_is_shown_its_own_sessions_alone(self) -> None:
        of_this_run = {id for _, id in self.known} | {self._kept(name) for name in ("a", "b", "../../x")}
        for key in KEYS:
            listed = {id: entry for id, entry in self._listed(key).items() if id in of_this_run}
            own = {id: known for (owner, id), known in self.known.items() if owner == key}
            assert listed.keys() == own.keys()
            assert {id: entry["values"] for id, entry in listed.items()} == {id: it.values for id, it in own.items()}


def test_two_client_keys_never_see_each_others_session_whatever_ids_they_send(house: Scene) -> None:
    house.play(say)

    class Here(TwoKeys):
        pass

    Here.house = house
    bounds = settings(
        max_examples=25, stateful_step_count=30, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(Here, settings=bounds)


# SES-01's sentences


def test_without_an_id_a_growing_history_stays_in_its_session(house: Scene) -> None:
    house.play(say)
    first = f"first {fresh()} !/model(two:chosen)"
    opened = ask(house.proxy, first, key=KEYS["ann"])
    history = [
        {"role": "user", "content": first},
        {"role": "assistant", "content": opened.json["choices"][0]["message"]["content"]},
        {"role": "user", "content": "and then?"},
    ]
    then = ask(house.proxy, "", key=KEYS["ann"], messages=history)
    assert opened.headers["x-session-id"] == then.headers["x-session-id"]
    assert opened.headers["x-session-id"].startswith("auto-")
    assert (house.last.path, house.last.json["model"]) == ("/two/v1/chat/completions", "chosen")


def test_a_conversation_opened_by_a_command_is_found_again(house: Scene) -> None:
    """given [user `!/set(project=a)`] and then [that, reply, user `hi`], then project is `a` in the second."""
    project = fresh()
    house.play(say)
    opened = ask(house.proxy, f"!/set(project={project})", key=KEYS["ann"])
    reply = opened.json["choices"][0]["message"]["content"]
    history = [
        {"role": "user", "content": f"!/set(project={project})"},
        {"role": "assistant", "content": reply},
        {"role": "user", "content": "hi"},
    ]
    then = ask(house.proxy, "", key=KEYS["ann"], messages=history)
    id = then.headers["x-session-id"]
    assert id == opened.headers["x-session-id"]
    assert session_of(house.proxy, id, key=KEYS["ann"])["history"][-1]["project"] == project
    assert [message["content"] for message in house.last.json["messages"]] == ["hi"]


def test_the_same_beginning_under_two_keys_is_two_sessions(house: Scene) -> None:
    house.play(say)
    first = f"!/set(project=a) {fresh()}"
    ann, bob = (ask(house.proxy, first, key=KEYS[key]).headers["x-session-id"] for key in ("ann", "bob"))
    assert ann != bob


def test_the_headers_id_is_used_before_the_bodys(house: Scene) -> None:
    house.play(say)
    header, body, agent = f"h-{fresh()}", f"b-{fresh()}", f"c-{fresh()}"
    ask(house.proxy, "!/model(of-header)", header, key=KEYS["ann"])
    ask(house.proxy, "!/model(of-body)", body, key=KEYS["ann"])
    answer = ask(
        house.proxy, "hi", header, key=KEYS["ann"], headers={"x-session-affinity": agent}, session_id=body, prompt_cache_key=agent
    )  # fmt: skip
    assert answer.headers["x-session-id"] == header and house.last.json["model"] == "of-header"
    answer = ask(house.proxy, "hi", key=KEYS["ann"], headers={"x-session-affinity": agent}, session_id=body)
    assert answer.headers["x-session-id"] == body and house.last.json["model"] == "of-body"


@pytest.mark.parametrize("field", [{"session_id": "x1"}, {"extra_body": {"session_id": "x1"}}])
def test_the_bodys_session_id_is_removed_before_forwarding(house: Scene, field: dict[str, Any]) -> None:
    house.play(say)
    ask(house.proxy, "hi", key=KEYS["ann"], **field)
    assert b"session_id" not in house.last.body and b"x1" not in house.last.body


def test_an_id_that_is_a_path_is_replaced_by_its_hash(tmp_path: Path) -> None:
    """given `x-session-id: ../../x`, then a hash is used and no file outside the data dir appears."""
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    place = Place(inner)
    with upstream_in_thread(say) as upstream:
        place.write(
            backends=backends(upstream.url, "one"),
            session={"repository": "file", "log_directory": str(inner / "data" / "logs")},
        )
        with place.run() as proxy:
            for id in ("../../x", "/etc/passwd", "x" * 200, "a b", "ü"):
                raw = id.encode().decode("latin-1")
                answer = ask(proxy, "!/set(project=p)", raw)
                assert answer.headers["x-session-id"] == hashlib.sha256(raw.encode()).hexdigest()
    outside = {path for path in tmp_path.rglob("*") if inner / "data" not in path.parents}
    assert outside == {tmp_path / "a", inner, place.file, inner / "data"}
    assert all(len(path.stem) >= 32 for path in (inner / "data" / "logs").iterdir())


def failing(request: Received) -> Reply:
    return Reply.json({"error": {"message": "no", "type": "invalid_request_error"}}, status=400)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("client", PROTOCOLS)
def test_the_id_is_returned_on_streams_and_on_errors(house: Scene, client: Protocol, stream: bool) -> None:
    id = f"r-{fresh()}"
    sent = {"x-session-id": id}
    path, body = path_of(client, target(client), stream), body_of(client, target(client), stream)
    for script, status in ((say, 200), (failing, 400)):
        house.play(script)
        answer = house.proxy.post(path, body, sent, key=KEYS["ann"])
        assert (answer.status, answer.headers["x-session-id"]) == (status, id)
    nothing = house.proxy.post(path, b"{", sent, key=KEYS["ann"])
    assert (nothing.status, nothing.headers["x-session-id"]) == (400, id)


# SES-04


def test_the_oldest_idle_session_makes_room(tmp_path: Path) -> None:
    """given max_sessions 2 and three sessions, then the oldest idle one is gone; open requests keep their session."""
    go_on = Moment()

    def script(request: Received) -> Reply:
        if not wants_stream(request):
            return say(request)
        return Reply.sse(*deltas("openai-chat"), Pause(go_on), *ending("openai-chat"))

    place = Place(tmp_path)
    with upstream_in_thread(script) as upstream:
        place.write(backends=backends(upstream.url, "one"), session={"max_sessions": 2})
        with place.run() as proxy:
            for id in ("a", "b", "c"):
                told(proxy, f"!/model(of-{id})", id)
            assert session_ids(proxy) == {"b", "c"}
            told(proxy, "hi", "a")
            assert upstream.requests[-1].json["model"] == "m"
            told(proxy, "!/model(of-a)", "a")
            open_ = proxy.stream(CHAT, body_of("openai-chat", "m", True, session_id="a"))
            assert open_.line().startswith(b"data:")
            for id in ("d", "e", "f"):
                told(proxy, "hi", id)
            assert session_ids(proxy) == {"a", "f"}
            go_on.happen()
            assert open_.rest().endswith(b"data: [DONE]\n\n")
            told(proxy, "hi", "a")
            assert upstream.requests[-1].json["model"] == "of-a"


def test_a_session_ends_when_it_was_idle_for_long(tmp_path: Path) -> None:
    """given expiry 1 s, then after 1.1 s the model is the default again; a session with an open request stays."""
    go_on = Moment()

    def script(request: Received) -> Reply:
        if not wants_stream(request):
            return say(request)
        return Reply.sse(*deltas("openai-chat"), Pause(go_on), *ending("openai-chat"))

    place = Place(tmp_path)
    with upstream_in_thread(script) as upstream:
        place.write(backends=backends(upstream.url, "one"), session={"expiry_seconds": 1})
        with place.run() as proxy:
            told(proxy, "!/model(of-open)", "open")
            stream = proxy.stream(CHAT, body_of("openai-chat", "m", True, session_id="open"))
            assert stream.line().startswith(b"data:")
            told(proxy, "!/model(of-idle)", "idle")
            until(lambda: session_ids(proxy) == {"open"}, "the end of the idle session")
            assert proxy.get("/internal/sessions/idle").status == 404
            told(proxy, "hi", "idle")
            assert upstream.requests[-1].json["model"] == "m"
            go_on.happen()
            assert stream.rest().endswith(b"data: [DONE]\n\n")
            told(proxy, "hi", "open")
            assert upstream.requests[-1].json["model"] == "of-open"
