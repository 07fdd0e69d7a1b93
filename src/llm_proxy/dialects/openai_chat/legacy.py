"""The two side paths that pass through: `/v1/completions` and `/v1/embeddings`. Only what routing and
accounting need of them.

Their bodies are sent on with `retarget` and relayed with the glancer of the chat protocol, whose frames they
share.
"""

from __future__ import annotations

import msgspec

from llm_proxy.conversation.usage import Usage
from llm_proxy.dialects.base import Head
from llm_proxy.dialects.openai_chat import usage
from llm_proxy.dialects.openai_chat.fields import Fields, missing, refused, wrong_type
from llm_proxy.wire.faults import JsonFault
from llm_proxy.wire.json import split_object


def read_completion_head(body: bytes) -> Head:
    """The head of a legacy completion request. Raises FaultError naming the field."""
    fields, members = _outline(body)
    prompt = members.get("prompt", b"null").strip()
    if prompt[:1] not in b'"[n':
        raise wrong_type("prompt", "a string or a list", msgspec.json.decode(prompt))
    return _head(fields, len(body))


def read_embedding_head(body: bytes) -> Head:
    """The head of an embedding request. Raises FaultError naming the field."""
    fields, members = _outline(body)
    given = members.get("input", b"null").strip()
    if given == b"null":
        raise missing("input")
    if given[:1] not in b'"[':
        raise wrong_type("input", "a string or a list", msgspec.json.decode(given))
    return _head(fields, len(body))


def read_usage(body: bytes) -> Usage | None:
    """The usage of a whole answer of either path."""
    return usage.read_usage(body)


def _outline(body: bytes) -> tuple[Fields, dict[str, bytes]]:
    try:
        members = split_object(body)
    except JsonFault as fault:
        raise refused(fault) from None
    wanted = ("model", "stream", "stream_options", "user")
    return Fields({name: msgspec.json.decode(members[name]) for name in wanted if name in members}), members


def _head(fields: Fields, size: int) -> Head:
    options = fields.object("stream_options")
    return Head(
        model=fields.text("model"),
        stream=fields.flag("stream") or False,
        size=size,
        include_usage=bool(options and options.flag("include_usage")),
        user=fields.text("user"),
    )
