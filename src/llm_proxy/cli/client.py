"""The running proxy, asked as any client asks it: where it is, with which key, and what went wrong in words.

Owns what the commands `models` and `stream-test` share: their flags, the settings behind them, one HTTP request. Prints nothing.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import ssl
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from llm_proxy.cli import CommandFault
from llm_proxy.config import ConfigError, Settings
from llm_proxy.config.flags import Parser
from llm_proxy.config.groups import AuthOptions, ServerOptions
from llm_proxy.option_groups import GROUPS
from llm_proxy.store.saved_state import effective_settings
from llm_proxy.wire.faults import UrlFault
from llm_proxy.wire.urls import BaseUrl, parse_base_url

_CONNECT_SECONDS = 10.0
_MOST_ERROR_BYTES = 65536
_TOO_WIDE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class NotRunning(CommandFault):
    """Nobody answers at the address of the proxy."""


class Proxy(msgspec.Struct, frozen=True):
    """Where a proxy listens, and the client key for it ("" for none). `path` stands before `/v1`."""

    base: BaseUrl
    key: str

    def __str__(self) -> str:
        return str(self.base)


def parser(command: str, purpose: str, examples: str) -> Parser:
    """A parser whose help names the command's own flags; those of `serve` are taken too, to find the same configuration."""
    return Parser(
        prog=f"llm-proxy {command}",
        description=purpose,
        epilog=f"The options of serve are accepted too (see llm-proxy --help), so that the same configuration is found.\n\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_address(to: Parser) -> None:
    to.add_argument("--url", help="address of the proxy [default: host and port of the configuration]")
    to.add_argument(
        "--key",
        help="client key; others can see it in the list of processes, so better set LLM_INTERACTIVE_PROXY_API_KEY",
    )


def read(to: Parser, arguments: Sequence[str]) -> tuple[argparse.Namespace, Settings]:
    """The command's own flags and the settings that all others give. Raises CommandFault (2)."""
    try:
        options, rest = to.parse_known_args(list(arguments))
        return options, effective_settings(rest, os.environ, Path.cwd(), GROUPS)
    except ConfigError as error:
        raise CommandFault("\n".join(error.errors[:20]), status=2) from None


def locate(options: argparse.Namespace, settings: Settings) -> Proxy:
    """The proxy that the flags or the configuration name. Raises CommandFault (2)."""
    return Proxy(_base(options.url, settings.get(ServerOptions)), options.key or _key(settings.get(AuthOptions)))


def _base(url: str | None, server: ServerOptions) -> BaseUrl:
    if url is None:
        if server.port == 0:
            raise CommandFault("with port 0 the proxy takes any free port; name its address with --url", status=2)
        host = _TOO_WIDE.get(server.host, server.host)
        url = f"http://[{host}]:{server.port}" if ":" in host else f"http://{host}:{server.port}"
    try:
        base = parse_base_url(url)
    except UrlFault as fault:
        raise CommandFault(f"--url: {fault}", status=2) from None
    return BaseUrl(base.origin, base.path.removesuffix("/v1"))


def _key(auth: AuthOptions) -> str:
    if auth.api_keys:
        return auth.api_keys[0].secret.reveal()
    return auth.auth_token.reveal() if auth.auth_token is not None else ""


@contextmanager
def asking(
    proxy: Proxy, method: str, path: str, body: Mapping[str, Any] | None = None, silence: float = 30.0
) -> Iterator[http.client.HTTPResponse]:
    """The answer with status 200, to be read. `silence`: seconds without a byte that are too many. Raises CommandFault."""
    connection = _connection(proxy)
    try:
        yield _answer(proxy, connection, method, path, body, silence)
    except TimeoutError:
        raise CommandFault(f"{proxy} sent nothing for {silence:g} seconds") from None
    except BrokenPipeError:
        raise  # standard output was closed
    except (OSError, http.client.HTTPException) as error:
        raise CommandFault(f"{proxy} broke the answer off ({_words(error)})") from None
    finally:
        connection.close()


def _connection(proxy: Proxy) -> http.client.HTTPConnection:
    origin = proxy.base.origin
    if origin.scheme == "https":
        return http.client.HTTPSConnection(
            origin.host, origin.port, timeout=_CONNECT_SECONDS, context=ssl.create_default_context()
        )
    return http.client.HTTPConnection(origin.host, origin.port, timeout=_CONNECT_SECONDS)


def _answer(
    proxy: Proxy,
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: Mapping[str, Any] | None,
    silence: float,
) -> http.client.HTTPResponse:
    headers = {"Accept": "text/event-stream" if body and body.get("stream") else "application/json"}
    if proxy.key:
        headers["Authorization"] = f"Bearer {_sendable(proxy.key)}"
    data = None
    if body is not None:
        data = json.dumps(body).encode()
        headers["Content-Type"] = "application/json"
    try:
        connection.connect()
    except (OSError, http.client.HTTPException) as error:
        message = f"no proxy answers at {proxy} ({_words(error)}); start one with llm-proxy, or name another with --url"
        raise NotRunning(message) from None
    assert isinstance(connection.sock, socket.socket)
    connection.sock.settimeout(silence)
    try:
        connection.request(method, proxy.base.path + path, data, headers)
    except BrokenPipeError:
        raise CommandFault(f"{proxy} closed the connection before it had read the request") from None
    response = connection.getresponse()
    if response.status != 200:
        raise CommandFault(_refusal(proxy, response.status, response.read(_MOST_ERROR_BYTES)))
    return response


def _sendable(key: str) -> str:
    if not (key.isascii() and key.isprintable()):
        raise CommandFault("--key: expected printable ASCII characters", status=2)
    return key


def _refusal(proxy: Proxy, status: int, body: bytes) -> str:
    message = ""
    try:
        answer = json.loads(body)
        error = answer.get("error", answer) if isinstance(answer, dict) else {}
        message = str(error.get("message", "")) if isinstance(error, dict) else ""
    except ValueError:
        pass
    text = f"{proxy} answers with status {status}" + (f": {printable(message)}" if message else "")
    if status == 401:
        text += "\ngive the client key with LLM_INTERACTIVE_PROXY_API_KEY or --key"
    return text


def printable(text: str) -> str:
    """`text` on one line, without what a terminal would take for orders."""
    return "".join(char if char.isprintable() else " " for char in text)


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def emphasised(text: str, code: str = "1") -> str:
    """`text` bold (or in another style), if a person sees it on a terminal."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{code}m{text}\x1b[0m"
