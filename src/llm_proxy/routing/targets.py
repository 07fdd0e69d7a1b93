"""Reads a model name: which part names a back end and which part is the model (RT-01).

Pure text work on the set of known ids. Knows nothing of sessions, aliases or routes, which run before it.
"""

from __future__ import annotations

from collections.abc import Container

import msgspec

from llm_proxy.conversation.fault import bad_request

NAME_LIMIT = 512  # characters; RT-06


class Destination(msgspec.Struct, frozen=True):
    """A back end and a model. An empty member was not named."""

    backend: str
    model: str


def parse(name: str, known: Container[str], *, keep_slash: bool = False) -> Destination:
    """Split `name` at its first `:` or else its first `/`, if what stands left of it is in `known`
    (lower-case ids).

    `keep_slash`: a session back end is set, so `vendor/model` is the name of a model there.
    """
    for separator in ":" if keep_slash else ":/":
        left, found, right = name.partition(separator)
        if found and left.lower() in known:
            return Destination(left.lower(), right)
    return Destination("", name)


def check_name(name: str) -> None:
    """Refuse what can be no model name. Raises FaultError (400) naming the field `model`."""
    if len(name) > NAME_LIMIT:
        raise bad_request(f"The model name is longer than {NAME_LIMIT} characters.", "model")
    if any(not character.isprintable() for character in name):
        raise bad_request("The model name holds control characters.", "model")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise bad_request("The model name is not valid Unicode.", "model") from None
