"""Which endpoint a path means (FE-01). Pure: a path and a method in, a `Route` out; no request is looked at.

Repeated slashes and a trailing slash are tolerated, and a doubled version prefix. Gemini's `:method` endings win over model lists.
"""

from __future__ import annotations

import difflib
import re
from typing import Literal
from urllib.parse import unquote

import msgspec

Surface = Literal["openai-chat", "openai-responses", "anthropic-messages", "gemini"]
Operation = Literal[
    "generate", "count", "models", "model", "completions", "embeddings", "response", "response-input", "response-cancel",
    "root", "health", "info", "docs", "redoc", "openapi", "usage-stats", "usage-recent", "audit", "internal",
]  # fmt: skip


class Route(msgspec.Struct, frozen=True):
    """`surface` is the protocol of answers and errors. `name` is the model, response id or internal page in the path.

    `stream` is given by Gemini's method; `array` says that Gemini wants no SSE.
    """

    operation: Operation
    surface: Surface
    methods: tuple[str, ...]
    name: str = ""
    stream: bool = False
    family: Literal["openai", "anthropic", "gemini", "service"] = "openai"


class NoRoute(msgspec.Struct, frozen=True):
    """No such path; `nearest` are valid ones that look like it."""

    surface: Surface
    nearest: tuple[str, ...]


_GET = ("GET", "HEAD")
_POST = ("POST",)
_VERSIONS = ("/v1", "/v2", "")

_FIXED: dict[str, Route] = {}


def _add(paths: list[str], route: Route) -> None:
    for path in paths:
        _FIXED[path] = route


_add([f"{v}/chat/completions" for v in (*_VERSIONS, "/v1/v1")], Route("generate", "openai-chat", _POST))
_add([f"{v}/responses" for v in (*_VERSIONS, "/v1/v1")], Route("generate", "openai-responses", _POST))
_add([f"{v}/responses/input_tokens" for v in (*_VERSIONS, "/v1/v1")], Route("count", "openai-responses", _POST))
_add([f"{v}/completions" for v in (*_VERSIONS, "/v1/v1")], Route("completions", "openai-chat", _POST))
_add([f"{v}/embeddings" for v in (*_VERSIONS, "/v1/v1")], Route("embeddings", "openai-chat", _POST))
_add([f"{v}/models" for v in (*_VERSIONS, "/v1/v1")], Route("models", "openai-chat", _GET))
_ANTHROPIC = ("/anthropic/v1", "/anthropic/v1/v1", "/anthropic", "/v1", "/v2", "/v1/v1")
_add([f"{p}/messages" for p in _ANTHROPIC], Route("generate", "anthropic-messages", _POST, family="anthropic"))
_add(
    [f"{p}/messages/count_tokens" for p in _ANTHROPIC], Route("count", "anthropic-messages", _POST, family="anthropic")
)
_add(
    [f"{p}/models" for p in ("/anthropic/v1", "/anthropic/v1/v1", "/anthropic")],
    Route("models", "anthropic-messages", _GET, family="anthropic"),
)
_add(["/anthropic/v1/health", "/anthropic/health"], Route("health", "anthropic-messages", _GET, family="anthropic"))
_add(["/anthropic/v1/info", "/anthropic/info"], Route("info", "anthropic-messages", _GET, family="anthropic"))
_add(
    ["/v1beta/models", "/v1beta/v1beta/models", "/v1beta/v1/models", "/v2/models/list", "/v1alpha/models"],
    Route("models", "gemini", _GET, family="gemini"),
)
_add(["/"], Route("root", "openai-chat", _GET, family="service"))
_add(["/health", "/internal/health"], Route("health", "openai-chat", _GET, family="service"))
_add(["/docs"], Route("docs", "openai-chat", _GET, family="service"))
_add(["/redoc"], Route("redoc", "openai-chat", _GET, family="service"))
_add(["/openapi.json"], Route("openapi", "openai-chat", _GET, family="service"))
for _v in _VERSIONS:
    _add([f"{_v}/usage/stats"], Route("usage-stats", "openai-chat", _GET, family="service"))
    _add([f"{_v}/usage/recent"], Route("usage-recent", "openai-chat", _GET, family="service"))
    _add([f"{_v}/audit/logs"], Route("audit", "openai-chat", _GET, family="service"))

# The dedicated Anthropic port serves the same without a prefix (FE-06).
_PORT: dict[str, Route] = {
    **{f"{p}/messages": _FIXED["/v1/messages"] for p in ("", *_ANTHROPIC)},
    **{f"{p}/messages/count_tokens": _FIXED["/v1/messages/count_tokens"] for p in ("", *_ANTHROPIC)},
    **{f"{p}/models": _FIXED["/anthropic/models"] for p in ("", "/v1", "/v1/v1", "/anthropic", "/anthropic/v1")},
    **{
        path: _FIXED["/anthropic/health"]
        for path in ("/health", "/v1/health", "/anthropic/health", "/anthropic/v1/health")
    },
    **{path: _FIXED["/anthropic/info"] for path in ("/info", "/v1/info", "/anthropic/info", "/anthropic/v1/info")},
    "/": Route("root", "anthropic-messages", _GET, family="anthropic"),
}

_GEMINI = re.compile(r"(?:/v1beta|/v1alpha|/v1|/v2)*/(?:models|tunedModels)/(?P<model>.+):(?P<method>[A-Za-z]+)\Z")
_GEMINI_METHODS = {
    "generateContent": ("generate", False),
    "streamGenerateContent": ("generate", True),
    "countTokens": ("count", False),
}
_MODEL = re.compile(r"(?P<prefix>(?:/v1beta|/v1alpha|/v1|/v2|/anthropic)*)/models/(?P<model>.+)\Z")
_RESPONSE = re.compile(r"(?:/v1|/v2)*/responses/(?P<id>[^/]+)(?P<rest>/input_items|/cancel)?\Z")
_INTERNAL = re.compile(r"/internal/(?P<page>[a-z]+(?:/[^/]+)?)\Z")
_SLASHES = re.compile(r"/{2,}")


def resolve(path: str, anthropic_port: bool = False) -> Route | NoRoute:
    """The route of `path` (percent-encoding still in place, as it came)."""
    table = _PORT if anthropic_port else _FIXED
    route = table.get(path)
    if route is not None:
        return route
    plain = _SLASHES.sub("/", path)
    if len(plain) > 1 and plain.endswith("/"):
        plain = plain[:-1]
    route = table.get(plain)
    if route is not None:
        return route
    return _patterned(plain, anthropic_port) or NoRoute(_surface(plain, anthropic_port), _nearest(plain, table))


def model_of_path(text: str) -> str:
    """The model of a Gemini path that is decoded already: clients that write `models/` themselves get it once too often (RT-01)."""
    return text.removeprefix("models/")


def _patterned(path: str, anthropic_port: bool) -> Route | NoRoute | None:
    if (match := _GEMINI.match(unquote(path))) and not anthropic_port:
        method = _GEMINI_METHODS.get(match["method"])
        if method is not None:
            operation, stream = method
            name = model_of_path(match["model"])
            if operation == "generate":
                return Route("generate", "gemini", _POST, name=name, stream=stream, family="gemini")
            return Route("count", "gemini", _POST, name=name, family="gemini")
        if near := difflib.get_close_matches(match["method"], _GEMINI_METHODS, n=1):
            return NoRoute("gemini", (path.rpartition(":")[0] + ":" + near[0],))
    if match := _MODEL.match(path):
        name, prefix = unquote(match["model"]), match["prefix"]
        if anthropic_port or "/anthropic" in prefix:
            return Route("model", "anthropic-messages", _GET, name=name, family="anthropic")
        if "beta" in prefix or "alpha" in prefix:
            return Route("model", "gemini", _GET, name=name, family="gemini")
        return Route("model", "openai-chat", _GET, name=name)
    if anthropic_port:
        return None
    if match := _RESPONSE.match(path):
        name = unquote(match["id"])
        match match["rest"]:
            case "/input_items":
                return Route("response-input", "openai-responses", _GET, name=name)
            case "/cancel":
                return Route("response-cancel", "openai-responses", _POST, name=name)
            case _:
                return Route("response", "openai-responses", ("GET", "DELETE"), name=name)
    if match := _INTERNAL.match(path):
        return Route("internal", "openai-chat", ("GET", "HEAD", "DELETE", "POST"), name=match["page"], family="service")
    return None


def _surface(path: str, anthropic_port: bool) -> Surface:
    """Whose error shape an unknown path gets: that of the family it begins with."""
    if anthropic_port or path.startswith("/anthropic") or "/messages" in path:
        return "anthropic-messages"
    if path.startswith(("/v1beta", "/v1alpha")) or _GEMINI.match(path):
        return "gemini"
    if "/responses" in path:
        return "openai-responses"
    return "openai-chat"


def _nearest(path: str, table: dict[str, Route]) -> tuple[str, ...]:
    return tuple(difflib.get_close_matches(path[:200], table, n=3, cutoff=0.6))


def known_paths() -> dict[str, Route]:
    """Every fixed path of the main port."""
    return dict(_FIXED)
