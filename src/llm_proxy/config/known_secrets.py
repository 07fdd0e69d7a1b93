"""Which secrets a configuration holds: keys, tokens, passwords in addresses, and what the environment calls a secret (OPS-04).

Owns the search through what was read. What is done with the values is not known here; logins renew theirs themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from llm_proxy.config.backends import is_placeholder
from llm_proxy.config.built_in import BUILT_IN
from llm_proxy.config.kinds import NamedKey
from llm_proxy.config.options import NUMBERED
from llm_proxy.config.settings import Settings
from llm_proxy.wire.secrets import Secret

# What other programs of the same environment call their secrets.
_SECRET_NAME: Final = re.compile(r".*(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD)(?:_\d{1,2})?\Z", re.IGNORECASE)
_CREDENTIAL_HEADERS: Final = frozenset(("authorization", "cookie", "proxy-authorization"))
_LEAST: Final = 16
"""Characters of a value that only its variable's name calls a secret: shorter ones are words, which prompts may hold."""


def known_secrets(settings: Settings) -> list[Secret]:
    """Every value that nobody but its owner and the server it is for may see. Equal ones once."""
    found = [*_of_options(settings), *_of_backends(settings), *of_environment(settings.environ)]
    return list(dict.fromkeys(secret for secret in found if secret))


def _of_options(settings: Settings) -> Iterator[Secret]:
    for row in settings.rows():
        values = row.value if isinstance(row.value, tuple) else (row.value,)
        for value in values:
            match value:
                case Secret():
                    yield value
                    yield from _of_address(value.reveal())
                case NamedKey():
                    yield value.secret
                case str() if "://" in value:
                    yield from _of_address(value)
                case str() if row.kind.secret:
                    yield Secret(value)


def _of_backends(settings: Settings) -> Iterator[Secret]:
    """Also of those that are not in use, which `rows` leaves out."""
    for backend in settings.backends.values():
        yield from (key.secret for key in backend.keys)
        for name, value in backend.headers.items():
            if name.lower() in _CREDENTIAL_HEADERS or _SECRET_NAME.match(name):
                yield Secret(value)
                yield Secret(value.partition(" ")[2])  # without the word `Bearer`


def _of_address(text: str) -> Iterator[Secret]:
    """The password and the parameters of an address."""
    try:
        parts = urlsplit(text)
        hidden = [parts.password or "", *(value for name, value in parse_qsl(parts.query) if _SECRET_NAME.match(name))]
    except ValueError:
        return
    for value in hidden:
        yield Secret(value)
        yield Secret(unquote(value))


def of_environment(environ: Mapping[str, str]) -> Iterator[Secret]:
    """Keys of providers under the names that they are known by, used or not, and values that look random under the name of a secret."""
    named = {name for built_in in BUILT_IN.values() for name in (*built_in.key_env, *built_in.borrowed_env)}
    named |= {f"{name}_{number}" for name in tuple(named) for number in range(1, NUMBERED + 1)}
    for name, value in environ.items():
        value = value.strip().strip("\"'")
        if name in named:
            if not is_placeholder(value):
                yield Secret(value)
        elif "://" in value:
            yield from _of_address(value)
        elif _SECRET_NAME.match(name) and _looks_random(value):
            yield Secret(value)


def _looks_random(value: str) -> bool:
    return (
        len(value) >= _LEAST
        and not value.startswith(("/", "~", ".", "http://", "https://"))
        and not any(character.isspace() for character in value)
        and any(character.isdigit() for character in value)
        and any(character.isalpha() for character in value)
    )
