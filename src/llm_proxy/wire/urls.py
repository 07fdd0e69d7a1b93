"""http and https addresses: one strict reading of them, and the class of an IP address.

An address that two parsers could read differently is refused instead of repaired, because a credential is
bound to the origin that is read here. Which classes are allowed for whom is decided elsewhere.
"""

import ipaddress
import re
from typing import Literal

import msgspec

from llm_proxy.wire.faults import UrlFault

AddressClass = Literal["loopback", "private", "link-local", "metadata", "unspecified", "multicast", "public"]

_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_URL = 2048
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_IPV4 = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?:\.|$)){4}")
_NUMBER_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PATH = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)*")
_DOT_SEGMENT = re.compile(r"/(?:\.|%2[eE]){1,2}(?:/|$)")


class Origin(msgspec.Struct, frozen=True):
    """Scheme, host and port, normalised: two origins are the same exactly when they are equal."""

    scheme: str
    host: str  # lower case, IDNA, without brackets
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The host as an address, ``None`` for a name."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None


class BaseUrl(msgspec.Struct, frozen=True):
    """An origin and the path of a provider's endpoints: "", or it begins and does not end with /."""

    origin: Origin
    path: str

    def __str__(self) -> str:
        return f"{self.origin}{self.path}"


def parse_origin(text: str) -> Origin:
    """Read an address that has no path. Raises ``UrlFault``."""
    url = parse_base_url(text)
    if url.path:
        raise UrlFault("an origin has no path")
    return url.origin


def parse_base_url(text: str) -> BaseUrl:
    """Read the base address of a provider, such as ``https://api.example.com/v1``. Raises ``UrlFault``.

    Refused: other schemes, user names, queries and fragments, backslashes, white space and controls,
    percent signs in the host, zones, dot segments, and numeric hosts that are not four plain decimal
    numbers.
    """
    if len(text) > _MAX_URL:
        raise UrlFault(f"the address is longer than {_MAX_URL} characters")
    if any(char <= " " or char == "\\" or "\x7f" <= char <= "\xa0" for char in text):
        raise UrlFault("the address contains white space, a control character or a backslash")
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _DEFAULT_PORTS:
        raise UrlFault("the address does not begin with http:// or https://")
    if "?" in rest or "#" in rest:
        raise UrlFault("a base address has no query and no fragment")
    authority, slash, tail = rest.partition("/")
    if "@" in authority:
        raise UrlFault("the address contains a user name or password")
    host, port = _split_port(authority)
    path = slash + tail
    if not _PATH.fullmatch(path) or "//" in path:
        raise UrlFault("the path contains characters that are not allowed there")
    if _DOT_SEGMENT.search(path):
        raise UrlFault("the path contains . or .. segments")
    return BaseUrl(Origin(scheme, host, port or _DEFAULT_PORTS[scheme]), path.rstrip("/"))


def _split_port(authority: str) -> tuple[str, int | None]:
    if authority.startswith("["):
        inside, bracket, after = authority[1:].partition("]")
        if not bracket:
            raise UrlFault("the address of the host has no closing bracket")
        host = _read_ipv6(inside)
        colon, port = after[:1], after[1:]
        if after and colon != ":":
            raise UrlFault("something stands between the host and the port")
    else:
        name, colon, port = authority.partition(":")
        host = _read_host(name)
    if not colon:
        return host, None
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 65536):
        raise UrlFault("the port is not a number from 1 to 65535")
    return host, int(port)


def _read_ipv6(text: str) -> str:
    if "%" in text:
        raise UrlFault("the address of the host has a zone")
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise UrlFault("the host in brackets is not an IPv6 address") from None


def _read_host(text: str) -> str:
    if "%" in text:
        raise UrlFault("the host contains a percent sign")
    host = text.lower()
    if not text.isascii():
        try:
            host = text.encode("idna").decode("ascii").lower()
        except UnicodeError:
            raise UrlFault("the host is not a valid international name") from None
    host = host.removesuffix(".")
    labels = host.split(".")
    if not host or len(host) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise UrlFault("the host is not a valid name")
    if _NUMBER_LABEL.fullmatch(labels[-1]) and not _IPV4.fullmatch(host):
        raise UrlFault("a numeric host must be four plain decimal numbers")
    return host


# ---- classes of addresses

_V4 = ipaddress.IPv4Address
_V6 = ipaddress.IPv6Address

# Where clouds hand credentials to whoever asks: AWS and most others, AWS over IPv6, Alibaba, Azure.
_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in (
        *("169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200", "168.63.129.16"),
        *("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254"),
    )
)
_RANGES_4: dict[AddressClass, str] = {
    "unspecified": "0.0.0.0/8",
    "loopback": "127.0.0.0/8",
    "link-local": "169.254.0.0/16",
    "multicast": "224.0.0.0/4",
    "private": "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 192.0.0.0/24 198.18.0.0/15"
    " 192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 240.0.0.0/4",
}
_RANGES_6: dict[AddressClass, str] = {
    "unspecified": "::/128",
    "loopback": "::1/128",
    "link-local": "fe80::/10",
    "multicast": "ff00::/8",
    "private": "fc00::/7 fec0::/10 64:ff9b:1::/48 100::/64 2001:db8::/32 3fff::/20 5f00::/16",
}
_CLASSES_4 = [(ipaddress.IPv4Network(text), name) for name, texts in _RANGES_4.items() for text in texts.split()]
_CLASSES_6 = [(ipaddress.IPv6Network(text), name) for name, texts in _RANGES_6.items() for text in texts.split()]
# Prefix, its length, and how far right the IPv4 address inside begins.
_EMBEDDED = (
    (int(_V6("::ffff:0:0")), 96, 0),  # mapped
    (int(_V6("::ffff:0:0:0")), 96, 0),  # translated
    (0, 96, 0),  # compatible, deprecated
    (int(_V6("64:ff9b::")), 96, 0),  # NAT64
    (int(_V6("64:ff9b:1::")), 48, 0),  # NAT64 of a site
    (int(_V6("2002::")), 16, 80),  # 6to4
)
_TEREDO = int(_V6("2001::")) >> 96
_ISATAP = (0x00005EFE, 0x02005EFE)
_RANK: tuple[AddressClass, ...] = (
    "metadata",
    "loopback",
    "unspecified",
    "link-local",
    "multicast",
    "private",
    "public",
)


def address_class(ip: str | ipaddress.IPv4Address | ipaddress.IPv6Address) -> AddressClass:
    """Say where an address leads. An IPv6 address that carries an IPv4 one counts as the more dangerous of
    the two.

    Raises ``UrlFault`` when a text is not an address.
    """
    if isinstance(ip, str):
        try:
            ip = ipaddress.ip_address(ip.partition("%")[0])
        except ValueError:
            raise UrlFault("not an IP address") from None
    if isinstance(ip, _V4):
        return _class_of_4(ip)
    number = int(ip)
    ip = _V6(number)
    if ip in _METADATA:
        return "metadata"
    found: AddressClass = next((name for network, name in _CLASSES_6 if ip in network), "public")
    inside = [_class_of_4(_V4(part)) for part in _embedded(number)]
    return min([found, *inside], key=_RANK.index)


def _class_of_4(ip: ipaddress.IPv4Address) -> AddressClass:
    if ip in _METADATA:
        return "metadata"
    return next((name for network, name in _CLASSES_4 if ip in network), "public")


def _embedded(number: int) -> list[int]:
    """List the IPv4 addresses, as numbers, that an IPv6 address carries."""
    if number in (0, 1):
        return []
    found = [
        number >> shift & 0xFFFFFFFF
        for prefix, length, shift in _EMBEDDED
        if number >> (128 - length) == prefix >> (128 - length)
    ]
    if number >> 96 == _TEREDO:
        found += [number >> 64 & 0xFFFFFFFF, ~number & 0xFFFFFFFF]
    if number >> 32 & 0xFFFFFFFF in _ISATAP:
        found.append(number & 0xFFFFFFFF)
    return found
