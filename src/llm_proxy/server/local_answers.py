"""Answers that the proxy gives itself: in the client's protocol, streamed or not, in the form that its agent takes for a finished turn.

Owns how such an answer is made and remembered. What it says comes from elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llm_proxy.commands.messages import confirmation_mark, digest
from llm_proxy.conversation.answer import Answer, Choice, Stop
from llm_proxy.conversation.fault import FaultError
from llm_proxy.conversation.parts import Text, ToolCall
from llm_proxy.conversation.usage import Usage
from llm_proxy.sessions import replies
from llm_proxy.sessions.session import MOST_LOCAL_REPLIES, Session
from llm_proxy.wire import json as wire_json

if TYPE_CHECKING:
    from llm_proxy.server.exchange import Exchange

_MOST_HEADER = 1000
_CHAT_ID = "proxy_cmd_processed"


async def deliver(exchange: Exchange, text: str) -> None:
    """Sends `text` as a finished answer with no usage and remembers that it was ours."""
    from llm_proxy.server.delivery import Delivery

    session = exchange.session
    exchange.model = _effective_model(exchange)
    agent = session.agent
    form = replies.form_of(exchange.gateway.reply_style, agent, exchange.opening)
    dressed = replies.dressed(text, form)
    part: Text | ToolCall
    if form.kind == "tool_call":
        arguments = wire_json.encode({"result": text}).decode()
        part = ToolCall(replies.call_id(exchange.client.name, exchange.fresh_id), replies.FINISH_TOOL, arguments)
        stop = Stop("tool_use")
    else:
        part, stop = Text(dressed), Stop("end")
    remember(session, dressed)
    answer = Answer(
        id=_CHAT_ID if exchange.client.name == "openai-chat" else "",
        model=exchange.model,
        created=int(exchange.started),
        choices=(Choice((part,), stop),),
        usage=Usage(input=0, output=0),
    )
    await Delivery(exchange).local(answer)


def remember(session: Session, text: str) -> None:
    """This reply is recognised when the client sends it back."""
    mark = digest(text)
    if mark not in session.local_replies:
        session.local_replies = [*session.local_replies, mark][-MOST_LOCAL_REPLIES:]
    session.touch()


def remember_confirmation(session: Session, text: str) -> None:
    """What stands before a model's answer is taken off again when the client sends that answer back."""
    mark = confirmation_mark(text)
    if mark not in session.confirmations:
        session.confirmations = [*session.confirmations, mark][-MOST_LOCAL_REPLIES:]
        session.touch()


def _effective_model(exchange: Exchange) -> str:
    try:
        decision = exchange.gateway.router.decide(exchange.requested_model, exchange.session, exchange.session.one_off)
    except FaultError:
        return exchange.requested_model
    return decision.model or decision.route or exchange.requested_model or "llm-proxy"


def header_text(lines: Sequence[str]) -> str:
    """What commands did, as the value of a header."""
    text = "; ".join(" ".join(line.split()) for line in lines)
    return text.encode("ascii", "replace").decode()[:_MOST_HEADER]


_PARAMETERS = (
    "temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "max_output_tokens", "reasoning_effort", "reasoning",
    "thinking", "seed", "stop", "n",
)  # fmt: skip


def parameters_of(document: wire_json.Document) -> dict[str, Any]:
    """Sampling parameters for the history, as they stand in the body: nothing is decoded for it."""
    members = document.value
    config = members.get("generationConfig") or members.get("generation_config")
    if isinstance(config, dict):
        return {name: value for name, value in config.items() if isinstance(value, int | float | str | bool)}
    return {name: members[name] for name in _PARAMETERS if members.get(name) is not None}


def without_session_id(body: bytes) -> bytes:
    """The body without the fields that name a session of this proxy (SES-01)."""
    members = wire_json.split_object(body)
    if "session_id" in members:
        body = wire_json.remove_member(body, "session_id")
    extra = members.get("extra_body")
    if extra is not None and extra.lstrip()[:1] == b"{" and "session_id" in wire_json.split_object(extra):
        rest = wire_json.remove_member(extra, "session_id")
        empty = not wire_json.split_object(rest)
        body = (
            wire_json.remove_member(body, "extra_body") if empty else wire_json.replace_member(body, "extra_body", rest)
        )
    return body
