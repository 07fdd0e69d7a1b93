"""A provider reached by HTTP and key: a row of the catalogue, an instance's settings, and the transport.

Owns addresses and headers of every call and what is known of the provider's models. Knows dialects by name
and by their list of models only; never a client, a feature or a connection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from urllib.parse import quote

import msgspec

from llm_proxy import dialects
from llm_proxy.backends.base import Action, Call, Limits, Redirect
from llm_proxy.backends.catalog import AUTH_HEADERS, Row, row_for
from llm_proxy.backends.models import Catalogue
from llm_proxy.backends.quirks import compatible_quirks, lesson
from llm_proxy.backends.transport import CREDENTIAL_HEADERS, Credential, Endpoint, Response, Transport
from llm_proxy.config.backends import BackendSettings
from llm_proxy.config.identity import identity_headers
from llm_proxy.config.kinds import NamedKey
from llm_proxy.conversation.fault import Fault, FaultError
from llm_proxy.dialects.base import ModelInfo
from llm_proxy.dialects.capabilities import Capabilities, lookup
from llm_proxy.wire.faults import UrlFault
from llm_proxy.wire.json import replace_member, split_object
from llm_proxy.wire.secrets import Secret
from llm_proxy.wire.urls import BaseUrl, Origin, address_class, parse_base_url

LOOP_GUARD = "x-llmproxy-loop-guard"
ANTHROPIC_VERSION = "2023-06-01"

_VERSION_PATH = re.compile(r"/v[0-9][a-z0-9]*$")
_FAMILY = re.compile(r"[a-z]+")
_LONGEST_LIST = 16 * 1024 * 1024
_MOST_LEARNED = 1000

_PATHS: Mapping[tuple[str, Action], str] = {
    ("openai-chat", "generate"): "/chat/completions",
    ("openai-chat", "embeddings"): "/embeddings",
    ("openai-chat", "completions"): "/completions",
    ("openai-responses", "generate"): "/responses",
    ("anthropic-messages", "generate"): "/messages",
    ("anthropic-messages", "count"): "/messages/count_tokens",
}


class HttpBackend:
    """One instance of a provider."""

    def __init__(
        self,
        settings: BackendSettings,
        transport: Transport,
        *,
        clock: Callable[[], float],
        list_ttl: float = 300.0,
        fallback_models: tuple[str, ...] = (),
    ) -> None:
        self.settings = settings
        self.row: Row = row_for(settings.type, settings.base_url)
        self._transport = transport
        self._label = f"Back end {settings.id}"
        self._base = _api_root(parse_base_url(settings.base_url or self.row.base_url), self.row.dialect)
        self._own = parse_base_url(self.row.base_url).origin
        self._headers, self._fixed = _split_headers(settings, self._base.origin)
        self._identity = identity_headers(settings.identity)
        self._guarded = self._base.origin != self._own or _is_loopback(self._base.origin)
        self._capabilities: dict[tuple[str, str, str], Capabilities] = {}
        self._learned: dict[tuple[str, str, str], dict[str, object]] = {}
        self._catalogue = Catalogue(
            self._read_models if self.row.models_path else None,
            settings,
            fallback_models or self.row.models,
            ttl=list_ttl,
            clock=clock,
        )

    # what it is

    @property
    def id(self) -> str:
        return self.settings.id

    @property
    def type(self) -> str:
        return self.settings.type

    @property
    def functional(self) -> bool:
        return self.usable and (self.settings.mentioned or not self.settings.borrowed_key)

    @property
    def usable(self) -> bool:
        return self.settings.enabled and (self.settings.no_auth or bool(self.settings.keys))

    @property
    def reason(self) -> str:
        settings = self.settings
        if not settings.enabled:
            return f"it is switched off (backends.{self.id}.enabled)."
        if self.usable:
            return ""
        names = (*self.row.key_env, *self.row.borrowed_env) if self.id == self.type else ()
        if names:
            return f"no key is configured; set {' or '.join(names)}."
        return f"no key is configured; set backends.{self.id}.api_keys, api_key_env, or no_auth."

    @property
    def keys(self) -> tuple[NamedKey | None, ...]:
        return (None,) if self.settings.no_auth else self.settings.keys

    @property
    def origin(self) -> Origin:
        return self._base.origin

    def dialect_for(self, client_dialect: str, redirect: Redirect | None = None) -> str:
        """A Responses client reaches `/responses` where that is known to exist (BE-07); all else speaks the
        row's dialect. Of a session's own server nothing is known.
        """
        if client_dialect == "openai-responses" and self.row.dialect == "openai-chat":
            native = self.settings.native_responses
            if elsewhere := self._elsewhere(redirect):
                native = elsewhere == str(self._own) and self.row.responses
            elif native is None:
                native = self.row.responses and self._base.origin == self._own
            if native:
                return "openai-responses"
        return self.row.dialect

    @property
    def list_failed(self) -> bool:
        return self._catalogue.failed

    @property
    def known_models(self) -> tuple[str, ...] | None:
        return self._catalogue.known

    def supports(self, action: Action) -> bool:
        match action:
            case "generate":
                return True
            case "count":
                return self.row.dialect in ("anthropic-messages", "gemini")
            case _:
                return self.row.side_calls

    # what its models can do

    def capabilities(self, model: str, dialect: str, redirect: Redirect | None = None) -> Capabilities:
        place = (model, dialect, self._elsewhere(redirect))
        found = self._capabilities.get(place)
        if found is None:
            if len(self._capabilities) > _MOST_LEARNED:
                self._capabilities.clear()
            found = self._capabilities[place] = lookup(dialect, model, self._overrides(*place))
        return found

    def _elsewhere(self, redirect: Redirect | None) -> str:
        """The origin of a session's own server; "" for the configured one. What is learned at one says
        nothing of the other.
        """
        if redirect is None:
            return ""
        try:
            origin = parse_base_url(redirect.base_url).origin
        except UrlFault:
            return ""
        return "" if origin == self._base.origin else str(origin)

    def _overrides(self, model: str, dialect: str, elsewhere: str) -> dict[str, object]:
        overrides: dict[str, object] = {}
        if dialect == "openai-chat" and (elsewhere or str(self._base.origin)) != str(self._own):
            overrides |= compatible_quirks(model)
        if self.row.enforces and (elsewhere or str(self._base.origin)) == str(self._own):
            overrides["schema_enforced"] = True
        overrides |= self.row.quirks
        configured = self.settings.models.get(model)
        if configured is not None and configured.max_output_tokens:
            overrides["max_output"] = configured.max_output_tokens
        if not self.settings.usage_include:
            overrides["stream_usage"] = False
        return overrides | self._learned.get((model, dialect, elsewhere), {})

    def limits(self, model: str) -> Limits:
        return self._catalogue.limits(model, self.capabilities(model, self.row.dialect).max_output)

    def maker(self, model: str) -> str:
        family = _FAMILY.match(model.rsplit("/", 1)[-1].lower())
        return f"{self.id}/{family[0] if family else ''}"

    def learn(self, model: str, dialect: str, fault: Fault, redirect: Redirect | None = None) -> bool:
        taught = lesson(fault, self.capabilities(model, dialect, redirect))
        if not taught:
            return False
        if len(self._learned) > _MOST_LEARNED:
            self._learned.clear()
        place = (model, dialect, self._elsewhere(redirect))
        self._learned[place] = self._learned.get(place, {}) | taught
        self._capabilities.pop(place, None)
        return True

    async def models(self) -> list[ModelInfo]:
        return await self._catalogue.models()

    async def close(self) -> None:
        """Stop what runs in the background."""
        await self._catalogue.close()

    # calls

    def credential_for(self, key: NamedKey | None) -> Credential | None:
        """The credential header for `key`, bound to the configured origin."""
        return None if key is None or self.settings.no_auth else self._credential(key.secret, self._base.origin)

    def _credential(self, secret: Secret, origin: Origin) -> Credential:
        header, prefix = AUTH_HEADERS[self.row.auth]
        return Credential(header, secret, origin, prefix)

    async def open(self, call: Call) -> Response:
        headers = self._call_headers(call)
        credential = self.credential_for(call.key)
        body = call.body
        if self.row.ceiling:
            body = _limited(body, self.row.ceiling, self.settings.default_max_tokens)
        if call.redirect is not None:
            return await self._open_redirected(call, call.redirect, headers, credential)
        return await self._transport.post(
            Endpoint(self._base.origin, self._target(self._base.path, call)),
            headers,
            body,
            credentials=(credential, *self._fixed) if credential is not None else self._fixed,
            connect_timeout=self.settings.connect_timeout,
            silence_timeout=self.settings.timeout,
            keep=self.settings.max_connections,
            label=self._label,
            tap=call.tap,
        )

    async def _open_redirected(
        self, call: Call, redirect: Redirect, headers: dict[str, str], credential: Credential | None
    ) -> Response:
        """A session's own server (RT-12): what is configured for the provider stays here unless the operator
        listed it.
        """
        try:
            base = _api_root(parse_base_url(redirect.base_url), self.row.dialect)
        except UrlFault as error:
            raise FaultError(
                Fault(kind="bad_request", message=f"The session's URL is not usable: {error}.", side="client")
            ) from None
        if redirect.keep_key or base.origin == self._base.origin:
            stored = self._fixed if credential is None else (credential, *self._fixed)
            credentials = [msgspec.structs.replace(one, origin=base.origin) for one in stored]
        else:
            credentials = []
            headers = self._call_headers(call, {})
        if not credentials and redirect.credential is not None:
            credentials = [self._credential(redirect.credential, base.origin)]
        if call.loop_guard:
            headers[LOOP_GUARD] = call.loop_guard
        return await self._transport.post(
            Endpoint(base.origin, self._target(base.path, call)),
            headers,
            call.body,
            credentials=credentials,
            connect_timeout=self.settings.connect_timeout,
            silence_timeout=self.settings.timeout,
            address_policy=redirect.policy,
            keep=self.settings.max_connections,
            label=self._label,
            tap=call.tap,
        )

    def _target(self, base: str, call: Call) -> str:
        if call.dialect == "gemini":
            method = "countTokens" if call.action == "count" else "generateContent"
            if call.stream and call.action == "generate":
                method = "streamGenerateContent?alt=sse"
            model = call.model.removeprefix("models/")
            kind = "models"
            if model.startswith("tunedModels/"):
                kind, _, model = model.partition("/")
            return f"{base}/{kind}/{quote(model, safe='')}:{method}"
        path = _PATHS.get((call.dialect, call.action))
        if path is None:
            message = f"{self._label} does not offer {call.action} in this protocol."
            raise FaultError(Fault(kind="bad_request", message=message, side="proxy"))
        return base + path

    def _call_headers(self, call: Call, configured: Mapping[str, str] | None = None) -> dict[str, str]:
        """The weakest first: what the protocol needs, identity, the row's, what is `configured` (the instance's
        headers, unless the call goes elsewhere), the client's protocol headers.
        """
        configured = self._headers if configured is None else configured
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream" if call.stream else "application/json",
            **(call.identity or self._identity),
        }
        if call.dialect == "anthropic-messages":
            headers["anthropic-version"] = ANTHROPIC_VERSION
        headers |= self.row.headers
        headers |= configured
        for name, value in call.headers.items():
            lower = name.lower()
            if lower == "anthropic-beta" and lower in configured:
                value = _join_lists(configured[lower], value)
            headers[lower] = value
        if self._guarded and call.loop_guard:
            headers[LOOP_GUARD] = call.loop_guard
        return headers

    async def _read_models(self) -> list[ModelInfo]:
        """The provider's list, read with the first key. Raises FaultError."""
        path = "/models?pageSize=1000" if self.row.dialect == "gemini" else self.row.models_path
        key = self.keys[0] if self.keys else None
        credential = self.credential_for(key)
        headers = {
            "accept": "application/json",
            **self._identity,
            **self.row.headers,
            **self._headers,
        }
        if self.row.dialect == "anthropic-messages":
            headers.setdefault("anthropic-version", ANTHROPIC_VERSION)
            path += "?limit=1000"
        response = await self._transport.get(
            Endpoint(self._base.origin, self._base.path + path),
            headers,
            credentials=(credential, *self._fixed) if credential is not None else self._fixed,
            connect_timeout=self.settings.connect_timeout,
            silence_timeout=min(30.0, self.settings.timeout),
            label=self._label,
        )
        try:
            if response.status != 200:
                raise FaultError(Fault(kind="upstream", message=f"{self._label} gave no list of models."))
            return dialects.get(self.row.dialect).read_models(await response.read(_LONGEST_LIST))
        finally:
            response.close()


def _limited(body: bytes, ceiling: int, default: int) -> bytes:
    """The body with its output limit lowered to what the provider takes at most, and with the default where it has none."""
    members = split_object(body)
    if "max_tokens" not in members and "max_completion_tokens" not in members:
        return replace_member(body, "max_tokens", str(default).encode())
    for name in ("max_tokens", "max_completion_tokens"):
        limit = members.get(name, b"")
        if limit.isdigit() and int(limit) > ceiling:
            body = replace_member(body, name, str(ceiling).encode())
    return body


def _api_root(base: BaseUrl, dialect: str) -> BaseUrl:
    """Where the endpoints of a dialect begin, below a base address as users write it.

    Gemini's paths begin with `/v1beta`, which some give and some do not. Anthropic's tools name the address
    without `/v1`; other paths are kept as given.
    """
    path = base.path
    if dialect == "gemini" and not _VERSION_PATH.search(path):
        path += "/v1beta"
    elif dialect == "anthropic-messages" and (not path or path.endswith("/anthropic")):
        path += "/v1"
    return BaseUrl(base.origin, path)


def _is_loopback(origin: Origin) -> bool:
    if origin.host == "localhost" or origin.host.endswith(".localhost"):
        return True
    address = origin.ip
    return address is not None and address_class(address) in ("loopback", "unspecified")


def _split_headers(settings: BackendSettings, origin: Origin) -> tuple[dict[str, str], tuple[Credential, ...]]:
    """Configured headers: plain ones, and those that hold a credential, which are bound to the origin.

    A credential header of another type than the instance's is dropped (the configuration reports it);
    `authorization` and the like count only where the proxy does not set them itself.
    """
    row = row_for(settings.type, settings.base_url)
    own = AUTH_HEADERS[row.auth][0]
    others = {header for header, _ in AUTH_HEADERS.values()} - {own}
    plain: dict[str, str] = {}
    fixed: list[Credential] = []
    for name, value in settings.headers.items():
        lower = name.lower()
        if lower in others or lower in ("cookie", "proxy-authorization"):
            continue
        if lower == own and (settings.keys and not settings.no_auth):
            continue
        if lower in CREDENTIAL_HEADERS:
            fixed.append(Credential(lower, Secret(value), origin))
        else:
            plain[lower] = value
    return plain, tuple(fixed)


def _join_lists(first: str, second: str) -> str:
    items = [item.strip() for item in f"{first},{second}".split(",")]
    return ",".join(dict.fromkeys(item for item in items if item))
