"""Answers kept for repeated identical questions (OPS-15): in memory, bounded in time, number and bytes.

Owns which requests may be answered so, what makes two of them the same, what is kept, and how it is given again. A cache belongs to one
configuration, so that what changes answers for all empties it. Knows nothing of how an answer is made.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from llm_proxy.config.response_cache import ResponseCacheOptions
from llm_proxy.conversation.usage import Usage
from llm_proxy.server import stored_responses
from llm_proxy.wire import json as wire_json

if TYPE_CHECKING:
    from llm_proxy.routing.plan import Attempt
    from llm_proxy.server.exchange import Exchange
    from llm_proxy.server.http import Incoming
    from llm_proxy.server.preparing import Prepared

_ENTRY_OVERHEAD = 512  # bytes of an entry's own objects beside its body, rounded up
_OF_EACH_CALL = frozenset({"idempotency-key"})  # headers that differ although the question is the same
# What lets a provider do more than write: look something up, run something, or remember.
_TOOLS: Final = ("tools", "functions", "mcp_servers", "web_search_options", "container", "conversation", "background")
# An agent works in its directory: its answer is the smaller part of what it does.
_AGENTS: Final = frozenset({"gemini-cli-acp"})
_TEXTS: Final = frozenset(("message", "reasoning"))
"""Items of a response that do nothing but say something."""


class Kept(msgspec.Struct, frozen=True):
    """A complete answer as its client got it, ids and times included. `losses`: what the target could not take of the request."""

    body: bytes
    losses: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        return len(self.body) + sum(map(len, self.losses)) + _ENTRY_OVERHEAD


class ResponseCache:
    """Answers by key; what was not used for longest goes first. `ttl` in seconds of `clock`, counted from when the answer came."""

    def __init__(
        self, *, ttl: float, max_entries: int, max_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ttl = ttl
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[bytes, tuple[float, Kept]] = OrderedDict()
        self.bytes = 0
        """The size of all that is kept."""

    @classmethod
    def of(cls, options: ResponseCacheOptions) -> ResponseCache | None:
        """None where it is off."""
        if not options.enabled:
            return None
        return cls(ttl=options.ttl, max_entries=options.max_entries, max_bytes=options.max_bytes)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> Kept | None:
        found = self._entries.get(key)
        if found is None:
            return None
        until, kept = found
        if self._clock() >= until:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return kept

    def put(self, key: bytes, kept: Kept) -> None:
        """Keeps an answer; one that is larger than all room there is replaces nothing."""
        self._drop(key)
        if kept.size > self._max_bytes:
            return
        self._entries[key] = (self._clock() + self._ttl, kept)
        self.bytes += kept.size
        while len(self._entries) > self._max_entries or self.bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: bytes) -> None:
        found = self._entries.pop(key, None)
        if found is not None:
            self.bytes -= found[1].size


class Wishes(msgspec.Struct, frozen=True):
    """What the client says of caching: may its answer come from the cache, may it be kept."""

    read: bool = True
    write: bool = True

    @classmethod
    def of(cls, incoming: Incoming) -> Wishes:
        given = [value for name, value in incoming.headers if name == b"cache-control"]
        if not given:
            return cls()
        words = {word.partition(b"=")[0].strip().lower() for word in b",".join(given).split(b",")}
        return cls(read=not words & {b"no-cache", b"no-store"}, write=b"no-store" not in words)


class Lookup:
    """The question of one try: the answer that was kept for it, or the one that is to be kept."""

    def __init__(self, cache: ResponseCache, key: bytes, wishes: Wishes) -> None:
        self._cache = cache
        self._key = key
        self._wishes = wishes
        self.found = cache.get(key) if wishes.read else None
        self.answer = b""
        """The body that the client got, once it has one."""

    def keep(self, exchange: Exchange) -> None:
        """Keeps the answer of an exchange that went well. One that a room has cut or changed with a note of it is not the model's."""
        if not self._wishes.write or exchange.notes or exchange.cancelled or exchange.status != 200:
            return
        if self.answer and is_complete(exchange.client.name, self.answer):
            self._cache.put(self._key, Kept(self.answer, tuple(exchange.losses)))


def look_up(exchange: Exchange, attempt: Attempt, prepared: Prepared) -> Lookup | None:
    """None where there is no cache, or none for this question."""
    cache = exchange.gateway.response_cache
    if cache is None or not (key := key_of(exchange, attempt, prepared)):
        return None
    return Lookup(cache, key, Wishes.of(exchange.incoming))


async def deliver(exchange: Exchange, kept: Kept, prepared: Prepared) -> None:
    """Gives a kept answer once more, byte for byte. Nothing is called, so nothing is used and nothing costs."""
    exchange.cached = True
    exchange.losses = list(kept.losses)
    exchange.usage = Usage(input=0, output=0, cost=0.0)
    if exchange.tap is not None:
        exchange.tap.whole(exchange.client, kept.body)
    if exchange.client.name == "openai-responses":
        _build_on(exchange, kept, prepared)
    await exchange.answer_whole(kept.body)


def _build_on(exchange: Exchange, kept: Kept, prepared: Prepared) -> None:
    """A later request may continue this response, in this session too, and for as long as if it were new."""
    response = wire_json.decode_answer(kept.body)
    exchange.caller.note_response(str(response.get("id") or ""), exchange.session, exchange.conversation)
    if not prepared.verbatim:  # else the provider keeps it
        gateway, body = exchange.gateway, exchange.gateway.outgoing(exchange.client_body or exchange.body)
        ttl = gateway.limits.store_ttl
        stored_responses.keep(gateway.store, exchange.session.scope, body, response, None, ttl, exchange.fresh_id)


def key_of(exchange: Exchange, attempt: Attempt, prepared: Prepared) -> bytes:
    """What this question is known by; empty for one whose answer is never kept.

    The request counts as it goes to the target after all that changed it, and as the client sent it, since answers repeat parts of that;
    both without regard to spaces and the order of members. With it count the target, the client key's scope, the client's protocol, and what
    is set in the session, which may change answers.
    """
    if (
        exchange.stream
        or exchange.tools
        or exchange.command_lines
        or exchange.confirmation
        or exchange.more
        or exchange.spent is not None
        or attempt.redirect is not None
        or attempt.backend.type in _AGENTS
        or prepared.duties.copies > 1
        or b"emperature" not in prepared.body
    ):
        return b""
    sent = wire_json.decode_object(prepared.body)
    if not _settled(sent):
        return b""
    headers = sorted((name, value) for name, value in prepared.headers.items() if name.lower() not in _OF_EACH_CALL)
    session = exchange.session
    asked = exchange.body
    parts = (
        exchange.caller.scope.encode(),
        exchange.client.name.encode(),
        attempt.backend.id.encode(),
        attempt.model.encode(),
        exchange.requested_model.encode("utf-8", "surrogatepass"),
        prepared.dialect.name.encode(),
        _canonical(headers, b""),
        _canonical([session.agent, session.values], b""),
        _canonical(sent, prepared.body),
        b"" if asked == prepared.body else _canonical(wire_json.decode_object(asked), asked),
    )
    digest = hashlib.blake2b(digest_size=32)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def _settled(sent: Mapping[str, Any]) -> bool:
    """Does the request say that the answer is always the same one: temperature 0, one answer, nothing to call?"""
    settings: Mapping[str, Any] = sent
    for name in ("generationConfig", "generation_config"):
        if isinstance(config := sent.get(name), Mapping):
            settings = config
    temperature = settings.get("temperature")
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or temperature != 0:
        return False
    if any(settings.get(name) not in (None, 1) for name in ("n", "candidateCount", "candidate_count")):
        return False
    return not any(sent.get(name) for name in _TOOLS)


def _canonical(value: object, text: bytes) -> bytes:
    """The JSON of a value with its members in order; `text` as it is for a value that cannot be written so."""
    try:
        return msgspec.json.encode(value, order="sorted", enc_hook=repr)
    except (OverflowError, UnicodeError, msgspec.MsgspecError, TypeError):
        return b"\0" + (text or repr(value).encode("utf-8", "surrogatepass"))


def is_complete(protocol: str, body: bytes) -> bool:
    """Did the model itself end this answer, with words? One cut at a limit or by a filter, or that calls a tool, is not kept."""
    try:
        answer = wire_json.decode_answer(body.removeprefix(b"\xef\xbb\xbf"))
        match protocol:
            case "openai-chat":
                return [choice["finish_reason"] for choice in answer["choices"]] == ["stop"]
            case "openai-responses":
                return answer["status"] == "completed" and {item["type"] for item in answer["output"]} <= _TEXTS
            case "anthropic-messages":
                return answer["stop_reason"] in ("end_turn", "stop_sequence")
            case "gemini":
                [candidate] = answer["candidates"]
                parts = candidate["content"]["parts"]
                return candidate["finishReason"] == "STOP" and not any("functionCall" in part for part in parts)
    except (LookupError, TypeError, ValueError):
        pass
    return False
