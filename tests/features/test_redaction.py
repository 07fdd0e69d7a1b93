"""OPS-04: keys that the proxy knows leave in no text of a request; everything else stays byte for byte."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from llm_proxy.features.redaction import MARK, PromptRedaction, RedactionOptions
from llm_proxy.wire.redaction import Redactor
from llm_proxy.wire.secrets import Secret

KEY = 'sk-proj-0123/4567+89"ab\\cdefghijklm'
OTHER_KEY = "sk-aB3dE5fG7hJ9kL1mN3pQ5rS7"


def room(*secrets: str, patterns: tuple[str, ...] = ()) -> PromptRedaction:
    return PromptRedaction(RedactionOptions(patterns=patterns), Redactor(map(Secret, secrets or (KEY,))))


def sent(body: Any, *secrets: str, patterns: tuple[str, ...] = ()) -> Any:
    return json.loads(room(*secrets, patterns=patterns).outgoing(json.dumps(body).encode()))


def with_key(body: Any, key: str = KEY) -> Any:
    return json.loads(json.dumps(body).replace("KEY", json.dumps(key)[1:-1]))


BODIES: dict[str, Any] = {
    "chat text": {"model": "m", "messages": [{"role": "user", "content": "the key KEY here"}]},
    "chat system": {"model": "m", "messages": [{"role": "system", "content": "KEY"}]},
    "chat parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "KEY"}]}]},
    "chat tool result": {"messages": [{"role": "tool", "tool_call_id": "c", "content": "export K=KEY\n"}]},
    "chat tool description": {"tools": [{"type": "function", "function": {"name": "f", "description": "use KEY"}}]},
    "responses input": {"model": "m", "input": "KEY", "instructions": "and KEY"},
    "responses items": {"input": [{"role": "user", "content": [{"type": "input_text", "text": "KEY"}]}]},
    "responses output": {"input": [{"type": "function_call_output", "call_id": "c", "output": "KEY"}]},
    "anthropic system": {"system": [{"type": "text", "text": "KEY"}], "messages": []},
    "anthropic tool use": {
        "messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"a": {"name": "KEY"}}}]}]
    },
    "anthropic tool result": {
        "messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "KEY"}]}]}]
    },
    "anthropic document": {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "KEY"}}],
            }
        ]
    },
    "gemini parts": {"contents": [{"role": "user", "parts": [{"text": "KEY"}]}], "systemInstruction": {"parts": [{"text": "KEY"}]}},
    "gemini call": {"contents": [{"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"KEY": "KEY"}}}]}]},
    "gemini response": {"contents": [{"parts": [{"functionResponse": {"name": "f", "response": {"output": "KEY"}}}]}]},
    "alternative text of an image": {"messages": [{"content": [{"type": "image", "alt": "KEY", "source": {}}]}]},
    "address of an image": {"messages": [{"content": [{"type": "image_url", "image_url": {"url": "https://h/i?key=KEY"}}]}]},
    "embeddings": {"model": "m", "input": ["one", "KEY"]},
    "legacy completion": {"model": "m", "prompt": "KEY", "suffix": "KEY"},
    "a member that nobody knows": {"messages": [], "x_note": ["KEY"], "metadata": {"type": "KEY"}},
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_a_known_key_is_a_mark_in_every_text_of_a_request(name: str) -> None:
    body = BODIES[name]
    assert sent(with_key(body)) == with_key(body, MARK)


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("form", ["json", "json in json", "url"])
def test_it_is_found_escaped_too(name: str, form: str) -> None:
    spelled = {
        "json": json.dumps(KEY)[1:-1],
        "json in json": json.dumps(json.dumps(KEY)[1:-1])[1:-1],
        "url": "sk-proj-0123%2F4567%2B89%22ab%5Ccdefghijklm",
    }[form]
    assert sent(with_key(BODIES[name], spelled)) == with_key(BODIES[name], MARK)


def test_the_arguments_of_a_call_stay_json() -> None:
    arguments = json.dumps({"command": f"echo {KEY}", "n": 1})
    body = {
        "messages": [
            {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": arguments}}]}
        ]
    }
    given = sent(body)["messages"][0]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(given) == {"command": f"echo {MARK}", "n": 1}


@pytest.mark.parametrize("cut", range(1, len(KEY)))
def test_a_key_that_begins_in_one_part_and_ends_in_the_next_is_found(cut: int) -> None:
    parts = [{"type": "text", "text": "a " + KEY[:cut]}, {"type": "text", "text": KEY[cut:] + " b"}]
    given = sent({"messages": [{"role": "user", "content": parts}]})["messages"][0]["content"]
    assert [part["text"] for part in given] == [f"a {MARK}", " b"]


def test_a_key_in_three_parts_leaves_no_empty_part() -> None:
    parts = [{"text": KEY[:9]}, {"text": KEY[9:15]}, {"text": KEY[15:]}]
    given = sent({"contents": [{"parts": parts}]})["contents"][0]["parts"]
    assert [part["text"] for part in given] == [MARK, MARK, MARK]


def test_parts_that_are_apart_are_not_read_as_one() -> None:
    parts = [{"type": "text", "text": KEY[:9]}, {"type": "image", "source": {}}, {"type": "text", "text": KEY[9:]}]
    body = {"messages": [{"role": "user", "content": parts}]}
    assert sent(body) == body


def test_other_strings_that_look_like_keys_are_left_in_prompts() -> None:
    body = {"messages": [{"role": "user", "content": f"mine: {OTHER_KEY}"}]}
    assert sent(body) == body


def test_a_secret_of_five_characters_is_left() -> None:
    body = {"messages": [{"role": "user", "content": "abcde abcde"}]}
    assert sent(body, "abcde") == body


LEFT: dict[str, Any] = {
    "image of Chat": {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgoSECRETSECRET"}},
    "image of Messages": {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": "SECRETSECRET"},
    },
    "image of Gemini": {"inlineData": {"mimeType": "image/png", "data": "SECRETSECRET"}},
    "sound": {"type": "input_audio", "input_audio": {"format": "wav", "data": "SECRETSECRET"}},
    "sealed reasoning": {"type": "thinking", "thinking": "SECRETSECRET", "signature": "SECRETSECRET"},
    "sealed reasoning, hidden": {"type": "redacted_thinking", "data": "SECRETSECRET"},
    "sealed reasoning of Responses": {"type": "reasoning", "encrypted_content": "SECRETSECRET", "summary": []},
    "sealed call of Gemini": {"functionCall": {"name": "SECRETSECRET", "args": {}}, "thoughtSignature": "SECRETSECRET"},
    "names and words": {"type": "SECRETSECRET", "role": "SECRETSECRET", "id": "SECRETSECRET", "name": "SECRETSECRET"},
}


@pytest.mark.parametrize("name", LEFT)
def test_media_seals_and_words_of_the_protocol_are_untouched(name: str) -> None:
    body = json.dumps({"model": "SECRETSECRET", "messages": [{"role": "user", "content": [LEFT[name]]}]}).encode()
    given = room("SECRETSECRET").outgoing(body)
    assert given == body


def test_a_text_that_carries_a_seal_for_something_else_is_a_text() -> None:
    part = {"text": f"the key {KEY}", "thoughtSignature": "abc"}
    assert sent({"contents": [{"parts": [part]}]}) == {"contents": [{"parts": [{**part, "text": f"the key {MARK}"}]}]}


def test_what_surrounds_a_key_keeps_its_bytes() -> None:
    body = b'{ "b":1.50, "messages" : [ {"role":"user","content":"say \\u00e9 %s"} , {"content":"\\u00e9"}],"a":{ }, "a":{"z":1e2} }'
    body = body.replace(b', "a":{"z":1e2}', b"")
    given = room(OTHER_KEY).outgoing(body.replace(b"%s", OTHER_KEY.encode()))
    before, behind = body.split(b'"say \\u00e9 %s"')
    assert given == before + f'"say é {MARK}"'.encode() + behind


def test_a_body_without_keys_is_the_very_same() -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "hello \ud800"}]}).encode()
    assert room().outgoing(body) is body


@pytest.mark.parametrize("body", [b"", b"[1]", b"\xff", b'{"a":', b'"text"'])
def test_what_is_no_object_is_left_to_whoever_reads_it(body: bytes) -> None:
    assert room(patterns=("x",)).outgoing(body) == body


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("PROJ-[0-9]{4}", "see PROJ-1234.", f"see {MARK}."),
        (r"(?i)internal\s+only", "Internal  ONLY", MARK),
        ("größe", "größe 1, größe 2", f"{MARK} 1, {MARK} 2"),
        ("x*", "no such letter", "no such letter"),
        ("^secret$", "secret", MARK),
        (r"line\d\nline\d", "line1\nline2", MARK),
    ],
)
def test_configured_patterns_are_replaced_likewise(pattern: str, text: str, expected: str) -> None:
    body = {"messages": [{"role": "user", "content": text}]}
    assert sent(body, patterns=(pattern,))["messages"][0]["content"] == expected


def test_keys_and_patterns_that_overlap_are_one_mark() -> None:
    body = {"prompt": f"<{OTHER_KEY}-more>"}
    assert sent(body, OTHER_KEY, patterns=("5rS7-more",))["prompt"] == f"<{MARK}>"


def test_a_key_that_becomes_known_is_replaced_from_then_on() -> None:
    redactor = Redactor()
    redaction = PromptRedaction(RedactionOptions(), redactor)
    body = json.dumps({"prompt": OTHER_KEY}).encode()
    assert redaction.outgoing(body) is body
    redactor.know([Secret(OTHER_KEY)])
    assert json.loads(redaction.outgoing(body)) == {"prompt": MARK}


def test_a_member_that_stands_twice_hides_no_key() -> None:
    for body in (
        b'{"prompt": "%s", "prompt": "x", "n": 1.0}',
        b'{"messages": [{"role": "user", "content": "%s", "content": "y"}], "n": 1.0}',
        b'{"messages": [{"role": "user", "content": "%s", "content": "%s"}], "n": 1.0}',
    ):
        given = room(OTHER_KEY).outgoing(body.replace(b"%s", OTHER_KEY.encode()))
        assert OTHER_KEY.encode() not in given
        assert json.loads(given) == json.loads(body.replace(b"%s", MARK.encode()))


@pytest.mark.parametrize("place", [0, 3, 8, len(OTHER_KEY) - 1])
@pytest.mark.parametrize("form", ["\\u%04x", "\\u%04X"])
def test_a_key_with_letters_escaped_that_need_not_be_is_found(place: int, form: str) -> None:
    escaped = OTHER_KEY[:place] + form % ord(OTHER_KEY[place]) + OTHER_KEY[place + 1 :]
    given = room(OTHER_KEY).outgoing(f'{{"prompt": "a {escaped} b"}}'.encode())
    assert json.loads(given) == {"prompt": f"a {MARK} b"}


def test_many_keys_in_many_parts_are_found_in_a_time_that_grows_with_the_text() -> None:
    def seconds(pairs: int) -> float:
        parts = [{"text": "a " + KEY[:9]}, {"text": KEY[9:] + " b"}] * pairs
        body = json.dumps({"contents": [{"parts": parts}]}).encode()
        began = time.perf_counter()
        assert redaction.outgoing(body).count(MARK.encode()) == pairs
        return time.perf_counter() - began

    redaction = room(KEY)
    seconds(10)
    assert min(seconds(8000) for _ in range(2)) < 40 * min(seconds(800) for _ in range(3))


def test_a_long_conversation_is_looked_through_in_a_few_milliseconds() -> None:
    redaction = room(*(f"sk-{number:048d}" for number in range(50)))
    body = json.dumps({"messages": [{"role": "user", "content": "some words, code = 1;\n" * 40}] * 400}).encode()
    assert len(body) > 350_000
    times = []
    for _ in range(10):
        began = time.perf_counter()
        assert redaction.outgoing(body) is body
        times.append(time.perf_counter() - began)
    assert min(times) < 0.003
