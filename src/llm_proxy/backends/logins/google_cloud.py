"""The login of a Google Cloud project: a configured credentials file, else Application Default Credentials (BE-17).

Owns the access token that Google's own library gets, in threads. Knows no Code Assist. The library is the extra `google`; without it
the login says so and the proxy goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC
from pathlib import Path
from typing import Any, Final

from llm_proxy.backends.logins.document import Unreadable, read_document
from llm_proxy.backends.logins.faults import credentials_fault, unusable_fault
from llm_proxy.backends.logins.login import Token
from llm_proxy.backends.logins.login_file import LoginFile
from llm_proxy.backends.logins.lookout import LOOKOUT
from llm_proxy.backends.logins.members import text_of
from llm_proxy.backends.logins.places import home, shown
from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.wire.secrets import Secret

SCOPES: Final = (
    "https://www.googleapis.com/auth/cloud-platform",
    "https://www.googleapis.com/auth/userinfo.email",
    "https://www.googleapis.com/auth/userinfo.profile",
)
COMMAND: Final = "gcloud auth application-default login"
_ADVICE: Final = f"run `{COMMAND}` or set GOOGLE_APPLICATION_CREDENTIALS."
# The kinds of credentials files -> where the library reads them.
_KINDS: Final[Mapping[str, tuple[str, str]]] = {
    "service_account": ("google.oauth2.service_account", "from_service_account_info"),
    "authorized_user": ("google.oauth2.credentials", "from_authorized_user_info"),
    "impersonated_service_account": ("google.auth.impersonated_credentials", "from_impersonated_service_account_info"),
    "external_account": ("google.auth.identity_pool", "from_info"),
}
_EARLY = 225.0  # seconds; Google's own library renews as early


class CloudLogin:
    """See `login.Login`. `path` None: Application Default Credentials. `project` is only looked at for being there. `wall` gives
    epoch seconds, `clock` is monotonic.
    """

    def __init__(
        self,
        id: str,
        project: str,
        path: Path | None = None,
        *,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._id = id
        self._path = path
        self._wall = wall
        self._needs = needs(project)
        # Read to know when it changes, and what is wrong with it; tokens are made of it by Google's library.
        where = application_default() if path is None else path
        read = described if path is None else _loadable
        self._file = LoginFile(id, (where,), read=read, refresh_token=None, command=COMMAND, clock=clock)
        self._token: Token | None = None
        self._made_of = b""
        self._forced: Secret | None = None
        self._degraded = ""
        self._asking: asyncio.Task[Token] | None = None
        LOOKOUT.add(self)

    @property
    def reason(self) -> str:
        if self._needs:
            return self._needs
        # Without a configured file the login may be that of a machine in Google's cloud, which has none.
        return "" if self._path is None else self._file.known.reason

    @property
    def degraded(self) -> str:
        """Why calls fail although the login can be read; a success or another file ends it (BE-14)."""
        return self._degraded

    @property
    def found(self) -> Token | None:
        return self._token

    def look(self) -> None:
        """Read the file if it may have changed. Blocks. Raises nothing."""
        self._file.look()
        if self._made_of != self._file.known.document.digest:
            self._made_of = self._file.known.document.digest
            self._token = self._forced = None
            self._degraded = ""

    async def token(self) -> Token:
        await asyncio.to_thread(self.look)
        if self.reason:
            raise unusable_fault(self._id, self.reason)
        if (token := self._token) is not None and (token.expires is None or token.expires - _EARLY > self._wall()):
            return token
        return await self._ask()

    async def refused(self, token: Token) -> Token | None:
        await asyncio.to_thread(self.look)
        if self._token is not None and self._token.access != token.access:
            return self._token
        # What was made because of a refusal is not made anew because of another.
        if self._forced != token.access:
            with contextlib.suppress(FaultError):
                other = await self._ask()
                self._forced = other.access
                if other.access != token.access:
                    return other
        self._degraded = f"the provider refuses the login; {_ADVICE}"
        return None

    def succeeded(self) -> None:
        self._forced = None
        self._degraded = ""

    async def close(self) -> None:
        LOOKOUT.remove(self)
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask(self) -> Token:
        """A new token; those who ask at once share one call."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._renew())
            self._asking.add_done_callback(self._settle)
        return await asyncio.shield(self._asking)

    def _settle(self, task: asyncio.Task[Token]) -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()  # seen, also when every client has left

    async def _renew(self) -> Token:
        made_of = self._made_of
        try:
            credentials = await asyncio.to_thread(self._fetched)
        except FaultError as error:
            if error.fault.kind == "upstream_auth":
                self._degraded = f"Google refused the credentials; {_ADVICE}"
            raise
        expiry = credentials.expiry
        hint = getattr(credentials, "service_account_email", "") or getattr(credentials, "account", "") or ""
        token = Token(
            access=Secret(credentials.token),
            expires=None if expiry is None else expiry.replace(tzinfo=UTC).timestamp(),
            account=hint,
            hint=hint,
        )
        if made_of == self._made_of:  # else the file is another by now, and the next call asks anew
            self._token = token
        return token

    def _missing(self, what: str) -> FaultError:
        return unusable_fault(self._id, f"{what}; {_ADVICE}")

    def _fetched(self) -> Any:
        """In a thread: fresh credentials. The file is read again each time, for it may be another login now.

        What the library says of a failure may hold addresses and answers, so it is not repeated.
        """
        auth: Any = importlib.import_module("google.auth")
        errors: Any = importlib.import_module("google.auth.exceptions")
        requests: Any = importlib.import_module("google.auth.transport.requests")
        try:
            if self._path is not None:
                credentials = self._of_file(self._path)
            else:
                credentials, _ = auth.default(scopes=SCOPES)
            credentials.refresh(requests.Request())
        except errors.TransportError:
            message = f"Back end {self._id}: Google's token service cannot be reached."
            raise FaultError(Fault(kind="unavailable", message=message)) from None
        except errors.RefreshError:
            raise credentials_fault(self._id, f"Google refused the credentials; {_ADVICE}") from None
        except (
            errors.GoogleAuthError,
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
        ):  # what the library makes of odd files
            raise self._missing("no credentials of Google Cloud can be read") from None
        return credentials

    def _of_file(self, path: Path) -> Any:
        """In a thread. One kind after the other and none that starts a program: the library itself warns of its way to load any file."""
        document = read_document((path,))
        if (info := document.members) is None or info.get("type") not in _KINDS:
            raise self._missing(
                f"the credentials file {shown(path)} {document.problem or 'is of a type that is not known'}"
            )
        module, maker = _KINDS[info["type"]]
        make: Any = getattr(importlib.import_module(module).Credentials, maker)
        return make(info, scopes=SCOPES)


def application_default() -> Path:
    """Where gcloud puts Application Default Credentials (https://cloud.google.com/docs/authentication/application-default-credentials)."""
    if own := os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
        return Path(own)
    if folder := os.environ.get("CLOUDSDK_CONFIG"):
        return Path(folder) / "application_default_credentials.json"
    roaming = os.environ.get("APPDATA") if os.name == "nt" else None
    base = Path(roaming) if roaming else home() / ".config"
    return base / "gcloud" / "application_default_credentials.json"


def described(members: Mapping[str, Any]) -> Token:
    """The login that Google's library will make of `members`, without a token. Raises Unreadable."""
    if not text_of(members, "type"):
        raise Unreadable("has no `type`")
    hint = text_of(members, "client_email") or text_of(members, "account")
    return Token(access=Secret(""), hint=hint)


def _loadable(members: Mapping[str, Any]) -> Token:
    """As `described`, of the kinds that `_of_file` makes. Raises Unreadable."""
    token = described(members)
    if members["type"] not in _KINDS:
        raise Unreadable(f"is of none of the types {', '.join(_KINDS)}")
    return token


def needs(project: str) -> str:
    """What such a login lacks besides its file, a sentence; "" for nothing."""
    if not project:
        return "no project is configured; set GOOGLE_CLOUD_PROJECT."
    if not _is_installed():
        return "Google's library is not installed; run `pip install 'llm-interactive-proxy[google]'`."
    return ""


def _is_installed() -> bool:
    try:
        return all(importlib.util.find_spec(name) is not None for name in ("google.auth", "requests"))
    except ModuleNotFoundError:
        return False
