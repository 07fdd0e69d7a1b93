"""REQ-04 as providers see it: the request after a failed edit is less random, once, in every client protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.commands.corpus.cases import Piece, Said
from tests.e2e.asking import PROTOCOLS, Scene, path_of, protocol_of, say, started, target
from tests.e2e.commanding import NAMES, SURFACES, config, fresh_id
from tests.e2e.talking import elements, request_of
from tests.server.process import Answer
from tests.support.shared import Protocol
from tests.support.upstream import Received, Reply, Send, upstream_in_thread

FAILED = "The SEARCH block does not match anything"
every_surface = pytest.mark.parametrize(("client", "stream"), SURFACES, ids=NAMES)
every_protocol = pytest.mark.parametrize("client", PROTOCOLS)

PLAIN: dict[Protocol, str] = {
    "openai-chat": "gpt-4o",
    "openai-responses": "gpt-4o",
    "anthropic-messages": "claude-3-5-haiku",
    "gemini": "gemini-2.0-flash",
}
"""Models that take every sampling value."""


def scene_of(*flags: str, **more: Any) -> Iterator[Scene]:
    with upstream_in_thread(say) as upstream, started(*flags, config=config(upstream.url, **more)) as proxy:
        yield Scene(proxy, upstream)


@pytest.fixture(scope="module")
def lowering_scene() -> Iterator[Scene]:
    flags = (
        "--edit-precision-override-top-p",
        "--edit-precision-override-top-k",
        "--edit-precision-target-top-k",
        "10",
    )
    yield from scene_of(*flags, "--edit-precision-exclude-agents", "^cline$")


@pytest.fixture
def lowering(lowering_scene: Scene) -> Scene:
    """Lowers top_p and top_k too, and leaves Cline alone."""
    lowering_scene.play(say)
    return lowering_scene


def user(text: str) -> Said:
    return Said("user", (Piece("text", text),))


def assistant(text: str) -> Said:
    return Said("assistant", (Piece("text", text),))


CALL = Said("assistant", (Piece("tool_call", '{"path": "a"}', "call_1", "replace_in_file"),))


def result(text: str) -> Said:
    return Said("user", (Piece("tool_result", text, "call_1", "replace_in_file"),))


FAILING = (user("edit a"), CALL, result(FAILED))


class Client:
    """One session of one client; `sampling` are members of every request, by the names of OpenAI."""

    def __init__(
        self, scene: Scene, protocol: Protocol, stream: bool = False, back: Protocol | None = None, model: str = ""
    ) -> None:
        self.scene, self.protocol, self.stream = scene, protocol, stream
        self.back = back or protocol
        self.model = target(self.back, model or PLAIN[self.back])
        self.headers = {"x-session-id": fresh_id()}

    def post(self, *said: Said, **sampling: Any) -> Answer:
        body = request_of(self.protocol, self.model, said, self.stream)
        if sampling and self.protocol == "gemini":
            names = {"temperature": "temperature", "top_p": "topP", "top_k": "topK"}
            body["generationConfig"] = {names[name]: value for name, value in sampling.items()}
        else:
            body |= sampling
        answer = self.scene.post(path_of(self.protocol, self.model, self.stream), body, self.headers)
        assert answer.status == 200, answer.body
        return answer

    def heat(self, *said: Said, **sampling: Any) -> Any:
        """The temperature that the provider was sent, None without any."""
        self.post(*said, **sampling)
        return self.sent("temperature")

    def sent(self, name: str) -> Any:
        body = self.scene.last.json
        if protocol_of(self.scene.last) != "gemini":
            return body.get(name)
        return body.get("generationConfig", {}).get({"top_p": "topP", "top_k": "topK"}.get(name, name))


def telling(text: str) -> Callable[[Received], Reply]:
    """The provider says this, streamed in three pieces where that was asked for."""
    third = len(text) // 3
    pieces = (text[:third], text[third : 2 * third], text[2 * third :])

    def script(request: Received) -> Reply:
        def worded(data: bytes) -> bytes:
            data = data.replace(b"w0 w1 w2 ", text.encode())
            for n, piece in enumerate(pieces):
                data = data.replace(b"w%d " % n, piece.encode())
            return data

        reply = say(request)
        steps = [Send(worded(step.data)) if isinstance(step, Send) else step for step in reply.steps or ()]
        return replace(reply, body=worded(reply.body), steps=None if reply.steps is None else steps)

    return script


# Trigger A


@every_surface
def test_a_failed_edit_tunes_that_request_and_the_following_one_is_the_clients(
    commanded: Scene, client: Protocol, stream: bool
) -> None:
    talk = Client(commanded, client, stream)
    assert talk.heat(user("edit a"), temperature=0.8) == 0.8
    assert talk.heat(*FAILING, temperature=0.8) == 0.1
    assert talk.heat(*FAILING, assistant("I shall read it."), user("go on"), temperature=0.8) == 0.8


@every_surface
def test_a_temperature_is_set_where_the_client_gives_none(commanded: Scene, client: Protocol, stream: bool) -> None:
    talk = Client(commanded, client, stream)
    assert talk.heat(*FAILING) == 0.1
    assert talk.heat(*FAILING, assistant("ok"), user("go on")) is None


@every_surface
def test_the_same_text_ten_turns_back_changes_nothing(commanded: Scene, client: Protocol, stream: bool) -> None:
    later = [said for n in range(10) for said in (assistant(f"a{n}"), user(f"u{n}"))]
    assert Client(commanded, client, stream).heat(*FAILING, *later, temperature=0.8) == 0.8


@every_surface
def test_temperature_0_stays(commanded: Scene, client: Protocol, stream: bool) -> None:
    assert Client(commanded, client, stream).heat(*FAILING, temperature=0) == 0


@every_protocol
def test_a_failure_in_a_text_that_the_agent_writes_as_the_user(commanded: Scene, client: Protocol) -> None:
    text = "# 1 SEARCH/REPLACE block failed to match!\n\n## SearchReplaceNoExactMatch: This SEARCH block failed"
    assert Client(commanded, client).heat(user("edit a"), assistant("<<<"), user(text), temperature=0.8) == 0.1


@every_protocol
@pytest.mark.parametrize("back", PROTOCOLS)
def test_it_holds_for_every_target(commanded: Scene, client: Protocol, back: Protocol) -> None:
    talk = Client(commanded, client, back=back)
    assert talk.heat(*FAILING, temperature=0.8) == 0.1
    assert talk.heat(user("edit a"), temperature=0.8) == 0.8


@every_protocol
def test_all_but_the_tuned_value_keeps_its_bytes(commanded: Scene, client: Protocol) -> None:
    talk = Client(commanded, client)
    talk.post(*FAILING, temperature=0)
    untuned = commanded.last
    talk.post(*FAILING, temperature=0.8)
    assert elements(client, commanded.last) == elements(client, untuned)
    assert commanded.last.body.replace(b"0.1", b"0") == untuned.body


@every_protocol
def test_ordinary_talk_of_failed_edits_changes_nothing(commanded: Scene, client: Protocol) -> None:
    talk = Client(commanded, client)
    assert talk.heat(user(f"what does '{FAILED}' mean?"), temperature=0.8) == 0.8
    hits = f'src/edit.ts:12: throw new Error("{FAILED}")'
    assert talk.heat(user("grep"), CALL, result(hits), temperature=0.8) == 0.8


REFUSING: list[tuple[Protocol, str]] = [
    ("openai-chat", "gpt-5"),
    ("openai-chat", "o4-mini"),
    ("openai-responses", "gpt-5.5"),
    ("openai-responses", "o3"),
    ("anthropic-messages", "claude-opus-4-7"),
]


@every_protocol
@pytest.mark.parametrize(("back", "model"), REFUSING)
def test_reasoning_models_that_refuse_temperature_are_sent_none(
    commanded: Scene, client: Protocol, back: Protocol, model: str
) -> None:
    assert Client(commanded, client, back=back, model=model).heat(*FAILING) is None


def test_an_adaptively_thinking_request_is_sent_no_temperature(commanded: Scene) -> None:
    talk = Client(commanded, "anthropic-messages", model="claude-opus-4-6")
    assert talk.heat(*FAILING, thinking={"type": "adaptive"}) is None


# Trigger B


@every_surface
@pytest.mark.parametrize("crossed", [False, True], ids=["verbatim", "translated"])
def test_a_failure_in_an_answer_tunes_the_next_request_of_the_session(
    commanded: Scene, client: Protocol, stream: bool, crossed: bool
) -> None:
    back = PROTOCOLS[(PROTOCOLS.index(client) + 1) % 4] if crossed else client
    talk, other = Client(commanded, client, stream, back), Client(commanded, client, stream, back)
    commanded.play(telling("apply_patch verification failed: invalid hunk"))
    answer = talk.post(user("edit a"), temperature=0.8)
    assert answer.status == 200 and talk.sent("temperature") == 0.8
    commanded.play(say)
    assert other.heat(user("hi"), temperature=0.8) == 0.8
    assert talk.heat(user("edit a"), assistant("sorry"), user("again"), temperature=0.8) == 0.1
    assert talk.heat(user("edit a"), assistant("done"), user("and on"), temperature=0.8) == 0.8


def test_the_credit_is_kept_over_a_local_reply_and_a_call_that_failed(commanded: Scene) -> None:
    talk = Client(commanded, "openai-chat")
    commanded.play(telling(FAILED))
    talk.post(user("edit a"))
    commanded.play(
        lambda request: Reply.json({"error": {"message": "no", "type": "invalid_request_error"}}, status=400)
    )
    talk.post(user("!/help"))
    failed = commanded.post(
        path_of("openai-chat", talk.model), request_of("openai-chat", talk.model, [user("a")]), talk.headers
    )
    assert failed.status == 400
    commanded.play(say)
    assert talk.heat(user("again"), temperature=0.8) == 0.1
    assert talk.heat(user("and on"), temperature=0.8) == 0.8


# Options


@every_surface
def test_cline_is_left_alone_where_it_is_excluded(lowering: Scene, client: Protocol, stream: bool) -> None:
    talk = Client(lowering, client, stream)
    talk.headers["user-agent"] = "Cline/3.0"
    assert talk.heat(*FAILING, temperature=0.8, top_p=0.9) == 0.8
    assert talk.sent("top_p") == 0.9
    roo = Client(lowering, client, stream)
    roo.headers["user-agent"] = "RooCode/3.0"
    assert roo.heat(*FAILING, temperature=0.8) == 0.1


@every_surface
def test_top_p_is_lowered_where_that_is_wanted(lowering: Scene, client: Protocol, stream: bool) -> None:
    talk = Client(lowering, client, stream)
    for sampling, expected in (({"top_p": 0.9}, 0.3), ({"top_p": 0.2}, 0.2), ({}, 0.3)):
        talk.post(*FAILING, **sampling)
        assert (talk.sent("temperature"), talk.sent("top_p")) == (0.1, expected)


@pytest.mark.parametrize("client", ["anthropic-messages", "gemini"])
def test_top_k_is_lowered_where_that_is_wanted(lowering: Scene, client: Protocol) -> None:
    talk = Client(lowering, client)
    for sampling, expected in (({"top_k": 40}, 10), ({"top_k": 5}, 5), ({}, 10)):
        talk.post(*FAILING, **sampling)
        assert talk.sent("top_k") == expected


@every_surface
def test_switched_off_in_the_session_it_changes_nothing(commanded: Scene, client: Protocol, stream: bool) -> None:
    talk = Client(commanded, client, stream)
    talk.post(user("!/set(edit-precision=off)"))
    assert talk.heat(*FAILING, temperature=0.8) == 0.8
    talk.post(user("!/set(edit-precision=on)"))
    assert talk.heat(*FAILING, temperature=0.8) == 0.1


def test_disabled_it_changes_nothing() -> None:
    for scene in scene_of("--disable-edit-precision"):
        for client, stream in SURFACES:
            assert Client(scene, client, stream).heat(*FAILING, temperature=0.8) == 0.8


def test_what_the_session_wants_is_lowered_as_well(commanded: Scene) -> None:
    talk = Client(commanded, "openai-chat")
    talk.post(user("!/temperature(0.5)"))
    assert talk.heat(user("hi")) == 0.5
    assert talk.heat(*FAILING) == 0.1
