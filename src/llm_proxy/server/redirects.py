"""Where a session's OpenAI calls go instead of the configured server (RT-12): the session's wish, the operator's list, the client's place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_proxy.backends.base import Backend, Redirect
from llm_proxy.commands.options import CommandOptions
from llm_proxy.routing.redirect import redirect_to

if TYPE_CHECKING:
    from llm_proxy.server.clients import Client
    from llm_proxy.server.gateway import Gateway
    from llm_proxy.sessions.session import Session


def redirect_of(session: Session, caller: Client, gateway: Gateway, backend: Backend) -> Redirect | None:
    """None where the call goes to the configured server. Raises FaultError when the wish is not allowed any more."""
    url = session.values.get("openai-url")
    if not url or backend.type != "openai" or not gateway.settings.get(CommandOptions).allow_url_override:
        return None
    return redirect_to(
        str(url), allowed=gateway.redirect_origins, local=caller.local, credential=caller.upstream_key,
        configured=backend.origin, own=gateway.running.listeners,
    )  # fmt: skip
