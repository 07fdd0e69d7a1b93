"""Who the proxy says it is to providers (REQ-09): the options, one back end's resolved choice, and the headers of a call.

Owns the three headers `X-Title`, `HTTP-Referer` and `User-Agent`. Must not know a request, a provider or how a call is made: what
a client said comes in as a function from header name to text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Literal

import msgspec

from llm_proxy import __version__
from llm_proxy.config.document import Node, Problem
from llm_proxy.config.kinds import named_in
from llm_proxy.config.options import Option, OptionGroup, option
from llm_proxy.wire.headers import forwardable_request_headers, is_valid_header_name

Mode = Literal["default", "override", "passthrough"]

TITLE: Final = "LLM Interactive Proxy"
URL: Final = "http://localhost:8000"
USER_AGENT: Final = f"llm-interactive-proxy/{__version__}"

_HEADERS: Final[Mapping[str, str]] = {"title": "X-Title", "url": "HTTP-Referer", "user_agent": "User-Agent"}

# A name of a program or page; longer text from a client serves nobody and would be kept by caches on the way.
_LONGEST_FROM_CLIENT: Final = 1000


def check_value(value: str) -> str | None:
    return None if value and _is_printable(value) else "printable ASCII text without blanks around it"


def check_name(value: str) -> str | None:
    """Credentials, cookies and what concerns one hop only never reach a provider, whatever they are meant for."""
    name = value.lower()
    if not is_valid_header_name(name) or "*" in name:
        return "the name of a header"
    passes = forwardable_request_headers([(name.encode(), b"-")], frozenset({name}))
    return None if passes else "the name of a header that may be passed on"


def _is_printable(value: str) -> bool:
    return value.isascii() and value.isprintable() and value == value.strip()


def _mode(part: str, env: str) -> Mode:
    return option(
        "default",
        at=f"identity.{part}.mode",
        env=env,
        implied_by=(f"identity.{part}.override_value", "override"),
        help=f"{_HEADERS[part]} for providers: the default value, the override value, or the client's header with the default "
        "value where it sends none; a flag, or a variable for the value without one for the mode, means override",
    )


def _override(part: str, flag: str, env: str | tuple[str, ...]) -> str | None:
    return option(
        None,
        at=f"identity.{part}.override_value",
        env=env,
        flag=flag,
        check=check_value,
        help=f"{_HEADERS[part]} for providers, with mode override",
    )


def _default(part: str, value: str, text: str = "") -> str:
    return option(
        value,
        at=f"identity.{part}.default_value",
        check=check_value,
        default_text=text,
        help=f"{_HEADERS[part]} with mode default, and with mode passthrough where the client sends none",
    )


def _name(part: str, name: str) -> str:
    return option(
        name,
        at=f"identity.{part}.passthrough_name",
        check=check_name,
        help=f"the client's header that becomes {_HEADERS[part]} with mode passthrough",
    )


class IdentityOptions(OptionGroup, path="identity", title="Identity towards providers"):
    """Headers `X-Title`, `HTTP-Referer` and `User-Agent` of every call; `backends.<id>.identity` overrides leaf by leaf."""

    title_mode: Mode = _mode("title", "APP_TITLE_MODE")
    title_override_value: str | None = _override("title", "--identity-title", ("APP_TITLE", "APP_X_TITLE"))
    title_default_value: str = _default("title", TITLE)
    title_passthrough_name: str = _name("title", "x-title")
    url_mode: Mode = _mode("url", "APP_URL_MODE")
    url_override_value: str | None = _override("url", "--identity-url", ("APP_URL", "APP_SITE_URL"))
    url_default_value: str = _default("url", URL)
    url_passthrough_name: str = _name("url", "http-referer")
    user_agent_mode: Mode = _mode("user_agent", "APP_USER_AGENT_MODE")
    user_agent_override_value: str | None = _override("user_agent", "--identity-user-agent", "APP_USER_AGENT")
    user_agent_default_value: str = _default("user_agent", USER_AGENT, "llm-interactive-proxy/<version>")
    user_agent_passthrough_name: str = _name("user_agent", "user-agent")

    def conflicts(self) -> Iterable[tuple[str, str]]:
        return missing_values(identity_of({made.path: getattr(self, made.name) for made in self.options}))


LEAVES: Final[Mapping[str, Option]] = {made.path.removeprefix("identity."): made for made in IdentityOptions.options}
"""The options by their path below `identity`."""


class IdentityHeader(msgspec.Struct, frozen=True):
    """How the value of one header is found."""

    mode: Mode
    override_value: str | None
    default_value: str
    passthrough_name: str

    def value(self, client_header: Callable[[str], str]) -> str:
        match self.mode:
            case "override":
                return self.override_value or self.default_value
            case "passthrough":
                given = client_header(self.passthrough_name).strip()
                usable = given and len(given) <= _LONGEST_FROM_CLIENT and _is_printable(given)
                return given if usable else self.default_value
            case "default":
                return self.default_value


class Identity(msgspec.Struct, frozen=True):
    """The three headers of one back end, resolved: its own leaves over the global ones."""

    title: IdentityHeader = IdentityHeader("default", None, TITLE, "x-title")
    url: IdentityHeader = IdentityHeader("default", None, URL, "http-referer")
    user_agent: IdentityHeader = IdentityHeader("default", None, USER_AGENT, "user-agent")

    @property
    def from_client(self) -> frozenset[str]:
        """The client's headers that are wanted, in lower case."""
        return frozenset(
            header.passthrough_name
            for header in (self.title, self.url, self.user_agent)
            if header.mode == "passthrough"
        )

    def leaf(self, path: str) -> str | None:
        """The value at a path such as `title.mode`."""
        part, _, name = path.partition(".")
        found: str | None = getattr(getattr(self, part), name)
        return found


def identity_of(values: Mapping[str, str | None]) -> Identity:
    """The identity with these values by full option path, such as `identity.title.mode`; all twelve."""
    headers = {}
    for part in ("title", "url", "user_agent"):
        leaves = {name: values[f"identity.{part}.{name}"] for name in IdentityHeader.__struct_fields__}
        headers[part] = msgspec.convert(leaves, IdentityHeader)
        lower = headers[part].passthrough_name.lower()
        headers[part] = msgspec.structs.replace(headers[part], passthrough_name=lower)
    return Identity(**headers)


def missing_values(identity: Identity) -> Iterator[tuple[str, str]]:
    """Pairs of option path and what was expected there."""
    for part in ("title", "url", "user_agent"):
        if identity.leaf(f"{part}.mode") == "override" and not identity.leaf(f"{part}.override_value"):
            yield f"identity.{part}.mode", f"identity.{part}.override_value with mode override"


def identity_headers(identity: Identity, client_header: Callable[[str], str] = lambda name: "") -> dict[str, str]:
    """`x-title`, `http-referer` and `user-agent` of one call. `client_header` gives the client's header of a name in lower
    case, "" if absent; without it there is no client, as when a list of models is read.
    """
    return {
        "x-title": identity.title.value(client_header),
        "http-referer": identity.url.value(client_header),
        "user-agent": identity.user_agent.value(client_header),
    }


def read_leaves(node: Node | None, path: str, problems: list[Problem]) -> dict[str, Node]:
    """What one source says at `path`, a map of maps or of dotted names, by path below `identity`; a null says nothing."""
    return {} if node is None else dict(named_in(node, path, LEAVES, problems))
