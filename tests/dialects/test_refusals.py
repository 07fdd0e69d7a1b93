"""RT-10: a 403 puts the proxy's key away only when it is about that key; what one client asked for must not take it from the others."""

from __future__ import annotations

import json

import pytest

from llm_proxy import dialects

PROTOCOLS = ("openai-chat", "openai-responses", "anthropic-messages", "gemini")
KEYS_FAULT = (
    "Your account is not active, please check your billing details on our website.",
    "Country, region, or territory not supported",
    "You do not have permission to perform this action.",
    "The caller does not have permission",
    "Consumer 'api_key:x' has been suspended.",
    "Request had insufficient authentication scopes.",
)
MODELS = (
    "Project `p` does not have access to model `o3`",
    "You do not have access to the model gpt-9",
    "The model `o9` does not exist or you do not have access to it.",
    "Model claude-x is not available for your organisation.",
)
REQUESTS = (
    'openai/gpt-4o requires moderation on Provider. Your input was flagged for "violence".',
    "Your request was rejected by our safety system.",
    "You do not have permission to access the File abc123 or it may not exist.",
)


def body(protocol: str, message: str, code: str = "") -> bytes:
    match protocol:
        case "anthropic-messages":
            error = {"type": "error", "error": {"type": "permission_error", "message": message}}
        case "gemini":
            error = {"error": {"code": 403, "status": "PERMISSION_DENIED", "message": message}}
        case _:
            error = {"error": {"message": message, "type": "invalid_request_error", "code": code or None}}
    return json.dumps(error).encode()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("message", KEYS_FAULT)
def test_a_403_about_the_key_is_the_keys_fault(protocol: str, message: str) -> None:
    fault = dialects.get(protocol).read_error(403, [], body(protocol, message))
    assert fault.kind in ("upstream_auth", "billing")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("kind", "message"), [*(("not_found", m) for m in MODELS), *(("permission", m) for m in REQUESTS)]
)
def test_a_403_about_what_was_asked_is_not(protocol: str, kind: str, message: str) -> None:
    fault = dialects.get(protocol).read_error(403, [], body(protocol, message))
    assert (fault.kind, fault.status_code) == (kind, 403)


@pytest.mark.parametrize("protocol", PROTOCOLS[:2])
def test_a_code_says_it_too(protocol: str) -> None:
    assert dialects.get(protocol).read_error(403, [], body(protocol, "No.", "model_not_found")).kind == "not_found"
