"""Captured calls as an HTTP archive, HAR 1.2 (the format of W3C's Web Performance group, http://www.softwareishard.com/blog/har-12-spec/).

What the capture does not know is given as the format wants it: -1 for sizes and times, empty lists for cookies and query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import msgspec

from llm_proxy import __version__
from llm_proxy.cli.capture import meaning
from llm_proxy.cli.capture.exchanges import Exchange
from llm_proxy.store.capture.reading import Line

_UNKNOWN = -1


def archive(exchanges: Sequence[Exchange]) -> bytes:
    """JSON in UTF-8."""
    log = {
        "version": "1.2",
        "creator": {"name": "llm-proxy", "version": __version__},
        "entries": [_entry(exchange) for exchange in exchanges],
    }
    return msgspec.json.format(msgspec.json.encode({"log": log}), indent=1)


def _entry(exchange: Exchange) -> dict[str, Any]:
    duration = exchange.duration if exchange.duration is not None else 0
    wait = exchange.first if exchange.first is not None else duration
    return {
        "startedDateTime": datetime.fromtimestamp(exchange.time, UTC).isoformat(timespec="milliseconds"),
        "time": duration,
        "request": _request(exchange),
        "response": _response(exchange),
        "cache": {},
        "timings": {"send": 0, "wait": wait, "receive": max(0, duration - wait)},
        "comment": f"{exchange.target}, session {exchange.session}, {exchange.request_id} attempt {exchange.attempt}",
    }


def _request(exchange: Exchange) -> dict[str, Any]:
    line = _line(exchange, "outbound_request")
    url = exchange.destination
    text = meaning.data_of(line).decode(errors="replace") if line is not None else ""
    return {
        "method": "POST",
        "url": url if "://" in url else f"http://llm-proxy.invalid/{url}",
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": [{"name": "content-type", "value": "application/json"}],
        "queryString": [],
        "postData": {"mimeType": "application/json", "text": text},
        "headersSize": _UNKNOWN,
        "bodySize": exchange.sent,
    }


def _response(exchange: Exchange) -> dict[str, Any]:
    headers = _headers(exchange)
    content: dict[str, Any] = {"size": exchange.received, "mimeType": headers.get("content-type", "x-unknown")}
    line = _line(exchange, "inbound_response")
    if exchange.streamed:
        pieces = [meaning.data_of(one) for one in exchange.lines if one.direction == "stream_chunk"]
        end = _line(exchange, "stream_end")
        rest = end.value.get("rest", "") if end is not None else ""
        content["text"] = b"".join(pieces).decode(errors="replace") + rest
    elif line is not None and line.content_type == "bytes":
        content["text"], content["encoding"] = line.value.partition(":")[2], "base64"
    elif line is not None and exchange.status:
        content["text"] = meaning.data_of(line).decode(errors="replace")
    response = {
        "status": exchange.status or 0,
        "statusText": _phrase(exchange.status),
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": [{"name": name, "value": value} for name, value in headers.items()],
        "content": content,
        "redirectURL": "",
        "headersSize": _UNKNOWN,
        "bodySize": exchange.received,
    }
    return response | ({"comment": exchange.failure} if exchange.failure else {})


def _headers(exchange: Exchange) -> Mapping[str, str]:
    if (line := _line(exchange, "stream_start")) is not None:
        found = line.value.get("headers")
    elif (line := _line(exchange, "inbound_response")) is not None:
        found = line.metadata.get("headers")
    else:
        found = None
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def _line(exchange: Exchange, direction: str) -> Line | None:
    return next((line for line in exchange.lines if line.direction == direction), None)


def _phrase(status: int | None) -> str:
    try:
        return HTTPStatus(status or 0).phrase
    except ValueError:
        return ""
