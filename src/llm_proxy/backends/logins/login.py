"""What a login is to a back end: a token that is good now, and what to do when the provider refuses it.

Owns the values. Knows no file and no provider; `credential_file.py` fulfils the protocol for logins that a vendor's CLI keeps in a file.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from llm_proxy.wire.secrets import Secret


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """`expires`: epoch seconds, None when it is not known. `account`: the provider's id of the account, sent in headers where that is
    demanded. `hint`: whose it is, for people (a mail address or the end of an id), never a secret. `members`: what else the
    login says that its back end needs (`resource_url`, `api_key` …), no secrets.
    """

    access: Secret
    expires: float | None = None
    account: str = ""
    hint: str = ""
    members: dict[str, Any] = {}


class Login(Protocol):
    """One login. All methods may be called by many requests at once."""

    @property
    def reason(self) -> str:
        """Why it cannot be used now, a sentence that names the command which mends it; "" when it can. Quick: asked per request."""

    @property
    def degraded(self) -> str:
        """Why calls fail although it can be used as far as is known, for showing; "" for nothing. The next success ends it."""

    @property
    def found(self) -> Token | None:
        """What was last read, for showing; None when there is nothing. Makes no call and reads nothing."""

    async def token(self) -> Token:
        """A token that is good for the next minutes: renewed if it must be. Raises FaultError, whose message names the command: 503
        for a login that is not there, 502 with code `<backend id>_credentials_invalid` for one that cannot be renewed."""

    async def refused(self, token: Token) -> Token | None:
        """The provider answered 401 or 403 to `token`: another one to repeat the call with, once; None when there is none, and the
        login is degraded from then on, until its file changes or a call succeeds."""

    def succeeded(self) -> None:
        """A call was accepted: not degraded any more."""

    async def close(self) -> None:
        """Ends what runs in the background."""
