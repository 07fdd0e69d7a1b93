"""A look at relayed streams, model lists, token counts, and the schemas of Anthropic's client tools."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.conversation.request import ServerTool
from llm_proxy.dialects.anthropic_messages import DIALECT
from llm_proxy.dialects.anthropic_messages.client_tools import client_tool_schema
from llm_proxy.dialects.base import Glance, ModelInfo
from llm_proxy.wire.sse import SseReader
from tests.dialects.anthropic_messages.support import (
    NAME,
    START,
    STOP,
    block,
    ended,
    events_of,
    fold_usage,
    sse,
)
from tests.support.grammar import check_stream
from tests.support.shared import Exchange, generating_exchanges

STREAMS = [e for e in generating_exchanges() if e.protocol == NAME and e.response.sse is not None]
TEXT = block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "x"})


def glances(raw: bytes) -> tuple[list[Glance], Fault | None]:
    glancer = DIALECT.glancer()
    return [glancer.look([frame]) for frame in SseReader().feed(raw)], glancer.close()


@pytest.mark.parametrize("named", [True, False])
def test_a_relayed_stream_is_understood_without_being_decoded(named: bool) -> None:
    seen, fault = glances(sse([START, {"type": "ping"}, *TEXT, ended("end_turn", 20), STOP], named))
    assert fault is None
    assert [glance.content for glance in seen] == [False, False, False, True, False, False, False]
    assert seen[0].model == "claude-x"
    usage = seen[-2].usage
    assert usage is not None and (usage.input, usage.output) == (100, 20)
    assert seen[-1].ended


def test_a_tool_call_is_content_from_its_first_frame() -> None:
    call = block(0, {"type": "tool_use", "id": "t", "name": "f", "input": {}})
    assert [glance.content for glance in glances(sse([START, *call]))[0]] == [False, True, False]


def test_errors_and_early_ends_are_seen() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    seen, fault = glances(sse([START, error]))
    assert seen[-1].failed is not None and seen[-1].failed.kind == "overloaded"
    assert fault is None
    _, fault = glances(sse([START, *TEXT]))
    assert fault is not None and fault.kind == "closed"


def test_a_broken_relay_ends_with_an_error_event() -> None:
    raw = sse([START, *TEXT[:2]]) + DIALECT.glancer().failure_frames(Fault(kind="closed", message="gone"))
    assert check_stream(NAME, raw) == []


@pytest.mark.parametrize("exchange", STREAMS, ids=str)
def test_the_glance_agrees_with_the_reader(exchange: Exchange) -> None:
    raw = exchange.response.payload
    seen, fault = glances(raw)
    events = events_of(raw)
    usages = [glance.usage for glance in seen if glance.usage]
    assert (usages[-1] if usages else None) == fold_usage(events)
    assert (fault is None) == (not any(getattr(e, "fault", None) and e.fault.kind == "closed" for e in events[-1:]))


def test_models_to_clients() -> None:
    models = [
        ModelInfo("anthropic:claude-x", display_name="X", created=1_700_000_000, context_window=200_000),
        ModelInfo("b:m"),
    ]
    listed = json.loads(DIALECT.write_models(models))
    assert (listed["first_id"], listed["last_id"], listed["has_more"]) == ("anthropic:claude-x", "b:m", False)
    first, second = listed["data"]
    assert first["created_at"] == "2023-11-14T22:13:20Z" and first["max_input_tokens"] == 200_000
    assert second["display_name"] == "b:m" and second["type"] == "model"
    assert json.loads(DIALECT.write_model(models[0])) == first
    assert json.loads(DIALECT.write_models([]))["first_id"] is None


def test_models_from_providers() -> None:
    body = {
        "data": [
            {
                "type": "model",
                "id": "a",
                "display_name": "A",
                "created_at": "2025-02-19T00:00:00Z",
                "max_tokens": 9,
            },
            {"object": "model", "id": "b", "created": 5, "owned_by": "o", "created_at": "soon"},
            "nonsense",
        ]
    }
    assert DIALECT.read_models(json.dumps(body).encode()) == [
        ModelInfo("a", display_name="A", created=1_739_923_200, max_output=9),
        ModelInfo("b", owner="o", created=5),
    ]
    for wrong in (b"{}", b"x"):
        with pytest.raises(FaultError):
            DIALECT.read_models(wrong)


def test_token_counts() -> None:
    assert DIALECT.read_count(DIALECT.write_count(12)) == 12
    for wrong in (b'{"input_tokens":"x"}', b"x"):
        with pytest.raises(FaultError):
            DIALECT.read_count(wrong)


@pytest.mark.parametrize(
    ("raw", "arguments"),
    [
        ({"type": "bash_20250124", "name": "bash"}, {"command": "ls"}),
        (
            {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"},
            {"command": "insert", "path": "/a", "insert_line": 0, "insert_text": "x"},
        ),
        (
            {"type": "text_editor_20250124", "name": "str_replace_editor"},
            {"command": "undo_edit", "path": "/a"},
        ),
        (
            {"type": "memory_20250818", "name": "memory"},
            {"command": "rename", "old_path": "/a", "new_path": "/b"},
        ),
        (
            {
                "type": "computer_20250124",
                "name": "computer",
                "display_width_px": 800,
                "display_height_px": 600,
            },
            {"action": "scroll", "coordinate": [1, 2], "scroll_direction": "up", "scroll_amount": 3},
        ),
    ],
)
def test_client_tools_as_functions(raw: dict[str, Any], arguments: dict[str, Any]) -> None:
    function = client_tool_schema(ServerTool(NAME, raw["type"], raw))
    assert function is not None and function.name == raw["name"] and function.description
    assert function.parameters is not None
    jsonschema.Draft202012Validator.check_schema(function.parameters)
    jsonschema.validate(arguments, function.parameters)


@pytest.mark.parametrize("kind", ["web_search_20250305", "computer_toolset_20260801", "code_execution_20250522"])
def test_what_the_provider_runs_has_no_function(kind: str) -> None:
    assert client_tool_schema(ServerTool(NAME, kind, {"type": kind})) is None
    assert client_tool_schema(ServerTool("openai-responses", "bash_x", {})) is None
