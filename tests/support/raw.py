"""A client without an SDK: sends a body as it is and gives back the bytes of the answer."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from tests.support import sdk
from tests.support.proxy import KEY, Proxy
from tests.support.shared import Protocol


@dataclass(frozen=True)
class RawAnswer:
    """Status, headers by lower-case name, and the bytes of the body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


def path_of(protocol: Protocol, model: str, stream: bool) -> str:
    """Where a request of `protocol` goes; Gemini's names model and method."""
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    return {
        "openai-chat": "/v1/chat/completions",
        "openai-responses": "/v1/responses",
        "anthropic-messages": "/anthropic/v1/messages",
        "gemini": f"/v1beta/models/{quote(model, safe='')}:{method}",
    }[protocol]


def post(proxy: Proxy, path: str, body: bytes) -> RawAnswer:
    """One request on a connection of its own."""
    address = urlsplit(proxy.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    try:
        connection.request("POST", path, body, {"content-type": "application/json", "authorization": f"Bearer {KEY}"})
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return RawAnswer(response.status, headers, response.read())
    finally:
        connection.close()


def ask_minimal(proxy: Proxy, protocol: Protocol, model: str, stream: bool) -> RawAnswer:
    """The fixed minimal request of `sdk.minimal_body`."""
    body = sdk.minimal_body(protocol, model, stream)
    if protocol != "gemini":
        body["stream"] = stream
    return post(proxy, path_of(protocol, model, stream), msgspec.json.encode(body))
