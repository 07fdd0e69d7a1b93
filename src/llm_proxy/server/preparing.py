"""The request of one attempt: what the rooms make of it, written for the target, or the client's own bytes where nobody touched them.

Owns which way a body goes: as it came, with the differences laid over it, or written anew in another dialect. Makes no call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from llm_proxy import dialects
from llm_proxy.conversation.fault import FaultError, bad_request
from llm_proxy.conversation.request import Request
from llm_proxy.dialects.base import NO_DUTIES, Dialect, Duties, Target
from llm_proxy.dialects.capabilities import Capabilities
from llm_proxy.dialects.media_types import refuse_unknown_media
from llm_proxy.dialects.reasoning import has_traces, restore, unwrapped
from llm_proxy.routing.plan import Attempt
from llm_proxy.server import recall, stored_responses
from llm_proxy.server.http import protocol_headers
from llm_proxy.wire import json as wire_json

if TYPE_CHECKING:
    from llm_proxy.server.exchange import Exchange

_MOST_COPIES = 16  # each is billed
_REDACTED = "prompt redaction"


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt's request as it goes out. `verbatim`: the answer may be relayed byte for byte."""

    dialect: Dialect
    body: bytes
    headers: dict[str, str]
    duties: Duties
    verbatim: bool
    maker: str
    shown_model: str = ""
    """The model that answers shall name; empty for what the provider says."""


async def prepare(exchange: Exchange, attempt: Attempt) -> Prepared:
    """The request of one attempt, written for its target. Raises FaultError for what cannot be written."""
    backend = attempt.backend
    upstream = dialects.get(backend.dialect_for(exchange.client.name, attempt.redirect))
    target = Target(
        model=attempt.model,
        capabilities=backend.capabilities(attempt.model, upstream.name, attempt.redirect),
        stream=exchange.stream,
        maker=backend.maker(attempt.model) if attempt.redirect is None else attempt.redirect.base_url,
        default_max_tokens=backend.settings.default_max_tokens,
        ask_usage=backend.settings.usage_include,
    )
    same = upstream is exchange.client
    able = target.capabilities
    exchange.enforces_schema = (
        able.schema_enforced and able.schema_output and (able.schema_with_tools or not exchange.tools)
    )
    headers = protocol_headers(exchange.incoming) if same else {}
    request = await _for_attempt(exchange, same)
    exchange.losses = []
    shown_model = attempt.model if target.capabilities.model_as_requested else ""
    if same and (request is None or request is exchange.as_read):
        return Prepared(
            dialect=upstream,
            body=_outgoing(exchange, _steered(exchange, upstream, upstream.retarget(exchange.body, target), target)),
            headers=headers,
            duties=NO_DUTIES,
            verbatim=not shown_model
            and not _kept_here(exchange, able)
            and not (exchange.head.hides_reasoning and _shows_anyway(upstream, target)),
            maker=target.maker,
            shown_model=shown_model,
        )
    assert request is not None and exchange.as_read is not None
    if not same:
        refuse_unknown_media(request)
        request = _for_others(exchange, request)
    exchange.hidden = request.reasoning is not None and request.reasoning.visible is False
    out = upstream.write_request(request, target)
    if out.duties.copies > _MOST_COPIES:
        raise bad_request(f"n: at most {_MOST_COPIES} where each choice is a call of its own", "n")
    exchange.losses = list(out.losses)
    if same:
        before, after = upstream.write_request(unwrapped(exchange.as_read), target).body, out.body
        if request.added or not _asked_for(exchange, target.model):
            as_read, adapted = upstream.steering(exchange.as_read, target)
            before = {name: value for name, value in before.items() if name not in adapted} | as_read
        if not _asked_for(exchange, target.model):
            kept, adapted = upstream.steering(request, target)
            after = {name: value for name, value in after.items() if name in adapted or name not in kept} | adapted
        body = wire_json.rewrite(upstream.retarget(exchange.body, target), before, after)
    else:
        body = wire_json.encode(out.body)
    return Prepared(
        dialect=upstream,
        body=_outgoing(exchange, body),
        headers={**out.headers, **headers},
        duties=out.duties,
        verbatim=same
        and out.duties.none
        and not shown_model
        and not _kept_here(exchange, able)
        and not (exchange.hidden and _shows_anyway(upstream, target)),
        maker=target.maker,
        shown_model=shown_model,
    )


def _outgoing(exchange: Exchange, body: bytes) -> bytes:
    """The body without secrets; that some were there is noted once, however many tries there are."""
    cleaned = exchange.gateway.outgoing(body)
    if cleaned is not body and _REDACTED not in exchange.notes:
        exchange.note(_REDACTED)
    return cleaned


def _asked_for(exchange: Exchange, model: str) -> bool:
    """Is this the model that the client itself named?"""
    asked = exchange.requested_model
    return asked == model or asked.endswith((f":{model}", f"/{model}"))


def _steered(exchange: Exchange, dialect: Dialect, body: bytes, target: Target) -> bytes:
    """A body that goes on as it came, but to another model than its client wrote it for: that one may take other values."""
    if _asked_for(exchange, target.model) or not any(sign in body for sign in dialect.steering_signs):
        return body
    try:
        as_read, adapted = dialect.steering(exchange.request, target)
    except FaultError:
        return body  # what the proxy cannot read, the provider may
    return body if as_read == adapted else wire_json.rewrite(body, as_read, adapted)


async def _for_attempt(exchange: Exchange, same: bool) -> Request | None:
    """The request as this attempt shall send it; None when nobody needs it decoded because its bytes can go on."""
    gateway = exchange.gateway
    if exchange.client.name == "openai-responses" and not same and stored_responses.refers(exchange.body):
        await _stand_alone(exchange)
    rooms = [room for room in exchange.rooms.on_attempt if exchange.walled(room, "concerns", exchange)]
    if (
        same
        and exchange.untouched
        and not rooms
        and not exchange.more
        and not has_traces(exchange.body, exchange.client.name)
    ):
        return None
    request = exchange.request
    for room in rooms:
        changed = exchange.walled(room, "on_attempt", exchange, request)
        request = changed if isinstance(changed, Request) else request
    if exchange.more:
        request = msgspec.structs.replace(request, messages=request.messages + exchange.more)
    return restore(request, gateway.envelope, await recall.fetch(gateway.store, exchange.session.scope, request))


async def _stand_alone(exchange: Exchange) -> None:
    """What still refers to earlier responses is not known here: only the back end that keeps them could tell. Raises FaultError."""
    body = await stored_responses.standing_alone(
        exchange.gateway.store, exchange.session.scope, exchange.body, native=False
    )
    if body is not exchange.body:
        exchange.read_instead(body)


def _for_others(exchange: Exchange, request: Request) -> Request:
    """The request as providers of other protocols can take it: tools typed by Anthropic become functions."""
    if exchange.client.name != "anthropic-messages":
        return request
    from llm_proxy.dialects.anthropic_messages.client_tools import written_out

    return written_out(request)


def _kept_here(exchange: Exchange, able: Capabilities) -> bool:
    """Does the client count on a response being kept that the back end does not keep? Then the proxy must read it."""
    return (
        exchange.client.name == "openai-responses" and not able.keeps_responses and stored_responses.kept(exchange.body)
    )


def _shows_anyway(upstream: Dialect, target: Target) -> bool:
    """Only OpenRouter's `reasoning` object tells a server of the Chat protocol to keep its reasoning to itself."""
    return upstream.name == "openai-chat" and target.capabilities.thinking != "object"
