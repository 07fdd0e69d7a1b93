"""Models, counts, and the two paths that pass through (FE-07, FE-08, FE-09)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.conversation.fault import FaultError
from llm_proxy.dialects.base import ModelInfo
from llm_proxy.dialects.openai_chat import DIALECT, legacy


def test_models_are_listed_with_their_limits_if_known() -> None:
    models = [
        ModelInfo("openai:gpt", "openai", created=5, context_window=100, max_output=10),
        ModelInfo("b:x"),
    ]
    listed = json.loads(DIALECT.write_models(models))
    assert listed["object"] == "list"
    assert listed["data"][0] == {
        "id": "openai:gpt",
        "object": "model",
        "created": 5,
        "owned_by": "openai",
        "context_window": 100,
        "max_output_tokens": 10,
    }
    assert "context_window" not in listed["data"][1]
    assert json.loads(DIALECT.write_model(models[0])) == listed["data"][0]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"data": [{"id": "a", "created": 1, "owned_by": "o"}]}, ModelInfo("a", owner="o", created=1)),
        ([{"id": "a"}], ModelInfo("a")),
        ({"models": [{"name": "models/a", "inputTokenLimit": 5}]}, ModelInfo("a", context_window=5)),
        (
            {
                "data": [
                    {
                        "id": "a/b",
                        "name": "B",
                        "context_length": 9,
                        "top_provider": {"max_completion_tokens": 3},
                    }
                ]
            },
            ModelInfo("a/b", display_name="B", context_window=9, max_output=3),
        ),
        ({"data": [{"id": "a", "max_model_len": 7}, {"no": "id"}, 5]}, ModelInfo("a", context_window=7)),
    ],
)
def test_lists_of_providers(body: Any, expected: ModelInfo) -> None:
    assert DIALECT.read_models(json.dumps(body).encode()) == [expected]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"data": 5}', b'{"error": {"message": "x"}}', b"<html>"])
def test_what_is_no_list_is_a_fault(body: bytes) -> None:
    with pytest.raises(FaultError):
        DIALECT.read_models(body)


def test_counts() -> None:
    assert json.loads(DIALECT.write_count(7))["input_tokens"] == 7
    assert DIALECT.read_count(b'{"count": 5, "max_model_len": 9}') == 5
    assert DIALECT.read_count(b'{"tokens": [1, 2]}') == 2
    with pytest.raises(FaultError):
        DIALECT.read_count(b'{"x": 1}')


def test_heads_of_the_paths_that_pass_through() -> None:
    head = legacy.read_completion_head(
        b'{"model":"m","prompt":["a"],"stream":true,"stream_options":{"include_usage":true}}'
    )
    assert (head.model, head.stream, head.include_usage) == ("m", True, True)
    assert legacy.read_completion_head(b'{"model":"m","suffix":"x"}').model == "m"
    assert legacy.read_embedding_head(b'{"model":"m","input":[[1,2]]}').stream is False


@pytest.mark.parametrize(
    ("reader", "body", "param"),
    [
        (legacy.read_completion_head, b'{"model":3,"prompt":"x"}', "model"),
        (legacy.read_completion_head, b'{"model":"m","prompt":5}', "prompt"),
        (legacy.read_embedding_head, b'{"model":"m"}', "input"),
        (legacy.read_embedding_head, b'{"model":"m","input":{}}', "input"),
        (legacy.read_embedding_head, b"nope", ""),
    ],
)
def test_wrong_fields_of_the_side_paths_are_named(reader: Any, body: bytes, param: str) -> None:
    with pytest.raises(FaultError) as raised:
        reader(body)
    assert (raised.value.fault.status_code, raised.value.fault.param) == (400, param)


def test_usage_of_the_side_paths() -> None:
    body = b'{"object":"list","data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":8,"total_tokens":8}}'
    found = legacy.read_usage(body)
    assert found is not None and (found.input, found.output) == (8, 0)
    assert legacy.read_usage(b'{"choices":[]}') is None
