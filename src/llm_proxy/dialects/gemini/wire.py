"""Words of the Gemini protocol that readers and writers share: spellings, enumerations, usage, byte offsets.

JSON here is proto3 JSON: names may be written in camelCase or snake_case, enumerations in any case, bytes in
both base64 alphabets, 64-bit integers as text. Answers are written in camelCase with unset members left out.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from llm_proxy.conversation.answer import Stop, StopKind
from llm_proxy.conversation.fault import FaultError, bad_request
from llm_proxy.conversation.parts import Seal
from llm_proxy.conversation.usage import Usage
from llm_proxy.wire import json as wire_json
from llm_proxy.wire.faults import WireFault

NAME = "gemini"
# The documented stand-in for the signature of a call that another model made (Gemini 3).
SKIP_SIGNATURE = "skip_thought_signature_validator"
ENVELOPE = "gw1."
# SDKs decode the member as base64, so an envelope travels encoded; `gw1.` then begins like this.
ENCODED_ENVELOPE = "Z3cxL"

Object = dict[str, Any]

STOPS: dict[str, StopKind] = {
    "STOP": "end",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "LANGUAGE": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "MALFORMED_FUNCTION_CALL": "malformed_tool",
    "UNEXPECTED_TOOL_CALL": "malformed_tool",
    "TOO_MANY_TOOL_CALLS": "malformed_tool",
    "MISSING_THOUGHT_SIGNATURE": "malformed_tool",
    "MALFORMED_RESPONSE": "malformed_tool",
    "CONTINUATION": "pause",
}
_REASONS: dict[StopKind, str] = {
    "end": "STOP",
    "tool_use": "STOP",
    "stop_sequence": "STOP",
    "pause": "STOP",
    "unknown": "STOP",
    "length": "MAX_TOKENS",
    "context_full": "MAX_TOKENS",
    "content_filter": "SAFETY",
    "malformed_tool": "MALFORMED_FUNCTION_CALL",
}
_OWN_REASONS = frozenset(STOPS) | {"OTHER", "IMAGE_OTHER", "NO_IMAGE", "ESCALATION"}


@lru_cache(maxsize=4096)
def camel(name: str) -> str:
    """`inline_data` as `inlineData`; a name without an underscore inside is returned as it is."""
    head, *rest = name.split("_")
    if not head or not rest:
        return name
    return head + "".join(piece[:1].upper() + piece[1:] for piece in rest)


class Spelling:
    """Reads protocol objects in either spelling, and remembers what was not written in camelCase."""

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}

    def members(self, value: Any, path: str) -> Object:
        """The members of an object under camelCase names, without nulls. Raises FaultError if it is none."""
        if not isinstance(value, dict):
            raise wrong_type(path, "an object", value)
        out: Object = {}
        for name, member in value.items():
            if member is None:
                continue
            if "_" in name:
                plain = camel(name)
                if plain != name:
                    self.seen[plain] = name
                name = plain
            out[name] = member
        return out


# Members whose values belong to the user or to a tool: their names are never respelled.
_DATA = frozenset(
    (
        "args",
        "response",
        "parameters",
        "parametersJsonSchema",
        "responseSchema",
        "responseJsonSchema",
        "labels",
    )
)


def is_data(name: str) -> bool:
    """Does the member of this name hold what belongs to the user or to a tool?"""
    return name in _DATA


def camelled(value: Any) -> Any:
    """`value` with the protocol's names in camelCase, without nulls."""
    if isinstance(value, list):
        return [camelled(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {camel(name): member for name, member in value.items() if member is not None}
    return {name: member if is_data(name) else camelled(member) for name, member in found.items()}


def respelled(value: Any, spelling: Mapping[str, str]) -> Any:
    """`value` with the names that the client spelled differently written its way again."""
    if isinstance(value, list):
        return [respelled(item, spelling) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        spelling.get(name, name): member if is_data(name) else respelled(member, spelling)
        for name, member in value.items()
    }


def kind_name(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"


def wrong_type(path: str, expected: str, value: Any) -> FaultError:
    place = path or "the body"
    return bad_request(f"{place}: expected {expected}, got {kind_name(value)}", path)


def decode_body(body: wire_json.Body) -> Object:
    """A client's body as an object. Raises FaultError (bad_request)."""
    try:
        return wire_json.decode_object(body)
    except WireFault as fault:
        raise bad_request(str(fault)) from None


def integer(value: Any) -> int | None:
    """A count as proto3 JSON may write it (a number, or text for 64 bits); None when it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and len(value) < 20 and value.removeprefix("-").isdecimal() and value.isascii():
        return int(value)
    return None


def standard_base64(data: str) -> str:
    """Base64 text in the standard alphabet with padding; other protocols take no other."""
    if "-" in data or "_" in data:
        data = data.replace("-", "+").replace("_", "/")
    return data + "=" * (-len(data) % 4) if len(data) % 4 else data


def read_seal(value: Any, maker: str) -> Seal | None:
    """The seal of a `thoughtSignature`. An envelope of the proxy's is unpacked as far as its text."""
    if not isinstance(value, str) or not value:
        return None
    if value.startswith(ENCODED_ENVELOPE):
        try:
            text = base64.b64decode(standard_base64(value), validate=True)
            if text.startswith(ENVELOPE.encode()):
                value = text.decode("ascii")
        except (binascii.Error, ValueError):
            pass
    return Seal(origin=NAME, kind="thought", value=value, maker=maker)


def packed_signature(envelope: str) -> str:
    """An envelope as a `thoughtSignature` that SDKs can decode."""
    return base64.b64encode(envelope.encode()).decode()


def read_usage(raw: Object) -> Usage:
    """`usageMetadata`: tool prompts count as input, thoughts as output; what is not there is not said."""

    def count(name: str) -> int | None:
        value = integer(raw.get(name))
        return value if value is not None and value >= 0 else None

    prompt, tools = count("promptTokenCount"), count("toolUsePromptTokenCount")
    candidates, thoughts = count("candidatesTokenCount"), count("thoughtsTokenCount")
    output = None if candidates is None and thoughts is None else (candidates or 0) + (thoughts or 0)
    if output is None and prompt is not None:
        # A count of 0 is left out on the wire.
        output = 0
    return Usage(
        input=None if prompt is None else prompt + (tools or 0),
        output=output,
        cache_read=count("cachedContentTokenCount"),
        reasoning=thoughts,
        tool_prompt=tools,
        audio_input=_of_modality(raw.get("promptTokensDetails")),
        audio_output=_of_modality(raw.get("candidatesTokensDetails")),
        origin=NAME,
        raw=raw,
    )


def _of_modality(details: Any) -> int | None:
    for entry in details if isinstance(details, list) else ():
        if isinstance(entry, dict) and entry.get("modality") == "AUDIO":
            return integer(entry.get("tokenCount"))
    return None


def write_usage(usage: Usage | None, estimated_input: int) -> Object:
    """`usageMetadata` whose total is the sum of its parts."""
    if usage is None:
        usage = Usage(input=estimated_input, output=0)
    tools = usage.tool_prompt or 0
    reasoning = min(usage.reasoning or 0, usage.output or 0)
    whole = usage.input if usage.input is not None else estimated_input
    prompt = max(0, whole - tools)
    candidates = (usage.output or 0) - reasoning
    out: Object = {"promptTokenCount": prompt, "candidatesTokenCount": candidates}
    if usage.cache_read is not None:
        out["cachedContentTokenCount"] = usage.cache_read
    if usage.reasoning is not None:
        out["thoughtsTokenCount"] = reasoning
    if tools:
        out["toolUsePromptTokenCount"] = tools
    out["totalTokenCount"] = prompt + candidates + reasoning + tools
    if usage.origin == NAME and usage.raw is not None:
        details = {name: value for name, value in usage.raw.items() if not name.endswith("TokenCount")}
        out.update(details)
    return out


def read_stop(reason: str, detail: str, called: bool) -> Stop:
    """Gemini says STOP for calls, too: whether one was seen decides."""
    kind = STOPS.get(reason, "unknown")
    if called and kind in ("end", "unknown"):
        kind = "tool_use"
    return Stop(
        kind,
        raw=reason,
        detail="" if kind in ("end", "tool_use") else detail,
        category=reason.lower() if kind == "content_filter" else "",
    )


def write_reason(stop: Stop) -> str:
    if stop.raw in _OWN_REASONS and (STOPS.get(stop.raw) == stop.kind or stop.kind == "unknown"):
        return stop.raw
    return _REASONS[stop.kind]


class Offsets:
    """UTF-8 byte offsets of one text to code points and back; ASCII costs nothing."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._bytes = b"" if text.isascii() else text.encode("utf-8", "replace")

    def points(self, offset: int) -> int:
        """The code point at a byte offset, -1 outside of the text."""
        if not self._bytes:
            return offset if 0 <= offset <= len(self._text) else -1
        if not 0 <= offset <= len(self._bytes):
            return -1
        return len(self._bytes[:offset].decode("utf-8", "ignore"))

    def bytes(self, point: int) -> int:
        return point if not self._bytes else len(self._text[:point].encode("utf-8", "replace"))
