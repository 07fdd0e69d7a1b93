"""Who may use the proxy: client keys (OPS-01), trusted addresses (OPS-03) and browser protection (OPS-18). Decisions over headers.

Keys are compared in constant time over hashes; the cost does not depend on how many keys there are or how much of one matches.
Wrong keys are told to `brute_force` (OPS-02), whose blocks are kept here; whose request it is says `client_address`.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
from collections.abc import Sequence
from urllib.parse import parse_qsl

import msgspec

from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.server.brute_force import BruteForce
from llm_proxy.server.client_address import DIRECT, Senders
from llm_proxy.server.http import Headers, Incoming
from llm_proxy.wire.secrets import Secret

CARRIERS = "Authorization: Bearer, x-api-key, x-goog-api-key, X-Auth-Token, or the query parameter key or api_key"


class ClientKey(msgspec.Struct, frozen=True):
    """A key that clients may present, and the name under which its user appears."""

    name: str
    secret: Secret


class Presented(msgspec.Struct, frozen=True):
    """What a request presents: the `name` of a right key, else "" and what is to be said. `wrong`: a key was there, and it was none."""

    name: str
    complaint: str = ""
    wrong: bool = False


class Access:
    """Checks client keys. Without `keys` and `token` (authentication disabled) everyone is `anonymous`.

    `guard` None: wrong keys are not counted.
    """

    def __init__(
        self,
        keys: Sequence[ClientKey],
        token: Secret | None,
        bypass: Sequence[str],
        disabled: bool = False,
        admins: Sequence[str] = (),
        senders: Senders = DIRECT,
        guard: BruteForce | None = None,
    ) -> None:
        self.disabled = disabled
        self._senders = senders
        self._guard = None if disabled else guard
        self.admins = frozenset(admins)
        self._hashes = [(key.name, _digest(key.secret.reveal())) for key in keys]
        self._token = _digest(token.reveal()) if token is not None else None
        self._bypass = frozenset(path.rstrip("/") or "/" for path in bypass)

    @property
    def single(self) -> bool:
        """One user only: there is nobody else whose data could be seen."""
        return self.disabled or len(self._hashes) + (self._token is not None) <= 1

    def open_to_all(self, path: str) -> bool:
        return (path.rstrip("/") or "/") in self._bypass

    def identify(self, incoming: Incoming) -> None:
        """Finds out whose request it is: by the peer, or by what a trusted reverse proxy tells."""
        incoming.sender = self._senders.of(incoming.peer, incoming.headers)

    def turn_away(self, incoming: Incoming) -> None:
        """Raises FaultError (429) for an address that is blocked. Its key is looked at only where a right one may end the block."""
        guard, sender = self._guard, incoming.sender
        if guard is None or sender.trusted or not (left := guard.blocked(sender.site)):
            return
        if self.open_to_all(incoming.path):
            return
        if (sender.loopback or guard.valid_keys_pass) and self._look(incoming).name:
            guard.succeeded(sender.site)
            return
        seconds = math.ceil(left)
        raise FaultError(
            Fault(
                kind="rate_limit",
                message=f"too many wrong client keys from this address; try again in {seconds} s",
                side="client",
                retry_after=left,
                details={"retry_after_seconds": seconds},
            )
        )

    def admit(self, incoming: Incoming) -> str:
        """The name of the key that `incoming` presents, "" for a trusted address without one. Raises FaultError (auth)."""
        if self.disabled:
            return "anonymous"
        found, sender = self._look(incoming), incoming.sender
        if sender.trusted:
            return found.name
        if found.name:
            if self._guard is not None:
                self._guard.succeeded(sender.site)
            return found.name
        if found.wrong and self._guard is not None:
            self._guard.failed(sender.site)
        raise _refused(found.complaint)

    def _look(self, incoming: Incoming) -> Presented:
        token = incoming.header(b"x-auth-token")
        presented, complaint = _presented(incoming)
        if complaint:
            return Presented("", complaint)
        if presented and (name := self._match(presented)):
            return Presented(name)
        if token and self._token is not None and hmac.compare_digest(_digest(_plain(token)), self._token):
            return Presented("auth-token")
        if not presented and not token:
            return Presented("", f"no client key; send it as {CARRIERS}")
        return Presented("", f"the client key is not right; carriers: {CARRIERS}", wrong=True)

    def _match(self, presented: str) -> str:
        digest = _digest(presented)
        found = ""
        for name, known in self._hashes:
            if hmac.compare_digest(digest, known):
                found = name
        if self._token is not None and hmac.compare_digest(digest, self._token):
            found = found or "auth-token"
        return found


def _digest(value: str) -> bytes:
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).digest()


def _plain(value: str) -> str:
    """Blanks and one pair of quotes around a presented key are tolerated."""
    value = value.strip()
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1].strip()
    return value


def _presented(incoming: Incoming) -> tuple[str, str]:
    """The key of the first carrier that has one, or "", and what is wrong with the form of the request."""
    authorization = incoming.header(b"authorization").strip()
    if authorization:
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() == "bearer" and value.strip():
            return _plain(value), ""
        if not any(incoming.header(name) for name in (b"x-api-key", b"x-goog-api-key", b"api-key")):
            return "", f"Authorization must be of the form Bearer <key>; carriers: {CARRIERS}"
    for name in (b"x-api-key", b"x-goog-api-key", b"api-key"):
        if value := incoming.header(name):
            return _plain(value), ""
    if incoming.query:
        for key, value in parse_qsl(incoming.query.decode("latin-1")):
            if key in ("key", "api_key"):
                return _plain(value), ""
    return "", ""


def _refused(message: str) -> FaultError:
    return FaultError(Fault(kind="auth", message=message, side="client"))


_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})


class BrowserGuard:
    """Keeps web pages from using a local proxy: Host, Origin and content type (OPS-18).

    `hosts` empty: the loopback names and the bind address; any name when the bind address is not loopback.
    """

    def __init__(self, bind: str, hosts: Sequence[str], origins: Sequence[str]) -> None:
        self._any_host = not hosts and not is_loopback(bind)
        self._hosts = frozenset(host.lower().rstrip(".") for host in hosts) | _LOOPBACK_NAMES | {bind.lower()}
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)

    def check(self, incoming: Incoming) -> Headers:
        """The CORS headers for the answer. Raises FaultError 421, 403 or 415."""
        host = incoming.header(b"host")
        if not self._any_host and _host_name(host) not in self._hosts:
            raise FaultError(
                Fault(
                    kind="host",
                    message="this Host name is not served here; add it with --allowed-host",
                    side="client",
                )
            )
        origin = incoming.header(b"origin").lower().rstrip("/")
        allowed = bool(origin) and origin in self._origins
        if origin and not allowed and not _same_site(origin, host):
            raise _forbidden("this browser origin is not allowed; add it with --allowed-origin")
        if not origin and incoming.header(b"sec-fetch-site") == "cross-site":
            raise _forbidden("cross-site requests of a browser are not allowed")
        if incoming.method == "POST":
            kind = incoming.header(b"content-type").partition(";")[0].strip().lower()
            if kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
                raise FaultError(
                    Fault(kind="unsupported_media", message="send the body as application/json", side="client")
                )
        if not allowed:
            return []
        return [(b"access-control-allow-origin", incoming.header(b"origin").encode("latin-1")), (b"vary", b"origin")]

    def preflight(self, incoming: Incoming, methods: Sequence[str]) -> Headers:
        """Headers that answer a preflight of an allowed origin. Raises FaultError for any other."""
        headers = self.check(incoming)
        if not headers:
            raise _forbidden("preflight requests are answered for allowed origins only")
        wanted = incoming.header(b"access-control-request-headers")
        return [
            *headers,
            (b"access-control-allow-methods", ", ".join([*methods, "OPTIONS"]).encode()),
            (b"access-control-allow-headers", wanted.encode("latin-1") or b"*"),
            (b"access-control-max-age", b"600"),
        ]


def _forbidden(message: str) -> FaultError:
    return FaultError(Fault(kind="permission", message=message, side="client", code="forbidden"))


def _host_name(host: str) -> str:
    host = host.strip().lower()
    name = host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
    return name.rstrip(".")


def _same_site(origin: str, host: str) -> bool:
    """A page that the proxy itself served."""
    return bool(host) and origin.partition("://")[2] == host.lower()


def is_loopback(address: str) -> bool:
    """Is this bind address (a name or an IP address) reachable from this machine only?"""
    if address.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False
