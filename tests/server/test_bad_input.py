"""What is no valid request is a clear 4xx in the client's protocol, never a 5xx or a hang (FE-11, FE-12)."""

from __future__ import annotations

import gzip
import json
import re
import socket
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard

from tests.server.process import Proxy, running
from tests.server.test_paths import CHAT, GEMINI, MESSAGES, RESPONSES, assert_error

SURFACES: dict[str, tuple[str, dict[str, Any], str]] = {
    "openai-chat": ("/v1/chat/completions", CHAT, "openai"),
    "openai-responses": ("/v1/responses", RESPONSES, "openai"),
    "anthropic-messages": ("/v1/messages", MESSAGES, "anthropic"),
    "gemini": ("/v1beta/models/demo:echo:generateContent", GEMINI, "gemini"),
}
SIDE_CALLS = {
    "count_tokens": ("/v1/messages/count_tokens", "anthropic"),
    "countTokens": ("/v1beta/models/demo:echo:countTokens", "gemini"),
    "completions": ("/v1/completions", "openai"),
    "embeddings": ("/v1/embeddings", "openai"),
}
surfaces = pytest.mark.parametrize("surface", SURFACES)


def _send(proxy: Proxy, surface: str, body: Any, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    path, _, shape = SURFACES[surface]
    answer = proxy.post(path, body, headers)
    if answer.status != 200:
        assert answer.headers["content-type"] == "application/json"
        assert_error(answer.json, shape, answer.json["detail"]["code"])
        assert "Traceback" not in answer.body.decode()
        return answer.status, answer.json["detail"]
    return answer.status, answer.json


def _with_text(surface: str, text: bytes) -> bytes:
    """A valid body whose user text is `text`, put in as it is between the quotes."""
    plain = json.dumps(SURFACES[surface][1]).encode()
    assert plain.count(b'"hi"') == 1
    return plain.replace(b'"hi"', b'"' + text + b'"')


def _with_member(surface: str, member: bytes) -> bytes:
    """A valid body with one more member at its end."""
    return json.dumps(SURFACES[surface][1]).encode()[:-1] + b", " + member + b"}"


MALFORMED = {
    "cut off": b'{"model": "demo:echo", ',
    "one brace": b"{",
    "no value": b'{"model": }',
    "a comma too many": b'{"model": "demo:echo",}',
    "single quotes": b"{'model': 'demo:echo'}",
    "a control character": b'{"model": "a\x01b"}',
}


@surfaces
@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_malformed_json_is_400_with_its_position(proxy: Proxy, surface: str, body: bytes) -> None:
    status, detail = _send(proxy, surface, body)
    assert (status, detail["code"]) == (400, "invalid_request")
    assert any(character.isdigit() for character in detail["message"]), detail["message"]


@pytest.mark.parametrize(("path", "shape"), SIDE_CALLS.values(), ids=SIDE_CALLS)
@pytest.mark.parametrize("body", [b"{", b"", b"[]", b"\xff\xfe", b'{"a":' * 1000], ids=range(5))
def test_side_calls_refuse_malformed_bodies_alike(proxy: Proxy, path: str, shape: str, body: bytes) -> None:
    answer = proxy.post(path, body)
    assert answer.status == 400, answer.body
    assert_error(answer.json, shape, "invalid_request")


# Chat Completions is the demo's own protocol, so what lies deeper in such a body goes on as it is and is the
# provider's to judge.
WRONG_TYPES: list[tuple[str, dict[str, Any], str]] = [
    ("openai-chat", {"messages": "x"}, "messages"),
    ("openai-chat", {"messages": []}, "messages"),
    ("openai-chat", {"messages": None}, "messages"),
    ("openai-chat", {"temperature": "0.5"}, "temperature"),
    ("openai-chat", {"max_tokens": "10"}, "max_tokens"),
    ("openai-chat", {"model": 5}, "model"),
    ("openai-responses", {"input": 5}, "input"),
    ("openai-responses", {"input": [5]}, "input[0]"),
    ("openai-responses", {"model": []}, "model"),
    ("openai-responses", {"max_output_tokens": "10"}, "max_output_tokens"),
    ("anthropic-messages", {"messages": "x"}, "messages"),
    ("anthropic-messages", {"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    (
        "anthropic-messages",
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages[0].content[0]",
    ),
    ("anthropic-messages", {"max_tokens": "10"}, "max_tokens"),
    ("anthropic-messages", {"max_tokens": None}, "max_tokens"),
    ("anthropic-messages", {"system": 5}, "system"),
    ("gemini", {"contents": 5}, "contents"),
    ("gemini", {"contents": [5]}, "contents[0]"),
    ("gemini", {"contents": [{"parts": 5}]}, "contents[0].parts"),
    ("gemini", {"generationConfig": 5}, "generationConfig"),
]


@pytest.mark.parametrize(("surface", "members", "named"), WRONG_TYPES)
def test_a_wrong_type_is_400_and_named_by_its_path(
    proxy: Proxy, surface: str, members: dict[str, Any], named: str
) -> None:
    status, detail = _send(proxy, surface, {**SURFACES[surface][1], **members})
    assert (status, detail["code"]) == (400, "invalid_request")
    assert named in detail["message"]


ODD: dict[str, tuple[Callable[[str], bytes], tuple[int, ...]]] = {
    "nesting 1000": (lambda s: _with_member(s, b'"metadata": ' + b"[" * 1000 + b"]" * 1000), (400,)),
    "nesting 129": (lambda s: _with_member(s, b'"metadata": ' + b'{"a":' * 129 + b"1" + b"}" * 129), (400,)),
    "nesting 100 000": (lambda s: b"[" * 100_000, (400,)),
    "300 000 values": (lambda s: _with_member(s, b'"metadata": [' + b"1," * 300_000 + b"1]"), (400,)),
    "a 5000-digit number": (lambda s: _with_member(s, b'"metadata": ' + b"9" * 5000), (200, 400)),
    "duplicate keys": (lambda s: _with_member(s, b'"metadata": {"a": "1", "a": "2"}'), (200, 400)),
    "NaN": (lambda s: _with_member(s, b'"temperature": NaN'), (400,)),
    "Infinity": (lambda s: _with_member(s, b'"temperature": Infinity'), (400,)),
    "1e999": (lambda s: _with_member(s, b'"temperature": 1e999'), (200, 400)),
    "a lone surrogate": (lambda s: _with_text(s, b"a\\ud800b"), (200, 400)),
    "a surrogate pair": (lambda s: _with_text(s, b"\\ud83d\\ude00"), (200,)),
    "invalid UTF-8": (lambda s: _with_text(s, b"a\xffb"), (400,)),
    "overlong UTF-8": (lambda s: _with_text(s, b"a\xc0\x80b"), (400,)),
    "a surrogate in UTF-8": (lambda s: _with_text(s, b"a\xed\xa0\x80b"), (400,)),
    "UTF-8 cut off": (lambda s: _with_text(s, b"a\xe2\x82"), (400,)),
    "NUL": (lambda s: _with_text(s, b"a\\u0000b"), (200,)),
    "U+2028": (lambda s: _with_text(s, "a\u2028b".encode()), (200,)),
    "a byte order mark": (lambda s: b"\xef\xbb\xbf" + json.dumps(SURFACES[s][1]).encode(), (200,)),
    "UTF-16": (lambda s: json.dumps(SURFACES[s][1]).encode("utf-16"), (400,)),
    "UTF-16 without mark": (lambda s: json.dumps(SURFACES[s][1]).encode("utf-16-le"), (400,)),
    "UTF-32": (lambda s: json.dumps(SURFACES[s][1]).encode("utf-32"), (400,)),
    "bytes behind the end": (lambda s: json.dumps(SURFACES[s][1]).encode() + b"x", (400,)),
    "a second object": (lambda s: json.dumps(SURFACES[s][1]).encode() * 2, (400,)),
    "white space around": (lambda s: b" \r\n\t" + json.dumps(SURFACES[s][1]).encode() + b"\n\n", (200,)),
    "empty": (lambda s: b"", (400,)),
    "white space only": (lambda s: b"  \n", (400,)),
    "null": (lambda s: b"null", (400,)),
    "a list": (lambda s: b"[]", (400,)),
    "a text": (lambda s: b'"hi"', (400,)),
    "a number": (lambda s: b"5", (400,)),
    "an empty object": (lambda s: b"{}", (400,)),
    "a long text": (lambda s: _with_text(s, b"a" * 900_000), (200,)),
    "a text of escapes": (lambda s: _with_text(s, b"\\n\\\\\\u0041" * 20_000), (200,)),
    "a very long key": (lambda s: _with_member(s, b'"' + b"k" * 500_000 + b'": 1'), (200, 400)),
    "many keys": (lambda s: _with_member(s, b", ".join(b'"k%d": 1' % i for i in range(20_000))), (200, 400)),
}


@surfaces
@pytest.mark.parametrize(("make", "statuses"), ODD.values(), ids=ODD)
def test_odd_json_is_served_or_refused_but_never_fails(
    proxy: Proxy, surface: str, make: Callable[[str], bytes], statuses: tuple[int, ...]
) -> None:
    status, detail = _send(proxy, surface, make(surface))
    assert status in statuses, detail
    if status == 400:
        assert detail["code"] == "invalid_request"


@surfaces
def test_thousands_of_messages_are_accepted(proxy: Proxy, surface: str) -> None:
    _, body, _ = SURFACES[surface]
    field = next(name for name in ("messages", "input", "contents") if name in body)
    one = body[field] if surface != "openai-responses" else [{"role": "user", "content": "hi"}]
    assert _send(proxy, surface, {**body, field: one * 10_000})[0] == 200


def test_the_last_of_two_equal_keys_counts(proxy: Proxy) -> None:
    body = b'{"model": "demo:error-500", "messages": [{"role":"user","content":"hi"}], "model": "demo:echo"}'
    status, answer = _send(proxy, "openai-chat", body)
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "Echo: hi")


# Size


@surfaces
def test_a_body_over_the_limit_is_413(proxy: Proxy, surface: str) -> None:
    status, detail = _send(proxy, surface, _with_text(surface, b"a" * 1_000_001))
    assert (status, detail["code"]) == (413, "request_too_large")
    assert "proxy.max_request_bytes" in detail["message"]


def test_a_body_over_the_limit_is_refused_before_it_is_read_to_its_end(proxy: Proxy) -> None:
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{proxy.main[1]}\r\n"
        f"Authorization: Bearer {proxy.key}\r\nContent-Type: application/json\r\n"
    )
    announced = f"{head}Content-Length: 100000000\r\n\r\n".encode()
    chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + b"ffff\r\n" + b"a" * 0xFFFF + b"\r\n"
    for data in (announced, chunked + (b"ffff\r\n" + b"a" * 0xFFFF + b"\r\n") * 16):
        with socket.create_connection(proxy.main, timeout=20) as connection:
            connection.sendall(data)  # and never more
            assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


# Content types and encodings


def _gzip(body: bytes) -> bytes:
    return gzip.compress(body)


def _raw_deflate(body: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    return deflate.compress(body) + deflate.flush()


ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "GZIP": _gzip,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "identity": bytes,
    "gzip, br": lambda body: brotli.compress(gzip.compress(body)),
}


@surfaces
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_compressed_bodies_are_accepted(proxy: Proxy, surface: str, encoding: str) -> None:
    body = ENCODINGS[encoding](json.dumps(SURFACES[surface][1]).encode())
    assert _send(proxy, surface, body, {"Content-Encoding": encoding})[0] == 200


@surfaces
@pytest.mark.parametrize("encoding", ["compress", "snappy", "gzip, compress"])
def test_an_unknown_encoding_is_415(proxy: Proxy, surface: str, encoding: str) -> None:
    status, detail = _send(proxy, surface, b"whatever", {"Content-Encoding": encoding})
    assert (status, detail["code"]) == (415, "unsupported_media_type")


@surfaces
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_a_damaged_encoding_is_400(proxy: Proxy, surface: str, encoding: str) -> None:
    whole = ENCODINGS[encoding](json.dumps(SURFACES[surface][1]).encode())
    for body in (b"not compressed at all", whole[:-3], b""):
        status, detail = _send(proxy, surface, body, {"Content-Encoding": encoding})
        assert (status, detail["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_a_body_that_opens_beyond_the_limit_is_413(proxy: Proxy, encoding: str) -> None:
    bomb = ENCODINGS[encoding](_with_text("openai-chat", b"a" * 20_000_000))
    status, detail = _send(proxy, "openai-chat", bomb, {"Content-Encoding": encoding})
    assert (status, detail["code"]) == (413, "request_too_large")


@surfaces
@pytest.mark.parametrize("kind", ["text/plain", "text/plain; charset=utf-8", "application/x-www-form-urlencoded"])
def test_a_body_that_is_not_called_json_is_415(proxy: Proxy, surface: str, kind: str) -> None:
    status, detail = _send(proxy, surface, SURFACES[surface][1], {"Content-Type": kind})
    assert (status, detail["code"]) == (415, "unsupported_media_type")


@surfaces
@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON", ""])
def test_json_or_no_content_type_is_accepted(proxy: Proxy, surface: str, kind: str) -> None:
    assert _send(proxy, surface, SURFACES[surface][1], {"Content-Type": kind})[0] == 200


# Headers of the answer


@surfaces
def test_a_sane_request_id_comes_back_and_another_is_replaced(proxy: Proxy, surface: str) -> None:
    path, body, _ = SURFACES[surface]
    for sent in (body, {}):
        assert proxy.post(path, sent, {"x-request-id": "abc"}).headers["x-request-id"] == "abc"
        replaced = proxy.post(path, sent, {"x-request-id": "a b<script>"}).headers["x-request-id"]
        assert replaced.startswith("req_")


@pytest.mark.parametrize("name", ["../../x", "..%2f", "a" * 10_000, "CON/..", "caf\u00e9", "a b"])
def test_a_session_id_of_another_form_is_replaced_by_its_hash(proxy: Proxy, name: str) -> None:
    answer = proxy.post("/v1/chat/completions", CHAT, {"x-session-id": name})
    assert answer.status == 200
    assert len(answer.headers["x-session-id"]) == 64
    assert set(answer.headers["x-session-id"]) <= set("0123456789abcdef")


def test_a_session_id_comes_back(proxy: Proxy) -> None:
    assert proxy.post("/v1/chat/completions", CHAT, {"x-session-id": "mine.1"}).headers["x-session-id"] == "mine.1"


# The whole process


def test_none_of_it_leaves_a_traceback_in_the_log(tmp_path: Path) -> None:
    with running(tmp_path, "--max-request-bytes", "1000000") as proxy:
        for surface, (path, _, _) in SURFACES.items():
            for make, _ in ODD.values():
                proxy.post(path, make(surface))
            for _, members, _ in WRONG_TYPES:
                proxy.post(path, {**SURFACES[surface][1], **members})
        assert proxy.get("/health").status == 200
        assert proxy.stop() == 0
        assert "Traceback" not in proxy.log
        statuses = [int(found) for found in re.findall(r" -> \S+ (\d{3}) ", proxy.log)]
        assert len(statuses) > 200
        assert max(statuses) < 500
