"""OPS-05: the entries of a capture, and that no secret is in them, however the wire cut it."""

from __future__ import annotations

import base64
import itertools
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.store.capture.heard import Answered, Begun, Caller, Ended, Heard, Piece, Sent, What
from llm_proxy.store.capture.lines import Lines, first_line
from llm_proxy.wire.redaction import Redactor
from llm_proxy.wire.secrets import Secret

KEY = "prov-0123456789/abc+DEF"
CLEAN = Redactor([Secret(KEY)]).clean_bytes
JSON_TYPE = [("Content-Type", "application/json")]
MEMBERS = {
    "timestamp_iso", "timestamp_unix", "direction", "source", "destination", "session_id", "backend", "model", "key_name",
    "content_type", "content_length", "payload", "metadata",
}  # fmt: skip


def caller(**more: Any) -> Caller:
    fields = {
        "client_host": "10.0.0.9", "user_agent": "codex/1.0", "session_id": "s1", "backend": "openai", "model": "gpt-5",
        "key_name": "OPENAI_API_KEY_2", "request_id": "req_1", "attempt": 2, "call": 3,
    }  # fmt: skip
    return Caller(**{**fields, **more})


def line(what: What, *, truncate: int = 0, who: Caller | None = None, dropped: int = 0) -> dict[str, Any]:
    made = Lines(CLEAN, truncate).line(Heard(1_700_000_000.25, who or caller(), what, 0), dropped)
    assert made.endswith(b"\n") and made.count(b"\n") == 1
    read: dict[str, Any] = json.loads(made)
    assert read.keys() == MEMBERS
    return read


def sent(body: bytes, **more: Any) -> dict[str, Any]:
    return line(Sent("https://api.openai.com/v1/chat/completions", body), **more)


def answered(*pieces: bytes, status: int = 200, failure: str = "", **more: Any) -> dict[str, Any]:
    return line(Answered(status, JSON_TYPE, pieces, sum(map(len, pieces)), 0.5, failure), **more)


def test_a_request_has_every_member_of_an_entry() -> None:
    assert sent(b'{"model": "gpt-5", "n": 1}') == {
        "timestamp_iso": "2023-11-14T22:13:20.250000Z",
        "timestamp_unix": 1_700_000_000.25,
        "direction": "outbound_request",
        "source": "10.0.0.9(codex/1.0)",
        "destination": "https://api.openai.com/v1/chat/completions",
        "session_id": "s1",
        "backend": "openai",
        "model": "gpt-5",
        "key_name": "OPENAI_API_KEY_2",
        "content_type": "json",
        "content_length": 26,
        "payload": {"model": "gpt-5", "n": 1},
        "metadata": {
            "client_host": "10.0.0.9",
            "user_agent": "codex/1.0",
            "request_id": "req_1",
            "attempt": 2,
            "call": 3,
            "status": None,
        },
    }


def test_the_first_line_of_a_file_names_the_format() -> None:
    read = json.loads(first_line(1.5))
    assert read.keys() == MEMBERS
    assert (read["direction"], read["payload"]) == ("system_init", {"format_version": "buffered_v1"})


@pytest.mark.parametrize(
    ("host", "agent", "source"),
    [
        ("10.0.0.9", "a/1", "10.0.0.9(a/1)"),
        ("10.0.0.9", "", "10.0.0.9"),
        ("", "a/1", "unknown_client"),
        ("", "", "unknown_client"),
    ],
)
def test_source_is_host_and_agent_or_host_or_unknown_client(host: str, agent: str, source: str) -> None:
    assert sent(b"{}", who=caller(client_host=host, user_agent=agent))["source"] == source


def test_the_source_of_a_response_is_the_back_end() -> None:
    read = answered(b'{"id":"x"}')
    assert (read["direction"], read["source"], read["destination"]) == (
        "inbound_response",
        "openai",
        "10.0.0.9(codex/1.0)",
    )
    assert read["metadata"]["status"] == 200
    assert read["metadata"]["headers"] == {"content-type": "application/json"}


def test_payloads_that_are_json_are_objects_spelled_as_they_were() -> None:
    body = b'{\n  "a": 1.50, "b": 12345678901234567890123,\n "c": "\\u00e9\\n"}'
    made = Lines(CLEAN).line(Heard(0.0, caller(), Sent("x", body), 0))
    assert b'"payload":{"a":1.50,"b":12345678901234567890123,"c":"\\u00e9\\n"}' in made


@pytest.mark.parametrize("body", [b"<html>no</html>", b'{"a": NaN}', b'{"a"', b"", b"[" * 5000, b'"text"'])
def test_what_is_no_json_is_text(body: bytes) -> None:
    read = sent(body)
    assert (read["content_type"], read["payload"], read["content_length"]) == ("text", body.decode(), len(body))


def test_binary_is_base64_with_a_mark() -> None:
    body = b"\x89PNG\xff\x00\n"
    read = answered(body)
    assert read["content_type"] == "bytes"
    assert read["payload"] == "base64:" + base64.b64encode(body).decode()


def test_truncated_payloads_are_flagged_and_keep_their_length() -> None:
    read = sent(b'{"text":"' + b"x" * 5000 + b'"}', truncate=100)
    assert read["payload"] == '{"text":"' + "x" * 91
    assert read["content_length"] == 5011
    assert read["metadata"]["truncated"] is True
    assert "truncated" not in sent(b'{"text":"x"}', truncate=100)["metadata"]


def test_an_answer_too_long_to_be_kept_is_flagged() -> None:
    read = line(Answered(200, JSON_TYPE, [b'{"a":'], 99, 0.1, ""))
    assert (read["payload"], read["content_length"], read["metadata"]["truncated"]) == ('{"a":', 99, True)


@pytest.mark.parametrize("limit", [1, 10, 14, 20, 30])
def test_no_part_of_a_secret_stands_where_a_payload_is_cut(limit: int) -> None:
    read = sent(b'{"text":"' + KEY.encode() + b'"}', truncate=limit)
    assert read["payload"] == '{"text":"***"}'[:limit]


@pytest.mark.parametrize("shown", [9, 20])
def test_a_long_secret_before_it_brings_no_part_of_another_to_light(shown: int) -> None:
    """What stands where the cleaning ends comes forward when the private key before it becomes three characters."""
    before = '{"text":"-----BEGIN PRIVATE KEY-----' + "x" * 65_540 + "-----END PRIVATE KEY----- "
    body = before + "y" * (65_536 + 200 - len(before) - 1 - shown) + " " + KEY + '"}'
    payload = sent(body.encode(), truncate=200)["payload"]
    assert payload.startswith('{"text":"*** y') and KEY[:shown] not in payload


def test_a_call_that_brought_no_answer_says_why() -> None:
    read = answered(status=0, failure=f"Back end openai cannot be reached with {KEY}.")
    assert read["payload"] == {"failure": "Back end openai cannot be reached with ***."}
    assert (read["content_type"], read["metadata"]["status"]) == ("object", None)


def test_a_stream_has_a_beginning_numbered_chunks_and_totals() -> None:
    who = caller()
    headers = [
        ("content-type", "text/event-stream"),
        ("set-cookie", "c=1"),
        ("X-Request-Id", "up1"),
        ("authorization", "x"),
    ]
    begun = line(Begun(200, headers), who=who)
    piece = line(Piece(1, b"data: 1\n\n"), who=who)
    ended = line(Ended(200, 1, 9, 1.5, 0.25, "the client left"), who=who)
    assert begun["payload"] == {"status": 200, "headers": {"content-type": "text/event-stream", "x-request-id": "up1"}}
    assert (piece["payload"], piece["content_type"], piece["content_length"]) == ("data: 1\n\n", "text", 9)
    assert (piece["metadata"]["chunk_number"], piece["metadata"]["chunk_bytes"]) == (1, 9)
    assert ended["payload"] == {
        "complete": False,
        "failure": "the client left",
        "total_chunks": 1,
        "total_bytes": 9,
        "duration_ms": 1500.0,
        "first_chunk_ms": 250.0,
    }
    assert {read["metadata"]["status"] for read in (begun, piece, ended)} == {200}


def test_what_clients_choose_is_cleaned_too() -> None:
    read = sent(b"{}", who=caller(user_agent=f"a {KEY}", session_id=KEY, model=KEY))
    assert KEY not in json.dumps(read)


def test_lost_entries_are_counted_in_the_next_line() -> None:
    assert sent(b"{}", dropped=7)["metadata"]["dropped"] == 7


@given(cuts=st.lists(st.integers(0, 200), max_size=12), name=st.sampled_from(["plain", "escaped", "shaped"]))
def test_a_secret_split_over_chunks_is_not_readable_by_joining_the_payloads(cuts: list[int], name: str) -> None:
    secret = {"plain": KEY, "escaped": KEY.replace("/", "\\/"), "shaped": "sk-" + "Ab0" * 12}[name]
    stream = f'data: {{"a":"über"}}\n\ndata: {{"content":"key: {secret}"}}\n\ndata: {{"b":"end"}}'.encode()
    who, lines = caller(), Lines(CLEAN)
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    joined = ""
    for number, (start, end) in enumerate(itertools.pairwise(places), 1):
        read = json.loads(lines.line(Heard(0.0, who, Piece(number, stream[start:end]), 0)))
        assert read["content_length"] == end - start
        joined += read["payload"]
    joined += json.loads(lines.line(Heard(0.0, who, Ended(200, 1, 1, 1.0, None, ""), 0)))["payload"].get("rest", "")
    assert joined == stream.decode().replace(secret, "***")


def test_a_chunk_cut_within_a_character_stays_text() -> None:
    who, lines = caller(), Lines(CLEAN)
    data = "data: ü\n\n".encode()
    reads = [
        json.loads(lines.line(Heard(0.0, who, Piece(n, part), 0))) for n, part in enumerate((data[:7], data[7:]), 1)
    ]
    assert [read["content_type"] for read in reads] == ["text", "text"]
    assert "".join(read["payload"] for read in reads) == "data: ü\n\n"


def test_a_stream_without_line_breaks_is_not_held_without_end() -> None:
    who, lines = caller(), Lines(CLEAN)
    reads = [lines.line(Heard(0.0, who, Piece(n, b'{"x": "' + b"y " * 40_000), 0)) for n in range(1, 40)]
    held = 39 * 80_007 - sum(len(json.loads(read)["payload"]) for read in reads)
    assert held < 2 * 1024 * 1024


def test_a_line_that_comes_in_tiny_chunks_takes_a_time_that_grows_with_it() -> None:
    def seconds(size: int) -> float:
        who, lines, began = caller(), Lines(CLEAN), time.perf_counter()
        for number in range(size // 16):
            lines.line(Heard(1.0, who, Piece(number + 1, b"x" * 16), 16))
        return time.perf_counter() - began

    assert min(seconds(640_000) for _ in range(2)) < 12 * min(seconds(160_000) for _ in range(3))


def test_behind_dropped_chunks_no_half_of_a_secret_is_left() -> None:
    who, lines = caller(), Lines(CLEAN)
    half = len(KEY) // 2
    pieces = {1: b"data: a\n\ndata: " + KEY[:half].encode(), 3: KEY[half:].encode() + b"\n\ndata: b\n\n"}
    reads = [json.loads(lines.line(Heard(0.0, who, Piece(number, data), 0))) for number, data in pieces.items()]
    assert [read["payload"] for read in reads] == ["data: a\n\n", "\ndata: b\n\n"]
