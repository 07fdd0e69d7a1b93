"""Keys do not leave in prompts: what the proxy knows to be a secret, and what the operator's patterns find, is a mark for the provider (OPS-04).

Works on the JSON that is about to be sent, whatever protocol it is in, so that nothing which rooms, dialects or stores put into it is
missed. Knows which members are texts and which are the protocol's own words, media or sealed; what is known is the redactor's business.
Where nothing is found the bytes stay the very same.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any, Final

import re2  # type: ignore[import-untyped]  # it brings no stubs

from llm_proxy.config.options import ChatKey, OptionGroup, option
from llm_proxy.features import Feature
from llm_proxy.features.edit_failures import complaint
from llm_proxy.wire import json as wire_json
from llm_proxy.wire.faults import JsonFault
from llm_proxy.wire.redaction import Redactor, cut_out, united

_LOG = logging.getLogger(__name__)

MARK: Final = "(API_KEY_HAS_BEEN_REDACTED)"
_MARK: Final = MARK.encode()
_SHORTEST: Final = 8
_WORDS: Final = {"type", "role", "object", "status", "phase", "model", "name", "format", "detail", "id", "call_id"} | {
    *(
        "tool_call_id",
        "tool_use_id",
        "previous_response_id",
        "item_id",
        "file_id",
        "fileId",
        "media_type",
        "mimeType",
        "mime_type",
    )
}
"""Members that hold names and the protocol's own words: another value would be another request, or none."""
_SEALED: Final = frozenset(("signature", "thoughtSignature", "thought_signature", "encrypted_content"))
_FREE: Final = frozenset(("input", "args", "response", "arguments", "metadata", "parameters", "input_schema", "schema"))
"""Members whose objects are the client's own: there `name` and `type` are texts like any other."""


class RedactionOptions(OptionGroup, path="redaction", title="Redaction"):
    redact_api_keys_in_prompts: bool = option(
        True,
        at="redact_api_keys_in_prompts",
        aliases=("auth.redact_api_keys_in_prompts",),
        env="REDACT_API_KEYS_IN_PROMPTS",
        switch="redact-api-keys-in-prompts",
        chat=ChatKey("redact-api-keys-in-prompts", "process"),
        help="replace keys that the proxy knows in what is sent to providers; logs and captures never show them",
    )
    patterns: tuple[str, ...] = option(
        (),
        item="regular expressions",
        check=complaint,
        help="regular expressions of further secrets that are replaced in what is sent to providers",
    )


class PromptRedaction(Feature):
    """`outgoing` is asked for every body that goes to a provider, after all rooms."""

    name = "prompt redaction"

    def __init__(self, options: RedactionOptions, redactor: Redactor) -> None:
        self._redactor = redactor
        self._patterns = tuple(_compiled(pattern) for pattern in options.patterns)

    def outgoing(self, body: bytes) -> bytes:
        """`body` without secrets; the very object when there are none. What is no JSON object is left to whoever reads it."""
        if not self._patterns and not self._redactor.suspects(body):
            return body
        try:
            read = wire_json.decode_object(body)
            wanted = self._object(read, False)
            made = wire_json.rewrite(body, read, wanted)
            return self._without_twins(made, wanted) if self._redactor.suspects(made) else made
        except JsonFault:
            return body

    def _without_twins(self, made: bytes, wanted: dict[str, Any]) -> bytes:
        """Of a member that stands twice only the last is read; what the first holds goes nowhere if it holds a secret."""
        single = wire_json.encode(wanted)
        return single if len(self._redactor.known_spans(single)) < len(self._redactor.known_spans(made)) else made

    def _object(self, members: dict[str, Any], free: bool) -> dict[str, Any]:
        """What nothing was found in is the very same object, here and below: so the difference is found quickly."""
        changed: dict[str, Any] = {}
        for name, value in members.items():
            new: Any = value
            if isinstance(value, str):
                new = value if _is_word(name, members, free) else self._text(value)
            elif isinstance(value, dict):
                new = self._object(value, free or name in _FREE)
            elif isinstance(value, list):
                new = self._list(value, free)
            if new is not value:
                changed[name] = new
        result = {**members, **changed} if changed else members
        if free and any(self._text(name) is not name for name in members):
            return {self._text(name): value for name, value in result.items()}
        return result

    def _list(self, items: list[Any], free: bool) -> list[Any]:
        """Texts that stand one after another are read as one: a secret may begin in one part and end in the next."""
        made: list[Any] = []
        for are_texts, group in groupby(items, _is_text_part):
            members = list(group)
            if are_texts:
                texts = self._texts([part["text"] for part in members])
                members = [
                    part if text is part["text"] else {**part, "text": text}
                    for part, text in zip(members, texts, strict=True)
                ]
            made += [self._member(member, free) for member in members]
        return items if all(map(operator.is_, made, items)) else made

    def _member(self, value: Any, free: bool) -> Any:
        match value:
            case str():
                return self._text(value)
            case dict():
                return self._object(value, free)
            case list():
                return self._list(value, free)
            case _:
                return value

    def _text(self, text: str) -> str:
        return text if len(text) < _SHORTEST and not self._patterns else self._texts([text])[0]

    def _texts(self, texts: Sequence[str]) -> Sequence[str]:
        pieces = [text.encode("utf-8", "surrogatepass") for text in texts]
        data = b"".join(pieces)
        found = self._redactor.known_spans(data)
        for pattern in self._patterns:
            found += [match.span() for match in pattern.finditer(data)]
        if not found:
            return texts
        marked = _marked(pieces, united(found))
        return [
            text if new == old else new.decode("utf-8", "surrogatepass")
            for text, old, new in zip(texts, pieces, marked, strict=True)
        ]


def tell_of_switch(before: RedactionOptions, now: RedactionOptions) -> None:
    """Whoever reads the log learns that keys may leave now, or that they do not any more."""
    if before.redact_api_keys_in_prompts and not now.redact_api_keys_in_prompts:
        _LOG.warning("keys in prompts go to providers as they are from now on: redact_api_keys_in_prompts is false")
    elif now.redact_api_keys_in_prompts and not before.redact_api_keys_in_prompts:
        _LOG.info("keys in prompts are redacted again: redact_api_keys_in_prompts is true")


def _marked(pieces: Sequence[bytes], spans: Sequence[tuple[int, int]]) -> list[bytes]:
    """The pieces of a text without what `spans` cover: the mark stands where each begins, and alone in a piece that would be empty."""
    marked, begin, first = [], 0, 0
    for piece in pieces:
        end = begin + len(piece)
        while first < len(spans) and spans[first][1] <= begin:
            first += 1
        here, at = [], first
        while at < len(spans) and spans[at][0] < end:
            here.append((max(spans[at][0], begin) - begin, min(spans[at][1], end) - begin))
            at += 1
        started_before = bool(here) and spans[first][0] < begin
        kept = piece
        if started_before:
            kept, cut = piece[here[0][1] :], here[0][1]
            here = [(start - cut, stop - cut) for start, stop in here[1:]]
        kept = cut_out(kept, here, _MARK)
        marked.append(kept if kept or not piece else _MARK)
        begin = end
    return marked


def _is_text_part(item: object) -> bool:
    return isinstance(item, dict) and isinstance(item.get("text"), str) and not _is_signed("text", item)


def _is_signed(name: str, members: dict[str, Any]) -> bool:
    """Is the text `name` reasoning under its provider's seal? That one wrote it and refuses it changed."""
    if not _SEALED & members.keys():
        return False
    thought = members.get("thought") is True or str(members.get("type")).startswith("reasoning")
    return name == "thinking" or (name == "text" and thought)


def _is_word(name: str, members: dict[str, Any], free: bool) -> bool:
    """Is the text `name` of an object something other than text: a word of the protocol, media, or what its provider has signed?"""
    value = members[name]
    if value.startswith("data:") and ";base64," in value[:200]:
        return True
    if free:
        return False
    if name in _WORDS or name in _SEALED or _is_signed(name, members):
        return True
    if name == "data":  # a document in plain text says so
        return members.get("type") != "text" and (
            members.get("type") in ("base64", "redacted_thinking")
            or bool({"media_type", "mimeType", "mime_type", "format"} & members.keys())
        )
    return False


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    """Bytes are searched, so that places in them are found; the pattern is of characters all the same."""
    options = re2.Options()
    options.never_capture = True
    options.log_errors = False
    return re2.compile(pattern, options)
