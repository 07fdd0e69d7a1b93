"""The OpenAPI description of every endpoint, made from the path table so that it cannot drift from it."""

from __future__ import annotations

from functools import cache
from typing import Any

from llm_proxy.server.paths import Operation, Route, known_paths

_SUMMARIES: dict[Operation, str] = {
    "generate": "Ask a model",
    "count": "Count the input tokens of a request",
    "models": "List models",
    "model": "Describe one model",
    "completions": "Legacy text completion",
    "embeddings": "Embed texts",
    "response": "Read or delete a kept response",
    "response-input": "List the input items of a kept response",
    "response-cancel": "Cancel a background response",
    "root": "Product, version and base URLs",
    "health": "Is the proxy alive (ready=1: does it take requests)",
    "info": "Service, version, endpoints, back ends",
    "docs": "This documentation",
    "redoc": "This documentation",
    "openapi": "This description as JSON",
    "usage-stats": "Token totals",
    "usage-recent": "Latest calls",
    "audit": "Audit log",
    "internal": "Operator pages",
}
_NAMES = {
    "openai-chat": "OpenAI Chat Completions",
    "openai-responses": "OpenAI Responses",
    "anthropic-messages": "Anthropic Messages",
    "gemini": "Gemini",
}
_PATTERNS: dict[str, Route] = {
    **{f"{v}/models/{{id}}": Route("model", "openai-chat", ("GET",)) for v in ("/v1", "/v2", "")},
    "/anthropic/v1/models/{id}": Route("model", "anthropic-messages", ("GET",)),
    "/v1beta/models/{model}": Route("model", "gemini", ("GET",)),
    **{
        f"{v}/models/{{model}}:{method}": Route("count" if method == "countTokens" else "generate", "gemini", ("POST",))
        for v in ("/v1beta", "/v1beta/v1beta", "/v1", "/v2", "")
        for method in ("generateContent", "streamGenerateContent", "countTokens")
    },
    **{f"{v}/responses/{{id}}": Route("response", "openai-responses", ("GET", "DELETE")) for v in ("/v1", "/v2", "")},
    **{
        f"{v}/responses/{{id}}/input_items": Route("response-input", "openai-responses", ("GET",))
        for v in ("/v1", "/v2", "")
    },
    **{
        f"{v}/responses/{{id}}/cancel": Route("response-cancel", "openai-responses", ("POST",))
        for v in ("/v1", "/v2", "")
    },
    "/internal/{page}": Route("internal", "openai-chat", ("GET",)),
}


@cache
def build(version: str, server: str) -> dict[str, Any]:
    """OpenAPI 3.1: every path of the main port with its methods."""
    paths: dict[str, Any] = {}
    for path, route in {**known_paths(), **_PATTERNS}.items():
        operations = paths.setdefault(path, {})
        for method in route.methods:
            if method != "HEAD":
                operations[method.lower()] = _operation(path, method, route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "LLM Interactive Proxy", "version": version, "license": {"name": "Apache-2.0"}},
        "servers": [{"url": server}] if server else [],
        "security": [{"bearer": []}, {"apiKey": []}, {"googleApiKey": []}],
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "googleApiKey": {"type": "apiKey", "in": "header", "name": "x-goog-api-key"},
            }
        },
        "paths": paths,
    }


def _operation(path: str, method: str, route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": _SUMMARIES[route.operation],
        "tags": [_NAMES[route.surface] if route.family != "service" else "Service"],
        "responses": {
            "200": {"description": "the answer, in the shape of the protocol"},
            "default": {"description": "an error in the shape of the protocol"},
        },
    }
    if parameters := [name for name in ("id", "model", "page") if f"{{{name}}}" in path]:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in parameters
        ]
    if method == "POST" and route.operation != "response-cancel":
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
    return operation
