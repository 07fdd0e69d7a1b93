"""A Gemini request to a Gemini provider: what was read is written; an edit touches only its place."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from llm_proxy.conversation.parts import Seal, Text, Thinking, ToolResult
from llm_proxy.conversation.request import Message, Request
from llm_proxy.dialects.gemini import DIALECT
from llm_proxy.dialects.gemini.wire import camel
from llm_proxy.dialects.media_types import normal
from llm_proxy.dialects.reasoning import has_traces, restore
from llm_proxy.wire.json import rewrite
from tests.dialects.gemini.support import (
    ENVELOPE,
    NAME,
    call,
    model,
    read,
    response,
    target,
    user,
    write,
)
from tests.support.shared import client_requests, exchanges

DATA = {
    "args",
    "response",
    "parameters",
    "parametersJsonSchema",
    "responseSchema",
    "responseJsonSchema",
    "labels",
}


def bodies() -> Iterator[Any]:
    for exchange in exchanges():
        if exchange.protocol == NAME and exchange.generates and isinstance(exchange.request.body, dict):
            yield pytest.param(exchange.model, exchange.request.body, id=exchange.file)
    for request in client_requests():
        if request.protocol == NAME and isinstance(request.body, dict):
            yield pytest.param("gemini-2.5-pro", request.body, id=request.file)


def plain(value: Any, key: str = "") -> Any:
    """One spelling for what the protocol allows to be written in several ways."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        out: dict[str, Any] = {}
        for written, member in value.items():
            name = camel(written)
            member = member if name in DATA and name != "responseJsonSchema" else plain(member, name)
            unset = member in ({}, [], "", None) or (name == "candidateCount" and member == 1)
            if name == "args" or not (unset and name not in ("parts", "text", "responseJsonSchema")):
                out[name] = member
        if key == "systemInstruction":
            out.pop("role", None)
            out["parts"] = out["parts"] if isinstance(out["parts"], list) else [out["parts"]]
        if key == "" and "googleSearch" in value:
            out["googleSearch"] = {}
        if key == "":
            out.pop("model", None) if "contents" in value else None
        if out.get("thinkingLevel", "").upper() == "THINKING_LEVEL_UNSPECIFIED":
            del out["thinkingLevel"]
        return out
    if isinstance(value, str):
        if key == "data":
            return value.replace("-", "+").replace("_", "/").rstrip("=")
        if key in ("thinkingLevel", "mode", "type"):
            return value.upper()
        if key == "mimeType":
            return normal(value)
    return value


@pytest.mark.parametrize(("name", "body"), list(bodies()))
def test_writing_what_was_read_gives_an_equal_body(name: str, body: dict[str, Any]) -> None:
    out = write(read(body, name), target(name))
    assert plain(out.body) == plain(body)
    assert out.losses == ()
    assert out.duties.none


def spellings(value: Any) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(spellings, value))
    if not isinstance(value, dict):
        return set()
    return set(value).union(*(spellings(member) for name, member in value.items() if camel(name) not in DATA))


@pytest.mark.parametrize(("name", "body"), list(bodies()))
def test_names_are_spelled_as_the_client_spelled_them(name: str, body: dict[str, Any]) -> None:
    assert spellings(write(read(body, name), target(name)).body) <= spellings(body)


def edited(body: dict[str, Any], change: Any, name: str = "gemini-2.5-flash") -> dict[str, Any]:
    """The bytes that go out when a room replaced the request."""
    raw = json.dumps(body).encode()
    old = DIALECT.read_request(raw, name)
    new = change(old)
    result: dict[str, Any] = json.loads(rewrite(raw, write(old, target(name)).body, write(new, target(name)).body))
    return result


SNAKE: dict[str, Any] = {
    "contents": [
        {
            "role": "user",
            "parts": [{"text": "my secret"}, {"inline_data": {"mime_type": "image/png", "data": "iVBORw0="}}],
        },
        {
            "role": "model",
            "parts": [{"function_call": {"name": "w", "args": {"a_b": 1}}, "thought_signature": "U0lH"}],
        },
        {
            "role": "function",
            "parts": [{"function_response": {"name": "w", "response": {"output": "a secret"}}}],
        },
    ],
    "system_instruction": {"parts": {"text": "be nice"}},
    "generation_config": {"max_output_tokens": 50, "media_resolution": "MEDIA_RESOLUTION_LOW"},
    "unknown_field": {"x_y": 1},
}


def redacted(request: Request) -> Request:
    def clean(part: Any) -> Any:
        if isinstance(part, Text):
            return msgspec.structs.replace(part, text=part.text.replace("secret", "***"))
        if isinstance(part, ToolResult):
            return msgspec.structs.replace(part, parts=tuple(clean(inner) for inner in part.parts))
        return part

    messages = tuple(
        msgspec.structs.replace(message, parts=tuple(clean(part) for part in message.parts))
        for message in request.messages
    )
    return msgspec.structs.replace(request, messages=messages)


def test_an_edit_of_a_snake_case_body_changes_the_edited_texts_and_nothing_else() -> None:
    expected = copy.deepcopy(SNAKE)
    expected["contents"][0]["parts"][0]["text"] = "my ***"
    expected["contents"][2]["parts"][0]["function_response"]["response"]["output"] = "a ***"
    assert edited(SNAKE, redacted) == expected


def test_a_changed_response_leaves_nothing_of_the_old_one() -> None:
    body = {"contents": [model(call("w")), user(response("w", {"a": "secret", "b": 2}))]}
    out = edited(body, redacted)
    assert "secret" not in json.dumps(out)


def test_a_changed_system_text_replaces_the_old_one_in_place() -> None:
    def change(request: Request) -> Request:
        return msgspec.structs.replace(request, messages=(Message("system", (Text("new"),)), *request.messages[1:]))

    out = edited(SNAKE, change)
    assert out["system_instruction"] == {"parts": [{"text": "new"}]}
    assert "systemInstruction" not in out


def test_untouched_bodies_are_sent_verbatim_with_their_model_in_the_path() -> None:
    raw = b'{ "contents" : [ {"parts":[{"text":"\\u00e9"}], "role":"model"} ],"x":1.0 }'
    assert DIALECT.retarget(raw, target("gemini-x")) == raw


def test_a_body_that_names_a_model_names_the_target_in_its_own_form() -> None:
    def retargeted(body: bytes) -> bytes:
        return DIALECT.retarget(body, target("gemini-x"))

    assert retargeted(b'{"model":"a","contents":[]}') == b'{"model":"gemini-x","contents":[]}'
    assert retargeted(b'{"model":"models/a","contents":[]}') == b'{"model":"models/gemini-x","contents":[]}'
    assert retargeted(b'{ "model" : "gemini-x" }') == b'{ "model" : "gemini-x" }'
    wrapped = b'{"generateContentRequest":{"contents":[],"model":"models/a"}}'
    assert retargeted(wrapped) == wrapped.replace(b"models/a", b"models/gemini-x")


def with_envelope(seal: Seal, key: str) -> dict[str, Any]:
    from llm_proxy.dialects.gemini.wire import packed_signature

    return {
        "contents": [
            user(),
            model({"text": "plan", "thought": True}, {**call("f"), key: packed_signature(ENVELOPE.pack(seal))}),
            user(response("f", {"result": "1"})),
        ]
    }


@pytest.mark.parametrize("key", ["thoughtSignature", "thought_signature"])
def test_an_envelope_of_the_target_is_replaced_by_what_it_holds(key: str) -> None:
    body = with_envelope(Seal(NAME, "thought", "T1dO", "gemini/gemini"), key)
    assert has_traces(json.dumps(body).encode(), "gemini")
    out = edited(body, lambda request: restore(request, ENVELOPE, lambda _: None))
    assert out["contents"][1]["parts"][1][key] == "T1dO"


@pytest.mark.parametrize("key", ["thoughtSignature", "thought_signature"])
def test_an_envelope_of_another_provider_never_leaves(key: str) -> None:
    body = with_envelope(Seal("anthropic-messages", "signature", "s", "anthropic/claude"), key)
    out = edited(body, lambda request: restore(request, ENVELOPE, lambda _: None))
    assert key not in out["contents"][1]["parts"][1]
    out = edited(body, lambda request: restore(request, ENVELOPE, lambda _: None), "gemini-3.5-flash")
    assert out["contents"][1]["parts"][1][key] == "skip_thought_signature_validator"


def test_signatures_of_a_gemini_client_are_kept_on_their_parts() -> None:
    body = {
        "contents": [
            user(),
            model(
                {"text": "a", "thoughtSignature": "QQ=="},
                {"text": "b"},
                {**call("f"), "thoughtSignature": "Qg=="},
                call("g"),
            ),
        ]
    }
    assert write(read(body)).body["contents"] == body["contents"]


def test_thinking_without_an_own_seal_keeps_its_position() -> None:
    request = read({"contents": [user(), model({"text": "plan", "thought": True}, {"text": "x"})]})
    sealed = msgspec.structs.replace(
        request.messages[1],
        parts=(Thinking("plan", seal=Seal("anthropic-messages", "signature", "s", "a/b")), Text("x")),
    )
    out = write(msgspec.structs.replace(request, messages=(request.messages[0], sealed)))
    assert out.body["contents"][1]["parts"] == [{"text": "plan", "thought": True}, {"text": "x"}]
