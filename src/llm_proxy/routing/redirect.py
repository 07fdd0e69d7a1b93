"""Whether and how a session's OpenAI calls may go to another server (RT-12).

Pure: decides by the address as it is written, by the operator's list and by where the client sits. Where a name leads is checked again by
the transport, at the moment of connecting. Knows no session and no request, and never repeats an address in words: it may hold a password.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

from llm_proxy.backends.base import Redirect
from llm_proxy.conversation.fault import Fault, FaultError, bad_request
from llm_proxy.routing.options import check_origin
from llm_proxy.wire.faults import UrlFault
from llm_proxy.wire.secrets import Secret
from llm_proxy.wire.urls import BaseUrl, Origin, address_class, parse_base_url, parse_origin

_OF_THIS_MACHINE = frozenset(("127.0.0.1", "::1", "0.0.0.0", "::"))
_FORM = "give an absolute http or https URL such as http://localhost:1234/v1"


def refusal(url: str, *, allowed: tuple[str, ...], local: bool, own: Collection[tuple[str, int]] = ()) -> str:
    """Why calls may not be sent to `url`, as a sentence without its end; "" when they may, as far as can be told without connecting.

    `allowed`: the operator's origins. `local`: the client connects from this machine. `own`: address and port of the proxy's listeners.
    """
    try:
        base = parse_base_url(url)
    except UrlFault as fault:
        return f"{fault}; {_FORM}"
    return _why_not(base, listed=base.origin in _origins(allowed), local=local, own=own)


def redirect_to(
    url: str,
    *,
    allowed: tuple[str, ...],
    local: bool,
    credential: Secret | None,
    configured: Origin | None,
    own: Collection[tuple[str, int]] = (),
) -> Redirect:
    """The redirect of one call. Raises FaultError when the address that was once accepted is refused now (RT-12).

    The stored key goes along only to the origin that the back end is configured with, or to a listed one. `credential` is the key that
    the client itself supplied.
    """
    why = refusal(url, allowed=allowed, local=local, own=own)
    if why:
        message = f"The session's openai-url is not usable: {why}. Change it, or remove it by unset(openai-url)."
        raise FaultError(Fault(kind="permission", message=message, side="proxy"))
    if credential is not None and not _fits_a_header(credential):
        raise bad_request("x-llm-proxy-upstream-key: expected printable ASCII characters", "x-llm-proxy-upstream-key")
    origin = parse_base_url(url).origin
    listed = origin in _origins(allowed)
    return Redirect(
        base_url=url,
        policy="local" if local or listed else "public",
        keep_key=listed or origin == configured,
        credential=credential,
    )


@lru_cache(maxsize=16)
def _origins(texts: tuple[str, ...]) -> frozenset[Origin]:
    """The configuration has checked them; one that cannot be read allows nothing."""
    return frozenset(parse_origin(text) for text in texts if check_origin(text) is None)


def _why_not(base: BaseUrl, *, listed: bool, local: bool, own: Collection[tuple[str, int]]) -> str:
    """Names of this machine and literal addresses can be told now; all other names when they are resolved."""
    origin = base.origin
    literal = origin.ip
    if literal is not None:
        kind = address_class(literal)
    elif origin.host == "localhost" or origin.host.endswith(".localhost"):
        kind = "loopback"
    else:
        return ""
    if kind in ("loopback", "private"):
        ours = _OF_THIS_MACHINE if kind == "loopback" else frozenset((str(literal),))
        if any(port == origin.port and address in ours for address, port in own):
            return "this is the proxy itself"
        if local or listed:
            return ""
        return (
            "addresses of this machine and of private networks are only for clients on this machine, "
            "or for origins that the operator has listed in allowed_redirect_origins"
        )
    if kind == "public":
        return ""
    return f"{kind} addresses are never called"


def _fits_a_header(credential: Secret) -> bool:
    value = credential.reveal()
    return value.isascii() and value.isprintable()
