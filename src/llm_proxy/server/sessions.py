"""Which session a request belongs to, as far as its own header tells."""

from __future__ import annotations

import hashlib
import re
import time

from llm_proxy.server.gateway import new_id
from llm_proxy.server.http import Incoming
from llm_proxy.sessions.session import Session

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")


def session_of(incoming: Incoming, scope: str) -> Session:
    """The session named by `x-session-id`, else a new one. An id of another form is replaced by its hash."""
    given = incoming.header(b"x-session-id")
    if given and not _ID.match(given):
        given = hashlib.sha256(given.encode("latin-1")).hexdigest()
    now = time.time()
    return Session(id=given or new_id("ses_"), scope=scope, created=now, last_used=now)
