"""REQ-07 and FE-08 over real sockets: what cannot fit is refused before it costs anything, in every client protocol; and counting alone."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.asking import PROTOCOLS, Scene, body_of, error_of, keys, path_of, say, started, target, tools_of
from tests.e2e.commanding import NAMES, SURFACES, Talk, results, system_of
from tests.e2e.keeping import Place, backend
from tests.server.process import Answer, Proxy, running
from tests.support.proxy import ROOT, backends_at
from tests.support.shared import Protocol
from tests.support.upstream import Received, Reply, Upstream, upstream_in_thread

every_surface = pytest.mark.parametrize(("client", "stream"), SURFACES, ids=NAMES)
every_client = pytest.mark.parametrize("client", PROTOCOLS)
every_back = pytest.mark.parametrize("back", PROTOCOLS)

PROSE: Final = "The quick brown fox jumps over the lazy dog near the river bank. "
ABOUT_500: Final = PROSE * 36
NEAR_500: Final = range(400, 650)
HOUR: Final = 3600
WAYS: Final = [f"{client}-{way}" for client in PROTOCOLS for way in ("whole", "stream")]


def limits(**values: int) -> dict[str, Any]:
    return {"limits": values}


def config(url: str) -> dict[str, Any]:
    backends = backends_at(url)
    backends |= {name: backend(url, name) for name in ("own", "free", *(f"limited-{way}" for way in WAYS))}
    backends["own"]["models"] = {"held": limits(max_input_tokens=100), "open": {}}
    backends["resting"] = {"type": "openai", "base_url": f"{url}/resting/v1", "api_keys": keys("r")}
    routes = {
        "rising": ["up-chat:small", "up-anthropic:small", "up-gemini:large"],
        "all-small": ["up-chat:small", "up-anthropic:larger", "up-gemini:small"],
        "all-full": ["up-chat:full", "up-anthropic:fuller", "up-gemini:small"],
        **{f"cooled-{way}": ["up-chat:small", f"resting:{way}"] for way in WAYS},
        **{f"metered-{way}": ["up-chat:small", f"limited-{way}:m", "up-anthropic:larger"] for way in WAYS},
    }
    return {
        "backends": backends,
        "model_defaults": {
            "small": limits(max_input_tokens=100),
            "larger": limits(max_input_tokens=300),
            "large": limits(max_input_tokens=5000),
            "windowed": limits(context_window=100),
            "full": limits(context_window=1000),
            "fuller": limits(context_window=2000),
            "both": limits(context_window=5000, max_input_tokens=1000),
            "pictured": limits(max_input_tokens=3000),
            "middling": limits(max_input_tokens=900),
            "bytes": limits(max_input_tokens=700),
            **{f"{id}:exact": limits(max_input_tokens=100) for id in ("up-chat", "up-responses", "up-anthropic", "up-gemini")},
            **{f"{id}/slashed": limits(max_input_tokens=100) for id in ("up-chat", "up-responses", "up-anthropic", "up-gemini")},
            "up-*:wild-*": limits(max_input_tokens=100),
            "up-anthropic:narrowed": limits(max_input_tokens=100),
        },
        "failover_routes": {name: {"policy": "m", "elements": elements} for name, elements in routes.items()},
        "rate_limits": {f"backend:limited-{way}": {"limit": 1, "time_window": HOUR} for way in WAYS},
        "failover": {"max_wait_seconds": 0},
    }  # fmt: skip


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("window")
    filed = folder / "config" / "backends" / "filed"
    filed.mkdir(parents=True)
    with upstream_in_thread(say) as upstream:
        (folder / "mine.json").write_text(json.dumps(config(upstream.url)))
        (filed / "backend.yaml").write_text(
            f"type: openai\nbase_url: {upstream.url}/filed/v1\nno_auth: true\nmodels: {{held: {{limits: {{context_window: 100}}}}}}\n"
        )
        with running(folder, "--config", str(folder / "mine.json")) as proxy:
            yield Scene(proxy, upstream)
            assert proxy.stop() == 0


@pytest.fixture
def scene(shared: Scene) -> Scene:
    shared.play(say)
    return shared


def capped(client: Protocol, tokens: int) -> dict[str, Any]:
    """The member that asks for at most so much output."""
    match client:
        case "openai-chat":
            return {"max_completion_tokens": tokens}
        case "openai-responses":
            return {"max_output_tokens": tokens}
        case "anthropic-messages":
            return {"max_tokens": tokens}
        case "gemini":
            return {"generationConfig": {"maxOutputTokens": tokens}}


def refused(client: Protocol, answer: Answer, code: str) -> dict[str, Any]:
    """Checks status, shape and words of a refusal; gives its details."""
    assert answer.status == 400, answer.body
    error = error_of(client, answer)
    match client:
        case "openai-chat" | "openai-responses":
            assert (error["type"], error["code"]) == ("invalid_request_error", "context_length_exceeded")
        case "anthropic-messages":
            assert error["type"] == "invalid_request_error"
        case "gemini":
            assert error["status"] == "INVALID_ARGUMENT"
    detail = answer.json["detail"]
    assert detail.keys() == {"code", "message", "details"}
    assert detail["code"] == code and detail["message"] in error["message"]
    assert "x-llm-proxy-attempts" not in answer.headers and "retry-after" not in answer.headers
    details = detail["details"]
    assert isinstance(details, dict)
    return details


def too_long(client: Protocol, answer: Answer, model: str, limit: int) -> int:
    """Checks a refusal of the input; gives the measure."""
    details = refused(client, answer, "input_limit_exceeded")
    assert details.keys() == {"model", "limit", "measured"}
    assert (details["model"], details["limit"]) == (model, limit)
    assert type(details["measured"]) is int and details["measured"] > limit
    return int(details["measured"])


def passes(scene: Scene, answer: Answer, calls: int = 1) -> None:
    assert answer.status == 200, answer.body
    assert len(scene.upstream.requests) == calls


# Acceptance


@every_surface
@every_back
def test_given_max_input_tokens_100_and_500_tokens_then_400_and_no_upstream_call(
    scene: Scene, client: Protocol, stream: bool, back: Protocol
) -> None:
    answer = scene.ask(client, target(back, "small"), stream, ABOUT_500)
    assert too_long(client, answer, "small", 100) in NEAR_500
    assert scene.upstream.requests == []
    passes(scene, scene.ask(client, target(back, "small"), stream, PROSE, **capped(client, 9000)))


@every_surface
@every_back
def test_given_only_a_context_window_of_100_then_the_same(
    scene: Scene, client: Protocol, stream: bool, back: Protocol
) -> None:
    answer = scene.ask(client, target(back, "windowed"), stream, ABOUT_500, **capped(client, 1))
    assert too_long(client, answer, "windowed", 100) in NEAR_500
    assert scene.upstream.requests == []
    passes(scene, scene.ask(client, target(back, "windowed"), stream, PROSE, **capped(client, 1)))


@every_surface
@every_back
def test_input_and_requested_output_together_beyond_the_window(
    scene: Scene, client: Protocol, stream: bool, back: Protocol
) -> None:
    answer = scene.ask(client, target(back, "full"), stream, ABOUT_500, **capped(client, 700))
    details = refused(client, answer, "total_limit_exceeded")
    assert details.keys() == {
        "model", "context_window", "input_tokens", "max_tokens", "total_requested", "suggestion",
    }  # fmt: skip
    assert (details["model"], details["context_window"], details["max_tokens"]) == ("full", 1000, 700)
    assert details["input_tokens"] in NEAR_500
    assert details["total_requested"] == details["input_tokens"] + 700
    room = 1000 - details["input_tokens"]
    assert str(room) in details["suggestion"]
    assert scene.upstream.requests == []
    passes(scene, scene.ask(client, target(back, "full"), stream, ABOUT_500, **capped(client, room)))
    assert scene.ask(client, target(back, "full"), stream, ABOUT_500, **capped(client, room + 1)).status == 400


@pytest.mark.parametrize("client", [client for client in PROTOCOLS if client != "anthropic-messages"])
def test_without_a_requested_output_only_the_input_counts(scene: Scene, client: Protocol) -> None:
    passes(scene, scene.ask(client, target(client, "full"), said=ABOUT_500))


@every_client
def test_the_limit_of_the_input_counts_before_the_window(scene: Scene, client: Protocol) -> None:
    answer = scene.ask(client, target(client, "both"), said=PROSE * 100, **capped(client, 10))
    too_long(client, answer, "both", 1000)
    passes(scene, scene.ask(client, target(client, "both"), said=ABOUT_500, **capped(client, 4000)))
    answer = scene.ask(client, target(client, "both"), said=ABOUT_500, **capped(client, 4900))
    assert refused(client, answer, "total_limit_exceeded")["context_window"] == 5000


@every_surface
@pytest.mark.parametrize("model", ["small", "exact", "slashed", "wild-one"])
def test_a_plain_key_one_with_its_back_end_and_a_wildcard_work(
    scene: Scene, client: Protocol, stream: bool, model: str
) -> None:
    for back in (client, PROTOCOLS[PROTOCOLS.index(client) - 1]):
        too_long(client, scene.ask(client, target(back, model), stream, ABOUT_500), model, 100)
    assert scene.upstream.requests == []


@every_client
def test_a_key_with_its_back_end_holds_there_alone(scene: Scene, client: Protocol) -> None:
    too_long(client, scene.ask(client, "up-anthropic:narrowed", said=ABOUT_500), "narrowed", 100)
    for name in ("up-chat:narrowed", "free:exact", "free:wild-one"):
        assert scene.ask(client, name, said=ABOUT_500).status == 200


@every_surface
@pytest.mark.parametrize("name", ["own:held", "filed:held"])
def test_limits_that_stand_with_a_back_end_or_in_its_file(
    scene: Scene, client: Protocol, stream: bool, name: str
) -> None:
    too_long(client, scene.ask(client, name, stream, ABOUT_500), "held", 100)
    assert scene.upstream.requests == []
    passes(scene, scene.ask(client, name.replace("held", "open"), stream, ABOUT_500))


@every_client
@pytest.mark.parametrize("model", ["gpt-4", "gpt-3.5-turbo", "claude-3-haiku-20240307", "unheard-of"])
def test_without_a_configured_limit_nothing_is_refused(scene: Scene, client: Protocol, model: str) -> None:
    answer = scene.ask(client, f"free:{model}", said=PROSE * 3000, **capped(client, 300_000))
    passes(scene, answer)


@pytest.fixture(scope="module")
def forced_scene() -> Iterator[Scene]:
    with upstream_in_thread(say) as upstream:
        held = {"gpt-4o": limits(context_window=128_000), "tiny": limits(max_input_tokens=10, context_window=10)}
        flags = ("--force-context-window", "4096")
        with started(*flags, config={"backends": backends_at(upstream.url), "model_defaults": held}) as proxy:
            yield Scene(proxy, upstream)


@every_surface
@every_back
def test_a_forced_window_of_4096_holds_for_every_model(
    forced_scene: Scene, client: Protocol, stream: bool, back: Protocol
) -> None:
    scene = forced_scene
    scene.play(say)
    for model in ("gpt-4o", "tiny", "another"):
        answer = scene.ask(client, target(back, model), stream, PROSE * 360, **capped(client, 10))
        assert too_long(client, answer, model, 4096) in range(4500, 6000)
        answer = scene.ask(client, target(back, model), stream, ABOUT_500, **capped(client, 4000))
        assert refused(client, answer, "total_limit_exceeded")["context_window"] == 4096
        assert scene.upstream.requests == []
        assert scene.ask(client, target(back, model), stream, ABOUT_500, **capped(client, 3000)).status == 200
        scene.upstream.forget()


def test_embeddings_and_legacy_completions_are_not_concerned(forced_scene: Scene) -> None:
    forced_scene.play(Reply.json({"object": "list", "data": [], "model": "m", "choices": []}))
    for path in ("/v1/embeddings", "/v1/completions"):
        body = {"model": "up-chat:m", "input": PROSE * 1000, "prompt": PROSE * 1000}
        assert forced_scene.post(path, body).status == 200


@every_client
def test_switched_off_nothing_is_refused(client: Protocol, unenforced: Scene) -> None:
    unenforced.play(say)
    answer = unenforced.ask(client, target(client, "small"), said=ABOUT_500, **capped(client, 9000))
    passes(unenforced, answer)


@pytest.fixture(scope="module")
def unenforced() -> Iterator[Scene]:
    with upstream_in_thread(say) as upstream:
        held = {"small": limits(max_input_tokens=100, context_window=100)}
        flags = ("--disable-context-enforcement", "--force-context-window", "50")
        with started(*flags, config={"backends": backends_at(upstream.url), "model_defaults": held}) as proxy:
            yield Scene(proxy, upstream)


# Routes


@every_surface
def test_in_a_route_what_is_too_small_is_skipped_and_the_larger_answers(
    scene: Scene, client: Protocol, stream: bool
) -> None:
    answer = scene.ask(client, "rising", stream, ABOUT_500)
    passes(scene, answer)
    assert (answer.headers["x-llm-proxy-backend"], answer.headers["x-llm-proxy-model"]) == ("up-gemini", "large")
    assert "x-llm-proxy-attempts" not in answer.headers
    assert scene.ask(client, "rising", stream, PROSE).headers["x-llm-proxy-backend"] == "up-chat"


@every_surface
def test_where_all_are_too_small_the_error_is_that_of_the_largest(scene: Scene, client: Protocol, stream: bool) -> None:
    details = refused(client, scene.ask(client, "all-small", stream, ABOUT_500), "input_limit_exceeded")
    assert (details["model"], details["limit"]) == ("larger", 300)
    skipped = [(one["backend"], one["model"], one["skipped"]) for one in details["attempts"]]
    assert skipped == [
        ("up-chat", "small", "input_limit_exceeded"),
        ("up-anthropic", "larger", "input_limit_exceeded"),
        ("up-gemini", "small", "input_limit_exceeded"),
    ]
    details = refused(
        client, scene.ask(client, "all-full", stream, ABOUT_500, **capped(client, 5000)), "total_limit_exceeded"
    )
    assert (details["model"], details["context_window"]) == ("fuller", 2000)
    assert scene.upstream.requests == []


@every_surface
def test_beside_a_cooling_element_the_client_may_come_back(scene: Scene, client: Protocol, stream: bool) -> None:
    def script(request: Received) -> Reply:
        if "/resting/" not in request.path:
            return say(request)
        return Reply.json({"error": {"message": "busy"}}, 429, [("retry-after", "30")])

    scene.play(script)
    route = f"cooled-{client}-{'stream' if stream else 'whole'}"
    for calls in (1, 1):  # the second time the key rests
        answer = scene.ask(client, route, stream, ABOUT_500)
        assert answer.status == 429, answer.body
        assert 20 <= int(answer.headers["retry-after"]) <= 30
        assert len(scene.upstream.requests) == calls
    assert scene.ask(client, route, stream, PROSE).status == 200


@every_surface
def test_beside_an_element_at_its_rate_limit_the_client_may_come_back(
    scene: Scene, client: Protocol, stream: bool
) -> None:
    route = f"metered-{client}-{'stream' if stream else 'whole'}"
    passes(scene, scene.ask(client, route, stream, ABOUT_500))
    answer = scene.ask(client, route, stream, ABOUT_500)
    assert (answer.status, answer.json["detail"]["code"]) == (429, "rate_limited")
    assert 1 <= int(answer.headers["retry-after"]) <= HOUR
    assert len(scene.upstream.requests) == 1


@every_client
def test_of_elements_that_were_called_the_error_is_told(scene: Scene, client: Protocol) -> None:
    scene.play(Reply.json({"error": {"message": "down"}}, 500))
    answer = scene.ask(client, "rising", said=ABOUT_500)
    assert answer.status == 500, answer.body
    named = [answer.headers[f"x-llm-proxy-{name}"] for name in ("backend", "model", "attempts")]
    assert named == ["up-gemini", "large", "1"]


# What is counted


def picture(client: Protocol, data: str) -> dict[str, Any]:
    """A conversation with a picture of 512 x 512 points beside a few words."""
    match client:
        case "openai-chat":
            parts: list[Any] = [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
            ]
            return {"messages": [{"role": "user", "content": parts}]}
        case "openai-responses":
            parts = [
                {"type": "input_text", "text": "look"},
                {"type": "input_image", "image_url": f"data:image/png;base64,{data}"},
            ]
            return {"input": [{"role": "user", "content": parts}]}
        case "anthropic-messages":
            source = {"type": "base64", "media_type": "image/png", "data": data}
            return {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image", "source": source}]}
                ]
            }
        case "gemini":
            return {"contents": [{"role": "user", "parts": [{"text": "look"}, {"inlineData": {"mimeType": "image/png", "data": data}}]}]}  # fmt: skip


def png(size: int) -> str:
    head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (512).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    return base64.b64encode(head + bytes(size)).decode()


@every_surface
@every_back
def test_images_count_but_not_by_the_length_of_their_base64(
    scene: Scene, client: Protocol, stream: bool, back: Protocol
) -> None:
    passes(scene, scene.ask(client, target(back, "pictured"), stream, **picture(client, png(60_000))))
    measured = too_long(
        client, scene.ask(client, target(back, "small"), stream, **picture(client, png(60_000))), "small", 100
    )
    assert measured in range(101, 1500)


def long_call(client: Protocol, said: str) -> dict[str, Any]:
    """A conversation with `said` among the arguments of a call."""
    text = json.dumps(results(client))
    quoted, plain = '\\"a\\"', '"path": "a"'
    assert quoted in text or plain in text
    found = json.loads(
        text.replace(quoted, f'\\"{said}\\"') if quoted in text else text.replace(plain, f'"path": "{said}"')
    )
    assert isinstance(found, dict)
    return found


def long_result(client: Protocol, said: str) -> dict[str, Any]:
    found = json.loads(json.dumps(results(client)).replace("!/model(x)", said))
    assert isinstance(found, dict)
    return found


def long_tools(client: Protocol, said: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"a": {"type": "string", "description": said}}}
    return tools_of(client, "f", schema=schema)


def long_system(client: Protocol, said: str) -> dict[str, Any]:
    if client == "openai-chat":
        return {"messages": [{"role": "system", "content": said}, {"role": "user", "content": "hi"}]}
    return system_of(client, said)


@every_surface
@pytest.mark.parametrize(
    "counted", [long_system, long_tools, long_call, long_result], ids=lambda made: made.__name__[5:]
)
def test_system_texts_tools_calls_and_results_count(scene: Scene, client: Protocol, stream: bool, counted: Any) -> None:
    answer = scene.ask(client, target(client, "middling"), stream, **counted(client, ABOUT_500 * 3))
    assert too_long(client, answer, "middling", 900) in range(1300, 2600)
    assert scene.upstream.requests == []
    passes(scene, scene.ask(client, target(client, "middling"), stream, **counted(client, PROSE * 14)))


@every_client
def test_a_body_of_no_more_bytes_than_tokens_is_not_counted(scene: Scene, client: Protocol) -> None:
    # A picture by reference has few bytes and many tokens: only who counts can refuse it.
    parts: dict[Protocol, dict[str, Any]] = {
        "openai-chat": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://e.org/a.png"}}]}]},
        "openai-responses": {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "https://e.org/a.png"}]}]},
        "anthropic-messages": {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "https://e.org/a.png"}}]}]},
        "gemini": {"contents": [{"parts": [{"fileData": {"mimeType": "image/png", "fileUri": "https://e.org/a.png"}}]}]},
    }  # fmt: skip
    pictures = parts[client]
    list_of = next(iter(pictures.values()))[0]
    content = list_of.get("content", list_of.get("parts"))
    content *= 5
    body = body_of(client, target(client, "bytes"), **pictures)
    short = json.dumps(body, separators=(",", ":")).encode()
    assert len(short) <= 700
    path = path_of(client, target(client, "bytes"))
    passes(scene, scene.post(path, short))
    measured = too_long(client, scene.post(path, short + b" " * (701 - len(short))), "bytes", 700)
    assert measured > 700


@every_client
def test_a_body_that_cannot_be_decoded_is_left_to_its_reader(scene: Scene, client: Protocol) -> None:
    # A choice of a tool that is not declared: what goes on as it came is the provider's to refuse.
    choices: dict[Protocol, dict[str, Any]] = {
        "openai-chat": {"tool_choice": {"type": "function", "function": {"name": "none"}}},
        "openai-responses": {"tool_choice": {"type": "function", "name": "none"}},
        "anthropic-messages": {"tool_choice": {"type": "tool", "name": "none"}},
        "gemini": {"toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["none"]}}},
    }
    passes(scene, scene.ask(client, target(client, "small"), said=ABOUT_500, **choices[client]))
    other: Protocol = "gemini" if client != "gemini" else "openai-chat"
    for said in (PROSE, ABOUT_500):  # the second is looked at by whoever counts, and by the writer after that
        answer = scene.ask(client, target(other, "small"), said=said, **choices[client])
        assert (answer.status, answer.json["detail"]["code"]) == (422, "validation_error"), answer.body
    assert len(scene.upstream.requests) == 1


@every_client
def test_a_wrong_type_deep_inside_is_named_however_long_the_body_is(scene: Scene, client: Protocol) -> None:
    wrong: dict[Protocol, dict[str, Any]] = {
        "openai-chat": {"messages": [{"role": "user", "content": ABOUT_500}], "temperature": "warm"},
        "openai-responses": {"input": ABOUT_500, "temperature": "warm"},
        "anthropic-messages": {"messages": [{"role": "user", "content": ABOUT_500}], "temperature": "warm"},
        "gemini": {"contents": [{"parts": [{"text": ABOUT_500}]}], "generationConfig": {"temperature": "warm"}},
    }
    other: Protocol = "gemini" if client != "gemini" else "openai-chat"
    answer = scene.ask(client, target(other, "small"), **wrong[client])
    assert (answer.status, answer.json["detail"]["code"]) == (400, "invalid_request"), answer.body
    assert "temperature" in error_of(client, answer)["message"]
    assert scene.upstream.requests == []


@every_surface
def test_commands_are_stripped_before_it_is_counted(scene: Scene, client: Protocol, stream: bool) -> None:
    talk = Talk(scene, client, stream, model=target(client, "small"))
    commands = "!/temperature(0.125) " * 18
    passes(scene, talk.post(f"{commands} hi"))
    passes(scene, talk.post([("user", f"{commands} hi"), ("assistant", "ok"), ("user", "more")]), 2)
    too_long(client, talk.post(commands.replace("!", "") + " hi"), "small", 100)


@every_surface
def test_a_command_beside_too_long_an_input_holds_all_the_same(scene: Scene, client: Protocol, stream: bool) -> None:
    talk = Talk(scene, client, stream, model=target(client, "small"))
    too_long(client, talk.post(f"!/temperature(0.125) {ABOUT_500}"), "small", 100)
    assert talk.values == {"temperature": 0.125}


# Beside sessions, accounts and reloads


@every_surface
def test_a_one_off_that_can_never_fit_is_spent_with_the_refusal(scene: Scene, client: Protocol, stream: bool) -> None:
    talk = Talk(scene, client, stream, model="free:usual")
    talk.say(f"!/oneoff({target(client, 'small')})")
    too_long(client, talk.post(ABOUT_500), "small", 100)
    answer = talk.post("hi")
    assert (answer.status, answer.headers["x-llm-proxy-backend"]) == (200, "free")


@every_client
def test_a_one_off_to_a_route_at_its_rate_limit_waits(scene: Scene, client: Protocol) -> None:
    talk = Talk(scene, client, model="free:usual")
    way = f"{client}-whole"
    while scene.ask(client, f"limited-{way}:m").status == 200:
        assert len(scene.upstream.requests) < 4
    talk.say(f"!/oneoff(limited-{way}:m)")
    assert talk.post("hi").status == 429
    assert talk.state()["one_off"] == f"limited-{way}:m"


@every_surface
def test_after_a_refusal_the_session_goes_on(scene: Scene, client: Protocol, stream: bool) -> None:
    talk = Talk(scene, client, stream, model=target(client, "small"))
    assert talk.post("hi").status == 200
    too_long(client, talk.post([("user", "hi"), ("assistant", "w0"), ("user", ABOUT_500)]), "small", 100)
    assert talk.post([("user", "hi"), ("assistant", "w0"), ("user", "more")]).status == 200


def test_a_refusal_has_no_row_in_the_usage(scene: Scene) -> None:
    def rows() -> list[Any]:
        answer = scene.proxy.get("/v1/usage/recent")
        assert answer.status == 200, answer.body
        found = answer.json
        return list(found if isinstance(found, list) else found.get("data", found.get("items")))

    before = rows()
    for client in PROTOCOLS:
        assert scene.ask(client, target(client, "small"), said=ABOUT_500).status == 400
    assert rows() == before


def test_a_reload_changes_the_limits(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with upstream_in_thread(say) as upstream:
        common = {"backends": {"a": backend(upstream.url, "a")}}
        place.write(**common)
        with place.run() as proxy:
            scene = Scene(proxy, upstream)
            asked = [("model_defaults", {"m": limits(max_input_tokens=100)}, 400), ("force_context_window", 2000, 200),
                     ("force_context_window", 150, 400), ("model_defaults", {}, 200)]  # fmt: skip
            assert scene.ask("openai-chat", "a:m", said=ABOUT_500).status == 200
            for name, value, status in asked:
                place.write(**common, **{name: value})
                assert proxy.post("/internal/reload", None).status == 200
                assert scene.ask("openai-chat", "a:m", said=ABOUT_500).status == status, (name, value)


# With and without a tokenizer

ABSENT: Final = "import sys\nsys.modules['bpe_openai'] = None\n"
FAILING: Final = """
class Encoding:
    def count(self, text):
        if text:
            raise RuntimeError("cannot count")
        return 0

def tokenizer_for_encoding(name):
    return Encoding()
"""
BROKEN: Final = "raise ImportError('built for another machine')\n"


def proxied(folder: Path, upstream: Upstream) -> Any:
    """A proxy that finds `folder` before all other modules."""
    path = os.pathsep.join([str(folder), str(ROOT / "src")])
    held = config(upstream.url)
    return started(config=held, environment={"PYTHONPATH": path})


@pytest.fixture(scope="module", params=["absent", "broken"])
def estimating(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "absent":
        (folder / "sitecustomize.py").write_text(ABSENT)
    else:
        (folder / "bpe_openai").mkdir()
        (folder / "bpe_openai" / "__init__.py").write_text(BROKEN)
        (folder / "bpe_openai" / "_bindings.py").write_text(BROKEN)
    with upstream_in_thread(say) as upstream, proxied(folder, upstream) as proxy:
        yield Scene(proxy, upstream)


@every_surface
def test_without_a_tokenizer_the_estimate_judges(estimating: Scene, client: Protocol, stream: bool) -> None:
    scene = estimating
    scene.play(say)
    for _ in range(2):
        assert too_long(client, scene.ask(client, target(client, "small"), stream, ABOUT_500), "small", 100) in NEAR_500
    details = refused(
        client, scene.ask(client, target(client, "full"), stream, ABOUT_500, **capped(client, 900)), "total_limit_exceeded"
    )  # fmt: skip
    assert details["input_tokens"] in NEAR_500
    assert scene.upstream.requests == []
    passes(scene, scene.ask(client, target(client, "small"), stream, PROSE * 3))
    passes(scene, scene.ask(client, target(client, "pictured"), stream, **picture(client, png(60_000))), 2)
    chinese = "敏捷的棕色狐狸跳过了懒狗。" * 40
    measured = too_long(client, scene.ask(client, target(client, "larger"), stream, chinese), "larger", 300)
    assert measured in range(301, 1000)


def test_given_a_tokenizer_failure_then_the_request_passes(tmp_path: Path) -> None:
    (tmp_path / "bpe_openai").mkdir()
    (tmp_path / "bpe_openai" / "__init__.py").write_text("")
    (tmp_path / "bpe_openai" / "_bindings.py").write_text(FAILING)
    with upstream_in_thread(say) as upstream, proxied(tmp_path, upstream) as proxy:
        scene = Scene(proxy, upstream)
        for client, stream in SURFACES:
            scene.upstream.forget()
            passes(scene, scene.ask(client, target(client, "small"), stream, ABOUT_500))
        counted = scene.post("/v1/messages/count_tokens", body_of("anthropic-messages", "up-chat:m", said=ABOUT_500))
        assert counted.json["input_tokens"] in NEAR_500
        assert proxy.stop() == 0
        assert "cannot count" in proxy.log and "context window" in proxy.log


# FE-08: counting alone

COUNTERS: Final[dict[Protocol, tuple[str, str]]] = {
    "openai-responses": ("/v1/responses/input_tokens", "input_tokens"),
    "anthropic-messages": ("/v1/messages/count_tokens", "input_tokens"),
    "gemini": ("/v1beta/models/{model}:countTokens", "totalTokens"),
}
every_counter = pytest.mark.parametrize("client", list(COUNTERS))
OTHERS: Final = [(client, back) for client in COUNTERS for back in PROTOCOLS if back != client]


def count(proxy: Proxy, client: Protocol, model: str, said: str = "hi", **more: Any) -> int:
    path, member = COUNTERS[client]
    body = {name: value for name, value in body_of(client, model, said=said, **more).items() if name != "max_tokens"}
    answer = proxy.post(path.format(model=model), body)
    assert answer.status == 200, answer.body
    found = answer.json[member]
    assert type(found) is int
    return int(found)


@pytest.mark.parametrize(("client", "back"), OTHERS)
def test_counting_for_another_protocol_makes_no_call(scene: Scene, client: Protocol, back: Protocol) -> None:
    assert 0 < count(scene.proxy, client, target(back), "hi") < 30
    assert count(scene.proxy, client, target(back), ABOUT_500) in NEAR_500
    assert scene.upstream.requests == []


@pytest.mark.parametrize(("client", "back"), OTHERS)
def test_tools_images_systems_and_calls_make_the_number_larger(scene: Scene, client: Protocol, back: Protocol) -> None:
    bare = count(scene.proxy, client, target(back))
    assert count(scene.proxy, client, target(back), **tools_of(client, "f", "g")) > bare + 20
    assert count(scene.proxy, client, target(back), **picture(client, png(60_000))) in range(bare + 60, 2000)
    for made in (long_system, long_tools, long_call, long_result):
        assert count(scene.proxy, client, target(back), **made(client, ABOUT_500)) in range(bare + 400, 1500)


@every_counter
def test_counting_is_not_refused_and_knows_routes(scene: Scene, client: Protocol) -> None:
    other: Protocol = "openai-chat"
    assert count(scene.proxy, client, target(other, "small"), ABOUT_500) in NEAR_500
    assert count(scene.proxy, client, "rising", ABOUT_500) in NEAR_500
    assert scene.upstream.requests == []


@every_counter
def test_counting_says_what_a_refusal_says(scene: Scene, client: Protocol) -> None:
    measured = too_long(client, scene.ask(client, "up-chat:small", said=ABOUT_500), "small", 100)
    assert count(scene.proxy, client, "up-chat:small", ABOUT_500) == measured


@every_counter
def test_commands_are_stripped_and_not_executed(scene: Scene, client: Protocol) -> None:
    talk = Talk(scene, client, model="up-chat:m")
    assert talk.post("hi").status == 200
    path, member = COUNTERS[client]
    before = talk.state()
    counted = []
    for said in ("!/model(x) hi", " hi", "hi"):
        answer = scene.post(path.format(model="up-chat:m"), talk.body(said), talk.sent)
        assert answer.status == 200, answer.body
        counted.append(answer.json[member])
    assert counted[0] in counted[1:] and max(counted) - min(counted) <= 1
    after = talk.state()
    assert (after["values"], after["one_off"]) == (before["values"], before["one_off"])


@pytest.mark.parametrize("client", ["anthropic-messages", "gemini"])
def test_the_target_s_own_number_is_used_and_its_failure_is_none(scene: Scene, client: Protocol) -> None:
    scene.play(Reply.json({COUNTERS[client][1]: 4711}))
    assert count(scene.proxy, client, target(client), ABOUT_500) == 4711
    for reply in (Reply.json({"error": {"message": "down"}}, 500), Reply.json({}), Reply(body=b"<html>")):
        scene.play(reply)
        assert count(scene.proxy, client, target(client), ABOUT_500) in NEAR_500
        assert len(scene.upstream.requests) == 1


@every_counter
@pytest.mark.parametrize("said", ["hi", PROSE, ABOUT_500, PROSE * 500], ids=["word", "sentence", "page", "book"])
def test_what_is_counted_is_about_what_the_usage_of_demo_says(demo: Proxy, client: Protocol, said: str) -> None:
    counted = count(demo, client, "demo:echo", said)
    answer = demo.post(path_of(client, "demo:echo"), body_of(client, "demo:echo", said=said))
    assert answer.status == 200, answer.body
    usage = answer.json.get("usage") or answer.json["usageMetadata"]
    billed = usage.get("input_tokens", usage.get("promptTokenCount"))
    assert abs(counted - billed) <= max(16, billed * 0.35), (counted, billed)
