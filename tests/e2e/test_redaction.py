"""OPS-04 with a running proxy: keys leave neither in prompts nor in logs, on every surface and by every way to a provider."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from llm_proxy.config.reload import Reloader
from llm_proxy.features.redaction import RedactionOptions
from llm_proxy.option_groups import GROUPS
from llm_proxy.wire.redaction import Redactor
from tests.e2e.asking import PAIRS, PROTOCOLS, body_of, path_of, protocol_of, say
from tests.e2e.keeping import Place, ask, backend, told, until
from tests.server.process import Proxy, running
from tests.support.proxy import BACKEND_OF, backends_at
from tests.support.shared import Protocol
from tests.support.upstream import Received, Reply, Upstream, upstream_in_thread

OPENAI: Final = "sk-proj-0aB1cD2eF3gH4iJ5kL6mN7oP8"
THIRD: Final = "plain-value-of-key-three-42"
CLIENT: Final = "key-of-the-tests-0001"
MARK: Final = "(API_KEY_HAS_BEEN_REDACTED)"
STRANGER: Final = "sk-zzzzzzzzzzzzzzzzzzzzzzzzzzzz"


def answer(request: Received) -> Reply:
    if request.path.endswith("/embeddings"):
        return Reply.json(
            {"object": "list", "data": [], "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}}
        )
    if request.path.endswith("count_tokens"):
        return Reply.json({"input_tokens": 3})
    if request.path.endswith(":countTokens"):
        return Reply.json({"totalTokens": 3})
    if request.path.endswith("/v1/completions"):
        return Reply.json({"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": []})
    return say(request)


@pytest.fixture(scope="module")
def provider() -> Iterator[Upstream]:
    with upstream_in_thread(answer) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def proxy(provider: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("redaction")
    (folder / "mine.json").write_text(
        json.dumps({"backends": backends_at(provider.url), "redaction": {"patterns": ["PROJ-[0-9]+"]}})
    )
    env = {"OPENAI_API_KEY": OPENAI, "OPENAI_API_KEY_3": THIRD, "ANTHROPIC_API_KEY": "five5"}
    with running(folder, "--config", "mine.json", env=env) as made:
        yield made


@pytest.fixture(autouse=True)
def forgotten(provider: Upstream) -> None:
    provider.forget()


def last_body(provider: Upstream) -> str:
    return json.dumps(provider.requests[-1].json, ensure_ascii=False)


@pytest.mark.parametrize(("client", "back"), PAIRS)
def test_a_prompt_with_the_openai_key_reaches_the_provider_as_the_mark(
    proxy: Proxy, provider: Upstream, client: Protocol, back: Protocol
) -> None:
    model = f"{BACKEND_OF[back]}:m"
    said = f"is {OPENAI} good? and {THIRD}, my own {CLIENT}; ticket PROJ-77; not yours: {STRANGER}"
    given = proxy.post(path_of(client, model), body_of(client, model, said=said))
    assert given.status == 200, given.body
    assert protocol_of(provider.requests[-1]) == back
    assert f"is {MARK} good? and {MARK}, my own {MARK}; ticket {MARK}; not yours: {STRANGER}" in last_body(provider)


def test_a_secret_of_five_characters_is_left(proxy: Proxy, provider: Upstream) -> None:
    ask(proxy, "take five5", model="up-chat:m")
    assert "take five5" in last_body(provider)


def test_a_body_without_keys_goes_on_byte_for_byte(proxy: Proxy, provider: Upstream) -> None:
    body = b'{ "model":"up-chat:m" ,"messages":[{"role":"user","content":"\\u00e9 sk-"}],"x": 1.0}'
    assert proxy.post("/v1/chat/completions", body).status == 200
    assert provider.requests[-1].body == body.replace(b"up-chat:m", b"m")


def test_everything_but_the_key_goes_on_byte_for_byte(proxy: Proxy, provider: Upstream) -> None:
    body = b'{ "model":"up-chat:m" ,"messages":[{"role":"user","content":"%s"}, {"content":"\\u00e9", "role":"user"}],"x": 1.0}'
    assert proxy.post("/v1/chat/completions", body.replace(b"%s", OPENAI.encode())).status == 200
    assert provider.requests[-1].body == body.replace(b"up-chat:m", b"m").replace(b"%s", MARK.encode())


SIDE: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "embeddings": ("/v1/embeddings", {"model": "up-chat:m", "input": ["a", f"b {OPENAI}"]}),
    "legacy completions": ("/v1/completions", {"model": "up-chat:m", "prompt": f"b {OPENAI}"}),
    "counting of Messages": (
        "/v1/messages/count_tokens",
        {"model": "up-anthropic:m", "messages": [{"role": "user", "content": f"b {OPENAI}"}]},
    ),
    "counting of Gemini": (
        "/v1beta/models/up-gemini%3Am:countTokens",
        {"contents": [{"parts": [{"text": f"b {OPENAI}"}]}]},
    ),
}


@pytest.mark.parametrize("name", SIDE)
def test_calls_beside_the_conversation_are_redacted_too(proxy: Proxy, provider: Upstream, name: str) -> None:
    path, body = SIDE[name]
    assert proxy.post(path, body).status == 200
    assert f"b {MARK}" in last_body(provider) and OPENAI not in last_body(provider)


@pytest.mark.parametrize("back", ["openai-chat", "openai-responses"])
def test_a_kept_response_is_continued_without_the_key(proxy: Proxy, provider: Upstream, back: Protocol) -> None:
    model = f"{BACKEND_OF[back]}:m"
    first = proxy.post("/v1/responses", body_of("openai-responses", model, said=f"remember {OPENAI}"))
    provider.forget()
    again = body_of("openai-responses", model, said="go on", previous_response_id=first.json["id"])
    assert proxy.post("/v1/responses", again).status == 200
    sent = last_body(provider)
    assert OPENAI not in sent and (f"remember {MARK}" in sent or "previous_response_id" in sent)


def test_redaction_is_counted_among_what_safeguards_did(proxy: Proxy) -> None:
    ask(proxy, f"counted {OPENAI}", "counted", model="up-chat:m")
    until(
        lambda: "prompt redaction" in proxy.get("/v1/usage/recent?session_id=counted").body.decode(), "the row of usage"
    )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_switched_off_in_the_chat_it_passes_but_logs_still_hide_it(place: Place, provider: Upstream) -> None:
    place.write(backends={"b0": backend(provider.url, "b0")}, default_backend="b0")
    with place.run("--log-level", "debug", env={"OPENAI_API_KEY": OPENAI}) as proxy:
        told(proxy, f"before {OPENAI}")
        assert f"before {MARK}" in last_body(provider)
        assert "false" in told(proxy, "!/set(redact-api-keys-in-prompts=false)")
        told(proxy, f"after {OPENAI}")
        assert f"after {OPENAI}" in last_body(provider)
        told(proxy, f"in another session {OPENAI}", "other")
        assert f"in another session {OPENAI}" in last_body(provider)
    assert OPENAI not in proxy.log
    assert "redact_api_keys_in_prompts is false" in proxy.log
    assert place.state["values"]["redact_api_keys_in_prompts"] is False
    with place.run(env={"OPENAI_API_KEY": OPENAI}) as proxy:
        told(proxy, f"saved {OPENAI}")
        assert f"saved {OPENAI}" in last_body(provider)


def test_one_of_several_clients_who_is_no_admin_cannot_switch_it_off(place: Place, provider: Upstream) -> None:
    keys = {"ann": "key-of-ann-0123456789", "bob": "key-of-bob-0123456789"}
    place.write(
        backends={"b0": backend(provider.url, "b0")},
        default_backend="b0",
        auth={"api_keys": keys, "admin_keys": ["bob"]},
    )
    with place.run(keyed=False, env={"OPENAI_API_KEY": OPENAI}) as proxy:
        told(proxy, "!/set(redact-api-keys-in-prompts=false)", key=keys["ann"])
        told(proxy, f"still {OPENAI}", key=keys["ann"])
        assert f"still {MARK}" in last_body(provider)
        told(proxy, "!/set(redact-api-keys-in-prompts=false)", key=keys["bob"])
        told(proxy, f"now {OPENAI}", key=keys["ann"])
        assert f"now {OPENAI}" in last_body(provider)


def test_a_file_that_changes_adds_its_new_secrets_at_once_and_keeps_the_old(place: Place, provider: Upstream) -> None:
    def config(key: str) -> dict[str, Any]:
        return {
            "backends": {"b0": {"type": "openai", "base_url": f"{provider.url}/v1", "api_keys": [key]}},
            "default_backend": "b0",
        }

    old, new = "old-key-of-the-back-end-01", "new-key-of-the-back-end-02"
    place.write(**config(old))
    with place.run() as proxy:
        told(proxy, f"{old} {new}")
        assert f"{MARK} {new}" in last_body(provider)
        place.write(**config(new))
        assert proxy.post("/internal/reload", {}).status == 200
        told(proxy, f"{old} {new}")
        assert f"{MARK} {MARK}" in last_body(provider)


@pytest.mark.parametrize("client", PROTOCOLS)
def test_a_key_in_a_providers_error_does_not_reach_the_client(place: Place, client: Protocol) -> None:
    def refuse(request: Received) -> Reply:
        return Reply.json({"error": {"message": f"Incorrect API key provided: {request.header('authorization')}"}}, 400)

    with upstream_in_thread(refuse) as provider:
        key = "value-without-a-shape-0042"
        place.write(backends={"b0": {"type": "openai", "base_url": f"{provider.url}/v1", "api_keys": [key]}})
        with place.run("--log-level", "debug") as proxy:
            given = proxy.post(path_of(client, "b0:m"), body_of(client, "b0:m"))
            assert given.status == 400 and key.encode() not in given.body
        assert key not in proxy.log


# docs/redaction.md

GUIDE: Final = Path(__file__).parents[2] / "docs" / "redaction.md"


def test_what_the_guide_tells_people_to_write_is_a_configuration(place: Place, provider: Upstream) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        file = place.folder / "guide.yaml"
        file.write_text(block)
        settings = Reloader(["--config", str(file)], {}, place.folder, GROUPS).load()
        options = settings.get(RedactionOptions)
        assert (options.patterns != ()) is not (options.redact_api_keys_in_prompts is False)


def test_each_shape_of_the_guide_is_one() -> None:
    found = re.findall(r"`([^`]*…[^`]*)`", GUIDE.read_text("utf-8").partition("| shape |")[2].partition("\n\n")[0])
    assert len(found) >= 10
    for shape in found:
        text = shape.replace(" … ", " RSA ").replace("…", "EXAMPLE0" * 4)
        assert Redactor().clean(f"a {text} z").startswith(("a ***", "a Bearer ***")), shape
