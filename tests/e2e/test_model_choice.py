"""Which back end gets which model with which key, on a running proxy, in every client protocol (RT-01 to RT-06, RT-11, BE-02)."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.asking import PROTOCOLS, Scene, body_of, error_of, path_of, protocol_of, say, started
from tests.e2e.commanding import NAMES, SURFACES, Talk, fresh_id
from tests.e2e.keeping import Place, ask, backend, until
from tests.server.process import Answer, run
from tests.support.shared import Protocol
from tests.support.upstream import Received, Reply, Send, Upstream, upstream_in_thread

every_surface = pytest.mark.parametrize(("client", "stream"), SURFACES, ids=NAMES)
every_protocol = pytest.mark.parametrize("client", PROTOCOLS)
Target = tuple[str, str]

TYPES: Final = {
    "openai": "openai", "openrouter": "openrouter", "anthropic": "anthropic", "gemini": "gemini",
    "lmstudio": "openai", "responses": "openai-responses", "zai": "zai",
}  # fmt: skip
SIDE: Final = {"/v1/embeddings": {"input": "a"}, "/v1/completions": {"prompt": "a"}}
each_side_call = pytest.mark.parametrize("path", SIDE)


def world(url: str) -> dict[str, Any]:
    """Back ends with a path and a key of their own."""
    return {
        id: {"type": type, "base_url": f"{url}/{id}" + ("" if type == "gemini" else "/v1"), "api_keys": {"k": f"key-{id}"}}
        for id, type in TYPES.items()
    }  # fmt: skip


def echo(request: Received) -> Reply:
    """The provider says a few words and names the model that it was asked for."""
    if request.method == "GET":
        return Reply.json({"object": "list", "data": []})
    if request.path.endswith(("/embeddings", "/completions")) and "messages" not in request.json:
        return Reply.json({"object": "list", "data": [], "choices": [], "model": request.json["model"]})

    def named(data: bytes) -> bytes:
        return re.sub(
            rb'"(model|modelVersion)": ?"m"', lambda m: b'"%b":%b' % (m[1], json.dumps(called(request)[1]).encode()), data
        )  # fmt: skip

    reply = say(request)
    steps = [Send(named(step.data)) if isinstance(step, Send) else step for step in reply.steps or ()]
    return replace(reply, body=named(reply.body), steps=None if reply.steps is None else steps)


def called(request: Received) -> Target:
    """Back end and model of a call; the key is the back end's."""
    id = request.path.split("/")[1]
    value = next(v for name in ("authorization", "x-api-key", "x-goog-api-key") if (v := request.header(name)))
    assert value.removeprefix("Bearer ") == f"key-{id}"
    if protocol_of(request) == "gemini" and "models/" in request.path:
        return id, request.path.partition("/models/")[2].rpartition(":")[0]
    return id, request.json["model"]


def targets(scene: Scene) -> list[Target]:
    return [called(request) for request in scene.upstream.requests]


def reaches(scene: Scene, client: Protocol, stream: bool, model: str, session: str = "") -> Target:
    """Asks once; the one target that was called, which the answer names in its headers and in its body."""
    scene.upstream.forget()
    answer = scene.ask(client, model, stream, headers={"x-session-id": session or fresh_id()})
    assert answer.status == 200, answer.body
    [found] = targets(scene)
    assert (answer.headers["x-llm-proxy-backend"], answer.headers["x-llm-proxy-model"]) == found
    assert models_in(answer) == {found[1]}, "the reply names the model that was really used"
    return found


def models_in(answer: Answer) -> set[str]:
    """Every model that the answer names. JSON escapes are read."""
    found = re.findall(rb'"(?:model|modelVersion)" ?: ?("(?:[^"\\]|\\.)*")', answer.body)
    return {json.loads(text) for text in found}


def scene_of(
    *flags: str, env: Mapping[str, str] | None = None, changes: Mapping[str, Any] | None = None, **more: Any
) -> Iterator[Scene]:
    """`changes`: further members of single back ends."""
    with upstream_in_thread(echo) as upstream:
        backends = world(upstream.url)
        for id, members in (changes or {}).items():
            backends[id] = {**backends[id], **members}
        config = {"backends": backends, "default_backend": "openrouter", **more}
        with started(*flags, config=config, environment=env) as proxy:
            yield Scene(proxy, upstream)


def fresh(scene: Scene) -> Scene:
    scene.play(echo)
    return scene


@pytest.fixture(scope="module")
def plain_scene() -> Iterator[Scene]:
    yield from scene_of(changes={"zai": {"default_model": "its-own", "enabled": True}})


@pytest.fixture
def plain(plain_scene: Scene) -> Scene:
    """Nothing pinned; the default back end is openrouter."""
    return fresh(plain_scene)


@pytest.fixture(scope="module")
def local_scene() -> Iterator[Scene]:
    yield from scene_of("--default-backend", "lmstudio", changes={"lmstudio": {"default_model": "m"}})


@pytest.fixture
def local(local_scene: Scene) -> Scene:
    """The default back end is lmstudio, with a default model."""
    return fresh(local_scene)


RULES: Final = [
    {"pattern": "^gpt-(.*)", "replacement": r"openrouter:openai/gpt-\1"},
    {"pattern": r"claude-(?P<rest>\d)", "replacement": r"anthropic:c-\g<rest>"},
    {"pattern": "(a+)+$", "replacement": "gemini:caught"},
    {"pattern": "[=", "replacement": "never"},
    {"pattern": "^pass/", "replacement": "made/"},
    {"pattern": ".*", "replacement": "lmstudio:caught-all"},
]


@pytest.fixture(scope="module")
def ruled_scene() -> Iterator[Scene]:
    yield from scene_of(env={"MODEL_ALIASES": "notjson"}, model_aliases=RULES)


@pytest.fixture
def ruled(ruled_scene: Scene) -> Scene:
    """Rules of the file; the fourth is wrong, the last catches every name."""
    return fresh(ruled_scene)


@pytest.fixture(scope="module")
def pinned_scene() -> Iterator[Scene]:
    routes = {"both": {"policy": "m", "elements": ["anthropic:x", "openai:y"]}}
    yield from scene_of(env={"STATIC_ROUTE": "openai:gpt-4o-mini"}, model_aliases=RULES, failover_routes=routes)


@pytest.fixture
def pinned(pinned_scene: Scene) -> Scene:
    """A static route ahead of aliases and a failover route."""
    return fresh(pinned_scene)


@pytest.fixture(scope="module")
def forced_scene() -> Iterator[Scene]:
    yield from scene_of("--force-model", "g", env={"FORCE_MODEL": "loser"}, model_aliases=RULES[:2])


@pytest.fixture
def forced(forced_scene: Scene) -> Scene:
    """The model is forced by flag, against the variable."""
    return fresh(forced_scene)


# RT-01


NAMED: Final = [
    ("deepseek/deepseek-r1:free", "openrouter", "deepseek/deepseek-r1:free"),
    ("OPENAI:gpt-4o", "openai", "gpt-4o"),
    ("nosuch:model", "openrouter", "nosuch:model"),
    ("openai/gpt-4o", "openai", "gpt-4o"),
    ("openrouter:anthropic/claude-3-haiku:beta", "openrouter", "anthropic/claude-3-haiku:beta"),
    ("openrouter:openai/gpt-4o", "openrouter", "openai/gpt-4o"),
    ("Anthropic/Mixed:Case", "anthropic", "Mixed:Case"),
    ("gemini:a b+c%é日", "gemini", "a b+c%é日"),
    ("openai:gpt-4o?temperature=1", "openai", "gpt-4o?temperature=1"),
    ("zai:", "zai", "its-own"),
]


@every_surface
@pytest.mark.parametrize(("name", "id", "model"), NAMED)
def test_rt_01_one_string_names_back_end_and_model(
    plain: Scene, client: Protocol, stream: bool, name: str, id: str, model: str
) -> None:
    if client == "gemini" and name.endswith(":"):
        name = "zai%3A"  # a path without a model is no path of this protocol; with the separator alone it is
        answer = plain.post(
            f"/v1beta/models/{name}:generateContent", body_of("gemini", ""), {"x-session-id": fresh_id()}
        )
        assert (answer.status, targets(plain)) == (200, [(id, model)])
        return
    if not model.isascii():
        plain.upstream.forget()
        assert plain.ask(client, name, stream).status == 200
        assert targets(plain) == [(id, model)]
        return
    assert reaches(plain, client, stream, name) == (id, model)


@every_surface
def test_rt_01_a_colon_of_the_model_is_kept(local: Scene, client: Protocol, stream: bool) -> None:
    assert reaches(local, client, stream, "llama3:8b") == ("lmstudio", "llama3:8b")


@pytest.mark.parametrize("path", ["models/openai:gpt-4o", "models/models%2Fopenai%3Agpt-4o", "models/openai%2Fgpt-4o"])
def test_rt_01_a_gemini_path_may_be_encoded(plain: Scene, path: str) -> None:
    answer = plain.post(f"/v1beta/{path}:generateContent", body_of("gemini", ""))
    assert (answer.status, targets(plain)) == (200, [("openai", "gpt-4o")])


@pytest.mark.parametrize("client", ["openai-chat", "openai-responses", "anthropic-messages"])
@pytest.mark.parametrize("stream", [False, True])
def test_rt_01_without_a_model_the_default_one_is_sent_or_400(
    local: Scene, plain: Scene, client: Protocol, stream: bool
) -> None:
    body = body_of(client, "", stream)
    del body["model"]
    assert local.post(path_of(client, "", stream), body).status == 200
    assert targets(local) == [("lmstudio", "m")]
    for sent in (body, {**body, "model": "openai:"}):
        refused = plain.post(path_of(client, "", stream), sent)
        assert refused.status == 400 and "model" in error_of(client, refused)["message"]
        if client != "anthropic-messages":
            assert error_of(client, refused)["param"] == "model"
    assert targets(plain) == []


@each_side_call
def test_rt_01_side_calls_read_names_alike(plain: Scene, local: Scene, path: str) -> None:
    for name in ("OPENAI:e", "openai/e", "openrouter:openai/e", "nosuch:e", "zai:"):
        assert plain.post(path, {"model": name, **SIDE[path]}).status == 200
    assert targets(plain) == [
        ("openai", "e"), ("openai", "e"), ("openrouter", "openai/e"), ("openrouter", "nosuch:e"), ("zai", "its-own"),
    ]  # fmt: skip
    assert local.post(path, SIDE[path]).status == 200
    assert targets(local) == [("lmstudio", "m")]


@every_surface
def test_rt_01_a_session_back_end_keeps_vendor_and_model_together(plain: Scene, client: Protocol, stream: bool) -> None:
    talk = Talk(plain, client, stream)
    talk.say("!/backend(openrouter)")
    assert reaches(plain, client, stream, "openai/gpt-4o", talk.session) == ("openrouter", "openai/gpt-4o")


# RT-02


@every_surface
def test_rt_02_a_forced_model_takes_the_requested_back_end(forced: Scene, client: Protocol, stream: bool) -> None:
    assert reaches(forced, client, stream, "openai:gpt-4") == ("openai", "g")


@every_surface
def test_rt_02_an_alias_applies_to_the_session_model(ruled: Scene, client: Protocol, stream: bool) -> None:
    talk = Talk(ruled, client, stream)
    talk.say("!/model(gpt-4o)")
    assert reaches(ruled, client, stream, "whatever", talk.session) == ("openrouter", "openai/gpt-4o")


@every_surface
def test_rt_02_no_alias_applies_to_a_one_off(ruled: Scene, client: Protocol, stream: bool) -> None:
    talk = Talk(ruled, client, stream)
    talk.say("!/oneoff(openai:gpt-4o)")
    assert reaches(ruled, client, stream, "whatever", talk.session) == ("openai", "gpt-4o")
    assert reaches(ruled, client, stream, "whatever", talk.session) == ("lmstudio", "caught-all")


@every_surface
def test_rt_02_the_session_back_end_takes_the_model_of_another(plain: Scene, client: Protocol, stream: bool) -> None:
    talk = Talk(plain, client, stream)
    talk.say("!/backend(anthropic)")
    assert reaches(plain, client, stream, "openai:claude-x", talk.session) == ("anthropic", "claude-x")


@every_surface
def test_rt_02_the_static_route_is_first_of_all(pinned: Scene, client: Protocol, stream: bool) -> None:
    for name in ("claude-3", "openai:other", "anthropic:x", "gpt-4", "both", "route:both", "gemini/x"):
        assert reaches(pinned, client, stream, name) == ("openai", "gpt-4o-mini")


# RT-03


def default_of(scene_or_proxy: Any) -> str:
    return str(getattr(scene_or_proxy, "proxy", scene_or_proxy).get("/internal/routing").json["default_backend"])


def test_rt_03_the_only_key_makes_the_default() -> None:
    with started(environment={"ZAI_API_KEY": "key-zai-0123456789"}) as proxy:
        assert default_of(proxy) == "zai"


@every_protocol
def test_rt_03_a_default_without_key_starts_and_is_503_naming_the_variable(keyless: Scene, client: Protocol) -> None:
    assert re.search(r"warning: .*gemini", keyless.proxy.banner) and "GEMINI_API_KEY" in keyless.proxy.banner
    for model in ("anything", "gemini:x"):
        answer = keyless.ask(client, model)
        assert answer.status == 503 and "GEMINI_API_KEY" in error_of(client, answer)["message"]
    assert keyless.ask(client, "openai:m").status == 200


@pytest.fixture(scope="module")
def keyless_scene() -> Iterator[Scene]:
    with upstream_in_thread(echo) as upstream:
        backends = {"openai": world(upstream.url)["openai"]}
        with started(config={"backends": backends}, environment={"LLM_BACKEND": "gemini"}) as proxy:
            yield Scene(proxy, upstream)


@pytest.fixture
def keyless(keyless_scene: Scene) -> Scene:
    """The default back end is gemini, for which there is no key."""
    return fresh(keyless_scene)


@every_protocol
def test_rt_03_without_any_key_demo_answers(demo: Any, client: Protocol) -> None:
    answer = demo.post(path_of(client, "m"), body_of(client, "m"))
    assert (answer.status, answer.headers["x-llm-proxy-backend"]) == (200, "demo")


def test_rt_03_the_first_functional_back_end_of_the_file_is_the_default_and_is_logged(tmp_path: Path) -> None:
    with upstream_in_thread(echo) as upstream:
        there = world(upstream.url)
        order = {"gemini": {"type": "gemini"}, "lmstudio": there["lmstudio"], "openai": there["openai"]}
        with started(config={"backends": order}) as proxy:
            assert default_of(proxy) == "lmstudio"
            assert re.search(r"default back[- ]end +lmstudio", proxy.log)


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (("--default-backend", "opnai"), "openai"),
        (("--static-route", "opnai:m"), "openai"),
        (("--model-alias", "[=x"), "missing"),
        (("--model-alias", "nothing"), "PATTERN=REPLACEMENT"),
        (("--model-alias", r"a=\7"), "group"),
    ],
)
def test_a_mistake_in_a_flag_ends_the_start_with_2_and_says_what(
    tmp_path: Path, flags: tuple[str, ...], wanted: str
) -> None:
    ended = run(tmp_path, flags)
    assert ended.returncode == 2
    assert wanted in ended.stderr.decode()


# RT-04, RT-05


REFUSED: Final = ["!/model(x)", "!/set(model=openai:x)", "!/oneoff(openai:x)"]


def assert_refused(scene: Scene, client: Protocol, stream: bool, typed: str, *words: str) -> None:
    """Nothing is called and the session stays as it was."""
    talk = Talk(scene, client, stream)
    for said in (typed, f"{typed} and go"):
        reply = talk.say(said).text
        assert all(word in reply for word in words), reply
    state = talk.state()
    assert (state["values"], state["one_off"], targets(scene)) == ({}, None, [])


@every_surface
@pytest.mark.parametrize("typed", [*REFUSED, "!/backend(anthropic)", "!/set(backend=anthropic)"])
def test_rt_04_choices_are_refused_with_the_static_route(
    pinned: Scene, client: Protocol, stream: bool, typed: str
) -> None:
    assert_refused(pinned, client, stream, typed, "static route", "openai:gpt-4o-mini")


def test_rt_04_every_path_of_every_protocol_is_pinned(pinned: Scene) -> None:
    body = body_of("anthropic-messages", "claude-sonnet-4-5")
    assert pinned.post("/anthropic/v1/messages", body).status == 200
    assert pinned.post("/v1/completions", {"model": "anthropic:x", "prompt": "a"}).status == 200
    assert targets(pinned) == [("openai", "gpt-4o-mini")] * 2


def test_rt_04_what_generates_nothing_is_not_pinned(pinned: Scene) -> None:
    assert pinned.post("/v1/embeddings", {"model": "gpt-4", "input": "a"}).status == 200
    assert targets(pinned) == [("openrouter", "openai/gpt-4")]


def test_rt_04_a_bare_model_pins_the_model_and_a_route_is_used() -> None:
    routes = {"both": {"policy": "m", "elements": ["anthropic:x", "openai:y"]}}
    for flag, expected in (
        ("only-model", [("openai", "only-model")]), ("both", [("anthropic", "x"), ("openai", "y")]), ("openai:", [("openai", "d")]),
    ):  # fmt: skip
        for scene in scene_of(
            "--static-route", flag, failover_routes=routes, changes={"openai": {"default_model": "d"}}
        ):
            scene.play(lambda r: Reply(500) if called(r)[0] == "anthropic" else echo(r))
            assert scene.ask("openai-chat", "openai:other").status == 200
            assert targets(scene) == expected


@every_surface
@pytest.mark.parametrize("typed", REFUSED)
def test_rt_05_choices_of_a_model_are_refused(forced: Scene, client: Protocol, stream: bool, typed: str) -> None:
    assert_refused(forced, client, stream, typed, "force", " g ")


@every_surface
def test_rt_05_the_back_end_may_be_chosen(forced: Scene, client: Protocol, stream: bool) -> None:
    talk = Talk(forced, client, stream)
    talk.say("!/backend(openai)")
    assert reaches(forced, client, stream, "anything", talk.session) == ("openai", "g")


@every_surface
@pytest.mark.parametrize("name", ["gpt-4", "claude-3-opus", "lmstudio:x"])
def test_rt_05_every_model_becomes_the_forced_one(forced: Scene, client: Protocol, stream: bool, name: str) -> None:
    """The flag wins over the variable, and an alias only finds the back end."""
    id = {"gpt-4": "openrouter", "claude-3-opus": "anthropic", "lmstudio:x": "lmstudio"}[name]
    assert reaches(forced, client, stream, name) == (id, "g")


def test_rt_05_with_a_known_back_end_both_are_pinned() -> None:
    for scene in scene_of("--force-model", "gemini:g", model_aliases=RULES):
        for client, stream in SURFACES:
            assert reaches(scene, client, stream, "openai:gpt-4") == ("gemini", "g")
        talk = Talk(scene, "openai-chat")
        talk.say("!/backend(openai)")
        assert reaches(scene, "openai-chat", False, "x", talk.session) == ("gemini", "g")
        assert scene.post("/v1/embeddings", {"model": "openai:e", "input": "a"}).status == 200


# RT-06


REWRITTEN: Final = [
    ("gpt-4o", "openrouter", "openai/gpt-4o"),
    ("claude-3", "anthropic", "c-3"),
    ("claude-3-opus", "anthropic", "c-3-opus"),
    ("aaaa", "gemini", "caught"),
    ("openai:gpt-4o", "lmstudio", "caught-all"),
    ("pass/x", "openrouter", "made/x"),
]


@every_surface
@pytest.mark.parametrize(("name", "id", "model"), REWRITTEN)
def test_rt_06_the_first_rule_that_matches_counts(
    ruled: Scene, client: Protocol, stream: bool, name: str, id: str, model: str
) -> None:
    assert reaches(ruled, client, stream, name) == (id, model)


@each_side_call
def test_rt_06_side_calls_are_rewritten_too(ruled: Scene, path: str) -> None:
    for name in ("gpt-4o", "pass/x"):
        assert ruled.post(path, {"model": name, **SIDE[path]}).status == 200
    assert targets(ruled) == [("openrouter", "openai/gpt-4o"), ("openrouter", "made/x")]


def test_rt_06_the_list_of_models_is_not_rewritten(ruled: Scene) -> None:
    ruled.play(lambda r: Reply.json({"object": "list", "data": [{"id": "gpt-4o", "object": "model"}]}))
    ids = {one["id"] for one in ruled.proxy.get("/v1/models").json["data"]}
    assert "openai:gpt-4o" in ids and not any("caught" in id for id in ids)


def test_rt_06_a_wrong_variable_and_a_wrong_rule_cost_a_line_each(ruled: Scene) -> None:
    assert re.search(r"warning: .*MODEL_ALIASES", ruled.proxy.banner)
    assert re.search(r"error.*rule 4", ruled.proxy.banner, re.IGNORECASE)


def test_rt_06_flags_replace_the_variable_and_the_file() -> None:
    env = {"MODEL_ALIASES": json.dumps([{"pattern": "env", "replacement": "openai:env"}])}
    flags = ("--model-alias", r"a\=(.)=openai:\1", "--model-alias", "b=zai:b")
    for scene in scene_of(*flags, env=env, model_aliases=RULES):
        for name, expected in (
            ("a=x", ("openai", "x")),
            ("b", ("zai", "b")),
            ("env", ("openrouter", "env")),
            ("gpt-4", ("openrouter", "gpt-4")),
        ):
            assert reaches(scene, "openai-chat", False, name) == expected
    for scene in scene_of(env=env, model_aliases=RULES):
        assert reaches(scene, "openai-chat", False, "env") == ("openai", "env")
        assert reaches(scene, "openai-chat", False, "gpt-4") == ("openrouter", "gpt-4")


@every_surface
def test_rt_06_a_name_of_more_than_512_characters_is_400(ruled: Scene, client: Protocol, stream: bool) -> None:
    longest = "gpt-" + "é" * 508
    assert ruled.ask(client, longest, stream).status == 200
    refused = ruled.ask(client, longest + "é", stream)
    assert refused.status == 400 and "512" in error_of(client, refused)["message"]
    assert targets(ruled) == [("openrouter", "openai/" + longest)]


@each_side_call
def test_rt_06_long_names_of_side_calls_too(ruled: Scene, path: str) -> None:
    assert ruled.post(path, {"model": "x" * 513, **SIDE[path]}).status == 400
    assert targets(ruled) == []


@every_surface
def test_rt_06_a_catastrophic_pattern_costs_nothing(ruled: Scene, client: Protocol, stream: bool) -> None:
    hostile = "a" * 511 + "!"
    begun = time.monotonic()
    assert reaches(ruled, client, stream, hostile) == ("lmstudio", "caught-all")
    assert time.monotonic() - begun < 2  # a backtracking engine would need longer than the universe has existed


# RT-11; further sentences of it are in test_command_effects


@every_surface
def test_rt_11_a_one_off_alone_counts_for_the_next_request(plain: Scene, client: Protocol, stream: bool) -> None:
    talk = Talk(plain, client, stream, model="openai:usual")
    talk.say("!/oneoff(openrouter:qwen/qwen3-coder)")
    assert targets(plain) == []
    talk.say("hi")
    talk.say("hi")
    talk.say("!/oneoff(anthropic:c) do it")
    assert targets(plain) == [("openrouter", "qwen/qwen3-coder"), ("openai", "usual"), ("anthropic", "c")]


@every_surface
def test_rt_11_a_second_one_off_replaces_the_first(plain: Scene, client: Protocol, stream: bool) -> None:
    talk = Talk(plain, client, stream, model="openai:usual")
    talk.say("!/oneoff(openrouter:first)")
    talk.say("!/oneoff(anthropic:second)")
    talk.say("hi")
    talk.say("hi")
    assert targets(plain) == [("anthropic", "second"), ("openai", "usual")]


@every_surface
def test_rt_11_a_one_off_that_failed_counts_again(plain: Scene, client: Protocol, stream: bool) -> None:
    talk = Talk(plain, client, stream, model="openai:usual")
    talk.say("!/oneoff(anthropic:once)")
    plain.play(Reply.json({"error": {"message": "busy"}}, 503))
    assert talk.post("hi").status in (503, 529)  # Anthropic's clients know 529
    plain.upstream.script = echo
    talk.say("hi")
    talk.say("hi")
    assert targets(plain) == [("anthropic", "once"), ("anthropic", "once"), ("openai", "usual")]


@every_surface
def test_rt_11_a_one_off_that_could_never_succeed_is_spent(plain: Scene, client: Protocol, stream: bool) -> None:
    talk = Talk(plain, client, stream, model="openai:usual")
    talk.say("!/oneoff(anthropic:once)")
    plain.play(Reply.json({"error": {"message": "no"}}, 400))
    assert talk.post("hi").status == 400
    plain.upstream.script = echo
    talk.say("hi")
    assert targets(plain) == [("anthropic", "once"), ("openai", "usual")]


@every_surface
def test_rt_11_setting_and_unsetting(plain: Scene, client: Protocol, stream: bool) -> None:
    """`b:m` sets both, a bare model keeps the back-end, and unsetting either clears both."""
    talk, other = (Talk(plain, client, stream, model="openai:usual") for _ in range(2))
    for typed, expected in (
        ("!/set(model=anthropic:c)", ("anthropic", "c")), ("!/set(model=d)", ("anthropic", "d")), ("!/unset(model)", ("openai", "usual")),
        ("!/model(anthropic:c)", ("anthropic", "c")), ("!/backend(gemini)", ("gemini", "c")), ("!/unset(backend)", ("openai", "usual")),
    ):  # fmt: skip
        talk.say(typed)
        plain.upstream.forget()
        talk.say("hi")
        other.say("hi")
        assert targets(plain) == [expected, ("openai", "usual")], typed


@pytest.mark.parametrize("client", ["anthropic-messages", "gemini"])
def test_rt_11_auxiliary_calls_leave_a_one_off_alone(plain: Scene, client: Protocol) -> None:
    talk = Talk(plain, client, model="openai:usual")
    talk.say("!/oneoff(anthropic:once)")
    named = {"x-session-id": talk.session}
    path = "/v1/messages/count_tokens" if client == "anthropic-messages" else "/v1beta/models/openai:usual:countTokens"
    assert plain.post(path, body_of(client, "openai:usual"), named).status == 200
    assert plain.post("/v1/embeddings", {"model": "openai:e", "input": "a"}, named).status == 200
    assert plain.proxy.get("/v1/models", named).status == 200
    assert ("anthropic", "once") not in [called(r) for r in plain.upstream.requests if r.method == "POST"]
    plain.upstream.forget()
    talk.say("hi")
    talk.say("hi")
    assert targets(plain) == [("anthropic", "once"), ("openai", "usual")]


# What one back end pins: default_model is above


@pytest.fixture(scope="module")
def own_scene() -> Iterator[Scene]:
    changes = {
        "lmstudio": {"static_route": "loaded"},
        "anthropic": {"fallback": {"backend": "openai", "model": "rescue"}},
        "zai": {"fallback": {"backend": "lmstudio", "model": "ignored"}},
    }
    yield from scene_of(
        changes=changes, failover_routes={"r": {"policy": "m", "elements": ["anthropic:x", "lmstudio:y"]}}
    )


@pytest.fixture
def own(own_scene: Scene) -> Scene:
    """One back end with a model for every call, two with a fallback."""
    return fresh(own_scene)


@every_surface
def test_a_back_end_with_a_static_route_is_always_asked_for_that_model(
    own: Scene, client: Protocol, stream: bool
) -> None:
    for name in ("lmstudio:x", "lmstudio/y"):
        assert reaches(own, client, stream, name) == ("lmstudio", "loaded")
    talk = Talk(own, client, stream)
    talk.say("!/oneoff(lmstudio:x)")
    assert reaches(own, client, stream, "openai:m", talk.session) == ("lmstudio", "loaded")


@each_side_call
def test_a_static_route_of_a_back_end_counts_for_side_calls(own: Scene, path: str) -> None:
    assert own.post(path, {"model": "lmstudio:e", **SIDE[path]}).status == 200
    assert targets(own) == [("lmstudio", "loaded")]


@every_surface
def test_a_fallback_is_a_route_of_two_elements(own: Scene, client: Protocol, stream: bool) -> None:
    assert reaches(own, client, stream, "anthropic:big") == ("anthropic", "big")
    own.play(lambda r: Reply(500) if called(r)[0] in ("anthropic", "zai") else echo(r))
    answer = own.ask(client, "anthropic:big", stream)
    assert (answer.status, answer.headers["x-llm-proxy-backend"], answer.headers["x-llm-proxy-model"]) == (
        200,
        "openai",
        "rescue",
    )
    assert (targets(own), answer.headers["x-llm-proxy-attempts"]) == ([("anthropic", "big"), ("openai", "rescue")], "2")
    own.upstream.forget()
    assert own.ask(client, "zai:glm-x", stream).status == 200
    assert targets(own) == [("zai", "glm-x"), ("lmstudio", "loaded")]
    own.upstream.forget()
    assert own.ask(client, "r", stream).status == 200
    assert targets(own) == [("anthropic", "x"), ("lmstudio", "loaded")], (
        "elements of a route have no fallback of their own"
    )


# BE-02


def test_be_02_keys_of_flag_variable_and_file() -> None:
    """Those of flags and variables replace the file's; equal values count once; a map entry names its key."""
    config = {
        "backends": {
            "openai": {"api_keys": {"mine": "file-key-0"}},
            "anthropic": {"api_keys": {"default": "${K}"}},
            "openrouter": {"api_keys": ["file-key-1", "file-key-1", "file-key-2"]},
            "zai": {"api_key_env": ["OWN"]},
        }
    }
    env = {
        "OPENAI_API_KEY_1": "e1",
        "OPENAI_API_KEY_3": "e3",
        "K": "value-k",
        "OWN": "'own 0'",
        "OWN_2": "own2",
        "GEMINI_API_KEY": "changeme",
    }
    with started("--gemini-api-key", "flag-g", config=config, environment=env) as proxy:
        listed = proxy.get("/internal/backends").json["data"]
        keys = {one["id"]: [key["name"] for key in one["keys"]] for one in listed}
        assert keys["openai"] == ["OPENAI_API_KEY_1", "OPENAI_API_KEY_3"]
        assert keys["anthropic"] == ["default"]
        assert keys["openrouter"] == ["openrouter#1", "openrouter#3"]
        assert keys["zai"] == ["OWN", "OWN_2"]
        assert len(keys["gemini"]) == 1
        assert "changeme" not in proxy.log


@every_protocol
def test_be_02_each_numbered_key_is_used(client: Protocol) -> None:
    with upstream_in_thread(say) as upstream:
        config = {"backends": {"gemini": {"base_url": upstream.url}}, "default_backend": "gemini"}
        env = {"GEMINI_API_KEY": "a", "GEMINI_API_KEY_1": "a", "GEMINI_API_KEY_2": "b", "GEMINI_API_KEY_4": "c"}
        with started(config=config, environment=env) as proxy:
            scene = Scene(proxy, upstream)
            for _ in range(4):
                assert scene.ask(client, "m").status == 200
            assert [r.header("x-goog-api-key") for r in upstream.requests] == ["a", "b", "c", "a"]


# CFG-07 for the choices


def edition(url: str, n: int) -> dict[str, Any]:
    """One of four ways to send a request for `x` to back end `to`, and its number in the model."""
    config: dict[str, Any] = {"backends": {id: backend(url, id) for id in ("to", "other")}, "default_backend": "other"}
    match n % 4:
        case 0:
            config["model_aliases"] = [{"pattern": "x", "replacement": f"to:m{n}"}]
        case 1:
            config["static_route"] = f"to:m{n}"
        case 2:
            config["force_model"] = f"to:m{n}"
        case _:
            config["backends"]["other"]["static_route"] = f"m{n}"
            config["backends"]["to"]["static_route"] = f"m{n}"
            config["default_backend"] = "to"
    return config


def test_edited_choices_take_effect_while_requests_run(tmp_path: Path) -> None:
    """No request fails, each sees one edition, and the last edition is in force in the end."""
    last = 8
    with upstream_in_thread(say) as upstream:
        place = Place(tmp_path)
        place.write(**edition(upstream.url, 0))
        with place.run() as proxy, ThreadPoolExecutor(3) as pool:
            done = [False]

            def client() -> list[int]:
                found = []
                while not done[0]:
                    found.append(ask(proxy, "hi", model="x").status)
                return found

            clients = [pool.submit(client) for _ in range(3)]

            def seen(n: int) -> bool:
                """Is the latest call of that edition?"""
                return newest(upstream) == f"m{n}"

            try:
                for n in range(last + 1):
                    if n:
                        place.write(**edition(upstream.url, n))
                        proxy.send_signal(signal.SIGHUP)
                    until(lambda n=n: seen(n), f"edition {n}")  # type: ignore[misc]
            finally:
                done[0] = True
            statuses = [status for one in clients for status in one.result()]
            assert set(statuses) == {200}
            upstream_calls = [(r.path.split("/")[1], r.json["model"]) for r in upstream.requests]
            assert {id for id, _ in upstream_calls} == {"to"}
            assert {model for _, model in upstream_calls} == {f"m{n}" for n in range(last + 1)}


def newest(upstream: Upstream) -> str:
    return str(upstream.requests[-1].json["model"]) if upstream.requests else ""
