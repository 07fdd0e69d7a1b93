"""Fetches and keeps the reasoning that clients cannot carry, in the value store, per client key and place in the conversation (FE-13)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from llm_proxy.conversation.parts import Part
from llm_proxy.conversation.request import Request
from llm_proxy.dialects.reasoning import Recall, Recollection, place_of, recollections, wanted_keys
from llm_proxy.store.protocols import ValueStore

_SPACE = "reasoning"
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Recollection)


def _scoped(scope: str, key: str) -> str:
    return f"{scope}\n{key}"


async def fetch(store: ValueStore, scope: str, request: Request) -> Recall:
    """What is remembered for the assistant turns of `request`, as a look-up by key."""
    keys = wanted_keys(request.messages)
    if not keys:
        return _nothing
    found = await store.get_many(_SPACE, [_scoped(scope, key) for key in keys])
    if not found:
        return _nothing
    memories = {key: _decoder.decode(value) for key in keys if (value := found.get(_scoped(scope, key)))}
    return memories.get


def _nothing(key: str) -> None:
    return None


def keep(store: ValueStore, scope: str, request: Request, parts: Iterable[Part], ttl: float) -> None:
    """Remembers the sealed reasoning of an answer to `request` that went to a client of another dialect."""
    for key, value in recollections(place_of(request.messages), parts).items():
        store.put(_SPACE, _scoped(scope, key), _encoder.encode(value), ttl)
