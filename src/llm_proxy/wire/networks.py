"""IP addresses of peers and blocks of them, as people write both.

An IPv4 address in IPv6 clothes (`::ffff:10.1.2.3`) is the IPv4 address, everywhere. Knows no header and no option.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_EXPECTED: Final = "an IP address or a block such as 10.0.0.0/8"
_MAPPED_BITS: Final = 96
_SITE_BITS: Final = 64
_MOST_TEXT: Final = 100


@lru_cache(maxsize=4096)
def read_address(text: str) -> Address | None:
    """The address that `text` is, without its zone; None for anything else."""
    if len(text) > _MOST_TEXT:
        return None
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def read_network(text: str) -> Network:
    """The block of `text`; a single address is a block of one. Raises ValueError with what was expected."""
    try:
        network = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise ValueError(_EXPECTED) from None
    try:
        ipaddress.ip_network(text.strip())
    except ValueError:
        # One machine was named and a whole network would be let in.
        alone = text.strip().partition("/")[0]
        raise ValueError(f"{network} for the whole block, or {alone} for the one address") from None
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= _MAPPED_BITS:
        inside = network.network_address.ipv4_mapped
        if inside is not None:
            network = ipaddress.IPv4Network((inside, network.prefixlen - _MAPPED_BITS))
    if network.prefixlen == 0:
        raise ValueError(f"{_EXPECTED}; {text.strip()} is everybody")
    return network


def check_network(text: str) -> str | None:
    """What was expected instead of `text`, or None for an address or a block."""
    try:
        read_network(text)
    except ValueError as error:
        return str(error)
    return None


def site_of(address: Address) -> str:
    """Whose address it is: that of one IPv4 host, or the /64 that one IPv6 customer is given at least."""
    if isinstance(address, ipaddress.IPv4Address) or address.is_loopback:
        return str(address)
    return str(ipaddress.IPv6Network((int(address) >> _SITE_BITS << _SITE_BITS, _SITE_BITS)))


class Networks:
    """A set of blocks; asks of membership cost a shift and a comparison per block."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        """Raises ValueError for a text that is no block."""
        self._four: list[tuple[int, int]] = []
        self._six: list[tuple[int, int]] = []
        for network in map(read_network, texts):
            shift = network.max_prefixlen - network.prefixlen
            blocks = self._four if isinstance(network, ipaddress.IPv4Network) else self._six
            blocks.append((shift, int(network.network_address) >> shift))

    def __contains__(self, address: object) -> bool:
        match address:
            case ipaddress.IPv4Address():
                blocks = self._four
            case ipaddress.IPv6Address():
                blocks = self._six
            case _:
                return False
        number = int(address)
        return any(number >> shift == prefix for shift, prefix in blocks)
