"""Streams that are relayed byte for byte: what is noticed, what is taken out, how they are broken off."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.conversation.fault import Fault
from llm_proxy.dialects.openai_chat import DIALECT
from llm_proxy.dialects.openai_chat.glance import ChatGlancer
from llm_proxy.wire.sse import Frame
from tests.dialects.openai_chat.support import NAME, chunk, frames_of, stream_of, usage_chunk
from tests.support.grammar import check_stream

COUNTS = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def glances(raw: bytes) -> tuple[ChatGlancer, list[Any]]:
    glancer = ChatGlancer()
    return glancer, [glancer.look([frame]) for frame in frames_of(raw)]


def test_content_usage_model_and_end_are_noticed() -> None:
    glancer, found = glances(
        stream_of(
            [
                chunk({"role": "assistant", "content": ""}),
                chunk({"content": "a"}),
                chunk({"content": "b"}),
                chunk({}, "stop"),
                usage_chunk(**COUNTS),
            ]
        )
    )
    assert [one.content for one in found] == [False, True, True, False, False, False]
    assert [one.model for one in found] == ["m-1", "", "", "", "", ""]
    assert found[4].usage.input == 5 and all(one.usage is None for one in found[:4])
    assert [one.ended for one in found] == [False] * 5 + [True]
    assert glancer.close() is None


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_content": "x"},
        {"reasoning": "x"},
        {"refusal": "x"},
        {"audio": {"data": "x"}},
        {"tool_calls": [{"index": 0, "id": "a"}]},
        {"reasoning_details": [{"index": 0}]},
    ],
)
def test_everything_that_a_client_reads_is_content(delta: dict[str, Any]) -> None:
    _, found = glances(stream_of([chunk(delta)], done=False))
    assert found[0].content


def test_several_frames_at_once_are_one_glance() -> None:
    frames = frames_of(stream_of([chunk({"content": "a"}), chunk({}, "stop"), usage_chunk(**COUNTS)]))
    found = ChatGlancer().look(frames)
    assert found.content and found.ended and found.usage is not None and found.model == "m-1"


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        (b'data: {"error":{"message":"boom"}}\n\n', "upstream"),
        (b'event: error\ndata: {"error":{"message":"boom","status_code":429}}\n\n', "rate_limit"),
        (b'data: {"choices":[{"index":0,"delta":{},"error":{"message":"boom"}}]}\n\n', "upstream"),
        (b'data: [{"error":{"message":"boom"}}]\n\n', "upstream"),
    ],
)
def test_errors_are_noticed_before_and_after_content(frame: bytes, kind: str) -> None:
    for before in (b"", stream_of([chunk({"content": "x"})], done=False)):
        glancer, found = glances(before + frame)
        assert found[-1].failed is not None and found[-1].failed.kind == kind
        assert glancer.close() is None  # told already


def test_words_in_the_text_are_no_errors_and_no_ends() -> None:
    text = '{"error": "x"} "usage" [DONE] "finish_reason":"stop"'
    glancer, found = glances(stream_of([chunk({"content": "x"}), chunk({"content": text})], done=False))
    assert found[1].content and found[1].failed is None and not found[1].ended and found[1].usage is None
    assert glancer.close() is not None


def test_an_end_is_done_or_a_finish_reason() -> None:
    for raw, ended in (
        (stream_of([chunk({"content": "x"})]), True),
        (stream_of([chunk({"content": "x"}), chunk({}, "stop")], done=False), True),
        (stream_of([chunk({"content": "x"})], done=False), False),
        (b"", False),
    ):
        glancer, _ = glances(raw)
        fault = glancer.close()
        assert (fault is None) is ended
        assert fault is None or fault.kind == "closed"


def test_legacy_completions_are_understood() -> None:
    _, found = glances(b'data: {"choices":[{"text":"x","index":0,"finish_reason":null}],"model":"m"}\n\n')
    assert found[0].content


def test_only_the_usage_chunk_is_taken_out() -> None:
    kept = [chunk({"content": "a"}, usage=None), chunk({}, "stop", usage=None)]
    azure = {**chunk(), "choices": [], "prompt_filter_results": [{"usage": 1}]}
    raw = b": hello\n\n" + stream_of([azure, *kept, usage_chunk(**COUNTS)])
    glancer = ChatGlancer()
    expected = b": hello\n\n" + stream_of([azure, *kept])
    assert glancer.strip_usage(frames_of(raw)) == expected
    assert b"".join(glancer.strip_usage([frame]) for frame in frames_of(raw)) == expected
    spaced = b'data: {"choices" : [ ], "usage" : {"prompt_tokens": 1}}\n\n'
    assert glancer.strip_usage(frames_of(spaced)) == b""


def test_usage_beside_a_choice_stays() -> None:
    raw = stream_of([chunk({}, "stop", usage=COUNTS)])
    assert ChatGlancer().strip_usage(frames_of(raw)) == raw


def test_a_relayed_stream_is_broken_off_in_protocol() -> None:
    begun = stream_of([chunk({"role": "assistant", "content": "x"})], done=False)
    glancer, _ = glances(begun)
    raw = begun + glancer.failure_frames(Fault(kind="closed", message="cut"))
    assert check_stream(NAME, raw) == []
    assert json.loads(frames_of(raw)[-1].data or b"")["error"]["message"] == "cut"
    ended, _ = glances(stream_of([chunk({"content": "x"}, "stop")]))
    assert ended.failure_frames(Fault(kind="closed", message="cut")) == b""


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=6))
def test_any_bytes_can_be_looked_at(datas: list[bytes]) -> None:
    frames = [Frame(b"data: " + data + b"\n\n", "", data) for data in datas]
    glancer = DIALECT.glancer()
    glancer.look(frames)
    glancer.close()
    assert len(ChatGlancer().strip_usage(frames)) <= sum(len(frame.raw) for frame in frames)
