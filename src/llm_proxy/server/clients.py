"""Who sent a request: its key, its address, and the conversation that it belongs to (SES-01, AGT-01, AGT-04).

Owns what is read from headers and addresses. What tells conversations and agents apart is `sessions/`' business.
"""

from __future__ import annotations

import hashlib
import logging
import time
from typing import TYPE_CHECKING

import msgspec

from llm_proxy.dialects.base import Dialect, Opening
from llm_proxy.server.gateway import new_id
from llm_proxy.server.http import Incoming
from llm_proxy.sessions import agents, errands, identity
from llm_proxy.sessions.options import check_project
from llm_proxy.sessions.session import Session
from llm_proxy.wire.json import Document
from llm_proxy.wire.secrets import Secret

if TYPE_CHECKING:
    from llm_proxy.server.gateway import Gateway

_LOG = logging.getLogger(__name__)
_RESPONSES = "response-session"
GENERIC = "generic"


class Recognised(msgspec.Struct, frozen=True):
    """What a request's body and headers tell. `foreign`: the body holds a field that is the proxy's own.

    `conversation`: the name of the one that the request continues by the id of an earlier response, or "".
    """

    opening: Opening
    session: Session
    side: bool
    foreign: bool
    conversation: str = ""


class Client:
    """The caller of one request. `key_name` is the client key's name; `scope` separates the sessions of clients."""

    def __init__(self, gateway: Gateway, incoming: Incoming, key_name: str) -> None:
        self._gateway = gateway
        self._incoming = incoming
        self.key_name = key_name
        self.scope = identity.scope_of(
            key_name, anonymous=gateway.access.disabled, trusted_address="" if key_name else incoming.sender.address
        )

    @property
    def address(self) -> str:
        """The person's address, or "": behind a trusted reverse proxy not the peer's."""
        return self._incoming.sender.address

    @property
    def local(self) -> bool:
        """Does the client connect from this machine, and not for somebody else?"""
        return self._incoming.sender.local

    @property
    def trusted(self) -> bool:
        """Does the client come from an address that needs no key (OPS-03)?"""
        return self._incoming.sender.trusted

    @property
    def may_change_all(self) -> bool:
        """CMD-08 with `auto`: nobody else is there, or the operator named this key. Who is let in by address alone is one of many."""
        access = self._gateway.access
        if self.trusted and not self.key_name:
            return False
        return access.single or self.key_name in access.admins

    @property
    def upstream_key(self) -> Secret | None:
        """The client's own key for a server that its session redirects to (RT-12)."""
        value = self._incoming.header(b"x-llm-proxy-upstream-key").strip()
        if not value:
            return None
        secret = Secret(value)
        self._gateway.running.redactor.know([secret], passing=True)
        return secret

    def header(self, name: str) -> str:
        return self._incoming.header(name.encode("latin-1"))

    def stranger(self) -> Session:
        """A session of nobody, for errors that come before the conversation is known."""
        given = self.header("x-session-id")
        now = time.time()
        redact = self._gateway.without_secrets
        return Session(id=identity.clean(given, redact) if given else "", scope=self.scope, created=now, last_used=now)

    def named_session(self) -> Session:
        """The session that the header names, for calls beside the conversation: they change nothing in it."""
        session = self.stranger()
        if not session.id:
            session.id = new_id("ses_")
        return self._gateway.sessions.peek(self.scope, session.id) or session

    async def session(self, id: str) -> Session:
        return await self._gateway.sessions.open(self.scope, id)

    async def recognise(self, dialect: Dialect, document: Document, model: str) -> Recognised:
        """The session (opened: whoever asks releases it), and whether the request is an errand of its agent."""
        gateway = self._gateway
        opening = dialect.read_opening(document)
        previous = opening.ids.get("previous_response_id", "")
        earlier, conversation = await self._of_response(previous) if previous else ("", "")
        detection = gateway.agent_detection
        found = agents.detect(self.header, opening) if detection else agents.Detected(GENERIC, by_header=False)
        found_id = identity.identify(
            self.header, opening, self.scope, gateway.fingerprint_key,
            previous_session=earlier, agent=found.agent, redact=gateway.without_secrets,
        )  # fmt: skip
        session = await self.session(found_id.id)
        if detection:
            _settle_agent(session, found)
        project = gateway.without_secrets(self.header("x-project").strip())
        if project and check_project(project) is None and session.values.get("project") != project:
            session.choose("project", project)
        agent = session.agent if detection else GENERIC
        side = found_id.errand or errands.is_errand(agent, self.header, opening, model)
        foreign = "session_id" in opening.ids or "extra_body.session_id" in opening.ids
        return Recognised(opening, session, side, foreign, conversation)

    async def _of_response(self, response_id: str) -> tuple[str, str]:
        """Session and conversation that a response belongs to."""
        key = f"{self.scope}\n{response_id}"
        found = (await self._gateway.store.get_many(_RESPONSES, [key])).get(key)
        session, _, conversation = found.decode().partition("\n") if found else ("", "", "")
        return session, conversation

    def note_response(self, response_id: str, session: Session, conversation: str) -> None:
        """A later request that names this response belongs to the same session and continues the same conversation."""
        gateway = self._gateway
        value = f"{session.id}\n{conversation}".encode()
        gateway.store.put(_RESPONSES, f"{self.scope}\n{response_id}", value, gateway.limits.recollection_ttl)


def _settle_agent(session: Session, found: agents.Detected) -> None:
    """The first hit stays; only evidence in headers replaces it (AGT-01)."""
    recognised = found.agent != GENERIC
    if recognised and (session.agent in ("", GENERIC) or (found.by_header and session.agent != found.agent)):
        session.agent, session.agent_by_header = found.agent, found.by_header
        session.touch()
        _LOG.debug("session %s: agent %s", session.id, found.agent)


def session_headers(session: Session) -> list[tuple[str, str]]:
    return [("x-session-id", session.id)] if session.id else []


def fingerprint_key(seal: bytes) -> bytes:
    """The key of derived session ids, made of the key that the data directory keeps: ids survive a restart and tell nobody anything."""
    return hashlib.blake2b(b"session fingerprint", key=seal, digest_size=32).digest()
