"""What goes wrong on the way to a provider, told so that whoever reads it can mend it (OPS-20).

Owns the sentences: each begins with the back end, says which part failed, and names the option to look at. None names a host or an
address, since clients read them too. Knows the HTTP library's exceptions; makes no connection.
"""

from __future__ import annotations

import errno
import socket
import ssl

import aiohttp

from llm_proxy.backends.transport import ConnectError
from llm_proxy.conversation.fault import Fault, FaultError, FaultKind

_PROXY_OPTION = "option proxy.upstream_proxy, or HTTPS_PROXY"
_NEEDS_PROXY = "where only an HTTP proxy leads out, set HTTPS_PROXY"
PROXY_WANTS_CREDENTIALS = 407


class AddressRefused(aiohttp.ClientError):
    """The address is not one that this call may reach."""


class NotAnAnswer(aiohttp.ClientError):
    """What came is no HTTP answer that we accept."""


def silence(label: str, seconds: float | None) -> Fault:
    return Fault(kind="timeout", message=f"{label} sent nothing for {seconds:g} seconds (option proxy.timeout).")


def unreachable(label: str, text: str, kind: FaultKind = "unavailable") -> ConnectError:
    return ConnectError(Fault(kind=kind, message=f"{label} {text}."))


def refused_by_proxy(label: str, status: int) -> ConnectError:
    """The HTTP proxy in between let the call not pass."""
    hint = f"{_PROXY_OPTION}: http://user:password@host:port" if status == PROXY_WANTS_CREDENTIALS else _PROXY_OPTION
    return unreachable(label, f"cannot be reached: the HTTP proxy refused with status {status} ({hint})")


def translate(
    error: BaseException, label: str, *, connect_timeout: float, silence_timeout: float | None, proxied: bool
) -> FaultError:
    """What an exception of the library means. `label` begins the sentence, `proxied`: the call went through an HTTP proxy."""
    match error:
        case AddressRefused():
            message = f"{label} cannot be called at this address: addresses of this kind are not allowed here."
            return FaultError(Fault(kind="permission", message=message, side="proxy"))
        case aiohttp.ConnectionTimeoutError():
            return unreachable(label, _late(connect_timeout, proxied), "timeout")
        case TimeoutError():
            return FaultError(silence(label, silence_timeout))
        case aiohttp.ClientHttpProxyError():
            return refused_by_proxy(label, error.status)
        case aiohttp.ClientProxyConnectionError():
            problem = _connect_problem(error.os_error)
            return unreachable(label, f"cannot be reached: on the way to the HTTP proxy {problem} ({_PROXY_OPTION})")
        case aiohttp.ClientConnectorDNSError():
            return unreachable(label, f"cannot be reached: {_name_problem(error.os_error, proxied)}")
        case aiohttp.ClientConnectorCertificateError():
            return unreachable(label, f"cannot be reached: {_certificate_problem(error.certificate_error)}")
        case aiohttp.ClientSSLError():
            return unreachable(label, "cannot be reached: the TLS handshake failed (is base_url really https?)")
        case aiohttp.ClientConnectorError():
            return unreachable(label, f"cannot be reached: {_connect_problem(error.os_error)} ({_look_at(error)})")
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | ConnectionError():
            message = f"{label} closed the connection before it answered."
            return FaultError(Fault(kind="closed", message=message))
        case NotAnAnswer():
            return FaultError(Fault(kind="upstream", message=f"{label} sent {error}."))
        case aiohttp.InvalidURL() if proxied:
            return unreachable(label, f"cannot be reached: the HTTP proxy's address is not readable ({_PROXY_OPTION})")
        case _:
            message = f"{label} answered with something that is not valid HTTP."
            return FaultError(Fault(kind="upstream", message=message))


def _late(seconds: float, proxied: bool) -> str:
    if proxied:
        return f"gave no connection through the HTTP proxy within {seconds:g} seconds (option proxy.connect_timeout; {_PROXY_OPTION})"
    return (
        f"gave no connection within {seconds:g} seconds (option proxy.connect_timeout; check base_url; {_NEEDS_PROXY})"
    )


def _name_problem(error: OSError, proxied: bool) -> str:
    whose, look = ("the HTTP proxy", _PROXY_OPTION) if proxied else ("its base_url", f"check base_url; {_NEEDS_PROXY}")
    if error.errno == socket.EAI_AGAIN:
        return f"DNS gave no answer for the host name of {whose} (is this machine connected? Then {look})"
    return f"DNS does not know the host name of {whose} ({look})"


def _certificate_problem(error: Exception) -> str:
    """Which of the two failed: that the certificate can be trusted, or that it is for this name."""
    if isinstance(error, ssl.SSLCertVerificationError):
        match error.verify_code:
            case 62 | 64:  # X509_V_ERR_HOSTNAME_MISMATCH, …_IP_ADDRESS_MISMATCH
                return "the server's certificate is for another name than that of base_url (check base_url)"
            case 10:
                return "the server's certificate has expired (or this machine's clock is wrong)"
            case 9:
                return "the server's certificate is not valid yet (or this machine's clock is wrong)"
            case 23:
                return "the server's certificate was revoked (check base_url)"
    return (
        "the server's certificate is not trusted (self-signed, or by an unknown authority; "
        "check base_url, or name the authority's file in SSL_CERT_FILE)"
    )


def _connect_problem(error: OSError) -> str:
    match error.errno:
        case errno.ECONNREFUSED:
            return "the connection was refused"
        case errno.ENETUNREACH | errno.EHOSTUNREACH:
            return "the network or the host is unreachable"
        case errno.ECONNRESET:
            return "the connection was reset"
        case errno.EMFILE | errno.ENFILE:
            return "this process has no file descriptors left"
        case _:
            return "the connection failed"


def _look_at(error: aiohttp.ClientConnectorError) -> str:
    match error.os_error.errno:
        case errno.EMFILE | errno.ENFILE:
            return "raise its limit of open files"
        case errno.ENETUNREACH | errno.EHOSTUNREACH:
            return f"check base_url; {_NEEDS_PROXY}"
        case _:
            return "check base_url"
