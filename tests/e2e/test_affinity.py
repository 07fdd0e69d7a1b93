"""A conversation stays at the back end and key that hold its prompt cache, and what was sent of it stays as it was
(BE-03, RT-10, AGT-04; translation.md, "Cache marks").

Agents are played turn by turn: each request repeats all that was said and got, as real clients do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import msgspec
import pytest

from tests.commands.corpus.cases import Piece, Said, user
from tests.e2e.asking import PAIRS, PROTOCOLS, Called, Scene, body_of, call, keys, path_of, say, started, tools_of
from tests.e2e.commanding import fresh_id, system_of
from tests.e2e.talking import LIST_OF, Message, calls_in, elements, kept, told_apart, written
from tests.server.process import Answer
from tests.support.shared import ClientRequest, Protocol, client_requests, needs_shared
from tests.support.upstream import Received, Reply, upstream_in_thread

TURNS: Final = 100
TYPES: Final[dict[Protocol, str]] = {
    "openai-chat": "openai", "openai-responses": "openai-responses", "anthropic-messages": "anthropic", "gemini": "gemini",
}  # fmt: skip
KEYED: Final[dict[Protocol, str]] = {
    "openai-chat": "chat", "openai-responses": "responses", "anthropic-messages": "messages", "gemini": "google",
}  # fmt: skip
each_protocol = pytest.mark.parametrize("client", PROTOCOLS)
each_pair = pytest.mark.parametrize(("client", "back"), PAIRS)
# Each protocol as client and as back end, at its own and at another.
some_pairs = pytest.mark.parametrize(
    ("client", "back"), [(one, PROTOCOLS[(at + step) % 4]) for at, one in enumerate(PROTOCOLS) for step in (0, 1)]
)
SYSTEM: Final = "You are an agent.\nUse tools."
FAILED: Final = "The SEARCH block does not match anything"
"""What makes the next try less random (REQ-04): it may change sampling, never what was said."""


def backends(url: str) -> dict[str, Any]:
    """For each protocol one back end with two keys, and further ones of type openai."""

    def one(id: str, type: str, letters: str, **more: Any) -> dict[str, Any]:
        tail = "" if type == "gemini" else "/v1"
        return {"type": type, "base_url": f"{url}/{id}{tail}", "api_keys": keys(*letters), **more}

    return {
        **{KEYED[back]: one(KEYED[back], TYPES[back], "ab") for back in PROTOCOLS},
        **{f"{id}": one(id, "openai", "abc") for id in ("dealt", "same", "resting")},
        "sticky": one("sticky", "openai", "abc", policy="sticky"),
        "underscored": one("underscored", "openai", "ab", policy="round_robin"),
        "first": one("first", "openai", "abc", policy="first"),
        "native": one("native", "openai", "ab", native_responses=True),
    }  # fmt: skip


@pytest.fixture(scope="module")
def keyed_scene() -> Iterator[Scene]:
    with upstream_in_thread(say) as upstream:
        aliases = [{"pattern": "known-as-(.*)", "replacement": r"\1:big"}]
        config = {"backends": backends(upstream.url), "default_backend": "chat", "model_aliases": aliases}
        with started("--enable-edit-precision", config=config) as proxy:
            yield Scene(proxy, upstream)


@pytest.fixture
def keyed(keyed_scene: Scene) -> Scene:
    keyed_scene.play(say)
    assert keyed_scene.proxy.request("DELETE", "/internal/cooldowns").status == 200
    return keyed_scene


def key_of(request: Received) -> str:
    found = [request.header(name) for name in ("authorization", "x-api-key", "x-goog-api-key")]
    return next(value for value in found if value).removeprefix("Bearer ").removeprefix("provider-key-")


def used(scene: Scene) -> str:
    return "".join(key_of(request) for request in scene.upstream.requests)


def limited(*letters: str, seconds: int = 60) -> Any:
    """The provider says a few words, but these keys have reached a limit."""

    def script(request: Received) -> Reply:
        if key_of(request) in letters:
            return Reply.json({"error": {"message": "slow down"}}, 429, (("retry-after", str(seconds)),))
        return say(request)

    return script  # fmt: skip


@dataclass
class Agent:
    """One conversation of a client in a session. Every request of a turn must be answered."""

    scene: Scene
    client: Protocol
    model: str
    stream: bool = False
    session: str = field(default_factory=fresh_id)
    headers: Mapping[str, str] = field(default_factory=dict)
    tools: bool = True
    system: str = SYSTEM
    history: list[Message] = field(default_factory=list)
    got: list[Received] = field(default_factory=list)

    def body(self) -> dict[str, Any]:
        body = body_of(self.client, self.model, self.stream)
        body |= system_of(self.client, self.system)
        if self.tools:
            body |= tools_of(self.client, "read_file", "edit_file")
        first = [{"role": "system", "content": self.system}] if self.client == "openai-chat" else []
        return {**body, LIST_OF[self.client]: [*first, *self.history]}

    def send(self, calls: str = "") -> list[Message]:
        """Asks with all that was said; `calls` names the call of a tool that the provider makes. What the client keeps."""
        scene = self.scene
        called = call(Called(f"call_{calls}", "read_file", {"path": f"f{calls}"})) if calls else say
        scene.upstream.script = told_apart(called)
        before = len(scene.upstream.requests)
        named = {"x-session-id": self.session} if self.session else {}
        answer = scene.post(path_of(self.client, self.model, self.stream), self.body(), {**named, **self.headers})
        assert answer.status == 200, answer.body
        self.got += scene.upstream.requests[before:]
        reply = kept(self.client, answer, self.stream)
        self.history += reply
        return reply

    def turn(self, words: str) -> None:
        """The user says something and the model answers."""
        self.history += written(self.client, user(words))
        self.send()

    def work(self, words: str, number: int, result: str = "ok") -> None:
        """The user says something, the model uses a tool and then answers."""
        self.history += written(self.client, user(words))
        [made] = calls_in(self.client, self.send(str(number)))
        piece = Piece("tool_result", result, made.id, made.name)
        self.history += written(self.client, Said("user", (piece,)))
        self.send()

    @property
    def keys(self) -> set[str]:
        return {key_of(request) for request in self.got}


def list_span(back: Protocol, request: Received) -> tuple[bytes, bytes]:
    """All up to the last message of a body, and all that follows the messages."""
    raw = bytes(msgspec.json.decode(request.body, type=dict[str, msgspec.Raw])[LIST_OF[back]])
    at = request.body.index(raw)
    return request.body[: at + len(raw) - 1].rstrip(), request.body[at + len(raw) :]


def assert_grows(back: Protocol, requests: list[Received]) -> None:
    """Each request begins with the bytes of the one before, up to its last message; what stands elsewhere stays as well."""
    for number, (one, after) in enumerate(pairwise(requests)):
        before, rest = list_span(back, one)
        begun, rest_after = list_span(back, after)
        assert begun.startswith(before), (
            f"request {number + 1} is not the beginning of the next: {first_difference(before, begun)}"
        )
        assert rest == rest_after, f"request {number + 1}"


def first_difference(one: bytes, other: bytes) -> str:
    at = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return f"{one[max(0, at - 60) : at + 60]!r} / {other[max(0, at - 60) : at + 60]!r}"


# 100 turns


@each_protocol
def test_a_hundred_turns_stay_with_one_key_and_keep_their_bytes(keyed: Scene, client: Protocol) -> None:
    """With the default policy; half of the requests carry results of tools."""
    take_turns(keyed, client, client, TURNS)


@each_pair
def test_so_it_is_across_protocols(keyed: Scene, client: Protocol, back: Protocol) -> None:
    take_turns(keyed, client, back, TURNS // 5)


@pytest.mark.long
@each_pair
def test_so_it_is_for_a_hundred_turns_across_protocols(keyed: Scene, client: Protocol, back: Protocol) -> None:
    take_turns(keyed, client, back, TURNS)


def take_turns(keyed: Scene, client: Protocol, back: Protocol, turns: int) -> None:
    stream = (PAIRS.index((client, back)) % 2) == 0
    agent = Agent(keyed, client, f"known-as-{KEYED[back]}", stream)
    for number in range(turns // 2):
        agent.work(f'step {number}: é \u2028 "quoted"', number)
    assert len(agent.got) == turns
    assert len(agent.keys) == 1
    assert {request.path.split("/")[1] for request in agent.got} == {KEYED[back]}
    assert_grows(back, agent.got)


@some_pairs
@pytest.mark.parametrize("tools", [True, False])
def test_rooms_that_change_a_request_leave_what_was_said_before_as_it_was(
    keyed: Scene, client: Protocol, back: Protocol, tools: bool
) -> None:
    """Commands within and between messages, confirmations, failures of edits, session values: the messages stay a beginning."""
    agent = Agent(keyed, client, f"known-as-{KEYED[back]}", tools, tools=tools)
    agent.turn("first words")
    agent.turn("!/hello")
    agent.turn("!/project(p)\ngo on")
    agent.turn("more !/temperature(0.5) words")
    agent.turn(FAILED)
    agent.turn("!/temperature(9) is too much")
    agent.turn("!/nonsense(x) and on")
    if tools:
        agent.work("again", 7, FAILED)
        agent.work("and again", 8)
    agent.turn("!/max the end")
    agent.turn("!/no-think really")
    assert len(agent.keys) == 1
    sent = [elements(back, request) for request in agent.got]
    assert len(sent) == (10 if tools else 6)
    for number, (one, after) in enumerate(pairwise(sent)):
        assert after[: len(one)] == one, f"request {number + 1} is not the beginning of the next"


@each_protocol
def test_the_strong_model_of_a_planning_phase_leaves_the_bytes_as_they_were(client: Protocol) -> None:
    """REQ-05: turns 1 and 2 at the strong model, then the normal one; each back end reads a growing beginning with one key."""
    with upstream_in_thread(say) as upstream:
        planning = {"enabled": True, "strong_model": f"{KEYED['anthropic-messages']}:strong", "max_turns": 2}
        config = {
            "backends": backends(upstream.url),
            "default_backend": "chat",
            "session": {"planning_phase": planning},
        }
        with started(config=config) as proxy:
            agent = Agent(Scene(proxy, upstream), client, f"{KEYED[client]}:normal")
            for number in range(4):
                agent.turn(f"step {number}")
            planned, normal = agent.got[:2], agent.got[2:]
            assert [request.path.split("/")[1] for request in agent.got] == ["messages"] * 2 + [KEYED[client]] * 2
            assert_grows("anthropic-messages", planned)
            assert_grows(client, normal)
            assert len({key_of(r) for r in planned}) == len({key_of(r) for r in normal}) == 1


@each_protocol
def test_a_planned_request_deals_one_key(client: Protocol) -> None:
    """Conversations begin at the next key also where strong and normal model are at one back end; each stays with its key."""
    with upstream_in_thread(say) as upstream:
        planning = {"enabled": True, "strong_model": "dealt:strong", "max_turns": 2}
        config = {
            "backends": backends(upstream.url),
            "default_backend": "dealt",
            "session": {"planning_phase": planning},
        }
        with started(config=config) as proxy:
            scene = Scene(proxy, upstream)
            agents = [Agent(scene, client, "dealt:normal") for _ in range(6)]
            for number in range(3):
                for agent in agents:
                    agent.turn(f"step {number}")
            assert used(scene) == "abcabc" * 3
            assert [r.json["model"] for r in upstream.requests] == ["strong"] * 12 + ["normal"] * 6


@each_protocol
@pytest.mark.parametrize("model", ["keyless:m", "empty"])
def test_a_normal_target_that_cannot_be_used_does_not_keep_the_strong_model_from_answering(
    client: Protocol, model: str
) -> None:
    with upstream_in_thread(say) as upstream:
        planning = {"enabled": True, "strong_model": "dealt:strong", "max_turns": 1}
        there = {**backends(upstream.url), "keyless": {"type": "openai", "base_url": f"{upstream.url}/keyless/v1"}}
        routes = {"empty": {"policy": "m", "elements": []}}
        config = {"backends": there, "failover_routes": routes, "session": {"planning_phase": planning}}
        with started(config=config) as proxy:
            scene = Scene(proxy, upstream)
            statuses = [scene.ask(client, model, headers={"x-session-id": "s"}).status for _ in range(2)]
            assert statuses == [200, 503]
            assert [r.json["model"] for r in upstream.requests] == ["strong"]


# Several conversations in one session


@some_pairs
def test_interleaved_conversations_are_spread_and_each_stays(keyed: Scene, client: Protocol, back: Protocol) -> None:
    """A main agent and a sub-agent of one session, and one that has a session of its own."""
    model = f"{KEYED[back]}:m"
    main = Agent(keyed, client, model)
    helper = Agent(keyed, client, model, True, session=main.session, system="You are a helper.", tools=False)
    for number in range(5):
        main.work(f"main {number}", number)
        helper.turn(f"helper {number}")
    assert (len(main.keys), len(helper.keys)) == (1, 1)
    assert main.keys != helper.keys
    assert_grows(back, main.got)
    assert_grows(back, helper.got)


ERRANDS: Final[dict[Protocol, tuple[dict[str, str], dict[str, Any]]]] = {
    "openai-chat": ({"user-agent": "opencode/1.18 ai-sdk", "x-session-id": "title-@"}, {}),
    "openai-responses": ({"user-agent": "codex_exec/0.169", "x-codex-turn-metadata": '{"thread_source":"thread_title"}'}, {}),
    "anthropic-messages": ({"user-agent": "claude-cli/2.1 (external, cli)"}, {"max_tokens": 1}),
    "gemini": ({"user-agent": "GeminiCLI-tui/0.61"}, {"generationConfig": {"responseMimeType": "application/json"}}),
}  # fmt: skip
"""What titles, probes and classifiers look like in the agents that speak this protocol."""


@each_protocol
@pytest.mark.parametrize("policy", ["round-robin", "sticky"])
def test_errands_beside_a_conversation_do_not_move_it(keyed: Scene, client: Protocol, policy: str) -> None:
    headers, more = ERRANDS[client]
    back = KEYED[client] if policy == "round-robin" else "sticky"
    model = f"{back}:gemini-2.5-flash-lite"
    usual = {name: value for name, value in headers.items() if name == "user-agent"}
    agent = Agent(keyed, client, model, headers=usual)
    errands = 0
    for number in range(6):
        for _ in range(number % 3):
            errands += 1
            sent = {"x-session-id": agent.session, **headers}
            sent["x-session-id"] = sent["x-session-id"].replace("@", agent.session)
            keyed.upstream.script = say
            body = body_of(client, model, said=f"give the chat a title {errands}", **more)
            assert keyed.post(path_of(client, model), body, sent).status == 200
        agent.work(f"step {number}", number)
    assert len(agent.got) == 12 and errands == 6
    assert len(agent.keys) == 1


@each_protocol
def test_a_conversation_that_was_shortened_stays_with_its_key(keyed: Scene, client: Protocol) -> None:
    """Agents replace an old beginning by a summary; the session then tells whose conversation it is."""
    agent = Agent(keyed, client, f"{KEYED[client]}:m")
    agent.work("a long beginning", 1)
    other = Agent(keyed, client, f"{KEYED[client]}:m")
    other.turn("somebody else")
    agent.history = [
        *written(client, user("summary of all")),
        *written(client, Said("assistant", (Piece("text", "well"),))),
    ]
    agent.turn("go on")
    agent.turn("and on")
    assert len(agent.keys) == 1 and agent.keys != other.keys


@each_protocol
def test_a_conversation_without_any_id_stays_with_its_key(keyed: Scene, client: Protocol) -> None:
    """SES-01: it is told by how it begins."""
    agents = [Agent(keyed, client, f"{KEYED[client]}:m", session="") for _ in range(2)]
    names = [fresh_id(), fresh_id()]
    for number in range(4):
        for agent, name in zip(agents, names, strict=True):
            agent.turn(f"{name} step {number}")
    assert [len(agent.keys) for agent in agents] == [1, 1]
    assert agents[0].keys != agents[1].keys


# BE-03


@each_protocol
@pytest.mark.parametrize("said", ["one text", "texts"])
@pytest.mark.parametrize("named", [True, False])
def test_be_03_unrelated_requests_begin_at_the_next_key(keyed: Scene, client: Protocol, said: str, named: bool) -> None:
    """given keys a,b,c and six requests, then a,b,c,a,b,c: also with one text, and with one session id."""
    session = {"x-session-id": fresh_id()} if named else {}
    for number in range(6):
        words = said if said == "one text" else f"{fresh_id()} {number}"
        assert keyed.ask(client, "dealt:m", said=words, headers=session).status == 200
    assert used(keyed) in ("abcabc", "bcabca", "cabcab")


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/completions"])
def test_be_03_side_calls_rotate(keyed: Scene, path: str) -> None:
    keyed.play(Reply.json({"object": "list", "data": [], "choices": []}))
    for _ in range(6):
        assert keyed.post(path, {"model": "dealt:m", "input": "a", "prompt": "a"}).status == 200
    assert used(keyed) in ("abcabc", "bcabca", "cabcab")


def test_be_03_the_other_spelling(keyed: Scene) -> None:
    for _ in range(4):
        assert keyed.ask("openai-chat", "underscored:m").status == 200
    assert used(keyed) in ("abab", "baba")


@each_protocol
def test_be_03_a_cooling_key_is_passed_over(keyed: Scene, client: Protocol) -> None:
    """given b cooling, then a,c,a,c; and the request that finds b limited is answered by the next key."""
    keyed.play(limited("b"))
    for _ in range(3):
        assert keyed.ask(client, "resting:m").status == 200
    assert used(keyed).count("b") == 1 and used(keyed)[used(keyed).index("b") + 1] == "c"
    keyed.upstream.forget()
    for _ in range(4):
        assert keyed.ask(client, "resting:m").status == 200
    assert used(keyed) in ("acac", "caca")


@some_pairs
def test_a_conversation_whose_key_is_limited_moves_on_and_stays(keyed: Scene, client: Protocol, back: Protocol) -> None:
    """The client sees 200; when the first key has recovered the conversation does not return, because its cache is at the new one."""
    agent = Agent(keyed, client, f"{KEYED[back]}:m")
    agent.turn("one")
    [held] = agent.keys
    other = {"a": "b", "b": "a"}[held]
    before = len(keyed.upstream.requests)
    agent.history += written(client, user("two"))
    keyed.upstream.script = limited(held)
    answer = keyed.post(path_of(client, agent.model), agent.body(), {"x-session-id": agent.session})
    assert answer.status == 200
    assert [key_of(r) for r in keyed.upstream.requests[before:]] == [held, other]
    agent.history += kept(client, answer, False)
    agent.got.clear()
    agent.turn("three")
    assert keyed.proxy.request("DELETE", "/internal/cooldowns").status == 200
    agent.turn("four")
    agent.turn("five")
    assert agent.keys == {other}


@each_protocol
def test_be_03_sticky_sessions_keep_their_key_for_all_requests(keyed: Scene, client: Protocol) -> None:
    sessions = [fresh_id() for _ in range(3)]
    order = [0, 1, 2, 2, 1, 0, 0, 0, 1, 2]
    for number in order:
        named = {"x-session-id": sessions[number]}
        assert keyed.ask(client, "sticky:m", said=fresh_id(), headers=named).status == 200
    found = used(keyed)
    dealt = found[:3]
    assert dealt in ("abc", "bca", "cab")
    assert found == "".join(dealt[number] for number in order)
    keyed.play(limited(dealt[0]))
    for _ in range(3):
        assert keyed.ask(client, "sticky:m", headers={"x-session-id": sessions[0]}).status == 200
    moved = used(keyed)[1]
    assert used(keyed) == dealt[0] + moved * 3 and moved != dealt[0]
    keyed.play(say)
    assert keyed.proxy.request("DELETE", "/internal/cooldowns").status == 200
    assert keyed.ask(client, "sticky:m", headers={"x-session-id": sessions[0]}).status == 200
    assert used(keyed) == moved


@each_protocol
def test_be_03_first_takes_the_first_healthy_key(keyed: Scene, client: Protocol) -> None:
    agent = Agent(keyed, client, "first:m")
    agent.work("one", 1)
    assert keyed.ask(client, "first:m").status == 200
    assert set(used(keyed)) == {"a"}
    keyed.play(limited("a"))
    for _ in range(3):
        assert keyed.ask(client, "first:m").status == 200
    assert used(keyed) == "abbb"
    keyed.play(say)
    assert keyed.proxy.request("DELETE", "/internal/cooldowns").status == 200
    assert keyed.ask(client, "first:m").status == 200
    assert used(keyed) == "a"


# Conversations that go on by id


@pytest.mark.parametrize("model", ["native:m", "responses:m", "chat:m", "messages:m"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("shared", [False, True], ids=["sessions of their own", "in one session"])
def test_a_chain_of_responses_stays_with_its_key(keyed: Scene, model: str, stream: bool, shared: bool) -> None:
    """given previous_response_id and only what is new, then the key that keeps the earlier response is asked."""
    headers = {"x-session-id": fresh_id()} if shared else None
    chains: list[str] = ["", ""]
    found: list[list[str]] = [[], []]
    keyed.upstream.script = told_apart(say)
    for number in range(4):
        for chain, previous in enumerate(chains):
            more: dict[str, Any] = {"previous_response_id": previous} if previous else {}
            keyed.upstream.forget()
            answer = keyed.ask("openai-responses", model, stream, f"{fresh_id()} {number}", headers=headers, **more)
            assert answer.status == 200, answer.body
            chains[chain] = response_id(answer, stream)
            found[chain].append(used(keyed))
    assert [len(set(one)) for one in found] == [1, 1]
    assert found[0] != found[1], "two chains are spread"


def response_id(answer: Answer, stream: bool) -> str:
    text = answer.body.decode()
    if stream:
        line = next(line for line in text.splitlines() if line.startswith("data:") and "response.completed" in line)
        return str(json.loads(line.removeprefix("data:"))["response"]["id"])
    return str(json.loads(text)["id"])


# Cache marks


@pytest.mark.parametrize("back", PROTOCOLS)
@pytest.mark.parametrize("stream", [False, True])
def test_marks_that_move_from_turn_to_turn_keep_the_beginning(keyed: Scene, back: Protocol, stream: bool) -> None:
    """Anthropic's clients mark their newest message. Where marks are dropped the messages and prompt_cache_key stay the same."""
    agent = Agent(keyed, "anthropic-messages", f"{KEYED[back]}:m", stream)
    mark = {"cache_control": {"type": "ephemeral"}}
    for number in range(4):
        plain = list(agent.history)
        words = {"type": "text", "text": f"step {number}"}
        agent.history = [*plain, {"role": "user", "content": [{**words, **mark}]}]
        reply = agent.send()
        agent.history = [*plain, {"role": "user", "content": [words]}, *reply]
    bodies = [request.json for request in agent.got]
    if back == "anthropic-messages":
        marked = [[n for n, one in enumerate(body["messages"]) if "cache_control" in str(one)] for body in bodies]
        assert marked == [[2 * n] for n in range(4)], "marks stay where the client puts them"
        return
    assert b"cache_control" not in b"".join(request.body for request in agent.got)
    assert_grows(back, agent.got)
    if back == "openai-responses":
        assert len({body["prompt_cache_key"] for body in bodies}) == 1


@pytest.mark.parametrize("back", ["openai-chat", "openai-responses"])
@pytest.mark.parametrize("client", ["openai-chat", "openai-responses"])
def test_the_clients_cache_key_is_sent_in_each_turn(keyed: Scene, client: Protocol, back: Protocol) -> None:
    agent = Agent(keyed, client, f"{KEYED[back]}:m")
    for number in range(3):
        agent.history += written(client, user(f"step {number}"))
        keyed.upstream.script = told_apart(say)
        body = {**agent.body(), "prompt_cache_key": "mine"}
        answer = keyed.post(path_of(client, agent.model), body, {"x-session-id": agent.session})
        assert answer.status == 200
        agent.history += kept(client, answer, False)
    assert len({key_of(r) for r in keyed.upstream.requests}) == 1
    assert_grows(back, keyed.upstream.requests)


# Requests of real agents


def of_model(message: Any) -> bool:
    """Is it what a model said: a text, a call, or what it thought?"""
    if not isinstance(message, dict):
        return False
    kind = str(message.get("type", ""))
    return message.get("role") in ("assistant", "model") or kind.endswith("_call") or kind == "reasoning"


def messages_of(request: ClientRequest) -> list[Any]:
    found = request.body.get(LIST_OF[request.protocol]) if request.protocol and isinstance(request.body, dict) else None
    return found if isinstance(found, list) else []


ANSWERED: Final = [one for one in client_requests() if any(of_model(message) for message in messages_of(one))]


def first_turn(request: ClientRequest) -> dict[str, Any]:
    """The same request before the last answer."""
    assert request.protocol is not None
    messages = messages_of(request)
    last = max(n for n, message in enumerate(messages) if of_model(message))
    while last and of_model(messages[last - 1]):
        last -= 1
    return {**request.body, LIST_OF[request.protocol]: messages[:last]}


def unmarked(element: bytes) -> Any:
    """A message without marks."""

    def clean(value: Any) -> Any:
        match value:
            case dict():
                return {name: clean(one) for name, one in value.items() if name != "cache_control"}
            case list():
                return [clean(one) for one in value]
            case _:
                return value

    return clean(json.loads(element))  # fmt: skip


def accepted(request: ClientRequest, back: Protocol) -> bool:
    """Tools that Anthropic runs itself are refused where only other providers are (FE-04)."""
    return back == "anthropic-messages" or "web_search_" not in json.dumps(request.body.get("tools"))


@needs_shared
@pytest.mark.parametrize(
    ("request_", "back"), [(one, back) for one in ANSWERED for back in PROTOCOLS if accepted(one, back)], ids=str
)
def test_two_turns_of_a_real_agent_share_key_and_beginning(
    keyed: Scene, request_: ClientRequest, back: Protocol
) -> None:
    """As it was recorded: the turn with the answer, and before it the one that was answered."""
    client = request_.protocol
    assert client is not None
    keep = ("user-agent", "session", "conversation", "metadata", "anthropic-", "x-claude", "x-codex", "x-opencode")
    headers = {name: value for name, value in request_.headers if any(word in name.lower() for word in keep)}
    model = f"{KEYED[back]}:m"
    stream = bool(request_.body.get("stream"))
    for body in (first_turn(request_), request_.body):
        named = body if client == "gemini" else {**body, "model": model}
        answer = keyed.post(path_of(client, model, stream), named, headers)
        assert answer.status == 200, answer.body
    assert len(set(used(keyed))) == 1
    first, second = ([unmarked(one) for one in elements(back, request)] for request in keyed.upstream.requests)
    assert second[: len(first)] == first
    for name in ("system", "instructions", "systemInstruction", "tools"):
        one, other = (request.json.get(name) for request in keyed.upstream.requests)
        assert one == other
