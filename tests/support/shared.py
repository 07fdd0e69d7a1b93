"""Recorded exchanges, client requests and translation cases, and the project's own hand-made exchanges.

Owns where this material lies and its shape. The recorded part lies outside the project, in a folder `shared`
beside the checkout (or at `LLM_PROXY_SHARED`), and may be missing; the hand-made part is always there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, cast

import pytest

Protocol = Literal["openai-chat", "openai-responses", "anthropic-messages", "gemini"]
PROTOCOLS: Final[tuple[Protocol, ...]] = ("openai-chat", "openai-responses", "anthropic-messages", "gemini")
GENERATING: Final = frozenset(
    {"chat.completions", "responses.create", "messages", "generateContent", "streamGenerateContent"}
)

_REPOSITORY: Final = Path(__file__).resolve().parents[2]
OWN: Final = _REPOSITORY / "tests" / "fixtures" / "exchanges"


def _find_shared() -> Path | None:
    named = os.environ.get("LLM_PROXY_SHARED")
    folder = Path(named) if named else _REPOSITORY.parent / "shared"
    return folder if (folder / "recordings").is_dir() else None


SHARED: Final[Path | None] = _find_shared()
WHY_SKIPPED: Final = "the recorded exchanges are not here (folder 'shared' beside the checkout, or LLM_PROXY_SHARED)"
needs_shared: Final = pytest.mark.skipif(SHARED is None, reason=WHY_SKIPPED)


@dataclass(frozen=True)
class RecordedRequest:
    """What the client sent. `body` is None where only the answer was published."""

    method: str
    path: str
    query: Mapping[str, Any]
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class RecordedResponse:
    """What the provider answered: exactly one of `body` (JSON), `sse` (raw event stream) and `text`."""

    status: int
    headers: Mapping[str, str]
    body: Any
    sse: str | None
    text: str | None

    @property
    def payload(self) -> bytes:
        """The bytes of the answer; JSON is written compactly, as no provider's spacing was kept."""
        if self.sse is not None:
            return self.sse.encode()
        if self.text is not None:
            return self.text.encode()
        return json.dumps(self.body, ensure_ascii=False, separators=(",", ":")).encode()

    @property
    def is_json_array(self) -> bool:
        """A Gemini stream asked for without `alt=sse`: one JSON array of chunks."""
        return self.sse is None and isinstance(self.body, list) and bool(self.body)

    @property
    def payload_as_sse(self) -> bytes:
        """The chunks of a JSON array as the event stream that the same provider sends for `alt=sse`."""
        if not self.is_json_array:
            return self.payload
        return b"".join(
            b"data: " + json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode() + b"\r\n\r\n"
            for chunk in self.body
        )


@dataclass(frozen=True)
class Exchange:
    """One request and its answer. `file` is relative to its folder and names it in `semantics`."""

    file: str
    id: str
    group: str
    seq: int
    group_size: int
    protocol: Protocol
    endpoint: str
    provider: str
    kinds: tuple[str, ...]
    stream: bool
    recorded: bool
    request: RecordedRequest
    response: RecordedResponse
    sdk_accepts: bool
    sdk_error: str | None
    grammar_notes: tuple[str, ...]
    own: bool

    @property
    def generates(self) -> bool:
        """Whether this is a call for an answer, as opposed to counting, embedding or listing."""
        return self.endpoint in GENERATING

    @property
    def model(self) -> str:
        """The model asked for; Gemini names it in the path."""
        body = self.request.body
        if isinstance(body, dict) and isinstance(body.get("model"), str):
            return cast(str, body["model"])
        if "/models/" in self.request.path:
            return self.request.path.rsplit("/models/", 1)[1].rsplit(":", 1)[0]
        return "some-model"

    def __str__(self) -> str:
        return self.file


@dataclass(frozen=True)
class ClientRequest:
    """One request of a real client, as it was sent. `protocol` is None when it asks for no answer."""

    file: str
    client: str
    protocol: Protocol | None
    scenario: str
    turn: int
    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: Any

    def __str__(self) -> str:
        return self.file


@dataclass(frozen=True)
class Case:
    """One translation case: `input` for requests, `upstream` for answers, both judged by `expect` and
    `semantic`.
    """

    id: str
    number: int | None
    kind: Literal["request", "stream", "response"]
    front: Protocol
    back: Protocol
    back_model: str | None
    capabilities: Mapping[str, Any]
    front_options: Mapping[str, Any]
    status: int
    input: Any
    upstream: Any
    semantic: Mapping[str, Any]
    expect: tuple[Mapping[str, Any], ...]
    note: str

    def __str__(self) -> str:
        return self.id


def _read_exchange(folder: Path, path: Path, *, own: bool) -> Exchange:
    raw = json.loads(path.read_bytes())
    request, response = raw["request"], raw["response"]
    return Exchange(
        file=path.relative_to(folder).as_posix(),
        id=raw["id"],
        group=raw["group"],
        seq=raw["seq"],
        group_size=raw["group_size"],
        protocol=raw["protocol"],
        endpoint=raw["endpoint"],
        provider=raw["provider"],
        kinds=tuple(raw["kinds"]),
        stream=raw["stream"],
        recorded=raw["recorded"],
        request=RecordedRequest(
            method=request["method"],
            path=request["path"],
            query=request["query"],
            headers=request["headers"],
            body=request["body"],
        ),
        response=RecordedResponse(
            status=response["status"],
            headers=response["headers"],
            body=response.get("body"),
            sse=response.get("sse"),
            text=response.get("text"),
        ),
        sdk_accepts=raw.get("sdk_accepts", True),
        sdk_error=raw.get("sdk_error"),
        grammar_notes=tuple(raw.get("grammar_notes", ())),
        own=own,
    )


@cache
def recordings() -> tuple[Exchange, ...]:
    """The recorded exchanges of all four protocols; empty when they are not here."""
    if SHARED is None:
        return ()
    folder = SHARED / "recordings"
    return tuple(_read_exchange(folder, path, own=False) for path in sorted(folder.glob("*/*.json")))


@cache
def own_exchanges() -> tuple[Exchange, ...]:
    """The project's hand-made exchanges, one file each, named PROTOCOL.KIND.{json|stream}.json."""
    return tuple(_read_exchange(OWN, path, own=True) for path in sorted(OWN.glob("*.json")))


def exchanges() -> tuple[Exchange, ...]:
    """Everything there is: the recorded exchanges where present, and always the project's own."""
    return own_exchanges() + recordings()


def generating_exchanges() -> tuple[Exchange, ...]:
    """The exchanges that ask for an answer of a model."""
    return tuple(exchange for exchange in exchanges() if exchange.generates)


def _read_semantics(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        return {}
    # Only "\n" ends a line of JSON; str.splitlines would also break at U+2028 inside a text.
    lines = path.read_text(encoding="utf-8").split("\n")
    return {entry["file"]: entry for entry in (json.loads(line) for line in lines if line)}


@cache
def semantics() -> Mapping[str, Mapping[str, Any]]:
    """What the official SDK of its own protocol read from each exchange: file -> {semantic, accepted, …}."""
    recorded = {} if SHARED is None else _read_semantics(SHARED / "recordings" / "semantics.jsonl")
    return {**_read_semantics(OWN / "semantics.jsonl"), **recorded}


_CLIENT_PROTOCOLS: Final[Mapping[str, Protocol]] = {
    "chat": "openai-chat",
    "responses": "openai-responses",
    "anthropic": "anthropic-messages",
    "gemini": "gemini",
}


@cache
def client_requests() -> tuple[ClientRequest, ...]:
    """The recorded requests of real clients; empty when they are not here."""
    if SHARED is None:
        return ()
    folder = SHARED / "client-requests"
    found = []
    for path in sorted(folder.glob("*/*.json")):
        raw = json.loads(path.read_bytes())
        found.append(
            ClientRequest(
                file=path.relative_to(folder).as_posix(),
                client=raw["client"],
                protocol=_CLIENT_PROTOCOLS.get(raw["protocol"]),
                scenario=raw["scenario"],
                turn=raw["turn"],
                method=raw["method"],
                path=raw["path"],
                headers=tuple((name, value) for name, value in raw["headers"]),
                body=raw["body"],
            )
        )
    return tuple(found)


@cache
def cases() -> tuple[Case, ...]:
    """The concrete translation cases; empty when they are not here."""
    if SHARED is None:
        return ()
    raw = json.loads((SHARED / "protocols" / "cases.json").read_bytes())
    return tuple(
        Case(
            id=case["id"],
            number=case.get("case"),
            kind=case["kind"],
            front=case["front"],
            back=case["back"],
            back_model=case.get("back_model"),
            capabilities=case.get("capabilities", {}),
            front_options=case.get("front_options", {}),
            status=case.get("status", 200),
            input=case.get("input"),
            upstream=case.get("upstream"),
            semantic=case.get("semantic", {}),
            expect=tuple(case["expect"]),
            note=case.get("note", ""),
        )
        for case in raw["cases"]
    )
