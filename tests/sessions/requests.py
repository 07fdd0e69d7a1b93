"""What the tests of sessions ask with: headers as a callable, openings read by the real dialects, recorded requests."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from llm_proxy import dialects
from llm_proxy.dialects.base import Opening
from tests.support.shared import ClientRequest, client_requests

KEY = b"a key of the tests"


def headers(values: Mapping[str, str] | None = None, **more: str) -> Callable[[str], str]:
    """Headers by lower-case name, as the edge gives them; keywords name them with `_` for `-`."""
    found = {name.lower(): value for name, value in (values or {}).items()}
    found.update({name.replace("_", "-"): value for name, value in more.items()})
    return lambda name: found.get(name, "")


def opening(dialect: str, body: Any) -> Opening:
    return dialects.get(dialect).read_opening(json.dumps(body).encode())


def chat(*messages: tuple[str, Any], **more: Any) -> Opening:
    written = [{"role": role, "content": content} for role, content in messages]
    return opening("openai-chat", {"model": "m", "messages": written, **more})


def functions(*names: str) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": name, "parameters": {}}} for name in names]


def recorded() -> dict[str, ClientRequest]:
    """The recorded generating requests by file name."""
    return {
        request.file: request for request in client_requests() if request.protocol and isinstance(request.body, dict)
    }


def headers_of(request: ClientRequest) -> Callable[[str], str]:
    first: dict[str, str] = {}
    for name, value in request.headers:
        first.setdefault(name.lower(), value)
    return lambda name: first.get(name, "")


def opening_of(request: ClientRequest) -> Opening:
    assert request.protocol is not None
    return opening(request.protocol, request.body)


def model_of(request: ClientRequest) -> str:
    named = request.body.get("model")
    return named if isinstance(named, str) else request.path.rsplit("/models/", 1)[-1].split(":")[0]
