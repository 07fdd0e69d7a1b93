"""Whose request it is, by address (OPS-03): the one place that says so. A pure decision over the peer and the headers.

`X-Forwarded-For` is a claim. It counts only where the peer is a reverse proxy that the operator has named, and only back to the first
hop that is none. `Forwarded` and `X-Real-IP` never count. Knows no key and counts nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec

from llm_proxy.wire.networks import Address, Networks, read_address, site_of

_FORWARDING: Final = frozenset(
    {b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip", b"forwarded"}
)
_MOST_HOPS: Final = 32
"""Nobody has more reverse proxies in a row; the rest of a longer list is not looked at."""


class Sender(msgspec.Struct, frozen=True):
    """Who sent a request. `address` is for people and scopes, `site` is what failures are counted by ("" when the peer is unknown).

    `trusted`: needs no key. `loopback`: the address is this machine's own. `local`: and nothing says that it only passes on somebody
    else's request.
    """

    address: str
    site: str
    trusted: bool = False
    loopback: bool = False
    local: bool = False


class Senders:
    """Tells senders by one configuration's `trusted_ips` and `trusted_proxies`."""

    def __init__(self, trusted: Sequence[str] = (), proxies: Sequence[str] = ()) -> None:
        self._trusted = Networks(trusted)
        self._proxies = Networks(proxies)
        self._direct = lru_cache(maxsize=1024)(self._sender)

    def of(self, peer: str, headers: Sequence[tuple[bytes, bytes]]) -> Sender:
        """`headers` with names in lower case."""
        passed_on = any(name in _FORWARDING for name, _ in headers)
        if not passed_on:
            return self._direct(peer, False)
        address = read_address(peer)
        if address is None or address not in self._proxies:
            return self._direct(peer, True)
        claims = b",".join(value for name, value in headers if name == b"x-forwarded-for")
        return self._sender(str(self._client(address, claims.decode("latin-1"))), False, direct=False)

    def _sender(self, peer: str, undeclared: bool, direct: bool = True) -> Sender:
        """`undeclared`: somebody whom the operator has not named passes requests of others on."""
        address = read_address(peer)
        if address is None:
            return Sender(peer, peer, local=not peer and not undeclared)
        # A reverse proxy is no person: one that names no client would let everybody in.
        trusted = not undeclared and address in self._trusted and address not in self._proxies
        loopback = address.is_loopback
        local = loopback and direct and not undeclared
        return Sender(str(address), site_of(address), trusted, loopback, local)

    def _client(self, peer: Address, claims: str) -> Address:
        """The right-most hop that is no named proxy. A hop that is no address ends the search at the proxy that told of it."""
        found = peer
        rest = claims
        for _ in range(_MOST_HOPS):
            rest, comma, hop = rest.rpartition(",")
            if hop.strip():
                address = _hop_address(hop.strip())
                if address is None:
                    return found
                found = address
                if address not in self._proxies:
                    return found
            if not comma:
                break
        return found


def _hop_address(hop: str) -> Address | None:
    """The address of a hop such as `10.0.0.1`, `10.0.0.1:4711`, `2001:db8::1` or `[2001:db8::1]:4711`; None for anything else."""
    if hop.startswith("["):
        inside, bracket, port = hop[1:].partition("]")
        return read_address(inside) if bracket and _is_port(port) else None
    if hop.count(":") == 1:
        hop, _, port = hop.partition(":")
        return read_address(hop) if _is_port(f":{port}") else None
    return read_address(hop)


def _is_port(text: str) -> bool:
    return not text or (text[0] == ":" and len(text) <= 6 and text[1:].isascii() and text[1:].isdigit())


DIRECT: Final = Senders()
"""Where nobody is named: every peer is who it is."""
