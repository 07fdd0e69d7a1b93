"""The pages under /internal/sessions: what sessions there are, what one did, and the end of one (SES-05).

Owns who may see which session and what is shown of it. Functions take plain values and give plain data: routes and HTTP are elsewhere.
A session of another scope is answered like one that does not exist.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.sessions.session import Session
from llm_proxy.store.sessions import Sessions
from llm_proxy.wire.secrets import MARK, Secret

Clean = Callable[[str], str]


async def listing(sessions: Sessions, scope: str, is_admin: bool, *, clean: Clean, asked: str = "") -> dict[str, Any]:
    """Sessions of the caller's scope, the latest used first; for admins those of all scopes, or of the one `asked` for."""
    found = await sessions.list(_scope(scope, is_admin, asked))
    return {"object": "list", "data": [_summary(session, clean) for session in found]}


async def detail(
    sessions: Sessions, scope: str, is_admin: bool, id: str, *, clean: Clean, asked: str = ""
) -> dict[str, Any]:
    """One session with its history, the oldest exchange first. Raises FaultError (not_found)."""
    session = await _find(sessions, scope, is_admin, id, asked)
    return {
        "object": "session",
        **_summary(session, clean),
        "one_off": session.one_off or None,
        "history": [msgspec.to_builtins(entry) for entry in session.exchanges],
    }


async def end(sessions: Sessions, scope: str, is_admin: bool, id: str, *, asked: str = "") -> dict[str, Any]:
    """Ends a session with all of its state. Raises FaultError (not_found)."""
    session = await _find(sessions, scope, is_admin, id, asked)
    if not await sessions.end(session.scope, id):
        raise _missing()
    return {"object": "session.deleted", "id": id, "deleted": True}


def _scope(own: str, is_admin: bool, asked: str) -> str | None:
    if is_admin:
        return asked or None
    if asked and asked != own:
        message = "scope: sessions of other client keys are for admins only"
        raise FaultError(Fault(kind="permission", message=message, param="scope", side="client"))
    return own


async def _find(sessions: Sessions, own: str, is_admin: bool, id: str, asked: str) -> Session:
    """Without a scope admins find their own session of that id first, else the only one there is."""
    scope = _scope(own, is_admin, asked)
    session = await sessions.look(scope or own, id)
    if session is not None:
        return session
    others = [] if scope is not None else [found for found in await sessions.list(None) if found.id == id]
    if len(others) > 1:
        message = "scope: several client keys have a session of this id; choose one with ?scope="
        raise FaultError(Fault(kind="bad_request", message=message, param="scope", side="client"))
    if not others:
        raise _missing()
    return others[0]


def _missing() -> FaultError:
    return FaultError(Fault(kind="not_found", message="there is no such session", param="id", side="client"))


def _summary(session: Session, clean: Clean) -> dict[str, Any]:
    values = {key: _shown(value, clean) for key, value in session.values.items()}
    return {
        "id": session.id,
        "scope": session.scope,
        "created": session.created,
        "last_used": session.last_used,
        "agent": session.agent or None,
        "project": values.get("project"),
        "backend": values.get("backend"),
        "model": values.get("model"),
        "totals": msgspec.to_builtins(session.totals),
        "values": values,
    }


def _shown(value: object, clean: Clean) -> object:
    """A value of a session for people: without secrets, an address without user info and query."""
    match value:
        case Secret():
            return MARK
        case str():
            return clean(_without_credentials(value))
        case dict():
            return {str(key): _shown(inner, clean) for key, inner in value.items()}
        case list() | tuple():
            return [_shown(inner, clean) for inner in value]
        case bool() | int() | float() | None:
            return value
        case _:
            return clean(str(value))


def _without_credentials(text: str) -> str:
    if "://" not in text:
        return text
    try:
        parts = urlsplit(text)
    except ValueError:
        return MARK
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="", fragment="").geturl()
